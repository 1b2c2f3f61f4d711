"""Which of the ways to encode a block is likely to be the smallest, told from a sample of it.

The rule:

1. All numbers those of the base, or all the same: nothing else is tried (`holdfast.vault.codec_encoder`).
2. Opaque bytes without a base: zstd. Few numbers with a base: delta.
3. Else the size is estimated from runs of neighbouring numbers, evenly spread (`sample_of`). That of a delta is the
   entropy of the differences' lengths in bits, given the base's exponents, and the bits below the highest ones. Where
   that halves floats, nothing else is looked at, and counts as one half. That of planes is the entropy of each plane;
   that of zstd is found by compressing one longer run from the middle. Raw needs no estimate.
4. The way with the lowest estimate is encoded. As long as that is larger than another one's estimate by more than a
   part in `holdfast.vault.codec_encoder.DOUBT`, the other one is encoded, too, and the smaller one stays.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from holdfast.vault.codec_blocks import DELTA, PLANES, RAW, ZSTD
from holdfast.vault.codec_elements import Array, Element
from holdfast.vault.codec_entropy import FRACTION_BITS, entropy, planes_entropy, sample_of
from holdfast.vault.codec_loops import MAX_BUCKETS
from holdfast.vault.codec_numpy import exponents_of, folded_differences
from holdfast.vault.codec_sections import rotated
from holdfast.vault.codec_streams import zstd_frame

SAMPLE_MATCHES_BYTES = 1 << 14
# so few numbers are sooner encoded than estimated
MIN_ESTIMATED = 2048
# A bucket at either end has about so many numbers at least. With fewer, the tables of their codes cost more than they
# save: of 1,024 to 16,384 the first three came out within 0.2 % of each other, and fewer buckets are faster.
MIN_BUCKET_ELEMENTS = 4096
# where fewer of the sampled numbers differ from their base, sorting gains less than it takes time
MIN_SORTED = 1 / 128
_LENGTHS = 65


@dataclass(frozen=True)
class Way:
    """A way to encode a block.

    Attributes:
        codec: of `holdfast.vault.codec_blocks`.
        estimate: bytes.
        centre: for planes: the number that most numbers are, or 0.
        lowest: for a delta of several buckets: the exponent of the lowest one.
        buckets: for a delta: how many there are.
    """

    codec: int
    estimate: int
    centre: int = 0
    lowest: int = 0
    buckets: int = 1


def ways(numbers: Array, base: Array | None, element: Element, *, opaque: bool) -> list[Way]:
    """The ways to encode numbers, the smallest estimate first, raw among them.

    Args:
        numbers: unsigned integers, shape (elements,), at least one.
        base: as many, or None.
        element: their type.
        opaque: they are bytes of unknown meaning.
    """
    found = [Way(RAW, numbers.nbytes)]
    if base is None and opaque:
        found.append(Way(ZSTD, 0))
    elif base is not None and len(numbers) < MIN_ESTIMATED:
        found.append(Way(DELTA, 0))
    else:
        some = sample_of(numbers)
        if base is not None:
            found.append(_delta(some, sample_of(base), len(numbers), element))
        half = numbers.nbytes // 2
        if base is None or element.mantissa is None or found[-1].estimate > half:
            found += [_planes(some, len(numbers), element), _zstd(numbers)]
        else:
            found += [Way(PLANES, half), Way(ZSTD, half)]
    return sorted(found, key=lambda way: (way.estimate, way.codec))


def _delta(some: Array, base: Array, elements: int, element: Element) -> Way:
    folded = folded_differences(some, base, element)
    lengths = np.frexp(folded)[1]  # in bits, 0 for 0; above 2^53 one more at times
    changed = int(np.count_nonzero(folded))
    lowest, buckets, rows, cells = 0, 1, 1, lengths
    if element.mantissa is not None and changed >= MIN_SORTED * len(folded):
        exponents = exponents_of(base, element)
        first = int(exponents.min())
        rows = int(exponents.max()) - first + 1
        exponents -= exponents.dtype.type(first)
        cells = exponents.astype(np.intp)
        cells *= _LENGTHS
        cells += lengths
    counts = np.bincount(cells, minlength=rows * _LENGTHS).reshape(rows, _LENGTHS)
    if rows > 1:
        lowest, buckets = _buckets(counts.sum(axis=1).tolist(), first, elements)
    bits = entropy(counts) + (int(lengths.sum()) - changed << FRACTION_BITS)
    return Way(DELTA, _bytes_of(bits, len(some), elements), lowest=lowest, buckets=buckets)


def _buckets(counts: list[int], first: int, elements: int) -> tuple[int, int]:
    """The exponent of the lowest bucket, and how many buckets there are; by how many of a sample each exponent has."""
    ends = list(accumulate(counts))
    sampled = ends[-1]
    needed = -(-MIN_BUCKET_ELEMENTS * sampled // elements)
    if 2 * needed > sampled:
        return 0, 1
    low, high = bisect_left(ends, needed), bisect_left(ends, sampled - needed + 1)
    return first + low, min(high - low + 1, MAX_BUCKETS)


def _planes(some: Array, elements: int, element: Element) -> Way:
    # what more than half of the numbers are is their median, however they are ordered
    median = np.partition(some, len(some) // 2)[len(some) // 2]
    if np.count_nonzero(some == median) > len(some) // 2:
        return Way(PLANES, _bytes_of(planes_entropy(some - median), len(some), elements), centre=int(median))
    as_coded = rotated(some, 1) if element.mantissa is not None and element.width > 1 else some
    return Way(PLANES, _bytes_of(planes_entropy(as_coded), len(some), elements))


def _zstd(numbers: Array) -> Way:
    plain = numbers.view(np.uint8)
    start = max(0, len(plain) - SAMPLE_MATCHES_BYTES) // 2
    run = plain[start : start + SAMPLE_MATCHES_BYTES]
    return Way(ZSTD, len(zstd_frame(run, matches=True)) * len(plain) // len(run))


def _bytes_of(bits: int, sampled: int, elements: int) -> int:
    return (bits * elements // sampled) >> (FRACTION_BITS + 3)
