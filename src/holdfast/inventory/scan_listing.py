"""The objects of a bucket that may be models, listed by folders at the same time where there are very many."""

from collections.abc import Iterable
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import NamedTuple

from holdfast.executor.local import LocalExecutor
from holdfast.inventory.scan_files import LEAST_BYTES, Choice, choose
from holdfast.inventory.tree import Excludes
from holdfast.objectstore.bucket import BucketStore
from holdfast.objectstore.store import ObjectInfo, ObjectStore
from holdfast.objectstore.usage_listing import list_folder

JOBS = 16
# so many are listed page after page before anybody asks for folders: ten requests, and most buckets are done
SERIAL_OBJECTS = 10_000
# a request for each of more folders than these would be slower than all pages one after the other: runs/<id>/best.pt
MAX_FOLDERS = 256
MAX_DEPTH = 8


class Listed(NamedTuple):
    """An object that may be a model. A tuple, since there may be millions.

    Attributes:
        key: from the store's prefix.
        size: bytes.
        etag: of this state of it; empty where the server gives none.
        modified_ns: when it was written, by the store's clock.
        choice: whether it is a model by its name, or is to be asked.
    """

    key: str
    size: int
    etag: str
    modified_ns: int
    choice: Choice

    @property
    def state(self) -> str:
        """What changes with its bytes."""
        return self.etag or str(self.modified_ns)

    @property
    def info(self) -> ObjectInfo:
        """What a store calls it by."""
        modified = datetime.fromtimestamp(self.modified_ns / 1e9, timezone.utc)
        return ObjectInfo(self.key, self.size, self.etag, modified)


def list_models(
    store: ObjectStore, excludes: Excludes, *, jobs: int = JOBS, serial_objects: int = SERIAL_OBJECTS
) -> tuple[int, list[Listed]]:
    """How many objects there are, and those that may be models, ordered by key, whatever order the server has.

    Args:
        store: the objects.
        excludes: what is not looked at.
        jobs: folders listed at a time.
        serial_objects: a bucket of fewer is not asked for its folders.

    Raises:
        StoreError: the store cannot be listed.
    """
    choose_from = partial(_chosen, excludes=excludes)
    objects = iter(store.list_objects())
    first = list(islice(objects, serial_objects))
    spread = _spread(store) if len(first) == serial_objects else None
    if spread is None:
        looked, chosen = choose_from(first)
        del first
        counts = [(looked, chosen), choose_from(objects)]
    else:
        folders, beside = spread
        listing = LocalExecutor(jobs).map(lambda folder: choose_from(store.list_objects(folder)), folders, attempts=1)
        counts = [choose_from(beside), *listing]
    every = [item for _, part in counts for item in part]
    every.sort()
    return sum(count for count, _ in counts), every


def _spread(store: ObjectStore) -> tuple[list[str], list[ObjectInfo]] | None:
    """The folders that are to be listed each by itself, and the objects beside them; None where that does not pay."""
    if not isinstance(store, BucketStore):
        return None
    folder, beside = "", []
    for _ in range(MAX_DEPTH):
        names, objects = list_folder(store, folder)
        beside += objects
        paths = [f"{folder}/{name}" if folder else name for name in names]
        if len(paths) != 1:
            return (paths, beside) if len(paths) <= MAX_FOLDERS else None
        folder = paths[0]
    return [folder], beside


def _chosen(objects: Iterable[ObjectInfo], *, excludes: Excludes) -> tuple[int, list[Listed]]:
    looked, chosen = 0, []
    for info in objects:
        looked += 1
        choice = choose(info.key, info.key.rpartition("/")[2])
        small = choice == "content" and info.size < LEAST_BYTES
        if choice != "none" and not small and not excludes.file(info.key):
            modified_ns = int(info.modified.timestamp() * 1e9)
            chosen.append(Listed(info.key, info.size, info.etag, modified_ns, choice))
    return looked, chosen
