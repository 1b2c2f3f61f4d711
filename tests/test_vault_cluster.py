"""A vault that others read and fill for us: the same findings, packs and recipes as alone, whatever is killed."""

import dataclasses
import math
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from clusters import cluster
from holdfast.executor.cluster import ClusterExecutor
from holdfast.executor.local import LocalExecutor
from holdfast.executor.partitions import Partition
from holdfast.formats.source import MemorySource
from holdfast.objectstore.address import StoreAddress
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.workspace import find_project
from holdfast.vault import check_partitions
from holdfast.vault.check import CheckResult, check_vault
from holdfast.vault.check_partitions import REMEMBERED, Spread
from holdfast.vault.import_spread import ImportSpread, import_elsewhere
from holdfast.vault.importing import Limits, import_files, plan_import
from holdfast.vault.pack import parse_key
from holdfast.vault.repository import init_vault, open_vault
from import_worlds import make_cache, make_vault, stored, track
from proxy import Request, proxy
from servers import S3Server
from vaults import SMALL_BLOCK, SMALL_PACK, bf16_history, keys, noise, oid_of, png_like, put_all, session_name
from worlds import TOOLS, World, environment, make_repository

FILES = [noise(200_000, 1), *bf16_history(3, elements=60_000), *(png_like(number) for number in range(30)), b""]
NOW = time.time()  # what is noted has the time of the disk


class GoneError(Exception):
    """Whoever asked has gone."""


class Counted(LocalExecutor):
    """Threads that count what they are given, and stop after so many.

    Args:
        most: tasks.
    """

    def __init__(self, most: int = 1_000_000) -> None:
        super().__init__(1)
        self.done: list[str] = []
        self._most = most

    def completed(self, function: Callable[..., Any], items: Any, *, attempts: int = 3) -> Any:
        for item, result in super().completed(function, items, attempts=attempts):
            if len(self.done) == self._most:
                raise GoneError
            self.done.append(item.name if isinstance(item, Partition) else str(item))
            yield item, result


@pytest.fixture
def address(tmp_path: Path) -> StoreAddress:
    place = StoreAddress(str(tmp_path / "vault"))
    with init_vault(place.open(), None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, jobs=2) as vault:
        put_all(vault, FILES[:2], session=session_name(1))
        put_all(vault, FILES[1:], session=session_name(2), chain=True)
    return place


def spread(address: StoreAddress, executor: LocalExecutor | None = None, now: float = NOW) -> Spread:
    notes = Path(address.url).parent / "notes" / "check"
    return Spread(executor or LocalExecutor(2), address, notes, now)


def checked(place: Spread | StoreAddress, **more: Any) -> CheckResult:
    if isinstance(place, StoreAddress):
        return check_vault(place.open(), jobs=2, read_data=True, **more)
    return check_vault(place.address.open(), jobs=2, read_data=True, spread=place, **more)


def hurt(store: ObjectStore, seed: int) -> None:
    """Flip bits of some packs; one is cut, one gone."""
    rng = random.Random(seed)
    packs = keys(store, "packs")
    for key in rng.sample(packs, 3):
        raw = bytearray(store.get(key))
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        store.put(key, bytes(raw))
    store.put(packs[0], store.get(packs[0])[:-10])
    store.delete(packs[-1])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 12))])
def test_a_spread_check_finds_what_one_alone_finds(address: StoreAddress, seed: int) -> None:
    assert checked(spread(address)) == checked(address)
    hurt(address.open(), seed)
    alone = checked(address)
    assert not alone.clean
    assert checked(spread(address)) == alone
    told: list[tuple[str, int, int]] = []
    part = checked(spread(address), share=0.5, progress=lambda *figures: told.append(figures))
    assert part == checked(address, share=0.5)
    assert told[-1] == ("files", part.files_read, part.files_read)
    assert ("packs", part.packs_read, part.packs_read) in told
    assert not list((Path(address.url).parent / "notes" / "check").rglob("*"))


