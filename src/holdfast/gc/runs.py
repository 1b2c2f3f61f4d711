"""Runs by class, age and series, as lines of a plan: kept, archived without their weights, or removed as one folder."""

import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from holdfast.formats.cache import DigestCache
from holdfast.gc.planned import SECONDS_A_DAY, Doubt, Found, PlannedObject, Tier
from holdfast.gc.policy import Policy
from holdfast.gc.runs_archive import narrowed
from holdfast.gc.workspace import accepted_uses, stores_within
from holdfast.gc.workspace_bytes import Bytes
from holdfast.gc.workspace_rules import Patterns, WorkspaceRules, read_workspace_rules
from holdfast.gc.workspace_tree import Tree, folder_changed, parents_of, walk_tree
from holdfast.gc.workspace_uses import Pipelines, find_uses, is_within, read_pipelines, seen_from
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.run_names import started_from_name
from holdfast.inventory.run_verdicts import SortedRun
from holdfast.registry.consolidation import APP, ConsolidationPlan
from holdfast.registry.consolidation_plan import plan_consolidation
from holdfast.registry.consolidation_runs import look
from holdfast.registry.entries import Model
from holdfast.registry.store import Registry
from holdfast.repo.history import UnreadableDvcFileError
from holdfast.repo.workspace import Project


@dataclass
class _World:
    project: Project
    policy: Policy
    now: datetime
    tree: Tree
    pipelines: Pipelines
    rules: WorkspaceRules
    accepted: Patterns
    kept: Patterns
    runs: Mapping[str, SortedRun]
    registered: Mapping[str, str]
    archive: ConsolidationPlan | None
    files: dict[str, list[str]] = field(default_factory=dict)

    def age_days(self, run: str) -> float:
        """Since the newest file of a run; of one that has none since its folder changed: it may have just begun."""
        newest = max((self.tree.files[label].changed for label in self.files[run]), default=None)
        if newest is None:
            newest = folder_changed(self.tree, run, self.now.timestamp())
        return round(max(0.0, self.now.timestamp() - newest) / SECONDS_A_DAY, 3)

    def nested(self, run: str) -> list[str]:
        """The runs inside of a run."""
        return [other for other in self.runs if other != run and is_within(other, run)]

    def own_bytes(self, run: str) -> int:
        """Of a run, without those of the runs inside of it."""
        inner = frozenset(self.nested(run))
        own = (label for label in self.files[run] if inner.isdisjoint(parents_of(label)))
        return sum(self.tree.files[label].size for label in own)

    def is_accepted(self, run: str) -> bool:
        return self.accepted.names_folder(run)


@dataclass(frozen=True)
class _Fate:
    tier: Tier
    reason: str
    why: str
    users: tuple[str, ...] = ()
    accepted: bool = False


