"""Checked reading of an array store, and the list of all that is wrong with one."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.formats.digest import content_digest
from holdfast.runs.array_contract import ArrayDamageError, Sample, content_checksum, shown
from holdfast.runs.array_files import ArrayFormat, SampleReader, open_format
from holdfast.runs.array_manifest import (
    JOURNAL,
    MANIFEST,
    METADATA,
    TEMPORARY,
    StoredFile,
    StoreState,
    leftovers,
    read_metadata,
    read_state,
)
from holdfast.runs.fault import Fault

MAX_DEFAULT_JOBS = 8


def default_jobs() -> int:
    """Threads for work that a caller did not bound: one a processor, at most 8."""
    return min(MAX_DEFAULT_JOBS, os.cpu_count() or 1)


def verify_store(folder: str | os.PathLike[str], *, jobs: int | None = None) -> list[Fault]:
    """All that is wrong with the array store in ``folder``; an empty list means that every sample is as it was saved.

    Looks for missing and extra files, checksums and counts that differ, a damaged manifest or journal, an unfinished
    writer, and in each file for other keys, ids, shapes, dtypes and values than manifest and contract say, and for
    pickled objects, which are never read. A store whose writer was stopped has exactly one fault for that, named after
    the one file that the writer was at, or after the journal where it was between two files. Changes nothing.

    Args:
        folder: a store's folder.
        jobs: threads; by default one a processor, at most 8.

    Raises:
        ArrayStoreError: the folder is no store, or one of a later version.
        MissingLibraryError: it is HDF5 and h5py is not installed.
        OSError: the folder cannot be read.
    """
    path = Path(folder)
    try:
        metadata = read_metadata(path)
    except ArrayDamageError as error:
        return [Fault(METADATA, error.message)]
    fmt = open_format(metadata.contract, metadata.settings)
    try:
        state = read_state(path)
    except ArrayDamageError as error:
        return [Fault(JOURNAL if JOURNAL in error.message else MANIFEST, error.message)]
    faults = list(_folder_faults(path, state))
    count = len(state.catalogue)
    if state.unfinished is None and metadata.count != count:
        faults.append(Fault(METADATA, f"its count is {metadata.count}, the manifest names {count} samples"))
    with ThreadPoolExecutor(jobs or default_jobs()) as pool:
        for found in pool.map(partial(_file_faults, path, fmt), state.catalogue.files.values()):
            faults += found
    return faults


class VerifiedFiles:
    """Samples out of a store's files, each file's checksum compared before anything in it is parsed.

    Keeps the last file open, and its bytes in memory, so that samples of one shard in a row read it once.
    """

    def __init__(self, folder: Path, fmt: ArrayFormat) -> None:
        self._folder, self._format = folder, fmt
        self._open: tuple[StoredFile, SampleReader] | None = None

    def sample(self, file: StoredFile, position: int) -> Sample:
        """The sample at ``position``, compared with what the manifest says of it.

        Raises:
            ArrayDamageError: the file is missing, changed, breaks the contract or differs from the manifest.
        """
        if self._open is None or self._open[0] is not file:
            self.close()
            path = self._folder / file.name
            data = _read(path)
            if _checksum(data) != file.checksum:
                raise ArrayDamageError(f"{path} has another checksum than the manifest says", hint=_WAY_OUT)
            self._open = (file, self._format.read(file.name, data))
        return read_sample(self._open[1], file, position)

    def close(self) -> None:
        """Let go of the open file."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def read_sample(reader: SampleReader, file: StoredFile, position: int) -> Sample:
    """The sample at ``position``, compared with what the manifest says of it.

    Raises:
        ArrayDamageError: it breaks the contract or differs from the manifest.
    """
    stored = file.samples[position]
    if reader.count != len(file.samples):
        raise ArrayDamageError(f"{file.name}: it holds {reader.count} samples, the manifest says {len(file.samples)}")
    sample = reader.sample(position)
    if sample.file_id != stored.file_id:
        raise ArrayDamageError(
            f"{file.name}: it holds the sample {shown(sample.file_id)}, the manifest says {shown(stored.file_id)}"
        )
    if sample.array.shape != stored.shape:
        raise ArrayDamageError(f"{file.name}: shape is {sample.array.shape}, the manifest says {stored.shape}")
    if content_checksum(sample) != stored.content:
        raise ArrayDamageError(f"{file.name}: the content of {shown(stored.file_id)} is not what the manifest says")
    return sample


_WAY_OUT = "Open the store for writing, call discard_damaged() and save again the ids that it returns."


def _folder_faults(folder: Path, state: StoreState) -> Iterator[Fault]:
    begun = [path.name for path in leftovers(folder)]
    if state.unfinished is not None:
        at = state.unfinished or next((_final_name(name) for name in begun), JOURNAL)
        begun = [name for name in begun if _final_name(name) != at]
        torn = ", and the last line of its journal is torn" if state.torn else ""
        problem = f"unfinished: a writer is at work or was stopped{torn}"
        yield Fault(at, f"{problem}; open the store for writing and save what is missing")
    for name in begun:
        yield Fault(name, "left by a stopped writer; opening the store for writing removes it")
    known = {METADATA, MANIFEST, JOURNAL, *begun, *state.catalogue.files}
    for path in sorted(folder.iterdir()):
        if path.name not in known and not TEMPORARY.fullmatch(path.name):
            what = "a folder" if path.is_dir() else "an extra file"
            yield Fault(path.name, f"{what} that the manifest does not name")


def _file_faults(folder: Path, fmt: ArrayFormat, file: StoredFile) -> list[Fault]:
    try:
        data = _read(folder / file.name)
        changed = _checksum(data) != file.checksum
        if changed and not fmt.parses_anything:
            return [Fault(file.name, "its checksum is not the manifest's")]
        reader = fmt.read(file.name, data)
    except (HoldfastError, OSError) as error:
        return [_fault(file, error)]
    try:
        problems = []
        for position in range(len(file.samples)):
            try:
                read_sample(reader, file, position)
            except ArrayDamageError as error:
                problems.append(_fault(file, error).problem)
    finally:
        reader.close()
    if changed:
        return [Fault(file.name, "; ".join(["its checksum is not the manifest's", *problems[:1]]))]
    return [Fault(file.name, problem) for problem in problems]


def _fault(file: StoredFile, error: HoldfastError | OSError) -> Fault:
    problem = error.message if isinstance(error, HoldfastError) else f"cannot be read: {error.strerror}"
    return Fault(file.name, problem.removeprefix(f"{file.name}: "))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ArrayDamageError(f"{path.name}: it is missing from {path.parent}", hint=_WAY_OUT) from None


def _checksum(data: bytes) -> str:
    return f"blake3:{content_digest(data).hex()}"


def _final_name(temporary: str) -> str:
    match = TEMPORARY.fullmatch(temporary)
    return match["name"] if match else temporary
