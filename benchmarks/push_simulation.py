"""What a push reads of the index of a vault of 10 TB to 1 PB: as it is, and as docs/explanation/scale.md plans it.

    python benchmarks/push_simulation.py [--rounds 20] [--seed 1]

Nothing is stored: blobs, their bytes and those of the index are counted from what real histories took
(benchmarks/results/vault_ratio.json), and a push is drawn. Two vaults of each size: one of *small* checkpoints, with
blobs as the bf16 history of a GPT had them, and one of *large* ones, whose tensors fill blocks of 4 MiB, with the same
ratio. A push sends one checkpoint. A share of its blobs the vault has already: nine of ten of these are in the last
segments of the checkpoint's lineage, which git's history names, the others anywhere.

cached       all segments are here, but those of the pushes since the last visit; what version 1 does
first        all segments are read: what version 1 does the first time
partitions   the index in parts by the first bits of blobs' ids: those that any blob of the push falls into are read
filters      a filter of all ids is here but for what came since; the pages that confirm what it says yes to are read
lineage      the lineage's segments first, then the filter for what is left

The same seed gives the same figures. Writes benchmarks/results/push_simulation.json and tables of
docs/explanation/scale.md.
"""

import argparse
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import scale_page
from harness import digits, judge, machine, quantity, read_results, reducible, versions, write_results
from holdfast.vault.index_runs import run_bytes

TB = 10**12
SIZES = {"10 TB": 10 * TB, "100 TB": 100 * TB, "1 PB": 1000 * TB}
BLOCK_BYTES = 4 << 20
PACK_BYTES = 32 << 20
SHARES = (0.0, 0.1, 0.5, 0.9, 0.99)
LISTED_KEYS = 1000  # of a request that lists
# dollars of R2: a GB-month, a million requests that list or put, a million that get
STORAGE, CLASS_A, CLASS_B = 0.015, 4.50, 0.36


@dataclass(frozen=True)
class Model:
    """What is assumed.

    Attributes:
        checkpoint_blobs: of a push, by kind of vault.
        session_checkpoints: of a session.
        pushes_since: sessions of others since this clone's last visit.
        lineage_segments: that name the blobs of a checkpoint's last versions.
        elsewhere: share of the blobs that the vault has which is not in these.
        partition_bytes: of a part of the index; a request reads one.
        page_bytes: of a part, sorted by id, that a request reads to confirm one blob.
        filter_bits: of a blob in a binary fuse filter with fingerprints of 8 bits.
        false_positives: of such a filter: 2^-8.
    """

    checkpoint_blobs: dict[str, int]
    session_checkpoints: int = 1
    pushes_since: int = 100
    lineage_segments: int = 4
    elsewhere: float = 0.1
    partition_bytes: int = 1 << 20
    page_bytes: int = 16 << 10
    filter_bits: float = 9.02
    false_positives: float = 2**-8


@dataclass(frozen=True)
class Blobs:
    """Bytes of a blob, on average: plain, stored, and in a segment with the pieces of files that it is part of."""

    plain: float
    stored: float
    segment: float


