"""Two clones and a vault: what the other one needs stays; pushes under way are waited for; killed and stopped processes."""

import json
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forks import ForkedWorld, Forks
from gc_world import NO_AGE, add_remote, age, make_vault, oid_of, vault_is_clean
from holdfast.cli.naming import open_objects
from holdfast.vault.repository import open_vault
from holdfast.vault.segment import CONDEMNED, READY_SUFFIX, SESSIONS
from vault_servers import until
from worlds import TOOLS, World, environment, make_repository, run

RUNS, SOAK_RUNS = 3, 50
# what happens to the push and to the collection; later ones are drawn by lot
ACTS = (("stop", "let be"), ("kill", "kill"), ("let be", "stop"))
EVERY_ACT = ("kill", "kill", "stop", "let be")
FILE_BYTES = 300_000
# what a test that fails leaves behind
STARTED: list["subprocess.Popen[bytes]"] = []


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


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
    made = make_repository(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    add_remote(made, "storage", str(store), default=True)
    made.write("holdfast.yaml", NO_AGE)
    made.commit("set up")
    run(["git", "clone", "-q", str(made.root), str(tmp_path / "second")], tmp_path, made.home)
    second = ForkedWorld(tmp_path / "second", made.home, forks=forks)
    second.git("remote", "remove", "origin")
    make_vault(store / "vault")
    yield Clones(ForkedWorld(made.root, made.home, forks=forks), second, store)
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
        if process.stderr is not None:
            process.stderr.close()
        process.wait()


def collect(world: World, *options: str, code: int = 0) -> str:
    """Plan and apply for the vault; what was said."""
    world.holdfast("gc", "plan", "--scope", "vault", "-o", "../plan.json")
    done = world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy", *options, code=code)
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
    for number in range(2):
        clones.put(clones.first, "a.bin", f"version {number} ".encode() * 500)
        clones.first.holdfast("push")
    clones.old()
    store = open_objects(str(clones.vault))
    session = f"{SESSIONS}/{secrets.token_hex(16)}"
    store.put(session, b"")
    clones.first.holdfast("gc", "plan", "--scope", "vault", "-o", "../plan.json")
    collector = start(clones.first, "gc", "apply", "../plan.json", "--allow-last-copy", "--wait", "10m")
    until(lambda: list(store.list_objects(CONDEMNED)), seconds=120)
    time.sleep(1.5)
    assert collector.poll() is None
    assert not any(info.key.endswith(READY_SUFFIX) for info in store.list_objects(CONDEMNED))
    store.delete(session)
    ended(collector, (0,))
    assert any(info.key.endswith(READY_SUFFIX) for info in store.list_objects(CONDEMNED))
    clones.read_all()


def test_a_push_under_way_ends_the_command_with_3(clones: Clones) -> None:
    for number in range(2):
        clones.put(clones.first, "a.bin", f"version {number} ".encode() * 500)
        clones.first.holdfast("push")
    clones.old()
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


def stop_or_kill(
    process: "subprocess.Popen[bytes]", chance: random.Random, counts: dict[str, int], what: str, act: str
) -> bool:
    """End a process as by `kill -9`, stop it, or let it be; whether it is stopped."""
    time.sleep(chance.uniform(0.1, 1.5))
    if process.poll() is not None:
        act = "let be"
    counts[f"{what}: {act}"] = counts.get(f"{what}: {act}", 0) + 1
    if act == "kill":
        process.send_signal(signal.SIGKILL)
    elif act == "stop":
        process.send_signal(signal.SIGSTOP)
        return True
    return False


def ended(process: "subprocess.Popen[bytes]", allowed: tuple[int, ...]) -> None:
    """It ends as it may; asked again it has."""
    if process.returncode is not None and process.stderr is not None and process.stderr.closed:
        return
    _, told = process.communicate(timeout=240)
    assert process.returncode in (*allowed, -signal.SIGKILL), told.decode()
    assert b"unexpected" not in told, told.decode()


@pytest.mark.soak
@pytest.mark.parametrize(
    "runs", [pytest.param(RUNS, id="some"), pytest.param(SOAK_RUNS, marks=pytest.mark.soak, id="all")]
)
def test_pushers_and_collectors_that_are_killed_and_stopped(clones: Clones, runs: int) -> None:
    counts: dict[str, int] = {}
    for number in range(runs):
        chance = random.Random(number)
        for world, name in ((clones.first, "a.bin"), (clones.second, "b.bin")):
            clones.put(world, name, chance.randbytes(FILE_BYTES) if number % 3 else bytes([number % 256]) * FILE_BYTES)
        clones.first.holdfast("push")
        clones.old()
        clones.first.holdfast("gc", "plan", "--scope", "vault", "--offline", "-o", "../plan.json")
        pusher = start(clones.second, "push")
        collector = start(clones.first, "gc", "apply", "../plan.json", "--allow-last-copy", "--grace", "0")
        first, second = ACTS[number] if number < len(ACTS) else (chance.choice(EVERY_ACT), chance.choice(EVERY_ACT))
        stopped = stop_or_kill(pusher, chance, counts, "push", first)
        halted = stop_or_kill(collector, chance, counts, "collector", second)
        if stopped:
            # across a whole collection, which gives it up
            if halted:
                collector.send_signal(signal.SIGCONT)
                halted = False
            ended(collector, (0, 1, 3, 11, 14))
            clones.first.holdfast("gc", "plan", "--scope", "vault", "--offline", "-o", "../plan.json")
            clones.first.holdfast("gc", "apply", "../plan.json", "--allow-last-copy", "--grace", "0")
            clones.first.holdfast("gc", "purge", "--yes", "--grace", "0", "--offline")
            pusher.send_signal(signal.SIGCONT)
        if halted:
            ended(pusher, (0, 1, 3))
            clones.second.holdfast("push")
            collector.send_signal(signal.SIGCONT)
        ended(pusher, (0, 1, 3))
        ended(collector, (0, 1, 3, 11, 14))
        # who was acknowledged anything finds it; who was not pushes again
        if pusher.returncode != 0:
            clones.second.holdfast("push")
        clones.read_all()
        clones.first.holdfast("gc", "plan", "--scope", "vault", "--offline", "-o", "../plan.json")
        clones.first.holdfast("gc", "apply", "../plan.json", "--allow-last-copy", "--grace", "0")
        clones.first.holdfast("gc", "purge", "--yes", "--grace", "0", "--offline")
        clones.read_all()
    print(f"{runs} runs:", ", ".join(f"{what} {count}" for what, count in sorted(counts.items())))
    assert any(what.endswith(("kill", "stop")) for what in counts)
