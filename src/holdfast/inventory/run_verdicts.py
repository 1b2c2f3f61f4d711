"""What to do with each run: keep, archive or remove; who stands for a series; what the kept are called.

Keep production candidates, the historical baseline, and what cannot be judged yet. Archive one representative of each
series that keeps none: its metadata stays, its weights go. Remove the rest. Nothing is done here.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from holdfast.inventory.run_classes import Classified, classify_runs, number_text
from holdfast.inventory.run_names import words_of
from holdfast.inventory.run_record import Run, base_of, lower_is_better
from holdfast.inventory.run_rules import RUN_CLASSES, Rules, RunClass, find_rules
from holdfast.inventory.run_scan import Scan, scan_runs

Verdict = Literal["keep", "archive", "remove"]
VERDICTS: tuple[Verdict, ...] = ("keep", "archive", "remove")

# words that tell nothing of what a series is
_GENERIC = frozenset(
    {"model", "models", "run", "runs", "exp", "experiment", "train", "training", "trained", "final", "best", "new"}
)


@dataclass(frozen=True)
class SortedRun:
    """A run, its class, and what to do with it.

    Attributes:
        found: the run and its class.
        verdict: what to do.
        why: the reason, in words.
        representative: it stands for its series.
        historical: it is the historical baseline.
        standard_name: what to call it from now on; None for what is not kept, and for a baseline without an override.
        place: its place among the production candidates, the best is 0; None for other runs.
    """

    found: Classified
    verdict: Verdict
    why: str
    representative: bool = False
    historical: bool = False
    standard_name: str | None = None
    place: int | None = None

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.found.run

    @property
    def kind(self) -> RunClass:
        """Its class."""
        return self.found.kind

    @property
    def freed(self) -> int:
        """Bytes that the verdict frees: all files of what is removed, the weights of what is archived."""
        return {"keep": 0, "archive": self.run.weight_bytes, "remove": self.run.bytes}[self.verdict]


@dataclass(frozen=True)
class Sorting:
    """All runs below a folder, sorted."""

    scan: Scan
    runs: tuple[SortedRun, ...]

    def of(self, verdict: Verdict) -> list[SortedRun]:
        """The runs of one verdict, in the order of their paths."""
        return [item for item in self.runs if item.verdict == verdict]

    def of_kind(self, kind: RunClass) -> list[SortedRun]:
        """The runs of one class, in the order of their paths."""
        return [item for item in self.runs if item.kind == kind]

    @property
    def series(self) -> dict[str, list[SortedRun]]:
        """The runs of each series, by the series' group, in the order of the groups."""
        groups: dict[str, list[SortedRun]] = defaultdict(list)
        for item in self.runs:
            groups[item.run.group].append(item)
        return dict(sorted(groups.items()))

    @property
    def freed(self) -> int:
        """Bytes that removal and archive free."""
        return sum(item.freed for item in self.runs)

    def to_json(self, items: Sequence[SortedRun]) -> dict[str, Any]:
        """The sorting as JSON, with the runs in ``items`` alone; the totals are those of all."""
        return {
            "format": "holdfast runs classify 1",
            "path": self.scan.top.as_posix(),
            "totals": {
                "runs": len(self.runs),
                "series": len(self.series),
                "bytes": sum(item.run.bytes for item in self.runs),
                "freed": self.freed,
                "verdicts": {verdict: len(self.of(verdict)) for verdict in VERDICTS},
                "classes": {kind: len(self.of_kind(kind)) for kind in RUN_CLASSES},
            },
            "runs": [_to_json(item) for item in items],
            "notes": list(self.scan.notes),
        }


def sort_folder(folder: Path, now: datetime) -> Sorting:
    """Find, classify and judge the runs at and below a folder, by the rules of its ``holdfast.yaml``.

    Args:
        folder: where to look.
        now: for runs that say they are running; has a time zone.

    Raises:
        holdfast.inventory.config.ConfigError: ``holdfast.yaml`` says something that Holdfast does not know.
        OSError: the folder cannot be read.
    """
    rules = find_rules(folder)
    return sort_runs(scan_runs(folder, percent=frozenset(rules.percent)), rules, now)


def sort_runs(scan: Scan, rules: Rules, now: datetime) -> Sorting:
    """Classify and judge the runs of a scan."""
    found = classify_runs(scan.runs, rules, now)
    groups: dict[str, list[Classified]] = defaultdict(list)
    for item in found:
        groups[item.run.group].append(item)
    leaders = {group: leader for group, members in groups.items() if (leader := representative(members, rules))}
    historical = _historical(found) if rules.historical_baseline else None
    candidates = [item for item in found if item.kind == "production candidate"]
    candidates.sort(key=lambda item: _rank(item, None, rules))
    places = {id(item): place for place, item in enumerate(candidates)}
    names = _standard_names(candidates, historical, rules)
    kept_groups = {item.run.group for item in found if item.kind == "production candidate" or item is historical}
    runs = []
    for item in found:
        leader = leaders.get(item.run.group)
        verdict, why = _judge(item, historical, leader, item.run.group in kept_groups, rules)
        runs.append(
            SortedRun(item, verdict, why, item is leader, item is historical, names.get(id(item)), places.get(id(item)))
        )
    return Sorting(scan, tuple(runs))


