"""The files that may be duplicates: those of a folder, and the objects of DVC's cache."""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.formats.cache import Key
from holdfast.inventory import tree
from holdfast.repo.cache import list_objects, read_members
from holdfast.repo.dvc import local_cache
from holdfast.repo.dvcfiles import LISTING_SUFFIX
from holdfast.repo.history import read_workspace
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project

# what other tools own: to replace a file there by a link would break them
SKIPPED_FOLDERS = frozenset({".git", ".dvc", ".holdfast", "node_modules", "__pycache__"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A regular file as it was when it was met.

    Args:
        path: absolute.
        label: from the folder that was looked at; for a cache object its path in the cache.
        oid: DVC's name of a cache object; empty for a file of the workspace.
        store: the part of the cache (``md5`` or ``md5-dos2unix``), in which equal content has one name.
        size: bytes.
        inode: device and inode; equal for hard links.
        modified: mtime in ns.
    """

    path: Path
    label: str
    oid: str
    store: str
    size: int
    inode: tuple[int, int]
    modified: int

    @property
    def key(self) -> Key:
        """What its digests are kept under."""
        return (*self.inode, self.size, self.modified)


def walk_files(top: Path, *, min_size: int, skipped: Collection[Path], notes: list[str]) -> Iterator[Candidate]:
    """Regular files of at least ``min_size`` bytes below ``top``; symbolic links are not followed.

    Left out are the folders that other tools own (git, DVC, npm, Python's byte code, virtual environments) and those in
    ``skipped`` (absolute). What cannot be read gets a line in ``notes``.
    """
    labels = frozenset(path.relative_to(top).as_posix() for path in skipped if path.is_relative_to(top))
    for file in tree.walk_files(top, notes, skipped=labels, owned=SKIPPED_FOLDERS):
        label = file.label
        try:
            found = _candidate(file.path, label, file.entry.stat(follow_symlinks=False))
        except OSError as error:
            notes.append(f"{label}: {error.strerror}")
            continue
        if found.size >= min_size:
            yield found


def cache_files(folder: Path, *, min_size: int, notes: list[str]) -> Iterator[Candidate]:
    """The objects of the DVC cache at ``folder`` of at least ``min_size`` bytes."""
    for entry in list_objects(folder):
        path = folder / entry.path
        try:
            status = path.lstat()
        except OSError as error:
            notes.append(f"{entry.path}: {error.strerror}")
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size >= min_size:
            yield _candidate(path, entry.path, status, entry.oid, entry.hash_name)


def tracked_files(project: Project) -> dict[Path, set[str]]:
    """The files that DVC tracks in the workspace now, with the oids that their DVC files name.

    Raises:
        HoldfastError: the repository, DVC's configuration or a DVC file cannot be read.
    """
    cache = local_cache(project.root)
    result: dict[Path, set[str]] = {}
    for sighting in read_workspace(open_repository(project.git_root)).sightings:
        if sighting.version or sighting.origin.ref:
            continue
        path = project.git_root / sighting.out.path
        result.setdefault(path, set()).add(sighting.out.oid)
        if sighting.out.oid.endswith(LISTING_SUFFIX):
            for member, oid in read_members(cache.folder, sighting.out.hash_name, sighting.out.oid) or ():
                result.setdefault(path / member, set()).add(oid)
    return result


def unchanged(candidate: Candidate) -> bool:
    """Whether the file is still the one that was met.

    Raises:
        OSError: it is gone.
    """
    return (
        _candidate(candidate.path, candidate.label, candidate.path.lstat(), candidate.oid, candidate.store) == candidate
    )


def _candidate(path: Path, label: str, status: os.stat_result, oid: str = "", store: str = "") -> Candidate:
    return Candidate(path, label, oid, store, status.st_size, (status.st_dev, status.st_ino), status.st_mtime_ns)
