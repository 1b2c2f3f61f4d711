"""Pictures for a pull request: the curves of both sides in one, and what is confused now that was not.

The same numbers give the same bytes with the same matplotlib, which is imported when a picture is drawn.
"""

import csv
import io
import math
import posixpath
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from holdfast.registry.gate_predictions import Predictions
from holdfast.repo.dvcfiles import UnreadableFileError
from holdfast.repo.gitfolder import UnreadableRefError
from holdfast.report.pull_predictions import confusion_of
from holdfast.report.pull_sides import Curve, NotCachedError, Side
from holdfast.runs.plots import new_figure, png_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES, CONFUSION = "curves.png", "confusion.png"
PANELS, PANELS_A_ROW = 8, 2
MOST_ROWS = 100_000
MOST_CLASSES = 40  # beyond, the cells are too small to be seen
ANNOTATED_CLASSES = 20
HEAD, BASE = "#2563eb", "#9ca3af"
STEPS = ("epoch", "step", "iteration", "batch")
SPLITS = ("train", "val", "validation", "eval", "test")
# what a run's recorder writes, plotted where dvc.yaml names no plots
RECORDED = "epoch_statistics.csv"
NAME_CHARACTERS = 40


@dataclass(frozen=True)
class Series:
    """A column of a table over another one: finite numbers, as many of each."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One metric of a table on both sides.

    Attributes:
        title: of the metric.
        x: name of the horizontal axis.
        lines: by split (``train``, ``val``; empty where there is one alone) the base's and the head's series; None
            where a side has none.
    """

    title: str
    x: str
    lines: Mapping[str, tuple[Series | None, Series | None]]


def panels_of(base: Side, head: Side) -> list[Panel]:
    """The curves of both sides that differ, from the tables that ``dvc.yaml`` plots; where it plots none, from what a
    run's recorder writes. Tables that are not here are left out.
    """
    declared = list(dict.fromkeys([*head.curves, *base.curves]))
    if not declared:
        paths = {path: None for side in (head, base) for path in side.outs if posixpath.basename(path) == RECORDED}
        declared = [Curve(path) for path in paths]
    tables: dict[str, tuple[dict[str, list[float]], dict[str, list[float]]]] = {}
    found: dict[tuple[str, str, str], dict[str, tuple[Series | None, Series | None]]] = {}
    for curve in declared:
        if curve.path not in tables:
            tables[curve.path] = _table(base, curve.path), _table(head, curve.path)
        sides = tables[curve.path]
        x = curve.x or next((name for table in sides for name in STEPS if name in table), "")
        for column in curve.columns or [name for name in dict.fromkeys([*sides[1], *sides[0]]) if name != x]:
            lines = _series(sides[0], x, column), _series(sides[1], x, column)
            if lines != (None, None):
                split, _, metric = column.partition("_")
                title, label = (metric, split) if metric and split in SPLITS else (column, "")
                found.setdefault((curve.path, x or "row", title), {})[label] = lines
    if all(ours == theirs for lines in found.values() for ours, theirs in lines.values()):
        return []
    return [Panel(title, x, lines) for (_, x, title), lines in found.items()]


