"""How far two tensors of one shape lie apart, summed up chunk by chunk.

With a and b the elements of the two: the share that changed in any bit, max |a − b|, mean |a − b|, the relative norm
‖a − b‖ / ‖a‖ and the cosine a·b / (‖a‖ ‖b‖). Chunks are small enough for the processor's cache, so each element comes
from memory once, whatever the number of figures. Within a chunk sums are float32 (float64 for float64 and integers),
across chunks float64.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# two inputs and three float32 buffers of this many elements stay within a 1 MiB cache
CHUNK_ELEMENTS = 32 * 1024
# sums of 32 K float32 products are right to some 1e-6 of the norms: what is left of them, to 2e-5 of itself at least
LEAST_DOT_SHARE = 0.05

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Figures:
    """How far two tensors lie apart.

    Attributes:
        elements: of each tensor.
        changed: elements that differ in a bit.
        max_abs: the largest |a − b|; None where no pair of elements is finite.
        mean_abs: the mean |a − b| over the pairs that are finite; None where there is none.
        relative_norm: ‖a − b‖ / ‖a‖; None where ‖a‖ is 0.
        cosine: of the two as vectors; None where one of them is 0.
        not_finite: changed elements with a NaN or an infinity on a side, which the figures above leave out.
    """

    elements: int
    changed: int
    max_abs: float | None
    mean_abs: float | None
    relative_norm: float | None
    cosine: float | None
    not_finite: int

    @property
    def changed_share(self) -> float:
        """The share of elements that changed, in [0, 1]; 0 for an empty tensor."""
        return self.changed / self.elements if self.elements else 0.0


class FigureSums:
    """Takes chunks of both tensors in the same order, and gives the `Figures` of all of them."""

    def __init__(self) -> None:
        self._elements = self._changed = self._finite = self._not_finite = 0
        self._max = -math.inf
        self._sum = self._square = self._norm_a = self._norm_b = self._dot = 0.0
        self._work: dict[np.dtype[Any], Array] = {}

    def add(self, a: Array, b: Array, *, changed: int) -> None:
        """Take in one chunk.

        Args:
            a: values of shape (elements,), float32 or float64.
            b: the same of the other tensor.
            changed: how many of the stored elements differ in a bit.
        """
        self._elements += a.size
        self._changed += changed
        if not a.size:
            return
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is summed up again in float64
            self._add(a, b, changed)

    def _add(self, a: Array, b: Array, changed: int) -> None:
        norm_a = float(np.dot(a, a))
        if not changed and math.isfinite(norm_a):
            self._take(a.size, 0.0, 0.0, 0.0, norm_a, norm_a, norm_a)
            return
        norm_b = float(np.dot(b, b))
        if not (math.isfinite(norm_a) and math.isfinite(norm_b)):
            self._add_finite(a, b)
            return
        difference = np.subtract(a, b, out=self._buffer(a))
        np.abs(difference, out=difference)
        largest, total = float(difference.max()), float(difference.sum())
        square = float(np.dot(difference, difference))
        # a·b = (a·a + b·b - (a-b)·(a-b)) / 2 spares a pass, where little of the norms cancels out
        dot = (norm_a + norm_b - square) / 2
        if not abs(dot) > LEAST_DOT_SHARE * (norm_a + norm_b):
            dot = float(np.dot(a, b))
        self._take(a.size, largest, total, square, norm_a, norm_b, dot)

    def figures(self) -> Figures:
        """The figures of all chunks so far."""
        any_finite = self._finite > 0
        norm_a, norm_b = math.sqrt(self._norm_a), math.sqrt(self._norm_b)
        cosine = self._dot / norm_a / norm_b if norm_a and norm_b else None
        return Figures(
            elements=self._elements,
            changed=self._changed,
            max_abs=self._max if any_finite else None,
            mean_abs=self._sum / self._finite if any_finite else None,
            relative_norm=math.sqrt(self._square) / norm_a if norm_a else None,
            cosine=None if cosine is None else min(1.0, max(-1.0, cosine)),
            not_finite=self._not_finite,
        )

    def _add_finite(self, a: Array, b: Array) -> None:
        # rare: non-finite elements, or squares beyond the type's range
        both = np.isfinite(a) & np.isfinite(b)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        self._not_finite += int(np.count_nonzero(~both & ~same))
        a, b = a[both].astype(np.float64), b[both].astype(np.float64)
        if a.size:
            difference = np.abs(a - b)
            self._take(
                a.size,
                float(difference.max()),
                float(difference.sum()),
                float(np.dot(difference, difference)),
                float(np.dot(a, a)),
                float(np.dot(b, b)),
                float(np.dot(a, b)),
            )

    def _take(
        self, finite: int, largest: float, total: float, square: float, norm_a: float, norm_b: float, dot: float
    ) -> None:
        self._finite += finite
        if finite:
            self._max = max(self._max, largest)
        self._sum += total
        self._square += square
        self._norm_a += norm_a
        self._norm_b += norm_b
        self._dot += dot

    def _buffer(self, like: Array) -> Array:
        held = self._work.get(like.dtype)
        if held is None or held.size < like.size:
            held = self._work[like.dtype] = np.empty(max(like.size, CHUNK_ELEMENTS), like.dtype)
        return held[: like.size]
