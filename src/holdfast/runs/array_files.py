"""The two file formats of an array store behind one interface, and the names of their files.

A format turns samples into payloads (the costly part, done in threads), payloads into the bytes of a file, and bytes
back into samples. It touches no disk: what is written when, and which bytes are trusted, is decided in `arrays`.
"""

import io
import itertools
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from blake3 import blake3

from holdfast.errors import HoldfastError
from holdfast.runs.array_contract import (
    MAX_TEXT_BYTES,
    Array,
    ArrayContract,
    ArrayContractError,
    ArrayDamageError,
    Sample,
    Scalar,
    array_bytes,
    content_checksum,
    shown,
)
from holdfast.runs.array_manifest import FormatSettings, StoredSample

# ASCII that every file system keeps as it is; "~" is not among it because it marks the names that carry a digest
SAFE_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
MAX_FILE_NAME_CHARACTERS = 200  # file systems allow 255 bytes; holdfast.atomic puts 22 more around a name
NAME_DIGEST_DIGITS = 32
# of file_id, shape or a scalar inside a file: numpy spends four bytes on a character; what is larger is not ours
MAX_SIDE_BYTES = 4 * MAX_TEXT_BYTES + 4096
MAX_SHARD_SAMPLES = 4096
MAX_CHUNK_BYTES = 2**32 - 1  # HDF5's own limit
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample ready to be put into a file: its line for the manifest, its scalars and its compressed bytes."""

    stored: StoredSample
    scalars: dict[str, Scalar]
    payload: bytes


class SampleReader(Protocol):
    """The samples of one file, read one at a time."""

    count: int

    def sample(self, position: int) -> Sample:
        """The sample at ``position``; its array is new memory.

        Raises:
            ArrayDamageError: the file does not hold what the format and the contract say.
        """

    def close(self) -> None:
        """Let go of the file."""


class ArrayFormat(Protocol):
    """What a file format does; ``encode`` may be called from several threads at once.

    ``parses_anything`` says that bytes of unknown origin may be parsed to say what is wrong with them.
    """

    parses_anything: bool

    def file_name(self, file_id: str, number: int, taken: Callable[[str], bool]) -> str:
        """The name of the store's file ``number`` (from 0), whose first sample is ``file_id``."""

    def is_full(self, samples: int, elements: int) -> bool:
        """Whether a file with this many samples, of this many array elements together, takes no more."""

    def encode(self, sample: Sample) -> EncodedSample:
        """Compress one sample, which keeps the contract.

        Raises:
            ArrayContractError: the format cannot hold an array this large.
        """

    def assemble(self, samples: Sequence[EncodedSample]) -> bytes | memoryview:
        """The bytes of a file that holds the samples in this order; the same samples give the same bytes."""

    def read(self, file: str, data: bytes) -> SampleReader:
        """Open the bytes of a file; ``file`` is its name, for messages.

        Raises:
            ArrayDamageError: these are not the bytes of such a file.
        """


class MissingLibraryError(HoldfastError):
    """The file format needs an optional library that is not installed."""


def open_format(contract: ArrayContract, settings: FormatSettings) -> ArrayFormat:
    """The format that ``settings`` names.

    Raises:
        MissingLibraryError: it needs h5py, which is not installed.
    """
    return NpzFormat(contract, settings) if settings.name == "npz" else Hdf5Format(contract, settings)


def safe_name(file_id: str) -> str:
    """A file name for any id: readable where it can be, never a path, never the same for two ids.

    Letters, digits, ``-``, ``_`` and ``.`` stay; every other byte of the UTF-8, and a ``.`` in front, becomes ``%XX``,
    so that ``urllib.parse.unquote`` gives the id back.
    """
    return "".join(
        chr(byte) if byte in SAFE_CHARACTERS and (position or byte != ord(".")) else f"%{byte:02X}"
        for position, byte in enumerate(file_id.encode())
    )


