"""What the page on performance says of the vault: sizes, transfers, small files, memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import NOT_INSTALLED
from report_text import GB, MB, goals_table, paragraph, shown, spread, table, verdict

COLUMNS = {
    "bf16": "bf16 weights",
    "full": "fp32 with AdamW's state",
    "frozen": "frozen backbone",
    "weights": "AdamW's state + weights alone",
    "published": "published releases",
}
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
    yield from goals_table(result["goals"])


def transfers(result: Mapping[str, Any]) -> Iterator[str]:
    """How fast to a server and back."""
    histories = result["histories"]
    rclone = result["versions"].get("rclone", NOT_INSTALLED)
    yield "### Push and pull"
    yield ""
    yield from paragraph(
        "`python benchmarks/vault_transfer.py`: whole processes of Holdfast and of DVC to the same S3 server "
        f"(SeaweedFS, on the same cores), {result['rounds']} pairs in turn, over a link of 100 MB/s in each direction "
        "and without one. *Pull newest* brings the last commit, the others all. `rclone copy` of DVC's cache, in turn "
        f"with them, is what a copy of the same files costs; rclone: {rclone}."
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
                ratio = range_of(one["holdfast ÷ dvc"], one["range of holdfast ÷ dvc"])
                rows.append(
                    (
                        f"{COLUMNS[name]}, {figures['raw bytes'] / MB:.0f} MB, {verb} {title}",
                        goal["goal"] if goal else "–",
                        *(
                            range_of(one["seconds"][tool], one["range"][tool], " s") if tool in one["seconds"] else "–"
                            for tool in ("holdfast", "dvc", "rclone")
                        ),
                        ratio + (f": {verdict(goal)}" if goal else ""),
                    )
                )
    yield from table(("", "goal", "Holdfast", "DVC", "rclone", "Holdfast ÷ DVC, median (range)"), rows)
    yield ""
    rows = [
        (
            f"{COLUMNS[name]}, {verb}",
            *(
                carried(counted[tool], verb) if tool in counted else "–"
                for counted in (figures["100 MB/s"][verb]["counted"],)
                for tool in ("holdfast", "dvc", "rclone")
            ),
        )
        for name, figures in histories.items()
        for verb in VERBS
    ]
    yield from table(("over the link", "Holdfast", "DVC", "rclone"), rows)


def folders(result: Mapping[str, Any]) -> Iterator[str]:
    """Without a network."""
    ways = list(result["measured"])
    raw = result["raw bytes"]
    absent = [tool for tool, version in result["versions"].items() if version == NOT_INSTALLED]
    yield "### Into a folder"
    yield ""
    yield from paragraph(
        f"`python benchmarks/folder_transfer.py`: {result['commits']} checkpoints, {raw / MB:.0f} MB, one commit each, "
        "into a folder of the same machine and the newest back. DVC and git-lfs copy what `dvc add` and `git add` have "
        "hashed before; restic and borg take a snapshot for each commit, in a process each."
        + (f" Not installed: {', '.join(absent)}." if absent else "")
    )
    yield ""
    rows = []
    for tool, nbytes in result["stored bytes"].items():
        taken = [
            spread(one if tool == "holdfast" else one["peers"][tool]) for one in (result["measured"][w] for w in ways)
        ]
        version = result["versions"].get(tool, "")
        rows.append((f"{tool} {version}".strip(), f"{nbytes / MB:.1f}", f"{raw / nbytes:.3f}", *taken))
    yield from table(("", "MB", "times smaller", *(f"{way}, s" for way in ways)), rows)


def memory(result: Mapping[str, Any]) -> Iterator[str]:
    """How much memory."""
    yield "### Memory"
    yield ""
    yield from paragraph(
        "`python benchmarks/vault_memory.py`: peak memory with a checkpoint of "
        f"{result['raw bytes'] / GB:.1f} GB, random float32, and a vault in a folder."
    )
    yield ""
    rows = []
    for what, goal in result["goals"].items():
        verb = what.split()[1].rstrip(",")
        figures = result.get(verb)
        measured = f"{figures['MB']:,.0f} MB: {verdict(goal)}" if figures else verdict(goal)
        rows.append((f"`holdfast {verb}`", "≤ 1 GB", measured, f"{figures['seconds']:.0f} s" if figures else "–"))
    yield from table(("", "goal", "measured", "taking"), rows)


def reads(found: Mapping[str, Any] | None) -> str:
    """What restoring the newest file reads, and the one that reads most."""
    return f"{found['newest']:.2f}, {found['most']:.2f}" if found else "–"


def carried(counted: Mapping[str, Any], verb: str) -> str:
    """What went over the link in the direction that matters."""
    nbytes = counted["bytes up" if verb == "push" else "bytes down"]
    return f"{sum(counted['requests'].values())} requests, {nbytes / MB:.1f} MB"


def range_of(middle: float, ends: Sequence[float], unit: str = "") -> str:
    """A median with its range."""
    return f"{middle:.2f}{unit} ({ends[0]:.2f}–{ends[1]:.2f})"
