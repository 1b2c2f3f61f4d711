"""The objects of a plain DVC remote."""

from collections.abc import Collection, Iterable

from holdfast.gc.evidence import Evidence
from holdfast.gc.objects import judge, key_at
from holdfast.gc.planned import Found
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key
from holdfast.objectstore.store import ObjectInfo, ObjectStore
from holdfast.removal.bucket import thing_of
from holdfast.repo.cache import STORES, CacheObject


def find_remote(
    evidence: Evidence,
    name: str,
    objects: Iterable[CacheObject],
    registered: Collection[Key],
    policy: Policy,
    *,
    now: float,
) -> Found:
    """The fate of the objects in a plain DVC remote.

    Args:
        evidence: of `holdfast.gc.evidence.gather`.
        name: of the remote.
        objects: of `list_remote`, made before the evidence was gathered.
        registered: what other clones said that they need.
        policy: how old an object must be.
        now: seconds since the epoch, by the remote's clock.
    """
    found = judge(evidence, objects, policy, now, "remote", name, registered=registered)
    return Found(tuple(found), tuple(listing.doubt for listing in evidence.missing))


def list_remote(store: ObjectStore) -> list[CacheObject]:
    """Every object of a plain DVC remote, ordered by path; what has no name of DVC's is left out.

    Raises:
        StoreError: the remote cannot be listed.
    """
    found: dict[str, CacheObject] = {}
    for _, place in STORES:
        # DVC 2 kept its objects at the top, beside which everything else lies
        prefixes = [place] if place else [folder for folder in store.list_folders() if len(folder) == 2]
        for prefix in prefixes:
            for info in store.list_objects(prefix):
                if (entry := _object_of(info)) is not None:
                    found[entry.path] = entry
    return [found[path] for path in sorted(found)]


def remote_key(hash_name: str, oid: str) -> str:
    """Where a remote keeps an object."""
    place = dict(STORES)[hash_name]
    return "/".join(part for part in (place, oid[:2], oid[2:]) if part)


def _object_of(info: ObjectInfo) -> CacheObject | None:
    key = key_at(info.key)
    if key is None:
        return None
    return CacheObject(*key, info.key, info.size, info.modified.timestamp(), thing_of(info).stamp)
