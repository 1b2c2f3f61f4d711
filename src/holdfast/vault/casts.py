"""Tensors that are casts of others: bfloat16 or float16 weights of which the float32 ones are stored, too.

A cast costs some bytes where the blob that it was cast from is its base. It is known by its content: what a float32
piece would be cast to is named as a blob is. Of a file all pieces are cast, to find what the same file has twice; to
find the file that another one is a cast of, some.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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


class CastNames(NamedTuple):
    """What tells whether one file is a cast of another.

    Attributes:
        casts: what some of its float32 pieces would be cast to.
        halves: some of its pieces of half as many bytes.
    """

    casts: tuple[bytes, ...]
    halves: tuple[bytes, ...]


def cast_names(source: Source, split: Split) -> CastNames:
    """The names of a file for `CastFiles`.

    Raises:
        IntegrityError: it ended before its size.
        OSError: it cannot be read.
    """
    casts = []
    for piece in _shortest(piece for piece in split.pieces if piece.dtype == WIDE and piece.slot):
        numbers = np.frombuffer(read_exactly(source, piece.offset, piece.length), ELEMENTS[WIDE].unsigned)
        casts += [blob_id(cast(numbers, WIDE, target).data.cast("B")) for target in sorted(HALVES)]
    halves = _shortest(piece for piece in split.pieces if piece.wide)
    return CastNames(tuple(casts), tuple(blob_id(read_exactly(source, piece.offset, piece.length)) for piece in halves))


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
        return self.origin(oid, cast_names(source, split))

    def origin(self, oid: str, names: CastNames) -> str | None:
        """The same by its names alone."""
        self._files.update(dict.fromkeys(names.casts, oid))
        while len(self._files) > MAX_REMEMBERED:
            self._files.popitem(last=False)
        found = Counter(self._files[name] for name in names.halves if name in self._files)
        return min(found, key=lambda other: (-found[other], other)) if found else None


def _shortest(pieces: Iterable[Piece]) -> list[Piece]:
    return sorted(pieces, key=lambda piece: (piece.length, piece.offset))[:PIECES_A_FILE]
