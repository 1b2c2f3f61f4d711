"""Tasks on a Dask cluster: a scheduler that others run, and its workers on however many machines.

Dask carries bytes and knows nothing of what is in them. What it loses, a worker, the scheduler and all it knew, is
handed in again from here, where each task under way is kept until its result is taken.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic
from uuid import uuid4

from holdfast.errors import HoldfastError
from holdfast.executor.connecting import CONNECT_SECONDS, connect, dashboard_of, knock, leave
from holdfast.executor.executor import ATTEMPTS, Item, Result, WorkersLostError
from holdfast.executor.task import Answer, packed_task, run_packed, unpacked_answer
from holdfast.executor.versions import check_versions

AHEAD = 2  # tasks for each thread of the workers that are under way or done before their results are taken
LOOK_SECONDS = 2.0  # between looks at who works
HASTY_SECONDS = 0.1  # the same while nobody does
PATIENCE_SECONDS = 60.0
NAME_CHARACTERS = 80
KEPT = "Run the command again when it is back: what is finished is kept"


class ClusterExecutor:
    """Runs tasks on the workers of a Dask scheduler.

    A scheduler that goes away is waited for, and gets all that was under way again; so are workers, of which there may
    be none at first, as where they are started when there is work. Other versions than those of this process are
    refused.

    Args:
        address: of the scheduler: ``tcp://HOST:PORT``, ``tls://HOST:PORT``. Certificates are Dask's configuration.
        patience: seconds for which a scheduler that went away, or a worker where there is none, is waited for.
    """

    remote = True

    def __init__(self, address: str, *, patience: float = PATIENCE_SECONDS) -> None:
        self.address, self.patience = address, patience
        self.jobs, self.where = 1, address
        self.dashboard: str | None = None
        self.visit = 0  # grows with each connection: a future belongs to the one it was made in
        self._client: Any = None
        self._lock = threading.Lock()
        self._workers: frozenset[str] | None = None  # those whose versions were seen; None where not the scheduler's
        self._looked = self._worked = 0.0

    def __enter__(self) -> "ClusterExecutor":
        """Connect.

        Raises:
            UsageError: its address wants certificates, and there are none.
            WorkersLostError: no scheduler answers there, or it or its workers have other versions than this process.
        """
        try:
            knock(self.address)
            self._client = connect(self.address)
        except HoldfastError:
            raise
        except Exception as error:  # what is no scheduler may answer anything, and Dask may make anything of it
            reason = _reason(error) if isinstance(error, OSError | ValueError) else "something else does"
            raise WorkersLostError(
                f"{self.address}: no Dask scheduler answers there ({reason})",
                hint="`dask scheduler` starts one and says its address",
            ) from error
        try:
            self._worked = time.monotonic()
            self.look()
            self.dashboard = dashboard_of(self._client)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; it forgets what was handed in, and does not begin what has not begun."""
        client, self._client = self._client, None
        if client is not None:
            leave(client)

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, attempts: int = ATTEMPTS
    ) -> Iterator[tuple[Item, Result]]:
        """As of `holdfast.executor.executor.Executor.completed`."""
        with _UnderWay(self, function, attempts) as under_way:
            for number, item in enumerate(items):
                under_way.begin(number, item)
                while under_way.count >= self.ahead():
                    task, answer = under_way.take()
                    yield task.item, answer.result()
            while under_way.count:
                task, answer = under_way.take()
                yield task.item, answer.result()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, attempts: int = ATTEMPTS
    ) -> Iterator[Result]:
        """As of `holdfast.executor.executor.Executor.map`."""
        with _UnderWay(self, function, attempts) as under_way:
            early: dict[int, Answer] = {}

            def answer_of(number: int) -> Answer:
                while number not in early:
                    task, answer = under_way.take()
                    early[task.number] = answer
                return early.pop(number)

            begun = given = 0
            for item in items:
                under_way.begin(begun, item)
                begun += 1
                while begun - given >= self.ahead():
                    given += 1
                    yield answer_of(given - 1).result()
            while given < begun:
                given += 1
                yield answer_of(given - 1).result()

    def ahead(self) -> int:
        """How many tasks may be under way, as of who works now."""
        self.look()
        return self.jobs * AHEAD

    def look(self) -> None:
        """See who works, where that was not seen just now.

        Raises:
            WorkersLostError: nobody has for a while, or one who has come has other versions.
        """
        if time.monotonic() - self._looked < self.pause:
            return
        try:
            threads: dict[str, int] = self.client.nthreads()
        except Exception:  # what waits for a result hears of a scheduler that is away
            return
        self._looked = time.monotonic()
        if not threads:
            if self._looked - self._worked > self.patience:
                raise WorkersLostError(
                    f"{self.address} has had no worker for {self.patience:g} s",
                    hint=f"`dask worker {self.address}` starts one. What is finished is kept",
                )
        else:
            self._worked = self._looked
        if self._workers is None or not self._workers.issuperset(threads):
            check_versions(self.client, self.address)
        self._workers = frozenset(threads)
        self.jobs = max(1, sum(threads.values()))
        self.where = self._described(len(threads))

    def _described(self, workers: int) -> str:
        if not workers:
            return f"{self.address}, which has no workers yet"
        return f"{workers} worker{'' if workers == 1 else 's'} of {self.address}"

    @property
    def pause(self) -> float:
        """Seconds between looks."""
        return LOOK_SECONDS if self._workers else HASTY_SECONDS

    @property
    def client(self) -> Any:
        """The connection there is now."""
        assert self._client is not None, "used outside of its `with`"
        return self._client

    def reconnect(self, visit: int) -> None:
        """Connect again, unless that was done since a visit.

        Raises:
            WorkersLostError: the scheduler did not come back in time.
        """
        with self._lock:
            if self.visit != visit:
                return
            leave(self.client)
            end = time.monotonic() + self.patience
            while True:
                left = end - time.monotonic()
                try:
                    self._client = connect(self.address, max(0.1, min(CONNECT_SECONDS, left)))
                except Exception as error:
                    if left <= 0:
                        raise WorkersLostError(
                            f"{self.address}: the scheduler went away, and is not back after {self.patience:g} s",
                            hint=KEPT,
                        ) from error
                    time.sleep(0.2)
                else:
                    break
            self.visit += 1
            self._workers = None
            self._looked, self._worked = 0.0, time.monotonic()


