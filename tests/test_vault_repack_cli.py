"""`holdfast vault repack` and `purge`, as a user meets them."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from worlds import World, make_repository

STEPS = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Five versions of a model at one path, pushed as they came; the second is tagged."""
    world = make_repository(tmp_path_factory.mktemp("made"))
    vault = world.root.parent / "vault"
    world.write("holdfast.yaml", f"vault:\n  url: {vault}\n")
    world.holdfast("vault", "init")
    torch.manual_seed(0)
    weights = torch.randn(400, 400) * 0.02
    for number in range(STEPS):
        torch.save({"layer.weight": weights.bfloat16()}, world.root / "model.pt")
        world.dvc("add", "-q", "model.pt")
        world.commit(f"version {number}")
        if number == 1:
            world.git("tag", "release")
        world.holdfast("push")
        weights = weights + torch.randn(400, 400) * 1e-4
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    shutil.copytree(made.root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    world = World(tmp_path / "repository", tmp_path / "home")
    world.write("holdfast.yaml", f"vault:\n  url: {tmp_path / 'vault'}\n")
    return world


def read(world: World, *arguments: str) -> dict:  # type: ignore[type-arg]
    return json.loads(world.holdfast(*arguments, "--json").stdout)


def kept(world: World) -> list[Path]:
    return sorted(path for path in (world.root.parent / "vault").rglob("*") if path.is_file())


def pulled_alike(world: World) -> None:
    """Every version comes back out of the vault."""
    before = {path.name: path.read_bytes() for path in (world.cache / "files/md5").rglob("*") if path.is_file()}
    shutil.rmtree(world.cache / "files")
    world.holdfast("fetch", "-A")
    after = {path.name: path.read_bytes() for path in (world.cache / "files/md5").rglob("*") if path.is_file()}
    assert after == before
    assert len(after) == STEPS


def test_the_default_is_a_plan(world: World) -> None:
    before = kept(world)
    assert "nothing to repack" in world.holdfast("vault", "repack").stdout  # all of it was pushed today
    shown = world.holdfast("vault", "repack", "--recent", "0").stdout
    assert "model.pt" in shown
    assert "`holdfast vault repack --yes`" in shown
    assert kept(world) == before


def test_repack_purge_and_pull(world: World) -> None:
    raw = read(world, "vault", "stats")
    done = read(world, "vault", "repack", "--recent", "0", "--yes")
    assert done["statistics"]["files"] >= 3
    waiting = read(world, "vault", "stats")
    assert waiting["condemned_bytes"] == sum(done["condemned"].values()) > 0
    assert "wait for `holdfast vault purge`" in world.holdfast("vault", "stats").stdout
    assert read(world, "vault", "purge")["packs"] == []  # not before two weeks
    shown = world.holdfast("vault", "purge", "--older-than", "0").stdout
    assert shown.startswith("Would delete")
    assert read(world, "vault", "purge", "--older-than", "0s", "--yes")["bytes"] == waiting["condemned_bytes"]
    after = read(world, "vault", "stats")
    assert after["condemned_bytes"] == 0
    assert after["stored_bytes"] < raw["stored_bytes"]
    assert "is clean" in world.holdfast("vault", "check", "--read-data").stdout
    newest = read(world, "vault", "explain", "model.pt")
    assert newest["depth"] == 0
    pulled_alike(world)
    assert "nothing to repack" in world.holdfast("vault", "repack", "--recent", "0").stdout


def test_what_is_tagged_is_read_as_quickly_as_before(world: World) -> None:
    oid = world.git("show", "release:model.pt.dvc").split("md5: ")[-1].split()[0]
    world.holdfast("vault", "repack", "--recent", "0", "--yes")
    world.holdfast("vault", "purge", "--older-than", "0", "--yes")
    tagged = read(world, "vault", "explain", f"md5:{oid}")
    assert sum(part["stored"] for part in tagged["parts"]) + tagged["base_bytes"] <= tagged["size"]


def test_a_plan_is_looked_at_and_applied(world: World) -> None:
    plan = world.root / "plan.json"
    shown = world.holdfast("vault", "repack", "--recent", "0", "-o", "plan.json").stdout
    assert "`holdfast vault repack --apply plan.json`" in shown
    assert [file["path"] for file in json.loads(plan.read_text())["files"]].count("model.pt") >= 3
    world.holdfast("vault", "repack", "--apply", "plan.json", "--recent", "0")
    world.holdfast("vault", "purge", "--older-than", "0", "--yes")
    pulled_alike(world)
    # the vault is not what it was when the plan was made
    assert (
        "has changed since the plan was made"
        in world.holdfast("vault", "repack", "--apply", "plan.json", code=14).stderr
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("repack", "--recent", "soon"), 2, "no length of time"),
        (("repack", "--apply", "holdfast.yaml"), 2, "is no plan"),
        (("repack", "--apply", "other.json"), 2, "is a plan for s3://elsewhere"),
        (("repack", "--apply", "other.json", "--yes"), 2, "--apply"),
        (("purge", "--older-than", "-1"), 2, "no length of time"),
    ],
)
def test_bad_input(world: World, arguments: tuple[str, ...], code: int, words: str) -> None:
    world.write("other.json", json.dumps({"format": "holdfast vault repack plan 1", "vault": "s3://elsewhere"}))
    assert words in world.holdfast("vault", *arguments, code=code).stderr


def test_a_push_that_was_killed_is_told_of(world: World) -> None:
    (world.root.parent / "vault/sessions").mkdir(exist_ok=True)
    (world.root.parent / "vault/sessions" / ("ab" * 16)).write_text("ab" * 16)
    done = world.holdfast("vault", "repack", "--recent", "0", "--wait", "0s", "--yes", code=3)
    assert "1 push under way" in done.stderr
    assert "--grace 0" in done.stderr
    pulled_alike(world)
    assert "Deleted" in world.holdfast("vault", "purge", "--older-than", "0", "--grace", "0", "--yes").stdout
    pulled_alike(world)
