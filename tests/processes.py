"""Processes that stop before calls of a store, for as long as others like, and the store that they share."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from faults import WRITES, FaultyStore, Kind, Result
from holdfast.errors import HoldfastError
from holdfast.objectstore.store import (
    GAP_BYTES,
    RANGE_JOBS,
    Data,
    ObjectInfo,
    ObjectNotFoundError,
    TruncatedError,
)
from holdfast.vault.segment import CONDEMNED, INDEX, SESSIONS

# where others may see what a process did, or it sees what others did
TELLING = (INDEX, SESSIONS, CONDEMNED, "roots")


@dataclass
class Clock:
    """What time the store has."""

    now: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass
class ClockedStore:
    """A store in memory whose objects are written when a clock says so. The real one takes a thread for every call.

    Attributes:
        first: when each key was written for the first time.
        changes: grows whenever what there is to read may have changed.
    """

    clock: Clock
    objects: dict[str, tuple[bytes, ObjectInfo]] = field(default_factory=dict)
    url: str = "memory://"
    first: dict[str, datetime] = field(default_factory=dict)
    changes: int = 0

    def head(self, key: str) -> ObjectInfo:
        return self._find(key)[1]

    def get(self, key: str, *, etag: str = "") -> bytes:  # noqa: ARG002
        return self._find(key)[0]

    def get_range(self, key: str, offset: int, count: int, *, etag: str = "") -> bytes:  # noqa: ARG002
        data = self._find(key)[0]
        if offset + count > len(data):
            raise TruncatedError(f"{key} is too short")
        return data[offset : offset + count]

    def get_ranges(
        self,
        key: str,
        spans: Sequence[tuple[int, int]],
        *,
        gap_bytes: int = GAP_BYTES,  # noqa: ARG002
        jobs: int = RANGE_JOBS,  # noqa: ARG002
    ) -> list[memoryview]:
        return [memoryview(self.get_range(key, offset, count)) for offset, count in spans]

    def put(self, key: str, data: Data) -> None:
        data = bytes(data)
        if key.startswith("packs/"):
            # `World.look` decodes what lies at a place once
            assert key not in self.objects or self.objects[key][0] == data, key
        elif key.startswith(INDEX):
            self.changes += 1
        self.first.setdefault(key, self.clock.now)
        self.objects[key] = (data, ObjectInfo(key, len(data), "", self.clock.now))

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def put_if_absent(self, key: str, data: Data) -> bool:
        if key in self.objects:
            return False
        self.put(key, data)
        return True

    def copy(self, source: ObjectInfo, target: str) -> None:
        self.put(target, self._find(source.key)[0])

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            self.changes += 1

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self.delete(key)

    def list_objects(self, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        wanted = f"{prefix}/" if prefix else ""
        keys = sorted(key for key in self.objects if key.startswith(wanted) and key > after)
        return iter([self.objects[key][1] for key in keys])

    def list_folders(self, prefix: str = "") -> list[str]:
        start = len(prefix) + 1 if prefix else 0
        names = {key[start:].partition("/") for key in self.objects if not prefix or key.startswith(f"{prefix}/")}
        return sorted({name for name, slash, _ in names if slash})

    def _find(self, key: str) -> tuple[bytes, ObjectInfo]:
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectNotFoundError(f"{key} is not there") from None


# where a process is likely to stop
PLACES = (INDEX, INDEX, INDEX, SESSIONS, CONDEMNED, "roots")


class Process:
    """What somebody does, in a thread of its own, which runs only while `go_on` waits for it to stop or end.

    Args:
        name: of what it does.
        work: does it.
        chances: what may happen is drawn from it.
    """

    def __init__(self, name: str, work: Callable[[], None], chances: random.Random) -> None:
        self.name, self.ended, self.killed, self.failed = name, False, False, False
        self.at = ""
        self._work, self._random = work, chances
        self._hurries = False
        self._place = self._random.choice(PLACES)
        self._error: BaseException | None = None
        # locks are quicker than semaphores: each is taken by one thread and given back by the other
        self._turn, self._rest = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._rest.acquire()
        kinds: tuple[Kind, ...] = ("refuse", "lose", "duplicate", "delay")
        # a call that is delayed is given up, and arrives later
        self._fault = self._random.choice(kinds)
        self._calls = self._random.randint(1, 40) if self._random.random() < 0.12 else 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def go_on(self, *, hurries: bool) -> None:
        """Let it run until it stops or ends; one that hurries does not stop.

        Raises:
            BaseException: what it raised, unless that is an error which people are told of.
        """
        self._hurries = hurries
        self._turn.release()
        self._rest.acquire()
        if self.ended:
            self._thread.join()
            if self._error is not None:
                raise self._error

    def kill(self) -> None:
        """End it where it is, unless it has ended: nothing that it still wants to do reaches the store."""
        self.killed = True
        if not self.ended:
            self.go_on(hurries=True)

    def called(self, verb: str, key: str) -> Kind | None:
        """A call of the store that it is about to make: whether and how that fails."""
        if not self._hurries and self._random.random() < self._chance_to_stop(verb, key):
            self.at = f"{verb} {key}"
            self._rest.release()
            self._turn.acquire()
        if self.killed:
            return "refuse"
        self._calls -= 1
        return self._fault if self._calls == 0 else None

    def _chance_to_stop(self, verb: str, key: str) -> float:
        """Rather where it matters who comes first, and not everywhere: so that some reach the later places, too."""
        if verb in WRITES and key.startswith(self._place):
            return 0.7
        return 0.05 if key.startswith(TELLING) else 0.02

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._work()
        except HoldfastError:
            self.failed = True
        except BaseException as error:
            self._error = error
        finally:
            self.ended = True
            self._rest.release()


@dataclass
class SteppedStore(FaultyStore):
    """A store whose calls are those of a process, where there is one.

    Attributes:
        late: what was sent and has not arrived.
    """

    process: Process | None = None
    late: list[Callable[[], object]] = field(default_factory=list)

    def _kind(self, verb: str, key: str) -> Kind | None:
        return None if self.process is None else self.process.called(verb, key)

    def _done(self, kind: Kind | None, do: Callable[[], Result], *, writes: bool = False) -> Result:
        if kind == "delay":
            if writes:
                self.late.append(do)
            kind = "refuse"
        return super()._done(kind, do, writes=writes)
