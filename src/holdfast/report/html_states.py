"""What DVC's files say in a commit: the figures and params of its pipelines, and what each of their outs was made from.

Read from git's trees alone: no DVC process, nothing checked out. Folders, files and definitions that commits share are
read once.
"""

import json
import math
import posixpath
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from holdfast.nesting import TooDeepError, check_nesting
from holdfast.repo.dvcfiles import LOCK_FILE, PIPELINE_FILE, UnreadableFileError
from holdfast.repo.objects import GitObjects
from holdfast.repo.refs import Origin
from holdfast.repo.trees import CommitFiles, Folder, Met
from holdfast.repo.workspace import Project

DEFAULT_PARAMS = "params.yaml"
VALUES_MAX = 2000  # of one file: what has more is data, no figures
_TEMPLATE_MARKS = (b"${", b"foreach", b"matrix")

Value = float | int | str | bool
# file from the project's root, name with dots
Key = tuple[str, str]


@dataclass(frozen=True)
class State:
    """What a commit says.

    Attributes:
        metrics: figures, by file and name.
        params: by file and name.
    """

    metrics: Mapping[Key, Value]
    params: Mapping[Key, Value]


@dataclass(frozen=True)
class LockedFile:
    """A dependency or an out in ``dvc.lock``: its path from the project's root, its oid and bytes as far as known."""

    path: str
    oid: str
    size: int | None


@dataclass(frozen=True)
class LockedStage:
    """A stage in ``dvc.lock``."""

    name: str
    deps: tuple[LockedFile, ...]
    outs: tuple[LockedFile, ...]


@dataclass(frozen=True)
class _Definition:
    """What a ``dvc.yaml`` declares, by paths from the git root; None for the names means all of the file."""

    metrics: tuple[str, ...] = ()
    params: tuple[tuple[str, tuple[str, ...] | None], ...] = ()


@dataclass
class States:
    """Reads commits of a project.

    Args:
        project: whose.
        objects: reads git's objects.

    Attributes:
        notes: files that could not be read, and why; each once.
    """

    project: Project
    objects: GitObjects
    notes: dict[str, None] = field(default_factory=dict)
    _met: Met = field(default_factory=Met)
    _pipelines: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _definitions: dict[tuple[str, bytes, bytes], _Definition] = field(default_factory=dict)
    _values: dict[tuple[str, bytes], dict[str, Value]] = field(default_factory=dict)
    _stages: dict[tuple[str, bytes], tuple[LockedStage, ...]] = field(default_factory=dict)

    def read(self, commit: str) -> State:
        """The figures and params of a commit.

        Raises:
            UnreadableRefError: an object of git's is missing or damaged.
        """
        files = self._files(commit)
        metrics: dict[Key, Value] = {}
        params: dict[Key, Value] = {}
        if files is None:
            return State(metrics, params)
        top = self.project.prefix
        wanted: list[tuple[str, tuple[str, ...] | None]] = [(posixpath.join(top, DEFAULT_PARAMS), None)]
        for path in self._paths(files, files.top):
            definition = self._definition(files, path)
            for file in definition.metrics:
                metrics |= {(self._short(file), name): value for name, value in self._read(files, file).items()}
            wanted += definition.params
        for file, names in wanted:
            found = self._read(files, file)
            params |= {(self._short(file), name): found[name] for name in found if names is None or _under(name, names)}
        return State(metrics, params)

    def stages(self, commit: str) -> tuple[LockedStage, ...]:
        """The stages that a commit's ``dvc.lock`` files say have run.

        Raises:
            UnreadableRefError: an object of git's is missing or damaged.
        """
        files = self._files(commit)
        if files is None:
            return ()
        found: list[LockedStage] = []
        for path in self._paths(files, files.top):
            lock = posixpath.join(posixpath.dirname(path), LOCK_FILE)
            data = files.read(lock)
            if data is not None:
                if (lock, data) not in self._stages:
                    self._stages[lock, data] = tuple(self._locked(lock, data))
                found += self._stages[lock, data]
        return tuple(found)

    def _files(self, commit: str) -> CommitFiles | None:
        if self.objects.find_commit(commit) is None:
            return None
        return CommitFiles.open(self.project, self.objects, Origin("history", commit[:8], commit), self._met)

    def _paths(self, files: CommitFiles, folder: Folder) -> tuple[str, ...]:
        """Every ``dvc.yaml`` at and below a folder; the folders are those of `_met`, which keeps them."""
        if id(folder) not in self._pipelines:
            own = (posixpath.join(folder.path, PIPELINE_FILE),) if PIPELINE_FILE in folder.names else ()
            below = [path for one in files.below(folder) for path in self._paths(files, one)]
            self._pipelines[id(folder)] = (*own, *below)
        return self._pipelines[id(folder)]

    def _definition(self, files: CommitFiles, path: str) -> _Definition:
        data = files.read(path) or b""
        folder = posixpath.dirname(path)
        templated = any(mark in data for mark in _TEMPLATE_MARKS)
        beside = (files.read(posixpath.join(folder, DEFAULT_PARAMS)) or b"") if templated else b""
        key = (path, data, beside)
        if key not in self._definitions:
            try:
                self._definitions[key] = _define(files, data, folder, templated=templated)
            except (UnreadableFileError, yaml.YAMLError, TooDeepError, ValueError, TypeError, AttributeError) as error:
                self._note(path, error)
                self._definitions[key] = _Definition()
        return self._definitions[key]

    def _read(self, files: CommitFiles, path: str) -> dict[str, Value]:
        data = files.read(path)
        if data is None:
            return {}
        if (path, data) not in self._values:
            try:
                self._values[path, data] = dict(_leaves(_document(path, data)))
            except (yaml.YAMLError, TooDeepError, ValueError, RecursionError) as error:
                self._note(path, error)
                self._values[path, data] = {}
        return self._values[path, data]

    def _locked(self, path: str, data: bytes) -> Iterator[LockedStage]:
        folder = posixpath.dirname(path)
        try:
            document = _document("dvc.yaml", data)
            stages = document.get("stages", {})
            for name, stage in stages.items():
                deps, outs = (
                    tuple(self._locked_file(folder, entry) for entry in stage.get(key) or ())
                    for key in ("deps", "outs")
                )
                yield LockedStage(str(name), deps, outs)
        except (yaml.YAMLError, TooDeepError, ValueError, AttributeError, KeyError, TypeError) as error:
            self._note(path, error)

    def _locked_file(self, folder: str, entry: Mapping[str, Any]) -> LockedFile:
        size = entry.get("size")
        place = self._short(posixpath.normpath(posixpath.join(folder, str(entry["path"]))))
        return LockedFile(place, str(entry.get("md5") or ""), size if isinstance(size, int) else None)

    def _short(self, path: str) -> str:
        """From the project's root."""
        return path.removeprefix(f"{self.project.prefix}/") if self.project.prefix else path

    def _note(self, path: str, error: Exception) -> None:
        self.notes[f"{path} cannot be read: {' '.join(str(error).split())}"] = None


