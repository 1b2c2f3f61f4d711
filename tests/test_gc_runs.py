"""The scope ``runs``: the world of 23 runs, ages, what keeps a run, archives that come back, and both scopes at once."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from holdfast.errors import StalePlanError
from holdfast.formats.cache import DigestCache
from holdfast.gc.planned import Found, PlannedObject
from holdfast.gc.policy import Policy
from holdfast.gc.runs import find_runs, settle
from holdfast.gc.runs_archive import apply_archive, archive_steps
from holdfast.gc.workspace import find_workspace
from holdfast.objectstore.opening import open_store
from holdfast.registry.consolidation import ConsolidationPlan, read_plan
from holdfast.registry.consolidation_apply import Consolidated
from holdfast.registry.objects import Stores
from holdfast.removal.folder import FolderPlace
from holdfast.repo.dvc import local_cache
from holdfast.repo.workspace import Project, find_project
from holdfast.vault.repository import open_vault
from test_inventory_runs_world import Words, build
from test_registry_consolidate import ARCHIVED, copy_with_vault, make_runs
from worlds import World, make_repository

LATER = timedelta(days=30)
TINY = {"model": {"num_layers": 1, "hidden_dim": 16, "vocab_size": 50}, "epochs": 3, "max_steps": 5}


def look(
    world: World,
    *,
    folders: Sequence[str] = (".",),
    age: timedelta = LATER,
    policy: Policy | None = None,
    accept: Sequence[str] = (),
    vault: bool = False,
) -> Found:
    return find_runs(
        find_project(world.folder),
        folders,
        policy or Policy(),
        DigestCache(None),
        now=datetime.now(timezone.utc) + age,
        vault=str(world.root.parent / "vault") if vault else None,
        no_vault="none was made",
        accept=accept,
    )


def fates(found: Found) -> dict[str, tuple[str, str]]:
    return {line.path: (line.tier, line.reason) for line in found.objects}


def line(found: Found, path: str) -> PlannedObject:
    (result,) = [item for item in found.objects if item.path == path]
    return result


def of_tier(found: Found, tier: str) -> set[str]:
    return {item.path for item in found.objects if item.tier == tier}


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not {".git", ".dvc"} & set(path.parts))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_test_run(world: World, path: str, **more: object) -> Path:
    """A run of class test: five steps, a result, weights."""
    world.write(f"{path}/config.json", json.dumps(TINY | more))
    world.write(f"{path}/results.json", json.dumps({"status": "completed", "accuracy": 0.2}))
    world.write(f"{path}/best_model.pt", os.urandom(500))
    return world.root / path


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_runs(tmp_path_factory.mktemp("before"))


@pytest.fixture
def runs(before: World, tmp_path: Path) -> World:
    return copy_with_vault(before, tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A project with two runs that may go, besides a good one."""
    world = make_repository(tmp_path)
    for number in range(2):
        write_test_run(world, f"runs/try_20250525_07000{number}")
    good = {"model": {"num_layers": 9, "hidden_dim": 512, "vocab_size": 50_000}, "epochs": 9}
    world.write("runs/good/config.json", json.dumps(good))
    world.write("runs/good/results.json", json.dumps({"status": "completed", "accuracy": 0.9}))
    world.write("runs/good/best_model.pt", os.urandom(500))
    return world


FIRST, SECOND = "runs/try_20250525_070000", "runs/try_20250525_070001"


def named(before: World, *series: str) -> set[str]:
    folders = (before.root / "experiments").iterdir()
    return {f"experiments/{path.name}" for path in folders if path.name.rpartition("_2025")[0] in series}


