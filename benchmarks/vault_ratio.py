"""How small a vault makes histories of models, against DVC's cache, backup tools and compressors on the same files.

    python benchmarks/vault_ratio.py [--history FOLDER] [--published FOLDER] [--only NAME …] [--commits N] [--reduced]

bf16       twelve checkpoints of a language model in bfloat16, each of which replaces the one before (gpt_history.py)
full       the same with AdamW's state, in float32
frozen     six checkpoints of which only the head was trained
weights    the weights alone beside each full checkpoint
published  models that packages carry, in several releases (published.py)
noise      random bytes: the worst there is

Each is committed, version by version, to a new git repository with DVC, and pushed with ``--all-commits`` into a vault
of its own, in a folder; *frozen* is pushed after each commit. Then the vault is repacked. All objects are fetched into
the empty cache of a clone and compared by their md5, before and after. A vault's size is that of all its files.

The peers get the same files in the same order: restic and borg a snapshot for each commit, where they are installed.
BitX is its method as we understand it (bitx.py), each blob against the next newer version at its path, none twice,
without anything that would say where it is. So is the *limit*: the entropy of order 0 of the planes that are coded.

Writes benchmarks/results/vault_ratio.json after each history; ``--only`` measures some of them again. ``--reduced``
takes the newest six versions of two histories, of a model that was trained for a fifth of the steps, and noise.
"""

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import zstandard
from blake3 import blake3

from backup_peers import COMPRESSIONS, Backups, file_sizes
from bitx import bitx_size, huffman
from blobs import Blob, blobs_of, encoded, limit
from gpt_history import REDUCED_SCALE, kept_history
from harness import judge, machine, print_goals, read_results, reducible, versions, write_results
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions
from holdfast.vault.codec_elements import OPAQUE
from holdfast.vault.explain import explain_file
from holdfast.vault.repository import open_vault
from published import FAMILIES, models_of
from vault_worlds import (
    Commit,
    World,
    cache_bytes,
    check_cache,
    clone,
    commit,
    environment,
    folder_bytes,
    holdfast_in,
    project,
)

NAME = "vault_ratio"
KEPT = Path.home() / ".cache" / "holdfast-benchmarks"
NOISE_BYTES = (1_000_000, 8_000_000)
MB = 1_000_000
READS = ("oldest", "newest", "most")

BITX = ("BitX, zstd -3", "BitX, Huffman alone")
BACKUPS = tuple(f"{tool}, {compression}" for tool, all_of_it in COMPRESSIONS.items() for compression in all_of_it)
PUSHED, REPACKED, LIMIT = "vault, at push", "vault, repacked", "limit of order 0"

# how many times smaller, and which share of its size the newest file reads
GOALS = {
    "bf16": {"at push": 2.2, "repacked": 3.0, "BitX": 1.25, "backups": 2.3, "newest": 0.7},
    "full": {"at push": 1.22, "repacked": 1.4, "BitX": 1.04, "backups": 1.25, "newest": 0.85},
}
SHARE_OF_LIMIT = 0.92
# what a checkpoint may cost beyond its changed tensors, and by how much a large file may grow
FROZEN_SPARE_BYTES, WORST_GROWTH, LARGE_BYTES = 16_384, 0.001, 1_000_000

Size = Callable[[Blob, Blob | None], int]


@dataclass(frozen=True)
class History:
    """Versions of files.

    Args:
        title: for people.
        commits: in order, what each puts at which path.
        push_each: push after each commit instead of once.
        first: the target that is pushed before the others.
    """

    title: str
    commits: tuple[Commit, ...]
    push_each: bool = False
    first: str = ""

    def files(self) -> Iterator[tuple[str, Path]]:
        """Path in the repository, and file, of all that is committed, oldest first."""
        for one in self.commits:
            for target, content in one.items():
                if isinstance(content, Path):
                    yield target, content
                else:
                    yield from ((f"{target}/{name}", path) for name, path in content.items())


