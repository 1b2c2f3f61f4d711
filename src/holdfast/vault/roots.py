"""What clones need of a store: each leaves word of it, so that a collector that never saw the clone takes nothing away.

``roots/<clone>/<digest>-<random>`` holds tables of the kind ``roots``: ``clone`` with its ``name`` (text, one row: what
people call it), ``files`` with their ``oid`` (text). The newest of a clone counts, and is written before older ones are
deleted.
"""

import contextlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from blake3 import blake3

from holdfast.objectstore.store import ObjectInfo, ObjectNotFoundError, ObjectStore
from holdfast.vault.columns import Tables, write_tables
from holdfast.vault.oids import InvalidOidError, check_oid
from holdfast.vault.records import DamagedVaultError

ROOTS = "roots"
_KIND = "roots"
_CLONE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Registration:
    """What a clone said that it needs.

    Attributes:
        clone: 32 hex digits, drawn by lot when the clone first registered.
        name: what people call it.
        since: when, by the store's clock.
        files: oids.
    """

    clone: str
    name: str
    since: datetime
    files: frozenset[str]


def register(store: ObjectStore, clone: str, name: str, files: Iterable[str], folder: str = ROOTS) -> None:
    """Say what a clone needs; what it said before counts no more. Nothing is written where that is the same.

    Args:
        store: where the vault is, or a remote.
        clone: 32 hex digits.
        name: what people call it.
        files: oids.
        folder: of the registrations.

    Raises:
        StoreError: the store cannot be read or written.
    """
    data = write_tables(_KIND, {"clone": {"name": [name]}, "files": {"oid": sorted(set(files))}})
    # what it says names the key, and a nonce what is said again after something else was
    digest = blake3(data).hexdigest(length=16)
    before = sorted(store.list_objects(f"{folder}/{clone}"), key=lambda info: (info.modified, info.key))
    if before and before[-1].key.split("/")[-1].startswith(digest):
        return
    store.put(f"{folder}/{clone}/{digest}-{secrets.token_hex(8)}", data)
    store.delete_many([info.key for info in before])


def registrations(store: ObjectStore, folder: str = ROOTS) -> list[Registration]:
    """What clones have said, ordered by their ids.

    Raises:
        DamagedVaultError: what one said cannot be read.
        StoreError: the store cannot be read.
    """
    newest: dict[str, ObjectInfo] = {}
    for info in store.list_objects(folder):
        clone = info.key.split("/")[-2]
        if not _CLONE.fullmatch(clone):
            raise DamagedVaultError(
                f"{info.key} in {store.url} is no registration", hint="Nobody but Holdfast writes there; delete it"
            )
        known = newest.get(clone)
        if known is None or (known.modified, known.key) < (info.modified, info.key):
            newest[clone] = info
    found = []
    for clone, info in sorted(newest.items()):
        with contextlib.suppress(ObjectNotFoundError):  # replaced since: what replaced it is read by the next
            found.append(_read(clone, info, store.get(info.key)))
    return found


def forget(store: ObjectStore, clone: str, folder: str = ROOTS) -> bool:
    """Delete what a clone said; whether there was anything.

    Raises:
        StoreError: the store cannot be read or written.
    """
    keys = [info.key for info in store.list_objects(f"{folder}/{clone}")]
    store.delete_many(keys)
    return bool(keys)


def _read(clone: str, info: ObjectInfo, data: bytes) -> Registration:
    tables = Tables(data, _KIND, info.key)
    names, oids = tables.texts("clone", "name"), tables.texts("files", "oid")
    try:
        for oid in oids:
            check_oid(oid)
    except InvalidOidError as error:
        raise tables.damage(error.message) from error
    if len(names) != 1:
        raise tables.damage("it has no name")
    return Registration(clone, names[0], info.modified, frozenset(oids))
