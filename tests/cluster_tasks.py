"""Tasks that tests hand to workers, which import this module. Each notes in a folder that it ran."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import IntegrityError


@dataclass(frozen=True)
class Work:
    """What a task of these is told.

    Attributes:
        name: of the item.
        folder: where the task notes that it ran.
        seconds: how long it takes.
        until: a file that it waits for.
    """

    name: str
    folder: str
    seconds: float = 0.0
    until: str = ""


class ShapeError(IntegrityError):
    """An error that makes its own message: its constructor takes other things."""

    def __init__(self, place: str, *, wanted: int) -> None:
        super().__init__(f"{place} has not {wanted}", hint=f"`holdfast check {place}` says more")
        self.place, self.wanted = place, wanted


class StubbornError(Exception):
    """An error that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.why = lambda: text


def ran(work: Work) -> str:
    """Note it, take the time, answer."""
    _note(work)
    end = time.monotonic() + 60
    while work.until and not Path(work.until).exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(work.seconds)
    return f"done {work.name}"


def refused(work: Work) -> str:
    _note(work)
    raise ShapeError(work.name, wanted=7)


def stubborn(work: Work) -> str:
    raise StubbornError(work.name)


def unlucky(work: Work) -> str:
    """Fails twice with an error of the system."""
    _note(work)
    if len(runs(Path(work.folder), work.name)) < 3:
        raise OSError(28, "No space left on device", work.name)
    return f"done {work.name}"


def denied(work: Work) -> str:
    _note(work)
    raise PermissionError(13, "Permission denied", work.name)


def deadly(work: Work) -> str:
    """Ends its process."""
    _note(work)
    os.kill(os.getpid(), 9)
    return "never"


def deadly_once(work: Work) -> str:
    _note(work)
    if len(runs(Path(work.folder), work.name)) == 1:
        os.kill(os.getpid(), 9)
    return f"done {work.name}"


def process(work: Work) -> int:
    _note(work)
    return os.getpid()


def complaining(work: Work) -> str:
    """Says in Dask's log what Dask says of a worker that is short of memory, or slow."""
    logging.getLogger("distributed.worker").warning("complaint of %s", work.name)
    return work.name


def large(work: Work) -> bytes:
    return work.name.encode() * int(work.seconds)


def shard(items: "tuple[Work, ...]") -> bytes:
    return "".join(f"{ran(item)}\n" for item in items).encode()


def runs(folder: Path, name: str) -> list[str]:
    """The processes in which the task of an item ran, one for each time."""
    try:
        return (folder / f"{name}.ran").read_text().split()
    except FileNotFoundError:
        return []


def _note(work: Work) -> None:
    with open(
        Path(work.folder) / f"{work.name}.ran", "ab"
    ) as stream:  # one write at its end: whole, whoever else writes
        stream.write(b"%d\n" % os.getpid())
