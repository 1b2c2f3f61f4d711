"""Git's folder read as files: what git itself says of refs, and repositories that cannot be read whole."""

from pathlib import Path

import pytest

from holdfast.repo.gitfolder import (
    GitFolder,
    ShallowCloneError,
    UnreadableRefError,
    UnsupportedRepositoryError,
    find_git_folder,
)
from holdfast.repo.history import HistoryReader, Sighting
from holdfast.repo.refs import list_tips
from worlds import World, make_repository, run


def refs_of_git(world: World) -> dict[str, str]:
    lines = world.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return {name: oid for name, _, oid in (line.partition(" ") for line in lines)}


def clone(world: World, name: str, *options: str) -> World:
    folder = world.root.parent / name
    run(["git", "clone", "-q", *options, f"file://{world.root}", str(folder)], world.root.parent, world.home)
    return World(folder, world.home)


def read(world: World) -> list[Sighting]:
    reader = HistoryReader(find_git_folder(world.root))
    return [*reader.read_refs(), *reader.read_index()]


def oids(world: World) -> set[str]:
    return {one.out.oid for one in read(world)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_repository(tmp_path)
    for number in range(3):
        world.track("data.csv", f"version {number}")
        world.commit()
        world.git("branch", f"topic/{number}")
    world.git("tag", "light")
    world.git("tag", "-a", "-m", "tag", "annotated")
    world.git("tag", "-a", "-m", "tag of a tag", "twice", "annotated")
    return world


# --- refs ---------------------------------------------------------------------------------------------------------


def test_refs_are_those_of_git(world: World) -> None:
    folder = find_git_folder(world.root)
    assert folder.refs() == refs_of_git(world)
    world.git("pack-refs", "--all")
    assert (world.root / ".git/packed-refs").exists()
    assert find_git_folder(world.root).refs() == refs_of_git(world)
    # a loose ref beats the packed one, a deleted one is gone
    world.track("data.csv", "newer")
    world.commit()
    world.git("branch", "-D", "topic/0")
    world.git("symbolic-ref", "refs/heads/alias", "refs/heads/topic/1")
    assert find_git_folder(world.root).refs() == refs_of_git(world)
    copy = clone(world, "copy")
    assert find_git_folder(copy.root).refs() == refs_of_git(copy)
    bare = clone(world, "bare", "--bare")
    assert find_git_folder(bare.root).refs() == refs_of_git(bare)
    assert find_git_folder(bare.root).worktree is None
    assert oids(bare) == oids(world)


def test_head_on_a_branch_detached_and_unborn(world: World) -> None:
    first = world.git("rev-parse", "HEAD")
    assert find_git_folder(world.root).head() == ("refs/heads/main", first)
    world.git("checkout", "-q", "--detach")
    assert find_git_folder(world.root).head() == (None, first)
    world.git("checkout", "-q", "--orphan", "empty")
    assert find_git_folder(world.root).head() == ("refs/heads/empty", None)
    (world.root / ".git/HEAD").write_text("nonsense\n")
    with pytest.raises(UnreadableRefError, match="HEAD is damaged"):
        find_git_folder(world.root).head()


def test_logs_are_those_of_git(world: World) -> None:
    world.git("commit", "-q", "--amend", "-m", "other")
    folder = find_git_folder(world.root)
    for name in ("HEAD", "refs/heads/main", "refs/heads/topic/1"):
        assert folder.log(name) == world.git("log", "-g", "--format=%H", name).splitlines()
    assert folder.log("refs/heads/nothing") == []


def test_linked_worktree_has_its_own_head(world: World, tmp_path: Path) -> None:
    linked = World(tmp_path / "linked", world.home)
    world.git("worktree", "add", "-q", str(linked.root), "topic/1")
    folder = find_git_folder(linked.root)
    assert folder.head() == ("refs/heads/topic/1", linked.git("rev-parse", "HEAD"))
    assert folder.refs() == refs_of_git(world)
    assert folder.worktrees() == {"main worktree": world.root}
    assert find_git_folder(world.root).worktrees() == {"linked": linked.root}


def test_refs_of_one_worktree_alone_are_kept(world: World, tmp_path: Path) -> None:
    """`refs/worktree/` of another worktree may be the only one that holds a commit."""
    linked = World(tmp_path / "linked", world.home)
    world.git("worktree", "add", "-q", "--detach", str(linked.root))
    oid = world.store("of the worktree")
    linked.write("data.csv.dvc", f"outs:\n- md5: {oid}\n  size: 9\n  hash: md5\n  path: data.csv\n")
    linked.commit()
    linked.git("update-ref", "refs/worktree/mine", "HEAD")
    linked.git("checkout", "-q", "--detach", "main")
    assert oid in oids(world)
    assert oid in oids(linked)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("refs/heads/broken", "garbage\n"),
        ("refs/heads/broken", ""),
        ("refs/heads/broken", "\xff\xfe"),
        ("refs/heads/broken", f"{'1' * 40}\n"),
        ("refs/heads/broken", "ref: refs/heads/nowhere\n"),
        ("refs/heads/broken", "ref: refs/heads/broken\n"),
        ("packed-refs", "nonsense refs/heads/broken\n"),
        ("packed-refs", f"{'1' * 39} refs/heads/broken\n"),
    ],
)
def test_damaged_ref_is_named(world: World, path: str, content: str) -> None:
    (world.root / ".git" / path).write_bytes(content.encode("latin-1"))
    with pytest.raises(UnreadableRefError, match="broken") as raised:
        read(world)
    assert raised.value.hint


def test_what_lies_beside_refs_is_none(world: World) -> None:
    expected = oids(world)
    (world.root / ".git/refs/heads/main.lock").write_text("")
    world.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/gone")
    blob = world.git("hash-object", "-w", "data.csv.dvc")
    world.git("tag", "key", blob)
    assert oids(world) == expected


