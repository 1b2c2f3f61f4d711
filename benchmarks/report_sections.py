"""What the page on performance says of each area but the vault; and of any benchmark, where it has no section."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness import slope_of
from report_text import GB, MB, goals_table, paragraph, plain, quantities_table, shown, spread, table, verdict

Result = Mapping[str, Any]
QUANTITIES_SHOWN = 40


def start_up(result: Result) -> Iterator[str]:
    """The help of both."""
    one = result["measured"]["holdfast --help"]
    goal = result["goals"]["holdfast --help ÷ dvc --help"]
    yield "## Start-up"
    yield ""
    yield from paragraph(
        "`python benchmarks/startup.py`: `holdfast --help` against `dvc --help`, whole processes in turn, "
        f"{one['rounds']} pairs."
    )
    yield ""
    ratio = spread(one["peers"]["dvc --help"]["ratio"])
    yield from table(
        ("", "goal", "measured"),
        [("`holdfast --help` ÷ `dvc --help`, median (range)", goal["goal"], f"{ratio}: {verdict(goal)}")],
    )
    yield ""
    yield from paragraph(
        "Every command module is imported when it is called; the help of `holdfast` itself imports click and nothing "
        "else."
    )


def arrays(result: Result) -> Iterator[str]:
    """Memory of saving many."""
    few, many = result["npz"]["few"]["maps"], result["npz"]["many"]["maps"]
    yield "## Memory of saving arrays"
    yield ""
    yield from paragraph(
        "`python benchmarks/array_store_memory.py`: peak resident memory of a process that saves attention maps of "
        "shape (22, 15000), float32, 1.32 MB each."
    )
    yield ""
    rows = []
    for what, title, key in (
        ("npz", "`ArrayStore`, NPZ", "NPZ: growth of the peak, MB"),
        ("hdf5", "`ArrayStore`, HDF5", "HDF5: growth of the peak, MB"),
        ("list", "a list of arrays, for comparison", ""),
    ):
        found = result[what]
        peaks = (f"{found[size]['peak_bytes'] / MB:,.0f} MB" for size in ("few", "many"))
        goal = result["goals"].get(key)
        said = f": {verdict(goal)}" if goal else ""
        rows.append(
            (title, f"{goal['goal']} MB" if goal else "–", *peaks, f"{found['growth_bytes'] / MB:,.0f} MB{said}")
        )
    yield from table(("", "goal, growth", f"{few:,} maps", f"{many:,} maps", "growth"), rows)
    yield ""
    yield from paragraph(
        "Sizes, speeds and compression levels are in "
        "[the reference of the array store](reference/array-store.md#measured)."
    )


def comparing(result: Result) -> Iterator[str]:
    """Two checkpoints."""
    warm, cold = (result["measured"][f"holdfast diff, {state}"] for state in ("warm", "cold"))
    speed, memory = result["goals"].values()
    peaks = result["peak_bytes"]
    yield "## Comparing checkpoints"
    yield ""
    yield from paragraph(
        f"`python benchmarks/diff_speed.py`: `holdfast diff` of two float32 safetensors files of "
        f"{result['file_bytes'] / GB:.1f} GB each that the page cache holds, against the same figures by NumPy over "
        f"whole tensors of 200 MB. Whole processes in turn, {warm['rounds']} pairs. {result.get('note', '')}".strip()
    )
    yield ""
    yield from table(
        ("", "goal", "`holdfast diff`", "NumPy"),
        [
            ("wall seconds, median", "–", spread(warm), spread(warm["peers"]["NumPy"])),
            ("speed-up, median (range)", speed["goal"], f"{spread(result['speedup'])}: {verdict(speed)}", "–"),
            (
                "peak memory",
                f"{memory['goal']} MB",
                f"{peaks['holdfast'] / MB:,.0f} MB: {verdict(memory)}",
                f"{peaks['numpy'] / MB:,.0f} MB",
            ),
        ],
    )
    yield ""
    disk = cold["peers"]["reading both"]
    yield from paragraph(
        f"Where the page cache holds neither file: {plain(cold['median'])} s, against {plain(disk['median'])} s for "
        "reading both and doing nothing with them."
    )


def inventory(result: Result) -> Iterator[str]:
    """A scan."""
    cold, warm = (result["measured"][f"scan, {state}"] for state in ("cold", "warm"))
    seconds, ratio = result["goals"].values()
    yield "## An inventory"
    yield ""
    yield from paragraph(
        f"`python benchmarks/scan_speed.py`: a git repository with DVC of {result['files']:,} files, "
        f"{result['checkpoints']:,} of them checkpoints, {result['files'] // 100:,} scripts, the rest pictures, "
        f"annotations and tables; whole processes in turn, {warm['rounds']} rounds. {result.get('note', '')}".strip()
    )
    yield ""
    yield from table(
        ("", "goal", "seconds, median (range)"),
        [
            ("`holdfast scan`, cold", "–", spread(cold)),
            ("`holdfast scan`, warm", seconds["goal"], f"{spread(warm)}: {verdict(seconds)}"),
            ("`dvc status`, warm", "–", spread(warm["peers"]["dvc status"])),
            ("`dvc status` ÷ `holdfast scan`, warm", ratio["goal"], f"{ratio['measured']:.1f}: {verdict(ratio)}"),
        ],
    )


def digests(result: Result) -> Iterator[str]:
    """How fast bytes are told."""
    measured, ratios = result["measured"], result["ratios"]
    (goal,) = result["goals"].values()
    slower = min(measured[what]["median"] for what in ("BLAKE3 in memory", "disk"))
    said = {
        "file digest, cold": f"{goal['measured']:.2f} of {slower:.2f} GB/s, the slower of disk and hash; "
        f"goal {goal['goal']}: {verdict(goal)}",
        "file digest, warm": f"{ratios['warm file digest / BLAKE3 in memory']:.2f} of BLAKE3 in memory",
        "md5, warm": f"the warm file digest is {ratios['warm file digest / md5']:.1f} times faster",
        "digest and md5, warm": f"{ratios['warm digest and md5 in one pass / md5']:.2f} of md5 alone",
        "weights digest, warm": "each record's CRC is checked, too",
    }
    yield "## Digests"
    yield ""
    yield from paragraph(
        f"`python benchmarks/digest_speed.py`: one file of {result['gigabytes']:.1f} GB of random floats, "
        f"{measured['disk']['rounds']} rounds in turn."
    )
    yield ""
    yield from table(("", "GB/s", "ratio"), [(what, spread(measured[what]), text) for what, text in said.items()])
    yield ""
    look = measured["a second look"]
    yield f"A second look at a file that has not changed reads nothing: {plain(look['median'])} ms from the cache."


def codec(result: Result) -> Iterator[str]:
    """How fast blocks are coded, and by others."""
    yield "### How fast the codec is"
    yield ""
    zipnn = result["versions"].get("zipnn", "not measured")
    yield from paragraph(
        "`python benchmarks/codec_ratio.py`: GB/s of one thread, in processor time; encoding includes the decoding "
        f"that verifies it. ZipNN, which has no bases: {zipnn}. How it works, and how small it is without a vault "
        "around it: [vault-codec.md](design/vault-codec.md#measured)."
    )
    yield ""
    kinds = list(result["speeds"])
    ways = list(dict.fromkeys(way for kind in kinds for way in result["speeds"][kind] if "GB/s" in way))
    rows = [(way, *(shown(result["speeds"][kind].get(way), "{:.2f}") for kind in kinds)) for way in ways]
    yield from table(("", *kinds), rows)
    if any("ZipNN" in result["ratios"][kind] for kind in kinds):
        yield ""
        names = ("ZipNN", "planes, no base", "BitX, Huffman alone", "ours, backward", "limit of order 0")
        rows = [(name, *(shown(result["ratios"][kind].get(name)) for kind in kinds)) for name in names]
        yield from table(("times smaller than raw", *kinds), rows)
    yield ""
    yield from goals_table(result["goals"])


def growth(found: Mapping[str, Result]) -> Iterator[str]:
    """Slopes: of the benchmark that is about nothing else, and of others that noted series."""
    yield "## Growth"
    yield ""
    yield from paragraph(
        "`python benchmarks/growth.py`, and others as named: seconds of whole processes, start-up included, or what "
        "else is said, by size. The slope is that of the line through the logarithms of all points, with its standard "
        "error: 1 is in proportion, 0 does not grow. Start-up makes the beginning flat; the slope between the last two "
        "points stands beside."
    )
    yield ""
    yield "![Seconds over sizes, both as logarithms](images/growth.svg)"
    yield ""
    rows = []
    for script, what, series in all_series(found):
        slope, points = series["slope"], series["points"]
        error = f" ± {slope['error']:.2f}" if slope["error"] is not None else ""
        ends = [f"{point['size']:,}: {plain(point['median'])} {point['unit']}" for point in (points[0], points[-1])]
        fitted = shown(slope["fit"], "{:.2f}") + error
        rows.append((what, f"`{script}.py`", series["by"], " … ".join(ends), fitted, shown(slope["last"], "{:.2f}")))
    yield from table(("", "script", "by", "from … to", "slope", "at the end"), rows)


def all_series(found: Mapping[str, Result]) -> Iterator[tuple[str, str, Result]]:
    """Script, name and points of all that grows, those of growth.py first."""
    noted = {name: result["series"] for name, result in found.items() if "series" in result}
    if "index_scale" in found:
        noted["index_scale"] = index_series(found["index_scale"])
    for script in sorted(noted, key=lambda name: (name != "growth", name)):
        for what, series in noted[script].items():
            yield script, what, series


def index_series(result: Result) -> dict[str, Result]:
    """What grows with the number of blobs of a vault."""
    by_size = {int(blobs): figures for blobs, figures in result["by blobs"].items()}
    found = {}
    for what in result["slopes"]:
        points = [{"size": blobs, **figures[what]} for blobs, figures in by_size.items() if what in figures]
        found[f"index: {what}"] = {"by": "blobs", "points": points, "slope": slope_of(points)}
    return found


def profiles(result: Result) -> Iterator[str]:
    """The largest costs."""
    yield "## Where the time goes"
    yield ""
    yield from paragraph(
        "`python benchmarks/profiles.py`: processor time of one run of each under a profiler, its threads included. A "
        "cost is what a module's functions take themselves, or what a library's function in C takes. Profiling makes "
        "Python's own calls dearer than they are: the shares tell where to look."
    )
    yield ""
    rows = []
    for path, figures in result["paths"].items():
        costs = [f"{cost['what']} {cost['share']:.0%}" for cost in figures["costs"]]
        rows.append((path, f"{figures['processor']:.2f}", f"{figures['children']:.2f}", *costs))
    yield from table(("", "seconds", "its children's", "largest cost", "second", "third"), rows)


def whatever(name: str, title: str, text: str, result: Result) -> Iterator[str]:
    """What any benchmark's results have, below a title and after a text on how it is measured."""
    yield title
    yield ""
    said = result.get("what", "")
    yield from paragraph(
        f"`python benchmarks/{name}.py`: {said}{'. ' if said and text else ''}{text}".rstrip(".") + "."
    )
    measured = result.get("measured", {})
    if len(measured) > QUANTITIES_SHOWN:
        yield ""
        yield f"All {len(measured)} quantities are in `benchmarks/results/{name}.json`."
    elif measured:
        yield ""
        yield from quantities_table(measured)
    elif "seconds" in result and "range" in result:
        yield ""
        rows = [
            (what, f"{plain(one)} ({plain(result['range'][what][0])}–{plain(result['range'][what][1])}) s")
            for what, one in result["seconds"].items()
        ]
        yield from table(("", "median (range)"), rows)
    if result.get("goals"):
        yield ""
        yield from goals_table(result["goals"])
