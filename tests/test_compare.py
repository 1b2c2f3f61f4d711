"""Two checkpoints compared: verdicts in words, figures against NumPy's own, every byte of the sizes explained."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.compare.checkpoints import Comparison, compare_checkpoints
from holdfast.compare.figures import CHUNK_ELEMENTS, Figures, FigureSums
from holdfast.compare.values import cast, changed_elements, has_values, is_cast, values
from holdfast.formats.opening import open_checkpoint
from holdfast.formats.source import MemorySource

HOLDFAST = Path(sys.executable).parent / "holdfast"


def compare(a: Path, b: Path, **options: Any) -> Comparison:
    source_a, one = open_checkpoint(a)
    source_b, other = open_checkpoint(b)
    with source_a, source_b:
        result = compare_checkpoints(one, other, **options)
        assert sum(part.a for part in result.parts) == one.size
        assert sum(part.b for part in result.parts) == other.size
    return result


def weights(seed: int = 0, **extra: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {f"layer{number}.weight": torch.randn(40, 30, generator=generator) for number in range(6)}
    return {**made, "norm.running": torch.arange(30.0), "count": torch.tensor(7), **extra}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def trained(path: Path, model: dict[str, torch.Tensor], steps: int = 1) -> Path:
    """A checkpoint as training leaves it: the weights, AdamW's state, an epoch."""
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in model.values() if tensor.is_floating_point()]
    optimizer = torch.optim.AdamW(parameters)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return saved(path, {"model_state_dict": model, "optimizer_state_dict": optimizer.state_dict(), "epoch": steps})


def test_identical_bytes(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.pt", weights()), saved(tmp_path / "b.pt", weights())
    b.write_bytes(a.read_bytes())

    assert (compare(a, b).kind, compare(a, b).verdict) == ("identical", "identical bytes")


def test_same_weights_in_another_wrapper(tmp_path: Path) -> None:
    full = trained(tmp_path / "full.pt", weights())
    bare = saved(tmp_path / "bare.pt", weights())
    safetensors.torch.save_file(weights(), tmp_path / "bare.safetensors")

    result = compare(bare, full)
    assert result.kind == "same weights"
    optimizer = next(part for part in result.parts if part.part == "optimizer")
    assert f"optimizer state {optimizer.b:,} bytes larger" in result.verdict
    assert {change.name: (change.a, change.b) for change in result.metadata}["epoch"] == (None, 1)
    assert compare(bare, tmp_path / "bare.safetensors").kind == "same weights"
    assert compare(tmp_path / "bare.safetensors", full).changed == ()


@pytest.mark.parametrize(("dtype", "code"), [(torch.bfloat16, "BF16"), (torch.float16, "F16"), (torch.float64, "F64")])
def test_a_cast_is_told_from_training(tmp_path: Path, dtype: torch.dtype, code: str) -> None:
    model = weights(odd=torch.tensor([math.nan, math.inf, -0.0, 1e-40, 65519.0, 65520.0, 3.4e38]))
    a = saved(tmp_path / "a.pt", model)
    recast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in model.items()}

    result = compare(a, saved(tmp_path / "b.pt", recast))
    assert result.kind == "cast", result.verdict
    assert f"F32 to {code} in 8 of 9 tensors" in result.verdict
    recast["layer0.weight"][0, 0] += 1
    assert compare(a, saved(tmp_path / "b.pt", recast)).kind == "fine-tuned"


