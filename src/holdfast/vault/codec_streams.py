"""Streams of bytes inside of a block: the first of four forms that is small.

A stream begins with its form; how many bytes it holds is known from where it stands.

=====  ===========  ==================================================================================
form   name         what follows
=====  ===========  ==================================================================================
0      constant     the one byte
1      raw          the bytes
2      zstd         the frame's length as a number, a standard zstd frame that states its content size
3      zeros apart  a stream of ⌈n / 8⌉ bytes: bit ``i % 8`` of byte ``i // 8`` is set where byte ``i`` is not
                    zero, the bits beyond are not set; then a stream of the bytes that are not zero, of another form
=====  ===========  ==================================================================================

A stream of no bytes has no form, and takes no bytes. One of less than `MIN_CODED_BYTES` is not of form 3.
"""

import threading

import numpy as np
import zstandard

from holdfast.vault.codec_elements import Array
from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_reader import Reader, number_bytes

CONSTANT, RAW, ZSTD, ZEROS_APART = range(4)

# a stream of however many zeros
ALL_ZERO = bytes([CONSTANT, 0])

# Huffman coding takes at least one bit a byte. Where a third and more of the bytes are zero, a bit for each byte and
# then the other bytes are shorter: of 0.3 to 0.9, 0.65 was the smallest on the histories of benchmarks/gpt_history.py
MAX_NONZERO = 0.65
# below, the table of a Huffman code costs more than it saves; a part of the format, as it bounds how deep bitmaps go
MIN_CODED_BYTES = 32
# below, zeros apart save less than what it takes to say so
MIN_APART_BYTES = 256

# Huffman coding and next to no search for matches, of which noise has none: 2 % smaller and faster than levels 1 and 3
_HUFFMAN = {"strategy": zstandard.STRATEGY_FAST, "min_match": 7, "hash_log": 6, "target_length": 0}
_MATCHES_LEVEL = 3

_NOTHING = np.empty(0, np.uint8)

# a zstd context must not be used by two threads at a time
_contexts = threading.local()


def write_stream(data: Array, loops: Loops) -> list[bytes]:
    """The parts of a stream that holds ``data``: uint8 of shape (bytes,)."""
    length = len(data)
    if length >= MIN_APART_BYTES and 0 < np.count_nonzero(data) < MAX_NONZERO * length:
        bitmap, kept = loops.split_zeros(data)
        return [bytes([ZEROS_APART]), *write_stream(bitmap, loops), *_write_simple(kept)]
    return _write_simple(data)


def read_stream(reader: Reader, length: int, loops: Loops) -> Array:
    """The bytes of a stream: uint8 of shape (length,), not to be written to.

    Raises:
        DamagedBlobError: it does not hold them.
    """
    if not length:
        return _NOTHING
    form = reader.byte()
    if form == ZEROS_APART and length >= MIN_CODED_BYTES:
        flags, ones = read_bitmap(reader, length, loops)
        kept = _read_form(reader, reader.byte(), ones) if ones else _NOTHING
        return loops.join_zeros(flags, kept)
    return _read_form(reader, form, length)


def read_plane(reader: Reader, length: int, loops: Loops) -> Array | None:
    """The bytes of a stream, None where all of them are zero: most upper planes have nothing else.

    Raises:
        DamagedBlobError: it does not hold them.
    """
    if length and reader.data[reader.place : reader.place + 2] == ALL_ZERO:
        reader.place += 2
        return None
    return read_stream(reader, length, loops)


def read_bitmap(reader: Reader, bits: int, loops: Loops) -> tuple[Array, int]:
    """The bits of a bitmap, bool of shape (bits,), and how many of them are set.

    Raises:
        DamagedBlobError: it does not hold them, or sets bits beyond them.
    """
    bitmap = read_stream(reader, -(-bits // 8), loops)
    if bits % 8 and bitmap[-1] >> (bits % 8):
        raise reader.damage("a bitmap goes on beyond its end")
    flags = np.unpackbits(bitmap, count=bits, bitorder="little").view(np.bool_)
    return flags, int(np.count_nonzero(flags))


def zstd_frame(data: Array, *, matches: bool) -> bytes:
    """A zstd frame of uint8 of shape (bytes,), Huffman coded alone or with matches, too."""
    return _compressor(matches).compress(data.data)


def plain_of_frame(reader: Reader, frame: memoryview, length: int) -> bytes:
    """What a frame holds, which must be ``length`` bytes.

    Raises:
        DamagedBlobError: it is damaged or holds another number of bytes.
    """
    try:
        # the library allocates what a frame claims
        if zstandard.frame_content_size(frame) != length:
            raise reader.damage(f"a zstd frame does not hold the {length} bytes that belong there")
        plain: bytes = _decompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise reader.damage(f"a zstd frame cannot be read ({error})") from None
    if len(plain) != length:
        raise reader.damage(f"a zstd frame holds {len(plain)} bytes instead of {length}")
    return plain


def _write_simple(data: Array) -> list[bytes]:
    length = len(data)
    if not length:
        return []
    if data[0] == data[-1] and bool((data == data[0]).all()):
        return [bytes([CONSTANT, data[0]])]
    if length >= MIN_CODED_BYTES:
        frame = zstd_frame(data, matches=False)
        size = number_bytes(len(frame))
        if len(size) + len(frame) < length:
            return [bytes([ZSTD]), size, frame]
    return [bytes([RAW]), data.tobytes()]


def _read_form(reader: Reader, form: int, length: int) -> Array:
    if form == ZSTD:
        return np.frombuffer(plain_of_frame(reader, reader.take(reader.number()), length), np.uint8)
    if form == RAW:
        return np.frombuffer(reader.take(length), np.uint8)
    if form == CONSTANT:
        return np.full(length, reader.byte(), np.uint8)
    raise reader.damage(f"a stream has the unknown form {form}")


def _compressor(matches: bool) -> zstandard.ZstdCompressor:
    name = "matching" if matches else "huffman"
    made: zstandard.ZstdCompressor | None = getattr(_contexts, name, None)
    if made is None:
        level, wishes = (_MATCHES_LEVEL, {}) if matches else (1, _HUFFMAN)
        parameters = zstandard.ZstdCompressionParameters.from_level(level, **wishes)
        made = zstandard.ZstdCompressor(compression_params=parameters)
        setattr(_contexts, name, made)
    return made


def _decompressor() -> zstandard.ZstdDecompressor:
    made: zstandard.ZstdDecompressor | None = getattr(_contexts, "decompressor", None)
    if made is None:
        made = _contexts.decompressor = zstandard.ZstdDecompressor()
    return made
