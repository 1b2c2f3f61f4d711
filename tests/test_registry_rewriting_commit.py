"""Rewriting as one commit that one revert undoes, on the world of production models in time-stamped run folders."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from holdfast.errors import StalePlanError, UsageError
from holdfast.inventory.code_archive import CommitError, UncommittedChangesError
from holdfast.registry.cards import CardFacts, card_path, readme_path, render_card, render_readme
from holdfast.registry.entries import Version
from holdfast.registry.rewriting import RewritePlan, plan_rewrites
from holdfast.registry.rewriting_commit import (
    JOURNAL,
    apply_rewrites,
    commit_rewrites,
    refuse_uncommitted,
    undo_unfinished,
)
from worlds import World, environment, make_home, make_repository

AVA_RUN, SIAMESE_RUN = "outputs/ava/gpu_run_regression_18_01", "outputs/siamese_e2e/20260113_073023"
AVA, SIAMESE = "models/album_app/ava_aesthetic_model.pt", "models/album_app/siamese_comparison_model.pt"
MOVES = {f"{AVA_RUN}/best_model.pt": AVA, f"{SIAMESE_RUN}/best_model.pt": SIAMESE}
CONFIG = f"""\
# Everything that the album app reads at its start.
app:
    name: "album"     # shown in the title

quality_assessment:
  # Trained models, see outputs/
  ava_checkpoint: {AVA_RUN}/best_model.pt   # 96 MB
  siamese_checkpoint: '{SIAMESE_RUN}/best_model.pt'
  weights: [0.5, 0.5]
"""
SERVE = f"""\
import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIAMESE = ROOT / "outputs" / "siamese_e2e" / "20260113_073023" / "best_model.pt"
parser = argparse.ArgumentParser()
parser.add_argument("--ava", default="{AVA_RUN}/best_model.pt")  # ResNet50
"""
TRAIN = f"""\
import torch
torch.save({{}}, "{AVA_RUN}/best_model.pt")
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two models in time-stamped folders, a configuration with comments, an app, a training script."""
    made = make_repository(tmp_path)
    for name, value in environment(made.home).items():
        if name.startswith(("GIT_", "DVC_", "HOME", "XDG_")):
            monkeypatch.setenv(name, value)
    made.write(".gitignore", "/outputs/\n")
    for run, size in ((AVA_RUN, 10), (SIAMESE_RUN, 8)):
        (made.root / run).mkdir(parents=True)
        torch.manual_seed(size)
        torch.save({"model_state_dict": torch.nn.Linear(size, 2).state_dict()}, made.root / run / "best_model.pt")
        made.write(f"{run}/config.yaml", f"backbone: resnet50\nbest: {run}/best_model.pt\n")
    made.write("configs/global_config.yaml", CONFIG)
    made.write("src/serve.py", SERVE).chmod(0o755)
    made.write("src/train.py", TRAIN)
    made.commit("train")
    return made


def tree(world: World) -> dict[str, bytes]:
    """Every file but git's and DVC's own."""
    files = (path for path in world.root.rglob("*") if path.is_file())
    names = ((path.relative_to(world.root).as_posix(), path) for path in files)
    return {name: path.read_bytes() for name, path in names if not name.startswith((".git/", ".dvc/"))}


def index(world: World) -> str:
    return world.git("ls-files", "--stage")


def promote(world: World) -> list[str]:
    """What else a promotion brings: copies, DVC's files, cards; the paths for git."""
    brought = []
    for (old, new), version in zip(MOVES.items(), ("2026-01-18", "2026-01-13"), strict=True):
        data = (world.root / old).read_bytes()
        world.write(new, data)
        world.dvc("add", "--quiet", new)
        model_id = new.removeprefix("models/").removesuffix(".pt")
        facts = CardFacts(
            model_id,
            Version("v1", new, "d" * 32, len(data), "blake3:" + "e" * 64, version, {"run": old.rpartition("/")[0]}),
        )
        world.write(card_path(model_id).as_posix(), render_card(facts))
        world.write(readme_path(model_id).as_posix(), render_readme("album_app", [facts]))
        brought += [f"{new}.dvc", card_path(model_id).as_posix()]
    return [*brought, "models/album_app/README.md", "models/album_app/.gitignore"]


