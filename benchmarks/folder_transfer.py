"""How long it takes to put a history of checkpoints into a folder and to get the newest back, and how large that is.

    python benchmarks/folder_transfer.py [--history FOLDER] [--kind bf16] [--commits N] [--rounds 3] [--reduced]

The files are checkpoints of gpt_history.py, committed one after the other at one path. There is neither a network nor
a server: what is measured is what each tool does to the bytes.

holdfast  push --all-commits into a vault in a folder; pull in a new clone
DVC       push --all-commits into a remote in a folder; pull in a new clone
git-lfs   push to a bare repository by file://, for which it has a transfer of its own; lfs pull in a new clone
restic    a snapshot for each commit, as one does with backups; restore of the latest
borg      the same

Whole processes in turn; those of restic and borg are as many as there are commits, and their seconds are added up. What
comes back is compared by its md5. A tool that is not installed is named as that. Writes
benchmarks/results/folder_transfer.json.
"""

import argparse
import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from backup_peers import BORG_YES, RESTIC_PASSWORD
from gpt_history import REDUCED_SCALE, kept_history
from harness import NOT_INSTALLED, machine, quantity, reducible, spread_of, versions, write_results
from vault_worlds import World, clone, commit, environment, folder_bytes, project

MODEL = "model.pt"
PUT, GET = "all commits into a folder", "the newest out of it"
MB = 1_000_000
LFS_ATTRIBUTES = "*.pt filter=lfs diff=lfs merge=lfs -text\n"


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, help="made there if it is missing")
    parser.add_argument("--steps", type=float, default=1.0, metavar="SHARE", help="of the training, where it is made")
    parser.add_argument("--kind", choices=("bf16", "full", "weights"), default="bf16", help="of checkpoints")
    parser.add_argument("--commits", type=int, default=0, metavar="N", help="the newest of the history; 0 for all")
    parser.add_argument("--rounds", type=int, default=3, help="in turn; medians count")
    parser.add_argument("--folder", type=Path, help="for temporary files; the system's temporary folder")
    options = reducible(parser, commits=4, steps=REDUCED_SCALE, rounds=2)
    paths = sorted((kept_history(options.history, options.steps) / options.kind).glob("*.pt"))[-options.commits :]
    tools = {name: found for name, found in installed().items() if found != NOT_INSTALLED}
    seconds: dict[str, dict[str, list[float]]] = {way: {"holdfast": [], "dvc": []} for way in (PUT, GET)}
    for way in seconds:
        seconds[way] |= {tool: [] for tool in tools}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        stores = stores_of(Path(name), paths, tools)
        for number in range(options.rounds):
            for store in stores if number % 2 == 0 else stores[::-1]:
                put, get = store.round(paths[-1])
                seconds[PUT][store.name].append(put)
                seconds[GET][store.name].append(get)
        sizes = {store.name: store.stored_bytes for store in stores}
    raw = sum(path.stat().st_size for path in paths)
    measured = {}
    for way, taken in seconds.items():
        ours, *others = taken.items()
        measured[way] = quantity(ours[1], "s", dict(others))
    result = {
        "what": "wall seconds of whole processes, in turn, from and to folders of one machine; bytes that are stored",
        "machine": machine(),
        "versions": versions("dvc") | installed(),
        "commits": len(paths),
        "raw bytes": raw,
        "stored bytes": sizes,
        "measured": measured,
        "goals": {},
    }
    write_results("folder_transfer", result, options)
    print(f"{len(paths)} commits of {options.kind}, {raw / MB:.1f} MB")
    for tool, nbytes in sizes.items():
        put, get = (spread_of(seconds[way][tool])["median"] for way in (PUT, GET))
        print(f"  {tool:10} {nbytes / MB:8.1f} MB  {raw / nbytes:6.3f}  put {put:6.2f} s  get {get:6.2f} s")
    for tool in set(installed()) - set(tools):
        print(f"  {tool:10} {NOT_INSTALLED}")


def installed() -> dict[str, str]:
    """Versions of the tools that are no packages, or that they are not installed."""
    asked = {"git-lfs": ("git", "lfs", "version"), "restic": ("restic", "version"), "borg": ("borg", "--version")}
    found = {}
    for tool, command in asked.items():
        there = shutil.which(tool)
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout if there else ""
        words = said.replace("git-lfs/", "git-lfs ").split()
        found[tool] = words[1] if there else NOT_INSTALLED
    return found


