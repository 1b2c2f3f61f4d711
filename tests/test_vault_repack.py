"""Old versions become chains, what nobody needs goes, and nothing is lost on the way."""

import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from faults import FaultyStore, Rule
from holdfast.errors import HoldfastError, StalePlanError
from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.lineage import Lineage, ObjectKey
from holdfast.vault.chains import chain_order
from holdfast.vault.check import check_vault
from holdfast.vault.collecting import condemn, purge, settle
from holdfast.vault.explain import explain_file
from holdfast.vault.marking import mark
from holdfast.vault.records import MAX_DEPTH, DamagedVaultError
from holdfast.vault.repack import Repacked, plan_repack, repack
from holdfast.vault.repair import repair_vault
from holdfast.vault.repository import Vault, init_vault, open_vault
from holdfast.vault.segment import INDEX, SESSIONS, read_segment
from holdfast.vault.session import RevokedError
from holdfast.vault.survey import survey
from vaults import (
    SMALL_BLOCK,
    SMALL_PACK,
    all_is_well,
    bf16_history,
    keys,
    noise,
    oid_of,
    png_like,
    put_all,
    read_all,
)

NOW, DAYS = timedelta(0), timedelta(days=14)


def key_of(data: bytes) -> ObjectKey:
    kind, _, value = oid_of(data).partition(":")
    return kind, value


def lineage_of(*histories: Sequence[bytes]) -> Lineage:
    """What git's history would say: each is a path's versions, oldest first; the newest are at the tip of a branch."""
    lineage = Lineage()
    for number, versions in enumerate(histories):
        for data in reversed(versions):
            lineage.add(f"models/{number}.safetensors", key_of(data))
        lineage.tips.add(key_of(versions[-1]))
    return lineage


def made(store: ObjectStore, cache: Path | None = None, pack_bytes: int = SMALL_PACK) -> Vault:
    return init_vault(store, cache, block_bytes=SMALL_BLOCK, pack_bytes=pack_bytes, jobs=2)


def packed(vault: Vault, lineage: Lineage, **options: timedelta) -> Repacked:
    """Repack with nothing that is recent."""
    plan = plan_repack(vault, lineage, recent=NOW)
    return repack(vault, plan, recent=NOW, **options)


def stored(store: ObjectStore) -> int:
    return sum(info.size for info in store.list_objects("packs"))


def depths(vault: Vault, versions: Sequence[bytes]) -> list[int]:
    return [explain_file(vault, oid_of(data)).depth for data in versions]


@pytest.fixture
def store() -> ObjectStore:
    return open_store("memory://")


def test_a_history_becomes_a_chain_that_runs_backward(store: ObjectStore) -> None:
    versions = bf16_history(6)
    lineage = lineage_of(versions)
    with made(store) as vault:
        for data in versions:
            put_all(vault, [data])
        whole = stored(store)
        done = packed(vault, lineage)
        assert done.settled.waiting == ()
        assert stored(store) > whole  # the old packs wait, and are read for as long
        assert depths(vault, versions) == [0, 0, 0, 0, 0, 0]
        gone = purge(vault, older_than=NOW)
        assert set(gone.packs) == set(done.condemned)
        assert stored(store) < 0.55 * whole
        assert depths(vault, versions) == [5, 4, 3, 2, 1, 0]
        newest = explain_file(vault, oid_of(versions[-1]))
        assert newest.base_bytes == 0
        assert plan_repack(vault, lineage, recent=NOW).empty
    all_is_well(store, versions)
    assert check_vault(store, jobs=1).findings == ()


def test_a_push_after_a_repack_and_a_repack_after_that(store: ObjectStore) -> None:
    versions = bf16_history(7)
    with made(store) as vault:
        put_all(vault, versions[:4])
        packed(vault, lineage_of(versions[:4]))
        purge(vault, older_than=NOW)
        put_all(vault, versions[4:], chain=True)
        plan = plan_repack(vault, lineage_of(versions), recent=NOW)
        assert [file.oid for file in plan.files] == [oid_of(data) for data in reversed(versions)]
        packed(vault, lineage_of(versions))
        purge(vault, older_than=NOW)
        assert depths(vault, versions) == [6, 5, 4, 3, 2, 1, 0]
    all_is_well(store, versions)


