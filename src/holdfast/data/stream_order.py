"""In which order samples come, and who gets which.

An epoch has one order of all samples, which follows from seed and epoch alone. It is dealt in blocks to the ranks, and
each rank's share in blocks to its workers. With blocks of one batch a rank sees the same samples in the same order
however many workers it has, since a DataLoader takes a batch from each worker in turn.

What was taken is written down as how it was dealt and how far each worker came. So one who goes on later takes those
samples out of the order and deals the rest, to as many ranks and workers as there are then.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dealing:
    """How an order is dealt.

    Attributes:
        world: ranks.
        workers: of each rank.
        batch: samples of a batch.
        block: samples that are dealt at a time, whole batches.
        window: samples among which a worker mixes what it was dealt; 1 to leave it as it is.
        drop_last: whether the ranks get whole batches alone, all as many.
    """

    world: int
    workers: int
    batch: int
    block: int
    window: int = 1
    drop_last: bool = False


@dataclass(frozen=True)
class Taken:
    """What was taken of an order.

    Attributes:
        dealing: how it was dealt.
        samples: how many each worker has given, on every rank alike; one that has no more of them has given all.
    """

    dealing: Dealing
    samples: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """It in plain values."""
        return {**vars(self.dealing), "samples": list(self.samples)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Taken":
        """What `as_json` gave.

        Raises:
            TypeError, KeyError: it is not.
        """
        rest = dict(values)
        samples = tuple(int(count) for count in rest.pop("samples"))
        return Taken(Dealing(**rest), samples)


def epoch_key(seed: int, epoch: int) -> int:
    """What shuffles an epoch: 64 bits."""
    return int.from_bytes(hashlib.sha256(f"holdfast stream {seed} {epoch}".encode()).digest()[:8], "little")


def epoch_order(count: int, key: int | None, page_of: Indices | None = None) -> Indices:
    """The samples of an epoch, each once.

    Args:
        count: how many there are.
        key: what shuffles them; None to leave them as they are.
        page_of: for each sample its page, ascending: pages are shuffled, and what is in them keeps its order.
    """
    samples: Indices = np.arange(count, dtype=np.int64)
    if key is None:
        return samples
    order: Indices = np.argsort(_scattered(samples if page_of is None else page_of, key), kind="stable")
    return order


def rank_share(order: Indices, rank: int, dealing: Dealing) -> Indices:
    """What of an order is a rank's, in its order. What is left over after whole rounds is shared evenly."""
    dealt = len(order) - len(order) % (dealing.world * dealing.block)
    blocks = order[:dealt].reshape(-1, dealing.world, dealing.block)[:, rank].reshape(-1)
    rest = order[dealt:]
    if dealing.drop_last:
        rest = rest[: len(rest) - len(rest) % (dealing.world * dealing.batch)]
    least, more = divmod(len(rest), dealing.world)
    start = rank * least + min(rank, more)
    return np.concatenate([blocks, rest[start : start + least + (rank < more)]])


def share_size(count: int, rank: int, dealing: Dealing) -> int:
    """How many samples are a rank's, of ``count``."""
    rounds, rest = divmod(count, dealing.world * dealing.block)
    if dealing.drop_last:
        rest -= rest % (dealing.world * dealing.batch)
    return rounds * dealing.block + rest // dealing.world + (rank < rest % dealing.world)


def lane(share: Indices, worker: int, dealing: Dealing, key: int | None) -> Indices:
    """What of a rank's share is a worker's, in the order in which it gives it."""
    places = np.arange(len(share), dtype=np.int64)
    mine: Indices = share[(places // dealing.block) % dealing.workers == worker]
    if key is None or dealing.window <= 1:
        return mine
    # another key than that of the order, which would sort a window as the order is sorted already
    mixed = np.lexsort((_scattered(mine, key ^ _GOLDEN), np.arange(len(mine)) // dealing.window))
    return mine.take(mixed)


def without(order: Indices, taken: Sequence[Taken], key: int | None) -> Indices:
    """What is left of an order."""
    for one in taken:
        given = [
            lane(rank_share(order, rank, one.dealing), worker, one.dealing, key)[: one.samples[worker]]
            for rank in range(one.dealing.world)
            for worker in range(one.dealing.workers)
        ]
        left = np.ones(int(order.max(initial=-1)) + 1, dtype=bool)
        left[np.concatenate(given)] = False
        order = order[left[order]]
    return order


def lane_sizes(size: int, dealing: Dealing) -> list[int]:
    """How many samples each worker has of a rank's share of ``size``."""
    rounds, rest = divmod(size, dealing.block * dealing.workers)
    return [
        rounds * dealing.block + min(max(rest - worker * dealing.block, 0), dealing.block)
        for worker in range(dealing.workers)
    ]


def given_by(batches: int, sizes: Sequence[int], batch: int) -> tuple[int, ...]:
    """How many samples each worker has given after so many batches, which were taken from one worker after the other.

    A last batch counts as a whole one: on another rank it may have a sample more.

    Args:
        batches: how many.
        sizes: samples that each worker has.
        batch: samples of a batch.
    """
    has = [-(-size // batch) for size in sizes]
    given = [0] * len(sizes)
    while batches > 0:
        active = [worker for worker, count in enumerate(has) if given[worker] < count]
        if not active:
            break
        # whole rounds at once, as long as all of them have more
        rounds = min(batches // len(active), min(has[worker] - given[worker] for worker in active))
        for worker in active if rounds else active[:batches]:
            given[worker] += max(rounds, 1)
        batches -= rounds * len(active) if rounds else len(active[:batches])
    return tuple(count * batch for count in given)


_GOLDEN = 0x9E3779B97F4A7C15


def _scattered(numbers: Indices, key: int) -> npt.NDArray[np.uint64]:
    """A number of 64 bits for each, as if drawn; the same for ever and everywhere, unlike those of a library.

    The finalizer of SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014.
    """
    mixed: npt.NDArray[np.uint64] = numbers.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key & 0xFFFFFFFFFFFFFFFF)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
