"""The format as docs/design/vault-codec.md describes it: a decoder written from that page alone, and golden blobs.

The decoder is as plain as can be: Python's integers, one number at a time, no NumPy. It shares no line with the codec.
"""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.vault import codec
from holdfast.vault.codec_blob import read_head
from holdfast.vault.codec_blocks import CODECS
from holdfast.vault.codec_numba import NumbaLoops
from holdfast.vault.codec_numpy import NumpyLoops

GOLDEN = Path(__file__).parent / "golden" / "vault-codec"

# code → dtype, bytes of a number, bits of its mantissa (None: no float)
TYPES = {
    1: ("bytes", 1, None), 2: ("U8", 1, None), 3: ("I8", 1, None), 4: ("BOOL", 1, None), 5: ("QU8", 1, None),
    6: ("QI8", 1, None), 7: ("U16", 2, None), 8: ("I16", 2, None), 9: ("U32", 4, None), 10: ("I32", 4, None),
    11: ("QI32", 4, None), 12: ("U64", 8, None), 13: ("I64", 8, None), 16: ("F16", 2, 10), 17: ("BF16", 2, 7),
    18: ("F32", 4, 23), 19: ("F64", 8, 52), 20: ("C32", 2, 10), 21: ("C64", 4, 23), 22: ("C128", 8, 52),
    24: ("F8_E4M3", 1, 3), 25: ("F8_E5M2", 1, 2), 26: ("F8_E4M3FNUZ", 1, 3), 27: ("F8_E5M2FNUZ", 1, 2),
    28: ("F8_E8M0", 1, None), 32: ("F4", 1, None), 33: ("F4X2", 1, None), 34: ("F6_E2M3", 1, None),
    35: ("F6_E3M2", 1, None), 36: ("U4", 1, None), 37: ("I4", 1, None), 38: ("U2", 1, None), 39: ("QU4", 1, None),
    40: ("QU2", 1, None), 41: ("I2", 1, None),
}  # fmt: skip


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        assert self.at + length <= len(self.data)
        self.at += length
        return self.data[self.at - length : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value


def reference_decode(blob: bytes, base: bytes | None = None) -> bytes:
    reader = Bytes(blob)
    assert reader.take(4) == b"HFB\x01"
    dtype, width, mantissa = TYPES[reader.byte()]
    base_code, block_bits = reader.byte(), reader.byte()
    nbytes = reader.number()
    base_nbytes = reader.number() if base_code else 0
    count = (nbytes + (1 << block_bits) - 1) >> block_bits
    table = [(reader.number(), reader.take(8)) for _ in range(count)]
    assert blake3(blob[: reader.at]).digest()[:8] == reader.take(8)
    plain = b""
    for number, (length, check) in enumerate(table):
        start = number << block_bits
        stop = min(start + (1 << block_bits), nbytes)
        numbers = None
        if base_code:
            source, base_width, _ = TYPES[base_code]
            assert base is not None
            assert len(base) == base_nbytes
            part = base[start // width * base_width : stop // width * base_width]
            if len(part) == (stop // width - start // width) * base_width:
                numbers = reference_cast(unpacked(part, base_width), source, dtype)
        block = reference_block(Bytes(reader.take(length)), stop - start, width, mantissa, numbers)
        assert blake3(block).digest()[:8] == check
        plain += block
    assert reader.at == len(blob)
    return plain


def reference_block(reader: Bytes, nbytes: int, width: int, mantissa: int | None, base: list[int] | None) -> bytes:
    codec_id, n = reader.byte(), nbytes // width
    if codec_id == 0:
        out = reader.take(n * width)
    elif codec_id == 1:
        out = reader.take(width) * n
    elif codec_id == 2:
        out = reference_frame(reader, n * width)
    elif codec_id == 3:
        centre = int.from_bytes(reader.take(width), "little")
        out = packed([(number + centre) % 256**width for number in reference_section(reader, n, width)], width)
    elif codec_id == 4:
        assert base is not None
        out = packed(base, width)
    else:
        assert codec_id == 5
        assert base is not None
        out = packed(reference_delta(reader, base, width, mantissa), width)
    tail = reader.take(nbytes - n * width)
    assert reader.at == len(reader.data)
    return out + tail


def reference_delta(reader: Bytes, base: list[int], width: int, mantissa: int | None) -> list[int]:
    buckets = reader.byte() + 1
    if buckets == 1:
        order = list(range(len(base)))
        counts = [len(base)]
    else:
        assert mantissa is not None
        lowest, counts = reader.number(), [reader.number() for _ in range(buckets)]
        exponents = [(number >> mantissa) % (1 << (8 * width - 1 - mantissa)) for number in base]
        order = sorted(range(len(base)), key=lambda i: min(max(exponents[i], lowest), lowest + buckets - 1))
    differences = [one for count in counts if count for one in reference_section(reader, count, width)]
    out = [0] * len(base)
    top, every = 1 << (8 * width - 1), (1 << (8 * width)) - 1
    for place, folded in zip(order, differences, strict=True):
        steps = folded >> 1 if folded % 2 == 0 else -(folded >> 1) - 1
        if mantissa is None:
            out[place] = (base[place] + steps) & every
            continue
        # on a line of all the type's numbers, from the most negative one up
        sign = base[place] & top
        line = ((base[place] & ~sign) + top + steps) & every
        value = line - top if line >= top else every - line
        out[place] = value ^ sign
    return out


def reference_section(reader: Bytes, n: int, width: int) -> list[int]:
    head = reader.byte()
    rotation, apart, lowest_apart = head & 7, head & 8, head & 16
    assert head < 32
    assert apart or not lowest_apart
    flags = bits_of(reference_stream(reader, (n + 7) // 8), n) if apart else [True] * n
    kept = sum(flags)
    lowest = bits_of(reference_stream(reader, (kept + 7) // 8), kept) if lowest_apart else None
    planes = [reference_stream(reader, kept) for _ in range(width)]
    numbers = []
    for one in zip(*planes, strict=True):
        rotated = int.from_bytes(bytes(one), "little")
        numbers.append((rotated >> rotation) | (rotated << (8 * width - rotation)) & (256**width - 1))
    if lowest is not None:
        numbers = [2 * number + bit + 1 for number, bit in zip(numbers, lowest, strict=True)]
    rest = iter(numbers)
    return [next(rest) if flag else 0 for flag in flags]


def reference_stream(reader: Bytes, n: int) -> bytes:
    if n == 0:
        return b""
    form = reader.byte()
    if form == 0:
        return reader.take(1) * n
    if form == 1:
        return reader.take(n)
    if form == 2:
        return reference_frame(reader, n)
    assert form == 3
    assert n >= 32
    flags = bits_of(reference_stream(reader, (n + 7) // 8), n)
    rest = iter(reference_stream(reader, sum(flags)))
    return bytes(next(rest) if flag else 0 for flag in flags)


def reference_frame(reader: Bytes, n: int) -> bytes:
    frame = reader.take(reader.number())
    assert zstandard.frame_content_size(frame) == n
    return zstandard.ZstdDecompressor().decompress(frame)


def bits_of(bitmap: bytes, n: int) -> list[bool]:
    return [bool(bitmap[i // 8] >> (i % 8) & 1) for i in range(n)]


def unpacked(data: bytes, width: int) -> list[int]:
    return [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]


def packed(numbers: list[int], width: int) -> bytes:
    return b"".join(number.to_bytes(width, "little") for number in numbers)


def reference_cast(base: list[int], source: str, target: str) -> list[int]:
    if source == target:
        return base
    if (source, target) == ("BF16", "F32"):
        return [number << 16 for number in base]
    if (source, target) == ("F16", "F32"):
        return [code(struct.unpack("<e", number.to_bytes(2, "little"))[0], "<f", 0x7FC00000) for number in base]
    if (source, target) == ("F64", "F32"):
        return [code(struct.unpack("<d", number.to_bytes(8, "little"))[0], "<f", 0x7FC00000) for number in base]
    if (source, target) == ("F32", "F16"):
        return [code(struct.unpack("<f", number.to_bytes(4, "little"))[0], "<e", 0x7E00) for number in base]
    assert (source, target) == ("F32", "BF16")
    return [nearest_bf16(number) for number in base]


def code(value: float, form: str, nan: int) -> int:
    if value != value:
        return nan
    try:
        return int.from_bytes(struct.pack(form, value), "little")
    except OverflowError:  # beyond the largest number: infinity
        return int.from_bytes(struct.pack(form, float("inf") if value > 0 else float("-inf")), "little")


def nearest_bf16(number: int) -> int:
    sign, magnitude = number & 0x80000000, number & 0x7FFFFFFF
    if magnitude > 0x7F800000:
        return 0x7FC0
    low, high = magnitude & 0xFFFF, magnitude >> 16
    up = low > 0x8000 or (low == 0x8000 and high & 1)
    return (sign >> 16) | (high + up)


# --- blobs of the codec, decoded by the page -------------------------------------------------------------------------

DTYPES = [name for name, _, _ in TYPES.values()]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(DTYPES),
    words=st.lists(st.integers(0, 2**64 - 1), max_size=40),
    odd=st.binary(max_size=7),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 63)), max_size=12),
    shorter=st.integers(0, 64),
    repeats=st.integers(1, 60),
)
def test_any_blob_is_what_the_page_says(
    dtype: str, words: list[int], odd: bytes, flips: list[tuple[int, int]], shorter: int, repeats: int
) -> None:
    base = np.tile(np.array(words, np.uint64), repeats)
    data = base.copy()
    for place, bit in flips:
        if len(data):
            data[place % len(data)] ^= np.uint64(1) << np.uint64(bit)
    plain, against = data.tobytes() + odd, base.tobytes()[: max(0, base.nbytes - shorter)]
    for given_base in (None, against):
        blob = codec.encode(plain, dtype, given_base, block_bytes=4096)
        used = given_base if codec.needs_base(blob) else None
        assert reference_decode(blob, used) == plain
        assert codec.decode(blob, used) == plain


def floats(dtype: str, count: int, seed: int = 0) -> bytes:
    """Normally distributed numbers of a dtype, and some of every special kind."""
    wide = np.random.default_rng(seed).normal(0, 0.02, count)
    special = [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-310, 65504.0, 65520.0, 3.4e38, 1e300]
    wide[: len(special)] = special
    with np.errstate(over="ignore"):
        if dtype == "F64":
            return wide.tobytes()
        if dtype == "F16":
            return wide.astype("<f2").tobytes()
        single = wide.astype("<f4").view("<u4")
    single[len(special) : len(special) + 4] = [0x7FC00000, 0xFFC00001, 0x7F800001, 0x7FBFFFFF]
    if dtype == "F32":
        return single.tobytes()
    assert dtype == "BF16"
    return (single >> 16).astype("<u2").tobytes()


def nudged(data: bytes, dtype: str, size: int, seed: int = 1) -> bytes:
    """The numbers a few steps further: up to ``size`` of them, either way."""
    width = {"F64": 8, "F32": 4}.get(dtype, 2)
    codes = np.frombuffer(data, f"<u{width}").copy()
    steps = np.random.default_rng(seed).normal(0, size, len(codes)).astype(f"<i{width}").view(codes.dtype)
    return (codes + steps).tobytes()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_buckets_are_what_the_page_says(dtype: str) -> None:
    base = floats(dtype, 40_000)
    data = nudged(base, dtype, 3) + b"odd"[: 1 if dtype in ("BF16", "F16") else 3]
    blob = codec.encode(data, dtype, base, block_bytes=1 << 19)

    assert [block.codec for block in codec.summary_of(blob).blocks] == ["delta"]
    assert bucket_count(blob) > 2
    assert reference_decode(blob, base) == data


@pytest.mark.parametrize(
    ("source", "target"), [("F32", "BF16"), ("F32", "F16"), ("BF16", "F32"), ("F16", "F32"), ("F64", "F32")]
)
def test_casts_are_what_the_page_says(source: str, target: str) -> None:
    base = floats(source, 9000)
    width, base_width = (4 if target == "F32" else 2), {"F64": 8, "F32": 4}.get(source, 2)
    cast = packed(reference_cast(unpacked(base, base_width), source, target), width)
    for data in (cast, nudged(cast, target, 2)):
        blob = codec.encode(data, target, base, base_dtype=source)
        assert codec.summary_of(blob).base_dtype == source
        assert reference_decode(blob, base) == data
        assert codec.decode(blob, base) == data
    assert [block.codec for block in codec.summary_of(codec.encode(cast, target, base, base_dtype=source)).blocks] == [
        "same"
    ]


def bucket_count(blob: bytes) -> int:
    """How many buckets the first block has; that of a delta block."""
    first = len(blob) - sum(block.stored_nbytes for block in codec.summary_of(blob).blocks)
    assert blob[first] == 5
    return blob[first + 1] + 1


# --- golden blobs: written once, readable for ever --------------------------------------------------------------------


INDEX = json.loads((GOLDEN / "index.json").read_text())


def test_golden_blobs_are_all_there() -> None:
    assert sorted(INDEX) == sorted(path.stem for path in GOLDEN.glob("*.blob"))
    blobs = [(GOLDEN / f"{name}.blob").read_bytes() for name in INDEX]
    assert {block.codec for blob in blobs for block in codec.summary_of(blob).blocks} == set(CODECS)


@pytest.mark.parametrize("name", sorted(INDEX))
def test_golden_blob(name: str) -> None:
    blob = (GOLDEN / f"{name}.blob").read_bytes()
    plain, base = (kept and plain_of(kept) for kept in (INDEX[name]["plain"], INDEX[name]["base"]))

    assert codec.needs_base(blob) == (base is not None)
    assert codec.decode(blob, base) == plain
    assert reference_decode(blob, base) == plain


@pytest.mark.skipif(zstandard.ZSTD_VERSION != (1, 5, 7), reason="another zstd may write other frames")
@pytest.mark.parametrize("name", sorted(INDEX))
def test_what_is_written_stays_the_same(name: str) -> None:
    """So that a vault is given the same blob for the same content, whichever version writes it."""
    blob = (GOLDEN / f"{name}.blob").read_bytes()
    plain, base = (kept and plain_of(kept) for kept in (INDEX[name]["plain"], INDEX[name]["base"]))
    head = read_head(memoryview(blob))
    for loops in (NumpyLoops(), NumbaLoops()):
        again = codec.encode(
            plain, head.dtype, base, base_dtype=head.base_dtype, block_bytes=1 << head.block_bits, loops=loops
        )
        assert again == blob


def plain_of(name: str) -> bytes:
    return zstandard.ZstdDecompressor().decompress((GOLDEN / f"{name}.plain.zst").read_bytes())
