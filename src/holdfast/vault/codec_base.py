"""Bases: what a block is encoded against, brought into the type of the data."""

from dataclasses import dataclass

import numpy as np

from holdfast.vault.codec_elements import CASTS, ELEMENTS, Array, cast


@dataclass(frozen=True)
class Base:
    """A base, or the part of one that is at hand.

    Attributes:
        data: its bytes; uint8.
        source: its dtype.
        target: the data's dtype.
        nbytes: its whole length.
        start: where in the whole base ``data`` begins.
    """

    data: Array
    source: str
    target: str
    nbytes: int
    start: int = 0

    def numbers(self, start: int, stop: int) -> Array | None:
        """The base's numbers for the whole numbers among the plain bytes from ``start`` to ``stop``.

        Returns:
            unsigned integers of the target's width, None where the base has fewer numbers.
        """
        span = base_span(start, stop, self.source, self.target)
        if span[1] > self.nbytes:
            return None
        part = self.data[span[0] - self.start : span[1] - self.start]
        # a buffer may begin anywhere, as a tensor in a file that is mapped into memory does
        return cast(np.require(part.view(ELEMENTS[self.source].unsigned), requirements="A"), self.source, self.target)


def base_span(start: int, stop: int, source: str, target: str) -> tuple[int, int]:
    """Where the base's bytes begin and end for the plain bytes from ``start`` to ``stop``."""
    plain, base = ELEMENTS[target].width, ELEMENTS[source].width
    return start // plain * base, stop // plain * base


def fits(source: str, target: str) -> bool:
    """Whether data of the target's dtype can be encoded against a base of the source's."""
    return source == target or (source, target) in CASTS
