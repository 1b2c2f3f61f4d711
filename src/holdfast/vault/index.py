"""The index of a vault on this machine: its segments, read once each, in a file of SQLite that can be deleted at will.

A segment counts only while the bucket still lists it. What several processes know of a vault is in one file; which of
it counts, each knows for itself, as of its last `Index.refresh`.
"""

import copy
import heapq
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from holdfast.errors import IntegrityError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectInfo, ObjectNotFoundError, ObjectStore
from holdfast.vault.columns import Array
from holdfast.vault.index_fallen import fallen
from holdfast.vault.index_file import VALUES_A_QUERY, IndexFile
from holdfast.vault.index_runs import Run
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

PAGE_ROWS = 1 << 20
# blobs and pieces of files that are taken in at once: some 200 bytes of memory each
ROWS_AT_ONCE = 1_000_000
# whoever looks for the first time finds many segments, most of them small, whose answers take time and no work
REQUESTS = 32
GROUP_SEGMENTS, GROUP_BYTES = 1024, 32 << 20


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

    @cached_property
    def active(self) -> frozenset[int]:
        """The segments that count."""
        return frozenset(self.segments.values())

    @cached_property
    def standing(self) -> frozenset[int]:
        """Those of them that are not condemned."""
        return self.active - self.condemned_segments


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
        # what `_fallen` found the last time, and of what
        self._found: tuple[Known, list[Run], frozenset[bytes]] | None = None

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
            self._read({session: size for session, size in listed.items() if before.get(session, (0, -1))[1] != size})
            now = self._file.segments()
            numbers = {session: now[session][0] for session in listed if session in now}
            condemned = frozenset(numbers[session] for session in condemned_sessions if session in numbers)
            self.known = Known(numbers, condemned, frozenset(condemned_packs))

    def add(self, session: str, data: bytes) -> None:
        """Take in a segment that was just committed; one that is in the file already counts from now on."""
        with self._lock:
            if self._file.segments().get(session, (0, -1))[1] != len(data):
                self._file.keep(read_segment(session, data), data)
            segments = {**self.known.segments, session: self._file.segments()[session][0]}
            self.known = Known(segments, self.known.condemned_segments, self.known.condemned_packs)

    def entries(self, ids: Collection[bytes], *, standing: bool = False) -> dict[bytes, list[Entry]]:
        """Where blobs are; those that are nowhere are left out.

        Args:
            ids: of the blobs.
            standing: leave out what is condemned.
        """
        if not self.known.active:
            return {}
        wanted = list(dict.fromkeys(ids))
        rows = [row for run in self._file.runs() for row in run.find(wanted)]
        packs = self._packs({row[1] for row in rows}, standing=standing)
        found: dict[bytes, list[Entry]] = {}
        for name, pack, offset, stored, plain, base, depth, kind in rows:
            if pack in packs:
                entry = Entry(name, packs[pack], offset, stored, plain, base, depth, kind)
                found.setdefault(name, []).append(entry)
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
        self._file.unfold()
        for oid, segment in self._file.pages("oid, segment", "recipes", ("oid", "segment")):
            if segment in active and oid != last:
                last = oid
                yield oid

    def all_entries(self) -> Iterator[Entry]:
        """All places of all blobs, ordered by id."""
        # first the runs: another process may change the file meanwhile
        runs = self._file.runs()
        active = self._active(standing=False)
        packs = {number: key for number, segment, key, _ in self._file.packs() if segment in active}
        for name, pack, offset, stored, plain, base, depth, kind in heapq.merge(*(run.all() for run in runs)):
            if pack in packs:
                yield Entry(name, packs[pack], offset, stored, plain, base, depth, kind)

    def kinds(self) -> dict[int, tuple[int, int, int]]:
        """Of the places in segments that are not condemned: how many, their plain bytes, their stored ones, by kind."""
        runs = self._file.runs()
        counted = self._counted(frozenset())
        found: dict[int, tuple[int, int, int]] = {}
        for run in runs:
            for first in range(0, run.rows, PAGE_ROWS):
                part = run.records[first : first + PAGE_ROWS]
                part = part[counted[part["pack"]]]
                for kind in np.unique(part["kind"]).tolist():
                    some = part[part["kind"] == kind]
                    plain, stored = (int(some[name].sum(dtype=np.uint64)) for name in ("plain", "stored"))
                    before = found.get(kind, (0, 0, 0))
                    found[kind] = (before[0] + len(some), before[1] + plain, before[2] + stored)
        return dict(sorted(found.items()))

    def packs(self) -> dict[str, int]:
        """Keys and sizes of all packs that a segment names."""
        active = self._active(standing=False)
        return {key: size for _, segment, key, size in self._file.packs() if segment in active}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query of ``recipes``, ``packs`` and ``segments`` finds in the segments that count.

        ``{active}`` in it stands for the numbers of all, ``{standing}`` for those of the ones that are not condemned.
        """
        self._file.unfold()
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
        return self.known.standing if standing else self.known.active

    def _packs(self, numbers: Collection[int], *, standing: bool) -> dict[int, str]:
        """Keys of those packs that count, by number."""
        active = self._active(standing=standing)
        left = self.known.condemned_packs if standing else frozenset()
        rows = self._select("SELECT number, segment, key FROM packs WHERE number IN ", numbers)
        return {number: key for number, segment, key in rows if segment in active and key not in left}

    def _counted(self, left: Collection[str]) -> Array:
        """Whether a pack is in a segment that stands, and none of those that are left, by its number; bool."""
        counted = np.zeros(self._file.next_pack(), bool)
        active = self._active(standing=True)
        rows = [number for number, segment, key, _ in self._file.packs() if segment in active and key not in left]
        counted[[number for number in rows if number < len(counted)]] = True
        return counted

    def _fallen(self) -> frozenset[bytes]:
        """Blobs whose chain of bases cannot be built upon, though they have a place that could."""
        runs, known = self._file.runs(), self.known
        before = self._found
        if before is None or before[0] is not known or before[1] != runs:
            before = self._found = known, runs, fallen(runs, self._counted(known.condemned_packs))
        return before[2]

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

    def _read(self, sizes: Mapping[str, int]) -> None:
        def fetch(session: str) -> tuple[Segment, int] | IntegrityError | None:
            try:
                data = self._store.get(f"{INDEX}/{session}")
                return (read_segment(session, data), len(data)) if data else None
            except ObjectNotFoundError:  # emptied, or gone, since it was listed
                return None
            except IntegrityError as error:
                return error

        waiting: list[tuple[Segment, int]] = []
        rows = 0
        jobs = max(self._jobs, REQUESTS) if self._jobs > 1 else 1
        try:
            for sessions in _groups(sizes):
                for session, found in zip(sessions, concurrently(fetch, sessions, jobs), strict=True):
                    if isinstance(found, IntegrityError):
                        self.damaged[session] = found
                    elif found is not None:
                        waiting.append(found)
                        rows += len(found[0].rows.ids) + len(found[0].rows.pieces)
                    if rows >= ROWS_AT_ONCE:
                        taken, waiting, rows = waiting, [], 0
                        self._file.insert(taken)
        finally:  # what was read before a connection broke need not be read again
            if waiting:
                self._file.insert(waiting)

    def _select(self, query: str, values: Collection[Any]) -> Iterator[tuple[Any, ...]]:
        if not self.known.active:  # to ask for 100,000 files takes a tenth of a second
            return
        self._file.unfold()
        with self._lock:
            for part in _parts(values, VALUES_A_QUERY):
                yield from self._file.rows(f"{query}({', '.join('?' * len(part))})", part)


def _bounded(info: ObjectInfo) -> int:
    if info.size > MAX_SEGMENT_BYTES:
        raise DamagedVaultError(f"{info.key} has {info.size} bytes, more than a segment can have")
    return info.size


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Sessions whose segments may be in memory at a time, at least one."""
    group: list[str] = []
    total = 0
    for session, size in sizes.items():
        if group and (total + size > GROUP_BYTES or len(group) == GROUP_SEGMENTS):
            yield group
            group, total = [], 0
        group.append(session)
        total += size
    if group:
        yield group


def _parts(values: Iterable[Item], length: int) -> Iterator[list[Item]]:
    rest = iter(values)
    while part := list(islice(rest, length)):
        yield part


__all__ = ["Index", "Known", "Segment"]
