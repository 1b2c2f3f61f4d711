"""Reading what a vault has, pack by pack and file by file: what of it is not as it should be, told in plain values.

Each function needs no more than the blobs of its packs or files with the bases below them, so that it may run in
another process than the one that has read the whole index.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore
from holdfast.vault.listing import listing_of
from holdfast.vault.oids import check_md5, hasher_of
from holdfast.vault.pack import footer_entries, footer_of, footer_rows
from holdfast.vault.reading import BrokenBlobError, MissingBlobError, Reader, decode_chain
from holdfast.vault.records import DamagedVaultError, Entry, Recipe

PACKS_AHEAD = 2
Progress = Callable[[int, int], None]


class PackToRead(NamedTuple):
    """A pack.

    Attributes:
        key: of the pack.
        named: whether a segment names it.
        entries: the blobs that segments say it has.
    """

    key: str
    named: bool
    entries: tuple[Entry, ...]


class PackRead(NamedTuple):
    """What is wrong with a pack.

    Attributes:
        key: of the pack.
        damage: what is wrong with all of it; empty for nothing.
        broken: offset of each blob that cannot be decoded, and why.
    """

    key: str
    damage: str
    broken: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Here:
    """Reads in this process.

    Args:
        store: where the vault is.
        entries: all places of blobs.
        jobs: requests and threads at a time.
    """

    store: ObjectStore
    entries: Sequence[Entry]
    jobs: int

    def read_packs(self, packs: Sequence[PackToRead], progress: Progress) -> Iterator[PackRead]:
        """Each as of the function `read_packs`; `progress` is told how many of how many are done."""
        for number, read in enumerate(read_packs(self.store, packs, self.entries, self.jobs), 1):
            progress(number, len(packs))
            yield read

    def read_files(self, recipes: Sequence[Recipe], good: Iterable[Entry], progress: Progress) -> Iterator[str]:
        """For each as of `file_damage`, read at places that are good; `progress` is told as there."""
        reader = reader_of(self.store, good, self.jobs)
        for number, recipe in enumerate(recipes, 1):
            damage = file_damage(reader, recipe)
            progress(number, len(recipes))
            yield damage


def read_packs(
    store: ObjectStore, packs: Sequence[PackToRead], places: Iterable[Entry], jobs: int
) -> Iterator[PackRead]:
    """Fetch packs and decode all that is in them.

    Args:
        store: where they are.
        packs: some of them.
        places: all places of their blobs' bases, and of the bases below those.
        jobs: requests and threads at a time.

    Raises:
        StoreError: the store cannot be read.
    """
    reader = reader_of(store, places, jobs)

    def fetch(pack: PackToRead) -> bytes | None:
        try:
            return store.get(pack.key)
        except ObjectNotFoundError:  # deleted by a collector since it was listed
            return None

    for pack, data in zip(packs, concurrently(fetch, packs, min(jobs, PACKS_AHEAD)), strict=True):
        if data is None:
            yield PackRead(pack.key, "", ())
        else:
            yield PackRead(pack.key, _pack_damage(pack, data), _broken_blobs(reader, pack, data, jobs))


def file_damage(reader: Reader, recipe: Recipe) -> str:
    """What is wrong with a file as it is put together; empty for nothing, or what its packs have been told of for.

    Raises:
        StoreError: the store cannot be read.
    """
    digest, md5, size = blake3(), hasher_of(recipe.oid), 0
    try:
        plan = reader.plan(piece.blob for piece in recipe.pieces)
        windows = reader.read(plan, [piece.blob for piece in recipe.pieces])
        window: dict[bytes, bytes] = {}
        for piece in recipe.pieces:
            while piece.blob not in window:
                window = next(windows)
            part = memoryview(window[piece.blob])[piece.offset : piece.offset + piece.length]
            digest.update(part)
            size += len(part)
            if md5 is not None:
                md5.update(part)
        if digest.digest() != recipe.digest or size != recipe.size:
            raise DamagedVaultError(f"{recipe.oid} is not put together as its recipe says")
        check_md5(recipe.oid, md5, "What the vault has")
    except (BrokenBlobError, MissingBlobError):
        return ""
    except IntegrityError as error:
        return error.message
    return ""


def reader_of(store: ObjectStore, entries: Iterable[Entry], jobs: int) -> Reader:
    """What reads blobs at these places, and at no other."""
    places: dict[bytes, list[Entry]] = {}
    for entry in entries:
        places.setdefault(entry.id, []).append(entry)
    return Reader(store, lambda ids: {name: places[name] for name in ids if name in places}, jobs)


def _pack_damage(pack: PackToRead, data: bytes) -> str:
    try:
        rows = footer_rows(footer_of(data, pack.key), pack.key, len(data))
        listed = listing_of(rows, footer_entries(rows, pack.key))
    except IntegrityError as error:
        return error.message
    # a collector that gives packs another segment leaves out what nobody needs
    if pack.named and not set(pack.entries) <= set(listed.entries):
        return f"{pack.key} holds other blobs than the index says"
    return ""


def _broken_blobs(reader: Reader, pack: PackToRead, data: bytes, jobs: int) -> tuple[tuple[int, str], ...]:
    """The blobs of a pack that do not decode to what they are named after."""
    view = memoryview(data)

    def reason(entry: Entry) -> str:
        try:
            below = reader.plan([entry.base]).chain(entry.base) if entry.base else []
            stored = dict(reader.fetch(below))
            stored[entry.pack, entry.offset] = view[entry.offset : entry.offset + entry.stored]
            decode_chain([entry, *below], stored)
        except BrokenBlobError as error:
            return error.message if error.entry == entry else ""  # its base's pack is told of by itself
        except DamagedVaultError:
            return ""
        return ""

    reasons = concurrently(reason, pack.entries, jobs)
    return tuple((entry.offset, text) for entry, text in zip(pack.entries, reasons, strict=True) if text)
