"""Whether a candidate may be promoted: each rule's verdict, its numbers and its reason.

`judge` takes what is known and decides; it reads nothing and changes nothing. What it needs comes from
`holdfast.registry.gate_rules.read_rules`, `holdfast.registry.gate_predictions.read_predictions` and
`holdfast.registry.gate_contract.file_facts`.
"""

import math

from holdfast.registry.gate_bootstrap import Estimate, UnknownStatisticError, estimate
from holdfast.registry.gate_classes import judge_classes
from holdfast.registry.gate_contract import Contract, TensorSpec, broken_promises
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_fields import exact
from holdfast.registry.gate_metrics import NO_CHAMPION, judge_metric
from holdfast.registry.gate_predictions import PairingError, Pairs, pair
from holdfast.registry.gate_rules import BootstrapRule, GateRules
from holdfast.registry.gate_verdict import Finding, Judgement, Number, Verdict, apart, named, say

ROUNDING = 1e-12


def judge(rules: GateRules, candidate: Evidence, champion: Evidence | None = None) -> Judgement:
    """Judge a candidate.

    Args:
        rules: what is asked for.
        candidate: what is known of it.
        champion: what is known of the model that it would replace; None where there is none, and then rules that
            compare pass.

    Returns:
        One finding a rule, in the order of the rules. The same arguments give the same judgement, whatever the order
        of the predictions' rows.
    """
    findings: list[Finding] = []
    for metric in rules.metrics:
        findings += judge_metric(metric, candidate, champion)
    for scores in rules.classes:
        findings += judge_classes(scores, candidate, champion)
    for bootstrap in rules.bootstrap:
        findings += _bootstrap(bootstrap, candidate, champion)
    findings += _file(rules, candidate)
    if rules.card:
        findings.append(_card(rules.card, candidate))
    if rules.contract is not None:
        findings += _contract(rules.contract, candidate)
    return Judgement(tuple(findings), None if champion is None else champion.name)


def _bootstrap(rule: BootstrapRule, candidate: Evidence, champion: Evidence | None) -> list[Finding]:
    name = f"bootstrap.{rule.statistic}"
    findings = []
    if rule.required:
        missing = candidate.predictions is None
        told = f"{candidate.name} has {'no' if missing else 'its'} predictions"
        findings.append(Finding(f"{name}.required", "fail" if missing else "pass", told))
    return [*findings, _compared(name, rule, candidate, champion)]


def _compared(name: str, rule: BootstrapRule, candidate: Evidence, champion: Evidence | None) -> Finding:
    if candidate.predictions is None:
        return Finding(name, "inconclusive", f"{candidate.name} has no predictions")
    if champion is None:
        return Finding(name, "pass", NO_CHAMPION, {"samples": len(candidate.predictions.ids)})
    if champion.predictions is None:
        return Finding(name, "inconclusive", f"{champion.name} has no predictions")
    try:
        pairs = pair(candidate.predictions, champion.predictions, champion.name)
    except PairingError as error:
        return Finding(name, "inconclusive", error.message)
    count: dict[str, Number] = {"samples": len(pairs)}
    if len(pairs) < rule.minimum_samples:
        reason = f"the test set has {len(pairs)} samples, and {rule.minimum_samples} are needed"
        return Finding(name, "inconclusive", reason, count)
    return _by_interval(name, rule, pairs, champion.name)


def _by_interval(name: str, rule: BootstrapRule, pairs: Pairs, champion: str) -> Finding:
    try:
        found = estimate(pairs, rule.statistic, confidence=rule.confidence, resamples=rule.resamples, seed=rule.seed)
    except UnknownStatisticError as error:
        return Finding(name, "inconclusive", str(error), {"samples": len(pairs)})
    numbers: dict[str, Number] = {"samples": found.samples, "differing": found.differing}
    if not (math.isfinite(found.candidate) and math.isfinite(found.champion)):
        return Finding(name, "inconclusive", f"the mean {rule.statistic} is no finite number", numbers)
    numbers |= {"value": found.candidate, "champion": found.champion, "difference": found.difference}
    if not found.differing:
        reason = f"the two do not differ in any of {found.samples} samples: nothing tells them apart"
        return Finding(name, "inconclusive", reason, numbers)
    if found.differing < rule.minimum_differing:
        reason = (
            f"the two differ in {found.differing} of {found.samples} samples, and {rule.minimum_differing} are needed"
        )
        return Finding(name, "inconclusive", reason, numbers)
    if not found.lower < found.upper:
        return Finding(name, "inconclusive", "the bootstrap degenerates: the interval has no width", numbers)
    numbers |= {"lower": found.lower, "upper": found.upper, "confidence": rule.confidence, "method": found.method}
    verdict, limit = decide(rule, found)
    return Finding(name, verdict, _told(rule, found, champion, verdict), numbers | {"limit": limit})


