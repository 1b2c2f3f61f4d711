"""After each verb of the registry DVC finds this project's own pipeline as it was: nothing changed, nothing to run.

At every run ``test_registry_verbs`` does it in a smaller project.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.registry import VERBS
from pipeline_world import Clone
from registry_world import weights
from test_inventory_runs_world import Words, build
from worlds import environment

MODEL = "digits/classifier"
STABLE = "models/digits/classifier.safetensors"
CLEAN = "Data and pipelines are up to date."
LIST = """\
album:
  scorer:
    current: v1
    versions:
      v1: {path: other.safetensors, metrics: {accuracy: 0.5}}
"""
# status, then the pipeline itself; in one process, since starting DVC takes longer than both
DVC = "import sys; from dvc.cli import main; sys.exit(main(['status']) or print('--') or main(['repro']))"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the main job ran, with other models' runs and files, and a vault beside it."""
    world = Clone(tmp_path_factory.mktemp("verbs"))
    world.open_gate()
    params = world.root / "params.yaml"
    params.write_text(re.sub(r"epochs: \d+", "epochs: 1", params.read_text()))
    world("dvc", "repro")
    commit(world, "one epoch")
    build(world.root, Words(models="old_models"))
    weights(world.root / "best.safetensors", 1.0)
    weights(world.root / "other.safetensors", 2.0)
    weights(world.root / "another.safetensors", 3.0)
    (world.root / "list.yaml").write_text(LIST)
    (world.root / "holdfast.yaml").write_text("vault:\n  url: ../vault\n")
    with open(world.root / ".gitignore", "a") as stream:
        stream.write("*.pt\n*.pth\n*.pkl\n/*.safetensors\n")
    world("holdfast", "vault", "init", str(world.root.parent / "vault"))
    commit(world, "runs and files of other models")
    return world


def commit(clone: Clone, message: str) -> None:
    clone("git", "add", "-A")
    clone("git", "commit", "-q", "--allow-empty", "-m", message)


def current_of(clone: Clone) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(clone("holdfast", "registry", "show", f"{MODEL}@current", "--json"))
    return {name: value for name, value in found.items() if name != "labels"}


def left_alone(clone: Clone) -> None:
    """DVC's own word for it, and no stage runs."""
    done = subprocess.run(
        [sys.executable, "-c", DVC],
        cwd=clone.root,
        env=environment(clone.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    status, repro = done.stdout.split("--\n")
    assert status.strip() == CLEAN
    assert "Running stage" not in repro
    assert repro.strip().endswith(CLEAN)


@pytest.mark.soak
def test_every_verb_leaves_dvc_clean(clone: Clone, tmp_path: Path) -> None:
    newest, stable = current_of(clone), (clone.root / STABLE).read_bytes()
    name = f"{MODEL}@{newest['version']}"
    plan = str(tmp_path / "plan.json")
    done = set()

    def verb(*arguments: str) -> str:
        text = clone("holdfast", "registry", *arguments)
        left_alone(clone)
        done.add(arguments[0])
        return text

    verb("list")
    verb("show", "--stored")
    verb("history")
    verb("history", "--at", "2030-01-01")
    verb("diff", f"{MODEL}@v1", name)
    verb("select", MODEL, "--best", "accuracy")
    verb("register", MODEL, "best.safetensors", "--metric", "accuracy=0.1", "--alias", "staging")
    verb("assign", name, "production")
    verb("protect", f"{MODEL}@production")
    verb("unprotect", f"{MODEL}@production")
    verb("unassign", f"{MODEL}@staging")
    verb("deprecate", f"{MODEL}@v1", "--reason", "an older split")
    verb("get", name, "-o", str(tmp_path / "model.safetensors"))
    verb("export", "-o", str(tmp_path / "registry.yaml"))
    verb("import", "list.yaml")
    verb("verify", MODEL, "--offline", "--quick")
    # the version registered above, of which nothing else knows
    newer = f"v{max(int(file.stem[1:]) for file in (clone.root / 'registry' / MODEL).glob('v*.yaml'))}"
    verb("rm", f"{MODEL}@{newer}", "--apply")
    verb("promote", "other.safetensors", "--as", "album/other", "--description", "Another one")
    verb("promote", "another.safetensors", "--as", "album/other")
    # of the pipeline's own model test_registry_pipeline shows it
    verb("rollback", "album/other")
    same = (clone.root / "models/album/other.safetensors").read_bytes()
    assert same == (clone.root / "other.safetensors").read_bytes()
    verb("consolidate", "experiments", "-o", plan)
    verb("consolidate", "--apply", plan)
    assert (clone.root / "registry/production").is_dir()
    if importlib.util.find_spec("model_signing") is None:  # an extra
        done.add("sign")
    else:
        key = tmp_path / "release.pem"
        command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
        subprocess.run(command, check=True, capture_output=True)
        verb("sign", name, "--private-key", str(key))
    commit(clone, "what the verbs did")
    verb("tag", "--artifacts")
    commit(clone, "artifacts")
    verb("tag")
    assert f"{MODEL}@{newest['version']}.0.0" in clone("git", "tag")
    resolve(clone)
    done.add("resolve")
    assert done == set(VERBS)
    assert current_of(clone) == newest
    assert (clone.root / STABLE).read_bytes() == stable


def resolve(clone: Clone) -> None:
    """Two branches take the same number."""
    for side, value in (("theirs", 8.0), ("main", 9.0)):
        clone("git", "checkout", "-q", *(["-b", side] if side == "theirs" else [side]))
        shutil.rmtree(clone.root / "registry/two", ignore_errors=True)
        weights(clone.root / "both.safetensors", value)
        clone("holdfast", "registry", "register", "two/sides", "both.safetensors")
        commit(clone, side)
    clone("git", "merge", "-q", "theirs", code=1)
    answer = json.loads(clone("holdfast", "registry", "resolve", "--json"))
    assert [item["after"] for item in answer["renumbered"]] == ["v2"]
    left_alone(clone)
    clone("git", "commit", "-q", "--no-edit")
    left_alone(clone)