def test_the_second_world(before: World) -> None:
    found = look(before, vault=True)
    ultra = named(before, "baseline_ultra_micro")
    assert len(ultra) == 11
    micro = named(before, "baseline_micro")
    assert len(micro) == 3
    assert of_tier(found, "archive") == set(ARCHIVED)
    assert of_tier(found, "remove") == {
        *ultra,
        *(micro - set(ARCHIVED)),
        *named(before, "mock_test", "safe_test", "minimal_test"),
    }
    kept = named(before, "small_data_10k", "medium_model_v2", "baseline_v1", "baseline_small") - set(ARCHIVED)
    assert of_tier(found, "keep") == kept
    assert {fates(found)[path] for path in named(before, "baseline_small") - set(ARCHIVED)} == {("keep", "rule")}
    for path in of_tier(found, "remove"):
        size = sum(file.stat().st_size for file in (before.root / path).rglob("*") if file.is_file())
        assert line(found, path).size == size
    for path in ARCHIVED:
        item = line(found, path)
        assert item.size == (before.root / path / "best_model.pt").stat().st_size
        assert "its weights go to " in item.why
        assert item.last_copy is False
    first = min(ultra)
    assert fates(found)[first] == ("remove", "over-fitted")
    assert "accuracy 0.995; 40 training samples" in line(found, first).why
    assert line(found, first).last_copy is True
    assert look(before, vault=True) == replace(found, objects=look(before, vault=True).objects)


def test_other_names_get_the_same_fates(before: World, tmp_path: Path) -> None:
    words = Words(runs={"baseline_ultra_micro": "stoat", "baseline_micro": "vole", "mock_test": "adder"})
    other = make_repository(tmp_path)
    build(other.root, words)
    counts = [
        sorted((item.tier, item.reason) for item in look(world, folders=["experiments"]).objects)
        for world in (before, other)
    ]
    assert counts[0] == counts[1]


def test_ages_by_class(before: World) -> None:
    gone: set[str]
    for days, gone in ((2, set()), (4, {"failed"}), (8, {"failed", "debug", "test"})):
        found = look(before, age=timedelta(days=days))
        assert {item.reason for item in found.objects if item.tier == "remove"} == gone
    young = look(before, age=timedelta(days=8))
    (incomplete,) = named(before, "safe_test")
    assert fates(young)[incomplete] == ("keep", "young")
    assert line(young, incomplete).why.endswith("younger than 14 days")
    ages = dict(Policy().runs) | {"over-fitted": timedelta(hours=1), "debug": None, "baseline": timedelta(days=1)}
    found = look(before, age=timedelta(days=2), policy=Policy(runs=ages))
    assert {item.reason for item in found.objects if item.tier == "remove"} == {"over-fitted", "baseline"}
    assert len(named(before, "baseline_small") & of_tier(found, "remove")) == 2  # the third stands for its series


def stores_of(world: World) -> Stores:
    vault = str(world.root.parent / "vault")
    return Stores(world.folder, local_cache(world.folder).folder, lambda: open_vault(open_store(vault), None, jobs=2))


def archive(world: World, plan: ConsolidationPlan) -> Consolidated:
    stores = stores_of(world)
    try:
        now = datetime.now(timezone.utc) + LATER
        return apply_archive(find_project(world.folder), plan, stores, DigestCache(None), now=now)
    finally:
        stores.close()


def steps_of(world: World, found: Found) -> ConsolidationPlan:
    project: Project = find_project(world.folder)
    now, vault = datetime.now(timezone.utc) + LATER, str(world.root.parent / "vault")
    return archive_steps(project, ["."], found, DigestCache(None), now=now, vault=vault, no_vault="")


def take(world: World, found: Found) -> FolderPlace:
    place = FolderPlace(world.root, world.root.parent / "waiting")
    things = place.look(sorted(of_tier(found, "remove")))
    moved = place.take("cd" * 16, b"plan", list(things.values()))
    assert not moved.left
    return place


def test_archived_removed_and_brought_back(runs: World) -> None:
    start = contents(runs.root)
    found = look(runs, vault=True)
    plan = steps_of(runs, found)
    assert {step.source for step in plan.steps} == set(ARCHIVED) == set(plan.runs)
    assert read_plan(plan.as_bytes()) == plan
    # the archive holds although the other runs are gone by then
    place = take(runs, found)
    done = archive(runs, plan)
    assert done.archived == ARCHIVED
    assert done.freed == sum(line(found, path).size for path in ARCHIVED)
    for path in ARCHIVED:
        left = {file.name for file in (runs.root / path).iterdir()}
        assert left == {"classification_report.json", "config.json", "history.csv", "results.json", "vocab.pkl"}
    assert archive(runs, plan).archived == ()
    again = look(runs, vault=True)
    assert {fates(again)[path] for path in ARCHIVED} == {("keep", "archived")}
    assert of_tier(again, "remove") == of_tier(again, "archive") == set()

    runs.holdfast("registry", "consolidate", "--restore", *ARCHIVED)
    place.restore("cd" * 16)
    rest = contents(runs.root)
    assert {path: rest.get(path) for path in start} == start
    assert {path.partition("/")[0] for path in rest.keys() - start.keys()} == {"registry"}


