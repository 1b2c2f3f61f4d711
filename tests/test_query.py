"""What a query sees: the views, what is there more than once, values as JSON has them, and an inventory that is damaged."""

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from holdfast.inventory.query import Inventory, NoInventoryError, open_inventory
from holdfast.inventory.query_database import DamagedInventoryError, QueryMemoryError
from holdfast.inventory.query_statement import QueryError
from holdfast.inventory.query_views import PATHS_SHOWN, VIEWS
from holdfast.inventory.table_columns import INVENTORY_FILE, TABLES
from query_world import Row, file_row, tensor_row, write_inventory

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "query.md"
REFERENCE = {
    "path": "models/a.safetensors",
    "script": "train.py",
    "kind": "python",
    "line": 3,
    "how": "path",
    "exact": True,
    "text": "models/a.safetensors",
}
RUN = {
    "path": "runs/one",
    "class": "baseline",
    "why": "says so",
    "series": "one",
    "form": "holdfast",
    "started": "2026-11-20 01:02:03+00",
    "status": "finished",
    "epochs": 3,
    "files": 4,
    "bytes": 500,
    "weights_bytes": 400,
    "metric": "accuracy",
    "value": 0.9,
    "final": {"accuracy": 0.8},
    "best": {"accuracy": 0.9},
}
# one of everything that the page asks for
TABLES_OF_ALL: dict[str, list[list[Row]]] = {
    "files": [
        [
            file_row("models/a.safetensors", 300, weights="blake3:w", digest="blake3:d", family="models/*", scripts=1),
            file_row("models/b.safetensors", 300, weights="blake3:w", digest="blake3:d", family="models/*"),
        ],
        [
            file_row("old/c.pt", 350, weights="blake3:w", optimizer_nbytes=50, modified="2026-01-01 00:00:00+00"),
            file_row("old/link.pt", 300, weights="blake3:w", digest="blake3:d", link="models/a.safetensors"),
        ],
    ],
    "tensors": [
        [tensor_row("models/a.safetensors", "x", "blake3:t", 200), tensor_row("old/c.pt", "x", "blake3:t", 200)],
        [tensor_row("old/c.pt", "one", "blake3:u", 50), tensor_row("old/c.pt", "two", "blake3:u", 50)],
    ],
    "references": [[REFERENCE]],
    "runs": [[RUN, {**RUN, "path": "runs/two", "value": 0.7, "best": {"accuracy": 0.7}, "weights_bytes": 100}]],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inventory(tmp_path_factory.mktemp("query") / "inventory", TABLES_OF_ALL)


@pytest.fixture
def inventory(place: Path, tmp_path: Path) -> Iterator[Inventory]:
    with open_inventory(place, spill=tmp_path / "spill") as inventory:
        yield inventory


def ask(inventory: Inventory, sql: str, limit: int | None = None) -> list[tuple[Any, ...]]:
    return list(inventory.ask(sql, limit).rows)


def test_views_have_the_documented_columns(inventory: Inventory) -> None:
    views = {view.name: view for view in inventory.views()}
    assert {name: view.rows for name, view in views.items()} == {
        "files": 4,
        "tensors": 4,
        "references": 1,
        "runs": 2,
        "duplicates": None,
    }
    page = PAGE.read_text()
    for name, columns in VIEWS.items():
        assert views[name].columns == columns
        answer = inventory.ask(f'SELECT * FROM "{name}"')
        assert answer.columns == {column: about.type for column, about in columns.items()}
        lines = [f"| `{column}` | {about.type} | {about.meaning} |" for column, about in columns.items()]
        assert "\n".join(["| --- | --- | --- |", *lines, ""]) in page


def queries() -> list[str]:
    return [part.partition("```")[0] for part in PAGE.read_text().split("```sql\n")[1:]]


def test_the_page_has_useful_queries() -> None:
    assert len(queries()) >= 10


@pytest.mark.parametrize("sql", queries(), ids=lambda sql: sql.split("\n")[0][:60])
def test_useful_queries_find_something(inventory: Inventory, sql: str) -> None:
    assert ask(inventory, sql)


def test_duplicates(inventory: Inventory) -> None:
    """Links are no copies, and tensors that are equal within one file are shared by nobody."""
    assert ask(inventory, "FROM duplicates ORDER BY kind") == [
        ("bytes", "blake3:d", 2, 300, 300, ["models/a.safetensors", "models/b.safetensors"]),
        ("tensor", "blake3:t", 2, 200, 200, ["models/a.safetensors", "old/c.pt"]),
        ("weights", "blake3:w", 3, 300, 600, ["models/a.safetensors", "models/b.safetensors", "old/c.pt"]),
    ]


def test_an_etag_is_no_digest_by_itself(tmp_path: Path) -> None:
    rows = [file_row(f"m/{name}.pt", size, digest="etag:1") for name, size in zip("abc", (10, 20, 20), strict=True)]
    with open_inventory(write_inventory(tmp_path / "i", {"files": [rows]}), spill=tmp_path) as inventory:
        assert ask(inventory, "SELECT bytes, paths FROM duplicates") == [(20, ["m/b.pt", "m/c.pt"])]


def test_duplicates_of_many_rows_are_those_of_a_plain_count(tmp_path: Path) -> None:
    random.seed(1)
    files = [
        file_row(
            f"m/{number:05}.pt",
            random.randrange(1, 4),
            weights=random.choice([None, f"blake3:{random.randrange(2000)}", f"blake3:{random.randrange(50)}"]),
            digest=random.choice([None, f"blake3:{random.randrange(900)}"]),
            link=random.choice([None] * 9 + ["m/00000.pt"]),
        )
        for number in range(3000)
    ]
    tensors = [
        tensor_row(f"m/{random.randrange(300):05}.pt", str(number), f"blake3:{random.randrange(2500)}", 7)
        for number in range(3000)
    ]
    expected: dict[tuple[str, Any], dict[str, int]] = defaultdict(dict)
    for row in files:
        if row.get("link") is None and row["weights"] is not None:
            expected["weights", row["weights"]][row["path"]] = row["bytes"]
        if row.get("link") is None and row["digest"] is not None:
            expected["bytes", (row["digest"], row["bytes"])][row["path"]] = row["bytes"]
    for row in tensors:
        expected["tensor", row["digest"]][row["path"]] = row["bytes"]
    found = {
        (
            kind,
            digest if kind != "bytes" else digest[0],
            len(paths),
            min(paths.values()),
            min(paths.values()) * (len(paths) - 1),
            tuple(sorted(paths)[:PATHS_SHOWN]),
        )
        for (kind, digest), paths in expected.items()
        if len(paths) > 1
    }
    assert max(count for _, _, count, *_ in found) > PATHS_SHOWN
    shards = {
        "files": [files[start : start + 1000] for start in range(0, 3000, 1000)],
        "tensors": [tensors[:100], tensors[100:]],
    }
    with open_inventory(write_inventory(tmp_path / "i", shards), spill=tmp_path) as inventory:
        rows = ask(inventory, "FROM duplicates")
    assert {(*row[:5], tuple(row[5])) for row in rows} == found
    assert len(rows) == len(found)


def test_a_kind_that_is_not_asked_for_is_not_worked_out(inventory: Inventory) -> None:
    def scans(sql: str) -> int:
        ((_, plan),) = ask(inventory, f"EXPLAIN {sql}")
        return str(plan).count("READ_PARQUET")

    assert scans("SELECT * FROM duplicates") == 6
    assert scans("SELECT * FROM duplicates WHERE kind = 'weights'") == 2


def test_a_table_that_an_inventory_lacks_is_empty(tmp_path: Path) -> None:
    place = write_inventory(tmp_path / "i", {})
    (place / INVENTORY_FILE).write_text('{"format": "holdfast inventory 1", "root": "/a", "tables": {}}')
    with open_inventory(place, spill=tmp_path) as inventory:
        for name, columns in VIEWS.items():
            answer = inventory.ask(f'FROM "{name}"')
            assert answer.columns == {column: about.type for column, about in columns.items()}
            assert list(answer.rows) == []


@pytest.mark.parametrize("size", ["size", "bytes"])
def test_a_flat_table_of_files(tmp_path: Path, size: str) -> None:
    place = tmp_path / "models.parquet"
    duckdb.sql(f"SELECT 'a.pt' AS path, 12::BIGINT AS {size}, 'w' AS weights FROM range(2)").write_parquet(str(place))
    with open_inventory(place, spill=tmp_path) as inventory:
        assert ask(inventory, "SELECT path, bytes, etag FROM files") == [("a.pt", 12, None)] * 2
        assert ask(inventory, "SELECT kind, files, saved FROM duplicates") == [("weights", 2, 12)]
        assert ask(inventory, "FROM tensors") == []


@pytest.mark.parametrize("name", ["a[b]c", "a*", "what?", "a{b,c}", "it's", 'back\\slash, "ä'])
def test_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """A name that DuckDB would take for a pattern names one folder, and no other that fits."""
    for other in ("abc", "ab", "whatx"):
        write_inventory(tmp_path / other, {"files": [[file_row("other.pt")]]})
    place = write_inventory(tmp_path / name, {"files": [[file_row("this.pt")]]})
    with open_inventory(place, spill=tmp_path / "spill") as inventory:
        assert ask(inventory, "SELECT path FROM files") == [("this.pt",)]
    next(place.rglob("*.parquet")).write_bytes(b"torn")
    with pytest.raises(DamagedInventoryError) as caught, open_inventory(place, spill=tmp_path / "spill"):
        pass
    assert f"{place}/files/" in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "kind", "value"),
    [
        ("1::UTINYINT", "UTINYINT", 1),
        ("sum(bytes) FROM files", "HUGEINT", 1250),
        ("170141183460469231731687303715884105727::HUGEINT", "HUGEINT", 2**127 - 1),
        ("1.25::DECIMAL(9,2)", "DECIMAL(9,2)", 1.25),
        ("0.1::DOUBLE", "DOUBLE", 0.1),
        ("true", "BOOLEAN", True),
        ("'ä\n'", "VARCHAR", "ä\n"),
        ("NULL", "NULL", None),
        ("NULL::TIMESTAMPTZ", "TIMESTAMPTZ", None),
        ("TIMESTAMPTZ '2026-11-20 01:02:03+02'", "TIMESTAMPTZ", "2026-11-19T23:02:03+00:00"),
        ("TIMESTAMPTZ '2026-11-20 01:02:03.5Z'", "TIMESTAMPTZ", "2026-11-20T01:02:03.5+00:00"),
        ("TIMESTAMPTZ 'infinity'", "TIMESTAMPTZ", "infinity"),
        ("TIMESTAMP '2026-11-20 01:02:03'", "TIMESTAMP", "2026-11-20T01:02:03"),
        ("DATE '2026-11-20'", "DATE", "2026-11-20"),
        ("max(modified)::DATE FROM files", "DATE", "2026-11-20"),
        ("TIME '01:02:03'", "TIME", "01:02:03"),
        ("INTERVAL 3 DAY", "INTERVAL", "3 days"),
        (r"'\xAB'::BLOB", "BLOB", "ab"),
        ("'1f0c3ab2-0000-4000-8000-000000000000'::UUID", "UUID", "1f0c3ab2-0000-4000-8000-000000000000"),
        ("[1, NULL, 2]", "INTEGER[]", [1, None, 2]),
        ("[TIMESTAMPTZ '2026-11-20 00:00:00Z']", "TIMESTAMPTZ[]", ["2026-11-20 00:00:00+00"]),
        ("[1, 2]::INTEGER[2]", "INTEGER[2]", [1, 2]),
        ("{'a': 1, 'b': [true]}", "STRUCT(a INTEGER, b BOOLEAN[])", {"a": 1, "b": [True]}),
        ("best FROM runs ORDER BY value DESC LIMIT 1", "MAP(VARCHAR, DOUBLE)", {"accuracy": 0.9}),
        ("""'{"a": [1]}'::JSON""", "JSON", {"a": [1]}),
        ("'b'::ENUM('a', 'b')", "ENUM('a', 'b')", "b"),
    ],
)
def test_values_are_those_of_json(inventory: Inventory, sql: str, kind: str, value: Any) -> None:
    answer = inventory.ask(f"SELECT {sql}")
    assert list(answer.columns.values()) == [kind]
    ((found,),) = answer.rows
    assert found == value
    assert type(found) is type(value)
    assert json.loads(json.dumps(found)) == value


