"""The inventory of the model files in a bucket: read by ranges of their headers, without a copy on this machine.

The objects that may be models are cut into parts whose borders depend on their keys. A part is a task, here or on other
machines, and what it reads is a shard in a folder, called after the objects, their sizes and states: what is finished
is never read again, whichever machine dies. Where a part has changed, the older shards tell of the objects that have
not. So shards are the one memory of buckets, and the cache of digests is that of files.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blake3 import blake3

from holdfast.executor.executor import Executor
from holdfast.executor.partitions import Partition, Shards, run_partitions
from holdfast.formats.cache import Digests
from holdfast.inventory.copies import CopyFolder, is_backup_name, is_cache
from holdfast.inventory.models import ScanReport
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.references import find_references
from holdfast.inventory.scan_files import Found, is_model
from holdfast.inventory.scan_judge import Registered, assemble
from holdfast.inventory.scan_listing import SERIAL_OBJECTS, Listed, list_models
from holdfast.inventory.scan_partitions import cut, name_of
from holdfast.inventory.scan_shards import (
    TASK,
    DamagedShardError,
    Place,
    Row,
    Wanted,
    digests_from,
    is_whole,
    read_lines,
    read_part,
    read_rows,
)
from holdfast.inventory.tracking import GitIndex, Tracking
from holdfast.inventory.tree import Excludes

# parts at a time here, of `scan_shards.JOBS` requests each: while one waits for its last answers, the other goes on
PARTS = 2
PART_OBJECTS = 256  # headers read in some seconds: little is lost with a part, and little said about each
SUFFIX = ".rows"
STALE_SHARDS = 64  # at least so many are kept that this scan had no use for: one with other patterns may have
COST_BYTES = 4_000_000  # where weights are read, so many bytes count as much as a header
ROUNDS = 3
# how DVC names objects: files/md5/xx/yyyy, and xx/yyyy before DVC 3
_DVC_OBJECT = re.compile(r"(?:^|.*/)(?P<head>[0-9a-f]{2})/(?P<rest>[0-9a-f]{30})")


@dataclass(frozen=True)
class StoreScan:
    """The inventory of a bucket.

    Attributes:
        report: of its models.
        etags: of each of them, by its key.
        shards: in which their tensors are (`holdfast.inventory.scan_shards.read_tensors`), in the order of the keys.
    """

    report: ScanReport
    etags: Mapping[str, str]
    shards: tuple[Path, ...]


def scan_store(
    place: Place,
    executor: Executor,
    folder: Path,
    *,
    excludes: Sequence[str] = (),
    registered: Iterable[Registered] = (),
    project: Path | None = None,
    memory: ReferenceMemory | None = None,
    weights: bool = False,
    serial_objects: int = SERIAL_OBJECTS,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> StoreScan:
    """Take the inventory of the model files in a store; nothing is executed or changed.

    Objects that neither their name nor their content calls models are passed over, as of files. Equal bytes are told by
    equal sizes and ETags, so that some are missed where one of two was uploaded in parts. Objects of a DVC remote have
    no names: they are told by their content.

    Args:
        place: where the objects are, with keys relative to its prefix.
        executor: what reads them; the report is the same whatever it is.
        folder: what is remembered of buckets; made where there is none. May be removed at any time.
        excludes: patterns as of ``.gitignore`` of what is not looked at.
        registered: the versions that objects may be.
        project: the folder whose scripts may refer to the objects by their keys; None for no references.
        memory: what is known of its sources.
        weights: whether to take weights digests, for which all weights are read.
        serial_objects: as of `list_models`.
        progress: told how many objects of how many were looked into; bytes where weights are read.

    Raises:
        StoreError: the store cannot be listed.
        WorkersLostError: what reads the objects is gone.
        OSError: the folder cannot be written.
    """
    store = place.open()
    looked, chosen = list_models(store, Excludes(tuple(excludes)), serial_objects=serial_objects)
    reader = _Reader(place, executor, _shards_of(folder, store.url, weights), weights, progress)
    notes: list[str] = []
    found: list[Found] = []
    models: list[Listed] = []
    paths: list[Path] = []
    known: dict[str, Digests] = {}
    part: list[Listed] = []
    rows: list[Row] = []
    for path, part, rows in reader.read(chosen):
        paths.append(path)
        for listed, row in zip(part, rows, strict=True):
            if row.failure is not None:
                notes.append(f"{listed.key}: {row.failure}")
                continue
            digests = digests_from(row, known)
            if is_model(listed.choice, digests):
                models.append(listed)
                found.append(Found(listed.key, (0, 0, listed.size, listed.modified_ns), digests))
    labels = [listed.key for listed in models]
    etags = {listed.key: listed.etag for listed in models}
    equal = _equal_objects(models)
    del chosen, models, part, rows  # of a million objects a tenth of a GB
    copies = list(_backups(labels))
    copied = {copy.path for copy in copies}
    outs = {label: match["head"] + match["rest"] for label in labels if (match := _DVC_OBJECT.fullmatch(label))}
    live = [label for label in labels if label not in outs and not is_cache(label) and not _below(label, copied)]
    references = find_references(project, live, memory=memory) if project is not None and live else None
    report = assemble(
        store.url,
        found,
        equal,
        references=references,
        copies=copies,
        tracking=Tracking(outs, GitIndex(Path(), None)),
        registered=registered,
        looked=looked,
        notes=[*notes, *(references.notes if references is not None else ())],
    )
    return StoreScan(report, etags, tuple(paths))


def _shards_of(folder: Path, url: str, weights: bool) -> Shards:
    """Where what is read of a store is remembered: with its weights apart, as headers alone say less of damage."""
    place = blake3(url.encode("utf-8", "surrogateescape")).hexdigest(length=16)
    return Shards(folder / place / ("weights" if weights else "headers"), SUFFIX)


class _Reader:
    """Reads objects part by part, what no shard knows; afterwards the shards are those of this scan, and some older.

    Args:
        place: where the objects are.
        executor: what reads them.
        shards: where finished parts are.
        weights: whether all weights are read.
        progress: told how much of how much is done.
    """

    def __init__(
        self, place: Place, executor: Executor, shards: Shards, weights: bool, progress: Callable[[int, int], None]
    ) -> None:
        self._executor, self._shards, self._weights, self._progress = executor, shards, weights, progress
        self._task = partial(read_part, place, weights)

    def read(self, chosen: Sequence[Listed]) -> Iterator[tuple[Path, list[Listed], list[Row]]]:
        """Each part with its shard and the rows in it, once all parts are finished."""
        parts = {self._name(part): part for part in cut(chosen, lambda listed: listed.key, PART_OBJECTS, self._cost)}
        missing = [name for name in parts if not is_whole(self._shards.path(name))]
        if missing:
            self._finish(parts, missing)
        for name, part in parts.items():
            yield self._shards.path(name), part, self._rows(name, part)
        self._forget(parts)

    def _finish(self, parts: Mapping[str, list[Listed]], missing: Sequence[str]) -> None:
        wanted = set(missing)
        older = self._older(name for name in self._shards.names() if name in wanted or name not in parts)
        for name in missing:
            self._shards.path(name).unlink(missing_ok=True)  # of those that could not be read, some may be by now
        partitions = [
            Partition(
                name,
                [Wanted(item, older.get((item.key, item.size, item.state))) for item in part] if name in wanted else (),
                sum(item.size for item in part) if self._weights else len(part),
            )
            for name, part in parts.items()
        ]
        run_partitions(self._executor, self._task, partitions, self._shards, progress=self._progress)

    def _older(self, names: Iterable[str]) -> dict[tuple[str, int, str], tuple[str, str]]:
        found: dict[tuple[str, int, str], tuple[str, str]] = {}
        for name in names:
            with suppress(DamagedShardError, FileNotFoundError):
                lines = read_lines(self._shards.path(name))
                found.update((row.identity, own) for row, own in lines if row.failure is None)
        return found

    def _rows(self, name: str, part: list[Listed]) -> list[Row]:
        for _ in range(ROUNDS):
            try:
                return read_rows(self._shards.path(name))
            except (DamagedShardError, FileNotFoundError) as error:
                # another scan of this store had no use for it, or the disk is failing
                failure = error
                self._finish({name: part}, [name])
        raise failure

    def _forget(self, parts: Collection[str]) -> None:
        """Remove the oldest of the shards that are none of this scan's."""
        others = [name for name in self._shards.names() if name not in parts]
        others.sort(key=self._written_ns, reverse=True)
        self._shards.forget({*parts, *others[: max(STALE_SHARDS, len(parts))]})

    def _written_ns(self, name: str) -> int:
        try:
            return self._shards.path(name).stat().st_mtime_ns
        except FileNotFoundError:
            return 0  # another scan has removed it

    def _name(self, part: Sequence[Listed]) -> str:
        return name_of(TASK, ((item.key, item.size, item.state) for item in part))

    def _cost(self, listed: Listed) -> int:
        return 1 + listed.size // COST_BYTES if self._weights else 1


