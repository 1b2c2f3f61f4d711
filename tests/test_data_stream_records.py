"""Samples within files: records and rows, read by range."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast.data
from holdfast.data.stream_order import Dealing, epoch_key, epoch_order, lane
from holdfast.data.stream_records import FileRecords, number_records, plan_reads
from holdfast.errors import IntegrityError, UsageError
from proxy import Proxy, proxy
from servers import S3Server
from stream_world import Streamed, make_streamed, noise
from worlds import environment

RECORD = 300


def saved(array: np.ndarray, folder: Path) -> bytes:
    np.save(folder / "array.npy", array)
    return (folder / "array.npy").read_bytes()


@pytest.fixture(scope="module")
def link(s3_server: S3Server) -> Any:
    with proxy(s3_server.port) as between:
        yield between


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return {
        "a.npy": np.arange(5 * 4 * 3, dtype="<f4").reshape(5, 4, 3),
        "big-endian.npy": np.arange(7 * 12, dtype=">i2").reshape(7, 4, 3),
        "none.npy": np.zeros((0, 4, 3), dtype="<f4"),
        "numbers.npy": np.arange(11, dtype="<f8"),
        "one.npy": np.ones((1, 2), dtype="bool"),
    }


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, link: Proxy, arrays: dict[str, np.ndarray]
) -> Streamed:
    folder = tmp_path_factory.mktemp("records")
    files = {f"records/{number}.bin": noise(number, RECORD * (50 + number)) for number in range(4)}
    files |= {"records/empty.bin": b"", "odd/odd.bin": b"x" * 1001, "large/large.bin": noise(9, 40 * 2**20)}
    files |= {f"rows/{name}": saved(array, folder) for name, array in arrays.items()}
    files["columns/fortran.npy"] = saved(np.asfortranarray(np.arange(12.0).reshape(3, 4)), folder)
    files["objects/objects.npy"] = saved(np.array([{"a": 1}], dtype=object), folder)
    files["scalar/scalar.npy"] = saved(np.array(3.0), folder)
    files["torn/torn.npy"] = saved(np.arange(100.0), folder)[:-8]
    return make_streamed(folder, s3_server, files, endpoint=link.endpoint)


@pytest.fixture
def streamed(made: Streamed, monkeypatch: pytest.MonkeyPatch) -> Streamed:
    for name, value in environment(made.world.home).items():
        monkeypatch.setenv(name, value)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(made.world.folder)
    shutil.rmtree(made.world.root / ".dvc/tmp", ignore_errors=True)
    return made


def records_of(streamed: Streamed) -> dict[str, bytes]:
    return {
        f"{name}#{number}": data[number * RECORD : (number + 1) * RECORD]
        for name, data in streamed.files.items()
        if name.startswith("data/records/")
        for number in range(len(data) // RECORD)
    }


def test_records_of_many_files(streamed: Streamed, link: Proxy) -> None:
    wanted = records_of(streamed)
    stream = holdfast.data.stream("data/records", record_bytes=RECORD)
    assert len(stream) == len(wanted) == 206
    link.forget()
    assert list(stream) == list(wanted.items())  # in the order of the files
    assert link.count("GET", "files/md5") == 4  # each file by one request
    assert list(stream) == list(wanted.items())
    assert link.count("GET", "files/md5") == 4  # and then from the cache


@pytest.mark.parametrize("page_bytes", [1, 10 * RECORD, 10**6])
@pytest.mark.parametrize("world", [1, 2])
def test_shuffled_records_come_once_each(streamed: Streamed, link: Proxy, page_bytes: int, world: int) -> None:
    wanted = records_of(streamed)
    link.forget()
    found: list[tuple[str, bytes]] = []
    for rank in range(world):
        stream = holdfast.data.stream(
            "data/records", record_bytes=RECORD, shuffle=True, batch_size=4, page_bytes=page_bytes, rank=rank,
            world_size=world, cache_bytes=0,
        )  # fmt: skip
        part = list(stream)
        assert len(part) == len(stream)
        found += part
    assert sorted(found) == sorted(wanted.items())
    assert [name for name, _ in found] != list(wanted)
    # what is fetched is what is wanted, and not more
    asked = sum(len(data) for data in wanted.values())
    assert asked <= link.bytes_down <= asked * 1.05 + 20_000


def test_ranges_are_few_and_never_long(streamed: Streamed, link: Proxy) -> None:
    stream = holdfast.data.stream("data/large", record_bytes=2**10, cache_bytes=0, jobs=4)
    link.forget()
    data = b"".join(record for _, record in stream)
    assert data == streamed.files["data/large/large.bin"]
    assert link.count("GET", "files/md5") == 5  # of 8 MiB each
    url = f"{streamed.store.url}/{streamed.key('data/large/large.bin')}"
    whole = holdfast.data.stream(url, cache_bytes=0)
    link.forget()
    assert dict(whole) == {url: data}
    assert link.count("GET", "files/md5") == 3  # of 16 MiB each, at the same time


def test_the_middle_of_an_epoch_with_workers(streamed: Streamed) -> None:
    """Stopped with two workers, gone on with by three."""
    program = """
