"""A real Dask cluster on loopback: a scheduler and workers in processes of their own, which can be killed and come back."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from servers import _die_with_parent

START_SECONDS = 60
TESTS = Path(__file__).parent
# without a nanny that would start it again: a worker that is killed is gone
WORKER = ("--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--host", "127.0.0.1")


@dataclass
class Cluster:
    """A scheduler and its workers.

    Args:
        folder: where workers keep what they have, and the logs ``scheduler.log``, ``worker-N.log``.
        port: of the scheduler, on 127.0.0.1.
        environment: of the processes; None for that of this one.
        scheme: ``tcp``, or ``tls`` where the environment names certificates.
    """

    folder: Path
    port: int
    environment: dict[str, str] | None = None
    scheme: str = "tcp"
    scheduler: "subprocess.Popen[bytes] | None" = None
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _logs: int = 0

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start_scheduler(self, *, dashboard: bool = False) -> None:
        """Start it on its port, and wait until it listens."""
        shown = ("--dashboard-address", "127.0.0.1:0", "--dashboard" if dashboard else "--no-dashboard")
        place = ("--host", "127.0.0.1", "--port", str(self.port), "--protocol", self.scheme)
        self.scheduler = self._start("scheduler.log", "scheduler", *place, *shown)
        end = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            assert self.scheduler.poll() is None, self.log("scheduler.log")
            assert time.monotonic() < end, self.log("scheduler.log")
            time.sleep(0.02)

    def add_worker(self) -> "subprocess.Popen[bytes]":
        """Start one more; it finds the scheduler by itself."""
        self._logs += 1
        scratch = ("--local-directory", str(self.folder / "scratch"))
        worker = self._start(f"worker-{self._logs}.log", "worker", self.address, *WORKER, *scratch)
        self.workers.append(worker)
        return worker

    def kill_worker(self, number: int = 0) -> int:
        """Kill one by SIGKILL; its pid."""
        worker = self.workers.pop(number)
        _end(worker)
        return worker.pid

    def kill_scheduler(self) -> None:
        """Kill it by SIGKILL. Workers end when they lose it."""
        assert self.scheduler is not None
        _end(self.scheduler)
        for worker in self.workers:
            worker.wait(START_SECONDS)

    def restart_scheduler(self) -> None:
        """Kill it, start it again on the same port, and as many workers as there were."""
        count = len(self.workers)
        self.kill_scheduler()
        self.workers.clear()
        self.start_scheduler()
        for _ in range(count):
            self.add_worker()

    def log(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def end(self) -> None:
        """End all processes."""
        for process in (*self.workers, *([self.scheduler] if self.scheduler else [])):
            _end(process)

    def _start(self, log: str, *command: str) -> "subprocess.Popen[bytes]":
        environment = dict(os.environ if self.environment is None else self.environment)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TESTS), environment.get("PYTHONPATH"))))
        environment.pop("DASK_SCHEDULER_ADDRESS", None)
        with open(self.folder / log, "ab") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                preexec_fn=_die_with_parent,
            )


@contextmanager
def cluster(
    folder: Path,
    workers: int = 3,
    *,
    dashboard: bool = False,
    environment: dict[str, str] | None = None,
    scheme: str = "tcp",
) -> Iterator[Cluster]:
    """A scheduler that listens and workers that are about to come; all end with the ``with``, or with this process.

    Args:
        folder: made, for logs and what workers keep.
        workers: processes, of a thread each. They import modules of the tests.
        dashboard: whether the scheduler serves one.
        environment: of all processes; None for that of this one.
        scheme: ``tcp``, or ``tls`` where the environment names certificates.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder, free_port(), environment, scheme)
    try:
        made.start_scheduler(dashboard=dashboard)
        for _ in range(workers):
            made.add_worker()
        yield made
    finally:
        made.end()


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait(START_SECONDS)
