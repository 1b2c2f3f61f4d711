"""What can be said of a checkpoint in a few figures, for lists of many of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.formats.checkpoint import Checkpoint, storage_bytes


@dataclass(frozen=True)
class Summary:
    """A checkpoint in figures.

    Attributes:
        format: as of `Checkpoint`.
        tensors: how many, of the weights and all others.
        weight_tensors: how many of the weights.
        parameters: elements of the weights' tensors, a tied one counted once.
        nbytes: bytes of the tensors' storages, a shared one counted once.
        weight_nbytes: the same of the weights.
        optimizer_nbytes: the same of optimizers' states.
        dtypes: elements of the weights by dtype, most first.
        opaque: the first reason why a part of it was not read, empty where all was.
    """

    format: str
    tensors: int
    weight_tensors: int
    parameters: int
    nbytes: int
    weight_nbytes: int
    optimizer_nbytes: int
    dtypes: Mapping[str, int]
    opaque: str = ""

    def as_json(self) -> dict[str, Any]:
        """For storing; `from_json` reads it."""
        return {**self.__dict__, "dtypes": dict(self.dtypes)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Summary":
        """What `as_json` gave."""
        return Summary(**data)


def summary_of(checkpoint: Checkpoint) -> Summary:
    """The figures of an opened checkpoint."""
    weights = checkpoint.weights
    dtypes: dict[str, int] = {}
    once = {tensor.content_key: tensor for tensor in weights}.values()
    for tensor in once:
        dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + tensor.elements
    return Summary(
        format=checkpoint.format,
        tensors=len(checkpoint.tensors),
        weight_tensors=len(weights),
        parameters=sum(tensor.elements for tensor in once),
        nbytes=storage_bytes(checkpoint.tensors),
        weight_nbytes=storage_bytes(weights),
        optimizer_nbytes=storage_bytes([tensor for tensor in checkpoint.tensors if tensor.part == "optimizer"]),
        dtypes=dict(sorted(dtypes.items(), key=lambda item: (-item[1], item[0]))),
        opaque=checkpoint.opaque[0].reason if checkpoint.opaque else "",
    )
