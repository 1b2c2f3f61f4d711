"""Stored predictions: read, paired sample by sample, and scored.

A predictions file is a CSV with ``id``, ``label`` and ``prediction``, as `holdfast.runs.artifacts.write_predictions`
writes it; ``probability_<class>`` and columns of numbers of one's own may follow.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.inventory.run_record import ClassScore
from holdfast.registry.gate_verdict import named

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

KEYS = ("id", "label", "prediction")
PROBABILITY_PREFIX = "probability_"
MAX_BYTES = 2**30


class PredictionsError(IntegrityError):
    """A predictions file is broken; the message names the file, the line and the fault."""


class PairingError(HoldfastError):
    """Two models' predictions are not of the same samples."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicted, a sample at a place.

    Attributes:
        ids: unique names of the samples.
        labels: what is right, as text.
        predictions: what the model said, as text.
        classes: those that the file has a probability of; empty where it has none.
        truth: float64 of shape (samples,): the probability that the model gave what is right, NaN where the file has
            none; None where it has no probabilities.
        columns: other columns that were asked for and are there, each float64 of shape (samples,).
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    predictions: tuple[str, ...]
    classes: tuple[str, ...] = ()
    truth: FloatArray | None = None
    columns: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pairs:
    """What a candidate and a champion say of the same samples, in the order of the samples' ids.

    Attributes:
        classes: names; labels and predictions are places in it.
        labels: int64 of shape (samples,).
        predictions: of the candidate and of the champion, each int64 of shape (samples,).
        truth: the probability that each gave what is right, each float64 of shape (samples,); None where one of them
            has no probabilities.
        columns: those that both have: the candidate's and the champion's, each float64 of shape (samples,).
    """

    classes: tuple[str, ...]
    labels: IntArray
    predictions: tuple[IntArray, IntArray]
    truth: tuple[FloatArray, FloatArray] | None
    columns: Mapping[str, tuple[FloatArray, FloatArray]]

    def __len__(self) -> int:
        return self.labels.size


