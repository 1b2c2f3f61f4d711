"""Tables in one object: columns of numbers, of ids and of text, each compressed by itself, all under one checksum.

Segments of the index, the footers of packs and condemned generations are written so. The same tables give the same
bytes. Nothing is used, nor allocated for, before the checksum has been compared and the declared sizes are bounded by
what is there.

==========  ==========================================================================================================
bytes       meaning
==========  ==========================================================================================================
4           `MAGIC`, whose last byte is the version of the format
4           length of the header's frame, unsigned, little-endian
…           header: a zstd frame of canonical JSON
…           the columns' zstd frames, back to back, in the order of the header
32          BLAKE3 of all of the above
==========  ==========================================================================================================

The header is ``{"kind": text, "tables": [[name, rows, columns], …]}``. A column is ``[name, type, length]`` with the
type ``u1``, ``u2``, ``u4`` or ``u8`` (unsigned, little-endian) or ``x16`` or ``x32`` (so many bytes a row), and the
length of its frame; or ``[name, "text", length, length, bytes]``: a frame of the texts' lengths as ``u4``, one of the
texts themselves in UTF-8, and how many bytes these have. A column or table that a reader does not know is passed over.
"""

import json
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard
from blake3 import blake3

from holdfast.errors import IntegrityError

Array: TypeAlias = npt.NDArray[Any]
Column: TypeAlias = Array | Sequence[str]

MAGIC = b"HFT\x01"
CHECK_BYTES = 32
MAX_HEADER_BYTES = 1 << 20
MAX_ROWS = 1 << 31
MAX_TABLES, MAX_COLUMNS = 64, 64
# what all columns may have together: this, and so many bytes for each that is stored
FREE_BYTES, MAX_RATIO, MAX_PLAIN_BYTES = 64 << 20, 1024, 1 << 34
LEVEL = 3

_NUMBERS: "dict[str, np.dtype[Any]]" = {
    "u1": np.dtype("<u1"),
    "u2": np.dtype("<u2"),
    "u4": np.dtype("<u4"),
    "u8": np.dtype("<u8"),
}
_FIXED = {"x16": 16, "x32": 32}
_TEXT = "text"
_HEAD = struct.Struct("<4sI")
# a decompressor takes ten times as long to make as a small frame to read, and is for one thread
_threads = threading.local()


class DamagedTableError(IntegrityError):
    """Tables are not what was written."""


@dataclass(frozen=True)
class _Stored:
    """Where a column is: its type, its frames' places, and how many bytes each holds."""

    kind: str
    frames: tuple[tuple[int, int, int], ...]


def write_tables(kind: str, tables: Mapping[str, Mapping[str, Column]]) -> bytes:
    """Tables as bytes.

    Args:
        kind: what they are; a reader asks for it.
        tables: by name; of each its columns by name, all with as many rows: unsigned numbers of shape (rows,), ids as
            uint8 of shape (rows, 16) or (rows, 32), or texts.

    Raises:
        ValueError: columns of one table with different numbers of rows, an array of another type, too many rows, or so
            many bytes that no reader would take them.
    """
    frames: list[bytes] = []
    listed, plain = [], 0
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
    for name, columns in tables.items():
        described: list[list[Any]] = []
        rows = {len(column) for column in columns.values()}
        if len(rows) > 1 or max(rows, default=0) > MAX_ROWS:
            raise ValueError(f"the columns of {name} have {sorted(rows)} rows")
        for title, column in columns.items():
            form, parts = _column(column)
            packed = [compressor.compress(part) for part in parts]
            frames += packed
            plain += sum(map(len, parts))
            length = [len(parts[1])] if form == _TEXT else []
            described.append([title, form, *map(len, packed), *length])
        listed.append([name, rows.pop() if rows else 0, described])
    text = json.dumps({"kind": kind, "tables": listed}, sort_keys=True, separators=(",", ":")).encode()
    header = compressor.compress(text)
    data = b"".join([_HEAD.pack(MAGIC, len(header)), header, *frames])
    if plain > _limit(len(data) + CHECK_BYTES) or len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"{plain} bytes in {len(data)} are more than a reader takes")
    return data + _digest(data)


