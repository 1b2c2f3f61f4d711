"""A merge in which both sides registered: numbers taken twice, labels moved on both sides, and ``dvc.lock``.

Everything is worked out from the two sides' commits and the commit that they come from, not from the files in which
git left its marks, so that it may be run again until the merge is committed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pygit2

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, UsageError
from holdfast.registry.entries import MODEL_FILE, VERSION_NAME, Model, parse_model, parse_version
from holdfast.registry.objects import Stores
from holdfast.registry.store import FOLDER
from holdfast.registry.writing import dump_version, edit_fields, plain_deprecations, quoted
from holdfast.repo.dvcfiles import LOCK_FILE
from holdfast.repo.git_commands import add_to_index
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project

Side = Literal["ours", "theirs"]
THEIR_HEADS = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REBASE_HEAD", "REVERT_HEAD")
_STAGE = re.compile(r"  (?P<name>\S.*):")
_MISSING: Any = object()


class AliasConflictError(HoldfastError):
    """An alias was moved on both sides: people decide."""


class NoMergeError(UsageError):
    """No merge is under way."""


@dataclass(frozen=True)
class Renumbered:
    """A version that has another number now.

    Attributes:
        model: ``app/name``.
        before: its name on its side.
        after: its name now; the same where the other side had the same weights under that number.
        side: whose it was.
        why: why the other side keeps the number.
    """

    model: str
    before: str
    after: str
    side: Side
    why: str


@dataclass(frozen=True)
class Resolution:
    """What was mended.

    Attributes:
        renumbered: versions with another number.
        current: the version that each merged model's stable path has, by model.
        stages: stages of ``dvc.lock`` that both sides changed, which are as one side had them.
        files: what was written and added to the index, from the git root.
        notes: what is left to do.
    """

    renumbered: tuple[Renumbered, ...]
    current: Mapping[str, str]
    stages: tuple[str, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]


def resolve_merge(
    project: Project, stores: Stores, *, prefer: Side | None = None, aliases: Mapping[str, str] | None = None
) -> Resolution:
    """Mend what a merge, rebase or cherry-pick left of the registry, and add it to the index; committing is git's.

    A number that both sides took stays with the side whose version is tagged (``app/name@v3.0.0``), else the one that
    the upstream branch has, else ours; the other version gets the next free number. ``current``, where both sides
    moved it, and stages of ``dvc.lock`` that both changed, go with that side. The stable file is brought from the
    cache where it is there.

    Args:
        project: whose.
        stores: for the stable file.
        prefer: the side that keeps numbers, ``current`` and stages; None for the rule above.
        aliases: for aliases that both sides moved the version each is on: as ``app/name@alias``, or ``alias``.

    Raises:
        NoMergeError: no merge is under way.
        AliasConflictError: an alias was moved on both sides, and ``aliases`` does not say where; nothing is written.
        EntryError: a file of one side is broken; nothing is written.
        OSError: a file cannot be written.
    """
    return _Resolver(project, stores, prefer, dict(aliases or {})).run()


class _Resolver:
    def __init__(self, project: Project, stores: Stores, prefer: Side | None, aliases: dict[str, str]) -> None:
        self._project, self._stores, self._prefer, self._aliases = project, stores, prefer, aliases
        self._repository = open_repository(project.git_root)
        self._place = "/".join(part for part in (project.prefix, FOLDER) if part)
        head, theirs = self._head(), self._their_head()
        base = self._repository.merge_base(head.id, theirs.id)
        self._commits = {"ours": head, "theirs": theirs}
        self._base = None if base is None else self._repository[base].peel(pygit2.Commit)
        self._files: dict[str, bytes] = {}
        self._renumbered: list[Renumbered] = []
        self._conflicts: list[str] = []
        self._current: dict[str, str] = {}
        self._notes: list[str] = []
        self._side: Side = prefer or "ours"

    def run(self) -> Resolution:
        names = {side: self._model_ids(commit) for side, commit in self._commits.items()}
        for model_id in sorted(names["ours"] & names["theirs"]):
            if self._tree(self._commits["ours"], model_id) != self._tree(self._commits["theirs"], model_id):
                self._merge_model(model_id)
        stages = self._merge_lock()
        if self._conflicts:
            raise AliasConflictError(
                f"aliases were moved on both sides: {'; '.join(self._conflicts)}",
                hint="Decide: `holdfast registry resolve --alias NAME=VERSION`, with the versions' new numbers",
            )
        for path, content in self._files.items():
            write_atomically(self._project.git_root / path, content)
        self._restore_stable_files()
        add_to_index(self._project.git_root, [self._project.git_root / path for path in self._files])
        return Resolution(
            tuple(self._renumbered), self._current, tuple(stages), tuple(sorted(self._files)), tuple(self._notes)
        )

    def _merge_model(self, model_id: str) -> None:
        ours, theirs = self._model("ours", model_id), self._model("theirs", model_id)
        assert ours is not None
        assert theirs is not None
        base = self._model("base", model_id)
        old = {version.name for version in base.versions} if base else set()
        mine = {version.name: version for version in ours.versions}
        other = {version.name: version for version in theirs.versions}
        taken = [name for name in mine if name in other and name not in old and mine[name] != other[name]]
        moved: dict[Side, dict[str, str]] = {"ours": {}, "theirs": {}}
        used = {int(name[1:]) for name in (*mine, *other, *ours.removed, *theirs.removed)}
        for name in sorted(taken, key=lambda name: int(name[1:])):
            keeper, why = self._keeper(model_id, name)
            loser: Side = "theirs" if keeper == "ours" else "ours"
            self._side = keeper
            kept, lost = (mine[name], other[name]) if keeper == "ours" else (other[name], mine[name])
            self._files[f"{self._place}/{model_id}/{name}.yaml"] = self._blob(keeper, model_id, f"{name}.yaml")
            new = name
            if kept.weights != lost.weights:
                new = f"v{max(used) + 1}"
                used.add(int(new[1:]))
                moved[loser][name] = new
                text = dump_version(replace(lost, name=new))
                self._files[f"{self._place}/{model_id}/{new}.yaml"] = text.encode()
            self._renumbered.append(Renumbered(model_id, name, new, loser, why))
        for side, model in (("ours", ours), ("theirs", theirs)):
            for version in model.versions:
                path = f"{self._place}/{model_id}/{version.name}.yaml"
                if (
                    version.name not in taken
                    and path not in self._files
                    and not (self._project.git_root / path).exists()
                ):
                    gone = ours.removed if side == "theirs" else theirs.removed
                    if version.name not in gone:
                        self._files[path] = self._blob(side, model_id, f"{version.name}.yaml")
        self._merge_labels(model_id, base, _renamed(ours, moved["ours"]), _renamed(theirs, moved["theirs"]))

    def _merge_labels(self, model_id: str, base: Model | None, ours: Model, theirs: Model) -> None:
        start = base or Model(model_id, "", None, {}, ())
        keeper = self._prefer or self._side
        changes: dict[str, Any] = {}
        merged, clash = _three_ways(start.current, ours.current, theirs.current)
        current = (ours if keeper == "ours" else theirs).current if clash else merged
        if current != ours.current:
            changes["current"] = current
        aliases: dict[str, str] = {}
        for alias in dict.fromkeys([*ours.aliases, *theirs.aliases]):
            values = [model.aliases.get(alias, _MISSING) for model in (start, ours, theirs)]
            value, clash = _three_ways(*values)
            if clash:
                value = self._aliases.get(f"{model_id}@{alias}", self._aliases.get(alias, _MISSING))
                if value is _MISSING:
                    told = [("off" if item is _MISSING else f"on {item}") for item in values]
                    self._conflicts.append(
                        f"{alias} of {model_id} was {told[0]}, is {told[1]} here and {told[2]} there"
                    )
                    continue
                if not VERSION_NAME.fullmatch(value):
                    raise UsageError(f"{value!r} is no version", hint="--alias NAME=v3")
            if value is not _MISSING:
                aliases[alias] = value
        if aliases != dict(ours.aliases):
            changes["aliases"] = aliases
        deprecations = {}
        for name in dict.fromkeys([*ours.deprecations, *theirs.deprecations]):
            values = [model.deprecations.get(name, _MISSING) for model in (start, ours, theirs)]
            value, clash = _three_ways(*values)
            value = values[1] if clash else value
            if value is not _MISSING:
                deprecations[name] = value
        if deprecations != dict(ours.deprecations):
            changes["deprecations"] = plain_deprecations(deprecations)
        shut = [start.protected, ours.protected, theirs.protected]
        names = sorted({*ours.protected, *theirs.protected})
        protected = [alias for alias in names if _three_ways(*(alias in side for side in shut))[0]]
        if protected != sorted(ours.protected):
            changes["protected"] = protected
        removed = {**ours.removed, **theirs.removed}
        if removed != dict(ours.removed):
            changes["removed"] = {name: quoted(day) for name, day in removed.items()}
        place = f"{self._place}/{model_id}/{MODEL_FILE}"
        content = self._blob("ours", model_id, MODEL_FILE)
        self._files[place] = edit_fields(content, changes, place) if changes else content
        if current is not None:
            self._current[model_id] = current

    def _keeper(self, model_id: str, name: str) -> tuple[Side, str]:
        """Which side keeps a number, and why."""
        if self._prefer is not None:
            return self._prefer, "as was asked for"
        tag = f"{model_id}@{name}.0.0"
        try:
            tagged = self._repository.lookup_reference(f"refs/tags/{tag}").peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError):
            tagged = None
        for side, commit in self._commits.items():
            if tagged is not None and (commit.id == tagged.id or self._repository.descendant_of(commit.id, tagged.id)):
                return _side(side), f"the tag {tag} is on that side"
        upstream = self._upstream()
        if upstream is not None:
            blob = _entry(upstream.tree, f"{self._place}/{model_id}/{name}.yaml")
            for side in ("theirs", "ours"):
                if blob is not None and blob == _entry(
                    self._commits[side].tree, f"{self._place}/{model_id}/{name}.yaml"
                ):
                    return _side(side), "the upstream branch has it"
        return "ours", "it is ours"

    def _merge_lock(self) -> list[str]:
        """``dvc.lock``, stage by stage; the stages that both sides changed."""
        path = "/".join(part for part in (self._project.prefix, LOCK_FILE) if part)
        texts = [
            "" if commit is None else (_data(self._repository, commit.tree, path) or b"").decode("utf-8", "replace")
            for commit in (self._base, self._commits["ours"], self._commits["theirs"])
        ]
        if texts[1] == texts[2] or not texts[1] or not texts[2]:
            return []
        (_, base), (head, ours), (_, theirs) = (_stages(text) for text in texts)
        side = self._prefer or self._side
        both, blocks = [], {}
        for name in dict.fromkeys([*ours, *theirs]):
            values = [blocks_of.get(name, _MISSING) for blocks_of in (base, ours, theirs)]
            value, clash = _three_ways(*values)
            if clash:
                both.append(name)
                value = values[1] if side == "ours" else values[2]
            if value is not _MISSING:
                blocks[name] = value
        text = head + "".join(blocks.values())
        for model_id, name in self._current.items():
            text = self._with_current(text, model_id, name)
        self._files[path] = text.encode()
        return both

    def _with_current(self, text: str, model_id: str, name: str) -> str:
        """The lock with the current version's bytes at its path."""
        content = self._files.get(f"{self._place}/{model_id}/{name}.yaml")
        if content is None:
            content = (self._project.git_root / self._place / model_id / f"{name}.yaml").read_bytes()
        version = parse_version(content.decode("utf-8-sig"), name, f"{model_id}/{name}.yaml")
        entry = re.compile(
            rf"(    - path: {re.escape(version.path)}\n      hash: md5\n      md5: )(\S+)(\n      size: )(\d+)"
        )
        found = entry.search(text)
        if found is None or found[2] == version.oid:
            return text
        self._notes.append(f"{LOCK_FILE} has the bytes of {model_id}@{name} now; see `dvc status`")
        return entry.sub(lambda match: f"{match[1]}{version.oid}{match[3]}{version.size}", text)

    def _restore_stable_files(self) -> None:
        for model_id, name in self._current.items():
            file = self._project.git_root / self._place / model_id / f"{name}.yaml"
            version = parse_version(file.read_text(encoding="utf-8-sig"), name, str(file))
            if self._stores.in_cache(version.oid):
                self._stores.write(version, self._project.root / version.path)
            else:
                self._notes.append(
                    f"{version.path} is not in the cache: `dvc checkout {version.path}` after `dvc fetch`"
                )

    def _head(self) -> pygit2.Commit:
        if self._repository.head_is_unborn:
            raise NoMergeError("no merge is under way", hint="Run it between `git merge` and `git commit`")
        return self._repository.head.peel(pygit2.Commit)

    def _their_head(self) -> pygit2.Commit:
        folder = Path(self._repository.path)
        for name in THEIR_HEADS:
            if (folder / name).is_file():
                commit = (folder / name).read_text().split()[0]
                return self._repository[commit].peel(pygit2.Commit)
        raise NoMergeError("no merge is under way", hint="Run it between `git merge` and `git commit`")

    def _upstream(self) -> pygit2.Commit | None:
        try:
            branch = self._repository.branches.local[self._repository.head.shorthand]
            return branch.upstream.peel(pygit2.Commit) if branch.upstream is not None else None
        except (KeyError, pygit2.GitError):
            return None  # a detached head, as in a rebase: its `ours` is the upstream side

    def _model_ids(self, commit: pygit2.Commit) -> set[str]:
        found = set()
        top = _tree(commit.tree, self._place)
        for app in top or ():
            for name in app if isinstance(app, pygit2.Tree) else ():
                if isinstance(name, pygit2.Tree) and MODEL_FILE in name:
                    found.add(f"{app.name}/{name.name}")
        return found

    def _tree(self, commit: pygit2.Commit, model_id: str) -> pygit2.Oid | None:
        return _entry(commit.tree, f"{self._place}/{model_id}")

    def _model(self, side: str, model_id: str) -> Model | None:
        commit = self._base if side == "base" else self._commits[side]
        tree = None if commit is None else _tree(commit.tree, f"{self._place}/{model_id}")
        if tree is None or MODEL_FILE not in tree:
            return None
        versions = []
        for entry in tree:
            stem = str(entry.name).removesuffix(".yaml")
            if stem != entry.name and VERSION_NAME.fullmatch(stem) and isinstance(entry, pygit2.Blob):
                text = entry.data.decode("utf-8-sig", "replace")
                versions.append(parse_version(text, stem, f"{side}:{FOLDER}/{model_id}/{entry.name}"))
        ordered = tuple(sorted(versions, key=lambda version: version.number))
        text = self._blob(side, model_id, MODEL_FILE).decode("utf-8-sig", "replace")
        return parse_model(text, model_id, ordered, f"{side}:{FOLDER}/{model_id}/{MODEL_FILE}", partial=True)

    def _blob(self, side: str, model_id: str, name: str) -> bytes:
        commit = self._base if side == "base" else self._commits[side]
        assert commit is not None
        data = _data(self._repository, commit.tree, f"{self._place}/{model_id}/{name}")
        assert data is not None
        return data


