"""Small files that another process reads, hashes and puts together: of a hundred thousand each costs little but that.

A request is text with a null byte between two parts: how many bytes the blob has that is begun; then for each file its
oid, the BLAKE3 that it must have in hex (empty for any), and its path.

An answer is about the first of these files, as many as fit: a `_HEAD` (how many files, and groups); a `_RECORD` for
each file (its length, or `_NOT_TAKEN`; its BLAKE3); a `_GROUP` for each group; what the groups hold. A file is taken if
it is small, can be read, and is what its oid says; with another one the caller finds out what is wrong. A group is the
files that were taken from where the one before it ended up to its own end: all of a blob, which is encoded; or what
belongs to a blob that is begun or not yet full, as it is.
"""

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from blake3 import blake3

from holdfast.vault.codec import encode
from holdfast.vault.codec_loops import Loops
from holdfast.vault.oids import hasher_of, md5_of
from holdfast.vault.reading import blob_id

# files up to this size share blobs; a larger one has blobs of its own
SMALL_BYTES = 64 << 10
# a blob of small files is full when it has so many
BUNDLE_BYTES = 1 << 20
# an answer ends with the blob that makes it so long
ANSWER_BYTES = 16 << 20
_HEAD, _RECORD, _GROUP = struct.Struct("<II"), struct.Struct("<i32s"), struct.Struct("<II32sI")
_NOT_TAKEN = -1
_OPENED = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_SEPARATOR = "\0"

Asked: TypeAlias = tuple[str, bytes, "str | Path"]


class Group(NamedTuple):
    """Files that are next to one another in a blob.

    Attributes:
        stop: the number of the last of them, and one.
        nbytes: of all of them.
        name: of the blob that they are all of; empty where they are a part of one.
        data: that blob, encoded; or their bytes.
    """

    stop: int
    nbytes: int
    name: bytes
    data: "bytes | memoryview"


class Answer(NamedTuple):
    """What was read.

    Attributes:
        files: length and BLAKE3 of each file that the answer is about; None for one that was not taken.
        groups: of those that were taken.
    """

    files: list[tuple[int, bytes] | None]
    groups: list[Group]

    def begun(self, before: int) -> int:
        """How many bytes the blob has that is begun, where it had so many before."""
        if not self.groups or self.groups[-1].name:
            return 0 if self.groups else before
        total = self.groups[-1].nbytes + (before if len(self.groups) == 1 else 0)
        return total if total < BUNDLE_BYTES else 0


def read_small(path: "str | Path") -> bytes | None:
    """The bytes of a small file; None of a larger one.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, _OPENED)
    try:
        data = os.read(descriptor, SMALL_BYTES + 1)
        # a read may be cut short: only one that finds the end has found all
        if len(data) > SMALL_BYTES or len(data) != os.fstat(descriptor).st_size:
            return None
        return data
    finally:
        os.close(descriptor)


def request_of(files: Iterable[Asked], begun: int = 0) -> bytes:
    """What asks for files.

    Args:
        files: oid of each; its BLAKE3, empty for any; its path.
        begun: how many bytes the blob has that the first ones go into.
    """
    parts = [str(begun)]
    for oid, digest, path in files:
        parts += (oid, digest.hex(), os.fspath(path))
    return os.fsencode(_SEPARATOR.join(parts))


def none_of(files: Sequence[Asked]) -> Answer:
    """That none of these files was taken."""
    return Answer([None] * len(files), [])


def answer_to(request: bytes, loops: Loops | None = None) -> list[bytes]:
    """The files that it asks for: the answer, in parts; ``loops`` as of `holdfast.vault.codec.encode`."""
    first, *asked = os.fsdecode(request).split(_SEPARATOR)
    begun, total = int(first), 0
    records: list[bytes] = []
    groups: list[bytes] = []
    contents: list[bytes] = []
    # one for all of them: fresh memory costs more than to read a file
    room = memoryview(bytearray(BUNDLE_BYTES + SMALL_BYTES + 1))
    filled = stop = closed = 0

    def close(name: bytes, data: bytes) -> None:
        groups.append(_GROUP.pack(stop, filled, name, len(data)))
        contents.append(data)

    for oid, wanted, path in zip(asked[::3], asked[1::3], asked[2::3], strict=True):
        length, digest = _taken(oid, wanted, path, room[filled:])
        records.append(_RECORD.pack(length, digest))
        if length == _NOT_TAKEN:
            continue
        filled += length
        stop = len(records)
        if begun + filled < BUNDLE_BYTES:
            continue
        whole = room[:filled]
        if begun:
            close(b"", bytes(whole))
        else:
            close(blob_id(whole), encode(whole, loops=loops))
        total += filled
        begun, filled, closed = 0, 0, stop
        if total >= ANSWER_BYTES:
            break
    if stop > closed:
        close(b"", bytes(room[:filled]))
    return [_HEAD.pack(len(records), len(groups)), b"".join(records), b"".join(groups), *contents]


def answer_of(data: memoryview) -> Answer:
    """What an answer tells."""
    files, groups = _HEAD.unpack_from(data)
    at = _HEAD.size + files * _RECORD.size
    records = _RECORD.iter_unpack(data[_HEAD.size : at])
    place = at + groups * _GROUP.size
    found = []
    for stop, nbytes, name, length in _GROUP.iter_unpack(data[at:place]):
        found.append(Group(stop, nbytes, name if any(name) else b"", data[place : place + length]))
        place += length
    return Answer([None if record[0] == _NOT_TAKEN else record for record in records], found)


def _taken(oid: str, wanted: str, path: str, room: memoryview) -> tuple[int, bytes]:
    """The length and BLAKE3 of a small file that is read to where there is room."""
    hasher = hasher_of(oid)
    try:
        descriptor = os.open(path, _OPENED)
        try:
            # one byte more than it may have, so that a longer one is seen
            length = os.readv(descriptor, [room[: SMALL_BYTES + 1]])
            # a read may be cut short: the md5 tells, and where there is none the length
            whole = hasher is not None or length == os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    except OSError:
        return _NOT_TAKEN, b""
    if length > SMALL_BYTES or not whole:
        return _NOT_TAKEN, b""
    data = room[:length]
    if hasher is not None:
        hasher.update(data)
        if hasher.hexdigest() != md5_of(oid):
            return _NOT_TAKEN, b""
    digest = blake3(data).digest()
    if wanted and digest.hex() != wanted:
        return _NOT_TAKEN, b""
    return length, digest
