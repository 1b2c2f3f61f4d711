"""What a doctor finds: a check, a verdict, one sentence, and the command that mends it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "warning", "fault"]
Health = Literal["healthy", "impaired", "broken"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at, in a word or two.
        verdict: ``ok``; ``note`` where it is good to know; ``warning`` where something works worse than it should, or
            not everywhere; ``fault`` where the remote cannot be used.
        says: one sentence, without a secret.
        mend: the command, or the step, that mends it; empty where nothing is to be mended.
    """

    check: str
    verdict: Verdict
    says: str
    mend: str = ""


def health(findings: Iterable[Finding]) -> Health:
    """``broken`` with a fault, ``impaired`` with a warning, else ``healthy``."""
    verdicts = {finding.verdict for finding in findings}
    return "broken" if "fault" in verdicts else "impaired" if "warning" in verdicts else "healthy"
