"""``holdfast report pr`` as it is called: its options, its exit codes, what it writes."""

import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from holdfast.cli.output import human_bytes
from holdfast.repo.workspace import find_project
from holdfast.report.pull_markdown import render_pull_request
from holdfast.report.pull_opening import open_sides
from holdfast.report.pull_plots import draw_curves, panels_of
from report_world import BASE, GATE, HEAD, State, facts, make_world
from test_report_pr_markdown import hostile_world
from worlds import World, make_home, run

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("pr"))


def schema() -> dict[str, Any]:
    text = (files("holdfast.cli") / "schemas/report-pr.schema.json").read_text()
    found: dict[str, Any] = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def pr(world: World, *arguments: str, code: int = 0) -> str:
    done = world.holdfast("report", "pr", *arguments, code=code)
    if code:
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr
    return done.stdout


def test_it_is_written_and_the_pictures_too(world: World, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    written = ("--base", "main", "--check", "--key", "a/b", "-o", str(tmp_path / "r.md"))
    told = pr(world, *written, "--plots", str(plots), "--plots-url", "https://example.org/7")
    assert told == f"Wrote {tmp_path / 'r.md'}.\n"
    text = (tmp_path / "r.md").read_text()
    assert text.startswith("<!-- holdfast-report: a/b -->\n\n## ✅ Gate: pass")
    assert "![Curves: base grey, head blue](<https://example.org/7/curves.png>)" in text
    assert {path.name: path.read_bytes()[:8] for path in plots.iterdir()} == {"curves.png": PNG, "confusion.png": PNG}
    sides = open_sides(find_project(world.root), world.cache.resolve(), "main", "HEAD")[:2]
    # the same numbers give the same bytes, in any process
    assert (plots / "curves.png").read_bytes() == draw_curves(panels_of(*sides))


def test_the_json_fits_its_schema(world: World, tmp_path: Path) -> None:
    told = json.loads(pr(world, "--base", "main", "--json"))
    jsonschema.validate(told, schema())
    assert told["gate"]["outcome"] == "pass"
    for wrong in ({"gate": {}}, {"metrics": [{}]}, {"surplus": 1}, {"format": "other"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**told, **wrong}, schema())
    hostile = hostile_world(tmp_path)
    pr(hostile, "--base", "main", "--json", "-o", str(tmp_path / "r.json"))
    jsonschema.validate(json.loads((tmp_path / "r.json").read_text()), schema())


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    world = make_world(tmp_path, base=None, head=State(version=False))
    before = world.git("rev-parse", "HEAD")
    world.write("metrics/train.json", '{"val_loss": NaN, "up": Infinity, "down": -Infinity, "odd": "\\ud800"}')
    world.commit("Diverged")
    told = json.loads(pr(world, "--base", before, "--json"))
    jsonschema.validate(told, schema())
    values = {metric["name"]: (metric["head"], metric["difference"]) for metric in told["metrics"]}
    assert values["val_loss"] == ("NaN", None)
    assert (values["up"][0], values["down"][0]) == ("Infinity", "-Infinity")
    assert "| `val_loss` | 0.25 | NaN | changed |" in render_pull_request(facts(world, before), size_text=human_bytes)


def test_check_ends_with_12_and_still_writes(tmp_path: Path) -> None:
    gate = {**GATE, "metrics": {"accuracy": {"direction": "max", "floor": 0.99}}}
    world = make_world(tmp_path, base=replace(BASE, gate=gate), head=replace(HEAD, gate=gate))
    report = tmp_path / "report.md"
    error = pr(world, "--base", "main", "--check", "-o", str(report), code=12)
    assert "the gate says fail: metrics.accuracy.floor: accuracy is 0.9833, below its floor of 0.99." in error
    assert "## ❌ Gate: fail" in report.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--base", "nowhere"), 1, "git knows no commit 'nowhere'"),
        (("--base", "main", "--head", "nowhere"), 1, "git knows no commit 'nowhere'"),
        ((), 2, "--base"),
        (("--base", "main", "--key", "a --> b"), 2, "is no key"),
        (("--base", "main", "--key", "a--b"), 2, "is no key"),
        (("--base", "main", "--plots-url", "x"), 2, "Add --plots DIR"),
        (("--base", "main", "--plots", "x", "--plots-url", "a> <b"), 2, "white space or brackets"),
    ],
)
def test_what_cannot_be_done_is_one_line(world: World, arguments: tuple[str, ...], code: int, told: str) -> None:
    assert told in pr(world, *arguments, code=code)


def test_a_shallow_clone_says_what_to_fetch(world: World, tmp_path: Path) -> None:
    clone = World(tmp_path / "clone", make_home(tmp_path))
    source = f"file://{world.root}"
    run(
        ["git", "clone", "--quiet", "--depth", "1", "--branch", "feature", source, str(clone.root)],
        tmp_path,
        clone.home,
    )
    error = pr(clone, "--base", "main", code=1)
    assert "git fetch --unshallow" in error
    assert "fetch-depth: 0" in error
    clone.git("remote", "set-branches", "origin", "*")
    clone.git("fetch", "--quiet", "--unshallow", "origin")
    text = pr(clone, "--base", "main")
    # main is here as origin/main alone, and nothing is in this clone's cache
    assert "not in the cache here" in text
    assert "It is not in DVC" not in text


def test_without_dvc_it_says_how_to_begin(tmp_path: Path) -> None:
    plain = World(tmp_path / "plain", make_home(tmp_path))
    plain.root.mkdir()
    plain.git("init", "--quiet")
    assert "holdfast init" in pr(plain, "--base", "main", code=10)


def test_help_says_it_in_a_sentence_with_an_example(world: World) -> None:
    text = world.holdfast("report", "pr", "--help").stdout
    assert "Write what a pull request changes, as Markdown" in text
    for example in re.findall(r"^ +holdfast (report pr .*)$", text, re.MULTILINE):
        assert "--base" in example
