"""``registry verify``: each of its six checks finds what it is there for, and nothing that it looks at is run."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from forks import ForkedWorld, Forks
from holdfast.registry.verification_use import _loaded_by_torch
from registry_world import copy_of, shown, weights
from worlds import World, environment, make_repository

MODEL = "app/scorer"
STABLE = "models/app/scorer.safetensors"
GATE = """\
promote:
  contract:
    tensors: {layer.weight: "F32[8, 16]", layer.bias: "F32[*]"}
    inputs: {images: "F32[*, 8]"}
"""
CONFIG = 'inputs: {images: "F32[*, 8]"}\n'


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A promoted model with a card, a contract that it keeps, and a configuration and a script that refer to it."""
    world = make_repository(tmp_path_factory.mktemp("sound"))
    weights(world.root / "outputs/run/best.safetensors", 1.0)
    world.write("c.yaml", CONFIG)
    world.write("params.yaml", GATE)
    world.write(".gitignore", "/outputs/\n")
    world.write("configs/app.yaml", f"model: {STABLE}\nother: models/app/missing.csv\n")
    world.write("serve.py", f'load("{STABLE}")\n')
    world.holdfast("registry", "promote", "outputs/run/best.safetensors", "--as", MODEL, "--config", "c.yaml")
    world.commit("v1")
    return world


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as started:
        yield started


@pytest.fixture
def world(sound: World, forks: Forks, tmp_path: Path) -> World:
    copied = copy_of(sound, tmp_path)
    return ForkedWorld(copied.root, copied.home, copied.project, forks)


def found(world: World, *arguments: str, code: int = 0) -> list[tuple[str, str, str]]:
    """What verify says: fault or note, where, and what."""
    answer = shown(world, "verify", "--offline", *arguments, code=code)
    assert answer["ok"] == (code == 0)
    return [("fault" if item["certain"] else "note", item["where"], item["fault"]) for item in answer["findings"]]


def cached(world: World, name: str = f"{MODEL}@v1") -> Path:
    oid = shown(world, "show", name)["oid"]
    return world.cache / "files/md5" / oid[:2] / oid[2:]


def register(world: World, model: str, path: str, data: bytes, *arguments: str) -> None:
    world.write(path, data)
    world.holdfast("registry", "register", model, path, *arguments)


def test_what_is_sound_has_no_findings(world: World) -> None:
    assert found(world) == []


def test_exists(world: World) -> None:
    cached(world).unlink()
    assert found(world) == [("note", f"{MODEL}@v1", "its bytes are not on this machine")]
    told = world.holdfast("registry", "verify", code=13).stdout
    assert "are not in DVC's cache, a vault or DVC's remote" in " ".join(told.split())


def test_size_oid_and_weights_digest(world: World) -> None:
    place = cached(world)
    whole = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(whole + b"\0")
    assert found(world, "--quick", code=13) == [
        ("fault", f"{MODEL}@v1", f"its bytes in the cache are {len(whole) + 1:,} instead of {len(whole):,}")
    ]
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    place.write_bytes(flipped)
    oid = hashlib.md5(flipped, usedforsecurity=False).hexdigest()
    assert found(world, code=13) == [
        ("fault", f"{MODEL}@v1", f"the cache has {oid} under the name {place.parent.name}{place.name}")
    ]
    place.write_bytes(whole)

    file = world.root / f"registry/{MODEL}/v1.yaml"
    digest = yaml.safe_load(file.read_text())["weights"]
    file.write_text(file.read_text().replace(digest, "blake3:" + "0" * 64))
    world.commit("another digest")
    assert found(world, code=13) == [
        ("fault", f"{MODEL}@v1", f"its weights digest is {digest}, and its file says blake3:{'0' * 64}"),
        ("note", f"{MODEL}@v1", "models/app/scorer.md does not say what the registry says"),
    ]


