"""Which files a stream has: members of tracked folders, objects of a bucket, and what is in them."""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.data.sources_pull import list_source
from holdfast.data.stream_fetch import Fetcher
from holdfast.data.stream_files import MissingSampleError, StreamFile
from holdfast.data.stream_records import FileRecords, Records, array_rows, fixed_records, number_records, refused
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.source import Source
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore
from holdfast.repo.dvcfiles import LISTING_SUFFIX, MD5, UnreadableFileError, read_listing

HEAD_BYTES = 16 * 2**10  # the header of an array is never longer


@dataclass(frozen=True)
class TrackedOut:
    """A file or folder that DVC tracks, all or a part of which is wanted.

    Attributes:
        name: its path, which its files are named after.
        oid: the md5; that of a folder's listing ends in ``.dir``.
        part: the file or folder in it that is meant; empty for all of it.
        size: bytes in all, where DVC has written them down.
        count: files in all, likewise.
    """

    name: str
    oid: str
    part: str = ""
    size: int | None = None
    count: int | None = None


def tracked_files(fetcher: Fetcher, supply: int, out: TrackedOut) -> list[StreamFile]:
    """The files of an out, by their names; none where a part is not in it.

    Raises:
        MissingSampleError: the folder's listing is nowhere.
        IntegrityError: it is damaged.
        HoldfastError: a place cannot be read.
    """
    if not out.oid.endswith(LISTING_SUFFIX):
        return [StreamFile(out.name, supply, out.oid, out.size or 0, out.size, checksum=f"{MD5}:{out.oid}")]
    # DVC's listings do not say how long files are
    about = (out.size or 0) // max(1, out.count or 1)
    try:
        listing = fetcher.whole(StreamFile(out.name, supply, out.oid, 0, checksum=f"{MD5}:{out.oid}"))
        members = read_listing(listing)
    except UnreadableFileError as error:
        raise IntegrityError(f"the listing {out.oid} of {out.name} cannot be read: {error}") from error
    except MissingSampleError as error:
        raise MissingSampleError(f"the listing of {error.message}", hint=error.hint) from error
    return [
        StreamFile(f"{out.name}/{path}", supply, oid, about, checksum=f"{MD5}:{oid}")
        for path, oid in sorted(members)
        if not out.part or path == out.part or path.startswith(f"{out.part}/")
    ]


def bucket_files(
    store: ObjectStore, supply: int, prefix: str, *, named: str = "", checksum: str = ""
) -> list[StreamFile]:
    """The objects at a prefix, by their keys.

    Args:
        store: where they are.
        supply: the number of the supply that has the store.
        prefix: without slashes at its ends; empty for all of the store.
        named: what names have before the key.
        checksum: of the one object, where there is one alone.

    Raises:
        ObjectNotFoundError: there is nothing.
        StoreError: the store cannot be read.
    """
    objects = list_source(store, prefix)
    if not objects:
        raise ObjectNotFoundError(f"there is nothing at {store.url.rstrip('/')}/{prefix}")
    own = checksum if len(objects) == 1 and not checksum.endswith(LISTING_SUFFIX) else ""
    return [
        StreamFile(f"{named}{info.key}", supply, info.key, info.size, info.size, info.etag, own)
        for info in sorted(objects, key=lambda info: info.key)
    ]


def single_files(store: ObjectStore, supply: int, keys: Sequence[str], *, named: str, jobs: int) -> list[StreamFile]:
    """Objects by their keys, each of which is asked for.

    Raises:
        ObjectNotFoundError: there is none of a key.
        StoreError: the store cannot be read.
    """
    try:
        infos = list(concurrently(store.head, keys, jobs))
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(error.message, hint="The URL of a folder has a slash at its end") from error
    return [StreamFile(f"{named}{info.key}", supply, info.key, info.size, info.size, info.etag) for info in infos]


def sized_files(fetcher: Fetcher, files: Sequence[StreamFile], *, jobs: int) -> list[StreamFile]:
    """Files with their lengths.

    Raises:
        HoldfastError: as of `Fetcher.size`.
    """
    sizes = concurrently(fetcher.size, files, jobs)
    return [file._replace(size=size, about=size) for file, size in zip(files, sizes, strict=True)]


def record_files(files: Sequence[StreamFile], record_bytes: int) -> Records:
    """What is in files of records.

    Args:
        files: with their lengths.
        record_bytes: of each record.

    Raises:
        UsageError: a file has no whole records.
    """
    return number_records([fixed_records(file.name, file.size or 0, record_bytes) for file in files])


def row_files(fetcher: Fetcher, files: Sequence[StreamFile], *, jobs: int) -> Records:
    """What is in ``.npy`` files, of which a few KiB each are read.

    Raises:
        UsageError: one has no rows that could be read.
        IntegrityError: one is torn.
        HoldfastError: as of `Fetcher.part`.
    """

    def look(file: StreamFile) -> FileRecords:
        try:
            return array_rows(_Part(fetcher, file))
        except HoldfastError as error:
            raise refused(file.name, error) from error

    return number_records(list(concurrently(look, files, jobs)))


class _Part:
    """A file as a `Source`, whose beginning is fetched once."""

    def __init__(self, fetcher: Fetcher, file: StreamFile) -> None:
        self.name, self.size = file.name, file.size or 0
        self._fetcher, self._file = fetcher, file

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of it, fewer at the end."""
        return self._fetcher.part(self._file, offset, min(count, HEAD_BYTES, self.size - offset))

    def sibling(self, name: str) -> Source:
        """None is there."""
        raise IntegrityError(f"{self.name} keeps data in {name!r}, and arrays have none")