def digest_name(file_id: str, limit: int) -> str:
    """A name of at most ``limit`` characters for an id whose safe name is too long or taken.

    The safe name, cut, then ``~`` and 32 hex digits of the id's BLAKE3. ``~`` is in no safe name, so the two kinds
    never meet; the exact id is in the file and in the manifest.
    """
    digest = blake3(file_id.encode()).hexdigest(length=NAME_DIGEST_DIGITS // 2)
    return f"{safe_name(file_id)[: limit - NAME_DIGEST_DIGITS - 1]}~{digest}"


class NpzFormat:
    """One NPZ a sample: the array, ``file_id``, ``shape`` and the scalars, as ``np.savez_compressed`` writes them."""

    parses_anything = True

    def __init__(self, contract: ArrayContract, settings: FormatSettings) -> None:
        self._contract = contract
        self._level = settings.compression_level

    def file_name(self, file_id: str, number: int, taken: Callable[[str], bool]) -> str:  # noqa: ARG002 (interface)
        """``<safe id>_<name>.npz``, or with a digest where that is too long or differs from another in case alone."""
        suffix = f"_{self._contract.name}.npz"
        limit = MAX_FILE_NAME_CHARACTERS - len(suffix)
        name = safe_name(file_id)
        if len(name) > limit or taken(name + suffix):
            name = digest_name(file_id, limit)
        return name + suffix

    def is_full(self, samples: int, elements: int) -> bool:  # noqa: ARG002 (interface)
        """One sample fills a file."""
        return samples >= 1

    def encode(self, sample: Sample) -> EncodedSample:
        """Build the whole file: it holds nothing but this sample."""
        members = {
            self._contract.key: sample.array,
            "file_id": np.array(sample.file_id),
            "shape": np.array(sample.array.shape, np.int64),
            **{name: np.array(value) for name, value in sample.scalars.items()},
        }
        image = io.BytesIO()
        # zipfile dates members that it opens for writing to 1980, so that the same sample gives the same bytes;
        # force_zip64 is what numpy sets, and members over 4 GiB need it
        with zipfile.ZipFile(image, "w", zipfile.ZIP_DEFLATED, compresslevel=self._level) as archive:
            for key, value in members.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, value, allow_pickle=False)
        return EncodedSample(_stored(sample), dict(sample.scalars), image.getvalue())

    def assemble(self, samples: Sequence[EncodedSample]) -> bytes:
        """The one sample's payload is the file."""
        (sample,) = samples
        return sample.payload

    def read(self, file: str, data: bytes) -> "NpzReader":
        """Keep the bytes; they are parsed when the sample is asked for."""
        return NpzReader(self._contract, file, data)


class NpzReader:
    """The one sample of an NPZ file."""

    count = 1

    def __init__(self, contract: ArrayContract, file: str, data: bytes) -> None:
        self._contract, self._file, self._data = contract, file, data

    def sample(self, position: int) -> Sample:  # noqa: ARG002 (there is one)
        """Parse the file without ever unpickling, and check its keys and the array against the contract."""
        contract = self._contract
        with _damage_named(self._file), zipfile.ZipFile(io.BytesIO(self._data)) as archive:
            expected = [contract.key, "file_id", "shape", *contract.scalars]
            _check_keys(self._file, expected, [name.removesuffix(".npy") for name in archive.namelist()])
            array = self._member(archive, contract.key)
            side = {key: self._member(archive, key) for key in expected[1:]}
            file_id = _npy_text(side.pop("file_id"))
            shape = side.pop("shape")
            scalars = {key: _plain(value) for key, value in side.items()}
            return _checked_sample(contract, self._file, file_id, array, shape, scalars)

    def close(self) -> None:
        """Nothing is open."""

    def _member(self, archive: zipfile.ZipFile, key: str) -> Array:
        info = archive.getinfo(f"{key}.npy")
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            shape, _, dtype = NPY_HEADERS[version](stream)
            if dtype.hasobject:
                raise ArrayDamageError(f"{self._file}: {key} holds pickled objects, which are never read")
            # the header comes from the file: nothing is allocated before it agrees with the contract and the file
            if key == self._contract.key:
                problem = self._contract.shape_violation(shape)
            else:
                problem = f"{key} is too large" if info.file_size > MAX_SIDE_BYTES else None
            if problem is None and info.file_size != stream.tell() + math.prod(shape) * dtype.itemsize:
                problem = f"{key} has {info.file_size} bytes, its header says another size"
            if problem:
                raise ArrayDamageError(f"{self._file}: {problem}")
            stream.seek(0)
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array


