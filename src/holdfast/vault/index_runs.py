"""Places of blobs in the order of their ids, searched where they lie: what of the local index is as large as the vault.

A run is made once and never changed. It holds a place in 54 bytes, a base as the number of its row. It is a cache of
this machine, and so has this machine's order of bytes:

==========  ==========================================================================================================
bytes       meaning
==========  ==========================================================================================================
8           `MAGIC`
8, 8        how many places, how many foreign ids
8 each      the first 8 bytes of each place's id, as a number: ascending
4 each      its base: 0 for none, 1 + the row of a place of it, or that many more for a foreign id
42 each     `RECORD`: the rest of the id, the pack's number, and the place
32 each     foreign ids: bases that have no place in the run
==========  ==========================================================================================================
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import Any, TypeAlias

import numpy as np

from holdfast.vault.columns import Array
from holdfast.vault.listing import Rows

MAGIC = b"HFRUN\x00\x00\x01"
HEADER = struct.Struct("=8sQQ")
RECORD = np.dtype(
    [
        ("tail", np.uint64, (3,)),
        ("pack", np.uint32),
        ("offset", np.uint32),
        ("stored", np.uint32),
        ("plain", np.uint32),
        ("depth", np.uint8),
        ("kind", np.uint8),
    ]
)
_RECORD = struct.Struct("=24sIIIIBB")
NUMBERS = ("pack", "offset", "stored", "plain", "depth", "kind")
# fewer ids than these are found sooner one by one
FEW = 24
# so many places in a row may begin with the same 8 bytes before they are searched by the rest
FEW_TIED = 8
PAGE_ROWS = 16_384

# id, pack's number, offset, stored, plain, base, depth, kind
Row: TypeAlias = tuple[bytes, int, int, int, int, bytes, int, int]


class TornRunError(Exception):
    """It is not what was written."""


class Run:
    """A run; may be used from many threads.

    Attributes:
        head: the first 8 bytes of ids, as numbers, ascending; uint64 of shape (rows,).
        base: see above; uint32 of shape (rows,).
        records: of type `RECORD` and shape (rows,).
        foreign: ids; uint8 of shape (foreign ids, 32).
    """

    def __init__(self, head: Array, base: Array, records: Array, foreign: Array) -> None:
        self.head, self.base, self.records, self.foreign = head, base, records, foreign
        self._heads = head.data
        self._records = records.view(np.uint8).data
        self._mapped: mmap | None = None

    @classmethod
    def read(cls, data: "bytes | mmap") -> "Run":
        """A run that was written.

        Raises:
            TornRunError: it is none.
        """
        if len(data) < HEADER.size:
            raise TornRunError
        magic, rows, others = HEADER.unpack_from(data)
        if magic != MAGIC or len(data) != run_bytes(rows, others):
            raise TornRunError
        places = _places(rows)
        run = cls(
            np.frombuffer(data, np.uint64, rows, places[0]),
            np.frombuffer(data, np.uint32, rows, places[1]),
            np.frombuffer(data, RECORD, rows, places[2]),
            np.frombuffer(data, np.uint8, 32 * others, places[3]).reshape(others, 32),
        )
        run._mapped = data if isinstance(data, mmap) else None
        return run

    @property
    def rows(self) -> int:
        """How many places it has."""
        return len(self.head)

    def find(self, ids: Sequence[bytes]) -> Iterator[Row]:
        """All places of blobs, those of one blob in the order of packs and offsets."""
        if len(ids) > FEW:
            _, found = self.search(np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32))
            yield from map(self.row, found.tolist())
            return
        heads, rows = self._heads, self.rows
        for name in ids:
            head = int.from_bytes(name[:8], "big")
            row = bisect_left(heads, head)
            if row < rows and heads[row] == head:
                yield from map(self.row, self._rows_of(name, head, row))

    def search(self, ids: Array) -> tuple[Array, Array]:
        """All places of blobs.

        Args:
            ids: uint8 of shape (n, 32).

        Returns:
            For each place the row of ``ids``, and its own row, both int64 of shape (places,), ordered by the latter.
        """
        heads, tails = split_ids(ids)
        order = np.argsort(heads)  # neighbours are on one page
        ends = np.searchsorted(self.head, heads[order], side="right")
        at = np.searchsorted(self.head, heads[order])
        many = ends - at > FEW_TIED
        found = [(order[:0], at[:0])]
        for name in order[many].tolist():
            row = int(np.searchsorted(self.head, heads[name]))
            rows = np.fromiter(self._rows_of(ids[name].tobytes(), int(heads[name]), row), np.int64)
            found.append((np.full(len(rows), name), rows))
        left, at, ends = order[~many], at[~many], ends[~many]
        while len(left := left[at < ends]):
            at, ends = at[at < ends], ends[at < ends]
            equal = (self.records["tail"][at] == tails[left]).all(axis=1)
            found.append((left[equal], at[equal]))
            at = at + 1
        which, rows = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(rows, kind="stable")
        return which[order], rows[order]

    def id(self, row: int) -> bytes:
        """The id of a place's blob."""
        start = row * RECORD.itemsize
        return self._heads[row].to_bytes(8, "big") + self._records[start : start + 24].tobytes()

    def ids(self, rows: Array) -> Array:
        """The ids of places' blobs: uint8 of shape (places, 32)."""
        found = np.empty((len(rows), 32), np.uint8)
        found[:, :8] = self.head[rows].astype(">u8").view(np.uint8).reshape(-1, 8)
        found[:, 8:] = np.ascontiguousarray(self.records["tail"][rows]).view(np.uint8).reshape(-1, 24)
        return found

    def row(self, row: int) -> Row:
        """A place."""
        tail, pack, offset, stored, plain, depth, kind = _RECORD.unpack_from(self._records, row * _RECORD.size)
        name = self._heads[row].to_bytes(8, "big") + tail
        return name, pack, offset, stored, plain, self._base(int(self.base[row])), depth, kind

    def all(self) -> Iterator[Row]:
        """All places, ordered by id, pack and offset."""
        for first in range(0, self.rows, PAGE_ROWS):
            last = min(first + PAGE_ROWS, self.rows)
            heads = self.head[first:last].astype(">u8").tobytes()
            bases = self.base[first:last].tolist()
            records = _RECORD.iter_unpack(self._records[first * _RECORD.size : last * _RECORD.size])
            for place, (tail, pack, offset, stored, plain, depth, kind) in enumerate(records):
                name = heads[8 * place : 8 * place + 8] + tail
                yield name, pack, offset, stored, plain, self._base(bases[place]), depth, kind

    def release(self) -> None:
        """Let go of the memory that its file takes up where it was read; it is read again where it is asked for."""
        if self._mapped is not None and hasattr(self._mapped, "madvise"):
            from mmap import MADV_DONTNEED  # not on every system

            self._mapped.madvise(MADV_DONTNEED)

    def _rows_of(self, name: bytes, head: int, row: int) -> Iterator[int]:
        """The rows of a blob's places; of those whose ids begin with ``head``, ``row`` is the first."""
        if self.rows - row > FEW_TIED and self._heads[row + FEW_TIED] == head:  # whoever made these ids made them so
            tied = range(row, bisect_right(self._heads, head, row))
            row += bisect_left(tied, name, key=self.id)
        while row < self.rows and self._heads[row] == head:
            found = self.id(row)
            if found > name:
                break
            if found == name:
                yield row
            row += 1

    def _base(self, reference: int) -> bytes:
        if not reference:
            return b""
        if reference <= self.rows:
            return self.id(reference - 1)
        return bytes(self.foreign[reference - 1 - self.rows])


