"""The pull-request report's facts: each equals what DVC, the registry, the gate and the cache say."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.repo.cache import object_path
from holdfast.repo.workspace import find_project
from holdfast.report.pull_opening import open_sides
from holdfast.report.pull_plots import panels_of
from holdfast.report.pull_request import PullRequest
from report_world import BASE, HEAD, MODEL, PIPELINE, SAMPLES, STABLE, State, facts, make_world, put, register
from worlds import TOOLS, World, make_repository, run


def put_forms(world: World, number: int) -> None:
    """A second pipeline, in a folder of its own, whose metrics and params have every form that DVC reads."""
    scores = (
        f"loss: {number}e-05\nnested:\n  deep: {{f1: 0.{number}, 'with space': {number}}}\n  on: yes\nlist: [1, {number}]\n"
        f"none: null\nempty: {{}}\nunicode: größer\nbig: {number}_000\nday: 2026-01-0{number}\n7: {number}\n"
    )
    oid = world.store(scores)
    world.write(
        "sub/dvc.yaml",
        "stages:\n  score:\n    wdir: inner\n    cmd: 'true'\n    params:\n    - a.b\n    - ../config.toml:\n      - x.y\n"
        "    - ../all.json:\n    metrics:\n    - scores.yaml\nmetrics:\n- plain.json\nparams:\n- top.yaml\n",
    )
    world.write(
        "sub/dvc.lock",
        "schema: '2.0'\nstages:\n  score:\n    cmd: 'true'\n    outs:\n    - path: scores.yaml\n      hash: md5\n"
        f"      md5: {oid}\n      size: {len(scores.encode())}\n",
    )
    world.write("sub/inner/.gitignore", "/scores.yaml\n")
    world.write("sub/inner/params.yaml", f"a: {{b: {number}, c: {number}}}\n")
    world.write("sub/config.toml", f"[x]\ny = {number}.5\nz = {number}\n")
    world.write("sub/all.json", f'{{"p": [{number}, 2], "q": {{"r": "{number}"}}, "same": true}}')
    world.write("sub/top.yaml", f"rate: {number}e-3\nword: on\n")
    world.write("sub/plain.json", str(number))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_repository(tmp_path_factory.mktemp("pr"))
    for number, (state, branch) in enumerate(((BASE, "main"), (HEAD, "feature")), start=1):
        world.git("checkout", "--quiet", "-B", branch)
        put(world, state)
        put_forms(world, number)
        world.commit(branch)
    return world


@pytest.fixture(scope="module")
def found(world: World) -> PullRequest:
    return facts(world)


def by_name(found: PullRequest) -> dict[tuple[str, str], Any]:
    return {(metric.value.file, metric.value.name): metric for metric in found.metrics}


def test_metrics_are_those_of_dvc(world: World, found: PullRequest) -> None:
    told = json.loads(world.dvc("metrics", "diff", "--json", "main", "feature"))
    ours = {
        (m.value.file, m.value.name): (m.value.base, m.value.head, m.value.difference)
        for m in found.metrics
        if m.value.changed
    }
    theirs = {
        (file, name): (entry["old"], entry["new"], entry.get("diff"))
        for file, entries in told.items()
        for name, entry in entries.items()
    }
    assert ours == theirs
    assert len(theirs) == 11  # accuracy, test.f1, note, fresh, val_loss, and six of the other pipeline
    every = json.loads(world.dvc("metrics", "diff", "--json", "--all", "main", "feature"))
    assert by_name(found).keys() == {(file, name) for file, entries in every.items() for name in entries}


def test_params_are_those_of_dvc(world: World, found: PullRequest) -> None:
    told = json.loads(world.dvc("params", "diff", "--json", "main", "feature"))
    theirs = {
        (file, name): (entry["old"], entry["new"]) for file, entries in told.items() for name, entry in entries.items()
    }
    assert {(v.file, v.name): (v.base, v.head) for v in found.params} == theirs
    assert len(theirs) == 6
    assert theirs["params.yaml", "train.lr"] == (0.01, 0.02)


def test_the_registry_is_what_its_verbs_say(world: World, found: PullRequest) -> None:
    shown = json.loads(world.holdfast("registry", "show", MODEL, "--json").stdout)["models"][0]
    [change] = found.models
    assert change.id == MODEL
    assert [version.name for version in change.registered] == ["v2"]
    assert change.head is not None
    assert change.head.current == shown["current"]
    assert [(event.kind, event.before, event.after) for event in change.events] == [
        ("registered", None, "v2"),
        ("label", "v1", "v2"),
    ]


def test_a_metric_has_the_gates_direction_and_the_interval_of_its_predictions(found: PullRequest) -> None:
    accuracy = by_name(found)["metrics/evaluate.json", "accuracy"]
    assert accuracy.better is True
    assert accuracy.asked == "≥ 0.8; at most 0.2 worse, by its interval"
    rule = next(finding for finding in found.gate.findings if finding.rule == "bootstrap.accuracy")
    # the champion is the base's current version, so that the gate's interval is that of the two sides
    assert (accuracy.interval.lower, accuracy.interval.upper) == (rule.numbers["lower"], rule.numbers["upper"])
    assert (accuracy.interval.samples, accuracy.interval.differing) == (SAMPLES, 5)
    unknown = by_name(found)["metrics/evaluate.json", "test.f1"]
    assert unknown.better is None
    assert unknown.direction is None
    assert unknown.interval is None
    assert by_name(found)["metrics/train.json", "val_loss"].better is True


def test_classes_are_counted_from_predictions(found: PullRequest) -> None:
    marks = {change.name: (change.mark, change.base.recall, change.head.recall) for change in found.classes}
    assert marks == {"a": ("better", 0.95, 1.0), "b": ("better", 0.975, 1.0), "c": ("worse", 1.0, 0.95)}
    assert found.classes[0].name == "c"
    cells = {(cell.label, cell.prediction): (cell.base, cell.head) for cell in found.confusion}
    assert cells == {("a", "b"): (2, 0), ("b", "c"): (1, 0), ("c", "a"): (0, 2)}


def test_outs_are_those_of_the_lock_with_a_verdict(world: World, found: PullRequest) -> None:
    told = json.loads(run([str(TOOLS / "dvc"), "diff", "--json", "main", "feature"], world.root, world.home).stdout)
    assert {change.path for change in found.outs} == {entry["path"] for entry in told["modified"]}
    assert not told["added"]
    assert not told["deleted"]
    model = next(change for change in found.outs if change.path == STABLE)
    assert model.verdict.startswith("fine-tuned: 2 of 2 tensors differ")
    assert (model.base.size, model.head.size) == (len(BASE.weights), len(HEAD.weights))
    assert found.outs[0].is_model


def test_new_bytes_are_those_that_a_push_adds(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.track("images", {"a.png": "a", "b.png": "b" * 40})
    world.track("copy.csv", BASE.curves)  # which main has under another name
    world.commit("Pictures")
    found = facts(world)
    remote = tmp_path / "remote"
    world.dvc("remote", "add", "-d", "storage", str(remote))
    # what a push of main left there
    for data in (BASE.curves, BASE.predictions, BASE.weights):
        place = object_path(world.cache, "md5", world.store(data))
        target = remote / place.relative_to(world.cache)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(place.read_bytes())
    before = {path.name for path in remote.rglob("*") if path.is_file()}
    world.dvc("push")
    fresh = {path: path.stat().st_size for path in remote.rglob("*") if path.is_file() and path.name not in before}
    assert (found.added.objects, found.added.nbytes) == (len(fresh), sum(fresh.values())) != (0, 0)
    assert found.added.vault is not None
    assert 0 < found.added.vault < found.added.nbytes
    assert not found.added.exact
    assert found.added.unknown == 0


def test_a_vault_that_has_the_objects_says_exactly_what_it_stores(tmp_path: Path) -> None:
    # the tensors are those of main, and what is stored for the new file is the rest of it
    world = make_world(tmp_path, head=replace(HEAD, value=BASE.value, metadata="second"))
    world.dvc("remote", "add", "-d", "storage", str(tmp_path / "remote"))
    world.holdfast("vault", "init")
    config = world.root / ".dvc/config"
    kept = config.read_text()
    world.git("checkout", "--quiet", "-f", "main")
    config.write_text(kept)
    world.holdfast("push")
    before = vault_bytes(world)
    world.git("checkout", "--quiet", "-f", "feature")
    config.write_text(kept)
    world.holdfast("push")
    told = json.loads(world.holdfast("report", "pr", "--base", "main", "--json").stdout)["storage"]
    assert told["vault_exact"] is True
    assert 0 < told["vault_bytes"] == vault_bytes(world) - before < len(HEAD.weights) / 4
    assert told["vault_dollars_a_month"] == told["vault_bytes"] / 1e9 * 0.015


def vault_bytes(world: World) -> int:
    """Stored bytes of the blobs that the vault's index names, each once."""
    script = (
        "from pathlib import Path\n"
        "from holdfast.registry.storage import known_index\n"
        "path = next(Path('.dvc/tmp/holdfast/vaults').glob('*/index.sqlite'))\n"
        "index = known_index(path)\n"
        "print(sum({entry.id: entry.stored for entry in index.all_entries()}.values()))\n"
    )
    return int(run([sys.executable, "-c", script], world.root, world.home).stdout)


