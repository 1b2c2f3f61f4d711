"""The paired bootstrap against closed forms, other software and simulated worlds in which the truth is known."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from holdfast.compare.equivalence_predictions import Accuracy
from holdfast.registry import gate_bootstrap
from holdfast.registry.gate import decide, judge
from holdfast.registry.gate_bootstrap import BCA_MAX_SAMPLES, Estimate, estimate
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_fields import Amount
from holdfast.registry.gate_predictions import Pairs, Predictions, pair
from holdfast.registry.gate_rules import BootstrapRule, GateRules

ALPHA = 0.05
SLACK = 0.015
FEW = 999  # draws


def table(both: int, ours: int, theirs: int, neither: int) -> Pairs:
    """Pairs by how many samples both, only one, or none of two models has right."""
    right = np.array([[1, 1]] * both + [[1, 0]] * ours + [[0, 1]] * theirs + [[0, 0]] * neither)
    labels = np.ones(len(right), np.int64)
    return Pairs(("no", "yes"), labels, (right[:, 0], right[:, 1]), None, {})


def numbers(ours: np.ndarray, theirs: np.ndarray) -> Pairs:
    labels = np.zeros(ours.size, np.int64)
    return Pairs(("x",), labels, (labels, labels), None, {"error": (ours, theirs)})


def estimated(pairs: Pairs, statistic: str, *, resamples: int = 9999, confidence: float = 0.95) -> Estimate:
    return estimate(pairs, statistic, confidence=confidence, resamples=resamples, seed=0)


@pytest.mark.parametrize("split", [(30, 20), (60, 60), (100, 40), (10, 80)])
def test_accuracy_against_the_paired_normal_interval(split: tuple[int, int]) -> None:
    only_a, only_b = split
    found = estimated(table(1500 - only_a, only_a, only_b, 500 - only_b), "accuracy")

    # the variance of a difference of paired proportions: A. Agresti, Categorical Data Analysis (2013), 11.1
    difference = (only_a - only_b) / 2000
    spread = stats.norm.ppf(0.975) * np.sqrt(only_a + only_b - (only_a - only_b) ** 2 / 2000) / 2000
    assert found.difference == pytest.approx(difference)
    assert found.lower == pytest.approx(difference - spread, abs=0.0013)
    assert found.upper == pytest.approx(difference + spread, abs=0.0013)
    assert (found.samples, found.differing, found.method) == (2000, only_a + only_b, "bca")


def test_a_mean_against_the_paired_t_interval() -> None:
    generator = np.random.default_rng(3)
    shared = generator.gamma(2, size=500)
    ours, theirs = shared + generator.normal(0, 0.3, 500), shared + generator.normal(0.05, 0.3, 500)

    found = estimated(numbers(ours, theirs), "error")
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), abs=0.003)
    unpaired = stats.ttest_ind(ours, theirs).confidence_interval(0.95)
    assert found.upper - found.lower < 0.25 * (unpaired.high - unpaired.low)


def test_wider_for_more_confidence() -> None:
    pairs = table(300, 30, 20, 50)
    found = [estimated(pairs, "accuracy", confidence=confidence) for confidence in (0.5, 0.8, 0.95, 0.99)]
    assert all(wide.lower < narrow.lower for narrow, wide in itertools.pairwise(found))
    assert all(wide.upper > narrow.upper for narrow, wide in itertools.pairwise(found))


def test_verdicts_agree_with_mcnemar() -> None:
    rules = GateRules(bootstrap=(BootstrapRule("accuracy", "max"),))
    checked = 0
    for only_a in range(0, 41, 8):
        for only_b in range(0, 41, 8):
            if only_a + only_b < 10:
                continue
            p_value = Accuracy(300, only_a, only_b, 60).p_value
            verdict = judge(rules, *evidence(table(300, only_a, only_b, 60))).verdict
            if p_value < 0.03:
                assert verdict == ("pass" if only_a > only_b else "fail"), (only_a, only_b, p_value)
                checked += 1
            elif p_value > 0.08:
                assert verdict == "inconclusive", (only_a, only_b, p_value)
                checked += 1
    assert checked > 25


def evidence(pairs: Pairs) -> tuple[Evidence, Evidence]:
    """A candidate and a champion with these pairs' predictions, in two different orders."""
    ids = [f"s{number:05d}" for number in range(len(pairs))]
    made = []
    for which, name in enumerate(("the candidate", "v2")):
        order = np.random.default_rng(which).permutation(len(pairs))
        made.append(
            Evidence(
                name,
                predictions=Predictions(
                    tuple(ids[place] for place in order),
                    tuple(pairs.classes[code] for code in pairs.labels[order]),
                    tuple(pairs.classes[code] for code in pairs.predictions[which][order]),
                    columns={key: values[which][order] for key, values in pairs.columns.items()},
                ),
            )
        )
    return made[0], made[1]