def test_an_archive_whose_run_changed_is_refused(runs: World) -> None:
    plan = steps_of(runs, look(runs, vault=True))
    (runs.root / ARCHIVED[0] / "best_model.pt").write_bytes(b"trained on")
    with pytest.raises(StalePlanError):
        archive(runs, plan)
    assert (runs.root / ARCHIVED[1] / "best_model.pt").is_file()


def test_nothing_is_archived_without_a_vault_or_against_a_use(runs: World) -> None:
    found = look(runs)
    assert {fates(found)[path] for path in ARCHIVED} == {("keep", "blocked")}
    assert line(found, ARCHIVED[0]).why.endswith("the project has no vault: none was made")
    runs.write("serve.py", f"load('{ARCHIVED[0]}/best_model.pt')\n")
    found = look(runs, vault=True)
    assert fates(found)[ARCHIVED[0]] == ("keep", "blocked")
    assert "serve.py:1 would break" in line(found, ARCHIVED[0]).why
    assert {step.source for step in steps_of(runs, found).steps} == {ARCHIVED[1]}
    young = look(runs, vault=True, age=timedelta(days=5))
    assert {fates(young)[path] for path in ARCHIVED} == {("keep", "young")}
    assert steps_of(runs, young).steps == ()
    assert archive(runs, steps_of(runs, young)) == Consolidated((), (), (), 0, 0)


@pytest.mark.parametrize(
    ("user", "text", "place"),
    [
        ("serve.py", f"\nload('{FIRST}/best_model.pt')\n", "serve.py:2"),
        ("serve.py", f"for f in ('a', 'b'): load(f'{FIRST}/{{f}}.pt')\n", "serve.py:1"),
        (
            "tools/x.py",
            "import os\nopen(os.path.join('..', 'runs', 'try_20250525_070000', 'results.json'))\n",
            "tools/x.py:2",
        ),
        ("go.sh", "RUN=try_20250525_070000\n./serve $RUN\n", "go.sh:1"),
        ("conf/serve.yaml", f"model: {FIRST}\n", "conf/serve.yaml:1"),
        ("dvc.yaml", f"stages:\n  a:\n    cmd: x\n    deps:\n    - {FIRST}\n", "dvc.yaml:5"),
        ("dvc.lock", f"schema: '2.0'\nstages:\n  a:\n    cmd: x\n    deps:\n    - path: {FIRST}\n", "dvc.lock:6"),
        ("runs/good/parent.json", f'{{"from": "{FIRST}/best_model.pt"}}', "runs/good/parent.json:1"),
    ],
)
def test_what_is_used_needs_a_decision(world: World, user: str, text: str, place: str) -> None:
    world.write("README.md", f"see {FIRST}/best_model.pt\n")
    world.write("near.py", f"open('{FIRST}_b/x.pt'); open('x_try_20250525_070000')\n")
    assert fates(look(world)) == {
        FIRST: ("remove", "test"),
        SECOND: ("remove", "test"),
        "runs/good": ("keep", "class"),
    }
    world.write(user, text)
    found = look(world)
    assert of_tier(found, "remove") == {SECOND}
    assert line(found, FIRST).reason == "decision"
    assert line(found, FIRST).users == (place,)
    accepted = look(world, accept=["runs/try_*_070000"])
    assert (line(accepted, FIRST).tier, line(accepted, FIRST).users) == ("remove", (place,))
    assert [name for name, _ in accepted.inputs] == ["the rules for runs", f"what uses {FIRST}"]


def test_a_plan_in_the_project_is_no_use_of_anything(runs: World) -> None:
    found = look(runs, vault=True)
    plan = {"format": "holdfast gc plan 2", "objects": [{"path": item.path} for item in found.objects]}
    steps = json.loads(steps_of(runs, found).as_bytes())
    runs.write("plan.json", json.dumps(plan | {"archive": steps}, indent=2))
    assert fates(look(runs, vault=True)) == fates(found)


