"""Work in parts, each of which is done once: what is finished lies in a folder, and is found there the next time.

A partition is called after all that its result depends on, so that nothing stale is ever taken for fresh: where the
input changes, so does the name. A shard appears whole or not at all. So whatever is interrupted, a worker, a scheduler,
this process, costs what was under way.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from holdfast.atomic import write_atomically
from holdfast.executor.executor import ATTEMPTS, Executor, Item

Progress = Callable[[int, int], None]

_NAME = re.compile(r"[0-9a-f]{2,}")


@dataclass(frozen=True)
class Partition(Generic[Item]):
    """A part of some work.

    Attributes:
        name: hex digest of all that its result depends on: the items with their versions, the task and its settings.
        items: what the task gets.
        size: how much it is, in the unit of the progress.
    """

    name: str
    items: Sequence[Item]
    size: int


class Shards:
    """Finished partitions in a folder, a file for each: ``<folder>/<xx>/<name><suffix>``.

    Args:
        folder: made when the first is written.
        suffix: of the files, such as ``.parquet``.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder, suffix

    def path(self, name: str) -> Path:
        """Where the shard of a partition is, or would be."""
        return self.folder / name[:2] / f"{name}{self.suffix}"

    def has(self, name: str) -> bool:
        """Whether the partition is finished."""
        return self.path(name).exists()

    def write(self, name: str, data: bytes) -> None:
        """Note that a partition is finished.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        write_atomically(self.path(name), data)

    def names(self) -> Iterator[str]:
        """The partitions that are finished, in order. What else lies in the folder is none of ours."""
        for path in sorted(self.folder.glob(f"[0-9a-f][0-9a-f]/*{self.suffix}")):
            name = path.name.removesuffix(self.suffix)
            if _NAME.fullmatch(name) and path == self.path(name):
                yield name

    def forget(self, keep: Collection[str]) -> int:
        """Remove all shards but some; how many went."""
        gone = [name for name in self.names() if name not in keep]
        for name in gone:
            self.path(name).unlink(missing_ok=True)
        return len(gone)


def run_partitions(
    executor: Executor,
    function: Callable[[Sequence[Item]], bytes],
    partitions: Iterable[Partition[Item]],
    shards: Shards,
    *,
    attempts: int = ATTEMPTS,
    progress: Progress = lambda _done, _total: None,
) -> list[Path]:
    """Finish every partition that is not finished yet; the shards' paths in the order of the partitions.

    Args:
        executor: where tasks run.
        function: makes a shard's bytes of a partition's items; the same bytes of the same items, wherever it runs.
        partitions: all of the work; equal names are done once.
        shards: where finished ones are.
        attempts: as of `Executor.completed`.
        progress: told how much of how much is done.

    Raises:
        WorkersLostError: what runs the tasks is gone.
        OSError: a shard cannot be written.
        Exception: what a task raised.
    """
    every = list(partitions)
    distinct = {partition.name: partition for partition in every}
    missing = [partition for name, partition in distinct.items() if not shards.has(name)]
    total = sum(partition.size for partition in distinct.values())
    done = total - sum(partition.size for partition in missing)
    progress(done, total)
    for partition, data in executor.completed(_Task(function), missing, attempts=attempts):
        shards.write(partition.name, data)
        done += partition.size
        progress(done, total)
    return [shards.path(partition.name) for partition in every]


@dataclass(frozen=True)
class _Task(Generic[Item]):
    """The function of a partition, which can be pickled if the function of its items can."""

    function: Callable[[Sequence[Item]], bytes]

    def __call__(self, partition: Partition[Item]) -> bytes:
        return self.function(partition.items)
