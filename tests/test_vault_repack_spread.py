"""A repack that others do: the same packs as alone, and nothing is condemned before all of it is stored."""

import dataclasses
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.errors import IntegrityError
from holdfast.executor.executor import Executor
from holdfast.executor.local import LocalExecutor
from holdfast.objectstore.address import StoreAddress
from holdfast.repo.lineage import Lineage, read_lineage
from holdfast.repo.workspace import find_project
from holdfast.vault.check import check_vault
from holdfast.vault.import_order import Item, Limits
from holdfast.vault.importing import import_files, plan_import
from holdfast.vault.pack import parse_key
from holdfast.vault.repack import plan_repack, repack
from holdfast.vault.repack_storing import Anew, RepackSpread, store_elsewhere
from holdfast.vault.repository import Vault, open_vault
from holdfast.vault.segment import read_segment
from import_worlds import Backwards, make_cache, make_vault
from vaults import keys
from worlds import World

NOW = timedelta(0)
LIMITS = Limits(session_bytes=400_000, session_files=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A cache, and beside it a vault to which all of it was pushed without deltas."""
    world = make_cache(tmp_path_factory.mktemp("world"))
    with make_vault(world.root.parent / "vault") as vault:
        plan = plan_import(vault, StoreAddress(str(world.cache)).open())
        import_files(vault, plan, None, world.root.parent / "spool", delta=False)
    return world


def opened(made: World, place: Path) -> tuple[Vault, Lineage]:
    """A copy of the vault, and what is known of its files."""
    shutil.copytree(made.root.parent / "vault", place)
    lineage = read_lineage(find_project(made.root), made.cache / "files" / "md5")
    return open_vault(StoreAddress(str(place)).open(), None, jobs=2), lineage


def stored_anew(made: World, place: Path, executor: Executor | None) -> tuple[set[str], int, int, int]:
    """The digests of the packs that a repack stores, and how many files, packs and bytes these are.

    A repack by this process alone also tells of what it copies in the end.
    """
    vault, lineage = opened(made, place)
    with vault:
        before = set(keys(vault.store, "packs"))
        spread = None if executor is None else RepackSpread(executor, StoreAddress(vault.url))
        told: list[tuple[str, int, int]] = []
        new: list[str] = []

        def tell(what: str, done: int, total: int) -> None:
            told.append((what, done, total))
            new[:] = [key for key in keys(vault.store, "packs") if key not in before]

        plan = plan_repack(vault, lineage, recent=NOW)
        done = repack(vault, plan, recent=NOW, grace=NOW, limits=LIMITS, spread=spread, progress=tell)
        total = sum(file.size for file in plan.files)
        assert told[-1] == ("Storing anew", total, total)
        assert done.statistics.files == len(plan.files) > 5
        assert plan_repack(vault, lineage, recent=NOW).files == ()
        assert {finding.kind for finding in check_vault(vault.store, jobs=1, read_data=True).findings} <= {
            "condemned pack"
        }
        assert not keys(vault.store, "sessions")
        if executor is None:
            new = [key for key in keys(vault.store, "packs") if key not in before]
        sums = done.statistics
        return {parse_key(key)[0] for key in new}, sums.files, sums.packs, sums.stored_bytes


def test_the_same_packs(made: World, tmp_path: Path) -> None:
    backwards = Backwards()
    whole, *sums = stored_anew(made, tmp_path / "alone", None)
    packs, *others = stored_anew(made, tmp_path / "elsewhere", backwards)
    assert (others, len(packs)) == (sums, sums[1])
    assert packs <= whole
    assert len(backwards.sessions) > 3
    assert backwards.sessions != sorted(backwards.sessions), "some did not wait"
    assert stored_anew(made, tmp_path / "threads", LocalExecutor(3)) == (packs, *others)


def test_what_cannot_be_read_stops_it_before_anything_goes(made: World, tmp_path: Path) -> None:
    vault, lineage = opened(made, tmp_path / "vault")
    with vault:
        plan = plan_repack(vault, lineage, recent=NOW)
        newest = vault.recipe(plan.files[0].oid)
        entry = vault.plan(newest).entries[newest.pieces[1].blob]
        raw = bytearray(vault.store.get(entry.pack))
        raw[entry.offset + entry.stored // 2] ^= 1
        vault.store.put(entry.pack, bytes(raw))
        before = keys(vault.store)
        spread = RepackSpread(LocalExecutor(2), StoreAddress(vault.url))
        with pytest.raises(IntegrityError, match="cannot be stored anew"):
            repack(vault, plan, recent=NOW, limits=LIMITS, spread=spread)
        assert keys(vault.store) == before


def test_what_was_stored_anew_is_neither_stored_nor_claimed_again(made: World, tmp_path: Path) -> None:
    vault, lineage = opened(made, tmp_path / "vault")
    with vault:
        plan = plan_repack(vault, lineage, recent=NOW)
        items = [Item(file.oid, file.base or None, file.cold) for file in plan.files]
        anew = Anew(items, {file.oid: file.size for file in plan.files}, plan.packs, Limits())
        spread = RepackSpread(LocalExecutor(2), StoreAddress(vault.url))
        most = dataclasses.replace(anew, items=items[:-1])
        assert store_elsewhere(vault, most, spread, lambda *_: None).files == len(items) - 1
        assert store_elsewhere(vault, anew, spread, lambda *_: None).files == 1
        before = keys(vault.store, "packs")
        assert store_elsewhere(vault, anew, spread, lambda *_: None).files == 0
        assert keys(vault.store, "packs") == before
        segments = [read_segment(key[6:], vault.store.get(key)) for key in keys(vault.store, "index")]
        assert all(not segment.rows.claims for segment in segments)
