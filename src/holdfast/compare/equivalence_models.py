"""What can be run on batches of samples, whatever runtime carries it; and the steadiness that a comparison needs."""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from holdfast.compare.equivalence_data import Batch
from holdfast.compare.equivalence_outputs import Outputs
from holdfast.compare.figures import Array
from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.checkpoint import Checkpoint

MAX_SEED = 2**32 - 1  # of numpy.random.seed
INPUT_HINT = "--input KEY picks what it is given, --input KEY=NAME also names it"


class ModelRunError(HoldfastError):
    """A model does not run, or does not take the data."""


@dataclass(frozen=True)
class ModelFile:
    """A checkpoint to make a model of.

    Attributes:
        name: what the user called it.
        path: where it lies, for runtimes and loaders that read it themselves.
        checkpoint: the same file, open.
    """

    name: str
    path: Path
    checkpoint: Checkpoint

    @property
    def is_onnx(self) -> bool:
        """onnxruntime runs it, without a loader."""
        return self.checkpoint.format == "onnx"


class Model(Protocol):
    """What maps batches to outputs.

    Attributes:
        name: what the user called it.
        fixed_rows: the one batch size that it takes, None where it takes any.
        notes: what was done to the inputs so that they fit; the keys count.
    """

    name: str
    fixed_rows: int | None
    notes: dict[str, None]

    def run(self, batch: Batch, seed: int) -> Outputs:
        """What it gives for a batch, all random generators being seeded before.

        Raises:
            ModelRunError: it fails, or gives no arrays.
            UsageError: the data's names are not those of its inputs.
        """


@contextmanager
def steady(threads: int | None) -> Iterator[None]:
    """Run torch with so many threads and its deterministic algorithms; all is as before at the end, generators too.

    Where torch is not imported yet, nothing of it is touched: ONNX models need none of it.
    """
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    torch = sys.modules.get("torch")
    if torch is not None:
        state, count = torch.get_rng_state(), torch.get_num_threads()
        mode = torch.get_deterministic_debug_mode()
        torch.set_num_threads(threads or count)
        # does what use_deterministic_algorithms does, which would import torch's compiler and take 0.8 s
        torch.set_deterministic_debug_mode("warn")
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(state)
            torch.set_num_threads(count)
            torch.set_deterministic_debug_mode(mode)


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and, where it is imported, torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def unfit_names(name: str, wanted: Sequence[str], given: Sequence[str]) -> UsageError:
    """The error of a model whose inputs are called otherwise than the data's arrays."""
    known = " ".join(f"--input {item}" for item in given if item in wanted)
    hint = "--input KEY=NAME gives the array KEY of the data as the model's NAME"
    return UsageError(
        f"{name} takes {', '.join(wanted) or 'nothing'}, and the data has {', '.join(given)}",
        hint=f"{known} leaves out the rest; {hint}" if known else hint,
    )


def some_outputs(outputs: Outputs, name: str) -> Outputs:
    """The outputs, where there are any.

    Raises:
        ModelRunError: there are none.
    """
    if not outputs.arrays:
        gave = ", ".join(outputs.left_out) or "nothing"
        raise ModelRunError(
            f"{name} gives {gave}, where tensors can be compared",
            hint="Tensors, NumPy arrays and numbers count, also in tuples, lists and dicts",
        )
    return outputs


def described(inputs: Mapping[str, Array]) -> str:
    """Inputs with their types and shapes, for errors."""
    return ", ".join(f"{name} ({array.dtype}, {'×'.join(map(str, array.shape))})" for name, array in inputs.items())
