"""Which files of a tree are models: by their suffix where that says it, else by their content.

Every file of the field's suffixes is one, readable or not. Suffixes that mean other things as well (``.npz``, ``.h5``,
``.pkl``) count where the name or the folder says model, weights or checkpoint. What has a suffix of text, pictures or
sound is none. Anything else is asked by its content.
"""

import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.errors import IntegrityError
from holdfast.formats.cache import DigestCache, Digests, Key, digests_of, key_of
from holdfast.formats.summary import Summary
from holdfast.inventory.sources import SUFFIXES as SOURCE_SUFFIXES
from holdfast.inventory.tree import File

MODEL_SUFFIXES = frozenset(
    {"safetensors", "pt", "pth", "ckpt", "onnx", "gguf", "tflite", "keras", "torchscript", "jit"}
)
# data as often as models
DATA_SUFFIXES = frozenset({"npy", "npz", "h5", "hdf5", "pkl", "pickle", "joblib", "msgpack", "pb"})
OTHER_SUFFIXES = (
    frozenset(
        """
    txt log csv tsv tex bib html htm css js ts tsx jsx map xml svg c h cc cpp hpp cu cuh rs go java kt rb pl php lua r
    jl swift scala sql proto lock pyc pyo pyi pyd so a o dll dylib class jar wasm whl egg patch diff rej
    png jpg jpeg gif bmp tif tiff webp ico heic psd ai eps pdf doc docx xls xlsx ppt pptx odt ods
    wav mp3 flac ogg opus m4a aac mp4 mkv avi mov webm mid midi ttf otf woff woff2
    gz xz bz2 zst tar tgz 7z rar lz4 br jsonl ndjson parquet arrow feather avro orc lmdb mdb db sqlite sqlite3
    tfevents swp part pem key crt dvc nii dcm mat fits edf vcf bam bed fasta fastq pdb mol sdf
    """.split()  # noqa: SIM905 - a list of 120 quoted words is no easier to read
    )
    | SOURCE_SUFFIXES.keys()
)
# by content these are checkpoints, whatever they are called
SPEAKING_FORMATS = frozenset({"torch zip", "torchscript", "torch legacy", "safetensors", "onnx", "gguf", "tflite"})
LEAST_BYTES = 64  # less holds no tensor worth the name
DAMAGED = "damaged"

_MODEL_WORDS = re.compile(r"(?:^|[\W_])(?:models?|weights?|checkpoints?|ckpts?|classifiers?|best|params)(?:[\W_\d]|$)")

Choice = Literal["model", "content", "none"]


@dataclass(frozen=True, slots=True)
class Found:
    """A model file or object and what is known of it.

    Attributes:
        label: its path from the root, with slashes.
        key: what its digests are kept under.
        digests: its summary, and the weights digest where it was asked for.
    """

    label: str
    key: Key
    digests: Digests

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.key[2]

    @property
    def modified(self) -> float:
        """Its mtime, seconds since 1970."""
        return self.key[3] / 1e9


def choose(label: str, name: str) -> Choice:
    """Whether a file is a ``model`` by its name, ``none``, or to be asked by its ``content``."""
    _, dot, suffix = name.rpartition(".")
    suffix = suffix.lower() if dot else ""
    if suffix in OTHER_SUFFIXES:
        return "none"
    if suffix in MODEL_SUFFIXES:
        return "model"
    if suffix in DATA_SUFFIXES:
        place = label.lower().rsplit("/", 2)[-2:]
        return "model" if any(_MODEL_WORDS.search(part) for part in place) else "none"
    return "content"


def find_models(
    files: Iterable[File],
    cache: DigestCache,
    notes: list[str],
    *,
    weights: bool = True,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Found]:
    """The models among the files, in their order, with their figures; only what the cache does not know is read.

    Args:
        files: as `holdfast.inventory.tree.walk_files` gives them.
        cache: what is known; asked once for all.
        notes: gets a line for each file that cannot be read.
        weights: the weights digest, for which all weights are read once.
        progress: called with bytes read and bytes to be read.
    """
    chosen: list[tuple[File, Key, Choice]] = []
    for file in files:
        choice = choose(file.label, file.name)
        if choice == "none":
            continue
        try:
            key = key_of(file.entry.stat(follow_symlinks=False))
        except OSError as error:
            notes.append(f"{file.label}: {error.strerror}")
            continue
        if choice == "model" or key[2] >= LEAST_BYTES:
            chosen.append((file, key, choice))
    known = cache.many(key for _, key, _ in chosen)
    missing = [key[2] for _, key, choice in chosen if choice == "model" and not enough(known.get(key), weights)]
    total, done = sum(missing), 0
    found = []
    # one after the other: small files take Python's time, which threads do not share, and BLAKE3 has its own threads.
    # Two at a time took 1.2 times as long (20 kB to 400 kB), or as long (2 MB)
    for file, key, choice in chosen:
        digests = known.get(key)
        if not enough(digests, weights):
            try:
                digests = _read(file.path, cache, choice, weights)
            except OSError as error:
                notes.append(f"{file.label}: {error.strerror}")
                continue
            if choice == "model":
                done += key[2]
                progress(done, total)
        assert digests is not None
        if is_model(choice, digests):
            found.append(Found(file.label, key, digests))
    return found


def find_links(
    links: Iterable[File], root: Path, cache: DigestCache, notes: list[str], *, weights: bool = True
) -> list[tuple[Found, str]]:
    """The model files that symbolic links lead to inside of ``root``, each with the path from there that it leads to.

    Links that lead out of it are counted in ``notes`` where their names are those of models; none of them is followed.
    """
    result = []
    outside = 0
    for link in links:
        choice = choose(link.label, link.name)
        if choice == "none":
            continue
        try:
            target = link.path.resolve(strict=True)
            if not target.is_relative_to(root):
                outside += choice == "model"
                continue
            status = target.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            digests = _read(target, cache, choice, weights)
        except (OSError, RuntimeError):
            continue  # it leads nowhere, or in circles
        if is_model(choice, digests):
            result.append((Found(link.label, key_of(status), digests), target.relative_to(root).as_posix()))
    if outside:
        notes.append(f"{outside} links to model files outside of {root} were not followed")
    return result


def is_model(choice: Choice, digests: Digests) -> bool:
    """Whether it is a model, now that its content is known."""
    return choice == "model" or (digests.summary is not None and digests.summary.format in SPEAKING_FORMATS)


def enough(digests: Digests | None, weights: bool) -> bool:
    """Whether all that a scan wants is known."""
    if digests is None or digests.summary is None:
        return False
    return not weights or digests.weights is not None or digests.no_weights is not None


def _read(path: Path, cache: DigestCache, choice: Choice, weights: bool) -> Digests:
    try:
        digests = digests_of(path, cache, summary=True, weights=weights and choice == "model")
        if weights and choice == "content":
            assert digests.summary is not None
            if digests.summary.format in SPEAKING_FORMATS:
                return digests_of(path, cache, summary=True, weights=True)
            # no model, and nothing to ask again the next time
            digests = Digests(summary=digests.summary, no_weights="it is no checkpoint")
            cache.put(path.stat(), digests)
    except IntegrityError as error:
        digests = damaged(error.message.removeprefix(f"{path} "))
        cache.put(path.stat(), digests)
    return digests


def damaged(reason: str) -> Digests:
    """What is known of a file that is torn."""
    return Digests(summary=Summary(DAMAGED, 0, 0, 0, 0, 0, 0, {}, reason), no_weights=reason)
