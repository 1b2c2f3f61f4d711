"""Plans for remotes and vaults: what is listed, what keeps it, and which copies are the last ones."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from faults import FaultyStore
from gc_world import (
    NO_AGE,
    add_remote,
    age,
    apply_of,
    bury,
    find,
    keys,
    make_vault,
    oid_of,
    places,
    plan_of,
    push_files,
    send,
)
from holdfast.cli.naming import open_objects
from holdfast.gc.plan import Plan, Request
from holdfast.gc.planned import PlannedObject
from holdfast.gc.planning import make_plan
from holdfast.gc.stores import UnknownCommitsError
from holdfast.gc.world import Remote
from holdfast.objectstore.store import ObjectInfo
from holdfast.repo.cache import object_path
from holdfast.repo.remotes import UnreachableRemoteError
from servers import S3Server
from worlds import World, make_repository, run


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A project with a tracked file, and a default remote that is a folder and has it."""
    world = make_repository(tmp_path)
    (tmp_path / "store").mkdir()
    add_remote(world, "storage", str(tmp_path / "store"), default=True)
    world.write("holdfast.yaml", NO_AGE)
    oid = world.track("data.csv", "tracked")
    send(world, tmp_path / "store", oid)
    world.commit()
    return world


def last(plan: Plan) -> dict[tuple[str, str, str], bool | None]:
    return {(entry.scope, entry.place, entry.oid): entry.last_copy for entry in plan.removed}


def lines(plan: Plan, scope: str) -> list[PlannedObject]:
    return [entry for entry in plan.objects if entry.scope == scope]


# --- determinism and forms ----------------------------------------------------------------------------------------


def test_the_same_bytes_twice(world: World, tmp_path: Path) -> None:
    oids = bury(world, "one", "two", "three")
    send(world, tmp_path / "store", *oids)
    make_vault(tmp_path / "store/vault")
    push_files(tmp_path / "store/vault", "one", "two", "tracked")
    asked = {"remotes": ("storage",), "vaults": ("",)}
    plans = [plan_of(world, "cache", "remote", "vault", **asked) for _ in range(3)]
    assert len({plan.to_file() for plan in plans}) == 1
    assert len({json.dumps(plan.to_json()) for plan in plans}) == 1
    assert len(plans[0].removed) == 8
    assert len({plan.digest for plan in plans}) == 1


def test_the_command_writes_what_it_prints(world: World) -> None:
    bury(world, "one", "two")
    plans = []
    for name in ("a.json", "b.json"):
        done = world.holdfast("gc", "plan", "-o", f"../{name}", "--json", "--only", "removed")
        written, printed = json.loads((world.root.parent / name).read_text()), json.loads(done.stdout)
        assert written == printed
        for entry in written["objects"]:
            del entry["age_days"]
        plans.append({key: value for key, value in written.items() if key not in ("time", "digest")})
    assert plans[0] == plans[1]
    assert [entry["last_copy"] for entry in plans[0]["objects"]] == [True, True]


def test_only_explain_and_markdown(world: World) -> None:
    gone = world.store("nobody's")
    folder = world.track("images", {"a.png": "image a", "b.png": "image b"})
    world.commit("images")
    kept = json.loads(world.holdfast("gc", "plan", "--only", "kept", "--json").stdout)
    assert {entry["oid"] for entry in kept["objects"]} == {
        oid_of("tracked"),
        folder,
        oid_of("image a"),
        oid_of("image b"),
    }
    assert {total["tier"] for total in kept["totals"]} == {"keep", "remove"}
    text = world.holdfast("gc", "plan", "--only", "removed").stdout
    assert gone[:8] in text
    assert "Kept" not in text
    for name in (gone[:6], gone):
        explained = world.holdfast("gc", "plan", "--explain", name).stdout
        assert f"{gone[2:]} in DVC's cache: could be removed, nothing names it." in explained
        assert "the last copy known" in explained
    by_path = world.holdfast("gc", "plan", "--explain", "images/*.png").stdout
    assert by_path.startswith("2 objects for images/*.png.\n")
    assert "images/a.png: workspace" in by_path
    assert (
        json.loads(world.holdfast("gc", "plan", "--explain", "images", "--json").stdout)["objects"][0]["oid"] == folder
    )
    unknown = world.holdfast("gc", "plan", "--explain", "nothing.bin", code=2)
    assert "the plan has no object called nothing.bin" in unknown.stderr
    markdown = world.holdfast("gc", "plan", "--md").stdout
    assert "**Could be removed**" in markdown
    assert f"| {gone[:8]} |" in markdown


