"""A rollback on this project's own pipeline: ``dvc status`` stays clean and ``dvc repro`` has nothing to do.

The same story, with a gate in it, is told at every run by ``test_registry_promote_stage``.
"""

import hashlib
import json
import re

import pytest
import yaml

from pipeline_world import Clone, current_of

MODEL = "digits/classifier"
STABLE = "models/digits/classifier.safetensors"
CLEAN = "Data and pipelines are up to date."


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the main job ran twice, with other params the second time: two versions here at least."""
    world = Clone(tmp_path_factory.mktemp("pipeline"))
    world.open_gate()
    params = world.root / "params.yaml"
    whole = params.read_text()
    for epochs, width in ((2, 64), (3, 32)):
        text = re.sub(r"epochs: \d+", f"epochs: {epochs}", whole)
        params.write_text(re.sub(r"width: \d+", f"width: {width}", text))
        world("dvc", "repro")
        world("git", "add", "-A")
        world("git", "commit", "-q", "-m", f"width {width}")
    return world


@pytest.mark.soak
def test_a_rollback_of_the_pipelines_model_stands(clone: Clone) -> None:
    before = current_of(clone)
    clone("git", "commit", "-q", "-a", "--allow-empty", "-m", "as it is")
    answer = json.loads(clone("holdfast", "registry", "rollback", MODEL, "--json"))
    after = current_of(clone)
    assert (answer["before"], answer["after"]) == (before["version"], after["version"])
    assert answer["config"] == "models/digits/classifier.yaml"
    assert hashlib.md5((clone.root / STABLE).read_bytes()).hexdigest() == after["oid"] == clone.outs()[STABLE]
    config = yaml.safe_load((clone.root / answer["config"]).read_text())
    assert config["arguments"]["width"] == after["params"]["model"]["width"] == 64
    assert before["params"]["model"]["width"] == 32
    for _ in range(2):
        assert clone("dvc", "status").strip() == CLEAN
        assert "Running stage" not in clone("dvc", "repro")
        # also where the stage is made to run: the candidate is registered, and the rollback stands
        told = clone("dvc", "repro", "-f", "-s", "promote")
        assert f"{before['version']} has these weights already; {after['version']} stays current" in told
        assert current_of(clone) == after
    clone("dvc", "push")
    clone("git", "commit", "-q", "-a", "-m", "rolled back")
    clone("holdfast", "registry", "rollback", MODEL, "--to", before["version"])
    assert current_of(clone) == before
    assert clone("dvc", "status").strip() == CLEAN
    assert json.loads(clone("holdfast", "registry", "verify", MODEL, "--offline", "--json"))["models"] == 1
