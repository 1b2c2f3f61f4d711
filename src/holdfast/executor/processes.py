"""Tasks in processes of this machine: for work that threads would do one after the other."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any

from holdfast.executor.cluster import PATIENCE_SECONDS, ClusterExecutor

CLOSE_SECONDS = 5.0


class ProcessExecutor(ClusterExecutor):
    """Runs tasks in processes here, which it starts and ends; they end by themselves where this one is killed.

    A process that a task ended is started again, and its tasks are given to the others.

    Args:
        jobs: processes, of a thread each.
        patience: as of `holdfast.executor.cluster.ClusterExecutor`.
    """

    def __init__(self, jobs: int, *, patience: float = PATIENCE_SECONDS) -> None:
        super().__init__("local", patience=patience)
        self._processes = max(1, jobs)
        self._cluster: Any = None

    def __enter__(self) -> "ProcessExecutor":
        """Start the processes.

        Raises:
            OSError: they cannot be started.
        """
        distributed = import_module("distributed")  # imported here: 250 ms, and an extra
        with _apart():
            self._cluster = distributed.LocalCluster(
                n_workers=self._processes,
                threads_per_worker=1,
                host="127.0.0.1",
                # a port of its own, as there may be others; without bokeh Dask would serve a page that asks for it
                dashboard_address="127.0.0.1:0" if find_spec("bokeh") else None,
                worker_dashboard_address=None,
                memory_limit=0,  # as threads would: Dask's limit is a part of what the machine has, and ends processes
                silence_logs=logging.CRITICAL,  # what goes wrong there is told by the result of its task
            )
        try:
            self.address = self._cluster.scheduler_address
            super().__enter__()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are at. Those that do not in time end with this process."""
        super().close()
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            with suppress(Exception):  # what was done is done, and what is left ends as it would if we were killed
                cluster.close(timeout=CLOSE_SECONDS)

    def _described(self, workers: int) -> str:
        return f"{workers} process{'' if workers == 1 else 'es'} here"


@contextmanager
def _apart() -> Iterator[None]:
    """Ctrl-C is for this process alone, not for those started meanwhile: it ends them.

    A mask of signals goes from a thread to the threads and processes that it starts: here to Dask's, and on from there.
    """
    resource_tracker.ensure_running()  # who starts it lets Ctrl-C in again, which shall not be Dask's thread
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
