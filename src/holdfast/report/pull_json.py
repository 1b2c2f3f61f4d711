"""A pull request's facts as JSON, for programs; its form is ``holdfast/cli/schemas/report-pr.schema.json``."""

import math
from typing import Any

from holdfast.registry.gate_verdict import Finding
from holdfast.repo.dvcfiles import Out
from holdfast.report.pull_predictions import ClassChange
from holdfast.report.pull_request import MetricChange, PullRequest

FORMAT = "holdfast report pr 1"


def pull_request_json(found: PullRequest, pictures: tuple[str, ...] = ()) -> dict[str, Any]:
    """The facts as mappings, lists, numbers and text.

    A metric or param that is NaN or infinite, which JSON does not know, is the text ``NaN``, ``Infinity`` or
    ``-Infinity``; a difference of such is still a float.

    Args:
        found: the facts.
        pictures: the files that were drawn.
    """
    gate = found.gate
    return {
        "format": FORMAT,
        "base": vars(found.base),
        "head": {**vars(found.head), "workspace": found.workspace},
        "related": found.related,
        "gate": {
            "outcome": gate.outcome,
            "stops": gate.stops,
            "model": gate.model or None,
            "candidate": gate.candidate or None,
            "champion": gate.champion,
            "rules": [_finding(finding) for finding in gate.findings],
            "recorded": list(gate.recorded),
            "rules_changed": gate.rules_changed,
            "by_base_rules": [_finding(finding) for finding in gate.stricter],
            "overridden": gate.overridden,
            "note": gate.note or None,
        },
        "metrics": [_metric(metric) for metric in found.metrics],
        "classes": [_class(change) for change in found.classes],
        "confusion": [vars(cell) for cell in found.confusion],
        "params": [
            {"file": value.file, "name": value.name, "base": _value(value.base), "head": _value(value.head)}
            for value in found.params
        ],
        "registry": [
            {
                "model": change.id,
                "registered": [version.name for version in change.registered],
                "changes": [
                    {
                        "kind": event.kind,
                        "label": event.label or None,
                        "base": event.before,
                        "head": event.after,
                        "note": event.note or None,
                    }
                    for event in change.events
                ],
            }
            for change in found.models
        ],
        "outs": [
            {
                "path": change.path,
                "kind": change.kind,
                "renamed_from": change.renamed_from,
                "base": _out(change.base),
                "head": _out(change.head),
                "verdict": change.verdict or None,
            }
            for change in found.outs
        ],
        "storage": {
            "objects": found.added.objects,
            "bytes": found.added.nbytes,
            "vault_bytes": found.added.vault,
            "vault_exact": found.added.exact,
            "unknown": found.added.unknown,
            "dollars_a_month": found.month[0],
            "vault_dollars_a_month": found.month[1],
        },
        "let_go": [{"path": gone.path, "size": gone.size, "kept_by": gone.kept_by or None} for gone in found.let_go],
        "no_intervals_because": found.predictions_note or None,
        "faults": [vars(fault) for fault in found.faults],
        "pictures": list(pictures),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "numbers": dict(finding.numbers),
    }


def _metric(metric: MetricChange) -> dict[str, Any]:
    value, interval = metric.value, metric.interval
    return {
        "file": value.file,
        "name": value.name,
        "base": _value(value.base),
        "head": _value(value.head),
        "changed": value.changed,
        "difference": value.difference,
        "direction": metric.direction,
        "better": metric.better,
        "asked": metric.asked or None,
        "verdict": metric.verdict,
        "interval": None if interval is None else vars(interval),
    }


def _value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _class(change: ClassChange) -> dict[str, Any]:
    return {
        "name": change.name,
        "samples": change.samples,
        "score": change.score,
        "mark": change.mark,
        "difference": change.difference,
        "base": _scores(change, head=False),
        "head": _scores(change, head=True),
    }


def _scores(change: ClassChange, *, head: bool) -> dict[str, float | None] | None:
    scores = change.head if head else change.base
    return None if scores is None else {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}


def _out(out: Out | None) -> dict[str, Any] | None:
    return None if out is None else {"oid": out.oid, "size": out.size, "files": out.nfiles}
