"""Content-defined chunks: their borders for ever, whatever the window; and what they save."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from pyfastcdc.py import FastCDC as SlowFastCDC

from holdfast.errors import IntegrityError
from holdfast.formats.source import FileSource, MemorySource
from holdfast.vault import chunk
from holdfast.vault.chunk import NORMALIZATION, Chunking, chunk_lengths, chunking_of
from holdfast.vault.split import BLOCK_BYTES, Piece, Split, split_source

KIB = 1024
LENGTHS = chunking_of(BLOCK_BYTES)
SMALL = Chunking(64, 256, 1024)


def noise(count: int, name: str = "noise") -> bytes:
    return blake3(name.encode()).digest(length=count)


def words(count: int) -> bytes:
    """Text of few words, as unlike noise as text is."""
    chance = random.Random(7)
    vocabulary = [noise(chance.randrange(1, 9), f"word {n}").hex() for n in range(500)]
    return " ".join(chance.choices(vocabulary, k=count // 8))[:count].encode()


def lengths_of(data: bytes, lengths: Chunking = LENGTHS) -> list[int]:
    return list(chunk_lengths(MemorySource(data), 0, len(data), lengths))


def test_the_lengths_of_a_vault_are_these_for_ever() -> None:
    assert (LENGTHS.minimum, LENGTHS.average, LENGTHS.maximum) == (64 * KIB, 256 * KIB, 1024 * KIB)
    assert NORMALIZATION == 2


@pytest.mark.parametrize(
    ("data", "borders", "first"),
    [
        (noise(20_000_000), "a9039cbec8accb0c1480e0d7325e4262", [208180, 213625, 386834, 286724]),
        (words(8_000_000), "5ef1b25e753698c9a15b9f81a3a35126", [298150, 273226, 354831, 281372]),
        (bytes(5_000_000), "886005879c0dff8ac04e4632257b33fc", [1048576, 1048576, 1048576, 1048576]),
    ],
    ids=["noise", "words", "zeros"],
)
def test_the_borders_are_these_for_ever(data: bytes, borders: str, first: list[int]) -> None:
    """Whoever changes them parts every vault from what it holds."""
    lengths = lengths_of(data)
    assert lengths[:4] == first
    assert blake3(",".join(map(str, lengths)).encode()).hexdigest(length=16) == borders


def test_the_library_without_its_compiled_part_cuts_alike() -> None:
    data = noise(30_000) + words(30_000) + bytes(5_000)
    slow = SlowFastCDC(SMALL.average, min_size=SMALL.minimum, max_size=SMALL.maximum, normalized_chunking=NORMALIZATION)
    assert lengths_of(data, SMALL) == [piece.length for piece in slow.cut_buf(data)]


@settings(deadline=None)
@given(st.data())
def test_windows_do_not_show(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.tuples(st.sampled_from([noise, words, bytes]), st.integers(0, 6_000)), max_size=6))
    plain = b"".join(make(count) for make, count in parts)
    before, behind = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
    source = MemorySource(b"b" * before + plain + b"e" * behind)
    slow = SlowFastCDC(SMALL.average, min_size=SMALL.minimum, max_size=SMALL.maximum, normalized_chunking=NORMALIZATION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk, "WINDOW_BYTES", data.draw(st.integers(1, 9_000)))
        found = list(chunk_lengths(source, before, len(plain), SMALL))
    assert found == [piece.length for piece in slow.cut_buf(plain)]
    assert all(SMALL.minimum < length <= SMALL.maximum for length in found[:-1])


def test_what_is_inserted_moves_no_other_border() -> None:
    old = noise(30_000_000)
    new = old[:11_000_000] + b"a few rows more" + old[11_000_000:20_000_000] + old[20_000_100:]
    known = {piece for piece, _ in chunks_of(old)}
    again = sum(length for piece, length in chunks_of(new) if piece in known)
    assert len(new) - again < 4 * LENGTHS.maximum


def test_what_is_short_is_one_piece_and_not_read() -> None:
    class Unread(MemorySource):
        def read(self, offset: int, count: int) -> bytes:
            raise AssertionError(f"{count} bytes from {offset} on were read")

    assert list(chunk_lengths(Unread(b"x" * LENGTHS.minimum), 0, LENGTHS.minimum, LENGTHS)) == [LENGTHS.minimum]
    assert list(chunk_lengths(Unread(b""), 0, 0, LENGTHS)) == []
    assert split_source(Unread(b"")) == Split("bytes", ())
    assert split_source(Unread(b"short")) == Split("bytes", (Piece(0, 5, "bytes", 0),))


class Watched(FileSource):
    """A file that notes each read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, count: int) -> bytes:
        self.reads.append((offset, count))
        return super().read(offset, count)


def test_a_file_is_read_once_in_windows(tmp_path: Path) -> None:
    data = noise(17_000_000)
    (tmp_path / "file").write_bytes(data)
    with Watched(tmp_path / "file") as source:
        lengths = list(chunk_lengths(source, 3, len(data) - 3, LENGTHS))
    assert sum(lengths) == len(data) - 3
    assert source.reads[0][0] == 3
    assert all(a + n == b for (a, n), (b, _) in zip(source.reads, source.reads[1:], strict=False))
    assert sum(count for _, count in source.reads) == len(data) - 3
    assert max(count for _, count in source.reads) <= 4 * 1024 * KIB


def test_a_read_cut_short_is_read_on() -> None:
    class Slow(MemorySource):
        def read(self, offset: int, count: int) -> bytes:
            return super().read(offset, min(count, 70_001))

    data = noise(3_000_000)
    assert list(chunk_lengths(Slow(data), 0, len(data), LENGTHS)) == lengths_of(data)


def test_a_file_that_ends_early_is_an_error() -> None:
    class Shrunk(MemorySource):
        @property
        def size(self) -> int:
            return 2_000_000

    with pytest.raises(IntegrityError, match="ended at byte 1000000"):
        split_source(Shrunk(noise(1_000_000)))


@pytest.mark.parametrize(
    ("minimum", "average", "maximum"),
    [(63, 256, 1024), (64, 255, 1024), (64, 256, 1023), (512, 256, 1024), (64, 2048, 1024), (2**21, 2**21, 2**22)],
)
def test_lengths_that_are_none(minimum: int, average: int, maximum: int) -> None:
    with pytest.raises(ValueError, match="Chunking"):
        Chunking(minimum, average, maximum)


def chunks_of(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The digest and the length of each chunk."""
    place = 0
    for length in lengths_of(data):
        yield blake3(data[place : place + length]).digest(), length
        place += length
