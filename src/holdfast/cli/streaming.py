"""What `holdfast.data.stream` is given at the border: names to files, credentials, ranks, folders.

Read from Python alone; like a command it looks at the environment and at the project around the working directory.
"""

import fnmatch
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.cli.caches import cache_folder
from holdfast.cli.streaming_places import Finder, Object, Prefix, Wanted
from holdfast.data.stream_apart import apart
from holdfast.data.stream_cache import StreamCache
from holdfast.data.stream_dataset import Samples, Settings, Stream
from holdfast.data.stream_fetch import Fetcher, patience
from holdfast.data.stream_files import StreamFile, Supply
from holdfast.data.stream_listing import (
    TrackedOut,
    bucket_files,
    record_files,
    row_files,
    single_files,
    sized_files,
    tracked_files,
)
from holdfast.data.stream_records import Records
from holdfast.errors import UsageError
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore

STREAM_FOLDER = "stream"


def open_stream(
    what: str | Path | Sequence[str | Path],
    settings: Settings,
    *,
    match: str | None,
    decode: Callable[[str, Any], Any] | None,
    record_bytes: int | None,
    rows: bool,
    remote: str | None,
    bucket: str | None,
) -> Stream:
    """The stream of what is named; see `holdfast.data.stream`.

    Raises:
        UsageError: a name is of nothing, or there is no file.
        HoldfastError: what is there cannot be found out.
    """
    if record_bytes is not None and rows:
        raise UsageError("samples are either records or rows", hint="Leave one of record_bytes= and rows= out")
    if record_bytes is not None and record_bytes < 1:
        raise UsageError(f"record_bytes is {record_bytes}, and must be at least 1")
    names = [str(what)] if isinstance(what, str | Path) else [str(name) for name in what]
    finder = Finder(remote, bucket)
    wanted = [one for name in names for one in finder.find(name)]
    supplies = tuple(finder.supplies)

    def look() -> tuple[list[StreamFile], Records | None]:
        files = list(_files(wanted, supplies, settings, match))
        records = None
        if files and (rows or record_bytes is not None):
            fetcher = _fetcher(supplies, settings, [file.key for file in files])
            files = sized_files(fetcher, files, jobs=settings.jobs)
            if record_bytes is not None:
                records = record_files(files, record_bytes)
            else:
                records = row_files(fetcher, files, jobs=settings.jobs)
            fetcher.flush()
        return files, records

    files, records = look() if all(supply.local for supply in supplies) else apart(look)
    if not files:
        told = f" whose name fits {match!r}" if match else ""
        raise UsageError(
            f"{', '.join(names) or 'nothing'}: there is no file{told}",
            hint="`dvc list . -R` and `holdfast sources list` name what there is",
        )
    return Stream(Samples(files, supplies, records, decode), settings)


def settle_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Which rank this process is of how many: as given, as torch's process group has it, as RANK and WORLD_SIZE say.

    Raises:
        UsageError: half of it is given, or what the environment says is no number.
    """
    if rank is not None and world_size is not None:
        return rank, world_size
    if rank is not None or world_size is not None:
        raise UsageError("rank and world_size are given together, or none of them")
    if "torch" in sys.modules:
        from holdfast.data.stream_torch import distributed_rank  # only where torch is imported already

        if (found := distributed_rank()) is not None:
            return found
    texts = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not all(texts):
        return 0, 1
    if not all(text.isdigit() for text in texts):
        raise UsageError(f"RANK is {texts[0]!r} and WORLD_SIZE {texts[1]!r}, which are no numbers")
    return int(texts[0]), int(texts[1])


def stream_folder(start: Path) -> Path:
    """Where streams keep what they have fetched: in the DVC project around ``start``, else in the user's cache."""
    return cache_folder(start).parent / STREAM_FOLDER


def _files(
    wanted: Sequence[Wanted], supplies: Sequence[Supply], settings: Settings, match: str | None
) -> Iterator[StreamFile]:
    """The files of all that is wanted, each once."""
    fetcher = _fetcher(supplies, settings, [one.oid for _, one in wanted if isinstance(one, TrackedOut)])
    stores = {}
    known: set[tuple[int, str, str]] = set()
    heads: dict[int, list[Object]] = {}
    for supply, one in wanted:
        if isinstance(one, Object):
            heads.setdefault(supply, []).append(one)

    def store(supply: int, one: Prefix | Object) -> ObjectStore:
        if supply not in stores:
            stores[supply] = open_store(one.url, one.options, retry=patience(settings.outage_seconds))
        return stores[supply]

    for supply, one in wanted:
        if isinstance(one, TrackedOut):
            found = tracked_files(fetcher, supply, one)
        elif isinstance(one, Prefix):
            try:
                found = bucket_files(store(supply, one), supply, one.prefix, named=one.named, checksum=one.checksum)
            except ObjectNotFoundError as error:
                raise ObjectNotFoundError(error.message, hint=one.hint or None) from error
        else:
            # all objects of a bucket together, where the first of them comes
            group = heads.pop(supply, [])
            keys = [other.key for other in group]
            found = single_files(store(supply, one), supply, keys, named=one.named, jobs=settings.jobs) if group else []
        for file in found:
            name = file.supply, file.name, file.key
            if name not in known and (match is None or fnmatch.fnmatchcase(file.name, match)):
                known.add(name)
                yield file
    fetcher.flush()


def _fetcher(supplies: Sequence[Supply], settings: Settings, keys: Sequence[str]) -> Fetcher:
    cache = StreamCache(settings.cache, settings.cache_bytes) if settings.cache and settings.cache_bytes > 0 else None
    return Fetcher(supplies, lambda _: keys, cache, patience(settings.outage_seconds))
