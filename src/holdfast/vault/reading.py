"""Blobs out of packs: which ranges are fetched, in which order they are decoded, and that they are what they should be.

What is wanted is cut into windows. A window has the blobs of some neighbouring pieces with all of their bases; its
ranges are fetched pack by pack, neighbours together, and decoded while the window before is used. What later windows
need of it is kept, up to a bound, so that memory has one whatever the files.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.objectstore.parallel import concurrently, one_ahead
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, TruncatedError
from holdfast.vault.codec import DamagedBlobError, decode, needs_base
from holdfast.vault.records import MAX_DEPTH, DamagedVaultError, Entry

Place: TypeAlias = tuple[str, int]
Stored: TypeAlias = Mapping[Place, "bytes | memoryview"]
Lookup: TypeAlias = Callable[[Sequence[bytes]], Mapping[bytes, Sequence[Entry]]]

# stored and plain bytes of a window: while one is used, up to four are fetched, and one of them is decoded. The first
# is short and each of those after it twice as long, so that there is something to decode while the link is busy
FIRST_WINDOW_BYTES, WINDOW_BYTES = 4 << 20, 32 << 20
AHEAD_JOBS = 2
# plain bytes that are kept for what is made against them
SHELF_BYTES = 256 << 20


class MissingBlobError(DamagedVaultError):
    """A blob is in no pack."""


class BrokenBlobError(DamagedVaultError):
    """A blob in a pack is not what it should be.

    Attributes:
        entry: where it is.
    """

    def __init__(self, entry: Entry, reason: str) -> None:
        super().__init__(
            f"Blob {entry.id.hex()} at byte {entry.offset} of {entry.pack} is damaged: {reason}",
            hint="See what it belongs to: `holdfast vault check`; mend it from a cache: `holdfast vault repair`",
        )
        self.entry = entry


class LostPackError(DamagedVaultError):
    """A pack is not there, or shorter than it should be; a collector may have deleted it since the index was read."""

    def __init__(self, pack: str, reason: str) -> None:
        super().__init__(f"{pack} {reason}", hint="See what it held: `holdfast vault check`")
        self.pack = pack


@dataclass(frozen=True)
class Plan:
    """Where blobs are read from, with all of their bases.

    Attributes:
        entries: by id.
    """

    entries: Mapping[bytes, Entry]

    def chain(self, name: bytes) -> list[Entry]:
        """A blob's place and those of its bases, the last of which has none."""
        chain = [self.entries[name]]
        while chain[-1].base:
            chain.append(self.entries[chain[-1].base])
        return chain


@dataclass(frozen=True)
class Step:
    """What is done for one window.

    Attributes:
        names: the blobs that are wanted.
        levels: places to be fetched and decoded, bases before what is made against them; what is missing among the
            bases is on the shelf.
        dropped: what leaves the shelf after this.
    """

    names: Sequence[bytes]
    levels: Sequence[Sequence[Entry]]
    dropped: Sequence[bytes]

    def entries(self) -> list[Entry]:
        """All places."""
        return [entry for level in self.levels for entry in level]


