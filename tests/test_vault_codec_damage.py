"""Blobs that are damaged, truncated, hostile, or decoded against the wrong base: an error, never other data."""

import contextlib
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import IntegrityError
from holdfast.vault import codec
from holdfast.vault.codec_blob import MAGIC, check_of, read_head, write_head
from holdfast.vault.codec_blocks import read_block
from holdfast.vault.codec_elements import CODES, ELEMENTS, Array, Element
from holdfast.vault.codec_loops import Order
from holdfast.vault.codec_numpy import NumpyLoops
from holdfast.vault.codec_reader import DamagedBlobError, Reader, number_bytes
from holdfast.vault.codec_streams import read_stream, write_stream

RANDOM = np.random.default_rng(11)
WEIGHTS = RANDOM.normal(0, 0.02, 30_000).astype("<f4")
NEAR = (WEIGHTS + RANDOM.normal(0, 1e-4, 30_000).astype("<f4")).tobytes()
SPARSE = np.where(RANDOM.random(30_000) < 0.05, WEIGHTS, 0).astype("<f4").tobytes()
TEXT = b"".join(b"row %d, and the same words again and again\n" % row for row in range(900))

# name → (blob, what it holds, its base): every codec, every form of a stream, several blocks
CASES: dict[str, tuple[bytes, bytes, bytes | None]] = {
    "delta": (codec.encode(NEAR, "F32", WEIGHTS.tobytes(), block_bytes=1 << 16), NEAR, WEIGHTS.tobytes()),
    "planes": (codec.encode(NEAR + b"odd", "F32"), NEAR + b"odd", None),
    "sparse": (codec.encode(SPARSE, "F32"), SPARSE, None),
    "zstd": (codec.encode(TEXT), TEXT, None),
    "raw": (codec.encode(RANDOM.bytes(900)), RANDOM.bytes(0), None),
    "constant": (codec.encode(bytes(5000), "I64"), bytes(5000), None),
    "same": (codec.encode(NEAR, "F32", NEAR), NEAR, NEAR),
    "empty": (codec.encode(b"", "F32"), b"", None),
}
CASES["raw"] = (CASES["raw"][0], codec.decode(CASES["raw"][0]), None)
every_case = pytest.mark.parametrize("name", sorted(CASES))


def is_refused(blob: bytes, base: bytes | None) -> None:
    with pytest.raises(DamagedBlobError) as caught:
        codec.decode(blob, base)
    assert caught.value.exit_code == IntegrityError.exit_code == 13
    assert "blob" in caught.value.message


def head_length(blob: bytes) -> int:
    return len(blob) - sum(block.nbytes for block in read_head(memoryview(blob)).blocks)


@every_case
def test_every_bit_of_the_head(name: str) -> None:
    blob, _, base = CASES[name]
    for place in range(head_length(blob)):
        for bit in range(8):
            damaged = bytearray(blob)
            damaged[place] ^= 1 << bit
            is_refused(bytes(damaged), base)


@every_case
def test_five_hundred_flipped_bits(name: str) -> None:
    """A flip that the decoder cannot see, as one in the unused bits of a zstd frame, may give the very same data."""
    blob, data, base = CASES[name]
    random = np.random.default_rng(5)
    refused = 0
    for place in random.integers(0, len(blob), 500):
        damaged = bytearray(blob)
        damaged[place] ^= 1 << int(random.integers(8))
        try:
            assert codec.decode(bytes(damaged), base) == data
        except DamagedBlobError:
            refused += 1
    assert refused >= 480


