"""The codec's loops in numba, compiled at the first use and kept in numba's cache: the same results as NumPy's.

What NumPy does with wide vectors, too, is left to it.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numba import njit

from holdfast.vault.codec_elements import Array, Element
from holdfast.vault.codec_loops import Order
from holdfast.vault.codec_numpy import NumpyLoops, buckets_of

# A block is gone through at two places in turn: at one place, sorting a number into its bucket would wait for the one
# before, which is most often of the same bucket.
LANES = 2


@dataclass(frozen=True)
class NumbaOrder(Order):
    """The same.

    Attributes:
        buckets: of each element; uint8 of shape (elements,).
        starts: where the first element of each bucket goes, for each lane, and for all that a byte may say; uint64 of
            shape (LANES, 256).
    """

    buckets: Array
    starts: Array


class NumbaLoops(NumpyLoops):
    """numba's `holdfast.vault.codec_loops.Loops`."""

    name = f"numba {numba.__version__}"

    def order(self, base: Array, element: Element, lowest: int, buckets: int, counts: Array | None = None) -> Order:
        """The order by the exponents of a block of floats."""
        found = buckets_of(base, element, lowest, buckets)
        half = len(found) // LANES
        lanes = np.zeros((LANES, 256), np.int64)
        lanes[0] = _count(found[:half])
        if counts is None:
            lanes[1] = _count(found[half:])
        else:
            lanes[1, :buckets] = counts
            lanes[1] -= lanes[0]
        totals = lanes.sum(axis=0)
        starts = np.cumsum(totals) - totals + np.cumsum(lanes, axis=0) - lanes
        return NumbaOrder(lowest, totals[:buckets], found, starts.astype(np.uint64))

    def holds(self, order: Order, base: Array, element: Element) -> bool:
        """Whether an order is that of the base: as good a proof as finding it again, and faster."""
        if not isinstance(order, NumbaOrder):
            return False
        return np.array_equal(buckets_of(base, element, order.lowest, len(order.counts)), order.buckets)

    def differences(self, values: Array, base: Array, element: Element, order: Order | None) -> Array:
        """The differences, in their order; as they lie in the block where it is None."""
        if not isinstance(order, NumbaOrder):
            return super().differences(values, base, element, order)
        folded, out = np.empty_like(values), np.empty_like(values)
        _fold(values, base, _bits(element), folded)
        _sort(folded, order.buckets, order.starts.copy(), out)
        return out

    def restore(self, differences: Array, base: Array, element: Element, order: Order | None, out: Array) -> None:
        """The values that `differences` was given, written to ``out``."""
        if isinstance(order, NumbaOrder):
            # not in place, where the compiler's wide vectors are not used
            folded = np.empty_like(differences)
            _unsort(differences, order.buckets, order.starts.copy(), folded)
            _unfold(folded, base, _bits(element), out)
        else:
            super().restore(differences, base, element, order, out)

    def split_zeros(self, values: Array) -> tuple[Array, Array]:
        """A bitmap of which values are not zero, the lowest bit of a byte first, and those values."""
        nonzero = np.empty(np.count_nonzero(values) + 1, values.dtype)
        _keep_nonzero(values, nonzero)
        return np.packbits(values != 0, bitorder="little"), nonzero[:-1]

    def join_zeros(self, flags: Array, nonzero: Array) -> Array:
        """The values that `split_zeros` was given."""
        if not len(nonzero):
            return np.zeros(len(flags), nonzero.dtype)
        values = np.empty(len(flags), nonzero.dtype)
        # as numbers: with booleans, the compiler makes a branch that is guessed wrong half of the time
        _spread(flags.view(np.uint8), nonzero, values)
        return values


def _bits(element: Element) -> Array:
    """All bits but the sign, the sign's place, and one, in the element's own type: wider ones would make no vectors."""
    return np.array([(1 << (element.bits - 1)) - 1, element.bits - 1, 1], element.unsigned)


# Each loop is a function of its own: in one with others, the compiler neither unrolls the lanes nor makes wide vectors.


@njit(cache=True, nogil=True)
def _count(buckets: Array) -> Array:
    # four tables, or one count would wait for the one before
    counts = np.zeros((4, 256), np.uint32)
    quarter = len(buckets) // 4
    for place in range(quarter):
        for side in range(4):
            counts[side, buckets[side * quarter + place]] += np.uint32(1)
    for place in range(4 * quarter, len(buckets)):
        counts[0, buckets[place]] += np.uint32(1)
    totals: Array = counts.sum(axis=0)
    return totals


@njit(cache=True, nogil=True)
def _fold(values: Array, base: Array, bits: Array, out: Array) -> None:
    below, shift, one = bits
    for place in range(len(out)):
        value, code = values[place], base[place]
        crossed = np.uint64(0) - (((value ^ code) >> shift) & one)
        steps = (value ^ (crossed & below)) - code
        out[place] = (steps << one) ^ (np.uint64(0) - ((steps >> shift) & one))


@njit(cache=True, nogil=True)
def _unfold(folded: Array, base: Array, bits: Array, out: Array) -> None:
    below, shift, one = bits
    for place in range(len(out)):
        difference, code = folded[place], base[place]
        value = ((difference >> one) ^ (np.uint64(0) - (difference & one))) + code
        crossed = np.uint64(0) - (((value ^ code) >> shift) & one)
        out[place] = value ^ (crossed & below)


@njit(cache=True, nogil=True)
def _sort(values: Array, buckets: Array, starts: Array, out: Array) -> None:
    # what is sorted by a faulty order is found out later; a place outside of the array would be written to at once
    end = np.uint64(len(out) - 1)
    half = len(out) // LANES
    for place in range(half):
        for lane in range(LANES):
            bucket = buckets[lane * half + place]
            target = starts[lane, bucket]
            out[min(target, end)] = values[lane * half + place]
            starts[lane, bucket] = target + np.uint64(1)
    for place in range(LANES * half, len(out)):
        target = starts[LANES - 1, buckets[place]]
        out[min(target, end)] = values[place]
        starts[LANES - 1, buckets[place]] = target + np.uint64(1)


@njit(cache=True, nogil=True)
def _unsort(values: Array, buckets: Array, starts: Array, out: Array) -> None:
    end = np.uint64(len(out) - 1)
    half = len(out) // LANES
    for place in range(half):
        for lane in range(LANES):
            bucket = buckets[lane * half + place]
            source = starts[lane, bucket]
            out[lane * half + place] = values[min(source, end)]
            starts[lane, bucket] = source + np.uint64(1)
    for place in range(LANES * half, len(out)):
        source = starts[LANES - 1, buckets[place]]
        out[place] = values[min(source, end)]
        starts[LANES - 1, buckets[place]] = source + np.uint64(1)


@njit(cache=True, nogil=True)
def _keep_nonzero(values: Array, out: Array) -> None:
    kept, end = np.uint64(0), np.uint64(len(out) - 1)
    for place in range(len(values)):
        # written always and counted only where it is kept: no branch to be guessed wrong
        out[min(kept, end)] = values[place]
        kept += np.uint64(values[place] != 0)


@njit(cache=True, nogil=True)
def _spread(flags: Array, nonzero: Array, out: Array) -> None:
    taken = np.uint64(0)
    end = np.uint64(len(nonzero) - 1)
    for place in range(len(out)):
        flag = flags[place]
        out[place] = nonzero[min(taken, end)] * flag
        taken += np.uint64(flag)
