"""Collectors that copy: whom another one waits for, whom it gives up, and what becomes of that one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from faults import FaultyStore, Rule
from gc_world import age
from holdfast.errors import HoldfastError
from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import Data, ObjectStore
from holdfast.removal.holders import this_process
from holdfast.vault.collecting import Settled, purge, revive, settle
from holdfast.vault.collection import collect, plan_collection
from holdfast.vault.copying import copying
from holdfast.vault.repository import init_vault, open_vault
from holdfast.vault.segment import CONDEMNED, INDEX, SESSIONS
from holdfast.vault.session import RevokedError
from vault_servers import until
from vaults import SMALL_BLOCK, SMALL_PACK, all_is_well, bf16_history, keys, noise, oid_of, put_all, read_all

NONE, DAY = timedelta(0), timedelta(days=1)
KEPT, GONE = noise(200_000, 1), noise(30_000, 2)
NAME = "5e" * 16


@dataclass(frozen=True)
class Place:
    """A vault in a folder, which is as old as a test says."""

    folder: Path

    @property
    def store(self) -> ObjectStore:
        return open_store(str(self.folder))

    def age(self) -> None:
        age(self.folder.rglob("*"))

    def collect(self, *live: bytes, store: ObjectStore | None = None, **more: timedelta) -> Settled:
        """Let go of all but these files, whose claims are old."""
        with open_vault(store or self.store, None, jobs=1) as vault:
            names = {oid_of(data) for data in live}
            plan = plan_collection(vault, names, recent=NONE, grace=more.get("grace", DAY))
            return collect(vault, plan, lambda: names, recent=NONE, **more).settled

    def settle(self, *live: bytes, store: ObjectStore | None = None, **more: timedelta) -> Settled:
        """Bring on what was condemned."""
        with open_vault(store or self.store, None, jobs=1) as vault:
            return settle(vault, lambda: {oid_of(data) for data in live}, recent=NONE, **more)

    def announce(self, said: bytes, minutes: float) -> None:
        """A session that was announced so long ago."""
        self.store.put(f"{SESSIONS}/{NAME}", said)
        age([self.folder / SESSIONS / NAME], minutes / 1440)

    def purge(self) -> None:
        with open_vault(self.store, None, jobs=1) as vault:
            purge(vault, older_than=NONE)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A file that is needed and one that is not, of which a pack has parts of both, pushed long ago."""
    made = Place(tmp_path / "vault")
    with init_vault(made.store, None, block_bytes=SMALL_BLOCK, pack_bytes=4 * SMALL_PACK, jobs=1) as vault:
        put_all(vault, [KEPT, GONE])
    made.age()
    return made


# --- the announcement ---------------------------------------------------------------------------------------------


def test_it_is_announced_until_it_ends(place: Place) -> None:
    store = FaultyStore(place.store, [Rule("refuse", frozenset({"put"}), every=3)])
    with copying(store, 0.01) as session:
        until(lambda: store.calls.count(("put", f"{SESSIONS}/{session}")) > 7)
        assert keys(place.store, SESSIONS) == [f"{SESSIONS}/{session}"]
        assert json.loads(place.store.get(f"{SESSIONS}/{session}")) == {
            "collector": this_process().as_json(),
            "session": session,
        }
    assert keys(place.store, SESSIONS) == []
    assert store.calls[-1] == ("delete", f"{SESSIONS}/{session}")
    assert "holdfast-copying" not in {thread.name for thread in threading.enumerate()}


def test_it_is_not_announced_after_its_end(place: Place) -> None:
    begun, store = threading.Event(), FaultyStore(place.store, [Rule("delay", frozenset({"put"}), at=2)])
    store.wait = lambda: (begun.set(), time.sleep(0.5))[1]
    with copying(store, 0.01):
        assert begun.wait(20)
    assert keys(place.store, SESSIONS) == []
    time.sleep(0.6)
    assert keys(place.store, SESSIONS) == []


def test_it_ends_with_what_it_is_for(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt), copying(place.store):
        raise KeyboardInterrupt
    assert keys(place.store, SESSIONS) == []
    refused = FaultyStore(place.store, [Rule("lose", frozenset({"put"}))])
    with pytest.raises(HoldfastError), copying(refused):
        pytest.fail("it was not announced")
    assert keys(place.store, SESSIONS) == []
    with copying(FaultyStore(place.store, [Rule("refuse", frozenset({"delete"}))])) as session:
        pass
    assert keys(place.store, SESSIONS) == [f"{SESSIONS}/{session}"]


# --- whom one waits for -------------------------------------------------------------------------------------------


def push() -> bytes:
    return NAME.encode()


def told(**other: object) -> bytes:
    return json.dumps({"collector": this_process().as_json() | other, "session": NAME}).encode()


