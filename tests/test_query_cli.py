"""`holdfast query` as people and programs use it."""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import save_file

from holdfast.cli.schema import read_schema
from holdfast.inventory.query_views import VIEWS
from query_world import file_row, write_inventory
from worlds import TOOLS, World, environment, make_home, make_repository

ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 1000003 = 7"
SORTING = "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY hash(range), range || '') AS n FROM range(100000000))"
# what a shell starts in the background ignores SIGINT, and so does all that is started by it
INTERRUPTIBLE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from holdfast.cli.main import main; main(sys.argv[1:])"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("query")
    world = World(folder / "project", make_home(folder))
    rows = [file_row(f"models/m{number:03}.pt", number * 5000, weights="blake3:w") for number in range(100)]
    write_inventory(world.root / "inventory", {"files": [rows[:30], rows[30:]]})
    return world


@dataclass(frozen=True)
class Result:
    """What a command printed."""

    out: str
    err: str


def query(world: World, arguments: str, code: int = 0) -> Result:
    done = world.holdfast("query", *shlex.split(arguments), code=code)
    return Result(done.stdout, done.stderr)


def test_a_table(world: World) -> None:
    out = query(world, '"SELECT path, bytes, bytes / 3 AS third FROM files ORDER BY path" --limit 5').out
    assert [line.rstrip() for line in out.strip().splitlines()] == [
        "path              bytes     third",
        " ─────────────────────────────────",
        " models/m000.pt        0         0",
        " models/m001.pt     5000   1666.67",
        " models/m002.pt   10,000   3333.33",
        " models/m003.pt   15,000      5000",
        " models/m004.pt   20,000   6666.67",
        "",
        "… and 95 more rows; `--all` prints all.",
    ]


def test_rows_that_are_shown(world: World) -> None:
    assert query(world, '"SELECT path FROM files"').out.count("models/") == 40
    assert "… and 60 more rows" in query(world, '"SELECT path FROM files"').out
    assert query(world, '"SELECT path FROM files" --all').out.count("models/") == 100
    assert "more row" not in query(world, '"SELECT path FROM files LIMIT 40"').out
    assert "… and 1 more row;" in query(world, '"SELECT path FROM files LIMIT 41"').out
    assert "more row" not in query(world, '"SELECT path FROM files" --limit 100').out
    assert query(world, '"SELECT path FROM files WHERE false"').out == "No rows.\n"
    assert "contradict" in query(world, "'SELECT 1' --all --limit 3", code=2).err


def test_cells(world: World) -> None:
    """Digests are long, years are no amounts, and a name is no line and steers no terminal."""
    digest = "blake3:" + "0123456789abcdef" * 4
    sql = f"SELECT '{digest}' AS a, 2026 AS b, -1234567 AS c, 1234567.8 AS d, 'x' || chr(10) || chr(27) AS e, NULL AS f"
    cells = query(world, f'"{sql}" --md').out.splitlines()[-1]
    assert cells == r"| blake3:0123456789ab… | 2026 | -1,234,567 | 1,234,568 | x\n\x1b |  |"
    assert json.loads(query(world, f'"{sql}" --json').out)["rows"][0]["a"] == digest
    assert digest in query(world, f'"{sql}" --csv').out


def test_markdown(world: World) -> None:
    out = query(world, '"SELECT kind, files, paths[1:2] AS first FROM duplicates" --md').out
    assert out == ("| kind | files | first |\n| --- | --: | --- |\n| weights | 100 | models/m000.pt models/m001.pt |\n")


def test_json(world: World) -> None:
    schema = json.loads(read_schema(("query",)))
    for arguments, rows, more in (
        ('"SELECT path, bytes FROM files ORDER BY path" --json', 100, 0),
        ('"SELECT path, bytes FROM files ORDER BY path" --json --limit 2', 2, 98),
        ('"SELECT path, bytes FROM files WHERE false" --json', 0, 0),
        ("\"SELECT 'NaN'::DOUBLE AS path, 0 AS bytes\" --json", 1, 0),
    ):
        found = json.loads(query(world, arguments).out)
        jsonschema.validate(found, schema)
        assert (len(found["rows"]), found["more"]) == (rows, more)
        assert [column["name"] for column in found["columns"]] == ["path", "bytes"]
    assert found["rows"] == [{"path": None, "bytes": 0}]
    views = json.loads(query(world, "--json").out)
    jsonschema.validate(views, schema)
    assert [view["name"] for view in views["views"]] == list(VIEWS)
    assert [view["rows"] for view in views["views"]] == [100, 0, 0, 0, None]


def test_csv(world: World) -> None:
    sql = "SELECT 'a,\"b' AS text, NULL AS nothing, [1, 2] AS list, true AS flag, 12345678 AS n, 0.1::DOUBLE AS x"
    rows = list(
        csv.DictReader(
            io.StringIO(query(world, f"'{sql.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}' --csv").out)
        )
    )
    assert rows == [{"text": 'a,"b', "nothing": "", "list": "[1, 2]", "flag": "true", "n": "12345678", "x": "0.1"}]
    assert len(query(world, '"FROM range(2500)" --csv').out.splitlines()) == 2501
    assert query(world, "--csv").out.splitlines()[0] == "view,column,type,meaning"


