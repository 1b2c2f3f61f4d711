"""Work that is done side by side and taken back in order; and packs on their way to the store."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

# tasks under way at a time. No matter how many threads there are: what a task begins with depends on the results of
# those this far before it, and the same input shall give the same bytes everywhere
LOOKAHEAD = 8


def meanwhile(work: Callable[[], Result], name: str) -> Future[Result]:
    """Have some work done in a daemon thread of its own."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class Pipeline:
    """Runs tasks in daemon threads and hands their results on in the order in which they were given.

    Args:
        jobs: threads.
        ahead: tasks under way at a time.
    """

    def __init__(self, jobs: int, ahead: int = LOOKAHEAD, name: str = "holdfast-vault") -> None:
        self._jobs, self._ahead, self._name = jobs, ahead, name
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._pending: deque[tuple[Future[Any], Callable[[Any], None]]] = deque()
        self._threads = 0
        self._failure: BaseException | None = None

    def submit(self, work: Callable[[], Result], done: Callable[[Result], None], *, ahead: int = 0) -> None:
        """Have some work done, and its result handed to ``done``, in this thread, after those before it.

        Args:
            work: is done in another thread.
            done: is called with what that returned, when there is a time for it.
            ahead: tasks that may be under way beyond those that the pipeline has by itself.

        Raises:
            Exception: what the work of a task before raised, or its ``done``; the same again at every later call, since
                what that task was to do has not been done.
        """
        self._check()
        while len(self._pending) >= self._ahead + ahead:
            self._take()
        future: Future[Result] = Future()
        self._pending.append((future, done))
        if self._threads < self._jobs:
            self._threads += 1
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        self._queue.put((future, work))

    def drain(self) -> None:
        """Hand on all results.

        Raises:
            Exception: as of `submit`.
        """
        self._check()
        while self._pending:
            self._take()

    def close(self) -> None:
        """Begin nothing more, and end the threads when what is under way is done."""
        for future, _ in self._pending:
            future.cancel()
        self._pending.clear()
        for _ in range(self._threads):
            self._queue.put(None)
        self._threads = 0

    def _take(self) -> None:
        future, done = self._pending.popleft()
        try:
            done(future.result())
        except BaseException as error:
            self._failure = error
            raise

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            future, work = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, work, task
