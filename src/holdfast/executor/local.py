"""Tasks in threads of this process: the default, which needs no one else."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Generic

from holdfast.errors import HoldfastError
from holdfast.executor.executor import ATTEMPTS, Item, Result

AHEAD = 2  # tasks for each thread that are under way or done before their results are taken


class LocalExecutor:
    """Runs tasks in threads here. They are daemons: an interrupted program ends at once, not after its slowest task.

    Args:
        jobs: threads; with one, tasks run where their results are asked for.
    """

    dashboard: str | None = None
    remote = False

    def __init__(self, jobs: int) -> None:
        self.jobs = max(1, jobs)
        self.where = f"{self.jobs} threads here" if self.jobs > 1 else "this process"

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left: threads end with the iterators that use them."""

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, attempts: int = ATTEMPTS
    ) -> Iterator[tuple[Item, Result]]:
        """As of `holdfast.executor.executor.Executor.completed`."""
        if self.jobs == 1:
            for item in items:
                yield item, _tried(function, item, attempts)
            return
        with _Threads(function, self.jobs, attempts) as threads:
            finished: SimpleQueue[tuple[Item, Future[Result]]] = SimpleQueue()
            pending = 0
            for item in items:
                threads.begin(item, lambda future, item=item: finished.put((item, future)))  # type: ignore[misc]
                pending += 1
                while pending >= self.jobs * AHEAD:
                    done, future = finished.get()
                    pending -= 1
                    yield done, future.result()
            for _ in range(pending):
                done, future = finished.get()
                yield done, future.result()

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, attempts: int = ATTEMPTS
    ) -> Iterator[Result]:
        """As of `holdfast.executor.executor.Executor.map`."""
        if self.jobs == 1:
            yield from (_tried(function, item, attempts) for item in items)
            return
        with _Threads(function, self.jobs, attempts) as threads:
            pending: deque[Future[Result]] = deque()
            for item in items:
                pending.append(threads.begin(item))
                while len(pending) >= self.jobs * AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()


class _Threads(Generic[Item, Result]):
    """Threads that are started as tasks come, and end with the ``with``; what has not begun then never does."""

    def __init__(self, function: Callable[[Item], Result], jobs: int, attempts: int) -> None:
        self._function, self._jobs, self._attempts = function, jobs, attempts
        self._tasks: SimpleQueue[tuple[Future[Result], Item] | None] = SimpleQueue()
        self._started = 0
        self._ended = threading.Event()

    def __enter__(self) -> "_Threads[Item, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for _number in range(self._started):
            self._tasks.put(None)

    def begin(self, item: Item, told: Callable[[Future[Result]], object] | None = None) -> Future[Result]:
        future: Future[Result] = Future()
        if told is not None:
            future.add_done_callback(told)
        self._tasks.put((future, item))
        if self._started < self._jobs:
            self._started += 1
            threading.Thread(target=self._work, name="holdfast-task", daemon=True).start()
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._ended.is_set():
            future, item = task
            try:
                result = _tried(self._function, item, self._attempts)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, item, task  # a thread that waits keeps nothing alive


def _tried(function: Callable[[Item], Result], item: Item, attempts: int) -> Result:
    for _ in range(attempts - 1):
        try:
            return function(item)
        except HoldfastError:
            raise
        except OSError:
            continue
    return function(item)
