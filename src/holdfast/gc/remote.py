"""The objects of a plain DVC remote."""

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import chain, islice, zip_longest
from operator import attrgetter

from holdfast.executor.executor import Executor
from holdfast.executor.local import LocalExecutor
from holdfast.gc.evidence import Evidence
from holdfast.gc.objects import judge, key_at
from holdfast.gc.planned import Found
from holdfast.gc.policy import Policy
from holdfast.gc.references import Key
from holdfast.gc.world import FOLDERS, Remote
from holdfast.objectstore.address import StoreAddress
from holdfast.objectstore.store import ObjectInfo, ObjectStore
from holdfast.removal.bucket import thing_of
from holdfast.repo.cache import STORES, CacheObject

PAGE = 1000  # objects that a listing's request tells, of S3 and R2


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
    staying, found = judge(evidence, objects, policy, now, "remote", name, registered=registered)
    return Found(tuple(found), tuple(listing.doubt for listing in evidence.missing), staying=(staying,))


def list_remote(remote: Remote, executor: Executor) -> list[CacheObject]:
    """Every object of a plain DVC remote, ordered by path; what has no name of DVC's is left out.

    Few objects are listed page after page. Of many the 256 folders that DVC has are listed, several at the same time:
    that takes a request for each of them, and is done where the first page says that it is faster.

    Args:
        remote: which one; of a local folder nothing is listed at the same time.
        executor: what lists folders. The result is the same whatever it is.

    Raises:
        StoreError: the remote cannot be listed.
        WorkersLostError: what lists it is gone.
    """
    found: list[CacheObject] = []
    for _, place in STORES:
        if place:
            found += _list_place(remote, place, executor)
        else:
            # DVC 2 kept its objects at the top, beside which everything else lies
            folders = [folder for folder in remote.store.list_folders() if len(folder) == 2]
            found += _list_folders(remote, folders, executor)
    found.sort(key=attrgetter("path"))
    # what a server tells twice counts once, as it was told last; a dictionary of a million takes 100 MB
    following = zip_longest(found, islice(found, 1, None))
    return [entry for entry, after in following if after is None or entry.path != after.path]


def _list_place(remote: Remote, place: str, executor: Executor) -> list[CacheObject]:
    objects = remote.store.list_objects(place)
    first = list(islice(objects, PAGE))
    # page after page takes about 256 / reached answers, one after the other, and folders 256 / at_once: requests cost
    # money, so that more of them must save half of the time
    reached = len({entry.oid[:2] for entry in _objects_of(first)})
    at_once = executor.jobs * FOLDERS if executor.remote else executor.jobs
    if len(first) < PAGE or reached > at_once // 2 or not _is_listed_by(remote, executor):
        return _objects_of(chain(first, objects))
    return _list_folders(remote, [f"{place}/{number:02x}" for number in range(256)], executor)


def _list_folders(remote: Remote, folders: Sequence[str], executor: Executor) -> list[CacheObject]:
    parts: Iterable[list[CacheObject]]
    if not _is_listed_by(remote, executor):
        parts = map(partial(_list_folder, remote.store), folders)
    elif executor.remote:
        assert remote.address is not None  # else it is listed here
        # a worker lists as many at the same time as we would
        groups = [folders[start : start + FOLDERS] for start in range(0, len(folders), FOLDERS)]
        parts = executor.map(partial(_list_there, remote.address), groups)
    else:
        parts = executor.map(partial(_list_folder, remote.store), folders)
    return [*chain.from_iterable(parts)]


def _is_listed_by(remote: Remote, executor: Executor) -> bool:
    """Whether an executor can list the remote, and does it sooner: a folder may lie on this machine alone."""
    return remote.folder is None and (remote.address is not None or not executor.remote)


def _list_there(address: StoreAddress, folders: Sequence[str]) -> list[CacheObject]:
    store = address.open()
    return [*chain.from_iterable(LocalExecutor(FOLDERS).map(partial(_list_folder, store), folders))]


def _list_folder(store: ObjectStore, folder: str) -> list[CacheObject]:
    return _objects_of(store.list_objects(folder))


def remote_key(hash_name: str, oid: str) -> str:
    """Where a remote keeps an object."""
    place = dict(STORES)[hash_name]
    return "/".join(part for part in (place, oid[:2], oid[2:]) if part)


def _objects_of(infos: Iterable[ObjectInfo]) -> list[CacheObject]:
    return [
        CacheObject(*key, info.key, info.size, info.modified.timestamp(), thing_of(info).stamp)
        for info in infos
        if (key := key_at(info.key)) is not None
    ]
