"""``holdfast runs``."""

from pathlib import Path

import click

from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.errors import IntegrityError
from holdfast.runs.listing import RunSummary, find_runs
from holdfast.runs.validate import validate_run


@click.group("runs", cls=Noun)
def command() -> None:
    """List and check the folders of training runs."""


@command.command("list")
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path())
@form_options
def list_runs(path: Path, form: Form) -> None:
    """List the runs at and below PATH (default: here).

    \b
    Example:
      holdfast runs list outputs
    """
    runs = list(find_runs(path))
    payload = {
        "format": "holdfast runs list 1",
        "runs": [
            {
                "path": run.path.as_posix(),
                "status": run.status,
                "epochs": run.epochs,
                "metric": run.metric,
                "best_epoch": run.best_epoch,
                "best_value": run.best_value,
                "started": run.started,
                "size": run.size,
            }
            for run in runs
        ],
    }
    columns = ["run", "status", "epochs", "best epoch", "best value", "size", "started"]
    right = frozenset({"epochs", "best epoch", "size"})
    table = Table(columns, [_row(run) for run in runs], right=right, spare=("started", "best epoch", "epochs"))
    emit(form, payload, [table] if runs else [f"There are no runs at or below {path}."])


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


def _row(run: RunSummary) -> list[str]:
    best = "" if run.best_value is None else f"{run.metric} {run.best_value:.4g}"
    epoch = "" if run.best_epoch is None else str(run.best_epoch)
    return [run.path.as_posix(), run.status, str(run.epochs), epoch, best, human_bytes(run.size), _minute(run.started)]


def _minute(time: str | None) -> str:
    return (time or "").replace("T", " ")[:16]