def test_what_the_branch_stops_naming_stays_where_something_keeps_it(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    gone = {entry.path: entry.kept_by for entry in facts(world).let_go}
    assert gone["outputs/epoch_statistics.csv"] == "git's history"
    assert f"registered as {MODEL}@v1" in gone.values()
    world.write("holdfast.yaml", "gc:\n  keep:\n    history: none\n")
    world.commit("Tips alone")
    gone = {entry.path: entry.kept_by for entry in facts(world).let_go}
    assert gone["outputs/epoch_statistics.csv"] == ""
    assert f"registered as {MODEL}@v1" in gone.values()


def test_new_metadata_are_the_same_weights(tmp_path: Path) -> None:
    found = facts(make_world(tmp_path, head=replace(BASE, metadata="second", version=False)))
    assert {change.path: change.verdict for change in found.outs if change.is_model} == dict.fromkeys(
        (STABLE, "outputs/model.safetensors"), "same weights, new metadata"
    )


def test_what_is_not_in_the_cache_is_said(tmp_path: Path) -> None:
    world = make_world(tmp_path, head=replace(HEAD, version=False, verdict="pass"))
    for data in (HEAD.weights, HEAD.predictions):
        object_path(world.cache, "md5", world.store(data)).unlink()
    found = facts(world)
    model = next(change for change in found.outs if change.path == STABLE)
    assert model.verdict == "not in the cache here"
    assert found.added.vault is None
    assert found.added.nbytes > len(HEAD.weights)
    assert "outputs/predictions.csv: it is not in DVC's cache here" in found.predictions_note
    assert found.gate.outcome == "inconclusive"
    assert not any(metric.interval for metric in found.metrics)


def test_a_damaged_object_tells_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    place = object_path(world.cache, "md5", world.store(HEAD.predictions))
    place.chmod(0o644)
    place.write_text(HEAD.predictions.replace(",c,a\n", ",c,c\n"))
    found = facts(world)
    assert "is damaged: `dvc fetch` brings it again" in found.predictions_note
    assert not found.classes
    assert not found.confusion


def test_stages_that_are_gone_from_the_pipeline_have_no_outs(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    before = world.git("rev-parse", "HEAD")
    world.write("dvc.yaml", PIPELINE.split("  promote:")[0])
    world.commit("Promote no more, and leave the lock as it is")
    assert {change.path: change.kind for change in facts(world, before).outs} == dict.fromkeys(
        (STABLE, "models/digits/classifier.predictions.csv"), "removed"
    )


def test_the_first_pull_request_ever(tmp_path: Path) -> None:
    found = facts(make_world(tmp_path, base=None))
    assert found.gate.outcome == "pass"
    assert found.gate.champion is None
    assert [change.kind for change in found.outs] == ["added"] * 5
    assert all(metric.value.base is None for metric in found.metrics)
    assert [event.text for event in found.models[0].events] == ["v1 registered", "current set to v1"]
    assert not found.faults
    assert not found.let_go


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.git("update-ref", "-d", "HEAD")
    put(world, replace(HEAD, version=False))
    found = facts(world, "main", workspace=True)
    assert found.base.commit == found.head.commit == ""
    assert by_name(found)["metrics/evaluate.json", "accuracy"].value.head == HEAD.accuracy


def test_the_base_is_what_both_come_from(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    fork = world.git("rev-parse", "main")
    world.git("checkout", "--quiet", "main")
    world.write("params.yaml", "train: {lr: 9}\n")
    world.commit("Meanwhile on main")
    found = facts(world, "main", "feature")
    assert found.base.commit == fork
    assert found.related
    assert [value.name for value in found.params] == ["train.lr"]
    world.git("checkout", "--quiet", "--orphan", "alone")
    world.commit("From nothing")
    stranger = facts(world, "feature", "alone")
    assert not stranger.related
    assert stranger.base.commit == world.git("rev-parse", "feature")


def test_the_workspace_as_it_lies(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.write("metrics/train.json", '{"val_loss": 0.125}')
    register(world, replace(HEAD, value=3.0))
    assert by_name(facts(world))["metrics/train.json", "val_loss"].value.head == 0.2
    found = facts(world, workspace=True)
    assert found.workspace
    assert by_name(found)["metrics/train.json", "val_loss"].value.head == 0.125
    assert [version.name for version in found.models[0].registered] == ["v2", "v3"]


def test_the_workspace_is_not_left_through_a_link(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    secret = tmp_path / "secret.json"
    secret.write_text('{"token": 12345}')
    (world.root / "metrics/train.json").unlink()
    (world.root / "metrics/train.json").symlink_to(secret)
    names = {metric.value.name for metric in facts(world, workspace=True).metrics}
    assert "val_loss" in names
    assert "token" not in names


def test_a_project_below_the_top(tmp_path: Path) -> None:
    world = make_world(tmp_path, project="sub/project")
    found = facts(world)
    assert {value.file for value in found.params} == {"params.yaml"}
    assert {change.path for change in found.outs} >= {STABLE}
    assert found.gate.outcome == "pass"
    assert len(found.models) == 1
    assert json.loads(world.dvc("metrics", "diff", "--json", "main", "feature")).keys() == {
        metric.value.file for metric in found.metrics if metric.value.changed
    }


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("metrics/train.json", b"{", "it is no JSON (line 1)"),
        ("metrics/train.json", b"\x89PNG\r\n\xff", "it is no text"),
        ("metrics/train.json", b"[" * 100_000, "it is no JSON"),
        ("dvc.yaml", b"stages: [}", "line 1"),
        ("dvc.lock", b"stages: 7", "where a mapping belongs"),
        ("registry/digits/classifier/v2.yaml", b"schema: 1\n", "path"),
        ("registry/digits/classifier/model.yaml", b"schema: 1\ncurrent: v9\n", "v9"),
        ("outputs.dvc", b"outs: 3", "no list of entries"),
        ("holdfast.yaml", b"gc: {keep: {nonsense: 1}}", "nonsense"),
    ],
)
def test_what_is_broken_on_the_head_side_is_named(
    world: World, tmp_path: Path, path: str, content: bytes, reason: str
) -> None:
    folder = tmp_path / "broken"
    world.git("worktree", "add", "--quiet", "--detach", str(folder), "feature")
    broken = World(folder, world.home)
    broken.write(path, content)
    broken.commit("Break it")
    found = facts(broken, cache=world.cache)
    assert [(fault.side, fault.path) for fault in found.faults] == [("head", path)]
    assert reason in found.faults[0].reason
    world.git("worktree", "remove", "--force", str(folder))


def test_metrics_that_come_go_move_and_are_no_numbers(tmp_path: Path) -> None:
    pipeline = PIPELINE.replace("metrics/train.json:", "metrics/renamed.json:")
    world = make_world(tmp_path, head=replace(HEAD, version=False))
    (world.root / "metrics/train.json").unlink()
    world.write("dvc.yaml", pipeline)
    world.write("metrics/renamed.json", '{"val_loss": NaN, "steps": 1000000000000000000000, "on": true, "list": [1]}')
    world.commit("Rename a metrics file")
    found = by_name(facts(world))
    assert found["metrics/train.json", "val_loss"].value.head is None
    assert found["metrics/renamed.json", "val_loss"].value.base is None
    assert found["metrics/renamed.json", "steps"].value.head == 10**21
    assert ("metrics/renamed.json", "list") not in found
    assert found["metrics/renamed.json", "val_loss"].verdict == "inconclusive"
    before = world.git("rev-parse", "HEAD")
    world.write("README.md", "Words\n")
    world.commit("The same NaN")
    assert not any(metric.value.changed for metric in facts(world, before).metrics)


def test_renamed_and_removed_outs(tmp_path: Path) -> None:
    world = make_world(tmp_path, head=State(version=False))
    world.track("data/old.csv", "1,2\n")
    world.track("data/gone.csv", "3,4\n")
    before = world.commit("Data")
    (world.root / "data/old.csv.dvc").unlink()
    (world.root / "data/gone.csv.dvc").unlink()
    world.track("data/new.csv", "1,2\n")
    world.track("images", {"a.png": "a", "b.png": "b"})
    middle = world.commit("Move and remove data")
    found = {change.path: change for change in facts(world, before).outs}
    assert {path: change.kind for path, change in found.items()} == {
        "data/new.csv": "renamed",
        "data/gone.csv": "removed",
        "images": "added",
    }
    assert found["data/new.csv"].renamed_from == "data/old.csv"
    world.track("images", {"a.png": "A", "c.png": "b"})
    world.commit("Other pictures")
    change = next(change for change in facts(world, middle).outs if change.path == "images")
    assert change.verdict == "of 2 files 1 added, 1 removed, 1 changed"


def test_templates_are_resolved_by_dvc(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    before = world.git("rev-parse", "HEAD")
    world.write(
        "dvc.yaml",
        "stages:\n  score:\n    foreach: [one, two]\n    do:\n      cmd: 'true'\n      metrics:\n"
        "      - metrics/${item}.json:\n          cache: false\n",
    )
    world.write("metrics/one.json", '{"f1": 1}')
    world.write("metrics/two.json", '{"f1": 2}')
    world.commit("Stages by the dozen")
    found = by_name(facts(world, before))
    assert found["metrics/one.json", "f1"].value.head == 1
    assert found["metrics/two.json", "f1"].value.head == 2


@pytest.mark.parametrize("kind", ["plotted", "recorded", "neither", "equal", "bars", "back"])
def test_curves_are_those_that_dvc_plots_and_else_what_a_run_records(tmp_path: Path, kind: str) -> None:
    pipeline = PIPELINE if kind == "plotted" else PIPELINE.split("plots:")[0]
    world = make_world(tmp_path, base=None, head=BASE)
    for state in (BASE, replace(HEAD, value=BASE.value, val_loss=BASE.val_loss) if kind == "equal" else HEAD):
        put(world, replace(state, version=False), pipeline=pipeline)
        if kind == "neither":
            for name in ("dvc.yaml", "dvc.lock"):
                text = (world.root / name).read_text()
                world.write(name, text.replace("epoch_statistics", "other"))
        if kind in ("bars", "back"):
            axis = "train_loss" if kind == "back" else "epoch\n    template: bar_horizontal"
            world.write(
                "dvc.yaml", PIPELINE.replace("x: epoch", f"x: {axis}").replace("[train_loss, val_loss]", "val_loss")
            )
        world.commit("A state")
    sides = open_sides(find_project(world.root), world.cache.resolve(), "HEAD~1", "HEAD")[:2]
    panels = panels_of(*sides)
    if kind in ("neither", "equal", "back"):
        assert panels == []
        return
    [panel] = panels
    assert (panel.title, panel.x) == ("loss", "epoch")
    # bars are no curve, so that what the run recorded is drawn, with both splits
    assert set(panel.lines) == {"train", "val"}
    base, head = panel.lines["val"]
    assert base is not None
    assert head is not None
    assert base.x == head.x == tuple(map(float, range(1, 9)))
    assert (base.y[0], head.y[0]) == (1.2 + BASE.val_loss, 1.2 + HEAD.val_loss)


def test_dvc_is_not_loaded(world: World) -> None:
    script = (
        "import sys\nfrom holdfast.cli.main import main\n"
        "try:\n    main(['report', 'pr', '--base', 'main', '-o', '../out.md'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('dvc', 'torch', 'matplotlib')))"
    )
    done: subprocess.CompletedProcess[str] = run([sys.executable, "-c", script], world.root, world.home)
    assert done.stdout.splitlines()[-1] == "[]"
