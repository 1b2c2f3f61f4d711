"""Rules on single metrics: floors, ceilings, and the difference to the champion."""

from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_fields import Amount, exact
from holdfast.registry.gate_rules import MetricRule
from holdfast.registry.gate_verdict import Finding, apart, say

NO_CHAMPION = "there is no champion to compare with"


def judge_metric(rule: MetricRule, candidate: Evidence, champion: Evidence | None) -> list[Finding]:
    """One finding for each thing that the rule asks for; numbers are compared as the decimals they are written as."""
    findings = []
    if rule.required:
        findings.append(_required(rule, candidate))
    if rule.floor is not None:
        findings.append(_limit(rule, "floor", rule.floor, candidate))
    if rule.ceiling is not None:
        findings.append(_limit(rule, "ceiling", rule.ceiling, candidate))
    for key, margin in (("improvement", rule.improvement), ("tolerance", rule.tolerance)):
        if margin is not None:
            findings.append(_against(rule, key, margin, candidate, champion))
    return findings


def _required(rule: MetricRule, candidate: Evidence) -> Finding:
    value, name = candidate.metric(rule.name), f"metrics.{rule.name}.required"
    if value is None:
        return Finding(name, "fail", candidate.why_no(rule.name))
    return Finding(name, "pass", f"{rule.name} is {say(value)}", {"value": value})


def _limit(rule: MetricRule, key: str, limit: float, candidate: Evidence) -> Finding:
    name, value = f"metrics.{rule.name}.{key}", candidate.metric(rule.name)
    if value is None:
        return Finding(name, "inconclusive", candidate.why_no(rule.name), {"limit": limit})
    shown, bound = apart(value, limit)
    below, above = exact(value) < exact(limit), exact(value) > exact(limit)
    failed = below if key == "floor" else above
    place = "below" if below else "above" if above else "at"
    reason = f"{rule.name} is {shown}, {place} its {key} of {bound}"
    return Finding(name, "fail" if failed else "pass", reason, {"value": value, "limit": limit})


def _against(rule: MetricRule, key: str, margin: Amount, candidate: Evidence, champion: Evidence | None) -> Finding:
    name, value = f"metrics.{rule.name}.{key}", candidate.metric(rule.name)
    if value is None:
        return Finding(name, "inconclusive", candidate.why_no(rule.name))
    if champion is None:
        return Finding(name, "pass", NO_CHAMPION, {"value": value})
    other = champion.metric(rule.name)
    if other is None:
        return Finding(name, "inconclusive", champion.why_no(rule.name), {"value": value})
    if key == "improvement" and margin.relative and not other:
        reason = f"{rule.name} of {champion.name} is 0, of which no share can be taken"
        return Finding(name, "inconclusive", reason, {"value": value, "champion": other})
    difference = exact(value) - exact(other)
    gain = difference if rule.direction == "max" else -difference
    limit = margin.of(other)
    passed = gain >= (limit if key == "improvement" else -limit)
    wanted = f"at least {margin} better is asked for" if key == "improvement" else f"at most {margin} worse is allowed"
    shown, compared = apart(value, other)
    if not difference:
        told = f"{rule.name} is {shown}, the same as {champion.name}'s"
    else:
        told = (
            f"{rule.name} is {shown} against {compared} of {champion.name}, {say(abs(float(gain)))} "
            f"{'better' if gain > 0 else 'worse'}"
        )
    numbers = {"value": value, "champion": other, "difference": float(difference), "limit": float(limit)}
    return Finding(name, "pass" if passed else "fail", f"{told}; {wanted}", numbers)
