"""Files that are either the old bytes or the new ones, whatever is killed when."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".tmp"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary stream whose bytes take the place of ``path`` when the block ends.

    The bytes go to ``.<name>.<random>.tmp`` in the same folder, which is made where it is missing; that file is synced
    and renamed over ``path``, and the folder is synced. After a crash ``path`` holds the old content or the new one.
    Where the block raises, ``path`` is untouched and nothing is left behind.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    with _staged(path) as (temporary, stream):
        yield stream
        _sync(stream)
        temporary.replace(path)
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Replace ``path`` by ``data`` (text is UTF-8) in one step; see `replacing`."""
    with replacing(path) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


def create_exclusively(path: Path, data: bytes | str) -> None:
    """Create ``path`` with ``data`` (text is UTF-8), whole or not at all, unless it exists.

    Of several processes that create the same path at once, exactly one succeeds.

    Raises:
        FileExistsError: ``path`` exists; it is left as it is.
        OSError: the folder cannot be written, or the disk is full.
    """
    with _staged(path) as (temporary, stream):
        stream.write(data.encode() if isinstance(data, str) else data)
        _sync(stream)
        os.link(temporary, path)  # unlike a rename, a link fails where the name is taken
    sync_folder(path.parent)


def leftovers(path: Path) -> list[Path]:
    """The temporary files that writers of ``path`` left behind when they were killed."""
    if not path.parent.is_dir():
        return []
    form = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}{re.escape(TEMPORARY_SUFFIX)}")
    return [entry for entry in path.parent.iterdir() if form.fullmatch(entry.name)]


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable; renames and new files count only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _staged(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb") as stream:
            yield temporary, stream
    finally:
        temporary.unlink(missing_ok=True)


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())
