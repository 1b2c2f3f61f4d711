"""The data that a version was trained and evaluated with, as DVC's lock files tell it."""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.registry.cards import Dataset
from holdfast.registry.entries import Version
from holdfast.registry.history import RegistryHistory
from holdfast.repo.dvcfiles import (
    DVC_SUFFIX,
    LOCK_FILE,
    PIPELINE_FILE,
    StageDefinition,
    UnreadableFileError,
    load_yaml,
    read_definitions,
)

# a file by its path from the project's root; None where there is none
Reader = Callable[[str], bytes | None]

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx")
WEIGHTS = (*CHECKPOINTS, ".npz", ".npy")
# what is data also where git has it: code, settings and metrics have other names
DATA = (".csv", ".tsv", ".parquet", ".arrow", ".feather", ".npz", ".npy", ".h5", ".hdf5", ".jsonl", ".zip", ".tar")


@dataclass(frozen=True)
class _Entry:
    """A dependency or out in a lock file; the path is from the project's root, or a URL."""

    path: str
    oid: str
    size: int | None


@dataclass(frozen=True)
class _Stage:
    deps: tuple[_Entry, ...]
    outs: tuple[_Entry, ...]
    uncached: frozenset[str]

    def makes(self, path: str) -> bool:
        return any(out.path == path for out in self.outs)

    @property
    def reads_checkpoint(self) -> bool:
        return any(_has(dep.path, CHECKPOINTS) for dep in self.deps)


def files_of(root: Path) -> Reader:
    """Reads what is in the workspace."""

    def read(path: str) -> bytes | None:
        file = root / path
        return file.read_bytes() if file.is_file() else None

    return read


def files_at(history: RegistryHistory, commit: str) -> Reader:
    """Reads what a commit has."""
    return lambda path: history.file_at(commit, path)


def data_of(version: Version, read: Reader) -> tuple[Dataset, ...]:
    """What a version was trained and evaluated with; nothing where no lock file tells of its run.

    Trained with are the dependencies of the stage that made the run's weights, evaluated with those of the stage that
    made the predictions, as far as they are data: what DVC tracks, or what has the suffix of a table or an array.

    Args:
        version: its ``source`` names the run's folder and the md5 of its predictions.
        read: of the state in which the version came to be.
    """
    run, predictions = version.source.get("run", ""), version.source.get("predictions", "")
    stages = list(_stages(read, run))
    # a stage that only brings another one's weights to the stable path was not trained with anything
    made = [stage for stage in stages if not (stage.makes(version.path) and stage.reads_checkpoint)]
    training = [stage for stage in made if any(_is_of_run(out.path, run) for out in stage.outs)]
    evaluation = [
        stage
        for stage in made
        if predictions and stage not in training and any(out.oid == predictions for out in stage.outs)
    ]
    of_run = {out.path for stage in training for out in stage.outs}
    found = []
    for role, group in (("training", training), ("evaluation", evaluation)):
        deps = {dep.path: dep for stage in group for dep in stage.deps if dep.path not in of_run}
        for path in sorted(deps):
            if _is_data(deps[path], stages, read):
                name = PurePosixPath(path).name
                found.append(Dataset(name, path, deps[path].oid, role, deps[path].size))
    return tuple(found)


def locked_oid(read: Reader, path: str) -> str | None:
    """What a lock file at or above a path has written down for it; None where none has it as an out."""
    for stage in _stages(read, posixpath.dirname(path)):
        for out in stage.outs:
            if out.path == path:
                return out.oid
    return None


def _is_of_run(path: str, run: str) -> bool:
    """Whether an out is a run's folder, holds it, or is a file of weights directly in it."""
    if not run:
        return False
    return path == run or run.startswith(f"{path}/") or (posixpath.dirname(path) == run and _has(path, WEIGHTS))


def _is_data(dep: _Entry, stages: Sequence[_Stage], read: Reader) -> bool:
    if _has(dep.path, CHECKPOINTS):
        return False
    if "://" in dep.path or _has(dep.path, DATA):
        return True
    above = [dep.path, *(parent.as_posix() for parent in PurePosixPath(dep.path).parents)][:-1]
    cached = {out.path for stage in stages for out in stage.outs if out.path not in stage.uncached}
    return any(path in cached or read(path + DVC_SUFFIX) is not None for path in above)


def _stages(read: Reader, below: str) -> Iterator[_Stage]:
    """The stages of every lock file at or above a folder; one that cannot be read tells nothing."""
    folders = ["" if parent == PurePosixPath() else parent.as_posix() for parent in PurePosixPath(below, "x").parents]
    for folder in folders:
        lock = read(posixpath.join(folder, LOCK_FILE))
        if lock is None:
            continue
        definitions = read_definitions(read(posixpath.join(folder, PIPELINE_FILE)) or b"")
        try:
            document = load_yaml(lock)
        except UnreadableFileError:
            continue
        for name, stage in _mapping(_mapping(document).get("stages")).items():
            definition = definitions.get(name) or definitions.get(name.rsplit("@", 1)[0]) or StageDefinition()
            base = posixpath.join(folder, definition.wdir)
            uncached = frozenset(_joined(base, path) for path in definition.uncached)
            told = _mapping(stage)
            yield _Stage(tuple(_entries(told.get("deps"), base)), tuple(_entries(told.get("outs"), base)), uncached)


def _entries(told: Any, base: str) -> Iterator[_Entry]:
    for entry in told if isinstance(told, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("path"), str):
            size = str(entry.get("size"))
            oid = entry.get("md5")
            path = _joined(base, entry["path"])
            yield _Entry(path, oid if isinstance(oid, str) else "", int(size) if size.isdecimal() else None)


def _joined(base: str, path: str) -> str:
    return path if "://" in path else posixpath.normpath(posixpath.join(base, path))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _has(path: str, suffixes: Iterable[str]) -> bool:
    return path.lower().endswith(tuple(suffixes))
