"""A DVC project's files in one state, commit or workspace, as DVC walks through them.

Left out are what ``.dvcignore`` names, other projects below this one, and in the workspace what git ignores.
"""

import os
import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from holdfast.repo.dvcfiles import DVC_SUFFIX, PIPELINE_FILE
from holdfast.repo.gitfolder import GitFolder
from holdfast.repo.objects import LINK_MODE, SUBMODULE_MODE, TREE_MODE, GitObjects
from holdfast.repo.refs import Origin, unreadable
from holdfast.repo.workspace import DVC_FOLDER, Project

if TYPE_CHECKING:
    import pathspec

IGNORE_FILE = ".dvcignore"
_NEVER = frozenset({".git", ".hg", DVC_FOLDER})

Ignores = tuple[tuple[str, bytes], ...]
Entries = dict[str, tuple[bytes, str]]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the project.

    Args:
        path: from the git root; empty for that one itself.
        names: of its ``dvc.yaml`` and ``*.dvc`` files, in order.
        below: names of its folders, in order, with what finds them again.
        ignores: the patterns that count here: folder and content of each ``.dvcignore``, outermost first.
    """

    path: str
    names: tuple[str, ...]
    below: tuple[tuple[str, str], ...]
    ignores: Ignores


@dataclass
class Met:
    """Folders and trees that were met before; one for all commits of a repository."""

    folders: dict[tuple[str, str, Ignores], Folder] = field(default_factory=dict)
    trees: dict[str, Entries] = field(default_factory=dict)


class Files(Protocol):
    """A project's files in one state."""

    origin: Origin

    @property
    def top(self) -> Folder:
        """The project's folder."""

    def below(self, folder: Folder) -> list[Folder]:
        """The folders in a folder, in the order in which DVC walks."""

    def read(self, path: str) -> bytes | None:
        """The content of a file, by its path from the git root; None where there is none."""


class CommitFiles:
    """The files of a commit; folders that were met before are not read again."""

    def __init__(
        self,
        objects: GitObjects,
        origin: Origin,
        tree: str,
        prefix: str,
        place: str,
        met: Met,
    ) -> None:
        self.origin = origin
        self._objects = objects
        self._tree = tree
        self._prefix = prefix
        self._place = place
        self._met = met

    @classmethod
    def open(
        cls,
        project: Project,
        objects: GitObjects,
        origin: Origin,
        met: Met,
    ) -> "CommitFiles | None":
        """The project's files in a commit; None where it had no such folder.

        Raises:
            UnreadableRefError: a tree is missing or damaged.
        """
        commit = objects.find_commit(origin.commit)
        assert commit is not None  # it was read to get here
        place: tuple[bytes, str] | None = (TREE_MODE, commit.tree)
        for part in project.prefix.split("/") if project.prefix else ():
            place = _entries(objects, origin, place[1], "", met).get(part) if place and place[0] == TREE_MODE else None
        if place is None or place[0] != TREE_MODE:
            return None
        return cls(objects, origin, commit.tree, project.prefix, place[1], met)

    @property
    def top(self) -> Folder:
        """The project's folder."""
        return self._folder(self._prefix, self._place, ())

    def below(self, folder: Folder) -> list[Folder]:
        """The folders in a folder, in order."""
        return [
            self._folder(posixpath.join(folder.path, name), tree, folder.ignores)
            for name, tree in folder.below
            if not self._is_project(tree, posixpath.join(folder.path, name))
        ]

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        found: tuple[bytes, str] | None = (TREE_MODE, self._tree)
        for part in path.split("/"):
            if found is None or found[0] != TREE_MODE:
                return None
            found = self._entries(found[1], path).get(part)
        if found is None or found[0] in (TREE_MODE, SUBMODULE_MODE):
            return None
        data = self._objects.read_blob(found[1])
        if data is None:
            what = f"{path} in commit {self.origin.commit}"
            promisor = self._objects.folder.promisor
            raise unreadable(what, self.origin, ValueError("its blob is missing or damaged"), promisor)
        if found[0] == LINK_MODE:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), data.decode("utf-8", "replace")))
            return None if target == path or target.startswith("../") else self.read(target)
        return data

    def _entries(self, tree: str, path: str) -> Entries:
        return _entries(self._objects, self.origin, tree, path, self._met)

    def _is_project(self, tree: str, path: str) -> bool:
        return DVC_FOLDER in self._entries(tree, path)

    def _folder(self, path: str, tree: str, ignores: Ignores) -> Folder:
        key = (path, tree, ignores)
        if key not in self._met.folders:
            entries = self._entries(tree, path)
            if IGNORE_FILE in entries and (content := self._objects.read_blob(entries[IGNORE_FILE][1])):
                ignores = _with(ignores, path, content)
            ignored = _Ignored(ignores)
            names, below = [], []
            for name, (mode, oid) in entries.items():
                place = posixpath.join(path, name)
                if mode == TREE_MODE:
                    if name not in _NEVER and not ignored(place, is_folder=True):
                        below.append((name, oid))
                elif _is_dvc_file(name) and mode != SUBMODULE_MODE and not ignored(place, is_folder=False):
                    names.append(name)
            self._met.folders[key] = Folder(path, tuple(names), tuple(below), ignores)
        return self._met.folders[key]


