"""The calls in a pickle that are understood: what rebuilds tensors, containers and plain values.

The names are those of torch's own list for ``weights_only=True`` (torch/_weights_only_unpickler.py) and the meaning of
their arguments that of torch/_utils.py. Nothing is imported and nothing is called: each function here turns arguments
into a value that describes the result. What is not here becomes a `Record`.
"""

import struct
from collections.abc import Callable
from typing import Any

from holdfast.formats.dtypes import BITS, TORCH, TORCH_STORAGE
from holdfast.formats.pickle_values import Global, MalformedPickleError, Record, StorageRef, Table, TensorValue

MAX_DIMENSIONS = 64  # NumPy takes as many, torch in practice no more
PARAMETER = ("torch.nn.parameter", "Parameter")
PLAIN_TENSOR_TYPES = {PARAMETER, ("torch.nn.parameter", "Buffer"), ("torch", "Tensor"), ("torch._tensor", "Tensor")}
# names whose mere mention is harmless: types and constants that rebuild calls take as arguments
CONSTANTS = {
    ("torch", name)
    for name in (
        "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
        "per_channel_affine_float_qparams", "strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr",
        "sparse_bsc", "contiguous_format", "preserve_format", "channels_last", "channels_last_3d",
    )
} | PLAIN_TENSOR_TYPES  # fmt: skip


def storage_dtype(value: Any) -> str | None:
    """The dtype of a storage class such as ``torch.FloatStorage``, None for anything else."""
    if isinstance(value, Global) and value.name.endswith("Storage") and value.module.split(".")[0] == "torch":
        return TORCH_STORAGE.get(value.name[: -len("Storage")])
    return None


def label(value: Any) -> str:
    """One short line for a value out of a file; never `str` of a container, which a file can make endless."""
    if isinstance(value, (Global, bool, int, float)) or value is None:
        return str(value)[:80]
    return repr(value[:80])[1:-1] if isinstance(value, str) else f"a {type(value).__name__.lower()}"


def is_allowed(value: Global) -> bool:
    """Whether the name is one that this module knows; all that a foreign one makes is opaque."""
    key = (value.module, value.name)
    return (
        key in CALLS
        or key in CONSTANTS
        or storage_dtype(value) is not None
        or (value.module == "torch" and value.name in TORCH)
        or is_script_class(value)
    )


def is_script_class(value: Global) -> bool:
    """Whether it names a class of a TorchScript archive, which is data there: its code lies in ``code/``."""
    return value.module.split(".")[0] == "__torch__"


def call(function: Any, arguments: Any) -> Any:
    """What calling ``function`` would give, as far as it is known; a `Record` of it otherwise.

    Raises:
        MalformedPickleError: a known function is called with what cannot be its arguments.
    """
    arguments = arguments if isinstance(arguments, tuple) else (arguments,)
    known = CALLS.get((function.module, function.name)) if isinstance(function, Global) else None
    if known is not None:
        try:
            return known(*arguments)
        except TypeError as error:
            raise MalformedPickleError(f"{function} is called with {len(arguments)} arguments") from error
    script = isinstance(function, Global) and is_script_class(function)
    record = Record("" if script else reason_of(function))
    for argument in arguments:
        record.add(argument)
    return record


def reason_of(value: Any) -> str:
    """Why a call of this is opaque."""
    return f"it would call {value}" if isinstance(value, Global) else "it would call a value of its own making"


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > MAX_DIMENSIONS:
        raise MalformedPickleError("a tensor's shape or strides are no tuple of counts")
    for number in value:
        if type(number) is not int or not 0 <= number < 2**63:
            raise MalformedPickleError("a tensor's shape or strides are no counts")
    return tuple(value)


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, dtype: Any = None) -> Any:
    if isinstance(storage, Record):
        return storage
    if not isinstance(storage, StorageRef) or type(start) is not int or start < 0:
        raise MalformedPickleError("a tensor is rebuilt from what is no storage")
    sizes, steps = _counts(shape), _counts(strides)
    if len(sizes) != len(steps):
        raise MalformedPickleError(f"a tensor has {len(sizes)} dimensions and {len(steps)} strides")
    return TensorValue(storage, dtype or storage.dtype, start, sizes, steps)


def _rebuild_tensor(storage: Any, start: Any, shape: Any, strides: Any) -> Any:
    return _tensor(storage, start, shape, strides)


def _rebuild_tensor_v2(
    storage: Any, start: Any, shape: Any, strides: Any, _grad: Any = None, _hooks: Any = None, metadata: Any = None
) -> Any:
    return _flagged(_tensor(storage, start, shape, strides), metadata)


def _rebuild_tensor_v3(
    storage: Any, start: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, metadata: Any = None
) -> Any:
    if not (isinstance(dtype, Global) and dtype.name in TORCH):
        return Record(f"a tensor of the unknown type {label(dtype)}")
    return _flagged(_tensor(storage, start, shape, strides, TORCH[dtype.name]), metadata)


def _flagged(tensor: Any, metadata: Any) -> Any:
    if isinstance(tensor, TensorValue) and isinstance(metadata, Table):
        tensor.conjugate, tensor.negative = metadata.get("conj") is True, metadata.get("neg") is True
    return tensor


