"""The codec's loops in numba, compiled at the first use and kept in numba's cache: the same results as NumPy's.

What NumPy does with wide vectors, too, is left to it.
"""

from functools import cache

import numba
import numpy as np
from numba import njit

from holdfast.vault.codec_elements import Array, Element
from holdfast.vault.codec_loops import Marks, Order
from holdfast.vault.codec_numpy import NumpyLoops

# where no more than one value in so many is not zero, most runs of eight are looked at once
_SPARSE = 32


class NumbaLoops(NumpyLoops):
    """numba's `holdfast.vault.codec_loops.Loops`."""

    name = f"numba {numba.__version__}"

    def differences(
        self, values: Array, base: Array, element: Element, lowest: int, buckets: int
    ) -> tuple[Array, list[int], Order]:
        """The differences, sorted by bucket, how many each bucket has, and what `restore` may be given."""
        if buckets == 1:
            return super().differences(values, base, element, lowest, buckets)
        found, counts = _buckets_of(base, element, lowest, buckets), np.zeros(256, np.uint64)
        _count(found, counts)
        folded, out = np.empty_like(values), np.empty_like(values)
        _fold(values, base, _bits(element), folded)
        _sort(folded, found, counts, out)
        return out, counts[:buckets].tolist(), None

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
        if len(counts) == 1:
            return super().restore(differences, base, element, lowest, counts, out)
        del order  # finding it is as fast as proving it
        found = _buckets_of(base, element, lowest, len(counts))
        expected = np.zeros(256, np.uint64)
        expected[: len(counts)] = counts
        # not in place, where the compiler's wide vectors are not used
        folded = np.empty_like(differences)
        right: bool = _unsort(differences, found, expected, folded)
        _unfold(folded, base, _bits(element), out)
        return right

    def split_zeros(self, values: Array, nonzero: int) -> tuple[Array, Array]:
        """A bitmap of which values are not zero, the lowest bit of a byte first, and those values."""
        bitmap, kept = np.empty(-(-len(values) // 8), np.uint8), np.empty_like(values)
        _split_zeros(values, bitmap, kept, nonzero < len(values) // _SPARSE)
        return bitmap, kept[:nonzero]

    def marks(self, bitmap: Array, length: int) -> tuple[Marks, int]:
        """What `join_zeros` takes for a bitmap, and how many of its bits are set."""
        del length
        return bitmap, _ones(bitmap)

    def join_zeros(self, marks: Marks, nonzero: Array, shift: int, out: Array) -> None:
        """What `split_zeros` was given, shifted to the left, is added to ``out``."""
        if len(nonzero):
            _join_zeros(marks, nonzero, np.uint64(shift), out)

    def add_plane(self, plane: Array, shift: int, out: Array) -> None:
        """Bytes, shifted to the left, are added to ``out``."""
        _add_plane(plane, np.array([shift], out.dtype), out)


def _buckets_of(base: Array, element: Element, lowest: int, buckets: int) -> Array:
    """The bucket of each element: uint8 of shape (elements,)."""
    found = np.empty(len(base), np.uint8)
    _find_buckets(
        base,
        np.array(
            [element.mantissa or 0, (1 << element.exponent_bits) - 1, lowest, lowest + buckets - 1], element.unsigned
        ),
        found,
    )
    return found


@cache
def _bits(element: Element) -> Array:
    """All bits but the sign, the sign's place, and one, in the element's own type: wider ones would make no vectors."""
    return np.array([(1 << (element.bits - 1)) - 1, element.bits - 1, 1], element.unsigned)


# Each loop is a function of its own: in one with others, the compiler makes no wide vectors.


@njit(cache=True, nogil=True)
def _find_buckets(base: Array, limits: Array, out: Array) -> None:
    mantissa, mask, lowest, highest = limits
    for place in range(len(out)):
        exponent = (base[place] >> mantissa) & mask
        out[place] = min(max(exponent, lowest), highest) - lowest


@njit(cache=True, nogil=True)
def _count(buckets: Array, counts: Array) -> None:
    # four tables, or one count would wait for the one before
    tables = np.zeros((4, 256), np.uint32)
    quarter = len(buckets) // 4
    for place in range(quarter):
        for side in range(4):
            tables[side, buckets[side * quarter + place]] += np.uint32(1)
    for place in range(4 * quarter, len(buckets)):
        tables[0, buckets[place]] += np.uint32(1)
    for bucket in range(256):
        for side in range(4):
            counts[bucket] += tables[side, bucket]


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


# A block is gone through from both ends in turn: from one, a number would wait for the one before to be put into its
# bucket, which is most often the same. What the one end has begun the other ends, so that neither needs to know where
# they meet in a bucket; where the counts are those of the buckets, they meet in all.


@njit(cache=True, nogil=True)
def _sort(values: Array, buckets: Array, counts: Array, out: Array) -> None:
    one, last = np.uint64(1), np.uint64(len(out) - 1)
    ends = np.cumsum(counts)
    starts = ends - counts
    for place in range(np.uint64(len(out) // 2)):
        bucket = buckets[place]
        target = starts[bucket]
        out[target] = values[place]
        starts[bucket] = target + one
        bucket = buckets[last - place]
        target = ends[bucket] - one
        out[target] = values[last - place]
        ends[bucket] = target
    if len(out) % 2:
        middle = len(out) // 2
        out[starts[buckets[middle]]] = values[middle]


@njit(cache=True, nogil=True)
def _unsort(values: Array, buckets: Array, counts: Array, out: Array) -> bool:
    # counts that are wrong are found out in the end; a place outside of the array would be read from at once
    one, last = np.uint64(1), np.uint64(len(out) - 1)
    ends = np.cumsum(counts)
    starts = ends - counts
    for place in range(np.uint64(len(out) // 2)):
        bucket = buckets[place]
        source = starts[bucket]
        out[place] = values[min(source, last)]
        starts[bucket] = source + one
        bucket = buckets[last - place]
        source = ends[bucket] - one
        out[last - place] = values[min(source, last)]
        ends[bucket] = source
    if len(out) % 2:
        middle = len(out) // 2
        bucket = buckets[middle]
        source = starts[bucket]
        out[middle] = values[min(source, last)]
        starts[bucket] = source + one
    return bool((starts == ends).all())


@njit(cache=True, nogil=True)
def _split_zeros(values: Array, bitmap: Array, kept: Array, sparse: bool) -> None:
    taken = np.uint64(0)
    whole = len(values) // 8
    for byte in range(whole):
        if sparse:
            some = values[8 * byte]
            for bit in range(1, 8):
                some |= values[8 * byte + bit]
            if some == 0:
                bitmap[byte] = 0
                continue
        bits = np.uint64(0)
        for bit in range(8):
            value = values[8 * byte + bit]
            # written always and counted only where it is kept: no branch to be guessed wrong
            kept[taken] = value
            flag = np.uint64(value != 0)
            taken += flag
            bits |= flag << np.uint64(bit)
        bitmap[byte] = bits
    if len(values) % 8:
        bitmap[whole] = 0
    for place in range(8 * whole, len(values)):
        kept[taken] = values[place]
        flag = np.uint64(values[place] != 0)
        taken += flag
        bitmap[whole] |= flag << np.uint64(place % 8)


@njit(cache=True, nogil=True)
def _ones(bitmap: Array) -> int:
    ones = 0
    for byte in bitmap:
        pairs = byte - ((byte >> 1) & 0x55)
        fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
        ones += (fours + (fours >> 4)) & 0x0F
    return ones


@njit(cache=True, nogil=True)
def _join_zeros(bitmap: Array, nonzero: Array, shift: int, out: Array) -> None:
    one, taken, end = np.uint64(1), np.uint64(0), np.uint64(len(nonzero) - 1)
    whole = len(out) // 8
    for byte in range(whole):
        bits = np.uint64(bitmap[byte])
        if bits:
            for bit in range(8):
                flag = (bits >> np.uint64(bit)) & one
                # as numbers: with a condition, the compiler makes a branch that is guessed wrong half of the time
                out[8 * byte + bit] |= (np.uint64(nonzero[min(taken, end)]) * flag) << shift
                taken += flag
    for place in range(8 * whole, len(out)):
        flag = (np.uint64(bitmap[whole]) >> np.uint64(place % 8)) & one
        out[place] |= (np.uint64(nonzero[min(taken, end)]) * flag) << shift
        taken += flag


@njit(cache=True, nogil=True)
def _add_plane(plane: Array, shifts: Array, out: Array) -> None:
    shift = shifts[0]
    for place in range(len(out)):
        out[place] |= plane[place] << shift
