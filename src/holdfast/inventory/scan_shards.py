"""What was read of the objects of a part: a shard of two zstd frames of JSON lines, behind a mark.

The mark says whether all could be read. The first frame has a line for each object, which every scan reads. The second
has one for each with its tensors, which only a table of them needs. It is no Parquet, because DuckDB takes a tenth of a
second to begin: a small bucket, looked at again, is done in less. The tables that people query are Parquet
(`holdfast.inventory.tables`).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import zstandard

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.cache import Digests
from holdfast.formats.checkpoint import Checkpoint
from holdfast.formats.content import NoDigestError, digest_of, tensor_digests
from holdfast.formats.digest import TensorDigest, weights_digest
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.summary import Summary, summary_of
from holdfast.inventory.scan_files import SPEAKING_FORMATS, Choice, damaged, is_model
from holdfast.inventory.scan_listing import Listed
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.source import ObjectSource
from holdfast.objectstore.store import ObjectStore

TASK = "holdfast scan objects 1"  # another number where the same object would give another row
NO_TENSORS = ", []]"  # how the line of an object without them ends
WHOLE, PARTIAL = b"HFSCAN1.", b"HFSCAN1!"
LEVEL = 3
JOBS = 16


class DamagedShardError(IntegrityError):
    """A shard is not what was written."""


class Place(Protocol):
    """Where a store is (`holdfast.objectstore.address.StoreAddress`)."""

    def open(self) -> ObjectStore:
        """The store, wherever the task runs."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was read of an object.

    Attributes:
        key: of the object.
        size: bytes.
        state: as of `Listed`.
        summary: its figures as JSON; None where it could not be read.
        weights: the weights digest.
        no_weights: why there is none.
        failure: why it could not be read this time.
    """

    key: str
    size: int
    state: str
    summary: str | None
    weights: str | None = None
    no_weights: str | None = None
    failure: str | None = None

    @property
    def identity(self) -> tuple[str, int, str]:
        """What tells whether the object is still the one that was read."""
        return self.key, self.size, self.state


class Wanted(NamedTuple):
    """An object, and what an older shard knows of it: its two lines."""

    listed: Listed
    known: tuple[str, str] | None = None


def read_part(place: Place, weights: bool, wanted: Sequence[Wanted], *, jobs: int = JOBS) -> bytes:
    """The shard of some objects: the task that is done on whatever machine.

    Args:
        place: the store.
        weights: whether to read the weights for their digests.
        wanted: the objects.
        jobs: requests at a time.
    """
    store = place.open()
    rows: list[str] = []
    tensors: list[str] = []
    whole = True
    for row, own in concurrently(partial(_lines, store, weights), wanted, jobs):
        rows.append(row)
        tensors.append(own)
        whole = whole and _row(row).failure is None
    packer = zstandard.ZstdCompressor(LEVEL, write_checksum=True)
    frames = [packer.compress("".join(f"{line}\n" for line in lines).encode("ascii")) for lines in (rows, tensors)]
    return b"".join((WHOLE if whole else PARTIAL, *frames))


def is_whole(path: Path) -> bool:
    """Whether there is such a shard, and all of its objects could be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(WHOLE)) == WHOLE
    except FileNotFoundError:
        return False


def read_rows(path: Path) -> list[Row]:
    """What a shard says of its objects.

    Raises:
        FileNotFoundError: there is no such shard.
        DamagedShardError: it is damaged.
    """
    return [_row(line) for line in _frame(path, 0)]


def read_lines(path: Path) -> Iterator[tuple[Row, tuple[str, str]]]:
    """The same with the two lines of each object, for `Wanted`.

    Raises:
        FileNotFoundError: there is no such shard.
        DamagedShardError: it is damaged.
    """
    for row, tensors in zip(_frame(path, 0), _frame(path, 1), strict=True):
        yield _row(row), (row, tensors)


def tensor_lines(path: Path) -> str:
    """The lines of a shard's models that have tensors: JSON of the key, and as of `tensor_rows` what each has.

    Raises:
        FileNotFoundError: there is no such shard.
        DamagedShardError: it is damaged.
    """
    return "".join(f"{line}\n" for line in _frame(path, 1) if not line.endswith(NO_TENSORS))