def find_runs(
    project: Project,
    folders: Sequence[str],
    policy: Policy,
    cache: DigestCache,
    *,
    now: datetime,
    vault: str | None,
    no_vault: str,
    accept: Sequence[str] = (),
    memory: ReferenceMemory | None = None,
) -> Found:
    """What is to become of the runs below some folders of a project; nothing is changed.

    A run that may go goes as one folder, once it is as old as the policy wants for its class. One that something uses
    stays as a *decision*, and goes where ``accept`` names its folder.

    Args:
        project: whose.
        folders: from its root; ``.`` for all of it.
        policy: how old a run of each class must be.
        cache: what is known of files' content.
        now: when; has a time zone.
        vault: where the project's vault is, to which weights are archived; None where it has none.
        no_vault: why it has none.
        accept: patterns, as in ``.gitignore`` and seen from the project, of runs that may go though they are used.
        memory: what is known of sources.

    Raises:
        UsageError: a folder is not in the project, or a pattern is none.
        holdfast.inventory.config.ConfigError: ``holdfast.yaml`` says something that Holdfast does not know.
        UnreadableDvcFileError: a DVC file cannot be read.
        EntryError: a file of the registry is broken.
        OSError: a folder cannot be listed.
    """
    root = project.git_root
    models = Registry(project.root).models()
    looked = look(project, folders, APP, models)
    tree = walk_tree(root, project=project.prefix, closed=stores_within(project))
    sorted_runs = {posixpath.join(project.prefix, looked.path(item.run)): item for item in looked.sort(now).runs}
    runs = {run: item for run, item in sorted_runs.items() if tree.host(run) is None}
    rules = read_workspace_rules(project.root, root)
    world = _World(
        project=project,
        policy=policy,
        now=now,
        tree=tree,
        pipelines=read_pipelines(tree),
        rules=rules,
        accepted=Patterns(accept, project.prefix),
        kept=Patterns(rules.keep, rules.folder),
        runs=runs,
        registered=_registered(models, project.prefix),
        archive=None,
        files={run: tree.below(run) for run in runs},
    )
    fates = {run: _first_fate(world, run, item) for run, item in runs.items()}
    _archive(world, fates, folders, cache, vault, no_vault)
    uses = _keep_used(world, fates, memory)
    _keep_around(world, fates)
    objects = _lines(world, fates, uses, Bytes(tree, cache, lambda label: tree.owner(label) is None))
    ages = {kind: str(age) for kind, age in sorted(policy.runs.items())}
    rested = f"{looked.rules_digest} {ages} {policy.minimum_age} {rules.digest} {vault}"
    return Found(
        tuple(sorted(objects, key=lambda line: (-line.size, line.path))),
        tuple(_doubts(world)),
        (*looked.scan.notes, *_notes(world, sorted_runs)),
        (
            ("the rules for runs", hashlib.sha256(rested.encode()).hexdigest()),
            *accepted_uses(objects),
        ),
    )


def settle(workspace: Found, runs: Found) -> tuple[Found, Found]:
    """Both scopes without what the other takes: nothing is moved twice, nor moved from around what is archived.

    Args:
        workspace: from `holdfast.gc.workspace.find_workspace`.
        runs: from `find_runs`.
    """
    leaving = {line.path for line in runs.objects if line.tier != "keep"}
    archived = {line.path for line in runs.objects if line.tier == "archive"}
    going = {line.path for line in workspace.objects if line.tier == "remove"}
    kept = [_yielding(line, archived) for line in workspace.objects if leaving.isdisjoint(parents_of(line.path))]
    taken = going & {line.path for line in kept if line.tier == "remove"}
    rest = [line for line in runs.objects if line.tier == "keep" or taken.isdisjoint(parents_of(line.path))]
    return replace(workspace, objects=tuple(kept)), replace(runs, objects=tuple(rest))


def _yielding(line: PlannedObject, archived: set[str]) -> PlannedObject:
    inside = sorted(run for run in archived if is_within(run, line.path))
    if line.tier != "remove" or not inside:
        return line
    return line._replace(tier="keep", reason="runs", why=f"{line.why}; it holds {inside[0]}, which is archived first")


def _registered(models: Sequence[Model], prefix: str) -> dict[str, str]:
    """What registry versions name, from the git root: where their files lie, and the runs that they are from."""
    result: dict[str, str] = {}
    for model in models:
        for version in model.versions:
            for path in (version.path, str(version.source.get("run", ""))):
                if path:
                    result.setdefault(posixpath.normpath(posixpath.join(prefix, path)), f"{model.id}@{version.name}")
    return result


