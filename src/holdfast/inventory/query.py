"""Ask an inventory in SQL: its tables and what is there more than once, as views of DuckDB over Parquet.

A query reads the shards that the inventory names and nothing else: no file, no network, no extension, no setting, no
environment. It sorts and groups what is larger than its memory on disk.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import UsageError
from holdfast.inventory.query_database import DamagedInventoryError, Database, Progress, untold
from holdfast.inventory.query_statement import Query
from holdfast.inventory.query_values import plain_form, type_name
from holdfast.inventory.query_views import VIEWS, duplicates_view, flat_view, quote_name, read_of, table_view
from holdfast.inventory.table_columns import INVENTORY_FILE, INVENTORY_FORMAT, TABLES, Column

MEMORY_BYTES = 2_000_000_000
FLAT_SUFFIX = ".parquet"
SHARD = re.compile(r"[a-z]+/[0-9a-f]{2}/[0-9A-Za-z_-]+\.parquet")
PATTERN = re.compile(r"[*?\[\]{}\\]")  # what DuckDB takes for a pattern in the name of a file


class NoInventoryError(UsageError):
    """There is no inventory at a place."""


@dataclass(frozen=True)
class View:
    """A view.

    Attributes:
        name: as a query writes it.
        rows: how many it has; None where that would have to be worked out.
        columns: by name.
    """

    name: str
    rows: int | None
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Answer:
    """What a query gives.

    Attributes:
        columns: names, all different, with their types in DuckDB's words.
        rows: a value of JSON's for each column; read from the database as they are taken.
        plan: whether they are how a query would be worked out, a text in the last column.
    """

    columns: Mapping[str, str]
    rows: Iterator[tuple[Any, ...]]
    plan: bool = False


class Inventory:
    """An inventory that can be asked; made by `open_inventory`.

    Attributes:
        path: where it is.
        root: what it is of; empty for a single file.
    """

    def __init__(self, database: Database, path: Path, root: str) -> None:
        self._database, self.path, self.root = database, path, root

    def views(self) -> list[View]:
        """What a query may ask for."""
        counts = {table: self._database.run(f"SELECT count(*) FROM {quote_name(table)}")[0][0] for table in TABLES}
        return [View(name, counts.get(name), columns) for name, columns in VIEWS.items()]

    def ask(self, sql: str, limit: int | None = None, progress: Progress = untold) -> Answer:
        """Run a query.

        Args:
            sql: one statement.
            limit: the rows that are wanted at most, of which there may be more.
            progress: told now and then how many hundredths are done until there is a first row.

        Raises:
            QueryError: the SQL is wrong, or no query.
            QueryMemoryError: it needs more memory than it may have.
            DamagedInventoryError: a shard cannot be read.
            KeyboardInterrupt: it was interrupted; nothing is left of it.
        """
        query = self._database.read(sql)
        if query.explain:
            plan = iter(self._database.run(query.select(), query, progress=progress))
            return Answer({"explain_key": "VARCHAR", "explain_value": "VARCHAR"}, plan, plan=True)
        columns = self._database.columns(query)
        names = [f"c{number}" for number in range(len(columns))]
        forms = [plain_form(name, kind) for name, kind in zip(names, columns.values(), strict=True)]
        what = ", ".join(form for form, _ in forms)
        after = f" AS answer({', '.join(names)})" + ("" if limit is None else f" LIMIT {limit}")
        kinds = {name: type_name(kind) for name, kind in columns.items()}
        rows = self._database.stream(query.select(what, after), query, what, progress)
        return Answer(kinds, _finished(rows, [finish for _, finish in forms]))

    def count(self, sql: str, progress: Progress = untold) -> int:
        """How many rows a query gives in all.

        Raises:
            HoldfastError: as of `ask`.
        """
        query = self._database.read(sql)
        ((rows,),) = self._database.run(query.select("count(*)"), query, "count(*)", progress)
        return int(rows)


@contextmanager
def open_inventory(path: Path, *, memory: int = MEMORY_BYTES, spill: Path) -> Iterator[Inventory]:
    """Open an inventory.

    Args:
        path: the folder, or the one flat table, that `holdfast scan --parquet` wrote.
        memory: bytes that a query may take.
        spill: a folder for what takes more; as of `Database`.

    Raises:
        NoInventoryError: there is none.
        DamagedInventoryError: it lacks a shard, or is of another format.
        OSError: it cannot be read.
    """
    flat = path.suffix == FLAT_SUFFIX and path.is_file()
    root, tables = ("", {}) if flat else _read_inventory(path)
    with _plain_place(path) as base:
        known = {f"{base}/{name}": os.fspath(path / name) for names in tables.values() for name in names}
        if flat:
            known = {base: os.fspath(path)}
        with Database(memory, spill, known) as database:
            for table in TABLES:
                if table == "files" and flat:
                    database.run(flat_view(base, _flat_columns(database, base, path)))
                    continue
                shards = [f"{base}/{name}" for name in tables.get(table, ())]
                if shards:
                    _check_columns(database, table, shards[0], known[shards[0]])
                database.run(table_view(table, shards))
            database.run(duplicates_view())
            database.shut()
            yield Inventory(database, path, root)


def _finished(
    rows: Iterator[tuple[Any, ...]], finishes: Sequence[Callable[[Any], Any] | None]
) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield tuple(
            value if finish is None or value is None else finish(value)
            for value, finish in zip(row, finishes, strict=True)
        )


def _read_inventory(path: Path) -> tuple[str, dict[str, list[str]]]:
    """What the inventory is of, and the names of each table's shards, all of which are there."""
    place = path / INVENTORY_FILE
    try:
        found = json.loads(place.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        hint = f"`holdfast scan … --parquet {path}` writes one"
        raise NoInventoryError(f"No inventory at {path}", hint=hint) from None
    except ValueError as error:
        raise DamagedInventoryError(os.fspath(place), "it is no JSON") from error
    if not isinstance(found, dict) or found.get("format") != INVENTORY_FORMAT:
        raise DamagedInventoryError(os.fspath(place), f"it is of another format than {INVENTORY_FORMAT!r}")
    tables = found.get("tables")
    if not isinstance(tables, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) and SHARD.fullmatch(name) for name in names)
        for names in tables.values()
    ):
        raise DamagedInventoryError(os.fspath(place), "its tables are no lists of shards")
    for names in tables.values():
        for name in names:
            if not (path / name).is_file():
                raise DamagedInventoryError(os.fspath(path / name), "the inventory names it, and it is not there")
    return str(found.get("root", "")), tables


def _check_columns(database: Database, table: str, shard: str, shown: str) -> None:
    """That a shard has the columns of its table; DuckDB compares the others with the first."""
    present = database.columns(Query(f"FROM {read_of([shard])}", "", ""))
    for name, column in TABLES[table].items():
        kind = type_name(present.get(name, "nothing"))
        if kind != column.type:
            raise DamagedInventoryError(shown, f"its column `{name}` is {kind}, not {column.type}")


def _flat_columns(database: Database, place: str, path: Path) -> list[str]:
    present = list(database.columns(Query(f"FROM {read_of([place])}", "", "")))
    if "path" not in present:
        raise DamagedInventoryError(os.fspath(path), "it has no column `path`")
    return present


@contextmanager
def _plain_place(path: Path) -> Iterator[str]:
    """A path of the inventory that is no pattern to DuckDB, which knows no other way to name a file."""
    place = os.fspath(path.resolve())
    if not PATTERN.search(place):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-query-") as folder:
        link = Path(folder) / f"inventory{path.suffix if path.is_file() else ''}"
        link.symlink_to(place)
        yield os.fspath(link)
