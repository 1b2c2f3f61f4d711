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
_FORMS = [bytes([form]) for form in range(4)]

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


class _Contexts(threading.local):
    """zstd's contexts of a thread: one must not be used by two at a time."""

    def __init__(self) -> None:
        self.huffman = _compressor(1, **_HUFFMAN)
        self.matching = _compressor(_MATCHES_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


def _compressor(level: int, **wishes: int) -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(level, **wishes)
    return zstandard.ZstdCompressor(compression_params=parameters)


_contexts = _Contexts()


def write_stream(data: Array, loops: Loops) -> list[bytes]:
    """The parts of a stream that holds ``data``: uint8 of shape (bytes,)."""
    length = len(data)
    if length >= MIN_APART_BYTES:
        nonzero = int(np.count_nonzero(data))
        if not nonzero:
            return [ALL_ZERO]
        if nonzero < MAX_NONZERO * length:
            bitmap, kept = loops.split_zeros(data, nonzero)
            return [_FORMS[ZEROS_APART], *write_stream(bitmap, loops), *_write_simple(kept)]
    return _write_simple(data)


def read_stream(reader: Reader, length: int, loops: Loops) -> Array:
    """The bytes of a stream: uint8 of shape (length,), not to be written to.

    Raises:
        DamagedBlobError: it does not hold them.
    """
    if not length:
        return _NOTHING
    form = reader.byte()
    if form != ZEROS_APART or length < MIN_CODED_BYTES:
        return _read_simple(reader, form, length)
    data = np.zeros(length, np.uint8)
    _join_zeros(reader, 0, data, loops)
    return data


def read_plane(reader: Reader, shift: int, out: Array, loops: Loops) -> None:
    """The bytes of a stream as those of ``out`` that begin at bit ``shift``, which are zero; with 0, ``out`` has no
    content yet.

    Raises:
        DamagedBlobError: it does not hold them.
    """
    form = reader.byte()
    if form == CONSTANT:
        value = reader.byte()
        if not shift:
            out.fill(value)
        elif value:
            out |= out.dtype.type(value << shift)
    elif form == ZEROS_APART and len(out) >= MIN_CODED_BYTES:
        if not shift:
            out.fill(0)
        _join_zeros(reader, shift, out, loops)
    elif shift:
        loops.add_plane(_read_simple(reader, form, len(out)), shift, out)
    else:
        out[:] = _read_simple(reader, form, len(out))


def read_bitmap(reader: Reader, bits: int, loops: Loops) -> Array:
    """A bitmap: uint8 of shape (⌈bits / 8⌉,).

    Raises:
        DamagedBlobError: it does not hold them, or sets bits beyond them.
    """
    bitmap = read_stream(reader, (bits + 7) // 8, loops)
    if bits % 8 and bitmap[-1] >> (bits % 8):
        raise reader.damage("a bitmap goes on beyond its end")
    return bitmap


def zstd_frame(data: Array, *, matches: bool) -> bytes:
    """A zstd frame of uint8 of shape (bytes,), Huffman coded alone or with matches, too."""
    return (_contexts.matching if matches else _contexts.huffman).compress(data.data)


def read_frame(reader: Reader, length: int) -> Array:
    """What a frame holds, before which its own length lies, and which must be ``length`` bytes; not to be written to.

    Raises:
        DamagedBlobError: it is damaged or holds another number of bytes.
    """
    frame = reader.take(reader.number())
    try:
        # the library allocates what a frame claims
        if zstandard.frame_content_size(frame) != length:
            raise reader.damage(f"a zstd frame does not hold the {length} bytes that belong there")
        plain = np.frombuffer(_contexts.decompressor.decompress(frame, allow_extra_data=False), np.uint8)
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
        frame = _contexts.huffman.compress(data.data)
        size = number_bytes(len(frame))
        if len(size) + len(frame) < length:
            return [_FORMS[ZSTD], size, frame]
    return [_FORMS[RAW], data.tobytes()]


def _read_simple(reader: Reader, form: int, length: int) -> Array:
    if form == ZSTD:
        return read_frame(reader, length)
    if form == RAW:
        return np.frombuffer(reader.take(length), np.uint8)
    if form == CONSTANT:
        return np.full(length, reader.byte(), np.uint8)
    raise reader.damage(f"a stream has the unknown form {form}")


def _join_zeros(reader: Reader, shift: int, out: Array, loops: Loops) -> None:
    length = len(out)
    marks, ones = loops.marks(read_bitmap(reader, length, loops), length)
    if ones:
        loops.join_zeros(marks, _read_simple(reader, reader.byte(), ones), shift, out)
