"""`gc run --auto`: within the bounds of the policy it does what a plan says, beyond them nothing; its report says which."""

import json
from pathlib import Path

import pytest

import gc_world
from forks import ForkedWorld, Forks
from gc_world import add_remote, bury, forked, oid_of, send, tree

forks = gc_world.forks
POLICY = "gc:\n  minimum_age: 0d\n  auto:\n    allow_last_copy: true\n"


@pytest.fixture
def world(tmp_path: Path, forks: Forks) -> ForkedWorld:
    """10 kB that are tracked and 4 kB that nothing needs."""
    world = forked(tmp_path, forks)
    world.track("data.csv", "t" * 10_000)
    world.commit()
    bury(world, "a" * 3000, "b" * 1000)
    world.write("holdfast.yaml", POLICY)
    return world


def auto(world: ForkedWorld, *options: str, code: int = 0) -> tuple[str, str]:
    done = world.holdfast("gc", "run", "--auto", *options, code=code)
    return done.stdout, done.stderr


def test_it_acts_only_when_told(world: ForkedWorld) -> None:
    before = tree(world.cache)
    done = world.holdfast("gc", "run", code=2)
    assert "Say --auto" in done.stderr
    assert tree(world.cache) == before


def test_within_the_bounds(world: ForkedWorld) -> None:
    out, _ = auto(world, "--report", "../report.json")
    assert "cache: 2 objects of 4.0 kB moved to the quarantine." in out
    assert set(tree(world.cache)) == {f"files/md5/{oid_of('t' * 10_000)[:2]}/{oid_of('t' * 10_000)[2:]}"}
    report = json.loads((world.root.parent / "report.json").read_text())
    assert report["format"] == "holdfast gc apply 1"
    assert report["bytes"] == 4000
    assert [taken["objects"] for taken in report["taken"]] == [2]
    assert {entry["oid"] for entry in report["planned"]["objects"]} == {oid_of("a" * 3000), oid_of("b" * 1000)}
    assert report["plan"] == report["planned"]["digest"]
    world.holdfast("gc", "restore", report["plan"][:12])
    assert len(tree(world.cache)) == 3


def test_nothing_to_do_is_no_error(world: ForkedWorld) -> None:
    auto(world)
    out, _ = auto(world, "--report", "../report.json")
    assert "There was nothing to do." in out
    assert json.loads((world.root.parent / "report.json").read_text())["taken"] == []


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("max_remove_bytes: 3999B", "4.0 kB would go, and gc.auto.max_remove_bytes is 4.0 kB"),
        ("max_remove_bytes: 0B", "4.0 kB would go"),
        ("max_remove_share: 0.28", "29% of cache would go, and gc.auto.max_remove_share is 0.28"),
    ],
)
def test_beyond_a_bound_nothing_goes(world: ForkedWorld, bound: str, message: str) -> None:
    world.write("holdfast.yaml", f"{POLICY}    {bound}\n")
    before = tree(world.cache)
    _, told = auto(world, "--report", "../report.json", code=1)
    assert message in told
    assert "holdfast gc plan -o plan.json" in told
    assert len(told.splitlines()) == 1
    assert tree(world.cache) == before
    report = json.loads((world.root.parent / "report.json").read_text())
    assert message in report["refused"]
    assert len(report["planned"]["objects"]) == 2


@pytest.mark.parametrize("bound", ["max_remove_bytes: 4kB", "max_remove_share: 0.3", "max_remove_share: 1"])
def test_at_a_bound_it_goes(world: ForkedWorld, bound: str) -> None:
    world.write("holdfast.yaml", f"{POLICY}    {bound}\n")
    auto(world)
    assert len(tree(world.cache)) == 1


def test_the_share_of_each_place_counts(world: ForkedWorld) -> None:
    store = world.root.parent / "store"
    add_remote(world, "storage", str(store), default=True)
    send(world, store, oid_of("a" * 3000))
    _, told = auto(world, "--scope", "cache,remote", code=1)
    assert "100% of remote storage would go, and gc.auto.max_remove_share is 0.5" in told
    send(world, store, oid_of("t" * 10_000))
    auto(world, "--scope", "cache,remote")
    assert len(tree(store)) == 1


def test_last_copies_go_only_where_the_policy_says_so(world: ForkedWorld) -> None:
    world.write("holdfast.yaml", "gc:\n  minimum_age: 0d\n")
    before = tree(world.cache)
    _, told = auto(world, "--report", "../report.json", code=2)
    assert "lie nowhere else" in told
    assert "lie nowhere else" in json.loads((world.root.parent / "report.json").read_text())["refused"]
    assert tree(world.cache) == before
    store = world.root.parent / "store"
    add_remote(world, "storage", str(store), default=True)
    send(world, store, *(oid_of(text) for text in ("t" * 10_000, "a" * 3000, "b" * 1000)))
    auto(world)
    assert len(tree(world.cache)) == 1


def test_json(world: ForkedWorld) -> None:
    out, _ = auto(world, "--json")
    assert json.loads(out)["bytes"] == 4000
