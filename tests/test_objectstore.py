"""What every store of objects does: memory, a folder, a bucket, one as strict as R2, and Cloudflare's own local R2."""

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.objectstore.bucket import PART_BYTES
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.parts import part_bytes
from holdfast.objectstore.spans import cut, merged
from holdfast.objectstore.store import (
    ChangedError,
    InvalidKeyError,
    ObjectNotFoundError,
    ObjectStore,
    RefusedError,
    TruncatedError,
)
from proxy import R2Rules, proxy
from r2_miniflare import local_r2
from servers import BUCKET, S3Server

KINDS = ("memory", "folder", "s3", "r2", "miniflare")
ORDERED = ("memory", "folder", "miniflare")  # SeaweedFS lists folder by folder


@pytest.fixture(scope="module")
def endpoints(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], StoreOptions]]:
    """What leads to a kind of bucket; started when the first test asks for one."""
    with ExitStack() as stack:

        @cache
        def options(kind: str) -> StoreOptions:
            if kind == "miniflare":
                return stack.enter_context(local_r2(tmp_path_factory.mktemp("r2") / "server")).options()
            server: S3Server = request.getfixturevalue("s3_server")
            if kind == "s3":
                return server.options()
            strict, rules = stack.enter_context(proxy(server.port)), R2Rules()
            strict.rules, strict.noted = rules, rules.noted
            return server.options(strict.endpoint)

        yield options


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path, endpoints: Callable[[str], StoreOptions]) -> ObjectStore:
    if kind == "memory":
        return open_store("memory://")
    if kind == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}", endpoints(kind))


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list_objects(prefix)]


def test_what_is_put_is_there(store: ObjectStore) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=2)
    store.put("packs/ab/one", b"0123456789")
    info = store.head("packs/ab/one")
    assert (info.key, info.size) == ("packs/ab/one", 10)
    assert before < info.modified < datetime.now(timezone.utc) + timedelta(seconds=2)
    assert info.etag
    assert store.get("packs/ab/one") == b"0123456789"
    (listed,) = store.list_objects()
    assert (listed.key, listed.size, listed.etag) == (info.key, info.size, info.etag)
    # R2's listing knows parts of a second, its answer to HEAD does not
    assert timedelta(0) <= listed.modified - info.modified < timedelta(seconds=1)
    store.put("packs/ab/one", memoryview(b"new bytes!!")[:9])
    assert store.get("packs/ab/one") == b"new bytes"
    assert store.head("packs/ab/one").etag != info.etag
    store.put("empty", bytearray())
    assert store.get("empty") == b""
    assert store.head("empty").size == 0


def test_ranges(store: ObjectStore) -> None:
    data = bytes(range(256)) * 1024
    store.put("object", data)
    assert store.get_range("object", 0, 3) == data[:3]
    assert store.get_range("object", 1000, 70_000) == data[1000:71_000]
    assert store.get_range("object", len(data) - 5, 5) == data[-5:]
    assert store.get_range("object", 7, 0) == b""
    for offset, count in ((len(data) - 5, 6), (len(data), 1), (len(data) + 10, 3)):
        with pytest.raises(TruncatedError, match="object ends"):
            store.get_range("object", offset, count)
    with pytest.raises(ValueError, match="no span"):
        store.get_range("object", -1, 2)

    spans = [(200_000, 3), (0, 10), (5, 10), (10, 0), (250_000, 1), (5, 10)]
    for gap, jobs in ((0, 1), (1_000_000, 4), (60_000, 2)):
        found = store.get_ranges("object", spans, gap_bytes=gap, jobs=jobs)
        assert [bytes(view) for view in found] == [data[offset : offset + count] for offset, count in spans]
    assert store.get_ranges("object", []) == []
    for bad in ([(0, 1), (len(data), 1)], [(len(data) - 1, 2)], [(0, 1), (2 * len(data), 1)]):
        with pytest.raises(TruncatedError):
            store.get_ranges("object", bad)


