"""One copy becomes a link: made beside it, compared, and renamed over it; the original keeps a name of its own.

The path always leads to the whole bytes: to those of the original until the rename, to the link's from then on. The
original is held meanwhile (`holdfast.dedup.lease`): who wants to write to it waits, and gets it back in its place.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from holdfast.atomic import sync_folder
from holdfast.dedup.lease import Lease, OpenForWritingError, leased
from holdfast.dedup.plan import Replacement
from holdfast.dedup.planning import stamp_in, stamp_of
from holdfast.dedup.reflink import NoReflinkError, clone
from holdfast.errors import HoldfastError
from holdfast.removal.folders import make_folders

READ_BYTES = 1 << 20
CHANGED = "it has changed since it was planned"
SOURCE_CHANGED = "what it would share its bytes with has changed since it was planned"
OPEN = "another process has it open for writing"
WANTED = "another process opened it for writing meanwhile"


@dataclass(frozen=True)
class Spot:
    """Where a step happens.

    Args:
        path: the copy's.
        source: of the bytes that it is to share.
        staged: the name that the original gets, on the same file system.
        temporary: where the link is made, beside the copy.
    """

    path: Path
    source: Path
    staged: Path
    temporary: Path


# makes the link of a step at the temporary place, which is free
MakeLink = Callable[[Replacement, Spot], None]


def is_swapped(step: Replacement, spot: Spot) -> bool:
    """Whether the original has left its path already, and has its other name."""
    try:
        staged = stamp_of(spot.staged)
    except FileNotFoundError:
        return False
    return staged == step.stamp and _inode(spot.path) != step.stamp.inode


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0


def mend(step: Replacement, spot: Spot) -> None:
    """Put an original back that was written to after a process was killed between the rename and its last look.

    Raises:
        OSError: a folder cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        staged = stamp_of(spot.staged)
        if staged.inode == step.stamp.inode and staged != step.stamp and _inode(spot.path) != staged.inode:
            _put_back(spot)


def swap(step: Replacement, spot: Spot, make: MakeLink) -> str:
    """Do a step; empty where it is done, else why not. A step that was killed is done again.

    Raises:
        OSError: the disk is full, or a folder cannot be written.
    """
    try:
        _check_link(spot.path)
        with leased(spot.path) as lease:
            return _swapped(step, spot, make, lease)
    except OpenForWritingError:
        return OPEN
    except FileNotFoundError:
        return CHANGED
    except _LeftError as error:
        return error.message
    except NoReflinkError as error:
        return error.message
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK):
            return error.strerror or str(error)
        raise
    finally:
        spot.temporary.unlink(missing_ok=True)


def clone_beside(step: Replacement, spot: Spot) -> None:
    """Make a file at the temporary place that shares the source's blocks.

    Raises:
        NoReflinkError: the file system cannot.
        OSError: likewise, or the disk is full.
    """
    # for its owner alone until it has the original's mode
    descriptor = os.open(spot.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as target, open(spot.source, "rb", buffering=0) as source:
        # what was planned, and not what has come to its name since
        if not stamp_in(os.fstat(source.fileno())).same_bytes(step.source_stamp):
            raise _LeftError(SOURCE_CHANGED)
        clone(source.fileno(), target.fileno())


class _LeftError(HoldfastError):
    """The step is not done, and why."""


def _swapped(step: Replacement, spot: Spot, make: MakeLink, lease: Lease) -> str:
    original = os.fstat(lease.descriptor)
    if stamp_in(original) != step.stamp or _digest(lease.descriptor) != step.digest:
        return CHANGED
    spot.temporary.unlink(missing_ok=True)
    make(step, spot)
    if _file_digest(spot.temporary) != step.digest:
        return SOURCE_CHANGED
    if step.kind == "reflink":
        _carry_over(original, spot)
    make_folders(spot.staged.parent)
    _name_original(step, spot)
    if lease.broken or stamp_of(spot.path) != step.stamp or stamp_in(os.fstat(lease.descriptor)) != step.stamp:
        spot.staged.unlink()
        return WANTED if lease.broken else CHANGED
    spot.temporary.replace(spot.path)
    sync_folder(spot.path.parent)
    if lease.broken or stamp_in(os.fstat(lease.descriptor)) != step.stamp:
        # whoever waits to write opened the original: it goes back to its place before they go on
        _put_back(spot)
        return WANTED
    return ""


def _check_link(path: Path) -> None:
    if path.is_symlink():
        raise _LeftError(CHANGED)


def _carry_over(original: os.stat_result, spot: Spot) -> None:
    """Give the clone the owner, mode, extended attributes and times of the original, and make it durable."""
    with open(spot.temporary, "rb", buffering=0) as stream:
        descriptor = stream.fileno()
        now = os.fstat(descriptor)
        if (now.st_uid, now.st_gid) != (original.st_uid, original.st_gid):
            os.fchown(descriptor, original.st_uid, original.st_gid)
        # ACLs are extended attributes, and are set before the mode, which they change
        for name in _attributes(spot.path):
            os.setxattr(descriptor, name, os.getxattr(spot.path, name, follow_symlinks=False))
        os.fchmod(descriptor, original.st_mode & 0o7777)
        os.utime(descriptor, ns=(original.st_atime_ns, original.st_mtime_ns))
        os.fsync(descriptor)


def _attributes(path: Path) -> list[str]:
    if not hasattr(os, "listxattr"):
        return []
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _name_original(step: Replacement, spot: Spot) -> None:
    """Give the original its other name, durably, before its first one goes."""
    try:
        os.link(spot.path, spot.staged, follow_symlinks=False)
    except FileExistsError:
        if stamp_of(spot.staged) != step.stamp:
            raise _LeftError(f"something else lies at {spot.staged}") from None
    sync_folder(spot.staged.parent)


def _put_back(spot: Spot) -> None:
    with contextlib.suppress(FileNotFoundError):
        spot.temporary.unlink()
    os.link(spot.staged, spot.temporary, follow_symlinks=False)
    spot.temporary.replace(spot.path)
    sync_folder(spot.path.parent)
    spot.staged.unlink()


def restore_original(staged: Path, path: Path, digest: str) -> str:
    """Put an original back in the place of the link that replaced it; empty where done, else why not.

    Only where it is whole, and the path still has the bytes that it has, or nothing: what was changed since stays.

    Raises:
        OSError: a folder cannot be written.
    """
    if _file_digest(staged) != digest:
        return "its original is damaged"
    try:
        before = path.lstat()
        same = _file_digest(path) == digest
        unchanged = stamp_in(path.lstat()) == stamp_in(before)
    except FileNotFoundError:
        # gone, or a link to an object that is: the original is what there is
        same = unchanged = True
    except IsADirectoryError:
        same = unchanged = False
    if not same or not unchanged:
        return "it has changed since it was replaced"
    path.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(path)
    sync_folder(path.parent)
    return ""


def clear_folders(top: Path) -> None:
    """Delete the empty folders that staged originals lay in; what is not empty stays."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()


def _digest(descriptor: int) -> str:
    hasher = blake3(max_threads=blake3.AUTO)
    buffer = memoryview(bytearray(READ_BYTES))
    place = 0
    while count := os.preadv(descriptor, [buffer], place):
        hasher.update(buffer[:count])
        place += count
    return f"blake3:{hasher.hexdigest()}"


def _file_digest(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _digest(descriptor)
    finally:
        os.close(descriptor)
