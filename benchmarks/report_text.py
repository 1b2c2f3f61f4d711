"""Markdown of the page on performance: paragraphs, tables, figures with their spread, verdicts."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LINE = 120
MB, GB = 10**6, 10**9


def paragraph(text: str) -> list[str]:
    """Lines as long as those of other pages."""
    return textwrap.wrap(text, LINE, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def goals_table(judged: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Goals as of `harness.judge`."""
    rows = [
        (what, goal["goal"], f"{shown(goal['measured'], '{:,.6g}')}: {verdict(goal)}") for what, goal in judged.items()
    ]
    yield from table(("", "goal", "measured"), rows)


def quantities_table(measured: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Quantities as of `harness.quantity`; a row for each, and one for each peer."""
    rows = []
    for what, one in measured.items():
        rows.append((what, f"{spread(one)} {one['unit']}", str(one["rounds"] or "–"), "–"))
        for name, peer in one.get("peers", {}).items():
            theirs = f"{spread(peer)} {one['unit']}"
            rows.append((f"against {name}", theirs, str(peer["rounds"]), spread(peer["ratio"])))
    yield from table(("", "median (range)", "rounds", "ours ÷ peer's"), rows)


def shown(figure: float | None, form: str = "{:.3f}") -> str:
    """A figure, or that there is none."""
    return "–" if figure is None else form.format(figure)


def spread(one: Mapping[str, Any]) -> str:
    """A median with its range, as far as that is known."""
    middle = plain(one["median"])
    if one["min"] == one["max"]:
        return middle
    if one["min"] is None:
        return f"{middle} (at most {plain(one['max'])})"
    return f"{middle} ({plain(one['min'])}–{plain(one['max'])})"


def plain(figure: float) -> str:
    """A figure with three digits that count, and never fewer than those before the point."""
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def verdict(goal: Mapping[str, Any]) -> str:
    """In words."""
    return {None: "not measured", True: "met", False: "not met"}[goal["met"]]