def labelled(classes: int, shares: list[float], right: tuple[float, float], count: int, seed: int) -> Pairs:
    """Two models that are right independently with these probabilities, on classes of these shares."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, count, p=shares)
    said = []
    for share in right:
        other = (labels + generator.integers(1, classes, count)) % classes
        said.append(np.where(generator.random(count) < share, labels, other))
    return Pairs(tuple("abcdefghij"[:classes]), labels, (said[0], said[1]), None, {})


def test_macro_f1_against_scikit_learn() -> None:
    pairs = labelled(4, [0.6, 0.3, 0.08, 0.02], (0.85, 0.8), 400, 5)
    found = estimated(pairs, "macro_f1")

    def difference(rows: np.ndarray) -> float:
        ours, theirs = (
            f1_score(pairs.labels[rows], said[rows], labels=range(4), average="macro", zero_division=0)
            for said in pairs.predictions
        )
        return float(ours - theirs)

    assert found.difference == pytest.approx(difference(np.arange(400)), abs=1e-12)
    generator = np.random.default_rng(9)
    draws = [difference(generator.integers(0, 400, 400)) for _ in range(400)]
    expected = np.percentile(draws, [2.5, 97.5])
    assert (found.lower, found.upper) == pytest.approx(tuple(expected), abs=0.03)
    assert found.differing == int(np.count_nonzero(pairs.predictions[0] != pairs.predictions[1]))


def test_macro_f1_is_over_the_classes_of_the_test_set() -> None:
    # nobody is a c; the candidate says c once, which costs b's recall and nothing else
    labels = np.array([0, 0, 0, 1, 1, 1])
    said = np.array([0, 0, 0, 1, 1, 2])
    pairs = Pairs(("a", "b", "c"), labels, (said, labels), None, {})

    found = estimated(pairs, "macro_f1", resamples=FEW)
    assert found.candidate == pytest.approx((1 + 0.8) / 2)
    assert found.champion == 1


def test_loss_is_the_mean_log_loss() -> None:
    truth = np.array([0.5, 0.25, 1.0, 0.0])
    labels = np.zeros(4, np.int64)
    pairs = Pairs(("x",), labels, (labels, labels), (truth, np.full(4, 0.5)), {})

    found = estimated(pairs, "loss", resamples=FEW)
    assert found.candidate == pytest.approx((np.log(2) + np.log(4) + 0 - np.log(np.finfo(float).eps)) / 4)
    assert found.champion == pytest.approx(np.log(2))


def test_beyond_bca_the_interval_hardly_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = labelled(3, [0.5, 0.3, 0.2], (0.9, 0.89), 2000, 2)
    bca = [estimated(pairs, statistic, resamples=1999) for statistic in ("accuracy", "macro_f1")]
    monkeypatch.setattr(gate_bootstrap, "BCA_MAX_SAMPLES", 1999)
    plain = [estimated(pairs, statistic, resamples=1999) for statistic in ("accuracy", "macro_f1")]

    assert [e.method for e in (*bca, *plain)] == ["bca", "bca", "percentile", "percentile"]
    for one, other in zip(bca, plain, strict=True):
        assert (one.lower, one.upper) == pytest.approx((other.lower, other.upper), abs=0.001)
    assert BCA_MAX_SAMPLES == 10_000


def test_memory_is_bounded() -> None:
    import tracemalloc

    pairs = table(4000, 300, 200, 500)
    tracemalloc.start()
    estimated(pairs, "accuracy", resamples=FEW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        peak < 100_000_000
    )  # all draws at once would be 5,000 × 999 × 8 bytes, several times over; leaving out, 200 MB


def test_the_seed_decides() -> None:
    pairs = table(300, 30, 20, 50)

    def interval(seed: int) -> tuple[float, float]:
        found = estimate(pairs, "macro_f1", confidence=0.95, resamples=FEW, seed=seed)
        return found.lower, found.upper

    assert interval(0) == interval(0)
    assert interval(0) != interval(1)


COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 25), st.integers(0, 25), st.integers(0, 20)).filter(
    lambda counts: sum(counts) >= 30
)
RULES = GateRules(
    bootstrap=tuple(
        BootstrapRule(name, direction, resamples=FEW, minimum_differing=1)
        for name, direction in (("accuracy", "max"), ("macro_f1", "max"), ("error", "min"))
    )
)


def known(counts: tuple[int, int, int, int], seed: int) -> Pairs:
    generator = np.random.default_rng(seed)
    pairs = table(*counts)
    count = len(pairs)
    labels = generator.integers(0, 2, count)
    said = tuple(np.where(said == 1, labels, 1 - labels) for said in pairs.predictions)
    columns = {"error": (generator.gamma(1, size=count), generator.gamma(1, size=count))}
    return replace(pairs, labels=labels, predictions=(said[0], said[1]), columns=columns)


@settings(max_examples=25, deadline=None)
@given(COUNTS, st.integers(0, 99))
def test_the_order_of_rows_decides_nothing(counts: tuple[int, int, int, int], seed: int) -> None:
    candidate, champion = evidence(known(counts, seed))
    order = np.random.default_rng(seed).permutation(sum(counts))

    def shuffled(before: Evidence) -> Evidence:
        rows = before.predictions
        assert rows is not None
        ids, labels, said = (
            tuple(part[place] for place in order) for part in (rows.ids, rows.labels, rows.predictions)
        )
        columns = {name: values[order] for name, values in rows.columns.items()}
        return replace(before, predictions=Predictions(ids, labels, said, columns=columns))

    expected = judge(RULES, candidate, champion).as_record()
    assert judge(RULES, shuffled(candidate), champion).as_record() == expected
    assert judge(RULES, candidate, shuffled(champion)).as_record() == expected


@settings(max_examples=25, deadline=None)
@given(COUNTS, st.integers(0, 99))
def test_swapped_models_swap_the_sign(counts: tuple[int, int, int, int], seed: int) -> None:
    candidate, champion = evidence(known(counts, seed))
    forth, back = judge(RULES, candidate, champion), judge(RULES, champion, candidate)

    for one, other in zip(forth.findings, back.findings, strict=True):
        assert one.numbers["difference"] == -float(other.numbers["difference"])
        if "lower" in one.numbers:
            mirrored = (-float(other.numbers["upper"]), -float(other.numbers["lower"]))
            assert (one.numbers["lower"], one.numbers["upper"]) == pytest.approx(mirrored, abs=1e-9)
        swapped = {"pass": "fail", "fail": "pass", "inconclusive": "inconclusive"}
        assert other.verdict == swapped[one.verdict]


@settings(max_examples=25, deadline=None)
@given(COUNTS, st.integers(0, 99))
def test_paired_as_it_was_written(counts: tuple[int, int, int, int], seed: int) -> None:
    pairs = known(counts, seed)
    candidate, champion = evidence(pairs)
    assert candidate.predictions is not None
    assert champion.predictions is not None

    again = pair(candidate.predictions, champion.predictions)
    assert [again.classes[code] for code in again.labels] == [pairs.classes[code] for code in pairs.labels]
    assert np.array_equal(again.columns["error"][1], pairs.columns["error"][1])


def equal_models(count: int, differing: float, seed: int) -> Pairs:
    """Two models that are equally often right and differ in this share of the samples."""
    generator = np.random.default_rng(seed)
    draw = generator.random(count)
    ours = np.where(draw < differing / 2, 1, np.where(draw < differing, 0, generator.random(count) < 0.9)).astype(
        np.int64
    )
    theirs = np.where(draw < differing / 2, 0, np.where(draw < differing, 1, ours)).astype(np.int64)
    return Pairs(("no", "yes"), np.ones(count, np.int64), (ours, theirs), None, {})


def declared(count: int, differing: float, pairs: int, *, lead: float = 0) -> dict[str, float]:
    """The share of verdicts over simulated pairs; ``lead`` of the samples only the candidate has right."""
    rules = GateRules(bootstrap=(BootstrapRule("accuracy", "max", resamples=FEW),))
    verdicts = []
    for seed in range(pairs):
        models = equal_models(count, differing, seed)
        better = np.random.default_rng(10**6 + seed).random(count) < lead
        ours, theirs = models.predictions
        models = replace(models, predictions=(np.where(better, 1, ours), np.where(better, 0, theirs)))
        verdicts.append(judge(rules, *evidence(models)).verdict)
    return {verdict: verdicts.count(verdict) / pairs for verdict in ("pass", "inconclusive", "fail")}


def test_equal_models_are_seldom_called_better() -> None:
    shares = declared(200, 0.15, 1000)

    # half of the error on either side
    assert shares["pass"] <= ALPHA / 2 + SLACK
    assert shares["fail"] <= ALPHA / 2 + SLACK
    assert shares["pass"] + shares["fail"] > 0


def test_better_models_are_mostly_called_better() -> None:
    shares = declared(400, 0.10, 60, lead=0.08)

    assert shares["pass"] >= 0.9
    assert shares["fail"] == 0


def test_an_interval_that_touches_decides_nothing() -> None:
    better, worse = BootstrapRule("accuracy", "max"), BootstrapRule("accuracy", "max", tolerance=Amount(0.1))
    more = BootstrapRule("accuracy", "max", improvement=Amount(0.1))
    less = BootstrapRule("loss", "min")
    for rule, lower, upper, expected in (
        (better, 0.0, 0.2, "inconclusive"),
        (better, 1e-17, 0.2, "inconclusive"),
        (better, 1e-6, 0.2, "pass"),
        (better, -0.2, 0.0, "inconclusive"),
        (better, -0.2, -1e-6, "fail"),
        (more, 0.1, 0.2, "inconclusive"),
        (more, 0.11, 0.2, "pass"),
        (more, 0.01, 0.09, "fail"),
        (worse, -0.1, 0.2, "pass"),
        (worse, -0.10000000000000003, 0.2, "pass"),
        (worse, -0.11, 0.2, "inconclusive"),
        (worse, -0.2, -0.1, "inconclusive"),
        (worse, -0.2, -0.11, "fail"),
        (less, -0.2, -1e-6, "pass"),
        (less, 1e-6, 0.2, "fail"),
        (less, -0.2, 0.0, "inconclusive"),
    ):
        assert decide(rule, Estimate(0.9, 0.8, lower, upper, 400, 40, "bca"))[0] == expected, (rule, lower, upper)


@pytest.mark.soak
@pytest.mark.parametrize(("count", "differing"), [(50, 0.3), (100, 0.1), (360, 0.05), (360, 0.2), (1000, 0.02)])
def test_equal_models_at_full_count(count: int, differing: float) -> None:
    shares = declared(count, differing, 2000)

    assert shares["pass"] <= ALPHA + SLACK
    assert shares["pass"] <= ALPHA / 2 + SLACK
    assert shares["fail"] <= ALPHA / 2 + SLACK
