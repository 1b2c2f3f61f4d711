"""Packs, segments and recipes: what is damaged or lies is refused; what was written once is read for ever."""

import dataclasses
import json
import struct
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.opening import open_store
from holdfast.vault.check import check_vault
from holdfast.vault.codec import encode
from holdfast.vault.columns import Tables, write_tables
from holdfast.vault.config import Config, UnknownVersionError, read_config
from holdfast.vault.listing import Listing, entries_of, listing_of, read_rows, tables_of
from holdfast.vault.oids import InvalidOidError, check_oid
from holdfast.vault.pack import PackBuilder, footer_entries, footer_of, footer_rows, parse_key, read_footer
from holdfast.vault.reading import Reader, blob_id
from holdfast.vault.records import MAX_DEPTH, DamagedVaultError, Entry, Recipe, RecipePiece
from holdfast.vault.repository import open_vault
from holdfast.vault.segment import read_condemned, read_segment, write_condemned, write_segment
from vaults import noise, oid_of, session_name

GOLDEN = Path(__file__).parent / "golden" / "vault"
SESSION = session_name(3)


def some_pack(blobs: int = 4, recipes: int = 3):
    builder = PackBuilder()
    names = []
    for number in range(blobs):
        data = noise(1000 + number, number)
        base = names[-1] if number % 2 else b""
        names.append(blob_id(data))
        builder.add(Entry(names[-1], "", 0, 0, len(data), base, number % 2, 0), encode(data, "bytes"))
    for number in range(recipes):
        pieces = (RecipePiece(names[number % blobs], 10, 500, number), RecipePiece(b"f" * 32, 0, 7, 2**64 - 1))
        builder.listing.recipes.append(Recipe(oid_of(bytes([number])), 507, bytes([number] * 32), "bytes", pieces))
        builder.listing.claimed.append(bool(number % 2))
    return builder.finish(SESSION)


def test_a_pack_tells_what_it_holds() -> None:
    pack = some_pack()
    assert pack.key == f"packs/{blake3(pack.data).hexdigest()[:2]}/{blake3(pack.data).hexdigest()}-{SESSION}"
    rows = footer_rows(footer_of(pack.data, pack.key), pack.key, len(pack.data))
    assert listing_of(rows, footer_entries(rows, pack.key)) == pack.listing
    store = open_store("memory://")
    store.put(pack.key, pack.data)
    assert read_footer(store, pack.key, len(pack.data)) == pack.footer
    # the head and the tail, from the description of the format alone
    assert pack.data[:4] == b"HFK\x01"
    assert pack.data[-4:] == b"HFE\x01"
    (length,) = struct.unpack("<I", pack.data[-8:-4])
    assert pack.data[-8 - length : -8] == pack.footer
    entry = pack.listing.entries[1]
    assert pack.data[entry.offset : entry.offset + 4] == b"HFB\x01"