def test_columns_of_one_name_are_told_apart(inventory: Inventory) -> None:
    answer = inventory.ask("SELECT 1 AS a, 2 AS a, 3 AS b")
    assert list(answer.columns) == ["a", "a_1", "b"]
    assert list(answer.rows) == [(1, 2, 3)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT path FROM files -- all",
        ";; SELECT path FROM files; ;-- all",
        "/* ; */ (SELECT path FROM files)",
        "WITH f AS (FROM files) SELECT path FROM f",
        "FROM files SELECT path",
        "SELECT path FROM files WHERE path <> ';' AND path <> $$;$$",
        "SELECT path FROM query_table('files')",
    ],
)
def test_forms_of_a_query(inventory: Inventory, sql: str) -> None:
    assert len(ask(inventory, sql)) == inventory.count(sql) == 4


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("VALUES (1), (2)", 2),
        ("DESCRIBE files", len(TABLES["files"])),
        ("SUMMARIZE files", len(TABLES["files"])),
        ("SHOW TABLES", len(VIEWS)),
        ("PIVOT files ON format USING sum(bytes) GROUP BY family", 3),
        ("SELECT * FROM (PIVOT files ON format USING sum(bytes) GROUP BY family)", 3),
        ("UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b", 2),
        ("EXPLAIN SELECT * FROM files", 1),
        ("explain -- how\n analyze SELECT * FROM files;", 1),
    ],
)
def test_other_queries(inventory: Inventory, sql: str, rows: int) -> None:
    answer = inventory.ask(sql)
    assert len(list(answer.rows)) == rows
    assert answer.plan is sql.lower().startswith("explain")


