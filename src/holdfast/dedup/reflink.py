"""Files that share their blocks on the disk: making them, and telling them (Linux: btrfs, XFS and others).

The numbers are those of ``linux/fs.h`` and ``linux/fiemap.h``.
"""

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

from holdfast.errors import HoldfastError

FICLONE = 0x40049409
FIEMAP = 0xC020660B
FIEMAP_SYNC = 1
# where an extent's place is not (yet) known, or it has none of its own: unknown, delayed, inline in the inode
EXTENT_UNKNOWN, EXTENT_DELAYED, EXTENT_INLINE, EXTENT_LAST = 0x2, 0x4, 0x200, 0x1
_HEAD, _EXTENT = struct.Struct("=QQLLLL"), struct.Struct("=QQQQQLLLL")
EXTENTS_A_CALL = 512
PROBE_BYTES = 4096
# what file systems without reflinks, or two different ones, answer
NO_REFLINK = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})

Extents = tuple[tuple[int, int, int], ...]


class NoReflinkError(HoldfastError):
    """The file system cannot make two files share their blocks."""


def clone(source: int, target: int) -> None:
    """Make an open file share all blocks of another one; its content is replaced.

    Args:
        source: descriptor, open for reading.
        target: descriptor, open for writing, on the same file system.

    Raises:
        NoReflinkError: the file system has no reflinks, or there are two.
        OSError: it failed for another reason, such as a full disk.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in NO_REFLINK:
            raise NoReflinkError(
                "the file system has no reflinks", hint="btrfs and XFS (made with reflink=1, the default) have them"
            ) from error
        raise


def can_clone(source: Path, target: Path) -> bool:
    """Whether files in the folder ``source`` can be cloned into the folder ``target``: tried, with nameless files."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    try:
        with contextlib.ExitStack() as stack:
            descriptors = []
            for folder in (source, target):
                descriptors.append(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))
                stack.callback(os.close, descriptors[-1])
            os.write(descriptors[0], b"\0" * PROBE_BYTES)
            clone(*descriptors)
    except (OSError, NoReflinkError):
        return False
    return True


def extents_of(path: Path) -> Extents | None:
    """Where a file's blocks lie on its disk: (place in the file, place on the disk, length) of each run, in bytes.

    None where that is not known. Two files on one device with the same extents share all their blocks.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _extents(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _extents(descriptor: int) -> Extents | None:
    found: list[tuple[int, int, int]] = []
    start = 0
    while True:
        buffer = bytearray(_HEAD.size + EXTENTS_A_CALL * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, start, 2**64 - 1 - start, FIEMAP_SYNC, 0, EXTENTS_A_CALL, 0)
        fcntl.ioctl(descriptor, FIEMAP, buffer)
        mapped = _HEAD.unpack_from(buffer)[3]
        last = mapped == 0
        for number in range(mapped):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size)
            if flags & (EXTENT_UNKNOWN | EXTENT_DELAYED | EXTENT_INLINE):
                return None
            found.append((logical, physical, length))
            start = logical + length
            last = bool(flags & EXTENT_LAST)
        if last:
            return tuple(found) or None
