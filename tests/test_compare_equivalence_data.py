"""The samples that two models are given: the same batches from every kind of file, in bounded memory."""

import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from holdfast.compare.equivalence_data import Batch, DataError, open_data
from holdfast.errors import IntegrityError, UsageError
from holdfast.formats.source import FileSource, MemorySource

X = np.arange(77 * 6, dtype=np.float32).reshape(77, 2, 3) / 7
IDS = np.arange(77, dtype=np.int64)[::-1].copy()
Y = (np.arange(77) % 5).astype(np.int64)


def batches(path: Path, *, rows: int = 10, limit: int | None = None, **options: Any) -> list[Batch]:
    with FileSource(path) as source:
        return list(open_data(source, **options).batches(rows, limit))


def joined(found: list[Batch], name: str) -> np.ndarray:
    return np.concatenate([batch.inputs[name] for batch in found])


def saved(path: Path) -> Path:
    """The same three arrays in the format of the path's suffix."""
    arrays = {"x": X, "ids": IDS, "y": Y}
    if path.name == "packed.npz":
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file({key: torch.from_numpy(array) for key, array in arrays.items()}, path)
    else:
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        # neither of these lies in C order without gaps
        tensors["x"] = tensors["x"].permute(2, 1, 0).contiguous().permute(2, 1, 0)
        tensors["ids"] = torch.stack([tensors["ids"], tensors["ids"]], 1)[:, 0]
        torch.save(tensors, path, _use_new_zipfile_serialization=path.name != "legacy.pt")
    return path


@pytest.mark.parametrize("name", ["plain.npz", "packed.npz", "x.safetensors", "x.pt", "legacy.pt"])
def test_every_format_gives_the_same_batches(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name)
    found = batches(path, labels="y")

    assert [(batch.first, batch.rows) for batch in found] == [*((start, 10) for start in range(0, 70, 10)), (70, 7)]
    assert joined(found, "x").tobytes() == X.tobytes()
    assert joined(found, "x").dtype == np.float32
    assert joined(found, "ids").tolist() == IDS.tolist()
    assert np.concatenate([batch.labels for batch in found if batch.labels is not None]).tolist() == Y.tolist()
    assert set(found[0].inputs) == {"x", "ids"}
    limited = batches(path, limit=23, inputs={"x": "pixels"})
    assert [(batch.first, batch.rows, batch.labels) for batch in limited] == [
        (0, 10, None),
        (10, 10, None),
        (20, 3, None),
    ]
    assert set(limited[0].inputs) == {"pixels"}
    assert joined(limited, "pixels").tobytes() == X[:23].tobytes()
    assert len(batches(path, rows=1000)) == 1


def test_fields_and_samples(tmp_path: Path) -> None:
    with FileSource(saved(tmp_path / "a.npz")) as source:
        data = open_data(source, {"x": "pixels"}, "y")
        assert data.samples == 77
        assert [vars(field) for field in data.fields] == [
            {"key": "x", "name": "pixels", "dtype": "F32", "shape": (2, 3)}
        ]


def test_one_array_in_any_order_and_byte_order(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(X.astype(">f8")))
    found = batches(tmp_path / "a.npy")
    assert joined(found, "tensor").dtype == np.float64
    assert np.array_equal(joined(found, "tensor"), X)


