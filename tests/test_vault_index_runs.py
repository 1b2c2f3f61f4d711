"""Places of blobs in runs: found, put together and counted as a plain table of them would be."""

import os
import sqlite3
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from holdfast.vault import index as index_module
from holdfast.vault import index_file, index_merge, index_runs
from holdfast.vault.index import Index
from holdfast.vault.index_fallen import fallen
from holdfast.vault.index_file import IndexFile, IndexFileError
from holdfast.vault.index_merge import merge, opened
from holdfast.vault.index_runs import Run, TornRunError, run_of
from holdfast.vault.listing import Listing
from holdfast.vault.records import Entry
from holdfast.vault.segment import Segment, read_segment, write_condemned, write_segment
from vaults import session_name

# ids that differ in their first bytes, and some that have these in common
NAMES = [bytes([number]) * 32 for number in range(9)] + [b"same".ljust(31, b"!") + bytes([end]) for end in range(40)]


def pack_key(session: str, number: int) -> str:
    return f"packs/00/{number:064x}-{session}"


def segment_bytes(session: str, places: Iterable[tuple[int, int, int]], packs: int = 3) -> bytes:
    """A segment of blobs, each with its number, its pack's, and its base's, or -1."""
    entries = [
        Entry(
            NAMES[name], pack_key(session, pack), 4 + 10 * row, 10, 100, NAMES[base] if base >= 0 else b"", base + 1, 1
        )
        for row, (name, pack, base) in enumerate(places)
    ]
    return write_segment(Listing(entries), {pack_key(session, number): 10_000 for number in range(packs)})


def segment_of(number: int, places: Iterable[tuple[int, int, int]]) -> Segment:
    return read_segment(session_name(number), segment_bytes(session_name(number), places))


# each blob at most once in a segment; a base has a smaller number, and so less depth
places_of_a_segment = st.lists(
    st.tuples(st.integers(0, len(NAMES) - 1), st.integers(0, 2), st.integers(-1, 15)),
    max_size=30,
    unique_by=lambda one: one[0],
).map(lambda some: [(name, pack, base if base < min(name, 15) else -1) for name, pack, base in some])
segments_of_a_vault = st.lists(places_of_a_segment, min_size=1, max_size=5)


def runs_of(parts: list[list[tuple[int, int, int]]]) -> list[Run]:
    return [run_of(segment_of(number, part).rows, 1 + 3 * number) for number, part in enumerate(parts)]


def rows_of(parts: list[list[tuple[int, int, int]]]) -> list[index_runs.Row]:
    """What runs of these hold, one after the other."""
    rows = [
        (entry.id, 1 + 3 * number + int(entry.pack[9:73], 16), *entry[2:])
        for number, part in enumerate(parts)
        for entry in segment_of(number, part).entries()
    ]
    return sorted(rows)


@settings(max_examples=60, deadline=None)
@given(segments_of_a_vault, st.sets(st.integers(1, 15)), st.integers(1, 7), st.sampled_from([0, 100]))
def test_runs_put_together_hold_what_they_held(
    parts: list[list[tuple[int, int, int]]], gone: set[int], part_rows: int, few: int
) -> None:
    live = np.ones(16, bool)
    live[list(gone)] = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_merge, "PART_ROWS", part_rows)
        patch.setattr(index_runs, "FEW", few)
        patch.setattr(index_runs, "FEW_TIED", 2)
        out = BytesIO()
        merge(runs_of(parts), live, out)
        run = opened(out)
        expected = [row for row in rows_of(parts) if row[1] not in gone]
        assert list(run.all()) == expected
        assert sorted(run.find(NAMES)) == expected
        assert not run.search(run.foreign)[0].size  # a base that has a place is no foreign one
        for name in (NAMES[3], NAMES[20], b"\xff" * 32, b"\0" * 32):
            assert list(run.find([name])) == [row for row in expected if row[0] == name]
        # whatever order they came in, and in how many steps
        again, twice = BytesIO(), BytesIO()
        merge([run], live, again)
        assert again.getvalue() == out.getvalue()
        merge(runs_of(parts)[::-1], live, twice)
        assert list(opened(twice).all()) == expected


