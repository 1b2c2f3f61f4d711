"""Caches whose import has all that sessions may have in common, and what an import stored."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.executor.local import LocalExecutor
from holdfast.objectstore.address import StoreAddress
from holdfast.vault.codec_elements import cast
from holdfast.vault.import_session import SessionTask
from holdfast.vault.pack import parse_key
from holdfast.vault.records import Recipe
from holdfast.vault.repository import Vault, init_vault
from vaults import SMALL_BLOCK, SMALL_PACK, bf16_history, history, keys, noise, png_like
from worlds import World, make_repository


def make_vault(place: "Path | StoreAddress", pack_bytes: int = SMALL_PACK) -> Vault:
    """An empty vault of small blocks, without a cache."""
    address = StoreAddress(str(place)) if isinstance(place, Path) else place
    return init_vault(address.open(), None, block_bytes=SMALL_BLOCK, pack_bytes=pack_bytes, jobs=2)


def stored(vault: Vault) -> tuple[list[str], dict[str, Recipe]]:
    """What an import stored: the digests of the packs, and the recipes."""
    vault.refresh()
    return sorted(parse_key(key)[0] for key in keys(vault.store, "packs")), vault.index.recipes(
        list(vault.index.oids())
    )


def cast_of(data: bytes, *, beside: bool = False) -> bytes:
    """The same weights in bfloat16, as safetensors by hand; those in float32 beside them."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for name in sorted(set(header) - {"__metadata__"}):
        start, end = (8 + length + offset for offset in header[name]["data_offsets"])
        words = cast(np.frombuffer(data[start:end], np.uint32), "F32", "BF16").tobytes()
        tensors[name] = "BF16", header[name]["shape"], words
        if beside:
            tensors[f"wide.{name}"] = "F32", header[name]["shape"], data[start:end]
    made, place = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + len(raw)]}
        place += len(raw)
    head = json.dumps(made).encode()
    return struct.pack("<Q", len(head)) + head + b"".join(raw for _, _, raw in tensors.values())


def damage(world: World, oid: str) -> None:
    """Change the first byte of an object; the rest is what other files have, too."""
    path = world.cache / "files/md5" / oid[:2] / oid[2:]
    raw = bytearray(path.read_bytes())
    raw[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(raw)


def track(world: World, path: str, data: bytes) -> str:
    """Write ``path.dvc`` and the object that it names; the oid."""
    oid, name = world.store(data), path.rpartition("/")[2]
    world.write(f"{path}.dvc", f"outs:\n- md5: {oid}\n  size: {len(data)}\n  hash: md5\n  path: {name}\n")
    return oid


def make_cache(folder: Path, scale: int = 1) -> World:
    """Two models with a history, and what history does not know: kin, casts, shared bytes, small files, a damaged one.

    Args:
        folder: of the repository.
        scale: of 3 MB.
    """
    world = make_repository(folder)
    models = [bf16_history(4, 60_000 * scale, seed) for seed in (1, 2)]
    weights = history(2, 15_000 * scale, 5)
    common = noise(150_000, 9)
    for version in range(4):
        track(world, "a.safetensors", models[0][version])
        track(world, "b/b.safetensors", models[1][version])
        track(world, "data.bin", common + noise(40_000 + version, version))
        if version < 2:
            track(world, "full.safetensors", weights[version])
            track(world, "half.safetensors", cast_of(weights[version]))
        world.commit(f"version {version}")
    # the newest, which is put first, is damaged: what it shares with others is first met in one of those
    shared = noise(150_000, 21)
    damaged = track(world, "shared.bin", noise(70_000, 12) + shared)
    world.commit("damaged")
    damage(world, damaged)
    strays = [
        *history(3, 15_000 * scale, 6),
        *bf16_history(3, 60_000 * scale, 1)[1:],
        cast_of(history(1, 15_000 * scale, 6)[0]),
        cast_of(history(1, 15_000 * scale, 8)[0], beside=True),
        *(noise(20_000, 22 + number) + shared for number in range(3)),
        noise(30_000, 11) + common,
        models[1][0] + b"tail",
    ]
    for data in (*strays, *map(png_like, range(20)), b""):
        world.store(data)
    return world


class Backwards(LocalExecutor):
    """Does what it is given at a time from the last to the first, and stops, as if killed, after so many sessions.

    Args:
        most: sessions that end; the one after them has committed, and nobody is told.
    """

    def __init__(self, most: int = 1000) -> None:
        super().__init__(1)
        self.sessions: list[int] = []
        self.batches = 0
        self._most = most

    def completed(self, function: Callable[..., Any], items: Any, **_: Any) -> Any:
        for item in list(items)[::-1]:
            result = function(item)
            if isinstance(item, SessionTask):
                if len(self.sessions) == self._most:
                    raise KeyboardInterrupt
                self.sessions.append(item.number)
            else:
                self.batches += 1
            yield item, result