def test_runs_that_use_one_another(world: World) -> None:
    third = "runs/try_20250525_070002"
    write_test_run(world, third)
    world.write(f"{FIRST}/from.json", f'{{"init": "{SECOND}/best_model.pt"}}')
    world.write(f"{SECOND}/from.json", f'{{"init": "{third}/best_model.pt"}}')
    assert of_tier(look(world), "remove") == {FIRST, SECOND, third}
    # one that stays keeps what it needs, and what that needs
    world.write("serve.py", f"load('{FIRST}/best_model.pt')\n")
    found = look(world)
    assert of_tier(found, "remove") == set()
    assert line(found, third).users == (f"{SECOND}/from.json:1",)


def test_links(world: World) -> None:
    (world.root / "latest").symlink_to(FIRST)
    (world.root / SECOND / "weights.pt").symlink_to("best_model.pt")
    (world.root / "runs" / "alias_20250525_080000").symlink_to(SECOND.rpartition("/")[2])
    found = look(world)
    assert line(found, FIRST).users == ("latest",)
    assert line(found, SECOND).users == ("runs/alias_20250525_080000",)
    assert "runs/alias_20250525_080000" not in fates(found)
    (world.root / "runs" / "alias_20250525_080000").unlink()
    assert of_tier(look(world), "remove") == {SECOND}


def test_what_dvc_or_the_registry_has_stays(world: World) -> None:
    world.track(f"{FIRST}/best_model.pt", "x")
    found = look(world, accept=["runs/*"])
    assert fates(found)[FIRST] == ("keep", "dvc")
    assert f"{FIRST}/best_model.pt.dvc" in line(found, FIRST).why
    (world.root / FIRST / "best_model.pt.dvc").unlink()
    data = (world.root / SECOND / "best_model.pt").read_bytes()
    oid = hashlib.md5(data, usedforsecurity=False).hexdigest()
    world.write("registry/a/b/model.yaml", "schema: 1\ncurrent: v1\naliases: {}\n")
    for source, path in ((f"{{run: {SECOND}}}", "models/b.pt"), ("{}", f"{SECOND}/best_model.pt")):
        world.write(
            "registry/a/b/v1.yaml",
            f'schema: 1\npath: {path}\noid: "{oid}"\nsize: {len(data)}\nweights: "blake3:{"0" * 64}"\n'
            f'date: "2026-11-20"\nsource: {source}\nparams: {{}}\nmetrics: {{}}\n',
        )
        found = look(world, accept=["runs/*"])
        assert fates(found)[SECOND] == ("keep", "registry")
        assert "a/b@v1 is from it" in line(found, SECOND).why
    world.write("holdfast.yaml", f"workspace: {{keep: [{FIRST}/]}}\n")
    assert fates(look(world, accept=["runs/*"]))[FIRST] == ("keep", "rule")


def test_a_run_at_work_is_not_touched(world: World) -> None:
    alive = write_test_run(world, "runs/try_20250525_090000")
    (alive / "results.json").unlink()
    (alive / "metadata.json").write_text(json.dumps({"status": "running"}))
    (world.root / "runs" / "try_20250525_090001").mkdir()
    found = look(world)
    assert fates(found)["runs/try_20250525_090000"] == ("keep", "running")
    soon = (datetime.now(timezone.utc) + timedelta(days=25)).timestamp()
    os.utime(world.root / SECOND / "config.json", (soon, soon))
    assert fates(look(world))[SECOND] == ("keep", "young")
    # an empty folder may be one that has just begun
    young = look(world, age=timedelta(days=10))
    assert fates(young)["runs/try_20250525_090001"] == ("keep", "young")
    assert fates(found)["runs/try_20250525_090001"] == ("remove", "incomplete")


def test_weights_without_results_are_for_people(world: World) -> None:
    loose = world.root / "runs" / "other_20250525_090000"
    (world.root / "runs" / "good").rename(world.root / "runs" / "good_20250101_000000")
    world.write("runs/other_20250525_090000/model.pt", os.urandom(300))
    world.write("runs/other_20250525_090000/config.json", json.dumps({"model": {"num_layers": 9}, "epochs": 9}))
    found = look(world)
    assert fates(found)[f"runs/{loose.name}"] == ("keep", "decision")
    assert of_tier(look(world, accept=[f"runs/{loose.name}"]), "remove") == {FIRST, SECOND, f"runs/{loose.name}"}