def test_several_scopes_say_where(world: World, tmp_path: Path) -> None:
    send(world, tmp_path / "store", *bury(world, "nobody's"))
    text = world.holdfast("gc", "plan", "--scope", "cache,remote").stdout
    assert " object     where" in text
    assert "remote storage" in text
    assert "are the last copies known" in text
    assert "a month on R2" in text
    assert "where" not in world.holdfast("gc", "plan", "--only", "removed").stdout


# --- copies -------------------------------------------------------------------------------------------------------


def test_a_copy_in_the_remote_or_the_vault_is_one(world: World, tmp_path: Path) -> None:
    alone, remote, vault = bury(world, "alone", "in the remote", "in the vault")
    send(world, tmp_path / "store", remote)
    make_vault(tmp_path / "store/vault")
    push_files(tmp_path / "store/vault", "in the vault")
    plan = plan_of(world)
    assert last(plan) == {("cache", "", alone): True, ("cache", "", remote): False, ("cache", "", vault): False}
    assert plan.last_copies == [find(plan, alone)]
    # of the remote, the cache has a copy; and what is gone from the cache is the last one there
    plan = plan_of(world, "remote", remotes=("storage",))
    assert last(plan) == {("remote", "storage", remote): False}
    object_path(world.cache, "md5", remote).unlink()
    assert last(plan_of(world, "remote", remotes=("storage",))) == {("remote", "storage", remote): True}
    plan = plan_of(world, "vault", vaults=("",))
    assert last(plan) == {("vault", "", vault): False}
    object_path(world.cache, "md5", vault).unlink()
    assert last(plan_of(world, "vault", vaults=("",))) == {("vault", "", vault): True}


def test_what_leaves_two_places_at_once_leaves_a_last_copy(world: World, tmp_path: Path) -> None:
    both, three = bury(world, "in both", "in all three")
    send(world, tmp_path / "store", both, three)
    make_vault(tmp_path / "store/vault")
    push_files(tmp_path / "store/vault", "in all three")
    plan = plan_of(world, "cache", "remote", remotes=("storage",))
    assert last(plan) == {
        ("cache", "", both): True,
        ("remote", "storage", both): True,
        ("cache", "", three): False,
        ("remote", "storage", three): False,
    }
    plan = plan_of(world, "cache", "remote", "vault", remotes=("storage",), vaults=("",))
    assert set(last(plan).values()) == {True}


def test_what_stays_elsewhere_is_a_copy_though_it_is_judged_too(world: World, tmp_path: Path) -> None:
    (oid,) = bury(world, "old here, new there")
    send(world, tmp_path / "store", oid)
    world.write("holdfast.yaml", "gc:\n  minimum_age: 3d\n")
    written = object_path(world.cache, "md5", oid).stat().st_ctime
    day = 86400
    os.utime(object_path(tmp_path / "store", "md5", oid), (written + 2 * day, written + 2 * day))
    plan = plan_of(world, "cache", "remote", remotes=("storage",), now=written + 4 * day)
    assert last(plan) == {("cache", "", oid): False}
    assert find(plan, oid, scope="remote", place="storage").reason == "young"


def test_what_a_vault_has_let_go_is_no_copy(world: World, tmp_path: Path) -> None:
    (oid,) = bury(world, "let go")
    make_vault(tmp_path / "store/vault")
    push_files(tmp_path / "store/vault", "let go", "tracked")
    assert last(plan_of(world)) == {("cache", "", oid): False}
    apply_of(world, plan_of(world, "vault", vaults=("",)))
    assert last(plan_of(world)) == {("cache", "", oid): True}


def test_offline_nobody_is_asked(world: World, tmp_path: Path) -> None:
    (oid,) = bury(world, "in the remote")
    send(world, tmp_path / "store", oid)
    (tmp_path / "store").rename(tmp_path / "away")
    asked = plan_of(world)
    assert last(asked) == {("cache", "", oid): True}
    assert any(note.startswith("the remote storage was not asked for copies") for note in asked.notes)
    offline = plan_of(world, offline=True)
    assert last(offline) == {("cache", "", oid): True}
    assert offline.notes == ("No other place was asked: what is not in the cache counts as the last copy",)


