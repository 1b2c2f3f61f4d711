"""Content-defined chunks: borders that depend on the bytes around them alone, and so survive what is inserted before.

FastCDC as of 2020 (Xia et al., "The Design of Fast Content-Defined Chunking for Data Deduplication Based Storage
Systems", TPDS 31), by ``pyfastcdc``: 64-bit gear hash, no seed, normalization level 2. The borders are kept for ever:
who cuts otherwise finds nothing of what is stored. So the lengths stand in the vault's configuration, and a test holds
the borders. Reading does not depend on them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pyfastcdc import FastCDC

from holdfast.formats.source import Source, read_exactly

WINDOW_BYTES = 4 * 1024 * 1024  # what is read at once; more of it leaves the cache
NORMALIZATION: Literal[2] = 2
# what the library takes
MIN_BYTES, MIN_AVERAGE_BYTES, MIN_MAX_BYTES = (64, 1024**2), (256, 4 * 1024**2), (1024, 16 * 1024**2)


@dataclass(frozen=True)
class Chunking:
    """The lengths of chunks, in bytes.

    Attributes:
        minimum: no chunk is shorter, but the last one of a span.
        average: where the rule for borders becomes the easier one.
        maximum: no chunk is longer.

    Raises:
        ValueError: they are out of order, or no lengths that FastCDC takes.
    """

    minimum: int
    average: int
    maximum: int

    def __post_init__(self) -> None:
        bounds = ((self.minimum, MIN_BYTES), (self.average, MIN_AVERAGE_BYTES), (self.maximum, MIN_MAX_BYTES))
        if not all(low <= length <= high for length, (low, high) in bounds):
            raise ValueError(f"{self} has a length that cannot be cut by")
        if not self.minimum <= self.average <= self.maximum:
            raise ValueError(f"{self} has lengths out of order")


def chunking_of(block_bytes: int) -> Chunking:
    """The lengths that go with blocks of that many bytes: 64 KiB, 256 KiB and 1 MiB with blocks of 4 MiB."""
    return Chunking(block_bytes // 64, block_bytes // 16, block_bytes // 4)


def chunk_lengths(source: Source, offset: int, count: int, chunking: Chunking) -> Iterator[int]:
    """The lengths of the chunks of a span, in order; it is read once, `WINDOW_BYTES` at a time.

    Raises:
        IntegrityError: the source ends before.
        OSError: it cannot be read.
    """
    if count <= chunking.minimum:  # nothing to decide, and nothing to read
        if count:
            yield count
        return
    cutter = _cutter(chunking)
    # one buffer for all windows: new memory costs more than a copy
    buffer = bytearray(min(count, WINDOW_BYTES + chunking.maximum))
    window = memoryview(buffer)
    filled, end = 0, offset + count
    while offset < end:
        data = read_exactly(source, offset, min(WINDOW_BYTES, end - offset))
        window[filled : filled + len(data)] = data
        offset += len(data)
        filled += len(data)
        place = 0
        chunks = iter(cutter.cut_buf(window[:filled]))
        # where less than the longest chunk is left, what follows may move its border
        while place < filled and (offset == end or filled - place >= chunking.maximum):
            length = next(chunks).length
            yield length
            place += length
        filled -= place
        window[:filled] = bytes(window[place : place + filled])


@lru_cache(maxsize=16)
def _cutter(chunking: Chunking) -> FastCDC:
    return FastCDC(
        chunking.average,
        min_size=chunking.minimum,
        max_size=chunking.maximum,
        normalized_chunking=NORMALIZATION,
        seed=0,
    )
