"""Holding a file so that nobody opens it for writing unseen: Linux's leases (fcntl(2), F_SETLEASE)."""

import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from holdfast.errors import HoldfastError

F_SETSIG = getattr(fcntl, "F_SETSIG", 10)


class OpenForWritingError(HoldfastError):
    """Another process has the file open for writing."""


class Lease:
    """A file that is held.

    Args:
        descriptor: open for reading.
        held: whether the file system gives leases; where not, nothing is known of other processes.
    """

    def __init__(self, descriptor: int, *, held: bool) -> None:
        self.descriptor = descriptor
        self._held = held

    @property
    def broken(self) -> bool:
        """Whether another process waits to open the file for writing, or to truncate it; it does until the end."""
        return self._held and fcntl.fcntl(self.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK


@contextlib.contextmanager
def leased(path: Path) -> Iterator[Lease]:
    """Hold a file: who opens it for writing meanwhile waits until the block ends (for 45 s, the kernel's limit).

    Raises:
        OpenForWritingError: it is open for writing already.
        OSError: it cannot be opened, or is a symbolic link.
    """
    # not blocking: a pipe may have come to its name
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield Lease(descriptor, held=_take(descriptor, path))
    finally:
        os.close(descriptor)  # which ends the lease


def _take(descriptor: int, path: Path) -> bool:
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # a lease that is broken sends a signal; this one is ignored unless asked for, SIGIO would end the process
        fcntl.fcntl(descriptor, F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise OpenForWritingError(f"{path} is open for writing") from error
        return False  # not the file's owner, or a file system without leases
    return True
