"""NumPy's ``.npy`` and ``.npz``, never object arrays.

``\\x93NUMPY``, two bytes of version, the header's length (``u16`` in version 1, ``u32`` in 2 and 3), the header: a
Python dict of ``descr``, ``fortran_order`` and ``shape``; then the data. Source: numpy/lib/format.py. An ``.npz`` is a
zip of them, each member called after its array.
"""

import ast
import zlib
from dataclasses import replace
from typing import Any

from holdfast.errors import IntegrityError
from holdfast.formats.archive import Member, plain_chunks, storage_of
from holdfast.formats.checkpoint import Checkpoint, Opaque, Storage, Tensor
from holdfast.formats.contents import unique
from holdfast.formats.dtypes import BITS, c_strides, count, swap_unit
from holdfast.formats.source import Source, read_exactly

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000  # as of numpy.lib.format, which guards `ast.literal_eval` by it
MAX_HEADER_DEPTH = 10  # brackets within brackets: `ast` recurses
MAX_DIMENSIONS = 64
SUFFIX = ".npy"
KINDS = {
    "f2": "F16", "f4": "F32", "f8": "F64", "c8": "C64", "c16": "C128", "b1": "BOOL",
    "i1": "I8", "i2": "I16", "i4": "I32", "i8": "I64", "u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64",
}  # fmt: skip


class _UnreadError(ValueError):
    """An array of a type that is no tensor's: objects, texts, dates, records."""


def open_npy(source: Source) -> Checkpoint:
    """One array; its name is ``tensor``.

    Raises:
        IntegrityError: the header is broken, or the data has another length.
    """
    storage = Storage(0, source.size)
    try:
        tensor = _array(source, storage, read_exactly(source, 0, min(source.size, MAX_HEADER_BYTES + 12)), "tensor", ())
    except _UnreadError as error:
        return Checkpoint("npy", source, opaque=(Opaque("", str(error)),), no_digest=str(error))
    return Checkpoint("npy", source, (tensor,), container="")


def open_npz(source: Source, found: dict[str, Member]) -> Checkpoint:
    """The arrays of an archive, named as NumPy names them.

    Raises:
        IntegrityError: the archive is torn, or an array in it is broken.
    """
    tensors, opaque = [], []
    taken: set[str] = set()
    for member in found.values():
        name = unique(member.name.removesuffix(SUFFIX), taken)
        storage = storage_of(source, member)
        try:
            tensors.append(_array(source, storage, _head(source, storage), name, (name,)))
        except _UnreadError as error:
            opaque.append(Opaque(name, str(error)))
    reason = f"the weights hold a value that was not read: {opaque[0].reason}" if opaque else ""
    return Checkpoint(
        "npz", source, tuple(tensors), opaque=tuple(opaque), container="" if tensors else None, no_digest=reason
    )


def is_npz(found: dict[str, Member]) -> bool:
    """Whether an archive's members are arrays."""
    return bool(found) and all(name.endswith(SUFFIX) for name in found)


def _head(source: Source, storage: Storage) -> bytes:
    if storage.codec == "raw":
        return read_exactly(source, storage.offset, min(storage.nbytes, MAX_HEADER_BYTES + 12))
    # the CRC is checked when the data is read
    head = b""
    for piece in plain_chunks(source, replace(storage, crc32=None)):
        head += piece
        if len(head) >= MAX_HEADER_BYTES + 12:
            break
    return head[: MAX_HEADER_BYTES + 12]


def _array(source: Source, storage: Storage, head: bytes, name: str, path: tuple[str, ...]) -> Tensor:
    where = f"{source.name}: array {name[:120]!r}"
    major = head[6] if head[:6] == MAGIC and len(head) > 10 else 0
    if major not in (1, 2, 3):
        raise IntegrityError(f"{where} is torn or no NumPy array")
    width = 2 if major == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if length > MAX_HEADER_BYTES or start > len(head):
        raise IntegrityError(f"{where} has a header of {length} bytes, which is torn or none")
    descr, fortran, shape = _facts(where, head[8 + width : start])
    dtype = KINDS.get(descr[1:]) if isinstance(descr, str) else None
    if dtype is None or not isinstance(descr, str) or descr[0] not in "<>|=":
        raise _UnreadError(f"an array of objects, texts or records ({str(descr)[:40]}), which is never unpickled")
    nbytes = count(shape) * BITS[dtype] // 8
    if nbytes != storage.plain_nbytes - start:
        raise IntegrityError(f"{where} has {storage.plain_nbytes - start} bytes where its shape wants {nbytes}")
    swap = swap_unit(dtype) if descr[0] == ">" else 1
    strides = tuple(reversed(c_strides(shape[::-1]))) if fortran else c_strides(shape)
    if storage.codec == "raw":
        # the archive's CRC is that of header and data together
        before = zlib.crc32(head[:start])
        place = Storage(storage.offset + start, nbytes, swap=swap, crc32=storage.crc32, crc32_before=before)
    else:
        place = replace(storage, swap=swap, skip=start)
    return Tensor(
        name=name,
        path=path,
        dtype=dtype,
        shape=shape,
        strides=strides,
        start=0,
        storage=place,
        part="weights",
        weight_name=name,
    )


def _facts(where: str, header: bytes) -> tuple[Any, bool, tuple[int, ...]]:
    text = header.decode("utf-8", "replace")
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_HEADER_DEPTH:
            raise IntegrityError(f"{where} has a broken header: it is nested")
    try:
        facts = ast.literal_eval(text.strip())
        descr, fortran, shape = facts["descr"], facts["fortran_order"], facts["shape"]
        if not isinstance(fortran, bool) or not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
            raise ValueError("its shape or order is none")
        if not all(type(length) is int and 0 <= length < 2**63 for length in shape):
            raise ValueError("its shape is no counts")
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise IntegrityError(f"{where} has a broken header: {str(error)[:120]}") from error
    return descr, fortran, shape