class Hdf5Format:
    """Shards of many samples: group ``<key>``, one dataset a sample, its id, shape and scalars as attributes."""

    parses_anything = False  # libhdf5 has crashed on bytes made to hurt: only what we wrote is given to it

    def __init__(self, contract: ArrayContract, settings: FormatSettings) -> None:
        self._h5py = _load_h5py()
        self._contract = contract
        self._level = settings.compression_level
        self._shard_bytes = settings.shard_bytes or 0

    def file_name(self, file_id: str, number: int, taken: Callable[[str], bool]) -> str:  # noqa: ARG002 (interface)
        """``<name>_<number>.h5``; a later number where discarded shards left gaps."""
        names = (f"{self._contract.name}_{free:06d}.h5" for free in itertools.count(number))
        return next(name for name in names if not taken(name))

    def is_full(self, samples: int, elements: int) -> bool:
        """A shard is full at ``shard_bytes`` of uncompressed arrays, or at 4,096 samples."""
        return elements * self._contract.numpy_dtype.itemsize >= self._shard_bytes or samples >= MAX_SHARD_SAMPLES

    def encode(self, sample: Sample) -> EncodedSample:
        """Compress as HDF5's own shuffle and deflate filters do, but outside the library's global lock."""
        array = sample.array
        if array.nbytes > MAX_CHUNK_BYTES:
            raise ArrayContractError(
                f"{shown(sample.file_id)}: HDF5 holds at most 4 GiB in a chunk, the array has {array.nbytes} bytes",
                hint='Use file_format="npz".',
            )
        data = array_bytes(array)
        if not _is_chunked(array.shape):
            return EncodedSample(_stored(sample), dict(sample.scalars), data.tobytes())
        shuffled = np.ascontiguousarray(data.reshape(-1, array.itemsize).T)
        return EncodedSample(_stored(sample), dict(sample.scalars), zlib.compress(shuffled.data, self._level))

    def assemble(self, samples: Sequence[EncodedSample]) -> memoryview:
        """Put the compressed chunks into an HDF5 file in memory."""
        image = io.BytesIO()
        dtype = self._contract.numpy_dtype
        # the file format of HDF5 1.10 indexes a single chunk without a B-tree: two kilobytes less a sample
        with self._h5py.File(image, "w", libver=("v110", "v110")) as file:
            group = file.create_group(self._contract.key)
            for position, sample in enumerate(samples):
                shape, name = sample.stored.shape, _dataset_name(position)
                if _is_chunked(shape):
                    dataset = group.create_dataset(
                        name,
                        shape=shape,
                        dtype=dtype,
                        chunks=shape,
                        compression="gzip",
                        compression_opts=self._level,
                        shuffle=True,
                    )
                    dataset.id.write_direct_chunk((0,) * len(shape), sample.payload)
                else:
                    dataset = group.create_dataset(name, data=np.frombuffer(sample.payload, dtype).reshape(shape))
                file_id = sample.stored.file_id
                # HDF5 ends text at a NUL; an id that holds one is kept as opaque bytes instead
                dataset.attrs["file_id"] = np.void(file_id.encode()) if "\0" in file_id else file_id
                dataset.attrs["shape"] = np.array(shape, np.int64)
                for key, value in sample.scalars.items():
                    dataset.attrs[key] = value if isinstance(value, str) else np.array(value)
        return image.getbuffer()

    def read(self, file: str, data: bytes) -> "Hdf5Reader":
        """Open the shard in memory."""
        return Hdf5Reader(self._h5py, self._contract, file, data)


