"""What is found of a champion that was registered without its predictions."""

import hashlib
from pathlib import Path

import pytest

from holdfast.registry.gate_rules import parse_rules
from holdfast.registry.promotion_evidence import of_champion
from holdfast.registry.promotion_source import predictions_path
from holdfast.registry.store import Registry
from registry_world import weights
from worlds import World, make_repository

MODEL, EVALUATED = "digits/classifier", "outputs/evaluate/predictions.csv"
OWN, OTHER = ("id,label,prediction\n" + "".join(f"{n},a,{said}\n" for n in range(9)) for said in "ab")
RULES = parse_rules(b"promote: {bootstrap: {accuracy: {confidence: 0.95}}}", Path("params.yaml"))


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The pipeline tracks the predictions in the commit that brings the version."""
    made = make_repository(tmp_path)
    weights(made.root / "a.safetensors", 1.0)
    made.holdfast("registry", "register", MODEL, "a.safetensors")
    outs = f"    - path: {EVALUATED}\n      hash: md5\n      md5: {md5(OWN)}\n      size: {len(OWN)}\n"
    made.write("dvc.lock", f"schema: '2.0'\nstages:\n  evaluate:\n    cmd: evaluate\n    outs:\n{outs}")
    made.commit("v1")
    return made


def found(world: World, predicted: str | None = None) -> bool:
    model = Registry(world.root).model(MODEL)
    evidence = of_champion(world.root, RULES, model, model.version("v1"), None, predicted)
    return evidence.predictions is not None


def test_what_lies_beside_is_its_own_if_its_commit_had_it(world: World) -> None:
    assert not found(world)
    world.write(predictions_path(MODEL).as_posix(), OWN)
    assert found(world)
    world.write("dvc.lock", "schema: '2.0'\n")
    world.commit("later")
    assert found(world)


def test_what_lies_beside_of_another_version_is_not(world: World) -> None:
    world.write(predictions_path(MODEL).as_posix(), OTHER)
    assert not found(world)
    assert not found(world, EVALUATED)
