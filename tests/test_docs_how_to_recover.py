"""How to recover from a mistake: each mistake is made in a real project, and the page's own commands mend it."""

import hashlib
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forks import ForkedWorld, Forks
from gc_world import age
from holdfast.formats.digest import file_md5
from holdfast.objectstore.opening import open_store
from holdfast.registry.store import Registry
from holdfast.repo.cache import object_path
from holdfast.vault.repository import open_vault
from how_to_world import Page
from registry_world import weights
from removal_child import STEPS
from worlds import World, make_repository

MODEL = "album/scorer"
STABLE = "models/album/scorer.safetensors"
SECRET = "AKIA0123456789EXAMPLE"
CLEAN = "Data and pipelines are up to date."
CENSUS = "".join(f"{number},{20 + number % 60}\n" for number in range(1000))
NO_AGE = "gc:\n  minimum_age: 0d\n"

Scene = Callable[[ForkedWorld, Page], None]
SCENES: dict[str, Scene] = {}


def scene(heading: str) -> Callable[[Scene], Scene]:
    """The section whose commands a function runs."""

    def add(function: Scene) -> Scene:
        assert heading not in SCENES
        SCENES[heading] = function
        return function

    return add


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    steps = [*(f"os:{name}" for name in STEPS), "holdfast.objectstore.folder:FolderStore.put_if_absent"]
    with Forks(steps) as server:
        yield server


@pytest.fixture(scope="module")
def page(forks: Forks) -> Page:
    return Page("how-to/recover-from-a-mistake.md", forks)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    """A project with two promoted versions, all of it in a vault, and two candidates more in their runs' folders."""
    folder = tmp_path_factory.mktemp("base")
    made = make_repository(folder)
    world = ForkedWorld(made.root, made.home, forks=forks)
    (folder / "store").mkdir()
    world.write(".dvc/config", "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../store\n")
    world.write(".gitignore", "/outputs/\n")
    for number in range(1, 5):
        weights(world.root / f"outputs/run_{number}/best.safetensors", float(number), shape=(64, 256))
        world.write(f"outputs/run_{number}/metrics.json", json.dumps({"accuracy": 0.9 + number / 100}))
    world.commit("Runs")
    for number in (1, 2):
        promote(world, number)
        world.commit(f"album/scorer: v{number}")
    world.holdfast("vault", "init")
    world.holdfast("push")
    return folder


@pytest.fixture
def world(base: Path, forks: Forks, tmp_path: Path) -> ForkedWorld:
    shutil.copytree(base, tmp_path / "world", symlinks=True)
    return ForkedWorld(tmp_path / "world/repository", tmp_path / "world/home", forks=forks)


def promote(world: World, number: int) -> None:
    run = f"outputs/run_{number}"
    world.holdfast(
        "registry", "promote", f"{run}/best.safetensors", "--as", MODEL, "--metrics", f"{run}/metrics.json", "--yes"
    )


def store_of(world: World) -> Path:
    return world.root.parent / "store"


def clone_of(world: ForkedWorld, name: str) -> ForkedWorld:
    """Another clone of the same commits, beside this one, with a cache of its own that has everything."""
    cloned = ForkedWorld(world.root.parent / name, world.home, forks=world.forks)
    world.git("clone", "-q", str(world.root), str(cloned.root))
    shutil.copytree(world.cache, cloned.cache)
    return cloned


def in_use(world: World, number: int) -> None:
    """The version, the labels, the stable file and what DVC has of it are one, the model of that run."""
    model = Registry(world.root).model(MODEL)
    wanted = file_md5(world.root / f"outputs/run_{number}/best.safetensors")
    assert model.named(None).oid == model.named("production").oid == wanted
    assert file_md5(world.root / STABLE) == wanted
    world.holdfast("registry", "verify", "--offline")


def forget(world: World, *paths: str) -> None:
    """Delete files of the project."""
    for path in paths:
        target = world.root / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()


def has(world: World, oid: str, store: str = "store/vault") -> bool:
    with open_vault(open_store(str(world.root.parent / store)), None) as vault:
        return bool(vault.exists([oid]))


def lying(world: World, oids: list[str]) -> list[str]:
    """Those that are in the cache."""
    return [oid for oid in oids if object_path(world.cache, "md5", oid).exists()]


def oid_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


