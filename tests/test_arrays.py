"""The array store: contract, round trip, names, determinism; both file formats through one suite."""

import io
import json
import string
import sys
import tracemalloc
import zipfile
from pathlib import Path
from urllib.parse import unquote

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.errors import LockedError, UsageError
from holdfast.runs.array_contract import DTYPES
from holdfast.runs.array_files import safe_name
from holdfast.runs.arrays import (
    ArrayContract,
    ArrayContractError,
    ArrayStore,
    ArrayStoreError,
    MissingLibraryError,
    Sample,
)

FORMATS = ("npz", "hdf5")
SEED_CONTRACT = ArrayContract(
    "attention", (4, 50), "float32", minimum=0, maximum=1, scalars=("sampling_rate",), key="attention_map"
)
property_test = settings(
    derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def maps(count: int, *, seed: int = 0, shape: tuple[int, ...] = (4, 50)) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *shape), np.float32)


def names(count: int) -> list[str]:
    return [f"sample_{number:03d}" for number in range(count)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same(a: Sample, b: Sample) -> bool:
    return (
        a.file_id == b.file_id
        and a.scalars == b.scalars
        and a.array.dtype == b.array.dtype
        and a.array.shape == b.array.shape
        and a.array.tobytes() == b.array.tobytes()
    )


@pytest.fixture(params=FORMATS)
def file_format(request):
    return request.param


@pytest.fixture
def new(tmp_path, file_format):
    """Open a store for writing in ``tmp_path / name``; three or four seed maps to an HDF5 shard."""

    def make(name: str = "store", contract: ArrayContract = SEED_CONTRACT, **options) -> ArrayStore:
        return ArrayStore(tmp_path / name, contract, file_format=file_format, shard_bytes=2500, **options)

    return make


def test_what_is_saved_is_loaded(new):
    arrays = maps(11)
    with new() as store:
        store.save_batch(names(11), arrays, sampling_rate=250.0)
    store = ArrayStore.open(store.folder)
    assert store.verify() == []
    assert store.contract == SEED_CONTRACT
    assert len(store) == 11
    assert store.file_ids() == names(11)
    assert "sample_004" in store
    assert "sample_04" not in store
    for expected, array, sample in zip(names(11), arrays, store, strict=True):
        assert same(sample, Sample(expected, array, {"sampling_rate": 250.0}))
        assert same(sample, store.load(expected))
        assert store.shape(expected) == (4, 50)
    with pytest.raises(ArrayStoreError, match="no sample 'sample_04'"):
        store.load("sample_04")


def test_the_folder_is_as_seed_004_says(tmp_path):
    array = maps(1)[0]
    with ArrayStore(tmp_path / "maps", SEED_CONTRACT) as store:
        store.save("sample_001", array, sampling_rate=250.0)
    assert sorted(contents(store.folder)) == ["manifest.json", "metadata.json", "sample_001_attention.npz"]
    with np.load(store.folder / "sample_001_attention.npz", allow_pickle=False) as file:
        assert file.files == ["attention_map", "file_id", "shape", "sampling_rate"]
        assert np.array_equal(file["attention_map"], array)
        assert str(file["file_id"]) == "sample_001"
        assert tuple(file["shape"]) == (4, 50)
        assert file["sampling_rate"] == 250.0
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert manifest["count"] == 1
    assert manifest["samples"][0].keys() == {"id", "file", "shape", "checksum", "content"}
    metadata = json.loads((store.folder / "metadata.json").read_text())
    assert metadata["count"] == 1
    assert metadata["contract"]["shape"] == [4, 50]


def test_an_npz_is_what_savez_compressed_writes(tmp_path):
    array = maps(1)[0]
    with ArrayStore(tmp_path / "maps", SEED_CONTRACT, compression_level=6) as store:
        store.save("é", array, sampling_rate=3)
    expected = io.BytesIO()
    np.savez_compressed(
        expected, attention_map=array, file_id=np.array("é"), shape=np.array([4, 50]), sampling_rate=np.array(3)
    )
    assert (store.folder / "%C3%A9_attention.npz").read_bytes() == expected.getvalue()


def test_an_hdf5_shard_is_readable_by_its_keys(tmp_path):
    arrays = maps(2)
    with ArrayStore(tmp_path / "maps", SEED_CONTRACT, file_format="hdf5") as store:
        store.save_batch(["a", "b"], arrays, sampling_rate=250.0)
    with h5py.File(store.folder / "attention_000000.h5") as file:
        dataset = file["attention_map"]["000001"]
        assert np.array_equal(dataset[:], arrays[1])
        assert dataset.compression == "gzip"
        assert dataset.shuffle
        assert dataset.chunks == (4, 50)
        assert dict(dataset.attrs).keys() == {"file_id", "shape", "sampling_rate"}
        assert dataset.attrs["file_id"] == "b"


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_parallel_compression_gives_the_serial_bytes(new, jobs):
    arrays = maps(17)
    with new("serial", jobs=1) as store:
        for name, array in zip(names(17), arrays, strict=True):
            store.save(name, array, sampling_rate=1)
    with new("parallel", jobs=jobs) as parallel:
        parallel.save_batch(names(17), arrays, sampling_rate=1)
    assert contents(parallel.folder) == contents(store.folder)


def test_closing_and_opening_in_between_leaves_no_trace(new):
    arrays = maps(11)
    with new("once") as once:
        once.save_batch(names(11), arrays, sampling_rate=1)
    for end in (0, 2, 4, 5, 11):
        with new("often") as often:
            often.save_batch(names(end), arrays[:end], sampling_rate=1)
            often.flush()
    assert contents(often.folder) == contents(once.folder)


@property_test
@given(data=st.data(), dtype=st.sampled_from(DTYPES), shape=hnp.array_shapes(min_dims=0, min_side=0, max_side=6))
def test_any_dtype_and_shape_round_trips(tmp_path_factory, data, dtype, shape):
    array = data.draw(hnp.arrays(dtype, shape))
    contract = ArrayContract("x", (None,) * len(shape), dtype)
    for file_format in FORMATS:
        with ArrayStore(tmp_path_factory.mktemp("s"), contract, file_format=file_format, jobs=1) as store:
            store.save("id", array)
        assert store.verify() == []
        assert same(ArrayStore.open(store.folder).load("id"), Sample("id", array, {}))


@property_test
@given(
    ids=st.lists(
        st.text(min_size=1, max_size=300) | st.text(alphabet="aA./\\%~\0é", min_size=1), min_size=1, unique=True
    )
)
def test_any_id_round_trips_and_stays_in_the_folder(tmp_path_factory, ids):
    contract = ArrayContract("x", (), "int64")
    for file_format in FORMATS:
        parent = tmp_path_factory.mktemp("s")
        with ArrayStore(parent / "store", contract, file_format=file_format, jobs=1) as store:
            for number, file_id in enumerate(ids):
                store.save(file_id, number)
        store = ArrayStore.open(store.folder)
        assert store.verify() == []
        assert [(sample.file_id, int(sample.array)) for sample in store] == [(id_, n) for n, id_ in enumerate(ids)]
        files = [path.name for path in store.folder.iterdir()]
        assert len({name.casefold() for name in files}) == len(files)
        assert all(name.isascii() and len(name) <= 200 for name in files)
        assert [path.name for path in parent.iterdir()] == ["store"]


@property_test
@given(file_id=st.text(min_size=1))
def test_a_safe_name_can_be_read_back(file_id):
    name = safe_name(file_id)
    assert unquote(name) == file_id
    assert set(name) <= set(string.ascii_letters + string.digits + "-_.%")
    assert not name.startswith(".")


@property_test
@given(
    value=st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)
def test_any_scalar_round_trips_with_its_type(tmp_path_factory, value):
    for file_format in FORMATS:
        with ArrayStore(
            tmp_path_factory.mktemp("s"),
            ArrayContract("x", (), "int8", scalars=("s",)),
            file_format=file_format,
            jobs=1,
        ) as store:
            store.save("id", 1, s=value)
        loaded = ArrayStore.open(store.folder).load("id").scalars["s"]
        assert loaded == value
        assert type(loaded) is type(value)
        assert store.verify() == []


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 51), np.float32), r"shape is \(4, 51\), the contract says \(4, 50\)"),
        (np.zeros((4, 50, 1), np.float32), "shape"),
        (np.zeros((4, 50), complex), "dtype is complex128"),
        (np.zeros((4, 50), object), "dtype is object"),
        (np.full((4, 50), "0"), "dtype is <U1"),
        (np.full((4, 50), 1e300), "does not fit in float32"),
        (np.full((4, 50), 1.0000001, np.float32), "above the maximum 1.0"),
        (np.full((4, 50), -1e-9, np.float32), "below the minimum 0.0"),
        (np.full((4, 50), np.nan, np.float32), "NaN"),
        (np.full((4, 50), np.inf, np.float32), "above the maximum"),
        ([[1.0], [1.0, 2.0]], "is no array"),
    ],
)
def test_what_breaks_the_contract_is_refused_and_named(new, array, reason):
    with new() as store:
        with pytest.raises(ArrayContractError, match=reason) as caught:
            store.save("sample_007", array, sampling_rate=1)
        assert "sample_007" in caught.value.message
        assert caught.value.hint
        assert len(store) == 0
    assert store.verify() == []


