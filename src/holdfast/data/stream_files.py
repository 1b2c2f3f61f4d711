"""Files that samples come from, and the places that have their bytes.

A place can be sent to another process: it is opened where it is used, because what is open cannot be.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.location import locate
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.cache import object_name
from holdfast.repo.dvcfiles import MD5

# one request brings so much of a file at most; of a longer one several do at the same time
PART_BYTES = 16 * 2**20
SPLIT_BYTES = 2 * PART_BYTES
PART_JOBS = 4


class MissingSampleError(HoldfastError):
    """A file of a stream is nowhere."""


class CorruptSampleError(IntegrityError):
    """The bytes of a file are not those that its checksum names, also when they are fetched again."""


class StreamFile(NamedTuple):
    """A file that samples come from; no dataclass, since there may be a million.

    Attributes:
        name: what samples are called after.
        supply: which of a stream's supplies has it.
        key: its name there: of what DVC tracks the md5.
        about: bytes, as far as is known without asking.
        size: bytes; None where nobody has said so.
        etag: of the state that is meant; empty where there is none.
        checksum: ``md5:…``, ``sha256:…`` or ``blake3:…`` of its bytes; empty where none is known.
    """

    name: str
    supply: int
    key: str
    about: int
    size: int | None = None
    etag: str = ""
    checksum: str = ""


class OpenPlace(Protocol):
    """A place that is open, in the process that opened it; used by many threads at once.

    Raises, in every method:
        ObjectNotFoundError: it does not have the file.
        ChangedError: the object is no longer the one that is meant.
        HoldfastError: it cannot be read.
    """

    def size(self, file: StreamFile) -> int:
        """The bytes of a file."""

    def read(self, file: StreamFile) -> bytes:
        """All of a file."""

    def read_range(self, file: StreamFile, offset: int, count: int) -> bytes:
        """Exactly ``count`` bytes of a file from ``offset`` on."""


class Place(Protocol):
    """Where files may be. Can be pickled; its credentials go with it, and are never shown."""

    @property
    def url(self) -> str:
        """Where it is, for messages."""

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine, so that nothing is gained by keeping a copy of what it has."""

    def open(self, keys: Collection[str], retry: Retry) -> OpenPlace | None:
        """Open it; None where there is nothing.

        Args:
            keys: all that may be asked for.
            retry: when to ask a server again.

        Raises:
            HoldfastError: it cannot be reached.
        """


@dataclass(frozen=True)
class Supply:
    """Where the files of one kind come from.

    Attributes:
        places: asked in this order.
        cache: DVC's cache, which is looked into first; None for files that DVC does not track.
        remedy: what to do where a file is nowhere.
    """

    places: tuple[Place, ...]
    cache: Path | None = None
    remedy: str = ""

    @property
    def local(self) -> bool:
        """Whether no server is asked."""
        return all(place.local for place in self.places)

    def cached(self, file: StreamFile) -> Path | None:
        """Where DVC's cache would have a file."""
        return None if self.cache is None else Path(object_name(str(self.cache), MD5, file.key))

    def told(self) -> str:
        """The places, for messages."""
        names = [*(["DVC's cache"] if self.cache else []), *(place.url for place in self.places)]
        return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "any place"


@dataclass(frozen=True)
class BucketPlace:
    """A bucket or folder in which files have their own names, or a DVC remote.

    Attributes:
        url: of the store that keys are relative to.
        options: how it is reached.
        remote: whether it is a DVC remote, whose keys are made of md5s.
    """

    url: str
    options: StoreOptions = field(default_factory=StoreOptions, repr=False)
    remote: bool = False

    @property
    def local(self) -> bool:
        """Whether it is a folder."""
        return locate(self.url).scheme == "file"

    def open(self, keys: Collection[str], retry: Retry) -> OpenPlace:  # noqa: ARG002 - a place's form
        """The store, opened; nothing is asked of a server yet."""
        return _OpenBucket(open_store(self.url, self.options, retry=retry), self.remote)


@dataclass(frozen=True)
class _OpenBucket:
    store: ObjectStore
    remote: bool

    def size(self, file: StreamFile) -> int:
        return self.store.head(self._key(file)).size

    def read(self, file: StreamFile) -> bytes:
        key, etag, size = self._key(file), file.etag, file.size
        if size is None and file.about > SPLIT_BYTES:
            info = self.store.head(key)
            size, etag = info.size, info.etag
        if size is None or size <= SPLIT_BYTES:
            return self.store.get(key, etag=etag)
        return joined(lambda offset, count: self.store.get_range(key, offset, count, etag=etag), size)

    def read_range(self, file: StreamFile, offset: int, count: int) -> bytes:
        return self.store.get_range(self._key(file), offset, count, etag=file.etag)

    def _key(self, file: StreamFile) -> str:
        return object_name("", MD5, file.key) if self.remote else file.key


class Reading(Protocol):
    """Reads a range."""

    def __call__(self, offset: int, count: int, /) -> bytes:
        """Exactly ``count`` bytes from ``offset`` on."""


def joined(read: Reading, size: int) -> bytes:
    """A long file by several requests at the same time."""
    spans = [(offset, min(PART_BYTES, size - offset)) for offset in range(0, size, PART_BYTES)]
    return b"".join(concurrently(lambda span: read(*span), spans, PART_JOBS))
