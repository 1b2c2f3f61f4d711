"""How far something is: a line on a terminal's standard error, and nothing where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from holdfast.cli.output import human_bytes

SECONDS = 0.1  # of very many small files not each is shown


class Update(Protocol):
    """Says how much is done."""

    def __call__(self, done: int, total: int, sent: int | None = None) -> None:
        """So much of so much is done, for which so many bytes were sent."""


@contextmanager
def bar(label: str, shown: Callable[[int], str] = human_bytes) -> Iterator[Update]:
    """A line that says how far it is, until the ``with`` ends.

    Args:
        label: what is being done.
        shown: how an amount is written.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total, _sent=None: None
        return
    last = 0.0

    def update(done: int, total: int, sent: int | None = None) -> None:
        nonlocal last
        if time.monotonic() - last < SECONDS and done < total:
            return
        last = time.monotonic()
        share = f"{done / total:4.0%}" if total else "    "
        saved = f"; {shown(sent)} sent, {shown(max(0, done - sent))} saved" if sent is not None else ""
        click.echo(f"\r\033[K{label} {share} {shown(done)} of {shown(total)}{saved}", nl=False, err=True)

    try:
        yield update
    finally:
        click.echo("\r\033[K", nl=False, err=True)


def counted(count: int) -> str:
    """A number of things."""
    return f"{count:,}"
