"""What a store of objects can do, whatever lies behind it: memory, a folder, a bucket."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeAlias

from holdfast.errors import HoldfastError, IntegrityError, UsageError

Data: TypeAlias = bytes | bytearray | memoryview

MAX_KEY_BYTES = 1024  # S3's limit, and R2's, for prefix and key together
GAP_BYTES = 64 * 1024  # a request takes as long as this many bytes at 2 MB/s and 30 ms: cheaper read than asked again
RANGE_JOBS = 4
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class StoreError(HoldfastError):
    """A store does not do what it was asked for."""


class ObjectNotFoundError(StoreError):
    """There is no object of that name."""


class BucketNotFoundError(StoreError):
    """There is no bucket of that name."""


class DeniedError(StoreError):
    """The credentials are wrong, missing, or do not allow this."""


class RefusedError(StoreError):
    """The store understood and will not: asking again would not help."""


class UnreachableError(StoreError):
    """No answer, a broken one, or a fault of the server (5xx), after all attempts."""


class NotConnectedError(UnreachableError):
    """There was no connection to the server, so nothing was asked of it."""


class ThrottledError(UnreachableError):
    """The store asks for fewer requests (429), after all attempts."""


class ChangedError(IntegrityError):
    """An object was replaced while it was being read."""


class TruncatedError(IntegrityError):
    """An object is shorter than what is wanted of it."""


class InvalidKeyError(UsageError):
    """A name that no store takes, or that this one does not."""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of an object without its bytes.

    Attributes:
        key: its name, relative to the store's prefix, with slashes.
        size: in bytes.
        etag: names this state of it; opaque, never a digest to rely on. Empty where the server gives none.
        modified: when it was written, by the store's clock; with a time zone. A listing may know it more precisely than
            `head` does.
    """

    key: str
    size: int
    etag: str
    modified: datetime


class ObjectStore(Protocol):
    """Objects by key, relative to a prefix. All verbs may be called from many threads at once.

    A store is opened by the process that uses it: it cannot be sent to another one, and that of a bucket refuses to
    work in a fork of its process.

    A verb that is *retried* asks again after no answer, 5xx and 429, a bounded number of times; `UnreachableError`
    then says that nobody knows, and for what writes, that it may have been done. An *idempotent* verb may be called
    again by whoever does not know. What is read after a write was acknowledged, or listed, has the write in it.

    Raises, besides what each verb names:
        InvalidKeyError: the key is empty, too long, absolute, or has a control character or an empty or dotted part.
        DeniedError: the credentials do not allow it.
        BucketNotFoundError: the bucket does not exist.
        RefusedError: the store will not.
        UnreachableError: it gave no answer, or not in time.
    """

    @property
    def url(self) -> str:
        """Where it is, with its prefix, for messages; no secret is in it."""

    def head(self, key: str) -> ObjectInfo:
        """What there is to know of an object. Retried.

        Raises:
            ObjectNotFoundError: there is none.
        """

    def get(self, key: str, *, etag: str = "") -> bytes:
        """An object's bytes: all of one state of it. Retried.

        Raises:
            ObjectNotFoundError: there is none.
            ChangedError: it is no longer the one of ``etag``.
        """

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
        """Exactly ``count`` bytes from ``offset`` on. Retried.

        Raises:
            ObjectNotFoundError: there is none.
            ChangedError: it is no longer the one of ``etag``.
            TruncatedError: it ends before.
        """

    def get_ranges(
        self, key: str, spans: Sequence[tuple[int, int]], *, gap_bytes: int = GAP_BYTES, jobs: int = RANGE_JOBS
    ) -> list[memoryview]:
        """The bytes of many spans (offset, count), in their order; neighbours are views of one buffer. Retried.

        Args:
            key: the object; it should be one that is never replaced, since each request sees the state of its moment.
            spans: in any order; they may overlap.
            gap_bytes: spans that lie no further apart are fetched by one request, together with what lies between.
            jobs: requests at a time.

        Raises:
            ObjectNotFoundError: there is none.
            TruncatedError: it ends before one of them.
        """

    def put(self, key: str, data: Data) -> None:
        """Write or replace an object, atomically and durably. Retried, idempotent."""

    def put_file(self, key: str, path: Path) -> None:
        """The same with the bytes of a file, which should not change meanwhile, in bounded memory. Retried, idempotent.

        Raises:
            OSError: the file cannot be read.
        """

    def put_if_absent(self, key: str, data: Data) -> bool:
        """Create an object unless it exists, atomically and durably; whether it was created. Retried.

        Of many writers at once exactly one creates it. Where an answer was lost on the way, the bytes there decide:
        with ours, we have created it. So something in ``data`` must be the writer's own where it matters who was first.
        """

    def copy(self, source: ObjectInfo, target: str) -> None:
        """Copy an object within the store, by the server where there is one. Replaces ``target``. Atomic, durable.

        Retried, idempotent. Content type and metadata go with it; a bucket's default storage class is the copy's.
        Whether ``source`` was still the one that is meant only some stores can tell: whoever needs to know asks again
        for both afterwards.

        Raises:
            ObjectNotFoundError: there is no source.
            ChangedError: the source is no longer that one.
        """

    def delete(self, key: str) -> None:
        """Delete an object; it is no error that there is none. Retried, idempotent."""

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects, in bulk where the store can. Retried, idempotent.

        Raises:
            StoreError: some could not be deleted; all were tried.
        """

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """The objects below a folder, at any depth, page after page as they are asked for. Retried.

        Args:
            prefix: a folder, with or without its slash: ``pack`` has nothing of ``packs/``.
            after: only keys that the store orders behind this one.

        Keys come in the order of their UTF-8 bytes, as S3, R2, GCS and folders have them. (SeaweedFS and S3 Express
        have another order: rely on it for display alone.) What is written or deleted meanwhile may or may not be seen.
        """

    def list_folders(self, prefix: str = "") -> list[str]:
        """The names of the folders right below a folder that hold an object at any depth; ordered. Retried."""


def check_key(key: str, *, prefix: str = "") -> str:
    """The key, if a store can have it.

    Raises:
        InvalidKeyError: it cannot.
    """
    if not key or CONTROL.search(key) or any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidKeyError(f"{key!r} cannot be the name of an object")
    try:
        nbytes = len(key.encode(errors="surrogateescape")) + (len(prefix.encode()) + 1 if prefix else 0)
    except UnicodeEncodeError:
        raise InvalidKeyError(f"{key!r} cannot be the name of an object: it is no Unicode") from None
    if nbytes > MAX_KEY_BYTES:
        raise InvalidKeyError(f"{key[:60]}… is too long for the name of an object: {MAX_KEY_BYTES} bytes are the limit")
    return key


def check_folder(prefix: str) -> str:
    """A folder's name without its last slash; empty for the top.

    Raises:
        InvalidKeyError: no folder can have that name.
    """
    folder = prefix.removesuffix("/")
    return check_key(folder) if folder else ""
