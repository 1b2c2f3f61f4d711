"""The local index: what it asks the bucket for, and that nothing depends on it."""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from faults import FaultyStore, Rule
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore, UnreachableError
from holdfast.vault import index as index_module
from holdfast.vault import index_file
from holdfast.vault.index import Index
from holdfast.vault.index_file import IndexFile, IndexFileError
from holdfast.vault.index_runs import Run
from holdfast.vault.listing import Listing
from holdfast.vault.records import Entry, Recipe, RecipePiece, pack_pieces, unpack_pieces
from holdfast.vault.repository import init_vault, open_vault
from holdfast.vault.segment import write_condemned, write_segment
from vaults import SMALL_BLOCK, SMALL_PACK, keys, noise, oid_of, put_all, read_all, session_name


def pack_key(session: str) -> str:
    return f"packs/aa/{'aa' * 32}-{session}"


def name_of(number: int) -> bytes:
    """An id, as good as random, as those of blobs are."""
    return hashlib.sha256(str(number).encode()).digest()


def put_segment(store: ObjectStore, session: str, files: dict[str, int], entries: list[Entry] | None = None) -> None:
    """A segment of files with one piece each, of a blob of their number."""
    names = {number: name_of(number) for number in files.values()}
    places = [Entry(name, pack_key(session), 4, 10, 100, b"", 0, 0) for name in names.values()]
    recipes = [
        Recipe(oid, 50, names[number], "bytes", (RecipePiece(names[number], 0, 50, number),))
        for oid, number in files.items()
    ]
    listing = Listing(places if entries is None else entries, recipes, [True] * len(recipes))
    store.put(f"index/{session}", write_segment(listing, {pack_key(session): 1000}))


@pytest.fixture
def store() -> ObjectStore:
    return open_store("memory://")


def opened(store: ObjectStore, path: Path | None = None) -> Index:
    index = Index(store, path, jobs=2)
    index.refresh()
    return index


def fetched(store: FaultyStore) -> list[str]:
    found = [key for verb, key in store.calls if verb == "get"]
    store.calls.clear()
    return found


def test_only_new_segments_are_fetched(store: ObjectStore, tmp_path: Path) -> None:
    counted = FaultyStore(store)
    put_segment(store, session_name(1), {oid_of(b"a"): 1})
    index = opened(counted, tmp_path / "index")
    assert fetched(counted) == [f"index/{session_name(1)}"]
    put_segment(store, session_name(2), {oid_of(b"b"): 2})
    index.refresh()
    assert fetched(counted) == [f"index/{session_name(2)}"]
    other = opened(counted, tmp_path / "index")
    assert fetched(counted) == []
    for each in (index, other):
        assert each.existing([oid_of(b"a"), oid_of(b"b"), oid_of(b"c")]) == {oid_of(b"a"), oid_of(b"b")}
        assert list(each.oids()) == sorted([oid_of(b"a"), oid_of(b"b")])
        each.close()


def test_many_segments_are_asked_for_at_once(store: ObjectStore) -> None:
    for number in range(32):
        put_segment(store, session_name(number), {oid_of(bytes([number])): number})
    meeting = threading.Barrier(16, timeout=20)

    def meet() -> None:
        meeting.wait()

    slow = FaultyStore(store, [Rule("delay", frozenset({"get"}), key="index/")], meet)
    assert len(opened(slow)._file.segments()) == 32


def test_what_was_read_before_the_connection_broke_is_not_read_again(store: ObjectStore, tmp_path: Path) -> None:
    for number in range(5):
        put_segment(store, session_name(number), {oid_of(bytes([number])): number})
    broken = FaultyStore(store, [Rule("refuse", key=f"index/{session_name(3)}")])
    with pytest.raises(UnreachableError):
        opened(broken, tmp_path / "index")
    whole = FaultyStore(store)
    index = opened(whole, tmp_path / "index")
    assert sorted(fetched(whole)) == [f"index/{session_name(number)}" for number in (3, 4)]
    assert len(list(index.oids())) == 5
    index.close()


def test_no_more_segments_at_once_than_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "GROUP_BYTES", 10)
    monkeypatch.setattr(index_module, "GROUP_SEGMENTS", 3)
    sizes = {"a": 4, "b": 6, "c": 1, "d": 30, "e": 2, "f": 2, "g": 2, "h": 2}
    assert list(index_module._groups(sizes)) == [["a", "b"], ["c"], ["d"], ["e", "f", "g"], ["h"]]


def test_a_segment_counts_only_while_it_is_listed(store: ObjectStore, tmp_path: Path) -> None:
    put_segment(store, session_name(1), {oid_of(b"a"): 1})
    put_segment(store, session_name(2), {oid_of(b"b"): 2})
    index = opened(store, tmp_path / "index")
    store.put(f"index/{session_name(1)}", b"")
    store.delete(f"index/{session_name(2)}")
    assert index.existing([oid_of(b"a")])
    index.refresh()
    assert not index.existing([oid_of(b"a"), oid_of(b"b")])
    assert not index.entries([name_of(1)])
    assert not index.packs()
    assert not list(index.all_entries())
    assert not index._file.segments()


