"""Objects as sources of checkpoints: headers are read and no more, all of one state."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_safetensors

from faults import READS, FaultyStore, Rule
from holdfast.compare.checkpoints import compare_checkpoints
from holdfast.errors import IntegrityError
from holdfast.formats.content import checkpoint_weights_digest
from holdfast.formats.opening import open_checkpoint, read_checkpoint
from holdfast.formats.source import MemorySource, Source, read_exactly
from holdfast.objectstore.opening import open_object, open_store
from holdfast.objectstore.options import StoreOptions
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.source import CACHED_BYTES, MAX_BLOCK_BYTES, ObjectSource
from holdfast.objectstore.store import ChangedError, InvalidKeyError, ObjectNotFoundError, UnreachableError
from servers import S3Server

LAYERS, SIDE = 12, 1024  # 12 × 4 MiB


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {f"layers.{number}.weight": random.random((SIDE, SIDE), np.float32) for number in range(LAYERS)}


def as_torch() -> bytes:
    stream = io.BytesIO()
    torch.save({"model": {name: torch.from_numpy(value) for name, value in weights().items()}, "epoch": 3}, stream)
    return stream.getvalue()


def as_npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **weights())
    return stream.getvalue()


def as_onnx() -> bytes:
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights().items()]
    graph = onnx.helper.make_graph([], "graph", [], [], initializer=tensors)
    return onnx.helper.make_model(graph).SerializeToString()


FORMATS = {
    # each may ask as often and read so many bytes of the 50 MB; a tensor's place is in its own header but for safetensors
    "safetensors": (lambda: save_safetensors(weights()), 2, 100_000),
    "torch zip": (as_torch, 3 + LAYERS, 1_200_000),
    "npz": (as_npz, 3 + LAYERS, 1_200_000),
    "onnx": (as_onnx, 3 + LAYERS, 1_200_000),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("where", ["memory", "s3"])
def test_headers_alone_are_read(form: str, where: str, request: pytest.FixtureRequest) -> None:
    make, requests, nbytes = FORMATS[form]
    data = make()
    assert len(data) > 50_000_000
    if where == "memory":
        store = open_store("memory://")
        store.put("folder/model", data)
        source = ObjectSource(store, "folder/model")
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        url = request.getfixturevalue("s3_folder")
        open_store(url, server.options()).put("folder/model", data)
        source = open_object(f"{url}/folder/model", server.options())
    checkpoint = read_checkpoint(source)
    assert checkpoint.format == form
    assert len(checkpoint.tensors) == LAYERS
    assert source.requests <= requests
    assert source.bytes_read <= nbytes
    expected = read_checkpoint(MemorySource(data))
    assert [(tensor.name, tensor.shape, tensor.storage) for tensor in checkpoint.tensors] == [
        (tensor.name, tensor.shape, tensor.storage) for tensor in expected.tensors
    ]
    if where == "s3":
        assert checkpoint_weights_digest(checkpoint) == checkpoint_weights_digest(expected)
        assert compare_checkpoints(checkpoint, expected).kind == "identical"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 3_000_000), st.lists(st.tuples(st.integers(0, 3_200_000), st.integers(0, 1_500_000)), max_size=15)
)
def test_reads_are_what_the_bytes_are(size: int, reads: list[tuple[int, int]]) -> None:
    data = os.urandom(1000) * (size // 1000 + 1)
    store = open_store("memory://")
    store.put("object", data[:size])
    source = ObjectSource(store, "object", store.head("object"))
    for offset, count in reads:
        assert source.read(offset, count) == data[:size][offset : offset + count]
    assert source.requests <= len(reads)
    assert source._cached <= CACHED_BYTES + MAX_BLOCK_BYTES


def test_reading_on_takes_longer_blocks(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("object", os.urandom(8_000_000))
    source = ObjectSource(store, "object")
    for offset in range(0, 8_000_000, 10_000):
        source.read(offset, 10_000)
    assert source.requests <= 1 + 4 + 8  # 64, 128, 256, 512 KiB, then of 1 MiB each
    assert source.bytes_read < 8_500_000
    before = source.requests
    source.read(7_990_000, 10_000)
    source.read(0, 100)
    assert source.requests == before  # still there
    source.read(100_000, 5_000_000)
    source.read(100_000, 5_000_000)
    assert source.requests == before + 2  # what is long is not kept


def test_memory_is_bounded() -> None:
    store = open_store("memory://")
    store.put("object", bytes(64_000_000))
    source = ObjectSource(store, "object")
    for offset in range(0, 64_000_000, 1_000_000):
        source.read(offset, 900_000)
    assert source._cached <= CACHED_BYTES
    assert source._cached == sum(map(len, source._blocks.values()))


@pytest.mark.parametrize("where", ["memory", "folder", "s3"])
def test_an_object_replaced_meanwhile(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    options = StoreOptions()
    url = {"memory": "memory://", "folder": str(tmp_path)}.get(where, "")
    if where == "s3":
        url, options = request.getfixturevalue("s3_folder"), request.getfixturevalue("s3_server").options()
    store = open_store(url, options)
    data = save_safetensors({"weight": np.ones(1_000_000, np.float32)})
    store.put("model.safetensors", data)
    source = ObjectSource(store, "model.safetensors")
    checkpoint = read_checkpoint(source)
    store.put("model.safetensors", save_safetensors({"weight": np.zeros(1_000_000, np.float32)}))
    with pytest.raises(ChangedError, match=r"model\.safetensors was replaced while it was being read") as caught:
        checkpoint_weights_digest(checkpoint)
    assert caught.value.exit_code == 13
    store.delete("model.safetensors")
    with pytest.raises(ObjectNotFoundError):
        read_exactly(source, 2_000_000, 100)


def test_siblings() -> None:
    store = open_store("memory://")
    store.put("models/a/model.onnx", b"model")
    store.put("models/a/weights/one.bin", b"weights")
    store.put("models/secret", b"secret")
    store.put("top.onnx", b"top")
    store.put("beside", b"beside")
    source = ObjectSource(store, "models/a/model.onnx")
    assert source.name == "memory://models/a/model.onnx"
    assert source.sibling("weights/one.bin").read(0, 99) == b"weights"
    assert source.sibling("weights/one.bin") is source.sibling("weights/one.bin")
    assert ObjectSource(store, "top.onnx").sibling("beside").read(0, 99) == b"beside"
    for name in ("../secret", "/models/secret", "weights/../../secret", "nothing", "", "weights//one.bin", "a\nb"):
        with pytest.raises(IntegrityError, match=r"models/a/model\.onnx keeps weights in"):
            source.sibling(name)


def test_external_weights_of_onnx(tmp_path: Path) -> None:
    values = {"a": np.arange(70_000, dtype=np.float32), "b": np.ones((300, 400), np.float32)}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in values.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [], [], initializer=tensors))
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    store = open_store("memory://")
    for path in tmp_path.iterdir():
        store.put_file(f"models/{path.name}", path)
    remote = read_checkpoint(ObjectSource(store, "models/m.onnx"))
    source, local = open_checkpoint(tmp_path / "m.onnx")
    with source:
        assert checkpoint_weights_digest(remote) == checkpoint_weights_digest(local)


def test_a_listing_saves_the_first_request() -> None:
    store = open_store("memory://")
    store.put("a", b"abc")
    (info,) = store.list_objects()
    faulty = FaultyStore(store)
    source = ObjectSource(faulty, info.key, info)
    assert (source.size, source.requests) == (3, 0)
    assert source.read(1, 5) == b"bc"
    assert faulty.calls == [("get_range", "a")]


def test_damage_on_the_way_is_told() -> None:
    store = open_store("memory://")
    store.put("model.safetensors", save_safetensors({"weight": np.ones(300_000, np.float32)}))
    short = FaultyStore(store, [Rule("truncate", READS, at=2)])
    whole = checkpoint_weights_digest(read_checkpoint(ObjectSource(store, "model.safetensors")))
    # a read that comes short is gone on with, as one of a file is
    assert checkpoint_weights_digest(read_checkpoint(ObjectSource(short, "model.safetensors"))) == whole
    torn = FaultyStore(store, [Rule("truncate", READS)])
    with pytest.raises(IntegrityError, match="is being changed"):
        checkpoint_weights_digest(read_checkpoint(ObjectSource(torn, "model.safetensors")))
    gone = FaultyStore(store, [Rule("refuse", READS, at=2)])
    checkpoint = read_checkpoint(ObjectSource(gone, "model.safetensors"))
    with pytest.raises(UnreachableError):
        checkpoint_weights_digest(checkpoint)
    turned = FaultyStore(store, [Rule("flip", READS, at=2)])
    assert checkpoint_weights_digest(read_checkpoint(ObjectSource(turned, "model.safetensors"))) != whole


def test_many_threads_read_one_source() -> None:
    store = open_store("memory://")
    data = os.urandom(5_000_000)
    store.put("object", data)
    source: Source = ObjectSource(store, "object")
    barrier = threading.Barrier(8)

    def read(seed: int) -> None:
        barrier.wait(30)
        random = np.random.default_rng(seed)
        for _ in range(200):
            offset, count = int(random.integers(0, 5_000_000)), int(random.integers(0, 200_000))
            assert source.read(offset, count) == data[offset : offset + count]

    list(concurrently(read, range(8), 8))


def test_objects_by_url(tmp_path: Path, s3_server: S3Server, s3_folder: str) -> None:
    open_store(s3_folder, s3_server.options()).put("a/b.npy", b"1234")
    source = open_object(f"{s3_folder}/a/b.npy", s3_server.options())
    assert source.name == f"{s3_folder}/a/b.npy"
    assert source.read(1, 2) == b"23"
    with pytest.raises(ObjectNotFoundError, match="a/c does not exist"):
        open_object(f"{s3_folder}/a/c", s3_server.options())
    for url in (f"{s3_folder}/a/", "s3://tests"):
        with pytest.raises(InvalidKeyError, match="an object is wanted"):
            open_object(url, s3_server.options())
    (tmp_path / "file").write_bytes(b"local")
    assert open_object((tmp_path / "file").as_uri()).read(0, 9) == b"local"
