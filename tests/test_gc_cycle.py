"""The whole cycle: plan, apply, list, restore, apply again, purge; in folders that DVC made, and in a bucket."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from forks import ForkedWorld, Forks
from gc_world import (
    NO_AGE,
    add_remote,
    age,
    apply_of,
    bucket,
    bury,
    find,
    held_of,
    make_vault,
    oid_of,
    plan_of,
    purge_of,
    push_files,
    restore_of,
    tree,
    vault_is_clean,
)
from holdfast.cli.naming import open_objects
from holdfast.repo.cache import object_path
from proxy import R2Rules, proxy
from servers import S3Server
from worlds import World, make_home, make_repository

CLEAN = "Data and pipelines are up to date."


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """DVC's own: three versions of a file, a folder, a pipeline and its run cache, all pushed to a remote and a vault."""
    folder = tmp_path_factory.mktemp("made")
    world = World(folder / "repository", make_home(folder))
    world.root.mkdir()
    world.git("init", "-q")
    world.dvc("init", "-q")
    world.dvc("remote", "add", "-q", "-d", "storage", "../store")
    world.write("holdfast.yaml", NO_AGE)
    world.write("dvc.yaml", "stages:\n  copy:\n    cmd: cp in.txt out.txt\n    deps: [in.txt]\n    outs: [out.txt]\n")
    world.write("in.txt", "input\n")
    for name in ("x", "y"):
        world.write(f"images/{name}.txt", name * 1000)
    world.write("model.bin", "kept version" * 100)
    world.dvc("add", "-q", "model.bin", "images")
    world.dvc("repro", "-q")
    world.commit("first")
    world.dvc("push", "-q", "--run-cache")
    for number in range(2):
        world.write("model.bin", f"version {number} that no commit has" * 100)
        world.dvc("add", "-q", "model.bin")
        world.dvc("push", "-q")
    world.write("images/x.txt", "a folder that no commit has")
    world.dvc("add", "-q", "images")
    world.dvc("push", "-q")
    world.holdfast("vault", "init", "../store/vault")
    world.holdfast("push")
    world.git("checkout", "-q", ".")
    world.dvc("checkout", "-q", "-f")
    world.holdfast("push")
    return world


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.fixture
def world(made: World, tmp_path: Path, forks: Forks) -> ForkedWorld:
    shutil.copytree(made.root.parent, tmp_path / "copy", symlinks=True)
    world = ForkedWorld(tmp_path / "copy/repository", tmp_path / "copy/home", forks=forks)
    age((tmp_path / "copy/store").rglob("*"))
    return world


def plan_to(world: World, name: str, *options: str) -> dict[str, object]:
    world.holdfast("gc", "plan", "-o", name, *options)
    found: dict[str, object] = json.loads((world.root / name).read_text())
    return found


