"""Digests of files and of weights.

A digest is written ``blake3:<64 hex digits>``. The *weights digest* names what a model has learnt, whatever file
carries it:

    BLAKE3 with key-derivation context ``WEIGHTS_CONTEXT`` over, for each tensor in the order of its name's UTF-8 bytes,
    the little-endian fields
        u64 length of the name, the name in UTF-8,
        u64 length of the dtype, the dtype in the spelling of safetensors (``F32``, ``BF16``, ``I64``, …) in ASCII,
        u64 number of dimensions, each dimension as u64,
        the 32 bytes of the BLAKE3 of the tensor's bytes: logical C order, little-endian, no padding.

Names are relative to the container of the weights (``model_state_dict``, ``state_dict``, ``model``, …). A tied tensor
counts under each of its names. The rule never changes; another rule would get another context string.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from holdfast.formats.source import READ_BYTES

WEIGHTS_CONTEXT = "holdfast 2026-11 weights digest v1"
# blake3 starts its thread pool only where the input pays for it; 128 KiB is the size from which its own docs advise it
PARALLEL_FROM_BYTES = 128 * 1024


@dataclass(frozen=True)
class TensorDigest:
    """A tensor's name, dtype (as safetensors spells it), shape and the 32 raw bytes of its content's BLAKE3."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: bytes


def content_digest(data: bytes | memoryview) -> bytes:
    """The 32 raw bytes of the BLAKE3 of ``data``."""
    threads = blake3.AUTO if len(data) >= PARALLEL_FROM_BYTES else 1
    return blake3(data, max_threads=threads).digest()


def file_digest(path: Path) -> str:
    """``blake3:<hex>`` of a file's bytes, in memory that does not grow with the file.

    Raises:
        OSError: the file cannot be read.
    """
    hasher = blake3(max_threads=blake3.AUTO)
    for chunk in _chunks(path):
        hasher.update(chunk)
    return f"blake3:{hasher.hexdigest()}"


def file_md5(path: Path) -> str:
    """The 32 hex digits of a file's MD5, which is DVC's oid of it, in memory that does not grow with the file.

    Raises:
        OSError: the file cannot be read.
    """
    hasher = hashlib.md5(usedforsecurity=False)
    for chunk in _chunks(path):
        hasher.update(chunk)
    return hasher.hexdigest()


def file_digest_and_md5(path: Path) -> tuple[str, str]:
    """Both of `file_digest` and `file_md5` from one pass over the file.

    Raises:
        OSError: the file cannot be read.
    """
    hasher, md5 = blake3(max_threads=blake3.AUTO), hashlib.md5(usedforsecurity=False)
    for chunk in _chunks(path):
        hasher.update(chunk)
        md5.update(chunk)
    return f"blake3:{hasher.hexdigest()}", md5.hexdigest()


def _chunks(path: Path) -> Iterator[memoryview]:
    # read, not mapped: a file that another process truncates under a map would end this one with SIGBUS
    buffer = memoryview(bytearray(READ_BYTES))
    with open(path, "rb", buffering=0) as stream:
        count = stream.readinto(buffer) or 0
        if count < READ_BYTES:
            while count:
                yield buffer[:count]
                count = stream.readinto(buffer) or 0
            return
        # while one piece is hashed the next one is read: the slower of the two sets the pace, not their sum
        other = memoryview(bytearray(READ_BYTES))
        with ThreadPoolExecutor(1, "read-ahead") as reader:
            while count:
                ahead = reader.submit(stream.readinto, other)
                yield buffer[:count]
                buffer, other, count = other, buffer, ahead.result() or 0


def weights_digest(tensors: Iterable[TensorDigest]) -> str:
    """``blake3:<hex>`` over the tensors of a checkpoint's weights, by the rule at the head of this module.

    Raises:
        ValueError: a name comes twice.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name.encode())
    hasher = blake3(derive_key_context=WEIGHTS_CONTEXT)
    previous = None
    for tensor in ordered:
        if tensor.name == previous:
            raise ValueError(f"the tensor {tensor.name!r} comes twice")
        previous = tensor.name
        for text in (tensor.name.encode(), tensor.dtype.encode("ascii")):
            hasher.update(struct.pack("<Q", len(text)) + text)
        hasher.update(struct.pack(f"<{1 + len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
        hasher.update(tensor.digest)
    return f"blake3:{hasher.hexdigest()}"
