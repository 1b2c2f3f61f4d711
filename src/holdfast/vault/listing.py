"""Records as tables: what a pack's footer, a segment of the index and the local index have in common.

Tables and columns (types as of `holdfast.vault.columns`):

=========  =====================================================================================================
table      columns
=========  =====================================================================================================
packs      ``key`` text, ``size`` u8; only in a segment
blobs      ``id`` x32, ``pack`` u4 (row of ``packs``; only in a segment), ``offset`` u4, ``stored`` u4,
           ``plain`` u4, ``base`` u4 (0 for none, else 1 + *reference*), ``depth`` u1, ``kind`` u1
ids        ``id`` x32: blobs that are referred to and are not in ``blobs``
formats    ``name`` text
recipes    ``oid`` text, ``size`` u8, ``digest`` x32, ``format`` u1 (row of ``formats``), ``pieces`` u4 (how many),
           ``claimed`` u1 (1: its writer acknowledged it to somebody)
pieces     ``blob`` u4 (*reference*), ``offset`` u4, ``length`` u4, ``slot`` u8: those of all recipes, in order
claims     ``oid`` text: files that were acknowledged and were there already; only in a segment
times      ``since`` u8: of each row of ``claims``, when, in seconds since 1970; 0, and no table where all are, for when
           the segment was written
=========  =====================================================================================================

A *reference* is a row of ``blobs``, or that many more for a row of ``ids``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from holdfast.vault.codec_blocks import CODECS
from holdfast.vault.columns import Array, Column, Tables, id_column
from holdfast.vault.oids import InvalidOidError, check_oid
from holdfast.vault.records import (
    MAX_BLOB_BYTES,
    MAX_DEPTH,
    MAX_FILE_BYTES,
    MAX_PACK_BYTES,
    MAX_PIECES,
    MAX_STORED_BYTES,
    Entry,
    Recipe,
    unpack_pieces,
)

MAX_FORMATS = 255
# the year 9999: what a date can say
MAX_SECONDS = 253_402_300_799
PIECE = np.dtype([("blob", "V32"), ("offset", "<u4"), ("length", "<u4"), ("slot", "<u8")])


@dataclass
class Listing:
    """Records in the order in which they were made.

    Attributes:
        entries: of blobs.
        recipes: of files.
        claimed: for each recipe whether somebody was told that the file is there.
        claims: oids of files that somebody was told of and that were there already.
        since: when that was, where it was before the segment was written: seconds since 1970.
    """

    entries: list[Entry] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    claimed: list[bool] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    since: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Listing") -> None:
        """Take over another one's records."""
        self.entries += other.entries
        self.recipes += other.recipes
        self.claimed += other.claimed
        self.claims += other.claims
        self.since |= other.since


@dataclass(frozen=True)
class Rows:
    """What tables hold, as columns of equal length, checked.

    Attributes:
        ids: of blobs; uint8 of shape (blobs, 32).
        others: that are referred to and are none of these; uint8 of shape (others, 32).
        references: of blobs, to their bases: 0 for none, else 1 + the row of ``ids``, or that many more for one of
            ``others``; int64 of shape (blobs,).
        numbers: of blobs: ``pack``, ``offset``, ``stored``, ``plain``, ``depth``, ``kind``, each of shape (blobs,).
        oids: of recipes.
        sizes: of recipes; uint64.
        digests: of recipes; uint8 of shape (recipes, 32).
        formats: of recipes.
        claimed: of recipes; bool.
        counts: how many pieces each recipe has; uint32.
        pieces: of all recipes, in order; of type `PIECE`.
        claims: other oids.
        since: when each of these was claimed, in seconds since 1970; 0 for when the segment was written.
    """

    ids: Array
    others: Array
    references: Array
    numbers: Mapping[str, Array]
    oids: list[str]
    sizes: Array
    digests: Array
    formats: list[str]
    claimed: Array
    counts: Array
    pieces: Array
    claims: list[str]
    since: list[int]

    @cached_property
    def bases(self) -> Array:
        """Of blobs, zeros for none; of the shape of ``ids``."""
        found = np.zeros_like(self.ids)
        some = self.references > 0
        found[some] = np.concatenate([self.ids, self.others])[self.references[some] - 1]
        return found

    def packed_pieces(self) -> list[bytes]:
        """The pieces of each recipe, as `holdfast.vault.records.pack_pieces` writes them."""
        data = self.pieces.tobytes()
        ends = np.cumsum(self.counts, dtype=np.uint64) * PIECE.itemsize
        return [
            data[end - count * PIECE.itemsize : end]
            for end, count in zip(ends.tolist(), self.counts.tolist(), strict=True)
        ]

    def bases_as_bytes(self) -> list[bytes]:
        """The bases, empty for none."""
        bases, some = rows_as_bytes(self.bases), (self.numbers["depth"] > 0).tolist()
        return [base if there else b"" for base, there in zip(bases, some, strict=True)]


