"""What every benchmark notes beside its figures, and where it writes them."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, number of processors, system."""
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, Holdfast and the packages named."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("holdfast", *packages)}}


def write_results(name: str, results: dict[str, Any]) -> None:
    """Write ``benchmarks/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


def read_results(name: str) -> dict[str, Any]:
    """What `write_results` wrote the last time; empty where it never did."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def judge(measured: float | None, relation: Literal["≥", "≤"], goal: float) -> dict[str, Any]:
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
