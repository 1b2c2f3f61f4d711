"""What versions cost in a vault: the bytes that each added to those that were there before it."""

import hashlib
import io
import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.registry.entries import FOLDER_SUFFIX
from holdfast.registry.table import VersionTable

if TYPE_CHECKING:
    from holdfast.vault.index import Index
    from holdfast.vault.repository import Vault

# the kind of all oids of versions, as a vault writes it before them
MD5_PREFIX = "md5:"
# the members of a folder's version, by oid, out of the listing with that oid; None where the listing is not at hand
Members = Callable[[str], "list[str] | None"]


def new_bytes(index: "Index", tables: Iterable[VersionTable], members: Members) -> dict[str, list[int | None]]:
    """Stored bytes of the blobs that no earlier version of the same model has.

    Deltas count as what they take; their bases, where no version has them, count to nobody.

    Args:
        index: of the vault.
        tables: of the models.
        members: reads the listings of folders.

    Returns:
        By ``app/name`` the bytes of each version in the order of their numbers, None for those that the index does
        not know whole.

    Raises:
        IntegrityError: the index contradicts itself.
        HoldfastError: a listing cannot be read.
    """
    result: dict[str, list[int | None]] = {}
    for table in tables:
        seen: set[bytes] = set()
        result[table.id] = [_added(index, oid, members, seen) for oid in table.oids]
    return result


def vault_members(vault: "Vault") -> Members:
    """Reads listings out of a vault."""

    def read(oid: str) -> list[str] | None:
        from holdfast.repo.dvcfiles import read_listing  # with YAML, which versions of one file need not pay

        if not vault.index.existing([MD5_PREFIX + oid]):
            return None
        listing = io.BytesIO()
        vault.get(MD5_PREFIX + oid, listing)
        return [member for _, member in read_listing(listing.getvalue())]

    return read


def known_index(path: Path) -> "Index":
    """The index of a vault as this machine last saw it; nothing is asked of the vault.

    Args:
        path: the file that a vault keeps it in.
    """
    from holdfast.objectstore.opening import open_store  # 0.1 s with NumPy, which what is remembered need not pay
    from holdfast.vault.index import Index, Known
    from holdfast.vault.index_file import IndexFile

    file = IndexFile(path)
    segments = {session: number for session, (number, _) in file.segments().items()}
    file.close()
    index = Index(open_store("memory://"), path, jobs=1)
    index.known = Known(segments)
    return index


def index_state(path: Path) -> str | None:
    """What stands for the content of an index's file: the segments that were read into it; None where there is none.

    A segment never changes. Read without the vault's modules, which take 0.1 s to import.
    """
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=5)) as connection:
            rows = connection.execute("SELECT number, session, size FROM segments ORDER BY number").fetchall()
    except sqlite3.Error:
        return None
    return hashlib.blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()


def _added(index: "Index", oid: str, members: Members, seen: set[bytes]) -> int | None:
    files = _files(oid, members)
    recipes = index.recipes(files) if files is not None else {}
    if files is None or len(recipes) < len(set(files)):
        return None
    blobs = {piece.blob for recipe in recipes.values() for piece in recipe.pieces}
    entries = index.entries(blobs - seen)
    if len(entries) < len(blobs - seen):
        return None
    seen |= blobs
    return sum(places[0].stored for places in entries.values())


def _files(oid: str, members: Members) -> list[str] | None:
    if not oid.endswith(FOLDER_SUFFIX):
        return [MD5_PREFIX + oid]
    inside = members(oid)
    return None if inside is None else [MD5_PREFIX + oid, *(MD5_PREFIX + member for member in inside)]
