"""Lengths of time on the command line: ``14d``, ``36h``, ``90s``, ``0``."""

import re
from datetime import timedelta
from typing import Any

import click

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Duration(click.ParamType):
    """A length of time; without a unit it is one of days."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The length that a text stands for."""
        if isinstance(value, timedelta):
            return value
        found = _FORM.fullmatch(str(value).strip().lower())
        if found is None:
            self.fail(f"{value!r} is no length of time such as 14d, 36h or 90s", param, ctx)
        try:
            return timedelta(seconds=float(found[1]) * _SECONDS[found[2] or "d"])
        except OverflowError:
            self.fail(f"{value!r} is longer than can be counted", param, ctx)