@dataclass(frozen=True)
class Sources:
    """Where the files come from: the history that was trained, packages that were downloaded; and room for others."""

    trained: Path
    published: Path
    scratch: Path


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=Path, help="made there if it is missing")
    parser.add_argument("--steps", type=float, default=1.0, metavar="SHARE", help="of the training, where it is made")
    parser.add_argument("--commits", type=int, default=0, metavar="N", help="the newest of each history; 0 for all")
    parser.add_argument("--published", type=Path, default=KEPT / "published", help="downloaded there if missing")
    parser.add_argument("--only", nargs="+", choices=HISTORIES, metavar="NAME", help="only these")
    parser.add_argument("--folder", type=Path, help="for temporary files, 3 GB; the system's temporary folder")
    options = reducible(parser, only=["bf16", "full", "noise"], commits=6, steps=REDUCED_SCALE)
    trained = kept_history(options.history, options.steps)
    result: dict[str, Any] = {
        "what": "bytes that histories of models take, and how many times smaller than raw that is",
        "machine": machine(),
        "versions": versions("dvc", "numpy", "pyfastcdc", "torch", "zstandard"),
        "histories": read_results(NAME, options).get("histories", {}) if options.only else {},
    }
    for name in options.only or HISTORIES:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            scratch = Path(folder) / "files"
            scratch.mkdir()
            history = HISTORIES[name](Sources(trained, options.published, scratch))
            history = replace(history, commits=history.commits[-options.commits :])
            figures, tools = measure(history, Path(folder) / "world")
        result["versions"] |= tools
        result["histories"][name] = figures
        show(name, figures)
        result["goals"] = goals(result["histories"])
        write_results(NAME, result, options)
    print_goals(result["goals"])


def show(name: str, figures: Mapping[str, Any]) -> None:
    """Print what was measured of a history."""
    raw = figures["raw bytes"]
    print(f"\n{name}: {figures['title']}, {figures['commits']} commits, {raw / MB:.1f} MB")
    for what, nbytes in figures["stored bytes"].items():
        print(f"  {what:24}" + (f"{nbytes / MB:9.2f} MB {raw / nbytes:8.3f}" if nbytes else f"{'–':>12} {'–':>8}"))
    for when in ("at push", "repacked"):
        if read := figures.get(f"restore {when}"):
            print(f"  restoring, {when}: " + ", ".join(f"{what} {read[what]:.3f}" for what in READS))
    print("  " + ", ".join(f"{what} {taken:.1f} s" for what, taken in figures["seconds"].items()), flush=True)


# --- the histories ----------------------------------------------------------------------------------------------------


def checkpoints(sources: Sources, kind: str) -> list[Path]:
    """The checkpoints of a kind that were trained, oldest first."""
    return sorted((sources.trained / kind).glob("*.pt"))


def one_model(kind: str, title: str, *, push_each: bool = False) -> Callable[[Sources], History]:
    """Checkpoints that replace one another at one path."""
    return lambda sources: History(
        title, tuple({"model.pt": path} for path in checkpoints(sources, kind)), push_each=push_each
    )


def weights_beside(sources: Sources) -> History:
    """Full checkpoints, and the weights alone."""
    both = zip(checkpoints(sources, "full"), checkpoints(sources, "weights"), strict=True)
    commits = tuple({"model.pt": full, "weights.pt": weights} for full, weights in both)
    return History("fp32 weights alone beside those with AdamW's state", commits, first="model.pt")


def releases(sources: Sources) -> History:
    """Published models, a commit for each release."""
    commits = tuple(
        {f"models/{family}": models_of(package, sources.published)}
        for family, packages in FAMILIES.items()
        for package in packages
    )
    return History("published models in several releases", commits)


def noise(sources: Sources) -> History:
    """Files that nothing makes smaller."""
    chance = random.Random(0)
    files = {}
    for nbytes in NOISE_BYTES:
        path = sources.scratch / f"noise-{nbytes}"
        path.write_bytes(chance.randbytes(nbytes))
        files[path.name] = path
    return History("random bytes", (files,))


HISTORIES: dict[str, Callable[[Sources], History]] = {
    "bf16": one_model("bf16", "bf16 weights"),
    "full": one_model("full", "fp32 weights with AdamW's state"),
    "frozen": one_model("frozen", "fp32, of which the head alone is trained", push_each=True),
    "weights": weights_beside,
    "published": releases,
    "noise": noise,
}


# --- goals ------------------------------------------------------------------------------------------------------------


