"""Samples within files: records of a fixed length and rows of arrays, and which ranges of bytes bring them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.stream_order import Indices
from holdfast.errors import HoldfastError, IntegrityError, UsageError
from holdfast.formats.dtypes import c_strides
from holdfast.formats.numpy_files import KINDS, open_npy
from holdfast.formats.source import Source

# neighbours are fetched by one request up to here
READ_BYTES = 8 * 2**20
_DTYPES = {name: code for code, name in KINDS.items()}


class Read(NamedTuple):
    """A range of a file.

    Attributes:
        file: its number.
        offset: of the first byte.
        nbytes: how many.
        uses: samples that are in it.
    """

    file: int
    offset: int
    nbytes: int
    uses: int


@dataclass(frozen=True)
class FileRecords:
    """The samples of one file.

    Attributes:
        count: how many.
        offset: where the first begins.
        nbytes: of each.
        dtype: of a row of an array, as NumPy writes it; empty for records that are bytes.
        shape: of a row.
    """

    count: int
    offset: int
    nbytes: int
    dtype: str = ""
    shape: tuple[int, ...] = ()

    def decoded(self, data: memoryview) -> Any:
        """A sample: bytes, or an array of its own in the machine's byte order."""
        if not self.dtype:
            return bytes(data)
        dtype = np.dtype(self.dtype)
        return np.frombuffer(data, dtype).reshape(self.shape).astype(dtype.newbyteorder("="), copy=True)


