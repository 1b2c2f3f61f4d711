"""The rules that a candidate is judged by: ``promote:`` in ``params.yaml``.

What does not belong is refused with file, line and field: a rule that nobody reads would let everything pass.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast

import yaml

from holdfast.errors import UsageError
from holdfast.inventory.config import ConfigError, Section
from holdfast.nesting import TooDeepError, check_nesting
from holdfast.registry.gate_contract import Contract, TensorSpec, parse_spec
from holdfast.registry.gate_fields import Amount, amount, choice, duration, number, size

Rule = TypeVar("Rule")
Direction = Literal["max", "min"]
Score = Literal["precision", "recall", "f1"]

SECTION = "promote"
DIRECTIONS = ("max", "min")
SCORES: tuple[Score, ...] = ("precision", "recall", "f1")
STATISTICS: Mapping[str, Direction] = {"accuracy": "max", "macro_f1": "max", "loss": "min"}

CONFIDENCE = 0.95
RESAMPLES = 9999
LEAST_RESAMPLES = 999
MOST_RESAMPLES = 100_000
MINIMUM_SAMPLES = 30
MINIMUM_DIFFERING = 10
SEED = 0
MAX_BYTES = 2**20


class GateRulesError(UsageError):
    """The gate's rules cannot be read; the message names file, line and field."""


@dataclass(frozen=True)
class MetricRule:
    """What one metric must reach.

    Attributes:
        name: as in the metrics; dots lead into nested ones.
        direction: whether more or less of it is better.
        floor: the least value, for ``max``.
        ceiling: the greatest value, for ``min``.
        improvement: by how much the candidate must at least be better than the champion.
        tolerance: by how much it may at most be worse.
        required: without a finite value the candidate fails.
    """

    name: str
    direction: Direction
    floor: float | None = None
    ceiling: float | None = None
    improvement: Amount | None = None
    tolerance: Amount | None = None
    required: bool = False


@dataclass(frozen=True)
class ClassRule:
    """What each class must reach.

    Attributes:
        score: ``recall``, ``precision`` or ``f1``.
        floor: the least value, in [0, 1], of every class; None for none.
        floors: the least value of single classes, instead of `floor`.
        tolerance: by how much a class may be worse than the champion's; None for any.
        minimum_samples: with fewer samples of a class its score says nothing.
    """

    score: Score
    floor: float | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    tolerance: Amount | None = None
    minimum_samples: int = 1


@dataclass(frozen=True)
class BootstrapRule:
    """What the interval of a paired bootstrap must show.

    Attributes:
        statistic: ``accuracy``, ``macro_f1``, ``loss``, or a column of the predictions, whose mean counts.
        direction: whether more or less of it is better.
        improvement: the interval of what the candidate is better by must lie above it; above 0 where neither this nor
            `tolerance` is given.
        tolerance: it must not reach below this loss; instead of `improvement`.
        confidence: of the two-sided interval, in (0, 1).
        minimum_samples: with fewer the verdict is inconclusive.
        minimum_differing: with fewer samples in which the two differ too.
        resamples: how often is drawn.
        seed: of the draws.
        required: without predictions the candidate fails.
    """

    statistic: str
    direction: Direction
    improvement: Amount | None = None
    tolerance: Amount | None = None
    confidence: float = CONFIDENCE
    minimum_samples: int = MINIMUM_SAMPLES
    minimum_differing: int = MINIMUM_DIFFERING
    resamples: int = RESAMPLES
    seed: int = SEED
    required: bool = False


@dataclass(frozen=True)
class GateRules:
    """All rules of a gate; without any, everything passes.

    Attributes:
        metrics: what metrics must reach.
        classes: what each class must reach.
        bootstrap: what intervals must show.
        max_size: bytes of the model's file.
        max_latency: seconds on the CPU.
        card: fields that the model card must have.
        contract: tensors that it must take, give and hold.
        pickle_safe: its file must be loadable without unpickling.
    """

    metrics: tuple[MetricRule, ...] = ()
    classes: tuple[ClassRule, ...] = ()
    bootstrap: tuple[BootstrapRule, ...] = ()
    max_size: int | None = None
    max_latency: float | None = None
    card: tuple[str, ...] = ()
    contract: Contract | None = None
    pickle_safe: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of predictions that the rules need, besides those that every file has."""
        return tuple(rule.statistic for rule in self.bootstrap if rule.statistic not in STATISTICS)


def read_rules(path: Path, *, others: Collection[str] = ("model",)) -> GateRules:
    """The gate's rules in a ``params.yaml``; none where it has no ``promote:``.

    Args:
        path: the file.
        others: keys of the section that are no rules.

    Raises:
        GateRulesError: the file is no YAML, or ``promote:`` holds what is no rule.
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        return parse_rules(stream.read(MAX_BYTES + 1), path, others=others)


