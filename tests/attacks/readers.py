"""What a checkpoint should hold, by torch itself, in the words of `holdfast.formats`; and sources that keep count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from holdfast.formats.checkpoint import Checkpoint
from holdfast.formats.content import tensor_chunks
from holdfast.formats.opening import open_checkpoint
from holdfast.formats.source import FileSource


def torch_tensors(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], torch.Tensor]]:
    """Every tensor in nested dicts, lists and tuples, with the keys that lead to it."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from torch_tensors(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for key, item in enumerate(value):
            yield from torch_tensors(item, (*path, key))


def torch_bytes(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor's contiguous copy."""
    tensor = tensor.detach()
    tensor = tensor.int_repr() if tensor.is_quantized else tensor.resolve_conj().resolve_neg()
    if tensor.numel() == 0:
        return b""
    # a clone: contiguous() leaves a single element with whatever stride it has
    return bytes(tensor.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy())


def our_bytes(checkpoint: Checkpoint) -> dict[tuple[Any, ...], bytes]:
    """The bytes of each tensor by its path."""
    return {tensor.path: b"".join(tensor_chunks(checkpoint, tensor)) for tensor in checkpoint.tensors}


def assert_read_as_torch_does(path: Path) -> Checkpoint:
    """Every tensor that torch reads with ``weights_only=True`` is read here, bit by bit; the source is closed."""
    expected = dict(torch_tensors(torch.load(path, weights_only=True)))
    source, checkpoint = open_checkpoint(path)
    with source:
        found = our_bytes(checkpoint)
    shapes = {tensor.path: tensor.shape for tensor in checkpoint.tensors}
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert shapes[key] == tuple(tensor.shape), key
        assert found[key] == torch_bytes(tensor), key
    return checkpoint


class CountingSource(FileSource):
    """A file that notes how many bytes were read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bytes_read = 0

    def read(self, offset: int, count: int) -> bytes:
        data = super().read(offset, count)
        self.bytes_read += len(data)
        return data