def test_what_is_not_there(store: ObjectStore) -> None:
    for call in (
        store.head,
        store.get,
        lambda key: store.get_range(key, 0, 1),
        lambda key: store.get_ranges(key, [(0, 1)]),
    ):
        with pytest.raises(ObjectNotFoundError, match="nothing does not exist"):
            call("folder/nothing")
    store.put("folder/object", b"1")
    with pytest.raises(ObjectNotFoundError):
        store.head("folder")
    assert keys(store, "nowhere") == []
    assert store.list_folders("nowhere") == []
    store.delete("nothing")
    store.delete("folder")
    assert keys(store) == ["folder/object"]


def test_a_read_is_pinned_to_a_state(store: ObjectStore) -> None:
    store.put("object", b"first")
    etag = store.head("object").etag
    assert store.get("object", etag=etag) == b"first"
    assert store.get_range("object", 1, 2, etag=etag) == b"ir"
    store.put("object", b"other")
    for call in (lambda: store.get("object", etag=etag), lambda: store.get_range("object", 1, 2, etag=etag)):
        with pytest.raises(ChangedError, match="was replaced"):
            call()


def test_states_of_one_length_are_told_apart(store: ObjectStore, kind: str) -> None:
    """Also where a file system gives the number of the file before last to the next one."""
    etags = set()
    states = 3 if kind == "r2" else 8
    for number in range(states):
        store.put("object", b"%d" % number)
        etags.add(store.head("object").etag)
        time.sleep(0.01)  # a file's time has steps of 4 ms
    assert len(etags) == states


def test_only_one_creates(store: ObjectStore) -> None:
    assert store.put_if_absent("index/session", b"ours")
    assert not store.put_if_absent("index/session", b"theirs")
    assert not store.put_if_absent("index/session", b"ours")  # no answer was lost, so these are not our bytes
    assert store.get("index/session") == b"ours"
    assert store.put_if_absent("empty", b"")
    assert not store.put_if_absent("empty", b"")
    store.delete("index/session")
    assert store.put_if_absent("index/session", b"again")


def test_of_many_threads_one_creates(store: ObjectStore) -> None:
    barrier = threading.Barrier(16)

    def race(number: int) -> bool:
        barrier.wait(30)
        return store.put_if_absent("index/session", b"writer %d" % number)

    won = list(concurrently(race, range(16), 16))
    assert won.count(True) == 1
    assert store.get("index/session") == b"writer %d" % won.index(True)
    assert keys(store) == ["index/session"]


def test_readers_see_one_state(store: ObjectStore, kind: str) -> None:
    """A reader beside a writer gets all of one state, never some of two."""
    states = [bytes([number]) * 300_000 for number in range(3 if kind == "r2" else 20)]
    store.put("object", states[0])
    done = threading.Event()

    def read(_: int) -> int:
        seen = set()
        while True:
            last = done.is_set()
            data = store.get("object")
            assert len(data) == 300_000
            assert len(set(data)) == 1
            seen.add(data[0])
            if last:
                return len(seen)

    def write() -> None:
        for state in states[1:]:
            time.sleep(0.02)
            store.put("object", state)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert all(count > 1 for count in concurrently(read, range(3), 3))
    thread.join()


def test_deletion(store: ObjectStore) -> None:
    for number in range(25):
        store.put(f"d/{number:02}", b"x")
    store.delete("d/00")
    store.delete("d/00")
    store.delete_many([f"d/{number:02}" for number in range(1, 24)] + ["d/nothing", "d/05"])
    assert keys(store) == ["d/24"]
    store.delete_many([])
    store.delete_many(iter(["d/24"]))
    assert keys(store) == []


def test_deletion_in_thousands(store: ObjectStore, kind: str) -> None:
    count = 1100 if kind in ("r2", "miniflare") else 2100
    names = [f"many/{number:05}" for number in range(count)]
    list(concurrently(lambda key: store.put(key, b""), names, 8))
    assert sorted(keys(store)) == names
    assert len(keys(store, "many")) == count  # more than one page
    store.delete_many(names)
    assert keys(store) == []


