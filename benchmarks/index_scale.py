"""The local index of a vault of up to ten million blobs: how long it takes to make and to ask, and how large it is.

    python benchmarks/index_scale.py [--blobs 100000 …] [--peer-blobs 1000000] [--small-segments 10000] [--folder TMP]

cold            a clone that knows nothing reads all segments (index_vault.py: 50,000 blobs each) out of a folder
open            it looks again, and nothing has changed
one more        somebody has pushed one checkpoint of 181 blobs meanwhile; or a history of 50,000
lookups         10,000 files; 100,000 blobs by random ids, half of which are there; 1,000 times those of one checkpoint
push            of a file of 8 MB that nobody has: what it asks of the store, besides what the clone does not know yet
small segments  a clone reads 10,000 segments of 181 blobs, as 10,000 pushes leave them
mark            what a collector does before it knows what is needed, in vaults that peers are measured with
peers           the same places alone, without files: Python's dict, a table of SQLite appended to, and one by id

Each step in a process of its own. Seconds are those on processors: what the store's answers would take comes on top, by
the requests. Slopes are those of the line through the logarithms of all sizes. Goals, at ten million blobs: cold 60 s
and 1 GB, open 0.05 s. Writes benchmarks/results/index_scale.json and a table of docs/explanation/scale.md.
"""

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import md5
from math import log
from pathlib import Path
from statistics import linear_regression
from typing import Any

import numpy as np

import scale_page
from harness import digits, judge, machine, print_goals, quantity, reducible, versions, write_results
from holdfast.objectstore.opening import open_store
from holdfast.vault.counting import CountingStore
from holdfast.vault.index import Index
from holdfast.vault.marking import mark
from holdfast.vault.repository import INDEX_FILE, open_vault
from holdfast.vault.segment import read_segment
from holdfast.vault.session import FileToPut
from holdfast.vault.survey import survey
from index_vault import Shape, make_vault, segment

MB = 1_000_000
SESSION_BLOBS, PUSH_BLOBS = 50_000, 181
OIDS, IDS, CHECKPOINTS = 10_000, 100_000, 1000
PUSH_BYTES = 8 * MB
GOALS = {"cold": 60.0, "cold, peak memory": 1000.0, "open": 0.05}
GROWING = ("cold", "cold, peak memory", "index on disk", "open", "one more push", "100,000 ids", "10,000 files")
UNITS = {"index on disk": "bytes a blob", "segments": "bytes a blob", "cold, peak memory": "MB"}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
    parser.add_argument("--blobs", nargs="+", type=int, default=sizes, help="of vaults, ascending")
    parser.add_argument("--peer-blobs", type=int, default=1_000_000, help="of the largest that peers are measured with")
    parser.add_argument("--small-segments", type=int, default=10_000, help="of a vault of many small pushes")
    parser.add_argument("--folder", type=Path, help="for temporary files; the system's temporary folder")
    parser.add_argument("--child", nargs=3, metavar=("STEP", "VAULT", "CACHE"), help=argparse.SUPPRESS)
    options = reducible(parser, blobs=[100_000, 300_000, 1_000_000], peer_blobs=300_000, small_segments=1000)
    if options.child:
        step, vault, cache = options.child
        print(json.dumps(STEPS[step](Path(vault), Path(cache))))
        return
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for blobs in options.blobs:
        found[str(blobs)] = one_size(blobs, options)
        print(blobs, json.dumps(found[str(blobs)]))
    small = many_segments(options)
    largest = found[str(options.blobs[-1])]
    whole = options.blobs[-1] >= 10_000_000
    results: dict[str, Any] = {
        "what": "processor seconds, bytes and requests of the local index of a vault, by how many blobs it has",
        "machine": machine(),
        "versions": versions("numpy", "zstandard"),
        "sqlite": sqlite3.sqlite_version,
        "measured": {
            **{f"{what}, {options.blobs[-1]:,} blobs": figure for what, figure in largest.items()},
            **{f"{what}, {options.small_segments:,} segments": figure for what, figure in small.items()},
        },
        "by blobs": found,
        "slopes": {what: slope(found, what) for what in GROWING} if len(options.blobs) > 1 else {},
        "goals": {
            f"{what} of 10 M blobs": judge(largest[what]["median"] if whole else None, "≤", goal)
            for what, goal in GOALS.items()
        },
    }
    write_results("index_scale", results, options)
    scale_page.update(options)
    print_goals(results["goals"])


