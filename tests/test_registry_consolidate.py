"""``holdfast registry consolidate`` on the world of 23 runs: the plan, what it does, and back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from holdfast.registry.gate_classes import judge_classes
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_rules import ClassRule
from registry_world import CLEAN, error_of, registry_files, shown
from test_inventory_runs_world import Words, build
from worlds import World, make_home, make_repository

SMALL = "experiments/small_data_10k_20250525_130522"
MEDIUM = "experiments/medium_model_v2_20250525_131811"
FIRST = "experiments/baseline_v1_20250525_064536"
ARCHIVED = ("experiments/baseline_micro_20250525_080000", "experiments/baseline_small_20250525_090000")
HOLDFAST = "vault:\n  url: ../vault\n"


def make_runs(folder: Path, *, vault: bool = True) -> World:
    """The 23 runs in a DVC project, their weights ignored by git as everywhere, and a vault beside it."""
    world = make_repository(folder)
    build(world.root, Words())
    world.write(".gitignore", "*.pt\n*.pth\n*.pkl\n")
    if vault:
        world.write("holdfast.yaml", HOLDFAST)
        world.holdfast("vault", "init", str(folder / "vault"))
    world.commit("runs")
    return world


def copy_with_vault(world: World, folder: Path) -> World:
    copied = World(folder / "repository", make_home(folder))
    shutil.copytree(world.root, copied.root, symlinks=True)
    if (world.root.parent / "vault").exists():
        shutil.copytree(world.root.parent / "vault", folder / "vault")
    return copied


def plan_of(world: World, *arguments: str) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads(world.holdfast("registry", "consolidate", *arguments, "--json").stdout)
    return plan


def write_plan(world: World, *arguments: str) -> str:
    path = str(world.root.parent / "plan.json")
    world.holdfast("registry", "consolidate", *arguments, "-o", path)
    return path


def apply(world: World, plan: str) -> dict[str, Any]:
    done: dict[str, Any] = json.loads(world.holdfast("registry", "consolidate", "--apply", plan, "--json").stdout)
    return done


def files_of(world: World) -> dict[str, bytes]:
    """Every file of the workspace."""
    skipped = (".git", ".dvc")
    return {
        path.relative_to(world.root).as_posix(): path.read_bytes()
        for path in world.root.rglob("*")
        if path.is_file() and path.relative_to(world.root).parts[0] not in skipped
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_runs(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def planned(before: World) -> dict[str, Any]:
    return plan_of(before)


@pytest.fixture(scope="module")
def after(before: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same, consolidated."""
    world = copy_with_vault(before, tmp_path_factory.mktemp("after"))
    apply(world, write_plan(world))
    return world


@pytest.fixture
def world(before: World, tmp_path: Path) -> World:
    return copy_with_vault(before, tmp_path)


