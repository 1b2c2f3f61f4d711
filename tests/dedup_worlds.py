"""A disk with reflinks, checkpoints that are alike in known ways, and what is to be seen of files."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from holdfast.dedup.plan import DedupPlan
from holdfast.dedup.planning import plan_links
from holdfast.formats.cache import DigestCache
from holdfast.repo.workspace import find_project

BLOCK = 4096
DISK_BYTES = 320 * 1024 * 1024  # XFS takes no smaller one


MAKERS = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"]}


@contextmanager
def reflink_disk(folder: Path, kind: str = "xfs") -> Iterator[Path]:
    """A file system with reflinks, mounted below ``folder`` from a file; the test is skipped where there can be none."""
    if os.geteuid() or shutil.which(MAKERS[kind][0]) is None:
        pytest.skip(f"an image of {kind} needs root and {MAKERS[kind][0]}")
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with open(image, "wb") as stream:
        stream.truncate(DISK_BYTES)
    subprocess.run([*MAKERS[kind], str(image)], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=False, capture_output=True)
    if mounted.returncode:
        image.unlink()
        pytest.skip("loop devices cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        image.unlink()


# fixtures: a module that wants them says ``disk, folder = dedup_worlds.disk, dedup_worlds.folder``


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system with reflinks, for all tests of a module."""
    with reflink_disk(tmp_path_factory.mktemp("disk")) as place:
        yield place


@pytest.fixture
def folder(disk: Path, tmp_path: Path) -> Path:
    """A folder of it, for one test."""
    place = disk / tmp_path.name
    place.mkdir()
    return place


def planned(folder: Path, *, project: bool = False, paths: tuple[Path, ...] = ()) -> DedupPlan:
    """Which files of a folder would be replaced, by what."""
    found = find_project(folder) if project else None
    return plan_links(folder, DigestCache(None), project=found, paths=paths)[0]


def write(path: Path, content: str, size: int = 2 * BLOCK) -> Path:
    """A file of ``content`` again and again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((content * size)[:size])
    return path


def weights(seed: int = 1, tensors: int = 4, rows: int = 128) -> dict[str, np.ndarray]:
    """Some layers of float32, shape (rows, rows) each, as a trained model has them."""
    random = np.random.default_rng(seed)
    return {f"layer{n}.weight": random.normal(0, 0.02, (rows, rows)).astype("f4") for n in range(tensors)}


def tuned(given: dict[str, np.ndarray], seed: int = 2, step: float = 1e-5) -> dict[str, np.ndarray]:
    """The same after some training: every weight is a little different."""
    random = np.random.default_rng(seed)
    return {name: value + random.normal(0, step, value.shape).astype("f4") for name, value in given.items()}


def save(path: Path, given: dict[str, np.ndarray]) -> Path:
    """A ``.safetensors`` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(given, path)
    return path


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """What is to be seen of every file of a folder, besides what Holdfast and DVC keep: bytes, mode, owner, mtime."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        label = path.relative_to(folder).as_posix()
        if path.is_dir() or label.startswith((".dvc/", ".holdfast/", ".git/")):
            continue
        status = path.stat()
        found[label] = (path.read_bytes(), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    return found
