"""Two torch models on the same samples: the verdicts, and what must never be taken for equivalence."""

import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from holdfast.compare.equivalence import RUNNING, Settings, SharedModelError, compare_models
from holdfast.compare.equivalence_data import open_data
from holdfast.compare.equivalence_models import ModelFile
from holdfast.compare.equivalence_predictions import Accuracy
from holdfast.compare.equivalence_verdict import Equivalence
from holdfast.formats.opening import open_checkpoint
from holdfast.formats.source import FileSource

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, width), nn.BatchNorm1d(width), nn.Linear(width, 4)

    def forward(self, x):
        return self.b(torch.relu(self.norm(self.a(x))))

def filled(state):
    net = Net()
    net.load_state_dict(state)
    return net
"""


class Net(nn.Module):
    """The same as in `NET`, for training."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.norm(self.a(x))))


def compare(
    a: Path, b: Path, data: Path, *, inputs: dict[str, str] | None = None, labels: str | None = None, **options: Any
) -> Equivalence:
    progress = options.pop("progress", None)
    source_a, one = open_checkpoint(a)
    source_b, other = open_checkpoint(b)
    options = {"loader": "net.py:Net", "folder": a.parent, "threads": 1, **options}
    with source_a, source_b, FileSource(data) as source:
        files = ModelFile(a.name, a, one), ModelFile(b.name, b, other)
        return compare_models(*files, open_data(source, inputs, labels), Settings(**options), progress=progress)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model in several files, the next state of its training, and samples."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "net.py").write_text(NET)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.randn(400, 6)
        y = (x[:, :4] + 0.5 * torch.randn(400, 4)).argmax(1)
        model = Net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

        def train(steps: int) -> dict[str, torch.Tensor]:
            model.train()
            for _ in range(steps):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            return {name: value.clone() for name, value in model.state_dict().items()}

        state = train(40)
        history = {"val_loss": [1 / number for number in range(1, 400)]}
        torch.save({"model_state_dict": state, "epoch": 40}, folder / "miyawaki_cv_best.pth")
        torch.save(
            {
                "model_state_dict": state,
                "optimizer_state_dict": optimizer.state_dict(),
                "epoch": 40,
                "history": history,
            },
            folder / "miyawaki_cccv1_best.pth",
        )
        safetensors.torch.save_file(state, folder / "net.safetensors")
        half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()}
        torch.save(half, folder / "half.pt")
        torch.save(train(10), folder / "tuned.pt")
        torch.manual_seed(1)
        torch.save(Net().state_dict(), folder / "stranger.pt")
    np.savez(folder / "samples.npz", x=x.numpy(), y=y.numpy())
    return folder


def logits(folder: Path, name: str, x: np.ndarray) -> np.ndarray:
    content = torch.load(folder / name, weights_only=True)
    model = Net()
    model.load_state_dict(content.get("model_state_dict", content))
    model.eval()
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


def test_same_weights_beside_other_metadata(world: Path) -> None:
    a, b = world / "miyawaki_cv_best.pth", world / "miyawaki_cccv1_best.pth"
    assert b.stat().st_size - a.stat().st_size > 5_000
    found = compare(a, b, world / "samples.npz", labels="y")

    assert (found.kind, found.verdict) == ("bit-identical", "bit-identical outputs")
    assert found.equivalent
    assert found.weights.kind == "same weights"
    assert "optimizer state" in found.weights.verdict
    assert (found.samples, found.rows, found.notes, found.faults) == (400, 32, (), ())
    (output,) = found.outputs
    assert (output.names, output.dtypes, output.shape) == (("output", "output"), ("F32", "F32"), (None, 4))
    assert (output.identical, output.within, output.values) == (True, 1600, 1600)
    (predictions,) = found.predictions
    assert (predictions.agreeing, predictions.total) == (400, 400)
    assert predictions.accuracy is not None
    assert predictions.accuracy.only_a == predictions.accuracy.only_b == 0
    with np.load(world / "samples.npz") as samples:
        right = (logits(world, a.name, samples["x"]).argmax(1) == samples["y"]).sum()
    assert predictions.accuracy.both == right


