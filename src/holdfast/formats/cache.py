"""Digests of files that have not changed since they were last read.

One SQLite file, keyed by device, inode, size and mtime in nanoseconds: what DVC goes by too. It can be deleted at any
time (see `holdfast.cachefile`).
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from holdfast.cachefile import CacheFile, signed, unsigned
from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Checkpoint
from holdfast.formats.content import NoDigestError, Progress, digest_of, tensor_digests
from holdfast.formats.digest import file_digest, file_digest_and_md5, file_md5
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import FileSource
from holdfast.formats.summary import Summary, summary_of

SCHEMA = 1
# a file written within the clock's last tick could be written again without another mtime; the tick of ext4 is 4 ms
RACY_NS = 20_000_000
TABLE = (
    "CREATE TABLE IF NOT EXISTS digests (device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER,"
    " file TEXT, md5 TEXT, weights TEXT, no_weights TEXT, summary TEXT, tensors TEXT,"
    " PRIMARY KEY (device, inode, size, mtime_ns)) WITHOUT ROWID"
)
# SQLite takes 32,766 values in a query
INODES_A_QUERY = 30_000
COLUMNS = ("file", "md5", "weights", "no_weights", "summary")

Key = tuple[int, int, int, int]


@dataclass(frozen=True)
class Digests:
    """What is known of a file; None where nobody has asked yet.

    Attributes:
        file: ``blake3:<hex>`` of its bytes.
        md5: 32 hex digits: DVC's oid.
        weights: the weights digest.
        no_weights: why there is none.
        summary: the checkpoint in figures.
        tensors: the 32 raw bytes of each tensor's digest, by its full name.
    """

    file: str | None = None
    md5: str | None = None
    weights: str | None = None
    no_weights: str | None = None
    summary: Summary | None = None
    tensors: Mapping[str, bytes] | None = None


def key_of(status: os.stat_result) -> Key:
    """What a file's digests are kept under."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class DigestCache:
    """The cache in a file; made where there is none.

    Args:
        path: where it lies, None for one that keeps nothing.
        now_ns: the clock, nanoseconds since 1970.
    """

    def __init__(self, path: Path | None, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.now_ns = now_ns
        self._file = CacheFile(path, SCHEMA, [TABLE])

    def get(self, status: os.stat_result) -> Digests:
        """What is known of the file with this status."""
        with self._file.trying() as connection:
            if connection is not None:
                row = connection.execute(
                    f"SELECT {', '.join(COLUMNS)}, tensors FROM digests"
                    " WHERE device = ? AND inode = ? AND size = ? AND mtime_ns = ?",
                    _signed(key_of(status)),
                ).fetchone()
                if row is not None:
                    return _digests(row)
        return Digests()

    def many(self, keys: Iterable[Key]) -> dict[Key, Digests]:
        """What is known of many files, without their tensors' digests: a query for 30,000 files, and none for each.

        Files of which nothing is known are not in it.
        """
        devices: dict[int, list[int]] = {}
        wanted = set(keys)
        for device, inode, _, _ in wanted:
            devices.setdefault(device, []).append(signed(inode))
        found: dict[Key, Digests] = {}
        with self._file.trying() as connection:
            if connection is not None:
                for device, inodes in devices.items():
                    for start in range(0, len(inodes), INODES_A_QUERY):
                        part = inodes[start : start + INODES_A_QUERY]
                        rows = connection.execute(
                            f"SELECT device, inode, size, mtime_ns, {', '.join(COLUMNS)}, NULL FROM digests"
                            f" WHERE device = ? AND inode IN ({', '.join('?' * len(part))})",
                            (signed(device), *part),
                        )
                        known = ((_unsigned(row[:4]), row[4:]) for row in rows)
                        found |= {key: _digests(row) for key, row in known if key in wanted}
        return found

    def put(self, status: os.stat_result, digests: Digests) -> None:
        """Add what is not None to what is known of the file; a file changed this very moment is not kept."""
        if self.now_ns() - status.st_mtime_ns >= RACY_NS:
            self.put_key(key_of(status), digests)

    def put_key(self, key: Key, digests: Digests) -> None:
        """The same for what a caller knows to be unchanging under a key of its own."""
        tensors = None if digests.tensors is None else {name: raw.hex() for name, raw in digests.tensors.items()}
        values = (
            *_signed(key),
            digests.file,
            digests.md5,
            digests.weights,
            digests.no_weights,
            None if digests.summary is None else json.dumps(digests.summary.as_json()),
            None if tensors is None else json.dumps(tensors),
        )
        names = (*COLUMNS, "tensors")
        with self._file.trying() as connection:
            if connection is not None:
                connection.execute(
                    f"INSERT INTO digests VALUES ({', '.join('?' * len(values))})"
                    " ON CONFLICT DO UPDATE SET "
                    + ", ".join(f"{name} = COALESCE(excluded.{name}, {name})" for name in names),
                    values,
                )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "DigestCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _signed(key: Key) -> Key:
    a, b, c, d = map(signed, key)
    return (a, b, c, d)


def _unsigned(key: Key) -> Key:
    a, b, c, d = map(unsigned, key)
    return (a, b, c, d)


def _digests(row: tuple[str | None, ...]) -> Digests:
    file, md5, weights, no_weights, summary, tensors = row
    return Digests(
        file=file,
        md5=md5,
        weights=weights,
        no_weights=no_weights,
        summary=None if summary is None else Summary.from_json(json.loads(summary)),
        tensors=None if tensors is None else {name: bytes.fromhex(text) for name, text in json.loads(tensors).items()},
    )


def digests_of(
    path: Path,
    cache: DigestCache,
    *,
    file: bool = False,
    md5: bool = False,
    weights: bool = False,
    tensors: bool = False,
    summary: bool = False,
    progress: Progress | None = None,
) -> Digests:
    """What was asked for of a file, read only where the cache does not know it, and remembered.

    Args:
        path: the file.
        cache: what is known.
        file: the digest of its bytes.
        md5: DVC's oid; with ``file`` from the same pass.
        weights: the weights digest; where there is none, ``no_weights`` says why.
        tensors: each tensor's digest.
        summary: the figures.
        progress: called with the bytes of each piece of a tensor that was hashed.

    Raises:
        IntegrityError: the file is damaged, or was changed while it was read.
        OSError: it cannot be read.
    """
    before = path.stat()
    known = cache.get(before)
    found = dict(known.__dict__)
    if file and known.file is None and md5 and known.md5 is None:
        found["file"], found["md5"] = file_digest_and_md5(path)
    elif file and known.file is None:
        found["file"] = file_digest(path)
    elif md5 and known.md5 is None:
        found["md5"] = file_md5(path)
    keep = True
    wants_weights = weights and known.weights is None and known.no_weights is None
    if wants_weights or (tensors and known.tensors is None) or (summary and known.summary is None):
        with FileSource(path) as source:
            checkpoint = read_checkpoint(source)
            found |= _of_checkpoint(
                checkpoint, weights=wants_weights, tensors=tensors and known.tensors is None, progress=progress
            )
        # weights beside the file are not in the key
        keep = not any(tensor.storage.external for tensor in checkpoint.tensors)
    if key_of(path.stat()) != key_of(before):
        raise IntegrityError(f"{path} was changed while it was read")
    digests = Digests(**found)
    if digests != known and keep:
        cache.put(before, digests)
    return digests


def _of_checkpoint(
    checkpoint: Checkpoint, *, weights: bool, tensors: bool, progress: Progress | None
) -> dict[str, object]:
    found: dict[str, object] = {"summary": summary_of(checkpoint)}
    try:
        if tensors:
            digests = tensor_digests(checkpoint, progress=progress)
            found["tensors"] = digests
        elif weights and not checkpoint.no_digest:
            digests = tensor_digests(checkpoint, checkpoint.weights, progress)
        if weights and checkpoint.no_digest:
            found["no_weights"] = checkpoint.no_digest
        elif weights:
            found["weights"] = digest_of(checkpoint.weights, digests)
    except NoDigestError as error:
        found["no_weights"] = error.message
    return found
