"""Files that are the old bytes or the new ones."""

import errno
import os
from pathlib import Path

import pytest

from holdfast import atomic
from holdfast.atomic import create_exclusively, leftovers, replacing, write_atomically


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, "old ä")
    with open(path, "rb") as reader:
        write_atomically(path, b"new")
        assert reader.read().decode() == "old ä"  # another file took its place: nothing was written into it
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_links_are_replaced_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("cached")
    (tmp_path / "hard").hardlink_to(tmp_path / "cache")
    (tmp_path / "soft").symlink_to(tmp_path / "cache")
    for name in ("hard", "soft"):
        write_atomically(tmp_path / name, "new")
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "cache").read_text() == "cached"


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as stream:
            stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_exists_is_not_created_again(tmp_path: Path) -> None:
    create_exclusively(tmp_path / "file", "first")

    with pytest.raises(FileExistsError):
        create_exclusively(tmp_path / "file", "second")
    assert (tmp_path / "file").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [write_atomically, create_exclusively])
def test_bytes_then_name_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write) -> None:
    """A power failure after the call must find the file: its bytes are synced before it gets its name, then the folder."""
    events: list[str] = []
    real_sync, real_link, real_replace = os.fsync, os.link, Path.replace

    def fsync(descriptor: int) -> None:
        events.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")  # noqa: PTH112
        real_sync(descriptor)

    def link(*arguments, **options) -> None:
        events.append("name")
        real_link(*arguments, **options)

    def replace(self: Path, target: Path) -> Path:
        events.append("name")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "replace", replace)
    write(tmp_path / "file", "text")
    assert events == ["sync file", "name", "sync folder"]


def test_files_get_the_mode_that_the_user_asks_for(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "text")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_leftovers_are_those_of_the_file_alone(tmp_path: Path) -> None:
    names = [
        ".a.bin.0123456789abcdef.tmp",
        ".a.bin.0123456789abcdef.tmp.tmp",
        ".b.bin.0123456789abcdef.tmp",
        "a.bin.tmp",
    ]
    for name in names:
        (tmp_path / name).touch()

    assert [path.name for path in leftovers(tmp_path / "a.bin")] == names[:1]
    assert leftovers(tmp_path / "nowhere" / "a.bin") == []
    assert atomic.TEMPORARY_SUFFIX == ".tmp"  # what .gitignore names
