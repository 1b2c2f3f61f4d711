"""The pictures of the page on performance: the same results give the same bytes."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from report_sections import all_series
from report_vault import COLUMNS, LIMIT, LINKS, METHODS, VERBS

PANELS = ("bf16", "full", "frozen", "weights")
OURS, THEIRS, OTHERS, BACK, INK, EDGE = "#1f6fb2", "#9aa5b1", "#d9a441", "#ffffff", "#1f2933", "#d64545"
TOOLS = {"rclone": ("rclone", OTHERS), "dvc": ("DVC", THEIRS), "holdfast": ("Holdfast", OURS)}
FEW_TICKS = 4
# told apart by more than their colour
LINES = (("#1f6fb2", "o"), ("#d64545", "s"), ("#3f8f5b", "^"), ("#d9a441", "D"), ("#7a55b0", "v"))
# no random names in SVG, and letters as text: as shapes they would take 120 KB
STYLE = {
    "svg.hashsalt": "holdfast",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "figure.facecolor": BACK,
    "axes.facecolor": BACK,
    "savefig.facecolor": BACK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw_all(found: Mapping[str, Mapping[str, Any]], images: Path, png: Path | None) -> None:
    """Write the pictures of what was measured.

    Args:
        found: results, by script.
        images: the folder of the SVG.
        png: a folder for the same as PNG, or none.
    """
    mpl.rcParams.update(STYLE)
    drawings: dict[str, tuple[str, Callable[[Mapping[str, Any]], Figure]]] = {
        "vault-ratio": ("vault_ratio", draw_ratios),
        "vault-transfer": ("vault_transfer", draw_transfers),
    }
    for name, (script, draw) in drawings.items():
        if script in found:
            save(draw(found[script]), images / f"{name}.svg", png)
    if "growth" in found:
        save(draw_growth(found), images / "growth.svg", png)


def save(figure: Figure, path: Path, png: Path | None) -> None:
    """Write a picture, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    if png is not None:
        figure.savefig(png / path.with_suffix(".png").name, dpi=150)


def draw_ratios(result: Mapping[str, Any]) -> Figure:
    """Bars of how many times smaller than raw, a panel for each history; the limit is a line."""
    names = [name for name in PANELS if name in result["histories"]]
    figure = Figure(figsize=(9, 3.1 * -(-len(names) // 2)), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(-(-len(names) // 2), 2, place)
        found = result["histories"][name]["ratios"]
        bars = [method for method in METHODS if method != LIMIT and found.get(method)][::-1]
        values = [found[method] for method in bars]
        ours = [method.startswith("vault") for method in bars]
        drawn = axes.barh(range(len(bars)), values, color=[OURS if own else THEIRS for own in ours])
        for text, own in zip(axes.bar_label(drawn, fmt="%.2f", padding=-25), ours, strict=True):
            text.set_color(BACK if own else INK)
        # all panels have the same bars
        axes.set_yticks(range(len(bars)), [METHODS[method] for method in bars] if place % 2 else [""] * len(bars))
        axes.axvline(found[LIMIT], color=EDGE, linestyle="--", linewidth=1)
        axes.annotate(
            f"limit {found[LIMIT]:.2f}", (found[LIMIT], 1), (0, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=EDGE, ha="center", fontsize=8,
        )  # fmt: skip
        axes.set_xlim(0, max(*values, found[LIMIT]) * 1.08)
        axes.set_title(COLUMNS[name], loc="left", fontweight="bold", pad=16)
        axes.set_xlabel("times smaller than raw")
        axes.tick_params(axis="y", length=0)
    return figure


def draw_transfers(result: Mapping[str, Any]) -> Figure:
    """Bars of seconds, a panel for each history and link."""
    histories = result["histories"]
    figure = Figure(figsize=(9, 2.7 * len(histories)), layout="constrained")
    for row, (name, figures) in enumerate(histories.items()):
        for column, (kind, title) in enumerate(LINKS.items()):
            axes = figure.add_subplot(len(histories), 2, row * 2 + column + 1)
            tools = [tool for tool in TOOLS if tool in figures[kind][VERBS[0]]["seconds"]]
            width = 0.8 / len(tools)
            for place, tool in enumerate(tools):
                verbs = [verb for verb in VERBS if tool in figures[kind][verb]["seconds"]]
                values = [figures[kind][verb]["seconds"][tool] for verb in verbs]
                ranges = [figures[kind][verb]["range"][tool] for verb in verbs]
                errors = [
                    [value - low for value, (low, _) in zip(values, ranges, strict=True)],
                    [high - value for value, (_, high) in zip(values, ranges, strict=True)],
                ]
                shift = (place - (len(tools) - 1) / 2) * width
                label, colour = TOOLS[tool]
                drawn = axes.bar(
                    [VERBS.index(verb) + shift for verb in verbs], values, width * 0.9, yerr=errors, color=colour,
                    ecolor=INK, capsize=2, label=label,
                )  # fmt: skip
                axes.bar_label(drawn, fmt="%.1f", padding=2)
            axes.set_xticks(range(len(VERBS)), VERBS)
            axes.tick_params(axis="x", length=0)
            axes.set_ylabel("seconds")
            axes.margins(y=0.15)
            axes.set_title(f"{COLUMNS[name]}, {title}", loc="left", fontweight="bold")
            if row == column == 0:
                axes.legend(frameon=False)
    return figure


def draw_growth(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Seconds over sizes, both as logarithms, a panel for each thing that grows; peers are dashed."""
    timed = [(what, series) for _, what, series in all_series(found) if series["points"][0]["unit"] == "s"]
    units = list(dict.fromkeys(series["by"] for _, series in timed))
    figure = Figure(figsize=(9, 3.4 * -(-len(units) // 2)), layout="constrained")
    for place, unit in enumerate(units, 1):
        axes = figure.add_subplot(-(-len(units) // 2), 2, place)
        own = [(what, series) for what, series in timed if series["by"] == unit]
        for number, (what, series) in enumerate(own):
            colour, marker = LINES[number % len(LINES)]
            points = series["points"]
            theirs = "dvc" in what
            axes.errorbar(
                [point["size"] for point in points],
                [point["median"] for point in points],
                yerr=[
                    [point["median"] - point["min"] for point in points],
                    [point["max"] - point["median"] for point in points],
                ],
                color=THEIRS if theirs else colour, marker=marker, markersize=4, capsize=2, linewidth=1.2,
                linestyle="--" if theirs else "-", label=what,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes = sorted({point["size"] for _, series in own for point in series["points"]})
        axes.set_xticks(sizes, [short(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(unit)
        axes.set_ylabel("seconds")
        low, high = axes.get_ylim()
        # all between two powers of ten have room where there are few of them
        digits = "123456789" if high / low < FEW_TICKS else "1235"
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            ticks(FuncFormatter(partial(labelled, digits)))
        axes.legend(frameon=False, fontsize=8)
        axes.grid(which="major", color=THEIRS, alpha=0.3, linewidth=0.5)
    return figure


def labelled(digits: str, seconds: float, _: int) -> str:
    """A figure at an axis, if it begins with one of some digits."""
    text = f"{seconds:g}"
    return text if text.lstrip("0.")[:1] in digits else ""


def short(size: int) -> str:
    """A size as it has room below an axis."""
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if size >= unit and size * 10 % unit == 0:
            return f"{size / unit:g}{letter}"
    return f"{size:,}"
