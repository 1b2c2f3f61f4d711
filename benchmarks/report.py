"""Write docs/performance.md, the whole page, and its pictures from what the benchmarks measured.

    python benchmarks/report.py [--results FOLDER] [--docs FOLDER] [--png FOLDER]

Reads benchmarks/results/*.json, and benchmarks/results/reduced for what was never measured at full size. The same
results give the same bytes. ``--png FOLDER`` writes the pictures there as PNG, too.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import report_sections as sections
import report_vault as vault
from harness import NOT_INSTALLED, RESULTS
from report_goals import goals_section, scale_text
from report_text import paragraph

DOCS = Path(__file__).parent.parent / "docs"
Section = Callable[[Mapping[str, Any]], Iterator[str]]

# in the order of the page: a section of its own; or a title for what all results have, and how it is measured
SECTIONS: dict[str, Section | tuple[str, str]] = {
    "startup": sections.start_up,
    "array_store_memory": sections.arrays,
    "diff_speed": sections.comparing,
    "scan_speed": sections.inventory,
    "digest_speed": sections.digests,
    "vault_ratio": vault.ratios,
    "codec_ratio": sections.codec,
    "vault_transfer": vault.transfers,
    "folder_transfer": vault.folders,
    "vault_small_files": (
        "### Many small files",
        # the earlier run: three rounds, 4.62 s in the median against DVC's 117.8 s
        (
            "A folder of files of 4,096 random bytes, to a real S3 server that takes its share of the same two cores. "
            "More than elsewhere the ratio is the machine's: the run before this one, on a faster one, came to 25.5"
        ),
    ),
    "vault_memory": vault.memory,
    "index_scale": ("### The index at scale", "More in [scale](explanation/scale.md)"),
    "push_simulation": ("### A push to a large vault", "More in [scale](explanation/scale.md)"),
    "chunker_speed": ("### Chunks", ""),
    "gc_speed": (
        "## Collecting over long histories",
        "`holdfast gc plan` and `dvc gc --all-commits --dry -w` in the same repositories, which come to the same set",
    ),
    "gc_objects": (
        "## Collecting among many objects",
        "The plan over objects that a store lists without a network, and the whole command over those of a real server",
    ),
    "registry_speed": ("## The registry", ""),
    "gate_coverage": ("## How often the gate is wrong", ""),
    "query_scale": ("## Queries over many rows", ""),
    "executor_overhead": ("## More than one machine", ""),
    "stream_speed": ("## Streaming", ""),
    "report_speed": ("## Reports", ""),
    "sources_verify": ("## Sources", ""),
    "profiles": sections.profiles,
}
VAULT_FROM = "vault_ratio"  # the first below the heading of the vault


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where performance.md is written")
    parser.add_argument("--png", type=Path, help="a folder for the pictures as PNG")
    options = parser.parse_args()
    from report_pictures import draw_all  # imports matplotlib, which a test of the page does without

    found = read_all(options.results)
    draw_all(found, options.docs / "images", options.png)
    (options.docs / "performance.md").write_text(page(found))


def read_all(results: Path) -> dict[str, dict[str, Any]]:
    """All results by script: at full size where there are such, else reduced."""
    found = {}
    for folder in (results / "reduced", results):
        for path in sorted(folder.glob("*.json")):
            found[path.stem] = json.loads(path.read_text())
        if "run" in found:
            # how long each of the two takes is told, not one instead of the other
            found[{"reduced": "make bench"}.get(folder.name, "make bench-full")] = found.pop("run")
    return found


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page."""
    return "\n".join(lines(found)) + "\n"


def lines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Of the page."""
    yield "<!-- written by benchmarks/report.py -->"
    yield ""
    yield "# Performance"
    yield ""
    yield from paragraph(
        "Each figure is measured by a script in `benchmarks/`, against a peer or a smaller case in the same run. `make "
        "bench` runs all of them at sizes that take minutes, `make bench-full` at those of the goals; both write "
        "`benchmarks/results/*.json`, with the machine and the versions, and then this page. "
        f"{machines(found)} Machines differ and are noisy: the ratios are what counts. In parentheses stands the range "
        "of all rounds, where it was noted."
    )
    yield ""
    yield from goals_section(found)
    for name, section in SECTIONS.items():
        if name == VAULT_FROM:
            yield from ("", "## The vault")
        if name in found:
            result = found[name]
            yield ""
            yield from sections.whatever(name, *section, result) if isinstance(section, tuple) else section(result)
            if result.get("scale", {}).get("reduced"):
                yield from ("", *paragraph(f"Measured {scale_text(result)}."))
    if "growth" in found:
        yield from ("", *sections.growth(found))
    yield from ("", *tools(found))


def machines(found: Mapping[str, Mapping[str, Any]]) -> str:
    """On what it was measured."""
    named = sorted({json.dumps(one["machine"], sort_keys=True) for one in found.values() if "machine" in one})
    pythons = sorted({one["versions"]["python"] for one in found.values() if "versions" in one})
    parts = []
    for text in named:
        one = json.loads(text)
        parts.append(f"{one['processors']} processors ({one['processor']}), {one['system']}")
    return f"The figures are from {'; '.join(parts)}, Python {', '.join(pythons)}."


def tools(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """With which versions it was measured, and what was not there."""
    named: dict[str, set[str]] = {}
    for result in found.values():
        for name, version in result.get("versions", {}).items():
            named.setdefault(name, set()).add(version)
    took = [
        f"`{what}` took {found[what]['minutes']:g} minutes"
        for what in ("make bench", "make bench-full")
        if what in found
    ]
    yield "## Versions"
    yield ""
    if took:
        yield from (f"{' and '.join(took)}.", "")
    yield from paragraph(
        ", ".join(
            f"{name} {' and '.join(sorted(version - {NOT_INSTALLED}))}"
            for name, version in sorted(named.items())
            if version != {NOT_INSTALLED}
        )
        + "."
    )
    if absent := sorted(name for name, version in named.items() if version == {NOT_INSTALLED}):
        yield ""
        yield from paragraph(f"Not installed where it was measured: {', '.join(absent)}.")


if __name__ == "__main__":
    main()
