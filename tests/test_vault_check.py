"""Damage is always found, never handed out, and mended where a cache still has what was lost."""

import contextlib
import io
import random
from pathlib import Path

import pytest

from holdfast.errors import IntegrityError
from holdfast.formats.source import MemorySource, Source
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from holdfast.vault.check import (
    CONDEMNED_PACK,
    DAMAGED_PACK,
    MISSING_BLOB,
    MISSING_PACK,
    ORPHAN_PACK,
    SEGMENT,
    SHORT_PACK,
    CheckResult,
    Finding,
    check_vault,
)
from holdfast.vault.listing import Listing, listing_of
from holdfast.vault.pack import PackBuilder
from holdfast.vault.records import Entry, Recipe, RecipePiece
from holdfast.vault.repair import RepairResult, repair_vault
from holdfast.vault.repository import init_vault, open_vault
from holdfast.vault.segment import read_segment, write_condemned, write_segment
from holdfast.vault.stats import vault_stats
from vaults import (
    SMALL_BLOCK,
    SMALL_PACK,
    all_is_well,
    bf16_history,
    history,
    keys,
    noise,
    oid_of,
    png_like,
    put_all,
    read_all,
    session_name,
)

VERSIONS = bf16_history(3, elements=60_000)
FILES = [noise(200_000, 1), *VERSIONS, *(png_like(number) for number in range(30)), b""]


@pytest.fixture
def store() -> ObjectStore:
    return made()


def made() -> ObjectStore:
    store = open_store("memory://")
    with init_vault(store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, vault_id="ef" * 16, jobs=2) as vault:
        put_all(vault, FILES[:2], session=session_name(1))
        put_all(vault, FILES[1:], session=session_name(2), chain=True)
    return store


def checked(store: ObjectStore, **more: object) -> CheckResult:
    return check_vault(store, jobs=2, **({"read_data": True} | more))  # type: ignore[arg-type]


def damage(result: CheckResult) -> list[Finding]:
    return [finding for finding in result.findings if not finding.harmless]


def repaired(store: ObjectStore, files: list[bytes]) -> RepairResult:
    cache = {oid_of(data): data for data in files}

    def find(oid: str) -> "contextlib.AbstractContextManager[Source] | None":
        return contextlib.nullcontext(MemorySource(cache[oid])) if oid in cache else None

    with open_vault(store, None, jobs=2) as vault:
        return repair_vault(vault, checked(store), find)


