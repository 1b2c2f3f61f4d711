"""Blocks: each is encoded on its own, in one of six ways.

A block begins with its codec. After the codec's fields come the bytes beyond the last whole number, as they are.

=====  ========  =====================================================================================================
codec  name      fields
=====  ========  =====================================================================================================
0      raw       the numbers as they are
1      constant  the one number
2      zstd      a zstd frame that states its content size, its length as a number before it
3      planes    a centre, which is one number, and a section of the numbers less the centre, modulo 2^bits
4      same      nothing: the numbers are those of the base
5      delta     how many buckets there are, less one, as a byte; where there are several, the exponent of the lowest
                 one, as a number, and how many elements each has, as numbers; for each bucket that is not empty a
                 section of its folded differences
=====  ========  =====================================================================================================

Differences and buckets are those of `holdfast.vault.codec_loops`.
"""

import numpy as np

from holdfast.vault.codec_elements import Array, Element
from holdfast.vault.codec_entropy import planes_entropy, sample_of
from holdfast.vault.codec_loops import Loops, Order
from holdfast.vault.codec_reader import Reader, number_bytes
from holdfast.vault.codec_sections import read_section, rotated, write_section
from holdfast.vault.codec_streams import read_frame, zstd_frame

RAW, CONSTANT, ZSTD, PLANES, SAME, DELTA = range(6)
CODECS = ("raw", "constant", "zstd", "planes", "same", "delta")
NEED_BASE = frozenset({SAME, DELTA})


def write_planes(numbers: Array, element: Element, centre: int, loops: Loops) -> list[bytes]:
    """The parts of a planes block's fields; ``centre`` is what most of the numbers are, or 0."""
    middle = numbers.dtype.type(centre)
    if centre:
        return [middle.tobytes(), *write_section(numbers - middle, 0, loops)]
    return [middle.tobytes(), *write_section(numbers, _rotation(numbers, element), loops)]


def _rotation(numbers: Array, element: Element) -> int:
    """A float's sign goes to the other end, and the highest byte begins with the exponent. The exponent's first bits go
    there, too, where they are nearly always the same, so that the byte holds more of what goes with the others.
    """
    if element.mantissa is None or element.width == 1:
        return 0
    sample = sample_of(numbers)
    return min((1, 2, 3), key=lambda rotation: planes_entropy(rotated(sample, rotation)))


def write_delta(
    numbers: Array, base: Array, element: Element, loops: Loops, lowest: int, buckets: int
) -> tuple[list[bytes], Order]:
    """The parts of a delta block's fields, and the order of the base as the loops know it."""
    differences, counts, order = loops.differences(numbers, base, element, lowest, buckets)
    parts = [bytes([buckets - 1])]
    if buckets > 1:
        parts += [number_bytes(lowest), *map(number_bytes, counts)]
    start = 0
    for count in filter(None, counts):
        parts += write_section(differences[start : start + count], None, loops)
        start += count
    return parts, order


def write_zstd(plain: Array) -> list[bytes]:
    """The parts of a zstd block's fields; ``plain`` is uint8."""
    frame = zstd_frame(plain, matches=True)
    return [number_bytes(len(frame)), frame]


def read_block(
    reader: Reader, out: Array, base: Array | None, element: Element, loops: Loops, order: Order = None
) -> None:
    """A block's bytes, written to ``out``.

    Args:
        reader: stands at the block's beginning, and ends with it.
        out: uint8 of shape (bytes of the block,).
        base: the base's numbers, unsigned integers of the element's width; None where it has none, or fewer numbers.
        element: the numbers' type.
        loops: the loops to use.
        order: what `write_delta` found, which is proven, not trusted.

    Raises:
        DamagedBlobError: it does not hold them.
    """
    whole = len(out) // element.width * element.width
    numbers = out[:whole].view(element.unsigned)
    if not numbers.flags.aligned:  # a buffer may begin anywhere, and the loops take no such arrays
        aligned = np.empty_like(out)
        read_block(reader, aligned, base, element, loops, order)
        out[:] = aligned
        return
    codec = reader.byte()
    if codec == RAW:
        out[:whole] = np.frombuffer(reader.take(whole), np.uint8)
    elif codec == CONSTANT:
        numbers[:] = np.frombuffer(reader.take(element.width), element.unsigned)
    elif codec == ZSTD:
        out[:whole] = read_frame(reader, whole)
    elif codec == PLANES:
        centre = np.frombuffer(reader.take(element.width), element.unsigned)
        read_section(reader, numbers, loops)
        numbers += centre
    elif codec in NEED_BASE:
        if base is None:
            raise reader.damage("it needs a base that does not reach so far")
        if codec == SAME:
            numbers[:] = base
        else:
            _read_delta(reader, numbers, base, element, loops, order)
    else:
        raise reader.damage(f"the codec {codec} is unknown")
    out[whole:] = np.frombuffer(reader.take(len(out) - whole), np.uint8)
    reader.end()


def _read_delta(reader: Reader, numbers: Array, base: Array, element: Element, loops: Loops, order: Order) -> None:
    buckets = reader.byte() + 1
    lowest, counts = 0, [len(numbers)]
    if buckets > 1:
        lowest = reader.number()
        counts = [reader.number() for _ in range(buckets)]
        if element.mantissa is None or lowest + buckets > 1 << element.exponent_bits or sum(counts) != len(numbers):
            raise reader.damage("it has buckets that its numbers cannot have")
    differences = np.empty_like(numbers)
    start = 0
    for count in filter(None, counts):
        read_section(reader, differences[start : start + count], loops)
        start += count
    if not loops.restore(differences, base, element, lowest, counts, numbers, order):
        raise reader.damage("its buckets are wrong, or its base is not the one that it was encoded against")
