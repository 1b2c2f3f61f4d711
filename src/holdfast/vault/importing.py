"""A whole DVC remote or cache into a vault: history at once, newest whole, older versions as backward chains.

What a push must not do may be done here: all versions are at hand, so the newest is stored first. It goes in several
sessions, each of which counts when it commits, so that an interruption costs one of them at most; what is there already
is only claimed, which is how the next import goes on.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from holdfast.errors import HoldfastError, PartlyDoneError
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.lineage import Lineage, read_lineage
from holdfast.repo.workspace import Project
from holdfast.vault.casts import CastFiles
from holdfast.vault.downloading import LocalFiles, cut, files_of
from holdfast.vault.families import Families
from holdfast.vault.import_order import Item, Limits, ordered, sessions_of
from holdfast.vault.import_sending import Sender
from holdfast.vault.layout import is_listing, is_run, key_of, list_contents
from holdfast.vault.repository import MAX_RESTORE_RATIO, Vault
from holdfast.vault.scratch import scratch_folder
from holdfast.vault.session import RevokedError, Statistics

Progress = Callable[[int, int], None]
NAMES_SHOWN = 3


class NothingThereError(HoldfastError):
    """A place has no file of DVC's."""


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
            items = items_of(plan, project, files, limits, delta=delta)
            return _Import(vault, plan, files, items, limits, progress, delta).run()
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


@dataclass
class _Import:
    """An import by this process, one session after the other."""

    vault: Vault
    plan: ImportPlan
    files: LocalFiles
    items: Sequence[Item]
    limits: Limits
    progress: Progress
    delta: bool
    _done: int = 0

    def run(self) -> Imported:
        sender = Sender(self.files, self.plan.sizes, self.items, self.limits, self._advance)
        families = Families(self.vault.index, sender.at_hand) if self.delta else None
        casts = CastFiles() if self.delta else None
        self._total = sum(map(sender.size, self.items))
        total = Statistics()
        sessions = 0
        claims: Collection[str] = self.plan.known
        whole = sum(self.plan.sizes.values())
        for group in list(sessions_of(self.items, sender.size, self.limits, whole)) or [()]:
            place, done = sender.place, self._done
            for attempt in (0, 1):
                try:
                    with self.vault.session(
                        max_restore_ratio=MAX_RESTORE_RATIO if self.delta else 0.0, families=families, casts=casts
                    ) as session:
                        session.expect(sum(map(sender.size, group)))
                        sender.send(session, group, claims)
                        total = add(total, session.commit())
                    break
                except RevokedError:
                    # a collector took it for abandoned; nothing of it counts, and once more is all that it takes
                    if attempt:
                        raise
                    sender.rewind(group, place)
                    self._done = done
            sessions += 1
            claims = ()
        return imported(self.plan, total, sessions, sender.damaged, sender.failed)

    def _advance(self, nbytes: int) -> None:
        self._done += nbytes
        self.progress(self._done, self._total)


def imported(
    plan: ImportPlan, total: Statistics, sessions: int, damaged: Mapping[str, str], failed: Mapping[str, str]
) -> Imported:
    """What an import did, with the keys of what was not taken instead of oids."""
    return Imported(
        total,
        sessions,
        len(plan.known),
        plan.ignored,
        tuple((key_of(oid) or oid, reason) for oid, reason in damaged.items()),
        tuple((key_of(oid) or oid, reason) for oid, reason in failed.items()),
    )


def items_of(
    plan: ImportPlan, project: Project | None, files: LocalFiles, limits: Limits, *, delta: bool
) -> list[Item]:
    """What a plan takes, in order.

    Raises:
        ShallowCloneError, StoreError, OSError: as of `import_files`.
    """
    return ordered(plan.sizes, plan.known, _lineage(plan, project, files, limits) if delta else Lineage())


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


def add(one: Statistics, other: Statistics) -> Statistics:
    """Two sessions together."""
    return Statistics(*(getattr(one, item.name) + getattr(other, item.name) for item in fields(Statistics)))


__all__ = [
    "ImportPlan",
    "Imported",
    "Limits",
    "NothingThereError",
    "add",
    "failures",
    "import_files",
    "imported",
    "items_of",
    "plan_import",
]
