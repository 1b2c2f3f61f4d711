"""The clean-up report: which model files count, which differ from them and how, what may go and what needs a decision.

Every figure is computed from the facts, and the date comes from the caller, so that the same tree gives the same bytes.
"""

import shlex
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import PurePath

from holdfast.compare.checkpoints import Comparison, PartBytes
from holdfast.inventory.cleanup import Cleanup, Pair, Removal, Rivalry
from holdfast.inventory.models import ModelFamily, ModelFile
from holdfast.inventory.scan_status import STATUSES, Status
from holdfast.report.markdown import code, count, one_line, table

FILES_SHOWN = 50
PLACES_SHOWN = 40
NAMES_SHOWN = 12

_PARTS = {"weights": "weights", "optimizer": "optimizer state", "other": "other tensors", "file": "headers, metadata"}
_TITLES: dict[Status, str] = {
    "registered": "Registered",
    "primary": "Primary",
    "secondary": "Secondary",
    "unreferenced": "Referred to by nothing",
}

SizeText = Callable[[int], str]


def cleanup_report(cleanup: Cleanup, *, day: date, size_text: SizeText) -> str:
    """The report as Markdown, ending in a newline.

    Args:
        cleanup: the facts.
        day: the date of the report.
        size_text: writes a number of bytes.
    """
    sections = [
        f"# Model clean-up: {one_line(PurePath(cleanup.scan.root).name)}\n\nGenerated: {day.isoformat()}\n\n"
        + _summary(cleanup, size_text),
        _models(cleanup, size_text),
        _verification(cleanup, size_text),
        _usage(cleanup),
        _actions(cleanup, size_text),
        _phases(cleanup, size_text),
        _decision(cleanup, size_text),
        _notes(cleanup),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(cleanup: Cleanup, size_text: SizeText) -> str:
    scan = cleanup.scan
    total = _total(scan.models)
    if not scan.models:
        return f"There are no model files among {count(scan.looked, 'file')}."
    lines = [
        f"{count(len(scan.models), 'model file')} among {count(scan.looked, 'file')} hold {size_text(total)}.",
        "",
    ]
    lines += [
        f"- {len(found)} {status}: {size_text(_total(found))}" for status in STATUSES if (found := scan.of(status))
    ]
    copies = [removal for removal in cleanup.removals if removal.kind == "copies"]
    if copies:
        backups = count(sum(len(removal.files) for removal in copies), "backup file")
        lines.append(f"- {backups} of any kind in {count(len(copies), 'folder')}: {size_text(_bytes(copies))}")
    safe, more = _bytes(cleanup.safe), _bytes(cleanup.conditional)
    lines += [
        "",
        f"Safe to remove: {size_text(safe)}. With decisions: {size_text(more)} more, {size_text(safe + more)} in all.",
    ]
    return "\n".join(lines)


def _models(cleanup: Cleanup, size_text: SizeText) -> str:
    parts = ["## Models"]
    for status, title in _TITLES.items():
        found = [model for model in cleanup.scan.of(status) if model.link is None]
        if not found:
            continue
        shown = found[:FILES_SHOWN]
        rows = [(code(m.path), size_text(m.size), m.format, str(m.used.references), _kept(m)) for m in shown]
        text = table(("file", "size", "format", "references", "tracked by"), rows, right=(1, 3))
        more = f"\n\n… and {count(len(found) - len(shown), 'file')} more." if len(found) > len(shown) else ""
        families = [family for family in cleanup.scan.families if status in family.statuses]
        used = ""
        if status in ("primary", "secondary"):
            used = ": " + "; ".join(f"{code(family.name)} has {_used(family)}" for family in families)
        total = f"**Total**: {size_text(_total(found))}{used}."
        parts.append(f"### {title} ({len(found)})\n\n{text}{more}\n\n{total}")
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _verification(cleanup: Cleanup, size_text: SizeText) -> str:
    parts = ["## Duplicates"]
    groups = cleanup.scan.duplicates
    if groups:
        rows = [(", ".join(map(code, group.paths)), size_text(group.size)) for group in groups[:FILES_SHOWN]]
        parts.append(
            "Equal bytes, by BLAKE3 of files of equal size:\n\n" + table(("files", "size of one"), rows, right=(1,))
        )
    elif cleanup.scan.models:
        parts.append(
            "No two model files have equal bytes: sizes were compared first, then BLAKE3 of those of equal size."
        )
    weights = cleanup.scan.same_weights
    if weights:
        rows = [(", ".join(map(code, group.paths)), size_text(group.size)) for group in weights[:FILES_SHOWN]]
        header = ("files", "size of the smallest")
        parts.append("Equal weights in files that differ otherwise:\n\n" + table(header, rows, right=(1,)))
    parts += [_rivalry(rivalry) for rivalry in cleanup.rivalries]
    return "\n\n".join(parts) if cleanup.scan.models else ""


def _rivalry(rivalry: Rivalry) -> str:
    parts = []
    for family in rivalry.families[1:]:
        pairs = rivalry.against(family)
        lines = [f"### {code(rivalry.families[0])} and {code(family)}", "", _difference_sentence(pairs)]
        rows = []
        for pair in pairs:
            verdict = pair.comparison.verdict if pair.comparison is not None else f"not compared: {pair.reason}"
            sizes = f"{pair.a.size:,} and {pair.b.size:,}"
            rows.append((code(pair.a.path), code(pair.b.path), sizes, f"{pair.difference:+,}", verdict))
        lines += ["", table(("used more", "used less", "bytes", "difference", "verdict"), rows, right=(2, 3))]
        compared = [pair for pair in pairs if pair.comparison is not None]
        if compared:
            header = ("used less", *_PARTS.values(), "in all")
            cells = [
                (code(pair.b.path), *(f"{part.difference:+,}" for part in _parts(pair)), f"{pair.difference:+,}")
                for pair in compared
            ]
            lines += [
                "",
                "Where the bytes of the difference are:",
                "",
                table(header, cells, right=range(1, len(header))),
            ]
            lines += _metadata(compared)
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _parts(pair: Pair) -> list[PartBytes]:
    assert pair.comparison is not None
    known = {part.part: part for part in pair.comparison.parts}
    return [known[part] for part in _PARTS]


def _difference_sentence(pairs: Sequence[Pair]) -> str:
    kinds = {pair.comparison.kind for pair in pairs if pair.comparison is not None}
    sizes = [abs(pair.difference) for pair in pairs]
    low, high = min(sizes), max(sizes)
    gap = f"{low:,} bytes" if low == high else f"{low:,} to {high:,} bytes"
    where = f"in {count(len(pairs), 'pair')}"
    if kinds == {"identical"}:
        return f"Duplicates: equal bytes {where}."
    sized = f"sizes differ by {gap}" if high else "the sizes are equal, the bytes are not,"
    if kinds <= {"identical", "same weights"}:
        return f"No duplicates, but the same weights: {sized} {where}."
    return f"No duplicates: {sized} {where}."


def _metadata(pairs: Sequence[Pair]) -> list[str]:
    """The values beside the tensors that only one of a pair has, or that differ, by name and in how many pairs."""
    names: dict[tuple[str, str], int] = {}
    for pair in pairs:
        comparison = pair.comparison
        assert comparison is not None
        for change in comparison.metadata:
            kind = "only in the one used less" if change.a is None else _other_metadata(change.b)
            names[(kind, change.name)] = names.get((kind, change.name), 0) + 1
    if not names:
        return []
    lines = ["", "Values beside the tensors:", ""]
    shown = sorted(names.items())[:NAMES_SHOWN]
    lines += [f"- {code(name)}: {kind}, in {count(number, 'pair')}" for (kind, name), number in shown]
    if len(names) > len(shown):
        lines.append(f"- … and {len(names) - len(shown)} more: `holdfast diff` lists them")
    return lines


def _other_metadata(value: object) -> str:
    return "only in the one used more" if value is None else "differs"


def _usage(cleanup: Cleanup) -> str:
    families = [family for family in cleanup.scan.families if family.used.references]
    if not families:
        return ""
    families.sort(key=lambda family: (-family.used.references, family.name))
    rows = [
        (
            code(family.name),
            str(family.files),
            *map(str, (family.used.references, family.used.scripts, family.used.configs)),
        )
        for family in families[:FILES_SHOWN]
    ]
    header = ("models", "files", "references", "scripts", "configurations")
    return "## Usage\n\n" + table(header, rows, right=(1, 2, 3, 4))


def _actions(cleanup: Cleanup, size_text: SizeText) -> str:
    if not cleanup.removals:
        return "## Actions\n\nThere is nothing to remove."
    parts = ["## Actions"]
    if cleanup.safe:
        parts.append("### Safe now")
        parts += [_action(removal, size_text) for removal in cleanup.safe]
    if cleanup.conditional:
        parts.append("### After a decision")
        parts += [_action(removal, size_text) for removal in cleanup.conditional]
    return "\n\n".join(parts)


def _action(removal: Removal, size_text: SizeText) -> str:
    files = count(len(removal.files), "file")
    why = removal.why
    if removal.kind == "copies" and removal.safe:
        why = "each has an equal file elsewhere, or git or DVC track it, and nothing names the folder"
    lines = [f"**{code(removal.what)}**: {files}, {size_text(removal.bytes)} ({removal.bytes:,} bytes); {why}."]
    if removal.users:
        scripts = sorted({place.rpartition(":")[0].partition("[")[0] for place in removal.users})
        lines += ["", f"Breaks {count(len(removal.users), 'reference')} in {count(len(scripts), 'script')}:", ""]
        lines += [f"- {code(place)}" for place in removal.users[:PLACES_SHOWN]]
        if len(removal.users) > PLACES_SHOWN:
            lines.append(f"- … and {len(removal.users) - PLACES_SHOWN} more")
    if removal.alone:
        lines += ["", _last_copies(removal)]
    if removal.safe:
        lines += ["", f"```bash\n{_command(removal)}\n```"]
    return "\n".join(lines)


def _last_copies(removal: Removal) -> str:
    if len(removal.alone) == len(removal.files):
        return "Their bytes are nowhere else: neither here nor in git or DVC."
    named = ", ".join(map(code, removal.alone[:NAMES_SHOWN]))
    more = f" and {len(removal.alone) - NAMES_SHOWN} more" if len(removal.alone) > NAMES_SHOWN else ""
    return f"The bytes of {len(removal.alone)} of them are nowhere else, neither here nor in git or DVC: {named}{more}."


def _command(removal: Removal) -> str:
    if removal.what == "*.pyc":
        return "find . -name '*.pyc' -not -path './.git/*' -delete"
    if removal.kind == "cache":
        return f"find . -name {shlex.quote(removal.what)} -type d -not -path './.git/*' -prune -exec rm -r {{}} +"
    return f"rm -r {shlex.quote(removal.what)}"


def _phases(cleanup: Cleanup, size_text: SizeText) -> str:
    if not cleanup.removals:
        return ""
    steps = []
    if cleanup.safe:
        names = ", ".join(code(removal.what) for removal in cleanup.safe)
        steps.append(f"**Safe clean-up**: remove {names}; saves {size_text(_bytes(cleanup.safe))}.")
    open_pairs = [pair for rivalry in cleanup.rivalries for pair in rivalry.pairs if not _same_weights(pair.comparison)]
    if open_pairs:
        pair = open_pairs[0]
        a, b = shlex.quote(pair.a.path), shlex.quote(pair.b.path)
        steps.append(
            f"**Investigation**: {count(len(open_pairs), 'pair')} with other weights. `holdfast diff {a} {b}` says how "
            f"they differ, `holdfast equivalence {a} {b} --loader MODULE:FUNCTION --data FILE` if they answer alike."
        )
    if cleanup.conditional:
        steps.append(f"**Decision**: {size_text(_bytes(cleanup.conditional))} wait for it; see below.")
    steps.append(
        "**Keep it clean**: name the family that counts under `canonical:` in `holdfast.yaml`; `holdfast check` then "
        "refuses new scripts that refer to another."
    )
    return "## Phases\n\n" + "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))


def _decision(cleanup: Cleanup, size_text: SizeText) -> str:
    secondary = {removal.what: removal for removal in cleanup.removals if removal.kind == "secondary"}
    questions = [
        _question(rivalry.families[0], secondary[family], rivalry.against(family), size_text)
        for rivalry in cleanup.rivalries
        for family in rivalry.families[1:]
        if family in secondary
    ]
    idle = [removal for removal in cleanup.conditional if removal.kind == "unreferenced"]
    if idle:
        names = ", ".join(code(removal.what) for removal in idle[:NAMES_SHOWN])
        more = f" and {len(idle) - NAMES_SHOWN} more" if len(idle) > NAMES_SHOWN else ""
        size = size_text(_bytes(idle))
        questions.append(
            f"**Does anybody need {names}{more}?** Nothing refers to them; they hold {size}. Register those that count "
            "(`holdfast registry`), then remove the rest."
        )
    broken = [removal for removal in cleanup.conditional if removal.kind == "copies"]
    questions += [
        f"**Can {code(removal.what)} go?** {_hindrance(removal)} Until that is settled it stays." for removal in broken
    ]
    return "## Decision\n\n" + "\n\n".join(questions) if questions else ""


def _question(first: str, removal: Removal, pairs: Sequence[Pair], size_text: SizeText) -> str:
    scripts = sorted({place.rpartition(":")[0].partition("[")[0] for place in removal.users})
    head = f"**Keep both {code(first)} and {code(removal.what)}, or {code(first)} alone?**"
    cost = (
        f"Without {code(removal.what)} {size_text(removal.bytes)} are saved, and {count(len(scripts), 'script')} must "
        f"be changed first: {', '.join(map(code, scripts[:NAMES_SHOWN]))}."
    )
    if pairs and all(_same_weights(pair.comparison) for pair in pairs):
        advice = f"the weights are the same; change the scripts to {code(first)}, then remove {code(removal.what)}."
    else:
        other = sum(not _same_weights(pair.comparison) for pair in pairs)
        told = f"{other} of {count(len(pairs), 'pair')} {'holds' if other == 1 else 'hold'} other weights"
        advice = f"keep both until it is known what {code(removal.what)} is for: {told}."
    return f"{head} {cost} Recommendation: {advice} New scripts use {code(first)}."


def _hindrance(removal: Removal) -> str:
    reasons = []
    if removal.users:
        reasons.append(f"Named in {count(len(removal.users), 'line')} of scripts or configurations.")
    if removal.alone:
        reasons.append(
            f"{count(len(removal.alone), 'file')} of it {'lies' if len(removal.alone) == 1 else 'lie'} nowhere else."
        )
    return " ".join(reasons)


def _notes(cleanup: Cleanup) -> str:
    return "## Notes\n\n" + "\n".join(f"- {note}" for note in cleanup.notes) if cleanup.notes else ""


def _same_weights(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.kind in ("identical", "same weights")


def _used(family: ModelFamily) -> str:
    configs = f" and {count(family.used.configs, 'configuration')}" if family.used.configs else ""
    return f"{count(family.used.references, 'reference')} in {count(family.used.scripts, 'script')}{configs}"


def _kept(model: ModelFile) -> str:
    return "" if model.tracked == "none" else "git" if model.tracked == "git" else "DVC"


def _total(models: Sequence[ModelFile]) -> int:
    return sum(model.size for model in models if model.link is None)


def _bytes(removals: Sequence[Removal]) -> int:
    return sum(removal.bytes for removal in removals)
