"""The gate's verdict on a pull request: judged anew by what both sides have, completed by what the promotion wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from holdfast.errors import HoldfastError
from holdfast.formats.opening import open_checkpoint
from holdfast.inventory.run_record import ClassScore
from holdfast.registry.cards import card_path, missing_fields
from holdfast.registry.cards_markdown import CardError
from holdfast.registry.entries import Model, Version
from holdfast.registry.gate import judge
from holdfast.registry.gate_contract import FileFacts, file_facts
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_predictions import Predictions
from holdfast.registry.gate_rules import SECTION, GateRules, GateRulesError, parse_rules
from holdfast.registry.gate_verdict import Finding, Judgement, Verdict, named, worst
from holdfast.registry.promotion_evidence import _latency as latency_of
from holdfast.registry.promotion_evidence import interface_of, judgement_of
from holdfast.registry.promotion_files import METRICS_FILE
from holdfast.registry.promotion_source import config_path, predictions_path
from holdfast.registry.rollback import PREDICTIONS
from holdfast.registry.table import flatten
from holdfast.repo.cache import object_path
from holdfast.repo.dvcfiles import MD5
from holdfast.report.pull_predictions import Stored, find_predictions, read_stored
from holdfast.report.pull_registry import ModelChange
from holdfast.report.pull_sides import PARAMS_FILE, Side
from holdfast.report.pull_values import ByFile

Outcome = Literal["pass", "fail", "inconclusive", "nothing to judge", "no gate"]
VERDICTS: tuple[Verdict, ...] = ("pass", "inconclusive", "fail")


@dataclass(frozen=True)
class Gate:
    """What the gate says of a pull request.

    Attributes:
        outcome: its verdict; ``no gate`` where no rules are set, ``nothing to judge`` where nothing was changed that
            they are about.
        model: ``app/name`` that the gate is for; empty where nothing says so.
        candidate: ``app/name@v3`` where the head side registers a version, else what is judged in words.
        champion: what it was compared with; None where there was none.
        findings: one a rule.
        recorded: the rules whose verdict was taken from what the promotion wrote, as what they need is not here.
        stricter: where the head side changes the rules, those of the base side that the candidate does not pass either,
            as far as the head side's do not say the same.
        rules_changed: whether it does.
        overridden: why a version was registered though the gate refused it.
        stops: whether a check must fail: a rule fails, or is inconclusive though it is required.
        note: a sentence, without a full stop; empty where there is nothing more to say.
    """

    outcome: Outcome
    model: str = ""
    candidate: str = ""
    champion: str | None = None
    findings: tuple[Finding, ...] = ()
    recorded: tuple[str, ...] = ()
    stricter: tuple[Finding, ...] = ()
    rules_changed: bool = False
    overridden: str | None = None
    stops: bool = False
    note: str = ""

    @property
    def stopping(self) -> tuple[Finding, ...]:
        """The findings that do not pass, those that fail first."""
        order = {"fail": 0, "inconclusive": 1}
        return tuple(sorted((f for f in self.findings if f.verdict in order), key=lambda f: order[f.verdict]))


@dataclass(frozen=True)
class Known:
    """What a gate is judged by: both sides, their metrics, predictions and scores by class, the base side's models.

    Attributes:
        changes: of the registry.
        changed: whether metrics, or what DVC tracks, differ.
    """

    base: Side
    head: Side
    base_metrics: ByFile
    head_metrics: ByFile
    base_stored: Stored
    head_stored: Stored
    base_scores: Mapping[str, ClassScore]
    head_scores: Mapping[str, ClassScore]
    models: Mapping[str, Model | None]
    changes: tuple[ModelChange, ...]
    changed: bool


def gate_of(side: Side, params: Mapping[str, Mapping[str, Any]]) -> tuple[GateRules | None, str]:
    """The rules in a side's ``params.yaml`` and the model that they are for; None where it has no readable ones.

    What is no rule is noted as a fault.
    """
    model = params.get(PARAMS_FILE, {}).get(f"{SECTION}.model")
    data = side.read(PARAMS_FILE)
    if data is None:
        return None, ""
    try:
        rules = parse_rules(data, Path(PARAMS_FILE))
    except GateRulesError as error:
        if SECTION.encode() in data:  # else the file as a whole is broken, and that is noted already
            side.fault(PARAMS_FILE, error.message.removeprefix(PARAMS_FILE).lstrip(":"))
        return None, ""
    return rules, model if isinstance(model, str) else ""


def candidate_of(changes: Sequence[ModelChange], model_id: str) -> Version | None:
    """The newest version of a model that the head side registers."""
    for change in changes:
        if change.id == model_id and change.registered:
            return change.registered[-1]
    return None


def predictions_of(side: Side, rules: GateRules, model_id: str, version: Version | None) -> Stored:
    """The candidate's predictions: the pipeline's, else those beside the model, if a promoted version names them."""
    found = find_predictions(side, rules.columns)
    if found.path or version is None:
        return found
    beside = predictions_path(model_id).as_posix()
    own = version.source.get(PREDICTIONS)
    stored = read_stored(side, beside, rules.columns) if own is not None and side.oid(beside) == own else None
    return found if stored is None else stored


def judge_sides(known: Known, rules: GateRules | None, base_rules: GateRules | None, model_id: str) -> Gate:
    """Judge what the head side brings against the base side's champion.

    The candidate is the version that the head side registers, else what its metrics and predictions tell. The champion
    is the base side's: the alias ``production``, else the current version; without a registered one the base side's own
    metrics and predictions. A rule that asks for what is not here keeps the verdict that the promotion wrote.
    """
    if rules is None:
        lost = base_rules is not None and base_rules != GateRules()
        asks = SECTION.encode() in (known.head.read(PARAMS_FILE) or b"")
        broken = (lost or asks) and any(fault.path == PARAMS_FILE for fault in known.head.faults)
        if broken or lost:
            why = (
                "the head side's rules cannot be read" if broken else "the head side has no gate, and the base side has"
            )
            return Gate("fail", model_id, rules_changed=lost, stops=True, note=why)
        return Gate("no gate")
    changed = base_rules is not None and base_rules != rules
    if rules == GateRules() and not changed:
        return Gate("no gate", model_id)
    version = candidate_of(known.changes, model_id)
    if version is None and not known.changed:
        return Gate("nothing to judge", model_id, rules_changed=changed)
    if not known.head_metrics and version is None:
        return Gate("nothing to judge", model_id, rules_changed=changed, note="the head side has no metrics")
    champion = _champion(known, model_id, rules)
    candidate = _evidence(known, model_id, version, rules)
    judged = judge(rules, candidate, champion)
    record = _record(known, version)
    why = known.head_stored.why_not
    findings, recorded = _completed(judged, candidate, champion, record, why)
    verdict = worst([finding.verdict for finding in findings])
    notes = _disagreement(known, version)
    written = known.head_metrics.get(METRICS_FILE, {}).get("verdict")
    if written in VERDICTS and worst([written, verdict]) != verdict:
        notes.append(f"{METRICS_FILE} says {written}")
        verdict = written
    stricter: tuple[Finding, ...] = ()
    if changed and base_rules is not None:
        by_base, _ = _completed(judge(base_rules, candidate, champion), candidate, champion, record, why)
        told = {(finding.rule, finding.verdict) for finding in findings}
        stricter = tuple(f for f in by_base if f.verdict != "pass" and (f.rule, f.verdict) not in told)
    return Gate(
        outcome=verdict,
        model=model_id,
        candidate=f"{model_id}@{version.name}" if version else "the head side's metrics",
        champion=None if champion is None else champion.name,
        findings=tuple(findings),
        recorded=recorded,
        stricter=stricter,
        rules_changed=changed,
        overridden=None if version is None else version.overridden,
        stops=verdict == "fail" or any(_is_required(finding, rules) for finding in findings),
        note="; ".join(notes),
    )


def _disagreement(known: Known, version: Version | None) -> list[str]:
    """Which metrics a registered version has otherwise than the head side's files."""
    if version is None:
        return []
    files = _merged(known.head_metrics)
    names = [key for key, value in flatten(version.metrics).items() if files.get(key, value) != value]
    told = f"{version.name} was registered with other values than the metrics files have: {named(names)}"
    return [told] if names else []


