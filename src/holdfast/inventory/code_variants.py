"""Groups of modules that are variants of one another: which is canonical, which is in use, which is legacy, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from holdfast.errors import HoldfastError
from holdfast.inventory.code_imports import Use, find_uses, module_parts
from holdfast.inventory.code_likeness import find_affixes, find_clusters, name_words
from holdfast.inventory.code_modules import INIT, PRODUCTION_ROLES, CodeTree, read_code

Status = Literal["canonical", "active", "alternative", "legacy"]
ActionKind = Literal["fallback", "import", "re-export", "config", "decide"]

# what one importing file says for a module: production code uses it, code that production reaches, other code
PRODUCTION_WEIGHT = 3.0
REACHED_WEIGHT = 2.0
CONFIG_WEIGHT = 2.0
LIBRARY_WEIGHT = 1.0
RE_EXPORT_WEIGHT = 0.5
# tests, fall-backs, and variants that are not canonical themselves
WEAK_WEIGHT = 0.2
# scores this near to one another are equal, and names decide
TIE = 0.9
ROUNDS = 4


class NoModuleError(HoldfastError):
    """A module that was named is none of the tree's."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A module of a group.

    Args:
        path: from the root.
        status: ``canonical``; ``active`` where production code uses it beside the canonical one; ``alternative`` where
            other code does, or where nothing tells which one is canonical; ``legacy``.
        reasons: why, in words.
        score: the weights of its importers, summed.
        lines: of its text.
        classes: top-level ones.
        uses: the places that use it.
        changed: the day of its last commit, empty where git does not know it.
    """

    path: str
    status: Status
    reasons: tuple[str, ...]
    score: float
    lines: int
    classes: tuple[str, ...]
    uses: tuple[Use, ...]
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Variants of one thing, the canonical one first.

    Args:
        name: the words that all names share.
        variants: at least two.
        content: how alike the contents of the two that differ most are, from 0 to 1.
        certain: whether anything tells which one is canonical.
    """

    name: str
    variants: tuple[Variant, ...]
    content: float
    certain: bool

    @property
    def canonical(self) -> Variant:
        """The one to keep."""
        return self.variants[0]