def test_no_chain_is_deeper_than_it_may_be_and_a_full_one_stays(store: ObjectStore) -> None:
    versions = bf16_history(2 * MAX_DEPTH + 4, elements=40_000)
    old = versions[:-2]
    with made(store) as vault:
        put_all(vault, old)
        packed(vault, lineage_of(old))
        purge(vault, older_than=NOW)
        found = depths(vault, old)
        assert found[-1] == 0
        assert max(found) == MAX_DEPTH
        assert all(depth > 0 for depth in found[:-1])
        put_all(vault, versions[-2:], chain=True)
        plan = plan_repack(vault, lineage_of(versions), recent=NOW)
        # the two are put right; what follows the one that was newest before stays
        assert {file.oid for file in plan.files} <= {oid_of(data) for data in versions[-3:]}
        packed(vault, lineage_of(versions))
        purge(vault, older_than=NOW)
        assert depths(vault, old)[:-1] == found[:-1]
    all_is_well(store, versions)


def test_what_is_hot_never_reads_more_than_it_has(store: ObjectStore) -> None:
    versions = bf16_history(8)
    lineage = lineage_of(versions)
    lineage.tips.add(key_of(versions[2]))
    with made(store) as vault:
        put_all(vault, versions, chain=True)
        packed(vault, lineage)
        purge(vault, older_than=NOW)
        for data in (versions[2], versions[-1]):
            assert explain_file(vault, oid_of(data)).read_bytes <= len(data)
        assert explain_file(vault, oid_of(versions[0])).read_bytes > len(versions[0])
    all_is_well(store, versions)


def test_what_was_claimed_lately_is_hot(store: ObjectStore) -> None:
    versions = bf16_history(4)
    with made(store) as vault:
        put_all(vault, versions)
        assert not plan_repack(vault, lineage_of(versions), recent=NOW).empty
        assert plan_repack(vault, lineage_of(versions)).empty


def test_what_the_history_does_not_know_is_left_as_it_is(store: ObjectStore) -> None:
    versions, others = bf16_history(3), bf16_history(3, seed=9)
    files = [noise(200_000, 1), *(png_like(number) for number in range(30))]
    with made(store) as vault:
        put_all(vault, [*versions, *files])
        put_all(vault, others, chain=True)
        before = depths(vault, others)
        packed(vault, lineage_of(versions))
        purge(vault, older_than=NOW)
        assert depths(vault, others) == before
    all_is_well(store, [*versions, *others, *files])


PUSHING = """
import sys; sys.path.insert(0, sys.argv[3])
from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.vault.repository import open_vault
from vaults import noise, oid_of
with open_vault(open_store(sys.argv[1]), None, jobs=1) as vault, vault.session() as session:
    print("announced", flush=True)
    sys.stdin.readline()
    for data in (*(noise(150_000, number) for number in range(4)), noise(60_000, 10 + int(sys.argv[2]))):
        session.put(oid_of(data), MemorySource(data))
    session.commit()
"""


