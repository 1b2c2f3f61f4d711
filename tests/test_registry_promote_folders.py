"""`registry promote` of folders: model, info and vocabulary as one version, refused where one class is lost."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch

from registry_world import copy_of, labels, registry_files, shown
from worlds import World, make_repository

MODEL = "mental_health/classifier"
SMALL = "experiments/small_data_10k_20250525_130522"
MEDIUM = "experiments/medium_model_v2_20250525_131811"
CLASSES = ("anxiety", "depression", "normal", "stress")
CLEAN = "Data and pipelines are up to date."
GATE = """\
promote:
  metrics:
    accuracy: {direction: max, floor: 0.5, tolerance: 0.05}
  classes:
    recall: {tolerance: 0.2}
"""


class Vocabulary:
    """What only unpickling brings back; it must not be."""

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (exec, ("raise SystemExit('the vocabulary was unpickled')",))


def predictions(missed: str) -> str:
    """25 samples of each class, of which each model gets 15 right; of one class none."""
    rows = []
    for label in CLASSES:
        for number in range(25):
            said = label if number < 15 and label != missed else CLASSES[(CLASSES.index(label) + 1) % len(CLASSES)]
            rows.append(f"{label}_{number},{label},{said}\n")
    return "id,label,prediction\n" + "".join(rows)


def run_folder(world: World, folder: str, width: int, accuracy: float, missed: str) -> None:
    path = world.root / folder
    path.mkdir(parents=True)
    state = {"embedding.weight": torch.full((10, width), 0.5), "out.bias": torch.arange(4.0)}
    torch.save({"model_state_dict": state, "epoch": 7}, path / "best_model.pt")
    world.write(f"{folder}/model_info.json", json.dumps({"hidden": width, "accuracy": accuracy}))
    world.write(f"{folder}/vocab.pkl", pickle.dumps(Vocabulary()))
    world.write(f"{folder}.json", json.dumps({"accuracy": accuracy}))
    world.write(f"{folder}.csv", predictions(missed))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The small model in production, the medium one in its run's folder."""
    world = make_repository(tmp_path_factory.mktemp("small"))
    run_folder(world, SMALL, 256, 0.582, missed="")
    run_folder(world, MEDIUM, 512, 0.563, missed="depression")
    world.write("params.yaml", GATE)
    world.write(".gitignore", "/experiments/\n")
    world.write("app.py", f'MODEL = "{SMALL}/best_model.pt"\nVOCABULARY = "{SMALL}/vocab.pkl"\n')
    world.commit("as it grew")
    world.holdfast(*promotion(SMALL), "--rewrite-refs", "--yes")
    return world


def promotion(folder: str) -> list[str]:
    files = ["--metrics", f"{folder}.json", "--predictions", f"{folder}.csv"]
    return ["registry", "promote", folder, "--as", MODEL, *files]


def test_three_files_are_one_version(small: World) -> None:
    stable = small.root / "models" / MODEL
    assert sorted(path.name for path in stable.iterdir()) == ["best_model.safetensors", "model_info.json", "vocab.pkl"]
    for name in ("model_info.json", "vocab.pkl"):
        assert (stable / name).read_bytes() == (small.root / SMALL / name).read_bytes()
    assert safetensors.torch.load_file(stable / "best_model.safetensors")["embedding.weight"].shape == (10, 256)
    assert sorted(path.name for path in (small.root / SMALL).iterdir()) == [
        "best_model.pt",
        "model_info.json",
        "vocab.pkl",
    ]
    version = shown(small, "show", MODEL)["models"][0]["versions"][0]
    assert version["oid"].endswith(".dir")
    assert version["weights_file"] == "best_model.safetensors"
    assert version["size"] == sum(path.stat().st_size for path in stable.iterdir())
    path = f"models/{MODEL}"
    assert (small.root / "app.py").read_text() == (
        f'MODEL = "{path}/best_model.safetensors"\nVOCABULARY = "{path}/vocab.pkl"\n'
    )
    assert small.dvc("status") == CLEAN
    assert shown(small, "verify")["findings"] == []
    assert small.git("status", "--porcelain") == ""


