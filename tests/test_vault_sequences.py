"""Random sequences of pushes, collections, crashes and leaps of the clock: nothing that is needed is ever lost."""

from collections import Counter

import pytest

from vault_world import STEPS, Collector, World

# test_vault_sequences_more has the other half, for another process
SEEDS = 1000


def run_many(first: int, count: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(first, first + count):
        world = World(seed, Collector())
        world.run(STEPS)
        counts.update(world.counts)
    print(f"{count} sequences: {dict(counts)}")
    return counts


def test_nothing_is_lost_in_many_sequences() -> None:
    counts = run_many(0, SEEDS)
    names = ("push", "unroot", "collect", "settle", "purge", "stopped", "failed", "killed", "revoked", "named again")
    assert min(counts[name] for name in names) > SEEDS / 20, counts


@pytest.mark.soak
def test_nothing_is_lost_in_very_many_sequences() -> None:
    run_many(10_000, 20 * SEEDS)
