"""Which metrics stand beside versions, and how they are written: value, difference to the champion, better or worse."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, UsageError
from holdfast.registry.cache import RegistryCache, digest_of, file_states, is_settled
from holdfast.registry.selection import Direction, better_is
from holdfast.registry.table import VersionTable

PARAMS_FILE = "params.yaml"
ARROWS: Mapping[Direction, str] = {"max": "↑", "min": "↓"}
BETTER, WORSE, SAME = "✓", "✗", "="
WORST = "Of classes.* the worst one; `--all-metrics` shows each."
LEGEND = "↑ more is better, ↓ less is better; beside a value its difference to the champion's: ✓ better, ✗ worse."
METRICS_LISTED = 20  # of a hint
CLASS_CHARACTERS = 14  # of a class's name beside its score
# classes.cat.recall, test.per_class.cat.f1; recall_per_class.cat
_SCORES_OF_CLASSES = re.compile(
    r"(?P<group>(?:.+\.)?(?:classes|per_class|by_class|class_scores))\.(?P<label>.+)\.(?P<score>[^.]+)"
)
_CLASSES_OF_SCORE = re.compile(r"(?P<group>(?:.+\.)?(?:[^.]+_per_class|per_class_[^.]+|[^.]+_by_class))\.(?P<label>.+)")


@dataclass(frozen=True)
class GateMetrics:
    """What the gate looks at.

    Attributes:
        directions: its metrics in the order of ``params.yaml``, and which way each is better.
        scores: the scores of classes that it has rules for, such as ``recall``.
        note: why they are not known.
    """

    directions: Mapping[str, Direction] = field(default_factory=dict)
    scores: Collection[str] = ()
    note: str = ""

    def direction(self, name: str) -> Direction:
        """Which way a metric is better: as the gate says, else from its name."""
        return self.directions.get(name) or better_is(name)


@dataclass(frozen=True)
class MetricColumn:
    """A column of metrics.

    Attributes:
        name: of the metric; of classes with ``*`` for their names.
        values: one of each version, None where it has none.
        direction: which way it is better.
        of_gate: whether the gate looks at it.
        notes: behind a value: of classes the name of the worst one.
    """

    name: str
    values: Sequence[Any]
    direction: Direction
    of_gate: bool = False
    notes: Sequence[str] = ()

    @property
    def header(self) -> str:
        """The name, with an arrow where the values are numbers."""
        numbers = any(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)
        return f"{self.name} {ARROWS[self.direction]}" if numbers else self.name

    def cells(self, champion: int | None, *, aligned: bool) -> list[str]:
        """Each value as text, with its difference to the champion's.

        Args:
            champion: which version that is.
            aligned: with spaces, so that values stand below values and differences below differences.
        """
        best = self.values[champion] if champion is not None else None
        # of floats alone, as of most metrics, nothing is asked one by one: ten thousand versions have forty thousand
        floats = set(map(type, self.values)) == {float}
        texts = [f"{value:.4g}" for value in self.values] if floats else [number_text(value) for value in self.values]
        if self.notes:
            texts = [f"{text} ({note})" if note else text for text, note in zip(texts, self.notes, strict=True)]
        differences = _differences(self.values, best, self.direction, floats=floats)
        if champion is not None:
            differences[champion] = ""
        if not any(differences):
            return texts
        if not aligned:
            return [f"{a} ({b})" if b else a for a, b in zip(texts, differences, strict=True)]
        first, second = max(map(len, texts)), max(map(len, differences))
        return [f"{a.rjust(first)} {b.ljust(second)}" for a, b in zip(texts, differences, strict=True)]


def gate_metrics(root: Path, cache: RegistryCache | None, now_ns: int) -> GateMetrics:
    """The metrics of the gate in a project's ``params.yaml``; none where that has no gate, or a broken one."""
    file = root / PARAMS_FILE
    states = file_states([str(file)])
    key = digest_of(states)
    known = cache.fact("gate", key) if cache is not None else None
    if isinstance(known, dict):
        return GateMetrics(**known)
    if not file.is_file():
        return GateMetrics()
    from holdfast.registry.gate_rules import STATISTICS, read_rules  # 30 ms, with YAML

    try:
        rules = read_rules(file)
    except (HoldfastError, OSError) as error:
        return GateMetrics(note=f"The gate's metrics do not stand first: {' '.join(str(error).split())}.")
    directions = {rule.name: rule.direction for rule in rules.metrics}
    for rule in rules.bootstrap:
        if rule.statistic in STATISTICS:
            directions.setdefault(rule.statistic, rule.direction)
    found = GateMetrics(directions, [rule.score for rule in rules.classes])
    if cache is not None and is_settled(states, now_ns):
        cache.keep_facts({"gate": (key, vars(found))})
    return found


