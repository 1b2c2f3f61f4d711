"""The main job in a copy of this project: real DVC, real training, real interruptions."""

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from pipeline_world import PROJECT, Clone, current_of, main_job
from worlds import TOOLS, environment, run

WALL_CLOCK = {"outputs/train/metadata.json"}


def reproducible(outs: dict[str, str]) -> dict[str, str]:
    return {path: md5 for path, md5 in outs.items() if path not in WALL_CLOCK}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the main job has run once."""
    return main_job(tmp_path_factory.mktemp("pipeline"), tmp_path_factory)


def test_the_main_job(clone: Clone) -> None:
    assert clone.json("metrics/evaluate.json")["accuracy"] >= 0.95
    assert clone("dvc", "status").strip() == "Data and pipelines are up to date."
    assert clone("dvc", "status", "-c").strip().endswith("in sync.")
    assert "outputs/train is valid." in clone("holdfast", "runs", "validate", "outputs/train")

    current = current_of(clone)
    assert current["oid"] == clone.outs()["models/digits/classifier.safetensors"]
    assert current["size"] == (clone.root / current["path"]).stat().st_size
    assert current["metrics"]["accuracy"] == clone.json("metrics/evaluate.json")["accuracy"]

    report = json.loads(clone("holdfast", "dedup", "report", "--json"))
    assert any("classifier.safetensors" in str(group) for group in report["groups"])
    assert "Nothing to remove" in clone("holdfast", "gc", "plan")


def test_only_what_must_change_changes(clone: Clone) -> None:
    changed = {line[3:] for line in clone.status()}
    assert {"dvc.lock"} <= changed
    # where another processor trains other bits, the metrics and a version more
    other_bits = {f"metrics/{name}.json" for name in ("train", "evaluate", "promotion")}
    other_bits |= {"registry/digits/classifier/model.yaml", "models/digits/classifier.md", "models/digits/README.md"}
    assert all(path in {"dvc.lock", *other_bits} or path.startswith("registry/digits/classifier/v") for path in changed)


def masked(text: str, *, figures: bool) -> list[str]:
    """The lines without what differs from day to day: times, commits, widths; and where asked without any figure, nor
    what figures are beside one another."""
    text = re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?", "", text)
    text = re.sub(r"\b[0-9a-f]{7,8}\b", "", text).replace("versions", "version")
    text = re.sub(r"\b[\d.]+ [dy]\b|\btoday\b", "", text)
    text = re.sub(r"\b(?=\w*\d)[\w.,]+\b|(?<= )[-+=✓✗](?=\s)|(?<= )[-+](?=\d)", "", text) if figures else text
    lines = (re.sub("─+", "─", re.sub(" +", " ", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


def test_the_readme_shows_what_its_commands_print(clone: Clone) -> None:
    readme = (PROJECT / "README.md").read_text()
    shown = re.findall(r"^\$ holdfast (.*)\n((?:(?!```).*\n)*)", readme, re.MULTILINE)
    assert len(shown) == 5
    # on a processor that trains the same bits, every figure must be the README's; on another one only the words
    ours = yaml.safe_load((PROJECT / "registry/digits/classifier/model.yaml").read_text())["current"]
    other_bits = current_of(clone)["version"] != ours
    for command, output in shown:
        expected = masked(output, figures=other_bits)
        real = masked(clone("holdfast", *command.split()), figures=other_bits)
        assert expected == real or (other_bits and set(expected) <= set(real)), command


def test_a_second_run_does_nothing(clone: Clone) -> None:
    before = clone.status()

    shown = clone("dvc", "repro")
    assert "Running stage" not in shown
    assert "up to date" in shown
    assert clone.status() == before


def test_attention_maps_are_real(clone: Clone) -> None:
    import numpy as np

    from holdfast.runs import ArrayStore

    store = ArrayStore.open(clone.root / "outputs/evaluate/attention_maps")
    assert len(store) == 360
    assert "is valid." in clone("holdfast", "runs", "validate", "outputs/evaluate/attention_maps")
    maps = np.stack([sample.array for sample in store])
    assert (maps >= 0).all()
    assert (maps.sum(axis=(1, 2)) <= 1 + 1e-5).all()  # the rest is the class token's look at itself
    assert len(np.unique(maps, axis=0)) == 360


@pytest.mark.soak
def test_forced_again_gives_the_same_bytes(clone: Clone) -> None:
    """All forty epochs; where training was killed, fewer of them are trained twice, and compared below."""
    before, registry = clone.outs(), (clone.root / "registry/digits/classifier/model.yaml").read_bytes()

    shown = clone("dvc", "repro", "-f")
    assert "going on after" not in shown
    after = clone.outs()
    assert reproducible(after) == reproducible(before)
    assert after.keys() == before.keys()
    assert (clone.root / "registry/digits/classifier/model.yaml").read_bytes() == registry
    assert "has these weights already; it is current" in shown


def test_experiments_carry_their_candidates(clone: Clone) -> None:
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "-m", "rebuilt")
    versions = {path.name for path in (clone.root / "registry/digits/classifier").iterdir()}

    # three epochs are too few for the gate: an experiment all the same, whose verdict stands beside its metrics
    shown = clone("dvc", "exp", "run", "-n", "fast", "-S", "train.lr=0.006", "-S", "train.epochs=3")
    assert "refused: digits/classifier@" in shown
    assert {path.name for path in (clone.root / "registry/digits/classifier").iterdir()} == versions
    assert clone.json("metrics/promotion.json")["verdict"] == "fail"
    table = clone("dvc", "exp", "show", "--md", "--only-changed")
    assert all(word in table for word in ("fast", "accuracy", "macro_f1", "val_loss", "train.lr", "0.006", "fail"))
    assert "accuracy" in clone("dvc", "metrics", "diff", "--md")
    assert "| train.lr" in clone("dvc", "params", "diff", "--md").replace("params.yaml | ", "")
    assert "index.html" in clone("dvc", "plots", "diff")
    page = (clone.root / "dvc_plots/index.html").read_text()
    assert all(f'"{title}"' in page for title in ("Loss", "Accuracy", "Recall by class", "Confusion on the test split"))

    # a candidate that passes, since its gate asks for little
    asked = ["train.lr=0.005", "train.epochs=4", "promote.metrics.accuracy.floor=0.3"]
    asked += ["promote.metrics.worst_recall.floor=0", "promote.classes.recall.tolerance=1"]
    asked += ["promote.bootstrap.accuracy.tolerance=1"]
    clone("dvc", "exp", "run", "--queue", "-n", "queued", *(word for one in asked for word in ("-S", one)))
    clone("dvc", "queue", "start")
    for _ in range(600):
        if re.search(r"queued.*(Success|Failed)", clone("dvc", "queue", "status")):
            break
        time.sleep(0.2)
    assert re.search(r"queued.*Success", clone("dvc", "queue", "status"))

    clone("dvc", "exp", "apply", "queued")
    assert yaml.safe_load((clone.root / "params.yaml").read_text())["train"]["lr"] == 0.005
    new = {path.name for path in (clone.root / "registry/digits/classifier").iterdir()} - versions
    assert len(new) == 1
    assert f"{current_of(clone)['version']}.yaml" in new
    assert clone("dvc", "status").strip() == "Data and pipelines are up to date."
    stable = clone.root / "models/digits/classifier.safetensors"
    assert hashlib.md5(stable.read_bytes(), usedforsecurity=False).hexdigest() == current_of(clone)["oid"]

    # experiments keep their objects, though no branch knows them; the plan names what it would remove
    objects = json.loads(clone("holdfast", "gc", "plan", "--json"))["objects"]
    removed = {entry["oid"] for entry in objects if entry["tier"] != "keep"}
    for revision in clone("dvc", "exp", "list", "--sha-only").split():
        lock = yaml.safe_load(clone("git", "show", f"{revision}:dvc.lock"))
        assert not removed & {out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def test_diff_knows_the_registry_and_history(clone: Clone) -> None:
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "--allow-empty", "-m", "as it is")
    version = current_of(clone)["version"]
    named = ("digits/classifier", f"digits/classifier@{version}", "HEAD:outputs/train/best_model.pt")
    for name in named:
        shown = clone("holdfast", "diff", name, "models/digits/classifier.safetensors")
        assert shown.startswith("Same weights, different wrapper" if "HEAD" in name else "Identical bytes"), name
    for name, code, words in (
        ("digits/classifier@v99", 2, "has no version or alias v99"),
        ("digits/other", 1, "there is no model digits/other"),
        ("nowhere:models/x", 1, "git knows no commit 'nowhere'"),
        ("HEAD:models/x", 2, "commit HEAD has no file models/x"),
        ("models/x.pt", 2, "models/x.pt is no file"),
    ):
        done = run([str(TOOLS / "holdfast"), "diff", name, named[0]], clone.root, clone.home, code=code)
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    sample = "HEAD:outputs/evaluate/attention_maps/digit_0003_attention.npz"
    assert "Identical bytes" in clone("holdfast", "diff", sample, sample.removeprefix("HEAD:"))
    assert "not comparable" in clone("holdfast", "diff", "HEAD:params.yaml", named[0]).lower()


def test_a_discarded_run_leaves_no_trace(clone: Clone) -> None:
    """What the tutorial says: `git reset --hard`, `git clean` and `dvc checkout` bring everything back."""
    clone.open_gate()
    clone("dvc", "repro")
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "--allow-empty", "-m", "as it is")
    before, outs = current_of(clone), clone.outs()
    params = clone.root / "params.yaml"
    params.write_text(re.sub(r"epochs: \d+", "epochs: 2", params.read_text()))
    clone("dvc", "repro")
    assert current_of(clone)["weights"] != before["weights"]

    clone("git", "reset", "-q", "--hard")
    clone("git", "clean", "-qf", "registry")
    clone("dvc", "checkout")
    assert current_of(clone) == before
    assert "has these weights already; it is current" in clone("dvc", "repro", "-f", "-s", "promote")
    assert clone.outs() == outs
    assert clone("dvc", "status").strip() == "Data and pipelines are up to date."


def test_an_expected_error_in_a_stage_is_one_line(clone: Clone) -> None:
    file = clone.root / "registry/digits/classifier/v1.yaml"
    file.write_text(file.read_text() + "x: [\n")

    done = subprocess.run(
        [str(TOOLS / "dvc"), "repro", "-f", "-s", "promote"],
        cwd=clone.root,
        env=environment(clone.home),
        capture_output=True,
        text=True,
        check=False,
    )
    clone("git", "checkout", "-q", "--", "registry")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "promote.py: registry/digits/classifier/v1.yaml, line" in done.stderr


def test_training_killed_in_an_epoch_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    clone = Clone(tmp_path)  # without a cache, from which DVC would take the outs instead of training
    params = clone.root / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 40", "epochs: 9"))
    epochs = clone.root / "outputs/train/epoch_statistics.csv"

    child = subprocess.Popen(
        [str(TOOLS / "dvc"), "repro", "evaluate"],
        cwd=clone.root,
        env=environment(clone.home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (epochs.exists() and len(epochs.read_text().splitlines()) > 4):
        assert child.poll() is None, "training ended before it was killed"
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)  # dvc, the shell it starts, and the training
    child.wait()
    assert 4 < len(epochs.read_text().splitlines()) < 10
    assert (clone.root / "outputs/.resume/train.pt").exists()

    shown = clone("dvc", "repro", "evaluate")
    resumed = re.search(r"going on after epoch (\d+) of an interrupted run", shown)
    assert resumed is not None, shown
    assert int(resumed[1]) >= 3
    assert not (clone.root / "outputs/.resume/train.pt").exists()
    assert clone.json("outputs/train/metadata.json")["resumed"]
    assert "is valid." in clone("holdfast", "runs", "validate", "outputs/train")
    outs = clone.outs()

    assert "going on after" not in clone("dvc", "repro", "-f", "evaluate")
    assert reproducible(clone.outs()) == reproducible(outs)
