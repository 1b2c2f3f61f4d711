"""Files as they are before anything is encoded: their digests, and the small ones put together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from blake3 import blake3

from holdfast.formats.source import Source, read_exactly
from holdfast.vault.casts import Casts
from holdfast.vault.codec_elements import OPAQUE
from holdfast.vault.oids import check_md5, hasher_of
from holdfast.vault.pipeline import Pipeline
from holdfast.vault.reading import blob_id
from holdfast.vault.records import MAX_PIECES, Recipe, RecipePiece
from holdfast.vault.split import Piece, Split

READ_BYTES = 8 << 20


@dataclass
class Bundle:
    """Small files that share a blob.

    Attributes:
        files: oid, length and BLAKE3 of each, in their order.
        nbytes: of all of them.
        parts: their bytes; none where the blob is there already.
        name: of the blob; empty where it is not known yet.
        encoded: the blob.
    """

    files: list[tuple[str, int, bytes]] = field(default_factory=list)
    nbytes: int = 0
    parts: "list[bytes | memoryview]" = field(default_factory=list)
    name: bytes = b""
    encoded: "bytes | memoryview" = b""

    def add(self, oid: str, data: "bytes | memoryview", digest: bytes) -> None:
        """Append a file."""
        self.files.append((oid, len(data), digest))
        self.parts.append(data)
        self.nbytes += len(data)

    def recipes(self) -> list[Recipe]:
        """How the files are put together of the blob, whose name is known."""
        ends = accumulate((length for _, length, _ in self.files), initial=0)
        return [
            Recipe(oid, length, digest, OPAQUE, (RecipePiece(self.name, start, length, 0),) if length else ())
            for (oid, length, digest), start in zip(self.files, ends, strict=False)
        ]


class Measured(NamedTuple):
    """A file as it was read the first time.

    Attributes:
        digest: BLAKE3 of all of it.
        ids: that of each piece.
        casts: for each piece that is a cast of another one, the number of that one, by the cast's id.
    """

    digest: bytes
    ids: list[bytes]
    casts: Mapping[bytes, int]

    def pieces(self, split: Split) -> tuple[RecipePiece, ...]:
        """The pieces of its recipe: every one is a blob of its own."""
        return tuple(
            RecipePiece(name, 0, piece.length, piece.slot) for name, piece in zip(self.ids, split.pieces, strict=True)
        )


def measure(oid: str, source: Source, split: Split, md5: Pipeline) -> Measured:
    """Read a file, and see that it is what its oid says.

    Args:
        oid: its name.
        source: its bytes, which are read once, some `READ_BYTES` at a time.
        split: how it is cut.
        md5: takes the md5, of one file at a time, while the next bytes are read.

    Raises:
        WrongNameError: it is not.
        IntegrityError: it ended before its size.
        OSError: it cannot be read.
    """
    hasher, digest, ids, casts = hasher_of(oid), blake3(), [], Casts(split.pieces)
    for start, stop in _spans(split.pieces):
        first = split.pieces[start].offset
        last = split.pieces[stop - 1]
        data = read_exactly(source, first, last.offset + last.length - first)
        if hasher is not None:
            md5.submit(lambda data=data: hasher.update(data), lambda _: None)  # type: ignore[misc]
        digest.update(data)
        view = memoryview(data)
        for number, piece in enumerate(split.pieces[start:stop], start):
            part = view[piece.offset - first :][: piece.length]
            ids.append(blob_id(part))
            casts.look(number, part)
    md5.drain()
    check_md5(oid, hasher, source.name)
    return Measured(digest.digest(), ids, casts.found)


def check_split(split: Split, source: Source) -> None:
    """See that pieces cover a file.

    Raises:
        ValueError: they do not.
    """
    place = 0
    for piece in split.pieces:
        if piece.offset != place or piece.length <= 0:
            raise ValueError(f"the pieces of {source.name} have a gap, or overlap, at byte {place}")
        place += piece.length
    if place != source.size or len(split.pieces) > MAX_PIECES:
        raise ValueError(f"{len(split.pieces)} pieces have {place} bytes of {source.name}, which has {source.size}")


def _spans(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Parts of the pieces of some `READ_BYTES` each: the first, and the one behind the last."""
    start = nbytes = 0
    for number, piece in enumerate(pieces):
        if number > start and nbytes + piece.length > READ_BYTES:
            yield start, number
            start, nbytes = number, 0
        nbytes += piece.length
    if pieces:
        yield start, len(pieces)
