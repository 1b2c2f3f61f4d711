"""Tables for a pipe or a file, in the form of `holdfast.cli.output` and a hundred times as fast.

rich takes 40 ms to import and a second for a thousand rows; what is piped is neither coloured nor folded.
"""

import sys
from collections.abc import Sequence
from typing import Any

import click

from holdfast.cli.output import COLUMN_GAP, Form, Table, emit


def emit_quickly(form: Form, payload: dict[str, Any], blocks: Sequence[str | Table]) -> None:
    """As `emit`, with the same characters."""
    if form != "text" or (sys.stdout is not None and sys.stdout.isatty()):
        emit(form, payload, blocks)
        return
    lines: list[str] = []
    for block in blocks:
        lines += _table(block) if isinstance(block, Table) else _printable(block).split("\n")
    click.echo("\n".join(line.rstrip() for line in lines))


def _table(table: Table) -> list[str]:
    rows = [[_printable(cell).split("\n") for cell in row] for row in table.rows]
    header = [[column] for column in table.columns]
    widths = [
        max(_width(line) for row in (header, *rows) for line in row[place]) if rows else _width(column)
        for place, column in enumerate(table.columns)
    ]
    rights = [column in table.right for column in table.columns]
    gap = " " * COLUMN_GAP
    lines = [table.title] if table.title else []
    lines += ["", " " + gap.join(_cells([cell[0] for cell in header], widths, rights))]
    lines.append(" " + "─" * (sum(widths) + len(gap) * (len(widths) - 1)))
    for row in rows:
        height = max(len(cell) for cell in row)
        for line in range(height):
            cells = [cell[line] if line < len(cell) else "" for cell in row]
            lines.append(" " + gap.join(_cells(cells, widths, rights)))
    lines.append("")
    return lines


def _cells(cells: Sequence[str], widths: Sequence[int], rights: Sequence[bool]) -> list[str]:
    return [
        " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
        for cell, width, right in zip(cells, widths, rights, strict=True)
    ]


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # characters of two columns or none are rare enough to pay for

    return cell_len(text)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
