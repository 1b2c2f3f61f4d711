"""The plan for DVC's cache: the same used set as DVC's own, every reason by its name, and doubt that keeps."""

import json
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError
from holdfast.gc.plan import Plan, PlannedObject, plan_cache
from holdfast.repo.cache import UnreadableRunCacheError, object_path
from holdfast.repo.history import UnreadableDvcFileError
from holdfast.repo.refs import ShallowCloneError, UnreadableRefError, open_repository, read_tips
from holdfast.repo.workspace import find_project
from worlds import World, make_home, make_repository, run

NOW = 2_000_000_000.0

USED_BY_DVC = """
import json
from dvc.repo import Repo
with Repo(".") as repo:
    used = repo.used_objs(all_branches=True, all_tags=True, all_commits=True, all_experiments=True, force=True)
    print(json.dumps(sorted({(info.name, info.value) for infos in used.values() for info in infos})))
"""


def plan_of(world: World, **options: bool) -> Plan:
    return plan_cache(find_project(world.folder), now=NOW, **options)


def find(plan: Plan, oid: str, hash_name: str = "md5") -> PlannedObject:
    return next(entry for entry in plan.objects if (entry.hash_name, entry.oid) == (hash_name, oid))


def keys(entries: list[PlannedObject]) -> set[tuple[str, str]]:
    return {(entry.hash_name, entry.oid) for entry in entries}


