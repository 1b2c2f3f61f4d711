"""How far something is: a line on a terminal's standard error, and nothing where there is no terminal."""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from holdfast.cli.output import human_bytes

SECONDS = 0.1  # of very many small files not each is shown
SPEED_SECONDS = 10.0  # the time over which the speed is taken
SETTLED_SECONDS = 1.0  # before which a speed says little


class Update(Protocol):
    """Says how much is done."""

    def __call__(self, done: int, total: int, sent: int | None = None) -> None:
        """So much of so much is done, for which so many bytes were sent."""


@contextmanager
def bar(label: str, shown: Callable[[int], str] = human_bytes, *, least: int = 0) -> Iterator[Update]:
    """A line that says how far it is, how fast it goes and how long it takes yet, until the ``with`` ends.

    Args:
        label: what is being done.
        shown: how an amount is written.
        least: a total below which nothing is shown, as it is done at once.
    """
    with bars(shown) as show:

        def update(done: int, total: int, sent: int | None = None) -> None:
            if total >= least:
                show(label, done, total, sent)

        yield update


@contextmanager
def bars(shown: Callable[[int], str] = human_bytes, before: str = "") -> Iterator[Callable[..., None]]:
    """The same for what is done in several steps: the update takes the step's label first.

    Args:
        shown: how an amount is written.
        before: what stands before each label.
    """
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    line = _Line(shown, before)
    try:
        yield line.update
    finally:
        line.clear()


class _Line:
    def __init__(self, shown: Callable[[int], str], before: str) -> None:
        self._shown, self._before = shown, before
        self._of: tuple[str, int] | None = None  # what is being done, and how much of it
        self._last, self._past = 0.0, deque[tuple[float, int]]()

    def update(self, label: str, done: int, total: int, sent: int | None = None) -> None:
        now = time.monotonic()
        if self._of != (label, total) or (self._past and done < self._past[-1][1]):
            self._of = label, total
            self._past.clear()
        elif now - self._last < SECONDS and (done < total or not total):
            return
        self._last = now
        self._past.append((now, done))
        while len(self._past) > 2 and now - self._past[1][0] > SPEED_SECONDS:
            self._past.popleft()
        amount = f"{done / total:4.0%} {self._shown(done)} of {self._shown(total)}" if total else self._shown(done)
        saved = f"; {self._shown(sent)} sent, {self._shown(max(0, done - sent))} saved" if sent is not None else ""
        text = f"{self._before}{label} {amount}{self._pace(now, done, total)}{saved}"
        room = shutil.get_terminal_size().columns - 1  # a line that is folded could not be taken back
        click.echo(f"\r\033[K{text[:room]}", nl=False, err=True)

    def clear(self) -> None:
        click.echo("\r\033[K", nl=False, err=True)

    def _pace(self, now: float, done: int, total: int) -> str:
        """Speed and time left, once there is enough to go by."""
        then, before = self._past[0]
        if now - then < SETTLED_SECONDS or done <= before:
            return ""
        speed = (done - before) / (now - then)
        left = f", {_duration((total - done) / speed)} left" if done < total else ""
        return f", {self._shown(round(speed)) if speed >= 1 else f'{speed:.1f}'}/s{left}"


def _duration(seconds: float) -> str:
    """``8 s``, ``2 min``, ``1 h 5 min``."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def counted(count: int) -> str:
    """A number of things."""
    return f"{count:,}"
