"""``holdfast gc`` over the workspace and its runs: plan, apply, list, restore, and all is as it was."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cleanup_world import WORLDS, Arguments, make_cleanup
from test_registry_consolidate import ARCHIVED, make_runs
from worlds import World

AT_ONCE = "gc:\n  minimum_age: 0d\n  runs: {debug: 0d, test: 0d, over-fitted: 0d, failed: 0d, incomplete: 0d}\n"


def contents(world: World) -> dict[str, str]:
    files = (path for path in world.root.rglob("*") if path.is_file() and not {".git", ".dvc"} & set(path.parts))
    return {path.relative_to(world.root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def plan(world: World, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.holdfast("gc", "plan", *arguments, "--json").stdout)
    return found


def of_tier(found: dict[str, Any], tier: str) -> set[str]:
    return {entry["path"] for entry in found["objects"] if entry["tier"] == tier}


@pytest.mark.parametrize(
    ("arguments", "packages"),
    [(WORLDS[0], "publication_packages"), pytest.param(WORLDS[1], "handover_kits", marks=pytest.mark.soak)],
)
def test_the_first_world(tmp_path: Path, arguments: Arguments, packages: str) -> None:
    _, _, other, folder, ext = arguments
    world = make_cleanup(tmp_path, arguments, packages)
    assert of_tier(plan(world, "--scope", "workspace"), "remove") == set()  # all of it is new
    world.write("holdfast.yaml", AT_ONCE)
    before = contents(world)
    pattern = f"{folder}/*_{other}.{ext}"
    found = plan(world, "--scope", "workspace", "--accept", pattern)
    secondary = {path.relative_to(world.root).as_posix() for path in world.root.glob(pattern)}
    assert of_tier(found, "remove") >= {packages, *secondary}
    shown = world.holdfast("gc", "plan", "--scope", "workspace").stdout
    for script in ("analysis/a.py:", "analysis/verify.py:", "analysis/list.py:"):
        assert script in shown

    saved = str(tmp_path / "plan.json")
    world.holdfast("gc", "plan", "--scope", "workspace", "--accept", pattern, "-o", saved)
    refused = world.holdfast("gc", "apply", saved, code=2).stderr
    assert "--allow-last-copy" in refused
    assert contents(world) == before
    # a script that has come to use what would go
    world.write("new.py", f"open('{packages}/submission_0/Makefile')\n")
    assert packages in world.holdfast("gc", "apply", saved, "--allow-last-copy", code=14).stderr
    # or what people accepted with fewer uses
    world.write("new.py", f"open('{min(secondary)}')\n")
    refused = world.holdfast("gc", "apply", saved, "--allow-last-copy", code=14).stderr
    assert f"what uses {min(secondary)} has changed" in refused
    (world.root / "new.py").unlink()
    world.holdfast("gc", "apply", saved, "--allow-last-copy")
    assert not (world.root / packages).exists()
    assert not list(world.root.glob(pattern))
    held = json.loads(world.holdfast("gc", "list", "--json").stdout)["held"]
    assert {entry["path"] for entry in held} == of_tier(found, "remove")
    some = min(secondary)
    world.holdfast("gc", "restore", some)
    assert [path.relative_to(world.root).as_posix() for path in world.root.glob(pattern)] == [some]
    world.holdfast("gc", "restore", held[0]["plan"])
    assert contents(world) == before


def test_the_second_world(tmp_path: Path) -> None:
    world = make_runs(tmp_path)
    world.write("holdfast.yaml", f"vault:\n  url: ../vault\n{AT_ONCE}")
    before = contents(world)
    saved = str(tmp_path / "plan.json")
    world.holdfast("gc", "plan", "--scope", "workspace,runs", "-o", saved)
    gone = of_tier(json.loads(Path(saved).read_text()), "remove")
    assert len([path for path in gone if "baseline_ultra_micro_" in path]) == 11
    world.holdfast("gc", "apply", saved, "--allow-last-copy")
    left = {path.name for path in (world.root / "experiments").iterdir()}
    assert not [name for name in left if "ultra_micro" in name]
    assert [name for name in left if "baseline_micro" in name] == [ARCHIVED[0].rpartition("/")[2]]
    for run in ARCHIVED:
        assert not (world.root / run / "best_model.pt").exists()
        assert json.loads((world.root / run / "results.json").read_text())["status"] == "completed"
        shown = json.loads(world.holdfast("runs", "classify", run, "--json").stdout)["runs"]
        assert [item["path"].endswith(run.rpartition("/")[2]) for item in shown] == [True]
    world.holdfast("registry", "consolidate", "--restore", *ARCHIVED)
    held = json.loads(world.holdfast("gc", "list", "--json").stdout)["held"]
    assert {entry["path"] for entry in held} == gone
    world.holdfast("gc", "restore", held[0]["plan"])
    after = contents(world)
    assert {path: after.get(path) for path in before} == before
    assert {path.partition("/")[0] for path in after.keys() - before.keys()} == {"registry"}