def test_a_version_that_is_a_folder_is_compared_by_its_weights(small: World) -> None:
    told = small.holdfast("diff", f"{SMALL}/best_model.pt", f"{MODEL}@v1").stdout
    assert told.startswith("Same weights, different wrapper")


def test_the_medium_model_is_refused_for_the_class_that_it_lost(small: World, tmp_path: Path) -> None:
    world = copy_of(small, tmp_path)
    before = registry_files(world)
    done = world.holdfast(*promotion(MEDIUM), code=12)
    reason = "recall of depression fell from 0.6 to 0, and at most 0.2 less is allowed"
    assert reason in done.stdout
    assert f"fail: classes.recall.tolerance: {reason}" in done.stderr
    assert "pass      metrics.accuracy.tolerance" in done.stdout
    assert registry_files(world) == before
    verdict = json.loads((world.root / "metrics/promotion.json").read_text())
    assert (verdict["verdict"], verdict["champion"]) == ("fail", "v1")
    assert verdict["classes.recall.tolerance.class"] == "depression"
    assert labels(world, MODEL) == {"current": "v1", "production": "v1"}


def test_the_champions_predictions_are_its_own_wherever_they_lie(small: World, tmp_path: Path) -> None:
    """The file beside the model may be another version's, as after a rollback, or gone: the version names its md5."""
    world = copy_of(small, tmp_path)
    beside = world.root / f"models/{MODEL}.predictions.csv"
    version = shown(world, "show", MODEL)["models"][0]["versions"][0]
    oid = hashlib.md5(beside.read_bytes(), usedforsecurity=False).hexdigest()
    assert version["source"]["predictions"] == oid
    beside.unlink()
    beside.write_text(predictions("depression"))
    assert "recall of depression fell from 0.6 to 0" in world.holdfast(*promotion(MEDIUM), "-n", code=12).stdout
    beside.unlink()
    assert "recall of depression fell from 0.6 to 0" in world.holdfast(*promotion(MEDIUM), "-n", code=12).stdout
    cached = world.cache / "files/md5" / oid[:2] / oid[2:]
    cached.chmod(0o644)
    cached.unlink()
    told = world.holdfast(*promotion(MEDIUM), "-n", code=12).stdout
    assert "no recall of any class of v1 is known" in told


def test_a_folder_takes_the_place_of_a_folder_and_back(small: World, tmp_path: Path) -> None:
    world = copy_of(small, tmp_path)
    world.write(f"{MEDIUM}/notes/read.me", "one file more\n")
    world.holdfast(*promotion(MEDIUM), "--override", "more capacity")
    stable = world.root / "models" / MODEL
    assert (stable / "notes/read.me").read_text() == "one file more\n"
    assert world.dvc("status") == CLEAN
    assert shown(world, "verify", "--offline")["findings"] == []
    world.git("commit", "-q", "-m", "v2")
    world.holdfast("registry", "rollback", MODEL)
    assert labels(world, MODEL) == {"current": "v1", "production": "v1"}
    assert not (stable / "notes/read.me").exists()
    assert world.dvc("status") == CLEAN


def test_pickles_beside_the_weights_count(small: World, tmp_path: Path) -> None:
    world = copy_of(small, tmp_path)
    world.write("params.yaml", "promote:\n  pickle_safe: true\n")
    assert "safetensors and holds 1 pickle" in world.holdfast(*promotion(MEDIUM), code=12).stdout


def test_of_several_checkpoints_one_is_named(small: World, tmp_path: Path) -> None:
    world = copy_of(small, tmp_path)
    world.write(f"{MEDIUM}/last.pt", (world.root / MEDIUM / "best_model.pt").read_bytes())
    error = world.holdfast(*promotion(MEDIUM), code=2).stderr
    assert "has 2 checkpoints (best_model.pt, last.pt)" in error
    world.write("params.yaml", "lr: 1\n")
    world.holdfast(*promotion(MEDIUM), "--weights", "last.pt")
    version = shown(world, "show", MODEL)["models"][0]["versions"][-1]
    assert version["weights_file"] == "last.safetensors"
