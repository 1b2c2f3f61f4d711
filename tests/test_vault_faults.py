"""Nothing that was acknowledged is lost, whatever the store does and others do meanwhile."""

import io
import time
from pathlib import Path

import pytest

from faults import FaultyStore, Kind, Rule
from holdfast.errors import HoldfastError
from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore, UnreachableError
from holdfast.vault.repository import init_vault, open_vault
from holdfast.vault.segment import write_condemned
from holdfast.vault.session import RevokedError
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
    session_name,
)

KINDS: tuple[Kind, ...] = ("refuse", "lose", "truncate", "flip", "duplicate")
VERSIONS = bf16_history(3, elements=40_000)
ROUNDS = (
    [noise(150_000, 1), *(png_like(number) for number in range(20)), b""],
    [VERSIONS[0], VERSIONS[1], noise(150_000, 1)[50_000:]],
    [VERSIONS[2], *(png_like(number) for number in range(10, 30)), noise(100_000, 2)],
)
EVERYTHING = [data for files in ROUNDS for data in files]


def fresh(folder: Path | None) -> ObjectStore:
    store = open_store("memory://")
    init_vault(store, folder, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, vault_id="cd" * 16).close()
    return store


def script(store: ObjectStore, cache: Path | None, acknowledged: list[bytes]) -> None:
    """Three pushes by a process that begins anew for each, and two reads."""
    for files in ROUNDS:
        with open_vault(store, cache, jobs=1) as vault:
            put_all(vault, files, chain=True)
            acknowledged += files
    with open_vault(store, cache, jobs=1) as vault:
        for data in (VERSIONS[1], EVERYTHING[3]):
            out = io.BytesIO()
            vault.get(oid_of(data), out)
            assert out.getvalue() == data, "wrong data was handed out"


def calls_of_a_script() -> int:
    counted = FaultyStore(fresh(None))
    script(counted, None, [])
    return len(counted.calls)


CALLS = 50  # a test below sees to it that a script has no more


def test_a_script_has_as_many_calls_as_are_tried() -> None:
    assert CALLS * 0.6 < calls_of_a_script() <= CALLS


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_single_call_may_go_wrong(kind: Kind, step: int, tmp_path: Path) -> None:
    struck = 0
    # of several kinds each tries other calls
    for number in range(1 + KINDS.index(kind) % step, CALLS + 1, step):
        cache = tmp_path / str(number)
        store = fresh(cache)
        faulty = FaultyStore(store, [Rule(kind, at=number)])
        acknowledged: list[bytes] = []
        try:
            script(faulty, cache, acknowledged)
        except HoldfastError:
            struck += 1
        with open_vault(store, None, jobs=1) as vault:
            read_all(vault, acknowledged)
        script(store, cache, [])  # the next push completes
        if number % 5 == 0 or len(acknowledged) < len(EVERYTHING):
            all_is_well(store, EVERYTHING)
    assert struck > 10 // step if kind in ("refuse", "lose") else struck <= CALLS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "every", [2, 7, pytest.param(3, marks=pytest.mark.soak), pytest.param(5, marks=pytest.mark.soak)]
)
def test_every_nth_call_may_go_wrong(kind: Kind, every: int, tmp_path: Path) -> None:
    store = fresh(tmp_path)
    faulty = FaultyStore(store, [Rule(kind, every=every)])
    acknowledged: list[bytes] = []
    for _ in range(6):
        try:
            script(faulty, tmp_path, acknowledged)
        except HoldfastError:
            with open_vault(store, None, jobs=1) as vault:
                read_all(vault, acknowledged)
    script(store, tmp_path, acknowledged)
    all_is_well(store, EVERYTHING)


def test_an_interrupted_push_goes_on_where_it_was(tmp_path: Path) -> None:
    store = fresh(tmp_path)
    data = [noise(200_000, number) for number in range(6)]
    broken = FaultyStore(store, [Rule("refuse", frozenset({"put"}), key="packs/", at=5)])
    with open_vault(broken, tmp_path, jobs=1) as vault, pytest.raises(UnreachableError):
        put_all(vault, data)
    sent = set(keys(store, "packs"))
    assert len(sent) >= 4
    (announced,) = keys(store, "sessions")
    going_on = FaultyStore(store)
    with open_vault(going_on, tmp_path, jobs=1) as vault:
        statistics = put_all(vault, data)
        read_all(vault, data)
    again = {key for verb, key in going_on.calls if verb == "put" and key.startswith("packs/")}
    assert len(again & sent) <= 1  # the one that was under way beside the broken one
    assert statistics.packs == len(again) > 0
    assert keys(store, "index") == [announced.replace("sessions", "index")]
    assert keys(store, "sessions") == []
    assert not list((tmp_path / ("cd" * 16) / "sessions").iterdir())
    all_is_well(store, data)


