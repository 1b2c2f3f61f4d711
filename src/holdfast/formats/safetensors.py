"""safetensors: a length, a JSON header, and the tensors' bytes.

The layout is that of the format's own description: ``u64`` little-endian length of the header, the header, then the
data section, to which the offsets in the header are relative. Bytes are C order and little-endian already.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import IntegrityError
from holdfast.formats.checkpoint import Checkpoint, Opaque, Storage, Tensor
from holdfast.formats.content import checkpoint_weights_digest
from holdfast.formats.digest import weights_digest
from holdfast.formats.dtypes import SAFETENSORS_BITS, c_strides
from holdfast.formats.source import FileSource, Source

# a name here stands for the tensor it points to; written by the converter for tied weights
ALIASES_KEY = "holdfast.aliases"
LENGTH_BYTES = 8
# the reference reader refuses longer headers; one of that length would take ten times as much in memory here
MAX_LEGAL_HEADER_BYTES = 100_000_000
MAX_HEADER_BYTES = 32_000_000
# what a header of 100,000 tensors has of them; JSON of nothing but brackets grows thirtyfold when it is read
MAX_BRACKETS, MAX_COMMAS = 400_000, 1_000_000

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
        text = read(8, length)
        if text.count(b"[") + text.count(b"{") > MAX_BRACKETS or text.count(b",") > MAX_COMMAS:
            raise ValueError("it lists more than any model has")
        header = json.loads(text, object_pairs_hook=_unique)
        metadata = header.pop("__metadata__", {})
        for words in (*metadata, *metadata.values(), *header):
            words.encode()  # text it must be, and no half of a surrogate pair
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
    if not (
        isinstance(aliases, dict)
        and all(isinstance(value, str) and value in names and key not in names for key, value in aliases.items())
    ):
        raise IntegrityError(f"{name}: {ALIASES_KEY} names a tensor that is not there")
    return Header(tuple(spans), metadata, aliases)


def open_safetensors(source: Source) -> Checkpoint:
    """The tensors, and a tied one under each of its names.

    Raises:
        IntegrityError: as of `read_header`.
    """
    length = int.from_bytes(source.read(0, LENGTH_BYTES), "little")
    if MAX_HEADER_BYTES < length <= source.size - LENGTH_BYTES:
        reason = f"its header of {length:,} bytes is longer than Holdfast reads"
        return Checkpoint("safetensors", source, opaque=(Opaque("", reason),), no_digest=reason)
    header = read_header(source.read, source.size, source.name)
    tensors = [_tensor(span, span.name) for span in header.tensors]
    spans = {span.name: span for span in header.tensors}
    tensors += [_tensor(spans[name], alias) for alias, name in header.aliases.items()]
    return Checkpoint("safetensors", source, tuple(tensors), header.metadata, container="")


def file_weights_digest(path: Path) -> str:
    """The weights digest of a safetensors file (see `holdfast.formats.digest`), in bounded memory.

    Raises:
        IntegrityError: as of `read_header`.
        OSError: the file cannot be read.
    """
    with FileSource(path) as source:
        checkpoint = open_safetensors(source)
        if not checkpoint.tensors:
            return weights_digest(())
        return checkpoint_weights_digest(checkpoint)


def _tensor(span: TensorSpan, name: str) -> Tensor:
    return Tensor(
        name=name,
        path=(name,),
        dtype=span.dtype,
        shape=span.shape,
        strides=c_strides(span.shape),
        start=0,
        storage=Storage(span.offset, span.nbytes),
        part="weights",
        weight_name=name,
    )


def _span(name: str, entry: Mapping[str, Any], data: int) -> TensorSpan:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"tensor {name!r} has a shape or offsets that are no counts")
    bits = SAFETENSORS_BITS[entry["dtype"]] * math.prod(shape)
    if bits % 8 or end - begin != bits // 8:
        raise ValueError(f"tensor {name!r} has {end - begin} bytes where its shape wants {bits / 8:g}")
    return TensorSpan(name, entry["dtype"], tuple(shape), data + begin, end - begin)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key comes twice")
    return result
