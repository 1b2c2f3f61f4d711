"""Sections: a run of numbers as byte planes, each a stream.

A section begins with a byte. Its lowest three bits are the *rotation*. Bit 3 says that *zeros are apart*: a stream of
⌈n / 8⌉ bytes follows, a bitmap of which numbers are not zero (as in `holdfast.vault.codec_streams`), and what comes
then holds those numbers alone. Bit 4, only set together with bit 3, says that *lowest bits are apart*: the numbers are
taken less one; a stream that is the bitmap of their lowest bits follows, and what comes then holds the bits above. The
other bits are 0.

Then come as many streams as a number has bytes: the lowest byte of each number, rotated to the left by the rotation,
then the next higher byte, and so on.
"""

import numpy as np

from holdfast.vault.codec_elements import Array
from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_reader import Reader
from holdfast.vault.codec_streams import (
    ALL_ZERO,
    MAX_NONZERO,
    MIN_CODED_BYTES,
    read_bitmap,
    read_plane,
    write_stream,
)

MAX_ROTATION, ZEROS_APART, LOWEST_APART = 7, 8, 16
# Where most of the folded differences but zero are the two smallest, a Huffman code gives one bit to the one and two to
# the other, which are as frequent. From 0.3 to 0.7 made no difference on the histories of benchmarks/gpt_history.py.
MIN_SMALLEST = 0.5
# of so many numbers a section's typical size is estimated
_SAMPLE = 1024


def write_section(numbers: Array, rotation: int | None, loops: Loops) -> list[bytes]:
    """The parts of a section.

    Args:
        numbers: unsigned integers, shape (elements,), at least one.
        rotation: bits to rotate to the left; None for folded differences, by whose sizes it is chosen.
        loops: the loops to use.
    """
    head, parts = 0, []
    nonzero = int(np.count_nonzero(numbers))
    if not nonzero or (nonzero < MAX_NONZERO * len(numbers) and len(numbers) >= MIN_CODED_BYTES):
        bitmap, numbers = loops.split_zeros(numbers, nonzero)
        head, parts = ZEROS_APART, write_stream(bitmap, loops)
        if rotation is None and np.count_nonzero(numbers <= 2) > MIN_SMALLEST * nonzero:
            head |= LOWEST_APART
            numbers -= 1
            parts += write_stream(np.packbits(numbers.astype(np.uint8) & 1, bitorder="little"), loops)
            numbers >>= 1
    rotation = rotation_of(numbers) if rotation is None else rotation
    parts = [bytes([head | rotation]), *parts]
    if not len(numbers):
        return parts
    numbers = rotated(numbers, rotation)
    parts += write_stream(numbers.astype(np.uint8), loops)
    # what is sure to be zero needs no plane; of one plane that is found out as fast by making it
    bits = int(numbers.max()).bit_length() if numbers.itemsize > 2 else 16
    for shift in range(8, 8 * numbers.itemsize, 8):
        parts += write_stream((numbers >> shift).astype(np.uint8), loops) if shift < bits else [ALL_ZERO]
    return parts


def read_section(reader: Reader, out: Array, loops: Loops) -> None:
    """The numbers of a section, written to ``out``: unsigned integers, shape (elements,).

    Raises:
        DamagedBlobError: it does not hold them.
    """
    head = reader.byte()
    if not head & ZEROS_APART:
        if head > MAX_ROTATION:
            raise reader.damage(f"a section begins with {head}")
        _read_planes(reader, head, out, loops)
        return
    if head > MAX_ROTATION + ZEROS_APART + LOWEST_APART:
        raise reader.damage(f"a section begins with {head}")
    marks, nonzero = loops.marks(read_bitmap(reader, len(out), loops), len(out))
    lowest = read_bitmap(reader, nonzero, loops) if head & LOWEST_APART else None
    numbers = np.empty(nonzero, out.dtype)
    _read_planes(reader, head & MAX_ROTATION, numbers, loops)
    if lowest is not None:
        numbers <<= 1
        numbers |= np.unpackbits(lowest, count=nonzero, bitorder="little")
        numbers += 1
    out.fill(0)
    loops.join_zeros(marks, numbers, 0, out)


def rotated(numbers: Array, rotation: int) -> Array:
    """Unsigned integers rotated to the left."""
    return (numbers << rotation) | (numbers >> (8 * numbers.itemsize - rotation)) if rotation else numbers


def rotation_of(differences: Array) -> int:
    """The rotation that brings the upper bits of folded differences into one plane.

    The table is by the binary logarithm of their median, in halves, and was measured on the histories of
    benchmarks/gpt_history.py against all eight rotations: it comes within 0.2 % of the best one for each section.
    """
    bits = 8 * differences.dtype.itemsize
    if bits == 8 or not len(differences):
        return 0
    sample = differences[:: max(1, len(differences) // _SAMPLE)]
    middle = len(sample) // 2
    if np.count_nonzero(sample < (1 << (bits - 8)) - 1) <= middle:
        return 7
    if bits != 32:
        return 0
    median = int(np.partition(sample, middle)[middle]) + 1
    halves = (median * median).bit_length() - 1
    return (38 - halves) // 2 if 28 <= halves <= 37 else 0


def _read_planes(reader: Reader, rotation: int, out: Array, loops: Loops) -> None:
    if not len(out):
        return
    bits = 8 * out.itemsize
    for shift in range(0, bits, 8):
        read_plane(reader, shift, out, loops)
    if rotation:
        upper = out << (bits - rotation)
        out >>= rotation
        out |= upper
