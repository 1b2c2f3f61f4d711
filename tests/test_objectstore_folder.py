"""A folder as a store: what is acknowledged is there, whoever else writes and whatever is killed when."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.atomic import TEMPORARY_SUFFIX
from holdfast.objectstore.folder import FolderStore
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import (
    DeniedError,
    InvalidKeyError,
    ObjectNotFoundError,
    RefusedError,
    StoreError,
)

RACE = """
import sys, time
from pathlib import Path
from holdfast.objectstore.folder import FolderStore
store, name = FolderStore(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
won = [key for key in range(200) if store.put_if_absent(f"index/{key:03}", name.encode() * 1000)]
print(*won)
"""

WRITER = """
import sys
from pathlib import Path
from holdfast.objectstore.folder import FolderStore
store = FolderStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    store.put_if_absent(f"packs/{number:06}", number.to_bytes(4, "big") * 500_000)
    store.put("state", number.to_bytes(4, "big") * 500_000)
    print(number, flush=True)
    number += 1
"""


def test_of_many_processes_one_creates(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "store"), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "abcd"
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:  # none waits for another to be done
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = {
        name: set(map(int, racer.communicate(timeout=60)[0].split()))
        for name, racer in zip("abcd", racers, strict=True)
    }
    assert sum(len(keys) for keys in won.values()) == 200
    store = FolderStore(tmp_path / "store")
    for name, keys in won.items():
        assert all(store.get(f"index/{key:03}") == name.encode() * 1000 for key in keys)
    assert [info.key for info in store.list_objects()] == [f"index/{key:03}" for key in range(200)]
    assert len(list((tmp_path / "store" / "index").iterdir())) == 200


def test_killed_at_any_time(tmp_path: Path) -> None:
    """What was acknowledged is whole; what was not is whole or absent; and nothing else is to be seen."""
    folder = tmp_path / "store"
    store = FolderStore(folder)
    number = 0
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), str(number)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())
        time.sleep(0.001 * attempt)  # to be killed at another point each time
        process.send_signal(signal.SIGKILL)
        rest = process.communicate(timeout=30)[0].split()
        acknowledged = int(rest[-1]) if rest else acknowledged
        keys = [info.key for info in store.list_objects("packs")]
        assert keys == [f"packs/{place:06}" for place in range(len(keys))]
        assert len(keys) in (acknowledged + 1, acknowledged + 2)
        for key in keys[number:]:
            assert store.get(key) == int(key[-6:]).to_bytes(4, "big") * 500_000
        state = store.get("state")
        assert len(state) == 2_000_000
        assert state == state[:4] * 500_000
        assert int.from_bytes(state[:4], "big") in (acknowledged, acknowledged + 1)
        number = len(keys)
    assert store.list_folders() == ["packs"]


def test_files_being_written_are_no_objects(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("packs/one", b"1")
    temporary = f".two.{'0123456789abcdef'}{TEMPORARY_SUFFIX}"
    (tmp_path / "packs" / temporary).write_bytes(b"half")
    (tmp_path / "rest").mkdir()
    (tmp_path / "rest" / temporary).write_bytes(b"half")
    assert [info.key for info in store.list_objects()] == ["packs/one"]
    assert store.list_folders() == ["packs"]
    for call in (store.get, store.head, store.delete, lambda key: store.put(key, b"")):
        with pytest.raises(InvalidKeyError, match="being written"):
            call(f"packs/{temporary}")
    store.put("packs/.two.tmp", b"a name like that, and not that")
    assert len(list(store.list_objects())) == 2


def test_what_is_acknowledged_survives_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are synced before they get their name, the name after it, and the names of new folders before that."""
    events: list[str] = []
    real_sync, real_link, real_replace = os.fsync, os.link, Path.replace

    def fsync(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append(f"sync {place.relative_to(tmp_path)}" if place.is_dir() else "sync bytes")
        real_sync(descriptor)

    def link(source: Path, target: Path) -> None:
        events.append(f"name {Path(target).relative_to(tmp_path)}")
        real_link(source, target)

    def replace(self: Path, target: Path) -> Path:
        events.append(f"name {target.relative_to(tmp_path)}")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "replace", replace)
    store = FolderStore(tmp_path / "new" / "store")
    store.put("packs/ab/one", b"1")
    assert events == [
        "sync new", "sync .", "sync new/store", "sync new/store/packs",
        "sync bytes", "name new/store/packs/ab/one", "sync new/store/packs/ab",
    ]  # fmt: skip
    events.clear()
    assert store.put_if_absent("packs/ab/two", b"2")
    assert events == ["sync bytes", "name new/store/packs/ab/two", "sync new/store/packs/ab"]
    events.clear()
    # a folder that another process has made, and may not have synced
    (tmp_path / "new/store/index").mkdir()
    store.put("index/one", b"1")
    assert events == ["sync new/store", "sync bytes", "name new/store/index/one", "sync new/store/index"]
    events.clear()
    # what another writer has created is built upon, so it is made durable too
    assert not store.put_if_absent("index/one", b"1")
    assert events[-1] == "sync new/store/index"
    events.clear()
    store.delete("index/one")
    assert events == ["sync new/store/index"]


def test_a_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    """A file is replaced, never written into, so a long read has one state of it."""
    store = FolderStore(tmp_path)
    store.put("object", b"first")
    with open(tmp_path / "object", "rb") as reader:
        store.put("object", b"other")
        assert reader.read() == b"first"


def test_links_and_what_is_no_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    store.put("a/real", b"1234")
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"")
    top = tmp_path / "store"
    (top / "linked").symlink_to(tmp_path / "outside")
    (top / "nowhere").symlink_to(tmp_path / "missing")
    (top / "folder").symlink_to(tmp_path / "elsewhere")
    (top / "loop").symlink_to(top)
    os.mkfifo(top / "pipe")
    assert [info.key for info in store.list_objects()] == ["a/real", "linked"]
    assert store.get("linked") == b"outside"
    for key in ("pipe", "a", "nowhere", "a/real/below"):
        with pytest.raises(ObjectNotFoundError):
            store.get(key)
        with pytest.raises(ObjectNotFoundError):
            store.head(key)
    store.delete("a")
    store.delete("a/real/below")
    store.put("linked", b"new")
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert store.get("a/real") == b"1234"


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "no" / "where"))
    assert list(store.list_objects()) == []
    assert store.list_folders() == []
    store.delete("key")
    with pytest.raises(ObjectNotFoundError):
        store.get("key")
    assert not (tmp_path / "no").exists()
    assert open_store((tmp_path / "a b").as_uri()).url == str(tmp_path / "a b")


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (errno.ENOSPC, StoreError, "No space left on device"),
        (errno.EACCES, DeniedError, "permission denied"),
        (errno.EROFS, StoreError, "Read-only file system"),
    ],
)
def test_what_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error, text: str
) -> None:
    store = FolderStore(tmp_path)
    store.put("object", b"old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for call in (lambda: store.put("object", b"new"), lambda: store.put_if_absent("other", b"new")):
        with pytest.raises(error, match=text) as caught:
            call()
        assert str(tmp_path) in caught.value.message
    monkeypatch.undo()
    assert store.get("object") == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["object"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(RefusedError, match="has no hard links"):
        FolderStore(tmp_path).put_if_absent("key", b"")
    assert list(tmp_path.iterdir()) == []


def test_names_too_long_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidKeyError, match="too long"):
        FolderStore(tmp_path).put("x" * 250, b"")  # with what a file being written is called, over 255
