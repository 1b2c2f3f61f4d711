"""Files to pieces: nothing is left out, and equal tensors are equal pieces wherever they lie."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save as save_safetensors
from torch import nn

from attacks.files import safetensors as safetensors_of
from attacks.readers import CountingSource
from holdfast.formats.content import tensor_chunks
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import FileSource, MemorySource
from holdfast.vault.chunk import chunk_lengths, chunking_of
from holdfast.vault.codec import decode, encode
from holdfast.vault.split import BLOCK_BYTES, split_source
from holdfast.vault.split_layout import slot_of
from vault_split_files import (
    FORMATS,
    GROUP,
    OWN,
    assert_sound,
    contents,
    npy,
    npz,
    onnx_file,
    shared,
    split_bytes,
    state,
    torch_file,
    torchscript,
)

SLOW_MACHINES = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("kind", FORMATS)
def test_each_tensor_is_a_piece_or_blocks_of_its_own(kind: str) -> None:
    data = FORMATS[kind]()
    found = split_bytes(data)
    assert found.format == kind
    pieces = {piece.offset: piece for piece in found.pieces}
    checkpoint = read_checkpoint(MemorySource(data))
    large = [tensor for tensor in checkpoint.tensors if tensor.nbytes >= OWN]
    assert large
    for tensor in large:
        blocks, end = [], tensor.storage.offset
        while end < tensor.storage.offset + tensor.nbytes:
            blocks.append(pieces[end])
            end += pieces[end].length
        assert end == tensor.storage.offset + tensor.nbytes
        assert all(block.length == BLOCK_BYTES for block in blocks[:-1])
        assert {block.dtype for block in blocks} == {tensor.dtype}
        part, name = ("weights", tensor.weight_name) if tensor.weight_name else (tensor.part, tensor.name)
        assert [b.slot for b in blocks] == [
            slot_of([(part, name, tensor.dtype, tensor.shape)], number) for number in range(len(blocks))
        ]
        assert b"".join(tensor_chunks(checkpoint, tensor)) == data[blocks[0].offset : end]
    opaque = [piece for piece in found.pieces if piece.dtype == "bytes"]
    assert all(piece.slot == 0 for piece in opaque)
    assert sum(piece.length for piece in opaque) < 20_000


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_is_cut_by_its_storages() -> None:
    data = torchscript()
    found = split_bytes(data)
    assert found.format == "torchscript"
    assert [piece.length for piece in found.pieces if piece.slot] == [64 * 128 * 4] * 2


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_equal_tensors_meet_across_formats(first: str, second: str) -> None:
    if "npy" in (first, second):
        return
    large = sum(t.nbytes for n, t in state().items() if t.nbytes >= OWN and n != "brain")
    assert shared(FORMATS[first](), FORMATS[second]()) >= large
    slots = [
        {piece.slot for piece in split_bytes(FORMATS[kind]()).pieces if piece.length >= 2 * OWN}
        for kind in (first, second)
    ]
    # two blocks, and three tensors of one
    assert len(slots[0] & slots[1]) >= (4 if {"npz", "onnx"} & {first, second} else 5)


def test_a_file_of_the_weights_is_free_beside_the_whole_checkpoint() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.BatchNorm1d(512), nn.Linear(512, 256))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(8, 256)).sum().backward()
    optimizer.step()
    whole = torch_file(
        {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, name="whole"
    )
    weights = torch_file(model.state_dict(), name="weights")
    assert shared(whole, weights) >= 2 * 256 * 512 * 4
    slots = {piece.slot for piece in split_bytes(whole).pieces}
    found = split_bytes(weights)
    assert all(piece.slot in slots for piece in found.pieces if piece.slot)
    # the moments of a weight are not the weight
    assert len(slots) == len({piece.offset for piece in split_bytes(whole).pieces if piece.slot}) + 1


def test_between_two_steps_the_tensors_that_stayed_are_shared() -> None:
    first, second = state(), state()
    second["conv.weight"] += 1
    second["norm.bias"] += 1
    old, new = torch_file(first, name="step1"), torch_file(second, name="step2")
    known = contents(old, split_bytes(old))
    fresh = [piece for data, piece in contents(new, split_bytes(new)).items() if data not in known]
    slots = {piece.slot: piece for piece in split_bytes(old).pieces}
    changed = slot_of([("weights", "conv.weight", "F32", (32, 16, 3, 3))], 0)
    assert {piece.length for piece in fresh if piece.slot == changed} == {32 * 16 * 9 * 4}
    assert sum(piece.length for piece in fresh) < 32 * 16 * 9 * 4 + 12_000
    for piece in fresh:
        if piece.slot:  # and what did change finds its base
            assert slots[piece.slot].length == piece.length
            assert slots[piece.slot].dtype == piece.dtype


def test_small_neighbours_of_one_type_share_a_piece() -> None:
    tensors = {f"{n:03}": torch.full((200,), float(n)) for n in range(200)}
    data = save_safetensors(tensors)
    found = split_bytes(data)
    groups = [piece for piece in found.pieces if piece.slot]
    assert {piece.dtype for piece in groups} == {"F32"}
    assert [piece.length for piece in groups] == [
        GROUP // 800 * 800,
        GROUP // 800 * 800,
        160_000 % (GROUP // 800 * 800),
    ]
    names = [("weights", f"{n:03}", "F32", (200,)) for n in range(200)]
    assert groups[0].slot == slot_of(names[: GROUP // 800], 0)


def test_scalars_and_zip_headers_do_not_part_neighbours() -> None:
    tensors = {}
    for n in range(8):
        tensors[f"{n}.weight"], tensors[f"{n}.count"] = torch.full((250,), float(n)), torch.tensor(n)
    data = torch_file(tensors)
    groups = [piece for piece in split_bytes(data).pieces if piece.slot]
    assert [piece.dtype for piece in groups] == ["F32"]
    assert groups[0].length > 8 * 1000


def test_neighbours_that_do_not_line_up_do_not_share_a_piece() -> None:
    """Numbers would be read from the middle of one to the middle of the next."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("a", "bb", "ccc", "dddd"):
            archive.writestr(f"{name}.npy", npy(np.ones(1000, np.float32)))
    pieces = split_bytes(stream.getvalue()).pieces
    data = stream.getvalue()
    for piece in pieces:
        if piece.dtype == "F32":
            assert data[piece.offset : piece.offset + 4] == b"\0\0\x80?"
            assert piece.length == 4000 or data[piece.offset : piece.offset + piece.length][-4:] == b"\0\0\x80?"
    assert not [piece for piece in pieces if piece.dtype == "F32" and piece.length > 4128 and (piece.length - 4000) % 4]


