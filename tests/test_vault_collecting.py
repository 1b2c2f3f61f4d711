"""Collections in which the random sequences of `vault_world` once lost something, or left something, step by step."""

from datetime import timedelta

import numpy as np
import pytest
from safetensors.numpy import save

from faults import FaultyStore, Rule
from holdfast.formats.source import MemorySource
from holdfast.objectstore.store import UnreachableError
from holdfast.vault.check import check_vault
from holdfast.vault.collecting import purge, settle
from holdfast.vault.collection import collect, plan_collection
from holdfast.vault.repository import Vault, init_vault, open_vault
from holdfast.vault.roots import register, registrations, words
from processes import Clock, ClockedStore
from vaults import SMALL_BLOCK, keys, noise, oid_of, put_all, read_all

DAY = timedelta(days=1)
NOW = timedelta(0)
CLONE = "c" * 32


@pytest.fixture
def store() -> ClockedStore:
    return ClockedStore(Clock())


@pytest.fixture
def vault(store: ClockedStore) -> Vault:
    return init_vault(store, None, block_bytes=SMALL_BLOCK, jobs=1)


def take(vault: Vault, *live: bytes) -> None:
    """A collection, by which nothing else was claimed lately."""
    named = {oid_of(data) for data in live}
    collect(vault, plan_collection(vault, named, recent=NOW), lambda: named, recent=NOW)


def tensors(count: int) -> bytes:
    """A checkpoint that has all of the tensors of one with fewer."""
    numbers = np.random.default_rng(1)
    return save({f"tensor{number}": numbers.normal(size=20_000).astype(np.float32) for number in range(count)})


def test_a_place_that_only_a_segment_in_quarantine_lists_is_kept(store: ClockedStore, vault: Vault) -> None:
    shared, whole = tensors(1), tensors(2)
    for number in range(20):
        store.objects.clear()
        vault = init_vault(store, None, block_bytes=SMALL_BLOCK, jobs=1)
        raced = noise(600, number)
        with open_vault(store, None, jobs=1) as other, other.session() as visit:
            put_all(vault, [shared, raced])
            (first,) = keys(store, "packs")
            visit.put(oid_of(raced), MemorySource(raced))
            visit.commit()
        (second,) = set(keys(store, "packs")) - {first}
        if second < first:  # of two places that one is chosen
            break
    put_all(vault, [whole])
    store.clock.now += DAY
    # the first segment goes with its dead file, its pack stays for what it shares: another segment lists that alone
    take(vault, whole, raced)
    assert {first, second} < set(keys(store, "packs"))
    # now the raced file's place in it is chosen, which the segment in quarantine lists alone
    take(vault, whole, raced)
    purge(vault, None, older_than=NOW)
    assert first in keys(store, "packs")
    assert second not in keys(store, "packs")
    with open_vault(store, None, jobs=1) as reader:
        read_all(reader, [whole, raced])
    assert not check_vault(store, jobs=1, read_data=True).findings


def test_a_push_that_was_killed_is_taken_away_though_nothing_else_is(store: ClockedStore, vault: Vault) -> None:
    kept = noise(100_000, 1)
    put_all(vault, [kept])
    dying = FaultyStore(store, [Rule("refuse", frozenset({"put_if_absent"}), key="index/")])
    with open_vault(dying, None, jobs=1) as other, pytest.raises(UnreachableError):
        put_all(other, [noise(100_000, 2)])
    assert len(keys(store, "packs")) == 2
    assert keys(store, "sessions")
    take(vault, kept)
    assert len(keys(store, "packs")) == 2  # it may be slow
    store.clock.now += 2 * DAY
    take(vault, kept)
    purge(vault, None, older_than=NOW)
    assert len(keys(store, "packs")) == 1
    assert not keys(store, "sessions")
    read_all(vault, [kept])


def test_what_another_collector_condemns_meanwhile_loses_nothing(store: ClockedStore, vault: Vault) -> None:
    shared, whole, junk = tensors(1), tensors(2), noise(100_000, 1)
    put_all(vault, [shared, junk])
    put_all(vault, [whole])
    store.clock.now += DAY
    live = {oid_of(whole)}

    def other() -> None:
        """The root is deleted; another collector condemns the file, and is killed."""
        live.clear()
        dying = FaultyStore(store, [Rule("lose", frozenset({"put_if_absent"}), key="condemned/")])
        with open_vault(dying, None, jobs=1) as killed, pytest.raises(UnreachableError):
            take(killed)

    # after it has waited for the sessions of what it condemned
    late = FaultyStore(store, [Rule("delay", frozenset({"put"}), at=1, key="sessions/")], wait=other)
    with open_vault(late, None, jobs=1) as collector:
        plan = plan_collection(collector, set(live), recent=NOW)
        collect(collector, plan, lambda: set(live), recent=NOW)
        purge(collector, lambda: set(live), older_than=NOW)
    settle(vault, lambda: set(live), recent=NOW)
    take(vault)
    purge(vault, None, older_than=NOW)
    assert not keys(store, "packs")
    assert not check_vault(store, jobs=1).findings


def test_two_processes_of_a_clone_do_not_take_back_what_both_said(store: ClockedStore) -> None:
    register(store, CLONE, "clone", ["md5:" + "1" * 32], [])
    one = words(store, CLONE)
    register(store, CLONE, "clone", ["md5:" + "1" * 32, "md5:" + "2" * 32], [])
    # the second process says what the first one is about to take back
    register(store, CLONE, "clone", ["md5:" + "1" * 32], words(store, CLONE))
    store.delete_many(one)
    assert [said.files for said in registrations(store)] == [{"md5:" + "1" * 32}]
