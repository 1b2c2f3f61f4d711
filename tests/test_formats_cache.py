"""The cache of digests: what it knows is not read again; parallel processes; damage."""

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from holdfast.errors import IntegrityError
from holdfast.formats import cache as caches
from holdfast.formats.cache import DigestCache, Digests, digests_of, key_of
from holdfast.formats.content import checkpoint_weights_digest, tensor_digests
from holdfast.formats.digest import file_digest, file_digest_and_md5, file_md5
from holdfast.formats.opening import open_checkpoint
from holdfast.formats.summary import summary_of

ALL = {"file": True, "md5": True, "weights": True, "tensors": True, "summary": True}


def later_clock(path: Path) -> DigestCache:
    return DigestCache(path, now_ns=lambda: 2**62)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    torch.save({"model": {"a": torch.randn(30, 40)}, "optimizer": {"m": torch.randn(9)}}, tmp_path / "m.pt")
    return tmp_path / "m.pt"


def test_a_second_look_reads_nothing(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with later_clock(tmp_path / "cache" / "d.sqlite") as cache:
        first = digests_of(model, cache, **ALL)
    source, checkpoint = open_checkpoint(model)
    with source:
        assert first == Digests(
            file=file_digest(model),
            md5=file_md5(model),
            weights=checkpoint_weights_digest(checkpoint),
            summary=summary_of(checkpoint),
            tensors=tensor_digests(checkpoint),
        )

    def nothing(*_: object) -> None:
        raise AssertionError("the file was read")

    for name in ("FileSource", "file_digest", "file_md5", "file_digest_and_md5"):
        monkeypatch.setattr(caches, name, nothing)
    with later_clock(tmp_path / "cache" / "d.sqlite") as cache:
        assert digests_of(model, cache, **ALL) == first
        (known,) = cache.many([key_of(model.stat()), (1, 2, 3, 4)]).values()
        assert known == replace(first, tensors=None)


def test_each_change_is_seen(tmp_path: Path, model: Path) -> None:
    with later_clock(tmp_path / "d.sqlite") as cache:
        before = digests_of(model, cache, weights=True)
        status = model.stat()
        torch.save({"model": {"a": torch.randn(30, 40)}, "optimizer": {"m": torch.randn(9)}}, tmp_path / "new.pt")
        model.write_bytes((tmp_path / "new.pt").read_bytes())
        os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert digests_of(model, cache, weights=True).weights != before.weights


def test_what_is_asked_for_adds_up(tmp_path: Path, model: Path) -> None:
    with later_clock(tmp_path / "d.sqlite") as cache:
        digests_of(model, cache, md5=True)
        assert cache.get(model.stat()) == Digests(md5=file_md5(model))
        digests_of(model, cache, file=True)
        digests_of(model, cache, weights=True)
        known = cache.get(model.stat())
        assert (known.md5, known.file) == (file_md5(model), file_digest(model))
        assert known.weights is not None
        assert known.tensors is None


def test_no_weights_is_remembered_too(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with later_clock(tmp_path / "d.sqlite") as cache:
        assert digests_of(tmp_path / "note.txt", cache, weights=True).no_weights
        assert "no format" in (cache.get((tmp_path / "note.txt").stat()).no_weights or "")


def test_a_file_written_this_moment_is_not_kept(tmp_path: Path, model: Path) -> None:
    with DigestCache(tmp_path / "d.sqlite", now_ns=lambda: model.stat().st_mtime_ns + 1000) as cache:
        digests_of(model, cache, md5=True)
        assert cache.get(model.stat()) == Digests()


def test_a_file_changed_while_it_is_read(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touching(path: Path) -> str:
        os.utime(path, ns=(1, 1))
        return "blake3:0"

    monkeypatch.setattr(caches, "file_digest", touching)
    with later_clock(tmp_path / "d.sqlite") as cache, pytest.raises(IntegrityError, match="was changed"):
        digests_of(model, cache, file=True)


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 1000, None])
def test_a_broken_cache_is_made_anew(tmp_path: Path, model: Path, damage: bytes | None) -> None:
    place = tmp_path / "d.sqlite"
    with later_clock(place) as cache:
        expected = digests_of(model, cache, **ALL)
    data = bytearray(place.read_bytes())
    data[100:4000] = os.urandom(3900)
    place.write_bytes(bytes(data) if damage is None else damage)
    with later_clock(place) as cache:
        assert digests_of(model, cache, **ALL) == expected
        assert digests_of(model, cache, **ALL) == expected
    with later_clock(place) as cache:
        assert cache.get(model.stat()) == expected


def test_a_cache_of_another_schema_is_made_anew(tmp_path: Path, model: Path) -> None:
    with sqlite3.connect(tmp_path / "d.sqlite") as connection:
        connection.execute("CREATE TABLE digests (x)")
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with later_clock(tmp_path / "d.sqlite") as cache:
        expected = digests_of(model, cache, md5=True)
        assert cache.get(model.stat()) == expected


def test_without_a_place_to_write(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (None, tmp_path / "file" / "d.sqlite"):
        with DigestCache(place) as cache:
            assert digests_of(model, cache, md5=True).md5 == file_md5(model)


def test_many_processes_share_it(tmp_path: Path) -> None:
    for number in range(20):
        torch.save({"a": torch.full((50, 50), float(number))}, tmp_path / f"{number}.pt")
        os.utime(tmp_path / f"{number}.pt", ns=(1, 10**18 + number))
    program = (
        "import sys\nfrom pathlib import Path\nfrom holdfast.formats.cache import DigestCache, digests_of\n"
        "folder = Path(sys.argv[1])\n"
        "with DigestCache(folder / 'd.sqlite') as cache:\n"
        "    for path in sorted(folder.glob('*.pt')):\n"
        "        print(path.name, digests_of(path, cache, file=True, md5=True, weights=True).weights)\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outputs = {child.communicate()[0] for child in children}
    assert {child.returncode for child in children} == {0}
    assert len(outputs) == 1
    with DigestCache(tmp_path / "d.sqlite") as cache:
        assert len(cache.many(key_of(path.stat()) for path in tmp_path.glob("*.pt"))) == 20


@pytest.mark.parametrize("size", [0, 1, 4 * 2**20, 9 * 2**20 + 5])
def test_both_digests_in_one_pass(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(os.urandom(size))
    assert file_digest_and_md5(tmp_path / "f") == (file_digest(tmp_path / "f"), file_md5(tmp_path / "f"))
