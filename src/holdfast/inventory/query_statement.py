"""One statement of SQL that asks for something, and nothing else: the SQL may come from a page or a pull request.

What is run is never the text itself, but ``SELECT … FROM (text)``. A statement that writes, loads, attaches or sets is
no text that can stand there, so DuckDB's own parser refuses it. What a query can reach is bounded where the database is
opened.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import UsageError

if TYPE_CHECKING:
    import duckdb

OPENING = "SELECT {} FROM (\n"  # a line of its own, as the text may end with a comment
CLOSING = "\n)"
QUERIES = "SELECT, FROM, WITH, VALUES, PIVOT, DESCRIBE, SUMMARIZE, SHOW and EXPLAIN"
QUOTED = frozenset({"references"})  # names of columns and views that SQL keeps for itself


class QueryError(UsageError):
    """The SQL is not one that can be answered; the message says where and why."""


@dataclass(frozen=True)
class Query:
    """A query that was checked.

    Attributes:
        text: without what ends a statement, each character at its place.
        explain: ``EXPLAIN `` or ``EXPLAIN ANALYZE `` where its plan is asked for, else empty.
        original: what was given, for places in errors.
    """

    text: str
    explain: str
    original: str

    def select(self, what: str = "*", after: str = "") -> str:
        """The statement that selects from the query, or says how it would."""
        return f"{self._before(what)}{self.text}{CLOSING}{after}"

    def error(self, error: Exception, what: str = "*") -> QueryError:
        """What DuckDB says of `select` with the same words."""
        return error_of(error, self.original, len(self._before(what).encode()))

    def _before(self, what: str) -> str:
        return f"{self.explain}{OPENING.format(what)}"


def read_query(connection: "duckdb.DuckDBPyConnection", sql: str) -> Query:
    """Check that a text is one query.

    Args:
        connection: to parse with; its errors are JSON (``errors_as_json``).
        sql: what was asked.

    Raises:
        QueryError: it is no statement, several, or one that is no query.
    """
    if not sql.isprintable() and ("\0" in sql or any(0xD800 <= ord(letter) < 0xE000 for letter in sql)):
        raise QueryError("The SQL holds what is no text", hint="SQL is text in UTF-8")
    kind = _kind_of(connection, sql)
    text, explain = sql, ""
    if kind == "EXPLAIN":
        text, explain = _unexplained(sql)
        kind = _kind_of(connection, text)
    query = Query(_unended(text), explain, sql)
    # a PIVOT that finds its columns in the rows is several statements to DuckDB, as is whatever has one within
    if kind not in ("SELECT", "MULTI") or (kind == "MULTI" and not _stands(connection, query)):
        what = "the statement" if kind == "MULTI" else f"{kind.replace('_', ' ')}"
        raise QueryError(f"An inventory is asked, not changed: {what} is no query", hint=f"Queries are {QUERIES}")
    return query


def error_of(error: Exception, sql: str, before: int = 0) -> QueryError:
    """What DuckDB says in one line, with the place in the text as people count it.

    Args:
        error: with the message as JSON.
        sql: what was asked.
        before: bytes that stood before it.
    """
    said = said_by(error)
    text = " ".join(str(said["exception_message"]).split())
    position = int(said.get("position", -1)) - before
    place, word = "", ""
    if 0 <= position <= len(sql.encode()):
        lines = sql.encode()[:position].decode(errors="ignore").split("\n")
        place = f"line {len(lines)}, column {len(lines[-1]) + 1}: "
        word = (sql.encode()[position:].decode(errors="ignore").split() or [""])[0].strip(",;()").lower()
    hint = None
    if said["exception_type"] == "Parser" and word in QUOTED:
        hint = f'Write "{word}", with the quotes: it is a word of SQL'
    elif said["exception_type"] == "Permission":
        hint = "A query reads the views of the inventory, and nothing else"
    elif said.get("type") == "Table" and not text.endswith("?"):
        hint = "`holdfast query` lists the views"
    return QueryError(f"{place}{text.rstrip('.')}", hint=hint)


def said_by(error: Exception) -> dict[str, Any]:
    """The parts of an error of DuckDB's: ``exception_type`` and ``exception_message`` at least."""
    text = str(error)
    try:
        said = json.loads(text[text.index("{") :])
        if {"exception_type", "exception_message"} <= said.keys():
            return dict(said)
    except (ValueError, AttributeError):
        pass  # it speaks for itself
    return {"exception_type": type(error).__name__, "exception_message": text}


def _kind_of(connection: "duckdb.DuckDBPyConnection", sql: str) -> str:
    import duckdb  # imported here: 100 ms that only a query takes

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise error_of(error, sql) from error
    if len(statements) != 1:
        found = f"these are {len(statements)} statements" if statements else "there is none"
        raise QueryError(f"A query is one statement, and {found}", hint="`holdfast query --help` has examples")
    return str(statements[0].type.name)


def _stands(connection: "duckdb.DuckDBPyConnection", query: Query) -> bool:
    import duckdb  # imported here: see above

    try:
        return len(connection.extract_statements(query.select())) == 1
    except duckdb.Error:
        return False


def _tokens(sql: str) -> list[tuple[int, int, Any]]:
    """Begin, end and kind of each, in bytes; what ends a token may be blanks."""
    import duckdb  # imported here: see above

    tokens = duckdb.tokenize(sql)
    ends = [begin for begin, _ in tokens[1:]] + [len(sql.encode())]
    return [(begin, end, kind) for (begin, kind), end in zip(tokens, ends, strict=True)]


def _unended(sql: str) -> str:
    """The text with blanks for its semicolons; in one statement they are all before or after it."""
    data = bytearray(sql.encode())
    for begin, _, kind in _tokens(sql):
        if kind.name == "operator" and data[begin : begin + 1] == b";":
            data[begin : begin + 1] = b" "
    return data.decode()


def _unexplained(sql: str) -> tuple[str, str]:
    """The text with blanks for ``EXPLAIN`` or ``EXPLAIN ANALYZE``, and these words."""
    data = bytearray(sql.encode())
    words: list[str] = []
    for begin, end, kind in _tokens(sql):
        word = bytes(data[begin:end]).decode(errors="replace").strip().upper()
        if kind.name == "comment" or word == ";":
            continue
        if word not in ("EXPLAIN", "ANALYZE")[len(words) :]:
            break
        words.append(word)
        data[begin : begin + len(word)] = b" " * len(word)
        if word == "ANALYZE":
            break
    return data.decode(), "".join(f"{word} " for word in words)
