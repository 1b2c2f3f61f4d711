"""A project with two states of a model, main and a branch beside it, as a pull request compares them: real git, DVC's
files as DVC writes them, real weights, predictions and curves in the cache, a real registry.
"""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save

from holdfast.registry.entries import Version
from holdfast.registry.store import Registry
from holdfast.repo.workspace import find_project
from holdfast.report.pull_request import PullRequest, read_pull_request
from worlds import World, make_repository

MODEL = "digits/classifier"
STABLE = "models/digits/classifier.safetensors"
SAMPLES = 120
CLASSES = ("a", "b", "c")
GATE: dict[str, Any] = {
    "model": MODEL,
    "metrics": {
        "accuracy": {"direction": "max", "floor": 0.8, "required": True},
        "val_loss": {"direction": "min", "tolerance": 0.05},
    },
    "classes": {"recall": {"tolerance": 0.1, "minimum_samples": 10}},
    "bootstrap": {"accuracy": {"tolerance": 0.2, "minimum_differing": 1, "resamples": 999}},
    "max_size": "1 MB",
    "pickle_safe": True,
}
PIPELINE = """\
stages:
  train:
    cmd: python train.py
    deps:
    - train.py
    params:
    - train
    metrics:
    - metrics/train.json:
        cache: false
    outs:
    - outputs/epoch_statistics.csv
    - outputs/model.safetensors
  evaluate:
    cmd: python evaluate.py
    deps:
    - outputs/model.safetensors
    metrics:
    - metrics/evaluate.json:
        cache: false
    outs:
    - outputs/predictions.csv
  promote:
    cmd: python promote.py
    deps:
    - outputs/model.safetensors
    - outputs/predictions.csv
    params:
    - promote
    metrics:
    - metrics/promotion.json:
        cache: false
    outs:
    - models/digits/classifier.predictions.csv:
        persist: true
    - models/digits/classifier.safetensors:
        persist: true
plots:
- Loss:
    x: epoch
    y:
      outputs/epoch_statistics.csv: [train_loss, val_loss]
"""


@dataclass(frozen=True)
class State:
    """What a commit of the project has.

    Attributes:
        value: what the weights are made of.
        metadata: beside the weights.
        wrong: samples that are predicted wrong, by number, and as what.
        lr: of the params.
        val_loss: of the metrics.
        more: further metrics.
        gate: of the params; None for none.
        version: what is registered with it; None for nothing.
        verdict: of metrics/promotion.json; None for no such file.
    """

    value: float = 1.0
    metadata: str = "first"
    wrong: dict[int, str] = field(default_factory=lambda: {0: "b", 1: "c", 3: "b"})
    lr: float = 0.01
    val_loss: float = 0.25
    more: dict[str, Any] = field(default_factory=lambda: {"test": {"f1": 0.875, "samples": SAMPLES}, "note": "plain"})
    gate: dict[str, Any] | None = field(default_factory=lambda: GATE)
    version: bool = True
    verdict: str | None = None

    @property
    def accuracy(self) -> float:
        return 1 - len(self.wrong) / SAMPLES

    @property
    def weights(self) -> bytes:
        tensor = np.linspace(self.value, self.value + 1, 40_000, dtype=np.float32).reshape(200, 200)
        return save(
            {"layer.weight": tensor, "layer.bias": np.full(200, self.value, np.float32)}, {"run": self.metadata}
        )

    @property
    def predictions(self) -> str:
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("id", "label", "prediction"))
        for number in range(SAMPLES):
            label = CLASSES[number % len(CLASSES)]
            rows.writerow((f"s{number:03}", label, self.wrong.get(number, label)))
        return text.getvalue()

    @property
    def curves(self) -> str:
        rows = [f"{epoch},{1 / epoch + self.value},{1.2 / epoch + self.val_loss}" for epoch in range(1, 9)]
        return "epoch,train_loss,val_loss\n" + "\n".join(rows) + "\n"


def put(world: World, state: State, *, pipeline: str = PIPELINE) -> None:
    """Write a state into the workspace and its objects into the cache; not committed."""
    params: dict[str, Any] = {"train": {"lr": state.lr, "layers": [64, 32], "seed": 7}}
    if state.gate is not None:
        params["promote"] = state.gate

    def write(path: str, data: str) -> None:
        world.write(f"{world.project}/{path}", data)

    write("params.yaml", yaml.safe_dump(params, sort_keys=False))
    write("dvc.yaml", pipeline)
    write("metrics/train.json", json.dumps({"val_loss": state.val_loss, "best_epoch": 3}))
    write("metrics/evaluate.json", json.dumps({"accuracy": state.accuracy, **state.more}))
    write("metrics/.gitkeep", "")
    if state.verdict is not None:
        write("metrics/promotion.json", json.dumps({"verdict": state.verdict, "passed": 0}))
    write("train.py", "print()\n")
    outs = {
        "train": {"outputs/epoch_statistics.csv": state.curves, "outputs/model.safetensors": state.weights},
        "evaluate": {"outputs/predictions.csv": state.predictions},
        "promote": {
            "models/digits/classifier.predictions.csv": state.predictions,
            STABLE: state.weights,
        },
    }
    stages = {}
    for stage, files in outs.items():
        entries = [
            {
                "path": path,
                "hash": "md5",
                "md5": world.store(data),
                "size": len(data.encode() if isinstance(data, str) else data),
            }
            for path, data in files.items()
        ]
        stages[stage] = {"cmd": f"python {stage}.py", "outs": entries}
    write("dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
    if state.version:
        register(world, state)


def register(world: World, state: State) -> None:
    """Register the state's weights as the next version."""
    oid = world.store(state.weights)
    Registry(world.folder).register(
        MODEL,
        Version(
            name="v1",
            path=STABLE,
            oid=oid,
            size=len(state.weights),
            weights=f"blake3:{oid}{oid}",
            date="2026-01-02",
            source={"run": "outputs", "predictions": world.store(state.predictions)},
            metrics={"accuracy": state.accuracy, "val_loss": state.val_loss},
        ),
        "Letters",
    )


BASE = State()
# a little better in all, one class worse, another learning rate, new weights, a new version
HEAD = State(
    value=1.01,
    wrong={2: "a", 5: "a"},
    lr=0.02,
    val_loss=0.2,
    more={"test": {"f1": 0.9, "samples": SAMPLES}, "fresh": 3},
)


def make_world(folder: Path, base: State | None = BASE, head: State = HEAD, *, project: str = ".") -> World:
    """A repository with the base state on ``main`` and the head state on ``feature``, which is checked out."""
    world = make_repository(folder, project=project)
    if base is not None:
        put(world, base)
        world.commit("The model as it is")
    world.git("checkout", "--quiet", "-b", "feature")
    put(world, head)
    world.commit("Learn faster")
    return world


def facts(
    world: World, base: str = "main", head: str = "HEAD", *, cache: Path | None = None, **options: Any
) -> PullRequest:
    """The facts of a world, read in this process; ``cache`` where it is not the world's own."""
    return read_pull_request(find_project(world.folder), (cache or world.cache).resolve(), base, head, **options)[0]