def draw_curves(panels: Sequence[Panel]) -> bytes:
    """The panels as a PNG: the head side in colour, the base side grey; splits are told apart by their dashes.

    Raises:
        PlotLibraryMissingError: matplotlib is not installed.
    """
    shown = panels[:PANELS]
    across, down = min(PANELS_A_ROW, len(shown)), -(-len(shown) // PANELS_A_ROW)
    figure = new_figure(5.2 * across, 3.3 * down, extra="report")
    dashes = ("-", "--", ":", "-.")
    for number, panel in enumerate(shown, start=1):
        axes = figure.add_subplot(down, across, number)
        for place, (split, sides) in enumerate(panel.lines.items()):
            for side, series, colour in (("base", sides[0], BASE), ("head", sides[1], HEAD)):
                if series is not None:
                    axes.plot(
                        series.x,
                        series.y,
                        label=f"{side} {_name(split)}".strip(),
                        color=colour,
                        linestyle=dashes[place % len(dashes)],
                        linewidth=1.6,
                        marker="." if len(series.x) < 3 else "",
                    )
        axes.set_title(_name(panel.title).replace("_", " "))
        axes.set_xlabel(_name(panel.x))
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    if len(shown) < len(panels):
        figure.suptitle(f"{len(shown)} of {len(panels)} metrics")
    return _png(figure)


def draw_confusion(base: Predictions, head: Predictions) -> bytes | None:
    """Head's confusion matrix less base's as a PNG; None where there are more than `MOST_CLASSES`, or no difference.

    Raises:
        PlotLibraryMissingError: matplotlib is not installed.
    """
    ours, theirs = confusion_of(base), confusion_of(head)
    names = sorted({name for cell in (*ours, *theirs) for name in cell})
    if ours == theirs or len(names) > MOST_CLASSES:
        return None
    matrix = [[theirs[label, said] - ours[label, said] for said in names] for label in names]
    bound = max(abs(cell) for row in matrix for cell in row)
    # more on the diagonal is better, more beside it worse
    better = [[cell if r == c else -cell for c, cell in enumerate(cells)] for r, cells in enumerate(matrix)]
    side = min(9.0, 2.2 + 0.32 * len(names))
    figure = new_figure(side + 0.4, side, extra="report")
    axes = figure.add_subplot()
    axes.imshow(better, cmap="RdBu", vmin=-bound, vmax=bound)
    axes.set_title("Samples, head - base: blue better, red worse", fontsize=9)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    shown = [_name(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=45 if max(map(len, shown)) > 3 else 0)
    axes.set_yticks(range(len(names)), shown)
    if len(names) <= ANNOTATED_CLASSES:
        for row, cells in enumerate(matrix):
            for column, cell in enumerate(cells):
                if cell:
                    colour = "white" if abs(cell) > 0.6 * bound else "black"
                    axes.text(column, row, f"{cell:+d}", ha="center", va="center", color=colour, fontsize=8)
    return _png(figure)


def _table(side: Side, path: str) -> dict[str, list[float]]:
    """The columns of numbers of a table; empty where it is not here, which is noted, or is none."""
    try:
        data = side.content(path)
    except NotCachedError:
        return {}  # the list of what changed says so
    except (UnreadableFileError, UnreadableRefError, OSError) as error:
        side.fault(path, " ".join(str(error).split()))
        return {}
    text = (data or b"").decode("utf-8-sig", "replace")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.endswith(".tsv") else ",")
    try:
        header = next(rows, [])
        if len(set(header)) < len(header):
            side.fault(path, "two of its columns have the same name")
            return {}
        columns: dict[str, list[float]] = {name: [] for name in header}
        for number, row in enumerate(rows):
            if number >= MOST_ROWS:
                break
            for name, cell in zip(header, row, strict=False):
                columns[name].append(_float(cell))
    except csv.Error as error:
        side.fault(path, f"it is no CSV ({error})")
        return {}
    length = max(map(len, columns.values()), default=0)
    return {
        name: numbers
        for name, numbers in columns.items()
        if len(numbers) == length and any(map(math.isfinite, numbers))
    }


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _series(table: Mapping[str, list[float]], x: str, column: str) -> Series | None:
    if column not in table:
        return None
    across = table.get(x) or [float(number) for number in range(1, len(table[column]) + 1)]
    if any(b < a for a, b in pairwise(across)):
        return None  # no curve: it goes back
    points = [(a, b) for a, b in zip(across, table[column], strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return Series(xs, ys)


def _name(text: str) -> str:
    """A name of the user's as a picture can have it."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    # a label that begins with _ matplotlib hides
    shown = shown.lstrip("_") or shown.replace("_", " ")
    return shown if len(shown) <= NAME_CHARACTERS else shown[: NAME_CHARACTERS - 1] + "…"


def _png(figure: "Figure") -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a picture with too little room is better than none
        return png_of(figure, {"Software": None})
