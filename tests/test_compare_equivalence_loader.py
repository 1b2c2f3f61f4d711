"""The user's function that makes a model: what it is given, what may be wrong with it, and how that is told."""

import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from holdfast.compare.equivalence_data import Batch
from holdfast.compare.equivalence_loader import LoaderError, Loaders
from holdfast.compare.equivalence_models import ModelFile, ModelRunError
from holdfast.compare.equivalence_state import UnfitWeightsError, UnreadableWeightsError, read_state
from holdfast.compare.equivalence_torch import TorchModel, open_torch
from holdfast.errors import HoldfastError, IntegrityError, UsageError
from holdfast.formats.opening import open_checkpoint

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

def filled(state):
    net = Net()
    net.load_state_dict(state)
    return net
"""


def write(folder: Path, code: str, name: str = "net.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return path


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (2, 4), "b.bias": (2,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | {
        "steps": torch.tensor(3)
    }


def forward(state: dict[str, torch.Tensor], x: np.ndarray) -> np.ndarray:
    hidden = torch.relu(torch.from_numpy(x) @ state["a.weight"].T + state["a.bias"])
    return (hidden @ state["b.weight"].T + state["b.bias"]).numpy()


def model_of(folder: Path, loader: str | None, path: Path, *, trust: bool = False) -> TorchModel:
    with Loaders(folder) as loaders:
        source, checkpoint = open_checkpoint(path)
        with source:
            file = ModelFile(path.name, path, checkpoint)
            found = None if loader is None else loaders.find(loader)
            return open_torch(file, found, trust=trust, folder=folder)


def outputs(model: TorchModel, **inputs: np.ndarray) -> list[np.ndarray]:
    rows = len(next(iter(inputs.values())))
    found = model.run(Batch(0, rows, inputs, None), 0)
    return [np.frombuffer(one.data, "<f4").reshape(one.shape) for one in found.arrays]


def training_file(path: Path) -> Path:
    torch.save({"model_state_dict": weights(), "optimizer": {"state": {}}, "config": {"width": 4}}, path)
    return path


X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "code",
    [
        "def load(state):\n    return filled(state)",
        "def load(state_dict, /):\n    return filled(state_dict)",
        "def load(*, device='cpu', state):\n    return filled(state).to(device)",
        "def load(path):\n    return filled(torch.load(path)['model_state_dict'])",
        "def load(checkpoint, width=9):\n    return filled(checkpoint['model_state_dict'])",
        "def load(metadata, state):\n    assert metadata['config/width'] == 4\n    return filled(state)",
        "def load(): return Net()",
        "def load(*rest, **more): return Net()",
        "load = Net",
        "def load(state):\n    net = filled(state); return lambda x: net(x)",
        "class load(Net):\n    @classmethod\n    def of(cls, state): return filled(state)",
    ],
)
def test_what_a_loader_may_ask_for(tmp_path: Path, code: str) -> None:
    write(tmp_path, f"{NET}\n{code}\n")
    name = "net.py:load.of" if "classmethod" in code else "net.py:load"
    model = model_of(tmp_path, name, training_file(tmp_path / "a.pt"))
    (found,) = outputs(model, x=X)
    assert np.allclose(found, forward(weights(), X), atol=1e-6)


def test_a_module_is_put_into_evaluation_mode(tmp_path: Path) -> None:
    write(tmp_path, f"{NET}\nclass Drop(Net):\n    def forward(self, x): return nn.Dropout.forward(self.d, super().forward(x))\n"
          "    def __init__(self):\n        super().__init__(); self.d = nn.Dropout(0.5)\n")  # fmt: skip
    model = model_of(tmp_path, "net.py:Drop", training_file(tmp_path / "a.pt"))
    assert not model.model.training
    assert not model.model.d.training


def test_modules_are_imported_from_the_folder_and_files_with_what_lies_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(tmp_path, NET, "equiv_pkg_a/models/net.py")
    write(tmp_path, "from equiv_pkg_a.models.net import Net\nload = Net\n", "tools/loaders.py")
    write(tmp_path, "from equiv_beside import Net as load\n", "other/inner.py")
    write(tmp_path, NET, "other/equiv_beside.py")
    path = training_file(tmp_path / "a.pt")
    before = list(sys.path), sys.dont_write_bytecode
    for loader in ("equiv_pkg_a.models.net:Net", "tools/loaders.py:load", "other/inner.py:load"):
        (found,) = outputs(model_of(tmp_path, loader, path), x=X)
        assert np.allclose(found, forward(weights(), X), atol=1e-6)
    assert (list(sys.path), sys.dont_write_bytecode) == before
    # a stage of DVC that depends on the folder would be stale after it
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("net.py", UsageError, "'net.py' names no loader. Name it as package.module:function"),
        ("net.py:", UsageError, "names no loader"),
        (":load", UsageError, "names no loader"),
        ("nothing.py:load", UsageError, "there is no file nothing.py for the loader nothing.py:load"),
        ("equiv_nothing:load", UsageError, "there is no module equiv_nothing for the loader equiv_nothing:load"),
        ("equiv_nothing.deep:load", UsageError, "there is no module equiv_nothing.deep"),
        ("net.py:lod", UsageError, "net.py has no lod. It has Net, filled, load$"),
        ("net.py:NUMBER", UsageError, "net.py:NUMBER is a int, not a function"),
        ("net.py:MODEL", UsageError, "net.py:MODEL is a model already"),
        ("broken.py:load", LoaderError, "broken.py cannot be imported: SyntaxError: .* \\(broken.py:3\\)"),
        ("raising.py:load", LoaderError, "raising.py cannot be imported: ZeroDivisionError: .* \\(raising.py:2\\)"),
        ("leaving.py:load", LoaderError, "leaving.py cannot be imported: SystemExit: 3 \\(leaving.py:2\\)"),
        ("equiv_imports:load", LoaderError, "No module named 'equiv_missing' \\(equiv_imports.py:1\\)"),
        ("importing.py:load", LoaderError, "ModuleNotFoundError: No module named 'equiv_missing' \\(importing.py:1\\)"),
    ],
)
def test_loaders_that_are_not_found(tmp_path: Path, name: str, error: type[HoldfastError], said: str) -> None:
    write(tmp_path, f"{NET}\nNUMBER = 3\nMODEL = Net()\ndef load(state): return Net()\n_hidden = load\n")
    write(tmp_path, "x = 1\n\ndef load(:\n", "broken.py")
    write(tmp_path, "x = 1\nx / 0\n", "raising.py")
    write(tmp_path, "import sys\nsys.exit(3)\n", "leaving.py")
    write(tmp_path, "import equiv_missing\n", "importing.py")
    write(tmp_path, "import equiv_missing\n", "equiv_imports.py")
    with Loaders(tmp_path) as loaders, pytest.raises(error, match=said):
        loaders.find(name)
    assert not [module for module in sys.modules if module.startswith("holdfast_loader")]


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (
            "def load(file, state): ...",
            LoaderError,
            "net.py:load wants 'file', which no loader is given. A loader takes",
        ),
        (
            "class load:\n    def __init__(self, width): ...",
            LoaderError,
            "wrap it: .* model = load\\(…\\); model.load_state",
        ),
        ("def load(state): ...", LoaderError, "net.py:load gives None, not a model"),
        ("def load(state): return dict(state)", LoaderError, "net.py:load gives a dict, not a model"),
        ("def load(): return print", LoaderError, "takes no weights, and gives a builtin.*not a torch.nn.Module"),
        (
            "def load(state):\n    return deeper(state)\ndef deeper(state):\n    return state['lost.weight']",
            LoaderError,
            "net.py:load failed on a.pt: KeyError: 'lost.weight' \\(net.py:{3}\\)",
        ),
        (
            "def load(state):\n    Net().load_state_dict({})",
            LoaderError,
            r"RuntimeError: Error\(s\) in loading state_dict for Net: Missing key.*\(net.py:{1}\)",
        ),
        ("def load(state): raise SystemExit('no GPU')", LoaderError, "SystemExit: no GPU"),
    ],
)
def test_loaders_that_fail(tmp_path: Path, code: str, error: type[HoldfastError], said: str) -> None:
    write(tmp_path, f"{NET}\n{code}\n")
    first = NET.count("\n") + 2
    with pytest.raises(error, match=said.format(*range(first, first + 4))):
        model_of(tmp_path, "net.py:load", training_file(tmp_path / "a.pt"))


def changed(change: Callable[[dict[str, torch.Tensor]], Any]) -> dict[str, torch.Tensor]:
    state = weights()
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (changed(lambda s: s.pop("b.weight")), r"that net\.py:Net makes: 1 missing: b\.weight\."),
        (changed(lambda s: s.update(c=torch.ones(1))), "1 too many: c"),
        (
            changed(lambda s: s.update({"b.bias": torch.ones(3)})),
            r"1 of another shape: b\.bias \(3, the model's is 2\)",
        ),
        ({f"module.{name}": value for name, value in weights().items()}, r"5 missing: .*, …; 5 too many: module\.a"),
    ],
)
def test_weights_of_another_model(tmp_path: Path, state: dict[str, torch.Tensor], said: str) -> None:
    write(tmp_path, NET)
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "a.pt")
    with pytest.raises(UnfitWeightsError, match=said):
        model_of(tmp_path, "net.py:Net", tmp_path / "a.pt")


def test_a_tied_weight_that_a_converter_left_out_is_filled_in(tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        from torch import nn

        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
                self.head.weight = self.embed.weight

            def forward(self, x):
                return self.head(self.embed(x))
        """,
    )
    one = torch.randn(3, 3)
    safetensors.torch.save_file({"head.weight": one}, tmp_path / "a.safetensors")
    (found,) = outputs(model_of(tmp_path, "net.py:Tied", tmp_path / "a.safetensors"), x=X)
    assert np.allclose(found, X @ one.numpy().T @ one.numpy().T, atol=1e-5)
    safetensors.torch.save_file({"other.weight": one}, tmp_path / "b.safetensors")
    with pytest.raises(UnfitWeightsError, match="2 missing"):
        model_of(tmp_path, "net.py:Tied", tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64,
     torch.float8_e4m3fn, torch.int16],
)  # fmt: skip
def test_weights_are_read_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).mul(3).to(dtype)
    content = {"state_dict": {"t": tensor.t(), "s": tensor[2:3, 1], "empty": tensor[:0]}, "epoch": 3}
    torch.save(content, tmp_path / "a.pt")
    torch.save(content, tmp_path / "b.pt", _use_new_zipfile_serialization=False)
    for path in (tmp_path / "a.pt", tmp_path / "b.pt"):
        source, checkpoint = open_checkpoint(path)
        with source:
            state = read_state(checkpoint, path.name)
        assert list(state) == ["t", "s", "empty"]
        for name, value in content["state_dict"].items():
            assert (state[name].dtype, state[name].shape) == (dtype, value.shape)
            assert (
                state[name].view(torch.uint8).tolist()
                == torch.empty(value.shape, dtype=dtype).copy_(value).view(torch.uint8).tolist()
            )


