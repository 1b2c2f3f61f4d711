"""A folder of this machine as a store: one file an object, durable when a verb returns."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from holdfast.atomic import TEMPORARY_SUFFIX, create_exclusively, replacing, sync_folder
from holdfast.errors import HoldfastError
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.spans import check_span, cut, merged
from holdfast.objectstore.store import (
    GAP_BYTES,
    RANGE_JOBS,
    ChangedError,
    Data,
    DeniedError,
    InvalidKeyError,
    ObjectInfo,
    ObjectNotFoundError,
    RefusedError,
    StoreError,
    TruncatedError,
    check_folder,
    check_key,
)

MERGED_BYTES = 8 * 1024 * 1024
COPY_BYTES = 1024 * 1024
# what `atomic` calls a file that is being written
TEMPORARY = re.compile(rf"\..+\.[0-9a-f]{{16}}{re.escape(TEMPORARY_SUFFIX)}", re.DOTALL)
# file systems without hard links: exFAT, some network drives
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class FolderStore:
    """An `ObjectStore` over a folder, which is made when something is first written.

    Not obstore's own: that one neither syncs files nor folders, so that what it acknowledged may be gone after a power
    failure, and it has no way to pin a read to a state.

    A file being written has a hidden name of its own, which is never listed. Folders that have become empty stay, and
    are not listed either. Links to files are objects; links to folders are not followed.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._synced: set[Path] = set()

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    def head(self, key: str) -> ObjectInfo:
        """What there is to know of an object."""
        path = self._path(key)
        with self._failures(key):
            return _info(key, _regular(os.stat(path), path))  # noqa: PTH116 - as `get`, which has a descriptor

    def get(self, key: str, *, etag: str = "") -> bytes:
        """An object's bytes: all of one state of it, since a file is replaced and never written into."""
        with self._opened(key, etag) as (descriptor, info):
            return self._read(key, descriptor, 0, info.size)

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
        """Exactly ``count`` bytes from ``offset`` on."""
        check_span(offset, count)
        with self._opened(key, etag) as (descriptor, _):
            return self._read(key, descriptor, offset, count)

    def get_ranges(
        self, key: str, spans: Sequence[tuple[int, int]], *, gap_bytes: int = GAP_BYTES, jobs: int = RANGE_JOBS
    ) -> list[memoryview]:
        """The bytes of many spans (offset, count), in their order."""
        for span in spans:
            check_span(*span)
        with self._opened(key, "") as (descriptor, _):
            whole = merged(spans, gap_bytes, MERGED_BYTES)
            pieces = concurrently(lambda span: self._read(key, descriptor, *span), whole, min(jobs, len(whole)))
            return cut(spans, whole, list(pieces))

    def put(self, key: str, data: Data) -> None:
        """Write or replace an object, atomically and durably."""
        with self._writing(key) as stream:
            stream.write(data)

    def put_file(self, key: str, path: Path) -> None:
        """The same with the bytes of a file."""
        with open(path, "rb") as source, self._writing(key) as stream:
            shutil.copyfileobj(source, stream, COPY_BYTES)

    def put_if_absent(self, key: str, data: Data) -> bool:
        """Create an object unless it exists, atomically and durably; whether it was created."""
        path = self._path(key)
        with self._failures(key):
            self._prepare(path.parent)
            try:
                create_exclusively(path, data if isinstance(data, bytes) else bytes(data))
            except FileExistsError:
                if path.is_dir():
                    raise
                # whoever made it may not have come so far, and the caller builds on its being there
                sync_folder(path.parent)
                return False
        return True

    def copy(self, source: ObjectInfo, target: str) -> None:
        """Copy an object."""
        with self._opened(source.key, source.etag) as (descriptor, info), self._writing(target) as stream:
            for offset in range(0, info.size, COPY_BYTES):
                count = min(COPY_BYTES, info.size - offset)
                stream.write(self._read(source.key, descriptor, offset, count))

    def delete(self, key: str) -> None:
        """Delete an object; it is no error that there is none."""
        path = self._path(key)
        with self._failures(key):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            except (IsADirectoryError, PermissionError):
                if path.is_dir():  # a folder is no object
                    return
                raise
            sync_folder(path.parent)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        failure: HoldfastError | None = None
        for key in keys:
            try:
                self.delete(key)
            except StoreError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        """The objects below a folder, at any depth, ordered by the UTF-8 bytes of their keys."""
        folder = check_folder(prefix)
        with self._failures(folder):
            yield from self._walk(f"{folder}/" if folder else "", after)

    def list_folders(self, prefix: str = "") -> list[str]:
        """The names of the folders right below a folder that hold an object at any depth; ordered."""
        folder = check_folder(prefix)
        start = f"{folder}/" if folder else ""
        with self._failures(folder):
            names = sorted(name.removesuffix("/") for name, entry in self._entries(start) if entry is None)
            return [name for name in names if next(self._walk(f"{start}{name}/", ""), None) is not None]

    def _walk(self, start: str, after: str) -> Iterator[ObjectInfo]:
        # `a.txt` comes before what is in `a/`: a folder's place is that of its name with the slash
        for name, status in sorted(self._entries(start), key=lambda entry: entry[0]):
            key = start + name
            if status is None:
                if key > after or after.startswith(key):
                    yield from self._walk(key, after)
            elif key > after:
                yield _info(key, status)

    def _entries(self, start: str) -> list[tuple[str, os.stat_result | None]]:
        """The files of a folder with their status, and its folders, with a slash behind their names, without."""
        found: list[tuple[str, os.stat_result | None]] = []
        try:
            entries = list(os.scandir(self.root / start))
        except (FileNotFoundError, NotADirectoryError):
            return found
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    found.append((f"{entry.name}/", None))
                    continue
                status = entry.stat()
            except FileNotFoundError:  # deleted meanwhile, or a link to nowhere
                continue
            if stat.S_ISREG(status.st_mode) and not TEMPORARY.fullmatch(entry.name):
                found.append((entry.name, status))
        return found

    @contextmanager
    def _opened(self, key: str, etag: str) -> Iterator[tuple[int, ObjectInfo]]:
        path = self._path(key)
        with self._failures(key):
            # O_NONBLOCK: opening a pipe would wait for its writer
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                info = _info(key, _regular(os.fstat(descriptor), path))
                if etag and info.etag != etag:
                    raise ChangedError(f"{path} was replaced while it was being read", hint="Run the command again")
                yield descriptor, info
            finally:
                os.close(descriptor)

    def _read(self, key: str, descriptor: int, offset: int, count: int) -> bytes:
        pieces: list[bytes] = []
        end = offset + count
        while offset < end:
            piece = os.pread(descriptor, end - offset, offset)
            if not piece:
                raise TruncatedError(f"{self.root / key} ends at byte {offset}, where {end} are wanted")
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @contextmanager
    def _writing(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with self._failures(key):
            self._prepare(path.parent)
            with replacing(path) as stream:
                yield stream

    def _prepare(self, folder: Path) -> None:
        """Make the folder, and its name durable: a file in a folder that a power failure takes away is lost too."""
        if folder in self._synced:
            return
        if folder != self.root:
            self._prepare(folder.parent)
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
        elif not folder.is_dir():
            above = [parent for parent in (folder, *folder.parents) if not parent.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            for made in above:
                sync_folder(made.parent)
        self._synced.add(folder)

    def _path(self, key: str) -> Path:
        check_key(key)
        if TEMPORARY.fullmatch(key.rpartition("/")[2]):
            raise InvalidKeyError(
                f"{key!r} cannot be the name of an object: files that are being written have such names"
            )
        return self.root / key

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        path = self.root / key
        try:
            yield
        except (FileNotFoundError, _NotAFileError) as error:
            raise ObjectNotFoundError(f"{path} does not exist") from error
        except NotADirectoryError as error:
            raise ObjectNotFoundError(f"{path} does not exist: what should be a folder is a file") from error
        except (IsADirectoryError, FileExistsError) as error:
            raise RefusedError(f"{path} cannot be written: a folder and a file would have one name") from error
        except PermissionError as error:
            if error.errno == errno.EPERM and error.filename2:
                raise _no_links(path) from error
            raise DeniedError(f"{path}: permission denied", hint="See who owns the folder: `ls -ld`") from error
        except OSError as error:
            if error.errno in NO_LINKS and error.filename2:
                raise _no_links(path) from error
            if error.errno == errno.ENAMETOOLONG:
                raise InvalidKeyError(f"{key[:60]}… is too long a name for a file") from error
            raise StoreError(f"{path}: {error.strerror or error}") from error


class _NotAFileError(Exception):
    """A folder, a device or a pipe: no object."""


def _regular(status: os.stat_result, path: Path) -> os.stat_result:
    if not stat.S_ISREG(status.st_mode):
        raise _NotAFileError(path)
    return status


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    # an object is replaced by another file, so that its inode, time or size differ
    etag = f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    modified = datetime.fromtimestamp(status.st_mtime, timezone.utc)
    return ObjectInfo(key, status.st_size, etag, modified)


def _no_links(path: Path) -> RefusedError:
    return RefusedError(
        f"{path} cannot be created: its file system has no hard links, by which one of many writers wins",
        hint="Use another file system, or a bucket",
    )