def test_a_pack_that_came_before_what_it_needs_is_not_gone_on_with(tmp_path: Path) -> None:
    store = fresh(tmp_path)
    data = noise(300_000, 1)  # three packs, the last with the recipe

    def until_the_next_has_come() -> None:
        end = time.monotonic() + 20
        while len(keys(store, "packs")) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        raise UnreachableError("the connection broke")

    rules = [Rule("delay", frozenset({"put"}), key="packs/", at=2)]
    broken = FaultyStore(store, rules, until_the_next_has_come)
    with open_vault(broken, tmp_path, jobs=1) as vault, pytest.raises(UnreachableError):
        put_all(vault, [data])
    assert len(keys(store, "packs")) == 2  # the first and the third
    with open_vault(store, tmp_path, jobs=1) as vault:
        put_all(vault, [b"another file"])
    all_is_well(store, [b"another file"])
    with open_vault(store, tmp_path, jobs=1) as vault:
        put_all(vault, [data])
    all_is_well(store, [data])


def test_a_session_whose_pack_was_lost_cannot_commit() -> None:
    store = fresh(None)
    broken = FaultyStore(store, [Rule("refuse", frozenset({"put"}), key="packs/", at=2)])
    with open_vault(broken, None, jobs=1) as vault, vault.session() as session:
        for _ in range(2):
            with pytest.raises(UnreachableError):
                session.put(oid_of(noise(900_000, 1)), MemorySource(noise(900_000, 1)))
        with pytest.raises(UnreachableError):
            session.commit()
    assert keys(store, "index") == []


def test_a_commit_whose_answer_was_lost_is_no_second_push(tmp_path: Path) -> None:
    store = fresh(tmp_path)
    data = [noise(200_000, number) for number in range(3)]
    broken = FaultyStore(store, [Rule("lose", frozenset({"put_if_absent"}), key="index/")])
    with open_vault(broken, tmp_path, jobs=1) as vault, pytest.raises(UnreachableError):
        put_all(vault, data)
    with open_vault(store, tmp_path, jobs=1) as vault:
        statistics = put_all(vault, data)
    assert (statistics.skipped, statistics.packs) == (3, 0)
    assert keys(store, "sessions") == []
    all_is_well(store, data)


def test_two_processes_never_go_on_with_one_session(tmp_path: Path) -> None:
    store = fresh(tmp_path)
    broken = FaultyStore(store, [Rule("refuse", frozenset({"put"}), key="packs/", at=3)])
    with open_vault(broken, tmp_path, jobs=1) as vault, pytest.raises(UnreachableError):
        put_all(vault, [noise(600_000, 1)])
    one, two = open_vault(store, tmp_path, jobs=1), open_vault(store, tmp_path, jobs=1)
    with one.session() as first, two.session() as second:
        assert first.id != second.id
        second.put(oid_of(b"x"), MemorySource(b"x"))
        second.commit()
        first.put(oid_of(noise(600_000, 1)), MemorySource(noise(600_000, 1)))
        first.commit()
    all_is_well(store, [b"x", noise(600_000, 1)])


def test_a_revoked_session_does_not_count(tmp_path: Path) -> None:
    store = fresh(tmp_path)
    data = noise(200_000, 1)
    with open_vault(store, tmp_path, jobs=1) as vault:
        with vault.session() as session:
            session.put(oid_of(data), MemorySource(data))
            assert store.put_if_absent(f"index/{session.id}", b"")
            with pytest.raises(RevokedError, match="Run the command again"):
                session.commit()
        assert not vault.exists([oid_of(data)])
        for key in keys(store, "packs"):
            store.delete(key)  # what a collector does to packs of a revoked session
        assert put_all(vault, [data]).new_blobs > 0
    all_is_well(store, [data])


def test_a_session_revoked_while_nobody_was_at_it(tmp_path: Path) -> None:
    store = fresh(tmp_path)
    data = noise(600_000, 1)
    broken = FaultyStore(store, [Rule("refuse", frozenset({"put"}), key="packs/", at=3)])
    with open_vault(broken, tmp_path, jobs=1) as vault, pytest.raises(UnreachableError):
        put_all(vault, [data])
    (announced,) = keys(store, "sessions")
    store.put_if_absent(announced.replace("sessions", "index"), b"")
    for key in keys(store, "packs"):
        store.delete(key)
    with open_vault(store, tmp_path, jobs=1) as vault:
        put_all(vault, [data])
    all_is_well(store, [data])


