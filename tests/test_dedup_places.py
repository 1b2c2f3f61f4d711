"""Reports of the cache, of a remote that is not downloaded, and of history against what a vault really stores."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from dedup_worlds import save, tuned, weights
from holdfast.dedup import remote as far
from holdfast.dedup.history import Rates, pushed_bytes, repacked_bytes, report_history
from holdfast.dedup.remote import report_remote
from holdfast.dedup.report import report_duplicates
from holdfast.formats.cache import DigestCache
from holdfast.formats.source import MemorySource
from holdfast.objectstore.folder import FolderStore
from holdfast.repo.dvc import local_cache
from holdfast.repo.lineage import read_lineage
from holdfast.repo.workspace import find_project
from holdfast.vault.repack import plan_repack, repack
from holdfast.vault.repository import init_vault, open_vault
from holdfast.vault.stats import vault_stats
from worlds import World, make_repository


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR", "SITE_CACHE_DIR"):
        monkeypatch.setenv(f"DVC_{name}", str(tmp_path / "none"))


def states(count: int, *, rows: int = 128, tensors: int = 4) -> list[dict[str, object]]:
    found = [weights(rows=rows, tensors=tensors)]
    for number in range(1, count):
        found.append(tuned(found[-1], seed=10 + number))
    return found


def track(world: World, path: str, data: bytes, message: str) -> str:
    oid = world.store(data)
    name = path.rsplit("/", 1)[-1]
    world.write(f"{path}.dvc", f"outs:\n- md5: {oid}\n  size: {len(data)}\n  hash: md5\n  path: {name}\n")
    world.commit(message)
    return oid


def history(tmp_path: Path, count: int, *, rows: int = 128, tensors: int = 4) -> tuple[World, list[str]]:
    world = make_repository(tmp_path)
    oids = []
    for number, state in enumerate(states(count, rows=rows, tensors=tensors)):
        data = save(tmp_path / "x.safetensors", state).read_bytes()
        oids.append(track(world, "models/m.safetensors", data, f"version {number}"))
    return world, oids


def cached(world: World, oid: str) -> Path:
    return world.cache / "files/md5" / oid[:2] / oid[2:]


def test_the_cache_with_the_names_that_objects_had(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    given = weights()
    first = track(world, "old/name.safetensors", save(tmp_path / "x", given).read_bytes(), "first")
    torch.save({name: torch.from_numpy(value) for name, value in given.items()}, tmp_path / "y")
    (world.root / "old/name.safetensors.dvc").unlink()
    second = track(world, "new.pt", (tmp_path / "y").read_bytes(), "renamed")
    folder = {"a.txt": "a" * 5000, "b.txt": "b" * 5000}
    world.track("data", folder)
    world.commit("a folder of one version")
    twice = world.store("a" * 5000)
    legacy = world.store("a" * 5000, legacy=True)
    assert twice == legacy
    project = find_project(world.root)
    report = report_duplicates(world.root, DigestCache(None), project=project, scopes=("cache",))
    found = {group.kind: group for group in report.groups}
    assert found["weights"].oids == tuple(sorted((first, second)))
    assert dict(zip(found["weights"].oids, found["weights"].names, strict=True)) == {
        first: "old/name.safetensors",
        second: "new.pt",
    }
    assert (found["duplicate"].oids, found["duplicate"].names) == ((twice,), ("data/a.txt",))
    assert found["duplicate"].advice == "dvc cache migrate"
    assert report.files == 0
    shown = world.holdfast("dedup", "report", "cache").stdout
    assert f"cache {first[:8]} old/name.safetensors" in shown


def send(world: World, oids: list[str], place: Path) -> None:
    """Put objects of the cache in a remote that is a folder."""
    for oid in oids:
        target = place / "files/md5" / oid[:2] / oid[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cached(world, oid).read_bytes())


class Counting(FolderStore):
    """A folder that counts what is read of each key."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: dict[str, int] = {}

    def get(self, key: str, *, etag: str = "") -> bytes:
        raise AssertionError(f"{key} {etag} was read whole")

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:
        self.read[key] = self.read.get(key, 0) + count
        return super().get_range(key, offset, count, etag=etag)


