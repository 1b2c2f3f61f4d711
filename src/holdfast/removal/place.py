"""Where things lie that may go, and where they wait once they went."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Progress = Callable[[int, int], object]


def silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A file, a folder or an object of a bucket, as it was when it was planned to go.

    Args:
        key: from the place's top, with slashes. What is no UTF-8 is there as Python has it (surrogate escapes).
        size: bytes; of a folder those of all files in it.
        stamp: names this state of it, opaque: of a file its mtime, inode, mode and size, of a folder these of all in
            it, of an object its etag and time.
        links: other names of the same bytes (hard links), where that is known; 0 for a folder.
    """

    key: str
    size: int
    stamp: str
    links: int = 0


@dataclass(frozen=True)
class Batch:
    """What one plan took away from a place.

    Args:
        id: hex digits, the digest of the plan.
        since: when the last `take` of it began that had something to move, by the place's clock; has a time zone.
        complete: whether all went that was to go.
        plan: the bytes of the plan.
        things: what waits, ordered by key, each as it is where it waits.
    """

    id: str
    since: datetime
    complete: bool
    plan: bytes
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Moved:
    """What a step did.

    Args:
        done: keys that went, came back or were deleted, ordered. Those that an earlier call of `take` moved are among
            them.
        bytes: of these.
        left: keys that were not touched, and why; ordered by key.
    """

    done: tuple[str, ...]
    bytes: int
    left: tuple[tuple[str, str], ...]


class Place(Protocol):
    """A folder or a prefix of a bucket, with its quarantine.

    What lies there is the state: every verb may be called again, by anybody, after it was killed at any step, and goes
    on. ``progress`` is told the bytes done and the bytes to do.

    Raises:
        UnsafeKeyError: a key is absolute, or leads out of the place, or into the quarantine.
        QuarantineLockedError: another process is at work in the quarantine.
        RemovalError: the disk is full, cannot be written, or forbids it. Nothing is lost.
        StoreError: a bucket refuses, or gave no answer. Nothing is lost.
    """

    @property
    def name(self) -> str:
        """For messages."""

    def look(self, keys: Collection[str]) -> dict[str, Thing]:
        """The things of these keys as they are now; those that are not there are left out."""

    def take(self, batch: str, plan: bytes, things: Sequence[Thing], progress: Progress = silent) -> Moved:
        """Move things into the quarantine; one that changed, or that may not be moved, is left.

        Args:
            batch: the id, 16 to 64 hex digits; `batch_id` gives one.
            plan: what is kept with the things; opaque.
            things: as they were planned.
            progress: told of bytes.

        Raises:
            OtherPlanError: another plan has this id.
        """

    def batches(self) -> list[Batch]:
        """What waits, the oldest first. Batches in which nothing waits are left out."""

    def restore(self, batch: str, keys: Collection[str] | None = None, progress: Progress = silent) -> Moved:
        """Put things back, all of the batch where no keys are given; nothing that is there is overwritten.

        Where the place has the same bytes again, these stay and what waited is dropped.
        """

    def purge(self, batch: str, keys: Collection[str] | None = None, progress: Progress = silent) -> Moved:
        """Delete things for good."""

    def now(self) -> datetime:
        """What the place's clock says; has a time zone."""
