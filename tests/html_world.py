"""A project that has seen a year: models with hundreds of versions, experiments, runs, files; written by one `git fast-import`."""

import hashlib
import json
import math
import random
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from holdfast.report.html import charting_library, charting_version
from worlds import World, environment, make_home

START = 1_760_000_000  # 2025-10-09T08:53:20Z
STEP = 86_400
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
PIPELINE = """\
stages:
  prepare:
    cmd: python prepare.py
    deps: [raw/digits.csv, prepare.py]
    outs: [data/digits.npz]
  train:
    cmd: python train.py
    deps: [data/digits.npz, train.py]
    params: [train]
    outs: [outputs/train/best.pt]
    metrics:
      - metrics/train.json:
          cache: false
  promote:
    cmd: python promote.py
    deps: [outputs/train/best.pt, metrics/train.json]
    outs: [models/digits/classifier.safetensors]
    metrics:
      - metrics/promotion.json:
          cache: false
"""
MODELS = {"digits/classifier": 0.6, "speech/tagger": 0.3, "vision/segmenter": 0.1}


@dataclass(frozen=True)
class Experiment:
    """What an experiment's commit says."""

    name: str
    commit: str
    baseline: str
    lr: float
    width: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class HtmlWorld:
    """The world, and what is true of it."""

    world: World
    experiments: tuple[Experiment, ...]
    versions: dict[str, int]
    commits: dict[str, str]  # of each version, by app/name@v3

    @property
    def root(self) -> Path:
        return self.world.root


@cache
def _charts() -> tuple[str, str]:
    """The charting library as the command keeps it in a project, which takes a second and a half to put together."""
    return f"charts-{charting_version()}.js", charting_library()


