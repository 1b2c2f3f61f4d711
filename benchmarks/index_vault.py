"""A vault that has nothing but an index: the segments that sessions of training would have left, in a folder.

Its packs are named and do not exist. A session carries the next checkpoints of one lineage: each has a header of its
own, some tensors that never change, and others every block of which is new and, three times out of four, a delta
against the one before. All of it follows from a seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from holdfast.objectstore.opening import open_store
from holdfast.vault.codec_blocks import CODECS
from holdfast.vault.columns import write_tables
from holdfast.vault.repository import init_vault

BLOCK_BYTES, PACK_BYTES = 4 << 20, 32 << 20
HEADER_BYTES = 20_000
DEPTHS = 4
LINEAGES = 20


@dataclass(frozen=True)
class Shape:
    """What the vault is like.

    Attributes:
        sessions: how many segments.
        blobs: of a session, about.
        tensors: blocks of a checkpoint that are new in each.
        frozen: blocks that a lineage's checkpoints have in common.
        seed: what ids and sizes follow from.
    """

    sessions: int
    blobs: int = 50_000
    tensors: int = 180
    frozen: int = 19
    seed: int = 1

    @property
    def files(self) -> int:
        """Checkpoints of a session."""
        return max(self.blobs // (self.tensors + 1), 1)


def session_name(number: int) -> str:
    """The name of a session."""
    return f"{number:032x}"


def make_vault(folder: Path, shape: Shape) -> str:
    """Write the vault; its id."""
    store = open_store(str(folder))
    vault_id = f"{shape.seed:032x}"
    init_vault(store, vault_id=vault_id, jobs=1).close()
    for number, data in enumerate(segments(shape)):
        store.put(f"index/{session_name(number)}", data)
    return vault_id


def segments(shape: Shape) -> Iterator[bytes]:
    """The segments' bytes, session by session."""
    for number in range(shape.sessions):
        yield segment(shape, number)


def segment(shape: Shape, number: int) -> bytes:
    """The segment of one session."""
    lineage, turn = number % LINEAGES, number // LINEAGES
    first = turn * shape.files
    wide, frozen, files = shape.tensors, shape.frozen, shape.files
    chances = np.random.default_rng([shape.seed, 1, number])

    # of each checkpoint its header and its tensors; in a lineage's first session, besides, what never changes
    fresh = np.concatenate([_ids(shape, lineage, first + place) for place in range(files)])
    always = _ids(shape, lineage, -1)[:frozen]
    before = _ids(shape, lineage, first - 1)[1:] if first else np.empty((0, 32), np.uint8)
    own = np.concatenate([fresh, always]) if turn == 0 else fresh
    others = np.concatenate([before, always]) if turn else np.empty((0, 32), np.uint8)
    at = np.arange(len(own), dtype=np.int64)
    version = first + at // (wide + 1)
    tensor = (at % (wide + 1) > 0) & (at < len(fresh))
    depth = np.where(tensor, version % DEPTHS, 0).astype(np.uint8)
    base = np.where(depth > 0, at - (wide + 1) + 1, 0)
    early = (depth > 0) & (version == first)
    base[early] = len(own) + at[early] % (wide + 1)  # 1 + the row among the others, which have no headers
    plain = np.where(at % (wide + 1) > 0, BLOCK_BYTES, HEADER_BYTES)
    plain[len(fresh) :] = BLOCK_BYTES
    ratio = np.where(depth > 0, chances.uniform(0.3, 0.5, len(own)), chances.uniform(0.6, 0.7, len(own)))
    stored = (plain * ratio).astype(np.int64)
    pack, offset, sizes = _packed(stored)
    kind = np.where(depth > 0, CODECS.index("delta"), CODECS.index("planes")).astype(np.uint8)

    pieces = np.empty((files, 1 + wide + frozen), np.int64)
    pieces[:, : 1 + wide] = at[: len(fresh)].reshape(files, 1 + wide)
    pieces[:, 1 + wide :] = np.arange(frozen) + (len(fresh) if turn == 0 else len(own) + len(before))
    length = np.full(pieces.shape, BLOCK_BYTES)
    length[:, 0] = HEADER_BYTES
    slots = np.random.default_rng([shape.seed, 2, lineage]).integers(1, 1 << 63, pieces.shape[1], np.uint64)
    slots[0] = 0
    oids = chances.bytes(16 * files).hex()
    keys = chances.bytes(32 * len(sizes)).hex()
    return write_tables(
        "segment",
        {
            "blobs": {
                "id": own,
                "offset": offset.astype("<u4"),
                "stored": stored.astype("<u4"),
                "plain": plain.astype("<u4"),
                "base": base.astype("<u4"),
                "depth": depth,
                "kind": kind,
                "pack": pack.astype("<u4"),
            },
            "ids": {"id": others},
            "formats": {"name": ["safetensors"]},
            "recipes": {
                "oid": [f"md5:{oids[start : start + 32]}" for start in range(0, len(oids), 32)],
                "size": length.sum(1).astype("<u8"),
                "digest": np.frombuffer(chances.bytes(32 * files), np.uint8).reshape(files, 32),
                "format": np.zeros(files, np.uint8),
                "pieces": np.full(files, pieces.shape[1], np.uint32),
                "claimed": np.ones(files, np.uint8),
            },
            "pieces": {
                "blob": pieces.reshape(-1).astype("<u4"),
                "offset": np.zeros(pieces.size, np.uint32),
                "length": length.reshape(-1).astype("<u4"),
                "slot": np.tile(slots, files),
            },
            "packs": {
                "key": [
                    f"packs/{keys[start : start + 2]}/{keys[start : start + 64]}-{session_name(number)}"
                    for start in range(0, len(keys), 64)
                ],
                "size": sizes.astype("<u8"),
            },
            "claims": {"oid": []},
        },
    )


def _ids(shape: Shape, lineage: int, version: int) -> "np.typing.NDArray[np.uint8]":
    """Ids of the blobs of a checkpoint, its header first; of version -1 those that all have in common."""
    drawn = np.random.default_rng([shape.seed, 0, lineage, version + 1]).bytes(
        32 * (1 + max(shape.tensors, shape.frozen))
    )
    return np.frombuffer(drawn, np.uint8).reshape(-1, 32)[: shape.tensors + 1 if version >= 0 else None]


def _packed(stored: "np.typing.NDArray[np.int64]") -> "tuple[np.typing.NDArray[np.int64], ...]":
    """Of each blob its pack and its place there, and the sizes of the packs: full ones as a push writes them."""
    ends = np.cumsum(stored)
    pack = (ends - stored) // PACK_BYTES
    _, rows = np.unique(pack, return_index=True)
    number = np.searchsorted(rows, np.arange(len(stored)), side="right") - 1
    begin = (ends - stored)[rows]
    offset = ends - stored - begin[number] + 4
    footers = 100 * np.bincount(number)
    last = np.append(rows[1:], len(stored)) - 1
    return number, offset, offset[last] + stored[last] + footers
