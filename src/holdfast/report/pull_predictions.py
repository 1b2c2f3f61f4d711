"""What stored predictions of the two sides tell: how sure a difference is, which classes lost, what is now confused."""

import posixpath
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.inventory.run_metrics import class_scores_of
from holdfast.inventory.run_record import ClassScore
from holdfast.registry.gate_bootstrap import estimate, values_of
from holdfast.registry.gate_classes import _value as score_of
from holdfast.registry.gate_fields import exact
from holdfast.registry.gate_predictions import (
    KEYS,
    PairingError,
    Pairs,
    Predictions,
    PredictionsError,
    class_scores,
    pair,
)
from holdfast.registry.gate_predictions import _parsed as parse_predictions
from holdfast.registry.gate_rules import CONFIDENCE, RESAMPLES, SEED, ClassRule, GateRules, Score
from holdfast.registry.promotion_files import METRICS_FILE
from holdfast.repo.dvcfiles import UnreadableFileError
from holdfast.repo.gitfolder import UnreadableRefError
from holdfast.report.pull_sides import NotCachedError, Side
from holdfast.report.pull_values import ValueChange, is_number

# a metric is one of these statistics of the predictions if both sides have just its value
STATISTICS = ("accuracy", "macro_f1", "loss")
SAME = 1e-6


@dataclass(frozen=True)
class Stored:
    """A side's predictions.

    Attributes:
        path: from the project's root; empty where no file is known.
        predictions: None where they cannot be had.
        why_not: a clause that says why; empty where they are there, and where no file is known.
    """

    path: str = ""
    predictions: Predictions | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Interval:
    """How sure the difference of a metric is.

    Attributes:
        lower: of the two-sided interval of head - base.
        upper: the same.
        confidence: in (0, 1).
        samples: how many there are.
        differing: in how many the two sides differ.
    """

    lower: float
    upper: float
    confidence: float
    samples: int
    differing: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference is more than chance, as sure as `confidence`."""
        return self.lower > 0 or self.upper < 0


@dataclass(frozen=True)
class ClassChange:
    """A class of the two sides.

    Attributes:
        name: of the class.
        samples: of it in the head side's test set; None where that is not known.
        base: None where the base side does not have it.
        head: the same of the head side.
        score: which score `mark` is about.
        mark: ``regression``, ``below floor``, ``worse``, ``better``, ``same``, ``new``, ``gone`` or ``unknown``.
    """

    name: str
    samples: int | None
    base: ClassScore | None
    head: ClassScore | None
    score: Score
    mark: str

    def value(self, side: ClassScore | None) -> float | None:
        """The score that `mark` is about."""
        return None if side is None else score_of(side, self.score)

    @property
    def difference(self) -> float | None:
        """Head - base of that score, of the decimals as they are written."""
        ours, theirs = self.value(self.base), self.value(self.head)
        return None if ours is None or theirs is None else float(exact(theirs) - exact(ours))


@dataclass(frozen=True)
class Confusion:
    """A cell of the confusion matrix that is not on its diagonal, and differs."""

    label: str
    prediction: str
    base: int
    head: int


def find_predictions(side: Side, columns: Collection[str], *, prefer: str = "") -> Stored:
    """The predictions of a side's test set.

    They are what the stage that writes ``metrics/promotion.json`` depends on; else the one file that DVC tracks whose
    name has ``predictions`` in it, away from ``models/``.

    Args:
        side: whose.
        columns: further columns to read.
        prefer: where they are if the side has that file.
    """
    candidates = [
        dep
        for stage in side.stages.values()
        if METRICS_FILE in stage.metrics
        for dep in stage.deps
        if dep.endswith(".csv")
    ]
    if not candidates:
        found = [path for path in side.outs if path.endswith(".csv") and "predictions" in posixpath.basename(path)]
        found = [path for path in found if not path.startswith("models/")]
        named = [path for path in found if posixpath.basename(path) == "predictions.csv"]
        candidates = named if len(named) == 1 else found if len(found) == 1 else []
    if prefer and (prefer in side.outs or side.read(prefer) is not None):
        candidates = [prefer, *candidates]
    missing = Stored()
    for path in dict.fromkeys(candidates):
        stored = read_stored(side, path, columns)
        if stored is not None and stored.predictions is not None:
            return stored
        missing = missing if missing.path or stored is None else stored
    return missing


def read_stored(side: Side, path: str, columns: Collection[str]) -> Stored | None:
    """A file of predictions; None where there is no file, or it holds something else. A broken one is a fault, too."""
    try:
        data = side.content(path)
    except NotCachedError as error:
        return Stored(path, None, f"{path}: {error}")
    except (UnreadableFileError, UnreadableRefError, OSError) as error:
        return Stored(path, None, f"{path}: {' '.join(str(error).split())}")
    if data is None:
        return None
    header = data[:4096].split(b"\n", 1)[0].decode("utf-8-sig", "replace").strip().replace('"', "").split(",")
    if not set(KEYS) <= set(header):
        return None
    try:
        return Stored(path, parse_predictions(data.decode("utf-8-sig"), path, columns))
    except UnicodeDecodeError:
        reason = "it is no UTF-8"
    except PredictionsError as error:
        reason = error.message.removeprefix(path).lstrip(":")
    side.fault(path, reason)
    return Stored(path, None, f"{path}: {reason}")


def pair_sides(base: Stored, head: Stored) -> tuple[Pairs | None, str]:
    """Both sides sample by sample; else None, and a clause that says why, empty where there is nothing to say."""
    if base.predictions is None or head.predictions is None:
        return None, head.why_not or base.why_not
    try:
        return pair(head.predictions, base.predictions, "the base"), ""
    except PairingError as error:
        return None, error.message


def intervals(pairs: Pairs, metrics: Sequence[ValueChange], rules: GateRules) -> dict[tuple[str, str], Interval]:
    """The interval of each metric that is a statistic of the predictions, by file and name.

    A metric is one if both sides have its value. Drawn is as the gate's bootstrap rule of the statistic says, else as
    its defaults say.
    """
    asked = {rule.statistic: rule for rule in rules.bootstrap}
    found: dict[tuple[str, str], Interval] = {}
    for statistic in STATISTICS:
        if len(pairs) < 2 or (statistic == "loss" and pairs.truth is None):
            continue
        head, base = _values(pairs, statistic)
        about = [metric for metric in metrics if _is(metric.head, head) and _is(metric.base, base)]
        if not about:
            continue
        rule = asked.get(statistic)
        drawn = estimate(
            pairs,
            statistic,
            confidence=rule.confidence if rule else CONFIDENCE,
            resamples=rule.resamples if rule else RESAMPLES,
            seed=rule.seed if rule else SEED,
        )
        if drawn.lower <= drawn.upper:  # NaN where it degenerates
            confidence = rule.confidence if rule else CONFIDENCE
            interval = Interval(drawn.lower, drawn.upper, confidence, drawn.samples, drawn.differing)
            found |= {(metric.file, metric.name): interval for metric in about}
    return found


def compare_classes(
    base: Mapping[str, ClassScore], head: Mapping[str, ClassScore], rules: GateRules
) -> list[ClassChange]:
    """Each class of both sides, what lost most first; nothing where a side tells no scores."""
    if not base or not head:
        return []
    rule = rules.classes[0] if rules.classes else None
    score: Score = rule.score if rule else _score(base, head)
    found = []
    for name in dict.fromkeys([*head, *base]):
        ours, theirs = base.get(name), head.get(name)
        change = ClassChange(name, theirs.support if theirs else None, ours, theirs, score, "")
        found.append(ClassChange(name, change.samples, ours, theirs, score, _mark(change, rule)))
    order = ("gone", "below floor", "regression", "worse")
    return sorted(
        found, key=lambda change: (order.index(change.mark) if change.mark in order else 9, change.difference or 0.0)
    )


def scores_of(stored: Stored, documents: Mapping[str, Any]) -> dict[str, ClassScore]:
    """A side's scores by class: counted from its predictions, else told by one of its metrics files."""
    if stored.predictions is not None:
        return {score.name: score for score in class_scores(stored.predictions)}
    for document in documents.values():
        if scores := class_scores_of(document):
            return {score.name: score for score in scores}
    return {}


