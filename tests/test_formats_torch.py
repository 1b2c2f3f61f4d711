"""torch's files read by us against torch itself, bit by bit; names, parts, metadata; one digest across formats."""

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attacks.readers import CountingSource, assert_read_as_torch_does, our_bytes, torch_bytes
from holdfast.errors import IntegrityError
from holdfast.formats import content
from holdfast.formats.content import NoDigestError, checkpoint_weights_digest, tensor_chunks, tensor_digests
from holdfast.formats.opening import open_checkpoint, read_checkpoint
from holdfast.formats.source import MemorySource
from holdfast.runs.checkpoint import export_safetensors, load_checkpoint, save_checkpoint, weights_of

SLOW_MACHINES = [HealthCheck.too_slow, HealthCheck.data_too_large]
BASE = torch.arange(24, dtype=torch.float32).reshape(4, 6)
SHARED = torch.randn(5, 5)
ODD = {
    "plain": torch.randn(3, 4),
    "transposed": BASE.t(),
    "row": BASE[1],
    "columns": BASE[:, ::2],
    "expanded": torch.randn(5, 1).expand(5, 7),
    "permuted": torch.randn(4, 5, 6).permute(2, 0, 1)[:, ::3],
    "scalar of a storage": BASE[2, 3],
    "diagonal": BASE.diagonal(),
    "windows": torch.arange(10.0).unfold(0, 4, 1),
    "bf16": torch.randn(7).bfloat16(),
    "fp16": torch.randn(7).half(),
    "f64": torch.randn(7).double(),
    "i8": torch.arange(-3, 4, dtype=torch.int8),
    "u8": torch.arange(7, dtype=torch.uint8),
    "i16": torch.arange(7, dtype=torch.int16),
    "i32": torch.arange(7, dtype=torch.int32),
    "i64": torch.arange(7),
    "bool": torch.tensor([True, False, True]),
    "c64": torch.randn(3, dtype=torch.complex64),
    "c128": torch.randn(3, 2, dtype=torch.complex128).t(),
    "empty": torch.zeros(0, 4),
    "0-d": torch.tensor(3.5),
    "parameter": torch.nn.Parameter(SHARED),
    "tied": SHARED,
    "no grad": torch.nn.Parameter(torch.ones(2), requires_grad=False),
}
NEW_ONLY = {
    "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
    "negative": torch.randn(3, dtype=torch.complex64).conj().imag,
    "u16": torch.arange(5).to(torch.uint16),
    "u32": torch.arange(5).to(torch.uint32),
    "u64": torch.arange(5).to(torch.uint64),
    "f8": torch.randn(4).to(torch.float8_e4m3fn),
    "f8 e5m2": torch.randn(4).to(torch.float8_e5m2),
}


def adamw_checkpoint() -> dict[str, Any]:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).sum().backward()
        optimizer.step()
    return {
        "epoch": 7,
        "val_loss": float("nan"),
        "config": {"layers": [6, 4, 2], "name": "tiny", "nothing": None, "raw": b"\x01\xff"},
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
    }


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        ODD,
        adamw_checkpoint(),
        [BASE, {"a": (SHARED, [SHARED.t(), 3])}, ()],
        BASE,
        {"nested": [[[BASE]]], 5: BASE, "": SHARED},
        {},
    ],
)
def test_what_torch_writes(tmp_path: Path, value: Any, new: bool) -> None:
    torch.save(value, tmp_path / "c.pt", _use_new_zipfile_serialization=new)

    checkpoint = assert_read_as_torch_does(tmp_path / "c.pt")
    assert checkpoint.format == ("torch zip" if new else "torch legacy")
    assert checkpoint.opaque == ()


def test_what_only_the_new_format_can_hold(tmp_path: Path) -> None:
    torch.save(NEW_ONLY, tmp_path / "c.pt")

    checkpoint = assert_read_as_torch_does(tmp_path / "c.pt")
    assert {t.name: t.dtype for t in checkpoint.tensors} == {
        "conjugate": "C64", "negative": "F32", "u16": "U16", "u32": "U32", "u64": "U64", "f8": "F8_E4M3",
        "f8 e5m2": "F8_E5M2",
    }  # fmt: skip