@every_case
def test_every_truncation_and_addition(name: str) -> None:
    blob, _, base = CASES[name]
    for length in {*range(min(len(blob), 300)), *range(0, len(blob), max(1, len(blob) // 200)), len(blob) - 1}:
        is_refused(blob[:length], base)
    is_refused(blob + b"\0", base)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.sampled_from(sorted(CASES)), st.integers(0, 10**6), st.integers(0, 60))
def test_bytes_written_over(noise: bytes, name: str, place: int, moved: int) -> None:
    """Overwritten and shifted, the head made right again: what decodes is what was there, or nothing is."""
    blob, data, base = CASES[name]
    at = head_length(blob)
    payload = blob[at:]
    if payload:
        place %= len(payload)
        payload = payload[:place] + noise + payload[place + moved :]
    damaged = with_payload(blob, payload)
    with contextlib.suppress(DamagedBlobError):
        assert codec.decode(damaged, base) == data


def with_payload(blob: bytes, payload: bytes) -> bytes:
    """The same head, with checksums, for another payload; the last block takes what is more or less."""
    head = read_head(memoryview(blob))
    lengths = [block.nbytes for block in head.blocks]
    if lengths:
        lengths[-1] = max(0, lengths[-1] + len(payload) - sum(lengths))
    base = (head.base_dtype, head.base_nbytes) if head.base_dtype else None
    blocks = [(length, block.check) for length, block in zip(lengths, head.blocks, strict=True)]
    return write_head(head.dtype, base, head.block_bits, head.nbytes, blocks) + payload


@pytest.mark.parametrize("name", ["delta", "same"])
def test_another_base(name: str) -> None:
    blob, _, base = CASES[name]
    assert base is not None
    other = bytearray(base)
    other[60_000] ^= 1
    for wrong in (bytes(other), bytes(len(base)), WEIGHTS[::-1].tobytes()):
        is_refused(blob, wrong)
        with pytest.raises(DamagedBlobError, match="or its base is not the one"):
            codec.decode_range(blob, 60_000, 60_001, wrong)
    for wrong in (base[:-1], base + b"\0", b""):
        with pytest.raises(DamagedBlobError, match=f"a base of {len(base)} bytes"):
            codec.decode(blob, wrong)


class FaultyLoops(NumpyLoops):
    """A bit that flips in memory while a block is encoded; decoding is as it should be."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def differences(
        self, values: Array, base: Array, element: Element, lowest: int, buckets: int
    ) -> tuple[Array, list[int], Order]:
        out, counts, order = super().differences(values, base, element, lowest, buckets)
        one, other = 700, 701
        while out[one] == out[other]:
            other += 1
        assert other < counts[0]
        # a place that is wrong changes what is sorted by it, and is handed on: nothing else than a proof finds it
        for sorted_by_it in (out, order[0]):
            if self.where == "one place twice":
                sorted_by_it[one] = sorted_by_it[other]
            elif self.where == "two places changed":
                sorted_by_it[[one, other]] = sorted_by_it[[other, one]]
            elif self.where == "another bucket":
                sorted_by_it[[0, -1]] = sorted_by_it[[-1, 0]]
        if self.where == "counts":
            counts[0] += 1
            counts[1] -= 1
        out[77] ^= self.where == "differences"
        return out, counts, order

    def split_zeros(self, values: Array, nonzero: int) -> tuple[Array, Array]:
        bitmap, kept = super().split_zeros(values, nonzero)
        bitmap[3] ^= self.where == "bitmap"
        return bitmap, kept


@pytest.mark.parametrize(
    "where", ["differences", "bitmap", "one place twice", "two places changed", "another bucket", "counts"]
)
def test_a_fault_while_encoding_is_found_before_it_counts(where: str) -> None:
    fewer = np.frombuffer(NEAR, "<u4").copy()
    fewer[::3] = WEIGHTS.view("<u4")[::3]  # zeros among the differences
    with pytest.raises(codec.EncodingError, match="A block"):
        codec.encode(fewer.tobytes(), "F32", WEIGHTS.tobytes(), loops=FaultyLoops(where))
    blob = codec.encode(fewer.tobytes(), "F32", WEIGHTS.tobytes(), loops=FaultyLoops("nowhere"))
    assert codec.decode(blob, WEIGHTS.tobytes()) == fewer.tobytes()


def test_a_fault_in_the_last_byte_is_found() -> None:
    class Last(NumpyLoops):
        def differences(
            self, values: Array, base: Array, element: Element, lowest: int, buckets: int
        ) -> tuple[Array, list[int], Order]:
            out, counts, order = super().differences(values, base, element, lowest, buckets)
            out[-1] ^= 1
            return out, counts, order

    data = bytes(range(251)) * 4
    for length in (1000, 1001, 1003):
        with pytest.raises(codec.EncodingError, match="did not decode to what it was"):
            codec.encode(data[:length], "U8", data[1 : length + 1], loops=Last())


# --- hostile -----------------------------------------------------------------------------------------------------------


def head(
    dtype: int = CODES["F32"], base: int = 0, bits: int = 16, nbytes: int = 4096, base_nbytes: int = 4096,
    blocks: list[tuple[int, bytes]] | None = None,
) -> bytes:  # fmt: skip
    parts = MAGIC + bytes([dtype, base, bits]) + number_bytes(nbytes)
    parts += number_bytes(base_nbytes) if base else b""
    for length, check in blocks if blocks is not None else [(5, check_of(bytes(4096)))]:
        parts += number_bytes(length) + check
    return parts + blake3(parts).digest()[:8]


CONSTANT_ZERO = b"\x01\0\0\0\0"


def test_the_heads_of_these_tests_are_right() -> None:
    assert codec.decode(head() + CONSTANT_ZERO) == bytes(4096)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"HFB\x02" + (head() + CONSTANT_ZERO)[4:], "not those of the format"),
        (head(dtype=0) + CONSTANT_ZERO, "element types 0 and 0 are unknown"),
        (head(dtype=250) + CONSTANT_ZERO, "element types 250"),
        (head(base=CODES["I64"]) + CONSTANT_ZERO, "element types 18 and 13"),
        (head(bits=11) + CONSTANT_ZERO, r"blocks are of 2\^11"),
        (head(bits=27) + CONSTANT_ZERO, r"blocks are of 2\^27"),
        (head(nbytes=1 << 62) + CONSTANT_ZERO, "too short for the"),
        (head(bits=12, nbytes=4097) + CONSTANT_ZERO, "declared where|too short|checksum"),
        (head(blocks=[(1 << 62, bytes(8))]) + CONSTANT_ZERO, "instead of the"),
        (head(blocks=[(4, check_of(bytes(4096)))]) + CONSTANT_ZERO, "instead of the"),
        (MAGIC + bytes([18, 0, 16]) + b"\xff" * 20, "does not end"),
        (MAGIC + bytes([18, 0, 16]) + b"\x80\x00" + bytes(40), "longer than it needs"),
    ],
)
def test_a_head_that_lies(blob: bytes, reason: str) -> None:
    with pytest.raises(DamagedBlobError, match=reason):
        codec.decode(blob)
    with pytest.raises(DamagedBlobError):
        codec.summary_of(blob)


def frame(length: int) -> bytes:
    """A zstd frame that claims so many bytes, and holds none of them."""
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + length.to_bytes(8, "little") + b"\x01\x00\x00"


ZEROS = zstandard.ZstdCompressor().compress(bytes(4096))


def delta(*fields: int) -> bytes:
    return b"\x05" + bytes([fields[0]]) + b"".join(map(number_bytes, fields[1:]))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "ends too early"),
        (b"\x06", "codec 6 is unknown"),
        (b"\x00" + bytes(4095), "declared where"),
        (b"\x00" + bytes(4097), "left over"),
        (b"\x01\0\0\0", "declared where"),
        (b"\x02" + number_bytes(1 << 50) + b"frame", "declared where"),
        (b"\x02" + number_bytes(16) + frame(1 << 60), "does not hold the 4096 bytes"),
        (b"\x02" + number_bytes(16) + frame(4096), "cannot be read"),
        (b"\x02\x05frame", "cannot be read"),
        (b"\x02" + number_bytes(len(ZEROS) + 1) + ZEROS + b"!", "cannot be read"),
        (b"\x03\0\0\0\0\x10", "section begins with 16"),
        (b"\x03\0\0\0\0\x20", "section begins with 32"),
        (b"\x03\0\0\0\0\x28", "section begins with 40"),
        (b"\x03\0\0\0\0\x00" + b"\x03" * 2000, "unknown form 3"),
        (b"\x03\0\0\0\0\x18\x00\xff" + b"\x03" * 2000, "unknown form 3"),
        (b"\x03\0\0\0\0\x00\x04", "unknown form 4"),
        (b"\x03\0\0\0\0\x00\x03\x00\xff\x03", "unknown form 3"),
        (b"\x03\0\0\0\0\x08\x00\xff" + b"\x00\x01" * 3, "ends too early"),
        (b"\x03\0\0\0\0\x00\x02" + number_bytes(16) + frame(1 << 60), "does not hold the 1024 bytes"),
        (b"\x04", "needs a base"),
        (delta(0), "needs a base"),
    ],
)
def test_a_block_that_lies(payload: bytes, reason: str) -> None:
    blob = head(blocks=[(len(payload), bytes(8))]) + payload
    with pytest.raises(DamagedBlobError, match=reason):
        codec.decode(blob)


@pytest.mark.parametrize(
    ("dtype", "payload", "reason"),
    [
        ("F32", delta(1, 255, 512, 512), "buckets that its numbers cannot have"),
        ("F32", delta(1, 1 << 60, 512, 512), "buckets that its numbers cannot have"),
        ("F32", delta(1, 100, 512, 513), "buckets that its numbers cannot have"),
        ("F32", delta(1, 100, 1 << 62, 1024), "buckets that its numbers cannot have"),
        ("I32", delta(1, 0, 512, 512), "buckets that its numbers cannot have"),
        ("F32", delta(1, 100, 1024, 0), "ends too early"),
        ("F32", delta(1, 100, 0, 1024), "buckets are wrong|ends too early"),
    ],
)
def test_a_delta_that_lies(dtype: str, payload: bytes, reason: str) -> None:
    blob = head(CODES[dtype], CODES[dtype], blocks=[(len(payload), bytes(8))]) + payload
    with pytest.raises(DamagedBlobError, match=reason):
        codec.decode(blob, bytes(4096))


def test_a_bitmap_beyond_its_end() -> None:
    bitmap = b"\x08\x01" + b"\xff" * 2  # for the 12 numbers of 12 bytes
    payload = b"\x03\0" + bitmap + b"\x00\x07"
    blob = head(CODES["U8"], nbytes=12, blocks=[(len(payload), bytes(8))]) + payload
    with pytest.raises(DamagedBlobError, match="beyond its end"):
        codec.decode(blob)


def test_counts_that_belong_to_another_base() -> None:
    """Every field is in order, but the base has its exponents elsewhere."""
    blob, _, base = CASES["delta"]
    assert base is not None
    other = (np.frombuffer(base, "<f4") * np.float32(8)).tobytes()
    is_refused(blob, other)
    with pytest.raises(DamagedBlobError, match="its buckets are wrong, or its base is not the one"):
        codec.decode(blob, other, loops=NumpyLoops())


BOMBS = """
import resource, sys
from holdfast.vault import codec
from holdfast.vault.codec_blob import MAGIC
from holdfast.vault.codec_reader import DamagedBlobError
limit = 700 << 20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for line in sys.stdin:
    try:
        codec.decode(bytes.fromhex(line), bytes(4096))
    except DamagedBlobError as error:
        print("refused")
"""


def test_nothing_is_allocated_for_what_is_declared() -> None:
    """In 700 MB of address space: a MemoryError would end the child."""
    declared = [1 << 40, 1 << 50, (1 << 63) - 1]
    blobs = [head(bits=26, nbytes=nbytes, blocks=[]) for nbytes in declared]
    blobs += [
        head(bits=26, nbytes=nbytes, blocks=[(5, bytes(8))] * 100) + CONSTANT_ZERO * 100 for nbytes in [100 << 26]
    ]
    for length in declared:
        for payload in (
            b"\x02" + number_bytes(16) + frame(length),
            b"\x02" + number_bytes(length) + frame(length),
            b"\x03\0\0\0\0\x00\x02" + number_bytes(16) + frame(length),
            b"\x03\0\0\0\0\x08\x02" + number_bytes(16) + frame(length),
            delta(255, 0, *[length] * 256),
        ):
            base = CODES["F32"] if payload[0] == 5 else 0
            blobs.append(head(base=base, blocks=[(len(payload), bytes(8))]) + payload)
    done = subprocess.run(
        [sys.executable, "-c", BOMBS],
        input="\n".join(blob.hex() for blob in blobs),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["refused"] * len(blobs)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from(["F32", "BF16", "F64", "I16", "bytes"]),
    payload=st.one_of(
        st.binary(max_size=300),
        st.tuples(st.integers(0, 5), st.binary(max_size=200)).map(lambda pair: bytes([pair[0]]) + pair[1]),
    ),
    nbytes=st.integers(0, 5000),
)
def test_any_bytes_as_a_block(dtype: str, payload: bytes, nbytes: int) -> None:
    element = ELEMENTS[dtype]
    base = np.arange(nbytes // element.width, dtype=element.unsigned)
    out = np.zeros(nbytes, np.uint8)
    with contextlib.suppress(DamagedBlobError):
        read_block(Reader(memoryview(payload), "A block"), out, base, element, NumpyLoops())


@pytest.mark.parametrize("length", [1, 31, 32, 33, 255, 256, 257, 5000, 200_000])
def test_a_stream_grows_by_one_byte_at_most(length: int) -> None:
    loops = NumpyLoops()
    random = np.random.default_rng(length)
    for data in (
        random.integers(0, 256, length, np.uint8),
        random.integers(0, 2, length, np.uint8),
        (random.random(length) < 0.01).astype(np.uint8),
        np.zeros(length, np.uint8),
    ):
        written = b"".join(write_stream(data, loops))
        assert len(written) <= length + 1
        reader = Reader(memoryview(written), "A stream")
        assert read_stream(reader, length, loops).tobytes() == data.tobytes()
        reader.end()


def test_numbers_of_every_length() -> None:
    for number in (0, 1, 127, 128, 16_383, 16_384, (1 << 56) - 1, (1 << 63) - 1):
        reader = Reader(memoryview(number_bytes(number)), "A number")
        assert reader.number() == number
        reader.end()
    for wrong in (b"", b"\x80", b"\xff" * 9 + b"\x01", b"\x81\x00"):
        with pytest.raises(DamagedBlobError):
            Reader(memoryview(wrong), "A number").number()


@pytest.mark.parametrize("read", [codec.summary_of, codec.needs_base, lambda blob: codec.base_range(blob, 0, 1)])
def test_whoever_reads_a_head_checks_it(read: Callable[[bytes], object]) -> None:
    blob = bytearray(CASES["delta"][0])
    read(bytes(blob))
    blob[20] ^= 4
    with pytest.raises(DamagedBlobError):
        read(bytes(blob))
