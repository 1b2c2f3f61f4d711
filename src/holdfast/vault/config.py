"""What a vault was made with, for ever: ``config.json``.

Canonical JSON (sorted names, no spaces): ``{"block_bytes": …, "check": …, "chunker": {"average": …, "maximum": …,
"minimum": …, "name": "fastcdc-2020", "normalization": 1}, "id": 32 hex digits, "pack_bytes": …, "version": 1}``, where
``check`` is the BLAKE3, in hex, of the same without it. Names that a reader does not know are passed over; a version
that it does not know is refused.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from holdfast.errors import HoldfastError
from holdfast.vault.chunk import NORMALIZATION, Chunking, chunking_of
from holdfast.vault.records import MAX_BLOB_BYTES, DamagedVaultError

KEY = "config.json"
VERSION = 1
BLOCK_BYTES = 4 << 20
PACK_BYTES = 32 << 20
MIN_BLOCK_BYTES, MIN_PACK_BYTES, MAX_PACK_TARGET_BYTES = 1 << 12, 1 << 12, 256 << 20
CHUNKER = "fastcdc-2020"
_MAX_BYTES = 1 << 16


class UnknownVersionError(HoldfastError):
    """The vault was made by a later version."""


@dataclass(frozen=True)
class Config:
    """What a vault was made with.

    Attributes:
        id: 32 hex digits, random: tells this vault from every other one.
        block_bytes: the most that a blob holds.
        pack_bytes: a pack that has become so long is finished.
        chunking: how files that are no checkpoints are cut.
    """

    id: str
    block_bytes: int = BLOCK_BYTES
    pack_bytes: int = PACK_BYTES
    chunking: Chunking = chunking_of(BLOCK_BYTES)  # noqa: RUF009 - a frozen value

    def as_bytes(self) -> bytes:
        """What is stored."""
        chunker = {
            "name": CHUNKER,
            "normalization": NORMALIZATION,
            "minimum": self.chunking.minimum,
            "average": self.chunking.average,
            "maximum": self.chunking.maximum,
        }
        values = {
            "version": VERSION,
            "id": self.id,
            "block_bytes": self.block_bytes,
            "pack_bytes": self.pack_bytes,
            "chunker": chunker,
        }
        return _canonical(values | {"check": _check(values)})


def read_config(data: bytes, url: str) -> Config:
    """What a vault was made with.

    Raises:
        UnknownVersionError: by a later version of Holdfast.
        DamagedVaultError: the file is no configuration.
    """
    what = f"{url}: {KEY}"
    if len(data) > _MAX_BYTES:
        raise DamagedVaultError(f"{what} is damaged: it has {len(data)} bytes")
    try:
        values: Any = json.loads(data)
        check = values.pop("check")
        version = values["version"]
        chunker = values.get("chunker", {})
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r:.40}")
        if version > VERSION or chunker.get("name") != CHUNKER or chunker.get("normalization") != NORMALIZATION:
            raise UnknownVersionError(
                f"{url} is a vault of version {version}, and this Holdfast knows {VERSION}",
                hint="Install a newer Holdfast: pip install --upgrade holdfast",
            )
        if check != _check(values):
            raise ValueError("its checksum does not match")
        name, block, pack = values["id"], values["block_bytes"], values["pack_bytes"]
        chunking = Chunking(*(_whole(chunker[key]) for key in ("minimum", "average", "maximum")))
        if not isinstance(name, str) or not re.fullmatch("[0-9a-f]{32}", name):
            raise ValueError(f"id {name!r:.80}")
        if not MIN_BLOCK_BYTES <= _whole(block) <= MAX_BLOB_BYTES or chunking.maximum > block or block % 16:
            raise ValueError(f"blocks of {block} bytes")
        if not MIN_PACK_BYTES <= _whole(pack) <= MAX_PACK_TARGET_BYTES:
            raise ValueError(f"packs of {pack} bytes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedVaultError(f"{what} is damaged: {error}") from error
    return Config(name, block, pack, chunking)


def _check(values: dict[str, Any]) -> str:
    return blake3(_canonical(values)).hexdigest()


def _canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise ValueError(f"{number!r:.40} is no number of bytes")
    return number
