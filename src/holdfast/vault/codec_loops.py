"""The loops over every element that the codec runs, as an interface: NumPy's are the reference, numba's do the same.

The *bucket* of an element is told by the exponent of its base: the lowest bucket takes all exponents up to its own,
each higher one the next exponent, the highest all from its own on. A block's *order* sorts its elements by their
buckets, those of one bucket as they lie in the block.

The *difference* of two integers is the value less the base, modulo 2^bits. That of two floats is the number of steps
of their type that lead from the base to the value, positive away from zero on the base's side of it: the value as an
integer, all bits but the sign inverted where the signs differ, less the base as an integer, modulo 2^bits. Differences
are folded: 0, -1, 1, -2, 2, … become 0, 1, 2, 3, 4, …
"""

from dataclasses import dataclass
from typing import Protocol

from holdfast.vault.codec_elements import Array, Element

MAX_BUCKETS = 256


@dataclass(frozen=True)
class Order:
    """How a block's elements are sorted.

    Attributes:
        lowest: the exponent of the lowest bucket.
        counts: how many elements each bucket has; int64 of shape (buckets,).
    """

    lowest: int
    counts: Array


class Loops(Protocol):
    """The loops. Arrays are unsigned integers of the element's width, contiguous, of shape (elements,)."""

    name: str

    def order(self, base: Array, element: Element, lowest: int, buckets: int, counts: Array | None = None) -> Order:
        """The order by the exponents of a block of floats.

        Args:
            base: the block's base.
            element: its floats' type.
            lowest: the exponent of the lowest bucket.
            buckets: how many there are, up to `MAX_BUCKETS`.
            counts: how many elements each bucket has, where somebody says so. Where that is wrong, so may the order be,
                but whatever is done with it touches no memory that is not the arrays' own.
        """

    def holds(self, order: Order, base: Array, element: Element) -> bool:
        """Whether an order is that of the base: as good a proof as finding it again, and faster."""

    def differences(self, values: Array, base: Array, element: Element, order: Order | None) -> Array:
        """The differences, in their order; as they lie in the block where it is None."""

    def restore(self, differences: Array, base: Array, element: Element, order: Order | None, out: Array) -> None:
        """The values that `differences` was given, written to ``out``."""

    def split_zeros(self, values: Array) -> tuple[Array, Array]:
        """A bitmap of which values, of at least one, are not zero, the lowest bit of a byte first, and those values."""

    def join_zeros(self, flags: Array, nonzero: Array) -> Array:
        """The values that `split_zeros` was given; ``flags`` are the bitmap's bits, bool, of which as many are set as
        there are values in ``nonzero``.
        """
