"""One result, three forms: a table for the terminal, Markdown for a pull request, JSON for a program."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

Form = Literal["text", "md", "json"]
Callback = TypeVar("Callback", bound=Callable[..., Any])

COLUMN_GAP = 3  # characters that a table has between two columns
SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


@dataclass(frozen=True)
class Table:
    """Rows of strings under a title.

    Attributes:
        columns: the header.
        rows: as many cells each.
        title: above the table.
        right: the columns that hold numbers.
        spare: the columns that a narrow terminal can do without, the first to go first.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    right: frozenset[str] = field(default_factory=frozenset)
    spare: Sequence[str] = ()

    @property
    def width(self) -> int:
        """Characters of a line that nothing is folded in."""
        return sum(max(map(len, cells)) + COLUMN_GAP for cells in zip(self.columns, *self.rows, strict=True))

    def fitted(self, width: int) -> "Table":
        """The table without as many of its spare columns as it takes to fit into ``width`` characters."""
        if self.width <= width or not self.spare:
            return self
        place = list(self.columns).index(self.spare[0])
        columns, *rows = [[*row[:place], *row[place + 1 :]] for row in (self.columns, *self.rows)]
        return replace(self, columns=columns, rows=rows, spare=self.spare[1:]).fitted(width)


def form_options(function: Callback) -> Callback:
    """Add ``--json`` and ``--md``, which reach the command as ``form``."""
    for form, text in (("md", "Print Markdown."), ("json", "Print JSON.")):
        function = click.option(
            f"--{form}", "form", flag_value=form, default="text" if form == "md" else None, help=text
        )(function)
    return function


def emit(form: Form, payload: dict[str, Any], blocks: Sequence[str | Table]) -> None:
    """Print ``payload`` as JSON, or ``blocks`` (lines and tables, top to bottom) as text or Markdown."""
    if form == "json":
        text = json.dumps(_finite(payload), indent=2, ensure_ascii=False, allow_nan=False)
        click.echo(text.encode("utf-8", "backslashreplace").decode())  # names of files need not be text
        return
    shown = [_shown(block) for block in blocks]
    if form == "md":
        click.echo("\n\n".join(_markdown(block) if isinstance(block, Table) else block for block in shown))
    else:
        _print_text(shown)


def human_bytes(count: int) -> str:
    """``count`` bytes in decimal units with one decimal: ``351.5 MB``, ``20.1 kB``, ``17 B``."""
    size, unit = float(count), 0
    while abs(size) >= 999.95 and unit < len(SIZE_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {SIZE_UNITS[unit]}"


def human_age(days: float) -> str:
    """An age in the largest unit that leaves a whole number: ``3 h``, ``12 d``, ``2 y``."""
    for unit, length in (("y", 365.0), ("d", 1.0), ("h", 1 / 24)):
        if days >= length:
            return f"{int(days / length)} {unit}"
    return f"{max(0, int(days * 1440))} min"


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """``1 file``, ``2 files``; ``nouns`` where the plural is not the noun and an s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def one_line(text: str) -> str:
    """The text with its line ends written as escapes, for names in a cell."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _shown(block: str | Table) -> str | Table:
    """The block without what would steer a terminal or is no character: names of files and tensors may hold both."""
    if isinstance(block, str):
        return printable(block)
    return replace(block, rows=[[printable(cell) for cell in row] for row in block.rows])


def printable(text: str) -> str:
    """The text with what would steer a terminal, or is no character, as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = line(["--:" if column in table.right else "---" for column in table.columns])
    lines = [line(table.columns), rule, *(line(row) for row in table.rows)]
    return "\n".join([f"**{table.title}**", "", *lines] if table.title else lines)


def _print_text(blocks: Sequence[str | Table]) -> None:
    if sys.stdout is not None and sys.stdout.isatty():
        from rich.console import Console  # rich takes 40 ms to import, which nobody but a person need pay

        console = Console(highlight=False)
        for block in blocks:
            fitted = block.fitted(console.width) if isinstance(block, Table) else block
            console.print(_rich(fitted))
            if isinstance(block, Table) and isinstance(fitted, Table) and block.columns != fitted.columns:
                left_out = [column for column in block.columns if column not in fitted.columns]
                console.print(f"Left out for want of width: {', '.join(left_out)}.\n", style="dim")
        return
    # what is piped is read by a program or kept in a file: no wrapping to the width of a terminal that is not there
    lines = [line for block in blocks for line in (_plain(block) if isinstance(block, Table) else block.split("\n"))]
    click.echo("\n".join(line.rstrip() for line in lines))


def _plain(table: Table) -> list[str]:
    """The lines of a table as a terminal of any width would have them, without rich's console, which takes 40 ms."""
    from rich.cells import cell_len, set_cell_size  # imported here: see above

    rows = [[cell.split("\n") for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(cell_len(line) for cell in column for line in cell) for column in zip(*rows, strict=True)]
    gap = " " * COLUMN_GAP

    def lay(row: Sequence[Sequence[str]]) -> Iterator[str]:
        for parts in zip_longest(*row, fillvalue=""):
            cells = zip(table.columns, parts, widths, strict=True)
            yield " " + gap.join(
                " " * (width - cell_len(part.rstrip())) + part.rstrip()
                if column in table.right
                else set_cell_size(part, width)
                for column, part, width in cells
            )

    rule = " " + "─" * (sum(widths) + COLUMN_GAP * (len(widths) - 1))
    header, *body = ([*lay(row)] for row in rows)
    title = table.title.split("\n") if table.title else []
    return [*title, "", *header, rule, *(line for lines in body for line in lines), ""]


def _rich(block: str | Table) -> "Text | RichTable":
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    if isinstance(block, str):
        return Text(block)
    table = RichTable(
        box=box.SIMPLE_HEAD, title=block.title or None, title_justify="left", title_style="bold", pad_edge=False
    )
    for column in block.columns:
        right = column in block.right
        # a column that folds keeps room for its header, however wide the others are
        least = None if right else len(column)
        table.add_column(column, justify="right" if right else "left", no_wrap=right, overflow="fold", min_width=least)
    for row in block.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
