"""The value that every format is read into: what a checkpoint holds, and where in the file it lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.formats.dtypes import c_strides, count, span_bytes
from holdfast.formats.source import Source

Part = Literal["weights", "optimizer", "other"]
Codec = Literal["raw", "deflate", "varint"]
Json = Any  # None, bool, int, float, str, and lists and dicts of them

SEPARATOR = "/"


@dataclass(frozen=True)
class Storage:
    """A run of bytes that one or more tensors look at.

    Attributes:
        offset: its first byte, counted from the start of the file.
        nbytes: how many bytes of the file it takes.
        codec: ``raw``, or how those bytes are packed: ``deflate`` of zip, ``varint`` of protobuf.
        plain_nbytes: its length unpacked; the same as ``nbytes`` where it is raw.
        swap: bytes of a number whose order is to be turned round, 1 where it is little-endian already.
        skip: unpacked bytes at its start that belong to no tensor (the header of a deflated array).
        crc32: what zip says of the unpacked bytes, None where it says nothing.
        crc32_before: the CRC of what the archive counts in before `offset` (the header of a stored array).
        external: the file beside the checkpoint that holds it (ONNX), None where it is the checkpoint itself.
    """

    offset: int
    nbytes: int
    codec: Codec = "raw"
    plain_nbytes: int = -1
    swap: int = 1
    skip: int = 0
    crc32: int | None = None
    crc32_before: int = 0
    external: str | None = None

    def __post_init__(self) -> None:
        if self.plain_nbytes < 0:
            object.__setattr__(self, "plain_nbytes", self.nbytes)


@dataclass(frozen=True)
class Tensor:
    """One tensor: a view of a storage under a name.

    Attributes:
        name: the keys on the way to it, joined by ``/``; unique in the file.
        path: those keys: strings, and numbers in lists.
        dtype: as of `holdfast.formats.dtypes`.
        shape: elements of each dimension; empty for a scalar.
        strides: steps in elements.
        start: the element of the storage at which it begins; for a packed dtype a multiple of a byte's.
        storage: its bytes.
        part: whether it belongs to the weights, to an optimizer's state, or to neither.
        weight_name: its name relative to the weights' container, None outside of it.
        conjugate: its imaginary parts are to be negated (torch's lazy ``conj``).
        negative: its values are to be negated (torch's lazy ``neg``).
    """

    name: str
    path: tuple[str | int, ...]
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    storage: Storage
    part: Part = "other"
    weight_name: str | None = None
    conjugate: bool = False
    negative: bool = False

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return count(self.shape)

    @property
    def nbytes(self) -> int:
        """Its length in bytes when written out in C order."""
        return span_bytes(self.dtype, self.elements)

    @property
    def contiguous(self) -> bool:
        """Its bytes lie in C order without gaps: dimensions of one element may have any stride."""
        wanted = zip(self.shape, self.strides, c_strides(self.shape), strict=True)
        return self.elements == 0 or all(length == 1 or stride == c for length, stride, c in wanted)

    @property
    def content_key(self) -> tuple[Any, ...]:
        """Equal for tensors that are the same view of the same bytes."""
        return (self.storage, self.start, self.dtype, self.shape, self.strides, self.conjugate, self.negative)


@dataclass(frozen=True)
class Opaque:
    """A value that was not read, and why; nothing of it was executed.

    Attributes:
        name: where it is, as a tensor's name; empty for the whole file.
        reason: one line.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class PickleSpan:
    """A pickle inside of the file, for those who judge its safety.

    Attributes:
        name: the archive's member, or empty.
        storage: its bytes.
        foreign: what it calls or imports that is not on the allow-list.
    """

    name: str
    storage: Storage
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """``nbytes`` bytes from ``offset`` on, counted from the start of the file."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; its tensors are read through `source` while that is open.

    Attributes:
        format: ``safetensors``, ``torch zip``, ``torchscript``, ``torch legacy``, ``npz``, ``npy``, ``onnx``, or what
            was recognised without being read.
        source: where its bytes come from.
        tensors: in the order of the file's own listing.
        metadata: every other value by its name (joined like a tensor's), plain scalars and lists of them.
        opaque: what was not read.
        container: the keys that lead to the weights, joined by ``/``; empty where they are the file itself; None where
            it has none.
        no_digest: why there is no weights digest; empty where there is one.
        pickles: the pickles in it.
    """

    format: str
    source: Source
    tensors: tuple[Tensor, ...] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)
    opaque: tuple[Opaque, ...] = ()
    container: str | None = None
    no_digest: str = ""
    pickles: tuple[PickleSpan, ...] = ()

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return self.source.size

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The tensors of the weights' container."""
        return tuple(tensor for tensor in self.tensors if tensor.part == "weights")

    @property
    def literal(self) -> tuple[Span, ...]:
        """What is no tensor's storage: headers, pickles, padding, in the order of the file."""
        taken = {(t.storage.offset, t.storage.nbytes) for t in self.tensors if t.storage.external is None}
        spans, end = [], 0
        for offset, nbytes in sorted(taken):
            if offset > end:
                spans.append(Span(end, offset - end))
            end = max(end, offset + nbytes)
        return (*spans, Span(end, self.size - end)) if end < self.size else tuple(spans)

    @property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Names of tensors that share a storage, two or more in each group."""
        groups: dict[Storage, list[str]] = {}
        for tensor in self.tensors:
            if tensor.nbytes:
                groups.setdefault(tensor.storage, []).append(tensor.name)
        return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def storage_bytes(tensors: Sequence[Tensor]) -> int:
    """The bytes that tensors take in their files, a shared storage counted once."""
    return sum(storage.nbytes for storage in {tensor.storage for tensor in tensors})
