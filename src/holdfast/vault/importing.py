"""A whole DVC remote or cache into a vault: history at once, newest whole, older versions as backward chains.

What a push must not do may be done here: all versions are at hand, so the newest is stored first. It goes in several
sessions, each of which counts when it commits, so that an interruption costs one of them at most; what is there already
is only claimed, which is how the next import goes on.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import HoldfastError, PartlyDoneError
from holdfast.objectstore.parallel import one_ahead
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.lineage import Lineage, ObjectKey, read_lineage
from holdfast.repo.workspace import Project
from holdfast.vault.casts import CastFiles
from holdfast.vault.chains import chain_order
from holdfast.vault.downloading import LocalFiles, cut, files_of
from holdfast.vault.families import Families
from holdfast.vault.layout import is_listing, is_run, key_of, list_contents
from holdfast.vault.oids import WrongNameError
from holdfast.vault.records import ConflictError
from holdfast.vault.repository import MAX_RESTORE_RATIO, Vault
from holdfast.vault.scratch import scratch_folder
from holdfast.vault.session import FileToPut, RevokedError, Session, Statistics

Progress = Callable[[int, int], None]
NAMES_SHOWN = 3


class NothingThereError(HoldfastError):
    """A place has no file of DVC's."""


@dataclass(frozen=True)
class Limits:
    """How much is done at a time.

    Attributes:
        session_bytes: of files, after which a session commits.
        session_files: the same in files.
        batch_bytes: of files that are fetched together. Two batches are here at a time.
        batch_files: the same in files. A file that is larger is a batch by itself.
        kept_bytes: of files besides, for others to be stored against.
        listing_bytes: of folders' listings that are fetched to learn what the files in them were before.
    """

    session_bytes: int = 4 << 30
    session_files: int = 20_000
    batch_bytes: int = 256 << 20
    batch_files: int = 5000
    kept_bytes: int = 1 << 30
    listing_bytes: int = 512 << 20


