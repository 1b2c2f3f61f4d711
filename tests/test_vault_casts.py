"""What is a cast of something else that is stored costs next to nothing."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from holdfast.vault.casts import CastFiles
from holdfast.vault.collecting import purge
from holdfast.vault.explain import explain_file
from holdfast.vault.repack import plan_repack, repack
from holdfast.vault.session import FileToPut
from holdfast.vault.split import split_source
from test_vault_repack import NOW, key_of, lineage_of, made
from vaults import all_is_well, oid_of, put_all

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def weights(seed: int, elements: int = 90_000) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {f"layer{number}.weight": torch.randn(elements) * 0.02 for number in range(3)}


def stepped(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: tensor + 1e-4 * torch.randn_like(tensor) for name, tensor in tensors.items()}


def halved(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {name: tensor.to(HALF[kind]) for name, tensor in tensors.items()}


@pytest.fixture
def store() -> ObjectStore:
    return open_store("memory://")


def own_bytes(store: ObjectStore, data: bytes) -> dict[str, int]:
    """Stored bytes of a file's own blobs, by codec."""
    from holdfast.vault.repository import open_vault

    with open_vault(store, None, jobs=1) as vault:
        found: dict[str, int] = {}
        for part in explain_file(vault, oid_of(data)).parts:
            found[part.codec] = found.get(part.codec, 0) + part.stored
        return found


@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("first", [True, False])
def test_master_weights_beside_what_they_were_cast_to(kind: str, first: bool, store: ObjectStore) -> None:
    master = {f"optimizer.{name}": tensor for name, tensor in weights(1).items()}
    model = {f"model.{name}": tensor for (name, tensor) in halved(weights(1), kind).items()}
    # nothing but the bytes says that they belong together, and either may come first in the file
    alone, both = (
        save(master),
        save({**model, **master} if first else {**{f"z{n}": t for n, t in model.items()}, **master}),
    )
    with made(store) as vault:
        put_all(vault, [alone])
        put_all(vault, [both])
        found = explain_file(vault, oid_of(both))
        same = [part for part in found.parts if part.codec == "same"]
        assert sum(part.length for part in same) == sum(tensor.nbytes for tensor in model.values())
        assert sum(part.stored for part in same) < 100 * len(same)
        assert found.read_bytes <= explain_file(vault, oid_of(alone)).read_bytes + 4000
    all_is_well(store, [alone, both])


def test_without_deltas_there_are_no_casts(store: ObjectStore) -> None:
    both = save({**weights(1), **{f"z{name}": tensor for name, tensor in halved(weights(1), "bf16").items()}})
    with made(store) as vault:
        with vault.session(max_restore_ratio=0) as session:
            session.put(oid_of(both), MemorySource(both))
            session.commit()
        assert explain_file(vault, oid_of(both)).depth == 0
    all_is_well(store, [both])


def test_blocks_of_half_as_many_bytes_have_as_many_numbers() -> None:
    tensors = {"w": torch.arange(3_000_000, dtype=torch.float32)}
    whole, half = (split_source(MemorySource(save(some))) for some in (tensors, halved(tensors, "bf16")))
    wide = [piece for piece in whole.pieces if piece.slot]
    narrow = [piece for piece in half.pieces if piece.slot]
    assert [piece.slot for piece in wide] == [piece.wide for piece in narrow]
    assert [piece.length for piece in wide] == [2 * piece.length for piece in narrow]
    assert len(wide) == 3
    assert all(piece.wide == 0 for piece in whole.pieces)


@pytest.mark.parametrize("kind", HALF)
def test_a_cast_of_another_file_in_a_cold_history(kind: str, store: ObjectStore) -> None:
    steps = [weights(1)]
    for number in range(3):
        steps.append(stepped(steps[-1], number))
    wide, narrow = [save(step) for step in steps], [save(halved(step, kind)) for step in steps]
    with made(store) as vault:
        for one, other in zip(wide, narrow, strict=True):
            put_all(vault, [one, other])
        lineage = lineage_of(wide, narrow)
        repack(vault, plan_repack(vault, lineage, recent=NOW), recent=NOW)
        purge(vault, older_than=NOW)
        for data in narrow[:-1]:
            assert "same" in own_bytes(store, data)
            assert sum(own_bytes(store, data).values()) < 0.01 * len(data)
        # the newest is as quick to restore as ever
        assert explain_file(vault, oid_of(narrow[-1])).read_bytes <= len(narrow[-1])
    all_is_well(store, [*wide, *narrow])


def test_what_only_looks_like_a_cast_is_stored_another_way(store: ObjectStore, tmp_path: Path) -> None:
    one, other = weights(1), weights(2)
    wide, narrow, older = save(one), save(halved(other, "bf16")), save(halved(stepped(other, 3), "bf16"))
    for name, data in (("wide", wide), ("narrow", narrow), ("older", older)):
        (tmp_path / name).write_bytes(data)
    with made(store) as vault:
        put_all(vault, [wide, older])
        with vault.session(max_restore_ratio=math.inf) as session:
            file = FileToPut(oid_of(narrow), tmp_path / "narrow", oid_of(older), None, None, oid_of(wide))
            session.put_many([file])
            session.commit()
        codecs = own_bytes(store, narrow)
        assert "delta" in codecs
        assert sum(codecs.values()) < 0.6 * len(narrow)
    all_is_well(store, [wide, narrow, older])


def test_files_are_found_by_what_they_would_be_cast_to() -> None:
    def look(name: str, tensors: dict[str, torch.Tensor]) -> str | None:
        source = MemorySource(save(tensors))
        return casts.look(name, source, split_source(source))

    casts = CastFiles()
    for number in range(3):
        assert look(f"md5:{number}", weights(number)) is None
    for kind in HALF:
        assert look("md5:x", halved(weights(1), kind)) == "md5:1"
    assert look("md5:y", halved(weights(9), "bf16")) is None


def test_special_numbers_survive(store: ObjectStore) -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 50_000, dtype=np.uint32)
    bits[:6] = (0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 0x80000000, 1)
    wide = torch.from_numpy(bits.view(np.float32).copy())
    files = [save({"a": wide, "z": wide.to(dtype)}) for dtype in HALF.values()]
    with made(store) as vault:
        put_all(vault, files)
        assert key_of(files[0])
    all_is_well(store, files)