@scene("The wrong model was promoted")
def not_committed(world: ForkedWorld, page: Page) -> None:
    world.write("notes.txt", "what else is being worked on")
    promote(world, 3)
    page.walk("The wrong model was promoted", world)
    in_use(world, 2)
    assert world.git("status", "--porcelain") == "?? notes.txt"
    promote(world, 4)
    assert Registry(world.root).model(MODEL).current == "v3"


@scene("The wrong model was promoted and committed")
def committed(world: ForkedWorld, page: Page) -> None:
    promote(world, 3)
    world.commit("album/scorer: v3")
    planned, *_ = page.walk("The wrong model was promoted and committed", world)
    assert "Would move current and production of album/scorer from v3 to v2." in planned
    in_use(world, 2)
    assert world.git("status", "--porcelain") == ""
    assert Registry(world.root).model(MODEL).deprecations["v3"].reason == "trained on the test set"
    promote(world, 4)
    assert Registry(world.root).model(MODEL).current == "v4"


@scene("A checkpoint was deleted")
def deleted(world: ForkedWorld, page: Page) -> None:
    """The page's three cases, each on top of the one before."""
    steps = page.sections()["A checkpoint was deleted"]
    assert [step.command.split()[1] for step in steps] == [
        "pull",
        "restore",
        "pull",
        "log",
        "restore",
        "pull",
        "registry",
    ]
    forget(world, STABLE, ".dvc/cache/files")
    page.run(steps[0], world)
    in_use(world, 2)
    forget(world, STABLE, f"{STABLE}.dvc", ".dvc/cache/files")
    for step in steps[1:3]:
        page.run(step, world)
    in_use(world, 2)
    world.git("rm", "-q", f"{STABLE}.dvc")
    commit = world.commit("Tidy up")
    forget(world, STABLE, ".dvc/cache/files")
    for step in steps[3:]:
        page.run(step, world, {"5aa974f": commit[:7]})
    in_use(world, 2)
    assert file_md5(world.root / "scorer-v1.safetensors") == file_md5(world.root / "outputs/run_1/best.safetensors")


def lose_a_branch(world: ForkedWorld) -> str:
    """A branch with a file is pushed and deleted, long ago as far as the vault knows; its commit."""
    world.write("holdfast.yaml", NO_AGE)
    world.commit("Policy")
    world.git("switch", "-q", "-c", "census")
    world.track("data.csv", CENSUS)
    commit = world.commit("Census")
    world.holdfast("push")
    world.git("switch", "-q", "main")
    world.git("branch", "-q", "-D", "census")
    age(store_of(world).rglob("*"))
    return commit[:7]


def collect(world: ForkedWorld) -> str:
    """What nothing needs is taken away; the plan's short name."""
    world.holdfast("gc", "plan", "--scope", "cache,vault", "-o", "../plan.json")
    world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy")
    (plan,) = {item["plan"] for item in json.loads(world.holdfast("gc", "list", "--json").stdout)["held"]}
    return str(plan)[:12]


@scene("A collection took too much")
def collected(world: ForkedWorld, page: Page) -> None:
    commit = lose_a_branch(world)
    plan = collect(world)
    page.walk("A collection took too much", world, {"3f2a91c04b7d": plan, "9c0ffee": commit})
    assert has(world, f"md5:{oid_of(CENSUS)}")


@scene("What was purged is needed")
def purged(world: ForkedWorld, page: Page) -> None:
    lost = oid_of(CENSUS)
    commit = lose_a_branch(world)
    world.git("branch", "census", commit)
    world.git("switch", "-q", "census")
    clone_of(world, "colleague")
    world.git("switch", "-q", "main")
    world.git("branch", "-q", "-D", "census")
    collect(world)
    world.holdfast("gc", "purge", "--older-than", "0d", "--yes")
    assert not has(world, f"md5:{lost}")
    world.git("branch", "census", commit)
    world.git("switch", "-q", "census")
    # of v1 nobody has the bytes but its run
    first = Registry(world.root).model(MODEL).named("v1").oid
    object_path(world.cache, "md5", first).unlink()
    page.walk("What was purged is needed", world)
    assert (world.root / "data.csv").read_text() == CENSUS
    assert object_path(world.cache, "md5", first).is_file()
    world.holdfast("registry", "verify")


