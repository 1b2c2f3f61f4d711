"""How cost grows: with the size of a checkpoint, the length of a history, the number of versions, the number of files.

    python benchmarks/growth.py [--megabytes 16 …] [--commits 100 …] [--versions 500 …] [--files 1000 …] [--rounds 3]

push, pull            of one checkpoint of random float32 into a vault in a folder and out of it; DVC beside
gc plan, cold, warm   over histories of ten stages (gc_speed.py); `dvc gc --dry` beside, over those up to --dvc-commits
registry history      back to the first of so many commits (registry_speed.py)
registry list         of so many versions, nothing remembered
scan, cold, warm      of so many files (scan_speed.py); `dvc status` beside

Whole processes, start-up included, medians of rounds. The slope is that of the line through the logarithms of all
points, by least squares, with its standard error: 1 is in proportion, 0 does not grow. What start-up takes makes the
beginning flat, so that the slope between the last two points stands beside. Writes benchmarks/results/growth.json.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import gc_speed
import registry_speed
import scan_speed
from harness import SLOPE, machine, quantity, reducible, slope_of, versions, write_results
from vault_worlds import World, clone, project, timed

MB = 1_000_000
TENSOR_BYTES = 8_000_000
VERSIONS_A_MODEL = 50
HISTORY_MODELS, HISTORY_VERSIONS = 20, 5
MEMORY = Path(".dvc/tmp/holdfast")
CHECKPOINTS_OF = 100  # files a checkpoint

Ways = dict[str, list[float]]


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", nargs="+", type=int, default=[16, 64, 256, 1024], help="of checkpoints")
    parser.add_argument("--commits", nargs="+", type=int, default=[100, 300, 1000, 5000], help="of histories")
    parser.add_argument("--dvc-commits", type=int, default=1000, help="of the longest that DVC goes through, once")
    parser.add_argument("--versions", nargs="+", type=int, default=[500, 2000, 10_000], help="in registries")
    parser.add_argument("--files", nargs="+", type=int, default=[1000, 10_000, 100_000], help="in trees")
    parser.add_argument("--rounds", type=int, default=3, help="medians count")
    parser.add_argument("--folder", type=Path, help="for temporary files; the system's temporary folder")
    options = reducible(
        parser,
        megabytes=[16, 64, 256],
        commits=[100, 300, 1000],
        dvc_commits=100,
        versions=[500, 2000],
        files=[500, 1500, 5000],
        rounds=2,
    )
    result: dict[str, Any] = {
        "what": "wall seconds of whole processes by size, and the slopes of their logarithms",
        "machine": machine(),
        "versions": versions("dvc"),
        "series": {},
        "goals": {},
    }
    for measure in (transfers, plans, histories, registries, scans):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            for unit, points in gathered(measure(Path(name), options)).items():
                result["series"] |= series_of(unit, points)
    write_results("growth", result, options)
    for what, series in result["series"].items():
        middles = ", ".join(f"{point['size']:,}: {point['median']:.2f}" for point in series["points"])
        fit, error, last = (
            "–" if figure is None else f"{figure:.2f}" for figure in (series["slope"][key] for key in SLOPE)
        )
        print(f"{what:24} slope {fit} ± {error}, at the end {last}; seconds by {series['by']}: {middles}")


# --- what is measured -------------------------------------------------------------------------------------------------


def transfers(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, int, Ways]]:
    """Push and pull of one checkpoint, by megabytes."""
    for size in options.megabytes:
        world = project(folder / f"world-{size}")
        write_sized(world.root / "model.safetensors", size * MB)
        world.dvc("add", "-q", "model.safetensors")
        world.commit("a checkpoint")
        places = {tool: folder / f"{tool}-{size}" for tool in ("holdfast", "dvc")}
        ways: Ways = {f"{verb}, {tool}": [] for verb in ("push", "pull") for tool in places}
        for _ in range(options.rounds):
            for tool, place in places.items():
                flags = new_store(world, tool, place)
                ways[f"push, {tool}"].append(timed(world, tool, "push", *flags))
                other = clone(world, "clone")
                ways[f"pull, {tool}"].append(timed(other, tool, "pull", *flags))
                shutil.rmtree(other.root)
                shutil.rmtree(place)
        yield "MB", size, ways
        shutil.rmtree(folder / f"world-{size}")


def write_sized(path: Path, nbytes: int) -> None:
    """Write a checkpoint of so many bytes of random numbers."""
    chance = np.random.default_rng(0)
    count = max(1, nbytes // TENSOR_BYTES)
    shape = (nbytes // count // 4,)
    save_file({f"layer{number}": chance.standard_normal(shape, np.float32) for number in range(count)}, path)


def new_store(world: World, tool: str, place: Path) -> tuple[str, ...]:
    """An empty vault or remote in a folder; the flags that name it."""
    place.mkdir()
    if tool == "holdfast":
        world.holdfast("vault", "init", place.as_uri())
        return ("-r", place.as_uri())
    config = world.home / "dvc-global"
    config.mkdir(exist_ok=True)
    (config / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {place}\n")
    return ()


def plans(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, int, Ways]]:
    """Plans of a collection, by commits."""
    for commits in options.commits:
        root = folder / f"history-{commits}"
        gc_speed.make_repository(root, "ten-stage", commits)
        ways: Ways = {"gc plan, cold": [], "gc plan, warm": []}
        if commits <= options.dvc_commits:
            ways["gc --dry, dvc"] = [seconds(root, "dvc", "gc", "--all-commits", "--dry", "-w")]
        for _ in range(options.rounds):
            shutil.rmtree(root / MEMORY, ignore_errors=True)
            ways["gc plan, cold"].append(seconds(root, "holdfast", "gc", "plan"))
            ways["gc plan, warm"].append(seconds(root, "holdfast", "gc", "plan"))
        yield "commits", commits, ways
        shutil.rmtree(root)


def histories(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, int, Ways]]:
    """Which labels there were at the first commit, by commits."""
    for commits in options.commits:
        root = folder / f"registry-{commits}"
        registry_speed.make_project(root, HISTORY_MODELS, HISTORY_VERSIONS, commits)
        taken = [seconds(root, "holdfast", "registry", "history", "--at", "2020-01-02") for _ in range(options.rounds)]
        yield "commits", commits, {"registry history --at": taken}
        shutil.rmtree(root)


def registries(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, int, Ways]]:
    """All versions of a registry, by versions."""
    for count in options.versions:
        root = folder / f"versions-{count}"
        registry_speed.make_project(root, count // VERSIONS_A_MODEL, VERSIONS_A_MODEL, 1)
        taken = []
        for _ in range(options.rounds):
            shutil.rmtree(root / MEMORY, ignore_errors=True)
            taken.append(seconds(root, "holdfast", "registry", "list"))
        yield "versions", count, {"registry list, cold": taken}
        shutil.rmtree(root)


def scans(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, int, Ways]]:
    """Scans of a tree, by files."""
    for files in options.files:
        root = folder / f"tree-{files}"
        scan_speed.make_tree(root, files, max(1, files // CHECKPOINTS_OF))
        times = scan_speed.measure(root, options.rounds)
        yield "files", files, times
        shutil.rmtree(root)


def seconds(root: Path, *command: str) -> float:
    """Of a whole process that must succeed."""
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    variables |= {"DVC_NO_ANALYTICS": "1", "CI": "true"}  # no look for a newer DVC beside it
    start = time.perf_counter()
    subprocess.run(command, cwd=root, env=variables, stdout=subprocess.PIPE, check=True)
    return time.perf_counter() - start


# --- what is said of it -----------------------------------------------------------------------------------------------


def gathered(points: Iterator[tuple[str, int, Ways]]) -> dict[str, dict[str, list[tuple[int, list[float]]]]]:
    """Points by unit and by way."""
    found: dict[str, dict[str, list[tuple[int, list[float]]]]] = {}
    for unit, size, ways in points:
        for way, values in ways.items():
            found.setdefault(unit, {}).setdefault(way, []).append((size, values))
    return found


def series_of(unit: str, ways: dict[str, list[tuple[int, list[float]]]]) -> dict[str, Any]:
    """The points of each way, and its slope where there are two or more."""
    found = {}
    for way, points in ways.items():
        sized = [{"size": size, **quantity(values, "s")} for size, values in points]
        found[way] = {"by": unit, "points": sized, "slope": slope_of(sized)}
    return found


if __name__ == "__main__":
    main()
