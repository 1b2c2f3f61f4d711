"""The consolidation report: what runs there are, which to keep, archive and remove, and in what order to go about it.

Every figure is computed from the sorting; every time comes from the runs, and the date from the caller, so that the
same folder gives the same bytes.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import PurePosixPath

from holdfast.inventory.run_classes import number_text
from holdfast.inventory.run_record import WEIGHT_ROLES, Run, base_of
from holdfast.inventory.run_rules import RUN_CLASSES, RunClass
from holdfast.inventory.run_verdicts import VERDICTS, SortedRun, Sorting
from holdfast.report.markdown import count, one_line, table

LOOSE_FILES_NAMED = 5
METRICS_SHOWN = ("accuracy", "f1_macro")
LABELS = {"accuracy": "Accuracy", "f1_macro": "F1-macro"}

_TITLES: dict[RunClass, str] = {
    "production candidate": "Production candidates",
    "baseline": "Baselines",
    "debug": "Debug runs",
    "test": "Test runs",
    "over-fitted": "Over-fitted on a tiny set",
    "failed": "Failed runs",
    "incomplete": "Incomplete runs",
}

SizeText = Callable[[int], str]


def consolidation_report(sorting: Sorting, *, day: date, size_text: SizeText) -> str:
    """The report as Markdown, ending in a newline.

    Args:
        sorting: the runs, classified and judged.
        day: the date of the report.
        size_text: writes a number of bytes.
    """
    sections = [
        f"# Model consolidation: {one_line(sorting.scan.top.resolve().name)}\n\nGenerated: {day.isoformat()}\n\n"
        + _summary(sorting, size_text),
        _current_state(sorting, size_text),
        _categories(sorting),
        _flags(sorting),
        _recommendations(sorting),
        _storage(sorting, size_text),
        _phases(sorting, size_text),
        _performance(sorting),
        _next_steps(sorting),
        _notes(sorting),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(sorting: Sorting, size_text: SizeText) -> str:
    total = sum(item.run.bytes for item in sorting.runs)
    counts = ", ".join(f"{verdict} {len(sorting.of(verdict))}" for verdict in VERDICTS)
    return (
        f"{_runs(len(sorting.runs))} in {len(sorting.series)} series hold {size_text(total)}. Recommended: {counts}; "
        f"that frees {size_text(sorting.freed)}."
    )


def _current_state(sorting: Sorting, size_text: SizeText) -> str:
    lines = ["## Current state", ""]
    for place, items in _by_place(sorting).items():
        lines.append(f"- **{_folder(place)}**: {_runs(len(items))}, {size_text(sum(item.run.bytes for item in items))}")
    folders: dict[str, list[tuple[str, int]]] = {}
    for file in sorting.scan.loose:
        path = PurePosixPath(file.path)
        folders.setdefault(path.parent.as_posix(), []).append((path.name, file.size))
    for place, files in sorted(folders.items()):
        names = ", ".join(name for name, _ in files[:LOOSE_FILES_NAMED])
        more = f", and {len(files) - LOOSE_FILES_NAMED} more" if len(files) > LOOSE_FILES_NAMED else ""
        size = size_text(sum(size for _, size in files))
        lines.append(f"- **{_folder(place)}**: model files outside of any run: {names}{more}; {size}")
    for registry in sorting.scan.registries:
        count = (
            "with entries that could not be counted" if registry.entries is None else f"with {registry.entries} entries"
        )
        lines.append(f"- **{registry.path}**: a registry {count if registry.entries != 1 else 'with 1 entry'}")
    return "\n".join(lines) if len(lines) > 2 else "## Current state\n\nThere are no runs and no models here."


def _categories(sorting: Sorting) -> str:
    if not sorting.runs:
        return ""
    parts = ["## Categories"]
    for kind in RUN_CLASSES:
        items = sorting.of_kind(kind)
        if not items:
            continue
        lines = [f"### {_TITLES[kind]} ({len(items)})", ""]
        if kind == "production candidate":
            lines += [_detailed(item) for item in sorted(items, key=_best_first)]
        else:
            lines += [_series_line(series, members) for series, members in _by_series(items).items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _detailed(item: SortedRun) -> str:
    run = item.run
    lines = [f"- **{run.name}**: {'; '.join(item.found.reasons)}"]
    scores = _scores(run)
    if scores:
        lines.append(f"  - {', '.join(scores)}")
    if architecture := _architecture(run):
        lines.append(f"  - Architecture: {architecture}")
    started = f", started {run.started:%Y-%m-%d %H:%M}" if run.started is not None else ""
    lines.append(f"  - Status: {run.status}{f', {run.epochs} epochs' if run.epochs else ''}{started}")
    lines += [f"  - {flag[0].upper()}{flag[1:]}" for flag in item.found.flags]
    return "\n".join(lines)


def _series_line(series: str, members: Sequence[SortedRun]) -> str:
    if len(members) == 1:
        return f"- **{members[0].run.name}**: {'; '.join(members[0].found.reasons)}"
    return f"- **{series}** ({_runs(len(members))}): {'; '.join(_common_reasons(members))}"


def _common_reasons(members: Sequence[SortedRun]) -> list[str]:
    """The reasons that all members share; where they share none, the best member's and how many differ."""
    first = members[0].found.reasons
    shared = [reason for reason in first if all(reason in item.found.reasons for item in members)]
    values = [item.found.value for item in members if item.found.value is not None]
    if values and members[0].found.metric and not any(members[0].found.metric in reason for reason in shared):
        low, high = number_text(min(values)), number_text(max(values))
        shared.append(f"{members[0].found.metric} {low if low == high else f'{low} to {high}'}")
    return shared or sorted({"; ".join(item.found.reasons) for item in members})


