"""ONNX models: against torch, against one another, and what onnxruntime cannot be given."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from holdfast.compare.equivalence import Settings, compare_models
from holdfast.compare.equivalence_data import DataError, open_data
from holdfast.compare.equivalence_models import ModelFile, ModelRunError
from holdfast.compare.equivalence_verdict import Equivalence
from holdfast.errors import UsageError
from holdfast.formats.opening import open_checkpoint
from holdfast.formats.source import FileSource

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x)))


def compare(
    a: Path, b: Path, data: Path, *, inputs: dict[str, str] | None = None, labels: str | None = None, **options: Any
) -> Equivalence:
    source_a, one = open_checkpoint(a)
    source_b, other = open_checkpoint(b)
    with source_a, source_b, FileSource(data) as source:
        files = ModelFile(a.name, a, one), ModelFile(b.name, b, other)
        return compare_models(*files, open_data(source, inputs, labels), Settings(folder=a.parent, **options))


def graph(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], **weights: np.ndarray) -> Path:
    """Write a model of these nodes; inputs and outputs as {name: (type, shape)}."""
    described = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in named.items()]
        for named in (inputs, outputs)
    ]
    initial = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_model(
        helper.make_graph(nodes, "g", *described, initial),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=9,
    )
    onnx.save(made, path)
    return path


def times(path: Path, factor: float, *, kind: int = TensorProto.FLOAT, rows: Any = "N", name: str = "x") -> Path:
    """A model of one multiplication."""
    node = helper.make_node("Mul", [name, "w"], ["y"])
    weight = np.full(3, factor, helper.tensor_dtype_to_np_dtype(kind))
    return graph(path, [node], {name: (kind, [rows, 3])}, {"y": (kind, [rows, 3])}, w=weight)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A torch model and its export, and samples."""
    folder = tmp_path_factory.mktemp("onnx")
    (folder / "net.py").write_text(NET)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Net().eval(), torch.randn(50, 6)
    torch.save(model.state_dict(), folder / "net.pt")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the exporter that needs nothing beside torch is the old one
        axes = {"pixels": {0: "N"}, "logits": {0: "N"}}
        torch.onnx.export(
            model, (x[:2],), str(folder / "net.onnx"), dynamo=False, input_names=["pixels"], output_names=["logits"],
            dynamic_axes=axes,
        )  # fmt: skip
        torch.onnx.export(model, (x[:8],), str(folder / "fixed.onnx"), dynamo=False)
        torch.onnx.export(model, (x[:1],), str(folder / "single.onnx"), dynamo=False)
    with torch.no_grad():
        labels = model(x).argmax(1)
    np.savez(folder / "x.npz", x=x.numpy(), y=labels.numpy())
    np.savez(folder / "x64.npz", x=x.numpy().astype(np.float64))
    return folder


def test_an_export_is_equivalent(world: Path) -> None:
    found = compare(world / "net.pt", world / "net.onnx", world / "x.npz", labels="y", loader="net.py:Net")
    assert found.kind in ("equivalent", "bit-identical")
    assert found.weights.kind == "same weights"
    (output,) = found.outputs
    assert (output.names, output.shape, output.within) == (("output", "logits"), (None, 4), 200)
    (predictions,) = found.predictions
    assert predictions.accuracy is not None
    assert (predictions.agreeing, predictions.accuracy.both) == (50, 50)
    assert found.notes == ()


def test_inputs_are_given_in_the_declared_type(world: Path) -> None:
    found = compare(world / "net.onnx", world / "net.pt", world / "x64.npz", loader="net.py:Net")
    assert found.kind in ("equivalent", "bit-identical")
    assert found.notes == ("net.onnx gets pixels as float32, from float64", "net.pt gets x as float32, from float64")