def test_long_weights_are_put_together_from_their_pieces(tmp_path: Path) -> None:
    tensor = torch.arange(3_000_000, dtype=torch.float32)
    torch.save({"a": tensor, "b": tensor.reshape(2000, 1500).t()}, tmp_path / "a.pt")
    source, checkpoint = open_checkpoint(tmp_path / "a.pt")
    with source:
        state = read_state(checkpoint, "a.pt")
    assert torch.equal(state["a"], tensor)
    assert torch.equal(state["b"], tensor.reshape(2000, 1500).t())


def test_a_hostile_checkpoint_is_refused_and_does_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(trap),)

    torch.save({"state_dict": {**weights(), "evil": Trap()}}, tmp_path / "a.pt")
    write(tmp_path, f"{NET}\ndef whole(checkpoint): return Net()\n")
    with pytest.raises(UnreadableWeightsError, match=r"a\.pt gives no weights without running what is in it: .*mkdir"):
        model_of(tmp_path, "net.py:Net", tmp_path / "a.pt")
    with pytest.raises(IntegrityError, match="does not load as a torch checkpoint without running code"):
        model_of(tmp_path, "net.py:whole", tmp_path / "a.pt")
    assert not trap.exists()


def test_only_a_torch_file_has_a_checkpoint(tmp_path: Path) -> None:
    write(
        tmp_path,
        f"{NET}\ndef load(checkpoint): return Net()\ndef facts(metadata): return lambda x: x * int(metadata['k'])\n",
    )
    safetensors.torch.save_file(weights(), tmp_path / "a.safetensors", {"k": "3"})
    with pytest.raises(UsageError, match=r"asks for `checkpoint`, and a\.safetensors \(safetensors\) is no torch file"):
        model_of(tmp_path, "net.py:load", tmp_path / "a.safetensors")
    (found,) = outputs(model_of(tmp_path, "net.py:facts", tmp_path / "a.safetensors"), x=X)
    assert np.array_equal(found, X * 3)


