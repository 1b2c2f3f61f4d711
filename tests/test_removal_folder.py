"""A folder's things go, wait and come back, byte for byte; nothing that is there is overwritten, nothing outside is touched."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from holdfast.errors import LockedError, UsageError
from holdfast.removal import locks, transfer
from holdfast.removal.batches import OtherPlanError, RemovalError, batch_id
from holdfast.removal.folder import FolderPlace
from holdfast.removal.names import UnsafeKeyError, flat_name
from holdfast.removal.place import Thing
from holdfast.removal.trees import Spot
from removal_world import BATCH, KEPT, LONG, OBJECT, PLAN, THINGS, listing, make_things, other_disk, planned

__all__ = ["other_disk"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    make_things(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def place(root: Path) -> FolderPlace:
    return FolderPlace(root, root.parent / "quarantine")


@pytest.fixture
def far(root: Path, other_disk: Path) -> FolderPlace:
    """The same place with its quarantine in another file system."""
    return FolderPlace(root, other_disk / "quarantine")


def test_what_is_there(place: FolderPlace, root: Path) -> None:
    found = place.look([*THINGS, "nothing", "no/folder/here"])
    assert sorted(found) == sorted(THINGS)
    assert found[OBJECT].size == 9
    assert found["runs/one"].size == len("bytes of 6") * 1000 + len("a/data")
    assert found["runs/empty"].size == 0
    os.link(root / OBJECT, root.parent / "workspace.pt")
    assert place.look([OBJECT])[OBJECT].links == 1
    assert place.look([OBJECT])[OBJECT].stamp == found[OBJECT].stamp
    assert FolderPlace(root / "none", root / "none/quarantine").look(["a"]) == {}


@pytest.mark.parametrize("where", ["place", "far"])
def test_all_comes_back_as_it_was(where: str, request: pytest.FixtureRequest, root: Path) -> None:
    place: FolderPlace = request.getfixturevalue(where)
    before = listing(root)
    things = planned(place)
    told: list[tuple[int, int]] = []
    moved = place.take(BATCH, PLAN, things, lambda done, total: told.append((done, total)))
    assert moved.done == tuple(sorted(THINGS))
    assert moved.left == ()
    assert moved.bytes == sum(thing.size for thing in things) == told[-1][0] == told[-1][1]
    assert {path for path in listing(root) if not (root / path).is_dir()} == {KEPT}
    (batch,) = place.batches()
    assert (batch.id, batch.complete, batch.plan) == (BATCH, True, PLAN)
    assert [(thing.key, thing.size) for thing in batch.things] == [(thing.key, thing.size) for thing in things]
    assert abs(batch.since - place.now()) < timedelta(minutes=1)
    applied = json.loads((place.quarantine / BATCH / "applied.json").read_text())
    assert (applied["things"], applied["bytes"], applied["left"]) == (len(THINGS), moved.bytes, [])
    back = place.restore(BATCH)
    assert (back.done, back.bytes, back.left) == (moved.done, moved.bytes, ())
    assert listing(root) == before
    assert place.batches() == []
    assert not place.quarantine.exists()


def test_the_quarantine_may_lie_in_the_place(root: Path) -> None:
    place = FolderPlace(root, root / ".dvc-quarantine")
    before = listing(root)
    place.take(BATCH, PLAN, planned(place))
    for path in (root / ".dvc-quarantine").rglob("*"):
        # DVC takes a folder of two letters at its cache's top, and a file in it, for an object
        parts = path.relative_to(root).parts
        assert len(parts) > 2 or len(parts[0]) > 2
        assert not re.search(r"/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$", path.as_posix())
    for key in (".dvc-quarantine", f".dvc-quarantine/{BATCH}/things/x", ".dvc-quarantine/lock"):
        with pytest.raises(UnsafeKeyError, match="the quarantine is there"):
            place.take(BATCH, PLAN, [Thing(key, 0, "")])
    place.restore(BATCH)
    assert listing(root) == before
    for folder in (root, root / "q2"):
        with pytest.raises(RemovalError, match="cannot be the quarantine"):
            FolderPlace(root, folder)


def test_hard_links_stay_good(place: FolderPlace, root: Path) -> None:
    linked = root.parent / "workspace.pt"
    os.link(root / OBJECT, linked)
    place.take(BATCH, PLAN, planned(place, [OBJECT]))
    assert linked.read_bytes() == b"an object"
    place.restore(BATCH)
    assert linked.samefile(root / OBJECT)


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda root: (root / ".hidden").write_text("new"),
    "same bytes, another file": lambda root: shutil.copy2(root / ".hidden", root / "new") and (root / "new").replace(root / ".hidden"),
    "another mode": lambda root: (root / ".hidden").chmod(0o600),
    "another time": lambda root: os.utime(root / ".hidden"),
    "a file that became a folder": lambda root: ((root / ".hidden").unlink(), (root / ".hidden").mkdir()),
}  # fmt: skip
FOLDER_CHANGES: dict[str, Callable[[Path], object]] = {
    "a new file in it": lambda root: (root / "runs/one/b/new").touch(),
    "a file less in it": lambda root: (root / "runs/one/a/data").unlink(),
    "a file in it has changed": lambda root: (root / "runs/one/a/data").write_text("new"),
    "a file in it has another name": lambda root: (root / "runs/one/a/data").rename(root / "runs/one/a/date"),
    "a file in it lies elsewhere in it": lambda root: (root / "runs/one/a/data").rename(root / "runs/one/b/data"),
    "a folder in it has another mode": lambda root: (root / "runs/one/b").chmod(0o700),
    "a link in it leads elsewhere": lambda root: ((root / "runs/one/link").unlink(), (root / "runs/one/link").symlink_to("b/data")),
}  # fmt: skip


@pytest.mark.parametrize("where", ["place", "far"])
@pytest.mark.parametrize("change", [*CHANGES, *FOLDER_CHANGES])
def test_what_has_changed_stays(where: str, request: pytest.FixtureRequest, root: Path, change: str) -> None:
    place: FolderPlace = request.getfixturevalue(where)
    key = ".hidden" if change in CHANGES else "runs/one"
    things = planned(place)
    {**CHANGES, **FOLDER_CHANGES}[change](root)
    before = listing(root)
    moved = place.take(BATCH, PLAN, things)
    assert moved.left == ((key, "it has changed since it was planned"),)
    assert place.batches()[0].complete
    assert (root / key).exists()
    assert place.restore(BATCH).left == ()
    assert listing(root) == before


@pytest.mark.parametrize("where", ["place", "far"])
@pytest.mark.parametrize("key", [".hidden", "runs/one"])
def test_what_changes_while_it_moves_stays(
    where: str, key: str, request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer comes between the look and the move: a real one, let in before the first rename or after the copy."""
    place: FolderPlace = request.getfixturevalue(where)
    file = root / ("runs/one/a/data" if key == "runs/one" else key)
    verb = "copy" if where == "far" else "rename_exclusively"
    real: Callable[[Spot, Spot], None] = getattr(transfer, verb)
    writers = [lambda: file.write_text("written meanwhile")]

    def move(source: Spot, target: Spot) -> None:
        if verb == "copy":
            real(source, target)
        if writers and source.name == Path(key).name:
            writers.pop()()
        if verb != "copy":
            real(source, target)

    things = planned(place)
    monkeypatch.setattr(transfer, verb, move)
    assert place.take(BATCH, PLAN, things).left == ((key, "it has changed since it was planned"),)
    assert writers == []
    assert file.read_text() == "written meanwhile"
    assert key not in [thing.key for thing in place.batches()[0].things]
    assert list(root.rglob(".holdfast*")) == []