class WorkspaceFiles:
    """The files of the working tree."""

    def __init__(self, project: Project, folder: GitFolder, origin: Origin) -> None:
        self.origin = origin
        self._project = project
        self._folder_of_git = folder

    @property
    def top(self) -> Folder:
        """The project's folder."""
        return self._folder(self._project.prefix, ())

    def below(self, folder: Folder) -> list[Folder]:
        """The folders in a folder, in order."""
        return [self._folder(place, folder.ignores) for _, place in folder.below]

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            return (self._project.git_root / path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def _folder(self, path: str, ignores: Ignores) -> Folder:
        top = self._project.git_root / path
        if content := self.read(posixpath.join(path, IGNORE_FILE)):
            ignores = _with(ignores, path, content)
        ignored = _Ignored(ignores)
        names, below = [], []
        for entry in sorted(os.scandir(top), key=lambda entry: entry.name):
            place = posixpath.join(path, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if entry.name in _NEVER or ignored(place, is_folder=True) or self._ignored_by_git(f"{place}/"):
                    continue
                if not (Path(entry.path) / DVC_FOLDER).exists():
                    below.append((entry.name, place))
            elif (
                _is_dvc_file(entry.name)
                and entry.is_file()
                and not ignored(place, is_folder=False)
                and not self._ignored_by_git(place)
            ):
                names.append(entry.name)
        return Folder(path, tuple(names), tuple(below), ignores)

    def _ignored_by_git(self, path: str) -> bool:
        return bool(self._folder_of_git.repository.path_is_ignored(path))


class _Ignored:
    """Whether patterns ignore a path; of those that match, the last one counts, and the innermost file's are last."""

    def __init__(self, ignores: Ignores) -> None:
        self._specs = [(folder, _spec(content)) for folder, content in ignores]

    def __call__(self, path: str, *, is_folder: bool) -> bool:
        result = False
        for folder, spec in self._specs:
            found = spec.check_file(posixpath.relpath(path, folder or ".") + ("/" if is_folder else "")).include
            if found is not None:
                result = found
        return result


def _spec(content: bytes) -> "pathspec.GitIgnoreSpec":
    import pathspec  # imported here: few projects have patterns

    return pathspec.GitIgnoreSpec.from_lines(content.decode("utf-8", "replace").splitlines())


def _with(ignores: Ignores, folder: str, content: bytes) -> Ignores:
    lines = [line for line in content.splitlines() if line.strip() and not line.startswith(b"#")]
    return (*ignores, (folder, b"\n".join(lines))) if lines else ignores


def _is_dvc_file(name: str) -> bool:
    return name.endswith(DVC_SUFFIX) or name == PIPELINE_FILE


def _entries(objects: GitObjects, origin: Origin, tree: str, path: str, met: Met) -> Entries:
    if tree not in met.trees:
        found = objects.read_tree(tree)
        if found is None:
            what = f"folder {path or '.'} of commit {origin.commit}"
            raise unreadable(what, origin, ValueError("its tree is missing or damaged"), objects.folder.promisor)
        met.trees[tree] = {name: (mode, oid) for mode, name, oid in found}
    return met.trees[tree]
