"""What a file in a vault is made of, and what restoring it reads."""

from dataclasses import dataclass

from holdfast.vault.codec_blocks import CODECS
from holdfast.vault.repository import Vault


@dataclass(frozen=True)
class Part:
    """A piece of a file.

    Attributes:
        offset: where in the file it begins.
        length: its bytes.
        blob: the blob that has it, 64 hex digits.
        stored: how many bytes the whole blob takes.
        codec: how most of the blob is encoded.
        depth: how many bases restoring it takes.
    """

    offset: int
    length: int
    blob: str
    stored: int
    codec: str
    depth: int


@dataclass(frozen=True)
class Explanation:
    """A file, taken apart.

    Attributes:
        oid: its name.
        size: its bytes.
        format: as it was split.
        digest: BLAKE3 of all of it, 64 hex digits.
        parts: in the order of the file.
        packs: how many hold its blobs and their bases.
        own_bytes: that its blobs take, each once.
        base_bytes: that their bases take besides, each once.
        depth: of the deepest chain of bases.
    """

    oid: str
    size: int
    format: str
    digest: str
    parts: tuple[Part, ...]
    packs: int
    own_bytes: int
    base_bytes: int
    depth: int

    @property
    def read_bytes(self) -> int:
        """What restoring it reads of packs."""
        return self.own_bytes + self.base_bytes


def explain_file(vault: Vault, oid: str) -> Explanation:
    """Take a file apart.

    Raises:
        InvalidOidError: the name is none.
        UnknownFileError: there is no such file.
        MissingBlobError: a part of it is nowhere.
        StoreError: the vault cannot be read.
    """
    recipe = vault.recipe(oid)
    plan = vault.plan(recipe)
    parts = []
    offset = 0
    for piece in recipe.pieces:
        chain = plan.chain(piece.blob)
        entry = chain[0]
        codec = CODECS[entry.kind]
        parts.append(Part(offset, piece.length, piece.blob.hex(), entry.stored, codec, len(chain) - 1))
        offset += piece.length
    own = {piece.blob for piece in recipe.pieces}
    return Explanation(
        oid=oid,
        size=recipe.size,
        format=recipe.format,
        digest=recipe.digest.hex(),
        parts=tuple(parts),
        packs=len({entry.pack for entry in plan.entries.values()}),
        own_bytes=sum(plan.entries[name].stored for name in own),
        base_bytes=sum(entry.stored for name, entry in plan.entries.items() if name not in own),
        depth=max((part.depth for part in parts), default=0),
    )