def test_what_is_tied_or_viewed_is_one_piece() -> None:
    base = torch.randn(100, 100)
    data = torch_file({"z": base, "a": base, "part": base[10:20], "across": base.T})
    found = [piece for piece in split_bytes(data).pieces if piece.slot]
    assert [(piece.length, piece.dtype) for piece in found] == [(40_000, "F32")]
    # the first name counts, so that a tie more moves nothing
    assert found[0].slot == slot_of([("weights", "a", "F32", (100, 100))], 0)


def test_big_endian_numbers_are_bytes() -> None:
    data = npy(np.arange(10_000, dtype=">f4"))
    assert [(p.length, p.dtype) for p in split_bytes(data).pieces if p.slot] == [(40_000, "bytes")]


def test_what_is_deflated_is_cut_by_its_content() -> None:
    data = npz({"a": torch.randn(300, 1000), "b": torch.randn(1000)}, np.savez_compressed)
    found = split_bytes(data)
    assert found.format == "npz"
    assert {(piece.dtype, piece.slot) for piece in found.pieces} == {("bytes", 0)}
    assert [p.length for p in found.pieces] == list(
        chunk_lengths(MemorySource(data), 0, len(data), chunking_of(BLOCK_BYTES))
    )


def test_a_deflated_member_among_stored_ones() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", npy(np.ones(5000)))
        archive.writestr("b.npy", npy(np.ones(50_000)), zipfile.ZIP_DEFLATED)
        archive.writestr("c.npy", npy(np.ones(6000)))
    found = split_bytes(stream.getvalue())
    assert [(piece.length, piece.dtype) for piece in found.pieces if piece.slot] == [(40_000, "F64"), (48_000, "F64")]


def test_a_model_is_cut_alike_with_its_weights_beside_it_or_not(tmp_path: Path) -> None:
    inside = numpy_helper.from_array(np.random.default_rng(0).random((100, 100), np.float32), "inside")
    outside = numpy_helper.from_array(np.ones((100, 100), np.float32), "outside")
    model = onnx.load_from_string(onnx_file([inside, outside]))
    onnx.external_data_helper.set_external_data(model.graph.initializer[1], "weights.bin")
    onnx.save_model(model, str(tmp_path / "model.onnx"))
    data = (tmp_path / "model.onnx").read_bytes()
    assert (tmp_path / "weights.bin").stat().st_size == 40_000
    alone = split_bytes(data)
    assert alone.format == "onnx"
    assert [piece.length for piece in alone.pieces if piece.slot] == [40_000]
    with FileSource(tmp_path / "model.onnx") as source:
        assert split_source(source) == alone


