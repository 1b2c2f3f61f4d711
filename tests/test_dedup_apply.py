"""Replacing copies by links: on a real file system with reflinks, in real DVC projects, and where neither helps."""

import json
import os
import stat
from pathlib import Path

import pytest

import dedup_worlds
from dedup_worlds import BLOCK, planned, reflink_disk, tree, write
from holdfast.dedup.apply import Applied, House, apply_plan, batches, check, restore_plan, unfinished, unreturned
from holdfast.dedup.duplicates import find_duplicates
from holdfast.dedup.plan import DedupPlan, read_plan
from holdfast.dedup.planning import HARD_LINKED, NO_REFLINKS, SET_TO_COPY, plan_links
from holdfast.dedup.reflink import can_clone, extents_of
from holdfast.errors import StalePlanError, UsageError
from holdfast.formats.cache import DigestCache
from holdfast.repo.workspace import find_project
from worlds import World, make_home, make_repository

disk, folder = dedup_worlds.disk, dedup_worlds.folder
SIZE = 8 * BLOCK
YEAR_NS = 365 * 86400 * 10**9


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR", "SITE_CACHE_DIR"):
        monkeypatch.setenv(f"DVC_{name}", str(tmp_path / "none"))


def aged(path: Path, years: int) -> Path:
    moment = path.stat().st_mtime_ns - years * YEAR_NS
    os.utime(path, ns=(moment, moment))
    return path


def house(folder: Path) -> House:
    return House(folder, None)


def three(folder: Path) -> Path:
    for name, years in (("new.bin", 0), ("old.bin", 3), ("deep/mid.bin", 1)):
        aged(write(folder / name, "a", SIZE), years)
    write(folder / "other.bin", "b", SIZE)
    return folder


def shared(*paths: Path) -> bool:
    return len({extents_of(path) for path in paths}) == 1 and extents_of(paths[0]) is not None


def test_copies_share_their_blocks_and_all_else_stays(folder: Path) -> None:
    three(folder)
    target = folder / "new.bin"
    target.chmod(0o640)
    os.chown(target, 1234, 4321)
    os.setxattr(target, "user.note", b"keep me")
    before, inode = tree(folder), target.stat().st_ino
    plan = planned(folder)
    assert [(step.path, step.kind, step.source) for step in plan.steps] == [
        ("deep/mid.bin", "reflink", "old.bin"),
        ("new.bin", "reflink", "old.bin"),
    ]
    assert plan.freed == 2 * SIZE
    done = apply_plan(house(folder), plan)
    assert (done.linked, done.left, done.bytes) == (("deep/mid.bin", "new.bin"), (), 2 * SIZE)
    assert shared(target, folder / "old.bin", folder / "deep" / "mid.bin")
    assert tree(folder) == before
    assert os.getxattr(target, "user.note") == b"keep me"
    assert target.stat().st_ino != inode
    assert find_duplicates(folder).groups == ()
    assert planned(folder).steps == ()
    target.write_text("another")  # each may be changed without the others
    assert (folder / "old.bin").read_text() == "a" * SIZE


def test_btrfs(tmp_path: Path) -> None:
    with reflink_disk(tmp_path, "btrfs") as place:
        folder = three(place / "folder")
        before = tree(folder)
        done = apply_plan(house(folder), planned(folder))
        assert (done.linked, tree(folder)) == (("deep/mid.bin", "new.bin"), before)
        assert find_duplicates(folder).groups == ()
        assert len(restore_plan(house(folder), done.batch).paths) == 2
        assert len(find_duplicates(folder).groups) == 1


def test_a_damaged_original_does_not_replace_the_link(folder: Path) -> None:
    three(folder)
    done = apply_plan(house(folder), planned(folder))
    waiting = next(path for path in (folder / ".holdfast" / "quarantine").rglob("*new.bin"))
    status = waiting.stat()
    with open(waiting, "r+b") as stream:
        stream.write(b"X")
    os.utime(waiting, ns=(status.st_atime_ns, status.st_mtime_ns))
    back = restore_plan(house(folder), done.batch)
    assert (back.paths, back.left) == (("deep/mid.bin",), (("new.bin", "its original is damaged"),))
    assert (folder / "new.bin").read_text() == "a" * SIZE
    assert len(batches(house(folder))) == 1


