"""Files, links and folders, each by the descriptor of its folder and its name: no link on the way leads elsewhere."""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blake3 import blake3

MAX_DEPTH = 200  # of a folder; each level costs a descriptor while it is read
_PIECE_BYTES = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NOT_KNOWN = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM, errno.EACCES, errno.EINVAL)


class CannotCarryError(Exception):
    """Something that a copy would not be the same as; the text says why."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where something is or would be.

    Args:
        folder: the descriptor of its folder.
        name: in it.
    """

    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class State:
    """What something is now.

    Args:
        stamp: of a file or link its mtime, inode, mode and size; of a folder these of all in it, without the times of
            folders, which files that come and go change.
        size: bytes; of a folder those of its files.
        links: other names of the file.
    """

    stamp: str
    size: int
    links: int


def status(spot: Spot) -> os.stat_result | None:
    """What there is, links not followed; None for nothing."""
    try:
        return os.stat(spot.name, dir_fd=spot.folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def state(spot: Spot) -> State | None:
    """What there is, as far as it tells whether it changes; None for nothing.

    Raises:
        CannotCarryError: folders nest too deeply.
        OSError: a folder cannot be read.
    """
    found = status(spot)
    if found is None:
        return None
    if not stat.S_ISDIR(found.st_mode):
        return State(_stamp(found), found.st_size, found.st_nlink - 1)
    digest = hashlib.sha256(f"{found.st_ino:x}-{found.st_mode:o}".encode())
    try:
        size = _digest_folder(spot, digest.update, 0)
    except (FileNotFoundError, NotADirectoryError):  # it changes this very moment
        return State("changing", 0, 0)
    return State(f"folder-{digest.hexdigest()}", size, 0)


def same(one: Spot, other: Spot) -> bool:
    """Whether two files have the same bytes, two links the same target, two folders the same in them.

    Times, modes and owners do not matter. What cannot be compared (pipes, devices) is not the same.
    """
    here, there = status(one), status(other)
    if here is None or there is None or stat.S_IFMT(here.st_mode) != stat.S_IFMT(there.st_mode):
        return False
    if stat.S_ISREG(here.st_mode):
        return here.st_size == there.st_size and (os.path.samestat(here, there) or _digest(one) == _digest(other))
    if stat.S_ISLNK(here.st_mode):
        return os.readlink(one.name, dir_fd=one.folder) == os.readlink(other.name, dir_fd=other.folder)
    if not stat.S_ISDIR(here.st_mode):
        return False
    with opened(one) as left, opened(other) as right:
        names = names_in(left)
        return names == names_in(right) and all(same(Spot(left, name), Spot(right, name)) for name in names)


def rename_exclusively(source: Spot, target: Spot) -> None:
    """Rename within a file system, unless the new name is taken.

    Raises:
        FileExistsError: it is.
        OSError: it cannot be renamed; EXDEV: not within one file system.
    """
    result = _exclusive_rename()(source, target)
    if result == 0:
        return
    if result not in _NOT_KNOWN:
        raise OSError(result, os.strerror(result), source.name)
    # a file system or kernel without it: only who holds no lock of ours could come between
    if status(target) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.name)
    os.rename(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder)


def copy(source: Spot, target: Spot) -> None:
    """Copy something to another file system: bytes, mode, times, owner, attributes. Two names of one file become two.

    All of it is synced, but for the name ``target``, and what was written is read again and compared.

    Raises:
        CannotCarryError: it has pipes or devices, another owner whom it cannot keep, or nests too deeply.
        OSError: it cannot be read or written. What was begun stays, for the caller to delete.
    """
    _copy(source, target, 0)


def delete(spot: Spot) -> None:
    """Delete whatever is there, if anything; folders that nobody may write to, too, where they are one's own."""
    found = status(spot)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(spot.name, dir_fd=spot.folder)
        return
    with opened(spot) as folder:
        if found.st_mode & 0o700 != 0o700:
            os.fchmod(folder, 0o700)
        for name in names_in(folder):
            delete(Spot(folder, name))
    os.rmdir(spot.name, dir_fd=spot.folder)


