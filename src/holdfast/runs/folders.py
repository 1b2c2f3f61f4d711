"""Run folders: a new one for a run, one recorder at a time in it, and what an earlier run left there."""

import fcntl
import os
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path

from holdfast.atomic import leftovers
from holdfast.errors import HoldfastError, LockedError
from holdfast.runs import artifacts

Clock = Callable[[], datetime]


class RunExistsError(HoldfastError):
    """The folder already holds a run, which is not overwritten unasked."""


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(timezone.utc)


def new_run_folder(base: Path | str, clock: Clock = utc_now) -> Path:
    """Make ``base/run_YYYYMMDD_HHMMSS`` (UTC), with ``_2``, ``_3``, … behind it where the second is taken.

    Raises:
        OSError: the folder cannot be made.
    """
    base = Path(base)
    base.mkdir(parents=True, exist_ok=True)
    stem, attempt = clock().strftime("run_%Y%m%d_%H%M%S"), 1
    while True:
        folder = base / (stem if attempt == 1 else f"{stem}_{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            attempt += 1
        else:
            return folder


def is_file_name(name: str) -> bool:
    """Whether ``name`` is that of a file in a folder, and no path."""
    return name not in ("", "..") and Path(name).name == name


class FolderLock:
    """Keeps a second recorder out of a folder.

    The lock is on the folder itself: no file is needed, and the kernel lets go of it when the process dies.

    Args:
        folder: must exist.

    Raises:
        LockedError: another recorder holds it.
        OSError: the folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise LockedError(f"another recorder is at work in {folder}", hint="Choose another folder") from None

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)


def clear_run(folder: Path, checkpoint: str, *, overwrite: bool) -> None:
    """Remove an earlier run's files, its checkpoint among them whatever it is called, and what was left half written.

    Raises:
        RunExistsError: there is an earlier run, and it is not to be overwritten; it is left as it is.
        OSError: a file cannot be removed.
    """
    earlier = str(artifacts.read_metadata(folder).get("checkpoint", ""))
    names = _unique([*artifacts.FILES, checkpoint, *([earlier] if is_file_name(earlier) else [])])
    held = [name for name in names if (folder / name).exists()]
    if held and not overwrite:
        raise RunExistsError(
            f"{folder} already holds a run ({held[0]})",
            hint="Choose another folder, pass resume=, or pass overwrite=True to replace it",
        )
    for name in held:
        (folder / name).unlink()
    for name in names:
        for path in leftovers(folder / name):
            path.unlink()


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