def test_restore_brings_back_the_very_files(folder: Path) -> None:
    three(folder)
    before, inodes = tree(folder), {path: (folder / path).stat().st_ino for path in ("new.bin", "deep/mid.bin")}
    plan = planned(folder)
    done = apply_plan(house(folder), plan)
    (batch,) = batches(house(folder))
    assert batch.id == done.batch
    assert sum(thing.size for thing in batch.things) == 2 * SIZE
    one = restore_plan(house(folder), done.batch, ["new.bin"])
    assert (one.paths, one.left) == (("new.bin",), ())
    assert (folder / "new.bin").stat().st_ino == inodes["new.bin"]
    rest = restore_plan(house(folder), done.batch)
    assert (rest.paths, rest.left) == (("deep/mid.bin",), ())
    assert {path: (folder / path).stat().st_ino for path in inodes} == inodes
    assert tree(folder) == before
    assert batches(house(folder)) == []
    assert not list((folder / ".holdfast").rglob("*.bin"))


def test_what_another_command_took_out_of_the_quarantine_finds_its_place(folder: Path) -> None:
    three(folder)
    before, plan = tree(folder), planned(folder)
    inodes = {step.path: step.stamp.inode for step in plan.steps}
    done = apply_plan(house(folder), plan)
    house(folder).place.restore(done.batch)  # as `holdfast gc restore` does it
    assert tree(folder) == before
    assert batches(house(folder)) == []
    assert unreturned(house(folder)) == [done.batch]
    assert len(restore_plan(house(folder), done.batch).paths) == 2
    assert {path: (folder / path).stat().st_ino for path in inodes} == inodes
    assert unreturned(house(folder)) == []
    assert list((folder / ".holdfast" / "dedup-plans").iterdir()) == []


def test_what_was_changed_since_is_not_overwritten_by_restore(folder: Path) -> None:
    three(folder)
    done = apply_plan(house(folder), planned(folder))
    (folder / "new.bin").write_text("work of a week")
    (folder / "deep" / "mid.bin").unlink()
    back = restore_plan(house(folder), done.batch)
    assert back.paths == ("deep/mid.bin",)
    assert back.left == (("new.bin", "it has changed since it was replaced"),)
    assert (folder / "new.bin").read_text() == "work of a week"
    assert (folder / "deep" / "mid.bin").read_text() == "a" * SIZE
    (batch,) = batches(house(folder))  # its original waits on
    assert len(batch.things) == 1
    (folder / "new.bin").unlink()
    assert restore_plan(house(folder), done.batch).paths == ("new.bin",)
    assert (folder / "new.bin").read_text() == "a" * SIZE


def test_without_reflinks_editable_files_stay(tmp_path: Path) -> None:
    if can_clone(tmp_path, tmp_path):
        pytest.skip("this file system has reflinks")
    three(tmp_path)
    plan = planned(tmp_path)
    assert plan.steps == ()
    assert {left.why for left in plan.left} == {NO_REFLINKS}
    assert sorted(left.path for left in plan.left) == ["deep/mid.bin", "new.bin"]


def test_canonical_by_registry_then_references_then_age(folder: Path) -> None:
    three(folder)
    (folder / "serve.py").write_text("import torch\nmodel = open('deep/mid.bin', 'rb')\n")
    assert {step.source for step in planned(folder).steps} == {"deep/mid.bin"}
    assert planned(folder).steps[0].why == "1 place refers to it"
    world = World(folder, make_home(folder.parent))
    world.git("init", "--quiet")
    for name in (".dvc/config", ".dvcignore"):
        world.write(name, "")
    version = (
        f"schema: 1\npath: new.bin\noid: '{'0' * 32}'\nsize: {SIZE}\nweights: 'blake3:{'0' * 64}'\ndate: '2026-11-20'\n"
    )
    world.write("registry/app/name/v1.yaml", version)
    world.write("registry/app/name/model.yaml", "schema: 1\ncurrent: v1\n")
    plan = planned(folder, project=True)
    assert {step.source for step in plan.steps} == {"new.bin"}
    assert plan.steps[0].why == "it is app/name@v1"


def test_only_named_paths_are_replaced(folder: Path) -> None:
    three(folder)
    assert [step.path for step in planned(folder, paths=(folder / "deep",)).steps] == ["deep/mid.bin"]
    assert planned(folder, paths=(folder / "other.bin",)).steps == ()


def test_hard_linked_files_stay(folder: Path) -> None:
    three(folder)
    (folder / "again.bin").hardlink_to(folder / "new.bin")
    plan = planned(folder)
    assert [step.path for step in plan.steps] == ["deep/mid.bin"]
    assert [(left.path, left.why) for left in plan.left] == [("again.bin", HARD_LINKED), ("new.bin", HARD_LINKED)]