def one_size(blobs: int, options: argparse.Namespace) -> dict[str, Any]:
    """All steps with one vault."""
    shape = Shape(max(round(blobs / SESSION_BLOBS), 2))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        vault = folder / "vault"
        cache = folder / "cache" / make_vault(vault, shape)
        found: dict[str, list[float]] = {}
        for step in ("cold", "warm", "asked", "push", "more push", "more history"):
            found |= run(step, vault, cache)
        figures = {what: quantity(values, UNITS.get(what, unit_of(what))) for what, values in found.items()}
        if blobs <= options.peer_blobs:
            marked = run("mark", vault, cache)
            figures |= {what: quantity(values, unit_of(what)) for what, values in marked.items()}
            theirs = {step: run(step, vault, folder / "peer") for step in PEERS}
            for what in ("cold", "cold, peak memory", "index on disk", "100,000 ids"):
                rivals = {name: result[what] for name, result in theirs.items() if what in result}
                figures[what] = quantity(found[what], UNITS.get(what, unit_of(what)), rivals)
    return figures


def many_segments(options: argparse.Namespace) -> dict[str, Any]:
    """A cold clone of a vault of many small pushes."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        vault = Path(name) / "vault"
        cache = Path(name) / "cache" / make_vault(vault, Shape(options.small_segments, PUSH_BLOBS))
        found = run("cold", vault, cache)
    return {what: quantity(values, UNITS.get(what, unit_of(what))) for what, values in found.items()}


def cold(vault: Path, cache: Path) -> dict[str, list[float]]:
    """Read all segments."""
    before = peak_memory()
    store = CountingStore(open_store(str(vault)))
    with measured() as seconds:
        index = Index(store, cache / INDEX_FILE, jobs=4)
        index.refresh()
    blobs = sum(run.rows for run in index._file.runs())
    index.close()
    return {
        "cold": seconds.processor,
        "cold, wall": seconds.wall,
        "cold, peak memory": [peak_memory()],
        "memory before": [before],
        "blobs": [blobs],
        "segments": [sum(path.stat().st_size for path in (vault / "index").iterdir()) / blobs],
        "index on disk": [sum(path.stat().st_size for path in cache.iterdir()) / blobs],
        "requests, cold": [store.requests],
        "bytes read, cold": [store.bytes_read],
    }


def warm(vault: Path, cache: Path) -> dict[str, list[float]]:
    """Look again."""
    found: dict[str, list[float]] = {"open": [], "open, wall": []}
    for _ in range(7):
        store = CountingStore(open_store(str(vault)))
        with measured() as seconds:
            index = Index(store, cache / INDEX_FILE, jobs=4)
            index.refresh()
        index.close()
        found["open"] += seconds.processor
        found["open, wall"] += seconds.wall
    return {**found, "requests, warm": [store.requests], "bytes read, warm": [store.bytes_read]}


def asked(vault: Path, cache: Path) -> dict[str, list[float]]:
    """Ask what is there."""
    index = Index(open_store(str(vault)), cache / INDEX_FILE, jobs=4)
    index.refresh()
    chances = np.random.default_rng(3)
    rows = index.rows(f"SELECT oid FROM recipes ORDER BY random() LIMIT {OIDS // 2}")
    oids = [oid for (oid,) in rows] + [f"md5:{chances.bytes(16).hex()}" for _ in range(OIDS // 2)]
    runs = index._file.runs()
    there = runs[0].ids(chances.integers(0, runs[0].rows, IDS // 2))
    ids = [name.tobytes() for name in there] + [chances.bytes(32) for _ in range(IDS // 2)]
    some = [chances.choice(len(ids), PUSH_BLOBS, replace=False).tolist() for _ in range(CHECKPOINTS)]
    asked: dict[str, Callable[[], object]] = {
        "10,000 files": lambda: index.standing(oids),
        "100,000 ids": lambda: index.standing_entries(ids),
        "ids of 1,000 checkpoints": lambda: [index.standing_entries([ids[at] for at in each]) for each in some],
    }
    found: dict[str, list[float]] = {}
    for what, ask in asked.items():
        for _ in range(3):
            with measured() as seconds:
                ask()
            found.setdefault(what, []).extend(seconds.processor)
    index.close()
    return {**found, "memory after lookups": [peak_memory()]}


def push(vault: Path, cache: Path) -> dict[str, list[float]]:
    """Push a file that nobody has."""
    store = CountingStore(open_store(str(vault)))
    with tempfile.NamedTemporaryFile() as file:
        data = np.random.default_rng(time.time_ns()).bytes(PUSH_BYTES)
        file.write(data)
        file.flush()
        with measured() as seconds, open_vault(store, cache.parent, jobs=4) as opened, opened.session() as session:
            session.put_many([FileToPut(f"md5:{md5(data, usedforsecurity=False).hexdigest()}", file.name)])
            session.commit()
    return {
        "push": seconds.processor,
        "push, requests": [store.requests],
        "push, bytes read": [store.bytes_read],
        "push, bytes written": [store.bytes_written],
    }


def one_more(vault: Path, cache: Path, blobs: int) -> dict[str, list[float]]:
    """Look again when somebody else has pushed."""
    store = CountingStore(open_store(str(vault)))
    name = f"{time.time_ns():032x}"
    data = segment(Shape(1, blobs, seed=time.time_ns() % 1_000_000), 0)
    store.put(f"index/{name}", data)
    before = store.requests
    with measured() as seconds:
        index = Index(store, cache / INDEX_FILE, jobs=4)
        index.refresh()
    assert name in index.known.segments
    index.close()
    what = "one more push" if blobs == PUSH_BLOBS else "one more history"
    return {what: seconds.processor, f"{what}, requests": [store.requests - before], f"{what}, bytes read": [len(data)]}


def mark_all(vault: Path, cache: Path) -> dict[str, list[float]]:
    """What a collector holds in memory: all that is needed of all packs, which are made here, without content."""
    del cache
    for path in (vault / "index").iterdir():
        for key, size in read_segment(path.name, path.read_bytes()).packs.items():
            pack = vault / key
            pack.parent.mkdir(parents=True, exist_ok=True)
            with open(pack, "wb") as file:
                file.truncate(size)
    before = peak_memory()
    with measured() as seconds:
        marked = mark(survey(open_store(str(vault)), 4))
    assert marked.entries
    return {"mark": seconds.processor, "mark, peak memory": [peak_memory()], "mark, memory before": [before]}


def places(vault: Path) -> Iterator[list[tuple[Any, ...]]]:
    """All places of the vault, segment by segment, as rows."""
    for path in sorted((vault / "index").iterdir()):
        yield [(entry.id, *entry[1:]) for entry in read_segment(path.name, path.read_bytes()).entries()]


def as_dict(vault: Path, cache: Path) -> dict[str, list[float]]:
    """Python's own table."""
    del cache
    with measured() as seconds:
        table = {row[0]: row for rows in places(vault) for row in rows}
    ids = wanted(list(table))
    with measured() as lookup:
        found = [table[name] for name in ids if name in table]
    assert len(found) == IDS // 2
    return {"cold": seconds.processor, "cold, peak memory": [peak_memory()], "100,000 ids": lookup.processor}


