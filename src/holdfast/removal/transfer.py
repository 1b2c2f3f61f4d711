"""One thing from one folder to another, by a rename; to another file system by a copy that gets its name at the end.

Names in the folder that a thing leaves or comes to, when it is copied; `recover` brings them to an end after a kill:

- ``.holdfast-<key>.coming``: a copy that is not whole yet.
- ``.holdfast-<key>.leaving``: what was copied, on its way out, not yet seen to be unchanged.
- ``.holdfast-<key>.gone``: what may be deleted, and half is.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from holdfast.removal.names import key_digest
from holdfast.removal.trees import Spot, copy, delete, opened, rename_exclusively, same, status

_DIGITS = 32


class ChangedMeanwhileError(Exception):
    """A thing changed while it was being moved; it is where it was."""


def coming(key: str, folder: int) -> Spot:
    """Where a copy of a thing is made, beside its place."""
    return Spot(folder, f".holdfast-{key_digest(key)[:_DIGITS]}.coming")


def leaving(key: str, folder: int) -> Spot:
    """Where a thing that was copied waits to be judged, beside its place."""
    return Spot(folder, f".holdfast-{key_digest(key)[:_DIGITS]}.leaving")


def gone(key: str, folder: int) -> Spot:
    """Where a thing that was copied is deleted, beside its place."""
    return Spot(folder, f".holdfast-{key_digest(key)[:_DIGITS]}.gone")


def take_thing(key: str, place: Spot, waiting: Spot, part: Spot, unchanged: Callable[[Spot], bool]) -> None:
    """Move a thing from its place into the quarantine.

    Args:
        key: its own.
        place: where it lies.
        waiting: where it is to wait.
        part: where a copy is made, in the quarantine's file system.
        unchanged: whether what lies somewhere is what was planned; asked of what was renamed, which nobody else knows
            by its new name.

    Raises:
        ChangedMeanwhileError: it is not.
        FileExistsError: something waits there already.
        CannotCarryError: it cannot be copied.
        OSError: it cannot be moved.
    """
    before = status(place)
    try:
        rename_exclusively(place, waiting)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_whole(place, waiting, part)
        try:
            finish_taking(key, place, unchanged)
        except (ChangedMeanwhileError, OSError):
            if status(place) is not None:  # it could not go after all
                rename_exclusively(waiting, part)
                delete(part)
            raise
        return
    if not unchanged(waiting):
        rename_exclusively(waiting, place)
        raise ChangedMeanwhileError
    _keep_time(before, waiting)


def finish_taking(key: str, place: Spot, unchanged: Callable[[Spot], bool]) -> None:
    """Delete a thing of which the quarantine has a copy.

    Raises:
        ChangedMeanwhileError: it is not what was planned.
        OSError: it cannot be deleted.
    """
    out, last = leaving(key, place.folder), gone(key, place.folder)
    rename_exclusively(place, out)
    if not unchanged(out):
        rename_exclusively(out, place)
        raise ChangedMeanwhileError
    rename_exclusively(out, last)
    os.fsync(place.folder)
    delete(last)


def restore_thing(key: str, waiting: Spot, place: Spot, dropped: Spot) -> None:
    """Move a thing from the quarantine back to its place.

    Args:
        key: its own.
        waiting: where it waits.
        place: where it lay.
        dropped: where what was copied is deleted, in the quarantine's file system.

    Raises:
        FileExistsError: something lies at its place.
        CannotCarryError: it cannot be copied.
        OSError: it cannot be moved.
    """
    before = status(waiting)
    try:
        rename_exclusively(waiting, place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_whole(waiting, place, coming(key, place.folder))
        drop_thing(waiting, dropped)
        return
    _keep_time(before, place)


def drop_thing(waiting: Spot, dropped: Spot) -> None:
    """Delete what waits; a folder is renamed first, so that no half of one ever waits."""
    found = status(waiting)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode):
        delete(dropped)
        if found.st_mode & 0o700 != 0o700:
            # only who may write to a folder may give it another one above
            with opened(waiting) as folder:
                os.fchmod(folder, 0o700)
        rename_exclusively(waiting, dropped)
        delete(dropped)
    else:
        os.unlink(waiting.name, dir_fd=waiting.folder)


def recover(key: str, place: Spot, waiting: Spot) -> str | None:
    """Bring to an end what a process left that was killed while it copied; why that cannot be, or None.

    Args:
        key: of the thing.
        place: where it lies or lay.
        waiting: where it waits or would.
    """
    delete(gone(key, place.folder))
    out = leaving(key, place.folder)
    if status(out) is not None:
        try:
            rename_exclusively(out, place)
        except FileExistsError:
            if not same(out, waiting):
                return f"{out.name} beside it is in its way"
            delete(out)
    delete(coming(key, place.folder))
    return None


def _copy_whole(source: Spot, target: Spot, part: Spot) -> None:
    """Copy a thing under a name of its own, verified and synced, and give it the target's name."""
    if status(target) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target.name)
    delete(part)
    try:
        copy(source, part)
        os.fsync(part.folder)
        rename_exclusively(part, target)
        os.fsync(target.folder)
    except BaseException:
        with contextlib.suppress(OSError):
            delete(part)
        raise


def _keep_time(before: os.stat_result | None, spot: Spot) -> None:
    """Some file systems take a folder's move for a change of it."""
    now = status(spot)
    if before is not None and now is not None and before.st_mtime_ns != now.st_mtime_ns:
        times = (before.st_atime_ns, before.st_mtime_ns)
        os.utime(spot.name, ns=times, dir_fd=spot.folder, follow_symlinks=False)