def test_conversion_keeps_integers_and_rounds_floats():
    wide = np.array([0.1, 1.0])
    assert ArrayContract("x", (2,), "float32").conform("i", wide).tolist() == np.float32([0.1, 1.0]).tolist()
    assert ArrayContract("x", (2,), "float64").conform("i", np.array([1, 2])).dtype == np.float64
    assert ArrayContract("x", (2,), "int8").conform("i", np.array([1, -128])).tolist() == [1, -128]
    big_endian = np.array([1, 2], ">f4")
    assert ArrayContract("x", (2,), "float32").conform("i", big_endian).tobytes() == np.array([1, 2], "<f4").tobytes()
    for dtype, value in [("int8", 128), ("int8", 1.0), ("uint8", -1), ("float16", 70000)]:
        with pytest.raises(ArrayContractError):
            ArrayContract("x", (1,), dtype).conform("i", np.array([value]))
    with pytest.raises(ArrayContractError, match="fit"):
        ArrayContract("x", (1,), "int64").conform("i", np.array([2**63], np.uint64))


def test_clip_stores_the_nearest_bound_in_the_dtype_itself(new):
    contract = ArrayContract("x", (3,), "float32", minimum=-0.1, maximum=0.1, out_of_range="clip")
    with new(contract=contract) as store:
        store.save("id", np.float32([-5, 0, 5]))
        with pytest.raises(ArrayContractError, match="NaN"):
            store.save("nan", np.float32([np.nan, 0, 0]))
    assert store.verify() == []  # 0.1 is not a float32: the bound is compared as it was stored
    assert ArrayStore.open(store.folder).load("id").array.tolist() == np.float32([-0.1, 0, 0.1]).tolist()


