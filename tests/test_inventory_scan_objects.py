"""The inventory of a bucket: a real S3 server, headers read by ranges."""

import io
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save as save_safetensors

from holdfast.executor.local import LocalExecutor
from holdfast.inventory import scan_listing
from holdfast.inventory.models import ScanReport
from holdfast.inventory.scan_judge import Registered
from holdfast.inventory.scan_listing import list_models
from holdfast.inventory.scan_objects import scan_store
from holdfast.inventory.tree import Excludes
from holdfast.objectstore.folder import FolderStore
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from proxy import proxy
from servers import S3Server
from worlds import World, environment, make_repository, run


def torch_bytes(seed: int, elements: int = 1000) -> bytes:
    torch.manual_seed(seed)
    stream = io.BytesIO()
    torch.save({"state_dict": {"w": torch.randn(elements)}, "epoch": seed}, stream)
    return stream.getvalue()


@pytest.fixture
def store(s3_server: S3Server, s3_folder: str) -> ObjectStore:
    store = open_store(s3_folder, s3_server.options())
    same = torch_bytes(1)
    big = {"layer.weight": np.arange(4_000_000, dtype=np.float32)}
    for key, data in {
        "models/a_best.pt": same,
        "models/b_best.pt": torch_bytes(2),
        "backup/a_best.pt": same,
        "models/large.safetensors": save_safetensors(big),
        "models/torn.pt": same[:2000],
        "files/md5/ab/" + "0" * 30: torch_bytes(3),
        "files/md5/cd/" + "1" * 30: b"a,b\n" * 1000,
        "notes.txt": b"none\n" * 100,
        "picture": b"\x89PNG" * 100,
    }.items():
        store.put(key, data)
    return store


@dataclass(frozen=True)
class Opened:
    """The place of a store that is open here."""

    store: object

    def open(self) -> ObjectStore:
        return self.store  # type: ignore[return-value]


def scan(store: object, folder: Path | None = None, **options: object) -> ScanReport:
    with tempfile.TemporaryDirectory() as own:
        return scan_store(Opened(store), LocalExecutor(2), folder or Path(own), **options).report  # type: ignore[arg-type]