def test_a_remote_is_not_downloaded(tmp_path: Path) -> None:
    # 16 MB each, of which the cache has lost the first two
    world, oids = history(tmp_path, 3, rows=1024, tensors=4)
    place = tmp_path / "remote"
    send(world, oids, place)
    both = "c" * 9000
    for legacy in (False, True):
        both_oid = world.store(both, legacy=legacy)
        target = place / ("" if legacy else "files/md5") / both_oid[:2] / both_oid[2:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(both)
    # text that DVC 2 named by its lines and not by its bytes, and an object too small to be looked into
    crlf = world.store("d\n" * 5000)
    for key, data in ((f"files/md5/{crlf[:2]}/{crlf[2:]}", "d\n" * 5000), (f"{crlf[:2]}/{crlf[2:]}", "d\r\n" * 5000)):
        (place / key).parent.mkdir(parents=True, exist_ok=True)
        (place / key).write_text(data)
    small = world.store(save(tmp_path / "small", weights(rows=32)).read_bytes())
    send(world, [small], place)
    for oid in (*oids[:2], small):
        cached(world, oid).unlink()
    store = Counting(place)
    project = find_project(world.root)
    report = report_remote(store, project, local_cache(world.root).folder, DigestCache(None))
    assert all(count < 0.5 * (place / key).stat().st_size for key, count in store.read.items())
    assert report.objects == 8
    assert not any(small[2:] in key for key in store.read)
    assert any("too small or too many" in note for note in report.notes)
    assert report.scopes == ("remote",)
    similar = {group.oids[0]: group for group in report.groups if group.kind == "similar"}
    assert set(similar) == {oids[1], oids[2]}
    assert similar[oids[1]].base == f"cache {oids[0]}" or similar[oids[1]].base.endswith(oids[0])
    assert all(
        group.estimate is not None and 0 < group.estimate.blocks <= far.BLOCKS_A_PAIR for group in similar.values()
    )
    (twice,) = (group for group in report.groups if group.kind == "duplicate")
    assert (twice.oids, twice.wasted) == ((both_oid,), 9000)
    assert any("2 checkpoints are in the remote alone" in note and "not known" in note for note in report.notes)
    assert not any(group.paths for group in report.groups)


def test_commands(tmp_path: Path) -> None:
    world, oids = history(tmp_path, 3)
    assert "no default remote" in world.holdfast("dedup", "report", "remote", code=2).stderr
    world.dvc("remote", "add", "-d", "here", str(tmp_path / "storage"))
    assert "knows no remote" in world.holdfast("dedup", "report", "remote", "--remote", "x", code=2).stderr
    send(world, oids, tmp_path / "storage")
    payload = json.loads(world.holdfast("dedup", "report", "remote", "--json").stdout)
    assert payload["objects"] == 3
    assert {group["kind"] for group in payload["groups"]} == {"similar"}
    assert payload["groups"][0]["names"] == ["models/m.safetensors"] * 2
    assert "of the remote" in world.holdfast("dedup", "report", "remote").stdout
    shown = world.holdfast("dedup", "report", "cache").stdout
    assert f"against cache {oids[0][:8]} models/m.safetensors\n" in shown
    cached(world, oids[0]).unlink()
    told = world.holdfast("dedup", "report", "history").stdout
    assert "2 of 3" in told
    assert "1 version is not in the cache" in told
    assert "estimates" in told
    assert "from block to block" in told
    payload = json.loads(world.holdfast("dedup", "report", "history", "--json").stdout)
    assert payload["format"] == "holdfast dedup history 1"
    assert payload["totals"]["versions"] == 3
    assert payload["paths"][0]["here"] == 2


def test_history_counts_what_is_different(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    given = weights()
    changed = given | {"layer0.weight": weights(seed=7)["layer0.weight"]}
    for number, state in enumerate((given, changed, given)):
        track(world, "m.safetensors", save(tmp_path / "x", state).read_bytes(), f"{number}")
    track(world, "again.safetensors", save(tmp_path / "x", given).read_bytes(), "the same object elsewhere")
    for number in range(2):
        track(world, "data.csv", f"{number},".encode() * 5000, "text")
    report = report_history(find_project(world.root), local_cache(world.root).folder, DigestCache(None), min_size=1)
    found = {path.path: path for path in report.paths}
    layer, size = 128 * 128 * 4, len((tmp_path / "x").read_bytes())
    model = found.get("m.safetensors") or found["again.safetensors"]
    total = [report.totals[name] for name in ("raw_bytes", "distinct_bytes")]
    assert total == [2 * size + 20_000, 2 * size + 20_000 - 3 * layer]
    assert model.spread >= 0
    assert found["data.csv"].distinct_bytes == 20_000
    assert found["data.csv"].pushed < 2000  # a few digits again and again


@pytest.mark.parametrize("half", [False, True])
def test_estimates_come_close_to_a_real_vault(tmp_path: Path, half: bool) -> None:
    """Every version is pushed to a vault, then repacked: what it stores, and what was estimated before."""
    world = make_repository(tmp_path)
    count = 9
    oids: list[str] = []
    for number, state in enumerate(states(count, rows=512, tensors=4)):
        if half:
            tensors = {name: torch.from_numpy(value).to(torch.bfloat16) for name, value in state.items()}
            torch.save(tensors, tmp_path / "x")
        else:
            save(tmp_path / "x", state)
        oids.append(track(world, "m.pt", (tmp_path / "x").read_bytes(), f"{number}"))
    project = find_project(world.root)
    (path,) = report_history(project, local_cache(world.root).folder, DigestCache(None), min_size=1).paths
    files = [cached(world, oid).read_bytes() for oid in oids]
    store = FolderStore(tmp_path / "vault")
    init_vault(store)
    with open_vault(store, None) as vault:
        for number, data in enumerate(files):  # a push for each version, as its author did
            with vault.session() as visit:
                base = f"md5:{oids[number - 1]}" if number else None
                visit.put(f"md5:{oids[number]}", MemorySource(data), base_oid=base)
                visit.commit()
        vault.refresh()
        pushed = vault_stats(vault).stored_bytes
        lineage = read_lineage(project, local_cache(world.root).folder)
        repack(vault, plan_repack(vault, lineage, recent=timedelta(0)), recent=timedelta(0))
        vault.refresh()
        repacked = vault_stats(vault).stored_bytes
    assert path.here == count
    assert path.pushed == pytest.approx(pushed, rel=0.15)
    assert path.repacked == pytest.approx(repacked, rel=0.05)
    assert repacked <= pushed


def test_a_push_stays_quick_to_restore_and_a_repack_does_not() -> None:
    rates = Rates(alone=0.66, near=0.33, growth=0.0, same=0.0)
    sizes = [(100, 100)] * 4
    # the second rests on the first; the third on the first as well, for both in a row would read more than it has
    assert pushed_bytes(sizes, rates) == 66 + 33 * 3
    assert pushed_bytes(sizes, Rates(0.66, 0.40, 0.0, 0.0)) == 66 * 4
    assert pushed_bytes(sizes, Rates(0.66, 0.33, 0.1, 0.0)) == 66 + 33 + 66 + 33
    assert repacked_bytes(sizes, rates) == 66 + 33 * 3
    assert repacked_bytes(sizes, Rates(0.66, 0.40, 0.0, 0.0)) == 66 + 40 * 3
    assert repacked_bytes([(100, 100), (100, 0)], rates) == 66
    assert repacked_bytes([], rates) == pushed_bytes([], rates) == 0
