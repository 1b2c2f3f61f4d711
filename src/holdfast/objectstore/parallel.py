"""Requests at the same time, in threads that Ctrl-C need not wait for."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue

from holdfast.executor.executor import Item, Result
from holdfast.executor.local import LocalExecutor

JOBS = 8


def concurrently(function: Callable[[Item], Result], items: Iterable[Item], jobs: int = JOBS) -> Iterator[Result]:
    """``map(function, items)`` with up to ``jobs`` calls at a time: the results in the order of the items.

    Items are taken as results are, no more than twice ``jobs`` ahead.

    Raises:
        Exception: the first, in the order of the items, that a call raises; calls that have not begun never do.
    """
    return LocalExecutor(jobs).map(function, items, attempts=1)


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, each of which is made in a thread, one after the other, while the caller uses the one before.

    Raises:
        Exception: what making one raises.
    """
    made: SimpleQueue[Future[Item] | None] = SimpleQueue()
    wanted = threading.Semaphore(0)
    ended = threading.Event()

    def work() -> None:
        source = iter(items)
        while not ended.is_set():
            future: Future[Item] = Future()
            try:
                future.set_result(next(source))
            except StopIteration:
                break
            except BaseException as error:
                future.set_exception(error)
                made.put(future)
                return
            made.put(future)
            wanted.acquire()
        made.put(None)

    threading.Thread(target=work, name="holdfast-ahead", daemon=True).start()
    try:
        while (future := made.get()) is not None:
            wanted.release()
            yield future.result()
    finally:
        ended.set()
        wanted.release()


def interruptibly(function: Callable[[], Result]) -> Result:
    """``function()``, which Ctrl-C interrupts though it is native code that does not look for signals.

    Python runs signal handlers in the main thread alone, between two of its own instructions. So the main thread waits
    here for another one; other threads just call.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    future: Future[Result] = Future()
    threading.Thread(target=_fulfil, args=(future, function), name="holdfast-store", daemon=True).start()
    return future.result()


def _fulfil(future: "Future[Result]", function: Callable[[], Result]) -> None:
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
