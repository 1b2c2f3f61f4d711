"""The files of a remote as files of this machine: those of a folder where they are, those of a bucket for a while."""

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from holdfast.errors import HoldfastError
from holdfast.objectstore.folder import FolderStore
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, TruncatedError
from holdfast.vault.layout import key_of

Item = TypeVar("Item")
Result = TypeVar("Result")

# a part of an object that one request fetches; as many at a time are in memory as there are requests
PART_BYTES = 8 << 20
# small objects are waited for, not worked on: more requests than threads that encode
REQUESTS_A_JOB = 4


class LocalFiles(Protocol):
    """Files of a remote, as paths."""

    @property
    def folder(self) -> Path:
        """What their keys are relative to."""

    def fetch(self, sizes: Mapping[str, int]) -> dict[str, HoldfastError]:
        """Have files at hand, by oid; why not, for those that could not be fetched.

        Raises:
            StoreError: the store cannot be reached.
            OSError: the disk is full, or cannot be written.
        """

    def path(self, oid: str) -> Path:
        """Where a file is, if it is at hand."""

    def keep(self, wanted: Callable[[str], int | None], done: Collection[str], limit: int) -> None:
        """Give up files that were used and are not needed any more.

        Args:
            wanted: when a file is needed next, None for never; what is needed last is given up first.
            done: more files that were used.
            limit: bytes of used files that may be kept, but for the one that is needed next.
        """

    def close(self) -> None:
        """Begin nothing more."""


class FilesInPlace:
    """The files of a folder, where they are.

    Args:
        folder: the remote's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, sizes: Mapping[str, int]) -> dict[str, HoldfastError]:  # noqa: ARG002 - the protocol's signature
        """They are here."""
        return {}

    def path(self, oid: str) -> Path:
        """Where a file is."""
        return self.folder / (key_of(oid) or oid)

    def keep(self, wanted: Callable[[str], int | None], done: Collection[str], limit: int) -> None:
        """They are not ours to give up."""

    def close(self) -> None:
        """There is nothing to end."""


class DownloadedFiles:
    """The files of a bucket, for as long as they are needed.

    Args:
        store: the bucket.
        folder: where they lie meanwhile, under their keys.
        jobs: as of `holdfast.vault.repository.open_vault`.
    """

    def __init__(self, store: ObjectStore, folder: Path, jobs: int) -> None:
        self._store, self.folder, self._jobs = store, folder, jobs
        self._sizes: dict[str, int] = {}
        self._used: dict[str, None] = {}
        self._given_up = threading.Event()

    def fetch(self, sizes: Mapping[str, int]) -> dict[str, HoldfastError]:
        """Have files at hand, by oid; why not, for those that could not be fetched."""
        failed: dict[str, HoldfastError] = {}
        tasks: list[tuple[str, int, int]] = []
        for oid, size in sizes.items():
            path = self.path(oid)
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            starts = range(0, max(size, 1), PART_BYTES)
            tasks += [(oid, start, min(PART_BYTES, size - start)) for start in starts]

        def load(task: tuple[str, int, int]) -> None:
            oid, start, count = task
            if oid in failed or self._given_up.is_set():
                return
            try:
                data = self._store.get_range(key_of(oid) or oid, start, count)
            except (ObjectNotFoundError, TruncatedError) as error:
                failed[oid] = error
                return
            descriptor = os.open(self.path(oid), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    written = os.pwrite(descriptor, view, start)
                    view, start = view[written:], start + written
            finally:
                os.close(descriptor)

        for _ in concurrently(load, tasks, self._jobs * REQUESTS_A_JOB):
            pass
        for oid in failed:
            self.path(oid).unlink(missing_ok=True)
        self._sizes.update((oid, size) for oid, size in sizes.items() if oid not in failed)
        return failed

    def path(self, oid: str) -> Path:
        """Where a file is, if it is at hand."""
        return self.folder / (key_of(oid) or oid)

    def keep(self, wanted: Callable[[str], int | None], done: Collection[str], limit: int) -> None:
        """Give up files that were used and are not needed any more."""
        self._used.update(dict.fromkeys(oid for oid in done if oid in self._sizes))
        needed = {oid: at for oid in self._used if (at := wanted(oid)) is not None}
        gone = [oid for oid in self._used if oid not in needed]
        rest = sum(self._sizes[oid] for oid in needed)
        # the one that is needed next stays whatever its size: out of the vault it would be read with all its bases
        for oid in sorted(needed, key=lambda oid: -needed[oid])[:-1]:
            if rest > limit:
                gone.append(oid)
                rest -= self._sizes[oid]
        for oid in gone:
            self.path(oid).unlink(missing_ok=True)
            del self._used[oid]

    def close(self) -> None:
        """Begin no more downloads."""
        self._given_up.set()


def files_of(store: ObjectStore, scratch: Path, jobs: int) -> LocalFiles:
    """The files of a remote.

    Args:
        store: the remote.
        scratch: where downloads may lie; of nobody else.
        jobs: as of `holdfast.vault.repository.open_vault`.
    """
    return FilesInPlace(store.root) if isinstance(store, FolderStore) else DownloadedFiles(store, scratch, jobs)


def cut(items: Iterable[Item], size_of: Callable[[Item], int], *, nbytes: int, count: int) -> Iterator[Sequence[Item]]:
    """The items in groups of up to so many bytes and so many items, and never without any."""
    group: list[Item] = []
    total = 0
    for item in items:
        size = size_of(item)
        if group and (total + size > nbytes or len(group) >= count):
            yield group
            group, total = [], 0
        group.append(item)
        total += size
    if group:
        yield group
