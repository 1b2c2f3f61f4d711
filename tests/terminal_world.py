"""One project in which every command has something to do: what the examples of ``--help`` name is there."""

import contextlib
import io
import json
import os
import shlex
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from onnx import TensorProto, helper, numpy_helper, save

from gc_world import NO_AGE
from holdfast.cli.main import _run
from holdfast.runs import RunRecorder
from test_inventory_runs_world import Words
from test_inventory_runs_world import build as build_runs
from test_registry_signing import make_keys
from worlds import World, environment, make_home, make_repository

MODEL = "models/digits/classifier.safetensors"
CLASSES = 500
PARAMETERS = 4 * CLASSES
CONFIG = """\
[core]
    remote = storage
['remote "storage"']
    url = ../../storage
[cache]
    type = "hardlink,symlink"
"""
HOLDFAST = f"""\
{NO_AGE}\
canonical:
  models:
  - use: models/digits/classifier.safetensors
    not: models/digits/classifier_old.safetensors
"""
GATE = """\
promote:
  model: digits/classifier
  metrics:
    accuracy:
      direction: max
      floor: 0.5
"""
NET = f"""
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(3, {CLASSES})

    def forward(self, x):
        return self.a(x)

def load(state):
    net = Net()
    net.load_state_dict(state)
    return net
"""
TRAIN = f"""
from package.loader import load
from package.loader_fixed import load as load_fixed

weights = load("{MODEL}")
old = load("models/digits/classifier_old.safetensors")
checkpoint = "outputs/run_18/best_model.pt"
"""
SCRIPT = """
import json

import torch

torch.save({}, "trained/model.pt")
with open("trained/metrics.json", "w") as file:
    json.dump({"accuracy": 0.9}, file)
"""
LOADER = """
def load(path):
    with open(path, "rb") as file:
        return file.read()

def check(path):
    data = load(path)
    assert data, path
    return len(data)
"""
SOURCES = """\
schema: 1
domains: [astronomy, climate]
bucket: ../storage
"""
ERA5 = """\
sources:
- name: era5
  title: ECMWF Reanalysis v5
  origin: ECMWF
  annotations: {grid: 0.25 degrees}
  url: https://cds.climate.copernicus.eu
  licence: CC-BY-4.0
  version: '5'
  updates: daily
  prefix: climate/era5/
"""
JWST = """\
sources:
- name: jwst
  url: https://mast.stsci.edu
  licence: CC-BY-4.0
  version: '1'
  updates: weekly
  prefix: astronomy/jwst/
"""


@dataclass(frozen=True)
class Result:
    """What a command line gave."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def inside(world: World, **variables: str) -> Iterator[None]:
    """This process as one that was started in the world's project."""
    place, before = Path.cwd(), dict(os.environ)
    # a file of Python's own would be a file of the project
    os.environ.update(environment(world.home) | {"PYTHONDONTWRITEBYTECODE": "1"} | variables)
    os.chdir(world.root)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)


def call(world: World, line: str, **variables: str) -> Result:
    """Run a line of a shell in this process: ``holdfast …``, joined by ``&&``, written to a file by ``>``.

    What the last command printed is given.
    """
    code, out, err = 0, "", io.StringIO()
    with inside(world, **variables), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries say of themselves is no error, as in a process of its own
        words = shlex.split(line)
        for part in _parts(words, "&&"):
            arguments, *target = _parts(part, ">")
            assert arguments[0] == "holdfast", line
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(err):
                code = _run(arguments[1:])
            if target:
                file = Path(target[0][0]).expanduser()
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(printed.getvalue())
            out = "" if target else printed.getvalue()
            if code:
                break
    return Result(code, out, err.getvalue())


def done(world: World, line: str, **variables: str) -> str:
    """The same, which must go well; what it printed."""
    result = call(world, line, **variables)
    assert result.code == 0, f"{line} ended with {result.code}:\n{result.out}\n{result.err}"
    return result.out


def build(folder: Path) -> World:
    """The project in ``folder/repository``, its DVC remote with a vault in ``folder/storage``."""
    world = make_repository(folder)
    (folder / "storage").mkdir()
    world.write(".dvc/config", CONFIG)
    world.write(".gitignore", f"*.pt\n*.pth\n*.pkl\n/{MODEL}\n/copy\n")
    world.write("holdfast.yaml", HOLDFAST)
    world.write("params.yaml", "train:\n  lr: 0.1\n" + GATE)
    world.write("metrics/evaluate.json", json.dumps({"accuracy": 0.95, "test_loss": 0.05}))
    build_runs(world.root, Words())
    _versions(world)
    _run_folders(world)
    _code(world)
    _catalogue(world, folder / "storage")
    _others(world)
    done(world, "holdfast registry tag --artifacts")
    _stage(world)
    world.commit("all of it")
    done(world, "holdfast vault init")
    done(world, "holdfast push --all-commits")
    world.git("init", "--quiet", "--bare", "../origin.git")
    world.git("remote", "add", "origin", "../origin.git")
    world.git("push", "--quiet", "--set-upstream", "origin", "main")
    world.git("branch", "feature")
    # each copy would copy samples and single objects
    shutil.rmtree(world.root / ".git/hooks")
    world.git("gc", "--quiet")
    # as `dvc push` leaves it
    shutil.copytree(world.cache / "files", folder / "storage/files")
    return world


