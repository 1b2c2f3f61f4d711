"""Commands killed before any of their steps: nothing is lost, and the same command, run again, ends what was begun."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from forks import Forks
from gc_world import (
    NO_AGE,
    NOW,
    add_remote,
    bury,
    held_of,
    make_vault,
    oid_of,
    plan_of,
    push_files,
    send,
    tree,
    vault_is_clean,
)
from holdfast.cli.naming import open_objects
from holdfast.repo.cache import object_path
from holdfast.vault.repository import open_vault
from removal_child import STEPS
from worlds import World, make_repository

MEMORY = Path("/dev/shm")
TEXTS = ("tracked", "one", "two", "again")
GOING = ("one", "two", "again")
REMOTES, VAULTS = ("storage",), ("",)
SCOPES = ("cache", "remote", "vault")
# a vault writes through a library of its own, whose calls are steps as well
STORE = tuple(
    f"holdfast.objectstore.folder:FolderStore.{verb}"
    for verb in ("put", "put_file", "put_if_absent", "delete", "delete_many", "get", "head")
)
STRIDES = {"apply": 19, "restore": 13, "purge": 13}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks([*(f"os:{name}" for name in STEPS), *STORE]) as server:
        yield server


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tracked file and three that nothing needs, in the cache, a remote and a vault; where syncing is quick."""
    folder = MEMORY / f"holdfast-{uuid.uuid4().hex}" if MEMORY.is_dir() else tmp_path_factory.mktemp("base")
    world = make_repository(folder / "base")
    store = folder / "base/store"
    store.mkdir()
    add_remote(world, "storage", "../../store", default=True)
    world.write("holdfast.yaml", NO_AGE)
    tracked = world.track("data.csv", "tracked")
    world.commit("first")
    send(world, store, tracked, *bury(world, *GOING))
    make_vault(store / "vault")
    push_files(store / "vault", *TEXTS)
    yield folder
    shutil.rmtree(folder)


def fresh(base: Path) -> World:
    """A copy of the world in which nothing has happened."""
    shutil.rmtree(base / "world", ignore_errors=True)
    shutil.copytree(base / "base", base / "world", symlinks=True)
    return World(base / "world/repository", base / "world/home")


def store_of(world: World) -> Path:
    return world.root.parent / "store"


def objects(world: World) -> dict[str, object]:
    """The cache's and the remote's objects, where they should be."""
    remote = {path: found for path, found in tree(store_of(world)).items() if not path.startswith("vault/")}
    return {"cache": tree(world.cache), "remote": remote}


def nothing_is_lost(world: World, texts: tuple[str, ...] = TEXTS) -> None:
    """Every object is in its place or waits, in each of the three places, whole."""
    waiting = {(one.scope, one.oid) for one in held_of(world, REMOTES, VAULTS)}
    for text in texts:
        oid = oid_of(text)
        for scope, folder in (("cache", world.cache), ("remote", store_of(world))):
            path = object_path(folder, "md5", oid)
            assert path.is_file() or (scope, oid) in waiting, (scope, text)
            assert not path.is_file() or path.read_text() == text
    with open_vault(open_objects(str(store_of(world) / "vault")), None, jobs=1) as vault:
        assert vault.exists([f"md5:{oid_of(text)}" for text in texts]) == {f"md5:{oid_of(text)}" for text in texts}
    vault_is_clean(str(store_of(world) / "vault"))


def steps(verb: str, full: bool) -> Iterator[int]:
    yield from range(1, 10_000, 1 if full else STRIDES[verb])


def plan_in(world: World) -> str:
    path = world.root.parent / "plan.json"
    path.write_text(plan_of(world, *SCOPES, remotes=REMOTES, vaults=VAULTS).to_file())
    return str(path)


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "all"])
def test_apply(forks: Forks, base: Path, full: bool) -> None:
    killed = 0
    for step in steps("apply", full):
        world = fresh(base)
        before = objects(world)
        arguments = ("gc", "apply", plan_in(world), "--allow-last-copy")
        done = forks.holdfast(world, *arguments, kill_at=step)
        if done.code == 0:
            break
        assert done.code == -9, (step, done)
        killed += 1
        nothing_is_lost(world)
        begun = (world.root / ".dvc/tmp/holdfast/collecting.json").is_file()
        # without a plan the command goes on with what was interrupted; the copying that was cut off is given up
        again = ("gc", "apply", "--allow-last-copy") if begun else arguments
        over = not begun and any((world.root / ".dvc/tmp/holdfast/collected").glob("*.json"))
        told = forks.holdfast(world, *again, "--grace", "0", code=14 if over else 0).stderr
        assert ("was carried out already" in told) is over
        nothing_is_lost(world)
        waiting = {(one.scope, one.oid) for one in held_of(world, REMOTES, VAULTS)}
        assert waiting == {(scope, oid_of(text)) for scope in SCOPES for text in GOING}
        assert not (world.root / ".dvc/tmp/holdfast/collecting.json").exists()
        forks.holdfast(world, "gc", "restore", *(oid_of(text) for text in GOING))
        assert objects(world) == before
    assert killed >= (30 if full else 4)
    print(f"apply was killed {killed} times")


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "all"])
def test_restore(forks: Forks, base: Path, full: bool) -> None:
    killed = 0
    for step in steps("restore", full):
        world = fresh(base)
        before = objects(world)
        forks.holdfast(world, "gc", "apply", plan_in(world), "--allow-last-copy")
        done = forks.holdfast(world, "gc", "restore", *(oid_of(text) for text in GOING), kill_at=step)
        if done.code == 0:
            break
        assert done.code == -9, (step, done)
        killed += 1
        nothing_is_lost(world)
        left = {one.oid for one in held_of(world, REMOTES, VAULTS)}
        if left:
            forks.holdfast(world, "gc", "restore", *left)
        assert held_of(world, REMOTES, VAULTS) == []
        assert objects(world) == before
        nothing_is_lost(world)
    assert killed >= (30 if full else 3)
    print(f"restore was killed {killed} times")


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "all"])
def test_purge(forks: Forks, base: Path, full: bool) -> None:
    killed = 0
    for step in steps("purge", full):
        world = fresh(base)
        forks.holdfast(world, "gc", "apply", plan_in(world), "--allow-last-copy")
        world.write("again.dvc", f"outs:\n- md5: {oid_of('again')}\n  hash: md5\n  path: again\n")
        done = forks.holdfast(world, "gc", "purge", "--yes", kill_at=step)
        if done.code == 0:
            break
        assert done.code == -9, (step, done)
        killed += 1
        # what was to be deleted may be gone; what is needed is not
        nothing_is_lost(world, ("tracked", "again"))
        forks.holdfast(world, "gc", "purge", "--yes")
        assert held_of(world, REMOTES, VAULTS) == []
        for folder in (world.cache, store_of(world)):
            assert object_path(folder, "md5", oid_of("again")).read_text() == "again"
            assert not object_path(folder, "md5", oid_of("one")).exists()
        nothing_is_lost(world, ("tracked", "again"))
        assert not plan_of(world, "cache", "remote", remotes=REMOTES, now=NOW).removed
    assert killed >= (30 if full else 3)
    print(f"purge was killed {killed} times")
