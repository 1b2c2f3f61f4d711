"""Where the bytes of a checkpoint come from: a file, memory, or anything that reads ranges.

A format module asks for headers and for what the caller wants of the tensors, never for the whole file. Whatever has
`Source`'s three members can be opened, an object of a bucket too.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from holdfast.errors import HoldfastError, IntegrityError

READ_BYTES = 4 * 1024 * 1024
MAX_SIBLINGS = 256  # descriptors are few, and no model that we know is in more files
WINDOW_BYTES = 64 * 1024  # what a cursor fetches at once: headers and pickles are small


class NotAFileError(HoldfastError):
    """The path is a folder, a device or a pipe."""


class Source(Protocol):
    """Bytes that can be read from anywhere in them."""

    @property
    def name(self) -> str:
        """What to call it in errors."""

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def read(self, offset: int, count: int) -> bytes:
        """The ``count`` bytes from ``offset`` on, fewer at the end."""

    def sibling(self, name: str) -> "Source":
        """The source that lies beside this one under a relative name, for weights kept in files of their own.

        Raises:
            IntegrityError: it is not there, or its name leads elsewhere.
        """


@dataclass(frozen=True)
class MemorySource:
    """A source over bytes in memory; it has no siblings."""

    data: bytes
    name: str = "memory"

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        """The ``count`` bytes from ``offset`` on, fewer at the end."""
        return self.data[offset : offset + count]

    def sibling(self, name: str) -> Source:
        """None is there.

        Raises:
            IntegrityError: always.
        """
        raise IntegrityError(f"{self.name} keeps weights in {name!r}, which cannot be read from memory")


class FileSource:
    """A source over a file, read with ``pread``: never mapped, so that one cut short under us is an error, no signal.

    Args:
        path: the file; opened at once, closed by `close` or at the end of a ``with``.

    Raises:
        OSError: it cannot be opened.
        NotAFileError: it is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # O_NONBLOCK: opening a pipe would wait for its writer
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._siblings: dict[str, FileSource] = {}
        self.status = os.fstat(self._descriptor)
        if not stat.S_ISREG(self.status.st_mode):
            os.close(self._descriptor)
            raise NotAFileError(f"{path} is not a file")

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """The length in bytes when it was opened."""
        return self.status.st_size

    def read(self, offset: int, count: int) -> bytes:
        """The ``count`` bytes from ``offset`` on, fewer at the end."""
        return os.pread(self._descriptor, count, offset)

    def sibling(self, name: str) -> Source:
        """The file of that name below this one's folder.

        Raises:
            IntegrityError: it is not there, or its name leads out of the folder.
        """
        if name not in self._siblings:
            folder = self.path.parent.resolve()
            try:
                place = (folder / name).resolve()
                inside = not Path(name).is_absolute() and place.is_relative_to(folder)
                if inside and len(self._siblings) < MAX_SIBLINGS:
                    self._siblings[name] = FileSource(place)
            except (OSError, ValueError, RuntimeError, HoldfastError) as error:
                raise IntegrityError(f"{self.path} keeps weights in {name!r}, which cannot be read: {error}") from error
            if name not in self._siblings:
                raise IntegrityError(f"{self.path} keeps weights in {name!r}, which lies outside of its folder")
        return self._siblings[name]

    def close(self) -> None:
        """Close the file and its siblings."""
        for source in self._siblings.values():
            source.close()
        self._siblings.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "FileSource":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_exactly(source: Source, offset: int, count: int) -> bytes:
    """``count`` bytes from ``offset`` on.

    Raises:
        IntegrityError: the source ends before.
    """
    if offset < 0 or count < 0 or offset + count > source.size:
        raise IntegrityError(f"{source.name} is torn: bytes {offset} to {offset + count} of {source.size} are wanted")
    data = source.read(offset, count)
    while len(data) < count:  # a signal or a network may cut a read short
        more = source.read(offset + len(data), count - len(data))
        if not more:
            raise IntegrityError(f"{source.name} ended at byte {offset + len(data)}: it is being changed")
        data += more
    return data


def chunks(source: Source, offset: int, count: int, chunk_bytes: int = READ_BYTES) -> Iterator[bytes]:
    """The bytes of a span in pieces of at most ``chunk_bytes``.

    Raises:
        IntegrityError: the source ends before.
    """
    end = offset + count
    while offset < end:
        data = read_exactly(source, offset, min(chunk_bytes, end - offset))
        offset += len(data)
        yield data


class Cursor:
    """Reads a span from front to back through a small window, and never past its end.

    Args:
        source: what is read.
        position: the span's first byte.
        end: the byte behind its last.
    """

    def __init__(self, source: Source, position: int, end: int) -> None:
        self.source = source
        self.end = min(end, source.size)
        self._start = position
        self._window = b""
        self._at = 0

    @property
    def position(self) -> int:
        """The next byte's place in the source."""
        return self._start + self._at

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return self.end - self.position

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            EOFError: the span ends before.
        """
        at = self._at
        if at + count <= len(self._window):
            self._at = at + count
            return self._window[at : at + count]
        if count > self.left:
            raise EOFError(f"it ends at byte {self.end}, where {count} bytes from {self.position} on are wanted")
        self._fill(count)
        self._at = count
        return self._window[:count]

    def byte(self) -> int:
        """The next byte as a number.

        Raises:
            EOFError: there is none.
        """
        if self._at >= len(self._window):
            if self.left <= 0:
                raise EOFError(f"it ends at byte {self.end}")
            self._fill(1)
        self._at += 1
        return self._window[self._at - 1]

    def line(self, limit: int) -> bytes:
        """What comes before the next newline, which is passed over.

        Raises:
            EOFError: there is no newline within ``limit`` bytes.
        """
        if self._window.find(b"\n", self._at) < 0:
            self._fill(min(limit, self.left))
        place = self._window.find(b"\n", self._at, self._at + limit)
        if place < 0:
            raise EOFError(f"a line that starts at byte {self.position} has no end")
        line = self._window[self._at : place]
        self._at = place + 1
        return line

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes unread.

        Raises:
            EOFError: the span ends before.
        """
        if count > self.left:
            raise EOFError(f"it ends at byte {self.end}, where {count} bytes from {self.position} on are wanted")
        if self._at + count <= len(self._window):
            self._at += count
        else:
            self._start, self._window, self._at = self.position + count, b"", 0

    def _fill(self, count: int) -> None:
        start = self.position
        self._window = read_exactly(self.source, start, max(0, min(max(count, WINDOW_BYTES), self.end - start)))
        self._start, self._at = start, 0
