"""Whole `holdfast query` processes over an inventory of 10 million files and as many tensors, against SQLite and sort.

    python benchmarks/query_scale.py [--rows 10000000] [--rounds 3] [--peer-rounds 1] [--folder DIR] [--reduced]

The rows are made by DuckDB from their numbers, the same each time, in shards of 100,000 as `holdfast scan --parquet`
writes them: paths of 55 characters, digests of 71; in one row of five they are those of an earlier one. Asked are the
20 groups that save most:

- `weights`: the view `duplicates`, groups with equal weights, each with its first ten paths;
- `tensors`: the same of tensors in several files;
- `by hand`: weights, by GROUP BY … HAVING over `files`, without paths.

Peers on the same rows, which must give the same answer: SQLite (a table of path, bytes and weights, asked by the query
of `by hand`; without an index, and with one over weights and bytes whose making is not timed), and `sort | uniq -cd`
over the digests alone as text. Seconds are wall time of whole processes, memory is their peak as the system counts it.
How time and memory grow is seen over a hundredth to the whole of the rows. Goals: weights, 10 million rows: ≤ 8 s and
≤ 2.2 GB. The disk holds 1.0 GB of shards and 3.5 GB for the peers. Writes benchmarks/results/query_scale.json.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results
from holdfast.inventory.table_columns import INVENTORY_FILE, INVENTORY_FORMAT, TABLES, types_of

GOAL_SECONDS, GOAL_GB, GOAL_ROWS = 8.0, 2.2, 10_000_000
SHARD_ROWS = 100_000
SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
TOP = "ORDER BY saved DESC, digest LIMIT 20"
BY_HAND = (
    "SELECT weights AS digest, count(*) AS files, min(bytes) * (count(*) - 1) AS saved FROM files "
    f"WHERE weights IS NOT NULL GROUP BY weights HAVING count(*) > 1 {TOP}"
)
QUESTIONS = {
    "weights": f"SELECT digest, files, saved, paths FROM duplicates WHERE kind = 'weights' {TOP}",
    "tensors": f"SELECT digest, files, saved, paths FROM duplicates WHERE kind = 'tensor' {TOP}",
    "by hand": BY_HAND,
}
# what a row is made of: its number `i`, and `w`, that of the row whose weights it has
ROWS = "(SELECT i, if(hash(i * 7) % 5 = 0, hash(i) % (i // 4 + 1), i)::BIGINT AS w FROM range({first}, {last}) r(i))"
MADE = {
    "files": {
        "path": "printf('models/team-%02d/run-%07d/checkpoint-%04d.safetensors', hash(i) % 40, i // 20, i % 20)",
        "bytes": "1000000 + hash(w) % 1000000000",
        "modified": "TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_seconds(i)",
        "format": "'safetensors'",
        "parameters": "hash(w) % 1000000",
        "dtypes": "'float32:' || hash(w) % 1000000",
        "optimizer_nbytes": "0",
        "family": "printf('models/team-%02d/*/checkpoint-*.safetensors', hash(i) % 40)",
        "status": "'unreferenced'",
        "why": "'nothing refers to it'",
        "tracked": "'none'",
        **dict.fromkeys(("references", "scripts", "configs", "mentions"), "0"),
        "versions": "''",
        "weights": "'blake3:' || sha256('w' || w)",
        "digest": "if(w = i, NULL, 'blake3:' || sha256('b' || w // 2))",
        "opaque": "''",
    },
    "tensors": {
        "path": (
            "printf('models/team-%02d/run-%07d/checkpoint-%04d.safetensors', "
            "hash(i // 50) % 40, i // 1000, i // 50 % 20)"
        ),
        "name": "printf('model.layers.%d.mlp.down_proj.weight', i % 50)",
        "dtype": "'bfloat16'",
        "shape": "[4096, 1 + hash(w) % 4096]",
        "bytes": "8192 * (1 + hash(w) % 4096)",
        "digest": "'blake3:' || sha256('t' || w)",
    },
}
SQLITE = """
import json, sqlite3, sys
place, question = sys.argv[1:]
base = sqlite3.connect(place)
base.execute("PRAGMA cache_size = -1000000")
base.execute("PRAGMA threads = 2")
print(json.dumps(base.execute(question).fetchall()))
"""
SORT = "sort -S 1G --parallel=2 {} | uniq -cd | sort -k1,1nr -k2 | head -20"


@dataclass(frozen=True)
class Taken:
    """What a process took: wall seconds, processor seconds, bytes of memory at its peak; and what it printed."""

    seconds: float
    busy: float
    memory: int
    printed: str


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=GOAL_ROWS, help="files, and as many tensors")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds; medians count")
    parser.add_argument("--peer-rounds", type=int, default=1, help="rounds in which the peers are asked, too")
    parser.add_argument("--folder", type=Path, help="where the rows are made; the system's temporary one if not given")
    options = reducible(parser, rows=1_000_000, rounds=3)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        result = measured(Path(name), options)
    write_results("query_scale", result, options)
    for what, figures in result["measured"].items():
        peers = {peer: f"{found['median']:g}" for peer, found in figures.get("peers", {}).items()}
        said = "; ".join(f"{peer} {figure}" for peer, figure in peers.items())
        print(f"{what:36} {figures['median']:>9g} {figures['unit']} ({figures['min']:g}–{figures['max']:g})  {said}")
    for what, growth in result["series"].items():
        middles = ", ".join(f"{point['size']:,}: {point['median']:g}" for point in growth["points"])
        print(f"{what:36} slope {growth['slope']['fit']}; {growth['points'][0]['unit']} by rows: {middles}")
    print_goals(result["goals"])


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    apart(make_shards, folder, options.rows)
    sizes = sorted({max(1, round(options.rows * share / SHARD_ROWS)) * SHARD_ROWS for share in SHARES if share < 1})
    sizes = [size for size in sizes if size < options.rows] + [options.rows]
    taken: dict[str, list[Taken]] = {}
    growth: dict[int, dict[str, list[Taken]]] = {}
    for size in sizes:
        inventory = make_inventory(folder, size)
        for question in QUESTIONS:
            ask(inventory, question)  # the shards are in memory from now on, as they are for the peers
        for _ in range(options.rounds):
            for question in QUESTIONS:
                growth.setdefault(size, {}).setdefault(question, []).append(ask(inventory, question))
    asked = growth[options.rows]
    start_up = [ask(make_inventory(folder, 0), "weights") for _ in range(options.rounds)]
    if options.peer_rounds:
        taken = ask_peers(folder, options.rows, options.peer_rounds, json.loads(asked["by hand"][0].printed)["rows"])
    peers = {peer: [one.seconds for one in ones] for peer, ones in taken.items()}
    weights = quantity([one.seconds for one in asked["weights"]], "s", peers)
    memory = quantity(
        [one.memory / 1e9 for one in asked["weights"]], "GB", {p: [o.memory / 1e9 for o in t] for p, t in taken.items()}
    )
    full = options.rows >= GOAL_ROWS
    return {
        "what": "wall seconds and peak memory of whole processes, the 20 groups that save most",
        "machine": machine(),
        "versions": versions("duckdb"),
        "shards": sum(place.stat().st_size for place in folder.glob("[ft]*/*/*.parquet")),
        "measured": {
            "weights, seconds": weights,
            "weights, memory": memory,
            **{
                f"{question}, {what}": quantity([of(one) for one in ones], unit)
                for question, ones in asked.items()
                for what, unit, of in (
                    ("seconds", "s", lambda one: one.seconds),
                    ("processor", "s", lambda one: one.busy),
                    ("memory", "GB", lambda one: one.memory / 1e9),
                )
                if question != "weights" or what == "processor"
            },
            "empty inventory": quantity([one.seconds for one in start_up], "s"),
        },
        "series": {
            f"{question}, {what}": grown(
                unit, {size: [of(one) for one in ones[question]] for size, ones in growth.items()}
            )
            for question in QUESTIONS
            for what, unit, of in (
                ("seconds", "s", lambda one: one.seconds),
                ("memory", "GB", lambda one: one.memory / 1e9),
            )
        },
        "goals": {
            f"{GOAL_ROWS:,} rows, duplicates by weights, seconds": judge(
                weights["median"] if full else None, "≤", GOAL_SECONDS
            ),
            f"{GOAL_ROWS:,} rows, duplicates by weights, GB": judge(memory["max"] if full else None, "≤", GOAL_GB),
        },
    }


def grown(unit: str, figures: dict[int, list[float]]) -> dict[str, Any]:
    """A point for each number of rows, and the slope of a line through them where both axes are logarithmic."""
    from growth import slope_of  # imported here, once all is measured: see `apart`

    points = [{"size": rows, **quantity(values, unit)} for rows, values in figures.items()]
    return {"by": "rows", "points": points, "slope": slope_of(points)}


def make_shards(folder: Path, rows: int) -> None:
    """The shards of `rows` files and as many tensors."""
    import duckdb  # imported here: see `apart`

    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as connection:
        for first in range(0, rows, SHARD_ROWS):
            for table, made in MADE.items():
                place = folder / shard(table, first)
                place.parent.mkdir(parents=True, exist_ok=True)
                columns = ", ".join(
                    f'CAST({made.get(column, "NULL")} AS {kind}) AS "{column}"'
                    for column, kind in types_of(TABLES[table]).items()
                )
                source = ROWS.format(first=first, last=min(first + SHARD_ROWS, rows))
                connection.execute(
                    f"COPY (SELECT {columns} FROM {source}) TO '{place}' (FORMAT parquet, COMPRESSION zstd)"
                )


def make_inventory(folder: Path, rows: int) -> Path:
    """An inventory of the first `rows` rows of each table."""
    inventory = folder / f"inventory-{rows}"
    if not inventory.exists():
        inventory.mkdir()
        tables = {table: [shard(table, first) for first in range(0, rows, SHARD_ROWS)] for table in MADE}
        for table in MADE:
            (inventory / table).symlink_to(folder / table)
        document = {"format": INVENTORY_FORMAT, "root": "/models", "tables": tables}
        (inventory / INVENTORY_FILE).write_text(json.dumps(document))
    return inventory


def shard(table: str, first: int) -> str:
    """The name of the shard of a table that begins with a row."""
    name = hashlib.md5(f"{table} {first}".encode(), usedforsecurity=False).hexdigest()
    return f"{table}/{name[:2]}/{name}.parquet"


def ask(inventory: Path, question: str) -> Taken:
    """Run `holdfast query`."""
    tool = Path(sys.executable).parent / "holdfast"
    command = [str(tool), "query", "--json", "--inventory", str(inventory), QUESTIONS[question]]
    return run(command, inventory.parent, XDG_CACHE_HOME=str(inventory.parent))


def ask_peers(folder: Path, rows: int, rounds: int, right: list[dict[str, Any]]) -> dict[str, list[Taken]]:
    """Ask the peers in turn; what they answer is what ours does."""
    base, text = folder / "peer.sqlite", folder / "peer.txt"
    apart(fill_peers, base, text, [str(folder / shard("files", first)) for first in range(0, rows, SHARD_ROWS)])
    taken: dict[str, list[Taken]] = {}
    for indexed in (False, True):
        if indexed:
            run([sys.executable, "-c", SQLITE, str(base), "CREATE INDEX by_weights ON files (weights, bytes)"], folder)
        for _ in range(rounds):
            found = run([sys.executable, "-c", SQLITE, str(base), BY_HAND], folder, SQLITE_TMPDIR=str(folder))
            taken.setdefault("SQLite, indexed" if indexed else "SQLite", []).append(found)
            assert [list(row.values()) for row in right] == json.loads(found.printed), "SQLite answers otherwise"
    for _ in range(rounds):
        found = run(["sh", "-c", SORT.format(text)], folder, LC_ALL="C", TMPDIR=str(folder))
        taken.setdefault("sort | uniq", []).append(found)
        assert found.printed.count("\n") == len(right), "uniq answers otherwise"
    return taken


def fill_peers(base: Path, text: Path, shards: Sequence[str]) -> None:
    """Write SQLite's table of path, bytes and weights, and the weights as text."""
    import sqlite3

    import duckdb  # imported here: see `apart`

    with (
        duckdb.connect(config={"threads": 2, "memory_limit": "1GB", "preserve_insertion_order": False}) as connection,
        contextlib.closing(sqlite3.connect(base)) as written,
        written,
    ):
        connection.execute(f"COPY (SELECT weights FROM read_parquet({shards})) TO '{text}' (FORMAT csv, HEADER false)")
        written.execute("PRAGMA journal_mode = OFF")
        written.execute("CREATE TABLE files (path TEXT, bytes INTEGER, weights TEXT)")
        rows = connection.execute(f"SELECT path, bytes, weights FROM read_parquet({shards})")
        while part := rows.fetchmany(SHARD_ROWS):
            written.executemany("INSERT INTO files VALUES (?, ?, ?)", part)


def apart(function: Callable[..., None], *arguments: object) -> None:
    """Call something in a process of its own: the peak of those that this one starts is never below its own."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, f"{function.__name__} failed"


def run(command: list[str], folder: Path, **variables: str) -> Taken:
    """Run a command that must succeed, and whatever it starts, in a folder."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=os.environ | variables)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # the peak of this one and what it waited for, not of all before it
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Taken(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, printed)


if __name__ == "__main__":
    main()
