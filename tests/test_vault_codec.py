"""The codec: what goes in comes out, as small as it can be, in whole and in part, on any number of threads."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.formats.dtypes import BITS
from holdfast.vault import codec
from holdfast.vault.codec_choice import MIN_BUCKET_ELEMENTS, _buckets
from holdfast.vault.codec_elements import CODES, ELEMENTS, OPAQUE
from holdfast.vault.codec_encoder import BLOCK_BYTES
from holdfast.vault.codec_entropy import FRACTION_BITS, entropy
from holdfast.vault.codec_sections import rotation_of

FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 4}
# NaNs with payloads, quiet and signalling, infinities, both zeros, the smallest and largest subnormals and normals
SPECIAL = {
    2: [0x7C01, 0x7E00, 0xFE01, 0xFFFF, 0x7C00, 0xFC00, 0x7F80, 0xFF80, 0x7FC0, 0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x007F, 0x7BFF, 0x7F7F],
    4: [0x7F800001, 0x7FC00000, 0xFFC12345, 0x7F800000, 0xFF800000, 0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF],
    8: [0x7FF0000000000001, 0xFFF8000000000000, 0x7FF0000000000000, 1 << 63, 0, 1, (1 << 63) | 1, 0x000FFFFFFFFFFFFF, 0x0010000000000000],
    1: [0x7F, 0x80, 0xFF, 0x00, 0x7C, 0xFC, 0x01, 0x81],
}  # fmt: skip


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, bytes, bytes | None]:
    """Data and a base: of any dtype, special numbers among them, the base equal, near, unrelated, longer or shorter."""
    dtype = draw(st.sampled_from([*FLOATS, *FLOATS, *sorted(CODES)]))
    width = ELEMENTS[dtype].width
    length = draw(st.one_of(st.integers(0, 50), st.integers(8000, 14_000)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 1, 3, 40]))
    if dtype in FLOATS and draw(st.booleans()):
        numbers = random.normal(0, 0.02, length).astype("<f4").view("<u4")
        top = 8 * width - 32
        codes = (numbers.astype("<u8") << max(0, top) >> max(0, -top)).astype(f"<u{width}")
    else:
        codes = random.integers(0, max(2, 256**width >> spread), length, f"<u{width}")
    for place, number in draw(
        st.lists(st.tuples(st.integers(0, length), st.sampled_from(SPECIAL[width])), max_size=20)
    ):
        codes[place : place + 1] = number
    tail = draw(st.binary(max_size=width - 1))
    kind = draw(st.sampled_from(["none", "equal", "near", "few", "unrelated", "longer", "shorter", "empty"]))
    base = codes.copy()
    if kind == "near":
        base += random.integers(0, 5, length).astype(base.dtype)
    elif kind == "few":
        base[:: draw(st.integers(1, 3000))] ^= 1
    elif kind == "unrelated":
        base = random.integers(0, 256**width, length, base.dtype)
    against = base.tobytes()
    against = {
        "none": None, "longer": against + random.bytes(draw(st.integers(1, 5000))),
        "shorter": against[: draw(st.integers(0, len(against)))], "empty": b"",
    }.get(kind, against)  # fmt: skip
    return dtype, codes.tobytes() + tail, against


def comes_out(case: tuple[str, bytes, bytes | None], block_bytes: int, start: int, stop: int) -> None:
    dtype, data, base = case
    blob = codec.encode(data, dtype, base, block_bytes=block_bytes)
    blocks = -(-len(data) // block_bytes)
    assert len(blob) <= len(data) + 32 + 14 * blocks
    used = base if codec.needs_base(blob) else None
    assert codec.decode(blob, used) == data
    out = bytearray(len(data))
    codec.decode_into(blob, out, used)
    assert out == data
    start, stop = sorted((start % (len(data) + 1), stop % (len(data) + 1)))
    span = codec.base_range(blob, start, stop)
    part = None if span is None or base is None else base[span[0] : span[1]]
    assert codec.decode_range(blob, start, stop, part, base_start=span[0] if span else 0) == data[start:stop]
    summary = codec.summary_of(blob)
    assert (summary.dtype, summary.nbytes, sum(block.nbytes for block in summary.blocks)) == (
        dtype,
        len(data),
        len(data),
    )


property_test = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
anything = given(tensors(), st.sampled_from([4096, 8192, BLOCK_BYTES]), st.integers(0, 10**6), st.integers(0, 10**6))


@property_test
@anything
def test_what_goes_in_comes_out(case: tuple[str, bytes, bytes | None], block_bytes: int, start: int, stop: int) -> None:
    comes_out(case, block_bytes, start, stop)


@pytest.mark.soak
@settings(property_test, max_examples=10_000, derandomize=False)
@anything
def test_what_goes_in_comes_out_of_ten_thousand(
    case: tuple[str, bytes, bytes | None], block_bytes: int, start: int, stop: int
) -> None:
    comes_out(case, block_bytes, start, stop)


def test_every_dtype_has_an_element() -> None:
    assert set(CODES) == {*BITS, OPAQUE}
    assert len(set(CODES.values())) == len(CODES)
    assert all(0 < code < 256 for code in CODES.values())


# --- how small ---------------------------------------------------------------------------------------------------------


def normal(count: int, seed: int = 0, size: float = 0.02) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, count).astype("<f4")


def bf16(numbers: np.ndarray) -> np.ndarray:
    return (numbers.view("<u4") >> 16).astype("<u2")


def codecs(blob: bytes) -> list[str]:
    return [block.codec for block in codec.summary_of(blob).blocks]


def test_each_way_where_it_is_the_smallest() -> None:
    weights = normal(100_000)
    near = weights + normal(100_000, 1, 1e-4)
    few = weights.copy()
    few[::1000] += 1
    text = b"".join(b"line %d of a text that repeats itself\n" % number for number in range(2000))
    sparse = np.where(np.random.default_rng(0).random(100_000) < 0.02, weights, np.float32(1.5))
    expected = {
        "raw": codec.encode(os.urandom(100_000)),
        "constant": codec.encode(np.full(1000, np.nan, "<f4").tobytes(), "F32"),
        "zstd": codec.encode(text),
        "planes": codec.encode(weights.tobytes(), "F32"),
        "same": codec.encode(weights.tobytes(), "F32", weights.tobytes()),
        "delta": codec.encode(near.tobytes(), "F32", weights.tobytes()),
    }
    assert {way: codecs(blob)[0] for way, blob in expected.items()} == {way: way for way in expected}
    assert len(expected["delta"]) < 0.61 * near.nbytes
    assert len(expected["planes"]) < 0.86 * weights.nbytes
    assert len(expected["same"]) < 64
    assert len(expected["constant"]) < 64
    assert (
        len(codec.encode(few.tobytes(), "F32", weights.tobytes())) < 1200
    )  # 100 numbers of 4 bytes, and where they are
    sparse_blob = codec.encode(sparse.tobytes(), "F32")
    assert codecs(sparse_blob) == ["planes"]
    assert (
        len(sparse_blob) < 0.022 * sparse.nbytes + 1900
    )  # the numbers, and a bit of entropy for each of 100,000 places


@pytest.mark.parametrize(
    ("dtype", "goal"), [("BF16", 5.1), ("F32", 1.68)], ids=["bf16", "fp32"]
)  # DESIGN's sketch had 5.11 and 1.69
def test_a_small_step_of_normal_weights(dtype: str, goal: float) -> None:
    before = normal(1 << 20)
    after = before + normal(1 << 20, 1, 1e-4)
    old, new = (bf16(w).tobytes() if dtype == "BF16" else w.tobytes() for w in (before, after))
    assert len(new) / len(codec.encode(new, dtype, old)) > goal


def test_double_precision_has_buckets_too() -> None:
    before = np.random.default_rng(0).normal(0, 0.02, 200_000)
    after = before + np.random.default_rng(1).normal(0, 1e-4, 200_000)
    alone = len(codec.encode(after.tobytes(), "F64"))
    against = len(codec.encode(after.tobytes(), "F64", before.tobytes()))
    assert against < 0.95 * alone < 0.92 * after.nbytes


def test_a_delta_beats_xor_where_signs_change_little() -> None:
    before = normal(300_000)
    after = before * np.float32(0.999) + normal(300_000, 1, 1e-4)
    new, old = bf16(after), bf16(before)
    ours = len(codec.encode(new.tobytes(), "BF16", old.tobytes()))
    assert ours < 0.8 * xor_planes(new, old)


def xor_planes(new: np.ndarray, old: np.ndarray) -> int:
    compressor = zstandard.ZstdCompressor(level=3)
    planes = (new ^ old).view(np.uint8).reshape(-1, new.itemsize)
    return sum(len(compressor.compress(planes[:, place].tobytes())) for place in range(new.itemsize))


@pytest.mark.parametrize("dtype", ["F32", "BF16", "U8", "I64", OPAQUE])
@pytest.mark.parametrize("against", [False, True])
def test_noise_grows_by_less_than_a_part_in_ten_thousand(dtype: str, against: bool) -> None:
    noise = np.random.default_rng(0).bytes(1_000_003)
    base = np.random.default_rng(1).bytes(1_000_003) if against else None
    assert len(codec.encode(noise, dtype, base)) <= 1.0001 * len(noise)


def test_exponents_are_coded_with_what_goes_with_them() -> None:
    """Bits of the exponent that never change make room for the mantissa's first: 1.508 without."""
    weights = bf16(normal(300_000))
    assert weights.nbytes / len(codec.encode(weights.tobytes(), "BF16")) > 1.515


