"""One side of a pull request: what its DVC files name, and its files out of git, the workspace or the cache."""

import hashlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.repo.cache import object_path, read_members
from holdfast.repo.dvcfiles import LISTING_SUFFIX, Out, UnreadableFileError
from holdfast.repo.gitfolder import GitFolder
from holdfast.repo.trees import Files
from holdfast.repo.workspace import Project

PARAMS_FILE = "params.yaml"
MAX_BYTES = 64 * 2**20  # of a file that is read whole: metrics, params, tables of numbers

SideName = Literal["base", "head"]


@dataclass(frozen=True)
class Fault:
    """What of a side cannot be read.

    Attributes:
        side: which one.
        path: of the file, from the project's root.
        reason: a clause without a full stop.
    """

    side: SideName
    path: str
    reason: str


@dataclass(frozen=True)
class Stage:
    """What a stage takes and gives, paths from the project's root."""

    deps: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    """Columns of a table that ``dvc.yaml`` has among its plots; without columns all of them are meant."""

    path: str
    x: str | None = None
    columns: tuple[str, ...] = ()


class NotCachedError(Exception):
    """DVC tracks the file, and its cache here does not have it."""


@dataclass
class Side:
    """What one side has; all paths are from the project's root.

    Attributes:
        name: which one.
        commit: 40 hex digits; empty for the workspace and for a base without commits.
        subject: the commit's first line.
        date: of the commit, ISO 8601 in UTC.
        workspace: whether it is the files as they lie.
        outs: what DVC keeps in its cache, by path.
        stages: by name, with the folder of their ``dvc.yaml`` before it.
        metrics: paths of metrics files or folders, each once.
        params: paths of params files; the keys that are meant, none for all of them.
        curves: tables to plot.
        faults: what could not be read.
        files: where they are read from; None where the side has none.
        git: where folders are looked up; None with `files`.
    """

    name: SideName
    project: Project
    cache: Path
    commit: str = ""
    subject: str = ""
    date: str = ""
    workspace: bool = False
    outs: dict[str, Out] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    params: dict[str, list[str]] = field(default_factory=dict)
    curves: list[Curve] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    files: Files | None = None
    git: GitFolder | None = None

    def read(self, path: str) -> bytes | None:
        """A file that git has, or that lies in the workspace; None where there is none.

        Raises:
            UnreadableRefError: git has lost it.
            OSError: the workspace's cannot be read.
        """
        place = posixpath.normpath(posixpath.join(self.project.prefix, path))
        if self.files is None or place.startswith(("/", "../")) or place == ".." or not self._is_inside(place):
            return None
        return self.files.read(place)

    def content(self, path: str) -> bytes | None:
        """A file that git or DVC has; None where neither knows it.

        Raises:
            NotCachedError: DVC tracks it, and its object is not in the cache, or is damaged.
            UnreadableFileError: it is larger than `MAX_BYTES`.
            UnreadableRefError, OSError: as of `read`.
        """
        data = self.read(path)
        if data is None:
            place = self.cached(path)
            if place is None:
                return None
            oid, file = place
            if not file.is_file():
                raise NotCachedError("it is not in DVC's cache here")
            if file.stat().st_size > MAX_BYTES:
                raise UnreadableFileError(f"it is larger than {MAX_BYTES // 2**20} MiB")
            data = file.read_bytes()
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != oid:
                raise NotCachedError("its object in DVC's cache is damaged: `dvc fetch` brings it again")
        if len(data) > MAX_BYTES:
            raise UnreadableFileError(f"it is larger than {MAX_BYTES // 2**20} MiB")
        return data

    def oid(self, path: str) -> str | None:
        """The md5 of a file that DVC tracks, by itself or in a folder; None where it tracks none, or cannot say."""
        found = self._tracked(path)
        return found[1] if found else None

    def cached(self, path: str) -> tuple[str, Path] | None:
        """The md5 of a file that DVC tracks, and where its cache has it if it has it; None where DVC tracks none."""
        found = self._tracked(path)
        return (found[1], object_path(self.cache, *found)) if found else None

    def names(self, folder: str) -> dict[str, bool]:
        """Names in a folder of git's or of the workspace, and whether each is a folder; empty where there is none."""
        place = posixpath.join(self.project.prefix, folder)
        if self.workspace:
            top = self.project.git_root / place
            if not self._is_inside(place):
                return {}
            return {entry.name: entry.is_dir() for entry in os.scandir(top)} if top.is_dir() else {}
        if not self.commit or self.git is None:
            return {}
        import pygit2  # imported here: see GitFolder.repository

        tree = self.git.repository[self.commit].peel(pygit2.Tree)
        try:
            found = tree[place] if place else tree
        except KeyError:
            return {}
        entries = found if isinstance(found, pygit2.Tree) else ()
        return {str(entry.name): isinstance(entry, pygit2.Tree) for entry in entries}

    def files_below(self, folder: str) -> Iterator[str]:
        """The files in a folder, in folders in it, and in its listing where DVC tracks it."""
        out = self.outs.get(folder)
        if out is not None and out.oid.endswith(LISTING_SUFFIX):
            members = read_members(self.cache, out.hash_name, out.oid)
            yield from (posixpath.join(folder, name) for name, _ in members or ())
            return
        for name, is_folder in sorted(self.names(folder).items()):
            path = posixpath.join(folder, name)
            if is_folder:
                yield from self.files_below(path)
            else:
                yield path

    def fault(self, path: str, reason: str) -> None:
        """Note what cannot be read, once."""
        fault = Fault(self.name, path, reason)
        if fault not in self.faults:
            self.faults.append(fault)

    def _tracked(self, path: str) -> tuple[str, str] | None:
        out = self.outs.get(path)
        if out is not None:
            return None if out.oid.endswith(LISTING_SUFFIX) else (out.hash_name, out.oid)
        folder = posixpath.dirname(path)
        while folder:
            out = self.outs.get(folder)
            if out is not None and out.oid.endswith(LISTING_SUFFIX):
                members = dict(read_members(self.cache, out.hash_name, out.oid) or ())
                oid = members.get(posixpath.relpath(path, folder))
                return (out.hash_name, oid) if oid else None
            folder = posixpath.dirname(folder)
        return None

    def _is_inside(self, place: str) -> bool:
        """Whether a path of the workspace stays in the repository, or in DVC's cache, where its links lead."""
        if not self.workspace:
            return True
        target = (self.project.git_root / place).resolve()
        return target.is_relative_to(self.project.git_root.resolve()) or target.is_relative_to(self.cache)
