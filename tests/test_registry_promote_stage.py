"""The stage that promotes, in a copy of this project: a refused candidate, a changed gate, a rollback that stands."""

import hashlib
import re
from pathlib import Path

import pytest

from pipeline_world import Clone, current_of, main_job

STABLE = "models/digits/classifier.safetensors"
CLEAN = "Data and pipelines are up to date."


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the main job ran, committed."""
    world = main_job(tmp_path_factory.mktemp("pipeline"), tmp_path_factory)
    commit(world)
    return world


def commit(clone: Clone) -> None:
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "-m", "as it is")


def epochs(clone: Clone, number: int) -> None:
    params = clone.root / "params.yaml"
    params.write_text(re.sub(r"epochs: \d+", f"epochs: {number}", params.read_text()))


def in_use(clone: Clone) -> str:
    """The version in use, by its label and by its bytes, which must agree."""
    current = current_of(clone)
    assert hashlib.md5((clone.root / STABLE).read_bytes()).hexdigest() == current["oid"] == clone.outs()[STABLE]
    return str(current["version"])


def names(clone: Clone) -> set[str]:
    return {path.name for path in (clone.root / "registry/digits/classifier").iterdir()}


def settled(clone: Clone) -> None:
    """DVC has nothing to say and nothing to do, and the registry is true."""
    assert clone("dvc", "status").strip() == CLEAN
    assert "Running stage" not in clone("dvc", "repro")
    assert "0 faults" in clone("holdfast", "registry", "verify", "--offline")


def test_refused_and_judged_again_and_rolled_back(clone: Clone) -> None:
    gate = (clone.root / "params.yaml").read_text()
    champion, before = in_use(clone), names(clone)

    epochs(clone, 3)
    shown = clone("dvc", "repro")
    assert f"refused: digits/classifier@{champion} stays current" in shown
    verdict = clone.json("metrics/promotion.json")
    assert (verdict["verdict"], verdict["passed"], verdict["champion"]) == ("fail", 0, champion)
    assert verdict["metrics.accuracy.floor"] == 0
    assert verdict["bootstrap.accuracy"] == 0
    assert verdict["bootstrap.accuracy.upper"] < 0  # the champion's predictions were found, and paired
    assert names(clone) == before
    assert in_use(clone) == champion
    settled(clone)
    assert "| 0 " in clone("dvc", "metrics", "diff", "--md")

    # a changed gate judges the same candidate again, and nothing is trained for it
    clone.open_gate()
    shown = clone("dvc", "repro")
    assert re.findall(r"Running stage '(\w+)'", shown) == ["promote"]
    winner = in_use(clone)
    assert winner != champion
    assert f"production: {winner}" in (clone.root / "registry/digits/classifier/model.yaml").read_text()
    assert clone.json("metrics/promotion.json")["verdict"] == "pass"
    card = (clone.root / "models/digits/classifier.md").read_text()
    assert f"| version | `{winner}` |" in card
    settled(clone)
    commit(clone)

    # rolled back by hand: that stands, whatever `dvc repro` does
    clone("holdfast", "registry", "rollback", "digits/classifier")
    assert in_use(clone) == champion
    settled(clone)
    assert f"{champion} stays current" in clone("dvc", "repro", "-f", "-s", "promote")
    assert in_use(clone) == champion
    commit(clone)

    # retrained: judged against what is in use, and refused; the rollback stands
    (clone.root / "params.yaml").write_text(gate)
    epochs(clone, 4)
    before = names(clone)
    assert f"refused: digits/classifier@{champion} stays current" in clone("dvc", "repro")
    assert clone.json("metrics/promotion.json")["champion"] == champion
    assert (in_use(clone), names(clone)) == (champion, before)
    settled(clone)

    # unless it wins
    clone.open_gate()
    clone("dvc", "repro")
    assert in_use(clone) not in (champion, winner)
    settled(clone)


def test_what_is_lost_cannot_stay(tmp_path: Path) -> None:
    """A clone without cache and remote that trains other bits: there is nothing to compare with, nor to keep in use."""
    clone = Clone(tmp_path)
    params = clone.root / "params.yaml"
    params.write_text(params.read_text().replace("floor: 0.95", "floor: 0.5").replace("floor: 0.8", "floor: 0.1"))
    champion = current_of(clone)["version"]
    epochs(clone, 4)

    shown = clone("dvc", "repro")
    assert f"{champion} is nowhere to be found, and it was judged alone" in shown
    assert "champion" not in clone.json("metrics/promotion.json")
    assert in_use(clone) != champion
    assert clone("dvc", "status").strip() == CLEAN