def _oid(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _lock(oid: str) -> str:
    return (
        "schema: '2.0'\nstages:\n  prepare:\n    cmd: python prepare.py\n    deps:\n"
        f"    - path: prepare.py\n      hash: md5\n      md5: {_oid('code')}\n      size: 120\n"
        f"    - path: raw/digits.csv\n      hash: md5\n      md5: {_oid('raw')}\n      size: 4200000\n"
        f"    outs:\n    - path: data/digits.npz\n      hash: md5\n      md5: {_oid('npz')}\n      size: 1200000\n"
        "  train:\n    cmd: python train.py\n    deps:\n"
        f"    - path: data/digits.npz\n      hash: md5\n      md5: {_oid('npz')}\n      size: 1200000\n"
        f"    outs:\n    - path: outputs/train/best.pt\n      hash: md5\n      md5: {_oid('pt' + oid)}\n      size: 300000\n"
        "  promote:\n    cmd: python promote.py\n    deps:\n"
        f"    - path: outputs/train/best.pt\n      hash: md5\n      md5: {_oid('pt' + oid)}\n      size: 300000\n"
        f"    outs:\n    - path: models/digits/classifier.safetensors\n      hash: md5\n      md5: {oid}\n      size: 279536\n"
    )


def _version(model: str, number: int, oid: str, accuracy: float, loss: float, rev: str, day: str) -> str:
    verdict = "pass" if number > 1 else ""
    gate = f"gate:\n  verdict: {verdict}\n  champion: v{number - 1}\n" if verdict else ""
    return (
        f"schema: 1\npath: models/{model}.safetensors\noid: '{oid}'\nsize: 279536\nweights: 'blake3:{_oid(oid) * 2}'\n"
        f"date: '{day}'\nsource:\n  run: outputs/train\n  rev: '{rev}'\nparams:\n  train:\n    lr: {0.001 + number / 1e5:.5f}\n    epochs: 40\n"
        f"metrics:\n  accuracy: {accuracy}\n  loss: {loss}\n  macro_f1: {accuracy - 0.004}\n{gate}"
    )


class _Stream:
    """Commands for `git fast-import`."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.commits = 0

    def commit(self, ref: str, message: str, files: dict[str, str], *, parent: str | None, when: int) -> str:
        self.commits += 1
        text = message.encode()
        self.parts.append(
            f"commit {ref}\nmark :{self.commits}\ncommitter Ada <ada@example.org> {when} +0000\ndata {len(text)}\n".encode()
            + text
            + (f"\nfrom {parent}\n" if parent else "\n").encode()
        )
        for path, content in files.items():
            data = content.encode()
            self.parts.append(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
        return f":{self.commits}"


def make_world(
    folder: Path, *, versions: int = 200, experiments: int = 300, runs: int = 24, hostile: bool = False
) -> HtmlWorld:
    """The project, checked out.

    Args:
        folder: an empty one.
        versions: of all models together.
        experiments: half of which started from the branch's tip, half from a commit before.
        runs: folders below ``outputs``.
        hostile: whether names and messages are such as would be markup, somewhere.
    """
    chance = random.Random(7)
    home = make_home(folder)
    world = World(folder / ("project" if not hostile else "<b>project"), home)
    world.root.mkdir()
    world.git("init", "--quiet")
    stream = _Stream()
    counts = {model: max(1, round(versions * share)) for model, share in MODELS.items()} if versions else {}
    order = [model for model, count in counts.items() for _ in range(count)]
    chance.shuffle(order)
    params = "train:\n  lr: 0.003\n  width: 64\n  epochs: 40\n  schedule: cosine\n"
    marks: dict[str, str] = {}
    files = {
        ".dvc/config": "", ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n", "dvc.yaml": PIPELINE, "params.yaml": params,
        "metrics/train.json": json.dumps({"accuracy": 0.9, "loss": 0.4, "seconds": 12.5}),
        ".gitignore": "/outputs\n/models\n", "train.py": "from pathlib import Path\nMODEL = 'models/digits_best.safetensors'\n",
        **({} if versions else {"dvc.lock": _lock(_oid("first"))}),
    }  # fmt: skip
    tip = stream.commit("refs/heads/main", "The pipeline", files, parent=None, when=START)
    done = dict.fromkeys(counts, 0)
    labels: dict[str, dict[str, str]] = {model: {} for model in counts}
    accuracy = dict.fromkeys(counts, 0.88)
    previous = tip
    for place, model in enumerate(order):
        done[model] += 1
        number, when = done[model], START + (place + 1) * STEP
        accuracy[model] = min(0.995, accuracy[model] + chance.uniform(-0.004, 0.006))
        oid = _oid(f"{model}{number}")
        day = str(np.datetime64(when, "s").astype("datetime64[D]"))
        labels[model]["staging"] = f"v{number}"
        if number % 5 == 1:
            labels[model]["production"] = f"v{number}"
        description = HOSTILE if hostile else f"The {model.split('/')[1]} of {model.split('/')[0]}"
        aliases = "".join(f"  {name}: {version}\n" for name, version in sorted(labels[model].items()))
        changed = {
            f"registry/{model}/v{number}.yaml": _version(
                model, number, oid, round(accuracy[model], 4), round(1.2 - accuracy[model], 4), "0" * 40, day
            ),
            f"registry/{model}/model.yaml": f"schema: 1\ndescription: {json.dumps(description)}\ncurrent: v{number}\naliases:\n{aliases}",
            "dvc.lock": _lock(oid),
            "metrics/train.json": json.dumps({"accuracy": round(accuracy[model], 4), "loss": 0.2, "seconds": 12.5}),
        }
        previous = tip
        subject = f"{model} v{number}" if not hostile else f"{HOSTILE} \u202egnp.exe"
        tip = stream.commit("refs/heads/main", subject, changed, parent=tip, when=when)
        marks[f"{model}@v{number}"] = tip
    if not versions:
        previous = tip
        tip = stream.commit("refs/heads/main", "Later", {"readme.md": "later"}, parent=tip, when=START + STEP)
    tries: list[tuple[str, str, str, float, int, float, float]] = []
    for place in range(experiments):
        base = tip if place % 2 == 0 else previous
        lr, width = round(10 ** chance.uniform(-4.5, -1), 6), chance.choice([16, 32, 64, 128, 256])
        found = 0.98 - 0.03 * (math.log10(lr) + 2.6) ** 2 - 6 / (width + 60) + chance.gauss(0, 0.004)
        scores = {
            "accuracy": round(found, 4),
            "loss": round(1.1 - found + chance.gauss(0, 0.01), 4),
            "seconds": round(width / 7 + 3, 2),
        }
        # git forbids what else would be hostile in a ref's name
        name = f"{'<b>' if hostile else ''}exp-{place:03d}"
        mark = stream.commit(
            f"refs/heads/exp-{place}", name,
            {"params.yaml": params.replace("0.003", f"{lr:.6f}").replace("width: 64", f"width: {width}"), "metrics/train.json": json.dumps(scores)},
            parent=base, when=START + (len(order) + 2) * STEP + place * 60,
        )  # fmt: skip
        tries.append((name, mark, base, lr, width, scores["accuracy"], scores["loss"]))
    where = {"cwd": world.root, "env": environment(home), "check": True}
    subprocess.run(
        ["git", "fast-import", "--quiet", f"--export-marks={folder / 'marks'}"], input=b"".join(stream.parts), **where
    )
    commits = dict(line.split() for line in (folder / "marks").read_text().splitlines())
    updates = [
        f"create refs/exps/{commits[base][:2]}/{commits[base][2:]}/{name} {commits[mark]}\ndelete refs/heads/exp-{place}\n"
        for place, (name, mark, base, *_) in enumerate(tries)
    ]
    subprocess.run(["git", "update-ref", "--stdin"], input="".join(updates).encode(), **where)
    name, code = _charts()
    world.write(f".dvc/tmp/holdfast/{name}", code)
    world.git("symbolic-ref", "HEAD", "refs/heads/main")
    world.git("reset", "--quiet", "--hard")
    _files(world, chance, runs)
    return HtmlWorld(
        world,
        tuple(Experiment(n, commits[m], commits[b], lr, width, acc, loss) for n, m, b, lr, width, acc, loss in tries),
        counts,
        {name: commits[mark] for name, mark in marks.items()},
    )


def _files(world: World, chance: random.Random, runs: int) -> None:
    """What git does not track: runs, models, DVC's cache."""
    for number in range(runs):
        folder = f"outputs/{('wide', 'narrow', 'debug')[number % 3]}_{number:02d}"
        best, rate = 0.9 + chance.random() * 0.08, 0.1 + chance.random() * 0.2
        rows = ["epoch,train_loss,val_loss,val_accuracy"]
        for epoch in range(1, 31 if number % 3 < 2 else 4):
            loss = 2 * math.exp(-rate * epoch) + 0.1
            score = best * (1 - math.exp(-rate * epoch)) + chance.gauss(0, 0.004)
            rows.append(f"{epoch},{loss:.4f},{loss * 1.1 + 0.02:.4f},{score:.4f}")
        world.write(f"{folder}/metrics.csv", "\n".join(rows) + "\n")
        world.write(
            f"{folder}/config.json", json.dumps({"epochs": 30, "lr": 0.001 * (number + 1), "train_samples": 6000})
        )
        world.write(f"{folder}/results.json", json.dumps({"test_accuracy": round(best, 4)}))
        world.write(f"{folder}/best_model.pt.txt", "no weights")
    for number, name in enumerate(
        ["digits_best", "digits_last", "speech_best", "speech_cv_best", "vision_fold_1", "vision_fold_2"] * bool(runs)
    ):
        path = world.root / "models" / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"weight": np.full((16, 40 + 200 * number), number, np.float32)}, path)
    if runs:
        copy = (world.root / "models" / "digits_best.safetensors").read_bytes()
        world.write("models/old/digits_best.safetensors", copy)
        for number in range(40):
            world.store(f"{number}" * (200 + 90 * number))
