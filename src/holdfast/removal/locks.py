"""One process at a time in a quarantine: the kernel's lock for folders, announcements for buckets."""

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from holdfast.objectstore.store import ObjectInfo, ObjectNotFoundError, ObjectStore, StoreError
from holdfast.removal.batches import LOCK, QuarantineLockedError
from holdfast.removal.folders import make_folders
from holdfast.removal.holders import read_holder, this_process

ENDED_AFTER = timedelta(days=1)  # an announcement that was not renewed for so long is that of a dead process
RENEWED_SECONDS = 1800.0
_MAX_HOLDER_BYTES = 4096
_NEVER = datetime.fromtimestamp(0, timezone.utc)


@contextmanager
def locked_folder(quarantine: Path) -> Iterator[None]:
    """Hold the quarantine, which is made where it is missing, and removed where nothing is in it at the end.

    The lock ends with the process, however that ends.

    Raises:
        QuarantineLockedError: another process holds it.
        OSError: the folder cannot be made or written.
    """
    path = quarantine / LOCK
    descriptor = None
    while descriptor is None:
        make_folders(quarantine)
        with contextlib.suppress(FileNotFoundError):  # whoever held it has just removed the folder
            descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        if [entry.name for entry in quarantine.iterdir()] == [LOCK]:
            path.unlink()
            with contextlib.suppress(OSError):  # the next one is there already
                quarantine.rmdir()
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock; None where its file was removed meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        who = f"process {holder}" if holder.isdigit() else "another process"
        raise QuarantineLockedError(str(path.parent), who) from None
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@dataclass
class BucketLock:
    """An announcement in a bucket, which has no locks of its own.

    Whoever wants to work writes an object of a name of its own, and only then lists the others. Of two who come at the
    same time at least one sees the other, and goes: that needs of the store that a listing has what was written before.

    A process that was killed leaves its announcement. It does not count where its machine can tell that the process is
    gone, or where the store's clock says that it was not renewed for a day. Who holds the lock renews it before it
    deletes anything, once half an hour has passed on its own clock, and stops where another one is there by then.

    Args:
        store: the bucket.
        folder: where announcements are.
        elapsed: seconds on a clock of this machine that only grows, also while it sleeps.

    Attributes:
        now: what the store's clock said when it was last announced.
    """

    store: ObjectStore
    folder: str
    elapsed: Callable[[], float]
    now: datetime = _NEVER
    _key: str = ""
    _since: float = 0.0
    _ended: list[str] = field(default_factory=list)
    _one: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def held(self) -> Iterator["BucketLock"]:
        """Hold it.

        Raises:
            QuarantineLockedError: another process holds it.
            StoreError: the bucket refuses, or gave no answer.
        """
        self._key = f"{self.folder}/{secrets.token_hex(16)}"
        try:
            self._announce()
            yield self
        finally:
            # where it cannot be taken back it ends with this process
            with contextlib.suppress(StoreError):
                self.store.delete_many([self._key, *self._ended])

    def renew(self) -> None:
        """Be sure to hold it still; called before anything is deleted, and from any thread.

        Raises:
            QuarantineLockedError: another process has come, which took this one for dead.
            StoreError: the bucket refuses, or gave no answer.
        """
        with self._one:
            if self.elapsed() - self._since > RENEWED_SECONDS:
                self._announce()

    def _announce(self) -> None:
        begun = self.elapsed()
        self.store.put(self._key, json.dumps(this_process().as_json(), sort_keys=True).encode())
        listed = list(self.store.list_objects(self.folder))
        self.now = self.store.head(self._key).modified
        self._ended = []
        for info in listed:
            if info.key == self._key:
                continue
            holder = self._holder(info)
            if holder is None:
                self._ended.append(info.key)
            else:
                raise QuarantineLockedError(f"{self.store.url}/{self.folder}", holder)
        self._since = begun

    def _holder(self, info: ObjectInfo) -> str | None:
        """Who announced it; None where that is over."""
        if self.now - info.modified > ENDED_AFTER:
            return None
        if info.size > _MAX_HOLDER_BYTES:
            return "another process"
        try:
            holder = read_holder(json.loads(self.store.get(info.key)))
        except ObjectNotFoundError:
            return None
        except (ValueError, RecursionError):
            return "another process"
        if holder is None:
            return "another process"
        return None if holder.is_gone else f"{holder} since {info.modified:%Y-%m-%d %H:%M} UTC"


def seconds_with_sleep() -> float:
    """Seconds on this machine's clock, which goes on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
