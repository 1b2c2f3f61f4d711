"""What is known of a model when it is judged."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from holdfast.inventory.run_metrics import class_scores_of
from holdfast.inventory.run_record import ClassScore
from holdfast.registry.gate_contract import Contract, FileFacts
from holdfast.registry.gate_predictions import Predictions, class_scores

MOST_SHOWN = 40  # characters of what is no number


@dataclass(frozen=True)
class Evidence:
    """What is known of a model, a candidate or a champion; whatever is left out is unknown.

    Attributes:
        name: what reasons call it: ``the candidate``, ``v2``.
        metrics: names to numbers, also nested.
        classes: scores of each class in [0, 1]; left empty, they are counted from `predictions`, else found in
            `metrics`, in whichever form `holdfast.inventory.run_metrics.class_scores_of` knows.
        predictions: of the test set, a sample a row.
        file: what its file holds.
        latency: seconds that one prediction took on the CPU, as measured.
        card_lacks: the fields that its card lacks of those that the rules require; None where it has no card.
        interface: what it takes and gives; its tensors, where they are empty here, are those of `file`.
    """

    name: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[ClassScore, ...] = ()
    predictions: Predictions | None = None
    file: FileFacts | None = None
    latency: float | None = None
    card_lacks: tuple[str, ...] | None = None
    interface: Contract | None = None

    @cached_property
    def scores(self) -> Mapping[str, ClassScore]:
        """The scores of each class by its name; empty where nothing tells them."""
        scores = self.classes
        if not scores and self.predictions is not None:
            scores = class_scores(self.predictions)
        return {score.name: score for score in scores or class_scores_of(dict(self.metrics))}

    def metric(self, name: str) -> float | None:
        """The finite value of a metric, None where there is none; dots lead into nested mappings."""
        value = _found(self.metrics, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            return value if math.isfinite(value) else None
        except OverflowError:
            return None

    def why_no(self, name: str) -> str:
        """Why `metric` gave None, as a clause."""
        value = _found(self.metrics, name)
        shown = str(value)[:MOST_SHOWN]
        return f"{self.name} has no {name}" if value is None else f"{name} of {self.name} is {shown}, no finite number"


def _found(values: Any, name: str) -> Any:
    if not isinstance(values, Mapping):
        return None
    if name in values:
        return values[name]
    for place in [place for place, letter in enumerate(name) if letter == "."]:
        if (value := _found(values.get(name[:place]), name[place + 1 :])) is not None:
            return value
    return None
