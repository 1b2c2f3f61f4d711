"""Interrupted training goes on where it stopped and ends with the same bytes.

The state lies in one file beside the outs, not among them: DVC deletes a stage's outs before it runs the stage. It is
keyed by everything that decides the result (params, data, code), so that a changed run never takes up another's state,
and it is removed when the run is done, so that a finished run is never resumed.
"""

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.errors import IntegrityError
from holdfast.runs.checkpoint import import_torch, load_checkpoint, save_checkpoint


def resume_key(**parts: Any) -> str:
    """A digest over what decides a run's result: params, digests of the data and the code, versions, the device.

    Args:
        parts: values that JSON can carry.

    Returns:
        64 hex digits; equal parts give equal keys in every process.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ResumeFile:
    """The state of one interrupted run.

    Args:
        path: the file; no DVC out, and ignored by git.
        key: from `resume_key`.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    def load(self) -> dict[str, Any] | None:
        """The state that `save` was given last, or None where there is none for this key.

        A torn or foreign file counts as none: training from the start is always right, only slower.

        Raises:
            TorchMissingError: torch is not installed.
        """
        try:
            content = load_checkpoint(self.path)
        except (FileNotFoundError, IntegrityError):
            return None
        if content.get("key") != self.key:
            return None
        state: dict[str, Any] = content["state"]
        set_random_state(content["random"])
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep ``state`` together with the state of every random generator, in one step.

        Args:
            state: tensors, numbers, strings and containers of them.

        Raises:
            OSError: it cannot be written; the state saved before is untouched.
        """
        save_checkpoint(self.path, {"key": self.key, "state": dict(state), "random": random_state()})

    def remove(self) -> None:
        """Forget the state: the run is done."""
        self.path.unlink(missing_ok=True)


def random_state() -> dict[str, Any]:
    """The state of the global generators of Python, NumPy and torch (CPU and each CUDA device), in loadable form."""
    torch = import_torch()
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, cached = numpy_state
    return {
        "python": random.getstate(),
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators into a state that `random_state` gave."""
    torch = import_torch()
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, and ask torch for deterministic algorithms.

    On CUDA, cuBLAS also wants ``CUBLAS_WORKSPACE_CONFIG=:4096:8`` in the environment before the first kernel runs.
    """
    torch = import_torch()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
