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

# A block is gone through at four places in turn: at one place, sorting a number into its bucket would wait for the one
# before, which is most often of the same bucket.
LANES = 4


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

    def order(self, base: Array, element: Element, lowest: int, buckets: int) -> Order:
        """The order by the exponents of a block of floats."""
        found = buckets_of(base, element, lowest, buckets)
        lanes = _count(found)
        totals = lanes.sum(axis=0, dtype=np.int64)
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
        values = np.zeros(len(flags), nonzero.dtype)
        if len(nonzero):
            _spread(flags, nonzero, values)
        return values


def _bits(element: Element) -> Array:
    """All bits but the sign, the sign's place, and one, in the element's own type: wider ones would make no vectors."""
    return np.array([(1 << (element.bits - 1)) - 1, element.bits - 1, 1], element.unsigned)


# Each loop is a function of its own: in one with others, the compiler neither unrolls the lanes nor makes wide vectors.


@njit(cache=True, nogil=True)
def _count(buckets: Array) -> Array:
    counts = np.zeros((LANES, 256), np.uint32)
    quarter = len(buckets) // LANES
    for place in range(quarter):
        for lane in range(LANES):
            counts[lane, buckets[lane * quarter + place]] += np.uint32(1)
    for place in range(LANES * quarter, len(buckets)):
        counts[LANES - 1, buckets[place]] += np.uint32(1)
    return counts


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
    quarter = len(out) // LANES
    for place in range(quarter):
        for lane in range(LANES):
            bucket = buckets[lane * quarter + place]
            target = starts[lane, bucket]
            out[min(target, end)] = values[lane * quarter + place]
            starts[lane, bucket] = target + np.uint64(1)
    for place in range(LANES * quarter, len(out)):
        target = starts[LANES - 1, buckets[place]]
        out[min(target, end)] = values[place]
        starts[LANES - 1, buckets[place]] = target + np.uint64(1)


@njit(cache=True, nogil=True)
def _unsort(values: Array, buckets: Array, starts: Array, out: Array) -> None:
    end = np.uint64(len(out) - 1)
    quarter = len(out) // LANES
    for place in range(quarter):
        for lane in range(LANES):
            bucket = buckets[lane * quarter + place]
            source = starts[lane, bucket]
            out[lane * quarter + place] = values[min(source, end)]
            starts[lane, bucket] = source + np.uint64(1)
    for place in range(LANES * quarter, len(out)):
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
