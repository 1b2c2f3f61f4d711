"""Vaults for tests, and files that are worth storing in them."""

import hashlib
import io
import random
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from holdfast.formats.source import MemorySource
from holdfast.objectstore.store import ObjectStore
from holdfast.vault.check import check_vault
from holdfast.vault.repository import Vault, open_vault
from holdfast.vault.session import Statistics

SMALL_BLOCK, SMALL_PACK = 1 << 16, 1 << 17


def oid_of(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def session_name(number: int) -> str:
    return f"{number:032x}"


def put_all(vault: Vault, files: Sequence[bytes], *, session: str | None = None, chain: bool = False) -> Statistics:
    """Put files in one session; with ``chain`` each against the one before."""
    with vault.session(session) as visit:
        before = None
        for data in files:
            visit.put(oid_of(data), MemorySource(data), base_oid=before if chain else None)
            before = oid_of(data)
        return visit.commit()


def read_all(vault: Vault, files: Sequence[bytes]) -> None:
    """Every file is there, byte for byte."""
    for data in files:
        out = io.BytesIO()
        vault.get(oid_of(data), out)
        assert out.getvalue() == data


def all_is_well(store: ObjectStore, files: Sequence[bytes]) -> None:
    """Every file reads back, and a check finds nothing but orphans."""
    with open_vault(store, None, jobs=1) as vault:
        read_all(vault, files)
    result = check_vault(store, jobs=1, read_data=True)
    assert result.clean, result.findings
    assert {finding.kind for finding in result.findings} <= {"orphan pack"}


def keys(store: ObjectStore, folder: str = "") -> list[str]:
    return sorted(info.key for info in store.list_objects(folder))


def noise(nbytes: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(nbytes)


def npy(array: "np.ndarray") -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def history(steps: int, elements: int = 40_000, seed: int = 1) -> list[bytes]:
    """Checkpoints of one model: float32 weights as safetensors, each a small step from the one before."""
    from safetensors.numpy import save

    random_numbers = np.random.default_rng(seed)
    weights = {f"layer{number}": random_numbers.normal(0, 0.02, elements).astype(np.float32) for number in range(3)}
    found = []
    for _ in range(steps):
        found.append(save(weights))
        weights = {
            name: (values + random_numbers.normal(0, 1e-6, elements)).astype(np.float32)
            for name, values in weights.items()
        }
    return found


def bf16_history(steps: int, elements: int = 100_000, seed: int = 1) -> list[bytes]:
    """The same in bfloat16, written by hand: NumPy has no such type."""
    import json

    random_numbers = np.random.default_rng(seed)
    values = random_numbers.normal(0, 0.02, elements).astype(np.float32)
    found = []
    for _ in range(steps):
        words = (values.view(np.uint32) + 0x8000 >> 16).astype("<u2")
        header = json.dumps({"w": {"dtype": "BF16", "shape": [elements], "data_offsets": [0, 2 * elements]}}).encode()
        found.append(struct.pack("<Q", len(header)) + header + words.tobytes())
        values = (values + random_numbers.normal(0, 1e-4, elements)).astype(np.float32)
    return found


def png_like(number: int) -> bytes:
    """A small file whose bytes look like those of a dataset: partly alike, partly not."""
    return b"\x89PNG\r\n\x1a\n" + zlib.compress(noise(700, number)) + b"IEND" * (number % 5)
