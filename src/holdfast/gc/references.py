"""What refers to the objects of a cache: every name an object has, and the best reason to keep it."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.repo.dvcfiles import LISTING_SUFFIX, Out
from holdfast.repo.history import Sighting

# best first: the reason that is shown where an object has several
RANKS = {
    kind: rank
    for rank, kind in enumerate(
        ("workspace", "registry", "branch", "tag", "experiment", "stash", "ref", "history", "run cache", "undecided")
    )
}
UNREFERENCED = ("reflog", "nothing")

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
    """All names of objects, the best for each object and path kept; of listings also what says so."""

    names: dict[Key, dict[str, Name]] = field(default_factory=dict)
    listings: dict[Key, dict[str, Mention]] = field(default_factory=dict)

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
        known = self.names.get(key)
        if known is None:
            self.names[key] = {name.path: name}
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
        names = self.names.get(key)
        if names is None:
            return ()
        return tuple(names.values() if len(names) == 1 else sorted(names.values(), key=lambda name: name.order))


def key_of(oid: str) -> Key:
    """The hash and the name of a vault's file."""
    kind, _, value = oid.partition(":")
    return kind, value


def let_go(name: Name) -> Name:
    """The name under a policy that does not keep what it stands for."""
    return name._replace(kind="policy", source=f"{name.source}, which the policy lets go")


def name_of(sighting: Sighting) -> Name:
    """The name that a DVC file or a registry version gives an object, with the reason."""
    origin, path = sighting.origin, sighting.out.path
    if sighting.version:
        return Name(path, "registry", f"registry {sighting.version}", origin.commit)
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
