"""The rules that sort runs: defaults, and the section ``runs:`` of ``holdfast.yaml`` that changes them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.inventory.config import Section, read_config, texts_of
from holdfast.repo.workspace import find_config

RunClass = Literal["production candidate", "baseline", "debug", "test", "over-fitted", "failed", "incomplete"]
RUN_CLASSES: tuple[RunClass, ...] = (
    "production candidate", "baseline", "debug", "test", "over-fitted", "failed", "incomplete",
)  # fmt: skip
ARCHIVABLE: tuple[RunClass, ...] = ("baseline", "debug", "test")
STANDARD_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Limits:
    """At most this large is small; 0 where it says nothing."""

    layers: int
    width: int
    vocab_size: int
    train_samples: int
    parameters: int


@dataclass(frozen=True)
class Rules:
    """What decides the class and the verdict of a run.

    Attributes:
        metrics: what runs are compared by; the first that a run has.
        percent: metrics that are written in percent, where the values do not show it.
        overfitted_score: an accuracy or F1 from here on is too good for a tiny set.
        overfitted: what a tiny set is. The training samples decide where they are known, else the vocabulary, else
            layers and width together.
        debug_evidence: so many signs of a minimal architecture make a run debug.
        debug: what minimal is.
        debug_names: words of a name that are one such sign.
        test_names: words of a name that make a run a test, unless it is as good as a production candidate.
        test_switches: switches of a configuration that make a run a test.
        test_steps: at most so many training steps make a run a test; 0 for never.
        repeats: so many runs of one series with one configuration are a reproducibility series.
        baseline_names: words of a name that make weights without metrics a baseline.
        historical_baseline: keep the first baseline that started before every production candidate.
        share_of_best: a production candidate reaches this share of the best value.
        require_metrics: a run without metrics is incomplete.
        require_checkpoint: a run without weights is incomplete.
        stale_days: a run that says it is running is taken for killed after so many days.
        archive: the classes whose series keep one representative in the archive.
        prefix: the first word of standard names.
        best_role: the role of the best production candidate in its standard name.
        names: standard names by run or series, instead of the derived ones.
    """

    metrics: tuple[str, ...] = (
        "f1_macro", "f1", "f1_weighted", "balanced_accuracy", "accuracy", "auc", "map", "iou", "dice", "r2", "bleu",
        "loss", "perplexity", "rmse", "mse", "mae", "wer",
    )  # fmt: skip
    percent: tuple[str, ...] = ()
    overfitted_score: float = 0.98
    overfitted: Limits = field(default_factory=lambda: Limits(1, 64, 500, 1000, 0))
    debug_evidence: int = 2
    debug: Limits = field(default_factory=lambda: Limits(1, 64, 1000, 1000, 20_000))
    debug_names: tuple[str, ...] = ("debug", "micro", "minimal", "nano", "tiny", "toy", "scratch", "tmp", "sanity")
    test_names: tuple[str, ...] = ("test", "tests", "mock", "dummy", "smoke", "fixture")
    test_switches: tuple[str, ...] = (
        "dry_run",
        "fast_dev_run",
        "mock",
        "mock_data",
        "smoke_test",
        "synthetic",
        "test_mode",
    )
    test_steps: int = 10
    repeats: int = 2
    baseline_names: tuple[str, ...] = ("baseline",)
    historical_baseline: bool = True
    share_of_best: float = 0.8
    require_metrics: bool = True
    require_checkpoint: bool = False
    stale_days: int = 7
    archive: tuple[RunClass, ...] = ("baseline", "debug")
    prefix: str = "production"
    best_role: str = "baseline"
    names: Mapping[str, str] = field(default_factory=dict)


def find_rules(folder: Path) -> Rules:
    """The rules that count for ``folder``: those of its ``holdfast.yaml``, or of the repository's, else the defaults.

    Raises:
        holdfast.inventory.config.ConfigError: the file says something that Holdfast does not know.
        OSError: the file cannot be read.
    """
    path = find_config(folder)
    return Rules() if path is None else rules_of(read_config(path).section("runs"))


def rules_of(section: Section) -> Rules:
    """The rules of a section ``runs:``; what it leaves out is the default.

    Raises:
        holdfast.inventory.config.ConfigError: a key is unknown, or a value has the wrong type.
    """
    base = Rules()
    overfitted, debug, test = section.section("overfitted"), section.section("debug"), section.section("test")
    baseline, production = section.section("baseline"), section.section("production")
    incomplete, standard = section.section("incomplete"), section.section("standard_names")
    names = texts_of(standard.section("names"))
    for run, name in names.items():
        if not STANDARD_NAME.fullmatch(name):
            raise standard.wrong("names", f"calls {run} {name!r}; a name has small letters, digits, _ and -")
    if len(set(names.values())) < len(names):
        raise standard.wrong("names", "gives one name twice")
    prefix, best_role = standard.text("prefix", base.prefix), standard.text("best", base.best_role)
    for key, value in (("prefix", prefix), ("best", best_role)):
        if not STANDARD_NAME.fullmatch(value):
            raise standard.wrong(key, f"is {value!r}; it has small letters, digits, _ and -")
    archive = section.texts("archive", base.archive, among=ARCHIVABLE)
    rules = Rules(
        metrics=section.texts("metrics", base.metrics) or base.metrics,
        percent=section.texts("percent", base.percent),
        overfitted_score=overfitted.share("score", base.overfitted_score),
        overfitted=_limits(overfitted, base.overfitted),
        debug_evidence=debug.integer("evidence", base.debug_evidence, minimum=1),
        debug=_limits(debug, base.debug),
        debug_names=debug.texts("names", base.debug_names),
        test_names=test.texts("names", base.test_names),
        test_switches=test.texts("switches", base.test_switches),
        test_steps=test.integer("steps", base.test_steps),
        repeats=baseline.integer("repeats", base.repeats, minimum=2),
        baseline_names=baseline.texts("names", base.baseline_names),
        historical_baseline=baseline.flag("historical", base.historical_baseline),
        share_of_best=production.share("share_of_best", base.share_of_best),
        require_metrics=incomplete.flag("require_metrics", base.require_metrics),
        require_checkpoint=incomplete.flag("require_checkpoint", base.require_checkpoint),
        stale_days=incomplete.integer("stale_days", base.stale_days),
        archive=tuple(kind for kind in RUN_CLASSES if kind in archive),
        prefix=prefix,
        best_role=best_role,
        names=names,
    )
    for part in (section, overfitted, debug, test, baseline, production, incomplete, standard):
        part.close()
    return rules


def _limits(section: Section, base: Limits) -> Limits:
    return Limits(
        layers=section.integer("layers", base.layers),
        width=section.integer("width", base.width),
        vocab_size=section.integer("vocab_size", base.vocab_size),
        train_samples=section.integer("train_samples", base.train_samples),
        parameters=section.integer("parameters", base.parameters),
    )
