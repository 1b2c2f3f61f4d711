"""Checkpoints cut into the blobs that the vault cuts them into, for methods that are measured on them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.formats.source import FileSource
from holdfast.vault import codec
from holdfast.vault.codec_elements import ELEMENTS
from holdfast.vault.split import split_source

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Blob:
    """A run of numbers: its dtype and its bytes."""

    dtype: str
    data: bytes


Blobs = dict[str, Blob]  # by what finds the same part in another version, or a name that nothing else has


def blobs_of(path: Path) -> Blobs:
    """A checkpoint cut as the vault cuts it."""
    with FileSource(path) as source:
        return {
            str(piece.slot) if piece.slot else f"{path.stem} {number}": Blob(
                piece.dtype, source.read(piece.offset, piece.length)
            )
            for number, piece in enumerate(split_source(source).pieces)
        }


def encoded(blob: Blob, base: Blob | None) -> int:
    """Bytes that it takes as the vault encodes it."""
    return len(codec.encode(blob.data, blob.dtype, base.data if base else None))


def limit(blob: Blob, base: Blob | None) -> int:
    """The entropy of order 0 of what is coded, without any tables or frames."""
    element = ELEMENTS[blob.dtype]
    if element.mantissa is None or len(blob.data) % element.width:
        return encoded(blob, base)
    numbers = np.frombuffer(blob.data, element.unsigned)
    rotated = (numbers << 1) | (numbers >> (element.bits - 1))
    bits = plane_bits(rotated)
    if base and len(base.data) == len(blob.data):
        old = np.frombuffer(base.data, element.unsigned)
        top = 1 << (element.bits - 1)
        lines = [np.where(codes & top, ~codes, codes | top) for codes in (numbers, old)]
        steps = (lines[0] - lines[1]).view(f"<i{element.width}")
        folded = ((steps << 1) ^ (steps >> (element.bits - 1))).view(element.unsigned)
        exponents = (old >> element.mantissa) & ((1 << element.exponent_bits) - 1)
        bits = min(bits, sum(plane_bits(folded[exponents == one]) for one in np.unique(exponents)))
    return int(bits / 8)


def plane_bits(numbers: Array) -> float:
    """Bits of all byte planes, each coded at its own entropy."""
    bits = 0.0
    for plane in numbers.view(np.uint8).reshape(-1, numbers.itemsize).T:
        counts = np.bincount(plane, minlength=256)
        counts = counts[counts > 0]
        bits -= float((counts * np.log2(counts / len(numbers))).sum())
    return bits
