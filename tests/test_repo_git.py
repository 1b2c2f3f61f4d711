"""Where the project is, what git says of it, and where DVC keeps its cache."""

from pathlib import Path

import pytest

from holdfast.errors import NotARepositoryError
from holdfast.repo.dvc import DvcConfigError, local_cache, local_remotes
from holdfast.repo.git import head_revision, is_dirty, is_shallow
from holdfast.repo.workspace import find_project
from worlds import World, make_home, make_repository, run

CACHE_OF_DVC = """
from dvc.repo import Repo
with Repo(".") as repo:
    print(repo.cache.legacy.path, ",".join(repo.cache.local.cache_types))
"""


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "home" / "dvc-global"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "home" / "dvc-system"))


def test_head_dirty_and_shallow(tmp_path: Path) -> None:
    world = World(tmp_path / "repository", make_home(tmp_path))
    world.root.mkdir()
    assert head_revision(world.root) is None
    assert is_dirty(world.root) is False
    assert is_shallow(world.root) is False
    world.git("init", "-q")
    assert head_revision(world.root) is None
    world.write("deep/file", "x")
    commit = world.commit()
    assert head_revision(world.root / "deep") == commit
    world.write("untracked", "x")
    assert is_dirty(world.root / "deep") is False
    world.write("deep/file", "y")
    assert is_dirty(world.root / "deep") is True
    world.git("checkout", "-q", "--detach")
    assert head_revision(world.root) == commit
    world.git("worktree", "add", "-q", str(tmp_path / "linked"))
    assert head_revision(tmp_path / "linked") == commit
    world.commit("second")
    for depth, expected in ((1, True), (9, False)):
        clone = tmp_path / f"clone{depth}"
        run(["git", "clone", "-q", "--depth", str(depth), f"file://{world.root}", str(clone)], tmp_path, world.home)
        assert is_shallow(clone) is expected
    run(["git", "worktree", "add", "-q", str(tmp_path / "linked-to-shallow")], tmp_path / "clone1", world.home)
    assert is_shallow(tmp_path / "linked-to-shallow") is True


def test_nearest_project_counts(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write("sub/.dvc/config", "")
    world.write("sub/deep/file", "")
    assert find_project(world.root).prefix == ""
    project = find_project(world.root / "sub" / "deep")
    assert (project.root, project.git_root, project.prefix) == (world.root / "sub", world.root, "sub")
    world.commit()
    world.git("worktree", "add", "-q", str(tmp_path / "linked"))
    assert find_project(tmp_path / "linked").git_root == tmp_path / "linked"


@pytest.mark.parametrize(
    ("folders", "hint"),
    [([], "git init && holdfast init"), ([".git"], "`holdfast init`"), ([".dvc"], "`git init` there")],
)
def test_outside_says_the_way_out(tmp_path: Path, folders: list[str], hint: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(NotARepositoryError) as raised:
        find_project(tmp_path)
    assert raised.value.exit_code == 10
    assert hint in str(raised.value)
    assert "--cd" in str(raised.value)


@pytest.mark.parametrize("level", ["", "--local", "--global", "--system"])
def test_cache_is_where_dvc_has_it(tmp_path: Path, level: str) -> None:
    world = make_repository(tmp_path)
    if level:
        where = [level] if level != "" else []
        world.dvc("config", *where, "cache.dir", str(tmp_path / "shared"))
        world.dvc("config", *where, "cache.type", "hardlink,copy")
    cache = local_cache(world.root)
    assert f"{cache.folder} {','.join(cache.link_types)}" == world.python(CACHE_OF_DVC)
    assert cache.outside is bool(level)


def test_levels_of_configuration_shadow_each_other(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".dvc/config", "[cache]\n    dir = ../one\n")
    assert local_cache(world.root).folder == world.root / "one"
    world.write(".dvc/config.local", f"[cache]\n    dir = {tmp_path}/two\n")
    cache = local_cache(world.root)
    assert (cache.folder, cache.outside) == (tmp_path / "two", True)


def test_linked_cache_lies_where_the_link_leads(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    world.cache.symlink_to(tmp_path / "elsewhere")
    cache = local_cache(world.root)
    assert (cache.folder, cache.outside) == (tmp_path / "elsewhere", True)


def test_old_form_of_a_named_cache(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".dvc/config", f"[cache]\n    local = here\n['remote \"here\"']\n    url = {tmp_path}/named\n")
    assert local_cache(world.root).folder == tmp_path / "named"
    world.write(".dvc/config", "[cache]\n    local = nowhere\n")
    with pytest.raises(DvcConfigError, match="nowhere"):
        local_cache(world.root)


def test_local_remotes(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(
        ".dvc/config", "['remote \"near\"']\n    url = ../near\n['remote \"far\"']\n    url = s3://bucket/prefix\n"
    )
    assert local_remotes(world.root) == {"near": world.root / "near"}


def test_damaged_configuration_is_named(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".dvc/config", "[cache]\n    colour = red\n")
    with pytest.raises(DvcConfigError, match="colour"):
        local_cache(world.root)
