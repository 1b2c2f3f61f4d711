"""What every benchmark notes beside its figures, and where it writes them."""

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from math import log, sqrt
from pathlib import Path
from statistics import fmean, linear_regression, median
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
NOT_INSTALLED = "not installed"
SLOPE = ("fit", "error", "last")

# How every benchmark takes its sizes, so that `make bench` can run all of them in minutes, and `make bench-full` at the
# goals' own sizes:
#
#     parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
#     parser.add_argument("--rows", type=int, default=10_000_000, metavar="N", help="rows of the table")
#     parser.add_argument("--rounds", type=int, default=5, metavar="N")
#     arguments = reducible(parser, rows=1_000_000, rounds=3)
#     …
#     write_results("query_scale", results, arguments)
#
# `reducible` adds `--reduced` and `--results`, and parses. Under `--reduced` the options named take the values given
# here instead of their defaults; one that the command line names keeps what it says there. `write_results` writes which
# sizes were measured into the results' `scale`, and those of a reduced run into results/reduced/, so that they never
# overwrite the others; `--results FOLDER` writes elsewhere, as a trial does.
#
# All results have `what`, `machine`, `versions`, `scale` and `goals` (as of `judge`, by what each is about), and
# `measured`: quantities as of `quantity`, by name. What else a script notes stands beside.

Verdict = dict[str, Any]


def reducible(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None, **reduced: object
) -> argparse.Namespace:
    """Parse a benchmark's options, with smaller sizes under ``--reduced``.

    Args:
        parser: All options of the benchmark, each with the goals' own size as its default.
        argv: The command line; this process's own if it is None.
        reduced: The values of options under ``--reduced``, by destination.

    Returns:
        The options, ``reduced`` among them, and, where it is not set, ``changed``: those that are not their defaults.

    Raises:
        ValueError: `reduced` names an option that `parser` has not.
    """
    parser.add_argument("--reduced", action="store_true", help="smaller sizes; results go to results/reduced")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are written")
    known = {action.dest for action in parser._actions}
    if unknown := reduced.keys() - known:
        raise ValueError(f"No such options: {', '.join(sorted(unknown))}")
    given = parser.parse_args(argv)
    if given.reduced:
        parser.set_defaults(**reduced)
        return parser.parse_args(argv)
    # that not the goals' own sizes were measured is noted; which part of them, and how often, is no size
    no_sizes = {"only", "rounds", "results", "child"}
    given.changed = [
        option
        for option, value in vars(given).items()
        if option not in no_sizes and not isinstance(value, Path) and value != parser.get_default(option)
    ]
    return given


def machine() -> dict[str, Any]:
    """Processor, number of processors, system."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, Holdfast and the packages named, or that one is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in ("holdfast", *packages)}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def write_results(name: str, results: dict[str, Any], arguments: argparse.Namespace | None = None) -> None:
    """Write ``benchmarks/results/<name>.json``, that of a reduced run to ``results/reduced``.

    Args:
        name: The script's name, without its suffix.
        results: What was measured.
        arguments: The options as of `reducible`: their numbers and words become the results' `scale`.
    """
    folder = RESULTS
    if arguments is not None:
        results = {**results, "scale": scale_of(arguments)}
        folder = folder_of(arguments)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


def scale_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Which sizes were measured: the options that were given a value, folders apart."""
    given = {option: value for option, value in vars(arguments).items() if value not in (None, False, [])}
    return {option: value for option, value in given.items() if not isinstance(value, Path)}


def folder_of(arguments: argparse.Namespace) -> Path:
    """Where a run's results go."""
    results = Path(arguments.results)
    return results / "reduced" if arguments.reduced else results


def read_results(name: str, arguments: argparse.Namespace | None = None) -> dict[str, Any]:
    """What `write_results` wrote the last time with these options; empty where it never did."""
    path = (RESULTS if arguments is None else folder_of(arguments)) / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def quantity(values: Sequence[float], unit: str, peers: Mapping[str, Sequence[float]] | None = None) -> dict[str, Any]:
    """What was measured in some rounds: its middle and its ends, and how it compares with peers in the same rounds.

    Args:
        values: A figure for each round.
        unit: Of the figures.
        peers: The same of others, by their names: as many figures, or fewer where a peer takes long.

    Returns:
        `unit`, `median`, `min`, `max` and `rounds`; and by name for each of the `peers` the same of its figures, and
        `ratio`, ours over theirs, of the rounds that both have.
    """
    found = {"unit": unit, **spread_of(values)}
    if peers:
        found["peers"] = {
            name: {
                **spread_of(theirs),
                "ratio": spread_of([own / other for own, other in zip(values, theirs, strict=False)]),
            }
            for name, theirs in peers.items()
        }
    return found


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most of some figures, to four digits, and how many they are."""
    return {
        "median": digits(median(values)),
        "min": digits(min(values)),
        "max": digits(max(values)),
        "rounds": len(values),
    }


def slope_of(points: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """How a quantity grows with a size: 1 is in proportion, 0 not at all.

    Args:
        points: Quantities as of `quantity`, each with a `size`, in the order of these.

    Returns:
        `fit`, the slope of the line through the logarithms of all medians by least squares, and its standard `error`;
        `last`, the slope between the last two points. None for what so few points cannot tell.
    """
    if len(points) < 2:
        return dict.fromkeys(SLOPE)
    sizes, middles = ([log(point[what]) for point in points] for what in ("size", "median"))
    line = linear_regression(sizes, middles)
    last = (middles[-1] - middles[-2]) / (sizes[-1] - sizes[-2])
    error = None
    if len(points) > 2:
        off = sum((y - line.intercept - line.slope * x) ** 2 for x, y in zip(sizes, middles, strict=True))
        spread = sum((x - fmean(sizes)) ** 2 for x in sizes)
        error = digits(sqrt(off / (len(points) - 2) / spread), 3)
    return {"fit": digits(line.slope, 3), "error": error, "last": digits(last, 3)}


def digits(figure: float, count: int = 4) -> float:
    """A figure with so many digits that count."""
    return float(f"{figure:.{count}g}")


def judge(measured: float | None, relation: Literal["≥", "≤"], goal: float) -> Verdict:
    """A goal with what was measured, if it was."""
    met = None if measured is None else (measured >= goal if relation == "≥" else measured <= goal)
    return {"goal": f"{relation} {goal:g}", "measured": measured, "met": met}


def print_goals(goals: Mapping[str, Mapping[str, Any]]) -> None:
    """Goals as of `judge`, by what they are about."""
    print()
    for what, goal in goals.items():
        measured = "–" if goal["measured"] is None else f"{goal['measured']:g}"
        verdict = {None: "not measured", True: "met", False: "not met"}[goal["met"]]
        print(f"{what:56} {measured:>10}  goal {goal['goal']:>7}: {verdict}")


def forget(path: Path) -> None:
    """Drop a file's pages from memory, which needs no privileges."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Path, buffer_bytes: int = 4 << 20) -> None:
    """Read a file and do nothing with it."""
    buffer = bytearray(buffer_bytes)
    with open(path, "rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
