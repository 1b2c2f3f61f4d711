"""One training run as its folder tells it, whichever tool wrote it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

Role = Literal[
    "model", "checkpoint", "shard", "state", "vocabulary", "info", "config", "metrics", "matrices", "history", "log",
    "predictions", "plot", "other",
]  # fmt: skip
Status = Literal["finished", "failed", "incomplete", "running", "unknown"]

# what an archived run drops
WEIGHT_ROLES: frozenset[Role] = frozenset({"model", "checkpoint", "shard", "state"})

SPLITS = ("test", "", "val")
HIGHER_IS_BETTER = frozenset(
    {
        "accuracy", "balanced_accuracy", "top1_accuracy", "top5_accuracy", "precision", "recall", "f1", "f1_macro",
        "f1_micro", "f1_weighted", "precision_macro", "precision_micro", "precision_weighted", "recall_macro",
        "recall_micro", "recall_weighted", "auc", "iou", "dice", "map", "r2", "mcc", "kappa", "bleu", "rouge1",
        "rouge2", "rougel", "exact_match", "specificity", "sensitivity",
    }
)  # fmt: skip
LOWER_IS_BETTER = frozenset(
    {
        "loss",
        "perplexity",
        "error",
        "mae",
        "mse",
        "rmse",
        "mape",
        "wer",
        "cer",
        "eer",
        "fid",
        "brier",
        "ece",
        "nll",
        "bpc",
    }
)
# of these a value above 1 can only be a percentage
SHARES = HIGHER_IS_BETTER - {"r2", "mcc", "kappa", "bleu", "rouge1", "rouge2", "rougel"}


@dataclass(frozen=True)
class RunFile:
    """A file of a run: its path within the run, with ``/``, what it is, and its bytes (0 for a link)."""

    path: str
    role: Role
    size: int


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class in [0, 1], and its number of samples; None where the run does not say."""

    name: str
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    support: int | None = None

    @property
    def collapsed(self) -> bool:
        """Whether nothing of the class was found, or nothing said of it was right, though it has samples.

        A class without known support counts as having samples: a report lists the classes that occur.
        """
        scores = [score for score in (self.precision, self.recall) if score is not None]
        if not scores and self.f1 is not None:
            scores = [self.f1]
        return self.support != 0 and any(score == 0 for score in scores)


@dataclass(frozen=True)
class Size:
    """How large the model and its training were, as the run's configuration says; None where it does not."""

    layers: int | None = None
    width: int | None = None
    vocab_size: int | None = None
    train_samples: int | None = None
    epochs: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    parameters: int | None = None

    @property
    def architecture(self) -> str:
        """``3L-256D-10K`` as far as it is known, or an empty text."""
        parts = [
            f"{self.layers}L" if self.layers is not None else "",
            f"{self.width}D" if self.width is not None else "",
            short_count(self.vocab_size) if self.vocab_size is not None else "",
        ]
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class Monitor:
    """The metric that a run chose its checkpoint by, as it calls it, and the best epoch and value where it has one."""

    metric: str
    best_epoch: int | None = None
    best_value: float | None = None


@dataclass(frozen=True)
class Run:
    """One execution of training.

    Attributes:
        path: its folder, as it was reached.
        name: the folder's name, or more where that is a bare number.
        series: the name without time stamps, seeds, run numbers and hashes.
        group: the series with the folders that it lies in: what tells two series of one name apart.
        form: who wrote it: ``holdfast``, ``lightning``, ``huggingface``, ``dvclive``, ``keras`` or ``files``.
        started: from its metadata, else from its name, in UTC where no zone is given; else None.
        started_from: ``metadata``, ``name``, or an empty text.
        status: what the run says of itself, or its logs say; ``unknown`` where they say nothing.
        status_reason: what tells a failed or incomplete status, in words.
        epochs: how many were trained.
        final: the last or only value of each metric, under normalised names: ``accuracy``, ``val_loss``, ``f1_macro``.
        best: the best value of each metric over the epochs.
        best_epochs: the epoch of that value, for metrics that are known by their epochs alone.
        monitor: the metric that the run chose its checkpoint by, or None.
        classes: scores of each class.
        size: how large the model and its training were.
        config: what the run was started with, key to value as text, without seeds, names, paths and times; two runs
            with equal ones are repeats. Empty where unknown.
        switches: the configuration's switches that are on (``dry_run``).
        files: all files, in the order of their paths.
        notes: what could not be read, and why.
    """

    path: Path
    name: str
    series: str
    group: str
    form: str
    started: datetime | None
    started_from: str
    status: Status
    status_reason: str
    epochs: int
    final: Mapping[str, float]
    best: Mapping[str, float]
    best_epochs: Mapping[str, int]
    monitor: Monitor | None
    classes: tuple[ClassScore, ...]
    size: Size
    config: Mapping[str, str]
    switches: frozenset[str]
    files: tuple[RunFile, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)

    @property
    def weight_bytes(self) -> int:
        """Of the files that an archive drops: models, checkpoints, shards, optimizer states."""
        return sum(file.size for file in self.files if file.role in WEIGHT_ROLES)

    @property
    def has_weights(self) -> bool:
        """Whether it holds a model, or DVC's pointer to one."""
        return any(file.role in WEIGHT_ROLES - {"state"} for file in self.files)

    @property
    def has_metrics(self) -> bool:
        """Whether any metric is known."""
        return bool(self.final or self.best or self.classes)

    def value_of(self, metric: str) -> tuple[str, float] | None:
        """The metric's name and value that stand for the run, or None: test before unnamed before validation split.

        A value from a file of results comes before the best of the epochs; what is not finite is no value. A name with
        its split (``val_loss``) is taken as it is.
        """
        names = (
            [metric]
            if metric.startswith(("val_", "test_", "train_"))
            else [f"{s}_{metric}".lstrip("_") for s in SPLITS]
        )
        for name in names:
            for values in (self.final, self.best) if name not in self.best_epochs else (self.best,):
                if (value := values.get(name)) is not None and math.isfinite(value):
                    return name, value
        return None


def base_of(metric: str) -> str:
    """A metric's name without its split: ``val_loss`` → ``loss``."""
    for split in ("train_", "val_", "test_"):
        metric = metric.removeprefix(split)
    return metric


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of the metric is the better one."""
    base = base_of(metric)
    return base in LOWER_IS_BETTER or base.endswith(("_loss", "_error"))


def short_count(count: int) -> str:
    """``10K`` for 10,000, ``1.5M`` for 1,500,000; below a thousand the number itself."""
    for unit, size in (("M", 1_000_000), ("K", 1000)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
