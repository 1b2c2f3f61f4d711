"""A merge in which both sides registered: numbers taken twice, labels moved on both sides, and ``dvc.lock``.

Everything is worked out from the two sides' commits and the commit that they come from, not from the files in which
git left its marks, so that it may be run again until the merge is committed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pygit2

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, UsageError
from holdfast.registry.cards_files import facts_in_use
from holdfast.registry.cards_markdown import CardError
from holdfast.registry.document import EntryError
from holdfast.registry.entries import MODEL_FILE, VERSION_NAME, Model, Version, parse_version
from holdfast.registry.history import RegistryHistory
from holdfast.registry.objects import Stores
from holdfast.registry.resolving_beside import Files, merge_beside, merge_cards, merge_signatures
from holdfast.registry.resolving_trees import (
    MISSING,
    SIDES,
    NoMergeError,
    Side,
    Sides,
    entry_of,
    other_side,
    three_ways,
)
from holdfast.registry.store import Registry
from holdfast.registry.writing import dump_version, edit_fields, plain_deprecations, quoted
from holdfast.repo.dvcfiles import LOCK_FILE
from holdfast.repo.git_commands import add_to_index, run_git
from holdfast.repo.workspace import Project

__all__ = ["AliasConflictError", "NoMergeError", "Renumbered", "Resolution", "Side", "resolve_merge"]
_STAGE = re.compile(r"  (?P<name>\S.*):")


class AliasConflictError(HoldfastError):
    """An alias was moved on both sides: people decide."""


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
        notes: what is left to do, and what went.
        gone: files that were removed, from the git root.
    """

    renumbered: tuple[Renumbered, ...]
    current: Mapping[str, str]
    stages: tuple[str, ...]
    files: tuple[str, ...]
    notes: tuple[str, ...]
    gone: tuple[str, ...] = ()


