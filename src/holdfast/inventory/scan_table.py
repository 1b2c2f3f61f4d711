"""An inventory as a table of flat rows: CSV for a spreadsheet, Parquet for a query."""

import csv
import io
from pathlib import Path
from typing import Any

from holdfast.atomic import write_atomically
from holdfast.executor.parquet import parquet_of
from holdfast.inventory.models import ModelFile, ScanReport

# the columns, with their types in DuckDB's words
COLUMNS = {
    "path": "VARCHAR",
    "size": "BIGINT",
    "modified": "TIMESTAMPTZ",
    "format": "VARCHAR",
    "parameters": "BIGINT",
    "dtypes": "VARCHAR",
    "optimizer_nbytes": "BIGINT",
    "family": "VARCHAR",
    "status": "VARCHAR",
    "why": "VARCHAR",
    "tracked": "VARCHAR",
    "references": "BIGINT",
    "scripts": "BIGINT",
    "configs": "BIGINT",
    "mentions": "BIGINT",
    "versions": "VARCHAR",
    "weights": "VARCHAR",
    "digest": "VARCHAR",
    "link": "VARCHAR",
    "opaque": "VARCHAR",
}


def rows_of(report: ScanReport) -> list[dict[str, Any]]:
    """A row for each model file; lists and counts by dtype are texts: ``float32:1200 int64:8``."""
    return [row_of(model) for model in report.models]


def row_of(model: ModelFile) -> dict[str, Any]:
    """The values of a model file by their names."""
    return {
        "path": text_of(model.path),
        "size": model.size,
        "modified": model.modified,
        "format": model.format,
        "parameters": model.parameters,
        "dtypes": " ".join(f"{dtype}:{count}" for dtype, count in model.dtypes.items()),
        "optimizer_nbytes": model.optimizer_nbytes,
        "family": text_of(model.family),
        "status": model.status,
        "why": text_of(model.why),
        "tracked": model.tracked,
        "references": model.used.references,
        "scripts": model.used.scripts,
        "configs": model.used.configs,
        "mentions": model.used.mentions,
        "versions": text_of(" ".join(model.versions)),
        "weights": model.weights,
        "digest": model.digest,
        "link": None if model.link is None else text_of(model.link),
        "opaque": text_of(model.opaque),
    }


def csv_of(report: ScanReport) -> str:
    """The table as CSV (RFC 4180), with a header; missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    writer.writerows(rows_of(report))
    return text.getvalue()


def write_parquet(report: ScanReport, path: Path) -> None:
    """Write the table as Parquet, the whole file or nothing.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, parquet_of(COLUMNS, rows_of(report)))


def text_of(value: str) -> str:
    """Names of files need not be text: what is none is written as an escape."""
    return value.encode("utf-8", "backslashreplace").decode()
