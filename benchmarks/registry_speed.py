"""How long the registry's verbs take over start-up, with 10,000 versions of 200 models; history over 5,000 commits.

    python benchmarks/registry_speed.py [--rounds 7]

Whole processes, output into a pipe; start-up (`holdfast version`) is measured in turn with them, and taken off; their
time on processors, which other work on the machine changes less, stands beside. Cold is without what the verbs
remember of the project. Writes benchmarks/results/registry_speed.json. Goals: show MODEL 0.05 s, all 10,000 versions
1 s cold and 0.15 s cached, register 0.1 s, history --at over 5,000 commits 2 s.
"""

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results

TOOLS = Path(sys.executable).parent
MODELS, VERSIONS, COMMITS = 200, 50, 5000
MODEL = "app_03/model_07"
# what `list` and `show` remember
CACHES = (Path(".dvc/tmp/holdfast/registry.sqlite"), Path(".dvc/tmp/holdfast/vault.json"))
GATE = """\
promote:
  metrics:
    test_loss: {direction: min, ceiling: 0.5}
    accuracy: {direction: max, floor: 0.1}
"""
GOALS = {
    "show MODEL": 0.05,
    "list, cold": 1.0,
    "list, cached": 0.15,
    "show, cold": 1.0,
    "show, cached": 0.15,
    "register": 0.1,
    "history --at, early": 2.0,
    "history --at, late": 2.0,
}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after one that is not counted")
    options = reducible(parser, rounds=3)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        make_project(root)
        over, processors = {name: [] for name in GOALS}, {name: [] for name in GOALS}
        start_up = []
        for number in range(1 + options.rounds):
            measured = one_round(root, number)
            wall, used = measured.pop("start-up")
            if number:
                start_up.append(wall)
                for name, (seconds, busy) in measured.items():
                    over[name].append(seconds - wall)
                    processors[name].append(busy - used)
    result: dict[str, Any] = {
        "what": f"wall seconds over start-up, {MODELS * VERSIONS:,} versions of {MODELS} models, {COMMITS:,} commits",
        "machine": machine(),
        "versions": versions(),
        "measured": {
            "start-up": quantity(start_up, "s"),
            **{name: quantity(seconds, "s over start-up") for name, seconds in over.items()},
            **{f"{name}, on processors": quantity(busy, "s over start-up") for name, busy in processors.items()},
        },
    }
    result["goals"] = {name: judge(result["measured"][name]["median"], "≤", goal) for name, goal in GOALS.items()}
    write_results("registry_speed", result, options)
    print(f"start-up {result['measured']['start-up']['median']:.3f} s")
    print_goals(result["goals"])


def one_round(root: Path, number: int) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds of each command, one after the other."""
    weights = root / f"new_{number}.safetensors"
    save_file({"w": np.full((64, 64), number + 0.5, np.float32)}, weights)
    result = {"start-up": timed(root, "version")}
    result["show MODEL"] = timed(root, "registry", "show", MODEL)
    for verb in ("list", "show"):
        for cache in CACHES:
            (root / cache).unlink(missing_ok=True)
        result[f"{verb}, cold"] = timed(root, "registry", verb)
        result[f"{verb}, cached"] = timed(root, "registry", verb)
    result["register"] = timed(root, "registry", "register", MODEL, weights.name, "--metric", "accuracy=0.9")
    # the first walks back over nearly all commits, the second asks since when each label was where it is
    result["history --at, early"] = timed(root, "registry", "history", "--at", "2020-01-02")
    result["history --at, late"] = timed(root, "registry", "history", "--at", "2020-07-30")
    return result


def timed(root: Path, *arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(TOOLS / "holdfast"), *arguments], cwd=root, stdout=subprocess.PIPE, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_project(root: Path, models: int = MODELS, versions: int = VERSIONS, commits: int = COMMITS) -> None:
    """A DVC project whose registry is large, and whose history is long and moves labels."""
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("")
    (root / ".dvc/.gitignore").write_text("/tmp\n/cache\n")
    (root / "params.yaml").write_text(GATE)
    git(root, "init", "-q", "-b", "main")
    for number in range(models):
        folder = root / f"registry/app_{number // 20:02}/model_{number % 20:02}"
        folder.mkdir(parents=True)
        for version in range(1, versions + 1):
            (folder / f"v{version}.yaml").write_text(version_text(number, version))
        (folder / "model.yaml").write_text(model_text(number, versions - 1, versions))
    old = time.time() - 3600
    for path in [*(root / "registry").rglob("*.yaml"), root / "params.yaml", root / ".dvc/config"]:
        os.utime(path, (old, old))
    git(root, "add", "-A")
    stream = subprocess.Popen(["git", "-C", str(root), "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert stream.stdin is not None
    tree = subprocess.run(["git", "-C", str(root), "write-tree"], capture_output=True, text=True, check=True).stdout
    for number in range(commits):
        when = 1_577_836_800 + number * 3600  # from 2020 on, an hour apart
        model = number % models
        text = model_text(model, 1 + number % versions, versions).encode()
        place = f"registry/app_{model // 20:02}/model_{model % 20:02}/model.yaml"
        start = f"M 040000 {tree.strip()} \n" if number == 0 else ""
        command = (
            f"commit refs/heads/main\ncommitter A <a@example.org> {when} +0000\ndata 4\nmove\n"
            f"{start}M 100644 inline {place}\ndata {len(text)}\n"
        )
        stream.stdin.write(command.encode() + text + b"\n")
    stream.stdin.close()
    assert stream.wait() == 0
    git(root, "reset", "-q")


def version_text(model: int, version: int) -> str:
    """A version's file as `registry register` writes it."""
    key = f"{model} {version}".encode()
    digest = hashlib.sha256(key).hexdigest()
    place = f"app_{model // 20:02}/model_{model % 20:02}"
    return (
        f"schema: 1\npath: models/{place}.safetensors\n"
        f'oid: "{digest[:32]}"\nsize: {100_000_000 + version}\nweights: "blake3:{digest}"\ndate: "2026-11-20"\n'
        f'source:\n  run: outputs/train\n  rev: "{digest[:40]}"\n'
        "params:\n  prepare:\n    seed: 7\n    test_share: 0.2\n"
        "  model:\n    width: 64\n    depth: 2\n    heads: 4\n    patch: 2\n  train:\n    seed: 1\n    device: auto\n"
        "    epochs: 40\n    batch_size: 32\n    lr: 0.004\n    weight_decay: 0.05\n"
        f"metrics:\n  accuracy: 0.{version + 10}\n  macro_f1: 0.{version + 11}\n"
        f"  worst_recall: 0.{version + 12}\n  test_loss: 0.0{version}\n"
    )


def model_text(model: int, version: int, versions: int) -> str:
    """A model's file."""
    aliases = f"aliases:\n  production: v{version}\n  staging: v{version + 1 if version < versions else 1}\n"
    return f"schema: 1\ndescription: Model {model}\ncurrent: v{version}\n{aliases}"


def git(root: Path, *arguments: str) -> None:
    """One command of git."""
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
