"""``holdfast runs classify`` and ``holdfast report consolidation`` on the world of 23 runs, and on smaller ones."""

import json
import os
import re
import subprocess
import sys
from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from holdfast.cli.output import human_bytes
from holdfast.inventory.run_verdicts import Sorting, sort_folder
from holdfast.report.consolidation import consolidation_report
from test_inventory_runs_world import NOW, OTHER_NAMES, Words, build

HOLDFAST = Path(sys.executable).parent / "holdfast"
DAY = date(2025, 5, 25)


def holdfast(*arguments: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [str(HOLDFAST), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "80"},
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("report") / "classifier", Words())


@pytest.fixture(scope="module")
def world(top: Path) -> Sorting:
    return sort_folder(top, NOW)


@pytest.fixture(scope="module")
def report(world: Sorting) -> str:
    return consolidation_report(world, day=DAY, size_text=human_bytes)


def section(report: str, title: str) -> str:
    return re.split(r"^## ", report.split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def test_the_current_state(report: str, world: Sorting) -> None:
    state = section(report, "Current state")
    total = human_bytes(sum(item.run.bytes for item in world.runs))
    assert f"- **experiments/**: 23 runs, {total}" in state
    assert "- **models/**: model files outside of any run: best_model.pt, model_info.json, vocab.pkl;" in state
    assert "- **saved_models/**: model files outside of any run: simple_trained_model.pth, vocab.pkl;" in state
    assert "- **model_snapshots/**: model files outside of any run: baseline_v1_20250525.pt;" in state
    assert "- **models_registry.json**: a registry with 1 entry" in state


def test_the_categories_add_up(report: str) -> None:
    counts = re.findall(r"^### .*\((\d+)\)$", section(report, "Categories"), re.MULTILINE)
    assert sum(map(int, counts)) == 23
    verdicts = re.findall(r"^### .*\((\d+)\)$", section(report, "Recommendations"), re.MULTILINE)
    assert verdicts == ["3", "2", "18"]


def test_the_performance_table(report: str) -> None:
    assert section(report, "Performance").strip().splitlines() == [
        "| Model | Architecture | Accuracy | F1-macro | Best for |",
        "| --- | --- | --: | --: | --- |",
        "| small_data_10k | 3L-256D-10K | 58.2% | 53.0% | Best f1_macro |",
        "| medium_model_v2 | 6L-512D-15K | 56.3% | 45.3% | Highest capacity, needs tuning: a class has collapsed |",
        "| baseline_v1 | 3L-256D-10K | – | – | Historical reference |",
    ]


def test_flags_phases_and_next_steps(report: str) -> None:
    flag = "class depression of 412 samples has collapsed: precision, recall and f1 are 0"
    assert f"- **medium_model_v2_20250525_131811**: {flag}" in section(report, "Flags")
    phases = section(report, "Phases")
    small, medium = "small_data_10k_20250525_130522", "medium_model_v2_20250525_131811"
    assert f"1. Copy `experiments/{small}` to `models/production/production_baseline_v1`" in phases
    assert f"2. Copy `experiments/{medium}` to `models/production/production_medium_v1`" in phases
    assert "3. Leave baseline_v1_20250525_064536 where it is" in phases
    assert "to `experiments/archived/baseline_small_20250525_090000`, without its weights" in phases
    assert "Remove 11 over-fitted runs" in phases
    assert "Bring `models_registry.json` up to date" in phases
    steps = section(report, "Next steps")
    assert "Retrain medium_model_v2: nothing right is said of depression" in steps
    assert "the models in model_snapshots/, models/, saved_models/" in steps


def test_the_storage_saved_is_the_sum_of_its_parts(report: str, world: Sorting) -> None:
    storage = section(report, "Storage")
    assert f"Saved: {human_bytes(world.freed)} ({world.freed:,} bytes)." in storage
    removed = sum(item.run.bytes for item in world.of("remove"))
    assert f"| Remove | 18 | {human_bytes(removed)} | {human_bytes(removed)} |" in storage
    assert "| Total | 23 |" in storage


def test_the_same_folder_gives_the_same_bytes(top: Path, report: str) -> None:
    again = consolidation_report(sort_folder(top, datetime.now(timezone.utc)), day=DAY, size_text=human_bytes)
    assert again == report
    assert str(top) not in report
    assert holdfast("report", "consolidation", "--date", "2025-05-25", cwd=top) == report
    assert holdfast("report", "consolidation", str(top), "--date", "2025-05-25", cwd=top.parent) == report
    message = holdfast("report", "consolidation", "-o", "../out.md", "--date", "2025-05-25", cwd=top)
    assert message == "Wrote ../out.md.\n"
    assert (top.parent / "out.md").read_text() == report


def test_other_names_give_the_same_report(report: str, tmp_path: Path) -> None:
    other = consolidation_report(
        sort_folder(build(tmp_path / "rocks", OTHER_NAMES), NOW), day=DAY, size_text=human_bytes
    )
    titles = re.findall(r"^#+ .*$", report, re.MULTILINE)[1:]
    assert re.findall(r"^#+ .*$", other, re.MULTILINE)[1:] == titles
    assert "| heron | 3L-256D-10K | 58.2% | 53.0% | Best f1_macro |" in other
    assert "- **trials/**: 23 runs" in other


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    text = holdfast("report", "consolidation", "--date", "2025-05-25", cwd=tmp_path)
    assert "There are no runs and no models here." in text
    assert holdfast("runs", "classify", cwd=tmp_path) == "There are no runs here or below.\n"


def test_classify_as_text(top: Path, world: Sorting) -> None:
    text = holdfast("runs", "classify", cwd=top)
    first = f"23 runs in 9 series: keep 3, archive 2, remove 18; {human_bytes(world.freed)} would be freed.\n"
    assert text.startswith(first)
    assert re.search(r"over-fitted +11 +0 +0 +11 ", text)
    assert re.search(r"small_data_10k_20250525_130522 +production +keep +0\.530 ", text)
    assert re.search(r"small_data_10k_20250525_130522 +production candidate: f1_macro 0\.530, the best\n", text)
    assert "Look at medium_model_v2_20250525_131811: class depression of 412 samples has collapsed" in text
    assert "Call small_data_10k_20250525_130522 production_baseline_v1." in text


def test_classify_as_markdown_and_json(top: Path, world: Sorting) -> None:
    kept = holdfast("runs", "classify", "--only", "keep", "--md", cwd=top)
    rows = [line for line in kept.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| baseline_v1_20250525_064536",
        "| medium_model_v2_20250525_131811",
        "| small_data_10k_20250525_130522",
    ]
    payload = json.loads(holdfast("runs", "classify", "--only", "archive", "--json", cwd=top))
    assert payload["format"] == "holdfast runs classify 1"
    assert payload["totals"]["verdicts"] == {"keep": 3, "archive": 2, "remove": 18}
    assert payload["totals"]["freed"] == world.freed
    assert [run["verdict"] for run in payload["runs"]] == ["archive"] * 2
    assert payload["runs"][1]["path"] == "experiments/baseline_small_20250525_090000"


def test_list_knows_all_forms(top: Path) -> None:
    payload = json.loads(holdfast("runs", "list", "--json", cwd=top))
    found = {Path(run["path"]).name: run for run in payload["runs"]}
    assert len(found) == 23
    run = found["small_data_10k_20250525_130522"]
    assert (run["status"], run["epochs"], run["metric"], run["best_value"]) == ("finished", 3, "f1_macro", 0.53)
    assert run["started"] == "2025-05-25T13:05:22+00:00"
    assert holdfast("runs", "list", cwd=top).startswith("23 runs here or below, ")


def test_rules_of_the_repository_count(tmp_path: Path) -> None:
    top = build(tmp_path / "repository" / "work", Words()).parent
    (top / ".git").mkdir()
    (top / "holdfast.yaml").write_text(
        "runs:\n  production: {share_of_best: 0.9}\n  standard_names: {names: {small_data_10k: triage_v1}}\n"
    )
    payload = json.loads(holdfast("runs", "classify", "work", "--json", cwd=top))
    kept = {run["series"]: run["standard_name"] for run in payload["runs"] if run["verdict"] == "keep"}
    assert kept == {"small_data_10k": "triage_v1", "baseline_v1": None}

    (top / "holdfast.yaml").write_text("runs:\n  debug: {layers: many}\n")
    line = holdfast("runs", "classify", "work", cwd=top, code=1)
    assert line == (
        f"holdfast: {top.resolve()}/holdfast.yaml:2: runs.debug.layers is 'many', and must be a whole number\n"
    )
