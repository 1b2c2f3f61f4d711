"""Lengths of time on the command line: ``14d``, ``36h``, ``90s``, ``0``."""

from datetime import timedelta

import click

from holdfast.inventory.amounts import read_duration


def duration(text: str) -> timedelta:
    """The length of time that a text stands for; without a unit it is one of days. A ``type`` for click's options.

    Raises:
        click.BadParameter: it stands for none.
    """
    try:
        return read_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error
