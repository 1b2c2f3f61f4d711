"""What the registry said before: every change of a label with its commit, and the state on a given day.

History is that of the checked-out branch, along first parents: what a merge brought counts from the merge on, since
that is when the branch had it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import pygit2

from holdfast.registry import FOLDER
from holdfast.registry.cache import fingerprint
from holdfast.registry.document import EntryError
from holdfast.registry.entries import CURRENT, MODEL_FILE, VERSION_NAME, Model, Version, parse_model, parse_version
from holdfast.registry.store import Registry
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project


@dataclass(frozen=True)
class Event:
    """One thing that a commit changed.

    Attributes:
        kind: ``registered``, ``removed``, ``label`` (current or an alias), ``deprecated``, ``protected``, ``broken``.
        label: of a label its name.
        before: the version that it was on; of a version itself; None where there was none.
        after: the version that it is on now.
        note: why, where the registry says so.
    """

    kind: str
    label: str = ""
    before: str | None = None
    after: str | None = None
    note: str = ""

    @property
    def text(self) -> str:
        """In words."""
        if self.kind == "label":
            if self.before is None:
                return f"{self.label} set to {self.after}"
            if self.after is None:
                return f"{self.label} taken off {self.before}"
            return f"{self.label} {self.before} → {self.after}"
        told = f"{self.after or self.before or self.label} {self.kind}"
        return f"{told}: {self.note}" if self.note else told


@dataclass(frozen=True)
class Change:
    """What a commit changed of a model.

    Attributes:
        model: ``app/name``.
        commit: 40 hex digits; empty for what is not committed yet.
        date: of the commit, ISO 8601 in UTC; empty where it is not committed.
        author: who made it.
        subject: its first line.
        events: what changed, versions before labels.
    """

    model: str
    commit: str
    date: str
    author: str
    subject: str
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Moment:
    """The registry at a commit.

    Attributes:
        commit: 40 hex digits.
        date: of the commit, ISO 8601 in UTC.
        subject: its first line.
        models: in the order of their names.
        since: the commit, and its date, since which a label of a model was on its version, by (model, label).
    """

    commit: str
    date: str
    subject: str
    models: tuple[Model, ...]
    since: Mapping[tuple[str, str], tuple[str, str]]


@dataclass
class RegistryHistory:
    """Reads the registry out of git's trees; every distinct folder and file once.

    Args:
        project: whose.
    """

    project: Project
    notes: list[str] = field(default_factory=list)
    _versions: dict[tuple[str, pygit2.Oid], Version] = field(default_factory=dict)
    _models: dict[tuple[str, pygit2.Oid], Model | None] = field(default_factory=dict)
    _named: dict[pygit2.Oid, dict[str, pygit2.Oid]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._repository = open_repository(self.project.git_root)
        self._place = "/".join(part for part in (self.project.prefix, FOLDER) if part)

    def changes(self, model_id: str | None = None) -> list[Change]:
        """Every change of the models, or of one, newest first; what is not committed comes before all.

        Raises:
            EntryError: the registry in the workspace is broken. A broken one in history is an event.
            UnreadableRefError: git's history cannot be read.
        """
        result = list(self._uncommitted(model_id))
        for commit, older in self._steps():
            before = self._apps(older) if older is not None else {}
            for model, old, new in self._differences(before, self._apps(commit)):
                if model_id not in (None, model):
                    continue
                events = tuple(_events(self._model(model, old), self._model(model, new)))
                if new is not None and self._model(model, new) is None:
                    events = (Event("broken", label=f"{FOLDER}/{model}"),)
                if events:
                    made = (str(commit.id), _date(commit), commit.author.name, _subject(commit))
                    result.append(Change(model, *made, events))
        return result

    def at(self, moment: datetime, model_id: str | None = None) -> Moment | None:
        """The registry as the branch had it at a moment; None where the branch is younger.

        Raises:
            UnreadableRefError: git's history cannot be read.
        """
        limit = moment.timestamp()
        found = next((commit for commit in self._line() if commit.commit_time <= limit), None)
        if found is None:
            return None
        folders = self._folders(found)
        names = [name for name in sorted(folders) if model_id in (None, name)]
        models = [model for name in names if (model := self._model(name, folders[name])) is not None]
        return Moment(str(found.id), _date(found), _subject(found), tuple(models), self._since(found, models))

    def champions(self, model_id: str) -> list[str]:
        """The versions that the label ``production`` was on, else ``current``, newest first, each once.

        Raises:
            UnreadableRefError: git's history cannot be read.
        """
        names: dict[str, None] = {}
        last: pygit2.Oid | None = None
        for commit in self._line():
            folder = self._folders(commit).get(model_id)
            model = self._model(model_id, folder) if folder != last else None
            if model is not None and model.champion is not None:
                names[model.champion.name] = None
            last = folder
        return list(names)

    def introduced(self, model_id: str, name: str) -> str | None:
        """The commit that brought a version as it is now; None where it is not committed."""
        found: pygit2.Commit | None = None
        wanted: pygit2.Oid | None = None
        for commit in self._line():
            oid = self._version_oid(commit, model_id, name)
            if oid is None or (wanted is not None and oid != wanted):
                break
            found, wanted = commit, oid
        return None if found is None else str(found.id)

    def file_at(self, commit: str, path: str) -> bytes | None:
        """A file of a commit (or of ``HEAD``), by its path from the project's root; None where there is none."""
        place = "/".join(part for part in (self.project.prefix, path) if part)
        try:
            blob = self._repository.revparse_single(commit).peel(pygit2.Tree) / place
        except (KeyError, pygit2.GitError):
            return None
        return blob.data if isinstance(blob, pygit2.Blob) else None

    def _line(self) -> Iterator[pygit2.Commit]:
        if self._repository.head_is_unborn:
            return
        commit: pygit2.Commit | None = self._repository.head.peel(pygit2.Commit)
        while commit is not None:
            yield commit
            commit = commit.parents[0] if commit.parent_ids else None

    def _steps(self) -> Iterator[tuple[pygit2.Commit, pygit2.Commit | None]]:
        """Commits that changed the registry's folder, with the commit before each."""
        newer: pygit2.Commit | None = None
        for commit in self._line():
            if newer is not None and self._registry(newer) != self._registry(commit):
                yield newer, commit
            newer = commit
        if newer is not None and self._registry(newer) is not None:
            yield newer, None

    def _registry(self, commit: pygit2.Commit) -> pygit2.Oid | None:
        try:
            return commit.tree[self._place].id
        except KeyError:
            return None

    def _apps(self, commit: pygit2.Commit) -> dict[str, pygit2.Oid]:
        """The folder of each application."""
        oid = self._registry(commit)
        top = self._repository[oid] if oid is not None else None
        entries = top if isinstance(top, pygit2.Tree) else ()
        return {str(entry.name): entry.id for entry in entries if isinstance(entry, pygit2.Tree)}

    def _names(self, app: pygit2.Oid | None) -> dict[str, pygit2.Oid]:
        """The folder of each model of an application."""
        if app is None:
            return {}
        if app not in self._named:
            tree = self._repository[app]
            entries = tree if isinstance(tree, pygit2.Tree) else ()
            found = {str(entry.name): entry for entry in entries if isinstance(entry, pygit2.Tree)}
            self._named[app] = {name: entry.id for name, entry in found.items() if MODEL_FILE in entry}
        return self._named[app]

    def _folders(self, commit: pygit2.Commit) -> dict[str, pygit2.Oid]:
        """The folder of each model."""
        apps = self._apps(commit).items()
        return {f"{app}/{name}": oid for app, folder in apps for name, oid in self._names(folder).items()}

    def _differences(
        self, before: Mapping[str, pygit2.Oid], after: Mapping[str, pygit2.Oid]
    ) -> Iterator[tuple[str, pygit2.Oid | None, pygit2.Oid | None]]:
        """Models whose folders differ, with both."""
        for app in sorted({*before, *after}):
            if before.get(app) != after.get(app):
                old, new = self._names(before.get(app)), self._names(after.get(app))
                for name in sorted({*old, *new}):
                    if old.get(name) != new.get(name):
                        yield f"{app}/{name}", old.get(name), new.get(name)

    def _version_oid(self, commit: pygit2.Commit, model_id: str, name: str) -> pygit2.Oid | None:
        try:
            return commit.tree[f"{self._place}/{model_id}/{name}.yaml"].id
        except KeyError:
            return None

    def _model(self, model_id: str, oid: pygit2.Oid | None) -> Model | None:
        """A model's folder; None where there is none, or where it is broken."""
        if oid is None:
            return None
        key = (model_id, oid)
        if key not in self._models:
            self._models[key] = self._read(model_id, oid)
        return self._models[key]

    def _read(self, model_id: str, oid: pygit2.Oid) -> Model | None:
        versions = []
        content = b""
        try:
            for entry in self._repository[oid]:  # type: ignore[attr-defined]
                stem = str(entry.name).removesuffix(".yaml")
                if entry.name == MODEL_FILE:
                    content = entry.data
                elif stem != entry.name and VERSION_NAME.fullmatch(stem):
                    versions.append(self._version(stem, entry))
            ordered = tuple(sorted(versions, key=lambda version: version.number))
            return parse_model(content.decode("utf-8-sig"), model_id, ordered, f"{model_id}/{MODEL_FILE}", partial=True)
        except (EntryError, UnicodeDecodeError) as error:
            self.notes.append(" ".join(str(error).split()))
            return None

    def _version(self, name: str, blob: Any) -> Version:
        key = (name, blob.id)
        if key not in self._versions:
            self._versions[key] = parse_version(blob.data.decode("utf-8-sig"), name, f"{name}.yaml")
        return self._versions[key]

    def _since(self, start: pygit2.Commit, models: Sequence[Model]) -> dict[tuple[str, str], tuple[str, str]]:
        """For each label the oldest commit from which on it was where it is at ``start``."""
        wanted = {model.id: _labels(model) for model in models}
        result: dict[tuple[str, str], tuple[str, str]] = {}
        newer = start
        apps = self._apps(start)
        while any(wanted.values()):
            older = newer.parents[0] if newer.parent_ids else None
            before = apps if older is not None and self._registry(older) == self._registry(newer) else {}
            if older is not None and before is not apps:
                before = self._apps(older)
            for model_id, old, _ in self._differences(before, apps) if before is not apps else ():
                model = self._model(model_id, old)
                there = _labels(model) if model is not None else {}
                for label, name in list(wanted.get(model_id, {}).items()):
                    if there.get(label) != name:
                        result[model_id, label] = (str(newer.id), _date(newer))
                        del wanted[model_id][label]
            if older is None:
                break
            newer, apps = older, before
        order = [(model.id, label) for model in models for label in _labels(model)]
        return {key: result[key] for key in order if key in result}

    def _uncommitted(self, model_id: str | None) -> Iterator[Change]:
        registry = Registry(self.project.root)
        head = next(self._line(), None)
        folders = self._folders(head) if head is not None else {}
        here = set(registry.model_ids())
        for name in sorted(here | set(folders)):
            if model_id not in (None, name):
                continue
            now = registry.model(name, partial=True) if name in here and fingerprint(registry.folder / name) else None
            if events := tuple(_events(self._model(name, folders.get(name)), now)):
                yield Change(name, "", "", "", "", events)