def _backups(labels: Iterable[str]) -> Iterator[CopyFolder]:
    """The outermost folders whose names say that they are backups."""
    known: dict[str, bool] = {}  # whether a folder, or one around it, is one
    for label in labels:
        folder = ""
        for part in label.split("/")[:-1]:
            folder = f"{folder}/{part}" if folder else part
            if folder not in known:
                known[folder] = is_backup_name(part)
                if known[folder]:
                    yield CopyFolder(folder, "name", ())
            if known[folder]:
                break


def _below(label: str, folders: Collection[str]) -> bool:
    while label := label.rpartition("/")[0]:
        if label in folders:
            return True
    return False


def _equal_objects(models: Sequence[Listed]) -> dict[str, str]:
    """What stands for the bytes of objects that share size and ETag with another."""
    seen: set[int] = set()
    twice: set[int] = set()
    for item in models:  # numbers alone: a million lists of one key each would be most of what a scan takes
        number = hash((item.size, item.etag))
        (twice if number in seen else seen).add(number)
    groups: dict[tuple[int, str], list[str]] = {}
    for item in models:
        if item.etag and hash((item.size, item.etag)) in twice:
            groups.setdefault((item.size, item.etag), []).append(item.key)
    return {key: f"etag:{etag.strip(chr(34))}" for (_, etag), keys in groups.items() if len(keys) > 1 for key in keys}