def steps(plan: Plan, order: Iterable[bytes]) -> Iterator[Step]:
    """The ids in windows of up to some `WINDOW_BYTES`, stored with their bases and plain together, one after the other.

    Args:
        plan: has all of them.
        order: the ids; one that comes again is wanted again.
    """
    order = list(order)
    # how often each is needed, by itself and for others
    uses = Counter(order)
    met: set[bytes] = set()
    for name in order:
        while name and name not in met:
            met.add(name)
            name = plan.entries[name].base
            uses[name] += 1
    shelf: OrderedDict[bytes, int] = OrderedDict()
    names: dict[bytes, None] = {}
    fresh: dict[bytes, Entry] = {}
    nbytes, most = 0, min(FIRST_WINDOW_BYTES, WINDOW_BYTES)

    def needed(name: bytes) -> list[Entry]:
        found = []
        for entry in plan.chain(name):
            if entry.id in fresh or entry.id in shelf:
                break
            found.append(entry)
        return found

    def step() -> Step:
        levels: dict[int, list[Entry]] = {}
        for entry in fresh.values():
            levels.setdefault(entry.depth, []).append(entry)
            shelf[entry.id] = entry.plain
        dropped = [name for name in (*names, *fresh, *(entry.base for entry in fresh.values())) if uses[name] <= 0]
        dropped = [name for name in dict.fromkeys(dropped) if shelf.pop(name, None) is not None]
        held = sum(shelf.values())
        while held > SHELF_BYTES:
            name, size = shelf.popitem(last=False)
            dropped.append(name)
            held -= size
        return Step(list(names), [levels[depth] for depth in sorted(levels)], dropped)

    for name in order:
        if name in names:
            uses[name] -= 1
            continue
        more = needed(name)
        size = sum(entry.stored + entry.plain for entry in more)
        if names and nbytes + size > most:
            yield step()
            most = min(2 * most, WINDOW_BYTES)
            names, fresh, nbytes = {}, {}, 0
            more = needed(name)
            size = sum(entry.stored + entry.plain for entry in more)
        uses[name] -= 1
        if name in shelf:
            shelf.move_to_end(name)
        names[name] = None
        nbytes += size
        for entry in more:
            fresh[entry.id] = entry
            if entry.base:
                uses[entry.base] -= 1
                if entry.base in shelf:
                    shelf.move_to_end(entry.base)
    if names:
        yield step()


