"""What a verification finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        where: a file, or ``app/name@v3``.
        fault: what is wrong, in words.
        hint: what helps; empty where the fault says it.
        certain: False where it could not be looked at, which is no fault.
    """

    where: str
    fault: str
    hint: str = ""
    certain: bool = True