@pytest.mark.parametrize("event", ["grows", "same size", "is replaced", "is gone", "mode", "source"])
def test_what_changed_since_the_plan_refuses_it(folder: Path, event: str) -> None:
    three(folder)
    plan = planned(folder)
    victim = folder / ("old.bin" if event == "source" else "new.bin")
    if event == "grows":
        with open(victim, "a") as stream:
            stream.write("more")
    elif event in ("same size", "source"):
        victim.write_text("c" * SIZE)
    elif event == "is replaced":
        moment = victim.stat().st_mtime_ns
        write(folder / "x", "a", SIZE).replace(victim)
        os.utime(victim, ns=(moment, moment))
    elif event == "mode":
        victim.chmod(0o600)
    else:
        victim.unlink()
    before = tree(folder)
    with pytest.raises(StalePlanError) as caught:
        apply_plan(house(folder), plan)
    assert "new.bin" in caught.value.message
    assert tree(folder) == before
    assert batches(house(folder)) == []
    assert not shared(folder / "deep" / "mid.bin", folder / "old.bin")


def test_a_plan_edited_by_hand_is_refused(folder: Path) -> None:
    three(folder)
    data = planned(folder).as_bytes()
    assert read_plan(data).as_bytes() == data
    for edited in (
        data.replace(b'"path": "new.bin"', b'"path": "other.bin"'),
        data.replace(b'"source": "old.bin"', b'"source": "other.bin"'),
        data.replace(b'"kind": "reflink"', b'"kind": "hardlink"'),
    ):
        assert edited != data
        with pytest.raises(StalePlanError):
            read_plan(edited)
    for broken in (b"", b"[]", b"{", b'{"format": "holdfast dedup plan 9"}', b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(UsageError):
            read_plan(broken)


def test_the_same_world_makes_the_same_plan(folder: Path) -> None:
    three(folder)
    assert planned(folder).as_bytes() == planned(folder).as_bytes()


def dvc_world(folder: Path, types: str) -> World:
    world = make_repository(folder)
    world.write(".dvc/config", f"[cache]\n    type = {types}\n")
    (world.root / "data").mkdir()
    for name in ("x.bin", "y.bin"):
        write(world.root / "data" / name, name, SIZE)
    write(world.root / "model.bin", "m", SIZE)
    # as DVC leaves files that it was told to copy
    world.dvc("config", "cache.type", "copy")
    world.dvc("add", "--quiet", "data", "model.bin")
    world.dvc("config", "cache.type", types)
    world.commit("tracked")
    return world


def led(path: Path) -> object:
    """Where a link leads; of symbolic links DVC makes some anew each time."""
    return path.readlink() if path.is_symlink() else path.stat().st_ino


def applied(world: World) -> tuple[DedupPlan, Applied]:
    project = find_project(world.root)
    plan = plan_links(world.root, DigestCache(None), project=project)[0]
    return plan, apply_plan(House(project.root, project), plan)


@pytest.mark.parametrize("types", ["hardlink", "symlink", "reflink,hardlink"])
def test_tracked_files_become_what_dvc_would_make(tmp_path: Path, types: str) -> None:
    world = dvc_world(tmp_path, types)
    write(world.root / "loose.bin", "m", SIZE)  # untracked, with the bytes of a tracked one
    before = {path: (world.root / path).read_bytes() for path in ("data/x.bin", "data/y.bin", "model.bin")}
    reflinks = can_clone(world.root, world.root)
    plan, done = applied(world)
    kind = "reflink" if reflinks and "reflink" in types else types.rpartition(",")[2]
    assert {(step.path, step.kind) for step in plan.steps if step.tracked} == {(path, kind) for path in before}
    assert (done.left, set(before) <= set(done.linked)) == ((), True)
    for path, data in before.items():
        file = world.root / path
        assert file.read_bytes() == data
        assert file.is_symlink() == (kind == "symlink")
        assert (file.stat().st_nlink > 1) == (kind == "hardlink")
        if kind != "reflink":
            assert stat.S_IMODE(file.stat().st_mode) == 0o444
    if not reflinks:
        assert [(left.path, left.why) for left in plan.left] == [("loose.bin", NO_REFLINKS)]
    assert (world.root / "loose.bin").stat().st_nlink == 1
    assert world.git("status", "--porcelain", "--untracked-files=no") == ""
    assert "up to date" in world.dvc("status")
    links = {path: led(world.root / path) for path in before}
    world.dvc("checkout", "--relink", "--quiet")
    assert {path: led(world.root / path) for path in before} == links
    project = find_project(world.root)
    back = restore_plan(House(project.root, project), done.batch)
    assert set(back.paths) >= set(before)
    assert all((world.root / path).read_bytes() == data for path, data in before.items())
    assert not (world.root / "model.bin").is_symlink()
    assert (world.root / "model.bin").stat().st_nlink == 1
    assert "up to date" in world.dvc("status")


def test_tracked_files_become_reflinks(folder: Path) -> None:
    world = dvc_world(folder, "reflink,copy")
    # DVC itself made its objects share their blocks with what it was given
    assert planned(world.root, project=True).steps == ()
    for path in ("model.bin", "data/x.bin", "data/y.bin"):
        (world.root / path).write_bytes((world.root / path).read_bytes())
    (world.root / "model.bin").chmod(0o600)
    before = tree(world.root)
    plan, done = applied(world)
    assert [(step.path, step.kind, step.tracked) for step in plan.steps] == [
        ("data/x.bin", "reflink", True),
        ("data/y.bin", "reflink", True),
        ("model.bin", "reflink", True),
    ]
    assert done.left == ()
    project = find_project(world.root)
    assert find_duplicates(world.root, project=project).groups == ()
    assert tree(world.root) == before
    assert "up to date" in world.dvc("status")


def test_dvc_set_to_copy_is_left_alone(tmp_path: Path) -> None:
    world = dvc_world(tmp_path, "copy")
    plan, done = applied(world)
    assert plan.steps == ()
    assert {left.why for left in plan.left} == {SET_TO_COPY}
    assert done.linked == ()


def test_another_cache_type_makes_a_plan_stale(tmp_path: Path) -> None:
    world = dvc_world(tmp_path, "hardlink")
    project = find_project(world.root)
    plan = plan_links(world.root, DigestCache(None), project=project)[0]
    world.dvc("config", "cache.type", "symlink")
    with pytest.raises(StalePlanError, match=r"cache\.type"):
        check(House(project.root, project), plan)


def test_a_damaged_object_replaces_nothing(tmp_path: Path) -> None:
    world = dvc_world(tmp_path, "hardlink")
    project = find_project(world.root)
    plan = plan_links(world.root, DigestCache(None), project=project)[0]
    step = next(step for step in plan.steps if step.path == "model.bin")
    cached = world.cache / "files/md5" / step.oid[:2] / step.oid[2:]
    status = cached.stat()
    cached.chmod(0o644)
    with open(cached, "r+b") as stream:  # the same length, inode and time
        stream.write(b"X")
    os.utime(cached, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = apply_plan(House(project.root, project), plan)
    assert [path for path, _ in done.left] == ["model.bin"]
    assert (world.root / "model.bin").read_text() == "m" * SIZE
    assert not (world.root / "model.bin").is_symlink()


def test_commands(folder: Path) -> None:
    plain = World(three(folder), make_home(folder.parent))
    assert "Nothing was changed" in plain.holdfast("dedup", "plan", "-o", "plan.json").stdout
    before = tree(folder)
    shown = plain.holdfast("dedup", "apply", "plan.json").stdout
    assert "It fits" in shown
    assert tree(folder) == before
    done = json.loads(plain.holdfast("dedup", "apply", "plan.json", "--yes", "--json").stdout)
    assert done["linked"] == ["deep/mid.bin", "new.bin"]
    assert "Nothing is stored twice" in plain.holdfast("dedup", "report").stdout
    assert done["batch"][:12] in plain.holdfast("dedup", "list").stdout
    assert plain.holdfast("dedup", "restore", done["batch"][:8], "new.bin").stdout == "1 original came back.\n"
    assert plain.holdfast("dedup", "restore", "plan.json").stdout == "1 original came back.\n"
    assert plain.holdfast("dedup", "list").stdout == "No original waits.\n"
    assert tree(folder) == before
    plan = folder / "plan.json"
    plan.write_text(plan.read_text().replace("new.bin", "other.bin"))
    refused = plain.holdfast("dedup", "apply", "plan.json", "--yes", code=14)
    assert "changed by hand" in refused.stderr
    plain.holdfast("dedup", "plan", "-o", "plan.json")
    plain.holdfast("dedup", "apply", "plan.json", "--yes")
    assert plain.holdfast("dedup", "purge", "--yes").stdout == "No original has waited so long.\n"
    assert "2 originals (65.5 kB) would be deleted" in plain.holdfast("dedup", "purge", "plan.json").stdout
    assert len(batches(house(folder))) == 1
    assert plain.holdfast("dedup", "purge", "--older-than", "0s", "--yes").stdout == "Deleted 2 originals (65.5 kB).\n"
    assert batches(house(folder)) == []
    assert tree(folder).keys() >= before.keys()
    write(folder / "new.bin", "a", SIZE)
    write(folder / "deep" / "mid.bin", "a", SIZE)
    plain.holdfast("dedup", "plan", "-o", "plan.json")
    (folder / "deep" / "mid.bin").write_text("changed")
    assert "deep/mid.bin" in plain.holdfast("dedup", "apply", "plan.json", "--yes", code=14).stderr
    assert unfinished(house(folder)) == []