@dataclass(eq=False)
class _Task(Generic[Item]):
    """A task that has been handed in: its future at Dask, and ours that gets the result from there."""

    number: int
    item: Item
    payload: bytes
    failures: int = 0
    visit: int = 0
    future: Any = None
    fetched: "Future[Any] | None" = None

    def drop(self) -> None:
        """Have the cluster forget it; it does not begin what has not begun."""
        if self.fetched is not None:
            self.fetched.cancel()
        with suppress(Exception):  # a client that is closed has nothing to forget
            self.future.release()
        self.future = self.fetched = None


class _UnderWay(Generic[Item, Result]):
    """The tasks of one iteration whose results were not taken yet."""

    def __init__(self, executor: ClusterExecutor, function: Callable[[Item], Result], attempts: int) -> None:
        self._executor, self._function, self._attempts = executor, function, attempts
        self._name = _name_of(function)
        self._tasks: dict[int, _Task[Item]] = {}
        self._told: SimpleQueue[tuple[_Task[Item], int, Any]] = SimpleQueue()
        self._losses = 0  # since the last result

    def __enter__(self) -> "_UnderWay[Item, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.drop()
        self._tasks.clear()

    @property
    def count(self) -> int:
        return len(self._tasks)

    def begin(self, number: int, item: Item) -> None:
        task = _Task(number, item, packed_task(self._function, item))
        self._tasks[number] = task
        self._hand_in(task)

    def take(self) -> tuple[_Task[Item], Answer]:
        """A task that is finished, and what came of it.

        Raises:
            WorkersLostError: as of `Executor.completed`.
        """
        while True:
            told = None
            with suppress(Empty):
                told = self._told.get(timeout=self._executor.pause)
            if told is None:
                self._executor.look()
                if self._executor.client.status in ("closing", "closed"):
                    self._hand_in_again()
                continue
            task, visit, outcome = told
            if self._tasks.get(task.number) is not task or task.visit != visit:
                continue  # of a scheduler that is gone
            if not isinstance(outcome, bytes):
                self._failed(task, outcome)
                continue
            self._losses = 0
            answer = unpacked_answer(outcome)
            task.failures += 1
            again = isinstance(answer.error, OSError) and not isinstance(answer.error, HoldfastError)
            task.drop()
            if again and task.failures < self._attempts:
                self._hand_in(task)
                continue
            del self._tasks[task.number]
            return task, answer

    def _hand_in(self, task: _Task[Item]) -> None:
        task.visit = visit = self._executor.visit
        client = self._executor.client
        try:
            # on the dashboard the part before the last dash is the name of a task
            key = f"{self._name}-{task.number}-{uuid4().hex}"
            task.future = client.submit(run_packed, task.payload, key=key, pure=False)
            task.fetched = asyncio.run_coroutine_threadsafe(_fetch(task.future), client.loop.asyncio_loop)
        except Exception as error:  # the client has closed for want of a scheduler
            self._told.put((task, visit, error))
            return
        task.fetched.add_done_callback(lambda fetched: self._told.put((task, visit, _outcome(fetched))))

    def _failed(self, task: _Task[Item], error: BaseException) -> None:
        """No answer came of a task."""
        if isinstance(error, import_module("distributed").KilledWorker):
            raise WorkersLostError(
                f"{_named(task.item)} ends each worker that it is given to",
                hint="Their logs say why; most often it is memory. What is finished is kept",
            ) from error
        if not _is_loss(error):
            raise WorkersLostError(
                f"{self._executor.address}: a worker could not take {_named(task.item)} ({_reason(error)})",
                hint="Workers need what is installed here. What is finished is kept",
            ) from error
        self._hand_in_again()

    def _hand_in_again(self) -> None:
        """The scheduler forgot what it had: it went away, or somebody had it forget."""
        self._losses += 1
        if self._losses > self._attempts:
            raise WorkersLostError(f"{self._executor.address} loses what it is given", hint=KEPT)
        self._executor.reconnect(self._executor.visit)
        for task in list(self._tasks.values()):
            task.drop()
            self._hand_in(task)


async def _fetch(future: Any) -> bytes:
    data: bytes = await future
    return data


def _outcome(fetched: "Future[Any]") -> Any:
    return CancelledError() if fetched.cancelled() else fetched.exception() or fetched.result()


def _is_loss(error: BaseException) -> bool:
    """Whether the connection is what failed, not the task."""
    closed = import_module("distributed.client").ClosedClientError
    return isinstance(error, (CancelledError, closed, OSError, asyncio.TimeoutError))


def _name_of(function: object) -> str:
    """What a task is called on the dashboard: its function, below what that is wrapped in."""
    inner = getattr(function, "func", getattr(function, "function", None))
    return str(getattr(function, "__name__", "task")) if inner is None else _name_of(inner)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 2 * NAME_CHARACTERS else f"{text[: 2 * NAME_CHARACTERS]}…"


def _named(item: object) -> str:
    name = getattr(item, "name", None)
    text = f"task {name if isinstance(name, str) else repr(item)}"
    return text if len(text) <= NAME_CHARACTERS else f"{text[:NAME_CHARACTERS]}…"
