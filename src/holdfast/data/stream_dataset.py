"""Samples straight from where their files are: in a fixed order, dealt to ranks and workers, ahead of their use."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from holdfast.data.stream_ahead import ahead
from holdfast.data.stream_apart import apart
from holdfast.data.stream_cache import StreamCache
from holdfast.data.stream_fetch import Fetcher, patience
from holdfast.data.stream_files import StreamFile, Supply
from holdfast.data.stream_order import (
    Dealing,
    Indices,
    Taken,
    epoch_key,
    epoch_order,
    given_by,
    lane,
    lane_sizes,
    rank_share,
    share_size,
    without,
)
from holdfast.data.stream_records import Read, Records, plan_reads
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from holdfast.data.stream_torch import StreamDataset, StreamLoader

JOBS = 16
AHEAD_BYTES = 256 * 2**20
CACHE_BYTES = 10 * 2**30
PAGE_BYTES = 256 * 2**10
WINDOW_PAGES = 256
OUTAGE_SECONDS = 120.0
FORMAT = "holdfast stream 1"


class ForeignStateError(UsageError):
    """A state is not of this stream."""


@dataclass(frozen=True)
class Settings:
    """How samples are given; see `holdfast.data.stream`.

    Attributes:
        shuffle: whether their order changes with each epoch.
        seed: of that order.
        batch_size: samples of a batch.
        drop_last: whether the last, incomplete round is left out.
        rank: which of the ranks this one is, from 0 on.
        world_size: how many there are.
        jobs: requests at a time.
        ahead_bytes: of what was fetched and not used yet.
        cache: the folder of what was fetched; None for none.
        cache_bytes: its bound.
        page_bytes: neighbouring records of so many bytes stay together in a shuffled order.
        outage_seconds: how long a server may be away.

    Raises:
        UsageError: a number makes no sense.
    """

    shuffle: bool = False
    seed: int = 0
    batch_size: int = 1
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    jobs: int = JOBS
    ahead_bytes: int = AHEAD_BYTES
    cache: Path | None = None
    cache_bytes: int = CACHE_BYTES
    page_bytes: int = PAGE_BYTES
    outage_seconds: float = OUTAGE_SECONDS

    def __post_init__(self) -> None:
        for name in ("batch_size", "world_size", "jobs", "ahead_bytes", "page_bytes"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, and must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise UsageError(f"rank {self.rank} is none of {self.world_size}", hint="Ranks count from 0 on")


@dataclass(frozen=True)
class Samples:
    """What a stream gives.

    Attributes:
        files: where samples come from.
        supplies: where files come from.
        records: what is in the files; None where each is a sample.
        decode: makes a sample of a name and bytes, or an array; None to give both as they are.
    """

    files: Sequence[StreamFile]
    supplies: tuple[Supply, ...]
    records: Records | None = None
    decode: Callable[[str, Any], Any] | None = None

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self.files) if self.records is None else self.records.count


class Stream:
    """Samples in the order of an epoch, those of one rank; `holdfast.data.stream` makes it.

    A pass over it is an epoch, and the next pass the next epoch; one that was broken off is begun again, unless its
    state was loaded. It may be pickled, with the credentials that it was given, and its files are opened by the process
    that reads them.

    Args:
        samples: what there is.
        settings: how it is given.

    Attributes:
        epoch: the one that the next pass gives, or this one.
    """

    def __init__(self, samples: Samples, settings: Settings) -> None:
        self.samples, self.settings = samples, settings
        self.epoch = 0
        self._before: tuple[Taken, ...] = ()  # of this epoch, by those whose state was loaded
        self._now: Taken | None = None  # and since then
        self._fetcher: tuple[int, Fetcher] | None = None

    def __repr__(self) -> str:
        place = f"rank {self.settings.rank} of {self.settings.world_size}"
        return f"<Stream of {self.samples.count} samples in {len(self.samples.files)} files, {place}>"

    def __len__(self) -> int:
        """How many samples of an epoch are this rank's."""
        return share_size(self.samples.count, self.settings.rank, self._dealing(1))

    def __iter__(self) -> Iterator[Any]:
        dealing, begun = self._dealing(1), (self.epoch, self._before)
        self._now = None
        for given, sample in enumerate(self.run(0, 1), start=1):
            self._now = Taken(dealing, (given,))
            yield sample
        if begun == (self.epoch, self._before):
            self.end_epoch()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fetcher": None}

    def set_epoch(self, epoch: int) -> None:
        """Begin another epoch with the next pass."""
        if epoch != self.epoch:
            self.epoch, self._before, self._now = epoch, (), None

    def end_epoch(self) -> None:
        """The next pass is the next epoch."""
        self.set_epoch(self.epoch + 1)

    @cached_property
    def fingerprint(self) -> str:
        """Names the samples: streams of the same have the same, on every rank."""
        digest = blake3()
        for file in self.samples.files:
            digest.update("\0".join([file.name, file.key, file.etag, file.checksum, ""]).encode("utf-8", "replace"))
        if self.samples.records is not None:
            digest.update(self.samples.records.starts.tobytes())
            digest.update(f"{self.settings.page_bytes} {WINDOW_PAGES}".encode())
        return digest.hexdigest()[:32]

    def state_dict(self) -> dict[str, Any]:
        """How far the pass of this process has come, as plain values; a sample that was given has been taken.

        Of a DataLoader with workers it is `loader` that knows. Ranks that have taken as many batches have the same
        state, and any of them may go on from that of any other.
        """
        taken = (*self._before, *([self._now] if self._now else []))
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "shuffle": self.settings.shuffle,
            "seed": self.settings.seed,
            "epoch": self.epoch,
            "taken": [one.as_json() for one in taken],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next pass go on where a state was taken, with as many ranks and workers as there are now.

        Raises:
            ForeignStateError: it is of other samples, of another order, or no state of a stream.
        """
        own = self.state_dict()
        for name, told in (("format", ""), ("fingerprint", "files have changed"), ("shuffle", ""), ("seed", "")):
            if state.get(name) != own[name]:
                what = told or f"its {name} is {state.get(name)!r} instead of {own[name]!r}"
                raise ForeignStateError(
                    f"the state is not of this stream: {what}",
                    hint="Make the stream as it was made then; `REV:path` names the files of a commit",
                )
        try:
            taken = tuple(Taken.from_json(one) for one in state["taken"])
            epoch = int(state["epoch"])
        except (KeyError, TypeError, ValueError) as error:
            raise ForeignStateError(f"the state is torn: {error!r}") from error
        self.epoch, self._before, self._now = epoch, taken, None

    def counted(self, batches: Iterable[Any], workers: int) -> Iterator[Any]:
        """What a DataLoader with workers gives, noted as taken; it takes a batch from each worker in turn."""
        dealing, begun = self._dealing(workers), (self.epoch, self._before)
        sizes = lane_sizes(share_size(len(self._order()), self.settings.rank, dealing), dealing)
        self._now = None
        for given, batch in enumerate(batches, start=1):
            self._now = Taken(dealing, given_by(given, sizes, dealing.batch))
            yield batch
        if begun == (self.epoch, self._before):
            self.end_epoch()

    def peek(self, count: int = 1) -> list[Any]:
        """The first samples of the epoch; no pass begins, and this process stays one that can fork workers.

        Raises:
            HoldfastError: as of `run`.
        """

        def read() -> list[tuple[str, Any]]:
            return list(self._raw(0, 1, count))

        needed = not all(supply.local for supply in self.samples.supplies)
        return [self._decoded(*found) for found in (apart(read) if needed else read())]

    def as_torch(self) -> "StreamDataset":
        """It as a torch ``IterableDataset``, for a DataLoader of one's own, which should have the same batch size.

        Raises:
            ModuleNotFoundError: torch is not installed (extra ``train``).
        """
        from holdfast.data.stream_torch import StreamDataset  # imports torch, which takes seconds

        return StreamDataset(self)

    def loader(self, num_workers: int = 0, **options: Any) -> "StreamLoader":
        """A torch DataLoader over batches, which knows its state also with workers.

        Args:
            num_workers: processes that fetch and decode, each with ``jobs`` and ``ahead_bytes`` of its own.
            options: others of a DataLoader's, but for ``batch_size``, ``shuffle``, ``sampler`` and ``drop_last``.

        Raises:
            ModuleNotFoundError: torch is not installed (extra ``train``).
        """
        from holdfast.data.stream_torch import StreamLoader  # as above

        return StreamLoader(self, num_workers=num_workers, **options)

    def run(self, worker: int, workers: int) -> Iterator[Any]:
        """The samples that are a worker's in what is left of the epoch.

        Raises:
            MissingSampleError: a file is nowhere.
            IntegrityError: a file is damaged, or was replaced.
            StoreError: a server stayed away for longer than it may.
            HoldfastError: ``decode`` cannot make a sample of a file.
        """
        for name, data in self._raw(worker, workers):
            yield self._decoded(name, data)

    @property
    def bytes_from(self) -> dict[str, int]:
        """How many bytes this process had from where: ``dvc`` (its cache), ``cache`` (the stream's), or a URL."""
        return dict(self._fetcher[1].bytes_from) if self._fetcher else {}

    def _dealing(self, workers: int) -> Dealing:
        settings, records = self.settings, self.samples.records
        block, window = settings.batch_size, 1
        if records is not None:
            in_page = records.in_page(settings.page_bytes)
            block *= -(-in_page // block)
            window = WINDOW_PAGES * in_page if settings.shuffle else 1
        return Dealing(settings.world_size, workers, settings.batch_size, block, window, settings.drop_last)

    def _key(self) -> int | None:
        return epoch_key(self.settings.seed, self.epoch) if self.settings.shuffle else None

    def _order(self) -> Indices:
        """What is left of the epoch's samples."""
        records, key = self.samples.records, self._key()
        pages = records.pages(self.settings.page_bytes) if records is not None and key is not None else None
        return without(epoch_order(self.samples.count, key, pages), self._before, key)

    def _raw(self, worker: int, workers: int, limit: int | None = None) -> Iterator[tuple[str, Any]]:
        dealing = self._dealing(workers)
        mine = lane(rank_share(self._order(), self.settings.rank, dealing), worker, dealing, self._key())[:limit]
        return self._files(mine) if self.samples.records is None else self._records(self.samples.records, mine, dealing)

    def _files(self, mine: Indices) -> Iterator[tuple[str, bytes]]:
        files, fetcher = self.samples.files, self.fetcher()
        wanted = (files[number] for number in mine)
        found = ahead(
            fetcher.whole,
            (files[number] for number in mine),
            jobs=self.settings.jobs,
            limit_bytes=self.settings.ahead_bytes,
            about=lambda file: file.about,
        )
        for file, data in zip(wanted, found, strict=True):
            yield file.name, data
        fetcher.flush()

    def _records(self, records: Records, mine: Indices, dealing: Dealing) -> Iterator[tuple[str, Any]]:
        files, fetcher = self.samples.files, self.fetcher()
        plan = plan_reads(records, mine, dealing.window)
        found = ahead(
            lambda read: fetcher.part(files[read.file], read.offset, read.nbytes),
            plan,
            jobs=self.settings.jobs,
            limit_bytes=self.settings.ahead_bytes,
            about=lambda read: read.nbytes,
        )
        # a range is kept until its last sample was given; ranges come in the order in which they are first needed
        held: dict[int, tuple[memoryview, int]] = {}
        coming: Iterator[tuple[int, tuple[Read, bytes]]] = enumerate(zip(plan, found, strict=True))
        for sample, file, number, place in zip(plan.samples, plan.files, plan.read, plan.places, strict=True):
            while number not in held:
                arrived, (read, data) = next(coming)
                held[arrived] = memoryview(data), read.uses
            view, uses = held.pop(number)
            if uses > 1:
                held[number] = view, uses - 1
            form = records.files[file]
            inside = int(sample - records.starts[file])
            yield f"{files[file].name}#{inside}", form.decoded(view[place : place + form.nbytes])
        fetcher.flush()

    def _decoded(self, name: str, data: Any) -> Any:
        if self.samples.decode is None:
            return name, data
        try:
            return self.samples.decode(name, data)
        except HoldfastError:
            raise
        except Exception as error:
            # the file's name is what one needs first, and in a worker nothing else would say it
            raise HoldfastError(f"{name} cannot be decoded: {type(error).__name__}: {error}") from error

    def fetcher(self) -> Fetcher:
        """What brings files, in this process."""
        if self._fetcher is None or self._fetcher[0] != os.getpid():
            settings, files = self.settings, self.samples.files
            kept = settings.cache if settings.cache_bytes > 0 else None
            cache = StreamCache(kept, settings.cache_bytes) if kept else None

            def keys(supply: int) -> list[str]:
                return [file.key for file in files if file.supply == supply]

            fetcher = Fetcher(self.samples.supplies, keys, cache, patience(settings.outage_seconds))
            self._fetcher = os.getpid(), fetcher
        return self._fetcher[1]
