"""Exact duplicates: what counts, what does not, and what happens while files change."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.dedup import duplicates
from holdfast.dedup.duplicates import DuplicateReport, find_duplicates
from holdfast.formats.digest import file_digest
from holdfast.repo.workspace import find_project
from worlds import World, make_home, make_repository

BLOCK = 4096
NOBODY = 65534  # the user whom every Unix knows and no file belongs to


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


def write(path: Path, content: str, size: int = 2 * BLOCK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text((content * size)[:size])
    return path


def places(report: DuplicateReport) -> list[tuple[str, ...]]:
    return [group.paths for group in report.groups]


def test_copies_cost_and_hard_links_do_not(tmp_path: Path) -> None:
    first = write(tmp_path / "a.bin", "a")
    write(tmp_path / "deep" / "b.bin", "a")
    (tmp_path / "linked.bin").hardlink_to(first)
    write(tmp_path / "same size.bin", "b")
    only = write(tmp_path / "c.bin", "c", 5 * BLOCK)
    (tmp_path / "only linked.bin").hardlink_to(only)
    report = find_duplicates(tmp_path)
    (group,) = report.groups
    assert group.paths == ("a.bin", "deep/b.bin", "linked.bin")
    assert (group.copies, group.size, group.wasted, group.kind) == (2, 2 * BLOCK, 2 * BLOCK, "duplicate")
    assert group.digest == file_digest(first)
    assert report.wasted == 2 * BLOCK
    assert report.bytes == (2 + 2 + 2 + 5) * BLOCK
    assert report.files == 6


def test_groups_are_ranked_by_bytes(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        write(tmp_path / f"small {name}", "s", BLOCK)
    for name in ("a", "b"):
        write(tmp_path / f"large {name}", "l", 4 * BLOCK)
    assert [group.wasted for group in find_duplicates(tmp_path).groups] == [4 * BLOCK, 3 * BLOCK]


def test_small_and_empty_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"small {name}", "s", BLOCK - 1)
        (tmp_path / f"empty {name}").touch()
    assert places(find_duplicates(tmp_path)) == []
    assert places(find_duplicates(tmp_path, min_size=0)) == [("small a", "small b")]


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "a.bin", "a")
    (tmp_path / "link.bin").symlink_to("a.bin")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "up").symlink_to("..")
    report = find_duplicates(tmp_path)
    assert report.groups == ()
    assert report.files == 1
    assert report.notes == ()


def test_folders_of_other_tools_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "a.bin", "a")
    for folder in (".git", ".dvc/tmp", "node_modules/x", "pkg/__pycache__", "env"):
        write(tmp_path / folder / "copy.bin", "a")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert find_duplicates(tmp_path).files == 1


def test_special_files_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "a.bin", "a")
    assert find_duplicates(tmp_path, min_size=0).files == 1


def test_checkout_and_duplicate_are_told_apart(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    members = {"x.bin": "x" * BLOCK, "y.bin": "y" * BLOCK}
    for path in ("model.bin", "again.bin"):
        world.track(path, "m" * 3 * BLOCK)
        world.write(path, "m" * 3 * BLOCK)
    oid = world.track("images", members)
    for path, data in members.items():
        world.write(f"images/{path}", data)
    world.write("copy of y.bin", members["y.bin"])
    world.store("legacy" * BLOCK, legacy=True)
    world.store("legacy" * BLOCK)
    report = find_duplicates(world.root, project=find_project(world.root))
    found = {(group.paths, group.kind, group.copies) for group in report.groups}
    assert found == {
        (("again.bin", "model.bin"), "checkout", 3),
        (("images/x.bin",), "checkout", 2),
        (("copy of y.bin", "images/y.bin"), "duplicate", 3),
        ((), "duplicate", 2),
    }
    group = next(group for group in report.groups if group.paths == ("images/x.bin",))
    assert group.oids == (world.store(members["x.bin"]),)
    assert oid.endswith(".dir")
    assert report.link_types == ("reflink", "copy")


def test_linked_checkouts_cost_nothing(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    for name, link in (("hard.bin", os.link), ("soft.bin", os.symlink)):
        oid = world.track(name, name * BLOCK)
        link(world.cache / "files/md5" / oid[:2] / oid[2:], world.root / name)
    report = find_duplicates(world.root, project=find_project(world.root))
    assert report.groups == ()
    assert (report.files, report.objects) == (1, 2)


def test_objects_of_one_store_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_repository(tmp_path)
    for text in ("a", "b"):
        world.store(text * BLOCK)
    world.store("c" * 2 * BLOCK)
    write(world.root / "c.bin", "c")
    read = []
    monkeypatch.setattr(duplicates, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    assert len(find_duplicates(world.root, project=find_project(world.root)).groups) == 1
    assert len(read) == 2


def test_local_remote_is_a_second_copy_on_purpose(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".dvc/config", "[core]\n    remote = here\n['remote \"here\"']\n    url = ../storage\n")
    data = "a" * BLOCK
    oid = world.store(data)
    world.write(f"storage/files/md5/{oid[:2]}/{oid[2:]}", data)
    report = find_duplicates(world.root, project=find_project(world.root))
    assert report.groups == ()
    assert report.notes == ("storage: left out, it is the DVC remote here",)


def test_cache_in_another_folder_of_the_project(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    oid = world.track("model.bin", "m" * BLOCK)
    world.write("model.bin", "m" * BLOCK)
    world.cache.rename(world.root / "objects")
    world.write(".dvc/config", "[cache]\n    dir = ../objects\n")
    (group,) = find_duplicates(world.root, project=find_project(world.root)).groups
    assert (group.kind, group.paths, group.oids) == ("checkout", ("model.bin",), (oid,))


def test_unreadable_dvc_file_makes_a_note(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.track("model.bin", "m" * BLOCK)
    world.write("model.bin", "m" * BLOCK)
    world.write("dvc.lock", "stages: [")
    report = find_duplicates(world.root, project=find_project(world.root))
    assert [group.kind for group in report.groups] == ["duplicate"]
    assert "dvc.lock cannot be read" in report.notes[0]


@pytest.mark.parametrize("event", ["vanishes", "grows", "is replaced", "is closed"])
def test_what_changes_meanwhile_gets_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    victim = write(tmp_path / "b.bin", "a")
    write(tmp_path / "a.bin", "a")
    write(tmp_path / "c.bin", "a")

    def digest(path: Path) -> str:
        result = file_digest(path)
        if path == victim and event == "vanishes":
            victim.unlink()
        elif path == victim and event == "grows":
            with open(victim, "a") as stream:
                stream.write("more")
        elif path == victim and event == "is closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        elif path == victim:
            write(tmp_path / "new", "a").replace(victim)
        return result

    monkeypatch.setattr(duplicates, "file_digest", digest)
    report = find_duplicates(tmp_path)
    assert places(report) == [("a.bin", "c.bin")]
    expected = {"vanishes": "vanished while it was looked at", "is closed": "Permission denied"}
    assert report.notes == (f"b.bin: {expected.get(event, 'changed while it was read')}",)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user may enter; pytest's own are private to the user who runs it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_unreadable_files_and_folders_get_a_note(open_folder: Path) -> None:
    write(open_folder / "a.bin", "a")
    write(open_folder / "b.bin", "a").chmod(0)
    write(open_folder / "closed" / "c.bin", "a").parent.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # root reads everything
    try:
        notes = find_duplicates(open_folder).notes
    finally:
        os.seteuid(user)
        (open_folder / "closed").chmod(0o755)
    assert notes == ("closed: Permission denied", "b.bin: Permission denied")


def test_command_without_dvc(tmp_path: Path) -> None:
    plain = World(tmp_path / "plain", make_home(tmp_path))
    plain.root.mkdir()
    assert plain.holdfast("dedup", "report").stdout == "Nothing is stored twice in 0 files (0 B).\n"
    write(plain.root / "a.bin", "a")
    write(plain.root / "runs" / "b.bin", "a")
    first = "8.2 kB of 16.4 kB are copies of something else: 1 group of equal files among 2 files."
    assert plain.holdfast("dedup", "report").stdout.splitlines()[0] == first
    assert "Nothing is stored twice in 1 file" in plain.holdfast("dedup", "report", "runs").stdout
    plain.git("init", "-q")
    assert plain.holdfast("dedup", "report").stdout.splitlines()[0] == first
    payload = json.loads(plain.holdfast("dedup", "report", "--json", "--min-size", "10").stdout)
    assert payload["wasted"] == 2 * BLOCK
    assert payload["groups"][0]["paths"] == ["a.bin", "runs/b.bin"]
    assert "| wasted |" in plain.holdfast("dedup", "report", "--md").stdout


def test_command_advises_about_checkouts(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.track("model.bin", "m" * BLOCK)
    world.write("model.bin", "m" * BLOCK)
    (world.root / "deep").mkdir()
    done = World(world.root, world.home, "deep").holdfast("dedup", "report")
    assert "checkout" in done.stdout
    assert "→ dvc config cache.type reflink,hardlink,symlink; holdfast dedup plan model.bin" in done.stdout
    world.write(".dvc/config", "[cache]\n    type = hardlink\n")
    assert "→ holdfast dedup plan model.bin" in world.holdfast("dedup", "report").stdout
