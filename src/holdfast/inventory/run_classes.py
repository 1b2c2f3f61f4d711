"""What kind of run each is, from its facts: rules in a fixed order, each with the reason in words and numbers.

failed → incomplete → over-fitted on a tiny set → test → debug → production candidate → baseline: the first that holds.
A name is one sign among others, and never outweighs a good result at real size.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from holdfast.inventory.run_names import named_like
from holdfast.inventory.run_record import ClassScore, Run, Size, base_of, lower_is_better
from holdfast.inventory.run_rules import Limits, Rules, RunClass

_SIZE_TEXTS = {
    "layers": ("layer", "layers"),
    "width": ("wide", "wide"),
    "vocab_size": ("word in the vocabulary", "words in the vocabulary"),
    "train_samples": ("training sample", "training samples"),
    "parameters": ("parameter", "parameters"),
}
_SCORE_METRICS = re.compile(r"(balanced_)?accuracy|f1(_macro|_weighted|_micro)?")


@dataclass(frozen=True)
class Classified:
    """A run and its class.

    Attributes:
        run: the run.
        kind: its class.
        reasons: what decided, in words, with the numbers.
        flags: what to look at, whatever the class: collapsed classes, a name that says something else.
        metric: what it is compared by, with its split, or None.
        value: that metric's value.
        unevaluated: it holds weights of no minimal model, and nothing says what they reach or that they failed.
        alive: it says that it is running, and nothing says that it was killed.
    """

    run: Run
    kind: RunClass
    reasons: tuple[str, ...]
    flags: tuple[str, ...] = ()
    metric: str | None = None
    value: float | None = None
    unevaluated: bool = False
    alive: bool = False

    @property
    def finished(self) -> bool:
        """Whether it came to an end that can be judged."""
        return self.kind not in ("failed", "incomplete")


@dataclass
class _Draft:
    run: Run
    metric: str | None
    value: float | None
    signs: list[str]
    flags: list[str]
    kind: RunClass | None = None
    reasons: list[str] = field(default_factory=list)
    unevaluated: bool = False
    alive: bool = False
    test_name: str | None = None

    @property
    def base(self) -> str:
        return base_of(self.metric or "")

    def settle(self, kind: RunClass, *reasons: str) -> None:
        self.kind, self.reasons = kind, list(reasons)


def classify_runs(runs: Sequence[Run], rules: Rules, now: datetime) -> tuple[Classified, ...]:
    """The class of each run, in the order given.

    Args:
        runs: all runs that are compared with one another.
        rules: what decides.
        now: for runs that say they are running; has a time zone.
    """
    drafts = [_draft(run, rules) for run in runs]
    # where every run is minimal, that is the size of the problem, and no sign of a debug run
    sized = [draft for draft in drafts if draft.run.size != Size()]
    small_world = all(len(draft.signs) >= rules.debug_evidence for draft in sized)
    for draft in drafts:
        _settle_by_itself(draft, rules, now, small_world=small_world)
    open_drafts = [draft for draft in drafts if draft.kind is None]
    best = _best_values([draft for draft in open_drafts if draft.test_name is None] or open_drafts)
    for draft in open_drafts:
        if draft.test_name is not None:
            _settle_named_test(draft, rules, best)
    _settle_by_comparison([draft for draft in open_drafts if draft.kind is None], rules, best)
    _find_historical(drafts, rules)
    return tuple(
        Classified(
            draft.run,
            draft.kind or "baseline",
            tuple(draft.reasons),
            tuple(draft.flags),
            draft.metric,
            draft.value,
            draft.unevaluated,
            draft.alive,
        )
        for draft in drafts
    )


def headline(run: Run, metrics: Sequence[str]) -> tuple[str, float] | None:
    """The first of ``metrics`` that a run has, with its split, and the value that stands for the run."""
    return next((found for metric in metrics if (found := run.value_of(metric)) is not None), None)


def reaches(metric: str, value: float, best: float, share: float) -> bool:
    """Whether a value reaches a share of the best one; for losses, the best is at least that share of the value."""
    return best >= value * share if lower_is_better(metric) else value >= best * share


def number_text(value: float) -> str:
    """A score with three digits behind the point, anything else with four that count."""
    return f"{value:.3f}" if 0 <= value <= 1 else f"{value:.4g}"


def _draft(run: Run, rules: Rules) -> _Draft:
    metric, value = headline(run, rules.metrics) or (None, None)
    flags = [_collapse_text(score) for score in run.classes if score.collapsed]
    if run.size.epochs is not None and 0 < run.epochs < run.size.epochs and run.status != "finished":
        flags.append(f"{run.epochs} of {run.size.epochs} epochs")
    return _Draft(run, metric, value, _size_signs(run.size, rules.debug), flags)


def _settle_by_itself(draft: _Draft, rules: Rules, now: datetime, *, small_world: bool) -> None:
    run = draft.run
    minimal = len(draft.signs) >= rules.debug_evidence and not small_world
    if run.status == "failed":
        draft.settle("failed", run.status_reason)
    elif reason := _incomplete(draft, rules, now):
        draft.unevaluated = (
            run.status in ("unknown", "finished") and run.has_weights and not run.has_metrics and not minimal
        )
        if draft.unevaluated and (word := named_like(run.name, rules.baseline_names)):
            draft.settle("baseline", f"{reason}, and is named {word}")
        else:
            draft.settle("incomplete", reason)
    elif reasons := _overfitted(run, rules):
        draft.settle("over-fitted", *reasons)
    elif reason := _test(run, rules):
        draft.settle("test", reason)
    else:
        draft.test_name = named_like(run.name, rules.test_names)
        word = named_like(run.name, rules.debug_names)
        signs = [] if small_world else [*draft.signs, *([f"named {word}"] if word and draft.signs else [])]
        if draft.test_name is None and len(signs) >= rules.debug_evidence:
            draft.settle("debug", *signs)
        elif draft.test_name is not None and minimal:
            draft.settle("test", f"named {draft.test_name}", *draft.signs)


def _incomplete(draft: _Draft, rules: Rules, now: datetime) -> str:
    run = draft.run
    if run.status == "running":
        started = run.started if run.started_from == "metadata" else None
        draft.alive = started is None or now - started < timedelta(days=rules.stale_days)
        return (
            "says that it is still running" if draft.alive else f"says since {run.started:%Y-%m-%d} that it is running"
        )
    if run.status == "incomplete":
        return run.status_reason or "was interrupted"
    missing = [
        *(["metrics"] if not run.has_metrics and (rules.require_metrics or not run.has_weights) else []),
        *(["weights"] if not run.has_weights and (rules.require_checkpoint or not run.has_metrics) else []),
    ]
    return f"has no {' and no '.join(missing)}" if missing else ""


def _overfitted(run: Run, rules: Rules) -> list[str]:
    values = {**run.best, **run.final}
    scores = {
        name: value
        for name, value in values.items()
        if _SCORE_METRICS.fullmatch(base_of(name)) and value >= rules.overfitted_score
    }
    tiny = _tiny(run.size, rules.overfitted)
    if not scores or not tiny:
        return []
    # what was held out says more than what was trained on
    name = min(scores, key=lambda name: (name.startswith("train_"), name))
    others = [sign for sign in _size_signs(run.size, rules.overfitted) if sign not in tiny]
    return [f"{name} {number_text(scores[name])}", ", ".join([*tiny, *others])]


def _tiny(size: Size, limits: Limits) -> list[str]:
    if size.train_samples is not None and limits.train_samples:
        return _size_signs(Size(train_samples=size.train_samples), limits)
    if size.vocab_size is not None and limits.vocab_size:
        return _size_signs(Size(vocab_size=size.vocab_size), limits)
    signs = _size_signs(Size(layers=size.layers, width=size.width), limits)
    return signs if len(signs) == 2 else []


def _test(run: Run, rules: Rules) -> str:
    switches = [switch for switch in rules.test_switches if switch in run.switches]
    if switches:
        return f"ran with {', '.join(switches)}"
    if run.size.steps is not None and run.size.steps <= rules.test_steps:
        return f"ran for {run.size.steps} steps"
    return ""


def _settle_named_test(draft: _Draft, rules: Rules, best: Mapping[str, float]) -> None:
    known = draft.run.size != Size()
    if known and draft.value is not None and reaches(draft.base, draft.value, best[draft.base], rules.share_of_best):
        draft.flags.append(f"named {draft.test_name}, yet as good as a production candidate")
    else:
        draft.settle("test", f"named {draft.test_name}")


def _settle_by_comparison(drafts: list[_Draft], rules: Rules, best: Mapping[str, float]) -> None:
    repeats: dict[tuple[str, frozenset[tuple[str, str]]], list[_Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.run.config:
            repeats[draft.run.group, frozenset(draft.run.config.items())].append(draft)
    for draft in drafts:
        if draft.value is None or draft.metric is None:
            draft.settle("baseline", f"has none of {', '.join(rules.metrics[:3])}, … to be compared by")
            continue
        text = f"{draft.metric} {number_text(draft.value)}"
        top = best.get(draft.base, draft.value)
        same = repeats.get((draft.run.group, frozenset(draft.run.config.items())), [draft])
        same = [other for other in same if other.base == draft.base]
        leader = min(same, key=_order)
        if len(same) >= rules.repeats and leader.value != top:
            draft.settle("baseline", text, f"one of {len(same)} runs of one configuration: a reproducibility series")
        elif len(same) >= rules.repeats and leader is not draft:
            draft.settle(
                "baseline", f"{text}, repeats {leader.run.name}, which reaches {number_text(leader.value or 0)}"
            )
        elif draft.value == top:
            draft.settle("production candidate", f"{text}, the best")
        elif not reaches(draft.base, draft.value, top, rules.share_of_best):
            draft.settle("baseline", f"{text} {_share_text(draft, top)}, below {rules.share_of_best:.0%}")
        else:
            draft.settle("production candidate", f"{text} {_share_text(draft, top)}")


def _share_text(draft: _Draft, top: float) -> str:
    value = draft.value or 0.0
    part, whole = (top, value) if lower_is_better(draft.base) else (value, top)
    share = f"{math.floor(100 * part / whole)}% of" if whole > 0 and part >= 0 else "against"
    return f"is {share} the best, {number_text(top)}" if share != "against" else f"against the best, {number_text(top)}"


def _find_historical(drafts: Sequence[_Draft], rules: Rules) -> None:
    """Make weights without metrics a baseline where they are older than every baseline and production candidate."""
    if not rules.historical_baseline:
        return
    rivals = [d for d in drafts if d.kind in ("production candidate", "baseline") or d.unevaluated]
    dated = [(draft.run.started, draft.run.name, draft) for draft in rivals if draft.run.started is not None]
    if not dated:
        return
    first = min(dated, key=lambda item: item[:2])[2]
    if first.unevaluated and first.kind == "incomplete":
        first.settle("baseline", f"{first.reasons[0]}, but its weights are the first of real size")


def _best_values(drafts: Sequence[_Draft]) -> dict[str, float]:
    best: dict[str, float] = {}
    for draft in drafts:
        if draft.value is not None:
            pick = min if lower_is_better(draft.base) else max
            best[draft.base] = pick(best.get(draft.base, draft.value), draft.value)
    return defaultdict(float, best)


def _order(draft: _Draft) -> tuple[float, float, str]:
    value = draft.value or 0.0
    started = draft.run.started.timestamp() if draft.run.started is not None else float("inf")
    return (value if lower_is_better(draft.base) else -value, started, draft.run.name)


def _size_signs(size: Size, limits: Limits) -> list[str]:
    signs = []
    for name, (one, many) in _SIZE_TEXTS.items():
        count, limit = getattr(size, name), getattr(limits, name)
        if count is not None and limit and count <= limit:
            signs.append(f"{count:,} {one if count == 1 else many}")
    return signs


def _collapse_text(score: ClassScore) -> str:
    zero = [name for name in ("precision", "recall", "f1") if getattr(score, name) == 0]
    support = f" of {score.support:,} samples" if score.support is not None else ""
    listed = " and ".join([", ".join(zero[:-1]), zero[-1]] if len(zero) > 1 else zero)
    return f"class {score.name}{support} has collapsed: {listed} {'is' if len(zero) == 1 else 'are'} 0"