def columns_of(keys: Iterable[Key]) -> dict[Key, str]:
    """What to call each value: its name, with its file before it where two files have one of that name."""
    listed = list(dict.fromkeys(keys))
    files: dict[str, set[str]] = {}
    for file, name in listed:
        files.setdefault(name, set()).add(file)
    return {(file, name): name if len(files[name]) == 1 else f"{file}:{name}" for file, name in listed}


def _define(files: CommitFiles, data: bytes, folder: str, *, templated: bool) -> _Definition:
    document = _document(PIPELINE_FILE, data)
    if not isinstance(document, dict):
        return _Definition()
    stages: Mapping[str, Any] = document.get("stages") or {}
    if templated:
        from holdfast.repo.dvc_templates import resolve_stages  # with DVC's parser, which plain files need not pay

        stages = resolve_stages(data, folder, files.read)
    metrics = [posixpath.join(folder, path) for path in _names(document.get("metrics"))]
    params: list[tuple[str, tuple[str, ...] | None]] = [
        (posixpath.join(folder, path), None) for path in _names(document.get("params"))
    ]
    for stage in stages.values():
        base = posixpath.normpath(posixpath.join(folder, str(stage.get("wdir") or ".")))
        base = "" if base == "." else base
        metrics += [posixpath.normpath(posixpath.join(base, path)) for path in _names(stage.get("metrics"))]
        own: list[str] = []
        for entry in stage.get("params") or ():
            if isinstance(entry, dict):
                params += [
                    (posixpath.normpath(posixpath.join(base, str(file))), tuple(map(str, names)) if names else None)
                    for file, names in entry.items()
                ]
            else:
                own.append(str(entry))
        if own:
            params.append((posixpath.join(base, DEFAULT_PARAMS), tuple(own)))
    return _Definition(tuple(dict.fromkeys(metrics)), tuple(dict.fromkeys(params)))


def _names(entries: Any) -> list[str]:
    """The paths of a list of ``metrics:``, each alone or with its options."""
    if isinstance(entries, (str, dict)):
        entries = [entries]
    return [str(name) for entry in entries or () for name in (entry if isinstance(entry, dict) else (entry,))]


def _document(path: str, data: bytes) -> Any:
    if path.endswith(".json"):
        return json.loads(data)
    if path.endswith(".toml"):
        if sys.version_info >= (3, 11):
            import tomllib  # imported here: Python 3.10 has none

            return tomllib.loads(data.decode())
        import tomlkit  # imported here: few params are TOML

        return tomlkit.parse(data.decode()).unwrap()
    if path.endswith((".yaml", ".yml")):
        check_nesting(data)
        return yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {}  # a Python file would have to be run


def _leaves(content: Any, path: str = "", budget: list[int] | None = None) -> Iterator[tuple[str, Value]]:
    budget = [VALUES_MAX] if budget is None else budget
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key), budget)
        return
    budget[0] -= 1
    if budget[0] < 0 or not path or content is None:
        return
    if isinstance(content, float) and not math.isfinite(content):
        yield path, str(content)  # JSON has no NaN
    elif isinstance(content, (bool, int, float, str)):
        yield path, content
    elif isinstance(content, list):
        yield path, json.dumps(content, ensure_ascii=False, default=str)
    else:
        yield path, str(content)  # a date


def _under(name: str, wanted: Iterable[str]) -> bool:
    return any(name == key or name.startswith(f"{key}.") for key in wanted)