def test_nan_passes_where_it_is_allowed_and_the_rest_is_still_in_range(new):
    contract = ArrayContract("x", (2,), "float32", minimum=0, allow_nan=True)
    with new(contract=contract) as store:
        store.save("a", np.float32([np.nan, 1]))
        store.save("b", np.float32([np.nan, np.nan]))
        with pytest.raises(ArrayContractError, match="below the minimum"):
            store.save("c", np.float32([np.nan, -1]))
    assert store.verify() == []
    assert np.isnan(ArrayStore.open(store.folder).load("b").array).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": ".."},
        {"key": "not a key"},
        {"key": "file_id"},
        {"scalars": ("shape",)},
        {"scalars": ("x",)},
        {"scalars": ("rate", "rate")},
        {"scalars": "rate"},
        {"dtype": object},
        {"dtype": "U5"},
        {"dtype": "nonsense"},
        {"dtype": "longdouble"},
        {"dtype": "datetime64[s]"},
        {"shape": (-1,)},
        {"minimum": 2, "maximum": 1},
        {"minimum": float("nan")},
        {"maximum": float("inf")},
        {"dtype": "uint8", "minimum": -1},
        {"dtype": "uint8", "maximum": 0.5},
        {"dtype": "bool", "minimum": 0},
        {"dtype": "complex64", "maximum": 0},
        {"out_of_range": "ignore"},
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(arguments):
    with pytest.raises(ArrayContractError, match="array contract"):
        ArrayContract(**{"name": "x", "shape": (1,), "dtype": "float32", **arguments})


