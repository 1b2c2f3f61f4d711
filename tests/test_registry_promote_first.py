"""The first candidate ever is refused, in a project made from this one's own pipeline, with real DVC."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
import yaml

from holdfast.formats.digest import file_md5
from holdfast.registry.gate_predictions import PredictionsError, read_predictions
from pipeline_world import Clone, current_of, placed
from worlds import TOOLS, run

FOLDER = "models/digits"
OUTS = {"classifier.safetensors", "classifier.predictions.csv", "classifier.yaml"}
STABLE = f"{FOLDER}/classifier.safetensors"
CLEAN = "Data and pipelines are up to date."
NOTICE = "# There is no version of digits/classifier yet: its candidates were refused, see metrics/promotion.json.\n"


def begin(folder: Path) -> Clone:
    """This project's pipeline before anything was ever promoted; two epochs, which its gate refuses."""
    clone = Clone(folder)
    for name in ("registry", "metrics"):
        clone("git", "rm", "-q", "-r", name)
    clone("git", "rm", "-q", "dvc.lock", f"{FOLDER}/README.md", f"{FOLDER}/classifier.md", f"{FOLDER}/classifier.yaml")
    params = clone.root / "params.yaml"
    params.write_text(re.sub(r"epochs: \d+", "epochs: 2", params.read_text()))
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "-m", "a pipeline that never ran")
    return clone


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Its first run, of which the gate refuses what came out."""
    clone = begin(tmp_path_factory.mktemp("refused"))
    shown = clone("dvc", "repro")
    assert "refused: there is no version" in shown
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "-m", "refused")
    return clone


def copy_of(clone: Clone, folder: Path) -> Clone:
    """A copy with its cache, to be changed."""
    return placed(Path(shutil.copytree(clone.root, folder / "clone", symlinks=True)), clone.home)


def no_version(clone: Clone) -> None:
    """Nothing is registered, and nothing at the stable path is a model."""
    assert "digits/classifier" not in clone("holdfast", "registry", "list")
    assert not (clone.root / "registry/digits/classifier/model.yaml").exists()
    there = {path.name for path in (clone.root / FOLDER).iterdir()} - {".gitignore"}
    assert there == OUTS
    assert {(clone.root / FOLDER / name).read_text() for name in OUTS} == {NOTICE}


def test_the_stage_ends_well_and_nothing_is_promoted(refused: Clone) -> None:
    clone = refused
    verdict = clone.json("metrics/promotion.json")
    assert (verdict["verdict"], verdict["passed"], verdict["metrics.accuracy.floor"]) == ("fail", 0, 0)
    no_version(clone)
    assert clone("dvc", "status").strip() == CLEAN
    assert "Running stage" not in clone("dvc", "repro")
    # the refused weights are where training left them, and nowhere else
    made = file_md5(clone.root / "outputs/train/best_model.pt")
    outs = clone.outs()
    assert [path for path, oid in outs.items() if oid == made] == ["outputs/train/best_model.pt"]
    assert outs[STABLE] == file_md5(clone.root / STABLE)
    assert "0 faults in 0 versions of 0 models" in clone("holdfast", "registry", "verify")


def test_no_loader_takes_the_notice_for_a_model(refused: Clone, tmp_path: Path) -> None:
    stable = refused.root / STABLE
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load_file(stable)
    shutil.copy(stable, tmp_path / "classifier.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "classifier.pt", weights_only=True)
    with pytest.raises(ValueError, match="pickled"):
        np.load(stable, allow_pickle=False)
    assert yaml.safe_load((refused.root / FOLDER / "classifier.yaml").read_text()) is None
    with pytest.raises(PredictionsError):
        read_predictions(refused.root / FOLDER / "classifier.predictions.csv", ())
    command = [str(TOOLS / "holdfast"), "registry", "register", "digits/other", STABLE]
    assert "no weights digest" in run(command, refused.root, refused.home, code=1).stderr


def test_push_pull_and_a_fresh_clone(refused: Clone, tmp_path: Path) -> None:
    refused("dvc", "remote", "add", "--local", "-f", "-d", "store", str(tmp_path / "store"))
    refused("dvc", "push")
    assert refused("dvc", "status", "-c").strip().endswith("in sync.")
    run(["git", "clone", "-q", str(refused.root), str(tmp_path / "fresh")], tmp_path, refused.home)
    fresh = placed(tmp_path / "fresh", refused.home)
    fresh("dvc", "remote", "add", "--local", "-f", "-d", "store", str(tmp_path / "store"))
    fresh("dvc", "pull")
    no_version(fresh)
    assert fresh("dvc", "status").strip() == CLEAN
    assert "Running stage" not in fresh("dvc", "repro")


@pytest.mark.parametrize("where", [[], pytest.param(["--temp"], marks=pytest.mark.soak)])
def test_an_experiment_whose_first_candidate_is_refused(tmp_path: Path, where: list[str]) -> None:
    clone = begin(tmp_path)
    clone("dvc", "exp", "run", *where, "-n", "first", "-S", "train.epochs=1")
    table = clone("dvc", "exp", "show", "--json")
    assert '"first"' in table
    if where:
        assert clone("git", "status", "--porcelain") == ""
        clone("dvc", "exp", "apply", "first")
    no_version(clone)
    assert clone.json("metrics/promotion.json")["passed"] == 0
    assert clone("dvc", "status").strip() == CLEAN
    assert "Running stage" not in clone("dvc", "repro")


def test_what_is_promoted_at_last_takes_the_notices_place(refused: Clone, tmp_path: Path) -> None:
    clone = copy_of(refused, tmp_path)
    no_version(clone)
    # refused once more: the notices stay, byte for byte
    clone("dvc", "repro", "-f", "-s", "promote")
    no_version(clone)
    assert clone("git", "status", "--porcelain") == ""

    clone.open_gate()
    assert "registered digits/classifier@v1" in clone("dvc", "repro")
    current = current_of(clone)
    assert file_md5(clone.root / STABLE) == current["oid"] == clone.outs()[STABLE]
    assert yaml.safe_load((clone.root / FOLDER / "classifier.yaml").read_text())["model"] == "digits/classifier"
    assert file_md5(clone.root / FOLDER / "classifier.predictions.csv") == current["source"]["predictions"]
    assert NOTICE not in {path.read_text() for path in (clone.root / FOLDER).glob("*.[cmy]*")}
    assert clone("dvc", "status").strip() == CLEAN
    assert clone("holdfast", "registry", "verify", "--offline").startswith("0 faults in 1 version")
    card = (clone.root / FOLDER / "classifier.md").read_text()
    data = file_md5(clone.root / "data/digits.npz")
    size = (clone.root / "data/digits.npz").stat().st_size
    for role in ("training", "evaluation"):
        assert f"| digits.npz | {role} | `data/digits.npz` | {size / 1000:.1f} kB | `{data}` |" in card
    # undone: the notices are back, and DVC is content
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "-m", "promoted")
    clone("git", "revert", "--no-edit", "HEAD")
    clone("dvc", "checkout")
    no_version(clone)
    assert clone("dvc", "status").strip() == CLEAN