def test_seed_world_promoted_and_reverted(world: World) -> None:
    before, runs = tree(world), {name: data for name, data in tree(world).items() if name.startswith("outputs/")}
    world.write("staged.txt", "of another change")
    world.git("add", "staged.txt")
    world.write("untracked.txt", "mine")
    also = promote(world)
    plan = plan_rewrites(world.root, MOVES)
    commit = commit_rewrites(plan, "Promote two models", also=also)

    assert (world.root / "configs/global_config.yaml").read_text() == CONFIG.replace(
        f"{AVA_RUN}/best_model.pt", AVA
    ).replace(f"{SIAMESE_RUN}/best_model.pt", SIAMESE)
    assert yaml.safe_load((world.root / "configs/global_config.yaml").read_bytes())["quality_assessment"] == {
        "ava_checkpoint": AVA,
        "siamese_checkpoint": SIAMESE,
        "weights": [0.5, 0.5],
    }
    served = (world.root / "src/serve.py").read_text()
    assert 'SIAMESE = ROOT / "models" / "album_app" / "siamese_comparison_model.pt"\n' in served
    assert f'default="{AVA}")  # ResNet50' in served
    assert (world.root / "src/serve.py").stat().st_mode & 0o111
    assert {left.place: left.why for left in plan.left} == {
        f"{AVA_RUN}/config.yaml:2": f"what lies in {AVA_RUN} stays as it is",
        f"{SIAMESE_RUN}/config.yaml:2": f"what lies in {SIAMESE_RUN} stays as it is",
        "src/train.py:2": "the program writes or removes it in line 2",
    }
    assert {name: data for name, data in tree(world).items() if name.startswith("outputs/")} == runs
    changed = world.git("show", "--name-only", "--format=", commit).splitlines()
    assert sorted(changed) == sorted([*also, "configs/global_config.yaml", "src/serve.py"])
    assert world.git("status", "--porcelain").splitlines() == ["A  staged.txt", "?? untracked.txt"]
    for name in MOVES.values():
        torch.load(world.root / name, weights_only=True)
    assert plan_rewrites(world.root, MOVES).rewrites == ()
    assert not (world.root / ".git" / JOURNAL).exists()

    world.git("commit", "--quiet", "-m", "the other change")
    world.git("revert", "--no-edit", commit)
    world.dvc("checkout", "--quiet")
    for name in MOVES.values():
        (world.root / name).unlink(missing_ok=True)  # DVC leaves what no file tracks any more
    assert tree(world) == before | {"staged.txt": b"of another change", "untracked.txt": b"mine"}


def test_diff_is_what_git_applies(world: World) -> None:
    world.write("crlf.py", f"A = 1\r\n\x0cM = '{AVA_RUN}/best_model.pt'\r\n# \u2028 \x0b \x85 x\r\n")
    world.write("noeol.json", f'{{"m": "{AVA_RUN}/best_model.pt"}}')
    world.commit("more")
    plan = plan_rewrites(world.root, MOVES)
    patch = world.root.parent / "rewriting.patch"
    patch.write_bytes(plan.diff().encode())
    world.git("apply", "--whitespace=nowarn", str(patch))
    assert {item.file: (world.root / item.file).read_bytes() for item in plan.rewrites} == {
        item.file: item.after for item in plan.rewrites
    }
    assert len(plan.rewrites) == 4
    assert f"\n-  ava_checkpoint: {AVA_RUN}/best_model.pt   # 96 MB\n" in plan.diff()
    assert f"\n+  ava_checkpoint: {AVA}   # 96 MB\n" in plan.diff()


