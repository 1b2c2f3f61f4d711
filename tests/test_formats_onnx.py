"""ONNX models read by us against the library."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from attacks.readers import CountingSource
from holdfast.errors import IntegrityError
from holdfast.formats.content import checkpoint_weights_digest, tensor_chunks
from holdfast.formats.opening import open_checkpoint, read_checkpoint, sniff
from holdfast.formats.source import MemorySource

FLOAT = TensorProto.FLOAT


def model_of(initializers: list[Any], nodes: list[Any] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, [1])],
        initializers,
    )
    model = helper.make_model(graph, producer_name="tests", opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"note": "hello"})
    return model


def constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Initializers and constants, by our names."""
    found: dict[str, TensorProto] = {}

    def walk(graph: onnx.GraphProto, prefix: str) -> None:
        for tensor in graph.initializer:
            found[prefix + tensor.name] = tensor
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    found[prefix + node.output[0]] = attribute.t
                elif attribute.type == onnx.AttributeProto.GRAPH:
                    walk(attribute.g, f"{prefix}{node.name}/{attribute.name}/")

    walk(model.graph, "")
    return found


def as_bytes(tensor: TensorProto, folder: str = "") -> bytes:
    array = numpy_helper.to_array(tensor, folder)
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return tensor.raw_data
    return np.ascontiguousarray(array).tobytes()


ARRAYS = {
    "f": np.arange(6, dtype=np.float32).reshape(2, 3),
    "d": np.arange(3, dtype=np.float64),
    "h": np.arange(3, dtype=np.float16),
    "i8": np.arange(-2, 3, dtype=np.int8),
    "i32": np.arange(-2, 3, dtype=np.int32),
    "i64": np.array([-(2**62), -1, 0, 2**62]),
    "u8": np.arange(5, dtype=np.uint8),
    "u64": np.array([2**64 - 1, 0], dtype=np.uint64),
    "b": np.array([True, False]),
    "c": np.array([1 + 2j, 3], dtype=np.complex64),
    "scalar": np.array(3.0, dtype=np.float32),
    "empty": np.zeros((0, 2), dtype=np.float32),
    "zeros": np.zeros(2000, dtype=np.float32),
}


def check(path: Path) -> None:
    model = onnx.load(path, load_external_data=False)
    expected = constants(model)
    source, checkpoint = open_checkpoint(path)
    with source:
        found = {tensor.name: b"".join(tensor_chunks(checkpoint, tensor)) for tensor in checkpoint.tensors}
    assert checkpoint.format == "onnx"
    assert found.keys() == expected.keys()
    for tensor in checkpoint.tensors:
        assert list(tensor.shape) == list(expected[tensor.name].dims)
        assert found[tensor.name] == as_bytes(expected[tensor.name], str(path.parent)), tensor.name


def test_raw_and_typed_fields(tmp_path: Path) -> None:
    raw = [numpy_helper.from_array(array, name) for name, array in ARRAYS.items()]
    typed = [
        helper.make_tensor(f"{name} typed", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.flatten())
        for name, array in ARRAYS.items()
    ]
    bf16 = helper.make_tensor("bf16", TensorProto.BFLOAT16, [3], [1.5, -2.0, 3.0])
    int4 = helper.make_tensor("int4", TensorProto.INT4, [3], b"\x21\x03", raw=True)
    onnx.save(model_of([*raw, *typed, bf16, int4]), tmp_path / "m.onnx")

    check(tmp_path / "m.onnx")
    source, checkpoint = open_checkpoint(tmp_path / "m.onnx")
    source.close()
    assert checkpoint.metadata["opset/ai.onnx"] == 17
    assert checkpoint.metadata["metadata/note"] == "hello"
    assert checkpoint.metadata["producer_name"] == "tests"


def test_external_data_and_large_files(tmp_path: Path) -> None:
    arrays = {"w": np.random.default_rng(2).random((600, 500)), **ARRAYS}
    model = model_of([numpy_helper.from_array(array, name) for name, array in arrays.items()])
    inside = model.SerializeToString()
    (tmp_path / "inside.onnx").write_bytes(inside)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="sub.bin", size_threshold=100)
    check(tmp_path / "m.onnx")
    digests = set()
    for name in ("m.onnx", "inside.onnx"):
        with CountingSource(tmp_path / name) as source:
            checkpoint = read_checkpoint(source)
            assert source.bytes_read < 300_000
            digests.add(checkpoint_weights_digest(checkpoint))
    assert len(digests) == 1


def test_constants_and_graphs_in_nodes(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(ARRAYS["f"], ""))
    branch = helper.make_graph(
        [constant],
        "then",
        [],
        [helper.make_tensor_value_info("k", FLOAT, [2, 3])],
        [numpy_helper.from_array(ARRAYS["i64"], "deep")],
    )
    choice = helper.make_node("If", ["x"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    onnx.save(model_of([numpy_helper.from_array(ARRAYS["d"], "w")], [constant, choice]), tmp_path / "m.onnx")
    check(tmp_path / "m.onnx")
    source, checkpoint = open_checkpoint(tmp_path / "m.onnx")
    source.close()
    parts = {tensor.name: tensor.part for tensor in checkpoint.tensors}
    assert parts == {
        "w": "weights", "k": "other", "choice/then_branch/deep": "weights", "choice/then_branch/k": "other",
        "choice/else_branch/deep": "weights", "choice/else_branch/k": "other",
    }  # fmt: skip
    onnx.save(model_of([], [constant]), tmp_path / "c.onnx")
    source, checkpoint = open_checkpoint(tmp_path / "c.onnx")
    source.close()
    assert [tensor.weight_name for tensor in checkpoint.weights] == ["k"]


def external(location: str, **facts: str) -> bytes:
    tensor = numpy_helper.from_array(ARRAYS["f"], "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model_of([tensor]).SerializeToString()


@pytest.mark.parametrize(
    ("location", "facts"),
    [
        ("../secret", {}),
        ("/etc/hostname", {}),
        ("link", {}),
        ("", {}),
        (".", {}),
        ("missing", {}),
        ("a\0b", {}),
        ("data", {"offset": "-4"}),
        ("data", {"offset": "x"}),
        ("data", {"offset": "90"}),
        ("data", {"length": "23"}),
        ("data", {"length": "99999999999999999999"}),
    ],
)
def test_external_data_that_leads_elsewhere(tmp_path: Path, location: str, facts: dict[str, str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"\0" * 24)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "data").write_bytes(b"\0" * 100)
    (folder / "m.onnx").write_bytes(external(location, **facts))
    with pytest.raises(IntegrityError, match=r"m\.onnx"):
        open_checkpoint(folder / "m.onnx")


@pytest.mark.parametrize(
    "data", [b"\x08\x07", b"\x08\x07hello", b"\x0a\x03abc", "# Ünïcödé\n".encode() * 50, b"\x08\x00\x3a\x02\x0a\x00"]
)
def test_other_bytes_are_no_model(data: bytes) -> None:
    assert sniff(MemorySource(data)) == "unknown"
