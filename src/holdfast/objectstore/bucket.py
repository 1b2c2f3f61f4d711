"""A bucket (or memory) as a store, through obstore.

Each request is made once by obstore and again by `Retry`, because what a second attempt means is ours to say: a create
that finds its own bytes has succeeded. Only the parts of a large upload are retried below.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from holdfast.errors import HoldfastError
from holdfast.objectstore.answers import Place, answered, failure_of, is_conflict
from holdfast.objectstore.parallel import JOBS, concurrently, interruptibly
from holdfast.objectstore.parts import COPY_BYTES_PER_SECOND, COPY_SINGLE_BYTES, PartCopier, part_bytes
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.spans import check_span, cut, merged
from holdfast.objectstore.store import (
    GAP_BYTES,
    RANGE_JOBS,
    Data,
    DeniedError,
    NotConnectedError,
    ObjectInfo,
    ObjectNotFoundError,
    RefusedError,
    StoreError,
    ThrottledError,
    TruncatedError,
    UnreachableError,
    check_folder,
    check_key,
)

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions, ObjectMeta
    from obstore.store import ObjectStore as Client

Result = TypeVar("Result")

MERGED_BYTES = 32 * 1024 * 1024
BATCH = 1000  # keys that S3's DeleteObjects takes, and R2's
PAGE = 1000
SINGLE_PUT_BYTES = 256 * 1024 * 1024  # a single PUT has no parts that differ and nothing to clean up; S3 takes 5 GiB
PART_BYTES = 16 * 1024 * 1024
PART_JOBS = 4
SLOWEST_BYTES_PER_SECOND = 128 * 1024  # an upload slower than this is given up
BULK_STALLS = 4  # a thousand deletions may take as many times what one answer may

_process = 0  # the one that obstore's threads are in


@dataclass(frozen=True)
class Link:
    """How obstore is to speak to the server.

    Attributes:
        seconds: a request may take as long, from connecting to the last byte of its answer.
        stall_seconds: nothing may come for as long; None where the server first has to take an upload in.
        retried: obstore itself asks again.
        bulk_delete: many keys are deleted by one request.
    """

    seconds: float
    stall_seconds: float | None = None
    retried: bool = False
    bulk_delete: bool = False


@dataclass
class BucketStore:
    """An `ObjectStore` over a bucket.

    Args:
        place: the bucket, and the prefix that keys are relative to.
        connect: makes an obstore client for the bucket, the prefix left out.
        retry: when to ask again.
        stall_seconds: a server that says nothing for as long does not answer.
        copier: copies what is longer than ``copy_single_bytes``; None where one request copies anything.
        copy_single_bytes: the most that one request copies.
    """

    place: Place
    connect: Callable[[Link], "Client"]
    retry: Retry = field(default_factory=Retry)
    stall_seconds: float = 30.0
    copier: PartCopier | None = None
    copy_single_bytes: int = COPY_SINGLE_BYTES
    _clients: "dict[Link, Client]" = field(default_factory=dict, repr=False)
    _bulk_delete: bool = True
    _known: bool = False  # the server has answered

    @property
    def url(self) -> str:
        """The bucket's URL with the prefix."""
        return self.place.url

    def head(self, key: str) -> ObjectInfo:
        """What there is to know of an object."""
        import obstore

        path = self._path(key)
        return self.info_of(self._ask(key, lambda: obstore.head(self._reader(), path)))

    def get(self, key: str, *, etag: str = "") -> bytes:
        """An object's bytes: all of one state of it."""
        return self._get(key, None, etag).to_bytes()

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
        """Exactly ``count`` bytes from ``offset`` on."""
        check_span(offset, count)
        return self._get(key, (offset, offset + count), etag).to_bytes() if count else b""

    def get_ranges(
        self, key: str, spans: Sequence[tuple[int, int]], *, gap_bytes: int = GAP_BYTES, jobs: int = RANGE_JOBS
    ) -> list[memoryview]:
        """The bytes of many spans (offset, count), in their order."""
        # not obstore's: it panics where a span lies behind the end
        for span in spans:
            check_span(*span)
        whole = merged(spans, gap_bytes, MERGED_BYTES)

        def read(span: tuple[int, int]) -> memoryview:
            return memoryview(self._get(key, (span[0], sum(span)), ""))

        return cut(spans, whole, list(concurrently(read, whole, min(jobs, len(whole)))))

    def put(self, key: str, data: Data) -> None:
        """Write or replace an object, atomically."""
        import obstore

        path = self._path(key)
        if len(data) > SINGLE_PUT_BYTES:
            self._put_parts(key, len(data), memoryview(data))
            return
        self._ask(key, lambda: obstore.put(self._writer(len(data)), path, data, use_multipart=False))

    def put_file(self, key: str, path: Path) -> None:
        """The same with the bytes of a file."""
        size = path.stat().st_size
        if size <= PART_BYTES:
            self.put(key, path.read_bytes())
        else:
            self._put_parts(key, size, path)

    def put_if_absent(self, key: str, data: Data) -> bool:
        """Create an object unless it exists, atomically; whether it was created."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        path = self._path(key)
        unanswered = False

        def attempt() -> bool:
            nonlocal unanswered
            try:
                client = self._writer(len(data))
                interruptibly(lambda: obstore.put(client, path, data, mode="create", use_multipart=False))
            except AlreadyExistsError as error:
                if is_conflict(error):  # another writer is at it; whether it succeeds is open
                    raise ThrottledError(f"{self._name(key)} is being written by another client") from None
                return unanswered and self._holds(key, data)
            except HoldfastError:
                raise
            except Exception as error:
                failure = self._failure(error, key)
                # after these two nothing was done for certain
                harmless = isinstance(failure, (ThrottledError, NotConnectedError))
                unanswered = unanswered or (isinstance(failure, UnreachableError) and not harmless)
                raise failure from None
            return True

        return self._retried(attempt)

    def copy(self, source: ObjectInfo, target: str) -> None:
        """Copy an object; by the server, in parts that are all as long but the last above what one request may copy."""
        import obstore

        path, goal = self._path(source.key), self._path(target)
        if self.copier is not None and source.size > self.copy_single_bytes:
            self.copier.copy(source, path, goal)
            return
        link = Link(self._deadline(source.size, COPY_BYTES_PER_SECOND))
        self._ask(source.key, lambda: obstore.copy(self._client(link), path, goal))

    def delete(self, key: str) -> None:
        """Delete an object; it is no error that there is none."""
        import obstore

        path = self._path(key)
        link = Link(self.stall_seconds)
        with suppress(ObjectNotFoundError):
            self._ask(key, lambda: obstore.delete(self._client(link), path))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects, up to 1,000 by one request; one by one where the server refuses that."""
        rest = iter(keys)
        failure: HoldfastError | None = None
        while batch := list(islice(rest, BATCH)):
            if self._bulk_delete and len(batch) > 1 and self._deleted_together(batch):
                continue
            failure = next(filter(None, [failure, *concurrently(self._deletion_failure, batch, JOBS)]), None)
        if failure is not None:
            raise failure

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """The objects below a folder, at any depth, page after page as they are asked for."""
        import obstore

        folder = check_folder(prefix)
        top = self._below(folder)
        last, ordered = after, True
        pages: Iterator[Sequence[ObjectMeta]] | None = None

        def page() -> "Sequence[ObjectMeta] | UnreachableError | None":
            nonlocal pages
            if pages is None:
                offset = self._path(last) if last else None
                pages = iter(obstore.list(self._reader(), top or None, offset=offset, chunk_size=PAGE))
            stream = pages
            try:
                return interruptibly(lambda: next(stream, None))
            except Exception as error:
                pages = None  # it is broken; another one begins behind what has been given
                failure = self._failure(error, folder)
                if isinstance(failure, UnreachableError) and not ordered:
                    return failure  # "behind" would mean something else to this server than it does to us
                raise failure from None

        while (found := self._retried(page)) is not None:
            if isinstance(found, UnreachableError):
                raise found
            for meta in found:
                # some tools mark a folder by an empty object `folder/`; obstore drops the slash
                if meta["path"] == top:
                    continue
                info = self.info_of(meta)
                ordered = ordered and info.key > last
                last = info.key
                yield info

    def list_folders(self, prefix: str = "") -> list[str]:
        """The names of the folders right below a folder that hold an object at any depth; ordered."""
        import obstore

        folder = check_folder(prefix)
        found = self._ask(folder, lambda: obstore.list_with_delimiter(self._reader(), self._below(folder) or None))
        return sorted(path.rpartition("/")[2] for path in found["common_prefixes"])

    def info_of(self, meta: "ObjectMeta") -> ObjectInfo:
        """What obstore says of an object, in our words."""
        key = meta["path"][len(self.place.prefix) :].lstrip("/")
        etag = meta["e_tag"] or ""
        if etag and not etag.endswith('"'):  # Azure leaves the quotes out in listings, and wants them in questions
            etag = f'"{etag}"'
        return ObjectInfo(key, meta["size"], etag, meta["last_modified"])

    def _get(self, key: str, span: tuple[int, int] | None, etag: str) -> "Bytes":
        import obstore

        path = self._path(key)
        options: GetOptions = {}
        if etag:
            options["if_match"] = etag
        if span is not None:
            options["range"] = span

        def read() -> "Bytes":
            answer = obstore.get(self._reader(), path, options=options)
            data = answer.bytes()
            start, end = answer.range
            if span is not None and end < span[1]:
                raise TruncatedError(f"{self._name(key)} ends at byte {end}, where {span[1]} are wanted")
            if len(data) != end - start:
                raise UnreachableError(f"{self._name(key)}: {len(data)} bytes came of {end - start}")
            return data

        return self._ask(key, read)

    def _put_parts(self, key: str, size: int, data: Path | memoryview) -> None:
        """Upload in parts that are all as long but the last, as R2 wants them."""
        import obstore

        path = self._path(key)
        part = part_bytes(size, PART_BYTES)
        link = Link(self._deadline(part), retried=True)

        def upload() -> object:
            client = self._client(link)
            return obstore.put(client, path, data, use_multipart=True, chunk_size=part, max_concurrency=PART_JOBS)

        self._ask(key, upload)

    def _holds(self, key: str, data: Data) -> bool:
        import obstore

        path = self._path(key)
        try:
            return self._once(key, lambda: obstore.get(self._reader(), path).bytes().to_bytes()) == data
        except ObjectNotFoundError:
            raise UnreachableError(f"{self._name(key)} is created and deleted by another client") from None

    def _deleted_together(self, keys: Sequence[str]) -> bool:
        """Whether the server took the request; a refusal is remembered."""
        import obstore

        paths = [self._path(key) for key in keys]
        link = Link(BULK_STALLS * self.stall_seconds, bulk_delete=True)
        try:
            self._ask("", lambda: obstore.delete(self._client(link), paths))
        except (RefusedError, DeniedError, ObjectNotFoundError):
            # R2 has refused it for its checksum, others do not know it, and one key of a thousand may be locked:
            # single requests tell which
            self._bulk_delete = False
            return False
        return True

    def _deletion_failure(self, key: str) -> HoldfastError | None:
        try:
            self.delete(key)
        except StoreError as error:
            return error
        return None

    def _ask(self, key: str, request: Callable[[], Result]) -> Result:
        """Make a request until it is answered."""
        return self._retried(lambda: self._once(key, request))

    def _retried(self, attempt: Callable[[], Result]) -> Result:
        def noted() -> Result:
            try:
                result = attempt()
            except NotConnectedError:
                raise
            except HoldfastError:
                self._known = True
                raise
            self._known = True
            return result

        return self.retry.run(noted, known=self._known)

    def _once(self, key: str, request: Callable[[], Result]) -> Result:
        return answered(request, lambda error: self._failure(error, key))

    def _failure(self, error: Exception, key: str) -> HoldfastError:
        return failure_of(error, self.place, key)

    def _client(self, link: Link) -> "Client":
        _check_process()
        if link not in self._clients:
            self._clients[link] = self.connect(link)
        return self._clients[link]

    def _reader(self) -> "Client":
        return self._client(Link(timedelta(days=1).total_seconds(), self.stall_seconds))

    def _writer(self, nbytes: int) -> "Client":
        return self._client(Link(self._deadline(nbytes)))

    def _deadline(self, nbytes: int, slowest: int = SLOWEST_BYTES_PER_SECOND) -> float:
        """Seconds for an upload or a copy, in steps that double, so that there are few clients."""
        seconds = self.stall_seconds
        while seconds < self.stall_seconds + nbytes / slowest and nbytes > slowest:
            seconds *= 2
        return seconds

    def _path(self, key: str) -> str:
        return self._below(check_key(key, prefix=self.place.prefix))

    def _below(self, folder: str) -> str:
        return f"{self.place.prefix}/{folder}".strip("/")

    def _name(self, key: str) -> str:
        return self.place.name(key)


def _check_process() -> None:
    """Refuse to work in the fork of a process that has worked with a bucket.

    obstore's threads are not there, and what the child would register with the kernel arrives at the parent, as
    pointers into memory that is not its own: it crashes.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise StoreError(
            "buckets cannot be used in a process forked from one that has used them",
            hint='Start processes by the method "spawn" or "forkserver"',
        )
