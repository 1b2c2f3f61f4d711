"""A project with a registered model: a stage that puts a candidate at the stable path and registers it, real DVC."""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from worlds import World, environment, make_home, make_repository

MODEL = "digits/classifier"
STABLE = "models/digits/classifier.safetensors"
CLEAN = "Data and pipelines are up to date."

PIPELINE = f"""\
stages:
  promote:
    cmd: python promote.py
    deps:
      - candidate.safetensors
      - promote.py
    params:
      - train
    outs:
      - {STABLE}:
          persist: true
      - models/digits/classifier.yaml:
          cache: false
          persist: true
"""

PROMOTE = textwrap.dedent(
    f"""
    import shutil, subprocess, yaml
    from pathlib import Path

    train = yaml.safe_load(Path("params.yaml").read_text())["train"]
    stable = Path("{STABLE}")
    stable.parent.mkdir(parents=True, exist_ok=True)
    stable.unlink(missing_ok=True)
    shutil.copyfile("candidate.safetensors", stable)
    stable.with_suffix(".yaml").write_text(yaml.safe_dump({{"width": train["width"]}}))
    subprocess.run(
        ["holdfast", "registry", "register", "{MODEL}", str(stable), "--description", "Handwritten digits",
         "--metric", f"accuracy={{train['accuracy']}}", "--metric", f"test_loss={{1 - train['accuracy']:.3f}}",
         "--param", f"lr={{train['lr']}}"],
        check=True,
    )
    """
)


def weights(path: Path, value: float, *, shape: tuple[int, ...] = (8, 16)) -> Path:
    """A safetensors file whose tensors are functions of ``value`` alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensor = np.linspace(value, value + 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    save_file({"layer.weight": tensor, "layer.bias": np.full(shape[:1], value, np.float32)}, path)
    return path


def version(world: World, number: int, *, accuracy: float = 0.9, width: int = 64) -> None:
    """Make the stage's inputs those of one version, run it and commit."""
    weights(world.root / "candidate.safetensors", float(number))
    world.write("params.yaml", f"train:\n  lr: 0.00{number}\n  width: {width}\n  accuracy: {accuracy}\n")
    world.dvc("repro")
    world.commit(f"version {number}")


def make_project(folder: Path, versions: int = 1) -> World:
    """A project whose model has versions v1, v2, …, each committed by itself; the last one is current."""
    world = make_repository(folder)
    world.write("dvc.yaml", PIPELINE)
    world.write("promote.py", PROMOTE)
    world.write(".gitignore", "/candidate.safetensors\n")
    for number in range(1, versions + 1):
        version(world, number, accuracy=round(0.9 + number / 100, 3), width=32 * number)
    return world


def shown(world: World, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What a registry verb says as JSON."""
    answer: dict[str, Any] = json.loads(world.holdfast("registry", *arguments, "--json", code=code).stdout)
    return answer


def labels(world: World, model: str = MODEL) -> dict[str, str]:
    """Each label of a model, and its version."""
    found = shown(world, "show", model)["models"][0]
    return {"current": found["current"], **found["aliases"]}


def copy_of(world: World, folder: Path) -> World:
    """A copy of a project with its cache, to be changed."""
    copied = World(folder / "repository", make_home(folder), world.project)
    shutil.copytree(world.root, copied.root, symlinks=True)
    return copied


def error_of(world: World, *arguments: str, code: int) -> str:
    """The one line of a registry verb that must fail."""
    error = world.holdfast("registry", *arguments, code=code).stderr
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


def registry_files(world: World) -> dict[str, bytes]:
    """Every file of the registry, by its path in it."""
    folder = world.root / "registry"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# of a step that a program dies at
MOMENTS = [pytest.param("before", marks=pytest.mark.soak), "after"]

# the head of a program that ends as if by `kill -9` at the n-th step that changes something, before it or after it
DYING = textwrap.dedent("""
    import os, signal, sys

    calls = 0
    def dying(real):
        def step(*arguments, **named):
            global calls
            calls += 1
            if calls == int(sys.argv[1]) and sys.argv[2] == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if calls == int(sys.argv[1]):
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        return step
""")


def is_killed(world: World, program: str, step: int, moment: str, *arguments: str) -> bool:
    """Run a program that begins with `DYING` in the project; False where it ended before so many steps."""
    child = subprocess.run(
        [sys.executable, "-c", program, str(step), moment, *arguments],
        cwd=world.root,
        env=environment(world.home),
        capture_output=True,
        check=False,
    )
    assert child.returncode in (0, -signal.SIGKILL), child.stderr
    return child.returncode != 0
