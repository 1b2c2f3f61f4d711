"""What every array of a store must be: its name, shape, dtype, range and the scalars that come with it."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from holdfast.errors import HoldfastError, IntegrityError

Scalar = bool | int | float | str
Array = npt.NDArray[Any]

CONTENT_CONTEXT = "holdfast 2026-11 array content v1"
# what numpy and HDF5 both hold on every platform; long doubles differ between machines, objects would be pickled
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
MAX_TEXT_BYTES = (
    16 * 1024
)  # of a file id or a scalar: far beyond any name, and small against what a reader may allocate
MAX_NAME_CHARACTERS = 64
SHOWN_CHARACTERS = 80
RESERVED_KEYS = ("file_id", "shape")


class ArrayContractError(HoldfastError):
    """An array, a scalar or an id is not what the contract allows, or the contract contradicts itself."""


class ArrayStoreError(HoldfastError):
    """The folder is no array store, the store is another one, or it has no such sample."""


class ArrayDamageError(IntegrityError):
    """A file of an array store is missing, corrupt or not what the manifest says."""


@dataclass(frozen=True)
class Sample:
    """One stored array with its exact file id and its declared scalars by name."""

    file_id: str
    array: Array
    scalars: Mapping[str, Scalar]


@dataclass(frozen=True)
class ArrayContract:
    """What each array of a store has to be, declared once and checked on every save.

    Args:
        name: names the array in file names: ``<file_id>_<name>.npz``. ASCII letters, digits, ``-`` and ``_``.
        shape: one entry a dimension; None leaves a dimension free.
        dtype: a bool, integer, float or complex dtype of at most 8 bytes a real number, in any spelling numpy takes.
            Arrays are stored little-endian. Another dtype is converted where numpy calls that the same kind or wider
            (``np.can_cast(…, "same_kind")``: float64 to float32, int to float, not float to int) and each value
            fits: integers keep their value, floats may round but not overflow. All else is refused.
        minimum: the smallest value allowed, None for no limit. Bounds are compared after rounding to ``dtype``.
        maximum: the largest value allowed, None for no limit.
        out_of_range: ``"refuse"`` raises for a value out of range, ``"clip"`` stores the nearest bound instead.
        scalars: names of the scalars that come with every array, such as ``("sampling_rate",)``.
        key: the array's key inside a file; the name where it is not given.
        allow_nan: NaN is in no range, so it is refused where a bound is declared, unless this is set. Without bounds
            NaN is stored as it is.

    Raises:
        ArrayContractError: the parts do not fit together.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: npt.DTypeLike
    minimum: float | None = None
    maximum: float | None = None
    out_of_range: Literal["refuse", "clip"] = "refuse"
    scalars: tuple[str, ...] = ()
    key: str = ""
    allow_nan: bool = False

    def __post_init__(self) -> None:
        settle = object.__setattr__  # the dataclass is frozen; this brings all spellings of one contract to one value
        settle(self, "key", self.key or self.name)
        scalars: object = self.scalars
        if isinstance(scalars, str):  # a tuple that lacks its comma
            raise self._contradiction("scalars is one string; give a tuple of names")
        settle(self, "scalars", tuple(self.scalars))
        settle(self, "shape", tuple(None if size is None else int(size) for size in self.shape))
        try:
            settle(self, "dtype", np.dtype(self.dtype).name)
        except TypeError:
            raise self._contradiction(f"numpy knows no dtype {self.dtype!r}") from None
        self._check_names()
        if self.dtype not in DTYPES:
            raise self._contradiction(f"dtype {self.dtype} cannot be stored; it may be {', '.join(DTYPES)}")
        if any(size is not None and size < 0 for size in self.shape):
            raise self._contradiction(f"shape {self.shape} has a negative dimension")
        if self.out_of_range not in ("refuse", "clip"):
            raise self._contradiction(f"out_of_range is {self.out_of_range!r}; it may be 'refuse' or 'clip'")
        for bound in ("minimum", "maximum"):
            settle(self, bound, self._settled_bound(bound))
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise self._contradiction(f"the minimum {self.minimum} is above the maximum {self.maximum}")

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype as it is stored: little-endian."""
        dtype: np.dtype[Any] = np.dtype(self.dtype).newbyteorder("<")
        return dtype

    def conform(self, file_id: str, array: npt.ArrayLike) -> Array:
        """The array as it will be stored: converted, clipped where declared, in C order, little-endian.

        The result may share memory with ``array``.

        Args:
            file_id: for the message alone.
            array: anything ``np.asarray`` takes, a torch tensor on the CPU included.

        Raises:
            ArrayContractError: the array breaks the contract; the message names the id and the rule.
        """
        try:
            source = np.asarray(array)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArrayContractError(
                f"{shown(file_id)}: {type(array).__name__} is no array: {error}",
                hint="Pass a numpy array; of a torch tensor, tensor.detach().cpu().numpy().",
            ) from error
        converted = self._converted(file_id, source)
        if self.out_of_range == "clip" and converted.size:
            lower, upper = self._bounds()
            if lower is not None or upper is not None:
                converted = np.clip(converted, lower, upper)
        if problem := self.violation(converted):
            raise ArrayContractError(f"{shown(file_id)}: {problem}", hint=self._way_out(problem))
        # ascontiguousarray would turn a 0-d array into one of one dimension
        return np.require(converted, requirements="C")

    def violation(self, array: Array) -> str | None:
        """What in ``array`` breaks the contract, or None: dtype, shape, NaN and range, in this order."""
        if array.dtype != self.numpy_dtype:
            return f"dtype is {array.dtype}, the contract says {self.dtype}"
        if problem := self.shape_violation(array.shape):
            return problem
        lower, upper = self._bounds()
        if array.size == 0 or (lower is None and upper is None):
            return None
        with np.errstate(invalid="ignore"):
            smallest, largest = array.min(), array.max()
            if np.isnan(smallest):
                if not self.allow_nan:
                    return "holds NaN, which is in no range"
                smallest, largest = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
        if lower is not None and smallest < lower:
            return f"holds {smallest}, below the minimum {self.minimum}"
        if upper is not None and largest > upper:
            return f"holds {largest}, above the maximum {self.maximum}"
        return None

    def shape_violation(self, shape: tuple[int, ...]) -> str | None:
        """How ``shape`` breaks the contract, or None."""
        fits = len(shape) == len(self.shape) and all(
            declared in (None, size) for declared, size in zip(self.shape, shape, strict=True)
        )
        return None if fits else f"shape is {_shape_text(shape)}, the contract says {_shape_text(self.shape)}"

    def settled_scalars(self, file_id: str, scalars: Mapping[str, object]) -> dict[str, Scalar]:
        """The declared scalars as plain Python values, in the contract's order.

        Raises:
            ArrayContractError: one is missing, undeclared, or no bool, int64, float or string.
        """
        if undeclared := sorted(set(scalars) - set(self.scalars)):
            raise ArrayContractError(
                f"{shown(file_id)}: scalar {', '.join(undeclared)} is not declared",
                hint=f"The contract's scalars are: {', '.join(self.scalars) or 'none'}.",
            )
        if missing := [name for name in self.scalars if name not in scalars]:
            raise ArrayContractError(
                f"{shown(file_id)}: scalar {', '.join(missing)} is missing", hint=f"Save it with {missing[0]}=…"
            )
        return {name: _settled_scalar(file_id, name, scalars[name]) for name in self.scalars}

    def as_json(self) -> dict[str, Any]:
        """The contract as `from_json` reads it back."""
        return {**asdict(self), "shape": list(self.shape), "scalars": list(self.scalars)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ArrayContract":
        """The contract that `as_json` wrote.

        Raises:
            ArrayContractError: the parts do not fit together.
            KeyError, TypeError, ValueError: a part is missing, unknown or of a wrong type.
        """
        return cls(**{**value, "shape": tuple(value["shape"]), "scalars": tuple(value["scalars"])})

    def _bounds(self) -> tuple[Any, Any]:
        # in the array's own dtype: 0.1 in float32 is above 0.1, and a clipped array must pass its own check
        cast = self.numpy_dtype.type
        return (
            None if self.minimum is None else cast(self.minimum),
            None if self.maximum is None else cast(self.maximum),
        )

    def _settled_bound(self, which: str) -> float | None:
        bound = getattr(self, which)
        if bound is None:
            return None
        kind = self.numpy_dtype.kind
        if kind not in "iuf":
            raise self._contradiction(f"{self.dtype} has no order, so it takes no {which}")
        if kind == "f":
            limits = np.finfo(self.numpy_dtype)
            bound = float(bound)
        else:
            limits = np.iinfo(self.numpy_dtype)
            if bound != bound or math.isinf(bound) or bound != int(bound):
                raise self._contradiction(f"the {which} {bound} is no integer")
            bound = int(bound)
        if not limits.min <= bound <= limits.max:
            raise self._contradiction(f"the {which} {bound} does not fit in {self.dtype}; None means no limit")
        settled: float = bound
        return settled

    def _check_names(self) -> None:
        names = {"name": self.name, "key": self.key, **{f"scalar {name!r}": name for name in self.scalars}}
        for what, name in names.items():
            if not isinstance(name, str) or not name.isascii() or len(name) > MAX_NAME_CHARACTERS:
                raise self._contradiction(f"{what} {name!r} must be ASCII of at most {MAX_NAME_CHARACTERS} characters")
            if what != "name" and not name.isidentifier():
                raise self._contradiction(f"{what} {name!r} must be an identifier")
            if not name.replace("-", "_").replace("_", "a").isalnum():
                raise self._contradiction(f"{what} {name!r} may hold letters, digits, '-' and '_' alone")
        keys = (self.key, *RESERVED_KEYS, *self.scalars)
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            raise self._contradiction(f"the key {repeated[0]!r} comes twice; each file holds {', '.join(keys)}")

    def _converted(self, file_id: str, source: Array) -> Array:
        target = self.numpy_dtype
        if source.dtype == target:
            return source
        if not np.can_cast(source.dtype, target, "same_kind"):
            raise ArrayContractError(
                f"{shown(file_id)}: dtype is {source.dtype}, the contract says {self.dtype}",
                hint=f"Convert it yourself if that is meant: array.astype({self.dtype!r}).",
            )
        try:
            with np.errstate(over="raise"):
                converted = source.astype(target, casting="same_kind")
        except FloatingPointError:
            fits = False
        else:
            fits = target.kind not in "iu" or bool(np.array_equal(converted, source))
        if not fits:
            raise ArrayContractError(
                f"{shown(file_id)}: a value of this {source.dtype} array does not fit in {self.dtype}",
                hint="Scale or clip it before saving, or declare a wider dtype.",
            )
        return converted

    def _way_out(self, problem: str) -> str:
        if "NaN" in problem:
            return "Replace NaN before saving, or declare allow_nan=True."
        if problem.startswith("holds"):
            return 'Normalise it before saving, or declare out_of_range="clip".'
        return "Reshape it before saving; None in the contract's shape leaves a dimension free."

    def _contradiction(self, problem: str) -> ArrayContractError:
        return ArrayContractError(f"array contract {self.name!r}: {problem}")


def check_file_id(file_id: str) -> None:
    """Raise unless ``file_id`` can name a sample: a non-empty string of Unicode text, at most 16 KiB in UTF-8.

    Raises:
        ArrayContractError: it cannot.
    """
    if not isinstance(file_id, str) or not file_id:
        raise ArrayContractError(f"{file_id!r} is no file id", hint="A file id is a non-empty string.")
    _check_text(f"the file id {shown(file_id)}", file_id)


def content_checksum(sample: Sample) -> str:
    """``blake3:<hex>`` of what a sample says, whatever file format or compression carries it.

    BLAKE3 with key-derivation context ``CONTENT_CONTEXT`` over the u64 little-endian length of a header, the header,
    and the array's bytes in C order, little-endian. The header is compact JSON with sorted keys:
    ``{"dtype":…,"scalars":{…},"shape":[…]}``. The file id is no part of it.
    """
    header = {"dtype": sample.array.dtype.name, "shape": list(sample.array.shape), "scalars": dict(sample.scalars)}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    hasher = blake3(derive_key_context=CONTENT_CONTEXT)
    hasher.update(struct.pack("<Q", len(text)) + text)
    hasher.update(array_bytes(sample.array).data)
    return f"blake3:{hasher.hexdigest()}"


def array_bytes(array: Array) -> npt.NDArray[np.uint8]:
    """The bytes of a C-ordered array, without a copy, as uint8 of shape (nbytes,)."""
    return array.reshape(-1).view(np.uint8)


def shown(file_id: object) -> str:
    """A file id as messages show it: quoted, cut where it is long."""
    text = repr(file_id)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 2]}…{text[-1]}"


def _settled_scalar(file_id: str, name: str, value: object) -> Scalar:
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
    if isinstance(plain, str):
        _check_text(f"{shown(file_id)}: scalar {name}", plain)
        if "\0" in plain:  # numpy and HDF5 both pad strings with NUL and would drop one at the end
            raise ArrayContractError(f"{shown(file_id)}: scalar {name} holds a NUL character")
        return plain
    if isinstance(plain, bool | float):
        return plain
    if isinstance(plain, int) and -(2**63) <= plain < 2**63:
        return plain
    raise ArrayContractError(
        f"{shown(file_id)}: scalar {name} is {shown(value)}", hint="A scalar is a bool, an int64, a float or a string."
    )


def _check_text(what: str, text: str) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ArrayContractError(
            f"{what} holds a lone surrogate, which no file can carry",
            hint="A file name decoded with os.fsdecode may hold them; decode it with its true encoding.",
        ) from None
    if size > MAX_TEXT_BYTES:
        raise ArrayContractError(f"{what} has {size} bytes; at most {MAX_TEXT_BYTES} are allowed")


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)}{',' * (len(shape) == 1)})"
