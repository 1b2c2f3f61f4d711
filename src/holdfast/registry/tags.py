"""Git tags for what the registry says: which are missing, at which commits, and writing and sending them.

A version ``v3`` is the tag ``app/name@v3.0.0``, an alias that was put on it ``app/name#production#7``. GTO knows a
version by its commit, so that each version of a model needs a commit of its own. It is the oldest of the branch at
which DVC gets the version's bytes by the artifact's name, else the one that brought the version.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

from holdfast.errors import HoldfastError, UsageError
from holdfast.registry import FOLDER
from holdfast.registry.artifacts import MODEL_TYPE, Artifact
from holdfast.registry.entries import Model, Version
from holdfast.registry.history import RegistryHistory
from holdfast.registry.store import Registry
from holdfast.registry.tags_gto import GtoTags, TaggedModel, can_be_named, stage_tag, version_tag
from holdfast.registry.tags_places import Branch
from holdfast.repo.dvcfiles import PIPELINE_FILE
from holdfast.repo.workspace import Project

Kind = Literal["version", "alias", "taken off", "removed"]
# GTO orders a stage's tags by their second alone
LONGEST_WAIT_SECONDS = 2.0
# git takes a tag's second from a clock that Linux moves on with its ticks alone, at most 10 ms apart: a second that has
# just begun is not there yet
TICK_SECONDS = 0.02
# the key in a version's source by which one that came from a tag is known again
TAG_SOURCE = "tag"


class TagPushError(HoldfastError):
    """Tags could not be sent to a git remote."""


@dataclass(frozen=True)
class NewTag:
    """A tag to make.

    Attributes:
        name: of the tag.
        kind: what it says: that a version or an alias is there, or no more.
        model: ``app/name``.
        version: ``v3``.
        alias: empty where it is about a version.
        commit: 40 hex digits.
        not_before: seconds since 1970; GTO takes an older tag of the alias for the newer one until then.
    """

    name: str
    kind: Kind
    model: str
    version: str
    alias: str
    commit: str
    not_before: float = 0.0


@dataclass(frozen=True)
class TagPlan:
    """What there is to tag.

    Attributes:
        tags: in the order in which to make them.
        waiting: what cannot be tagged before something else is done, each with what that is.
        notes: what GTO will not show as the registry has it, each with the reason.
        existing: tags in GTO's form of this registry's models.
    """

    tags: tuple[NewTag, ...]
    waiting: tuple[str, ...]
    notes: tuple[str, ...]
    existing: tuple[str, ...]


def wanted_artifacts(registry: Registry) -> dict[str, Artifact]:
    """What ``artifacts:`` should say of the models that have a current version, by their names.

    Raises:
        EntryError: a file of the registry is broken.
    """
    found = {}
    for model in registry.models():
        version = model.version(model.current or "")
        if version is not None and can_be_named(model.id):
            found[model.id] = Artifact(version.path, MODEL_TYPE, model.description)
    return found


def plan_tags(project: Project, gto: GtoTags, model_id: str | None = None) -> TagPlan:
    """The tags that the checked-out commit's registry lacks; nothing is written.

    Args:
        project: whose.
        gto: the repository's tags.
        model_id: of one model; None for all.

    Raises:
        UsageError: there is no commit, or it has no such model.
        TagError: tags contradict each other.
        UnreadableRefError: git's history cannot be read.
    """
    return _Planner(project, gto, model_id).plan()


def write_tags(
    plan: TagPlan,
    gto: GtoTags,
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Make the tags of a plan, each annotated.

    Where an older tag of an alias is of this very second, the next second is waited for.

    Raises:
        TagError: a tag cannot be made; those before it are there.
    """
    for tag in plan.tags:
        missing = tag.not_before + TICK_SECONDS - clock()
        if 0 < missing <= LONGEST_WAIT_SECONDS:
            wait(missing)
        gto.write(tag.name, tag.commit, message_of(tag))


def message_of(tag: NewTag) -> str:
    """The tag's message."""
    told = {
        "version": f"Register {tag.model}@{tag.version}",
        "removed": f"Remove {tag.model}@{tag.version}",
        "alias": f"Put {tag.alias} on {tag.model}@{tag.version}",
        "taken off": f"Take {tag.alias} off {tag.model}@{tag.version}",
    }
    return told[tag.kind]