def test_a_loader_of_paths_reads_what_holdfast_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([2.0]))
    write(
        tmp_path,
        "import json\ndef load(path):\n    k, = json.loads(path.read_text())\n    return lambda x: (x * k).numpy()\n",
    )
    (found,) = outputs(model_of(tmp_path, "net.py:load", tmp_path / "a.json"), x=X)
    assert np.array_equal(found, X * 2)


def test_weights_without_a_program_need_a_loader(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.pt \(torch zip\) holds weights, not the program.* --loader"):
        model_of(tmp_path, None, training_file(tmp_path / "a.pt"))


SCRIPT = """
import torch, warnings
warnings.simplefilter("ignore")

class M(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.full((3,), 2.0))
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x, scale):
        return self.drop(x * self.w) * scale

torch.jit.script(M()).save("script.pt")
torch.jit.freeze(torch.jit.script(M().eval())).save("frozen.pt")
"""


def test_torchscript_runs_only_where_it_is_trusted(tmp_path: Path) -> None:
    write(tmp_path, SCRIPT, "script.py")
    # a process of its own: its classes are to come from the file alone
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, check=True)
    for name in ("script.pt", "frozen.pt"):
        with pytest.raises(
            UsageError, match=f"{name} is TorchScript: running it runs code that is in the file. --trust"
        ):
            model_of(tmp_path, None, tmp_path / name)
        model = model_of(tmp_path, None, tmp_path / name, trust=True)
        ones = np.ones((5, 1), np.float32)
        (found,) = outputs(model, scale=ones * 3, x=X)  # by name, whatever the order
        assert np.array_equal(found, X * 6)
        with pytest.raises(UsageError, match=f"{name} takes x, scale, and the data has x, other"):
            outputs(model, x=X, other=ones)
    with zipfile.ZipFile(tmp_path / "script.pt") as old, zipfile.ZipFile(tmp_path / "torn.pt", "w") as new:
        for member in old.namelist():
            data = old.read(member)
            new.writestr(member, data.replace(b"def ", b"dex ") if member.endswith(".py") else data)
    with pytest.raises(ModelRunError, match=r"torch does not load torn\.pt: "):
        model_of(tmp_path, None, tmp_path / "torn.pt", trust=True)


@pytest.mark.parametrize(("loader", "width"), [("Net", 16), ("load", 24)])
def test_the_loaders_of_the_how_to(tmp_path: Path, loader: str, width: int) -> None:
    page = Path(__file__).parent.parent / "docs" / "how-to" / "test-equivalence.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    write(tmp_path, code)
    assert all(f"# --loader net.py:{name}\n" in code for name in ("Net", "load"))
    generator = torch.Generator().manual_seed(0)
    shapes = {"hidden.weight": (width, 64), "hidden.bias": (width,), "head.weight": (10, width), "head.bias": (10,)}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    prefix = "module." if loader == "load" else ""
    content = {"state_dict": {prefix + name: tensor for name, tensor in state.items()}, "config": {"width": width}}
    torch.save(content, tmp_path / "a.pt")
    x = torch.randn(5, 64, generator=generator)
    (found,) = outputs(model_of(tmp_path, f"net.py:{loader}", tmp_path / "a.pt"), x=x.numpy())
    hidden = torch.relu(x @ state["hidden.weight"].T + state["hidden.bias"])
    assert np.allclose(found, hidden @ state["head.weight"].T + state["head.bias"], atol=1e-4)
