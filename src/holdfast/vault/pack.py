"""Packs: encoded blobs back to back, and a footer from which the index can be rebuilt.

==========  ==========================================================================================================
bytes       meaning
==========  ==========================================================================================================
4           `MAGIC`, whose last byte is the version of the format
…           encoded blobs, back to back
…           footer: tables of the kind ``pack`` (`holdfast.vault.listing`)
4           length of the footer, unsigned, little-endian
4           `END`
==========  ==========================================================================================================

The key is ``packs/<first two digits>/<BLAKE3 of all bytes, hex>-<session>``; it is never used twice.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from holdfast.objectstore.store import ObjectStore
from holdfast.vault.columns import Tables, write_tables
from holdfast.vault.listing import Listing, Rows, entries_of, read_rows, tables_of
from holdfast.vault.records import MAX_PACK_BYTES, DamagedVaultError, Entry

MAGIC, END = b"HFK\x01", b"HFE\x01"
FOLDER = "packs"
KIND = "pack"
SESSION_FORM = "[0-9a-f]{32}"
MAX_FOOTER_BYTES = 256 << 20
# what is fetched of a pack's end in the hope that it has all of the footer
TAIL_BYTES = 64 * 1024

_KEY = re.compile(rf"{FOLDER}/([0-9a-f]{{2}})/([0-9a-f]{{64}})-({SESSION_FORM})")
_TAIL = struct.Struct("<I4s")
# a footer holds every recipe since the pack before; so many files fill one whatever their blobs weigh
MAX_RECIPES = 1 << 18


@dataclass(frozen=True)
class Pack:
    """A pack that is ready to be uploaded.

    Attributes:
        key: its name.
        data: its bytes.
        footer: the footer among them.
        listing: what it holds, with the key in the entries.
    """

    key: str
    data: memoryview
    footer: bytes
    listing: Listing


class PackBuilder:
    """Collects blobs and recipes for one pack."""

    def __init__(self) -> None:
        self.listing = Listing()
        self.nbytes = len(MAGIC)
        self._parts: list[bytes | memoryview] = [MAGIC]

    def add(self, entry: Entry, blob: "bytes | memoryview") -> Entry:
        """Append a blob; its entry is given its place."""
        placed = entry._replace(offset=self.nbytes, stored=len(blob))
        self.listing.entries.append(placed)
        self._parts.append(blob)
        self.nbytes += len(blob)
        return placed

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self.listing.entries and not self.listing.recipes

    def finish(self, session: str) -> Pack:
        """The pack, of a session of that name."""
        footer = write_tables(KIND, tables_of(self.listing))
        data = _joined([*self._parts, footer, _TAIL.pack(len(footer), END)])
        self._parts = []
        digest = blake3(data, max_threads=blake3.AUTO).hexdigest()
        key = key_of(digest, session)
        self.listing.entries = [entry._replace(pack=key) for entry in self.listing.entries]
        return Pack(key, data, footer, self.listing)


def _joined(parts: "Sequence[bytes | memoryview]") -> memoryview:
    # an array, for which NumPy asks the system for huge pages: to be given 32 MiB in small ones takes as long as to
    # fill and to hash them
    room = np.empty(sum(map(len, parts)), np.uint8).data
    start = 0
    for part in parts:
        room[start : start + len(part)] = part
        start += len(part)
    return room.toreadonly()


def key_of(digest: str, session: str) -> str:
    """The key of the pack with this BLAKE3, in hex."""
    return f"{FOLDER}/{digest[:2]}/{digest}-{session}"


def parse_key(key: str) -> tuple[str, str]:
    """The BLAKE3 of a pack's bytes and the session that wrote it, both in hex.

    Raises:
        DamagedVaultError: it is no pack's key.
    """
    found = _KEY.fullmatch(key)
    if found is None or found[1] != found[2][:2]:
        raise DamagedVaultError(f"{key!r:.150} is no pack's name")
    return found[2], found[3]


def footer_rows(footer: bytes | memoryview, key: str, size: int) -> Rows:
    """What a pack's footer says.

    Raises:
        DamagedTableError: it is damaged.
    """
    what = f"The footer of {key}"
    return read_rows(Tables(footer, KIND, what), [size])


def footer_entries(rows: Rows, key: str) -> list[Entry]:
    """The blobs of a footer."""
    return entries_of(rows, [key])


def read_footer(store: ObjectStore, key: str, size: int) -> bytes:
    """The footer of a pack in a store.

    Raises:
        DamagedVaultError: it has none.
        StoreError: it cannot be read.
    """
    count = min(size, TAIL_BYTES)
    tail = store.get_range(key, size - count, count)
    length = _footer_length(tail, key, size)
    if length + _TAIL.size > len(tail):
        return store.get_range(key, size - _TAIL.size - length, length)
    return tail[len(tail) - _TAIL.size - length : len(tail) - _TAIL.size]


def footer_of(data: bytes | memoryview, key: str) -> memoryview:
    """The footer of a whole pack, whose bytes are those that its key names.

    Raises:
        DamagedVaultError: the bytes are others, or they are no pack.
    """
    digest, _ = parse_key(key)
    if blake3(data, max_threads=blake3.AUTO).hexdigest() != digest:
        raise DamagedVaultError(f"{key} is damaged: its bytes are not those that its name stands for")
    view = memoryview(data)
    if view[: len(MAGIC)] != MAGIC:
        raise DamagedVaultError(f"{key} is damaged, or of a format that this version does not read")
    length = _footer_length(view[-TAIL_BYTES:], key, len(view))
    return view[len(view) - _TAIL.size - length : len(view) - _TAIL.size]


def _footer_length(tail: bytes | memoryview, key: str, size: int) -> int:
    if len(tail) < _TAIL.size + len(MAGIC):
        raise DamagedVaultError(f"{key} is damaged: it has only {size} bytes")
    length, end = _TAIL.unpack_from(tail, len(tail) - _TAIL.size)
    if end != END or size > MAX_PACK_BYTES:
        raise DamagedVaultError(f"{key} is damaged: it does not end as a pack does")
    if not 0 < length <= min(size - _TAIL.size - len(MAGIC), MAX_FOOTER_BYTES):
        raise DamagedVaultError(f"{key} is damaged: its footer has {length} bytes, and it has {size}")
    return int(length)


def total_stored(entries: Iterable[Entry]) -> int:
    """The bytes that blobs take, each counted once."""
    return sum({(entry.pack, entry.offset): entry.stored for entry in entries}.values())
