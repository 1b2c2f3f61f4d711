"""Git tags in GTO's form, read and written with GTO itself: what ``gto show``, DVC and its tools see."""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gto.base import Artifact, BaseRegistryState, Version
from gto.config import CONFIG_FILE_NAME, read_registry_config
from gto.constants import Action, VersionSort, fullname_re, name_re
from gto.exceptions import GTOException
from gto.tag import (
    TagArtifactManager,
    TagStageManager,
    TagVersionManager,
    create_tag,
    name_tag,
    parse_name,
)
from scmrepo.exceptions import SCMError
from scmrepo.git import Git

from holdfast.errors import HoldfastError
from holdfast.repo.git_commands import run_git

_IDENTITY = re.compile(r"(?P<name>.+) <(?P<email>[^>]*)> ")


class TagError(HoldfastError):
    """Tags in GTO's form contradict each other, or cannot be written."""


@dataclass(frozen=True)
class TaggedVersion:
    """A version that a tag names.

    Attributes:
        name: ``v3.0.0``; of a commit that has a stage and no version, its 40 hex digits.
        commit: 40 hex digits.
        date: of the tag.
        registered: whether a tag gives it a version.
        active: False where a later tag took the version back.
        stages: those that are assigned to it and were not taken off.
    """

    name: str
    commit: str
    date: dt.datetime
    registered: bool
    active: bool
    stages: tuple[str, ...]


@dataclass(frozen=True)
class TaggedModel:
    """An artifact that tags name.

    Attributes:
        name: as GTO has it: ``digits/classifier``, with ``folder:`` before it where its ``dvc.yaml`` is in a folder.
        versions: in the order of their versions, those without one last.
        stages: for each stage the version that ``gto show`` gives it.
        active: False where the artifact as a whole is deprecated.
        newest: seconds since 1970 of the newest tag of each stage.
        counter: the highest number behind a tag's second ``#``.
        tags: the tags themselves, each with its commit.
    """

    name: str
    versions: tuple[TaggedVersion, ...] = ()
    stages: Mapping[str, str] = field(default_factory=dict)
    active: bool = True
    newest: Mapping[str, float] = field(default_factory=dict)
    counter: int = 0
    tags: tuple[tuple[str, str], ...] = ()

    def version(self, name: str) -> TaggedVersion | None:
        """The registered version of that name, or None."""
        return next((item for item in self.versions if item.registered and item.name == name), None)


class GtoTags:
    """The tags of a git repository; made by `open_tags`.

    Attributes:
        allowed: the stages that the repository's ``.gto`` allows; None for all.
    """

    def __init__(self, scm: Git) -> None:
        self._scm = scm
        try:
            self._config = read_registry_config(str(Path(scm.root_dir) / CONFIG_FILE_NAME))
        except GTOException as error:
            raise TagError(f"{CONFIG_FILE_NAME} cannot be read by GTO: {error}", hint="Mend it by hand") from error
        self.allowed: frozenset[str] | None = None if self._config.stages is None else frozenset(self._config.stages)

    def read(self) -> dict[str, TaggedModel]:
        """Every artifact that annotated tags name, by its name.

        Raises:
            TagError: tags contradict each other.
        """
        state = BaseRegistryState()
        try:
            for manager in (TagArtifactManager, TagVersionManager, TagStageManager):
                state = manager(scm=self._scm, config=self._config).update_state(state)
            counters = self._counters()
            return {name: _model(name, item, counters.get(name, 0)) for name, item in state.artifacts.items()}
        except (GTOException, SCMError, KeyError, ValueError) as error:
            told = " ".join(str(error).split())
            raise TagError(f"git's tags cannot be read by GTO: {told}", hint="`gto history` says which") from error

    def write(self, name: str, commit: str, message: str) -> None:
        """Make an annotated tag.

        Raises:
            TagError: there is one of that name by now, or git cannot write it, or does not know who tags.
        """
        tagger, address = self._identity
        try:
            create_tag(self._scm, name, rev=commit, message=message, tagger=tagger, tagger_email=address)
        except (GTOException, SCMError, OSError) as error:
            told = " ".join(str(error).split())
            hint = "What is tagged stays: run `holdfast registry tag` again"
            raise TagError(f"the tag {name} cannot be made: {told}", hint=hint) from error

    @cached_property
    def _identity(self) -> tuple[str, str]:
        """Who tags: git is asked, because GTO's libraries do not read all the places in which it keeps that."""
        who = _IDENTITY.match(run_git(Path(self._scm.root_dir), "var", "GIT_COMMITTER_IDENT") or "")
        if who is None:
            hint = "`git config user.name NAME` and `git config user.email ADDRESS`"
            raise TagError("git does not know who makes the tags", hint=hint)
        return who["name"], who["email"]

    def _counters(self) -> dict[str, int]:
        counters: dict[str, int] = {}
        for tag in self._scm.list_tags():
            parsed = parse_name(tag, raise_on_fail=False)
            if "counter" in parsed:
                counters[parsed["name"]] = max(counters.get(parsed["name"], 0), parsed["counter"])
        return counters


@contextmanager
def open_tags(git_root: Path) -> Iterator[GtoTags]:
    """The tags of the repository at ``git_root``.

    Raises:
        TagError: GTO's configuration there is broken.
    """
    scm = Git(str(git_root))
    try:
        yield GtoTags(scm)
    finally:
        scm.close()  # type: ignore[no-untyped-call]


def version_tag(name: str, version: str, *, removed: bool = False) -> str:
    """The tag that registers a version (``v3.0.0``), or takes it back."""
    action = Action.DEREGISTER if removed else Action.REGISTER
    return str(name_tag(action, name, version=version, simple=True))


def stage_tag(name: str, stage: str, number: int, *, removed: bool = False) -> str:
    """The tag that puts a stage on a commit's version, or takes it off."""
    action = Action.UNASSIGN if removed else Action.ASSIGN
    return f"{name_tag(action, name, stage=stage, simple=True)}#{number}"


def can_be_named(name: str, stage: str | None = None) -> bool:
    """Whether GTO takes it for the name of an artifact, and of a stage."""
    if name_re.fullmatch(stage or "x") is None:
        return False
    return fullname_re.fullmatch(name) is not None


def _model(name: str, artifact: Artifact, counter: int) -> TaggedModel:
    # for a stage on a commit without a version GTO makes two, of which one is empty
    found = [item for item in artifact.get_versions(active_only=False, ascending=True) if _has_events(item)]
    versions = [
        TaggedVersion(
            item.version,
            item.commit_hexsha,
            item.created_at,
            item.is_registered,
            item.is_active,
            tuple(sorted(name for name, stage in item.stages.items() if stage.is_active)),
        )
        for item in found
    ]
    newest: dict[str, float] = {}
    for item in found:
        for stage, assigned in item.stages.items():
            times = [event.created_at.timestamp() for event in assigned.get_events()]
            newest[stage] = max([newest.get(stage, 0.0), *times])
    shown = artifact.get_vstages(sort=VersionSort.Timestamp)
    stages = {stage: items[0].version for stage, items in shown.items() if items}
    tags = tuple((str(event.ref), event.commit_hexsha) for event in artifact.get_events(ascending=True))
    return TaggedModel(name, tuple(versions), stages, artifact.is_active, newest, counter, tags)


def _has_events(version: Version) -> bool:
    events: list[object] = version.get_events()  # type: ignore[no-untyped-call]
    return bool(events)
