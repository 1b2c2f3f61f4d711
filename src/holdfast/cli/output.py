"""One result, three forms: a table for the terminal, Markdown for a pull request, JSON for a program."""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from holdfast.atomic import write_atomically

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

Form = Literal["text", "md", "json"]
Callback = TypeVar("Callback", bound=Callable[..., Any])

COLUMN_GAP = 3  # characters that a table has between two columns
PATH_LEAST_CHARACTERS = 24  # a column narrower than this shows nothing of a path
# what a word that is a cell by itself means; the word says so without the colour, too
MEANINGS = {
    **dict.fromkeys(("pass", "passed", "ok", "better", "keep", "healthy", "✓"), "green"),
    **dict.fromkeys(("fail", "failed", "fault", "worse", "broken", "damaged", "✗"), "red"),
    **dict.fromkeys(("warning", "inconclusive", "impaired", "deprecated"), "yellow"),
}
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
        taken: list[str] = []
        for column in self.spare:
            if self._without(taken).width <= width:
                break
            taken.append(column)
        # a narrow column that went before a wide one may have room again
        for column in taken[-2::-1]:
            more = [other for other in taken if other != column]
            if self._without(more).width <= width:
                taken = more
        return self._without(taken) if taken else self

    def broken(self, width: int) -> "Table":
        """The table with the paths of its widest column broken, where that lets it fit into ``width`` characters."""
        over = self.width - width
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        place = widths.index(max(widths))
        room = widths[place] - over
        if over <= 0 or room < PATH_LEAST_CHARACTERS or self.columns[place] in self.right:
            return self
        rows = [[*row[:place], _break_paths(row[place], room), *row[place + 1 :]] for row in self.rows]
        return replace(self, rows=rows)

    def _without(self, columns: Sequence[str]) -> "Table":
        places = [place for place, column in enumerate(self.columns) if column not in columns]
        header, *rows = [[row[place] for place in places] for row in (self.columns, *self.rows)]
        spare = [column for column in self.spare if column not in columns]
        return replace(self, columns=header, rows=rows, spare=spare)


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
        text = json.dumps(finite(payload), indent=2, ensure_ascii=False, allow_nan=False)
        click.echo(text.encode("utf-8", "backslashreplace").decode())  # names of files need not be text
        return
    shown = [_shown(block) for block in blocks]
    if form == "md":
        click.echo("\n\n".join(_markdown(block) if isinstance(block, Table) else block for block in shown))
    else:
        _print_text(shown)


def write_or_print(text: str, output: Path | None) -> None:
    """Write the text to the file and say so, or print it where there is none."""
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomically(output, text)
        click.echo(f"Wrote {output}.")


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


def finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
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
            console.print(_rich(fitted.broken(console.width) if isinstance(fitted, Table) else fitted))
            if isinstance(block, Table) and isinstance(fitted, Table) and block.columns != fitted.columns:
                left_out = [column for column in block.columns if column not in fitted.columns]
                console.print(f"Left out for want of width: {', '.join(left_out)}.\n", style="dim")
        return
    # what is piped is read by a program or kept in a file: no wrapping to the width of a terminal that is not there
    forced = is_colour_forced()
    lines: list[str] = []
    for block in blocks:
        lines += _plain(block, coloured=forced) if isinstance(block, Table) else block.split("\n")
    click.echo("\n".join(line.rstrip() for line in lines), color=forced or None)


def is_colour_forced() -> bool:
    """Whether what goes to no terminal is to be coloured all the same, as logs of CI show it."""
    return bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")


def warn(text: str) -> None:
    """Tell people something beside the result, on standard error."""
    name = "holdfast:" if os.environ.get("NO_COLOR") else click.style("holdfast:", fg="yellow")
    click.echo(f"{name} {text}", err=True)


def _plain(table: Table, coloured: bool = False) -> list[str]:
    """The lines of a table as a terminal of any width would have them, without rich's console, which takes 40 ms."""
    from rich.cells import cell_len, set_cell_size  # imported here: see above

    rows = [[cell.split("\n") for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(cell_len(line) for cell in column for line in cell) for column in zip(*rows, strict=True)]
    gap = " " * COLUMN_GAP

    def lay(row: Sequence[Sequence[str]]) -> Iterator[str]:
        for parts in zip_longest(*row, fillvalue=""):
            cells = [
                " " * (width - cell_len(part.rstrip())) + part.rstrip()
                if column in table.right
                else set_cell_size(part, width)
                for column, part, width in zip(table.columns, parts, widths, strict=True)
            ]
            yield " " + gap.join(map(_styled, cells) if coloured else cells)

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
        table.add_row(*(_coloured(Text(cell)) for cell in row))
    return table


def _coloured(cell: "Text") -> "Text":
    """The cell in the colour of what it says, or with its mark in it."""
    if colour := MEANINGS.get(cell.plain):
        cell.stylize(colour)
    elif cell.plain.endswith((" ✓", " ✗")):
        cell.stylize(MEANINGS[cell.plain[-1]], len(cell.plain) - 1)
    return cell


def _styled(cell: str) -> str:
    """The same for what is no terminal's."""
    said = cell.strip()
    if colour := MEANINGS.get(said):
        return cell.replace(said, click.style(said, fg=colour))
    if said.endswith((" ✓", " ✗")):
        return cell.replace(said[-1], click.style(said[-1], fg=MEANINGS[said[-1]]))
    return cell


def _break_paths(cell: str, width: int) -> str:
    """The cell with its paths on as many lines as it takes, broken after slashes where there are any."""
    lines: list[str] = []
    for line in cell.split("\n"):
        if len(line) <= width or " " in line:  # words are folded at their spaces
            lines.append(line)
            continue
        lines.append("")
        for part in re.split("(?<=/)", line):
            if lines[-1] and len(lines[-1]) + len(part) > width:
                lines.append("")
            lines[-1] += part
            while len(lines[-1]) > width:
                lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(lines)
