"""What a model gives, made flat: named arrays of bytes, so that any two models' outputs can be laid side by side."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.compare.values import has_values
from holdfast.formats.contents import unique
from holdfast.formats.numpy_files import KINDS

ONLY_OUTPUT = "output"  # what a lone tensor is called, which has no name of its own
MAX_DEPTH = 50


@dataclass(frozen=True)
class Output:
    """One array that a model gave.

    Attributes:
        name: its key, its place in a tuple, or the keys on the way to it joined by a dot.
        dtype: as of `holdfast.formats.dtypes`.
        shape: elements of each dimension; empty for a scalar.
        data: its elements in C order, little-endian; a copy, which the model cannot change any more.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Outputs:
    """All that a model gave for one batch.

    Attributes:
        arrays: in the model's own order, their names unique.
        left_out: what is no array, as ``name (type)``.
    """

    arrays: tuple[Output, ...]
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays' names."""
        return tuple(array.name for array in self.arrays)


@dataclass(frozen=True)
class Matched:
    """Two models' outputs laid side by side.

    Attributes:
        pairs: what belongs together, in the first one's order.
        only_a: names that the first alone gives.
        only_b: names that the second alone gives.
        by_position: the names differ, and the places counted.
    """

    pairs: tuple[tuple[Output, Output], ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    by_position: bool = False


# a tensor or array as (dtype, shape, bytes); None for what is neither
Leaf = Callable[[Any], tuple[str, tuple[int, ...], bytes] | None]


def array_leaf(value: Any) -> tuple[str, tuple[int, ...], bytes] | None:
    """The leaf of NumPy's arrays and numbers, and of Python's numbers; None for texts, objects and all else."""
    if isinstance(value, (bool, int, float, complex)):
        value = np.asarray(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return None
    array = np.asarray(value)
    dtype = KINDS.get(array.dtype.str[1:])
    if dtype is None or not has_values(dtype):
        return None
    return dtype, array.shape, array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def flatten(value: Any, leaf: Leaf = array_leaf) -> Outputs:
    """The arrays in what a model gave: alone, or in tuples, lists, mappings and dataclasses of any depth.

    Args:
        value: what the model gave; None in it counts as nothing.
        leaf: tells arrays from the rest, and copies them.
    """
    arrays: list[Output] = []
    left_out: list[str] = []
    taken: set[str] = set()
    for name, item in _leaves("", value, 0, leaf):
        if isinstance(item, tuple):
            arrays.append(Output(unique(name or ONLY_OUTPUT, taken), *item))
        else:
            left_out.append(f"{name or ONLY_OUTPUT} ({item})")
    return Outputs(tuple(arrays), tuple(left_out))


def match(a: Outputs, b: Outputs) -> Matched:
    """Lay two models' outputs side by side.

    By name; where no name is common and both give as many, by position, because a tuple has no names and an exporter
    makes up its own.
    """
    ours = {array.name: array for array in a.arrays}
    theirs = {array.name: array for array in b.arrays}
    common = [name for name in ours if name in theirs]
    if not common and len(ours) == len(theirs):
        return Matched(tuple(zip(a.arrays, b.arrays, strict=True)), by_position=True)
    return Matched(
        tuple((ours[name], theirs[name]) for name in common),
        tuple(name for name in ours if name not in theirs),
        tuple(name for name in theirs if name not in ours),
    )


def _leaves(name: str, value: Any, depth: int, leaf: Leaf) -> Iterator[tuple[str, Any]]:
    """Each leaf with its name: a tuple as of `Leaf`, or the name of the type that is none."""
    found = leaf(value)
    if found is not None:
        yield name, found
        return
    children = _children(value) if depth < MAX_DEPTH else None
    if children is None:
        if value is not None:
            yield name, type(value).__name__
        return
    for key, item in children:
        yield from _leaves(f"{name}.{key}" if name else str(key), item, depth + 1, leaf)


def _children(value: Any) -> Sequence[tuple[Any, Any]] | None:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (tuple, list)):
        keys: Sequence[Any] = getattr(value, "_fields", range(len(value)))  # a named tuple has names
        return list(zip(keys, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(item.name, getattr(value, item.name)) for item in dataclasses.fields(value)]
    return None