def _flags(sorting: Sorting) -> str:
    lines = [f"- **{item.run.name}**: {flag}" for item in sorting.runs for flag in item.found.flags]
    return "\n".join(["## Flags", "", *lines]) if lines else ""


def _recommendations(sorting: Sorting) -> str:
    if not sorting.runs:
        return ""
    parts = ["## Recommendations"]
    kept = sorted(sorting.of("keep"), key=_best_first)
    if kept:
        lines = [f"{number}. **{item.run.name}**{_renamed(item)}: {item.why}" for number, item in enumerate(kept, 1)]
        parts.append("\n".join([f"### Keep ({len(kept)})", "", *lines]))
    archived = sorting.of("archive")
    if archived:
        lines = [f"- **{item.run.name}**: {item.why}" for item in archived]
        text = "One representative of each series that keeps none. The metadata stays, the weights go."
        parts.append("\n".join([f"### Archive ({len(archived)})", "", text, "", *lines]))
    removed = sorting.of("remove")
    if removed:
        lines = []
        for series, members in _by_series(removed).items():
            kinds = ", ".join(dict.fromkeys(_TITLES[item.kind].lower() for item in members))
            name = members[0].run.name if len(members) == 1 else f"{series} ({_runs(len(members))})"
            lines.append(f"- **{name}**: {kinds}")
        parts.append("\n".join([f"### Remove ({len(removed)})", "", *lines]))
    return "\n\n".join(parts)


def _storage(sorting: Sorting, size_text: SizeText) -> str:
    if not sorting.runs:
        return ""
    rows = []
    for verdict, text in zip(VERDICTS, ("Keep", "Archive: weights dropped", "Remove"), strict=True):
        items = sorting.of(verdict)
        rows.append(
            (text, str(len(items)), size_text(sum(i.run.bytes for i in items)), size_text(sum(i.freed for i in items)))
        )
    total = sum(item.run.bytes for item in sorting.runs)
    rows.append(("Total", str(len(sorting.runs)), size_text(total), size_text(sorting.freed)))
    share = f" {sorting.freed / total:.0%} of {size_text(total)}." if total else ""
    return f"## Storage\n\nSaved: {size_text(sorting.freed)} ({sorting.freed:,} bytes).{share}\n\n" + table(
        ("What", "Runs", "Size", "Freed"), rows, right=(1, 2, 3)
    )


