"""Uploads on their way: to a file of this machine, and hashed while they come."""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from holdfast.errors import HoldfastError
from holdfast.vault.oids import check_md5, hasher_of

# as many bytes are hashed and written at once; a thread is not worth its while for fewer
FEED_BYTES = 1 << 20
_LOCK_SUFFIX = ".lock"


class TooLargeError(HoldfastError):
    """A file is larger than this server takes."""


class SlowClientError(HoldfastError):
    """A client sends nothing any more."""


@dataclass(frozen=True)
class Upload:
    """A file that has arrived, and is what its name says.

    Attributes:
        oid: its name.
        path: where it is.
        size: its bytes.
        digest: BLAKE3 of them.
        spool: what it lies in.
    """

    oid: str
    path: Path
    size: int
    digest: bytes
    spool: "Spool"

    def discard(self) -> None:
        """It is needed no longer."""
        self.spool.remove(self.path, self.size)


class Spool:
    """A folder for uploads, of one process; what killed processes left beside it is removed.

    Args:
        folder: that of all processes.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            if entry.name.endswith(_LOCK_SUFFIX):
                _remove_left(entry)
        lock: int | None = None
        while lock is None:  # another process that tidies up may have it for a moment
            self._folder = folder / secrets.token_hex(8)
            lock = _locked(_lock_of(self._folder))
        self._lock = lock
        self._folder.mkdir(mode=0o700)
        self._counting = threading.Lock()
        self.nbytes = 0

    def close(self) -> None:
        """Remove all that is in it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        _lock_of(self._folder).unlink(missing_ok=True)
        os.close(self._lock)

    def remove(self, path: Path, size: int) -> None:
        """Remove an upload of so many bytes."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            self._count(-size)

    async def receive(
        self,
        oid: str,
        read: Callable[[], Awaitable[bytes]],
        threads: Executor,
        *,
        max_bytes: int,
        idle_seconds: float,
    ) -> Upload:
        """Take a file in.

        Args:
            oid: its name, which has an md5.
            read: gives its next bytes, none at its end.
            threads: hash and write.
            max_bytes: it may have.
            idle_seconds: how long to wait for the next of them.

        Raises:
            WrongNameError: it is not what its name says.
            TooLargeError: it has more bytes.
            SlowClientError: none came in time.
            OSError: the disk is full, or cannot be written.
        """
        hasher, digest = hasher_of(oid), blake3()
        assert hasher is not None, oid
        loop = asyncio.get_running_loop()
        path = self._folder / secrets.token_hex(16)
        size, buffer = 0, bytearray()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

        def feed(data: bytearray) -> None:
            hasher.update(data)
            digest.update(data)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

        try:
            try:
                while data := await _next(read, oid, idle_seconds):
                    size += len(data)
                    self._count(len(data))
                    if size > max_bytes:
                        raise TooLargeError(f"{oid} has more than the {max_bytes} bytes that this server takes")
                    buffer += data
                    if len(buffer) >= FEED_BYTES:
                        full, buffer = buffer, bytearray()
                        await _whole(loop.run_in_executor(threads, feed, full))
                feed(buffer)
            finally:
                os.close(descriptor)
            check_md5(oid, hasher, "What was sent")
        except BaseException:
            self.remove(path, size)
            raise
        return Upload(oid, path, size, digest.digest(), self)

    def _count(self, nbytes: int) -> None:
        with self._counting:
            self.nbytes += nbytes


async def _next(read: Callable[[], Awaitable[bytes]], oid: str, idle_seconds: float) -> bytes:
    try:
        return await asyncio.wait_for(read(), idle_seconds)
    except asyncio.TimeoutError as error:
        raise SlowClientError(f"Nothing more of {oid} came for {idle_seconds:g} seconds") from error


async def _whole(work: "asyncio.Future[None]") -> None:
    """Wait for work that uses a descriptor: whoever is cancelled closes it only afterwards."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK_SUFFIX)


def _locked(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_left(lock: Path) -> None:
    """Remove a folder whose process is gone."""
    descriptor = _locked(lock)
    if descriptor is None:
        return
    shutil.rmtree(lock.with_name(lock.name.removesuffix(_LOCK_SUFFIX)), ignore_errors=True)
    lock.unlink(missing_ok=True)
    os.close(descriptor)