@pytest.mark.parametrize("suffix", [".pt", ".onnx", ".npz"])
def test_references_point_there(world: World, suffix: str) -> None:
    """A path of the model at which there is none is a fault; a configuration that names the run's file is a note."""
    world.write(
        "configs/app.yaml", f"# models/app/scorer{suffix} in a comment is only said\nmodel: models/app/scorer{suffix}\n"
    )
    world.write("serve.py", f'A = "models/app/scorer{suffix}"\nB = "outputs/run/best.safetensors"\n')
    world.write("configs/train.toml", 'teacher = "outputs/run/best.safetensors"\n')
    gone = f"models/app/scorer{suffix} is not there: {MODEL}@v1 is at {STABLE}"
    old = f"outputs/run/best.safetensors is the file of the run that {MODEL}@v1 came from, and not {STABLE}"
    assert found(world, code=13) == [
        ("fault", "configs/app.yaml:2", gone), ("fault", "serve.py:1", gone), ("note", "configs/train.toml:1", old)
    ]  # fmt: skip
    assert found(world, "--quick") == []
    # a file that is there is somebody's own
    world.write(f"models/app/scorer{suffix}", "x")
    assert found(world) == [("note", "configs/train.toml:1", old)]


def test_what_lies_beside_is_its_own(world: World) -> None:
    card, config = world.root / "models/app/scorer.md", world.root / "models/app/scorer.yaml"
    readme = world.root / "models/app/README.md"
    card.write_text(card.read_text().replace("| version | `v1` |", "| version | `v7` |") + "\nOur own words.\n")
    readme.write_text(readme.read_text().replace("| v1 |", "| v7 |"))
    config.write_text(f"{CONFIG}# changed\n")
    assert found(world) == [
        ("note", f"{MODEL}@v1", "models/app/scorer.yaml is not what it was when the version came"),
        ("note", f"{MODEL}@v1", "models/app/scorer.md does not say what the registry says"),
        ("note", f"{MODEL}@v1", "models/app/README.md does not say what the registry says"),
    ]
    hints = {item["hint"] for item in shown(world, "verify", "--offline")["findings"]}
    assert hints == {f"`holdfast registry rollback {MODEL} --to v1` makes it so"}
    world.holdfast("registry", "rollback", MODEL, "--to", "v1", "--force")
    assert found(world) == []
    assert "Our own words." in card.read_text()


