"""The tables of the local index, in a file of SQLite that is made anew where it is torn, and its runs beside it.

Blobs are as many as the vault is large: their places are in *runs* (`holdfast.vault.index_runs`), of which each is more
than twice as long as all shorter ones together. Short ones are in the file of SQLite, long ones beside it. A
transaction says which count. Files, packs and segments are tables; the files of a large segment that was written here
are put into theirs when somebody asks for files, which most who have pushed do not.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.vault.columns import Array
from holdfast.vault.index_merge import merge
from holdfast.vault.index_runs import Run, TornRunError, run_bytes, run_of
from holdfast.vault.listing import rows_as_bytes
from holdfast.vault.segment import Segment, read_segment

SCHEMA = 3
# another process may be putting long runs together: 10 million places in 10 s
BUSY_SECONDS = 300.0
PAGE_ROWS = 20_000
# SQLite takes 32,766 values in a query
VALUES_A_QUERY = 30_000
# places in a run that is kept in the file of SQLite itself
SHORT_ROWS = 16_384
# and in one that is never left beside a further one
TINY_ROWS = 256
# and where all are kept in memory; SQLite takes 10^9 bytes at a time
MEMORY_ROWS = 16_000_000
# files of a segment that are put into their table at once: 5 µs each
FEW_FILES = 10_000
RUN_SUFFIX = ".run"

TABLES = (
    """CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT UNIQUE, size INTEGER,
    blobs INTEGER)""",
    # numbers are never used again: a run may have places in packs that are gone
    """CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY AUTOINCREMENT, segment INTEGER, key TEXT,
    size INTEGER)""",
    # data is NULL where the run is the file of that name
    "CREATE TABLE IF NOT EXISTS runs (name TEXT PRIMARY KEY, rows INTEGER, data BLOB)",
    """CREATE TABLE IF NOT EXISTS recipes (oid TEXT, segment INTEGER, size INTEGER, digest BLOB, format TEXT,
    claimed INTEGER, pieces BLOB, PRIMARY KEY (oid, segment)) WITHOUT ROWID""",
    # segments whose files are not in their table yet
    "CREATE TABLE IF NOT EXISTS folded (segment INTEGER PRIMARY KEY, data BLOB)",
)


class IndexFileError(HoldfastError):
    """The cache of the index cannot be used; nothing that is needed is in it."""


class IndexFile:
    """The file; may be used from many threads.

    Args:
        path: where it lies; None for one in memory, which is also what a file becomes that cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        self._connection, self._path = _opened(path)
        self._runs: dict[str, Run] = {}
        # long runs that a transaction makes, and that it makes needless
        self._made: list[str] = []
        self._left: list[str] = []

    def segments(self) -> dict[str, tuple[int, int]]:
        """Number and size of the segments that are in it, by session."""
        rows = self.rows("SELECT number, session, size FROM segments")
        return {session: (number, size) for number, session, size in rows}

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

    def runs(self) -> list[Run]:
        """The runs as they are now, the longest first."""
        with self._lock, self._failures():
            return self._read_runs()

    def next_pack(self) -> int:
        """The number of the next pack to come: more than all that runs know of."""
        found = self.rows("SELECT seq FROM sqlite_sequence WHERE name = 'packs'")
        return int(found[0][0]) + 1 if found else 1

    def insert(self, segments: Sequence[tuple[Segment, int]]) -> None:
        """Take in segments, each with its size, but for those that another process has taken in."""
        with self._transaction() as connection:
            self._insert_files(connection, self._insert_places(connection, segments))

    def keep(self, segment: Segment, data: bytes) -> None:
        """Take in a segment with these bytes; its files, where they are many, when `unfold` is called."""
        if len(segment.rows.oids) < FEW_FILES:
            self.insert([(segment, len(data))])
            return
        with self._transaction() as connection:
            for number, _ in self._insert_places(connection, [(segment, len(data))]):
                connection.execute("INSERT INTO folded VALUES (?, ?)", (number, data))

    def unfold(self) -> None:
        """Put all files into their table: who asks for files calls it before."""
        with self._lock, self._failures():
            if not self._connection.execute("SELECT EXISTS (SELECT 1 FROM folded)").fetchone()[0]:
                return
        with self._transaction() as connection:
            query = "SELECT number, session, data FROM folded JOIN segments ON number = segment"
            try:
                kept = [(number, read_segment(session, data)) for number, session, data in connection.execute(query)]
            except IntegrityError as error:
                raise sqlite3.DatabaseError(f"a segment cannot be read: {error}") from error
            self._insert_files(connection, kept)
            connection.execute("DELETE FROM folded")

    def forget(self, numbers: Sequence[int]) -> None:
        """Forget segments."""
        with self._transaction() as connection:
            for start in range(0, len(numbers), VALUES_A_QUERY):
                part = numbers[start : start + VALUES_A_QUERY]
                marks = ", ".join("?" * len(part))
                for table, column in (
                    ("recipes", "segment"), ("folded", "segment"), ("packs", "segment"), ("segments", "number"),
                ):  # fmt: skip
                    connection.execute(f"DELETE FROM {table} WHERE {column} IN ({marks})", part)
            ((there,),) = connection.execute("SELECT COALESCE(SUM(blobs), 0) FROM segments")
            if sum(run.rows for run in self._read_runs()) > 2 * there:
                self._add([], everything=True)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._runs = {}
            self._connection.close()

    def _insert_places(
        self, connection: sqlite3.Connection, segments: Sequence[tuple[Segment, int]]
    ) -> list[tuple[int, Segment]]:
        """Put in those that are new, but for their files; each with its number."""
        known = {session for (session,) in connection.execute("SELECT session FROM segments")}
        fresh: list[tuple[int, Segment]] = []
        runs: list[Run] = []
        for segment, size in segments:
            if segment.session in known:
                continue
            row = (segment.session, size, len(segment.rows.ids))
            done = connection.execute("INSERT INTO segments (session, size, blobs) VALUES (?, ?, ?)", row)
            number = int(done.lastrowid or 0)
            first = self.next_pack()
            packs = [(first + place, number, key, size) for place, (key, size) in enumerate(segment.packs.items())]
            connection.executemany("INSERT INTO packs VALUES (?, ?, ?, ?)", packs)
            if len(segment.rows.ids):
                runs.append(run_of(segment.rows, first))
            fresh.append((number, segment))
        if runs:
            self._add(runs)
        return fresh

    def _insert_files(self, connection: sqlite3.Connection, segments: Iterable[tuple[int, Segment]]) -> None:
        recipes: list[tuple[Any, ...]] = []
        for number, segment in segments:
            rows = segment.rows
            columns = (rows.oids, [number] * len(rows.oids), rows.sizes.tolist(), rows_as_bytes(rows.digests))
            recipes += zip(*columns, rows.formats, rows.claimed.tolist(), rows.packed_pieces(), strict=True)
        # in the order of the key, so that neighbours go to one page; oid and segment are no other recipe's
        recipes.sort()
        connection.executemany("INSERT OR REPLACE INTO recipes VALUES (?, ?, ?, ?, ?, ?, ?)", recipes)

    def _read_runs(self) -> list[Run]:
        names = self._names()
        while names.keys() != self._runs.keys():
            try:
                self._runs = {
                    name: self._runs.get(name) or self._opened_run(name, rows) for name, rows in names.items()
                }
            except (FileNotFoundError, TornRunError) as error:
                again = self._names()
                if again == names:  # else another process has put it into a longer one meanwhile
                    raise sqlite3.DatabaseError(f"a run cannot be read: {error}") from error
                names = again
        return sorted(self._runs.values(), key=lambda run: -run.rows)

    def _names(self) -> dict[str, int]:
        return dict(self._connection.execute("SELECT name, rows FROM runs"))

    def _opened_run(self, name: str, rows: int) -> Run:
        found = self._connection.execute("SELECT data FROM runs WHERE name = ?", (name,)).fetchone()
        if found and found[0] is not None:
            return Run.read(found[0])
        with open(self._beside(name), "rb") as file:
            if os.fstat(file.fileno()).st_size < run_bytes(rows, 0):
                raise TornRunError(name)
            return Run.read(mmap(file.fileno(), 0, access=ACCESS_READ))

    def _add(self, runs: Sequence[Run], *, everything: bool = False) -> None:
        """Put runs, and those before them that are not long enough to be left, into one, within a transaction."""
        self._read_runs()
        self._clear()
        names = self._to_merge(sum(run.rows for run in runs), everything=everything)
        merged = [self._runs[name] for name in names]
        if not merged and not runs:
            return
        whole = [*merged, *runs]
        short = self._path is None or sum(run.rows for run in whole) <= SHORT_ROWS
        live = self._live(whole)
        for name in names:
            self._connection.execute("DELETE FROM runs WHERE name = ?", (name,))
            self._left.append(self._beside(name))
        ((name,),) = self._connection.execute("SELECT lower(hex(randomblob(8)))")
        data = None
        if short:
            out = BytesIO()
            merge(whole, live, out)
            data = out.getvalue()
            rows = Run.read(data).rows
        else:
            self._made.append(self._beside(name))
            with open(self._beside(name), "x+b") as long:
                merge(whole, live, long)
                os.fsync(long.fileno())
            rows = self._opened_run(name, 0).rows
        if rows:
            self._connection.execute("INSERT INTO runs VALUES (?, ?, ?)", (name, rows, data))
        else:
            self._left.append(self._beside(name))

    def _live(self, runs: Sequence[Run]) -> Array:
        """Whether a pack is there, by its number, for those that runs have places in; bool."""
        live = np.zeros(self.next_pack(), bool)
        query, numbers = "SELECT number FROM packs", []
        if sum(run.rows for run in runs) <= SHORT_ROWS:  # else it is as well to ask for all
            numbers = np.unique(np.concatenate([run.records["pack"] for run in runs])).tolist()
            query = f"{query} WHERE number IN ({', '.join('?' * len(numbers))})"
        live[[number for (number,) in self._connection.execute(query, numbers)]] = True
        return live

    def _to_merge(self, total: int, *, everything: bool) -> list[str]:
        """The runs that are to be put together with ``total`` further places."""
        found: list[str] = []
        passed: list[str] = []
        for name, run in sorted(self._runs.items(), key=lambda item: item[1].rows):
            if self._path is None and total + run.rows > MEMORY_ROWS:
                break
            passed.append(name)
            if everything or run.rows <= max(2 * total, TINY_ROWS):
                found, passed = [*found, *passed], []
            total += run.rows
        return found

    def _beside(self, name: str) -> str:
        return f"{self._path}-{name}{RUN_SUFFIX}"

    def _clear(self) -> None:
        """Remove long runs of a process that ended before it could; within a transaction, before it makes any."""
        if self._path is None:
            return
        there = {self._beside(name) for name in self._names()}
        _unlink(path for path in _runs_beside(self._path) if path not in there)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failures():
            self._connection.execute("BEGIN IMMEDIATE")
            self._made, self._left = [], []
            try:
                yield self._connection
                self._connection.commit()
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.rollback()
                _unlink(self._made)
                raise
            _unlink(self._left)  # who has one open can still read it

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise IndexFileError(
                f"{self._path}: {error}", hint="See whether its disk is full, then run again"
            ) from error
        except (sqlite3.DatabaseError, TornRunError) as error:
            if self._path is not None:
                _remove(self._path)
            raise IndexFileError(
                f"The cache of the index, {self._path}, was torn: {error}", hint="It was removed: run the command again"
            ) from error


def _opened(path: Path | None) -> tuple[sqlite3.Connection, Path | None]:
    if path is not None:
        for attempt in range(2):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return _connected(str(path)), path
            except sqlite3.OperationalError:
                break  # no permission, a full disk, locked for too long
            except (sqlite3.DatabaseError, _OtherSchemaError):
                if attempt:
                    break
                _remove(path)
            except OSError:
                break
    return _connected(":memory:"), None


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


def _runs_beside(path: Path) -> list[str]:
    return [str(found) for found in path.parent.glob(f"{path.name}-*{RUN_SUFFIX}")]


def _remove(path: Path) -> None:
    _unlink([*(f"{path}{suffix}" for suffix in ("", "-wal", "-shm")), *_runs_beside(path)])


def _unlink(paths: Iterable[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path).unlink()


class _OtherSchemaError(Exception):
    """The file was made by another version."""
