"""From a pickle's values, or any nested value, to named tensors, metadata and opaque parts; and which are the weights.

A name is the keys on the way, joined by ``/``: ``optimizer_state_dict/state/0/exp_avg``. The keys of lists and tuples
are their places. Where two ways give one name, the later one gets ``~2``, ``~3``, ….

The weights are, the first that applies:

1. the first of `WEIGHTS_CONTAINERS` that maps names to tensors, and nothing else, or the checkpoint itself where it
   does: the rule that `holdfast.runs.checkpoint.weights_of` exports by;
2. the first of them that holds a tensor at any depth;
3. the only entry besides optimizers that holds tensors;
4. all tensors outside of optimizers.

A weight's name is relative to there; deeper keys are joined by ``.`` as torch joins the names of modules. An optimizer
is what a key starting with ``optim`` or ``opt_`` leads to, or a dict of ``state`` and ``param_groups``.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from holdfast.formats.checkpoint import SEPARATOR, Json, Opaque, Part
from holdfast.formats.pickle_calls import is_allowed
from holdfast.formats.pickle_values import Blob, Global, PickleLimitError, Record, StorageRef, Table, TensorValue

# where frameworks put a model's weights inside a training checkpoint, in the order in which we look
WEIGHTS_CONTAINERS = ("model_state_dict", "state_dict", "model", "module", "weights")
OPTIMIZER = re.compile(r"optim|opt_|opt$", re.IGNORECASE)
MAX_DEPTH = 200
MAX_NODES = 1_000_000
MAX_TENSORS = 100_000
MAX_BYTES = 50_000_000  # of names and metadata
LEAF_BYTES, REFERENCE_BYTES = 500, 8
MAX_WORK_BYTES = 1_000_000_000  # of names made and thrown away
MAX_HIDDEN_VALUES = 1000  # of opaque objects' innards
MAX_SHOWN_BYTES = 64
SCALARS = (str, int, float, bool, type(None))

Path = tuple[str | int, ...]
_NOTHING = object()


@dataclass(frozen=True)
class Found:
    """A tensor, still as the pickle describes it, with its name and its place."""

    name: str
    path: Path
    value: TensorValue
    part: Part
    weight_name: str | None


@dataclass
class Contents:
    """What a value holds; `container` is None where it holds no weights."""

    tensors: list[Found] = field(default_factory=list)
    metadata: dict[str, Json] = field(default_factory=dict)
    opaque: list[Opaque] = field(default_factory=list)
    container: str | None = None
    no_digest: str = ""


@dataclass(slots=True)
class _Leaf:
    name: str
    path: Path
    value: Any
    optimizer: bool


def contents_of(root: Any) -> Contents:
    """The tensors, metadata and opaque parts of a value.

    Raises:
        PickleLimitError: shared values spread out into more than `MAX_NODES` or `MAX_BYTES`.
    """
    leaves = list(_leaves(root))
    tensors = [leaf for leaf in leaves if isinstance(leaf.value, TensorValue)]
    container = _container(root, tensors)
    contents = Contents(container=None if container is None else SEPARATOR.join(str(key) for key in container))
    depth = 0 if container is None else len(container)
    taken: set[str] = set()
    for leaf in leaves:
        inside = container is not None and leaf.path[:depth] == container and (depth > 0 or not leaf.optimizer)
        if isinstance(leaf.value, TensorValue):
            part: Part = "weights" if inside else "optimizer" if leaf.optimizer else "other"
            relative = ".".join(str(key) for key in leaf.path[depth:]) or "tensor"
            weight_name = unique(relative, taken) if inside else None
            contents.tensors.append(Found(leaf.name, leaf.path, leaf.value, part, weight_name))
        elif isinstance(leaf.value, Opaque):
            contents.opaque.append(leaf.value)
            if inside and not contents.no_digest:
                contents.no_digest = f"the weights hold a value that was not read: {leaf.value.reason}"
        else:
            contents.metadata[leaf.name] = leaf.value
    if container is None:
        contents.no_digest = "it holds no weights"
    return contents


def unique(name: str, taken: set[str]) -> str:
    """The name, with ``~2``, ``~3``, … behind it where it is taken; from then on it is taken."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}~{number}"
    taken.add(candidate)
    return candidate


def _container(root: Any, tensors: list[_Leaf]) -> Path | None:
    if isinstance(root, Table):
        for key in WEIGHTS_CONTAINERS:
            if _maps_to_tensors(root.get(key)):
                return (key,)
        if _maps_to_tensors(root):
            return ()
    weights = [leaf for leaf in tensors if not leaf.optimizer]
    tops = dict.fromkeys(leaf.path[0] for leaf in weights if len(leaf.path) > 1)
    for key in WEIGHTS_CONTAINERS:
        if key in tops:
            return (key,)
    if len(tops) == 1 and all(len(leaf.path) > 1 for leaf in weights) and isinstance(root, Table):
        return tuple(tops)
    return () if weights else None


def _maps_to_tensors(value: Any) -> bool:
    if not isinstance(value, Table) or not value.entries:
        return False
    return all(isinstance(item, TensorValue) for item in value.entries.values())


