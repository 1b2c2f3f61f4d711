"""What of a workspace could go together: folders of copies, caches of tools, files that lie twice or unused."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from holdfast.gc.workspace_rules import Patterns
from holdfast.gc.workspace_tree import Tree, parents_of, whole_folders
from holdfast.gc.workspace_uses import Uses, folders_between, is_within
from holdfast.inventory.cleanup import Removal
from holdfast.inventory.copies import BACKUP_SUFFIXES, CACHE_SUFFIXES, cache_folder, is_cache
from holdfast.inventory.models import ScanReport
from holdfast.repo.workspace import CONFIG_FILE

UnitKind = Literal["declared", "copies", "cache", "duplicate", "orphan", "secondary", "unreferenced"]
# only people can say whether such files are needed
OPINIONS: frozenset[UnitKind] = frozenset({"secondary", "unreferenced"})
# these go only where each byte of them stays elsewhere
COPIES: frozenset[UnitKind] = frozenset({"copies", "duplicate", "orphan"})

PYCACHE, CHECKPOINTS = "__pycache__", ".ipynb_checkpoints"
# byte code as Python and numba write it, also what a writer that was killed left
_BYTE_CODE = re.compile(r".*\.(?:pyc|pyo|nbi|nbc)(?:\.\d+)?$")
_CHECKPOINT = re.compile(r"(?P<name>.+)-checkpoint(?P<suffix>\.[^.]+)?$")


@dataclass
class Unit:
    """Files that go or stay together.

    Attributes:
        kind: what they are.
        path: the folder, or the one file.
        files: from the git root, ordered.
        why: what speaks for their going.
        users: places that would break.
        alone: files whose bytes are known to be nowhere else.
        undecided: why only people can tell, where that is so for a single unit.
        riders: caches of tools in the folder, which go with it.
        is_named: nothing but the folder's name says that it holds copies.
    """

    kind: UnitKind
    path: str
    files: list[str]
    why: str
    users: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    undecided: str = ""
    riders: list[str] = field(default_factory=list)
    is_named: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether its path is that of a folder."""
        return self.files != [self.path]

    @property
    def folders(self) -> set[str]:
        """The folders that may be named for it: its own, and of what may go in part those in it, too."""
        inner = self.files if self.kind == "declared" else ()
        return {self.path, *(folder for label in inner for folder in folders_between(label, self.path))}


def make_units(tree: Tree, scan: ScanReport, removals: Sequence[Removal], declared: Patterns) -> list[Unit]:
    """All that could go, each file in one unit at most; what people declared comes first.

    Args:
        tree: what lies there.
        scan: the inventory of models.
        removals: what a clean-up found in it.
        declared: what ``holdfast.yaml`` says may go.
    """
    taken: set[str] = set()
    units: list[Unit] = []
    for unit in (
        *_declared(tree, declared),
        *(unit for removal in removals for unit in _of_removal(tree, scan, removal)),
        *_orphans(tree, scan),
    ):
        unit.files = [label for label in unit.files if label in tree.files and label not in taken]
        taken.update(unit.files)
        if unit.files:
            units.append(unit)
    return list(_with_riders(units))


def _declared(tree: Tree, patterns: Patterns) -> Iterator[Unit]:
    named = [label for label in tree.files if patterns.names(label)]
    for path, files in sorted(whole_folders(tree, named, ()).items()):
        yield Unit("declared", path, files, "holdfast.yaml says under workspace.remove that it may go")