@dataclass
class Reader:
    """Reads blobs.

    Args:
        store: where the packs are.
        lookup: says for each of many ids where it may be; the first place is the best.
        jobs: threads that decode, and requests at a time.
        held: encoded blobs by their ids that are in no pack yet.
    """

    store: ObjectStore
    lookup: Lookup
    jobs: int
    held: Mapping[bytes, "bytes | memoryview"] = field(default_factory=dict)

    def plan(self, ids: Iterable[bytes], avoid: frozenset[Place] = frozenset()) -> Plan:
        """Where to read blobs from.

        Args:
            ids: of the blobs.
            avoid: places that turned out to be damaged.

        Raises:
            MissingBlobError: one of them, or of their bases, is nowhere, or they form no chain.
        """
        chosen: dict[bytes, Entry] = {}
        wanted = list(dict.fromkeys(ids))
        while wanted:
            found = self.lookup(wanted)
            for name in wanted:
                places = [entry for entry in found.get(name, ()) if (entry.pack, entry.offset) not in avoid]
                if not places:
                    raise MissingBlobError(
                        f"Blob {name.hex()} is in no pack of {self.store.url}",
                        hint="See what it belongs to: `holdfast vault check`",
                    )
                chosen[name] = min(places, key=lambda entry: entry.depth)
            wanted = list(dict.fromkeys(entry.base for name in wanted if (entry := chosen[name]).base))
            wanted = [name for name in wanted if name not in chosen]
        for entry in chosen.values():
            if (entry.base and chosen[entry.base].depth >= entry.depth) or entry.depth > MAX_DEPTH:
                raise MissingBlobError(f"Blob {entry.id.hex()} is no deeper than its base in {self.store.url}")
        return Plan(chosen)

    def read(self, plan: Plan, order: Sequence[bytes]) -> Iterator[dict[bytes, bytes]]:
        """The blobs, decoded and verified, a window at a time: together they hold all of ``order``, in its order.

        What later ones are made against is kept meanwhile, up to `SHELF_BYTES`, so that of a chain of versions each
        blob is fetched and decoded once.

        Raises:
            BrokenBlobError: one is damaged.
            LostPackError: a pack is not there.
            StoreError: one cannot be read.
        """
        yield from (found for _, _, found in self._windows(plan, order))

    def verified(self, plan: Plan, ids: Sequence[bytes]) -> Iterator[tuple[Entry, bytes]]:
        """Encoded blobs, each once, in some order, that were decoded and compared with their names.

        Raises:
            BrokenBlobError, LostPackError, StoreError: as of `read`.
        """
        rest = set(ids)
        for step, stored, _ in self._windows(plan, ids):
            for entry in step.entries():
                if entry.id in rest:
                    rest.remove(entry.id)
                    yield entry, bytes(stored[entry.pack, entry.offset])

    def _windows(self, plan: Plan, order: Sequence[bytes]) -> "Iterator[tuple[Step, Stored, dict[bytes, bytes]]]":
        shelf: dict[bytes, bytes] = {}

        def decode(fetched: tuple[Step, Stored]) -> tuple[Step, Stored, dict[bytes, bytes]]:
            step, stored = fetched
            for entries in step.levels:
                shelf.update(self._decoded(entries, stored, shelf))
            found = {name: shelf[name] for name in step.names}
            for name in step.dropped:
                del shelf[name]
            return step, stored, found

        ahead = AHEAD_JOBS if self.jobs > 1 else 1
        fetched = concurrently(lambda step: (step, self.fetch(step.entries())), steps(plan, order), ahead)
        return one_ahead(map(decode, fetched)) if self.jobs > 1 else map(decode, fetched)

    def fetch(self, entries: Iterable[Entry]) -> Stored:
        """Encoded blobs by their places.

        Raises:
            LostPackError: a pack is not there.
            StoreError: it cannot be read.
        """
        stored: dict[Place, bytes | memoryview] = {}
        packs: dict[str, dict[int, Entry]] = {}
        for entry in entries:
            if (held := self.held.get(entry.id)) is not None:
                stored[entry.pack, entry.offset] = held
            else:
                packs.setdefault(entry.pack, {})[entry.offset] = entry
        jobs = max(1, self.jobs // max(1, len(packs)))

        def ranges(key: str) -> dict[Place, bytes | memoryview]:
            found = [packs[key][offset] for offset in sorted(packs[key])]
            try:
                parts = self.store.get_ranges(key, [(entry.offset, entry.stored) for entry in found], jobs=jobs)
            except ObjectNotFoundError as error:
                raise LostPackError(key, f"is not in {self.store.url}") from error
            except TruncatedError as error:
                raise LostPackError(key, "is shorter than it should be") from error
            return {(key, entry.offset): part for entry, part in zip(found, parts, strict=True)}

        for parts in concurrently(ranges, sorted(packs), min(self.jobs, len(packs))):
            stored.update(parts)
        return stored

    def _decoded(self, entries: Sequence[Entry], stored: Stored, bases: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        def decode(entry: Entry) -> bytes:
            return decode_entry(entry, stored[entry.pack, entry.offset], bases.get(entry.base))

        plains = concurrently(decode, entries, min(self.jobs, len(entries)))
        return dict(zip([entry.id for entry in entries], plains, strict=True))


def decode_chain(chain: Sequence[Entry], stored: Stored) -> bytes:
    """A blob's plain bytes, verified, with those of each base below it.

    Args:
        chain: its place and those of its bases, as of `Plan.chain`.
        stored: what is at these places.

    Raises:
        BrokenBlobError: one of them is damaged.
    """
    plain: bytes | None = None
    for entry in reversed(chain):
        plain = decode_entry(entry, stored[entry.pack, entry.offset], plain)
    assert plain is not None
    return plain


def decode_entry(entry: Entry, blob: bytes | memoryview, base: bytes | None) -> bytes:
    """A blob's plain bytes, verified.

    Raises:
        BrokenBlobError: it is damaged.
    """
    if len(blob) != entry.stored:
        raise BrokenBlobError(entry, f"it has {len(blob)} bytes instead of {entry.stored}")
    try:
        if needs_base(blob) and not entry.base:
            raise BrokenBlobError(entry, "it needs a base, and the index names none")
        plain = decode(blob, base if entry.base else None, limit=entry.plain)
    except (DamagedBlobError, ValueError) as error:
        reason = error.message if isinstance(error, IntegrityError) else str(error)
        raise BrokenBlobError(entry, reason) from error
    if len(plain) != entry.plain or blob_id(plain) != entry.id:
        raise BrokenBlobError(entry, "it decodes to other bytes than it is named after")
    return plain


def blob_id(plain: bytes | memoryview) -> bytes:
    """What a blob is named by."""
    return blake3(plain).digest()