def goals(histories: Mapping[str, Any]) -> dict[str, Any]:
    """The goals with what was measured."""
    found = {}

    def note(what: str, measured: float | None, relation: Literal["≥", "≤"], goal: float) -> None:
        found[what] = judge(measured, relation, goal)

    for name, wanted in GOALS.items():
        if name not in histories:
            continue
        figures = histories[name]
        stored, ratios = figures["stored bytes"], figures["ratios"]
        repacked = stored[REPACKED]

        def than(*others: str, stored: Mapping[str, Any] = stored, repacked: int | None = repacked) -> float | None:
            best = min((stored[other] for other in others if other in stored), default=None)
            return round(best / repacked, 4) if best and repacked else None

        note(f"{name}: smaller than raw, at push", ratios[PUSHED], "≥", wanted["at push"])
        note(f"{name}: most that a restore reads, at push", figures["restore at push"]["most"], "≤", 1.0)
        note(f"{name}: smaller than raw, repacked", ratios[REPACKED], "≥", wanted["repacked"])
        note(f"{name}: smaller than BitX, repacked", than(*BITX), "≥", wanted["BitX"])
        note(f"{name}: smaller than restic and borg, repacked", than(*BACKUPS), "≥", wanted["backups"])
        note(f"{name}: share of the limit, repacked", than(LIMIT), "≥", SHARE_OF_LIMIT)
        newest = figures["restore repacked"]["newest"] if repacked else None
        note(f"{name}: what restoring the newest reads, repacked", newest, "≤", wanted["newest"])
    if "frozen" in histories:
        figures = histories["frozen"]
        pairs = zip(figures["grown by"], figures["changed blobs' own bytes"], strict=True)
        spare = max(grown - changed for grown, changed in list(pairs)[1:])
        note("frozen: bytes beyond the changed tensors' own, a push", spare, "≤", FROZEN_SPARE_BYTES)
    if "weights" in histories:
        figures = histories["weights"]
        share = figures["grown by"][1] / figures["raw bytes beside"]
        note("weights: share that they cost beside the full ones", round(share, 6), "≤", 0.01)
    growths = [read["own bytes over raw"] for figures in histories.values() for read in reading(figures)]
    note("all: own bytes of a file of 1 MB or more, over raw", max(growths, default=None), "≤", WORST_GROWTH)
    return found


