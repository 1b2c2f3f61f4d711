"""The objects of DVC's local cache, and how the fate of objects is decided."""

import re
from collections.abc import Collection, Iterable, Iterator

from holdfast.gc.evidence import Evidence
from holdfast.gc.planned import SECONDS_A_DAY, Doubt, Found, PlannedObject, Scope
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key
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
    found = judge(evidence, objects, policy, now, "cache", "", outside=outside)
    doubts = [listing.doubt for listing in evidence.missing]
    if outside:
        doubts.insert(0, _outside_doubt(evidence.cache.folder.as_posix()))
    return Found(tuple(found), tuple(doubts))


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
) -> Iterator[PlannedObject]:
    """The fate of each object.

    Args:
        evidence, policy, now: as of `find_cache`.
        objects: in any order.
        scope, place: where they lie.
        outside: whether others may need them of whom nothing is known.
        registered: what other clones said that they need.
    """
    references, seconds = evidence.references, policy.minimum_age.total_seconds()
    for hash_name, oid, path, size, changed, stamp in objects:
        key = (hash_name, oid)
        names = references.of(key)
        age = max(0.0, now - changed)
        kept, reason, why = True, "undecided", ""
        if names and names[0].keeps:
            reason, why = names[0].kind, names[0].source
        elif key in registered:
            reason, why = "clone", "another clone needs it"
        elif outside:
            why = "undecided: the cache lies outside the project, others may use it"
        elif listing := evidence.could_be_member(key, size):
            why = f"undecided: {listing}"
        elif age < seconds:
            reason, why = "young", f"younger than {seconds / SECONDS_A_DAY:g} days"
        elif names:
            kept, reason, why = False, names[0].kind, f"only {names[0].source}"
        else:
            kept, reason, why = False, "nothing", "nothing names it"
        yield PlannedObject(
            scope,
            place,
            path,
            size,
            round(age / SECONDS_A_DAY, 3),
            "keep" if kept else "remove",
            reason,
            why,
            hash_name,
            oid,
            names,
            stamp="" if kept else stamp,
        )


def _outside_doubt(folder: str) -> Doubt:
    return Doubt(
        f"the cache {folder} lies outside the project and others may use it: what this project does not name is kept",
        "name the other projects under `repos:` in holdfast.yaml; or `dvc config --unset cache.dir` (with `--local` or "
        "`--global` where it is set so) and `dvc fetch` give the project a cache of its own",
    )
