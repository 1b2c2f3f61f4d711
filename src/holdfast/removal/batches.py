"""What a quarantine is made of: for each batch its plan, its things, and the word that it is complete."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime

from holdfast.errors import HoldfastError, IntegrityError, LockedError, UsageError
from holdfast.removal.place import Moved

PLAN = "plan.json"
APPLIED = "applied.json"
THINGS = "things"
KEYS = "keys"  # of names that are digests
COMING = "coming"  # copies that are not whole yet
GONE = "gone"  # what is being deleted
LOCK = "lock"
CLOCK = "clock"  # where a bucket is asked for the time
APPLIED_VERSION = 1

_ID = re.compile(r"[0-9a-f]{16,64}")


class RemovalError(HoldfastError):
    """A place or its quarantine cannot be worked on."""


class OtherPlanError(IntegrityError):
    """Another plan has this batch's id."""


def batch_id(plan: bytes) -> str:
    """The id of the batch that a plan makes: 32 hex digits."""
    return hashlib.sha256(plan).hexdigest()[:32]


def is_batch(name: str) -> bool:
    """Whether a folder of a quarantine has a batch's name."""
    return _ID.fullmatch(name) is not None


def check_batch(batch: str) -> str:
    """The id, if a batch can have it.

    Raises:
        UsageError: it cannot.
    """
    if not is_batch(batch):
        raise UsageError(f"{batch!r} is not the id of a batch: 16 to 64 hex digits")
    return batch


def check_plan(batch: str, there: bytes, plan: bytes) -> None:
    """See that a batch which exists is that of this plan.

    Raises:
        OtherPlanError: it is not.
    """
    if there != plan:
        raise OtherPlanError(
            f"the plan in quarantine {batch} is another one", hint="Restore or purge what waits there first"
        )


def applied_record(moved: Moved, time: datetime) -> bytes:
    """What ``applied.json`` says: how much went, what was left and why, and when that was so."""
    record = {
        "version": APPLIED_VERSION,
        "time": time.isoformat(),
        "things": len(moved.done),
        "bytes": moved.bytes,
        # keys that are no Unicode are escaped as JSON has it
        "left": [list(item) for item in moved.left],
    }
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode("ascii")


def not_waiting(keys: Sequence[str], batch: str) -> tuple[tuple[str, str], ...]:
    """What is said of keys that are not in a batch."""
    return tuple((key, f"it does not wait in {batch}") for key in keys)


class QuarantineLockedError(LockedError):
    """Another process is at work in the quarantine."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"{name} is in use by {holder}", hint="Run the command again when that one is done")
