"""The codec's loops in NumPy: the reference.

The work goes piece by piece, each of which fits into a core's second-level cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from holdfast.vault.codec_elements import Array, Element
from holdfast.vault.codec_loops import Order

PIECE_ELEMENTS = 3 << 14
# the most that glibc adapts to, less what it adds for itself
_KEPT_BYTES = (1 << 25) - (1 << 16)


@dataclass(frozen=True)
class NumpyOrder(Order):
    """The same, piece by piece.

    Attributes:
        places: for each piece the places of its sorted elements, counted from its start; intp.
        bounds: where each bucket begins among them, and where the last one ends; int64 of shape (pieces, buckets + 1).
    """

    places: list[Array]
    bounds: Array

    def pieces(self) -> Iterator[tuple[slice, Array, list[tuple[slice, slice]]]]:
        """For each piece where it lies in the block, its places, and from where to where its part of each bucket goes:
        a slice of the sorted piece, a slice of the sorted block.
        """
        lengths = np.diff(self.bounds, axis=1)
        targets = np.cumsum(self.counts) - self.counts + np.cumsum(lengths, axis=0) - lengths
        start = 0
        for place, bounds, row in zip(self.places, self.bounds.tolist(), targets.tolist(), strict=True):
            parts = [
                (slice(low, high), slice(target, target + high - low))
                for low, high, target in zip(bounds, bounds[1:], row, strict=False)
                if low < high
            ]
            yield slice(start, start + len(place)), place, parts
            start += len(place)


class NumpyLoops:
    """NumPy's `holdfast.vault.codec_loops.Loops`."""

    name = f"NumPy {np.__version__}"

    def __init__(self) -> None:
        # glibc returns what is freed to the system, and has it cleared again for the next array, until it has seen a
        # large array freed; nothing is written here, so that no memory is taken. Sorting is five times as fast.
        np.empty(_KEPT_BYTES, np.uint8)

    def order(self, base: Array, element: Element, lowest: int, buckets: int, counts: Array | None = None) -> Order:
        """The order by the exponents of a block of floats."""
        del counts  # sorting finds them out anyway
        bounds, places = [], []
        wanted = np.arange(buckets + 1, dtype=np.uint16)
        for piece in _pieces(len(base)):
            found = buckets_of(base[piece], element, lowest, buckets)
            # bytes are sorted by counting, which is as fast on a processor without wide vectors
            place = np.argsort(found, kind="stable")
            bounds.append(found.take(place).searchsorted(wanted))
            places.append(place)
        table = np.stack(bounds)
        return NumpyOrder(lowest, np.diff(table, axis=1).sum(axis=0), places, table)

    def holds(self, order: Order, base: Array, element: Element) -> bool:
        """Whether an order is that of the base: as good a proof as finding it again, and faster."""
        if not isinstance(order, NumpyOrder):
            return False
        all_buckets = np.arange(len(order.counts), dtype=np.uint8)
        for piece, place, bounds in zip(_pieces(len(base)), order.places, order.bounds, strict=True):
            in_order = buckets_of(base[piece], element, order.lowest, len(order.counts)).take(place)
            if not np.array_equal(in_order, np.repeat(all_buckets, np.diff(bounds))):
                return False
            falls = np.flatnonzero(place[1:] <= place[:-1])
            if not (in_order[falls] < in_order[falls + 1]).all():
                return False
        return True

    def differences(self, values: Array, base: Array, element: Element, order: Order | None) -> Array:
        """The differences, in their order; as they lie in the block where it is None."""
        out = np.empty_like(values)
        if isinstance(order, NumpyOrder):
            for piece, place, runs in order.pieces():
                in_order = folded_differences(values[piece], base[piece], element).take(place)
                for source, target in runs:
                    out[target] = in_order[source]
        else:
            for piece in _pieces(len(out)):
                out[piece] = folded_differences(values[piece], base[piece], element)
        return out

    def restore(self, differences: Array, base: Array, element: Element, order: Order | None, out: Array) -> None:
        """The values that `differences` was given, written to ``out``."""
        if isinstance(order, NumpyOrder):
            in_order, as_they_lie = np.empty((2, min(PIECE_ELEMENTS, len(out))), out.dtype)
            for piece, place, runs in order.pieces():
                for source, target in runs:
                    in_order[source] = differences[target]
                as_they_lie[place] = in_order[: len(place)]
                out[piece] = _values(as_they_lie[: len(place)], base[piece], element)
        else:
            for piece in _pieces(len(out)):
                out[piece] = _values(differences[piece], base[piece], element)

    def split_zeros(self, values: Array) -> tuple[Array, Array]:
        """A bitmap of which values are not zero, the lowest bit of a byte first, and those values."""
        nonzero = values != 0
        kept = [values[piece].take(np.flatnonzero(nonzero[piece])) for piece in _pieces(len(values))]
        return np.packbits(nonzero, bitorder="little"), np.concatenate(kept)

    def join_zeros(self, flags: Array, nonzero: Array) -> Array:
        """The values that `split_zeros` was given."""
        values = np.zeros(len(flags), nonzero.dtype)
        taken = 0
        for piece in _pieces(len(flags)):
            places = np.flatnonzero(flags[piece])
            values[piece][places] = nonzero[taken : taken + len(places)]
            taken += len(places)
        return values


def _pieces(length: int) -> Iterator[slice]:
    for start in range(0, length, PIECE_ELEMENTS):
        yield slice(start, start + PIECE_ELEMENTS)


def buckets_of(base: Array, element: Element, lowest: int, buckets: int) -> Array:
    """The bucket of each element: uint8 of shape (elements,)."""
    exponents = exponents_of(base, element)
    found: Array = np.clip(exponents, lowest, lowest + buckets - 1)
    found -= exponents.dtype.type(lowest)
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
    folded ^= _signs(steps, shift)
    return folded


def _values(folded: Array, base: Array, element: Element) -> Array:
    steps = folded >> 1
    steps ^= -(folded & 1)
    steps += base
    if element.mantissa is not None:
        shift = element.bits - 1
        crossed = _signs(steps ^ base, shift)
        crossed &= (1 << shift) - 1
        steps ^= crossed
    return steps


def _signs(values: Array, shift: int) -> Array:
    """All bits of each value as its highest one is."""
    return (values.view(f"<i{values.dtype.itemsize}") >> shift).view(values.dtype)
