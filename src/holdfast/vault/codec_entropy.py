"""Estimates from a sample: entropies, as sums of integers from a table, so that every machine finds the same.

A sample's entropy is too low by log2(e) / 2 bits for each symbol but one, which is added: Miller (1955), Note on the
bias of information estimates.
"""

from functools import cache

import numpy as np

from holdfast.vault.codec_elements import Array

SAMPLE_RUNS, SAMPLE_RUN_ELEMENTS = 8, 256
# entropies are counted in so many parts of a bit, of which this is log2(e) / 2
FRACTION_BITS = 12
_BIAS = 2955


def sample_of(numbers: Array) -> Array:
    """Some of the numbers: runs of neighbours, evenly spread; all where they are few."""
    length = SAMPLE_RUN_ELEMENTS
    step = len(numbers) // SAMPLE_RUNS
    if step <= length:
        return numbers
    return np.ascontiguousarray(numbers[: SAMPLE_RUNS * step].reshape(SAMPLE_RUNS, step)[:, :length]).reshape(-1)


def planes_entropy(sample: Array) -> int:
    """Bits that the byte planes of a sample of unsigned integers take, in parts of 2^-`FRACTION_BITS`."""
    planes = np.ascontiguousarray(sample).view(np.uint8).reshape(len(sample), -1)
    return entropy(np.stack([np.bincount(planes[:, place], minlength=256) for place in range(planes.shape[1])]))


def entropy(counts: Array) -> int:
    """Bits that symbols take, in parts of 2^-`FRACTION_BITS`; each row of counts is of a code of its own."""
    table, rows = _n_log_n(), counts.sum(axis=1)
    there = counts[counts > 0]
    symbols = len(there) - np.count_nonzero(rows)
    return int(table[rows].sum()) - int(table[there].sum()) + int(symbols) * _BIAS


@cache
def _n_log_n() -> Array:
    """n · log2 n for each n up to the sample's size; by squaring, as logarithms differ from library to library."""
    n = np.arange(SAMPLE_RUNS * (SAMPLE_RUN_ELEMENTS + 1), dtype=np.int64)
    whole = np.array([max(0, int(value).bit_length() - 1) for value in n], np.int64)
    mantissa, logarithm = (n << 30) >> whole, whole
    for _ in range(FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> 30
        carry = (mantissa >= 1 << 31).astype(np.int64)
        mantissa >>= carry
        logarithm = (logarithm << 1) | carry
    return np.asarray(n * logarithm)
