"""The bytes of an object, read in blocks as they are asked for, all of one state of it."""

import threading
from collections import OrderedDict

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.store import ObjectInfo, ObjectStore

BLOCK_BYTES = 64 * 1024  # what a first read fetches: the header of most files
MAX_BLOCK_BYTES = 1024 * 1024  # what reading on from there grows to
SLACK_BYTES = 4 * 1024  # more than is asked for: parsers step back and forth over what they have read
CACHED_BYTES = 16 * 1024 * 1024
MAX_SIBLINGS = 256  # as of files: no model that we know is in more


class ObjectSource:
    """An object as a source of bytes (`holdfast.formats.source.Source`).

    A small read fetches a block of 64 KiB; a block that goes on behind the one before is twice as long, up to 1 MiB.
    Blocks are kept, 16 MiB of them, those that were not read for longest given up first. Reads of more than 1 MiB are
    passed on as they are. May be read from many threads at once.

    Args:
        store: where the object is.
        key: its name there.
        info: what a listing said of it; asked for where it is None.

    Attributes:
        requests: how often the store was asked, `head` included.
        bytes_read: how many bytes came.

    Raises:
        StoreError: it is not there, or cannot be reached.
    """

    def __init__(self, store: ObjectStore, key: str, info: ObjectInfo | None = None) -> None:
        self.store = store
        self.requests = 0 if info else 1
        self.bytes_read = 0
        self.info = info or store.head(key)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._cached = 0
        self._last = (-1, BLOCK_BYTES)
        self._siblings: dict[str, ObjectSource] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The object's URL."""
        url = self.store.url
        return f"{url}{'' if url.endswith('/') else '/'}{self.info.key}"

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self.info.size

    def read(self, offset: int, count: int) -> bytes:
        """The ``count`` bytes from ``offset`` on, fewer at the end.

        Raises:
            ChangedError: the object was replaced since it was opened.
            StoreError: it cannot be reached.
        """
        end = min(offset + count, self.size)
        if offset >= end:
            return b""
        with self._lock:
            for start, block in self._blocks.items():
                if start <= offset and end <= start + len(block):
                    self._blocks.move_to_end(start)
                    return block[offset - start : end - start]
            length = self._block_bytes(offset)
        if end - offset > MAX_BLOCK_BYTES:
            return self._fetch(offset, end - offset)
        block = self._fetch(offset, min(max(length, end - offset + SLACK_BYTES), self.size - offset))
        with self._lock:
            self._keep(offset, block)
            self._last = (offset, length)
        return block[: end - offset]

    def sibling(self, name: str) -> "ObjectSource":
        """The object of that name below this one's folder.

        Raises:
            IntegrityError: it is not there, or its name leads elsewhere.
        """
        if name not in self._siblings:
            folder = self.info.key.rpartition("/")[0]
            try:
                if len(self._siblings) >= MAX_SIBLINGS:
                    raise IntegrityError(f"it is in more than {MAX_SIBLINGS} objects")
                self._siblings[name] = ObjectSource(self.store, f"{folder}/{name}" if folder else name)
            except HoldfastError as error:
                text = f"{self.name} keeps weights in {name!r}, which cannot be read: {error.message}"
                raise IntegrityError(text) from error
        return self._siblings[name]

    def _block_bytes(self, offset: int) -> int:
        start, length = self._last
        goes_on = 0 <= start < offset <= start + len(self._blocks.get(start, b""))
        return min(2 * length, MAX_BLOCK_BYTES) if goes_on else BLOCK_BYTES

    def _fetch(self, offset: int, count: int) -> bytes:
        data = self.store.get_range(self.info.key, offset, count, etag=self.info.etag)
        with self._lock:
            self.requests += 1
            self.bytes_read += len(data)
        return data

    def _keep(self, start: int, block: bytes) -> None:
        self._cached += len(block) - len(self._blocks.pop(start, b""))
        self._blocks[start] = block
        while self._cached > CACHED_BYTES:
            _, oldest = self._blocks.popitem(last=False)
            self._cached -= len(oldest)
