"""What a consolidation leaves alone, and what it refuses to read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import UsageError
from holdfast.registry.consolidation import read_plan
from registry_world import error_of, shown
from test_registry_consolidate import apply, copy_with_vault, left, plan_of, steps, write_plan
from test_registry_consolidate_faults import FIRST, KEPT, LISTED, ONE, OTHER, WEIGHTS, make_small
from worlds import World


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def bytes_of_plan(small: World) -> bytes:
    return Path(write_plan(small)).read_bytes()


@pytest.fixture
def world(small: World, tmp_path: Path) -> World:
    return copy_with_vault(small, tmp_path)


def test_what_dvc_tracks_stays(world: World) -> None:
    world.git("rm", "-q", "--cached", "-r", ONE)
    world.dvc("add", ONE)
    world.commit("tracked")
    plan = plan_of(world)
    assert steps(plan, "archive") == {}
    told = f"DVC tracks {WEIGHTS[0]} ({ONE}.dvc): its objects are for `holdfast gc` to judge"
    assert left(plan, "archive") == {ONE: told}


def test_what_a_script_names_stays(world: World) -> None:
    world.write("serve.py", f'import torch\nmodel = torch.load("{WEIGHTS[0]}", weights_only=True)\n')
    plan = plan_of(world)
    assert left(plan, "archive") == {ONE: f"serve.py:2 would break: it names {WEIGHTS[0]}"}
    assert steps(plan, "archive") == {}


def test_what_a_pipeline_depends_on_stays(world: World) -> None:
    world.write("dvc.yaml", f"stages:\n  eval:\n    cmd: echo\n    deps:\n    - {WEIGHTS[0]}\n")
    assert f"would break: it names {WEIGHTS[0]}" in left(plan_of(world), "archive")[ONE]


def test_links_stay(world: World) -> None:
    real = world.write("shared/epoch.bin", (world.root / WEIGHTS[1]).read_bytes())
    (world.root / WEIGHTS[1]).unlink()
    (world.root / WEIGHTS[1]).symlink_to(real)
    plan = write_plan(world)
    (step,) = steps(plan_of(world), "archive").values()
    assert [file["path"] for file in step["files"]] == ["best_model.pt", "optimizer.pt"]
    apply(world, plan)
    assert (world.root / WEIGHTS[1]).is_symlink()
    assert real.exists()


def test_several_files_of_weights_want_a_choice(world: World) -> None:
    (world.root / KEPT / "best_model.pt").rename(world.root / KEPT / "epoch_1.pt")
    shutil.copy(world.root / OTHER / "best_model.pt", world.root / KEPT / "epoch_2.pt")
    why = left(plan_of(world), "register")[KEPT]
    assert why == f"2 files may be its weights: epoch_1.pt, epoch_2.pt. Choose: --weights {KEPT}=FILE"
    (step,) = (step for step in plan_of(world, "--weights", f"{KEPT}=epoch_2.pt")["steps"] if step["source"] == KEPT)
    assert (step["weights_file"], "epoch_1.pt" in str(step["files"])) == ("epoch_2.pt", False)
    assert "has no file of weights" in left(plan_of(world, "--weights", f"{KEPT}=config.json"), "register")[KEPT]
    assert "is no run that is kept" in error_of(world, "consolidate", "--weights", "old=model.pt", code=2)


def test_ignored_places_are_refused_in_the_plan(world: World) -> None:
    world.write(".gitignore", "*.pt\n*.pkl\nmodels/\n")
    why = left(plan_of(world), "register")[KEPT]
    assert why.startswith("git ignores models/production/production_baseline_v1.dvc (.gitignore:3:models/)")


def test_entries_of_an_old_registry_that_lead_nowhere_are_named(world: World) -> None:
    entries = {"legacy": {"path": LISTED}, "lost": {"path": "old/lost.pt"}, "twice": {"path": LISTED}}
    world.write("models_registry.json", json.dumps(entries))
    plan = plan_of(world)
    assert [step["model"] for step in plan["steps"] if step["kind"] == "import"] == [
        "production/legacy",
        "production/twice",
    ]
    assert left(plan, "register")["old/lost.pt"].startswith("models_registry.json lists it: ")
    world.write("models_registry.json", "[not a registry")
    assert "models_registry.json" in left(plan_of(world), "register")


def test_a_folder_that_got_models_since_is_known_by_its_path(world: World) -> None:
    shutil.copy(world.root / LISTED, world.write("models/best_model.pt", b""))
    world.write("models_registry.json", json.dumps({"legacy": {"path": "models"}}))
    apply(world, write_plan(world))
    assert (world.root / "models/production/production_baseline_v1").is_dir()
    plan = plan_of(world)
    assert left(plan, "register") == {"models": "registered already, as production/legacy@v1"}


def test_folders_of_one_name_are_two(world: World) -> None:
    shutil.copytree(world.root / "experiments", world.root / "second/experiments")
    plan = plan_of(world, "second/experiments", "experiments", "second")
    assert plan["folders"] == ["experiments", "second"]
    runs = [step["source"] for step in plan["steps"] if step["kind"] == "archive"]
    # the other one's first run is no longer the first of all
    assert sorted(runs) == sorted([ONE, f"second/{ONE}", f"second/{FIRST}"])
    versions = [f"{step['model']}@{step['version']}" for step in plan["steps"] if step["kind"] == "archive"]
    assert sorted(versions) == ["archived/baseline_small@v1", "archived/baseline_small@v2", "archived/baseline_v1@v1"]
    assert {step["path"] for step in plan["steps"] if step["kind"] == "keep" and step["path"].startswith("models")} == {
        "models/production/production_baseline_v1",
        "models/production/production_small_v1",
    }


def test_equal_weights_are_one_version(world: World) -> None:
    entries = [{"name": "legacy", "path": LISTED}, {"name": "legacy", "path": "old/again.pt"}]
    shutil.copy(world.root / LISTED, world.root / "old/again.pt")
    world.write("models_registry.json", json.dumps(entries))
    plan = write_plan(world)
    known = [(step["version"], step["known"]) for step in plan_of(world)["steps"] if step["kind"] == "import"]
    assert known == [("v1", False), ("v1", True)]
    apply(world, plan)
    assert len(shown(world, "show", "production/legacy")["models"][0]["versions"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan.update(kind="registry rm"),
        lambda plan: plan.update(schema=2),
        lambda plan: plan.pop("runs"),
        lambda plan: plan["steps"][-1].update(source="../elsewhere"),
        lambda plan: plan["steps"][-1]["files"][0].update(path="/etc/passwd"),
        lambda plan: plan["steps"][-1]["files"].pop(),
        lambda plan: plan["steps"][-1].update(oid="0" * 32 + ".dir"),
        lambda plan: plan["steps"][-1].update(kind="remove"),
        lambda plan: plan["steps"][-1].update(model="no-name"),
        lambda plan: plan["folders"].append(".."),
    ],
)
def test_what_is_no_plan_is_refused(bytes_of_plan: bytes, change: Callable[[dict[str, Any]], object]) -> None:
    saved = json.loads(bytes_of_plan)
    assert read_plan(json.dumps(saved).encode()).as_bytes() == bytes_of_plan
    change(saved)
    with pytest.raises(UsageError, match="the plan cannot be read"):
        read_plan(json.dumps(saved).encode())


def test_arguments_that_do_not_fit(small: World) -> None:
    plan = write_plan(small)
    for arguments in (("--apply", plan, "--plan"), ("--apply", plan, "experiments"), ("--restore", "-o", plan)):
        assert "one at a time" in error_of(small, "consolidate", *arguments, code=2)
    assert "no run is named" in error_of(small, "consolidate", "--restore", code=2)
