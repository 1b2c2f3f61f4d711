"""The samples that two models are given: arrays of a file, or the columns of a table, batch by batch.

Nothing is read twice and no more than a batch is held, however the file is packed: `tensor_chunks` streams it.
"""

import csv
import io
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from holdfast.compare.figures import Array
from holdfast.compare.values import has_values, values
from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.checkpoint import Checkpoint, Tensor
from holdfast.formats.content import check_expansion, tensor_chunks
from holdfast.formats.numpy_files import KINDS
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import READ_BYTES, Source, chunks

TABLE_SUFFIXES = (".csv", ".tsv")
TABLE_INPUT = "columns"  # the one array that a table's columns make
NAMES_SHOWN = 8

_NUMPY = {dtype: f"<{kind}" for kind, dtype in KINDS.items()}


class DataError(HoldfastError):
    """The file holds no samples that a model could be given."""


@dataclass(frozen=True)
class Field:
    """One array that the models are given.

    Attributes:
        key: its name in the file.
        name: what the models call it.
        dtype: of its elements, as of `holdfast.formats.dtypes`.
        shape: of one sample.
    """

    key: str
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Neighbouring samples.

    Attributes:
        first: the number of the first one, from 0 on.
        rows: how many there are.
        inputs: by the models' names, arrays of shape (rows, …), not to be written to; types that NumPy lacks
            (bfloat16, 8-bit floats) come as float32, which holds them exactly.
        labels: int64 of shape (rows, …), None where none were asked for.
    """

    first: int
    rows: int
    inputs: Mapping[str, Array]
    labels: Array | None


class Data(Protocol):
    """Samples that can be read once from front to back."""

    @property
    def fields(self) -> Sequence[Field]:
        """The arrays."""

    @property
    def samples(self) -> int:
        """How many samples there are; of a table, how many lines could be some."""

    def batches(self, rows: int, limit: int | None) -> Iterator[Batch]:
        """The samples, or the first ``limit`` of them, ``rows`` at a time; the last batch may be shorter.

        Raises:
            DataError: a value is no number, a row is short, or a label is no whole number.
            IntegrityError: the file is damaged.
        """


def open_data(source: Source, inputs: Mapping[str, str] | None = None, labels: str | None = None) -> Data:
    """Open the samples in a file.

    Args:
        source: NumPy's ``.npz`` and ``.npy``, safetensors and torch files of tensors, told by their content; a table
            with a header by its suffix, ``.csv`` or ``.tsv``.
        inputs: the arrays or columns to take, by their names in the file, each with the name that the models use; None
            for all but the labels.
        labels: the array or column of class numbers.

    Raises:
        DataError: there are no samples, or arrays do not have as many as one another.
        UsageError: a name is none of the file's.
        IntegrityError: the file is damaged.
    """
    if source.name.lower().endswith(TABLE_SUFFIXES):
        return _Table(source, inputs, labels)
    checkpoint = read_checkpoint(source)
    if not checkpoint.tensors:
        reason = checkpoint.opaque[0].reason if checkpoint.opaque else "it holds no arrays"
        raise DataError(
            f"{source.name} holds no samples: {reason}",
            hint="Samples are arrays in .npz, .npy, .safetensors or .pt, or the columns of a .csv",
        )
    return _Arrays(checkpoint, inputs, labels)


class _Arrays:
    def __init__(self, checkpoint: Checkpoint, inputs: Mapping[str, str] | None, labels: str | None) -> None:
        found = {tensor.name: tensor for tensor in checkpoint.tensors}
        name = checkpoint.source.name
        chosen = _chosen(name, list(found), inputs, labels)
        for key in (*chosen, *([labels] if labels else [])):
            if not has_values(found[key].dtype):
                raise DataError(f"{name}: {key} is of type {found[key].dtype}, which no model is given")
        lengths = {key: _length(found[key]) for key in (*chosen, *([labels] if labels else []))}
        if len(set(lengths.values())) > 1 or None in lengths.values():
            told = ", ".join(f"{key} {'no' if count is None else count}" for key, count in lengths.items())
            raise DataError(
                f"{name}: its arrays do not have as many samples as one another ({told})",
                hint="Their first dimension counts the samples; --input KEY takes an array, and leaves out the others",
            )
        self.samples = next(iter(lengths.values())) or 0
        if not self.samples:
            raise DataError(f"{name} holds no samples: {next(iter(lengths))} is empty")
        self.fields = [Field(key, called, found[key].dtype, found[key].shape[1:]) for key, called in chosen.items()]
        self._checkpoint = checkpoint
        self._tensors = [found[key] for key in chosen]
        self._labels = found[labels] if labels else None
        check_expansion(checkpoint, (*self._tensors, *([self._labels] if self._labels else [])))

    def batches(self, rows: int, limit: int | None) -> Iterator[Batch]:
        wanted = self.samples if limit is None else min(limit, self.samples)
        streams = [_arrays(self._checkpoint, tensor, rows, wanted) for tensor in self._tensors]
        right = None if self._labels is None else _arrays(self._checkpoint, self._labels, rows, wanted)
        for first in range(0, wanted, rows):
            inputs = {field.name: next(stream) for field, stream in zip(self.fields, streams, strict=True)}
            labels = None
            if right is not None and self._labels is not None:
                labels = _whole(next(right), self._checkpoint.source.name, self._labels.name, first)
            yield Batch(first, min(rows, wanted - first), inputs, labels)


def _arrays(checkpoint: Checkpoint, tensor: Tensor, rows: int, wanted: int) -> Iterator[Array]:
    """The first ``wanted`` samples of a tensor, ``rows`` at a time."""
    shape = tensor.shape[1:]
    size = tensor.nbytes // tensor.shape[0]
    held = bytearray()
    pieces = tensor_chunks(checkpoint, tensor)
    for first in range(0, wanted, rows):
        count = min(rows, wanted - first)
        while len(held) < count * size:
            held += next(pieces)
        data = bytes(memoryview(held)[: count * size])
        del held[: count * size]  # from the front of a bytearray that moves nothing
        if first + count == tensor.shape[0]:
            deque(pieces, maxlen=0)  # what checks an archive's sum runs behind its last byte
        yield _numbers(data, tensor.dtype).reshape(count, *shape)


def _numbers(data: bytes, dtype: str) -> Array:
    return np.frombuffer(data, _NUMPY[dtype]) if dtype in _NUMPY else values(data, dtype)


def _length(tensor: Tensor) -> int | None:
    return tensor.shape[0] if tensor.shape else None


class _Table:
    def __init__(self, source: Source, inputs: Mapping[str, str] | None, labels: str | None) -> None:
        self._source = source
        self._delimiter = "\t" if source.name.lower().endswith(".tsv") else ","
        header = next(self._rows(), None)
        if not header:
            raise DataError(f"{source.name} is empty", hint="Its first line names the columns, each other is a sample")
        if len(set(header)) < len(header):
            twice = next(name for place, name in enumerate(header) if name in header[:place])
            raise DataError(f"{source.name} has the column {twice!r} twice")
        names = _chosen(source.name, header, inputs, labels)
        if any(key != called for key, called in names.items()):
            raise UsageError(f"the columns of {source.name} are one array, which needs no name", hint="--input COLUMN")
        self.fields = [Field(", ".join(names), TABLE_INPUT, "F32", (len(names),))]
        self._places = [header.index(name) for name in names]
        self._columns = list(names)
        self._label = None if labels is None else header.index(labels)
        self._width = len(header)
        lines = sum(piece.count(b"\n") for piece in chunks(source, 0, source.size, READ_BYTES))
        ended = source.read(source.size - 1, 1) == b"\n"
        self.samples = lines - ended

    def batches(self, rows: int, limit: int | None) -> Iterator[Batch]:
        lines = self._rows()
        next(lines)
        held: list[list[float]] = []
        labels: list[float] = []
        first = 0
        for line in lines:
            if limit is not None and first + len(held) == limit:
                break
            self._take(line, first + len(held), held, labels)
            if len(held) == rows:
                yield self._batch(first, held, labels)
                first, held, labels = first + rows, [], []
        if held:
            yield self._batch(first, held, labels)
        elif not first:
            raise DataError(f"{self._source.name} holds no samples: it has no line but its header")

    def _take(self, line: list[str], sample: int, held: list[list[float]], labels: list[float]) -> None:
        where = f"{self._source.name}, sample {sample}"
        if len(line) != self._width:
            raise DataError(f"{where}: it has {len(line)} values where the header names {self._width} columns")
        try:
            held.append([float(line[place]) for place in self._places])
        except ValueError:
            place = next(place for place in self._places if not _is_number(line[place]))
            name = self._columns[self._places.index(place)]
            raise DataError(
                f"{where}: {line[place][:40]!r} in the column {name} is no number",
                hint="--input COLUMN, given once for each, takes the columns that are",
            ) from None
        if self._label is not None:
            text = line[self._label]
            labels.append(float(text) if _is_number(text) else math.nan)
            if not labels[-1].is_integer():
                raise DataError(f"{where}: the label {text[:40]!r} is no class number", hint="Classes count from 0 on")

    def _batch(self, first: int, held: list[list[float]], labels: list[float]) -> Batch:
        with np.errstate(over="ignore"):  # 1e99 is infinite as float32
            array = np.array(held, np.float64).astype(np.float32)
        right = None if self._label is None else np.array(labels).astype(np.int64)
        return Batch(first, len(held), {self.fields[0].name: array}, right)

    def _rows(self) -> Iterator[list[str]]:
        stream = io.TextIOWrapper(io.BufferedReader(_Stream(self._source)), "utf-8-sig", newline="")
        try:
            yield from (row for row in csv.reader(stream, delimiter=self._delimiter, strict=True) if row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{self._source.name} is no table of UTF-8 text: {error}") from error


class _Stream(io.RawIOBase):
    """A source as the standard library wants to read it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the library's own stub says Buffer
        data = self._source.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _chosen(file: str, found: Sequence[str], inputs: Mapping[str, str] | None, labels: str | None) -> dict[str, str]:
    """The names to take, each with what the models call it."""
    for name in (*(inputs or ()), *([labels] if labels else [])):
        if name not in found:
            shown = ", ".join(found[:NAMES_SHOWN]) + (", …" if len(found) > NAMES_SHOWN else "")
            raise UsageError(f"{file} has no {name!r}", hint=f"It has {shown}")
    chosen = dict(inputs) if inputs else {name: name for name in found if name != labels}
    if not chosen:
        raise DataError(f"{file} holds nothing but the labels {labels}")
    if len(set(chosen.values())) < len(chosen):
        raise UsageError(f"two arrays of {file} get the same name", hint="--input KEY=NAME names each array once")
    return chosen


def _whole(array: Array, file: str, name: str, first: int) -> Array:
    """The labels as int64."""
    if array.dtype.kind in "biu":
        return array.astype(np.int64)
    wrong = np.argwhere(~np.isfinite(array) | (array != np.round(array))) if array.dtype.kind == "f" else [[0]]
    if len(wrong):
        raise DataError(f"{file}: the label {name} of sample {first + int(wrong[0][0])} is no class number")
    return array.astype(np.int64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
