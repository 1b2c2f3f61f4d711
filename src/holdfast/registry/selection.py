"""Which version to use: the best by a metric, among those that meet criteria, or by a key's share of the traffic.

The split by key is a function of the model, the key and the shares alone: nothing is stored, and every process
anywhere gives the same answer. With ``h`` the first 8 bytes of BLAKE3 of ``model NUL key`` as a big-endian number, the
key lies at ``h / 2^64`` in [0, 1); the labels in the order of their names take that interval in parts of the length of
their shares, divided by the shares' sum.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from blake3 import blake3

from holdfast.errors import HoldfastError, UsageError
from holdfast.registry.entries import Model, Version

Direction = Literal["max", "min"]
_CRITERION = re.compile(r"\s*(?P<metric>[^<>=!\s]+)\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<value>\S+)\s*")
_TESTS = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
# a metric that is better the smaller it is, by its name: what a direction that nobody named is taken from
_SMALLER = re.compile(
    r"(?:^|[_./-])(?:loss|error|err|mse|rmse|mae|mape|nll|perplexity|ppl|wer|cer|fid|brier|ece|latency|seconds|size|bytes)(?:$|[_./-])"
)


class NoneFitsError(HoldfastError):
    """No version meets the criteria."""


@dataclass(frozen=True)
class Criterion:
    """What a metric must be.

    Attributes:
        metric: its name; with dots for one in a mapping.
        operator: ``>=``, ``<=``, ``>``, ``<``, ``==`` or ``!=``.
        value: what it is compared with.
    """

    metric: str
    operator: str
    value: float

    def fits(self, version: Version) -> bool:
        """Whether a version has the metric, and it is so; NaN never is."""
        value = metric_of(version, self.metric)
        return value is not None and bool(_TESTS[self.operator](value, self.value))


def parse_criterion(text: str) -> Criterion:
    """Read ``accuracy>=0.9``.

    Raises:
        UsageError: it is no criterion.
    """
    match = _CRITERION.fullmatch(text)
    try:
        value = float(match["value"]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or math.isnan(value):
        raise UsageError(f"{text!r} is no criterion", hint="Write a metric, one of >= <= > < == != and a number")
    return Criterion(match["metric"], match["operator"], value)


def metric_of(version: Version, name: str) -> float | None:
    """A metric as a number; None where the version has none of that name, or it is no number or NaN.

    A name that no metric has is looked up part by part: ``test.f1`` is ``f1`` in ``test``.
    """
    value: Any = version.metrics.get(name)
    if value is None:
        value = version.metrics
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)


def better_is(metric: str) -> Direction:
    """Which way a metric is better, from its name: ``min`` for losses, errors, times and sizes."""
    return "min" if _SMALLER.search(metric.lower()) else "max"


def select_version(
    model: Model,
    *,
    metric: str | None = None,
    direction: Direction | None = None,
    criteria: Sequence[Criterion] = (),
    deprecated: bool = False,
) -> Version:
    """The best version that meets all criteria.

    Args:
        model: whose.
        metric: what is best; None for the newest version.
        direction: which way is better; None to take it from the metric's name.
        criteria: what must hold.
        deprecated: whether deprecated versions count, too.

    Returns:
        The version; of equals the newest.

    Raises:
        NoneFitsError: there is none.
    """
    fitting = [
        version
        for version in model.versions
        if (deprecated or version.name not in model.deprecations) and all(item.fits(version) for item in criteria)
    ]
    if metric is not None:
        fitting = [version for version in fitting if metric_of(version, metric) is not None]
    if not fitting:
        raise _none_fits(model, metric, criteria, deprecated=deprecated)
    if metric is None:
        return fitting[-1]
    sign = 1.0 if (direction or better_is(metric)) == "max" else -1.0
    return max(fitting, key=lambda version: (sign * (metric_of(version, metric) or 0.0), version.number))


def split_by_key(model_id: str, key: str, shares: Mapping[str, float]) -> str:
    """The label that a key gets; see the head of this module.

    Args:
        model_id: ``app/name``: another model splits the same keys in another way.
        key: a user, a session, a request.
        shares: of each label; in any unit, since they are divided by their sum.

    Raises:
        UsageError: there are no shares, or one is negative or no number.
    """
    total = sum(shares.values())
    if not shares or not math.isfinite(total) or total <= 0 or min(shares.values()) < 0:
        hint = "Write labels and positive numbers: production=0.9,staging=0.1"
        told = ", ".join(f"{label}={share:g}" for label, share in shares.items()) or "none at all"
        raise UsageError(f"these are no shares: {told}", hint=hint)
    place = int.from_bytes(blake3(f"{model_id}\0{key}".encode()).digest()[:8], "big") / 2**64
    end = 0.0
    ordered = [label for label in sorted(shares) if shares[label] > 0]
    for label in ordered:
        end += shares[label] / total
        if place < end:
            return label
    return ordered[-1]


def _none_fits(model: Model, metric: str | None, criteria: Sequence[Criterion], *, deprecated: bool) -> NoneFitsError:
    """Says what was asked for, and what the versions have instead."""
    looked = [version for version in model.versions if deprecated or version.name not in model.deprecations]
    if not looked:
        hint = "--deprecated takes these, too" if model.versions else None
        return NoneFitsError(f"{model.id} has no version that is not deprecated", hint=hint)
    wanted = [f"{item.metric}{item.operator}{item.value:g}" for item in criteria]
    wanted += [f"with the metric {metric}"] if metric else []
    reach, unknown = [], []
    for name in dict.fromkeys([*(item.metric for item in criteria), *([metric] if metric else [])]):
        values = [value for version in looked if (value := metric_of(version, name)) is not None]
        if values:
            reach.append(f"{name} reaches from {min(values):.6g} to {max(values):.6g}")
        else:
            unknown.append(name)
    known = sorted({name for version in looked for name in version.metrics})
    if unknown:
        told = f"none has {' or '.join(unknown)}: the metrics are {', '.join(known)}" if known else "none has metrics"
        reach.insert(0, told)
    hint = "; ".join(reach)
    return NoneFitsError(f"no version of {model.id} fits: {', '.join(wanted)}", hint=hint[:1].upper() + hint[1:])
