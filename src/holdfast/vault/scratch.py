"""Folders for what is on its way, of one process each, which a killed one leaves to be removed by the next."""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME, _LOCK_SUFFIX = "scratch-", ".lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder, gone when the block ends; those of killed processes beside it are removed.

    Args:
        parent: made where it is missing.

    Raises:
        OSError: it cannot be written.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{_NAME}*{_LOCK_SUFFIX}"):
        descriptor = _locked(left)
        if descriptor is not None:
            _remove(left.with_name(left.name.removesuffix(_LOCK_SUFFIX)))
            os.close(descriptor)
    lock: int | None = None
    while lock is None:  # another process that tidies up may have it for a moment
        folder = parent / f"{_NAME}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):  # it may also have removed the parent
            parent.mkdir(parents=True, exist_ok=True)
            lock = _locked(_lock_of(folder))
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held; where something is still written into it, the next process does."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK_SUFFIX)


def _locked(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None
