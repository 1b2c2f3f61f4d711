"""The world of the experiment consolidation: 23 runs, sorted as its authors sorted them, and the same by other names.

Where the text that the world follows is ambiguous:

- Its parts are 1 + 1 production, 11 ultra-micro, 3 micro, 3 small baselines, 1 original baseline and 1 mock test: 21.
  The text writes ``safe_test_*`` and ``minimal_test_***`` without a count; one run each makes the 23 that it names.
- ``model_snapshots/`` holds a "single baseline snapshot": here a file beside the run ``baseline_v1``, which is one of
  the 23.
- "Failed/incomplete runs" are removed, but none is named: here one micro run ended in a bus error, which these runs
  were made to find, and the safe test was killed in its first epoch.
- The small baselines have no figures: here they are three seeds of one configuration, below the production candidates.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.output import human_bytes
from holdfast.inventory.run_rules import Rules
from holdfast.inventory.run_scan import scan_runs
from holdfast.inventory.run_verdicts import SortedRun, Sorting, sort_folder, sort_runs
from holdfast.report.consolidation import consolidation_report
from holdfast.runs.checkpoint import import_torch

NOW = datetime(2025, 5, 25, 23, tzinfo=timezone.utc)
VOCABULARY = b"cos\nsystem\n(S'touch unpickled'\ntR."  # would run a command where somebody unpickled it
CLASSES = ("anxiety", "depression", "stress", "normal")


@dataclass
class Words:
    """What the world calls its things."""

    runs: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    experiments: str = "experiments"
    models: str = "models"
    legacy: str = "saved_models"
    snapshots: str = "model_snapshots"

    def run(self, name: str) -> str:
        return self.runs.get(name, name)


@dataclass(frozen=True)
class Kind:
    layers: int
    width: int
    vocab: int
    samples: int | None
    accuracy: float | None
    f1: float | None
    dead: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


SMALL = Kind(3, 256, 10_000, 10_000, 58.2, 53.0)
MEDIUM = Kind(6, 512, 15_000, 10_000, 56.3, 45.3, dead=1)
ORIGINAL = Kind(3, 256, 10_000, None, None, None)
BASELINE = Kind(2, 128, 5000, 5000, 44.0, 38.0)
MICRO = Kind(1, 32, 500, 400, 61.0, 55.0)
ULTRA = Kind(1, 16, 100, 40, 99.5, 99.5)


def write_run(top: Path, words: Words, series: str, stamp: str, kind: Kind, *, seed: int = 1, width: int = 8) -> Path:
    torch = import_torch()
    folder = top / words.experiments / f"{words.run(series)}_{stamp}"
    folder.mkdir(parents=True)
    config = {
        "model": {"num_layers": kind.layers, "hidden_dim": kind.width, "vocab_size": kind.vocab},
        "seed": seed,
        "output_dir": f"experiments/{folder.name}",
        "epochs": 3,
        **kind.more,
    }
    if kind.samples is not None:
        config["train_samples"] = kind.samples
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.pkl").write_bytes(VOCABULARY)
    torch.save(
        {"model_state_dict": {"w": torch.full((kind.layers * width, width), float(seed))}}, folder / "best_model.pt"
    )
    if kind.accuracy is None or kind.f1 is None:
        return folder
    write_metrics(folder, words, kind, shift=0.0 if kind is ULTRA else (seed - 1) * 0.1)
    return folder


def write_metrics(folder: Path, words: Words, kind: Kind, shift: float) -> None:
    assert kind.accuracy is not None
    assert kind.f1 is not None
    report: dict[str, Any] = {
        name: {"precision": 0.6, "recall": 0.55, "f1-score": 0.57, "support": 250 + place}
        for place, name in enumerate(words.classes)
    }
    if kind.dead is not None:
        report[words.classes[kind.dead]] = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 412}
    report["accuracy"] = (kind.accuracy - shift) / 100
    report["macro avg"] = {"precision": 0.5, "recall": 0.5, "f1-score": (kind.f1 - shift) / 100, "support": 1000}
    (folder / "classification_report.json").write_text(json.dumps(report))
    (folder / "results.json").write_text(json.dumps({"status": "completed", "accuracy": kind.accuracy - shift}))
    (folder / "history.csv").write_text(
        "epoch,train_loss,val_loss\n" + "".join(f"{epoch},{2 / epoch},{2.1 / epoch}\n" for epoch in (1, 2, 3))
    )


def build(top: Path, words: Words) -> Path:
    """The whole folder: 23 runs, and models outside of them."""
    torch = import_torch()
    top.mkdir(parents=True, exist_ok=True)
    write_run(top, words, "baseline_v1", "20250525_064536", ORIGINAL, width=16)
    for number in range(11):
        write_run(top, words, "baseline_ultra_micro", f"20250525_07{number:02}00", ULTRA, seed=number + 1, width=2)
    for number in range(3):
        folder = write_run(top, words, "baseline_micro", f"20250525_08{number:02}00", MICRO, seed=number + 1, width=4)
        if number == 2:
            for name in ("results.json", "classification_report.json", "history.csv", "best_model.pt"):
                (folder / name).unlink()
            (folder / "train.log").write_text("epoch 1 starts\nbatch 12\nBus error (core dumped)\n")
    for number in range(3):
        write_run(top, words, "baseline_small", f"20250525_09{number:02}00", BASELINE, seed=number + 1)
    tiny = Kind(1, 16, 50, 16, 25.0, 10.0)
    write_run(top, words, "mock_test", "20250525_112344", Kind(**{**vars(tiny), "more": {"mock_data": True}}), width=2)
    killed = write_run(top, words, "safe_test", "20250525_113000", Kind(1, 16, 50, 16, None, None), width=2)
    (killed / "best_model.pt").unlink()
    write_run(top, words, "minimal_test", "20250525_114500", Kind(**{**vars(tiny), "more": {"max_steps": 5}}), width=2)
    write_run(top, words, "small_data_10k", "20250525_130522", SMALL, width=16)
    write_run(top, words, "medium_model_v2", "20250525_131811", MEDIUM, width=24)

    for folder, names in (
        (words.legacy, ["simple_trained_model.pth", "vocab.pkl"]),
        (words.models, ["best_model.pt", "model_info.json", "vocab.pkl"]),
        (words.snapshots, ["baseline_v1_20250525.pt"]),
    ):
        (top / folder).mkdir()
        for name in names:
            path = top / folder / name
            if name.endswith(".json"):
                path.write_text(json.dumps({"accuracy": 0.582, "vocab_size": 10_000}))
            elif name.endswith(".pkl"):
                path.write_bytes(VOCABULARY)
            else:
                torch.save({"w": torch.zeros(4)}, path)
    (top / "models_registry.json").write_text(json.dumps({"models": {"baseline_v1": {"path": "model_snapshots"}}}))
    return top


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Sorting:
    return sort_folder(build(tmp_path_factory.mktemp("world") / "classifier", Words()), NOW)


def by_series(sorting: Sorting, series: str) -> list[SortedRun]:
    return [item for item in sorting.runs if item.run.series == series]


def one(sorting: Sorting, series: str) -> SortedRun:
    (item,) = by_series(sorting, series)
    return item


def test_the_23_runs_are_sorted_as_their_authors_did(world: Sorting) -> None:
    kinds = {series: [item.kind for item in members] for series, members in world.series.items()}
    assert {series.split("/")[-1]: value for series, value in kinds.items()} == {
        "baseline_micro": ["debug", "debug", "failed"],
        "baseline_small": ["baseline"] * 3,
        "baseline_ultra_micro": ["over-fitted"] * 11,
        "baseline_v1": ["baseline"],
        "medium_model_v2": ["production candidate"],
        "minimal_test": ["test"],
        "mock_test": ["test"],
        "safe_test": ["incomplete"],
        "small_data_10k": ["production candidate"],
    }
    assert len(world.runs) == 23


def test_keep_archive_remove(world: Sorting) -> None:
    assert {item.run.series: item.standard_name for item in world.of("keep")} == {
        "small_data_10k": "production_baseline_v1",
        "medium_model_v2": "production_medium_v1",
        "baseline_v1": None,
    }
    assert Counter(item.run.series for item in world.of("archive")) == {"baseline_small": 1, "baseline_micro": 1}
    assert Counter(item.run.series for item in world.of("remove")) == {
        "baseline_ultra_micro": 11,
        "baseline_micro": 2,
        "baseline_small": 2,
        "mock_test": 1,
        "safe_test": 1,
        "minimal_test": 1,
    }
    assert one(world, "baseline_v1").historical


def test_reasons_say_what_decided(world: Sorting) -> None:
    whys = {item.run.series: item.why for item in world.runs if item.verdict != "remove"}
    assert whys["small_data_10k"] == "production candidate: f1_macro 0.530, the best"
    assert "f1_macro 0.453 is 85% of the best, 0.530" in whys["medium_model_v2"]
    assert "historical baseline, the first of all: has no metrics" in whys["baseline_v1"]
    assert "one of 3 runs of one configuration: a reproducibility series" in whys["baseline_small"]
    ultra = by_series(world, "baseline_ultra_micro")[0]
    assert ultra.why == (
        "over-fitted on a tiny set: accuracy 0.995; 40 training samples, 1 layer, 16 wide, 100 words in the vocabulary"
    )
    failed = next(item for item in world.runs if item.kind == "failed")
    assert failed.why == "failed: train.log: Bus error (core dumped)"


def test_the_dead_class_is_flagged(world: Sorting) -> None:
    medium = one(world, "medium_model_v2")
    assert medium.found.flags == ("class depression of 412 samples has collapsed: precision, recall and f1 are 0",)
    assert [item.run.series for item in world.runs if any(s.collapsed for s in item.run.classes)] == ["medium_model_v2"]


def test_a_series_that_overfits_has_no_representative(world: Sorting) -> None:
    representatives = {item.run.series for item in world.runs if item.representative}
    assert representatives == {"small_data_10k", "medium_model_v2", "baseline_v1", "baseline_small", "baseline_micro"}
    best = next(item for item in by_series(world, "baseline_small") if item.representative)
    assert best.run.name == "baseline_small_20250525_090000"  # the other seeds reach 0.1 less


def test_bytes_are_those_on_disk(world: Sorting) -> None:
    removed = sum(
        path.stat().st_size for item in world.of("remove") for path in item.run.path.rglob("*") if path.is_file()
    )
    weights = sum((item.run.path / "best_model.pt").stat().st_size for item in world.of("archive"))
    assert world.freed == removed + weights
    assert all(
        item.run.bytes == sum(path.stat().st_size for path in item.run.path.rglob("*") if path.is_file())
        for item in world.runs
    )


def test_models_outside_of_runs_are_seen(world: Sorting) -> None:
    assert [file.path for file in world.scan.loose] == [
        "model_snapshots/baseline_v1_20250525.pt",
        "models/best_model.pt",
        "models/model_info.json",
        "models/vocab.pkl",
        "saved_models/simple_trained_model.pth",
        "saved_models/vocab.pkl",
    ]
    assert [(file.path, file.entries) for file in world.scan.registries] == [("models_registry.json", 1)]


OTHER_NAMES = Words(
    runs={
        "small_data_10k": "heron",
        "medium_model_v2": "otter",
        "baseline_v1": "linnet",
        "baseline_ultra_micro": "stoat",
        "baseline_micro": "vole",
        "baseline_small": "wren",
        "mock_test": "adder",
        "safe_test": "newt",
        "minimal_test": "toad",
    },
    classes=("granite", "basalt", "slate", "chalk"),
    experiments="trials",
    models="serving",
    legacy="attic",
    snapshots="photos",
)


def test_other_names_get_the_same_verdicts(world: Sorting, tmp_path: Path) -> None:
    """No class and no verdict of this world hangs on a word: the tests are told by their switches and steps."""
    other = sort_folder(build(tmp_path / "rocks", OTHER_NAMES), NOW)

    def told(sorting: Sorting, words: Words) -> dict[str, tuple[str, str, bool]]:
        back = {words.run(name): name for name in OTHER_NAMES.runs}
        return {
            item.run.path.name.replace(item.run.series, back[item.run.series]): (
                item.kind,
                item.verdict,
                item.representative,
            )
            for item in sorting.runs
        }

    assert told(other, OTHER_NAMES) == told(world, Words())
    assert {item.standard_name for item in other.of("keep")} == {"production_baseline_v1", "production_otter_v1", None}
    assert one(other, "otter").found.flags[0].startswith("class basalt of 412 samples")
    assert other.freed == pytest.approx(world.freed, rel=0.02)  # names are in the files too
    report = consolidation_report(other, day=date(2025, 5, 25), size_text=human_bytes)
    assert "depression" not in report
    assert "baseline_ultra_micro" not in report


def test_names_alone_decide_only_what_facts_leave_open(world: Sorting) -> None:
    rules = Rules(test_names=(), debug_names=(), baseline_names=())
    without = sort_runs(world.scan, rules, NOW)
    assert [item.verdict for item in without.runs] == [item.verdict for item in world.runs]


def test_the_order_on_disk_does_not_matter(world: Sorting) -> None:
    again = sort_runs(scan_runs(world.scan.top), Rules(), NOW)
    assert [(item.run.name, item.verdict) for item in again.runs] == [
        (item.run.name, item.verdict) for item in world.runs
    ]
