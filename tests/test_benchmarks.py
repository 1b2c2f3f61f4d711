"""The benchmarks: their page is what they measured, every goal has a script, the runner goes on where it stopped."""

import argparse
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
BENCHMARKS = PROJECT / "benchmarks"
sys.path.append(str(BENCHMARKS))

import report  # noqa: E402 - found through the path above
from harness import RESULTS, judge, quantity, read_results, reducible, write_results  # noqa: E402
from report_goals import GOALS, goals_section, scale_text  # noqa: E402
from run import FULL_ONLY, ORDER  # noqa: E402

COMMITTED = report.read_all(RESULTS)
# those that measure: the others are imported by them, or make the page
WRITES = re.compile(r"write_results\(\s*(NAME|\"\w+\")")


def scripts() -> list[Path]:
    shared = ("harness", "run")
    return [
        path for path in sorted(BENCHMARKS.glob("*.py")) if WRITES.search(path.read_text()) and path.stem not in shared
    ]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_what_the_results_give() -> None:
    assert (PROJECT / "docs" / "performance.md").read_text() == report.page(COMMITTED), "run benchmarks/report.py"


def test_every_picture_of_the_page_is_there() -> None:
    named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", report.page(COMMITTED))
    assert named
    assert [name for name in named if not (PROJECT / "docs" / name).is_file()] == []


def test_every_result_has_a_place_on_the_page() -> None:
    assert set(COMMITTED) - set(report.SECTIONS) <= {"make bench", "make bench-full", "growth"}


def test_results_say_what_they_are() -> None:
    for name, result in COMMITTED.items():
        assert {"machine", "versions", "goals"} <= set(result), name
        for what, goal in result["goals"].items():
            assert re.fullmatch(r"[≥≤] -?[\d.e+-]+", goal["goal"]), (name, what)
            relation, bound = goal["goal"].split()
            assert goal == judge(goal["measured"], relation, float(bound)), (name, what)


def test_no_result_names_a_folder_of_the_machine() -> None:
    for path in RESULTS.rglob("*.json"):
        assert not re.search(r'"/|/(tmp|home|root|work)/', path.read_text()), path.name


# --- the goals --------------------------------------------------------------------------------------------------------


def test_every_goal_has_a_script_that_is_run() -> None:
    assert {goal.script for goal in GOALS} <= set(ORDER)
    assert not {goal.script for goal in GOALS} & FULL_ONLY, "make bench measures every goal"


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.script}: {goal.key}")
def test_a_goal_is_among_those_of_its_results(goal: object) -> None:
    result = COMMITTED.get(goal.script)  # type: ignore[attr-defined]
    if result is None:
        assert f"`{goal.script}.py` | – | **not measured**" in report.page(COMMITTED)  # type: ignore[attr-defined]
        return
    assert result["goals"][goal.key]["goal"] == goal.goal  # type: ignore[attr-defined]


def test_the_table_says_of_each_goal_how_it_came_out() -> None:
    found = {
        "startup": {"goals": {"holdfast --help ÷ dvc --help": judge(0.7, "≤", 0.6)}, "scale": {"rounds": 15}},
        "scan_speed": {
            "goals": {"scan, warm, seconds": judge(0.2, "≤", 0.8), "dvc status ÷ scan, warm": judge(None, "≥", 4)},
            "scale": {"reduced": True, "files": 20000, "rounds": 3},
        },
    }
    rows = [line for line in goals_section(found) if line.startswith("| ")][2:]
    assert len(rows) == len(GOALS)
    (help_row,) = (row for row in rows if "`startup.py`" in row)
    assert help_row.endswith("| 0.7 | `dvc --help` | `startup.py` | full | **not met** |")
    scan, ratio = (row for row in rows if "`scan_speed.py`" in row)
    assert scan.endswith("| 0.2 | – | `scan_speed.py` | reduced: files 20,000 | met |")
    assert ratio.endswith("| – | `dvc status` | `scan_speed.py` | reduced: files 20,000 | **not measured** |")


def test_less_than_the_goals_own_size_is_not_called_full() -> None:
    assert scale_text({"scale": {"gigabytes": 2.0, "changed": ["gigabytes"]}}) == "full, but for gigabytes 2.0"


# --- the scripts ------------------------------------------------------------------------------------------------------


def test_every_script_is_run() -> None:
    assert {path.stem for path in scripts()} == set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.stem)
