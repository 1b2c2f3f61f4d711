"""What was done to each thing, why others were left, and what ends all of it."""

import errno
from collections.abc import Callable
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.removal.batches import RemovalError
from holdfast.removal.folders import LinkAboveError
from holdfast.removal.place import Moved, Progress
from holdfast.removal.trees import CannotCarryError

DENIED = "permission denied"
CHANGED = "it has changed since it was planned"
MISSING = "it is not there any more"
AGAIN = "it waits already, and something else has come to its place"
OTHER = "something else has come to its place"

# nothing is to be done about these: the plan was about something else
_SETTLED = frozenset({CHANGED, MISSING, AGAIN})
_REASONS = {
    errno.ENOENT: MISSING,
    errno.EEXIST: OTHER,
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EBUSY: "it is in use, or something is mounted there",
    errno.ETXTBSY: "it is in use",
    # an overlay's folder of a lower layer, which can be copied away and not be renamed
    errno.EXDEV: "its file system cannot rename it",
    errno.ENAMETOOLONG: "its name is too long",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Tally:
    """Things that are done or left, in the order in which they come.

    Args:
        total: bytes of all.
        progress: told of them.

    Attributes:
        hindered: something was left that was to go.
        begun: something was done.
    """

    def __init__(self, total: int, progress: Progress) -> None:
        self.hindered = self.begun = False
        self._total, self._progress = total, progress
        self._done: list[str] = []
        self._left: list[tuple[str, str]] = []
        self._bytes = self._seen = 0

    def add(self, key: str, size: int, reason: str | None) -> None:
        """A thing was done, or left for a reason."""
        if reason is None:
            self._done.append(key)
            self.begun = True
            self._bytes += size
        else:
            self._left.append((key, reason))
            self.hindered = self.hindered or reason not in _SETTLED
        self._seen += size
        self._progress(self._seen, self._total)

    def moved(self) -> Moved:
        """All of it."""
        return Moved(tuple(sorted(self._done)), self._bytes, tuple(sorted(self._left)))


def tried(do: Callable[..., str | None], *arguments: object) -> str | None:
    """What ``do`` says of one thing; what concerns that thing alone is a reason, and no failure."""
    try:
        return do(*arguments)
    except (LinkAboveError, CannotCarryError) as error:
        return str(error)
    except OSError as error:
        if error.errno in _REASONS:
            return _REASONS[error.errno]
        raise


def failure_of(error: OSError, root: Path) -> HoldfastError:
    """What ended all of it, as one of ours.

    Args:
        error: what the system said; where it names no whole path, ``root`` is named.
        root: the place.
    """
    path = next((name for name in (error.filename2, error.filename) if str(name).startswith("/")), str(root))
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return RemovalError(
            f"{root}: there is no space left to move it to", hint="Free some and run the command again: nothing is lost"
        )
    if error.errno == errno.EROFS:
        return RemovalError(f"{path}: the file system is read-only", hint="Nothing more was moved")
    if error.errno in (errno.EACCES, errno.EPERM):
        return RemovalError(f"{path}: {DENIED}", hint="See who owns the folder: `ls -ld`")
    return RemovalError(f"{path}: {said}", hint="Nothing is lost: run the command again")
