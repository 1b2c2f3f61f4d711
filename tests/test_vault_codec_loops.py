"""NumPy's loops and numba's: alike in every bit, and each what its description says."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.vault import codec
from holdfast.vault.codec_base import Base
from holdfast.vault.codec_elements import CASTS, ELEMENTS, Array, Element, cast
from holdfast.vault.codec_loops import Loops, Order
from holdfast.vault.codec_numba import NumbaLoops
from holdfast.vault.codec_numpy import PIECE_ELEMENTS, NumpyLoops

NUMPY, NUMBA = NumpyLoops(), NumbaLoops()
FLOATS = ["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"]
KINDS = [*FLOATS, "U8", "U16", "U32", "U64"]
both = pytest.mark.parametrize("loops", [NUMPY, NUMBA], ids=["numpy", "numba"])


def numbers_of(element: Element, length: int) -> st.SearchStrategy[Array]:
    """Any bits, and runs around few numbers, as they are in neighbouring versions."""
    dtype = element.unsigned
    top = 2**element.bits - 1
    near = st.integers(0, top).flatmap(lambda start: st.integers(start, min(top, start + 5)))
    return st.one_of(
        hnp.arrays(dtype, length, elements=st.integers(0, top)),
        hnp.arrays(dtype, length, elements=near, fill=st.integers(0, top)),
    )


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Element, Array, Array]:
    element = ELEMENTS[draw(st.sampled_from(KINDS))]
    length = draw(st.integers(1, 300))
    return element, draw(numbers_of(element, length)), draw(numbers_of(element, length))


@st.composite
def ordered(draw: st.DrawFn) -> tuple[Element, Array, Array, int, int]:
    element = ELEMENTS[draw(st.sampled_from(FLOATS))]
    length = draw(st.integers(1, 300))
    most = 1 << element.exponent_bits
    lowest = draw(st.integers(0, most - 1))
    buckets = draw(st.integers(1, min(256, most - lowest)))
    return element, draw(numbers_of(element, length)), draw(numbers_of(element, length)), lowest, buckets


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ordered())
def test_sorted_alike(case: tuple[Element, Array, Array, int, int]) -> None:
    element, values, base, lowest, buckets = case
    results = [loops.differences(values, base, element, lowest, buckets) for loops in (NUMPY, NUMBA)]
    assert results[0][0].tobytes() == results[1][0].tobytes()
    differences, counts, _ = results[0]
    assert results[1][1] == counts

    found = buckets_by_hand(base, element, lowest, buckets)
    assert counts == [found.count(bucket) for bucket in range(buckets)]
    as_they_lie = NUMPY.differences(values, base, element, 0, 1)[0]
    places = sorted(range(len(values)), key=found.__getitem__)
    assert differences.tolist() == as_they_lie[places].tolist()

    for loops, (_, _, order) in zip((NUMPY, NUMBA), results, strict=True):
        for known in (None, order):
            out = np.empty_like(values)
            assert loops.restore(differences, base, element, lowest, counts, out, known)
            assert out.tobytes() == values.tobytes()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ordered(), st.integers(0, 299))
def test_buckets_of_another_base_are_found_out(case: tuple[Element, Array, Array, int, int], bit: int) -> None:
    element, values, base, lowest, buckets = case
    differences, counts, _ = NUMPY.differences(values, base, element, lowest, buckets)
    other = base.copy()
    other[bit % len(base)] ^= base.dtype.type(1 << (element.mantissa or 0))
    found = buckets_by_hand(other, element, lowest, buckets)
    for loops in (NUMPY, NUMBA):
        same = loops.restore(differences, other, element, lowest, counts, np.empty_like(values))
        assert same == (counts == [found.count(bucket) for bucket in range(buckets)])


def buckets_by_hand(base: Array, element: Element, lowest: int, buckets: int) -> list[int]:
    exponents = [int(code) >> (element.mantissa or 0) & ((1 << element.exponent_bits) - 1) for code in base]
    return [min(max(exponent, lowest), lowest + buckets - 1) - lowest for exponent in exponents]


@pytest.mark.parametrize(
    "fault", ["two places changed", "one place twice", "another bucket", "not sorted", "too short"]
)
def test_an_order_is_proven(fault: str) -> None:
    """What was found while encoding is of use where it is right, and of no harm where memory has changed since."""
    element = ELEMENTS["F32"]
    random = np.random.default_rng(7)
    base = random.normal(0, 0.02, 2 * PIECE_ELEMENTS + 5).astype("<f4").view("<u4")
    values = base + random.integers(0, 9, len(base)).astype("<u4")
    differences, counts, order = NUMPY.differences(values, base, element, 110, 14)
    places = order[1]
    if fault == "two places changed":
        places[[10, 11]] = places[[11, 10]]
    elif fault == "one place twice":
        places[11] = places[10]
    elif fault == "another bucket":
        places[[0, -1]] = places[[-1, 0]]
    elif fault == "not sorted":
        places.sort()
    else:
        del order[1:]
    out = np.empty_like(values)
    assert NUMPY.restore(differences, base, element, 110, counts, out, order)
    assert out.tobytes() == values.tobytes()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(pairs())
def test_differences_are_counted_steps(case: tuple[Element, Array, Array]) -> None:
    element, values, base = case
    for loops in (NUMPY, NUMBA):
        folded, counts, _ = loops.differences(values, base, element, 0, 1)
        assert counts == [len(values)]
        assert folded.tolist() == [steps(int(v), int(b), element) for v, b in zip(values, base, strict=True)]
        out = np.empty_like(values)
        assert loops.restore(folded, base, element, 0, counts, out)
        assert out.tobytes() == values.tobytes()


def steps(value: int, base: int, element: Element) -> int:
    """The folded difference, by counting on the line of all numbers of the type."""
    modulus = 2**element.bits
    top = modulus // 2

    def place(code: int) -> int:
        return code + top if code < top else modulus - 1 - code

    if element.mantissa is None:
        difference = value - base
    else:
        difference = place(value) - place(base)
        if base >= top:
            difference = -difference
    difference = (difference + top) % modulus - top
    return 2 * difference if difference >= 0 else -2 * difference - 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from([1, 2, 4, 8]), st.lists(st.sampled_from([0, 0, 0, 1, 2, 255]), min_size=1, max_size=200))
def test_zeros_split_alike(width: int, some: list[int]) -> None:
    values = np.array(some, f"<u{width}")
    nonzero = len(some) - some.count(0)
    (bitmap, kept), (other_bitmap, other_kept) = (loops.split_zeros(values, nonzero) for loops in (NUMPY, NUMBA))
    assert bitmap.tobytes() == other_bitmap.tobytes()
    assert kept.tobytes() == other_kept.tobytes() == values[values != 0].tobytes()
    assert [bool(bitmap[i // 8] >> (i % 8) & 1) for i in range(len(values))] == [bool(value) for value in some]
    assert len(bitmap) == -(-len(values) // 8)
    for loops in (NUMPY, NUMBA):
        marks, ones = loops.marks(bitmap, len(values))
        assert ones == nonzero
        out = np.zeros_like(values)
        loops.join_zeros(marks, kept, 0, out)
        assert out.tobytes() == values.tobytes()


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("nonzero", [1, 30, 100, 160])
def test_few_split_alike(width: int, nonzero: int) -> None:
    random = np.random.default_rng(nonzero)
    values = np.zeros(5003, f"<u{width}")
    values[random.choice(5003, nonzero, replace=False)] = random.integers(1, 2 ** (8 * width), nonzero, values.dtype)
    for loops in (NUMPY, NUMBA):
        bitmap, kept = loops.split_zeros(values, nonzero)
        assert bitmap.tobytes() == np.packbits(values != 0, bitorder="little").tobytes()
        assert kept.tobytes() == values[values != 0].tobytes()
        out = np.zeros_like(values)
        loops.join_zeros(loops.marks(bitmap, 5003)[0], kept, 0, out)
        assert out.tobytes() == values.tobytes()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_planes_are_added_alike(width: int, data: st.DataObject) -> None:
    length, place = data.draw(st.integers(1, 200)), data.draw(st.integers(0, width - 1))
    plane = data.draw(hnp.arrays(np.uint8, length, elements=st.integers(0, 255), fill=st.just(0)))
    others = data.draw(hnp.arrays(np.uint8, (length, width), elements=st.integers(0, 255)))
    others[:, place] = 0
    expected = others.copy()
    expected[:, place] = plane
    for loops in (NUMPY, NUMBA):
        dense, sparse = others.copy().view(f"<u{width}").reshape(-1), others.copy().view(f"<u{width}").reshape(-1)
        loops.add_plane(plane, 8 * place, dense)
        assert dense.tobytes() == expected.tobytes()
        marks, _ = loops.marks(np.packbits(plane != 0, bitorder="little"), length)
        loops.join_zeros(marks, plane[plane != 0], 8 * place, sparse)
        assert sparse.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("length", [PIECE_ELEMENTS - 1, PIECE_ELEMENTS, PIECE_ELEMENTS + 1, 3 * PIECE_ELEMENTS + 77])
def test_pieces_meet(dtype: str, length: int) -> None:
    element = ELEMENTS[dtype]
    random = np.random.default_rng(length)
    values, base = (random.integers(0, 2**element.bits, length, element.unsigned) for _ in range(2))
    buckets = min(256, 1 << element.exponent_bits)
    results = []
    for loops in (NUMPY, NUMBA):
        differences, counts, order = loops.differences(values, base, element, 0, buckets)
        results.append(differences.tobytes())
        for known in (None, order):
            out = np.empty_like(values)
            assert loops.restore(differences, base, element, 0, counts, out, known)
            assert out.tobytes() == values.tobytes()
        halves = values * (values % 2)
        marks, ones = loops.marks(*(loops.split_zeros(halves, np.count_nonzero(halves))[0], length))
        out = np.zeros_like(values)
        loops.join_zeros(marks, halves[halves != 0], 0, out)
        assert ones == np.count_nonzero(halves)
        assert out.tobytes() == halves.tobytes()
    assert results[0] == results[1]


@pytest.mark.parametrize("seed", range(12))
def test_the_same_blobs(seed: int) -> None:
    random = np.random.default_rng(seed)
    dtype = KINDS[seed % len(KINDS)]
    element = ELEMENTS[dtype]
    base = random.normal(0, 0.02, 60_000).astype("<f4").view(np.uint8)[: 60_000 * element.width].tobytes()
    numbers = np.frombuffer(base, element.unsigned)
    changed = numbers + random.integers(0, 3, len(numbers)).astype(element.unsigned) * (
        random.random(len(numbers)) < seed / 12
    )
    blobs = {codec.encode(changed.tobytes(), dtype, base, loops=loops, block_bytes=1 << 16) for loops in (NUMPY, NUMBA)}
    assert len(blobs) == 1
    for loops in (NUMPY, NUMBA):
        assert codec.decode(next(iter(blobs)), base, loops=loops) == changed.tobytes()


@both
@pytest.mark.parametrize("counts", [[5000, 0, 0], [0, 0, 5000], [1, 2, 4997]])
@pytest.mark.parametrize("length", [5000, 4999])
def test_wrong_counts_touch_no_memory_but_their_own(loops: Loops, counts: list[int], length: int) -> None:
    element = ELEMENTS["F32"]
    random = np.random.default_rng(0)
    base, differences = (random.integers(0, 2**32, length, np.uint32) for _ in range(2))
    counts = [max(0, count - (5000 - length)) if count == max(counts) else count for count in counts]
    guarded = np.full(7000, 0xDEADBEEF, np.uint32)
    assert not loops.restore(differences, base, element, 120, counts, guarded[1000 : 1000 + length])
    assert (guarded[:1000] == 0xDEADBEEF).all()
    assert (guarded[1000 + length :] == 0xDEADBEEF).all()


@pytest.mark.parametrize(("source", "target"), sorted(CASTS))
def test_casts_are_torch_s(source: str, target: str) -> None:
    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    random = np.random.default_rng(3)
    element = ELEMENTS[source]
    codes = random.integers(0, 2**element.bits, 200_000, element.unsigned)
    small = (random.normal(0, 1, 100_000) * 10.0 ** random.integers(-12, 6, 100_000)).astype("<f8")
    halves = np.arange(0, 2**16, dtype=np.uint32) << 16 | 0x8000  # ties of float32 to bfloat16
    if source == "F32":
        codes = np.concatenate([codes, small.astype("<f4").view("<u4"), halves, halves + 1, halves - 1])
    elif source == "F64":
        codes = np.concatenate([codes, small.view("<u8")])
    wide = torch.frombuffer(bytearray(codes.tobytes()), dtype=types[source])
    expected = wide.to(types[target])
    ours = torch.frombuffer(bytearray(cast(codes, source, target).tobytes()), dtype=types[target])

    nan = torch.isnan(wide)
    integers = torch.int32 if target == "F32" else torch.int16
    assert torch.equal(ours[~nan].view(integers), expected[~nan].view(integers))
    assert torch.isnan(ours[nan]).all()
    assert len(torch.unique(ours[nan].view(integers))) <= (1 if (source, target) != ("BF16", "F32") else 2**24)


def test_the_loops_in_use_are_named() -> None:
    assert codec.loops_in_use() == NUMBA.name
    assert NUMBA.name.startswith("numba 0.")


def test_without_numba_numpy_s_are_used() -> None:
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from holdfast.vault import codec\n"
        "assert codec.decode(codec.encode(b'abc' * 1000, 'F32')) == b'abc' * 1000\n"
        "print(codec.loops_in_use())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"NumPy {np.__version__}"


def test_numba_is_imported_once_there_is_enough_to_do() -> None:
    program = (
        "import sys, threading; from holdfast.vault import codec, codec_kernels\n"
        "small = codec.encode(bytes(4096), 'F32')\n"
        "print(codec_kernels.loops_for(0).name.split()[0], 'numba' in sys.modules)\n"
        "codec_kernels.WARM_UP_BYTES = 5000\n"
        "assert codec.decode(codec.encode(bytes(range(256)) * 16, 'F32')) == bytes(range(256)) * 16\n"
        "[thread.join() for thread in threading.enumerate() if thread.name == 'holdfast-numba']\n"
        "print(codec_kernels.loops_for(0).name.split()[0])\n"
        "assert codec.encode(bytes(4096), 'F32') == small\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["NumPy", "False", "numba"]


def test_the_codec_is_imported_without_numba() -> None:
    program = "import sys, holdfast.vault.codec; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_loops_are_given_aligned_arrays_alone() -> None:
    """What is compiled for aligned numbers may do anything with others; a tensor in a mapped file begins anywhere."""
    data = np.frombuffer(b"?" + bytes(range(240)), np.uint8)[1:]
    numbers = Base(data, "F32", "F32", 240).numbers(8, 200)
    assert numbers is not None
    assert numbers.flags.aligned
    assert numbers.tobytes() == bytes(range(8, 200))

    class Picky(NumpyLoops):
        def restore(
            self, differences: Array, base: Array, element: Element, lowest: int, counts: list[int], out: Array,
            order: Order = None,
        ) -> bool:  # fmt: skip
            assert base.flags.aligned
            assert out.flags.aligned
            return super().restore(differences, base, element, lowest, counts, out, order)

        def add_plane(self, plane: Array, shift: int, out: Array) -> None:
            assert out.flags.aligned
            super().add_plane(plane, shift, out)

    random = np.random.default_rng(0)
    before = random.normal(0, 1, 5000).astype("<f4")
    after = (before + np.float32(1e-3)).tobytes()
    for its_base in (before.tobytes(), None):
        blob = codec.encode(after, "F32", its_base)
        out = bytearray(1 + len(after))
        codec.decode_into(blob, memoryview(out)[1:], its_base, loops=Picky())
        assert out[1:] == after


FAULTS = """
import resource
import numpy as np
from holdfast.vault.codec_elements import ELEMENTS
from holdfast.vault.codec_numpy import NumpyLoops

loops = NumpyLoops()
base = np.frombuffer(bytes(range(256)) * 512, "<u4")  # 128 KiB, so that nothing larger was ever freed
for _ in range(3):
    loops.differences(base, base, ELEMENTS["F32"], 0, 256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    loops.differences(base, base, ELEMENTS["F32"], 0, 256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_is_not_given_back_and_taken_again() -> None:
    """A hundred times 256 KiB of places are 6,400 pages; clearing them each time makes sorting several times as slow."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000


@both
def test_one_object_serves_many_threads(loops: Loops) -> None:
    random = np.random.default_rng(5)
    base = random.normal(0, 0.02, 50_000).astype("<f4")
    versions = [(base + random.normal(0, 1e-4, 50_000).astype("<f4")).tobytes() for _ in range(8)]
    alone = [codec.encode(version, "F32", base.tobytes(), loops=loops) for version in versions]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(lambda version: codec.encode(version, "F32", base.tobytes(), loops=loops), versions * 4)
        )
        decoded = list(pool.map(lambda blob: codec.decode(blob, base.tobytes(), loops=loops), together))
    assert together == alone * 4
    assert decoded == versions * 4