def test_what_is_deep_in_a_chain_is_read_with_all_that_is_below(tmp_path: Path) -> None:
    address = StoreAddress(str(tmp_path / "vault"))
    versions = bf16_history(4, elements=40_000)
    with init_vault(address.open(), None, block_bytes=SMALL_BLOCK, pack_bytes=1 << 15, jobs=2) as vault:
        with vault.session(max_restore_ratio=math.inf) as session:
            for before, data in zip((None, *versions), versions, strict=False):
                session.put(oid_of(data), MemorySource(data), base_oid=before and oid_of(before))
            session.commit()
        deep = max(vault.index.all_entries(), key=lambda entry: entry.depth)
        assert deep.depth == 3
        raw = bytearray(vault.store.get(deep.pack))
        raw[deep.offset + deep.stored // 2] ^= 1
        vault.store.put(deep.pack, bytes(raw))
    # that the pack is damaged is seen from its digest; which files are lost for it, from what decodes
    (finding,) = checked(spread(address)).findings
    assert finding.oids == (oid_of(versions[3]),)
    assert checked(spread(address)) == checked(address)


def test_an_interrupted_check_goes_on(address: StoreAddress) -> None:
    whole = Counted()
    assert checked(spread(address, whole)) == checked(address)
    first, second = Counted(len(whole.done) - 2), Counted()
    with pytest.raises(GoneError):
        checked(spread(address, first))
    assert checked(spread(address, second)) == checked(address)
    assert sorted([*first.done, *second.done]) == sorted(whole.done)
    again = Counted()
    assert checked(spread(address, again)) == checked(address)
    assert again.done == whole.done, "a check looks anew"


@pytest.mark.soak
def test_what_is_remembered_is_of_this_state_and_not_old(address: StoreAddress, tmp_path: Path) -> None:
    """An interrupted check that goes on takes nothing from another vault, nor from two days ago."""
    whole = Counted()
    checked(spread(address, whole))
    with pytest.raises(GoneError):
        checked(spread(address, Counted(3)))
    with init_vault(StoreAddress(str(tmp_path / "other")).open(), None) as other:
        elsewhere = dataclasses.replace(spread(address, Counted()), address=StoreAddress(other.url))
        assert checked(elsewhere).packs == 0  # and forgets what is of another vault
    later = Counted()
    assert checked(spread(address, later)) == checked(address)
    assert later.done == whole.done
    for path, now in ((tmp_path / "notes", NOW), (tmp_path / "notes", NOW + REMEMBERED.total_seconds() + 1)):
        with pytest.raises(GoneError):
            checked(spread(address, Counted(3)))
        for shard in path.rglob("*.parquet"):
            os.utime(shard, (NOW, NOW))
        executor = Counted()
        assert checked(spread(address, executor, now)) == checked(address)
        assert len(executor.done) == len(whole.done) - (3 if now == NOW else 0)


def test_damage_is_looked_at_anew_and_so_is_what_changed(address: StoreAddress) -> None:
    def stop_before_files(what: str, _done: int, _total: int) -> None:
        if what == "files":
            raise GoneError

    store = address.open()
    before = {key: store.get(key) for key in keys(store, "packs")}
    hurt(store, 1)
    with pytest.raises(GoneError):
        checked(spread(address), progress=stop_before_files)
    for key, data in before.items():
        store.put(key, data)
    assert checked(spread(address)).clean
    with pytest.raises(GoneError):
        checked(spread(address), progress=stop_before_files)
    store.delete(next(iter(before)))
    assert checked(spread(address)) == checked(address)
    assert not checked(address).clean


@pytest.mark.soak
def test_two_checks_at_once(address: StoreAddress) -> None:
    """The one that comes second takes nothing from the first, and leaves it what it has."""
    inner: list[CheckResult] = []

    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "files" and 0 < done < total and not inner:
            inner.append(checked(spread(address)))

    assert checked(spread(address), progress=meanwhile) == inner[0] == checked(address)


def test_parts_are_of_few_packs_however_many_there_are() -> None:
    for nbytes in (0, 1 << 30, 1 << 40, 1 << 50):
        parts = 16 ** check_partitions._digits(nbytes)
        assert nbytes / parts <= check_partitions.PART_BYTES
        assert parts == 16 or nbytes / parts > check_partitions.PART_BYTES / 16


# --- workers in processes of their own, and a bucket


def fill(store: ObjectStore, world: World) -> None:
    for path in sorted(world.cache.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(world.cache).as_posix(), path.read_bytes())


def sent_again(requests: list[Request], folder: str) -> set[str]:
    """The sessions of which a pack was sent twice."""
    keys = [unquote(item.target).partition(f"{folder}/")[2] for item in requests if item.method == "PUT"]
    counts = Counter(key for key in keys if key.startswith("packs/"))
    return {parse_key(key)[1] for key, count in counts.items() if count > 1}


def test_import_and_check_on_a_cluster_that_loses_a_worker(s3_server: S3Server, tmp_path: Path) -> None:
    """The quick one: a bucket, and three workers, one of which is killed in the middle of either."""
    world, killed = make_cache(tmp_path / "world", scale=2), []
    limits = Limits(session_bytes=1_000_000, session_files=16, batch_bytes=1_000_000, batch_files=16)
    project, spool = find_project(world.root), tmp_path / "spool"
    with make_vault(tmp_path / "alone", 1 << 20) as alone:
        plan = plan_import(alone, StoreAddress(str(world.cache)).open())
        expected = import_files(alone, plan, project, spool, limits=limits)
        whole = stored(alone)
    with proxy(s3_server.port) as link, cluster(tmp_path / "cluster", 3) as workers:
        source, target = (StoreAddress(s3_server.make_folder(), s3_server.options(link.endpoint)) for _ in range(2))
        fill(source.open(), world)

        def kill(what: str, done: int, total: int) -> None:
            if what in ("Importing", "files") and 0 < done < total and what not in killed:
                killed.append(what)
                workers.kill_worker()

        with make_vault(target, 1 << 20) as vault, ClusterExecutor(workers.address) as executor:
            place = ImportSpread(executor, target, source, tmp_path / "notes")
            plan = plan_import(vault, source.open())
            done = import_elsewhere(vault, plan, project, spool, place, limits=limits, progress=kill)
            assert stored(vault) == whole
            assert (done.damaged, done.sessions) == (expected.damaged, expected.sessions)
            assert done.statistics.stored_bytes == expected.statistics.stored_bytes
            assert len(sent_again(link.requests, target.url.rpartition("/")[2])) <= 1, "what the killed one was at"
            checked = Spread(executor, target, tmp_path / "check", NOW)
            result = check_vault(vault.store, jobs=2, read_data=True, spread=checked, progress=kill)
            assert (result.findings, result.packs_read, result.files_read) == ((), len(whole[0]), len(whole[1]))
    assert killed == ["Importing", "files"]


@pytest.mark.soak
@pytest.mark.parametrize("elements", [32 << 20])
def test_two_gigabytes_whatever_is_killed(s3_server: S3Server, tmp_path: Path, elements: int) -> None:
    """2 GB of checkpoints: a worker is killed, the scheduler starts again, the command is killed; it is run again.

    Packs and recipes are those of an import without a cluster, and no session that was done is done again.
    """
    world = make_repository(tmp_path / "world")
    with proxy(s3_server.port) as link, cluster(tmp_path / "cluster", 3) as workers:
        options = s3_server.options(link.endpoint)
        source, *vaults = (StoreAddress(s3_server.make_folder(), options) for _ in range(3))
        for number in range(4):
            for data in bf16_history(8, elements, number):
                track(world, f"model{number}.safetensors", data)
                world.commit()
            fill(source.open(), world)
            shutil.rmtree(world.cache)
        for place in vaults:
            init_vault(place.open(), None).close()
        variables = environment(world.home) | s3_server.environment() | {"AWS_ENDPOINT_URL": link.endpoint}

        def begin(place: StoreAddress, scheduler: str) -> "subprocess.Popen[bytes]":
            command = ["vault", "import", source.url, "-r", place.url, "--scheduler", scheduler]
            return subprocess.Popen([str(TOOLS / "holdfast"), *command], cwd=world.root, env=variables)

        def committed(place: StoreAddress) -> set[str]:
            return {info.key for info in place.open().list_objects("index")}

        def wait_for(count: int) -> None:
            while len(committed(vaults[1])) < count:
                assert first.poll() is None
                time.sleep(0.1)

        assert begin(vaults[0], "none").wait() == 0
        sessions = len(committed(vaults[0]))
        assert sessions >= 8
        first = begin(vaults[1], workers.address)
        wait_for(sessions // 4)
        workers.kill_worker()
        wait_for(sessions // 2)
        workers.restart_scheduler()
        wait_for(sessions * 3 // 4)
        first.kill()
        first.wait()
        assert check_vault(vaults[1].open(), jobs=4).clean
        before = committed(vaults[1])
        assert begin(vaults[1], workers.address).wait() == 0
        assert before < committed(vaults[1])
        with open_vault(vaults[0].open(), None) as alone, open_vault(vaults[1].open(), None) as vault:
            assert stored(vault) == stored(alone)
        assert len(sent_late(link.requests, vaults[1].url.rpartition("/")[2])) <= 3, "those that were under way"
        check = ["vault", "check", "--read-data", "-r", vaults[1].url, "--scheduler", workers.address]
        assert (
            subprocess.run([str(TOOLS / "holdfast"), *check], cwd=world.root, env=variables, check=False).returncode
            == 0
        )


def sent_late(requests: list[Request], folder: str) -> set[str]:
    """The sessions of which a pack was sent after their segment: they were done again."""
    done, late = set(), set()
    for item in requests:
        key = unquote(item.target).partition(f"{folder}/")[2].partition("?")[0]
        if item.method == "PUT" and key.startswith("index/"):
            done.add(key.removeprefix("index/"))
        elif item.method == "PUT" and key.startswith("packs/") and parse_key(key)[1] in done:
            late.add(parse_key(key)[1])
    return late
