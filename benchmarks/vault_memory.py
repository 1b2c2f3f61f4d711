"""Peak memory of `holdfast scan`, `diff`, `push` and `pull` of one checkpoint of 10 GB; the vault is a folder.

    python benchmarks/vault_memory.py [--gigabytes 10] [--reduced] [--folder DIR]

The checkpoint is a safetensors file of normally distributed float32 tensors of 256 MiB. Memory is what Linux says of
the process at its end (VmHWM). The scan digests all weights; the checkpoint is compared with one of the same header
whose numbers are all 0, and which takes no room on the disk. Cache and workspace share one file, and it is deleted
before the pull, so that the disk holds at most the file and the vault: 19 GB. What is pulled is compared by its md5.
Writes benchmarks/results/vault_memory.json; ``--reduced`` takes 1 GB.
"""

import argparse
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from harness import judge, machine, print_goals, reducible, versions, write_results
from vault_worlds import World, clone, environment, folder_bytes, project

GOAL_MB = 1000
VERBS = ("scan", "diff", "push", "pull")
GB, MB = 10**9, 10**6
TENSOR_SHAPE = (8192, 8192)
TENSOR_BYTES = 4 * TENSOR_SHAPE[0] * TENSOR_SHAPE[1]
ROWS_AT_ONCE = 1024
WEIGHT_SIZE = 0.02
READ_BYTES = 4 << 20
# what is on the disk at most, over the checkpoint's bytes: itself and the vault
DISK = 1.9
# the command's own entry, and then what the kernel says of the process
CHILD = """
import sys
from holdfast.cli.main import main
sys.argv[0] = "holdfast"
try:
    main()
finally:
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    print(f"peak {peak}", file=sys.stderr)
"""


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of the checkpoint")
    parser.add_argument("--folder", type=Path, help="for temporary files; the system's temporary folder")
    options = reducible(parser, gigabytes=1.0)
    nbytes = int(options.gigabytes * GB)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        free = shutil.disk_usage(name).free
        if free < DISK * nbytes:
            parser.error(f"{name} has room for {free / GB:.1f} GB, and {DISK * nbytes / GB:.1f} are needed")
        figures = measure(Path(name), nbytes)
    result = {
        "what": "peak memory of processes, in MB of a million bytes",
        "machine": machine(),
        "versions": versions("dvc", "numba", "numpy", "obstore"),
        **figures,
        "goals": {f"holdfast {verb}, MB": judge(figures[verb]["MB"], "≤", GOAL_MB) for verb in VERBS},
    }
    write_results("vault_memory", result, options)
    print(f"a checkpoint of {figures['raw bytes'] / GB:.2f} GB, {figures['stored bytes'] / GB:.2f} GB in the vault")
    for verb in VERBS:
        print(f"  {verb}: {figures[verb]['MB']} MB, {figures[verb]['seconds']} s")
    print_goals(result["goals"])


def measure(folder: Path, nbytes: int) -> dict[str, Any]:
    """Memory and seconds of all, and that what comes out went in."""
    world = project(folder / "world")
    vault = folder / "vault"
    vault.mkdir()
    world.write(".dvc/config", "[cache]\n    type = hardlink\n")
    write_checkpoint(world.root / "model.safetensors", nbytes)
    world.dvc("add", "-q", "model.safetensors")
    world.commit("a large model")
    size = (world.root / "model.safetensors").stat().st_size
    zeros = write_zeros(folder / "zeros.safetensors", like=world.root / "model.safetensors")
    scanned = watched(world, "scan", "--digest", "--json")
    compared = watched(world, "diff", "model.safetensors", str(zeros))
    world.holdfast("vault", "init", vault.as_uri())
    pushed = watched(world, "push", "-r", vault.as_uri())
    shutil.rmtree(world.cache)
    (world.root / "model.safetensors").unlink()
    other = clone(world, "clone")
    pulled = watched(other, "pull", "-r", vault.as_uri())
    assert md5_of(other.root / "model.safetensors") == tracked(other), "what was pulled is not what was pushed"
    found = dict(zip(VERBS, (scanned, compared, pushed, pulled), strict=True))
    return {"raw bytes": size, "stored bytes": folder_bytes(vault), **found}


def write_checkpoint(path: Path, nbytes: int) -> None:
    """Write a safetensors file of about so many bytes, one piece of a tensor after the other."""
    count = max(1, round(nbytes / TENSOR_BYTES))
    entries = {
        f"layers.{number}.weight": {
            "dtype": "F32",
            "shape": TENSOR_SHAPE,
            "data_offsets": [number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES],
        }
        for number in range(count)
    }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    chance = np.random.default_rng(0)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for _ in range(count * TENSOR_SHAPE[0] // ROWS_AT_ONCE):
            rows = chance.standard_normal((ROWS_AT_ONCE, TENSOR_SHAPE[1]), np.float32)
            stream.write((rows * np.float32(WEIGHT_SIZE)).data)


def write_zeros(path: Path, like: Path) -> Path:
    """Write a safetensors file with the header of another, of holes, which read as zeros."""
    with open(like, "rb") as stream:
        length = stream.read(8)
        header = stream.read(int.from_bytes(length, "little"))
    with open(path, "wb") as stream:
        stream.write(length + header)
        stream.truncate(like.stat().st_size)
    return path


def watched(world: World, *arguments: str) -> dict[str, float]:
    """Peak memory in MB and seconds of one of Holdfast's commands."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        cwd=world.folder,
        env=environment(world.home),
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    kilobytes = int(done.stderr.rpartition("peak ")[2])
    return {"MB": round(kilobytes * 1024 / MB, 1), "seconds": round(seconds, 1)}


def md5_of(path: Path) -> str:
    """Of a file that need not fit into memory."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as stream:
        while piece := stream.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def tracked(world: World) -> str:
    """The md5 that git says the checkpoint has."""
    lines = world.git("show", "HEAD:model.safetensors.dvc").splitlines()
    return next(line.split()[-1] for line in lines if "md5:" in line)


if __name__ == "__main__":
    main()
