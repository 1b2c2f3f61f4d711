"""All that lies in a project's folder, looked at once: what a folder holds decides whether it may go as a whole."""

import os
import stat
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from holdfast.inventory.copies import CACHE_FOLDERS
from holdfast.inventory.tree import SKIPPED_FOLDERS, VENV_MARK

GIT, DVC = ".git", ".dvc"
# what tools keep for themselves and no scope looks into; the caches among these are the workspace scope's own
OPAQUE_FOLDERS = (SKIPPED_FOLDERS - CACHE_FOLDERS) | {GIT, DVC}
# where DVC keeps objects in a cache or a remote
OBJECTS_FOLDER = "files/md5"

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """A regular file as it was met.

    Attributes:
        size: bytes.
        changed: the later of mtime and ctime, seconds since 1970.
        stamp: device, inode, size, mtime and ctime in nanoseconds.
    """

    size: int
    changed: float
    stamp: Stamp


@dataclass
class Tree:
    """What lies below a folder; paths are seen from it, with slashes.

    Attributes:
        root: the folder.
        files: regular files.
        links: symbolic links; none was followed.
        closed: what was not looked into or is neither file, folder nor link, and why.
        foreign: the tops of other git repositories and DVC projects, and what each is.
        unreadable: folders that could not be listed, and why.
    """

    root: Path
    files: dict[str, Seen] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _labels(self) -> list[str]:
        return sorted(self.files)

    @cached_property
    def _walls(self) -> frozenset[str]:
        return frozenset([*self.closed, *self.unreadable, *self.foreign])

    @cached_property
    def _barriers(self) -> list[str]:
        return sorted(self._walls)

    def below(self, folder: str) -> list[str]:
        """The regular files in a folder, ordered; none in a folder of that name that is none."""
        return list(_span(self._labels, folder))

    def barrier(self, folder: str) -> str | None:
        """Something in a folder, itself or around it, that was not looked into; None where all was."""
        return self.host(folder) or next(iter(_span(self._barriers, folder)), None)

    def host(self, label: str) -> str | None:
        """The store, environment, repository or unreadable folder that a path is or lies in; None for none."""
        return next((place for place in parents_of(label) if place in self._walls), None)

    def owner(self, label: str) -> str | None:
        """The other repository or project that a path lies in; None for none."""
        return next((place for place in parents_of(label) if place in self.foreign), None)

    def changed_since(self, label: str) -> bool:
        """Whether a file is not any more as it was met."""
        try:
            return _seen(os.lstat(self.root / label)).stamp != self.files[label].stamp
        except OSError:
            return True


def walk_tree(root: Path, *, project: str, closed: Collection[str]) -> Tree:
    """Look at everything below ``root``; nothing is opened, no link followed.

    Args:
        root: the top of the git repository.
        project: the DVC project from there, empty for ``root`` itself: it is no foreign one.
        closed: folders that are stores of their own: caches, remotes and vaults that lie in the workspace.

    Raises:
        OSError: ``root`` itself cannot be listed.
    """
    tree = Tree(root)
    around = {"", project, *parents_of(project)}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder if folder else root) as listing:
                entries = list(listing)
        except OSError as error:
            if not folder:
                raise
            tree.unreadable[folder] = error.strerror or str(error)
            continue
        names = {entry.name for entry in entries}
        if VENV_MARK in names:
            tree.closed[folder] = "a virtual environment"
            continue
        if folder not in around and (GIT in names or DVC in names):
            tree.foreign[folder] = "a git repository" if GIT in names else "a DVC project"
        prefix = f"{folder}/" if folder else ""
        for entry in entries:
            label = prefix + entry.name
            if entry.is_symlink():
                tree.links.append(label)
            elif entry.is_dir(follow_symlinks=False):
                if label in closed or entry.name in OPAQUE_FOLDERS or f"/{label}".endswith(f"/{OBJECTS_FOLDER}"):
                    tree.closed[label] = "a folder of tools"
                else:
                    waiting.append(label)
            else:
                _take_file(tree, entry, label)
    tree.links.sort()
    return tree


def _take_file(tree: Tree, entry: "os.DirEntry[str]", label: str) -> None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return  # gone since the folder was listed
    if stat.S_ISREG(status.st_mode):
        tree.files[label] = _seen(status)
    else:
        tree.closed[label] = "neither file nor folder"


def _seen(status: os.stat_result) -> Seen:
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return Seen(status.st_size, max(status.st_mtime, status.st_ctime), stamp)


def folder_changed(tree: Tree, folder: str, now: float) -> float:
    """When a folder itself was changed, seconds since 1970; ``now`` where that cannot be seen."""
    try:
        return _seen(os.lstat(tree.root / folder)).changed
    except OSError:
        return now


def parents_of(label: str) -> Iterator[str]:
    """The path itself and the folders around it, innermost first, without the root."""
    while label:
        yield label
        label = label.rpartition("/")[0]


def whole_folders(tree: Tree, going: Collection[str], tops: Collection[str]) -> dict[str, list[str]]:
    """The fewest paths that stand for files: a folder where all that lies in it goes, else the file.

    Args:
        tree: what lies there.
        going: the files.
        tops: folders that may stand for what is in them, and any folder in them; empty for all.

    Returns:
        the files of each path, by path, ordered.
    """
    gone = frozenset(going)
    whole: dict[str, bool] = {}

    def goes(folder: str) -> bool:
        if folder not in whole:
            allowed = not tops or any(place in tops for place in parents_of(folder))
            whole[folder] = allowed and tree.barrier(folder) is None and gone.issuperset(tree.below(folder))
        return whole[folder]

    result: dict[str, list[str]] = {}
    for label in sorted(gone):
        chosen = label
        for place in list(parents_of(label))[1:]:
            if not goes(place):
                break
            chosen = place
        result.setdefault(chosen, []).append(label)
    return result


def _span(ordered: list[str], folder: str) -> list[str]:
    start = bisect_left(ordered, f"{folder}/")
    return ordered[start : bisect_left(ordered, f"{folder}0", start)]  # 0 comes after /
