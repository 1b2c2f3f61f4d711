"""The executor that is meant by what a user says."""

import os
import re
from importlib.util import find_spec

from holdfast.errors import HoldfastError, UsageError
from holdfast.executor.executor import Executor
from holdfast.executor.local import LocalExecutor

NONE, LOCAL = "none", "local"
_ADDRESS = re.compile(r"(?:(?:tcp|tls|ws|wss)://)?(?:\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):\d{1,5}/?")


def open_executor(scheduler: str | None, jobs: int) -> Executor:
    """What runs tasks; nothing is started or asked before its ``with``.

    Args:
        scheduler: None or ``none`` for threads here, ``local`` for processes here, one a core, else the address of a
            Dask scheduler.
        jobs: threads, where it is threads.

    Raises:
        UsageError: `scheduler` is none of these.
        HoldfastError: Dask is not installed.
    """
    if scheduler in (None, NONE):
        return LocalExecutor(jobs)
    assert scheduler is not None
    if scheduler != LOCAL and not _ADDRESS.fullmatch(scheduler):
        raise UsageError(
            f"{scheduler} is no address of a Dask scheduler",
            hint=f"It is tcp://HOST:PORT or tls://HOST:PORT; {LOCAL} for processes here, {NONE} for threads",
        )
    if find_spec("distributed") is None:
        raise HoldfastError("Dask is not installed", hint="`pip install 'holdfast[cluster]'` brings it")
    # imported here: what follows from them is there with the extra alone
    if scheduler == LOCAL:
        from holdfast.executor.processes import ProcessExecutor

        return ProcessExecutor(_cores())
    from holdfast.executor.cluster import ClusterExecutor

    return ClusterExecutor(scheduler if "://" in scheduler else f"tcp://{scheduler}")


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
