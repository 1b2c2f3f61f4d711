"""Two clones and a vault: what the other one needs stays; pushes under way are waited for; killed and stopped processes."""

import json
import math
import random
import secrets
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

import gc_world
from forks import ForkedWorld, Forks
from gc_world import NO_AGE, add_remote, age, forked, make_vault, oid_of, vault_is_clean
from holdfast.cli.naming import open_objects
from holdfast.objectstore.store import ObjectStore
from holdfast.vault.repository import open_vault
from holdfast.vault.segment import CONDEMNED, INDEX, READY_SUFFIX, SESSIONS
from vault_servers import until
from worlds import TOOLS, World, environment, run

isolated, forks = gc_world.isolated, gc_world.forks

APPLY = ("gc", "apply", "../plan.json", "--allow-last-copy")
# what happens to the push and to the collection; later ones are drawn by lot
ACTS = (("stop", "let be"), ("kill", "kill"), ("let be", "stop"))
EVERY_ACT = ("kill", "kill", "stop", "let be")
FILE_BYTES = 300_000
# what a test that fails leaves behind
STARTED: list["subprocess.Popen[bytes]"] = []


@dataclass
class Clones:
    """Two clones with a common vault, which is a folder.

    Args:
        first: the one whose collections are watched.
        second: the other one.
        store: the DVC remote beside whose objects the vault lies.
        needed: per clone, what its files of today are to read.
    """

    first: ForkedWorld
    second: ForkedWorld
    store: Path
    needed: dict[str, bytes] = field(default_factory=dict)

    @property
    def vault(self) -> Path:
        return self.store / "vault"

    def put(self, world: World, name: str, data: bytes) -> str:
        """A file that the workspace of a clone names from now on; the one before is named by nothing."""
        oid = oid_of(data)
        path = world.cache / "files/md5" / oid[:2] / oid[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
            path.chmod(0o444)
        world.write(f"{name}.dvc", f"outs:\n- md5: {oid}\n  size: {len(data)}\n  hash: md5\n  path: {name}\n")
        self.needed[f"{world.root.name}/{name}"] = data
        return oid

    def forget(self, world: World, name: str) -> None:
        """The workspace of a clone does not name a file any more."""
        (world.folder / f"{name}.dvc").unlink()
        del self.needed[f"{world.root.name}/{name}"]

    def push_versions(self, count: int) -> None:
        """Versions of a file, of which the last one is needed."""
        for number in range(count):
            self.put(self.first, "a.bin", f"version {number} ".encode() * 500)
            self.first.holdfast("push")
        self.old()

    def push_parts(self, number: int) -> None:
        """Two files of the first clone in one pack, of which one is needed until the next push and one longer."""
        chance = random.Random(f"parts {number}")
        for name in ("a.bin", f"part{number % 2}.bin"):
            self.put(self.first, name, chance.randbytes(FILE_BYTES))
        self.first.holdfast("push")

    def old(self) -> None:
        """All that lies in the vault was written, and claimed, long ago."""
        age(self.vault.rglob("*"))

    def read_all(self) -> None:
        """All that both clones need reads back, and the vault is clean."""
        with open_vault(open_objects(str(self.vault)), None, jobs=2) as vault:
            for name, data in self.needed.items():
                out = self.store.parent / "out"
                with out.open("wb") as stream:
                    vault.get(f"md5:{oid_of(data)}", stream)
                assert out.read_bytes() == data, name
        vault_is_clean(str(self.vault))


@pytest.fixture
def clones(tmp_path: Path, forks: Forks) -> Iterator[Clones]:
    first = forked(tmp_path, forks)
    store = tmp_path / "store"
    store.mkdir()
    add_remote(first, "storage", str(store), default=True)
    first.write("holdfast.yaml", NO_AGE)
    first.commit("set up")
    run(["git", "clone", "-q", str(first.root), str(tmp_path / "second")], tmp_path, first.home)
    second = ForkedWorld(tmp_path / "second", first.home, forks=forks)
    second.git("remote", "remove", "origin")
    make_vault(store / "vault")
    yield Clones(first, second, store)
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
        if process.stderr is not None:
            process.stderr.close()
        process.wait()


def make_plan(world: World) -> None:
    world.holdfast("gc", "plan", "--scope", "vault", "-o", "../plan.json")


def collect(world: World, *options: str, code: int = 0) -> str:
    """Plan and apply for the vault; what was said."""
    make_plan(world)
    done = world.holdfast(*APPLY, *options, code=code)
    return done.stdout + done.stderr


def test_what_another_clone_pushed_stays_until_it_is_forgotten(clones: Clones) -> None:
    clones.put(clones.first, "a.bin", b"a" * 5000)
    clones.first.holdfast("push")
    clones.put(clones.second, "b.bin", b"b" * 5000)
    clones.second.holdfast("push")
    clones.old()
    listed = json.loads(clones.first.holdfast("gc", "roots", "list", "--json").stdout)["clones"]
    assert {(one["name"], one["files"], one["own"]) for one in listed} == {
        ("repository", 1, True),
        ("second", 1, False),
    }
    text = clones.first.holdfast("gc", "roots", "list").stdout
    assert "repository (this one)" in text
    explained = clones.first.holdfast("gc", "plan", "--scope", "vault", "--explain", oid_of(b"b" * 5000)).stdout
    assert "stays, the clone second needs it" in explained
    assert "There was nothing to do." in collect(clones.first)
    other = next(one["clone"] for one in listed if not one["own"])
    assert "names no clone" in clones.first.holdfast("gc", "roots", "forget", "abcdef", code=2).stderr
    assert "names no clone" in clones.first.holdfast("gc", "roots", "forget", other[:5], code=2).stderr
    clones.first.holdfast("gc", "roots", "forget", other[:6])
    assert "1 file let go" in collect(clones.first)
    # it comes back when the clone says again what it needs, before the purge
    clones.second.holdfast("gc", "roots", "register")
    assert "came back" in clones.first.holdfast("gc", "purge", "-y").stdout
    clones.read_all()


def test_what_a_clone_does_not_need_any_more_goes(clones: Clones) -> None:
    for number in range(3):
        clones.put(clones.second, "b.bin", f"version {number} ".encode() * 500)
        clones.second.holdfast("push")
    clones.old()
    # a push says what the clone needs, and what it sent besides
    listed = json.loads(clones.first.holdfast("gc", "roots", "list", "--json").stdout)["clones"]
    assert [one["files"] for one in listed] == [1]
    assert "2 files let go" in collect(clones.first)
    clones.read_all()
    assert "Deleted 2 objects" in clones.first.holdfast("gc", "purge", "-y").stdout
    clones.read_all()


def test_a_plain_remote_is_shared_as_well(clones: Clones) -> None:
    oid = clones.put(clones.second, "b.bin", b"of the second")
    target = clones.store / "files/md5" / oid[:2] / oid[2:]
    target.parent.mkdir(parents=True)
    target.write_bytes(b"of the second")
    assert "1 of 1 object" in clones.first.holdfast("gc", "plan", "--scope", "remote").stdout
    said = clones.second.holdfast("gc", "roots", "register", "-r", "storage").stdout
    assert said.startswith("This clone needs 1 object of ")
    assert "another clone needs it" in clones.first.holdfast("gc", "plan", "--scope", "remote", "--only", "kept").stdout
    # DVC takes what Holdfast keeps beside the objects for none
    assert (
        json.loads(clones.first.holdfast("gc", "plan", "--scope", "remote", "--json").stdout)["totals"][0]["objects"]
        == 1
    )


def test_a_registered_folder_keeps_its_members(clones: Clones) -> None:
    """A clone that lacks the listing of a folder names the folder alone."""
    second = clones.second
    folder = second.store_folder({"x": "member x", "y": "member y"})
    second.write("images.dvc", f"outs:\n- md5: {folder}\n  size: 16\n  nfiles: 2\n  hash: md5\n  path: images\n")
    second.holdfast("push")
    (second.cache / "files/md5" / folder[:2] / folder[2:]).unlink()
    second.holdfast("gc", "roots", "register")
    clones.old()
    assert "There was nothing to do." in collect(clones.first)
    plan = json.loads(clones.first.holdfast("gc", "plan", "--scope", "vault", "--json").stdout)
    assert {entry["why"] for entry in plan["objects"]} == {"the clone second needs it"}


def test_a_push_under_way_is_waited_for(clones: Clones) -> None:
    clones.push_versions(2)
    store = open_objects(str(clones.vault))
    session = f"{SESSIONS}/{secrets.token_hex(16)}"
    store.put(session, b"")
    make_plan(clones.first)
    collector = start(clones.first, *APPLY, "--wait", "10m")
    until(lambda: list(store.list_objects(CONDEMNED)), seconds=120)
    time.sleep(1.5)
    assert collector.poll() is None
    assert not any(info.key.endswith(READY_SUFFIX) for info in store.list_objects(CONDEMNED))
    store.delete(session)
    ended(collector, (0,))
    assert any(info.key.endswith(READY_SUFFIX) for info in store.list_objects(CONDEMNED))
    clones.read_all()


def test_a_push_under_way_ends_the_command_with_3(clones: Clones) -> None:
    clones.push_versions(2)
    store = open_objects(str(clones.vault))
    session = secrets.token_hex(16)
    store.put(f"{SESSIONS}/{session}", b"")
    told = collect(clones.first, "--wait", "0s", code=3)
    assert "1 push under way must end before what was let go is copied or deleted" in told
    assert "Later: `holdfast gc purge`" in told
    assert "--grace 0" in told
    clones.read_all()
    assert "under way" in clones.first.holdfast("gc", "purge", "-y", "--wait", "0s", code=3).stderr
    assert "Deleted 1 object" in clones.first.holdfast("gc", "purge", "-y", "--grace", "0").stdout
    # it was given up for good: a late commit fails
    assert store.get(f"index/{session}") == b""
    clones.read_all()


# --- processes that are killed and stopped ------------------------------------------------------------------------


def start(world: World, *arguments: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [str(TOOLS / "holdfast"), *arguments],
        cwd=world.folder,
        env=environment(world.home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    STARTED.append(process)
    return process


def halt(process: "subprocess.Popen[bytes]") -> bool:
    """Stop a process; whether it was there to be stopped."""
    process.send_signal(signal.SIGSTOP)
    status = Path(f"/proc/{process.pid}/stat")
    until(lambda: process.poll() is not None or status.read_text().rpartition(")")[2].split()[0] == "T")
    return process.poll() is None


def kill(process: "subprocess.Popen[bytes]") -> bool:
    """End a process as by `kill -9`; whether it was there to be ended."""
    process.kill()
    return process.wait() == -signal.SIGKILL


def ended(process: "subprocess.Popen[bytes]", allowed: tuple[int, ...]) -> None:
    """It ends as it may; asked again it has."""
    if process.returncode is not None and process.stderr is not None and process.stderr.closed:
        return
    _, told = process.communicate(timeout=240)
    assert process.returncode in (*allowed, -signal.SIGKILL), told.decode()
    assert b"unexpected" not in told, told.decode()


@dataclass
class Strikes:
    """Kills and stops of commands that change the vault, somewhere between the first and the last change.

    Attributes:
        signs: by the kind of a command what is there while it changes the vault: a pattern of a folder.
        seconds: how long that takes; what is struck too late makes the next strikes earlier, what is not makes them
            later.
        hit: how many were killed and stopped.
        missed: how many had ended before.
    """

    signs: dict[str, tuple[Path, str]]
    seconds: dict[str, float] = field(default_factory=dict)
    hit: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)

    def watch(self, kind: str, process: "subprocess.Popen[bytes]") -> None:
        """See how long one takes to which nothing happens."""
        self.await_work(kind, process)
        begun = time.monotonic()
        ended(process, (0,))
        self.seconds[kind] = time.monotonic() - begun

    def await_work(self, kind: str, process: "subprocess.Popen[bytes]") -> None:
        """Wait until one has begun, or ended."""
        until(lambda: self._begun(kind) or process.poll() is not None, seconds=120)

    def strike(
        self, chance: random.Random, *planned: tuple[str, "subprocess.Popen[bytes]", str]
    ) -> list["subprocess.Popen[bytes]"]:
        """Do to processes what is planned for them; those that stand still."""
        waiting = {kind: (process, act, chance.random()) for kind, process, act in planned if act != "let be"}
        due: dict[str, float] = {}
        halted = []
        while waiting:
            for kind, (process, act, share) in list(waiting.items()):
                if kind not in due and self._begun(kind):
                    due[kind] = time.monotonic() + share * self.seconds[kind]
                if process.poll() is None and time.monotonic() < due.get(kind, math.inf):
                    continue
                there = kill(process) if act == "kill" else halt(process)
                (self.hit if there else self.missed)[f"{kind}: {act}"] += 1
                if kind in due:
                    self.seconds[kind] *= 1.1 if there else 0.8
                if there and act == "stop":
                    halted.append(process)
                del waiting[kind]
            time.sleep(0.001)
        return halted

    def _begun(self, kind: str) -> bool:
        folder, pattern = self.signs[kind]
        return any(folder.glob(pattern))


@pytest.mark.parametrize(
    ("runs", "hits"), [pytest.param(3, 8, id="some"), pytest.param(50, 60, marks=pytest.mark.soak, id="all")]
)
def test_pushers_and_collectors_that_are_killed_and_stopped(clones: Clones, runs: int, hits: int) -> None:
    first, second = clones.first, clones.second
    state = Path(".dvc/tmp/holdfast")
    strikes = Strikes(
        {
            "collector": (first.folder / state, "collecting.json"),
            "push": (second.folder / state, "vaults/*/sessions/*.lock"),
        }
    )
    clones.push_parts(0)
    clones.push_parts(1)
    clones.old()
    make_plan(first)
    strikes.watch("collector", start(first, *APPLY))
    clones.put(second, "b.bin", b"b" * FILE_BYTES)
    strikes.watch("push", start(second, "push"))
    for number in count():
        if number >= runs and strikes.hit.total() >= hits:
            break
        assert number < 2 * (runs + hits), strikes
        chance = random.Random(number)
        clones.push_parts(number + 2)
        clones.put(second, "b.bin", chance.randbytes(FILE_BYTES) if number % 3 else clones.needed["repository/a.bin"])
        clones.old()
        make_plan(first)
        acts = ACTS[number] if number < len(ACTS) else (chance.choice(EVERY_ACT), chance.choice(EVERY_ACT))
        collector = start(first, *APPLY, "--grace", "0")
        if number % 2:  # else a push may end before the collection has looked, which then refuses its plan
            strikes.await_work("collector", collector)
        pusher = start(second, "push")
        halted = strikes.strike(chance, ("push", pusher, acts[0]), ("collector", collector, acts[1]))
        if pusher in halted:
            # across a whole collection, which gives it up
            collector.send_signal(signal.SIGCONT)
            ended(collector, (0, 1, 3, 11, 14))
            make_plan(first)
            first.holdfast(*APPLY, "--grace", "0")
            first.holdfast("gc", "purge", "--yes", "--grace", "0", "--offline")
            pusher.send_signal(signal.SIGCONT)
        elif collector in halted:
            ended(pusher, (0, 1, 3))
            second.holdfast("push")
            collector.send_signal(signal.SIGCONT)
        ended(pusher, (0, 1, 3))
        ended(collector, (0, 1, 3, 11, 14))
        # who was acknowledged anything finds it; who was not pushes again
        if pusher.returncode != 0:
            second.holdfast("push")
        clones.read_all()
        # nobody is left who has to be waited for
        make_plan(first)
        first.holdfast(*APPLY, "--wait", "0s")
        first.holdfast("gc", "purge", "--yes", "--wait", "0s", "--offline")
        clones.read_all()
    told = ", ".join(f"{what} {times}" for what, times in sorted(strikes.hit.items()))
    print(f"{number} runs: {told}; {strikes.missed.total()} had ended before")


# --- collectors that end, or stand still, while they copy ----------------------------------------------------------


def stopped_while_it_copies(clones: Clones) -> tuple["subprocess.Popen[bytes]", ObjectStore, str]:
    """A collector that stands still between its announcement and its commit, and its session."""
    clones.put(clones.first, "kept.bin", random.Random(0).randbytes(24_000_000))
    clones.put(clones.first, "gone.bin", random.Random(1).randbytes(3_000_000))
    clones.first.holdfast("push")
    clones.forget(clones.first, "gone.bin")
    clones.old()
    make_plan(clones.first)
    store = open_objects(str(clones.vault))
    collector = start(clones.first, *APPLY)
    until(lambda: list(store.list_objects(SESSIONS)) or collector.poll() is not None, seconds=120)
    assert halt(collector)
    (session,) = [info.key.removeprefix(f"{SESSIONS}/") for info in store.list_objects(SESSIONS)]
    assert f"{INDEX}/{session}" not in [info.key for info in store.list_objects(INDEX)]
    return collector, store, session


def test_a_collector_that_was_killed_while_it_copied_is_not_waited_for(clones: Clones) -> None:
    collector, store, session = stopped_while_it_copies(clones)
    assert kill(collector)
    # the one that was interrupted, at once
    told = clones.first.holdfast("gc", "apply", "--allow-last-copy", "--wait", "0s").stdout
    assert "24.0 MB are stored anew" in told
    assert store.get(f"{INDEX}/{session}") == b""
    assert not list(store.list_objects(SESSIONS))
    clones.read_all()
    assert "Deleted 1 object" in clones.first.holdfast("gc", "purge", "-y", "--wait", "0s").stdout
    clones.read_all()


def test_a_collector_that_is_slow_is_waited_for(clones: Clones) -> None:
    collector, store, session = stopped_while_it_copies(clones)
    told = clones.second.holdfast("gc", "purge", "-y", "--wait", "0s", code=3).stderr
    assert "under way" in told
    collector.send_signal(signal.SIGCONT)
    ended(collector, (0,))
    assert store.get(f"{INDEX}/{session}")
    clones.read_all()


def test_a_slow_collector_that_was_given_up_finds_all_done(clones: Clones) -> None:
    collector, store, session = stopped_while_it_copies(clones)
    clones.second.holdfast("gc", "purge", "-y", "--grace", "0")
    assert store.get(f"{INDEX}/{session}") == b""
    clones.read_all()
    collector.send_signal(signal.SIGCONT)
    ended(collector, (0,))
    clones.read_all()