def test_listing(store: ObjectStore, kind: str) -> None:
    names = ["Z", "a-b/c", "a.txt", "a/b/c", "a/b/d", "a/c", "b/x/y/z", "ä/ö"]
    for name in reversed(names):
        store.put(name, name.encode())
    found = list(store.list_objects())
    assert sorted(info.key for info in found) == sorted(names)
    assert all(info.size == len(info.key.encode()) for info in found)
    assert all(info.etag == store.head(info.key).etag for info in found)
    assert sorted(keys(store, "a")) == sorted(keys(store, "a/")) == ["a/b/c", "a/b/d", "a/c"]
    assert keys(store, "a/b") == ["a/b/c", "a/b/d"]
    assert keys(store, "a/c") == keys(store, "a/b/c") == []  # an object is no folder
    assert store.list_folders() == ["a", "a-b", "b", "ä"]
    assert store.list_folders("a") == store.list_folders("a/") == ["b"]
    assert store.list_folders("a/b") == []
    behind = [info.key for info in store.list_objects(after="a/b/c")]
    if kind in ORDERED:
        assert [info.key for info in found] == names
        assert behind == names[names.index("a/b/c") + 1 :]
        for place, name in enumerate(names):
            assert [info.key for info in store.list_objects(after=name)] == names[place + 1 :]
        assert [info.key for info in store.list_objects("a", after="a/b")] == ["a/b/c", "a/b/d", "a/c"]
    assert "a/b/c" not in behind
    assert {"a/b/d", "a/c", "b/x/y/z"} <= set(behind)


def test_a_listing_is_streamed(store: ObjectStore) -> None:
    """What was deleted behind the reader does not stop it."""
    for number in range(30):
        store.put(f"{number:02}", b"")
    listing = store.list_objects()
    assert next(listing).key == "00"
    store.delete_many([f"{number:02}" for number in range(30)])
    list(listing)
    assert keys(store) == []


@pytest.mark.parametrize(
    "key",
    ["a b", "ä/ö ü", "a+b", "a%20b", "a%2Fb", "100%", "a#b?c=d&e", "a:b;c", "~a", "'\"`", "[x]{y}", "a\\b", "a*", "日本",
     "x" * 200, ".hidden", "...", "a..b", "a=b", "a,b", "-", "a@v3"],
)  # fmt: skip
def test_names(store: ObjectStore, kind: str, key: str) -> None:
    if "\\" in key and kind in ("s3", "r2"):
        pytest.skip("SeaweedFS makes slashes of backslashes")
    store.put(f"names/{key}", key.encode())
    assert store.get(f"names/{key}") == key.encode()
    assert keys(store) == [f"names/{key}"]
    assert store.put_if_absent(f"more/{key}", b"")
    assert sorted(store.list_folders()) == ["more", "names"]
    store.delete_many([f"names/{key}", f"more/{key}"])
    assert keys(store) == []


