"""Places with things of all kinds, and what there is to know of what lies in them."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.removal.batches import batch_id
from holdfast.removal.folder import FolderPlace
from holdfast.removal.names import flat_name
from holdfast.removal.place import Place, Thing

OTHER_DISK = Path("/dev/shm")
PLAN = b'{"plan": 1}\n'
BATCH = batch_id(PLAN)
LONG = "/".join(["deep" * 15] * 5) + "/weights.pt"
OBJECT = "files/md5/ab/" + "c" * 30
BAD_NAME = os.fsdecode(b"runs/caf\xe9.pt")  # no UTF-8
# file, folder, link, empty folder; long and odd names
THINGS = (OBJECT, "runs/one", "runs/link", "runs/empty", LONG, BAD_NAME, "ä/ö ü~%\n.txt", ".hidden")
KEPT = "runs/kept.txt"


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in another file system than the tests' own."""
    if not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system here")
    folder = OTHER_DISK / f"holdfast-{uuid.uuid4().hex}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def make_things(root: Path) -> list[str]:
    """Make one thing of each kind, with times and modes of their own, beside what is to stay; their keys."""
    for number, key in enumerate((OBJECT, LONG, BAD_NAME, "ä/ö ü~%\n.txt", ".hidden", KEPT, "runs/one/a/data")):
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"bytes of {number}".encode() * 1000 if number else b"an object")
        path.chmod(0o444 if key == OBJECT else 0o640)
    (root / "runs/one/b").mkdir()
    (root / "runs/one/link").symlink_to("a/data")
    (root / "runs/link").symlink_to("nowhere")
    (root / "runs/empty").mkdir(mode=0o750)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        # the inner ones first, since they change the times of the outer ones
        os.utime(path, ns=(10**18 + number, 10**18 + number * 1_000_003), follow_symlinks=False)
    return sorted(THINGS)


def listing(root: Path, keys: Iterable[str] = THINGS) -> dict[str, tuple[Any, ...]]:
    """Everything below a folder: kind, mode, owner, bytes or target; the time of what lies in one of the keys."""
    moving = [root / key for key in keys]
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            content: Any = path.read_bytes()
        else:
            content = path.readlink() if path.is_symlink() else None
        inside = any(path == top or top in path.parents for top in moving)
        found[os.fspath(path.relative_to(root))] = (
            stat.filemode(status.st_mode), status.st_uid, status.st_gid, content, status.st_mtime_ns if inside else None,
        )  # fmt: skip
    return found


def below(found: dict[str, tuple[Any, ...]], key: str) -> dict[str, tuple[Any, ...]]:
    """What a listing has of one thing, by paths from it."""
    return {path[len(key) :]: entry for path, entry in found.items() if path == key or path.startswith(f"{key}/")}


def planned(place: Place, keys: Iterable[str] = THINGS) -> list[Thing]:
    """The things of these keys as they are."""
    found = place.look(list(keys))
    assert sorted(found) == sorted(keys)
    return list(found.values())


def is_whole(root: Path, quarantine: Path, key: str, before: dict[str, tuple[Any, ...]], batch: str = BATCH) -> bool:
    """Whether a thing can be read, as it was, in its place or in the quarantine."""
    wanted = below(before, key)
    things = quarantine / batch / "things"
    inside = below(listing(things, [flat_name(key)]), flat_name(key)) if things.is_dir() else {}
    known = {key for found in FolderPlace(root, quarantine).batches() for key in (thing.key for thing in found.things)}
    return below(listing(root), key) == wanted or (inside == wanted and key in known)
