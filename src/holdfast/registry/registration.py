"""A version out of any file or folder: its oid, size and weights digest, and its bytes in DVC's cache."""

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.registry.entries import FOLDER_SUFFIX, Version
from holdfast.registry.objects import keep_file, keep_listing
from holdfast.repo.git_commands import head_commit

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".npz", ".npy", ".onnx", ".bin")


class NoWeightsDigestError(HoldfastError):
    """The file holds no weights that can be told from others."""


def make_draft(
    root: Path,
    source: Path,
    digests: DigestCache,
    *,
    today: date,
    params: Mapping[str, Any],
    metrics: Mapping[str, Any],
    weights_file: str | None = None,
    run: str | None = None,
) -> Version:
    """What a version of this file or folder would say; nothing is written but the cache of digests.

    Args:
        root: the project's folder.
        source: a checkpoint in any format, or a folder with one; inside of the project.
        digests: what is known of files.
        today: the day to register under.
        params: what it was trained with.
        metrics: what it reached.
        weights_file: of a folder the file of weights; may be left out where there is just one checkpoint in it.
        run: the run's folder, where it is another one than the file's.

    Raises:
        UsageError: it is not in the project, or the file of weights is unclear.
        NoWeightsDigestError: it holds no weights.
        IntegrityError: it is damaged, or was changed while it was read.
        OSError: it cannot be read.
    """
    path = _inside(root, source)
    if source.is_dir():
        files = _files(source)
        weights_file = weights_file or _only_checkpoint(files, path)
        if weights_file not in files:
            raise UsageError(f"{path} has no file {weights_file}", hint="Name its file of weights: --weights FILE")
        oid = _listing(source, digests)[1]
        size = sum(file.stat().st_size for file in files.values())
        weights = _weights(files[weights_file], f"{path}/{weights_file}", digests)
    elif weights_file is not None:
        raise UsageError(f"{path} is a single file", hint="--weights names the file of weights in a folder")
    else:
        found = digests_of(source, digests, md5=True)
        assert found.md5 is not None
        oid, size = found.md5, source.stat().st_size
        weights = _weights(source, path, digests)
    revision = head_commit(root)
    folder = run if run is not None else path if source.is_dir() else path.rpartition("/")[0]
    return Version(
        name="",
        path=path,
        oid=oid,
        size=size,
        weights=weights,
        date=today.isoformat(),
        source={**({"run": folder} if folder else {}), **({"rev": revision} if revision else {})},
        params=params,
        metrics=metrics,
        weights_file=weights_file,
    )


def keep_bytes(cache: Path, source: Path, draft: Version, digests: DigestCache) -> None:
    """Have the bytes of a draft in DVC's cache, from where a push sends them, and where the registry finds them again.

    Raises:
        IntegrityError: the file has other bytes by now.
        OSError: the cache cannot be written.
    """
    if not draft.is_folder:
        keep_file(cache, source, draft.oid)
        return
    listing, oid = _listing(source, digests)
    for entry in json.loads(listing):
        keep_file(cache, source / entry["relpath"], entry["md5"])
    keep_listing(cache, listing, oid)


def _inside(root: Path, source: Path) -> str:
    if not source.exists():
        raise UsageError(f"{source} is no file: it does not exist", hint="Name a checkpoint, or a folder with one")
    # not resolved: DVC may have made the file a link into its cache
    place = source.parent.resolve() / source.name if source.name not in ("", ".", "..") else source.resolve()
    if not place.is_relative_to(root.resolve()):
        raise UsageError(f"{source} is not in the project {root}", hint="Copy it into the project first")
    return place.relative_to(root.resolve()).as_posix()


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _only_checkpoint(files: Mapping[str, Path], folder: str) -> str:
    found = [name for name in files if name.lower().endswith(WEIGHTS_SUFFIXES)]
    if len(found) != 1:
        told = "no checkpoint" if not found else f"{len(found)} checkpoints ({', '.join(found[:4])})"
        raise UsageError(f"{folder} has {told}", hint="Name its file of weights: --weights FILE")
    return found[0]


def _listing(folder: Path, digests: DigestCache) -> tuple[bytes, str]:
    """The listing of a folder as DVC writes it, and its oid (dvc_data.hashfile.tree.Tree.digest)."""
    entries = []
    for name, path in sorted(_files(folder).items()):
        entries.append({"md5": digests_of(path, digests, md5=True).md5, "relpath": name})
    data = json.dumps(entries, sort_keys=True).encode()
    return data, hashlib.md5(data, usedforsecurity=False).hexdigest() + FOLDER_SUFFIX


def _weights(path: Path, name: str, digests: DigestCache) -> str:
    found = digests_of(path, digests, weights=True)
    if found.weights is None:
        raise NoWeightsDigestError(
            f"{name} has no weights digest: {found.no_weights}",
            hint="Register a .safetensors, .pt, .npz or .onnx file, or a folder with one",
        )
    return found.weights
