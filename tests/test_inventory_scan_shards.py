"""What is remembered of buckets: parts whose borders depend on names, shards that outlive whoever dies, and damage."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from holdfast.executor.local import LocalExecutor
from holdfast.inventory import scan_objects, scan_partitions
from holdfast.inventory.models import ScanReport
from holdfast.inventory.scan_objects import scan_store
from holdfast.inventory.scan_partitions import cut, name_of
from holdfast.inventory.tree import Excludes
from holdfast.objectstore.folder import FolderStore
from holdfast.objectstore.store import ObjectInfo, UnreachableError

OBJECTS, PARTS = 100, 12  # so that few objects make many parts


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_objects, "PART_OBJECTS", PARTS)


@dataclass
class Counting:
    """A store that counts the reads of each object; `before` may refuse one."""

    store: FolderStore
    reads: Counter[str] = field(default_factory=Counter)
    before: Callable[[str], None] = lambda _: None

    @property
    def url(self) -> str:
        return self.store.url

    def open(self) -> "Counting":
        return self

    def list_objects(self) -> Iterator[ObjectInfo]:
        return self.store.list_objects()

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
        self.before(key)
        self.reads[key] += 1
        return self.store.get_range(key, offset, count, etag=etag)


def model(number: int) -> bytes:
    return save({"w": np.full(4 + number % 3, number, np.float32)})


@pytest.fixture
def bucket(tmp_path: Path) -> Counting:
    store = FolderStore(tmp_path / "bucket")
    for number in range(OBJECTS):
        (tmp_path / "bucket" / f"run_{number // 10}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bucket" / f"run_{number // 10}" / f"epoch_{number}.safetensors").write_bytes(model(number))
    return Counting(store)


def scan(bucket: Counting, folder: Path, **options: object) -> ScanReport:
    bucket.reads.clear()
    return scan_store(bucket, LocalExecutor(2), folder, **options).report  # type: ignore[arg-type]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*/*/*/*.rows")}


def test_one_more_object_is_all_that_is_read(bucket: Counting, tmp_path: Path) -> None:
    scan(bucket, tmp_path / "seen")
    assert len(bucket.reads) == OBJECTS
    before = shards(tmp_path / "seen")
    assert 3 < len(before) < 40
    bucket.store.put("run_7/another.safetensors", model(7))
    report = scan(bucket, tmp_path / "seen")
    assert set(bucket.reads) == {"run_7/another.safetensors"}
    after = shards(tmp_path / "seen")
    assert len(after.keys() - before.keys()) <= 2
    assert {name: after[name] for name in before} == before  # the older ones are kept for a while, and as they were
    assert report.to_json() == scan(bucket, tmp_path / "fresh").to_json()


def test_what_is_finished_is_not_read_again(bucket: Counting, tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        if bucket.reads.total() >= 0.6 * OBJECTS:
            raise KeyboardInterrupt

    bucket.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        scan(bucket, tmp_path / "seen")
    finished = len(shards(tmp_path / "seen"))
    assert finished > 0
    bucket.before = lambda _: None
    report = scan(bucket, tmp_path / "seen")
    # the parts that were under way are read again, and no other
    assert len(bucket.reads) >= 0.4 * OBJECTS
    assert len(bucket.reads) < OBJECTS
    assert report.to_json() == scan(bucket, tmp_path / "fresh").to_json()
    assert shards(tmp_path / "seen") == shards(tmp_path / "fresh")


def test_what_could_not_be_read_is_asked_for_again_alone(bucket: Counting, tmp_path: Path) -> None:
    lost = "run_3/epoch_31.safetensors"

    def refuse(key: str) -> None:
        if key == lost:
            raise UnreachableError("no answer")

    bucket.before = refuse
    report = scan(bucket, tmp_path / "seen")
    assert report.notes == (f"{lost}: no answer",)
    assert len(report.models) == OBJECTS - 1
    assert scan(bucket, tmp_path / "seen").notes == report.notes
    assert not bucket.reads
    bucket.before = lambda _: None
    report = scan(bucket, tmp_path / "seen")
    assert set(bucket.reads) == {lost}
    assert report.notes == ()
    assert report.to_json() == scan(bucket, tmp_path / "fresh").to_json()


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:12],
        lambda _: b"",
        lambda data: data[:20] + bytes([data[20] ^ 255]) + data[21:],
        lambda data: b"another thing" + data,
    ],
)
def test_a_damaged_shard_is_made_again(bucket: Counting, tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    first = scan(bucket, tmp_path / "seen")
    good = shards(tmp_path / "seen")
    path = sorted((tmp_path / "seen").glob("*/*/*/*.rows"))[3]
    path.write_bytes(harm(path.read_bytes()))
    assert scan(bucket, tmp_path / "seen").to_json() == first.to_json()
    assert 0 < len(bucket.reads) < OBJECTS
    assert shards(tmp_path / "seen") == good


def test_scans_with_other_patterns_do_not_forget_for_one_another(bucket: Counting, tmp_path: Path) -> None:
    scan(bucket, tmp_path / "seen")
    few = scan(bucket, tmp_path / "seen", excludes=["run_1*"])
    assert not bucket.reads
    assert len(few.models) < OBJECTS
    scan(bucket, tmp_path / "seen")
    assert not bucket.reads


def test_old_shards_are_few(bucket: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_objects, "STALE_SHARDS", 3)
    for turn in range(4):
        for number in range(0, OBJECTS, 7):
            bucket.store.put(f"run_{number // 10}/epoch_{number}.safetensors", model(number + turn + 1))
        scan(bucket, tmp_path / "seen")
    scan(bucket, tmp_path / "fresh")
    assert len(shards(tmp_path / "seen")) <= 2 * len(shards(tmp_path / "fresh"))


def test_headers_and_weights_are_remembered_apart(bucket: Counting, tmp_path: Path) -> None:
    assert all(model.weights is None for model in scan(bucket, tmp_path / "seen").models)
    assert all(model.weights for model in scan(bucket, tmp_path / "seen", weights=True).models)
    assert len(bucket.reads) == OBJECTS
    again = scan(bucket, tmp_path / "seen")
    assert not bucket.reads
    assert all(model.weights is None for model in again.models)  # as if nobody had ever read them


def test_progress_ends_with_all(bucket: Counting, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    scan(bucket, tmp_path / "seen", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (OBJECTS, OBJECTS)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    told.clear()
    scan(bucket, tmp_path / "seen", weights=True, progress=lambda done, total: told.append((done, total)))
    size = sum(info.size for info in bucket.list_objects())
    assert told[-1] == (size, size)


@given(st.sets(st.text("abcdef/_.0123456789", min_size=1, max_size=12), min_size=1, max_size=300), st.data())
def test_borders_depend_on_names(names: set[str], data: st.DataObject) -> None:
    ordered = sorted(names)
    parts = list(cut(ordered, str, PARTS))
    assert [name for part in parts for name in part] == ordered
    gone = data.draw(st.sampled_from(ordered))
    rest = list(cut([name for name in ordered if name != gone], str, PARTS))
    unchanged = {tuple(part) for part in parts} & {tuple(part) for part in rest}
    assert len(unchanged) >= len(parts) - 2


def test_parts_are_bounded() -> None:
    sizes = [len(part) for part in cut(map(str, range(10_000)), str, PARTS)]
    assert max(sizes) <= scan_partitions.MOST * PARTS
    assert PARTS / 2 < sum(sizes) / len(sizes) < PARTS * 2

    def cost(name: str) -> int:
        return 3 * PARTS if int(name) % 2 else 1

    heavy = list(cut(map(str, range(100)), str, PARTS, cost))
    assert all(sum(map(cost, part)) <= scan_partitions.MOST * PARTS for part in heavy)
    assert [len(part) for part in cut("abc", str, 1, lambda _: 100)] == [1, 1, 1]  # what is too much is alone


def test_names_of_parts_tell_them_apart() -> None:
    facts = [("a", 1, "x"), ("b", 2, "y")]
    names = {
        name_of("t 1", facts),
        name_of("t 2", facts),
        name_of("t 1", facts[:1]),
        name_of("t 1", facts[::-1]),
        name_of("t 1", [("a", 1, "x"), ("b", 2, "z")]),
        name_of("t 1", [("a", 12, "x"), ("b", 2, "y")]),
        name_of("t 1", [("a", 1, "x", "b", 2, "y")]),
        name_of("t 1", [("a", 1, "xb", 2, "y")]),
    }
    assert len(names) == 8
    assert name_of("t 1", iter(facts)) in names


def test_excluded_objects_are_not_read(bucket: Counting, tmp_path: Path) -> None:
    scan(bucket, tmp_path / "seen", excludes=["*_3*"])
    assert bucket.reads
    assert not any(Excludes(("*_3*",)).file(key) for key in bucket.reads)