def main() -> None:
    """Count, draw and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="pushes drawn of each kind")
    parser.add_argument("--seed", type=int, default=1)
    options = reducible(parser)
    kinds = blobs_of(read_results("vault_ratio")["histories"]["bf16"])
    model = Model({"small": 10_000, "large": 3_400})
    results: dict[str, Any] = {
        "what": "requests and bytes of the index that a push reads, by the vault's size and the share that it has",
        "machine": machine(),
        "versions": versions("numpy"),
        "model": asdict(model),
        "blobs": {kind: {name: digits(value) for name, value in asdict(blob).items()} for kind, blob in kinds.items()},
        "vaults": {},
        "pushes": {},
        "goals": {},
    }
    for kind, blob in kinds.items():
        for size, stored in SIZES.items():
            name = f"{size}, {kind}"
            vault = vault_of(stored, blob, model, kind)
            results["vaults"][name] = {what: digits(value) for what, value in vault.items()}
            results["pushes"][name] = {
                f"{share:.0%}": pushes(vault, model, kind, share, options.rounds, options.seed) for share in SHARES
            }
    results["measured"] = {
        f"{way}, {what}, half of it known, {name}": quantity([figure], what)
        for name, found in results["pushes"].items()
        for way, figures in found["50%"].items()
        for what, figure in figures.items()
    }
    # what the plan is for: of a vault of 1 PB a push reads less than a thousandth of the index
    for kind in kinds:
        name = f"1 PB, {kind}"
        share = results["pushes"][name]["50%"]["lineage"]["bytes"] / results["vaults"][name]["segment bytes"]
        results["goals"][f"share of the index that a push reads, {name}"] = judge(digits(share), "≤", 0.001)
    write_results("push_simulation", results, options)
    scale_page.update(options)
    for name, found in results["pushes"].items():
        print(name, {what: f"{value:.4g}" for what, value in results["vaults"][name].items()})
        for share, ways in found.items():
            print(
                f"  {share:>4}",
                {way: (figures["requests"], f"{figures['bytes']:.3g}") for way, figures in ways.items()},
            )


def blobs_of(history: dict[str, Any]) -> dict[str, Blobs]:
    """Blobs of small checkpoints as they were measured, and of large ones with the same ratio and index."""
    stats = history["stats at push"]
    count = sum(codec["blobs"] for codec in stats["codecs"].values())
    small = Blobs(stats["plain_bytes"] / count, stats["stored_bytes"] / count, stats["index_bytes"] / count)
    return {"small": small, "large": Blobs(BLOCK_BYTES, BLOCK_BYTES / stats["ratio"], small.segment)}


def vault_of(stored: float, blob: Blobs, model: Model, kind: str) -> dict[str, float]:
    """A vault of so many stored bytes: what it has, and what its index takes and costs."""
    blobs = stored / blob.stored
    sessions = blobs / (model.checkpoint_blobs[kind] * model.session_checkpoints)
    lists, gets = math.ceil(sessions / LISTED_KEYS), sessions
    return {
        "blobs": blobs,
        "plain bytes": blobs * blob.plain,
        "packs": stored / PACK_BYTES,
        "segments": sessions,
        "segment bytes": blobs * blob.segment,
        "local bytes of places": blobs * run_bytes(1, 0) - blobs * run_bytes(0, 0),
        "filter bytes": blobs * model.filter_bits / 8,
        "partitions": blobs * blob.segment / model.partition_bytes,
        "dollars a month": (stored + blobs * blob.segment) / 1e9 * STORAGE,
        "dollars of a first clone": (lists * CLASS_A + gets * CLASS_B) / 1e6,
    }


def pushes(
    vault: dict[str, float], model: Model, kind: str, share: float, rounds: int, seed: int
) -> dict[str, dict[str, float]]:
    """Requests and bytes of a push that has so much in common with the vault: the mean of some."""
    chances = np.random.default_rng([seed, round(vault["blobs"]) % 2**32, round(share * 100)])
    drawn = [one_push(vault, model, model.checkpoint_blobs[kind], share, chances) for _ in range(rounds)]
    return {
        way: {what: digits(float(np.mean([each[way][what] for each in drawn]))) for what in ("requests", "bytes")}
        for way in drawn[0]
    }


def one_push(
    vault: dict[str, float], model: Model, blobs: int, share: float, chances: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Requests and bytes of one push, whatever it does with packs."""
    sessions, partitions = round(vault["segments"]), max(round(vault["partitions"]), 1)
    a_segment = vault["segment bytes"] / vault["segments"]
    since = min(model.pushes_since, sessions)
    lists = math.ceil(sessions / LISTED_KEYS)
    ids = chances.integers(0, 1 << 63, blobs, np.uint64)
    known = chances.random(blobs) < share
    # ids are as good as random, and so are the parts and pages that they fall into
    parts = len(np.unique(ids % np.uint64(partitions)))
    said = known | (chances.random(blobs) < model.false_positives)
    pages_a_part = model.partition_bytes // model.page_bytes
    pages = np.unique(ids[said] % np.uint64(partitions * pages_a_part)).size
    asked = said & ~(known & (chances.random(blobs) >= model.elsewhere))
    fewer = np.unique(ids[asked] % np.uint64(partitions * pages_a_part)).size
    newer = since * a_segment / vault["segment bytes"] * vault["filter bytes"]
    lineage = min(model.lineage_segments, sessions)
    return {
        "cached": {"requests": lists + since, "bytes": since * a_segment},
        "first": {"requests": lists + sessions, "bytes": vault["segment bytes"]},
        "partitions": {"requests": 1 + parts, "bytes": parts * model.partition_bytes},
        "filters": {"requests": 1 + since + pages, "bytes": newer + pages * model.page_bytes},
        "lineage": {
            "requests": 1 + since + lineage + fewer,
            "bytes": newer + lineage * a_segment + fewer * model.page_bytes,
        },
    }


if __name__ == "__main__":
    main()
