"""A vault back into a DVC remote or cache: every file verified on its way, and given its name when it is whole.

What lies there is left, so that an export that was interrupted goes on. A folder's listing goes last, and only where
all files in it are there: DVC takes a listing for a promise of these, and would never push what is missing.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from holdfast.errors import HoldfastError, PartlyDoneError, UsageError
from holdfast.objectstore.folder import FolderStore
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, TruncatedError
from holdfast.repo.dvcfiles import UnreadableFileError, read_listing
from holdfast.vault.downloading import PART_BYTES, REQUESTS_A_JOB
from holdfast.vault.layout import is_listing, is_run, key_of, list_contents
from holdfast.vault.oids import check_oid, hasher_of, md5_of
from holdfast.vault.pipeline import Pipeline
from holdfast.vault.records import ConflictError
from holdfast.vault.repository import FILES_A_PLAN, Vault
from holdfast.vault.scratch import scratch_folder

Progress = Callable[[int, int], None]

# a folder that is written gets this one beside DVC's, for files that are not whole yet; gone at the end
SCRATCH = ".holdfast"
# DVC protects what is in a local remote or cache, but for the run cache
OBJECT_MODE = 0o444
# files that wait for their upload
WAITING_BYTES = 1 << 30
NAMES_SHOWN = 3


@dataclass(frozen=True)
class ExportPlan:
    """What an export would write.

    Attributes:
        target: where to.
        sizes: bytes of all files that are meant, by oid.
        found: bytes of all that the target has.
        there: files that are meant and need not be written.
        damaged: those that the target has, but not as they are called: they are replaced.
        failed: files that cannot be exported, and why.
    """

    target: ObjectStore
    sizes: Mapping[str, int]
    found: Mapping[str, int]
    there: Collection[str]
    damaged: Collection[str]
    failed: Mapping[str, str]

    @property
    def new(self) -> list[str]:
        """The files that are to be written."""
        return [oid for oid in self.sizes if oid not in self.there and oid not in self.failed]


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes:
        files: written.
        bytes: of these.
        known: how many files were there already.
        replaced: files that were there and not what their names say, by key.
        failed: files that could not be written, by key, and why.
        withheld: folders' listings that were not written because files in them are missing, by key, and how many.
    """

    files: int
    bytes: int
    known: int
    replaced: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    withheld: tuple[tuple[str, int], ...]