def test_a_long_footer_is_fetched_in_two_requests() -> None:
    builder = PackBuilder()
    for number in range(3000):
        builder.listing.recipes.append(Recipe(oid_of(str(number).encode()), 0, noise(32, number), "bytes", ()))
        builder.listing.claimed.append(True)
    pack = builder.finish(SESSION)
    store = open_store("memory://")
    store.put(pack.key, pack.data)
    assert len(pack.footer) > 1 << 16
    assert read_footer(store, pack.key, len(pack.data)) == pack.footer


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_pack_is_refused(data: st.DataObject) -> None:
    pack = some_pack()
    bad = bytearray(pack.data)
    if data.draw(st.booleans()):
        bit = data.draw(st.integers(0, 8 * len(bad) - 1))
        bad[bit // 8] ^= 1 << bit % 8
    else:
        del bad[data.draw(st.integers(0, len(bad) - 1)) :]
    with pytest.raises(IntegrityError):
        footer_of(bytes(bad), pack.key)
    store = open_store("memory://")
    store.put(pack.key, bytes(bad))
    try:
        footer = read_footer(store, pack.key, len(bad))
        rows = footer_rows(footer, pack.key, len(bad))
    except IntegrityError:
        return
    assert listing_of(rows, footer_entries(rows, pack.key)) == pack.listing  # the damage is in a blob


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_no_bytes_are_a_pack_or_a_segment(data: bytes) -> None:
    digest = blake3(data).hexdigest()
    key = f"packs/{digest[:2]}/{digest}-{SESSION}"
    for read in (
        lambda: footer_of(data, key),
        lambda: footer_of(b"HFK\x01" + data + b"HFE\x01", key),
        lambda: read_segment(SESSION, data),
        lambda: read_condemned("condemned/x", data),
        lambda: read_config(data, "url"),
    ):
        with pytest.raises((IntegrityError, UnknownVersionError)):
            read()


def segment(change=None) -> bytes:
    pack = some_pack()
    tables = tables_of(pack.listing, {pack.key: len(pack.data)})
    if change:
        change(tables)
    return write_tables("segment", tables)


def test_a_segment_is_read_as_it_was_written() -> None:
    pack = some_pack()
    pack.listing.claims = [oid_of(b"there")]
    read = read_segment(SESSION, write_segment(pack.listing, {pack.key: len(pack.data)}))
    assert listing_of(read.rows, read.entries()) == pack.listing
    assert read.packs == {pack.key: len(pack.data)}
    empty = read_segment(SESSION, write_segment(Listing(), {}))
    assert (empty.entries(), empty.rows.oids) == ([], [])


def setting(table: str, column: str, row: int, value: object):
    def change(tables: dict) -> None:
        tables[table][column][row] = value

    return change


LIES = {
    "a blob in no pack": setting("blobs", "pack", 0, 1),
    "a blob beyond its pack": setting("blobs", "offset", 3, 10**6),
    "a blob that takes nothing": setting("blobs", "stored", 0, 0),
    "a blob as large as a disk": setting("blobs", "plain", 0, 2**32 - 1),
    "a depth without a base": setting("blobs", "depth", 0, 1),
    "a pack longer than can be counted": setting("packs", "size", 0, 2**64 - 1),
    "a base without a depth": setting("blobs", "depth", 1, 0),
    "a depth beyond all": setting("blobs", "depth", 1, MAX_DEPTH + 1),
    "a base that is not listed": setting("blobs", "base", 1, 99),
    "a blob that is its own base": setting("blobs", "base", 1, 2),
    "an unknown codec": setting("blobs", "kind", 0, 200),
    "a piece of no blob": setting("pieces", "blob", 0, 77),
    "a piece beyond its blob": setting("pieces", "offset", 0, 600),
    "a piece beyond all blobs": setting("pieces", "offset", 1, 2**32 - 1),
    "a piece of no bytes": setting("pieces", "length", 1, 0),
    "a file longer than its pieces": setting("recipes", "size", 0, 508),
    "a file as long as the world": setting("recipes", "size", 0, 2**63),
    "more pieces than there are": setting("recipes", "pieces", 0, 3),
    "pieces beyond all counting": setting("recipes", "pieces", 0, 2**32 - 1),
    "an unknown format": setting("recipes", "format", 0, 9),
    "a file with two recipes": setting("recipes", "oid", 0, oid_of(bytes([1]))),
    "a file with no name": setting("recipes", "oid", 0, "../../etc/passwd"),
    "a claim of nothing": lambda tables: tables["claims"]["oid"].append("x"),
    "a pack outside of the vault": setting("packs", "key", 0, "../packs/x"),
    "a pack larger than can be": setting("packs", "size", 0, 2**62),
    "no packs": lambda tables: tables.pop("packs"),
    "no pieces": lambda tables: tables.pop("pieces"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_segment_that_says_what_cannot_be(name: str) -> None:
    assert read_segment(SESSION, segment())
    with pytest.raises(IntegrityError):
        read_segment(SESSION, segment(LIES[name]))


def test_tables_of_later_versions_may_say_more() -> None:
    def more(tables: dict) -> None:
        tables["blobs"]["colour"] = tables["blobs"]["kind"]
        tables["weather"] = {"day": ["sunny"]}

    assert len(read_segment(SESSION, segment(more)).entries()) == 4


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_number_in_a_segment_may_be_anything(data: st.DataObject) -> None:
    """Whatever the numbers are, it is refused or all that it says keeps within its bounds."""
    pack = some_pack()
    tables = tables_of(pack.listing, {pack.key: len(pack.data)})
    table = data.draw(st.sampled_from(["blobs", "recipes", "pieces", "packs"]))
    column = data.draw(
        st.sampled_from([name for name, values in tables[table].items() if getattr(values, "ndim", 0) == 1])
    )
    values = tables[table][column]
    values[data.draw(st.integers(0, len(values) - 1))] = data.draw(st.integers(0, 2 ** (8 * values.itemsize) - 1))
    try:
        read = read_segment(SESSION, write_tables("segment", tables))
    except IntegrityError:
        return
    for entry in read.entries():
        assert entry.offset + entry.stored <= read.packs[entry.pack]
        assert bool(entry.base) == bool(entry.depth)
    for recipe in listing_of(read.rows, read.entries()).recipes:
        assert sum(piece.length for piece in recipe.pieces) == recipe.size


def test_bases_in_a_circle_are_no_chain() -> None:
    one, two = b"1" * 32, b"2" * 32
    places = {one: [Entry(one, "p", 0, 9, 9, two, 2, 0)], two: [Entry(two, "p", 9, 9, 9, one, 2, 0)]}
    reader = Reader(open_store("memory://"), lambda ids: {name: places[name] for name in ids}, 1)
    with pytest.raises(DamagedVaultError, match="no deeper than its base"):
        reader.plan([one])


@pytest.mark.parametrize("key", ["packs/00/x", "packs/aa/" + "b" * 64 + "-" + SESSION, "packs/bb/" + "b" * 64, "x"])
def test_keys_of_no_packs(key: str) -> None:
    with pytest.raises(DamagedVaultError):
        parse_key(key)


def test_the_configuration() -> None:
    config = Config("0f" * 16)
    data = config.as_bytes()
    assert read_config(data, "url") == config
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    later = json.dumps(json.loads(data) | {"version": 2}).encode()
    with pytest.raises(UnknownVersionError, match="newer Holdfast"):
        read_config(later, "url")
    for bad in (data[:-1], data.replace(b"4194304", b"4194305"), data.replace(b"0f0f", b"0e0f"), b"{}", b"[]", b"null"):
        with pytest.raises(DamagedVaultError):
            read_config(bad, "url")
    for wrong in ({"block_bytes": 17}, {"pack_bytes": 1}, {"id": "x"}):
        with pytest.raises(DamagedVaultError):
            read_config(dataclasses.replace(config, **wrong).as_bytes(), "url")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_few_texts_are_names(text: str) -> None:
    try:
        check_oid(text)
    except InvalidOidError:
        return
    assert text.startswith(("md5:", "md5-dos2unix:", "runs:"))
    assert "//" not in text


def test_a_vault_of_the_first_version_is_read_for_ever() -> None:
    """Never make these files anew: a vault that cannot be read any more is somebody's models."""
    expected = json.loads((GOLDEN / "files.json").read_text())
    store = open_store(str(GOLDEN / "vault"))
    with open_vault(store, None, jobs=2) as vault:
        vault.refresh()
        assert set(vault.index.oids()) == expected.keys()
        for oid, (size, digest, form, depth) in expected.items():
            recipe = vault.recipe(oid)
            assert (recipe.size, recipe.format) == (size, form)
            data = vault.read(oid, 0, size + 1)
            assert blake3(data).hexdigest() == digest
            assert max((entry.depth for entry in vault.plan(recipe).entries.values()), default=0) == depth
    result = check_vault(store, jobs=2, read_data=True)
    assert result.clean
    assert not result.findings
    depths = {values[3] for values in expected.values()}
    assert depths >= {0, 1}


def test_the_golden_segments_say_what_was_claimed() -> None:
    segments = sorted((GOLDEN / "vault" / "index").iterdir())
    claims = [read_segment(path.name, path.read_bytes()).rows.claims for path in segments]
    assert sum(map(len, claims)) == 1
    assert read_condemned("x", write_condemned(["p"], ["s"])).packs == {"p"}
    with pytest.raises(HoldfastError):
        read_condemned("x", segments[0].read_bytes())


def test_rows_keep_to_one_pack_in_a_footer() -> None:
    pack = some_pack()
    rows = read_rows(Tables(pack.footer, "pack", "it"), [len(pack.data)])
    assert {entry.pack for entry in entries_of(rows, ["k"])} == {"k"}
