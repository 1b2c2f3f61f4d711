"""A store that counts what is asked of it."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from holdfast.objectstore.store import GAP_BYTES, RANGE_JOBS, Data, ObjectInfo, ObjectStore


class CountingStore:
    """An `ObjectStore` over another one.

    Args:
        inner: does the work.

    Attributes:
        requests: calls so far; the pages of a listing, parts of an upload and merged ranges count as one.
        bytes_read: that came from it.
        bytes_written: that went to it.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.requests = self.bytes_read = self.bytes_written = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return self.inner.url

    def head(self, key: str) -> ObjectInfo:
        """What there is to know of an object."""
        self._count()
        return self.inner.head(key)

    def get(self, key: str, *, etag: str = "") -> bytes:
        """An object's bytes."""
        data = self.inner.get(key, etag=etag)
        self._count(read=len(data))
        return data

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
        """Exactly ``count`` bytes from ``offset`` on."""
        self._count(read=count)
        return self.inner.get_range(key, offset, count, etag=etag)

    def get_ranges(
        self, key: str, spans: Sequence[tuple[int, int]], *, gap_bytes: int = GAP_BYTES, jobs: int = RANGE_JOBS
    ) -> list[memoryview]:
        """The bytes of many spans."""
        self._count(read=sum(count for _, count in spans))
        return self.inner.get_ranges(key, spans, gap_bytes=gap_bytes, jobs=jobs)

    def put(self, key: str, data: Data) -> None:
        """Write or replace an object."""
        self._count(written=len(data))
        self.inner.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        """The same with the bytes of a file."""
        self._count(written=path.stat().st_size)
        self.inner.put_file(key, path)

    def put_if_absent(self, key: str, data: Data) -> bool:
        """Create an object unless it exists."""
        self._count(written=len(data))
        return self.inner.put_if_absent(key, data)

    def copy(self, source: ObjectInfo, target: str) -> None:
        """Copy an object."""
        self._count()
        self.inner.copy(source, target)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._count()
        self.inner.delete(key)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        self._count()
        self.inner.delete_many(keys)

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """The objects below a folder."""
        self._count()
        return self.inner.list_objects(prefix, after=after)

    def list_folders(self, prefix: str = "") -> list[str]:
        """The names of the folders right below a folder."""
        self._count()
        return self.inner.list_folders(prefix)

    def _count(self, read: int = 0, written: int = 0) -> None:
        with self._lock:
            self.requests += 1
            self.bytes_read += read
            self.bytes_written += written
