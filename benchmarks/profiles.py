"""Where the time of each hot path goes: the three largest costs of push, pull, scan, gc plan, registry, diff and codec.

    python benchmarks/profiles.py [--files 20000] [--commits 1000] [--megabytes 400] [--reduced]

Each command is run once in a process of its own under cProfile, with all of its threads, counting processor time and
no waiting; what its child processes use stands beside, and is not broken down. A cost is what a module's functions take
themselves, without what they call in other modules, or what a library's function in C takes; importing modules, and
making their classes, is one cost. Profiling makes Python's own calls dearer than they are: shares tell where to look,
not how fast it is. Writes benchmarks/results/profiles.json.
"""

import argparse
import cProfile
import json
import pstats
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import gc_speed
import registry_speed
import scan_speed
from gpt_history import REDUCED_SCALE, kept_history
from harness import digits, machine, reducible, versions, write_results
from vault_worlds import World, clone, commit, environment, project

MB = 1_000_000
LARGEST = 3
STEP = 1e-3
MODELS, VERSIONS = 200, 50
TENSOR_VALUES = 10_000_000
MEMORY = Path(".dvc/tmp/holdfast")
# what the import system does, wherever it is called from
IMPORTS = "importing modules"
IMPORTING = ("<frozen importlib", "<frozen abc")
CLASSES = ("dataclasses", "enum", "typing")
PYTHONS_OWN = ("collections", "functools", "itertools", "re", "threading", "_thread")
LIBRARIES = ("_hashlib", "_sqlite3", "blake3", "numpy", "orjson", "pygit2", "zstandard")
IMPORTING_CALLS = ("marshal.loads", "_imp.", "builtins.compile", "__build_class__", "builtins.exec")


def main() -> None:
    """Profile, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, help="of checkpoints; made there if it is missing")
    parser.add_argument("--steps", type=float, default=1.0, metavar="SHARE", help="of the training, where it is made")
    parser.add_argument("--checkpoints", type=int, default=0, metavar="N", help="the newest that are pushed; 0 for all")
    parser.add_argument("--files", type=int, default=20_000, help="of the tree that is scanned")
    parser.add_argument("--commits", type=int, default=1000, help="of the history that is planned over")
    parser.add_argument("--megabytes", type=int, default=400, help="of each of the files that are compared")
    parser.add_argument("--folder", type=Path, help="for temporary files; the system's temporary folder")
    parser.add_argument("--child", nargs=2, metavar=("FILE", "COMMAND"), help=argparse.SUPPRESS)
    options = reducible(parser, steps=REDUCED_SCALE, checkpoints=4, files=4000, commits=300, megabytes=80)
    if options.child:
        child(Path(options.child[0]), json.loads(options.child[1]))
        return
    paths: dict[str, Any] = {}
    for profile in (transfers, scans, plans, registries, diffs, codecs):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            for path, figures in profile(Path(name), options):
                paths[path] = figures
                show(path, figures)
    result = {
        "what": "processor seconds of one run of each, under a profiler, and the functions that take most of them",
        "machine": machine(),
        "versions": versions("dvc"),
        "paths": paths,
        "goals": {},
    }
    write_results("profiles", result, options)


def show(path: str, figures: dict[str, Any]) -> None:
    """Print the costs of a path."""
    print(f"\n{path}: {figures['processor']:.2f} s on processors, its children's {figures['children']:.2f} s")
    for cost in figures["costs"]:
        print(f"  {cost['share']:6.1%}  {cost['what']}", flush=True)


# --- what is profiled -------------------------------------------------------------------------------------------------

Profiles = Iterator[tuple[str, dict[str, Any]]]


def transfers(folder: Path, options: argparse.Namespace) -> Profiles:
    """Push of a history of bf16 checkpoints into a vault in a folder, and pull out of it."""
    world = project(folder / "world")
    found = sorted((kept_history(options.history, options.steps) / "bf16").glob("*.pt"))
    for path in found[-options.checkpoints :]:
        commit(world, {"model.pt": path}, path.stem)
    place = folder / "vault"
    place.mkdir()
    world.holdfast("vault", "init", place.as_uri())
    yield "push", profiled(world, "push", "--all-commits", "-r", place.as_uri())
    yield "pull", profiled(clone(world, "clone"), "pull", "--all-commits", "-r", place.as_uri())


def scans(folder: Path, options: argparse.Namespace) -> Profiles:
    """A second look at a tree."""
    root = folder / "tree"
    scan_speed.make_tree(root, options.files, 100)
    world = at(root, folder)
    world.holdfast("scan", "--json")
    yield "scan, warm", profiled(world, "scan", "--json")


def plans(folder: Path, options: argparse.Namespace) -> Profiles:
    """Plans of a collection over a history of ten stages."""
    root = folder / "history"
    gc_speed.make_repository(root, "ten-stage", options.commits)
    world = at(root, folder)
    shutil.rmtree(root / MEMORY, ignore_errors=True)
    yield "gc plan, cold", profiled(world, "gc", "plan")
    yield "gc plan, warm", profiled(world, "gc", "plan")


def registries(folder: Path, _: argparse.Namespace) -> Profiles:
    """A registry of many versions."""
    root = folder / "registry"
    registry_speed.make_project(root, MODELS, VERSIONS, 1)
    world = at(root, folder)
    yield "registry show, cold", profiled(world, "registry", "show")
    yield "registry show, cached", profiled(world, "registry", "show")
    yield "registry show MODEL", profiled(world, "registry", "show", registry_speed.MODEL)


def diffs(folder: Path, options: argparse.Namespace) -> Profiles:
    """Two checkpoints, the second a small step from the first."""
    chance = np.random.default_rng(0)
    count = max(1, options.megabytes * MB // 4 // TENSOR_VALUES)
    values = {f"layer{number}": chance.standard_normal(TENSOR_VALUES, np.float32) for number in range(count)}
    save_file(values, folder / "a.safetensors")
    for one in values.values():
        one += np.float32(STEP) * chance.standard_normal(len(one), np.float32)
    save_file(values, folder / "b.safetensors")
    (folder / "home").mkdir()
    yield "diff", profiled(World(folder, folder / "home"), "diff", "a.safetensors", "b.safetensors")


def codecs(_: Path, options: argparse.Namespace) -> Profiles:
    """The tensors of a checkpoint against those of the next one."""
    from blobs import blobs_of
    from holdfast.vault import codec

    newest = sorted((kept_history(options.history, options.steps) / "full").glob("*.pt"))[-2:]
    ours, base = (blobs_of(path) for path in newest)
    pairs = [(blob, base[name]) for name, blob in ours.items() if name in base]
    encoded = [codec.encode(blob.data, blob.dtype, other.data) for blob, other in pairs]

    def encode() -> None:
        for blob, other in pairs:
            codec.encode(blob.data, blob.dtype, other.data)

    def decode() -> None:
        for made, (blob, other) in zip(encoded, pairs, strict=True):
            codec.decode_into(made, bytearray(len(blob.data)), other.data)

    ways: dict[str, Callable[[], None]] = {"codec, encode": encode, "codec, decode": decode}
    for name, way in ways.items():
        before = time.process_time()
        with profiling() as profiles:
            way()
        yield name, {"processor": digits(time.process_time() - before), "children": 0.0, "costs": costs(profiles)}


def at(root: Path, folder: Path) -> World:
    """A world of a project that another benchmark made."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return World(root, home)


