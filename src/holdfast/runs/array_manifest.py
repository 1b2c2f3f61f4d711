"""What an array store knows of itself: ``metadata.json``, ``manifest.json`` and the journal between the two.

A writer appends one line a file to ``journal.jsonl`` *before* it puts the file in place, and folds the journal into
``manifest.json`` when it closes. So a manifest of N samples is written once, not N times, and after a kill at most the
last line of the journal is in doubt: it counts if the file it names has the bytes it says. The journal exists while a
writer is at work or after one was stopped; its lock keeps a second writer out.
"""

import fcntl
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.atomic import sync_folder, write_atomically
from holdfast.errors import LockedError
from holdfast.formats.digest import file_digest
from holdfast.runs.array_contract import ArrayContract, ArrayDamageError, ArrayStoreError, shown

METADATA = "metadata.json"
MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"
STORE_SCHEMA = "holdfast.array-store/1"
MANIFEST_SCHEMA = "holdfast.array-manifest/1"
FORMATS = ("npz", "hdf5")
CHECKSUM = re.compile(r"blake3:[0-9a-f]{64}")
# as holdfast.atomic names what it has not finished
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.tmp")


@dataclass(frozen=True)
class FormatSettings:
    """How samples are put into files.

    Args:
        name: ``npz`` or ``hdf5``.
        compression_level: of deflate, 0 (none) to 9.
        shard_bytes: uncompressed array bytes from which an HDF5 shard is full; None for NPZ.
    """

    name: str
    compression_level: int
    shard_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise ArrayStoreError(f"{self.name!r} is no file format of arrays", hint=f"Use {' or '.join(FORMATS)}.")
        if self.compression_level not in range(10):
            raise ArrayStoreError(f"the compression level {self.compression_level} is not one of 0 to 9")
        if (self.shard_bytes is None) != (self.name == "npz") or (
            self.shard_bytes is not None and self.shard_bytes < 1
        ):
            raise ArrayStoreError(f"shard_bytes {self.shard_bytes} does not fit the format {self.name}")


@dataclass(frozen=True, slots=True)
class StoredSample:
    """A sample's id, its array's shape and the checksum of its content (array and scalars, uncompressed)."""

    file_id: str
    shape: tuple[int, ...]
    content: str

    @property
    def elements(self) -> int:
        """The number of the array's elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the store, the checksum of its bytes and its samples in their order."""

    name: str
    checksum: str
    samples: tuple[StoredSample, ...]


@dataclass(frozen=True)
class Metadata:
    """``metadata.json``: contract, format and the count of samples at the last close."""

    contract: ArrayContract
    settings: FormatSettings
    count: int


class Catalogue:
    """The files and samples of a store in the order of their first save; about 0.8 kB a sample."""

    def __init__(self) -> None:
        self.files: dict[str, StoredFile] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._folded_names: set[str] = set()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, file_id: object) -> bool:
        return file_id in self._places

    def put(self, file: StoredFile) -> None:
        """Add a file, or put it in the place of the file of this name.

        Raises:
            ArrayDamageError: a sample is in another file already, or twice in this one.
        """
        before = self.files.get(file.name)
        for sample in before.samples if before else ():
            del self._places[sample.file_id]
        self.files[file.name] = file
        self._folded_names.add(file.name.casefold())
        for position, sample in enumerate(file.samples):
            if sample.file_id in self._places:
                raise ArrayDamageError(
                    f"the manifest names {shown(sample.file_id)} twice: "
                    f"in {self._places[sample.file_id][0]} and in {file.name}"
                )
            self._places[sample.file_id] = (file.name, position)

    def drop(self, name: str) -> None:
        """Forget a file and its samples."""
        for sample in self.files.pop(name).samples:
            del self._places[sample.file_id]
        self._folded_names.remove(name.casefold())

    def place(self, file_id: str) -> tuple[str, int]:
        """The file that holds a sample and its position there; KeyError where there is none."""
        return self._places[file_id]

    def sample(self, file_id: str) -> StoredSample:
        """What is stored under an id; KeyError where there is none."""
        name, position = self._places[file_id]
        return self.files[name].samples[position]

    def has_name(self, name: str) -> bool:
        """Whether a file has this name on a file system that does not tell cases apart."""
        return name.casefold() in self._folded_names

    def file_ids(self) -> Iterator[str]:
        """Every id, file by file."""
        return (sample.file_id for file in self.files.values() for sample in file.samples)


