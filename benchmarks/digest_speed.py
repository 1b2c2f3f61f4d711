"""How fast files are digested, as ratios: BLAKE3 in memory, the disk, and MD5 as `md5sum` takes it.

    python benchmarks/digest_speed.py [--megabytes 1000] [--rounds 5] [--folder DIR]

*Cold* drops the file from the page cache before each round (``posix_fadvise``, which needs no privileges); the disk's
own speed is that of reading the file cold without hashing. Goal: cold, at least 80 % of the slower of BLAKE3 in memory
and the disk. Writes benchmarks/results/digest_speed.json.
"""

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from blake3 import blake3

from harness import forget, judge, machine, print_goals, quantity, read, reducible, versions, write_results
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.formats.content import checkpoint_weights_digest
from holdfast.formats.digest import READ_BYTES, file_digest, file_digest_and_md5
from holdfast.formats.opening import open_checkpoint

GOAL = 0.8
COLD = "cold file digest / slower of BLAKE3 in memory and disk"


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the file")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians count")
    parser.add_argument(
        "--folder", type=Path, help="where the file is written; the system's temporary folder if not given"
    )
    options = reducible(parser, megabytes=400)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        path = write_model(Path(name) / "model.npz", options.megabytes)
        gigabytes = path.stat().st_size / 1e9
        seconds = measure(path, options.rounds)
    looks = seconds.pop("cached look")
    measured = {what: quantity([gigabytes / one for one in taken], "GB/s") for what, taken in seconds.items()}
    measured["a second look"] = quantity([1000 * look for look in looks], "ms")
    speeds = {what: measured[what]["median"] for what in seconds}
    slower = min(speeds["BLAKE3 in memory"], speeds["disk"])
    ratios = {
        COLD: round(speeds["file digest, cold"] / slower, 3),
        "warm file digest / BLAKE3 in memory": round(speeds["file digest, warm"] / speeds["BLAKE3 in memory"], 3),
        "warm file digest / md5": round(speeds["file digest, warm"] / speeds["md5, warm"], 2),
        "warm digest and md5 in one pass / md5": round(speeds["digest and md5, warm"] / speeds["md5, warm"], 3),
        "warm weights digest / BLAKE3 in memory": round(speeds["weights digest, warm"] / speeds["BLAKE3 in memory"], 3),
    }
    result = {
        "what": "GB/s of one file of random floats, medians of rounds in turn",
        "machine": machine(),
        "versions": versions("blake3", "numpy"),
        "gigabytes": round(gigabytes, 3),
        "measured": measured,
        "ratios": ratios,
        "goals": {COLD: judge(ratios[COLD], "≥", GOAL)},
    }
    write_results("digest_speed", result, options)
    for what, figures in measured.items():
        print(f"{what:28} {figures['median']:7.2f} {figures['unit']}")
    for what, ratio in ratios.items():
        print(f"{what}: {ratio:.2f}")
    print_goals(result["goals"])


def write_model(path: Path, megabytes: int) -> Path:
    """An ``.npz`` of eight arrays, stored."""
    random = np.random.default_rng(1)
    arrays = {f"w{n}": random.random(megabytes * 1_000_000 // 8 // 4, dtype=np.float32) for n in range(8)}
    np.savez(path, **arrays)
    with open(path, "r+b") as stream:
        os.fsync(stream.fileno())
    os.utime(path, ns=(1, 1))
    return path


def measure(path: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, taken in turn."""
    data = path.read_bytes()
    cache = DigestCache(path.with_name("digests.sqlite"))
    digests_of(path, cache, file=True, md5=True, weights=True)
    ways: dict[str, tuple[bool, Callable[[], object]]] = {
        "BLAKE3 in memory": (False, lambda: blake3(data, max_threads=blake3.AUTO).digest()),
        "disk": (True, lambda: read(path, READ_BYTES)),
        "file digest, cold": (True, lambda: file_digest(path)),
        "file digest, warm": (False, lambda: file_digest(path)),
        "md5, warm": (False, lambda: md5(path)),
        "digest and md5, warm": (False, lambda: file_digest_and_md5(path)),
        "weights digest, warm": (False, lambda: weights(path)),
        "cached look": (False, lambda: digests_of(path, cache, file=True, md5=True, weights=True)),
    }
    times: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(rounds + 1):
        for what, (cold, way) in ways.items():
            if cold:
                forget(path)
            else:
                read(path)
            start = time.perf_counter()
            way()
            times[what].append(time.perf_counter() - start)
    cache.close()
    return {what: taken[1:] for what, taken in times.items()}


def md5(path: Path) -> str:
    """What `md5sum` computes, with the same library calls."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest() if hasattr(hashlib, "file_digest") else plain_md5(path)


def plain_md5(path: Path) -> str:
    """The same on Python 3.10."""
    hasher = hashlib.md5(usedforsecurity=False)
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(READ_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def weights(path: Path) -> str:
    """The weights digest, every CRC of the archive checked."""
    source, checkpoint = open_checkpoint(path)
    with source:
        return checkpoint_weights_digest(checkpoint)


if __name__ == "__main__":
    main()