def push_tags(project: Project, names: list[str], remote: str | None = None) -> tuple[str, list[str]]:
    """Send tags to a git remote, all or none; those that it has are left alone.

    Args:
        project: whose.
        names: the tags.
        remote: its name; None for that of the branch's upstream, else ``origin``.

    Returns:
        The remote, and the tags that were sent.

    Raises:
        TagPushError: the remote cannot be reached, refuses, or has one of the names at another commit.
    """
    import git  # imported here: 60 ms for those who push alone

    runner = git.Git(str(project.git_root))
    try:
        remote = remote or _upstream(runner)
        listed = [line.split("\t") for line in str(runner.ls_remote("--tags", "--refs", remote)).splitlines()]
        there = {name.removeprefix("refs/tags/"): commit for commit, name in listed}
        missing = [name for name in names if name not in there]
        for name in (name for name in names if name in there):
            if str(runner.rev_parse(f"refs/tags/{name}")) != there[name]:
                hint = f"Somebody else tagged: `git tag -d {name}`, `git fetch {remote} --tags`, and tag again"
                raise TagPushError(f"{remote} has another tag {name}", hint=hint)
        if missing:
            runner.push("--atomic", "--quiet", remote, *(f"refs/tags/{name}" for name in missing))
    except git.exc.GitCommandError as error:
        told = " ".join(str(error.stderr).split()).removeprefix("stderr: ").strip("' ")
        hint = "The tags are here: `holdfast registry tag --push` sends them later"
        raise TagPushError(f"the tags cannot be sent to {remote}: {told}", hint=hint) from error
    return remote, missing


def gto_name(project: Project, model_id: str) -> str:
    """A model's name in tags: with the folder of its ``dvc.yaml`` where that is not git's own."""
    return f"{project.prefix}:{model_id}" if project.prefix else model_id


def gto_version(name: str, version: Version) -> str:
    """``v3.0.0`` for ``v3``; for a version that was imported from a tag of this name what that says.

    Args:
        name: the model's, as of `gto_name`.
        version: of that model.
    """
    told = version.source.get(TAG_SOURCE, "")
    own = version_tag(name, "")
    return told.removeprefix(own) if told.startswith(own) else f"{version.name}.0.0"


