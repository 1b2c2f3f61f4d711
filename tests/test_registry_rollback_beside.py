"""A rollback keeps card, README and predictions in step with what is current: one state to commit, DVC clean."""

import json
import signal
from pathlib import Path

import pytest
import yaml

from forks import Forks
from holdfast.formats.digest import file_md5
from holdfast.registry.store import Registry
from registry_world import CLEAN, copy_of, error_of, labels, shown, weights
from worlds import World, make_repository

MODEL, OTHER = "app/scorer", "app/ranker"
CARD, README, STABLE = "models/app/scorer.md", "models/app/README.md", "models/app/scorer.safetensors"
CONFIG, PREDICTIONS = "models/app/scorer.yaml", "models/app/scorer.predictions.csv"
PIPELINE = """\
stages:
  train:
    cmd: python train.py
    deps: [data/train.csv, images, notes.txt, train.py]
    outs: [outputs/run/best.safetensors]
  evaluate:
    cmd: python evaluate.py
    deps: [data/test.csv, evaluate.py, outputs/run/best.safetensors]
    outs: [outputs/eval/p.csv]
"""
TRAIN = """\
import pathlib, shutil
n = pathlib.Path("data/train.csv").read_text().strip().split(",")[-1]
pathlib.Path("outputs/run").mkdir(parents=True, exist_ok=True)
shutil.copyfile(f"made/{n}.safetensors", "outputs/run/best.safetensors")
"""
EVALUATE = """\
import pathlib
n = int(pathlib.Path("data/train.csv").read_text().strip().split(",")[-1])
pathlib.Path("outputs/eval").mkdir(parents=True, exist_ok=True)
pathlib.Path("outputs/eval/p.csv").write_text("id,label,prediction\\n" + "".join(f"s{i},a,a\\n" for i in range(n)))
"""


def promote(world: World, number: int) -> None:
    """Train on data of that number, and promote what came out."""
    world.write("data/train.csv", f"a,b,{number}\n")
    world.write("config.yaml", f"width: {number}\n")
    world.write("m.json", json.dumps({"accuracy": number / 10}))
    world.dvc("repro")
    files = ["--config", "config.yaml", "--metrics", "m.json", "--predictions", "outputs/eval/p.csv"]
    world.holdfast("registry", "promote", "outputs/run/best.safetensors", "--as", MODEL, *files)
    world.commit(f"promote {number}")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> World:
    """v1 to v3 of a model that a pipeline trains, each on other data; another model of the application beside it."""
    world = make_repository(tmp_path_factory.mktemp("three"))
    for number in (1, 2, 3):
        weights(world.root / f"made/{number}.safetensors", float(number))
    world.write(".gitignore", "/made/\n/other.safetensors\n")
    for name, text in (("dvc.yaml", PIPELINE), ("train.py", TRAIN), ("evaluate.py", EVALUATE)):
        world.write(name, text)
    world.write("notes.txt", "what the labels mean\n")
    world.write("data/test.csv", "t\n")
    world.write("images/a.png", "a")
    world.dvc("add", "images", "--quiet")
    weights(world.root / "other.safetensors", 9.0)
    world.write("m.json", json.dumps({"mse": 0.5}))
    world.holdfast("registry", "promote", "other.safetensors", "--as", OTHER, "--metrics", "m.json")
    for number in (1, 2, 3):
        promote(world, number)
    return world


@pytest.fixture
def world(three: World, tmp_path: Path) -> World:
    return copy_of(three, tmp_path)


def in_step(world: World, number: int) -> None:
    """All that lies at the stable path or beside it is of one version, in words and in bytes."""
    name = f"v{number}"
    assert labels(world, MODEL) == {"current": name, "production": name}
    current = Registry(world.root).model(MODEL).named(name)
    assert file_md5(world.root / STABLE) == current.oid
    assert (world.root / CONFIG).read_text() == f"width: {number}\n"
    assert file_md5(world.root / PREDICTIONS) == current.source["predictions"]
    for path in (STABLE, PREDICTIONS):
        tracked = yaml.safe_load((world.root / f"{path}.dvc").read_text())["outs"][0]["md5"]
        assert tracked == file_md5(world.root / path)
    card, readme = (world.root / CARD).read_text(), (world.root / README).read_text()
    for line in (f"| version | `{name}` |", f"| md5 | `{current.oid}` |", f"| accuracy | {number / 10} |"):
        assert line in card
    assert yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"][0]["metrics"][0]["value"] == number / 10
    # the data that this very version was trained with, as DVC names its state
    data = {
        cells[1]: (cells[2], cells[3], cells[4], cells[5])
        for line in card.partition("## Data\n")[2].partition("\n## ")[0].splitlines()
        if (cells := [cell.strip() for cell in line.split("|")])[0] == "" and len(cells) > 5
    }
    assert set(data) == {"data", "---", "train.csv", "images", "test.csv"}  # neither code nor notes nor the model
    text = f"a,b,{number}\n"
    path = world.root / "expected.csv"
    path.write_text(text)
    oid = file_md5(path)
    path.unlink()
    assert data["train.csv"] == ("training", "`data/train.csv`", f"{len(text)} B", f"`{oid}`")
    assert data["images"][:3] == ("training", "`images`", "1 B")
    assert data["images"][3].endswith(".dir`")
    assert data["test.csv"][0] == "evaluation"
    assert f"| {name} | {current.date} |" in readme
    assert f"accuracy {number / 10}" in readme
    assert "mse 0.5" in readme  # the other model's line stays


