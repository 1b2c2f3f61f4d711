"""What a pull request changes, as facts: all that a reviewer decides by, read without a checkout and without DVC.

Nothing is written and nothing is asked of a network. The same commits and the same objects in DVC's cache give the same
facts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from holdfast.gc.policy import Policy, policy_of
from holdfast.inventory.config import ConfigError, Section
from holdfast.nesting import TooDeepError, check_nesting
from holdfast.objectstore.usage import R2_PRICES
from holdfast.registry.gate_rules import Direction, GateRules
from holdfast.registry.gate_verdict import Finding, Verdict, worst
from holdfast.registry.promotion_files import METRICS_FILE
from holdfast.repo.workspace import CONFIG_FILE, Project
from holdfast.report.pull_gate import Gate, Known, candidate_of, gate_of, judge_sides, predictions_of
from holdfast.report.pull_opening import open_sides
from holdfast.report.pull_outs import (
    LetGo,
    NewBytes,
    OutChange,
    compare_outs,
    fresh_objects,
    let_go,
    new_bytes,
    with_verdicts,
)
from holdfast.report.pull_plots import CONFUSION, CURVES, draw_confusion, draw_curves, panels_of
from holdfast.report.pull_predictions import (
    ClassChange,
    Confusion,
    Interval,
    compare_classes,
    compare_confusion,
    find_predictions,
    intervals,
    pair_sides,
    scores_of,
)
from holdfast.report.pull_registry import ModelChange, compare_registries, models_of
from holdfast.report.pull_sides import Fault, Side
from holdfast.report.pull_values import ValueChange, compare_values, metrics_of, params_of, trees_of

# the bytes that a vault stores of some oids besides those of others; None where its index does not know them all
Stored = Callable[[list[str], list[str]], "int | None"]


@dataclass(frozen=True)
class Revision:
    """One side for people.

    Attributes:
        name: as it was asked for.
        commit: 40 hex digits; empty where there is none.
        subject: its first line.
        date: of the commit, ISO 8601 in UTC.
    """

    name: str
    commit: str
    subject: str
    date: str


@dataclass(frozen=True)
class MetricChange:
    """A metric of both sides, with what the gate asks of it.

    Attributes:
        value: file, name and both values.
        direction: which way it is better; None where the gate does not say.
        asked: what the gate asks, in words; empty for nothing.
        interval: of the difference, where both sides' predictions tell it.
        verdict: the worst of the rules that are about it; None where none is.
    """

    value: ValueChange
    direction: Direction | None = None
    asked: str = ""
    interval: Interval | None = None
    verdict: Verdict | None = None

    @property
    def better(self) -> bool | None:
        """Whether it got better; None where that is not known, or it did not change."""
        difference = self.value.difference
        if self.direction is None or not difference or difference != difference:
            return None
        return (difference > 0) == (self.direction == "max")


@dataclass(frozen=True)
class PullRequest:
    """What a pull request changes.

    Attributes:
        base: what both sides come from, under the name of the revision to be merged into.
        head: what is to be merged.
        workspace: whether the head side is the files as they lie.
        related: whether the two have a commit in common; else the base revision itself is the base side.
        gate: the verdict.
        metrics: every metric of both sides.
        classes: every class, what lost most first.
        confusion: mistakes that are made more or less often, the largest difference first.
        params: those that differ.
        models: what differs in the registry.
        outs: what DVC tracks and differs.
        added: what that adds to what is stored.
        month: dollars a month, for the bytes that are stored whole and for those of the vault.
        let_go: what nothing at the head side names any more.
        predictions_note: why there are no intervals, a clause; empty where there are, or where there is nothing to say.
        faults: what cannot be read.
    """

    base: Revision
    head: Revision
    workspace: bool
    related: bool
    gate: Gate
    metrics: tuple[MetricChange, ...]
    classes: tuple[ClassChange, ...]
    confusion: tuple[Confusion, ...]
    params: tuple[ValueChange, ...]
    models: tuple[ModelChange, ...]
    outs: tuple[OutChange, ...]
    added: NewBytes
    month: tuple[float, float | None]
    let_go: tuple[LetGo, ...]
    predictions_note: str
    faults: tuple[Fault, ...]


def read_pull_request(
    project: Project,
    cache: Path,
    base: str,
    head: str = "HEAD",
    *,
    workspace: bool = False,
    stored: Stored = lambda known, fresh: None,  # noqa: ARG005 - without a vault nothing is known
    plots: bool = False,
) -> tuple[PullRequest, dict[str, bytes]]:
    """What merging ``head`` into ``base`` changes.

    Args:
        project: whose.
        cache: the folder of DVC's cache.
        base: the revision to be merged into; compared is the commit that both come from.
        head: the revision to be merged.
        workspace: take the files as they lie for the head side.
        stored: asks a vault's index.
        plots: draw pictures, too.

    Returns:
        The facts, and the pictures as PNG by name; none where nothing is to be drawn.

    Raises:
        ShallowCloneError: git's history ends early.
        UnknownRevisionError: git knows no such revision.
        UnreadableRefError: git has lost what it should have.
        PlotLibraryMissingError: pictures are wanted, and matplotlib is not installed.
    """
    ours, theirs, related = open_sides(project, cache, base, head, workspace=workspace)
    params = params_of(ours), params_of(theirs)
    base_rules, base_model = gate_of(ours, params[0])
    rules, model = gate_of(theirs, params[1])
    asked = rules or GateRules()
    metrics = metrics_of(ours), metrics_of(theirs)
    values = compare_values(*metrics)
    models = models_of(ours), models_of(theirs)
    changes = compare_registries(*models)
    outs = compare_outs(ours, theirs)
    gated = model or base_model
    head_stored = predictions_of(theirs, asked, gated, candidate_of(changes, gated))
    base_stored = find_predictions(ours, asked.columns, prefer=head_stored.path)
    scores = scores_of(base_stored, trees_of(ours)), scores_of(head_stored, trees_of(theirs))
    gate = judge_sides(
        Known(
            ours,
            theirs,
            *metrics,
            base_stored,
            head_stored,
            *scores,
            models[0],
            tuple(changes),
            changed=bool(outs) or any(value.changed for value in values),
        ),
        rules,
        base_rules,
        gated,
    )
    pairs, why_not = pair_sides(base_stored, head_stored)
    found = intervals(pairs, values, asked) if pairs is not None and _differ(ours, theirs, head_stored.path) else {}
    classes = compare_classes(*scores, asked)
    confusion = []
    if base_stored.predictions is not None and head_stored.predictions is not None:
        confusion = compare_confusion(base_stored.predictions, head_stored.predictions)
    pictures: dict[str, bytes] = {}
    if plots:
        if panels := panels_of(ours, theirs):
            pictures[CURVES] = draw_curves(panels)
        if confusion and base_stored.predictions is not None and head_stored.predictions is not None:
            drawn = draw_confusion(base_stored.predictions, head_stored.predictions)
            pictures |= {CONFUSION: drawn} if drawn is not None else {}
    fresh = fresh_objects(ours, theirs, outs)
    exact = stored([oid for _, oid in fresh.known], [oid for _, oid in fresh.sizes]) if fresh.sizes else None
    added = new_bytes(ours, theirs, fresh, exact=exact)
    return PullRequest(
        base=Revision(base, ours.commit, ours.subject, ours.date),
        head=Revision(head, theirs.commit, theirs.subject, theirs.date),
        workspace=workspace,
        related=related,
        gate=gate,
        metrics=tuple(_metric(value, asked, gate.findings, found) for value in values),
        classes=tuple(classes),
        confusion=tuple(confusion),
        params=tuple(value for value in compare_values(*params) if value.changed),
        models=tuple(changes),
        outs=tuple(with_verdicts(outs, ours, theirs)),
        added=added,
        month=(R2_PRICES.month(added.nbytes), None if added.vault is None else R2_PRICES.month(added.vault)),
        let_go=tuple(let_go(ours, theirs, models[1], _policy(theirs))),
        predictions_note=why_not if not found else "",
        faults=(*ours.faults, *theirs.faults),
    ), pictures


def _differ(base: Side, head: Side, path: str) -> bool:
    """Whether the two sides' predictions are not the same object; of equal ones no difference is to be sure of."""
    oid = head.oid(path)
    return oid is None or base.oid(path) != oid


