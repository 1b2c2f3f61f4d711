"""Exact duplicates: files with equal bytes that occupy the disk more than once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.dedup.files import Candidate, cache_files, tracked_files, unchanged, walk_files
from holdfast.dedup.groups import MIN_SIZE_BYTES, DuplicateGroup, DuplicateReport, Scope, ranked
from holdfast.dedup.reflink import extents_of
from holdfast.errors import HoldfastError
from holdfast.formats.cache import RACY_NS, DigestCache, Digests, Key
from holdfast.formats.digest import file_digest
from holdfast.repo.dvc import local_cache, local_remotes
from holdfast.repo.workspace import Project

__all__ = ["MIN_SIZE_BYTES", "DuplicateGroup", "DuplicateReport", "find_duplicates"]

JOBS = 4
# an inode on its device, or the place of its blocks where several inodes share them
Storage = tuple[object, ...]

Progress = Callable[[int, int], object]


@dataclass
class Collected:
    """The files that may be duplicates, and what is known of them.

    Attributes:
        folder: the one that was looked at, absolute.
        files: of the workspace.
        objects: of the cache.
        tracked: the oids that DVC's files name for a path of the workspace.
        cache: the cache's folder; None without DVC.
        link_types: how DVC links.
        notes: what was left out.
        digests: of the bytes, by candidate, where another file may have the same.
    """

    folder: Path
    files: list[Candidate] = field(default_factory=list)
    objects: list[Candidate] = field(default_factory=list)
    tracked: dict[Path, set[str]] = field(default_factory=dict)
    cache: Path | None = None
    link_types: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    digests: dict[str, list[Candidate]] = field(default_factory=dict)

    @property
    def everything(self) -> list[Candidate]:
        """Files and objects."""
        return [*self.files, *self.objects]

    @property
    def bytes(self) -> int:
        """What all occupy together, hard links counted once."""
        return sum({candidate.inode: candidate.size for candidate in self.everything}.values())


def find_duplicates(
    folder: Path,
    *,
    project: Project | None = None,
    min_size: int = MIN_SIZE_BYTES,
    jobs: int = JOBS,
    digests: DigestCache | None = None,
) -> DuplicateReport:
    """Exact duplicates among the files below ``folder`` and, with a ``project``, the objects of its DVC cache.

    By size first, then by BLAKE3, read by ``jobs`` threads. Hard links are one file, and so are files that share all
    their blocks; symbolic links are none. DVC remotes that are local folders are left out: they are second copies on
    purpose. A file that vanishes, changes or cannot be read meanwhile gets a note and counts for nothing.

    Raises:
        DvcConfigError: DVC's configuration cannot be read.
        OSError: the cache cannot be listed.
    """
    collected = collect(folder, project=project, min_size=min_size)
    compare(collected, jobs=jobs, digests=digests)
    return DuplicateReport(
        groups=ranked(exact_groups(collected)),
        files=len(collected.files),
        objects=len(collected.objects),
        bytes=collected.bytes,
        link_types=collected.link_types,
        notes=tuple(collected.notes),
    )


def collect(
    folder: Path,
    *,
    project: Project | None = None,
    min_size: int = MIN_SIZE_BYTES,
    scopes: Iterable[Scope] = ("workspace", "cache"),
) -> Collected:
    """The files below ``folder`` and the objects of the project's cache, as far as ``scopes`` has them; none is read.

    Raises:
        DvcConfigError: DVC's configuration cannot be read.
        OSError: the cache cannot be listed.
    """
    wanted = frozenset(scopes)
    found = Collected(folder.resolve())
    skipped: set[Path] = set()
    if project is not None:
        cache = local_cache(project.root)
        found.cache, found.link_types = cache.folder, cache.link_types
        remotes = {
            name: path for name, path in local_remotes(project.root).items() if path.is_relative_to(found.folder)
        }
        skipped = {cache.folder, *remotes.values()}
        if "workspace" in wanted:
            found.notes += [
                f"{path.relative_to(found.folder)}: left out, it is the DVC remote {name}"
                for name, path in remotes.items()
            ]
        if "cache" in wanted:
            found.objects = list(cache_files(cache.folder, min_size=max(1, min_size), notes=found.notes))
        try:
            found.tracked = tracked_files(project)
        except HoldfastError as error:
            found.notes.append(f"which files DVC tracks is unknown: {error.message}")
    if "workspace" in wanted:
        walked = walk_files(found.folder, min_size=max(1, min_size), skipped=skipped, notes=found.notes)
        found.files = list(walked)
    return found


def compare(
    collected: Collected,
    *,
    jobs: int = JOBS,
    digests: DigestCache | None = None,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Take the digests of what may be equal to something else, where they are not known already."""
    by_size: dict[int, dict[tuple[int, int], list[Candidate]]] = {}
    for candidate in collected.everything:
        by_size.setdefault(candidate.size, {}).setdefault(candidate.inode, []).append(candidate)
    worth = [links for inodes in by_size.values() if _may_repeat(inodes) for links in inodes.values()]
    known = digests.many(links[0].key for links in worth) if digests is not None else {}
    wanted = [links for links in worth if not _known(known, links[0])]
    done, total = 0, sum(links[0].size for links in wanted)
    outcomes: dict[tuple[int, int], str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for links, outcome in zip(wanted, pool.map(_digest, (links[0] for links in wanted)), strict=True):
            outcomes[links[0].inode] = outcome
            if outcome.startswith("blake3:") and digests is not None:
                _remember(digests, links[0], outcome)
            done += links[0].size
            progress(done, total)
    for links in worth:
        outcome = outcomes.get(links[0].inode) or _known(known, links[0])
        if outcome.startswith("blake3:"):
            collected.digests.setdefault(outcome, []).extend(links)
        else:
            collected.notes.append(f"{links[0].label}: {outcome}")


def exact_groups(collected: Collected) -> list[DuplicateGroup]:
    """The groups of files with equal bytes that occupy the disk more than once."""
    groups = []
    for digest, members in collected.digests.items():
        copies = len(storages(members))
        if copies < 2:
            continue
        files = [member for member in members if not member.oid]
        oids = sorted({member.oid for member in members if member.oid})
        stored = {member.inode for member in members if member.oid}
        checkout = len(stored) == 1 and all(collected.tracked.get(file.path, set()) & set(oids) for file in files)
        kind: Literal["checkout", "duplicate"] = "checkout" if checkout else "duplicate"
        groups.append(
            DuplicateGroup(
                digest=digest,
                size=members[0].size,
                copies=copies,
                wasted=members[0].size * (copies - 1),
                kind=kind,
                paths=tuple(sorted(file.label for file in files)),
                oids=tuple(oids),
            )
        )
    return groups


def storages(members: Iterable[Candidate]) -> dict[Storage, list[Candidate]]:
    """Files by what they occupy: hard links together, and those that share all their blocks on one device."""
    inodes: dict[tuple[int, int], list[Candidate]] = {}
    for member in members:
        inodes.setdefault(member.inode, []).append(member)
    found: dict[Storage, list[Candidate]] = {}
    for inode, links in inodes.items():
        extents = extents_of(links[0].path) if len(inodes) > 1 else None
        place: Storage = inode if extents is None else (inode[0], extents)
        found.setdefault(place, []).extend(links)
    return found


def _remember(digests: DigestCache, candidate: Candidate, digest: str) -> None:
    # one written this very moment could be written again without another mtime
    if digests.now_ns() - candidate.modified >= RACY_NS:
        digests.put_key(candidate.key, Digests(file=digest))


def _known(known: dict[Key, Digests], candidate: Candidate) -> str:
    found = known.get(candidate.key)
    return found.file or "" if found is not None else ""


def _may_repeat(inodes: dict[tuple[int, int], list[Candidate]]) -> bool:
    if len(inodes) < 2:
        return False
    # objects of one store have different names because their bytes differ: no need to read them
    stores = {links[0].store for links in inodes.values()}
    return "" in stores or len(stores) > 1


def _digest(candidate: Candidate) -> str:
    try:
        digest = file_digest(candidate.path)
        return digest if unchanged(candidate) else "changed while it was read"
    except FileNotFoundError:
        return "vanished while it was looked at"
    except OSError as error:
        return error.strerror or str(error)
