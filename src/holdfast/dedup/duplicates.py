"""Exact duplicates: files with equal bytes that occupy the disk more than once."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from holdfast.dedup.files import Candidate, cache_files, tracked_files, unchanged, walk_files
from holdfast.errors import HoldfastError
from holdfast.formats.digest import file_digest
from holdfast.repo.dvc import local_cache, local_remotes
from holdfast.repo.workspace import Project

REPORT_FORMAT = "holdfast dedup report 1"
# below one block of the usual file systems a duplicate costs no more than its name
MIN_SIZE_BYTES = 4096
JOBS = 4

Kind = Literal["checkout", "duplicate"]


@dataclass(frozen=True)
class DuplicateGroup:
    """Files with equal bytes.

    Args:
        digest: ``blake3:<hex>`` of their bytes.
        size: bytes of one.
        copies: how many times the bytes may lie on the disk: distinct inodes.
        wasted: ``size`` × (``copies`` − 1), in bytes.
        kind: ``checkout`` where all there is are a cache object and the workspace files that DVC made from it, else
            ``duplicate``.
        paths: files of the workspace, from the folder that was looked at.
        oids: DVC's names of the cache objects.
    """

    digest: str
    size: int
    copies: int
    wasted: int
    kind: Kind
    paths: tuple[str, ...]
    oids: tuple[str, ...]


@dataclass(frozen=True)
class DuplicateReport:
    """All groups, those that waste most first.

    Args:
        groups: see `DuplicateGroup`.
        files: files of the workspace that were looked at.
        objects: cache objects that were looked at.
        bytes: what they occupy together, hard links counted once.
        link_types: how DVC links cached files into the workspace; empty without DVC.
        notes: what was left out, and why.
    """

    groups: tuple[DuplicateGroup, ...]
    files: int
    objects: int
    bytes: int
    link_types: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def wasted(self) -> int:
        """Bytes that all groups waste."""
        return sum(group.wasted for group in self.groups)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {"format": REPORT_FORMAT, "wasted": self.wasted, **asdict(self)}


def find_duplicates(
    folder: Path, *, project: Project | None = None, min_size: int = MIN_SIZE_BYTES, jobs: int = JOBS
) -> DuplicateReport:
    """Exact duplicates among the files below ``folder`` and, with a ``project``, the objects of its DVC cache.

    By size first, then by BLAKE3, read by ``jobs`` threads. Hard links are one file, symbolic links none. DVC remotes
    that are local folders are left out: they are second copies on purpose. A file that vanishes, changes or cannot be
    read meanwhile gets a note and counts for nothing.

    Raises:
        DvcConfigError: DVC's configuration cannot be read.
        OSError: the cache cannot be listed.
    """
    notes: list[str] = []
    folder = folder.resolve()
    objects: list[Candidate] = []
    skipped: set[Path] = set()
    tracked: dict[Path, set[str]] = {}
    link_types: tuple[str, ...] = ()
    if project is not None:
        cache = local_cache(project.root)
        link_types = cache.link_types
        remotes = {name: path for name, path in local_remotes(project.root).items() if path.is_relative_to(folder)}
        notes += [
            f"{path.relative_to(folder)}: left out, it is the DVC remote {name}" for name, path in remotes.items()
        ]
        skipped = {cache.folder, *remotes.values()}
        objects = list(cache_files(cache.folder, min_size=max(1, min_size), notes=notes))
        try:
            tracked = tracked_files(project)
        except HoldfastError as error:
            notes.append(f"which files DVC tracks is unknown: {error.message}")
    files = list(walk_files(folder, min_size=max(1, min_size), skipped=skipped, notes=notes))
    groups = _group(_digests([*files, *objects], jobs, notes), tracked)
    return DuplicateReport(
        groups=tuple(sorted(groups, key=lambda group: (-group.wasted, group.digest))),
        files=len(files),
        objects=len(objects),
        bytes=sum({candidate.inode: candidate.size for candidate in (*files, *objects)}.values()),
        link_types=link_types,
        notes=tuple(notes),
    )


def _digests(candidates: Iterable[Candidate], jobs: int, notes: list[str]) -> dict[str, list[Candidate]]:
    by_size: dict[int, dict[tuple[int, int], list[Candidate]]] = {}
    for candidate in candidates:
        by_size.setdefault(candidate.size, {}).setdefault(candidate.inode, []).append(candidate)
    worth = [links for inodes in by_size.values() if _may_repeat(inodes) for links in inodes.values()]
    result: dict[str, list[Candidate]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for links, outcome in zip(worth, pool.map(_digest, (links[0] for links in worth)), strict=True):
            if outcome.startswith("blake3:"):
                result.setdefault(outcome, []).extend(links)
            else:
                notes.append(f"{links[0].label}: {outcome}")
    return result


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


def _group(digests: dict[str, list[Candidate]], tracked: dict[Path, set[str]]) -> list[DuplicateGroup]:
    groups = []
    for digest, members in digests.items():
        copies = len({member.inode for member in members})
        if copies < 2:
            continue
        files = [member for member in members if not member.oid]
        oids = sorted({member.oid for member in members if member.oid})
        stored = {member.inode for member in members if member.oid}
        checkout = len(stored) == 1 and all(tracked.get(file.path, set()) & set(oids) for file in files)
        groups.append(
            DuplicateGroup(
                digest=digest,
                size=members[0].size,
                copies=copies,
                wasted=members[0].size * (copies - 1),
                kind="checkout" if checkout else "duplicate",
                paths=tuple(sorted(file.label for file in files)),
                oids=tuple(oids),
            )
        )
    return groups
