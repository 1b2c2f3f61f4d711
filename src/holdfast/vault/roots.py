"""What clones need of a store: each leaves word of it, so that a collector that never saw the clone takes nothing away.

``roots/<clone>/<digest>-<random>`` holds tables of the kind ``roots``: ``clone`` with its ``name`` (text, one row: what
people call it), ``files`` with their ``oid`` (text). All words of a clone count together. A new one takes the place of
those that were there before it was known what to say: so two processes of one clone, each of which knows something that
the other does not, leave two.
"""

import re
import secrets
from collections.abc import Iterable, Sequence
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
        since: when last, by the store's clock.
        files: oids.
    """

    clone: str
    name: str
    since: datetime
    files: frozenset[str]


def words(store: ObjectStore, clone: str, folder: str = ROOTS) -> list[str]:
    """The keys of what a clone has said; asked before it is found out what it needs now.

    Raises:
        StoreError: the store cannot be read.
    """
    return [info.key for info in store.list_objects(f"{folder}/{clone}")]


def register(
    store: ObjectStore, clone: str, name: str, files: Iterable[str], replaced: Sequence[str], folder: str = ROOTS
) -> None:
    """Say what a clone needs, instead of what it said before.

    That is written though it be the same: another process of the clone may be about to take back what was said before.

    Args:
        store: where the vault is, or a remote.
        clone: 32 hex digits.
        name: what people call it.
        files: oids.
        replaced: of `words`.
        folder: of the registrations.

    Raises:
        StoreError: the store cannot be written.
    """
    data = write_tables(_KIND, {"clone": {"name": [name]}, "files": {"oid": sorted(set(files))}})
    # what it says names the key, with a nonce: no key is used twice
    digest = blake3(data).hexdigest(length=16)
    store.put(f"{folder}/{clone}/{digest}-{secrets.token_hex(8)}", data)
    store.delete_many(replaced)


def registrations(store: ObjectStore, folder: str = ROOTS) -> list[Registration]:
    """What clones have said, ordered by their ids.

    Raises:
        DamagedVaultError: what one said cannot be read.
        StoreError: the store cannot be read.
    """
    found: dict[str, Registration] = {}
    for info in store.list_objects(folder):
        clone = info.key.split("/")[-2]
        if not _CLONE.fullmatch(clone):
            raise DamagedVaultError(
                f"{info.key} in {store.url} is no registration", hint="Nobody but Holdfast writes there; delete it"
            )
        try:
            said = _read(clone, info, store.get(info.key))
        except ObjectNotFoundError:
            # replaced since: all of it is asked again, as what took its place may have been listed by nobody
            return registrations(store, folder)
        known = found.get(clone)
        found[clone] = said if known is None else _both(known, said)
    return [found[clone] for clone in sorted(found)]


def _both(one: Registration, other: Registration) -> Registration:
    name = max(one, other, key=lambda said: said.since).name
    return Registration(one.clone, name, max(one.since, other.since), one.files | other.files)


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