def test_applied_without_a_commit(world: World) -> None:
    plan = plan_rewrites(world.root, MOVES)
    assert apply_rewrites(plan) == ("configs/global_config.yaml", "src/serve.py")
    assert world.git("status", "--porcelain").splitlines() == ["M configs/global_config.yaml", " M src/serve.py"]
    with pytest.raises(StalePlanError, match=r"configs/global_config\.yaml has changed"):
        apply_rewrites(plan)


@pytest.mark.parametrize("staged", [False, True])
def test_a_dirty_file_is_refused_with_its_name(world: World, staged: bool) -> None:
    world.write("src/serve.py", SERVE + "# mine\n")
    if staged:
        world.git("add", "src/serve.py")
    before, was = tree(world), index(world)
    with pytest.raises(UncommittedChangesError, match=r"^src/serve\.py: changed since the last commit"):
        commit_rewrites(plan_rewrites(world.root, MOVES), "x")
    assert (tree(world), index(world)) == (before, was)
    world.git("checkout", "HEAD", "--", "src/serve.py")
    world.write("docs/unrelated.md", "may be dirty")
    commit_rewrites(plan_rewrites(world.root, MOVES), "x")


def test_a_file_that_git_does_not_track_is_refused(world: World) -> None:
    world.write("new.yaml", f"m: {AVA_RUN}/best_model.pt\n")
    with pytest.raises(UncommittedChangesError, match=r"^new\.yaml: not tracked by git"):
        commit_rewrites(plan_rewrites(world.root, MOVES), "x")
    assert (world.root / "configs/global_config.yaml").read_text() == CONFIG


def test_names_are_no_patterns(world: World) -> None:
    world.write("conf/[a].yaml", f"m: {AVA_RUN}/best_model.pt\n")
    world.write("conf/a.yaml", "x: 1\n")
    world.commit("more")
    world.write("conf/a.yaml", "x: 2\n")
    commit = commit_rewrites(plan_rewrites(world.root, MOVES), "x")
    assert "conf/[a].yaml" in world.git("show", "--name-only", "--format=", commit)
    assert world.git("status", "--porcelain") == "M conf/a.yaml"


def test_a_stale_plan_writes_nothing(world: World) -> None:
    plan = plan_rewrites(world.root, MOVES)
    world.write("src/serve.py", SERVE + "# more\n")
    world.commit("more")
    before = tree(world)
    with pytest.raises(StalePlanError, match=r"src/serve\.py has changed"):
        commit_rewrites(plan, "x")
    assert tree(world) == before
    (world.root / "src/serve.py").unlink()
    with pytest.raises((StalePlanError, UncommittedChangesError), match=r"src/serve\.py"):
        commit_rewrites(plan, "x")


