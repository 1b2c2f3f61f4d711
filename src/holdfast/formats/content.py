"""A tensor's bytes in logical C order, little-endian, in bounded memory; and its digest.

However a tensor lies in its file, strided, transposed, expanded, big-endian, deflated, what comes out are the bytes
that its own contiguous copy would have.
"""

import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.archive import plain_chunks
from holdfast.formats.checkpoint import Checkpoint, Storage, Tensor
from holdfast.formats.digest import PARALLEL_FROM_BYTES, TensorDigest, weights_digest
from holdfast.formats.dtypes import BITS, COMPLEX, c_strides, swap_unit
from holdfast.formats.protobuf import varint_chunks
from holdfast.formats.source import Source, chunks, read_exactly

if TYPE_CHECKING:
    import numpy as np

# a strided tensor is written out in blocks of this size, from windows of the file of no more
BLOCK_BYTES = 16 * 1024 * 1024
SMALL_WINDOW_BYTES = 64 * 1024  # below this, reading what lies between costs less than another call
DENSE = 8  # a window is read whole where at least one byte in so many is wanted
# a view may claim any shape: what a file says twice over is hashed, what it says a million times is not
MAX_EXPANSION = 16
ALWAYS_BYTES = 1024**3


Progress = Callable[[int], None]


class NoDigestError(HoldfastError):
    """The checkpoint has no weights, or they were not all read."""


def tensor_chunks(checkpoint: Checkpoint, tensor: Tensor) -> Iterator[bytes]:
    """The tensor's bytes in C order, little-endian, in pieces of a few MiB.

    A storage that is read as a whole is checked against the CRC that its archive keeps.

    Raises:
        IntegrityError: the file is damaged or was cut short since it was opened.
        OSError: it cannot be read.
    """
    if tensor.nbytes == 0:
        return
    source, storage = checkpoint.source, tensor.storage
    if storage.external is not None:
        source = source.sibling(storage.external)
    turned = storage.swap > 1 or tensor.conjugate or tensor.negative
    pieces = _contiguous(source, tensor) if tensor.contiguous else _strided(source, tensor)
    yield from (_turned(piece, tensor) for piece in _aligned(pieces, 16)) if turned else pieces


def tensor_digest(checkpoint: Checkpoint, tensor: Tensor, progress: Progress | None = None) -> bytes:
    """The 32 raw bytes of the BLAKE3 of `tensor_chunks`.

    Raises:
        IntegrityError: as of `tensor_chunks`.
        OSError: it cannot be read.
    """
    hasher = blake3(max_threads=blake3.AUTO if tensor.nbytes >= PARALLEL_FROM_BYTES else 1)
    for piece in tensor_chunks(checkpoint, tensor):
        hasher.update(piece)
        if progress is not None:
            progress(len(piece))
    return hasher.digest()


def tensor_digests(
    checkpoint: Checkpoint, tensors: tuple[Tensor, ...] | None = None, progress: Progress | None = None
) -> dict[str, bytes]:
    """The digest of each tensor (all of them, or those given) by its name; what is the same view is read once.

    Raises:
        NoDigestError: views of the same bytes claim far more than the file holds.
        IntegrityError: as of `tensor_chunks`.
        OSError: it cannot be read.
    """
    wanted = checkpoint.tensors if tensors is None else tensors
    check_expansion(checkpoint, wanted)
    known: dict[Any, bytes] = {}
    digests = {}
    for tensor in sorted(wanted, key=lambda t: (t.storage.external or "", t.storage.offset)):
        key = tensor.content_key
        if key not in known:
            known[key] = tensor_digest(checkpoint, tensor, progress)
        digests[tensor.name] = known[key]
    return digests


def check_expansion(checkpoint: Checkpoint, tensors: tuple[Tensor, ...]) -> None:
    """Refuse views that claim more than `MAX_EXPANSION` times the bytes there are.

    Raises:
        NoDigestError: they do.
    """
    logical = sum(tensor.nbytes for tensor in {tensor.content_key: tensor for tensor in tensors}.values())
    stored = sum(storage.plain_nbytes for storage in {tensor.storage for tensor in tensors})
    if logical > MAX_EXPANSION * stored + ALWAYS_BYTES:
        name = checkpoint.source.name
        raise NoDigestError(f"{name}: its tensors claim {logical:,} bytes, of which the file holds {stored:,}")


def checkpoint_weights_digest(checkpoint: Checkpoint) -> str:
    """The weights digest (see `holdfast.formats.digest`), the same in every format.

    Raises:
        NoDigestError: there are no weights, or a part of them is opaque.
        IntegrityError: as of `tensor_chunks`.
        OSError: it cannot be read.
    """
    weights = checkpoint.weights
    if checkpoint.no_digest or not weights:
        raise NoDigestError(f"{checkpoint.source.name}: {checkpoint.no_digest or 'it holds no weights'}")
    return digest_of(weights, tensor_digests(checkpoint, weights))


def digest_of(weights: tuple[Tensor, ...], digests: dict[str, bytes]) -> str:
    """The weights digest from the tensors' digests by their names."""
    return weights_digest(
        TensorDigest(tensor.weight_name or tensor.name, tensor.dtype, tensor.shape, digests[tensor.name])
        for tensor in weights
    )


