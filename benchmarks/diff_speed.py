"""`holdfast diff` of two large checkpoints against the same figures by whole tensors in NumPy; cold against the disk.

    python benchmarks/diff_speed.py [--gigabytes 4] [--rounds 3]

Makes two safetensors files of float32, the second a small step from the first, in a temporary folder, and deletes them.
Whole processes, in turn. Goals: at least 3 times faster than NumPy where the page cache holds both, as fast as the disk
where it holds neither, and at most 500 MB of memory. Writes benchmarks/results/diff_speed.json.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from harness import forget, judge, machine, print_goals, quantity, read, reducible, spread_of, versions, write_results

TENSOR_ELEMENTS = 50_000_000
GOAL_RATIO, GOAL_BYTES = 3.0, 500e6
TOOLS = Path(sys.executable).parent


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of each file")
    parser.add_argument("--rounds", type=int, default=3, help="timed pairs, after one that warms the page cache")
    parser.add_argument("--numpy", nargs=2, metavar=("A", "B"), help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs=2, metavar=("A", "B"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, metavar=("A", "B", "TENSORS"), help=argparse.SUPPRESS)
    options = reducible(parser, gigabytes=1.0)
    if options.numpy:
        whole_tensors(*map(Path, options.numpy))
        return
    if options.read:
        with ThreadPoolExecutor(2) as pool:  # as `holdfast diff` reads them: both at once
            list(pool.map(read, map(Path, options.read)))
        return
    if options.make:
        write_pair(Path(options.make[0]), Path(options.make[1]), int(options.make[2]))
        return
    tensors = max(1, round(options.gigabytes * 1e9 / 4 / TENSOR_ELEMENTS))
    with tempfile.TemporaryDirectory() as folder:
        a, b = Path(folder) / "a.safetensors", Path(folder) / "b.safetensors"
        # in a process of its own: a child's peak counts what its parent held when it was forked
        subprocess.run([sys.executable, __file__, "--make", str(a), str(b), str(tensors)], check=True)
        commands = {
            "holdfast": [str(TOOLS / "holdfast"), "diff", str(a), str(b)],
            "numpy": [sys.executable, __file__, "--numpy", str(a), str(b)],
        }
        cold = {"holdfast": commands["holdfast"], "disk": [sys.executable, __file__, "--read", str(a), str(b)]}
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
        for _ in range(1 + options.rounds):
            for name, command in commands.items():
                runs[name].append(measured(command))
        cold_seconds: dict[str, list[float]] = {name: [] for name in cold}
        for _ in range(options.rounds):
            for name, command in cold.items():
                forget(a)
                forget(b)
                cold_seconds[name].append(measured(command)[0])
        size = a.stat().st_size
    warm = {name: [seconds for seconds, _ in taken[1:]] for name, taken in runs.items()}
    speedup = spread_of([theirs / ours for ours, theirs in zip(warm["holdfast"], warm["numpy"], strict=True)])
    peaks = {name: max(peak for _, peak in taken) for name, taken in runs.items()}
    results = {
        "what": "wall seconds of whole processes that compare two files, in turn",
        "machine": machine(),
        "versions": versions("numpy"),
        "file_bytes": size,
        "measured": {
            "holdfast diff, warm": quantity(warm["holdfast"], "s", {"NumPy": warm["numpy"]}),
            "holdfast diff, cold": quantity(cold_seconds["holdfast"], "s", {"reading both": cold_seconds["disk"]}),
        },
        "peak_bytes": peaks,
        "speedup": speedup,
        "goals": {
            "NumPy ÷ holdfast diff, warm": judge(speedup["median"], "≥", GOAL_RATIO),
            "peak memory, MB": judge(round(peaks["holdfast"] / 1e6, 1), "≤", GOAL_BYTES / 1e6),
        },
    }
    write_results("diff_speed", results, options)
    print(json.dumps(results["measured"], indent=2))
    print_goals(results["goals"])


def write_pair(a: Path, b: Path, tensors: int) -> None:
    """Write both files tensor by tensor: normal numbers, and the same with a step of 1e-3."""
    nbytes = 4 * TENSOR_ELEMENTS
    header = {
        f"layer{number}.weight": {
            "dtype": "F32", "shape": [TENSOR_ELEMENTS], "data_offsets": [number * nbytes, (number + 1) * nbytes]
        }
        for number in range(tensors)
    }  # fmt: skip
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with open(a, "wb") as first, open(b, "wb") as second:
        for stream in (first, second):
            stream.write(struct.pack("<Q", len(text)) + text)
        for _ in range(tensors):
            values = random.standard_normal(TENSOR_ELEMENTS, np.float32)
            first.write(values.data)
            values += np.float32(1e-3) * random.standard_normal(TENSOR_ELEMENTS, np.float32)
            second.write(values.data)


def whole_tensors(a: Path, b: Path) -> None:
    """The peer: each figure over whole tensors, one pair of tensors in memory at a time."""
    for number, (x, y) in enumerate(zip(tensors_of(a), tensors_of(b), strict=True)):
        distance = np.abs(x - y)
        norm = np.linalg.norm(x)
        relative, cosine = np.linalg.norm(x - y) / norm, np.dot(x, y) / norm / np.linalg.norm(y)
        print(number, distance.max(), distance.mean(), relative, cosine, (x != y).mean())


def tensors_of(path: Path) -> Iterator[np.ndarray]:
    """The tensors of a file that `write_pair` made."""
    with open(path, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        count = len(json.loads(stream.read(length)))
        for _ in range(count):
            yield np.fromfile(stream, np.float32, TENSOR_ELEMENTS)


def measured(command: list[str]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of one process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)  # says what this one child used
    assert status == 0, command
    return time.perf_counter() - start, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