# --- profiling --------------------------------------------------------------------------------------------------------


def profiled(world: World, *arguments: str) -> dict[str, Any]:
    """Figures of one of Holdfast's commands."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, __file__, "--child", str(file), json.dumps(arguments)]
        done = subprocess.run(
            command, cwd=world.folder, env=environment(world.home), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"holdfast {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def child(file: Path, arguments: list[str]) -> None:
    """Run a command in this process and write its figures."""
    begin = time.process_time()
    with profiling() as profiles:
        from holdfast.cli.main import main as command

        sys.argv = ["holdfast", *arguments]
        try:
            command()
        except SystemExit as end:
            if end.code:
                raise
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "processor": digits(time.process_time() - begin),
        "children": digits(used.ru_utime + used.ru_stime),
        "costs": costs(profiles),
    }
    file.write_text(json.dumps(figures))


@contextmanager
def profiling() -> Iterator[list[cProfile.Profile]]:
    """Profile this thread and all that are started meanwhile; each has a profile of its own."""
    profiles: list[cProfile.Profile] = []
    plain = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        profile = cProfile.Profile(time.thread_time)
        profiles.append(profile)
        profile.runcall(plain, thread)

    threading.Thread.run = run  # type: ignore[method-assign]
    own = cProfile.Profile(time.thread_time)
    profiles.append(own)
    own.enable()
    try:
        yield profiles
    finally:
        own.disable()
        threading.Thread.run = plain  # type: ignore[method-assign]


def costs(profiles: list[cProfile.Profile]) -> list[dict[str, Any]]:
    """The largest, with their shares of what was seen in all threads."""
    found: Counter[str] = Counter()
    for profile in profiles:
        profile.create_stats()
        for (place, _, name), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            if known := title(place, name):
                found[known] += own
            else:
                # what Python itself does for a caller is the caller's
                for (caller, _, function), (_, _, share, _) in callers.items():
                    found[title(caller, function) or "Python"] += share
    whole = sum(found.values())
    return [{"what": what, "share": round(own / whole, 4)} for what, own in found.most_common(LARGEST)]


def title(place: str, name: str) -> str:
    """The module that a function belongs to, or what a library of C does; empty for what Python itself does."""
    if place.startswith(IMPORTING) or name == "<module>" or any(call in name for call in IMPORTING_CALLS):
        return IMPORTS
    if place == "~":
        if method := re.fullmatch(r"<method '(\w+)' of '([\w.]+)' objects>", name):
            library = method[2].split(".")[0]
            return f"{method[2]}.{method[1]}" if "." in method[2] and library not in PYTHONS_OWN else ""
        call = name.strip("<>").removeprefix("built-in method ")
        return call if call.startswith("posix.") or call.split(".")[0] in LIBRARIES else ""
    parts = Path(place).with_suffix("").parts
    # of what is installed or ours from the package on, of Python's own library from the module on
    tops = [at for at, part in enumerate(parts) if part in ("site-packages", "src") or part.startswith("python3")]
    module = ".".join(parts[max(tops, default=len(parts) - 2) + 1 :])
    return IMPORTS if module in CLASSES else module


if __name__ == "__main__":
    main()
