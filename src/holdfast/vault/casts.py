"""Tensors that are casts of others: bfloat16 or float16 weights of which the float32 ones are stored, too.

A cast costs some bytes where the blob that it was cast from is its base. It is known by its content: what a float32
piece would be cast to is named as a blob is. Of a file all pieces are cast, to find what the same file has twice; to
find the file that another one is a cast of, some.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.formats.source import Source, read_exactly
from holdfast.vault.codec_elements import ELEMENTS, cast
from holdfast.vault.reading import blob_id
from holdfast.vault.split import HALVES, WIDE, Piece, Split

# pieces of a file that are looked at to find the file that it is a cast of: the shortest
PIECES_A_FILE = 32
MAX_REMEMBERED = 200_000


@dataclass
class Casts:
    """The casts of a file's float32 pieces that may be pieces of the same file.

    Args:
        pieces: of the file.

    Attributes:
        found: the piece that each was cast from, by the cast's id.
    """

    pieces: Sequence[Piece]
    found: dict[bytes, int] = field(default_factory=dict)
    _targets: tuple[str, ...] = ()
    _lengths: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        halves = [piece for piece in self.pieces if piece.dtype in HALVES]
        self._targets = tuple(sorted({piece.dtype for piece in halves}))
        self._lengths = frozenset(2 * piece.length for piece in halves)

    def look(self, number: int, data: memoryview) -> None:
        """Note what a piece's bytes would be cast to, where the file has pieces of that length."""
        piece = self.pieces[number]
        if piece.dtype == WIDE and piece.length in self._lengths:
            numbers = np.frombuffer(data, ELEMENTS[WIDE].unsigned)
            for target in self._targets:
                self.found.setdefault(blob_id(cast(numbers, WIDE, target).data.cast("B")), number)


class CastFiles:
    """Knows files of float32 tensors by what they would be cast to."""

    def __init__(self) -> None:
        self._files: OrderedDict[bytes, str] = OrderedDict()

    def look(self, oid: str, source: Source, split: Split) -> str | None:
        """The file that one is a cast of, as far as it is known; that one is known itself from now on.

        Raises:
            IntegrityError: it ended before its size.
            OSError: it cannot be read.
        """
        self._note(oid, source, split)
        return self._origin(source, split)

    def _note(self, oid: str, source: Source, split: Split) -> None:
        for piece in _shortest(piece for piece in split.pieces if piece.dtype == WIDE and piece.slot):
            numbers = np.frombuffer(read_exactly(source, piece.offset, piece.length), ELEMENTS[WIDE].unsigned)
            for target in sorted(HALVES):
                self._files[blob_id(cast(numbers, WIDE, target).data.cast("B"))] = oid
        while len(self._files) > MAX_REMEMBERED:
            self._files.popitem(last=False)

    def _origin(self, source: Source, split: Split) -> str | None:
        ids = (
            blob_id(read_exactly(source, piece.offset, piece.length))
            for piece in _shortest(piece for piece in split.pieces if piece.wide)
        )
        found = Counter(self._files[name] for name in ids if name in self._files)
        return min(found, key=lambda oid: (-found[oid], oid)) if found else None


def _shortest(pieces: Iterable[Piece]) -> list[Piece]:
    return sorted(pieces, key=lambda piece: (piece.length, piece.offset))[:PIECES_A_FILE]
