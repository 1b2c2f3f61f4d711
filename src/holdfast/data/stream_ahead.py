"""Results ahead of their use, in order, with bounds on how many and on their bytes."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result", bound=Sized)

ITEMS_A_JOB = 8  # under way or done for each thread, however small they are


def ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    jobs: int,
    limit_bytes: int,
    about: Callable[[Item], int],
) -> Iterator[Result]:
    """``map(function, items)`` with up to ``jobs`` calls at a time, in the order of the items.

    Calls are begun as results are taken, so that what is under way or waiting has no more than ``limit_bytes``, and
    one item more. The threads are daemons: a program that ends does not wait for its slowest request.

    Args:
        function: is called in a thread; what it returns has its length in bytes.
        items: are taken in the caller's thread.
        jobs: threads.
        limit_bytes: of results that were not taken yet; at least one item is always under way.
        about: the bytes that an item's result is expected to have; where that was wrong so far, more are expected.

    Raises:
        Exception: the first, in the order of the items, that a call raises; calls that have not begun never do.
    """
    tasks: SimpleQueue[_Task[Item, Result] | None] = SimpleQueue()
    pending: deque[_Task[Item, Result]] = deque()
    account = _Account()
    forecast = _Forecast()
    rest = iter(items)
    waiting: Item | None = None
    threads = 0
    ended = False
    try:
        while True:
            while not ended and len(pending) < jobs * ITEMS_A_JOB:
                if waiting is None:
                    waiting = next(rest, None)
                if waiting is None:
                    ended = True
                    break
                guess = about(waiting)
                expected = forecast.of(guess)
                if pending and account.nbytes + expected > limit_bytes:
                    break
                account.add(expected)
                pending.append(_Task(waiting, guess, expected))
                tasks.put(pending[-1])
                waiting = None
                if threads < jobs:
                    threads += 1
                    arguments = function, tasks, account
                    threading.Thread(target=_work, args=arguments, name="holdfast-stream", daemon=True).start()
            if not pending:
                return
            first = pending.popleft()
            result = first.future.result()
            forecast.learn(first.guess, len(result))
            account.add(-len(result))
            yield result
            del first, result
    finally:
        for one in pending:
            one.future.cancel()
        for _ in range(threads):
            tasks.put(None)


@dataclass
class _Task(Generic[Item, Result]):
    """A call that was begun, or waits for a thread."""

    item: Item
    guess: int
    expected: int
    future: "Future[Result]" = field(default_factory=Future)


class _Account:
    """The bytes of what is there, and what is expected of the rest."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.nbytes += count


@dataclass
class _Forecast:
    """What guesses were worth so far: DVC's listings do not say how long files are."""

    results: int = 0
    nbytes: int = 0
    guessed: int = 0

    def of(self, guess: int) -> int:
        if guess and self.guessed:
            return max(guess, guess * self.nbytes // self.guessed)
        return max(guess, self.nbytes // max(1, self.results))

    def learn(self, guess: int, nbytes: int) -> None:
        self.results, self.nbytes, self.guessed = self.results + 1, self.nbytes + nbytes, self.guessed + guess


def _work(
    function: Callable[[Item], Result], tasks: "SimpleQueue[_Task[Item, Result] | None]", account: _Account
) -> None:
    while (task := tasks.get()) is not None:
        if not task.future.set_running_or_notify_cancel():
            continue
        try:
            result = function(task.item)
        except BaseException as error:
            task.future.set_exception(error)
        else:
            account.add(len(result) - task.expected)  # a guess must not last longer than it has to
            task.future.set_result(result)
            del result  # the thread that waits for its next task keeps nothing
        del task
