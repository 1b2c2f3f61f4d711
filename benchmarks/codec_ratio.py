"""How small and how fast the vault's codec makes a history of checkpoints, against peers on the same tensors.

    python benchmarks/codec_ratio.py [--history FOLDER] [--commits N] [--rounds 7] [--reduced]

The history is that of benchmarks/gpt_history.py, trained once and kept. Each checkpoint is cut into blobs as the vault
cuts it. *Backward* encodes each checkpoint against the next newer one and the newest alone, as a repacked vault stores
it; *forward* against the previous one. *BitX* is its method as we understand it: XOR with the next newer checkpoint,
byte planes, zstd; for each blob that, planes alone, zstd or raw, whichever is smallest; with zstd at level 3, or as
Huffman coding alone, as we use it. The *limit* is the entropy of order 0 of the byte planes of the delta, bucket by
bucket, or of the planes of the tensor alone where they have less, and what is no tensor as we store it. ZipNN, which
has no bases, is measured where it is installed, in a process of its own.

Speeds are of one thread, in bytes of tensors (ZipNN: of files) a second of processor time, medians of rounds in turn;
encoding includes the decoding that verifies it. Writes benchmarks/results/codec_ratio.json.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import zstandard

from bitx import bitx_size, huffman
from blobs import Blob, Blobs, blobs_of, encoded, limit
from gpt_history import REDUCED_SCALE, kept_history
from harness import judge, machine, print_goals, reducible, versions, write_results
from holdfast.vault import codec
from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_numba import NumbaLoops
from holdfast.vault.codec_numpy import NumpyLoops

KINDS = ("bf16", "full", "weights")
# which checkpoints are encoded against the next one for speed: one step, fifty, a hundred, and fine-tuning
TIMED = {"bf16": (0, 4, 5, 9), "full": (0, 4, 9)}

SPEED_GOALS = {
    "encode GB/s, NumPy": 0.15, "decode GB/s, NumPy": 0.35, "encode GB/s, numba": 0.3, "decode GB/s, numba": 0.7
}  # fmt: skip
GOALS = {
    "bf16": {"smaller than raw": 3.0, "smaller than BitX": 1.25, "share of the limit": 0.92, **SPEED_GOALS},
    "full": {"smaller than raw": 1.4, "smaller than BitX": 1.04, "share of the limit": 0.92, **SPEED_GOALS},
}
# two versions of one tensor, the second a small step from the first: for what no history of a small model shows
NORMAL_SIZE, NORMAL_STEP = 0.02, 1e-4


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, help="made there if it is missing")
    parser.add_argument("--steps", type=float, default=1.0, metavar="SHARE", help="of the training, where it is made")
    parser.add_argument("--commits", type=int, default=0, metavar="N", help="the newest of each history; 0 for all")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help="of the histories")
    parser.add_argument(
        "--elements", type=int, default=1 << 23, metavar="N", help="of the normally distributed tensors"
    )
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds; medians count")
    reduced = {"kinds": ["bf16", "full"], "commits": 6, "steps": REDUCED_SCALE, "elements": 1 << 21, "rounds": 3}
    options = reducible(parser, **reduced)
    trained = kept_history(options.history, options.steps)
    result: dict[str, Any] = {
        "what": "ratios of raw to stored bytes of twelve checkpoints; GB/s of one thread's processor time",
        "machine": machine(),
        "versions": versions("numpy", "numba", "zstandard", "torch", "zipnn"),
        "zstd": ".".join(map(str, zstandard.ZSTD_VERSION)),
        "ratios": {},
        "speeds": {},
    }
    for kind in options.kinds:
        paths = sorted((trained / kind).glob("*.pt"))[-options.commits :]
        history = [blobs_of(path) for path in paths]
        stored = sizes(history, [path.read_bytes() for path in paths])
        speed = speeds(history, TIMED[kind], options.rounds) if kind in TIMED else {}
        if peer := zipnn(paths, "bfloat16" if kind == "bf16" else "float32"):
            stored["ZipNN"] = peer[0]
            speed |= {"encode GB/s, ZipNN": peer[1], "decode GB/s, ZipNN": peer[2]}
        add(result, kind, sum(path.stat().st_size for path in paths), stored, speed)
    for dtype in ("BF16", "F32"):
        history = normal(dtype, options.elements)
        stored = sizes(history, [blob.data for blobs in history for blob in blobs.values()])
        raw = sum(len(blob.data) for blobs in history for blob in blobs.values())
        add(result, f"normal {dtype}", raw, stored, speeds(history, (0,), options.rounds))
    result["goals"] = goals(result)
    write_results("codec_ratio", result, options)
    print_goals(result["goals"])


def add(result: dict[str, Any], kind: str, raw: int, stored: dict[str, int], speed: dict[str, float]) -> None:
    """Note and print the figures of a history."""
    result["ratios"][kind] = {"raw bytes": raw, **{what: round(raw / size, 4) for what, size in stored.items()}}
    print(f"\n{kind}: {raw / 1e6:.1f} MB")
    for what, size in stored.items():
        print(f"  {what:28} {raw / size:7.3f}")
    if speed:
        result["speeds"][kind] = speed
        for what, figure in speed.items():
            print(f"  {what:28} {figure:7.3f}", flush=True)


def goals(result: dict[str, Any]) -> dict[str, Any]:
    """The goals with what was measured; against the better of both BitX."""
    verdicts: dict[str, Any] = {}
    for kind, wanted in GOALS.items():
        ratios = result["ratios"][kind]
        ours = ratios["ours, backward"]
        measured = {
            "smaller than raw": ours,
            "smaller than BitX": round(ours / max(ratios["BitX, zstd -3"], ratios["BitX, Huffman alone"]), 4),
            "share of the limit": round(ours / ratios["limit of order 0"], 4),
            **result["speeds"][kind],
        }
        for what, goal in wanted.items():
            verdicts[f"{kind}: {what}"] = judge(measured[what], "≥", goal)
    return verdicts


# --- the history ------------------------------------------------------------------------------------------------------


def normal(dtype: str, elements: int) -> list[Blobs]:
    """A normally distributed tensor, and the same after a small step."""
    random = np.random.default_rng(0)
    before = random.standard_normal(elements, np.float32) * np.float32(NORMAL_SIZE)
    after = before + random.standard_normal(elements, np.float32) * np.float32(NORMAL_STEP)
    if dtype == "F32":
        return [{"": Blob(dtype, numbers.tobytes())} for numbers in (before, after)]
    codes = [numbers.view("<u4") for numbers in (before, after)]
    halves = [((code + ((code >> 16) & 1) + 0x7FFF) >> 16).astype("<u2") for code in codes]
    return [{"": Blob(dtype, numbers.tobytes())} for numbers in halves]


# --- sizes ------------------------------------------------------------------------------------------------------------


def sizes(history: list[Blobs], files: list[bytes]) -> dict[str, int]:
    """Stored bytes of the whole history, by method."""
    newer: list[Blobs | None] = [*history[1:], None]
    older: list[Blobs | None] = [None, *history[:-1]]
    stored = {
        "zstd -3": sum(len(zstandard.ZstdCompressor(level=3).compress(file)) for file in files),
        "planes, no base": total(encoded, history, [None] * len(history)),
        "BitX, zstd -3": total(bitx_size(zstandard.ZstdCompressor(level=3)), history, newer),
        "BitX, Huffman alone": total(bitx_size(huffman()), history, newer),
        "ours, forward": total(encoded, history, older),
        "ours, backward": total(encoded, history, newer),
        "limit of order 0": total(limit, history, newer),
    }
    stored["newest alone"] = len(history) * total(encoded, history[-1:], [None])
    return stored


def total(size: Callable[[Blob, Blob | None], int], history: list[Blobs], bases: list[Blobs | None]) -> int:
    """Stored bytes of all blobs, each with its base."""
    return sum(
        size(blob, base.get(name) if base else None)
        for blobs, base in zip(history, bases, strict=True)
        for name, blob in blobs.items()
    )


ZIPNN = """
import sys, time
from zipnn import ZipNN

