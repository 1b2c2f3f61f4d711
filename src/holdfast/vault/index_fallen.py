"""Which blobs of a vault cannot be built upon, since what they hang from is condemned or lost."""

from collections.abc import Sequence

import numpy as np

from holdfast.vault.columns import Array
from holdfast.vault.index_runs import Run
from holdfast.vault.listing import rows_as_bytes

NONE, LOST = -1, -2


def fallen(runs: Sequence[Run], counted: Array) -> frozenset[bytes]:
    """Blobs none of whose places can be built upon, though they have some.

    A place can, if it has no base, or one that has a place and is not fallen itself.

    Args:
        runs: of the index.
        counted: whether places in a pack do, by its number; bool. It takes some 40 bytes of memory a place.
    """
    starts = np.cumsum([0, *(run.rows for run in runs)]).tolist()
    blob = _blobs(runs, starts)
    base = np.concatenate([np.empty(0, np.int64), *(_bases(runs, starts, blob, number) for number in range(len(runs)))])
    usable = np.concatenate([np.empty(0, bool), *(counted[run.records["pack"]] for run in runs)])
    there = _marked(blob[usable], len(blob))
    down = np.zeros(len(blob), bool)
    while True:
        upon = np.maximum(base, 0)
        fine = usable & ((base == NONE) | ((base >= 0) & there[upon] & ~down[upon]))
        further = there & ~_marked(blob[fine], len(blob))
        if np.array_equal(further, down):
            break
        down = further
    found: list[bytes] = []
    for run, start in zip(runs, starts, strict=False):
        found += rows_as_bytes(run.ids(np.flatnonzero(down[start : start + run.rows])))
    return frozenset(found)


def _blobs(runs: Sequence[Run], starts: Sequence[int]) -> Array:
    """For each place of all runs the first one of the same blob."""
    blob = np.arange(starts[-1])
    for number, (run, start) in enumerate(zip(runs, starts, strict=False)):
        tails = run.records["tail"]
        again = np.flatnonzero(run.head[1:] == run.head[:-1]) + 1
        again = again[(tails[again] == tails[again - 1]).all(axis=1)]
        own = blob[start : start + run.rows]
        own[again] = 0
        np.maximum.accumulate(own, out=own)
        for other, first in zip(runs[:number], starts, strict=False):
            which, rows = other.search(run.ids(np.arange(run.rows)))
            own[which] = blob[first + rows]
    return blob


def _bases(runs: Sequence[Run], starts: Sequence[int], blob: Array, number: int) -> Array:
    """For each place of a run the first one of its base."""
    run = runs[number]
    reference = run.base.astype(np.int64) - 1
    foreign = np.full(len(run.foreign), LOST)
    for other, first in zip(runs, starts, strict=False):
        which, rows = other.search(run.foreign)
        foreign[which] = blob[first + rows]
    base = np.full(run.rows, NONE)
    own, beyond = (reference >= 0) & (reference < run.rows), reference >= run.rows
    base[own] = blob[starts[number] + reference[own]]
    base[beyond] = foreign[reference[beyond] - run.rows]
    return base


def _marked(rows: Array, count: int) -> Array:
    marks = np.zeros(count, bool)
    marks[rows] = True
    return marks
