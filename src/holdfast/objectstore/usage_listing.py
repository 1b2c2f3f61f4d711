"""What lies right in a folder, without all that lies below it."""

from collections.abc import Sequence

from holdfast.errors import HoldfastError
from holdfast.objectstore.answers import failure_of
from holdfast.objectstore.bucket import BucketStore, Link
from holdfast.objectstore.parallel import interruptibly
from holdfast.objectstore.store import ObjectInfo, ObjectStore, check_folder

LIST_SECONDS = 3600.0  # a folder of a million objects is a thousand requests


def list_folder(store: ObjectStore, prefix: str = "") -> tuple[list[str], list[ObjectInfo]]:
    """The names of the folders right in a folder, and its objects; a bucket is asked for no others.

    Raises:
        StoreError: it cannot be read.
    """
    folder = check_folder(prefix)
    if not isinstance(store, BucketStore):
        depth = folder.count("/") + 2 if folder else 1
        here = [info for info in store.list_objects(folder) if info.key.count("/") + 1 == depth]
        return store.list_folders(folder), sorted(here, key=lambda info: info.key)
    import obstore  # 60 ms that a folder need not pay

    client = store.connect(Link(LIST_SECONDS, store.stall_seconds))
    top = f"{store.place.prefix}/{folder}".strip("/")

    def ask() -> "obstore.ListResult[Sequence[obstore.ObjectMeta]]":
        try:
            return interruptibly(lambda: obstore.list_with_delimiter(client, top or None))
        except HoldfastError:
            raise
        except Exception as error:
            raise failure_of(error, store.place, folder) from None

    found = store.retry.run(ask, known=False)
    objects = [store.info_of(meta) for meta in found["objects"] if meta["path"] != top]
    folders = sorted(path.rpartition("/")[2] for path in found["common_prefixes"])
    return folders, sorted(objects, key=lambda info: info.key)
