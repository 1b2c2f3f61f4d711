"""Torch checkpoints: written atomically, read without running code, exported to safetensors.

Torch is imported when a function is called: the rest of the room, and every command of the CLI, works without it.
"""

import json
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from holdfast.atomic import replacing, write_atomically
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.contents import WEIGHTS_CONTAINERS
from holdfast.formats.safetensors import ALIASES_KEY

if TYPE_CHECKING:
    import torch

HEADER_ALIGNMENT_BYTES = 8


class TorchMissingError(HoldfastError):
    """The command needs torch, which the base install does not bring."""


class UnloadableValueError(HoldfastError):
    """A value cannot go into a checkpoint, because only unpickling could read it again."""


class NoWeightsError(HoldfastError):
    """A checkpoint holds no mapping of names to tensors."""


def import_torch() -> Any:
    """The torch module.

    Raises:
        TorchMissingError: it is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise TorchMissingError("torch is not installed", hint="`pip install 'holdfast[train]'` brings it") from error
    return torch


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step; equal content gives equal bytes.

    Args:
        path: where; an older file there stays whole until the new one is.
        content: tensors, numbers, strings and containers of them, so that it loads with ``weights_only=True``.

    Raises:
        TorchMissingError: torch is not installed.
        OSError: it cannot be written; the older file is untouched.
    """
    torch = import_torch()
    with replacing(path) as stream:  # a stream, not a path: torch would write the file's name into the archive
        torch.save(dict(content), stream)


def loadable(value: Any) -> Any:
    """The value, with NumPy's scalars and arrays made numbers and tensors, so that it loads with ``weights_only``.

    Raises:
        UnloadableValueError: it holds something that only unpickling could bring back.
        TorchMissingError: torch is not installed.
    """
    torch = import_torch()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Mapping):
        items = {loadable(key): loadable(item) for key, item in value.items()}
        unchanged = type(value) in (dict, OrderedDict) and all(items[key] is item for key, item in value.items())
        return value if unchanged else items  # a state dict keeps the versions that torch hangs on to it
    if type(value) in (list, tuple):
        return type(value)(loadable(item) for item in value)
    simple = (str, bytes, bool, int, float, complex, type(None))
    if isinstance(value, (torch.Tensor, torch.Size, torch.dtype, torch.device, *simple)):
        return value
    raise UnloadableValueError(
        f"a checkpoint cannot hold a {type(value).__module__}.{type(value).__qualname__}: loading it would run code",
        hint="Use tensors, numbers, strings, and lists and dicts of them",
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with ``weights_only=True``: nothing in it is executed.

    Raises:
        TorchMissingError: torch is not installed.
        IntegrityError: the file is torn or damaged, is no checkpoint, or asks for code to be run.
        OSError: the file cannot be opened.
    """
    torch = import_torch()
    with open(path, "rb") as stream:
        try:
            _check_sums(stream)
            content = torch.load(stream, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # torch raises whatever its C++, zipfile or its unpickler raise
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise IntegrityError(f"{path} does not load as a torch checkpoint without running code: {first}") from error
    if not isinstance(content, dict):
        raise IntegrityError(f"{path} holds a {type(content).__name__}, not a mapping with weights")
    return content


def _check_sums(stream: BinaryIO) -> None:
    # torch writes a CRC for each record of its archive and reads past it: a flipped bit would load as a weight
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the record {damaged} is damaged")
    stream.seek(0)


def weights_of(checkpoint: Mapping[str, Any], name: str = "the checkpoint") -> dict[str, "torch.Tensor"]:
    """The weights of a checkpoint: its first of `WEIGHTS_CONTAINERS` that maps names to tensors, or itself.

    Raises:
        NoWeightsError: there is no such mapping.
    """
    torch = import_torch()
    for candidate in (*(checkpoint.get(key) for key in WEIGHTS_CONTAINERS), checkpoint):
        if isinstance(candidate, Mapping) and candidate:
            values = candidate.values()
            if all(isinstance(value, torch.Tensor) for value in values):
                return dict(candidate)
    raise NoWeightsError(f"{name} holds no weights: none of {', '.join(WEIGHTS_CONTAINERS)} maps names to tensors")


def export_safetensors(weights: Mapping[str, "torch.Tensor"], path: Path) -> None:
    """Write weights as safetensors in one step; equal weights give equal bytes.

    Tensors that share the very same memory (tied weights) are written once; the other names go to the metadata under
    `holdfast.formats.safetensors.ALIASES_KEY`, and the weights digest counts them all.

    Raises:
        TorchMissingError: torch or safetensors is not installed.
        NoWeightsError: a tensor's type, layout or name is none that safetensors knows.
        OSError: it cannot be written; an older file is untouched.
    """
    torch = import_torch()
    try:
        from safetensors.torch import save
    except ModuleNotFoundError as error:
        raise TorchMissingError(
            "safetensors is not installed", hint="`pip install 'holdfast[train]'` brings it"
        ) from error
    first_name: dict[tuple[Any, ...], str] = {}
    kept: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for name in sorted(weights):
        tensor = weights[name].detach().cpu()
        if tensor.layout is not torch.strided or not isinstance(name, str):
            raise NoWeightsError(f"the tensor {name!r} is {tensor.layout}, which safetensors does not know")
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and place in first_name:
            aliases[name] = first_name[place]
            continue
        first_name[place] = name
        kept[name] = tensor.contiguous().clone()
    metadata = {"format": "pt"} | ({ALIASES_KEY: json.dumps(aliases, sort_keys=True)} if aliases else {})
    try:
        data = save(kept)
    except (KeyError, ValueError, RuntimeError) as error:
        raise NoWeightsError(f"safetensors does not take these weights: {error}") from error
    write_atomically(path, _with_metadata(data, metadata))


def _with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    # the library writes its metadata in the order of a hash map, another one in each process; we sort it
    (length,) = struct.unpack_from("<Q", data)
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