@dataclass(frozen=True)
class ImportPlan:
    """What an import would take.

    Attributes:
        source: where from.
        sizes: bytes of all files that are there, by oid.
        known: those that the vault has.
        ignored: files that are none of DVC's.
    """

    source: ObjectStore
    sizes: Mapping[str, int]
    known: Collection[str]
    ignored: int

    @property
    def new(self) -> list[str]:
        """The files that the vault lacks."""
        return [oid for oid in self.sizes if oid not in self.known]


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        statistics: of all sessions together.
        sessions: how many committed.
        known: how many files were there already.
        ignored: files that are none of DVC's.
        damaged: files that are not what their names say, by key, and why.
        failed: other files that were not taken, and why.
    """

    statistics: Statistics
    sessions: int
    known: int
    ignored: int
    damaged: tuple[tuple[str, str], ...]
    failed: tuple[tuple[str, str], ...]


def plan_import(vault: Vault, source: ObjectStore) -> ImportPlan:
    """See what a remote or cache has that a vault lacks.

    Args:
        vault: where to.
        source: where from; a folder or bucket in the layout of DVC 2 or 3, or both.

    Raises:
        NothingThereError: it has none of DVC's files.
        UsageError: it is a folder within a remote.
        StoreError: one of them cannot be reached.
    """
    contents = list_contents(source)
    if not contents.sizes:
        raise NothingThereError(
            f"{source.url} has none of DVC's files: neither files/md5/ nor runs/, nor folders 00 to ff",
            hint="Name a DVC remote, its URL or a cache folder; `dvc remote list` names remotes",
        )
    vault.refresh()
    return ImportPlan(source, contents.sizes, vault.index.standing(contents.sizes), contents.ignored)


def import_files(
    vault: Vault,
    plan: ImportPlan,
    project: Project | None,
    spool: Path,
    *,
    delta: bool = True,
    limits: Limits | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Imported:
    """Take what a plan names into a vault, and claim what is there already.

    Args:
        vault: where to.
        plan: of `plan_import`.
        project: whose history says what a file was before; None for none.
        spool: where what comes from a bucket lies until it counts.
        delta: whether to store parts against those of other versions.
        limits: how much at a time.
        progress: told how many bytes of how many were read.

    Raises:
        ShallowCloneError: git's history ends early.
        RevokedError: a collector ended a session, and the one that took its place.
        StoreError: source or vault cannot be reached; what was committed stays.
        OSError: the disk is full, or cannot be written.
    """
    limits = limits or Limits()
    with scratch_folder(spool) as scratch:
        files = files_of(plan.source, scratch, vault.jobs)
        try:
            lineage = _lineage(plan, project, files, limits) if delta else Lineage()
            return _Import(vault, plan, files, _ordered(plan, lineage), limits, progress, delta).run()
        finally:
            files.close()


def failures(report: Imported) -> HoldfastError | None:
    """What ends a command with *partly done*; None where all of it was done."""
    keys = [key for key, _ in (*report.damaged, *report.failed)]
    if not keys:
        return None
    damaged = f" ({len(report.damaged)} damaged)" if report.damaged else ""
    more = ", …" if len(keys) > NAMES_SHOWN else ""
    return PartlyDoneError(f"{len(keys)} not imported{damaged}: {', '.join(keys[:NAMES_SHOWN])}{more}")


class _Item(NamedTuple):
    """A file in its place of the order.

    Attributes:
        oid: its name.
        base: the file that it is stored against.
        cold: whether restoring it may read however much.
        stray: whether history does not know it, and something like it may be its base.
    """

    oid: str
    base: str | None = None
    cold: bool = False
    stray: bool = False


@dataclass
class _Import:
    vault: Vault
    plan: ImportPlan
    files: LocalFiles
    items: Sequence[_Item]
    limits: Limits
    progress: Progress
    delta: bool
    damaged: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _uses: dict[str, list[int]] = field(default_factory=dict)
    _families: Families = field(init=False)
    _casts: CastFiles = field(default_factory=CastFiles)
    _total: int = 0
    _place: int = 0
    _done: int = 0

    def __post_init__(self) -> None:
        self._families = Families(self.vault.index, self._at_hand)
        self._total = sum(map(self._size, self.items))
        for place, item in enumerate(self.items):
            if item.base is not None:
                self._uses.setdefault(item.base, []).append(place)

    def run(self) -> Imported:
        total = Statistics()
        sessions = 0
        claims: Collection[str] = self.plan.known
        size = self.limits.session_bytes
        groups = list(cut(self.items, self._size, nbytes=size, count=self.limits.session_files))
        for group in groups or [[]]:
            place, done = self._place, self._done
            try:
                statistics = self._send(group, claims)
            except RevokedError:
                # a collector took it for abandoned; nothing of it counts, and once more is all that it takes
                self.files.keep(lambda _oid: None, (), 0)
                for item in group:
                    self.damaged.pop(item.oid, None)
                    self.failed.pop(item.oid, None)
                self._place, self._done = place, done
                statistics = self._send(group, claims)
            total = _sum(total, statistics)
            sessions += 1
            claims = ()
        return Imported(
            total,
            sessions,
            len(self.plan.known),
            self.plan.ignored,
            tuple((key_of(oid) or oid, reason) for oid, reason in self.damaged.items()),
            tuple((key_of(oid) or oid, reason) for oid, reason in self.failed.items()),
        )

    def _send(self, group: Sequence[_Item], claims: Collection[str]) -> Statistics:
        """One session, to its commit."""
        with self.vault.session(
            max_restore_ratio=MAX_RESTORE_RATIO if self.delta else 0.0,
            families=self._families if self.delta else None,
            casts=self._casts if self.delta else None,
        ) as session:
            session.expect(sum(map(self._size, group)))
            known = session.known([*claims, *(item.oid for item in group)])
            session.claim(known)
            # what was there when it was planned, and which a collector has taken away since
            lost = [_Item(oid) for oid in claims if oid not in known]
            end = self._place + len(group)
            batches = cut([*group, *lost], self._size, nbytes=self.limits.batch_bytes, count=self.limits.batch_files)
            for batch, missing in one_ahead((batch, self._fetch(batch, known)) for batch in batches):
                self._put(session, [item for item in batch if item.oid not in known], missing)
                self._advance(sum(self._size(item) for item in batch if item.oid in known))
                self._place = min(self._place + len(batch), end)
                self.files.keep(self._next_use, [item.oid for item in batch], self.limits.kept_bytes)
            return session.commit()

    def _fetch(self, batch: Sequence[_Item], known: Collection[str]) -> Mapping[str, HoldfastError]:
        return self.files.fetch({item.oid: self._size(item) for item in batch if item.oid not in known})

    def _put(self, session: Session, batch: Sequence[_Item], missing: Mapping[str, HoldfastError]) -> None:
        def fail(oid: str, error: HoldfastError) -> None:
            if isinstance(error, WrongNameError | ConflictError):
                self.damaged[oid] = _reason(error)
            else:
                self.failed[oid] = error.message
            self._advance(self.plan.sizes[oid])

        for oid, error in missing.items():
            fail(oid, error)
        files = [self._file(item) for item in batch if item.oid not in missing]
        session.put_many(files, fail, lambda _oid, size: self._advance(size))

    def _file(self, item: _Item) -> FileToPut:
        base = None if item.stray else item.base or ""
        at_hand = self._at_hand(base) if base else None
        return FileToPut(item.oid, self.files.path(item.oid), base, at_hand, math.inf if item.cold else None)

    def _at_hand(self, oid: str) -> Path | None:
        path = self.files.path(oid)
        return path if path.exists() else None

    def _size(self, item: _Item) -> int:
        return self.plan.sizes[item.oid]

    def _next_use(self, oid: str) -> int | None:
        """Where in the order the next file is that is stored against this one."""
        uses = self._uses.get(oid, [])
        after = bisect_right(uses, self._place - 1)
        return uses[after] if after < len(uses) else None

    def _advance(self, nbytes: int) -> None:
        self._done += nbytes
        self.progress(self._done, self._total)


def _lineage(plan: ImportPlan, project: Project | None, files: LocalFiles, limits: Limits) -> Lineage:
    """What the files were before; those in folders, too, as far as the source has the folders' listings."""
    if project is None or all(is_listing(oid) or is_run(oid) for oid in plan.new):
        return Lineage()
    sizes = {oid: plan.sizes[oid] for oid in sorted(plan.sizes) if is_listing(oid)}
    listings = dict(next(cut(sizes.items(), lambda item: item[1], nbytes=limits.listing_bytes, count=len(sizes)), ()))
    files.fetch(listings)  # one that is missing costs bytes, not data
    lineage = read_lineage(project, files.folder)
    files.keep(lambda _oid: None, [oid for oid in listings if oid in plan.known], 0)
    return lineage


