"""Blobs out of packs: which ranges are fetched, in which order they are decoded, and that they are what they should be.

What is wanted is cut into windows. A window has the blobs of some neighbouring pieces with all of their bases; its
ranges are fetched pack by pack, neighbours together, and decoded while the window before is used. Nothing is kept from
one window to the next, so that memory has a bound whatever the file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, TruncatedError
from holdfast.vault.codec import DamagedBlobError, decode, needs_base
from holdfast.vault.records import MAX_DEPTH, DamagedVaultError, Entry

Place: TypeAlias = tuple[str, int]
Stored: TypeAlias = Mapping[Place, "bytes | memoryview"]
Lookup: TypeAlias = Callable[[Sequence[bytes]], Mapping[bytes, Sequence[Entry]]]

# stored and plain bytes of a window: while one is used, up to four are fetched and decoded
WINDOW_BYTES = 32 << 20
AHEAD_JOBS = 2


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

    def windows(self, plan: Plan, order: Iterable[bytes]) -> Iterator[list[bytes]]:
        """The ids in parts of some `WINDOW_BYTES` each, stored with their bases and plain together."""
        window: dict[bytes, None] = {}
        places: set[Place] = set()
        nbytes = 0
        for name in order:
            if name in window:
                continue
            chain = plan.chain(name)
            fresh = [entry for entry in chain if (entry.pack, entry.offset) not in places]
            more = sum(entry.stored for entry in fresh) + chain[0].plain
            if window and nbytes + more > WINDOW_BYTES:
                yield list(window)
                window, places, nbytes = {}, set(), 0
                fresh, more = chain, sum(entry.stored for entry in chain) + chain[0].plain
            window[name] = None
            places.update((entry.pack, entry.offset) for entry in fresh)
            nbytes += more
        if window:
            yield list(window)

    def read(self, plan: Plan, order: Sequence[bytes]) -> Iterator[dict[bytes, bytes]]:
        """The blobs, decoded and verified, a window at a time: together they hold all of ``order``, in its order.

        Raises:
            BrokenBlobError: one is damaged.
            LostPackError: a pack is not there.
            StoreError: one cannot be read.
        """

        def prepare(part: list[bytes]) -> dict[bytes, bytes]:
            return self.decode(plan, part, self.fetch(entry for name in part for entry in plan.chain(name)))

        yield from concurrently(prepare, self.windows(plan, order), AHEAD_JOBS if self.jobs > 1 else 1)

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
        for key in sorted(packs):
            found = [packs[key][offset] for offset in sorted(packs[key])]
            try:
                parts = self.store.get_ranges(key, [(entry.offset, entry.stored) for entry in found], jobs=self.jobs)
            except ObjectNotFoundError as error:
                raise LostPackError(key, f"is not in {self.store.url}") from error
            except TruncatedError as error:
                raise LostPackError(key, "is shorter than it should be") from error
            for entry, part in zip(found, parts, strict=True):
                stored[key, entry.offset] = part
        return stored

    def decode(self, plan: Plan, ids: Sequence[bytes], stored: Stored) -> dict[bytes, bytes]:
        """Blobs decoded and verified.

        Raises:
            BrokenBlobError: one is damaged.
        """
        jobs = min(self.jobs, len(ids))
        return dict(zip(ids, concurrently(lambda name: decode_chain(plan.chain(name), stored), ids, jobs), strict=True))


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