def test_a_fixed_batch_size_is_kept(world: Path) -> None:
    one, fixed, data = world / "net.onnx", world / "fixed.onnx", world / "x.npz"
    for a, b in ((one, fixed), (fixed, one)):
        found = compare(a, b, data, inputs={"x": "x"})
        assert (found.rows, found.samples) == (8, 48)
        assert found.notes == ("the last 2 samples do not fill a batch of 8, and were left out",)
        assert found.kind in ("equivalent", "bit-identical")
    assert compare(fixed, one, data, inputs={"x": "x"}, rows=8, limit=16).notes == ()
    single = compare(world / "net.pt", world / "single.onnx", data, inputs={"x": "x"}, loader="net.py:Net")
    assert (single.rows, single.samples) == (1, 50)
    with pytest.raises(UsageError, match=r"fixed\.onnx takes batches of 8 and nothing else, not of 4"):
        compare(fixed, one, data, inputs={"x": "x"}, rows=4)
    with pytest.raises(
        UsageError, match=r"fixed\.onnx takes batches of 8, single\.onnx takes batches of 1 and nothing"
    ):
        compare(fixed, world / "single.onnx", data, inputs={"x": "x"})
    with pytest.raises(DataError, match="there are fewer samples than a batch of 8 takes"):
        compare(fixed, one, data, inputs={"x": "x"}, limit=7)


def test_two_models_without_torch(tmp_path: Path) -> None:
    """No torch is imported where both are ONNX."""
    times(tmp_path / "a.onnx", 2), times(tmp_path / "b.onnx", 2 + 1e-3)
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from holdfast.cli.main import main\n"
        "main(['equivalence', 'a.onnx', 'b.onnx', '--data', 'x.npy', '--predictions', 'none'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Different outputs (max difference 0.001; 66.7 % of the values within tolerance).")


@pytest.mark.parametrize(
    ("kind", "array", "note"),
    [
        (TensorProto.FLOAT16, np.ones((4, 3), np.float32), "a.onnx gets x as float16, from float32"),
        (TensorProto.INT32, np.arange(12).reshape(4, 3), None),
        (TensorProto.DOUBLE, np.ones((4, 3), np.float64), None),
    ],
)
def test_numbers_of_other_widths(tmp_path: Path, kind: int, array: np.ndarray, note: str | None) -> None:
    a, b = times(tmp_path / "a.onnx", 2, kind=kind), times(tmp_path / "b.onnx", 3, kind=kind)
    np.save(tmp_path / "x.npy", array)
    assert compare(a, a, tmp_path / "x.npy").kind == "bit-identical"
    found = compare(a, b, tmp_path / "x.npy", predictions="none")
    assert found.kind == "different outputs"
    assert found.outputs[0].max_abs == array.max()
    assert (note in found.notes) if note else found.notes == ()


@pytest.mark.parametrize(
    ("kind", "array", "said"),
    [
        (TensorProto.FLOAT, np.arange(12).reshape(4, 3), "its input x is float32, and the data is int64. Save"),
        (TensorProto.INT8, np.full((4, 3), 300), "its input x is int8, and the data is int64"),
        (TensorProto.UINT64, np.full((4, 3), -1), "its input x is uint64, and the data is int64"),
        (
            TensorProto.FLOAT,
            np.ones((4, 5), np.float32),
            r"a\.onnx fails on tensor \(float32, 4×5\): .*invalid dimensions",
        ),
    ],
)
def test_data_that_does_not_fit(tmp_path: Path, kind: int, array: np.ndarray, said: str) -> None:
    a = times(tmp_path / "a.onnx", 2, kind=kind)
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ModelRunError, match=said):
        compare(a, a, tmp_path / "x.npy")


def two_inputs(path: Path, left: str = "left", right: str = "right") -> Path:
    kind = (TensorProto.FLOAT, ["N", 3])
    node = helper.make_node("Sub", [left, right], ["y"])
    return graph(path, [node], {left: kind, right: kind}, {"y": kind})


