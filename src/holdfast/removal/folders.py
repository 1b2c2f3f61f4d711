"""Keys below a folder, followed part by part so that no link leads out of it."""

import contextlib
import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.atomic import sync_folder
from holdfast.removal.trees import Spot

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 64
_NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP)


class LinkAboveError(Exception):
    """What should be a folder above a key is a link or a file; the text says which."""


class Folders:
    """The folders below a top one, opened as they are asked for.

    Args:
        top: a folder that is there; links in its own path are followed.

    Attributes:
        path: the top.
        top: its descriptor.
        changed: folders in which names were given or taken, by their keys, to be synced by `sync`.
    """

    def __init__(self, top: Path) -> None:
        self.path = top
        self.changed: set[str] = set()
        self._open: OrderedDict[str, int] = OrderedDict()
        self.top = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def spot(self, key: str, *, make: bool = False) -> Spot | None:
        """Where a key is or would be; None where a folder above it is missing.

        Args:
            key: a safe one.
            make: make the folders above it, durably.

        Raises:
            LinkAboveError: a folder above it is a link, or a file.
            OSError: a folder cannot be opened or made.
        """
        above, _, name = key.rpartition("/")
        folder = self._folder(above, make=make)
        return None if folder is None else Spot(folder, name)

    def note(self, key: str) -> None:
        """Remember that a name was given to, or taken from, what a key names."""
        self.changed.add(key.rpartition("/")[0])

    def sync(self) -> None:
        """Make names that were given or taken durable."""
        for folder in sorted(self.changed):
            with contextlib.suppress(LinkAboveError, FileNotFoundError):  # somebody took it away since
                descriptor = self._folder(folder, make=False)
                if descriptor is not None:
                    os.fsync(descriptor)
        self.changed.clear()

    def close(self) -> None:
        """Close the folders."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        os.close(self.top)

    def _folder(self, key: str, *, make: bool) -> int | None:
        if not key:
            return self.top
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        above, _, name = key.rpartition("/")
        outer = self._folder(above, make=make)
        if outer is None:
            return None
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=outer)
        except FileNotFoundError:
            if not make:
                return None
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=outer)
            os.fsync(outer)
            descriptor = os.open(name, _FOLDER, dir_fd=outer)
        except OSError as error:
            if error.errno in _NOT_A_FOLDER:
                raise LinkAboveError(f"{key} is a link or a file, and no folder") from None
            raise
        self._open[key] = descriptor
        if len(self._open) > _KEPT_OPEN:
            # not the ones that were just opened on the way to this one
            os.close(self._open.popitem(last=False)[1])
        return descriptor


@contextmanager
def folders_below(top: Path) -> Iterator[Folders]:
    """The folders below a top one, closed at the end."""
    folders = Folders(top)
    try:
        yield folders
    finally:
        folders.close()


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        with contextlib.suppress(FileExistsError):
            place.mkdir()
        sync_folder(place.parent)
