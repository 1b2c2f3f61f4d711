"""Rules on each class: a floor, and no class much worse than with the champion."""

from collections.abc import Mapping

from holdfast.inventory.run_record import ClassScore
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_fields import Amount, exact
from holdfast.registry.gate_metrics import NO_CHAMPION
from holdfast.registry.gate_predictions import PairingError, pair
from holdfast.registry.gate_rules import ClassRule, Score
from holdfast.registry.gate_verdict import MOST_NAMED, Finding, Number, Verdict, apart, say, worst

Judged = list[tuple[Verdict, str]]  # a verdict and a clause for each class


def judge_classes(rule: ClassRule, candidate: Evidence, champion: Evidence | None) -> list[Finding]:
    """One finding for the floors and one for the tolerance, as far as the rule has them."""
    findings = []
    if rule.floor is not None or rule.floors:
        findings.append(_floors(rule, candidate))
    if rule.tolerance is not None:
        findings.append(_tolerance(rule, rule.tolerance, candidate, champion))
    return findings


def _floors(rule: ClassRule, candidate: Evidence) -> Finding:
    name, scores = f"classes.{rule.score}.floor", candidate.scores
    floors = {**({} if rule.floor is None else dict.fromkeys(scores, rule.floor)), **rule.floors}
    if not floors:
        return Finding(name, "inconclusive", f"no {rule.score} of any class of {candidate.name} is known")
    judged: Judged = []
    lowest: tuple[float, str, float] | None = None
    for label, floor in floors.items():
        value, unknown = _score(scores.get(label), rule, label, candidate.name)
        if value is None:
            judged.append(("inconclusive", unknown))
            continue
        shown, bound = apart(value, floor)
        failed = exact(value) < exact(floor)
        judged.append(("fail" if failed else "pass", f"{rule.score} of {label} is {shown}, below its floor of {bound}"))
        if lowest is None or value - floor < lowest[0] - lowest[2]:
            lowest = (value, label, floor)
    numbers = _numbers(judged)
    passed = ""
    if lowest is not None:
        numbers |= {"class": lowest[1], "value": lowest[0], "limit": lowest[2]}
        passed = (
            f"{rule.score} of each of {_classes(judged)} reaches its floor; nearest to it is {lowest[1]} with "
            f"{say(lowest[0])}"
        )
    return _finding(name, judged, passed, numbers)


def _tolerance(rule: ClassRule, tolerance: Amount, candidate: Evidence, champion: Evidence | None) -> Finding:
    name = f"classes.{rule.score}.tolerance"
    if champion is None:
        return Finding(name, "pass", NO_CHAMPION)
    if candidate.predictions is not None and champion.predictions is not None:
        try:
            pair(candidate.predictions, champion.predictions, champion.name)
        except PairingError as error:
            return Finding(name, "inconclusive", error.message)
    ours, theirs = candidate.scores, champion.scores
    if not theirs:
        return Finding(name, "inconclusive", f"no {rule.score} of any class of {champion.name} is known")
    judged: Judged = []
    largest: tuple[float, str] | None = None
    for label, score in theirs.items():
        other, unknown = _score(score, rule, label, champion.name)
        if other is None and score.support == 0 and label in ours and ours[label].support == 0:
            continue  # neither was tested on it
        value, missing = _score(ours.get(label), rule, label, candidate.name)
        if value is None or other is None:
            judged.append(("inconclusive", missing or unknown))
            continue
        difference = exact(value) - exact(other)
        shown, compared = apart(value, other)
        clause = f"{rule.score} of {label} fell from {compared} to {shown}, and at most {tolerance} less is allowed"
        judged.append(("fail" if difference < -tolerance.of(other) else "pass", clause))
        if largest is None or float(difference) < largest[0]:
            largest = (float(difference), label)
    if not judged:
        return Finding(name, "inconclusive", f"{candidate.name} and {champion.name} were tested on no class")
    numbers = _numbers(judged)
    passed = ""
    if largest is not None:
        numbers |= {"class": largest[1], "difference": largest[0]}
        fall = f"{largest[1]} lost {say(-largest[0])}" if largest[0] < 0 else "none lost anything"
        passed = f"{rule.score} of each of {_classes(judged)} is at most {tolerance} below {champion.name}'s; {fall}"
    return _finding(name, judged, passed, numbers)


def _score(score: ClassScore | None, rule: ClassRule, label: str, name: str) -> tuple[float | None, str]:
    """The class's score, or None and why."""
    if score is None:
        return None, f"{name} has no class {label}"
    if score.support is not None and score.support < rule.minimum_samples:
        if not score.support:
            return None, f"the test set of {name} has no sample of {label}"
        return None, f"the test set of {name} has {score.support} of {label}, and {rule.minimum_samples} are needed"
    value = _value(score, rule.score)
    # beyond [0, 1], or NaN, it is no score
    if value is None or not 0 <= value <= 1:
        return None, f"no {rule.score} of {label} of {name} is known"
    return value, ""


def _value(score: ClassScore, which: Score) -> float | None:
    return {"precision": score.precision, "recall": score.recall, "f1": score.f1}[which]


def _classes(judged: Judged) -> str:
    return f"{len(judged)} {'class' if len(judged) == 1 else 'classes'}"


def _numbers(judged: Judged) -> dict[str, Number]:
    return {"classes": len(judged), "failed": sum(verdict == "fail" for verdict, _ in judged)}


def _finding(name: str, judged: Judged, passed: str, numbers: Mapping[str, Number]) -> Finding:
    verdict = worst([each for each, _ in judged])
    if verdict == "pass":
        return Finding(name, verdict, passed, numbers)
    clauses = [clause for each, clause in judged if each == verdict]
    return Finding(name, verdict, "; ".join(clauses[: MOST_NAMED - 1]) + _more(clauses), numbers)


def _more(clauses: list[str]) -> str:
    more = len(clauses) - (MOST_NAMED - 1)
    return f"; and {more} more {'class' if more == 1 else 'classes'}" if more > 0 else ""
