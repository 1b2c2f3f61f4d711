"""A file cut into pieces, each of which becomes one blob: a checkpoint by its tensors, anything else by its content.

How a checkpoint is cut depends on its own bytes alone, never on its name or on what lies beside it, so that the same
file is cut in the same way wherever it is. The rules, with the figures they were chosen by, are in
``docs/design/vault-split.md``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Checkpoint
from holdfast.formats.opening import read_checkpoint, sniff
from holdfast.formats.source import Source
from holdfast.vault.chunk import Chunking, chunk_lengths, chunking_of
from holdfast.vault.codec_elements import OPAQUE
from holdfast.vault.split_layout import OWN_BYTES, Run, runs_of

BLOCK_BYTES = 4 * 1024 * 1024
MIN_BLOCK_BYTES, MAX_BLOCK_BYTES = 4096, 16 * 1024 * 1024
# the longest element has sixteen bytes; a block ends with a whole one
ELEMENT_BYTES = 16
# a shorter file is one piece: there is nothing to be gained by looking into it
MIN_CHECKPOINT_BYTES = 2 * OWN_BYTES
# floats of two bytes, and what they are cast from in mixed precision
HALVES, WIDE = frozenset({"BF16", "F16"}), "F32"
CHECKPOINTS = frozenset({"zip", "npy", "torch legacy", "safetensors", "onnx"})


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file that are stored as one blob.

    Attributes:
        offset: the first one, counted from the start of the file.
        length: how many; at least one, and no more than a block.
        dtype: how to read them as numbers, as of `holdfast.formats.dtypes`; ``bytes`` for what is no numbers, or none
            that the codec knows.
        slot: finds the same part of the same tensor in another version (see `holdfast.vault.split_layout`); unique in
            the file, or 0, as for all that is no tensor.
        wide: the slot of what this was cast from, if it was: that of the same part in `WIDE`; 0 for what is no float of
            half as many bytes.
    """

    offset: int
    length: int
    dtype: str = OPAQUE
    slot: int = 0
    wide: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """A file as pieces.

    Attributes:
        format: the checkpoint's (``safetensors``, ``torch zip``, …), or ``bytes`` for what was cut by content alone.
        pieces: in the order of the file, from its start to its end, without gaps.
    """

    format: str
    pieces: tuple[Piece, ...]


def split_source(source: Source, *, block_bytes: int = BLOCK_BYTES, chunking: Chunking | None = None) -> Split:
    """Cut a file: of a checkpoint its headers are read, of anything else every byte, once, in bounded memory.

    What is damaged, hostile or unknown is cut by its content: no file is refused.

    Args:
        source: the file; only its own bytes are read, no sibling.
        block_bytes: the most that a piece has; a multiple of 16 from 4 KiB to 16 MiB.
        chunking: the lengths of chunks, no longer than a block; None for those of `chunking_of`.

    Raises:
        ValueError: lengths that do not fit.
        IntegrityError: the source ended before its size.
        OSError: it cannot be read.
    """
    if block_bytes % ELEMENT_BYTES or not MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES:
        raise ValueError(f"{block_bytes} is no length of blocks")
    lengths = chunking or chunking_of(block_bytes)
    if lengths.maximum > block_bytes:
        raise ValueError(f"{lengths} are longer than a block of {block_bytes} bytes")
    checkpoint = _checkpoint(source)
    runs = runs_of(checkpoint) if checkpoint else ()
    pieces = tuple(_pieces(source, runs, block_bytes, lengths))
    return Split(checkpoint.format if checkpoint and checkpoint.tensors else OPAQUE, pieces)


def may_be_checkpoint(source: Source) -> bool:
    """Whether a file is long enough to be cut by its tensors, and begins, or ends, like a checkpoint.

    Raises:
        IntegrityError: the source ended before its size.
        OSError: it cannot be read.
    """
    return source.size >= MIN_CHECKPOINT_BYTES and sniff(source) in CHECKPOINTS


def _checkpoint(source: Source) -> Checkpoint | None:
    alone = _Alone(source)
    try:
        return read_checkpoint(alone) if may_be_checkpoint(alone) else None
    except IntegrityError:
        return None


def _pieces(source: Source, runs: tuple[Run, ...], block_bytes: int, lengths: Chunking) -> Iterator[Piece]:
    end = 0
    for run in runs:
        yield from _chunks(source, end, run.offset, lengths)
        end = run.offset + run.nbytes
        # so that a block has the numbers that one of its wider cast has
        length = block_bytes // 2 if run.dtype in HALVES else block_bytes
        for number, start in enumerate(range(run.offset, end, length)):
            wide = run.slot(number, WIDE) if run.dtype in HALVES else 0
            yield Piece(start, min(length, end - start), run.dtype, run.slot(number), wide)
    yield from _chunks(source, end, source.size, lengths)


def _chunks(source: Source, start: int, end: int, lengths: Chunking) -> Iterator[Piece]:
    for length in chunk_lengths(source, start, end - start, lengths):
        yield Piece(start, length)
        start += length


class _Alone:
    """A source whose siblings are all there and never read: a model is cut alike with its weights beside it or not."""

    def __init__(self, source: Source) -> None:
        self.name, self.size, self.read = source.name, source.size, source.read

    def sibling(self, name: str) -> Source:
        return _Beside(name)


@dataclass(frozen=True)
class _Beside:
    """As long as any place in it that a model names."""

    name: str
    size: int = 2**63 - 1

    def read(self, offset: int, count: int) -> bytes:
        raise IntegrityError(f"{self.name}: bytes {offset} to {offset + count} lie beside the file, and are not read")

    def sibling(self, name: str) -> Source:
        return _Beside(name)
