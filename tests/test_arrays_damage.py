"""Array stores that were damaged, attacked or killed: what `verify` says, and what saving again mends."""

import json
import pickle
import random
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from holdfast.errors import IntegrityError
from holdfast.formats.digest import file_digest
from holdfast.runs import array_writer
from holdfast.runs.arrays import ArrayContract, ArrayDamageError, ArrayStore, ArrayStoreError, verify_store

CONTRACT = ArrayContract("attention", (4, 50), "float32", 0, 1, scalars=("rate",), key="attention_map")
MAPS = np.random.default_rng(0).random((9, 4, 50), np.float32)
NAMES = [f"sample_{number:03d}" for number in range(9)]
SHARD_BYTES = 2500  # three or four maps


def save(folder: Path, file_format: str, *, names=NAMES, arrays=MAPS, **options) -> Path:
    with ArrayStore(folder, CONTRACT, file_format=file_format, shard_bytes=SHARD_BYTES, **options) as store:
        store.save_batch(names, arrays, rate=250.0)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def faults(folder: Path) -> dict[str, str]:
    found = verify_store(folder)
    assert len({fault.file for fault in found}) == len(found), found
    return {fault.file: fault.problem for fault in found}


def forge(folder: Path, file: str, **fields) -> None:
    """Make the manifest agree with a changed file, as one who attacks would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for line in manifest["samples"]:
        if line["file"] == file:
            line |= {"checksum": file_digest(folder / file), **fields}
    path.write_text(json.dumps(manifest))


@pytest.fixture(params=["npz", "hdf5"])
def file_format(request):
    return request.param


@pytest.fixture
def folder(tmp_path, file_format):
    return save(tmp_path / "store", file_format)


@pytest.fixture
def victim(folder):
    """The second file of the store."""
    return sorted([*folder.glob("*.npz"), *folder.glob("*.h5")])[1]


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 1
    elif how == "truncate":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    elif how == "append":
        data += b"more"
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "append"])
def test_damage_is_named_refused_and_mended(folder, victim, file_format, how):
    whole = contents(folder)
    damage(victim, how)
    assert list(faults(folder)) == [victim.name]
    assert "checksum" in faults(folder)[victim.name]
    store = ArrayStore.open(folder)
    lost = [
        line["id"]
        for line in json.loads((folder / "manifest.json").read_text())["samples"]
        if line["file"] == victim.name
    ]
    for file_id in lost:
        with pytest.raises(ArrayDamageError, match="checksum") as caught:
            store.load(file_id)
        assert caught.value.exit_code == IntegrityError.exit_code == 13
        assert "discard_damaged" in caught.value.hint
    with ArrayStore(folder, CONTRACT, file_format=file_format, shard_bytes=SHARD_BYTES) as store:
        assert store.discard_damaged() == lost
        assert store.discard_damaged() == []
        assert not victim.exists()
        store.save_batch(NAMES, MAPS, rate=250.0)
    assert faults(folder) == {}
    assert {sample.file_id: sample.array.tobytes() for sample in ArrayStore.open(folder)} == {
        name: array.tobytes() for name, array in zip(NAMES, MAPS, strict=True)
    }
    if file_format == "npz":
        mended = contents(folder)
        assert {name: data for name, data in mended.items() if name != "manifest.json"} == {
            name: data for name, data in whole.items() if name != "manifest.json"
        }


def test_what_was_discarded_does_not_come_back_with_the_journal(tmp_path, file_format):
    store = ArrayStore(tmp_path / "store", CONTRACT, file_format=file_format, shard_bytes=SHARD_BYTES)
    store.save_batch(NAMES, MAPS, rate=250.0)
    store.flush()
    sorted([*store.folder.glob("*.npz"), *store.folder.glob("*.h5")])[1].unlink()
    lost = store.discard_damaged()
    assert lost
    store._writer.abandon()  # as a killed process leaves the folder
    assert list(faults(store.folder)) == ["journal.jsonl"]
    assert ArrayStore.open(store.folder).file_ids() == [name for name in NAMES if name not in lost]


def test_every_byte_of_a_file_matters(folder, victim):
    data = victim.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 60)):
        victim.write_bytes(data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :])
        assert list(faults(folder)) == [victim.name]


def test_missing_and_extra_files_are_named(folder, victim):
    victim.unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / "more").mkdir()
    shutil.copy(sorted(folder.glob("*.*5" if victim.suffix == ".h5" else "*.npz"))[0], folder / f"copy{victim.suffix}")
    found = faults(folder)
    assert set(found) == {victim.name, "notes.txt", "more", f"copy{victim.suffix}"}
    assert "missing" in found[victim.name]
    assert "extra" in found["notes.txt"]
    assert "folder" in found["more"]


@pytest.mark.parametrize(
    ("edit", "named", "problem"),
    [
        (lambda m: m["samples"].pop(), "extra or fewer", ""),
        (lambda m: m.update(count=8), "manifest.json", "its count is 8, it names 9"),
        (lambda m: m["samples"][2].update(id="other"), "file", "holds the sample 'sample_002'"),
        (lambda m: m["samples"][2].update(id="sample_003"), "manifest.json", "twice"),
        (lambda m: m["samples"][2].update(shape=[50, 4]), "file", "the manifest says"),
        (lambda m: m["samples"][2].update(shape=[-4]), "manifest.json", "no shape"),
        (lambda m: m["samples"][2].update(content="blake3:" + "0" * 64), "file", "content"),
        (lambda m: m["samples"][2].update(checksum="md5:0"), "manifest.json", "no checksum"),
        (lambda m: m["samples"][2].update(file="../../etc/passwd"), "manifest.json", "no file name"),
        (lambda m: m["samples"][2].update(file="metadata.json"), "manifest.json", "no file name"),
        (lambda m: m["samples"][2].pop("file"), "manifest.json", "lacks 'file'"),
        (lambda m: m.update(samples="none"), "manifest.json", "damaged"),
        (lambda m: m.update(schema="other/9"), "manifest.json", "schema"),
    ],
)
def test_an_edited_manifest_is_found_out(folder, edit, named, problem):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    file = manifest["samples"][2]["file"]
    edit(manifest)
    path.write_text(json.dumps(manifest))
    found = faults(folder)
    if named == "extra or fewer":  # and the count in the metadata gives it away as well
        assert found
    else:
        assert list(found) == [file if named == "file" else named]
        assert problem in next(iter(found.values()))


def test_a_shortened_manifest_with_its_count_set_is_found_out(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["samples"].pop()
    manifest["count"] -= 1
    path.write_text(json.dumps(manifest))
    assert "its count is 9, the manifest names 8" in faults(folder)["metadata.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"schema": "holdfast.array-store/1"}'])
@pytest.mark.parametrize("name", ["manifest.json", "metadata.json"])
def test_a_broken_manifest_or_metadata_is_one_named_fault(folder, name, text):
    (folder / name).write_text(text)
    assert list(faults(folder)) == [name]
    with pytest.raises(ArrayDamageError, match=name):
        ArrayStore.open(folder)


def test_a_missing_manifest_is_named_and_nothing_is_overwritten(folder, file_format):
    (folder / "manifest.json").unlink()
    assert "missing" in faults(folder)["manifest.json"]
    before = {name: data for name, data in contents(folder).items() if name != "journal.jsonl"}
    with pytest.raises(ArrayDamageError, match=r"manifest\.json"):
        save(folder, file_format)
    assert {name: data for name, data in contents(folder).items() if name != "journal.jsonl"} == before


def test_a_store_of_a_later_version_is_refused(folder):
    path = folder / "metadata.json"
    path.write_text(path.read_text().replace("array-store/1", "array-store/2"))
    with pytest.raises(ArrayStoreError, match="Upgrade holdfast"):
        verify_store(folder)


def good_members() -> dict[str, np.ndarray]:
    return {
        "attention_map": MAPS[2],
        "file_id": np.array(NAMES[2]),
        "shape": np.array([4, 50]),
        "rate": np.array(250.0),
    }


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("forged", [False, True], ids=["manifest kept", "manifest forged"])
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"attention_map": MAPS[2].T.copy()}, "shape is (50, 4), the contract says (4, 50)"),
        ({"attention_map": MAPS[2].astype(np.float64)}, "dtype is float64"),
        ({"attention_map": MAPS[2] + 1}, "above the maximum"),
        ({"attention_map": MAPS[2] * np.float32(np.nan)}, "NaN"),
        ({"attention_map": MAPS[3]}, "content"),
        ({"file_id": np.array("sample_003")}, "holds the sample 'sample_003'"),
        ({"file_id": np.array(7)}, "its file_id is"),
        ({"shape": np.array([50, 4])}, "its shape says (50, 4)"),
        ({"rate": np.array([1.0, 2.0])}, "its rate is"),
        ({"rate": np.array(251.0)}, "content"),
        ({"rate": None}, "lacks rate"),
        ({"more": np.array(1)}, "holds more"),
        ({"rate": np.array("x" * 200_000)}, "too large"),
    ],
)
def test_an_npz_with_other_content_is_found_out(tmp_path, changes, problem, forged):
    folder = save(tmp_path / "store", "npz")
    file = "sample_002_attention.npz"
    members = {key: value for key, value in {**good_members(), **changes}.items() if value is not None}
    np.savez_compressed(folder / file, **members)
    if forged:
        forge(folder, file)
    assert problem in faults(folder)[file]
    assert ("checksum" in faults(folder)[file]) == (not forged)
    with pytest.raises(ArrayDamageError):
        ArrayStore.open(folder).load("sample_002")


@pytest.mark.parametrize("key", ["attention_map", "file_id", "rate"])
def test_a_pickled_npz_is_never_unpickled(tmp_path, key):
    folder = save(tmp_path / "store", "npz")
    file, mark = "sample_002_attention.npz", tmp_path / "exploded"
    hostile = np.empty((), object)
    hostile[()] = Bomb(mark)
    np.savez_compressed(folder / file, **{**good_members(), key: hostile})
    forge(folder, file)
    assert "pickled objects" in faults(folder)[file]
    with pytest.raises(ArrayDamageError, match="pickled objects"):
        ArrayStore.open(folder).load("sample_002")
    assert not mark.exists()
    with np.load(folder / file, allow_pickle=True) as bomb:
        bomb[key]
    assert mark.exists()  # the charge was live


def npy(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"\x93NUMPY",
        pickle.dumps([1, 2, 3]),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 50)}"),  # no data
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 50)}", bytes(4000)),  # too much
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 50)}"),
        npy(b"__import__('os').abort()"),
        npy(b"(" * 9000),
        npy(b"{'descr': '<f4L'"),
        b"\x93NUMPY\x09\x00" + bytes(64),
    ],
)
def test_a_hostile_header_is_one_named_fault(tmp_path, member):
    folder = save(tmp_path / "store", "npz")
    file = "sample_002_attention.npz"
    np.savez_compressed(folder / file, **{k: v for k, v in good_members().items() if k != "attention_map"})
    with zipfile.ZipFile(folder / file, "a") as archive:
        archive.writestr("attention_map.npy", member)
    forge(folder, file)
    assert list(faults(folder)) == [file]


def test_a_key_twice_is_found_out(tmp_path):
    folder = save(tmp_path / "store", "npz")
    file = folder / "sample_002_attention.npz"
    with zipfile.ZipFile(file) as archive:
        member = archive.read("attention_map.npy")
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("attention_map.npy", member)
    forge(folder, file.name)
    assert "twice" in faults(folder)[file.name]


def external_link(group):
    del group["000001"]
    group["000001"] = h5py.ExternalLink("other.h5", "/attention_map/000001")


def external_storage(group):
    attributes = dict(group["000001"].attrs)
    del group["000001"]
    dataset = group.create_dataset("000001", (4, 50), "f4", external=[("other.bin", 0, 800)])
    dataset.attrs.update(attributes)


def another_filter(group):
    attributes = dict(group["000001"].attrs)
    del group["000001"]
    group.create_dataset("000001", data=MAPS[1], compression="lzf").attrs.update(attributes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (external_link, "no plain dataset"),
        (external_storage, "no plain dataset"),
        (another_filter, "no plain dataset"),
        (lambda group: group["000001"].write_direct(MAPS[2]), "content"),
        (lambda group: group["000001"].write_direct(MAPS[1] + 1), "above the maximum"),
        (lambda group: group["000001"].attrs.update(file_id="other"), "holds the sample 'other'"),
        (lambda group: group["000001"].attrs.update(rate=np.array([1, 2])), "its rate is"),
        (lambda group: group["000001"].attrs.update(shape=np.array([1, 2])), "its shape says"),
        (lambda group: group["000001"].attrs.pop("rate"), "lacks rate"),
        (lambda group: group.pop("000001"), "keys"),
        (lambda group: group.move("000003", "000004"), "keys"),
        (lambda group: group.parent.create_group("more"), "holds more"),
    ],
)
def test_an_hdf5_shard_with_other_content_is_found_out(tmp_path, change, problem):
    folder = save(tmp_path / "store", "hdf5")
    file = "attention_000000.h5"
    with h5py.File(folder / file, "r+") as handle:
        change(handle["attention_map"])
    forge(folder, file)
    assert problem in faults(folder)[file]


def test_a_torn_journal_loses_one_sample_and_says_so(tmp_path, file_format):
    whole = contents(save(tmp_path / "whole", file_format))
    folder = tmp_path / "store"
    store = ArrayStore(folder, CONTRACT, file_format=file_format, shard_bytes=SHARD_BYTES)
    store.save_batch(NAMES, MAPS, rate=250.0)
    store.flush()
    journal = (folder / "journal.jsonl").read_bytes()
    store._writer.abandon()  # as a killed process leaves the folder
    last = len(journal) - len(journal.splitlines()[-1]) - 1
    for end in (*range(last, len(journal), 40), len(journal) - 1):
        copy = tmp_path / f"torn_{end}"
        shutil.copytree(folder, copy)
        (copy / "journal.jsonl").write_bytes(journal[:end])
        found = faults(copy)
        files = {file for file in found if file != "journal.jsonl"}
        assert "unfinished" in found["journal.jsonl"]
        assert ("torn" in found["journal.jsonl"]) == (end > last)
        assert len(files) <= 1  # the file whose line was lost
        save(copy, file_format)
        assert contents(copy) == whole


def test_a_damaged_line_inside_the_journal_is_refused(tmp_path, file_format):
    folder = tmp_path / "store"
    store = ArrayStore(folder, CONTRACT, file_format=file_format, shard_bytes=SHARD_BYTES)
    store.save_batch(NAMES, MAPS, rate=250.0)
    store.flush()
    store._writer.abandon()
    journal = (folder / "journal.jsonl").read_text()
    (folder / "journal.jsonl").write_text(journal.replace("blake3:", "blake4:", 1))
    assert list(faults(folder)) == ["journal.jsonl"]
    with pytest.raises(ArrayDamageError, match="line 1 is damaged"):
        save(folder, file_format)


class FailingAt:
    """Stands in for `holdfast.atomic.replacing`: fails at one file, before it is put in place or right after."""

    def __init__(self, file: str, stage: str) -> None:
        self.file, self.stage, self.real = file, stage, array_writer.replacing

    @contextmanager
    def __call__(self, path: Path):
        if path.name == self.file and self.stage == "before":
            raise OSError(28, "No space left on device")
        with self.real(path) as stream:
            yield stream
        if path.name == self.file:
            raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stage", ["before", "after"])
@pytest.mark.parametrize("replacing", [False, True], ids=["new file", "replaced file"])
def test_a_failed_write_at_any_file_keeps_the_rest_and_is_completed(
    tmp_path, file_format, monkeypatch, stage, replacing
):
    whole = contents(save(tmp_path / "whole", file_format))

    def save_all(folder: Path) -> None:
        with ArrayStore(folder, CONTRACT, file_format=file_format, shard_bytes=SHARD_BYTES, jobs=2) as store:
            store.save_batch(NAMES, MAPS, rate=250.0, replace=True)

    for broken in [name for name in whole if name.endswith((".npz", ".h5"))]:
        folder = tmp_path / f"{broken}_{stage}"
        if replacing:
            save(folder, file_format, arrays=1 - MAPS)
        with monkeypatch.context() as patch:
            patch.setattr(array_writer, "replacing", FailingAt(broken, stage))
            with pytest.raises(OSError, match=r"device|output"):
                save_all(folder)
        found = faults(folder)
        assert list(found) == [broken if stage == "before" else "journal.jsonl"]
        for sample in ArrayStore.open(folder):
            array = MAPS[NAMES.index(sample.file_id)]
            assert np.array_equal(sample.array, array) or np.array_equal(sample.array, 1 - array)
        save_all(folder)
        assert contents(folder) == whole


def test_nothing_is_written_after_a_failed_write(tmp_path, monkeypatch):
    store = ArrayStore(tmp_path / "store", CONTRACT, jobs=2)
    with monkeypatch.context() as patch:
        patch.setattr(array_writer, "replacing", FailingAt("sample_003_attention.npz", "before"))
        with pytest.raises(OSError, match="No space"):
            store.save_batch(NAMES, MAPS, rate=250.0)
    for verb in (lambda: store.save("more", MAPS[0], rate=1), store.flush, store.close):
        with pytest.raises(ArrayStoreError, match="Open the folder again"):
            verb()
    assert list(faults(store.folder)) == ["sample_003_attention.npz"]
    assert ArrayStore.open(store.folder).file_ids() == NAMES[:3]


@pytest.mark.parametrize("step", ["write_manifest", "write_metadata"])
@pytest.mark.parametrize("when", ["opening", "closing"])
def test_a_failure_while_opening_or_closing_is_completed(tmp_path, file_format, monkeypatch, step, when):
    whole = contents(save(tmp_path / "whole", file_format))
    folder = tmp_path / "store"

    def fail(*_):
        raise OSError(28, "No space left on device")

    def stop():
        with monkeypatch.context() as patch:
            if when == "opening":
                patch.setattr(array_writer, step, fail)
            with ArrayStore(folder, CONTRACT, file_format=file_format, shard_bytes=SHARD_BYTES) as store:
                store.save_batch(NAMES, MAPS, rate=250.0)
                patch.setattr(array_writer, step, fail)

    with pytest.raises(OSError, match="No space"):
        stop()
    if when == "closing":
        assert list(faults(folder)) == ["journal.jsonl"]
        assert len(ArrayStore.open(folder)) == len(NAMES)
    save(folder, file_format)
    assert contents(folder) == whole


@pytest.mark.parametrize("left", [["journal.jsonl"], ["journal.jsonl", ".manifest.json.0123456789abcdef.tmp"]])
def test_a_kill_before_the_metadata_leaves_a_folder_that_can_be_written(tmp_path, file_format, left):
    folder = tmp_path / "store"
    folder.mkdir()
    for name in left:
        (folder / name).touch()
    with pytest.raises(ArrayStoreError, match="no array store"):
        verify_store(folder)
    assert contents(save(folder, file_format)) == contents(save(tmp_path / "whole", file_format))


def test_leftovers_of_a_kill_are_named_once_and_removed(folder, file_format, victim):
    whole = contents(folder)
    (folder / f".{victim.name}.0123456789abcdef.tmp").write_bytes(b"half")
    assert list(faults(folder)) == [f".{victim.name}.0123456789abcdef.tmp"]
    save(folder, file_format)
    assert contents(folder) == whole


CHILD = """
    import sys
    import numpy as np
    from holdfast.runs.arrays import ArrayContract, ArrayStore

    contract = ArrayContract("x", (40, 500), "float32", 0, 1)
    with ArrayStore(sys.argv[1], contract, file_format=sys.argv[2], shard_bytes=500_000, jobs=2) as store:
        print("open", flush=True)
        for start in range(0, 160, 8):
            arrays = (np.random.default_rng(start + n).random((40, 500), np.float32) for n in range(8))
            store.save_batch([f"s{start + n}" for n in range(8)], arrays)
