"""Write what was measured of the vault into docs/performance.md: tables and pictures, from benchmarks/results.

    python benchmarks/vault_report.py [--results FOLDER] [--docs FOLDER]

Reads vault_ratio.json, vault_transfer.json, vault_small_files.json and vault_memory.json, whichever are there, and
writes the lines between the two marks in performance.md, images/vault-ratio.svg and images/vault-transfer.svg. The same
results give the same bytes. ``--png FOLDER`` writes the pictures there as PNG, too.
"""

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from harness import RESULTS

DOCS = Path(__file__).parent.parent / "docs"
BEGIN = "<!-- what follows is written by benchmarks/vault_report.py -->"
END = "<!-- what benchmarks/vault_report.py writes ends here -->"
MB, GB = 10**6, 10**9
LINE = 120
COLUMNS = {
    "bf16": "bf16 weights",
    "full": "fp32 with AdamW's state",
    "frozen": "frozen backbone",
    "weights": "AdamW's state + weights alone",
    "published": "published releases",
}
PANELS = ("bf16", "full", "frozen", "weights")
METHODS = {
    "DVC": "DVC's cache",
    "zstd -3 a file": "zstd -3 of each file",
    "CDC 64 KiB + zstd -3": "chunks of 64 KiB + zstd -3",
    "restic, auto": "restic",
    "restic, max": "restic, max",
    "borg, lz4": "borg",
    "borg, zstd,3": "borg, zstd,3",
    "BitX, zstd -3": "BitX, zstd -3",
    "BitX, Huffman alone": "BitX, Huffman",
    "vault, at push": "vault, at push",
    "vault, repacked": "vault, repacked",
    "limit of order 0": "limit of order 0",
}
LIMIT = "limit of order 0"
LINKS = {"100 MB/s": "at 100 MB/s", "no link": "unshaped"}
VERBS = ("push", "pull", "pull newest")
OURS, THEIRS, BACK, INK, EDGE = "#1f6fb2", "#9aa5b1", "#ffffff", "#1f2933", "#d64545"
# no random names in SVG, and letters as text: as shapes they would take 120 KB
STYLE = {
    "svg.hashsalt": "holdfast",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "figure.facecolor": BACK,
    "axes.facecolor": BACK,
    "savefig.facecolor": BACK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def main() -> None:
    """Write the part of the page, and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where performance.md is")
    parser.add_argument("--png", type=Path, help="a folder for the pictures as PNG")
    options = parser.parse_args()
    found = {
        name: json.loads(path.read_text())
        for name in ("ratio", "transfer", "small_files", "memory")
        if (path := options.results / f"vault_{name}.json").exists()
    }
    mpl.rcParams.update(STYLE)
    for name, draw in (("ratio", draw_ratios), ("transfer", draw_transfers)):
        if name in found:
            save(draw(found[name]), options.docs / "images" / f"vault-{name}.svg", options.png)
    page = options.docs / "performance.md"
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(part(found)) + f"\n\n{END}{after}")


def save(figure: Figure, path: Path, png: Path | None) -> None:
    """Write a picture, the same bytes each time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    if png is not None:
        figure.savefig(png / path.with_suffix(".png").name, dpi=150)


# --- the page ---------------------------------------------------------------------------------------------------------


def part(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the part, those of one paragraph as one."""
    sections = {"ratio": ratios, "transfer": transfers, "small_files": small_files, "memory": memory}
    lines = [line for name, section in sections.items() if name in found for line in (*section(found[name]), "")]
    yield from lines[:-1]


def ratios(result: Mapping[str, Any]) -> Iterator[str]:
    """How small."""
    histories = result["histories"]
    names = [name for name in COLUMNS if name in histories]
    tools = ", ".join(f"{tool} {result['versions'][tool]}" for tool in ("restic", "borg") if tool in result["versions"])
    yield "### How small"
    yield ""
    yield from paragraph(
        "`python benchmarks/vault_ratio.py`: how many times smaller than raw, each history in a vault of its own. "
        f"Sizes are of whole folders, the vault's and its peers' ({tools}). BitX is its method as we understand it, "
        "for each block the smallest of it, planes, zstd and raw, without anything that says where what is; the "
        "limit, the entropy of order 0 of what our codec codes, is without that, too. restic cuts at places that are "
        "others in each repository, so that its sizes vary, by up to 6 %."
    )
    yield ""
    yield "![How many times smaller than raw, by method](images/vault-ratio.svg)"
    yield ""
    yield from table(
        ("", *(COLUMNS[name] for name in names)),
        [
            ("commits", *(f"{histories[name]['commits']}" for name in names)),
            ("raw, MB", *(f"{histories[name]['raw bytes'] / MB:.1f}" for name in names)),
            *(
                (title, *(shown(histories[name]["ratios"].get(method)) for name in names))
                for method, title in METHODS.items()
            ),
            *(
                (
                    f"restoring reads {when}: newest, most",
                    *(reads(histories[name].get(f"restore {when}")) for name in names),
                )
                for when in ("at push", "repacked")
            ),
        ],
    )
    yield ""
    yield from paragraph(
        "*Restoring reads*: which share of its size is read to put a file together; the newest, and the one for which "
        "it is most."
    )
    yield ""
    yield from goals(result["goals"])


def transfers(result: Mapping[str, Any]) -> Iterator[str]:
    """How fast to a server and back."""
    histories = result["histories"]
    yield "### Push and pull"
    yield ""
    yield from paragraph(
        "`python benchmarks/vault_transfer.py`: whole processes of Holdfast and of DVC to the same S3 server "
        f"(SeaweedFS, on the same cores), {result['rounds']} pairs in turn, over a link of 100 MB/s in each direction "
        "and without one. *Pull newest* brings the last commit, the others all."
    )
    yield ""
    yield "![Seconds of push and pull](images/vault-transfer.svg)"
    yield ""
    rows = []
    for name, figures in histories.items():
        for kind, title in LINKS.items():
            for verb in VERBS:
                one = figures[kind][verb]
                goal = result["goals"].get(f"{name}, {kind}: {verb}, holdfast ÷ dvc")
                rows.append(
                    (
                        f"{COLUMNS[name]}, {figures['raw bytes'] / MB:.0f} MB, {verb} {title}",
                        goal["goal"] if goal else "–",
                        spread(one["seconds"]["holdfast"], one["range"]["holdfast"], " s"),
                        spread(one["seconds"]["dvc"], one["range"]["dvc"], " s"),
                        spread(one["holdfast ÷ dvc"], one["range of that"]) + (f": {said(goal)}" if goal else ""),
                    )
                )
    yield from table(("", "goal", "Holdfast", "DVC", "Holdfast ÷ DVC, median (range)"), rows)
    yield ""
    rows = [
        (
            f"{COLUMNS[name]}, {verb}",
            *(carried(figures["100 MB/s"][verb]["counted"][tool], verb) for tool in ("holdfast", "dvc")),
        )
        for name, figures in histories.items()
        for verb in VERBS
    ]
    yield from table(("over the link", "Holdfast", "DVC"), rows)


def small_files(result: Mapping[str, Any]) -> Iterator[str]:
    """How fast many files are."""
    seconds, spreads = result["seconds"], result["range"]
    ratio, requests = (result["goals"][what] for what in result["goals"])
    yield "### Many small files"
    yield ""
    yield from paragraph(
        f"`python benchmarks/vault_small_files.py`: a folder of {result['files']:,} files of "
        f"{result['bytes a file']:,} random bytes to such a server, without a link."
    )
    yield ""
    yield from table(
        ("", "goal", "`holdfast push`", "`dvc push`"),
        [
            (
                "seconds",
                "–",
                *(spread(seconds[f"{tool} push"], spreads[f"{tool} push"]) for tool in ("holdfast", "dvc")),
            ),
            ("`dvc push` ÷ `holdfast push`", ratio["goal"], f"{ratio['measured']:g}: {said(ratio)}", "–"),
            (
                "requests",
                f"packs ({result['packs']}) + 10",
                f"{result['requests of holdfast push']}: {said(requests)}",
                f"{result['requests of dvc push a file']} a file",
            ),
        ],
    )


def memory(result: Mapping[str, Any]) -> Iterator[str]:
    """How much memory."""
    yield "### Memory of push and pull"
    yield ""
    yield from paragraph(
        "`python benchmarks/vault_memory.py`: peak memory with a checkpoint of "
        f"{result['raw bytes'] / GB:.1f} GB, random float32, and a vault in a folder."
    )
    yield ""
    rows = [
        (
            f"`holdfast {verb}`",
            "≤ 1 GB",
            f"{result[verb]['MB']:,.0f} MB: {said(goal)}",
            f"{result[verb]['seconds']:.0f} s",
        )
        for verb, goal in zip(("push", "pull"), result["goals"].values(), strict=True)
    ]
    yield from table(("", "goal", "measured", "taking"), rows)


def paragraph(text: str) -> list[str]:
    """Lines as long as those of the rest of the page."""
    return textwrap.wrap(text, LINE, break_long_words=False, break_on_hyphens=False)


def goals(judged: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A table of goals."""
    rows = [
        (what, goal["goal"], f"{shown(goal['measured'], '{:,.6g}')}: {said(goal)}") for what, goal in judged.items()
    ]
    yield from table(("", "goal", "measured"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def shown(figure: float | None, form: str = "{:.3f}") -> str:
    """A figure, or that there is none."""
    return "–" if figure is None else form.format(figure)


def reads(found: Mapping[str, Any] | None) -> str:
    """What restoring the newest file reads, and the one that reads most."""
    return f"{found['newest']:.2f}, {found['most']:.2f}" if found else "–"


def carried(counted: Mapping[str, Any], verb: str) -> str:
    """What went over the link in the direction that matters."""
    nbytes = counted["bytes up" if verb == "push" else "bytes down"]
    return f"{sum(counted['requests'].values())} requests, {nbytes / MB:.1f} MB"


def spread(middle: float, ends: Sequence[float], unit: str = "") -> str:
    """A median with its range."""
    return f"{middle:.2f}{unit} ({ends[0]:.2f}–{ends[1]:.2f})"


def said(goal: Mapping[str, Any]) -> str:
    """A verdict in words."""
    return {None: "not measured", True: "met", False: "not met"}[goal["met"]]


# --- pictures ---------------------------------------------------------------------------------------------------------


def draw_ratios(result: Mapping[str, Any]) -> Figure:
    """Bars of how many times smaller than raw, a panel for each history; the limit is a line."""
    names = [name for name in PANELS if name in result["histories"]]
    figure = Figure(figsize=(9, 3.1 * -(-len(names) // 2)), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(-(-len(names) // 2), 2, place)
        found = result["histories"][name]["ratios"]
        bars = [method for method in METHODS if method != LIMIT and found.get(method)][::-1]
        values = [found[method] for method in bars]
        ours = [method.startswith("vault") for method in bars]
        drawn = axes.barh(range(len(bars)), values, color=[OURS if own else THEIRS for own in ours])
        for text, own in zip(axes.bar_label(drawn, fmt="%.2f", padding=-25), ours, strict=True):
            text.set_color(BACK if own else INK)
        # all panels have the same bars
        axes.set_yticks(range(len(bars)), [METHODS[method] for method in bars] if place % 2 else [""] * len(bars))
        axes.axvline(found[LIMIT], color=EDGE, linestyle="--", linewidth=1)
        axes.annotate(
            f"limit {found[LIMIT]:.2f}", (found[LIMIT], 1), (0, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=EDGE, ha="center", fontsize=8,
        )  # fmt: skip
        axes.set_xlim(0, max(*values, found[LIMIT]) * 1.08)
        axes.set_title(COLUMNS[name], loc="left", fontweight="bold", pad=16)
        axes.set_xlabel("times smaller than raw")
        axes.tick_params(axis="y", length=0)
    return figure


def draw_transfers(result: Mapping[str, Any]) -> Figure:
    """Bars of seconds, a panel for each history and link."""
    histories = result["histories"]
    figure = Figure(figsize=(9, 2.7 * len(histories)), layout="constrained")
    for row, (name, figures) in enumerate(histories.items()):
        for column, (kind, title) in enumerate(LINKS.items()):
            axes = figure.add_subplot(len(histories), 2, row * 2 + column + 1)
            for tool, colour, shift in (("dvc", THEIRS, -0.2), ("holdfast", OURS, 0.2)):
                values = [figures[kind][verb]["seconds"][tool] for verb in VERBS]
                ranges = [figures[kind][verb]["range"][tool] for verb in VERBS]
                errors = [
                    [value - low for value, (low, _) in zip(values, ranges, strict=True)],
                    [high - value for value, (_, high) in zip(values, ranges, strict=True)],
                ]
                places = [place + shift for place in range(len(VERBS))]
                label = {"dvc": "DVC", "holdfast": "Holdfast"}[tool]
                drawn = axes.bar(places, values, 0.36, yerr=errors, color=colour, ecolor=INK, capsize=2, label=label)
                axes.bar_label(drawn, fmt="%.1f", padding=2)
            axes.set_xticks(range(len(VERBS)), VERBS)
            axes.tick_params(axis="x", length=0)
            axes.set_ylabel("seconds")
            axes.margins(y=0.15)
            axes.set_title(f"{COLUMNS[name]}, {title}", loc="left", fontweight="bold")
            if row == column == 0:
                axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
