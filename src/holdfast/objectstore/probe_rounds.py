"""Rounds of put, head, get, range, list and delete with the data compared; and how fast much of it goes."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.objectstore.bucket import PART_BYTES
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.probe import Trial
from holdfast.objectstore.store import ObjectStore

ROUND_BYTES = 16 * 1024
PARTS_BYTES = 2 * PART_BYTES + 1_000_003  # two parts that are as long, and a shorter one
LEVELS = (1, 2, 4, 8, 16)
HELD_BYTES = 512 * 1024 * 1024  # no more is in memory at once
CELL_SECONDS = 20.0  # one size at one number of jobs, in one direction
FIRST_BYTES_PER_SECOND = 50e6  # what is assumed before anything was measured
ENOUGH = 0.9  # fewer jobs that reach this share of the fastest are as good


@dataclass(frozen=True)
class Speed:
    """How fast objects of one size go with so many at a time.

    Attributes:
        size: of each object, in bytes.
        jobs: at a time.
        objects: how many.
        up, down: bytes a second.
    """

    size: int
    jobs: int
    objects: int
    up: float
    down: float


def run_rounds(trial: Trial, store: ObjectStore, rounds: int, progress: Callable[[int, int], object]) -> None:
    """Write, look at, read and delete an object of its own in each round, and compare every byte.

    Args:
        trial: takes the times.
        store: the remote.
        rounds: how many.
        progress: is told how many are done, of how many.

    Raises:
        IntegrityError: the store gave other bytes than it was given, or lists what is not there.
        StoreError: it refused, or gave no answer.
        StoppedError: the trial was interrupted.
    """
    for number in range(rounds):
        progress(number, rounds)
        data = os.urandom(ROUND_BYTES)
        folder = trial.key(f"round-{number:04d}")
        key = f"{folder}/object"
        trial.ask("put", lambda: store.put(key, data), key=key, up=len(data), timed=True)  # noqa: B023 - called at once
        info = trial.ask("head", lambda: store.head(key), timed=True)  # noqa: B023
        if info.size != len(data):
            raise IntegrityError(f"{key} has {info.size} bytes, where {len(data)} were written")
        if trial.ask("get", lambda: store.get(key), down=len(data), timed=True) != data:  # noqa: B023
            raise IntegrityError(f"{key} was read with other bytes than were written")
        start, count = 1000 + number, 4096
        part = trial.ask("range", lambda: store.get_range(key, start, count), down=count, timed=True)  # noqa: B023
        if part != data[start : start + count]:
            raise IntegrityError(f"{key} was read by range with other bytes than were written")
        listed = trial.ask("list", lambda: list(store.list_objects(folder)), timed=True)  # noqa: B023
        if [(item.key, item.size) for item in listed] != [(key, len(data))]:
            raise IntegrityError(f"the listing of {folder} does not show what was just written")
        trial.ask("delete", lambda: store.delete(key), timed=True)  # noqa: B023
        if trial.ask("list", lambda: list(store.list_objects(folder))):  # noqa: B023
            raise IntegrityError(f"{key} is still listed after it was deleted")
    progress(rounds, rounds)


def measure_speeds(
    trial: Trial,
    store: ObjectStore,
    sizes: Sequence[int],
    progress: Callable[[int, int], object],
    *,
    cell_seconds: float = CELL_SECONDS,
) -> tuple[list[Speed], list[int]]:
    """How fast objects go up and down by size and number at a time; and the sizes that would have taken too long.

    More at a time are tried while that is faster and takes no longer than ``cell_seconds``.

    Raises:
        IntegrityError: the store gave other bytes than it was given.
        StoreError: it refused, or gave no answer.
        StoppedError: the trial was interrupted.
    """
    found: list[Speed] = []
    left_out: list[int] = []
    rate = FIRST_BYTES_PER_SECOND
    for place, size in enumerate(sorted(sizes)):
        # what a megabyte took says what sixty-four will; what a kilobyte took says nothing but the latency
        if size / rate > cell_seconds:
            left_out.append(size)
            continue
        best = 0.0
        for jobs in LEVELS:
            if jobs > 1 and (jobs * min(size, 2 * PART_BYTES) > HELD_BYTES or jobs * size / best > cell_seconds):
                break
            progress(place, len(sizes))
            speed = _measure(trial, store, size, jobs)
            found.append(speed)
            slower = min(speed.up, speed.down)
            if slower < best * 1.05:
                break
            best = slower
        if size >= 256 * 1024:
            rate = best
    progress(len(sizes), len(sizes))
    return found, left_out


def best_jobs(speeds: Iterable[Speed]) -> int | None:
    """The number at a time that is worth it, of the largest size that several were tried with; None if of none."""
    by_size: dict[int, list[Speed]] = {}
    for speed in speeds:
        by_size.setdefault(speed.size, []).append(speed)
    tried = [size for size, cells in by_size.items() if len(cells) > 1]
    if not tried:
        return None
    # most of what DVC moves is small files beside few large ones: the middle one of the sizes
    cells = by_size[sorted(tried)[len(tried) // 2]]
    fastest = max(min(cell.up, cell.down) for cell in cells)
    return min(cell.jobs for cell in cells if min(cell.up, cell.down) >= ENOUGH * fastest)


def try_parts(trial: Trial, store: ObjectStore) -> int:
    """Send a file in parts that are all as long but the last, and read it again; its size in bytes.

    Raises:
        IntegrityError: other bytes came back.
        StoreError: the store refused, or gave no answer.
    """
    size = PARTS_BYTES
    data = os.urandom(size)
    key = trial.key("parts")
    with tempfile.TemporaryDirectory(prefix="holdfast-doctor-") as folder:
        path = Path(folder, "parts")
        path.write_bytes(data)
        trial.ask("part", lambda: store.put_file(key, path), key=key, up=size)
    trial.requests["part"] += 4  # three parts, the beginning and the end are five requests
    if _digest(trial, store, key, size) != hashlib.blake2b(data).hexdigest():
        raise IntegrityError(f"{key}, sent in parts, was read with other bytes")
    return size


def try_creates(trial: Trial, store: ObjectStore, writers: int = 4) -> bool:
    """Let several create one object at once; whether exactly one did, and what is there is its.

    Raises:
        StoreError: the store refused, or gave no answer.
    """
    key = trial.key("created")

    def create(number: int) -> bool:
        return trial.ask("put", lambda: store.put_if_absent(key, b"writer %d" % number), key=key)

    created = list(concurrently(create, range(writers), writers))
    if sum(created) != 1:
        return False
    there: bytes = trial.ask("get", lambda: store.get(key))
    return there == b"writer %d" % created.index(True) and not create(writers)


def _measure(trial: Trial, store: ObjectStore, size: int, jobs: int) -> Speed:
    count = max(jobs * 2, 8) if size < 256 * 1024 else max(jobs * 2, 4) if size < PART_BYTES else jobs
    data = os.urandom(size)
    wanted = hashlib.blake2b(data).hexdigest()
    keys = [trial.key(f"speed-{size}-{jobs}/{number:03d}") for number in range(count)]

    def send(key: str) -> None:
        trial.ask("put", lambda: store.put(key, data), key=key, up=size)

    def read(key: str) -> None:
        if _digest(trial, store, key, size) != wanted:
            raise IntegrityError(f"{key} was read with other bytes than were written")

    up = _seconds(lambda: list(concurrently(send, keys, jobs)))
    down = _seconds(lambda: list(concurrently(read, keys, jobs)))
    trial.ask("delete", lambda: store.delete_many(keys))
    return Speed(size, jobs, count, count * size / up, count * size / down)


def _digest(trial: Trial, store: ObjectStore, key: str, size: int) -> str:
    """Of an object's bytes, which are never all in memory."""
    digest = hashlib.blake2b()
    for start in range(0, size, PART_BYTES):
        count = min(PART_BYTES, size - start)
        # one request for what one request holds
        verb = "get" if count == size else "range"
        digest.update(
            trial.ask(verb, lambda: store.get_range(key, start, count), down=count)  # noqa: B023 - called at once
        )
    return digest.hexdigest()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return max(time.perf_counter() - start, 1e-6)


def refusal(error: HoldfastError) -> str:
    """What a store said, as a sentence's end: the message without the name that it begins with."""
    return error.message.partition(": ")[2] or error.message
