"""Folders that one process at a time may use."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK_SUFFIX = ".lock"


@contextmanager
def held_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder until the ``with`` ends; whether this process does. The lock ends with the process, however.

    What is empty then is removed, the folder too.

    Args:
        folder: made where it is missing, beside its lock.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}{_LOCK_SUFFIX}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        for below in sorted(folder.glob("*")):
            with contextlib.suppress(OSError):
                below.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
    finally:
        os.close(descriptor)
