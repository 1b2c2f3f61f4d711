"""Commands killed before any of their steps: nothing is lost, and the same command, run again, ends what was begun."""

import shutil
import uuid
from collections.abc import Callable, Iterator
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


def killed_at_each_step(
    forks: Forks, base: Path, verb: str, full: bool, prepare: Callable[[World], tuple[str, ...]]
) -> Iterator[World]:
    """Worlds in which a command was killed, each before a later step of it, until it comes to its end.

    Args:
        forks: of which process the command is a fork.
        base: of `fresh`.
        verb: of the command.
        full: before every step; else before some.
        prepare: makes a new world ready; gives the command.
    """
    killed = 0
    for step in range(1, 10_000, 1 if full else STRIDES[verb]):
        world = fresh(base)
        done = forks.holdfast(world, *prepare(world), kill_at=step)
        if done.code == 0:
            break
        assert done.code == -9, (step, done)
        killed += 1
        yield world
    assert killed >= (30 if full else 3)
    print(f"{verb} was killed {killed} times")


def plan_in(world: World) -> str:
    path = world.root.parent / "plan.json"
    path.write_text(plan_of(world, *SCOPES, remotes=REMOTES, vaults=VAULTS).to_file())
    return str(path)


def apply_in(forks: Forks, world: World) -> None:
    forks.holdfast(world, "gc", "apply", plan_in(world), "--allow-last-copy")


SOME_AND_ALL = pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["some", "all"])


@SOME_AND_ALL
def test_apply(forks: Forks, base: Path, full: bool) -> None:
    before, copying = objects(fresh(base)), 0
    command = ("gc", "apply", "../plan.json", "--allow-last-copy")

    def prepare(world: World) -> tuple[str, ...]:
        plan_in(world)
        return command

    for world in killed_at_each_step(forks, base, "apply", full, prepare):
        nothing_is_lost(world)
        copying += any((store_of(world) / "vault/sessions").iterdir())
        begun = (world.root / ".dvc/tmp/holdfast/collecting.json").is_file()
        # without a plan the command goes on with what was interrupted; for copying that was cut off it does not wait
        again = ("gc", "apply", "--allow-last-copy") if begun else command
        over = not begun and any((world.root / ".dvc/tmp/holdfast/collected").glob("*.json"))
        told = forks.holdfast(world, *again, "--wait", "0s", code=14 if over else 0).stderr
        assert ("was carried out already" in told) is over
        nothing_is_lost(world)
        waiting = {(one.scope, one.oid) for one in held_of(world, REMOTES, VAULTS)}
        assert waiting == {(scope, oid_of(text)) for scope in SCOPES for text in GOING}
        assert not (world.root / ".dvc/tmp/holdfast/collecting.json").exists()
        forks.holdfast(world, "gc", "restore", *(oid_of(text) for text in GOING))
        assert objects(world) == before
    assert copying > 10 or not full


@SOME_AND_ALL
def test_restore(forks: Forks, base: Path, full: bool) -> None:
    before = objects(fresh(base))

    def prepare(world: World) -> tuple[str, ...]:
        apply_in(forks, world)
        return ("gc", "restore", *(oid_of(text) for text in GOING))

    for world in killed_at_each_step(forks, base, "restore", full, prepare):
        nothing_is_lost(world)
        left = {one.oid for one in held_of(world, REMOTES, VAULTS)}
        if left:
            forks.holdfast(world, "gc", "restore", *left)
        assert held_of(world, REMOTES, VAULTS) == []
        assert objects(world) == before
        nothing_is_lost(world)


@SOME_AND_ALL
def test_purge(forks: Forks, base: Path, full: bool) -> None:
    def prepare(world: World) -> tuple[str, ...]:
        apply_in(forks, world)
        world.write("again.dvc", f"outs:\n- md5: {oid_of('again')}\n  hash: md5\n  path: again\n")
        return ("gc", "purge", "--yes")

    for world in killed_at_each_step(forks, base, "purge", full, prepare):
        # what was to be deleted may be gone; what is needed is not
        nothing_is_lost(world, ("tracked", "again"))
        forks.holdfast(world, "gc", "purge", "--yes")
        assert held_of(world, REMOTES, VAULTS) == []
        for folder in (world.cache, store_of(world)):
            assert object_path(folder, "md5", oid_of("again")).read_text() == "again"
            assert not object_path(folder, "md5", oid_of("one")).exists()
        nothing_is_lost(world, ("tracked", "again"))
        assert not plan_of(world, "cache", "remote", remotes=REMOTES, now=NOW).removed
