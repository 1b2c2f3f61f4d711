"""The plan for DVC's cache in doubt, with what DVC itself made, and the command."""

import json
from pathlib import Path

import pytest

from gc_world import NO_AGE, find, keys, plan_of, used_by_dvc
from holdfast.errors import HoldfastError
from holdfast.repo.cache import UnreadableRunCacheError, object_path
from holdfast.repo.history import UnreadableDvcFileError
from holdfast.repo.refs import ShallowCloneError, UnreadableRefError, open_repository, read_tips
from worlds import World, make_home, make_repository, run


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # DVC's configuration of whoever runs the tests must not move the cache
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


# --- doubt keeps --------------------------------------------------------------------------------------------------


def test_missing_listing_keeps_what_could_be_its_member(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    oid = world.track("images", {"a.png": "0123456789", "b.png": "01234"})
    commit = world.commit()
    world.git("rm", "-q", "images.dvc")
    world.git("commit", "-q", "-m", "gone")
    large = world.store("larger than the whole folder")
    other = world.store_folder({"c": "x"})
    object_path(world.cache, "md5", oid).unlink()
    plan = plan_of(world)
    where = f"the listing {oid[:8]}.dir of images (commit {commit[:8]}, 1 commit back on main) is missing"
    for text in ("0123456789", "01234", "x"):
        entry = find(plan, world.store(text))
        assert (entry.kept, entry.reason, entry.why) == (True, "undecided", f"undecided: {where}")
    assert keys(plan.removed) == {("md5", large), ("md5", other)}
    assert [doubt.text for doubt in plan.doubts] == [f"{where}: what could be its member is kept"]
    assert plan.doubts[0].way_out == f"`dvc fetch --all-commits`, or `git checkout {commit[:8]} && dvc fetch images`"


def test_damaged_listing_is_no_listing(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    oid = world.track("images", {"a.png": "aaa", "b.png": "bbb"})
    world.commit()
    path = object_path(world.cache, "md5", oid)
    path.chmod(0o644)
    path.write_text(json.dumps(json.loads(path.read_text())[:1], sort_keys=True))
    plan = plan_of(world)
    assert find(plan, world.store("bbb")).reason == "undecided"
    assert "is damaged" in plan.doubts[0].text


def test_missing_listing_of_a_project_with_its_own_cache_is_no_doubt(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    sub = World(world.root, world.home, "sub")
    sub.write("sub/.dvc/config", "")
    oid = sub.track("sub/images", {"a.png": "in the other cache"})
    world.git("add", "-f", "sub/.dvc/config")
    world.commit()
    object_path(sub.cache, "md5", oid).unlink()
    nobody = world.store("nobody's")
    plan = plan_of(world)
    assert not plan.doubts
    assert keys(plan.removed) == {("md5", nobody)}
    # where it shares our cache, its listing is missed here
    sub.write("sub/.dvc/config", f"[cache]\n    dir = {world.cache}\n")
    assert len(plan_of(world).doubts) == 1


def test_cache_outside_the_project_keeps_everything(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    outside = tmp_path / "shared"
    world.write(".dvc/config", f"[cache]\n    dir = {outside}\n")
    world.commit()
    oid = world.store("perhaps of another project")
    world.cache.rename(outside)
    plan = plan_of(world)
    assert find(plan, oid).reason == "undecided"
    assert "outside the project" in plan.doubts[0].text


def test_sub_project_reads_the_whole_repository(tmp_path: Path) -> None:
    world = make_repository(tmp_path, project="sub")
    world.track("sub/data.csv", "of the project")
    world.commit()
    nobody = world.store("nobody's")
    plan = plan_of(world)
    assert keys(plan.kept) == used_by_dvc(world)
    assert keys(plan.removed) == {("md5", nobody)}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("dvc.lock", "schema: '2.0'\nstages: {train: {outs: ["),
        ("dvc.lock", "<<<<<<< ours\nstages: {}\n=======\nstages: {}\n>>>>>>> theirs\n"),
        ("dvc.lock", "stages:\n  a: {cmd: x, outs: []}\n  a: {cmd: y, outs: []}\n"),
        ("dvc.lock", "- a list\n"),
        ("deep/data.csv.dvc", "outs: everything\n"),
        ("registry/digits/classifier/v1.yaml", "- a list\n"),
    ],
)
def test_unreadable_file_in_an_old_commit_refuses(tmp_path: Path, path: str, content: str) -> None:
    world = make_repository(tmp_path)
    world.write(path, content)
    commit = world.commit("broken")
    (world.root / path).unlink()
    world.commit("mended")
    with pytest.raises(UnreadableDvcFileError, match=rf"{path} in commit {commit[:8]} \(main, 1 behind\)") as raised:
        plan_of(world)
    assert raised.value.exit_code == 13
    assert f"git show {commit[:8]}:{path}" in (raised.value.hint or "")


def test_unreadable_file_in_the_workspace_refuses(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write("dvc.lock", "stages: [")
    with pytest.raises(UnreadableDvcFileError, match=r"^dvc.lock cannot be read"):
        plan_of(world)


def test_unreadable_definition_of_an_old_commit_does_not_matter(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    oids = world.lock({"model.pt": "model"})
    world.write("dvc.yaml", "stages: [")
    world.commit()
    assert find(plan_of(world), oids[0]).kept


def test_shallow_clone_refuses(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.commit()
    world.commit()
    clone = World(tmp_path / "clone", world.home)
    run(["git", "clone", "-q", "--depth", "1", f"file://{world.root}", str(clone.root)], tmp_path, world.home)
    with pytest.raises(ShallowCloneError, match="shallow"):
        plan_of(clone)
    done = clone.holdfast("gc", "plan", code=1)
    assert "git fetch --unshallow" in done.stderr
    clone.git("fetch", "-q", "--unshallow")
    plan_of(clone)


@pytest.mark.parametrize("content", ["garbage\n", "", "1" * 40 + "\n"])
def test_unreadable_ref_refuses(tmp_path: Path, content: str) -> None:
    world = make_repository(tmp_path)
    world.write(".git/refs/heads/broken", content)
    with pytest.raises(UnreadableRefError, match="broken"):
        plan_of(world)


@pytest.mark.parametrize("what", ["HEAD~1", "HEAD~1^{tree}", "HEAD~1:data.csv.dvc"])
def test_missing_git_object_refuses(tmp_path: Path, what: str) -> None:
    world = make_repository(tmp_path)
    world.track("data.csv", "one")
    commit = world.commit()
    world.track("data.csv", "two")
    world.commit()
    oid = world.git("rev-parse", what)
    (world.root / ".git/objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(UnreadableRefError, match=commit):
        plan_of(world)


def test_damaged_run_cache_entry_refuses_unless_ignored(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.remember_run({"out.bin": "remembered"})
    entry = next(path for path in (world.cache / "runs").rglob("*") if path.is_file())
    entry.write_text("outs: [")
    with pytest.raises(UnreadableRunCacheError, match="--ignore-run-cache"):
        plan_of(world)
    assert len(plan_of(world, ignore_run_cache=True).removed) == 1


# --- with DVC itself ----------------------------------------------------------------------------------------------


def test_a_project_that_dvc_made(tmp_path: Path) -> None:
    """`dvc init`, `repro`, `exp run`: the run cache, an experiment and folders as DVC writes them."""
    world = World(tmp_path / "repository", make_home(tmp_path))
    world.root.mkdir()
    world.git("init", "-q")
    world.dvc("init", "-q")
    # the run cache's key leaves out every key called `size`, a parameter of that name too
    world.write("params.yaml", "count: 3\n")
    world.write(
        "make.py",
        "import pathlib, re\ncount = int(re.search(r'\\d+', pathlib.Path('params.yaml').read_text())[0])\n"
        "out = pathlib.Path('out'); out.mkdir()\n"
        "for n in range(count): (out / f'{n}.txt').write_text(f'{count} {n}')\n",
    )
    world.write(
        "dvc.yaml",
        "stages:\n  make:\n    cmd: python make.py\n    deps: [make.py]\n    params: [count]\n    outs: [out]\n",
    )
    world.dvc("repro", "-q")
    world.commit()
    world.dvc("exp", "run", "-q", "-n", "larger", "-S", "count=5")
    world.git("reset", "-q", "--hard")
    world.dvc("checkout", "-q")
    world.dvc("exp", "run", "-q", "--queue", "-S", "count=9")
    tips = {(tip.kind, tip.ref) for tip in read_tips(open_repository(world.root))}
    assert {("experiment", "larger"), ("experiment", "queue@{0}"), ("branch", "main")} <= tips
    world.write("params.yaml", "count: 7\n")
    world.dvc("repro", "-q")
    world.git("checkout", "-q", ".")
    plan = plan_of(world)
    assert used_by_dvc(world) <= keys(plan.kept)
    assert find(plan, world.store("5 4")).why == "experiment larger"
    assert find(plan, world.store("5 4")).names[0].path == "out/4.txt"
    seven = find(plan, world.store("7 6"))
    assert (seven.reason, seven.why) == ("run cache", "run cache: stage make; `dvc repro` can restore it")
    ignored = plan_of(world, ignore_run_cache=True)
    assert keys(ignored.kept) == used_by_dvc(world)
    assert len(ignored.removed) == 8


# --- the command --------------------------------------------------------------------------------------------------


def test_outside_a_repository_is_one_line_and_exit_code_10(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    bare = World(tmp_path / "plain", home)
    bare.root.mkdir()
    done = bare.holdfast("gc", "plan", code=10)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "git init && holdfast init" in done.stderr
    bare.git("init", "-q")
    assert "`holdfast init`" in bare.holdfast("gc", "plan", code=10).stderr


def test_command_prints_sentence_tables_and_forms(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    empty = world.holdfast("gc", "plan")
    assert empty.stdout == "There is nothing to remove: the local cache is empty.\n"
    world.write("holdfast.yaml", NO_AGE)
    world.track("data.csv", "x" * 3000)
    world.commit()
    nobody = world.store("y" * 1000)
    world.remember_run({"out.bin": "z" * 500})
    text = world.holdfast("gc", "plan").stdout
    sentence = "1 of 3 objects (1.0 kB of 4.5 kB) is needed by nothing and could go."
    assert text.splitlines()[0] == sentence
    assert nobody[:8] in text
    assert "DVC's run cache alone keeps 500 B in 1 object" in text
    assert "data.csv" not in text
    assert "data.csv" in world.holdfast("gc", "plan", "--only", "kept").stdout
    payload = json.loads(world.holdfast("gc", "plan", "--json", "--only", "removed").stdout)
    assert [entry["oid"] for entry in payload["objects"]] == [nobody]
    assert {total["reason"]: total["bytes"] for total in payload["totals"]} == {
        "workspace": 3000,
        "run cache": 500,
        "nothing": 1000,
    }
    assert "| object | size | age | name | why |" in world.holdfast("gc", "plan", "--md").stdout
    assert "2 of 3" in world.holdfast("gc", "plan", "--ignore-run-cache").stdout


def test_errors_are_ours(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".dvc/config", "[cache\n")
    with pytest.raises(HoldfastError, match="dvc config --list"):
        plan_of(world)
