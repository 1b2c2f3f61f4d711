"""Models for the page: versions, where each label was when, and what each version was made from."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.registry.document import EntryError
from holdfast.registry.entries import Model, Version
from holdfast.registry.history import Change, RegistryHistory
from holdfast.registry.selection import Direction, better_is
from holdfast.registry.store import Registry
from holdfast.registry.table import flatten
from holdfast.report.html_states import LockedFile, LockedStage, States

DATA_SHOWN = 8  # files of data in a lineage
REVISION_DIGITS = 8
# what is run, and no data
CODE = frozenset(
    {".py", ".sh", ".ipynb", ".r", ".jl", ".c", ".cc", ".cpp", ".rs", ".go", ".js", ".ts", ".java", ".pyx"}
)


@dataclass(frozen=True)
class Models:
    """The registry.

    Attributes:
        models: those that can be read, in the order of their names.
        changes: of all models, newest first.
        faults: what cannot be read, and what mends it.
    """

    models: tuple[Model, ...]
    changes: tuple[Change, ...]
    faults: tuple[str, ...]


def read_models(registry: Registry, history: RegistryHistory | None) -> Models:
    """The registry and its history, where that can be read; a model that is broken is a fault, and the others are read.

    Raises:
        EntryError: a folder has a name that no model can have.
        UnreadableRefError: git's history cannot be read.
    """
    faults: list[str] = []
    models: list[Model] = []
    changes: list[Change] = []
    for model_id in registry.model_ids():
        try:
            models.append(registry.model(model_id))
        except EntryError as error:
            faults.append(_told(error))
    if history is None:
        return Models(tuple(models), (), tuple(faults))
    if not faults:
        changes = history.changes()
    else:
        for model in models:  # history begins with the workspace, where one broken model breaks all
            changes += history.changes(model.id)
    faults += [f"in history: {note}" for note in dict.fromkeys(history.notes)]
    return Models(tuple(models), tuple(changes), tuple(faults))


def models_json(found: Models, states: States | None, directions: Mapping[str, Direction]) -> list[dict[str, Any]]:
    """The models as the page reads them.

    Args:
        found: the registry.
        states: reads commits; None where git's history cannot be read.
        directions: which way metrics are better, as far as a gate says so.
    """
    own: dict[str, list[Change]] = {model.id: [] for model in found.models}
    for change in found.changes:
        if change.model in own:
            own[change.model].append(change)
    return [_model(model, own[model.id], states, directions) for model in found.models]


def spans_of(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Which version each label was on, from when to when, oldest first.

    Args:
        changes: of one model, newest first.

    Returns:
        ``label``, ``version``, ``start`` and ``end``; the end is None where the label is still there, the start where
        the change is not committed yet.
    """
    spans: list[dict[str, Any]] = []
    open_spans: dict[str, dict[str, Any]] = {}
    for change in reversed(changes):
        for event in change.events:
            if event.kind != "label":
                continue
            if (before := open_spans.pop(event.label, None)) is not None:
                before["end"] = change.date
            if event.after is not None:
                span = {
                    "label": event.label,
                    "version": event.after,
                    "start": change.date,
                    "end": None,
                    "commit": change.commit[:REVISION_DIGITS],
                    "author": change.author,
                    "subject": change.subject,
                }
                spans.append(span)
                open_spans[event.label] = span
    return spans


