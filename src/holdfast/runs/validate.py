"""Does a run folder hold what it should, and does it agree with itself?

Every fault is found and named; nothing is changed, and nothing that the folder holds is executed.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.runs import artifacts
from holdfast.runs.array_check import verify_store
from holdfast.runs.array_manifest import JOURNAL, MANIFEST
from holdfast.runs.checkpoint import NoWeightsError, TorchMissingError, load_checkpoint, weights_of
from holdfast.runs.fault import Fault

REQUIRED = (
    artifacts.EPOCHS,
    artifacts.PREDICTIONS,
    artifacts.MATRICES,
    artifacts.DISTRIBUTIONS,
    artifacts.CURVES,
    artifacts.MATRIX_PICTURE,
    artifacts.METADATA,
    artifacts.SUMMARY,
)
CHECKPOINT_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".safetensors", ".bin"})
PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill"})
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# float32 softmax over 1,000 classes sums to 1 within 6e-5; text adds nothing, as it reads back the same
PROBABILITY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Validation:
    """What was found: faults, and notes on what could not be checked here."""

    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...]


class NotARunError(HoldfastError):
    """The folder holds nothing that the recorder writes."""


class _BrokenError(Exception):
    """A file cannot be read at all; the message is the fault."""


def validate_run(folder: Path) -> Validation:
    """Check a run folder, with the array stores in it, against the forms of `holdfast.runs` and against itself.

    Args:
        folder: a run folder, or an array store.

    Raises:
        NotARunError: the folder does not exist, or is neither.
    """
    if _is_store(folder):
        return Validation(tuple(_store_faults(folder, folder)), ())
    if not any((folder / name).exists() for name in REQUIRED):
        hint = "`holdfast runs list` shows the runs below a folder"
        raise NotARunError(f"{folder} is no run folder and no array store", hint=hint)
    return _Checker(folder).run()


def _is_store(folder: Path) -> bool:
    return (folder / MANIFEST).exists() or (folder / JOURNAL).exists()


def _store_faults(store: Path, top: Path) -> list[Fault]:
    place = store.relative_to(top)
    try:
        return [Fault(str(place / fault.file), fault.problem) for fault in verify_store(store)]
    except (HoldfastError, OSError) as error:
        return [Fault(str(place), str(error))]


class _Checker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[Fault] = []
        self.notes: list[Fault] = []
        self.metadata: dict[str, Any] = {}
        self.epochs: list[dict[str, float]] = []
        self.classes: list[str] = []
        self.label_counts: Counter[str] = Counter()
        self.predictions = 0

    def run(self) -> Validation:
        for name in REQUIRED:
            if not (self.folder / name).is_file():
                self._fault(name, "is missing")
        self._check(artifacts.METADATA, self._metadata)
        self._check(artifacts.EPOCHS, self._epochs)
        self._check(artifacts.PREDICTIONS, self._predictions)
        self._check(artifacts.MATRICES, self._matrices)
        self._check(artifacts.DISTRIBUTIONS, self._distributions)
        self._check(artifacts.CURVES, self._picture)
        self._check(artifacts.MATRIX_PICTURE, self._picture)
        self._checkpoint()
        for store in sorted(path for path in self.folder.rglob("*") if path.is_dir() and _is_store(path)):
            self.faults += _store_faults(store, self.folder)
        self._strangers()
        return Validation(tuple(self.faults), tuple(self.notes))

    def _check(self, name: str, check: Callable[[str], None]) -> None:
        if not (self.folder / name).is_file():
            return
        try:
            check(name)
        except _BrokenError as error:
            self._fault(name, str(error))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            self._fault(name, f"cannot be read: {error}")

    def _fault(self, name: str, problem: str) -> None:
        self.faults.append(Fault(name, problem))

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.folder / name).read_bytes())
        except (ValueError, RecursionError) as error:
            raise _BrokenError(f"is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise _BrokenError("holds no JSON object")
        return value

    def _rows(self, name: str) -> tuple[list[str], list[list[str]]]:
        with open(self.folder / name, newline="", encoding="utf-8") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise _BrokenError(f"line {number} has {len(row)} fields, the header {len(header)}")
        return header, rows

    def _metadata(self, name: str) -> None:
        self.metadata = self._json(name)
        status = self.metadata.get("status")
        if status != "finished":
            self._fault(name, f"the run is {status!r}, not 'finished'")
        times: dict[str, datetime] = {}
        for key in ("started", "ended"):
            try:
                times[key] = datetime.fromisoformat(self.metadata[key])
                if times[key].tzinfo is None:
                    self._fault(name, f"{key!r} has no time zone: {self.metadata[key]}")
                    del times[key]
            except (KeyError, TypeError, ValueError):
                if key == "started" or status == "finished":
                    self._fault(name, f"{key!r} is no ISO 8601 time: {self.metadata.get(key)!r}")
        if len(times) == 2 and times["ended"] < times["started"]:
            self._fault(name, "the run ended before it started")
        for key in ("versions", "params"):
            if not isinstance(self.metadata.get(key), dict):
                self._fault(name, f"{key!r} is missing")
        classes = self.metadata.get("classes")
        self.classes = [str(item) for item in classes] if isinstance(classes, list) else []
        for listed in self.metadata.get("artifacts") or []:
            if not (self.folder / str(listed)).is_file() and listed not in REQUIRED:
                self._fault(str(listed), "is listed in metadata.json and missing")

    def _epochs(self, name: str) -> None:
        header, rows = self._rows(name)
        if not header or header[0] != "epoch":
            raise _BrokenError("has no header that begins with 'epoch'")
        for number, row in enumerate(rows, start=2):
            try:
                values = dict(zip(header, map(float, row), strict=True))
            except ValueError as error:
                raise _BrokenError(f"line {number}: {error}") from error
            if self.epochs and values["epoch"] <= self.epochs[-1]["epoch"]:
                self._fault(name, f"line {number}: epoch {row[0]} does not come after epoch {rows[number - 3][0]}")
            self.epochs.append(values)
        told = self.metadata.get("epochs")
        if self.metadata and told != len(rows) and self.metadata.get("status") == "finished":
            self._fault(name, f"has {len(rows)} epochs; metadata.json says {told}")
        self._best(name)

    def _best(self, name: str) -> None:
        monitor = self.metadata.get("monitor")
        if not isinstance(monitor, dict) or not self.epochs:
            return
        metric, best = monitor.get("metric"), monitor.get("best_epoch")
        if metric not in self.epochs[0]:
            self._fault(name, f"has no column {metric!r}, which metadata.json says decides the best epoch")
            return
        numbers = [row for row in self.epochs if not math.isnan(row[metric])]
        if not numbers:
            return
        found = (min if monitor.get("mode") == "min" else max)(numbers, key=lambda row: row[metric])
        if found["epoch"] != best:
            self._fault(name, f"epoch {found['epoch']:g} has the best {metric}; metadata.json says epoch {best}")

    def _predictions(self, name: str) -> None:
        header, rows = self._rows(name)
        classes = [column.removeprefix(artifacts.PROBABILITY_PREFIX) for column in header[3:]]
        if header != artifacts.prediction_header(classes):
            raise _BrokenError("its header is not id, label, prediction, probability_<class>, …")
        if self.classes and classes != self.classes:
            self._fault(name, "its classes are not those of metadata.json")
        self.classes = self.classes or classes
        seen: set[str] = set()
        for number, (sample, label, prediction, *texts) in enumerate(rows, start=2):
            if sample in seen:
                self._fault(name, f"line {number}: the id {sample!r} comes twice")
            seen.add(sample)
            if label not in classes or prediction not in classes:
                self._fault(name, f"line {number}: label {label!r} or prediction {prediction!r} is no class")
                continue
            self.label_counts[label] += 1
            self._probabilities(name, number, prediction, classes, texts)
        self.predictions = len(rows)
        told = self.metadata.get("predictions")
        if self.metadata and told != len(rows) and self.metadata.get("status") == "finished":
            self._fault(name, f"has {len(rows)} samples; metadata.json says {told}")

    def _probabilities(self, name: str, number: int, prediction: str, classes: list[str], texts: list[str]) -> None:
        try:
            values = [float(text) for text in texts]
        except ValueError as error:
            self._fault(name, f"line {number}: {error}")
            return
        if not all(0 <= value <= 1 for value in values) or abs(sum(values) - 1) > PROBABILITY_TOLERANCE:
            self._fault(name, f"line {number}: the probabilities do not lie in [0, 1] or do not add up to 1")
        elif values[classes.index(prediction)] < max(values):
            self._fault(name, f"line {number}: the prediction {prediction!r} is not the most probable class")

    def _matrices(self, name: str) -> None:
        content = self._json(name)
        matrices = content.get("matrices")
        if not isinstance(matrices, dict) or not matrices:
            raise _BrokenError("has no 'matrices'")
        size = len(content.get("classes") or [])
        for title, matrix in matrices.items():
            square = isinstance(matrix, list) and len(matrix) == size
            if not (square and all(isinstance(row, list) and len(row) == size for row in matrix)):
                self._fault(name, f"{title!r} is not of shape ({size}, {size})")
            elif not all(type(count) is int and count >= 0 for row in matrix for count in row):
                self._fault(name, f"{title!r} holds something that is no count")
        totals = {title: [sum(row) for row in matrix] for title, matrix in matrices.items() if not self.faults}
        expected = [self.label_counts[label] for label in self.classes]
        if self.predictions and totals and expected not in totals.values():
            self._fault(name, f"no matrix counts the {self.predictions} samples of {artifacts.PREDICTIONS}")

    def _distributions(self, name: str) -> None:
        distributions = self._json(name).get("distributions")
        if not isinstance(distributions, dict) or not distributions:
            raise _BrokenError("has no 'distributions'")
        for split, counts in distributions.items():
            if not (isinstance(counts, dict) and all(type(n) is int and n >= 0 for n in counts.values())):
                self._fault(name, f"{split!r} does not map classes to counts")
            elif self.classes and list(counts) != self.classes:
                self._fault(name, f"{split!r} does not count the classes of metadata.json")

    def _picture(self, name: str) -> None:
        with open(self.folder / name, "rb") as stream:
            if stream.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
                raise _BrokenError("is no PNG")

    def _checkpoint(self) -> None:
        name = self.metadata.get("checkpoint")
        name = name if isinstance(name, str) else artifacts.CHECKPOINT
        found = sorted(p.name for p in self.folder.iterdir() if p.is_file() and p.suffix in CHECKPOINT_SUFFIXES)
        for other in found:
            if other != name:
                self._fault(other, f"is a second checkpoint beside {name}: a run keeps one, its best")
        if name not in found:
            self._fault(name, "is missing: the run has no checkpoint")
            return
        try:
            content = load_checkpoint(self.folder / name)
            weights_of(content, name)
        except TorchMissingError as error:
            self.notes.append(Fault(name, f"was not loaded: {error}"))
            return
        except (IntegrityError, NoWeightsError) as error:
            self._fault(name, str(error))
            return
        monitor = self.metadata.get("monitor")
        if isinstance(monitor, dict) and content.get("epoch") != monitor.get("best_epoch"):
            self._fault(name, f"is of epoch {content.get('epoch')}; the best epoch is {monitor.get('best_epoch')}")

    def _strangers(self) -> None:
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in PICKLE_SUFFIXES and path.is_file():
                self._fault(str(path.relative_to(self.folder)), "is a pickle: loading it would run whatever it says")