class Payload:
    """Writes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.place)!r}, 'w').write('ran')",)


def torch_file(path: Path, extra: object = None, value: float = 3.0) -> Path:
    torch.save({"model_state_dict": {"w": torch.full((4,), value)}, "extra": extra}, path)
    return path


def test_what_does_not_load_without_running_code(world: World, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name, extra, value in (("good", [1, "a"], 3.0), ("bad", Payload(ran), 4.0), ("unused", Payload(ran), 5.0)):
        path = torch_file(tmp_path / f"{name}.pt", extra, value)
        register(world, f"app/{name}", f"{name}.pt", path.read_bytes())
    register(world, "app/unused", "used.pt", torch_file(tmp_path / "used.pt", value=6.0).read_bytes())
    world.holdfast("registry", "assign", "app/unused@v2", "staging")
    world.write(
        "registry/app/unused/model.yaml",
        (world.root / "registry/app/unused/model.yaml").read_text().replace("current: v1", "current: v2"),
    )
    (fault,) = found(world, code=13)  # neither of those that load, nor of one that nobody uses
    assert fault[:2] == ("fault", "app/bad@v1")
    assert fault[2].startswith("it does not load: its file does not load as a torch checkpoint without running code")
    assert not ran.exists()
    assert found(world, "--quick") == []


def test_what_is_read_without_torch(world: World, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.arange(6.0, dtype=np.float32))
    register(world, "app/arrays", "a.npz", (tmp_path / "a.npz").read_bytes())
    save_file({"w": np.ones(3, np.float32)}, tmp_path / "b.safetensors")
    register(world, "app/tensors", "b.safetensors", (tmp_path / "b.safetensors").read_bytes())
    register(world, "app/torch", "c.pt", torch_file(tmp_path / "c.pt").read_bytes())
    script = """\
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else real(name, package)
sys.modules["torch"] = None  # as where it is not installed
from holdfast.cli.main import main
main(["registry", "verify", "--offline", "--json"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=world.root, env=environment(world.home), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [(item["where"], item["fault"]) for item in json.loads(done.stdout)["findings"]]
    assert told == [("app/torch@v1", "it was not loaded: torch is not installed")]


def test_a_file_that_ends_the_process_is_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = torch_file(tmp_path / "good.pt"), torch_file(tmp_path / "deadly.pt")
    # a process that dies where it opens that file, as torch's own code may
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.addaudithook(lambda event, args: event == 'open' and 'deadly' in str(args[0]) and os._exit(9))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert _loaded_by_torch([str(good), str(bad)]) == {str(bad): "torch failed on it: the process ended with 9"}


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("F32[8, 16]", "F32[8, 17]", "contract.tensors: layer.weight is F32[8, 16] and not F32[8, 17]"),
        ("layer.bias", "layer.biases", "contract.tensors: layer.biases is missing"),
        ('images: "F32[*, 8]"', 'images: "I64[*, 8]"', "contract.inputs: images is F32[*, 8] and not I64[*, 8]"),
    ],
)
def test_the_contract_holds(world: World, before: str, after: str, rule: str) -> None:
    world.write("params.yaml", GATE.replace(before, after))
    assert found(world, code=13) == [("fault", f"{MODEL}@v1", rule)]
    # the gate of another model asks nothing of this one
    world.write("params.yaml", GATE.replace(before, after).replace("promote:", "promote:\n  model: app/other"))
    assert found(world) == []
    world.write("params.yaml", "promote: {metrics: 3}\n")
    ((kind, where, fault),) = found(world)
    assert (kind, where) == ("note", "params.yaml")
    assert fault.startswith("the gate's contract was not checked: ")


def test_an_archived_run_says_what_brings_it_back(world: World) -> None:
    register(
        world,
        "archived/baseline",
        "experiments/b/best.safetensors",
        weights(world.root / "x.safetensors", 8.0).read_bytes(),
        "--run",
        "experiments/b",
    )
    cached(world, "archived/baseline@v1").unlink()
    (world.root / "experiments/b/best.safetensors").unlink()
    answer = shown(world, "verify", "--offline")
    hints = {item["fault"]: item["hint"] for item in answer["findings"]}
    restore = "`holdfast registry consolidate --restore experiments/b` brings them back from the vault"
    assert hints == {
        "its bytes are not on this machine": restore,
        "experiments/b/best.safetensors is not checked out": restore,
    }


def test_what_is_said_to_bring_it_brings_it(world: World) -> None:
    pointer = world.root / f"{STABLE}.dvc"
    right = pointer.read_text()
    stable = world.root / STABLE
    whole = stable.read_bytes()

    def hints() -> set[str]:
        return {finding["hint"] for finding in shown(world, "verify", code=13 if wrong else 0)["findings"]}

    wrong = False
    stable.unlink()
    assert hints() == {f"`dvc checkout {STABLE}` brings its own"}
    world.dvc("checkout", STABLE)
    assert stable.read_bytes() == whole

    stable.unlink()
    pointer.unlink()
    get = f"holdfast registry get {MODEL}@v1 -o {STABLE}"
    assert hints() == {f"`{get}` brings its own"}
    world.holdfast(*get.split()[1:])
    assert stable.read_bytes() == whole

    other = hashlib.md5(b"other").hexdigest()
    pointer.write_text(right.replace(hashlib.md5(whole).hexdigest(), other))
    wrong = True
    rollback = f"holdfast registry rollback {MODEL} --to v1"
    assert hints() == {f"`{rollback}` makes both say the same"}
    world.holdfast(*rollback.split()[1:])
    assert pointer.read_text() == right
    wrong = False
    assert hints() == set()
