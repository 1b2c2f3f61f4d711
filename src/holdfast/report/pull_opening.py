"""The two sides of a pull request, opened: the commits are found, and every DVC file is read in git's trees."""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from holdfast.repo.dvcfiles import (
    LOCK_FILE,
    MD5,
    PIPELINE_FILE,
    Out,
    UnreadableFileError,
    load_yaml,
    read_definitions,
    read_dvc,
    read_lock,
)
from holdfast.repo.gitfolder import GitFolder, ShallowCloneError, find_git_folder
from holdfast.repo.objects import GitObjects
from holdfast.repo.refs import Origin, UnknownRevisionError
from holdfast.repo.trees import CommitFiles, Files, Met, WorkspaceFiles
from holdfast.repo.workspace import Project
from holdfast.report.pull_sides import PARAMS_FILE, Curve, Side, Stage

# git's name for a tree with nothing in it: a base for what has no history yet
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
# DVC's templates that draw one value over another; others draw bars, matrices, points
_CURVED = (None, "linear", "simple", "smooth")


def open_sides(
    project: Project, cache: Path, base: str, head: str, *, workspace: bool = False
) -> tuple[Side, Side, bool]:
    """The two sides of a pull request.

    Args:
        project: whose.
        cache: the folder of DVC's cache.
        base: the revision that it is to be merged into; what it and ``head`` have in common is the base side.
        head: the revision that is to be merged.
        workspace: take the files as they lie for the head side, and ``head`` for what they started from.

    Returns:
        The base side, the head side, and whether the two have a commit in common.

    Raises:
        ShallowCloneError: git's history ends early, so what they have in common is not known.
        UnknownRevisionError: git knows no such revision.
        UnreadableRefError: a tree cannot be read.
    """
    try:
        folder = find_git_folder(project.git_root)
    except ShallowCloneError as error:
        raise ShallowCloneError(
            f"{project.git_root} is a shallow clone, so the commit that both sides come from is not known",
            hint="Run `git fetch --unshallow`; in GitHub Actions give actions/checkout `fetch-depth: 0`",
        ) from error
    objects, met = GitObjects(folder), Met()
    head_commit = _commit(folder, objects, head, workspace)
    base_tip = _commit(folder, objects, base, False)
    common = base_tip
    if base_tip and head_commit:
        found = folder.repository.merge_base(base_tip, head_commit)
        common = str(found) if found is not None else ""
    sides = []
    for name, commit in (("base", common or base_tip), ("head", head_commit)):
        side = Side("base" if name == "base" else "head", project, cache, git=folder)
        if name == "head" and workspace:
            side.workspace = True
            side.files = WorkspaceFiles(project, folder, Origin("workspace", ""))
        if commit and not side.workspace:
            side.files = CommitFiles.open(project, objects, Origin("ref", name, commit), met)
        if commit:
            _describe(side, folder, commit)
        if side.files is not None:
            _load(side, side.files)
        sides.append(side)
    return sides[0], sides[1], bool(common) or not base_tip


def _commit(folder: GitFolder, objects: GitObjects, revision: str, may_be_unborn: bool) -> str:
    """The commit of a revision; empty for what has no commit yet."""
    for name in (revision, f"origin/{revision}"):
        if (found := objects.find_revision(name)) is not None:
            return found
    current, commit = folder.head()
    if commit is None and current is not None:
        unborn = {"HEAD", current, current.removeprefix("refs/heads/")}
        if revision in unborn and (may_be_unborn or revision != "HEAD"):
            return ""
    if revision == EMPTY_TREE:
        return ""
    raise UnknownRevisionError(
        f"git knows no commit {revision!r}", hint="`git fetch origin` brings what others have; `git branch -a` shows it"
    )


def _describe(side: Side, folder: GitFolder, commit: str) -> None:
    import pygit2  # imported here: see GitFolder.repository

    found = folder.repository[commit].peel(pygit2.Commit)
    side.commit = commit
    side.subject = found.message.split("\n", 1)[0].strip()
    side.date = datetime.fromtimestamp(found.commit_time, timezone.utc).isoformat().replace("+00:00", "Z")


def _load(side: Side, files: Files) -> None:
    """Read every DVC file of a side."""
    reader = _Reader(side, files)
    folders = [files.top]
    while folders:
        folder = folders.pop()
        for name in folder.names:
            path = posixpath.join(folder.path, name)
            data = files.read(path)
            if data is None:
                continue
            if name == PIPELINE_FILE:
                reader.pipeline(folder.path, data)
            else:
                reader.tracked(folder.path, path, data)
        folders.extend(reversed(files.below(folder)))
    if side.read(PARAMS_FILE) is not None:
        side.params[PARAMS_FILE] = []  # DVC shows all of it, whatever stages name