@pytest.mark.parametrize(
    "key",
    ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\nb", "a\0b", "\x7f", "\ud800", "ä" * 513, "k" * 1025],
)
def test_names_that_no_store_takes(store: ObjectStore, key: str) -> None:
    calls = [
        lambda: store.put(key, b""), lambda: store.put_if_absent(key, b""), lambda: store.get(key), lambda: store.head(key),
        lambda: store.delete(key), lambda: store.delete_many([key, "b"]), lambda: store.get_range(key, 0, 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(InvalidKeyError):
            call()
    assert keys(store) == []


def test_large_objects(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(251)) * 180_000  # 45 MB: three parts, the last one shorter
    (tmp_path / "file").write_bytes(data)
    store.put_file("from/file", tmp_path / "file")
    assert store.head("from/file").size == len(data)
    assert store.get("from/file") == data
    store.put("in/one", data)
    monkeypatch.setattr("holdfast.objectstore.bucket.SINGLE_PUT_BYTES", 20_000_000)
    store.put("in/parts", data)
    assert store.get("in/one") == store.get("in/parts") == data
    (tmp_path / "small").write_bytes(b"small")
    store.put_file("small", tmp_path / "small")
    assert store.get("small") == b"small"
    with pytest.raises(OSError, match="No such file"):
        store.put_file("nothing", tmp_path / "nothing")
    assert "nothing" not in keys(store)


def test_many_threads(store: ObjectStore) -> None:
    def work(number: int) -> None:
        key = f"{number % 4}/{number}"
        data = json.dumps({"number": number}).encode() * (number + 1)
        store.put(key, data)
        assert store.get(key) == data
        assert store.get_range(key, 3, 4) == data[3:7]

    list(concurrently(work, range(64), 8))
    assert len(keys(store)) == 64
    assert store.list_folders() == ["0", "1", "2", "3"]


def test_a_name_below_another_object(store: ObjectStore, kind: str) -> None:
    """A bucket has both; a folder cannot, and says so."""
    store.put("a/b", b"object")
    if kind == "folder":
        for call in (
            lambda: store.put("a/b/c", b"x"),
            lambda: store.put_if_absent("a", b""),
            lambda: store.put("a", b""),
        ):
            with pytest.raises(RefusedError, match="a folder and a file would have one name"):
                call()
    else:
        store.put("a/b/c", b"below")
        assert store.get("a/b/c") == b"below"
        assert keys(store, "a/b") == ["a/b/c"]
    assert store.get("a/b") == b"object"


def test_url_and_names_in_errors(store: ObjectStore, kind: str) -> None:
    with pytest.raises(ObjectNotFoundError) as caught:
        store.get("some/key")
    separator = "" if store.url.endswith("/") else "/"
    assert caught.value.message == f"{store.url}{separator}some/key does not exist"
    assert store.url.startswith({"memory": "memory://", "folder": "/"}.get(kind, "s3://tests/"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=30), st.integers(0, 50), st.integers(1, 120)
)
def test_merged_spans_cover_what_is_wanted(spans: list[tuple[int, int]], gap: int, limit: int) -> None:
    data = bytes(index % 256 for index in range(400))
    whole = merged(spans, gap, limit)
    assert whole == sorted(whole)
    longest = max((count for _, count in spans), default=0)
    assert all(0 < count <= max(limit, longest) for _, count in whole)
    assert all(after > start for (start, _), (after, _) in itertools.pairwise(whole))
    fetched = [data[start : start + count] for start, count in whole]
    assert [bytes(view) for view in cut(spans, whole, fetched)] == [
        data[start : start + count] for start, count in spans
    ]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=30), st.integers(0, 50))
def test_no_more_is_fetched_than_spans_and_gaps(spans: list[tuple[int, int]], gap: int) -> None:
    whole = merged(spans, gap, 10_000)
    wanted = {place for start, count in spans for place in range(start, start + count)}
    fetched = {place for start, count in whole for place in range(start, start + count)}
    assert wanted <= fetched
    assert len(fetched) == sum(count for _, count in whole)
    assert all(start in wanted and start + count - 1 in wanted for start, count in whole)
    assert all(after - start - count > gap for (start, count), (after, _) in itertools.pairwise(whole))
    for start, count in whole:
        holes = sorted(wanted & set(range(start, start + count)))
        assert all(after - before <= gap + 1 for before, after in itertools.pairwise(holes))


@pytest.mark.parametrize("size", [1, 16 << 20, 100 << 30, 160 << 30, (160 << 30) + 1, 5 << 40])
def test_parts_are_few_enough_and_large_enough(size: int) -> None:
    part = part_bytes(size, PART_BYTES)
    assert -(-size // part) <= 10_000
    assert 5 << 20 <= part <= 5 << 30
    assert part % (1 << 20) == 0
