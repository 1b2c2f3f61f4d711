"""The cache of streams, and what is fetched ahead: their bounds, torn entries, many processes at once, killed ones."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast.data.stream_ahead import ITEMS_A_JOB, ahead
from holdfast.data.stream_cache import DIGEST_BYTES, StreamCache, WriteBehind
from holdfast.errors import HoldfastError
from stream_world import noise

WRITER = """
import os, random, sys
from pathlib import Path
from holdfast.data.stream_cache import StreamCache
folder, seed, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = StreamCache(folder, limit, free_bytes=0)
chosen = random.Random(seed)
hits = 0
for _ in range(int(sys.argv[4])):
    number = chosen.randrange(60)
    data = random.Random(number).randbytes(3000 + number * 50)
    found = cache.get(f"entry {number}")
    assert found in (None, data), "a wrong entry"
    hits += found is not None
    if found is None:
        cache.put(f"entry {number}", data)
print(hits)
"""


def writer(folder: Path, seed: int, limit: int, turns: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(folder), str(seed), str(limit), str(turns)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def size(folder: Path) -> int:
    """Bytes of all entries, unfinished ones included, while nobody writes."""
    if not (folder / "lock").exists():
        return 0
    with open(folder / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in entries(folder))


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*"))


def test_what_was_read_last_stays(tmp_path: Path) -> None:
    cache = StreamCache(tmp_path, 10 * (1000 + DIGEST_BYTES), free_bytes=0)
    for number in range(10):
        cache.put(f"{number}", noise(number, 1000))
        time.sleep(0.002)
    assert all(cache.get(f"{number}") == noise(number, 1000) for number in range(3))
    assert size(tmp_path) == cache.limit_bytes
    cache.put("10", noise(10, 1000))
    assert size(tmp_path) <= cache.limit_bytes
    left = {number for number in range(11) if cache.get(f"{number}") is not None}
    assert {0, 1, 2, 10} <= left
    assert 3 not in left
    assert 4 not in left
    cache.put("large", noise(0, cache.limit_bytes))  # never fits
    assert cache.get("large") is None
    assert cache.get("10") == noise(10, 1000)
    cache.put("none", b"")
    assert cache.get("none") == b""


def test_a_smaller_bound_counts_from_the_next_entry_on(tmp_path: Path) -> None:
    wide = StreamCache(tmp_path, 100_000, free_bytes=0)
    for number in range(50):
        wide.put(f"{number}", noise(number, 1000))
    StreamCache(tmp_path, 5000, free_bytes=0).put("another", b"x")
    assert size(tmp_path) <= 5000


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "swap"])
def test_a_torn_entry_is_none(tmp_path: Path, damage: str) -> None:
    cache = StreamCache(tmp_path, 100_000, free_bytes=0)
    cache.put("a", noise(1, 5000))
    (path,) = entries(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "swap":  # whole, but another entry's
        cache.put("b", noise(2, 5000))
        (other,) = (entry for entry in entries(tmp_path) if entry != path)
        data = bytearray(other.read_bytes())
    elif damage == "flip":
        data[2500] ^= 1
    else:
        del data[0 if damage == "empty" else 2500 :]
    path.write_bytes(data)
    assert cache.get("a") is None
    assert not path.exists()
    cache.put("a", noise(1, 5000))
    assert cache.get("a") == noise(1, 5000)


def test_a_count_that_is_torn_is_made_anew(tmp_path: Path) -> None:
    cache = StreamCache(tmp_path, 20_000, free_bytes=0)
    for number in range(10):
        cache.put(f"{number}", noise(number, 1000))
    (tmp_path / "lock").write_bytes(b"torn")
    for number in range(10, 40):
        cache.put(f"{number}", noise(number, 1000))
        assert size(tmp_path) <= 20_000


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path) -> None:
    state = os.statvfs(tmp_path)
    cache = StreamCache(tmp_path / "cache", 10**9, free_bytes=state.f_bavail * state.f_frsize + 2**40)
    cache.put("a", b"data")
    assert cache.get("a") is None
    (tmp_path / "file").write_bytes(b"")
    nowhere = StreamCache(tmp_path / "file" / "cache", 10**9)
    nowhere.put("a", b"data")  # cannot be made: done without
    assert nowhere.get("a") is None


def test_many_processes_keep_one_bound(tmp_path: Path) -> None:
    limit = 60_000
    running = [writer(tmp_path, seed, limit, 400) for seed in range(4)]
    most = 0
    while any(process.poll() is None for process in running):
        most = max(most, size(tmp_path))
        time.sleep(0.002)
    hits = [int(process.communicate()[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    assert min(hits) > 20
    assert limit / 2 < most <= limit
    assert size(tmp_path) <= limit


def test_killed_writers_leave_nothing_wrong_behind(tmp_path: Path) -> None:
    limit, chosen = 40_000, random.Random(4)
    for round_number in range(6):
        process = writer(tmp_path, round_number, limit, 100_000)
        end = time.monotonic() + 20
        while not entries(tmp_path) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1 + chosen.random() / 5)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # as a kill in the middle of a write leaves it; 0.2 s are not likely to meet that
    path = entries(tmp_path)[0]
    left = path.with_name(f"{path.name}.0123456789abcdef.tmp")
    left.write_bytes(noise(0, 30_000))
    os.utime(left, (2**32, 2**32))  # none that would go for its age
    last = writer(tmp_path, 99, limit, 300)
    last.communicate()
    assert last.returncode == 0
    assert size(tmp_path) <= limit
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_is_put_behind_is_there_after_a_flush(tmp_path: Path) -> None:
    cache = StreamCache(tmp_path, 10**7, free_bytes=0)
    behind = WriteBehind(cache, 5000)
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as of another process: nothing can be written
        for number in range(5):
            behind.put(f"{number}", noise(number, 1000))
        waiting = threading.Thread(target=behind.put, args=("5", noise(5, 1000)), daemon=True)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()  # as many wait as may
        assert cache.get("0") is None
    waiting.join(10)
    behind.flush()
    assert [cache.get(f"{number}") for number in range(6)] == [noise(number, 1000) for number in range(6)]
    behind.flush()  # of nothing


def test_results_come_in_order_and_the_bound_holds() -> None:
    lock, state = threading.Lock(), {"held": 0, "most": 0, "running": 0, "jobs": 0}

    def fetch(number: int) -> bytes:
        with lock:
            state["running"] += 1
            state["jobs"] = max(state["jobs"], state["running"])
        time.sleep(random.Random(number).random() / 200)
        with lock:
            state["running"] -= 1
            state["held"] += 1000
            state["most"] = max(state["most"], state["held"])
        return b"x" * 999 + bytes([number % 256])

    for number, data in enumerate(ahead(fetch, range(300), jobs=6, limit_bytes=10_000, about=lambda _: 1000)):
        assert data[-1] == number % 256
        if number % 100 == 0:
            time.sleep(0.1)  # whoever uses them takes a while
        with lock:
            state["held"] -= 1000
    assert 3 <= state["jobs"] <= 6
    assert state["most"] <= 11_000  # the one that is given has been taken


def test_a_wrong_guess_does_not_last() -> None:
    """Files are a hundred times as long as expected: as soon as that is seen, fewer are under way."""
    begun: list[int] = []

    def fetch(number: int) -> bytes:
        begun.append(number)
        return bytes(100_000)

    results = ahead(fetch, range(1000), jobs=2, limit_bytes=300_000, about=lambda _: 1000)
    for given in range(100):
        next(results)
        time.sleep(0.001 if given else 0.3)
        if given <= ITEMS_A_JOB:
            assert len(begun) <= 2 * ITEMS_A_JOB
        if given > 2 * ITEMS_A_JOB:
            assert len(begun) - given <= 5
    results.close()


def test_an_error_comes_in_its_turn_and_ends_it() -> None:
    begun: list[int] = []

    def fetch(number: int) -> bytes:
        begun.append(number)
        if number == 5:
            raise HoldfastError("five")
        time.sleep(0.05 if number > 5 else 0)
        return b"x"

    results = ahead(fetch, range(100_000), jobs=3, limit_bytes=10**9, about=lambda _: 1)
    assert [next(results) for _ in range(5)] == [b"x"] * 5
    with pytest.raises(HoldfastError, match="five"):
        next(results)
    time.sleep(0.5)
    assert len(begun) <= 12  # those that were under way, and none of the many that waited


def test_work_apart_brings_its_answer_and_its_errors() -> None:
    program = """
import os
from holdfast.data.stream_apart import apart, has_used_buckets
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import DeniedError

class OwnForm(DeniedError):
    def __init__(self, number):
        super().__init__(f"number {number}", hint="count")

def ask():
    store = open_store("memory://")
    store.put("a", b"data")
    assert has_used_buckets()
    return os.getpid(), store.get("a")

pid, data = apart(ask)
assert data == b"data" and pid != os.getpid() and not has_used_buckets()

def fail(error):
    raise error

for error, kind in ((OwnForm(3), DeniedError), (OSError(2, "gone"), OSError)):
    try:
        apart(lambda: fail(error))
    except kind as found:
        assert type(found) in (DeniedError, FileNotFoundError), type(found)
        assert str(found) == str(error)
    else:
        raise AssertionError
try:
    apart(lambda: os._exit(9))
except Exception as found:
    assert "ended with 9" in str(found)
try:
    apart(lambda: lambda: None)
except Exception as found:
    assert "pickle" in str(found)
open_store("memory://").put("a", b"data")
assert apart(os.getpid) == os.getpid()  # there is nothing to spare any more
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
