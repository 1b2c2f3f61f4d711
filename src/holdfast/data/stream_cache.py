"""What a stream has fetched, kept on disk up to a bound: for the next epoch, and for other processes.

An entry is a file: the bytes, and a digest of them keyed by what they are. So one that a killed process, a power
failure or a bad disk left torn is never handed out. Nothing here is needed, and the folder can be deleted at any time.
"""

import fcntl
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

DIGEST_BYTES = 32
# a full cache is emptied down to this share, so that not each new entry has to look through all of them
KEPT_SHARE = 0.9
# a disk without any room would stop the training that the cache is there for
FREE_BYTES = 2**30
# what was fetched and is not on disk yet
WAITING_BYTES = 64 * 2**20
LOCK, TEMPORARY_SUFFIX = "lock", ".tmp"


class StreamCache:
    """A cache folder; any number of processes and threads use it at once.

    Entries that were not read for longest go first. All bytes in the folder together stay below the bound at any time,
    whatever is killed when: a process that writes holds a lock, and counts what it writes before it does.

    Args:
        folder: made when something is first kept.
        limit_bytes: the bound; processes with different bounds keep the smallest.
        free_bytes: what the disk keeps free.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, free_bytes: int = FREE_BYTES) -> None:
        self.folder, self.limit_bytes, self.free_bytes = folder, limit_bytes, free_bytes

    def get(self, identity: str) -> bytes | None:
        """The bytes that were kept under a name; None where there are none, or they are damaged.

        Args:
            identity: names the bytes for ever: a checksum, or URL, etag and range.
        """
        path, key = self._place(identity)
        try:
            with open(path, "rb", buffering=0) as stream:
                size = os.fstat(stream.fileno()).st_size - DIGEST_BYTES
                data = _read(stream.fileno(), max(0, size))
                digest = _read(stream.fileno(), DIGEST_BYTES)
        except OSError:
            return None
        if blake3(data, key=key).digest() != digest:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # who may read but not write here still reads
            os.utime(path)
        return data

    def put(self, identity: str, data: bytes) -> None:
        """Keep bytes, if there is room; where the disk is full or may not be written, they are not kept."""
        self.put_many([(identity, data)])

    def put_many(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """The same of several, which lock the cache once."""
        fitting = [(identity, data) for identity, data in entries if len(data) + DIGEST_BYTES <= self.limit_bytes]
        if not fitting:
            return
        with suppress(OSError), self._locked() as lock:
            state = os.statvfs(self.folder)
            free = state.f_bavail * state.f_frsize - self.free_bytes
            total = self._total(lock)
            for identity, data in fitting:
                path, key = self._place(identity)
                need = len(data) + DIGEST_BYTES
                free -= need
                if free < 0:
                    return
                if path.exists():
                    continue
                if total + need > self.limit_bytes:
                    total = self._evict(int(self.limit_bytes * KEPT_SHARE) - need)
                total += need
                _write_total(lock, total)  # before the bytes: one killed in between has counted too much
                _write_entry(path, data, blake3(data, key=key).digest())

    def _place(self, identity: str) -> tuple[Path, bytes]:
        """The file of an entry, and the key of its digest."""
        key = blake3(identity.encode("utf-8", "surrogateescape")).digest()
        name = key.hex()[:40]
        return self.folder / name[:2] / name[2:], key

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _total(self, lock: int) -> int:
        """The bytes of all entries, or more, as the lock's file says."""
        text = os.pread(lock, 32, 0)
        return int(text) if text.isdigit() else self._evict(self.limit_bytes)

    def _evict(self, goal: int) -> int:
        """Delete what was not read for longest until no more than ``goal`` is there; what is there then."""
        entries: list[tuple[int, int, str]] = []
        for folder in os.scandir(self.folder):
            if not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder.path):
                with suppress(FileNotFoundError):  # a reader found it damaged
                    status = entry.stat(follow_symlinks=False)
                    # who writes holds the lock, which is ours now: that of one who was killed
                    read = -1 if entry.name.endswith(TEMPORARY_SUFFIX) else status.st_mtime_ns
                    entries.append((read, status.st_size, entry.path))
        total = sum(size for _, size, _ in entries)
        for read, size, path in sorted(entries):
            if total <= goal and read >= 0:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - ten thousand at once
            total -= size
        return total


class WriteBehind:
    """Puts entries into a cache in a thread of its own, so that nothing that is fetched waits for a disk.

    Args:
        cache: where to.
        limit_bytes: what waits has no more bytes than these, and one entry; then `put` waits, too.
    """

    def __init__(self, cache: StreamCache, limit_bytes: int = WAITING_BYTES) -> None:
        self._cache, self._limit_bytes = cache, limit_bytes
        self._waiting: list[tuple[str, bytes]] = []
        self._nbytes = 0
        self._working = False
        self._changed = threading.Condition()

    def put(self, identity: str, data: bytes) -> None:
        """Have bytes kept, soon."""
        with self._changed:
            self._changed.wait_for(lambda: self._nbytes < self._limit_bytes)
            self._waiting.append((identity, data))
            self._nbytes += len(data)
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="holdfast-stream-cache", daemon=True).start()

    def flush(self) -> None:
        """Wait until all of it was put."""
        with self._changed:
            self._changed.wait_for(lambda: not self._working)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._working = False
                    self._changed.notify_all()
                    return
                batch, self._waiting = self._waiting, []
            try:
                self._cache.put_many(batch)
            except BaseException:
                with self._changed:  # nobody is to wait for a thread that has ended
                    self._waiting, self._nbytes, self._working = [], 0, False
                    self._changed.notify_all()
                raise
            with self._changed:
                self._nbytes -= sum(len(data) for _, data in batch)
                self._changed.notify_all()


def _read(descriptor: int, count: int) -> bytes:
    data = os.read(descriptor, count)
    if len(data) == count:
        return data
    pieces, left = [data], count - len(data)
    while left and (data := os.read(descriptor, left)):  # 2 GiB are the most that one call reads
        pieces.append(data)
        left -= len(data)
    return b"".join(pieces)


def _write_entry(path: Path, data: bytes, digest: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    path.parent.mkdir(exist_ok=True)
    try:
        with open(temporary, "xb", buffering=0) as stream:
            left = memoryview(data)
            while left:
                left = left[stream.write(left) :]
            stream.write(digest)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _write_total(lock: int, total: int) -> None:
    os.pwrite(lock, b"%032d" % total, 0)
