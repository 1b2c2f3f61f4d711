"""What a model takes, gives and holds: names, dtypes and shapes, and whether another one has the same."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.formats.checkpoint import Checkpoint
from holdfast.formats.dtypes import BITS, TORCH

ANY = "*"
PICKLE_FREE = frozenset({"safetensors", "npz", "npy", "onnx"})

_SPEC = re.compile(r"([A-Za-z][A-Za-z0-9_]*) ?\[([^\[\]]*)\]")
_MAX_DIMENSIONS = 64

Dimension = int | str


@dataclass(frozen=True)
class TensorSpec:
    """The dtype (as of `holdfast.formats.dtypes`) and the shape of a tensor; a dimension that is text varies."""

    dtype: str
    shape: tuple[Dimension, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Contract:
    """Tensors by name: what a model takes, what it gives, and what its file holds."""

    inputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    outputs: Mapping[str, TensorSpec] = field(default_factory=dict)
    tensors: Mapping[str, TensorSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class FileFacts:
    """What a gate asks of a model's file.

    Attributes:
        size: bytes.
        format: as of `holdfast.formats.checkpoint.Checkpoint`.
        pickles: how many pickles it holds.
        tensors: its weights by their names within the weights.
    """

    size: int
    format: str
    pickles: int
    tensors: Mapping[str, TensorSpec]

    @property
    def pickle_safe(self) -> bool:
        """Whether nobody has to unpickle anything to load it: a format without pickles, and none in it."""
        return self.format in PICKLE_FREE and not self.pickles


def file_facts(checkpoint: Checkpoint) -> FileFacts:
    """What a gate asks of an opened checkpoint."""
    tensors = {
        tensor.weight_name: TensorSpec(tensor.dtype, tensor.shape)
        for tensor in checkpoint.weights
        if tensor.weight_name is not None
    }
    return FileFacts(checkpoint.size, checkpoint.format, len(checkpoint.pickles), tensors)


def parse_spec(text: str) -> TensorSpec:
    """Read ``F32[*, 8, 8]``: a dtype of ours or of torch's (``float32``), lengths, and ``*`` for any length.

    Raises:
        ValueError: it is none; the message says why.
    """
    match = _SPEC.fullmatch(text.strip())
    if not match:
        raise ValueError("must be a dtype and a shape, such as F32[*, 10]")
    dtype = TORCH.get(match[1], match[1].upper())
    if dtype not in BITS:
        raise ValueError(f"has the dtype {match[1]}, which is none")
    parts = [part.strip() for part in match[2].split(",")] if match[2].strip() else []
    if len(parts) > _MAX_DIMENSIONS or not all(part == ANY or re.fullmatch("[0-9]{1,18}", part) for part in parts):
        raise ValueError("must have whole numbers as its dimensions, or * for any length")
    return TensorSpec(dtype, tuple(ANY if part == ANY else int(part) for part in parts))


def broken_promises(
    wanted: Mapping[str, TensorSpec], found: Mapping[str, TensorSpec], *, exhaustive: bool
) -> list[str]:
    """Where ``found`` is not what ``wanted`` says, one clause for each tensor.

    Args:
        wanted: of a contract.
        found: of a model.
        exhaustive: what the contract does not name must not be there: a caller does not know an input more.
    """
    broken = []
    for name, spec in wanted.items():
        there = found.get(name)
        if there is None:
            broken.append(f"{name} is missing")
        elif there.dtype != spec.dtype or not _fits(spec.shape, there.shape):
            broken.append(f"{name} is {there} and not {spec}")
    extra = [name for name in found if name not in wanted] if exhaustive else []
    return broken + [f"{name} is not in the contract" for name in extra]


def _fits(wanted: tuple[Dimension, ...], found: tuple[Dimension, ...]) -> bool:
    return len(wanted) == len(found) and all(w in (ANY, f) for w, f in zip(wanted, found, strict=True))
