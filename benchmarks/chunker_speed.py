"""How fast files are cut, in how much memory, and how much of a history is stored for each choice of lengths.

    python benchmarks/chunker_speed.py [--megabytes 400] [--rounds 5] [--history-megabytes 48] [--folder DIR]

Speeds are GB/s of random bytes by processor time, and ratios to BLAKE3 on one thread, which every byte goes through
anyway. ``fastcdc`` (the other library) is measured where it is installed. Histories are five versions of a file with
edits as people make them; *stored* is zstd level 3 of each distinct chunk and 150 bytes in pack and index,
over the bytes of all versions. Goals: chunks of a file at 1 GB/s or more, a 10 GB file in 64 MB of memory beyond what
Python takes with the module loaded. Writes benchmarks/results/chunker_speed.json.
"""

import argparse
import importlib.util
import io
import json
import random
import sqlite3
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import numpy as np
import zstandard
from blake3 import blake3
from PIL import Image
from pyfastcdc import FastCDC

from harness import judge, machine, print_goals, reducible, versions, write_results
from holdfast.formats.source import FileSource, MemorySource
from holdfast.vault.chunk import NORMALIZATION, WINDOW_BYTES, chunk_lengths, chunking_of
from holdfast.vault.split import BLOCK_BYTES, split_source

GOAL_GB_S, GOAL_MB = 1.0, 64
KIB, PLACE_BYTES, VERSIONS = 1024, 150, 5
# KiB of minimum, average, maximum; normalization
CHOICES = [
    (16, 64, 256, 1), (32, 128, 512, 1), (32, 128, 512, 2), (64, 256, 1024, 1), (64, 256, 1024, 2), (64, 256, 1024, 3),
    (128, 256, 1024, 2), (128, 512, 2048, 1), (256, 1024, 4096, 1), (256, 1024, 4096, 2),
]  # fmt: skip
GIANT_BYTES = 10_000_000_000
CHILD = """
import sys
from pathlib import Path
from holdfast.formats.source import FileSource
from holdfast.vault.split import split_source
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
before = peak()
with FileSource(Path(sys.argv[1])) as source:
    pieces = len(split_source(source).pieces)
print(pieces, peak() - before)
"""


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=400, help="size of the file whose speed is taken")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians count")
    parser.add_argument("--history-megabytes", type=int, default=48, help="size of each version of each history")
    parser.add_argument(
        "--folder", type=Path, help="where files are written; the system's temporary folder if not given"
    )
    options = reducible(parser, megabytes=100, history_megabytes=8, rounds=3)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        speeds = speed(folder, options.megabytes * 1_000_000, options.rounds)
        giants = {what: giant(folder / "giant", make) for what, make in (("bytes", sparse), ("safetensors", tensors))}
        stored = histories(folder, options.history_megabytes * 1_000_000)
    result: dict[str, Any] = {
        "what": "GB/s of random bytes by processor time, medians of rounds in turn; "
        "stored bytes of histories over their plain bytes",
        "machine": machine(),
        "versions": versions("pyfastcdc", "blake3", "numpy", "zstandard", "duckdb", *other_library()),
        "megabytes": options.megabytes,
        "rounds": options.rounds,
        "gigabytes_per_second": speeds,
        "ratio_to_blake3_on_one_thread": {
            what: round(x / speeds["BLAKE3, one thread"], 2) for what, x in speeds.items()
        },
        "file_of_10_gb": giants,
        "stored_share_of_histories": stored,
        "goals": {
            "chunks of a file, GB/s": judge(speeds["chunks of a file"], "≥", GOAL_GB_S),
            "memory of a 10 GB file, MB": judge(max(one["megabytes"] for one in giants.values()), "≤", GOAL_MB),
        },
    }
    write_results("chunker_speed", result, options)
    for what, figure in speeds.items():
        print(f"{what:34} {figure:6.2f} GB/s")
    for what, figures in giants.items():
        print(f"10 GB of {what}: {figures['pieces']} pieces in {figures['megabytes']} MB")
        print(f"  {figures['seconds']} s, reading alone {figures['reading_seconds']} s")
    for choice, shares in stored.items():
        print(f"{choice:24} " + "  ".join(f"{kind} {share}" for kind, share in shares.items()))
    print_goals(result["goals"])


def other_library() -> list[str]:
    """``fastcdc`` where it is installed."""
    return ["fastcdc"] if importlib.util.find_spec("fastcdc") else []