def tensor_rows(checkpoint: Checkpoint, digests: dict[str, bytes] | None) -> list[list[Any]]:
    """Name, dtype, shape, bytes and digest of each tensor.

    A tensor's digest is the weights digest of this tensor alone, without a name: equal for tensors of equal dtype,
    shape and bytes, in whatever file.

    Args:
        checkpoint: opened; its bytes are not read.
        digests: those of the tensors' bytes, as far as these were read.
    """
    known = digests or {}

    def digest(name: str, dtype: str, shape: tuple[int, ...]) -> str | None:
        own = known.get(name)
        return None if own is None else weights_digest([TensorDigest("", dtype, shape, own)])

    return [
        [tensor.name, tensor.dtype, tensor.shape, tensor.nbytes, digest(tensor.name, tensor.dtype, tensor.shape)]
        for tensor in checkpoint.tensors
    ]


def digests_from(row: Row, known: dict[str, Digests]) -> Digests:
    """The digests in a row that has no failure; most files of a bucket are alike, and share what is equal.

    Args:
        row: what was read.
        known: digests without one of weights, by the summary's JSON; grows.
    """
    assert row.summary is not None
    digests = known.get(row.summary)
    if digests is None:
        digests = known[row.summary] = Digests(summary=Summary.from_json(json.loads(row.summary)))
    if row.weights is None and row.no_weights is None:
        return digests
    return replace(digests, weights=row.weights, no_weights=row.no_weights)


def _lines(store: ObjectStore, weights: bool, wanted: Wanted) -> tuple[str, str]:
    if wanted.known is not None:
        return wanted.known
    listed = wanted.listed
    try:
        digests, tensors = _read(store, listed, weights)
    except HoldfastError as error:
        row = Row(*_identity(listed), None, failure=error.message)
        tensors = []
    else:
        assert digests.summary is not None
        summary = json.dumps(digests.summary.as_json())
        row = Row(*_identity(listed), summary, digests.weights, digests.no_weights)
        if not is_model(listed.choice, digests):
            tensors = []
    values = [row.key, row.size, row.state, row.summary, row.weights, row.no_weights, row.failure]
    return json.dumps(values), json.dumps([row.key, tensors])


def _read(store: ObjectStore, listed: Listed, weights: bool) -> tuple[Digests, list[list[Any]]]:
    source = ObjectSource(store, listed.key, listed.info)
    try:
        checkpoint = read_checkpoint(source)
        summary = summary_of(checkpoint)
        if not weights:
            return Digests(summary=summary), tensor_rows(checkpoint, None)
        if why := _no_weights(checkpoint, summary, listed.choice):
            return Digests(summary=summary, no_weights=why), tensor_rows(checkpoint, None)
        try:
            digests = tensor_digests(checkpoint, checkpoint.weights)
        except NoDigestError as error:
            return Digests(summary=summary, no_weights=error.message), tensor_rows(checkpoint, None)
        digest = digest_of(checkpoint.weights, digests)
        return Digests(summary=summary, weights=digest), tensor_rows(checkpoint, digests)
    except IntegrityError as error:
        return damaged(error.message.removeprefix(f"{source.name} ")), []


def _no_weights(checkpoint: Checkpoint, summary: Summary, choice: Choice) -> str:
    if choice == "content" and summary.format not in SPEAKING_FORMATS:
        return "it is no checkpoint"
    return checkpoint.no_digest or ("" if checkpoint.weights else "it holds no weights")


def _identity(listed: Listed) -> tuple[str, int, str]:
    return listed.key, listed.size, listed.state


def _row(line: str) -> Row:
    return Row(*json.loads(line))


def _frame(path: Path, number: int) -> list[str]:
    data = path.read_bytes()
    if data[: len(WHOLE)] not in (WHOLE, PARTIAL):
        raise _damage(path, "it does not begin as a shard does")
    data = data[len(WHOLE) :]
    try:
        for _ in range(number + 1):
            reader = zstandard.ZstdDecompressor().decompressobj()
            text = reader.decompress(data)
            data = reader.unused_data
    except zstandard.ZstdError as error:
        raise _damage(path, str(error)) from error
    if not reader.eof:
        raise _damage(path, "it is cut short")
    return text.decode("ascii").splitlines()


def _damage(path: Path, reason: str) -> DamagedShardError:
    return DamagedShardError(f"{path} is damaged: {reason}", hint="Remove it: what it knew is read again")