def test_order_and_limit(inventory: Inventory) -> None:
    sql = "SELECT range AS n FROM range(30000) ORDER BY hash(n), n"
    whole = ask(inventory, sql)
    assert len(whole) == 30_000
    assert whole == ask(inventory, sql)
    assert ask(inventory, sql, 7) == whole[:7]
    assert inventory.count(sql) == 30_000


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT pth FROM files", 'line 1, column 8: Referenced column "pth" not found in FROM clause! Candidate'),
        ("SELECT *\n  FROM filez", 'line 2, column 8: Table with name filez does not exist! Did you mean "files"?'),
        ("SELECT *\n  FROM zzzzzzzz", "line 2, column 8: Table with name zzzzzzzz does not exist"),
        ("SELECT 'ä', pth FROM files", "line 1, column 13: Referenced"),
        ("EXPLAIN SELECT pth FROM files", "line 1, column 16: Referenced"),
        ("SELEC 1", "line 1, column 1: syntax error"),
        ("SELECT (1", "syntax error"),
        ("SELECT 1) UNION (SELECT 2", "line 1, column 9: syntax error"),
        ("SELECT 1 /*", "unterminated"),
        ("FROM references", 'Write "references", with the quotes'),
        ("SELECT path::INT FROM files", "line 1, column 12: Could not convert string"),
        ("SELECT $a", "Values were not provided"),
        ("", "A query is one statement, and there is none"),
        ("-- nothing", "there is none"),
        ("SELECT '\0'", "no text"),
        ("SELECT '\udcff'", "no text"),
        ("SELECT 1; SELECT 2", "these are 2 statements"),
    ],
)
def test_errors_say_where(inventory: Inventory, sql: str, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        ask(inventory, sql)
    assert message in str(caught.value)
    assert "{" not in str(caught.value)


def test_a_query_after_an_error_is_answered(inventory: Inventory) -> None:
    with pytest.raises(QueryError):
        ask(inventory, "SELECT path::INT FROM files")
    assert ask(inventory, "SELECT 1") == [(1,)]


def test_too_little_memory(place: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(QueryMemoryError, match=r"more memory, or room on disk, than it may have\. `--memory`"),
        open_inventory(place, memory=8_000_000, spill=tmp_path / "spill") as inventory,
    ):
        ask(inventory, "SELECT list(range || '') FROM range(5000000)")


@pytest.mark.soak
def test_too_little_room_on_disk(place: Path, tmp_path: Path) -> None:
    """A query that would fill the disk is ended while there is room, and leaves nothing."""
    spill = tmp_path / "spill"
    with (
        pytest.raises(QueryMemoryError, match="room on disk"),
        open_inventory(place, memory=10_000_000, spill=spill) as inventory,
    ):
        ask(inventory, "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY hash(range)) AS n FROM range(5000000))")
    assert not spill.exists()


def test_what_does_not_fit_goes_to_disk(place: Path, tmp_path: Path) -> None:
    spill = tmp_path / "not" / "yet" / "there"
    with open_inventory(place, memory=30_000_000, spill=spill) as inventory:
        answer = inventory.ask("SELECT range || '' AS n FROM range(1000000) ORDER BY hash(range)")
        rows = iter(answer.rows)
        next(rows)
        assert any(spill.iterdir())
        assert sum(1 for _ in rows) == 999_999
    assert not spill.exists()


def test_the_spill_folder_is_made_where_it_is_needed(inventory: Inventory, tmp_path: Path) -> None:
    ask(inventory, "FROM duplicates ORDER BY ALL")
    assert list(tmp_path.iterdir()) == []


# damage


def shard_of(place: Path, table: str, number: int = 0) -> Path:
    return place / json.loads((place / INVENTORY_FILE).read_text())["tables"][table][number]


@pytest.fixture
def damaged(place: Path, tmp_path: Path) -> Path:
    shutil.copytree(place, tmp_path / "inventory")
    return tmp_path / "inventory"


def refused(place: Path, sql: str = "SELECT max(COLUMNS(*)) FROM files") -> str:
    with (
        pytest.raises(DamagedInventoryError) as caught,
        open_inventory(place, spill=place.parent / "spill") as inventory,
    ):
        ask(inventory, sql)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 13
    return str(caught.value)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("data", [b"", b"PAR1", b"no table at all, but long enough to be one", None])
def test_a_shard_that_is_torn_or_missing(damaged: Path, number: int, data: bytes | None) -> None:
    shard = shard_of(damaged, "files", number)
    shard.write_bytes(data) if data is not None else shard.unlink()
    text = refused(damaged)
    assert text.startswith(f"{shard} is damaged: ")
    assert "holdfast scan" in text


@pytest.mark.parametrize("number", [0, 1])
def test_a_shard_whose_end_is_cut_off(damaged: Path, number: int) -> None:
    shard = shard_of(damaged, "files", number)
    shard.write_bytes(shard.read_bytes()[:-20])
    assert f"{shard} is damaged" in refused(damaged)


def test_a_shard_with_bytes_that_changed(damaged: Path) -> None:
    shard = shard_of(damaged, "files", 1)
    data = bytearray(shard.read_bytes())
    data[20:400] = bytes(380)
    shard.write_bytes(data)
    assert f"{shard} is damaged" in refused(damaged)


@pytest.mark.parametrize("number", [0, 1])
def test_a_shard_of_another_table(damaged: Path, number: int) -> None:
    shard = shard_of(damaged, "files", number)
    shard.write_bytes(shard_of(damaged, "tensors").read_bytes())
    assert f"{shard} is damaged" in refused(damaged)


def test_a_column_of_another_type(damaged: Path) -> None:
    shard = shard_of(damaged, "references")
    columns = ", ".join(f"NULL::VARCHAR AS {name}" for name in TABLES["references"])
    duckdb.sql(f"SELECT {columns}").write_parquet(str(shard))
    assert refused(damaged).startswith(f"{shard} is damaged: its column `cell` is VARCHAR, not BIGINT")


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ("{", "it is no JSON"),
        ("[]", "another format"),
        ('{"format": "holdfast inventory 2", "tables": {}}', "another format"),
        ('{"format": "holdfast inventory 1"}', "no lists of shards"),
        ('{"format": "holdfast inventory 1", "tables": {"files": "a"}}', "no lists of shards"),
        ('{"format": "holdfast inventory 1", "tables": {"files": ["../secret.parquet"]}}', "no lists of shards"),
        ('{"format": "holdfast inventory 1", "tables": {"files": ["/etc/passwd"]}}', "no lists of shards"),
        ('{"format": "holdfast inventory 1", "tables": {"files": ["files/ab/*.parquet"]}}', "no lists of shards"),
    ],
)
def test_an_inventory_of_another_form(damaged: Path, document: str, why: str) -> None:
    (damaged / INVENTORY_FILE).write_text(document)
    text = refused(damaged)
    assert text.startswith(f"{damaged / INVENTORY_FILE} is damaged: ")
    assert why in text


def test_no_inventory(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "gone", tmp_path / "gone.parquet"):
        with (
            pytest.raises(NoInventoryError, match=r"No inventory at .*`holdfast scan … --parquet"),
            open_inventory(place, spill=tmp_path),
        ):
            pass


def test_a_flat_table_of_something_else(tmp_path: Path) -> None:
    place = tmp_path / "other.parquet"
    duckdb.sql("SELECT 1 AS a").write_parquet(str(place))
    with pytest.raises(DamagedInventoryError, match="no column `path`"), open_inventory(place, spill=tmp_path):
        pass
    place.write_bytes(b"torn")
    with (
        pytest.raises(DamagedInventoryError, match=r"other\.parquet is damaged"),
        open_inventory(place, spill=tmp_path),
    ):
        pass
