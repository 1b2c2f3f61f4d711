"""What was found in sources that have not changed since, so that a second look for the same files reads nothing.

What a source refers to depends on its text, on the files asked about (the *question*), and on whether some paths that
it names exist. All three are kept, and asked again.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

import holdfast
from holdfast.cachefile import CacheFile, signed
from holdfast.inventory.sources import Source

# to be raised with every change of what the finder finds between two versions
SCHEMA = 1
QUESTIONS_KEPT = 8
TABLES = (
    "CREATE TABLE IF NOT EXISTS questions (question BLOB PRIMARY KEY, turn INTEGER)",
    """CREATE TABLE IF NOT EXISTS sources (question BLOB, label BLOB, inode INTEGER, size INTEGER, mtime_ns INTEGER,
        found TEXT, PRIMARY KEY (question, label)) WITHOUT ROWID""",
)

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """What was found in a source.

    Attributes:
        stamp: the source's inode, size and mtime in nanoseconds.
        asked: the paths whose existence counted, and whether they existed.
        found: the references, as JSON takes them.
    """

    stamp: Stamp
    asked: Mapping[str, bool]
    found: list[Any]


class ReferenceMemory:
    """The memory in a file; see `holdfast.cachefile`.

    Args:
        path: where it lies, None for one that keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = CacheFile(path, SCHEMA, TABLES)

    def recall(self, question: bytes) -> dict[str, Memory]:
        """All that is known for a question, by the sources' labels: one query."""
        with self._file.trying() as connection:
            if connection is not None:
                rows = connection.execute(
                    "SELECT label, inode, size, mtime_ns, found FROM sources WHERE question = ?", (question,)
                )
                return {
                    os.fsdecode(label): Memory((inode, size, mtime), *(json.loads(found) if found else ({}, [])))
                    for label, inode, size, mtime, found in rows
                }
        return {}

    def keep(self, question: bytes, memories: Mapping[str, Memory]) -> None:
        """Add what was found; of older questions only the last few stay."""
        rows = [(question, os.fsencode(label), *memory.stamp, _text(memory)) for label, memory in memories.items()]
        with self._file.trying() as connection:
            if connection is not None:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?)", rows)
                connection.execute(
                    "INSERT OR REPLACE INTO questions SELECT ?, 1 + COALESCE(MAX(turn), 0) FROM questions", (question,)
                )
                connection.execute(
                    "DELETE FROM questions WHERE question NOT IN"
                    " (SELECT question FROM questions ORDER BY turn DESC LIMIT ?)",
                    (QUESTIONS_KEPT,),
                )
                connection.execute("DELETE FROM sources WHERE question NOT IN (SELECT question FROM questions)")
                connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def question_of(*parts: Iterable[str]) -> bytes:
    """The name of a question that is made of lists of texts."""
    return blake3(json.dumps([holdfast.__version__, *(list(part) for part in parts)]).encode()).digest()


def stamp_of(source: Source) -> Stamp | None:
    """What changes where the source's text does; None where it cannot be seen."""
    try:
        status = source.path.stat()
    except OSError:
        return None
    return signed(status.st_ino), status.st_size, status.st_mtime_ns


def _text(memory: Memory) -> str | None:
    return json.dumps([memory.asked, memory.found]) if memory.found or memory.asked else None
