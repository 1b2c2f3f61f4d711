"""Making the plan of a consolidation out of the runs' classes; nothing is changed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.inventory.run_record import WEIGHT_ROLES, Role
from holdfast.inventory.run_verdicts import SortedRun, Sorting
from holdfast.registry import FOLDER
from holdfast.registry.consolidation import (
    APP,
    ARCHIVE_APP,
    MODELS_FOLDER,
    ConsolidationPlan,
    Left,
    PlannedFile,
    Step,
    StepKind,
    listing_of,
)
from holdfast.registry.consolidation_facts import benchmarks, model_name, pick_weights, trained_with
from holdfast.registry.consolidation_runs import (
    Looked,
    fingerprint,
    look,
    planned_file,
    tracked_outs,
    tracker_of,
    uses_of,
)
from holdfast.registry.entries import FOLDER_SUFFIX, Model, Version, check_model_id
from holdfast.registry.importing import Candidate, read_candidates
from holdfast.registry.registration import make_draft
from holdfast.registry.store import Registry
from holdfast.repo.git_commands import run_git
from holdfast.repo.workspace import Project

# what goes with the weights of a model
SIDE_ROLES: frozenset[Role] = frozenset({"vocabulary", "info", "config"})
REFERENCES_NAMED = 3


@dataclass
class _World:
    project: Project
    looked: Looked
    digests: DigestCache
    outs: Mapping[str, str]
    models: dict[str, Model]
    chosen: Mapping[str, str]
    # versions that the steps before bring, by model and weights digest
    brought: dict[tuple[str, str], str] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.project.root

    def with_weights(self, step: Step) -> str | None:
        """The version of the model that has these weights, or will have them."""
        versions = self.models[step.model].versions if step.model in self.models else ()
        known = next((version.name for version in versions if version.weights == step.weights), None)
        return known or self.brought.get((step.model, step.weights))

    def numbered(self, step: Step, known: str | None) -> Step:
        """The step with the number that its version has, or will get."""
        if known is not None:
            return replace(step, version=known, known=True)
        model = self.models.get(step.model) or Model(step.model, "", None, {}, ())
        number = int(model.next_name[1:]) + self.added.get(step.model, 0)
        self.added[step.model] = self.added.get(step.model, 0) + 1
        self.brought[step.model, step.weights] = f"v{number}"
        return replace(step, version=f"v{number}")


class _NotPossibleError(HoldfastError):
    """A run stays as it is."""


def plan_consolidation(
    project: Project,
    folders: Sequence[str],
    digests: DigestCache,
    *,
    now: datetime,
    vault: str | None,
    no_vault: str = "",
    app: str = APP,
    weights: Mapping[str, str] | None = None,
) -> ConsolidationPlan:
    """What is to be done with the runs below some folders, by their classes.

    Args:
        project: whose.
        folders: from its root; ``.`` for all of it.
        digests: what is known of files.
        now: for runs that say they are running; has a time zone.
        vault: where the project's vault is; None where it has none.
        no_vault: why it has none.
        app: the application of the models that are kept.
        weights: the file of weights of some runs, by the run's path.

    Raises:
        UsageError: a folder is not in the project, or ``app`` or a run is no name of one.
        EntryError: a file of the registry is broken.
        UnreadableDvcFileError: what DVC tracks cannot be known.
        IntegrityError: a file was changed while it was read.
        OSError: a file cannot be read.
    """
    check_model_id(f"{app}/model")
    if app == ARCHIVE_APP:
        raise UsageError(f"{app} is the application of archived runs", hint="Name another one: --app")
    models = {model.id: model for model in Registry(project.root).models()}
    looked = look(project, folders, app, models.values())
    world = _World(project, looked, digests, tracked_outs(project), models, dict(weights or {}))
    sorting = looked.sort(now)
    if unknown := set(world.chosen) - {looked.path(item.run) for item in sorting.of("keep")}:
        raise UsageError(
            f"{min(unknown)} is no run that is kept", hint="`holdfast runs classify --only keep` lists them"
        )
    left: list[Left] = []
    inputs: dict[str, str] = {}
    steps = _imports(world, app, left, inputs)
    for item in sorted(sorting.of("keep"), key=_best_first):
        _try(left, world, item, "register", steps, lambda item=item: _keep(world, item, app))
    archived = sorting.of("archive")
    paths = {
        path: [f"{path}/{file.path}" for file in item.run.files if file.role in WEIGHT_ROLES]
        for item in archived
        for path in [looked.path(item.run)]
    }
    uses = uses_of(project.root, paths) if vault is not None else {}
    for item in archived:
        _try(left, world, item, "archive", steps, lambda item=item: _archive(world, item, vault, no_vault, uses))
    left += [_left(world, item, "gc", item.why) for item in sorting.of("remove")]
    return ConsolidationPlan(
        folders=looked.folders,
        app=app,
        vault=vault,
        no_vault="" if vault is not None else no_vault,
        steps=tuple(steps),
        left=tuple(left),
        runs=run_fingerprints(looked, sorting, steps, digests),
        inputs=dict(sorted(inputs.items())),
        rules=looked.rules_digest,
    )


def run_fingerprints(looked: Looked, sorting: Sorting, steps: Iterable[Step], digests: DigestCache) -> dict[str, str]:
    """What the plan rests on: each run's fingerprint, empty for one that is at work and changes while we look."""
    leaving = {step.source for step in steps if step.kind == "archive"}
    return {
        path: "" if item.found.alive else fingerprint(item.run, digests, weights=path not in leaving)
        for item in sorting.runs
        for path in [looked.path(item.run)]
    }