def _first_fate(world: _World, run: str, item: SortedRun) -> _Fate:
    """What becomes of a run by its own facts."""
    accepted = world.is_accepted(run)
    limit = world.policy.runs[item.kind]
    files = world.files[run]
    if item.found.alive:
        return _Fate("keep", "running", item.why)
    if item.verdict == "keep" and not (item.found.unevaluated and item.kind == "incomplete"):
        return _Fate("keep", "class", item.why)
    if any(world.kept.names(label) for label in files) or world.kept.names_folder(run):
        return _Fate("keep", "rule", f"{item.why}; holdfast.yaml says under workspace.keep that it stays")
    if (place := world.tree.barrier(run)) is not None:
        told = world.tree.closed.get(place) or world.tree.foreign.get(place) or "it cannot be read"
        return _Fate("keep", "undecided", f"{item.why}; it holds {_seen(world, place)}: {told}")
    if item.verdict == "archive":
        least = limit if limit is not None else world.policy.minimum_age
        return _young(world, run, item, least) or _Fate("archive", "archive", item.why)
    if (owner := _owner(world, run)) is not None:
        return _Fate("keep", owner[0], f"{item.why}; {owner[1]}")
    if limit is None:
        why = f"{item.why}; runs of the class {item.kind} never go: gc.runs in holdfast.yaml"
        return _Fate("keep", "rule", why)
    if item.verdict == "keep" and not accepted:
        return _Fate("keep", "decision", item.why)
    if world.tree.unreadable:
        return _Fate("keep", "undecided", f"{item.why}; not all folders could be read")
    young = _young(world, run, item, limit)
    return young or _Fate("remove", item.kind.replace(" ", "-"), item.why, accepted=accepted)


def _young(world: _World, run: str, item: SortedRun, limit: timedelta) -> _Fate | None:
    if world.age_days(run) * SECONDS_A_DAY >= limit.total_seconds():
        return None
    days = limit.total_seconds() / SECONDS_A_DAY
    return _Fate("keep", "young", f"{item.why}; younger than {days:g} days")


def _owner(world: _World, run: str) -> tuple[str, str] | None:
    """Who else has a say over a run: a registry version, or DVC."""
    for path, version in sorted(world.registered.items()):
        if is_within(path, run) or is_within(run, path):
            return "registry", f"{version} is from it: `holdfast registry rm` is for that"
    for label in world.files[run]:
        if (file := world.pipelines.owner(label)) is not None:
            return "dvc", f"DVC has {_seen(world, label)} ({_seen(world, file)}): `dvc remove` is for that"
    return None


def _archive(
    world: _World,
    fates: dict[str, _Fate],
    folders: Sequence[str],
    cache: DigestCache,
    vault: str | None,
    no_vault: str,
) -> None:
    """Say of each run that is to be archived where its weights go, or why they cannot."""
    wanted = [run for run, fate in fates.items() if fate.tier == "archive"]
    if not wanted:
        return
    project = world.project
    if vault is None:
        for run in wanted:
            why = f"{fates[run].why}; the project has no vault: {no_vault}"
            fates[run] = replace(fates[run], tier="keep", reason="blocked", why=why)
        return
    try:
        plan = plan_consolidation(project, folders, cache, now=world.now, vault=vault, no_vault=no_vault)
    except UnreadableDvcFileError as error:
        if not world.tree.unreadable:
            raise
        # a folder that nobody can look into may hold a DVC file that needs the weights
        for run in wanted:
            fates[run] = replace(fates[run], tier="keep", reason="undecided", why=f"{fates[run].why}; {error.message}")
        return
    world.archive = narrowed(project, plan, [_seen(world, run) for run in wanted], cache, world.now)
    names = {step.source: step.name for step in world.archive.steps}
    left = {item.path: item.why for item in plan.left if item.phase == "archive"}
    for run in wanted:
        path, fate = _seen(world, run), fates[run]
        if path in names and path in world.archive.runs:
            why = f"{fate.why}; its weights go to {vault} as {names[path]}, the rest stays"
            fates[run] = replace(fate, why=why)
        else:
            problem = left.get(path, "it is told apart as a run by those beside it alone")
            reason = "archived" if problem.startswith("archived already") else "blocked"
            fates[run] = replace(fate, tier="keep", reason=reason, why=f"{fate.why}; {problem}")


