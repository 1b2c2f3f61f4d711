"""ONNX models in onnxruntime, on the CPU; torch is not needed."""

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from holdfast.compare.equivalence_data import Batch
from holdfast.compare.equivalence_loader import shortened
from holdfast.compare.equivalence_models import (
    INPUT_HINT,
    ModelFile,
    ModelRunError,
    described,
    seed_all,
    some_outputs,
    unfit_names,
)
from holdfast.compare.equivalence_outputs import Outputs, flatten
from holdfast.compare.figures import Array
from holdfast.errors import HoldfastError

ORT_ERRORS_ONLY = 3
# ONNX's element types, as onnxruntime writes them, that NumPy has
ORT_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(bool)": "bool",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
}  # fmt: skip


class RuntimeMissingError(HoldfastError):
    """The command needs onnxruntime, which the base install does not bring."""


class OnnxModel:
    """An ONNX model in onnxruntime, on the CPU, one operator after the other."""

    def __init__(self, file: ModelFile, threads: int | None) -> None:
        self.name = file.name
        self.notes: dict[str, None] = {}
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = ORT_ERRORS_ONLY
        options.use_deterministic_compute = True
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors derive from Exception alone
            raise ModelRunError(f"onnxruntime does not load {file.name}: {shortened(error)}") from error
        self._inputs = self._session.get_inputs()
        fixed = {
            item.shape[0]
            for item in self._inputs
            if item.shape and isinstance(item.shape[0], int) and item.shape[0] > 0
        }
        self.fixed_rows: int | None = fixed.pop() if len(fixed) == 1 else None

    def run(self, batch: Batch, seed: int) -> Outputs:
        """What it gives for a batch; see `Model`."""
        given = self._given(batch.inputs)
        seed_all(seed)
        try:
            found = self._session.run(None, given)
        except Exception as error:  # its errors derive from Exception alone
            raise ModelRunError(
                f"{self.name} fails on {described(batch.inputs)}: {shortened(error)}",
                hint=INPUT_HINT,
            ) from error
        names = [item.name for item in self._session.get_outputs()]
        named = {name: _scores(value) for name, value in zip(names, found, strict=True)}
        return some_outputs(flatten(named), self.name)

    def _given(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        names = [item.name for item in self._inputs]
        if len(names) != len(inputs):
            raise unfit_names(self.name, names, tuple(inputs))
        if not set(names) & set(inputs):
            if len(names) > 1:
                self.notes[f"{self.name} gets {', '.join(inputs)} as {', '.join(names)}, in this order"] = None
            inputs = dict(zip(names, inputs.values(), strict=True))
        elif set(names) != set(inputs):
            raise unfit_names(self.name, names, tuple(inputs))
        return {item.name: self._fitted(item, inputs[item.name]) for item in self._inputs}

    def _fitted(self, item: Any, array: Array) -> Array:
        """The array in the declared type: floats as other floats, integers as others that hold them."""
        wanted = ORT_TYPES.get(item.type)
        if wanted is None:
            raise ModelRunError(f"{self.name}: its input {item.name} is a {item.type}, which is not supported")
        dtype = np.dtype(wanted)
        if array.dtype == dtype:
            return array
        if {array.dtype.kind, dtype.kind} <= set("f"):
            self.notes[f"{self.name} gets {item.name} as {dtype}, from {array.dtype}"] = None
            with np.errstate(over="ignore"):
                return array.astype(dtype)
        if array.dtype.kind in "iu" and dtype.kind in "iu":
            converted = array.astype(dtype)
            if (converted.astype(array.dtype) == array).all() and ((converted < 0) == (array < 0)).all():
                return converted
        raise ModelRunError(
            f"{self.name}: its input {item.name} is {dtype}, and the data is {array.dtype}",
            hint="Save the data in that type",
        )


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        RuntimeMissingError: it is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")  # takes 0.1 s, and only the extra brings it
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(
            "onnxruntime is not installed", hint="`pip install 'holdfast[train]'` brings it"
        ) from error


def _scores(value: Any) -> Any:
    """scikit-learn's converter gives a list of {class: score}, one a sample: the same as an array of scores."""
    rows: list[Any] = value if isinstance(value, list) and value else [None]
    if all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        return np.array([list(row.values()) for row in rows])
    return value
