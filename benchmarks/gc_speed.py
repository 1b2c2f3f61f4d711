"""How long `holdfast gc plan` takes over a long history, against `dvc gc --all-commits --dry -w` in the same place.

    python benchmarks/gc_speed.py [--work FOLDER] [--commits 5000] [--rounds 7] [--again] [--reduced]

Two repositories with two new objects a commit: `one-stage`, whose commits each change the one stage of `dvc.lock`, and
`ten-stage`, with ten stages, twelve `.dvc` files in folders and a merge every ten commits; each also a fifth as long,
which tells how the times grow. Whole processes, output into a pipe. Cold is without the cache of what commits said,
warm with it; the page cache is warm for both. DVC takes minutes, so it is timed once and remembered in FOLDER
(`--again` times it again). Both must come to the same used set. Goals of speed are those of 5,000 commits. Writes
benchmarks/results/gc_speed.json.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import IO, Any

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results

TOOLS = Path(sys.executable).parent
HOLDFAST = str(TOOLS / "holdfast")
Taken = tuple[float, float]  # seconds: wall clock, processor
KEPT = Path.home() / ".cache" / "holdfast-benchmarks" / "gc-speed"
COMMITS = 5000
HISTORY_CACHE = Path(".dvc/tmp/holdfast/history.sqlite")
STAGES, DATA_FILES, MERGE_EVERY = 10, 12, 10
FIRST_COMMIT_SECONDS = 1_577_836_800  # 2020
SHAPES = {"one-stage": (60, 150), "ten-stage": (300, 1500)}  # times faster than DVC: cold, warm

USED_BY_DVC = """
import json, sys
from dvc.repo import Repo
with Repo(".") as repo:
    used = repo.used_objs(all_commits=True, force=True)
    json.dump(sorted({(info.name, info.value) for infos in used.values() for info in infos}), sys.stdout)