def plan_export(
    vault: Vault,
    target: ObjectStore,
    oids: Collection[str] | None = None,
    *,
    verify: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> ExportPlan:
    """See what a remote or cache lacks of a vault.

    What has another size there than in the vault is read: it may be damaged, or, in the layout of DVC 2, have other
    line ends.

    Args:
        vault: where from.
        target: where to; a folder or bucket, which may be empty.
        oids: which files; None for all.
        verify: read all that is there, and compare it with its name.
        progress: told how many bytes of how many were read there.

    Raises:
        InvalidOidError: an oid is none.
        UsageError: the target is the vault, or a folder within a remote.
        StoreError: one of them cannot be reached.
    """
    if target.url.rstrip("/") == vault.url.rstrip("/"):
        raise UsageError(f"{target.url} is the vault itself", hint="Export to the folder above it, or elsewhere")
    vault.refresh()
    wanted = list(vault.index.oids()) if oids is None else list(dict.fromkeys(map(check_oid, oids)))
    failed: dict[str, str] = {}
    digests = dict(_digests(vault, wanted, failed))
    for oid in wanted:
        if oid not in digests and oid not in failed:
            failed[oid] = "it is not in the vault"
        elif key_of(oid) is None:
            failed[oid] = "DVC has no place for a run of that name"
    sizes = {oid: size for oid, (size, _) in digests.items() if oid not in failed}
    found = list_contents(target).sizes
    doubtful = [oid for oid in sizes if oid in found and (verify or found[oid] != sizes[oid])]
    there = {oid for oid in sizes if oid in found}.difference(doubtful)
    damaged = set()
    total, done = sum(found[oid] for oid in doubtful), 0
    states = concurrently(lambda oid: _is_right(target, oid, found[oid], digests[oid][1]), doubtful, vault.jobs)
    for oid, right in zip(doubtful, states, strict=True):
        done += found[oid]
        progress(done, total)
        if right:
            there.add(oid)
        elif right is not None and is_run(oid):
            failed[oid] = "the target has another content under this name"
        elif right is not None:
            damaged.add(oid)
    return ExportPlan(target, sizes, found, there, damaged, failed)


def export_files(
    vault: Vault, plan: ExportPlan, spool: Path, *, progress: Progress = lambda _done, _total: None
) -> Exported:
    """Write what a plan names.

    Args:
        vault: where from.
        plan: of `plan_export`.
        spool: where what goes to a bucket lies until it is there.
        progress: told how many bytes of how many were written.

    Raises:
        StoreError: vault or target cannot be reached; what was written stays.
        OSError: the disk is full, or cannot be written.
    """
    new = _as_they_lie(vault, plan.new)
    files = [oid for oid in new if not is_listing(oid) and not is_run(oid)]
    with _opened(plan.target, spool) as (scratch, target):
        work = _Export(vault, plan, target, scratch, progress, dict(plan.failed))
        work.write(files)
        work.write(list(filter(is_listing, new)))
        work.write(list(filter(is_run, new)))
        target.finish()
    return Exported(
        len(work.written),
        sum(plan.sizes[oid] for oid in work.written),
        len(plan.there),
        tuple(_name(oid) for oid in plan.damaged if oid in work.written),
        tuple((_name(oid), reason) for oid, reason in work.failed.items()),
        tuple((_name(oid), count) for oid, count in work.withheld.items()),
    )


def failures(report: Exported) -> HoldfastError | None:
    """What ends a command with *partly done*; None where all of it was done."""
    keys = [key for key, _ in (*report.failed, *report.withheld)]
    if not keys:
        return None
    more = ", …" if len(keys) > NAMES_SHOWN else ""
    return PartlyDoneError(f"{len(keys)} not exported: {', '.join(keys[:NAMES_SHOWN])}{more}")


class _Target(Protocol):
    """Where whole files go."""

    def take(self, oid: str, path: Path) -> None:
        """Give a file its name there; it is no longer where it was."""

    def finish(self) -> None:
        """See that all of it stays."""


class _FolderTarget:
    def __init__(self, root: Path) -> None:
        self._root = root

    def take(self, oid: str, path: Path) -> None:
        place = self._root / _name(oid)
        if not is_run(oid):
            path.chmod(OBJECT_MODE)
        try:
            path.replace(place)
        except FileNotFoundError:
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)

    def finish(self) -> None:
        # once for all of them: to sync each of 100,000 files by itself takes minutes
        os.sync()


class _BucketTarget:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def take(self, oid: str, path: Path) -> None:
        self._store.put_file(_name(oid), path)
        path.unlink()

    def finish(self) -> None:
        """It stays."""


@contextlib.contextmanager
def _opened(store: ObjectStore, spool: Path) -> Iterator[tuple[Path, _Target]]:
    """A folder for files that are not whole yet, and what takes them from there."""
    if not isinstance(store, FolderStore):
        with scratch_folder(spool) as scratch:
            yield scratch, _BucketTarget(store)
        return
    # in the same file system, so that a rename makes them whole at once
    beside = store.root / SCRATCH
    try:
        with scratch_folder(beside) as scratch:
            yield scratch, _FolderTarget(store.root)
    finally:
        with contextlib.suppress(OSError):  # another export is at it
            beside.rmdir()


