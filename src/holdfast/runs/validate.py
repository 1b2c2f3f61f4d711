"""Does a run folder hold what it should, and does it agree with itself?

Every fault is found and named; nothing is changed, and nothing that the folder holds is executed.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.atomic import TEMPORARY_SUFFIX
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.runs import artifacts
from holdfast.runs.array_check import verify_store
from holdfast.runs.array_manifest import JOURNAL, MANIFEST
from holdfast.runs.checkpoint import NoWeightsError, TorchMissingError, load_checkpoint, weights_of
from holdfast.runs.fault import Fault

REQUIRED = artifacts.FILES
PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".dill"})
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"  # its last chunk, always the same (PNG specification, 11.2.5)
MAX_FIELD_CHARACTERS = 16 * 1024 * 1024
NPY_SIGNATURE = b"\x93NUMPY"
NPY_HEADER_BYTES = 4096
OBJECT_DTYPE = re.compile(rb"'descr': *'\|O")
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
        self.pairs: Counter[tuple[str, str]] = Counter()  # of label and prediction
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
        self._check(artifacts.SUMMARY, self._summary)
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
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            self._fault(name, f"is not in the form that it should be: {error}")
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
        before = csv.field_size_limit(MAX_FIELD_CHARACTERS)  # the process's own, which others rely on
        try:
            with open(self.folder / name, newline="", encoding="utf-8") as stream:
                header, *rows = list(csv.reader(stream)) or [[]]
        finally:
            csv.field_size_limit(before)
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise _BrokenError(f"line {number} has {len(row)} fields, the header {len(header)}")
        return header, rows

    def _metadata(self, name: str) -> None:
        self.metadata = self._json(name)
        if (schema := self.metadata.get("schema")) != artifacts.SCHEMA:
            self._fault(name, f"'schema' is {schema!r}; this version of Holdfast knows {artifacts.SCHEMA}")
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
        for key, kind in (
            ("versions", dict),
            ("params", dict),
            ("monitor", dict),
            ("classes", list),
            ("artifacts", list),
        ):
            if not isinstance(self.metadata.get(key), kind):
                self._fault(name, f"{key!r} is missing, or is no {'mapping' if kind is dict else 'list'}")
        for time in self.metadata.get("resumed", []):
            datetime.fromisoformat(time)
        classes = self.metadata.get("classes")
        self.classes = [str(item) for item in classes] if isinstance(classes, list) else []
        checkpoint = self.metadata.get("checkpoint")
        for listed in self._list("artifacts"):
            if not (self.folder / str(listed)).is_file() and listed not in (*REQUIRED, checkpoint):
                self._fault(str(listed), "is listed in metadata.json and missing")

    def _list(self, key: str) -> list[Any]:
        value = self.metadata.get(key)
        return value if isinstance(value, list) else []

    def _epochs(self, name: str) -> None:
        header, rows = self._rows(name)
        if not header or header[0] != "epoch":
            raise _BrokenError("has no header that begins with 'epoch'")
        for number, row in enumerate(rows, start=2):
            try:
                values = dict(zip(header, map(float, row), strict=True))
            except ValueError as error:
                raise _BrokenError(f"line {number}: {error}") from error
            if not values["epoch"].is_integer():
                raise _BrokenError(f"line {number}: the epoch {row[0]} is no whole number")
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
        metric, best = str(monitor.get("metric")), monitor.get("best_epoch")
        if metric not in self.epochs[0]:
            self._fault(name, f"has no column {metric!r}, which metadata.json says decides the best epoch")
            return
        numbers = [row for row in self.epochs if not math.isnan(row[metric])]
        if not numbers:
            return
        found = (min if monitor.get("mode") == "min" else max)(numbers, key=lambda row: row[metric])
        if found["epoch"] != best:
            self._fault(name, f"epoch {found['epoch']:g} has the best {metric}; metadata.json says epoch {best}")
        elif math.isfinite(found[metric]) and found[metric] != monitor.get("best_value"):
            told = monitor.get("best_value")
            self._fault(name, f"the best {metric} is {found[metric]!r}; metadata.json says {told!r}")

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
            self.pairs[label, prediction] += 1
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
        classes = [str(item) for item in content["classes"]]
        if self.classes and classes != self.classes:
            self._fault(name, "its classes are not those of metadata.json")
        size, whole = len(classes), []
        for title, matrix in matrices.items():
            square = isinstance(matrix, list) and len(matrix) == size
            if not (square and all(isinstance(row, list) and len(row) == size for row in matrix)):
                self._fault(name, f"{title!r} is not of shape ({size}, {size})")
            elif not all(type(count) is int and count >= 0 for row in matrix for count in row):
                self._fault(name, f"{title!r} holds something that is no count")
            else:
                whole.append(matrix)
        expected = [[self.pairs[label, prediction] for prediction in classes] for label in classes]
        if self.pairs and whole and expected not in whole:
            self._fault(name, f"no matrix counts the samples of {artifacts.PREDICTIONS} as they stand there")

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
            stream.seek(max(len(PNG_SIGNATURE), stream.seek(0, 2) - len(PNG_END)))
            if stream.read() != PNG_END:
                raise _BrokenError("is torn: it does not end as a PNG does")

    def _summary(self, name: str) -> None:
        if not (self.folder / name).read_text(encoding="utf-8").strip():
            raise _BrokenError("is empty")

    def _checkpoint(self) -> None:
        told = self.metadata.get("checkpoint")
        name = told if isinstance(told, str) and Path(told).name == told else artifacts.CHECKPOINT
        for path in sorted(self.folder.rglob("*")):
            place = str(path.relative_to(self.folder))
            if path.suffix.lower() in artifacts.CHECKPOINT_SUFFIXES and path.is_file() and place != name:
                self._fault(place, f"is a second checkpoint beside {name}: a run keeps one, its best")
        if not (self.folder / name).is_file():
            if any(not math.isnan(row.get(self._monitored(), math.nan)) for row in self.epochs) or not self.epochs:
                self._fault(name, "is missing: the run has no checkpoint")
            return
        try:
            content = load_checkpoint(self.folder / name)
            weights = weights_of(content, name)
        except TorchMissingError as error:
            self.notes.append(Fault(name, f"was not loaded: {error}"))
            return
        except (IntegrityError, NoWeightsError, OSError) as error:
            self._fault(name, str(error))
            return
        broken = [key for key, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if broken:
            self._fault(name, f"holds weights that are not finite: {', '.join(broken[:3])}")
        self._same_epoch(name, content)

    def _same_epoch(self, name: str, content: Mapping[str, Any]) -> None:
        monitor = self.metadata.get("monitor")
        if not isinstance(monitor, dict):
            return
        if content.get("epoch") != monitor.get("best_epoch"):
            self._fault(name, f"is of epoch {content.get('epoch')}; the best epoch is {monitor.get('best_epoch')}")
        row = next((row for row in self.epochs if row["epoch"] == content.get("epoch")), None)
        metrics = content.get("metrics")
        told = {key: value for key, value in (row or {}).items() if key != "epoch"}
        if (
            row is not None
            and isinstance(metrics, dict)
            and repr(sorted(metrics.items())) != repr(sorted(told.items()))
        ):
            self._fault(name, f"its metrics are not those of its epoch in {artifacts.EPOCHS}")

    def _monitored(self) -> str:
        monitor = self.metadata.get("monitor")
        return str(monitor.get("metric")) if isinstance(monitor, dict) else ""

    def _strangers(self) -> None:
        for path in sorted(self.folder.rglob("*")):
            place = str(path.relative_to(self.folder))
            if not path.is_file():
                continue
            if path.suffix.lower() in PICKLE_SUFFIXES:
                self._fault(place, "is a pickle: loading it would run whatever it says")
            elif path.suffix.lower() == ".npy" and _holds_objects(path):
                self._fault(place, "holds pickled objects: loading it would run whatever they say")
            elif path.name.startswith(".") and path.suffix == TEMPORARY_SUFFIX:
                self._fault(place, "was left by a writer that was killed: remove it")


def _holds_objects(path: Path) -> bool:
    with open(path, "rb") as stream:
        head = stream.read(NPY_HEADER_BYTES)
    return head.startswith(NPY_SIGNATURE) and OBJECT_DTYPE.search(head) is not None
