"""How the arrays of two stores differ, sample by sample, in memory for one pair at a time."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from holdfast.runs.array_contract import Array, Sample
from holdfast.runs.arrays import ArrayStore

BLOCK_ELEMENTS = 256 * 1024  # float64 copies of two blocks and their products stay inside the processor's cache


@dataclass(frozen=True)
class SampleDiff:
    """How one sample differs between store *a* and store *b*.

    Args:
        file_id: the sample.
        status: ``same`` (equal shape, values and scalars), ``differs``, ``shape`` (values cannot be compared),
            ``only_a`` or ``only_b``.
        shape_a: the array's shape in a, None where it is not there.
        shape_b: the same for b.
        elements: pairs compared: all but those with NaN on either side.
        nan_mismatches: elements that are NaN on exactly one side.
        max_abs: largest ``|a - b|`` over the pairs compared, None where there is none.
        mean_abs: mean ``|a - b|`` over the same, accumulated in float64.
        correlation: Pearson's r over the same; None where it is undefined: fewer than two pairs, a side without
            variance, infinite or complex values.
        scalars: names of the scalars that differ or are declared in one store alone.
    """

    file_id: str
    status: Literal["same", "differs", "shape", "only_a", "only_b"]
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    elements: int = 0
    nan_mismatches: int = 0
    max_abs: float | None = None
    mean_abs: float | None = None
    correlation: float | None = None
    scalars: tuple[str, ...] = ()


@dataclass(frozen=True)
class DiffTotals:
    """`SampleDiff` values of a whole pair of stores.

    Args:
        same, differs, shape, only_a, only_b: samples of each status.
        max_abs: largest of all, None where nothing was compared.
        max_abs_id: the sample that has it.
        mean_abs: mean over all elements compared.
        mean_correlation: mean of the correlations that are defined, None where none is.
        min_correlation: the smallest of them.
        min_correlation_id: the sample that has it.
    """

    same: int = 0
    differs: int = 0
    shape: int = 0
    only_a: int = 0
    only_b: int = 0
    max_abs: float | None = None
    max_abs_id: str | None = None
    mean_abs: float | None = None
    mean_correlation: float | None = None
    min_correlation: float | None = None
    min_correlation_id: str | None = None


def diff_stores(a: ArrayStore | str | os.PathLike[str], b: ArrayStore | str | os.PathLike[str]) -> Iterator[SampleDiff]:
    """Compare two stores sample by sample: those of ``a`` in its order, then those of ``b`` alone in its order.

    Lazy: a pair of arrays is read when its diff is asked for. The stores may have different formats, dtypes and
    contracts. Equality is exact; differences are taken in float64 (complex: complex128), where integers beyond 2^53
    lose their last digits.

    Args:
        a: an open store, or the folder of one.
        b: the same.

    Raises:
        ArrayStoreError: a folder is no store.
        ArrayDamageError: a file is missing or corrupt; raised when its sample's turn comes.
    """
    first = a if isinstance(a, ArrayStore) else ArrayStore.open(a)
    second = b if isinstance(b, ArrayStore) else ArrayStore.open(b)
    return _diffs(first, second)


def total(diffs: Iterable[SampleDiff]) -> DiffTotals:
    """Sum up what `diff_stores` yields, in memory that does not grow with it."""
    counts = {"same": 0, "differs": 0, "shape": 0, "only_a": 0, "only_b": 0}
    largest: tuple[float, str] | None = None
    smallest: tuple[float, str] | None = None
    elements = correlations = 0
    absolute = correlation_sum = 0.0
    for diff in diffs:
        counts[diff.status] += 1
        if diff.max_abs is not None and diff.mean_abs is not None:
            if largest is None or diff.max_abs > largest[0]:
                largest = (diff.max_abs, diff.file_id)
            absolute += diff.mean_abs * diff.elements
            elements += diff.elements
        if diff.correlation is not None:
            if smallest is None or diff.correlation < smallest[0]:
                smallest = (diff.correlation, diff.file_id)
            correlation_sum += diff.correlation
            correlations += 1
    return DiffTotals(
        **counts,
        max_abs=largest[0] if largest else None,
        max_abs_id=largest[1] if largest else None,
        mean_abs=absolute / elements if elements else None,
        mean_correlation=correlation_sum / correlations if correlations else None,
        min_correlation=smallest[0] if smallest else None,
        min_correlation_id=smallest[1] if smallest else None,
    )


def _diffs(a: ArrayStore, b: ArrayStore) -> Iterator[SampleDiff]:
    for file_id in a.file_ids():
        if file_id in b:
            yield _diff(a.load(file_id), b.load(file_id))
        else:
            yield SampleDiff(file_id, "only_a", a.shape(file_id), None)
    for file_id in b.file_ids():
        if file_id not in a:
            yield SampleDiff(file_id, "only_b", None, b.shape(file_id))


def _diff(a: Sample, b: Sample) -> SampleDiff:
    scalars = tuple(
        name
        for name in sorted({*a.scalars, *b.scalars})
        if name not in a.scalars or name not in b.scalars or not _same_scalar(a.scalars[name], b.scalars[name])
    )
    shapes = (a.array.shape, b.array.shape)
    if a.array.shape != b.array.shape:
        return SampleDiff(a.file_id, "shape", *shapes, scalars=scalars)
    sums = _Sums(a.array, b.array)
    same = not scalars and np.array_equal(a.array, b.array, equal_nan=True)
    return SampleDiff(
        a.file_id,
        "same" if same else "differs",
        *shapes,
        elements=sums.elements,
        nan_mismatches=sums.nan_mismatches,
        max_abs=sums.max_abs,
        mean_abs=sums.mean_abs,
        correlation=sums.correlation,
        scalars=scalars,
    )


class _Sums:
    """Two passes over two arrays, block by block: differences and means, then moments about the means.

    The two-pass form of Pearson's r; sums of raw squares would cancel where the mean is large against the spread.
    """

    def __init__(self, a: Array, b: Array) -> None:
        self.elements = self.nan_mismatches = 0
        self.max_abs: float | None = None
        self._is_complex = a.dtype.kind == "c" or b.dtype.kind == "c"
        absolute = sum_a = sum_b = 0.0
        for x, y, mismatches in self._pairs(a, b):
            self.nan_mismatches += mismatches
            if not x.size:
                continue
            with np.errstate(invalid="ignore", over="ignore"):
                # equal infinities do not differ, though inf - inf is NaN
                difference = np.where(x == y, 0.0, np.abs(x - y))
            self.elements += x.size
            self.max_abs = max(self.max_abs or 0.0, float(difference.max()))
            absolute += float(difference.sum())
            if not self._is_complex:
                with np.errstate(invalid="ignore", over="ignore"):
                    sum_a += float(x.sum())
                    sum_b += float(y.sum())
        self.mean_abs = absolute / self.elements if self.elements else None
        self.correlation = None
        if self.elements >= 2 and not self._is_complex and math.isfinite(sum_a) and math.isfinite(sum_b):
            self.correlation = self._pearson(a, b, sum_a / self.elements, sum_b / self.elements)

    def _pearson(self, a: Array, b: Array, mean_a: float, mean_b: float) -> float | None:
        both = square_a = square_b = 0.0
        smallest, largest = [math.inf, math.inf], [-math.inf, -math.inf]
        with np.errstate(over="ignore", invalid="ignore"):
            for x, y, _ in self._pairs(a, b):
                if x.size:
                    for side, values in enumerate((x, y)):
                        smallest[side] = min(smallest[side], float(values.min()))
                        largest[side] = max(largest[side], float(values.max()))
                from_a, from_b = x - mean_a, y - mean_b
                both += float(from_a @ from_b)
                square_a += float(from_a @ from_a)
                square_b += float(from_b @ from_b)
        # a constant side is told by its values: rounding of its mean may leave a variance that is not zero
        if smallest[0] == largest[0] or smallest[1] == largest[1]:
            return None
        if square_a == square_b == both:
            return 1.0  # equal sides, which rounding of the roots would put a little below
        scale = math.sqrt(square_a) * math.sqrt(square_b)
        if scale == 0 or not math.isfinite(scale):
            return None
        return max(-1.0, min(1.0, both / scale))

    def _pairs(self, a: Array, b: Array) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any], int]]:
        dtype = np.complex128 if self._is_complex else np.float64
        flat_a, flat_b = a.reshape(-1), b.reshape(-1)
        for start in range(0, flat_a.size, BLOCK_ELEMENTS):
            x = flat_a[start : start + BLOCK_ELEMENTS].astype(dtype)
            y = flat_b[start : start + BLOCK_ELEMENTS].astype(dtype)
            nan_x, nan_y = np.isnan(x), np.isnan(y)
            kept = ~(nan_x | nan_y)
            mismatches = int(np.count_nonzero(nan_x ^ nan_y))
            yield (x, y, mismatches) if kept.all() else (x[kept], y[kept], mismatches)


def _same_scalar(a: object, b: object) -> bool:
    return a == b or (a != a and b != b)