def part_declared(unit: Unit, uses: Uses) -> Iterator[Unit]:
    """What people declared without what of it is used, and each such file by itself; a folder of copies is a whole."""
    if unit.kind != "declared":
        yield unit
        return
    folders = {place for label in unit.files for place in folders_between(label, unit.path)}
    named = {place: uses.of(place, [place]) for place in (*unit.files, *folders)}
    known = {user for users in named.values() for user in users}
    for folder in folders:
        # a line that goes on to something in the folder, and nobody can tell to what
        named[folder] += [user for user in uses.places.get(f"{folder}/", ()) if user not in known]
    rest = []
    for label in unit.files:
        around = (label, *folders_between(label, unit.path))
        if users := sorted({user for place in around for user in named[place] if not is_within(user, unit.path)}):
            yield Unit(unit.kind, label, [label], unit.why, users)
        else:
            rest.append(label)
    if rest:
        yield Unit(unit.kind, unit.path, rest, unit.why, riders=unit.riders)


def _of_removal(tree: Tree, scan: ScanReport, removal: Removal) -> Iterator[Unit]:
    if removal.kind == "copies":
        why = f"a folder of copies: {removal.why}"
        named = any(folder.path == removal.what and folder.sign == "name" for folder in scan.copies)
        # the rules that call it a backup need nothing of it
        users = [place for place in removal.users if posixpath.basename(place.rpartition(":")[0]) != CONFIG_FILE]
        alone = list(removal.alone)
        yield Unit("copies", removal.what, list(removal.files), why, users, alone, is_named=named)
    elif removal.kind == "cache":
        yield from _caches(tree, removal.files)
    else:
        for path in removal.files:
            yield Unit(removal.kind, path, [path], removal.why, _users(scan, path))


def _users(scan: ScanReport, path: str) -> list[str]:
    references = scan.references.references if scan.references is not None else ()
    return [place.place for place in references if not place.is_mention and path in place.targets]


def _caches(tree: Tree, files: Iterable[str]) -> Iterator[Unit]:
    """The caches of tools, folder by folder; what does not come again by itself apart."""
    folders: dict[str, list[str]] = {}
    for label in files:
        if problem := _stays_away(tree, label):
            yield Unit("cache", label, [label], f"in the cache of a tool: {problem}", undecided=problem)
        else:
            kind = cache_folder(label)
            folder = label[: f"/{label}".index(f"/{kind}/") + len(kind)] if kind else label
            folders.setdefault(folder, []).append(label)
    for folder, members in sorted(folders.items()):
        yield Unit("cache", folder, sorted(members), "tools make it again")


def _stays_away(tree: Tree, label: str) -> str:
    """Why a tool would not make a file again; empty where it does."""
    folder, _, name = label.rpartition("/")
    inner = PurePosixPath(folder).name
    if inner == PYCACHE:
        return "" if _BYTE_CODE.match(name) else "it is no byte code"
    if inner == CHECKPOINTS:
        match = _CHECKPOINT.match(name)
        original = PurePosixPath(folder).parent / f"{match['name']}{match['suffix'] or ''}" if match else None
        return "" if original is not None and original.as_posix() in tree.files else "its original is gone"
    if cache_folder(label) is None and label.endswith(CACHE_SUFFIXES):
        # a module without its source is imported from here
        return "" if f"{label.rpartition('.')[0]}.py" in tree.files else "its source is gone"
    return ""


def _orphans(tree: Tree, scan: ScanReport) -> Iterator[Unit]:
    """Single files that are copies by their names; what only a word in a model's name says is said of models alone."""
    models = {model.path for model in scan.of("backup") if model.link is None}
    for label in sorted(tree.files):
        if (label in models or label.lower().endswith(BACKUP_SUFFIXES)) and not is_cache(label):
            yield Unit("orphan", label, [label], "its name says that it is a copy")


def _with_riders(units: Sequence[Unit]) -> Iterator[Unit]:
    """The units, with caches that lie in a folder of another unit as its riders."""
    hosts = {unit.path: unit for unit in units if unit.kind in ("copies", "declared") and unit.is_folder}
    for unit in units:
        host = next((hosts[place] for place in parents_of(unit.path) if place in hosts), None)
        if unit.kind == "cache" and not unit.undecided and host is not None:
            host.riders += unit.files
        else:
            yield unit
