"""How long `holdfast --help` takes, as a ratio to `dvc --help`: whole processes, in turn, in an empty folder.

    python benchmarks/startup.py [--rounds 15]

Writes benchmarks/results/startup.json. Goal: at most 0.6, aim 0.4.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results

TOOLS = Path(sys.executable).parent
GOAL = 0.6


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed pairs, after one that is not counted")
    options = reducible(parser, rounds=9)
    times: dict[str, list[float]] = {"holdfast": [], "dvc": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + options.rounds):
            for tool, seconds in times.items():
                seconds.append(seconds_of(tool, folder))
    found = quantity(times["holdfast"][1:], "s", {"dvc --help": times["dvc"][1:]})
    theirs = found["peers"]["dvc --help"]
    ratio = theirs["ratio"]
    result = {
        "what": "wall seconds of TOOL --help, pairs in turn",
        "machine": machine(),
        "versions": versions("dvc"),
        "measured": {"holdfast --help": found},
        "goals": {"holdfast --help ÷ dvc --help": judge(ratio["median"], "≤", GOAL)},
    }
    write_results("startup", result, options)
    print(f"holdfast --help {found['median']:.3f} s, dvc --help {theirs['median']:.3f} s")
    print(f"ratio {ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})")
    print_goals(result["goals"])


def seconds_of(tool: str, folder: str) -> float:
    """Wall seconds of one ``TOOL --help``."""
    start = time.perf_counter()
    subprocess.run([str(TOOLS / tool), "--help"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