class Hdf5Reader:
    """The samples of an HDF5 shard."""

    def __init__(self, h5py: Any, contract: ArrayContract, file: str, data: bytes) -> None:
        self._h5py, self._contract, self._file = h5py, contract, file
        with _damage_named(file):
            self._handle = h5py.File(io.BytesIO(data), "r")
            _check_keys(file, [contract.key], list(self._handle.keys()))
            self._group = self._handle[contract.key]
            self.count = len(self._group)
            _check_keys(file, [_dataset_name(position) for position in range(self.count)], list(self._group.keys()))

    def sample(self, position: int) -> Sample:
        """Read one dataset, after checking that it is a plain one of the contract's dtype and shape."""
        contract, name = self._contract, _dataset_name(position)
        with _damage_named(self._file):
            link = self._group.get(name, getlink=True)
            dataset = self._group[name] if isinstance(link, self._h5py.HardLink) else None
            if not isinstance(dataset, self._h5py.Dataset) or not _is_plain(dataset):
                # links, external storage and filter plug-ins would make a reader open other files or load code
                raise ArrayDamageError(f"{self._file}: {name} is no plain dataset compressed with shuffle and deflate")
            if problem := contract.shape_violation(dataset.shape):
                raise ArrayDamageError(f"{self._file}: {name}: {problem}")
            if dataset.dtype != contract.numpy_dtype:
                raise ArrayDamageError(f"{self._file}: {name}: dtype is {dataset.dtype}, not {contract.dtype}")
            expected = ["file_id", "shape", *contract.scalars]
            _check_keys(self._file, expected, list(dataset.attrs.keys()))
            values = {key: dataset.attrs[key] for key in expected}
            file_id = values.pop("file_id")
            if isinstance(file_id, np.void):
                file_id = file_id.tobytes().decode()
            shape = values.pop("shape")
            scalars = {key: _plain(value) for key, value in values.items()}
            return _checked_sample(contract, self._file, file_id, np.array(dataset[()]), shape, scalars)

    def close(self) -> None:
        """Close the HDF5 file."""
        self._handle.close()


def _stored(sample: Sample) -> StoredSample:
    return StoredSample(sample.file_id, sample.array.shape, content_checksum(sample))


def _checked_sample(
    contract: ArrayContract, file: str, file_id: object, array: Array, shape: Any, scalars: dict[str, Any]
) -> Sample:
    problem = contract.violation(array)
    if problem is None and tuple(shape.tolist()) != array.shape:
        problem = f"its shape says {tuple(shape.tolist())}, {contract.key} has {array.shape}"
    if problem is None and not isinstance(file_id, str):
        problem = f"its file_id is {shown(file_id)}"
    for name, value in scalars.items():
        if problem is None and not isinstance(value, bool | int | float | str):
            problem = f"its {name} is {shown(value)}"
    if problem:
        raise ArrayDamageError(f"{file}: {problem}")
    return Sample(str(file_id), array, scalars)


def _check_keys(file: str, expected: list[str], found: list[str]) -> None:
    if sorted(found) != sorted(expected):
        missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        detail = [f"lacks {', '.join(missing[:5])}"] * bool(missing) + [f"holds {', '.join(unknown[:5])}"] * bool(
            unknown
        )
        raise ArrayDamageError(
            f"{file}: its keys are not the contract's: it {' and '.join(detail) or 'holds one twice'}"
        )


@contextmanager
def _damage_named(file: str) -> Iterator[None]:
    try:
        yield
    except (HoldfastError, MemoryError):
        raise
    except Exception as error:  # bytes made to hurt bring nearly any exception out of zipfile, numpy and h5py
        raise ArrayDamageError(f"{file}: it cannot be read: {type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _npy_text(array: Array) -> str | None:
    # not item(): numpy drops NUL characters at the end of a string, and an id may end in one
    is_text = array.ndim == 0 and array.dtype.kind == "U"
    return array.astype(array.dtype.newbyteorder("<")).tobytes().decode("utf-32-le") if is_text else None


def _is_chunked(shape: tuple[int, ...]) -> bool:
    return len(shape) > 0 and math.prod(shape) > 0  # HDF5 chunks neither single values nor empty arrays


def _is_plain(dataset: Any) -> bool:
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    deflate, shuffle = 1, 2  # the numbers HDF5 gives its filters
    return dataset.external is None and not dataset.is_virtual and set(filters) <= {deflate, shuffle}


def _dataset_name(position: int) -> str:
    return f"{position:06d}"


def _load_h5py() -> Any:
    try:
        import h5py  # in an extra, and slow to import: only stores that use it pay
    except ImportError:
        raise MissingLibraryError(
            "the HDF5 format needs h5py, which is not installed", hint="pip install 'holdfast[train]'"
        ) from None
    return h5py