def test_differences_of_one_step_either_way_take_a_bit() -> None:
    """As Huffman codes they take one bit and two: 7.6 without."""
    before = normal(300_000)
    after = bf16(before + normal(300_000, 1, 4e-5))
    assert after.nbytes / len(codec.encode(after.tobytes(), "BF16", bf16(before).tobytes())) > 7.9


def test_a_hundred_changes_in_a_million_numbers() -> None:
    before = normal(1 << 20)
    after = before.copy()
    after[::10_000] += 1
    # 105 numbers of 4 bytes, and where they are in a bitmap of 128 KiB
    assert len(codec.encode(after.tobytes(), "F32", before.tobytes(), block_bytes=1 << 22)) < 700
    for place in np.random.default_rng(5).integers(0, 1 << 20, 1000):
        after[place] += 1
    assert len(codec.encode(after.tobytes(), "F32", before.tobytes(), block_bytes=1 << 22)) < 5700


def test_a_sample_that_misleads_is_noticed() -> None:
    """The sampled runs are alike in both versions; nothing between them is."""
    weights, base = normal(1 << 18).view("<u4"), np.random.default_rng(1).integers(0, 2**32, 1 << 18, np.uint32)
    noise = np.random.default_rng(2).integers(0, 2**32, 1 << 18, np.uint32)
    step = len(base) // 8
    for run in range(8):
        for data in (weights, noise):
            data[run * step : run * step + 256] = base[run * step : run * step + 256] + np.uint32(1)
    assert codecs(codec.encode(weights.tobytes(), "F32", base.tobytes())) == ["planes"]
    assert codecs(codec.encode(noise.tobytes(), "F32", base.tobytes())) == ["raw"]