@dataclass
class _Reader:
    side: Side
    files: Files

    def tracked(self, folder: str, path: str, data: bytes) -> None:
        """A ``.dvc`` file."""
        try:
            self._keep(read_dvc(data, folder))
        except UnreadableFileError as error:
            self._fault(path, str(error))

    def pipeline(self, folder: str, data: bytes) -> None:
        """A ``dvc.yaml``, and the ``dvc.lock`` beside it."""
        stages: dict[str, Mapping[str, Any]] | None = None
        try:
            document = load_yaml(data)
            if document is not None and not isinstance(document, dict):
                raise UnreadableFileError("it is no mapping")
            stages = self._stages(folder, data, document or {})
            self._top(folder, document or {})
        except UnreadableFileError as error:
            self._fault(posixpath.join(folder, PIPELINE_FILE), str(error))
        for name, stage in (stages or {}).items():
            self._stage(folder, name, stage)
        lock = posixpath.join(folder, LOCK_FILE)
        locked = self.files.read(lock)
        if locked is None:
            return
        try:
            outs = read_lock(locked, folder, read_definitions(data))
        except UnreadableFileError as error:
            self._fault(lock, str(error))
            return
        # of stages that are gone from dvc.yaml DVC knows nothing
        self._keep([out for out in outs if stages is None or out.stage in stages])

    def _stages(self, folder: str, data: bytes, document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        told = _mapping(document.get("stages"))
        templates = b"${" in data or any("foreach" in _mapping(s) or "matrix" in _mapping(s) for s in told.values())
        if templates:
            from holdfast.repo.dvc_templates import resolve_stages  # with DVC, 0.4 s

            return dict(resolve_stages(data, folder, self.files.read))
        return {str(name): _mapping(stage) for name, stage in told.items()}

    def _stage(self, folder: str, name: str, stage: Mapping[str, Any]) -> None:
        wdir = stage.get("wdir")
        base = posixpath.join(folder, wdir if isinstance(wdir, str) else "")
        metrics = [path for path, _ in self._paths(base, stage.get("metrics"))]
        deps = [path for path, _ in self._paths(base, stage.get("deps"))]
        label = posixpath.join(posixpath.relpath(folder or ".", self.side.project.prefix or "."), name)
        self.side.stages[label.removeprefix("./")] = Stage(tuple(deps), tuple(metrics))
        self._add_metrics(metrics)
        for entry in _list(stage.get("params")):
            named = entry if isinstance(entry, dict) else {PARAMS_FILE: [str(entry)]}
            for file, keys in named.items():
                if (path := self._path(base, file)) is not None:
                    self._add_params(path, [str(key) for key in _list(keys)])
        for path, options in self._paths(base, stage.get("plots")):
            if options.get("template") in _CURVED:
                y = options.get("y")
                self._add_curve(path, options.get("x"), [y] if isinstance(y, str) else _list(y))

    def _top(self, folder: str, document: Mapping[str, Any]) -> None:
        self._add_metrics([path for path, _ in self._paths(folder, document.get("metrics"))])
        for path, _ in self._paths(folder, document.get("params")):
            self._add_params(path, [])
        plots = document.get("plots")
        entries = [{key: value} for key, value in plots.items()] if isinstance(plots, dict) else _list(plots)
        for entry in entries:
            for name, told in entry.items() if isinstance(entry, dict) else [(entry, {})]:
                options = _mapping(told)
                if options.get("template") not in _CURVED:
                    continue
                x, y = options.get("x"), options.get("y")
                by_file = y if isinstance(y, dict) else {name: y}
                for file, columns in by_file.items():
                    column = x.get(file) if isinstance(x, dict) else x
                    if (place := self._path(folder, file)) is not None:
                        self._add_curve(place, column, [columns] if isinstance(columns, str) else _list(columns))

    def _paths(self, base: str, entries: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The paths of a list whose entries are paths, or a path with options."""
        for entry in _list(entries):
            for name, options in entry.items() if isinstance(entry, dict) else [(entry, {})]:
                if (path := self._path(base, name)) is not None:
                    yield path, _mapping(options)

    def _path(self, base: str, path: Any) -> str | None:
        """A path from the project's root; None for what is outside of it."""
        if not isinstance(path, str) or not path or "://" in path or path.startswith("/"):
            return None
        prefix = self.side.project.prefix
        found = posixpath.normpath(posixpath.join(base, path))
        if prefix:
            return found.removeprefix(f"{prefix}/") if found.startswith(f"{prefix}/") else None
        return None if found.startswith("../") else found

    def _keep(self, outs: list[Out]) -> None:
        for out in outs:
            path = self._path("", out.path)
            if path is not None and (out.hash_name == MD5 or path not in self.side.outs):
                self.side.outs[path] = out

    def _add_metrics(self, paths: list[str]) -> None:
        self.side.metrics += [path for path in dict.fromkeys(paths) if path not in self.side.metrics]

    def _add_params(self, path: str, keys: list[str]) -> None:
        known = self.side.params.get(path)
        whole = not keys or known == []
        self.side.params[path] = [] if whole else list(dict.fromkeys([*(known or []), *keys]))

    def _add_curve(self, path: str, x: Any, columns: list[Any]) -> None:
        if path.endswith((".csv", ".tsv")):
            curve = Curve(path, x if isinstance(x, str) else None, tuple(map(str, columns)))
            if curve not in self.side.curves:
                self.side.curves.append(curve)

    def _fault(self, path: str, reason: str) -> None:
        prefix = self.side.project.prefix
        self.side.fault(path.removeprefix(f"{prefix}/") if prefix else path, reason)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
