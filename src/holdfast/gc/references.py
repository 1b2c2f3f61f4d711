"""What refers to the objects of a cache: every name an object has, and the best reason to keep it."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Name:
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


@dataclass(frozen=True, slots=True)
class Mention:
    """One place that names an object; ``file`` is the DVC file that does, from the git root."""

    out: Out
    name: Name
    file: str

    @property
    def key(self) -> Key:
        """The object."""
        return self.out.hash_name, self.out.oid


@dataclass
class References:
    """All mentions of objects, the best for each object and path kept."""

    names: dict[Key, dict[str, Name]] = field(default_factory=dict)
    listings: dict[Key, dict[str, Mention]] = field(default_factory=dict)

    def add(self, mention: Mention) -> None:
        """Take in a mention of a file or folder."""
        self.add_name(mention.key, mention.name)
        if mention.out.oid.endswith(LISTING_SUFFIX):
            known = self.listings.setdefault(mention.key, {})
            if mention.name.path not in known or mention.name.order < known[mention.name.path].name.order:
                known[mention.name.path] = mention

    def add_name(self, key: Key, name: Name) -> None:
        """Take in one name of an object; of several for the same path the best stays."""
        known = self.names.setdefault(key, {})
        if name.path not in known or name.order < known[name.path].order:
            known[name.path] = name

    def add_members(self, mention: Mention, members: Iterable[tuple[str, str]]) -> None:
        """Give the members of a folder's listing the folder's name and reason."""
        name = mention.name
        for path, oid in members:
            joined = posixpath.join(name.path, path)
            member = Name(joined, name.kind, name.source, name.commit, name.back)
            self.add_name((mention.out.hash_name, oid), member)

    def of(self, key: Key) -> list[Name]:
        """The names of an object, best first."""
        names = list(self.names.get(key, {}).values())
        return sorted(names, key=lambda name: name.order) if len(names) > 1 else names


def key_of(oid: str) -> Key:
    """The hash and the name of a vault's file."""
    kind, _, value = oid.partition(":")
    return kind, value


def mention(sighting: Sighting) -> Mention:
    """What a DVC file or a registry version names, with the reason it gives."""
    return Mention(sighting.out, _name(sighting), sighting.file)


def _name(sighting: Sighting) -> Name:
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
