"""A line of a plan: something that could go, what is to become of it, and why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from holdfast.gc.references import Name
from holdfast.repo.cache import CacheObject

Scope = Literal["workspace", "runs", "cache", "remote", "vault"]
SCOPES: tuple[Scope, ...] = ("workspace", "runs", "cache", "remote", "vault")
Tier = Literal["keep", "archive", "remove"]
TIERS: tuple[Tier, ...] = ("keep", "archive", "remove")

SECONDS_A_DAY = 86400


class PlannedObject(NamedTuple):
    """Something that could go, and its fate.

    Args:
        scope: what looked at it.
        place: the name of the remote in which it lies; empty for what lies here.
        path: where it lies: from the cache's folder, the remote's prefix or the project's root, with slashes.
        size: bytes.
        age_days: since it was written; locally since the later of mtime and ctime.
        tier: what is to become of it.
        reason: the kind of what decided: a key of `holdfast.gc.references.RANKS`, or another single word.
        why: the same for people.
        hash_name: ``md5``, or ``md5-dos2unix`` for the place of DVC 2; empty for what is no object of DVC's.
        oid: its name in the cache; empty for what is no object of DVC's.
        names: the paths that it has or had, best first.
        users: what would break without it: ``file:line``.
        last_copy: whether no other place is known that has its bytes; None where that makes no difference, as it stays
            or is made again by what made it.
        stored: bytes that it alone takes, where that is not its size: in a vault.
        stamp: names this state of it; it is not moved in another one. Only for what is to go.
    """

    scope: Scope
    place: str
    path: str
    size: int
    age_days: float
    tier: Tier
    reason: str
    why: str
    hash_name: str = ""
    oid: str = ""
    names: tuple[Name, ...] = ()
    users: tuple[str, ...] = ()
    last_copy: bool | None = None
    stored: int | None = None
    stamp: str = ""

    @property
    def frees(self) -> int:
        """Bytes that are free once it is gone."""
        return self.size if self.stored is None else self.stored

    @property
    def kept(self) -> bool:
        """Whether it stays as it is."""
        return self.tier == "keep"


@dataclass(frozen=True)
class Staying:
    """Objects that something needs. Lines are made of them where they are asked for: mostly a plan shows their sums.

    Args:
        scope, place: where they lie.
        objects: by the kind of what needs them.
        line: makes the line of one.
    """

    scope: Scope
    place: str
    objects: Mapping[str, Sequence[CacheObject]]
    line: Callable[[CacheObject], PlannedObject]

    def __iter__(self) -> Iterator[PlannedObject]:
        return map(self.line, chain.from_iterable(self.objects.values()))


@dataclass(frozen=True)
class Doubt:
    """Something that could not be known, for which objects are kept; ``way_out`` ends it."""

    text: str
    way_out: str


@dataclass(frozen=True)
class Found:
    """What one scope has to say.

    Args:
        objects: what it looked at, ``staying`` left out.
        doubts: what could not be known.
        notes: what was left out, and why.
        inputs: what the answer rests on, by name: a digest of each; a plan whose inputs changed is stale.
        staying: what stays because something needs it.
    """

    objects: tuple[PlannedObject, ...]
    doubts: tuple[Doubt, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    staying: tuple[Staying, ...] = ()
