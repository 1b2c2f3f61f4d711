"""Where a DVC remote, or DVC's cache, keeps the files that a vault names: what to call them there, and what is there.

That is what DVC 3 wrote (``files/md5/``), what DVC 2 wrote (at the top) and the run cache (``runs/``). Nothing else is
looked at: a vault may lie in a folder of the same remote.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.errors import UsageError
from holdfast.objectstore.parallel import JOBS, concurrently
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.cache import RUN_CACHE, STORES
from holdfast.repo.dvcfiles import LISTING_SUFFIX, MD5
from holdfast.vault.server_paths import RUNS, oid_of_path

_PLACES = dict(STORES)
_PREFIX = re.compile(r"[0-9a-f]{2}")


@dataclass(frozen=True)
class Contents:
    """What lies in a remote.

    Attributes:
        sizes: bytes of each file, by oid.
        ignored: files with other names, such as those that DVC was writing when it was killed.
    """

    sizes: Mapping[str, int]
    ignored: int


def key_of(oid: str) -> str | None:
    """The key under which a remote keeps a file; None of a run that DVC would not find."""
    kind, _, value = oid.partition(":")
    head = value[:2]
    place = RUN_CACHE if f"{kind}:" == RUNS else _PLACES[kind]
    key = "/".join(part for part in (place, head, value if place == RUN_CACHE else value[2:]) if part)
    return key if oid_of_path(f"/{key}") == oid else None


def is_listing(oid: str) -> bool:
    """Whether a file is the listing of a folder."""
    return oid.endswith(LISTING_SUFFIX)


def is_run(oid: str) -> bool:
    """Whether a file is an entry of the run cache."""
    return oid.startswith(RUNS)


def list_contents(store: ObjectStore, *, jobs: int = JOBS) -> Contents:
    """All files of a remote.

    Args:
        store: where it is.
        jobs: requests at a time.

    Raises:
        UsageError: it is the folder ``files/md5`` of a remote, where DVC 3 keeps files as DVC 2 did at the top.
        StoreError: it cannot be listed.
    """

    def read(place: str) -> tuple[dict[str, int], int]:
        found: dict[str, int] = {}
        others = 0
        for info in store.list_objects(place):
            oid = oid_of_path(f"/{info.key}")
            if oid is None:
                others += 1
            else:
                found[oid] = info.size
        return found, others

    tops = [name for name in store.list_folders() if _PREFIX.fullmatch(name)]
    if tops and store.url.rstrip("/").endswith(f"/{_PLACES[MD5]}"):
        above = store.url.rstrip("/").removesuffix(f"/{_PLACES[MD5]}")
        raise UsageError(f"{store.url} is a folder in a DVC remote or cache", hint=f"Name the whole of it: {above}")
    sizes: dict[str, int] = {}
    ignored = 0
    for found, others in concurrently(read, [_PLACES[MD5], RUN_CACHE, *tops], jobs):
        sizes |= found
        ignored += others
    return Contents(sizes, ignored)
