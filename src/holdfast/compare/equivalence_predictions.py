"""What two models predict, and where they predict something else; with labels, which of them is right.

``argmax`` takes the place of the largest value along the last dimension, the first of equal ones; ``sign`` is 1 where a
value is above 0, else 0. A NaN among the values makes it no prediction at all.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.compare.equivalence_figures import FLOATS
from holdfast.compare.equivalence_outputs import Output
from holdfast.compare.figures import Array
from holdfast.compare.values import values
from holdfast.errors import HoldfastError

Rule = Literal["auto", "argmax", "sign", "none"]

NOTHING = -1  # where a NaN stands among the values
MAX_DISAGREEMENTS = 10
NUMBERS = FLOATS | {"I8", "I16", "I32", "I64", "U8", "U16", "U32"}


class LabelsError(HoldfastError):
    """The labels are no classes of these predictions."""


@dataclass(frozen=True)
class Disagreement:
    """A sample for which two models predict something else.

    Attributes:
        sample: its number in the data, from 0 on.
        place: the prediction's place within the sample; empty where a sample has one.
        a: what the first predicts; None for nothing.
        b: what the second predicts; None for nothing.
        label: what is right, None where no labels were given.
    """

    sample: int
    place: tuple[int, ...]
    a: int | None
    b: int | None
    label: int | None


@dataclass(frozen=True)
class Accuracy:
    """How often each of two models is right."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def total(self) -> int:
        """All predictions."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def shares(self) -> tuple[float, float]:
        """The accuracy of the first and of the second, in [0, 1]."""
        return (self.both + self.only_a) / self.total, (self.both + self.only_b) / self.total

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely chance alone splits so unevenly what one of them has right.

        The binomial test of the smaller of `only_a` and `only_b` among both, with probability 1/2. Source: Q. McNemar,
        Psychometrika 12 (1947) 153–157; the exact form as in T. Dietterich, Neural Computation 10 (1998) 1895–1923.
        """
        split = self.only_a + self.only_b
        fewer = min(self.only_a, self.only_b)
        logs = [_log_choose(split, count) - split * math.log(2) for count in range(fewer + 1)]
        top = max(logs)
        tail = math.exp(top) * math.fsum(math.exp(value - top) for value in logs)
        return min(1.0, 2 * tail)


@dataclass(frozen=True)
class Predictions:
    """What two models predict from one output.

    Attributes:
        names: the output's name in the first and in the second.
        rule: how a prediction is made of it.
        total: predictions of each model.
        agreeing: how many of them are equal.
        disagreements: the first `MAX_DISAGREEMENTS` that are not.
        one_a_sample: each sample has one prediction, not several.
        accuracy: where labels were given.
    """

    names: tuple[str, str]
    rule: Rule
    total: int
    agreeing: int
    disagreements: tuple[Disagreement, ...]
    one_a_sample: bool
    accuracy: Accuracy | None

    @property
    def agreement(self) -> float:
        """The share that agrees, in [0, 1]."""
        return self.agreeing / self.total if self.total else 1.0


def prediction_rule(output: Output, rows: int, wanted: Rule) -> Rule:
    """How predictions are made of this output: ``argmax``, ``sign`` or ``none``.

    Args:
        output: of a batch.
        rows: samples in the batch.
        wanted: ``auto`` for ``argmax`` of floats of shape (samples, 2 or more) and nothing else; ``argmax`` for every
            output of numbers with a last dimension of 2 or more; ``sign`` for every output of numbers.
    """
    shape = output.shape
    if wanted == "none" or output.dtype not in NUMBERS or not shape or shape[0] != rows:
        return "none"
    if wanted == "sign":
        return "sign"
    scores = len(shape) >= 2 and shape[-1] >= 2
    if wanted == "auto":
        scores = scores and len(shape) == 2 and output.dtype in FLOATS
    return "argmax" if scores else "none"


def predict(output: Output, rule: Rule) -> Array:
    """The predictions as int64: of the output's shape, for ``argmax`` without its last dimension."""
    numbers = values(output.data, output.dtype).reshape(output.shape)
    if rule == "sign":
        return np.where(np.isnan(numbers), NOTHING, (numbers > 0).astype(np.int64))
    return np.where(np.isnan(numbers).any(axis=-1), NOTHING, numbers.argmax(axis=-1))


class PredictionSums:
    """Takes an output of two models batch by batch, and gives their `Predictions`."""

    def __init__(self, names: tuple[str, str], rule: Rule, *, labelled: bool) -> None:
        self.names = names
        self.rule = rule
        self._total = self._agreeing = self._samples = 0
        self._disagreements: list[Disagreement] = []
        self._counts = np.zeros((2, 2), np.int64) if labelled else None

    def add(self, a: Output, b: Output, first: int, labels: Array | None) -> None:
        """Take in one batch.

        Args:
            a: of the first model.
            b: of the second, of the same shape.
            first: the number of the batch's first sample.
            labels: int64 of shape (rows, …), as many as there are predictions; given if the sums are labelled.

        Raises:
            LabelsError: there are more or fewer labels than predictions, or a label is no class.
        """
        ours, theirs = predict(a, self.rule), predict(b, self.rule)
        right = None
        if self._counts is not None and labels is not None:
            classes = 2 if self.rule == "sign" else a.shape[-1]
            right = self._fitted(labels, ours.shape, first, classes)
            np.add.at(self._counts, ((ours == right).astype(int).ravel(), (theirs == right).astype(int).ravel()), 1)
        agree = ours == theirs
        self._samples += len(agree)
        self._total += agree.size
        self._agreeing += int(np.count_nonzero(agree))
        room = MAX_DISAGREEMENTS - len(self._disagreements)
        for where in np.argwhere(~agree)[:room].tolist():
            place = tuple(where)
            known = [_known(ours[place]), _known(theirs[place]), None if right is None else int(right[place])]
            self._disagreements.append(Disagreement(first + place[0], place[1:], *known))

    def predictions(self) -> Predictions:
        """The predictions of all batches so far."""
        accuracy = None
        if self._counts is not None:
            (neither, only_b), (only_a, both) = self._counts.tolist()
            accuracy = Accuracy(both, only_a, only_b, neither)
        return Predictions(
            names=self.names,
            rule=self.rule,
            total=self._total,
            agreeing=self._agreeing,
            disagreements=tuple(self._disagreements),
            one_a_sample=self._total == self._samples,
            accuracy=accuracy,
        )

    def _fitted(self, labels: Array, shape: tuple[int, ...], first: int, classes: int) -> Array:
        name = self.names[0]
        if labels.size != math.prod(shape):
            raise LabelsError(
                f"the labels are {labels.size // shape[0]} a sample, the predictions of {name} {math.prod(shape[1:])}",
                hint="Labels are class numbers, one for each prediction, not one column for each class",
            )
        fitted = labels.reshape(shape)
        outside = np.argwhere((fitted < 0) | (fitted >= classes))
        if outside.size:
            place = tuple(outside[0].tolist())
            raise LabelsError(
                f"sample {first + place[0]} has the label {fitted[place]}, and the classes of {name} are "
                f"0 to {classes - 1}",
                hint="Labels are counted from 0 on" + (", 0 where the value is not above 0" if classes == 2 else ""),
            )
        return fitted


def _known(prediction: int) -> int | None:
    return None if prediction == NOTHING else int(prediction)


def _log_choose(total: int, count: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