def tables_of(listing: Listing, packs: Mapping[str, int] | None = None) -> dict[str, dict[str, Column]]:
    """Records as tables.

    Args:
        listing: the records.
        packs: keys and sizes, for a segment; None for a footer, which knows one pack alone, and no claims.

    Raises:
        ValueError: too many formats.
    """
    entries, recipes = listing.entries, listing.recipes
    numbers: dict[bytes, int] = {}
    for entry in entries:
        numbers.setdefault(entry.id, len(numbers))
    if len(numbers) < len(entries):
        raise ValueError("a blob is listed twice")
    bases = [1 + numbers.setdefault(entry.base, len(numbers)) if entry.base else 0 for entry in entries]
    pieces = [piece for recipe in recipes for piece in recipe.pieces]
    blobs = [numbers.setdefault(piece.blob, len(numbers)) for piece in pieces]
    formats: dict[str, int] = {}
    of_recipes = [formats.setdefault(recipe.format, len(formats)) for recipe in recipes]
    if len(formats) > MAX_FORMATS:
        raise ValueError(f"{len(formats)} formats are too many")
    tables: dict[str, dict[str, Column]] = {
        "blobs": {
            "id": id_column([entry.id for entry in entries]),
            "offset": _numbers([entry.offset for entry in entries], "<u4"),
            "stored": _numbers([entry.stored for entry in entries], "<u4"),
            "plain": _numbers([entry.plain for entry in entries], "<u4"),
            "base": _numbers(bases, "<u4"),
            "depth": _numbers([entry.depth for entry in entries], "<u1"),
            "kind": _numbers([entry.kind for entry in entries], "<u1"),
        },
        "ids": {"id": id_column(list(numbers)[len(entries) :])},
        "formats": {"name": list(formats)},
        "recipes": {
            "oid": [recipe.oid for recipe in recipes],
            "size": _numbers([recipe.size for recipe in recipes], "<u8"),
            "digest": id_column([recipe.digest for recipe in recipes]),
            "format": _numbers(of_recipes, "<u1"),
            "pieces": _numbers([len(recipe.pieces) for recipe in recipes], "<u4"),
            "claimed": _numbers(list(map(int, listing.claimed)), "<u1"),
        },
        "pieces": {
            "blob": _numbers(blobs, "<u4"),
            "offset": _numbers([piece.offset for piece in pieces], "<u4"),
            "length": _numbers([piece.length for piece in pieces], "<u4"),
            "slot": _numbers([piece.slot for piece in pieces], "<u8"),
        },
    }
    if packs is not None:
        rows = {key: row for row, key in enumerate(packs)}
        tables["blobs"]["pack"] = _numbers([rows[entry.pack] for entry in entries], "<u4")
        tables["packs"] = {"key": list(packs), "size": _numbers(list(packs.values()), "<u8")}
        tables["claims"] = {"oid": listing.claims}
        if listing.since:
            tables["times"] = {"since": _numbers([listing.since.get(oid, 0) for oid in listing.claims], "<u8")}
    return tables