def test_views_are_listed(world: World) -> None:
    out = query(world, "").out
    assert "files: 100 rows" in out
    assert "\nduplicates\n" in out
    for columns in VIEWS.values():
        assert all(re.search(rf"^ {name} ", out, re.MULTILINE) for name in columns)


def test_a_plan_is_printed_as_it_is(world: World) -> None:
    assert query(world, '"EXPLAIN SELECT path FROM files"').out.startswith("╭")
    assert query(world, '"EXPLAIN SELECT path FROM files" --md').out.startswith("```\n╭")
    assert query(world, "\"SELECT 'a' AS explain_value\"").out.split() == ["explain_value", "─" * 13, "a"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ('"SELECT pth FROM files"', 2, 'holdfast: line 1, column 8: Referenced column "pth" not found'),
        ("\"COPY files TO 'x'\"", 2, "COPY is no query. Queries are SELECT, FROM,"),
        ("\"FROM read_text('/etc/passwd')\"", 2, "A query reads the views of the inventory, and nothing else"),
        ("'SELECT 1' --inventory gone", 2, "No inventory at gone. `holdfast scan … --parquet gone` writes one"),
        ("'SELECT 1' --memory much", 2, "'much' is no number of bytes"),
        ("'SELECT list(range) FROM range(9999999)' --memory 9MB", 1, "more memory, or room on disk, than it may have"),
    ],
)
def test_errors_are_one_line(world: World, arguments: str, code: int, message: str) -> None:
    result = query(world, arguments, code=code)
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert message in result.err


def process(world: World, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            INTERRUPTIBLE,
            "query",
            *arguments,
        ],
        cwd=world.root,
        env=environment(world.home) | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_sql_from_standard_input_and_nothing_printed_before_it(world: World) -> None:
    with process(world, "-", "--csv") as running:
        assert running.communicate("SELECT count(*) AS n\nFROM files -- all\n") == ("n\n100\n", "")
    assert running.returncode == 0


def test_days_begin_at_the_same_time_everywhere(world: World) -> None:
    sql = "SELECT DISTINCT modified, modified::DATE AS day, hour(modified) AS hour FROM files"
    with process(world, sql, "--csv", TZ="America/Los_Angeles") as running:
        out, _ = running.communicate()
    assert out.splitlines() == ["modified,day,hour", "2026-11-20T01:02:03+00:00,2026-11-20,1"]


@pytest.mark.parametrize("sql", [ENDLESS, pytest.param(SORTING, marks=pytest.mark.soak)])
def test_ctrl_c_ends_a_query_and_leaves_nothing(world: World, sql: str) -> None:
    """Soak: so is one that sorts on disk, which DuckDB by itself would finish first."""
    spill = world.home / "cache" / "holdfast" / "queries"
    with process(world, sql, "--memory", "300MB") as running:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (
            not any(spill.glob("*.tmp")) if sql == SORTING else _processor_seconds(running.pid) < 1.5
        ):
            time.sleep(0.05)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        began = time.monotonic()
        try:
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
        seconds = time.monotonic() - began
    assert (running.returncode, out, err) == (130, "", "holdfast: interrupted\n")
    assert not spill.exists()
    assert seconds < 10  # one is the aim; the machine may be busy


def _processor_seconds(pid: int) -> float:
    """How long a process has worked: reading the command takes half a second, and the rest is the query."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_no_database_is_loaded_before_it_is_asked() -> None:
    code = "import sys, holdfast.cli.query; sys.exit(any(name.startswith('duckdb') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_reader_that_leaves_is_no_failure(world: World) -> None:
    done = subprocess.run(
        ["sh", "-c", f"'{TOOLS}/holdfast' query --csv 'FROM range(3000000)' | head -2"],
        cwd=world.root,
        env=environment(world.home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("range\n0\n", "")


def test_a_scan_is_asked(tmp_path: Path) -> None:
    """What `scan` writes is what `query` reads, with digests of weights and tensors."""
    world = make_repository(tmp_path)
    (world.root / "models").mkdir()
    one = {"layer.weight": np.arange(12, dtype=np.float32).reshape(3, 4)}
    save_file(one, world.root / "models" / "a.safetensors")
    save_file(one, world.root / "models" / "b.safetensors", metadata={"epoch": "3"})
    (world.root / "train.py").write_text('PATH = "models/a.safetensors"\n')
    world.holdfast("scan", "--parquet", "inventory")
    found = json.loads(
        world.holdfast("query", "--json", "SELECT kind, files, paths FROM duplicates ORDER BY kind").stdout
    )
    paths = ["models/a.safetensors", "models/b.safetensors"]
    assert found["rows"] == [
        {"kind": "tensor", "files": 2, "paths": paths},
        {"kind": "weights", "files": 2, "paths": paths},
    ]
    found = json.loads(world.holdfast("query", "--json", 'SELECT script, line, exact FROM "references"').stdout)
    assert found["rows"] == [{"script": "train.py", "line": 1, "exact": True}]
    world.holdfast("scan", "--parquet", "models.parquet")
    sql = "SELECT count(*) AS n, min(bytes) > 100 AS large FROM files"
    found = json.loads(world.holdfast("query", "--json", "--inventory", "models.parquet", sql).stdout)
    assert found["rows"] == [{"n": 2, "large": True}]
