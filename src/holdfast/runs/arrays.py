"""Array stores: one validated, compressed array a sample, in memory that does not grow with their number.

    contract = ArrayContract("attention", (22, 15000), "float32", minimum=0, maximum=1,
                             scalars=("sampling_rate",), key="attention_map")
    with ArrayStore(run / "attention_maps", contract) as store:
        for ids, batch in loader:
            store.save_batch(ids, model.attention(batch), sampling_rate=250.0)

``docs/reference/array-store.md`` describes the folder byte by byte, and what holds after a crash.
"""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from holdfast.errors import UsageError
from holdfast.runs.array_check import VerifiedFiles, default_jobs, verify_store
from holdfast.runs.array_contract import (
    ArrayContract,
    ArrayContractError,
    ArrayDamageError,
    ArrayStoreError,
    Sample,
    Scalar,
    check_file_id,
    content_checksum,
    shown,
)
from holdfast.runs.array_files import EncodedSample, MissingLibraryError, open_format
from holdfast.runs.array_manifest import FormatSettings, read_metadata, read_state
from holdfast.runs.array_writer import ArrayWriter
from holdfast.runs.fault import Fault

__all__ = [
    "ArrayContract",
    "ArrayContractError",
    "ArrayDamageError",
    "ArrayStore",
    "ArrayStoreError",
    "MissingLibraryError",
    "Sample",
    "Scalar",
    "verify_store",
]

# smooth float32 attention maps: 6 saves 1 to 2 % over 1 and costs up to a third of the speed; see the docs' table
DEFAULT_COMPRESSION_LEVEL = 3
# a shard is held in memory until it is written: large enough for few files, small enough to lose and to hold
DEFAULT_SHARD_BYTES = 16 * 1024 * 1024
SAMPLES_IN_FLIGHT_PER_JOB = 2  # one being compressed, one waiting, so that no thread idles

_Row: TypeAlias = tuple[str, npt.ArrayLike, Mapping[str, object]]


