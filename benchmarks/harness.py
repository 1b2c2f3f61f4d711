"""What every benchmark notes beside its figures, and where it writes them."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
