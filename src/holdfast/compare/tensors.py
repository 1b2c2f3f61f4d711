"""One tensor against another, streamed from both files."""

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.compare.figures import CHUNK_ELEMENTS, Figures, FigureSums
from holdfast.compare.values import CASTS, changed_elements, has_values, is_cast, values
from holdfast.formats.checkpoint import Checkpoint, Tensor
from holdfast.formats.content import tensor_chunks
from holdfast.formats.dtypes import BITS


@dataclass(frozen=True)
class TensorComparison:
    """Two tensors of one name.

    Attributes:
        name: relative to the weights where they are weights, else the full name.
        dtypes: of the one and the other.
        shapes: of the one and the other.
        equal: same dtype, shape and bytes.
        cast: one is the other's cast to its own narrower dtype, bit by bit.
        figures: how far they lie apart; None where the shapes differ or the bytes are no numbers.
    """

    name: str
    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    equal: bool
    cast: bool
    figures: Figures | None


def compare_tensors(name: str, a: tuple[Checkpoint, Tensor], b: tuple[Checkpoint, Tensor]) -> TensorComparison:
    """Compare two tensors in memory that does not grow with them.

    Raises:
        IntegrityError: a file is damaged or was cut short since it was opened.
        OSError: a file cannot be read.
    """
    one, other = a[1], b[1]
    dtypes, shapes = (one.dtype, other.dtype), (one.shape, other.shape)
    if one.shape != other.shape:
        return TensorComparison(name, dtypes, shapes, equal=False, cast=False, figures=None)
    if not (has_values(one.dtype) and has_values(other.dtype)):
        equal = one.dtype == other.dtype and _same_bytes(a, b)
        return TensorComparison(name, dtypes, shapes, equal=equal, cast=False, figures=None)
    sums = FigureSums()
    # the narrower of two float types is a cast of the wider until an element says otherwise
    wide_first = dtypes in CASTS
    all_cast = wide_first or dtypes[::-1] in CASTS
    for piece_a, piece_b in _paired(a, b):
        if one.dtype == other.dtype:
            changed = changed_elements(piece_a, piece_b, one.dtype)
        else:
            wide, narrow = (piece_a, piece_b) if wide_first else (piece_b, piece_a)
            pair = dtypes if wide_first else dtypes[::-1]
            all_cast = all_cast and is_cast(wide, narrow, *pair)
            numbers_a, numbers_b = values(piece_a, one.dtype), values(piece_b, other.dtype)
            changed = int((numbers_a != numbers_b).sum())
        sums.add(values(piece_a, one.dtype), values(piece_b, other.dtype), changed=changed)
    figures = sums.figures()
    equal = one.dtype == other.dtype and figures.changed == 0
    return TensorComparison(name, dtypes, shapes, equal=equal, cast=all_cast, figures=figures)


def _same_bytes(a: tuple[Checkpoint, Tensor], b: tuple[Checkpoint, Tensor]) -> bool:
    return all(bytes(piece_a) == bytes(piece_b) for piece_a, piece_b in _paired(a, b, packed=True))


def _paired(
    a: tuple[Checkpoint, Tensor], b: tuple[Checkpoint, Tensor], *, packed: bool = False
) -> Iterator[tuple[memoryview, memoryview]]:
    """Pieces of both with the same elements, as many as the processor's cache holds."""
    sizes = [CHUNK_ELEMENTS if packed else CHUNK_ELEMENTS * BITS[tensor.dtype] // 8 for _, tensor in (a, b)]
    return zip(_sliced(tensor_chunks(*a), sizes[0]), _sliced(tensor_chunks(*b), sizes[1]), strict=True)


def _sliced(pieces: Iterator[bytes], size: int) -> Iterator[memoryview]:
    """The same bytes in slices of ``size``, the last one shorter; copied only where a slice spans two pieces."""
    rest = b""
    for piece in pieces:
        start = 0
        if rest:
            start = size - len(rest)
            rest += piece[:start]
            if len(rest) < size:
                continue
            yield memoryview(rest)
        view = memoryview(piece)
        end = len(piece) - (len(piece) - start) % size if len(piece) > start else len(piece)
        for position in range(start, end, size):
            yield view[position : position + size]
        rest = piece[max(end, start) :]
    if rest:
        yield memoryview(rest)
