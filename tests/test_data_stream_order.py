"""The order of a stream: every sample once, whoever asks, however often one stops."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data.stream_order import (
    Dealing,
    Taken,
    epoch_key,
    epoch_order,
    given_by,
    lane,
    lane_sizes,
    rank_share,
    share_size,
    without,
)

counts = st.integers(0, 400)
small = st.integers(1, 5)


@st.composite
def dealings(draw: st.DrawFn) -> Dealing:
    batch = draw(st.integers(1, 7))
    window = draw(st.sampled_from([1, 3, 50]))
    return Dealing(draw(small), draw(small), batch, batch * draw(st.integers(1, 4)), window, draw(st.booleans()))


def lanes(order: np.ndarray, dealing: Dealing, key: int | None) -> list[list[np.ndarray]]:
    shares = [rank_share(order, rank, dealing) for rank in range(dealing.world)]
    return [[lane(share, worker, dealing, key) for worker in range(dealing.workers)] for share in shares]


@given(counts, dealings(), st.booleans(), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_all_lanes_together_have_each_sample_once(count: int, dealing: Dealing, shuffle: bool, epoch: int) -> None:
    key = epoch_key(1, epoch) if shuffle else None
    order = epoch_order(count, key)
    found = lanes(order, dealing, key)
    everything = np.sort(np.concatenate([part for rank in found for part in rank]))
    sizes = [sum(map(len, rank)) for rank in found]
    assert sizes == [share_size(count, rank, dealing) for rank in range(dealing.world)]
    for rank, size in zip(found, sizes, strict=True):
        assert [len(part) for part in rank] == lane_sizes(size, dealing)
    assert len(np.unique(everything)) == len(everything)
    if dealing.drop_last:
        assert len(set(sizes)) == 1
        assert sizes[0] % dealing.batch == 0
        assert count - len(everything) < dealing.world * dealing.batch
    else:
        assert everything.tolist() == list(range(count))
        assert max(sizes) - min(sizes) <= 1


@given(counts, st.lists(st.tuples(dealings(), st.integers(0, 40)), max_size=4), st.booleans())
@settings(max_examples=300, deadline=None)
def test_whoever_goes_on_gives_the_rest(count: int, stops: list[tuple[Dealing, int]], shuffle: bool) -> None:
    """Stopped again and again, each time with other ranks, workers and batches."""
    key = epoch_key(5, 2) if shuffle else None
    order = epoch_order(count, key)
    taken: list[Taken] = []
    seen: list[int] = []
    for dealing, batches in stops:
        left = without(order, taken, key)
        found = lanes(left, dealing, key)
        samples = given_by(batches, lane_sizes(share_size(len(left), 0, dealing), dealing), dealing.batch)
        for rank in found:
            for part, number in zip(rank, samples, strict=True):
                seen += part[:number].tolist()
        taken.append(Taken.from_json(Taken(dealing, samples).as_json()))
    seen += without(order, taken, key).tolist()
    assert sorted(seen) == list(range(count))


@given(st.integers(0, 200), dealings())
@settings(max_examples=200, deadline=None)
def test_batches_from_one_worker_after_the_other(batches: int, dealing: Dealing) -> None:
    """As a DataLoader takes them, one at a time."""
    sizes = lane_sizes(150, dealing)
    left, given_to, turn = list(sizes), [0] * len(sizes), 0
    for _ in range(batches):
        if not any(left):
            break
        while not left[turn % len(left)]:
            turn += 1
        worker = turn % len(left)
        left[worker] -= min(dealing.batch, left[worker])
        given_to[worker] += dealing.batch
        turn += 1
    assert given_by(batches, sizes, dealing.batch) == tuple(given_to)


def test_a_shuffled_order_is_mixed_and_stays_what_it_is() -> None:
    order = epoch_order(10_000, epoch_key(0, 0))
    assert sorted(order.tolist()) == list(range(10_000))
    # no neighbour stays beside its neighbour more often than chance has it
    assert np.sum(np.abs(np.diff(order)) == 1) < 10
    # first and second half of the samples are everywhere
    assert all(0.4 < np.mean(part < 5000) < 0.6 for part in np.array_split(order, 10))
    assert epoch_order(12, epoch_key(0, 0)).tolist() == FIRST
    assert epoch_order(12, epoch_key(0, 1)).tolist() != FIRST
    assert epoch_order(12, epoch_key(1, 0)).tolist() != FIRST
    assert epoch_order(12, None).tolist() == list(range(12))


FIRST = [11, 7, 10, 8, 9, 5, 4, 0, 2, 3, 1, 6]


def test_pages_stay_together_and_windows_mix_them() -> None:
    pages = np.repeat(np.arange(40), 25)
    key = epoch_key(0, 0)
    order = epoch_order(1000, key, pages)
    assert all(len(set(pages[part])) == 1 and (np.diff(part) == 1).all() for part in order.reshape(40, 25))
    assert pages[order[::25]].tolist() != list(range(40))
    dealing = Dealing(1, 2, 5, 25, window=200)
    mixed = lane(order, 0, dealing, key)
    assert sorted(mixed[:200].tolist()) == sorted(lane(order, 0, Dealing(1, 2, 5, 25), key)[:200].tolist())
    # a batch has samples of many pages
    assert np.mean([len(set(pages[batch])) for batch in mixed.reshape(-1, 5)]) > 3


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_the_trainer_sees_one_order_whatever_the_workers(workers: int) -> None:
    order = epoch_order(203, epoch_key(0, 0))
    dealing = Dealing(2, workers, 4, 4)
    share = rank_share(order, 1, dealing)
    parts = [lane(share, worker, dealing, 1).tolist() for worker in range(workers)]
    seen: list[int] = []
    while any(parts):
        for part in parts:
            seen += part[:4]
            del part[:4]
    assert seen == share.tolist()


def test_a_million_samples_are_dealt_quickly() -> None:
    start = time.process_time()
    key = epoch_key(0, 0)
    order = epoch_order(1_000_000, key)
    lane(rank_share(order, 1, Dealing(8, 4, 32, 32)), 2, Dealing(8, 4, 32, 32), key)
    assert time.process_time() - start < 3
