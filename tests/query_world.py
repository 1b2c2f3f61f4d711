"""Inventories for queries: the folder of shards that `holdfast scan --parquet` writes, of rows that a test gives."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from holdfast.executor.parquet import parquet_of
from holdfast.inventory.table_columns import INVENTORY_FILE, INVENTORY_FORMAT, TABLES, types_of

Row = Mapping[str, Any]
FILE: Row = {
    "modified": "2026-11-20 01:02:03+00",
    "format": "safetensors",
    "parameters": 12,
    "dtypes": "float32:12",
    "optimizer_nbytes": 0,
    "status": "unreferenced",
    "why": "nothing refers to it",
    "tracked": "none",
    "references": 0,
    "scripts": 0,
    "configs": 0,
    "mentions": 0,
    "versions": "",
    "opaque": "",
}


def file_row(path: str, size: int = 100, **values: Any) -> Row:
    """A row of `files`."""
    return {**FILE, "path": path, "bytes": size, "family": path, **values}


def tensor_row(path: str, name: str, digest: str | None, size: int = 48) -> Row:
    """A row of `tensors`."""
    return {"path": path, "name": name, "dtype": "float32", "shape": [3, 4], "bytes": size, "digest": digest}


def write_inventory(folder: Path, shards: Mapping[str, Sequence[Sequence[Row]]]) -> Path:
    """An inventory with these shards of each table; columns that a row lacks are null."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, list[str]] = {table: [] for table in TABLES}
    for table, parts in shards.items():
        columns = types_of(TABLES[table])
        for number, rows in enumerate(parts):
            name = blake3(f"{table} {number}".encode()).hexdigest(length=16)
            path = folder / table / name[:2] / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(parquet_of(columns, [{column: row.get(column) for column in columns} for row in rows]))
            tables[table].append(path.relative_to(folder).as_posix())
    document = {"format": INVENTORY_FORMAT, "root": "/project", "tables": tables}
    (folder / INVENTORY_FILE).write_text(json.dumps(document, indent=2) + "\n")
    return folder
