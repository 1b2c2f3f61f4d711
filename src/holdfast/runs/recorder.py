"""The recorder of a training run: one folder, standard formats, one best checkpoint."""

import json
import math
import operator
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import numpy as np
import numpy.typing as npt

from holdfast.atomic import write_atomically
from holdfast.repo.git import head_revision
from holdfast.runs import artifacts, plots
from holdfast.runs.artifacts import IntArray, RunDataError
from holdfast.runs.checkpoint import import_torch, loadable, save_checkpoint
from holdfast.runs.folders import Clock, FolderLock, clear_run, is_file_name, utc_now
from holdfast.runs.summary import summary_text

Mode = Literal["min", "max"]

_NAMES = artifacts.FILES
VERSIONED_PACKAGES = ("holdfast", "numpy", "torch", "scikit-learn")


class RunRecorder:
    """Records one run into one folder; a context manager.

    Every epoch is on disk when `log_epoch` returns, so that a killed run leaves what it had. The files and their forms
    are those of `holdfast.runs.artifacts`; ``metadata.json`` alone carries wall-clock times.

    Args:
        folder: the run's folder; made where it is missing.
        classes: the classes' names in the order of their indices, for predictions, matrices and distributions.
        monitor: the metric that decides which epoch is best.
        mode: ``min`` where lower is better, ``max`` where higher is. A NaN is never best.
        checkpoint: the name of the one checkpoint.
        params: what the run was started with; JSON values.
        seed: the run's seed.
        resume: what `state` gave, to go on with an interrupted run: its epochs and its checkpoint are written again.
        overwrite: replace a run that the folder already holds.
        clock: gives the present with its time zone; for tests.

    Raises:
        RunDataError: an argument does not fit: unknown mode, classes of one name, a checkpoint name that is taken or no
            file name, params that are no JSON.
        RunExistsError: on entering, the folder holds a run, and neither ``resume`` nor ``overwrite`` was given.
        LockedError: on entering, another recorder is at work in the folder.
        TorchMissingError: on entering with ``resume``, torch is not installed.
        OSError: on entering, the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        classes: Sequence[str] = (),
        monitor: str = "val_loss",
        mode: Mode = "min",
        checkpoint: str = artifacts.CHECKPOINT,
        params: Mapping[str, Any] | None = None,
        seed: int | None = None,
        resume: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        clock: Clock = utc_now,
    ) -> None:
        if mode not in ("min", "max"):
            raise RunDataError(f"mode is 'min' or 'max', not {mode!r}")
        if not is_file_name(checkpoint) or checkpoint in _NAMES:
            raise RunDataError(f"the checkpoint's name is a file name of its own, not {checkpoint!r}")
        if Path(checkpoint).suffix not in artifacts.CHECKPOINT_SUFFIXES:
            known = ", ".join(sorted(artifacts.CHECKPOINT_SUFFIXES))
            raise RunDataError(f"the checkpoint's name {checkpoint!r} should end in one of {known}")
        self.folder = Path(folder)
        self.classes = [str(name) for name in classes]
        if len(set(self.classes)) != len(self.classes):
            raise RunDataError(f"two classes have one name: {', '.join(self.classes)}")
        if odd := next((name for name in self.classes if not name.isprintable()), None):
            raise RunDataError(f"a class's name is one line of printable text, not {odd!r}")
        self.monitor = monitor
        self.mode: Mode = mode
        self.checkpoint = checkpoint
        self.params = _json_values("params", dict(params or {}))
        self.seed = None if seed is None else operator.index(seed)
        self.epochs: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self._clock = clock
        self._resume = resume
        self._overwrite = overwrite
        self._started = self._ended = ""
        self._resumed: list[str] = []
        self._matrices: dict[str, IntArray] = {}
        self._distributions: dict[str, IntArray] = {}
        self._predictions = 0
        self._warnings: list[str] = []
        self._lock: FolderLock | None = None
        self._epoch_stream: TextIO | None = None
        self._prediction_stream: TextIO | None = None

    def __enter__(self) -> "RunRecorder":
        if self._started:
            raise RunDataError("a recorder records one run: make another one")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FolderLock(self.folder)
        try:
            if self._resume is not None:
                self._restore(self._resume)
            else:
                clear_run(self.folder, self.checkpoint, overwrite=self._overwrite)
                self._started = self._now()
            self._write_metadata("running")
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close_streams()
            if error is None:
                self._finish()
        except BaseException as own:
            error = own
            raise
        finally:
            if error is not None:
                self._ended = self._now()
                stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
                text = f"{type(error).__name__}: {error}"
                self._write_metadata("interrupted" if stopped else "failed", error=text)
            self._let_go()

    @property
    def best_value(self) -> float | None:
        """The monitored metric in the best epoch, or None before the first."""
        for row in self.epochs:
            if row["epoch"] == self.best_epoch:
                return row[self.monitor]
        return None

    def log_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, Any],
        *,
        model: Any = None,
        optimizer: Any = None,
        extra: Mapping[str, Any] | None = None,
    ) -> bool:
        """Append one epoch to the CSV; where it is the best so far, replace the checkpoint.

        Args:
            epoch: its number, greater than the last one's.
            metrics: numbers (or tensors of one element), under the same names in every epoch; the monitored one is
                among them.
            model: a module or a state dict; without it no checkpoint is written.
            optimizer: an optimizer or its state dict.
            extra: more for the checkpoint: tensors, numbers, strings and containers of them.

        Returns:
            Whether this epoch is the best so far.

        Raises:
            RunDataError: the epoch is no whole number or not new, the names differ from the first epoch's, or the
                monitored metric is missing.
            UnloadableValueError: the checkpoint would hold what does not load without running code.
            TorchMissingError: there is a model, and torch is not installed.
            OSError: it cannot be written; the epoch may then stand in the CSV without being the best.
        """
        self._check_entered()
        row = self._row(epoch, metrics)
        value, best = row[self.monitor], self.best_value
        is_best = not math.isnan(value) and (best is None or (value < best if self.mode == "min" else value > best))
        content: Mapping[str, Any] = {}
        if is_best and model is not None:
            content = loadable(
                {
                    "model_state_dict": _state(model),
                    "optimizer_state_dict": _state(optimizer),
                    "epoch": int(row["epoch"]),
                    "metrics": {name: number for name, number in row.items() if name != "epoch"},
                    "params": self.params,
                    **(extra or {}),
                }
            )
        self._append_row(row)
        if content:
            save_checkpoint(self.folder / self.checkpoint, content)
        if is_best:
            self.best_epoch = int(row["epoch"])
        return is_best

    def log_predictions(
        self, ids: Sequence[str], labels: npt.ArrayLike, probabilities: npt.ArrayLike, *, matrix: str = "eval"
    ) -> None:
        """Append a batch of predictions, and count it into a confusion matrix.

        Args:
            ids: one name a sample.
            labels: class indices, shape (samples,).
            probabilities: shape (samples, classes); the prediction is the most probable class, the first of equals.
            matrix: the name of the confusion matrix that the batch belongs to.

        Raises:
            RunDataError: the shapes do not fit the classes.
            OSError: it cannot be written.
        """
        self._check_entered()
        try:
            table = np.asarray(probabilities)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RunDataError(f"the probabilities are no array: {error}") from error
        if not self.classes or table.ndim != 2 or table.shape[1] != len(self.classes):
            raise RunDataError(f"probabilities of shape {table.shape} do not fit {len(self.classes)} classes")
        predictions = table.argmax(axis=1)
        rows = artifacts.prediction_rows(ids, labels, predictions, table, self.classes)
        if self._prediction_stream is None:
            self._prediction_stream = open(self.folder / artifacts.PREDICTIONS, "w", newline="", encoding="utf-8")  # noqa: SIM115 - open across calls
            artifacts.csv_writer(self._prediction_stream).writerow(artifacts.prediction_header(self.classes))
        artifacts.csv_writer(self._prediction_stream).writerows(rows)
        self._prediction_stream.flush()
        self._predictions += len(rows)
        self.log_confusion_matrix(matrix, labels, predictions)

    def log_confusion_matrix(self, name: str, labels: npt.ArrayLike, predictions: npt.ArrayLike) -> None:
        """Count (label, prediction) pairs, class indices of shape (samples,), into the matrix of that name.

        Raises:
            RunDataError: the shapes differ, or an index is none of the classes'.
        """
        counts = artifacts.confusion_matrix(labels, predictions, len(self.classes))
        self._matrices[name] = self._matrices.get(name, 0) + counts

    def log_class_distribution(self, split: str, labels: npt.ArrayLike) -> None:
        """Count the samples of each class in a split, from class indices of shape (samples,).

        Raises:
            RunDataError: an index is none of the classes'.
        """
        counts = np.bincount(artifacts.class_indices(labels, len(self.classes)), minlength=len(self.classes))
        self._distributions[split] = self._distributions.get(split, 0) + counts.astype(np.int64)

    def state(self) -> dict[str, Any]:
        """What a `holdfast.runs.resume.ResumeFile` must keep so that a new recorder can go on; loads without pickle."""
        torch = import_torch()
        path = self.folder / self.checkpoint
        data = path.read_bytes() if path.exists() else b""
        return {
            "epochs": [dict(row) for row in self.epochs],
            "best_epoch": self.best_epoch,
            "matrices": {name: matrix.tolist() for name, matrix in self._matrices.items()},
            "distributions": {name: counts.tolist() for name, counts in self._distributions.items()},
            "checkpoint": torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if data
            else torch.empty(0, dtype=torch.uint8),
            "started": self._started,
            "resumed": list(self._resumed),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        clear_run(self.folder, self.checkpoint, overwrite=True)
        self._started = state["started"]
        self._resumed = [*state["resumed"], self._now()]
        for row in state["epochs"]:
            if self.monitor not in row:
                raise RunDataError(f"the interrupted run has no metric {self.monitor!r}; it has {', '.join(row)}")
            self._append_row(dict(row))
        self._matrices = {name: np.array(rows, np.int64) for name, rows in state.get("matrices", {}).items()}
        counts = state.get("distributions", {})
        self._distributions = {name: np.array(values, np.int64) for name, values in counts.items()}
        self.best_epoch = state["best_epoch"]
        data = state["checkpoint"].numpy().tobytes()
        if data:
            write_atomically(self.folder / self.checkpoint, data)

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _check_entered(self) -> None:
        if self._lock is None:
            raise RunDataError("the recorder is not open", hint="Use it in a with statement: `with RunRecorder(…)`")

    def _row(self, epoch: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        try:
            number = operator.index(epoch)
        except TypeError:
            raise RunDataError(f"an epoch is a whole number, not {epoch!r}") from None
        if "epoch" in metrics:
            raise RunDataError("no metric may be called 'epoch'")
        if self.monitor not in metrics:
            told = ", ".join(metrics) or "none"
            raise RunDataError(f"epoch {number} has no {self.monitor!r}, the monitored metric; it has {told}")
        try:
            values = {name: float(value) for name, value in metrics.items()}
        except (TypeError, ValueError, RuntimeError) as error:
            raise RunDataError(f"epoch {number}: a metric is no number: {error}") from error
        if not self.epochs:
            return {"epoch": float(number), **values}
        first = self.epochs[0]
        if values.keys() != first.keys() - {"epoch"}:
            raise RunDataError(f"epoch {number} has the metrics {', '.join(values)}; the first had {', '.join(first)}")
        if number <= self.epochs[-1]["epoch"]:
            raise RunDataError(f"epoch {number} does not come after epoch {self.epochs[-1]['epoch']:g}")
        return {"epoch": float(number), **{name: values[name] for name in first if name != "epoch"}}

    def _append_row(self, row: dict[str, float]) -> None:
        if self._epoch_stream is None:
            self._epoch_stream = open(self.folder / artifacts.EPOCHS, "w", newline="", encoding="utf-8")  # noqa: SIM115 - open across calls
            artifacts.csv_writer(self._epoch_stream).writerow(row)
        texts = [str(int(row["epoch"])), *(repr(value) for name, value in row.items() if name != "epoch")]
        artifacts.csv_writer(self._epoch_stream).writerow(texts)
        self._epoch_stream.flush()
        self.epochs.append(row)

    def _finish(self) -> None:
        if self._matrices:
            artifacts.write_matrices(self.folder / artifacts.MATRICES, self._matrices, self.classes)
        if self._distributions:
            artifacts.write_distributions(self.folder / artifacts.DISTRIBUTIONS, self._distributions, self.classes)
        text = summary_text(
            self.epochs, self.monitor, self.mode, self.best_epoch, self._matrices, self._distributions, self.classes
        )
        write_atomically(self.folder / artifacts.SUMMARY, text)
        self._draw()
        self._ended = self._now()
        self._write_metadata("finished")

    def _draw(self) -> None:
        """Draw the pictures; a run that cannot be drawn is a run still, so that a failure is a warning."""
        try:
            if self._matrices:
                name, matrix = next(iter(self._matrices.items()))
                title = f"Confusion matrix: {name}"
                plots.draw_matrix(self.folder / artifacts.MATRIX_PICTURE, matrix, self.classes, title)
            if self.epochs:
                names = [self.monitor, *(name for name in self.epochs[0] if name not in ("epoch", self.monitor))]
                columns = {name: [row[name] for row in self.epochs] for name in names}
                numbers = [int(row["epoch"]) for row in self.epochs]
                plots.draw_curves(self.folder / artifacts.CURVES, numbers, columns, self.best_epoch)
        except Exception as error:
            self._warnings.append(f"no picture could be drawn: {error}")
            warnings.warn(f"{self.folder}: {self._warnings[-1]}", stacklevel=4)

    def _write_metadata(self, status: str, error: str | None = None) -> None:
        names = (*_NAMES, self.checkpoint)
        artifacts.write_json(
            self.folder / artifacts.METADATA,
            {
                "schema": artifacts.SCHEMA,
                "status": status,
                **({"error": error} if error else {}),
                **({"warnings": self._warnings} if self._warnings else {}),
                "started": self._started,
                **({"resumed": self._resumed} if self._resumed else {}),
                **({"ended": self._ended} if self._ended else {}),
                "epochs": len(self.epochs),
                "predictions": self._predictions,
                "monitor": {
                    "metric": self.monitor,
                    "mode": self.mode,
                    "best_epoch": self.best_epoch,
                    "best_value": self.best_value if math.isfinite(self.best_value or 0) else None,
                },
                "checkpoint": self.checkpoint,
                "classes": self.classes,
                "seed": self.seed,
                "params": self.params,
                "git_revision": head_revision(self.folder),
                "versions": {"python": platform.python_version(), **_package_versions()},
                "platform": f"{sys.platform} {platform.machine()}",
                "artifacts": sorted(n for n in names if n != artifacts.METADATA and (self.folder / n).exists()),
            },
        )

    def _close_streams(self) -> None:
        try:
            if self._epoch_stream is not None:
                self._epoch_stream.close()
        finally:
            if self._prediction_stream is not None:
                self._prediction_stream.close()

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")


def _json_values(what: str, value: Any) -> Any:
    """The value as JSON gives it back, so that what is recorded is what can be read.

    Raises:
        RunDataError: JSON cannot carry it.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=_plain_number))
    except (TypeError, ValueError) as error:
        raise RunDataError(f"{what} should be what JSON can carry: {error}") from error


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__}")


def _state(source: Any) -> Any:
    return source.state_dict() if hasattr(source, "state_dict") else source


def _package_versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
