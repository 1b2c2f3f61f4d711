"""Drafts that come and go in a pipeline: what lies beside the stable path, signatures and git's index follow."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from holdfast.formats.digest import file_md5
from holdfast.registry.objects import Stores, keep_file
from holdfast.registry.promotion import Candidate, Promotion, promote_checkpoint
from holdfast.registry.store import Registry
from registry_world import shown, weights
from worlds import World, make_repository

MODEL = "app/scorer"
FOLDER = f"registry/{MODEL}"
CARD, README, STABLE = "models/app/scorer.md", "models/app/README.md", "models/app/scorer.safetensors"
CONFIG, PREDICTIONS = "models/app/scorer.yaml", "models/app/scorer.predictions.csv"
DAY = date(2026, 11, 20)
LOCK = """\
schema: '2.0'
stages:
  train:
    cmd: train
    deps:
    - path: data.csv
      hash: md5
      md5: {data}
      size: {number}
    - path: train.py
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 9
    outs:
    - path: run/best.safetensors
      hash: md5
      md5: {oid}
      size: 688
"""


def promote(world: World, number: int, *, locked: str | None = None) -> Promotion:
    """What the stage does with weights of that number, once the stages before it are written down."""
    source = weights(world.root / "run/best.safetensors", float(number))
    predictions = world.write("run/p.csv", "id,label,prediction\n" + "".join(f"s{row},a,a\n" for row in range(number)))
    world.write("dvc.lock", LOCK.format(data=f"{number}" * 32, number=number, oid=locked or file_md5(source)))
    candidate = Candidate(
        source=source,
        config=yaml.safe_dump({"width": number}).encode(),
        metrics={"accuracy": number / 10},
        predictions=predictions,
    )
    done = promote_checkpoint(world.root, MODEL, candidate, today=DAY, stores=Stores(world.root, world.cache))
    # as DVC does with a stage's outs
    for path in (STABLE, PREDICTIONS):
        keep_file(world.cache, world.root / path, file_md5(world.root / path))
    return done


@pytest.fixture
def world(tmp_path: Path) -> World:
    """v1 is committed."""
    world = make_repository(tmp_path)
    world.write(".gitignore", f"/run/\n/{STABLE}\n/{PREDICTIONS}\n")
    promote(world, 1)
    world.commit("v1")
    return world


def is_of(world: World, number: int) -> None:
    """All that lies at the stable path and beside it is of the weights of that number."""
    current = Registry(world.root).model(MODEL).named(None)
    assert current.metrics == {"accuracy": number / 10}
    assert file_md5(world.root / STABLE) == current.oid
    assert file_md5(world.root / PREDICTIONS) == current.source["predictions"]
    assert (world.root / CONFIG).read_text() == f"width: {number}\n"
    card, readme = (world.root / CARD).read_text(), (world.root / README).read_text()
    assert f"| version | `{current.name}` |" in card
    assert f"| accuracy | {number / 10} |" in card
    assert f"| data.csv | training | `data.csv` | {number} B | `{f'{number}' * 32}` |" in card
    assert "train.py" not in card
    assert f"accuracy {number / 10}" in readme


def test_a_draft_gives_way_to_what_is_committed(world: World) -> None:
    is_of(world, 1)
    promote(world, 2)
    is_of(world, 2)
    done = promote(world, 1)  # params were taken back
    assert (done.registered, done.current) == (False, "v1")
    is_of(world, 1)
    assert world.git("status", "--porcelain") == ""  # neither in the workspace nor in the index


def test_weights_of_another_committed_version_leave_the_current_one_whole(world: World) -> None:
    promote(world, 2)
    world.commit("v2")
    promote(world, 3)
    world.write(f"{FOLDER}/v3.sig", "a signature of the draft\n")
    world.git("add", "-A")
    done = promote(world, 1)
    assert done.version is not None
    assert (done.version.name, done.current) == ("v1", "v2")
    is_of(world, 2)
    world.git("checkout", "HEAD", "--", "dvc.lock")  # what the other stages wrote is not ours
    assert world.git("status", "--porcelain") == ""
    assert shown(world, "verify", "--offline")["findings"] == []


def test_a_signature_does_not_outlive_its_draft(world: World) -> None:
    promote(world, 2)
    world.write(f"{FOLDER}/v2.sig", "a signature of other bytes\n")
    world.git("add", "-A")
    done = promote(world, 3)
    assert done.version is not None
    assert done.version.name == "v2"
    is_of(world, 3)
    assert not (world.root / FOLDER / "v2.sig").exists()
    assert "v2.sig" not in world.git("ls-files")


def test_a_lock_of_other_weights_tells_nothing(world: World) -> None:
    """What DVC has written down is of another run: the card leaves the data out, and has no empty section."""
    promote(world, 2, locked="f" * 32)
    card = (world.root / CARD).read_text()
    assert "| version | `v2` |" in card
    assert "data.csv" not in card
    assert "## Data" not in card