def test_fine_tuned_and_other_weights(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.pt", weights())
    tuned = weights()
    tuned["layer1.weight"] += 1e-3
    tuned["layer4.weight"][3] *= 1.1

    result = compare(a, saved(tmp_path / "b.pt", tuned))
    assert (result.kind, result.verdict) == ("fine-tuned", "fine-tuned: 2 of 8 tensors differ")
    assert [tensor.name for tensor in result.changed] == ["layer1.weight", "layer4.weight"]
    figures = result.changed[1].figures
    assert figures is not None
    assert figures.changed == 30
    stranger = compare(a, saved(tmp_path / "c.pt", weights(seed=1)))
    assert stranger.kind == "other weights"
    assert "6 of 8 tensors differ" in stranger.verdict


def test_another_architecture_names_what_is_where(tmp_path: Path) -> None:
    other = weights(head=torch.ones(3))
    del other["layer0.weight"]
    other["layer1.weight"] = torch.ones(40, 31)

    result = compare(saved(tmp_path / "a.pt", weights()), saved(tmp_path / "b.pt", other))
    assert result.kind == "different architecture"
    assert result.verdict == (
        "different architecture: 1 only in the first, 1 only in the second, 1 of another shape, 6 tensors match"
    )
    assert (result.only_a, result.only_b) == (("layer0.weight",), ("head",))


def test_what_holds_no_weights_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "b.pkl").write_bytes(b"\x80\x04\x95\x00")

    result = compare(saved(tmp_path / "a.pt", weights()), tmp_path / "b.pkl")
    assert result.kind == "not comparable"
    assert "b.pkl" in result.verdict


def test_threads_change_nothing(tmp_path: Path) -> None:
    a, b = saved(tmp_path / "a.pt", weights()), saved(tmp_path / "b.pt", weights(seed=1))
    told: list[int] = []

    assert compare(a, b, jobs=1) == compare(a, b, jobs=4, progress=told.append)
    assert sum(told) == 2 * sum(tensor.numel() * tensor.element_size() for tensor in weights().values())


def reference(a: np.ndarray, b: np.ndarray) -> Figures:
    """The same figures by whole arrays in float64."""
    both = np.isfinite(a) & np.isfinite(b)
    bits_differ = a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}")
    x, y = a[both].astype(np.float64), b[both].astype(np.float64)
    norm_x, norm_y = float(np.sqrt(np.sum(x * x))), float(np.sqrt(np.sum(y * y)))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return Figures(
        elements=a.size,
        changed=int(bits_differ.sum()),
        max_abs=float(np.abs(x - y).max()) if x.size else None,
        mean_abs=float(np.abs(x - y).mean()) if x.size else None,
        relative_norm=float(np.sqrt(np.sum((x - y) ** 2))) / norm_x if norm_x else None,
        cosine=float(np.dot(x, y)) / norm_x / norm_y if norm_x and norm_y else None,
        not_finite=int((~both & ~same).sum()),
    )


def summed(a: np.ndarray, b: np.ndarray, chunk: int) -> Figures:
    sums = FigureSums()
    for start in range(0, max(a.size, 1), chunk):
        part_a, part_b = a[start : start + chunk], b[start : start + chunk]
        changed = changed_elements(part_a.tobytes(), part_b.tobytes(), "F32" if a.itemsize == 4 else "F64")
        sums.add(part_a, part_b, changed=changed)
    return sums.figures()


FLOATS = st.one_of(
    st.floats(-1e3, 1e3, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 3e38, -3e38, 1e-40])
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    pair=st.integers(0, 50).flatmap(
        lambda n: st.tuples(hnp.arrays(np.float32, n, elements=FLOATS), hnp.arrays(np.float32, n, elements=FLOATS))
    ),
    dtype=st.sampled_from([np.float32, np.float64]),
    chunk=st.integers(1, 60),
)
def test_figures_are_those_of_whole_arrays(pair, dtype, chunk) -> None:
    a, b = (array.astype(dtype) for array in pair)
    found, expected = summed(a, b, chunk), reference(a, b)

    assert (found.elements, found.changed, found.not_finite) == (
        expected.elements,
        expected.changed,
        expected.not_finite,
    )
    # where all elements are so small that their squares vanish in float32, the norms count as 0
    tiny = any(not (np.abs(array[np.isfinite(array)]) > 1e-15).any() for array in (a, b))
    for name in ("max_abs", "mean_abs", "relative_norm", "cosine"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if theirs is None or ours is None:
            assert ours == theirs or tiny, name
        elif not tiny or name.endswith("abs"):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4 if name == "cosine" else 1e-30), name