def compare_confusion(base: Predictions, head: Predictions) -> list[Confusion]:
    """Which mistakes are made more often and which less, the largest difference first."""
    ours, theirs = confusion_of(base), confusion_of(head)
    cells = [
        Confusion(label, said, ours[label, said], theirs[label, said])
        for label, said in {*ours, *theirs}
        if label != said and ours[label, said] != theirs[label, said]
    ]
    return sorted(
        cells, key=lambda cell: (-abs(cell.head - cell.base), cell.base - cell.head, cell.label, cell.prediction)
    )


def confusion_of(predictions: Predictions) -> Counter[tuple[str, str]]:
    """How often each label was predicted as what."""
    return Counter(zip(predictions.labels, predictions.predictions, strict=True))


def _values(pairs: Pairs, statistic: str) -> tuple[float, float]:
    """The statistic of head and base."""
    if statistic != "macro_f1":
        head, base = values_of(pairs, statistic)
        return float(head.mean()), float(base.mean())
    names = [pairs.classes[code] for code in pairs.labels]
    result = []
    for said in pairs.predictions:
        told = Predictions((), tuple(names), tuple(pairs.classes[code] for code in said))
        scores = [score.f1 or 0.0 for score in class_scores(told) if score.support]
        result.append(sum(scores) / len(scores))
    return result[0], result[1]


def _is(metric: Any, value: float) -> bool:
    # not by subtraction: a whole number in a metrics file may be too large for that
    return is_number(metric) and value - SAME <= metric <= value + SAME


def _score(base: Mapping[str, ClassScore], head: Mapping[str, ClassScore]) -> Score:
    """The score that both sides tell: recall, or else F1, or else precision."""
    choices: tuple[Score, ...] = ("recall", "f1", "precision")
    for score in choices:
        if all(any(score_of(one, score) is not None for one in side.values()) for side in (base, head)):
            return score
    return "recall"


def _mark(change: ClassChange, rule: ClassRule | None) -> str:
    if change.base is None:
        return "new"
    if change.head is None:
        return "gone"
    value, other = change.value(change.head), change.value(change.base)
    if value is None or other is None:
        return "unknown"
    floor = rule.floors.get(change.name, rule.floor) if rule else None
    enough = rule is None or change.samples is None or change.samples >= rule.minimum_samples
    if floor is not None and enough and exact(value) < exact(floor):
        return "below floor"
    difference = exact(value) - exact(other)
    if rule is not None and rule.tolerance is not None and enough and difference < -rule.tolerance.of(other):
        return "regression"
    return "worse" if difference < 0 else "better" if difference > 0 else "same"