def _renamed(model: Model, names: Mapping[str, str]) -> Model:
    """The model of a side with its versions' new names in its labels."""
    return replace(
        model,
        current=None if model.current is None else names.get(model.current, model.current),
        aliases={alias: names.get(target, target) for alias, target in model.aliases.items()},
        deprecations={names.get(name, name): item for name, item in model.deprecations.items()},
    )


def _three_ways(base: Any, ours: Any, theirs: Any) -> tuple[Any, bool]:
    """What both sides mean, and whether they differ in it."""
    if ours == theirs or theirs == base:
        return ours, False
    return (theirs, False) if ours == base else (ours, True)


def _stages(text: str) -> tuple[str, dict[str, str]]:
    """A ``dvc.lock`` as DVC writes it: what stands before the stages, and each stage's lines."""
    head: list[str] = []
    blocks: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if match := _STAGE.fullmatch(line.rstrip("\r\n")):
            name = match["name"]
            blocks[name] = []
        (blocks[name] if name else head).append(line if line.endswith("\n") else f"{line}\n")
    return "".join(head), {stage: "".join(lines) for stage, lines in blocks.items()}


def _entry(tree: pygit2.Tree, path: str) -> pygit2.Oid | None:
    try:
        return tree[path].id
    except KeyError:
        return None


def _tree(tree: pygit2.Tree, path: str) -> pygit2.Tree | None:
    try:
        found: object = tree[path]
    except KeyError:
        return None
    return found if isinstance(found, pygit2.Tree) else None


def _data(repository: pygit2.Repository, tree: pygit2.Tree, path: str) -> bytes | None:
    oid = _entry(tree, path)
    found: object = None if oid is None else repository[oid]
    return found.data if isinstance(found, pygit2.Blob) else None


def _side(name: str) -> Side:
    return "theirs" if name == "theirs" else "ours"