@scene("A merge left a conflict in the registry")
def merged(world: ForkedWorld, page: Page) -> None:
    world.git("switch", "-q", "-c", "theirs")
    promote(world, 4)
    world.commit("their v3")
    world.git("switch", "-q", "main")
    world.holdfast("pull")
    promote(world, 3)
    world.commit("our v3")
    page.walk("A merge left a conflict in the registry", world)
    in_use(world, 3)
    assert [version.name for version in Registry(world.root).model(MODEL).versions] == ["v1", "v2", "v3", "v4"]
    assert world.git("status", "--porcelain") == ""


@scene("A command was interrupted")
def interrupted(world: ForkedWorld, page: Page) -> None:
    assert world.forks is not None
    world.write("holdfast.yaml", NO_AGE)
    world.commit("Policy")
    junk = [world.store(f"nobody's {number}") for number in range(4)]
    world.holdfast("gc", "plan", "-o", "../plan.json")

    def kill(step: int, *arguments: str) -> None:
        done = world.forks.holdfast(world, *arguments, kill_at=step)  # type: ignore[union-attr]
        assert done.code == -signal.SIGKILL, (arguments, done)

    # whoever goes on is killed, too, a little later each time
    arguments, step = ["gc", "apply", "../plan.json", "--allow-last-copy"], 10
    while lying(world, junk):
        kill(step, *arguments)
        arguments, step = ["gc", "apply", "--allow-last-copy"], step + 4
    # all of it was moved, and it was not noted down that this was all
    journal = world.root / ".dvc/tmp/holdfast/collecting.json"
    assert journal.exists()
    run = "outputs/run_3"
    files = ("--as", MODEL, "--metrics", f"{run}/metrics.json", "--yes")
    kill(30, "registry", "promote", f"{run}/best.safetensors", *files)
    assert Registry(world.root).model(MODEL).current == "v2"
    steps = page.sections()["A command was interrupted"]
    page.run(steps[0], world)
    for step in steps[1:3]:
        page.run(replace(step, command=f"{step.command} --yes" if "promote" in step.command else step.command), world)
    before = sorted((store_of(world) / "vault/index").iterdir())
    kill(4, "push")
    assert sorted((store_of(world) / "vault/index").iterdir()) == before
    for step in steps[3:]:
        page.run(step, world)
    assert not journal.exists()
    assert len(json.loads(world.holdfast("gc", "list", "--json").stdout)["held"]) == len(junk)
    in_use(world, 3)
    assert has(world, f"md5:{file_md5(world.root / STABLE)}")


@scene("It was pushed to the wrong remote")
def wrong_remote(world: ForkedWorld, page: Page) -> None:
    promote(world, 3)
    world.commit("album/scorer: v3")
    world.holdfast("push")
    right = world.root.parent / "right"
    right.mkdir()
    config = world.root / ".dvc/config"
    config.write_text(config.read_text() + "['remote \"right\"']\n    url = ../../right\n")
    # the wrong vault is that of another project
    made = make_repository(world.root.parent / "other")
    made.root.rename(world.root.parent / "owner")
    owner = ForkedWorld(world.root.parent / "owner", world.home, forks=world.forks)
    owner.write(".dvc/config", "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../store\n")
    owner.commit("remote")
    clones = json.loads(owner.holdfast("gc", "roots", "list", "--json").stdout)["clones"]
    # the one that this world is a copy of is another clone
    (own,) = (clone["clone"][:12] for clone in clones if clone["files"] == 3)
    owner.holdfast("gc", "roots", "forget", *(clone["clone"] for clone in clones if clone["files"] != 3))
    page.walk("It was pushed to the wrong remote", world, {"5768cb2bbca4": own})
    assert json.loads(owner.holdfast("gc", "roots", "list", "--json").stdout)["clones"] == []
    oids = [version.oid for version in Registry(world.root).model(MODEL).versions]
    assert all(has(world, f"md5:{oid}", "right/vault") for oid in oids)
    assert all(file_md5(object_path(right, "md5", oid)) == oid for oid in oids)
    shutil.rmtree(store_of(world))
    forget(world, STABLE, ".dvc/cache/files")
    world.holdfast("pull")
    in_use(world, 3)


