"""Values of DuckDB's types as JSON has them; what JSON has not is a text, the same on every machine."""

import json
import re
from collections.abc import Callable
from typing import Any

NUMBERS = frozenset(
    {
        *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "BIGNUM"),
        *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
        *("FLOAT", "DOUBLE"),
    }
)
AS_THEY_ARE = NUMBERS | {"BOOLEAN", "VARCHAR"}
SHORT = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ", "TIME WITH TIME ZONE": "TIMETZ", '"NULL"': "NULL"}
_NESTED = re.compile(r"(?s).*\]|(?:STRUCT|MAP|UNION)\(.*|VARIANT|JSON")
_DECIMAL = re.compile(r"DECIMAL\(.*\)")
_TIMESTAMP = re.compile(r"TIMESTAMP(_S|_MS|_NS)?")


def type_name(kind: str) -> str:
    """A type in the words of the columns' documentation."""
    for long, short in SHORT.items():
        kind = kind.replace(long, short)
    return kind


def is_number(kind: str) -> bool:
    """Whether values of a type are numbers."""
    return kind in NUMBERS or _DECIMAL.fullmatch(kind) is not None


def plain_form(name: str, kind: str) -> tuple[str, Callable[[Any], Any] | None]:
    """What to select for a column so that its values are JSON's, and what is still to be done with those not null.

    Args:
        name: of the column, as SQL writes it.
        kind: its type, in DuckDB's words.
    """
    if kind in AS_THEY_ARE:
        return name, None
    if _DECIMAL.fullmatch(kind):
        return f"CAST({name} AS DOUBLE)", None
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"CAST({name} AS VARCHAR)", _utc
    if _TIMESTAMP.fullmatch(kind):
        return f"CAST({name} AS VARCHAR)", _iso
    if kind == "BLOB":
        return f"lower(hex({name}))", None
    if _NESTED.fullmatch(kind):
        return f"CAST(to_json({name}) AS VARCHAR)", json.loads
    return f"CAST({name} AS VARCHAR)", None


def _utc(text: str) -> str:
    """``2026-11-20 01:02:03+00`` as ISO 8601 has it; the session's zone is UTC."""
    return _iso(text.removesuffix("+00")) + ("+00:00" if text.endswith("+00") else "")


def _iso(text: str) -> str:
    return text.replace(" ", "T", 1) if text[:1].isdigit() else text
