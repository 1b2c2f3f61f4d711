"""``holdfast runs``."""

from datetime import datetime, timezone
from pathlib import Path

import click

from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.errors import IntegrityError
from holdfast.inventory.run_classes import headline
from holdfast.inventory.run_record import Run, lower_is_better
from holdfast.inventory.run_rules import RUN_CLASSES, find_rules
from holdfast.inventory.run_scan import scan_runs
from holdfast.inventory.run_verdicts import VERDICTS, SortedRun, Sorting, sort_folder, value_text
from holdfast.runs.validate import validate_run

NOTES_SHOWN = 5


@click.group("runs", cls=Noun)
def command() -> None:
    """List and check the folders of training runs."""


@command.command("list")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@form_options
def list_runs(path: Path, form: Form) -> None:
    """List the runs at and below PATH (default: here), whichever tool wrote them.

    Reads what Holdfast's recorder, PyTorch Lightning, Hugging Face, DVCLive and Keras write, and plain JSON, YAML, CSV.

    \b
    Example:
      holdfast runs list outputs
    """
    rules = find_rules(path)
    scan = scan_runs(path, percent=frozenset(rules.percent))
    scores = [metric for metric in rules.metrics if not lower_is_better(metric)]
    best = {run.path: _best(run, scores) for run in scan.runs}
    payload = {
        "format": "holdfast runs list 1",
        "runs": [
            {
                "path": run.path.as_posix(),
                "status": run.status,
                "epochs": run.epochs,
                "metric": best[run.path][0],
                "best_epoch": best[run.path][1],
                "best_value": best[run.path][2],
                "started": _iso(run.started),
                "size": run.bytes,
            }
            for run in scan.runs
        ],
    }
    columns = ["run", "status", "epochs", "best epoch", "best value", "size", "started"]
    right = frozenset({"epochs", "best epoch", "size"})
    rows = [_row(run, *best[run.path]) for run in scan.runs]
    table = Table(columns, rows, right=right, spare=("started", "best epoch", "epochs", "size"))
    total = human_bytes(sum(run.bytes for run in scan.runs))
    sentence = f"{plural(len(rows), 'run')} {_where(path)}, {total}."
    notes = [note for run in scan.runs for note in _notes(run, path)] + list(scan.notes)
    emit(form, payload, [sentence, table, *_shown(notes)] if rows else [f"There are no runs {_where(path)}."])


@command.command("classify")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@click.option("--only", type=click.Choice(VERDICTS), help="List these runs alone.")
@form_options
def classify(path: Path, only: str | None, form: Form) -> None:
    """Sort the runs at and below PATH (default: here): what each is, and whether to keep it; changes nothing.

    Runs are production candidates, baselines, debug, test, over-fitted on a tiny set, failed or incomplete. Kept are
    production candidates and the first baseline; archived is one run of each other series. The rules stand under
    `runs:` in holdfast.yaml.

    \b
    Examples:
      holdfast runs classify experiments
      holdfast runs classify experiments --only remove --md
    """
    sorting = sort_folder(path, datetime.now(timezone.utc))
    chosen = [item for item in sorting.runs if only in (None, item.verdict)]
    emit(form, sorting.to_json(chosen), _sorted_blocks(sorting, chosen, only, form))


@command.command("validate")
@click.argument("path", type=click.Path(path_type=Path))
@form_options
def validate(path: Path, form: Form) -> None:
    """Check the run folder or array store PATH against its formats and against itself.

    \b
    Example:
      holdfast runs validate outputs/train
    """
    result = validate_run(path)
    payload = {
        "format": "holdfast runs validate 1",
        "path": path.as_posix(),
        "valid": not result.faults,
        "faults": [{"file": fault.file, "problem": fault.problem} for fault in result.faults],
        "notes": [{"file": note.file, "problem": note.problem} for note in result.notes],
    }
    lines = [f"{path / fault.file}: {fault.problem}" for fault in (*result.faults, *result.notes)]
    emit(form, payload, [*lines, *([] if result.faults else [f"{path} is valid."])])
    if result.faults:
        raise IntegrityError(f"{path} has {plural(len(result.faults), 'fault')}")


def _best(run: Run, scores: list[str]) -> tuple[str | None, int | None, float | None]:
    """The metric that the run was chosen by, else its first score: name, epoch, value."""
    if run.monitor is not None:
        return run.monitor.metric, run.monitor.best_epoch, run.monitor.best_value
    metric, value = headline(run, scores) or (None, None)
    return metric, run.best_epochs.get(metric or ""), value