def lineage_of(version: Version, stages: Sequence[LockedStage]) -> dict[str, Any]:
    """What a version was made from, as the ``dvc.lock`` says that was committed with it.

    Data is what no stage makes; where all of it is made, what the first stages make.

    Args:
        version: which.
        stages: of that commit.

    Returns:
        ``stages``, names in the order in which they ran; ``data``, files as path, oid and bytes; ``more``, how many
        files are left out.
    """
    makers = {out.path: stage for stage in stages for out in stage.outs}
    start = next((stage for stage in stages if any(out.oid == version.oid for out in stage.outs)), None)
    start = start or makers.get(version.path)
    chain: list[LockedStage] = []
    if start is not None:
        _ancestors(start, makers, chain, set())
    inputs = [dep for stage in chain for dep in stage.deps if not _is_code(dep)]
    data = [dep for dep in inputs if _maker(dep.path, makers) is None]
    if not data:
        first = [stage for stage in chain if all(_maker(dep.path, makers) is None for dep in stage.deps)]
        wanted = {dep.path for dep in inputs}
        data = [out for stage in first for out in stage.outs if out.path in wanted]
    unique = sorted({file.path: file for file in data}.values(), key=lambda file: (-(file.size or 0), file.path))
    return {
        "stages": [stage.name for stage in chain],
        "data": [[file.path, file.oid[:REVISION_DIGITS], file.size] for file in unique[:DATA_SHOWN]],
        "more": max(0, len(unique) - DATA_SHOWN),
    }


def _ancestors(stage: LockedStage, makers: Mapping[str, LockedStage], chain: list[LockedStage], met: set[str]) -> None:
    """The stages that made what a stage reads, then the stage itself."""
    waiting = [(stage, False)]
    while waiting:
        one, done = waiting.pop()
        if done:
            chain.append(one)
        elif one.name not in met:
            met.add(one.name)
            waiting.append((one, True))
            waiting += [(maker, False) for dep in reversed(one.deps) if (maker := _maker(dep.path, makers)) is not None]


def _maker(path: str, makers: Mapping[str, LockedStage]) -> LockedStage | None:
    """The stage that makes a path, or a folder around it."""
    while path:
        if path in makers:
            return makers[path]
        path = posixpath.dirname(path)
    return None


def _is_code(file: LockedFile) -> bool:
    return posixpath.splitext(file.path)[1].lower() in CODE


def _model(
    model: Model, changes: list[Change], states: States | None, directions: Mapping[str, Direction]
) -> dict[str, Any]:
    brought = {
        event.after: change.commit
        for change in reversed(changes)
        for event in change.events
        if event.kind in ("registered", "replaced") and event.after
    }
    numbers = [_numbers(version.metrics) for version in model.versions]
    names = list(dict.fromkeys(name for values in reversed(numbers) for name in values))
    gate = [name for name in directions if name in names]
    champion = model.champion
    return {
        "id": model.id,
        "description": model.description,
        "current": model.current,
        "champion": champion.name if champion else None,
        "aliases": dict(model.aliases),
        "metrics": [
            {"name": name, "better": directions.get(name) or better_is(name)} for name in dict.fromkeys([*gate, *names])
        ],
        "versions": [
            _version(model, version, values, brought.get(version.name, ""), states)
            for version, values in zip(model.versions, numbers, strict=True)
        ],
        "spans": spans_of(changes),
        "removed": dict(model.removed),
    }


def _version(
    model: Model, version: Version, values: Mapping[str, float], commit: str, states: States | None
) -> dict[str, Any]:
    deprecation = model.deprecations.get(version.name)
    return {
        "name": version.name,
        "labels": model.labels(version.name),
        "date": version.date,
        "size": version.size,
        "path": version.path,
        "oid": version.oid[:REVISION_DIGITS],
        "weights": version.weights.removeprefix("blake3:")[:REVISION_DIGITS],
        "run": version.source.get("run", ""),
        "rev": version.source.get("rev", "")[:REVISION_DIGITS],
        "commit": commit[:REVISION_DIGITS],
        "metrics": dict(values),
        "params": {name: value for name, value in flatten(version.params, every=True).items() if value is not None},
        "gate": str(version.gate.get("verdict", "")),
        "against": str(version.gate.get("champion") or ""),
        "overridden": version.overridden,
        "deprecated": deprecation.reason if deprecation else None,
        "lineage": lineage_of(version, _stages(states, commit or version.source.get("rev", ""))),
    }


def _stages(states: States | None, commit: str) -> Sequence[LockedStage]:
    if states is None or not commit:
        return ()
    try:
        return states.stages(commit)
    except HoldfastError as error:
        states.notes[str(error)] = None
        return ()


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in flatten(values).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value - value == 0
    }


def _told(error: HoldfastError) -> str:
    return " ".join(str(error).split())