def test_what_is_gone_is_told(place: FolderPlace, root: Path) -> None:
    things = planned(place)
    (root / ".hidden").unlink()
    shutil.rmtree(root / "ä")
    left = place.take(BATCH, PLAN, things).left
    assert left == tuple((key, "it is not there any more") for key in sorted((".hidden", "ä/ö ü~%\n.txt")))
    assert place.batches()[0].complete


def test_a_plan_of_which_nothing_goes_leaves_nothing(place: FolderPlace, root: Path) -> None:
    things = planned(place, [".hidden"])
    (root / ".hidden").unlink()
    assert place.take(BATCH, PLAN, things).done == ()
    assert place.batches() == []
    assert not place.quarantine.exists()


def test_taken_again(place: FolderPlace, root: Path) -> None:
    things = planned(place)
    assert place.take(BATCH, PLAN, things[:3]).done == tuple(thing.key for thing in things[:3])
    os.utime(place.quarantine / BATCH / "plan.json", (10**9, 10**9))
    assert place.batches()[0].since == datetime.fromtimestamp(10**9, timezone.utc)
    (root / things[0].key).parent.mkdir(exist_ok=True)
    (root / things[0].key).write_text("here again")
    moved = place.take(BATCH, PLAN, things)
    assert moved.done == tuple(thing.key for thing in things[1:])
    assert moved.left == ((things[0].key, "it waits already, and something else has come to its place"),)
    assert place.batches()[0].since > place.now() - timedelta(minutes=1)
    os.utime(place.quarantine / BATCH / "plan.json", (10**9, 10**9))
    assert place.take(BATCH, PLAN, things).done == moved.done
    assert place.batches()[0].since == datetime.fromtimestamp(10**9, timezone.utc), "nothing went"
    with pytest.raises(OtherPlanError, match="another one"):
        place.take(BATCH, b"another plan", things)


