"""Stored bytes as numbers: what each dtype's elements mean."""

from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.formats.dtypes import BITS

Array = npt.NDArray[Any]
Buffer = bytes | memoryview

# dtypes whose every value float32 holds exactly, and how numpy reads them
_TO_FLOAT32 = {"BOOL": "<u1", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "F32": "<f4"}
# integers beyond 2**53 lose their last bits in float64, which figures of differences can bear
_TO_FLOAT64 = {"I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8", "F64": "<f8"}
# a complex number counts as its two parts
_PARTS = {"C64": "<f4", "C128": "<f8"}
# (exponent bits, mantissa bits, bias, kind): OCP 8-bit floating point specification 1.0, and its FNUZ variants
_FLOAT8 = {
    "F8_E5M2": (5, 2, 15, "ieee"),
    "F8_E4M3": (4, 3, 7, "fn"),
    "F8_E5M2FNUZ": (5, 2, 16, "fnuz"),
    "F8_E4M3FNUZ": (4, 3, 8, "fnuz"),
}

_NUMBERS = frozenset({*_TO_FLOAT32, *_TO_FLOAT64, *_PARTS, *_FLOAT8, "BF16"})
CASTS = frozenset({("F32", "BF16"), ("F32", "F16"), ("F64", "F32"), ("F64", "BF16"), ("F64", "F16")})


def has_values(dtype: str) -> bool:
    """Whether elements of the dtype can be read as numbers here; else only their bytes can be compared."""
    return dtype in _NUMBERS


def values(data: Buffer, dtype: str) -> Array:
    """The numbers in ``data``: float32 where that holds the dtype exactly, else float64; shape (elements,).

    A complex element gives two numbers.

    Raises:
        KeyError: the dtype has no numbers (`has_values`).
        ValueError: ``data`` is not a whole number of elements.
    """
    if dtype == "BF16":
        codes: Array = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return np.asarray(codes.view(np.float32))
    if dtype in _TO_FLOAT32:
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            return np.asarray(np.frombuffer(data, _TO_FLOAT32[dtype]).astype(np.float32, copy=False))
    if dtype in _PARTS:
        return np.frombuffer(data, _PARTS[dtype])
    if dtype in _FLOAT8:
        return np.asarray(_float8_table(*_FLOAT8[dtype])[np.frombuffer(data, "u1")])
    return np.frombuffer(data, _TO_FLOAT64[dtype]).astype(np.float64, copy=False)


def changed_elements(a: Buffer, b: Buffer, dtype: str) -> int:
    """How many elements of two equally long pieces differ in a bit; a complex number is one element."""
    return int(np.count_nonzero(changed_where(a, b, dtype)))


def is_cast(wide: Buffer, narrow: Buffer, source: str, target: str) -> bool:
    """Whether ``narrow`` is the cast of ``wide``; a NaN is that of any NaN, whose payloads torch casts as it likes."""
    expected = cast(wide, source, target)
    if expected is None or expected == bytes(narrow):
        return expected is not None
    ours, theirs = values(expected, target), values(narrow, target)
    differ = changed_where(expected, narrow, target)
    return bool((np.isnan(ours[differ]) & np.isnan(theirs[differ])).all())


def changed_where(a: Buffer, b: Buffer, dtype: str) -> Array:
    """Which elements of two equally long pieces differ in a bit; booleans of shape (elements,)."""
    size = BITS[dtype] // 8
    if size <= 8:
        return np.asarray(np.frombuffer(a, f"<u{size}") != np.frombuffer(b, f"<u{size}"))
    parts = np.frombuffer(a, "<u8") != np.frombuffer(b, "<u8")
    return np.asarray(parts.reshape(-1, size // 8).any(axis=1))


def cast(data: Buffer, source: str, target: str) -> bytes | None:
    """Floats of one dtype as another, narrower one holds them, rounded to nearest even as torch and NumPy do.

    None where the pair is no cast from a wider to a narrower float. float64 goes to the 16-bit types by way of float32,
    as in torch.
    """
    if (source, target) not in CASTS:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.frombuffer(data, "<f8").astype("<f4") if source == "F64" else np.frombuffer(data, "<f4")
        if target == "F32":
            return wide.tobytes()
        if target == "F16":
            return wide.astype("<f2").tobytes()
    code = wide.view("<u4")
    rounded = ((code + 0x7FFF + ((code >> 16) & 1)) >> 16).astype("<u2")
    # adding could carry a NaN over into infinity; torch gives the one quiet NaN
    narrow: Array = np.where(np.isnan(wide), np.uint16(0x7FC0), rounded)
    return narrow.astype("<u2").tobytes()


def _float8_table(exponent_bits: int, mantissa_bits: int, bias: int, kind: str) -> Array:
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = codes & ((1 << mantissa_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits)
    normal = np.ldexp(1 + fraction, exponent - bias)
    subnormal = np.ldexp(fraction, 1 - bias)
    table = sign * np.where(exponent > 0, normal, subnormal)
    if kind == "ieee":
        top = exponent == (1 << exponent_bits) - 1
        table = np.where(top, np.where(mantissa == 0, sign * np.inf, np.nan), table)
    elif kind == "fn":  # no infinities; all ones is NaN
        table = np.where((codes & 0x7F) == 0x7F, np.nan, table)
    else:  # no infinities, no negative zero, whose code is NaN
        table = np.where(codes == 0x80, np.nan, table)
    return table.astype(np.float32)