def _contiguous(source: Source, tensor: Tensor) -> Iterator[bytes]:
    storage = tensor.storage
    first, left = storage.skip + tensor.start * BITS[tensor.dtype] // 8, tensor.nbytes
    if storage.codec == "raw" and (storage.crc32 is None or left < storage.nbytes):
        yield from chunks(source, storage.offset + first, left)
        return
    # a deflated storage is read to its end, where its CRC is known
    for piece in _plain(source, storage, tensor.dtype):
        wanted = piece[first : first + left] if first or left < len(piece) else piece
        first, left = max(0, first - len(piece)), left - len(wanted)
        if wanted:
            yield wanted


def _plain(source: Source, storage: Storage, dtype: str) -> Iterator[bytes]:
    return varint_chunks(source, storage, BITS[dtype]) if storage.codec == "varint" else plain_chunks(source, storage)


def _aligned(pieces: Iterator[bytes], unit: int) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        data = rest + piece if rest else piece
        whole = len(data) - len(data) % unit
        rest = data[whole:]
        if whole:
            yield data[:whole] if rest else data
    if rest:
        yield rest


def _turned(piece: bytes, tensor: Tensor) -> bytes:
    import numpy as np  # takes 80 ms to import, which a checkpoint in plain order need not pay

    if tensor.storage.swap > 1:
        piece = np.frombuffer(piece, f"<u{tensor.storage.swap}").byteswap().tobytes()
    if tensor.conjugate or tensor.negative:
        # the sign is a float's highest bit; conjugating turns that of each second number
        unit = swap_unit(tensor.dtype)
        numbers = np.frombuffer(piece, f"<u{unit}").copy()
        sign = np.array(1 << (8 * unit - 1), numbers.dtype)
        if tensor.negative:
            numbers ^= sign
        if tensor.conjugate and tensor.dtype in COMPLEX:
            numbers[1::2] ^= sign
        piece = numbers.tobytes()
    return piece


def _strided(source: Source, tensor: Tensor) -> Iterator[bytes]:
    item = BITS[tensor.dtype] // 8
    if tensor.storage.codec == "raw":
        yield from _blocks(source, tensor, tensor.storage.offset, item)
        return
    with tempfile.TemporaryFile() as stream:  # there is no place in packed bytes to read from
        for piece in _plain(source, tensor.storage, tensor.dtype):
            stream.write(piece)
        stream.flush()
        yield from _blocks(_Spool(stream, source), tensor, tensor.storage.skip, item)


class _Spool:
    def __init__(self, stream: Any, source: Source) -> None:
        self.stream, self.name, self.size = stream, source.name, stream.tell()

    def read(self, offset: int, count: int) -> bytes:
        self.stream.seek(offset)
        return bytes(self.stream.read(count))

    def sibling(self, name: str) -> Source:
        raise IntegrityError(f"{self.name} keeps weights in {name!r}")


def _blocks(source: Source, tensor: Tensor, base: int, item: int) -> Iterator[bytes]:
    """The tensor block by block: a block is a slice along the leading dimensions."""
    import numpy as np

    position = base + tensor.start * item
    shape, strides = _merged(tensor.shape, tensor.strides)
    # the dimensions from `axis` on fit into a block, so many of its indices at once
    axis, rows = 0, BLOCK_BYTES // item
    inner = c_strides(shape)
    while axis < len(shape) - 1 and inner[axis] > rows:
        axis += 1
    step = max(1, rows // inner[axis])
    for outer in np.ndindex(*shape[:axis]):
        start = position + sum(index * stride for index, stride in zip(outer, strides, strict=False)) * item
        for first in range(0, shape[axis], step):
            length = min(step, shape[axis] - first)
            block = np.empty((length, *shape[axis + 1 :]), np.dtype(f"V{item}"))
            _gather(source, block, strides[axis:], start + first * strides[axis] * item, item)
            yield block.tobytes()


def _merged(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Without dimensions of one element, and with neighbours that follow on one another made one."""
    sizes: list[int] = []
    steps: list[int] = []
    for length, stride in zip(shape, strides, strict=True):
        if length == 1:
            continue
        if sizes and steps[-1] == stride * length:
            sizes[-1], steps[-1] = sizes[-1] * length, stride
        else:
            sizes.append(length)
            steps.append(stride)
    return (tuple(sizes), tuple(steps)) if sizes else ((1,), (1,))


def _gather(source: Source, block: "np.ndarray[Any, Any]", strides: tuple[int, ...], start: int, item: int) -> None:
    """Fill a block from the elements at ``start`` bytes and ``strides`` elements on."""
    import numpy as np

    extent = (1 + sum((length - 1) * stride for length, stride in zip(block.shape, strides, strict=True))) * item
    distinct = item
    for length, stride in zip(block.shape, strides, strict=True):
        distinct *= length if stride else 1
    if extent <= SMALL_WINDOW_BYTES or (extent <= BLOCK_BYTES and distinct * DENSE >= extent):
        window = np.frombuffer(read_exactly(source, start, extent), block.dtype)
        block[...] = np.lib.stride_tricks.as_strided(window, block.shape, tuple(stride * item for stride in strides))
        return
    # halving the widest dimension halves the window, until it is small or dense
    axis = max(range(block.ndim), key=lambda place: (block.shape[place] > 1) * strides[place])
    half = block.shape[axis] // 2
    before = (slice(None),) * axis
    low, high = (*before, slice(0, half)), (*before, slice(half, None))
    _gather(source, block[low], strides, start, item)
    _gather(source, block[high], strides, start + half * strides[axis] * item, item)
