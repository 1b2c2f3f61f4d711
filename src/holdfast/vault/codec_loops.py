"""The loops over every element that the codec runs, as an interface: NumPy's are the reference, numba's do the same.

The *bucket* of an element is told by the exponent of its base: the lowest bucket takes all exponents up to its own,
each higher one the next exponent, the highest all from its own on. Sorted by bucket, the elements of one bucket stay as
they lie in the block. With one bucket, that is the order of the block.

The *difference* of two integers is the value less the base, modulo 2^bits. That of two floats is the number of steps
of their type that lead from the base to the value, positive away from zero on the base's side of it: the value as an
integer, all bits but the sign inverted where the signs differ, less the base as an integer, modulo 2^bits. Differences
are folded: 0, -1, 1, -2, 2, … become 0, 1, 2, 3, 4, …
"""

from typing import Any, Protocol, TypeAlias

from holdfast.vault.codec_elements import Array, Element

MAX_BUCKETS = 256

# what one loop finds for another one, in the form that the same library's loops like best
Order: TypeAlias = Any
Marks: TypeAlias = Any


class Loops(Protocol):
    """The loops. Arrays are unsigned integers of the element's width, aligned, contiguous, of shape (elements,)."""

    name: str

    def differences(
        self, values: Array, base: Array, element: Element, lowest: int, buckets: int
    ) -> tuple[Array, list[int], Order]:
        """The differences, sorted by bucket.

        Args:
            values: what is encoded.
            base: as many.
            element: their type; floats where there are several buckets.
            lowest: the exponent of the lowest bucket.
            buckets: how many there are, up to `MAX_BUCKETS`.

        Returns:
            the differences, how many each bucket has, and what `restore` may be given as their order.
        """

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
        """The values that `differences` was given, written to ``out``.

        Args:
            differences: what it returned.
            base: as there.
            element: as there.
            lowest: as there.
            counts: how many elements each bucket is said to have, as many together as there are.
            out: shape (elements,).
            order: what `differences` found, where it is known. It is proven, and found again where it is not right.

        Returns:
            whether the base has so many in each bucket. Where it has not, any values may have been written.
        """

    def split_zeros(self, values: Array, nonzero: int) -> tuple[Array, Array]:
        """A bitmap of which values, of at least one, are not zero, the lowest bit of a byte first, and those values, of
        which there are ``nonzero``.
        """

    def marks(self, bitmap: Array, length: int) -> tuple[Array, int]:
        """What `join_zeros` takes for a bitmap of ``length`` bits, and how many of them are set."""

    def join_zeros(self, marks: Array, nonzero: Array, shift: int, out: Array) -> None:
        """What `split_zeros` was given, shifted to the left by ``shift`` bits, is added to ``out``.

        Args:
            marks: of the bitmap.
            nonzero: the values that are not zero, as many as bits are set; either of the type of ``out``, and ``shift``
                is 0, or bytes, and ``shift`` is a multiple of 8.
            shift: so many bits.
            out: shape (length,); the bits that are written to are 0.
        """

    def add_plane(self, plane: Array, shift: int, out: Array) -> None:
        """Bytes, uint8 of shape (elements,), shifted to the left by ``shift`` bits, are added to ``out``, in which the
        bits that are written to are 0.
        """
