"""An import that others do: the same packs and recipes as alone, in whatever order and however often it is interrupted."""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import LockedError
from holdfast.executor.local import LocalExecutor
from holdfast.objectstore.address import StoreAddress
from holdfast.repo.workspace import find_project
from holdfast.vault.check import check_vault
from holdfast.vault.import_order import Item, session_bytes_of, sessions_of
from holdfast.vault.import_session import SessionTask, send_session
from holdfast.vault.import_sources import task_folder
from holdfast.vault.import_spread import ImportSpread, import_elsewhere
from holdfast.vault.importing import Imported, Limits, import_files, plan_import
from holdfast.vault.layout import key_of
from holdfast.vault.repository import Vault
from holdfast.vault.segment import read_segment
from import_worlds import Backwards, make_cache, make_vault, stored
from vaults import keys, noise, put_all
from worlds import World

soak = pytest.mark.soak  # shows what the one beside it shows, of the rarer case
LIMITS = Limits(session_bytes=500_000, session_files=7, batch_bytes=400_000, batch_files=5, kept_bytes=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_cache(tmp_path_factory.mktemp("world"))


def elsewhere(vault: Vault, world: World, folder: Path, executor: Any = None, **more: Any) -> Imported:
    source = StoreAddress(str(world.cache))
    project = more.pop("project") if "project" in more else find_project(world.root)
    spread = ImportSpread(executor or LocalExecutor(3), StoreAddress(vault.url), source, folder / "notes")
    plan = plan_import(vault, source.open())
    return import_elsewhere(vault, plan, project, folder / "spool", spread, **{"limits": LIMITS} | more)


def alone(vault: Vault, world: World, folder: Path, **more: Any) -> Imported:
    plan = plan_import(vault, StoreAddress(str(world.cache)).open())
    project = more.pop("project") if "project" in more else find_project(world.root)
    return import_files(vault, plan, project, folder / "spool", **{"limits": LIMITS} | more)


def test_sessions_end_where_chains_begin_and_go_on_as_they_were_cut() -> None:
    chains = [
        [Item(f"{name}{number}", f"{name}{number - 1}" if number else None) for number in range(3)] for name in "abc"
    ]
    items = [
        *(item for chain in chains for item in chain),
        *(Item(f"stray{number}", stray=True) for number in range(7)),
    ]
    limits = Limits(session_bytes=450)
    groups = list(sessions_of(items, lambda _item: 100, limits, 1600))
    assert groups == [*chains[:2], items[6:10], items[10:14], items[14:]]
    for number in range(len(groups)):
        rest = [item for group in groups[number:] for item in group]
        assert list(sessions_of(rest, lambda _item: 100, limits, 1600)) == groups[number:]
    assert session_bytes_of(0, Limits()) == 256 << 20
    assert session_bytes_of(64 << 30, Limits()) == 1 << 30
    assert session_bytes_of(1 << 50, Limits()) == 4 << 30


@pytest.fixture(scope="module")
def serial(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Imported, Any]:
    folder = tmp_path_factory.mktemp("serial")
    with make_vault(folder / "vault") as vault:
        return alone(vault, world, folder), stored(vault)


@pytest.mark.parametrize(
    "executor", [Backwards(), pytest.param(LocalExecutor(3), marks=soak)], ids=["backwards", "threads"]
)
def test_the_same_packs_and_recipes(
    world: World, serial: tuple[Imported, Any], tmp_path: Path, executor: LocalExecutor
) -> None:
    report, expected = serial
    with make_vault(tmp_path / "vault") as vault:
        done = elsewhere(vault, world, tmp_path / "more", executor)
        assert stored(vault) == expected
        assert (done.sessions, done.damaged, done.failed) == (report.sessions, report.damaged, report.failed)
        assert done.statistics.stored_bytes == report.statistics.stored_bytes
        assert check_vault(vault.store, jobs=1, read_data=True).findings == ()
        assert not keys(vault.store, "sessions")
        assert not list(tmp_path.glob("more/*/*"))
    if isinstance(executor, Backwards):
        assert executor.sessions != sorted(executor.sessions), "some did not wait"
    assert len(report.damaged) == 1
    assert report.sessions >= 9


@pytest.mark.parametrize(
    "more",
    [pytest.param({"project": None}, id="no history"), pytest.param({"delta": False}, id="no deltas", marks=soak)],
)
def test_the_same_without(world: World, tmp_path: Path, more: dict[str, Any]) -> None:
    with make_vault(tmp_path / "one") as one, make_vault(tmp_path / "other") as other:
        report = alone(one, world, tmp_path / "1", **more)
        done = elsewhere(other, world, tmp_path / "2", Backwards(), **more)
        assert stored(other) == stored(one)
        assert (done.statistics.stored_bytes, done.damaged) == (report.statistics.stored_bytes, report.damaged)


def test_an_interrupted_import_goes_on(world: World, serial: tuple[Imported, Any], tmp_path: Path) -> None:
    report, expected = serial
    runs: list[Backwards] = []
    with make_vault(tmp_path / "vault") as vault:
        for most in (0, 1, 4, 1000):
            runs.append(Backwards(most))
            try:
                done = elsewhere(vault, world, tmp_path, runs[-1])
            except KeyboardInterrupt:
                assert check_vault(vault.store, jobs=1).findings == ()
        assert stored(vault) == expected
        assert done.damaged == report.damaged
        assert done.statistics.files == report.statistics.files
        assert done.statistics.stored_bytes == report.statistics.stored_bytes
        again = Backwards()
        assert elsewhere(vault, world, tmp_path, again).statistics.files == 0
    told = [number for run in runs for number in run.sessions]
    assert len(told) == len(set(told)) == report.sessions - 3, "three had committed, and nobody was told"
    assert [bool(run.batches) for run in runs] == [True, False, False, False]


def tasks_of(vault: Vault, world: World, folder: Path, **more: Any) -> list[SessionTask]:
    """The sessions of an import of which none has begun."""
    found: list[SessionTask] = []

    class Collecting(LocalExecutor):
        def completed(self, function: Callable[..., Any], items: Any, **_: Any) -> Any:
            for item in items:
                if isinstance(item, SessionTask):
                    found.append(item)
                else:
                    yield item, function(item)
            if found:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        elsewhere(vault, world, folder, Collecting(1), **more)
    return found


def test_two_at_one_session(world: World, serial: tuple[Imported, Any], tmp_path: Path) -> None:
    with make_vault(tmp_path / "vault") as vault:
        task = tasks_of(vault, world, tmp_path)[0]
        with LocalExecutor(2) as executor:
            one, other = (result for _, result in executor.completed(send_session, [task, task]))
        assert one.statistics.packs == other.statistics.packs
        assert keys(vault.store, "index") == [f"index/{task.session}"]
        assert send_session(task).statistics == other.statistics or send_session(task).statistics.files
        assert len(keys(vault.store, "packs")) == one.statistics.packs
        assert not keys(vault.store, "sessions")
        elsewhere(vault, world, tmp_path)
        assert stored(vault) == serial[1]


def test_one_that_gives_up_leaves_it_announced(world: World, tmp_path: Path) -> None:
    with make_vault(tmp_path / "vault") as vault:
        task = tasks_of(vault, world, tmp_path)[0]
        with pytest.raises(KeyError):  # whatever goes wrong before a pack was sent
            send_session(dataclasses.replace(task, sizes={}))
        assert keys(vault.store, "sessions") == [f"sessions/{task.session}"], "another one may be at it"
        assert send_session(task).statistics.files
        assert not keys(vault.store, "sessions")


def test_a_collector_that_ends_sessions(world: World, serial: tuple[Imported, Any], tmp_path: Path) -> None:
    with make_vault(tmp_path / "vault") as vault:
        tasks = tasks_of(vault, world, tmp_path)
        for task in tasks:
            vault.store.put(f"index/{task.session}", b"")
        done = elsewhere(vault, world, tmp_path, Backwards())
        assert done.statistics.files == serial[0].statistics.files
        assert stored(vault) == serial[1]
        assert not keys(vault.store, "sessions")


@pytest.mark.soak
def test_what_was_collected_meanwhile_is_stored_again(
    world: World, serial: tuple[Imported, Any], tmp_path: Path
) -> None:
    """What is written down of an interrupted import does not count where the vault says otherwise."""
    with make_vault(tmp_path / "vault") as vault:
        with pytest.raises(KeyboardInterrupt):
            elsewhere(vault, world, tmp_path, Backwards(3))
        key = keys(vault.store, "index")[0]
        vault.store.put(key, b"")
        elsewhere(vault, world, tmp_path)
        assert stored(vault)[1].keys() == serial[1][1].keys()
        assert check_vault(vault.store, jobs=1, read_data=True).clean


@pytest.mark.soak
@pytest.mark.parametrize("change", ["more", "less"])
def test_a_source_that_has_changed(world: World, serial: tuple[Imported, Any], tmp_path: Path, change: str) -> None:
    """What was found out of the files as they were does not count."""
    changed = World(tmp_path / "repository", world.home)
    shutil.copytree(world.root, changed.root, symlinks=True)
    expected = set(serial[1][1])
    with make_vault(tmp_path / "vault") as vault:
        with pytest.raises(KeyboardInterrupt):
            elsewhere(vault, changed, tmp_path, Backwards(3))
        if change == "more":
            expected.add(f"md5:{changed.store(noise(80_000, 77))}")
            (changed.cache / serial[0].damaged[0][0]).unlink()
        else:
            gone = max(expected - stored(vault)[1].keys())
            expected.remove(gone)
            (changed.cache / str(key_of(gone))).unlink()
        done = elsewhere(vault, changed, tmp_path)
        assert (stored(vault)[1].keys(), done.failed) == (expected, ())
        assert len(done.damaged) == (change == "less")
        assert check_vault(vault.store, jobs=1, read_data=True).clean


def test_a_session_of_which_nothing_is_sound(world: World, tmp_path: Path) -> None:
    damaged = World(tmp_path / "repository", world.home)
    for number in range(2):
        oid = damaged.store(noise(70_000, number))
        path = damaged.cache / "files/md5" / oid[:2] / oid[2:]
        path.chmod(0o644)
        path.write_bytes(b"other")
    with make_vault(tmp_path / "vault") as vault:
        (task,) = tasks_of(vault, damaged, tmp_path, project=None)
        for _ in range(2):
            assert send_session(task).statistics.files == 0
        assert keys(vault.store) == ["config.json", f"index/{task.session}"], "decided for whoever else may be at it"
        assert len(elsewhere(vault, damaged, tmp_path, project=None).damaged) == 2
        assert check_vault(vault.store, jobs=1).findings == ()
        put_all(vault, [noise(1000, 1)])


def test_what_is_there_is_claimed_and_one_import_at_a_time(world: World, tmp_path: Path) -> None:
    def again(_what: str, _done: int, _total: int) -> None:
        with pytest.raises(LockedError):
            elsewhere(vault, world, tmp_path)

    with make_vault(tmp_path / "vault") as vault:
        put_all(vault, [path.read_bytes() for path in sorted(world.cache.rglob("*")) if path.is_file()])
        before = set(keys(vault.store, "index"))
        done = elsewhere(vault, world, tmp_path, progress=again)
        (new,) = set(keys(vault.store, "index")) - before
        claims = read_segment(new[6:], vault.store.get(new)).rows.claims
        assert len(claims) == done.known == len(plan_import(vault, StoreAddress(str(world.cache)).open()).known)
        assert len(claims) > 30


def test_what_others_may_write_is_no_place_for_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asked = task_folder.__wrapped__
    own = asked()
    assert (own.parent, own.stat().st_mode & 0o777) == (tmp_path, 0o700)
    assert asked() == own
    own.chmod(0o777)
    assert asked() != own
    own.rmdir()
    own.symlink_to(tmp_path)
    other = asked()
    assert other != own
    assert other.stat().st_mode & 0o777 == 0o700