def test_of_a_checkpoint_its_header_is_read_alone(tmp_path: Path) -> None:
    save_arrays({f"layers.{n}": np.zeros(2_000_000, np.float32) for n in range(10)}, tmp_path / "a.safetensors")
    torch.save({f"layers.{n}": torch.zeros(2_000_000) for n in range(10)}, tmp_path / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        with CountingSource(tmp_path / name) as source:
            found = split_source(source)
            assert_sound(found, source.size)
            assert source.bytes_read < 200_000
        assert len([piece for piece in found.pieces if piece.slot]) == 20


def test_the_pieces_rebuild_the_file_through_the_codec() -> None:
    old, new = torch_file(state()), torch_file({n: t + 1 if t.is_floating_point() else t for n, t in state().items()})
    bases = {piece.slot: piece for piece in split_bytes(old).pieces if piece.slot}
    rebuilt = b""
    for piece in split_bytes(new).pieces:
        plain = new[piece.offset : piece.offset + piece.length]
        at = bases.get(piece.slot)
        base = old[at.offset : at.offset + at.length] if at else None
        rebuilt += decode(encode(plain, piece.dtype, base), base)
    assert rebuilt == new


def test_slots_are_these_for_ever() -> None:
    assert slot_of([("weights", "encoder.weight", "BF16", (3, 4))], 0) == 18291272485700802313
    assert slot_of([("optimizer", "état/0", "F32", ()), ("other", "b", "F64", (1,))], 7) == 16305884250475587455


def test_the_cut_of_a_file_is_this_for_ever() -> None:
    """Another cut finds nothing of what a vault holds."""
    sizes = {"a": 3_000_000, "b": 5000, "c": 900, "d": 900, "e": 10, "f": 900, "g": 2000}
    header, end = {}, 0
    for name, elements in sizes.items():
        header[name] = {"dtype": "F32", "shape": [elements], "data_offsets": [end, end + 4 * elements]}
        end += 4 * elements
    found = split_bytes(safetensors_of(header, bytes(end)))
    assert [(piece.offset, piece.length, piece.dtype) for piece in found.pieces] == [
        (0, 545, "bytes"),
        (545, 4194304, "F32"),
        (4194849, 4194304, "F32"),
        (8389153, 3611392, "F32"),
        (12000545, 20000, "F32"),
        (12020545, 10840, "F32"),
        (12031385, 8000, "F32"),
    ]
    text = ",".join(str(piece.slot) for piece in found.pieces)
    assert blake3(text.encode()).hexdigest(length=8) == "528fa24be1b94ad0"


@pytest.mark.parametrize("block_bytes", [0, -4096, 2048, 4104, 2**25])
def test_lengths_of_blocks_that_are_none(block_bytes: int) -> None:
    with pytest.raises(ValueError, match="no length of blocks"):
        split_source(MemorySource(b""), block_bytes=block_bytes)


def test_chunks_longer_than_a_block_are_refused() -> None:
    with pytest.raises(ValueError, match="longer than a block"):
        split_source(MemorySource(b""), block_bytes=65_536, chunking=chunking_of(BLOCK_BYTES))


@settings(deadline=None, suppress_health_check=SLOW_MACHINES)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["F32", "BF16", "I64", "U8", "F8_E4M3", "BOOL"]),
            st.one_of(st.integers(0, 300), st.integers(0, 9000)),
        ),
        max_size=60,
    ),
    st.sampled_from([4096, 8192, 65_536, BLOCK_BYTES]),
    st.integers(0, 2**32),
)
def test_any_layout(layout: list[tuple[str, int]], block_bytes: int, seed: int) -> None:
    header, end = {}, 0
    for number, (dtype, elements) in enumerate(layout):
        nbytes = elements * {"F32": 4, "BF16": 2, "I64": 8}.get(dtype, 1)
        header[f"t{number}"] = {"dtype": dtype, "shape": [elements], "data_offsets": [end, end + nbytes]}
        end += nbytes
    plain = blake3(struct.pack("<Q", seed)).digest(length=end)
    data = safetensors_of(header, plain)
    found = split_bytes(data, block_bytes=block_bytes)
    if len(data) < 2 * OWN:
        assert {piece.dtype for piece in found.pieces} == {"bytes"}
        return
    starts = {piece.offset: piece for piece in found.pieces}
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        if stop - begin >= OWN:
            first = starts[len(data) - end + begin]
            assert first.dtype == entry["dtype"]
            # a block of half as many bytes has as many numbers
            assert first.length == min(stop - begin, block_bytes // 2 if entry["dtype"] == "BF16" else block_bytes)
            assert first.slot == slot_of([("weights", name, entry["dtype"], tuple(entry["shape"]))], 0)
