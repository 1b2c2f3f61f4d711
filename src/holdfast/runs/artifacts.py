"""The files of a run folder, their names and their forms.

Everything is CSV, JSON, PNG or text, so that any tool can read it, and nothing is a pickle. Of these files `METADATA`
alone carries wall-clock times; all others depend on the run's inputs only.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError

EPOCHS = "epoch_statistics.csv"
PREDICTIONS = "predictions_eval.csv"
MATRICES = "confusion_matrices.json"
DISTRIBUTIONS = "class_distributions.json"
CURVES = "training_curves.png"
MATRIX_PICTURE = "confusion_matrix.png"
METADATA = "metadata.json"
SUMMARY = "training_summary.txt"
CHECKPOINT = "best_model.pt"
FILES = (EPOCHS, PREDICTIONS, MATRICES, DISTRIBUTIONS, CURVES, MATRIX_PICTURE, METADATA, SUMMARY)
CHECKPOINT_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".safetensors", ".bin"})

SCHEMA = 1
PROBABILITY_PREFIX = "probability_"

IntArray = npt.NDArray[np.int64]


class RunDataError(HoldfastError):
    """What a training script wants recorded does not fit: shapes, labels or names disagree."""


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of one class, each in [0, 1] and 0 where undefined, and its number of samples."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, classes: int) -> IntArray:
    """Count (label, prediction) pairs.

    Args:
        labels: class indices, shape (samples,).
        predictions: class indices, shape (samples,).
        classes: the number of classes.

    Returns:
        int64 of shape (classes, classes); a row is a label, a column a prediction.

    Raises:
        RunDataError: the shapes differ, or an index is not in [0, classes).
    """
    rows, columns = class_indices(labels, classes), class_indices(predictions, classes)
    if rows.shape != columns.shape:
        raise RunDataError(f"{rows.size} labels do not pair with {columns.size} predictions")
    counts = np.bincount(rows * classes + columns, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def class_scores(matrix: npt.ArrayLike, names: Sequence[str]) -> list[ClassScores]:
    """Precision, recall and F1 of each class of a confusion matrix of shape (classes, classes)."""
    counts = np.asarray(matrix, dtype=np.float64)
    right, labelled, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    precision = np.divide(right, predicted, out=np.zeros_like(right), where=predicted > 0)
    recall = np.divide(right, labelled, out=np.zeros_like(right), where=labelled > 0)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(right), where=total > 0)
    return [
        ClassScores(name, float(p), float(r), float(f), int(n))
        for name, p, r, f, n in zip(names, precision, recall, f1, labelled, strict=True)
    ]


def class_indices(values: npt.ArrayLike, classes: int) -> IntArray:
    """``values`` as int64 of shape (samples,).

    Raises:
        RunDataError: they are no integers, not one-dimensional, or not in [0, classes).
    """
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise RunDataError(f"class indices are integers of shape (samples,), not {array.dtype} of shape {array.shape}")
    indices = array.astype(np.int64)
    if indices.size and (indices.min() < 0 or indices.max() >= classes):
        raise RunDataError(
            f"class indices reach from {indices.min()} to {indices.max()}, but there are {classes} classes"
        )
    return indices


def prediction_rows(
    ids: Sequence[str],
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    names: Sequence[str],
) -> list[list[str]]:
    """The rows of `PREDICTIONS` for one batch.

    Args:
        ids: one name a sample.
        labels: class indices, shape (samples,).
        predictions: class indices, shape (samples,).
        probabilities: floats of shape (samples, classes); written in the shortest form that reads back the same.
        names: the classes' names, in the order of their indices.

    Raises:
        RunDataError: the shapes do not fit one another.
    """
    truth, guess = class_indices(labels, len(names)), class_indices(predictions, len(names))
    table = np.asarray(probabilities)
    if not (len(ids) == truth.size == guess.size and table.shape == (truth.size, len(names))):
        raise RunDataError(
            f"{len(ids)} ids, {truth.size} labels, {guess.size} predictions and probabilities of shape {table.shape} "
            f"do not fit {len(names)} classes"
        )
    if odd := next((name for name in map(str, ids) if not name.isprintable()), None):
        raise RunDataError(f"an id is one line of printable text, not {odd!r}")
    texts = table.astype(str).tolist()  # numpy writes the shortest text for each float's own width
    return [
        [str(name), names[label], names[prediction], *row]
        for name, label, prediction, row in zip(ids, truth, guess, texts, strict=True)
    ]


def prediction_header(names: Sequence[str]) -> list[str]:
    """The first row of `PREDICTIONS`."""
    return ["id", "label", "prediction", *(PROBABILITY_PREFIX + name for name in names)]


def write_predictions(
    path: Path,
    ids: Sequence[str],
    labels: npt.ArrayLike,
    predictions: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    names: Sequence[str],
) -> None:
    """Write one batch as a whole predictions file; arguments and errors as of `prediction_rows`."""
    write_csv(path, prediction_header(names), prediction_rows(ids, labels, predictions, probabilities, names))


def csv_writer(stream: TextIO) -> Any:
    """A writer of the CSV that runs keep: commas, quotes where they are needed, a newline after each row."""
    return csv.writer(stream, lineterminator="\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a whole CSV file in one step."""
    text = io.StringIO(newline="")
    writer = csv_writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a run folder; empty where there is none that can be read."""
    try:
        value = json.loads((folder / METADATA).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def write_matrices(path: Path, matrices: Mapping[str, IntArray], names: Sequence[str]) -> None:
    """Write named confusion matrices, each int64 of shape (classes, classes)."""
    write_json(
        path,
        {
            "schema": SCHEMA,
            "classes": list(names),
            "rows": "label",
            "columns": "prediction",
            "matrices": {name: matrix.tolist() for name, matrix in matrices.items()},
        },
    )


def write_distributions(path: Path, distributions: Mapping[str, IntArray], names: Sequence[str]) -> None:
    """Write, for each named split, the number of samples of each class: int64 of shape (classes,)."""
    counts = {split: dict(zip(names, values.tolist(), strict=True)) for split, values in distributions.items()}
    write_json(path, {"schema": SCHEMA, "classes": list(names), "distributions": counts})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that people can read and git can diff: indented, keys in the order given, a newline at the end.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot carry.
    """
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