@dataclass(frozen=True)
class StoreState:
    """All that a store's folder says of its samples.

    ``unfinished`` is None for a store that was closed; else the name of the file that a stopped writer had announced
    and not put in place, or ``""`` where there is none. ``torn`` says that the journal ends in part of a line.
    """

    catalogue: Catalogue
    unfinished: str | None
    torn: bool


def read_metadata(folder: Path) -> Metadata:
    """Read and check ``metadata.json``.

    Raises:
        ArrayStoreError: there is none, or it is of a later schema.
        ArrayDamageError: it is no such file.
    """
    path = folder / METADATA
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArrayStoreError(f"{folder} is no array store: it has no {METADATA}") from None
    except ValueError as error:
        raise ArrayDamageError(
            f"{path} is no JSON: {error}", hint="Restore it; the samples do not depend on it."
        ) from None
    if isinstance(value, dict) and value.get("schema") not in (None, STORE_SCHEMA):
        raise ArrayStoreError(
            f"{path} has the schema {shown(value['schema'])}, this version reads {STORE_SCHEMA}",
            hint="Upgrade holdfast.",
        )
    try:
        parts = {"schema", "contract", "format", "count"}
        if set(value) != parts:
            raise ValueError(f"its keys are not {', '.join(sorted(parts))}")
        count = value["count"]
        if not _is_count(count):
            raise ValueError(f"its count is {shown(count)}")
        return Metadata(ArrayContract.from_json(value["contract"]), FormatSettings(**value["format"]), count)
    except (KeyError, TypeError, ValueError, AttributeError, ArrayStoreError) as error:
        raise ArrayDamageError(f"{path} describes no array store: {error}") from error


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Replace ``metadata.json``; it holds no time, so that the same store gives the same bytes."""
    settings = {key: value for key, value in vars(metadata.settings).items() if value is not None}
    value = {
        "schema": STORE_SCHEMA,
        "contract": metadata.contract.as_json(),
        "format": settings,
        "count": metadata.count,
    }
    write_atomically(folder / METADATA, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_state(folder: Path) -> StoreState:
    """Read ``manifest.json`` and the journal, and decide about the journal's last line.

    Raises:
        ArrayDamageError: the manifest is missing or damaged, or a line before the journal's last one is.
    """
    # the journal first: a writer that closes in between has put into the manifest what the journal said
    lines, torn = _journal_lines(folder / JOURNAL)
    catalogue = Catalogue()
    _read_manifest(folder, catalogue)
    unfinished = None if lines is None else ""
    for number, line in enumerate(lines or [], 1):
        try:
            file = _journal_file(line)
        except (ValueError, KeyError, TypeError) as error:
            raise ArrayDamageError(
                f"{folder / JOURNAL}: line {number} is damaged: {error}",
                hint=f"Delete {JOURNAL} and save again what it named; {MANIFEST} holds what was there before.",
            ) from None
        if number == len(lines or []) and not is_in_place(folder, file):
            unfinished = file.name
        else:
            catalogue.put(file)
    return StoreState(catalogue, unfinished, torn)


def write_manifest(folder: Path, catalogue: Catalogue) -> None:
    """Replace ``manifest.json``: one line a sample, in the order of their first save."""

    def pieces() -> Iterator[str]:
        head = {"schema": MANIFEST_SCHEMA, "count": len(catalogue)}
        yield json.dumps(head, indent=2)[:-2] + ',\n  "samples": ['
        separator = "\n"
        for file in catalogue.files.values():
            for sample in file.samples:
                yield f"{separator}    " + json.dumps(_manifest_line(file, sample), ensure_ascii=False)
                separator = ",\n"
        yield "\n  ]\n}\n" if len(catalogue) else "]\n}\n"

    write_atomically(folder / MANIFEST, "".join(pieces()))


def leftovers(folder: Path) -> list[Path]:
    """Files that a stopped writer had begun; nothing refers to them."""
    return sorted(path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name))


def is_in_place(folder: Path, file: StoredFile) -> bool:
    """Whether the file is there with the bytes that its checksum names."""
    try:
        return file_digest(folder / file.name) == file.checksum
    except FileNotFoundError:
        return False


class Journal:
    """The open journal of the one writer of a store.

    Raises:
        LockedError: another process, or another store object, writes to this folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise LockedError(
                    f"another writer is at work in {folder}",
                    hint="Wait until it is closed, or write to another folder.",
                ) from None
            # a writer that closed in between has removed the file that was opened here: the name is free again
            if self._is_ours(descriptor):
                self._descriptor = descriptor
                return
            os.close(descriptor)

    def append(self, file: StoredFile, *, durable: bool) -> None:
        """Announce a file that is about to be put in place.

        ``durable`` waits for the disk: needed where the file takes the place of another, so that a power failure cannot
        leave the new file under the old checksum. A new file that lost its line is merely saved again.
        """
        samples = [
            {"id": sample.file_id, "shape": list(sample.shape), "content": sample.content} for sample in file.samples
        ]
        line = json.dumps({"file": file.name, "checksum": file.checksum, "samples": samples}, ensure_ascii=False) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self._descriptor, data) :]
        if durable:
            os.fsync(self._descriptor)

    def clear(self) -> None:
        """Forget every line: the manifest holds them."""
        os.ftruncate(self._descriptor, 0)
        os.fsync(self._descriptor)

    def remove(self) -> None:
        """Remove the journal, and with it the mark of an unfinished store."""
        self._path.unlink()
        sync_folder(self._path.parent)
        self.release()

    def release(self) -> None:
        """Leave the journal as it is and let another writer in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_ours(self, descriptor: int) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))


def _read_manifest(folder: Path, catalogue: Catalogue) -> None:
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArrayDamageError(
            f"{path} is missing", hint="Restore it, or save the samples into a new folder."
        ) from None
    except ValueError as error:
        raise ArrayDamageError(f"{path} is no JSON: {error}") from None
    try:
        if value["schema"] != MANIFEST_SCHEMA:
            raise ValueError(f"its schema is {shown(value['schema'])}, this version reads {MANIFEST_SCHEMA}")
        checksums: dict[str, str] = {}
        samples: dict[str, list[StoredSample]] = {}
        for line in value["samples"]:
            name, checksum = _file_name(line["file"]), _checksum(line["checksum"])
            if checksums.setdefault(name, checksum) != checksum:
                raise ValueError(f"it gives {name} two checksums")
            samples.setdefault(name, []).append(_sample(line))
        for name, stored in samples.items():
            catalogue.put(StoredFile(name, checksums[name], tuple(stored)))
        if value["count"] != len(catalogue):
            raise ValueError(f"its count is {shown(value['count'])}, it names {len(catalogue)} samples")
    except (KeyError, TypeError, ValueError) as error:
        detail = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ArrayDamageError(f"{path} is damaged: {detail}") from None


def _journal_lines(path: Path) -> tuple[list[bytes] | None, bool]:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None, False
    torn = lines.pop() != b""
    if lines and not torn:
        try:
            _journal_file(lines[-1])
        except (ValueError, KeyError, TypeError):  # after a power failure the end of a file may be zeros
            lines.pop()
            torn = True
    return lines, torn


def _journal_file(line: bytes) -> StoredFile:
    value = json.loads(line)
    return StoredFile(
        _file_name(value["file"]), _checksum(value["checksum"]), tuple(_sample(sample) for sample in value["samples"])
    )


def _manifest_line(file: StoredFile, sample: StoredSample) -> dict[str, Any]:
    return {
        "id": sample.file_id,
        "file": file.name,
        "shape": list(sample.shape),
        "checksum": file.checksum,
        "content": sample.content,
    }


def _sample(line: Mapping[str, Any]) -> StoredSample:
    file_id, shape = line["id"], line["shape"]
    if not isinstance(file_id, str) or not file_id:
        raise ValueError(f"{shown(file_id)} is no file id")
    if not isinstance(shape, list) or not all(_is_count(size) for size in shape):
        raise ValueError(f"{shown(shape)} is no shape")
    return StoredSample(file_id, tuple(shape), _checksum(line["content"]))


def _file_name(name: object) -> str:
    # a manifest may come from anywhere: it names files of its own folder, never a path
    if (
        not isinstance(name, str)
        or not 0 < len(name) <= 255
        or not name.isascii()
        or not name.isprintable()
        or name != Path(name).name
        or name.startswith(".")
        or name in (METADATA, MANIFEST, JOURNAL)
    ):
        raise ValueError(f"{shown(name)} is no file name of a store")
    return name


def _checksum(value: object) -> str:
    if not isinstance(value, str) or not CHECKSUM.fullmatch(value):
        raise ValueError(f"{shown(value)} is no checksum")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