def test_types_that_numpy_lacks_come_as_float32(tmp_path: Path) -> None:
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    safetensors.torch.save_file({"b": x.bfloat16(), "f": x.to(torch.float8_e4m3fn)}, tmp_path / "a.safetensors")
    found = batches(tmp_path / "a.safetensors", rows=4)
    assert np.array_equal(joined(found, "b"), x.bfloat16().float().numpy())
    assert np.array_equal(joined(found, "f"), x.to(torch.float8_e4m3fn).float().numpy())


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid,a,b,class\nr1,1,2.5,0\nr2,-3e2,nan,2\n\nr3,4,5,1", encoding="utf-8")
    found = batches(path, rows=2, inputs={"b": "b", "a": "a"}, labels="class")
    assert [(batch.first, batch.rows) for batch in found] == [(0, 2), (2, 1)]
    assert joined(found, "columns").dtype == np.float32
    assert np.array_equal(joined(found, "columns"), [[2.5, 1], [np.nan, -300], [5, 4]], equal_nan=True)
    assert [batch.labels.tolist() for batch in found if batch.labels is not None] == [[0, 2], [1]]
    assert [batch.rows for batch in batches(path, limit=2, inputs={"a": "a"})] == [2]
    (tmp_path / "c.csv").write_text("\ufeffa\n1\n2\n3\n4\n5\n", encoding="utf-8")
    found = batches(tmp_path / "c.csv", rows=2, limit=3, inputs={"a": "a"})
    assert [(batch.first, batch.rows) for batch in found] == [(0, 2), (2, 1)]
    assert joined(found, "columns").tolist() == [[1], [2], [3]]
    (tmp_path / "b.tsv").write_text("a\tb\n1\t2\n")
    assert joined(batches(tmp_path / "b.tsv"), "columns").tolist() == [[1, 2]]
    with FileSource(path) as source:
        assert open_data(source, {"a": "a"}, None).fields[0].shape == (1,)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "a.csv is empty"),
        ("a,b\n", {}, "it has no line but its header"),
        ("a,b,a\n1,2,3\n", {}, "the column 'a' twice"),
        ("a,b\n1,2\n3\n", {}, "sample 1: it has 1 values where the header names 2 columns"),
        ("a,b\n1,2\n3,word\n", {}, "sample 1: 'word' in the column b is no number. --input COLUMN"),
        ("a,b\n1,2\n3,\n", {}, "sample 1: '' in the column b is no number"),
        ("a,y\n1,0\n2,1.5\n", {"labels": "y"}, "sample 1: the label '1.5' is no class number"),
        ("a,y\n1,0\n2,cat\n", {"labels": "y"}, "sample 1: the label 'cat' is no class number"),
        ("a,y\n1,inf\n", {"labels": "y"}, "the label 'inf' is no class number"),
        ('a,b\n1,"2\n', {}, "is no table of UTF-8 text"),
        ("y\n1\n", {"labels": "y"}, "nothing but the labels y"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, options: dict[str, Any], said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        batches(tmp_path / "a.csv", **options)


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(DataError, match="no table of UTF-8 text"):
        batches(tmp_path / "a.csv")


def test_columns_have_no_names_for_models(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="one array, which needs no name"):
        batches(tmp_path / "a.csv", inputs={"a": "x"})


def test_names_that_are_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"has no 'z'\. It has x, ids, y"):
        batches(path, inputs={"z": "z"})
    with pytest.raises(UsageError, match="has no 'class'"):
        batches(path, labels="class")
    with pytest.raises(UsageError, match=r"two arrays .* get the same name"):
        batches(path, inputs={"x": "a", "ids": "a"})


@pytest.mark.parametrize(
    ("arrays", "options", "said"),
    [
        ({"x": np.ones((4, 2)), "z": np.ones((3, 2))}, {}, r"not have as many samples as one another \(x 4, z 3\)"),
        ({"x": np.ones((4, 2)), "rate": np.float32(3)}, {}, r"\(x 4, rate no\)"),
        ({"x": np.ones((4, 2)), "y": np.ones(3)}, {"labels": "y"}, r"\(x 4, y 3\)"),
        ({"x": np.ones((0, 2))}, {}, "x is empty"),
        ({"x": np.ones((3, 2)), "y": np.array([0, 1, 0.5])}, {"labels": "y"}, "label y of sample 2 is no class number"),
        ({"x": np.ones((2, 2)), "y": np.array([0, np.nan])}, {"labels": "y"}, "label y of sample 1 is no class number"),
        ({"x": np.ones((2, 2)), "y": np.ones(2, complex)}, {"labels": "y"}, "label y of sample 0 is no class number"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=said):
        batches(tmp_path / "a.npz", **options)


def test_files_without_samples(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no samples: its first bytes are those of no format"):
        batches(tmp_path / "a.bin")
    np.save(tmp_path / "a.npy", np.array(["text"], object), allow_pickle=True)
    with pytest.raises(DataError, match="never unpickled"):
        batches(tmp_path / "a.npy")


def test_damage_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "plain.npz")
    data = bytearray(path.read_bytes())
    place = data.index(X.tobytes()[-40:])
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"plain\.npz"):
        batches(path)


def big(path: Path, samples: int) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (samples, 256)})
        member.write(header.getvalue())
        rows = np.random.default_rng(0).integers(0, 3, (1024, 256)).astype(np.float32)
        for _ in range(samples // 1024):
            member.write(rows.tobytes())


def lines(count: int) -> Iterator[bytes]:
    yield b"a,b,c\n"
    for number in range(count):
        yield b"%d,2.5,3\n" % number


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        big(path, 128 * 1024)  # 134 MB unpacked
    else:
        path.write_bytes(b"".join(lines(200_000)))  # its 200,000 rows take 40 MB as lists of floats
    tracemalloc.start()
    try:
        with FileSource(path) as source:
            count = sum(batch.rows for batch in open_data(source).batches(64, None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == (128 * 1024 if kind == "npz" else 200_000)
    assert peak < 30e6


def test_a_table_of_a_commit_has_no_path() -> None:
    source = MemorySource(b"a,b\n1,2\n3,4\n", "HEAD:data/a.csv")
    data = open_data(source)
    assert data.samples == 2
    assert [batch.inputs["columns"].tolist() for batch in data.batches(8, None)] == [[[1, 2], [3, 4]]]