def test_quantised_tensors(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scales = torch.tensor([0.1, 0.2])
        value = {
            "whole": torch.quantize_per_tensor(torch.randn(3, 2), 0.1, 2, torch.qint8),
            "rows": torch.quantize_per_channel(
                torch.randn(2, 3), scales, torch.zeros(2, dtype=torch.int64), 0, torch.qint32
            ),
        }
        torch.save(value, tmp_path / "c.pt")
        expected = {
            key: torch_bytes(tensor) for key, tensor in torch.load(tmp_path / "c.pt", weights_only=True).items()
        }
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    with source:
        found = our_bytes(checkpoint)
    assert found[("whole",)] == expected["whole"]
    assert found[("rows",)] == expected["rows"]
    assert {t.name: t.dtype for t in checkpoint.tensors} == {
        "whole": "QI8", "rows": "QI32", "rows/scale": "F64", "rows/zero_point": "I64"
    }  # fmt: skip
    assert checkpoint.metadata["whole/scale"] == 0.1


def test_names_parts_metadata_and_ties(tmp_path: Path) -> None:
    torch.save(adamw_checkpoint(), tmp_path / "c.pt")
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    with source:
        tensors = {tensor.name: tensor for tensor in checkpoint.tensors}
        assert (
            sum(span.nbytes for span in checkpoint.literal)
            + sum({t.storage: t.storage.nbytes for t in checkpoint.tensors}.values())
            == checkpoint.size
        )

    assert checkpoint.container == "model_state_dict"
    assert {t.part for t in checkpoint.tensors if t.name.startswith("optimizer_state_dict/")} == {"optimizer"}
    assert tensors["optimizer_state_dict/state/0/exp_avg"].path == ("optimizer_state_dict", "state", 0, "exp_avg")
    assert tensors["model_state_dict/0.weight"].weight_name == "0.weight"
    assert tensors["model_state_dict/0.weight"].part == "weights"
    assert (tensors["rng"].part, tensors["rng"].weight_name, tensors["rng"].dtype) == ("other", None, "U8")
    assert checkpoint.metadata["epoch"] == 7
    assert checkpoint.metadata["val_loss"] == "nan"
    assert checkpoint.metadata["config/layers"] == [6, 4, 2]
    assert checkpoint.metadata["config/nothing"] is None
    assert checkpoint.metadata["config/raw"] == "01ff"
    assert checkpoint.metadata["optimizer_state_dict/param_groups/0/lr"] == 3e-4
    json.dumps(dict(checkpoint.metadata), allow_nan=False)


def test_views_of_one_storage_are_ties(tmp_path: Path) -> None:
    torch.save({"model": {"a": SHARED, "b": SHARED.t(), "c": torch.ones(2)}}, tmp_path / "c.pt")
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    source.close()
    assert checkpoint.ties == (("model/a", "model/b"),)


@pytest.mark.parametrize(
    ("value", "container", "names"),
    [
        ({"state_dict": {"w": BASE}, "model": {"w": SHARED}}, "state_dict", ["w"]),
        ({"state_dict": {"w": BASE, "v": 3}, "module": {"u": SHARED}}, "module", ["u"]),
        ({"model": {"encoder": {"w": BASE}, "step": 3}, "ema": {"w": BASE}}, "model", ["encoder.w"]),
        ({"net": {"w": BASE}, "optimizer": {"s": SHARED}, "step": 4}, "net", ["w"]),
        ({"net": {"w": BASE}, "opt_g": {"s": SHARED}, "bias": SHARED}, "", ["net.w", "bias"]),
        ({"a": {"state": {0: {"m": BASE}}, "param_groups": [{}]}, "b": {"w": BASE}}, "b", ["w"]),
        ({"w": BASE, "optimal": BASE}, "", ["w", "optimal"]),
        ({"a.b": BASE, "a": {"b": SHARED}}, "", ["a.b", "a.b~2"]),
        ({"model": {"a": {"b": BASE}, "a.b": SHARED}}, "model", ["a.b", "a.b~2"]),
        ({1: BASE, "1": SHARED}, "", ["1", "1~2"]),
        ([BASE, SHARED], "", ["0", "1"]),
        (BASE, "", ["tensor"]),
        ({"epoch": 3}, None, []),
        ({"optimizer": {"m": BASE}}, None, []),
    ],
)
def test_where_the_weights_are(tmp_path: Path, value: Any, container: str | None, names: list[str]) -> None:
    torch.save(value, tmp_path / "c.pt")
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    with source:
        assert checkpoint.container == container
        assert [tensor.weight_name for tensor in checkpoint.weights] == names
        assert len({tensor.name for tensor in checkpoint.tensors}) == len(checkpoint.tensors)
        if container is None:
            with pytest.raises(NoDigestError, match="holds no weights"):
                checkpoint_weights_digest(checkpoint)
        else:
            checkpoint_weights_digest(checkpoint)


def digest(path: Path) -> str:
    source, checkpoint = open_checkpoint(path)
    with source:
        return checkpoint_weights_digest(checkpoint)


def test_one_weights_digest_in_every_wrapper(tmp_path: Path) -> None:
    full = adamw_checkpoint()
    weights = full["model_state_dict"]
    torch.save(full, tmp_path / "full.ckpt")
    torch.save({"state_dict": weights, "optimizer": torch.randn(9)}, tmp_path / "other.pth")
    torch.save(dict(reversed(weights.items())), tmp_path / "bare.bin")
    torch.save(full, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    export_safetensors(weights, tmp_path / "w.safetensors")
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    np.savez(tmp_path / "w.npz", **arrays)
    np.savez_compressed(tmp_path / "small.npz", **{n: a.astype(a.dtype.newbyteorder(">")) for n, a in arrays.items()})
    scripted = torch.nn.Sequential(
        torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )
    scripted.load_state_dict(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(scripted).save(str(tmp_path / "script.pt"))

    digests = {path.name: digest(path) for path in tmp_path.iterdir()}
    assert len(digests) == 8
    assert len(set(digests.values())) == 1, digests
    weights["0.bias"][0] += 1
    torch.save(full, tmp_path / "full.ckpt")
    assert digest(tmp_path / "full.ckpt") not in digests.values()


def test_the_digest_is_that_of_the_exported_file(tmp_path: Path) -> None:
    odd = {name: tensor for name, tensor in ODD.items() if tensor.dtype != torch.complex128}
    save_checkpoint(tmp_path / "c.pt", odd)
    export_safetensors(weights_of(load_checkpoint(tmp_path / "c.pt")), tmp_path / "c.safetensors")
    assert digest(tmp_path / "c.pt") == digest(tmp_path / "c.safetensors")


def test_torchscript(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(2, 3)
            self.register_buffer("seen", torch.tensor(4))
            self.constant = torch.ones(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) @ torch.ones(3, 2) + self.constant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = Net()
        torch.jit.trace(module, torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
        source, checkpoint = open_checkpoint(tmp_path / "script.pt")
        with source:
            found = our_bytes(checkpoint)
    assert checkpoint.format == "torchscript"
    assert checkpoint.opaque == ()
    names = {tensor.weight_name: found[tensor.path] for tensor in checkpoint.weights}
    for name, tensor in module.state_dict().items():
        assert names[name] == torch_bytes(tensor)
    assert [tensor.name for tensor in checkpoint.tensors if tensor.part == "other"][:1] == ["constants/0"]


class Foreign:
    """A class that no allow-list knows."""

    def __init__(self) -> None:
        self.rate = 0.5
        self.weight = SHARED


def test_a_foreign_object_is_opaque_and_its_tensors_are_listed(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": BASE}, "arguments": Foreign()}, tmp_path / "c.pt")
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    with source:
        assert [(item.name, "Foreign" in item.reason) for item in checkpoint.opaque] == [("arguments", True)]
        assert {tensor.name for tensor in checkpoint.tensors} == {"state_dict/w", "arguments/weight"}
        assert checkpoint.metadata == {"arguments/rate": 0.5}
        assert checkpoint.pickles[0].foreign == ("test_formats_torch.Foreign",)
        assert checkpoint_weights_digest(checkpoint) == digest_of_base(tmp_path)

    torch.save({"state_dict": {"w": BASE, "x": Foreign()}}, tmp_path / "c.pt")
    with pytest.raises(NoDigestError, match="a value that was not read"):
        digest(tmp_path / "c.pt")


def digest_of_base(folder: Path) -> str:
    torch.save({"w": BASE}, folder / "base.pt")
    return digest(folder / "base.pt")


def rewritten(source: Path, target: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> None:
    """The archive with each member passed through ``change(name, data)``; None drops it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = change(name.split("/", 1)[1], old.read(name))
            if data is not None:
                new.writestr(name, data)


def test_big_endian(tmp_path: Path) -> None:
    value = {"f": BASE.t(), "c": ODD["c64"], "h": ODD["fp16"], "b": ODD["bool"], "l": ODD["i64"]}
    torch.save(value, tmp_path / "little.pt")
    units = {str(place): unit for place, unit in enumerate((4, 4, 2, 1, 8))}

    def change(name: str, data: bytes) -> bytes:
        if name == "byteorder":
            return b"big"
        if name.startswith("data/"):
            return np.frombuffer(data, f"<u{units[name[5:]]}").byteswap().tobytes()
        return data

    rewritten(tmp_path / "little.pt", tmp_path / "big.pt", change)
    assert_read_as_torch_does(tmp_path / "big.pt")
    assert digest(tmp_path / "big.pt") == digest(tmp_path / "little.pt")
    rewritten(tmp_path / "little.pt", tmp_path / "none.pt", lambda name, data: None if name == "byteorder" else data)
    assert digest(tmp_path / "none.pt") == digest(tmp_path / "little.pt")


def test_deflated_members(tmp_path: Path) -> None:
    torch.save(ODD, tmp_path / "c.pt")
    rewritten(tmp_path / "c.pt", tmp_path / "small.pt", lambda _, data: data, zipfile.ZIP_DEFLATED)
    assert_read_as_torch_does(tmp_path / "small.pt")


def test_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(ODD, tmp_path / "c.pt")
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    rewritten(tmp_path / "c.pt", tmp_path / "wide.pt", lambda _, data: data)
    assert b"PK\x06\x06" in (tmp_path / "wide.pt").read_bytes()
    assert_read_as_torch_does(tmp_path / "wide.pt")


@pytest.mark.soak
def test_three_gigabytes(tmp_path: Path) -> None:
    value = {"big": torch.arange(3 * 2**28, dtype=torch.int32).reshape(3, -1).t(), "behind": torch.randn(5)}
    torch.save(value, tmp_path / "c.pt")
    del value
    assert (tmp_path / "c.pt").stat().st_size > 3 * 2**30
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    with source:
        big = next(tensor for tensor in checkpoint.tensors if tensor.name == "big")
        plain = torch.load(tmp_path / "c.pt", weights_only=True, mmap=True)["big"].contiguous().numpy()
        place = 0
        for piece in tensor_chunks(checkpoint, big):
            assert piece == plain.reshape(-1).view(np.uint8)[place : place + len(piece)].tobytes()
            place += len(piece)
        assert place == plain.nbytes


def test_without_crcs_and_with_wrong_ones(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(ODD, tmp_path / "none.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save(ODD, tmp_path / "c.pt")
    assert digest(tmp_path / "none.pt") == digest(tmp_path / "c.pt")

    data = bytearray((tmp_path / "c.pt").read_bytes())
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    source.close()
    data[next(t for t in checkpoint.tensors if t.name == "bf16").storage.offset] ^= 1
    (tmp_path / "flipped.pt").write_bytes(data)
    with pytest.raises(IntegrityError, match="another CRC"):
        digest(tmp_path / "flipped.pt")


def test_opening_reads_headers_alone(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(1000, 3000), "b": torch.randn(2000, 1000)}, tmp_path / "new.pt")
    torch.save({"a": torch.randn(1000, 3000)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    export_safetensors({"a": torch.randn(1000, 3000)}, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", a=np.zeros((1000, 3000)))
    for path in tmp_path.iterdir():
        with CountingSource(path) as source:
            read_checkpoint(source)
            assert source.bytes_read < 400_000, path.name


def test_memory_is_a_source_too() -> None:
    stream = io.BytesIO()
    torch.save(ODD, stream)
    checkpoint = read_checkpoint(MemorySource(stream.getvalue()))
    assert our_bytes(checkpoint)[("transposed",)] == torch_bytes(ODD["transposed"])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=SLOW_MACHINES)
@given(st.data())
def test_any_view_in_small_blocks(data: st.DataObject) -> None:
    """Blocks and windows of a few bytes: every way of cutting a strided tensor into pieces gives the same bytes."""
    shape = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    view = torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)
    view = view.permute(*data.draw(st.permutations(range(len(shape)))))
    for dimension in range(view.ndim):
        first = data.draw(st.integers(0, view.shape[dimension] - 1))
        step = data.draw(st.integers(1, 3))
        view = view[(slice(None),) * dimension + (slice(first, None, step),)]
    if data.draw(st.booleans()):
        view = view.unsqueeze(1).expand(view.shape[0], data.draw(st.integers(1, 4)), *view.shape[1:])
    stream = io.BytesIO()
    torch.save({"v": view}, stream)
    before = content.BLOCK_BYTES, content.SMALL_WINDOW_BYTES
    content.BLOCK_BYTES, content.SMALL_WINDOW_BYTES = data.draw(st.sampled_from([(8, 4), (64, 16), (400, 8), (4, 4)]))
    try:
        found = our_bytes(read_checkpoint(MemorySource(stream.getvalue())))
    finally:
        content.BLOCK_BYTES, content.SMALL_WINDOW_BYTES = before
    assert found[("v",)] == torch_bytes(view)


def test_a_view_that_claims_too_much_has_no_digest(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1, 1).expand(2**20, 2**20)}, tmp_path / "c.pt")
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    with source, pytest.raises(NoDigestError, match="claim"):
        tensor_digests(checkpoint)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(100_000)}, tmp_path / "c.pt")
    source, checkpoint = open_checkpoint(tmp_path / "c.pt")
    with source, open(tmp_path / "c.pt", "r+b") as stream:
        stream.truncate(1000)
        with pytest.raises(IntegrityError, match="it is being changed"):
            checkpoint_weights_digest(checkpoint)
