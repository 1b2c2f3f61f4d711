"""What refers to the objects of a cache: every name an object has, and the best reason to keep it."""

import posixpath
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.repo.answers import Answer, Sighting
from holdfast.repo.dvcfiles import LISTING_SUFFIX, Out

# best first: the reason that is shown where an object has several
RANKS = {
    kind: rank
    for rank, kind in enumerate(
        ("workspace", "registry", "branch", "tag", "experiment", "stash", "ref", "history", "run cache", "undecided")
    )
}
UNREFERENCED = ("reflog", "nothing")
# what a registry version keeps, and what a policy lets go
_VERSION, _LET_GO = "registry", "policy"

Key = tuple[str, str]  # hash name and oid: an object


class Name(NamedTuple):
    """A path that an object has or had, and who says so.

    Args:
        path: from the git root, ``folder/member`` for a file in a tracked folder.
        kind: what holds the name: a key of `RANKS`, or one of `UNREFERENCED`.
        source: what says so, as a person would put it: ``branch main``, ``3 commits back on main``.
        commit: 40 hex digits; empty for the workspace and the run cache.
        back: commits behind the tip of the ref.
    """

    path: str
    kind: str
    source: str
    commit: str = ""
    back: int = 0

    @property
    def keeps(self) -> bool:
        """Whether the name keeps the object alive."""
        return self.kind in RANKS

    @property
    def order(self) -> tuple[int, int, str, str]:
        """Sort key: best reason first."""
        return (RANKS.get(self.kind, len(RANKS)), self.back, self.source, self.path)


class Mention(NamedTuple):
    """One place that names a folder's listing; ``file`` is the DVC file that does, from the git root."""

    out: Out
    name: Name
    file: str


@dataclass
class References:
    """All names of objects, the best for each object and path kept; of listings also what says so.

    The names that commits give are most of them, and made when they are asked for: a plan shows few of what stays.
    """

    listings: dict[Key, dict[str, Mention]] = field(default_factory=dict)
    _names: dict[Key, dict[str, Name]] = field(default_factory=dict)
    # objects with one name, which is not made yet: the number in the answer that has it
    _waiting: dict[Key, int] = field(default_factory=dict)
    _answer: Answer = field(default_factory=Answer)
    _naming: "Naming" = field(default_factory=lambda: Naming())

    def add_answer(self, answer: Answer, naming: "Naming") -> None:
        """Take in all that commits name, once; whatever else is added before or after, the same names come of it.

        Args:
            answer: of `holdfast.repo.history.HistoryReader.answer_refs`.
            naming: gives the names.
        """
        keys = answer.keys
        waiting = {key: number for number, key in enumerate(keys)}
        # what has several names, or is a listing whose members are to be named, does not wait
        at_once = {key for key in waiting if key[1].endswith(LISTING_SUFFIX)} | (waiting.keys() & self._names.keys())
        if len(waiting) < len(keys):
            at_once.update(key for key, count in Counter(keys).items() if count > 1)
        for number in [number for number, key in enumerate(keys) if key in at_once] if at_once else ():
            waiting.pop(keys[number], None)
            sighting = answer.sighting(number)
            self.add(sighting.out, naming.name(sighting), sighting.file)
        self._waiting, self._answer, self._naming = waiting, answer, naming

    def add(self, out: Out, name: Name, file: str) -> None:
        """Take in a name of a file or folder, and the DVC file that says so."""
        key = (out.hash_name, out.oid)
        self.add_name(key, name)
        if out.oid.endswith(LISTING_SUFFIX):
            known = self.listings.setdefault(key, {})
            if name.path not in known or name.order < known[name.path].name.order:
                known[name.path] = Mention(out, name, file)

    def add_name(self, key: Key, name: Name) -> None:
        """Take in one name of an object; of several for the same path the best stays."""
        known = self._named(key)
        if known is None:
            self._names[key] = {name.path: name}
        elif name.path not in known or name.order < known[name.path].order:
            known[name.path] = name

    def add_members(self, mention: Mention, members: Iterable[tuple[str, str]]) -> None:
        """Give the members of a folder's listing the folder's name and reason."""
        name = mention.name
        for path, oid in members:
            joined = posixpath.join(name.path, path)
            member = Name(joined, name.kind, name.source, name.commit, name.back)
            self.add_name((mention.out.hash_name, oid), member)

    def of(self, key: Key) -> tuple[Name, ...]:
        """The names of an object, best first."""
        names = self._named(key)
        return () if names is None else _ordered(names)

    def keepers(self) -> dict[Key, str]:
        """All objects that something needs, with the kind of their best name."""
        kinds = self._naming.kinds(self._answer)
        result = {key: kinds[number] for key, number in self._waiting.items() if kinds[number] in RANKS}
        for key, names in self._names.items():
            kind = _ordered(names)[0].kind
            if kind in RANKS:
                result[key] = kind
        return result

    def _named(self, key: Key) -> dict[str, Name] | None:
        if key in self._waiting:
            name = self._naming.name(self._answer.sighting(self._waiting.pop(key)))
            self._names[key] = {name.path: name}
        return self._names.get(key)


@dataclass(frozen=True)
class Naming:
    """How commits name objects under a policy.

    Args:
        passed: versions of models that it lets go, as ``app/name@v3``.
    """

    passed: Collection[str] = frozenset()

    def name(self, sighting: Sighting) -> Name:
        """The name that a DVC file or a registry version gives an object, with the reason."""
        name = name_of(sighting)
        return let_go(name) if sighting.version in self.passed else name

    def kinds(self, answer: Answer) -> list[str]:
        """The kind of the name of each out: a version's, or that of the place where it was met."""
        versions, origins = answer.versions, [origin.kind for origin in answer.origins]
        kinds: list[str] = [origins[place] for place in answer.places]
        if versions:
            kinds = [
                kind if version is None else _LET_GO if version in self.passed else _VERSION
                for kind, version in zip(kinds, versions, strict=True)
            ]
        return kinds


def key_of(oid: str) -> Key:
    """The hash and the name of a vault's file."""
    kind, _, value = oid.partition(":")
    return kind, value


def _ordered(names: dict[str, Name]) -> tuple[Name, ...]:
    return tuple(names.values() if len(names) == 1 else sorted(names.values(), key=lambda name: name.order))


def let_go(name: Name) -> Name:
    """The name under a policy that does not keep what it stands for."""
    return name._replace(kind=_LET_GO, source=f"{name.source}, which the policy lets go")


def name_of(sighting: Sighting) -> Name:
    """The name that a DVC file or a registry version gives an object, with the reason."""
    origin, path = sighting.origin, sighting.out.path
    if sighting.version:
        return Name(path, _VERSION, f"registry {sighting.version}", origin.commit)
    if origin.kind == "workspace":
        place = f" ({origin.ref})" if origin.ref else ""
        return Name(path, "workspace", f"workspace{place}")
    if origin.kind == "history":
        behind = "1 commit" if origin.back == 1 else f"{origin.back} commits"
        return Name(path, "history", f"{behind} back on {origin.ref}", origin.commit, origin.back)
    if origin.kind == "reflog":
        behind = f", {origin.back} back" if origin.back else ""
        return Name(path, "reflog", f"reflog {origin.ref}{behind}", origin.commit, origin.back)
    label = origin.ref if origin.kind in ("stash", "ref") else f"{origin.kind} {origin.ref}"
    return Name(path, origin.kind, label, origin.commit)