def read_rows(tables: Tables, pack_sizes: Sequence[int]) -> Rows:
    """What tables hold.

    Args:
        tables: of a footer or a segment.
        pack_sizes: of the packs that blobs lie in, in bytes; one alone for a footer.

    Raises:
        DamagedTableError: they contradict themselves, or say what cannot be.
    """
    ids = tables.ids("blobs", "id")
    others = tables.ids("ids", "id")
    _check(tables, ids.shape[1:] == others.shape[1:] == (32,), "an id has no 32 bytes")
    names = np.concatenate([ids, others])
    numbers = {
        name: tables.numbers("blobs", name).astype(np.int64) for name in ("offset", "stored", "plain", "depth", "kind")
    }
    if len(pack_sizes) == 1 and not tables.rows("packs"):
        numbers["pack"] = np.zeros(len(ids), np.int64)
    else:
        numbers["pack"] = tables.numbers("blobs", "pack").astype(np.int64)
    base = tables.numbers("blobs", "base").astype(np.int64)
    _check_blobs(tables, numbers, base, pack_sizes, len(names))
    formats, digests = tables.texts("formats", "name"), tables.ids("recipes", "digest")
    of_recipes, counts = tables.numbers("recipes", "format"), tables.numbers("recipes", "pieces")
    _check(tables, digests.shape[1:] == (32,), "a digest has no 32 bytes")
    _check(tables, not len(of_recipes) or int(of_recipes.max()) < len(formats), "a recipe has no format")
    pieces, sizes = _pieces(tables, names, numbers["plain"], counts), tables.numbers("recipes", "size")
    oids = tables.texts("recipes", "oid")
    claims = tables.texts("claims", "oid") if tables.rows("claims") else []
    since = tables.numbers("times", "since").tolist() if tables.rows("times") else [0] * len(claims)
    _check(tables, len(since) == len(claims) and max(since, default=0) <= MAX_SECONDS, "the time of a claim")
    try:
        for oid in (*oids, *claims):
            check_oid(oid)
    except InvalidOidError as error:
        raise tables.damage(error.message) from error
    _check(tables, len(set(oids)) == len(oids), "a file has two recipes")
    return Rows(
        ids=ids,
        others=others,
        references=base,
        numbers=numbers,
        oids=oids,
        sizes=_checked_sizes(tables, sizes, counts, pieces),
        digests=digests,
        formats=[formats[number] for number in of_recipes.tolist()],
        claimed=tables.numbers("recipes", "claimed").astype(bool),
        counts=counts,
        pieces=pieces,
        claims=claims,
        since=since,
    )


def rows_as_bytes(ids: Array) -> list[bytes]:
    """The rows of a column of ids."""
    data, width = ids.tobytes(), ids.shape[1]
    return [data[start : start + width] for start in range(0, len(data), width)]


def entries_of(rows: Rows, packs: Sequence[str]) -> list[Entry]:
    """The blobs of tables, whose packs have these keys."""
    numbers = {name: column.tolist() for name, column in rows.numbers.items()}
    keys = [packs[number] for number in numbers["pack"]]
    columns = (numbers[name] for name in ("offset", "stored", "plain"))
    ends = (rows.bases_as_bytes(), numbers["depth"], numbers["kind"])
    return list(map(Entry._make, zip(rows_as_bytes(rows.ids), keys, *columns, *ends, strict=True)))


def listing_of(rows: Rows, entries: Sequence[Entry]) -> Listing:
    """What tables hold, as records; ``entries`` are those of `entries_of`."""
    columns = (rows.oids, rows.sizes.tolist(), rows_as_bytes(rows.digests), rows.formats, rows.packed_pieces())
    recipes = [
        Recipe(oid, size, digest, form, unpack_pieces(pieces))
        for oid, size, digest, form, pieces in zip(*columns, strict=True)
    ]
    return Listing(list(entries), recipes, rows.claimed.tolist(), list(rows.claims), _times(rows))