@settings(max_examples=60, deadline=None)
@given(segments_of_a_vault, st.sets(st.integers(1, 15)), st.integers(1, 5))
def test_fallen_is_what_hangs_from_what_does_not_count(
    parts: list[list[tuple[int, int, int]]], left: set[int], first: int
) -> None:
    places: dict[bytes, list[bytes]] = {}
    for name, pack, *_, base, _depth, _kind in rows_of(parts):
        if pack not in left:
            places.setdefault(name, []).append(base)
    standing: set[bytes] = set()
    while more := {
        name
        for name, bases in places.items()
        if name not in standing and any(not base or base in standing for base in bases)
    }:
        standing |= more
    counted = np.ones(16, bool)
    counted[list(left)] = False
    everything = np.ones(16, bool)
    out = BytesIO()
    merge(runs_of(parts)[:first], everything, out)
    assert fallen([opened(out), *runs_of(parts)[first:]], counted) == places.keys() - standing


def test_what_is_no_run_is_refused() -> None:
    out = BytesIO()
    merge(runs_of([[(1, 0, -1), (2, 0, 1)]]), np.ones(9, bool), out)
    data = out.getvalue()
    assert list(Run.read(data).all())
    for torn in (b"", data[:10], data[:-1], data + b"\0", b"x" + data[1:]):
        with pytest.raises(TornRunError):
            Run.read(torn)


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "SHORT_ROWS", 4)
    monkeypatch.setattr(index_file, "TINY_ROWS", 0)


def files_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}-*.run"))


def put(store: ObjectStore, number: int, places: Iterable[tuple[int, int, int]]) -> None:
    store.put(f"index/{session_name(number)}", segment_bytes(session_name(number), places))


def refreshed(store: ObjectStore, path: Path) -> Index:
    index = Index(store, path, jobs=2)
    index.refresh()
    return index


def everything(index: Index) -> list[tuple[bytes, bytes]]:
    return [(entry.id, entry.base) for entry in index.all_entries()]


@pytest.mark.usefixtures("small_runs")
def test_few_runs_however_many_segments(tmp_path: Path) -> None:
    store = open_store("memory://")
    path = tmp_path / "index"
    index, other = refreshed(store, path), refreshed(store, path)
    for number in range(40):
        put(store, number, [(number, 0, number - 1 if number % 9 and number < 15 else -1)])
        index.refresh()
        rows = [run.rows for run in index._file.runs()]
        assert sum(rows) == number + 1
        assert all(run > 2 * sum(rows[place + 1 :]) for place, run in enumerate(rows))
        # each long run is a file, and there are no others
        assert len(files_of(path)) == sum(run > 4 for run in rows)
    assert not everything(other)  # it has not looked since
    found = everything(index)
    assert [name for name, _ in found] == sorted(NAMES[:40])
    assert {name: base for name, base in found if base} == {NAMES[n]: NAMES[n - 1] for n in range(15) if n % 9}
    other.refresh()
    assert everything(other) == found
    for each in (index, other):
        each.close()


@pytest.mark.usefixtures("small_runs")
def test_whoever_has_a_run_open_reads_on(tmp_path: Path) -> None:
    store = open_store("memory://")
    put(store, 1, [(number, 0, -1) for number in range(9)])
    index = refreshed(store, tmp_path / "index")
    (run,) = index._file.runs()
    put(store, 2, [(number, 0, -1) for number in range(9, 30)])
    refreshed(store, tmp_path / "index").close()
    assert len(files_of(tmp_path / "index")) == 1
    assert len(list(run.all())) == 9
    assert len(index.entries(NAMES)) == 9  # out of the run that the other process wrote
    index.close()


@pytest.mark.usefixtures("small_runs")
def test_what_a_process_left_when_it_was_killed_is_removed(tmp_path: Path) -> None:
    store = open_store("memory://")
    path = tmp_path / "index"
    put(store, 1, [(number, 0, -1) for number in range(9)])
    refreshed(store, path).close()
    stray = tmp_path / "index-0123456789abcdef.run"
    stray.write_bytes(b"half")
    beside = tmp_path / "index-notes"
    beside.write_bytes(b"")
    put(store, 2, [(number, 0, -1) for number in range(9, 12)])
    index = refreshed(store, path)
    assert not stray.exists()
    assert beside.exists()
    assert len(index.entries(NAMES)) == 12
    index.close()


