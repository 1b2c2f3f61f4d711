"""Run the benchmarks one after the other, and go on where that was interrupted.

    python benchmarks/run.py [--reduced] [--only NAME …] [--again] [--results FOLDER]

Prints a line for each: its seconds, and which goals it met; what it says goes to benchmarks/.cache/logs. After a
failure the next one is run, and the exit code is 1. What was run with the same code is not run again until all have
succeeded: a run that was interrupted, or in which one failed, goes on with what is left; ``--again`` begins anew.
``--reduced`` is `make bench`: each at the sizes that it has for that, but for those that take long whatever their size.
Writes run.json, with the seconds of each, beside the results.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import RESULTS, digits, folder_of, machine, read_results, versions, write_results

FOLDER = Path(__file__).parent
KEPT = FOLDER / ".cache"
# those with the goals of every command's speed first: what runs last runs on a machine that has been busy for long
ORDER = (
    "startup",
    "registry_speed",
    "scan_speed",
    "diff_speed",
    "digest_speed",
    "codec_ratio",
    "vault_ratio",
    "vault_transfer",
    "folder_transfer",
    "vault_small_files",
    "vault_memory",
    "gc_speed",
    "gc_objects",
    "index_scale",
    "push_simulation",
    "query_scale",
    "executor_overhead",
    "growth",
    "profiles",
    "stream_speed",
    "sources_verify",
    "report_speed",
    "array_store_memory",
    "chunker_speed",
    "gate_coverage",
)
FULL_ONLY = frozenset({"chunker_speed", "gate_coverage"})
# the peer is timed in the same run, be it remembered from another
MORE = {"gc_speed": ("--again",)}
LAST_LINES = 6
INTERRUPTED = 130


def main() -> None:
    """Run what is left; exit with 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reduced", action="store_true", help="smaller sizes; results go to results/reduced")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are written")
    parser.add_argument("--only", nargs="+", choices=ORDER, metavar="NAME", help="these, done before or not")
    parser.add_argument("--again", action="store_true", help="all of them, done before or not")
    options = parser.parse_args()
    names = options.only or [name for name in ORDER if not (options.reduced and name in FULL_ONLY)]
    state = State(KEPT / ("run-reduced.json" if options.reduced else "run.json"))
    if options.again:
        state.forget()
    try:
        failed = run_all(names, state, options, force=bool(options.only))
    except KeyboardInterrupt:
        print("\nInterrupted; the same command goes on with what is left")
        sys.exit(INTERRUPTED)
    taken = read_results("run", options).get("seconds", {}) | {name: one["seconds"] for name, one in state.done.items()}
    write_results("run", summary(taken), argparse.Namespace(reduced=options.reduced, results=options.results))
    if failed:
        print(f"\nFailed: {', '.join(failed)}; the same command runs these again")
        sys.exit(1)
    if not options.only:
        state.forget()


class State:
    """What was run, and how long it took, in a file.

    Args:
        path: the file; none while nothing was run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def note(self, name: str, seconds: float, code: str) -> None:
        """That one has succeeded, with code of a digest."""
        self.done[name] = {"seconds": round(seconds, 1), "code": code}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self.done, indent=2) + "\n")
        fresh.replace(self._path)

    def has(self, name: str, code: str) -> bool:
        """Whether one has succeeded with the same code."""
        return name in self.done and self.done[name]["code"] == code

    def forget(self) -> None:
        """Begin anew."""
        self.done = {}
        self._path.unlink(missing_ok=True)


def run_all(names: Iterable[str], state: State, options: argparse.Namespace, *, force: bool) -> list[str]:
    """Run them in order; the names of those that failed."""
    failed = []
    names = list(names)
    for number, name in enumerate(names, 1):
        code = digest_of(name)
        head = f"{number:3}/{len(names)} {name:20}"
        if not force and state.has(name, code):
            print(f"{head} done before, {state.done[name]['seconds']:.0f} s", flush=True)
            continue
        print(head, end=" ", flush=True)
        start = time.perf_counter()
        status, log = run_one(name, options)
        seconds = time.perf_counter() - start
        if status:
            failed.append(name)
            print(f"{seconds:6.0f} s  failed with {status}: {log}")
            for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:]:
                print(f"        {line}")
            continue
        state.note(name, seconds, code)
        print(f"{seconds:6.0f} s  {verdicts(folder_of(options) / f'{name}.json')}", flush=True)
    return failed


def run_one(name: str, options: argparse.Namespace) -> tuple[int, Path]:
    """Exit code of a benchmark, and where what it said is."""
    log = KEPT / "logs" / f"{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        str(FOLDER / f"{name}.py"),
        *MORE.get(name, ()),
        *(["--reduced"] if options.reduced else []),
    ]
    if options.results != RESULTS:
        command += ["--results", str(options.results)]
    with open(log, "wb") as stream:
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, check=False)
    return done.returncode, log


def verdicts(path: Path) -> str:
    """How many goals were met, and which were not."""
    goals = json.loads(path.read_text()).get("goals", {}) if path.exists() else {}
    met = sum(1 for goal in goals.values() if goal["met"])
    others = [f"{what} {goal['measured']:g} of {goal['goal']}" for what, goal in goals.items() if goal["met"] is False]
    text = f"{met} of {len(goals)} goals met" if goals else "no goals"
    return text + "".join(f"\n{'':29}not met: {other}" for other in others)


def summary(taken: Mapping[str, float]) -> dict[str, Any]:
    """How long each took the last time that it succeeded."""
    seconds = {name: taken[name] for name in ORDER if name in taken}
    return {
        "what": "wall seconds of the benchmarks themselves, what they make and train included",
        "machine": machine(),
        "versions": versions(),
        "seconds": seconds,
        "minutes": digits(sum(seconds.values()) / 60, 3),
        "goals": {},
    }


def digest_of(name: str) -> str:
    """Over the code that a benchmark measures, and its own."""
    sources = sorted((FOLDER.parent / "src").rglob("*.py"))
    digest = hashlib.sha256()
    for path in (*sources, FOLDER / f"{name}.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
