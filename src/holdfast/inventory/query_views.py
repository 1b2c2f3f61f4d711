"""The views that a query sees: the tables of an inventory, and what is there more than once.

`duplicates` must be fast over tens of millions of rows whose digests are all different but for a few. It first counts
numbers that are made of the digests, which take a tenth of the room of the digests themselves, and looks at the rows
alone whose number came twice.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from holdfast.inventory.table_columns import TABLES, Column

PATHS_SHOWN = 10
DUPLICATES_VIEW = "duplicates"
DUPLICATES: Mapping[str, Column] = {
    "kind": Column("VARCHAR", "what is equal: `bytes` of files, `weights` of files, or a `tensor` in several files"),
    "digest": Column("VARCHAR", "which they have in common"),
    "files": Column("BIGINT", "how many files have it, two at least; symbolic links do not count"),
    "bytes": Column("BIGINT", "of one: where equal weights lie in files of different sizes, of the smallest"),
    "saved": Column("BIGINT", "what all but one take: `bytes * (files - 1)`"),
    "paths": Column("VARCHAR[]", f"the first {PATHS_SHOWN} of the files, by name"),
}
VIEWS: Mapping[str, Mapping[str, Column]] = MappingProxyType({**TABLES, DUPLICATES_VIEW: DUPLICATES})


def quote_text(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """A name as SQL writes it, which may be one of its own words."""
    return '"' + name.replace('"', '""') + '"'


def read_of(paths: Sequence[str]) -> str:
    """What reads Parquet files as one table."""
    return f"read_parquet([{', '.join(map(quote_text, paths))}])"


def table_view(table: str, paths: Sequence[str]) -> str:
    """The statement that makes the view of a table from its shards; without any, it has no rows."""
    columns = TABLES[table]
    if not paths:
        nothing = ", ".join(f"CAST(NULL AS {column.type}) AS {quote_name(name)}" for name, column in columns.items())
        return f"CREATE VIEW {quote_name(table)} AS SELECT {nothing} WHERE false"
    names = ", ".join(map(quote_name, columns))
    return f"CREATE VIEW {quote_name(table)} AS SELECT {names} FROM {read_of(paths)}"


def flat_view(path: str, present: Sequence[str]) -> str:
    """The statement that makes the view `files` from the one table that `holdfast scan --parquet FILE` writes.

    Args:
        path: of the file.
        present: the columns that it has; those that it lacks are null.
    """
    names = {**{name: name for name in present}, **({"bytes": "size"} if "size" in present else {})}
    shown = ", ".join(
        f"CAST({quote_name(names[name]) if name in names else 'NULL'} AS {column.type}) AS {quote_name(name)}"
        for name, column in TABLES["files"].items()
    )
    return f"CREATE VIEW files AS SELECT {shown} FROM {read_of([path])}"


def duplicates_view() -> str:
    """The statement that makes the view of what is there more than once, from those of the tables."""
    columns = ", ".join(map(quote_name, DUPLICATES))
    # an ETag says that bytes are equal only where sizes are, too
    equal_bytes = _files("bytes", "digest", "digest, bytes")
    equal_weights = _files("weights", "weights", "weights")
    return f"CREATE VIEW {DUPLICATES_VIEW}({columns}) AS {equal_bytes} UNION ALL {equal_weights} UNION ALL {_tensors()}"


def _files(kind: str, digest: str, equal: str) -> str:
    rows = f"files WHERE {digest} IS NOT NULL AND link IS NULL"
    return (
        f"SELECT '{kind}', {digest}, {_figures()} FROM {rows} "
        f"AND hash({equal}) IN (SELECT hash({equal}) FROM {rows} GROUP BY ALL HAVING count(*) > 1) "
        f"GROUP BY {equal} HAVING count(*) > 1"
    )


def _tensors() -> str:
    """A tensor may be in one file several times: those that are equal in one file alone are not shared."""
    rows = "tensors WHERE digest IS NOT NULL"
    once = (
        f"SELECT digest, path, min(bytes) AS bytes FROM {rows} "
        f"AND hash(digest) IN (SELECT hash(digest) FROM {rows} GROUP BY ALL HAVING count(*) > 1) "
        "GROUP BY digest, path"
    )
    return f"SELECT 'tensor', digest, {_figures()} FROM ({once}) GROUP BY digest HAVING count(*) > 1"


def _figures() -> str:
    # min(path, n) would be shorter, and takes ten kilobytes for each group; list(path ORDER BY path) takes longer
    return f"count(*), min(bytes), min(bytes) * (count(*) - 1), list_sort(list(path))[1:{PATHS_SHOWN}]"
