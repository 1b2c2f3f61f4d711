"""Files into a vault and out again: byte for byte, each thing once, and only what is right."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults import FaultyStore, Rule
from holdfast.errors import IntegrityError
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import FileSource, MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from holdfast.vault.oids import InvalidOidError, WrongNameError
from holdfast.vault.records import ConflictError
from holdfast.vault.repository import (
    NoVaultError,
    UnknownFileError,
    Vault,
    VaultExistsError,
    init_vault,
    open_vault,
)
from holdfast.vault.segment import read_segment
from holdfast.vault.session import FileToPut
from holdfast.vault.split import Piece, Split
from vaults import (
    SMALL_BLOCK,
    SMALL_PACK,
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


@pytest.fixture
def store() -> ObjectStore:
    return open_store("memory://")


@pytest.fixture
def vault(store: ObjectStore, tmp_path: Path) -> Iterator[Vault]:
    with init_vault(store, tmp_path / "cache", block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, jobs=2) as made:
        yield made


def again(vault: Vault) -> Vault:
    """The same vault, as somebody sees it who has no cache."""
    return open_vault(vault.store.inner, None, jobs=2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(st.binary(max_size=300), st.integers(0, 400_000).map(lambda size: noise(size, size))), max_size=6
    )
)
def test_what_goes_in_comes_out(files: list[bytes]) -> None:
    store = open_store("memory://")
    with init_vault(store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, jobs=2) as vault:
        put_all(vault, files, chain=True)
        read_all(vault, files)
        with again(vault) as other:
            read_all(other, files)
            for data in files:
                middle = len(data) // 2
                assert other.read(oid_of(data), middle, 1000) == data[middle : middle + 1000]


def test_checkpoints_of_real_writers(vault: Vault, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    generator = torch.Generator().manual_seed(3)
    state = {
        "a": torch.randn(300, 200, generator=generator),
        "b": torch.randn(70_000, generator=generator).to(torch.bfloat16),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "empty": torch.empty(0, 3),
    }
    for name, form in (("zip", True), ("legacy", False)):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=form)
    np.savez(tmp_path / "arrays.npz", a=state["a"].numpy())
    np.savez_compressed(tmp_path / "small.npz", a=state["a"].numpy())
    files = [save(state), *((tmp_path / name).read_bytes() for name in ("zip", "legacy", "arrays.npz", "small.npz"))]
    statistics = put_all(vault, files)
    read_all(again(vault), files)
    # the tensors of all of them are stored once
    assert statistics.stored_bytes < 0.5 * statistics.raw_bytes
    assert {again(vault).recipe(oid_of(data)).format for data in files} >= {"safetensors", "torch zip"}


def test_a_second_session_sends_nothing_twice(vault: Vault) -> None:
    files = [noise(300_000, 1), noise(200_000, 2)]
    put_all(vault, files)
    more = noise(300_000, 1)[:150_000] + b"inserted" + noise(300_000, 1)[150_000:]
    statistics = put_all(vault, [*files, more])
    assert (statistics.files, statistics.skipped) == (1, 2)
    assert statistics.stored_bytes < 100_000
    assert statistics.known_blobs > 0
    read_all(again(vault), [*files, more])
    store = vault.store.inner
    claims = [read_segment(key[6:], store.get(key)).rows.claims for key in keys(store, "index")]
    # whoever was told that a file is there has it in his segment, though it was not sent
    assert sorted(claims, key=len) == [[], [oid_of(data) for data in files]]


def test_a_delta_against_another_version_is_much_smaller(vault: Vault) -> None:
    versions = history(3)
    alone = put_all(vault, [versions[0]]).stored_bytes
    with vault.session() as session:
        session.put(oid_of(versions[1]), MemorySource(versions[1]), base_oid=oid_of(versions[0]))
        statistics = session.commit()
    # float32 noise hardly compresses: a delta beside it would read more than the file has, and is taken only so far
    assert statistics.stored_bytes <= alone
    reads = {
        version: sum(entry.stored for entry in vault.plan(vault.recipe(oid_of(version))).entries.values())
        for version in versions[:2]
    }
    assert all(count <= len(version) for version, count in reads.items())
    read_all(again(vault), versions[:2])


@pytest.mark.parametrize("at_hand", [False, True], ids=["fetched", "at hand"])
@pytest.mark.parametrize("one_session", [False, True], ids=["sessions", "one session"])
def test_a_history_takes_deltas_and_restores_within_its_size(vault: Vault, one_session: bool, at_hand: bool) -> None:
    versions = bf16_history(5)
    for group in [versions] if one_session else [[version] for version in versions]:
        with vault.session() as session:
            for data in group:
                number = versions.index(data)
                base = versions[number - 1] if number else None
                session.put(
                    oid_of(data),
                    MemorySource(data),
                    base_oid=oid_of(base) if base else None,
                    base_source=MemorySource(base) if base and at_hand else None,
                )
            session.commit()
    with again(vault) as other:
        read_all(other, versions)
        depths = set()
        for data in versions:
            entries = other.plan(other.recipe(oid_of(data))).entries.values()
            assert sum(entry.stored for entry in entries) <= len(data)
            depths |= {entry.depth for entry in entries}
        assert max(depths) >= 1
        stored = sum(other.index.packs().values())
    assert stored < sum(map(len, versions)) / 1.9


def test_without_deltas_on_request(vault: Vault) -> None:
    versions = bf16_history(2)
    with vault.session(max_restore_ratio=0) as session:
        session.put(oid_of(versions[0]), MemorySource(versions[0]))
        session.put(oid_of(versions[1]), MemorySource(versions[1]), base_oid=oid_of(versions[0]))
        session.commit()
    assert {entry.depth for entry in again_entries(vault)} == {0}


def again_entries(vault: Vault) -> list:
    with again(vault) as other:
        other.refresh()
        return list(other.index.all_entries())


def test_a_wrong_base_source_is_no_base(vault: Vault) -> None:
    versions = bf16_history(3)
    put_all(vault, versions[:1])
    for wrong in (versions[2], versions[0][:1000], noise(len(versions[0]), 5)):
        with vault.session() as session:
            session.put(
                oid_of(versions[1]),
                MemorySource(versions[1]),
                base_oid=oid_of(versions[0]),
                base_source=MemorySource(wrong),
                again=True,
            )
            session.commit()
        read_all(again(vault), versions[:2])


def test_ranges_fetch_what_they_need(vault: Vault) -> None:
    data = noise(1_000_000, 3)
    put_all(vault, [data])
    with again(vault) as other:
        opened = other.open(oid_of(data))
        before = other.store.bytes_read
        assert opened.read(500_000, 10) == data[500_000:500_010]
        assert 0 < other.store.bytes_read - before < 3 * SMALL_BLOCK
        asked = other.store.requests
        assert opened.read(500_002, 5) == data[500_002:500_007]
        assert other.store.requests == asked
        assert opened.read(999_990, 100) == data[999_990:]
        assert opened.read(2_000_000, 5) == b""
        with opened.stream() as stream:
            stream.seek(-7, os.SEEK_END)
            assert stream.read() == data[-7:]
            stream.seek(0)
            assert stream.read() == data


def test_a_checkpoint_in_the_vault_is_read_by_its_header(vault: Vault) -> None:
    (data,) = history(1, elements=200_000)
    put_all(vault, [data])
    with again(vault) as other:
        other.refresh()
        before = other.store.bytes_read
        checkpoint = read_checkpoint(other.open(oid_of(data)))
        assert [tensor.name for tensor in checkpoint.tensors] == ["layer0", "layer1", "layer2"]
        assert other.store.bytes_read - before < len(data) / 4


def test_many_small_files_are_few_objects(store: ObjectStore, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    files = [png_like(number) for number in range(1500)]
    for number, data in enumerate(files):
        (folder / str(number)).write_bytes(data)
    wanted = [FileToPut(oid_of(data), folder / str(number)) for number, data in enumerate(files)]
    with init_vault(store, None, jobs=2) as vault:
        with vault.session() as session:
            told: list[str] = []
            assert session.put_many([*wanted, wanted[5]], on_put=lambda oid, _: told.append(oid)) == 1500
            statistics = session.commit()
        assert set(told) == {oid_of(data) for data in files}
        assert len(told) == 1501
        assert statistics.requests <= statistics.packs + 10
        assert len(keys(store, "packs")) == statistics.packs == 1
        with vault.session() as session:
            assert session.put_many(wanted) == 0
            statistics = session.commit()
        assert (statistics.skipped, statistics.packs) == (1500, 0)
    with open_vault(store, None, jobs=2) as vault:
        out = tmp_path / "out"
        got = dict(vault.get_many((file.oid, out / str(number)) for number, file in enumerate(wanted)))
        assert got == {oid_of(data): len(data) for data in files}
        assert all((out / str(number)).read_bytes() == data for number, data in enumerate(files))
        assert len(list(out.iterdir())) == 1500
        # some ranges of each pack, not one request a file
        assert vault.store.requests < 20


def test_paths_of_all_sizes_in_one_go(vault: Vault, tmp_path: Path) -> None:
    versions = bf16_history(3)
    contents = [b"", b"x", noise(64 << 10, 1), noise((64 << 10) + 1, 2), noise(400_000, 3), *versions]
    files = []
    for number, data in enumerate(contents):
        (tmp_path / str(number)).write_bytes(data)
        base = oid_of(contents[number - 1]) if number > 5 else None
        files.append(
            FileToPut(oid_of(data), tmp_path / str(number), base, tmp_path / str(number - 1) if base else None)
        )
    with vault.session() as session:
        assert session.put_many(files) == len(files)
        session.commit()
        assert not session._sink.held  # what is in the store is not kept in memory, too
    read_all(again(vault), contents)
    assert max(entry.depth for entry in again_entries(vault)) >= 1


def test_a_file_that_is_not_what_its_name_says_is_refused(vault: Vault, tmp_path: Path) -> None:
    for size in (10, 100_000):
        data, wrong = noise(size, 1), oid_of(b"other")
        with vault.session() as session, pytest.raises(WrongNameError, match=wrong[4:]):
            session.put(wrong, MemorySource(data))
    (tmp_path / "good").write_bytes(b"good")
    (tmp_path / "bad").write_bytes(noise(200_000, 3))
    with vault.session() as session:
        failed: dict[str, str] = {}
        count = session.put_many(
            [
                FileToPut(oid_of(b"x"), tmp_path / "bad"),
                FileToPut(oid_of(b"y"), tmp_path / "absent"),
                FileToPut(oid_of(b"good"), tmp_path / "good"),
            ],
            lambda oid, error: failed.update({oid: error.message}),
        )
        session.commit()
    assert count == 1
    assert failed.keys() == {oid_of(b"x"), oid_of(b"y")}
    assert "absent" in failed[oid_of(b"y")]
    with again(vault) as other:
        assert other.exists([oid_of(b"x"), oid_of(b"y"), oid_of(b"good")]) == {oid_of(b"good")}


class Changing:
    """A source whose bytes change once they were read."""

    name = "changing"

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.reads = data, len(data), 0

    def read(self, offset: int, count: int) -> bytes:
        self.reads += 1
        data = self.data if self.reads <= 2 else bytes(len(self.data))
        return data[offset : offset + count]

    def sibling(self, name: str) -> "Changing":
        raise IntegrityError(name)


def test_a_file_that_changes_while_it_is_read_is_no_file(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.vault.encoding.KEPT_BYTES", 4 << 20)  # a longer one is read twice
    data = noise(6 << 20, 4)
    pieces = tuple(Piece(start, 1 << 16) for start in range(0, len(data), 1 << 16))
    with vault.session() as session:
        with pytest.raises(IntegrityError, match="changed while it was read"):
            session.put(oid_of(data), Changing(data), Split("bytes", pieces))
        # what another file shares with it is not taken to be there
        session.put(oid_of(data), MemorySource(data), Split("bytes", pieces))
        session.commit()
    read_all(again(vault), [data])


def test_a_file_that_shares_bytes_with_one_that_failed_is_not_taken_to_be_there(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.vault.encoding.KEPT_BYTES", 4 << 20)  # a longer one is read twice
    data = noise(6 << 20, 4)
    pieces = tuple(Piece(start, 1 << 16) for start in range(0, len(data), 1 << 16))
    failed: list[str] = []
    with vault.session() as session:
        for source in (Changing(data), MemorySource(data)):
            # as `put_many` does it: the second begins while the first is under way
            session._encoder.put(
                oid_of(data), source, Split("bytes", pieces), None, lambda _, error: failed.append(str(error)), print
            )
        session.commit()
    assert len(failed) == 2
    assert "shares bytes" in failed[1]
    assert not again(vault).exists([oid_of(data)])


def test_pieces_must_cover_the_file(vault: Vault) -> None:
    data = noise(100_000, 4)
    gap = Split("bytes", (Piece(0, 50_000), Piece(50_001, 49_999)))
    short = Split("bytes", (Piece(0, 50_000),))
    for split in (gap, short):
        with vault.session() as session, pytest.raises(ValueError, match=r"bytes|gap"):
            session.put(oid_of(data), MemorySource(data), split)


def test_one_name_for_two_contents_is_refused(vault: Vault) -> None:
    run = f"runs:{'a' * 64}/{'b' * 64}"
    with vault.session() as session:
        session.put(run, MemorySource(b"one"))
        session.commit()
    with again(vault) as other:
        assert other.read(run, 0, 10) == b"one"
    with vault.session() as session:
        # condemned entries may be put again, with the same content alone
        with pytest.raises(ConflictError, match="another content"):
            session.put(run, MemorySource(b"two"), again=True)
        with pytest.raises(ConflictError, match="another content"):
            session.put(run, MemorySource(noise(100_000, 1)), again=True)


def test_two_writers_with_two_contents_are_found_out(vault: Vault) -> None:
    run = f"runs:{'a' * 64}/{'b' * 64}"
    other = again(vault)
    with vault.session() as one, other.session() as two:
        one.put(run, MemorySource(b"one"))
        two.put(run, MemorySource(b"two"))
        one.commit()
        two.commit()
    with again(vault) as reader, pytest.raises(ConflictError, match="two contents"):
        reader.recipe(run)


@pytest.mark.parametrize(
    "oid", ["", "md5:xyz", "md5:" + "a" * 33, "../md5:" + "a" * 32, "runs:a/../b", "runs:" + "a" * 300 + "/b"]
)
def test_names_that_are_none(vault: Vault, oid: str) -> None:
    with vault.session() as session, pytest.raises(InvalidOidError):
        session.put(oid, MemorySource(b""))
    with pytest.raises(InvalidOidError):
        vault.recipe(oid)


def test_an_unknown_file_leaves_nothing(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(UnknownFileError, match="d41d8cd98f00b204e9800998ecf8427e"):
        vault.get("md5:d41d8cd98f00b204e9800998ecf8427e", tmp_path / "x")
    failed: list[str] = []
    assert not list(vault.get_many([(oid_of(b"a"), tmp_path / "x")], lambda oid, _: failed.append(oid)))
    assert failed == [oid_of(b"a")]
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_line_ends_of_old_dvc(vault: Vault) -> None:
    from dvc_data.hashfile.hash import fobj_md5

    text = b"one\r\ntwo\r\n" * 300_000  # some of the chunks that it looks at
    mixed = text[: 1 << 20] + b"\0\r\n" * 1000
    for data in (b"", b"a\r\nb", text, mixed, noise(200_000, 1) + b"\r\n"):
        md5 = fobj_md5(io.BytesIO(data), name="md5-dos2unix")
        with vault.session() as session:
            session.put(f"md5-dos2unix:{md5}", MemorySource(data))
            session.commit()
        out = io.BytesIO()
        again(vault).get(f"md5-dos2unix:{md5}", out)
        assert out.getvalue() == data
    assert md5 != hashlib.md5(text).hexdigest()


def test_the_same_input_gives_the_same_bytes() -> None:
    files = [*bf16_history(3), noise(300_000, 2), *(png_like(number) for number in range(50))]

    def made(jobs: int) -> dict[str, bytes]:
        store = open_store("memory://")
        with init_vault(
            store, None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, vault_id="ab" * 16, jobs=jobs
        ) as vault:
            put_all(vault, files[:2], session=session_name(1), chain=True)
            put_all(vault, files[1:], session=session_name(2), chain=True)
        return {key: store.get(key) for key in keys(store)}

    first = made(1)
    assert len(first) > 4
    assert made(2) == first == made(5)


@pytest.mark.usefixtures("vault")
def test_a_vault_is_made_once(store: ObjectStore) -> None:
    with pytest.raises(VaultExistsError):
        init_vault(store, None)
    with pytest.raises(NoVaultError, match="holdfast vault init"):
        open_vault(open_store("memory://"), None)
    with pytest.raises(ValueError, match="cut by"):
        init_vault(open_store("memory://"), None, block_bytes=1 << 30)


def test_an_index_of_another_machine_or_none(vault: Vault, tmp_path: Path) -> None:
    files = [noise(100_000, number) for number in range(3)]
    put_all(vault, files)
    index = tmp_path / "cache" / vault.config.id / "index.sqlite"
    vault.close()
    index.write_bytes(b"torn" * 5000)
    with open_vault(vault.store.inner, tmp_path / "cache", jobs=2) as other:
        read_all(other, files)
    counted = FaultyStore(vault.store.inner)
    with open_vault(counted, tmp_path / "cache", jobs=2) as other:
        read_all(other, files)
    assert not [key for verb, key in counted.calls if verb == "get" and key.startswith("index/")]


def test_file_sources_and_durable_files(vault: Vault, tmp_path: Path) -> None:
    data = noise(200_000, 9)
    path = tmp_path / "in"
    path.write_bytes(data)
    with vault.session() as session, FileSource(path) as source:
        assert session.put(oid_of(data), source)
        assert not session.put(oid_of(data), source)
        session.commit()
    assert vault.get(oid_of(data), tmp_path / "deep" / "out", durable=True) == len(data)
    assert (tmp_path / "deep" / "out").read_bytes() == data


def test_a_broken_read_leaves_the_old_file(vault: Vault, tmp_path: Path) -> None:
    data = noise(300_000, 9)
    put_all(vault, [data])
    (tmp_path / "out").write_bytes(b"old")
    faulty = FaultyStore(vault.store.inner, [Rule("flip", frozenset({"get_ranges"}))])
    with open_vault(faulty, None, jobs=2) as other, pytest.raises(IntegrityError, match="damaged"):
        other.get(oid_of(data), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "out"]
