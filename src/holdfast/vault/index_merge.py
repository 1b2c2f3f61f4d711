"""Several runs of the local index as one, a part of the ids at a time."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from mmap import ACCESS_READ, mmap
from typing import BinaryIO

import numpy as np

from holdfast.vault.columns import Array
from holdfast.vault.index_runs import HEADER, MAGIC, RECORD, Run, in_order, run_bytes

# places in memory at a time; besides, 8 bytes of each are
PART_ROWS = 500_000


def merge(runs: Sequence[Run], live: Array, out: BinaryIO) -> None:
    """Write a run that has the places of several ones.

    Args:
        runs: these, in memory or files.
        live: whether a pack is still there, by its number; bool. Places in others are left out.
        out: an empty file to read and write, or a `BytesIO`.
    """
    rows = 0
    for run in runs:
        for span in _spans(run):
            rows += int(np.count_nonzero(live[run.records["pack"][span]]))
            run.release()
    heads, bases = HEADER.size, HEADER.size + 8 * rows
    records, end = bases + 4 * rows, run_bytes(rows, 0)
    # of each run's places: 1 + the new row, 0 for those that are left out
    moved = [np.zeros(run.rows, np.uint32) for run in runs]
    written = 0
    for spans in _parts(runs):
        kept = [
            np.flatnonzero(live[run.records["pack"][span]]) + span.start for run, span in zip(runs, spans, strict=True)
        ]
        head = np.concatenate([run.head[some] for run, some in zip(runs, kept, strict=True)])
        places = np.concatenate([run.records[some] for run, some in zip(runs, kept, strict=True)])
        order = in_order(head, places)
        _write(out, heads + 8 * written, head[order])
        _write(out, records + RECORD.itemsize * written, places[order])
        new = np.empty(len(order), np.uint32)
        new[order] = np.arange(written + 1, written + 1 + len(order))
        for target, some in zip(moved, kept, strict=True):
            target[some], new = new[: len(some)], new[len(some) :]
        written += len(order)
        for run in runs:
            run.release()
    base, missing, ids = _bases(runs, moved, rows)
    _write(out, bases, base)
    _write(out, 0, np.frombuffer(HEADER.pack(MAGIC, rows, 0), np.uint8))
    others = np.empty((0, 32), np.uint8)
    if len(missing):
        references, others = _references(opened(out), ids)
        base[missing] = references
        _write(out, bases, base)
        _write(out, end, others)
        _write(out, 0, np.frombuffer(HEADER.pack(MAGIC, rows, len(others)), np.uint8))
    out.flush()


def opened(out: BinaryIO) -> Run:
    """The run that was written to a file."""
    out.flush()
    return Run.read(out.getvalue() if isinstance(out, BytesIO) else mmap(out.fileno(), 0, access=ACCESS_READ))


def _parts(runs: Sequence[Run]) -> list[list[slice]]:
    """Rows of each run whose ids are between the same two bounds; ids are as good as random."""
    parts = max(-(-sum(run.rows for run in runs) // PART_ROWS), 1)
    bounds = np.array([(part << 64) // parts for part in range(1, parts)], np.uint64)
    ends = [[0, *np.searchsorted(run.head, bounds).tolist(), run.rows] for run in runs]
    return [[slice(each[part], each[part + 1]) for each in ends] for part in range(parts)]


def _spans(run: Run) -> Iterator[slice]:
    """The rows of a run, a part at a time."""
    for first in range(0, run.rows, PART_ROWS):
        yield slice(first, min(first + PART_ROWS, run.rows))


def _bases(runs: Sequence[Run], moved: Sequence[Array], rows: int) -> tuple[Array, Array, Array]:
    """The bases of the new places; and of those that are in no run by the same row: the places, and the bases' ids."""
    base = np.zeros(rows, np.uint32)
    missing, ids = [np.empty(0, np.int64)], [np.empty((0, 32), np.uint8)]
    for run, to in zip(runs, moved, strict=True):
        for span in _spans(run):
            some = np.flatnonzero((to[span] > 0) & (run.base[span] > 0)) + span.start
            row, reference = to[some].astype(np.int64) - 1, run.base[some].astype(np.int64) - 1
            own = reference < run.rows
            base[row[own]] = to[reference[own]]
            gone = np.flatnonzero(own & (base[row] == 0))
            for among, names in ((gone, run.ids(reference[gone])), (~own, run.foreign[reference[~own] - run.rows])):
                missing.append(row[among])
                ids.append(names)
            run.release()
    return base, np.concatenate(missing), np.concatenate(ids)


def _references(run: Run, ids: Array) -> tuple[Array, Array]:
    """Ids as references of a run, and those of them that are foreign to it: uint8 of shape (foreign ids, 32)."""
    names, numbers = np.unique(np.ascontiguousarray(ids).view("S32").reshape(-1), return_inverse=True)
    unique = np.frombuffer(names.tobytes(), np.uint8).reshape(-1, 32)
    which, rows = run.search(unique)
    reference = np.zeros(len(unique), np.uint32)
    reference[which] = rows + 1
    foreign = reference == 0
    reference[foreign] = 1 + run.rows + np.arange(np.count_nonzero(foreign))
    return reference[numbers.reshape(-1)], unique[foreign]


def _write(out: BinaryIO, place: int, part: Array) -> None:
    out.seek(place)
    out.write(np.ascontiguousarray(part).tobytes())
