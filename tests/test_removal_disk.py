"""Disks that are full, read-only or forbidden: one clear line, nothing lost; and DVC, which leaves what waits alone."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.removal.folder import FolderPlace
from removal_world import BATCH, PLAN
from worlds import environment, make_repository

NOBODY = 65534
COMMON = """
import os, subprocess, sys
from pathlib import Path
from holdfast.errors import HoldfastError
from holdfast.removal.folder import FolderPlace
from removal_world import BATCH, PLAN, listing

def refused(call):
    try:
        call()
    except HoldfastError as error:
        return str(error)
    raise AssertionError("nothing was refused")

top = Path(sys.argv[1])
"""


@pytest.fixture
def top() -> Iterator[Path]:
    """A folder that another user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def carried_out(script: str, top: Path, *, before: list[str]) -> None:
    command = [*before, sys.executable, "-c", COMMON + textwrap.dedent(script), str(top)]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_may_not_be_moved(top: Path) -> None:
    carried_out(
        f"""
        if os.getuid() == 0:
            os.setgroups([])
            os.chown(top, {NOBODY}, {NOBODY})
            os.setgid({NOBODY})
            os.setuid({NOBODY})
        root = top / "place"
        for key in ("ours/a", "ours/b", "locked/c", "locked/run/d"):
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_text(key)
        (root / "locked").chmod(0o555)
        place = FolderPlace(root, root / "quarantine")
        before = listing(root, [])
        things = list(place.look(["ours/a", "ours/b", "locked/c", "locked/run"]).values())
        moved = place.take(BATCH, PLAN, things)
        assert moved.done == ("ours/a", "ours/b"), moved
        assert moved.left == (("locked/c", "permission denied"), ("locked/run", "permission denied")), moved
        assert not place.batches()[0].complete
        locked = [thing for thing in things if thing.key.startswith("locked")]
        place.restore(BATCH)
        assert refused(lambda: place.take(BATCH, PLAN, locked)) == (
            f"{{root}}/locked/c: permission denied. See who owns the folder: `ls -ld`"
        )
        assert listing(root, []) == before
        (root / "locked").chmod(0o755)
        assert place.take(BATCH, PLAN, things).left == ()
        assert place.batches()[0].complete
        (root / "locked").chmod(0o555)
        back = place.restore(BATCH)
        assert back.left == (("locked/c", "permission denied"), ("locked/run", "permission denied")), back
        said = refused(lambda: place.restore(BATCH))
        assert said.startswith(f"{{root}}/locked/c: permission denied"), said
        assert len(place.batches()[0].things) == 2
        (root / "locked").chmod(0o755)
        assert place.restore(BATCH).left == ()
        root.chmod(0o555)
        things = list(place.look(["ours/a"]).values())
        said = refused(lambda: place.take(BATCH, PLAN, things))
        assert said.startswith(f"{{root}}/quarantine: permission denied"), said
        root.chmod(0o755)
        (root / "locked").chmod(0o555)
        assert listing(root, []) == before

        (root / "ours").chmod(0)
        said = refused(lambda: place.look(["ours"]))
        assert said.startswith(f"{{root}}/ours: permission denied"), said
        (root / "ours").chmod(0o755)

        # a folder that nobody may write to can be purged where it is one's own
        (root / "locked").chmod(0o755)
        (root / "locked/run").chmod(0o755)
        assert place.take(BATCH, PLAN, list(place.look(["locked/run"]).values())).left == ()
        inner = root / "quarantine" / BATCH / "things" / "locked~2Frun"
        inner.chmod(0o555)
        assert place.purge(BATCH).done == ("locked/run",)
        assert not (root / "quarantine").exists()
        """,
        top,
        before=[],
    )


def namespace() -> list[str]:
    """What runs a command that may mount file systems, seen by nobody else."""
    command = ["unshare", "--map-root-user", "--mount"]
    try:
        allowed = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if allowed.returncode:
        pytest.skip("file systems cannot be mounted here")
    return command


MOUNT = """
def mount(path, options):
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)

def remount(path, options):
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)

keys = [f"models/{number}.pt" for number in range(5)]
def fill(root):
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(key.encode() * 8_000)
"""


