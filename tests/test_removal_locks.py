"""One at a time in a bucket's quarantine, which has no locks of its own."""

import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from faults import FaultyStore, Rule
from holdfast.errors import LockedError
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectInfo, ObjectStore
from holdfast.removal import locks
from holdfast.removal.bucket import BucketPlace
from removal_world import BATCH, PLAN, planned

KEYS = [f"files/md5/{number:02x}/{'a' * 30}" for number in range(6)]
KEPT = "kept"


def filled(store: ObjectStore) -> ObjectStore:
    for key in (*KEYS, KEPT):
        store.put(key, key.encode())
    return store


def waiting(place: BucketPlace) -> list[str]:
    return [thing.key for batch in place.batches() for thing in batch.things]


@pytest.fixture
def memory() -> ObjectStore:
    return filled(open_store("memory://"))


HOLD = """
import sys
from holdfast.objectstore.opening import open_store
from holdfast.removal.locks import BucketLock, seconds_with_sleep
with BucketLock(open_store(sys.argv[1]), "quarantine/lock", seconds_with_sleep).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_only_one_at_a_time(tmp_path: Path) -> None:
    store = filled(open_store(str(tmp_path / "store")))
    place = BucketPlace(store, "quarantine")
    things = planned(place, KEYS)
    place.take(BATCH, PLAN, things[:1])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "store")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        for call in (lambda: place.take(BATCH, PLAN, things), lambda: place.restore(BATCH), lambda: place.purge(BATCH)):
            with pytest.raises(LockedError, match=f"in use by process {holder.pid} of .* since 20"):
                call()
        assert waiting(place) == KEYS[:1]
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    # this machine sees that the process is gone; another one, that a day has passed
    assert len(list(store.list_objects("quarantine/lock"))) == 1
    assert place.restore(BATCH).left == ()
    assert list(store.list_objects("quarantine")) == []


def test_of_many_at_most_one_holds(memory: ObjectStore) -> None:
    inside, most, held = [0], [0], [0]
    start = threading.Barrier(8)
    guard = threading.Lock()

    def work() -> None:
        start.wait()
        for _ in range(30):
            try:
                with locks.BucketLock(memory, "quarantine/lock", lambda: 0.0).held():
                    with guard:
                        inside[0] += 1
                        held[0] += 1
                        most[0] = max(most[0], inside[0])
                    memory.head(KEPT)
                    with guard:
                        inside[0] -= 1
            except LockedError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert held[0] > 0
    assert list(memory.list_objects("quarantine")) == []


def elsewhere(**said: Any) -> bytes:
    return json.dumps({"pid": 1, "host": "far", "machine": "another", "birth": "1"} | said).encode()


def test_an_announcement_of_another_machine_counts_for_a_day(memory: ObjectStore) -> None:
    class Later(FaultyStore):
        """A store whose clock is ahead for what is written from now on."""

        def head(self, key: str) -> ObjectInfo:
            info = super().head(key)
            return replace(info, modified=info.modified + ahead) if "lock" in key else info

    place = BucketPlace(Later(memory), "quarantine")
    for said in (elsewhere(), b"no JSON", b"[]", elsewhere(pid="x"), elsewhere(machine="") + b" " * 9000):
        memory.put("quarantine/lock/other", said)
        ahead = timedelta(hours=23)
        with pytest.raises(LockedError, match="in use by"):
            place.purge(BATCH)
        ahead = timedelta(hours=25)
        place.purge(BATCH)
        assert list(memory.list_objects("quarantine")) == []


def test_who_slept_too_long_deletes_nothing(memory: ObjectStore) -> None:
    """Taken for dead by another one, a process that goes on after a long sleep notices before it deletes."""
    now = [0.0]
    store = FaultyStore(memory, [Rule("delay", frozenset({"copy"}), at=len(KEYS))])

    def sleep() -> None:
        now[0] += locks.ENDED_AFTER.total_seconds() + 1
        memory.delete_many([info.key for info in memory.list_objects("quarantine/lock")])
        memory.put("quarantine/lock/other", elsewhere())

    store.wait = sleep
    place = BucketPlace(store, "quarantine", jobs=1, elapsed=lambda: now[0])
    things = planned(place, KEYS)
    with pytest.raises(LockedError, match="process 1 of far"):
        place.take(BATCH, PLAN, things)
    assert set(KEYS) | {"quarantine/lock/other"} <= {info.key for info in memory.list_objects()}


def test_who_comes_between_is_seen(memory: ObjectStore) -> None:
    """Another one takes the lock right before one announces oneself: only who lists after that can know."""
    with contextlib.ExitStack() as stack:

        def come() -> None:
            stack.enter_context(locks.BucketLock(memory, "quarantine/lock", lambda: 0.0).held())

        store = FaultyStore(memory, [Rule("delay", frozenset({"put"}), at=1)], come)
        with pytest.raises(LockedError), locks.BucketLock(store, "quarantine/lock", lambda: 0.0).held():
            pass
        assert len(list(memory.list_objects("quarantine"))) == 1
    assert list(memory.list_objects("quarantine")) == []