def _champion(known: Known, model_id: str, rules: GateRules) -> Evidence | None:
    model = known.models.get(model_id)
    champion = model.champion if model else None
    if model is None or champion is None:
        metrics = _merged(known.base_metrics)
        if not metrics and known.base_stored.predictions is None:
            return None
        scores = tuple(known.base_scores.values())
        return Evidence("the base", metrics, scores, predictions=known.base_stored.predictions)
    predictions = None
    if rules.bootstrap or rules.classes:
        predictions = _predictions(known, model_id, model, champion, rules)
    return Evidence(champion.name, champion.metrics, predictions=predictions)


def _predictions(known: Known, model_id: str, model: Model, champion: Version, rules: GateRules) -> Predictions | None:
    """The champion's predictions: those that its version names, else those beside it, or those of the base side."""
    oid = champion.source.get(PREDICTIONS)
    beside = predictions_path(model_id).as_posix()
    for path in (beside, known.base_stored.path):
        # beside the model lie the predictions of the version that is current
        own = known.base.oid(path) == oid if oid else path == beside and champion.name == model.current
        if path and own and (stored := read_stored(known.base, path, rules.columns)) is not None:
            return stored.predictions
    return None


def _evidence(known: Known, model_id: str, version: Version | None, rules: GateRules) -> Evidence:
    metrics = _merged(known.head_metrics)
    if version is not None:
        metrics |= version.metrics
    card = known.head.read(card_path(model_id).as_posix()) if model_id else None
    lacks: tuple[str, ...] | None = None
    if card is not None:
        try:
            lacks = tuple(missing_fields(card.decode("utf-8", "replace"), rules.card))
        except CardError:
            lacks = rules.card
    config = known.head.read(config_path(model_id).as_posix()) if model_id else None
    return Evidence(
        name="the candidate",
        metrics=metrics,
        classes=tuple(known.head_scores.values()),
        predictions=known.head_stored.predictions,
        file=None if version is None else _file(known.head, version),
        latency=latency_of(metrics),
        card_lacks=lacks,
        interface=interface_of(config),
    )