def test_what_another_process_knows_does_not_count_for_this_one(store: ObjectStore, tmp_path: Path) -> None:
    put_segment(store, session_name(1), {oid_of(b"a"): 1})
    early = opened(store, tmp_path / "index")
    put_segment(store, session_name(2), {oid_of(b"b"): 2})
    late = opened(store, tmp_path / "index")
    assert late.existing([oid_of(b"b")])
    assert not early.existing([oid_of(b"b")])
    early.refresh()
    assert early.existing([oid_of(b"b")])


def test_numbers_are_never_used_again(store: ObjectStore, tmp_path: Path) -> None:
    put_segment(store, session_name(1), {oid_of(b"a"): 1})
    early = opened(store, tmp_path / "index")
    store.delete(f"index/{session_name(1)}")
    put_segment(store, session_name(2), {oid_of(b"b"): 2})
    opened(store, tmp_path / "index").close()
    assert not early.existing([oid_of(b"b")])  # it has not looked since


def test_many_at_once(store: ObjectStore) -> None:
    files = {oid_of(str(number).encode()): number for number in range(1, 35_000)}
    put_segment(store, session_name(1), files)
    index = opened(store)
    assert index.existing([*files, oid_of(b"x")]) == files.keys()
    assert index.standing(files) == files.keys()
    assert len(index.recipes(files)) == len(files)
    assert len(index.entries([name_of(number) for number in files.values()])) == len(files)
    assert sum(1 for _ in index.all_entries()) == len(files)
    assert sum(1 for _ in index.oids()) == len(files)


def test_standing_follows_bases_to_the_last(store: ObjectStore) -> None:
    names = [name_of(number) for number in range(4)]
    for number in range(4):
        session = session_name(number)
        base = names[number - 1] if number else b""
        entry = Entry(names[number], pack_key(session), 4, 10, 100, base, number, 0)
        put_segment(store, session, {oid_of(bytes([number])): number}, [entry])
    everything = {oid_of(bytes([number])) for number in range(4)}
    assert opened(store).standing(everything) == everything
    store.put("condemned/x", write_condemned([pack_key(session_name(1))], []))
    store.put("condemned/x.ready", b"")
    index = opened(store)
    assert index.standing(everything) == {oid_of(bytes([0]))}
    assert index.standing_entries(names).keys() == {names[0]}
    assert index.existing(everything) == everything
    # a second place of what is condemned lets all of it stand again
    entry = Entry(names[1], pack_key(session_name(7)), 4, 10, 100, b"", 0, 0)
    put_segment(store, session_name(7), {oid_of(b"seven"): 1}, [entry])
    assert opened(store).standing(everything) == everything


def test_thorough_sees_what_was_lost_without_being_condemned(store: ObjectStore) -> None:
    put_segment(store, session_name(1), {oid_of(b"a"): 1}, [])
    index = opened(store)
    assert index.standing([oid_of(b"a")]) == {oid_of(b"a")}
    assert index.standing([oid_of(b"a")], thorough=True) == set()


def test_of_two_recipes_one_that_can_be_read(store: ObjectStore) -> None:
    oid, name = oid_of(b"a"), name_of(1)
    for session, blob in ((session_name(1), b"x" * 32), (session_name(2), name), (session_name(3), b"y" * 32)):
        places = [Entry(name, pack_key(session), 4, 10, 100, b"", 0, 0)] if blob == name else []
        listing = Listing(places, [Recipe(oid, 50, name, "bytes", (RecipePiece(blob, 0, 50, 0),))], [True])
        store.put(f"index/{session}", write_segment(listing, {pack_key(session): 1000}))
    assert opened(store).recipes([oid])[oid].pieces[0].blob == name


def test_a_file_that_tears_while_it_is_used(tmp_path: Path) -> None:
    store = open_store("memory://")
    files = [noise(100_000, number) for number in range(3)]
    with init_vault(store, tmp_path, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, jobs=1) as vault:
        put_all(vault, files)
        path = tmp_path / vault.config.id / "index.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(bytes(raw))
    with open_vault(store, tmp_path, jobs=1) as vault, pytest.raises(IndexFileError, match="run the command again"):
        read_all(vault, files)
    with open_vault(store, tmp_path, jobs=1) as vault:
        read_all(vault, files)


