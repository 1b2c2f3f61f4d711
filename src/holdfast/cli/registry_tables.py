"""Tables for a pipe or a file, in the form of `holdfast.cli.output` and a hundred times as fast.

rich takes 40 ms to import and a second for a thousand rows; what is piped is neither coloured nor folded. So is what
is too long for a terminal to be looked at as a whole.
"""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import repeat, zip_longest
from typing import Any

import click

from holdfast.cli.output import COLUMN_GAP, Form, Table, emit, is_colour_forced, printable

MANY_ROWS = 500
# all but ASCII and what Holdfast itself writes, which take one column: of others rich knows how wide they are
_UNKNOWN_WIDTH = re.compile(r"[^\x00-\x7f–—…≤≥×↑↓→✓✗]")


def emit_quickly(form: Form, payload: dict[str, Any], blocks: Sequence[str | Table], *, unfolded: bool = False) -> None:
    """As `emit`, with the same characters.

    Args:
        form: what is printed.
        payload: as JSON.
        blocks: as text or Markdown.
        unfolded: what is wider than a terminal goes over its edge, instead of being folded into its columns.
    """
    width = terminal_width() if form == "text" else None
    rows = sum(len(block.rows) for block in blocks if isinstance(block, Table))
    if form != "text" or is_colour_forced() or (width is not None and rows <= MANY_ROWS and not unfolded):
        emit(form, payload, blocks)
        return
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Table):
            fitted = block if width is None or unfolded else block.fitted(width)
            lines += _table(fitted)
            if fitted is not block:
                left_out = [column for column in block.columns if column not in fitted.columns]
                lines += [f"Left out for want of width: {', '.join(left_out)}.", ""]
        else:
            for line in printable(block).split("\n"):
                lines += textwrap.wrap(line, width) if width is not None and line else [line]
    click.echo("\n".join(map(str.rstrip, lines)))


def terminal_width() -> int | None:
    """Characters of a line of the terminal; None where the output is not to one."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def text_width(text: str) -> int:
    """How many columns of a terminal a line takes."""
    if text.isascii() or not _UNKNOWN_WIDTH.search(text):
        return len(text)
    from rich.cells import cell_len  # characters of two columns or none are rare enough to pay for

    return cell_len(text)


def _table(table: Table) -> list[str]:
    lines = [table.title] if table.title else []
    columns = zip(*[table.columns, *_single_lines(table.rows)], strict=True)
    padded = [_padded(cells, right=cells[0] in table.right) for cells in columns]
    gap = " " * COLUMN_GAP
    header, *body = map(gap.join, zip(*padded, strict=True))
    width = sum(text_width(cells[0]) for cells in padded) + COLUMN_GAP * (len(padded) - 1)
    lines += ["", f" {header}", " " + "─" * width, *map(" ".__add__, body), ""]
    return lines


def _single_lines(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    """The rows without what would steer a terminal; a row with cells of several lines as several rows."""
    if "".join(map("".join, rows)).isprintable():
        return rows
    result: list[Sequence[str]] = []
    for row in rows:
        cells = [printable(cell).split("\n") for cell in row]
        result += zip_longest(*cells, fillvalue="")
    return result


def _padded(cells: Sequence[str], *, right: bool) -> list[str]:
    """Cells of equal width."""
    pad = str.rjust if right else str.ljust
    if not _UNKNOWN_WIDTH.search("".join(cells)):
        return list(map(pad, cells, repeat(max(map(len, cells)))))
    widths = [text_width(cell) for cell in cells]
    width = max(widths)
    return [pad(cell, len(cell) + width - own) for cell, own in zip(cells, widths, strict=True)]
