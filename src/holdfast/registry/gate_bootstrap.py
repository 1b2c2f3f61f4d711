"""The paired bootstrap: by how much a candidate differs from the champion, and how sure that is.

Samples are drawn with replacement, the same ones for both models; the interval is BCa: B. Efron, Better Bootstrap
Confidence Intervals, JASA 82 (1987) 171–185, as `scipy.stats.bootstrap` computes it. BCa needs the statistic without
each sample in turn, which takes time that grows with the square of their number: beyond `BCA_MAX_SAMPLES`, where its
correction no longer shows, the plain percentile interval takes its place.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.registry.gate_fields import exact
from holdfast.registry.gate_predictions import FloatArray, IntArray, Pairs

BCA_MAX_SAMPLES = 10_000
BATCH_ELEMENTS = 2**17  # drawn at a time, a megabyte: larger ones leave the processor's cache and take twice as long
# a probability of 0 for what is right would make the mean loss infinite; the same bound as scikit-learn's for float64
LEAST_PROBABILITY = float(np.finfo(np.float64).eps)


class UnknownStatisticError(ValueError):
    """The predictions do not have what the statistic needs; the message says what."""


@dataclass(frozen=True)
class Estimate:
    """What a statistic is of two models on the same samples.

    Attributes:
        candidate: its value for the candidate.
        champion: its value for the champion.
        lower: of the interval of candidate - champion; NaN where it has none.
        upper: the same.
        samples: how many there are.
        differing: in how many the two differ in what the statistic looks at.
        method: ``bca`` or ``percentile``.
    """

    candidate: float
    champion: float
    lower: float
    upper: float
    samples: int
    differing: int
    method: str

    @property
    def difference(self) -> float:
        """Candidate - champion, of the decimals as they are written; NaN where one of them is not finite."""
        if not (math.isfinite(self.candidate) and math.isfinite(self.champion)):
            return math.nan
        return float(exact(self.candidate) - exact(self.champion))


def values_of(pairs: Pairs, statistic: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """What each model's mean is taken of, or, for ``macro_f1``, what it predicts; each of shape (samples,).

    Args:
        pairs: the two models' predictions.
        statistic: ``accuracy``, ``macro_f1``, ``loss``, or the name of a column.

    Raises:
        UnknownStatisticError: the predictions do not have what the statistic needs.
    """
    if statistic == "macro_f1":
        return pairs.predictions
    if statistic == "accuracy":
        right = tuple((said == pairs.labels).astype(np.int64) for said in pairs.predictions)
        return right[0], right[1]
    if statistic == "loss":
        if pairs.truth is None:
            raise UnknownStatisticError("not both predictions have probabilities, of which the loss is made")
        ours, theirs = (-np.log(np.maximum(truth, LEAST_PROBABILITY)) for truth in pairs.truth)
        return ours, theirs
    if statistic not in pairs.columns:
        raise UnknownStatisticError(f"not both predictions have a column {statistic!r}")
    return pairs.columns[statistic]


def estimate(pairs: Pairs, statistic: str, *, confidence: float, resamples: int, seed: int) -> Estimate:
    """Compare two models on the same samples.

    Args:
        pairs: two samples or more.
        statistic: as of `values_of`.
        confidence: of the two-sided interval, in (0, 1).
        resamples: how often is drawn.
        seed: of the draws.

    Returns:
        The estimate; without an interval (NaN) where a value is not finite or the bootstrap degenerates.

    Raises:
        UnknownStatisticError: the predictions do not have what the statistic needs.
    """
    ours, theirs = values_of(pairs, statistic)
    count, differing = len(pairs), int(np.count_nonzero(ours != theirs))
    if statistic == "macro_f1":
        present = np.unique(pairs.labels)
        values = tuple(float(_macro_f1(pairs.labels[None], said[None], present)[0]) for said in (ours, theirs))
    else:
        values = tuple(float(np.mean(each)) for each in (ours, theirs))
    method = "bca" if count <= BCA_MAX_SAMPLES else "percentile"
    lower = upper = math.nan
    if all(map(math.isfinite, values)) and count > 1:
        if statistic == "macro_f1":
            lower, upper = _interval(
                (pairs.labels, ours, theirs), _MacroF1(present), confidence, resamples, seed, method
            )
        else:
            lower, upper = _interval((ours, theirs), _mean_difference, confidence, resamples, seed, method)
    return Estimate(values[0], values[1], lower, upper, count, differing, method)


def _interval(
    data: tuple[npt.NDArray[Any], ...], statistic: Any, confidence: float, resamples: int, seed: int, method: str
) -> tuple[float, float]:
    # scipy.stats takes a third of a second to import, and most commands of the registry judge nothing
    from scipy.stats import bootstrap

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # a degenerate interval is NaN, and that is what counts
        result = bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=True,
            confidence_level=confidence,
            n_resamples=resamples,
            batch=max(1, BATCH_ELEMENTS // data[0].size),
            method=method,
            rng=np.random.default_rng(seed),
        )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _mean_difference(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], axis: int) -> FloatArray:
    # of the differences, not the difference of means: whole numbers then give equal floats for equal counts, and the
    # bias correction counts ties
    return np.asarray(np.mean(ours - theirs, axis=axis), np.float64)


@dataclass(frozen=True)
class _MacroF1:
    """The difference of two macro F1 over the classes in ``present``, for arrays of shape (…, samples)."""

    present: IntArray

    def __call__(self, labels: IntArray, ours: IntArray, theirs: IntArray, axis: int) -> FloatArray:
        rows = [np.moveaxis(part, axis, -1).reshape(-1, part.shape[axis]) for part in (labels, ours, theirs)]
        difference = _macro_f1(rows[0], rows[1], self.present) - _macro_f1(rows[0], rows[2], self.present)
        return difference.reshape(np.moveaxis(labels, axis, -1).shape[:-1])


def _macro_f1(labels: IntArray, said: IntArray, present: IntArray) -> FloatArray:
    """Of each row of (rows, samples): the mean over ``present`` of 2·right / (samples of it + times it was said)."""
    rows = len(labels)
    length = int(max(labels.max(initial=0), said.max(initial=0), present.max(initial=0))) + 1
    offsets = np.arange(rows)[:, None] * length
    whole = _counts(labels + offsets, rows * length) + _counts(said + offsets, rows * length)
    right = _counts((labels + offsets)[labels == said], rows * length)
    f1 = np.divide(2 * right, whole, out=np.zeros(rows * length), where=whole > 0).reshape(rows, length)
    return np.asarray(f1[:, present].mean(axis=1), np.float64)


def _counts(codes: IntArray, length: int) -> IntArray:
    return np.bincount(codes.ravel(), minlength=length)
