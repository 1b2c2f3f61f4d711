"""safetensors: a length, a JSON header, and the tensors' bytes.

The layout is that of the format's own description: ``u64`` little-endian length of the header, the header, then the
data section, to which the offsets in the header are relative. Bytes are C order and little-endian already.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.formats.digest import READ_BYTES, TensorDigest, weights_digest

# a name here stands for the tensor it points to; written by the converter for tied weights
ALIASES_KEY = "holdfast.aliases"
# the format's reference reader refuses longer headers
MAX_HEADER_BYTES = 100_000_000

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class TensorSpan:
    """Where a tensor's bytes lie: ``nbytes`` from ``offset``, counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What stands before the data: the tensors in the order of their bytes, the metadata, and the tied names."""

    tensors: tuple[TensorSpan, ...]
    metadata: Mapping[str, str]
    aliases: Mapping[str, str]


def read_header(read: Read, size: int, name: str) -> Header:
    """Read and check the header.

    Args:
        read: ``read(offset, count)`` gives that many bytes of the file, fewer at its end.
        size: the file's length in bytes.
        name: what to call the file in errors.

    Raises:
        IntegrityError: the file is no safetensors, is torn, or its spans overlap, leave holes or lie outside of it.
    """
    prefix = read(0, 8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise IntegrityError(f"{name} is no safetensors file, or it is torn: its header does not fit into {size} bytes")
    try:
        header = json.loads(read(8, length), object_pairs_hook=_unique)
        metadata = header.pop("__metadata__", {})
        spans = sorted(
            (_span(key, value, 8 + length) for key, value in header.items()), key=lambda s: (s.offset, s.nbytes)
        )
        aliases = json.loads(metadata.get(ALIASES_KEY, "{}"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{name} has a broken safetensors header: {error}") from error
    end = 8 + length
    for span in spans:
        if span.offset != end:
            raise IntegrityError(f"{name}: the bytes of tensor {span.name!r} do not follow on those before it")
        end += span.nbytes
    if end != size:
        raise IntegrityError(f"{name} is torn: its tensors end at byte {end}, the file at byte {size}")
    names = {span.name for span in spans}
    if not (isinstance(aliases, dict) and all(value in names and key not in names for key, value in aliases.items())):
        raise IntegrityError(f"{name}: {ALIASES_KEY} names a tensor that is not there")
    return Header(tuple(spans), metadata, aliases)


def file_weights_digest(path: Path) -> str:
    """The weights digest of a safetensors file (see `holdfast.formats.digest`), in bounded memory.

    Raises:
        IntegrityError: as of `read_header`.
        OSError: the file cannot be read.
    """
    with open(path, "rb", buffering=0) as stream:
        descriptor = stream.fileno()

        def read(offset: int, count: int) -> bytes:
            return os.pread(descriptor, count, offset)

        header = read_header(read, os.fstat(descriptor).st_size, str(path))
        digests = {span.name: _tensor_digest(read, span) for span in header.tensors}
    tied = (
        TensorDigest(alias, digests[name].dtype, digests[name].shape, digests[name].digest)
        for alias, name in header.aliases.items()
    )
    return weights_digest([*digests.values(), *tied])


def _tensor_digest(read: Read, span: TensorSpan) -> TensorDigest:
    hasher = blake3(max_threads=blake3.AUTO)
    position, end = span.offset, span.offset + span.nbytes
    while position < end:
        chunk = read(position, min(READ_BYTES, end - position))
        if not chunk:
            raise IntegrityError(f"the file ended while tensor {span.name!r} was read: it is being changed")
        hasher.update(chunk)
        position += len(chunk)
    return TensorDigest(span.name, span.dtype, span.shape, hasher.digest())


def _span(name: str, entry: Mapping[str, Any], data: int) -> TensorSpan:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"tensor {name!r} has a shape or offsets that are no counts")
    bits = BITS[entry["dtype"]] * math.prod(shape)
    if bits % 8 or end - begin != bits // 8:
        raise ValueError(f"tensor {name!r} has {end - begin} bytes where its shape wants {bits / 8:g}")
    return TensorSpan(name, entry["dtype"], tuple(shape), data + begin, end - begin)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key comes twice")
    return result
