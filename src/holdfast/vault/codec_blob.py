"""The head of an encoded blob: what it holds, in which blocks, against which base.

All of it is bounded by the blob's own length before anything is allocated, and its checksum is compared before any of
it is used.

==========  ==========================================================================================================
bytes       meaning
==========  ==========================================================================================================
4           `MAGIC`, whose last byte is the version of the format
1           the data's dtype, by its code (`holdfast.vault.codec_elements`)
1           the base's dtype, 0 where none is needed
1           binary logarithm of a block's length in bytes
number      plain length
number      length of the base; only where one is needed
for each    number: length of the encoded block; 8 bytes: the first of the BLAKE3 of its plain bytes
block
8           the first of the BLAKE3 of all of the above
==========  ==========================================================================================================

The encoded blocks follow in order, and nothing else. A number is seven bits a byte, the lowest first, the highest bit
set on all bytes but the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from holdfast.vault.codec_base import fits
from holdfast.vault.codec_elements import CODES, DTYPES
from holdfast.vault.codec_reader import Reader, number_bytes

MAGIC = b"HFB\x01"
CHECK_BYTES = 8
MIN_BLOCK_BITS, MAX_BLOCK_BITS = 12, 26
WHAT = "An encoded blob"


@dataclass(frozen=True)
class Block:
    """An encoded block.

    Attributes:
        offset: where it begins in the blob.
        nbytes: its length there.
        check: the first bytes of the BLAKE3 of its plain bytes.
    """

    offset: int
    nbytes: int
    check: bytes


@dataclass(frozen=True)
class Head:
    """What a blob says of itself.

    Attributes:
        dtype: of the data.
        base_dtype: of the base, None where none is needed.
        block_bits: binary logarithm of the plain length of all blocks but the last.
        nbytes: plain length.
        base_nbytes: the base's length, 0 where none is needed.
        blocks: in order.
    """

    dtype: str
    base_dtype: str | None
    block_bits: int
    nbytes: int
    base_nbytes: int
    blocks: tuple[Block, ...]

    def plain_span(self, block: int) -> tuple[int, int]:
        """Where a block's plain bytes begin and end."""
        start = block << self.block_bits
        return start, min(start + (1 << self.block_bits), self.nbytes)


def check_of(data: bytes | bytearray | memoryview) -> bytes:
    """The first bytes of the BLAKE3 of some bytes."""
    return blake3(data).digest(CHECK_BYTES)


def write_head(
    dtype: str, base: tuple[str, int] | None, block_bits: int, nbytes: int, blocks: Sequence[tuple[int, bytes]]
) -> bytes:
    """The head of a blob.

    Args:
        dtype: of the data.
        base: dtype and length of the base, None where none is needed.
        block_bits: binary logarithm of a block's length.
        nbytes: plain length.
        blocks: for each its encoded length and its check.
    """
    parts = [MAGIC, bytes([CODES[dtype], CODES[base[0]] if base else 0, block_bits]), number_bytes(nbytes)]
    if base:
        parts.append(number_bytes(base[1]))
    for length, check in blocks:
        parts += [number_bytes(length), check]
    head = b"".join(parts)
    return head + check_of(head)


def read_head(blob: memoryview) -> Head:
    """The head of a blob.

    Raises:
        DamagedBlobError: it is damaged, truncated, or of an unknown format.
    """
    reader = Reader(blob, WHAT)
    if reader.take(len(MAGIC)) != MAGIC:
        raise reader.damage("its first bytes are not those of the format that this version reads")
    code, base_code, block_bits = reader.take(3)
    nbytes = reader.number()
    base_nbytes = reader.number() if base_code else 0
    if not MIN_BLOCK_BITS <= block_bits <= MAX_BLOCK_BITS:
        raise reader.damage(f"its blocks are of 2^{block_bits} bytes")
    count = -(-nbytes >> block_bits)
    if count * (1 + CHECK_BYTES) > reader.left:
        raise reader.damage(f"it is too short for the {count} blocks that it declares")
    lengths = [(reader.number(), bytes(reader.take(CHECK_BYTES))) for _ in range(count)]
    end = reader.place
    if reader.take(CHECK_BYTES) != check_of(blob[:end]):
        raise reader.damage("the checksum of its head does not match")
    dtype, base_dtype = DTYPES.get(code), DTYPES.get(base_code)
    if dtype is None or (base_code and (base_dtype is None or not fits(base_dtype, dtype))):
        raise reader.damage(f"the element types {code} and {base_code} are unknown to this version")
    blocks, offset = [], reader.place
    for length, check in lengths:
        blocks.append(Block(offset, length, check))
        offset += length
    if offset != len(blob):
        raise reader.damage(f"it has {len(blob)} bytes instead of the {offset} that it declares")
    return Head(dtype, base_dtype, block_bits, nbytes, base_nbytes, tuple(blocks))


def block_reader(blob: memoryview, head: Head, block: int) -> Reader:
    """A reader of one encoded block."""
    at = head.blocks[block]
    return Reader(blob[at.offset : at.offset + at.nbytes], f"Block {block} of an encoded blob")