def _phases(sorting: Sorting, size_text: SizeText) -> str:
    if not sorting.runs:
        return ""
    kept, archived, removed = (sorted(sorting.of(verdict), key=_best_first) for verdict in VERDICTS)
    named = [item for item in kept if item.standard_name is not None]
    stay = [item.run.name for item in kept if item.standard_name is None]
    phases: list[tuple[str, list[str]]] = [
        (
            "Keep what production needs",
            [f"Copy `{_path(sorting, item)}` to `models/production/{item.standard_name}`" for item in named]
            + ([f"Leave {', '.join(stay)} where {'they are' if len(stay) > 1 else 'it is'}"] if stay else []),
        ),
        (
            "Archive one run of each other series",
            [
                f"Move `{_path(sorting, item)}` to `{_archive_of(sorting, item)}`, without its weights"
                for item in archived
            ],
        ),
        (
            "Remove the rest",
            [
                f"Remove {len(members)} {kind} {'run' if len(members) == 1 else 'runs'}, "
                f"{size_text(sum(item.run.bytes for item in members))}"
                for kind in RUN_CLASSES
                if (members := [item for item in removed if item.kind == kind])
            ],
        ),
        ("Register", _register_steps(sorting, named)),
    ]
    parts = ["## Phases"]
    for number, (title, steps) in enumerate([phase for phase in phases if phase[1]], 1):
        listed = [f"{place}. {step}" for place, step in enumerate(steps, 1)]
        parts.append("\n".join([f"### Phase {number}: {title}", "", *listed]))
    return "\n\n".join(parts)


def _register_steps(sorting: Sorting, named: Sequence[SortedRun]) -> list[str]:
    if not named:
        return []
    names = ", ".join(f"`{item.standard_name}`" for item in named)
    steps = [f"Register {names} with the metrics below"]
    steps += [f"Bring `{registry.path}` up to date, or import it and retire it" for registry in sorting.scan.registries]
    return [
        *steps,
        "Write down what decides between them: " + ", ".join(dict.fromkeys(i.found.metric or "" for i in named)),
    ]


def _performance(sorting: Sorting) -> str:
    kept = sorted(sorting.of("keep"), key=_best_first)
    if not kept:
        return ""
    others = [
        item.found.metric for item in kept if item.found.metric and base_of(item.found.metric) not in METRICS_SHOWN
    ]
    metrics = [*METRICS_SHOWN, *dict.fromkeys(others)]
    rows = [
        (
            item.run.series,
            item.run.size.architecture or "–",
            *(_score(item.run, m) for m in metrics),
            _best_for(item, kept),
        )
        for item in kept
    ]
    header = ("Model", "Architecture", *(LABELS.get(metric, metric) for metric in metrics), "Best for")
    return "## Performance\n\n" + table(header, rows, right=tuple(range(2, 2 + len(metrics))))


def _best_for(item: SortedRun, kept: Sequence[SortedRun]) -> str:
    if item.historical:
        return "Historical reference"
    if item.kind != "production candidate":
        return "Not judged yet"
    rivals = [other for other in kept if other.kind == "production candidate"]
    parts = []
    if item is rivals[0]:
        parts.append(f"best {item.found.metric}")
    largest = max(rivals, key=_capacity)
    if len(rivals) > 1 and item is largest and _capacity(largest) > min(map(_capacity, rivals)):
        parts.append("highest capacity")
    if any(score.collapsed for score in item.run.classes):
        parts.append("needs tuning: a class has collapsed")
    text = ", ".join(parts) or "alternative"
    return text[0].upper() + text[1:]