def test_a_file_against_itself_and_against_its_conversion(world: Path) -> None:
    one = world / "miyawaki_cv_best.pth"
    assert compare(one, one, world / "samples.npz", inputs={"x": "x"}).weights.kind == "identical"
    found = compare(one, world / "net.safetensors", world / "samples.npz", inputs={"x": "x"}, rows=7, limit=100)
    assert (found.kind, found.samples, found.rows) == ("bit-identical", 100, 7)
    assert found.predictions[0].accuracy is None


def test_a_cast_keeps_the_predictions(world: Path) -> None:
    found = compare(world / "miyawaki_cv_best.pth", world / "half.pt", world / "samples.npz", inputs={"x": "x"})
    assert found.weights.kind == "cast"
    assert found.kind in ("same predictions", "predictions differ")
    assert not found.equivalent
    assert found.agreement is not None
    assert found.agreement > 0.95
    (output,) = found.outputs
    assert output.max_abs is not None
    assert 1e-4 < output.max_abs < 0.2
    wide = compare(
        world / "miyawaki_cv_best.pth", world / "half.pt", world / "samples.npz", inputs={"x": "x"}, atol=output.max_abs
    )
    assert (wide.kind, wide.verdict) == (
        "equivalent",
        f"equivalent within tolerance (max difference {output.max_abs:.3g})",
    )
    assert wide.outputs[0].within == 1600


def test_a_half_model_gets_its_inputs_in_its_type(world: Path) -> None:
    (world / "half.py").write_text(NET + "\ndef load(state):\n    return filled(state).to(torch.bfloat16)\n")
    found = compare(
        world / "net.safetensors", world / "half.pt", world / "samples.npz", inputs={"x": "x"}, loader_b="half.py:load"
    )
    assert found.outputs[0].dtypes == ("F32", "BF16")
    assert found.outputs[0].rtol == 1.6e-2
    assert found.notes == ("half.pt gets x as bfloat16, from float32",)
    assert found.kind in ("equivalent", "same predictions", "predictions differ")


def test_a_fine_tuned_pair(world: Path) -> None:
    found = compare(world / "miyawaki_cv_best.pth", world / "tuned.pt", world / "samples.npz", labels="y")
    with np.load(world / "samples.npz") as samples:
        x, y = samples["x"], samples["y"]
    a, b = logits(world, "miyawaki_cv_best.pth", x), logits(world, "tuned.pt", x)
    one, other = a.argmax(1), b.argmax(1)
    agreeing = int((one == other).sum())
    assert 300 < agreeing < 400

    assert found.weights.kind == "fine-tuned"
    assert (found.kind, found.verdict) == (
        "predictions differ",
        f"predictions agree on {agreeing / 4:.1f} % of 400 samples",
    )
    assert found.agreement == agreeing / 400
    (predictions,) = found.predictions
    expected = np.flatnonzero(one != other)[:10]
    assert [(item.sample, item.a, item.b, item.label) for item in predictions.disagreements] == [
        (index, one[index], other[index], y[index]) for index in expected
    ]
    right_a, right_b = one == y, other == y
    assert predictions.accuracy == Accuracy(
        (right_a & right_b).sum(), (right_a & ~right_b).sum(), (~right_a & right_b).sum(), (~right_a & ~right_b).sum()
    )
    (output,) = found.outputs
    apart = np.abs(a.astype(float) - b)
    assert output.max_abs == pytest.approx(apart.max(), rel=1e-4)
    assert output.furthest == apart.max(axis=1).argmax()
    assert output.within == pytest.approx(np.isclose(a.astype(float), b, atol=1e-5, rtol=1.3e-6).sum(), abs=2)