class _Planner:
    def __init__(self, project: Project, gto: GtoTags, model_id: str | None) -> None:
        self._project, self._gto = project, gto
        self._history = RegistryHistory(project)
        moment = self._history.at(datetime.max.replace(tzinfo=timezone.utc), model_id)
        if moment is None:
            raise UsageError("there is no commit to tag", hint="`git commit` the registry first")
        if model_id is not None and not moment.models:
            Registry(project.root).model(model_id)  # says what there is
            raise UsageError(f"{model_id} is not committed", hint="Commit it first: tags are put on commits")
        self._models = moment.models
        self._branch = Branch(project, moment.commit)
        self._tags: list[NewTag] = []
        self._waiting: list[str] = []
        self._notes: list[str] = [f"passed over: {note}" for note in self._history.notes]
        self._known = gto.read()

    def plan(self) -> TagPlan:
        self._uncommitted()
        existing: list[str] = []
        ids = set(self._branch.ids)
        for model in self._models:
            name = gto_name(self._project, model.id)
            if not can_be_named(name):
                self._notes.append(f"{name} is no name for GTO, which ends names with a letter or digit")
                continue
            tagged = self._known.get(name, TaggedModel(name))
            existing += [tag for tag, commit in tagged.tags if commit in ids]
            commits = self._plan_versions(model, tagged)
            self._plan_aliases(model, tagged, commits)
        return TagPlan(tuple(self._tags), tuple(self._waiting), tuple(self._notes), tuple(existing))

    def _plan_versions(self, model: Model, tagged: TaggedModel) -> dict[str, str]:
        """The commit of each version that is tagged, or will be."""
        commits: dict[str, str] = {}
        missing: list[Version] = []
        for version in model.versions:
            found = tagged.version(gto_version(tagged.name, version))
            if found is None:
                missing.append(version)
            elif not found.active:
                self._notes.append(f"{model.id}@{version.name}: a tag says that {found.name} was taken back")
            else:
                commits[version.name] = found.commit
                self._compare(model, version, found.commit)
        for name in model.removed:
            found = tagged.version(f"{name}.0.0")
            if found is not None and found.active:
                tag = version_tag(tagged.name, found.name, removed=True)
                self._tags.append(NewTag(tag, "removed", model.id, name, "", found.commit))
        used = {item.commit: item.name for item in tagged.versions if item.registered}
        places = self._branch.places(model, missing)
        waiting = self._head_lacks(model)
        order = sorted(missing, key=lambda version: (not places[version.name].served, version.number))
        chosen: dict[str, str] = {}
        for version in order:
            place = places[version.name]
            reference = f"{model.id}@{version.name}"
            if not place.served and place.at_head and waiting:
                self._waiting.append(f"{reference} waits for the commit of {PIPELINE_FILE}, by which DVC finds it")
                continue
            options = place.served[::-1] or range(place.first, -1, -1)
            free = [commit for number in options if (commit := self._branch.ids[number]) not in used]
            if not free:
                holder = used[self._branch.ids[options[0]]]
                self._waiting.append(f"{reference} waits for the next commit: GTO has {holder} at this one")
                continue
            chosen[version.name] = free[0]
            used[free[0]] = gto_version(tagged.name, version)
            if not place.served:
                self._notes.append(
                    f"{reference}: at its commit DVC has no such artifact; `holdfast registry get` works"
                )
        for version in missing:
            if version.name in chosen:
                tag = version_tag(tagged.name, gto_version(tagged.name, version))
                self._tags.append(NewTag(tag, "version", model.id, version.name, "", chosen[version.name]))
        return commits | chosen

    def _plan_aliases(self, model: Model, tagged: TaggedModel, commits: Mapping[str, str]) -> None:
        counter = tagged.counter
        for alias, name in sorted(model.aliases.items()):
            version = model.version(name)
            reference = f"{alias} of {model.id}"
            if version is None or tagged.stages.get(alias) == gto_version(tagged.name, version):
                continue
            if not can_be_named(tagged.name, alias):
                self._notes.append(f"{reference} is no name for GTO, which ends names with a letter or digit")
            elif self._gto.allowed is not None and alias not in self._gto.allowed:
                self._notes.append(f"{reference} is not among the stages that .gto allows")
            elif name not in commits:
                # of a version that a tag took back there will be no other
                told = self._notes if tagged.version(gto_version(tagged.name, version)) is not None else self._waiting
                told.append(f"{reference} waits for the tag of {name}")
            else:
                counter += 1
                tag = stage_tag(tagged.name, alias, counter)
                when = _next_second(tagged, alias)
                self._tags.append(NewTag(tag, "alias", model.id, name, alias, commits[name], when))
        for alias in sorted(tagged.stages.keys() - model.aliases.keys()):
            if not self._ever_had(model.id, alias):
                holder = tagged.stages[alias]
                self._notes.append(f"{model.id}: GTO has {alias} on {holder}, which this registry never had")
                continue
            # what is taken off one version alone would show on the version that had it before
            for item in (item for item in tagged.versions if alias in item.stages):
                counter += 1
                tag = stage_tag(tagged.name, alias, counter, removed=True)
                name = next((v.name for v in model.versions if gto_version(tagged.name, v) == item.name), item.name)
                when = _next_second(tagged, alias)
                self._tags.append(NewTag(tag, "taken off", model.id, name, alias, item.commit, when))

    def _compare(self, model: Model, version: Version, commit: str) -> None:
        """Say so where a tag is at a commit that does not have the version."""
        if TAG_SOURCE in version.source:
            return  # the tag was there before the version
        data = self._history.file_at(commit, f"{FOLDER}/{model.id}/{version.name}.yaml")
        ours = self._history.file_at("HEAD", f"{FOLDER}/{model.id}/{version.name}.yaml")
        if data != ours:
            name = gto_name(self._project, model.id)
            tag = version_tag(name, gto_version(name, version))
            self._notes.append(f"{model.id}@{version.name}: the tag {tag} is at a commit without this {version.name}")

    def _head_lacks(self, model: Model) -> bool:
        """Whether the checked-out commit's ``dvc.yaml`` does not say where the model's current version is."""
        current = model.version(model.current or "")
        return current is not None and not self._branch.names(self._branch.line[0], model.id, current.path)

    def _ever_had(self, model_id: str, alias: str) -> bool:
        changes = self._history.changes(model_id)
        return any(event.kind == "label" and event.label == alias for change in changes for event in change.events)

    def _uncommitted(self) -> None:
        registry = Registry(self._project.root)
        here = set(registry.model_ids())
        for model in self._models:
            now = registry.model(model.id, partial=True) if model.id in here else None
            if now is None or (now.versions, now.aliases) != (model.versions, model.aliases):
                self._waiting.append(f"{model.id} was changed since the last commit: commit it first")


def _next_second(tagged: TaggedModel, alias: str) -> float:
    newest = tagged.newest.get(alias)
    return 0.0 if newest is None else math.floor(newest) + 1.0


def _upstream(runner: object) -> str:
    import git  # see push_tags

    assert isinstance(runner, git.Git)
    try:
        branch = str(runner.symbolic_ref("--quiet", "--short", "HEAD"))
        return str(runner.config("--get", f"branch.{branch}.remote")) or "origin"
    except git.exc.GitCommandError:
        return "origin"
