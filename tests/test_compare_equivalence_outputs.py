"""What models give and take: outputs of any form, several inputs, and what does not fit."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
        self.a = nn.Linear(6, 4)

    def forward(self, x):
        return self.a(x)
"""


def compare(
    a: Path, b: Path, data: Path, *, inputs: dict[str, str] | None = None, labels: str | None = None, **options: Any
) -> Equivalence:
    source_a, one = open_checkpoint(a)
    source_b, other = open_checkpoint(b)
    options = {"loader": "net.py:Net", "folder": a.parent, "threads": 1, **options}
    with source_a, source_b, FileSource(data) as source:
        files = ModelFile(a.name, a, one), ModelFile(b.name, b, other)
        return compare_models(*files, open_data(source, inputs, labels), Settings(**options))


def write(folder: Path, code: str) -> None:
    (folder / "net.py").write_text(NET + textwrap.dedent(code))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models of one architecture, samples with labels, and the loader."""
    generator = torch.Generator().manual_seed(0)
    for name in ("one.pt", "other.pt"):
        state = {"a.weight": torch.randn(4, 6, generator=generator), "a.bias": torch.randn(4, generator=generator)}
        torch.save(state, tmp_path / name)
    labels = torch.randint(0, 4, (400,), generator=generator)
    np.savez(tmp_path / "samples.npz", x=torch.randn(400, 6, generator=generator).numpy(), y=labels.numpy())
    write(tmp_path, "")
    return tmp_path


def test_outputs_of_another_shape_or_number(folder: Path) -> None:
    code = """
    class Wide(Net):
        def forward(self, x):
            logits = super().forward(x)
            return {"logits": torch.cat([logits, logits], 1), "hidden": logits}

    class Named(Net):
        def forward(self, x):
            logits = super().forward(x)
            return {"logits": logits, "extra": 3.0, "note": "text"}

    class Same(Net):
        def forward(self, x):
            logits = super().forward(x)
            return {"logits": logits.to(torch.complex64), "hidden": logits, "extra": None}
    """
    write(folder, code)
    one, data = folder / "one.pt", folder / "samples.npz"
    found = compare(one, one, data, inputs={"x": "x"}, loader="net.py:Wide", loader_b="net.py:Named")
    assert found.kind == "different shape"
    assert found.verdict == (
        "different outputs: only the first gives hidden; only the second gives extra; "
        "logits is N×8 in the first and N×4 in the second"
    )
    assert found.notes == ("one.pt also gives note (str), which is not compared",)
    assert found.samples == 32  # nothing fits together, so the first batch says it all
    found = compare(one, one, data, inputs={"x": "x"}, loader="net.py:Wide", loader_b="net.py:Same")
    assert found.faults == ("logits is N×8 in the first and N×4 in the second",)
    assert [output.names[0] for output in found.outputs] == ["hidden"]
    assert found.outputs[0].identical
    assert (found.kind, found.samples) == ("different shape", 400)
    found = compare(one, one, data, inputs={"x": "x"}, loader="net.py:Named", loader_b="net.py:Same")
    assert "logits is F32 in the first and C64 in the second" in found.faults


def test_tuples_are_matched_by_place(folder: Path) -> None:
    code = """
    class Two(Net):
        def forward(self, x):
            return super().forward(x), x.mean()

    class Named(Net):
        def forward(self, x):
            return {"logits": super().forward(x), "level": x.mean()}
    """
    write(folder, code)
    one = folder / "one.pt"
    found = compare(one, one, folder / "samples.npz", inputs={"x": "x"}, loader="net.py:Two", loader_b="net.py:Named")
    assert found.kind == "bit-identical"
    assert [output.names for output in found.outputs] == [("0", "logits"), ("1", "level")]
    assert [output.shape for output in found.outputs] == [(None, 4), ()]
    assert found.notes == ("outputs are compared by their places: 0 with logits, 1 with level",)
    assert len(found.predictions) == 1


def test_labels_are_for_the_first_output_that_predicts(folder: Path) -> None:
    code = """
    class Heads(Net):
        def forward(self, x):
            logits = super().forward(x)
            return {"level": x.mean(), "logits": logits, "pair": logits[:, :2] * 0.1}
    """
    write(folder, code)
    a, b, data = folder / "one.pt", folder / "other.pt", folder / "samples.npz"
    found = compare(a, b, data, labels="y", loader="net.py:Heads")
    logits, pair = found.predictions
    assert (logits.names[0], pair.names[0]) == ("logits", "pair")
    assert logits.accuracy is not None
    assert pair.accuracy is None
    assert logits.disagreements[0].label is not None
    worst = min((logits, pair), key=lambda one: one.agreement)
    assert found.agreement == worst.agreement < max(logits.agreement, pair.agreement)
    assert found.verdict.startswith(f"predictions of {worst.names[0]} agree on ")


def test_nothing_but_nan_is_no_equivalence(folder: Path) -> None:
    code = """
    class Broken(Net):
        def forward(self, x):
            return super().forward(x) * float("nan")

    class Partly(Net):
        def forward(self, x):
            logits = super().forward(x)
            logits[:, 0] = float("nan")
            return logits
    """
    write(folder, code)
    one, data = folder / "one.pt", folder / "samples.npz"
    found = compare(one, one, data, inputs={"x": "x"}, loader="net.py:Broken")
    assert (found.kind, found.verdict) == ("not comparable", "not comparable: no output holds a finite number")
    assert not found.equivalent
    found = compare(one, one, data, inputs={"x": "x"}, loader="net.py:Partly")
    assert found.kind == "bit-identical"
    assert found.outputs[0].nan == (400, 400)
    found = compare(one, one, data, inputs={"x": "x"}, loader_b="net.py:Partly", predictions="none")
    assert found.kind == "different outputs"
    assert "NaN or infinite in one alone" in found.verdict


def test_several_inputs_go_by_name(folder: Path) -> None:
    code = """
    class Two(Net):
        def forward(self, left, right=None):
            return super().forward(left - 2 * right)
    """
    write(folder, code)
    one = folder / "one.pt"
    generator = np.random.default_rng(0)
    np.savez(folder / "two.npz", right=generator.random((40, 6)), left=generator.random((40, 6)))
    found = compare(one, one, folder / "two.npz", loader="net.py:Two")
    assert (found.kind, [field.name for field in found.inputs]) == ("bit-identical", ["right", "left"])
    assert found.notes == tuple(f"{one.name} gets {name} as float32, from float64" for name in ("right", "left"))
    by_name = compare(one, one, folder / "two.npz", loader="net.py:Two", inputs={"left": "left", "right": "right"})
    assert by_name.outputs[0].cosine == pytest.approx(found.outputs[0].cosine)
    swapped = compare(one, one, folder / "two.npz", inputs={"right": "a", "left": "b"}, loader="net.py:Two")
    assert any(note.endswith("gets a, b in this order: its own names are others") for note in swapped.notes)
    with pytest.raises(UsageError, match=r"takes left, right, and the data has left, other\. --input left leaves"):
        compare(one, one, folder / "two.npz", inputs={"left": "left", "right": "other"}, loader="net.py:Two")


def test_data_that_does_not_fit(folder: Path) -> None:
    one = folder / "one.pt"
    np.savez(folder / "narrow.npz", x=np.ones((8, 5), np.float32))
    said = r"one\.pt fails on x \(float32, 8×5\): RuntimeError: .*cannot be multiplied.*\(net\.py:11\)"
    with pytest.raises(ModelRunError, match=said):
        compare(one, one, folder / "narrow.npz")
    with pytest.raises(UsageError, match=r"pt takes x, and the data has x, y\. --input x leaves out the rest"):
        compare(one, one, folder / "samples.npz")
    (folder / "silent.py").write_text(NET + "\nclass Silent(Net):\n    def forward(self, x): return None\n")
    with pytest.raises(ModelRunError, match="gives nothing, where tensors can be compared"):
        compare(one, one, folder / "samples.npz", inputs={"x": "x"}, loader="silent.py:Silent")


def test_settings_that_do_not_fit(folder: Path) -> None:
    one, data = folder / "one.pt", folder / "samples.npz"
    for predictions in ("none", "auto"):
        (folder / "flat.py").write_text(
            NET + "\nclass Flat(Net):\n    def forward(self, x): return super().forward(x)[:, 0]\n"
        )
        with pytest.raises(UsageError, match=r"there are labels, and no output predicts classes: output \(F32, N\)"):
            compare(one, one, data, labels="y", predictions=predictions, loader="flat.py:Flat")
    np.savez(folder / "none.npz", x=np.ones((0, 6), np.float32))
    with pytest.raises(DataError, match="x is empty"):
        compare(one, one, folder / "none.npz")


def test_a_batch_of_one_and_a_view_of_it(folder: Path) -> None:
    code = "\nclass Column(Net):\n    def forward(self, x): return super().forward(x)[:, 1]\n"
    write(folder, code)
    one = folder / "one.pt"
    found = compare(
        one, one, folder / "samples.npz", inputs={"x": "x"}, loader="net.py:Column", rows=1, limit=3, predictions="sign"
    )
    assert (found.kind, found.samples, found.outputs[0].values) == ("bit-identical", 3, 3)
    assert found.predictions[0].total == 3


def test_the_same_predictions_are_those_of_every_output(folder: Path) -> None:
    code = """
    class Heads(Net):
        def forward(self, x):
            return {"fixed": torch.eye(4).repeat(len(x) // 4 + 1, 1)[: len(x)] + super().forward(x) * 1e-3,
                    "logits": super().forward(x)}
    """
    write(folder, code)
    found = compare(
        folder / "one.pt", folder / "other.pt", folder / "samples.npz", inputs={"x": "x"}, loader="net.py:Heads"
    )
    fixed, logits = found.predictions
    assert fixed.agreement == 1.0
    assert found.agreement == logits.agreement < 0.9
    assert found.kind == "predictions differ"
    assert found.verdict.startswith("predictions of logits agree on ")