class Tables:
    """Tables that were read; a column is decompressed when it is asked for.

    Args:
        data: what `write_tables` returned.
        kind: what they should be.
        what: what to call them in errors.

    Raises:
        DamagedTableError: they are not what was written, or of another kind or version.
    """

    def __init__(self, data: bytes | memoryview, kind: str, what: str) -> None:
        self.what = what
        self._data = memoryview(data)
        self._tables: dict[str, tuple[int, dict[str, _Stored]]] = {}
        body = len(self._data) - CHECK_BYTES
        if body < _HEAD.size:
            raise self.damage(f"it has only {len(self._data)} bytes")
        magic, length = _HEAD.unpack_from(self._data)
        if magic != MAGIC:
            raise self.damage("its first bytes are not those of the format that this version reads")
        if _digest(self._data[:body]) != self._data[body:]:
            raise self.damage("its checksum does not match")
        if length > body - _HEAD.size:
            raise self.damage("its header is longer than itself")
        self._read_header(self._header(length), kind, _HEAD.size + length, body)

    def rows(self, table: str) -> int:
        """How many rows a table has; none where it is not there."""
        return self._tables[table][0] if table in self._tables else 0

    def numbers(self, table: str, column: str) -> Array:
        """A column of unsigned numbers, of shape (rows,), not to be written to.

        Raises:
            DamagedTableError: there is no such column, or its content is not what was declared.
        """
        stored = self._stored(table, column)
        if stored.kind not in _NUMBERS:
            raise self.damage(f"{table}.{column} is of type {stored.kind}, where numbers are wanted")
        return np.frombuffer(self._frame(stored.frames[0]), _NUMBERS[stored.kind])

    def ids(self, table: str, column: str) -> Array:
        """A column of ids: uint8 of shape (rows, 16) or (rows, 32), not to be written to.

        Raises:
            DamagedTableError: as of `numbers`.
        """
        stored = self._stored(table, column)
        if stored.kind not in _FIXED:
            raise self.damage(f"{table}.{column} is of type {stored.kind}, where ids are wanted")
        return np.frombuffer(self._frame(stored.frames[0]), np.uint8).reshape(-1, _FIXED[stored.kind])

    def texts(self, table: str, column: str) -> list[str]:
        """A column of texts.

        Raises:
            DamagedTableError: as of `numbers`.
        """
        stored = self._stored(table, column)
        if stored.kind != _TEXT:
            raise self.damage(f"{table}.{column} is of type {stored.kind}, where text is wanted")
        lengths = np.frombuffer(self._frame(stored.frames[0]), "<u4")
        data = self._frame(stored.frames[1])
        if int(lengths.sum(dtype=np.uint64)) != len(data):
            raise self.damage(f"the texts of {table}.{column} do not have the lengths that it declares")
        ends = list(accumulate(lengths.tolist(), initial=0))
        try:
            whole = data.decode()
            if len(whole) == len(data):  # ASCII: cut at once
                return [whole[start:end] for start, end in pairwise(ends)]
            return [data[start:end].decode() for start, end in pairwise(ends)]
        except UnicodeDecodeError as error:
            raise self.damage(f"{table}.{column} is no UTF-8") from error

    def damage(self, reason: str) -> DamagedTableError:
        """The error to raise, with the reason."""
        return DamagedTableError(f"{self.what} is damaged: {reason}")

    def _header(self, length: int) -> Any:
        frame = self._data[_HEAD.size : _HEAD.size + length]
        try:
            return json.loads(_decompress(frame, None, MAX_HEADER_BYTES))
        except (ValueError, RecursionError, zstandard.ZstdError) as error:
            raise self.damage(f"its header cannot be read: {error}") from error

    def _read_header(self, header: Any, kind: str, place: int, end: int) -> None:
        try:
            if header["kind"] != kind:
                raise self.damage(f"it is a {header['kind']!r:.40}, and a {kind!r} is wanted")
            plain = 0
            if len(header["tables"]) > MAX_TABLES:
                raise ValueError("too many tables")
            for name, rows, columns in header["tables"]:
                if not 0 <= _whole(rows) <= MAX_ROWS or len(columns) > MAX_COLUMNS:
                    raise ValueError(f"{rows} rows, {len(columns)} columns")
                found: dict[str, _Stored] = {}
                for title, form, *lengths in columns:
                    sizes = _plain_sizes(form, rows, lengths)
                    frames = []
                    for size, length in zip(sizes, lengths, strict=False):
                        frames.append((place, _whole(length), size))
                        place += length
                        plain += size
                    found[title] = _Stored(form, tuple(frames))
                self._tables[name] = (rows, found)
        except (KeyError, TypeError, ValueError) as error:
            raise self.damage(f"its header is none: {error}") from error
        if place != end:
            raise self.damage(f"its columns end at byte {place} instead of {end}")
        if plain > _limit(len(self._data)):
            raise self.damage(f"it declares {plain} bytes in {len(self._data)}")

    def _stored(self, table: str, column: str) -> _Stored:
        try:
            return self._tables[table][1][column]
        except KeyError:
            raise self.damage(f"it has no column {table}.{column}") from None

    def _frame(self, frame: tuple[int, int, int]) -> bytes:
        place, length, size = frame
        try:
            return _decompress(self._data[place : place + length], size, size)
        except (ValueError, zstandard.ZstdError) as error:
            raise self.damage(f"a column cannot be decompressed: {error}") from error