def steps(plan: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {step["source"]: step for step in plan["steps"] if step["kind"] == kind}


def left(plan: dict[str, Any], phase: str) -> dict[str, str]:
    return {item["path"]: item["why"] for item in plan["left"] if item["phase"] == phase}


def test_three_are_kept_under_standard_names(planned: dict[str, Any]) -> None:
    kept = steps(planned, "keep")
    assert {source: (step["model"], step["path"]) for source, step in kept.items()} == {
        SMALL: ("production/production_baseline_v1", "models/production/production_baseline_v1"),
        MEDIUM: ("production/production_medium_v1", "models/production/production_medium_v1"),
        FIRST: ("production/baseline_v1", FIRST),
    }
    for step in kept.values():
        assert [file["path"] for file in step["files"]] == ["best_model.pt", "config.json", "vocab.pkl"]
        assert step["weights_file"] == "best_model.pt"
    assert kept[SMALL]["metrics"]["f1_macro"] == 0.53
    assert kept[SMALL]["params"]["model.num_layers"] == 3
    assert kept[MEDIUM]["flags"] == ["class depression of 412 samples has collapsed: precision, recall and f1 are 0"]


def test_the_rest_is_archived_or_left_with_reasons(before: World, planned: dict[str, Any]) -> None:
    archived = steps(planned, "archive")
    assert tuple(archived) == ARCHIVED
    weights = sum((before.root / run / "best_model.pt").stat().st_size for run in ARCHIVED)
    assert planned["freed"] == weights
    gone = left(planned, "gc")
    assert len(gone) == 18
    assert sum("over-fitted on a tiny set" in why for why in gone.values()) == 11
    assert not set(gone) & {*ARCHIVED, SMALL, MEDIUM, FIRST}
    assert len(planned["runs"]) == 23


def test_the_existing_registry_comes_first(planned: dict[str, Any]) -> None:
    first = planned["steps"][0]
    assert (first["kind"], first["model"], first["version"], first["path"]) == (
        "import",
        "production/baseline_v1",
        "v1",
        "model_snapshots",
    )
    assert steps(planned, "keep")[FIRST]["version"] == "v2"


def test_the_same_runs_give_the_same_plan(before: World, tmp_path: Path) -> None:
    """Wherever they lie, whatever was read before."""
    first = Path(write_plan(before)).read_bytes()
    assert Path(write_plan(before)).read_bytes() == first
    assert before.holdfast("registry", "consolidate", "--json").stdout.encode() == first
    place = tmp_path / "elsewhere"
    other = World(place / "another_name", make_home(place))
    shutil.copytree(before.root, other.root)
    shutil.copytree(before.root.parent / "vault", place / "vault")
    shutil.rmtree(other.root / ".dvc" / "tmp", ignore_errors=True)
    second = Path(write_plan(other)).read_bytes()
    # the vault's place is the one difference
    assert second.replace(str(place).encode(), str(before.root.parent).encode()) == first


def test_a_plan_changes_nothing(before: World) -> None:
    assert before.git("status", "--porcelain") == ""
    there = files_of(before)
    text = before.holdfast("registry", "consolidate").stdout
    assert files_of(before) == there
    assert [number for number in range(1, 6) if f"Phase {number}" in text] == [1, 2, 3, 4]
    markdown = before.holdfast("registry", "consolidate", "--md").stdout
    assert markdown.count("| experiments/baseline_ultra_micro_") == 11
    assert text.startswith("23 runs in experiments: 3 kept, 2 archived, 18 left to gc. Archiving frees ")
    assert text.count("baseline_ultra_micro_2025") == 1
    assert " baseline_ultra_micro_20250525_070000 and 10 more " in text


def test_what_is_kept_is_copied_registered_and_tracked(before: World, after: World) -> None:
    for run, name in ((SMALL, "production_baseline_v1"), (MEDIUM, "production_medium_v1")):
        target = after.root / "models/production" / name
        assert not (after.root / "unpickled").exists()
        assert {path.name for path in target.iterdir()} == {"best_model.pt", "config.json", "vocab.pkl"}
        for path in target.iterdir():
            assert path.read_bytes() == (before.root / run / path.name).read_bytes()
            assert path.stat().st_ino != (after.root / run / path.name).stat().st_ino
        (version,) = shown(after, "show", f"production/{name}")["models"][0]["versions"]
        assert version["path"] == f"models/production/{name}"
        assert version["source"]["run"] == run
        pointer = yaml.safe_load((after.root / f"models/production/{name}.dvc").read_text())["outs"][0]
        assert pointer["md5"] == version["oid"]
    assert after.dvc("status") == CLEAN
    assert {line[:2] for line in after.git("status", "--porcelain").splitlines()} == {"A "}


def test_runs_keep_all_but_archived_weights(before: World, after: World) -> None:
    was, now = files_of(before), files_of(after)
    assert {path for path in was if path not in now} == {f"{run}/best_model.pt" for run in ARCHIVED}
    assert {path for path, data in was.items() if path in now and now[path] != data} == set()


def test_the_registry_is_true(after: World, tmp_path: Path) -> None:
    after = copy_with_vault(after, tmp_path)
    answer = shown(after, "verify")
    assert (answer["ok"], answer["versions"], answer["elsewhere"]) == (True, 6, 2)
    models = {model["model"]: model for model in shown(after, "show")["models"]}
    assert models["production/baseline_v1"]["current"] == "v2"
    assert models["archived/baseline_small"]["versions"][0]["metrics"]["accuracy"] == 0.44
    # what no push of DVC's sends is in the vault: the baseline that stays, and what was imported
    shutil.rmtree(after.cache)
    findings = json.loads(after.holdfast("registry", "verify", "--json", code=13).stdout)["findings"]
    assert {finding["where"] for finding in findings if finding["certain"]} == {
        "production/production_baseline_v1@v1",
        "production/production_medium_v1@v1",
    }


def test_the_medium_model_would_not_pass_the_gate_for_classes(after: World) -> None:
    versions = {
        name: Evidence(name, metrics=shown(after, "show", f"production/{name}")["models"][0]["versions"][0]["metrics"])
        for name in ("production_baseline_v1", "production_medium_v1")
    }
    rule = ClassRule("recall", floor=0.3)
    (small,) = judge_classes(rule, versions["production_baseline_v1"], None)
    (medium,) = judge_classes(rule, versions["production_medium_v1"], None)
    assert small.verdict == "pass"
    assert (medium.verdict, "recall of depression is 0" in medium.reason) == ("fail", True)


def test_dvc_gives_the_kept_models_back(after: World, tmp_path: Path) -> None:
    world = copy_with_vault(after, tmp_path)
    target = world.root / "models/production/production_medium_v1"
    was = {path.name: path.read_bytes() for path in target.iterdir()}
    shutil.rmtree(target)
    world.dvc("checkout")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == was


def test_archived_weights_come_back(before: World, after: World, tmp_path: Path) -> None:
    world = copy_with_vault(after, tmp_path)
    weights = world.root / ARCHIVED[1] / "best_model.pt"
    assert not weights.exists()
    told = world.holdfast("registry", "consolidate", "--restore", ARCHIVED[1]).stdout
    assert told.startswith(f"Restored {ARCHIVED[1]} from archived/baseline_small@v1: 1 file")
    assert weights.read_bytes() == (before.root / ARCHIVED[1] / "best_model.pt").read_bytes()
    assert "has all that" in world.holdfast("registry", "consolidate", "--restore", ARCHIVED[1]).stdout
    # and go again, as the version that they are
    plan = write_plan(world)
    done = apply(world, plan)
    assert (done["archived"], done["registered"]) == ([ARCHIVED[1]], [])
    assert not weights.exists()


def test_restoring_overwrites_nothing(after: World, tmp_path: Path) -> None:
    world = copy_with_vault(after, tmp_path)
    weights = world.write(f"{ARCHIVED[0]}/best_model.pt", b"other")
    error = error_of(world, "consolidate", "--restore", ARCHIVED[0], code=1)
    assert "with other bytes than archived/baseline_micro@v1 has" in error
    assert weights.read_bytes() == b"other"
    error = error_of(world, "consolidate", "--restore", SMALL, code=2)
    assert f"no weights of {SMALL} are archived. Archived are: {ARCHIVED[0]}, {ARCHIVED[1]}" in error


def test_carried_out_twice_it_does_nothing(after: World, tmp_path: Path) -> None:
    world = copy_with_vault(after, tmp_path)
    there, registry = files_of(world), registry_files(world)
    plan = plan_of(world)
    assert {(step["kind"], step["known"]) for step in plan["steps"]} == {("import", True), ("keep", True)}
    assert left(plan, "archive") == {
        ARCHIVED[0]: "archived already, as archived/baseline_micro@v1",
        ARCHIVED[1]: "archived already, as archived/baseline_small@v1",
    }
    assert apply(world, write_plan(world)) == {
        "format": "holdfast registry consolidated 1",
        "registered": [],
        "copied": [],
        "archived": [],
        "freed": 0,
        "stored": 0,
    }
    assert (files_of(world), registry_files(world)) == (there, registry)


def test_without_a_vault_nothing_is_archived(tmp_path: Path) -> None:
    world = make_runs(tmp_path, vault=False)
    plan = plan_of(world)
    assert (plan["vault"], steps(plan, "archive"), plan["freed"]) == (None, {}, 0)
    assert all(why.startswith("the project has no vault: ") for why in left(plan, "archive").values())
    assert len(left(plan, "archive")) == 2
    text = world.holdfast("registry", "consolidate").stdout
    assert "Phase 3 is skipped: no vault is named, and DVC has no default remote" in text
    there = files_of(world)
    done = apply(world, write_plan(world))
    assert (len(done["registered"]), done["archived"]) == (4, [])
    assert {path: data for path, data in files_of(world).items() if path in there} == there


def test_another_application_and_folder(world: World) -> None:
    plan = plan_of(world, "experiments", "--app", "mental_health")
    assert steps(plan, "import") == {}
    assert {step["model"] for step in steps(plan, "keep").values()} == {
        "mental_health/production_baseline_v1",
        "mental_health/production_medium_v1",
        "mental_health/baseline_v1",
    }
    assert plan["folders"] == ["experiments"]
    assert "is not in the project" in error_of(world, "consolidate", "..", code=2)
    assert "application of archived runs" in error_of(world, "consolidate", "--app", "archived", code=2)