def test_nothing_is_overwritten(place: FolderPlace, root: Path) -> None:
    place.take(BATCH, PLAN, planned(place))
    (root / OBJECT).write_bytes(b"an object")  # as `dvc pull` brings it back
    (root / ".hidden").write_text("another one")
    (root / "runs/one").mkdir()
    (root / "runs/empty").mkdir()
    (root / "runs/link").symlink_to("elsewhere")
    back = place.restore(BATCH)
    other = "something else has come to its place"
    assert back.left == ((".hidden", other), ("runs/link", other), ("runs/one", other))
    assert set(back.done) == set(THINGS) - {".hidden", "runs/link", "runs/one"}
    assert (root / OBJECT).stat().st_mode & 0o777 != 0o444, "what is there stays"
    assert (root / ".hidden").read_text() == "another one"
    assert [thing.key for thing in place.batches()[0].things] == [".hidden", "runs/link", "runs/one"]
    (root / ".hidden").unlink()
    (root / "runs/link").unlink()
    (root / "runs/one").rmdir()
    assert place.restore(BATCH).left == ()
    assert not place.quarantine.exists()


def test_some_keys(place: FolderPlace, root: Path) -> None:
    place.take(BATCH, PLAN, planned(place))
    back = place.restore(BATCH, [OBJECT, LONG, "nothing"])
    assert (back.done, back.left) == (
        (LONG, OBJECT) if LONG < OBJECT else (OBJECT, LONG),
        (("nothing", f"it does not wait in {BATCH}"),),
    )
    assert (root / LONG).exists()
    gone = place.purge(BATCH, ["runs/one", ".hidden", "nothing"])
    assert gone.done == (".hidden", "runs/one")
    assert gone.bytes == len("bytes of 4") * 1000 + len("bytes of 6") * 1000 + len("a/data")
    assert sorted(path.name for path in (place.quarantine / BATCH).iterdir()) == [
        "applied.json",
        "keys",
        "plan.json",
        "things",
    ]
    assert list((place.quarantine / BATCH / "keys").iterdir()) == []
    assert place.purge(BATCH).left == ()
    assert not place.quarantine.exists()
    assert place.restore(BATCH, [OBJECT]).left == ((OBJECT, f"it does not wait in {BATCH}"),)
    assert place.purge(BATCH).done == ()


def test_two_batches(place: FolderPlace) -> None:
    first, second = planned(place, [OBJECT]), planned(place, [".hidden"])
    place.take(batch_id(b"1"), b"1", first)
    os.utime(place.quarantine / batch_id(b"1") / "plan.json", (10**9, 10**9))
    place.take(batch_id(b"2"), b"2", second)
    assert [(batch.plan, batch.things[0].key) for batch in place.batches()] == [(b"1", OBJECT), (b"2", ".hidden")]
    place.purge(batch_id(b"1"))
    assert [batch.plan for batch in place.batches()] == [b"2"]


def test_only_one_at_a_time(place: FolderPlace, root: Path) -> None:
    things = planned(place)
    place.take(BATCH, PLAN, things[:1])
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place.quarantine / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        for call in (lambda: place.take(BATCH, PLAN, things), lambda: place.restore(BATCH), lambda: place.purge(BATCH)):
            with pytest.raises(LockedError, match=f"in use by process {holder.pid}"):
                call()
        assert len(place.batches()) == 1
    finally:
        holder.kill()  # the lock ends with whoever held it
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    assert place.restore(BATCH).left == ()
    assert (root / things[0].key).exists()


HOLD = textwrap.dedent("""
    import fcntl, os, sys
    stream = open(sys.argv[1], "r+")
    fcntl.flock(stream, fcntl.LOCK_EX)
    stream.truncate(0)
    stream.write(f"{os.getpid()}\\n")
    stream.flush()
    print("held", flush=True)
    sys.stdin.read()
""")