def parse_rules(data: bytes, file: Path, *, others: Collection[str] = ("model",)) -> GateRules:
    """The gate's rules in the bytes of a ``params.yaml``; ``file`` is what errors call it.

    Raises:
        GateRulesError: as of `read_rules`.
    """
    if len(data) > MAX_BYTES:
        raise GateRulesError(f"{file} is larger than {MAX_BYTES // 2**20} MiB")
    try:
        check_nesting(data)
        node = yaml.compose(data, Loader=yaml.SafeLoader)
    except TooDeepError as error:
        raise GateRulesError(f"{file}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        raise GateRulesError(f"{place}: is no YAML ({getattr(error, 'problem', None) or 'not readable'})") from error
    try:
        return _rules(Section(file, (), node).section(SECTION), others)
    except ConfigError as error:
        raise GateRulesError(error.message, hint=error.hint) from error


def _rules(section: Section, others: Collection[str]) -> GateRules:
    for key in others:
        section.take(key)
    contract = section.take("contract")
    rules = GateRules(
        metrics=_each(section, "metrics", _metric),
        classes=_each(section, "classes", _class),
        bootstrap=_each(section, "bootstrap", _bootstrap),
        max_size=size(section, "max_size"),
        max_latency=duration(section, "max_latency"),
        card=section.texts("card", ()),
        contract=None if contract is None else _contract(section.section("contract")),
        pickle_safe=section.flag("pickle_safe", False),
    )
    section.close()
    return rules


def _each(section: Section, key: str, read: Callable[[Section, str, Section], Rule]) -> tuple[Rule, ...]:
    inner = section.section(key)
    return tuple(read(inner, name, inner.section(name)) for name in inner.names())


def _metric(parent: Section, name: str, section: Section) -> MetricRule:
    direction = choice(section, "direction", DIRECTIONS)
    if direction is None:
        raise parent.wrong(name, "says no direction: max where more is better, min where less is")
    floor, ceiling = number(section, "floor"), number(section, "ceiling")
    improvement, tolerance = _margins(section, positive="tolerance: 0 asks for no loss")
    required = section.flag("required", False)
    section.close()
    if floor is not None and direction == "min":
        raise section.wrong("floor", "belongs to a metric of which more is better; here it is called ceiling")
    if ceiling is not None and direction == "max":
        raise section.wrong("ceiling", "belongs to a metric of which less is better; here it is called floor")
    if not required and all(asked is None for asked in (floor, ceiling, improvement, tolerance)):
        raise parent.wrong(name, "asks for nothing: say floor, ceiling, improvement, tolerance or required")
    return MetricRule(name, cast(Direction, direction), floor, ceiling, improvement, tolerance, required)


def _class(parent: Section, name: str, section: Section) -> ClassRule:
    if name not in SCORES:
        raise parent.wrong(name, f"is no score of classes; these are {', '.join(SCORES)}")
    floor = number(section, "floor", minimum=0, maximum=1)
    inner = section.section("floors")
    floors = {label: cast(float, number(inner, label, minimum=0, maximum=1)) for label in inner.names()}
    tolerance = amount(section, "tolerance")
    samples = section.integer("minimum_samples", 1, minimum=1)
    section.close()
    if floor is None and not floors and tolerance is None:
        raise parent.wrong(name, "asks for nothing: say floor, floors or tolerance")
    return ClassRule(name, floor, floors, tolerance, samples)


def _bootstrap(parent: Section, name: str, section: Section) -> BootstrapRule:
    direction: Direction | None = STATISTICS.get(name)
    if direction is None:
        direction = cast("Direction | None", choice(section, "direction", DIRECTIONS))
        if direction is None:
            known = ", ".join(STATISTICS)
            raise parent.wrong(name, f"is none of {known}: as a column of the predictions it needs a direction")
    improvement, tolerance = _margins(section)
    confidence = number(section, "confidence")
    if confidence is not None and not 0.5 <= confidence < 1:
        raise section.wrong("confidence", f"is {confidence:g}, and must be at least 0.5 and below 1")
    resamples = section.integer("resamples", RESAMPLES, minimum=LEAST_RESAMPLES)
    if resamples > MOST_RESAMPLES:
        raise section.wrong("resamples", f"is {resamples}, and must be at most {MOST_RESAMPLES}")
    rule = BootstrapRule(
        statistic=name,
        direction=direction,
        improvement=improvement,
        tolerance=tolerance,
        confidence=CONFIDENCE if confidence is None else confidence,
        minimum_samples=section.integer("minimum_samples", MINIMUM_SAMPLES, minimum=2),
        minimum_differing=section.integer("minimum_differing", MINIMUM_DIFFERING, minimum=1),
        resamples=resamples,
        seed=section.integer("seed", SEED),
        required=section.flag("required", False),
    )
    section.close()
    return rule


def _margins(section: Section, positive: str = "") -> tuple[Amount | None, Amount | None]:
    improvement, tolerance = amount(section, "improvement", positive=positive), amount(section, "tolerance")
    if improvement is not None and tolerance is not None:
        raise section.wrong("tolerance", "contradicts improvement: who must be better may not be worse")
    return improvement, tolerance


def _contract(section: Section) -> Contract:
    parts = {}
    for key in ("inputs", "outputs", "tensors"):
        inner = section.section(key)
        parts[key] = {name: _spec(inner, name) for name in inner.names()}
    section.close()
    return Contract(**parts)


def _spec(section: Section, name: str) -> TensorSpec:
    text = section.text(name, "")
    try:
        return parse_spec(text)
    except ValueError as error:
        raise section.wrong(name, f"is {text!r}, and {error}") from error
