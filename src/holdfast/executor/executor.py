"""One function over many items, somewhere: what commands that may outgrow one machine are written against."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, TypeVar

from holdfast.errors import HoldfastError

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 3


class WorkersLostError(HoldfastError):
    """What ran the tasks is gone, or cannot be reached; what was finished before stays finished."""


class Executor(Protocol):
    """Runs tasks. Used as a context manager; leaving it ends what was started for it, and nothing else.

    A task is a function and one item of its own. Both are pickled where the task runs in another process: the function
    is then one that a module defines (or `functools.partial` of one), items and results are plain values, and what the
    task reads is reached by its address, not handed over open.

    Attributes:
        jobs: tasks that run at a time. Like what follows known within the ``with``, where workers may come and go.
        where: what runs them, for people: ``4 threads here``, ``3 workers of tcp://10.0.0.1:8786``.
        dashboard: address of a page that shows what goes on; None where there is none.
        remote: whether tasks run in other processes, so that function, items and results are pickled.
    """

    jobs: int
    where: str
    dashboard: str | None
    remote: bool

    def __enter__(self) -> "Executor": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def completed(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, attempts: int = ATTEMPTS
    ) -> Iterator[tuple[Item, Result]]:
        """Each item with its result, as soon as there is one, in whatever order.

        Items are taken as results are: no more than twice `jobs` are under way or finished and not taken.

        Args:
            function: of one item.
            items: may be endless.
            attempts: how often a task is tried that fails with an `OSError` or whose worker was lost; a
                `HoldfastError` is an answer, and not asked for twice.

        Raises:
            WorkersLostError: there is nothing left that could run a task, or tasks end their workers.
            Exception: what a task raised at its last attempt; what has not begun never does.
        """
        ...

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, attempts: int = ATTEMPTS
    ) -> Iterator[Result]:
        """The results in the order of the items; otherwise as `completed`."""
        ...
