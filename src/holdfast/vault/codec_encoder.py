"""Encoding: blocks, each in the way that is likely to be the smallest, decoded again before they count."""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from holdfast.errors import IntegrityError
from holdfast.vault.codec_base import Base, fits
from holdfast.vault.codec_blob import MAX_BLOCK_BITS, MIN_BLOCK_BITS, check_of, write_head
from holdfast.vault.codec_blocks import (
    CONSTANT,
    DELTA,
    NEED_BASE,
    PLANES,
    RAW,
    SAME,
    read_block,
    write_delta,
    write_planes,
    write_zstd,
)
from holdfast.vault.codec_choice import Way, ways
from holdfast.vault.codec_elements import ELEMENTS, OPAQUE, Array, Element
from holdfast.vault.codec_kernels import loops_for
from holdfast.vault.codec_loops import Loops, Order
from holdfast.vault.codec_reader import DamagedBlobError, Reader

BLOCK_BYTES = 1 << 21
MAX_BYTES = 1 << 40
# a way is encoded, too, where the one before came out larger than this one's estimate by more than a part in so many:
# what is encoded is a few percent larger than the entropy that was estimated
DOUBT = 32
_FIRST_LOOK = 64

Buffer = bytes | bytearray | memoryview


class EncodingError(IntegrityError):
    """What was encoded did not decode to what it was: the data changed meanwhile, or memory or a library is faulty."""


def encode(
    data: Buffer,
    dtype: str = OPAQUE,
    base: Buffer | None = None,
    *,
    base_dtype: str | None = None,
    block_bytes: int = BLOCK_BYTES,
    executor: Executor | None = None,
    loops: Loops | None = None,
) -> bytes:
    """The blob of some data; every block is decoded again and compared.

    It is longer than the data by no more than 32 bytes and 14 for each block. The same arguments give the same bytes,
    whatever ``executor`` and ``loops`` are.

    Args:
        data: its bytes, little-endian; any length.
        dtype: as of `holdfast.formats.dtypes`, or ``bytes`` for what is no numbers.
        base: data that is likely to be similar, number by number; it may be longer or shorter.
        base_dtype: the base's, where it is another one that ``dtype`` is cast from or to.
        block_bytes: a power of two from 2^12 to 2^26; a range of the data is decoded in whole blocks.
        executor: runs the blocks side by side; not one whose every thread waits for this call.
        loops: NumPy's or numba's; None for what is fastest by now (`holdfast.vault.codec_kernels`).

    Raises:
        ValueError: an unknown dtype, a base that cannot be cast, a block length that is none, too much data.
        EncodingError: a block did not decode to what it was.
    """
    source = base_dtype or dtype
    if dtype not in ELEMENTS or source not in ELEMENTS or not fits(source, dtype):
        raise ValueError(f"{dtype} cannot be encoded against {source}")
    block_bits = block_bytes.bit_length() - 1
    if not MIN_BLOCK_BITS <= block_bits <= MAX_BLOCK_BITS or block_bytes != 1 << block_bits:
        raise ValueError(f"{block_bytes} is no length of blocks")
    plain = np.frombuffer(data, np.uint8)
    if len(plain) > MAX_BYTES:
        raise ValueError(f"{len(plain)} bytes are more than a blob can hold")
    at_hand = None if base is None else np.frombuffer(base, np.uint8)
    whole = None if at_hand is None else Base(at_hand, source, dtype, len(at_hand))
    chosen = loops or loops_for(len(plain))

    def block(start: int) -> tuple[bytes, bytes]:
        part = plain[start : start + block_bytes]
        numbers = None if whole is None else whole.numbers(start, start + len(part))
        return _encode_block(part, numbers, ELEMENTS[dtype], chosen, opaque=dtype == OPAQUE), check_of(part.data)

    starts = range(0, len(plain), block_bytes)
    blocks = list((executor.map if executor else map)(block, starts))
    needed = any(payload[0] in NEED_BASE for payload, _ in blocks)
    used = (source, whole.nbytes) if needed and whole is not None else None
    head = write_head(dtype, used, block_bits, len(plain), [(len(payload), check) for payload, check in blocks])
    return b"".join([head, *(payload for payload, _ in blocks)])


def _encode_block(plain: Array, base: Array | None, element: Element, loops: Loops, *, opaque: bool) -> bytes:
    whole = len(plain) // element.width * element.width
    # a buffer may begin anywhere, as a tensor in a file that is mapped into memory does
    numbers = np.require(plain[:whole].view(element.unsigned), requirements="A")
    encoded = _smallest(numbers, base, element, loops, opaque=opaque)
    payload = b"".join([*encoded.parts, plain[whole:].tobytes()])
    decoded = np.empty_like(plain)
    try:
        read_block(Reader(memoryview(payload), "An encoded block"), decoded, base, element, loops, encoded.order)
    except DamagedBlobError as error:
        raise EncodingError(f"A block could not be decoded again: {error.message}") from error
    if not _same(decoded, plain):
        raise EncodingError("A block did not decode to what it was")
    return payload


@dataclass(frozen=True)
class _Encoded:
    """A block's parts, without the bytes beyond the last whole number, and the order of its base where it has one."""

    parts: list[bytes]
    order: Order = None

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.parts))


def _smallest(numbers: Array, base: Array | None, element: Element, loops: Loops, *, opaque: bool) -> _Encoded:
    if not len(numbers):
        return _Encoded([bytes([RAW])])
    if base is not None and _equal(numbers, base):
        return _Encoded([bytes([SAME])])
    if _equal(numbers, numbers[:1]):
        return _Encoded([bytes([CONSTANT]), numbers[:1].tobytes()])
    first, *others = ways(numbers, base, element, opaque=opaque)
    best = _encoded(first, numbers, base, element, loops)
    for way in others:
        if best.nbytes > way.estimate + way.estimate // DOUBT:
            best = min(best, _encoded(way, numbers, base, element, loops), key=lambda encoded: encoded.nbytes)
    return best if best.nbytes <= numbers.nbytes else _Encoded([bytes([RAW]), numbers.tobytes()])


def _equal(numbers: Array, others: Array) -> bool:
    return bool((numbers[:_FIRST_LOOK] == others[:_FIRST_LOOK]).all() and (numbers == others).all())


def _same(data: Array, other: Array) -> bool:
    """Whether two arrays of as many bytes are alike."""
    words = len(data) // 8 * 8  # eight bytes at a time: what is written of the comparison is one byte for each
    return bool(
        (data[:words].view(np.uint64) == other[:words].view(np.uint64)).all() and (data[words:] == other[words:]).all()
    )


def _encoded(way: Way, numbers: Array, base: Array | None, element: Element, loops: Loops) -> _Encoded:
    order = None
    if way.codec == RAW:
        parts = [numbers.tobytes()]
    elif way.codec == PLANES:
        parts = write_planes(numbers, element, way.centre, loops)
    elif way.codec == DELTA and base is not None:
        parts, order = write_delta(numbers, base, element, loops, way.lowest, way.buckets)
    else:
        parts = write_zstd(numbers.view(np.uint8))
    return _Encoded([bytes([way.codec]), *parts], order)
