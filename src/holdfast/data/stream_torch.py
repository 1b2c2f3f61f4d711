"""A stream for torch: a dataset, and a loader that knows how far it has come.

Imported where it is asked for, because torch takes seconds.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from holdfast.data.stream_apart import forks_workers, has_used_buckets
from holdfast.data.stream_dataset import Stream
from holdfast.errors import UsageError

FIXED = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "dataset")


class StreamDataset(IterableDataset[Any]):
    """A stream as torch knows datasets. Each worker of a DataLoader gives its own part.

    As with a ``DistributedSampler``, whoever has workers says which epoch it is by `set_epoch`; `StreamLoader` does.

    Args:
        stream: what is given.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream
        # shared with the workers: those that stay from epoch to epoch learn of the next one by it; -1 where the stream
        # that they were given says it
        self._epoch = torch.tensor([-1]).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is None:
            return iter(self.stream)
        if (epoch := int(self._epoch[0])) >= 0:
            self.stream.set_epoch(epoch)
        return self.stream.run(worker.id, worker.num_workers)

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch with the next pass."""
        self.stream.set_epoch(epoch)
        self._epoch[0] = epoch


class StreamLoader(DataLoader[Any]):
    """A DataLoader over a stream. A pass is an epoch, and the next pass the next one.

    Where this process forks its workers and has used a bucket itself, they are started anew instead (``spawn``), since
    a fork could not use it.

    Args:
        stream: what is loaded.
        num_workers: processes.
        options: a DataLoader's.

    Raises:
        UsageError: an option is the stream's to say.
    """

    def __init__(self, stream: Stream, *, num_workers: int = 0, **options: Any) -> None:
        for name in FIXED:
            if name in options:
                raise UsageError(f"{name} is no option of a stream's loader", hint="Say it to `holdfast.data.stream`")
        if num_workers and options.get("multiprocessing_context") is None and forks_workers() and has_used_buckets():
            options["multiprocessing_context"] = "spawn"
        self.stream = stream
        super().__init__(
            StreamDataset(stream), batch_size=stream.settings.batch_size, num_workers=num_workers, **options
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        stream, dataset = self.stream, self.dataset
        assert isinstance(dataset, StreamDataset)
        dataset.set_epoch(stream.epoch)
        batches = super().__iter__()
        # without workers the dataset is read in this process, and counts by itself
        yield from stream.counted(batches, self.num_workers) if self.num_workers else batches

    def state_dict(self) -> dict[str, Any]:
        """How far it has come: a batch that was given has been taken; see `Stream.state_dict`."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next pass go on where a state was taken; see `Stream.load_state_dict`."""
        self.stream.load_state_dict(state)
        self._iterator = None  # workers that stay from epoch to epoch would not learn of it


def distributed_rank() -> tuple[int, int] | None:
    """Rank and number of ranks of torch's process group; None where there is none."""
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()
