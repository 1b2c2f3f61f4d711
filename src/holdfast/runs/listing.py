"""The runs below a folder, from what their folders say."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.runs import artifacts


@dataclass(frozen=True)
class RunSummary:
    """One run folder.

    Attributes:
        path: the folder.
        status: ``finished``, ``failed``, ``interrupted``, ``running`` (or killed while it ran), or ``unknown``.
        epochs: rows in its epoch statistics.
        metric: the monitored metric's name, or None.
        best_epoch: the best epoch's number, or None.
        best_value: the monitored metric there, or None.
        started: ISO 8601, or None.
        size: bytes of all files in the folder.
    """

    path: Path
    status: str
    epochs: int
    metric: str | None
    best_epoch: int | None
    best_value: float | None
    started: str | None
    size: int


def find_runs(top: Path) -> Iterator[RunSummary]:
    """The run folders at and below ``top``, in the order of their paths.

    Links are not followed, and hidden folders not entered.

    Raises:
        OSError: ``top`` cannot be read.
    """
    for folder, folders, files in os.walk(top, onerror=_raise_at(top)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # an array store has a metadata.json too, but no status; a run killed in its first epoch has no epochs
        if artifacts.EPOCHS in files or (artifacts.METADATA in files and "status" in read_metadata(Path(folder))):
            yield summarise(Path(folder))


def summarise(folder: Path) -> RunSummary:
    """What one run folder says of itself; fields that cannot be read are None, never guessed."""
    metadata = read_metadata(folder)
    monitor = metadata.get("monitor")
    monitor = monitor if isinstance(monitor, dict) else {}
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return RunSummary(
        path=folder,
        status=str(metadata.get("status", "unknown")),
        epochs=_count_epochs(folder / artifacts.EPOCHS),
        metric=_if(str, monitor.get("metric")),
        best_epoch=_if(int, monitor.get("best_epoch")),
        best_value=_if((int, float), monitor.get("best_value")),
        started=_if(str, metadata.get("started")),
        size=size,
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """The folder's metadata; empty where there is none that can be read."""
    try:
        value = json.loads((folder / artifacts.METADATA).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _count_epochs(path: Path) -> int:
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as stream:
            return max(0, sum(1 for row in csv.reader(stream) if row) - 1)
    except (OSError, csv.Error):
        return 0


def _if(kinds: type | tuple[type, ...], value: Any) -> Any:
    return value if isinstance(value, kinds) and not isinstance(value, bool) else None


def _raise_at(top: Path) -> Any:
    def handle(error: OSError) -> None:
        if error.filename in (str(top), top):
            raise error

    return handle