"""


def kill_while_saving(folder: Path, file_format: str, moment: random.Random) -> bool:
    """Start a child that saves 160 arrays, kill -9 it at a random moment; whether it was still saving."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(folder), file_format], stdout=subprocess.PIPE
    )
    suffix = {"npz": ".npz", "hdf5": ".h5"}[file_format]
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        # by what it has done, then a little more: the same spread of moments on a slow machine as on a fast one
        files = moment.randrange(0, 150 if file_format == "npz" else 20)
        while child.poll() is None and sum(1 for _ in folder.glob(f"*{suffix}")) < files:
            time.sleep(0.0005)
        time.sleep(moment.random() * 0.005)
        child.kill()
        return child.wait() != 0


def check_kills(tmp_path: Path, file_format: str, moments: int, seed: int) -> None:
    contract = ArrayContract("x", (40, 500), "float32", 0, 1)

    def complete(folder: Path) -> dict[str, bytes]:
        with ArrayStore(folder, contract, file_format=file_format, shard_bytes=500_000) as store:
            for number in range(160):
                start = number // 8 * 8
                store.save(f"s{number}", np.random.default_rng(start + number % 8).random((40, 500), np.float32))
        return contents(folder)

    whole = complete(tmp_path / "whole")
    moment = random.Random(seed)
    killed = 0
    for number in range(moments):
        folder = tmp_path / f"killed_{number}"
        while True:
            shutil.rmtree(folder, ignore_errors=True)
            if kill_while_saving(folder, file_format, moment):
                break
        killed += 1
        found = verify_store(folder)
        assert len(found) == 1, found
        assert "unfinished" in found[0].problem
        for sample in ArrayStore.open(folder):  # what it had acknowledged is there and right
            seed_of = int(sample.file_id[1:])
            assert np.array_equal(sample.array, np.random.default_rng(seed_of).random((40, 500), np.float32))
        if number % 2:  # and a second kill, on resuming
            kill_while_saving(folder, file_format, moment)
            assert len(verify_store(folder)) <= 1
        assert complete(folder) == whole
        assert verify_store(folder) == []
        shutil.rmtree(folder)
    assert killed == moments


def test_kill_9_while_saving_costs_at_most_one_file(tmp_path, file_format):
    check_kills(tmp_path, file_format, moments=5, seed=1)


@pytest.mark.soak
def test_kill_9_at_many_moments_costs_at_most_one_file(tmp_path, file_format):
    check_kills(tmp_path, file_format, moments=100, seed=2)