class ArrayStore:
    """A folder of arrays that keep one contract; opened here for writing, by `open` for reading.

    Opening a folder that holds a store continues it. Where a writer was stopped in the middle, what it had begun is
    removed; saving the same samples again in the same order gives the same bytes as if it had never been stopped.

    Not closed by an exception inside ``with``: what was saved is safe, and `verify` says that the store is unfinished.
    One writer at a time, in any number of threads; readers at any time.

    Args:
        folder: made where it is missing.
        contract: what every array has to be; an existing store must have the same.
        file_format: ``"npz"``, a file a sample, or ``"hdf5"``, shards of many samples (needs h5py).
        compression_level: of deflate, 0 (none) to 9.
        shard_bytes: uncompressed array bytes from which an HDF5 shard is full; ignored for NPZ.
        jobs: threads that compress a batch; by default one a processor, at most 8.

    Raises:
        ArrayStoreError: the folder holds something else, or a store with another contract or format.
        ArrayDamageError: the existing store's manifest or metadata is damaged.
        LockedError: another writer is at work in the folder.
        MissingLibraryError: HDF5 is asked for and h5py is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        contract: ArrayContract,
        *,
        file_format: Literal["npz", "hdf5"] = "npz",
        compression_level: int = DEFAULT_COMPRESSION_LEVEL,
        shard_bytes: int = DEFAULT_SHARD_BYTES,
        jobs: int | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs is {jobs}; at least one thread is needed")
        settings = FormatSettings(file_format, compression_level, None if file_format == "npz" else shard_bytes)
        self._prepare(Path(folder), contract, settings)
        self._jobs = jobs or default_jobs()
        self._writer: ArrayWriter | None = ArrayWriter(self.folder, contract, settings, self._format)
        self._catalogue = self._writer.catalogue

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "ArrayStore":
        """Open an existing store for reading; contract and format come from its ``metadata.json``.

        Of a store that a writer is at work in, or was stopped in, what had been written by now is seen.

        Raises:
            ArrayStoreError: the folder is no store.
            ArrayDamageError: its manifest or metadata is damaged.
            MissingLibraryError: it is HDF5 and h5py is not installed.
        """
        store = cls.__new__(cls)
        metadata = read_metadata(Path(folder))
        store._prepare(Path(folder), metadata.contract, metadata.settings)
        store._writer = None
        store._catalogue = read_state(store.folder).catalogue
        return store

    def save(
        self, file_id: str, array: npt.ArrayLike, /, *, replace: bool = False, **scalars: bool | int | float | str
    ) -> None:
        """Save one array under an id.

        Saving an id again with equal content does nothing, so a stopped loop can simply run again. NPZ: on disk when
        this returns. HDF5: on disk when its shard is full, or after `flush` or `close`.

        Args:
            file_id: any non-empty string of at most 16 KiB; it need not be a file name.
            array: of the contract's shape and dtype (see `ArrayContract`).
            replace: take the place of an array saved before under this id.
            **scalars: exactly the contract's scalars.

        Raises:
            ArrayContractError: the id, the array or a scalar breaks the contract; nothing is saved.
            ArrayStoreError: the id holds other content, or the store is not open for writing.
            OSError: the disk is full or the folder gone; the store must then be opened anew.
        """
        self.save_batch([file_id], [array], replace=replace, **{name: [value] for name, value in scalars.items()})

    def save_batch(
        self,
        file_ids: Iterable[str],
        arrays: Iterable[npt.ArrayLike],
        /,
        *,
        replace: bool = False,
        **scalars: bool | int | float | str | Sequence[bool | int | float | str] | npt.NDArray[np.generic],
    ) -> None:
        """Save several arrays, compressed in parallel and written in the order given.

        The arrays may be one array with the samples along its first axis, a sequence, or a generator: at most
        ``2 × jobs`` are held at a time. Where one is refused, those before it are saved.

        Args:
            file_ids: one id an array.
            arrays: one array an id.
            replace: as in `save`.
            **scalars: the contract's scalars, each one value for the whole batch or a sequence with one a sample.

        Raises:
            UsageError: ids, arrays and scalars are not equally many.
            ArrayContractError, ArrayStoreError, OSError: as in `save`.
        """
        with self._lock:
            writer = self._writing()
            waiting: deque[Future[EncodedSample]] = deque()
            try:
                for sample in self._admitted(_aligned(file_ids, arrays, scalars), writer, replace=replace):
                    waiting.append(self._encode(sample))
                    if len(waiting) >= SAMPLES_IN_FLIGHT_PER_JOB * self._jobs:
                        self._place(waiting.popleft(), writer)
            finally:
                try:
                    # also where a sample was refused: those before it are saved
                    while waiting and not writer.has_failed:
                        self._place(waiting.popleft(), writer)
                finally:
                    self._in_flight.clear()

    def flush(self) -> None:
        """Put everything saved so far on disk (of HDF5, an unfinished shard; it is written again as it grows).

        Raises:
            OSError: the disk is full or the folder gone.
        """
        with self._lock:
            self._writing().flush()

    def close(self) -> None:
        """Write what is left, the manifest and the count, and remove the journal. Closing again does nothing.

        Raises:
            ArrayStoreError: writing had failed before; the journal stays, and opening the folder anew resumes.
            OSError: the disk is full or the folder gone.
        """
        with self._lock:
            try:
                if self._writer is not None:
                    self._writer.close()
            finally:
                self._release()

    def load(self, file_id: str) -> Sample:
        """The sample saved under an id; its file's checksum is compared before anything in it is parsed.

        Raises:
            ArrayStoreError: there is none.
            ArrayDamageError: its file is missing, corrupt or not what the manifest says.
        """
        with self._lock:
            name, position = self._place_of(file_id)
            return self._files.sample(self._catalogue.files[name], position)

    def shape(self, file_id: str) -> tuple[int, ...]:
        """The shape of the array saved under an id, as the manifest says; no array is read.

        Raises:
            ArrayStoreError: there is none.
        """
        with self._lock:
            name, position = self._place_of(file_id)
            return self._catalogue.files[name].samples[position].shape

    def file_ids(self) -> list[str]:
        """Every id in the order of the first save."""
        with self._lock:
            return [*self._catalogue.file_ids(), *self._unwritten()]

    def discard_damaged(self) -> list[str]:
        """Forget and delete every file that is missing or has another checksum than it should.

        Its samples can then be saved again; they come last in the order. Of an HDF5 shard all samples go.

        Returns:
            The ids that the store no longer holds.

        Raises:
            ArrayStoreError: the store is not open for writing.
        """
        with self._lock:
            return self._writing().discard_damaged()

    def verify(self) -> list[Fault]:
        """All that is wrong with the folder; see `verify_store`. Of a store open for writing: what is on disk now."""
        return verify_store(self.folder)

    def __len__(self) -> int:
        with self._lock:
            return len(self._catalogue) + len(self._unwritten())

    def __contains__(self, file_id: object) -> bool:
        with self._lock:
            return file_id in self._catalogue or (
                self._writer is not None and isinstance(file_id, str) and self._writer.content(file_id) is not None
            )

    def __iter__(self) -> Iterator[Sample]:
        """The samples in the order of their first save, one at a time."""
        return (self.load(file_id) for file_id in self.file_ids())

    def __enter__(self) -> "ArrayStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if kind is not None and self._writer is not None:
                self._writer.abandon()
                self._release()
            else:
                self.close()

    def _prepare(self, folder: Path, contract: ArrayContract, settings: FormatSettings) -> None:
        self.folder = folder
        self.contract = contract
        self._format = open_format(contract, settings)
        self._lock = threading.RLock()
        self._files = VerifiedFiles(folder, self._format)
        self._executor: ThreadPoolExecutor | None = None
        self._in_flight: dict[str, Future[EncodedSample]] = {}

    def _admitted(self, rows: Iterable[_Row], writer: ArrayWriter, *, replace: bool) -> Iterator[Sample]:
        for file_id, array, scalars in rows:
            check_file_id(file_id)
            settled = self.contract.settled_scalars(file_id, scalars)
            conformed = self.contract.conform(file_id, array)
            if self._jobs > 1 and np.may_share_memory(conformed, np.asarray(array)):
                conformed = conformed.copy()  # a generator may fill the same buffer again while this is compressed
            sample = Sample(file_id, conformed, settled)
            if file_id in self._in_flight:
                known: str | None = self._in_flight[file_id].result().stored.content
            else:
                known = writer.content(file_id)
            if known is not None and known == content_checksum(sample):
                continue
            if known is not None and not replace:
                raise ArrayStoreError(
                    f"{self.folder} holds {shown(file_id)} with other content",
                    hint="Save with replace=True to replace it.",
                )
            yield sample

    def _encode(self, sample: Sample) -> "Future[EncodedSample]":
        if self._jobs > 1:
            self._executor = self._executor or ThreadPoolExecutor(self._jobs, "array-store")
            future = self._executor.submit(self._format.encode, sample)
        else:
            future = Future()
            future.set_result(self._format.encode(sample))
        self._in_flight[sample.file_id] = future
        return future

    def _place(self, future: "Future[EncodedSample]", writer: ArrayWriter) -> None:
        encoded = future.result()
        if self._in_flight.get(encoded.stored.file_id) is future:
            del self._in_flight[encoded.stored.file_id]
        writer.place(encoded)

    def _place_of(self, file_id: str) -> tuple[str, int]:
        if self._writer is not None and not self._writer.has_failed:
            self._writer.flush()
        try:
            return self._catalogue.place(file_id)
        except KeyError:
            raise ArrayStoreError(f"{self.folder} holds no sample {shown(file_id)}") from None

    def _unwritten(self) -> list[str]:
        return self._writer.unwritten() if self._writer else []

    def _writing(self) -> ArrayWriter:
        if self._writer is None:
            raise ArrayStoreError(
                f"{self.folder} is not open for writing", hint="Make an ArrayStore(folder, contract) to write."
            )
        self._writer.check()
        return self._writer

    def _release(self) -> None:
        self._writer = None
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None
        self._files.close()


def _aligned(file_ids: Iterable[str], arrays: Iterable[npt.ArrayLike], scalars: Mapping[str, object]) -> Iterator[_Row]:
    """One row a sample; scalars that are sequences are dealt out, others repeated.

    Raises:
        UsageError: ids, arrays and scalars are not equally many; at once where all have a length.
    """
    if isinstance(file_ids, str):
        raise UsageError(f"file_ids is one string, {shown(file_ids)}", hint="Pass a list of ids, or call save().")
    columns: dict[str, Any] = {"file_ids": file_ids, "arrays": arrays}
    columns |= {name: value for name, value in scalars.items() if _is_column(value)}
    lengths = {name: len(column) for name, column in columns.items() if hasattr(column, "__len__")}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"a batch of unequal lengths: {', '.join(f'{name} {n}' for name, n in lengths.items())}")
    constant = {name: value for name, value in scalars.items() if name not in columns}
    names = list(columns)[2:]
    try:
        for file_id, array, *values in zip(*columns.values(), strict=True):
            yield file_id, array, {**constant, **dict(zip(names, values, strict=True))}
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise UsageError(f"a batch of unequal lengths: {error}") from None


def _is_column(value: object) -> bool:
    return not isinstance(value, str | bytes) and hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0
