"""Finds runs below a folder, and the models that lie outside of them.

A folder is a run for what it holds, not for what it is called: a history of training; metrics; weights or logs beside a
configuration that says how they were trained; or a time stamp in its name and something that training leaves. A folder
that only gathers runs is none, nor is the top of a project, nor one that holds weights without a trace of training:
those are models.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from holdfast.inventory.run_files import UnreadableError, read_rows, read_tree, role_of
from holdfast.inventory.run_metrics import class_scores_of, columns_of, numbers_of
from holdfast.inventory.run_names import series_of, started_from_name
from holdfast.inventory.run_params import is_training_config
from holdfast.inventory.run_reader import read_run
from holdfast.inventory.run_record import WEIGHT_ROLES, Role, Run
from holdfast.runs import artifacts

PROJECT_MARKS = frozenset({".git", ".dvc", "dvc.yaml", "pyproject.toml", "setup.py"})
SIBLINGS_MIN = 2
ROWS_LOOKED_AT = 50
SKIPPED_FOLDERS = frozenset({".git", ".hg", ".dvc", ".venv", "venv", "node_modules", "site-packages", "__pycache__"})
_REGISTRY = re.compile(r"(.*[_\-.])?(model|models)?[_\-.]?registry\.(json|ya?ml)", re.IGNORECASE)
# folders that belong to the run around them
_PART = re.compile(
    r"checkpoint-\d+|checkpoints?|dvclive|plots|figures|images|eval(uation)?|logs?|tensorboard|tb|weights|metrics|results"
    r"|artifacts|predictions|best(_model)?|final(_model)?|tokenizer|vocab|\..*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LooseFile:
    """A file of a model that belongs to no run: path from the top with ``/``, what it is, bytes."""

    path: str
    role: Role
    size: int


@dataclass(frozen=True)
class RegistryFile:
    """A file that lists models: its path from the top with ``/``, and how many it lists, None where that is unclear."""

    path: str
    entries: int | None


@dataclass(frozen=True)
class Scan:
    """What lies below a folder.

    Attributes:
        top: the folder.
        runs: in the order of their paths; no file belongs to two.
        loose: files of models outside of runs, in the order of their paths.
        registries: files that list models.
        notes: folders that could not be read.
    """

    top: Path
    runs: tuple[Run, ...]
    loose: tuple[LooseFile, ...]
    registries: tuple[RegistryFile, ...]
    notes: tuple[str, ...]


@dataclass
class _Folder:
    path: Path
    parts: tuple[str, ...]
    files: dict[str, int] = field(default_factory=dict)
    folders: list["_Folder"] = field(default_factory=list)
    is_project: bool = False
    strength: int = 0


def scan_runs(top: Path, *, percent: frozenset[str] = frozenset()) -> Scan:
    """Look at everything below ``top``; links are not followed.

    Args:
        top: a folder; may be a run itself.
        percent: metrics that are known to be in percent.

    Raises:
        OSError: ``top`` cannot be read.
    """
    notes: list[str] = []
    tree = _walk(top, notes)
    _weigh(tree)
    chosen: list[tuple[_Folder, list[tuple[str, int]]]] = []
    loose: list[tuple[str, int]] = []
    _assign(tree, None, chosen, loose, within=False)
    runs = [
        read_run(folder.path, folder.parts, sorted(files), percent=percent, beside=_params_beside(folder))
        for folder, files in chosen
    ]
    series = series_of(folder.parts for folder, _ in chosen)
    named = [
        replace(run, group=series[folder.parts][0], series=series[folder.parts][1])
        for run, (folder, _) in zip(runs, chosen, strict=True)
    ]
    kinds = [LooseFile(path, role_of(path), size) for path, size in sorted(loose)]
    models = {Path(file.path).parent for file in kinds if file.role in WEIGHT_ROLES}
    return Scan(
        top=top,
        runs=tuple(sorted(named, key=lambda run: run.path.as_posix())),
        # what describes a model belongs to it; a vocabulary alone is no model
        loose=tuple(file for file in kinds if Path(file.path).parent in models and _of_a_model(file)),
        registries=tuple(_registries(top, kinds)),
        notes=tuple(notes),
    )


def _of_a_model(file: LooseFile) -> bool:
    return file.role in WEIGHT_ROLES | {"info", "vocabulary", "config"} and not _REGISTRY.fullmatch(
        Path(file.path).name
    )


def _walk(top: Path, notes: list[str]) -> _Folder:
    root = _Folder(top, (top.resolve().name or "/",))
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder.path) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if folder is root:
                raise
            notes.append(f"{folder.path.as_posix()} cannot be read ({error.strerror})")
            continue
        names = {entry.name for entry in found}
        folder.is_project = bool(names & PROJECT_MARKS)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in SKIPPED_FOLDERS:
                    folder.folders.append(_Folder(folder.path / entry.name, (*folder.parts, entry.name)))
            elif entry.is_symlink():
                folder.files[entry.name] = 0  # removing a link frees nothing
            elif entry.is_file(follow_symlinks=False):
                try:
                    folder.files[entry.name] = entry.stat(follow_symlinks=False).st_size
                except OSError:
                    continue  # a training that is at work replaces its files while we look
        waiting += folder.folders
    return root


def _postorder(root: _Folder) -> Iterator[_Folder]:
    order, waiting = [], [root]
    while waiting:
        folder = waiting.pop()
        order.append(folder)
        waiting += folder.folders
    return reversed(order)


def _weigh(root: _Folder) -> None:
    """Give each folder its strength: 2 for a run by what it holds, 1 unless it gathers runs, 0 for no run.

    Children come first, as a folder that gathers runs is told by them.
    """
    below: dict[tuple[str, ...], bool] = {}
    for folder in _postorder(root):
        runs = [child for child in folder.folders if child.strength > 0 and not _PART.fullmatch(child.parts[-1])]
        if len(runs) >= SIBLINGS_MIN and not folder.is_project:
            for child in folder.folders:
                # among runs, a configuration of training alone is one that did not get far
                if child.strength == 0 and not child.folders and _has_training_config(child):
                    child.strength = 1
        gathers = bool(runs) or any(below[child.parts] for child in folder.folders)
        strength = 0 if folder.is_project or folder.parts[-1].startswith(".") else _strength(folder)
        folder.strength = 0 if strength == 1 and gathers else strength
        below[folder.parts] = gathers


def _strength(folder: _Folder) -> int:
    files = set(folder.files)
    for child in folder.folders:
        if _PART.fullmatch(child.parts[-1]):
            files |= {f"{child.parts[-1]}/{name}" for name in child.files}
    kinds = {name: role_of(name) for name in files}
    roles = set(kinds.values())
    if any(role == "history" and _is_history(folder.path / name) for name, role in kinds.items()):
        return 2
    if artifacts.METADATA in files and _says_status(folder.path / artifacts.METADATA):
        return 2
    weights, log = bool(roles & WEIGHT_ROLES), "log" in roles
    if (weights or log) and any(Path(name).name == "hparams.yaml" for name in files):
        return 2
    if any(role == "metrics" and _has_metrics(folder.path / name) for name, role in kinds.items()):
        return 1
    if (weights or log) and _has_training_config(folder):
        return 1
    stamped = started_from_name(folder.parts[-1]) is not None
    return int(stamped and (weights or log or bool(roles & {"config", "info"}) or not (files or folder.folders)))


def _assign(
    folder: _Folder,
    run: list[tuple[str, int]] | None,
    chosen: list[tuple[_Folder, list[tuple[str, int]]]],
    loose: list[tuple[str, int]],
    within: bool,
    prefix: str = "",
) -> None:
    """Give every file to the nearest run around it; what lies in none is loose."""
    waiting = [(folder, run, within, prefix, "")]
    while waiting:
        folder, run, within, prefix, place = waiting.pop()
        is_part = within and (
            _PART.fullmatch(folder.parts[-1]) is not None or (folder.strength < 2 and not _stamped(folder))
        )
        if folder.strength > 0 and not is_part:
            run, within, prefix = [], True, ""
            chosen.append((folder, run))
        if run is not None:
            run += [(prefix + name, size) for name, size in folder.files.items()]
        elif not folder.parts[-1].startswith(".") or len(folder.parts) == 1:
            loose += [(place + name, size) for name, size in folder.files.items()]
        for child in folder.folders:
            if run is None and child.parts[-1].startswith("."):
                continue
            name = child.parts[-1]
            waiting.append((child, run, within, f"{prefix}{name}/" if run is not None else "", f"{place}{name}/"))


def _stamped(folder: _Folder) -> bool:
    return folder.strength > 0 and started_from_name(folder.parts[-1]) is not None


def _says_status(path: Path) -> bool:
    # an array store has a metadata.json too, but no status
    tree = _tree(path)
    return isinstance(tree, dict) and "status" in tree


def _is_history(path: Path) -> bool:
    if path.suffix == ".json" or path.name == artifacts.EPOCHS or "plots/metrics/" in path.as_posix():
        return True
    try:
        rows = read_rows(path)
    except UnreadableError:
        return path.name == "metrics.csv"
    return bool(columns_of(rows[:ROWS_LOOKED_AT]).columns)


def _has_metrics(path: Path) -> bool:
    tree = _tree(path)
    numbers = numbers_of(tree)
    return bool(numbers.final or numbers.best or numbers.columns or class_scores_of(tree))


def _has_training_config(folder: _Folder) -> bool:
    return any(role_of(name) == "config" and is_training_config(_tree(folder.path / name)) for name in folder.files)


def _tree(path: Path) -> Any:
    try:
        return read_tree(path) if stat.S_ISREG(path.lstat().st_mode) else None
    except (UnreadableError, OSError):
        return None


def _params_beside(folder: _Folder) -> list[Path]:
    """DVC's parameters of a DVCLive folder at the top of a project, which is no run itself."""
    path = folder.path.parent / "params.yaml"
    return [path] if folder.parts[-1] == "dvclive" and path.is_file() and not path.is_symlink() else []


def _registries(top: Path, files: list[LooseFile]) -> Iterator[RegistryFile]:
    for file in files:
        if not _REGISTRY.fullmatch(Path(file.path).name):
            continue
        tree = _tree(top / file.path)
        models = tree.get("models", tree) if isinstance(tree, dict) else tree
        yield RegistryFile(file.path, len(models) if isinstance(models, dict | list) else None)
