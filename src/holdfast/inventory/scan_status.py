"""What a model file is to its project: registered, primary, secondary, unreferenced, backup or cache."""

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
    parts = {
        family: {part for path in members if (part := varying_part(path, family)) is not None}
        for family, members in families.items()
        if len(members) > 1
    }
    groups: list[list[str]] = []
    for family in sorted(parts):
        if not parts[family]:
            continue
        home = next((group for group in groups if any(_rivals(parts[family], parts[other]) for other in group)), None)
        if home is None:
            groups.append([family])
        else:
            home.append(family)
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


def _rivals(ours: set[str], theirs: set[str]) -> bool:
    return len(ours & theirs) >= RIVAL_SHARE * min(len(ours), len(theirs))