def id_column(ids: Sequence[bytes], width: int = 32) -> Array:
    """Ids of that many bytes as a column."""
    return np.frombuffer(b"".join(ids), np.uint8).reshape(len(ids), width)


def _column(column: Column) -> tuple[str, list[bytes]]:
    if not isinstance(column, np.ndarray):
        encoded = [text.encode() for text in column]
        lengths = np.fromiter(map(len, encoded), "<u4", len(encoded))
        return _TEXT, [lengths.tobytes(), b"".join(encoded)]
    if column.ndim == 2 and column.dtype == np.uint8 and f"x{column.shape[1]}" in _FIXED:
        return f"x{column.shape[1]}", [column.tobytes()]
    form = f"u{column.dtype.itemsize}"
    if column.ndim != 1 or column.dtype.kind != "u" or form not in _NUMBERS:
        raise ValueError(f"no column: {column.dtype} of shape {column.shape}")
    return form, [column.astype(_NUMBERS[form], copy=False).tobytes()]


def _plain_sizes(form: str, rows: int, lengths: Sequence[Any]) -> list[int]:
    """How many bytes a column's frames hold."""
    if form == _TEXT:
        if len(lengths) != 3 or _whole(lengths[2]) < 0:
            raise ValueError("a column of text needs two frames")
        return [4 * rows, lengths[2]]
    if len(lengths) != 1:
        raise ValueError(f"a column of {form} needs one frame")
    return [rows * (_FIXED[form] if form in _FIXED else _NUMBERS[form].itemsize)]


def _decompress(frame: memoryview, size: int | None, limit: int) -> bytes:
    """A frame's content; the size that it declares is compared before anything is allocated."""
    declared = zstandard.frame_content_size(frame)
    if not 0 <= declared <= limit or (size is not None and declared != size):
        raise ValueError(f"a frame declares {declared} bytes")
    if not hasattr(_threads, "decompressor"):
        _threads.decompressor = zstandard.ZstdDecompressor()
    data: bytes = _threads.decompressor.decompress(frame, max_output_size=max(limit, 1), allow_extra_data=False)
    if len(data) != declared:
        raise ValueError(f"a frame has {len(data)} bytes instead of {declared}")
    return data


def _limit(stored: int) -> int:
    return min(FREE_BYTES + MAX_RATIO * stored, MAX_PLAIN_BYTES)


def _whole(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError(f"{number!r:.40} is no number of bytes or rows")
    return number


def _digest(data: bytes | memoryview) -> bytes:
    return blake3(data, max_threads=blake3.AUTO if len(data) > 1 << 20 else 1).digest()