def _try(left: list[Left], world: _World, item: SortedRun, phase: Any, steps: list[Step], make: Any) -> None:
    try:
        steps.append(make())
    except HoldfastError as error:
        why = error.message if isinstance(error, _NotPossibleError) else str(error)
        left.append(_left(world, item, phase, why))


def _left(world: _World, item: SortedRun, phase: Any, why: str) -> Left:
    size = item.run.bytes if phase == "gc" else item.freed
    return Left(world.looked.path(item.run), phase, item.kind, size, why)


def _imports(world: _World, app: str, left: list[Left], inputs: dict[str, str]) -> list[Step]:
    """What other registries list; in a folder of its own such a file may see its paths from there."""
    steps: list[Step] = []
    for file in world.looked.scan.registries:
        data = (world.root / file.path).read_bytes()
        inputs[file.path] = hashlib.sha256(data).hexdigest()
        try:
            candidates = read_candidates(data, file.path, app)
        except UsageError as error:
            left.append(Left(file.path, "register", "", 0, str(error)))
            continue
        for candidate in candidates:
            beside = (PurePosixPath(file.path).parent / candidate.path).as_posix()
            if not (world.root / candidate.path).exists() and (world.root / beside).exists():
                candidate = replace(candidate, path=beside)
            try:
                steps.append(_import(world, candidate, file.path))
            except HoldfastError as error:
                before = _registered(world.models.get(candidate.model), candidate.path)
                why = f"registered already, as {before}" if before else f"{file.path} lists it: {error}"
                left.append(Left(candidate.path, "register", "", 0, why))
    return steps


def _registered(model: Model | None, path: str) -> str | None:
    """The version of a path: a folder that got others' models in it since then cannot be compared any more."""
    return (
        next((f"{model.id}@{version.name}" for version in model.versions if version.path == path), None)
        if model
        else None
    )


def _import(world: _World, candidate: Candidate, file: str) -> Step:
    path = world.root / candidate.path
    day = date.fromisoformat(candidate.date) if candidate.date else date.min
    draft = make_draft(world.root, path, world.digests, today=day, params=candidate.params, metrics=candidate.metrics)
    if candidate.known is not None and candidate.known.weights != draft.weights:
        raise HoldfastError(f"{candidate.path} holds other weights than the file says")
    folder = path if draft.is_folder else path.parent
    names = (
        [found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file()]
        if draft.is_folder
        else [path.name]
    )
    files = tuple(planned_file(folder, name, world.digests) for name in sorted(names))
    step = Step(
        kind="import",
        source=folder.relative_to(world.root).as_posix(),
        files=files,
        model=candidate.model,
        version="",
        known=False,
        path=draft.path,
        oid=draft.oid,
        size=draft.size,
        weights=draft.weights,
        weights_file=draft.weights_file,
        run=draft.source.get("run", ""),
        date=candidate.date,
        params=candidate.params,
        metrics=candidate.metrics,
        description=candidate.description,
        labels=candidate.labels if candidate.model not in world.models else (),
        kind_of_run="",
        why=f"{file} lists it",
    )
    return world.numbered(step, world.with_weights(step))


def _keep(world: _World, item: SortedRun, app: str) -> Step:
    run, source = item.run, world.looked.path(item.run)
    if item.kind != "production candidate" and not item.historical:
        raise _NotPossibleError(item.why)
    model = f"{app}/{item.standard_name or model_name(run.series)}"
    check_model_id(model)
    main = pick_weights(run, world.chosen.get(source), source)
    names = [file.path for file in run.files if file.path == main or file.role in SIDE_ROLES]
    names = [name for name in names if (run.path / name).is_file() and not name.endswith(".dvc")]
    files = tuple(planned_file(run.path, name, world.digests) for name in sorted(names))
    target = f"{MODELS_FOLDER}/{model}" if item.standard_name is not None else source
    step = _step(world, "keep", item, model, target, files, main, folder=True)
    step = world.numbered(step, world.with_weights(step))
    if step.is_copied and not step.known:
        _check_target(world, target, files)
    return step