def flip(store: ObjectStore, key: str, bit: int) -> None:
    raw = bytearray(store.get(key))
    raw[bit // 8] ^= 1 << bit % 8
    store.put(key, bytes(raw))


def readable(store: ObjectStore) -> tuple[list[bytes], list[bytes]]:
    """The files that come out right, and those that do not come out; none may come out wrong."""
    good, bad = [], []
    with open_vault(store, None, jobs=2) as vault:
        for data in FILES:
            out = io.BytesIO()
            try:
                vault.get(oid_of(data), out)
            except IntegrityError:
                bad.append(data)
            else:
                assert out.getvalue() == data, "wrong data was handed out"
                good.append(data)
    return good, bad


def test_a_sound_vault_is_clean(store: ObjectStore) -> None:
    result = checked(store)
    assert (result.findings, result.clean) == ((), True)
    assert result.packs == result.packs_read == len(keys(store, "packs")) > 3
    assert result.files == result.files_read == len(FILES)
    told: list[tuple[str, int, int]] = []
    part = checked(store, share=0.5, progress=lambda *figures: told.append(figures))
    assert 0 < part.packs_read < result.packs
    assert 0 < part.files_read < result.files
    assert told[-1] == ("files", part.files_read, part.files_read)
    assert checked(store, read_data=False).packs_read == 0


def places(seed: int, count: int) -> list[tuple[str, int]]:
    """Random bits of packs and segments; every object gets some."""
    store, random_numbers = made(), random.Random(seed)
    objects = [*keys(store, "packs"), *keys(store, "index")]
    sizes = {key: len(store.get(key)) for key in objects}
    chosen = [objects[number % len(objects)] for number in range(count)]
    return [(key, random_numbers.randrange(8 * sizes[key])) for key in chosen]


def flipped_bits_are_found(seed: int, count: int) -> None:
    hurt = 0
    for number, (key, bit) in enumerate(places(seed, count)):
        store = made()
        flip(store, key, bit)
        result = checked(store)
        assert [finding.key for finding in damage(result)], (key, bit)
        _, bad = readable(store)
        named = {oid for finding in damage(result) for oid in finding.oids}
        if key.startswith("packs/"):
            assert {oid_of(data) for data in bad} == named
        hurt += bool(bad)
        if number % 3 == 0:
            mended = repaired(store, FILES)
            assert not mended.lost
            assert named <= set(mended.healed) or key.startswith("index/")
            all_is_well_but_condemned(store)
    assert hurt > count // 3


def all_is_well_but_condemned(store: ObjectStore) -> None:
    with open_vault(store, None, jobs=2) as vault:
        read_all(vault, FILES)
    assert {finding.kind for finding in checked(store).findings} <= {CONDEMNED_PACK, ORPHAN_PACK}


def test_flipped_bits_are_always_found() -> None:
    flipped_bits_are_found(1, 20)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
def test_flipped_bits_are_always_found_in_full(seed: int) -> None:
    flipped_bits_are_found(seed, 50)


def test_a_pack_that_is_gone(store: ObjectStore) -> None:
    key = max(keys(store, "packs"), key=lambda key: len(store.get(key)))
    store.delete(key)
    (finding, *_) = [finding for finding in damage(checked(store, read_data=False)) if finding.kind == MISSING_PACK]
    assert finding.key == key
    _, bad = readable(store)
    assert set(finding.oids) == {oid_of(data) for data in bad} != set()
    mended = repaired(store, FILES)
    assert mended.packs_condemned == (key,)
    assert set(finding.oids) <= set(mended.healed)
    all_is_well_but_condemned(store)


def test_a_pack_that_is_cut_short(store: ObjectStore) -> None:
    for key in keys(store, "packs"):
        store.put(key, store.get(key)[:-10])
    kinds = {finding.kind for finding in damage(checked(store))}
    assert {SHORT_PACK, DAMAGED_PACK} <= kinds
    assert not repaired(store, FILES).lost
    all_is_well_but_condemned(store)


def test_what_no_cache_has_is_listed(store: ObjectStore) -> None:
    for key in keys(store, "packs"):
        if key.endswith(session_name(1)):
            store.delete(key)
    before = {oid_of(data) for data in readable(store)[1]}
    mended = repaired(store, VERSIONS)
    assert set(mended.lost) == before - {oid_of(data) for data in VERSIONS} != set()
    assert all("pack" in reason for reason in mended.lost.values())
    with open_vault(store, None, jobs=2) as vault:
        read_all(vault, VERSIONS)
        # whoever has it can push it again
        put_all(vault, FILES)
    all_is_well_but_condemned(store)


@pytest.mark.parametrize("cut", [True, False], ids=["truncated", "flipped"])
def test_the_index_is_rebuilt_from_the_packs(store: ObjectStore, cut: bool) -> None:
    for key in keys(store, "index"):
        data = store.get(key)
        store.put(key, data[:-1]) if cut else flip(store, key, 999)
    assert {finding.kind for finding in damage(checked(store))} == {SEGMENT}
    assert not readable(store)[0]
    mended = repaired(store, [])
    assert len(mended.segments_emptied) == 2
    assert set(mended.packs_named) == set(keys(store, "packs"))
    assert not mended.lost
    assert not mended.healed
    all_is_well(store, FILES)
    assert len(keys(store, "damaged")) == 2
    with open_vault(store, None, jobs=2) as vault:
        assert put_all(vault, FILES).new_blobs == 0


def test_one_damaged_segment_does_not_stop_the_others(store: ObjectStore) -> None:
    flip(store, f"index/{session_name(2)}", 5000)
    with open_vault(store, None, jobs=2) as vault:
        read_all(vault, FILES[:2])
        with pytest.raises(IntegrityError, match=f"segment index/{session_name(2)} is damaged"):
            vault.recipe(oid_of(FILES[2]))
        assert list(vault.index.damaged) == [session_name(2)]
        put_all(vault, FILES)
        read_all(vault, FILES)


def test_a_push_that_is_under_way_is_left_alone(store: ObjectStore) -> None:
    with open_vault(store, None, jobs=2) as vault:
        session = vault.session(session_name(7))
        session.put(oid_of(noise(400_000, 8)), MemorySource(noise(400_000, 8)))
        flip(store, f"index/{session_name(1)}", 5000)
        mended = repaired(store, FILES)
        assert not [key for key in mended.packs_named if key.endswith(session_name(7))]
        session.commit()
        session.close()
    all_is_well(store, [*FILES, noise(400_000, 8)])


def test_orphans_are_no_damage(store: ObjectStore) -> None:
    store.put(keys(store, "packs")[0].rpartition("-")[0] + "-" + session_name(5), store.get(keys(store, "packs")[0]))
    result = checked(store)
    assert [finding.kind for finding in result.findings] == [ORPHAN_PACK]
    assert result.clean


def test_a_damaged_condemnation_is_found_and_not_mended(store: ObjectStore) -> None:
    store.put("condemned/g", write_condemned([], [session_name(1)])[:-2])
    assert [finding.key for finding in damage(checked(store))] == ["condemned/g"]
    with pytest.raises(IntegrityError, match="condemned/g cannot be read"):
        repaired(store, FILES)


def test_two_contents_of_one_name_are_found(store: ObjectStore) -> None:
    run = f"runs:{'a' * 64}/{'b' * 64}"
    one, two = open_vault(store, None, jobs=1), open_vault(store, None, jobs=1)
    with one.session() as first, two.session() as second:
        first.put(run, MemorySource(b"one"))
        second.put(run, MemorySource(b"two"))
        first.commit()
        second.commit()
    assert [finding.key for finding in damage(checked(store))] == [run]


def test_a_segment_that_lies_is_found_out(store: ObjectStore) -> None:
    """Two recipes that change places are consistent, and wrong."""
    key = f"index/{session_name(2)}"
    segment = read_segment(session_name(2), store.get(key))
    listing = listing_of(segment.rows, segment.entries())
    first, second = [recipe for recipe in listing.recipes if recipe.size > 100_000]
    swapped = {
        first.oid: second._replace(oid=first.oid),
        second.oid: first._replace(oid=second.oid),
    }
    listing.recipes = [swapped.get(recipe.oid, recipe) for recipe in listing.recipes]
    store.put(key, write_segment(listing, segment.packs))
    assert {first.oid, second.oid} <= {finding.key for finding in damage(checked(store))}
    _, bad = readable(store)
    assert {oid_of(data) for data in bad} >= {first.oid, second.oid}


def test_a_segment_that_gives_one_file_the_bytes_of_another(store: ObjectStore) -> None:
    """Files without an md5 are known by the BLAKE3 of their recipe alone."""
    runs = [f"runs:{letter * 64}/{'0' * 64}" for letter in "ab"]
    with open_vault(store, None, jobs=1) as vault, vault.session(session_name(4)) as session:
        for oid in runs:
            session.put(oid, MemorySource(f"cmd: {oid[5]}".encode()))
        session.commit()
    key = f"index/{session_name(4)}"
    segment = read_segment(session_name(4), store.get(key))
    listing = listing_of(segment.rows, segment.entries())
    one, two = listing.recipes
    listing.recipes = [one._replace(pieces=two.pieces), two]
    store.put(key, write_segment(listing, segment.packs))
    assert [finding.key for finding in damage(checked(store))] == [runs[0]]
    with open_vault(store, None, jobs=1) as vault:
        assert vault.read(runs[1], 0, 10) == b"cmd: b"
        with pytest.raises(IntegrityError, match="not put together as its recipe says"):
            vault.get(runs[0], io.BytesIO())


def test_a_segment_that_names_one_blob_as_another(store: ObjectStore) -> None:
    with open_vault(store, None, jobs=1) as vault:
        put_all(vault, history(1), session=session_name(4))
    key = f"index/{session_name(4)}"
    segment = read_segment(session_name(4), store.get(key))
    listing = listing_of(segment.rows, segment.entries())
    lengths = [entry.plain for entry in listing.entries]
    one, two = [entry for entry in listing.entries if lengths.count(entry.plain) > 1][:2]
    names = {one.id: two.id, two.id: one.id}
    listing.entries = [entry._replace(id=names.get(entry.id, entry.id)) for entry in listing.entries]
    store.put(key, write_segment(listing, segment.packs))
    assert damage(checked(store))
    with open_vault(store, None, jobs=1) as vault:
        recipe = next(recipe for recipe in listing.recipes if any(piece.blob == one.id for piece in recipe.pieces))
        with pytest.raises(IntegrityError, match="other bytes than it is named after"):
            vault.open(recipe.oid).read(0, recipe.size)


def test_a_segment_that_says_other_than_the_packs(store: ObjectStore) -> None:
    key = f"index/{session_name(1)}"
    segment = read_segment(session_name(1), store.get(key))
    listing = listing_of(segment.rows, segment.entries())
    first, *rest = listing.entries
    listing.entries = [first._replace(kind=5 - first.kind), *rest]
    store.put(key, write_segment(listing, segment.packs))
    (finding,) = damage(checked(store))
    assert (finding.kind, finding.key) == (DAMAGED_PACK, first.pack)
    assert "other blobs than the index says" in finding.reason


def test_a_base_that_is_no_less_deep_is_no_base(store: ObjectStore) -> None:
    names = [bytes([number]) * 32 for number in (1, 2, 3, 4)]
    # the base of the first is there, and deeper than it; the last stands on the first
    places = [(names[0], names[1], 1), (names[1], names[2], 2), (names[2], b"", 0), (names[3], names[0], 2)]
    for number, (name, base, depth) in enumerate(places, 5):
        key = f"packs/aa/{'aa' * 32}-{session_name(number)}"
        store.put(key, bytes(1000))
        pieces = (RecipePiece(name, 0, 50, 0),)
        recipe = Recipe(oid_of(name), 50, name, "bytes", pieces)
        listing = Listing([Entry(name, key, 4, 10, 100, base, depth, 0)], [recipe], [True])
        store.put(f"index/{session_name(number)}", write_segment(listing, {key: 1000}))
    found = [(finding.kind, finding.key, finding.oids) for finding in damage(checked(store, read_data=False))]
    assert found == [(MISSING_BLOB, name.hex(), (oid_of(name),)) for name in (names[0], names[3])]


def test_files_of_a_push_that_never_committed_are_not_called_lost(store: ObjectStore) -> None:
    builder = PackBuilder()
    builder.listing.recipes.append(Recipe(oid_of(b"x"), 1, bytes(32), "bytes", (RecipePiece(b"x" * 32, 0, 1, 0),)))
    builder.listing.claimed.append(True)
    orphan = builder.finish(session_name(8))
    store.put(orphan.key, orphan.data)
    flip(store, f"index/{session_name(1)}", 5000)
    mended = repaired(store, [])
    assert not mended.lost
    all_is_well(store, FILES)


def test_statistics(store: ObjectStore, tmp_path: Path) -> None:
    with open_vault(store, tmp_path, jobs=2) as vault:
        vault.refresh()
        stats = vault_stats(vault)
    assert stats.files == len(FILES)
    assert stats.raw_bytes == sum(map(len, FILES))
    assert stats.stored_bytes == sum(len(store.get(key)) for key in keys(store, "packs"))
    assert stats.index_bytes == sum(len(store.get(key)) for key in keys(store, "index"))
    assert (stats.packs, stats.segments) == (len(keys(store, "packs")), 2)
    assert stats.formats["safetensors"].files == 3
    assert stats.formats["bytes"].raw_bytes == sum(len(data) for data in FILES if data not in VERSIONS)
    assert sum(codec.stored_bytes for codec in stats.codecs.values()) <= stats.stored_bytes
    assert stats.codecs["raw"].blobs > 0
    assert stats.codecs["delta"].plain_bytes > stats.codecs["delta"].stored_bytes > 0
    assert stats.ratio == pytest.approx(stats.raw_bytes / stats.stored_bytes)
    assert 0 < stats.dollars_a_month < 1e-4
