"""Where on the branch a version's bytes can be had: what decides at which commit it is tagged."""

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

import pygit2

from holdfast.registry import FOLDER
from holdfast.registry.artifacts import Artifact, ArtifactsError, read_artifacts
from holdfast.registry.entries import Model, Version
from holdfast.repo.dvcfiles import (
    DVC_SUFFIX,
    LOCK_FILE,
    MD5,
    PIPELINE_FILE,
    Out,
    UnreadableFileError,
    read_definitions,
    read_dvc,
    read_lock,
)
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project


@dataclass
class Place:
    """Where a version is on the branch.

    Attributes:
        first: the place of the commit that brought it.
        served: places of commits at which DVC gets its bytes by the artifact's name, newest first.
        at_head: whether the checked-out commit has its bytes at its path.
    """

    first: int = -1
    served: list[int] = field(default_factory=list)
    at_head: bool = False


class Branch:
    """The commits of the checked-out branch along first parents, and what each has of a project's models.

    Args:
        project: whose.
        head: the commit to begin with, 40 hex digits.

    Attributes:
        line: the commits, newest first.
        ids: the same, as 40 hex digits each.

    Raises:
        UnreadableRefError: git's history cannot be read.
    """

    def __init__(self, project: Project, head: str) -> None:
        self._repository = open_repository(project.git_root)
        self._prefix = project.prefix
        self.line = list(self._commits(head))
        self.ids = [str(commit.id) for commit in self.line]
        # what is asked again for each commit in which it did not change
        self._folders: dict[pygit2.Oid, dict[str, pygit2.Oid]] = {}
        self._paths: dict[tuple[object, ...], str | None] = {}
        self._oids: dict[tuple[object, ...], str | None] = {}

    def places(self, model: Model, versions: list[Version]) -> dict[str, Place]:
        """Where the versions are on the branch, from its tip back to what brought each."""
        places = {version.name: Place() for version in versions}
        active = {version.name: version for version in versions}
        wanted: dict[str, pygit2.Oid] = {}
        for number, commit in enumerate(self.line):
            files = self._files(_entry(commit.tree, posixpath.join(self._prefix, FOLDER, model.id)))
            active = {
                name: version
                for name, version in active.items()
                if name in files and wanted.setdefault(name, files[name]) == files[name]
            }
            if not active:
                break
            named = self._artifact_path(commit, model.id)
            # a thousand versions have one path between them: it is looked at once a commit
            oids = {path: self._oid(commit, path) for path in {version.path for version in active.values()}}
            for name, version in active.items():
                places[name].first = number
                holds = oids[version.path] == version.oid
                if number == 0:
                    places[name].at_head = holds
                if holds and named == posixpath.normpath(version.path):
                    places[name].served.append(number)
        return places

    def names(self, commit: pygit2.Commit, model_id: str, path: str) -> bool:
        """Whether the commit's ``dvc.yaml`` says that the model is at that path."""
        return self._artifact_path(commit, model_id) == posixpath.normpath(path)

    def _files(self, folder: pygit2.Object | None) -> dict[str, pygit2.Oid]:
        """The blobs of the versions' files in a model's folder, by the versions' names."""
        if not isinstance(folder, pygit2.Tree):
            return {}
        if folder.id not in self._folders:
            self._folders[folder.id] = {str(entry.name).removesuffix(".yaml"): entry.id for entry in folder}
        return self._folders[folder.id]

    def _artifact_path(self, commit: pygit2.Commit, model_id: str) -> str | None:
        blob = _blob(commit, self._prefix, PIPELINE_FILE)
        key = (blob and blob.id, model_id)
        if key not in self._paths:
            self._paths[key] = artifact_path(commit, self._prefix, model_id)
        return self._paths[key]

    def _oid(self, commit: pygit2.Commit, path: str) -> str | None:
        """What DVC, or git itself, has at a path in a commit."""
        files = [path, path + DVC_SUFFIX]
        for folder in _folders(path):
            files += [posixpath.join(folder, LOCK_FILE), posixpath.join(folder, PIPELINE_FILE)]
        key = (path, *(blob and blob.id for blob in (_blob(commit, self._prefix, file) for file in files)))
        if key not in self._oids:
            found = tracked_file(commit, self._prefix, path)
            self._oids[key] = found.oid if found is not None else None
        return self._oids[key]

    def _commits(self, head: str) -> Iterator[pygit2.Commit]:
        commit: pygit2.Commit | None = self._repository[head].peel(pygit2.Commit)
        while commit is not None:
            yield commit
            commit = commit.parents[0] if commit.parent_ids else None


@dataclass(frozen=True)
class TrackedFile:
    """A file or folder that a commit has.

    Attributes:
        oid: DVC's md5 of the file, or ``<md5>.dir``.
        data: its bytes, where git itself has them.
    """

    oid: str
    data: bytes | None = None


def artifact_path(commit: pygit2.Commit, prefix: str, name: str) -> str | None:
    """Where the commit's ``dvc.yaml`` says that an artifact is; None where it does not, or cannot be read.

    See `artifact_of`.
    """
    found = artifact_of(commit, prefix, name)
    return None if found is None else posixpath.normpath(found.path)


def artifact_of(commit: pygit2.Commit, prefix: str, name: str) -> Artifact | None:
    """What the commit's ``dvc.yaml`` says of an artifact; None where it does not, or cannot be read.

    Args:
        commit: the commit.
        prefix: the project's folder in git.
        name: the artifact's, as of its ``dvc.yaml``.
    """
    blob = _blob(commit, prefix, PIPELINE_FILE)
    try:
        return read_artifacts(blob.data, PIPELINE_FILE).get(name) if blob is not None else None
    except ArtifactsError:
        return None


def tracked_file(commit: pygit2.Commit, prefix: str, path: str) -> TrackedFile | None:
    """What DVC, or git itself, has at a path in a commit; None where neither has anything.

    Args:
        commit: the commit.
        prefix: the project's folder in git.
        path: from the project's folder.
    """
    own = _blob(commit, prefix, path)
    if own is not None:
        return TrackedFile(hashlib.md5(own.data, usedforsecurity=False).hexdigest(), own.data)
    outs: list[Out] = []
    try:
        if (beside := _blob(commit, prefix, path + DVC_SUFFIX)) is not None:
            outs += read_dvc(beside.data, posixpath.dirname(path))
        for folder in _folders(path):
            lock, pipeline = (
                _blob(commit, prefix, posixpath.join(folder, name)) for name in (LOCK_FILE, PIPELINE_FILE)
            )
            if lock is not None:
                outs += read_lock(lock.data, folder, read_definitions(pipeline.data) if pipeline else {})
    except UnreadableFileError:
        return None  # DVC cannot read it either
    wanted = posixpath.normpath(path)
    return next((TrackedFile(out.oid) for out in outs if out.path == wanted and out.hash_name == MD5), None)


def _blob(commit: pygit2.Commit, prefix: str, path: str) -> pygit2.Blob | None:
    found = _entry(commit.tree, posixpath.normpath(posixpath.join(prefix, path)))
    return found if isinstance(found, pygit2.Blob) else None


def _entry(tree: pygit2.Tree, path: str) -> pygit2.Object | None:
    try:
        return tree[path]
    except KeyError:
        return None


def _folders(path: str) -> list[str]:
    """The folders above a path, the nearest first, the topmost as an empty text."""
    found = [posixpath.dirname(path)]
    while found[-1]:
        found.append(posixpath.dirname(found[-1]))
    return found
