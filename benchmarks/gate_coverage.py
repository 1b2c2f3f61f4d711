"""How often the promotion gate is wrong: simulated pairs of models of which the truth is known.

    python benchmarks/gate_coverage.py [--pairs 2000] [--resamples 1999] [--processes 2]

Each row is a world: a test set, a statistic, and two models that are equal, or of which the candidate is worse by just
as much as is tolerated. A pass is an error in all of them. Goal: at most α + 1.5 %, where α is 1 - confidence; of the
two-sided interval either side has half of α. Writes benchmarks/results/gate_coverage.json.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import judge as judged
from harness import machine, print_goals, reducible, versions, write_results
from holdfast.registry.gate import judge
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_fields import Amount
from holdfast.registry.gate_predictions import Predictions
from holdfast.registry.gate_rules import BootstrapRule, GateRules

CONFIDENCE = 0.95
SLACK = 0.015
CLASSES = tuple("abcdefghij")

Pair = tuple[Predictions, Predictions]


@dataclass(frozen=True)
class World:
    """What is simulated, how a pair of it is made from a generator, and the rule that judges it."""

    name: str
    make: Callable[[np.random.Generator], Pair]
    rule: BootstrapRule


def predictions(
    labels: npt.NDArray[np.int64], said: npt.NDArray[np.int64], **columns: npt.NDArray[np.float64]
) -> Predictions:
    """Predictions of numbered samples."""
    names = np.array(CLASSES)
    ids = tuple(f"s{number:05d}" for number in range(labels.size))
    return Predictions(ids, tuple(names[labels]), tuple(names[said]), columns=columns)


def answers(generator: np.random.Generator, count: int, differing: float, loss: float = 0.0, classes: int = 10) -> Pair:
    """Two models; one alone is right in a share of ``differing``, the candidate less often than the other by a loss."""
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    labels = generator.choice(classes, count, p=shares)
    draw, both = generator.random(count), generator.random(count) < 0.9
    ours = np.where(draw < (differing - loss) / 2, True, np.where(draw < differing, False, both))
    theirs = np.where(draw < (differing - loss) / 2, False, np.where(draw < differing, True, both))
    wrong = (labels + generator.integers(1, classes, count)) % classes
    return predictions(labels, np.where(ours, labels, wrong)), predictions(labels, np.where(theirs, labels, wrong))


def errors(generator: np.random.Generator, count: int, *, skewed: bool) -> Pair:
    """Two models with equal mean errors: exchangeable, or one a little better mostly and much worse at times."""
    labels = np.zeros(count, np.int64)
    theirs = generator.gamma(2, size=count)
    other = theirs + 1 - generator.exponential(size=count) if skewed else generator.gamma(2, size=count)
    return predictions(labels, labels, error=other), predictions(labels, labels, error=theirs)


def worlds(resamples: int) -> list[World]:
    """All that is measured."""
    accuracy = BootstrapRule("accuracy", "max", confidence=CONFIDENCE, resamples=resamples)
    f1 = BootstrapRule("macro_f1", "max", confidence=CONFIDENCE, resamples=resamples)
    error = BootstrapRule("error", "min", confidence=CONFIDENCE, resamples=resamples)
    within = BootstrapRule("accuracy", "max", tolerance=Amount(0.03), confidence=CONFIDENCE, resamples=resamples)
    equal = [
        World(
            f"equal: accuracy, {count} samples, {share:.0%} differ",
            partial(answers, count=count, differing=share),
            accuracy,
        )
        for count, share in ((50, 0.3), (100, 0.1), (360, 0.02), (360, 0.05), (360, 0.2), (1000, 0.02), (1000, 0.1))
    ]
    equal += [
        World(f"equal: macro F1 of 10 classes, {count} samples", partial(answers, count=count, differing=0.2), f1)
        for count in (100, 360)
    ]
    equal += [
        World(f"equal: {kind} errors, {count} samples", partial(errors, count=count, skewed=kind == "skewed"), error)
        for kind in ("like", "skewed")
        for count in (50, 200)
    ]
    worse = [
        World(
            f"worse by the tolerated 3 %: accuracy, {count} samples, {share:.0%} differ",
            partial(answers, count=count, differing=share, loss=0.03),
            within,
        )
        for count, share in ((360, 0.1), (1000, 0.05), (1000, 0.2))
    ]
    return equal + worse


def verdict(world: World, seed: int) -> str:
    """What the gate says of one simulated pair."""
    ours, theirs = world.make(np.random.default_rng([seed, 2026]))
    candidate, champion = Evidence("the candidate", predictions=ours), Evidence("v1", predictions=theirs)
    return judge(GateRules(bootstrap=(world.rule,)), candidate, champion).verdict


def main() -> None:
    """Simulate, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1999)
    parser.add_argument("--processes", type=int, default=2)
    options = reducible(parser, pairs=100)
    bound = round(1 - CONFIDENCE + SLACK, 6)
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        for world in worlds(options.resamples):
            found = list(pool.map(partial(verdict, world), range(options.pairs), chunksize=50))
            shares = {name: found.count(name) / options.pairs for name in ("pass", "inconclusive", "fail")}
            rows.append({"world": world.name, **shares})
            print(f"{world.name}: passes {shares['pass']:.2%}, fails {shares['fail']:.2%}", flush=True)
    most = max(row["pass"] for row in rows)
    goals = {"most passes of a world where each is an error, share": judged(most, "≤", bound)}
    write_results(
        "gate_coverage",
        {
            "what": "share of verdicts on simulated pairs of models; every pass is an error",
            "machine": machine(),
            "versions": versions("numpy", "scipy"),
            "pairs": options.pairs,
            "resamples": options.resamples,
            "confidence": CONFIDENCE,
            "seconds": round(time.perf_counter() - start),
            "worlds": rows,
            "goals": goals,
        },
        options,
    )
    print_goals(goals)


if __name__ == "__main__":
    main()
