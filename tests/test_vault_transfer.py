"""Push, fetch, pull and status between DVC's cache and a vault: the same workspace and cache as with plain DVC."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from faults import FaultyStore, Rule
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import StoreError
from holdfast.repo.cache import object_path
from holdfast.repo.dvc import Selection
from holdfast.repo.workspace import find_project
from holdfast.vault import transfer
from holdfast.vault.repository import init_vault, open_vault
from holdfast.vault.segment import INDEX
from holdfast.vault.session import FileToPut
from servers import S3Server
from vaults import all_is_well, keys, noise, oid_of
from worlds import TOOLS, World, environment, make_repository


def model(step: int) -> dict[str, torch.Tensor]:
    """A checkpoint that is a small step from the one before."""
    torch.manual_seed(0)
    weights = {"a.weight": torch.randn(300, 400) * 0.02, "b.weight": torch.randn(100, 400) * 0.02}
    for number in range(step):
        torch.manual_seed(number + 1)
        weights = {name: value + 1e-4 * torch.randn_like(value) for name, value in weights.items()}
    return {name: value.bfloat16() for name, value in weights.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three versions of a model, a folder that changes, a pipeline."""
    world = make_repository(tmp_path_factory.mktemp("made"))
    world.write("dvc.yaml", "stages:\n  copy:\n    cmd: cp in.txt out.txt\n    deps: [in.txt]\n    outs: [out.txt]\n")
    for number in range(3):
        torch.save(model(number), world.root / "model.pt")
        for name in range(5):
            world.write(f"data/sub/{name}.csv", f"row {name}\n" * (50 + (number if name == 0 else 0)))
        world.write("in.txt", f"number {number}\n")
        world.dvc("add", "-q", "model.pt", "data")
        world.dvc("repro", "-q")
        world.commit(f"version {number}")
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy of it, with a vault beside the remote."""
    shutil.copytree(made.root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    world = World(tmp_path / "repository", tmp_path / "home")
    # not of the project: with --all-commits DVC reads the remote of each commit, and the first ones have none
    world.dvc("remote", "add", "-q", "--global", "-d", "store", str(tmp_path / "store"))
    assert "Made the vault" in world.holdfast("vault", "init").stdout
    return world


def clone(world: World, name: str) -> World:
    other = World(world.root.parent / name, world.home)
    subprocess.run(["git", "clone", "-q", str(world.root), str(other.root)], check=True, env=environment(world.home))
    return other


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".git", "tmp"} & set(path.relative_to(folder).parts)
    }


def objects(world: World) -> dict[str, int]:
    """The objects of a cache with their modes."""
    place = world.cache / "files"
    return {path.relative_to(place).as_posix(): path.stat().st_mode for path in place.rglob("*") if path.is_file()}


def test_as_plain_dvc_does_it(world: World) -> None:
    world.dvc("push", "-q", "-A")
    assert "pushed" in world.holdfast("push", "-A").stdout
    ours, theirs = clone(world, "ours"), clone(world, "theirs")
    theirs.dvc("pull", "-q")
    pulled = ours.holdfast("pull")
    assert "Added: " in pulled.stdout
    assert files(ours.root) == files(theirs.root)
    assert objects(ours) == objects(theirs)
    assert "up to date" in ours.dvc("status")
    assert ours.git("status", "--porcelain") == ""
    theirs.dvc("fetch", "-q", "-A")
    assert "fetched" in ours.holdfast("fetch", "-A").stdout
    assert objects(ours) == objects(theirs)
    ours.git("checkout", "-q", "HEAD~2")
    ours.dvc("checkout", "-q")
    assert torch.equal(torch.load(ours.root / "model.pt", weights_only=True)["a.weight"], model(0)["a.weight"])


def test_only_what_is_new_is_sent(world: World) -> None:
    first = json.loads(world.holdfast("push", "--json").stdout)
    assert first["statistics"]["files"] == 8  # a model, a listing, five members, an out
    again = world.holdfast("push").stdout
    assert again.startswith("Everything is in ")
    assert "8 objects" in again
    all_of_it = json.loads(world.holdfast("push", "-A", "--json").stdout)
    assert all_of_it["known"] == 8
    plain = json.loads(world.holdfast("push", "-A", "--json", "--no-delta", "-r", str_of_new_vault(world)).stdout)
    deltas = json.loads(world.holdfast("push", "-A", "--json", "-r", str_of_new_vault(world)).stdout)
    assert deltas["statistics"]["stored_bytes"] < 0.85 * plain["statistics"]["stored_bytes"]
    sizes = [path.stat().st_size for path in (world.root.parent / "store/vault/packs").rglob("*") if path.is_file()]
    assert first["statistics"]["stored_bytes"] + all_of_it["statistics"]["stored_bytes"] == sum(sizes)


def str_of_new_vault(world: World) -> str:
    number = len(list(world.root.parent.glob("vault_*")))
    place = world.root.parent / f"vault_{number}"
    place.mkdir()
    url = f"file://{place}"
    world.holdfast("vault", "init", url)
    return url


def test_targets_and_status(world: World) -> None:
    whole = world.holdfast("status").stdout
    assert "In the cache alone" in whole
    assert "  data/sub/0.csv" in whole
    world.holdfast("push", "data")
    assert json.loads(world.holdfast("status", "--json").stdout)["new"] == ["model.pt", "out.txt"]
    world.holdfast("push")
    assert "are in sync: 8 objects" in world.holdfast("status").stdout
    other = clone(world, "other")
    assert json.loads(other.holdfast("status", "--json").stdout)["deleted"] != []
    other.holdfast("pull", "model.pt")
    assert (other.root / "model.pt").exists()
    assert not (other.root / "data").exists()
    other.holdfast("pull", "data/sub/3.csv")
    assert files(other.root / "data") == {"sub/3.csv": (world.root / "data/sub/3.csv").read_bytes()}


def test_registered_versions_are_sent_though_dvc_does_not_track_them(world: World) -> None:
    torch.save(model(7), world.root / "candidate.pt")
    world.write(".gitignore", "/candidate.pt\n")
    world.holdfast("registry", "register", "app/name", "candidate.pt")
    world.commit("registered")
    assert json.loads(world.holdfast("push", "model.pt", "--json").stdout)["statistics"]["files"] == 1
    assert json.loads(world.holdfast("push", "--json").stdout)["statistics"]["files"] == 8
    other = clone(world, "other")
    other.holdfast("registry", "get", "app/name@v1", "-o", "got.pt")
    assert (other.root / "got.pt").read_bytes() == (world.root / "candidate.pt").read_bytes()


def test_what_is_nowhere(world: World) -> None:
    world.holdfast("push", "-A")
    lost = clone(world, "lost")
    shutil.rmtree(world.root.parent / "store" / "vault" / "index")
    done = lost.holdfast("pull", code=3)
    assert "are nowhere" in done.stderr
    assert "model.pt" in done.stderr
    fresh = clone(world, "fresh")
    shutil.rmtree(world.root.parent / "store" / "vault")
    fresh.holdfast("vault", "init")
    done = fresh.holdfast("push", code=3)
    assert "are nowhere" in done.stderr


def test_a_damaged_object_is_not_sent(world: World) -> None:
    oid = next(line.split()[-1] for line in (world.root / "model.pt.dvc").read_text().splitlines() if "md5:" in line)
    place = world.cache / "files/md5" / oid[:2] / oid[2:]
    place.chmod(0o644)
    data = bytearray(place.read_bytes())
    data[5000] ^= 1
    place.write_bytes(data)
    done = world.holdfast("push", code=3)
    assert "model.pt" in done.stderr
    assert oid in done.stderr
    other = clone(world, "other")
    assert "model.pt" in other.holdfast("pull", code=3).stderr
    other.holdfast("pull", "data", "out.txt")
    assert files(other.root / "data") == files(world.root / "data")


def test_a_damaged_older_version_is_no_base(world: World) -> None:
    world.git("checkout", "-q", "HEAD~2")
    oid = next(line.split()[-1] for line in (world.root / "model.pt.dvc").read_text().splitlines() if "md5:" in line)
    world.git("checkout", "-q", "main")
    place = world.cache / "files/md5" / oid[:2] / oid[2:]
    place.chmod(0o644)
    place.write_bytes(place.read_bytes()[:-1] + b"!")
    assert oid in world.holdfast("push", "-A", code=3).stderr
    other = clone(world, "other")
    other.holdfast("pull")
    assert (other.root / "model.pt").read_bytes() == (world.root / "model.pt").read_bytes()
    assert len(objects(other)) == 8
    other.holdfast("fetch", "-A", code=3)
    assert len(objects(other)) == 15  # all but the damaged one


def test_the_run_cache(world: World) -> None:
    world.holdfast("push", "--run-cache")
    other = clone(world, "other")
    other.holdfast("pull", "--run-cache")
    (other.root / "out.txt").unlink()
    (other.root / "dvc.lock").unlink()
    done = other.dvc("repro", "copy")
    assert "is cached" in done
    assert (other.root / "out.txt").read_text() == "number 2\n"


def test_objects_of_old_dvc(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.track("old.txt", "one\r\ntwo\r\n".replace("\r", ""), legacy=True)
    world.track("folder", {"a": "text a", "b/c": "text c"}, legacy=True)
    world.commit("old files")
    url = str_of_new_vault(world)
    assert "4 objects pushed" in world.holdfast("push", "-r", url).stdout
    other = clone(world, "other")
    other.holdfast("pull", "-r", url)
    assert files(other.root / "folder") == {"a": b"text a", "b/c": b"text c"}


def test_urls_and_where_the_vault_is(world: World) -> None:
    assert "neither a URL nor a DVC remote" in world.holdfast("push", "-r", "nowhere", code=2).stderr
    world.dvc("remote", "default", "--global", "--unset")
    assert "no vault is named" in world.holdfast("push", code=2).stderr
    assert "There is no vault in" in world.holdfast("push", "-r", f"file://{world.root.parent}/empty", code=1).stderr
    place = world.root.parent / "elsewhere"
    world.write("holdfast.yaml", f"vault:\n  url: file://{place}\n")
    world.holdfast("vault", "init")
    assert "There is a vault" in world.holdfast("vault", "init", code=1).stderr
    assert f"pushed to {place}" in world.holdfast("push").stdout
    assert "pushed" in world.holdfast("push", "-r", "store").stdout


def test_outside_of_a_project(tmp_path: Path) -> None:
    world = World(tmp_path, tmp_path)
    for verb in ("push", "pull", "fetch", "status"):
        world.holdfast(verb, code=10)


def test_in_a_bucket(world: World, s3_server: S3Server, s3_folder: str) -> None:
    variables = environment(world.home) | s3_server.environment()

    def holdfast(where: World, *arguments: str) -> str:
        done = subprocess.run(
            [str(TOOLS / "holdfast"), *arguments],
            cwd=where.root,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    holdfast(world, "vault", "init", s3_folder)
    assert "pushed" in holdfast(world, "push", "-A", "-r", s3_folder)
    other = clone(world, "other")
    holdfast(other, "pull", "-r", s3_folder)
    assert (other.root / "model.pt").read_bytes() == (world.root / "model.pt").read_bytes()
    listed = s3_server.client().list_objects_v2(
        Bucket=s3_folder.split("/")[2], Prefix="/".join(s3_folder.split("/")[3:]) + "/"
    )
    assert len(listed["Contents"]) <= 6  # config, packs, an index segment: not an object for each file


def test_many_small_files_are_few_objects(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    rng = np.random.default_rng(1)
    for number in range(500):
        world.write(f"images/{number:04}.png", rng.bytes(4000))
    world.dvc("add", "-q", "images")
    world.commit("images")
    url = str_of_new_vault(world)
    report = json.loads(world.holdfast("push", "-r", url, "--json").stdout)
    assert report["statistics"]["packs"] == 1
    assert report["statistics"]["requests"] <= 12
    other = clone(world, "other")
    other.holdfast("pull", "-r", url)
    assert files(other.root / "images") == files(world.root / "images")


@pytest.mark.parametrize("sample", [3, 5000])
def test_of_very_many_some_are_missing_and_some_damaged(
    sample: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SAMPLE_FILES", sample)
    world = make_repository(tmp_path)
    for number in range(40):
        world.write(f"images/{number:02}.png", f"number {number}\n" * 20)
    world.dvc("add", "-q", "images")
    world.commit("images")
    objects = [oid_of(f"number {number}\n".encode() * 20) for number in (20, 30)]
    lost, damaged = (object_path(world.cache, *oid.split(":")) for oid in objects)
    lost.unlink()
    damaged.chmod(0o644)
    damaged.write_text("another\n")
    told: list[tuple[int, int, int]] = []
    with init_vault(open_store(str(tmp_path / "store" / "vault")), None) as vault:
        report = transfer.push(
            vault, find_project(world.root), Selection(), progress=lambda *numbers: told.append(numbers)
        )
        assert report.missing == ("images/20.png",)
        assert [name for name, _ in report.failed] == ["images/30.png"]
        assert report.statistics.files == 39  # with the listing
        assert vault.exists(objects) == set()
    done, total, _ = told[-1]
    assert done == total == report.statistics.raw_bytes


def test_what_was_not_committed_is_not_known(tmp_path: Path) -> None:
    """Though this machine's index has taken it in by then."""
    files = [noise(50_000, number) for number in range(40)]
    oids = {oid_of(data) for data in files}
    wanted = [FileToPut(oid_of(data), tmp_path / str(number)) for number, data in enumerate(files)]
    for file, data in zip(wanted, files, strict=True):
        Path(file.path).write_bytes(data)
    store = open_store("memory://")
    init_vault(store, None).close()
    faulty = FaultyStore(store, [Rule("refuse", frozenset({"put_if_absent"}), at=1, key=INDEX)])
    with open_vault(faulty, tmp_path / "cache", jobs=1) as vault, vault.session() as session:
        assert session.put_many(wanted) == len(files)
        with pytest.raises(StoreError):
            session.commit()
        assert vault.exists(oids) == set()
    with open_vault(store, tmp_path / "cache", jobs=1) as vault:
        assert vault.exists(oids) == set()
    with open_vault(store, tmp_path / "cache", jobs=1) as vault, vault.session() as session:
        assert session.put_many(wanted) == 0  # it goes on from the one that was interrupted
        session.commit()
        assert vault.exists(oids) == oids
    with open_vault(store, tmp_path / "cache", jobs=1) as vault:
        assert vault.exists(oids) == oids
    all_is_well(store, files)


def test_no_segment_before_its_packs(tmp_path: Path) -> None:
    """The index on this machine takes in what is to be committed while the last packs are on their way."""
    data = noise(50_000, 1)
    (tmp_path / "file").write_bytes(data)
    store = open_store("memory://")
    init_vault(store, None).close()
    faulty = FaultyStore(store, [Rule("refuse", frozenset({"put"}), key="packs")])
    with open_vault(faulty, tmp_path / "cache", jobs=1) as vault, vault.session() as session:
        session.put_many([FileToPut(oid_of(data), tmp_path / "file")])
        with pytest.raises(StoreError):
            session.commit()
    assert keys(store, INDEX) == keys(store, "packs") == []
    assert not any(verb == "put_if_absent" for verb, _ in faulty.calls)
    with open_vault(store, tmp_path / "cache", jobs=1) as vault:
        assert vault.exists([oid_of(data)]) == set()
        with vault.session() as session:
            assert session.put_many([FileToPut(oid_of(data), tmp_path / "file")]) == 1
            session.commit()
    all_is_well(store, [data])
