"""Consolidations of worlds that changed, that are killed, that lie: nothing is lost, and nothing is guessed."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from faults import FaultyStore, Rule
from holdfast.errors import HoldfastError, IntegrityError, StalePlanError
from holdfast.formats.cache import DigestCache
from holdfast.objectstore.opening import open_store
from holdfast.registry.consolidation import read_plan
from holdfast.registry.consolidation_apply import apply_consolidation
from holdfast.registry.objects import Stores
from holdfast.repo.workspace import Project
from holdfast.runs.checkpoint import import_torch
from holdfast.vault.repository import open_vault
from registry_world import CLEAN, error_of, shown
from test_inventory_runs_world import BASELINE, ORIGINAL, SMALL, Words, write_run
from test_registry_consolidate import HOLDFAST, apply, copy_with_vault, files_of, write_plan
from worlds import World, environment, make_repository

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
KEPT = "experiments/small_data_10k_20250525_130522"
FIRST = "experiments/baseline_v1_20250525_064536"
ONE = "experiments/baseline_small_20250525_090000"  # stands for its series; two checkpoints and an optimizer's state
OTHER = "experiments/baseline_small_20250525_090100"
LISTED = "old/model.pt"
WEIGHTS = (f"{ONE}/best_model.pt", f"{ONE}/last_model.pt", f"{ONE}/optimizer.pt")


def make_small(folder: Path) -> World:
    """Four runs and a registry of old; one run is archived with all three of its files of weights."""
    torch = import_torch()
    world = make_repository(folder)
    write_run(world.root, Words(), "small_data_10k", "20250525_130522", SMALL, width=16)
    write_run(world.root, Words(), "baseline_v1", "20250525_064536", ORIGINAL)
    for number in range(2):
        write_run(world.root, Words(), "baseline_small", f"20250525_090{number}00", BASELINE, seed=number + 1)
    # larger than what shares a blob with others
    torch.save({"model_state_dict": {"w": torch.arange(40_000.0)}}, world.root / ONE / "last_model.pt")
    torch.save({"state": {0: {"exp_avg": torch.ones(30_000)}}}, world.root / ONE / "optimizer.pt")
    (world.root / "old").mkdir()
    torch.save({"w": torch.full((4,), 7.0)}, world.root / LISTED)
    listed = {"legacy": {"path": LISTED, "metrics": {"accuracy": 0.5}, "status": "production"}}
    world.write("models_registry.json", json.dumps({"models": listed}))
    world.write(".gitignore", "*.pt\n*.pkl\n")
    world.write("holdfast.yaml", HOLDFAST)
    world.holdfast("vault", "init", str(folder / "vault"))
    world.commit("runs")
    return world


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def bytes_of_plan(small: World) -> bytes:
    return Path(write_plan(small)).read_bytes()


@pytest.fixture
def world(small: World, tmp_path: Path) -> World:
    return copy_with_vault(small, tmp_path)


@pytest.fixture
def plan(small: World, world: World, bytes_of_plan: bytes) -> str:
    return moved(bytes_of_plan, small, world)


def moved(data: bytes, small: World, world: World) -> str:
    """The plan as a copy of the project makes it: its vault's place is the one difference."""
    path = world.root.parent / "plan.json"
    path.write_bytes(data.replace(str(small.root.parent).encode(), str(world.root.parent).encode()))
    return str(path)


def carry_out(world: World, plan: str, *, rules: tuple[Rule, ...] = (), progress: Any = lambda *_: None) -> FaultyStore:
    """Apply in this process, over a store that goes wrong by rules; the store."""
    store = FaultyStore(open_store(str(world.root.parent / "vault")), rules)
    stores = Stores(world.root, world.cache, lambda: open_vault(store, None, jobs=1))
    try:
        apply_consolidation(
            Project(world.root, world.root),
            read_plan(Path(plan).read_bytes()),
            stores,
            DigestCache(None),
            now=NOW,
            progress=progress,
        )
    finally:
        stores.close()
    return store


def append(path: str) -> Callable[[World], object]:
    def change(world: World) -> None:
        with open(world.root / path, "ab") as stream:
            stream.write(b" ")

    return change


def same_size(path: str) -> Callable[[World], object]:
    def change(world: World) -> None:
        data = (world.root / path).read_bytes()
        (world.root / path).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return change