def used_by_dvc(world: World) -> set[tuple[str, str]]:
    return {(name, oid) for name, oid in json.loads(world.python(USED_BY_DVC))}


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # DVC's configuration of whoever runs the tests must not move the cache
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Branches, merges, tags, a lightweight and an annotated one, renames, deletions, legacy hashes, folders."""
    world = make_repository(tmp_path_factory.mktemp("world"))
    world.track("data.csv", "first\n")
    world.track("images", {"a.png": "image a", "deep/b.png": "image b"})
    world.track("old.csv", "legacy\n", legacy=True)
    world.track("old", {"x.txt": "legacy x"}, legacy=True)
    world.lock({"model.pt": "model 1", "metrics.json": "{}"})
    world.commit("first")
    world.track("data.csv", "second\n")
    world.lock({"model.pt": "model 2", "metrics.json": "{}"})
    world.commit("second")
    world.git("tag", "v1.0")
    world.git("checkout", "-q", "-b", "feature")
    world.track("extra.bin", "on the branch")
    world.commit("feature")
    world.git("checkout", "-q", "main")
    world.track("deleted.bin", "deleted later")
    world.commit("adds")
    (world.root / "deleted.bin.dvc").unlink()
    world.git("mv", "data.csv.dvc", "moved.csv.dvc")
    world.write("moved.csv.dvc", (world.root / "moved.csv.dvc").read_text().replace("data.csv", "moved.csv"))
    world.commit("removes and renames")
    world.git("checkout", "-q", "-b", "side")
    world.lock({"model.pt": "model of the side", "metrics.json": "{}"})
    world.commit("side")
    world.git("tag", "-a", "v2.0", "-m", "annotated")
    world.git("checkout", "-q", "main")
    world.git("branch", "-q", "-D", "side")
    world.git("merge", "-q", "--no-ff", "-m", "merge", "feature")
    return world


def test_used_set_is_that_of_dvc(world: World) -> None:
    plan = plan_of(world)
    assert keys(plan.kept) == used_by_dvc(world)
    assert not plan.removed
    assert not plan.doubts


@pytest.mark.parametrize(
    ("text", "reason", "why", "path"),
    [
        ("image b", "workspace", "workspace", "images/deep/b.png"),
        ("model 2", "workspace", "workspace", "model.pt"),
        ("model 1", "history", "2 commits back on feature", "model.pt"),
        ("model of the side", "tag", "tag v2.0", "model.pt"),
        ("deleted later", "history", "2 commits back on main", "deleted.bin"),
        ("second\n", "workspace", "workspace", "moved.csv"),
    ],
)
def test_names_and_best_reason(world: World, text: str, reason: str, why: str, path: str) -> None:
    entry = find(plan_of(world), world.store(text))
    assert (entry.kept, entry.reason, entry.why, entry.names[0].path) == (True, reason, why, path)


def test_every_name_is_listed_with_its_commit(world: World) -> None:
    names = find(plan_of(world), world.store("second\n")).names
    assert [name.path for name in names] == ["moved.csv", "data.csv"]
    assert names[1].commit == world.git("rev-parse", "feature")
    assert names[1].source == "branch feature"


def test_plan_is_deterministic_and_deletes_nothing(world: World) -> None:
    before = sorted(path.as_posix() for path in world.cache.rglob("*"))
    assert json.dumps(plan_of(world).to_json()) == json.dumps(plan_of(world).to_json())
    assert sorted(path.as_posix() for path in world.cache.rglob("*")) == before


def test_roots_that_dvc_forgets_and_names_of_what_may_go(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.track("data.csv", "committed")
    base = world.commit()
    # an experiment, as DVC writes it, and one that waits in the queue
    world.track("data.csv", "of the experiment")
    exp = world.commit("exp")
    world.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/brisk-owl", exp)
    world.git("reset", "-q", "--hard", base)
    for number in (0, 1):
        world.track("data.csv", f"queued {number}")
        queued = world.git("stash", "create")
        world.git("update-ref", "--create-reflog", "-m", "queued", "refs/exps/celery/stash", queued)
        world.git("checkout", "-q", ".")
    # two stashes; `refs/stash` names the newer alone
    for number in (0, 1):
        world.track("data.csv", f"stashed {number}")
        world.git("stash", "-q")
    world.write("new.csv.dvc", "")  # untracked, then stashed with its content
    oid_untracked = world.track("new.csv", "stashed untracked")
    world.git("stash", "-q", "-u")
    # a linked worktree with a detached head and an uncommitted file
    world.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"), base)
    linked = World(tmp_path / "linked", world.home)
    staged_elsewhere = World(tmp_path / "linked", world.home)
    oid = world.store("detached in a worktree")
    linked.write("data.csv.dvc", f"outs:\n- md5: {oid}\n  hash: md5\n  path: data.csv\n")
    linked.commit()
    oid_dirty = world.store("uncommitted in a worktree")
    staged_elsewhere.write("data.csv.dvc", f"outs:\n- md5: {oid_dirty}\n  hash: md5\n  path: data.csv\n")
    # amended away
    world.track("data.csv", "amended away")
    world.commit("typo")
    world.git("checkout", "-q", base, "--", "data.csv.dvc")
    world.git("commit", "-q", "--amend", "--allow-empty", "-m", "better")
    # a registered version, staged and dirty states, the run cache, and what nothing names
    oid_registered = world.store("registered")
    world.write("registry/digits/classifier/v1.yaml", f'schema: 1\noid: "{oid_registered}"\npath: m.pt\n')
    world.commit("register")
    world.track("data.csv", "staged")
    world.git("add", "data.csv.dvc")
    world.track("data.csv", "dirty")
    world.lock({"models/model.pt": "dirty lock"}, folder="sub")
    world.remember_run({"out.bin": "remembered"}, command="python train.py")
    world.store("nobody's")
    folder = world.store_folder({"cat.png": "lost cat"})

    def reason(text: str, found: Plan) -> tuple[bool, str, str]:
        entry = find(found, world.store(text))
        return entry.kept, entry.reason, entry.why

    plan = plan_of(world)
    assert reason("of the experiment", plan) == (True, "experiment", "experiment brisk-owl")
    assert reason("queued 0", plan) == (True, "experiment", "experiment queue@{1}")
    assert reason("queued 1", plan) == (True, "experiment", "experiment queue@{0}")
    assert reason("stashed 0", plan) == (True, "stash", "stash@{2}")
    assert reason("stashed 1", plan) == (True, "stash", "stash@{1}")
    assert find(plan, oid_untracked).why == "stash@{0}"
    assert reason("detached in a worktree", plan) == (True, "branch", "branch HEAD of linked")
    assert reason("uncommitted in a worktree", plan) == (True, "workspace", "workspace (linked)")
    assert reason("registered", plan) == (True, "registry", "registry digits/classifier@v1")
    assert reason("staged", plan) == (True, "workspace", "workspace (staged)")
    assert reason("dirty", plan) == (True, "workspace", "workspace")
    assert find(plan, world.store("dirty lock")).names[0].path == "sub/models/model.pt"
    why = "run cache: `python train.py`; `dvc repro` can restore it"
    assert reason("remembered", plan) == (True, "run cache", why)
    assert reason("amended away", plan)[:2] == (False, "reflog")
    assert find(plan, world.store("amended away")).names[0].path == "data.csv"
    assert reason("nobody's", plan) == (False, "nothing", "nothing names it")
    assert find(plan, folder).kept is False
    assert find(plan, world.store("lost cat")).names[0].path == f"{folder[:8]}.dir/cat.png"
    assert used_by_dvc(world) <= keys(plan.kept)
    alone = next(total for total in plan.totals if total.reason == "run cache")
    assert (alone.objects, alone.bytes) == (1, len("remembered"))

    ignored = plan_of(world, ignore_run_cache=True)
    assert reason("remembered", ignored) == (False, "nothing", "only run cache: `python train.py` (ignored)")
    assert keys(ignored.kept) == keys(plan.kept) - {("md5", world.store("remembered"))}


def test_detached_head_and_deleted_branch(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.git("checkout", "-q", "--detach")
    world.track("data.csv", "on no branch")
    world.commit()
    (world.root / "data.csv.dvc").unlink()
    entry = find(plan_of(world), world.store("on no branch"))
    assert (entry.reason, entry.why) == ("branch", "branch HEAD")
    world.git("checkout", "-q", "-f", "main")
    assert find(plan_of(world), world.store("on no branch")).reason == "reflog"


def test_history_behind_a_tag_alone(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.git("checkout", "-q", "--detach")
    for text in ("one", "two", "three"):
        world.track("data.csv", text)
        world.commit()
    world.git("tag", "v1")
    world.git("checkout", "-q", "main")
    world.git("reflog", "expire", "--expire=now", "--all")
    plan = plan_of(world)
    found = {text: find(plan, world.store(text)).why for text in ("one", "two", "three")}
    assert found == {"one": "2 commits back on v1", "two": "1 commit back on v1", "three": "tag v1"}


def test_equal_files_in_two_folders_give_two_names(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    for folder in ("a", "b/c"):
        world.lock({"model.pt": "model"}, folder=folder)
    world.commit()
    world.git("rm", "-q", "-r", "a", "b")
    world.commit()
    names = find(plan_of(world), world.store("model")).names
    assert [name.path for name in names] == ["a/model.pt", "b/c/model.pt"]


def test_unreadable_file_that_only_a_reflog_has_does_not_matter(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write("dvc.lock", "stages: [")
    world.commit("broken")
    world.git("reset", "-q", "--hard", "HEAD~1")
    assert plan_of(world).objects == ()


def test_a_reason_to_keep_beats_a_name_that_keeps_nothing(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.lock({"model.pt": "model"})
    world.commit()
    world.git("reset", "-q", "--hard", "HEAD~1")
    assert find(plan_of(world), world.store("model")).reason == "reflog"
    world.remember_run({"model.pt": "model"})
    entry = find(plan_of(world), world.store("model"))
    assert (entry.kept, entry.why) == (True, "run cache: stage train; `dvc repro` can restore it")


def test_merge_in_progress_keeps_both_sides(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.git("checkout", "-q", "--detach")
    world.track("data.csv", "theirs")
    theirs = world.commit()
    world.git("checkout", "-q", "main")
    world.git("merge", "-q", "--no-commit", "--no-ff", theirs)
    world.git("rm", "-q", "--cached", "data.csv.dvc")
    (world.root / "data.csv.dvc").unlink()
    assert find(plan_of(world), world.store("theirs")).why == "branch MERGE_HEAD"


def test_linked_lock_is_followed_in_every_commit(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    oids = []
    for number in (1, 2):
        oids += world.lock({"model.pt": f"model {number}"}, folder="real")
        if not (world.root / "pipe").exists():
            (world.root / "pipe").mkdir()
            (world.root / "pipe" / "dvc.lock").symlink_to("../hidden.txt")
        (world.root / "real" / "dvc.lock").replace(world.root / "hidden.txt")
        world.commit()
    world.lock({"model.pt": "model 3"}, folder="real")
    (world.root / "real" / "dvc.lock").replace(world.root / "hidden.txt")
    found = {entry.oid: (entry.kept, entry.names[0].path) for entry in plan_of(world).objects if entry.oid in oids}
    assert found == dict.fromkeys(oids, (True, "pipe/model.pt"))
    assert find(plan_of(world), world.store("model 3")).why == "workspace"


def test_ignored_file_with_a_misleading_name_is_passed_over(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".gitignore", "/data\n")
    world.write("data/x.dvc", "no: [DVC file")
    assert plan_of(world).objects == ()
    world.write(".gitignore", "")
    with pytest.raises(UnreadableDvcFileError, match=r"data/x\.dvc"):
        plan_of(world)


def test_uncached_outs_are_left_out_only_where_said_so_literally(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    literal, templated, stale = world.lock({"metrics.json": "literal", "plot.json": "templated", "gone": "stale"})
    world.write(
        "dvc.yaml",
        "vars: [{name: plot}]\nstages:\n  train:\n    cmd: make it\n    metrics:\n    - metrics.json: {cache: false}\n"
        "    plots:\n    - ${name}.json: {cache: false}\n",
    )
    world.commit()
    plan = plan_of(world)
    assert find(plan, literal).kept is False
    assert find(plan, templated).kept is True
    assert find(plan, stale).kept is True
    assert used_by_dvc(world) <= keys(plan.kept)


def test_age_counts_from_the_later_of_mtime_and_ctime(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    oid = world.store("linked long after it was written")
    path = object_path(world.cache, "md5", oid)
    run(["touch", "-d", "2001-01-01", str(path)], world.root, world.home)
    plan = plan_cache(find_project(world.folder), now=path.stat().st_ctime + 43200)
    assert plan.objects[0].age_days == 0.5


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
    assert "git init && dvc init" in done.stderr
    bare.git("init", "-q")
    assert "`dvc init`" in bare.holdfast("gc", "plan", code=10).stderr


def test_command_prints_sentence_tables_and_forms(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    empty = world.holdfast("gc", "plan")
    assert empty.stdout == "The local cache is empty: there is nothing to remove.\n"
    world.track("data.csv", "x" * 3000)
    world.commit()
    nobody = world.store("y" * 1000)
    world.remember_run({"out.bin": "z" * 500})
    text = world.holdfast("gc", "plan").stdout
    sentence = "1 of 3 objects (1.0 kB of 4.5 kB) is referred to by nothing and could be removed."
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
