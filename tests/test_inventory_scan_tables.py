"""An inventory as tables: what is in them, that equal inventories give equal bytes, and that nothing else is harmed."""

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_safetensors
from safetensors.numpy import save_file

from holdfast.errors import UsageError
from holdfast.executor.local import LocalExecutor
from holdfast.executor.partitions import Shards
from holdfast.formats.cache import DigestCache
from holdfast.inventory import table_tensors, tables
from holdfast.inventory.models import ScanReport
from holdfast.inventory.scan import scan_tree
from holdfast.inventory.scan_objects import scan_store
from holdfast.inventory.table_columns import INVENTORY_FILE, INVENTORY_FORMAT, TABLES, types_of
from holdfast.inventory.table_runs import find_runs
from holdfast.inventory.table_tensors import tensors_of_files, tensors_of_objects
from holdfast.inventory.tables import check_tables, write_tables
from holdfast.objectstore.address import StoreAddress
from holdfast.objectstore.folder import FolderStore
from worlds import World, make_home

NOW = datetime(2026, 11, 21, tzinfo=timezone.utc)


def rows(folder: Path, table: str, columns: str = "*") -> list[tuple[Any, ...]]:
    document = json.loads((folder / INVENTORY_FILE).read_text())
    paths = [str(folder / path) for path in document["tables"][table]]
    if not paths:
        return []
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT {columns} FROM read_parquet(?)", [paths]).fetchall()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def take(root: Path, folder: Path, *, digests: bool = True) -> ScanReport:
    with DigestCache(None) as cache:
        report = scan_tree(root, cache, weights=digests)
        labels = [model.path for model in report.models if model.link is None]
        tensors = tensors_of_files(root, labels, cache, digests=digests, executor=LocalExecutor(1))
        write_tables(folder, report, tensors, runs=find_runs(root, NOW))
    return report


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "models").mkdir(parents=True)
    state = {
        "layer.w": torch.arange(12, dtype=torch.float32).reshape(3, 4),
        "layer.b": torch.ones((), dtype=torch.int64),
    }
    torch.save({"model_state_dict": state, "optimizer": {"m": torch.zeros(3)}}, root / "models" / "a_best.pt")
    save_file({name: tensor.numpy() for name, tensor in state.items()}, root / "models" / "b_best.safetensors")
    (root / "models" / "torn.pt").write_bytes((root / "models" / "a_best.pt").read_bytes()[:300])
    (root / "models" / "latest.pt").symlink_to("a_best.pt")
    (root / "run.py").write_text(
        'load("models/a_best.pt")\nfor n in names:\n    load(f"models/{n}_best.safetensors")\n'
    )
    (root / "any.py").write_text('for n, kind in found:\n    load(f"models/{n}_best.{kind}")\n')
    run = root / "outputs" / "exp_3"
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text("epoch,val_loss,val_accuracy\n0,1.5,0.5\n1,0.5,nan\n")
    (run / "config.yaml").write_text("learning_rate: 0.1\nepochs: 2\nbatch_size: 8\n")
    return root