def as_table(vault: Path, cache: Path, *, by_id: bool) -> dict[str, list[float]]:
    """A table of SQLite, a transaction for each segment."""
    cache.mkdir(exist_ok=True)
    path = cache / f"{by_id}.sqlite"
    blobs = 0
    with measured() as seconds:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        key = ", PRIMARY KEY (id, pack, offset)) WITHOUT ROWID" if by_id else ")"
        connection.execute(
            f"CREATE TABLE blobs (id BLOB, pack TEXT, offset, stored, plain, base BLOB, depth, kind{key}"
        )
        numbers: dict[str, int] = {}
        for rows in places(vault):
            connection.execute("BEGIN")
            few = [(row[0], numbers.setdefault(row[1], len(numbers)), *row[2:]) for row in rows]
            connection.executemany("INSERT INTO blobs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", sorted(few) if by_id else few)
            connection.execute("COMMIT")
            blobs += len(rows)
    found = {"cold": seconds.processor, "cold, peak memory": [peak_memory()]}
    if by_id:
        ids = wanted([name for (name,) in connection.execute(f"SELECT id FROM blobs LIMIT {IDS // 2}")])
        with measured() as lookup:
            there = 0
            for start in range(0, len(ids), 30_000):
                part = ids[start : start + 30_000]
                marks = ", ".join("?" * len(part))
                there += len(connection.execute(f"SELECT * FROM blobs WHERE id IN ({marks})", part).fetchall())
        assert there == IDS // 2
        found["100,000 ids"] = lookup.processor
    connection.close()
    return {**found, "index on disk": [path.stat().st_size / blobs]}