@pytest.mark.usefixtures("small_runs")
def test_what_fails_half_way_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory://")
    path = tmp_path / "index"
    put(store, 1, [(number, 0, -1) for number in range(9)])
    index = refreshed(store, path)
    before = files_of(path)
    put(store, 2, [(number, 0, -1) for number in range(9, 30)])

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(IndexFileError, match="No space left on device"):
            index.refresh()
    assert files_of(path) == before
    assert len(index.entries(NAMES)) == 9
    index.refresh()
    assert len(index.entries(NAMES)) == 30
    index.close()


@pytest.mark.usefixtures("small_runs")
@pytest.mark.parametrize("how", ["gone", "short", "other"])
def test_a_run_that_is_torn(tmp_path: Path, how: str) -> None:
    store = open_store("memory://")
    path = tmp_path / "index"
    put(store, 1, [(number, 0, -1) for number in range(9)])
    refreshed(store, path).close()
    (file,) = files_of(path)
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] if how == "short" else b"x" * 600)
    index = refreshed(store, path)
    with pytest.raises(IndexFileError, match="run the command again"):
        index.entries(NAMES)
    index.close()
    assert not list(tmp_path.iterdir())
    index = refreshed(store, path)
    assert len(index.entries(NAMES)) == 9
    index.close()


@pytest.mark.usefixtures("small_runs")
def test_segments_that_went_take_their_places_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory://")
    path = tmp_path / "index"
    for number in range(4):
        put(store, number, [(10 * number + each, 0, -1) for each in range(10)])
    monkeypatch.setattr(index_file, "VALUES_A_QUERY", 2)
    index = refreshed(store, path)
    assert len(everything(index)) == 40
    put(store, 9, [(45, 0, -1), (46, 0, 1)])  # its base is in the first one
    for number in (0, 1, 3):
        store.put(f"index/{session_name(number)}", b"")
    index.refresh()
    assert everything(index) == sorted(
        [(name, b"") for name in NAMES[20:30]] + [(NAMES[45], b""), (NAMES[46], NAMES[1])]
    )
    assert sum(run.rows for run in index._file.runs()) <= 2 * 12
    assert index.kinds() == {1: (12, 1200, 120)}
    store.put(f"condemned/{'0' * 32}", write_condemned([], [session_name(9)]))
    index.refresh()
    assert index.kinds() == {1: (10, 1000, 100)}
    index.close()


def test_what_cannot_be_built_upon_is_found_again_when_something_is_condemned(tmp_path: Path) -> None:
    store = open_store("memory://")
    for number in range(3):
        put(store, number, [(number, 0, number - 1)])
    index = refreshed(store, tmp_path / "index")
    for condemned, standing in ((9, 3), (2, 2), (0, 0)):
        store.put(f"condemned/{condemned:032x}", write_condemned([], [session_name(condemned)]))
        index.refresh()
        assert len(index.standing_entries(NAMES[:3])) == standing
    index.close()


def test_what_is_taken_in_at_once_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("memory://")
    for number in range(5):
        put(store, number, [(10 * number + each, 0, -1) for each in range(4)])
    taken: list[int] = []
    real = IndexFile.insert

    def insert(file: IndexFile, segments: list[tuple[Segment, int]]) -> None:
        taken.append(len(segments))
        real(file, segments)

    monkeypatch.setattr(IndexFile, "insert", insert)
    monkeypatch.setattr(index_module, "ROWS_AT_ONCE", 8)
    index = refreshed(store, tmp_path / "index")
    assert taken == [2, 2, 1]
    assert len(everything(index)) == 20
    index.close()


def test_the_file_of_an_earlier_version_is_made_anew(tmp_path: Path) -> None:
    store = open_store("memory://")
    put(store, 1, [(1, 0, -1)])
    with sqlite3.connect(tmp_path / "index") as connection:
        connection.execute("CREATE TABLE segments (number INTEGER PRIMARY KEY, session TEXT UNIQUE, size INTEGER)")
        connection.execute("INSERT INTO segments VALUES (1, ?, 1)", (session_name(1),))
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    index = refreshed(store, tmp_path / "index")
    assert index.entries([NAMES[1]])
    index.close()


def test_in_memory_runs_stay_as_short_as_sqlite_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "MEMORY_ROWS", 10)
    file = IndexFile(None)
    for number in range(40):
        file.insert([(segment_of(number, [(number, 0, -1)]), 1)])
    runs = file.runs()
    assert max(run.rows for run in runs) <= 10
    assert sorted(row[0] for run in runs for row in run.all()) == sorted(NAMES[:40])
    file.close()