CHANGES: dict[str, tuple[Callable[[World], object], str]] = {
    "a metric of what is kept": (append(f"{KEPT}/results.json"), f"the run {KEPT} has changed"),
    "a metric of what is left": (append(f"{OTHER}/results.json"), f"the run {OTHER} has changed"),
    "weights of what is left": (append(f"{OTHER}/best_model.pt"), f"the run {OTHER} has changed"),
    "weights of what is kept": (same_size(f"{KEPT}/best_model.pt"), f"{KEPT}/best_model.pt has changed"),
    "weights of what is archived": (same_size(WEIGHTS[1]), f"{WEIGHTS[1]} has changed"),
    "weights are gone": (lambda world: (world.root / WEIGHTS[0]).unlink(), f"{WEIGHTS[0]} is gone, and was not"),
    "weights are new": (lambda world: world.write(f"{ONE}/epoch_9.pt", b"new"), f"{ONE}/epoch_9.pt is new"),
    "metadata are new": (lambda world: world.write(f"{ONE}/notes.json", "{}"), f"the run {ONE} has changed"),
    "a run is new": (
        lambda world: shutil.copytree(world.root / OTHER, world.root / "experiments/baseline_small_20250525_090200"),
        "the run experiments/baseline_small_20250525_090200 is new",
    ),
    "a run is gone": (lambda world: shutil.rmtree(world.root / OTHER), f"the run {OTHER} is gone"),
    "the old registry": (append("models_registry.json"), "models_registry.json has changed"),
    "what it lists": (same_size(LISTED), f"{LISTED} has changed"),
    "the rules": (
        lambda world: world.write("holdfast.yaml", HOLDFAST + "runs: {production: {share_of_best: 0.5}}\n"),
        "the rules under runs: in holdfast.yaml have changed",
    ),
    "another version": (
        lambda world: world.holdfast("registry", "register", "archived/baseline_small", f"{OTHER}/best_model.pt"),
        "the next version of archived/baseline_small is v2, and was v1",
    ),
    "a script that needs it": (
        lambda world: world.write("serve.py", f'PATH = "{WEIGHTS[2]}"\n'),
        f"serve.py:1 names {WEIGHTS[2]} by now",
    ),
    "tracked by DVC": (
        lambda world: world.write(
            "dvc.lock",
            f"schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n    - path: {ONE}\n"
            f"      hash: md5\n      md5: {'0' * 32}.dir\n      size: 1\n      nfiles: 1\n",
        ),
        f"DVC tracks {WEIGHTS[0]} by now (dvc.lock)",
    ),
    "another folder in the place": (
        lambda world: world.write("models/production/production_baseline_v1/README.md", "mine"),
        "models/production/production_baseline_v1 is there by now",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_world_makes_a_plan_stale(world: World, plan: str, what: str) -> None:
    change, told = CHANGES[what]
    change(world)
    there = files_of(world)
    with pytest.raises(StalePlanError) as caught:
        carry_out(world, plan)
    assert told in caught.value.message
    assert "Make a new plan" in str(caught.value)
    assert files_of(world) == there


def test_another_vault_makes_a_plan_stale(world: World, plan: str) -> None:
    world.holdfast("vault", "init", str(world.root.parent / "vault2"))
    world.write("holdfast.yaml", HOLDFAST.replace("vault\n", "vault2\n"))
    there = files_of(world)
    assert "the project's vault is " in error_of(world, "consolidate", "--apply", plan, code=14)
    assert files_of(world) == there


DYING = textwrap.dedent("""
    import os, signal, sys
    wanted, root = int(sys.argv[1]), sys.argv[2]
    steps = []
    def hook(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            counts = isinstance(path, str) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        elif event in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"):
            path, counts = str(arguments[0]), True
        elif event == "subprocess.Popen":
            path, counts = root, "add" in map(str, arguments[1])
        else:
            return
        if counts and str(path).startswith(root):
            parts = str(path)[len(root) + 1:].replace("repository/", "", 1).split("/")
            steps.append(event + " " + "/".join(parts[: 2 if parts[0] == ".dvc" else 1]))
            if len(steps) == wanted:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    from holdfast.cli.main import _run
    code = _run(sys.argv[3:])
    if code == 0:
        print("STEPS", *steps, sep="\\n")
    sys.exit(code)
""")


def dying(world: World, step: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DYING, str(step), str(world.root.parent), *arguments],
        cwd=world.root, env=environment(world.home), capture_output=True, text=True, check=False,
    )  # fmt: skip


def in_vault(world: World, path: str, archived: str) -> bytes:
    """What the vault gives back for a file that left."""
    target = world.root.parent / "back"
    shutil.rmtree(target, ignore_errors=True)
    world.holdfast("registry", "get", archived, "-o", str(target))
    return (target / Path(path).name).read_bytes()


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_at_any_step_nothing_is_lost_and_the_next_run_ends_it(
    small: World, bytes_of_plan: bytes, tmp_path: Path, step: int
) -> None:
    whole = copy_with_vault(small, tmp_path / "whole")
    plan = moved(bytes_of_plan, small, whole)
    was = files_of(whole)
    done = dying(whole, 0, "registry", "consolidate", "--apply", plan)
    kinds = done.stdout.split("STEPS\n")[1].splitlines()
    wanted = files_of(whole)
    # before the first of each kind that makes a name or takes one away, and before each removal of weights: a kill before
    # every one of all steps takes ten minutes
    moments = {kinds.index(kind) + 1 for kind in kinds if not kind.startswith(("open", "os.mkdir", "os.chmod"))}
    moments |= {place for place, kind in enumerate(kinds, 1) if kind == "os.remove experiments"}
    assert len(moments) > 12, kinds
    states = set()
    for moment in sorted(moments)[::step]:
        world = copy_with_vault(small, tmp_path / str(moment))
        plan = moved(bytes_of_plan, small, world)
        killed = dying(world, moment, "registry", "consolidate", "--apply", plan)
        assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
        there = files_of(world)
        lost = {path for path in was if path not in there}
        assert lost <= set(WEIGHTS)
        assert all(there[path] == data for path, data in was.items() if path not in lost)
        for path in lost:
            assert in_vault(world, path, "archived/baseline_small@v1") == was[path]
        states.add((len(lost), (world.root / "registry").exists()))
        # the journal is the plan
        journal = world.root / ".dvc/tmp/holdfast/consolidating.json"
        if journal.exists():
            assert journal.read_bytes() == Path(plan).read_bytes()
        apply(world, plan)
        assert not journal.exists()
        assert files_of(world) == wanted
        shutil.rmtree(world.root.parent)
    assert {state[0] for state in states} >= ({0, 1, 2} if step == 1 else {0})
    assert shown(whole, "verify")["ok"]
    assert whole.dvc("status") == CLEAN


def test_one_that_was_cut_off_is_told_of(world: World, plan: str) -> None:
    assert dying(world, 30, "registry", "consolidate", "--apply", plan).returncode == -signal.SIGKILL
    told = world.holdfast("registry", "consolidate").stdout
    assert "An earlier one was cut off; `holdfast registry consolidate --apply .dvc/tmp/holdfast/" in told
    world.holdfast("registry", "consolidate", "--apply", ".dvc/tmp/holdfast/consolidating.json")
    assert "cut off" not in world.holdfast("registry", "consolidate").stdout
    assert shown(world, "verify")["ok"]


def test_a_vault_that_gives_other_bytes_back_gets_no_weights(world: World, plan: str) -> None:
    with pytest.raises(HoldfastError):
        carry_out(world, plan, rules=(Rule("flip", frozenset({"get_range", "get_ranges"}), key="packs/"),))
    assert all((world.root / path).exists() for path in WEIGHTS)
    assert not (world.root / "registry/archived").exists()
    carry_out(world, plan)
    assert not any((world.root / path).exists() for path in WEIGHTS)


def test_a_vault_that_cannot_commit_gets_no_weights(world: World, plan: str) -> None:
    with pytest.raises(HoldfastError, match="connection broke"):
        carry_out(world, plan, rules=(Rule("refuse", frozenset({"put_if_absent"}), key="index/"),))
    assert all((world.root / path).exists() for path in WEIGHTS)


def test_every_archived_byte_is_read_from_the_store_before_it_goes(world: World, plan: str) -> None:
    store = carry_out(world, plan)
    commit = next(place for place, call in enumerate(store.calls) if call[0] == "put_if_absent" and "index/" in call[1])
    packs = {
        key for verb, key in store.calls[:commit] if verb in ("put", "put_file", "put_if_absent") and "packs/" in key
    }
    read = {key for verb, key in store.calls[commit:] if verb in ("get", "get_range", "get_ranges")}
    assert packs
    assert packs <= read


def test_weights_that_are_written_meanwhile_stay(world: World, plan: str) -> None:
    path = world.root / WEIGHTS[1]

    def train(done: int, total: int) -> None:
        if done == total:  # all are in packs by now
            path.write_bytes(b"one epoch more")

    with pytest.raises(StalePlanError, match=r"last_model\.pt was written while it was archived"):
        carry_out(world, plan, progress=train)
    assert path.read_bytes() == b"one epoch more"
    assert error_of(world, "consolidate", "--apply", plan, code=14)


def test_only_one_at_a_time(world: World, plan: str) -> None:
    lock = world.root / ".dvc/tmp/holdfast/consolidating.lock"
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)  # even beside a reader: two must not write
        assert "another process" in error_of(world, "consolidate", "--apply", plan, code=11)
    apply(world, plan)


def test_the_labels_of_an_old_registry_come_along(world: World, plan: str) -> None:
    apply(world, plan)
    (model,) = shown(world, "show", "production/legacy")["models"]
    assert (model["current"], model["aliases"]) == ("v1", {"production": "v1"})
    assert model["versions"][0]["metrics"] == {"accuracy": 0.5}


def test_damaged_bytes_of_an_archive_are_not_restored(world: World, plan: str) -> None:
    apply(world, plan)
    for pack in (world.root.parent / "vault/packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            for place in range(64, len(data) - 64, 97):
                data[place] ^= 0x55
            pack.chmod(0o644)
            pack.write_bytes(data)
    error_of(world, "consolidate", "--restore", ONE, code=IntegrityError.exit_code)
    assert not any((world.root / path).exists() for path in WEIGHTS)
