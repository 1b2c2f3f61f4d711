"""Damaged, hostile and odd files: all are cut, and what cannot be read safely by its content."""

import io
import json
import struct
import zipfile
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from attacks.files import GOOD, hostile
from attacks.files import safetensors as safetensors_of
from holdfast.formats.checkpoint import Checkpoint, Storage, Tensor
from holdfast.formats.source import MemorySource
from holdfast.vault import split, split_layout
from holdfast.vault.split import BLOCK_BYTES, split_source
from vault_split_files import (
    FORMATS,
    npz,
    onnx_of,
    split_bytes,
    torch_file,
)

SLOW_MACHINES = [HealthCheck.too_slow, HealthCheck.data_too_large]


def damaged(data: st.DataObject, plain: bytes) -> bytes:
    """Some bytes changed, cut off, doubled or added."""
    body = bytearray(plain)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(0, len(body) - 1)))
        # headers stand at the start and at the end
        place = data.draw(st.sampled_from([place, place % 600, max(0, len(body) - 1 - place % 2000)]))
        how = data.draw(st.sampled_from(["change", "change", "change", "cut", "double", "add"]))
        if how == "change" and body:
            body[place] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del body[place : place + data.draw(st.integers(1, 500))]
        elif how == "double":
            body[place:place] = body[place : place + data.draw(st.integers(1, 500))]
        else:
            body += data.draw(st.binary(max_size=30))
    return bytes(body)


SMALLER: dict[str, Callable[[], bytes]] = {
    "torch zip": lambda: torch_file({"model": {"a": torch.randn(1200), "b": torch.randn(1300), "c": torch.ones(9)}}),
    "torch legacy": lambda: torch_file({"a": torch.randn(1200), "b": torch.randn(1300)}, legacy=True),
    "safetensors": lambda: save_safetensors({"a": torch.randn(1200), "b": torch.randn(1300), "c": torch.ones(9)}),
    "npz": lambda: npz({"a": torch.randn(1200), "b": torch.randn(1300)}),
    "onnx": lambda: onnx_of({"a": torch.randn(1200), "b": torch.randn(1300)}),
}


@pytest.mark.parametrize("kind", SMALLER)
def test_damaged_files_are_cut_too(kind: str) -> None:
    plain = SMALLER[kind]()

    @settings(deadline=None, max_examples=100, suppress_health_check=SLOW_MACHINES)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        split_bytes(damaged(data, plain), block_bytes=data.draw(st.sampled_from([4096, BLOCK_BYTES])))

    check()


def test_torn_files_are_cut_by_their_content() -> None:
    for kind, make in FORMATS.items():
        data = make()[:-5000] if kind != "npy" else make()[:-4]
        found = split_bytes(data)
        assert found.format == "bytes", kind
        assert {(piece.dtype, piece.slot) for piece in found.pieces} == {("bytes", 0)}, kind


def test_an_archive_of_other_files_is_cut_by_its_content() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "text " * 10_000)
    found = split_bytes(stream.getvalue())
    assert found.format == "bytes"
    assert [piece.slot for piece in found.pieces] == [0]


@pytest.mark.parametrize("wrappings", ["one", pytest.param("every", marks=pytest.mark.soak)])
def test_hostile_files_are_cut(monkeypatch: pytest.MonkeyPatch, wrappings: str) -> None:
    """They are small: every file is looked into, and every tensor is a run. What takes long is tried in one wrapping."""
    monkeypatch.setattr(split, "MIN_CHECKPOINT_BYTES", 0)
    monkeypatch.setattr(split_layout, "OWN_BYTES", 8)
    formats = set()
    for name, data in [*hostile(), *((name, make()) for name, make in GOOD.items())]:
        if wrappings == "one" and name.startswith("much: ") and not name.endswith(" (zip)"):
            continue
        found = split_source(MemorySource(data))
        assert sum(piece.length for piece in found.pieces) == len(data), name
        assert all(0 < piece.length <= BLOCK_BYTES for piece in found.pieces), name
        slots = [piece.slot for piece in found.pieces if piece.slot]
        assert len(slots) == len(set(slots)), name
        formats.add(found.format)
    assert formats >= {"torch zip", "torch legacy", "safetensors", "npz", "npy", "onnx", "bytes"}


