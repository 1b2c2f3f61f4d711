"""What the vault would make of a checkpoint beside another one: its codec, on a sample of blocks.

The sampled places are spread evenly over all bytes that both have under the same names, types and shapes, so that a
tensor counts by its bytes; the same two checkpoints give the same answer. Each block is encoded for real, against its
base and alone. What is said of all is the mean of the sample, with the 95 % interval of a mean.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import fmean, stdev

from holdfast.dedup.groups import Estimate
from holdfast.formats.source import Source, read_exactly
from holdfast.vault.codec import encode
from holdfast.vault.split import Piece, Split, may_be_checkpoint, split_source

SAMPLE_BLOCKS = 24
# Shorter than the codec's own blocks: more places for the same bytes. A blob's head is left out of what is counted.
SAMPLE_BLOCK_BYTES = 256 * 1024
HEAD_BYTES = 32 + 14
_TWO_SIDED_95 = 1.96

Opened = Callable[[], AbstractContextManager[Source]]


@dataclass(frozen=True)
class Block:
    """A sampled block.

    Args:
        nbytes: its length.
        stored: bytes it takes against its base.
        alone: bytes it takes without one.
        same: whether it equals its base.
    """

    nbytes: int
    stored: int
    alone: int
    same: bool


@dataclass(frozen=True)
class Sample:
    """Blocks of a checkpoint, encoded against another one.

    Args:
        blocks: those that were sampled.
        matched: bytes that have a counterpart in the other checkpoint, of which the blocks are a sample.
        rest: bytes that have none.
        all_blocks: how many blocks the matched bytes are.
    """

    blocks: tuple[Block, ...]
    matched: int
    rest: int
    all_blocks: int

    @property
    def complete(self) -> bool:
        """Whether every byte that could be is in it."""
        return sum(block.nbytes for block in self.blocks) >= self.matched

    @property
    def same(self) -> float:
        """The share of the bytes that are equal in both."""
        return self._mean([(1.0 if block.same else 0.0, block.nbytes) for block in self.blocks])

    @property
    def changed(self) -> tuple[Block, ...]:
        """The blocks that differ."""
        return tuple(block for block in self.blocks if not block.same)

    @property
    def ratio(self) -> float:
        """Stored bytes for each that changed, against the base."""
        return self._mean([(block.stored / block.nbytes, block.nbytes) for block in self.changed])

    @property
    def alone(self) -> float:
        """Stored bytes for each that changed, without a base."""
        return self._mean([(block.alone / block.nbytes, block.nbytes) for block in self.changed])

    @property
    def saving(self) -> int:
        """Bytes of the matched ones that the vault would not store, besides what is equal in both."""
        return max(0, round(self.matched * self._mean(self._savings())))

    def estimate(self) -> Estimate:
        """The sample in figures."""
        savings = self._savings()
        ratios = [block.stored / block.nbytes for block in self.changed]
        error = 0.0
        if len(savings) > 1 and not self.complete:
            left = math.sqrt(1 - sum(block.nbytes for block in self.blocks) / self.matched)
            error = _TWO_SIDED_95 * stdev([saving for saving, _ in savings]) / math.sqrt(len(savings)) * left
        mean = self._mean(savings)
        return Estimate(
            ratio=round(self.ratio, 4),
            spread=round(stdev(ratios), 4) if len(ratios) > 1 else 0.0,
            low=max(0, round(self.matched * (mean - error))),
            high=min(self.matched, round(self.matched * (mean + error))),
            blocks=len(self.blocks),
            all_blocks=self.all_blocks,
            sampled=sum(block.nbytes for block in self.blocks),
            same=round(self.same, 4),
        )

    def _mean(self, values: Sequence[tuple[float, int]]) -> float:
        # a place was chosen by bytes, so that each block stands for as many; of all blocks each stands for its own
        return _mean(values, by_bytes=self.complete)

    def _savings(self) -> list[tuple[float, int]]:
        return [(0.0 if block.same else 1 - block.stored / block.nbytes, block.nbytes) for block in self.blocks]


def sample_pair(
    newer: Opened, older: Opened | None, *, blocks: int = SAMPLE_BLOCKS, splits: tuple[Split, Split] | None = None
) -> Sample:
    """Encode a sample of one checkpoint, or of any file, against another one.

    Args:
        newer: the one that would be stored.
        older: its base; None for none, when all bytes count as matched and nothing as the same.
        blocks: how many at most.
        splits: how the two are cut, where that is known.

    Raises:
        HoldfastError: a file is damaged or cannot be reached.
        OSError: one cannot be read.
    """
    with newer() as source:
        if older is None:
            pieces = split_source(source).pieces if may_be_checkpoint(source) else (Piece(0, source.size),)
            return _sampled(source, [(piece, None) for piece in pieces if piece.length], None, source.size, blocks)
        with older() as base:
            one, other = splits or (split_source(source), split_source(base))
            return _sampled(source, matched(one, other), base, source.size, blocks)


def matched(split: Split, base: Split) -> list[tuple[Piece, Piece | None]]:
    """The pieces that have a counterpart: the same part of the same tensor, of the same type and length."""
    slots = {piece.slot: piece for piece in base.pieces if piece.slot}
    pairs = [(piece, slots.get(piece.slot)) for piece in split.pieces if piece.slot]
    return [
        (piece, other)
        for piece, other in pairs
        if other is not None and (other.length, other.dtype) == (piece.length, piece.dtype)
    ]


def _sampled(
    source: Source, pairs: Sequence[tuple[Piece, Piece | None]], base: Source | None, size: int, blocks: int
) -> Sample:
    total = sum(piece.length for piece, _ in pairs)
    found = []
    for piece, other, start, length in _places(pairs, total, blocks):
        data = read_exactly(source, piece.offset + start, length)
        beside = None if base is None or other is None else read_exactly(base, other.offset + start, length)
        if data == beside:
            found.append(Block(length, 0, 0, same=True))
            continue
        alone = _stored(encode(data, piece.dtype), length)
        against = alone if beside is None else min(alone, _stored(encode(data, piece.dtype, beside), length))
        found.append(Block(length, against, alone, same=False))
    every = sum(-(-piece.length // SAMPLE_BLOCK_BYTES) for piece, _ in pairs)
    return Sample(tuple(found), total, size - total, every)


def _places(
    pairs: Sequence[tuple[Piece, Piece | None]], total: int, blocks: int
) -> Sequence[tuple[Piece, Piece | None, int, int]]:
    """The blocks at evenly spread places: piece, its counterpart, start in the piece, length; each once, in order."""
    found: dict[tuple[int, int], tuple[Piece, Piece | None, int, int]] = {}
    number, before = 0, 0
    # every block where there are few
    every = sum(-(-piece.length // SAMPLE_BLOCK_BYTES) for piece, _ in pairs)
    if every <= blocks:
        return [
            (piece, other, start, min(SAMPLE_BLOCK_BYTES, piece.length - start))
            for piece, other in pairs
            for start in range(0, piece.length, SAMPLE_BLOCK_BYTES)
        ]
    for place in (total * (2 * step + 1) // (2 * blocks) for step in range(blocks)):
        while place >= before + pairs[number][0].length:
            before += pairs[number][0].length
            number += 1
        piece, other = pairs[number]
        start = (place - before) // SAMPLE_BLOCK_BYTES * SAMPLE_BLOCK_BYTES
        found[number, start] = (piece, other, start, min(SAMPLE_BLOCK_BYTES, piece.length - start))
    return list(found.values())


def _stored(blob: bytes, plain: int) -> int:
    return min(plain, max(0, len(blob) - HEAD_BYTES))


def _mean(values: Sequence[tuple[float, int]], *, by_bytes: bool) -> float:
    if not values:
        return 0.0
    if not by_bytes:
        return fmean(value for value, _ in values)
    return sum(value * nbytes for value, nbytes in values) / sum(nbytes for _, nbytes in values)
