"""The codec's loops in NumPy: the reference.

The work goes piece by piece, each of which fits into a core's second-level cache.
"""

from collections.abc import Iterator
from itertools import accumulate
from operator import add, gt, sub

import numpy as np

from holdfast.vault.codec_elements import Array, Element
from holdfast.vault.codec_loops import Marks, Order

PIECE_ELEMENTS = 1 << 16  # no more: places are kept in 16 bits
# the most that glibc adapts to, less what it adds for itself
_KEPT_BYTES = (1 << 25) - (1 << 16)
_SIGNED = {width: np.dtype(f"<i{width}") for width in (1, 2, 4, 8)}


class NumpyLoops:
    """NumPy's `holdfast.vault.codec_loops.Loops`."""

    name = f"NumPy {np.__version__}"

    def __init__(self) -> None:
        # glibc returns what is freed to the system, and has it cleared again for the next array, until it has seen a
        # large array freed; nothing is written here, so that no memory is taken. Sorting is five times as fast.
        np.empty(_KEPT_BYTES, np.uint8)

    def differences(
        self, values: Array, base: Array, element: Element, lowest: int, buckets: int
    ) -> tuple[Array, list[int], Order]:
        """The differences, sorted by bucket, how many each bucket has, and what `restore` may be given."""
        out = np.empty_like(values)
        if buckets == 1:
            for piece in _pieces(len(out)):
                out[piece] = folded_differences(values[piece], base[piece], element)
            return out, [len(out)], None
        in_order, rows, order = np.empty_like(values), [], []
        for piece in _pieces(len(out)):
            codes = base[piece]
            found = buckets_of(codes, element, lowest, buckets)
            places, bounds = _places(found, buckets)
            in_order[piece] = folded_differences(values[piece], codes, element).take(places)
            rows.append(bounds)
            order.append(places.astype(np.uint16))  # of 64 bits, they would not stay in the cache until they are needed
        counts = [sum(lengths) for lengths in zip(*map(_lengths, rows), strict=True)]
        targets = _starts(counts)
        for piece, bounds in zip(_pieces(len(out)), rows, strict=True):
            _move(in_order[piece], bounds, targets, out, back=False)
            targets = list(map(add, targets, _lengths(bounds)))
        return out, counts, order

    def restore(
        self,
        differences: Array,
        base: Array,
        element: Element,
        lowest: int,
        counts: list[int],
        out: Array,
        order: Order = None,
    ) -> bool:
        """The values that `differences` was given, written to ``out``; whether the buckets are the base's."""
        in_order, as_they_lie = np.empty((2, min(PIECE_ELEMENTS, len(out))), out.dtype)
        if len(counts) == 1:
            for piece in _pieces(len(out)):
                _unfold(differences[piece], base[piece], element, (in_order, as_they_lie), out[piece])
            return True
        sources, ends = _starts(counts), list(accumulate(counts))
        known = iter(order or ())
        for piece in _pieces(len(out)):
            codes = base[piece]
            found = buckets_of(codes, element, lowest, len(counts))
            places, bounds = _places(found, len(counts), next(known, None))
            following = list(map(add, sources, _lengths(bounds)))
            if any(map(gt, following, ends)):
                return False
            _move(in_order, bounds, sources, differences, back=True)
            sources = following
            as_they_lie[places] = in_order[: len(places)]
            _unfold(as_they_lie[: len(places)], codes, element, (in_order, as_they_lie), out[piece])
        return True  # no bucket has more than it should, and all together have as many

    def split_zeros(self, values: Array, nonzero: int) -> tuple[Array, Array]:
        """A bitmap of which values are not zero, the lowest bit of a byte first, and those values."""
        flags = values != 0
        bitmap = np.packbits(flags, bitorder="little")
        if len(values) <= PIECE_ELEMENTS:
            return bitmap, values.take(flags.nonzero()[0])
        kept, taken = np.empty(nonzero, values.dtype), 0
        for piece in _pieces(len(values)):
            places = flags[piece].nonzero()[0]
            kept[taken : taken + len(places)] = values[piece].take(places)
            taken += len(places)
        return bitmap, kept

    def marks(self, bitmap: Array, length: int) -> tuple[Marks, int]:
        """What `join_zeros` takes for a bitmap, and how many of its bits are set."""
        flags = np.unpackbits(bitmap, count=length, bitorder="little").view(np.bool_)
        if length <= PIECE_ELEMENTS:
            places = flags.nonzero()
        else:
            places = tuple(flags[piece].nonzero()[0] for piece in _pieces(length))
        return places, sum(map(len, places))

    def join_zeros(self, marks: Marks, nonzero: Array, shift: int, out: Array) -> None:
        """What `split_zeros` was given, shifted to the left, is added to ``out``."""
        if nonzero.dtype != out.dtype:
            out = out.view(np.uint8)[shift // 8 :: out.itemsize]
        if len(marks) == 1:
            out[marks] = nonzero
            return
        taken = 0
        for piece, places in zip(_pieces(len(out)), marks, strict=True):
            out[piece][places] = nonzero[taken : taken + len(places)]
            taken += len(places)

    def add_plane(self, plane: Array, shift: int, out: Array) -> None:
        """Bytes, shifted to the left, are added to ``out``."""
        for piece in _pieces(len(out)):
            part = plane[piece].astype(out.dtype)
            part <<= shift
            out[piece] |= part


def _pieces(length: int) -> Iterator[slice]:
    for start in range(0, length, PIECE_ELEMENTS):
        yield slice(start, start + PIECE_ELEMENTS)


def _places(found: Array, buckets: int, known: Array | None = None) -> tuple[Array, list[int]]:
    """The places of a piece's elements, sorted by bucket, intp of shape (elements,); and where each bucket begins among
    them, and the last one ends.

    Args:
        found: the bucket of each element.
        buckets: how many there are.
        known: the places, where they are known: to prove them is faster than to find them.
    """
    numbers = np.arange(buckets, dtype=np.uint8)
    if known is not None:
        places = known.astype(np.intp)
        in_order = found.take(places)
        # bucket by bucket, and ascending in each: then no place is there twice
        rises = in_order[1:] > in_order[:-1]
        rises |= known[1:] > known[:-1]
        if rises.all() and (in_order[1:] >= in_order[:-1]).all():
            return places, [*in_order.searchsorted(numbers).tolist(), len(places)]
    # bytes are sorted by counting, which is as fast on a processor without wide vectors
    places = np.argsort(found, kind="stable")
    return places, [*found.searchsorted(numbers, sorter=places).tolist(), len(places)]


def _lengths(bounds: list[int]) -> list[int]:
    return list(map(sub, bounds[1:], bounds))


def _starts(counts: list[int]) -> list[int]:
    return list(accumulate(counts[:-1], initial=0))


def _move(piece: Array, bounds: list[int], places: list[int], block: Array, *, back: bool) -> None:
    """A sorted piece's part of each bucket to its place in the sorted block, or back."""
    for low, high, place in zip(bounds, bounds[1:], places, strict=False):
        if low < high:
            if back:
                piece[low:high] = block[place : place + high - low]
            else:
                block[place : place + high - low] = piece[low:high]


def buckets_of(base: Array, element: Element, lowest: int, buckets: int) -> Array:
    """The bucket of each element: uint8 of shape (elements,)."""
    found = exponents_of(base, element)
    limit = found.dtype.type
    found.clip(limit(lowest), limit(lowest + buckets - 1), out=found)
    found -= limit(lowest)
    return found.astype(np.uint8, copy=False)


def exponents_of(base: Array, element: Element) -> Array:
    """The exponent of each element: uint8, or where that is too short, the element's own type."""
    exponents = base >> (element.mantissa or 0)
    if element.exponent_bits == 8:
        return exponents.astype(np.uint8)  # the sign, above the exponent, falls away
    exponents &= (1 << element.exponent_bits) - 1
    return exponents if element.exponent_bits > 8 else exponents.astype(np.uint8)


def folded_differences(values: Array, base: Array, element: Element) -> Array:
    """The differences as their numbers lie."""
    shift = element.bits - 1
    if element.mantissa is None:
        steps = values - base
    else:
        steps = _signs(values ^ base, shift)
        steps &= (1 << shift) - 1
        steps ^= values
        steps -= base
    folded = steps << 1
    folded ^= _signs(steps, shift)  # the steps themselves are not needed any more
    return folded


def _unfold(folded: Array, base: Array, element: Element, scratch: tuple[Array, Array], out: Array) -> None:
    """The values of a piece, as their numbers lie; ``folded`` may be the second of the ``scratch`` that is used."""
    other, steps = (part[: len(out)] for part in scratch)
    np.bitwise_and(folded, 1, out=other)
    np.right_shift(folded, 1, out=steps)
    np.negative(other, out=other)
    steps ^= other
    if element.mantissa is None:
        np.add(steps, base, out=out)
        return
    steps += base
    np.bitwise_xor(steps, base, out=other)
    crossed = _signs(other, element.bits - 1)
    crossed &= (1 << (element.bits - 1)) - 1
    np.bitwise_xor(steps, crossed, out=out)


def _signs(values: Array, shift: int) -> Array:
    """All bits of each value as its highest one is; written over them."""
    signed = values.view(_SIGNED[values.itemsize])
    signed >>= shift
    return values