def speed(folder: Path, nbytes: int, rounds: int) -> dict[str, float]:
    """Median GB/s of processor time of each way, taken in turn."""
    data = np.random.default_rng(1).bytes(nbytes)
    path = folder / "random"
    path.write_bytes(data)
    lengths = chunking_of(BLOCK_BYTES)
    cutter = FastCDC(
        lengths.average, min_size=lengths.minimum, max_size=lengths.maximum, normalized_chunking=NORMALIZATION
    )
    ways: dict[str, Callable[[], object]] = {
        "BLAKE3, one thread": lambda: blake3(data).digest(),
        "pyfastcdc, in memory": lambda: sum(chunk.length for chunk in cutter.cut_buf(data)),
        "chunks of a file": lambda: chunked(path),
        "reading the file": lambda: read(path),
    }
    if other_library():
        from fastcdc import fastcdc

        ways["fastcdc, in memory"] = lambda: sum(
            chunk.length for chunk in fastcdc(data, lengths.minimum, lengths.average, lengths.maximum)
        )
    times: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(rounds + 1):
        for what, way in ways.items():
            start = time.process_time()
            way()
            times[what].append(time.process_time() - start)
    return {what: round(nbytes / median(taken[1:]) / 1e9, 2) for what, taken in times.items()}


def chunked(path: Path) -> int:
    """The number of pieces of a file."""
    with FileSource(path) as source:
        return len(split_source(source).pieces)


def read(path: Path) -> None:
    """Read a file as chunks are read, and do nothing with it."""
    with FileSource(path) as source:
        for offset in range(0, source.size, WINDOW_BYTES):
            source.read(offset, WINDOW_BYTES)


def giant(path: Path, make: Callable[[Path], None]) -> dict[str, float]:
    """Seconds, those of reading alone, peak memory and pieces of a file of 10 GB, cut in a process of its own."""
    make(path)
    start = time.perf_counter()
    read(path)
    reading = time.perf_counter() - start
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    path.unlink()
    pieces, kilobytes = map(int, done.stdout.split())
    return {
        "seconds": round(seconds, 2),
        "reading_seconds": round(reading, 2),
        "megabytes": round(kilobytes / 1000, 1),
        "pieces": pieces,
    }


def sparse(path: Path) -> None:
    """A file of holes, which reads as zeros."""
    with open(path, "wb") as stream:
        stream.truncate(GIANT_BYTES)


