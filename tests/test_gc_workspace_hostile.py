"""Workspaces that are no tidy trees: other repositories, stores, environments, odd names, closed folders, many files."""

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from holdfast.formats.cache import DigestCache
from holdfast.gc.planned import Found
from holdfast.gc.policy import Policy
from holdfast.gc.runs import find_runs
from holdfast.gc.workspace_tree import walk_tree, whole_folders
from holdfast.removal.folder import FolderPlace
from holdfast.repo.workspace import find_project
from test_gc_runs import write_test_run
from test_gc_workspace import fates, going, line, look, plant_kit
from worlds import World, make_repository

NOBODY = 65534


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_repository(tmp_path)


def look_at_runs(world: World) -> Found:
    now = datetime.now(timezone.utc) + timedelta(days=30)
    project = find_project(world.folder)
    return find_runs(project, ["."], Policy(), DigestCache(None), now=now, vault=None, no_vault="none")


@pytest.fixture
def open_world() -> Iterator[World]:
    """A world that every user may enter; pytest's own folders are private to the user who runs it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield make_repository(Path(folder))


def test_other_repositories_are_left_alone(world: World, tmp_path: Path) -> None:
    plant_kit(world)
    other = make_repository(tmp_path / "other")
    plant_kit(other)
    write_test_run(other, "runs/try_20250525_070000")
    other.commit("all")
    world.git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(other.root), "sub")
    shutil.copytree(other.root, world.root / "kit" / "clone")
    (world.root / "app" / ".dvc").mkdir(parents=True)
    world.write("app/__pycache__/a.pyc", "x")
    world.write("app/a.py", "open('../kit/file_1.csv')\n")
    found = look(world, accept=["*"])
    # what lies around another repository is no folder that may go as a whole
    assert {item.path for item in going(found)} == {f"kit/file_{number}.csv" for number in range(4)}
    assert line(found, "kit/file_1.csv").users == ("app/a.py:1",)
    assert fates(look(world)) == {"kit": ("keep", "decision")}
    assert [note for note in found.notes if "left alone" in note] == [
        "app is a DVC project of its own and is left alone: `holdfast --cd` there looks at it",
        "kit/clone is a git repository of its own and is left alone: it has its own history",
        "sub is a git repository of its own and is left alone: it has its own history",
    ]
    runs = look_at_runs(world)
    assert runs.objects == ()
    assert "sub is a git repository of its own: its runs are left alone" in runs.notes


def test_a_twin_in_another_repository_is_no_copy(world: World) -> None:
    for number in range(4):
        world.write(f"nested/file_{number}.csv", f"text {number}")
        world.write(f"a/b/kit/file_{number}.csv", f"text {number}")
    assert fates(look(world)) == {"a": ("remove", "copies")}
    (world.root / "nested" / ".git").mkdir()
    assert fates(look(world)) == {"a": ("keep", "decision")}


def test_stores_in_the_workspace(world: World) -> None:
    world.write(".dvc/config", "[cache]\n    dir = ../my cache\n['remote \"near\"']\n    url = ../near[1]\n")
    world.write("holdfast.yaml", "vault: {url: ./vault}\nworkspace: {remove: ['**/*.pt']}\n")
    data = os.urandom(300)
    for folder in ("my cache", "near[1]", "vault", "unknown"):
        world.write(f"{folder}/files/md5/aa/{'b' * 30}", data)
        world.write(f"{folder}/old/thing.pt", data)
        world.write(f"{folder}/__pycache__/x.pyc", data)
    world.write("a.pt", data)
    found = look(world)
    # DVC's objects are told by their place, wherever it is; of a folder that nobody names the rest is the workspace's
    assert fates(found) == {
        "a.pt": ("remove", "declared"),
        "unknown/old": ("remove", "declared"),
        "unknown/__pycache__": ("remove", "cache"),
    }
    assert {item.last_copy for item in found.objects if item.reason == "declared"} == {True}


def test_environments_and_what_tools_own(world: World) -> None:
    plant_kit(world)
    world.write("env/pyvenv.cfg", "home = /usr")
    for folder in ("env/lib/python3/site-packages", "env/share", "node_modules/x", "kit/node_modules/y", ".tox/py"):
        world.write(f"{folder}/__pycache__/a.pyc", "x")
        world.write(f"{folder}/model.pt.bak", "x")
        write_test_run(world, f"{folder}/try_20250525_070000")
    found = look(world)
    assert {item.path for item in found.objects} == {f"kit/file_{number}.csv" for number in range(4)}
    assert {item.path for item in look_at_runs(world).objects} == set()


def test_links_are_not_followed(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for number in range(4):
        world.write(f"file_{number}.csv", f"text {number}")
        (outside / "kit").mkdir(parents=True, exist_ok=True)
        (outside / "kit" / f"file_{number}.csv").write_text(f"text {number}")
    (outside / "__pycache__").mkdir()
    (outside / "__pycache__" / "a.pyc").write_text("x")
    (world.root / "kit").symlink_to(outside / "kit")
    (world.root / "out").symlink_to(outside)
    (world.root / "circle").symlink_to(".")
    assert look(world, accept=["*"]).objects == ()


def test_links_pipes_and_read_only_files_in_a_folder_that_goes(world: World, tmp_path: Path) -> None:
    plant_kit(world)
    kit = world.root / "kit"
    (kit / "link").symlink_to("../file_1.csv")
    (kit / "file_2.csv").chmod(0o444)
    kit.chmod(0o555)
    found = look(world)
    assert fates(found) == {"kit": ("remove", "copies")}
    place = FolderPlace(world.root, tmp_path / "waiting")
    assert not place.take("ab" * 16, b"plan", list(place.look(["kit"]).values())).left
    assert not kit.exists()
    place.restore("ab" * 16)
    assert (kit / "link").readlink() == Path("../file_1.csv")
    assert (kit / "file_2.csv").stat().st_mode & 0o777 == 0o444
    kit.chmod(0o755)
    os.mkfifo(kit / "pipe")
    assert {item.path for item in going(look(world))} == {f"kit/file_{number}.csv" for number in range(4)}


def test_names_that_are_no_utf8(world: World, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9 \xff\n[1]*")
    plant_kit(world, count=9)
    for folder in ("", "kit/"):
        world.write(f"{folder}{odd}", "text")
    world.write("kit2", "x")
    write_test_run(world, f"runs/{odd}_20250525_070000")
    found = look(world)
    assert fates(found) == {"kit": ("remove", "copies")}
    (world.root / odd).unlink()
    assert fates(look(world)) == {"kit": ("keep", "decision")}
    world.commit("odd")
    assert fates(look(world)) == {"kit": ("remove", "copies")}
    assert "git tracks all" in line(look(world), "kit").why
    runs = look_at_runs(world)
    assert fates(runs) == {f"runs/{odd}_20250525_070000": ("remove", "test")}
    place = FolderPlace(world.root, tmp_path / "waiting")
    assert list(place.look([item.path for item in runs.objects])) == [f"runs/{odd}_20250525_070000"]


def test_a_folder_that_cannot_be_read_keeps_all_but_caches(open_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
        monkeypatch.setenv(name, str(open_world.home))  # those of the one who runs the test are his own
    world = open_world
    plant_kit(world)
    world.write("a.py", "")
    world.write("__pycache__/a.cpython-311.pyc", "x")
    write_test_run(world, "runs/try_20250525_070000")
    write_test_run(world, "runs/try_20250525_080000")
    closed = world.root / "runs" / "try_20250525_080000" / "secret"
    closed.mkdir()
    closed.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # root reads everything
    try:
        found, runs = look(world), look_at_runs(world)
    finally:
        os.seteuid(user)
        closed.chmod(0o755)
    assert fates(found) == {"kit": ("keep", "undecided"), "__pycache__": ("remove", "cache")}
    (doubt,) = found.doubts
    path = "runs/try_20250525_080000/secret"
    assert doubt.text.startswith(f"{path} cannot be read (Permission denied)")
    assert f"chmod u+rx {path}" in doubt.way_out
    assert set(fates(runs).values()) == {("keep", "undecided")}
    assert line(runs, "runs/try_20250525_080000").why.endswith(f"it holds {path}: it cannot be read")
    assert len(runs.doubts) == 1
    assert fates(look(world))["kit"] == ("remove", "copies")


def test_whole_folders_are_never_more_than_what_goes(tmp_path: Path) -> None:
    """Against a plain walk: each path holds what goes and nothing else, and no two can be one."""
    for seed in range(60):
        rng = random.Random(seed)
        root = tmp_path / str(seed)
        for _ in range(rng.randint(1, 25)):
            place = "/".join(rng.choice(("a", "b", "a.b", "a0")) for _ in range(rng.randint(1, 4)))
            target = root / place / rng.choice(("x", "y", ".git/z", "node_modules/q"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("x")
        if rng.random() < 0.3:
            os.mkfifo(root / "pipe")
        tree = walk_tree(root, project="", closed=frozenset())
        share = rng.choice((0.3, 0.9, 1.0))
        chosen = {label for label in tree.files if rng.random() < share}
        paths = whole_folders(tree, chosen, ())
        on_disk = [place.relative_to(root).as_posix() for place in root.rglob("*") if not place.is_dir()]
        held = {path: {label for label in on_disk if f"{label}/".startswith(f"{path}/")} for path in paths}
        assert set().union(*held.values()) == chosen
        assert sum(map(len, held.values())) == len(chosen)
        assert {path: set(files) for path, files in paths.items()} == held
        for path in paths:
            above = path.rpartition("/")[0]
            inside = {label for label in on_disk if label.startswith(f"{above}/")}
            assert not above or not inside <= chosen or tree.owner(above) is not None


def test_many_files_stay_few_questions(world: World, tmp_path: Path) -> None:
    """A tree of 6,000 files: what is known is not read again, and a package of 1,500 copies is one line."""
    rng = random.Random(5)
    for folder in range(60):
        for number in range(75):
            world.write(f"data/d{folder}/i{number}.bin", rng.randbytes(rng.randint(40, 4000)))
    for folder in range(20):
        shutil.copytree(world.root / "data" / f"d{folder}", world.root / "kits" / "spare" / f"d{folder}")
    read = 0

    def clock() -> int:
        nonlocal read
        read += 1
        return 2**62

    with DigestCache(tmp_path / "digests", clock) as cache:
        found = look(world, cache=cache)
        assert fates(found) == {"kits": ("remove", "copies")}
        assert line(found, "kits").size == sum(p.stat().st_size for p in world.root.glob("kits/spare/*/*"))
        assert read >= 2 * 1500
        read = 0
        assert look(world, cache=cache).objects[0].why == found.objects[0].why
        assert read == 0