def _rebuild_qtensor(
    storage: Any, start: Any, shape: Any, strides: Any, quantizer: Any, _grad: Any = None, _hooks: Any = None
) -> Any:
    tensor = _tensor(storage, start, shape, strides)
    if isinstance(tensor, TensorValue) and isinstance(quantizer, tuple):
        names = ("scheme", "scale", "zero_point", "axis")
        tensor.extra = [(name, value) for name, value in zip(names, quantizer, strict=False) if value is not None]
    return tensor


def _rebuild_parameter(data: Any, _grad: Any = None, _hooks: Any = None, _state: Any = None) -> Any:
    return data


def _rebuild_sparse_tensor(layout: Any, data: Any) -> Any:
    names = ("indices", "values", "size") if isinstance(data, tuple) and len(data) <= 3 else ("indices", "values")
    if isinstance(data, tuple) and len(data) == 4 and not isinstance(data[3], bool):
        names = ("compressed indices", "plain indices", "values")
    record = Record(f"a sparse tensor of layout {label(layout)}")
    items = data if isinstance(data, tuple) else ()
    record.children = [(name, value) for name, value in zip(names, items, strict=False) if name != "size"]
    return record


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, _state: Any = None) -> Any:
    value = call(function, arguments)
    if isinstance(kind, Global) and (kind.module, kind.name) in PLAIN_TENSOR_TYPES:
        return value
    record = Record(f"a tensor of the class {label(kind)}")
    record.add(value)
    return record


def _meta(*_arguments: Any) -> Any:
    return Record("a tensor without data (torch's meta device)")


def _ordered(pairs: Any = ()) -> Any:
    if isinstance(pairs, Table):
        return Table(dict(pairs.entries))
    table = Table()
    for pair in pairs if isinstance(pairs, (list, tuple)) else ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise MalformedPickleError("a dict is made of what are no pairs")
        table.put(*pair)
    return table


def _defaults(_factory: Any = None, pairs: Any = ()) -> Any:
    return _ordered(pairs)


def _sequence(items: Any = ()) -> Any:
    return list(items) if isinstance(items, (list, tuple, set)) else []


def _shape(items: Any = ()) -> Any:
    return tuple(items) if isinstance(items, (list, tuple)) else ()


def _text(*arguments: Any) -> Any:
    return ":".join(str(item)[:200] for item in arguments if isinstance(item, (str, int)))


def _bytes(text: Any = "", _encoding: Any = None) -> Any:
    # pickle's way to write bytes before protocol 3
    if isinstance(text, str):
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise MalformedPickleError("bytes are made of characters that are none") from error
    return text if isinstance(text, bytes) else b""


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> Any:
    if not all(isinstance(number, (int, float)) for number in (real, imaginary)):
        raise MalformedPickleError("a complex number is made of what are no numbers")
    try:
        return complex(real, imaginary)
    except OverflowError as error:
        raise MalformedPickleError("a complex number is made of too large ones") from error


def _numpy_dtype(name: Any = "", *_flags: Any) -> Any:
    return Table({"numpy dtype": name if isinstance(name, str) else ""})


def _numpy_scalar(dtype: Any = None, data: Any = b"") -> Any:
    name = dtype.get("numpy dtype") if isinstance(dtype, Table) else None
    codes = {"f8": "<d", "f4": "<f", "f2": "<e", "b1": "<?", "i8": "<q", "i4": "<i", "i2": "<h", "i1": "<b",
             "u8": "<Q", "u4": "<I", "u2": "<H", "u1": "<B"}  # fmt: skip
    code = codes.get(name) if isinstance(name, str) else None
    if code is None or not isinstance(data, bytes) or len(data) != struct.calcsize(code):
        return Record(f"a NumPy scalar of type {label(name)}")
    return struct.unpack(code, data)[0]


def _numpy_array(*_arguments: Any) -> Any:
    return Record("a NumPy array inside of the pickle", sealed=True)


def _device(*arguments: Any) -> Any:
    return _text(*arguments)


CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_qtensor"): _rebuild_qtensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._utils", "_rebuild_sparse_tensor"): _rebuild_sparse_tensor,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _meta,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch.serialization", "_get_layout"): _text,
    ("torch", "Size"): _shape,
    ("torch", "device"): _device,
    ("torch.jit._pickle", "build_intlist"): _sequence,
    ("torch.jit._pickle", "build_doublelist"): _sequence,
    ("torch.jit._pickle", "build_boollist"): _sequence,
    ("torch.jit._pickle", "build_tensorlist"): _sequence,
    ("torch.jit._pickle", "restore_type_tag"): lambda value, _tag: value,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "Counter"): _ordered,
    ("collections", "defaultdict"): _defaults,
    ("builtins", "dict"): _ordered,
    ("builtins", "list"): _sequence,
    ("builtins", "tuple"): _shape,
    ("builtins", "set"): _sequence,
    ("builtins", "frozenset"): _sequence,
    ("builtins", "bytearray"): _bytes,
    ("builtins", "bytes"): _bytes,
    ("builtins", "complex"): _complex,
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy.core.multiarray", "_reconstruct"): _numpy_array,
    ("numpy._core.multiarray", "_reconstruct"): _numpy_array,
    ("numpy", "ndarray"): _numpy_array,
}

# a dtype that the file names and BITS does not know would fail far from here
assert set(TORCH.values()) | set(TORCH_STORAGE.values()) <= BITS.keys()