def test_a_script_says_what_it_measures_and_takes_sizes(path: Path) -> None:
    module = ast.parse(path.read_text())
    said = ast.get_docstring(module) or ""
    assert f"python benchmarks/{path.name}" in said
    assert f"benchmarks/results/{path.stem}.json" in said.replace("\n", " ") or f"{path.stem}.json" in said
    called = {
        node.func.id for node in ast.walk(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert {"reducible", "write_results", "machine", "versions"} <= called


@pytest.mark.soak
@pytest.mark.parametrize("name", [*ORDER, "run", "report", "gpt_history"])
def test_help(name: str) -> None:
    """That every script starts, with its imports; half a second each."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--results" in done.stdout or name == "gpt_history"


@pytest.mark.soak
def test_the_pictures_are_what_the_results_give(tmp_path: Path) -> None:
    """With the versions of constraints.txt: another matplotlib draws other bytes."""
    import matplotlib as mpl

    from report_pictures import draw_all

    with mpl.rc_context():
        draw_all(COMMITTED, tmp_path, None)
    for path in tmp_path.glob("*.svg"):
        assert path.read_bytes() == (PROJECT / "docs" / "images" / path.name).read_bytes(), path.name


# --- what they share --------------------------------------------------------------------------------------------------


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    return reducible(parser, words, rows=10, rounds=2)


def test_reduced_sizes_are_those_of_the_script_unless_told() -> None:
    assert (options().rows, options().rounds) == (1000, 5)
    assert (options("--reduced").rows, options("--reduced").rounds) == (10, 2)
    assert options("--reduced", "--rows", "1000").rows == 1000
    assert options().changed == []
    assert options("--rows", "500", "--rounds", "1", "--folder", "x").changed == ["rows"]


def test_a_reduced_size_of_no_option_is_refused() -> None:
    with pytest.raises(ValueError, match="rowz"):
        reducible(argparse.ArgumentParser(), [], rowz=1)


def test_reduced_results_lie_apart_and_tell_their_scale(tmp_path: Path) -> None:
    place = ("--results", str(tmp_path), "--folder", str(tmp_path))
    full, reduced = options(*place), options("--reduced", *place)
    write_results("x", {"goals": {}}, full)
    write_results("x", {"goals": {}}, reduced)
    assert read_results("x", full)["scale"] == {"rows": 1000, "rounds": 5}
    assert read_results("x", reduced)["scale"] == {"rows": 10, "rounds": 2, "reduced": True}
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")) == [
        "reduced/x.json",
        "x.json",
    ]
    assert report.read_all(tmp_path)["x"]["scale"]["rows"] == 1000
    (tmp_path / "reduced" / "run.json").write_text('{"minutes": 16.2}')
    assert "`make bench` took 16.2 minutes." in report.page(report.read_all(tmp_path))
    (tmp_path / "x.json").unlink()
    assert report.read_all(tmp_path)["x"]["scale"]["rows"] == 10


def test_a_quantity_compares_rounds_and_not_medians() -> None:
    found = quantity([1.0, 4.0, 2.0], "s", {"peer": [2.0, 2.0, 8.0]})
    assert {key: found[key] for key in ("unit", "median", "min", "max", "rounds")} == {
        "unit": "s",
        "median": 2.0,
        "min": 1.0,
        "max": 4.0,
        "rounds": 3,
    }
    assert found["peers"]["peer"]["median"] == 2.0
    assert found["peers"]["peer"]["ratio"] == {"median": 0.5, "min": 0.25, "max": 2.0, "rounds": 3}


def test_a_goal_that_is_just_reached_is_met() -> None:
    assert [judge(1, "≥", 1)["met"], judge(1, "≤", 1)["met"], judge(None, "≤", 1)["met"]] == [True, True, None]
    assert [judge(0.9, "≥", 1)["met"], judge(1.1, "≤", 1)["met"]] == [False, False]


def test_a_peer_that_takes_long_may_have_fewer_rounds() -> None:
    found = quantity([1.0, 2.0], "s", {"peer": [4.0]})
    assert found["peers"]["peer"]["ratio"]["rounds"] == 1


# --- the runner -------------------------------------------------------------------------------------------------------

GOOD = """
import json, pathlib, sys
place = pathlib.Path(sys.argv[sys.argv.index("--results") + 1]) / "reduced"
place.mkdir(parents=True, exist_ok=True)
goals = {"a goal": {"goal": "≤ 1", "measured": 2, "met": False}, "another": {"goal": "≤ 1", "measured": 1, "met": True}}
(place / "NAME.json").write_text(json.dumps({"goals": goals}))
with open(pathlib.Path(__file__).parent / "ran", "a") as stream:
    print("NAME", file=stream)
"""
BAD = "raise SystemExit('the disk is on fire')\n"


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """The runner and what it shares with the benchmarks, beside benchmarks that take no time."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("run.py", "harness.py"):
        (folder / name).write_bytes((BENCHMARKS / name).read_bytes())
    for name in ORDER:
        (folder / f"{name}.py").write_text(GOOD.replace("NAME", name))
    with open(folder / "gc_speed.py", "a") as stream:
        stream.write("assert '--again' in sys.argv, 'the peer is to be timed in the same run'\n")
    return folder


def run(folder: Path, *words: str, code: int) -> str:
    command = [sys.executable, str(folder / "run.py"), "--reduced", "--results", str(folder / "out"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def ran(folder: Path) -> list[str]:
    names = (folder / "ran").read_text().split()
    (folder / "ran").unlink()
    return names


def test_the_runner_goes_on_after_a_failure_and_then_with_what_is_left(bench: Path) -> None:
    (bench / "diff_speed.py").write_text(BAD)
    said = run(bench, code=1)
    expected = [name for name in ORDER if name not in FULL_ONLY]
    assert ran(bench) == [name for name in expected if name != "diff_speed"]
    assert "the disk is on fire" in said
    assert "Failed: diff_speed" in said
    assert "1 of 2 goals met" in said
    assert "not met: a goal 2 of ≤ 1" in said

    run(bench, "--only", "startup", code=0)
    assert ran(bench) == ["startup"], "one that is named is run, done before or not"

    (bench / "diff_speed.py").write_text(GOOD.replace("NAME", "diff_speed"))
    (bench / "growth.py").write_text(GOOD.replace("NAME", "growth") + "\n# measures something else now\n")
    run(bench, code=0)
    assert ran(bench) == ["diff_speed", "growth"], "the rest was run with the same code"
    taken = json.loads((bench / "out" / "reduced" / "run.json").read_text())
    assert list(taken["seconds"]) == expected
    assert taken["scale"] == {"reduced": True}
    assert not (bench / ".cache" / "run-reduced.json").exists(), "all have succeeded: the next run is of all"

    run(bench, "--only", "startup", code=0)
    assert ran(bench) == ["startup"]
    assert list(json.loads((bench / "out" / "reduced" / "run.json").read_text())["seconds"]) == expected