def test_what_git_refuses_leaves_everything_as_it_was(world: World) -> None:
    hook = world.write(".git/hooks/pre-commit", "#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    world.write("new.txt", "new")
    world.write("staged.txt", "one")
    world.git("add", "staged.txt")
    world.write("staged.txt", "two")
    before, was = tree(world), index(world)
    plan = plan_rewrites(world.root, MOVES)
    with pytest.raises(CommitError, match="not today"):
        commit_rewrites(plan, "x", also=["new.txt", "staged.txt"])
    assert (tree(world), index(world)) == (before, was)
    assert not (world.root / ".git" / JOURNAL).exists()
    hook.unlink()
    with pytest.raises(CommitError, match=r"outputs|ignored"):
        commit_rewrites(plan, "x", also=["new.txt", f"{AVA_RUN}/config.yaml"])
    assert (tree(world), index(world)) == (before, was)
    commit_rewrites(plan, "x", also=["new.txt"])
    assert world.git("status", "--porcelain") == "AM staged.txt"


def test_a_merge_under_way_is_refused(world: World) -> None:
    world.git("checkout", "--quiet", "-b", "side")
    world.write("a.txt", "side")
    world.commit("side")
    world.git("checkout", "--quiet", "main")
    world.write("a.txt", "main")
    world.commit("main")
    world.git("merge", "side", code=1)
    before, was = tree(world), index(world)
    with pytest.raises(CommitError, match="merge"):
        commit_rewrites(plan_rewrites(world.root, MOVES), "x")
    assert (tree(world), index(world)) == (before, was)


def test_files_that_go_belong_to_the_commit(world: World) -> None:
    (world.root / "src/train.py").unlink()
    commit = commit_rewrites(plan_rewrites(world.root, MOVES), "x", also=["src/train.py"])
    assert "D\tsrc/train.py" in world.git("show", "--name-status", "--format=", commit)
    assert world.git("status", "--porcelain") == ""


def test_a_project_below_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_repository(tmp_path, project="apps/album")
    for name, value in environment(made.home).items():
        if name.startswith("GIT_"):
            monkeypatch.setenv(name, value)
    made.write("apps/album/a.yaml", f"m: {AVA_RUN}/best_model.pt\n")
    made.write("a.yaml", f"m: {AVA_RUN}/best_model.pt\n")
    made.commit("more")
    hook = made.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    made.write("apps/album/new.txt", "new")
    was = index(made)
    plan = plan_rewrites(made.folder, MOVES)
    with pytest.raises(CommitError):
        commit_rewrites(plan, "x", also=["new.txt"])
    assert index(made) == was
    hook.unlink()
    commit = commit_rewrites(plan, "x", also=["new.txt"])
    assert made.git("show", "--name-only", "--format=", commit).split() == ["apps/album/a.yaml", "apps/album/new.txt"]
    made.write("apps/album/a.yaml", f"m: {AVA_RUN}/best_model.pt\n")
    with pytest.raises(UncommittedChangesError, match=r"^a\.yaml: changed"):
        refuse_uncommitted(made.folder, ["a.yaml"])


def test_outside_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.yaml").write_text(f"m: {AVA_RUN}/best_model.pt\n")
    plan = plan_rewrites(tmp_path / "p", MOVES)
    with pytest.raises(CommitError, match="no git repository"):
        commit_rewrites(plan, "x")
    assert (tmp_path / "p/a.yaml").read_text() == f"m: {AVA_RUN}/best_model.pt\n"


def test_nothing_to_commit_and_paths_outside(world: World) -> None:
    empty = RewritePlan(world.root, {}, (), ())
    with pytest.raises(UsageError, match="nothing to commit"):
        commit_rewrites(empty, "x")
    for path in ("/etc/passwd", "../x"):
        with pytest.raises(UsageError, match="outside"):
            commit_rewrites(empty, "x", also=[path])
    world.write("new.txt", "new")
    commit_rewrites(empty, "only this", also=["new.txt"])
    assert world.git("log", "-1", "--format=%s") == "only this"


CHILD = """
import sys
from pathlib import Path
from holdfast.registry.rewriting import plan_rewrites
from holdfast.registry.rewriting_commit import commit_rewrites
import holdfast.registry.rewriting_commit as module

sys.path.insert(0, sys.argv[3])
from test_registry_rewriting_commit import MOVES, hang_at
hang_at(module, int(sys.argv[2]))
commit_rewrites(plan_rewrites(Path(sys.argv[1]), MOVES), "Promote", also=["new.txt"])
"""


def hang_at(module: object, step: int) -> None:
    """Make the n-th write of the module say so and wait to be killed; 0 waits in the commit, by a hook."""
    written = module._write  # type: ignore[attr-defined]
    done = [0]

    def write(path: Path, data: bytes) -> None:
        done[0] += 1
        if done[0] == step:
            print("hanging", flush=True)
            time.sleep(600)
        written(path, data)

    module._write = write  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", [1, 2, 0])
def test_killed_at_each_step(world: World, step: int) -> None:
    """Either the old state comes back or the commit is there; a run after it ends well."""
    world.write("new.txt", "new")
    before, head = tree(world), world.git("rev-parse", "HEAD")
    hook = world.write(".git/hooks/pre-commit", "#!/bin/sh\necho hanging >&2\nexec sleep 600\n")
    hook.chmod(0o755)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(world.root), str(step), str(Path(__file__).parent)],
        env=environment(world.home) | {"GIT_TRACE": "0"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        if step:
            assert child.stdout is not None
            assert child.stdout.readline() == "hanging\n"
        else:
            deadline = time.monotonic() + 60
            while not (world.root / ".git/index.lock").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
    finally:
        os.killpg(child.pid, signal.SIGKILL)  # git and its hook, too
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    (world.root / ".git/index.lock").unlink(missing_ok=True)
    hook.unlink()
    assert world.git("rev-parse", "HEAD") == head
    assert (world.root / ".git" / JOURNAL).exists()

    with pytest.raises(StalePlanError, match="cut off") if step != 1 else _nothing():
        commit_rewrites(plan_rewrites(world.root, MOVES), "Promote", also=["new.txt"])
    if step != 1:
        assert tree(world) == before
        commit_rewrites(plan_rewrites(world.root, MOVES), "Promote", also=["new.txt"])
    assert world.git("status", "--porcelain") == ""
    assert world.git("rev-list", "--count", f"{head}..HEAD") == "1"
    world.git("revert", "--no-edit", "HEAD")
    assert tree(world) == {name: data for name, data in before.items() if name != "new.txt"}


class _nothing:  # noqa: N801 - reads as a context beside `pytest.raises`
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_interrupted_after_the_commit(world: World) -> None:
    """What git has committed stands, however the command ends."""
    hook = world.write(".git/hooks/post-commit", "#!/bin/sh\nkill -INT $(ps -o ppid= -p $PPID)\nsleep 1\n")
    hook.chmod(0o755)
    world.write("new.txt", "new")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(world.root), "9", str(Path(__file__).parent)],
        env=environment(world.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert world.git("log", "-1", "--format=%s") == "Promote"
    assert world.git("status", "--porcelain") == ""
    assert AVA in (world.root / "src/serve.py").read_text()
    assert not (world.root / ".git" / JOURNAL).exists()


def test_first_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = World(tmp_path / "code", make_home(tmp_path))
    made.root.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(made.home / "gitconfig"))
    made.git("init", "--quiet")
    made.write("README.md", "new")
    made.write("a.yaml", f"m: {AVA_RUN}/best_model.pt\n")
    commit = commit_rewrites(RewritePlan(made.root, {}, (), ()), "First", also=["README.md"])
    assert commit == made.git("rev-parse", "HEAD")
    with pytest.raises(UncommittedChangesError, match="not tracked"):
        commit_rewrites(plan_rewrites(made.root, MOVES), "x")


def test_undoing_leaves_what_changed_since(world: World) -> None:
    plan = plan_rewrites(world.root, MOVES)
    assert undo_unfinished(world.root) == ()
    from holdfast.registry.rewriting_commit import _journal_text

    journal = world.write(f".git/{JOURNAL}", _journal_text(plan))
    apply_rewrites(plan)
    world.write("src/serve.py", "mine\n")
    assert undo_unfinished(world.root) == ("configs/global_config.yaml",)
    assert (world.root / "src/serve.py").read_text() == "mine\n"
    assert not journal.exists()
    # a commit that was made before the kill stands
    world.git("checkout", "--", "src/serve.py")
    commit_rewrites(plan_rewrites(world.root, MOVES), "x")
    world.write(f".git/{JOURNAL}", _journal_text(plan))
    assert undo_unfinished(world.root) == ()
    assert world.git("status", "--porcelain") == ""
