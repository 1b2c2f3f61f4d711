"""All versions of each tracked path: what DVC stores of them, what is different in them, what a vault would store.

Bytes as DVC stores them and distinct tensors are counted. What the vault would store is an estimate: neighbouring
versions are sampled (`holdfast.dedup.estimate`), and a push and a repack are followed version by version.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from holdfast.dedup.estimate import Sample, sample_pair
from holdfast.dedup.names import read_names
from holdfast.errors import HoldfastError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.formats.checkpoint import storage_bytes
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import FileSource, Source
from holdfast.repo.cache import object_path
from holdfast.repo.lineage import ObjectKey
from holdfast.repo.workspace import Project
from holdfast.vault.records import MAX_DEPTH
from holdfast.vault.split import may_be_checkpoint

HISTORY_FORMAT = "holdfast dedup history 1"
# neighbours of a path that are sampled, evenly spread over its versions, and paths, the largest
PAIRS_A_PATH, MAX_PATHS = 4, 200
BLOCKS_A_PAIR = 12
# how much further apart the pair is that tells how differences grow
FAR = 4

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class PathHistory:
    """The versions of one path.

    Args:
        path: from the git root.
        versions: how many there are.
        here: how many of them the local cache has; the figures are of these.
        raw_bytes: what DVC stores of them; an object that an earlier path has counts there.
        distinct_bytes: once equal tensors count once; of what is no checkpoint all bytes count.
        pushed: bytes that the vault would store after pushing version by version; estimated.
        repacked: the same after `holdfast vault repack`; estimated.
        blocks: that were encoded for the estimate; 0 where it rests on other paths alone.
        spread: the standard deviation of what a byte that changed took, from block to block.
    """

    path: str
    versions: int
    here: int
    raw_bytes: int
    distinct_bytes: int
    pushed: int
    repacked: int
    blocks: int
    spread: float


@dataclass(frozen=True)
class HistoryReport:
    """All paths, those of most bytes first; see `PathHistory`."""

    paths: tuple[PathHistory, ...]
    notes: tuple[str, ...]

    @property
    def totals(self) -> dict[str, int]:
        """The sums over all paths."""
        names = ("versions", "here", "raw_bytes", "distinct_bytes", "pushed", "repacked", "blocks")
        return {name: sum(getattr(path, name) for path in self.paths) for name in names}

    def to_json(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {"format": HISTORY_FORMAT, "totals": self.totals, **asdict(self)}


@dataclass(frozen=True)
class _Version:
    size: int
    distinct: int
    open: Callable[[], AbstractContextManager[Source]]


@dataclass(frozen=True)
class Rates:
    """What the bytes of a path's versions take in a vault.

    Args:
        alone: stored for each raw one, without a base.
        near: for each that changed, against the version right before.
        growth: what is added to that with each doubling of the distance.
        same: the share of bytes that are equal in neighbours.
        ratios: of the blocks that differ.
        blocks: how many were encoded.
    """

    alone: float
    near: float
    growth: float
    same: float
    ratios: tuple[float, ...] = ()
    blocks: int = 0

    def far(self, distance: int) -> float:
        """For each byte that changed, against a version so many before; never more than alone."""
        return min(self.alone, self.near + self.growth * math.log2(distance))


def report_history(
    project: Project,
    cache: Path,
    digests: DigestCache,
    *,
    min_size: int,
    max_paths: int = MAX_PATHS,
    progress: Progress = lambda _done, _total: None,
) -> HistoryReport:
    """Count and estimate what all versions of the tracked paths take.

    Args:
        project: whose git history names them.
        cache: DVC's, where those are that are here.
        digests: what is known of files; what is read is remembered.
        min_size: paths whose versions have fewer bytes together are left out.
        max_paths: that are sampled.
        progress: called with bytes of versions looked at, and of all.
    """
    notes: list[str] = []
    lineage = read_names(project, cache, notes)
    owner = {key: paths[0] for key, paths in lineage.paths.items()}
    sizes = {key: size for key in owner if (size := _size(cache, key)) is not None}
    done, total = 0, sum(sizes.values())
    seen: set[bytes] = set()
    chains: dict[str, list[_Version]] = {}
    missing = 0
    for path, newest_first in lineage.versions.items():
        for key in reversed(newest_first):
            if key not in sizes:
                missing += owner[key] == path
            elif owner[key] == path:
                chains.setdefault(path, []).append(_version(cache, key, sizes[key], digests, seen, notes))
                done += sizes[key]
                progress(done, total)
    largest = sorted(chains, key=lambda path: (-sum(version.size for version in chains[path]), path))
    largest = [path for path in largest if sum(version.size for version in chains[path]) >= max(1, min_size)]
    rates = {path: found for path in largest[:max_paths] if (found := _rates(chains[path], path, notes)) is not None}
    if missing:
        told = "1 version is" if missing == 1 else f"{missing:,} versions are"
        notes.append(f"{told} not in the cache, and not in these figures: `dvc fetch --all-commits` brings them")
    if len(largest) > max_paths:
        notes.append(f"of {len(largest):,} paths the {max_paths} largest were sampled; the others take after them")
    other = _typical(rates.values())
    return HistoryReport(
        tuple(_told(path, len(lineage.versions[path]), chains[path], rates.get(path), other) for path in largest),
        tuple(dict.fromkeys(notes)),
    )


def pushed_bytes(sizes: Sequence[tuple[int, int]], rates: Rates, *, limit: float = 1.0) -> int:
    """What a vault stores of versions that come one after the other, each quick to restore.

    A version is stored as the difference to the one before, or to what that one rests on, while restoring it reads no
    more than ``limit`` times its size; else alone.

    Args:
        sizes: bytes, and bytes that no version before has, of each version, the oldest first.
        rates: what bytes take.
        limit: see there.
    """
    stored: list[float] = []
    reads: list[float] = []
    bases: list[int] = []
    for number, (size, distinct) in enumerate(sizes):
        share = distinct / size if size else 0.0
        chosen = -1
        candidate = number - 1
        while candidate >= 0:
            delta = distinct * rates.far(number - candidate)
            if delta < distinct * rates.alone and delta + reads[candidate] <= limit * size:
                chosen = candidate
                break
            candidate = bases[candidate]
        if chosen >= 0:
            delta = distinct * rates.far(number - chosen)
            stored.append(delta)
            reads.append(delta + reads[chosen])
        else:
            stored.append(distinct * rates.alone)
            reads.append(distinct * rates.alone + (1 - share) * (reads[-1] if reads else 0))
        bases.append(chosen)
    return round(sum(stored))


def repacked_bytes(sizes: Sequence[tuple[int, int]], rates: Rates) -> int:
    """The same once the newest is stored alone, and each older one as its difference to the next newer one."""
    if not sizes:
        return 0
    newest = sizes[-1][0]
    # what the newest has is stored with it; of the others what is left
    rest = sum(distinct for _, distinct in sizes) - newest
    older = len(sizes) - 1
    if older <= 0 or rest <= 0:
        return round(min(newest, sum(distinct for _, distinct in sizes)) * rates.alone)
    whole = older // (MAX_DEPTH + 1)
    near = ((older - whole) * rates.near + whole * rates.far(MAX_DEPTH // 2)) / older
    return round(newest * rates.alone + rest * near)


def _size(cache: Path, key: ObjectKey) -> int | None:
    try:
        return object_path(cache, *key).stat().st_size
    except OSError:
        return None


def _version(
    cache: Path, key: ObjectKey, size: int, digests: DigestCache, seen: set[bytes], notes: list[str]
) -> _Version:
    path = object_path(cache, *key)
    distinct = size
    try:
        with FileSource(path) as source:
            checkpoint = read_checkpoint(source) if may_be_checkpoint(source) else None
        if checkpoint is not None and checkpoint.tensors:
            known = digests_of(path, digests, weights=True, tensors=True).tensors
            if known is not None:
                distinct = size - storage_bytes(checkpoint.tensors)
                for storage, digest in {tensor.storage: known[tensor.name] for tensor in checkpoint.tensors}.items():
                    if digest not in seen:
                        seen.add(digest)
                        distinct += storage.nbytes
    except (OSError, HoldfastError) as error:
        notes.append(f"{key[1]}: its tensors are not known: {error}")
    return _Version(size, max(0, distinct), lambda: FileSource(path))


def _rates(chain: Sequence[_Version], path: str, notes: list[str]) -> Rates | None:
    """Sample a path's versions; None where nothing of it can be read."""
    try:
        alone = sample_pair(chain[-1].open, None, blocks=BLOCKS_A_PAIR)
        places = _spread(range(1, len(chain)), PAIRS_A_PATH)
        near = [sample_pair(chain[place].open, chain[place - 1].open, blocks=BLOCKS_A_PAIR) for place in places]
        far = None
        distance = min(FAR, len(chain) - 1)
        if distance > 1:
            far = sample_pair(chain[-1].open, chain[-1 - distance].open, blocks=BLOCKS_A_PAIR)
    except (OSError, HoldfastError) as error:
        notes.append(f"{path}: not sampled: {error}")
        return None
    changed = [sample for sample in near if sample.changed]
    ratio = fmean(sample.ratio for sample in changed) if changed else alone.ratio
    growth = max(0.0, (far.ratio - ratio) / math.log2(distance)) if far is not None and far.changed else 0.0
    samples: list[Sample] = [alone, *near, *([far] if far is not None else [])]
    return Rates(
        alone=alone.ratio,
        near=min(ratio, alone.ratio) if changed else alone.ratio,
        growth=growth,
        same=fmean(sample.same for sample in near) if near else 0.0,
        ratios=tuple(block.stored / block.nbytes for sample in (near or [alone]) for block in sample.changed),
        blocks=sum(len(sample.blocks) for sample in samples),
    )


def _spread(places: Sequence[int], count: int) -> list[int]:
    if len(places) <= count:
        return list(places)
    return [places[(2 * step + 1) * len(places) // (2 * count)] for step in range(count)]


def _typical(rates: Iterable[Rates]) -> Rates:
    listed = list(rates)
    if not listed:
        return Rates(1.0, 1.0, 0.0, 0.0)
    return Rates(
        alone=fmean(rate.alone for rate in listed),
        near=fmean(rate.near for rate in listed),
        growth=fmean(rate.growth for rate in listed),
        same=fmean(rate.same for rate in listed),
    )


def _told(path: str, versions: int, chain: Sequence[_Version], rates: Rates | None, other: Rates) -> PathHistory:
    used = rates or other
    sizes = [(version.size, version.distinct) for version in chain]
    return PathHistory(
        path=path,
        versions=versions,
        here=len(chain),
        raw_bytes=sum(version.size for version in chain),
        distinct_bytes=sum(version.distinct for version in chain),
        pushed=pushed_bytes(sizes, used),
        repacked=repacked_bytes(sizes, used),
        blocks=used.blocks,
        spread=round(stdev(used.ratios), 4) if len(used.ratios) > 1 else 0.0,
    )