def test_one_remote_with_two_names_is_one_place(world: World, tmp_path: Path) -> None:
    (oid,) = bury(world, "in the remote")
    send(world, tmp_path / "store", oid)
    object_path(world.cache, "md5", oid).unlink()
    add_remote(world, "same", str(tmp_path / "store"))
    assert last(plan_of(world, "remote", remotes=("same",))) == {("remote", "same", oid): True}


def test_two_remotes(world: World, tmp_path: Path) -> None:
    one, two, both = bury(world, "one", "two", "both")
    for oid in (one, two, both):
        object_path(world.cache, "md5", oid).chmod(0o644)
    send(world, tmp_path / "store", one, both)
    send(world, tmp_path / "other", two, both)
    add_remote(world, "other", str(tmp_path / "other"))
    for oid in (one, two, both):
        object_path(world.cache, "md5", oid).unlink()
    plan = plan_of(world, "remote", remotes=("storage", "other"))
    assert last(plan) == {
        ("remote", "storage", one): True,
        ("remote", "other", two): True,
        ("remote", "storage", both): True,
        ("remote", "other", both): True,
    }
    assert {total.place for total in plan.totals} == {"storage", "other"}
    # the default remote is asked though another one is looked at
    assert last(plan_of(world, "remote", remotes=("other",))) == {
        ("remote", "other", two): True,
        ("remote", "other", both): False,
    }


# --- what names objects -------------------------------------------------------------------------------------------


def test_legacy_objects_of_a_remote(world: World, tmp_path: Path) -> None:
    tracked = world.track("old.csv", "a,b\n1,2\n", legacy=True)
    world.commit("legacy")
    gone = world.store("old and gone", legacy=True)
    # the same md5 in the place of DVC 3 is another object
    same = world.store("a,b\n1,2\n")
    send(world, tmp_path / "store", tracked, gone, legacy=True)
    send(world, tmp_path / "store", same)
    plan = plan_of(world, "remote", remotes=("storage",))
    entry = find(plan, tracked, "md5-dos2unix", "remote", "storage")
    assert (entry.kept, entry.path, entry.names[0].path) == (True, f"{tracked[:2]}/{tracked[2:]}", "old.csv")
    assert keys(plan.removed) == {("md5-dos2unix", gone), ("md5", same)}
    assert last(plan)["remote", "storage", gone] is False


def test_what_has_no_name_of_dvcs_is_no_object(world: World, tmp_path: Path) -> None:
    oid = oid_of("nobody's")
    for path in (f"files/md5/{oid[:2]}/{oid[2:]}.tmp", f"{oid[:2]}/{oid[2:]}x", f"files/md5/{oid[:2]}/{oid[2:]}/deep"):
        place = tmp_path / "store" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"of somebody else")
    plan = plan_of(world, "remote", remotes=("storage",))
    assert keys(plan.objects) == {("md5", oid_of("tracked"))}


def test_folders_listing_that_only_the_remote_has(world: World, tmp_path: Path) -> None:
    listing = world.track("images", {"a.png": "image a", "b.png": "image b"})
    world.commit("images")
    send(world, tmp_path / "store", listing, oid_of("image a"), oid_of("image b"), *bury(world, "nobody's"))
    for oid in (listing, oid_of("image a")):
        object_path(world.cache, "md5", oid).unlink()
    plan = plan_of(world, "remote", remotes=("storage",))
    assert keys(plan.removed) == {("md5", oid_of("nobody's"))}
    assert find(plan, oid_of("image a"), scope="remote", place="storage").names[0].path == "images/a.png"
    assert not plan.doubts
    # damaged there, too: nobody knows what is in the folder
    path = object_path(tmp_path / "store", "md5", listing)
    path.chmod(0o644)
    path.write_text("[{")
    plan = plan_of(world, "remote", remotes=("storage",))
    assert find(plan, oid_of("image a"), scope="remote", place="storage").reason == "undecided"
    assert len(plan.doubts) == 1