def test_packs_that_are_gone_are_not_gone_on_with(tmp_path: Path) -> None:
    store = fresh(tmp_path)
    data = noise(600_000, 1)
    broken = FaultyStore(store, [Rule("refuse", frozenset({"put"}), key="packs/", at=3)])
    with open_vault(broken, tmp_path, jobs=1) as vault, pytest.raises(UnreachableError):
        put_all(vault, [data])
    for key in keys(store, "packs"):
        store.delete(key)
    with open_vault(store, tmp_path, jobs=1) as vault:
        put_all(vault, [data])
    all_is_well(store, [data])


@pytest.mark.parametrize("what", ["pack", "segment"])
def test_nothing_is_built_upon_what_is_condemned(what: str) -> None:
    store = fresh(None)
    old, files = VERSIONS[0], [VERSIONS[0], noise(200_000, 1)]
    with open_vault(store, None, jobs=1) as vault:
        put_all(vault, files, session=session_name(1))
    packs = keys(store, "packs")
    condemned = write_condemned(packs, ()) if what == "pack" else write_condemned((), [session_name(1)])
    store.put_if_absent(f"condemned/{session_name(9)}", condemned)
    with open_vault(store, None, jobs=1) as vault:
        read_all(vault, files)  # what is condemned can still be read
        with vault.session() as session:
            assert not session.known([oid_of(data) for data in files])
            session.put(oid_of(VERSIONS[1]), MemorySource(VERSIONS[1]), base_oid=oid_of(old))
            for data in files:
                assert session.put(oid_of(data), MemorySource(data))
            session.commit()
    # the collector's last step
    store.put(f"index/{session_name(1)}", b"")
    for key in packs:
        store.delete(key)
    all_is_well(store, [*files, VERSIONS[1]])


def test_what_stands_on_a_condemned_base_is_condemned_too() -> None:
    store = fresh(None)
    with open_vault(store, None, jobs=1) as vault:
        put_all(vault, VERSIONS[:1], session=session_name(1))
        before = keys(store, "packs")
        with vault.session(session_name(2)) as session:
            session.put(oid_of(VERSIONS[1]), MemorySource(VERSIONS[1]), base_oid=oid_of(VERSIONS[0]))
            session.commit()
        vault.refresh()
        assert max(entry.depth for entry in vault.index.all_entries()) == 1
    store.put_if_absent(f"condemned/{session_name(9)}", write_condemned(before, ()))
    with open_vault(store, None, jobs=1) as vault, vault.session() as session:
        assert not session.known([oid_of(VERSIONS[1])])
        session.put(oid_of(VERSIONS[1]), MemorySource(VERSIONS[1]))
        session.commit()
    store.put(f"index/{session_name(1)}", b"")
    for key in before:
        store.delete(key)
    with open_vault(store, None, jobs=1) as vault:
        read_all(vault, VERSIONS[1:2])


def test_a_damaged_condemnation_stops_writers() -> None:
    store = fresh(None)
    store.put("condemned/x", write_condemned(["packs"], ())[:-1])
    with open_vault(store, None, jobs=1) as vault, pytest.raises(HoldfastError, match="condemned/x is damaged"):
        vault.session()
    assert keys(store, "index") == []


def test_a_reader_looks_again_where_a_collector_was(tmp_path: Path) -> None:
    store = fresh(None)
    data = [noise(300_000, 1), VERSIONS[0], b"small"]
    with open_vault(store, None, jobs=2) as vault:
        put_all(vault, data, session=session_name(1))
    reader = open_vault(store, None, jobs=2)
    read_all(reader, data[:1])
    opened = reader.open(oid_of(data[1]))
    packs = keys(store, "packs")
    store.put_if_absent(f"condemned/{session_name(9)}", write_condemned(packs, [session_name(1)]))
    with open_vault(store, None, jobs=2) as vault:
        put_all(vault, data)
    store.put(f"index/{session_name(1)}", b"")
    for key in packs:
        store.delete(key)
    read_all(reader, data[:1])
    assert opened.read(0, len(data[1])) == data[1]
    late = open_vault(store, None, jobs=2)
    late.index.known = reader.index.known
    assert dict(reader.get_many((oid_of(item), tmp_path / oid_of(item)) for item in data)) == {
        oid_of(item): len(item) for item in data
    }


def test_a_broken_blob_that_lies_elsewhere_too_is_read_from_there() -> None:
    store = fresh(None)
    data = noise(200_000, 1)
    one, two = open_vault(store, None, jobs=1), open_vault(store, None, jobs=1)
    with one.session() as first, two.session() as second:  # a race stores it twice
        for session in (first, second):
            session.put(oid_of(data), MemorySource(data))
            session.commit()
    for key in keys(store, "packs")[:1]:
        raw = bytearray(store.get(key))
        raw[1000] ^= 1
        store.put(key, bytes(raw))
    read_all(open_vault(store, None, jobs=1), [data])
    assert open_vault(store, None, jobs=1).open(oid_of(data)).read(0, len(data)) == data
