"""A task on its way to another process, and its answer on the way back: bytes both, left alone by what carries them.

What is pickled here is our own, and goes to processes that run what we hand them anyway.
"""

import pickle  # noqa: TID251 - tasks and their results, never a checkpoint
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.executor.executor import Item, Result

PROTOCOL = 5  # of all versions of Python that we run on


class WorkerTraceback(Exception):  # noqa: N818 - it is shown as the cause of an error, and is none
    """Where an error arose, as text: frames stay in their process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Answer:
    """What came of a task.

    Attributes:
        value: what the function returned; None where it raised.
        error: what it raised.
    """

    value: Any = None
    error: BaseException | None = None

    def result(self) -> Any:
        """The value.

        Raises:
            BaseException: the error, with the traceback of its process as its cause.
        """
        if self.error is not None:
            raise self.error
        return self.value


def packed_task(function: Callable[[Item], Result], item: Item) -> bytes:
    """A task as bytes for `run_packed`.

    Raises:
        TypeError: function or item cannot be pickled.
    """
    cloudpickle = import_module("cloudpickle")  # comes with Dask; unlike pickle it takes what a script defines, too
    data: bytes = cloudpickle.dumps((function, item), protocol=PROTOCOL)
    return data


def run_packed(task: bytes) -> bytes:
    """Run a task; its answer as bytes for `unpacked_answer`. Whatever the task raises is its answer."""
    try:
        function, item = pickle.loads(task)  # noqa: S301 - as above
        return pickle.dumps((True, function(item)), PROTOCOL)
    except BaseException as error:
        return pickle.dumps((False, (_packed_error(error), traceback.format_exc())), PROTOCOL)


def unpacked_answer(data: bytes) -> Answer:
    """The answer of which these are the bytes."""
    done, value = pickle.loads(data)  # noqa: S301 - as above
    if done:
        return Answer(value)
    packed, trace = value
    error: BaseException = _unpacked_error(packed)
    error.__cause__ = WorkerTraceback(trace)
    return Answer(error=error)


def _packed_error(error: BaseException) -> bytes:
    """An error as it is or, where it cannot be pickled, what it says."""
    value = (type(error), error.args, error.__dict__) if isinstance(error, HoldfastError) else error
    try:
        data = pickle.dumps(value, PROTOCOL)
        _unpacked_error(data)
    except Exception:
        # not only what cannot be pickled: many classes of errors can, and cannot be made again of what was
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"), PROTOCOL)
    return data


def _unpacked_error(data: bytes) -> BaseException:
    value = pickle.loads(data)  # noqa: S301 - as above
    if isinstance(value, BaseException):
        return value
    kind, arguments, state = value
    # past __init__, whose arguments are not those of the error where a class makes its message itself
    error: BaseException = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error