def test_whole_cycle_at_the_command_line(world: World) -> None:
    store = world.root.parent / "store"
    cache_before, store_before = tree(world.cache), tree(store, apart="holdfast")
    assert CLEAN in world.dvc("status")
    plan = plan_to(world, "../plan.json", "--scope", "cache,remote,vault")
    removed = {(entry["scope"], entry["oid"]) for entry in plan["objects"]}  # type: ignore[attr-defined]
    gone = {oid_of(f"version {number} that no commit has" * 100) for number in range(2)}
    gone.add(oid_of("a folder that no commit has"))
    assert {oid for scope, oid in removed if scope == "cache" and not oid.endswith(".dir")} == gone
    assert {oid for scope, oid in removed if scope == "remote"} == {oid for scope, oid in removed if scope == "cache"}
    # the vault was sent the last of the versions alone
    assert oid_of("version 1 that no commit has" * 100) in {oid for scope, oid in removed if scope == "vault"}

    refused = world.holdfast("gc", "apply", "../plan.json", code=2)
    assert "lie nowhere else" in refused.stderr
    assert "--allow-last-copy" in refused.stderr
    assert tree(world.cache) == cache_before
    assert tree(store) == store_before

    done = world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy").stdout
    assert "cache: 4 objects of" in done
    assert "remote storage: 4 objects of" in done
    assert "vault: 3 files let go" in done
    assert not any(oid in path.replace("/", "") for oid in gone for path in tree(world.cache))
    assert CLEAN in world.dvc("status")
    assert "Cache and remote 'storage' are in sync." in world.dvc("status", "-c")
    assert "in sync" in world.holdfast("status").stdout.lower() or "Everything" in world.holdfast("status").stdout
    vault_is_clean(str(store / "vault"))

    held = json.loads(world.holdfast("gc", "list", "--json").stdout)["held"]
    assert {(one["scope"], one["plan"]) for one in held} == {
        (scope, plan["digest"]) for scope in ("cache", "remote", "vault")
    }
    text = world.holdfast("gc", "list").stdout
    assert text.startswith("11 objects of ")
    assert str(plan["digest"])[:12] in text
    assert world.holdfast("gc", "list", "--local").stdout.startswith("4 objects of ")

    back = world.holdfast("gc", "restore", str(plan["digest"])[:12]).stdout
    assert back.startswith("11 objects of ")
    assert tree(world.cache) == cache_before
    files = {path: found for path, found in tree(store).items() if not path.startswith("vault/")}
    assert files == {path: found for path, found in store_before.items() if not path.startswith("vault/")}
    assert world.holdfast("gc", "list").stdout == "Nothing waits in a quarantine.\n"
    vault_is_clean(str(store / "vault"))
    # what was let go, and came back, can go again, once the two hours that a claim counts are over
    age(path for path in store.rglob("*") if "vault" in path.parts)
    again = plan_to(world, "../again.json", "--scope", "cache,remote,vault")
    assert {(entry["scope"], entry["oid"]) for entry in again["objects"]} == removed  # type: ignore[attr-defined]
    world.holdfast("gc", "apply", "../again.json", "--allow-last-copy")
    dry = world.holdfast("gc", "purge", "--dry-run", "--older-than", "3d").stdout
    assert dry == "Nothing to delete.\n11 objects must wait longer.\n"
    assert world.holdfast("gc", "purge", "--dry-run", "--older-than", "0d").stdout.startswith("Would delete 11 objects")
    asked = world.holdfast("gc", "purge", code=130)
    assert "Delete 11 objects of" in asked.stderr
    assert world.holdfast("gc", "purge", "-y").stdout.startswith("Deleted 11 objects of ")
    assert world.holdfast("gc", "list").stdout == "Nothing waits in a quarantine.\n"
    assert world.holdfast("gc", "purge", "-y").stdout == "Nothing to delete.\n"
    assert CLEAN in world.dvc("status")
    assert "Cache and remote 'storage' are in sync." in world.dvc("status", "-c")
    vault_is_clean(str(store / "vault"))
    # all that commits need comes out of the vault, and out of the remote
    shutil.rmtree(world.cache)
    world.holdfast("pull")
    assert CLEAN in world.dvc("status")
    shutil.rmtree(world.cache)
    world.dvc("pull", "-q")
    assert (world.root / "model.bin").read_text() == "kept version" * 100


