"""The objects of a plain DVC remote."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from holdfast.gc.evidence import Evidence
from holdfast.gc.objects import judge, key_at
from holdfast.gc.planned import Found
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key
from holdfast.objectstore.store import ObjectInfo, ObjectStore
from holdfast.removal.bucket import thing_of
from holdfast.repo.cache import STORES, CacheObject


@dataclass(frozen=True, slots=True)
class RemoteObject(CacheObject):
    """An object of a remote; ``stamp`` names the state in which it was listed, see `holdfast.removal.place.Thing`."""

    stamp: str


def find_remote(
    evidence: Evidence,
    name: str,
    objects: Iterable[RemoteObject],
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
    found = [
        judge(evidence, entry, policy, now, "remote", name, registered=registered, stamp=entry.stamp)
        for entry in objects
    ]
    return Found(tuple(found), tuple(listing.doubt for listing in evidence.missing))


def list_remote(store: ObjectStore) -> list[RemoteObject]:
    """Every object of a plain DVC remote, ordered by path; what has no name of DVC's is left out.

    Raises:
        StoreError: the remote cannot be listed.
    """
    found: dict[str, RemoteObject] = {}
    for _, place in STORES:
        # DVC 2 kept its objects at the top, beside which everything else lies
        prefixes = [place] if place else [folder for folder in store.list_folders() if len(folder) == 2]
        for prefix in prefixes:
            for info in store.list_objects(prefix):
                if (entry := _remote_object(info)) is not None:
                    found[entry.path] = entry
    return [found[path] for path in sorted(found)]


def remote_key(hash_name: str, oid: str) -> str:
    """Where a remote keeps an object."""
    place = dict(STORES)[hash_name]
    return "/".join(part for part in (place, oid[:2], oid[2:]) if part)


def _remote_object(info: ObjectInfo) -> RemoteObject | None:
    key = key_at(info.key)
    if key is None:
        return None
    return RemoteObject(*key, info.key, info.size, info.modified.timestamp(), thing_of(info).stamp)
