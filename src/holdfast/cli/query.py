"""``holdfast query``: an inventory in SQL."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.caches import cache_folder
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, finite, form_options, one_line, plural
from holdfast.cli.progress import bar
from holdfast.errors import UsageError
from holdfast.inventory.amounts import read_size
from holdfast.inventory.query import MEMORY_BYTES, Answer, Inventory, open_inventory
from holdfast.inventory.query_values import is_number

FORMAT, VIEWS_FORMAT = "holdfast query 1", "holdfast query views 1"
INVENTORY = "inventory"
SPILL = "queries"
ROWS_SHOWN = 40
FOLDED_COLUMNS = 6  # so many share a narrow terminal; of more, the last are left out
ROWS_AT_ONCE = 1000
DIGEST = re.compile(r"(\w+:[0-9a-f]{12})[0-9a-f]{20,}")
GROUPED_FROM = 10_000  # smaller numbers are years, ports and lines as often as amounts


def _memory(_context: click.Context, _option: click.Parameter, text: str) -> int:
    try:
        return read_size(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command(cls=Verb)
@click.argument("sql", required=False)
@click.option(
    "--inventory",
    "place",
    metavar="DIR",
    default=INVENTORY,
    show_default=True,
    type=click.Path(path_type=Path),
    shell_complete=completion_values.paths,
    help="What `holdfast scan --parquet` wrote: a folder, or FILE.parquet.",
)
@click.option(
    "--limit", metavar="ROWS", type=click.IntRange(min=1), help=f"Print so many rows; tables {ROWS_SHOWN}, others all."
)
@click.option("--all", "everything", is_flag=True, help="Print every row.")
@click.option(
    "--memory",
    metavar="SIZE",
    callback=_memory,
    default=f"{MEMORY_BYTES // 10**9}GB",
    show_default=True,
    help="Take so much; what does not fit is sorted and grouped on disk.",
)
@click.option("--csv", "form", flag_value="csv", help="Print rows as CSV.")
@form_options
def command(sql: str | None, place: Path, limit: int | None, everything: bool, memory: int, form: str) -> None:
    """Ask an inventory in SQL.

    SQL is one query of DuckDB's dialect over the views files, tensors, references, runs and duplicates; - reads it from
    standard input. Without SQL, list the views and their columns. A query reads the inventory and nothing else, and
    changes nothing. Without ORDER BY, rows come in any order.

    \b
    Examples:
      holdfast scan s3://models/checkpoints --parquet inventory
      holdfast query
      holdfast query "SELECT family, sum(bytes) FROM files GROUP BY family"
      holdfast query "FROM duplicates ORDER BY saved DESC" --limit 5
    """
    if everything and limit is not None:
        raise UsageError("--all and --limit contradict each other", hint="Give one of them")
    if sql == "-":
        sql = _standard_input()
    with open_inventory(place, memory=memory, spill=cache_folder(Path.cwd()).with_name(SPILL)) as inventory:
        if sql is None:
            _print_views(inventory, form)
        elif form in ("csv", "json"):
            _print_rows(inventory, sql, limit, form)
        else:
            shown: Form = "md" if form == "md" else "text"
            _print_table(inventory, sql, None if everything else limit or ROWS_SHOWN, shown)


def _standard_input() -> str:
    if sys.stdin.isatty():
        click.echo("Reading SQL from standard input; Ctrl-D ends it.", err=True)
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"Standard input is no text: {error}", hint="SQL is text in UTF-8") from error


def _print_views(inventory: Inventory, form: str) -> None:
    views = inventory.views()
    rows = [(view.name, name, column.type, column.meaning) for view in views for name, column in view.columns.items()]
    if form == "csv":
        click.echo(_csv([("view", "column", "type", "meaning"), *rows]), nl=False)
        return
    payload = {
        "format": VIEWS_FORMAT,
        "inventory": inventory.path.as_posix(),
        "views": [
            {
                "name": view.name,
                "rows": view.rows,
                "columns": [
                    {"name": name, "type": column.type, "meaning": column.meaning}
                    for name, column in view.columns.items()
                ],
            }
            for view in views
        ],
    }
    tables = [
        Table(
            ("column", "type", "meaning"),
            [(name, column.type, column.meaning) for name, column in view.columns.items()],
            title=view.name if view.rows is None else f"{view.name}: {plural(view.rows, 'row')}",
        )
        for view in views
    ]
    shown: Form = "json" if form == "json" else "md" if form == "md" else "text"
    emit(shown, payload, tables)


def _print_table(inventory: Inventory, sql: str, limit: int | None, form: Form) -> None:
    with _progress() as progress:
        answer = inventory.ask(sql, None if limit is None else limit + 1, progress)
        rows = list(answer.rows)
    if answer.plan:
        emit(form, {}, [f"```\n{row[-1]}\n```" if form == "md" else str(row[-1]).rstrip() for row in rows])
        return
    shown = rows if limit is None else rows[:limit]
    blocks: list[str | Table] = [_table(answer.columns, shown) if rows else "No rows."]
    if len(rows) > len(shown):
        with _progress() as progress:
            more = max(inventory.count(sql, progress) - len(shown), 1)
        blocks.append(f"… and {plural(more, 'more row')}; `--all` prints all.")
    emit(form, {}, blocks)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    with bar("Querying", "{}%".format) as update:
        yield lambda percent: update(percent, 0)


def _table(columns: Mapping[str, str], rows: Iterable[tuple[Any, ...]]) -> Table:
    names = tuple(columns)
    return Table(
        tuple(map(one_line, names)),
        [tuple(map(_cell, row)) for row in rows],
        right=frozenset(one_line(name) for name, kind in columns.items() if is_number(kind)),
        spare=tuple(map(one_line, names[:0:-1])) if len(names) > FOLDED_COLUMNS else (),
    )


def _print_rows(inventory: Inventory, sql: str, limit: int | None, form: str) -> None:
    """Print rows as they come: there may be more of them than fit into memory."""
    with _progress() as progress:
        answer = inventory.ask(sql, None if limit is None else limit + 1, progress)
    rows = answer.rows if limit is None else islice(answer.rows, limit)
    if form == "csv":
        for part in _parts(chain([tuple(answer.columns)], rows)):
            click.echo(_csv(part), nl=False)
        return
    columns = [{"name": name, "type": kind} for name, kind in answer.columns.items()]
    head = {"format": FORMAT, "inventory": inventory.path.as_posix(), "columns": columns}
    click.echo(json.dumps(head, indent=2, ensure_ascii=False)[:-2] + ',\n  "rows": [', nl=False)
    before = "\n"
    for part in _parts(rows):
        lines = (f"    {json.dumps(finite(_named(answer, row)), ensure_ascii=False, allow_nan=False)}" for row in part)
        click.echo(before + ",\n".join(lines), nl=False)
        before = ",\n"
    more = 0
    if limit is not None and next(answer.rows, None) is not None:
        more = max(inventory.count(sql) - limit, 1)
    end = "" if before == "\n" else "\n  "
    click.echo(f'{end}],\n  "more": {more}\n}}')


def _named(answer: Answer, row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(answer.columns, row, strict=True))


def _parts(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    rows = iter(rows)
    while part := list(islice(rows, ROWS_AT_ONCE)):
        yield part


def _csv(rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([map(_written, row) for row in rows])
    return text.getvalue()


def _written(value: Any) -> Any:
    """A value for a program: in full."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _cell(value: Any) -> str:
    """A value for people."""
    if value is None:
        return ""
    if isinstance(value, str):
        digest = DIGEST.fullmatch(value)
        return f"{digest[1]}…" if digest else one_line(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= GROUPED_FROM else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if GROUPED_FROM * 10 <= abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n".join(map(one_line, value))
    return one_line(json.dumps(value, ensure_ascii=False))