def read_predictions(path: Path, columns: Collection[str] = (), *, name: str | None = None) -> Predictions:
    """Read a predictions file.

    Args:
        path: the file.
        columns: other columns to read as numbers, where they are there (`GateRules.columns`).
        name: what errors call it; the path where that is None.

    Raises:
        PredictionsError: it is no such file, a row does not fit, an id comes twice, or a number is none.
        OSError: it cannot be read.
    """
    shown = name or str(path)
    with open(path, "rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise PredictionsError(f"{shown} is larger than {MAX_BYTES // 2**30} GiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PredictionsError(f"{shown}:{line}: is no UTF-8") from error
    return _parsed(text, shown, columns)


def pair(candidate: Predictions, champion: Predictions, name: str = "the champion") -> Pairs:
    """The two models' predictions sample by sample.

    Args:
        candidate: of whom is judged.
        champion: of whom it is compared with.
        name: what the message calls the champion.

    Raises:
        PairingError: a sample is missing on one side, or has another label there.
    """
    ours = {sample: place for place, sample in enumerate(candidate.ids)}
    theirs = {sample: place for place, sample in enumerate(champion.ids)}
    ids = sorted(ours)
    missing, extra = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if missing or extra:
        raise PairingError(
            f"{len(missing)} of the candidate's {len(ours)} samples are not among {name}'s, and {len(extra)} of "
            f"{name}'s {len(theirs)} are not among the candidate's ({named(missing or extra)})"
        )
    ours_order, theirs_order = [ours[sample] for sample in ids], [theirs[sample] for sample in ids]
    labels = [candidate.labels[place] for place in ours_order]
    other = [
        sample for sample, label, place in zip(ids, labels, theirs_order, strict=True)
        if label != champion.labels[place]
    ]  # fmt: skip
    if other:
        raise PairingError(f"{len(other)} of {len(ids)} samples have another label with {name} ({named(other)})")
    predicted = (
        [candidate.predictions[place] for place in ours_order],
        [champion.predictions[place] for place in theirs_order],
    )
    classes = tuple(
        dict.fromkeys((*candidate.classes, *champion.classes, *sorted({*labels, *predicted[0], *predicted[1]})))
    )
    codes = {label: code for code, label in enumerate(classes)}

    def both(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
        return first[ours_order], second[theirs_order]

    return Pairs(
        classes=classes,
        labels=_codes(labels, codes),
        predictions=(_codes(predicted[0], codes), _codes(predicted[1], codes)),
        truth=None if candidate.truth is None or champion.truth is None else both(candidate.truth, champion.truth),
        columns={
            name: both(values, champion.columns[name])
            for name, values in candidate.columns.items()
            if name in champion.columns
        },
    )


def class_scores(predictions: Predictions) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class, 0 where undefined, and how many samples it has."""
    names = sorted({*predictions.labels, *predictions.predictions} - set(predictions.classes))
    classes = (*predictions.classes, *names)
    codes = {label: code for code, label in enumerate(classes)}
    labels, predicted = _codes(predictions.labels, codes), _codes(predictions.predictions, codes)
    length = len(classes)
    support = np.bincount(labels, minlength=length)
    said = np.bincount(predicted, minlength=length)
    right = np.bincount(labels[labels == predicted], minlength=length)
    shares = [
        np.divide(parts, whole, out=np.zeros(length), where=whole > 0)
        for parts, whole in ((right, said), (right, support), (2 * right, said + support))
    ]
    rows = zip(classes, *(share.tolist() for share in shares), support.tolist(), strict=True)
    return tuple(ClassScore(*row) for row in rows)


def _parsed(text: str, shown: str, wanted: Collection[str]) -> Predictions:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        places = {name: place for place, name in enumerate(header)}
        absent = [name for name in KEYS if name not in places]
        if absent:
            raise PredictionsError(f"{shown}:1: has no column {named(absent)}; predictions have {', '.join(KEYS)}")
        if len(places) != len(header):
            twice = next(name for place, name in enumerate(header) if places[name] != place)
            raise PredictionsError(f"{shown}:1: has the column {twice!r} twice")
        columns = {name: places[name] for name in wanted if name in places}
        classes = {
            name.removeprefix(PROBABILITY_PREFIX): place
            for name, place in places.items()
            if name.startswith(PROBABILITY_PREFIX)
        }
        ids: dict[str, int] = {}
        labels, predictions, truth = [], [], []
        values: dict[str, list[float]] = {name: [] for name in columns}
        for row in reader:
            line = reader.line_num
            if len(row) != len(header):
                raise PredictionsError(f"{shown}:{line}: has {len(row)} fields, and the header has {len(header)}")
            sample, label = row[places["id"]], row[places["label"]]
            if sample in ids:
                raise PredictionsError(f"{shown}:{line}: the id {sample!r} was in line {ids[sample]} already")
            ids[sample] = line
            labels.append(label)
            predictions.append(row[places["prediction"]])
            if label in classes:
                truth.append(_number(row[classes[label]], f"{PROBABILITY_PREFIX}{label}", shown, line))
                if not 0 <= truth[-1] <= 1 and truth[-1] == truth[-1]:
                    raise PredictionsError(
                        f"{shown}:{line}: {PROBABILITY_PREFIX}{label} is {truth[-1]:g}, no probability"
                    )
            else:
                truth.append(float("nan"))
            for name, place in columns.items():
                values[name].append(_number(row[place], name, shown, line))
    except csv.Error as error:
        raise PredictionsError(f"{shown}:{reader.line_num}: is no CSV ({error})") from error
    return Predictions(
        ids=tuple(ids),
        labels=tuple(labels),
        predictions=tuple(predictions),
        classes=tuple(classes),
        truth=np.array(truth, np.float64) if classes else None,
        columns={name: np.array(numbers, np.float64) for name, numbers in values.items()},
    )


def _number(text: str, column: str, shown: str, line: int) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PredictionsError(f"{shown}:{line}: {column} is {text[:40]!r}, and must be a number") from error


def _codes(names: Sequence[str], codes: Mapping[str, int]) -> IntArray:
    return np.fromiter((codes[name] for name in names), np.int64, len(names))