def killed(*, reaped: bool) -> bytes:
    """Of a collector that was killed; one that nobody waited for is in the list of processes still."""
    script = (
        "import json, sys; from holdfast.removal.holders import this_process as p; print(json.dumps(p().as_json()))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script}; sys.stdout.flush(); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    if reaped:
        process.wait()
    process.stdin.close()
    process.stdout.close()
    LEFT.append(process)
    return told(**said)


LEFT: list["subprocess.Popen[bytes]"] = []


@pytest.fixture(autouse=True)
def ended() -> object:
    yield
    while LEFT:
        LEFT.pop().wait()


@pytest.mark.parametrize(
    ("said", "minutes", "grace", "collecting"),
    [
        pytest.param(push, 1439, DAY, False, id="a push of today"),
        pytest.param(push, 4, timedelta(minutes=5), False, id="a push within a short grace"),
        pytest.param(told, 9, DAY, True, id="this process"),
        pytest.param(lambda: told(machine="another"), 9, DAY, True, id="a process of another machine"),
        pytest.param(lambda: told(machine="", birth="7"), 9, DAY, True, id="a process of who knows where"),
        pytest.param(lambda: told(machine="another", birth=""), 9, DAY, True, id="a process without a birth"),
        pytest.param(lambda: told(pid="1"), 1000, DAY, False, id="a number that is none"),
        pytest.param(lambda: told(birth=7), 1000, DAY, False, id="a birth that is none"),
        pytest.param(lambda: b'{"session": "%s" }' % push(), 1000, DAY, False, id="nobody"),
        pytest.param(lambda: b'{"collector": ["%s"]}' % push(), 1000, DAY, False, id="a list"),
        pytest.param(lambda: b"[" * 4000, 1000, DAY, False, id="a deep one"),
        pytest.param(lambda: b"\xff" * 40, 1000, DAY, False, id="no text"),
        pytest.param(lambda: told(more="." * 5000), 1000, DAY, False, id="a long one"),
    ],
)
def test_who_may_live_is_waited_for(
    place: Place, said: Callable[[], bytes], minutes: float, grace: timedelta, collecting: bool
) -> None:
    place.announce(said(), minutes)
    done = place.collect(KEPT, grace=grace)
    assert [(one.session, one.collecting) for one in done.waiting] == [(NAME, collecting)]
    assert abs(done.waiting[0].age - timedelta(minutes=minutes)) < timedelta(minutes=0.5)
    assert f"{INDEX}/{NAME}" not in keys(place.store, INDEX)
    assert keys(place.store, SESSIONS) == [f"{SESSIONS}/{NAME}"]
    place.store.delete(f"{SESSIONS}/{NAME}")
    assert place.settle(KEPT).generations
    place.purge()
    all_is_well(place.store, [KEPT])


@pytest.mark.parametrize(
    ("said", "minutes", "grace"),
    [
        pytest.param(push, 1441, DAY, id="a push of yesterday"),
        pytest.param(push, 6, timedelta(minutes=5), id="a push after a short grace"),
        pytest.param(push, 0, NONE, id="a push without a grace"),
        pytest.param(told, 11, DAY, id="a collector that was not announced again"),
        pytest.param(told, 6, timedelta(minutes=5), id="a collector after a short grace"),
        pytest.param(lambda: told(machine="another"), 11, DAY, id="one of another machine"),
        pytest.param(lambda: told(birth="7"), 0, DAY, id="one whose number another process has"),
        pytest.param(lambda: killed(reaped=True), 0, DAY, id="one that was killed"),
        pytest.param(lambda: killed(reaped=False), 0, DAY, id="one that was killed and not reaped"),
    ],
)
def test_who_has_ended_is_not(place: Place, said: Callable[[], bytes], minutes: float, grace: timedelta) -> None:
    place.announce(said(), minutes)
    done = place.collect(KEPT, grace=grace)
    assert (done.waiting, len(done.generations)) == ((), 1)
    assert place.store.get(f"{INDEX}/{NAME}") == b""
    assert keys(place.store, SESSIONS) == []
    place.purge()
    all_is_well(place.store, [KEPT])


def test_what_was_decided_is_forgotten_and_its_packs_go(place: Place) -> None:
    """A collector revoked a push, and was killed before it took the announcement away."""
    with open_vault(place.store, None, jobs=1) as vault, vault.session() as session:
        session.put(oid_of(b"late" * 1000), MemorySource(b"late" * 1000))
        place.store.put(f"{INDEX}/{session.id}", b"")
        with pytest.raises(RevokedError):
            session.commit()
    assert [key for key in keys(place.store, "packs") if key.endswith(session.id)]
    place.store.put(f"{SESSIONS}/{session.id}", session.id.encode())
    place.age()
    assert place.collect(KEPT).waiting == ()
    assert keys(place.store, SESSIONS) == []
    # its packs belong to nobody from here on
    place.collect(KEPT)
    place.purge()
    assert not [key for key in keys(place.store, "packs") if key.endswith(session.id)]
    all_is_well(place.store, [KEPT])


# --- who is given up ----------------------------------------------------------------------------------------------


def revoking(store: ObjectStore) -> None:
    """What a collector does to the others."""
    for key in keys(store, SESSIONS):
        store.put_if_absent(key.replace(SESSIONS, INDEX), b"")
        store.delete(key)


def at_the_commit(store: ObjectStore, act: Callable[[], None], **when: int) -> FaultyStore:
    return FaultyStore(store, [Rule("delay", frozenset({"put_if_absent"}), key=INDEX, **when)], wait=act)


def announced(store: FaultyStore) -> int:
    return sum(verb == "put" and key.startswith(SESSIONS) for verb, key in store.calls)


def test_who_is_taken_for_dead_starts_again(place: Place) -> None:
    store = at_the_commit(place.store, lambda: revoking(place.store), at=1)
    done = place.collect(KEPT, store=store)
    assert (done.waiting, len(done.generations)) == ((), 1)
    assert announced(store) == 2
    assert keys(place.store, SESSIONS) == []
    place.purge()
    with open_vault(place.store, None, jobs=1) as vault:
        read_all(vault, [KEPT])


def test_who_is_taken_for_dead_again_gives_up(place: Place) -> None:
    """Two that wait for nobody do not revoke one another for ever."""
    store = at_the_commit(place.store, lambda: revoking(place.store))
    with pytest.raises(RevokedError, match="Run the command again"):
        place.collect(KEPT, store=store)
    assert announced(store) == 2
    assert keys(place.store, SESSIONS) == []
    assert place.settle(KEPT).generations
    place.purge()
    with open_vault(place.store, None, jobs=1) as vault:
        read_all(vault, [KEPT])


def test_who_is_taken_for_dead_finds_all_done(place: Place) -> None:
    """Another one has copied, and purged, while this one stood still in the middle of reading."""

    def overtake() -> None:
        revoking(place.store)
        assert place.settle(KEPT).generations
        place.purge()

    store = FaultyStore(place.store, [Rule("delay", frozenset({"get_ranges"}), at=1)], wait=overtake)
    assert place.collect(KEPT, store=store) == Settled((), (), 0)
    assert keys(place.store, SESSIONS) == keys(place.store, CONDEMNED) == []
    all_is_well(place.store, [KEPT])


def test_damage_is_told_all_the_same(place: Place) -> None:
    for pack in keys(place.store, "packs"):
        data = bytearray(place.store.get(pack))
        data[100] ^= 1
        place.store.put(pack, bytes(data))
    with pytest.raises(HoldfastError) as caught:
        place.collect(KEPT)
    assert not isinstance(caught.value, RevokedError)
    assert keys(place.store, SESSIONS) == []


class Deaf(FaultyStore):
    """A store whose first answer to each creation is lost, and which is asked again."""

    def put_if_absent(self, key: str, data: Data) -> bool:
        super().put_if_absent(key, data)
        return super().put_if_absent(key, data)


def test_a_commit_whose_answer_was_lost_counts(place: Place) -> None:
    store = Deaf(place.store)
    done = place.collect(KEPT, store=store)
    assert len(done.generations) == 1
    assert announced(store) == 1
    place.purge()
    all_is_well(place.store, [KEPT])


# --- collectors at once -------------------------------------------------------------------------------------------


MOMENTS = pytest.mark.parametrize("moment", [SESSIONS, "packs"], ids=["before it looks", "while it copies"])


def overtaken(place: Place, moment: str) -> tuple[FaultyStore, list[Settled]]:
    """A store before whose first call of a kind another collector lets go of all there is; what that one says."""
    seen: list[Settled] = []
    rule = Rule("delay", frozenset({"put"}), at=1, key=moment)
    return FaultyStore(place.store, [rule], wait=lambda: seen.append(place.collect())), seen


@MOMENTS
def test_what_a_collector_builds_upon_stays(place: Place, moment: str) -> None:
    """Another one condemns packs that this one leaves in place, and gives another segment."""
    store, seen = overtaken(place, moment)
    assert place.collect(KEPT, store=store).generations
    assert [one.collecting for one in seen[0].waiting] == ([True] if moment == "packs" else [])
    place.settle()
    place.purge()
    # who is told that it is there reads it
    with open_vault(place.store, None, jobs=1) as vault:
        put_all(vault, [KEPT])
    all_is_well(place.store, [KEPT])


@MOMENTS
def test_what_a_restore_builds_upon_stays(tmp_path: Path, moment: str) -> None:
    """Another collector condemns the base of what comes back: it is copied as well, or waits for the restore."""
    place = Place(tmp_path / "vault")
    old, new = bf16_history(2)
    with init_vault(place.store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, jobs=1) as vault:
        for number, data in enumerate((old, new)):
            with vault.session() as session:
                session.put(oid_of(data), MemorySource(data), base_oid=oid_of(old) if number else None)
                session.commit()
    place.age()
    assert place.collect(old).generations
    store, seen = overtaken(place, moment)
    with open_vault(store, None, jobs=1) as vault:
        assert revive(vault, [oid_of(new)], recent=NONE) > 0
    assert [one.collecting for one in seen[0].waiting] == ([True] if moment == "packs" else [])
    place.settle(new)
    place.purge()
    all_is_well(place.store, [new])