def _keep_used(world: _World, fates: dict[str, _Fate], memory: ReferenceMemory | None) -> dict[str, tuple[str, ...]]:
    """Keep what something uses that stays; who uses each of the runs that were to go."""
    going = sorted(run for run, fate in fates.items() if fate.tier == "remove")
    if not going:
        return {}
    files = [label for run in going for label in world.files[run]]
    stamped = [run for run in going if started_from_name(run.rpartition("/")[2]) is not None]
    uses = find_uses(
        world.tree, world.pipelines, files, going, prefix=world.project.prefix, memory=memory, names=stamped
    )
    found = {run: uses.of(run, world.files[run]) for run in going}
    # a run that stays may need one that was to go, which then stays and may need another
    while True:
        leaving = [run for run in going if fates[run].tier == "remove"]
        outside = {run: tuple(_outside(found[run], leaving)) for run in leaving}
        staying = [run for run in leaving if outside[run] and not fates[run].accepted]
        if not staying:
            return outside
        for run in staying:
            why = f"{fates[run].why}; it is used"
            fates[run] = replace(fates[run], tier="keep", reason="decision", why=why, users=outside[run])


def _outside(places: Sequence[str], runs: Sequence[str]) -> Iterator[str]:
    return (place for place in places if not any(is_within(place, run) for run in runs))


def _keep_around(world: _World, fates: dict[str, _Fate]) -> None:
    """Keep a run around another one that stays; inner ones first, so that each is known."""
    for run in sorted(fates, key=lambda run: -run.count("/")):
        if fates[run].tier == "remove":
            inner = next((other for other in world.nested(run) if fates[other].tier != "remove"), None)
            if inner is not None:
                why = f"{fates[run].why}; it holds the run {_seen(world, inner)}, which stays"
                fates[run] = replace(fates[run], tier="keep", reason="nested", why=why)


def _lines(
    world: _World, fates: Mapping[str, _Fate], users: Mapping[str, tuple[str, ...]], known: Bytes
) -> list[PlannedObject]:
    going = {run for run, fate in fates.items() if fate.tier == "remove"}
    gone = {label for run in going for label in world.files[run]}
    result = []
    for run, fate in fates.items():
        if any(place in going for place in list(parents_of(run))[1:]):
            continue  # the line of the run around it stands for it
        files = world.files[run]
        why, size, last = fate.why, world.own_bytes(run), None
        if fate.tier == "remove":
            size = sum(world.tree.files[label].size for label in files)
            last = known.has_last(files, lambda other: other not in gone)
            why += _also(world, run, files, known)
            if any(world.tree.changed_since(label) for label in files):
                fate, why = replace(fate, tier="keep", reason="changed"), f"{why}; it changed while it was looked at"
        elif fate.tier == "archive":
            size, last = world.runs[run].freed, False
        places = tuple(_seen(world, place) for place in fate.users or users.get(run, ()))
        result.append(
            PlannedObject(
                scope="runs",
                place="",
                path=_seen(world, run),
                size=size,
                age_days=world.age_days(run),
                tier=fate.tier,
                reason=fate.reason,
                why=why,
                users=places,
                last_copy=last,
            )
        )
    return result


def _also(world: _World, run: str, files: Sequence[str], known: Bytes) -> str:
    """What people should know of a run that goes, besides why."""
    parts = []
    if nested := world.nested(run):
        parts.append(f"with {len(nested)} run{'s' if len(nested) > 1 else ''} in it")
    if tracked := sum(known.is_tracked(label) for label in files):
        parts.append(f"git tracks {tracked} of its {len(files)} files: `git status` will show that")
    return "".join(f"; {part}" for part in parts)


def _doubts(world: _World) -> Iterator[Doubt]:
    for folder, problem in sorted(world.tree.unreadable.items()):
        path = _seen(world, folder)
        text = f"{path} cannot be read ({problem}): what in it uses runs is not known"
        yield Doubt(text, f"make it readable, or move it out of the workspace: `chmod u+rx {path}`")


def _notes(world: _World, runs: Iterable[str]) -> Iterator[str]:
    hosts = {place for run in runs if (place := world.tree.host(run)) is not None}
    for place in sorted(hosts & world.tree.foreign.keys()):
        yield f"{_seen(world, place)} is {world.tree.foreign[place]} of its own: its runs are left alone"
    for pattern in world.accepted.unused:
        yield f"--accept {pattern} names no run that could go"


def _seen(world: _World, path: str) -> str:
    return seen_from(path, world.project.prefix)
