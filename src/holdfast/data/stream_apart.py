"""Work with a bucket that leaves this process able to fork workers.

A DataLoader forks its workers on Linux, and obstore cannot be used in a fork of a process that has used it. So what has
to be asked before an epoch begins is asked by a fork of its own, which ends with its answer.
"""

import multiprocessing
import multiprocessing.connection
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

from holdfast.errors import HoldfastError

Result = TypeVar("Result")


def forks_workers() -> bool:
    """Whether a DataLoader of this process forks its workers unless it is told otherwise."""
    method = multiprocessing.get_start_method(allow_none=True)
    # asking for the usual one would settle it, which is the program's to do; it is the first of all
    return (method or multiprocessing.get_all_start_methods()[0]) == "fork"


def has_used_buckets() -> bool:
    """Whether this process has worked with a bucket, so that its forks cannot."""
    bucket = sys.modules.get("holdfast.objectstore.bucket")
    return bool(getattr(bucket, "_process", 0))


def apart(function: Callable[[], Result]) -> Result:
    """``function()``, in a fork of this process where that spares the process its first use of a bucket.

    Args:
        function: what it returns must be fit for pickling.

    Raises:
        Exception: what the function raises; of an error of Holdfast its first class that is made of a message and a
            hint.
    """
    if has_used_buckets() or not forks_workers() or multiprocessing.current_process().daemon:
        return function()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(function, sender), name="holdfast-apart", daemon=True)
    with warnings.catch_warnings():
        # from Python 3.12 on, where there are threads; the child takes no lock of theirs, and a DataLoader forks, too
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        child.start()
    sender.close()
    try:
        try:
            result, error = receiver.recv()
        except EOFError:
            child.join()
            raise HoldfastError(f"the process that asked the bucket ended with {child.exitcode}") from None
    finally:
        receiver.close()
        child.kill()
        child.join()
        child.close()
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _answer(function: Callable[[], object], sender: "multiprocessing.connection.Connection") -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is interrupted is the parent, which ends this process
    result: object = None
    error: Exception | None = None
    try:
        result = function()
    except HoldfastError as failure:
        error = _plain(failure)
    except Exception as failure:
        error = failure
    try:
        sender.send((result, error))
    except Exception as failure:  # whatever cannot be pickled says so in its own way
        sender.send((None, HoldfastError(f"{error or failure}")))


def _plain(error: HoldfastError) -> HoldfastError:
    """An error that can be sent: an error with a form of its own as the nearest class that has none."""
    made_by = HoldfastError
    kinds = [kind for kind in type(error).__mro__ if issubclass(kind, HoldfastError)]
    kind = next(kind for kind in kinds if next(one for one in kind.__mro__ if "__init__" in vars(one)) is made_by)
    return kind(error.message, hint=error.hint)
