"""`holdfast equivalence` as a user meets it."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from onnx import helper, numpy_helper, save

from worlds import make_repository

HOLDFAST = Path(sys.executable).parent / "holdfast"

NET = """
import time
import torch
from torch import nn

print("imported")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 4)

    def forward(self, x):
        return self.a(x)

def load(state):
    print("loading")
    net = Net()
    net.load_state_dict(state)
    return net

def by_path(path):
    print(path.suffix)
    net = Net()
    net.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    return net

class Slow(Net):
    def forward(self, x):
        time.sleep(0.15)
        return super().forward(x)

def failing(state):
    return Net(state["width"])
"""


def equivalence(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run(
        [str(HOLDFAST), "equivalence", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code, result.stderr
    return result


def saved(folder: Path) -> Path:
    """Two checkpoints of one model, another model, and samples with labels; the loader beside them."""
    generator = torch.Generator().manual_seed(0)
    state = {
        "a.weight": torch.randn(4, 3, generator=generator) + torch.eye(4, 3),
        "a.bias": torch.randn(4, generator=generator),
    }
    torch.save({"state_dict": state}, folder / "old.pt")
    safetensors.torch.save_file(state, folder / "new.safetensors", {"note": "n" * 20_000})
    x = torch.randn(60, 3, generator=generator)
    labels = (x @ state["a.weight"].T + state["a.bias"]).argmax(1)
    np.savez(folder / "samples.npz", x=x.numpy(), y=labels.numpy())
    state["a.weight"] = state["a.weight"] + 0.3 * torch.randn(4, 3, generator=generator)
    torch.save({"state_dict": state}, folder / "tuned.pt")
    for name in ("old", "tuned"):
        export(torch.load(folder / f"{name}.pt", weights_only=True)["state_dict"], folder / f"{name}.onnx")
    export(torch.load(folder / "old.pt", weights_only=True)["state_dict"], folder / "more.onnx", "copy")
    (folder / "net.py").write_text(NET)
    return folder


def export(state: dict[str, torch.Tensor], path: Path, *copies: str) -> None:
    weights = [numpy_helper.from_array(value.numpy(), name) for name, value in state.items()]
    nodes = [helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["logits"], transB=1)]
    nodes += [helper.make_node("Identity", ["logits"], [name]) for name in copies]
    ends = [helper.make_tensor_value_info("x", 1, ["N", 3])]
    ends += [helper.make_tensor_value_info(name, 1, ["N", 4]) for name in ("logits", *copies)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("files"))


def test_text(folder: Path) -> None:
    result = equivalence(
        folder,
        "old.pt",
        "new.safetensors",
        "--loader",
        "net.py:Net",
        "--data",
        "samples.npz",
        "--labels",
        "y",
        "--check",
    )
    lines = result.stdout.splitlines()
    larger = (folder / "new.safetensors").stat().st_size - (folder / "old.pt").stat().st_size
    assert lines[:3] == [
        "Bit-identical outputs.",
        "60 samples of x (F32, 3), in batches of 32.",
        f"The files: same weights, different wrapper (headers and metadata {larger:,} bytes larger).",
    ]
    assert "output   F32    N×4     identical" in result.stdout
    assert "Predictions, argmax of output: 60 of 60 samples agree (100 %)." in lines
    assert (
        "Accuracy 100 % and 100 %: both are right on 60, only the first on 0, only the second on 0, neither on 0."
        in lines
    )
    assert "Within" not in result.stdout
    assert result.stderr == "imported\n"  # what the user's code prints is no part of the result
    assert not (folder / "__pycache__").exists()


def test_predictions_that_differ(folder: Path) -> None:
    arguments = ("old.pt", "tuned.pt", "--loader", "net:load", "--data", "samples.npz", "--labels", "y")
    payload = json.loads(equivalence(folder, *arguments, "--json").stdout)
    (predictions,) = payload["predictions"]
    agreeing = predictions["agreeing"]
    assert 30 < agreeing < 60
    assert payload["verdict"] == f"predictions agree on {agreeing / 60:.1%} of 60 samples".replace("%", " %")
    assert (payload["kind"], payload["equivalent"], payload["agreement"]) == (
        "predictions differ",
        False,
        agreeing / 60,
    )
    assert payload["format"] == "holdfast equivalence 1"
    assert payload["inputs"] == [{"key": "x", "name": "x", "dtype": "F32", "shape": [3]}]
    assert payload["outputs"][0]["shape"] == [None, 4]
    assert predictions["accuracy"]["both"] == agreeing
    assert predictions["accuracy"]["shares"] == [1.0, agreeing / 60]
    text = equivalence(folder, *arguments).stdout
    assert "Within: |a-b| <= 1e-05 + 1.3e-06 * |b|." in text
    first = predictions["disagreements"][0]
    row = rf" +{first['sample']} +{first['a']} +{first['b']} +{first['label']}$"
    assert re.search(row, text, re.MULTILINE), text
    only = predictions["accuracy"]["only_a"]
    assert f"only the first on {only}, only the second on 0, neither on 0; McNemar's exact test p = " in text
    assert "| sample | first | second | label |" in equivalence(folder, *arguments, "--md").stdout


def test_the_gate(folder: Path) -> None:
    arguments = ("old.onnx", "tuned.onnx", "--data", "samples.npz", "--input", "x")
    refused = equivalence(folder, *arguments, "--check", code=12)
    assert refused.stdout.startswith("Predictions agree on")
    assert "holdfast: old.onnx and tuned.onnx are not equivalent: predictions agree on" in refused.stderr
    equivalence(folder, *arguments, "--check", "--min-agreement", "0.5")
    equivalence(folder, *arguments, "--check", "--min-agreement", "0.999", code=12)
    equivalence(folder, *arguments, "--check", "--predictions", "none", "--min-agreement", "0", code=12)
    equivalence(folder, *arguments, "--check", "--atol", "100")
    equivalence(folder, *arguments, "--check", "--rtol", "1e6")
    # what one output predicts is no word for the others
    more = equivalence(folder, "old.onnx", "more.onnx", *arguments[2:], "--check", "--min-agreement", "0.5", code=12)
    assert more.stdout.startswith("Different outputs: only the second gives copy.")
    assert "60 of 60 samples agree (100 %)" in more.stdout
    assert "Give --check, too" in equivalence(folder, *arguments, "--min-agreement", "0.5", code=2).stderr


def test_failures_are_one_line_that_names_the_users_own(folder: Path) -> None:
    arguments = ("old.pt", "tuned.pt", "--data", "samples.npz", "--input", "x")
    line = 1 + NET.splitlines().index('    return Net(state["width"])')
    failed = equivalence(folder, *arguments, "--loader", "net.py:failing", code=1)
    assert failed.stderr.splitlines()[-1] == (
        f"holdfast: net.py:failing failed on old.pt: KeyError: 'width' (net.py:{line}). "
        "`holdfast -v equivalence …` shows the traceback"
    )
    loud = equivalence(folder, *arguments, "--loader", "net.py:failing", "-v", code=1)
    assert 'return Net(state["width"])' in loud.stderr
    assert "names your function that makes the model" in equivalence(folder, *arguments, code=2).stderr
    missing = equivalence(folder, "old.pt", "nothing.onnx", "--data", "samples.npz", code=2)
    assert "nothing.onnx is no file" in missing.stderr
    assert "Missing option '--data'" in equivalence(folder, "old.pt", "tuned.pt", code=2).stderr


@pytest.mark.parametrize(
    ("missing", "a", "said"),
    [
        ("torch", "old.pt", "holdfast: torch is not installed. `pip install 'holdfast[train]'` brings it\n"),
        (
            "onnxruntime",
            "old.onnx",
            "holdfast: onnxruntime is not installed. `pip install 'holdfast[train]'` brings it\n",
        ),
    ],
)
def test_without_the_extra(folder: Path, missing: str, a: str, said: str) -> None:
    (folder / "plain.py").write_text("def load(state): ...\n")
    loader = [] if a == "old.onnx" else ["--loader", "plain.py:load"]
    arguments = ["equivalence", a, a, "--data", "samples.npz", "--input", "x", *loader]
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom holdfast.cli.main import main\nmain({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_names_of_history_and_of_dvcs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_repository(tmp_path)
    saved(world.root)
    data = (world.root / "old.pt").read_bytes()
    oid = world.store(data)
    world.write("tracked.pt.dvc", f"outs:\n- md5: {oid}\n  size: {len(data)}\n  hash: md5\n  path: tracked.pt\n")
    world.write(".gitignore", "/tracked.pt\n")
    world.commit("one")
    (world.root / "old.pt").write_bytes((world.root / "tuned.pt").read_bytes())
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    arguments = ("--loader", "net.py:by_path", "--data", "HEAD:samples.npz", "--input", "x")
    done = world.holdfast("equivalence", "HEAD:tracked.pt", "old.pt", *arguments)
    assert done.stdout.startswith("Predictions agree on"), done.stdout
    assert "The files: fine-tuned" in done.stdout
    # a file of the cache has no suffix, and loaders go by it
    assert done.stderr.splitlines() == ["imported", ".pt", ".pt"]
    same = world.holdfast("equivalence", "HEAD:tracked.pt", "HEAD:old.pt", *arguments)
    assert same.stdout.startswith("Bit-identical outputs.")
    assert world.git("status", "--short") == "M old.pt"
    assert list(temporary.iterdir()) == []


def in_terminal(folder: Path, *arguments: str, columns: int = 80) -> tuple[str, str]:
    """Standard output and standard error, each of a terminal of its own."""
    ends = [pty.openpty() for _ in range(2)]
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    child = subprocess.Popen(
        [str(HOLDFAST), "equivalence", *arguments], cwd=folder, env=environment, stdout=ends[0][1], stderr=ends[1][1]
    )
    texts = []
    for _, inner in ends:
        os.close(inner)
    for parent, _ in reversed(ends):
        text = b""
        try:
            while piece := os.read(parent, 65536):
                text += piece
        except OSError:
            pass  # the terminal's other end is closed
        os.close(parent)
        texts.append(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.decode()))
    assert child.wait(60) == 0, texts
    return texts[1], texts[0]


def test_a_bar_where_it_takes_longer_than_a_second(folder: Path) -> None:
    slow = (
        "old.pt",
        "tuned.pt",
        "--loader",
        "net.py:Slow",
        "--data",
        "samples.npz",
        "--input",
        "x",
        "--batch-size",
        "10",
    )
    out, err = in_terminal(folder, *slow)
    assert "Running both models" in err
    assert "100%" in err
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert "Left out for want of width" in out
    _, err = in_terminal(folder, "old.onnx", "tuned.onnx", "--data", "samples.npz", "--input", "x", "--batch-size", "5")
    assert err == ""
    assert "Running" not in equivalence(folder, *slow).stderr


def test_names_that_would_paint_the_terminal(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "paint.py").write_text(
        "def load(state):\n    return lambda x: {'a\\x1b[2J': x @ state['a.weight'].T, 'b': 'text'}\n"
    )
    found = equivalence(
        tmp_path, "old.pt", "old.pt", "--loader", "paint.py:load", "--data", "samples.npz", "--input", "x"
    )
    assert "a\\x1b[2J" in found.stdout
    assert "\x1b" not in found.stdout