def test_tables_of_a_tree(tree: Path, tmp_path: Path) -> None:
    report = take(tree, tmp_path / "inventory")
    folder = tmp_path / "inventory"
    document = json.loads((folder / INVENTORY_FILE).read_text())
    assert (document["format"], document["root"]) == (INVENTORY_FORMAT, str(tree))
    assert list(document["tables"]) == list(TABLES)

    files = rows(
        folder, "files", 'path, bytes, family, status, weights, link, etag, "references", epoch(modified)::BIGINT'
    )
    assert files == [
        (m.path, m.size, m.family, m.status, m.weights, m.link, None, m.used.references, _seconds(m.modified))
        for m in report.models
    ]
    tensors = rows(folder, "tensors", "path, name, dtype, shape, bytes, digest")
    assert [row[:5] for row in tensors] == [
        ("models/a_best.pt", "model_state_dict/layer.w", "F32", [3, 4], 48),
        ("models/a_best.pt", "model_state_dict/layer.b", "I64", [], 8),
        ("models/a_best.pt", "optimizer/m", "F32", [3], 12),
        ("models/b_best.safetensors", "layer.b", "I64", [], 8),
        ("models/b_best.safetensors", "layer.w", "F32", [3, 4], 48),
    ]
    digests = {(path[7], name.rpartition("/")[2]): digest for path, name, _, _, _, digest in tensors}
    assert digests["a", "layer.w"] == digests["b", "layer.w"]  # whatever format and name
    assert digests["a", "layer.b"] == digests["b", "layer.b"]
    assert len(set(digests.values())) == 3
    references = rows(folder, "references", "path, script, kind, cell, line, how, exact")
    assert ("models/a_best.pt", "run.py", "python", None, 1, "path", True) in references
    assert ("models/b_best.safetensors", "run.py", "python", None, 3, "pattern", True) in references
    assert ("models/a_best.pt", "any.py", "python", None, 2, "pattern", False) in references
    assert rows(folder, "runs", "path, class, status, epochs, metric, value, final, best, bytes") == [
        ("outputs/exp_3", "production candidate", "unknown", 2, "val_accuracy", 0.5, {"val_loss": 0.5}, _BEST, 91)
    ]


_BEST = {"val_accuracy": 0.5, "val_loss": 0.5}


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def test_a_tensor_of_another_dtype_or_shape_is_another(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    zeros = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((3, 2), np.float32), "c": np.zeros((2, 3), np.int32)}
    save_file({**zeros, "d": zeros["a"]}, root / "m.safetensors")
    take(root, tmp_path / "inventory")
    digests = dict(rows(tmp_path / "inventory", "tensors", "name, digest"))
    assert digests["a"] == digests["d"]
    assert len(set(digests.values())) == 3


