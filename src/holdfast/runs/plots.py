"""Pictures of a run: learning curves and confusion matrices as PNG, drawn without a display.

Matplotlib is imported when a picture is drawn: it takes 0.4 s, and reading runs needs none of it. The same numbers give
the same bytes with the same matplotlib.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110
# a cell's number is readable up to about so many classes; beyond, the colours alone speak
ANNOTATED_CLASSES = 20
MAX_PANELS = 12  # of the curves: laying out a panel takes 0.1 s, and a hundred of them show nothing
PANELS_A_ROW = 4
BLUE, ORANGE, GREY = "#2563eb", "#ea7317", "#6b7280"
SPLITS = ("train", "val", "validation", "eval", "test")


class PlotLibraryMissingError(HoldfastError):
    """A picture is wanted and matplotlib is not installed."""


def draw_curves(path: Path, epochs: Sequence[int], columns: Mapping[str, Sequence[float]], best: int | None) -> None:
    """Draw metrics over the epochs; ``train_loss`` and ``val_loss`` share a panel called *loss*.

    Args:
        path: the PNG.
        epochs: the epochs' numbers.
        columns: for each metric, its value in each epoch; the panels of the first `MAX_PANELS` are drawn.
        best: the epoch to mark, if any.

    Raises:
        PlotLibraryMissingError: matplotlib is not installed.
    """
    panels: dict[str, list[tuple[str, str]]] = {}
    for column in columns:
        split, _, metric = column.partition("_")
        title, label = (metric, split) if metric and split in SPLITS else (column, column)
        panels.setdefault(title, []).append((label, column))
    shown = dict(list(panels.items())[:MAX_PANELS])
    across, down = min(PANELS_A_ROW, len(shown)), -(-len(shown) // PANELS_A_ROW)
    figure = new_figure(width=4.6 * across, height=3.4 * down)
    if len(shown) < len(panels):
        figure.suptitle(f"{len(shown)} of {len(panels)} metrics")
    for index, (title, lines) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(down, across, index)
        for (label, column), colour in zip(lines, _colours(len(lines)), strict=True):
            axes.plot(
                epochs, columns[column], label=label, color=colour, linewidth=1.6, marker="." if len(epochs) < 3 else ""
            )
        if best is not None:
            axes.axvline(best, color=GREY, linewidth=1, linestyle=":", label=f"best: epoch {best}")
        axes.set_title(title.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    write_atomically(path, png_of(figure))


def draw_matrix(path: Path, matrix: npt.ArrayLike, names: Sequence[str], title: str) -> None:
    """Draw a confusion matrix of shape (classes, classes): rows are labels, each row coloured by its shares.

    Raises:
        PlotLibraryMissingError: matplotlib is not installed.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(10.0, 2.6 + 0.38 * len(names))
    figure = new_figure(width=side + 0.8, height=side)
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the label", fraction=0.046, pad=0.04)
    axes.set_title(title)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    if len(names) <= 2 * ANNOTATED_CLASSES:
        axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names), default=0) > 3 else 0)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= ANNOTATED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    write_atomically(path, png_of(figure))


def new_figure(width: float, height: float, *, extra: str = "train") -> "Figure":
    """An empty figure, in inches.

    Args:
        width, height: inches of `DPI` pixels.
        extra: which of the package's extras brings matplotlib where it is missing.

    Raises:
        PlotLibraryMissingError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PlotLibraryMissingError(
            "matplotlib is not installed", hint=f"`pip install 'holdfast[{extra}]'` brings it"
        ) from error
    # a Figure of our own instead of pyplot: no global state, no window system, no warning about open figures
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _colours(count: int) -> list[Any]:
    if count <= 2:
        return [BLUE, ORANGE][:count]
    from matplotlib import colormaps

    return [colormaps["viridis"](value) for value in np.linspace(0, 0.9, count)]


def png_of(figure: "Figure", metadata: Mapping[str, str | None] | None = None) -> bytes:
    """A figure as PNG; ``metadata`` as matplotlib's ``savefig`` takes it."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    # names are text, not formulas, whatever dollars are in them; what the font lacks is drawn as a box
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    buffer = io.BytesIO()
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", metadata=metadata)
    return buffer.getvalue()
