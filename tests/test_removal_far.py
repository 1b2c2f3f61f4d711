"""A quarantine in another file system: what a copy has to keep, and what cannot be copied."""

import os
import stat
from pathlib import Path

import pytest

from holdfast.removal import trees
from holdfast.removal.folder import FolderPlace
from holdfast.removal.place import Thing
from removal_world import BATCH, PLAN, listing, other_disk, planned

__all__ = ["other_disk"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def far(root: Path, other_disk: Path) -> FolderPlace:
    return FolderPlace(root, other_disk / "quarantine")


def test_pipes_stay(far: FolderPlace, root: Path) -> None:
    (root / "run").mkdir()
    (root / "run/file").write_text("file")
    os.mkfifo(root / "run/pipe")
    os.mkfifo(root / "pipe")
    near = FolderPlace(root, root.parent / "quarantine")
    before = listing(root, ["run", "pipe"])
    moved = far.take(BATCH, PLAN, planned(far, ["run", "pipe"]))
    reason = "pipes, sockets and devices cannot be copied to another file system"
    assert moved.left == (("pipe", reason), ("run", reason))
    assert listing(root, ["run", "pipe"]) == before
    assert not far.quarantine.exists()
    assert near.take(BATCH, PLAN, planned(near, ["run", "pipe"])).done == ("pipe", "run")
    assert near.restore(BATCH).left == ()
    assert stat.S_ISFIFO((root / "run/pipe").stat().st_mode)
    near.take(BATCH, PLAN, planned(near, ["pipe"]))
    os.mkfifo(root / "pipe")
    assert near.restore(BATCH).left == (("pipe", "something else has come to its place"),)


def test_owners_and_attributes_are_kept(far: FolderPlace, root: Path) -> None:
    (root / "run").mkdir()
    for name in ("run/file", "file"):
        (root / name).write_bytes(bytes(3 * 1024 * 1024 + 7))
    (root / "link").symlink_to("file")
    attributes = hasattr(os, "setxattr")
    if attributes:
        try:
            os.setxattr(root / "file", "user.holdfast", b"value")
            os.setxattr(root / "run", "user.holdfast", b"of the folder")
        except OSError:
            attributes = False
    if os.geteuid() == 0:
        os.chown(root / "run/file", 12345, 54321)
        os.chown(root / "run", 12345, 0)
        os.chown(root / "link", 12345, 54321, follow_symlinks=False)
    (root / "file").chmod(0o4751)
    os.utime(root / "file", ns=(1, 123_456_789_012_345_678))
    keys = ["file", "link", "run"]
    before = listing(root, keys)
    assert far.take(BATCH, PLAN, planned(far, keys)).done == tuple(keys)
    assert far.restore(BATCH).done == tuple(keys)
    assert listing(root, keys) == before
    if attributes:
        assert os.getxattr(root / "file", "user.holdfast") == b"value"
        assert os.getxattr(root / "run", "user.holdfast") == b"of the folder"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_who_cannot_keep_an_owner_leaves_it(far: FolderPlace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "theirs").write_text("theirs")
    os.chown(root / "theirs", 12345, 0)

    def chown(*_: object, **__: object) -> None:
        raise PermissionError(1, "what the system says to those who are not root")

    monkeypatch.setattr(trees.os, "chown", chown)
    moved = far.take(BATCH, PLAN, planned(far, ["theirs"]))
    assert moved.left == (("theirs", "it has another owner, whom a copy on another file system would not have"),)
    assert (root / "theirs").read_text() == "theirs"
    assert not far.quarantine.exists()


def test_a_disk_that_writes_other_bytes(far: FolderPlace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "file").write_bytes(b"right" * 1000)
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        return real(descriptor, bytes(len(data)) if len(data) == 5000 else data)

    things = planned(far, ["file"])
    with monkeypatch.context() as patch:
        patch.setattr(trees.os, "write", write)
        with pytest.raises(Exception, match="reads back otherwise"):
            far.take(BATCH, PLAN, things)
    assert (root / "file").read_bytes() == b"right" * 1000
    assert far.batches() == []
    far.take(BATCH, PLAN, things)
    with monkeypatch.context() as patch:
        patch.setattr(trees.os, "write", write)
        with pytest.raises(Exception, match="reads back otherwise"):
            far.restore(BATCH)
    assert list(root.iterdir()) == []
    assert far.restore(BATCH).done == ("file",)
    assert (root / "file").read_bytes() == b"right" * 1000


def test_folders_that_nest_too_deeply_stay(far: FolderPlace, root: Path) -> None:
    deep = root / "deep"
    for number in range(trees.MAX_DEPTH + 10):
        deep = deep / ("d" if number else "deep")
    deep.mkdir(parents=True)
    assert far.look(["deep"]) == {}
    assert far.take(BATCH, PLAN, [Thing("deep", 0, "")]).left == (
        ("deep", f"its folders nest deeper than {trees.MAX_DEPTH} levels"),
    )
    assert deep.is_dir()


def test_a_file_system_without_an_exclusive_rename(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: the kernel says that it does not know the flag."""
    monkeypatch.setattr(trees, "_exclusive_rename", lambda: lambda *_: trees.errno.EINVAL)
    place = FolderPlace(root, root.parent / "quarantine")
    (root / "file").write_text("file")
    (root / "run").mkdir()
    place.take(BATCH, PLAN, planned(place, ["file", "run"]))
    (root / "file").write_text("another")
    back = place.restore(BATCH)
    assert (back.done, back.left) == (("run",), (("file", "something else has come to its place"),))
    assert (root / "file").read_text() == "another"
    (root / "file").unlink()
    assert place.restore(BATCH).done == ("file",)


def test_an_exclusive_rename_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            trees.rename_exclusively(trees.Spot(folder, "a"), trees.Spot(folder, "b"))
        with pytest.raises(FileNotFoundError):
            trees.rename_exclusively(trees.Spot(folder, "c"), trees.Spot(folder, "d"))
        trees.rename_exclusively(trees.Spot(folder, "a"), trees.Spot(folder, "d"))
    finally:
        os.close(folder)
    assert (tmp_path / "b").read_text() == "b"
    assert (tmp_path / "d").read_text() == "a"
