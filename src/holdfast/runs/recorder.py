"""The recorder of a training run: one folder, standard formats, one best checkpoint."""

import csv
import math
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import numpy as np
import numpy.typing as npt

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError
from holdfast.repo.git import head_revision
from holdfast.runs import artifacts, plots
from holdfast.runs.artifacts import IntArray, RunDataError
from holdfast.runs.checkpoint import import_torch, save_checkpoint
from holdfast.runs.summary import summary_text

Clock = Callable[[], datetime]
Mode = Literal["min", "max"]

VERSIONED_PACKAGES = ("holdfast", "numpy", "torch", "scikit-learn")


class RunExistsError(HoldfastError):
    """The folder already holds a run, which is not overwritten unasked."""


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(timezone.utc)


def new_run_folder(base: Path | str, clock: Clock = utc_now) -> Path:
    """Make ``base/run_YYYYMMDD_HHMMSS`` (UTC), with ``_2``, ``_3``, … behind it where the second is taken.

    Raises:
        OSError: the folder cannot be made.
    """
    base = Path(base)
    base.mkdir(parents=True, exist_ok=True)
    stem, attempt = clock().strftime("run_%Y%m%d_%H%M%S"), 1
    while True:
        folder = base / (stem if attempt == 1 else f"{stem}_{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            attempt += 1
        else:
            return folder


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
        RunExistsError: on entering, the folder holds a run, and neither ``resume`` nor ``overwrite`` was given.
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
        if Path(checkpoint).name != checkpoint:
            raise RunDataError(f"the checkpoint's name is a plain file name, not {checkpoint!r}")
        self.folder = Path(folder)
        self.classes = [str(name) for name in classes]
        self.monitor = monitor
        self.mode: Mode = mode
        self.checkpoint = checkpoint
        self.params = dict(params or {})
        self.seed = seed
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
        self._epoch_stream: TextIO | None = None
        self._prediction_stream: TextIO | None = None

    def __enter__(self) -> "RunRecorder":
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._resume is not None:
            self._restore(self._resume)
        else:
            self._clear()
            self._started = self._now()
        self._write_metadata("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_streams()
        if error is None:
            self._finish()
        else:
            self._ended = self._now()
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._write_metadata(status, error=f"{type(error).__name__}: {error}")

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
            RunDataError: the epoch is not new, the names differ from the first epoch's, or the monitored metric is
                missing.
            OSError: it cannot be written.
        """
        row = {"epoch": float(epoch), **{name: float(value) for name, value in metrics.items()}}
        self._check_row(epoch, row)
        self._append_row(row)
        value, best = row[self.monitor], self.best_value
        if math.isnan(value) or (best is not None and not (value < best if self.mode == "min" else value > best)):
            return False
        self.best_epoch = epoch
        if model is not None:
            save_checkpoint(
                self.folder / self.checkpoint,
                {
                    "model_state_dict": _state(model),
                    "optimizer_state_dict": _state(optimizer),
                    "epoch": epoch,
                    "metrics": {name: value for name, value in row.items() if name != "epoch"},
                    "params": self.params,
                    **(extra or {}),
                },
            )
        return True

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
        table = np.asarray(probabilities)
        if table.ndim != 2 or table.shape[1] != len(self.classes):
            raise RunDataError(f"probabilities of shape {table.shape} do not fit {len(self.classes)} classes")
        predictions = table.argmax(axis=1)
        rows = artifacts.prediction_rows(ids, labels, predictions, table, self.classes)
        if self._prediction_stream is None:
            self._prediction_stream = open(self.folder / artifacts.PREDICTIONS, "w", newline="", encoding="utf-8")  # noqa: SIM115 - open across calls
            csv.writer(self._prediction_stream, lineterminator="\n").writerow(artifacts.prediction_header(self.classes))
        csv.writer(self._prediction_stream, lineterminator="\n").writerows(rows)
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
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "checkpoint": torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if data
            else torch.empty(0, dtype=torch.uint8),
            "started": self._started,
            "resumed": self._resumed,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._clear(even_a_run=True)
        self._started = state["started"]
        self._resumed = [*state["resumed"], self._now()]
        for row in state["epochs"]:
            self._append_row(dict(row))
        self.best_epoch = state["best_epoch"]
        data = state["checkpoint"].numpy().tobytes()
        if data:
            write_atomically(self.folder / self.checkpoint, data)

    def _clear(self, *, even_a_run: bool = False) -> None:
        held = [name for name in (*_NAMES, self.checkpoint) if (self.folder / name).exists()]
        # metadata alone is what DVC leaves behind of an earlier run when it takes the outs away
        if set(held) - {artifacts.METADATA} and not (self._overwrite or even_a_run):
            raise RunExistsError(
                f"{self.folder} already holds a run ({held[0]})",
                hint="Choose another folder, pass resume=, or pass overwrite=True to replace it",
            )
        for name in held:
            (self.folder / name).unlink()

    def _check_row(self, epoch: int, row: Mapping[str, float]) -> None:
        if self.monitor not in row:
            raise RunDataError(f"epoch {epoch} has no {self.monitor!r}, the monitored metric; it has {', '.join(row)}")
        if self.epochs and row.keys() != self.epochs[0].keys():
            raise RunDataError(
                f"epoch {epoch} has the metrics {', '.join(row)}; the first had {', '.join(self.epochs[0])}"
            )
        if self.epochs and epoch <= self.epochs[-1]["epoch"]:
            raise RunDataError(f"epoch {epoch} does not come after epoch {self.epochs[-1]['epoch']:g}")

    def _append_row(self, row: dict[str, float]) -> None:
        if self._epoch_stream is None:
            self._epoch_stream = open(self.folder / artifacts.EPOCHS, "w", newline="", encoding="utf-8")  # noqa: SIM115 - open across calls
            csv.writer(self._epoch_stream, lineterminator="\n").writerow(row)
        texts = [str(int(row["epoch"])), *(repr(value) for name, value in row.items() if name != "epoch")]
        csv.writer(self._epoch_stream, lineterminator="\n").writerow(texts)
        self._epoch_stream.flush()
        self.epochs.append(row)

    def _finish(self) -> None:
        if self._matrices:
            artifacts.write_matrices(self.folder / artifacts.MATRICES, self._matrices, self.classes)
            name, matrix = next(iter(self._matrices.items()))
            plots.draw_matrix(self.folder / artifacts.MATRIX_PICTURE, matrix, self.classes, f"Confusion matrix: {name}")
        if self._distributions:
            artifacts.write_distributions(self.folder / artifacts.DISTRIBUTIONS, self._distributions, self.classes)
        if self.epochs:
            columns = {name: [row[name] for row in self.epochs] for name in self.epochs[0] if name != "epoch"}
            numbers = [int(row["epoch"]) for row in self.epochs]
            plots.draw_curves(self.folder / artifacts.CURVES, numbers, columns, self.best_epoch)
        text = summary_text(
            self.epochs, self.monitor, self.mode, self.best_epoch, self._matrices, self._distributions, self.classes
        )
        write_atomically(self.folder / artifacts.SUMMARY, text)
        self._ended = self._now()
        self._write_metadata("finished")

    def _write_metadata(self, status: str, error: str | None = None) -> None:
        names = (*_NAMES, self.checkpoint)
        artifacts.write_json(
            self.folder / artifacts.METADATA,
            {
                "schema": artifacts.SCHEMA,
                "status": status,
                **({"error": error} if error else {}),
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
        for stream in (self._epoch_stream, self._prediction_stream):
            if stream is not None:
                stream.close()

    def _now(self) -> str:
        return self._clock().isoformat(timespec="seconds")


_NAMES = (
    artifacts.EPOCHS,
    artifacts.PREDICTIONS,
    artifacts.MATRICES,
    artifacts.DISTRIBUTIONS,
    artifacts.CURVES,
    artifacts.MATRIX_PICTURE,
    artifacts.METADATA,
    artifacts.SUMMARY,
)


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