def decide(rule: BootstrapRule, found: Estimate) -> tuple[Verdict, float]:
    """The verdict by an interval, and the gain that all of it must show; one that only touches it leaves that open."""
    low, high = (found.lower, found.upper) if rule.direction == "max" else (-found.upper, -found.lower)
    # what differs by the rounding of floats alone is equal
    hair = ROUNDING * max(abs(found.candidate), abs(found.champion))
    if rule.tolerance is not None:
        limit = -float(rule.tolerance.of(found.champion))
        reached = low >= limit - hair
    else:
        limit = 0.0 if rule.improvement is None else float(rule.improvement.of(found.champion))
        reached = low > limit + hair
    return ("pass" if reached else "fail" if high < limit - hair else "inconclusive"), limit


def _told(rule: BootstrapRule, found: Estimate, champion: str, verdict: Verdict) -> str:
    gain = found.difference if rule.direction == "max" else -found.difference
    values = apart(found.candidate, found.champion)
    interval = f"{say(found.lower)} to {say(found.upper)}"
    if rule.tolerance is not None:
        wanted = f"at most {rule.tolerance} worse is allowed"
        sure = {"pass": "stays within that", "fail": "lies beyond that", "inconclusive": "leaves that open"}[verdict]
    else:
        wanted = (
            f"more than {rule.improvement} better is asked for" if rule.improvement else "to be better is asked for"
        )
        sure = {"pass": "shows that", "fail": "rules that out", "inconclusive": "leaves that open"}[verdict]
    better = f"{say(abs(gain))} {'better' if gain > 0 else 'worse'}" if gain else "the same"
    return (
        f"{rule.statistic} is {values[0]} against {values[1]} of {champion}, {better}; {wanted}, and the "
        f"{rule.confidence * 100:g} % interval of the difference, {interval}, {sure}"
    )


def _file(rules: GateRules, candidate: Evidence) -> list[Finding]:
    findings = []
    file = candidate.file
    if rules.max_size is not None:
        if file is None:
            findings.append(Finding("max_size", "inconclusive", f"the size of {candidate.name} is not known"))
        else:
            over = file.size > rules.max_size
            reason = f"its file has {file.size:,} bytes, and {rules.max_size:,} are allowed"
            numbers: dict[str, Number] = {"value": file.size, "limit": rules.max_size}
            findings.append(Finding("max_size", "fail" if over else "pass", reason, numbers))
    if rules.max_latency is not None:
        findings.append(_latency(rules.max_latency, candidate))
    if rules.pickle_safe:
        if file is None:
            findings.append(Finding("pickle_safe", "inconclusive", f"the format of {candidate.name} is not known"))
        else:
            held = f"{file.pickles} {'pickle' if file.pickles == 1 else 'pickles'}" if file.pickles else "no pickle"
            safe = "" if file.pickle_safe or file.pickles else ", but the format does not exclude one"
            verdict: Verdict = "pass" if file.pickle_safe else "fail"
            findings.append(Finding("pickle_safe", verdict, f"its file is {file.format} and holds {held}{safe}"))
    return findings


def _latency(limit: float, candidate: Evidence) -> Finding:
    seconds = candidate.latency
    if seconds is None:
        return Finding("max_latency", "inconclusive", f"the latency of {candidate.name} was not measured")
    if not 0 < seconds < math.inf:
        return Finding("max_latency", "inconclusive", f"the latency of {candidate.name} is {seconds}, no time")
    shown, bound = apart(seconds * 1000, limit * 1000)
    reason = f"a prediction takes {shown} ms on the CPU, and {bound} ms are allowed"
    over = exact(seconds) > exact(limit)
    return Finding("max_latency", "fail" if over else "pass", reason, {"value": seconds, "limit": limit})


def _card(required: tuple[str, ...], candidate: Evidence) -> Finding:
    if candidate.card_lacks is None:
        return Finding("card", "fail", f"{candidate.name} has no model card, which must say {named(required)}")
    lacks = [name for name in required if name in candidate.card_lacks]
    if lacks:
        return Finding("card", "fail", f"the model card does not say {named(lacks)}", {"missing": len(lacks)})
    return Finding("card", "pass", f"the model card says {named(required)}", {"missing": 0})


def _contract(contract: Contract, candidate: Evidence) -> list[Finding]:
    given = candidate.interface or Contract()
    tensors = given.tensors or (candidate.file.tensors if candidate.file is not None else {})
    parts = (
        ("inputs", contract.inputs, given.inputs),
        ("outputs", contract.outputs, given.outputs),
        ("tensors", contract.tensors, tensors),
    )
    findings = []
    for part, wanted, found in parts:
        if wanted:
            findings.append(_kept(f"contract.{part}", part, dict(wanted), dict(found), candidate.name))
    return findings


def _kept(name: str, part: str, wanted: dict[str, TensorSpec], found: dict[str, TensorSpec], who: str) -> Finding:
    if not found:
        return Finding(name, "inconclusive", f"the {part} of {who} are not known")
    broken = broken_promises(wanted, found, exhaustive=part == "inputs")
    if broken:
        return Finding(name, "fail", "; ".join(broken[:3]) + _rest(broken), {"broken": len(broken)})
    return Finding(name, "pass", f"{named([f'{key} is {spec}' for key, spec in found.items() if key in wanted])}")


def _rest(clauses: list[str]) -> str:
    return f"; and {len(clauses) - 3} more" if len(clauses) > 3 else ""
