"""Between DVC's local cache and a vault: what DVC's push, fetch and ``status -c`` do with a plain remote."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from holdfast.errors import HoldfastError, PartlyDoneError
from holdfast.repo.cache import RUN_CACHE, object_name, object_path
from holdfast.repo.clone import clone_id
from holdfast.repo.dvc import Selection, UsedObject, local_cache
from holdfast.repo.lineage import Lineage, ObjectKey, read_lineage
from holdfast.repo.selection import used_objects
from holdfast.repo.workspace import Project
from holdfast.vault.coders import Coders
from holdfast.vault.families import Families
from holdfast.vault.repository import Vault
from holdfast.vault.roots import register, words
from holdfast.vault.session import FileToPut, RevokedError, Statistics

# DVC protects what is in its cache: a file that can be written is one that somebody changed
CACHED_MODE = 0o444
TOLD_BYTES = 1 << 20
# to look how long 100,000 files are takes a third of a second
SAMPLE_FILES = 5000
_RUNS = "runs:"
_RUN_NAME = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int], None]
Sending = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Transferred:
    """What a push or a fetch could not do, or left to others.

    Args:
        missing: objects that are neither in the cache nor in the vault, by path.
        failed: files that did not go over, and why.
        elsewhere: outs that have a remote of their own.
        unread: commits whose DVC files cannot be read, and why.
    """

    missing: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    elsewhere: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Pushed(Transferred):
    """What a push did.

    Args:
        statistics: of the session.
        known: how many objects were there already.
    """

    statistics: Statistics
    known: int


@dataclass(frozen=True)
class Fetched(Transferred):
    """What a fetch did.

    Args:
        files: how many came.
        bytes: of these, as they are in the cache.
        waiting: those that a collection let go, and that will be deleted with the quarantine; by path.
    """

    files: int
    bytes: int
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """Which objects are where.

    Args:
        both: in the cache and in the vault.
        new: in the cache alone, by path: `push` would send them.
        deleted: in the vault alone: `fetch` would bring them.
        missing: nowhere.
    """

    both: int
    new: tuple[str, ...]
    deleted: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass
class _Wanted:
    """Objects by their names in the vault: a path each, for people, and where the cache has them."""

    names: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, items: Iterable[UsedObject], cache: Path) -> None:
        folder = os.fspath(cache)
        for item in items:
            oid = f"{item.hash_name}:{item.oid}"
            self.names.setdefault(oid, item.path)
            self.places[oid] = object_name(folder, item.hash_name, item.oid)

    def of(self, oids: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted({self.names[oid] for oid in oids}))


def push(
    vault: Vault,
    project: Project,
    selection: Selection,
    *,
    delta: bool = True,
    run_cache: bool = False,
    besides: Sequence[UsedObject] = (),
    coders: Coders | None = None,
    progress: Sending = lambda _done, _total, _sent: None,
) -> Pushed:
    """Send the cached objects of a selection that the vault lacks.

    Older versions go first, so that newer ones may be stored against them; which is which, git's history says. The
    vault has all of it or nothing of it: it counts when the session commits, at the end. Then the clone says in the
    vault what it needs of it.

    Args:
        vault: where to.
        project: whose cache.
        selection: which outs.
        delta: whether to store parts against those of other versions.
        run_cache: DVC's run cache, too.
        besides: other objects that are sent where the cache has them.
        coders: processes that encode; None to start some where they pay.
        progress: told how many bytes of how many were read, and how many were sent for them.

    Raises:
        UsageError: a target is none.
        LockedError: another DVC process works here.
        RevokedError: a collector ended the session.
        StoreError: the vault cannot be reached.
    """
    clone = clone_id(project)
    replaced = words(vault.store, clone)
    cache = local_cache(project.root).folder
    used = used_objects(project, selection, for_push=True)
    wanted = _Wanted()
    wanted.add((*used.objects, *used.missing), cache)
    wanted.add((item for item in besides if object_path(cache, item.hash_name, item.oid).exists()), cache)
    if run_cache:
        _add_runs(wanted, cache)
    lineage = read_lineage(project, cache)
    bases = lineage if delta else Lineage()
    try:
        sent = _send(vault, wanted, bases, cache, delta, coders, progress)
    except RevokedError:
        # a collector took it for abandoned; nothing of it counts, and once more is all that it takes
        sent = _send(vault, wanted, bases, cache, delta, coders, progress)
    # a collector may know nothing of this clone's git
    needed = {*map(_oid, lineage.paths), *sent.known, *sent.here}
    register(vault.store, clone, project.root.name, needed, replaced)
    return Pushed(
        wanted.of(oid for oid in wanted.names if oid not in sent.known and oid not in sent.here),
        tuple((wanted.names[oid], reason) for oid, reason in sent.failed.items()),
        tuple(used.elsewhere),
        tuple(used.unread),
        statistics=sent.statistics,
        known=len(sent.known),
    )


def fetch(
    vault: Vault,
    project: Project,
    selection: Selection,
    *,
    run_cache: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Fetched:
    """Bring the objects of a selection that the cache lacks; every one is verified before it is there.

    Args:
        vault: where from.
        project: whose cache.
        selection: which outs.
        run_cache: DVC's run cache, too.
        progress: told how many files of how many came.

    Raises:
        UsageError: a target is none.
        LockedError: another DVC process works here.
        StoreError: the vault cannot be reached.
        OSError: the cache cannot be written.
    """
    cache = local_cache(project.root).folder
    failed: dict[str, str] = {}
    counts = [0, 0]
    names: dict[str, str] = {}
    waiting: set[str] = set()

    def fail(oid: str, error: HoldfastError) -> None:
        failed[names[oid]] = str(error)

    def bring(wanted: _Wanted, tell: Progress) -> set[str]:
        """What is missing in the end."""
        absent = [oid for oid, place in wanted.places.items() if not os.path.exists(place)]  # noqa: PTH110
        there = vault.exists(absent)
        waiting.update(wanted.names[oid] for oid in there - vault.index.standing(there))
        files = [(oid, Path(wanted.places[oid])) for oid in absent if oid in there]
        for place in {path.parent for _, path in files}:
            place.mkdir(parents=True, exist_ok=True)
        names.update(wanted.names)
        for number, (oid, size) in enumerate(vault.get_many(files, fail), 1):
            os.chmod(wanted.places[oid], CACHED_MODE)  # noqa: PTH101 - 100,000 of them
            counts[0] += 1
            counts[1] += size
            tell(number, len(files))
        return {oid for oid in absent if oid not in there}

    def bring_listings(items: list[UsedObject]) -> None:
        listings = _Wanted()
        listings.add(items, cache)
        bring(listings, lambda _done, _total: None)

    if run_cache:
        runs = _Wanted()
        vault.exists(())  # brings the index up to date
        for oid in vault.index.oids():
            key, _, value = oid.removeprefix(_RUNS).partition("/")
            if _RUN_NAME.fullmatch(key) and _RUN_NAME.fullmatch(value):
                runs.names[oid], runs.places[oid] = oid, str(cache / RUN_CACHE / key[:2] / key / value)
        bring(runs, lambda _done, _total: None)
    used = used_objects(project, selection, bring=bring_listings)
    wanted = _Wanted()
    wanted.add(used.objects, cache)
    missing = bring(wanted, progress)
    lost = [item.path for item in used.missing if item.path not in failed]
    return Fetched(
        tuple(sorted({*wanted.of(missing), *lost})),
        tuple(failed.items()),
        tuple(used.elsewhere),
        tuple(used.unread),
        files=counts[0],
        bytes=counts[1],
        waiting=tuple(sorted(waiting)),
    )


def compare(vault: Vault, project: Project, selection: Selection) -> Compared:
    """Which objects of a selection are in the cache, in the vault, in both or nowhere.

    Raises:
        UsageError, LockedError, StoreError: as of `fetch`.
    """
    cache = local_cache(project.root).folder
    used = used_objects(project, selection)
    wanted = _Wanted()
    wanted.add((*used.objects, *used.missing), cache)
    there = vault.exists(wanted.names)
    here = {oid for oid, place in wanted.places.items() if os.path.exists(place)}  # noqa: PTH110
    return Compared(
        len(there & here),
        wanted.of(here - there),
        wanted.of(there - here),
        wanted.of(set(wanted.names) - there - here),
    )


@dataclass(frozen=True)
class _Sent:
    statistics: Statistics
    known: Collection[str]
    here: Collection[str]
    failed: Mapping[str, str]


def _send(
    vault: Vault,
    wanted: _Wanted,
    lineage: Lineage,
    cache: Path,
    delta: bool,
    coders: Coders | None,
    progress: Sending,
) -> _Sent:
    """One session that sends what the vault lacks."""
    failed: dict[str, str] = {}
    lost: set[str] = set()
    done = told = 0

    def fail(oid: str, error: HoldfastError) -> None:
        if os.path.exists(wanted.places[oid]):  # noqa: PTH110 - of 100,000
            failed[oid] = str(error)
        else:
            lost.add(oid)

    def put(_: str, size: int) -> None:
        nonlocal done, told
        done += size
        # of very many small files not each is told: it takes as long as reading one
        if done - told >= TOLD_BYTES:
            told = done
            progress(done, max(done, total), session.statistics().stored_bytes)

    def place(oid: str) -> Path | None:
        path = object_path(cache, *_key(oid))
        return path if path.exists() else None

    families = Families(vault.index, place) if delta else None
    with vault.session(max_restore_ratio=1.0 if delta else 0.0, families=families) as session:
        known = session.known(wanted.names)
        session.claim(known)
        here, total = _at_hand([oid for oid in wanted.names if oid not in known], wanted.places)
        session.expect(total, len(here), coders)
        bases = session.known([_oid(key) for key in lineage.paths])
        files = _ordered(here, wanted, lineage, cache, bases)
        session.put_many(files, fail, put)
        if done > told:
            progress(done, done, session.statistics().stored_bytes)
        return _Sent(session.commit(), known, here.keys() - lost, failed)


def _at_hand(oids: Sequence[str], places: Mapping[str, str]) -> tuple[dict[str, None], int]:
    """Those that the cache has, and about how many bytes; who reads them finds that one is missing after all.

    Of very many a sample is looked at. It stands for the others, unless something of it is missing.
    """
    if len(oids) > 2 * SAMPLE_FILES:
        sizes = [_size(places[oid]) for oid in oids[:: len(oids) // SAMPLE_FILES]]
        if None not in sizes:
            return dict.fromkeys(oids), sum(filter(None, sizes)) * len(oids) // len(sizes)
    found = {oid: size for oid in oids if (size := _size(places[oid])) is not None}
    return dict.fromkeys(found), sum(found.values())


def _ordered(
    here: Collection[str],
    wanted: _Wanted,
    lineage: Lineage,
    cache: Path,
    bases: set[str],
) -> Iterator[FileToPut]:
    """The files in the order in which they are sent, each with the version that it may be stored against.

    ``bases`` are what the vault has; what is sent before a file is added.
    """
    # most of many thousand files were never anything else, and have no path in the lineage
    keys = {_oid(key): key for key in lineage.paths}
    versions = {oid: keys[oid] for oid in here if oid in keys}
    replaced = lineage.oldest_first(key for key in versions.values() if lineage.newer(key))
    first = dict.fromkeys([*(oid for oid in here if oid.startswith(_RUNS)), *map(_oid, replaced)])
    for oid in chain(first, (oid for oid in here if oid not in first)):
        if (key := versions.get(oid)) is None:
            yield FileToPut(oid, wanted.places[oid])
            continue
        others = (*lineage.older(key), *lineage.newer(key))
        base = next((other for other in others if _oid(other) in bases), None)
        if base is None:
            yield FileToPut(oid, wanted.places[oid])
        else:
            place = object_path(cache, *base)
            yield FileToPut(oid, wanted.places[oid], _oid(base), place if place.exists() else None)
        if _size(wanted.places[oid]) is not None:
            bases.add(oid)


def _key(oid: str) -> ObjectKey:
    kind, _, value = oid.partition(":")
    return kind, value


def _oid(key: ObjectKey) -> str:
    return f"{key[0]}:{key[1]}"


def _add_runs(wanted: _Wanted, cache: Path) -> None:
    for path in sorted((cache / RUN_CACHE).glob("*/*/*")):
        if _RUN_NAME.fullmatch(path.name) and _RUN_NAME.fullmatch(path.parent.name):
            oid = f"{_RUNS}{path.parent.name}/{path.name}"
            wanted.names[oid], wanted.places[oid] = oid, str(path)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return None


def failures(report: Transferred) -> HoldfastError | None:
    """What ends a command with *partly done*; None where all of it was done."""
    parts = []
    if report.missing:
        are = "is" if len(report.missing) == 1 else "are"
        parts.append(f"{len(report.missing)} {are} nowhere: {', '.join(report.missing[:3])}")
    parts += [f"{name}: {reason}" for name, reason in report.failed[:3]]
    if report.unread:
        parts.append(f"{len(report.unread)} commits could not be read: {report.unread[0]}")
    return PartlyDoneError("; ".join(parts)) if parts else None
