"""What a gate found: a verdict, numbers and one sentence for each rule, and the verdict of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from holdfast.registry.gate_fields import exact

Verdict = Literal["pass", "inconclusive", "fail"]
Number = float | int | str

# numbers that tables of experiments show beside each rule; what was asked for is in the params already, and what was
# measured of the champion is in its own metrics
SHOWN = ("value", "difference", "lower", "upper", "differing", "failed", "class", "missing", "broken")
ORDER: tuple[Verdict, ...] = ("pass", "inconclusive", "fail")
MOST_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """What one rule says of a candidate.

    Attributes:
        rule: its place in ``promote:``: ``metrics.accuracy.floor``.
        verdict: ``pass``, ``inconclusive`` or ``fail``.
        reason: one sentence, without a full stop.
        numbers: what was compared, by name; finite, or text.
    """

    rule: str
    verdict: Verdict
    reason: str
    numbers: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """What a gate says of a candidate.

    Attributes:
        findings: one a rule, in the order of the rules.
        champion: what it was compared with, None where there was none.
    """

    findings: tuple[Finding, ...]
    champion: str | None = None

    @property
    def verdict(self) -> Verdict:
        """The worst of all rules': fail before inconclusive before pass."""
        return worst([finding.verdict for finding in self.findings])

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted; what is inconclusive may not."""
        return self.verdict == "pass"

    def summary(self) -> str:
        """One line that says what stands in the way, or that nothing does."""
        if self.passed:
            count = len(self.findings)
            return "the gate has no rules" if not count else f"passes {count} {'rule' if count == 1 else 'rules'}"
        stopping = [finding for finding in self.findings if finding.verdict == self.verdict]
        more = f" (and {len(stopping) - 1} more)" if len(stopping) > 1 else ""
        return f"{self.verdict}: {stopping[0].rule}: {stopping[0].reason}{more}"

    def lines(self) -> list[str]:
        """One line a rule, for people: verdict, rule, reason."""
        width = max((len(finding.rule) for finding in self.findings), default=0)
        return [f"{finding.verdict:<12}  {finding.rule:<{width}}  {finding.reason}" for finding in self.findings]

    def as_metrics(self) -> dict[str, Number]:
        """A flat mapping for a metrics file of DVC's.

        ``verdict`` as text and ``passed`` as 1 or 0; for each rule 1 or 0 (inconclusive is 0) under its name, and those
        of its numbers that are in `SHOWN` under the rule's name and theirs.
        """
        metrics: dict[str, Number] = {"verdict": self.verdict, "passed": int(self.passed)}
        if self.champion is not None:
            metrics["champion"] = self.champion
        for finding in self.findings:
            metrics[finding.rule] = int(finding.verdict == "pass")
            numbers = finding.numbers.items()
            metrics.update({f"{finding.rule}.{name}": value for name, value in numbers if name in SHOWN})
        return metrics

    def as_record(self) -> dict[str, Any]:
        """What the registry keeps of it beside a version: plain values, every number and every reason."""
        record: dict[str, Any] = {"verdict": self.verdict}
        if self.champion is not None:
            record["champion"] = self.champion
        record["rules"] = {
            finding.rule: {"verdict": finding.verdict, "reason": finding.reason, **finding.numbers}
            for finding in self.findings
        }
        return record


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Fail before inconclusive before pass; pass where there are none."""
    return max(verdicts, key=ORDER.index, default="pass")


def say(value: float) -> str:
    """A number in four significant digits."""
    return f"{value:.4g}"


def apart(value: float, other: float) -> tuple[str, str]:
    """Two numbers in as many digits as tell them apart, at least four significant ones."""
    value, other = value + 0.0, other + 0.0  # zero has no sign for people
    for digits in range(4, 17):
        texts = f"{value:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1] or exact(value) == exact(other):
            return texts
    return repr(value), repr(other)


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
