"""Whether two modules are variants of one another: by their names and by their content, never by one alone."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.inventory.code_modules import INIT, Module

# names alike so far, and content so far: variants
LIKELY_NAME, LIKELY_CONTENT = 0.5, 0.3
# names less alike, but then nearly the same content
FAINT_NAME, STRONG_CONTENT = 0.3, 0.6
# every two of a group are alike that far
LEAST_CONTENT = 0.2
PARALLEL_CONTENT = 0.8
AFFIX_WEIGHT = 0.1
LEAST_SHARED_MEMBERS = 2
# a word in more names than that tells no two of them together
MAX_BUCKET = 400

# words that people add to a name for another try at the same thing; others are found by evidence, see `find_affixes`
KNOWN_AFFIXES = frozenset(
    {"alt", "alternative", "backup", "bak", "basic", "beta", "clean", "copy", "deprecated", "draft", "experimental"}
    | {"final", "fix", "fixed", "improved", "legacy", "lite", "mini", "minimal", "new", "old", "optimised", "optimized"}
    | {"orig", "original", "patched", "rebuilt", "refactored", "rewritten", "simple", "stable", "standalone", "temp"}
    | {"tmp", "updated", "wip", "working"}
)
_VERSION = re.compile(r"v?\d+")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|v\d+")


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two modules are, each from 0 to 1."""

    name: float
    content: float

    @property
    def is_variant(self) -> bool:
        """Whether they are variants of one another."""
        return (self.name >= LIKELY_NAME and self.content >= LIKELY_CONTENT) or (
            self.name >= FAINT_NAME and self.content >= STRONG_CONTENT
        )


def name_words(name: str) -> tuple[str, ...]:
    """``rebuilt_graph_vae`` and ``RebuiltGraphVAE`` in lower-case words; ``v2`` is one."""
    return tuple(
        word.lower()
        for part in name.split("_")
        for word in ([part] if _VERSION.fullmatch(part) else _WORDS.findall(part))
    )


def find_affixes(names: Iterable[str]) -> frozenset[str]:
    """The words that make a name another try at a name: known ones, and those whose removal from the beginning or the
    end of a name leaves the whole name (of at least two words) of another module."""
    split = {name_words(name) for name in names}
    found = set(KNOWN_AFFIXES)
    for words in split:
        for word in words:
            if _VERSION.fullmatch(word):
                found.add(word)
        if len(words) > 2:
            if words[1:] in split:
                found.add(words[0])
            if words[:-1] in split:
                found.add(words[-1])
    return frozenset(found)


def name_likeness(one: str, other: str, affixes: frozenset[str]) -> float:
    """Shared words over all words of both names; affixes weigh a tenth."""
    left, right = set(name_words(one)), set(name_words(other))
    shared = sum(AFFIX_WEIGHT if word in affixes else 1.0 for word in left & right)
    if not any(word not in affixes for word in left & right):
        return 0.0
    return shared / sum(AFFIX_WEIGHT if word in affixes else 1.0 for word in left | right)


class ContentIndex:
    """Compares the content of modules; a member that many modules have weighs little."""

    def __init__(self, modules: Mapping[str, Module], affixes: frozenset[str]) -> None:
        self._affixes = affixes
        self._members = {path: self._normal(module) for path, module in modules.items()}
        self._spread = Counter(member for members in self._members.values() for member in members)
        self._modules = modules

    def likeness(self, one: str, other: str) -> float:
        """The larger of two shares of the smaller module: of its classes, functions and methods; of its shingles."""
        left, right = self._members[one], self._members[other]
        shared = left & right
        members = 0.0
        if len(shared) >= LEAST_SHARED_MEMBERS:
            members = self._weight(shared) / min(self._weight(left), self._weight(right))
        a, b = self._modules[one].shingles, self._modules[other].shingles
        shingles = len(a & b) / min(len(a), len(b)) if a and b else 0.0
        return min(1.0, max(members, shingles))

    def _weight(self, members: Iterable[str]) -> float:
        # two modules have it at least where it is shared
        return sum(1 / math.log2(max(2, self._spread[member])) for member in members)

    def _normal(self, module: Module) -> frozenset[str]:
        """Members with the affixes taken out of their names: ``GraphVAE`` for ``RebuiltGraphVAE``."""
        return frozenset(self._strip(member) for member in module.members)

    def _strip(self, member: str) -> str:
        if member.startswith("."):
            return member
        words = [word for word in name_words(member) if word not in self._affixes]
        return "".join(words) or member.lower()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Modules that are variants of one another: their paths, ordered, and the least likely content of two of them."""

    paths: tuple[str, ...]
    content: float


def find_clusters(modules: Mapping[str, Module]) -> list[Cluster]:
    """The groups of modules that are variants of one another, ordered by path.

    Likeliest pairs meet first; two groups become one only where each module of the one is like each of the other, so
    that no chain of small steps joins what has nothing in common. Packages' ``__init__``, tests and what is archived
    take no part.
    """
    chosen = {
        path: module
        for path, module in modules.items()
        if module.role not in ("archived", "test") and not path.endswith(INIT) and module.parsed
    }
    affixes = find_affixes(module.name for module in chosen.values())
    contents = ContentIndex(chosen, affixes)
    known: dict[tuple[str, str], Likeness] = {}

    def likeness(one: str, other: str) -> Likeness:
        key = (one, other) if one < other else (other, one)
        if key not in known:
            names = name_likeness(chosen[one].name, chosen[other].name, affixes)
            known[key] = Likeness(names, contents.likeness(one, other) if names >= FAINT_NAME else 0.0)
        return known[key]

    links = []
    for one, other in _candidates(chosen, affixes):
        found = likeness(one, other)
        # files of one name in two folders (`cuda/graphs`, `xpu/graphs`) do the same for two things, unless nearly equal
        apart = chosen[one].name == chosen[other].name and found.content < PARALLEL_CONTENT
        if found.is_variant and not apart:
            links.append((found.name * found.content, one, other))
    cluster_of: dict[str, frozenset[str]] = {}
    for _, one, other in sorted(links, key=lambda link: (-link[0], link[1], link[2])):
        left = cluster_of.get(one, frozenset({one}))
        right = cluster_of.get(other, frozenset({other}))
        pairs = [likeness(a, b) for a in left for b in right if a != b]
        if all(pair.name >= FAINT_NAME and pair.content >= LEAST_CONTENT for pair in pairs):
            for path in left | right:
                cluster_of[path] = left | right
    return [
        Cluster(tuple(sorted(paths)), min(likeness(a, b).content for a in paths for b in paths if a < b))
        for paths in sorted(set(cluster_of.values()), key=min)
    ]


def _candidates(modules: Mapping[str, Module], affixes: frozenset[str]) -> list[tuple[str, str]]:
    """Pairs that share a word of their names which is no affix."""
    buckets: dict[str, list[str]] = {}
    for path, module in sorted(modules.items()):
        for word in set(name_words(module.name)) - affixes:
            buckets.setdefault(word, []).append(path)
    return sorted(
        {
            (one, other)
            for paths in buckets.values()
            if len(paths) <= MAX_BUCKET
            for index, one in enumerate(paths)
            for other in paths[index + 1 :]
        }
    )