def _ordered(plan: ImportPlan, lineage: Lineage) -> list[_Item]:
    """What the vault lacks in the order in which it is put: what history knows, other files, listings, runs.

    A folder's listing comes after what is in it and a run after its outs: DVC takes the one for a promise of the other.
    """
    oids = sorted(plan.sizes)
    known: dict[ObjectKey, str] = {}
    others: list[str] = []
    for oid in oids:
        kind, _, value = oid.partition(":")
        if is_listing(oid) or is_run(oid):
            continue
        if (kind, value) in lineage.paths:
            known[kind, value] = oid
        else:
            others.append(oid)
    # files that the vault has keep their place, so that an import that goes on chooses the same bases
    links = chain_order(lineage, known, lineage.tips)
    items = [_Item(known[link.key], known[link.base] if link.base else None, link.cold) for link in links]
    items += [_Item(oid, stray=True) for oid in others]
    items += [_Item(oid) for oid in filter(is_listing, oids)]
    items += [_Item(oid) for oid in filter(is_run, oids)]
    return [item for item in items if item.oid not in plan.known]


def _reason(error: HoldfastError) -> str:
    if isinstance(error, WrongNameError):
        return "its bytes have another md5 than its name says"
    return "the vault has another content under this name"


def _sum(one: Statistics, other: Statistics) -> Statistics:
    return Statistics(*(getattr(one, item.name) + getattr(other, item.name) for item in fields(Statistics)))
