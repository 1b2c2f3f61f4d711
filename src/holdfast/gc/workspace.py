"""The workspace: copies, caches, duplicates and models that nobody uses, as lines of a plan.

What is safe goes: nothing names it, and each of its bytes stays elsewhere or comes again. What would break a script,
is the only copy or is a matter of opinion stays, as a *decision*, until people name it.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from holdfast.formats.cache import DigestCache
from holdfast.gc.planned import SECONDS_A_DAY, Doubt, Found, PlannedObject, Tier
from holdfast.gc.policy import Policy
from holdfast.gc.workspace_bytes import Bytes
from holdfast.gc.workspace_rules import Patterns, WorkspaceRules, read_workspace_rules
from holdfast.gc.workspace_tree import Tree, parents_of, walk_tree, whole_folders
from holdfast.gc.workspace_units import COPIES, OPINIONS, Unit, make_units, part_declared
from holdfast.gc.workspace_uses import Uses, find_uses, is_within, read_pipelines, seen_from
from holdfast.inventory.cleanup import find_removals
from holdfast.inventory.config import read_config
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.run_verdicts import sort_folder
from holdfast.inventory.scan import ScanRules, read_scan_rules, scan_tree
from holdfast.inventory.scan_judge import Registered
from holdfast.registry import FOLDER
from holdfast.registry.store import Registry
from holdfast.repo.dvc import local_cache, local_remotes
from holdfast.repo.workspace import Project, find_config

# what Holdfast, git and DVC are told by; no pattern takes it away
OWN_FILES = frozenset({"holdfast.yaml", ".gitignore", ".gitattributes", ".gitmodules", ".dvcignore"})

Progress = Callable[[int, int], None]


@dataclass
class _World:
    project: Project
    policy: Policy
    now: datetime
    tree: Tree
    rules: WorkspaceRules
    bytes: Bytes
    uses: Uses
    accepted: Patterns
    kept: Patterns
    registered: frozenset[str]
    runs: frozenset[str]
    gone: set[str] = field(default_factory=set)

    @property
    def prefix(self) -> str:
        return self.project.prefix

    def age_days(self, files: Iterable[str]) -> float:
        newest = max(self.tree.files[label].changed for label in files)
        return round(max(0.0, self.now.timestamp() - newest) / SECONDS_A_DAY, 3)

    def is_young(self, files: Iterable[str]) -> bool:
        return self.age_days(files) * SECONDS_A_DAY < self.policy.minimum_age.total_seconds()

    def is_accepted(self, unit: Unit) -> bool:
        named = [label for label in unit.files if self.accepted.names(label)]
        return self.accepted.names_folder(unit.path) or len(named) == len(unit.files)

    def in_run(self, label: str) -> bool:
        return _in(label, self.runs)


def find_workspace(
    project: Project,
    policy: Policy,
    cache: DigestCache,
    *,
    now: datetime,
    accept: Sequence[str] = (),
    memory: ReferenceMemory | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Found:
    """What of a project's workspace could go, and what is to become of it; nothing is changed.

    Runs are left to their own scope, nested repositories and DVC's files to theirs.

    Args:
        project: whose.
        policy: what keeps things, and for how long.
        cache: what is known of files' content.
        now: when; has a time zone.
        accept: patterns, as in ``.gitignore`` and seen from the project, of what may go though it needs a decision.
        memory: what is known of sources.
        progress: called with bytes read and bytes to read, while models are read.

    Raises:
        UsageError: a pattern is none.
        holdfast.inventory.config.ConfigError: ``holdfast.yaml`` says something that Holdfast does not know.
        UnreadableDvcFileError: a DVC file cannot be read.
        DvcConfigError: DVC's configuration cannot be read.
        EntryError: a file of the registry is broken.
        OSError: the workspace cannot be listed.
    """
    root = project.git_root
    stores = stores_within(project)
    rules = read_workspace_rules(project.root, root)
    tree = walk_tree(root, project=project.prefix, closed=stores)
    pipelines = read_pipelines(tree)
    models = Registry(project.root).models()
    registered = [Registered(f"{m.id}@{v.name}", v.oid, v.weights) for m in models for v in m.versions]
    scanned = read_scan_rules(project.root)
    scan = scan_tree(
        root,
        cache,
        within=project.prefix,
        rules=ScanRules((*scanned.exclude, *map(_escaped, stores)), scanned.backup),
        registered=registered,
        memory=memory,
        progress=progress,
    )
    units = make_units(tree, scan, find_removals(scan, cache), Patterns(rules.remove, rules.folder))
    units = [unit for unit in units if not project.prefix or is_within(unit.path, project.prefix)]
    runs, leaving = _runs(project, now)
    named = [unit for unit in units if unit.kind not in ("cache", "secondary", "unreferenced", "duplicate")]
    uses = find_uses(
        tree,
        pipelines,
        [label for unit in named for label in unit.files],
        {folder for unit in named if unit.is_folder for folder in unit.folders},
        prefix=project.prefix,
        memory=memory,
    )
    world = _World(
        project=project,
        policy=policy,
        now=now,
        tree=tree,
        rules=rules,
        bytes=Bytes(tree, cache, lambda label: tree.owner(label) is None and not _in(label, leaving)),
        uses=uses,
        accepted=Patterns(accept, project.prefix),
        kept=Patterns(rules.keep, rules.folder),
        registered=frozenset(posixpath.join(project.prefix, v.path) for m in models for v in m.versions),
        runs=runs,
    )
    parted = [part for unit in units for part in part_declared(unit, uses)]
    objects = list(_with_last_copies(world, _decide_all(world, parted)))
    return Found(
        tuple(item.line for item in sorted(objects, key=lambda item: (-item.line.size, item.line.path))),
        tuple(_doubts(world)),
        (*scan.notes, *_notes(world)),
        (
            ("the rules for the workspace", hashlib.sha256(f"{rules.digest} {scanned!r}".encode()).hexdigest()),
            *accepted_uses(item.line for item in objects),
        ),
    )


def stores_within(project: Project) -> frozenset[str]:
    """Caches, remotes and vaults that lie in the workspace, from the git root; what is in ``.dvc`` is DVC's anyway.

    Raises:
        DvcConfigError: DVC's configuration cannot be read.
    """
    folders: list[Path] = [local_cache(project.root).folder, *local_remotes(project.root).values()]
    config = find_config(project.root)
    if config is not None and (url := read_config(config).section("vault").text("url", "")) and "://" not in url:
        folders.append((config.parent / url).resolve())
    root = project.git_root.resolve()
    return frozenset(
        folder.relative_to(root).as_posix() for folder in folders if folder != root and folder.is_relative_to(root)
    )


def accepted_uses(lines: Iterable[PlannedObject]) -> list[tuple[str, str]]:
    """The uses that people saw when they accepted what goes, each an input of the plan: more of them make it stale."""
    return [
        (f"what uses {line.path}", hashlib.sha256(json.dumps(line.users).encode()).hexdigest())
        for line in lines
        if line.tier == "remove" and line.users
    ]


@dataclass(frozen=True)
class _Item:
    """A line, and the files that it stands for."""

    line: PlannedObject
    files: tuple[str, ...]


def _decide_all(world: _World, units: Sequence[Unit]) -> list[_Item]:
    """The lines of all units. What people name goes first, so that no safe copy counts on its staying."""
    result: list[_Item] = []
    for accepted in (True, False):
        for unit in units:
            if world.is_accepted(unit) == accepted:
                result += _decide(world, unit, accepted)
    return result


def _decide(world: _World, unit: Unit, accepted: bool) -> Iterator[_Item]:
    own, kept = _sorted_out(world, unit)
    for (reason, why), files in kept.items():
        yield from _lines(world, unit, files, "keep", reason, why)
    if not own:
        return
    users = sorted({*unit.users, *(world.uses.of(unit.path, own) if unit.kind not in ("cache", "declared") else ())})
    reasons = _doubtful(world, unit, own)
    is_safe = not users and not reasons
    why = unit.why + (f"; {'; '.join(reasons)}" if reasons else "")
    if world.tree.unreadable and unit.kind != "cache":
        yield from _lines(world, unit, own, "keep", "undecided", f"{why}; not all folders could be read", users)
    elif not is_safe and not accepted:
        yield from _lines(world, unit, own, "keep", "decision", why, users)
    elif world.is_young(own):
        days = world.policy.minimum_age.total_seconds() / SECONDS_A_DAY
        yield from _lines(world, unit, own, "keep", "young", f"{why}; younger than {days:g} days", users)
    elif any(world.tree.changed_since(label) for label in own):
        yield from _lines(world, unit, own, "keep", "changed", f"{why}; it changed while it was looked at", users)
    else:
        told = why if is_safe else f"{why}; accepted"
        going = [*own, *(label for label in unit.riders if not world.kept.names(label))]
        world.gone.update(going)
        yield from _lines(world, unit, going, "remove", unit.kind, told + _git_text(world, going), users)


def _sorted_out(world: _World, unit: Unit) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
    """The files of a unit that may go, and those that somebody else has a say over, by reason and why."""
    own: list[str] = []
    kept: dict[tuple[str, str], list[str]] = {}
    for label in unit.files:
        if world.tree.owner(label) is not None or (unit.kind not in ("copies", "declared") and world.in_run(label)):
            continue
        if world.kept.names(label):
            kept.setdefault(("rule", "holdfast.yaml says under workspace.keep that it stays"), []).append(label)
        elif label.rpartition("/")[2] in OWN_FILES:
            kept.setdefault(("rule", "Holdfast, git and DVC are told by it"), []).append(label)
        elif (file := world.uses.pipelines.owner(label)) is not None:
            told = "it is a file of DVC's" if file == label else f"DVC has it by {seen_from(file, world.prefix)}"
            kept.setdefault(("dvc", f"{told}: `dvc remove` is for that"), []).append(label)
        elif _in(label, world.registered) or is_within(label, posixpath.join(world.prefix, FOLDER)):
            kept.setdefault(("registry", "the registry names it: `holdfast registry rm` is for that"), []).append(label)
        else:
            own.append(label)
    return own, kept


def _doubtful(world: _World, unit: Unit, own: Sequence[str]) -> list[str]:
    """What besides its uses makes a unit a matter for people, in words."""
    result = []
    mine = set(own)

    def stays(other: str) -> bool:
        return other not in mine and other not in world.gone

    if unit.kind in COPIES:
        alone = {*world.bytes.alone(own, stays)}
        alone |= {label for label in unit.alone if label in mine and not world.bytes.in_git(label)}
        if not alone and unit.is_named and world.bytes.by_git_alone(own, stays):
            result.append("git tracks it, and only its name speaks for it")
        if alone:
            count = f"{len(alone)} of {len(own)} files lie" if len(own) > 1 else "it lies"
            result.append(f"{count} nowhere else")
    if unit.kind == "duplicate" and not result and not _is_loose(world, own[0], stays):
        result.append("what lies beside it may need it")
    if unit.kind in OPINIONS:
        result.append("only people can tell")
    if unit.undecided:
        result.append("it does not come again")
    return result


def _is_loose(world: _World, label: str, stays: Callable[[str], bool]) -> bool:
    """Whether a duplicate is no part of what lies in its folder: its twin lies there, too, or nothing else does."""
    folder = label.rpartition("/")[0]
    beside = [other for other in world.tree.below(folder) if stays(other)] if folder else []
    if folder and not beside:
        return True
    return world.bytes.twin(label, lambda other: stays(other) and other.rpartition("/")[0] == folder) is not None


def _git_text(world: _World, files: Sequence[str]) -> str:
    tracked = sum(world.bytes.is_tracked(label) for label in files)
    if not tracked:
        return ""
    what = "it" if len(files) == 1 else "all" if tracked == len(files) else f"{tracked} of the files"
    return f"; git tracks {what}: `git status` will show that"


def _lines(
    world: _World,
    unit: Unit,
    files: Sequence[str],
    tier: Tier,
    reason: str,
    why: str,
    users: Sequence[str] = (),
) -> Iterator[_Item]:
    """As few lines as can be: a folder where all that lies in it is one line."""
    # what waits for people or time is not moved, and one line says as much
    together = not unit.is_folder or reason in ("decision", "young", "undecided", "changed")
    paths = {unit.path: list(files)} if together else whole_folders(world.tree, files, (unit.path,))
    for path, members in paths.items():
        size = sum(world.tree.files[label].size for label in members)
        places = tuple(seen_from(place, world.prefix) for place in users)
        seen, age = seen_from(path, world.prefix), world.age_days(members)
        line = PlannedObject("workspace", "", seen, size, age, tier, reason, why, users=places)
        yield _Item(line, tuple(members))


def _with_last_copies(world: _World, items: Iterable[_Item]) -> Iterator[_Item]:
    """The lines, with what is known of their bytes now that it is known what goes."""
    for item in items:
        if item.line.reason == "cache":
            yield item  # it is made again, whatever its bytes were
            continue
        gone = world.gone.union(item.files)
        yield _Item(item.line._replace(last_copy=world.bytes.has_last(item.files, _not_in(gone))), item.files)


def _not_in(gone: Container[str]) -> Callable[[str], bool]:
    return lambda label: label not in gone


def _runs(project: Project, now: datetime) -> tuple[frozenset[str], frozenset[str]]:
    """The folders of runs, and those that the scope of runs may take, from the git root."""
    found = {
        (item.run.path.resolve().relative_to(project.git_root.resolve()).as_posix()): item.verdict
        for item in sort_folder(project.root, now).runs
    }
    return frozenset(found), frozenset(path for path, verdict in found.items() if verdict != "keep")


def _doubts(world: _World) -> Iterator[Doubt]:
    for folder, problem in sorted(world.tree.unreadable.items()):
        path = seen_from(folder, world.prefix)
        text = f"{path} cannot be read ({problem}): what it uses is not known, and all but caches of tools is kept"
        yield Doubt(text, f"make it readable, or move it out of the workspace: `chmod u+rx {path}`")


def _notes(world: _World) -> Iterator[str]:
    for place, what in sorted(world.tree.foreign.items()):
        path = seen_from(place, world.prefix)
        told = "`holdfast --cd` there looks at it" if what == "a DVC project" else "it has its own history"
        yield f"{path} is {what} of its own and is left alone: {told}"
    for pattern in world.accepted.unused:
        yield f"--accept {pattern} names nothing that could go"


def _in(label: str, places: Container[str]) -> bool:
    return any(place in places for place in parents_of(label))


def _escaped(folder: str) -> str:
    """A folder as a pattern that names just it."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", folder) + "/"
