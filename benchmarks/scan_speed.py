"""How long `holdfast scan` takes on 100,000 files of which 100 are checkpoints, against `dvc status` on the same tree.

    python benchmarks/scan_speed.py [--files 100000] [--checkpoints 100] [--rounds 5] [--folder DIR]

The tree is a git repository with DVC in which pictures and annotations are tracked as one DVC folder, with scripts and
configurations that refer to the checkpoints. Whole processes, taken in turn. *Cold* is the first look of all: the cache
of digests is deleted and the files' pages are dropped; *warm* is every later one. Goals: warm ≤ 0.8 s, and at least 4
times faster than `dvc status`. Writes benchmarks/results/scan_speed.json.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from harness import forget, judge, machine, print_goals, quantity, reducible, versions, write_results

GOAL_SECONDS = 0.8
GOAL_RATIO = 4.0
SUBJECTS = ("amber", "birch", "cedar", "dune", "ember")
FOLDER_FILES = 100
TENSOR_VALUES = 16_384


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="files in all")
    parser.add_argument("--checkpoints", type=int, default=100, help="how many of them are checkpoints")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; medians count")
    parser.add_argument("--folder", type=Path, help="where the tree is made; the system's temporary one if not given")
    options = reducible(parser, files=20_000, rounds=3)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name) / "project"
        make_tree(root, options.files, options.checkpoints)
        times = measure(root, options.rounds)
    warm = quantity(times["scan, warm"], "s", {"dvc status": times["dvc status, warm"]})
    theirs = warm["peers"]["dvc status"]
    faster = round(theirs["median"] / warm["median"], 2)
    result = {
        "what": "wall seconds of whole processes on one tree, in turn",
        "machine": machine(),
        "versions": versions("dvc"),
        "files": options.files,
        "checkpoints": options.checkpoints,
        "measured": {"scan, cold": quantity(times["scan, cold"], "s"), "scan, warm": warm},
        "goals": {
            "scan, warm, seconds": judge(warm["median"], "≤", GOAL_SECONDS),
            "dvc status ÷ scan, warm": judge(faster, "≥", GOAL_RATIO),
        },
    }
    write_results("scan_speed", result, options)
    for what, taken in (*result["measured"].items(), ("dvc status, warm", theirs)):
        print(f"{what:20} {taken['median']:7.3f} s  ({taken['min']:.3f}–{taken['max']:.3f})")
    print_goals(result["goals"])


def make_tree(root: Path, files: int, checkpoints: int) -> None:
    """A project of ``files`` files: 96 % pictures and annotations, 1 % scripts, the rest notes and tables."""
    rng = random.Random(1)
    root.mkdir(parents=True)
    run(["git", "init", "-q"], root)
    run(["dvc", "init", "-q"], root)
    write_checkpoints(root, checkpoints)
    scripts = files // 100
    for number in range(scripts):
        subject = rng.choice(SUBJECTS)
        text = (
            f'import numpy\n\nPATH = "models/{subject}_{number % 20:02}_best.safetensors"\n' if number % 10 == 0 else ""
        )
        write(root / "scripts" / f"group_{number // FOLDER_FILES:03}" / f"step_{number:05}.py", text + "x = 1\n" * 40)
    notes = files // 50
    for number in range(notes):
        write(root / "tables" / f"group_{number // FOLDER_FILES:03}" / f"table_{number:05}.csv", "a,b\n1,2\n")
    left = files - checkpoints - scripts - notes
    for number in range(left):
        folder = root / "data" / f"shard_{number // FOLDER_FILES:04}"
        if number % FOLDER_FILES == 0:
            folder.mkdir(parents=True)
            (folder / "annotations.json").write_text(json.dumps({"shard": number}))
        else:
            (folder / f"image_{number:06}.png").write_bytes(b"\x89PNG" + number.to_bytes(8, "little"))
    run(["dvc", "add", "-q", "data"], root)
    run(["git", "add", "-A"], root)
    run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "all"], root)


def write_checkpoints(root: Path, count: int) -> None:
    """``count`` small safetensors files in families, one in ten of them a copy of another."""
    values = np.random.default_rng(1)
    (root / "models").mkdir()
    previous = root
    for number in range(count):
        name = f"{SUBJECTS[number % len(SUBJECTS)]}_{number // len(SUBJECTS):02}_best.safetensors"
        path = root / "models" / name
        if number % 10 == 9:
            shutil.copy(previous, path)
        else:
            tensors = {f"layer{n}.weight": values.random(TENSOR_VALUES, dtype=np.float32) for n in range(8)}
            save_file(tensors, path)
        previous = path


def measure(root: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, taken in turn."""
    tools = Path(sys.executable).parent
    scan, status = [str(tools / "holdfast"), "scan", "--json"], [str(tools / "dvc"), "status", "-q"]
    times: dict[str, list[float]] = {"scan, cold": [], "scan, warm": [], "dvc status, warm": []}
    for command in (scan, status):
        timed(command, root)
    for _ in range(rounds):
        shutil.rmtree(root / ".dvc" / "tmp" / "holdfast", ignore_errors=True)
        forget_all(root)
        times["scan, cold"].append(timed(scan, root))
        timed(scan, root)
        times["scan, warm"].append(timed(scan, root))
        times["dvc status, warm"].append(timed(status, root))
    return times


def timed(command: list[str], root: Path) -> float:
    """Seconds that a whole process takes."""
    start = time.perf_counter()
    run(command, root)
    return time.perf_counter() - start


def run(command: list[str], root: Path) -> None:
    """Run a command that must succeed; what it prints is thrown away."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"DVC_NO_ANALYTICS": "1", "CI": "true"}  # no look for a newer DVC beside it
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)


def write(path: Path, text: str) -> None:
    """Write a text, and its folder where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def forget_all(root: Path) -> None:
    """Drop the pages of all files outside of git's and DVC's folders from memory."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in (".git", ".dvc")]
        for name in names:
            forget(Path(folder) / name)


if __name__ == "__main__":
    main()
