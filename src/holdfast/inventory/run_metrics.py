"""Metrics under one set of names, whoever wrote them: final values, columns over epochs, scores of classes."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.inventory.run_files import leaves
from holdfast.inventory.run_record import (
    HIGHER_IS_BETTER,
    LOWER_IS_BETTER,
    SHARES,
    ClassScore,
    base_of,
    lower_is_better,
)

PERCENT_MAX = 100.0
# accuracies are sums of float32 at times, and a hair above 1
SHARE_SLACK = 1.001

_SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "eval": "val",
    "dev": "val", "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
# words that say where a number stands, not what it is
_FILLERS = frozenset(
    {
        "metrics", "metric", "results", "result", "final", "overall", "last", "best", "scores", "score", "performance",
        "avg", "summary", "average", "epoch", "mean", "report", "classification", "model", "percent", "pct", "at",
        "value",
    }
)  # fmt: skip
_SYNONYMS = {
    "acc": "accuracy", "f1score": "f1", "fscore": "f1", "auroc": "auc", "ppl": "perplexity", "prec": "precision",
    "rec": "recall", "err": "error", "matthews": "mcc",
}  # fmt: skip
_AVERAGES = ("macro", "micro", "weighted")
_KNOWN = HIGHER_IS_BETTER | LOWER_IS_BETTER
_KNOWN_ENDINGS = ("_loss", "_error", "_accuracy", "_f1", "_precision", "_recall", "_auc")
_TABLE_KEYS = frozenset({"epoch", "epochs", "step", "steps", "global_step", "iteration", "time", "timestamp", "lr"})
_SCORES = {
    "precision": "precision", "recall": "recall", "f1": "f1", "accuracy": "recall", "sensitivity": "recall",
}  # fmt: skip
_SUPPORT = frozenset({"support", "count", "samples", "n", "total"})
_AGGREGATES = re.compile(
    r"(macro|micro|weighted|samples)[ _-]?(avg|average|mean)?|accuracy|overall|all|mean|average|avg"
)


@dataclass(frozen=True)
class MetricName:
    """A metric's normalised name.

    Attributes:
        text: the name.
        best: the writer called the value the best one.
        percent: the writer called it a percentage.
        known: it is a metric that this module knows, and not just any number.
    """

    text: str
    best: bool
    percent: bool
    known: bool


def metric_name(keys: Iterable[str]) -> MetricName | None:
    """The name of the number that ``keys`` lead to: ``("eval", "macro avg", "f1-score")`` → ``val_f1_macro``.

    None where nothing is left, or it counts epochs or steps.
    """
    keys = tuple(keys)
    text = "_".join(keys)
    percent = "%" in text
    words = [word for word in re.split(r"[^a-z0-9]+", text.lower()) if word]
    best, percent = "best" in words, percent or "percent" in words or "pct" in words
    split = next((_SPLITS[word] for word in words if word in _SPLITS), "")
    kept = [_SYNONYMS.get(word, word) for word in words if word not in _SPLITS]
    # `epoch` alone is the counter, `loss_epoch` is Lightning's mean over one
    if kept and ((kept[-1] in _TABLE_KEYS and len(kept) == 1) or kept[0] in ("epoch", "step", "learning")):
        return None
    kept = [word for word in kept if word not in _FILLERS]
    average = [word for word in kept if word in _AVERAGES]
    kept = [word for word in kept if word not in _AVERAGES]
    base = "_".join([*kept, *average[:1]])
    base = {"roc_auc": "auc", "cross_entropy": "loss", "cross_entropy_loss": "loss", "runtime": ""}.get(base, base)
    if not base or base.isdigit():
        return None
    known = base in _KNOWN or (len(keys) == 1 and base.endswith(_KNOWN_ENDINGS))
    return MetricName(f"{split}_{base}" if split else base, best, percent, known)


def number_of(value: Any) -> tuple[float, bool] | None:
    """A value as a number, and whether it was written as a percentage (``"58.2%"``); None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        try:
            return float(value), False
        except OverflowError:
            return None
    if isinstance(value, str) and len(value) < 64:
        try:
            return float(value.strip().rstrip("%").replace(",", "")), value.strip().endswith("%")
        except ValueError:
            return None
    return None


