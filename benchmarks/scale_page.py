"""The tables of docs/explanation/scale.md: what index_scale.py measured and push_simulation.py counted.

    python benchmarks/scale_page.py

Both scripts call it when they have written their results.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import RESULTS, read_results
from report_text import plain

PAGE = Path(__file__).parent.parent / "docs/explanation/scale.md"
BLOCK = re.compile(r"(<!-- begin (?P<name>[a-z-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
POWERS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
WAYS = {
    "first": "now, the first time",
    "cached": "now, 100 pushes later",
    "partitions": "partitions",
    "filters": "filters",
    "lineage": "lineage and filters",
}


def main() -> None:
    """Write the tables into the page."""
    PAGE.write_text(filled(PAGE.read_text()))


def update(options: argparse.Namespace) -> None:
    """The same, where results were written that are the page's."""
    if options.results == RESULTS and not options.reduced:
        main()


def filled(page: str) -> str:
    """The page with its tables as the results give them."""
    scale, simulated = read_results("index_scale"), read_results("push_simulation")
    blocks = {
        "index": lambda: index_table(scale),
        "vaults": lambda: vaults_table(simulated),
        "pushes": lambda: pushes_table(simulated),
    }
    return BLOCK.sub(lambda found: found[1] + "".join(f"{line}\n" for line in blocks[found["name"]]()) + found[3], page)


def index_table(results: dict[str, Any]) -> Iterator[str]:
    """What was measured, by how many blobs; nothing where nothing was."""
    if not results:
        return
    by_blobs = results["by blobs"]
    yield f"| blobs | {' | '.join(f'{float(size):,.0f}' for size in by_blobs)} | slope |"
    yield f"|---|{'---:|' * (len(by_blobs) + 1)}"
    rows = {
        "cold": "built from nothing, processor seconds",
        "cold, peak memory": "peak memory of that, MB",
        "index on disk": "here, bytes a blob",
        "segments": "segments, bytes a blob",
        "open": "opened again, s",
        "one more push": "one more push of others, s",
        "10,000 files": "10,000 files looked up, s",
        "100,000 ids": "100,000 blobs looked up, s",
        "mark, peak memory": "a collector that marks, MB",
    }
    for what, title in rows.items():
        figures = [plain(each[what]["median"]) if what in each else "–" for each in by_blobs.values()]
        slope = results["slopes"].get(what)
        yield f"| {title} | {' | '.join(figures)} | {'–' if slope is None else f'{slope:.2f}'} |"


def vaults_table(results: dict[str, Any]) -> Iterator[str]:
    """Vaults on paper."""
    vaults = results["vaults"]
    yield f"| stored, checkpoints | {' | '.join(vaults)} |"
    yield f"|---|{'---:|' * len(vaults)}"
    names = ["blobs", "packs", "segments", "segment bytes", "local bytes of places", "filter bytes"]
    for name in names:
        yield f"| {name} | {' | '.join(short(vault[name]) for vault in vaults.values())} |"
    for name, title in (
        ("dollars a month", "$ a month"),
        ("dollars of a first clone", "$ of requests of a first clone"),
    ):
        yield f"| {title} | {' | '.join(plain(vault[name]) for vault in vaults.values())} |"


def pushes_table(results: dict[str, Any]) -> Iterator[str]:
    """Requests and bytes of a push half of whose blobs the vault has."""
    yield f"| stored, checkpoints | {' | '.join(WAYS.values())} |"
    yield f"|---|{'---:|' * len(WAYS)}"
    for name, found in results["pushes"].items():
        ways = found["50%"]
        figures = [f"{ways[way]['requests']:,.0f}; {short(ways[way]['bytes'])}B" for way in WAYS]
        yield f"| {name} | {' | '.join(figures)} |"


def short(figure: float) -> str:
    """A figure in three digits."""
    for power, letter in POWERS:
        if figure >= power:
            return f"{figure / power:.3g} {letter}"
    return f"{figure:.3g} "


if __name__ == "__main__":
    main()
