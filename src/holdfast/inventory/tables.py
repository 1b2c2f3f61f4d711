"""An inventory as a folder of tables: Parquet shards, and a file that names those that count.

A shard is called after its rows, and rows are cut by names, so that an inventory taken again writes what has changed.
The file is written last: who reads finds the old inventory or the new one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from holdfast.atomic import write_atomically
from holdfast.errors import UsageError
from holdfast.executor.parquet import parquet_of
from holdfast.executor.partitions import Shards
from holdfast.inventory.models import ModelFile, ScanReport
from holdfast.inventory.references import Reference
from holdfast.inventory.run_classes import Classified
from holdfast.inventory.scan_partitions import cut
from holdfast.inventory.scan_table import row_of, text_of
from holdfast.inventory.table_columns import INVENTORY_FILE, INVENTORY_FORMAT, TABLES, types_of
from holdfast.inventory.table_runs import run_rows
from holdfast.inventory.table_tensors import Writer

SUFFIX = ".parquet"
SHARD_ROWS = 4096  # of files: what one that has changed writes again; a million are some 250 shards
Rows = Callable[[], Iterable[Mapping[str, Any]]]


def check_tables(folder: Path) -> None:
    """Refuse a folder that is not there for tables: shards that nobody names are removed from it.

    Raises:
        UsageError: it is a file, or has something else in it.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is a file", hint="Name a folder, or a file that ends in .parquet for a table of files"
        )
    others = sorted(path.name for path in folder.iterdir() if path.name not in (INVENTORY_FILE, *TABLES))
    others = [name for name in others if not name.startswith(f".{INVENTORY_FILE}.")]
    if others:
        raise UsageError(f"{folder} holds {others[0]}, which is no inventory's", hint="Name a new or an empty folder")


def write_tables(
    folder: Path,
    report: ScanReport,
    tensors: Writer,
    *,
    etags: Mapping[str, str] | None = None,
    runs: Sequence[Classified] = (),
) -> None:
    """Write an inventory's tables; the same inventory gives the same bytes.

    Args:
        folder: made where there is none.
        report: the inventory.
        tensors: what writes the table of tensors.
        etags: of objects, by their keys.
        runs: below the inventory's root.

    Raises:
        UsageError: the folder is there for something else.
        OSError: it cannot be written.
    """
    check_tables(folder)
    shards = {name: Shards(folder / name, SUFFIX) for name in TABLES}
    states = etags or {}
    files = (
        _write("files", shards["files"], lambda part=part: (_file_row(model, states) for model in part))  # type: ignore[misc]
        for part in cut(report.models, lambda model: model.path, SHARD_ROWS)
    )
    places = report.references.references if report.references is not None else ()
    written: dict[str, list[Path]] = {
        "files": list(files),
        "tensors": tensors(shards["tensors"]),
        "references": [_write("references", shards["references"], lambda: _reference_rows(places))] if places else [],
        "runs": [_write("runs", shards["runs"], lambda: run_rows(runs, Path(report.root)))] if runs else [],
    }
    document = {
        "format": INVENTORY_FORMAT,
        "root": text_of(report.root),
        "tables": {name: [path.relative_to(folder).as_posix() for path in paths] for name, paths in written.items()},
    }
    write_atomically(folder / INVENTORY_FILE, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    for name, paths in written.items():
        shards[name].forget({path.name.removesuffix(SUFFIX) for path in paths})


def _write(table: str, shards: Shards, rows: Rows) -> Path:
    """Write a shard unless there is one of these rows."""
    columns = types_of(TABLES[table])
    hasher = blake3(json.dumps([INVENTORY_FORMAT, table, columns]).encode())
    for row in rows():
        hasher.update(json.dumps([row[name] for name in columns]).encode())
    name = hasher.hexdigest(length=16)
    if not shards.has(name):
        shards.write(name, parquet_of(columns, rows()))
    return shards.path(name)


def _file_row(model: ModelFile, etags: Mapping[str, str]) -> dict[str, Any]:
    return {**row_of(model), "bytes": model.size, "etag": etags.get(model.path)}


def _reference_rows(places: Iterable[Reference]) -> Iterator[dict[str, Any]]:
    for place in places:
        for target in place.targets:
            yield {
                "path": text_of(target),
                "script": text_of(place.file),
                "kind": place.kind,
                "cell": place.cell,
                "line": place.line,
                "how": place.how,
                "exact": len(place.targets) == 1,
                "text": text_of(place.text),
            }