@dataclass(frozen=True)
class Records:
    """The samples of many files, numbered through.

    Attributes:
        files: what each has.
        starts: the number of each file's first sample, and that behind the last one.
    """

    files: tuple[FileRecords, ...]
    starts: Indices

    @property
    def count(self) -> int:
        """How many samples there are."""
        return int(self.starts[-1])

    @property
    def nbytes(self) -> int:
        """The bytes of the largest sample."""
        return max((file.nbytes for file in self.files), default=1)

    def file_of(self, samples: Indices) -> Indices:
        """For each sample its file."""
        return np.searchsorted(self.starts, samples, side="right").astype(np.int64) - 1

    def pages(self, page_bytes: int) -> Indices:
        """For each sample its page: neighbours in a file that have ``page_bytes`` together, or one alone."""
        samples = np.arange(self.count, dtype=np.int64)
        files = self.file_of(samples)
        inside = samples - self.starts[files]
        pages = inside // self._in_page(page_bytes)[files]
        first = np.ones(len(samples), dtype=bool)
        first[1:] = (files[1:] != files[:-1]) | (pages[1:] != pages[:-1])
        numbers: Indices = np.cumsum(first) - 1
        return numbers

    def in_page(self, page_bytes: int) -> int:
        """How many samples the fullest page has."""
        return int(np.minimum(self._in_page(page_bytes), np.diff(self.starts)).max(initial=1))

    def _in_page(self, page_bytes: int) -> Indices:
        nbytes = np.array([file.nbytes for file in self.files], dtype=np.int64)
        fitting: Indices = np.maximum(1, page_bytes // np.maximum(nbytes, 1))
        return fitting


def number_records(files: Sequence[FileRecords]) -> Records:
    """Number the samples of files through."""
    return Records(tuple(files), np.concatenate([[0], np.cumsum([file.count for file in files])]).astype(np.int64))


def fixed_records(name: str, size: int, record_bytes: int) -> FileRecords:
    """The records of a file.

    Raises:
        UsageError: its length is no multiple of theirs.
    """
    if size % record_bytes:
        raise UsageError(
            f"{name} has {size} bytes, which are no whole records of {record_bytes}",
            hint="Leave it out with match=, or see whether record_bytes= is right",
        )
    return FileRecords(size // record_bytes, 0, record_bytes)


def array_rows(source: Source) -> FileRecords:
    """The rows of an ``.npy``, of which the header alone is read.

    Raises:
        UsageError: it is an array without rows, of objects, or in Fortran's order.
        IntegrityError: it is torn or no such file.
    """
    checkpoint = open_npy(source)
    if not checkpoint.tensors:
        raise UsageError(f"{source.name} has no rows to be read: {checkpoint.no_digest}")
    (tensor,) = checkpoint.tensors
    if not tensor.shape:
        raise UsageError(f"{source.name} is a single number, and has no rows")
    if tensor.strides != c_strides(tensor.shape) and len(tensor.shape) > 1:
        hint = "Save it again: `np.save(path, np.ascontiguousarray(array))`"
        raise UsageError(f"{source.name} keeps columns together, not rows (Fortran's order)", hint=hint)
    assert tensor.storage is not None
    code = _DTYPES[tensor.dtype]
    shape = tuple(tensor.shape[1:])
    nbytes = int(np.dtype(code).itemsize * np.prod(shape, dtype=np.int64))
    order = ">" if tensor.storage.swap > 1 else "<"
    return FileRecords(tensor.shape[0], tensor.storage.offset, nbytes, f"{order}{code}", shape)


@dataclass(frozen=True)
class ReadPlan:
    """Which ranges bring samples, in the order in which the samples need them.

    Attributes:
        samples: in the order in which they are given.
        files: of each.
        read: for each the number of the range that has it.
        places: where in the range it begins.
        reads: by number: file, offset, bytes, uses; shape (ranges, 4).
    """

    samples: Indices
    files: Indices
    read: Indices
    places: Indices
    reads: npt.NDArray[np.int64]

    def __iter__(self) -> Iterator[Read]:
        for row in self.reads:
            yield Read(*map(int, row))


def plan_reads(records: Records, samples: Indices, window: int) -> ReadPlan:
    """Ranges for samples: neighbours in a file that come within the same window are one range, up to `READ_BYTES`.

    Args:
        records: the samples of all files.
        samples: in the order in which they are wanted, each once.
        window: so many samples are mixed with one another and not with others; 1 where nothing is.
    """
    count = len(samples)
    nbytes = np.array([file.nbytes for file in records.files], dtype=np.int64)
    offsets = np.array([file.offset for file in records.files], dtype=np.int64)
    positions = np.arange(count, dtype=np.int64)
    windows = positions // window if window > 1 else np.zeros(count, dtype=np.int64)
    order = np.lexsort((samples, windows)) if window > 1 else positions
    sorted_samples = samples[order]
    files = records.file_of(sorted_samples)
    joins = np.zeros(count, dtype=bool)
    joins[1:] = (np.diff(sorted_samples) == 1) & (np.diff(files) == 0) & (windows[order][1:] == windows[order][:-1])
    # a long run of neighbours is cut
    run_start = np.maximum.accumulate(np.where(joins, 0, positions))
    limit = np.maximum(1, READ_BYTES // np.maximum(nbytes, 1))[files]
    starts = ~joins | ((positions - run_start) % limit == 0)
    number = np.cumsum(starts) - 1
    heads = np.flatnonzero(starts)
    uses = np.diff(np.append(heads, count))
    head_files = files[heads]
    inside = sorted_samples - records.starts[files]
    reads = np.stack(
        [head_files, offsets[head_files] + inside[heads] * nbytes[head_files], uses * nbytes[head_files], uses], axis=1
    )
    # back to the order of use, and the ranges by their first one
    read = np.empty(count, dtype=np.int64)
    places = np.empty(count, dtype=np.int64)
    file_of = np.empty(count, dtype=np.int64)
    read[order] = number
    places[order] = (positions - heads[number]) * nbytes[files]
    file_of[order] = files
    first = np.full(len(heads), count, dtype=np.int64)
    np.minimum.at(first, read, positions)
    ranks = np.argsort(first, kind="stable")
    renumbered = np.empty(len(heads), dtype=np.int64)
    renumbered[ranks] = np.arange(len(heads))
    return ReadPlan(samples, file_of, renumbered[read] if count else read, places, reads[ranks])


def refused(name: str, error: HoldfastError) -> HoldfastError:
    """The error of a file's header with the file's name in it."""
    kind = IntegrityError if isinstance(error, IntegrityError) else UsageError
    return error if name in error.message else kind(f"{name}: {error.message}", hint=error.hint)