def as_shares(metric: str, values: list[float], *, percent: bool = False) -> list[float] | None:
    """The values of one metric from one source, divided by 100 where they are percentages; None where they are neither.

    Percentages are what was called so, and what exceeds 1 though the metric is a share. All values of a source are
    of one kind: an accuracy that goes from 0.9 to 58.2 is one in percent.
    """
    base = base_of(metric)
    if base not in SHARES and not base.endswith(("_accuracy", "_f1")):
        return values
    finite = [value for value in values if math.isfinite(value)]
    if any(not 0 <= value <= PERCENT_MAX for value in finite):
        return None
    if percent or any(value > SHARE_SLACK for value in finite):
        return [value / PERCENT_MAX for value in values]
    return [min(value, 1.0) for value in values]


@dataclass(frozen=True)
class Numbers:
    """What a document says in numbers: single values, best values, and columns over epochs, under normalised names."""

    final: Mapping[str, float]
    best: Mapping[str, float]
    columns: Mapping[str, list[float]]
    notes: tuple[str, ...] = ()


def numbers_of(tree: Any, percent: frozenset[str] = frozenset()) -> Numbers:
    """The known metrics of a document: numbers are single values, lists of numbers are columns.

    Args:
        tree: what JSON or YAML gave.
        percent: metrics that are known to be in percent.
    """
    final: dict[str, float] = {}
    best: dict[str, float] = {}
    columns: dict[str, list[float]] = {}
    notes: list[str] = []
    for keys, value in leaves(tree):
        items = value if isinstance(value, list) else [value]
        pairs = [pair for pair in map(number_of, items) if pair is not None]
        if not pairs or len(pairs) != len(items) or (name := metric_name(keys)) is None or not name.known:
            continue
        is_percent = name.percent or name.text in percent or base_of(name.text) in percent or any(p for _, p in pairs)
        shares = as_shares(name.text, [number for number, _ in pairs], percent=is_percent)
        if shares is None:
            notes.append(f"{'.'.join(keys)} is neither a share nor a percentage")
        elif isinstance(value, list):
            columns.setdefault(name.text, shares)
        else:
            (best if name.best else final).setdefault(name.text, shares[0])
    return Numbers(final, best, _named_by_split(columns), tuple(notes))


def columns_of(rows: Sequence[Mapping[str, Any]], percent: frozenset[str] = frozenset()) -> Numbers:
    """The metrics of a table, a row an epoch or a step; blank cells are left out, as sparse tables have many."""
    columns: dict[str, list[float]] = {}
    marked: set[str] = set()
    for row in rows:
        for key, value in row.items():
            if (pair := number_of(value)) is None or (name := metric_name((str(key),))) is None or not name.known:
                continue
            columns.setdefault(name.text, []).append(pair[0])
            if pair[1] or name.percent or name.text in percent or base_of(name.text) in percent:
                marked.add(name.text)
    shares = {name: as_shares(name, values, percent=name in marked) for name, values in columns.items()}
    notes = tuple(f"{name} is neither a share nor a percentage" for name, values in shares.items() if values is None)
    return Numbers({}, {}, _named_by_split({name: v for name, v in shares.items() if v is not None}), notes)