def tensors(path: Path) -> None:
    """A safetensors file of 300 tensors whose bytes are holes."""
    each = GIANT_BYTES // 300 // 4 * 4
    entries = {
        f"layers.{n}.weight": {"dtype": "F32", "shape": [each // 4], "data_offsets": [n * each, (n + 1) * each]}
        for n in range(300)
    }
    header = json.dumps(entries).encode()
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + 300 * each)


def histories(folder: Path, nbytes: int) -> dict[str, dict[str, float]]:
    """For each choice of lengths and each kind of file, the share of a history's bytes that is stored."""
    made = {kind: list(make(folder, nbytes)) for kind, make in HISTORIES.items()}
    finest = FastCDC(64 * KIB, normalized_chunking=NORMALIZATION)
    # nothing stores less than that: the first version, and no more
    alone = {kind: stored(finest, states[:1]) * len(states[0]) / sum(map(len, states)) for kind, states in made.items()}
    shares = {"first version alone": {kind: round(share, 3) for kind, share in alone.items()}}
    for minimum, average, maximum, level in CHOICES:
        cutter = FastCDC(average * KIB, min_size=minimum * KIB, max_size=maximum * KIB, normalized_chunking=level)
        name = f"{minimum}/{average}/{maximum} KiB, {level}"
        shares[name] = {kind: round(stored(cutter, states), 3) for kind, states in made.items()}
    ours = chunking_of(BLOCK_BYTES)
    assert (ours.minimum, ours.average, ours.maximum) in {tuple(n * KIB for n in choice[:3]) for choice in CHOICES}
    for states in made.values():  # the borders of the module are those that were measured
        cutter = FastCDC(ours.average, min_size=ours.minimum, max_size=ours.maximum, normalized_chunking=NORMALIZATION)
        cut = [chunk.length for chunk in cutter.cut_buf(states[0])]
        assert cut == list(chunk_lengths(MemorySource(states[0]), 0, len(states[0]), ours))
    return shares


def stored(cutter: FastCDC, states: list[bytes]) -> float:
    """What is stored of a history, over its bytes."""
    compressor, seen, total = zstandard.ZstdCompressor(level=3), set(), 0
    for state in states:
        for chunk in cutter.cut_buf(state):
            digest = blake3(chunk.data).digest()
            if digest not in seen:
                seen.add(digest)
                total += min(chunk.length, len(compressor.compress(chunk.data))) + PLACE_BYTES
    return total / sum(map(len, states))


def csv(_: Path, nbytes: int) -> Iterator[bytes]:
    """A table of measurements: rows are added at its end, and in five places between."""
    chance = random.Random(2)

    def row() -> str:
        return f"{chance.randrange(10**9)},{chance.random():.6f},{chance.gauss(0, 1):.4f},{chance.choice('abcdef')}"

    rows = [row() for _ in range(nbytes // 29)]
    for _ in range(VERSIONS):
        yield ("\n".join(rows) + "\n").encode()
        for _ in range(5):
            place = chance.randrange(len(rows))
            rows[place:place] = [row() for _ in range(50)]
        rows += [row() for _ in range(1000)]


def source_tree(_: Path, nbytes: int) -> Iterator[bytes]:
    """A tar of Python's own library: ten files get a line each."""
    chance, files, total = random.Random(3), {}, 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in path.parts and total < nbytes:
            files[path.as_posix().lstrip("/")] = path.read_bytes()
            total += path.stat().st_size
    for number in range(VERSIONS):
        yield tarred(files)
        for name in chance.sample(sorted(files), 10):
            lines = files[name].splitlines(keepends=True)
            lines.insert(chance.randrange(len(lines) + 1), f"# changed in {number}\n".encode())
            files[name] = b"".join(lines)


def images(_: Path, nbytes: int) -> Iterator[bytes]:
    """A tar of PNG images: three are replaced, two are added."""
    random_numbers, files = np.random.default_rng(4), {}

    def image() -> bytes:
        stream = io.BytesIO()
        slope = np.add.outer(np.arange(160), np.arange(160))[:, :, None] // 2
        pixels = (slope + random_numbers.integers(0, 32, (160, 160, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()

    while sum(map(len, files.values())) < nbytes:
        files[f"images/{len(files):06}.png"] = image()
    for _ in range(VERSIONS):
        yield tarred(files)
        for place in random_numbers.integers(0, len(files), 3):
            files[sorted(files)[place]] = image()
        for _ in range(2):
            files[f"images/{random_numbers.integers(10**6):06}b.png"] = image()


def database(folder: Path, nbytes: int) -> Iterator[bytes]:
    """A table of SQLite with an index: 20 neighbouring rows change in ten places, 500 are added."""
    chance, path = random.Random(5), folder / "history.sqlite"

    def rows(count: int) -> list[tuple[str, float]]:
        return [(f"{chance.getrandbits(128):032x}", chance.random()) for _ in range(count)]

    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE samples (id INTEGER PRIMARY KEY, digest TEXT, value REAL)")
        connection.executemany("INSERT INTO samples (digest, value) VALUES (?, ?)", rows(nbytes // 52))
        connection.execute("CREATE INDEX by_value ON samples (value)")
        for _ in range(VERSIONS):
            connection.commit()
            yield path.read_bytes()
            for _ in range(10):
                first = chance.randrange(nbytes // 52)
                connection.execute("UPDATE samples SET value = value + 1 WHERE id BETWEEN ? AND ?", (first, first + 19))
            connection.executemany("INSERT INTO samples (digest, value) VALUES (?, ?)", rows(500))
    connection.close()


def parquet(folder: Path, nbytes: int) -> Iterator[bytes]:
    """A Parquet file of DuckDB's: a fiftieth is added at its end."""
    path = folder / "history.parquet"
    with duckdb.connect() as connection:
        for version in range(VERSIONS):
            count = int(nbytes / 17 * (1 + version / 50))
            connection.execute(
                f"COPY (SELECT i AS id, hash(i) AS digest, (hash(i * 7) % 1000000) / 1e6 AS value"
                f" FROM range({count}) t(i)) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 122880)"
            )
            yield path.read_bytes()


def tarred(files: dict[str, bytes]) -> bytes:
    """A tar of files, without times."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


HISTORIES: dict[str, Callable[[Path, int], Iterator[Any]]] = {
    "csv": csv, "source tree": source_tree, "images": images, "sqlite": database, "parquet": parquet,
}  # fmt: skip


if __name__ == "__main__":
    main()