def copy_of(world: World, folder: Path) -> World:
    """A copy with its storage and its git remote, to be changed."""
    copied = World(folder / "repository", make_home(folder))
    shutil.copytree(world.root, copied.root, symlinks=True)
    for name in ("storage", "origin.git"):
        shutil.copytree(world.root.parent / name, folder / name, symlinks=True)
    return copied


def cached_oid(world: World) -> str:
    """DVC's name of the stable file, as its ``.dvc`` file has it."""
    return (world.root / f"{MODEL}.dvc").read_text().split("md5: ")[1].split()[0]


def _parts(words: list[str], mark: str) -> Iterator[list[str]]:
    part: list[str] = []
    for word in words:
        if word == mark:
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _tensors(value: float) -> dict[str, np.ndarray]:
    weight = np.linspace(value, value + 1, 3 * CLASSES, dtype=np.float32).reshape(CLASSES, 3)
    return {"a.weight": weight, "a.bias": np.full(CLASSES, value, np.float32)}


def _track(world: World, value: float) -> None:
    data = safetensors.numpy.save(_tensors(value))
    oid = world.store(data)
    world.write(MODEL, data)
    text = f"outs:\n- md5: {oid}\n  size: {len(data)}\n  hash: md5\n  path: {MODEL.rpartition('/')[2]}\n"
    world.write(f"{MODEL}.dvc", text)


def _versions(world: World) -> None:
    """Three versions, and one before them that only the reflog knows."""
    _track(world, 0)
    world.commit("draft")
    for number in (1, 2, 3):
        _track(world, number)
        metrics = f"--metric accuracy=0.9{number} --metric test_loss=0.0{9 - number} --param lr=0.{number}"
        done(
            world, f"holdfast registry register digits/classifier {MODEL} {metrics} --description 'Handwritten digits'"
        )
        world.git("add", "--all")
        world.git("commit", "--quiet", "-m", f"version {number}", *(("--amend",) if number == 1 else ()))
    done(world, "holdfast registry assign digits/classifier@v3 production")
    done(world, "holdfast registry assign digits/classifier@v2 staging")


def _stage(world: World) -> None:
    """A stage whose out DVC tracks, beside the artifacts that are in dvc.yaml."""
    place = "outputs/run_18/best_model.pt"
    data = (world.root / place).read_bytes()
    oid = world.store(data)
    stage = f"stages:\n  train:\n    cmd: python scripts/train.py\n    outs:\n    - {place}\n"
    world.write("dvc.yaml", stage + (world.root / "dvc.yaml").read_text())
    out = f"    - path: {place}\n      hash: md5\n      md5: {oid}\n      size: {len(data)}\n"
    world.write("dvc.lock", f"schema: '2.0'\nstages:\n  train:\n    cmd: python scripts/train.py\n    outs:\n{out}")


def _run_folders(world: World) -> None:
    torch.manual_seed(0)
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(3, CLASSES)})
    labels = np.array([0, 1, 0, 1])
    with RunRecorder(world.root / "outputs/train", classes=("cat", "dog"), seed=3, params={"lr": 0.1}) as run:
        for epoch in (1, 2):
            run.log_epoch(epoch, {"train_loss": 0.2 / epoch, "val_loss": 0.3 / epoch}, model=net)
        run.log_predictions([f"sample {number}" for number in range(4)], labels, np.eye(2, dtype=np.float32)[labels])
        run.log_class_distribution("train", labels)
    shutil.copytree(world.root / "outputs/train", world.root / "outputs/run_18")
    world.write("models/scorer/model.safetensors", safetensors.numpy.save(_tensors(7.0)))
    world.write("models/scorer/vocabulary.txt", "a b c")


def _code(world: World) -> None:
    world.write("src/package/__init__.py", "")
    world.write("src/package/loader.py", LOADER)
    world.write("src/package/loader_fixed.py", LOADER.replace("path", "place"))
    world.write("scripts/train.py", TRAIN)
    cell = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": [f'open("{MODEL}")\n'],
    }
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    world.write("notebooks/look.ipynb", json.dumps(notebook))
    world.write("net.py", NET)
    world.write("src/train.py", SCRIPT)


def _catalogue(world: World, storage: Path) -> None:
    world.write("sources.yaml", SOURCES)
    world.write("sources/climate.yaml", ERA5)
    world.write("sources/astronomy.yaml", JWST)
    world.write("sources.csv", "name,url,licence\nghcn,https://ncei.noaa.gov,CC0-1.0\n")
    for name in ("climate/era5/1979.nc", "astronomy/jwst/a.fits"):
        (storage / name).parent.mkdir(parents=True)
        (storage / name).write_text("data")


def _others(world: World) -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(8, 3)).astype(np.float32)
    np.savez(world.root / "samples.npz", x=samples)
    rows = [f"{a},{b},{c},{number % CLASSES}" for number, (a, b, c) in enumerate(samples.tolist())]
    world.write("test.csv", "\n".join(["u,v,w,class", *rows]) + "\n")
    tensors = _tensors(1.0)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], transB=1)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(tensors["a.weight"], "weight"), numpy_helper.from_array(tensors["a.bias"], "bias")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), world.root / "net.onnx")
    shutil.copytree(Path(__file__).parent / "golden" / "mlflow" / "mlruns", world.root / "mlruns")
    tree = {"other": {"scorer": {"current": "v1", "versions": {"v1": {"path": "models/scorer", "date": "2026-11-20"}}}}}
    world.write("models/registry.yaml", json.dumps(tree))
    world.write("oids.txt", f"md5:{cached_oid(world)}\n")
    make_keys(world.root, "release")