def end_of(text: str) -> datetime:
    """The moment that a user means: the end of a day in UTC, or a time, in UTC where it names no other zone.

    Raises:
        ValueError: it is neither.
    """
    if len(text) == 10:
        text += "T23:59:59"
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _labels(model: Model) -> dict[str, str]:
    return {**({CURRENT: model.current} if model.current else {}), **model.aliases}


def _events(before: Model | None, after: Model | None) -> Iterator[Event]:
    old = {version.name: version for version in before.versions} if before else {}
    new = {version.name: version for version in after.versions} if after else {}
    yield from (Event("registered", after=name, note=new[name].overridden or "") for name in new if name not in old)
    yield from (Event("replaced", after=name) for name in new if name in old and new[name] != old[name])
    yield from (Event("removed", before=name) for name in old if name not in new)
    labels_before, labels_after = _labels(before) if before else {}, _labels(after) if after else {}
    for label in dict.fromkeys([*labels_before, *labels_after]):
        if labels_before.get(label) != labels_after.get(label):
            yield Event("label", label, labels_before.get(label), labels_after.get(label))
    gone = before.deprecations if before else {}
    come = after.deprecations if after else {}
    yield from (Event("deprecated", after=name, note=come[name].reason) for name in come if name not in gone)
    yield from (Event("no longer deprecated", after=name) for name in gone if name not in come and name in new)
    shut, open_ = set(before.protected) if before else set(), set(after.protected) if after else set()
    yield from (Event("protected", label=label) for label in sorted(open_ - shut))
    yield from (Event("no longer protected", label=label) for label in sorted(shut - open_))


def _date(commit: pygit2.Commit) -> str:
    return datetime.fromtimestamp(commit.commit_time, timezone.utc).isoformat().replace("+00:00", "Z")


def _subject(commit: pygit2.Commit) -> str:
    return commit.message.split("\n", 1)[0].strip()
