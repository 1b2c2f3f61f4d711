"""What a vault knows: where a blob is, how a file is put together, and what every reader refuses to believe.

A footer, a segment and the local index hold the same records, as tables (`holdfast.vault.listing`).
"""

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from holdfast.errors import IntegrityError

ID_BYTES = 32
MAX_DEPTH = 16
MAX_FILE_BYTES = 1 << 50
MAX_PIECES = 1 << 24  # of one file: 64 TiB in blocks of 4 MiB
MAX_BLOB_BYTES = 16 << 20
MAX_STORED_BYTES = MAX_BLOB_BYTES + (1 << 16)  # an encoded blob may be a little longer than what it holds
MAX_PACK_BYTES = 1 << 30
MAX_OID_BYTES = 512

_PIECE = Struct("<32sIIQ")


class DamagedVaultError(IntegrityError):
    """What a vault holds is corrupt, truncated, missing, or contradicts itself."""


class ConflictError(IntegrityError):
    """One oid stands for two contents."""


class Entry(NamedTuple):
    """A place where a blob is stored.

    Attributes:
        id: BLAKE3 of its plain bytes.
        pack: the pack's key; empty while the pack is not yet written.
        offset: where in the pack it begins.
        stored: how many bytes it has there.
        plain: how many it holds.
        base: the id of the blob that it is encoded against; empty for none.
        depth: 0 without a base, else more than that of the base's entry.
        kind: the codec of most of it (`holdfast.vault.codec_blocks.CODECS`).
    """

    id: bytes
    pack: str
    offset: int
    stored: int
    plain: int
    base: bytes
    depth: int
    kind: int


class RecipePiece(NamedTuple):
    """Some bytes of a file: a part of a blob.

    Attributes:
        blob: its id.
        offset: where in its plain bytes the part begins.
        length: how many bytes it has.
        slot: finds the same part of the same tensor in another version of the file; 0 for what is no tensor.
    """

    blob: bytes
    offset: int
    length: int
    slot: int


class Recipe(NamedTuple):
    """How one file is put together.

    Attributes:
        oid: the file's name (`holdfast.vault.oids`).
        size: its bytes.
        digest: BLAKE3 of all of it, 32 bytes.
        format: as of `holdfast.vault.split.Split`, ``bytes`` for what is no checkpoint.
        pieces: in the order of the file, without gaps.
    """

    oid: str
    size: int
    digest: bytes
    format: str
    pieces: tuple[RecipePiece, ...]

    def within(self, offset: int, count: int) -> Iterator[tuple[int, RecipePiece]]:
        """The pieces that hold a span of the file, each with where in the file it begins."""
        place = 0
        for piece in self.pieces:
            if place >= offset + count:
                return
            if place + piece.length > offset:
                yield place, piece
            place += piece.length


def pack_pieces(pieces: Iterable[RecipePiece]) -> bytes:
    """Pieces as bytes, 48 for each."""
    return b"".join(_PIECE.pack(*piece) for piece in pieces)


def unpack_pieces(data: bytes) -> tuple[RecipePiece, ...]:
    """What `pack_pieces` was given.

    Raises:
        DamagedVaultError: they are no pieces.
    """
    if len(data) % _PIECE.size:
        raise DamagedVaultError(f"{len(data)} bytes are no pieces of a file")
    return tuple(map(RecipePiece._make, _PIECE.iter_unpack(data)))
