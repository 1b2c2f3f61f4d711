"""Killed before each of their steps, take, restore and purge lose nothing, and whoever comes next ends them."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.removal.bucket import BucketPlace
from holdfast.removal.folder import FolderPlace
from holdfast.removal.place import Place, Thing
from removal_world import BATCH, KEPT, LONG, PLAN, THINGS, below, is_whole, listing, make_things, planned

Run = Callable[[dict[str, Any]], str]
OTHER_DISK = Path("/dev/shm")
FEW = ("runs/one", "runs/link", LONG)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    child = Path(__file__).with_name("removal_child.py")
    process = subprocess.Popen(
        [sys.executable, str(child)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(child.parent), *sys.path])},
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(task: dict[str, Any]) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    yield ask
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


@pytest.fixture(params=["beside", "inside", "another disk"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A place and where things wait: in the same file system, in the place itself, in another file system."""
    memory = OTHER_DISK.is_dir() and OTHER_DISK.stat().st_dev != tmp_path.stat().st_dev
    if request.param == "another disk" and not memory:
        pytest.skip("there is no other file system here")
    folder = OTHER_DISK / f"holdfast-{uuid.uuid4().hex}" if memory else tmp_path  # syncing is quick there
    root = (tmp_path if request.param == "another disk" else folder) / "place"
    yield root, root / ".dvc-quarantine" if request.param == "inside" else folder / "quarantine"
    shutil.rmtree(folder, ignore_errors=True)


def task_of(
    place: Place, root: Path, quarantine: Path | str, verb: str, things: list[Thing], die: int
) -> dict[str, Any]:
    return {
        "kind": "folder" if isinstance(place, FolderPlace) else "bucket",
        "root": str(root), "quarantine": str(quarantine), "verb": verb, "batch": BATCH, "plan": PLAN.decode(),
        "things": [list(asdict(thing).values()) for thing in things], "die_at": die,
    }  # fmt: skip


def waiting_in(quarantine: Path) -> dict[str, tuple[Any, ...]]:
    things = quarantine / BATCH / "things"
    return listing(things, [path.name for path in things.iterdir()]) if things.is_dir() else {}


@pytest.mark.parametrize("verb", ["take", "restore", "purge"])
def test_a_folder_killed_at_every_step(run: Run, places: tuple[Path, Path], tmp_path: Path, verb: str) -> None:
    root, quarantine = places
    # to sync a disk at every step takes its time
    keys = FEW if root.is_relative_to(tmp_path) else THINGS
    outcomes = []
    for step in range(1, 1000):
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(quarantine, ignore_errors=True)
        root.mkdir(parents=True)
        make_things(root)
        place = FolderPlace(root, quarantine)
        before = listing(root, keys)
        things = planned(place, keys)
        if verb != "take":
            assert place.take(BATCH, PLAN, things).left == ()
        waiting = waiting_in(quarantine)
        outcome = run(task_of(place, root, quarantine, verb, things, step))
        assert outcome in ("done", "ended")
        if verb != "purge":
            lost = [key for key in keys if not is_whole(root, quarantine, key, before)]
            assert lost == [], f"killed before step {step}"
        elif quarantine.is_dir():
            # what is not yet deleted waits as a whole
            now = waiting_in(quarantine)
            assert now.items() <= waiting.items()
            assert all(path in now for path in waiting if path.partition("/")[0] in now)
        if verb == "take" and step % 2:
            assert set(place.restore(BATCH).done) <= set(keys)  # somebody thinks better of it
            assert listing(root, keys) == before
            assert not quarantine.exists()
        elif verb == "take":
            assert place.take(BATCH, PLAN, things).done == tuple(sorted(keys))
            (batch,) = place.batches()
            assert batch.complete
            assert [thing.key for thing in batch.things] == sorted(keys)
            assert not (quarantine / BATCH / "coming").exists()
            gone = listing(root, keys)
            assert not any(path == key or path.startswith(f"{key}/") for path in gone for key in keys)
            assert place.restore(BATCH).done == tuple(sorted(keys))
            assert listing(root, keys) == before
        elif verb == "restore" and step % 2:
            gone = place.purge(BATCH).done  # somebody thinks better of it
            there = {key for key in keys if os.path.lexists(root / key)}
            assert there | set(gone) == set(keys)
            assert not any(below(listing(root, keys), key) != below(before, key) for key in there)
        elif verb == "restore":
            place.restore(BATCH)
            assert listing(root, keys) == before
        else:
            place.purge(BATCH)
            assert (root / KEPT).exists()
            assert not (root / LONG).exists()
        assert place.batches() == []
        place.restore(BATCH)
        leftovers = [path.name for path in root.rglob(".holdfast*")]
        assert leftovers == []
        outcomes.append(outcome)
        if outcome == "done":
            break
    assert outcomes[-1] == "done"
    assert len(outcomes) > {"take": 25, "restore": 15, "purge": 15}[verb]


KEYS = ("files/md5/ab/" + "c" * 30, "files/md5/cd/" + "e" * 30, LONG)


@pytest.mark.parametrize("places", ["beside"], indirect=True)
@pytest.mark.parametrize("verb", ["take", "restore", "purge"])
def test_a_bucket_killed_before_every_call(run: Run, places: tuple[Path, Path], verb: str) -> None:
    outcomes = []
    for step in range(1, 1000):
        root = places[0] / str(step)
        store = open_store(str(root))
        for key in KEYS:
            store.put(key, key.encode())
        place = BucketPlace(store, "quarantine", jobs=1)
        things = planned(place, KEYS)
        if verb != "take":
            place.take(BATCH, PLAN, things)
        outcome = run(task_of(place, root, "quarantine", verb, things, step))
        assert outcome in ("done", "ended")
        here = {info.key for info in store.list_objects()}
        waiting = {thing.key for batch in place.batches() for thing in batch.things}
        if verb != "purge":
            assert set(KEYS) <= here | waiting, f"killed before call {step}"
        if verb == "take" and step % 2:
            place.restore(BATCH)
        elif verb == "take":
            assert place.take(BATCH, PLAN, things).done == tuple(sorted(KEYS))
            assert {info.key for info in store.list_objects()} & set(KEYS) == set()
            assert place.batches()[0].complete
            place.restore(BATCH)
        elif verb == "restore":
            place.restore(BATCH)
        else:
            place.purge(BATCH)
        wanted = [] if verb == "purge" else sorted(KEYS)
        assert [info.key for info in store.list_objects()] == wanted
        assert all(store.get(key) == key.encode() for key in wanted)
        outcomes.append(outcome)
        if outcome == "done":
            break
    assert outcomes[-1] == "done"
    assert len(outcomes) > 10
