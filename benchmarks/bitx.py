"""BitX's method as we understand it: XOR with another version, byte planes, zstd.

For each blob that, its planes alone, zstd or raw, whichever is smallest. The paper is "ZipLLM: Efficient LLM Storage
via Model-Aware Synergistic Data Deduplication and Compression" (Wang et al., NSDI 2026).
"""

from collections.abc import Callable

import numpy as np
import zstandard

from blobs import Array, Blob
from holdfast.vault.codec_elements import ELEMENTS


def bitx_size(compressor: zstandard.ZstdCompressor) -> Callable[[Blob, Blob | None], int]:
    """What measures a blob, against another or alone, in stored bytes; its planes go through ``compressor``."""

    def planes(numbers: Array) -> int:
        columns = numbers.view(np.uint8).reshape(-1, numbers.itemsize).T
        return sum(min(len(column), len(compressor.compress(column.tobytes()))) for column in columns)

    def size(blob: Blob, base: Blob | None) -> int:
        best = min(len(blob.data), len(zstandard.ZstdCompressor(level=3).compress(blob.data)))
        width = ELEMENTS[blob.dtype].width
        if len(blob.data) % width == 0 and blob.data:
            numbers = np.frombuffer(blob.data, f"<u{width}")
            best = min(best, planes(numbers))
            if base and len(base.data) == len(blob.data):
                best = min(best, planes(numbers ^ np.frombuffer(base.data, numbers.dtype)))
        return best

    return size


def huffman() -> zstandard.ZstdCompressor:
    """zstd as Huffman coding alone, as our codec uses it."""
    wishes = {"strategy": zstandard.STRATEGY_FAST, "min_match": 7, "hash_log": 6, "target_length": 0}
    parameters = zstandard.ZstdCompressionParameters.from_level(1, **wishes)
    return zstandard.ZstdCompressor(compression_params=parameters)
