"""Lengths of time on the command line: ``14d``, ``36h``, ``90s``, ``0``."""

import re
from datetime import timedelta

import click

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def duration(text: str) -> timedelta:
    """The length of time that a text stands for; without a unit it is one of days. A ``type`` for click's options.

    Raises:
        click.BadParameter: it stands for none.
    """
    found = _FORM.fullmatch(text.strip().lower())
    if found is None:
        raise click.BadParameter(f"{text!r} is no length of time such as 14d, 36h or 90s.")
    try:
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2] or "d"])
    except OverflowError as error:
        raise click.BadParameter(f"{text!r} is longer than can be counted.") from error