def test_a_run_inside_another(world: World) -> None:
    inner = f"{FIRST}/sweep/try_20250525_070500"
    write_test_run(world, inner)
    world.write(f"{FIRST}/history.csv", "epoch,train_loss,val_loss\n1,2.0,2.1\n2,1.0,1.1\n")
    size = sum(file.stat().st_size for file in (world.root / FIRST).rglob("*") if file.is_file())
    found = look(world)
    assert of_tier(found, "remove") == {FIRST, SECOND}
    assert inner not in fates(found)
    assert line(found, FIRST).size == size
    assert "with 1 run in it" in line(found, FIRST).why
    world.write("serve.py", f"load('{inner}/best_model.pt')\n")
    found = look(world)
    assert fates(found)[inner] == ("keep", "decision")
    assert fates(found)[FIRST][0] == "keep"
    assert line(found, FIRST).size == size - line(found, inner).size
    world.write("serve.py", "")
    alive = {"status": "running"}
    world.write(f"{inner}/metadata.json", json.dumps(alive))
    (world.root / inner / "results.json").unlink()
    found = look(world, accept=["runs/*"])
    assert fates(found)[inner] == ("keep", "running")
    assert fates(found)[FIRST] == ("keep", "nested")
    assert f"it holds the run {inner}, which stays" in line(found, FIRST).why


def test_git_tells(world: World) -> None:
    world.write(".gitignore", "*.pt\n")
    world.commit("runs")
    item = line(look(world), FIRST)
    assert "git tracks 2 of its 3 files: `git status` will show that" in item.why
    assert item.last_copy is True
    world.write("safe/best_model.pt", (world.root / FIRST / "best_model.pt").read_bytes())
    assert line(look(world), FIRST).last_copy is False


def test_both_scopes_move_nothing_twice(runs: World) -> None:
    run = ARCHIVED[0]
    other = "experiments/mock_test_20250525_112344"
    project, now = find_project(runs.folder), datetime.now(timezone.utc) + LATER
    runs.write("holdfast.yaml", f"workspace: {{remove: ['{other}/vocab.pkl', '{run}/**', 'drafts/**']}}\n")
    write_test_run(runs, "drafts/try_20250525_070000")
    runs.write("drafts/text.bin", "x")
    runs.write("experiments/minimal_test_20250525_114500/__pycache__/a.pyc", "x")
    workspace = find_workspace(project, Policy(), DigestCache(None), now=now)
    found = look(runs, vault=True)
    assert {f"{other}/vocab.pkl", run, "drafts"} <= of_tier(workspace, "remove")
    assert {other, "drafts/try_20250525_070000"} <= of_tier(found, "remove")
    one, two = settle(workspace, found)
    assert "drafts" in of_tier(one, "remove")
    assert run not in fates(one)
    assert run in of_tier(two, "archive")
    leaving = [item.path for scope in (one, two) for item in scope.objects if item.tier != "keep"]
    assert not [(a, b) for a in leaving for b in leaving if a != b and b.startswith(f"{a}/")]
    assert len(set(leaving)) == len(leaving)
    assert other in leaving
    assert {item.path for item in found.objects} - {item.path for item in two.objects} == {"drafts/try_20250525_070000"}


def test_a_folder_around_an_archive_waits(runs: World) -> None:
    project, now = find_project(runs.folder), datetime.now(timezone.utc) + LATER
    runs.write("holdfast.yaml", "workspace: {remove: ['experiments/**']}\n")
    (runs.root / "models_registry.json").unlink()
    workspace = find_workspace(project, Policy(), DigestCache(None), now=now)
    assert of_tier(workspace, "remove") == {"experiments"}
    one, two = settle(workspace, look(runs, vault=True))
    assert fates(one)["experiments"] == ("keep", "runs")
    assert of_tier(two, "archive") == set(ARCHIVED)
    assert len(of_tier(two, "remove")) == 16