def reading(figures: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was found of restoring, before and after."""
    return [figures[name] for name in ("restore at push", "restore repacked") if name in figures]


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(history: History, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """All figures of a history, and the versions of the tools that are no packages."""
    world = project(folder)
    vault = folder / "vault"
    vault.mkdir()
    url = vault.as_uri()
    backups = Backups(folder / "backups", environment(world.home))
    world.holdfast("vault", "init", url)
    grown: list[int] = []
    seconds: dict[str, float] = {}

    def push(*arguments: str) -> None:
        before, start = folder_bytes(vault), time.perf_counter()
        world.holdfast("push", *arguments, "-r", url)
        seconds["push"] = round(seconds.get("push", 0) + time.perf_counter() - start, 2)
        grown.append(folder_bytes(vault) - before)

    for number, files in enumerate(history.commits):
        commit(world, files, f"version {number}")
        backups.keep(world.root, sorted({target.split("/")[0] for target in files}))
        if history.push_each:
            push()
    if history.first:
        push(history.first, "--all-commits")
    if not history.push_each:
        push("--all-commits")
    files = list(history.files())
    raw = sum(path.stat().st_size for _, path in files)
    figures: dict[str, Any] = {"title": history.title, "commits": len(history.commits), "raw bytes": raw}
    figures["raw bytes beside"] = sum(path.stat().st_size for place, path in files if place != history.first)
    figures["grown by"] = grown
    if history.push_each:
        figures["changed blobs' own bytes"] = changed_bytes(path for _, path in files)
    stored: dict[str, int | None] = {"DVC": cache_bytes(world), **file_sizes(distinct(files)), **backups.sizes()}
    stored |= tensor_sizes(files)
    stored[PUSHED], stored[REPACKED] = folder_bytes(vault), None
    figures |= state(world, vault, url, files, "at push")
    start = time.perf_counter()
    if repacked(world, url):
        seconds["repack and purge"] = round(time.perf_counter() - start, 2)
        stored[REPACKED] = folder_bytes(vault)
        figures |= state(world, vault, url, files, "repacked")
    figures["stored bytes"] = stored
    figures["ratios"] = {what: round(raw / nbytes, 4) if nbytes else None for what, nbytes in stored.items()}
    return figures | {"seconds": seconds}, backups.versions


def state(world: World, vault: Path, url: str, files: Sequence[tuple[str, Path]], when: str) -> dict[str, Any]:
    """What a vault says of itself, what restoring reads, and that everything comes back as it was."""
    said = json.loads(world.holdfast("vault", "stats", "-r", url, "--json").stdout)
    del said["vault"]  # a temporary folder
    seconds, objects = fetched(world, when.replace(" ", "-"), url)
    return {
        f"stats {when}": said,
        f"restore {when}": restores(vault, files),
        f"fetch {when}": {"seconds": seconds, "objects verified": objects},
    }


def fetched(world: World, name: str, url: str) -> tuple[float, int]:
    """Seconds of fetching all into the empty cache of a clone, and how many objects are what they should be."""
    other = clone(world, name)
    start = time.perf_counter()
    other.holdfast("fetch", "--all-commits", "-r", url)
    seconds = time.perf_counter() - start
    return round(seconds, 2), check_cache(other, world)


def repacked(world: World, url: str) -> bool:
    """Repack a vault and take away what that leaves over, where this version can do it."""
    for arguments in (("repack", "--recent", "0"), ("purge", "--older-than", "0")):
        done = holdfast_in(world, "vault", *arguments, "--yes", "-r", url)
        if done.returncode == 2 and "No such command" in done.stderr:
            return False
        assert done.returncode == 0, f"vault {arguments} ended with {done.returncode}: {done.stderr}"
    return True


def restores(vault: Path, files: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    """What restoring each file reads and what its own blobs take, in shares of its size; oldest first."""
    reads, growth = [], 0.0
    with open_vault(open_store(str(vault), StoreOptions()), None) as opened:
        for _, path in files:
            found = explain_file(opened, f"md5:{md5_of(path)}")
            reads.append(round(found.read_bytes / found.size, 4))
            if found.size >= LARGE_BYTES:
                growth = max(growth, found.own_bytes / found.size - 1)
    extremes = {"oldest": reads[0], "newest": reads[-1], "most": max(reads)}
    return {**extremes, "each": reads, "own bytes over raw": round(growth, 6)}


# --- peers without a program of their own -----------------------------------------------------------------------------


def tensor_sizes(files: Iterable[tuple[str, Path]]) -> dict[str, int]:
    """BitX and the limit: each blob against that of the next newer version at the path, none twice."""
    methods: dict[str, Size] = {
        BITX[0]: bitx_size(zstandard.ZstdCompressor(level=3)), BITX[1]: bitx_size(huffman()), LIMIT: limit
    }  # fmt: skip
    by_path: dict[str, list[Path]] = {}
    for place, path in files:
        by_path.setdefault(place, []).append(path)
    stored = dict.fromkeys(methods, 0)
    seen = set()
    for paths in by_path.values():
        newer: Mapping[str, Blob] = {}
        for path in reversed(paths):
            blobs = blobs_of(path)
            for slot, blob in blobs.items():
                digest = blake3(blob.data).digest()
                if digest not in seen:
                    seen.add(digest)
                    for what, size in methods.items():
                        stored[what] += size(blob, newer.get(slot))
            newer = blobs
    return stored


def changed_bytes(paths: Iterable[Path]) -> list[int]:
    """What those blobs of each checkpoint's tensors take, encoded alone, that no checkpoint before it has."""
    found, seen = [], set()
    for path in paths:
        new = {blake3(blob.data).digest(): blob for blob in blobs_of(path).values()}
        tensors = [blob for digest, blob in new.items() if digest not in seen and blob.dtype != OPAQUE]
        found.append(sum(encoded(blob, None) for blob in tensors))
        seen |= set(new)
    return found


def distinct(files: Iterable[tuple[str, Path]]) -> list[Path]:
    """One file of each content."""
    return list({md5_of(path): path for _, path in files}.values())


@lru_cache(maxsize=1024)
def md5_of(path: Path) -> str:
    """As DVC names it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main()
