"""The table of contents of a zip archive, read from its end, without the data.

Facts are those of PKWARE's APPNOTE 6.3.10: 4.3.16 (end of central directory), 4.3.14 and 4.3.15 (zip64), 4.3.12
(central directory), 4.3.7 (local header). The standard library's reader is not used because it says nothing of
overlapping members, takes the last of two members of one name, and wants a file object.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Storage
from holdfast.formats.source import READ_BYTES, Cursor, Source, chunks, read_exactly

END = b"PK\x05\x06"
END64 = b"PK\x06\x06"
END64_LOCATOR = b"PK\x06\x07"
ENTRY = b"PK\x01\x02"
LOCAL = b"PK\x03\x04"
END_BYTES, END64_BYTES, LOCATOR_BYTES, ENTRY_BYTES, LOCAL_BYTES = 22, 56, 20, 46, 30
MAX_COMMENT_BYTES = 65_535
MAX_DIRECTORY_BYTES = 32 * 1024 * 1024
MAX_MEMBERS = 200_000
STORED, DEFLATED = 0, 8
ENCRYPTED = 1
ALL_ONES_32, ALL_ONES_16 = 0xFFFFFFFF, 0xFFFF
ZIP64_EXTRA = 1


@dataclass(frozen=True)
class Member:
    """One file in the archive, as the directory at the end has it.

    Attributes:
        name: as written there, with forward slashes.
        method: 0 stored, 8 deflated; others are not read.
        flags: the general purpose bits.
        crc32: of the unpacked bytes.
        packed: bytes in the archive.
        plain: bytes unpacked.
        header: where its local header begins.
        limit: where the next member, or the directory, begins: its data ends before.
    """

    name: str
    method: int
    flags: int
    crc32: int
    packed: int
    plain: int
    header: int
    limit: int = 0


def members(source: Source) -> dict[str, Member]:
    """The members by name, in the order of their bytes.

    Raises:
        IntegrityError: there is no directory, it is torn, two members have one name, they overlap, or a name leads out
            of the folder one would unpack into.
    """
    start, nbytes, count = _directory(source)
    if nbytes > MAX_DIRECTORY_BYTES or count > MAX_MEMBERS:
        raise IntegrityError(f"{source.name} has a directory of {count} members in {nbytes} bytes, which no model has")
    data = read_exactly(source, start, nbytes)
    found: list[Member] = []
    position = 0
    for _ in range(count):
        if data[position : position + 4] != ENTRY or position + ENTRY_BYTES > nbytes:
            raise IntegrityError(f"{source.name} has a broken archive directory at byte {start + position}")
        flags, method, crc32, packed, plain, name_bytes, extra_bytes, comment_bytes, header = struct.unpack_from(
            "<2x2x H H 4x L L L H H H 2x2x4x L", data, position + 4
        )
        position += ENTRY_BYTES
        name = data[position : position + name_bytes].decode("utf-8", "backslashreplace")
        extra = data[position + name_bytes : position + name_bytes + extra_bytes]
        packed, plain, header = _zip64(source, name, extra, packed, plain, header)
        position += name_bytes + extra_bytes + comment_bytes
        _check_name(source, name)
        found.append(Member(name, method, flags, crc32, packed, plain, header))
    if position > nbytes:
        raise IntegrityError(f"{source.name} has a broken archive directory: it ends inside of a member")
    return _placed(source, found, start)


def _placed(source: Source, found: list[Member], directory: int) -> dict[str, Member]:
    found.sort(key=lambda member: member.header)
    placed: dict[str, Member] = {}
    for member, limit in zip(found, [*(other.header for other in found), directory][1:], strict=True):
        if member.name in placed:
            raise IntegrityError(f"{source.name} has two members named {member.name!r}")
        if member.header + LOCAL_BYTES + member.packed > limit:
            raise IntegrityError(f"{source.name}: its member {member.name!r} overlaps what follows it")
        placed[member.name] = Member(**{**member.__dict__, "limit": limit})
    return placed


def storage_of(source: Source, member: Member) -> Storage:
    """Where a member's bytes lie; its local header is read for that.

    Raises:
        IntegrityError: the header is broken or contradicts the directory, or the member is packed in a way that no
            checkpoint is.
    """
    header = read_exactly(source, member.header, LOCAL_BYTES)
    signature, method, name_bytes, extra_bytes = struct.unpack("<4s 2x2x H 2x2x4x4x4x H H", header)
    offset = member.header + LOCAL_BYTES + name_bytes + extra_bytes
    name = read_exactly(source, member.header + LOCAL_BYTES, name_bytes) if signature == LOCAL else b""
    if signature != LOCAL or name.decode("utf-8", "backslashreplace") != member.name or method != member.method:
        raise IntegrityError(f"{source.name}: the header of its member {member.name!r} contradicts the directory")
    if offset + member.packed > member.limit:
        raise IntegrityError(f"{source.name}: its member {member.name!r} overlaps what follows it")
    if member.flags & ENCRYPTED or member.method not in (STORED, DEFLATED):
        raise IntegrityError(f"{source.name}: its member {member.name!r} is encrypted or packed by method {method}")
    if member.method == STORED and member.packed != member.plain:
        raise IntegrityError(f"{source.name}: its member {member.name!r} is stored, yet has two lengths")
    # torch writes 0 where it was told not to compute it (torch.serialization.set_crc32_options)
    crc32 = member.crc32 or None
    if member.method == STORED:
        return Storage(offset, member.packed, crc32=crc32)
    return Storage(offset, member.packed, "deflate", member.plain, crc32=crc32)


def plain_chunks(source: Source, storage: Storage) -> Iterator[bytes]:
    """The unpacked bytes of a raw or deflated storage, in pieces of at most `READ_BYTES`, checked against its CRC.

    Raises:
        IntegrityError: they do not unpack, or have another length or CRC.
    """
    pieces = chunks(source, storage.offset, storage.nbytes)
    crc32, length = storage.crc32_before, 0
    for piece in _inflate(source, storage, pieces) if storage.codec == "deflate" else pieces:
        if storage.crc32 is not None:
            crc32 = zlib.crc32(piece, crc32)
        length += len(piece)
        yield piece
    if length != storage.plain_nbytes:
        raise IntegrityError(
            f"{source.name}: what begins at byte {storage.offset} unpacks to {length} bytes, not {storage.plain_nbytes}"
        )
    if storage.crc32 is not None and crc32 != storage.crc32:
        raise IntegrityError(f"{source.name} is damaged: what begins at byte {storage.offset} has another CRC")


def member_bytes(source: Source, storage: Storage, limit: int) -> bytes:
    """All unpacked bytes of a small member.

    Raises:
        IntegrityError: as of `plain_chunks`, or it is longer than ``limit`` bytes.
    """
    if storage.plain_nbytes > limit:
        raise IntegrityError(f"{source.name}: what begins at byte {storage.offset} has {storage.plain_nbytes} bytes")
    return b"".join(plain_chunks(source, storage))


def _inflate(source: Source, storage: Storage, pieces: Iterator[bytes]) -> Iterator[bytes]:
    # no more is unpacked than was announced, so that a bomb ends where its header says it does
    unpacker, left = zlib.decompressobj(-zlib.MAX_WBITS), storage.plain_nbytes
    try:
        for piece in pieces:
            rest = piece
            while rest and not unpacker.eof:
                plain = unpacker.decompress(rest, min(READ_BYTES, left + 1))
                rest = unpacker.unconsumed_tail
                left -= len(plain)
                if left < 0:
                    raise IntegrityError(f"{source.name}: what begins at byte {storage.offset} is longer than it says")
                if plain:
                    yield plain
    except zlib.error as error:
        raise IntegrityError(
            f"{source.name} is damaged: what begins at byte {storage.offset} does not unpack: {error}"
        ) from error


def _directory(source: Source) -> tuple[int, int, int]:
    window = min(source.size, END_BYTES + MAX_COMMENT_BYTES)
    base = source.size - window
    tail = read_exactly(source, base, window)
    # a comment may hold the signature: the right one is that whose comment ends with the file
    place = tail.rfind(END)
    while place >= 0:
        if len(tail) - place >= END_BYTES:
            (comment_bytes,) = struct.unpack_from("<H", tail, place + 20)
            if place + END_BYTES + comment_bytes == len(tail):
                break
        place = tail.rfind(END, 0, place)
    if place < 0:
        raise IntegrityError(f"{source.name} is a torn zip archive: it has no directory at its end")
    disk, _, _, count, nbytes, start = struct.unpack_from("<H H H H L L", tail, place + 4)
    end = base + place
    if end >= LOCATOR_BYTES and (ALL_ONES_32 in (nbytes, start) or ALL_ONES_16 in (disk, count)):
        locator = read_exactly(source, end - LOCATOR_BYTES, LOCATOR_BYTES)
        if locator[:4] == END64_LOCATOR:
            (end,) = struct.unpack_from("<Q", locator, 8)
            record = read_exactly(source, end, END64_BYTES)
            if record[:4] != END64:
                raise IntegrityError(f"{source.name} has a broken zip64 directory")
            count, nbytes, start = struct.unpack_from("<Q Q Q", record, 32)
    if start + nbytes > end:
        raise IntegrityError(f"{source.name} has an archive directory that lies behind its own end")
    return start, nbytes, count


def _zip64(source: Source, name: str, extra: bytes, packed: int, plain: int, header: int) -> tuple[int, int, int]:
    position, wide = 0, b""
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<H H", extra, position)
        if kind == ZIP64_EXTRA:
            wide = extra[position + 4 : position + 4 + length]
        position += 4 + length
    values = []
    for value in (plain, packed, header):
        if value == ALL_ONES_32:
            if len(wide) < 8:
                raise IntegrityError(f"{source.name}: its member {name!r} lacks its zip64 lengths")
            (value,), wide = struct.unpack_from("<Q", wide), wide[8:]
        values.append(value)
    return values[1], values[0], values[2]


def _check_name(source: Source, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or not name:
        raise IntegrityError(f"{source.name} has a member whose name leads out of it: {name[:80]!r}")


def member_cursor(source: Source, storage: Storage) -> Cursor:
    """A cursor over a stored member."""
    assert storage.codec == "raw"
    return Cursor(source, storage.offset, storage.offset + storage.nbytes)
