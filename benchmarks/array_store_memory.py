"""Peak memory of saving few and many attention maps, and what each compression level costs.

    python benchmarks/array_store_memory.py

Each figure comes from a fresh process (`ru_maxrss`), which makes maps of shape (22, 15000), float32, batch by batch:
the softmax over time of smooth noise. The data goes to a temporary folder and is deleted; at most about 2.5 GB lie
there at a time. Results: benchmarks/results/array_store_memory.json.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness import judge, machine, print_goals, reducible, versions, write_results
from holdfast.runs.arrays import DEFAULT_COMPRESSION_LEVEL, ArrayContract, ArrayStore

SHAPE = (22, 15000)
BATCH = 16
KNOTS = 60  # of the smooth noise along time
LEVELS = (1, 3, 6)
LEVEL_MAPS = 64
KINDS = ("smooth", "sparse")  # sparse: attention below the uniform 1/15000 is set to zero
GOAL_BYTES = 100e6
CONTRACT = ArrayContract(
    "attention", SHAPE, "float32", minimum=0, maximum=1, scalars=("sampling_rate",), key="attention_map"
)


def batches(count: int, kind: str = "smooth") -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and maps of shape (n, 22, 15000), float32, each row a softmax; the same for the same count."""
    random = np.random.default_rng(0)
    position = np.linspace(0, KNOTS - 1, SHAPE[1], endpoint=False)
    left = position.astype(int)
    weight = ((1 - np.cos(np.pi * (position - left))) / 2).astype(np.float32)
    for start in range(0, count, BATCH):
        number = min(BATCH, count - start)
        knots = random.standard_normal((number, SHAPE[0], KNOTS), np.float32) * 3
        maps = np.ascontiguousarray(knots[..., left] * (1 - weight) + knots[..., left + 1] * weight)
        maps -= maps.max(axis=-1, keepdims=True)
        np.exp(maps, out=maps)
        maps /= maps.sum(axis=-1, keepdims=True)
        if kind == "sparse":
            maps[maps < 1 / SHAPE[1]] = 0
        yield [f"sample_{start + index:05d}" for index in range(number)], maps


def save(folder: Path, what: str, count: int, level: int, kind: str) -> dict[str, Any]:
    """Save ``count`` maps in this process; or hold them all in a list, as a naive loop does."""
    began = time.perf_counter()
    if what == "list":
        held = [array for _, maps in batches(count) for array in maps]
        return {"maps": len(held), "peak_bytes": _peak_bytes()}
    saving = 0.0
    with ArrayStore(folder, CONTRACT, file_format=what, compression_level=level) as store:  # type: ignore[arg-type]
        for ids, maps in batches(count, kind):
            start = time.perf_counter()
            store.save_batch(ids, maps, sampling_rate=250.0)
            saving += time.perf_counter() - start
        start = time.perf_counter()
    saving += time.perf_counter() - start
    raw = count * int(np.prod(SHAPE)) * 4
    stored = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "maps": count,
        "kind": kind,
        "level": level,
        "peak_bytes": _peak_bytes(),
        "raw_bytes": raw,
        "stored_bytes": stored,
        "stored_share": round(stored / raw, 4),
        "save_seconds": round(saving, 2),
        "save_megabytes_per_second": round(raw / saving / 1e6, 1),
        "process_seconds": round(time.perf_counter() - began, 2),
    }


def in_child(what: str, count: int, level: int = DEFAULT_COMPRESSION_LEVEL, kind: str = "smooth") -> dict[str, Any]:
    """Run `save` in a fresh process, so that its peak is its own; the data is gone when this returns."""
    with tempfile.TemporaryDirectory(prefix="array-store-") as folder:
        command = [sys.executable, __file__, "--child", what, str(count), str(level), kind, str(Path(folder) / "store")]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, Any] = json.loads(output)
    print(what, figures, file=sys.stderr)
    return figures


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=2000, help="the larger number of maps")
    parser.add_argument("--levels", type=int, default=LEVEL_MAPS, help="maps that each level compresses")
    parser.add_argument("--few", type=int, default=32, help="the smaller number of maps")
    parser.add_argument(
        "--child", nargs=5, metavar=("WHAT", "COUNT", "LEVEL", "KIND", "FOLDER"), help=argparse.SUPPRESS
    )
    options = reducible(parser, maps=200, levels=8)
    if options.child:
        what, count, level, kind, folder = options.child
        print(json.dumps(save(Path(folder), what, int(count), int(level), kind)))
        return
    results: dict[str, Any] = {
        "what": "peak bytes of processes that save maps, and what each compression level costs",
        "machine": machine(),
        "versions": versions("numpy", "h5py"),
        "shape": list(SHAPE),
        "dtype": "float32",
    }
    for what in ("npz", "hdf5", "list"):
        few, many = in_child(what, options.few), in_child(what, options.maps)
        results[what] = {"few": few, "many": many, "growth_bytes": many["peak_bytes"] - few["peak_bytes"]}
    results["levels"] = {
        what: [in_child(what, options.levels, level, kind) for kind in KINDS for level in LEVELS]
        for what in ("npz", "hdf5")
    }
    results["goals"] = {
        f"{title}: growth of the peak, MB": judge(round(results[what]["growth_bytes"] / 1e6, 1), "≤", GOAL_BYTES / 1e6)
        for what, title in (("npz", "NPZ"), ("hdf5", "HDF5"))
    }
    write_results("array_store_memory", results, options)
    for what in ("npz", "hdf5", "list"):
        few, many, growth = (results[what][key] for key in ("few", "many", "growth_bytes"))
        size = f", {many['stored_bytes'] / 1e9:.2f} GB stored" if what != "list" else " (nothing stored)"
        print(
            f"{what}: {few['maps']} maps {few['peak_bytes'] / 1e6:.0f} MB, {many['maps']} maps "
            f"{many['peak_bytes'] / 1e6:.0f} MB, growth {growth / 1e6:.0f} MB{size}"
        )
    for what, rows in results["levels"].items():
        for row in rows:
            print(
                f"{what} {row['kind']} level {row['level']}: {row['stored_share']:.3f} of raw, "
                f"{row['save_megabytes_per_second']} MB/s"
            )
    print_goals(results["goals"])


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


if __name__ == "__main__":
    main()
