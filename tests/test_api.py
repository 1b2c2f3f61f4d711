"""Holdfast from Python: what a program gets without the command line."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import UsageError
from holdfast.objectstore.opening import open_store
from holdfast.vault.explain import explain_file
from holdfast.vault.oids import InvalidOidError
from holdfast.vault.repository import NoVaultError, UnknownFileError, open_vault
from servers import S3Server
from vaults import bf16_history, noise


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a project nor at home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_files_in_and_out(tmp_path: Path) -> None:
    data = noise(300_000, 1)
    (tmp_path / "model.bin").write_bytes(data)
    with holdfast.Vault(tmp_path / "vault", create=True) as vault:
        oid = vault.put_file("model.bin")
        assert oid == f"md5:{hashlib.md5(data).hexdigest()}"
        assert vault.put_file(tmp_path / "model.bin") == oid
        assert vault.get_file(oid, tmp_path / "copy.bin") == len(data)
    assert (tmp_path / "copy.bin").read_bytes() == data
    with holdfast.Vault(str(tmp_path / "vault")) as vault:  # somebody else
        assert vault.exists(oid)
        assert vault.exists(oid.removeprefix("md5:"))
        assert vault.existing([oid, "0" * 32]) == {oid}
        assert not vault.exists("md5:" + "0" * 32)
        with vault.open(oid) as stream:
            assert stream.seekable()
            assert stream.seek(-100, 2) == len(data) - 100
            assert stream.read() == data[-100:]
            stream.seek(1000)
            assert stream.read(70_000) == data[1000:71_000]


def test_versions_are_stored_against_one_another(tmp_path: Path) -> None:
    versions = bf16_history(3)
    for number, data in enumerate(versions):
        (tmp_path / f"{number}.safetensors").write_bytes(data)
    url = tmp_path / "vault"
    with holdfast.Vault(url, create=True) as vault:
        oids = list(vault.put_files(["0.safetensors", "1.safetensors"]).values())
    with holdfast.Vault(url) as vault:
        oids.append(vault.put_file("2.safetensors"))  # found by its tensors, days later
        named = vault.put_file("2.safetensors", base=oids[0])
        assert named == oids[2]
    with open_vault(open_store(str(url)), None) as inner:
        depths = [explain_file(inner, oid).depth for oid in oids]
    assert depths[0] == 0
    assert min(depths[1:]) >= 1


def test_a_file_that_is_not_there_and_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NoVaultError, match="vault init"):
        holdfast.Vault(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(UsageError):
        holdfast.Vault("ftp://host/vault")
    with holdfast.Vault(tmp_path / "vault", create=True) as vault:
        with pytest.raises(UnknownFileError):
            vault.get_file("0" * 32, tmp_path / "x")
        with pytest.raises(InvalidOidError):
            vault.open("model.pt")
        with pytest.raises(InvalidOidError):
            vault.exists("../etc/passwd")
        with pytest.raises(FileNotFoundError):
            vault.put_file("missing.bin")
        assert not (tmp_path / "x").exists()


def test_in_a_bucket(s3_server: S3Server, s3_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    (tmp_path / "a").write_bytes(noise(100_000, 2))
    with holdfast.Vault(f"{s3_folder}/vault", create=True) as vault:
        oid = vault.put_file("a")
        with vault.open(oid) as stream:
            assert stream.read() == (tmp_path / "a").read_bytes()


def test_importing_holdfast_imports_little() -> None:
    program = "import sys, holdfast; print(sorted(n for n in sys.modules if n.split('.')[0] in ('numpy', 'obstore', 'dvc', 'click')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert {"Vault", "load_registry"} <= set(dir(holdfast))
    with pytest.raises(AttributeError):
        holdfast.nothing  # noqa: B018
