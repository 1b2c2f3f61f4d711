"""What is promoted: a checkpoint or a folder anywhere, and its copy beside the stable path, converted where asked."""

import hashlib
import json
import os
import secrets
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.atomic import TEMPORARY_SUFFIX, leftovers, write_atomically
from holdfast.errors import UsageError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.formats.digest import file_md5
from holdfast.formats.opening import open_checkpoint
from holdfast.registry.entries import FOLDER_SUFFIX, Version
from holdfast.registry.gate_contract import FileFacts, file_facts
from holdfast.registry.objects import COPY_BYTES
from holdfast.registry.objects import _cloned as cloned
from holdfast.registry.registration import WEIGHTS_SUFFIXES, NoWeightsDigestError
from holdfast.runs.checkpoint import HEADER_ALIGNMENT_BYTES, export_safetensors, load_checkpoint, weights_of

MODELS_FOLDER = "models"
SAFETENSORS = ".safetensors"
# where a converted checkpoint says what it said beside its weights, as JSON
METADATA_KEY = "checkpoint"
MAX_METADATA = 10_000
# formats of torch's that are loaded, without running code, and written as safetensors
CONVERTED = frozenset({"torch", "torch zip", "torch legacy"})
# side files that nobody loads without unpickling something
PICKLED_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True)
class Candidate:
    """What is to be promoted.

    Attributes:
        source: a checkpoint in any format, or a folder with one; it is left as it is.
        weights_file: of a folder the file of weights, from the folder; may be left out where there is just one.
        convert: write torch checkpoints as safetensors; else every file is copied.
        config: what a program needs to load the weights, as the bytes of a file; None for nothing.
        config_suffix: of that file.
        params: what it was trained with.
        metrics: what it reached.
        predictions: its predictions of the test set, a CSV; None where nobody stored them.
        keep_metadata: of a checkpoint that is converted, keep its numbers and words beside the weights: epoch, classes.
        description: one line for people, for a new model.
    """

    source: Path
    weights_file: str | None = None
    convert: bool = True
    config: bytes | None = None
    config_suffix: str = ".yaml"
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    predictions: Path | None = None
    description: str = ""
    keep_metadata: bool = False


@dataclass(frozen=True)
class Staged:
    """A candidate's copy, not in its place yet.

    Attributes:
        path: where it lies: a temporary file or folder beside the stable path.
        stable: the stable path, from the project's root.
        oid: DVC's md5, or ``<md5>.dir``.
        size: bytes in all.
        weights: the weights digest.
        weights_file: of a folder the file of weights, from the folder.
        listing: of a folder what DVC's cache keeps of it; empty for a file.
        facts: what a gate asks of it.
    """

    path: Path
    stable: str
    oid: str
    size: int
    weights: str
    weights_file: str | None
    listing: bytes
    facts: FileFacts

    def is_version(self, version: Version) -> bool:
        """Whether a version has these very bytes at this very path."""
        return (version.path, version.oid) == (self.stable, self.oid)


def stable_path(model_id: str, suffix: str = SAFETENSORS) -> Path:
    """``models/<app>/<name>.safetensors``, relative to the project's root; a folder has no suffix."""
    return Path(MODELS_FOLDER, f"{model_id}{suffix}")


def config_path(model_id: str, suffix: str = ".yaml") -> Path:
    """``models/<app>/<name>.yaml``, relative to the project's root: what the weights must be loaded into."""
    return Path(MODELS_FOLDER, f"{model_id}{suffix}")


def predictions_path(model_id: str) -> Path:
    """``models/<app>/<name>.predictions.csv``, relative to the project's root: the test set as the model sees it."""
    return Path(MODELS_FOLDER, f"{model_id}.predictions.csv")


def source_files(candidate: Candidate) -> dict[str, Path]:
    """The files of a folder by their paths in it; of a single file itself, under the empty name.

    Raises:
        UsageError: it is not there, or its file of weights is unclear.
    """
    source = candidate.source
    if not source.exists():
        raise UsageError(f"{source} does not exist", hint="Name a checkpoint, or a folder with one")
    if not source.is_dir():
        if candidate.weights_file is not None:
            raise UsageError(f"{source} is a single file", hint="--weights names the file of weights in a folder")
        return {"": source}
    return {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if path.is_file()}


