"""What lies in a remote, by what wrote it, and what it costs a month."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from holdfast.objectstore.store import ObjectInfo

Kind = Literal["dvc", "run cache", "vault", "releases", "quarantine", "data"]

GB = 1e9
# DVC 3 writes files/md5/xx/…, DVC 2 wrote xx/…; the run cache is runs/xx/…
_DVC = re.compile(r"(?:files/[a-z0-9-]+/)?[0-9a-f]{2}/[0-9a-f]{30,}(?:\.dir)?")
_RUNS = re.compile(r"(?:files/[a-z0-9-]+/)?runs/[0-9a-f]{2}/")
_TOPS: dict[str, Kind] = {"vault": "vault", "releases": "releases", "holdfast": "quarantine"}


@dataclass(frozen=True)
class Prices:
    """What a store takes, in dollars.

    Attributes:
        gb_month: a GB (1e9 bytes) stored for a month.
        million_writes: of puts, listings, copies and parts of uploads (R2's Class A).
        million_reads: of gets and heads (R2's Class B). Deletions are free.
        gb_out: a GB that is downloaded.
    """

    gb_month: float = 0.015
    million_writes: float = 4.50
    million_reads: float = 0.36
    gb_out: float = 0.0

    def requests(self, writes: int, reads: int, bytes_out: int = 0) -> float:
        """What so many requests cost, in dollars."""
        return writes / 1e6 * self.million_writes + reads / 1e6 * self.million_reads + bytes_out / GB * self.gb_out

    def month(self, nbytes: int) -> float:
        """What so many bytes cost a month, in dollars."""
        return nbytes / GB * self.gb_month


R2_PRICES = Prices()


@dataclass(frozen=True)
class Usage:
    """What lies below one prefix.

    Attributes:
        prefix: with its slash; empty for what lies at the top itself.
        kind: what wrote it.
        objects: how many.
        nbytes: of all of them.
        newest: when the last one was written; None where there is none.
    """

    prefix: str
    kind: Kind
    objects: int = 0
    nbytes: int = 0
    newest: datetime | None = None

    def with_object(self, info: ObjectInfo) -> "Usage":
        """The same with one more object."""
        newest = info.modified if self.newest is None else max(self.newest, info.modified)
        return replace(self, objects=self.objects + 1, nbytes=self.nbytes + info.size, newest=newest)


def kind_of(key: str) -> Kind:
    """What wrote an object, by its key below the remote."""
    if _DVC.fullmatch(key):
        return "dvc"
    if _RUNS.match(key):
        return "run cache"
    return _TOPS.get(key.split("/", 1)[0], "data") if "/" in key else "data"


def measure_usage(objects: Iterable[ObjectInfo], *, base: str = "", depth: int = 1) -> list[Usage]:
    """Objects counted by prefix, the largest first.

    What DVC spreads over 256 folders is one line. Memory is that of the prefixes, not of the objects.

    Args:
        objects: keys relative to the remote.
        base: only what lies below this folder of the remote is told apart.
        depth: how many folders below ``base`` make a prefix.
    """
    found: dict[tuple[str, Kind], Usage] = {}
    for info in objects:
        kind = kind_of(info.key)
        prefix = _prefix(info.key, kind, base, depth)
        known = found.get((prefix, kind)) or Usage(prefix, kind)
        found[prefix, kind] = known.with_object(info)
    return sorted(found.values(), key=lambda usage: (-usage.nbytes, usage.prefix, usage.kind))


def totals(usages: Sequence[Usage]) -> dict[Kind, Usage]:
    """The same by what wrote it, the largest first."""
    found: dict[Kind, Usage] = {}
    for usage in usages:
        known = found.get(usage.kind, Usage("", usage.kind))
        newest = max((time for time in (known.newest, usage.newest) if time), default=None)
        found[usage.kind] = Usage("", usage.kind, known.objects + usage.objects, known.nbytes + usage.nbytes, newest)
    return dict(sorted(found.items(), key=lambda item: -item[1].nbytes))


def _prefix(key: str, kind: Kind, base: str, depth: int) -> str:
    folders = key.split("/")[:-1]
    if kind in ("dvc", "run cache") and not base:
        # up to the folder that holds the 256
        last = folders.index("runs") + 1 if kind == "run cache" else len(folders) - 1
        return "".join(f"{name}/" for name in folders[:last])
    fixed = len([part for part in base.split("/") if part])
    return "".join(f"{name}/" for name in folders[: fixed + depth])
