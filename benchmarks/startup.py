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
from statistics import median

from harness import machine, versions, write_results

TOOLS = Path(sys.executable).parent
GOAL = 0.6


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="timed pairs, after one that is not counted")
    options = parser.parse_args()
    times: dict[str, list[float]] = {"holdfast": [], "dvc": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + options.rounds):
            for tool, seconds in times.items():
                seconds.append(seconds_of(tool, folder))
    ratios = [ours / theirs for ours, theirs in zip(times["holdfast"][1:], times["dvc"][1:], strict=True)]
    result = {
        "what": "wall seconds of TOOL --help, pairs in turn",
        "machine": machine(),
        "versions": versions("dvc"),
        "rounds": options.rounds,
        "median_seconds": {tool: round(median(seconds[1:]), 4) for tool, seconds in times.items()},
        "ratio": {"min": min(ratios), "median": median(ratios), "max": max(ratios)},
        "goal": GOAL,
    }
    write_results("startup", result)
    print(
        f"holdfast --help {median(times['holdfast'][1:]):.3f} s, dvc --help {median(times['dvc'][1:]):.3f} s; "
        f"ratio {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}), goal {GOAL}: "
        f"{'met' if median(ratios) <= GOAL else 'not met'}"
    )


def seconds_of(tool: str, folder: str) -> float:
    """Wall seconds of one ``TOOL --help``."""
    start = time.perf_counter()
    subprocess.run([str(TOOLS / tool), "--help"], cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
