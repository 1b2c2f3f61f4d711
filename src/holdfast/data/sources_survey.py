"""What lies in a bucket at the catalogue's prefixes, and what lies there that no source has."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from holdfast.data.catalogue import Catalogue
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectStore

JOBS = 8


@dataclass
class Held:
    """What lies at a prefix.

    Attributes:
        files: objects.
        size: their bytes.
        empty: objects without a byte.
        first_empty: the first of them.
    """

    files: int = 0
    size: int = 0
    empty: int = 0
    first_empty: str = ""


@dataclass(frozen=True)
class Survey:
    """What a look at a bucket gave.

    Attributes:
        url: of the store.
        held: by prefix, of those at which there is anything.
        orphans: the topmost folders (with a slash) and objects that belong to no source; ordered.
        objects: how many objects were listed.
    """

    url: str
    held: dict[str, Held] = field(default_factory=dict)
    orphans: tuple[str, ...] = ()
    objects: int = 0

    def url_of(self, place: str) -> str:
        """The URL of a folder or object."""
        return f"{self.url.rstrip('/')}/{place}"


def survey(
    store: ObjectStore,
    catalogue: Catalogue,
    *,
    jobs: int = JOBS,
    progress: Callable[[int], None] = lambda _: None,
) -> Survey:
    """List what the bucket has below the catalogue's folders: a request for each thousand objects.

    What lies in the folders at the top that the catalogue ignores is not listed; of a folder at the top in which no
    source and no domain is, only that it is there.

    Args:
        store: the bucket.
        catalogue: whose prefixes are looked at.
        jobs: folders that are listed at a time.
        progress: told how many objects were listed so far.

    Raises:
        StoreError: it cannot be listed.
    """
    prefixes = {source.prefix for source in catalogue.sources if source.prefix}
    # every folder above a prefix; an orphan is named by the topmost folder that is none of these
    above = {folder for prefix in prefixes for folder in _folders(prefix)} | set(catalogue.domains)
    tops = sorted({place.split("/")[0] for place in (*prefixes, *catalogue.domains)})
    there = store.list_folders("")
    orphans = {f"{folder}/" for folder in there if folder not in tops and folder not in catalogue.ignored}
    # folders at the top are few, and listed side by side
    walked = [folder for folder in tops if folder in there]
    held: dict[str, Held] = {}
    count = 0

    def look(folder: str) -> tuple[dict[str, Held], set[str], int]:
        return _look(store, folder, prefixes, above, catalogue.ignored)

    for found, strange, objects in concurrently(look, walked, jobs):
        held |= found
        orphans |= strange
        count += objects
        progress(count)
    return Survey(store.url, dict(sorted(held.items())), tuple(sorted(orphans)), count)


def _look(
    store: ObjectStore, folder: str, prefixes: set[str], above: set[str], ignored: Sequence[str]
) -> tuple[dict[str, Held], set[str], int]:
    held: dict[str, Held] = {}
    orphans: set[str] = set()
    count = 0
    last = ("", "")  # objects come folder by folder: whose the folder is need not be asked for each
    for info in store.list_objects(folder):
        count += 1
        where = info.key.rpartition("/")[0]
        prefix = last[1] if last[0] == where else _owner(where, prefixes)
        last = (where, prefix)
        if not info.size and info.key in above:
            count -= 1
            continue  # what the consoles of S3 and R2 leave for a folder that was made by hand
        if not prefix:
            if not any(info.key.startswith(f"{name}/") for name in ignored):
                orphans.add(_orphan(info.key, above))
            continue
        entry = held.setdefault(prefix, Held())
        entry.files += 1
        entry.size += info.size
        if not info.size:
            entry.empty += 1
            entry.first_empty = entry.first_empty or info.key
    return held, orphans, count


def _owner(folder: str, prefixes: set[str]) -> str:
    """The deepest prefix that a folder is, or lies in; empty where there is none."""
    while folder and folder not in prefixes:
        folder = folder.rpartition("/")[0]
    return folder


def _orphan(key: str, above: set[str]) -> str:
    """The topmost folder of an object in which no source is, with its slash; the object where all hold sources."""
    parts = key.split("/")
    for depth in range(1, len(parts)):
        folder = "/".join(parts[:depth])
        if folder not in above:
            return f"{folder}/"
    return key


def _folders(prefix: str) -> Iterable[str]:
    parts = prefix.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