def test_tag_of_a_tree_is_named(world: World) -> None:
    world.git("tag", "tree", world.git("rev-parse", "HEAD^{tree}"))
    with pytest.raises(UnreadableRefError, match=r"refs/tags/tree .*points to a tree"):
        read(world)


def test_tags_lead_to_their_commits(world: World) -> None:
    folder = find_git_folder(world.root)
    reader = HistoryReader(folder)
    tips = {tip.name: tip.origin.commit for tip in list_tips(folder, reader.objects)}
    head = world.git("rev-parse", "HEAD")
    assert {tips[f"refs/tags/{name}"] for name in ("light", "annotated", "twice")} == {head}


# --- repositories that cannot be read whole -----------------------------------------------------------------------


def test_shallow_clone_is_refused_until_it_is_whole(world: World) -> None:
    shallow = clone(world, "shallow", "--depth", "1")
    with pytest.raises(ShallowCloneError, match="git fetch --unshallow"):
        find_git_folder(shallow.root)
    shallow.git("worktree", "add", "-q", str(world.root.parent / "of-shallow"))
    with pytest.raises(ShallowCloneError):
        find_git_folder(world.root.parent / "of-shallow")
    shallow.git("fetch", "-q", "--unshallow")
    assert oids(shallow) <= oids(world)


@pytest.mark.parametrize("kind", ["blob:none", "tree:0"])
def test_partial_clone_fetches_nothing_and_names_the_way_out(world: World, kind: str) -> None:
    world.git("config", "uploadpack.allowFilter", "true")
    partial = clone(world, "partial", f"--filter={kind}")
    before = sorted(path.name for path in (partial.root / ".git/objects").rglob("*"))
    with pytest.raises(UnreadableRefError, match="partial clone") as raised:
        read(partial)
    assert sorted(path.name for path in (partial.root / ".git/objects").rglob("*")) == before
    assert raised.value.hint is not None
    command = raised.value.hint.split("`")[1].split()
    assert command[:2] == ["git", "fetch"]
    partial.git(*command[1:], "--quiet")
    assert oids(partial) == {one.out.oid for one in read(world)}


def test_grafts_are_refused_and_become_refs(world: World) -> None:
    head, parent = world.git("rev-parse", "HEAD", "HEAD~1").splitlines()
    expected = oids(world)
    (world.root / ".git/info").mkdir(exist_ok=True)
    (world.root / ".git/info/grafts").write_text(f"# without its parents\n{head}\n")
    with pytest.raises(UnsupportedRepositoryError, match="grafts"):
        find_git_folder(world.root)
    world.git("replace", "--convert-graft-file")
    assert parent not in world.git("log", "--format=%H", "main")  # git believes the graft, the reader does not
    assert oids(world) == expected


def test_replaced_commit_is_read_with_its_replacement(world: World) -> None:
    expected = oids(world)
    first = world.git("rev-parse", "HEAD~2")
    oid = world.store("only in the replacement")
    world.write("data.csv.dvc", f"outs:\n- md5: {oid}\n  size: 9\n  hash: md5\n  path: data.csv\n")
    world.git("add", "-A")
    replacement = world.git("commit-tree", world.git("write-tree"), "-m", "replacement")
    world.git("reset", "-q", "--hard")
    world.git("replace", first, replacement)
    assert oids(world) == expected | {oid}


@pytest.mark.parametrize("what", ["HEAD:data.csv.dvc", "HEAD^{tree}"])
def test_replaced_file_or_folder_is_refused(world: World, what: str) -> None:
    other = {"HEAD:data.csv.dvc": "HEAD~1:data.csv.dvc", "HEAD^{tree}": "HEAD~1^{tree}"}[what]
    world.git("replace", world.git("rev-parse", what), world.git("rev-parse", other))
    with pytest.raises(UnreadableRefError, match=r"refs/replace/.*replaces a (blob|tree)"):
        read(world)


def test_other_hashes_are_refused(world: World) -> None:
    root = world.root.parent / "other"
    run(["git", "init", "-q", "--object-format=sha256", str(root)], world.root.parent, world.home)
    with pytest.raises(UnsupportedRepositoryError, match="sha256") as raised:
        find_git_folder(root)
    assert "--object-format=sha1" in str(raised.value.hint)


def test_other_places_of_refs_are_refused(world: World) -> None:
    # as `git init --ref-format=reftable` writes it, which needs git 2.45
    world.git("config", "core.repositoryformatversion", "1")
    with (world.root / ".git/config").open("a") as config:
        config.write('[extensions]\n\trefStorage = reftable ; comment\n[remote "x"]\n\turl = y\n')
    with pytest.raises(UnsupportedRepositoryError, match="reftable") as raised:
        find_git_folder(world.root)
    assert "git refs migrate" in str(raised.value.hint)


def test_objects_of_alternates_are_found(world: World) -> None:
    borrowing = World(world.root.parent / "borrowing", world.home)
    run(["git", "clone", "-q", "--shared", str(world.root), str(borrowing.root)], world.root.parent, world.home)
    assert (borrowing.root / ".git/objects/info/alternates").exists()
    assert oids(borrowing) == oids(world)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRefError, match="no git repository"):
        find_git_folder(tmp_path)


def test_submodules_are_named_and_left_alone(world: World) -> None:
    other = make_repository(world.root.parent / "library")
    oid = other.track("weights.bin", "of the submodule")
    other.commit()
    world.git("submodule", "--quiet", "add", f"file://{other.root}", "libs/library")
    world.commit()
    folder = find_git_folder(world.root)
    assert isinstance(folder, GitFolder)
    assert folder.submodules() == ["libs/library"]
    assert oid not in oids(world)