def test_a_full_disk(top: Path) -> None:
    carried_out(
        MOUNT
        + textwrap.dedent("""
        root, small = top / "place", top / "small"
        fill(root)
        mount(small, "size=300k")
        place = FolderPlace(root, small / "quarantine")
        before = listing(root, keys)
        things = list(place.look(keys).values())
        said = refused(lambda: place.take(BATCH, PLAN, things))
        assert said == (
            f"{root}: there is no space left to move it to. Free some and run the command again: nothing is lost"
        ), said
        (batch,) = place.batches()
        waiting = [thing.key for thing in batch.things]
        assert waiting and not batch.complete
        assert sorted(waiting + [path for path in listing(root, keys) if path in keys]) == keys
        assert not list(small.rglob("coming/*"))
        remount(small, "size=10m")
        assert place.take(BATCH, PLAN, things).done == tuple(keys)

        back = FolderPlace(root, small / "quarantine")
        assert back.restore(BATCH).left == ()
        assert listing(root, keys) == before

        # and the other way: there is no room any more for what comes back
        fill(small)
        near = FolderPlace(small, top / "quarantine")
        before = listing(small, keys)
        near.take(BATCH, PLAN, list(near.look(keys).values()))
        remount(small, "size=250k")
        said = refused(lambda: near.restore(BATCH))
        assert "no space left" in said, said
        waiting = [thing.key for thing in near.batches()[0].things]
        assert sorted(waiting + [path for path in listing(small, keys) if path in keys]) == keys
        assert not [path for path in small.rglob("*") if path.name.startswith(".holdfast")]
        remount(small, "size=10m")
        near.restore(BATCH)
        assert listing(small, keys) == before
        assert not (top / "quarantine").exists()
        """),
        top,
        before=namespace(),
    )


def test_a_disk_that_is_read_only(top: Path) -> None:
    carried_out(
        MOUNT
        + textwrap.dedent("""
        root = top / "disk"
        mount(root, "size=10m")
        fill(root)
        near, far = FolderPlace(root, root / "quarantine"), FolderPlace(root, top / "quarantine")
        first = list(near.look(keys[:1]).values())
        things = list(near.look(keys[1:]).values())
        near.take(BATCH, PLAN, first)
        before = listing(root, keys)
        remount(root, "ro")
        said = [
            refused(lambda: near.take(BATCH, PLAN, things)),
            refused(lambda: near.restore(BATCH)),
            refused(lambda: near.purge(BATCH)),
            refused(lambda: far.take(BATCH, PLAN, things)),
        ]
        assert all("the file system is read-only" in line for line in said), said
        assert listing(root, keys) == before
        assert far.batches() == [], "no copy is left of what could not go"
        assert [thing.key for thing in near.batches()[0].things] == keys[:1]
        remount(root, "rw")
        assert near.restore(BATCH).left == ()
        """),
        top,
        before=namespace(),
    )


def test_dvc_leaves_alone_what_waits(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    kept, taken = world.store("kept"), world.store("taken")
    old = world.store("of DVC 2", legacy=True)
    world.write("kept.txt.dvc", f"outs:\n- md5: {kept}\n  size: 4\n  hash: md5\n  path: kept.txt\n")
    world.commit("one file")
    place = FolderPlace(world.cache, world.cache / "quarantine")
    keys = [f"files/md5/{taken[:2]}/{taken[2:]}", f"{old[:2]}/{old[2:]}"]
    place.take(BATCH, PLAN, list(place.look(keys).values()))
    dvc = [Path(sys.executable).parent / "dvc"]
    for arguments in (["checkout"], ["status"], ["gc", "-w", "-f"]):
        done = subprocess.run(
            [*dvc, *arguments], cwd=world.root, env=environment(world.home), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert [thing.key for thing in place.batches()[0].things] == sorted(keys)
    assert place.restore(BATCH).left == ()
    assert (world.cache / keys[0]).read_text() == "taken"
    assert (world.root / "kept.txt").read_text() == "kept"
