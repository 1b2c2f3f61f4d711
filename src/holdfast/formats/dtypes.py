"""Names and sizes of element types.

The spelling is that of safetensors (``F32``, ``BF16``, ``I64``, …). What torch, NumPy or ONNX have beyond it continues
in the same manner: ``C32`` and ``C128`` complex, ``U4`` and ``I4`` packed two to a byte, ``QU8``, ``QI8``, ``QI32``,
``QU4`` and ``QU2`` for torch's quantised integers, ``F4X2`` for torch's byte of two ``F4``.
"""

import math
from collections.abc import Sequence

# the element types of safetensors' own description (safetensors/src/tensor.rs, enum Dtype), in bits
SAFETENSORS_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

BITS = SAFETENSORS_BITS | {
    "C32": 32, "C128": 128, "U4": 4, "I4": 4, "U2": 2, "I2": 2, "F4X2": 8,
    "QU8": 8, "QI8": 8, "QI32": 32, "QU4": 4, "QU2": 2,
}  # fmt: skip

COMPLEX = frozenset({"C32", "C64", "C128"})

# torch.<name> → dtype; the names are those of torch's dtypes (torch/csrc/utils/tensor_dtypes.cpp)
TORCH = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "double": "F64", "float": "F32", "half": "F16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "long": "I64", "int": "I32", "short": "I16",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex32": "C32", "complex64": "C64", "complex128": "C128",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float4_e2m1fn_x2": "F4X2",
    "quint8": "QU8", "qint8": "QI8", "qint32": "QI32", "quint4x2": "QU4", "quint2x4": "QU2",
}  # fmt: skip

# torch.<name>Storage → dtype (torch/storage.py, _dtype_to_storage_type_map)
TORCH_STORAGE = {
    "Double": "F64", "Float": "F32", "Half": "F16", "BFloat16": "BF16",
    "Long": "I64", "Int": "I32", "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL", "Untyped": "U8",
    "ComplexDouble": "C128", "ComplexFloat": "C64",
    "QUInt8": "QU8", "QInt8": "QI8", "QInt32": "QI32", "QUInt4x2": "QU4", "QUInt2x4": "QU2",
}  # fmt: skip


def span_bytes(dtype: str, elements: int) -> int:
    """How many bytes ``elements`` packed elements take, the last byte filled up."""
    return -(-BITS[dtype] * elements // 8)


def count(shape: Sequence[int]) -> int:
    """The number of elements of a shape; 1 for a scalar's empty shape."""
    return math.prod(shape)


def swap_unit(dtype: str) -> int:
    """The bytes of one number, which a change of byte order turns round: a complex number is two of them."""
    return max(1, BITS[dtype] // (16 if dtype in COMPLEX else 8))


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of a tensor whose bytes lie in C order."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(1, length)
    return tuple(reversed(strides))
