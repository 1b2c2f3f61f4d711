"""The rules one by one, ``holdfast.yaml``, and what holds for every set of runs."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.inventory.config import ConfigError, read_config
from holdfast.inventory.run_record import ClassScore, Run, RunFile, Size
from holdfast.inventory.run_rules import Limits, Rules, find_rules
from holdfast.inventory.run_scan import Scan
from holdfast.inventory.run_verdicts import VERDICTS, SortedRun, Sorting, sort_runs
from holdfast.repo.workspace import find_config

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)
WEIGHTS = (RunFile("config.json", "config", 10), RunFile("model.pt", "model", 100))


def make(name: str, f1: float | None = None, **changes: Any) -> Run:
    day = changes.pop("day", None)
    values: dict[str, Any] = {
        "path": Path("top") / name,
        "name": name,
        "series": name.rstrip("0123456789"),
        "form": "files",
        "started": None if day is None else NOW - timedelta(days=30 - day),
        "started_from": "" if day is None else "metadata",
        "status": "unknown",
        "status_reason": "",
        "epochs": 0,
        "final": {} if f1 is None else {"f1_macro": f1},
        "best": {},
        "best_epochs": {},
        "monitor": None,
        "classes": (),
        "size": Size(layers=4, width=256),
        "config": {},
        "switches": frozenset(),
        "files": WEIGHTS,
        **changes,
    }
    return Run(group=f"top/{values['series']}", **values)


def sort(*runs: Run, rules: Rules | None = None) -> dict[str, SortedRun]:
    return {item.run.name: item for item in whole(*runs, rules=rules).runs}


def whole(*runs: Run, rules: Rules | None = None) -> Sorting:
    return sort_runs(Scan(Path("top"), runs, (), (), ()), rules or Rules(), NOW)


def test_within_a_share_of_the_best_is_a_candidate() -> None:
    found = sort(make("a", 0.5), make("b", 0.4), make("c", 0.39))
    assert [found[name].kind for name in "abc"] == ["production candidate", "production candidate", "baseline"]
    assert found["c"].found.reasons == ("f1_macro 0.390 is 78% of the best, 0.500, below 80%",)


def test_of_losses_the_least_is_best() -> None:
    found = sort(*(make(name, final={"val_loss": value}) for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.7))))
    assert [found[name].kind for name in "abc"] == ["production candidate", "production candidate", "baseline"]
    assert found["a"].standard_name == "production_baseline_v1"


def test_runs_are_compared_by_the_metric_that_they_have() -> None:
    found = sort(make("a", 0.5), make("b", final={"accuracy": 0.9}), make("c", final={"accuracy": 0.3}))
    assert [found[name].kind for name in "abc"] == ["production candidate", "production candidate", "baseline"]


@pytest.mark.parametrize(
    ("size", "score", "kind"),
    [
        (Size(train_samples=100, layers=6, width=512), 0.995, "over-fitted"),
        (Size(vocab_size=100, layers=1), 0.995, "over-fitted"),
        (Size(layers=1, width=16), 0.995, "over-fitted"),
        (Size(train_samples=60_000, vocab_size=100, layers=1, width=16), 0.995, "production candidate"),
        (Size(train_samples=100, layers=6, width=512), 0.6, "production candidate"),
        (Size(layers=1), 0.995, "production candidate"),
        (Size(), 0.995, "production candidate"),
    ],
)
def test_too_good_for_a_tiny_set(size: Size, score: float, kind: str) -> None:
    found = sort(make("a", final={"accuracy": score}, size=size))
    assert found["a"].kind == kind


def test_what_was_trained_on_counts_too() -> None:
    run = make("a", final={"val_accuracy": 0.4, "train_accuracy": 1.0}, size=Size(train_samples=50))
    assert sort(run)["a"].found.reasons == ("train_accuracy 1.000", "50 training samples")


def test_minimal_is_debug_unless_all_are() -> None:
    tiny = Size(layers=1, width=16)
    assert sort(make("a", 0.5, size=tiny), make("b", 0.5))["a"].kind == "debug"
    assert sort(make("a", 0.5, size=tiny), make("b", 0.5, size=tiny))["a"].kind == "production candidate"
    assert sort(make("a_debug", 0.5, size=Size(layers=1, width=512)), make("b", 0.5))["a_debug"].kind == "debug"
    assert sort(make("a_debug", 0.5), make("b", 0.5))["a_debug"].kind == "production candidate"


def test_a_name_does_not_outweigh_a_result() -> None:
    found = sort(make("ab_test_winner", 0.6), make("b", 0.5), make("mock_test", 0.1))
    assert found["ab_test_winner"].verdict == "keep"
    assert found["ab_test_winner"].found.flags == ("named test, yet as good as a production candidate",)
    assert (found["mock_test"].kind, found["mock_test"].verdict) == ("test", "remove")
    # without any fact on its size the name is all there is
    assert sort(make("mock", 0.6, size=Size()), make("b", 0.5))["mock"].kind == "test"


CONFIG = {"model.layers": "4"}


def test_repeats_of_one_configuration() -> None:
    """A reproducibility series is a baseline, unless it holds the best run: then that one is the candidate."""
    repeats = [make(f"r{n}", f1, config=CONFIG) for n, f1 in ((1, 0.48), (2, 0.50), (3, 0.49))]
    below = sort(*repeats, make("top", 0.52))
    assert {below[f"r{n}"].kind for n in (1, 2, 3)} == {"baseline"}
    assert [below[f"r{n}"].verdict for n in (1, 2, 3)] == ["remove", "archive", "remove"]
    best = sort(*repeats, make("top", 0.42))
    assert [best[f"r{n}"].kind for n in (1, 2, 3)] == ["baseline", "production candidate", "baseline"]
    assert [best[f"r{n}"].verdict for n in (1, 2, 3)] == ["remove", "keep", "remove"]
    # no configuration is not the same configuration
    unknown = sort(*(make(f"r{n}", 0.5) for n in (1, 2)))
    assert {item.verdict for item in unknown.values()} == {"keep"}


def test_the_historical_baseline_came_before_every_candidate() -> None:
    assert sort(make("old", 0.1, day=1), make("new", 0.5, day=2))["old"].historical
    assert sort(make("old", 0.1, day=1), make("new", 0.5, day=2))["old"].verdict == "keep"
    assert not sort(make("late", 0.1, day=3), make("new", 0.5, day=2))["late"].historical
    assert not sort(make("undated", 0.1), make("new", 0.5, day=2))["undated"].historical
    no = Rules(historical_baseline=False)
    assert sort(make("old", 0.1, day=1), make("new", 0.5, day=2), rules=no)["old"].verdict == "archive"


def test_weights_without_metrics() -> None:
    found = sort(
        make("old", day=1), make("new", 0.5, day=2), make("stray", day=3), make("tiny", size=Size(layers=1, width=8))
    )
    assert (found["old"].kind, found["old"].verdict, found["old"].historical) == ("baseline", "keep", True)
    assert (found["stray"].kind, found["stray"].verdict) == ("incomplete", "keep")  # in doubt
    assert (found["tiny"].kind, found["tiny"].verdict) == ("incomplete", "remove")
    # where all are that small, it is no sign
    small = sort(
        make("tiny", day=3, size=Size(layers=1, width=8)), make("new", 0.5, day=2, size=Size(layers=1, width=8))
    )
    assert small["tiny"].verdict == "keep"
    empty = sort(make("empty", files=()), make("new", 0.5))
    assert (empty["empty"].kind, empty["empty"].verdict) == ("incomplete", "remove")


def test_a_series_that_keeps_its_first_run_archives_none() -> None:
    found = sort(make("s1", 0.1, day=1), make("s2", 0.2, day=3), make("top", 0.9, day=2))
    assert [found[name].verdict for name in ("s1", "s2", "top")] == ["keep", "remove", "keep"]
    assert found["s2"].representative


def test_of_baselines_without_metrics_the_earliest_represents_the_series() -> None:
    names = {"baseline_1": 9, "baseline_2": 8, "baseline_3": 10}
    found = sort(*(make(name, day=day) for name, day in names.items()), make("top", 0.9, day=1))
    assert [found[name].verdict for name in names] == ["remove", "archive", "remove"]


def test_what_may_still_run_is_not_touched() -> None:
    fresh, stale = make("fresh", 0.1, status="running", day=29), make("stale", 0.1, status="running", day=1)
    undated = make("undated", 0.1, status="running")
    found = sort(fresh, stale, undated, make("new", 0.5))
    assert {name: found[name].verdict for name in ("fresh", "stale", "undated")} == {
        "fresh": "keep",
        "stale": "remove",
        "undated": "keep",
    }


def test_representative_ties_go_to_the_earliest_then_the_first_name() -> None:
    small = {"size": Size(layers=1, width=8)}
    found = sort(
        make("s1", 0.3, day=9, **small),
        make("s2", 0.3, day=8, **small),
        make("s3", 0.3, day=8, **small),
        make("x", 0.9),
    )
    assert [name for name, item in found.items() if item.representative] == ["s2", "x"]
    assert {name: found[name].verdict for name in ("s1", "s2", "s3")} == {
        "s1": "remove",
        "s2": "archive",
        "s3": "remove",
    }


def test_a_series_is_compared_by_a_metric_that_all_have() -> None:
    both = make("s1", final={"f1_macro": 0.2, "accuracy": 0.5})
    found = sort(both, make("s2", final={"accuracy": 0.6}), rules=Rules(share_of_best=1.0, historical_baseline=False))
    assert found["s2"].representative


def test_a_class_without_support_has_not_collapsed() -> None:
    assert ClassScore("a", 0.0, 0.5, 0.0, 10).collapsed
    assert ClassScore("a", 0.5, 0.0, 0.0, None).collapsed
    assert not ClassScore("a", 0.0, 0.0, 0.0, 0).collapsed
    assert not ClassScore("a", support=10).collapsed


def test_standard_names() -> None:
    runs = [make("medium_model_v2", 0.5), make("medium_wide", 0.55), make("best", 0.6), make("model_", 0.52)]
    assert {name: item.standard_name for name, item in sort(*runs).items()} == {
        "best": "production_baseline_v1",
        "medium_wide": "production_medium_v1",
        "model_": "production_candidate_v1",
        "medium_model_v2": "production_medium_v2",
    }
    rules = Rules(prefix="prod", best_role="main", names={"medium_wide": "big_v7"})
    assert {name: item.standard_name for name, item in sort(*runs, rules=rules).items()} == {
        "best": "prod_main_v1",
        "medium_wide": "big_v7",
        "model_": "prod_candidate_v1",
        "medium_model_v2": "prod_medium_v1",
    }


MAYBE = st.none() | st.integers(1, 4)
RUNS = st.builds(
    make,
    st.sampled_from(["heron", "otter_debug", "mock_test", "baseline"]),
    st.none() | st.floats(0, 1),
    day=st.none() | st.integers(1, 30),
    status=st.sampled_from(["finished", "failed", "incomplete", "running", "unknown"]),
    size=st.builds(Size, layers=MAYBE, width=st.none() | st.integers(8, 128), train_samples=st.none() | st.just(500)),
    config=st.sampled_from([{}, CONFIG]),
    files=st.sampled_from([(), WEIGHTS]),
)  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(RUNS, max_size=12))
def test_every_run_has_one_verdict(runs: list[Run]) -> None:
    numbered = [
        make(
            f"{run.name}{n}",
            **{k: v for k, v in vars(run).items() if k not in ("path", "name", "group", "series", "notes")},
        )
        for n, run in enumerate(runs)
    ]
    sorting = whole(*numbered)

    parts = [{item.run.name for item in sorting.of(verdict)} for verdict in VERDICTS]
    assert set().union(*parts) == {run.name for run in numbered}
    assert sum(map(len, parts)) == len(numbered)
    assert sorting.freed == sum(item.run.bytes for item in sorting.of("remove")) + sum(
        item.run.weight_bytes for item in sorting.of("archive")
    )
    named = [item.standard_name for item in sorting.runs if item.standard_name]
    assert len(set(named)) == len(named)
    for members in sorting.series.values():
        assert sum(item.representative for item in members) <= 1
        assert sum(item.verdict == "archive" for item in members) <= 1
        if all(item.kind in ("over-fitted", "test", "failed", "incomplete") for item in members):
            assert not any(item.representative for item in members)
    for item in sorting.runs:
        assert item.why
        assert (item.kind != "production candidate") or item.verdict == "keep"
        assert item.kind not in ("failed", "over-fitted", "test") or item.verdict == "remove"
    again = whole(*reversed(numbered))
    assert {i.run.name: (i.kind, i.verdict) for i in again.runs} == {
        i.run.name: (i.kind, i.verdict) for i in sorting.runs
    }


EXAMPLE = """\
runs:
  metrics: [accuracy, val_loss]
  percent: [accuracy]
  overfitted: {score: 0.99, train_samples: 200}
  debug: {evidence: 3, names: [play]}
  test: {names: [try], switches: [rehearsal], steps: 0}
  baseline: {repeats: 3, historical: false, names: []}
  production: {share_of_best: 0.9}
  incomplete: {require_metrics: false, require_checkpoint: true, stale_days: 1}
  archive: [baseline, test]
  standard_names:
    prefix: prod
    best: main
    names: {heron: bird_v1}
