"""Tables in an object: what was written is read, and nothing else is."""

import json
import struct
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.vault.columns import MAX_HEADER_BYTES, DamagedTableError, Tables, id_column, write_tables

WIDTHS = {"u1": np.uint8, "u2": np.uint16, "u4": np.uint32, "u8": np.uint64}


@st.composite
def tables(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in draw(st.lists(st.text(max_size=5), max_size=3, unique=True)):
        rows = draw(st.integers(0, 8))
        columns: dict[str, Any] = {}
        for title in draw(st.lists(st.text(max_size=5), max_size=4, unique=True)):
            form = draw(st.sampled_from([*WIDTHS, "x16", "x32", "text"]))
            if form == "text":
                columns[title] = draw(st.lists(st.text(max_size=6), min_size=rows, max_size=rows))
            elif form in WIDTHS:
                top = int(np.iinfo(WIDTHS[form]).max)
                numbers = draw(st.lists(st.integers(0, top), min_size=rows, max_size=rows))
                columns[title] = np.array(numbers, WIDTHS[form])
            else:
                width = int(form[1:])
                ids = draw(st.lists(st.binary(min_size=width, max_size=width), min_size=rows, max_size=rows))
                columns[title] = id_column(ids, width)
        found[name] = columns
    return found


def same(read: Tables, written: dict[str, dict[str, Any]]) -> None:
    for name, columns in written.items():
        for title, column in columns.items():
            if not isinstance(column, np.ndarray):
                assert read.texts(name, title) == list(column)
            elif column.ndim == 2:
                assert (read.ids(name, title) == column).all()
                assert read.ids(name, title).shape == column.shape
            else:
                assert read.numbers(name, title).tolist() == column.tolist()
            assert read.rows(name) == len(column)


@settings(deadline=None)
@given(tables())
def test_what_is_written_is_read(written: dict[str, dict[str, Any]]) -> None:
    data = write_tables("kind", written)
    assert write_tables("kind", written) == data
    same(Tables(data, "kind", "it"), written)


@settings(deadline=None, max_examples=60)
@given(tables(), st.data())
def test_damage_is_found(written: dict[str, dict[str, Any]], data: st.DataObject) -> None:
    good = write_tables("kind", written)
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    raw = bytearray(good)
    raw[bit // 8] ^= 1 << bit % 8
    cut = good[: data.draw(st.integers(0, len(good) - 1))]
    for bad in (bytes(raw), cut, good + b"\0", b""):
        with pytest.raises(DamagedTableError):
            Tables(bad, "kind", "it")


def sealed(header: Any, *frames: bytes, length: int | None = None, magic: bytes = b"HFT\x01") -> bytes:
    """What somebody writes who knows the format and means ill: the checksum is right."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    packed = zstandard.ZstdCompressor().compress(text)
    body = struct.pack("<4sI", magic, len(packed) if length is None else length) + packed + b"".join(frames)
    return body + blake3(body).digest()


def frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def table(rows: int, *columns: list[Any]) -> dict[str, Any]:
    return {"kind": "k", "tables": [["t", rows, list(columns)]]}


BOMB = frame(bytes(1 << 20))
HOSTILE = {
    "rows beyond all bounds": sealed(table(1 << 62, ["c", "u8", len(BOMB)]), BOMB),
    "rows that would take gigabytes": sealed(table(1 << 30, ["c", "u8", len(BOMB)]), BOMB),
    "negative rows": sealed(table(-1, ["c", "u1", len(BOMB)]), BOMB),
    "rows as a fraction": sealed(table(1.0, ["c", "u1", len(BOMB)]), BOMB),  # type: ignore[arg-type]
    "rows as truth": sealed(table(True, ["c", "u1", 10]), frame(b"a")),
    "an unknown type": sealed(table(1, ["c", "u3", 10]), frame(b"a")),
    "a frame beyond the end": sealed(table(1, ["c", "u1", 1 << 40]), frame(b"a")),
    "frames that leave something over": sealed(table(1, ["c", "u1", 3]), frame(b"a")),
    "no frames": sealed(table(1, ["c", "u1"])),
    "text with one frame": sealed(table(1, ["c", "text", 10]), frame(b"a")),
    "a header that is no JSON": sealed(b"{"),
    "a header that nests": sealed(b"[" * 100_000),
    "a header of another kind of thing": sealed([1, 2]),
    "a header without tables": sealed({"kind": "k"}),
    "tables that are numbers": sealed({"kind": "k", "tables": [1]}),
    "too many tables": sealed({"kind": "k", "tables": [[str(n), 0, []] for n in range(100)]}),
    "a header as long as a book": sealed(b" " * (MAX_HEADER_BYTES + 1)),
    "a header beyond the end": sealed({}, length=1 << 31),
    "another version": sealed(table(0), magic=b"HFT\x02"),
    "another kind": sealed({"kind": "other", "tables": []}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(name: str) -> None:
    with pytest.raises(DamagedTableError, match="damaged"):
        Tables(HOSTILE[name], "k", "it")


def text_table(lengths: list[int], text: bytes, declared: int | None = None) -> bytes:
    parts = frame(np.array(lengths, "<u4").tobytes()), frame(text)
    size = len(text) if declared is None else declared
    return sealed(table(len(lengths), ["c", "text", *map(len, parts), size]), *parts)


@pytest.mark.parametrize(
    "data",
    [
        text_table([1, 2], b"ab"),
        text_table([2**32 - 1, 2**32 - 1, 4], b"ab"),
        text_table([2], b"\xff\xff"),
        text_table([1, 1], "é".encode()),
        text_table([2], b"ab", declared=3),
        text_table([2], b"ab", declared=1),
    ],
)
def test_hostile_texts_are_refused(data: bytes) -> None:
    read = Tables(data, "k", "it")
    with pytest.raises(DamagedTableError):
        read.texts("t", "c")


@pytest.mark.parametrize(
    "content",
    [
        frame(b"ab"),
        frame(b""),
        b"abcdefgh",
        frame(b"a") + b"\0",
        zstandard.ZstdCompressor(write_content_size=False).compress(b"a"),
    ],
)
def test_hostile_frames_are_refused(content: bytes) -> None:
    read = Tables(sealed(table(1, ["c", "u1", len(content)]), content), "k", "it")
    with pytest.raises(DamagedTableError):
        read.numbers("t", "c")


def test_columns_are_asked_for_by_name_and_type() -> None:
    read = Tables(
        write_tables("k", {"t": {"n": np.zeros(2, np.uint8), "x": ["a", "b"], "i": id_column([bytes(32)] * 2)}}),
        "k",
        "it",
    )
    for ask in (read.texts, read.ids):
        with pytest.raises(DamagedTableError, match=r"t\.n is of type u1"):
            ask("t", "n")
    with pytest.raises(DamagedTableError, match=r"t\.x is of type text"):
        read.numbers("t", "x")
    with pytest.raises(DamagedTableError, match="no column"):
        read.numbers("t", "absent")
    assert read.rows("absent") == 0


def test_columns_that_fit_no_table_are_not_written() -> None:
    for columns in (
        {"a": np.zeros(2, np.uint8), "b": np.zeros(3, np.uint8)},
        {"a": np.zeros(2, np.int32)},
        {"a": np.zeros((2, 3), np.uint8)},
        {"a": np.zeros(2, np.float32)},
    ):
        with pytest.raises(ValueError, match="rows|column"):  # noqa: RUF043
            write_tables("k", {"t": columns})


def test_what_no_reader_would_take_is_not_written() -> None:
    zeros = np.zeros(1 << 24, np.uint64)
    with pytest.raises(ValueError, match="more than a reader takes"):
        write_tables("k", {"t": {"a": zeros}})


def test_hostile_bytes_take_no_memory() -> None:
    """In a process of its own, whose memory has a limit that one wrong allocation goes over."""
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import test_vault_columns as here
from holdfast.vault.columns import DamagedTableError, Tables
limit = 1 << 30
resource.setrlimit(resource.RLIMIT_AS, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * 8 + limit,) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in here.HOSTILE.values():
    try:
        Tables(data, "k", "it")
    except DamagedTableError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    folder = __file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000


def test_a_million_rows_are_read_at_once() -> None:
    rows = 1_000_000
    ids = np.random.default_rng(1).integers(0, 256, (rows, 32), np.uint8)
    data = write_tables("k", {"t": {"id": ids, "offset": np.arange(rows, dtype=np.uint32)}})
    before = time.process_time()
    read = Tables(data, "k", "it")
    assert (read.ids("t", "id")[-1] == ids[-1]).all()
    assert read.numbers("t", "offset")[-1] == rows - 1
    assert time.process_time() - before < 2
    assert len(data) < rows * 36