def test_several_inputs_by_name_and_in_order(tmp_path: Path) -> None:
    a, b = two_inputs(tmp_path / "a.onnx"), two_inputs(tmp_path / "b.onnx", "input.1", "input.2")
    np.savez(tmp_path / "x.npz", right=np.ones((2, 3), np.float32), left=np.full((2, 3), 5, np.float32))
    found = compare(a, a, tmp_path / "x.npz")
    assert (found.kind, found.notes) == ("bit-identical", ())
    found = compare(a, b, tmp_path / "x.npz", inputs={"left": "left", "right": "right"})
    assert found.kind == "bit-identical"
    assert found.notes == ("b.onnx gets left, right as input.1, input.2, in this order",)
    # by name in the one and in the file's order in the other: 5 - 1 and 1 - 5
    assert compare(a, b, tmp_path / "x.npz", predictions="none").outputs[0].max_abs == 8
    with pytest.raises(UsageError, match=r"a\.onnx takes left, right, and the data has right\. --input right"):
        compare(a, a, tmp_path / "x.npz", inputs={"right": "right"})
    with pytest.raises(UsageError, match=r"a\.onnx takes left, right, and the data has left, other"):
        compare(a, a, tmp_path / "x.npz", inputs={"left": "left", "right": "other"})


def test_random_operators_are_not_deterministic(tmp_path: Path) -> None:
    kind = (TensorProto.FLOAT, ["N", 3])
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    a = graph(tmp_path / "a.onnx", nodes, {"x": kind}, {"y": kind})
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    found = compare(times(tmp_path / "b.onnx", 2), a, tmp_path / "x.npy")
    assert found.kind == "not deterministic"
    assert found.verdict.startswith("not deterministic: a.onnx gives other outputs each time")


def test_a_classifier_of_scikit_learns_converter(tmp_path: Path) -> None:
    """Its probabilities are a sequence of maps, one for each sample."""

    def classifier(path: Path, factor: float) -> Path:
        nodes = [
            helper.make_node(
                "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml", classlabels_ints=[0, 1, 2],
                coefficients=[factor, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], intercepts=[0.0] * 3, multi_class=1,
                post_transform="SOFTMAX",
            ),
            helper.make_node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
        ]  # fmt: skip
        made = helper.make_model(
            helper.make_graph(
                nodes,
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
                [
                    helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
                    helper.make_value_info(
                        "probabilities",
                        helper.make_sequence_type_proto(
                            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
                        ),
                    ),
                ],
            ),
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
            ir_version=9,
        )
        onnx.save(made, path)
        return path

    a, b = classifier(tmp_path / "a.onnx", 1.0), classifier(tmp_path / "b.onnx", 3.0)
    x = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1], [0.1, 1, 0]], np.float32)
    np.save(tmp_path / "x.npy", x)
    found = compare(a, b, tmp_path / "x.npy")
    assert [output.names[0] for output in found.outputs] == ["label", "probabilities"]
    assert found.outputs[1].shape == (None, 3)
    (predictions,) = found.predictions
    assert predictions.names == ("probabilities", "probabilities")
    assert [(item.sample, item.a, item.b) for item in predictions.disagreements] == [(1, 1, 0)]


def test_files_that_onnxruntime_refuses(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    kind = (TensorProto.FLOAT, ["N", 3])
    a = graph(tmp_path / "a.onnx", [node], {"x": kind}, {"y": kind}, w=np.ones(2, np.float32))
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    with pytest.raises(ModelRunError, match=r"onnxruntime does not load a\.onnx: .*NoSuchOperator"):
        compare(a, a, tmp_path / "x.npy")


def test_onnx_models_take_no_loader(world: Path) -> None:
    with pytest.raises(UsageError, match="both are ONNX models, which onnxruntime runs: they take no loader"):
        compare(world / "net.onnx", world / "net.onnx", world / "x.npz", loader="net.py:Net")
    with pytest.raises(UsageError, match=r"net\.onnx is an ONNX model, which onnxruntime runs: it takes no loader"):
        compare(world / "net.pt", world / "net.onnx", world / "x.npz", loader="net.py:Net", loader_b="net.py:Net")


def test_weights_beside_the_file(tmp_path: Path) -> None:
    """What an exporter keeps in a file of its own is found beside the model."""
    a = times(tmp_path / "a.onnx", 2)
    (tmp_path / "b").mkdir()
    onnx.save(
        onnx.load(a), tmp_path / "b" / "b.onnx", save_as_external_data=True, location="b.bin", size_threshold=0,
    )  # fmt: skip
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    found = compare(a, tmp_path / "b" / "b.onnx", tmp_path / "x.npy")
    assert found.kind == "bit-identical"
    assert found.weights.kind == "same weights"
