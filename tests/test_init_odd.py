"""``holdfast init`` where something is odd: nothing is lost, what cannot be done is told in a line, the rest is done."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from holdfast.errors import HoldfastError
from holdfast.project.setup import UncommittedError, footprint, write
from init_world import call, content, make_plain, prepared, proposed, undo
from worlds import TOOLS, World, environment, make_home, run

OTHER_USER = 65534


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_plain(tmp_path)


def refused(folder: Path, home: Path, code: int) -> str:
    """The one line of an init that ends with ``code``."""
    error = call(World(folder, home), "init", "--yes", code=code)
    assert error.count("\n") == 1, error
    return error


def left_of(root: Path) -> dict[str, str]:
    return {item.path: item.why for item in prepared(root).left}


def test_no_repository_and_a_bare_one(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    empty, bare = tmp_path / "empty", tmp_path / "bare.git"
    empty.mkdir()
    assert "git init" in refused(empty, home, 10)
    assert list(empty.iterdir()) == []
    run(["git", "init", "--quiet", "--bare", str(bare)], tmp_path, home)
    before = content(bare)
    assert "without a working tree" in refused(bare, home, 10)
    assert content(bare) == before


def test_a_repository_of_somebody_else(plain: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    for path in (plain.root, plain.root / ".git"):
        os.chown(path, OTHER_USER, OTHER_USER)
    error = refused(plain.root, plain.home, 10)
    assert f"`git config --global --add safe.directory {plain.root}` says that you trust it" in error
    plain.git("config", "--global", "--add", "safe.directory", str(plain.root))
    call(plain, "init", "--yes")


def test_a_folder_that_cannot_be_written(plain: World) -> None:
    command = [str(TOOLS / "holdfast"), "init", "--yes"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everywhere, and there is no setpriv to take that away")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    before = content(plain.root)
    plain.root.chmod(0o555)
    try:
        done = subprocess.run(
            command, cwd=plain.root, env=environment(plain.home), capture_output=True, text=True, check=False
        )
    finally:
        plain.root.chmod(0o755)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert done.stderr.count("\n") == 1
    assert content(plain.root) == before


def test_before_the_first_commit(tmp_path: Path) -> None:
    world = World(tmp_path / "repository", make_home(tmp_path))
    world.root.mkdir()
    world.git("init", "--quiet")
    setup = proposed(world.root)
    line = footprint(setup)
    write(setup)
    assert (world.root / ".gitignore").read_text().endswith("/dvc_plots/\n")
    undo(world, line.undo(world.root))
    assert content(world.root) == {}
    world.write(".gitignore", "*.pyc\n")
    with pytest.raises(UncommittedError, match=r"\.gitignore has changes that no commit has"):
        prepared(world.root)
    assert content(world.root) == {".gitignore": b"*.pyc\n"}


def test_what_no_commit_has_is_not_touched(plain: World) -> None:
    plain.write(".gitignore", "*.pyc\n")
    plain.commit()
    for change in (lambda: plain.write(".gitignore", "*.pyo\n"), lambda: plain.git("add", ".gitignore")):
        change()
        before = content(plain.root)
        assert ".gitignore has changes" in refused(plain.root, plain.home, 1)
        assert content(plain.root) == before
        assert "Commit first: .gitignore" in call(plain, "init", "--dry-run")
    plain.write("app.py", "# not ours\n")
    plain.git("commit", "--quiet", "-m", "ours", "--", ".gitignore")
    setup = prepared(plain.root)
    assert (plain.root / "app.py").read_text() == "# not ours\n"
    assert ".gitignore" in {item.path for item in setup.proposals}


def test_what_git_ignores_is_not_touched(plain: World) -> None:
    """Git has no copy of it, and could not bring it back."""
    plain.write(".gitignore", "CODEOWNERS\n.*.tmp\n/dvc_plots/\n")
    plain.commit()
    plain.write("CODEOWNERS", "* @ada\n")
    with pytest.raises(UncommittedError, match="CODEOWNERS has changes"):
        prepared(plain.root)
    assert set(content(plain.root)) == {"app.py", ".gitignore", "CODEOWNERS"}


def test_a_file_that_changes_while_the_user_thinks(plain: World) -> None:
    setup = proposed(plain.root)
    plain.write("holdfast.yaml", "scan: {}\n")
    with pytest.raises(HoldfastError, match=r"holdfast\.yaml was changed just now"):
        write(setup)
    assert (plain.root / "holdfast.yaml").read_text() == "scan: {}\n"
    setup = proposed(plain.root)
    plain.write("registry", "a file")
    with pytest.raises(HoldfastError, match=r"registry/README\.md was changed just now"):
        write(setup)


def test_undo_keeps_what_came_later(plain: World) -> None:
    """DVC's cache and files of the user's own in new folders are not ours to take away."""
    setup = proposed(plain.root)
    line = footprint(setup)
    write(setup)
    plain.write(".dvc/cache/files/md5/aa/bb", "an object")
    plain.write(".dvc/storage/files/md5/aa/bb", "an object")
    undo(plain, line.undo(plain.root))
    assert (plain.root / ".dvc/cache/files/md5/aa/bb").exists()
    assert (plain.root / ".dvc/storage/files/md5/aa/bb").exists()
    assert set(content(plain.root)) == {"app.py", ".dvc/storage/files/md5/aa/bb"}


def test_files_that_git_ignores_are_undone_as_well(plain: World) -> None:
    plain.write(".gitignore", "*.yaml\nregistry\n.dvc\n")
    plain.commit()
    before = content(plain.root)
    setup = proposed(plain.root)
    line = footprint(setup)
    write(setup)
    plain.write(".dvc/cache/files/md5/aa/bb", "an object")
    undo(plain, line.undo(plain.root))
    assert content(plain.root) == before
    assert (plain.root / ".dvc/cache/files/md5/aa/bb").exists()


def test_a_detached_head_and_a_worktree(plain: World, tmp_path: Path) -> None:
    plain.git("checkout", "--quiet", "--detach")
    other = World(tmp_path / "linked worktree", plain.home)
    plain.git("worktree", "add", "--quiet", "-b", "side", str(other.root))
    for world in (plain, other):
        before = content(world.root)
        setup = proposed(world.root)
        line = footprint(setup)
        write(setup)
        assert proposed(world.root, remotes={"storage": "storage"}).proposals == ()
        undo(world, line.undo(world.root))
        assert content(world.root) == before


def test_a_submodule_is_a_repository_of_its_own(plain: World, tmp_path: Path) -> None:
    inner = make_plain(tmp_path, "inner")
    plain.git("submodule", "--quiet", "add", str(inner.root), "lib")
    plain.commit()
    lib = World(plain.root / "lib", plain.home)
    call(lib, "init", "--yes")
    assert (lib.root / ".dvc/config").is_file()
    assert set(content(plain.root)) == {
        "app.py",
        ".gitmodules",
        *(f"lib/{name}" for name in content(lib.root)),
        "lib/.git",
    }
    outer = prepared(plain.root)
    assert not any(item.path.startswith("lib/") for item in outer.proposals)


def test_a_project_below_the_top(plain: World) -> None:
    name = "мой проект [1]"
    plain.write(f"{name}/train.py", "print(1)\n")
    plain.commit()
    below = World(plain.root, plain.home, name)
    assert "--subdir" in refused(below.folder, plain.home, 2)
    before = content(plain.root)
    answer = call(below, "init", "--yes", "--subdir", "--owner", "@team")
    after = set(content(plain.root)) - set(before)
    inside = {".dvc/.gitignore", ".dvc/config", ".dvcignore", "holdfast.yaml", "registry/README.md", ".gitignore"}
    assert after == {f"{name}/{path}" for path in inside} | {"CODEOWNERS", ".pre-commit-config.yaml"}
    assert (plain.root / "CODEOWNERS").read_text().endswith("/мой\\ проект\\ [1]/registry/ @team\n")
    hooks = yaml.safe_load((plain.root / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks[:2]:
        # split as a shell does it, from the top
        assert hook["entry"].startswith(f'holdfast --cd "{name}" ')
        run(["sh", "-c", hook["entry"]], plain.root, plain.home)
    assert call(below, "init", "--yes").rstrip().endswith("the repository is set up.")
    line = next(line.strip() for line in answer.splitlines() if line.strip().startswith("git clean"))
    undo(below, line)
    assert content(plain.root) == before


def test_names_that_git_takes_for_patterns(plain: World) -> None:
    for name in ("a[1]", "a1", "b*", "bc"):
        plain.write(f"{name}/train.py", "print(1)\n")
    plain.commit()
    before = content(plain.root)
    for name in ("a[1]", "b*"):
        plain.write(f"{name[0]}{'1' if name[0] == 'a' else 'c'}/.dvcignore", "mine\n")
        setup = proposed(plain.root, plain.root / name)
        line = footprint(setup)
        write(setup)
        undo(plain, line.undo(plain.root))
    assert content(plain.root) == {**before, "a1/.dvcignore": b"mine\n", "bc/.dvcignore": b"mine\n"}


def test_half_a_set_up_is_completed(plain: World) -> None:
    plain.write(".dvc/.gitignore", "/tmp\n")
    plain.write(".dvc/tmp/x", "")
    plain.commit()
    prepared(plain.root)
    assert (plain.root / ".dvc/.gitignore").read_text() == "/tmp\n/config.local\n/cache\n/storage\n"
    plain.dvc("status")


@pytest.mark.parametrize("kind", ["file", "link", "dead link", "loop"])
@pytest.mark.parametrize("place", [".dvc", "registry"])
def test_something_else_where_a_folder_goes(plain: World, tmp_path: Path, place: str, kind: str) -> None:
    target = tmp_path / "outside"
    target.mkdir()
    path = plain.root / place
    if kind == "file":
        path.write_text("mine")
    else:
        path.symlink_to({"link": target, "dead link": tmp_path / "nowhere", "loop": path}[kind])
    plain.commit()
    before = content(plain.root)
    left = left_of(plain.root)
    assert any(name.startswith(place) for name in left), left
    assert list(target.iterdir()) == []
    after = content(plain.root)
    assert before.items() <= {**after, ".gitignore": before.get(".gitignore")}.items() or before[place] == after[place]
    assert not any(name.startswith(f"{place}/") for name in after)
    assert "holdfast.yaml" in after


def test_something_else_where_a_file_goes(plain: World, tmp_path: Path) -> None:
    aside = tmp_path / "ignore"
    aside.write_text("*.pyc\n")
    (plain.root / ".gitignore").symlink_to(aside)
    plain.write("holdfast.yaml/inside.txt", "mine")
    plain.write(".pre-commit-config.yaml", b"\xff\xfe\x00")
    plain.commit()
    left = left_of(plain.root)
    assert left == {
        ".gitignore": "it is a link",
        "holdfast.yaml": "it is a folder, and must be a file",
        ".pre-commit-config.yaml": "it is no UTF-8",
    }
    assert aside.read_text() == "*.pyc\n"
    assert (plain.root / ".gitignore").is_symlink()


@pytest.mark.parametrize(
    "text",
    [
        "repos:\n\t- repo: x\n",
        "repos: [\n",
        "just words\n",
        "repos:\n  local: {}\n",
        "repos: [{repo: local, hooks: []}]\n",
    ],
)
def test_hooks_that_cannot_be_added_to_are_left(plain: World, text: str) -> None:
    plain.write(".pre-commit-config.yaml", text)
    plain.commit()
    setup = prepared(plain.root)
    (left,) = setup.left
    assert left.path == ".pre-commit-config.yaml"
    assert "holdfast-check" in left.add
    assert (plain.root / ".pre-commit-config.yaml").read_text() == text
    assert len(setup.proposals) == 7


def test_line_ends_of_other_systems_stay(plain: World) -> None:
    plain.write(".gitignore", b"*.pyc\r\n")
    plain.write("CODEOWNERS", b"* @ada\r\n")
    plain.write(".pre-commit-config.yaml", b"repos:\r\n- repo: meta\r\n  hooks:\r\n  - id: identity\r\n")
    plain.commit()
    prepared(plain.root)
    for name in (".gitignore", "CODEOWNERS", ".pre-commit-config.yaml"):
        data = (plain.root / name).read_bytes()
        assert data.count(b"\n") == data.count(b"\r\n") > 2, name


def test_a_mode_stays(plain: World) -> None:
    plain.write(".gitignore", "*.pyc\n").chmod(0o600)
    plain.commit()
    prepared(plain.root)
    assert (plain.root / ".gitignore").stat().st_mode & 0o777 == 0o600


def test_settings_that_are_wrong_end_it_in_a_line(plain: World) -> None:
    plain.write("holdfast.yaml", "scann: {}\n")
    assert "holdfast.yaml:1: scann is no setting of Holdfast" in refused(plain.root, plain.home, 1)
    assert set(content(plain.root)) == {"app.py", "holdfast.yaml"}
