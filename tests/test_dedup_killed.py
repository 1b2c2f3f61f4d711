"""Replacing copies while processes are killed, files are written to, and others do the same."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import dedup_worlds
from dedup_worlds import BLOCK, planned, tree, write
from holdfast.atomic import write_atomically
from holdfast.dedup import apply as applying
from holdfast.dedup import swap as swapping
from holdfast.dedup.apply import House, apply_plan, batches, restore_plan, unfinished, unreturned
from holdfast.dedup.lease import OpenForWritingError, leased
from holdfast.dedup.plan import DedupPlan, Replacement
from holdfast.dedup.planning import stamp_of
from holdfast.dedup.reflink import NoReflinkError
from holdfast.dedup.swap import CHANGED, OPEN, WANTED, Spot, clone_beside, restore_original, swap
from holdfast.errors import HoldfastError, LockedError
from holdfast.formats.digest import file_digest

disk, folder = dedup_worlds.disk, dedup_worlds.folder
SIZE = 16 * BLOCK
COPIES = 3

# a process that ends itself by signal 9 at its n-th call of a verb that changes the disk, before or after it
CHILD = """
import os, signal, sys
from pathlib import Path
folder, plan, nth, after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "after"
from holdfast.dedup.apply import House, apply_plan, restore_plan
from holdfast.dedup.plan import read_plan
calls = 0
def die(event, arguments):
    global calls
    # the audit hook runs before the call; "after" waits for the next one
    if event in ("os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "fcntl.ioctl", "os.utime"):
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)
house = House(folder, None)
parsed = read_plan(plan.read_bytes())
sys.addaudithook(die)
if sys.argv[4] == "restore":
    from holdfast.removal.batches import batch_id
    restore_plan(house, batch_id(parsed.as_bytes()))
else:
    apply_plan(house, parsed)
print(calls)
"""


def copies(folder: Path) -> Path:
    for number in range(COPIES):
        path = write(folder / f"d{number}" / f"copy {number}.bin", "a", SIZE)
        moment = path.stat().st_mtime_ns - (number + 1) * 10**12
        os.utime(path, ns=(moment, moment))
    return folder


def die_at(folder: Path, plan: Path, nth: int, what: str = "apply") -> bool:
    """Whether the child was killed, and did not come to its end."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(plan), str(nth), what], check=False, capture_output=True
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.tmp") if ".holdfast" not in path.parts]


def test_killed_at_every_step_and_done_again(folder: Path) -> None:
    before_kill = killed = 0
    for nth in range(1, 200):
        world = copies(folder / f"w{nth}")
        before = tree(world)
        plan = planned(world)
        file = folder / f"p{nth}.json"
        file.write_bytes(plan.as_bytes())
        died = die_at(world, file, nth)
        now = {path: facts for path, facts in tree(world).items() if not path.endswith(".tmp")}
        assert now == before, f"after a kill at call {nth}"
        if not died:
            break
        killed += 1
        before_kill += bool(unfinished(House(world, None)))
        done = apply_plan(House(world, None), plan)
        assert len(done.linked) == COPIES - 1
        assert tree(world) == before
        assert temporaries(world) == []
        assert unfinished(House(world, None)) == []
        (batch,) = batches(House(world, None))
        assert len(batch.things) == COPIES - 1
        assert planned(world).steps == ()
        restored = restore_plan(House(world, None), done.batch)
        assert len(restored.paths) == COPIES - 1
        assert tree(world) == before
        assert len(planned(world).steps) == COPIES - 1
    assert killed > 5 * (COPIES - 1)
    assert before_kill > COPIES


def test_restore_killed_at_every_step_and_done_again(folder: Path) -> None:
    killed = 0
    for nth in range(1, 200):
        world = copies(folder / f"w{nth}")
        before = tree(world)
        inodes = {step.path: step.stamp.inode for step in planned(world).steps}
        plan = planned(world)
        file = folder / f"p{nth}.json"
        file.write_bytes(plan.as_bytes())
        done = apply_plan(House(world, None), plan)
        died = die_at(world, file, nth, "restore")
        assert tree(world) == before
        if not died:
            break
        killed += 1
        house = House(world, None)
        if batches(house) or unreturned(house):  # else it was killed after all was done
            restore_plan(house, done.batch)
        assert {path: (world / path).stat().st_ino for path in inodes} == inodes
        assert batches(House(world, None)) == []
        assert tree(world) == before
    assert killed > 2 * COPIES


