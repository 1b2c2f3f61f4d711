"""`holdfast show` and `holdfast diff` of objects in buckets, as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as save_safetensors

from holdfast.cli.naming import remote_of
from holdfast.formats.content import checkpoint_weights_digest
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import MemorySource
from holdfast.objectstore.location import locate
from holdfast.objectstore.opening import open_store
from proxy import proxy
from servers import ACCESS_KEY, SECRET_KEY, S3Server
from worlds import World, make_repository

MODEL = save_safetensors({"layer.weight": np.arange(500_000, dtype=np.float32), "layer.bias": np.zeros(3, np.float32)})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_repository(tmp_path)


@pytest.fixture
def url(s3_server: S3Server, s3_folder: str) -> str:
    open_store(s3_folder, s3_server.options()).put("models/m.safetensors", MODEL)
    return f"{s3_folder}/models/m.safetensors"


def in_environment(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


def test_show_reads_the_header_alone(
    world: World, url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_environment(monkeypatch, s3_server)
    with proxy(s3_server.port) as link:
        monkeypatch.setenv("AWS_ENDPOINT_URL", link.endpoint)
        text = world.holdfast("show", url).stdout
        assert text.startswith(f"{url}: safetensors, 2 tensors, 500,003 parameters, 2.0 MB, F32.\n")
        assert text.splitlines()[-1] == "No weights digest: `--digest` reads 2.0 MB for it."
        assert link.methods() == {"HEAD": 1, "GET": 1}
        assert link.bytes_down < 100_000
        digest = checkpoint_weights_digest(read_checkpoint(MemorySource(MODEL)))
        assert digest in world.holdfast("show", "--digest", url).stdout
        payload = json.loads(world.holdfast("show", "--json", url).stdout)
        assert payload["path"] == url
        assert payload["size"] == len(MODEL)
        assert payload["weights_digest"] is None
        assert "No weights digest: it was not asked for." in world.holdfast("show", "--no-digest", url).stdout


def test_diff_of_an_object_and_a_file(
    world: World, url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_environment(monkeypatch, s3_server)
    world.write("m.safetensors", MODEL)
    assert world.holdfast("diff", url, "m.safetensors").stdout.startswith("Identical bytes")


def test_as_dvc_reaches_it(world: World, url: str, s3_server: S3Server, s3_folder: str) -> None:
    """The remote's server and keys, for what lies below it and for the rest of its bucket."""
    world.dvc("remote", "add", "store", f"{s3_folder}/dvc")
    world.dvc("remote", "modify", "store", "endpointurl", s3_server.endpoint)
    world.dvc("remote", "modify", "--local", "store", "access_key_id", ACCESS_KEY)
    world.dvc("remote", "modify", "--local", "store", "secret_access_key", SECRET_KEY)
    world.write("data.bin", b"data")
    world.dvc("add", "data.bin")
    world.dvc("push", "--remote", "store")
    oid = "8d777f385d3dfec8815d20f7496026dc"
    assert world.holdfast("show", url).stdout.startswith(url)
    below = f"{s3_folder}/dvc/files/md5/{oid[:2]}/{oid[2:]}"
    assert f"{below}: unknown, opaque, 4 B." in world.holdfast("show", below).stdout


def test_what_can_be_said_of_a_failure(
    world: World, url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    done = world.holdfast("show", url, code=1)
    assert done.stderr.startswith("holdfast: there are no credentials for s3://tests. Set AWS_ACCESS_KEY_ID and")
    in_environment(monkeypatch, s3_server)
    done = world.holdfast("show", f"{url}x", code=1)
    assert done.stderr == f"holdfast: {url}x does not exist\n"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    done = world.holdfast("-v", "show", url, code=1)
    assert "access denied" in done.stderr.splitlines()[-1]
    assert "wrong-secret" not in done.stderr
    assert "StringToSign" not in done.stderr
    for name, code, words in (
        ("s3://", 2, "names no bucket"),
        ("s3://tests", 2, "an object is wanted"),
        ("ftp://host/file", 2, "objects of ftp:// cannot be read"),
        ("file:///nowhere/at/all", 2, "does not exist"),
        ("models/x.pt", 2, "models/x.pt is no file"),
        ("digits/none", 1, "there is no model digits/none"),
    ):
        done = world.holdfast("show", name, code=code)
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_files_models_and_commits(world: World) -> None:
    world.write("m.safetensors", MODEL)
    world.commit()
    oid = world.store(MODEL)
    version = f'schema: 1\npath: m.safetensors\noid: "{oid}"\nsize: {len(MODEL)}\nweights: "blake3:{"0" * 64}"\ndate: "2026-11-20"\n'
    world.write("registry/app/net/model.yaml", "schema: 1\ncurrent: v1\naliases: {best: v1}\n")
    world.write("registry/app/net/v1.yaml", version + "source: {}\nparams: {}\nmetrics: {}\n")
    digest = checkpoint_weights_digest(read_checkpoint(MemorySource(MODEL)))
    for name in (
        "m.safetensors",
        (world.root / "m.safetensors").as_uri(),
        "app/net",
        "app/net@best",
        "HEAD:m.safetensors",
    ):
        text = world.holdfast("show", name).stdout
        assert text.startswith(f"{name}: safetensors, 2 tensors")
        assert digest in text


def test_which_remote_a_url_belongs_to() -> None:
    r2 = "https://account.r2.cloudflarestorage.com"
    sections = {
        "top": {"url": "s3://bucket"},
        "deep": {"url": "s3://bucket/a/b", "endpointurl": r2},
        "other": {"url": "s3://other/dvc", "endpointurl": f"{r2}/"},
        "beside": {"url": "s3://beside/dvc"},
        "folder": {"url": "/some/where"},
        "ssh": {"url": "ssh://ada@host/path"},
        "google": {"url": "gcs://bucket/a"},
    }
    for url, name in {
        "s3://bucket/a/b/c": "deep", "s3://bucket/a/b": "deep", "s3://bucket/a/bc": "top", "s3://bucket": "top",
        "s3a://bucket/x": "top", "r2://account/bucket/z": "deep", "r2://account/other/x": "other", "r2://else/bucket/z": None,
        "s3://beside/x": "beside", "gs://bucket/a/b": "google", "s3://nothing/x": None, "az://bucket/a": None,
    }.items():  # fmt: skip
        assert remote_of(locate(url), sections.values()) == (sections[name] if name else None), url
    assert remote_of(locate("s3://bucket/a"), []) is None