def test_restoring_by_plan_object_path_and_pattern(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write("holdfast.yaml", NO_AGE)
    base = world.commit("base")
    for name in ("a.bin", "models/one.pt", "models/two.pt", "logs/x.txt"):
        world.track(name, f"content of {name}")
    world.commit("lost")
    world.git("reset", "-q", "--hard", base)
    world.store("nobody's")
    before = tree(world.cache)
    apply_of(world, plan_of(world))
    assert tree(world.cache) == {}
    assert [one.names for one in held_of(world) if one.oid == oid_of("content of a.bin")] == [("a.bin",)]

    def back(*targets: str) -> set[str]:
        return {name for one in restore_of(world, *targets).held for name in one.names or (one.oid,)}

    assert back("models/*.pt") == {"models/one.pt", "models/two.pt"}
    assert back("a.bin") == {"a.bin"}
    assert back(oid_of("nobody's")[:6]) == {oid_of("nobody's")}
    assert back("logs/") == {"logs/x.txt"}
    assert tree(world.cache) == before
    again = apply_of(world, plan_of(world))
    assert back("models") == {"models/one.pt", "models/two.pt"}
    assert back(again.plan[:8]) == {"a.bin", "logs/x.txt", oid_of("nobody's")}
    assert tree(world.cache) == before
    for target in (oid_of("nobody's")[:5], "models/three.pt", "f" * 12):
        unknown = world.holdfast("gc", "restore", target, code=2)
        assert f"nothing that waits is called {target}" in unknown.stderr
        assert "holdfast gc list" in unknown.stderr


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    (oid,) = bury(world, "nobody's")
    apply_of(world, plan_of(world))
    path = object_path(world.cache, "md5", oid)
    path.write_text("damaged meanwhile")
    done = restore_of(world, oid)
    assert [pair[0] for pair in done.left] == [f"files/md5/{oid[:2]}/{oid[2:]}"]
    assert path.read_text() == "damaged meanwhile"
    assert "was left as it is" in world.holdfast("gc", "restore", oid[:8], code=3).stderr
    path.unlink()
    assert len(restore_of(world, oid).held) == 1
    assert path.read_text() == "nobody's"


def test_linked_workspace_stays_linked(tmp_path: Path) -> None:
    """DVC links the workspace to its cache; what goes and comes back is the same file."""
    world = make_repository(tmp_path)
    world.write("holdfast.yaml", NO_AGE)
    (oid,) = bury(world, "nobody's")
    path = object_path(world.cache, "md5", oid)
    (world.root / "linked.bin").hardlink_to(path)
    before = tree(world.cache)
    apply_of(world, plan_of(world))
    restore_of(world, oid)
    assert tree(world.cache) == before
    assert path.stat().st_ino == (world.root / "linked.bin").stat().st_ino


@pytest.fixture(params=["s3", "r2"])
def s3_link(request: pytest.FixtureRequest, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The variables that lead to a server; as strict as R2, too."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    if request.param == "s3":
        yield
        return
    with proxy(s3_server.port) as link:
        rules = R2Rules()
        link.rules, link.noted = rules, rules.noted
        monkeypatch.setenv("AWS_ENDPOINT_URL", link.endpoint)
        yield


@pytest.mark.usefixtures("s3_link")
def test_whole_cycle_in_a_bucket(tmp_path: Path, s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.vault.claims.FLOOR", timedelta(minutes=-1))
    world = make_repository(tmp_path)
    world.write("holdfast.yaml", NO_AGE)
    add_remote(world, "s3", s3_folder, default=True)
    world.track("data.csv", "tracked")
    world.commit()
    store = open_objects(s3_folder)
    texts = ["tracked", *(f"nobody's {number}" for number in range(30))]
    for text in texts:
        oid = oid_of(text)
        store.put(f"files/md5/{oid[:2]}/{oid[2:]}", text.encode())
    store.put(f"{oid_of('old')[:2]}/{oid_of('old')[2:]}", b"old")
    make_vault(f"{s3_folder}/vault")
    push_files(f"{s3_folder}/vault", *texts)
    before = bucket(s3_folder, apart=("holdfast/", "vault/"))
    remotes, vaults = ("s3",), ("",)
    plan = plan_of(world, "remote", "vault", remotes=remotes, vaults=vaults)
    assert len(plan.removed) == 61
    done = apply_of(world, plan)
    assert [(taken.scope, taken.objects, taken.left) for taken in done.taken] == [("remote", 31, ()), ("vault", 30, ())]
    assert set(bucket(s3_folder, apart=("holdfast/", "vault/"))) == {
        f"files/md5/{oid_of('tracked')[:2]}/{oid_of('tracked')[2:]}"
    }
    assert len(held_of(world, remotes, vaults)) == 61
    assert len(restore_of(world, done.plan, remotes=remotes, vaults=vaults).held) == 61
    assert bucket(s3_folder, apart=("holdfast/", "vault/")) == before
    assert held_of(world, remotes, vaults) == []
    vault_is_clean(f"{s3_folder}/vault")
    apply_of(world, plan_of(world, "remote", "vault", remotes=remotes, vaults=vaults))
    assert purge_of(world, remotes=remotes, vaults=vaults, days=1).young == 61
    gone = purge_of(world, remotes=remotes, vaults=vaults)
    assert (len(gone.held), len(gone.rescued), gone.young) == (61, 0, 0)
    left = bucket(s3_folder, apart=("vault/",))
    assert not any(key.startswith("holdfast/quarantine/") and "/things/" in key for key in left)
    assert find(plan_of(world, "remote", remotes=remotes), oid_of("tracked"), scope="remote", place="s3").kept
    vault_is_clean(f"{s3_folder}/vault")


def test_a_pull_says_what_waits(world: World) -> None:
    commit = world.git("rev-parse", "HEAD")
    plan_to(world, "../plan.json", "--scope", "cache,remote,vault")
    world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy")
    # somebody brings a commit back that needs what went
    world.write("model.bin", "version 1 that no commit has" * 100)
    oid = oid_of("version 1 that no commit has" * 100)
    pointer = (world.root / "model.bin.dvc").read_text()
    known = next(line.split()[-1] for line in pointer.splitlines() if "md5:" in line and "hash" not in line)
    world.write("model.bin.dvc", pointer.replace(known, oid))
    (world.root / "model.bin").unlink()
    told = world.holdfast("pull", "model.bin.dvc").stdout
    assert "A collection let go of 1 object of these, and the quarantine will end: model.bin." in told
    assert (world.root / "model.bin").read_text() == "version 1 that no commit has" * 100
    # the same where only the cache's quarantine has it
    shutil.rmtree(world.root.parent / "store/vault")
    make_vault(world.root.parent / "store/vault")
    object_path(world.cache, "md5", oid).unlink()
    (world.root / "model.bin").unlink()
    failed = world.holdfast("pull", "model.bin.dvc", code=3)
    assert f"holdfast gc restore {oid[:12]}" in failed.stderr
    world.holdfast("gc", "restore", oid[:12])
    world.dvc("checkout", "-q")
    assert (world.root / "model.bin").read_text() == "version 1 that no commit has" * 100
    assert commit == world.git("rev-parse", "HEAD")


def test_send_and_apply_between_dvcs_own_commands(world: World) -> None:
    """`dvc add` and `dvc push` of an object between plan and apply: it is not lost, nor is the plan carried out."""
    text = "version 1 that no commit has" * 100
    plan_to(world, "../plan.json", "--scope", "cache,remote")
    world.write("model.bin", text)
    world.dvc("add", "-q", "model.bin")
    world.dvc("push", "-q")
    refused = world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy", code=14)
    assert len(refused.stderr.splitlines()) == 1
    assert object_path(world.cache, "md5", oid_of(text)).is_file()
    assert object_path(world.root.parent / "store", "md5", oid_of(text)).is_file()
    # it is pushed when it is gone already, as DVC skips what it believes to be there
    world.git("checkout", "-q", "model.bin.dvc")
    plan_to(world, "../plan.json", "--scope", "cache,remote")
    world.holdfast("gc", "apply", "../plan.json", "--allow-last-copy")
    world.write("model.bin", text)
    world.dvc("add", "-q", "model.bin")
    world.dvc("push", "-q")
    world.commit("needs it again")
    assert object_path(world.root.parent / "store", "md5", oid_of(text)).is_file()
    purged = world.holdfast("gc", "purge", "-y").stdout
    assert "came back" in purged
    assert object_path(world.root.parent / "store", "md5", oid_of(text)).read_text() == text
    assert CLEAN in world.dvc("status")
