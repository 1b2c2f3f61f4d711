"""A pull request's facts as Markdown that fits into a comment, whatever they are.

The verdict and what a reviewer decides by come first and stay; tables lose rows, the least important first, until the
whole is small enough, and say how many they lost and what shows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.registry.gate_verdict import Finding
from holdfast.registry.promotion_files import METRICS_FILE
from holdfast.report.markdown import count, name, plain
from holdfast.report.pull_gate import Gate, Outcome
from holdfast.report.pull_parts import MARK, REGRESSIONS, SizeText, parts_of
from holdfast.report.pull_request import PullRequest, Revision

# GitHub takes 65,536 characters; counted in bytes of UTF-8 the report fits whichever unit is meant
MAX_BYTES = 65_000
FEWER_ROWS = (20, 10, 5, 2, 0)  # of a table, step by step
# the parts that lose rows where there is no room, the first to lose them first
SPARE = (
    *("gc", "other metrics", "other outs", "confusion", "other classes", "rules"),
    *("outs", "params", "registry", "classes", "faults", "metrics"),
)
REASONS = 8
TITLES: dict[Outcome, str] = {
    "pass": "✅ Gate: pass",
    "fail": "❌ Gate: fail",
    "inconclusive": "⚠️ Gate: inconclusive",
    "nothing to judge": "Gate: nothing to judge",
    "no gate": "No gate",
}


@dataclass(frozen=True)
class Picture:
    """A picture that was drawn.

    Attributes:
        title: what it shows.
        file: where it was written.
        url: where it can be fetched, to be shown in the text; empty to name the file alone.
    """

    title: str
    file: str
    url: str = ""


def marker(key: str = "") -> str:
    """The comment that a report begins with, by which a program finds its own among others."""
    return f"<!-- holdfast-report{f': {key}' if key else ''} -->"


def render_pull_request(
    found: PullRequest,
    *,
    size_text: SizeText,
    key: str = "",
    pictures: Sequence[Picture] = (),
    most_bytes: int = MAX_BYTES,
) -> str:
    """The report, ending in a newline, of at most ``most_bytes`` bytes in UTF-8.

    Args:
        found: the facts.
        size_text: writes a number of bytes.
        key: goes into the `marker`; letters, digits, ``.``, ``_``, ``/`` and ``-`` alone.
        pictures: that were drawn.
        most_bytes: at least 40,000, which the verdict and its reasons may take.
    """
    top = [marker(key), f"## {_title(found.gate)}", _summary(found, size_text), _reasons(found.gate), _sides(found)]
    shot = _pictures(pictures)
    parts = parts_of(found, size_text)

    def rendered() -> str:
        blocks = [*filter(None, top)]
        blocks += [part.render() for part in parts.values() if not part.folded]
        blocks += [shot] if shot else []
        blocks += [part.render() for part in parts.values() if part.folded]
        return "\n\n".join(blocks) + "\n"

    text = rendered()
    for rows in FEWER_ROWS:
        for kind in SPARE:
            if len(text.encode()) <= most_bytes:
                return text
            if kind in parts and len(parts[kind].rows) > rows:
                parts[kind].limit = rows
                text = rendered()
    return text


def _title(gate: Gate) -> str:
    told = TITLES[gate.outcome]
    if gate.candidate and gate.outcome in MARK:
        against = f" against {name(gate.champion)}" if gate.champion else ", which is the first"
        told += f" · {name(gate.candidate) if '@' in gate.candidate else plain(gate.candidate)}{against}"
    return told


def _summary(found: PullRequest, size_text: SizeText) -> str:
    """One line of everything that changes."""
    changed = [metric for metric in found.metrics if metric.value.changed and metric.value.file != METRICS_FILE]
    better, worse = sum(m.better is True for m in changed), sum(m.better is False for m in changed)
    other = len(changed) - better - worse
    told = [f"{number} {word}" for number, word in ((better, "better"), (worse, "worse"), (other, "changed")) if number]
    clauses = [f"metrics: {', '.join(told)}"] if told else ["no metric changes"]
    lost = sum(change.mark in REGRESSIONS for change in found.classes)
    clauses += [f"{count(lost, 'class', 'classes')} worse"] if lost else []
    clauses += [f"{count(len(found.params), 'param')} changed"] if found.params else []
    registered = sum(len(change.registered) for change in found.models)
    moved = sum(event.kind == "label" for change in found.models for event in change.events)
    clauses += [f"{count(registered, 'version')} registered"] if registered else []
    clauses += [f"{count(moved, 'label')} moved"] if moved else []
    if found.outs:
        clauses.append(f"{count(len(found.outs), 'file or folder', 'files or folders')} of DVC's changed")
        clauses += [f"{size_text(found.added.nbytes)} new"] if found.added.objects else []
    line = "; ".join(clauses)
    return f"{line[0].upper()}{line[1:]}."


def _reasons(gate: Gate) -> str:
    """What stands in the way, and what a reviewer must know of the verdict."""
    lines = [_reason(finding) for finding in gate.stopping[:REASONS]]
    if len(gate.stopping) > REASONS:
        lines.append(f"- {count(len(gate.stopping) - REASONS, 'rule')} more, below")
    if gate.outcome == "pass" and gate.findings:
        lines.append(f"- Passes {count(len(gate.findings), 'rule')}.")
    if gate.note:
        lines.append(f"- {plain(gate.note)}.")
    if gate.overridden is not None:
        lines.append(f"- ⚠️ **Overridden**: {plain(gate.overridden)}")
    if gate.rules_changed:
        lines.append("- ⚠️ **This branch changes the gate's own rules**, see the params.")
        lines += [f"- By the base's rules: {_reason(finding)[2:]}" for finding in gate.stricter[:REASONS]]
    if gate.recorded:
        told = ", ".join(name(rule) for rule in gate.recorded[:REASONS])
        more = f" and {len(gate.recorded) - REASONS} more" if len(gate.recorded) > REASONS else ""
        lines.append(f"- As the promotion wrote it, since what it was judged by is not here: {told}{more}.")
    return "\n".join(lines)


def _reason(finding: Finding) -> str:
    return f"- {MARK[finding.verdict]} **{finding.verdict}** {name(finding.rule)}: {plain(finding.reason)}"


def _sides(found: PullRequest) -> str:
    what = "the commit that both come from" if found.related else "they have no commit in common"
    head = _revision(found.head) if found.head.commit else f"{name(found.head.name)} without a commit"
    head += " with the files as they lie" if found.workspace else ""
    return (
        f"Base: {_revision(found.base)}, {what}. Head: {head}."
        if found.base.commit
        else f"The first: there is no base. Head: {head}."
    )


def _revision(revision: Revision) -> str:
    told = "" if revision.commit.startswith(revision.name) else f"{name(revision.name, 60)} "
    return f"{told}`{revision.commit[:8]}` {name(revision.subject, 60)}"


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    shown = [f"![{picture.title}](<{picture.url}>)" for picture in pictures if picture.url]
    if len(shown) > 1:
        shown[1:] = ["<details><summary>More plots</summary>", *shown[1:], "</details>"]
    named = [name(picture.file, 200) for picture in pictures if not picture.url]
    if named:
        shown.append(f"Drawn: {', '.join(named)}.")
    return "### Plots\n\n" + "\n\n".join(shown)