@contextlib.contextmanager
def opened(spot: Spot) -> Iterator[int]:
    """The descriptor of a folder, which is no link."""
    descriptor = os.open(spot.name, _FOLDER, dir_fd=spot.folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _stamp(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_mode:o}-{found.st_size:x}"


def names_in(folder: int) -> list[str]:
    """The names in an open folder, in the order of their bytes."""
    with os.scandir(folder) as entries:
        return sorted((entry.name for entry in entries), key=os.fsencode)


def _digest_folder(spot: Spot, update: Callable[[bytes], None], depth: int) -> int:
    if depth > MAX_DEPTH:
        raise CannotCarryError(f"its folders nest deeper than {MAX_DEPTH} levels")
    size = 0
    with opened(spot) as folder:
        for name in names_in(folder):
            inner = Spot(folder, name)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            update(os.fsencode(name) + b"\0")
            if stat.S_ISDIR(found.st_mode):
                update(f"{found.st_ino:x}-{found.st_mode:o}(".encode())
                size += _digest_folder(inner, update, depth + 1)
                update(b")")
            else:
                update(f"{_stamp(found)}\0".encode())
                size += found.st_size
    return size


def _digest(spot: Spot) -> bytes:
    digest = blake3()
    with _reading(spot) as descriptor:
        while piece := os.read(descriptor, _PIECE_BYTES):
            digest.update(piece)
    return digest.digest()


@contextlib.contextmanager
def _reading(spot: Spot) -> Iterator[int]:
    descriptor = os.open(spot.name, _FILE, dir_fd=spot.folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(source: Spot, target: Spot, depth: int) -> None:
    found = os.stat(source.name, dir_fd=source.folder, follow_symlinks=False)
    if stat.S_ISREG(found.st_mode):
        _copy_file(source, target, found)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source.name, dir_fd=source.folder), target.name, dir_fd=target.folder)
        _keep_owner(found, os.stat(target.name, dir_fd=target.folder, follow_symlinks=False), target)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(target.name, ns=times, dir_fd=target.folder, follow_symlinks=False)
    elif stat.S_ISDIR(found.st_mode):
        _copy_folder(source, target, found, depth)
    else:
        raise CannotCarryError("pipes, sockets and devices cannot be copied to another file system")


def _copy_folder(source: Spot, target: Spot, found: os.stat_result, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise CannotCarryError(f"its folders nest deeper than {MAX_DEPTH} levels")
    os.mkdir(target.name, 0o700, dir_fd=target.folder)
    with opened(source) as old, opened(target) as new:
        for name in names_in(old):
            _copy(Spot(old, name), Spot(new, name), depth + 1)
        _keep(old, new, found, target)
        os.fsync(new)


def _copy_file(source: Spot, target: Spot, found: os.stat_result) -> None:
    written = blake3()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _reading(source) as old:
        new = os.open(target.name, flags, 0o600, dir_fd=target.folder)
        try:
            while piece := os.read(old, _PIECE_BYTES):
                written.update(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(new, rest) :]
            _keep(old, new, found, target)
            os.fsync(new)
            if hasattr(os, "posix_fadvise"):  # so that the disk is asked, and not what is still in memory
                os.posix_fadvise(new, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(new)
    if _digest(target) != written.digest():
        raise OSError(errno.EIO, "what was written reads back otherwise", target.name)


def _keep(old: int, new: int, found: os.stat_result, target: Spot) -> None:
    """Give a copy what the original has besides its bytes."""
    _keep_owner(found, os.fstat(new), target)
    if hasattr(os, "listxattr"):  # Linux alone has it
        with contextlib.suppress(OSError):
            for name in os.listxattr(old):
                try:
                    os.setxattr(new, name, os.getxattr(old, name))
                except OSError as error:
                    if error.errno not in _NO_ATTRIBUTES:
                        raise
    os.fchmod(new, stat.S_IMODE(found.st_mode))
    os.utime(new, ns=(found.st_atime_ns, found.st_mtime_ns))


def _keep_owner(found: os.stat_result, now: os.stat_result, target: Spot) -> None:
    if (found.st_uid, found.st_gid) == (now.st_uid, now.st_gid):
        return
    try:
        os.chown(target.name, found.st_uid, found.st_gid, dir_fd=target.folder, follow_symlinks=False)
    except PermissionError:
        raise CannotCarryError("it has another owner, whom a copy on another file system would not have") from None


@functools.cache
def _exclusive_rename() -> Callable[[Spot, Spot], int]:
    """The kernel's rename that takes no name that is taken; it gives 0 or an error's number."""
    library = ctypes.CDLL(None, use_errno=True)
    no_replace = {"renameat2": 1, "renameatx_np": 4}  # Linux's and macOS's
    for name, flag in no_replace.items():
        call = getattr(library, name, None)
        if call is None:
            continue
        call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

        def rename(source: Spot, target: Spot, call: Callable[..., int] = call, flag: int = flag) -> int:
            old, new = os.fsencode(source.name), os.fsencode(target.name)
            return ctypes.get_errno() if call(source.folder, old, target.folder, new, flag) else 0

        return rename
    return lambda source, target: errno.ENOSYS  # noqa: ARG005 - one form for all
