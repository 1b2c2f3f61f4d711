"""What the codec knows of each element type: its width, where a float's exponent lies, its code in a blob.

Numbers are handled as unsigned integers of their width, little-endian. A complex number counts as its two parts, packed
types (two ``U4`` to a byte) as their bytes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

OPAQUE = "bytes"


@dataclass(frozen=True)
class Element:
    """One number of a type.

    Attributes:
        width: its bytes: 1, 2, 4 or 8.
        mantissa: the bits below its exponent, None for what is no float with sign, exponent and mantissa.
    """

    width: int
    mantissa: int | None = None

    @property
    def bits(self) -> int:
        """Its bits."""
        return 8 * self.width

    @property
    def unsigned(self) -> "np.dtype[Any]":
        """NumPy's type for it as an unsigned integer."""
        return np.dtype(f"<u{self.width}")

    @property
    def exponent_bits(self) -> int:
        """The bits of its exponent; 0 for what is no float."""
        return 0 if self.mantissa is None else self.bits - 1 - self.mantissa


_BYTE = Element(1)
_HALF, _SINGLE, _DOUBLE = Element(2, 10), Element(4, 23), Element(8, 52)

# dtype → (its code in a blob, its numbers); a code never changes its meaning
_TYPES = {
    OPAQUE: (1, _BYTE),
    "U8": (2, _BYTE), "I8": (3, _BYTE), "BOOL": (4, _BYTE), "QU8": (5, _BYTE), "QI8": (6, _BYTE),
    "U16": (7, Element(2)), "I16": (8, Element(2)),
    "U32": (9, Element(4)), "I32": (10, Element(4)), "QI32": (11, Element(4)),
    "U64": (12, Element(8)), "I64": (13, Element(8)),
    "F16": (16, _HALF), "BF16": (17, Element(2, 7)), "F32": (18, _SINGLE), "F64": (19, _DOUBLE),
    "C32": (20, _HALF), "C64": (21, _SINGLE), "C128": (22, _DOUBLE),
    "F8_E4M3": (24, Element(1, 3)), "F8_E5M2": (25, Element(1, 2)),
    "F8_E4M3FNUZ": (26, Element(1, 3)), "F8_E5M2FNUZ": (27, Element(1, 2)), "F8_E8M0": (28, _BYTE),
    "F4": (32, _BYTE), "F4X2": (33, _BYTE), "F6_E2M3": (34, _BYTE), "F6_E3M2": (35, _BYTE),
    "U4": (36, _BYTE), "I4": (37, _BYTE), "U2": (38, _BYTE), "QU4": (39, _BYTE), "QU2": (40, _BYTE),
    "I2": (41, _BYTE),
}  # fmt: skip

ELEMENTS = {dtype: element for dtype, (_, element) in _TYPES.items()}
CODES = {dtype: code for dtype, (code, _) in _TYPES.items()}
DTYPES = {code: dtype for dtype, code in CODES.items()}

# (dtype of the base, dtype of the data): the base is converted first, then it is a base like any other
CASTS = frozenset({("F32", "BF16"), ("F32", "F16"), ("BF16", "F32"), ("F16", "F32"), ("F64", "F32")})

_BF16_NAN, _F16_NAN, _F32_NAN = np.uint16(0x7FC0), np.uint16(0x7E00), np.uint32(0x7FC00000)


def cast(base: Array, source: str, target: str) -> Array:
    """The base's numbers as the target type holds them, rounded to nearest even; every NaN becomes one quiet NaN.

    Only integers and IEEE conversions of numbers decide, so that every machine gets the same bits: what becomes of a
    NaN's sign and payload is left to the processor, and therefore set here.

    Args:
        base: unsigned integers of the source's width, shape (elements,).
        source: the base's dtype.
        target: the dtype wanted; the same as ``source``, or a pair of `CASTS`.

    Returns:
        unsigned integers of the target's width, shape (elements,).
    """
    if source == target:
        return base
    if (source, target) == ("F32", "BF16"):
        rounded = ((base + (((base >> 16) & 1) + 0x7FFF)) >> 16).astype("<u2")
        return np.asarray(np.where((base & 0x7FFFFFFF) > 0x7F800000, _BF16_NAN, rounded))
    if (source, target) == ("BF16", "F32"):
        return base.astype("<u4") << 16
    wide, narrow, nan = {
        ("F32", "F16"): ("<f4", "<f2", _F16_NAN),
        ("F16", "F32"): ("<f2", "<f4", _F32_NAN),
        ("F64", "F32"): ("<f8", "<f4", _F32_NAN),
    }[source, target]
    numbers = base.view(wide)
    with np.errstate(all="ignore"):  # overflow to infinity and loss of small digits are what a cast does
        converted = numbers.astype(narrow).view(ELEMENTS[target].unsigned)
    return np.asarray(np.where(np.isnan(numbers), nan, converted))