def test_another_process_takes_in_a_segment_meanwhile(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes share the file; what one of them asks for in parts the other one changes between two of them.

    Blobs are asked for first, then the packs that they are in.
    """
    put_segment(store, session_name(1), {oid_of(b"a"): 1})
    index, other = opened(store, tmp_path / "index"), opened(store, tmp_path / "index")
    store.put(f"condemned/{'0' * 32}", write_condemned([pack_key(session_name(9))], []))
    index.refresh()
    real = IndexFile.runs

    def runs(file: IndexFile) -> list[Run]:
        monkeypatch.undo()
        found = real(file)
        put_segment(store, session_name(2), {oid_of(b"b"): 2})
        other.refresh()
        return found

    def later(file: IndexFile) -> list[Run]:
        monkeypatch.undo()
        found = real(file)
        store.delete(f"index/{session_name(1)}")
        other.refresh()
        return found

    monkeypatch.setattr(IndexFile, "runs", runs)
    assert [entry.pack for entry in index.all_entries()] == [pack_key(session_name(1))]
    store.delete(f"index/{session_name(2)}")
    other.refresh()
    for asked in (
        lambda: list(index.all_entries()),
        lambda: index.standing_entries([name_of(1)]),
        index.kinds,
    ):
        monkeypatch.setattr(IndexFile, "runs", runs)
        assert asked()
        assert IndexFile.runs is real  # it was asked for
        store.delete(f"index/{session_name(2)}")
        other.refresh()
    monkeypatch.setattr(IndexFile, "runs", later)
    assert not list(index.all_entries())  # what counts for one is gone for all
    for each in (index, other):
        each.close()


FILES = {oid_of(bytes([number])): number for number in range(5)}


def taken_in(store: ObjectStore, path: Path) -> Index:
    """An index that was given a segment of `FILES`, as who has written it does."""
    index = opened(store, path)
    put_segment(store, session_name(1), FILES)
    index.add(session_name(1), bytes(store.get(f"index/{session_name(1)}")))
    return index


def folded(path: Path) -> int:
    """How many segments have files that are not in their table yet."""
    with sqlite3.connect(path) as connection:
        ((count,),) = connection.execute("SELECT COUNT(*) FROM folded")
    connection.close()
    return int(count)


def files_of(index: Index) -> list[str]:
    return [oid for (oid,) in index.rows("SELECT oid FROM recipes WHERE segment IN {active} ORDER BY oid")]


@pytest.mark.parametrize(
    "ask",
    [
        lambda index: list(index.oids()),
        lambda index: index.existing(FILES),
        lambda index: index.standing(FILES),
        lambda index: index.recipes(FILES),
        lambda index: index.digests(FILES),
        files_of,
    ],
)
@pytest.mark.parametrize("few", [0, 10])
def test_what_was_written_here_is_known_as_what_was_read(
    few: int,
    ask: Callable[[Index], Collection[str]],
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index_file, "FEW_FILES", few)
    own = taken_in(store, tmp_path / "own")
    assert folded(tmp_path / "own") == (few == 0)
    counted = FaultyStore(store)
    other, fresh = opened(counted, tmp_path / "own"), opened(store, tmp_path / "fresh")
    assert fetched(counted) == []
    assert len(ask(fresh)) == len(FILES)
    assert ask(other) == ask(own) == ask(fresh)
    assert not folded(tmp_path / "own")
    for index in (own, other, fresh):
        index.close()


def test_what_was_written_here_and_is_gone_is_not_known(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "FEW_FILES", 0)
    index = taken_in(store, tmp_path / "index")
    store.delete(f"index/{session_name(1)}")
    index.refresh()
    assert not folded(tmp_path / "index")
    assert index.existing(FILES) == set()
    put_segment(store, session_name(2), {oid_of(b"b"): 2})
    index.refresh()
    assert list(index.oids()) == [oid_of(b"b")]
    index.close()


def test_what_was_written_here_and_is_torn_is_read_again(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "FEW_FILES", 0)
    taken_in(store, tmp_path / "index").close()
    with sqlite3.connect(tmp_path / "index") as connection:
        ((data,),) = connection.execute("SELECT data FROM folded")
        connection.execute("UPDATE folded SET data = ?", (data[:-40] + bytes(40),))
    connection.close()
    index = opened(store, tmp_path / "index")
    with pytest.raises(IndexFileError, match="was torn: a segment cannot be read"):
        index.existing(FILES)
    index.close()
    index = opened(store, tmp_path / "index")
    assert index.existing(FILES) == FILES.keys()
    index.close()


def test_where_it_cannot_be_written_it_is_in_memory(store: ObjectStore, tmp_path: Path) -> None:
    put_segment(store, session_name(1), {oid_of(b"a"): 1})
    (tmp_path / "file").write_bytes(b"")
    index = opened(store, tmp_path / "file" / "index")
    assert index.existing([oid_of(b"a")])
    assert keys(store, "index") == [f"index/{session_name(1)}"]


def test_pieces_are_packed() -> None:
    pieces = (RecipePiece(b"a" * 32, 1, 2, 2**64 - 1), RecipePiece(b"b" * 32, 2**32 - 1, 1, 0))
    assert unpack_pieces(pack_pieces(pieces)) == pieces
    assert unpack_pieces(b"") == ()
