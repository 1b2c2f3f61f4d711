"""Files into blobs: read once for their digests, and a second time where there is something to encode.

The first reading tells whether the file is what its oid says and which of its blobs are there already, before anything
is sent. So the bases of the new ones can be chosen knowing what restoring the whole file will read.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.source import MemorySource, Source, read_exactly
from holdfast.objectstore.store import ObjectStore, StoreError
from holdfast.vault.bases import BaseChoice, RestoreBudget, most_of_cast
from holdfast.vault.codec import encode, needs_base, summary_of
from holdfast.vault.codec_blocks import CODECS
from holdfast.vault.codec_elements import OPAQUE
from holdfast.vault.coders import WORTH_BYTES, Coders, coder_count
from holdfast.vault.index import Index
from holdfast.vault.measuring import Bundle, check_split, measure
from holdfast.vault.pipeline import Pipeline, meanwhile
from holdfast.vault.putting import Failure, OnPut
from holdfast.vault.reading import Reader, Stored, blob_id, decode_chain
from holdfast.vault.recent import RecentFiles
from holdfast.vault.records import MAX_DEPTH, ConflictError, Entry, Recipe, RecipePiece
from holdfast.vault.sink import PackSink
from holdfast.vault.small_files import SMALL_BYTES, Answer, Asked, none_of
from holdfast.vault.split import WIDE, Piece, Split

# a file that is no longer is read once and kept
KEPT_BYTES = 64 << 20
PIECES_A_BATCH = 8
# a shorter piece is encoded before it could be sent to another process
MIN_SENT_BYTES = 32 << 10

_NUMBERS = {name: number for number, name in enumerate(CODECS)}

Held: TypeAlias = Mapping[bytes, "bytes | memoryview"]


@dataclass
class Tally:
    """What a session has done so far."""

    files: int = 0
    skipped: int = 0
    raw_bytes: int = 0
    new_blobs: int = 0
    known_blobs: int = 0


class Encoded(NamedTuple):
    """A blob with the chain that it needs, empty for none, and the codec of most of it."""

    blob: "bytes | memoryview"
    chain: Sequence[Entry]
    kind: int


@dataclass
class _File:
    """A file on its way through the pipeline."""

    oid: str
    name: str
    failed: HoldfastError | None = None


@dataclass
class _Work:
    """A piece that is to be encoded.

    Attributes:
        id: of its blob.
        piece: where it is.
        chain: the place of the same piece in another version, and of the bases below it.
        base_at: where that piece begins in the other version.
        cast: the same of what it may be a cast of.
    """

    id: bytes
    piece: Piece
    chain: Sequence[Entry] = ()
    base_at: int = -1
    cast: Sequence[Entry] = ()


class FileEncoder:
    """Puts files into a session's packs.

    Args:
        store: where the vault is.
        index: of the vault.
        sink: of the session.
        pipeline: runs what is encoded.
        tally: is told of what was done.
        jobs: requests at a time, for bases.
        max_restore_ratio: as of `holdfast.vault.session.Session`.

    Attributes:
        in_flight: files that were put and are not yet in a pack.
    """

    def __init__(
        self,
        store: ObjectStore,
        index: Index,
        sink: PackSink,
        pipeline: Pipeline,
        tally: Tally,
        *,
        jobs: int,
        max_restore_ratio: float,
    ) -> None:
        self._store, self._index, self._sink, self._pipeline, self._tally = store, index, sink, pipeline, tally
        self._jobs, self._ratio = jobs, max_restore_ratio
        self._submitted: set[bytes] = set()
        self.in_flight: set[str] = set()
        self._md5 = Pipeline(1, 3, "holdfast-md5")
        self._coders: Coders | None = None
        self._own_coders: Coders | None = None
        self._small = False
        self._recent = RecentFiles()

    def expect(self, nbytes: int, files: int = 1, coders: Coders | None = None) -> None:
        """Prepare for so many bytes in so many files, to be encoded by those processes, or by some of its own."""
        self._small = nbytes <= files * SMALL_BYTES
        count = coder_count(self._jobs)
        if nbytes >= WORTH_BYTES and count > 1 and self._coders is None:
            if coders is None:
                coders = self._own_coders = Coders(count)
            coders.begin(nbytes // count)
            self._coders = coders

    def read_ahead(self, files: Sequence[Asked], begun: int) -> "Future[Answer]":
        """Have small files read meanwhile, where it is expected that most are small; as of `Coders.read`."""
        if not self._small or self._coders is None:
            found: Future[Answer] = Future()
            found.set_result(none_of(files))
            return found
        return meanwhile(partial(self._coders.read, files, begun), "holdfast-reading")

    def close(self) -> None:
        """End its threads and its own processes."""
        self._md5.close()
        if self._own_coders is not None:
            self._own_coders.close()

    def put_bundle(self, bundle: Bundle, on_put: OnPut) -> None:
        """Put small files as one blob.

        Raises:
            StoreError: a pack could not be uploaded.
        """
        if bundle.nbytes and not bundle.name:
            data = b"".join(bundle.parts)
            bundle.parts.clear()
            bundle.name = blob_id(data)
        name, nbytes, recipes = bundle.name, bundle.nbytes, bundle.recipes()
        self.in_flight.update(oid for oid, _, _ in bundle.files)

        def done(_: object) -> None:
            self._sink.add_recipes(recipes)
            self.in_flight.difference_update(recipe.oid for recipe in recipes)
            self._tally.files += len(recipes)
            self._tally.raw_bytes += nbytes
            for recipe in recipes:
                on_put(recipe.oid, recipe.size)

        if nbytes and name not in self._there([name]):
            self._submitted.add(name)
            self._pipeline.submit(
                lambda: _described(bundle.encoded) if bundle.encoded else self._encoded(data, OPAQUE),
                lambda encoded: self._add(name, nbytes, encoded),
            )
        elif nbytes:
            self._tally.known_blobs += 1
        self._pipeline.submit(lambda: None, done)

    def put(
        self,
        oid: str,
        source: Source,
        split: Split,
        known: tuple[int, bytes] | None,
        failed: Failure,
        on_put: OnPut,
        base_oid: str | None = None,
        base_source: Source | None = None,
        max_restore_ratio: float | None = None,
        cast_oid: str | None = None,
    ) -> None:
        """Put a file that is not small; what goes wrong with it later is told to ``failed``.

        Args:
            oid: its name.
            source: its bytes.
            split: how it is cut.
            known: size and BLAKE3 that the vault knows under this oid.
            failed: is called with what turned out to be wrong with the file after this returned.
            on_put: is called when it is in a pack.
            base_oid: another version of it.
            base_source: that version, where it is at hand.
            max_restore_ratio: for this file; None for that of the session.
            cast_oid: a file of which it may be a cast.

        Raises:
            WrongNameError, ConflictError, IntegrityError: as of `holdfast.vault.session.Session.put`.
            StoreError: a pack could not be uploaded.
        """
        check_split(split, source)
        if source.size <= KEPT_BYTES:
            source = MemorySource(read_exactly(source, 0, source.size), source.name)
        measured = measure(oid, source, split, self._md5)
        if known is not None and known != (source.size, measured.digest):
            raise ConflictError(f"{oid} has another content in {self._store.url} than in {source.name}")
        file = _File(oid, source.name)
        if base_oid in self.in_flight or cast_oid in self.in_flight:
            self._pipeline.drain()
        there = self._there(measured.ids)
        work: dict[bytes, _Work] = {}
        others: dict[bytes, int] = {}
        for name, piece in zip(measured.ids, split.pieces, strict=True):
            if name in there:
                others[name] = piece.length
            elif name not in work:
                work[name] = _Work(name, piece)
        # what is on its way for another file may turn out to be bad with that
        awaited = {name for name in others if name in self._submitted}
        self._tally.known_blobs += len(others)
        items = list(work.values())
        ratio = self._ratio if max_restore_ratio is None else max_restore_ratio
        casts = [item for item in items if item.id in measured.casts] if ratio else []
        later = {item.id for item in casts}
        chosen = self._choose(source.size * ratio, base_oid, cast_oid, items, others)
        choice, held = chosen or (None, {})
        items = [item for item in items if item.id not in later]
        for start in range(0, len(items), PIECES_A_BATCH):
            batch = items[start : start + PIECES_A_BATCH]
            stored = self._fetched(batch, choice, held, at_hand=base_source is not None) if choice else {}
            for item in batch:
                self._submit(file, item, source, choice, stored, base_source, held)
        if casts:
            self._pipeline.drain()
            for item in casts:
                number = measured.casts[item.id]
                self._submit_cast(file, item, source, measured.ids[number], split.pieces[number])
        if isinstance(source, MemorySource) and ratio and any(piece.slot for piece in split.pieces):
            self._recent.add(source, measured.ids, split.pieces)
        recipe = Recipe(oid, source.size, measured.digest, split.format, measured.pieces(split))
        self.in_flight.add(oid)
        self._pipeline.submit(lambda: None, lambda _: self._finish(file, recipe, awaited, failed, on_put))

    def _finish(self, file: _File, recipe: Recipe, awaited: set[bytes], failed: Failure, on_put: OnPut) -> None:
        self.in_flight.discard(recipe.oid)
        if file.failed is None and any(name not in self._sink.entries for name in awaited):
            file.failed = IntegrityError(f"{file.name} shares bytes with a file that was changed while it was read")
        if file.failed is not None:
            failed(file.oid, file.failed)
            return
        self._sink.add_recipes([recipe])
        self._tally.files += 1
        self._tally.raw_bytes += recipe.size
        on_put(recipe.oid, recipe.size)

    def _there(self, ids: Sequence[bytes]) -> set[bytes]:
        """Blobs that need not be sent: in the vault, in this session's packs, or on their way to these."""
        own = {name for name in ids if name in self._sink.entries or name in self._submitted}
        rest = [name for name in dict.fromkeys(ids) if name not in own]
        return own | self._index.standing_entries(rest).keys() if rest else own

    def _choose(
        self,
        limit: float,
        base_oid: str | None,
        cast_oid: str | None,
        work: Sequence[_Work],
        others: Mapping[bytes, int],
    ) -> "tuple[BaseChoice, Held] | None":
        """Give pieces their chains of bases, where the file has another version that is known.

        Args:
            limit: how many stored bytes restoring the file may read.
            base_oid: the other version.
            cast_oid: what it may be a cast of.
            work: what is to be encoded.
            others: the file's blobs that are there already, with their plain bytes.
        """
        if not limit or not any(item.piece.slot for item in work):
            return None
        slots, wide = self._slots(base_oid), self._slots(cast_oid)
        if not slots and not wide:
            return None
        found = [(item, *slots[item.piece.slot]) for item in work if item.piece.slot in slots]
        casts = [(item, wide[item.piece.wide][0]) for item in work if item.piece.wide in wide]
        casts = [(item, piece) for item, piece in casts if piece.length == 2 * item.piece.length]
        placed = [name for name in others if name not in self._submitted or name in self._sink.entries]
        held = dict(self._sink.held)
        bases = [piece.blob for piece in (*(piece for _, piece, _ in found), *(piece for _, piece in casts))]
        try:
            plan = Reader(self._store, self._lookup, self._jobs).plan([*bases, *placed])
        except IntegrityError:  # no base can be read: the file is stored without
            return None
        for item, piece, at in found:
            item.chain, item.base_at = plan.chain(piece.blob), at
        for item, piece in casts:
            item.cast = plan.chain(piece.blob)
        budget = RestoreBudget(limit)
        for name, plain in others.items():
            if name in plan.entries:
                budget.count(plan.chain(name))
            else:
                budget.expect(plain)
        for item in work:
            budget.expect(item.piece.length)
        return BaseChoice(budget), held

    def _slots(self, oid: str | None) -> dict[int, tuple[RecipePiece, int]]:
        """The pieces of tensors of a file that is known, each with where in the file it begins."""
        if oid is None:
            return {}
        recipe = self._sink.recipes.get(oid) or self._index.recipes([oid], standing=True).get(oid)
        slots, place = {}, 0
        for piece in recipe.pieces if recipe is not None else ():
            if piece.slot:
                slots[piece.slot] = (piece, place)
            place += piece.length
        return slots

    def _lookup(self, ids: Sequence[bytes]) -> dict[bytes, list[Entry]]:
        own = {name: [self._sink.entries[name]] for name in ids if name in self._sink.entries}
        rest = [name for name in ids if name not in own]
        return own | {name: [entry] for name, entry in self._index.standing_entries(rest).items()}

    def _fetched(self, batch: Sequence[_Work], choice: BaseChoice, held: Held, *, at_hand: bool) -> Stored:
        """The bases that the pieces of a batch are likely to take, in few requests; more may turn out to be needed."""
        entries: list[Entry] = []
        for item in batch:
            chain = choice.candidate(item.piece.length, item.chain)
            if chain and chain[0].id not in self._recent and not (at_hand and len(chain) == len(item.chain)):
                entries += chain
            cast = choice.cast(item.piece.length, item.cast)
            if cast and cast[0].id not in self._recent:
                entries += cast
        return self._stored(entries, held)

    def _stored(self, entries: Sequence[Entry], held: Held) -> Stored:
        try:
            return Reader(self._store, self._lookup, self._jobs, held).fetch(entries)
        except (IntegrityError, StoreError):  # without bases it takes more room, and is no failure
            return {}

    def _submit(
        self,
        file: _File,
        item: _Work,
        source: Source,
        choice: BaseChoice | None,
        stored: Stored,
        base_source: Source | None,
        held: Held,
    ) -> None:
        self._submitted.add(item.id)
        data = read_exactly(source, item.piece.offset, item.piece.length)
        plain = len(data)
        chain = choice.candidate(plain, item.chain) if choice is not None else ()
        cast = choice.cast(plain, item.cast) if choice is not None else ()
        near = self._recent.plain(chain[0].id) if chain else None
        wider = self._recent.plain(cast[0].id) if cast else None
        kept = isinstance(source, MemorySource)
        if chain and near is None and base_source is not None and len(chain) == len(item.chain):
            near = _near(base_source, item.base_at, plain, chain[0].id)

        def work() -> Encoded | HoldfastError:
            if not kept and blob_id(data) != item.id:
                return _changed(source)
            if cast and (wide := wider or self._base(cast, stored, held)) is not None:
                derived = self._encoded(data, item.piece.dtype, wide, cast, WIDE)
                if len(derived.blob) <= most_of_cast(plain):
                    return derived
            base = near
            if chain and base is None:
                base = self._base(chain, stored, held)
            return self._encoded(data, item.piece.dtype, base, chain if base is not None else ())

        def done(result: Encoded | HoldfastError) -> None:
            if isinstance(result, HoldfastError):
                self._submitted.discard(item.id)
                file.failed = result
                return
            if result.chain:
                assert choice is not None
                if result.chain is not cast:
                    choice.tried(plain, len(result.blob))
                if not choice.budget.allows(plain, len(result.blob), result.chain):
                    result = self._encoded(data, item.piece.dtype)
            if choice is not None:
                choice.budget.encoded(plain, len(result.blob), result.chain)
            self._add(item.id, plain, result)

        self._pipeline.submit(work, done)

    def _submit_cast(self, file: _File, item: _Work, source: Source, wide: bytes, piece: Piece) -> None:
        """Encode a piece against another one of the same file, of which it is a cast and which is in a pack by now."""
        self._submitted.add(item.id)
        data = read_exactly(source, item.piece.offset, item.piece.length)
        base = read_exactly(source, piece.offset, piece.length)
        chain = self._lookup([wide]).get(wide, [])
        kept = isinstance(source, MemorySource)

        def work() -> Encoded | HoldfastError:
            if not kept and (blob_id(data) != item.id or blob_id(base) != wide):
                return _changed(source)
            if not chain or chain[0].depth >= MAX_DEPTH:
                return self._encoded(data, item.piece.dtype)
            return self._encoded(data, item.piece.dtype, base, chain, WIDE)

        def done(result: Encoded | HoldfastError) -> None:
            if isinstance(result, HoldfastError):
                self._submitted.discard(item.id)
                file.failed = result
            else:
                self._add(item.id, len(data), result)

        self._pipeline.submit(work, done)

    def _base(self, chain: Sequence[Entry], stored: Stored, held: Held) -> bytes | None:
        """A base's plain bytes; None where it cannot be read."""
        if any((entry.pack, entry.offset) not in stored for entry in chain):
            stored = self._stored(chain, held)
        try:
            return decode_chain(chain, stored)
        except (IntegrityError, KeyError):
            return None

    def _encoded(
        self,
        data: bytes,
        dtype: str,
        base: bytes | None = None,
        chain: Sequence[Entry] = (),
        base_dtype: str | None = None,
    ) -> Encoded:
        if self._coders is not None and len(data) >= MIN_SENT_BYTES:
            blob = self._coders.encode(data, dtype, base, base_dtype)
        else:
            blob = encode(data, dtype, base, base_dtype=base_dtype)
        return _described(blob, chain if base is not None else ())

    def _add(self, name: bytes, plain: int, encoded: Encoded) -> None:
        self._submitted.discard(name)
        if name in self._sink.entries:
            return
        base = encoded.chain[0] if encoded.chain else None
        entry = Entry(name, "", 0, 0, plain, base.id if base else b"", base.depth + 1 if base else 0, encoded.kind)
        self._sink.add(entry, encoded.blob)
        self._tally.new_blobs += 1


def _described(blob: "bytes | memoryview", chain: Sequence[Entry] = ()) -> Encoded:
    """A blob that may need a chain."""
    nbytes: dict[str, int] = {}
    for block in summary_of(blob).blocks:
        nbytes[block.codec] = nbytes.get(block.codec, 0) + block.nbytes
    kind = _NUMBERS[max(nbytes, key=lambda codec: nbytes[codec])] if nbytes else 0
    return Encoded(blob, chain if chain and needs_base(blob) else (), kind)


def _changed(source: Source) -> IntegrityError:
    return IntegrityError(f"{source.name} was changed while it was read")


def _near(source: Source, offset: int, count: int, name: bytes) -> bytes | None:
    """A base out of a file that is at hand; None where that is not what it should be."""
    if offset + count > source.size:
        return None
    try:
        data = read_exactly(source, offset, count)
    except (IntegrityError, OSError):
        return None
    return data if blob_id(data) == name else None
