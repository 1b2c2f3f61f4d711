"""Values of ``params.yaml`` that a gate needs and `holdfast.inventory.config.Section` does not read.

DVC reads ``params.yaml`` as YAML 1.2 and writes small numbers as ``1e-05``, which YAML 1.1 takes for text: numbers are
therefore read from the text that stands in the file.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import yaml

from holdfast.inventory.config import Section

SIZES = {
    "B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4,
}  # fmt: skip
TIMES = {"us": Fraction(1, 1_000_000), "µs": Fraction(1, 1_000_000), "ms": Fraction(1, 1000), "s": Fraction(1)}

_DIGITS = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_NUMBER = re.compile(rf"[-+]?{_DIGITS}")
_SHARE = re.compile(rf"({_DIGITS}) ?%")
_QUANTITY = re.compile(rf"({_DIGITS}) ?([A-Za-zµ]+)")
_LONGEST = 40  # characters of a number: an exponent of a thousand digits is none that anybody means


@dataclass(frozen=True)
class Amount:
    """How much better or worse a candidate has to be or may be.

    Attributes:
        value: in the metric's own unit, or in percent.
        relative: it is percent of the champion's value.
    """

    value: float
    relative: bool = False

    def of(self, champion: float) -> Fraction:
        """The amount in the metric's unit, where the champion's value is ``champion``."""
        return abs(exact(champion)) * exact(self.value) / 100 if self.relative else exact(self.value)

    def __str__(self) -> str:
        return f"{self.value:g} %" if self.relative else f"{self.value:g}"


def exact(value: float) -> Fraction:
    """The decimal number that a finite float was written as: 0.3 - 0.2 is 0.1, and not a little less."""
    return Fraction(value) if isinstance(value, int) else Fraction(Decimal(repr(float(value))))


def number(section: Section, key: str, *, minimum: float = -math.inf, maximum: float = math.inf) -> float | None:
    """A finite number in ``[minimum, maximum]``; None where the file has none."""
    node = section.take(key)
    if node is None:
        return None
    value = _number(node)
    if value is None:
        raise section.wrong(key, f"is {shown(node)}, and must be a number")
    if not minimum <= value <= maximum:
        if math.isinf(maximum):
            raise section.wrong(key, f"is {value:g}, and must be at least {minimum:g}")
        raise section.wrong(key, f"is {value:g}, and must be a number from {minimum:g} to {maximum:g}")
    return value


def amount(section: Section, key: str, *, positive: str = "") -> Amount | None:
    """``0.01``, or ``1%`` of the champion's value.

    Args:
        section: where it stands.
        key: under which key.
        positive: what to say where it is 0; empty where 0 is allowed.
    """
    node = section.take(key)
    if node is None:
        return None
    value = _number(node)
    relative = False
    if value is None and (match := _SHARE.fullmatch(_text(node))):
        value, relative = _finite(match[1]), True
    if value is None:
        raise section.wrong(key, f"is {shown(node)}, and must be a number, or a share of the champion's value as in 1%")
    if value < 0:
        raise section.wrong(key, f"is {shown(node)}, and must not be negative")
    if not value and positive:
        raise section.wrong(key, f"is 0: {positive}")
    return Amount(value, relative)


def size(section: Section, key: str) -> int | None:
    """Bytes: ``20 MB``, ``20 MiB``, or a plain number of them."""
    node = section.take(key)
    if node is None:
        return None
    text = _text(node)
    match = _QUANTITY.fullmatch(text)
    if match and match[2] in SIZES and (factor := _finite(match[1])) is not None:
        return int(exact(factor) * SIZES[match[2]])
    if re.fullmatch(r"[0-9]+", text) and len(text) <= _LONGEST:
        return int(text)
    raise section.wrong(key, f"is {shown(node)}, and must be a size such as 20 MB, or a number of bytes")


def duration(section: Section, key: str) -> float | None:
    """Seconds, of a time with its unit: ``20 ms``."""
    node = section.take(key)
    if node is None:
        return None
    match = _QUANTITY.fullmatch(_text(node))
    if not match or match[2] not in TIMES or not (value := _finite(match[1])):
        raise section.wrong(key, f"is {shown(node)}, and must be a time with its unit, such as 20 ms")
    return float(exact(value) * TIMES[match[2]])


def choice(section: Section, key: str, among: tuple[str, ...]) -> str | None:
    """One of a few words."""
    node = section.take(key)
    if node is None:
        return None
    if _text(node) not in among:
        raise section.wrong(key, f"is {shown(node)}, and must be {' or '.join(among)}")
    return _text(node)


def shown(node: yaml.Node) -> str:
    """What stands in the file, for a message."""
    if not isinstance(node, yaml.ScalarNode):
        return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    return repr(str(node.value)) if node.value else "empty"


def _text(node: yaml.Node) -> str:
    return str(node.value).strip() if isinstance(node, yaml.ScalarNode) else ""


def _number(node: yaml.Node) -> float | None:
    # a number in quotes is text to DVC
    if not isinstance(node, yaml.ScalarNode) or node.style is not None or not _NUMBER.fullmatch(node.value):
        return None
    return _finite(node.value)


def _finite(text: str) -> float | None:
    value = float(text) if len(text) <= _LONGEST else math.nan
    return value if math.isfinite(value) else None
