"""The index of a vault on this machine: its segments, read once each, in a file of SQLite that can be deleted at will.

A segment counts only while the bucket still lists it. What several processes know of a vault is in one file; which of
it counts, each knows for itself, as of its last `Index.refresh`.
"""

import copy
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from holdfast.errors import IntegrityError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectInfo, ObjectNotFoundError, ObjectStore
from holdfast.vault.index_file import IndexFile
from holdfast.vault.records import ConflictError, DamagedVaultError, Entry, Recipe, unpack_pieces
from holdfast.vault.segment import (
    CONDEMNED,
    INDEX,
    MAX_SEGMENT_BYTES,
    READY_SUFFIX,
    Segment,
    check_session,
    read_condemned,
    read_segment,
)

Item = TypeVar("Item")

# SQLite takes 32,766 values in a query
VALUES_A_QUERY = 30_000
# rows come with their pack: another process may change the file between two queries
PLACES = "blobs CROSS JOIN packs ON packs.number = blobs.pack"
PLACES_KEY = ("id", "pack", "offset")
ENTRY_COLUMNS = "b.id, p.key, b.offset, b.stored, b.plain, b.base, b.depth, b.kind, p.segment"


@dataclass(frozen=True)
class Known:
    """What counts, as of the last look at the bucket.

    Attributes:
        segments: rows of the file, by session.
        condemned_segments: those of them that are condemned.
        condemned_packs: keys.
    """

    segments: dict[str, int] = field(default_factory=dict)
    condemned_segments: frozenset[int] = frozenset()
    condemned_packs: frozenset[str] = frozenset()

    @property
    def condemns(self) -> bool:
        """Whether anything is condemned."""
        return bool(self.condemned_segments or self.condemned_packs)


