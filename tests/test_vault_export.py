"""A vault back into a DVC remote or cache: what went in comes out, and plain DVC finds it."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from holdfast.objectstore.opening import open_store
from holdfast.vault.check import check_vault
from holdfast.vault.importing import Limits
from servers import ACCESS_KEY, SECRET_KEY, S3Server
from vault_remotes import (
    LEGACY,
    LEGACY_KEY,
    LEGACY_OID,
    VERSIONS,
    add_remote,
    child,
    contents,
    copy_pushed,
    flip,
    import_all,
    make_pushed,
    model,
    oid_of_version,
    opened,
    overwrite,
    place_of,
    remote,
    taken,
    tree,
    written,
)
from worlds import World, environment


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_pushed(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return copy_pushed(made, tmp_path)


def test_there_and_back(world: World) -> None:
    before = tree(remote(world))
    assert sum(key.startswith("runs/") for key in before) == VERSIONS
    done = json.loads(world.holdfast("vault", "import", "--json").stdout)
    assert (done["statistics"]["files"], done["known"], done["damaged"], done["failed"]) == (len(before), 0, [], [])
    assert tree(remote(world)) == before
    with opened(world) as vault:
        assert check_vault(vault.store, jobs=2, read_data=True).clean
    text = world.holdfast("vault", "export", "../copy").stdout
    assert text.startswith(f"{len(before)} objects exported from ")
    assert tree(world.root.parent / "copy") == before
    assert [path.name for path in world.root.parent.joinpath("copy").iterdir() if path.name.startswith(".")] == []


def test_plain_dvc_pulls_what_was_exported(world: World) -> None:
    import_all(world)
    copy = world.root.parent / "copy"
    add_remote(world, "copy", str(copy))
    world.holdfast("vault", "export", "copy")
    other = World(world.root.parent / "other", world.home)
    subprocess.run(["git", "clone", "-q", str(world.root), str(other.root)], check=True, env=environment(world.home))
    other.dvc("pull", "-q", "-r", "copy", "--run-cache")
    assert "up to date" in other.dvc("status")
    other.dvc("fetch", "-q", "-A", "-r", "copy")
    ours = {path.relative_to(world.cache).as_posix() for path in (world.cache / "files").rglob("*") if path.is_file()}
    theirs = {path.relative_to(other.cache).as_posix() for path in (other.cache / "files").rglob("*") if path.is_file()}
    assert theirs == ours
    other.git("checkout", "-q", "HEAD~2")
    other.dvc("checkout", "-q")
    assert torch.equal(torch.load(other.root / "model.pt", weights_only=True)["a.weight"], model(0)["a.weight"])
    assert [path for path in (other.cache / "runs").rglob("*") if path.is_file()]


def test_a_bucket_and_back(world: World, s3_server: S3Server) -> None:
    urls = {name: s3_server.make_folder() for name in ("bucket", "copy")}
    keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    for name, url in urls.items():
        add_remote(world, name, url, endpointurl=s3_server.endpoint, **keys)
    world.dvc("push", "-q", "-A", "--run-cache", "-r", "bucket")
    vault = f"{urls['bucket']}/vault"  # beside what it is taken from
    world.holdfast("vault", "init", vault)
    done = json.loads(world.holdfast("vault", "import", "bucket", "-r", vault, "--json").stdout)
    bucket, copy = (open_store(urls[name], s3_server.options()) for name in ("bucket", "copy"))
    there = {key: data for key, data in contents(bucket).items() if not key.startswith("vault/")}
    assert done["statistics"]["files"] == len(there) > 15
    assert list((world.folder / ".dvc/tmp/holdfast/vaults/transfers").iterdir()) == []
    world.holdfast("vault", "export", "copy", "-r", vault)
    assert contents(copy) == there
    assert "Everything is in " in world.holdfast("vault", "export", "copy", "-r", vault, "--verify").stdout
    other = World(world.root.parent / "other", world.home)
    subprocess.run(["git", "clone", "-q", str(world.root), str(other.root)], check=True, env=environment(world.home))
    other.dvc("pull", "-q", "-r", "copy")
    assert "up to date" in other.dvc("status")


def test_an_export_that_is_killed_goes_on(world: World) -> None:
    import_all(world)
    copy = world.root.parent / "copy"
    for calls in (4, 6):
        assert child(world, "export", copy, calls).returncode == -signal.SIGKILL
    assert list((copy / ".holdfast").iterdir())
    there = {
        path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file() and ".holdfast" not in path.parts
    }
    assert len(there) >= 8
    done = child(world, "export", copy, 0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(tree(remote(world))) - len(there)), str(len(there))]
    assert tree(copy) == tree(remote(world))
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_what_is_in_the_target_already(world: World) -> None:
    copy, spool = world.root.parent / "copy", world.root.parent / "spool"
    target = open_store(str(copy))
    with opened(world) as vault:
        taken(vault, open_store(str(remote(world))), world, Limits())
        written(vault, target, spool)
        short, wrong = (place_of(copy, oid_of_version(world, number)) for number in (0, 1))
        overwrite(short, short.read_bytes()[:-1])
        damaged = flip(wrong)
        unix = LEGACY.replace(b"\r\n", b"\n")  # the same to DVC 2, though not as long
        overwrite(copy / LEGACY_KEY, unix)
        report = written(vault, target, spool)
        assert (report.files, report.replaced) == (1, (short.relative_to(copy).as_posix(),))
        assert wrong.read_bytes() == damaged
        report = written(vault, target, spool, verify=True)
        assert (report.files, report.replaced) == (1, (wrong.relative_to(copy).as_posix(),))
        assert written(vault, target, spool, verify=True).files == 0
    now = tree(copy)
    assert now.pop(LEGACY_KEY)[0] == unix
    assert now == {key: item for key, item in tree(remote(world)).items() if key != LEGACY_KEY}


def test_another_run_of_the_same_name_stays(world: World) -> None:
    target = open_store("memory://")
    run = next(key for key in tree(remote(world)) if key.startswith("runs/"))
    target.put(run, b"cmd: another one\n")
    with opened(world) as vault:
        taken(vault, open_store(str(remote(world))), world, Limits())
        report = written(vault, target, world.root.parent / "spool")
    assert report.failed == ((run, "the target has another content under this name"),)
    assert target.get(run) == b"cmd: another one\n"
    assert contents(target).keys() == tree(remote(world)).keys()


def test_a_folder_is_promised_only_with_its_files(world: World) -> None:
    world.holdfast("push", "data/1.csv")  # its folder's listing, too
    copy = world.root.parent / "copy"
    done = world.holdfast("vault", "export", str(copy), code=3)
    assert "3 files of this folder not there" in done.stdout
    assert list(copy.rglob("*.dir")) == []
    assert len(tree(copy)) == 1
    add_remote(world, "copy", str(copy))
    world.dvc("push", "-q", "-r", "copy", "data")
    assert len(tree(copy)) == 5
    world.holdfast("vault", "export", str(copy))


def test_named_files_alone(world: World, tmp_path: Path) -> None:
    import_all(world)
    named = ["md5:" + oid_of_version(world, 0), LEGACY_OID]
    names, copy = tmp_path / "names", world.root.parent / "copy"
    names.write_text("\n".join([*named, "", named[0], f"md5:{'0' * 32}"]))
    done = world.holdfast("vault", "export", str(copy), "--oids-from", str(names), code=3)
    assert len(tree(copy)) == 2
    assert "not in the vault" in done.stdout
    names.write_text("model.pt\n")
    assert "is no oid" in world.holdfast("vault", "export", str(copy), "--oids-from", str(names), code=2).stderr


def test_a_blob_that_is_lost_fails_its_files_alone(world: World) -> None:
    import_all(world)
    for pack in (world.root.parent / "vault/packs").rglob("*-*"):
        data = bytearray(pack.read_bytes())
        data[5000] ^= 1
        overwrite(pack, bytes(data))
    copy = world.root.parent / "copy"
    done = world.holdfast("vault", "export", str(copy), "--json", code=3)
    assert "not exported" in done.stderr
    original = tree(remote(world))
    got = tree(copy)
    assert got
    assert got.items() <= original.items()
    report = json.loads(done.stdout)
    assert len(report["failed"]) >= 3
    assert {key for key, _ in report["failed"] + report["withheld"]} == original.keys() - got.keys()
