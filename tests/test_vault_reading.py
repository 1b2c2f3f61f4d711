"""Windows of blobs: everything that is wanted comes, whatever the bounds are, and nothing is read twice needlessly."""

from collections import Counter
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import FaultyStore
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.parallel import one_ahead
from holdfast.vault import reading
from holdfast.vault.collecting import purge
from holdfast.vault.reading import Plan, steps
from holdfast.vault.records import Entry
from holdfast.vault.repository import open_vault
from test_vault_repack import NOW, lineage_of, made, packed
from vaults import bf16_history, oid_of, put_all


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, list[bytes]]:
    """Blobs with chains of bases, and an order in which they are wanted, some of them more than once."""
    entries: dict[bytes, Entry] = {}
    for number in range(draw(st.integers(1, 20))):
        name = bytes([number + 1]) * 32
        below = draw(st.sampled_from([b"", *(other for other, entry in entries.items() if entry.depth < 16)]))
        depth = entries[below].depth + 1 if below else 0
        plain = draw(st.integers(1, 100))
        entries[name] = Entry(name, "pack", number * 1000, draw(st.integers(1, plain)), plain, below, depth, 0)
    return Plan(entries), draw(st.lists(st.sampled_from(list(entries)), max_size=40))


@settings(deadline=None, max_examples=300)
@given(plans(), st.integers(1, 400), st.integers(0, 600))
def test_every_step_has_what_it_needs(made_up: tuple[Plan, list[bytes]], window: int, room: int) -> None:
    plan, order = made_up
    shelf: dict[bytes, int] = {}
    given_out: list[bytes] = []
    with patch.object(reading, "WINDOW_BYTES", window), patch.object(reading, "SHELF_BYTES", room):
        for step in steps(plan, order):
            for entries in step.levels:
                for entry in entries:
                    assert not entry.base or entry.base in shelf
                    assert entry.id not in shelf
                shelf.update({entry.id: entry.plain for entry in entries})
            assert set(step.names) <= shelf.keys()
            given_out += step.names
            fresh = sum(entry.stored + entry.plain for entry in step.entries())
            assert fresh <= window or len(step.names) == 1
            for name in step.dropped:
                del shelf[name]
            assert sum(shelf.values()) <= room
    # in the order wanted: neighbours that are the same come once
    rest = iter(given_out)
    seen: set[bytes] = set()
    for name in order:
        if name not in seen:
            assert name in rest or name in given_out
        seen.add(name)
    assert set(given_out) == set(order)


@settings(deadline=None, max_examples=200)
@given(plans(), st.integers(1, 400))
def test_with_room_nothing_is_read_twice(made_up: tuple[Plan, list[bytes]], window: int) -> None:
    plan, order = made_up
    with patch.object(reading, "WINDOW_BYTES", window):
        found = list(steps(plan, order))
    times = Counter(entry.id for step in found for entry in step.entries())
    assert set(times.values()) <= {1}
    left = {name for step in found for name in step.dropped}
    wanted = {entry.id for name in order for entry in plan.chain(name)}
    assert left == wanted  # and nothing is kept longer than it is needed


def test_the_first_windows_are_short() -> None:
    names = [number.to_bytes(32, "big") for number in range(1, 41)]
    plan = Plan({name: Entry(name, "pack", 0, 5, 5, b"", 0, 0) for name in names})
    with patch.object(reading, "FIRST_WINDOW_BYTES", 20), patch.object(reading, "WINDOW_BYTES", 100):
        assert [len(step.names) for step in steps(plan, names)] == [2, 4, 8, 10, 10, 6]


def test_a_history_is_fetched_once(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = open_store("memory://")
    versions = bf16_history(8)
    with made(store) as vault:
        for data in versions:
            put_all(vault, [data])
        packed(vault, lineage_of(versions))
        purge(vault, older_than=NOW)
    size = sum(info.size for info in store.list_objects("packs"))
    counted = FaultyStore(store)
    with open_vault(counted, None, jobs=2) as vault:
        before = vault.store.bytes_read
        files = [(oid_of(data), tmp_path / str(number)) for number, data in enumerate(versions)]
        assert len(list(vault.get_many(files))) == len(versions)
        assert vault.store.bytes_read - before < 1.2 * size
    for number, data in enumerate(versions):
        assert (tmp_path / str(number)).read_bytes() == data


def test_one_ahead() -> None:
    begun: list[int] = []

    def items():  # type: ignore[no-untyped-def]
        for number in range(4):
            begun.append(number)
            yield number
        raise ValueError("the end")

    made_up = one_ahead(items())
    for number in range(4):
        assert next(made_up) == number
        assert len(begun) <= number + 2
    with pytest.raises(ValueError, match="the end"):
        next(made_up)
    left = one_ahead(iter(range(100)))
    assert next(left) == 0
    left.close()  # type: ignore[attr-defined]