def test_many_tiny_tensors_are_few_pieces() -> None:
    """Headers may name a hundred thousand tensors of a byte each."""
    header = {f"{n}": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(30_000)}
    found = split_bytes(safetensors_of(header, bytes(30_000)))
    assert found.format == "safetensors"
    assert len(found.pieces) < 40
    entries = {}
    for n in range(9000):
        kind = ("F32", "I32")[n % 2]
        entries[f"{n}"] = {"dtype": kind, "shape": [16], "data_offsets": [64 * n, 64 * n + 64]}
    found = split_bytes(safetensors_of(entries, bytes(64 * 9000)))
    assert len(found.pieces) < 40


def layout_of(*tensors: tuple[str, str, int, int], size: int = 100_000) -> list[tuple[int, int, str, bool]]:
    """The runs of what no reader gives: of each its offset, length, dtype, and whether it has slots."""
    found = tuple(
        Tensor(name, (name,), dtype, (nbytes,), (1,), 0, Storage(offset, nbytes))
        for name, dtype, offset, nbytes in tensors
    )
    runs = split_layout.runs_of(Checkpoint("test", MemorySource(bytes(size)), found))
    return [(run.offset, run.nbytes, run.dtype, bool(run.slot(0))) for run in runs]


def test_storages_that_overlap_are_no_runs() -> None:
    spans = [("a", "U8", 0, 50_000), ("b", "U8", 10_000, 9000), ("c", "U8", 40_000, 20_000)]
    beside = ("d", "U8", 60_000, 20_000)
    behind_the_end = [("e", "U8", 90_000, 20_000), ("f", "U8", 120_000, 20_000)]
    assert layout_of(*spans, beside, *behind_the_end) == [(60_000, 20_000, "U8", True)]
    assert layout_of(("a", "U8", 0, 30_000), ("b", "U8", 0, 20_000), beside) == [(60_000, 20_000, "U8", True)]


def test_neighbours_of_two_types_do_not_share_a_piece() -> None:
    found = layout_of(
        *(
            (name, kind, 3000 * n, 3000)
            for n, (name, kind) in enumerate(zip("abcd", ["F32", "F32", "I32", "I32"], strict=True))
        )
    )
    assert found == [(0, 6000, "F32", True), (6000, 6000, "I32", True)]


def test_neighbours_far_from_each_other_do_not_share_a_piece() -> None:
    pair = [("a", "F32", 0, 3000), ("b", "F32", 3000, 3000)]
    assert layout_of(*pair, ("c", "F32", 6512, 3000)) == [(0, 9512, "F32", True)]
    assert layout_of(*pair, ("c", "F32", 6516, 3000)) == [(0, 6000, "F32", True)]


def test_of_a_tied_storage_the_name_of_the_weight_counts() -> None:
    storage = Storage(0, 8000)
    names = [("optimizer", "a"), ("weights", "z"), ("weights", "y"), ("other", "b")]
    tensors = tuple(Tensor(name, (name,), "F32", (2000,), (1,), 0, storage, part) for part, name in names)
    (run,) = split_layout.runs_of(Checkpoint("test", MemorySource(bytes(8000)), tensors))
    assert run.slot(3) == split_layout.slot_of([("weights", "y", "F32", (2000,))], 3)


def test_a_storage_of_several_types_is_bytes() -> None:
    assert layout_of(("a", "F32", 0, 8000), ("b", "I32", 0, 8000)) == [(0, 8000, "bytes", True)]


def test_a_type_that_the_codec_does_not_know_is_bytes() -> None:
    assert layout_of(("a", "NEW", 0, 8000)) == [(0, 8000, "bytes", True)]


def test_where_names_come_twice_there_are_no_slots() -> None:
    twice = [("a", "F32", 0, 8000), ("a", "F32", 8000, 8000), ("b", "F32", 16_000, 8000)]
    assert [slots for *_, slots in layout_of(*twice)] == [False, False, True]


def test_the_header_of_a_file_of_json() -> None:
    """Text that begins as a safetensors header does is no checkpoint."""
    text = json.dumps([{"row": n} for n in range(5000)]).encode()
    assert split_bytes(struct.pack("<Q", 9) + b"{" + text).format == "bytes"
