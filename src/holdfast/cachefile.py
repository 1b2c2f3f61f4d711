"""An SQLite file of things that can be found out again: shared by processes, made anew where it is broken.

Nothing in it is needed, and it can be deleted at any time. One who finds it torn or of another schema makes it anew,
and one who cannot write it does without.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

BUSY_SECONDS = 30.0


class CacheFile:
    """The file, opened when it is first asked for.

    Args:
        path: where it lies, with its folder made where there is none; None for one that keeps nothing.
        schema: the version of its tables; a file of another one is made anew.
        tables: the statements that make the tables, each with ``IF NOT EXISTS``.
    """

    def __init__(self, path: Path | None, schema: int, tables: Sequence[str]) -> None:
        self.path = path
        self._schema = schema
        self._tables = tables
        self._connection: sqlite3.Connection | None = None

    @contextlib.contextmanager
    def trying(self) -> Iterator[sqlite3.Connection | None]:
        """The connection, None where there can be none; what goes wrong with it is no error of the caller's."""
        try:
            yield self._connect()
        except sqlite3.OperationalError:
            pass  # locked for too long, a full disk, no permission: then nothing is kept
        except (sqlite3.DatabaseError, ValueError, TypeError):
            self._forget()  # torn, or of another schema

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> sqlite3.Connection | None:
        if self._connection is None and self.path is not None:
            try:
                self._connection = self._opened(self.path)
            except sqlite3.OperationalError:
                self.path = None
            except (sqlite3.DatabaseError, _OtherSchemaError):
                self._forget()
                with contextlib.suppress(sqlite3.Error, _OtherSchemaError, OSError):
                    assert self.path is not None
                    self._connection = self._opened(self.path)
            except OSError:
                self.path = None
        return self._connection

    def _forget(self) -> None:
        self.close()
        assert self.path is not None
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                Path(f"{self.path}{suffix}").unlink()

    def _opened(self, path: Path) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (schema,) = connection.execute("PRAGMA user_version").fetchone()
            if schema not in (0, self._schema):
                raise _OtherSchemaError
            for table in self._tables:
                connection.execute(table)
            connection.execute(f"PRAGMA user_version = {self._schema}")
        except BaseException:
            connection.close()
            raise
        return connection


class _OtherSchemaError(Exception):
    """The file was made by another version."""


def signed(number: int) -> int:
    """A number of 64 bits as SQLite's integers, which are signed; some file systems use all bits of an inode."""
    return (number + 2**63) % 2**64 - 2**63


def unsigned(number: int) -> int:
    """The number that `signed` was given."""
    return number % 2**64