def _next_steps(sorting: Sorting) -> str:
    steps = []
    if sorting.of("archive") or sorting.of("remove"):
        steps.append("Look through this report, then carry out the phases")
    for item in sorting.of("keep"):
        collapsed = [score.name for score in item.run.classes if score.collapsed]
        if collapsed:
            steps.append(f"Retrain {item.run.series}: nothing right is said of {', '.join(collapsed)}")
        if item.found.unevaluated and not item.historical:
            steps.append(f"Evaluate {item.run.name}, which has weights and no metrics")
        if item.found.alive:
            steps.append(f"See whether {item.run.name} still runs")
    if sorting.scan.loose:
        places = sorted({PurePosixPath(f.path).parent.as_posix() for f in sorting.scan.loose if f.role in WEIGHT_ROLES})
        steps.append(f"Find out whether anything uses the models in {', '.join(map(_folder, places))}")
    if any(item.standard_name for item in sorting.runs):
        steps.append("Register the kept models, so that each later version has a name and a history")
    if any(item.kind in ("debug", "test", "over-fitted") for item in sorting.runs):
        steps.append("Sort again after each round of debugging: `holdfast runs classify`")
    return "\n".join(["## Next steps", "", *(f"{n}. {step}" for n, step in enumerate(steps, 1))]) if steps else ""


def _notes(sorting: Sorting) -> str:
    lines = [f"- {_path(sorting, item)}: {note}" for item in sorting.runs for note in item.run.notes]
    lines += [f"- {note}" for note in sorting.scan.notes]
    return "\n".join(["## What could not be read", "", *lines]) if lines else ""


def _by_place(sorting: Sorting) -> dict[str, list[SortedRun]]:
    places: dict[str, list[SortedRun]] = {}
    for item in sorting.runs:
        parts = PurePosixPath(_path(sorting, item)).parts
        # the folder at the top that a run lies in says more than each folder on the way
        places.setdefault(parts[0] if len(parts) > 1 else ".", []).append(item)
    return dict(sorted(places.items()))


def _by_series(items: Iterable[SortedRun]) -> dict[str, list[SortedRun]]:
    groups: dict[str, list[SortedRun]] = {}
    for item in items:
        groups.setdefault(item.run.group, []).append(item)
    names = [members[0].run.series for members in groups.values()]
    # two series of one name in two folders are told apart by their folders
    return {(m[0].run.series if names.count(m[0].run.series) == 1 else group): m for group, m in sorted(groups.items())}


def _best_first(item: SortedRun) -> tuple[bool, int, str]:
    return (item.place is None, item.place or 0, item.run.path.as_posix())


def _scores(run: Run) -> list[str]:
    return [f"{LABELS[metric]}: {_score(run, metric)}" for metric in METRICS_SHOWN if run.value_of(metric) is not None]


def _score(run: Run, metric: str) -> str:
    found = run.value_of(metric)
    if found is None:
        return "–"
    return f"{found[1]:.1%}" if 0 <= found[1] <= 1 and base_of(metric) in METRICS_SHOWN else number_text(found[1])


def _architecture(run: Run) -> str:
    size = run.size
    parts = [
        f"{size.layers:,} {'layer' if size.layers == 1 else 'layers'}" if size.layers is not None else "",
        f"{size.width:,} wide" if size.width is not None else "",
        f"{size.vocab_size:,} words" if size.vocab_size is not None else "",
        f"{size.parameters:,} parameters" if size.parameters is not None else "",
        f"{size.train_samples:,} training samples" if size.train_samples is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _capacity(item: SortedRun) -> tuple[int, int, int]:
    size = item.run.size
    return (size.parameters or 0, (size.layers or 0) * (size.width or 0), item.run.weight_bytes)


def _renamed(item: SortedRun) -> str:
    return f" → `{item.standard_name}`" if item.standard_name is not None else " keeps its name"


def _archive_of(sorting: Sorting, item: SortedRun) -> str:
    path = PurePosixPath(_path(sorting, item))
    return (path.parent / "archived" / path.name).as_posix()


def _path(sorting: Sorting, item: SortedRun) -> str:
    path = item.run.path.relative_to(sorting.scan.top).as_posix()
    return item.run.name if path == "." else path


def _folder(place: str) -> str:
    return "the folder itself" if place == "." else f"{place}/"


def _runs(number: int) -> str:
    return count(number, "run")
