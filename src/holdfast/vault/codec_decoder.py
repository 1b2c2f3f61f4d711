"""Decoding: whole blobs and ranges of them, each block compared with its checksum."""

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from holdfast.vault.codec_base import Base, base_span
from holdfast.vault.codec_blob import Head, block_reader, check_of, read_head
from holdfast.vault.codec_blocks import CODECS, NEED_BASE, read_block
from holdfast.vault.codec_elements import ELEMENTS, Array
from holdfast.vault.codec_encoder import Buffer
from holdfast.vault.codec_kernels import loops_for
from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_reader import DamagedBlobError

LIMIT_BYTES = 1 << 32


@dataclass(frozen=True)
class BlockSummary:
    """What became of one block.

    Attributes:
        codec: ``raw``, ``constant``, ``zstd``, ``planes``, ``same`` or ``delta``.
        nbytes: its plain length.
        stored_nbytes: its encoded length.
    """

    codec: str
    nbytes: int
    stored_nbytes: int


@dataclass(frozen=True)
class Summary:
    """What a blob says of itself.

    Attributes:
        dtype: of the data.
        base_dtype: of the base, None where none is needed.
        nbytes: plain length.
        base_nbytes: the base's length, 0 where none is needed.
        blocks: in order.
    """

    dtype: str
    base_dtype: str | None
    nbytes: int
    base_nbytes: int
    blocks: tuple[BlockSummary, ...]


def summary_of(blob: Buffer) -> Summary:
    """What a blob says of itself, without decoding it.

    Raises:
        DamagedBlobError: its head is damaged, or it names a codec that is unknown.
    """
    view = memoryview(blob)
    head = read_head(view)
    blocks = []
    for number, block in enumerate(head.blocks):
        codec = block_reader(view, head, number).byte()
        if codec >= len(CODECS):
            raise DamagedBlobError(f"Block {number} of an encoded blob has the unknown codec {codec}")
        start, stop = head.plain_span(number)
        blocks.append(BlockSummary(CODECS[codec], stop - start, block.nbytes))
    return Summary(head.dtype, head.base_dtype, head.nbytes, head.base_nbytes, tuple(blocks))


def needs_base(blob: Buffer) -> bool:
    """Whether a blob is decoded against a base.

    Raises:
        DamagedBlobError: its head is damaged.
    """
    return read_head(memoryview(blob)).base_dtype is not None


def base_range(blob: Buffer, start: int, stop: int) -> tuple[int, int] | None:
    """Which bytes of the base the plain bytes from ``start`` to ``stop`` are decoded against, None for none.

    Raises:
        ValueError: the blob has no such range.
        DamagedBlobError: it is damaged.
    """
    view = memoryview(blob)
    head = read_head(view)
    return _base_range(view, head, _blocks(head, start, stop))


def decode(
    blob: Buffer,
    base: Buffer | None = None,
    *,
    limit: int = LIMIT_BYTES,
    executor: Executor | None = None,
    loops: Loops | None = None,
) -> bytes:
    """The data that `holdfast.vault.codec.encode` was given.

    Args:
        blob: what it returned.
        base: what it was given, where the blob needs it.
        limit: a blob that declares more bytes is not decoded.
        executor: runs the blocks side by side; not one whose every thread waits for this call.
        loops: NumPy's or numba's; None for what is fastest by now (`holdfast.vault.codec_kernels`).

    Raises:
        ValueError: there is no base, and the blob needs one.
        DamagedBlobError: it is damaged, longer than the limit, or was encoded against another base.
    """
    view = memoryview(blob)
    head = read_head(view)
    if head.nbytes > limit:
        raise DamagedBlobError(f"An encoded blob declares {head.nbytes} bytes, more than the {limit} that are expected")
    out = np.empty(head.nbytes, np.uint8)
    _decode_blocks(view, head, range(len(head.blocks)), out, _whole_base(head, base), executor, loops)
    return out.tobytes()


def decode_into(
    blob: Buffer,
    out: bytearray | memoryview,
    base: Buffer | None = None,
    *,
    executor: Executor | None = None,
    loops: Loops | None = None,
) -> None:
    """The same, written to ``out``, a buffer of exactly the plain length. After an error its content is undefined.

    Raises:
        ValueError: there is no base, and the blob needs one.
        DamagedBlobError: it is damaged, of another length, or was encoded against another base.
    """
    view = memoryview(blob)
    head = read_head(view)
    target = np.frombuffer(out, np.uint8)
    if head.nbytes != len(target):
        raise DamagedBlobError(f"An encoded blob declares {head.nbytes} bytes instead of {len(target)}")
    _decode_blocks(view, head, range(len(head.blocks)), target, _whole_base(head, base), executor, loops)


