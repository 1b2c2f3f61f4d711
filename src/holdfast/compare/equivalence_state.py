"""A checkpoint's weights as torch's tensors, read by readers that run nothing; and put into a fresh model."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast.compare.equivalence_loader import shortened
from holdfast.errors import HoldfastError
from holdfast.formats.checkpoint import Checkpoint, Tensor
from holdfast.formats.content import check_expansion, tensor_chunks
from holdfast.formats.dtypes import TORCH
from holdfast.runs.checkpoint import import_torch

# aliases such as torch.half come after the names that torch itself prints
_TORCH_NAMES = {dtype: name for name, dtype in reversed(TORCH.items())}
QUANTISED = frozenset({"QU8", "QI8", "QI32", "QU4", "QU2", "F4X2"})
NAMES_SHOWN = 4


class UnreadableWeightsError(HoldfastError):
    """The weights cannot be read without running code, or are of a type that torch lacks."""


class UnfitWeightsError(HoldfastError):
    """The weights are not those of the model that they are for."""


def read_state(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """The weights by their names relative to their container: ``dict[str, torch.Tensor]`` on the CPU.

    Args:
        checkpoint: open.
        name: what to call it in errors.

    Raises:
        UnreadableWeightsError: a part of them was not read, or has no type in torch.
        TorchMissingError: torch is not installed.
        NoDigestError: views claim far more bytes than the file holds.
        IntegrityError: the file is damaged.
    """
    if checkpoint.no_digest or not checkpoint.weights:
        raise UnreadableWeightsError(
            f"{name} gives no weights without running what is in it: {checkpoint.no_digest or 'it holds none'}",
            hint="`holdfast show` shows what it holds; a loader that takes `path` reads the file itself",
        )
    check_expansion(checkpoint, checkpoint.weights)
    return {tensor.weight_name or tensor.name: _read(checkpoint, tensor, name) for tensor in checkpoint.weights}


def fill(model: Any, state: Mapping[str, Any], model_name: str, file_name: str) -> None:
    """Put weights into a fresh ``torch.nn.Module``: all of them, into all of it.

    Raises:
        UnfitWeightsError: some are missing, too many or of another shape; the message names the first of them.
    """
    wanted = model.state_dict()
    tensors = {name: value for name, value in wanted.items() if hasattr(value, "data_ptr") and not _is_lazy(value)}
    state = dict(state)
    # converters to safetensors keep one name of tied weights; the model knows what is tied
    known = {_place(value): state[name] for name, value in tensors.items() if name in state and value.numel()}
    for name, value in tensors.items():
        if name not in state and _place(value) in known:
            state[name] = known[_place(value)]
    shapes = [
        f"{name} ({_shape(state[name])}, the model's is {_shape(value)})"
        for name, value in tensors.items()
        if name in state and state[name].shape != value.shape
    ]
    faults = {
        "missing": [name for name in tensors if name not in state],
        "too many": [name for name in state if name not in wanted],
        "of another shape": shapes,
    }
    if any(faults.values()):
        parts = "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in faults.items() if names)
        raise UnfitWeightsError(
            f"the weights of {file_name} are not those of the model that {model_name} makes: {parts}",
            hint="A loader that takes `state` may rename them and load them itself, and --loader-b makes another "
            "model of the second",
        )
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UnfitWeightsError(f"{model_name} does not take the weights of {file_name}: {shortened(error)}") from error


def _read(checkpoint: Checkpoint, tensor: Tensor, name: str) -> Any:
    torch = import_torch()
    dtype = getattr(torch, _TORCH_NAMES.get(tensor.dtype, ""), None)
    if dtype is None or tensor.dtype in QUANTISED:
        raise UnreadableWeightsError(
            f"{name}: {tensor.name} is of type {tensor.dtype}, which is handed to no loader",
            hint="A loader that takes `path` reads the file itself",
        )
    data = torch.empty(tensor.nbytes, dtype=torch.uint8)
    place = 0
    for piece in tensor_chunks(checkpoint, tensor):
        data.numpy()[place : place + len(piece)] = np.frombuffer(piece, np.uint8)
        place += len(piece)
    return data.view(dtype).reshape(tensor.shape)


def _place(tensor: Any) -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _is_lazy(tensor: Any) -> bool:
    return bool(import_torch().nn.parameter.is_lazy(tensor))  # has no shape before its first batch


def _shape(tensor: Any) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