def metric_columns(table: VersionTable, gate: GateMetrics, picked: Sequence[str], *, every: bool) -> list[MetricColumn]:
    """The columns of metrics, those of the gate first.

    Scores of classes are one column for each score, with the worst class of each version.

    Args:
        table: of a model.
        gate: what the gate looks at.
        picked: names of metrics that are wanted, in their order; empty for all.
        every: each class has its own column.
    """
    plain = {name: MetricColumn(name, values, gate.direction(name)) for name, values in table.metrics.items()}
    groups = _groups(table, gate)
    if picked:
        return [{**groups, **plain}[name] for name in picked if name in plain or name in groups]
    classes = {name for column in groups for name in _members(table, column)}
    shown = list(plain.values())
    if not every:
        shown = [column for column in shown if column.name not in classes] + list(groups.values())
    first = [plain[name] for name in gate.directions if name in plain]
    first += [column for column in shown if column.name in groups and column.name.rpartition(".")[2] in gate.scores]
    names = {column.name for column in first}
    gated = [MetricColumn(c.name, c.values, c.direction, of_gate=True, notes=c.notes) for c in first]
    return gated + [column for column in shown if column.name not in names]


def check_names(tables: Sequence[VersionTable], names: Sequence[str]) -> None:
    """Raise a `UsageError` where no version has a metric of one of the names."""
    known = {name for table in tables for name in table.metrics}
    known |= {column for table in tables for column in _groups(table, GateMetrics())}
    for name in names:
        if name not in known:
            listed = sorted(name for name in known if _class_of(name) is None)
            more = f" and {len(listed) - METRICS_LISTED} more" if len(listed) > METRICS_LISTED else ""
            hint = f"There are {', '.join(listed[:METRICS_LISTED])}{more}" if known else "The versions have no metrics"
            raise UsageError(f"no version has the metric {name}", hint=hint)


def first_metrics(metrics: Mapping[str, Any], gate: GateMetrics, count: int) -> list[tuple[str, Any]]:
    """Some metrics of a version: those of the gate first, and no single class's."""
    names = [name for name in gate.directions if name in metrics]
    names += [name for name in metrics if name not in gate.directions and _class_of(name) is None]
    return [(name, metrics[name]) for name in names[:count]]


def number_text(value: Any) -> str:
    """A value with four digits; empty for None."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _differences(values: Sequence[Any], best: Any, direction: Direction, *, floats: bool) -> list[str]:
    if isinstance(best, bool) or not isinstance(best, (int, float)) or not math.isfinite(best):
        return [""] * len(values)
    up, down = (BETTER, WORSE) if direction == "max" else (WORSE, BETTER)
    if floats:
        apart = [value - best for value in values]
    else:
        apart = [
            value - best if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
            for value in values
        ]
    better, worse = f"%+.2g {up}", f"%+.2g {down}"
    return [better % much if much > 0 else worse % much if much < 0 else SAME if much == 0 else "" for much in apart]


def _groups(table: VersionTable, gate: GateMetrics) -> dict[str, MetricColumn]:
    """A column for each score of classes: of each version the worst, with the class that has it."""
    found: dict[str, dict[str, Sequence[Any]]] = {}
    for name, values in table.metrics.items():
        if (match := _class_of(name)) is not None:
            column, label = match
            found.setdefault(column, {})[label] = values
    result = {}
    for column, labels in found.items():
        direction = gate.direction(column.replace(".*", ""))
        worst = min if direction == "max" else max
        values, notes = [], []
        for row in zip(*labels.values(), strict=True):
            scores = [
                (value, label)
                for value, label in zip(row, labels, strict=True)
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            ]
            value, label = worst(scores, key=lambda item: item[0]) if scores else (None, "")
            values.append(value)
            notes.append(label if len(label) <= CLASS_CHARACTERS else f"{label[: CLASS_CHARACTERS - 1]}…")
        result[column] = MetricColumn(column, values, direction, notes=notes)
    return result


def _members(table: VersionTable, column: str) -> list[str]:
    return [name for name in table.metrics if (match := _class_of(name)) is not None and match[0] == column]


def _class_of(name: str) -> tuple[str, str] | None:
    """The column that a class's score belongs to, and the class."""
    if ".*" in name:
        return None
    if (match := _SCORES_OF_CLASSES.fullmatch(name)) is not None:
        return f"{match['group']}.*.{match['score']}", match["label"]
    if (match := _CLASSES_OF_SCORE.fullmatch(name)) is not None:
        return f"{match['group']}.*", match["label"]
    return None
