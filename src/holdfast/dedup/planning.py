"""Making a plan: which copies become links to what, and which cannot."""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.dedup.canonical import standing_of
from holdfast.dedup.duplicates import JOBS, Collected, collect, compare, storages
from holdfast.dedup.files import Candidate
from holdfast.dedup.groups import MIN_SIZE_BYTES
from holdfast.dedup.plan import DedupPlan, LeftFile, LinkKind, Replacement, Stamp
from holdfast.dedup.reflink import can_clone
from holdfast.formats.cache import DigestCache
from holdfast.repo.workspace import Project

NO_REFLINKS = "the file system has no reflinks, and a hard link would let one overwrite change both"
SET_TO_COPY = "DVC is set to copy: see `dvc config cache.type`"
HARD_LINKED = "it has other hard links already"

Progress = Callable[[int, int], object]


def plan_links(
    folder: Path,
    digests: DigestCache,
    *,
    project: Project | None = None,
    paths: Sequence[Path] = (),
    min_size: int = MIN_SIZE_BYTES,
    jobs: int = JOBS,
    progress: Progress = lambda _done, _total: None,
) -> tuple[DedupPlan, tuple[str, ...]]:
    """Plan to replace exact copies in ``folder`` by links; nothing is changed.

    Files that DVC tracks, and whose object is in its cache, become what ``dvc checkout --relink`` would make of them.
    Others become reflinks, of which each may be changed without the other; where the file system has none, they stay.

    Args:
        folder: the project's root; any folder where there is no project.
        digests: what is known of files.
        project: whose DVC tracks the files; None where there is none.
        paths: only files at or below these are replaced; all where none is given. Any other may be what they share
            their blocks with.
        min_size: smaller files stay.
        jobs: threads that read.
        progress: called with bytes read and to be read.

    Returns:
        the plan, and notes of what could not be read.

    Raises:
        DvcConfigError: DVC's configuration cannot be read.
        OSError: the cache cannot be listed.
    """
    collected = collect(folder, project=project, min_size=min_size)
    compare(collected, jobs=jobs, digests=digests, progress=progress)
    groups = {digest: split for digest, members in collected.digests.items() if len(split := storages(members)) > 1}
    contested = [
        member.label
        for split in groups.values()
        for members in split.values()
        for member in members
        if not member.oid and not any(other.oid for others in split.values() for other in others)
    ]
    notes = collected.notes
    standing = standing_of(collected.folder, project.root if project else None, contested, notes)
    work = _Planner(collected, _wanted(paths))
    for digest, split in sorted(groups.items()):
        chosen, why = standing.choose(member for members in split.values() for member in members)
        kept = next(place for place, members in split.items() if chosen in members)
        for place, members in split.items():
            if place != kept and not any(member.oid for member in members):
                work.plan(digest, members, chosen, why)
    cache = collected.cache
    inside = cache is not None and cache.is_relative_to(collected.folder)
    shown = "" if cache is None else cache.relative_to(collected.folder).as_posix() if inside else str(cache)
    plan = DedupPlan(
        tuple(sorted(work.steps, key=lambda step: step.path)),
        tuple(sorted(work.left, key=lambda left: left.path)),
        collected.link_types,
        shown,
    )
    return plan, tuple(dict.fromkeys(notes))


def stamp_of(path: Path) -> Stamp:
    """The state of a file, a symbolic link's own.

    Raises:
        OSError: it is not there.
    """
    return stamp_in(path.lstat())


def stamp_in(status: os.stat_result) -> Stamp:
    """The state that a file's status names."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino, status.st_mode)


@dataclass
class _Planner:
    collected: Collected
    wanted: Callable[[Path], bool]
    steps: list[Replacement] = field(default_factory=list)
    left: list[LeftFile] = field(default_factory=list)
    _clones: dict[tuple[Path, Path], bool] = field(default_factory=dict)

    def plan(self, digest: str, members: Sequence[Candidate], chosen: Candidate, why: str) -> None:
        """One copy, under all its names, that is to share the bytes of another file."""
        files = [member for member in members if self.wanted(member.path)]
        for member in files:
            reason = self._step(digest, member, chosen, why)
            if reason:
                self.left.append(LeftFile(member.label, member.size, reason))

    def _step(self, digest: str, member: Candidate, chosen: Candidate, why: str) -> str:
        """Add a step; or why there is none."""
        try:
            status, source = member.path.lstat(), chosen.path.lstat()
        except OSError as error:
            return error.strerror or "it cannot be read"
        if (status.st_ino, status.st_size, status.st_mtime_ns) != (*member.inode[1:], member.size, member.modified):
            return "it was changed while it was looked at"
        if status.st_nlink > 1:
            return HARD_LINKED
        if not stat.S_ISREG(source.st_mode):
            return "its counterpart is no file any more"
        tracked = chosen.oid in self.collected.tracked.get(member.path, set()) if chosen.oid else False
        kind = self._tracked_kind(member, chosen) if tracked else self._reflink(member, chosen)
        if kind is None:
            return SET_TO_COPY if tracked else NO_REFLINKS
        self.steps.append(
            Replacement(
                path=member.label,
                kind=kind,
                source="" if chosen.oid else chosen.label,
                hash_name=chosen.store,
                oid=chosen.oid,
                digest=digest,
                stamp=stamp_in(status),
                source_stamp=stamp_in(source),
                tracked=tracked,
                why=why,
            )
        )
        return ""

    def _tracked_kind(self, member: Candidate, chosen: Candidate) -> LinkKind | None:
        """The first of DVC's link types that works here, as DVC chooses; None where that is to copy."""
        for kind in self.collected.link_types:
            if kind == "reflink" and self._reflink(member, chosen):
                return "reflink"
            if kind == "hardlink" and member.inode[0] == chosen.inode[0]:
                return "hardlink"
            if kind == "symlink":
                return "symlink"
            if kind == "copy":
                return None
        return None

    def _reflink(self, member: Candidate, chosen: Candidate) -> LinkKind | None:
        folders = (chosen.path.parent, member.path.parent)
        if folders not in self._clones:
            self._clones[folders] = can_clone(*folders)
        return "reflink" if self._clones[folders] else None


def _wanted(paths: Iterable[Path]) -> Callable[[Path], bool]:
    chosen = [path.parent.resolve() / path.name if path.name else path.resolve() for path in paths]
    chosen += [path.resolve() for path in paths if path.is_dir()]
    return lambda path: not chosen or any(path.is_relative_to(place) for place in chosen)
