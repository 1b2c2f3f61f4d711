"""What a gate is told: of the candidate what was staged, of the champion what the registry and DVC keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from holdfast.formats.digest import file_md5
from holdfast.registry.cards import missing_fields
from holdfast.registry.entries import Model, Version
from holdfast.registry.gate_contract import Contract, TensorSpec, parse_spec
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_predictions import Predictions, read_predictions
from holdfast.registry.gate_rules import GateRules
from holdfast.registry.gate_verdict import Finding, Judgement
from holdfast.registry.history import RegistryHistory
from holdfast.registry.objects import NotHereError, Stores
from holdfast.registry.promotion_source import Candidate, Staged, predictions_path
from holdfast.registry.rollback import PREDICTIONS
from holdfast.repo.cache import object_path
from holdfast.repo.dvcfiles import LOCK_FILE, MD5, PIPELINE_FILE, UnreadableFileError, read_definitions, read_lock
from holdfast.repo.workspace import Project, find_git_root

# metrics that say how long a prediction takes on the CPU, and how many seconds their unit has
LATENCIES = {"latency_seconds": 1.0, "latency_ms": 0.001}


def of_candidate(rules: GateRules, candidate: Candidate, staged: Staged, card: str) -> Evidence:
    """What is known of a candidate.

    Args:
        rules: what will be asked for.
        candidate: what is promoted.
        staged: its copy.
        card: its model card as it would be written.

    Raises:
        PredictionsError: its predictions are broken.
        OSError: they cannot be read.
    """
    predictions = None
    if candidate.predictions is not None:
        predictions = read_predictions(candidate.predictions, rules.columns)
    return Evidence(
        name="the candidate",
        metrics=candidate.metrics,
        predictions=predictions,
        file=staged.facts,
        latency=_latency(candidate.metrics),
        card_lacks=tuple(missing_fields(card, rules.card)),
        interface=interface_of(candidate.config),
    )


def of_champion(
    root: Path, rules: GateRules, model: Model, champion: Version, stores: Stores | None, predicted: str | None
) -> Evidence:
    """What is known of a champion.

    Args:
        root: the project's folder.
        rules: what will be asked for.
        model: whose version it is.
        champion: the version to beat.
        stores: where bytes are; None to look at the workspace alone.
        predicted: where the candidate's predictions are, from the root: of a version that names none, the commit that
            brought it may have tracked its own there.

    Raises:
        PredictionsError: its predictions are broken.
        HoldfastError: a vault or remote cannot be reached.
        OSError: they cannot be read.
    """
    return Evidence(
        name=champion.name,
        metrics=champion.metrics,
        predictions=_stored(root, rules, model, champion, stores, predicted)
        if rules.bootstrap or rules.classes
        else None,
    )


def judgement_of(record: Mapping[str, Any]) -> Judgement | None:
    """A judgement as the registry keeps it beside a version (`Judgement.as_record`); None where it keeps none."""
    rules = record.get("rules")
    if not isinstance(rules, Mapping):
        return None
    findings = []
    for name, told in rules.items():
        numbers = {key: value for key, value in told.items() if key not in ("verdict", "reason")}
        findings.append(Finding(name, told["verdict"], told["reason"], numbers))
    return Judgement(tuple(findings), record.get("champion"))


def _stored(
    root: Path, rules: GateRules, model: Model, champion: Version, stores: Stores | None, predicted: str | None
) -> Predictions | None:
    oid = champion.source.get(PREDICTIONS)
    beside = root / predictions_path(model.id)
    found = file_md5(beside) if beside.is_file() else None
    if oid is None:
        tracked = _tracked(root, model.id, champion.name)
        # what lies beside the model is the version's own if the commit that brought the version had it, wherever
        oid = tracked.get(predicted or "") or (found if found in tracked.values() else None)
    if oid is None:
        return None
    name = f"{champion.name}'s predictions"
    if found == oid:
        return read_predictions(beside, rules.columns, name=name)
    if stores is None:
        return None
    try:
        stores.bring(oid, f"{model.id}@{champion.name}: its predictions")
    except NotHereError:
        return None
    return read_predictions(object_path(stores.cache, MD5, oid), rules.columns, name=name)


def _tracked(root: Path, model_id: str, version: str) -> dict[str, str]:
    """What the pipeline had in the commit that brought a version: md5s by path."""
    git_root = find_git_root(root)
    if git_root is None:
        return {}
    history = RegistryHistory(Project(root.resolve(), git_root))
    commit = history.introduced(model_id, version)
    if commit is None:
        return {}
    try:
        outs = read_lock(
            history.file_at(commit, LOCK_FILE) or b"",
            "",
            read_definitions(history.file_at(commit, PIPELINE_FILE) or b""),
        )
    except UnreadableFileError:
        return {}
    return {out.path: out.oid for out in outs}


def _latency(metrics: Mapping[str, Any]) -> float | None:
    for name, seconds in LATENCIES.items():
        value = metrics.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value * seconds
    return None


def interface_of(config: bytes | None) -> Contract | None:
    """The inputs and outputs that a configuration tells, as ``name: F32[*, 8, 8]``; None where it tells none."""
    try:
        told = yaml.safe_load(config or b"")
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(told, Mapping):
        return None
    inputs, outputs = _specs(told.get("inputs")), _specs(told.get("outputs"))
    return Contract(inputs, outputs) if inputs or outputs else None


def _specs(told: object) -> dict[str, TensorSpec]:
    try:
        return {str(name): parse_spec(spec) for name, spec in told.items()} if isinstance(told, Mapping) else {}
    except (ValueError, TypeError, AttributeError):
        return {}


def is_there(root: Path, version: Version, stores: Stores) -> bool:
    """Whether a version's bytes can be had: at its path, or from one of the stores.

    Raises:
        HoldfastError: a vault or remote cannot be reached.
    """
    path = root / version.path
    if path.is_file() and file_md5(path) == version.oid:
        return True
    return version.oid in stores.whereabouts([version.oid])