def moved_paths(root: Path, candidate: Candidate, staged_stable: str, weights_file: str | None) -> dict[str, str]:
    """Old path → new path of every file that is copied, from the project's root; none from outside of it.

    Args:
        root: the project's folder.
        candidate: what is promoted.
        staged_stable: the stable path.
        weights_file: of a folder the file of weights at the stable path.
    """
    base = _inside(root, candidate.source)
    if base is None:
        return {}
    if not candidate.source.is_dir():
        return {base: staged_stable}
    named = weights_name(candidate, source_files(candidate))
    renamed = {named: weights_file or named}
    return {f"{base}/{name}": f"{staged_stable}/{renamed.get(name, name)}" for name in source_files(candidate)}


def weights_name(candidate: Candidate, files: Mapping[str, Path]) -> str:
    """Of a folder the file of weights.

    Raises:
        UsageError: there is none, or it is not said which of several.
    """
    if candidate.weights_file is not None:
        if candidate.weights_file not in files:
            raise UsageError(
                f"{candidate.source} has no file {candidate.weights_file}",
                hint="Name its file of weights: --weights FILE",
            )
        return candidate.weights_file
    found = [name for name in files if name.lower().endswith(WEIGHTS_SUFFIXES)]
    if len(found) != 1:
        told = "no checkpoint" if not found else f"{len(found)} checkpoints ({', '.join(found[:4])})"
        raise UsageError(f"{candidate.source} has {told}", hint="Name its file of weights: --weights FILE")
    return found[0]


@dataclass(frozen=True)
class Opened:
    """A source that was looked at.

    Attributes:
        candidate: what is promoted.
        files: of a folder by their paths in it; of a single file itself, under the empty name.
        weights_file: of a folder the file of weights; empty for a single file.
        weights: tensors by name, to be written as safetensors; None where the file is copied.
        metadata: what else the checkpoint says, as JSON; empty for nothing.
    """

    candidate: Candidate
    files: Mapping[str, Path]
    weights_file: str
    weights: Mapping[str, Any] | None
    metadata: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return "" not in self.files


def open_source(candidate: Candidate) -> Opened:
    """Look at a source, and load the weights that are to be converted; nothing is written.

    Raises:
        UsageError: it is not there, or its file of weights is unclear.
        IntegrityError: a checkpoint is torn, damaged, or asks for code to be run.
        NoWeightsError: it holds no weights.
        TorchMissingError: torch is not installed.
        OSError: it cannot be read.
    """
    files = source_files(candidate)
    name = "" if "" in files else weights_name(candidate, files)
    if not (candidate.convert and _is_torch(files[name])):
        return Opened(candidate, files, name, None)
    checkpoint = load_checkpoint(files[name])
    weights = weights_of(checkpoint, str(files[name]))
    metadata = _said_beside(checkpoint) if candidate.keep_metadata else {}
    return Opened(candidate, files, name, weights, json.dumps(metadata, sort_keys=True) if metadata else "")