@scene("`dvc.lock` and the registry disagree")
def disagree(world: ForkedWorld, page: Page) -> None:
    """The stable path is the out of a stage; a merge took the wrong side's entry of it."""
    oids = {version.name: version.oid for version in Registry(world.root).model(MODEL).versions}
    forget(world, f"{STABLE}.dvc")
    world.write(
        "dvc.yaml", f"stages:\n  promote:\n    cmd: promote it\n    outs:\n    - {STABLE}:\n        persist: true\n"
    )

    def lock(oid: str) -> str:
        size = (world.root / "outputs/run_1/best.safetensors").stat().st_size
        out = f"    - path: {STABLE}\n      hash: md5\n      md5: {oid}\n      size: {size}\n"
        return f"schema: '2.0'\nstages:\n  promote:\n    cmd: promote it\n    outs:\n{out}"

    world.write("dvc.lock", lock(oids["v2"]))
    world.commit("A pipeline")
    world.holdfast("registry", "verify", "--offline")
    world.write("dvc.lock", lock(oids["v1"]))
    world.commit("A bad merge")
    forget(world, STABLE)
    shutil.copyfile(world.root / "outputs/run_1/best.safetensors", world.root / STABLE)
    page.walk("`dvc.lock` and the registry disagree", world)
    in_use(world, 2)
    assert (world.root / "dvc.lock").read_text() == lock(oids["v2"])


@scene("The vault has a damaged object")
def damaged_vault(world: ForkedWorld, page: Page) -> None:
    colleague = clone_of(world, "colleague")
    packs = store_of(world) / "vault/packs"
    (pack,) = (path for path in packs.rglob("*") if path.is_file())
    flip(pack)
    page.walk("The vault has a damaged object", world)
    forget(world, STABLE, ".dvc/cache/files")
    world.holdfast("pull")
    in_use(world, 2)
    # no cache here has it any more: that of a colleague has
    forget(world, STABLE, ".dvc/cache/files")
    shutil.rmtree(packs)
    assert "lost" in world.holdfast("vault", "repair", "--read-data", code=13).stderr
    colleague.holdfast("push")
    world.holdfast("pull")
    in_use(world, 2)


@scene("The cache has a damaged object")
def damaged_cache(world: ForkedWorld, page: Page) -> None:
    oid = Registry(world.root).model(MODEL).named("v1").oid
    path = object_path(world.cache, "md5", oid)
    flip(path)
    shown = {"a7/c4c1c2428e62c19c3728bf57f26353": f"{oid[:2]}/{oid[2:]}", "a7c4c1c2428e62c19c3728bf57f26353": oid}
    page.walk("The cache has a damaged object", world, shown)
    assert file_md5(path) == oid


def flip(path: Path) -> None:
    """Change a bit in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


@scene("A secret was pushed")
def secret(world: ForkedWorld, page: Page) -> None:
    world.write("holdfast.yaml", NO_AGE)
    world.commit("Policy")
    origin = world.root.parent / "origin.git"
    world.git("init", "-q", "--bare", str(origin))
    world.git("remote", "add", "origin", str(origin))
    text = f"id,key\n1,{SECRET}\n"
    oid = world.track("users.csv", text)
    world.write("users.csv", text)
    world.write(".gitignore", "/outputs/\n/users.csv\n")
    world.commit("Users")
    world.git("push", "-q", "-u", "origin", "main")
    world.holdfast("push")
    colleague = clone_of(world, "colleague")
    assert has(world, f"md5:{oid}")
    age(store_of(world).rglob("*"), days=1)
    page.walk("A secret was pushed", world)
    assert not has(world, f"md5:{oid}")
    for folder in (world.root, store_of(world), origin):
        found = [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
        assert found == []
    # what the page says that nobody can do from here
    assert object_path(colleague.cache, "md5", oid).read_text() == text
    in_use(world, 2)


@scene("The index of the vault is lost")
def no_index(world: ForkedWorld, page: Page) -> None:
    folder = world.root / ".dvc/tmp/holdfast"
    assert list(folder.glob("vaults/*/index.sqlite"))
    world.write(".dvc/tmp/holdfast/quarantine/kept", "")
    page.walk("The index of the vault is lost", world)
    assert list(folder.glob("vaults/*/index.sqlite"))
    assert (folder / "quarantine/kept").exists()


@pytest.mark.parametrize("heading", SCENES)
def test_the_page_mends_it(world: ForkedWorld, page: Page, heading: str) -> None:
    SCENES[heading](world, page)


def test_every_mistake_of_the_page_is_made(page: Page) -> None:
    assert list(page.sections()) == list(SCENES)
