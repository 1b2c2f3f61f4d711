"""safetensors read by us against the library itself, and the weights digest."""

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from blake3 import blake3

from holdfast.errors import IntegrityError
from holdfast.formats.digest import TensorDigest, content_digest, file_digest, file_md5, weights_digest
from holdfast.formats.safetensors import file_weights_digest, read_header
from holdfast.runs.checkpoint import export_safetensors, load_checkpoint, save_checkpoint, weights_of

WEIGHTS = {
    "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "a": torch.tensor([1.5, -0.0, float("nan")], dtype=torch.bfloat16),
    "scalar": torch.tensor(3),
    "empty": torch.zeros(0, 4),
    "mask": torch.tensor([True, False]),
}


def header_of(path: Path):
    data = path.read_bytes()
    return read_header(lambda offset, count: data[offset : offset + count], len(data), str(path))


def write_raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_the_library_reads_what_we_export(tmp_path: Path) -> None:
    export_safetensors(WEIGHTS, tmp_path / "w.safetensors")

    loaded = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert loaded.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert loaded[name].flatten().view(torch.uint8).tolist() == tensor.flatten().view(torch.uint8).tolist()


def test_spans_are_those_of_the_library(tmp_path: Path) -> None:
    safetensors.torch.save_file(WEIGHTS, tmp_path / "w.safetensors", metadata={"format": "pt", "x": "y"})

    header = header_of(tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    assert header.metadata == {"format": "pt", "x": "y"}
    assert {span.name: span.shape for span in header.tensors} == {n: tuple(t.shape) for n, t in WEIGHTS.items()}
    for span in header.tensors:
        expected = bytes(WEIGHTS[span.name].flatten().view(torch.uint8).tolist())
        assert data[span.offset : span.offset + span.nbytes] == expected


def test_export_is_deterministic_with_ties(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    weights = {"decoder.weight": shared, "encoder.weight": shared, "bias": torch.ones(4)}

    export_safetensors(weights, tmp_path / "a.safetensors")
    export_safetensors(dict(reversed(weights.items())), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert header_of(tmp_path / "a.safetensors").aliases == {"encoder.weight": "decoder.weight"}


def test_the_digest_counts_a_tied_tensor_under_each_name(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    export_safetensors({"a": shared, "b": shared}, tmp_path / "tied.safetensors")
    export_safetensors({"a": shared, "b": shared.clone()}, tmp_path / "apart.safetensors")

    assert (tmp_path / "tied.safetensors").stat().st_size < (tmp_path / "apart.safetensors").stat().st_size + 64
    assert file_weights_digest(tmp_path / "tied.safetensors") == file_weights_digest(tmp_path / "apart.safetensors")


def test_views_are_exported_whole_and_in_c_order(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    export_safetensors({"t": base.t(), "row": base[1], "every other": base[:, ::2]}, tmp_path / "w.safetensors")

    loaded = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert torch.equal(loaded["t"], base.t())
    assert torch.equal(loaded["row"], base[1])
    assert torch.equal(loaded["every other"], base[:, ::2])


def test_the_weights_digest_follows_its_rule() -> None:
    """An implementation of the documented rule, written apart from the one in the package."""
    tensors = [("é", "F32", (2,), b"\0" * 8), ("a", "I64", (), b"\1" * 8)]
    expected = blake3(derive_key_context="holdfast 2026-11 weights digest v1")
    for name, dtype, shape, data in sorted(tensors, key=lambda t: t[0].encode()):
        expected.update(len(name.encode()).to_bytes(8, "little") + name.encode())
        expected.update(len(dtype).to_bytes(8, "little") + dtype.encode())
        expected.update(len(shape).to_bytes(8, "little") + b"".join(n.to_bytes(8, "little") for n in shape))
        expected.update(blake3(data).digest())

    found = weights_digest(TensorDigest(n, d, s, content_digest(b)) for n, d, s, b in tensors)
    assert found == f"blake3:{expected.hexdigest()}"
    # for ever: registries hold these digests
    assert found == "blake3:381a2eda64a6e9ea18aeaf7c60364b73efe9d3da5aaf74fb4b815070fab4f5ff"


def test_the_digest_sees_weights_alone(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    save_checkpoint(
        tmp_path / "full.pt",
        {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict(), "epoch": 3},
    )
    save_checkpoint(tmp_path / "bare.pt", model.state_dict())
    for name in ("full", "bare"):
        export_safetensors(weights_of(load_checkpoint(tmp_path / f"{name}.pt")), tmp_path / f"{name}.safetensors")

    assert file_weights_digest(tmp_path / "full.safetensors") == file_weights_digest(tmp_path / "bare.safetensors")
    with torch.no_grad():
        model.bias[0] += 1
    export_safetensors(model.state_dict(), tmp_path / "other.safetensors")
    assert file_weights_digest(tmp_path / "other.safetensors") != file_weights_digest(tmp_path / "bare.safetensors")


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": ENTRY}, b"1234567", None),  # torn
        ({"a": ENTRY}, b"123456789", None),  # a byte too many
        ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, b"\0" * 12, None),  # overlap
        ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 20]}}, b"\0" * 20, None),  # hole
        ({"a": {**ENTRY, "shape": [3]}}, b"\0" * 8, None),
        ({"a": {**ENTRY, "shape": [-2]}}, b"\0" * 8, None),
        ({"a": {**ENTRY, "shape": [2**62, 2**62]}}, b"\0" * 8, None),
        ({"a": {**ENTRY, "shape": [True, 2]}}, b"\0" * 8, None),
        ({"a": {**ENTRY, "dtype": "F33"}}, b"\0" * 8, None),
        ({"a": {"dtype": "F32"}}, b"\0" * 8, None),
        ({"a": 5}, b"", None),
        ([1, 2], b"", None),
        (b'{"a": {}, "a": {}}', b"", None),
        (b"\xff\xfe", b"", None),
        (b"[" * 100_000, b"", None),
        (b"{}", b"", 2**63),
        ({"__metadata__": {"holdfast.aliases": '{"x": "y"}'}}, b"", None),
        ({"__metadata__": {"holdfast.aliases": "nonsense"}}, b"", None),
    ],
)
def test_broken_headers_are_refused(tmp_path: Path, header: object, data: bytes, length: int | None) -> None:
    path = write_raw(tmp_path / "w.safetensors", header, data, length)

    with pytest.raises(IntegrityError, match=r"w\.safetensors"):
        file_weights_digest(path)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    export_safetensors(WEIGHTS, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()

    for length in range(len(data)):
        (tmp_path / "torn.safetensors").write_bytes(data[:length])
        with pytest.raises(IntegrityError):
            file_weights_digest(tmp_path / "torn.safetensors")


def test_file_digests(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 3_000_000)
    (tmp_path / "empty").write_bytes(b"")

    assert file_digest(tmp_path / "f") == f"blake3:{blake3(b'abc' * 3_000_000).hexdigest()}"
    assert file_md5(tmp_path / "empty") == "d41d8cd98f00b204e9800998ecf8427e"