def best_of(metric: str, values: list[float]) -> tuple[int, float] | None:
    """The place and the value of the best finite value of a column, the first of equals; None where none is finite."""
    finite = [(value, place) for place, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return None
    value, place = min(finite, key=lambda item: (item[0] if lower_is_better(metric) else -item[0], item[1]))
    return place, value


def class_scores_of(tree: Any) -> tuple[ClassScore, ...]:
    """The scores of each class in a document, in its order; empty where it has none.

    Two forms: scores by class (sklearn's ``classification_report(output_dict=True)``, ``{"per_class": {"a": {"recall":
    …}}}``), and classes by score (``{"per_class_f1": {"a": …}}``, or a list beside ``classes``).
    """
    names = next((v for k, v in leaves(tree) if k[-1:] and k[-1] in ("classes", "class_names", "labels")), None)
    return _scores_by_class(tree) or _classes_by_score(tree, names if isinstance(names, list) else [])


def _scores_by_class(tree: Any, depth: int = 0) -> tuple[ClassScore, ...]:
    if not isinstance(tree, dict) or depth > 6:
        return ()
    found = {
        str(key): row
        for key, value in tree.items()
        if (row := _score_row(value)) and not _AGGREGATES.fullmatch(str(key).lower())
    }
    splits = {key for key in found if key.lower() in _SPLITS}
    # {"train": {"accuracy": …}, "val": {…}} are splits; one row alone is a result, not a class
    if len(found) > 1 and not splits:
        return _made(found)
    for value in tree.values():
        if scores := _scores_by_class(value, depth + 1):
            return scores
    return ()


def _score_row(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    row: dict[str, float] = {}
    for key, cell in value.items():
        pair = number_of(cell)
        name = metric_name((str(key),))
        if pair is None:
            continue
        number = pair[0] / PERCENT_MAX if pair[1] else pair[0]
        if str(key).lower() in _SUPPORT:
            row["support"] = number
        elif name is not None and name.text in _SCORES:
            row.setdefault(_SCORES[name.text], number)
    return row if row.keys() - {"support"} else {}


def _classes_by_score(tree: Any, names: list[Any]) -> tuple[ClassScore, ...]:
    found: dict[str, dict[str, float]] = {}
    for keys, value in leaves(tree):
        marked = [
            place
            for place, key in enumerate(keys)
            if re.search(r"per[_-]?class|by[_-]?class|class[_-]wise", key.lower())
        ]
        if not marked:
            continue
        place = marked[0]
        words = set(re.split(r"[^a-z0-9]+", "_".join(keys[place:]).lower()))
        score = next((_SCORES[word] for word in ("precision", "recall", "f1", "accuracy") if word in words), None)
        cells = dict(zip(map(str, names), value, strict=False)) if isinstance(value, list) else {keys[-1]: value}
        if score is None or (not isinstance(value, list) and place == len(keys) - 1):
            continue
        for name, cell in cells.items():
            if (pair := number_of(cell)) is not None:
                found.setdefault(name, {}).setdefault(score, pair[0])
    return _made(found)


def _made(rows: Mapping[str, Mapping[str, float]]) -> tuple[ClassScore, ...]:
    # one score above 1 makes all of the same table percentages: 0.9 beside 58.2 is 0.9 %
    scores = [value for row in rows.values() for key, value in row.items() if key != "support"]
    if any(not math.isfinite(value) or not 0 <= value <= PERCENT_MAX for value in scores):
        return ()
    scale = PERCENT_MAX if any(value > SHARE_SLACK for value in scores) else 1.0

    def share(row: Mapping[str, float], key: str) -> float | None:
        return row[key] / scale if key in row else None

    return tuple(
        ClassScore(
            name,
            share(row, "precision"),
            share(row, "recall"),
            share(row, "f1"),
            int(row["support"]) if math.isfinite(row.get("support", math.nan)) else None,
        )
        for name, row in rows.items()
    )


def _named_by_split(columns: dict[str, list[float]]) -> dict[str, list[float]]:
    """Where a table has ``loss`` and ``val_loss``, the plain one is the training's."""
    named: dict[str, list[float]] = {}
    for name, values in columns.items():
        plain = base_of(name) == name and f"val_{name}" in columns and f"train_{name}" not in columns
        named[f"train_{name}" if plain else name] = values
    return named
