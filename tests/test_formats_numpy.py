"""NumPy's files read by us against NumPy itself."""

from pathlib import Path

import numpy as np
import pytest

from attacks.readers import our_bytes
from holdfast.errors import IntegrityError
from holdfast.formats.content import NoDigestError, checkpoint_weights_digest
from holdfast.formats.opening import open_checkpoint

ARRAYS = {
    "f4": np.arange(24, dtype="<f4").reshape(4, 6),
    "fortran": np.asfortranarray(np.arange(24, dtype="<f4").reshape(4, 6)),
    "fortran 3": np.asfortranarray(np.arange(60, dtype="<i2").reshape(3, 4, 5)),
    "big": np.arange(6, dtype=">f8").reshape(2, 3),
    "big complex": (np.arange(6) * 1j).astype(">c16"),
    "big fortran": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    "half": np.arange(5, dtype="<f2"),
    "complex": np.arange(5, dtype="<c8"),
    "bool": np.array([True, False]),
    "bytes": np.arange(5, dtype="u1"),
    "u64": np.arange(5, dtype="<u8"),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3)),
    "with/slash": np.ones(2),
}


def expected(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path: Path, save) -> None:
    save(tmp_path / "a.npz", **ARRAYS)
    source, checkpoint = open_checkpoint(tmp_path / "a.npz")
    with source:
        found = our_bytes(checkpoint)
        checkpoint_weights_digest(checkpoint)
    assert checkpoint.format == "npz"
    with np.load(tmp_path / "a.npz") as loaded:
        assert {path[0] for path in found} == set(loaded.files)
        for tensor in checkpoint.tensors:
            assert tensor.shape == loaded[tensor.name].shape
            assert found[tensor.path] == expected(loaded[tensor.name]), tensor.name


@pytest.mark.parametrize("name", ARRAYS)
def test_a_single_array(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "a.npy", ARRAYS[name])
    source, checkpoint = open_checkpoint(tmp_path / "a.npy")
    with source:
        assert our_bytes(checkpoint) == {(): expected(ARRAYS[name])}
    assert [(tensor.name, tensor.part) for tensor in checkpoint.tensors] == [("tensor", "weights")]


@pytest.mark.parametrize("array", [np.array([{}, None]), np.array(["a", "bc"]), np.zeros(2, dtype=[("x", "f4")])])
def test_objects_and_texts_are_opaque(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "o.npy", array, allow_pickle=True)
    np.savez(tmp_path / "o.npz", good=np.ones(3), bad=array)
    for path in tmp_path.iterdir():
        source, checkpoint = open_checkpoint(path)
        with source:
            assert "never unpickled" in checkpoint.opaque[0].reason
            with pytest.raises(NoDigestError):
                checkpoint_weights_digest(checkpoint)
    assert [tensor.name for tensor in checkpoint.tensors] in ([], ["good"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_is_found(tmp_path: Path, save) -> None:
    save(tmp_path / "a.npz", a=np.random.default_rng(1).random(1000))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "a.npz").write_bytes(data)
    source, checkpoint = open_checkpoint(tmp_path / "a.npz")
    with source, pytest.raises(IntegrityError, match="damaged"):
        checkpoint_weights_digest(checkpoint)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1e3,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,), }",
        b"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }",
        b"{'descr': '<f4', 'shape': (2,), }",
        b"['descr']",
        b"__import__('os').system('true')",
        b"(" * 3000,
        b"-" * 9000 + b"1",
        b"'\xff'",
        b"",
    ],
)
def test_broken_headers(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 8)
    with pytest.raises(IntegrityError, match=r"a\.npy"):
        open_checkpoint(tmp_path / "a.npy")
