"""The table of runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from holdfast.inventory.run_classes import Classified, classify_runs
from holdfast.inventory.run_rules import find_rules
from holdfast.inventory.run_scan import scan_runs
from holdfast.inventory.scan_table import text_of


def find_runs(folder: Path, now: datetime) -> tuple[Classified, ...]:
    """The runs at and below a folder with their classes, in the order of their paths.

    Args:
        folder: absolute.
        now: for runs that say they are running; has a time zone.

    Raises:
        OSError: the folder cannot be read.
        ConfigError: ``holdfast.yaml`` says something of runs that Holdfast does not know.
    """
    rules = find_rules(folder)
    return classify_runs(scan_runs(folder, percent=frozenset(rules.percent)).runs, rules, now)


def run_rows(runs: Sequence[Classified], root: Path) -> Iterator[dict[str, Any]]:
    """A row for each run.

    Args:
        runs: below `root`.
        root: from which their paths are seen.
    """
    for found in runs:
        run = found.run
        yield {
            "path": text_of(run.path.relative_to(root).as_posix()),
            "class": found.kind,
            "why": text_of("; ".join(found.reasons)),
            "series": text_of(run.series),
            "form": run.form,
            "started": _utc(run.started),
            "status": run.status,
            "epochs": run.epochs,
            "files": len(run.files),
            "bytes": run.bytes,
            "weights_bytes": run.weight_bytes,
            "metric": None if found.metric is None else text_of(found.metric),
            "value": found.value,
            "final": _finite(run.final),
            "best": _finite(run.best),
        }


def _utc(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)
    return aware.astimezone(timezone.utc).isoformat()


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    return {text_of(name): float(value) for name, value in sorted(values.items()) if math.isfinite(value)}