def test_folders_listing_that_only_the_vault_has(world: World, tmp_path: Path) -> None:
    listing = world.track("images", {"a.png": "image a", "b.png": "image b"})
    world.commit("images")
    text = object_path(world.cache, "md5", listing).read_text()
    make_vault(tmp_path / "store/vault")
    push_files(tmp_path / "store/vault", "image a", "image b", "nobody's", listings=[text])
    for oid in (listing, oid_of("image a"), oid_of("image b")):
        object_path(world.cache, "md5", oid).unlink()
    plan = plan_of(world, "vault", vaults=("",))
    assert keys(plan.removed) == {("md5", oid_of("nobody's"))}
    assert find(plan, oid_of("image b"), scope="vault").names[0].path == "images/b.png"
    assert not plan.doubts


def test_run_cache_that_only_the_vault_has(world: World, tmp_path: Path) -> None:
    world.dvc("remote", "list")  # DVC itself reads what we wrote
    world.remember_run({"out.bin": "remembered"})
    world.holdfast("vault", "init", str(tmp_path / "store/vault"))
    world.holdfast("push", "--run-cache")
    push_files(tmp_path / "store/vault", "remembered", "nobody's")
    age((tmp_path / "store/vault").rglob("*"))
    for path in (world.cache / "runs").rglob("*"):
        if path.is_file():
            path.unlink()
    plan = plan_of(world, "vault", vaults=("",))
    assert keys(plan.removed) == {("md5", oid_of("nobody's"))}
    assert find(plan, oid_of("remembered"), scope="vault").reason == "run cache"
    assert [entry.why for entry in lines(plan, "vault") if entry.hash_name == "runs"] == ["an entry of DVC's run cache"]
    ignored = plan_of(world, "vault", vaults=("",), ignore_run_cache=True)
    assert {entry.hash_name for entry in ignored.removed} == {"runs", "md5"}
    assert oid_of("remembered") in {entry.oid for entry in ignored.removed}


# --- a bucket -----------------------------------------------------------------------------------------------------


