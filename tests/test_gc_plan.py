"""The plan for DVC's cache: the same used set as DVC's own, and every reason by its name."""

import json
from pathlib import Path

import pytest

from gc_world import find, keys, plan_of, used_by_dvc
from holdfast.gc.plan import Plan
from holdfast.repo.cache import object_path
from holdfast.repo.history import UnreadableDvcFileError
from worlds import World, make_repository, run


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
    world.git("rm", "-q", "data.csv.dvc")
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
    plan = plan_of(world, now=path.stat().st_ctime + 43200)
    assert plan.objects[0].age_days == 0.5


def test_what_commits_said_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what is remembered of each of them, though the index names DVC files, too."""
    world = make_repository(tmp_path)
    world.write("a.txt", "a")
    world.dvc("add", "-q", "a.txt")
    world.commit("a")
    first = plan_of(world)

    def refuse(_cache: object) -> None:
        raise AssertionError("all records were loaded")

    monkeypatch.setattr("holdfast.repo.recordcache.RecordCache.load", refuse)
    again = plan_of(world)
    assert [(entry.oid, entry.why) for entry in again.objects] == [(entry.oid, entry.why) for entry in first.objects]