def wanted(there: list[bytes]) -> list[bytes]:
    """Ids to ask for, half of which are there."""
    chances = np.random.default_rng(3)
    own = [there[at] for at in chances.choice(len(there), IDS // 2, replace=False)]
    return own + [chances.bytes(32) for _ in range(IDS // 2)]


class Seconds:
    """What a ``with measured()`` took."""

    def __init__(self) -> None:
        self.processor: list[float] = []
        self.wall: list[float] = []


@contextmanager
def measured() -> Iterator[Seconds]:
    """Seconds on processors and on the wall."""
    taken, wall, processor = Seconds(), time.perf_counter(), time.process_time()
    yield taken
    taken.processor.append(time.process_time() - processor)
    taken.wall.append(time.perf_counter() - wall)


def peak_memory() -> float:
    """The most memory that this process has had, in MB, pages of files among it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def run(step: str, vault: Path, cache: Path) -> dict[str, list[float]]:
    """A step in a process of its own."""
    command = [sys.executable, __file__, "--child", step, str(vault), str(cache)]
    found: dict[str, list[float]] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def unit_of(what: str) -> str:
    """What a figure is in, by what it is of."""
    if "bytes" in what:
        return "bytes"
    if "requests" in what:
        return "requests"
    return {"memory": "MB", "blobs": "blobs"}.get(what.split()[-1], "MB" if "memory" in what else "s")


def slope(found: dict[str, dict[str, dict[str, Any]]], what: str) -> float:
    """How a figure grows with blobs: 1 is in proportion."""
    points = [(log(each["blobs"]["median"]), log(each[what]["median"])) for each in found.values()]
    return digits(linear_regression(*zip(*points, strict=True)).slope, 3)


PEERS: dict[str, Callable[[Path, Path], dict[str, list[float]]]] = {
    "dict": as_dict,
    "SQLite, appended": partial(as_table, by_id=False),
    "SQLite, by id": partial(as_table, by_id=True),
}
STEPS: dict[str, Callable[[Path, Path], dict[str, list[float]]]] = {
    "cold": cold,
    "warm": warm,
    "asked": asked,
    "push": push,
    "more push": partial(one_more, blobs=PUSH_BLOBS),
    "more history": partial(one_more, blobs=SESSION_BLOBS),
    "mark": mark_all,
    **PEERS,
}

if __name__ == "__main__":
    main()