def one_step(folder: Path) -> tuple[Replacement, Spot]:
    copies(folder)
    step = planned(folder).steps[0]
    path = folder / step.path
    return step, Spot(path, folder / step.source, folder / "staged" / "x.bin", path.with_name(".t.tmp"))


def test_a_file_that_is_open_for_writing_stays(folder: Path) -> None:
    step, spot = one_step(folder)
    with open(spot.path, "ab"), pytest.raises(OpenForWritingError), leased(spot.path):
        pass
    with open(spot.path, "ab"):
        assert swap(step, spot, clone_beside) == OPEN
    assert stamp_of(spot.path) == step.stamp
    assert not spot.staged.exists()
    assert swap(step, spot, clone_beside) == ""


@pytest.mark.parametrize("moment", ["before the link", "before the rename", "after the rename"])
def test_who_writes_meanwhile_writes_to_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """A writer that comes at any moment waits until the step is decided, and what it writes is found at the path."""
    step, spot = one_step(folder)
    writers: list[subprocess.Popen[bytes]] = []

    def come() -> None:
        # who had found the path before the rename has the original, whatever it is called by now
        name = spot.staged if moment == "after the rename" else spot.path
        script = f"open({str(name)!r}, 'r+b').write(b'NEWS')"
        writers.append(subprocess.Popen([sys.executable, "-c", script]))
        # it waits for the lease, which can be seen
        deadline = time.monotonic() + 20
        while "BREAKING" not in Path("/proc/locks").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "BREAKING" in Path("/proc/locks").read_text()

    def make(step: Replacement, spot: Spot) -> None:
        clone_beside(step, spot)
        if moment == "before the link":
            come()

    real = swapping.sync_folder

    def sync(path: Path) -> None:
        real(path)
        if (moment == "before the rename" and path == spot.staged.parent) or (
            moment == "after the rename" and path == spot.path.parent and not writers
        ):
            come()

    monkeypatch.setattr(swapping, "sync_folder", sync)
    assert swap(step, spot, make) == WANTED
    assert writers[0].wait(30) == 0
    assert spot.path.stat().st_ino == step.stamp.inode
    assert spot.path.read_bytes()[:4] == b"NEWS"
    assert not spot.staged.exists()
    assert not spot.temporary.exists()


def test_a_file_that_changes_between_check_and_swap_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies(folder)
    plan = planned(folder)
    real = applying.check

    def check(house: House, plan: DedupPlan) -> list[Replacement]:
        todo = real(house, plan)
        status = (folder / plan.steps[0].path).stat()
        (folder / plan.steps[0].path).write_text("b" * SIZE)
        # the same length, inode and time: only its bytes tell
        os.utime(folder / plan.steps[0].path, ns=(status.st_atime_ns, status.st_mtime_ns))
        (folder / plan.steps[1].path).unlink()
        return todo

    monkeypatch.setattr(applying, "check", check)
    done = apply_plan(House(folder, None), plan)
    assert done.left == tuple((step.path, CHANGED) for step in plan.steps[:2])
    assert (folder / plan.steps[0].path).read_text() == "b" * SIZE
    assert not (folder / plan.steps[1].path).exists()
    assert done.linked == ()


def test_a_source_that_changes_gives_nothing(folder: Path) -> None:
    step, spot = one_step(folder)

    def make(step: Replacement, spot: Spot) -> None:
        status = spot.source.stat()
        with open(spot.source, "r+b") as stream:
            stream.write(b"b")
        os.utime(spot.source, ns=(status.st_atime_ns, status.st_mtime_ns))
        clone_beside(step, spot)

    assert "has changed" in swap(step, spot, make)
    assert spot.path.read_text() == "a" * SIZE
    assert stamp_of(spot.path) == step.stamp
    assert not spot.temporary.exists()


def test_a_pipe_or_link_that_came_to_the_name_does_not_block(folder: Path) -> None:
    step, spot = one_step(folder)
    spot.path.unlink()
    os.mkfifo(spot.path)
    assert swap(step, spot, clone_beside) == CHANGED
    spot.path.unlink()
    spot.path.symlink_to(spot.source)
    assert swap(step, spot, clone_beside) == CHANGED
    assert spot.path.is_symlink()