def test_outputs_that_predict_nothing(world: Path) -> None:
    found = compare(
        world / "miyawaki_cv_best.pth", world / "tuned.pt", world / "samples.npz", inputs={"x": "x"}, predictions="none"
    )
    assert found.kind == "different outputs"
    assert found.verdict.startswith("different outputs (max difference ")
    assert "of the values within tolerance)" in found.verdict
    assert (found.predictions, found.agreement) == ((), None)


def case(folder: Path, world: Path, code: str) -> Path:
    """A folder with a loader of its own and the world's files."""
    for file in world.iterdir():
        if file.suffix in (".pt", ".pth", ".npz", ".safetensors"):
            (folder / file.name).symlink_to(file)
    (folder / "net.py").write_text(NET + textwrap.dedent(code))
    return folder


NOISY = """
class Noisy(Net):
    def forward(self, x):
        return torch.nn.functional.dropout(super().forward(x), 0.5)
"""
COUNTING = """
class Counting(Net):
    calls = 0
    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls
"""
PYTHONS = """
import random
import numpy as np
class Pythons(Net):
    def forward(self, x):
        return super().forward(x) + random.random() + np.random.rand()
"""


@pytest.mark.parametrize(
    ("code", "loader", "said"),
    [
        (NOISY, "net.py:Noisy", "with another random seed .*: dropout or another random operation is at work"),
        (PYTHONS, "net.py:Pythons", "with another random seed"),
        (COUNTING, "net.py:Counting", r"each time it runs on the same samples \(max difference 1\)"),
    ],
)
def test_models_that_are_not_deterministic(tmp_path: Path, world: Path, code: str, loader: str, said: str) -> None:
    folder = case(tmp_path, world, code)
    a, data = folder / "miyawaki_cv_best.pth", folder / "samples.npz"
    found = compare(a, folder / "tuned.pt", data, inputs={"x": "x"}, loader=loader)
    assert found.kind == "not deterministic"
    assert found.verdict.startswith("not deterministic: miyawaki_cv_best.pth gives other outputs")
    assert __import__("re").search(said, found.verdict)
    assert not found.equivalent
    assert found.outputs == ()
    # the second model is looked at, too
    second = compare(a, folder / "tuned.pt", data, inputs={"x": "x"}, loader_b=loader)
    assert second.verdict.startswith("not deterministic: tuned.pt gives other outputs")


def test_dropout_that_the_model_switches_off_is_no_matter(tmp_path: Path, world: Path) -> None:
    code = """
    class Quiet(Net):
        def forward(self, x):
            assert torch.is_inference_mode_enabled()
            return torch.nn.functional.dropout(super().forward(x), 0.5, training=self.training)
    """
    folder = case(tmp_path, world, code)
    one = folder / "miyawaki_cv_best.pth"
    assert compare(one, one, folder / "samples.npz", inputs={"x": "x"}, loader="net.py:Quiet").kind == "bit-identical"


SHARED = """
KEPT = Net()
def load(state):
    KEPT.load_state_dict(state)
    return KEPT
"""
SHARED_BEHIND = """
KEPT = Net()
def load(state):
    KEPT.load_state_dict(state)
    KEPT.eval()
    return lambda x: KEPT(x)
"""


@pytest.mark.parametrize("code", [SHARED, SHARED_BEHIND])
def test_a_loader_that_keeps_one_model_for_both(tmp_path: Path, world: Path, code: str) -> None:
    folder = case(tmp_path, world, code)
    with pytest.raises(SharedModelError, match=r"loading tuned\.pt changed what miyawaki_cv_best\.pth gives"):
        compare(
            folder / "miyawaki_cv_best.pth",
            folder / "tuned.pt",
            folder / "samples.npz",
            inputs={"x": "x"},
            loader="net.py:load",
        )