def _times(rows: Rows) -> dict[str, int]:
    return {oid: since for oid, since in zip(rows.claims, rows.since, strict=True) if since}


def _check_blobs(
    tables: Tables, numbers: Mapping[str, Array], base: Array, pack_sizes: Sequence[int], names: int
) -> None:
    if not len(base):
        return
    _check(tables, int(numbers["pack"].max()) < len(pack_sizes), "a blob is in no pack")
    _check(tables, max(pack_sizes) <= MAX_PACK_BYTES, "a pack is too long")
    sizes = np.array(pack_sizes, np.int64)
    ends = numbers["offset"] + numbers["stored"]
    _check(tables, bool((ends <= sizes[numbers["pack"]]).all()), "a blob goes beyond its pack")
    _check(
        tables, int(numbers["stored"].max()) <= MAX_STORED_BYTES and int(numbers["stored"].min()) > 0, "a blob's length"
    )
    _check(tables, int(numbers["plain"].max()) <= MAX_BLOB_BYTES, "a blob is too long")
    _check(tables, int(numbers["depth"].max()) <= MAX_DEPTH, "a blob is too deep")
    _check(tables, int(numbers["kind"].max()) < len(CODECS), "a blob's codec is unknown")
    _check(
        tables, bool(((base > 0) == (numbers["depth"] > 0)).all()), "a blob has a base, or a depth, without the other"
    )
    _check(tables, int(base.max()) <= names, "a blob's base is not listed")
    own = (base > 0) & (base <= len(base))
    deeper = numbers["depth"][own] > numbers["depth"][base[own] - 1]
    _check(tables, bool(deeper.all()), "a blob is no deeper than its base")


def _pieces(tables: Tables, names: Array, plain: Array, counts: Array) -> Array:
    blobs = tables.numbers("pieces", "blob").astype(np.int64)
    pieces = np.empty(len(blobs), PIECE)
    for name in ("offset", "length", "slot"):
        pieces[name] = tables.numbers("pieces", name)
    _check(
        tables, int(counts.sum(dtype=np.uint64)) == len(blobs), "there are more, or fewer, pieces than its recipes have"
    )
    _check(tables, not len(counts) or int(counts.max()) <= MAX_PIECES, "a file has too many pieces")
    if len(blobs):
        _check(tables, int(blobs.max()) < len(names), "a piece is of no blob")
        ends = pieces["offset"].astype(np.int64) + pieces["length"]
        _check(tables, int(ends.max()) <= MAX_BLOB_BYTES and int(pieces["length"].min()) > 0, "a piece's length")
        own = blobs < len(plain)
        _check(tables, bool((ends[own] <= plain[blobs[own]]).all()), "a piece goes beyond its blob")
        pieces["blob"] = np.ascontiguousarray(names[blobs]).view("V32").reshape(-1)
    return pieces


def _checked_sizes(tables: Tables, sizes: Array, counts: Array, pieces: Array) -> Array:
    """Every file is as long as its pieces."""
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(pieces["length"], dtype=np.uint64)])
    ends = np.cumsum(counts, dtype=np.uint64).astype(np.int64)
    found = totals[ends] - totals[ends - counts]
    _check(tables, not len(sizes) or int(sizes.max()) <= MAX_FILE_BYTES, "a file is too long")
    _check(tables, bool((found == sizes).all()), "a file is not as long as its pieces")
    return sizes


def _check(tables: Tables, holds: bool, what: str) -> None:
    if not holds:
        raise tables.damage(what)


def _numbers(values: Iterable[int], form: str) -> Array:
    return np.fromiter(values, form)