def test_what_a_race_stored_twice_goes(tmp_path: Path) -> None:
    shared = [noise(150_000, number) for number in range(4)]
    own = [noise(60_000, 10 + number) for number in range(8)]
    store = open_store(str(tmp_path / "vault"))
    made(store).close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUSHING, str(tmp_path / "vault"), str(number), str(Path(__file__).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "announced\n"  # each has looked before any has sent something
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    once = sum(map(len, (*shared, *own)))
    assert stored(store) > 3 * once
    with open_vault(store, None, jobs=2) as vault:
        read_all(vault, [*shared, *own])
        ninth = put_all(vault, [*shared, *own])
        assert (ninth.new_blobs, ninth.packs, ninth.skipped) == (0, 0, 12)
        packed(vault, Lineage())
        purge(vault, older_than=NOW)
    found = survey(store, 1)
    assert len({entry.id for entry in found.entries}) == len(found.entries)  # nothing is there twice
    assert sum(entry.stored for entry in found.entries) < 1.01 * once
    all_is_well(store, [*shared, *own])


def test_many_small_packs_become_few_and_so_do_segments(store: ObjectStore) -> None:
    files = [noise(3_000, number) for number in range(20)]
    with made(store) as vault:
        for data in files:
            put_all(vault, [data])
        assert len(keys(store, "packs")) == 20
        packed(vault, Lineage())
        purge(vault, older_than=NOW)
    assert len(keys(store, "packs")) <= 2
    with open_vault(store, None, jobs=1) as vault:
        vault.refresh()
        assert len(vault.index.known.segments) <= 2
    all_is_well(store, files)


def test_nothing_is_deleted_before_its_time(store: ObjectStore) -> None:
    versions = bf16_history(3)
    with made(store) as vault:
        put_all(vault, versions)
        done = packed(vault, lineage_of(versions))
        kept = purge(vault, older_than=DAYS)
        assert (kept.packs, len(kept.kept)) == ((), 1)
        told = purge(vault, older_than=NOW, dry_run=True)
        assert set(told.packs) == set(done.condemned) <= set(keys(store, "packs"))
        assert told.bytes == sum(done.condemned.values())
        purge(vault, older_than=NOW)
        assert not set(done.condemned) & set(keys(store, "packs"))
        assert keys(store, "condemned") == []
    all_is_well(store, versions)


def test_a_session_that_was_announced_before_is_waited_for(store: ObjectStore) -> None:
    versions, more = bf16_history(4), bf16_history(6)[4:]
    lineage = lineage_of(versions)
    with made(store) as vault, open_vault(store, None, jobs=1) as other:
        put_all(vault, versions)
        with other.session() as session:
            # a delta against what is about to be condemned
            session.put(oid_of(more[0]), MemorySource(more[0]), base_oid=oid_of(versions[-1]))
            done = packed(vault, lineage)
            assert [waiting.session for waiting in done.settled.waiting] == [session.id]
            assert purge(vault, older_than=NOW).packs == ()
            session.commit()
        assert settle(vault, recent=NOW).waiting == ()
        purge(vault, older_than=NOW)
        assert depths(vault, [more[0]]) == [1]
    all_is_well(store, [*versions, more[0]])


def test_a_session_that_takes_too_long_is_revoked(store: ObjectStore) -> None:
    versions, late = bf16_history(3), noise(100_000, 1)
    with made(store) as vault, open_vault(store, None, jobs=1) as other:
        put_all(vault, versions)
        with other.session() as session:
            session.put(oid_of(late), MemorySource(late))
            assert packed(vault, lineage_of(versions), grace=NOW).settled.waiting == ()
            with pytest.raises(RevokedError):
                session.commit()
        purge(vault, older_than=NOW)
        # what it had sent belongs to nobody, and goes with the next
        orphans = [finding.key for finding in check_vault(store, jobs=1).findings]
        packed(vault, lineage_of(versions), grace=NOW)
        purge(vault, older_than=NOW)
        assert not set(orphans) & set(keys(store, "packs"))
    all_is_well(store, versions)


def test_a_push_that_was_interrupted_is_left_alone_and_goes_on(store: ObjectStore, tmp_path: Path) -> None:
    versions, late = bf16_history(3), [noise(140_000, number) for number in range(3)]
    made(store).close()
    with open_vault(store, None, jobs=1) as vault:
        put_all(vault, versions)
        broken = FaultyStore(store, [Rule("refuse", key=INDEX, verbs=frozenset({"put_if_absent"}))])
        with open_vault(broken, tmp_path, jobs=1) as other, pytest.raises(HoldfastError):
            put_all(other, late)
        assert keys(store, SESSIONS)
        done = packed(vault, lineage_of(versions))
        assert len(done.settled.waiting) == 1
        with open_vault(store, tmp_path, jobs=1) as other:
            assert put_all(other, late).packs == 0
        settle(vault)
        purge(vault, older_than=NOW)
    all_is_well(store, [*versions, *late])


def test_young_claims_outlive_their_segments(store: ObjectStore) -> None:
    versions = bf16_history(3)
    with made(store) as vault:
        put_all(vault, versions)
        put_all(vault, versions[:1])  # there already: a claim alone
        plan = plan_repack(vault, lineage_of(versions), recent=NOW)
        repack(vault, plan, recent=DAYS)
        purge(vault, older_than=NOW)
        (plan_again,) = [plan_repack(vault, lineage_of(versions))]
        assert plan_again.empty
    claims: set[str] = set()
    for info in store.list_objects(INDEX):
        if info.size:
            segment = read_segment(info.key.removeprefix(f"{INDEX}/"), store.get(info.key))
            claims.update(segment.rows.claims)
            assert not segment.rows.claimed.any() or not set(keys(store, "condemned"))
    assert claims >= {oid_of(data) for data in versions}


def test_a_plan_that_is_out_of_date_is_refused(store: ObjectStore) -> None:
    versions = bf16_history(3)
    with made(store) as vault:
        put_all(vault, versions)
        plan = plan_repack(vault, lineage_of(versions), recent=NOW)
        put_all(vault, [b"something else"])
        before = keys(store)
        with pytest.raises(StalePlanError, match="Make a new one"):
            repack(vault, plan)
    assert keys(store) == before


def test_a_damaged_vault_is_not_repacked(store: ObjectStore) -> None:
    versions = bf16_history(3)
    with made(store) as vault:
        put_all(vault, versions)
        store.delete(keys(store, "packs")[0])
        with pytest.raises(DamagedVaultError, match="vault repair"):
            plan_repack(vault, lineage_of(versions))
        packs = keys(store, "packs")
        (segment,) = keys(store, INDEX)
        store.put(segment, store.get(segment)[:-1])
        with pytest.raises(DamagedVaultError, match="vault repair"):
            plan_repack(vault, lineage_of(versions))
    assert keys(store, "packs") == packs


def test_what_repair_condemned_goes(store: ObjectStore) -> None:
    files = {oid_of(data): data for data in (noise(90_000, number) for number in range(4))}
    with made(store) as vault:
        put_all(vault, list(files.values()))
        bad = keys(store, "packs")[0]
        data = store.get(bad)
        store.put(bad, data[:100] + bytes([data[100] ^ 4]) + data[101:])
        checked = check_vault(store, jobs=1, read_data=True)
        repair_vault(vault, checked, lambda oid: Opened(files[oid]))
        settle(vault)
        purge(vault, older_than=NOW)
        assert bad not in keys(store, "packs")
    all_is_well(store, list(files.values()))
    assert check_vault(store, jobs=1, read_data=True).findings == ()


class Opened:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __enter__(self) -> MemorySource:
        return MemorySource(self.data)

    def __exit__(self, *_: object) -> None:
        pass


def test_two_repacks_at_once(store: ObjectStore) -> None:
    versions = bf16_history(5)
    lineage = lineage_of(versions)
    made(store).close()
    with open_vault(store, None, jobs=1) as one, open_vault(store, None, jobs=1) as two:
        put_all(one, versions)
        plans = [plan_repack(vault, lineage, recent=NOW) for vault in (one, two)]
        repack(one, plans[0], recent=NOW)
        with pytest.raises(StalePlanError):
            repack(two, plans[1], recent=NOW)
        packed(two, lineage)
        purge(one, older_than=NOW)
        purge(two, older_than=NOW)
    all_is_well(store, versions)


def test_marking_prefers_what_is_preferred_and_closes_no_loop(store: ObjectStore) -> None:
    one, two = bf16_history(2)
    with made(store) as vault, open_vault(store, None, jobs=1) as other:
        # each stored whole by one and against the other one by the other: either may be the base
        with vault.session() as first, other.session() as second:
            for session, order in ((first, (one, two)), (second, (two, one))):
                session.put(oid_of(order[0]), MemorySource(order[0]))
                session.put(oid_of(order[1]), MemorySource(order[1]), base_oid=oid_of(order[0]))
            first.commit()
            second.commit()
        found = survey(store, 1)
        for avoided in (first.id, second.id, "none"):
            marked = mark(found, {key for key in keys(store, "packs") if key.endswith(avoided)})
            for entry in marked.entries.values():
                assert not entry.base or marked.entries[entry.base].depth < entry.depth
                assert not entry.pack.endswith(avoided)
        condemn(store, [key for key in keys(store, "packs") if key.endswith(first.id)], found, mark(found))
        settle(vault, recent=NOW)
        purge(vault, older_than=NOW)
    all_is_well(store, [one, two])


def test_what_others_were_made_against_stays_where_the_new_place_is_too_deep(store: ObjectStore) -> None:
    first, second, newest = bf16_history(3)
    with made(store) as vault:
        put_all(vault, [first])
        old = keys(store, "packs")
        put_all(vault, [second], session="c" * 32)
        with vault.session() as session:
            session.put(oid_of(newest), MemorySource(newest), base_oid=oid_of(first))  # one deep
            session.commit()
        # the first is stored anew, one deep itself
        with vault.session(leaving=old, claiming=False) as session:
            session.put(oid_of(first), MemorySource(first), base_oid=oid_of(second), again=True)
            session.commit()
        marked = mark(survey(store, 1), old)
        assert any(entry.pack in old and not entry.base for entry in marked.entries.values())
        for entry in marked.entries.values():
            assert not entry.base or marked.entries[entry.base].depth < entry.depth
    all_is_well(store, [first, second, newest])


def test_the_order_of_chains() -> None:
    a, b, c = (("md5", name) for name in "abc")
    lineage = Lineage()
    for key in (c, b, a):
        lineage.add("model", key)
    assert [link[:2] for link in chain_order(lineage, [a, b, c], {c})] == [(c, None), (b, c), (a, b)]
    # a tagged one goes before those that are newer and cold
    assert [link[:2] for link in chain_order(lineage, [a, b, c], {a, c})] == [(c, None), (a, c), (b, c)]
    assert [link.cold for link in chain_order(lineage, [a, b, c], {a, c})] == [False, False, True]
    assert [link[:2] for link in chain_order(lineage, [b], set())] == [(b, None)]
