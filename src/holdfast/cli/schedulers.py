"""``--scheduler``: whether a command works in threads here, in processes, or on a Dask cluster."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import completion_values

if TYPE_CHECKING:
    from holdfast.executor.executor import Executor

Command = Callable[..., Any]


def scheduler_option(function: Command) -> Command:
    """Add ``--scheduler``."""
    return click.option(
        "--scheduler",
        metavar="ADDRESS",
        envvar="DASK_SCHEDULER_ADDRESS",
        show_envvar=True,
        shell_complete=completion_values.schedulers,
        help="Work on a Dask cluster: tcp://HOST:PORT of its scheduler, local for processes here, none for threads.",
    )(function)


@contextmanager
def tasks(scheduler: str | None, jobs: int) -> "Iterator[Executor]":
    """What runs the tasks of a command. Where it is not this process, a line on stderr says what and where to look.

    Args:
        scheduler: as given with `scheduler_option`.
        jobs: threads, where it is threads.

    Raises:
        HoldfastError: as of `holdfast.executor.opening.open_executor`, and of entering what it opens.
    """
    # imported here, and below: a command that has the option and no tasks, such as a plan for the cache, need not wait
    from holdfast.executor.opening import open_executor

    executor = open_executor(scheduler, jobs)
    if executor.remote:
        _quieten()
    with executor:
        if executor.remote:
            seen = f"; dashboard: {executor.dashboard}" if executor.dashboard else ""
            click.echo(f"Working on {executor.where}{seen}", err=True)
        yield executor


def _quieten() -> None:
    """Keep Dask's log out of the terminal: what matters of it comes as an error.

    The loggers of this process alone; those of workers and schedulers are theirs. Until the process ends: Dask's
    threads have things to say after they were left, too.
    """
    import logging
    import warnings

    # imported here: 250 ms, and an extra. It sets the levels of its loggers as it is imported
    distributed = import_module("distributed")
    for name in ("asyncio", "distributed", "distributed.client", "tornado", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", category=distributed.versions.VersionMismatchWarning)