def test_figures_of_many_chunks_are_exact_enough() -> None:
    random = np.random.default_rng(0)
    a = random.standard_normal(5 * CHUNK_ELEMENTS + 17).astype(np.float32)
    b = (a + random.standard_normal(a.size) * 1e-3).astype(np.float32)

    found, expected = summed(a, b, CHUNK_ELEMENTS), reference(a, b)
    for name in ("mean_abs", "relative_norm", "cosine"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5)
    assert found.max_abs == pytest.approx(expected.max_abs, rel=1e-6)


TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_values_are_those_of_torch(dtype: str) -> None:
    data = np.arange(512, dtype=np.uint16).astype(np.uint8).tobytes() * 4
    data = bytes(byte & 1 for byte in data) if dtype == "BOOL" else data
    expected = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[dtype]).to(torch.float64).numpy()

    assert has_values(dtype)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(values(data, dtype).astype(np.float64), expected, equal_nan=True)


@pytest.mark.parametrize(("source", "target"), [("F32", "BF16"), ("F32", "F16"), ("F64", "F32"), ("F64", "BF16")])
def test_casts_are_those_of_torch(source: str, target: str) -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 200_000, dtype=np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = bits.view(np.float32).astype(np.float64 if source == "F64" else np.float32)
        numbers[0] = 1.0
        expected = torch.from_numpy(numbers.copy()).to(TORCH_DTYPES[target])

    assert is_cast(numbers.tobytes(), expected.view(torch.uint8).numpy().tobytes(), source, target)
    spoilt = bytearray(expected.view(torch.uint8).numpy().tobytes())
    spoilt[0] ^= 1
    assert not is_cast(numbers.tobytes(), bytes(spoilt), source, target)
    assert cast(b"", "BF16", "F32") is None


def test_the_command_says_it_in_words_first(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", weights())
    trained(tmp_path / "b.pt", weights())
    tuned = weights()
    tuned["layer1.weight"] += 1e-3
    saved(tmp_path / "c.pt", tuned)

    def run(*arguments: str, code: int = 0) -> str:
        command = [str(HOLDFAST), "diff", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    assert run("a.pt", "b.pt").startswith("Same weights, different wrapper (optimizer state ")
    text = run("a.pt", "c.pt")
    assert text.startswith("Fine-tuned: 1 of 8 tensors differ.\n")
    assert "layer1.weight" in text
    payload = json.loads(run("a.pt", "c.pt", "--json"))
    assert payload["kind"] == "fine-tuned"
    assert sum(part["bytes"][1] for part in payload["parts"]) == (tmp_path / "c.pt").stat().st_size
    assert "| layer1.weight |" in run("a.pt", "c.pt", "--md")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-200])
    assert run("a.pt", "torn.pt", code=13).startswith("holdfast: torn.pt")


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """Two files of 200 MB in a process that may have 60 MB more than it starts with."""
    tensor = torch.arange(50_000_000, dtype=torch.float32)
    safetensors.torch.save_file({"w": tensor}, tmp_path / "a.safetensors")
    safetensors.torch.save_file({"w": tensor + 1}, tmp_path / "b.safetensors")
    program = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from holdfast.compare.checkpoints import compare_checkpoints\nfrom holdfast.formats.opening import open_checkpoint\n"
        "import holdfast.compare.values\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "opened = [open_checkpoint(Path(name))[1] for name in sys.argv[1:]]\n"
        "print(compare_checkpoints(*opened).kind, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kind, kilobytes = done.stdout.rsplit(" ", 1)
    assert kind == "fine-tuned"
    assert int(kilobytes) < 60_000


def test_bytes_that_are_no_numbers_are_compared_as_bytes() -> None:
    assert not has_values("F4")
    assert MemorySource(b"").size == 0