def test_columns_are_those_that_are_documented(tree: Path, tmp_path: Path) -> None:
    take(tree, tmp_path / "inventory")
    document = json.loads((tmp_path / "inventory" / INVENTORY_FILE).read_text())
    for table, columns in TABLES.items():
        (path,) = document["tables"][table]
        described = duckdb.sql(f"DESCRIBE SELECT * FROM '{tmp_path / 'inventory' / path}'").fetchall()
        kinds = {row[0]: row[1].replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ") for row in described}
        assert kinds == types_of(columns)
        assert list(kinds) == list(columns)


def test_headers_alone_give_no_digest(tree: Path, tmp_path: Path) -> None:
    take(tree, tmp_path / "inventory", digests=False)
    assert {row[0] for row in rows(tmp_path / "inventory", "tensors", "digest")} == {None}


def test_equal_inventories_are_equal_bytes_and_what_has_not_changed_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SHARD_ROWS", 8)
    monkeypatch.setattr(table_tensors, "FILES", 8)
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(30):
        save_file({"w": np.full(3, number, np.float32)}, root / f"m{number}.safetensors")
    take(root, tmp_path / "one")
    take(root, tmp_path / "two")
    first = content(tmp_path / "one")
    assert content(tmp_path / "two") == first
    times = {path: (tmp_path / "one" / path).stat().st_mtime_ns for path in first}

    save_file({"w": np.full(3, 99, np.float32)}, root / "m21.safetensors")
    os.utime(root / "m21.safetensors", ns=(1, 10**18))
    take(root, tmp_path / "one")
    take(root, tmp_path / "fresh")
    second = content(tmp_path / "one")
    assert content(tmp_path / "fresh") == second
    same = {path for path in first if second.get(path) == first[path]}
    assert len(first) - len(same) == 3  # a shard of files, one of tensors, and what names them
    assert all((tmp_path / "one" / path).stat().st_mtime_ns == times[path] for path in same)


def test_tables_of_a_bucket(tree: Path, tmp_path: Path) -> None:
    place = StoreAddress(str(tmp_path / "bucket"))
    store = FolderStore(tmp_path / "bucket")
    for name in ("a_best.pt", "b_best.safetensors", "torn.pt"):
        store.put(f"models/{name}", (tree / "models" / name).read_bytes())
    store.put("notes", b"no model\n" * 20)
    np.savez(tmp_path / "data.npz", x=np.ones(20))
    store.put("unnamed", (tmp_path / "data.npz").read_bytes())  # tensors, and no model
    store.put("other", save_safetensors({"x": np.ones(20, np.float32)}))
    contents = []
    for number, jobs in enumerate((1, 4)):
        executor = LocalExecutor(jobs)
        scan = scan_store(place, executor, tmp_path / f"seen{number}", weights=True)
        write_tables(
            tmp_path / f"inventory{number}", scan.report, tensors_of_objects(scan.shards, executor), etags=scan.etags
        )
        contents.append(content(tmp_path / f"inventory{number}"))
    assert contents[0] == contents[1]
    folder = tmp_path / "inventory0"
    etags = {info.key: info.etag for info in store.list_objects()}
    models = ["models/a_best.pt", "models/b_best.safetensors", "models/torn.pt", "other"]
    assert rows(folder, "files", "path, etag") == [(path, etags[path]) for path in models]
    tensors = rows(folder, "tensors", "path, name, digest IS NULL")
    assert tensors == [
        ("models/a_best.pt", "model_state_dict/layer.w", False),
        ("models/a_best.pt", "model_state_dict/layer.b", False),
        ("models/a_best.pt", "optimizer/m", True),  # its bytes are no weights, and stay where they are
        ("models/b_best.safetensors", "layer.b", False),
        ("models/b_best.safetensors", "layer.w", False),
        ("other", "x", False),
    ]
    digests = {row[0] for row in rows(folder, "tensors", "digest") if row[0] is not None}
    take(tree, tmp_path / "local")
    assert digests - {row[0] for row in rows(tmp_path / "local", "tensors", "digest")} == {
        row[0] for row in rows(folder, "tensors", "CASE path WHEN 'other' THEN digest END") if row[0] is not None
    }
    assert rows(folder, "runs") == []


def test_a_failure_leaves_the_inventory_before(tree: Path, tmp_path: Path) -> None:
    report = take(tree, tmp_path / "inventory")
    before = content(tmp_path / "inventory")
    (tree / "models" / "b_best.safetensors").unlink()

    def fail(_: Shards) -> list[Path]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_tables(tmp_path / "inventory", scan_tree(tree, DigestCache(None)), fail)
    after = content(tmp_path / "inventory")
    assert {path: after[path] for path in before} == before
    take(tree, tmp_path / "inventory")
    take(tree, tmp_path / "fresh")
    assert content(tmp_path / "inventory") == content(tmp_path / "fresh")  # nothing of the failure stays
    assert len(report.models) == len(rows(tmp_path / "inventory", "files", "path")) + 1


def test_a_folder_of_something_else_is_left_alone(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(UsageError, match=r"chapter\.tex"):
        take(tree, tmp_path / "thesis")
    assert content(tmp_path / "thesis") == {"chapter.tex": b"x"}
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        check_tables(tmp_path / "file")
    (tmp_path / "torn" / "files" / "ab").mkdir(parents=True)  # what an interrupted scan leaves
    check_tables(tmp_path / "torn")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    save_file({"w": np.ones(3, np.float32)}, root / "plain.safetensors")
    os.rename(root / "plain.safetensors", os.fsencode(root) + b"/m\xff.safetensors")  # noqa: PTH104 - no Path says it
    take(root, tmp_path / "inventory")
    assert rows(tmp_path / "inventory", "files", "path") == [("m\\udcff.safetensors",)]
    assert rows(tmp_path / "inventory", "tensors", "path, name") == [("m\\udcff.safetensors", "w")]


def test_command(tree: Path, tmp_path: Path) -> None:
    world = World(tree, make_home(tmp_path))
    assert world.holdfast("scan", "--parquet", "../inventory").stdout.startswith("4 model files")
    assert len(rows(tmp_path / "inventory", "files", "path")) == 4
    assert len(rows(tmp_path / "inventory", "runs", "path")) == 1
    refused = world.holdfast("scan", "--parquet", "models", code=2)
    assert "which is no inventory's" in refused.stderr