def test_a_lock_that_goes_while_one_waits_for_it(place: FolderPlace) -> None:
    """The holder takes the file away when it ends; whoever had opened it before must not hold a file without a name."""
    place.quarantine.mkdir()
    path = place.quarantine / "lock"
    real = fcntl.flock
    rounds = []

    def late(descriptor: int, how: int) -> None:
        if not rounds:
            path.unlink()
            path.touch()
        rounds.append(descriptor)
        real(descriptor, how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks.fcntl, "flock", late)
        with locks.locked_folder(place.quarantine):
            assert len(rounds) == 2
            with pytest.raises(LockedError), locks.locked_folder(place.quarantine):
                pass
    assert not place.quarantine.exists()


HOSTILE = ["../outside", "/etc/holdfast", "a/../../outside", "runs/../../outside", "", "runs//one", "runs/one/"]


@pytest.mark.parametrize("key", HOSTILE)
def test_a_plan_cannot_lead_out(place: FolderPlace, root: Path, key: str) -> None:
    (root.parent / "outside").write_text("mine")
    for call in (lambda: place.look([key]), lambda: place.take(BATCH, PLAN, [Thing(key, 4, "")])):
        with pytest.raises(UsageError, match="does not lie in the place"):
            call()
    assert (root.parent / "outside").read_text() == "mine"
    assert not place.quarantine.exists()


def test_what_others_put_into_the_quarantine_cannot_lead_out(place: FolderPlace, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    place.take(BATCH, PLAN, planned(place, [OBJECT, LONG]))
    things = place.quarantine / BATCH / "things"
    for name in ("..~2F..~2Foutside~2Ffile", "~2Ftmp~2Fholdfast", "a b", ".DS_Store", f"~~{'0' * 64}"):
        (things / name).write_text("hostile")
    (place.quarantine / BATCH / "keys" / ("0" * 64)).write_text("../../outside/file")
    (root / "linked").symlink_to(outside)
    (things / flat_name("linked/file")).write_text("hostile")
    assert [thing.key for thing in place.batches()[0].things] == sorted([OBJECT, LONG, "linked/file"])
    back = place.restore(BATCH)
    assert set(back.done) == {OBJECT, LONG}
    assert back.left == (("linked/file", "linked is a link or a file, and no folder"),)
    assert (outside / "file").read_text() == "mine"
    assert len(list(outside.iterdir())) == 1
    (things.parent / "elsewhere").mkdir()
    shutil.rmtree(things)
    things.symlink_to(outside)
    assert place.batches() == []


def test_links_on_the_way_are_not_followed(place: FolderPlace, root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (root / "linked").symlink_to(outside)
    (root / "also").write_text("a file")
    assert place.look(["linked/file", "also/file"]) == {}
    stamp = FolderPlace(outside, root.parent / "quarantine").look(["file"])["file"].stamp
    moved = place.take(BATCH, PLAN, [Thing("linked/file", 4, stamp), Thing("also/file", 4, stamp)])
    assert moved.done == ()
    assert [reason for _, reason in moved.left] == [
        "also is a link or a file, and no folder",
        "linked is a link or a file, and no folder",
    ]
    assert (outside / "file").read_text() == "mine"
    assert place.take(BATCH, PLAN, planned(place, ["linked"])).done == ("linked",)
    assert (outside / "file").read_text() == "mine"


def test_folders_above_come_back(place: FolderPlace, root: Path) -> None:
    place.take(BATCH, PLAN, planned(place, [OBJECT, LONG]))
    shutil.rmtree(root / "files")
    shutil.rmtree(root / LONG.partition("/")[0])
    assert place.restore(BATCH).left == ()
    assert (root / OBJECT).read_bytes() == b"an object"


def stamped(path: Path) -> tuple[int, int, int, bytes]:
    status = path.stat()
    return status.st_mtime_ns, status.st_mode, status.st_ino, path.read_bytes()


def test_ten_thousand_objects(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    keys = [f"files/md5/{number % 256:02x}/{number:030x}" for number in range(10_000)]
    for number in range(256):
        (root / f"files/md5/{number:02x}").mkdir(parents=True)
    for number, key in enumerate(keys):
        (root / key).write_bytes(b"%d" % number)
        (root / key).chmod(0o444)
    place = FolderPlace(root, root / "quarantine")
    before = [stamped(root / key) for key in keys]
    seconds = [time.monotonic()]
    things = list(place.look(keys).values())
    assert len(place.take(BATCH, PLAN, things).done) == 10_000
    seconds.append(time.monotonic())
    assert len(place.batches()[0].things) == 10_000
    assert len(place.restore(BATCH).done) == 10_000
    seconds.append(time.monotonic())
    print(f"10,000 objects: taken in {seconds[1] - seconds[0]:.2f} s, restored in {seconds[2] - seconds[1]:.2f} s")
    assert [stamped(root / key) for key in keys] == before
    assert seconds[2] - seconds[0] < 60
