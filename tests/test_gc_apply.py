"""Applying a plan: what makes it stale, what it refuses, and what a purge brings back."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gc_world import (
    NO_AGE,
    NOW,
    add_remote,
    age,
    apply_of,
    bury,
    held_of,
    make_vault,
    oid_of,
    places,
    plan_of,
    purge_of,
    push_files,
    restore_of,
    send,
    tree,
    vault_is_clean,
)
from holdfast.cli.naming import open_objects
from holdfast.errors import StalePlanError, UsageError
from holdfast.gc.applying import LastCopyError, apply_plan
from holdfast.gc.plan import Plan, Request, read_plan
from holdfast.gc.plan import plan_of as planned
from holdfast.gc.stores import UnknownCommitsError
from holdfast.gc.world import REMOTE_ROOTS
from holdfast.removal.batches import PLAN
from holdfast.repo.cache import object_path
from holdfast.vault.repository import open_vault
from holdfast.vault.roots import register
from worlds import World, environment, make_repository, run

REMOTES, VAULTS = ("storage",), ("",)
HOLDER = """
import sys
from pathlib import Path
from holdfast.removal.locks import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
ALL = {"remotes": REMOTES, "vaults": VAULTS}


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A file that is tracked and two that are not, in the cache, a remote and a vault; a registered version."""
    world = make_repository(tmp_path)
    store = tmp_path / "store"
    store.mkdir()
    add_remote(world, "storage", str(store), default=True)
    world.write("holdfast.yaml", NO_AGE)
    tracked = world.track("data.csv", "tracked")
    world.write("registry/a/b/model.yaml", "schema: 1\naliases: {}\n")
    world.commit("first")
    send(world, store, tracked, *bury(world, "one", "two"))
    make_vault(store / "vault")
    push_files(store / "vault", "tracked", "one", "two")
    return world


def store_of(world: World) -> Path:
    return world.root.parent / "store"


def state(world: World) -> object:
    return tree(world.cache), tree(store_of(world)), len(held_of(world, REMOTES, VAULTS))


def whole_plan(world: World) -> Plan:
    plan = plan_of(world, "cache", "remote", "vault", **ALL)
    assert len(plan.removed) == 6
    return plan


# --- stale plans --------------------------------------------------------------------------------------------------


def branch(world: World) -> None:
    world.git("branch", "another")


def stash(world: World) -> None:
    world.write("data.csv.dvc", (world.root / "data.csv.dvc").read_text() + "# note\n")
    world.git("stash", "-q")


def workspace(world: World) -> None:
    world.track("new.csv", "of the workspace")


def workspace_needs_it(world: World) -> None:
    world.write("new.csv.dvc", f"outs:\n- md5: {oid_of('one')}\n  hash: md5\n  path: new.csv\n")


def staged_needs_it(world: World) -> None:
    workspace_needs_it(world)
    world.git("add", "new.csv.dvc")
    (world.root / "new.csv.dvc").unlink()


def policy(world: World) -> None:
    world.write("holdfast.yaml", NO_AGE + "  keep:\n    versions: 3\n")


def age_of_policy(world: World) -> None:
    world.write("holdfast.yaml", "gc:\n  minimum_age: 30d\n")


def alias(world: World) -> None:
    world.write("registry/a/b/model.yaml", "schema: 1\naliases: {}\ndescription: changed\n")


def version(world: World) -> None:
    world.write("registry/a/b/v1.yaml", f'schema: 1\noid: "{oid_of("two")}"\npath: m.pt\nsize: 3\n')


def run_cache(world: World) -> None:
    world.remember_run({"out": "something else"})


def vault_push(world: World) -> None:
    push_files(store_of(world) / "vault", "something new")


def cache_object(world: World) -> None:
    path = object_path(world.cache, "md5", oid_of("one"))
    path.unlink()
    path.write_text("one")


def cache_object_gone(world: World) -> None:
    object_path(world.cache, "md5", oid_of("one")).unlink()


def remote_object(world: World) -> None:
    path = object_path(store_of(world), "md5", oid_of("two"))
    path.unlink()
    path.write_text("two")


def other_clone_of_remote(world: World) -> None:
    register(open_objects(str(store_of(world))), secrets.token_hex(16), "b", [f"md5:{oid_of('one')}"], [], REMOTE_ROOTS)


def other_clone_of_vault(world: World) -> None:
    register(open_objects(str(store_of(world) / "vault")), secrets.token_hex(16), "b", [f"md5:{oid_of('one')}"], [])


CHANGES: list[tuple[Callable[[World], None], str]] = [
    (branch, "git has changed"),
    (stash, "git has changed"),
    (workspace, "the workspace has changed"),
    (workspace_needs_it, "the workspace has changed"),
    (staged_needs_it, "is needed now \\(workspace \\(staged\\)\\)"),
    (policy, "the policy has changed"),
    (age_of_policy, "the policy has changed"),
    (alias, "the registry has changed"),
    (version, "the workspace has changed"),
    (run_cache, "the run cache has changed"),
    (vault_push, "the vault has changed"),
    (cache_object, "has changed since"),
    (cache_object_gone, "is gone since"),
    (remote_object, "in storage has changed since"),
    (other_clone_of_remote, "in storage is needed now \\(another clone needs it\\)"),
    (other_clone_of_vault, "is needed now \\(the clone b needs it\\)"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_changed_world_refuses_the_plan(world: World, change: Callable[[World], None], message: str) -> None:
    plan = whole_plan(world)
    change(world)
    before = state(world)
    with pytest.raises(StalePlanError, match=message) as raised:
        apply_of(world, plan)
    assert raised.value.exit_code == 14
    assert state(world) == before
    assert not (world.root / ".dvc/tmp/holdfast/collecting.json").exists()


def test_what_does_not_matter_refuses_nothing(world: World) -> None:
    plan = whole_plan(world)
    world.write("notes.txt", "not of DVC")
    world.git("add", "notes.txt")
    world.store("new, and not in the plan")
    done = apply_of(world, plan)
    assert [taken.objects for taken in done.taken] == [2, 2, 2]
    assert object_path(world.cache, "md5", oid_of("new, and not in the plan")).is_file()


def test_a_git_remote_with_new_commits_refuses(world: World, tmp_path: Path) -> None:
    run(["git", "clone", "-q", "--bare", str(world.root), str(tmp_path / "hub")], tmp_path, world.home)
    world.git("remote", "add", "origin", str(tmp_path / "hub"))
    plan = plan_of(world, "remote", remotes=REMOTES)
    second = World(tmp_path / "second", world.home)
    run(["git", "clone", "-q", str(tmp_path / "hub"), str(second.root)], tmp_path, world.home)
    second.write("x.dvc", f"outs:\n- md5: {oid_of('one')}\n  hash: md5\n  path: x\n")
    second.commit("needs it")
    second.git("push", "-q", "origin", "main")
    before = state(world)
    with pytest.raises(UnknownCommitsError, match="origin has refs/heads/main at"):
        apply_of(world, plan)
    assert state(world) == before


def test_edited_plans_are_refused(world: World, tmp_path: Path) -> None:
    text = whole_plan(world).to_file()
    values = json.loads(text)
    before = state(world)
    edits: list[str] = []
    for number, entry in enumerate(values["objects"]):
        for key, value in entry.items():
            changed = json.loads(text)
            different = {str: f"{value}x", int: (value or 0) + 1 if isinstance(value, int) else 0, bool: not value}
            kind = type(value)
            changed["objects"][number][key] = different.get(kind, 7.5 if kind is float else ["x"])
            edits.append(json.dumps(changed))
    for key in ("time", "revision", "request", "totals", "doubts", "notes", "inputs", "digest", "archive"):
        changed = json.loads(text)
        changed[key] = "0" * 32 if key == "digest" else None if changed[key] else {"x": 1}
        edits.append(json.dumps(changed))
    dropped = json.loads(text)
    del dropped["objects"][0]
    edits.append(json.dumps(dropped))
    for edit in edits:
        with pytest.raises((StalePlanError, UsageError)):
            read_plan(edit.encode())
    # any byte of an object's line
    line = next(number for number, one in enumerate(text.splitlines()) if oid_of("one") in one and "oid" in one)
    lines = text.splitlines(keepends=True)
    for place in range(lines[line].index('"'), len(lines[line].rstrip())):
        byte = lines[line][place]
        edited = lines[line][:place] + chr(ord(byte) ^ 1) + lines[line][place + 1 :]
        with pytest.raises((StalePlanError, UsageError)):
            read_plan("".join([*lines[:line], edited, *lines[line + 1 :]]).encode())
    (tmp_path / "edited.json").write_text(edits[0])
    done = world.holdfast("gc", "apply", str(tmp_path / "edited.json"), "--allow-last-copy", code=14)
    assert "edited.json was changed since it was written" in done.stderr
    assert state(world) == before


def test_a_plan_whose_digest_was_forged_takes_nothing_that_is_needed(world: World) -> None:
    plan = plan_of(world)
    tracked = next(entry for entry in plan.objects if entry.oid == oid_of("tracked"))
    for stamp in ("", plan.removed[0].stamp):
        forged = replace(plan, lines=(*plan.lines, tracked._replace(tier="remove", stamp=stamp)))
        with pytest.raises(StalePlanError, match="is needed now"):
            apply_of(world, read_plan(forged.to_file().encode()))
    outside = planned(
        [plan.removed[0]._replace(path="../../.git/HEAD")],
        time=NOW,
        revision=None,
        request=Request(),
        inputs=plan.inputs,
    )
    with pytest.raises(StalePlanError, match="is gone"):
        apply_of(world, outside)


def test_a_plan_of_another_project_or_clone_is_refused(world: World, tmp_path: Path) -> None:
    plan = whole_plan(world)
    run(["cp", "-a", str(world.root), str(tmp_path / "copied")], tmp_path, world.home)
    copied = World(tmp_path / "copied", world.home)
    with pytest.raises(StalePlanError, match="made in another project, or another clone of it"):
        apply_of(copied, plan)
    other = make_repository(tmp_path / "other")
    with pytest.raises(StalePlanError, match="made in another project"):
        apply_of(other, plan_of(world))


def test_last_copies_go_only_where_that_is_said(world: World) -> None:
    plan = whole_plan(world)
    before = state(world)
    with pytest.raises(LastCopyError, match=r"and 5 more lie nowhere else") as raised:
        apply_of(world, plan, allow_last_copy=False)
    assert raised.value.exit_code == 2
    assert state(world) == before
    # of the cache alone the remote has copies
    done = apply_of(world, plan_of(world), allow_last_copy=False)
    assert [taken.objects for taken in done.taken] == [2]


def test_an_interrupted_plan_takes_nothing_that_came_since(world: World) -> None:
    plan = plan_of(world, "vault", vaults=VAULTS)
    journal = world.root / ".dvc/tmp/holdfast/collecting.json"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text(plan.to_file())
    # as old as the rest, and needed by nothing, but nobody looked at it
    push_files(store_of(world) / "vault", "three")
    with pytest.raises(StalePlanError, match=f"md5:{oid_of('three')} in .* would go, and the plan does not say so"):
        apply_of(world, plan)
    with open_vault(open_objects(str(store_of(world) / "vault")), None, jobs=1) as vault:
        vault.refresh()
        assert len(vault.index.standing([f"md5:{oid_of(text)}" for text in ("one", "two", "three", "tracked")])) == 4


def test_an_object_that_changes_after_the_check_is_left(world: World) -> None:
    """Between the check and the move somebody writes the object anew: it stays, and the command says so."""
    with places(world) as found:
        plan = plan_of(world)
        real = found.place
        calls = 0

        def place(scope, name):  # type: ignore[no-untyped-def]
            nonlocal calls
            calls += 1
            if calls == 2:  # once for the stamps of the check, once to take
                cache_object(world)
            return real(scope, name)

        found.place = place  # type: ignore[method-assign]
        done = apply_plan(found, plan, now=NOW, allow_last_copy=True)
    assert [path for path, _ in done.left] == [f"files/md5/{oid_of('one')[:2]}/{oid_of('one')[2:]}"]
    assert object_path(world.cache, "md5", oid_of("one")).read_text() == "one"
    assert [one.oid for one in held_of(world)] == [oid_of("two")]


# --- what is needed again -----------------------------------------------------------------------------------------


def applied(world: World) -> None:
    apply_of(world, whole_plan(world))
    assert len(held_of(world, REMOTES, VAULTS)) == 6


def test_purge_brings_back_what_is_needed_again(world: World) -> None:
    applied(world)
    world.write("new.csv.dvc", f"outs:\n- md5: {oid_of('one')}\n  hash: md5\n  path: new.csv\n")
    world.commit("needs it again")
    dry = purge_of(world, remotes=REMOTES, vaults=VAULTS, dry_run=True)
    assert {(one.scope, one.oid) for one in dry.rescued} == {(s, oid_of("one")) for s in ("cache", "remote", "vault")}
    assert {(one.scope, one.oid) for one in dry.held} == {(s, oid_of("two")) for s in ("cache", "remote", "vault")}
    assert len(held_of(world, REMOTES, VAULTS)) == 6
    done = purge_of(world, remotes=REMOTES, vaults=VAULTS)
    for found, said in ((done.rescued, dry.rescued), (done.held, dry.held)):
        assert {(one.scope, one.path) for one in found} == {(one.scope, one.path) for one in said}
    assert object_path(world.cache, "md5", oid_of("one")).read_text() == "one"
    assert object_path(store_of(world), "md5", oid_of("one")).read_text() == "one"
    with open_vault(open_objects(str(store_of(world) / "vault")), None, jobs=1) as vault:
        assert vault.exists([f"md5:{oid_of('one')}", f"md5:{oid_of('two')}"]) == {f"md5:{oid_of('one')}"}
    assert held_of(world, REMOTES, VAULTS) == []
    vault_is_clean(str(store_of(world) / "vault"))


def test_purge_brings_back_what_another_clone_needs(world: World) -> None:
    applied(world)
    other_clone_of_remote(world)
    other_clone_of_vault(world)
    done = purge_of(world, remotes=REMOTES, vaults=VAULTS)
    assert {(one.scope, one.oid) for one in done.rescued} == {("remote", oid_of("one")), ("vault", oid_of("one"))}
    assert object_path(store_of(world), "md5", oid_of("one")).read_text() == "one"
    with open_vault(open_objects(str(store_of(world) / "vault")), None, jobs=1) as vault:
        assert vault.exists([f"md5:{oid_of('one')}"])


def test_purge_brings_back_a_folder_with_its_members(world: World) -> None:
    folder = world.store_folder({"a.png": "image a", "b.png": "image b"})
    apply_of(world, plan_of(world))
    world.write("images.dvc", f"outs:\n- md5: {folder}\n  size: 14\n  nfiles: 2\n  hash: md5\n  path: images\n")
    world.commit("needs a folder again")
    purge_of(world)
    for oid in (folder, oid_of("image a"), oid_of("image b")):
        assert object_path(world.cache, "md5", oid).is_file()
    # a larger one cannot be its member
    assert held_of(world) == []


def test_purge_brings_back_what_the_batch_cannot_name(world: World) -> None:
    """The plan beside a batch is gone or of another Holdfast: an object is known by its place."""
    apply_of(world, plan_of(world))
    path = next((world.cache / "holdfast/quarantine").rglob(PLAN))
    path.chmod(0o644)
    path.write_text("{}")
    assert [one.what for one in held_of(world)] == [None, None]
    world.write("new.csv.dvc", f"outs:\n- md5: {oid_of('one')}\n  hash: md5\n  path: new.csv\n")
    done = purge_of(world)
    assert [one.oid for one in done.rescued] == [oid_of("one")]
    assert [one.oid for one in done.held] == [oid_of("two")]


@pytest.mark.parametrize(("planned_as", "listed_as"), [("", "storage"), ("storage", "")])
def test_a_vault_is_the_same_under_both_of_its_names(world: World, planned_as: str, listed_as: str) -> None:
    done = apply_of(world, plan_of(world, "vault", vaults=(planned_as,)))
    held = held_of(world, vaults=(listed_as,))
    assert {one.plan for one in held} == {done.plan}
    back = restore_of(world, done.plan, vaults=(listed_as,))
    # files count as they were listed, whatever was copied of them
    assert (len(back.held), back.bytes) == (2, sum(one.size for one in held if one.scope == "vault"))
    vault_is_clean(str(store_of(world) / "vault"))


def test_purge_waits_for_its_time(world: World) -> None:
    applied(world)
    young = purge_of(world, remotes=REMOTES, vaults=VAULTS, days=1)
    assert (young.held, young.rescued, young.young) == ((), (), 6)
    age(path for path in (world.cache / "holdfast").rglob(PLAN))
    some = purge_of(world, remotes=REMOTES, vaults=VAULTS, days=30)
    assert {one.scope for one in some.held} == {"cache"}
    assert some.young == 4


def test_purge_refuses_in_doubt(world: World) -> None:
    applied(world)
    world.write(".git/refs/heads/broken", "garbage\n")
    before = state(world)
    with pytest.raises(Exception, match="broken"):
        purge_of(world, remotes=REMOTES, vaults=VAULTS)
    (world.root / ".git/refs/heads/broken").unlink()
    assert state(world) == before


def test_locked_by_another_process(world: World, tmp_path: Path) -> None:
    plan = plan_of(world)
    (tmp_path / "plan.json").write_text(plan.to_file())
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLDER,
            str(world.cache / "holdfast/quarantine"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(world.home),
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        done = world.holdfast("gc", "apply", str(tmp_path / "plan.json"), "--allow-last-copy", code=11)
        assert len(done.stderr.splitlines()) == 1
        assert holder.stdin is not None
        holder.stdin.close()
        holder.wait(20)
    assert len(tree(world.cache)) == 3
