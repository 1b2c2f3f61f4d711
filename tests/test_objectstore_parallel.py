"""Requests at the same time, and the helpers of the tests of stores themselves."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import WRITES, FaultyStore, Rule
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.parallel import concurrently, interruptibly
from holdfast.objectstore.store import UnreachableError

TESTS = Path(__file__).parent


@pytest.mark.parametrize("jobs", [1, 2, 8, 100])
def test_results_are_in_order(jobs: int) -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.01 if number == 0 else 0)
        return number * number

    assert list(concurrently(slow_first, range(100), jobs)) == [number * number for number in range(100)]
    assert list(concurrently(slow_first, [], jobs)) == []


def test_as_many_at_a_time_as_there_are_jobs() -> None:
    barrier = threading.Barrier(5)
    assert list(concurrently(lambda _: barrier.wait(30), range(10), 5))  # would never pass with fewer
    running: list[int] = []
    highest = 0

    def count(number: int) -> None:
        nonlocal highest
        running.append(number)
        highest = max(highest, len(running))
        time.sleep(0.005)
        running.remove(number)

    list(concurrently(count, range(40), 3))
    assert highest == 3


def test_items_are_taken_as_results_are() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = concurrently(lambda number: number, items(), 4)
    assert taken == []
    assert next(results) == 0
    assert len(taken) == 8
    assert [next(results) for _ in range(10)] == list(range(1, 11))
    assert len(taken) == 18
    results.close()  # type: ignore[attr-defined]
    assert len(taken) == 18


def test_the_first_failure_ends_it() -> None:
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number in (3, 5):
            raise ValueError(number)
        time.sleep(0.002)
        return number

    results = concurrently(work, range(10_000), 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    time.sleep(0.05)
    count = len(begun)
    assert count < 20
    time.sleep(0.05)
    assert len(begun) == count  # nothing goes on behind the back
    end = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if thread.name == "holdfast-store"]


def test_what_has_not_begun_when_nobody_wants_it_any_more_never_does() -> None:
    begun, go_on = [], threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number:
            go_on.wait(30)

    results = concurrently(work, range(100), 2)
    next(results)
    end = time.monotonic() + 10
    while len(begun) < 3 and time.monotonic() < end:
        time.sleep(0.001)
    results.close()  # type: ignore[attr-defined]
    go_on.set()
    end = time.monotonic() + 10
    while [thread for thread in threading.enumerate() if thread.name == "holdfast-store"] and time.monotonic() < end:
        time.sleep(0.001)
    assert sorted(begun) == [0, 1, 2]


def test_a_call_that_waits_for_ever_can_be_interrupted() -> None:
    assert interruptibly(lambda: 5) == 5
    with pytest.raises(KeyError):
        interruptibly(lambda: {}["x"])
    script = (
        # what a shell starts in the background ignores SIGINT, and so does all that is started by it
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import threading; from holdfast.objectstore.parallel import concurrently\n"
        "print('go', flush=True)\n"
        "list(concurrently(lambda _: threading.Event().wait(60), range(8), 4))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert time.monotonic() - start < 5


def test_a_store_that_goes_wrong() -> None:
    inner = FaultyStore(open_store("memory://"))
    waited = []
    store = FaultyStore(
        inner,
        [
            Rule("refuse", WRITES, at=1), Rule("lose", frozenset({"put_if_absent"}), at=1),
            Rule("duplicate", frozenset({"put"}), every=2), Rule("delay", frozenset({"head"}), key="slow"),
        ],
        wait=lambda: waited.append(1),
    )  # fmt: skip
    with pytest.raises(UnreachableError):
        store.put("a", b"1")
    assert inner.calls == []
    with pytest.raises(UnreachableError):
        store.put_if_absent("b", b"2")
    assert inner.get("b") == b"2"
    store.put("a", b"1")
    assert inner.calls.count(("put", "a")) == 2
    store.put("a", b"1")
    assert inner.calls.count(("put", "a")) == 3
    store.put("slow/x", b"")
    store.head("a")
    assert waited == []
    store.head("slow/x")
    assert waited == [1]
    reads = FaultyStore(inner, [Rule("truncate", frozenset({"get", "list_objects"}), every=2)])
    assert (reads.get("b"), reads.get("b")) == (b"2", b"")
    assert FaultyStore(inner, [Rule("flip")]).get("b") == b"3"
    assert bytes(FaultyStore(inner, [Rule("flip")]).get_ranges("b", [(0, 1), (0, 1)])[1]) == b"3"
    assert len(list(reads.list_objects())) == 3
    listing = reads.list_objects()
    assert [next(listing).key, next(listing).key] == ["a", "b"]
    with pytest.raises(UnreachableError):
        next(listing)
    assert [verb for verb, _ in reads.calls] == ["get", "get", "list_objects", "list_objects"]


def test_the_server_ends_with_its_last_client_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import json, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from servers import shared_server\n"
        "with shared_server(Path(sys.argv[2])) as server:\n"
        "    print((Path(sys.argv[2]) / 'state.json').read_text(), flush=True)\n"
        "    time.sleep(60)"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", script, str(TESTS), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    states = [client.stdout.readline() if client.stdout else "" for client in clients]
    assert states[0] == states[1]  # one server for both
    server = int(states[0].partition('"server": ')[2].partition(",")[0])
    supervisor = int(states[0].partition('"supervisor": ')[2].partition("}")[0])
    clients[0].kill()
    clients[0].communicate()
    time.sleep(1)
    assert os.path.exists(f"/proc/{server}")  # noqa: PTH110
    clients[1].kill()
    clients[1].communicate()
    end = time.monotonic() + 20
    while time.monotonic() < end and (Path(f"/proc/{server}").exists() or Path(f"/proc/{supervisor}").exists()):
        time.sleep(0.1)
    assert not Path(f"/proc/{server}").exists()
    assert not (tmp_path / "state.json").exists()