import json, sys
import holdfast.data
stream = holdfast.data.stream("data/records", record_bytes=300, shuffle=True, batch_size=4, page_bytes=1500, rank=0, world_size=1)
loader = stream.loader(num_workers=2)
first = []
for number, (names, _) in enumerate(loader, start=1):
    first += names
    if number == 17:
        break
state = loader.state_dict()
loader = stream.loader(num_workers=3)
loader.load_state_dict(json.loads(json.dumps(state)))
second = [name for names, _ in loader for name in names]
assert stream.epoch == 1
print(json.dumps([first, second]))
"""
    first, second = streamed.python(program)
    assert len(first) == 68
    assert sorted(first + second) == sorted(records_of(streamed))


@pytest.mark.usefixtures("streamed")
def test_rows_of_arrays(arrays: dict[str, np.ndarray]) -> None:
    stream = holdfast.data.stream("data/rows", rows=True, shuffle=True)
    found = dict(stream)
    wanted = {f"data/rows/{name}#{number}": row for name, array in arrays.items() for number, row in enumerate(array)}
    assert set(found) == set(wanted)
    for name, row in wanted.items():
        assert np.array_equal(found[name], row)
        assert np.asarray(found[name]).dtype == row.dtype.newbyteorder("=")
        assert found[name].shape == row.shape
    # they are the trainer's own, to write into
    assert all(found[name].flags.writeable and found[name].flags.c_contiguous for name in found)


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("columns", UsageError, r"data/columns/fortran\.npy keeps columns together"),
        ("objects", UsageError, r"data/objects/objects\.npy has no rows .*never unpickled"),
        ("scalar", UsageError, r"data/scalar/scalar\.npy is a single number"),
        ("torn", IntegrityError, r"data/torn/torn\.npy"),
        ("records/0.bin", IntegrityError, r"data/records/0\.bin"),
    ],
)
@pytest.mark.usefixtures("streamed")
def test_arrays_without_rows(name: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        holdfast.data.stream(f"data/{name}", rows=True)


@pytest.mark.usefixtures("streamed")
def test_files_without_whole_records() -> None:
    with pytest.raises(UsageError, match=r"data/odd/odd\.bin has 1001 bytes, which are no whole records of 300"):
        holdfast.data.stream("data/odd", record_bytes=300)


def test_a_plan_has_every_sample_in_its_place() -> None:
    files = [FileRecords(30, 128, 10), FileRecords(0, 0, 10), FileRecords(25, 0, 2**21), FileRecords(1, 5, 3)]
    records = number_records(files)
    key = epoch_key(0, 0)
    assert records.in_page(100) == 10
    assert np.bincount(records.pages(100)).tolist() == [10, 10, 10, *[1] * 25, 1]
    assert np.bincount(records.pages(70)).tolist() == [7, 7, 7, 7, 2, *[1] * 25, 1]
    for shuffle in (False, True):
        pages = records.pages(100) if shuffle else None
        order = epoch_order(records.count, key if shuffle else None, pages)
        dealing = Dealing(1, 2, 3, 12, 24 if shuffle else 1)
        for worker in range(2):
            plan = plan_reads(records, lane(order, worker, dealing, key if shuffle else None), dealing.window)
            reads = list(plan)
            assert sum(read.uses for read in reads) == len(plan.samples)
            needed = [int(number) for number in plan.read]
            firsts = list(dict.fromkeys(needed))
            assert firsts == list(range(len(reads)))  # in the order in which they are first needed
            for sample, file, number, place in zip(plan.samples, plan.files, plan.read, plan.places, strict=True):
                form, read = files[file], reads[number]
                assert read.file == file
                assert read.offset + place == form.offset + (sample - records.starts[file]) * form.nbytes
                assert 0 <= place <= read.nbytes - form.nbytes
                assert read.nbytes <= 8 * 2**20