def run_bytes(rows: int, others: int) -> int:
    """How long a run is."""
    return _places(rows)[3] + 32 * others


def run_of(rows: Rows, first_pack: int) -> Run:
    """The places that a segment lists, whose packs have numbers from that one on."""
    head, tail = split_ids(rows.ids)
    records = np.empty(len(head), RECORD)
    records["tail"] = tail
    for name in NUMBERS:
        records[name] = rows.numbers[name]
    records["pack"] += np.uint32(first_pack)
    order = in_order(head, records)
    moved = np.empty(len(order), np.int64)
    moved[order] = np.arange(len(order))
    base = rows.references.copy()
    own, beyond = (base > 0) & (base <= len(head)), base > len(head)
    base[own] = 1 + moved[base[own] - 1]
    wanted, numbers = np.unique(base[beyond], return_inverse=True)  # the others are of pieces alone
    base[beyond] = 1 + len(head) + numbers
    foreign = rows.others[wanted - 1 - len(head)]
    return Run(head[order], base[order].astype(np.uint32), records[order], foreign)


def split_ids(ids: Array) -> tuple[Array, Array]:
    """Ids as runs have them.

    Args:
        ids: uint8 of shape (n, 32).

    Returns:
        The first 8 bytes, uint64 of shape (n,), and the rest, uint64 of shape (n, 3) that is but bytes.
    """
    head = np.ascontiguousarray(ids[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
    return head, np.ascontiguousarray(ids[:, 8:]).view(np.uint64)


def in_order(head: Array, records: Array) -> Array:
    """The order by id, pack and offset of places: int64 of their shape."""
    order = np.argsort(head, kind="stable")
    ascending = head[order]
    again = ascending[1:] == ascending[:-1]
    if again.any():
        tied = np.zeros(len(order), bool)
        tied[1:] |= again
        tied[:-1] |= again
        some = order[tied]
        tails = np.ascontiguousarray(records["tail"][some]).view(">u8").astype(np.uint64)
        keys: tuple[Any, ...] = (records["offset"][some], records["pack"][some], *tails.T[::-1], head[some])
        order[tied] = some[np.lexsort(keys)]
    return order


def _places(rows: int) -> tuple[int, int, int, int]:
    """Where heads, bases, records and foreign ids begin."""
    bases = HEADER.size + 8 * rows
    records = bases + 4 * rows
    return HEADER.size, bases, records, records + RECORD.itemsize * rows
