"""The vault's codec: numbers, or any bytes, to a self-describing blob without loss, and back.

A blob is cut into blocks. Each is encoded in the way that is likely to be the smallest, alone or against a *base*:
other data of as many numbers, most often the same tensor in a neighbouring version. Decoding needs the same base again.
The format is described to the byte in ``docs/design/vault-codec.md``.
"""

from holdfast.vault.codec_decoder import (
    LIMIT_BYTES,
    BlockSummary,
    Summary,
    base_range,
    decode,
    decode_into,
    decode_range,
    needs_base,
    summary_of,
)
from holdfast.vault.codec_encoder import BLOCK_BYTES, MAX_BYTES, EncodingError, encode
from holdfast.vault.codec_kernels import loops_in_use
from holdfast.vault.codec_reader import DamagedBlobError

__all__ = [
    "BLOCK_BYTES",
    "LIMIT_BYTES",
    "MAX_BYTES",
    "BlockSummary",
    "DamagedBlobError",
    "EncodingError",
    "Summary",
    "base_range",
    "decode",
    "decode_into",
    "decode_range",
    "encode",
    "loops_in_use",
    "needs_base",
    "summary_of",
]