def test_what_is_in_a_bucket(store: ObjectStore, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text('load("models/b_best.pt")\n')
    oid = "ab" + "0" * 30
    report = scan(store, registered=[Registered("app/x@v1", oid, "none")], project=tmp_path)
    assert report.looked == 9
    assert {model.path: (model.status, model.format, model.tracked) for model in report.models} == {
        "backup/a_best.pt": ("backup", "torch zip", "none"),
        "files/md5/ab/" + "0" * 30: ("registered", "torch zip", "dvc"),
        "models/a_best.pt": ("unreferenced", "torch zip", "none"),
        "models/b_best.pt": ("primary", "torch zip", "none"),
        "models/large.safetensors": ("unreferenced", "safetensors", "none"),
        "models/torn.pt": ("unreferenced", "damaged", "none"),
    }
    assert next(m.parameters for m in report.models if m.path == "models/large.safetensors") == 4_000_000
    (group,) = report.duplicates
    assert group.paths == ("backup/a_best.pt", "models/a_best.pt")
    assert all(model.weights is None for model in report.models)
    assert report.root == store.url


def test_a_large_bucket_is_listed_by_its_folders(store: ObjectStore, s3_server: S3Server, s3_folder: str) -> None:
    for key in ("top.pt", "models/deep/er/x.pt", "models2/y.pt"):
        store.put(key, b"x" * 100)
    serial = list_models(store, Excludes(("*b_best*",)))
    assert serial[0] == 12
    assert all(item.etag for item in serial[1])
    assert [item.key for item in serial[1]] == sorted(item.key for item in serial[1])
    with proxy(s3_server.port) as link:
        spread = list_models(
            open_store(s3_folder, s3_server.options(link.endpoint)), Excludes(("*b_best*",)), serial_objects=3
        )
        folders = {request.query.get("prefix", "").rpartition("/")[0].rpartition("/")[2] for request in link.requests}
    assert spread == serial
    assert {"backup", "files", "models", "models2"} <= folders


def test_folders_below_single_folders_and_too_many_of_them(s3_server: S3Server, s3_folder: str) -> None:
    store = open_store(s3_folder, s3_server.options())
    keys = [f"a/b/run_{number}/x.pt" for number in range(6)] + ["a/b/y.pt", "a/z.pt"]
    for key in keys:
        store.put(key, b"x" * 100)
    for most, runs in ((6, 6), (5, 0)):
        with proxy(s3_server.port) as link, pytest.MonkeyPatch.context() as patch:
            patch.setattr(scan_listing, "MAX_FOLDERS", most)
            found = list_models(open_store(s3_folder, s3_server.options(link.endpoint)), Excludes(), serial_objects=2)
            prefixes = [request.query.get("prefix", "") for request in link.requests]
        assert [item.key for item in found[1]] == sorted(keys)
        assert sum("run_" in prefix for prefix in prefixes) == runs


def test_headers_alone_are_read(store: ObjectStore) -> None:
    class Counting:
        """Passes everything on, and counts the bytes of ranges."""

        def __init__(self) -> None:
            self.bytes = 0
            self.url = store.url
            self.list_objects = store.list_objects

        def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
            self.bytes += count
            return store.get_range(key, offset, count, etag=etag)

    counting = Counting()
    assert len(scan(counting).models) == 6
    assert 0 < counting.bytes < 1_000_000


def test_the_second_look_asks_for_the_listing_alone(store: ObjectStore, tmp_path: Path) -> None:
    class Listing:
        def __init__(self) -> None:
            self.url = store.url
            self.list_objects = store.list_objects

    first = scan(store, tmp_path)
    assert scan(Listing(), tmp_path).to_json() == first.to_json()
    store.put("models/b_best.pt", torch_bytes(9, 77))
    changed = {model.path: model.parameters for model in scan(store, tmp_path).models}
    assert changed["models/b_best.pt"] == 77


def test_digests_and_excludes(store: ObjectStore, tmp_path: Path) -> None:
    report = scan(store, weights=True, excludes=["/backup/", "*.safetensors"])
    assert [model.path for model in report.models if model.weights is None] == ["models/torn.pt"]
    folder = FolderStore(tmp_path)
    for info in store.list_objects("models"):
        folder.put(info.key, store.get(info.key))
    here = {model.path: model.weights for model in scan(folder, weights=True).models}
    assert {model.path: model.weights for model in report.models if model.path.startswith("models")} == {
        path: digest for path, digest in here.items() if not path.endswith(".safetensors")
    }


def test_what_is_deleted_meanwhile_is_a_note(store: ObjectStore) -> None:
    listed = list(store.list_objects())
    store.delete("models/b_best.pt")

    class Late:
        def __init__(self) -> None:
            self.url = store.url
            self.get_range = store.get_range

        def list_objects(self) -> object:
            return iter(listed)

    report = scan(Late())
    assert "models/b_best.pt" not in {model.path for model in report.models}
    assert [note.partition(":")[0] for note in report.notes] == ["models/b_best.pt"]


@pytest.mark.usefixtures("store")
def test_command(s3_server: S3Server, s3_folder: str, tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    command = [str(Path(shutil.which("holdfast", path=environment(world.home)["PATH"]) or "")), "scan", s3_folder]
    variables = environment(world.home) | s3_server.environment()
    text = subprocess_output(command, world, variables)
    assert text.startswith("6 model files")
    assert "among 9 objects" in text
    document = json.loads(subprocess_output([*command, "--json"], world, variables))
    assert document["root"] == s3_folder
    missing = run([*command[:2], "s3://no-such-bucket-here/x"], world.folder, world.home, code=1)
    assert "no-such-bucket-here" in missing.stderr


def subprocess_output(command: list[str], world: World, variables: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=world.folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