def _row(run: Run, metric: str | None, epoch: int | None, value: float | None) -> list[str]:
    best = "" if value is None else f"{metric} {value:.4g}"
    when = "" if run.started is None else f"{run.started:%Y-%m-%d %H:%M}"
    number = "" if epoch is None else str(epoch)
    return [run.path.as_posix(), run.status, str(run.epochs), number, best, human_bytes(run.bytes), when]


def _sorted_blocks(sorting: Sorting, chosen: list[SortedRun], only: str | None, form: Form) -> list[str | Table]:
    top = sorting.scan.top
    if not sorting.runs:
        return [f"There are no runs {_where(top)}."]
    counts = ", ".join(f"{verdict} {len(sorting.of(verdict))}" for verdict in VERDICTS)
    found = f"{plural(len(sorting.runs), 'run')} in {len(sorting.series)} series"
    blocks: list[str | Table] = [f"{found}: {counts}; {human_bytes(sorting.freed)} would be freed."]
    if only is None:
        blocks.append(_class_table(sorting))
    # the folder that all share says nothing in each row
    shared = _shared_folder(sorting)
    names = {item.run.path: _short(item.run, shared) for item in chosen}
    # where all are compared by one metric, its name stands above
    metrics = {item.found.metric for item in chosen if item.found.metric is not None}
    metric = metrics.pop() if len(metrics) == 1 else None
    columns = ["run", "class", "verdict", metric or "metric", "size", "series"]
    rows = [
        [
            names[item.run.path],
            "production" if item.kind == "production candidate" else item.kind,
            item.verdict,
            value_text(item).removeprefix(f"{metric} "),
            human_bytes(item.run.bytes),
            item.run.series,
        ]
        for item in chosen
    ]
    title = "" if shared == Path() else f"Runs in {shared.as_posix()}"
    whys = [[names[item.run.path], item.why] for item in chosen]
    right = frozenset({"size"})
    if form == "md":
        rows = [[*row, why] for row, (_, why) in zip(rows, whys, strict=True)]
        blocks.append(Table([*columns, "why"], rows, title, right))
    elif chosen:
        blocks.append(Table(columns, rows, title, right, spare=("series", "size")))
        blocks.append(Table(("run", "why"), _grouped(chosen, names), "Why"))
    flags = [f"{names[item.run.path]}: {flag}." for item in chosen for flag in item.found.flags]
    notes = [note for item in chosen for note in _notes(item.run, top)] + list(sorting.scan.notes)
    names_given = [
        f"Call {names[item.run.path]} {item.standard_name}." for item in chosen if item.standard_name is not None
    ]
    return [*blocks, *(f"Look at {flag}" for flag in flags), *names_given, *_shown(notes)]


def _grouped(chosen: list[SortedRun], names: dict[Path, str]) -> list[list[str]]:
    """Each run and why; runs of one series for one reason in one row."""
    groups: dict[tuple[str, str], list[SortedRun]] = {}
    for item in chosen:
        groups.setdefault((item.run.group, item.why), []).append(item)
    return [
        [names[items[0].run.path] if len(items) == 1 else f"{items[0].run.series} ({len(items)} runs)", why]
        for (_, why), items in groups.items()
    ]


def _class_table(sorting: Sorting) -> Table:
    rows = []
    for kind in RUN_CLASSES:
        items = sorting.of_kind(kind)
        if items:
            counts = [str(sum(item.verdict == verdict for item in items)) for verdict in VERDICTS]
            size, freed = sum(item.run.bytes for item in items), sum(item.freed for item in items)
            rows.append([kind, str(len(items)), *counts, human_bytes(size), human_bytes(freed)])
    columns = ("class", "runs", *VERDICTS, "size", "freed")
    return Table(columns, rows, right=frozenset(columns) - {"class"}, spare=("size",))


def _shared_folder(sorting: Sorting) -> Path:
    parents = [item.run.path.parent for item in sorting.runs]
    shared = parents[0]
    while any(shared != parent and shared not in parent.parents for parent in parents):
        shared = shared.parent
    return shared


def _short(run: Run, shared: Path) -> str:
    return run.name if run.path == shared else run.path.relative_to(shared).as_posix()


def _where(path: Path) -> str:
    return "here or below" if path == Path() else f"at or below {path.as_posix()}"


def _notes(run: Run, top: Path) -> list[str]:
    place = run.path.relative_to(top).as_posix()
    return [note if place == "." else f"{place}/{note}" for note in run.notes]


def _shown(notes: list[str]) -> list[str]:
    lines = [f"Note: {note}." for note in notes[:NOTES_SHOWN]]
    rest = len(notes) - NOTES_SHOWN
    return (
        lines
        if rest <= 0
        else [*lines, f"… and {plural(rest, 'note')} more; `holdfast runs classify --json` lists all."]
    )


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
