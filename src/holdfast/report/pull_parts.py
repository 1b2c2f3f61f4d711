"""The parts of a pull request's report: each a heading with a table, made of the facts."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from holdfast.registry.promotion_files import METRICS_FILE
from holdfast.report.markdown import count, name, plain, table
from holdfast.report.pull_amounts import change_text, interval_text, money_text, number_text, pair_texts, value_text
from holdfast.report.pull_gate import Gate
from holdfast.report.pull_outs import OutChange
from holdfast.report.pull_registry import ModelChange
from holdfast.report.pull_request import MetricChange, PullRequest

MOST_ROWS = 50  # of a table, where there is room
MARK = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️"}
REGRESSIONS = ("gone", "below floor", "regression", "worse")
CLASS_MARKS = {
    "gone": "❌ gone",
    "below floor": "❌ below floor",
    "regression": "❌ regression",
    "worse": "▼ worse",
    "better": "▲ better",
}
JSON = "`holdfast report pr --json`"

SizeText = Callable[[int], str]


@dataclass
class Part:
    """A heading with a table below.

    Attributes:
        title: the heading, or of what is folded its summary; without names that a stranger chose.
        header: of the table.
        rows: of the table.
        right: the columns that hold numbers.
        text: lines between heading and table.
        more: what shows the rows that are left out.
        folded: whether it is shown only when asked for.
        limit: how many rows are shown.
    """

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    right: Collection[int] = ()
    text: str = ""
    more: str = ""
    folded: bool = False
    limit: int = field(default=MOST_ROWS)

    def render(self) -> str:
        """The part as Markdown."""
        shown = self.rows[: self.limit]
        blocks = [self.text] if self.text else []
        blocks += [table(self.header, shown, self.right)] if shown else []
        if len(shown) < len(self.rows):
            left = count(len(self.rows) - len(shown), "row")
            blocks.append(f"{left} {'more' if shown else 'left out'}{f': {self.more}' if self.more else ''}")
        body = "\n\n".join(blocks)
        if self.folded:
            return f"<details><summary>{self.title}</summary>\n\n{body}\n\n</details>"
        return f"### {self.title}\n\n{body}"


def parts_of(found: PullRequest, size_text: SizeText) -> dict[str, Part]:
    """The parts by name, in the order of the page; those that there is nothing to say in are left out.

    Args:
        found: the facts.
        size_text: writes a number of bytes.
    """
    parts = {
        "faults": _faults(found),
        "metrics": _metrics(found),
        "classes": _classes(found),
        "registry": _registry(found),
        "params": _params(found),
        "outs": _outs(found, size_text),
        "storage": _storage(found, size_text),
        "rules": _rules(found.gate),
        "other classes": _other_classes(found),
        "confusion": _confusion(found),
        "other metrics": _other_metrics(found),
        "other outs": _other_outs(found, size_text),
        "gc": _let_go(found, size_text),
    }
    return {kind: part for kind, part in parts.items() if part is not None}


def _faults(found: PullRequest) -> Part | None:
    rows = [(fault.side, name(fault.path), plain(fault.reason)) for fault in found.faults]
    return Part("⚠️ Could not be read", ("side", "file", "why"), rows) if rows else None


def _metrics(found: PullRequest) -> Part | None:
    shown = [metric for metric in found.metrics if _is_shown(metric)]
    note = f"No intervals: {plain(found.predictions_note)}." if found.predictions_note else ""
    if not shown:
        return Part("Metrics", text="No metric changes." if found.metrics else "Neither side has metrics.")
    shown.sort(key=lambda metric: (metric.verdict is None, not metric.asked))
    files = {metric.value.name: metric.value.file for metric in shown}
    twice = {metric.value.name for metric in shown if files[metric.value.name] != metric.value.file}
    asks = any(metric.asked for metric in shown)
    drawn = [metric.interval for metric in shown if metric.interval is not None]
    header = ["metric", "base", "head", "change"]
    header += ["gate asks", "verdict"] if asks else []
    header += [f"{drawn[0].confidence * 100:g} % interval"] if drawn else []
    rows = []
    for metric in shown:
        value = metric.value
        label = name(f"{value.file}:{value.name}" if value.name in twice or not value.name else value.name)
        row = [label, *pair_texts(value.base, value.head), change_text(metric)]
        if asks:
            row += [plain(metric.asked), f"{MARK[metric.verdict]} {metric.verdict}" if metric.verdict else ""]
        row += [interval_text(metric.interval)] if drawn else []
        rows.append(row)
    return Part("Metrics", header, rows, (1, 2), note, _run("dvc metrics diff", found))


def _is_shown(metric: MetricChange) -> bool:
    return metric.value.file != METRICS_FILE and (metric.value.changed or bool(metric.asked))


def _other_metrics(found: PullRequest) -> Part | None:
    # what the gate wrote stands among its rules
    judged = bool(found.gate.findings)
    rest = [m for m in found.metrics if not _is_shown(m) and not (judged and m.value.file == METRICS_FILE)]
    rows = [
        (name(m.value.file), name(m.value.name) if m.value.name else "", *pair_texts(m.value.base, m.value.head))
        for m in rest
    ]
    if not rows:
        return None
    title = f"{count(len(rows), 'other metric')}, unchanged"
    more = _run("dvc metrics diff --all", found)
    return Part(title, ("file", "metric", "base", "head"), rows, (2, 3), more=more, folded=True)


def _classes(found: PullRequest) -> Part | None:
    if not found.classes:
        return None
    lost = [change for change in found.classes if change.mark in REGRESSIONS]
    text = "" if lost else f"No class of {len(found.classes)} is worse."
    return _class_part("Classes", found, REGRESSIONS, text)


def _other_classes(found: PullRequest) -> Part | None:
    marks = {change.mark for change in found.classes} - {*REGRESSIONS}
    if not marks:
        return None
    number = sum(change.mark in marks for change in found.classes)
    return _class_part(f"{count(number, 'class', 'classes')} not worse", found, marks, folded=True)


def _class_part(
    title: str, found: PullRequest, marks: Collection[str], text: str = "", *, folded: bool = False
) -> Part:
    score = found.classes[0].score
    rows = []
    for change in found.classes:
        if change.mark in marks:
            ours, theirs = change.value(change.base), change.value(change.head)
            difference = change.difference
            row = [name(change.name), "" if change.samples is None else str(change.samples), *pair_texts(ours, theirs)]
            row.append("" if difference is None else number_text(difference, sign="+") if difference else "0")
            if score != "f1":
                f1 = [None if side is None else side.f1 for side in (change.base, change.head)]
                row.append(" → ".join(value_text(value) for value in f1))
            rows.append([*row, CLASS_MARKS.get(change.mark, change.mark)])
    header = ["class", "samples", f"{score}, base", "head", "change", *(["F1"] if score != "f1" else []), "mark"]
    return Part(title, header, rows, (1, 2, 3, 4), text, JSON, folded)


def _registry(found: PullRequest) -> Part | None:
    rows = []
    for change in found.models:
        told = [(event.label or event.after or event.before or "", event.text) for event in change.events]
        if change.base is None:
            told.insert(0, ("", "new model"))
        if change.head is None:
            told.insert(0, ("", "removed"))
        rows += [(name(change.id), *_event(change, label, text)) for label, text in told]
    if not rows:
        return None
    more = "`holdfast registry history`"
    return Part("Registry", ("model", "change", "what it reaches"), rows, text="", more=more)


def _event(change: ModelChange, label: str, text: str) -> tuple[str, str]:
    """A change in words, and of a version that is new its metrics."""
    version = next((version for version in change.registered if version.name == label), None)
    if version is None:
        return plain(text), ""
    metrics = [f"{key} {value_text(value)}" for key, value in version.metrics.items() if isinstance(value, int | float)]
    more = f" and {len(metrics) - 4} more" if len(metrics) > 4 else ""
    return plain(text), plain(", ".join(metrics[:4]) + more)


def _params(found: PullRequest) -> Part | None:
    files = {value.file for value in found.params}
    rows = []
    for value in found.params:
        label = f"{value.file}:{value.name}" if len(files) > 1 else value.name
        ours, theirs = pair_texts(value.base, value.head)
        rows.append((name(label), ours, theirs))
    if not rows:
        return None
    return Part("Params", ("param", "base", "head"), rows, (1, 2), more=_run("dvc params diff", found))


def _outs(found: PullRequest, size_text: SizeText) -> Part | None:
    return _out_part("Data and models", [change for change in found.outs if _is_weighty(change)], size_text)


def _other_outs(found: PullRequest, size_text: SizeText) -> Part | None:
    rest = [change for change in found.outs if not _is_weighty(change)]
    return _out_part(f"{count(len(rest), 'other file')} of DVC's changed", rest, size_text, folded=True)


def _is_weighty(change: OutChange) -> bool:
    """Whether a reviewer must see it: what comes, goes or moves, and of what there is more to say: models, folders."""
    return change.kind != "changed" or bool(change.verdict)


def _out_part(title: str, changes: Sequence[OutChange], size_text: SizeText, *, folded: bool = False) -> Part | None:
    rows = [(name(change.path), *_sizes(change, size_text), _kind(change), plain(change.verdict)) for change in changes]
    if not rows:
        return None
    return Part(title, ("file or folder", "base", "head", "change", "content"), rows, (1, 2), more=JSON, folded=folded)


def _kind(change: OutChange) -> str:
    return f"renamed from {name(change.renamed_from)}" if change.renamed_from else change.kind


def _sizes(change: OutChange, size_text: SizeText) -> list[str]:
    return [
        "–" if out is None else "?" if out.size is None else size_text(out.size) for out in (change.base, change.head)
    ]


def _storage(found: PullRequest, size_text: SizeText) -> Part | None:
    added = found.added
    if not found.outs:
        return None
    whole = f"{size_text(added.nbytes)} in {count(added.objects, 'object')} ({money_text(found.month[0])} on R2)"
    text = f"The remote grows by {whole}." if added.objects else "The remote does not grow: nothing is new to it."
    if added.vault is not None and added.objects:
        about = "" if added.exact else "about "
        text += f" In a vault: {about}{size_text(added.vault)} ({money_text(found.month[1] or 0.0)})."
    elif added.objects:
        text += " What a vault would store of it is not known: not all of it is in the cache here."
    if added.unknown:
        text += f" {count(added.unknown, 'object')} of unknown size not counted."
    return Part("Storage", text=text)


def _let_go(found: PullRequest, size_text: SizeText) -> Part | None:
    rows = [
        (
            name(gone.path),
            "?" if gone.size is None else size_text(gone.size),
            plain(gone.kept_by) or "nothing, once old enough",
        )
        for gone in found.let_go
    ]
    if not rows:
        return None
    free = [gone for gone in found.let_go if not gone.kept_by]
    size = size_text(sum(gone.size or 0 for gone in free))
    told = f"{count(len(free), 'of them', 'of them')} ({size}) may go" if free else "all of them stay"
    title = f"Garbage collection: the branch stops naming {count(len(rows), 'object')}, {told}"
    return Part(title, ("object of the base", "size", "kept by"), rows, (1,), more="`holdfast gc plan`", folded=True)


def _confusion(found: PullRequest) -> Part | None:
    rows = [
        (name(cell.label), name(cell.prediction), str(cell.base), str(cell.head), f"{cell.head - cell.base:+d}")
        for cell in found.confusion
    ]
    if not rows:
        return None
    title = f"Confusion: {count(len(rows), 'mistake')} more or less often than before"
    header = ("label", "predicted as", "base", "head", "change")
    return Part(title, header, rows, (2, 3, 4), more=JSON, folded=True)


def _rules(gate: Gate) -> Part | None:
    rows = [(name(f.rule), f"{MARK[f.verdict]} {f.verdict}", plain(f.reason)) for f in gate.findings]
    if not rows:
        return None
    return Part(f"Gate: {count(len(rows), 'rule')}", ("rule", "verdict", "why"), rows, more=JSON, folded=True)


def _run(command: str, found: PullRequest) -> str:
    """A command of DVC's between the two sides' commits, which are hex digits."""
    if not found.base.commit:
        return JSON
    head = "" if found.workspace else f" {found.head.commit[:12]}"
    return f"`{command} {found.base.commit[:12]}{head}`"