@contextmanager
def staged(root: Path, model_id: str, opened: Opened) -> Iterator[Staged]:
    """A candidate's copy beside the stable path; what is left of it when the block ends goes.

    Raises:
        UsageError: its name tells no format, or a file would be overwritten by the converted one.
        NoWeightsError: it holds weights such as safetensors does not take.
        NoWeightsDigestError: it holds no weights that can be told from others.
        TorchMissingError: safetensors is not installed.
        OSError: a file cannot be read or written.
    """
    candidate, files, name = opened.candidate, opened.files, opened.weights_file
    if opened.is_folder:
        stable = root / stable_path(model_id, "")
        kept = name if opened.weights is None else Path(name).with_suffix(SAFETENSORS).as_posix()
        if kept != name and kept in files:
            raise UsageError(f"{candidate.source} has both {name} and {kept}", hint="--weights names one of them")
    else:
        suffix = candidate.source.suffix if opened.weights is None else SAFETENSORS
        if not suffix:
            raise UsageError(f"{candidate.source} has no suffix", hint="Name the file after its format: .safetensors")
        stable, kept = root / stable_path(model_id, suffix), ""
    for left in leftovers(stable):
        _remove(left)
    made = [folder for folder in (stable.parent, stable.parent.parent) if not folder.exists()]
    temporary = stable.with_name(f".{stable.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        for each, path in files.items():
            target = temporary / (kept if each == name else each) if opened.is_folder else temporary
            target.parent.mkdir(parents=True, exist_ok=True)
            if each == name and opened.weights is not None:
                export_safetensors(opened.weights, target)
                if opened.metadata:
                    write_atomically(target, _with_metadata(target.read_bytes(), opened.metadata))
            else:
                copy_file(path, target)
        yield _described(temporary, stable.relative_to(root).as_posix(), kept, candidate, is_folder=opened.is_folder)
    finally:
        _remove(temporary)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, sharing its bytes where the file system can; never a hard link: who edits one would edit both.

    Raises:
        OSError: it cannot be read or written.
    """
    with open(target, "xb") as stream:
        if not cloned(source, stream.fileno()):
            with open(source, "rb") as reader:
                shutil.copyfileobj(reader, stream, COPY_BYTES)
        stream.flush()
        os.fsync(stream.fileno())


def put_in_place(candidate: Path, stable: Path) -> None:
    """Give a staged file or folder its name. A file is replaced in one step; a folder in two renames.

    Raises:
        OSError: it cannot be renamed.
    """
    if not candidate.is_dir() and not stable.is_dir():
        candidate.replace(stable)
        return
    aside = stable.with_name(f".{stable.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    if stable.exists():
        stable.rename(aside)
    candidate.rename(stable)
    _remove(aside)


def folder_listing(folder: Path) -> tuple[bytes, str]:
    """The listing of a folder as DVC writes it, and its oid (dvc_data.hashfile.tree.Tree.digest)."""
    entries = [
        {"md5": file_md5(path), "relpath": path.relative_to(folder).as_posix()}
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
        if path.is_file()
    ]
    data = json.dumps(entries, sort_keys=True).encode()
    return data, hashlib.md5(data, usedforsecurity=False).hexdigest() + FOLDER_SUFFIX


def _described(path: Path, stable: str, kept: str, candidate: Candidate, *, is_folder: bool) -> Staged:
    weights_path = path / kept if is_folder else path
    shown = f"{candidate.source}/{kept}" if is_folder else str(candidate.source)
    digests = digests_of(weights_path, DigestCache(None), weights=True)
    if digests.weights is None:
        raise NoWeightsDigestError(
            f"{shown} has no weights digest: {digests.no_weights}",
            hint="Promote a .safetensors, .pt, .npz or .onnx file, or a folder with one",
        )
    source, checkpoint = open_checkpoint(weights_path)
    with source:
        facts = file_facts(checkpoint)
    if not is_folder:
        size = path.stat().st_size
        return Staged(path, stable, file_md5(path), size, digests.weights, None, b"", facts)
    listing, oid = folder_listing(path)
    members = [member for member in path.rglob("*") if member.is_file()]
    size = sum(member.stat().st_size for member in members)
    pickled = sum(member.suffix.lower() in PICKLED_SUFFIXES for member in members if member != weights_path)
    facts = FileFacts(size, facts.format, facts.pickles + pickled, facts.tensors)
    return Staged(path, stable, oid, size, digests.weights, kept, listing, facts)


def _is_torch(path: Path) -> bool:
    source, checkpoint = open_checkpoint(path)
    with source:
        return checkpoint.format in CONVERTED


def _said_beside(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says in numbers and words; tensors, the optimizer's state and what is long are left out."""
    said = {}
    for key, value in checkpoint.items():
        if isinstance(key, str) and not key.startswith("optimizer"):
            try:
                text = json.dumps(value, sort_keys=True, allow_nan=False)
            except (TypeError, ValueError, RecursionError):
                continue
            if len(text) <= MAX_METADATA:
                said[key] = json.loads(text)
    return said


def _with_metadata(data: bytes, text: str) -> bytes:
    """A safetensors file with a text under `METADATA_KEY` in its header."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted({**header.get("__metadata__", {}), METADATA_KEY: text}.items()))
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % HEADER_ALIGNMENT_BYTES)
    return struct.pack("<Q", len(head)) + head + data[8 + length :]


def _inside(root: Path, source: Path) -> str | None:
    # not resolved: DVC may have made the file a link into its cache
    place = source.parent.resolve() / source.name if source.name not in ("", ".", "..") else source.resolve()
    return place.relative_to(root.resolve()).as_posix() if place.is_relative_to(root.resolve()) else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