stored = nbytes = encoding = decoding = 0
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    coder = ZipNN(bytearray_dtype=sys.argv[1], threads=1)
    given = bytes(bytearray(data))  # which it changes
    start = time.process_time()
    packed = coder.compress(given)
    middle = time.process_time()
    plain = coder.decompress(packed)
    encoding, decoding = encoding + middle - start, decoding + time.process_time() - middle
    assert bytes(plain) == data
    stored, nbytes = stored + len(packed), nbytes + len(data)
print(stored, nbytes / 1e9 / encoding, nbytes / 1e9 / decoding)
"""


def zipnn(paths: Iterable[Path], dtype: str) -> tuple[int, float, float] | None:
    """Stored bytes, GB/s of encoding and of decoding; None where it is not installed, or fails."""
    command = [sys.executable, "-W", "ignore", "-c", ZIPNN, dtype, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  ZipNN is not installed, or failed: {done.stderr.strip().splitlines()[-1:]}")
        return None
    stored, encoding, decoding = done.stdout.split()
    return int(stored), round(float(encoding), 3), round(float(decoding), 3)


# --- speeds -----------------------------------------------------------------------------------------------------------


def speeds(history: list[Blobs], timed: tuple[int, ...], rounds: int) -> dict[str, float]:
    """GB/s of each way, taken in turn, and how it compares with zstd -3 in the same round."""
    pairs = [
        (blob, history[place + 1][name])
        for place in timed
        if place + 1 < len(history)
        for name, blob in history[place].items()
        if name in history[place + 1]
    ]
    nbytes = sum(len(blob.data) for blob, _ in pairs)
    blobs = [codec.encode(blob.data, blob.dtype, base.data) for blob, base in pairs]
    compressor, decompressor = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
    frames = [compressor.compress(blob.data) for blob, _ in pairs]

    def encode(loops: Loops) -> None:
        for blob, base in pairs:
            codec.encode(blob.data, blob.dtype, base.data, loops=loops)

    outs = [bytearray(len(blob.data)) for blob, _ in pairs]

    def decode(loops: Loops) -> None:
        for blob, out, (_, base) in zip(blobs, outs, pairs, strict=True):
            codec.decode_into(blob, out, base.data, loops=loops)

    numpy_loops, numba_loops = NumpyLoops(), NumbaLoops()
    ways: dict[str, Callable[[], object]] = {
        "encode GB/s, NumPy": lambda: encode(numpy_loops),
        "decode GB/s, NumPy": lambda: decode(numpy_loops),
        "encode GB/s, numba": lambda: encode(numba_loops),
        "decode GB/s, numba": lambda: decode(numba_loops),
        "encode GB/s, zstd -3": lambda: [compressor.compress(blob.data) for blob, _ in pairs],
        "decode GB/s, zstd -3": lambda: [decompressor.decompress(frame) for frame in frames],
    }
    taken: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(rounds + 1):
        for what, way in ways.items():
            start = time.process_time()
            way()
            taken[what].append(time.process_time() - start)
    seconds = {what: times[1:] for what, times in taken.items()}
    found = {what: round(nbytes / 1e9 / median(times), 3) for what, times in seconds.items()}
    for verb in ("encode", "decode"):
        zstd = seconds[f"{verb} GB/s, zstd -3"]
        for name in ("NumPy", "numba"):
            ours = seconds[f"{verb} GB/s, {name}"]
            found[f"{verb}: {name} ÷ zstd -3"] = round(median(z / o for z, o in zip(zstd, ours, strict=True)), 3)
    return found


if __name__ == "__main__":
    main()