"""


def main() -> None:
    """Measure, compare, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=KEPT, help="folder for the repositories and DVC's figures")
    parser.add_argument("--commits", type=int, default=COMMITS)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after one that is not counted")
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="all")
    parser.add_argument("--again", action="store_true", help="time DVC again")
    options = reducible(parser, commits=500, rounds=3)
    options.work.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    goals = {}
    for shape in SHAPES if options.shape == "all" else [options.shape]:
        found = {commits: measure(shape, commits, options) for commits in (options.commits // 5, options.commits)}
        for commits, figures in found.items():
            measured |= {f"{shape}, {commits} commits, {name}": one for name, one in figures.pop("measured").items()}
        shapes[shape] = {f"{commits} commits": figures for commits, figures in found.items()}
        last = found[options.commits]
        for state, goal in zip(("cold", "warm"), SHAPES[shape], strict=True):
            times = last["times_faster"][state] if options.commits == COMMITS else None
            goals[f"{shape}, {state}: times faster than dvc gc"] = judge(times, "≥", goal)
        goals[f"{shape}: objects in one used set and not in the other"] = judge(last["differences"], "≤", 0)
    result = {
        "what": "seconds of whole processes, wall clock and processor; times faster: by wall clock",
        "machine": machine(),
        "versions": versions("dvc", "pygit2"),
        "measured": measured,
        "shapes": shapes,
        "goals": goals,
    }
    write_results("gc_speed", result, options)
    for name, one in measured.items():
        print(f"{name:44} {one['median']:>8} s")
    print_goals(goals)


def measure(shape: str, commits: int, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one repository."""
    root = options.work / f"{shape}-{commits}"
    make_repository(root, shape, commits)
    peer = dvc_figures(root, again=options.again)
    taken: dict[str, list[Taken]] = {"start-up": [], "cold": [], "warm": []}
    for number in range(1 + options.rounds):
        for name in taken:
            if name == "cold":
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{root / HISTORY_CACHE}{suffix}").unlink(missing_ok=True)
            _, seconds = run([HOLDFAST, "version"] if name == "start-up" else [HOLDFAST, "gc", "plan"], root)
            if number:
                taken[name].append(seconds)
    wall = {name: round(median(wall for wall, _ in values), 4) for name, values in taken.items()}
    used = {tuple(key) for key in json.loads((root / ".dvc/tmp/dvc_used.json").read_text())}
    plan = json.loads(run([HOLDFAST, "gc", "plan", "--json", "--only", "kept"], root)[0])
    kept = {(entry["hash_name"], entry["oid"]) for entry in plan["objects"]}
    by_dvc = {"dvc gc": [peer["wall"]]}
    return {
        "measured": {
            name: quantity([wall for wall, _ in values], "s", None if name == "start-up" else by_dvc)
            for name, values in taken.items()
        },
        "dvc": peer,
        "processor": {name: round(median(busy for _, busy in values), 4) for name, values in taken.items()},
        "times_faster": {name: round(peer["wall"] / wall[name], 1) for name in ("cold", "warm")},
        "objects": len(used),
        "differences": len(used ^ kept),
    }


def dvc_figures(root: Path, *, again: bool) -> dict[str, float]:
    """Seconds of `dvc gc`, and its used set beside it; from an earlier run where there was one."""
    figures = root / ".dvc/tmp/dvc_seconds.json"
    if figures.exists() and not again:
        found: dict[str, float] = json.loads(figures.read_text())
        return found
    print(f"{root.name}: timing dvc gc, once …", file=sys.stderr, flush=True)
    _, (wall, busy) = run([str(TOOLS / "dvc"), "gc", "--all-commits", "--dry", "-w"], root)
    print(f"{root.name}: dvc gc took {wall:.1f} s; its used set …", file=sys.stderr, flush=True)
    (root / ".dvc/tmp/dvc_used.json").write_text(run([sys.executable, "-c", USED_BY_DVC], root)[0])
    found = {"wall": round(wall, 2), "processor": round(busy, 2)}
    figures.write_text(json.dumps(found))
    return found


def run(command: list[str], root: Path) -> tuple[str, Taken]:
    """What a command prints, and the seconds it took."""
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "CI": "true"}  # no look for a newer DVC beside it
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout, (wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


# --- the repositories ---------------------------------------------------------------------------------------------


def make_repository(root: Path, shape: str, commits: int) -> None:
    """A repository of that shape, with the objects that its commits name in DVC's cache; kept where it is there."""
    if (root / "whole").exists():
        return
    print(f"making {root.name} …", file=sys.stderr, flush=True)
    (root / ".dvc/tmp").mkdir(parents=True)
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    stream = subprocess.Popen([*git, "fast-import", "--quiet"], stdin=subprocess.PIPE)
    assert stream.stdin is not None
    History(root, shape, stream.stdin).write(commits)
    stream.stdin.close()
    if stream.wait():
        raise SystemExit("git fast-import failed")
    subprocess.run([*git, "reset", "-q", "--hard"], check=True)
    subprocess.run([*git, "gc", "-q"], check=True)
    (root / ".git/info/exclude").write_text("whole\n")
    (root / "whole").touch()


class History:
    """Writes commits as `git fast-import` takes them, and their objects to DVC's cache."""

    def __init__(self, root: Path, shape: str, stream: IO[bytes]) -> None:
        self._root = root
        self._stream = stream
        self._stages = STAGES if shape == "ten-stage" else 1
        self._data = DATA_FILES if shape == "ten-stage" else 0
        self._merges = shape == "ten-stage"
        self._outs: dict[int, tuple[str, str]] = {}
        self._objects = 0

    def write(self, commits: int) -> None:
        """All commits, oldest first."""
        first = {
            ".dvc/config": "",
            ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
            ".dvcignore": "",
            "dvc.yaml": self._pipeline(),
            "params.yaml": "train:\n  lr: 0.1\n",
        }
        for number in range(self._stages):
            self._outs[number] = (self._store(), self._store())
        for number in range(self._data):
            first[f"data/part_{number % 4}/set_{number:02}.csv.dvc"] = self._data_file(number)
        self._commit(0, first | {"dvc.lock": self._lock()}, "refs/heads/main", [])
        for number in range(1, commits):
            side = self._merges and number % MERGE_EVERY == MERGE_EVERY - 2
            merge = self._merges and number % MERGE_EVERY == MERGE_EVERY - 1 and number > MERGE_EVERY
            changed: dict[str, str] = {}
            if self._data and number % 3 == 0:
                part = number // 3 % self._data
                changed[f"data/part_{part % 4}/set_{part:02}.csv.dvc"] = self._data_file(part)
                self._outs[number % self._stages] = (self._store(), self._outs[number % self._stages][1])
            else:
                self._outs[number % self._stages] = (self._store(), self._store())
            changed["dvc.lock"] = self._lock()
            if side:
                self._commit(number, changed, "refs/heads/side", [number - 1])
            elif merge:
                self._commit(number, changed, "refs/heads/main", [number - 2, number - 1])
            else:
                back = 2 if self._merges and number > 1 and (number - 1) % MERGE_EVERY == MERGE_EVERY - 2 else 1
                self._commit(number, changed, "refs/heads/main", [number - back])

    def _commit(self, number: int, files: dict[str, str], ref: str, parents: list[int]) -> None:
        when = FIRST_COMMIT_SECONDS + number * 3600
        text = f"commit {ref}\nmark :{number + 1}\ncommitter A <a@example.org> {when} +0000\ndata 6\nchange\n"
        for kind, parent in zip(("from", "merge"), parents, strict=False):
            text += f"{kind} :{parent + 1}\n"
        for path, content in files.items():
            text += f"M 100644 inline {path}\ndata {len(content)}\n{content}\n"
        self._stream.write(text.encode())

    def _store(self) -> str:
        self._objects += 1
        data = f"object {self._objects}".encode()
        oid = hashlib.md5(data, usedforsecurity=False).hexdigest()
        path = self._root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
        return oid

    def _data_file(self, number: int) -> str:
        return f"outs:\n- md5: {self._store()}\n  size: 12\n  hash: md5\n  path: set_{number:02}.csv\n"

    def _pipeline(self) -> str:
        stages = "".join(
            f"  stage_{number:02}:\n    cmd: python stages/stage_{number:02}.py\n    deps:\n    - stages/common.py\n"
            f"    params:\n    - train.lr\n    outs:\n    - out/model_{number:02}.pt\n    - out/table_{number:02}.csv\n"
            for number in range(self._stages)
        )
        return f"stages:\n{stages}"

    def _lock(self) -> str:
        stages = ""
        for number, (model, table) in self._outs.items():
            stages += (
                f"  stage_{number:02}:\n    cmd: python stages/stage_{number:02}.py\n    deps:\n"
                f"    - path: stages/common.py\n      hash: md5\n      md5: {'c' * 31}{number}\n      size: 4096\n"
                f"    params:\n      params.yaml:\n        train.lr: 0.1\n    outs:\n"
            )
            for name, oid in ((f"out/model_{number:02}.pt", model), (f"out/table_{number:02}.csv", table)):
                stages += f"    - path: {name}\n      hash: md5\n      md5: {oid}\n      size: 12\n"
        return f"schema: '2.0'\nstages:\n{stages}"


if __name__ == "__main__":
    main()
