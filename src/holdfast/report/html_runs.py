"""Runs for the page: what each is, and its curves over the epochs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.inventory.run_classes import headline
from holdfast.inventory.run_files import UnreadableError, read_rows, read_tree
from holdfast.inventory.run_metrics import columns_of, numbers_of
from holdfast.inventory.run_record import Run, lower_is_better
from holdfast.inventory.run_verdicts import Sorting

POINTS_MAX = 160  # of one curve: more than a chart has pixels for
NUMBERS_MAX = 60_000  # of all curves
DIGITS = 5


def runs_json(sorting: Sorting) -> dict[str, Any]:
    """The runs below a folder as the page reads them; curves of those first that stay.

    Returns:
        ``runs``; ``metrics``, the names of all curves, the most frequent first, of equals those of validation;
        ``without``, how many runs have curves that are left out, since the page would become too large.
    """
    order = sorted(
        sorting.runs, key=lambda item: (item.verdict != "keep", item.verdict != "archive", str(item.run.path))
    )
    budget, without = NUMBERS_MAX, 0
    curves: dict[str, dict[str, Any]] = {}
    for item in order:
        found = curves_of(item.run)
        numbers = sum(len(points) for values in found.values() for points in values)
        if numbers > budget:
            without += 1
            continue
        budget -= numbers
        curves[str(item.run.path)] = found
    rows: list[dict[str, Any]] = []
    for item in sorting.runs:
        run = item.run
        best = headline(run, [metric for metric in run.final if not lower_is_better(metric)])
        rows.append(
            {
                "path": _place(run, sorting.scan.top),
                "series": run.series,
                "kind": item.kind,
                "verdict": item.verdict,
                "why": item.why,
                "status": run.status,
                "epochs": run.epochs,
                "metric": item.found.metric or (best[0] if best else None),
                "value": item.found.value if item.found.value is not None else (best[1] if best else None),
                "started": run.started.isoformat() if run.started is not None else "",
                "size": run.bytes,
                "curves": curves.get(str(run.path), {}),
            }
        )
    counts: dict[str, int] = {}
    for row in rows:
        for name in row["curves"]:
            counts[name] = counts.get(name, 0) + 1
    return {
        "runs": rows,
        "metrics": sorted(counts, key=lambda name: (-counts[name], not name.startswith("val_"), name)),
        "without": without,
    }


def curves_of(run: Run) -> dict[str, list[list[float]]]:
    """The run's metrics over its epochs, each as places and values; a long one is thinned out evenly, ends kept.

    A curve of a file with a column ``epoch`` stands at its epochs, others at 1, 2, …
    """
    curves: dict[str, list[list[float]]] = {}
    for file in run.files:
        if file.role != "history":
            continue
        try:
            columns, epochs = _columns(run.path / file.path)
        except UnreadableError:
            continue  # the inventory of runs says so
        for name, values in columns.items():
            if name in curves or len(values) < 2:
                continue
            places = epochs if len(epochs) == len(values) else [float(place + 1) for place in range(len(values))]
            pairs = [
                (place, value) for place, value in zip(places, values, strict=True) if math.isfinite(value + place)
            ]
            if len(pairs) > 1:
                kept = thin(pairs, POINTS_MAX)
                curves[name] = [[_rounded(place) for place, _ in kept], [_rounded(value) for _, value in kept]]
    return curves


def thin(items: Sequence[tuple[float, float]], limit: int) -> list[tuple[float, float]]:
    """At most ``limit`` of the items, evenly, with the first and the last."""
    if len(items) <= limit:
        return list(items)
    step = (len(items) - 1) / (limit - 1)
    return [items[round(place * step)] for place in range(limit)]


def _columns(path: Path) -> tuple[Mapping[str, list[float]], list[float]]:
    rows: Any = read_tree(path) if path.suffix == ".json" else read_rows(path)
    if isinstance(rows, dict):
        listed = next(
            (rows[key] for key in ("log_history", "history", "epochs") if isinstance(rows.get(key), list)), None
        )
        if listed is None:
            return numbers_of(rows).columns, []
        rows = listed
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return {}, []
    return columns_of(rows).columns, [number for row in rows if (number := _number(row.get("epoch"))) is not None]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _rounded(value: float) -> float:
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short == int(short) else short


def _place(run: Run, top: Path) -> str:
    place = run.path.relative_to(top).as_posix() if run.path.is_relative_to(top) else run.path.as_posix()
    return run.name if place == "." else place