def test_one_contract_has_one_value():
    assert ArrayContract("x", [2, None], np.float32, 0, 1) == ArrayContract("x", (2, None), "<f4", 0.0, 1.0, key="x")
    contract = ArrayContract("x", (2, None), "float32", 0, 1, scalars=("rate",))
    assert ArrayContract.from_json(json.loads(json.dumps(contract.as_json()))) == contract


@pytest.mark.parametrize(
    ("scalars", "reason"),
    [
        ({}, "sampling_rate is missing"),
        ({"sampling_rate": 1, "more": 1}, "more is not declared"),
        ({"sampling_rate": None}, "is None"),
        ({"sampling_rate": 2**63}, "is 9223372036854775808"),
        ({"sampling_rate": "a\0"}, "NUL"),
        ({"sampling_rate": "\ud800"}, "surrogate"),
    ],
)
def test_scalars_are_exactly_the_declared_ones(new, scalars, reason):
    with new() as store, pytest.raises(ArrayContractError, match=reason):
        store.save("id", maps(1)[0], **scalars)


@pytest.mark.parametrize("file_id", ["", 7, "\ud800", "x" * 16385])
def test_what_cannot_name_a_sample_is_refused(new, file_id):
    with new() as store, pytest.raises(ArrayContractError, match="file id"):
        store.save(file_id, maps(1)[0], sampling_rate=1)


def test_a_batch_deals_out_scalars_and_refuses_unequal_lengths(new):
    with new() as store:
        store.save_batch(names(3), maps(3), sampling_rate=[1, 2.5, "three"])
        for arguments in [(names(2), maps(3)), (iter(["p", "q"]), iter(maps(3)))]:
            with pytest.raises(UsageError, match="unequal lengths"):
                store.save_batch(*arguments, sampling_rate=np.array(1))
        with pytest.raises(UsageError, match="unequal lengths"):
            store.save_batch(names(3), maps(3), sampling_rate=np.array([1, 2]))
        with pytest.raises(UsageError, match="one string"):
            store.save_batch("abc", maps(3), sampling_rate=1)
    assert [sample.scalars["sampling_rate"] for sample in ArrayStore.open(store.folder)][:3] == [1, 2.5, "three"]


def test_torch_tensors_are_arrays(new):
    batch = torch.rand(3, 4, 50)
    with new() as store:
        store.save_batch(names(3), batch, sampling_rate=torch.tensor([1, 2, 3]))
        with pytest.raises(ArrayContractError, match="detach"):
            store.save("grad", batch[0].requires_grad_(), sampling_rate=1)
    loaded = ArrayStore.open(store.folder).load("sample_001")
    assert np.array_equal(loaded.array, batch[1].numpy())
    assert loaded.scalars == {"sampling_rate": 2}


def test_where_one_of_a_batch_is_refused_those_before_it_are_saved(new):
    arrays = maps(6)
    arrays[4] = 2
    with new(jobs=2) as store:
        with pytest.raises(ArrayContractError, match="sample_004"):
            store.save_batch(names(6), arrays, sampling_rate=1)
        assert store.file_ids() == names(4)
    assert store.verify() == []