def _merged(metrics: ByFile) -> dict[str, Any]:
    """The metrics of all files but the gate's own verdict; of equal names the first file's counts."""
    found: dict[str, Any] = {}
    for file, values in metrics.items():
        if file != METRICS_FILE:
            found = {**values, **found}
    return found


def _file(side: Side, version: Version) -> FileFacts | None:
    """What a gate asks of the version's file, where the cache has it; a folder's pickles are not looked for here."""
    if version.is_folder:
        return None
    path = object_path(side.cache, MD5, version.oid)
    if not path.is_file():
        return None
    try:
        source, checkpoint = open_checkpoint(path)
    except (HoldfastError, OSError):
        return None
    with source:
        return file_facts(checkpoint)


def _record(known: Known, version: Version | None) -> dict[str, Finding]:
    """What the promotion wrote, by rule: beside the version, else in its metrics file."""
    if version is not None and (judgement := _written(version.gate)) is not None:
        return {finding.rule: finding for finding in judgement.findings}
    told = known.head_metrics.get(METRICS_FILE, {})
    verdict = told.get("verdict")
    if verdict not in VERDICTS:
        return {}
    found = {}
    for rule, value in told.items():
        if value in (0, 1) and not isinstance(value, bool) and rule != "passed":
            found[rule] = Finding(rule, "pass" if value else verdict, "")
    return found


def _written(record: Mapping[str, Any]) -> Judgement | None:
    try:
        judgement = judgement_of(record)
    except (KeyError, TypeError, AttributeError):
        return None  # written by hand
    if judgement is None or any(finding.verdict not in VERDICTS for finding in judgement.findings):
        return None
    return judgement


def _completed(
    judged: Judgement, candidate: Evidence, champion: Evidence | None, record: Mapping[str, Finding], why: str
) -> tuple[list[Finding], tuple[str, ...]]:
    """The findings, those that lack what is not here replaced by what was written, and the names of these.

    ``why`` says why the candidate's predictions are not here though there are some: that is no fault of its own.
    """
    findings, recorded = [], []
    for finding in judged.findings:
        before = record.get(finding.rule)
        if before is not None and finding.verdict != "pass" and _lacks(finding.rule, candidate, champion):
            reason = before.reason or f"{METRICS_FILE} says so"
            findings.append(replace(before, reason=reason))
            recorded.append(finding.rule)
        elif why and finding.rule.startswith("bootstrap.") and candidate.predictions is None:
            findings.append(Finding(finding.rule, "inconclusive", why))
        else:
            findings.append(finding)
    return findings, tuple(recorded)


def _lacks(rule: str, candidate: Evidence, champion: Evidence | None) -> bool:
    """Whether a rule is about what is not known here, though the promotion may have had it."""
    kind = rule.split(".", 1)[0]
    if kind == "bootstrap" or (kind == "classes" and not candidate.scores):
        return candidate.predictions is None or (champion is not None and champion.predictions is None)
    if kind == "classes":
        return champion is not None and not champion.scores
    if kind == "max_latency":
        return candidate.latency is None
    if kind == "card":
        return candidate.card_lacks is None
    if kind == "contract":
        return candidate.interface is None and candidate.file is None
    return kind in ("max_size", "pickle_safe") and candidate.file is None


def _is_required(finding: Finding, rules: GateRules) -> bool:
    """Whether an inconclusive finding belongs to a rule that says ``required: true``."""
    if finding.verdict != "inconclusive":
        return False
    required = [f"metrics.{rule.name}" for rule in rules.metrics if rule.required]
    required += [f"bootstrap.{rule.statistic}" for rule in rules.bootstrap if rule.required]
    return bool({finding.rule, finding.rule.rpartition(".")[0]} & set(required))