@dataclass(frozen=True, slots=True)
class Action:
    """A place to change.

    Args:
        file: where.
        cell: of a notebook.
        line: from 1.
        kind: ``fallback``, ``import``, ``re-export``, ``config``; ``decide`` for production code that uses an active
            variant, which may be meant.
        module: what it uses.
        canonical: what it should.
        names: what it takes from the module.
        text: what is wrong and what to do, in words.
    """

    file: str
    cell: int | None
    line: int
    kind: ActionKind
    module: str
    canonical: str
    names: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        """``file:line``, or ``file[cell]:line``."""
        return f"{self.file}[{self.cell}]:{self.line}" if self.cell is not None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class VariantReport:
    """All groups of a tree, and what to change; ``modules`` counts those that were read."""

    groups: tuple[Group, ...]
    actions: tuple[Action, ...]
    modules: int
    notebooks: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``."""
        return asdict(self)


def find_variants(root: Path, *, canonical: Sequence[str] = ()) -> VariantReport:
    """The groups of variants below ``root``, judged by who uses them.

    Args:
        root: a folder of code.
        canonical: modules that are canonical whatever their use, by path from ``root`` or dotted name.

    Raises:
        NoModuleError: one of ``canonical`` is no module of the tree.
    """
    tree = read_code(root)
    return judge(tree, find_uses(tree), canonical=canonical)


def judge(tree: CodeTree, uses: Sequence[Use], *, canonical: Sequence[str] = ()) -> VariantReport:
    """The same, of a tree that has been read already."""
    forced = frozenset(_find_module(tree, name) for name in canonical)
    clusters = find_clusters(tree.modules)
    members = [frozenset(cluster.paths) for cluster in clusters]
    changed = last_changes(tree.root, [path for group in members for path in group])
    judge_ = _Judge(tree, uses, members, forced, changed)
    groups = [judge_.group(frozenset(cluster.paths), cluster.content) for cluster in clusters]
    moving = frozenset(v.path for group in groups if group.certain for v in group.variants if v.status == "legacy")
    actions = [action for group in groups if group.certain for action in _actions(group, moving)]
    actions.sort(key=lambda action: (action.kind == "decide", action.file, action.cell or 0, action.line))
    return VariantReport(tuple(groups), tuple(actions), len(tree.modules), len(tree.notebooks), tuple(tree.notes))


def last_changes(root: Path, paths: Sequence[str]) -> dict[str, str]:
    """The day (ISO) of the last commit of each file that git knows; empty outside of a repository."""
    # imported here: 50 ms, which callers without a repository need not pay
    import git

    if not paths:
        return {}
    result: dict[str, str] = {}
    day = ""
    try:
        # one walk for all: a line with the day of a commit, then the paths that it changed
        log = git.Git(root).log("--relative", "--name-only", "--no-renames", "-z", "--format=%x01%cs", "--", *paths)
    except (git.exc.GitCommandError, git.exc.GitCommandNotFound):
        return {}
    for item in log.split("\0"):
        for line in item.split("\n"):
            if line.startswith("\1"):
                day = line[1:]
            elif line:
                result.setdefault(line, day)
    return result


def _find_module(tree: CodeTree, name: str) -> str:
    path = name.removeprefix("./")
    if path in tree.modules:
        return path
    wanted = tuple(name.split("."))
    found = [path for path in tree.modules if module_parts(path)[-len(wanted) :] == wanted]
    if len(found) != 1:
        reason = "several modules have that name" if found else "no module has that name"
        raise NoModuleError(f"{name}: {reason}", hint="Name it by its path from the folder, such as package/module.py")
    return found[0]


class _Judge:
    """Scores modules by their users; users that turn out not to be canonical count little, so it goes round."""

    def __init__(
        self,
        tree: CodeTree,
        uses: Sequence[Use],
        members: Sequence[frozenset[str]],
        forced: frozenset[str],
        changed: Mapping[str, str],
    ) -> None:
        self._tree = tree
        self._uses: dict[str, list[Use]] = {}
        for use in uses:
            self._uses.setdefault(use.module, []).append(use)
        self._group_of = {path: group for group in members for path in group}
        self._affixes = find_affixes(module.name for module in tree.modules.values())
        self._forced = forced
        self._changed = changed
        self._chosen: dict[str, str] = {}  # member -> the canonical one of its group
        self._reached: frozenset[str] = self._reach()
        for _ in range(ROUNDS):
            chosen = {path: self._best(group) for group in members for path in group}
            if chosen == self._chosen:
                break
            self._chosen = chosen
            self._reached = self._reach()

    def group(self, paths: frozenset[str], content: float) -> Group:
        """The verdict on a group."""
        best = self._best(paths)
        # what packages export and tests try says nothing about which one is meant
        certain = best in self._forced or any(self._is_real(use) for use in self._uses.get(best, ()))
        variants = [self._variant(path, best, certain) for path in paths]
        order = {"canonical": 0, "active": 1, "alternative": 2, "legacy": 3}
        variants.sort(key=lambda variant: (order[variant.status], -variant.score, variant.path))
        words = [name_words(self._tree.modules[path].name) for path in sorted(paths)]
        shared = [word for word in words[0] if all(word in other for other in words)]
        return Group(" ".join(shared), tuple(variants), round(content, 2), certain)

    def _best(self, paths: frozenset[str]) -> str:
        scores = {path: self._score(path) for path in paths}
        top = max(scores.values())
        named = [path for path in paths if path in self._forced]
        candidates = named or [path for path in paths if scores[path] >= TIE * top]
        return min(candidates, key=self._preference)

    def _preference(self, path: str) -> tuple[int, int, float, int, str]:
        """Of equals: the one without affixes, that its package exports, used most, longest, first."""
        words = name_words(self._tree.modules[path].name)
        exported = any(use.kind == "re-export" for use in self._uses.get(path, ()))
        affixed = sum(word in self._affixes for word in words)
        return (affixed, -exported, -self._score(path), -self._tree.modules[path].lines, path)

    def _score(self, path: str) -> float:
        best: dict[str, float] = {}
        for use in self._uses.get(path, ()):
            best[use.file] = max(best.get(use.file, 0.0), self._weight(use))
        return round(sum(best.values()), 2)

    def _weight(self, use: Use) -> float:
        if use.role == "archived" or use.file in self._group_of.get(use.module, ()):
            return 0.0
        if use.kind == "fallback" or use.role == "test":
            return WEAK_WEIGHT
        if use.kind == "config":
            return CONFIG_WEIGHT
        if use.kind == "re-export":
            return RE_EXPORT_WEIGHT
        if self._is_passed_over(use.file):
            return WEAK_WEIGHT
        if use.role in PRODUCTION_ROLES:
            return PRODUCTION_WEIGHT
        return REACHED_WEIGHT if use.file in self._reached else LIBRARY_WEIGHT

    def _is_passed_over(self, file: str) -> bool:
        chosen = self._chosen.get(file)
        return chosen is not None and chosen != file and not self._is_used(file)

    def _is_used(self, path: str) -> bool:
        """Whether production code uses it directly, and not as a fall-back."""
        return any(self._is_real(use) and use.role in PRODUCTION_ROLES for use in self._uses.get(path, ()))

    def _is_real(self, use: Use) -> bool:
        outside = use.file not in self._group_of.get(use.module, ())
        return outside and use.kind not in ("fallback", "re-export") and use.role not in ("archived", "test")

    def _reach(self) -> frozenset[str]:
        """The files that production code runs, fall-backs and passed-over variants left out."""
        onward: dict[str, list[str]] = {}
        start = set()
        for module, uses in self._uses.items():
            for use in uses:
                if use.kind in ("import", "tried", "through package"):
                    onward.setdefault(use.file, []).append(module)
                    if use.role in PRODUCTION_ROLES:
                        start.add(use.file)
        stack = [file for file in start if not self._is_passed_over(file)]
        seen = set(stack)
        while stack:
            for module in onward.get(stack.pop(), ()):
                if module not in seen and not self._is_passed_over(module):
                    seen.add(module)
                    stack.append(module)
        return frozenset(seen)

    def _variant(self, path: str, best: str, certain: bool) -> Variant:
        module = self._tree.modules[path]
        uses = self._uses.get(path, [])
        real = [use for use in uses if self._is_real(use) and not self._is_passed_over(use.file)]
        status: Status
        if path == best:
            status = "canonical"
        elif any(use.role in PRODUCTION_ROLES for use in real):
            status = "active"
        elif real or not certain or self._own_names(path, best):
            status = "alternative"
        else:
            status = "legacy"
        reasons = self._reasons(path, best, real, certain)
        return Variant(
            path,
            status,
            tuple(reasons),
            self._score(path),
            module.lines,
            module.classes,
            tuple(uses),
            self._changed.get(path, ""),
        )

    def _own_names(self, path: str, best: str) -> list[str]:
        """What packages export from a module and its canonical variant has under no like name."""
        exported = {name for use in self._uses.get(path, ()) if use.kind == "re-export" for name in use.names}
        offered = {self._plain(name) for name in self._tree.modules[best].offers}
        return sorted(name for name in exported if self._plain(name) not in offered)

    def _plain(self, name: str) -> str:
        return "".join(word for word in name_words(name) if word not in self._affixes) or name

    def _reasons(self, path: str, best: str, real: list[Use], certain: bool) -> list[str]:
        uses = self._uses.get(path, [])
        reasons = []
        if path in self._forced:
            reasons.append("named canonical")
        elif not certain:
            reasons.append(
                "nothing but exports and tests tells which one is meant: the plainest name, then the longest"
            )
        production = sorted({use.file for use in real if use.role in PRODUCTION_ROLES})
        other = sorted({use.file for use in real if use.role not in PRODUCTION_ROLES and use.kind != "config"})
        configured = sorted({use.file for use in real if use.kind == "config"})
        if production:
            reasons.append(f"used by {_listed(production)}")
        if other:
            canonical = [file for file in other if self._chosen.get(file) == file]
            reasons.append(f"imported by {_listed(other)}" + (", canonical itself" if canonical else ""))
        if configured:
            reasons.append(f"named in {_listed(configured)}")
        for kind, words in (("fallback", "only a fall-back in {}"), ("re-export", "exported by {}")):
            files = sorted({use.file for use in uses if use.kind == kind})
            if files:
                reasons.append((words if not real else words.replace("only a", "a")).format(_listed(files)))
        inner = sorted({use.file for use in uses if self._is_passed_over(use.file)} - set(production))
        if inner and not real:
            reasons.append(f"imported by {_listed(inner)}, not canonical either")
        tests = sorted({use.file for use in uses if use.role == "test"})
        if tests and not real:
            reasons.append(f"tested by {_listed(tests)}")
        if path != best and (own := self._own_names(path, best)):
            reasons.append(f"has {_listed(own)}, which {_short(best)} has not")
        if not reasons and path != best:
            reasons.append("nothing imports it")
        return reasons


def _listed(files: Sequence[str], most: int = 2) -> str:
    shown = ", ".join(files[:most])
    return f"{shown} and {len(files) - most} more" if len(files) > most else shown


def _actions(group: Group, moving: frozenset[str]) -> Iterable[Action]:
    canonical = group.canonical.path
    for variant in group.variants[1:]:
        for use in dict.fromkeys(variant.uses):
            if use.role == "archived" or use.file in moving or use.kind == "through package":
                continue
            kind: ActionKind = use.kind if use.kind in ("fallback", "re-export", "config") else "import"
            if variant.status == "active" and kind != "fallback":
                kind = "decide"
            elif use.file in {other.path for other in group.variants}:
                continue  # variants that import one another
            yield Action(
                use.file,
                use.cell,
                use.line,
                kind,
                variant.path,
                canonical,
                use.names,
                _sentence(kind, variant, canonical, use),
            )


def _sentence(kind: ActionKind, variant: Variant, canonical: str, use: Use) -> str:
    name, wanted = _short(variant.path), _short(canonical)
    return {
        "fallback": f"falls back to {name} when an import fails: use {wanted} alone",
        "import": f"imports {name}: use {wanted}",
        "re-export": f"exports from {name}: export from {wanted}",
        "config": f"names {use.text or name}: name {wanted}",
        "decide": f"uses {name} beside {wanted}: keep it on purpose, or move over",
    }[kind]


def _short(path: str) -> str:
    parts = module_parts(path)
    return parts[-1] if parts and not path.endswith(f"/{INIT}") else ".".join(parts)
