"""The tables of the local index, in a file of SQLite that is made anew where it is torn."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.vault.listing import rows_as_bytes
from holdfast.vault.segment import Segment

SCHEMA = 1
BUSY_SECONDS = 60.0
PAGE_ROWS = 20_000

TABLES = (
    "CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT UNIQUE, size INTEGER)",
    "CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY, segment INTEGER, key TEXT, size INTEGER)",
    """CREATE TABLE IF NOT EXISTS blobs (id BLOB, pack INTEGER, offset INTEGER, stored INTEGER, plain INTEGER,
    base BLOB, depth INTEGER, kind INTEGER, PRIMARY KEY (id, pack, offset)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS recipes (oid TEXT, segment INTEGER, size INTEGER, digest BLOB, format TEXT,
    claimed INTEGER, pieces BLOB, PRIMARY KEY (oid, segment)) WITHOUT ROWID""",
)


class IndexFileError(HoldfastError):
    """The cache of the index cannot be used; nothing that is needed is in it."""


class IndexFile:
    """The file.

    Args:
        path: where it lies; None for one in memory, which is also what a file becomes that cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        self._path = path
        self._connection = _opened(path)

    def segments(self) -> dict[str, tuple[int, int]]:
        """Number and size of the segments that are in it, by session."""
        return {session: (number, size) for number, session, size in self.rows("SELECT * FROM segments")}

    def packs(self) -> list[tuple[int, int, str, int]]:
        """Number, segment, key and size of all packs."""
        return self.rows("SELECT number, segment, key, size FROM packs")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self._lock, self._failures():
            return self._connection.execute(query, values).fetchall()

    def pages(self, columns: str, table: str, key: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
        """All rows of a table in the order of its key, a part at a time; ``columns`` begins with the key's."""
        last: tuple[Any, ...] = ()
        names, marks = ", ".join(key), ", ".join("?" * len(key))
        select = f"SELECT {columns}, {names} FROM {table}"
        while True:
            where = f" WHERE ({names}) > ({marks})" if last else ""
            page = self.rows(f"{select}{where} ORDER BY {names} LIMIT {PAGE_ROWS}", last)
            for row in page:
                yield row[: -len(key)]
            if len(page) < PAGE_ROWS:
                return
            last = page[-1][-len(key) :]

    def insert(self, segment: Segment, size: int) -> int:
        """Take in a segment, unless another process has done so; its number."""
        rows = segment.rows
        with self._transaction() as connection:
            known = connection.execute("SELECT number FROM segments WHERE session = ?", (segment.session,)).fetchone()
            if known:
                return int(known[0])
            row = (segment.session, size)
            number = connection.execute("INSERT INTO segments (session, size) VALUES (?, ?)", row).lastrowid
            assert number is not None
            first = connection.execute("SELECT COALESCE(MAX(number), 0) + 1 FROM packs").fetchone()[0]
            packs = [(first + place, number, key, size) for place, (key, size) in enumerate(segment.packs.items())]
            connection.executemany("INSERT INTO packs VALUES (?, ?, ?, ?)", packs)
            columns = {name: column.tolist() for name, column in rows.numbers.items()}
            places = [first + place for place in columns["pack"]]
            blobs = zip(
                rows_as_bytes(rows.ids), places, columns["offset"], columns["stored"], columns["plain"],
                rows.bases_as_bytes(), columns["depth"], columns["kind"], strict=True,
            )  # fmt: skip
            # in the order of the key, so that neighbours go to one page
            connection.executemany("INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", sorted(blobs))
            recipes = zip(
                rows.oids, [number] * len(rows.oids), rows.sizes.tolist(), rows_as_bytes(rows.digests), rows.formats,
                rows.claimed.tolist(), rows.packed_pieces(), strict=True,
            )  # fmt: skip
            connection.executemany("INSERT OR REPLACE INTO recipes VALUES (?, ?, ?, ?, ?, ?, ?)", sorted(recipes))
            return number

    def forget(self, numbers: Sequence[int]) -> None:
        """Forget segments."""
        with self._transaction() as connection:
            for number in numbers:
                gone = "(SELECT number FROM packs WHERE segment = ?)"
                connection.execute(f"DELETE FROM blobs WHERE pack IN {gone}", (number,))
                for table, column in (("recipes", "segment"), ("packs", "segment"), ("segments", "number")):
                    connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failures():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.rollback()
                raise
            self._connection.commit()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise IndexFileError(
                f"{self._path}: {error}", hint="See whether its disk is full, then run again"
            ) from error
        except sqlite3.DatabaseError as error:
            if self._path is not None:
                _remove(self._path)
            raise IndexFileError(
                f"The cache of the index, {self._path}, was torn: {error}", hint="It was removed: run the command again"
            ) from error


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        for attempt in range(2):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return _connected(str(path))
            except sqlite3.OperationalError:
                break  # no permission, a full disk, locked for too long
            except (sqlite3.DatabaseError, _OtherSchemaError):
                if attempt:
                    break
                _remove(path)
            except OSError:
                break
    return _connected(":memory:")


def _connected(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if schema not in (0, SCHEMA):
            raise _OtherSchemaError
        for table in TABLES:
            connection.execute(table)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
    except BaseException:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            Path(f"{path}{suffix}").unlink()


class _OtherSchemaError(Exception):
    """The file was made by another version."""
