"""How far two outputs lie apart, summed up batch by batch.

*Within tolerance* is NumPy's formula, |a - b| <= atol + rtol * |b| (numpy.allclose). The default tolerances are those
of torch.testing.assert_close (torch 2.13, torch/testing/_comparison.py, ``default_tolerances``): by the outputs' types,
the looser of two. Unlike there, a NaN agrees with a NaN at the same place, and the report counts both.
"""

from dataclasses import dataclass

import numpy as np

from holdfast.compare.equivalence_outputs import Output
from holdfast.compare.figures import Array, FigureSums
from holdfast.compare.values import changed_elements, values
from holdfast.formats.dtypes import BITS

# longer dot products are shared among OpenBLAS's threads, which wait for one another where the machine is busy: more
# than 20 times slower was measured
CHUNK_ELEMENTS = 8 * 1024
# dtype → (rtol, atol); every other type is compared exactly
DEFAULT_TOLERANCES = {
    "F16": (1e-3, 1e-5), "BF16": (1.6e-2, 1e-5), "F32": (1.3e-6, 1e-5), "F64": (1e-7, 1e-7),
    "C64": (1.3e-6, 1e-5), "C128": (1e-7, 1e-7),
}  # fmt: skip
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


@dataclass(frozen=True)
class OutputFigures:
    """How far one output of two models lies apart, over all samples.

    Attributes:
        names: in the first and in the second.
        dtypes: in the first and in the second.
        shape: of the first batch; None in the place of the samples.
        identical: the same type, and every element equal bit by bit.
        values: compared numbers; a complex element is two of them.
        within: how many of them lie within ``atol + rtol * |b|``.
        atol: absolute tolerance.
        rtol: relative tolerance, to the second.
        max_abs: the largest |a - b|; None where no pair is finite.
        mean_abs: the mean |a - b| over the finite pairs; None where there is none.
        max_relative: the largest |a - b| / |b| where both are finite and b is not 0; None where there is none.
        cosine: of the two as vectors; None where one of them is 0.
        nan: NaNs in the first and in the second.
        infinite: infinities in the first and in the second.
        furthest: the sample with the largest |a - b|; None where all are equal, or the output is not by sample.
    """

    names: tuple[str, str]
    dtypes: tuple[str, str]
    shape: tuple[int | None, ...]
    identical: bool
    values: int
    within: int
    atol: float
    rtol: float
    max_abs: float | None
    mean_abs: float | None
    max_relative: float | None
    cosine: float | None
    nan: tuple[int, int]
    infinite: tuple[int, int]
    furthest: int | None

    @property
    def equivalent(self) -> bool:
        """Every value is within tolerance."""
        return self.within == self.values


def tolerances(dtypes: tuple[str, str], atol: float | None, rtol: float | None) -> tuple[float, float]:
    """``(atol, rtol)``: what was asked for, else the looser default of the two types."""
    defaults = [DEFAULT_TOLERANCES.get(dtype, (0.0, 0.0)) for dtype in dtypes]
    return (
        max(default[1] for default in defaults) if atol is None else atol,
        max(default[0] for default in defaults) if rtol is None else rtol,
    )


class OutputSums:
    """Takes the two models' output batch by batch, and gives the `OutputFigures` of all of them.

    Args:
        a: the first batch of the first model.
        b: the same of the second.
        rows: samples in that batch.
        atol: absolute tolerance; None for the types' default.
        rtol: relative tolerance; None for the types' default.
    """

    def __init__(self, a: Output, b: Output, rows: int, *, atol: float | None, rtol: float | None) -> None:
        self.names, self.dtypes = (a.name, b.name), (a.dtype, b.dtype)
        by_sample = bool(a.shape) and a.shape[0] == rows
        self.shape: tuple[int | None, ...] = (None, *a.shape[1:]) if by_sample else a.shape
        self.atol, self.rtol = tolerances(self.dtypes, atol, rtol)
        self._sums = FigureSums()
        self._identical = True
        self._within = 0
        self._furthest: tuple[float, int | None] = (0.0, None)
        self._max_relative: float | None = None
        self._nan, self._infinite = [0, 0], [0, 0]

    def add(self, a: Output, b: Output, first: int, rows: int) -> None:
        """Take in one batch.

        Args:
            a: of the first model.
            b: of the second, of the same shape.
            first: the number of the batch's first sample.
            rows: samples in the batch.
        """
        # bits, not values: -0.0 is another output than 0.0
        self._identical = self._identical and a.dtype == b.dtype and a.data == b.data
        dtypes = (a.dtype, b.dtype)
        sizes = [BITS[dtype] // 8 for dtype in dtypes]
        views = [memoryview(output.data) for output in (a, b)]
        elements = len(a.data) // sizes[0]
        by_sample = bool(a.shape) and a.shape[0] == rows
        for start in range(0, elements, CHUNK_ELEMENTS):
            end = min(start + CHUNK_ELEMENTS, elements)
            pieces = [view[start * size : end * size] for view, size in zip(views, sizes, strict=True)]
            numbers = [values(piece, dtype) for piece, dtype in zip(pieces, dtypes, strict=True)]
            place = self._add(numbers[0].astype(np.float64), numbers[1].astype(np.float64), pieces, dtypes)
            if place is not None and by_sample:
                parts = numbers[0].size // (end - start)
                sample = first + (start + place[1] // parts) // (elements // rows)
                self._furthest = max(self._furthest, (place[0], sample), key=lambda item: item[0])

    def _add(self, a: Array, b: Array, pieces: list[memoryview], dtypes: tuple[str, str]) -> tuple[float, int] | None:
        """Sum up one chunk; the largest |a - b| in it and its place, None where none is above 0."""
        one, other = dtypes
        changed = changed_elements(pieces[0], pieces[1], one) if one == other else int(np.count_nonzero(a != b))
        self._sums.add(a, b, changed=changed)
        for side, numbers in enumerate((a, b)):
            self._nan[side] += int(np.count_nonzero(np.isnan(numbers)))
            self._infinite[side] += int(np.count_nonzero(np.isinf(numbers)))
        finite = np.isfinite(a) & np.isfinite(b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if one == other and one not in DEFAULT_TOLERANCES and len(pieces[0]) == a.size * 8:
            # of 64-bit integers, float64 would take different ones for equal
            same &= np.frombuffer(pieces[0], "<i8") == np.frombuffer(pieces[1], "<i8")
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            apart = np.where(finite, np.abs(a - b), 0.0)
            near = finite & (apart > 0) & (apart <= self.atol + self.rtol * np.abs(b))
            self._within += int(np.count_nonzero(same | near))
            relative = apart[finite & (b != 0)] / np.abs(b[finite & (b != 0)])
        if relative.size:
            self._max_relative = max(self._max_relative or 0.0, float(relative.max()))
        place = int(apart.argmax())
        return (float(apart[place]), place) if apart[place] > 0 else None

    def figures(self) -> OutputFigures:
        """The figures of all batches so far."""
        sums = self._sums.figures()
        return OutputFigures(
            names=self.names,
            dtypes=self.dtypes,
            shape=self.shape,
            identical=self._identical,
            values=sums.elements,
            within=self._within,
            atol=self.atol,
            rtol=self.rtol,
            max_abs=sums.max_abs,
            mean_abs=sums.mean_abs,
            max_relative=self._max_relative,
            cosine=sums.cosine,
            nan=(self._nan[0], self._nan[1]),
            infinite=(self._infinite[0], self._infinite[1]),
            furthest=self._furthest[1],
        )
