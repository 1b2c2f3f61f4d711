"""The objects of DVC's local cache, and how the fate of objects is decided."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from holdfast.gc.evidence import Evidence
from holdfast.gc.planned import SECONDS_A_DAY, Doubt, Found, PlannedObject, Scope, Staying
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key, Name
from holdfast.repo.cache import CacheObject
from holdfast.repo.dvcfiles import LEGACY_MD5, MD5

_OBJECT = re.compile(r"(files/md5/)?([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")


def find_cache(
    evidence: Evidence,
    objects: Iterable[CacheObject],
    policy: Policy,
    *,
    now: float,
    shared: bool = False,
) -> Found:
    """The fate of the objects in DVC's local cache.

    Args:
        evidence: of `holdfast.gc.evidence.gather`.
        objects: of `holdfast.repo.cache.list_objects`, made before the evidence was gathered: what is added
            meanwhile is not judged.
        policy: how old an object must be.
        now: seconds since the epoch.
        shared: whether all other projects that use the cache are known.
    """
    outside = evidence.cache.outside and not shared
    staying, found = judge(evidence, objects, policy, now, "cache", "", outside=outside)
    doubts = [listing.doubt for listing in evidence.missing]
    if outside:
        doubts.insert(0, _outside_doubt(evidence.cache.folder.as_posix()))
    return Found(tuple(found), tuple(doubts), staying=(staying,))


def key_at(path: str) -> Key | None:
    """The object that lies in such a place of a cache or remote; None for what is none of DVC's."""
    found = _OBJECT.fullmatch(path)
    return None if found is None else (MD5 if found[1] else LEGACY_MD5, found[2] + found[3])


def judge(
    evidence: Evidence,
    objects: Iterable[CacheObject],
    policy: Policy,
    now: float,
    scope: Scope,
    place: str,
    *,
    outside: bool = False,
    registered: Collection[Key] = (),
) -> tuple[Staying, list[PlannedObject]]:
    """The fate of each object: those that have a name which keeps them, and the others.

    Args:
        evidence, policy, now: as of `find_cache`.
        objects: in any order.
        scope, place: where they lie.
        outside: whether others may need them of whom nothing is known.
        registered: what other clones said that they need.
    """
    references, seconds = evidence.references, policy.minimum_age.total_seconds()

    def age_of(entry: CacheObject) -> float:
        return max(0.0, now - entry.changed)

    def line(entry: CacheObject, kept: bool, reason: str, why: str, names: tuple[Name, ...]) -> PlannedObject:
        return PlannedObject(
            scope,
            place,
            entry.path,
            entry.size,
            round(age_of(entry) / SECONDS_A_DAY, 3),
            "keep" if kept else "remove",
            reason,
            why,
            entry.hash_name,
            entry.oid,
            names,
            stamp="" if kept else entry.stamp,
        )

    def needed(entry: CacheObject) -> PlannedObject:
        names = references.of((entry.hash_name, entry.oid))
        return line(entry, True, names[0].kind, names[0].source, names)

    def other(entry: CacheObject) -> PlannedObject:
        key = (entry.hash_name, entry.oid)
        names = references.of(key)
        if key in registered:
            return line(entry, True, "clone", "another clone needs it", names)
        if outside:
            why = "undecided: the cache lies outside the project, others may use it"
            return line(entry, True, "undecided", why, names)
        if listing := evidence.could_be_member(key, entry.size):
            return line(entry, True, "undecided", f"undecided: {listing}", names)
        if age_of(entry) < seconds:
            return line(entry, True, "young", f"younger than {seconds / SECONDS_A_DAY:g} days", names)
        if names:
            return line(entry, False, names[0].kind, f"only {names[0].source}", names)
        return line(entry, False, "nothing", "nothing names it", names)

    keepers, staying, others = references.keepers(), defaultdict[str, list[CacheObject]](list), []
    for entry in objects:
        kind = keepers.get((entry[0], entry[1]))
        if kind is None:
            others.append(other(entry))
        else:
            staying[kind].append(entry)
    return Staying(scope, place, staying, needed), others


def _outside_doubt(folder: str) -> Doubt:
    return Doubt(
        f"the cache {folder} lies outside the project and others may use it: what this project does not name is kept",
        "name the other projects under `repos:` in holdfast.yaml; or `dvc config --unset cache.dir` (with `--local` or "
        "`--global` where it is set so) and `dvc fetch` give the project a cache of its own",
    )
