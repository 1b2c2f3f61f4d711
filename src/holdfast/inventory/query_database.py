"""The database that answers a query: DuckDB in memory, closed to all but some files, ended by Ctrl-C at once."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.inventory.query_statement import Query, read_query, said_by

if TYPE_CHECKING:
    import duckdb

SPILL_TIMES = 5  # so much of the memory a query may take on disk: one that is wrong would fill it
ROWS_AT_ONCE = 10_000
WATCH_SECONDS = 0.2
# a query may come from anywhere: what is in the database is all that it reaches
CLOSED = (
    ("python_enable_replacements", False),
    ("autoload_known_extensions", False),
    ("autoinstall_known_extensions", False),
    ("allow_community_extensions", False),
    ("allow_persistent_secrets", False),
)
Progress = Callable[[int], None]
Result = TypeVar("Result")


def untold(_percent: int) -> None:
    """Tell nobody."""


class DamagedInventoryError(IntegrityError):
    """An inventory lacks a shard, or has one that cannot be read."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what} is damaged: {why}", hint="`holdfast scan … --parquet` writes it anew once it is not there"
        )


class QueryMemoryError(HoldfastError):
    """A query needs more memory, or more room on disk, than it may have."""


class Database:
    """A database in memory that reads files which it is told of while it is open, and nothing at all else.

    Args:
        memory: bytes that a query may take, and five times as many on disk.
        spill: a folder for what takes more, made where a query needs it and removed in the end. Processes may share
            it: what one that was killed left behind is removed by the next.
        files: paths of Parquet files as the database has them, and as people do.
    """

    def __init__(self, memory: int, spill: Path, files: Mapping[str, str]) -> None:
        import duckdb  # imported here: 100 ms that only a query takes

        with suppress(OSError):  # a query that needs no room there needs no folder
            spill.parent.mkdir(parents=True, exist_ok=True)
        self._files = files
        self._connection = duckdb.connect(
            config={
                **dict(CLOSED),
                "errors_as_json": True,
                "memory_limit": f"{memory}B",
                "temp_directory": os.fspath(spill),
                "max_temp_directory_size": f"{SPILL_TIMES * memory}B",
                # without ORDER BY there is no order, and no memory to keep one
                "preserve_insertion_order": False,
            }
        )
        self._connection.execute("SET TimeZone = 'UTC'")  # days begin at the same time everywhere
        # it is counted how far a query is, and not printed by DuckDB, on standard output at that
        self._connection.execute("SET enable_progress_bar = true")
        self._connection.execute("SET enable_progress_bar_print = false")
        self._connection.execute("SET allowed_paths = ?", [list(files)])

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def shut(self) -> None:
        """From now on, only queries are answered, and no setting changes."""
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def read(self, sql: str) -> Query:
        """The query that a text is.

        Raises:
            QueryError: it is none.
        """
        return read_query(self._connection, sql)

    def columns(self, query: Query) -> dict[str, str]:
        """The columns that a query gives: names, all different, with their types.

        Raises:
            HoldfastError: as of `run`.
        """
        self.run(query.select(after=" LIMIT 0"), query)
        return {column[0]: str(column[1]) for column in self._connection.description or []}

    def run(
        self, statement: str, query: Query | None = None, what: str = "*", progress: Progress = untold
    ) -> list[tuple[Any, ...]]:
        """All rows of a statement.

        Args:
            statement: is run as it is.
            query: that it was made of, if it was.
            what: is selected from it.
            progress: told now and then how many hundredths are done.

        Raises:
            QueryError: the query is wrong.
            QueryMemoryError: it needs more memory than it may have.
            DamagedInventoryError: a file cannot be read.
            KeyboardInterrupt: it was interrupted, and has ended.
        """
        return self._call(lambda: self._connection.execute(statement).fetchall(), query, what, progress)

    def stream(self, statement: str, query: Query, what: str, progress: Progress = untold) -> Iterator[tuple[Any, ...]]:
        """The same, as the rows are taken; what has no first row yet is waited for here."""
        self._call(lambda: self._connection.execute(statement), query, what, progress)

        def rows() -> Iterator[tuple[Any, ...]]:
            while part := self._call(lambda: self._connection.fetchmany(ROWS_AT_ONCE), query, what):
                yield from part

        return rows()

    def _call(self, work: Callable[[], Result], query: Query | None, what: str, progress: Progress = untold) -> Result:
        import duckdb  # imported here: see above

        def watch() -> None:
            if (percent := self._connection.query_progress()) >= 0:
                progress(int(percent))

        try:
            return _aside(work, watch, self._connection.interrupt)
        except duckdb.Error as error:
            self._fail(error, query, what)

    def _fail(self, error: "duckdb.Error", query: Query | None, what: str) -> NoReturn:
        """Raise what an error of the database means to people."""
        import duckdb  # imported here: see above

        text = str(said_by(error)["exception_message"])
        if named := [known for known in self._files if known in text]:
            known = min(named, key=text.index)  # the one that is at fault, where it was compared with another
            why = text.replace(known, self._files[known]).splitlines()[0].rstrip(".")
            raise DamagedInventoryError(self._files[known], why) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            hint = "`--memory` gives it more of both; fewer columns or a LIMIT need less"
            raise QueryMemoryError(
                "The query needs more memory, or room on disk, than it may have", hint=hint
            ) from error
        if query is None or isinstance(error, (duckdb.IOException, duckdb.InternalError)):
            raise HoldfastError(" ".join(text.split()).rstrip(".")) from error
        raise query.error(error, what) from error


def _aside(work: Callable[[], Result], watch: Callable[[], None], interrupt: Callable[[], None]) -> Result:
    """Do something in a thread of its own, as DuckDB by itself looks for Ctrl-C every few seconds at best.

    Args:
        work: what is done.
        watch: called now and then until it is done.
        interrupt: ends it before it is done.

    Raises:
        KeyboardInterrupt: the work was interrupted, and has ended.
    """
    outcome: SimpleQueue[tuple[Result | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:
            outcome.put((None, error))

    threading.Thread(target=run, name="holdfast-query", daemon=True).start()
    try:
        while True:
            try:
                result, error = outcome.get(timeout=WATCH_SECONDS)
                break
            except Empty:
                watch()
    except BaseException:
        interrupt()
        outcome.get()
        raise
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
