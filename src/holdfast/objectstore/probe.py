"""A trial of a store: what is asked of it is timed, counted and cleared away, whatever interrupts it."""

import math
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from holdfast.errors import HoldfastError
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, StoreError, UnreachableError
from holdfast.objectstore.usage import Prices

Result = TypeVar("Result")

DOCTOR_FOLDER = ".holdfast-doctor"
LEFT_AFTER = timedelta(days=1)  # what an earlier trial that was killed left; a younger one may be under way
SETTLE_SECONDS = 90.0
# in R2's terms; deletions are free
WRITES = frozenset({"put", "list", "copy", "part"})
READS = frozenset({"get", "head", "range"})


class StoppedError(Exception):
    """The trial was interrupted: nothing more is asked."""


@dataclass(frozen=True)
class Latency:
    """How long one verb took.

    Attributes:
        verb: ``put``, ``head``, ``get``, ``range``, ``list`` or ``delete``.
        count: how often it was asked.
        p50, p95, p99: seconds, by nearest rank.
    """

    verb: str
    count: int
    p50: float
    p95: float
    p99: float


@dataclass
class Trial:
    """A folder of the store that is this trial's own, and what happened in it. Used by many threads at once.

    Attributes:
        folder: below it lies all that the trial writes.
        timings: seconds by verb, of the rounds alone.
        requests: by verb, all of them.
        failures: passing ones, by what they say; each was asked again.
        bytes_up, bytes_down: of what was sent and read.
    """

    folder: str
    timings: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    requests: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0
    written: set[str] = field(default_factory=set)
    _stopped: bool = False
    _under_way: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def key(self, name: str) -> str:
        """The key of an object of this trial."""
        return f"{self.folder}/{name}"

    def ask(
        self,
        verb: str,
        request: Callable[[], Result],
        *,
        key: str = "",
        up: int = 0,
        down: int = 0,
        timed: bool = False,
    ) -> Result:
        """Make a request, unless the trial was interrupted.

        Args:
            verb: what it counts as.
            request: makes it, with all its attempts.
            key: what it writes.
            up, down: bytes that it sends or reads.
            timed: it is part of the rounds.

        Raises:
            StoppedError: the trial was interrupted.
        """
        with self._changed:
            if self._stopped:
                raise StoppedError
            if key:
                self.written.add(key)
            self._under_way += 1
            self.requests[verb] += 1
        start = time.perf_counter()
        try:
            result = request()
        finally:
            seconds = time.perf_counter() - start
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()
        with self._changed:
            self.bytes_up += up
            self.bytes_down += down
            if timed:
                self.timings[verb].append(seconds)
        return result

    def check(self) -> None:
        """Raise `StoppedError` where the trial was interrupted."""
        if self._stopped:
            raise StoppedError

    def failed(self, error: UnreachableError) -> None:
        """Note a failure that will be asked again."""
        with self._changed:
            self.failures[_kind(error)] += 1

    def stop(self, seconds: float = SETTLE_SECONDS) -> bool:
        """Begin nothing more, and wait for what is under way; whether it ended in time.

        A put that nobody waits for any longer may still arrive after everything was deleted.
        """
        with self._changed:
            self._stopped = True
            return self._changed.wait_for(lambda: self._under_way == 0, seconds)

    def latencies(self) -> list[Latency]:
        """The rounds' latencies, in the order of the verbs' first use."""
        return [
            Latency(verb, len(times), *(percentile(times, share) for share in (0.50, 0.95, 0.99)))
            for verb, times in self.timings.items()
        ]

    def dollars(self, prices: Prices) -> float:
        """What the trial's requests cost."""
        retried = self.failures.total()
        writes = sum(self.requests[verb] for verb in WRITES) + retried
        return prices.requests(writes, sum(self.requests[verb] for verb in READS), self.bytes_down)


@dataclass(frozen=True)
class WatchedRetry(Retry):
    """Asks again as `Retry` does, tells the trial of each failure, and stops when it is interrupted."""

    trial: Trial | None = None

    def run(self, attempt: Callable[[], Result], *, known: bool = True) -> Result:
        """What ``attempt`` returns; see `Retry.run`."""

        def watched() -> Result:
            if self.trial is not None:
                self.trial.check()
            try:
                return attempt()
            except UnreachableError as error:
                if self.trial is not None:
                    self.trial.failed(error)
                raise

        return super().run(watched, known=known)


def percentile(times: Sequence[float], share: float) -> float:
    """The smallest of the times that ``share`` of them do not exceed (nearest rank)."""
    return sorted(times)[max(0, math.ceil(share * len(times)) - 1)]


def interruptibly_run(trial: Trial, work: Callable[[], Result]) -> Result:
    """``work()`` in a thread, so that Ctrl-C reaches the main thread at once, whatever native code is waiting for.

    Raises:
        KeyboardInterrupt: after what was under way has ended.
        Exception: what ``work`` raises.
    """
    done = threading.Event()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="holdfast-doctor", daemon=True).start()
    try:
        done.wait()
    except BaseException:
        trial.stop()
        raise
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def cleared(
    trial: Trial,
    store: ObjectStore,
    *,
    abort_uploads: Callable[[str], None] | None = None,
    folder: Path | None = None,
) -> Iterator[list[str]]:
    """Delete all that the trial wrote when the ``with`` ends, however it ends; yields what could not be deleted.

    Args:
        trial: what was written where.
        store: one that does not stop with the trial.
        abort_uploads: ends the unfinished uploads below a folder; None where there are none.
        folder: the store's own, where it is one: folders that are empty go, too.
    """
    left: list[str] = []
    try:
        yield left
    finally:
        trial.stop()
        if trial.written:
            left += clear(store, trial.folder, trial.written)
            if abort_uploads is not None:
                with suppress(HoldfastError):
                    abort_uploads(trial.folder)
            if folder is not None:
                _remove_empty_folders(folder / trial.folder)


def clear(store: ObjectStore, folder: str, known: set[str]) -> list[str]:
    """Delete ``known`` and whatever else lies in a folder; the keys that are still there."""
    with suppress(HoldfastError):  # what is left is listed below
        store.delete_many(sorted(known))
    try:
        left = [info.key for info in store.list_objects(folder)]
        if left:
            with suppress(HoldfastError):
                store.delete_many(left)
            left = [info.key for info in store.list_objects(folder)]
    except HoldfastError:
        left = [key for key in sorted(known) if _may_be_there(store, key)]
    return left


def clear_old_trials(store: ObjectStore, now: datetime) -> int:
    """Delete what trials left behind that were killed more than a day ago; how many objects.

    Args:
        store: the remote.
        now: by the store's clock.
    """
    old = [info.key for info in store.list_objects(DOCTOR_FOLDER) if now - info.modified > LEFT_AFTER]
    store.delete_many(old)
    return len(old)


def _remove_empty_folders(top: Path) -> None:
    for place, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()
    with suppress(OSError):
        top.parent.rmdir()


def _may_be_there(store: ObjectStore, key: str) -> bool:
    try:
        store.head(key)
    except ObjectNotFoundError:
        return False
    except StoreError:
        return True
    return True


def _kind(error: UnreachableError) -> str:
    """What a passing failure is counted as: the status and code that the message has in brackets, else its end."""
    _, bracket, said = error.message.partition(" (")
    return said.partition(":")[0].rstrip(")") if bracket else error.message.rpartition(": ")[2]
