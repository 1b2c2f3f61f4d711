"""Which data a card names, out of lock files as DVC writes them."""

import pytest

from holdfast.registry.cards import Dataset
from holdfast.registry.cards_data import data_of, locked_oid
from holdfast.registry.entries import Version

STABLE = "models/app/a.safetensors"
ONE, TWO = "1" * 32, "2" * 32


def version(run: str = "outputs/train", predictions: str = "") -> Version:
    source = {"run": run} | ({"predictions": predictions} if predictions else {})
    return Version("v1", STABLE, "a" * 32, 1, "blake3:" + "b" * 64, "2026-11-20", source)


def lock(**stages: tuple[list[str], list[str]]) -> bytes:
    """A lock file; deps and outs as ``path md5 [size]``."""
    text = "schema: '2.0'\nstages:\n"
    for name, sections in stages.items():
        text += f"  {name}:\n    cmd: {name}\n"
        for section, entries in zip(("deps", "outs"), sections, strict=True):
            text += f"    {section}:\n" if entries else ""
            for entry in entries:
                path, md5, *size = entry.split()
                text += f"    - path: {path}\n      md5: {md5}\n" + (f"      size: {size[0]}\n" if size else "")
    return text.encode()


def found(files: dict[str, bytes], asked: Version) -> list[tuple[str, str, str, int | None]]:
    return [(item.role, item.path, item.oid, item.size) for item in data_of(asked, files.get)]


TRAIN = (["data/train.csv " + ONE + " 10", "train.py " + TWO], ["outputs/train/best.pt " + TWO])


def test_what_the_stage_of_the_weights_reads() -> None:
    files = {"dvc.lock": lock(train=TRAIN)}
    assert data_of(version(), files.get) == (Dataset("train.csv", "data/train.csv", ONE, "training", 10),)


@pytest.mark.parametrize(
    ("dep", "tracked"),
    [
        ("notes.txt", False), ("train.py", False), ("params.json", False), ("base.safetensors", False), ("made/base.pt", False),
        ("data.parquet", True), ("s3://bucket/raw", True), ("made", True), ("made/part.bin2", True),
        ("images", True), ("images/cats", True), ("metrics.json", False),
    ],
)  # fmt: skip
def test_what_counts_as_data(dep: str, tracked: bool) -> None:
    """What DVC tracks, or has the suffix of a table or an array; neither code, settings, metrics nor checkpoints."""
    files = {
        "dvc.lock": lock(
            prepare=([], [f"made {ONE}.dir", f"metrics.json {TWO}"]),
            train=([f"{dep} {ONE}"], [f"outputs/train/best.pt {TWO}"]),
        ),
        "dvc.yaml": b"stages: {prepare: {cmd: p, metrics: [{metrics.json: {cache: false}}]}}\n",
        "images.dvc": b"outs: []\n",
    }
    assert [item[1] for item in found(files, version())] == ([dep] if tracked else [])


@pytest.mark.parametrize("out", ["outputs/train", "outputs", "outputs/train/best.npz"])
def test_the_run_may_be_an_out_itself(out: str) -> None:
    files = {"dvc.lock": lock(train=([f"data.csv {ONE}"], [f"{out} {TWO}"]))}
    assert found(files, version()) == [("training", "data.csv", ONE, None)]


@pytest.mark.parametrize("out", ["outputs/train/plot.png", "outputs/trained/best.pt", "outputs/train/deep/best.pt"])
def test_what_makes_no_weights_of_the_run_was_not_its_training(out: str) -> None:
    assert found({"dvc.lock": lock(draw=([f"data.csv {ONE}"], [f"{out} {TWO}"]))}, version()) == []


def test_evaluation_is_the_stage_of_these_very_predictions() -> None:
    evaluate = ([f"test.csv {TWO} 5", f"outputs/train/best.pt {TWO}"], [f"outputs/eval/p.csv {ONE}"])
    other = ([f"other.csv {TWO}"], [f"outputs/other/p.csv {TWO}"])
    promote = (
        [f"outputs/eval/p.csv {ONE}", f"outputs/train/best.pt {TWO}"],
        [f"{STABLE} {ONE}", f"models/p.csv {ONE}"],
    )
    files = {"dvc.lock": lock(train=TRAIN, evaluate=evaluate, other=other, promote=promote)}
    assert found(files, version(predictions=ONE)) == [
        ("training", "data/train.csv", ONE, 10), ("evaluation", "test.csv", TWO, 5)
    ]  # fmt: skip
    assert [item[0] for item in found(files, version())] == ["training"]


def test_a_stage_that_brings_weights_to_the_stable_path_trains_nothing() -> None:
    bring = ([f"outputs/train/best.pt {TWO}", f"scores.csv {ONE}"], [f"{STABLE} {ONE}"])
    assert found({"dvc.lock": lock(bring=bring)}, version(run="models/app")) == []
    straight = ([f"data.csv {ONE}"], [f"{STABLE} {ONE}"])
    assert found({"dvc.lock": lock(train=straight)}, version(run="models/app")) == [("training", "data.csv", ONE, None)]


def test_lock_files_in_folders_and_working_folders() -> None:
    train = ([f"../data.csv {ONE}"], [f"out/best.pt {TWO}"])
    files = {"jobs/dvc.lock": lock(train=train), "jobs/dvc.yaml": b"stages: {train: {cmd: t, wdir: sub}}\n"}
    assert found(files, version(run="jobs/sub/out")) == [("training", "jobs/data.csv", ONE, None)]
    assert found(files, version(run="outputs/train")) == []
    assert locked_oid(files.get, "jobs/sub/out/best.pt") == TWO
    assert locked_oid(files.get, "jobs/sub/out/other.pt") is None


@pytest.mark.parametrize(
    "broken",
    [b"<<<<<<< HEAD\n", b"stages: 3\n", b"schema: '2.0'\nstages:\n  a: [1]\n", b"stages: {a: {deps: x, outs: [3]}}\n"],
)
def test_a_broken_lock_tells_nothing(broken: bytes) -> None:
    assert found({"dvc.lock": broken}, version()) == []


@pytest.mark.parametrize("run", ["", "app/other@v3", "../elsewhere", "/abs/run"])
def test_a_version_that_no_run_made(run: str) -> None:
    assert found({"dvc.lock": lock(train=TRAIN)}, version(run=run)) == []