def _metric(
    value: ValueChange, rules: GateRules, findings: tuple[Finding, ...], found: dict[tuple[str, str], Interval]
) -> MetricChange:
    if value.file == METRICS_FILE:
        return MetricChange(value)
    direction: Direction | None = None
    asked, about = [], []
    for rule in rules.metrics:
        if rule.name == value.name:
            direction = rule.direction
            about.append(f"metrics.{rule.name}.")
            asked += [f"≥ {rule.floor:g}"] if rule.floor is not None else []
            asked += [f"≤ {rule.ceiling:g}"] if rule.ceiling is not None else []
            asked += [f"at least {rule.improvement} better"] if rule.improvement is not None else []
            asked += [f"at most {rule.tolerance} worse"] if rule.tolerance is not None else []
            asked += ["required"] if rule.required and not asked else []
    interval = found.get((value.file, value.name))
    for drawn in rules.bootstrap:
        if drawn.statistic == value.name:
            direction = direction or drawn.direction
            about.append(f"bootstrap.{drawn.statistic}")
            margin = f"at most {drawn.tolerance} worse" if drawn.tolerance is not None else "better"
            margin = f"at least {drawn.improvement} better" if drawn.improvement is not None else margin
            asked.append(f"{margin}, by its interval")
    verdicts = [finding.verdict for finding in findings if f"{finding.rule}.".startswith(tuple(about))] if about else []
    return MetricChange(value, direction, "; ".join(asked), interval, worst(verdicts) if verdicts else None)


def _policy(side: Side) -> Policy:
    """The policy of garbage collection that a side's ``holdfast.yaml`` sets; the defaults where it has none."""
    data = side.read(CONFIG_FILE)
    if data is None:
        return Policy()
    try:
        check_nesting(data)
        node = yaml.compose(data, Loader=yaml.SafeLoader)
        return policy_of(Section(Path(CONFIG_FILE), (), node).section("gc"))
    except (ConfigError, TooDeepError, yaml.YAMLError, ValueError, RecursionError) as error:
        told = error.message if isinstance(error, ConfigError) else "it is no YAML"
        side.fault(CONFIG_FILE, told.removeprefix(CONFIG_FILE).lstrip(":"))
        return Policy()
