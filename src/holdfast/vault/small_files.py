"""Small files that another process reads and hashes, many at a time: of a hundred thousand each costs little but that.

A request is the paths, with a null byte between two. The answer is a `_RECORD` for each (its length; its md5; its
BLAKE3), and then the bytes of all of them. The length is `_NOT_READ` for what is not small, cannot be read, or would
make the answer longer than `ANSWER_BYTES`: the caller looks at that by itself, and finds out why.
"""

import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

# files up to this size share blobs; a larger one has blobs of its own
SMALL_BYTES = 64 << 10
ANSWER_BYTES = 16 << 20
_RECORD = struct.Struct("<i16s32s")
_NOT_READ = -1


class SmallFile(NamedTuple):
    """A file that was read.

    Attributes:
        data: all of it.
        md5: of that.
        digest: BLAKE3 of that.
    """

    data: bytes
    md5: bytes
    digest: bytes

    def hexdigest(self) -> str:
        """The md5, 32 hex digits."""
        return self.md5.hex()


def read_small(path: "str | Path | bytes") -> bytes | None:
    """The bytes of a small file; None of a larger one.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        data = os.read(descriptor, SMALL_BYTES + 1)
        # a read may be cut short: only one that finds the end has found all
        if len(data) > SMALL_BYTES or len(data) != os.fstat(descriptor).st_size:
            return None
        return data
    finally:
        os.close(descriptor)


def request_of(paths: Sequence["str | Path"]) -> bytes:
    """What asks for those files."""
    return b"\0".join(map(os.fsencode, paths))


def answer_to(request: bytes) -> bytes:
    """The files that it asks for."""
    records, parts, total = [], [], 0
    for path in request.split(b"\0"):
        try:
            data = read_small(path) if total < ANSWER_BYTES else None
        except OSError:
            data = None
        if data is None:
            records.append(_RECORD.pack(_NOT_READ, b"", b""))
        else:
            total += len(data)
            records.append(
                _RECORD.pack(len(data), hashlib.md5(data, usedforsecurity=False).digest(), blake3(data).digest())
            )
            parts.append(data)
    return b"".join((*records, *parts))


def files_in(answer: bytes, count: int) -> list[SmallFile | None]:
    """What an answer to a request for so many files tells of each; None where it tells nothing."""
    found: list[SmallFile | None] = []
    at = count * _RECORD.size
    for length, md5, digest in _RECORD.iter_unpack(memoryview(answer)[:at]):
        if length == _NOT_READ:
            found.append(None)
        else:
            found.append(SmallFile(answer[at : at + length], md5, digest))
            at += length
    return found
