"""What a run's configuration says: how large its model was, what it was started with, when, and how it ended."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import date, datetime, timezone
from typing import Any

from holdfast.inventory.run_files import leaves
from holdfast.inventory.run_metrics import number_of
from holdfast.inventory.run_record import Size, Status

# the first of a line that a configuration has decides
SIZE_KEYS: Mapping[str, tuple[str, ...]] = {
    "layers": (
        "num_layers", "n_layers", "layers", "num_hidden_layers", "n_layer", "num_encoder_layers", "encoder_layers",
        "depth", "num_blocks", "n_blocks", "hidden_layers",
    ),
    "width": (
        "hidden_size", "hidden_dim", "d_model", "n_embd", "model_dim", "hidden_units", "width", "dim", "embedding_dim",
        "embed_dim", "embedding_size", "units", "hidden_layers",
    ),
    "vocab_size": (
        "vocab_size", "vocabulary_size", "n_vocab", "num_tokens", "max_vocab_size", "max_vocab", "vocab",
        "max_features",
    ),
    "train_samples": (
        "train_samples", "num_train_samples", "n_train_samples", "train_size", "n_train", "num_train",
        "num_train_examples", "train_examples", "max_train_samples", "num_samples", "n_samples",
        "max_samples", "dataset_size", "samples",
    ),
    "epochs": ("epochs", "num_epochs", "max_epochs", "n_epochs", "num_train_epochs"),
    "steps": ("max_steps", "num_steps", "total_steps", "max_iters", "iterations"),
    "batch_size": ("batch_size", "train_batch_size", "per_device_train_batch_size", "bs"),
    "parameters": (
        "parameters", "num_parameters", "n_parameters", "total_parameters", "parameter_count", "num_params", "n_params",
        "total_params", "param_count", "trainable_params", "trainable_parameters",
    ),
}  # fmt: skip
TRAINING_KEYS = frozenset(
    {
        *SIZE_KEYS["train_samples"], *SIZE_KEYS["epochs"], *SIZE_KEYS["steps"], *SIZE_KEYS["batch_size"], "lr",
        "learning_rate", "optimizer", "seed", "random_state", "dropout", "weight_decay", "patience",
    }
)  # fmt: skip
STARTED_KEYS = (
    "started", "start_time", "started_at", "start", "training_started", "created", "created_at", "timestamp", "date",
    "datetime",
)  # fmt: skip
STATUS_KEYS = ("status", "state", "training_status", "run_status")
STATUS_WORDS: Mapping[str, Status] = {
    "finished": "finished", "completed": "finished", "complete": "finished", "done": "finished", "success": "finished",
    "succeeded": "finished", "successful": "finished", "ok": "finished",
    "failed": "failed", "failure": "failed", "error": "failed", "crashed": "failed",
    "interrupted": "incomplete", "incomplete": "incomplete", "aborted": "incomplete", "cancelled": "incomplete",
    "canceled": "incomplete", "killed": "incomplete", "stopped": "incomplete",
    "running": "running", "started": "running", "training": "running", "in_progress": "running",
}  # fmt: skip
ERROR_KEYS = ("error", "exception", "error_message")
EPOCHS_DONE_KEYS = ("epochs_trained", "epochs_completed", "trained_epochs", "last_epoch", "final_epoch", "epochs")
COUNT_MAX = 10**15

# what tells one repeat of a run from another, not one configuration from another
_IDENTITY = re.compile(
    r"(.*_)?(seed|random_state|name|id|path|dir|folder|file|output|log|logs|date|time|timestamp|created|started|version"
    r"|host|hostname|device|tag|tags|notes?|description|comment|commit|revision|git_revision)(_at|_dir|_path|_name|_id)?"
)
_ERROR_LINE = re.compile(
    r"Traceback \(most recent call last\)|\bbus error\b|segmentation fault|core dumped|out of memory|OutOfMemory"
    r"|^\s*[\w.]*(Error|Exception)\b\s*:|^\s*(Killed|Aborted)\b|\bSIG(BUS|SEGV|KILL|ABRT)\b|loss (is|became) nan",
    re.IGNORECASE,
)
LAST_LINES = 20


def size_of(documents: Iterable[Any]) -> Size:
    """How large model and training were; of several documents the earlier decides, of keys the first in line."""
    found: dict[str, tuple[int, int, int]] = {}
    for number, tree in enumerate(documents):
        for keys, value in leaves(tree):
            key = _key(keys)
            for what, names in SIZE_KEYS.items():
                if key in names and (count := _count(what, value)) is not None:
                    rank = (names.index(key), number, count)
                    if what not in found or rank[:2] < found[what][:2]:
                        found[what] = rank
    return Size(**{field.name: found[field.name][2] for field in fields(Size) if field.name in found})


def is_training_config(tree: Any) -> bool:
    """Whether a document says how something was trained, and not just what shape a model has."""
    return any(_key(keys) in TRAINING_KEYS for keys, _ in leaves(tree))


def config_of(documents: Iterable[Any]) -> dict[str, str]:
    """The settings, key to value as text, without what differs from one repeat to the next."""
    settings = {}
    for tree in documents:
        for keys, value in leaves(tree):
            if keys and not any(_IDENTITY.fullmatch(_key((key,))) for key in keys):
                settings[".".join(keys)] = json.dumps(value, default=str, sort_keys=True)
    return settings


def switches_of(documents: Iterable[Any]) -> frozenset[str]:
    """The names of the switches that are on: true, or a string that says so."""
    return frozenset(
        _key(keys)
        for tree in documents
        for keys, value in leaves(tree)
        if keys and (value is True or (isinstance(value, str) and value.lower() in ("true", "yes", "on")))
    )


def started_of(tree: Any) -> datetime | None:
    """When the run started, as a document says; UTC where it names no zone."""
    moments: dict[str, datetime] = {}
    for keys, value in leaves(tree):
        if (key := _key(keys)) in STARTED_KEYS and (moment := _moment(value)) is not None:
            moments.setdefault(key, moment)
    return next((moments[key] for key in STARTED_KEYS if key in moments), None)


def status_of(tree: Any) -> tuple[Status, str] | None:
    """How the run ended, as a document says at its top level, with the error where it names one; else None."""
    if not isinstance(tree, dict):
        return None
    values = {_key((str(key),)): value for key, value in tree.items()}
    error = next((str(values[key]) for key in ERROR_KEYS if values.get(key) and isinstance(values[key], str)), "")
    for key in STATUS_KEYS:
        word = re.sub(r"[^a-z]+", "_", str(values.get(key, "")).lower()).strip("_")
        for part in (word, word.split("_")[0]):
            if part in STATUS_WORDS:
                return STATUS_WORDS[part], _line(error)
    return ("failed", _line(error)) if error else None


def epochs_done(tree: Any) -> int | None:
    """How many epochs were trained, as a document says at its top level."""
    if not isinstance(tree, dict):
        return None
    return next((n for key in EPOCHS_DONE_KEYS if (n := _count("epochs", tree.get(key))) is not None), None)


def error_in_log(text: str) -> str | None:
    """The line that says what ended the run, where one of the last `LAST_LINES` lines is an error; else None."""
    lines = [line.strip() for line in text.splitlines() if line.strip()][-LAST_LINES:]
    hits = [line for line in lines if _ERROR_LINE.search(line)]
    return _line(hits[-1]) if hits else None


def _key(keys: tuple[str, ...]) -> str:
    return re.sub(r"[^a-z0-9]+", "_", keys[-1].lower()).strip("_") if keys else ""


def _count(what: str, value: Any) -> int | None:
    if isinstance(value, list):
        numbers = [count for item in value if (count := _count(what, item)) is not None]
        if not numbers or len(numbers) != len(value):
            return None
        return len(numbers) if what == "layers" else max(numbers) if what == "width" else None
    pair = number_of(value)
    if pair is None or pair[1] or not math.isfinite(pair[0]) or not 1 <= pair[0] <= COUNT_MAX:
        return None
    # a train_size of 0.8 is a share; 3.0 epochs are three
    return int(pair[0]) if pair[0] == int(pair[0]) else None


def _moment(value: Any) -> datetime | None:
    moment: datetime | None = None
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)
    elif isinstance(value, str) and len(value) < 64:
        text = value.strip()
        try:
            moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        except ValueError:
            try:
                moment = datetime.strptime(text, "%Y%m%d_%H%M%S")
            except ValueError:
                return None
    elif isinstance(value, int | float) and not isinstance(value, bool) and 10**9 <= value < 2 * 10**9:
        moment = datetime.fromtimestamp(value, timezone.utc)
    if moment is None:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 100 else text[:99] + "…"
