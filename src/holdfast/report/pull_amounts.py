"""Numbers of a pull request's report, as people read them."""

from typing import Any

from holdfast.report.markdown import name
from holdfast.report.pull_predictions import Interval
from holdfast.report.pull_request import MetricChange
from holdfast.report.pull_values import is_number

NONE = "–"
LARGEST = 10**15  # beyond it a float loses whole numbers, and people lose count
DIGITS = 4  # significant ones, and more where two numbers need them
MOST_DIGITS = 17
LEAST_DOLLARS = 0.01
VALUE_CHARACTERS = 60


def value_text(value: Any) -> str:
    """A value in as many digits as people need: numbers plain, text as code, a dash for none."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if is_number(value):
        if isinstance(value, int):
            return str(value) if abs(value) < LARGEST else name(str(value), VALUE_CHARACTERS)
        return number_text(value)
    return name(str(value), VALUE_CHARACTERS)


def pair_texts(base: Any, head: Any) -> tuple[str, str]:
    """Two values, numbers in as many digits as tell them apart."""
    if all(_is_plain(value) for value in (base, head)) and (isinstance(base, float) or isinstance(head, float)):
        digits = next(
            (n for n in range(DIGITS, MOST_DIGITS) if number_text(base, n) != number_text(head, n)),
            DIGITS if base == head else MOST_DIGITS,
        )
        return number_text(base, digits), number_text(head, digits)
    return value_text(base), value_text(head)


def number_text(value: float, digits: int = DIGITS, sign: str = "") -> str:
    """A number in so many significant digits, and as many as stand before its point; ``sign`` ``+`` writes a plus."""
    if value != value:
        return "NaN"
    value += 0.0  # zero has no sign for people
    whole = len(str(int(abs(value)))) if abs(value) < LARGEST else 0
    return f"{value:{sign}.{max(digits, whole)}g}"


def change_text(metric: MetricChange) -> str:
    """The difference, with an arrow and in words where the direction is known."""
    value = metric.value
    if not value.changed:
        return "same"
    if value.base is None:
        return "new"
    if value.head is None:
        return "gone"
    difference = value.difference
    if not _is_plain(difference):
        return "changed"
    told = f"{difference:+d}" if isinstance(difference, int) else number_text(difference or 0.0, sign="+")
    if metric.better is None:
        return told
    return f"{'▲' if difference and difference > 0 else '▼'} {told} {'better' if metric.better else 'worse'}"


def interval_text(interval: Interval | None) -> str:
    """An interval of a difference, and what it says."""
    if interval is None:
        return ""
    sure = "" if interval.excludes_zero else ", may be chance"
    return f"{number_text(interval.lower, sign='+')} to {number_text(interval.upper, sign='+')}{sure}"


def money_text(dollars: float) -> str:
    """Dollars a month."""
    if 0 < dollars < LEAST_DOLLARS:
        return "less than 0.01 USD a month"
    return f"{dollars:,.2f} USD a month"


def _is_plain(value: Any) -> bool:
    """Whether it is a finite number of a size that people write."""
    return is_number(value) and -LARGEST < value < LARGEST