def decode_range(
    blob: Buffer,
    start: int,
    stop: int,
    base: Buffer | None = None,
    *,
    base_start: int = 0,
    executor: Executor | None = None,
    loops: Loops | None = None,
) -> bytes:
    """The plain bytes from ``start`` to ``stop``; only the blocks that hold them are decoded.

    Args:
        blob: what `holdfast.vault.codec.encode` returned.
        start: the first byte.
        stop: the one after the last.
        base: its bytes from ``base_start`` on, which must reach over `base_range`.
        base_start: the place of its first byte in the whole base.
        executor: as of `decode`.
        loops: as of `decode`.

    Raises:
        ValueError: the blob has no such range, or the base does not reach over what it needs.
        DamagedBlobError: it is damaged, or was encoded against another base.
    """
    view = memoryview(blob)
    head = read_head(view)
    blocks = _blocks(head, start, stop)
    if not blocks:
        return b""
    needed = _base_range(view, head, blocks)
    part = None
    if needed is not None and head.base_dtype is not None:
        at_hand = np.frombuffer(base or b"", np.uint8)
        if base_start > needed[0] or base_start + len(at_hand) < needed[1]:
            raise ValueError(f"The base's bytes from {needed[0]} to {needed[1]} are needed")
        part = Base(at_hand, head.base_dtype, head.dtype, head.base_nbytes, base_start)
    first, last = head.plain_span(blocks[0])[0], head.plain_span(blocks[-1])[1]
    out = np.empty(last - first, np.uint8)
    _decode_blocks(view, head, blocks, out, part, executor, loops)
    return out[start - first : stop - first].tobytes()


def _decode_blocks(
    blob: memoryview,
    head: Head,
    blocks: range,
    out: Array,
    base: Base | None,
    executor: Executor | None,
    loops: Loops | None,
) -> None:
    element, chosen = ELEMENTS[head.dtype], loops or loops_for(len(out))
    first = blocks.start << head.block_bits

    def block(number: int) -> None:
        start, stop = head.plain_span(number)
        reader = block_reader(blob, head, number)
        part = out[start - first : stop - first]
        codec = reader.data[:1]
        numbers = None if base is None or not codec or codec[0] not in NEED_BASE else base.numbers(start, stop)
        read_block(reader, part, numbers, element, chosen)
        if check_of(part.data) != head.blocks[number].check:
            other = ", or its base is not the one that it was encoded against" if numbers is not None else ""
            raise reader.damage(f"it does not have the content that its checksum stands for{other}")

    for _ in (executor.map if executor else map)(block, blocks):
        pass


def _blocks(head: Head, start: int, stop: int) -> range:
    """The blocks that hold a range."""
    if not 0 <= start <= stop <= head.nbytes:
        raise ValueError(f"A blob of {head.nbytes} bytes has none from {start} to {stop}")
    return range(start >> head.block_bits, -(-stop >> head.block_bits)) if start < stop else range(0)


def _base_range(blob: memoryview, head: Head, blocks: range) -> tuple[int, int] | None:
    if head.base_dtype is None:
        return None
    needing = [number for number in blocks if block_reader(blob, head, number).byte() in NEED_BASE]
    if not needing:
        return None
    first, last = head.plain_span(needing[0]), head.plain_span(needing[-1])
    return (
        base_span(*first, head.base_dtype, head.dtype)[0],
        min(base_span(*last, head.base_dtype, head.dtype)[1], head.base_nbytes),
    )


def _whole_base(head: Head, base: Buffer | None) -> Base | None:
    if head.base_dtype is None:
        return None
    if base is None:
        raise ValueError("The blob needs its base")
    at_hand = np.frombuffer(base, np.uint8)
    if len(at_hand) != head.base_nbytes:
        raise DamagedBlobError(f"An encoded blob needs a base of {head.base_nbytes} bytes, not one of {len(at_hand)}")
    return Base(at_hand, head.base_dtype, head.dtype, len(at_hand))
