"""What a vault holds, in figures."""

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.objectstore.bucket import MERGED_BYTES
from holdfast.objectstore.usage import R2_PRICES
from holdfast.vault.codec_blocks import CODECS
from holdfast.vault.repository import Vault


@dataclass(frozen=True)
class FormatStats:
    """The files of one format: how many, and their bytes."""

    files: int
    raw_bytes: int


@dataclass(frozen=True)
class CodecStats:
    """The blobs most of which are encoded in one way: how many, their plain bytes, and those they take."""

    blobs: int
    plain_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class VaultStats:
    """A vault in figures.

    Attributes:
        files: with a recipe.
        raw_bytes: of these files, each by itself.
        plain_bytes: of the blobs: what is left of them once nothing is there twice.
        stored_bytes: of the packs, without those that are condemned.
        condemned_bytes: of packs that wait to be purged.
        index_bytes: of the segments.
        packs: that segments name, and that are not condemned.
        segments: that count.
        fetch_requests: how many it takes to fetch all of it, at least.
        formats: by name.
        codecs: by name.
    """

    files: int
    raw_bytes: int
    plain_bytes: int
    stored_bytes: int
    condemned_bytes: int
    index_bytes: int
    packs: int
    segments: int
    fetch_requests: int
    formats: Mapping[str, FormatStats]
    codecs: Mapping[str, CodecStats]

    @property
    def ratio(self) -> float:
        """How many times smaller than the files the packs are; 1 for an empty vault."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else 1.0

    @property
    def dollars_a_fetch(self) -> float:
        """What fetching all of it costs on R2, which takes nothing for the bytes."""
        return R2_PRICES.requests(0, self.fetch_requests)

    @property
    def dollars_a_month(self) -> float:
        """What storing it costs on R2, without requests."""
        return R2_PRICES.month(self.stored_bytes + self.condemned_bytes + self.index_bytes)


def vault_stats(vault: Vault) -> VaultStats:
    """A vault in figures, as of its last refresh.

    Raises:
        IndexFileError: the local index cannot be read.
    """
    index = vault.index
    formats = {
        name: FormatStats(files, size)
        for name, files, size in index.rows(
            "SELECT format, COUNT(*), SUM(size) FROM"
            " (SELECT MAX(format) AS format, MAX(size) AS size FROM recipes WHERE segment IN {active} GROUP BY oid)"
            " GROUP BY format ORDER BY format"
        )
    }
    codecs = {CODECS[kind]: CodecStats(blobs, plain, stored) for kind, (blobs, plain, stored) in index.kinds().items()}
    condemned = index.known.condemned_packs
    packs = {key: size for key, size in index.packs().items() if key not in condemned}
    waiting = {key: size for key, size in index.packs().items() if key in condemned}
    ((segments, index_bytes),) = index.rows(
        "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM segments WHERE number IN {active}"
    )
    return VaultStats(
        files=sum(found.files for found in formats.values()),
        raw_bytes=sum(found.raw_bytes for found in formats.values()),
        plain_bytes=sum(found.plain_bytes for found in codecs.values()),
        stored_bytes=sum(packs.values()),
        condemned_bytes=sum(waiting.values()),
        index_bytes=index_bytes,
        packs=len(packs),
        segments=segments,
        # the configuration, two listings, the segments; of each pack parts as long as they come together
        fetch_requests=3 + segments + sum(-(-size // MERGED_BYTES) for size in packs.values()),
        formats=formats,
        codecs=codecs,
    )
