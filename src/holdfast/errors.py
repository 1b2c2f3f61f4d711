"""Base errors, one for each exit code; leaves live beside the code that raises them.

A message names the object that is at fault; ``hint`` names the way out, most often the next command.
"""

from typing import ClassVar


class HoldfastError(Exception):
    """An expected failure: shown to the user as one line, without a traceback.

    Args:
        message: what is wrong, naming the file, object or model.
        hint: what the user can do about it, most often a command.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class UsageError(HoldfastError):
    """The arguments do not fit together."""

    exit_code = 2


class PartlyDoneError(HoldfastError):
    """Some of what was asked for was done; the message says what was not."""

    exit_code = 3


class NotARepositoryError(HoldfastError):
    """The command needs a git repository with DVC, and there is none here."""

    exit_code = 10


class LockedError(HoldfastError):
    """Another process holds the lock that this one needs."""

    exit_code = 11


class GateRefusedError(HoldfastError):
    """A promotion gate refused the candidate."""

    exit_code = 12


class IntegrityError(HoldfastError):
    """Data is corrupt, truncated or not what its name says."""

    exit_code = 13


class StalePlanError(HoldfastError):
    """The world has changed since the plan was made."""

    exit_code = 14
