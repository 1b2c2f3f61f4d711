"""Whether a plan still fits the world: what is done of it, what is to be done, and what has changed."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from holdfast.errors import StalePlanError
from holdfast.formats.cache import DigestCache
from holdfast.inventory.run_record import WEIGHT_ROLES
from holdfast.registry.consolidation import ConsolidationPlan, Step
from holdfast.registry.consolidation_plan import holds, run_fingerprints
from holdfast.registry.consolidation_runs import Looked, look, planned_file, tracked_outs, tracker_of, uses_of
from holdfast.registry.entries import FOLDER_SUFFIX, Model, Version
from holdfast.registry.objects import Stores
from holdfast.registry.store import Registry
from holdfast.repo.dvcfiles import MD5
from holdfast.repo.workspace import Project

NEW_PLAN = "Make a new plan: `holdfast registry consolidate -o FILE`"


def is_sent(step: Step, plan: ConsolidationPlan) -> bool:
    """Whether the files of a step go to the vault: those that DVC does not track, so that no push would send them."""
    return plan.vault is not None and not step.is_copied and (step.kind == "archive" or not step.known)


def check_plan(
    project: Project, plan: ConsolidationPlan, stores: Stores, digests: DigestCache, now: datetime
) -> list[bool]:
    """Whether each step is done already, where all else is as the plan has it.

    Raises:
        StalePlanError: something is not.
    """
    root, registry = project.root, Registry(project.root)
    models = {model.id: model for model in registry.models()}
    looked = _look(project, plan, models)
    for path, digest in plan.inputs.items():
        if not (root / path).is_file() or hashlib.sha256((root / path).read_bytes()).hexdigest() != digest:
            raise StalePlanError(f"{path} has changed since the plan was made", hint=NEW_PLAN)
    if looked.rules_digest != plan.rules:
        raise StalePlanError(
            "the rules under runs: in holdfast.yaml have changed since the plan was made", hint=NEW_PLAN
        )
    _check_runs(looked, plan, digests, now)
    if any(is_sent(step, plan) for step in plan.steps) and (stores.vault is None or stores.vault.url != plan.vault):
        place = "none" if stores.vault is None else stores.vault.url
        raise StalePlanError(f"the project's vault is {place}, and was {plan.vault}", hint=NEW_PLAN)
    done: list[bool] = []
    before: list[Step] = []
    for step in plan.steps:
        model = models.get(step.model) or Model(step.model, "", None, {}, ())
        version = version_of(step, model)
        _check_number(step, model, version, before)
        if step.kind == "archive":
            done.append(_check_archive(root, step, version, stores, digests))
        else:
            done.append(_check_kept(root, step, version, digests))
        before += [] if version or step.known else [step]
    _check_needs(project, [step for step, is_done in zip(plan.steps, done, strict=True) if not is_done])
    return done


def _look(project: Project, plan: ConsolidationPlan, models: dict[str, Model]) -> Looked:
    for folder in plan.folders:
        if not (project.root / folder).is_dir():
            raise StalePlanError(f"{folder} is gone since the plan was made", hint=NEW_PLAN)
    return look(project, plan.folders, plan.app, models.values())


def _check_runs(looked: Looked, plan: ConsolidationPlan, digests: DigestCache, now: datetime) -> None:
    alive = {path for path, told in plan.runs.items() if not told}
    steps = {step.source: step for step in plan.of("archive")}
    there = {looked.path(run): run for run in looked.scan.runs}
    # what is archived by now says less, but of the same run
    found = run_fingerprints(looked, looked.sort(now), plan.steps, digests)
    for path in sorted(set(plan.runs) | set(found)):
        if path not in found:
            raise StalePlanError(f"the run {path} is gone since the plan was made", hint=NEW_PLAN)
        if path not in plan.runs:
            raise StalePlanError(f"the run {path} is new since the plan was made", hint=NEW_PLAN)
        if path not in alive and found[path] != plan.runs[path]:
            raise StalePlanError(f"the run {path} has changed since the plan was made", hint=NEW_PLAN)
        if path in steps:
            weights = {file.path for file in there[path].files if file.role in WEIGHT_ROLES}
            links = {name for name in weights if (looked.root / path / name).is_symlink() or name.endswith(".dvc")}
            if more := sorted(weights - links - {file.path for file in steps[path].files}):
                raise StalePlanError(f"{path}/{more[0]} is new since the plan was made", hint=NEW_PLAN)


def _check_number(step: Step, model: Model, version: Version | None, before: Sequence[Step]) -> None:
    """Raise unless the version that a step names is the one that it has, or gets after those ``before``."""
    if version is not None:
        if version.name != step.version:
            told = f"{step.model}@{version.name} has the bytes that {step.name} should have"
            raise StalePlanError(told, hint=NEW_PLAN)
        return
    if step.known:
        coming = any((other.name, other.weights) == (step.name, step.weights) for other in before)
        if not coming and not any((v.name, v.weights) == (step.version, step.weights) for v in model.versions):
            raise StalePlanError(f"{step.name} is not registered any more", hint=NEW_PLAN)
        return
    number = int(model.next_name[1:]) + sum(other.model == step.model for other in before)
    if step.version != f"v{number}":
        told = f"the next version of {step.model} is v{number}, and was {step.version}"
        raise StalePlanError(told, hint=NEW_PLAN)


def version_of(step: Step, model: Model) -> Version | None:
    """The version that a step registers, where it is there."""
    return next((v for v in model.versions if v.oid == step.oid and v.path == step.path), None)


def _check_kept(root: Path, step: Step, version: Version | None, digests: DigestCache) -> bool:
    if version is not None or step.known:
        return True
    for file in step.files:
        _check_file(root, step, file.path, digests)
    target = root / step.path
    if step.is_copied and target.exists() and not holds(target, step.files, digests):
        raise StalePlanError(f"{step.path} is there by now, with something else", hint=NEW_PLAN)
    return False


def _check_archive(root: Path, step: Step, version: Version | None, stores: Stores, digests: DigestCache) -> bool:
    gone = [file for file in step.files if not is_there(root / step.source / file.path)]
    for file in step.files:
        if file not in gone:
            _check_file(root, step, file.path, digests)
    if gone and (version is None or not _in_vault(stores, step)):
        path = f"{step.source}/{gone[0].path}"
        raise StalePlanError(f"{path} is gone, and was not archived", hint=NEW_PLAN)
    return len(gone) == len(step.files)


def _check_needs(project: Project, steps: Sequence[Step]) -> None:
    """Raise where something has come to need what is to leave."""
    leaving = {s.source: [f"{s.source}/{file.path}" for file in s.files] for s in steps if s.kind == "archive"}
    for path, places in uses_of(project.root, leaving).items():
        raise StalePlanError(f"{places[0]} names {path} by now", hint=NEW_PLAN)
    outs = tracked_outs(project) if leaving else {}
    for path in (path for paths in leaving.values() for path in paths):
        if (file := tracker_of(path, outs)) is not None:
            raise StalePlanError(f"DVC tracks {path} by now ({file})", hint=NEW_PLAN)


def _check_file(root: Path, step: Step, name: str, digests: DigestCache) -> None:
    path = f"{step.source}/{name}"
    wanted = next(file for file in step.files if file.path == name)
    if not (root / path).is_file():
        raise StalePlanError(f"{path} is gone since the plan was made", hint=NEW_PLAN)
    if planned_file(root / step.source, name, digests) != wanted:
        raise StalePlanError(f"{path} has changed since the plan was made", hint=NEW_PLAN)


def is_there(path: Path) -> bool:
    """Whether anything lies at a path, also a link that leads nowhere."""
    return path.exists() or path.is_symlink()


def oids_of(step: Step) -> list[str]:
    """The names by which a vault has a step's files, and of a folder their listing."""
    oids = [f"{MD5}:{file.md5}" for file in step.files]
    return [*oids, f"{MD5}:{step.oid}"] if step.oid.endswith(FOLDER_SUFFIX) else oids


def _in_vault(stores: Stores, step: Step) -> bool:
    oids = set(oids_of(step))
    return stores.vault is not None and stores.vault.exists(oids) == oids