def test_a_generator_may_fill_one_buffer_again_and_again(new):
    arrays, buffer = maps(9), np.empty((4, 50), np.float32)

    def refilled():
        for array in arrays:
            buffer[:] = array
            yield buffer

    with new(jobs=3) as store:
        store.save_batch(names(9), refilled(), sampling_rate=1)
    for array, sample in zip(arrays, ArrayStore.open(store.folder), strict=True):
        assert np.array_equal(sample.array, array)


def test_memory_does_not_grow_with_the_number_of_samples(new):
    """48 arrays of 1 MiB from a generator; four in flight, each in a few forms, stay far below that."""
    contract = ArrayContract("x", (256, 1024), "float32")
    tracemalloc.start()
    with new(contract=contract, jobs=2, compression_level=1) as store:
        store.save_batch(names(48), (np.full((256, 1024), number, np.float32) for number in range(48)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 2**20


def test_equal_content_is_saved_once_and_other_content_is_refused(new):
    a, b = maps(2)
    with new() as store:
        store.save("id", a, sampling_rate=1)
        store.save("id", a.astype(np.float64), sampling_rate=1)
        store.save_batch(["twin", "twin"], [a, a], sampling_rate=1)
        assert len(store) == 2
        for array, rate in [(b, 1), (a, 2), (a, 1.0)]:
            with pytest.raises(ArrayStoreError, match=r"'id' with other content.*replace=True"):
                store.save("id", array, sampling_rate=rate)
        with pytest.raises(ArrayStoreError, match="'new' with other content"):
            store.save_batch(["new", "new"], [a, b], sampling_rate=1)
    assert store.verify() == []
    assert same(ArrayStore.open(store.folder).load("id"), Sample("id", a, {"sampling_rate": 1}))


def test_replacing_keeps_the_place_and_gives_the_bytes_of_a_first_save(new):
    arrays, other = maps(9), maps(9, seed=1)
    with new("replaced") as store:
        store.save_batch(names(9), arrays, sampling_rate=1)
        store.save_batch(names(9)[:2], other[:2], sampling_rate=2, replace=True)
        store.save("sample_008", other[8], sampling_rate=2, replace=True)
    with new("replaced") as store:
        store.save("sample_004", other[4], sampling_rate=2, replace=True)
    with new("at_once") as at_once:
        at_once.save_batch(
            names(9),
            [other[n] if n in (0, 1, 4, 8) else arrays[n] for n in range(9)],
            sampling_rate=[2 if n in (0, 1, 4, 8) else 1 for n in range(9)],
        )
    assert contents(store.folder) == contents(at_once.folder)


def test_ids_that_differ_in_case_alone_get_different_files(tmp_path):
    with ArrayStore(tmp_path / "s", ArrayContract("x", (), "int64")) as store:
        store.save_batch(["Ab", "aB", "ab"], [1, 2, 3])
    assert store.verify() == []
    assert len({path.name.casefold() for path in store.folder.glob("*.npz")}) == 3
    assert (store.folder / "Ab_x.npz").exists()


@pytest.mark.parametrize("character", ["a", "é", "/"])
def test_ids_too_long_for_a_file_name_are_cut_and_stay_apart(tmp_path, character):
    ids = [character * length for length in (100, 180, 200, 201, 300, 1000)]
    ids += [f"{character * 300}{end}" for end in "abc"]
    with ArrayStore(tmp_path / "s", ArrayContract("x", (), "int64")) as store:
        store.save_batch(ids, np.arange(len(ids)))
    assert store.verify() == []
    assert [(sample.file_id, int(sample.array)) for sample in ArrayStore.open(store.folder)] == [
        (file_id, number) for number, file_id in enumerate(ids)
    ]
    assert all(len(path.name) <= 200 for path in store.folder.iterdir())


def test_another_contract_or_format_is_refused(new, tmp_path, file_format):
    with new() as store:
        store.save("id", maps(1)[0], sampling_rate=1)
    before = contents(store.folder)
    with pytest.raises(ArrayStoreError, match=r"maximum=1\.0, not 2\.0"):
        new(
            contract=ArrayContract(
                "attention", (4, 50), "float32", 0, 2, scalars=("sampling_rate",), key="attention_map"
            )
        )
    with pytest.raises(ArrayStoreError, match="compression_level=3, not 6"):
        new(compression_level=6)
    other = "npz" if file_format == "hdf5" else "hdf5"
    with pytest.raises(ArrayStoreError, match="file_format"):
        ArrayStore(store.folder, SEED_CONTRACT, file_format=other)
    assert contents(store.folder) == before
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "notes.txt").write_text("mine")
    with pytest.raises(ArrayStoreError, match=r"not empty: it holds notes\.txt"):
        new("busy")
    with pytest.raises(ArrayStoreError, match="no array store"):
        ArrayStore.open(tmp_path / "busy")


def test_one_writer_at_a_time_and_readers_any_time(new):
    with new() as store:
        store.save_batch(names(5), maps(5), sampling_rate=1)
        store.flush()
        with pytest.raises(LockedError, match="another writer"):
            new()
        assert ArrayStore.open(store.folder).file_ids() == names(5)
    with new() as again:
        assert len(again) == 5


def test_a_reader_and_a_closed_store_do_not_write(new):
    with new() as store:
        store.save("id", maps(1)[0], sampling_rate=1)
    store.close()
    for closed in (store, ArrayStore.open(store.folder)):
        with pytest.raises(ArrayStoreError, match="not open for writing"):
            closed.save("more", maps(1)[0], sampling_rate=1)
        assert closed.load("id").file_id == "id"


def test_an_exception_leaves_what_was_saved_and_the_mark_of_an_unfinished_store(new):
    arrays = maps(6)

    def stop_half_way():
        with new() as store:
            store.save_batch(names(5), arrays[:5], sampling_rate=1)
            raise RuntimeError("training stopped")

    with pytest.raises(RuntimeError):
        stop_half_way()
    with new("whole") as whole:
        whole.save_batch(names(6), arrays, sampling_rate=1)
    folder = whole.folder.parent / "store"
    assert [fault.file for fault in ArrayStore.open(folder).verify()] == ["journal.jsonl"]
    with new() as store:
        assert store.file_ids() == names(5)
        store.save_batch(names(6), arrays, sampling_rate=1)
    assert contents(folder) == contents(whole.folder)


def test_a_writing_store_can_be_read_and_iterated(new):
    arrays = maps(5)
    with new() as store:
        for count, (name, array) in enumerate(zip(names(5), arrays, strict=True), 1):
            store.save(name, array, sampling_rate=1)
            assert len(store) == count
            assert name in store
            assert np.array_equal(store.load(name).array, array)
        assert [sample.file_id for sample in store] == names(5)


def test_hdf5_without_h5py_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'holdfast\[train\]'"):
        ArrayStore(tmp_path, SEED_CONTRACT, file_format="hdf5")
    with ArrayStore(tmp_path / "npz", SEED_CONTRACT) as store:
        store.save("id", maps(1)[0], sampling_rate=1)


def test_settings_that_make_no_sense_are_refused(tmp_path):
    for options in ({"file_format": "pickle"}, {"compression_level": 10}, {"file_format": "hdf5", "shard_bytes": 0}):
        with pytest.raises(ArrayStoreError):
            ArrayStore(tmp_path / "s", SEED_CONTRACT, **options)
    with pytest.raises(UsageError):
        ArrayStore(tmp_path / "s", SEED_CONTRACT, jobs=0)
    assert not (tmp_path / "s").exists()


def test_members_carry_no_time(tmp_path):
    with ArrayStore(tmp_path / "s", SEED_CONTRACT) as store:
        store.save("id", maps(1)[0], sampling_rate=1)
    with zipfile.ZipFile(store.folder / "id_attention.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
