"""torch modules that a loader makes of a checkpoint, and TorchScript that the user trusts. On the CPU.

Each run gets its own copy of the inputs, so that a model that writes into them spoils nothing for the other one.
"""

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.compare.equivalence_data import Batch
from holdfast.compare.equivalence_loader import STATE_NAMES, Loader, LoaderError, shortened, told
from holdfast.compare.equivalence_models import (
    INPUT_HINT,
    ModelFile,
    ModelRunError,
    described,
    seed_all,
    some_outputs,
    unfit_names,
)
from holdfast.compare.equivalence_outputs import Outputs, array_leaf, flatten
from holdfast.compare.equivalence_state import fill, read_state
from holdfast.compare.figures import Array
from holdfast.compare.values import has_values
from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.dtypes import TORCH
from holdfast.runs.checkpoint import import_torch, load_checkpoint

TORCH_FORMATS = ("torch", "torch zip", "torch legacy", "torchscript")


def open_torch(file: ModelFile, loader: Loader | None, *, trust: bool, folder: Path) -> "TorchModel":
    """Make a model of a checkpoint that torch runs.

    Args:
        file: the checkpoint.
        loader: the user's function; None for TorchScript that is trusted.
        trust: run the code in a TorchScript file.
        folder: what the user's own files are named relative to, in errors.

    Raises:
        UsageError: there is no loader, or it asks for what this format does not have.
        LoaderError: the loader fails, or what it gives is no model.
        UnreadableWeightsError: the loader asks for weights that cannot be read without running code.
        UnfitWeightsError: the weights are not those of the fresh model.
        ModelRunError: torch refuses the TorchScript file.
        IntegrityError: the file is damaged.
        TorchMissingError: torch is not installed.
    """
    torch = import_torch()
    if loader is not None:
        return TorchModel(file.name, _made(file, loader, torch), folder)
    kind = file.checkpoint.format
    if kind != "torchscript":
        raise UsageError(
            f"{file.name} ({kind}) holds weights, not the program that they are for",
            hint="--loader module:function names your function that makes the model",
        )
    if not trust:
        raise UsageError(
            f"{file.name} is TorchScript: running it runs code that is in the file",
            hint="--trust runs it, where you know who wrote it; --loader makes the model of your own code instead",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, for those who write TorchScript
            return TorchModel(file.name, torch.jit.load(str(file.path), map_location="cpu"), folder)
    except RuntimeError as error:
        raise ModelRunError(f"torch does not load {file.name}: {shortened(error)}") from error


def _made(file: ModelFile, loader: Loader, torch: Any) -> Any:
    given: dict[str, Any] = {}
    for asked in loader.asks:
        if asked in STATE_NAMES:
            given[asked] = read_state(file.checkpoint, file.name)
        elif asked == "metadata":
            given[asked] = dict(file.checkpoint.metadata)
        elif asked == "path":
            given[asked] = file.path
        elif file.checkpoint.format not in TORCH_FORMATS:
            raise UsageError(
                f"{loader.text} asks for `checkpoint`, and {file.name} ({file.checkpoint.format}) is no torch file",
                hint="`state` and `metadata` are there for every format",
            )
        else:
            given[asked] = load_checkpoint(file.path)
    model = loader.call(given, file.name)
    if not loader.asks:
        if not isinstance(model, torch.nn.Module):
            raise LoaderError(
                f"{loader.text} takes no weights, and gives {_kind(model)}, not a torch.nn.Module to put them into",
                hint="Let it take `state` or `path`, or give a module",
            )
        fill(model, read_state(file.checkpoint, file.name), loader.text, file.name)
    if not callable(model):
        raise LoaderError(
            f"{loader.text} gives {_kind(model)}, not a model", hint="Give a torch.nn.Module or another callable"
        )
    return model


class TorchModel:
    """A ``torch.nn.Module`` in evaluation mode, or any callable from tensors to tensors.

    Floats are given in the type of the module's parameters where these have one; a callable gets them as they are.
    """

    def __init__(self, name: str, model: Any, folder: Path) -> None:
        self.name = name
        self.fixed_rows: int | None = None
        self.model = model
        self.notes: dict[str, None] = {}
        self._torch = torch = import_torch()
        self._folder = folder
        self._float: Any = None
        if isinstance(model, torch.nn.Module):
            model.eval()
            if any(value.device.type != "cpu" for value in model.parameters()):
                model.cpu()
            floats = {value.dtype for value in model.parameters() if value.is_floating_point()}
            self._float = floats.pop() if len(floats) == 1 else None
        self._names = _forward_names(model)

    def run(self, batch: Batch, seed: int) -> Outputs:
        """What it gives for a batch; see `Model`."""
        torch = self._torch
        inputs = {name: self._tensor(name, array) for name, array in batch.inputs.items()}
        by_name = len(inputs) > 1 and self._takes_names(inputs)
        seed_all(seed)
        try:
            with torch.inference_mode():
                result = self.model(**inputs) if by_name else self.model(*inputs.values())
            outputs = flatten(result, self._leaf)
        except HoldfastError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelRunError(
                f"{self.name} fails on {described(batch.inputs)}: {told(error, self._folder)}",
                hint=INPUT_HINT,
            ) from error
        return some_outputs(outputs, self.name)

    def _tensor(self, name: str, array: Array) -> Any:
        tensor = self._torch.from_numpy(array.copy())
        if self._float is not None and tensor.is_floating_point() and tensor.dtype != self._float:
            self.notes[f"{self.name} gets {name} as {_plain(self._float)}, from {_plain(tensor.dtype)}"] = None
            tensor = tensor.to(self._float)
        return tensor

    def _takes_names(self, inputs: Mapping[str, Any]) -> bool:
        """Several inputs go by name; where the model knows none of the names, in their order."""
        if self._names is None or all(name in self._names for name in inputs):
            return True
        if any(name in self._names for name in inputs):
            raise unfit_names(self.name, self._names, tuple(inputs))
        self.notes[f"{self.name} gets {', '.join(inputs)} in this order: its own names are others"] = None
        return False

    def _leaf(self, value: Any) -> tuple[str, tuple[int, ...], bytes] | None:
        torch = self._torch
        if not isinstance(value, torch.Tensor):
            return array_leaf(value)
        tensor = value.detach()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        dtype = TORCH.get(_plain(tensor.dtype))
        if dtype is None or not has_values(dtype):
            return None
        # into a fresh tensor: the lone element of a view keeps the view's stride, and cannot be looked at as bytes
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
        return dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


def _forward_names(model: Any) -> tuple[str, ...] | None:
    """The names of what the model takes; None where it takes any, or does not say."""
    forward = getattr(model, "forward", model)
    if hasattr(forward, "schema"):  # of TorchScript
        return tuple(argument.name for argument in forward.schema.arguments if argument.name != "self")
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (ValueError, TypeError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(parameter.name for parameter in parameters if parameter.kind in by_name)


def _plain(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
