"""What a model file is to its project: registered, primary, secondary, unreferenced, backup or cache."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.inventory.ref_families import varying_part

Status = Literal["registered", "primary", "secondary", "unreferenced", "backup", "cache"]
STATUSES: tuple[Status, ...] = ("registered", "primary", "secondary", "unreferenced", "backup", "cache")
# two families are rivals where so much of the smaller one has a counterpart in the other
RIVAL_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Used:
    """How often something is referred to: places, and the scripts and configurations they stand in."""

    references: int = 0
    scripts: int = 0
    configs: int = 0
    mentions: int = 0


def find_rivals(families: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Groups of families that offer the same things in several ways, each ordered by name.

    ``models/*_cv_best.pth`` and ``models/*_raw_best.pth`` are rivals where what stands for their ``*`` is mostly the
    same: so far as names tell, they are models of the same subjects. They may lie in different folders.

    Args:
        families: the members (paths) of each family's pattern.
    """
    groups: list[list[str]] = []
    known: dict[frozenset[str], int] = {}  # what stands for the `*`, and the first group that has such a family
    by_part: dict[str, list[frozenset[str]]] = {}
    for family, members in sorted(families.items()):
        parts = frozenset(part for path in members if (part := varying_part(path, family)) is not None)
        if len(members) < 2 or not parts:
            continue
        # only what shares a part can be a rival: a hundred thousand families are not compared each with each
        shared = Counter(other for part in parts for other in by_part.get(part, ()))
        homes = [known[other] for other, count in shared.items() if count >= RIVAL_SHARE * min(len(parts), len(other))]
        home = min(homes, default=len(groups))
        if home == len(groups):
            groups.append([])
        groups[home].append(family)
        if parts not in known:
            for part in parts:
                by_part.setdefault(part, []).append(parts)
        known[parts] = min(home, known.get(parts, home))
    return [group for group in groups if len(group) > 1]


def counterparts(a: Sequence[str], family_a: str, b: Sequence[str], family_b: str) -> list[tuple[str, str]]:
    """Pairs of members of two families in which the same stands for the ``*``, ordered as ``a``."""
    theirs = {varying_part(path, family_b): path for path in b}
    return [(path, theirs[part]) for path in a if (part := varying_part(path, family_a)) in theirs]


def rank_families(rivals: Sequence[Sequence[str]], usage: Mapping[str, Used]) -> dict[str, str]:
    """The family that is used most in its group, for each family that is used less.

    Of families referred to equally often that with more scripts counts; equal in both, none is secondary to the other.
    """
    result = {}
    for group in rivals:
        weight = {family: (usage[family].references, usage[family].scripts) for family in group}
        best = max(group, key=lambda family: weight[family])
        result.update({family: best for family in group if weight[family] < weight[best]})
    return result