class Store:
    """A tool with a place in a folder.

    Args:
        name: of the tool.
        place: the folder; removed before each round.
        put: makes the place and puts all commits there; says the seconds that count.
        get: brings the newest file back; says the seconds, and where it is.
    """

    def __init__(
        self, name: str, place: Path, put: Callable[[Path], float], get: Callable[[Path], tuple[float, Path]]
    ) -> None:
        self.name = name
        self.stored_bytes = 0
        self._place, self._put, self._get = place, put, get

    def round(self, newest: Path) -> tuple[float, float]:
        """Seconds to put and to get; what came is compared."""
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir(parents=True)
        put = self._put(self._place)
        self.stored_bytes = folder_bytes(self._place)
        get, came = self._get(self._place)
        assert md5_of(came) == md5_of(newest), f"{self.name} gave other bytes back"
        return put, get


def stores_of(folder: Path, paths: Sequence[Path], tools: dict[str, str]) -> list[Store]:
    """All that are compared, with the same commits."""
    world = project(folder / "dvc")
    for path in paths:
        commit(world, {MODEL: path}, path.stem)
    stores = [dvc_like(world, "holdfast", folder), dvc_like(world, "dvc", folder)]
    if "git-lfs" in tools:
        stores.append(git_lfs(folder, world.home, paths))
    return stores + [backup(folder, world.home, paths, tool) for tool in ("restic", "borg") if tool in tools]


def dvc_like(world: World, tool: str, folder: Path) -> Store:
    """Holdfast's vault, or DVC's remote."""
    flags: tuple[str, ...] = ()

    def put(place: Path) -> float:
        nonlocal flags
        if tool == "holdfast":
            flags = ("-r", place.as_uri())
            world.holdfast("vault", "init", place.as_uri())
        else:
            config = world.home / "dvc-global"
            config.mkdir(exist_ok=True)
            (config / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {place}\n")
        return timed(world.root, world.home, tool, "push", "--all-commits", *flags)

    def get(_: Path) -> tuple[float, Path]:
        shutil.rmtree(world.root.parent / f"clone-{tool}", ignore_errors=True)
        other = clone(world, f"clone-{tool}")
        return timed(other.root, other.home, tool, "pull", *flags), other.root / MODEL

    return Store(tool, folder / f"{tool}-store", put, get)


def git_lfs(folder: Path, home: Path, paths: Sequence[Path]) -> Store:
    """A repository of its own, with the same commits, whose files are in git-lfs."""
    root = folder / "lfs"
    root.mkdir()
    variables = {"GIT_LFS_SKIP_SMUDGE": "1"}
    for command in (("git", "init", "-q", "-b", "main"), ("git", "lfs", "install", "--local")):
        timed(root, home, *command)
    (root / ".gitattributes").write_text(LFS_ATTRIBUTES)
    for path in paths:
        shutil.copyfile(path, root / MODEL)
        timed(root, home, "git", "add", "-A")
        timed(root, home, "git", "commit", "-q", "-m", path.stem)

    def put(place: Path) -> float:
        timed(root, home, "git", "init", "-q", "--bare", "-b", "main", str(place))
        return timed(root, home, "git", "push", "-q", place.as_uri(), "main")

    def get(place: Path) -> tuple[float, Path]:
        other = folder / "lfs-clone"
        shutil.rmtree(other, ignore_errors=True)
        timed(folder, home, "git", "clone", "-q", place.as_uri(), str(other), **variables)
        timed(other, home, "git", "lfs", "install", "--local", "--skip-smudge")
        return timed(other, home, "git", "lfs", "pull"), other / MODEL

    return Store("git-lfs", folder / "git-lfs-store", put, get)


def backup(folder: Path, home: Path, paths: Sequence[Path], tool: str) -> Store:
    """Snapshots of a folder, one for each commit."""
    root, out = folder / f"{tool}-source", folder / f"{tool}-out"
    variables = {**RESTIC_PASSWORD, **BORG_YES}
    restic = ("restic", "--no-cache", "--quiet", "--repo")

    def put(place: Path) -> float:
        root.mkdir(exist_ok=True)
        init = (*restic, str(place), "init") if tool == "restic" else ("borg", "init", "-e", "none", str(place))
        timed(folder, home, *init, **variables)
        seconds = 0.0
        for number, path in enumerate(paths):
            shutil.copyfile(path, root / MODEL)
            taken = (
                (*restic, str(place), "backup", MODEL)
                if tool == "restic"
                else ("borg", "create", f"{place}::{number}", MODEL)
            )
            seconds += timed(root, home, *taken, **variables)
        return seconds

    def get(place: Path) -> tuple[float, Path]:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        command = (
            (*restic, str(place), "restore", "latest", "--target", str(out))
            if tool == "restic"
            else ("borg", "extract", f"{place}::{len(paths) - 1}")
        )
        return timed(out, home, *command, **variables), out / MODEL

    return Store(tool, folder / f"{tool}-store", put, get)


def timed(folder: Path, home: Path, *command: str, **variables: str) -> float:
    """Seconds of a whole process that must succeed."""
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment(home) | variables, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stderr}")
    return seconds


def md5_of(path: Path) -> str:
    """Of a file that fits into memory."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main()
