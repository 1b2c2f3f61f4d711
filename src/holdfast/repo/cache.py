"""What lies in DVC's local cache: objects in the places of DVC 3 and DVC 2, listings of folders, the run cache."""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import IntegrityError
from holdfast.repo.dvcfiles import (
    LEGACY_MD5,
    LISTING_SUFFIX,
    MD5,
    Out,
    UnreadableFileError,
    read_listing,
    read_run_cache_entry,
)

# DVC 3 keeps objects in files/md5/xx/, DVC 2 kept them in xx/
STORES = ((MD5, "files/md5"), (LEGACY_MD5, ""))
_TOPS = {name: f"{place}/" if place else "" for name, place in STORES}
RUN_CACHE = "runs"

_PREFIX = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{30}(?:\.dir)?")
_RUN_KEY = re.compile(r"[0-9a-f]{64}")


class UnreadableRunCacheError(IntegrityError):
    """An entry of DVC's run cache is not what DVC writes."""


class CacheObject(NamedTuple):
    """A file of the cache.

    Args:
        hash_name: ``md5``, or ``md5-dos2unix`` for the place of DVC 2.
        oid: the md5 that names it, with ``.dir`` for the listing of a folder.
        path: from the cache's folder, with slashes.
        size: bytes.
        changed: seconds since the epoch, the later of mtime and ctime: a linked object keeps its old mtime.
        stamp: names the state in which a remote listed it, see `holdfast.removal.place.Thing`; empty for one here.
    """

    hash_name: str
    oid: str
    path: str
    size: int
    changed: float
    stamp: str = ""

    @property
    def is_listing(self) -> bool:
        """Whether it is the listing of a folder."""
        return self.oid.endswith(LISTING_SUFFIX)


@dataclass(frozen=True, slots=True)
class RunCacheEntry:
    """One remembered run of a stage: its command and its outs, with paths from the stage's folder."""

    command: str
    outs: tuple[Out, ...]


def object_path(folder: Path, hash_name: str, oid: str) -> Path:
    """Where the cache at ``folder`` keeps an object."""
    return Path(object_name(os.fspath(folder), hash_name, oid))


def object_name(folder: str, hash_name: str, oid: str) -> str:
    """The same as text: of 100,000 objects paths take two seconds."""
    name = f"{_TOPS[hash_name]}{oid[:2]}/{oid[2:]}"
    return f"{folder}/{name}" if folder else name


def list_objects(folder: Path) -> list[CacheObject]:
    """Every object in the cache at ``folder``, ordered by path; none where the folder is missing.

    Files with other names (DVC's temporary files, say) are no objects. One that vanishes meanwhile is left out.

    Raises:
        OSError: a folder of the cache cannot be listed.
    """
    found = [entry for hash_name, place in STORES for entry in _list_store(folder, hash_name, place)]
    found.sort(key=attrgetter("path"))  # those of each place are in order already
    return found


def read_members(folder: Path, hash_name: str, oid: str) -> list[tuple[str, str]] | None:
    """The (path, oid) of each file that a folder's listing names; None where the cache lacks it or it is damaged.

    Whole is a listing whose bytes have the md5 that it is named after.
    """
    try:
        data = object_path(folder, hash_name, oid).read_bytes()
        if hashlib.md5(data, usedforsecurity=False).hexdigest() + LISTING_SUFFIX != oid:
            return None
        return read_listing(data)
    except (OSError, UnreadableFileError):
        return None


def list_run_cache(folder: Path, *, skip_damaged: bool = False) -> list[RunCacheEntry]:
    """Every entry of the run cache in the cache at ``folder``, ordered by key.

    Raises:
        UnreadableRunCacheError: an entry is damaged, and ``skip_damaged`` is not set.
        OSError: a folder cannot be listed, or a file not be read.
    """
    result = []
    for path in sorted((folder / RUN_CACHE).glob("*/*/*")):
        if not (_RUN_KEY.fullmatch(path.name) and _RUN_KEY.fullmatch(path.parent.name)):
            continue  # a temporary file of DVC's
        try:
            command, outs = read_run_cache_entry(path.read_bytes())
        except UnreadableFileError as error:
            if skip_damaged:
                continue
            raise UnreadableRunCacheError(
                f"the run cache entry {path} cannot be read: {error}",
                hint="DVC deletes such entries when it meets them; delete it, or plan with --ignore-run-cache",
            ) from error
        result.append(RunCacheEntry(command, tuple(outs)))
    return result


def _list_store(folder: Path, hash_name: str, place: str) -> Iterator[CacheObject]:
    top = folder / place
    if not top.is_dir():
        return
    is_object, ask, make = _REST.fullmatch, os.stat, CacheObject._make
    for prefix in sorted(entry.name for entry in os.scandir(top) if _PREFIX.fullmatch(entry.name) and entry.is_dir()):
        below = f"{place}/{prefix}/" if place else f"{prefix}/"
        # from within the folder: of very many objects it takes a third of the time of whole paths
        descriptor = os.open(top / prefix, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in sorted(filter(is_object, os.listdir(descriptor))):  # noqa: PTH208 - no Path does it
                try:
                    status = ask(name, dir_fd=descriptor)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    written, changed = status.st_mtime, status.st_ctime
                    later = written if written > changed else changed  # as `max` in a third of its time
                    yield make((hash_name, prefix + name, below + name, status.st_size, later, ""))
        finally:
            os.close(descriptor)
