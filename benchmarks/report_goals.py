"""The goals of the design, each with the benchmark that measures it, and the table that says how each came out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from report_text import paragraph, shown, table, verdict


@dataclass(frozen=True)
class Goal:
    """One figure that has a goal.

    Args:
        what: in words.
        goal: as `harness.judge` writes it.
        peer: what it is held against; empty for a figure of its own.
        script: the benchmark that measures it.
        key: what that benchmark calls it among its `goals`.
    """

    what: str
    goal: str
    peer: str
    script: str
    key: str


RATIO, CODEC, TRANSFER = "vault_ratio", "codec_ratio", "vault_transfer"
SMALL, GC, REGISTRY = "vault_small_files", "gc_speed", "registry_speed"
OURS_OVER_DVC = "holdfast ÷ dvc"
DASK = "executor_overhead"
ROWS = "10,000,000 rows, duplicates by weights"
ALONE = "objects in one used set and not in the other"
FASTER = "times faster than dvc gc"

GOALS = (
    Goal("bf16 history at push: times smaller", "≥ 2.2", "DVC", RATIO, "bf16: smaller than raw, at push"),
    Goal(
        "the same: most that a restore reads, of its size", "≤ 1", "", RATIO, "bf16: most that a restore reads, at push"
    ),
    Goal("bf16 history repacked: times smaller", "≥ 3", "DVC", RATIO, "bf16: smaller than raw, repacked"),
    Goal("the same", "≥ 1.25", "BitX, best of", RATIO, "bf16: smaller than BitX, repacked"),
    Goal("the same", "≥ 2.3", "restic, borg", RATIO, "bf16: smaller than restic and borg, repacked"),
    Goal(
        "the same: what the newest reads, of its size",
        "≤ 0.7",
        "",
        RATIO,
        "bf16: what restoring the newest reads, repacked",
    ),
    Goal("fp32 AdamW history at push: times smaller", "≥ 1.22", "DVC", RATIO, "full: smaller than raw, at push"),
    Goal("fp32 AdamW history repacked: times smaller", "≥ 1.4", "DVC", RATIO, "full: smaller than raw, repacked"),
    Goal("the same", "≥ 1.04", "BitX, best of", RATIO, "full: smaller than BitX, repacked"),
    Goal("the same", "≥ 1.25", "restic, borg", RATIO, "full: smaller than restic and borg, repacked"),
    Goal(
        "bf16 repacked: share of the limit of order 0", "≥ 0.92", "entropy", RATIO, "bf16: share of the limit, repacked"
    ),
    Goal("fp32 AdamW repacked: the same", "≥ 0.92", "entropy", RATIO, "full: share of the limit, repacked"),
    Goal(
        "any file ≥ 1 MB: bytes over raw, of its size",
        "≤ 0.001",
        "",
        RATIO,
        "all: own bytes of a file of 1 MB or more, over raw",
    ),
    *(
        Goal(f"{verb} {title}, {loops}, a core, GB/s", f"≥ {goal}", "", CODEC, f"{kind}: {verb} GB/s, {loops}")
        for kind, title in (("bf16", "bf16"), ("full", "fp32 AdamW"))
        for verb, loops, goal in (
            ("encode", "NumPy", 0.15),
            ("decode", "NumPy", 0.35),
            ("encode", "numba", 0.3),
            ("decode", "numba", 0.7),
        )
    ),
    *(
        Goal(
            f"{title}, {verb}, {way}: seconds",
            f"≤ {goal}",
            f"`dvc {verb.split()[0]}`",
            TRANSFER,
            f"{kind}, {link}: {verb}, {OURS_OVER_DVC}",
        )
        for kind, title, link, way, verb, goal in (
            ("bf16", "bf16 history", "100 MB/s", "100 MB/s", "push", 0.6),
            ("bf16", "bf16 history", "100 MB/s", "100 MB/s", "pull", 0.6),
            ("bf16", "bf16 history", "100 MB/s", "100 MB/s", "pull newest", 1),
            ("full", "fp32 history", "100 MB/s", "100 MB/s", "push", 0.9),
            ("full", "fp32 history", "100 MB/s", "100 MB/s", "pull", 0.95),
            ("full", "fp32 history", "100 MB/s", "100 MB/s", "pull newest", 1),
            ("bf16", "bf16 history", "no link", "loopback", "push", 2.5),
            ("full", "fp32 history", "no link", "loopback", "push", 2.5),
        )
    ),
    Goal("push of 100,000 files of 4 KB: times faster", "≥ 25", "`dvc push`", SMALL, "dvc push ÷ holdfast push"),
    Goal("the same: requests beside packs", "≤ 10", "", SMALL, "requests of holdfast push beside packs"),
    Goal("gc plan, one stage, cold: times faster", "≥ 60", "`dvc gc`", GC, f"one-stage, cold: {FASTER}"),
    Goal("the same, warm", "≥ 150", "`dvc gc`", GC, f"one-stage, warm: {FASTER}"),
    Goal("gc plan, ten stages, cold: times faster", "≥ 300", "`dvc gc`", GC, f"ten-stage, cold: {FASTER}"),
    Goal("the same, warm", "≥ 1500", "`dvc gc`", GC, f"ten-stage, warm: {FASTER}"),
    Goal("one stage: objects in one set alone", "≤ 0", "`dvc gc`", GC, f"one-stage: {ALONE}"),
    Goal("ten stages: objects in one set alone", "≤ 0", "`dvc gc`", GC, f"ten-stage: {ALONE}"),
    Goal("warm scan of 100,000 files, seconds", "≤ 0.8", "", "scan_speed", "scan, warm, seconds"),
    Goal("the same: times faster", "≥ 4", "`dvc status`", "scan_speed", "dvc status ÷ scan, warm"),
    Goal("registry show MODEL, seconds over start-up", "≤ 0.05", "", REGISTRY, "show MODEL"),
    Goal("registry show, 10,000 versions, cold", "≤ 1", "", REGISTRY, "show, cold"),
    Goal("the same, cached", "≤ 0.15", "", REGISTRY, "show, cached"),
    Goal("registry register, seconds over start-up", "≤ 0.1", "", REGISTRY, "register"),
    Goal("`holdfast --help`, seconds", "≤ 0.6", "`dvc --help`", "startup", "holdfast --help ÷ dvc --help"),
    Goal("diff of two 4 GB checkpoints: times faster", "≥ 3", "NumPy", "diff_speed", "NumPy ÷ holdfast diff, warm"),
    Goal("the same: peak memory, MB", "≤ 500", "", "diff_speed", "peak memory, MB"),
    Goal("duplicates among 10 million rows, seconds", "≤ 8", "", "query_scale", f"{ROWS}, seconds"),
    Goal("the same: peak memory, GB", "≤ 2.2", "", "query_scale", f"{ROWS}, GB"),
    Goal(
        "cold fingerprint, share of its speed",
        "≥ 0.8",
        "BLAKE3 or disk",
        "digest_speed",
        "cold file digest / slower of BLAKE3 in memory and disk",
    ),
    *(
        Goal(
            f"Dask over threads, {kind} tasks of 0.5 s",
            "≤ 0.15",
            "threads",
            DASK,
            f"overhead of Dask, {kind} tasks of 0.5 s",
        )
        for kind in ("waiting", "hashing")
    ),
    *(
        Goal(f"{verb} of a 10 GB checkpoint: peak memory, MB", "≤ 1000", "", "vault_memory", f"holdfast {verb}, MB")
        for verb in ("push", "pull", "scan", "diff")
    ),
)


def goals_section(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A row for each goal: what was measured, by which benchmark, at which sizes."""
    counts = {"met": 0, "not met": 0, "not measured": 0}
    rows = []
    for goal in GOALS:
        result = found.get(goal.script, {})
        judged = result.get("goals", {}).get(goal.key) or {"measured": None, "met": None}
        said = verdict(judged)
        counts[said] += 1
        scale = scale_text(result) if result else "–"
        rows.append(
            (
                goal.what,
                goal.goal,
                shown(judged["measured"], "{:,.4g}"),
                goal.peer or "–",
                f"`{goal.script}.py`",
                scale,
                f"**{said}**" if said != "met" else said,
            )
        )
    yield "## The goals"
    yield ""
    yield from paragraph(
        f"{counts['met']} are met, {counts['not met']} are not, {counts['not measured']} were not measured. Each is "
        "measured by `python benchmarks/SCRIPT`. Where there is a peer, *measured* is the ratio to it on the same data "
        "in the same run. *Full* are the sizes that the goal names; *reduced* those of `make bench`, which stand where "
        "nothing else was measured: some goals are judged at their own size alone."
    )
    yield ""
    yield from table(("what", "goal", "measured", "peer", "script", "scale", ""), rows)


def scale_text(result: Mapping[str, Any]) -> str:
    """Full, or what is less than that."""
    scale = result.get("scale", {})
    if not scale.get("reduced"):
        return ", ".join(
            ["full", *(f"but for {name} {worded(scale.get(name, '–'))}" for name in scale.get("changed", []))]
        )
    sizes = ", ".join(f"{name} {worded(value)}" for name, value in scale.items() if name not in ("reduced", "rounds"))
    return f"reduced: {sizes}" if sizes else "reduced"


def worded(value: object) -> str:
    """A size, or several."""
    if isinstance(value, list):
        return " ".join(str(one) for one in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