def test_casts_cost_next_to_nothing() -> None:
    weights = normal(200_000)
    weights[:4] = [np.inf, -np.inf, np.nan, -0.0]
    single = weights.view("<u4")
    rounded = ((single + 0x7FFF + ((single >> 16) & 1)) >> 16).astype("<u2")
    rounded[2] = 0x7FC0
    half = weights.astype("<f2").view("<u2")
    assert len(codec.encode(rounded.tobytes(), "BF16", weights.tobytes(), base_dtype="F32")) < 64
    assert len(codec.encode(half.tobytes(), "F16", weights.tobytes(), base_dtype="F32")) < 200  # the NaN's own bits
    rounded[::20_000] ^= 1
    assert len(codec.encode(rounded.tobytes(), "BF16", weights.tobytes(), base_dtype="F32")) < 200  # ten exceptions
    truncated = (single >> 16).astype("<u2")
    assert len(codec.encode(truncated.tobytes(), "BF16", weights.tobytes(), base_dtype="F32")) < 0.11 * truncated.nbytes
    widened = codec.encode(weights.tobytes(), "F32", rounded.tobytes(), base_dtype="BF16")
    assert len(widened) < 0.53 * weights.nbytes  # the sixteen bits that the cast has lost


def test_blocks_beyond_a_shorter_base_do_without() -> None:
    weights = normal(1 << 16)
    near = (weights + normal(1 << 16, 1, 1e-4)).tobytes()
    base = weights.tobytes()[: 3 * len(near) // 4]
    blob = codec.encode(near, "F32", base, block_bytes=len(near) // 4)
    assert codecs(blob) == ["delta", "delta", "delta", "planes"]
    assert codec.decode(blob, base) == near
    assert codec.base_range(blob, len(near) - 10, len(near)) is None
    assert codec.decode_range(blob, len(near) - 10, len(near)) == near[-10:]
    assert codec.base_range(blob, 5, 6) == (0, len(near) // 4)


def test_a_base_that_is_no_help_is_not_needed() -> None:
    blob = codec.encode(normal(50_000).tobytes(), "F32", np.random.default_rng(0).bytes(200_000))
    assert not codec.needs_base(blob)
    assert codec.summary_of(blob).base_nbytes == 0
    assert codec.decode(blob) == normal(50_000).tobytes()


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_the_rotation_is_told_from_the_median(width: int) -> None:
    bits = 8 * width
    for median in {*range(300), *(2**power + step for power in range(1, bits) for step in (-2, -1, 0, 1))}:
        if not 0 <= median < 2**bits:
            continue
        halves = ((median + 1) ** 2).bit_length() - 1
        expected = 7 if halves >= 2 * (bits - 8) else (38 - halves) // 2 if bits == 32 and 28 <= halves <= 37 else 0
        for low, high in ((0, 0), (0, 2**bits - 1), (2**bits - 1, 2**bits - 1), (0, median)):
            numbers = np.array([low, high, median, median, median], f"<u{width}")
            assert rotation_of(numbers) == (expected if width > 1 else 0), (median, low, high)
        assert rotation_of(np.array([0, median, median - 1 if median else 0, 2**bits - 1], f"<u{width}")) == (
            expected if width > 1 else 0
        )
    assert rotation_of(np.empty(0, f"<u{width}")) == 0


def test_entropy_is_shannon_s_with_miller_s_correction() -> None:
    counts = np.array([[5, 0, 3, 1], [0, 0, 0, 0], [7, 0, 0, 0], [1, 1, 1, 1]])
    wanted = 0.0
    for row in counts:
        some = row[row > 0]
        wanted -= float((some * np.log2(some / some.sum())).sum())
        wanted += max(0, len(some) - 1) * np.log2(np.e) / 2
    assert entropy(counts) / (1 << FRACTION_BITS) == pytest.approx(wanted, rel=1e-3)


def test_the_buckets_at_both_ends_have_enough() -> None:
    elements = MIN_BUCKET_ELEMENTS * 2048 // 64  # 64 of 2,048 sampled numbers are enough
    assert _buckets([63, 1, 1920, 1, 63], 100, elements) == (101, 3)
    assert _buckets([62, 1, 1922, 1, 62], 100, elements) == (102, 1)
    assert _buckets([64, 1920, 64], 100, elements) == (100, 3)
    assert _buckets([1000, 1048], 100, 2 * MIN_BUCKET_ELEMENTS - 1) == (0, 1)


# --- buffers, ranges, threads, memory ----------------------------------------------------------------------------------


def test_any_buffer_at_any_address() -> None:
    weights = normal(60_000)
    data, base = (weights + normal(60_000, 1, 1e-4)).tobytes(), weights.tobytes()
    expected = codec.encode(data, "F32", base)
    for shift in (1, 2, 3):
        shifted, shifted_base = bytearray(b"\0" * shift + data), memoryview(b"\0" * shift + base)[shift:]
        assert codec.encode(memoryview(shifted)[shift:], "F32", shifted_base) == expected
        assert codec.decode(bytearray(expected), shifted_base) == data
        for blob, its_base in ((expected, shifted_base), (codec.encode(data, "F32"), None)):
            shifted[shift:] = bytes(len(data))
            codec.decode_into(blob, memoryview(shifted)[shift:], its_base)
            assert shifted == b"\0" * shift + data
    assert codec.encode(memoryview(weights), "F32") == codec.encode(weights.tobytes(), "F32")
    wide = memoryview(np.zeros(1000, "<f8"))
    assert codec.decode(codec.encode(data, "F32", memoryview(weights)), memoryview(weights)) == data
    assert codec.decode(codec.encode(wide, "F64")) == bytes(8000)


def test_a_range_decodes_its_blocks_alone() -> None:
    data = normal(1 << 18).tobytes()
    blob = bytearray(codec.encode(data, "F32", block_bytes=1 << 16))
    bounds = np.cumsum([0, *(block.stored_nbytes for block in codec.summary_of(blob).blocks)])
    bounds += len(blob) - bounds[-1]
    for number, (low, high) in enumerate(pairwise(bounds.tolist())):
        if number not in (3, 4):
            blob[low:high] = bytes(high - low)
    assert codec.decode_range(blob, (3 << 16) + 7, (5 << 16) - 1) == data[(3 << 16) + 7 : (5 << 16) - 1]
    with pytest.raises(codec.DamagedBlobError, match="Block 5"):
        codec.decode_range(blob, 3 << 16, (5 << 16) + 1)


def test_what_cannot_be_asked_for() -> None:
    data = normal(20_000).tobytes()
    near = (normal(20_000) + normal(20_000, 1, 1e-4)).tobytes()
    blob = codec.encode(data, "F32", near)
    for wrong in (lambda: codec.encode(data, "float32"), lambda: codec.encode(data, "F32", near, base_dtype="I32")):
        with pytest.raises(ValueError, match="cannot be encoded against"):
            wrong()
    for block_bytes in (0, 3000, 2048, 1 << 27, -4096):
        with pytest.raises(ValueError, match="no length of blocks"):
            codec.encode(data, "F32", block_bytes=block_bytes)
    for start, stop in ((-1, 5), (6, 5), (0, len(data) + 1)):
        with pytest.raises(ValueError, match="has none from"):
            codec.decode_range(blob, start, stop, near)
    with pytest.raises(ValueError, match="needs its base"):
        codec.decode(blob)
    with pytest.raises(ValueError, match="are needed"):
        codec.decode_range(blob, 0, 1)
    with pytest.raises(ValueError, match="are needed"):
        codec.decode_range(blob, 0, 1, near[1:], base_start=1)
    with pytest.raises(codec.DamagedBlobError, match="more than the 79999"):
        codec.decode(blob, near, limit=len(data) - 1)
    with pytest.raises(codec.DamagedBlobError, match="instead of"):
        codec.decode_into(blob, bytearray(len(data) + 1), near)
    assert codec.decode_range(blob, 5, 5) == b""


def test_an_executor_changes_no_byte() -> None:
    weights = normal(1 << 18)
    data, base = (weights + normal(1 << 18, 1, 1e-4)).tobytes(), weights.tobytes()
    blob = codec.encode(data, "F32", base, block_bytes=1 << 15)
    with ThreadPoolExecutor(4) as pool:
        assert codec.encode(data, "F32", base, block_bytes=1 << 15, executor=pool) == blob
        assert codec.decode(blob, base, executor=pool) == data
        assert codec.decode_range(blob, 1000, 900_000, base, executor=pool) == data[1000:900_000]


TWO_THREADS = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from holdfast.vault import codec
from holdfast.vault.codec_numba import NumbaLoops
from holdfast.vault.codec_numpy import NumpyLoops

loops = {"numpy": NumpyLoops, "numba": NumbaLoops}[sys.argv[1]]()
random = np.random.default_rng(0)
base = random.normal(0, 0.02, 1 << 21).astype("<f4")
data = (base + random.normal(0, 1e-4, 1 << 21).astype("<f4")).tobytes()
base = base.tobytes()
blob = codec.encode(data, "F32", base, loops=loops)
ready = threading.Barrier(2)


def asleep(work):
    # nanoseconds on a processor, nanoseconds of waiting for one
    ready.wait()
    start, before = time.perf_counter_ns(), open("/proc/thread-self/schedstat").read().split()
    for _ in range(4):
        work()
    wall, after = time.perf_counter_ns() - start, open("/proc/thread-self/schedstat").read().split()
    return 1 - sum(int(a) - int(b) for a, b in zip(after[:2], before[:2])) / wall


with ThreadPoolExecutor(2) as pool:
    for work in (lambda: codec.encode(data, "F32", base, loops=loops), lambda: codec.decode(blob, base, loops=loops)):
        print(*pool.map(asleep, [work, work]))
"""


@pytest.mark.parametrize("loops", ["numpy", "numba"])
def test_two_threads_do_not_wait_for_one_another(loops: str) -> None:
    """How long two threads that work at a time neither run nor wait for a processor: that is, wait for Python's lock.

    Two threads that held it all the time would each wait for half of the time.
    """
    done = subprocess.run([sys.executable, "-c", TWO_THREADS, loops], capture_output=True, text=True, check=True)
    assert max(map(float, done.stdout.split())) < 0.3, done.stdout


MEMORY = """
import resource, sys
import numpy as np
from holdfast.vault import codec

random = np.random.default_rng(0)
base = random.standard_normal(1 << 24, "f4")
data = base + random.standard_normal(1 << 24, "f4") * np.float32(0.01)
codec.encode(data[: 1 << 20], "F32", base[: 1 << 20])
out = bytearray(data.nbytes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blob = codec.encode(data, "F32", base)
codec.decode_into(blob, out, base)
assert out == data.tobytes()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - before) * 1024, len(blob))
"""


def test_memory_is_that_of_a_few_blocks() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    grown, stored = map(int, done.stdout.split())
    # the encoded blocks, the blob that they are joined into, a copy of the data to compare with, and what one block takes
    assert grown < 2 * stored + (64 << 20) + 40 * BLOCK_BYTES