"""


def test_every_setting_is_read(tmp_path: Path) -> None:
    (tmp_path / "holdfast.yaml").write_text(EXAMPLE)
    base = Rules()
    assert find_rules(tmp_path) == Rules(
        metrics=("accuracy", "val_loss"),
        percent=("accuracy",),
        overfitted_score=0.99,
        overfitted=Limits(1, 64, 500, 200, 0),
        debug_evidence=3,
        debug=base.debug,
        debug_names=("play",),
        test_names=("try",),
        test_switches=("rehearsal",),
        test_steps=0,
        repeats=3,
        baseline_names=(),
        historical_baseline=False,
        share_of_best=0.9,
        require_metrics=False,
        require_checkpoint=True,
        stale_days=1,
        archive=("baseline", "test"),
        prefix="prod",
        best_role="main",
        names={"heron": "bird_v1"},
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runs:\n  debgu: {}\n", ":2: runs.debgu is no setting of Holdfast. Did you mean debug?"),
        ("runs:\n  debug:\n    layers: two\n", ":3: runs.debug.layers is 'two', and must be a whole number"),
        ("runs:\n  debug:\n    layers: -1\n", ":3: runs.debug.layers is -1, and must be at least 0"),
        ("runs:\n  debug: [1]\n", ":2: runs.debug is a list, and must be a mapping"),
        ("runs:\n  metrics: accuracy\n", ":2: runs.metrics is 'accuracy', and must be a list of texts"),
        ("runs:\n  metrics:\n  - accuracy\n  - 3\n", ":4: runs.metrics holds '3', and must be a list of texts"),
        ("runs:\n  archive: [debug, failed]\n", ":2: runs.archive holds 'failed', and may hold baseline, debug, test"),
        (
            "runs:\n  production:\n    share_of_best: 80\n",
            ":3: runs.production.share_of_best is 80, and must be a number from 0 to 1",
        ),
        (
            "runs:\n  baseline: {historical: maybe}\n",
            ":2: runs.baseline.historical is 'maybe', and must be true or false",
        ),
        ("runs:\n  debug: {}\n  debug: {}\n", ":3: runs.debug is there twice, first in line 2"),
        ("runs:\n  standard_names:\n    names: {a: B!}\n", ":3: runs.standard_names.names calls a 'B!'"),
        ("runs:\n  standard_names:\n    names: {a: x, b: x}\n", ":3: runs.standard_names.names gives one name twice"),
        ("rums: {}\n", ":1: rums is no setting of Holdfast. Did you mean runs?"),
        ("runs: [\n", ":2: is no YAML"),
        ("- a\n", ":1: the file is a list, and must be a mapping"),
    ],
)
def test_what_does_not_belong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "holdfast.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        find_rules(tmp_path)
    assert f"{tmp_path.resolve() / 'holdfast.yaml'}{message}" in str(caught.value)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    for text in ("", "runs:\n", "# nothing\n", "canonical: {}\n"):
        (tmp_path / "holdfast.yaml").write_text(text)
        assert find_rules(tmp_path) == Rules()


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str], Path]:
    def make_file(folder: str) -> Path:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "holdfast.yaml").write_text("runs: {}\n")
        return tmp_path / folder / "holdfast.yaml"

    return make_file


def test_the_nearest_file_in_the_repository_counts(tmp_path: Path, place: Callable[[str], Path]) -> None:
    deep = tmp_path / "repository" / "experiments" / "a"
    deep.mkdir(parents=True)
    place(".")
    assert find_config(deep) is None  # there is no repository that both belong to
    (tmp_path / "repository" / ".git").mkdir()
    assert find_config(deep) is None  # above the repository
    top = place("repository")
    assert find_config(deep) == top
    assert find_config(deep) == top
    nearer = place("repository/experiments")
    assert find_config(deep) == nearer
    assert read_config(nearer).section("runs").names() == []


def test_the_documented_defaults_are_the_defaults(tmp_path: Path) -> None:
    page = Path(__file__).parent.parent / "docs" / "reference" / "run-classes.md"
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "holdfast.yaml").write_text(block)
    assert find_rules(tmp_path) == Rules()