def _check_target(world: _World, target: str, files: Sequence[PlannedFile]) -> None:
    place, pointer = world.root / target, f"{target}.dvc"
    if place.exists() and not holds(place, files, world.digests):
        raise HoldfastError(f"{target} is there already, with something else", hint="Move it, or name another --app")
    around = {out: file for out, file in world.outs.items() if file != pointer or not place.exists()}
    if (file := tracker_of(target, around)) is not None:
        raise HoldfastError(f"{file} has DVC track {target} already", hint="Name another application: --app")
    for name in (pointer, f"{FOLDER}/{target.removeprefix(f'{MODELS_FOLDER}/')}/v1.yaml"):
        if run_git(world.root, "check-ignore", "--quiet", "--no-index", name) is not None:
            rule = run_git(world.root, "check-ignore", "--verbose", "--no-index", name) or ""
            told = rule.split("\t")[0]
            raise HoldfastError(
                f"git ignores {name} ({told})", hint="Narrow that rule: DVC's pointer and the registry belong to git"
            )


def holds(folder: Path, files: Sequence[PlannedFile], digests: DigestCache) -> bool:
    """Whether a folder holds these files as they were planned, and nothing else."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    if not folder.is_dir() or names != sorted(file.path for file in files):
        return False
    return all(planned_file(folder, file.path, digests) == file for file in files)


def _archive(
    world: _World, item: SortedRun, vault: str | None, no_vault: str, uses: Mapping[str, Sequence[str]]
) -> Step:
    run, source = item.run, world.looked.path(item.run)
    found = [file.path for file in run.files if file.role in WEIGHT_ROLES and not (run.path / file.path).is_symlink()]
    names = [name for name in found if not name.endswith(".dvc")]
    if not names:
        before = next(
            (
                f"{model.id}@{v.name}"
                for model in world.models.values()
                for v in model.versions
                if _is_of(model, v, source)
            ),
            None,
        )
        raise _NotPossibleError(f"archived already, as {before}" if before else "has no files with weights of its own")
    if vault is None:
        raise _NotPossibleError(f"the project has no vault: {no_vault}")
    for name in names:
        path = f"{source}/{name}"
        if (file := tracker_of(path, world.outs)) is not None:
            raise _NotPossibleError(f"DVC tracks {path} ({file}): its objects are for `holdfast gc` to judge")
        if places := uses.get(path):
            more = f", and {len(places) - REFERENCES_NAMED} more" if len(places) > REFERENCES_NAMED else ""
            raise _NotPossibleError(f"{', '.join(places[:REFERENCES_NAMED])}{more} would break: it names {path}")
    main = pick_weights(run, world.chosen.get(source), source) if len(names) > 1 else names[0]
    files = tuple(planned_file(run.path, name, world.digests) for name in sorted(names))
    model = f"{ARCHIVE_APP}/{model_name(run.series)}"
    path = source if len(files) > 1 else f"{source}/{main}"
    step = _step(world, "archive", item, model, path, files, main, folder=len(files) > 1)
    versions = world.models[model].versions if model in world.models else ()
    # equal weights are not enough: what leaves must be what comes back, byte for byte
    return world.numbered(step, next((v.name for v in versions if v.oid == step.oid and v.path == path), None))


def _is_of(model: Model, version: Version, run: str) -> bool:
    return model.id.startswith(f"{ARCHIVE_APP}/") and version.source.get("run") == run


def _step(
    world: _World,
    kind: StepKind,
    item: SortedRun,
    model: str,
    path: str,
    files: tuple[PlannedFile, ...],
    main: str,
    *,
    folder: bool,
) -> Step:
    run, source = item.run, world.looked.path(item.run)
    found = digests_of(run.path / main, world.digests, weights=True)
    if found.weights is None:
        raise HoldfastError(f"{source}/{main} has no weights digest: {found.no_weights}")
    oid = hashlib.md5(listing_of(files), usedforsecurity=False).hexdigest() + FOLDER_SUFFIX if folder else files[0].md5
    return Step(
        kind=kind,
        source=source,
        files=files,
        model=model,
        version="",
        known=False,
        path=path,
        oid=oid,
        size=sum(file.size for file in files),
        weights=found.weights,
        weights_file=main if folder else None,
        run=source,
        date=None,
        params=trained_with(run),
        metrics=benchmarks(run),
        description="",
        labels=("current",) if kind != "import" else (),
        kind_of_run=item.kind,
        why=item.why,
        flags=item.found.flags,
    )


def _best_first(item: SortedRun) -> tuple[bool, int, str]:
    return (item.place is None, item.place or 0, item.run.path.as_posix())
