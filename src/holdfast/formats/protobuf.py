"""As much of protobuf's wire format as finding byte spans takes (protobuf.dev, "Encoding")."""

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Storage
from holdfast.formats.source import READ_BYTES, Cursor, Source

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 5_000_000


class MalformedMessageError(ValueError):
    """The bytes make no message."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its number, wire type, value (varint and fixed) or span (bytes)."""

    number: int
    wire: int
    value: int
    offset: int
    nbytes: int


class Counter:
    """How many fields were read; one for each file."""

    def __init__(self) -> None:
        self.fields = 0


def varint(cursor: Cursor) -> int:
    """The next varint, as an unsigned 64-bit number.

    Raises:
        MalformedMessageError: it is longer than ten bytes.
        EOFError: the message ends in it.
    """
    value = shift = 0
    while True:
        byte = cursor.byte()
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF
        shift += 7
        if shift >= 70:
            raise MalformedMessageError(f"a number at byte {cursor.position} does not end")


def fields(source: Source, offset: int, nbytes: int, counter: Counter) -> Iterator[Field]:
    """The fields of the message in a span; what is inside of bytes is not read.

    Raises:
        MalformedMessageError: it is no message, is torn, or the file has more than `MAX_FIELDS` fields.
    """
    cursor = Cursor(source, offset, offset + nbytes)
    try:
        while cursor.left > 0:
            counter.fields += 1
            if counter.fields > MAX_FIELDS:
                raise MalformedMessageError(f"it has more than {MAX_FIELDS:,} fields")
            tag = varint(cursor)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                yield Field(number, wire, varint(cursor), 0, 0)
            elif wire == BYTES:
                length = varint(cursor)
                start = cursor.position
                cursor.skip(length)
                yield Field(number, wire, 0, start, length)
            elif wire in (FIXED32, FIXED64):
                width = 4 if wire == FIXED32 else 8
                yield Field(number, wire, int.from_bytes(cursor.read(width), "little"), cursor.position - width, width)
            else:
                raise MalformedMessageError(f"a field before byte {cursor.position} has the unknown wire type {wire}")
    except EOFError as error:
        raise MalformedMessageError(str(error)) from error


def varint_chunks(source: Source, storage: Storage, bits: int) -> Iterator[bytes]:
    """Packed varints written out as little-endian integers of ``bits`` bits each.

    Raises:
        IntegrityError: they are no varints, or of another number than the storage says.
    """
    cursor = Cursor(source, storage.offset, storage.offset + storage.nbytes)
    width, mask, length = bits // 8, (1 << bits) - 1, 0
    block = bytearray()
    try:
        while cursor.left > 0:
            block += (varint(cursor) & mask).to_bytes(width, "little")
            if len(block) >= READ_BYTES:
                length += len(block)
                yield bytes(block)
                block.clear()
    except (EOFError, MalformedMessageError) as error:
        raise IntegrityError(f"{source.name}: the numbers at byte {storage.offset} are broken: {error}") from error
    if length + len(block) != storage.plain_nbytes:
        raise IntegrityError(f"{source.name}: the numbers at byte {storage.offset} are not as many as their shape says")
    yield bytes(block)
