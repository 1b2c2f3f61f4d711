"""Checkpoints of every format for the tests of the vault's split, and what holds of every split."""

import io
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save as save_safetensors
from torch import nn

from holdfast.formats.source import MemorySource
from holdfast.vault.split import BLOCK_BYTES, Piece, Split, split_source

OWN, GROUP = 4 * 1024, 64 * 1024


def split_bytes(data: bytes, **options: Any) -> Split:
    """The split of some bytes, checked to be sound."""
    found = split_source(MemorySource(data), **options)
    assert_sound(found, len(data), options.get("block_bytes", BLOCK_BYTES))
    assert found == split_source(MemorySource(data, "another name"), **options)
    return found


def assert_sound(found: Split, size: int, block_bytes: int = BLOCK_BYTES) -> None:
    """Every byte is in one piece, in order; pieces are not too long and not too many; slots are unique."""
    end = 0
    for piece in found.pieces:
        assert piece.offset == end
        assert 0 < piece.length <= block_bytes
        end += piece.length
    assert end == size
    slots = [piece.slot for piece in found.pieces if piece.slot]
    assert len(slots) == len(set(slots))
    assert all(0 <= slot < 2**64 for slot in slots)
    assert len(found.pieces) <= size // 2048 + size // (block_bytes // 64) + 2


def contents(data: bytes, found: Split) -> dict[bytes, Piece]:
    return {data[piece.offset : piece.offset + piece.length]: piece for piece in found.pieces}


def shared(first: bytes, second: bytes) -> int:
    """The bytes of the second file that are in pieces of the first."""
    known = contents(first, split_bytes(first))
    return sum(len(piece) for piece in contents(second, split_bytes(second)) if piece in known)


def torch_file(value: Any, *, legacy: bool = False, name: str = "archive") -> bytes:
    """What torch writes; the file's name is in every zip header."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.pt"
        torch.save(value, path, _use_new_zipfile_serialization=not legacy)
        return path.read_bytes()


def state(*, seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors of all sizes: of several blocks, of one, small neighbours, scalars."""
    torch.manual_seed(seed)
    return {
        "embedding.weight": torch.randn(1100, 1024),
        "norm.weight": torch.randn(300),
        "norm.bias": torch.randn(300),
        "norm.running_mean": torch.randn(500),
        "norm.num_batches_tracked": torch.tensor(3),
        "norm.running_var": torch.rand(500),
        "conv.weight": torch.randn(32, 16, 3, 3),
        "half": torch.randn(5000).half(),
        "brain": torch.randn(64, 64).bfloat16(),
        "steps": torch.arange(1000),
    }


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items() if tensor.dtype != torch.bfloat16}


def npz(tensors: dict[str, torch.Tensor], save: Callable[..., None] = np.savez) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays(tensors))
    return stream.getvalue()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def onnx_file(tensors: Iterable[TensorProto]) -> bytes:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["x2"])], "g", [value], [value], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def onnx_of(tensors: dict[str, torch.Tensor]) -> bytes:
    return onnx_file(numpy_helper.from_array(array, name) for name, array in arrays(tensors).items())


def torchscript() -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64))
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 64)), stream)
    return stream.getvalue()


FORMATS: dict[str, Callable[[], bytes]] = {
    "torch zip": lambda: torch_file({"model_state_dict": state(), "epoch": 3}),
    "torch legacy": lambda: torch_file(state(), legacy=True),
    "safetensors": lambda: save_safetensors(state()),
    "npz": lambda: npz(state()),
    "npy": lambda: npy(np.random.default_rng(0).random((700, 1000), np.float32)),
    "onnx": lambda: onnx_of(state()),
}