def test_a_promotion_names_the_data(world: World) -> None:
    in_step(world, 3)


def test_all_goes_back_in_one_state_to_commit(world: World) -> None:
    before = {path: (world.root / path).read_bytes() for path in (CARD, README, CONFIG, PREDICTIONS, STABLE)}
    plan = shown(world, "rollback", MODEL, "--dry-run")
    assert (plan["texts"], plan["predictions"], plan["notes"]) == ([CARD, README], PREDICTIONS, [])
    assert world.git("status", "--porcelain") == ""
    told = world.holdfast("registry", "rollback", MODEL).stdout
    assert f"{PREDICTIONS} is that of v2." in told
    assert f"{CARD} and {README} say so." in told
    in_step(world, 2)
    changed = [CONFIG, CARD, README, f"{STABLE}.dvc", f"{PREDICTIONS}.dvc", f"registry/{MODEL}/model.yaml"]
    assert sorted(world.git("diff", "--name-only").split()) == sorted(changed)
    assert world.dvc("status") == CLEAN
    assert world.git("show", f"HEAD~1:{CARD}") == (world.root / CARD).read_text().strip()
    world.git("commit", "-q", "-a", "-m", "back")
    assert world.git("status", "--porcelain") == ""
    assert shown(world, "verify", "--offline")["findings"] == []

    # and forth again: nothing of the way there is left
    world.holdfast("registry", "rollback", MODEL, "--to", "v3")
    in_step(world, 3)
    assert {path: (world.root / path).read_bytes() for path in before} == before
    assert "is in use already" in error_of(world, "rollback", MODEL, "--to", "v3", code=2)


def test_what_people_wrote_stays_and_what_they_took_away_stays_away(world: World) -> None:
    card = world.root / CARD
    card.write_text(card.read_text().replace("## Intended use\n", "## Intended use\n\nRanking albums.\n"))
    (world.root / README).write_text("# Our own words\n")
    world.holdfast("registry", "rollback", MODEL)
    assert "## Intended use\n\nRanking albums.\n" in card.read_text()
    assert "| version | `v2` |" in card.read_text()
    assert (world.root / README).read_text() == "# Our own words\n"
    card.unlink()
    answer = shown(world, "rollback", MODEL)
    assert (answer["after"], answer["texts"]) == ("v1", [])
    assert not card.exists()


def test_a_card_that_cannot_be_edited_takes_force(world: World) -> None:
    card = world.root / CARD
    broken = card.read_text().replace("<!-- holdfast: model ends -->", "")
    card.write_text(broken)
    before = {path: path.read_bytes() for path in (world.root / "models").rglob("*") if path.is_file()}
    assert f"{CARD}, line " in error_of(world, "rollback", MODEL, code=1)
    assert {path: path.read_bytes() for path in before} == before
    assert labels(world, MODEL)["current"] == "v3"
    answer = shown(world, "rollback", MODEL, "--force")
    assert answer["after"] == "v2"
    assert answer["notes"][0].startswith(f"the card and the README stay as they were: {CARD}, line ")
    assert card.read_text() == broken
    assert labels(world, MODEL) == {"current": "v2", "production": "v2"}
    assert world.dvc("status") == CLEAN


def test_predictions_that_are_nowhere_else_are_not_overwritten(world: World) -> None:
    (world.root / PREDICTIONS).chmod(0o644)
    (world.root / PREDICTIONS).write_text("id,label,prediction\nnew,a,b\n")
    assert f"{PREDICTIONS} (md5 " in error_of(world, "rollback", MODEL, code=1)
    assert labels(world, MODEL)["current"] == "v3"
    world.holdfast("registry", "rollback", MODEL, "--force")
    in_step(world, 2)


def test_predictions_that_are_nowhere_are_a_note(world: World) -> None:
    oid = Registry(world.root).model(MODEL).named("v2").source["predictions"]
    (world.cache / "files/md5" / oid[:2] / oid[2:]).unlink()
    before = (world.root / PREDICTIONS).read_bytes()
    answer = shown(world, "rollback", MODEL)
    assert (answer["after"], answer["predictions"]) == ("v2", None)
    assert answer["notes"][0].startswith(f"{PREDICTIONS} stays as it was: {MODEL}@v2: its predictions (md5 {oid})")
    assert (world.root / PREDICTIONS).read_bytes() == before
    assert world.dvc("status") == CLEAN


STEPS = [
    "holdfast.registry.rollback:write_atomically",
    "holdfast.registry.store:write_atomically",
    "dvc.output:Output.checkout",
    "dvc.stage:Stage.dump",
]


def test_killed_anywhere_the_next_run_ends_it(three: World, tmp_path: Path) -> None:
    steps = 0
    with Forks(STEPS) as forks:
        while True:
            steps += 1
            world = copy_of(three, tmp_path / str(steps))
            child = forks.holdfast(world, "registry", "rollback", MODEL, kill_at=steps)
            if child.code == 0:
                break
            assert child.code == -signal.SIGKILL, child.stderr
            assert Registry(world.root).model(MODEL).aliases == {"production": "v3"}  # the labels come last
            forks.holdfast(world, "registry", "rollback", MODEL)
            in_step(world, 2)
            assert world.dvc("status") == CLEAN
    assert steps == 9  # configuration, card, README; two files, two .dvc files; model.yaml