def test_an_original_written_to_after_a_kill_comes_back(folder: Path) -> None:
    """Killed between the rename and the last look, while a writer waited: what it wrote goes to the path."""
    copies(folder)
    plan = planned(folder)
    (step, *_) = plan.steps
    house = House(folder, None)
    spot = applying._spot(house, applying.batch_id(plan.as_bytes()), step, None)
    assert swap(step, spot, clone_beside) == ""
    with open(spot.staged, "r+b") as stream:
        stream.write(b"NEWS")
    with pytest.raises(applying.StalePlanError):
        apply_plan(house, plan)
    assert spot.path.stat().st_ino == step.stamp.inode
    assert spot.path.read_bytes()[:4] == b"NEWS"


def test_no_reflinks_is_said_and_nothing_happens(tmp_path: Path) -> None:
    """The ioctl on a real file system without reflinks, and across two."""
    source, target = write(tmp_path / "a.bin", "a", SIZE), tmp_path / "b.bin"
    target.touch()
    with open(source, "rb") as one, open(target, "wb") as other:
        from holdfast.dedup.reflink import can_clone, clone

        if can_clone(tmp_path, tmp_path):
            pytest.skip("this file system has reflinks")
        with pytest.raises(NoReflinkError):
            clone(one.fileno(), other.fileno())
    assert target.read_bytes() == b""


def test_a_full_disk_costs_nothing(folder: Path, disk: Path) -> None:
    world = copies(folder)
    before = tree(world)
    plan = planned(world)
    fillers = [disk / "filler", disk / "small filler"]
    for filler, nbytes in zip(fillers, (1 << 20, 512), strict=True):
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as stream:
            while stream.write(b"x" * nbytes):
                pass
    try:
        with pytest.raises((OSError, HoldfastError), match="space"):
            apply_plan(House(world, None), plan)
    finally:
        for filler in fillers:
            filler.unlink(missing_ok=True)
    assert tree(world) == before
    apply_plan(House(world, None), plan)
    assert tree(world) == before


def test_two_at_once(folder: Path) -> None:
    world = copies(folder)
    plan = planned(world)
    house = House(world, None)
    house.top.mkdir()
    with open(house.top / applying.LOCK, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(LockedError):
            apply_plan(house, plan)
        with pytest.raises(LockedError):
            restore_plan(house, "0" * 32)
    apply_plan(house, plan)


def test_many_at_once_end_as_one_would(folder: Path) -> None:
    world = copies(folder)
    before = tree(world)
    file = folder / "plan.json"
    write_atomically(file, planned(world).as_bytes())
    plan = planned(world)
    file = folder.parent / f"{folder.name}.json"
    file.write_bytes(plan.as_bytes())
    script = CHILD.replace("sys.addaudithook(die)", "")
    command = [sys.executable, "-c", script, str(world), str(file), "0", "apply"]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    ended = [child.communicate(timeout=60)[1].decode() for child in children]
    assert any(child.returncode == 0 for child in children)
    assert all(child.returncode == 0 or "LockedError" in told for child, told in zip(children, ended, strict=True))
    (world / "plan.json").unlink()
    before.pop("plan.json", None)
    assert tree(world) == before
    (batch,) = batches(House(world, None))
    assert len(batch.things) == COPIES - 1


def test_readers_never_miss_the_file(folder: Path) -> None:
    world = copies(folder)
    plan = planned(world)
    paths = [world / step.path for step in plan.steps]
    stop = threading.Event()
    seen: list[object] = []

    def read() -> None:
        while not stop.is_set():
            for path in paths:
                try:
                    if path.read_bytes() != b"a" * SIZE:
                        seen.append("other bytes")
                except OSError as error:
                    seen.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            done = apply_plan(House(world, None), plan)
            restore_plan(House(world, None), done.batch)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen == []


def test_restore_looks_at_the_bytes(tmp_path: Path) -> None:
    staged, path = write(tmp_path / "staged", "a"), write(tmp_path / "path", "b")
    assert "changed" in restore_original(staged, path, file_digest(staged))
    assert path.read_text()[0] == "b"
    path.unlink()
    path.mkdir()
    assert "changed" in restore_original(staged, path, file_digest(staged))
    path.rmdir()
    path.symlink_to(tmp_path / "nowhere")
    assert restore_original(staged, path, file_digest(path.parent / "staged")) == ""
    assert not path.is_symlink()