def resolve_merge(
    project: Project, stores: Stores, *, prefer: Side | None = None, aliases: Mapping[str, str] | None = None
) -> Resolution:
    """Mend what a merge, rebase or cherry-pick left of the registry, and add it to the index; committing is git's.

    A number that both sides took stays with the side whose version is tagged (``app/name@v3.0.0``), else the one that
    the upstream branch has, else ours; the other version gets the next free number, and its signature goes along.
    ``current``, where both sides moved it, and stages of ``dvc.lock`` that both changed, go with that side. What lies
    beside the stable path is that of the version which is current; cards and READMEs are made anew, and what people
    wrote in them is merged. The stable file is brought from the cache where it is there.

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
        self._sides = Sides(project)
        self._files: Files = {}
        self._renumbered: list[Renumbered] = []
        self._conflicts: list[str] = []
        self._current: dict[str, str] = {}
        self._current_side: dict[str, Side] = {}
        self._notes: list[str] = []
        self._side: Side = prefer or "ours"

    def run(self) -> Resolution:
        for model_id in sorted(self._sides.model_ids("ours") & self._sides.model_ids("theirs")):
            if self._sides.differ(model_id):
                self._merge_model(model_id)
        stages = self._merge_lock()
        if self._conflicts:
            raise AliasConflictError(
                f"aliases were moved on both sides: {'; '.join(self._conflicts)}",
                hint="Decide: `holdfast registry resolve --alias NAME=VERSION`, with the versions' new numbers",
            )
        for model_id, name in self._current.items():
            side = self._current_side[model_id]
            self._files |= merge_beside(self._sides, self._version(model_id, name), side)
        self._write(self._files)
        self._write_cards()
        self._restore_stable_files()
        written = sorted(path for path, data in self._files.items() if data is not None)
        gone = sorted(path for path, data in self._files.items() if data is None)
        return Resolution(
            tuple(self._renumbered), self._current, tuple(stages), tuple(written), tuple(self._notes), tuple(gone)
        )

    def _write(self, files: Files) -> None:
        root = self._project.git_root
        for path, content in files.items():
            if content is None:
                (root / path).unlink(missing_ok=True)
            else:
                write_atomically(root / path, content)
        known = [path for path in files if files[path] is not None or run_git(root, "ls-files", "--", path)]
        add_to_index(root, [root / path for path in known])

    def _write_cards(self) -> None:
        """Once the registry can be read again."""
        registry, history = Registry(self._project.root), RegistryHistory(self._project)
        facts = {}
        try:
            for model_id, name in self._current.items():
                model, there = registry.model(model_id), partial(self._at, self._current_side[model_id])
                facts[model_id] = facts_in_use(self._project.root, history, model, model.named(name), there)
            cards: Files = {}
            for path, text in merge_cards(self._sides, registry, facts):
                if text is None:
                    self._notes.append(f"people wrote into {path} on both sides: mend it by hand, and `git add` it")
                else:
                    cards[path] = text
        except (CardError, EntryError) as error:
            self._notes.append(f"cards and READMEs are as git left them: {error.message}")
            return
        self._write(cards)
        self._files |= cards

    def _at(self, side: Side, path: str) -> bytes | None:
        return self._sides.data(side, self._sides.path(path))

    def _merge_model(self, model_id: str) -> None:
        ours, theirs = self._sides.model("ours", model_id), self._sides.model("theirs", model_id)
        assert ours is not None
        assert theirs is not None
        base = self._sides.model("base", model_id)
        old = {version.name for version in base.versions} if base else set()
        mine = {version.name: version for version in ours.versions}
        other = {version.name: version for version in theirs.versions}
        taken = [name for name in mine if name in other and name not in old and mine[name] != other[name]]
        moved: dict[Side, dict[str, str]] = {"ours": {}, "theirs": {}}
        used = {int(name[1:]) for name in (*mine, *other, *ours.removed, *theirs.removed)}
        decided: list[tuple[Version, Version, Side, str]] = []
        for name in sorted(taken, key=lambda name: int(name[1:])):
            keeper, why = self._keeper(model_id, {"ours": mine[name], "theirs": other[name]})
            loser = other_side(keeper)
            self._side = keeper
            kept, lost = (mine[name], other[name]) if keeper == "ours" else (other[name], mine[name])
            self._files[self._place(model_id, name)] = self._sides.blob(keeper, model_id, f"{name}.yaml")
            new = name
            if kept.weights != lost.weights:
                new = f"v{max(used) + 1}"
                used.add(int(new[1:]))
                moved[loser][name] = new
                self._files[self._place(model_id, new)] = dump_version(replace(lost, name=new)).encode()
            self._renumbered.append(Renumbered(model_id, name, new, loser, why))
            decided.append((kept, lost, keeper, new))
        removed = {*ours.removed, *theirs.removed}
        present = {*mine, *other} - (removed - set(taken))
        for side, model in (("ours", ours), ("theirs", theirs)):
            for version in model.versions:
                path = self._place(model_id, version.name)
                there = path in self._files or (self._project.git_root / path).exists()
                gone = ours.removed if side == "theirs" else theirs.removed
                if version.name not in taken and not there and version.name not in gone:
                    self._files[path] = self._sides.blob(_side(side), model_id, f"{version.name}.yaml")
        keeper = self._prefer or self._side
        files, notes = merge_signatures(self._sides, model_id, decided, present, keeper)
        self._files |= files
        self._notes += notes
        self._merge_labels(model_id, base, _renamed(ours, moved["ours"]), _renamed(theirs, moved["theirs"]))

    def _merge_labels(self, model_id: str, base: Model | None, ours: Model, theirs: Model) -> None:
        start = base or Model(model_id, "", None, {}, ())
        keeper = self._prefer or self._side
        changes: dict[str, Any] = {}
        merged, clash = three_ways(start.current, ours.current, theirs.current)
        current = (ours if keeper == "ours" else theirs).current if clash else merged
        if current != ours.current:
            changes["current"] = current
        aliases: dict[str, str] = {}
        for alias in dict.fromkeys([*ours.aliases, *theirs.aliases]):
            values = [model.aliases.get(alias, MISSING) for model in (start, ours, theirs)]
            value, clash = three_ways(*values)
            if clash:
                value = self._aliases.get(f"{model_id}@{alias}", self._aliases.get(alias, MISSING))
                if value is MISSING:
                    told = [("off" if item is MISSING else f"on {item}") for item in values]
                    self._conflicts.append(
                        f"{alias} of {model_id} was {told[0]}, is {told[1]} here and {told[2]} there"
                    )
                    continue
                if not VERSION_NAME.fullmatch(value):
                    raise UsageError(f"{value!r} is no version", hint="--alias NAME=v3")
            if value is not MISSING:
                aliases[alias] = value
        if aliases != dict(ours.aliases):
            changes["aliases"] = aliases
        deprecations = {}
        for name in dict.fromkeys([*ours.deprecations, *theirs.deprecations]):
            values = [model.deprecations.get(name, MISSING) for model in (start, ours, theirs)]
            value, clash = three_ways(*values)
            value = values[1] if clash else value
            if value is not MISSING:
                deprecations[name] = value
        if deprecations != dict(ours.deprecations):
            changes["deprecations"] = plain_deprecations(deprecations)
        shut = [start.protected, ours.protected, theirs.protected]
        names = sorted({*ours.protected, *theirs.protected})
        protected = [alias for alias in names if three_ways(*(alias in side for side in shut))[0]]
        if protected != sorted(ours.protected):
            changes["protected"] = protected
        removed = {**ours.removed, **theirs.removed}
        if removed != dict(ours.removed):
            changes["removed"] = {name: quoted(day) for name, day in removed.items()}
        place = f"{self._sides.place}/{model_id}/{MODEL_FILE}"
        content = self._sides.blob("ours", model_id, MODEL_FILE)
        self._files[place] = edit_fields(content, changes, place) if changes else content
        if current is not None:
            self._current[model_id] = current
            on = [side for side, model in (("ours", ours), ("theirs", theirs)) if model.current == current]
            self._current_side[model_id] = _side(on[0]) if len(on) == 1 else keeper

    def _keeper(self, model_id: str, versions: Mapping[Side, Version]) -> tuple[Side, str]:
        """Which side keeps a number that both took, and why."""
        if self._prefer is not None:
            return self._prefer, "as was asked for"
        # imported here: with GTO 0.2 s, for a number that was taken twice alone
        from holdfast.registry.tags import gto_name, gto_version
        from holdfast.registry.tags_gto import version_tag

        repository = self._sides.repository
        name = gto_name(self._project, model_id)
        for side, commit in self._sides.commits.items():
            tag = version_tag(name, gto_version(name, versions[side]))
            try:
                tagged = repository.lookup_reference(f"refs/tags/{tag}").peel(pygit2.Commit)
            except (KeyError, ValueError, pygit2.GitError):
                continue
            if commit.id == tagged.id or repository.descendant_of(commit.id, tagged.id):
                return side, f"the tag {tag} is on that side"
        upstream = self._sides.upstream()
        if upstream is not None:
            file = self._place(model_id, versions["ours"].name)
            blob = entry_of(upstream.tree, file)
            for side in reversed(SIDES):
                if blob is not None and blob == entry_of(self._sides.commits[side].tree, file):
                    return side, "the upstream branch has it"
        return "ours", "it is ours"

    def _merge_lock(self) -> list[str]:
        """``dvc.lock``, stage by stage; the stages that both sides changed."""
        path = self._sides.path(LOCK_FILE)
        texts = [
            (self._sides.data(state, path) or b"").decode("utf-8", "replace") for state in ("base", "ours", "theirs")
        ]
        if texts[1] == texts[2] or not texts[1] or not texts[2]:
            return []
        (_, base), (head, ours), (_, theirs) = (_stages(text) for text in texts)
        side = self._prefer or self._side
        both, blocks = [], {}
        for name in dict.fromkeys([*ours, *theirs]):
            values = [blocks_of.get(name, MISSING) for blocks_of in (base, ours, theirs)]
            value, clash = three_ways(*values)
            if clash:
                both.append(name)
                value = values[1] if side == "ours" else values[2]
            if value is not MISSING:
                blocks[name] = value
        text = head + "".join(blocks.values())
        for model_id, name in self._current.items():
            text = self._with_current(text, model_id, name)
        self._files[path] = text.encode()
        return both

    def _with_current(self, text: str, model_id: str, name: str) -> str:
        """The lock with the current version's bytes at its path."""
        version = self._version(model_id, name)
        entry = re.compile(
            rf"(    - path: {re.escape(version.path)}\n      hash: md5\n      md5: )(\S+)(\n      size: )(\d+)"
        )
        found = entry.search(text)
        if found is None or found[2] == version.oid:
            return text
        self._notes.append(f"{LOCK_FILE} has the bytes of {model_id}@{name} now; see `dvc status`")
        return entry.sub(lambda match: f"{match[1]}{version.oid}{match[3]}{version.size}", text)

    def _version(self, model_id: str, name: str) -> Version:
        """A version as it will be."""
        place = self._place(model_id, name)
        content = self._files.get(place) or (self._project.git_root / place).read_bytes()
        return parse_version(content.decode("utf-8-sig"), name, place)

    def _place(self, model_id: str, name: str) -> str:
        return f"{self._sides.place}/{model_id}/{name}.yaml"

    def _restore_stable_files(self) -> None:
        for model_id, name in self._current.items():
            version = self._version(model_id, name)
            if self._stores.in_cache(version.oid):
                self._stores.write(version, self._project.root / version.path)
            else:
                self._notes.append(
                    f"{version.path} is not in the cache: `dvc checkout {version.path}` after `dvc fetch`"
                )


def _renamed(model: Model, names: Mapping[str, str]) -> Model:
    """The model of a side with its versions' new names in its labels."""
    return replace(
        model,
        current=None if model.current is None else names.get(model.current, model.current),
        aliases={alias: names.get(target, target) for alias, target in model.aliases.items()},
        deprecations={names.get(name, name): item for name, item in model.deprecations.items()},
    )


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


def _side(name: str) -> Side:
    return "theirs" if name == "theirs" else "ours"
