"""All that a vault's segments say, against what is in its packs: which blobs can be decoded, and who needs them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore
from holdfast.vault.columns import Array
from holdfast.vault.listing import rows_as_bytes
from holdfast.vault.pack import FOLDER
from holdfast.vault.reading import Place
from holdfast.vault.records import MAX_DEPTH, Entry, Recipe, unpack_pieces
from holdfast.vault.segment import (
    CONDEMNED,
    INDEX,
    READY_SUFFIX,
    Condemned,
    Segment,
    check_session,
    read_condemned,
    read_segment,
)

_NEVER = MAX_DEPTH + 1


@dataclass
class Survey:
    """What is in a vault.

    Attributes:
        packs: sizes of the packs that are there, by key.
        segments: those that can be read.
        damaged: what is wrong with others, by key; condemned generations among them.
        condemned: what is condemned.
        ready: what of it nothing needs any more, since all that is needed lies elsewhere, too.
        written: when each segment was written, by the store's clock.
        entries: places of blobs, as the segments say.
        oids: of the recipes of all segments, in their order.
        digests: size and BLAKE3 of each recipe.
    """

    packs: dict[str, int]
    segments: list[Segment] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    condemned: Condemned = field(default_factory=Condemned)
    ready: Condemned = field(default_factory=Condemned)
    written: dict[str, datetime] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    oids: list[str] = field(default_factory=list)
    digests: list[tuple[int, bytes]] = field(default_factory=list)
    _names: Array = field(default_factory=lambda: np.empty(0, "V32"))
    _blob: Array = field(default_factory=lambda: np.empty(0, np.int64))
    _base: Array = field(default_factory=lambda: np.empty(0, np.int64))
    _depth: Array = field(default_factory=lambda: np.empty(0, np.int64))
    _pieces: Array = field(default_factory=lambda: np.empty(0, np.int64))
    _of_recipe: Array = field(default_factory=lambda: np.empty(0, np.int64))

    def decodable(self, bad: Collection[Place]) -> Array:
        """For each place of a blob whether it can be decoded when these cannot: bool of shape (entries,)."""
        fine = np.array([(entry.pack, entry.offset) not in bad for entry in self.entries], bool)
        depths = np.full(len(self._names), _NEVER, np.int64)
        for depth in range(MAX_DEPTH + 1):
            here = np.flatnonzero(fine & (self._depth == depth))
            if depth:
                here = here[depths[self._base[here]] < depth]
            np.minimum.at(depths, self._blob[here], depth)
        below = depths[self._base] < self._depth
        able: Array = fine & ((self._depth == 0) | below)
        return able

    def absent(self, bad: Collection[Place]) -> tuple[list[bytes], set[str]]:
        """The blobs that cannot be decoded and are needed, and the files that cannot be put together for that."""
        there = np.zeros(len(self._names), bool)
        there[self._blob[self.decodable(bad)]] = True
        missing = ~there[self._pieces]
        broken = np.zeros(len(self.oids), bool)
        broken[self._of_recipe[missing]] = True
        whole = {oid for oid, bad_one in zip(self.oids, broken.tolist(), strict=True) if not bad_one}
        lost = {oid for oid, bad_one in zip(self.oids, broken.tolist(), strict=True) if bad_one} - whole
        counts = np.array([oid in lost for oid in self.oids], bool)
        needed = np.unique(self._pieces[missing & counts[self._of_recipe]] if len(self.oids) else self._pieces[missing])
        return [bytes(name) for name in self._names[needed]], lost

    def digest(self) -> str:
        """What is in the vault, in a word: hex digits that change with any commit, condemnation or purge."""
        sessions = sorted(segment.session for segment in self.segments)
        condemned = (sorted(self.condemned.packs), sorted(self.condemned.segments))
        return blake3(repr((sessions, condemned)).encode()).hexdigest(length=16)

    def unreachable(self) -> set[Place]:
        """Places in packs that are not there, or too short."""
        return {
            (entry.pack, entry.offset)
            for entry in self.entries
            if entry.offset + entry.stored > self.packs.get(entry.pack, 0)
        }

    def places_of(self, packs: Collection[str]) -> set[Place]:
        """Where blobs lie in these packs."""
        return {(entry.pack, entry.offset) for entry in self.entries if entry.pack in packs}

    def conflicts(self) -> list[str]:
        """The oids that stand for two contents."""
        first: dict[str, tuple[int, bytes]] = {}
        pairs = zip(self.oids, self.digests, strict=True)
        return sorted({oid for oid, digest in pairs if first.setdefault(oid, digest) != digest})

    def named(self) -> dict[str, int]:
        """The packs that segments name, with their sizes."""
        return {key: size for segment in self.segments for key, size in segment.packs.items()}

    def recipes(self) -> Iterable[Recipe]:
        """All recipes of all segments."""
        for segment in self.segments:
            rows = segment.rows
            columns = (rows.oids, rows.sizes.tolist(), rows_as_bytes(rows.digests), rows.formats, rows.packed_pieces())
            for oid, size, digest, form, pieces in zip(*columns, strict=True):
                yield Recipe(oid, size, digest, form, unpack_pieces(pieces))


def survey(store: ObjectStore, jobs: int) -> Survey:
    """Read all segments of a vault, and list its packs.

    Raises:
        StoreError: the store cannot be read.
    """
    found = Survey({})
    # what is ready was copied before, and segments list their packs: what is needed is seen, whatever happens meanwhile
    _read_condemned(found, store, jobs)
    listed = [info for info in store.list_objects(INDEX) if info.size]
    found.written.update((info.key.removeprefix(f"{INDEX}/"), info.modified) for info in listed)
    _read_segments(found, store, [info.key for info in listed], jobs)
    found.packs.update((info.key, info.size) for info in store.list_objects(FOLDER))
    _index(found)
    return found


def _read_segments(found: Survey, store: ObjectStore, keys: Sequence[str], jobs: int) -> None:
    for key, data in zip(keys, concurrently(lambda key: _get(store, key), keys, jobs), strict=True):
        if data:
            try:
                found.segments.append(read_segment(check_session(key.removeprefix(f"{INDEX}/")), data))
            except IntegrityError as error:
                found.damaged[key] = error.message


def _read_condemned(found: Survey, store: ObjectStore, jobs: int) -> None:
    listed = {info.key for info in store.list_objects(CONDEMNED)}
    keys = sorted(key for key in listed if not key.endswith(READY_SUFFIX))
    some: list[Condemned] = []
    ready: list[Condemned] = []
    for key, data in zip(keys, concurrently(lambda key: _get(store, key), keys, jobs), strict=True):
        if data is None:
            continue  # purged since
        try:
            generation = read_condemned(key, data)
        except IntegrityError as error:
            found.damaged[key] = error.message
            continue
        some.append(generation)
        if key + READY_SUFFIX in listed:
            ready.append(generation)
    found.condemned, found.ready = _together(some), _together(ready)


def _together(some: Sequence[Condemned]) -> Condemned:
    packs = frozenset(pack for generation in some for pack in generation.packs)
    return Condemned(packs, frozenset(session for generation in some for session in generation.segments))


def _index(found: Survey) -> None:
    """Number all blobs, so that questions about all of them are asked of arrays."""
    names: list[Array] = []
    bases: list[Array] = []
    depths: list[Array] = []
    pieces: list[Array] = []
    owners: list[Array] = []
    for segment in found.segments:
        rows = segment.rows
        names.append(np.ascontiguousarray(rows.ids).view("V32").reshape(-1))
        bases.append(np.ascontiguousarray(rows.bases).view("V32").reshape(-1))
        depths.append(rows.numbers["depth"])
        pieces.append(rows.pieces["blob"])
        owners.append(np.repeat(np.arange(len(rows.oids)) + len(found.oids), rows.counts))
        found.entries += segment.entries()
        found.oids += rows.oids
        found.digests += list(zip(rows.sizes.tolist(), rows_as_bytes(rows.digests), strict=True))
    if not found.segments:
        return
    whole = np.concatenate([*names, *bases, *pieces])
    # raw bytes do not sort, strings do: all have one length, so that zeros at their ends make no two alike
    unique, numbers = np.unique(whole.view("S32"), return_inverse=True)
    found._names = unique.view("V32")
    blobs = len(found.entries)
    found._blob, found._base, found._pieces = numbers[:blobs], numbers[blobs : 2 * blobs], numbers[2 * blobs :]
    found._depth = np.concatenate(depths)
    found._of_recipe = np.concatenate(owners)


def _get(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except ObjectNotFoundError:
        return None
