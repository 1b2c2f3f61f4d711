"""How long `holdfast sources verify` takes over 3,600 sources in 5 domains, 40 of which have a fault, of 8 kinds.

    python benchmarks/sources_verify.py [--rounds 7]

Whole processes, start-up included: seconds on processors, which other work on the machine changes less, and on the
clock; `holdfast version`, which is start-up and nothing else, in turn with them. Nothing is remembered from one run to
the next. Each has to find all faults and nothing else. Writes benchmarks/results/sources_verify.json. Goal: 2 s on
processors.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results
from test_data_sources_verify import DOMAINS, SOURCES, make_entries, plant, run_counted, track_all, write_catalogue
from worlds import World, make_repository

GOAL = 2.0
TRACKED = 20  # sources of each domain that DVC tracks


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after one that is not counted")
    options = reducible(parser, rounds=2)
    times: dict[str, list[tuple[float, float]]] = {"verify": [], "start-up": []}
    with tempfile.TemporaryDirectory() as folder:
        world = make_repository(Path(folder))
        entries = make_entries(tracked=TRACKED)
        track_all(world, entries)
        faults = plant(entries, random.Random(0))
        write_catalogue(world.root, entries)
        for _ in range(1 + options.rounds):
            times["verify"].append(verify(world, len(faults)))
            times["start-up"].append(timed(world, "version")[:2])
    measured = {}
    for name, pairs in times.items():
        measured[f"{name}, on processors"] = quantity([seconds for seconds, _ in pairs[1:]], "s")
        measured[name] = quantity([seconds for _, seconds in pairs[1:]], "s")
    slowest = max(seconds for seconds, _ in times["verify"][1:])
    goals = {"slowest verify, seconds on processors": judge(round(slowest, 3), "≤", GOAL)}
    write_results(
        "sources_verify",
        {
            "what": "holdfast sources verify --json, whole processes",
            "machine": machine(),
            "versions": versions("pyyaml"),
            "sources": SOURCES,
            "domains": len(DOMAINS),
            "faults": len(faults),
            "measured": measured,
            "goals": goals,
        },
        options,
    )
    for name, figures in measured.items():
        print(f"{name:24} {figures['median']:.2f} s")
    print_goals(goals)


def verify(world: World, faults: int) -> tuple[float, float]:
    """Seconds on processors and on the clock of one verification, which has to find them all."""
    processor, clock, text = timed(world, "sources", "verify", "--json", code=1)
    found = len(json.loads(text)["findings"])
    assert found == faults, f"{found} found of {faults}"
    return processor, clock


def timed(world: World, *arguments: str, code: int = 0) -> tuple[float, float, str]:
    """Seconds on processors and on the clock of a command, and what it printed."""
    start = time.perf_counter()
    done, processor = run_counted(world, *arguments)
    clock = time.perf_counter() - start
    assert done.returncode == code, done.stderr
    return processor, clock, done.stdout


if __name__ == "__main__":
    main()
