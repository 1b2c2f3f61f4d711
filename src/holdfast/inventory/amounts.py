"""Lengths of time and numbers of bytes as people write them: ``14d``, ``36h``, ``50GB``, ``1.5MiB``."""

import re
from datetime import timedelta

_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smhdw]?)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(i?)b?")
_POWERS = {unit: power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


def read_duration(text: str) -> timedelta:
    """The length of time that a text stands for; without a unit it is one of days.

    Raises:
        ValueError: it stands for none; the message says what is wrong with it.
    """
    found = _TIME.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no length of time such as 14d, 36h or 90s")
    try:
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2] or "d"])
    except OverflowError as error:
        raise ValueError(f"{text!r} is longer than can be counted") from error


def read_size(text: str) -> int:
    """The number of bytes that a text stands for: ``GB`` is 10^9 of them, ``GiB`` 2^30.

    Raises:
        ValueError: it stands for none; the message says what is wrong with it.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or (found[3] and not found[2]):
        raise ValueError(f"{text!r} is no number of bytes such as 500MB, 50GB or 1.5GiB")
    unit: int = (1024 if found[3] else 1000) ** _POWERS[found[2]]
    return round(float(found[1]) * unit)