def representative(members: Sequence[Classified], rules: Rules) -> Classified | None:
    """The run that stands for a series: the best by the first metric that all of its judged runs have.

    Only finished runs that are no tests and did not over-fit a tiny set count; of equals the earliest, then the first
    by name. None where there is none.
    """
    judged = [item for item in members if item.finished and item.kind not in ("over-fitted", "test")]
    valued = [item for item in judged if item.value is not None]
    if not judged:
        return None
    common = next((m for m in rules.metrics if valued and all(item.run.value_of(m) for item in valued)), None)
    return min(judged, key=lambda item: _rank(item, common, rules))


def _rank(item: Classified, common: str | None, rules: Rules) -> tuple[int, float, float, str]:
    started = item.run.started.timestamp() if item.run.started is not None else float("inf")
    found = item.run.value_of(common) if common else None
    metric, value = found or (item.metric, item.value)
    if metric is None or value is None:
        return (len(rules.metrics) + 1, 0.0, started, item.run.name)
    place = rules.metrics.index(base_of(metric)) if base_of(metric) in rules.metrics else len(rules.metrics)
    return (place, value if lower_is_better(metric) else -value, started, item.run.name)


def _historical(found: Sequence[Classified]) -> Classified | None:
    """The baseline that started first, where it did so before every production candidate."""
    dated = [(item.run.started, item.run.name, item) for item in found if item.kind == "baseline" and item.run.started]
    if not dated:
        return None
    first = min(dated, key=lambda entry: entry[:2])[2]
    rivals = [item.run.started for item in found if item.kind == "production candidate" and item.run.started]
    return first if first.run.started is not None and all(first.run.started < rival for rival in rivals) else None


def _judge(
    item: Classified, historical: Classified | None, leader: Classified | None, series_kept: bool, rules: Rules
) -> tuple[Verdict, str]:
    reason = "; ".join(item.reasons)
    if item.kind == "production candidate":
        return "keep", f"production candidate: {reason}"
    if item is historical:
        return "keep", f"historical baseline, the first of all: {reason}"
    if item.alive:
        return "keep", f"{reason}: not touched"
    if item.unevaluated and item.kind == "incomplete":
        return "keep", f"{reason}, but holds weights: evaluate it, or remove it by hand"
    name = "over-fitted on a tiny set" if item.kind == "over-fitted" else item.kind
    if item is leader and not series_kept and item.kind in rules.archive:
        return "archive", f"{name}, represents its series: {reason}"
    if leader is not None and item is not leader and item.kind in rules.archive:
        return "remove", f"{name}, {leader.run.name} stands for its series: {reason}"
    return "remove", f"{name}: {reason}"


def _standard_names(candidates: Sequence[Classified], historical: Classified | None, rules: Rules) -> dict[int, str]:
    """Standard names by the ``id`` of the item; the best candidate first, so that it has the first choice."""
    names: dict[int, str] = {}
    overrides = dict(rules.names)
    for item in [*candidates, *([historical] if historical is not None else [])]:
        for key in (item.run.name, item.run.series):
            if id(item) not in names and key in overrides:
                names[id(item)] = overrides.pop(key)
    taken = set(rules.names.values())
    for place, item in enumerate(candidates):
        if id(item) in names:
            continue
        role = rules.best_role if place == 0 else _role(item.run.series, rules)
        version = 1
        while f"{rules.prefix}_{role}_v{version}" in taken:
            version += 1
        names[id(item)] = f"{rules.prefix}_{role}_v{version}"
        taken.add(names[id(item)])
    return names


def _role(series: str, rules: Rules) -> str:
    """The first word of a series that tells something: ``medium_model_v2`` → ``medium``."""
    words = [w for w in words_of(series) if w not in _GENERIC and w != rules.prefix and not re.fullmatch(r"v?\d+", w)]
    return words[0] if words else "candidate"


def _to_json(item: SortedRun) -> dict[str, Any]:
    run = item.run
    return {
        "path": run.path.as_posix(),
        "name": run.name,
        "series": run.series,
        "form": run.form,
        "class": item.kind,
        "verdict": item.verdict,
        "why": item.why,
        "reasons": list(item.found.reasons),
        "flags": list(item.found.flags),
        "representative": item.representative,
        "standard_name": item.standard_name,
        "metric": item.found.metric,
        "value": item.found.value,
        "status": run.status,
        "started": run.started.isoformat() if run.started is not None else None,
        "started_from": run.started_from or None,
        "epochs": run.epochs,
        "size": {name: value for name, value in vars(run.size).items() if value is not None},
        "metrics": {name: _finite(value) for name, value in sorted(run.final.items())},
        "collapsed": [score.name for score in run.classes if score.collapsed],
        "bytes": run.bytes,
        "freed": item.freed,
        "files": [{"path": file.path, "role": file.role, "size": file.size} for file in run.files],
        "notes": list(run.notes),
    }


def _finite(value: float) -> float | str:
    # JSON has no NaN
    return value if value - value == 0 else str(value)


def value_text(item: SortedRun) -> str:
    """``f1_macro 0.530``, or an empty text."""
    return "" if item.found.value is None else f"{item.found.metric} {number_text(item.found.value)}"
