"""How much longer tasks take on a Dask cluster than in threads of this process, on the same machine.

    python benchmarks/executor_overhead.py [--workers N] [--seconds 0.5 0.1] [--tasks 40] [--rounds 5]

A scheduler and as many workers as there are cores, of a thread each, against as many threads. Tasks wait, as those do
that read from a bucket, or take BLAKE3 of a buffer again and again, which lets the others run. Each round times both,
in turn, first task to last result, once the workers are there. How often the buffer is hashed is set beforehand, so
that such a task takes the seconds wanted where it has a core to itself. Overhead is the ratio of the two times in a
round, less one. Goal: 15 % or less where tasks take 0.5 s. Writes benchmarks/results/executor_overhead.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from blake3 import blake3

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results
from holdfast.executor.cluster import ClusterExecutor
from holdfast.executor.executor import Executor
from holdfast.executor.local import LocalExecutor

GOAL_SECONDS, GOAL_OVERHEAD = 0.5, 0.15
BUFFER = bytes(1 << 20)
TRIAL = 50


def waiting(_number: int, seconds: float) -> str:
    """A task that waits."""
    time.sleep(seconds)
    return ""


def hashing(number: int, times: int) -> str:
    """A task that takes a core, and leaves Python's lock to others."""
    digest = blake3(number.to_bytes(8, "big"))
    for _ in range(times):
        digest.update(BUFFER)
    return digest.hexdigest()


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cores, metavar="N", help="processes, and threads")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.5, 0.1], metavar="S", help="that a task takes")
    parser.add_argument("--tasks", type=int, default=40, metavar="N", help="tasks in a round")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    options = reducible(parser, tasks=12, rounds=3)
    measured: dict[str, Any] = {}
    goals: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder), options.workers) as address:
        threads = LocalExecutor(options.workers)
        with ClusterExecutor(address) as dask:
            await_workers(dask, options.workers)
            for seconds in options.seconds:
                kinds = {
                    "waiting": partial(waiting, seconds=seconds),
                    "hashing": partial(hashing, times=times_of(seconds)),
                }
                for kind, task in kinds.items():
                    rounds = [(elapsed(dask, task, options.tasks), elapsed(threads, task, options.tasks))
                              for _ in range(options.rounds)]  # fmt: skip
                    ours, theirs = zip(*rounds, strict=True)
                    name = f"{kind} tasks of {seconds:g} s"
                    measured[name] = quantity(ours, "s", {"threads": theirs})
                    overhead = median(measured_ratio - 1 for measured_ratio in map(float.__truediv__, ours, theirs))
                    print(
                        f"{name:28} {median(ours):7.2f} s on Dask, {median(theirs):7.2f} s in threads: {overhead:+.1%}"
                    )
                    if seconds == GOAL_SECONDS:
                        goals[f"overhead of Dask, {name}"] = judge(round(overhead, 4), "≤", GOAL_OVERHEAD)
    print_goals(goals)
    results = {
        "what": "seconds from the first task to the last result on a Dask cluster of this machine, a scheduler and "
        f"{options.workers} workers of a thread each, and in as many threads; {options.tasks} tasks a round",
        "machine": machine(),
        "versions": versions("dask", "distributed", "blake3"),
        "goals": goals,
        "measured": measured,
    }
    write_results("executor_overhead", results, options)


def elapsed(executor: Executor, task: Any, count: int) -> float:
    """Seconds that some tasks take together."""
    began = time.perf_counter()
    results = list(executor.map(task, range(count)))
    ended = time.perf_counter()
    assert len(results) == count
    return ended - began


def times_of(seconds: float) -> int:
    """How often the buffer is hashed in so many seconds of a core."""
    hashing(0, TRIAL)
    began = time.process_time()
    hashing(0, TRIAL)
    return max(1, round(TRIAL * seconds / (time.process_time() - began)))


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """The address of a scheduler with some workers, which end with the ``with``."""
    place = folder / "scheduler.json"
    commands: list[Sequence[str]] = [
        ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--dashboard-address", "127.0.0.1:0",
         "--scheduler-file", str(place)),
        *[("worker", "--scheduler-file", str(place), "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny",
           "--no-dashboard", "--local-directory", str(folder))] * workers,
    ]  # fmt: skip
    # workers find the tasks of this script by its name, as its folder is where they look
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    processes: list[subprocess.Popen[bytes]] = []
    with open(folder / "log", "wb") as log:
        try:
            for command in commands:
                processes.append(
                    subprocess.Popen([sys.executable, "-m", "dask", *command], env=environment, stdout=log, stderr=log)
                )
                while not place.exists():
                    if processes[0].poll() is not None:
                        raise RuntimeError((folder / "log").read_text())
                    time.sleep(0.05)
            yield address_in(place)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def address_in(place: Path) -> str:
    """The address that a scheduler wrote."""
    while True:
        try:
            return str(json.loads(place.read_text())["address"])
        except ValueError:  # it is being written
            time.sleep(0.01)


def await_workers(dask: ClusterExecutor, count: int) -> None:
    """Wait until all workers are there, and have what they import once."""
    while dask.ahead() < 2 * count:
        time.sleep(0.1)
    list(dask.map(partial(hashing, times=1), range(8 * count)))


if __name__ == "__main__":
    main()