def test_a_loader_that_reads_another_file_is_doubted(tmp_path: Path, world: Path) -> None:
    folder = case(tmp_path, world, "\ndef load(path):\n    return filled(torch.load(path.with_name('tuned.pt')))\n")
    found = compare(
        folder / "half.pt", folder / "stranger.pt", folder / "samples.npz", inputs={"x": "x"}, loader="net.py:load"
    )
    assert found.kind == "bit-identical"
    assert found.weights.kind == "other weights"
    assert found.notes == (
        "the weights differ and no output does: the loader may not use what it is given, or not all of it",
    )


def test_a_model_that_writes_into_its_inputs_spoils_nothing(tmp_path: Path, world: Path) -> None:
    code = """
    class Writing(Net):
        def forward(self, x):
            return super().forward(x.mul_(2))

    class Doubling(Net):
        def forward(self, x):
            return super().forward(x * 2)
    """
    folder = case(tmp_path, world, code)
    one = folder / "miyawaki_cv_best.pth"
    found = compare(
        one, one, folder / "samples.npz", inputs={"x": "x"}, loader="net.py:Writing", loader_b="net.py:Doubling"
    )
    assert found.kind == "bit-identical"


def test_everything_global_is_as_before(world: Path) -> None:
    one = world / "miyawaki_cv_best.pth"
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    torch.set_deterministic_debug_mode("default")
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), list(sys.path)
    compare(one, one, world / "samples.npz", inputs={"x": "x"}, threads=3, seed=9)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert settings == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), list(sys.path))


def test_what_a_loader_leaves_to_chance_is_the_same_in_both(tmp_path: Path, world: Path) -> None:
    code = """
    def load(state):
        net = Net()
        assert not torch.is_inference_mode_enabled()
        net.load_state_dict({name: value for name, value in state.items() if name != "b.weight"}, strict=False)
        return net
    """
    folder = case(tmp_path, world, code)
    one, data = folder / "miyawaki_cv_best.pth", folder / "samples.npz"
    torch.manual_seed(12345)
    found = [compare(one, one, data, inputs={"x": "x"}, loader="net.py:load", seed=seed) for seed in (0, 0)]
    assert found[0].kind == "bit-identical"
    assert found[0].outputs == found[1].outputs


def test_progress_counts_samples(world: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    one = world / "miyawaki_cv_best.pth"
    compare(
        one, world / "tuned.pt", world / "samples.npz", inputs={"x": "x"}, rows=64, limit=300,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert [step for what, step, total in steps if what == RUNNING and total == 300] == [64, 64, 64, 64, 44]
    weights = [(step, total) for what, step, total in steps if what != RUNNING]
    assert sum(step for step, _ in weights) == weights[0][1]


MEMORY = """
import resource, sys
from pathlib import Path
from holdfast.compare.equivalence import Settings, compare_models
from holdfast.compare.equivalence_data import open_data
from holdfast.compare.equivalence_models import ModelFile
from holdfast.formats.opening import open_checkpoint
from holdfast.formats.source import FileSource

path, folder = Path(sys.argv[1]), Path(sys.argv[2])
source, checkpoint = open_checkpoint(path)
file = ModelFile(path.name, path, checkpoint)

def peak(limit):
    with FileSource(folder / "big.npz") as data:
        settings = Settings(loader="net.py:Net", folder=folder, limit=limit, rows=4096, threads=1)
        found = compare_models(file, file, open_data(data), settings)
    assert found.kind == "bit-identical", found.verdict
    return found.samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

(few, before), (many, after) = peak(5_000), peak(None)
print(few, many, after - before)
"""


def test_memory_is_that_of_a_batch(tmp_path: Path, world: Path) -> None:
    case(tmp_path, world, "")
    # 48 MB of inputs and 32 MB of outputs of each model
    part = np.random.default_rng(0).standard_normal((1000, 6)).astype(np.float32)
    np.savez_compressed(tmp_path / "big.npz", x=np.tile(part, (2000, 1)))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(world / "miyawaki_cv_best.pth"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    few, many, more = map(int, done.stdout.split())
    assert (few, many) == (5_000, 2_000_000)
    assert more < 25e6