def test_a_plain_remote_and_a_vault_in_one_bucket(
    world: World, s3_server: S3Server, s3_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    # a vault keeps for two hours what it told anybody of, and a bucket's times cannot be set
    monkeypatch.setattr("holdfast.vault.claims.FLOOR", timedelta(minutes=-1))
    add_remote(world, "s3", s3_folder)
    store = open_objects(s3_folder)
    for text in ("tracked", "nobody's", "in the bucket alone"):
        oid = oid_of(text)
        store.put(f"files/md5/{oid[:2]}/{oid[2:]}", text.encode())
    legacy = oid_of("of DVC 2")
    store.put(f"{legacy[:2]}/{legacy[2:]}", b"of DVC 2")
    store.put("notes/readme.txt", b"of somebody else")
    make_vault(f"{s3_folder}/vault")
    push_files(f"{s3_folder}/vault", "tracked", "nobody's")
    bury(world, "nobody's")
    plan = plan_of(world, "cache", "remote", "vault", remotes=("s3",), vaults=("s3",))
    assert keys(lines(plan, "remote")) == {
        ("md5", oid_of("tracked")),
        ("md5", oid_of("nobody's")),
        ("md5", oid_of("in the bucket alone")),
        ("md5-dos2unix", legacy),
    }
    assert {(entry.scope, entry.oid) for entry in plan.removed if entry.scope != "cache"} == {
        ("remote", oid_of("nobody's")),
        ("remote", oid_of("in the bucket alone")),
        ("remote", legacy),
        ("vault", oid_of("nobody's")),
    }
    assert all(entry.stamp for entry in plan.removed if entry.scope == "remote")
    assert set(last(plan).values()) == {True}
    assert last(plan_of(world, "remote", remotes=("s3",)))["remote", "s3", oid_of("nobody's")] is False


# --- git's remotes ------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(world: World, tmp_path: Path) -> tuple[World, World]:
    """Two clones of a bare repository; the second has pushed a branch that the first has not fetched."""
    run(["git", "clone", "-q", "--bare", str(world.root), str(tmp_path / "hub")], tmp_path, world.home)
    world.git("remote", "add", "origin", str(tmp_path / "hub"))
    world.git("fetch", "-q", "origin")
    run(["git", "clone", "-q", str(tmp_path / "hub"), str(tmp_path / "second")], tmp_path, world.home)
    second = World(tmp_path / "second", world.home)
    oid = world.store("of the other clone")
    send(world, tmp_path / "store", oid)
    second.git("checkout", "-q", "-b", "theirs")
    second.write("new.bin.dvc", f"outs:\n- md5: {oid}\n  hash: md5\n  path: new.bin\n")
    second.commit("theirs")
    second.git("push", "-q", "origin", "theirs")
    return world, second


def test_commits_that_are_not_here_refuse_a_plan_for_a_remote(shared: tuple[World, World], tmp_path: Path) -> None:
    world, second = shared
    with pytest.raises(UnknownCommitsError) as raised:
        plan_of(world, "remote", remotes=("storage",))
    assert raised.value.message.startswith(f"origin has refs/heads/theirs at {second.git('rev-parse', 'theirs')[:8]}")
    command = "git fetch origin '+refs/heads/*:refs/remotes/origin/*'"
    assert command in (raised.value.hint or "")
    # the cache is nobody else's
    assert keys(plan_of(world).removed) == {("md5", oid_of("of the other clone"))}
    make_vault(tmp_path / "store/vault")
    with pytest.raises(UnknownCommitsError):
        plan_of(world, "vault", vaults=("",))
    offline = plan_of(world, "remote", remotes=("storage",), offline=True)
    assert "No git remote was asked: what only commits elsewhere need is not known" in offline.notes
    run(["sh", "-c", command], world.root, world.home)
    plan = plan_of(world, "remote", remotes=("storage",))
    assert find(plan, oid_of("of the other clone"), scope="remote", place="storage").why == "branch origin/theirs"


def test_a_commit_that_is_here_but_that_no_ref_reaches_is_missing(shared: tuple[World, World]) -> None:
    world, second = shared
    world.git("fetch", "-q", str(second.root), "theirs")
    (world.root / ".git/FETCH_HEAD").unlink()
    with pytest.raises(UnknownCommitsError):
        plan_of(world, "remote", remotes=("storage",))
    # refs that the policy lets go are known all the same
    world.git("branch", "theirs", second.git("rev-parse", "theirs"))
    world.write("holdfast.yaml", NO_AGE + "  keep:\n    branches: [main]\n")
    plan = plan_of(world, "remote", remotes=("storage",))
    assert find(plan, oid_of("of the other clone"), scope="remote", place="storage").reason == "policy"


def test_a_git_remote_that_does_not_answer_is_named(shared: tuple[World, World], tmp_path: Path) -> None:
    world, _ = shared
    (tmp_path / "hub").rename(tmp_path / "gone")
    with pytest.raises(UnreachableRemoteError, match="the git remote origin does not answer"):
        plan_of(world, "remote", remotes=("storage",))
    done = world.holdfast("gc", "plan", "--scope", "remote", code=1)
    assert len(done.stderr.splitlines()) == 1
    plan_of(world, "remote", remotes=("storage",), offline=True)


# --- clocks -------------------------------------------------------------------------------------------------------


class Behind(FaultyStore):
    """A store whose clock is three weeks behind."""

    def head(self, key: str) -> ObjectInfo:
        return _earlier(super().head(key))

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        return map(_earlier, super().list_objects(prefix, after=after))


def _earlier(info: ObjectInfo) -> ObjectInfo:
    return replace(info, modified=info.modified - timedelta(days=21))


def test_a_remote_is_judged_by_its_own_clock(world: World) -> None:
    world.write("holdfast.yaml", "gc:\n  minimum_age: 14d\n")
    oid = oid_of("just sent")
    store = Behind(open_objects("memory://"))
    store.put(f"files/md5/{oid[:2]}/{oid[2:]}", b"just sent")
    with places(world) as found:
        found.open_remote = lambda name: Remote(name, store)
        request = Request(("remote",), remotes=("storage",))
        entry = find(make_plan(found, request, now=time.time()), oid, scope="remote", place="storage")
        later = find(make_plan(found, request, now=time.time() + 15 * 86400), oid, scope="remote", place="storage")
    assert (entry.reason, entry.age_days) == ("young", 0.0)
    assert (later.kept, round(later.age_days)) == (False, 15)
