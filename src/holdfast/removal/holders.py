"""Which process is at work somewhere, told in a few bytes: another one can then know that it is gone."""

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_DEAD_STATES = "ZX"  # what nobody has waited for yet: where the first process of a container never waits, for ever


@dataclass(frozen=True)
class Holder:
    """A process.

    Attributes:
        pid: its number.
        host: what people call its machine.
        machine: tells this run of the machine, and the container, from all others; empty where nothing does.
        birth: when it began, which tells it from a later process of that number; empty where that is not known.
    """

    pid: int
    host: str
    machine: str
    birth: str

    def __str__(self) -> str:
        return f"process {self.pid} of {self.host}"

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; never of a process of another machine."""
        return bool(self.machine) and self.machine == _machine() and self.birth != _birth(self.pid)

    def as_json(self) -> dict[str, Any]:
        """What `read_holder` takes."""
        return asdict(self)


def this_process() -> Holder:
    """The process that asks."""
    pid = os.getpid()
    return Holder(pid, socket.gethostname(), _machine(), _birth(pid))


def read_holder(said: object) -> Holder | None:
    """A process that told of itself by `Holder.as_json`; None where nobody did."""
    if not isinstance(said, Mapping):
        return None
    pid, names = said.get("pid"), [said.get(name) for name in ("host", "machine", "birth")]
    if not isinstance(pid, int) or not all(isinstance(name, str) for name in names):
        return None
    return Holder(pid, *names)  # type: ignore[arg-type]  # all of them are text


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _birth(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in _DEAD_STATES else fields[19]
    except OSError:
        return ""