class Index:
    """The index; may be used from many threads.

    Args:
        store: where the vault is.
        path: the file; None for one in memory.
        jobs: requests at a time.

    Attributes:
        known: what counts, as of the last `refresh`.
        damaged: segments that could not be read then, by session, each with what is wrong with it.
    """

    def __init__(self, store: ObjectStore, path: Path | None, *, jobs: int) -> None:
        self._store, self._jobs = store, jobs
        self._file = IndexFile(path)
        self._lock = threading.RLock()
        self.known = Known()
        self.damaged: dict[str, IntegrityError] = {}

    def refresh(self) -> None:
        """Look at the bucket: read the segments and condemned generations that are new, forget those that are gone.

        A segment that is damaged is left out, and told of in `damaged`: what it names is sent again.

        Raises:
            DamagedTableError: a condemned generation is damaged, and so nobody knows what may be built upon.
            StoreError: the bucket cannot be read.
        """
        with self._lock:
            self.damaged = {}
            condemned_packs: set[str] = set()
            condemned_sessions: set[str] = set()
            for generation in self._condemned():
                condemned_packs |= generation.packs
                condemned_sessions |= generation.segments
            before = self._file.segments()
            listed: dict[str, int] = {}
            for info in self._store.list_objects(INDEX):
                session = info.key.removeprefix(f"{INDEX}/")
                try:
                    if info.size:  # one without bytes is of a session that was revoked, or emptied by a collector
                        listed[check_session(session)] = _bounded(info)
                except DamagedVaultError as error:
                    self.damaged[session] = error
            gone = [number for session, (number, size) in before.items() if listed.get(session) != size]
            if gone:
                self._file.forget(gone)
            self._read([session for session, size in listed.items() if before.get(session, (0, -1))[1] != size])
            now = self._file.segments()
            numbers = {session: now[session][0] for session in listed if session in now}
            condemned = frozenset(numbers[session] for session in condemned_sessions if session in numbers)
            self.known = Known(numbers, condemned, frozenset(condemned_packs))

    def add(self, session: str, data: bytes) -> None:
        """Take in a segment that was just committed."""
        with self._lock:
            number = self._file.insert(read_segment(session, data), len(data))
            segments = {**self.known.segments, session: number}
            self.known = Known(segments, self.known.condemned_segments, self.known.condemned_packs)

    def entries(self, ids: Collection[bytes], *, standing: bool = False) -> dict[bytes, list[Entry]]:
        """Where blobs are; those that are nowhere are left out.

        Args:
            ids: of the blobs.
            standing: leave out what is condemned.
        """
        found: dict[bytes, list[Entry]] = {}
        active = self._active(standing=standing)
        packs = self.known.condemned_packs if standing else frozenset()
        for row in self._select(
            f"SELECT {ENTRY_COLUMNS} FROM blobs b JOIN packs p ON p.number = b.pack WHERE b.id IN ", ids
        ):
            if row[-1] in active and row[1] not in packs:
                found.setdefault(row[0], []).append(Entry._make(row[:-1]))
        for places in found.values():
            places.sort(key=lambda entry: (entry.depth, entry.stored, entry.pack, entry.offset))
        return found

    def recipes(self, oids: Collection[str], *, standing: bool = False) -> dict[str, Recipe]:
        """How files are put together; those that nobody knows are left out.

        Raises:
            ConflictError: an oid stands for two contents.
        """
        found: dict[str, list[Recipe]] = {}
        active = self._active(standing=standing)
        query = "SELECT oid, segment, size, digest, format, pieces FROM recipes WHERE oid IN "
        for oid, segment, size, digest, form, pieces in self._select(query, oids):
            if segment not in active:
                continue
            others = found.setdefault(oid, [])
            if others and (others[0].digest, others[0].size) != (digest, size):
                raise ConflictError(
                    f"{oid} stands for two contents in {self._store.url}",
                    hint="See which is right: `holdfast vault check`",
                )
            others.append(Recipe(oid, size, digest, form, unpack_pieces(pieces)))
        return {oid: others[0] if len(others) == 1 else self._best(others) for oid, others in found.items()}

    def _best(self, recipes: Sequence[Recipe]) -> Recipe:
        """Of several recipes of a file one whose blobs are not condemned, else one whose blobs are there."""
        for standing in (True, False):
            for recipe in recipes:
                ids = {piece.blob for piece in recipe.pieces}
                if ids <= self.entries(ids, standing=standing).keys():
                    return recipe
        return recipes[0]

    def digests(self, oids: Collection[str]) -> dict[str, tuple[int, bytes]]:
        """Size and BLAKE3 of files that are known, condemned ones too.

        Raises:
            ConflictError: an oid stands for two contents.
        """
        found: dict[str, tuple[int, bytes]] = {}
        active = self._active(standing=False)
        for oid, segment, size, digest in self._select(
            "SELECT oid, segment, size, digest FROM recipes WHERE oid IN ", oids
        ):
            if segment in active and found.setdefault(oid, (size, digest)) != (size, digest):
                raise ConflictError(f"{oid} stands for two contents in {self._store.url}")
        return found

    def standing(self, oids: Collection[str], *, thorough: bool = False) -> set[str]:
        """Which files are there, and nothing that they are made of is condemned.

        Args:
            oids: of the files.
            thorough: see that each of their blobs is known with its bases, though nothing is condemned: a segment may
                have been lost.
        """
        active = self._active(standing=True)
        rows = self._select("SELECT oid, segment FROM recipes WHERE oid IN ", oids)
        there = {oid for oid, segment in rows if segment in active}
        if not there or not (thorough or self.known.condemns):
            return there
        fallen = self._fallen()
        recipes = self.recipes(there, standing=True)
        needed = {piece.blob for recipe in recipes.values() for piece in recipe.pieces}
        lost = needed - self.entries(needed, standing=True).keys() | needed & fallen
        return {oid for oid, recipe in recipes.items() if not any(piece.blob in lost for piece in recipe.pieces)}

    def standing_entries(self, ids: Collection[bytes]) -> dict[bytes, Entry]:
        """The place of each blob that may be built upon: neither it nor any base below it is condemned."""
        places = self.entries(ids, standing=True)
        fallen = self._fallen() if self.known.condemns and places else frozenset()
        return {name: found[0] for name, found in places.items() if name not in fallen}

    def existing(self, oids: Collection[str]) -> set[str]:
        """Which files are there, condemned ones too."""
        active = self._active(standing=False)
        rows = self._select("SELECT oid, segment FROM recipes WHERE oid IN ", oids)
        return {oid for oid, segment in rows if segment in active}

    def oids(self) -> Iterator[str]:
        """All files, ordered."""
        active = self._active(standing=False)
        last = None
        for oid, segment in self._file.pages("oid, segment", "recipes", ("oid", "segment")):
            if segment in active and oid != last:
                last = oid
                yield oid

    def all_entries(self) -> Iterator[Entry]:
        """All places of all blobs, ordered by id."""
        active = self._active(standing=False)
        columns = "segment, id, key, offset, stored, plain, base, depth, kind"
        for segment, *entry in self._file.pages(columns, PLACES, PLACES_KEY):
            if segment in active:
                yield Entry(*entry)

    def packs(self) -> dict[str, int]:
        """Keys and sizes of all packs that a segment names."""
        active = self._active(standing=False)
        return {key: size for _, segment, key, size in self._file.packs() if segment in active}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query finds in the segments that count.

        ``{active}`` in it stands for the numbers of all, ``{standing}`` for those of the ones that are not condemned.
        """
        with self._lock:
            active, standing = (
                f"({', '.join(map(str, self._active(standing=standing)))})" for standing in (False, True)
            )
            return self._file.rows(query.format(active=active, standing=standing))

    def leaving(self, packs: Collection[str]) -> "Index":
        """The same index, in which these packs count as condemned besides; it ends with this one."""
        view = copy.copy(self)
        view.known = replace(self.known, condemned_packs=self.known.condemned_packs | frozenset(packs))
        return view

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _active(self, *, standing: bool) -> Collection[int]:
        numbers = set(self.known.segments.values())
        return numbers - self.known.condemned_segments if standing else numbers

    def _fallen(self) -> frozenset[bytes]:
        """Blobs whose chain of bases cannot be built upon, though they have a place that could."""
        places: dict[bytes, list[bytes]] = {}
        active = self._active(standing=True)
        for name, key, segment, base in self._file.pages("id, key, segment, base", PLACES, PLACES_KEY):
            if segment in active and key not in self.known.condemned_packs:
                places.setdefault(name, []).append(base)
        fallen: set[bytes] = set()
        while True:
            more = {
                name
                for name, bases in places.items()
                if name not in fallen and all(base and (base not in places or base in fallen) for base in bases)
            }
            if not more:
                return frozenset(fallen)
            fallen |= more

    def _condemned(self) -> "Iterator[Any]":
        keys = [info.key for info in self._store.list_objects(CONDEMNED)]
        keys = [key for key in keys if not key.endswith(READY_SUFFIX)]

        def fetch(key: str) -> bytes | None:
            try:
                return self._store.get(key)
            except ObjectNotFoundError:  # purged since, and gone from the index, which is listed next
                return None

        for key, data in zip(keys, concurrently(fetch, keys, self._jobs), strict=True):
            if data is not None:
                yield read_condemned(key, data)

    def _read(self, sessions: Sequence[str]) -> None:
        def fetch(session: str) -> bytes:
            try:
                return self._store.get(f"{INDEX}/{session}")
            except ObjectNotFoundError:
                return b""

        for session, data in zip(sessions, concurrently(fetch, sessions, self._jobs), strict=True):
            if data:  # else it was emptied since it was listed
                try:
                    self._file.insert(read_segment(session, data), len(data))
                except IntegrityError as error:
                    self.damaged[session] = error

    def _select(self, query: str, values: Collection[Any]) -> Iterator[tuple[Any, ...]]:
        with self._lock:
            for part in _parts(values, VALUES_A_QUERY):
                yield from self._file.rows(f"{query}({', '.join('?' * len(part))})", part)


def _bounded(info: ObjectInfo) -> int:
    if info.size > MAX_SEGMENT_BYTES:
        raise DamagedVaultError(f"{info.key} has {info.size} bytes, more than a segment can have")
    return info.size


def _parts(values: Iterable[Item], length: int) -> Iterator[list[Item]]:
    rest = iter(values)
    while part := list(islice(rest, length)):
        yield part


__all__ = ["Index", "Known", "Segment"]
