"""Commits that remotes have and the clone has not; other repositories that share objects."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.repo.gitfolder import find_git_folder
from holdfast.repo.history import HistoryReader
from holdfast.repo.others import UnreadableOtherError, other_repositories, read_other, submodules
from holdfast.repo.remotes import MissingCommit, UnreachableRemoteError, missing_commits
from worlds import World, environment, make_repository, run


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture
def upstream(tmp_path: Path) -> World:
    """A repository with a branch, a tag and an experiment."""
    world = make_repository(tmp_path / "upstream")
    world.track("data.csv", "first")
    world.commit()
    world.git("tag", "-a", "-m", "one", "v1")
    return world


@pytest.fixture(params=["file", "daemon"])
def url(request: pytest.FixtureRequest, upstream: World) -> Iterator[str]:
    """Where the repository is served."""
    if request.param == "file":
        yield f"file://{upstream.root}"
        return
    port = free_port()
    command = ["git", "daemon", "--export-all", f"--base-path={upstream.root.parent}", "--listen=127.0.0.1"]
    daemon = subprocess.Popen(
        [*command, f"--port={port}", "--reuseaddr"],
        env=environment(upstream.home),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"git://127.0.0.1:{port}/{upstream.root.name}"
    finally:
        # the daemon is a child of `git`, in the group that we made for them
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait()


def clone(world: World, url: str, folder: Path) -> World:
    run(["git", "clone", "-q", url, str(folder)], folder.parent, world.home)
    return World(folder, world.home)


def advance(world: World) -> dict[str, str]:
    """New commits upstream under every kind of ref; ref → commit."""
    result = {}
    base = world.git("rev-parse", "main")
    places = (
        "refs/heads/main",
        "refs/heads/topic/new",
        "refs/tags/v2",
        "refs/pull/7/head",
        "refs/merge-requests/3/head",
    )
    for place in (*places, f"refs/exps/{base[:2]}/{base[2:]}/quick-cat"):
        world.git("checkout", "-q", "--detach", "main")
        world.track("data.csv", place)
        result[place] = world.commit(place)
    world.git("checkout", "-q", "--detach")
    for place, commit in result.items():
        world.git("update-ref", place, commit)
    return result


def test_what_a_remote_has_and_we_have_not(upstream: World, url: str, tmp_path: Path) -> None:
    here = clone(upstream, url, tmp_path / "here")
    assert missing_commits(here.root) == []
    new = advance(upstream)
    # neither merge results nor another clone's queue are anybody's to fetch
    upstream.git("update-ref", "refs/pull/7/merge", new["refs/pull/7/head"])
    upstream.git("update-ref", "refs/exps/celery/stash", new["refs/heads/main"])
    missing = missing_commits(here.root)
    assert {entry.ref: entry.commit for entry in missing} == new
    assert {entry.remote for entry in missing} == {"origin"}
    for command in {entry.command for entry in missing}:
        run(["sh", "-c", command], here.root, here.home)
    assert missing_commits(here.root) == []
    # and now they count
    reader = HistoryReader(find_git_folder(here.root))
    named = {one.out.oid for one in reader.read_refs()}
    assert {upstream.store(place) for place in new} <= named
    assert missing_commits(here.root, reached=reader.reached) == []


def test_an_annotated_tag_that_moved(upstream: World, url: str, tmp_path: Path) -> None:
    here = clone(upstream, url, tmp_path / "here")
    upstream.git("checkout", "-q", "--detach")
    upstream.track("data.csv", "moved")
    upstream.commit()
    upstream.git("tag", "-f", "-a", "-m", "again", "v1")
    missing = missing_commits(here.root)
    assert {entry.ref for entry in missing} == {"refs/tags/v1"}
    run(["sh", "-c", missing[0].command], here.root, here.home)
    assert missing_commits(here.root) == []
    assert upstream.store("moved") in {one.out.oid for one in HistoryReader(find_git_folder(here.root)).read_refs()}


def test_a_commit_that_is_here_but_that_nothing_reaches(upstream: World, tmp_path: Path) -> None:
    here = clone(upstream, f"file://{upstream.root}", tmp_path / "here")
    new = advance(upstream)["refs/pull/7/head"]
    here.git("fetch", "-q", "origin", "refs/pull/7/head")
    (here.root / ".git/FETCH_HEAD").unlink()
    here.git("fetch", "-q", "origin")
    reader = HistoryReader(find_git_folder(here.root))
    list(reader.read_refs())
    assert new not in {entry.commit for entry in missing_commits(here.root)}
    found = {entry.commit: entry for entry in missing_commits(here.root, reached=reader.reached)}
    assert found[new] == MissingCommit(
        "origin", "refs/pull/7/head", new, "git fetch origin '+refs/pull/*/head:refs/remotes/origin/pull/*'"
    )


def test_no_remote_has_nothing(upstream: World) -> None:
    assert missing_commits(upstream.root) == []


def test_a_remote_that_is_gone_is_named(upstream: World, tmp_path: Path) -> None:
    here = clone(upstream, f"file://{upstream.root}", tmp_path / "here")
    here.git("remote", "add", "backup", f"file://{tmp_path}/nowhere")
    with pytest.raises(UnreachableRemoteError, match=r"the git remote backup does not answer: .*nowhere") as raised:
        missing_commits(here.root)
    assert "git remote get-url backup" in str(raised.value.hint)


def test_a_remote_that_never_answers_is_given_up(upstream: World) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        upstream.git("remote", "add", "silent", f"git://127.0.0.1:{server.getsockname()[1]}/x")
        start = time.monotonic()
        with pytest.raises(UnreachableRemoteError, match=r"silent does not answer: no answer within 0\.5 s"):
            missing_commits(upstream.root, timeout_seconds=0.5)
        assert time.monotonic() - start < 10


# --- other repositories -------------------------------------------------------------------------------------------


def test_other_repositories_are_read_like_our_own(tmp_path: Path) -> None:
    ours = make_repository(tmp_path / "ours")
    other = make_repository(tmp_path / "theirs")
    expected = {other.track("data.csv", "committed")}
    other.commit()
    expected.add(other.track("data.csv", "stashed"))
    other.git("stash", "-q")
    bare = clone(other, f"file://{other.root}", tmp_path / "for-bare")
    run(["git", "clone", "-q", "--bare", str(bare.root), str(tmp_path / "bare.git")], tmp_path, other.home)
    expected.add(other.track("data.csv", "staged"))
    other.git("add", "data.csv.dvc")
    expected.add(other.track("data.csv", "dirty"))
    found = other_repositories(ours.root, ["../../theirs/repository", str(tmp_path / "bare.git")])
    assert [entry.name for entry in found] == ["../../theirs/repository", str(tmp_path / "bare.git")]
    theirs = list(read_other(found[0], tmp_path / "cache.sqlite"))
    assert {one.out.oid for one in theirs} == expected
    assert {one.origin.ref for one in theirs} == {
        "../../theirs/repository: workspace",
        "../../theirs/repository: staged",
        "../../theirs/repository: main",
        "../../theirs/repository: stash@{0}",
    }
    assert {one.out.oid for one in read_other(found[1])} == {other.store("committed")}


def test_a_folder_inside_another_repository_stands_for_it(tmp_path: Path) -> None:
    ours = make_repository(tmp_path / "ours")
    other = make_repository(tmp_path / "theirs", project="sub")
    oid = other.track("sub/data.csv", "x")
    other.commit()
    (found,) = other_repositories(ours.root, [str(other.folder)])
    assert {one.out.oid for one in read_other(found)} == {oid}


def test_one_that_cannot_be_read_stops_with_its_name(tmp_path: Path) -> None:
    ours = make_repository(tmp_path / "ours")
    with pytest.raises(UnreadableOtherError, match=r"\.\./gone .*no folder"):
        other_repositories(ours.root, ["../gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableOtherError, match="no git repository"):
        other_repositories(ours.root, [str(tmp_path / "empty")])
    other = make_repository(tmp_path / "theirs")
    other.commit()
    run(["git", "clone", "-q", "--depth", "1", f"file://{other.root}", str(tmp_path / "short")], tmp_path, other.home)
    with pytest.raises(UnreadableOtherError, match=r"short .*shallow.*--unshallow"):
        other_repositories(ours.root, [str(tmp_path / "short")])
    other.write("dvc.lock", "stages: [")
    with pytest.raises(UnreadableOtherError, match="theirs"):
        list(read_other(other_repositories(ours.root, [str(other.root)])[0]))


def test_submodules(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    assert submodules(find_git_folder(world.root)) == []
    world.write(".gitmodules", '[submodule "a b"]\n\tpath = libs/a\n\turl = x\n[submodule "c"]\n\tpath=b\n')
    assert submodules(find_git_folder(world.root)) == ["b", "libs/a"]