@dataclass
class _Way:
    """A container on the way down: what is still to be visited in it, and where it is."""

    steps: Iterator[tuple[str | int, Any]]
    path: Path
    name: str
    optimizer: bool
    opaque: bool
    holder: int


def _leaves(root: Any) -> Iterator[_Leaf]:
    taken: set[str] = set()
    budget = _Budget()
    ways = [_Way(iter([("", root)]), (), "", False, False, 0)]
    on_the_way: set[int] = set()
    while ways:
        way = ways[-1]
        step = next(way.steps, None)
        if step is None:
            ways.pop()
            on_the_way.discard(way.holder)
            continue
        key, value = step
        top = len(ways) == 1
        path = () if top else (*way.path, key)
        name = "" if top else f"{way.name}{SEPARATOR}{key}" if way.name else str(key)
        budget.visit(len(name))
        optimizer = way.optimizer or (not top and isinstance(key, str) and OPTIMIZER.match(key) is not None)
        children = _children(value)
        if children is None or isinstance(value, (TensorValue, Record)):
            leaf = _leaf(value, name)
            if isinstance(leaf, TensorValue):
                budget.keep(name, path, 900)
                budget.tensor()
                # the key of a container makes an optimizer, that of a tensor does not
                yield _Leaf(unique(name or "tensor", taken), path, leaf, way.optimizer)
            elif leaf is not _NOTHING and budget.shows(leaf, inside=way.opaque):
                budget.keep(name, path, _weight(leaf))
                yield _Leaf(unique(name, taken) if name else name, path, leaf, optimizer)
        if children:
            if id(value) in on_the_way or len(path) >= MAX_DEPTH:
                reason = "it contains itself" if id(value) in on_the_way else f"it is nested deeper than {MAX_DEPTH}"
                budget.keep(name, path, 100)
                yield _Leaf(name, path, Opaque(name, reason), optimizer)
                continue
            state = isinstance(value, Table) and {"state", "param_groups"} <= value.entries.keys()
            opaque = way.opaque or (isinstance(value, Record) and bool(value.reason))
            on_the_way.add(id(value))
            ways.append(_Way(iter(children), path, name, optimizer or state, opaque, id(value)))


def _children(value: Any) -> list[tuple[str | int, Any]] | None:
    if isinstance(value, Table):
        return list(value.items()) or None
    if isinstance(value, (list, tuple)):
        return None if all(isinstance(item, SCALARS) for item in value) else list(enumerate(value))
    if isinstance(value, Record):
        return value.children
    if isinstance(value, TensorValue):
        return list(value.extra)
    return None


def _leaf(value: Any, name: str) -> Any:
    """The leaf's value: a tensor, an `Opaque`, or JSON; `_NOTHING` for a record that only holds others."""
    if isinstance(value, TensorValue):
        return value
    if isinstance(value, StorageRef):
        length = value.elements if value.visible < 0 else value.visible
        return TensorValue(value, value.dtype, 0, (length,), (1,))
    if isinstance(value, Record):
        return Opaque(name, value.reason) if value.reason else _NOTHING
    if isinstance(value, Global) and not is_allowed(value):
        return Opaque(name, f"it would import {value}")
    if isinstance(value, Blob):
        return Opaque(name, f"{value.nbytes:,} bytes inside of the pickle")
    if isinstance(value, Table):
        return {}
    if isinstance(value, (list, tuple)):
        return [_scalar(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    if isinstance(value, bytes):
        return value.hex() if len(value) <= MAX_SHOWN_BYTES else f"<{len(value):,} bytes>"
    return value if isinstance(value, SCALARS) else str(value)


def _weight(value: Any) -> int:
    if isinstance(value, list):
        return sum(_weight(item) for item in value) + 60
    return 60 + (len(value) if isinstance(value, str) else 0)


class _Budget:
    """Counts what a file makes us do and keep: shared values can be spread out without end."""

    def __init__(self) -> None:
        self.nodes = self.work = self.bytes = self.tensors = self.hidden = 0

    def visit(self, work: int) -> None:
        self.nodes += 1
        self.work += work
        if self.nodes > MAX_NODES or self.work > MAX_WORK_BYTES:
            raise PickleLimitError("its values, spread out, are more than any model has")

    def keep(self, name: str, path: Path, nbytes: int) -> None:
        self.bytes += LEAF_BYTES + len(name) + REFERENCE_BYTES * len(path) + nbytes
        if self.bytes > MAX_BYTES:
            raise PickleLimitError("its names and values, spread out, are more than any model has")

    def shows(self, leaf: Any, *, inside: bool) -> bool:
        """Of what is inside of an opaque object, which is listed itself, the first values are of interest."""
        if not inside:
            return True
        self.hidden += 1
        return self.hidden <= MAX_HIDDEN_VALUES and not isinstance(leaf, Opaque)

    def tensor(self) -> None:
        self.tensors += 1
        if self.tensors > MAX_TENSORS:
            raise PickleLimitError(f"it has more than {MAX_TENSORS:,} tensors")
