"""What DVC's files in git history and in the workspace name.

Commits are read best known first, and every tree and every file only where it is first met: the history of a file that
did not change costs nothing, and what is first met is met under its best name.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pygit2

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.repo.dvcfiles import (
    DVC_SUFFIX,
    LOCK_FILE,
    PIPELINE_FILE,
    Out,
    StageDefinition,
    UnreadableFileError,
    read_definitions,
    read_dvc,
    read_lock,
    read_version,
    version_name,
)
from holdfast.repo.refs import Origin, order_commits, read_tips, reflog_commits, unreadable, worktree_folders
from holdfast.repo.workspace import DVC_FOLDER

_SKIPPED_FOLDERS = frozenset({".git", DVC_FOLDER, "node_modules", "__pycache__"})
_VENV_MARK = "pyvenv.cfg"
_VERSION_FILE = re.compile(r"v[0-9]+\.yaml")


class UnreadableDvcFileError(IntegrityError):
    """A DVC file in a commit or in the workspace cannot be read, so what it names is unknown."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An object's name, and where it was seen.

    Args:
        out: path and object.
        file: the file that says so, from the git root.
        origin: the commit or workspace that has the file.
        version: ``app/name@v3`` where the file is a registry version's.
    """

    out: Out
    file: str
    origin: Origin
    version: str | None = None


@dataclass
class HistoryReader:
    """Reads the DVC files of a repository; each distinct tree and file once, in the order in which it is asked.

    Every method yields what was not met before.

    Raises, in every method:
        UnreadableDvcFileError: a file is not what its name says; names commit and path.
        UnreadableRefError: a ref, commit, tree or blob cannot be read.
    """

    repository: pygit2.Repository
    reached: set[pygit2.Oid] = field(default_factory=set)
    _trees: set[tuple[str, pygit2.Oid]] = field(default_factory=set)
    _files: set[tuple[str, pygit2.Oid, pygit2.Oid | None]] = field(default_factory=set)
    _definitions: dict[pygit2.Oid, dict[str, StageDefinition]] = field(default_factory=dict)
    _links: set[str] = field(default_factory=set)

    def read_revision(self, revision: str) -> Iterator[Sighting]:
        """What one commit says, named in any way that git understands: a branch, a tag, ``HEAD~2``, a hash.

        Raises besides:
            UnknownRevisionError: there is no such commit.
        """
        try:
            commit = self.repository.revparse_single(revision).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise UnknownRevisionError(
                f"git knows no commit {revision!r}", hint="`git log --all` shows them"
            ) from error
        yield from self._read_commit(commit, Origin("ref", revision, str(commit.id)))

    def read_refs(self) -> Iterator[Sighting]:
        """What every commit says that a branch, tag, experiment, stash or other ref reaches."""
        for commit, origin in order_commits(self.repository, read_tips(self.repository)):
            self.reached.add(commit.id)
            yield from self._read_commit(commit, origin)

    def read_reflogs(self) -> Iterator[Sighting]:
        """What commits say that only a reflog reaches; those that cannot be read are passed over. After `read_refs`."""
        for commit, origin in reflog_commits(self.repository, self.reached):
            try:
                yield from self._read_commit(commit, origin)
            except IntegrityError:
                continue  # git may have pruned half of it, and nothing rests on it

    def read_index(self) -> Iterator[Sighting]:
        """What is staged for the next commit."""
        origin = Origin("workspace", "staged")
        entries = {entry.path: entry for entry in self.repository.index}
        for path, entry in entries.items():
            folder, name = os.path.split(path)
            if not _reads(folder, name):
                continue
            if entry.mode == pygit2.enums.FileMode.LINK:
                target = os.path.join(folder, self._blob(entry.id, path, origin).decode("utf-8", "replace"))  # noqa: PTH118
                followed = entries.get(os.path.normpath(target))
                if followed is None:
                    continue
                entry = followed
            sibling = entries.get(os.path.join(folder, PIPELINE_FILE))  # noqa: PTH118 - git's paths, not the disk's
            yield from self._read_file(folder, name, entry.id, sibling.id if sibling else None, origin)

    def _read_commit(self, commit: pygit2.Commit, origin: Origin) -> Iterator[Sighting]:
        stack: list[tuple[str, pygit2.Oid]] = [("", commit.tree_id)]
        while stack:
            folder, tree_id = stack.pop()
            if (folder, tree_id) in self._trees:
                continue
            self._trees.add((folder, tree_id))
            blobs: dict[str, pygit2.Oid] = {}
            for name, mode, oid in self._entries(tree_id, folder, origin):
                if mode == pygit2.enums.FileMode.TREE:
                    if name != DVC_FOLDER:
                        stack.append((f"{folder}/{name}" if folder else name, oid))
                elif name.endswith((DVC_SUFFIX, ".yaml", ".lock")):
                    if mode == pygit2.enums.FileMode.LINK and _reads(folder, name):
                        self._links.add(f"{folder}/{name}" if folder else name)
                    elif mode != pygit2.enums.FileMode.COMMIT:
                        blobs[name] = oid
            for name, oid in blobs.items():
                if _reads(folder, name):
                    yield from self._read_file(folder, name, oid, blobs.get(PIPELINE_FILE), origin)
        for path in sorted(self._links):
            yield from self._read_link(commit, path, origin)

    def _read_link(self, commit: pygit2.Commit, path: str, origin: Origin) -> Iterator[Sighting]:
        # a linked file changes without its folder's tree, so it is looked at in every commit
        folder, name = os.path.split(path)
        try:
            link: object = commit.tree[path]
            if not isinstance(link, pygit2.Blob) or link.filemode != pygit2.enums.FileMode.LINK:
                return
            target = os.path.normpath(os.path.join(folder, link.data.decode()))  # noqa: PTH118
            blob: object = commit.tree[target]
        except (KeyError, UnicodeDecodeError):
            return  # leads out of the repository or nowhere: a checkout could not read it either
        if isinstance(blob, pygit2.Blob):
            yield from self._read_file(folder, name, blob.id, None, origin)

    def _entries(self, tree_id: pygit2.Oid, folder: str, origin: Origin) -> Iterator[tuple[str, int, pygit2.Oid]]:
        try:
            tree = cast(pygit2.Tree, self.repository[tree_id])
        except (KeyError, pygit2.GitError) as error:
            what = f"folder {folder or '.'} of commit {origin.commit}"
            raise unreadable(what, origin, ValueError("its tree is missing or damaged")) from error
        for entry in tree:
            yield (entry.raw_name or b"").decode("utf-8", "replace"), int(entry.filemode), entry.id

    def _read_file(
        self, folder: str, name: str, blob: pygit2.Oid, definition: pygit2.Oid | None, origin: Origin
    ) -> Iterator[Sighting]:
        path = f"{folder}/{name}" if folder else name
        key = (path, blob, definition if name == LOCK_FILE else None)
        if key in self._files:
            return
        self._files.add(key)
        data = self._blob(blob, path, origin)
        definitions: dict[str, StageDefinition] = {}
        if name == LOCK_FILE and definition is not None:
            if definition not in self._definitions:
                self._definitions[definition] = read_definitions(self._blob(definition, path, origin))
            definitions = self._definitions[definition]
        yield from _read(data, folder, name, definitions, origin)

    def _blob(self, oid: pygit2.Oid, path: str, origin: Origin) -> bytes:
        try:
            return cast(pygit2.Blob, self.repository[oid]).data
        except (KeyError, pygit2.GitError) as error:
            what = f"{path} in commit {origin.commit}"
            raise unreadable(what, origin, ValueError("its blob is missing or damaged")) from error


class UnknownRevisionError(HoldfastError):
    """Git knows no commit of that name."""


@dataclass(frozen=True)
class Workspace:
    """What the files of a working tree name now, committed or not.

    Args:
        sightings: one for each out.
        projects: folders with ``.dvc/``, from the git root; empty for the root itself.
    """

    sightings: list[Sighting]
    projects: list[str]


def read_workspace(repository: pygit2.Repository) -> Workspace:
    """Read the DVC files of the working tree and of the repository's other worktrees.

    Git's and DVC's own folders, virtual environments and the folders that ``*.dvc`` files track are not entered. A
    file that is ignored by git and no DVC file in spite of its name is passed over, as DVC does.

    Raises:
        UnreadableDvcFileError: a file or folder cannot be read.
    """
    result = Workspace([], [])
    if repository.workdir:
        _read_worktree(Path(repository.workdir), Origin("workspace", ""), result, repository.path_is_ignored)
        for name, folder in worktree_folders(repository).items():
            _read_worktree(folder, Origin("workspace", name), result, None)
    return result


def _read_worktree(top: Path, origin: Origin, result: Workspace, ignored: Callable[[str], bool] | None) -> None:
    def refuse(error: OSError) -> None:
        raise UnreadableDvcFileError(f"{error.filename}: {error.strerror}", hint="Its DVC files may name objects")

    tracked: set[str] = set()
    for where, folders, files in os.walk(top, onerror=refuse):
        folder = Path(where).relative_to(top).as_posix()
        folder = "" if folder == "." else folder
        if _VENV_MARK in files:
            folders.clear()
            continue
        if DVC_FOLDER in folders and not origin.ref:
            result.projects.append(folder)
        for name in sorted(files):
            if not _reads(folder, name):
                continue
            try:
                found = _read_path(Path(where), folder, name, origin)
            except UnreadableDvcFileError:
                if ignored and ignored(f"{folder}/{name}" if folder else name):
                    continue
                raise
            result.sightings.extend(found)
            if name.endswith(DVC_SUFFIX):
                tracked.update(sighting.out.path for sighting in found)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _SKIPPED_FOLDERS and (f"{folder}/{name}" if folder else name) not in tracked
        )


def _read_path(where: Path, folder: str, name: str, origin: Origin) -> list[Sighting]:
    try:
        data = (where / name).read_bytes()
        sibling = where / PIPELINE_FILE
        definitions = read_definitions(sibling.read_bytes()) if name == LOCK_FILE and sibling.is_file() else {}
    except FileNotFoundError:
        return []  # gone since the folder was listed, or a link to nowhere
    except OSError as error:
        raise UnreadableDvcFileError(f"{where / name}: {error.strerror}", hint="It may name objects") from error
    return list(_read(data, folder, name, definitions, origin))


def _reads(folder: str, name: str) -> bool:
    if name.endswith(DVC_SUFFIX) or name == LOCK_FILE:
        return True
    return _VERSION_FILE.fullmatch(name) is not None and version_name(f"{folder}/{name}") is not None


def _read(
    data: bytes, folder: str, name: str, definitions: dict[str, StageDefinition], origin: Origin
) -> Iterator[Sighting]:
    path = f"{folder}/{name}" if folder else name
    version = None
    try:
        if name == LOCK_FILE:
            outs = read_lock(data, folder, definitions)
        elif name.endswith(DVC_SUFFIX):
            outs = read_dvc(data, folder)
        else:
            version = version_name(path)
            registered = read_version(data, path)
            outs = [registered] if registered else []
    except UnreadableFileError as error:
        raise _not_readable(path, origin, error) from error
    for out in outs:
        yield Sighting(out, path, origin, version)


def _not_readable(path: str, origin: Origin, error: UnreadableFileError) -> UnreadableDvcFileError:
    if origin.kind == "workspace":
        return UnreadableDvcFileError(f"{path} cannot be read: {error}", hint=f"Mend it, or `git checkout -- {path}`")
    short = origin.commit[:8]
    behind = f", {origin.back} behind" if origin.back else ""
    return UnreadableDvcFileError(
        f"{path} in commit {short} ({origin.ref}{behind}) cannot be read: {error}",
        hint=f"See `git show {short}:{path}`. If nobody needs {origin.ref}, delete it, else rewrite the commit",
    )
