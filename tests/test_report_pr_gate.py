"""The pull-request report's verdict: the gate judged by what both sides have, and what the promotion wrote."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from holdfast.registry.gate import judge
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_predictions import read_predictions
from holdfast.registry.gate_rules import read_rules
from holdfast.repo.cache import object_path
from holdfast.report.pull_request import PullRequest
from report_world import BASE, GATE, HEAD, MODEL, SAMPLES, STABLE, facts, make_world, put
from worlds import World, make_repository


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("pr"))


@pytest.fixture(scope="module")
def found(world: World) -> PullRequest:
    return facts(world)


def test_the_gate_judges_the_new_version_against_the_bases_champion(
    world: World, found: PullRequest, tmp_path: Path
) -> None:
    for name, state in (("head", HEAD), ("base", BASE)):
        (tmp_path / name).write_text(state.predictions)
    rules = read_rules(world.root / "params.yaml")
    candidate = Evidence(
        "the candidate",
        {"accuracy": HEAD.accuracy, "val_loss": HEAD.val_loss},
        predictions=read_predictions(tmp_path / "head"),
    )
    champion = Evidence(
        "v1", {"accuracy": BASE.accuracy, "val_loss": BASE.val_loss}, predictions=read_predictions(tmp_path / "base")
    )
    expected = {finding.rule: finding for finding in judge(rules, candidate, champion).findings}
    got = {finding.rule: finding for finding in found.gate.findings}
    assert got.keys() == expected.keys()
    for rule in expected.keys() - {"max_size", "pickle_safe"}:
        assert got[rule] == expected[rule]
    assert got["max_size"].numbers["value"] == len(HEAD.weights)
    assert (found.gate.outcome, found.gate.champion, found.gate.candidate) == ("pass", "v1", f"{MODEL}@v2")
    assert not found.gate.stops
    assert not found.gate.recorded


def test_a_class_beyond_its_tolerance_is_a_regression(tmp_path: Path) -> None:
    bad = replace(HEAD, wrong=dict.fromkeys(range(2, 26, 3), "a"), version=False)
    found = facts(make_world(tmp_path, head=bad))
    first = found.classes[0]
    assert (first.name, first.mark, round(first.difference or 0, 6)) == ("c", "regression", -0.2)
    assert [change.mark for change in found.classes[1:]] == ["better", "better"]
    assert found.gate.outcome == "fail"
    assert found.gate.stops
    assert found.gate.stopping[0].rule == "classes.recall.tolerance"


def test_the_gate_takes_the_promotions_word_for_what_is_not_here(tmp_path: Path) -> None:
    world = make_world(tmp_path, head=replace(HEAD, version=False))
    record = {
        "verdict": "pass",
        "passed": 1,
        "bootstrap.accuracy": 1,
        "max_size": 1,
        "pickle_safe": 1,
        "classes.recall.tolerance": 1,
    }
    world.write("metrics/promotion.json", json.dumps(record))
    world.commit("What the promotion wrote")
    object_path(world.cache, "md5", world.store(HEAD.predictions)).unlink()
    gate = facts(world).gate
    assert gate.outcome == "pass"
    assert gate.recorded == ("classes.recall.tolerance", "bootstrap.accuracy", "max_size", "pickle_safe")
    world.write(
        "metrics/promotion.json", json.dumps({**record, "verdict": "fail", "passed": 0, "bootstrap.accuracy": 0})
    )
    world.commit("What the promotion wrote instead")
    gate = facts(world).gate
    assert gate.outcome == "fail"
    assert gate.stops
    assert gate.stopping[0].rule == "bootstrap.accuracy"


def test_a_worse_word_of_the_promotion_counts(tmp_path: Path) -> None:
    gate = facts(make_world(tmp_path, head=replace(HEAD, verdict="fail"))).gate
    assert gate.outcome == "fail"
    assert gate.note == "metrics/promotion.json says fail"
    assert gate.stops


def test_a_version_that_disagrees_with_the_metrics_is_said(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    assert not facts(world).gate.note
    world.write("metrics/train.json", '{"val_loss": 0.1}')
    world.commit("Another training, not registered")
    assert facts(world).gate.note == "v2 was registered with other values than the metrics files have: val_loss"


def test_changed_rules_are_said_and_the_bases_rules_judge_too(tmp_path: Path) -> None:
    lax = {**GATE, "max_size": "1 kB", "metrics": {"accuracy": {"direction": "max", "floor": 0.5}}}
    strict = {**lax, "metrics": {"accuracy": {"direction": "max", "floor": 0.99}}}
    gate = facts(make_world(tmp_path, base=replace(BASE, gate=strict), head=replace(HEAD, gate=lax))).gate
    assert gate.rules_changed
    assert [finding.rule for finding in gate.stopping] == ["max_size"]
    # what both say is said once
    assert [finding.rule for finding in gate.stricter] == ["metrics.accuracy.floor"]


def test_a_gate_that_is_taken_away_or_broken_stops(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.write("params.yaml", "promote: {metrics: {accuracy: {floor: 1}}}\n")
    world.commit("A rule without a direction")
    found = facts(world)
    assert found.gate.outcome == "fail"
    assert found.gate.stops
    assert "direction" in next(fault.reason for fault in found.faults if fault.path == "params.yaml")
    (world.root / "params.yaml").unlink()
    world.commit("No rules")
    assert facts(world).gate.note == "the head side has no gate, and the base side has"


def test_what_is_required_and_open_stops(tmp_path: Path) -> None:
    required = {**GATE, "bootstrap": {"accuracy": {"improvement": 0.0001, "minimum_differing": 1, "required": True}}}
    optional = {**GATE, "bootstrap": {"accuracy": {"improvement": 0.0001, "minimum_differing": 1}}}
    for gate, stops in ((required, True), (optional, False)):
        world = make_world(tmp_path / str(stops), base=replace(BASE, gate=gate), head=replace(HEAD, gate=gate))
        found = facts(world).gate
        assert (found.outcome, found.stops) == ("inconclusive", stops)


def test_nothing_to_judge_where_neither_models_nor_metrics_change(tmp_path: Path) -> None:
    world = make_world(tmp_path, head=replace(BASE, version=False))
    world.write("README.md", "Words\n")
    world.commit("Words")
    gate = facts(world).gate
    assert (gate.outcome, gate.stops, gate.findings) == ("nothing to judge", False, ())


def test_without_a_registry_the_base_itself_is_the_champion(tmp_path: Path) -> None:
    rules = {key: value for key, value in GATE.items() if key not in ("max_size", "pickle_safe")}
    base, head = (replace(state, version=False, gate=rules) for state in (BASE, HEAD))
    found = facts(make_world(tmp_path, base=base, head=head))
    assert not found.models
    assert not found.faults
    assert (found.gate.outcome, found.gate.champion) == ("pass", "the base")


def test_without_a_pipeline_the_predictions_are_those_beside_the_model(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    for state, branch in ((BASE, "main"), (HEAD, "feature")):
        put(world, state)
        (world.root / "dvc.lock").unlink()
        world.write("dvc.yaml", "metrics:\n- metrics/evaluate.json\n")
        for path, data in ((STABLE, state.weights), ("models/digits/classifier.predictions.csv", state.predictions)):
            out = {"md5": world.store(data), "size": len(data), "hash": "md5", "path": path.rsplit("/", 1)[1]}
            world.write(f"{path}.dvc", yaml.safe_dump({"outs": [out]}))
        world.git("checkout", "--quiet", "-B", branch)
        world.commit(branch)
    found = facts(world)
    rules = {finding.rule: finding for finding in found.gate.findings}
    assert rules["bootstrap.accuracy"].numbers["samples"] == SAMPLES
    assert not found.gate.recorded
    assert found.classes[0].name == "c"
    # what lies there is the champion's where nothing was promoted
    world.git("checkout", "--quiet", "-b", "refused", "main")
    world.write("metrics/evaluate.json", '{"accuracy": 0.5}')
    world.commit("Nothing came of it")
    gate = facts(world).gate
    assert next(f for f in gate.findings if f.rule == "bootstrap.accuracy").reason == "the candidate has no predictions"