@dataclass
class _Export:
    vault: Vault
    plan: ExportPlan
    target: _Target
    scratch: Path
    progress: Progress
    failed: dict[str, str]
    written: dict[str, None] = field(default_factory=dict)
    withheld: dict[str, int] = field(default_factory=dict)
    _waiting: int = 0
    _done: int = 0

    def write(self, oids: Sequence[str]) -> None:
        """Write files; all of them are there when it returns, but for those that failed."""
        total = sum(map(self.plan.sizes.__getitem__, self.plan.new))

        def advance(oid: str) -> None:
            self._done += self.plan.sizes[oid]
            self.progress(self._done, total)

        def fail(oid: str, error: HoldfastError) -> None:
            self.failed[oid] = error.message
            advance(oid)

        def taken(oid: str, _: None) -> None:
            self.written[oid] = None
            self._waiting -= self.plan.sizes[oid]
            advance(oid)

        jobs = self.vault.jobs * REQUESTS_A_JOB
        uploads = Pipeline(jobs, jobs, "holdfast-export")
        try:
            for start in range(0, len(oids), FILES_A_PLAN):
                places = {oid: self.scratch / f"{number}" for number, oid in enumerate(oids[start:][:FILES_A_PLAN])}
                for oid, size in self.vault.get_many(places.items(), fail):
                    missing = self._missing(oid, places[oid]) if is_listing(oid) else 0
                    if missing:
                        self.withheld[oid] = missing
                        places[oid].unlink()
                        advance(oid)
                        continue
                    self._waiting += size
                    uploads.submit(partial(self.target.take, oid, places[oid]), partial(taken, oid))
                    if self._waiting > WAITING_BYTES:
                        uploads.drain()
                uploads.drain()
        finally:
            uploads.close()

    def _missing(self, oid: str, path: Path) -> int:
        """How many files of a folder the target has not."""
        kind = oid.partition(":")[0]
        try:
            members = {f"{kind}:{member}" for _, member in read_listing(path.read_bytes())}
        except UnreadableFileError:
            return 0
        found, damaged = self.plan.found, self.plan.damaged
        return sum(name not in self.written and (name not in found or name in damaged) for name in members)


def _digests(vault: Vault, oids: Sequence[str], failed: dict[str, str]) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Size and BLAKE3 of files; those that stand for two contents are told to ``failed``."""
    try:
        yield from vault.index.digests(oids).items()
    except ConflictError as error:
        if len(oids) == 1:
            failed[oids[0]] = error.message
            return
        for part in (oids[: len(oids) // 2], oids[len(oids) // 2 :]):
            yield from _digests(vault, part, failed)


def _as_they_lie(vault: Vault, oids: Iterable[str]) -> list[str]:
    """The files in the order in which the vault has them, so that neighbours are read together."""
    rest = list(oids)
    places: dict[str, tuple[str, int, int]] = {}
    for start in range(0, len(rest), FILES_A_PLAN):
        recipes = vault.index.recipes(rest[start : start + FILES_A_PLAN])
        first = {oid: recipe.pieces[0] for oid, recipe in recipes.items() if recipe.pieces}
        entries = vault.index.entries({piece.blob for piece in first.values()})
        for oid, piece in first.items():
            if found := entries.get(piece.blob):
                places[oid] = (found[0].pack, found[0].offset, piece.offset)
    return sorted(rest, key=lambda oid: (places.get(oid, ("", 0, 0)), oid))


def _is_right(store: ObjectStore, oid: str, size: int, digest: bytes) -> bool | None:
    """Whether an object is what its name says, or for a run what the vault has; None where it is gone."""
    hasher = hasher_of(oid)
    whole = blake3()
    try:
        for start in range(0, size, PART_BYTES):
            data = store.get_range(_name(oid), start, min(PART_BYTES, size - start))
            (whole if hasher is None else hasher).update(data)
    except ObjectNotFoundError:
        return None
    except TruncatedError:
        return False
    return whole.digest() == digest if hasher is None else hasher.hexdigest() == md5_of(oid)


def _name(oid: str) -> str:
    return key_of(oid) or oid
