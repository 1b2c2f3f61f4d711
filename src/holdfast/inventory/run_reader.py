"""Reads one run folder: gathers what its files say, the most telling first."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from holdfast.inventory import run_metrics, run_params
from holdfast.inventory.run_files import UnreadableError, read_rows, read_tail, read_tree, role_of
from holdfast.inventory.run_metrics import Numbers
from holdfast.inventory.run_names import run_name, started_from_name
from holdfast.inventory.run_record import ClassScore, Monitor, Run, RunFile, Status, base_of
from holdfast.runs import artifacts

FILES_READ_MAX = 400
_CHECKPOINT_FOLDER = re.compile(r"(?:.*/)?checkpoint-(\d+)/([^/]+)")
_PLOT = re.compile(r"(?:.*/)?plots/metrics/(.*)\.tsv")
_SUBCONFIGS = (
    "config",
    "params",
    "hparams",
    "hyperparameters",
    "args",
    "model_config",
    "training_config",
    "architecture",
)


@dataclass
class _Facts:
    final: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    columns: dict[str, list[float]] = field(default_factory=dict)
    column_epochs: dict[str, list[int]] = field(default_factory=dict)
    configs: list[Any] = field(default_factory=list)
    documents: list[Any] = field(default_factory=list)
    classes: tuple[ClassScore, ...] = ()
    epochs: int | None = None
    status: tuple[Status, str] | None = None
    log_error: str | None = None
    started: datetime | None = None
    monitor: Monitor | None = None
    notes: list[str] = field(default_factory=list)

    def take(self, file: str, numbers: Numbers) -> None:
        """Add what is not known yet."""
        for mine, theirs in ((self.final, numbers.final), (self.best, numbers.best)):
            for name, value in theirs.items():
                mine.setdefault(name, value)
        for name, values in numbers.columns.items():
            self.columns.setdefault(name, values)
        self.notes += [f"{file}: {note}" for note in numbers.notes]


def read_run(
    folder: Path,
    parts: Sequence[str],
    files: Sequence[tuple[str, int]],
    *,
    percent: frozenset[str] = frozenset(),
    beside: Sequence[Path] = (),
) -> Run:
    """What one run folder says.

    Args:
        folder: where it is.
        parts: its path from the folder that was looked at, which comes first.
        files: path within the run and bytes of each of its files.
        percent: metrics that are known to be in percent.
        beside: configuration files that lie outside of the run and count for it.

    Returns:
        The run; its series and group are its name until its neighbours are known.
    """
    kinds = tuple(RunFile(path, role_of(path), size) for path, size in files)
    facts = _Facts()
    for file in _to_read(kinds):
        try:
            _READERS[file.role](facts, folder / file.path, file.path, percent)
        except UnreadableError as error:
            facts.notes.append(f"{file.path} {error}")
    for path in beside:
        try:
            facts.configs.append(read_tree(path))
        except UnreadableError as error:
            facts.notes.append(f"{path.name} {error}")
    name = run_name(parts)
    started, source = facts.started, "metadata"
    if started is None:
        started, source = started_from_name("_".join(parts[-2:]) if name != parts[-1] else parts[-1]), "name"
    final, best, best_epochs = _summed_up(facts)
    status, reason = _status(facts, final)
    config = run_params.config_of(facts.configs)
    return Run(
        path=folder,
        name=name,
        series=name,
        group=name,
        form=_form(folder, kinds),
        started=started,
        started_from=source if started is not None else "",
        status=status,
        status_reason=reason,
        epochs=facts.epochs or 0,
        final=final,
        best=best,
        best_epochs=best_epochs,
        monitor=facts.monitor,
        classes=facts.classes,
        size=run_params.size_of([*facts.configs, *facts.documents]),
        # a configuration that was read in part may only seem equal to another
        config=config if not any(note.partition(" ")[0] in _config_paths(kinds) for note in facts.notes) else {},
        switches=run_params.switches_of([*facts.configs, *facts.documents]),
        files=kinds,
        notes=tuple(facts.notes),
    )


def _to_read(files: Sequence[RunFile]) -> list[RunFile]:
    """Files that say something, results first; of many ``checkpoint-N`` folders the newest alone."""
    readable = [file for file in files if file.role in _READERS and not file.path.lower().endswith(".dvc")]
    steps = {file.path: match for file in readable if (match := _CHECKPOINT_FOLDER.fullmatch(file.path))}
    newest = max((int(match[1]) for match in steps.values()), default=0)
    above = {file.path for file in readable}
    chosen = [
        file
        for file in readable
        if (match := steps.get(file.path)) is None or (int(match[1]) == newest and match[2] not in above)
    ]
    order = list(_READERS)
    chosen.sort(
        key=lambda file: (order.index(file.role), "train" in file.path.lower(), file.path.count("/"), file.path)
    )
    return chosen[:FILES_READ_MAX]


def _read_config(facts: _Facts, path: Path, _name: str, _percent: frozenset[str]) -> None:
    facts.configs.append(read_tree(path))


def _read_document(facts: _Facts, path: Path, name: str, percent: frozenset[str]) -> None:
    tree = read_tree(path)
    if not isinstance(tree, dict):
        raise UnreadableError("is no mapping")
    configs = [tree[key] for key in _SUBCONFIGS if isinstance(tree.get(key), dict)]
    facts.configs += configs
    facts.documents.append(tree)
    facts.status = facts.status or run_params.status_of(tree)
    facts.started = facts.started or run_params.started_of({k: v for k, v in tree.items() if k not in _SUBCONFIGS})
    facts.epochs = facts.epochs or run_params.epochs_done(tree)
    facts.take(
        name, run_metrics.numbers_of({k: v for k, v in tree.items() if k not in (*_SUBCONFIGS, "monitor")}, percent)
    )
    facts.classes = facts.classes or run_metrics.class_scores_of(tree)
    monitor = tree.get("monitor")
    if isinstance(monitor, dict) and isinstance(monitor.get("metric"), str):
        epoch, value = monitor.get("best_epoch"), run_metrics.number_of(monitor.get("best_value"))
        facts.monitor = Monitor(
            monitor["metric"],
            epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None,
            value[0] if value is not None and math.isfinite(value[0]) else None,
        )


def _read_matrices(facts: _Facts, path: Path, _name: str, _percent: frozenset[str]) -> None:
    tree = read_tree(path)
    try:
        matrix = next(iter(tree["matrices"].values()))
        scores = artifacts.class_scores(matrix, tree["classes"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration, IndexError) as error:
        raise UnreadableError("holds no confusion matrix that fits its classes") from error
    facts.classes = tuple(ClassScore(str(s.name), s.precision, s.recall, s.f1, s.support) for s in scores)


def _read_history(facts: _Facts, path: Path, name: str, percent: frozenset[str]) -> None:
    if path.suffix == ".json":
        _read_history_tree(facts, path, name, percent)
        return
    rows = read_rows(path)
    if match := _PLOT.fullmatch(name):
        # DVCLive: one metric a file, named by its path
        rows = [{match[1]: list(row.values())[-1]} for row in rows if row]
    elif rows:
        _count_epochs(facts, rows)
    facts.take(name, run_metrics.columns_of(rows, percent))
    _place_epochs(facts, rows)


def _read_history_tree(facts: _Facts, path: Path, name: str, percent: frozenset[str]) -> None:
    tree = read_tree(path)
    rows = tree
    if isinstance(tree, dict):
        rows = next(
            (tree[key] for key in ("log_history", "history", "epochs") if isinstance(tree.get(key), list)), None
        )
        if "log_history" in tree:
            _read_trainer_state(facts, tree)
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        if "log_history" not in tree or facts.epochs is None:
            _count_epochs(facts, rows)
        facts.take(name, run_metrics.columns_of(rows, percent))
        _place_epochs(facts, rows)
        return
    numbers = run_metrics.numbers_of(tree, percent)
    facts.take(name, numbers)
    if numbers.columns:
        facts.epochs = facts.epochs or max(map(len, numbers.columns.values()))


def _read_trainer_state(facts: _Facts, tree: Mapping[str, Any]) -> None:
    facts.documents.append(
        {key: tree[key] for key in ("max_steps", "num_train_epochs", "train_batch_size") if key in tree}
    )
    done, planned = run_metrics.number_of(tree.get("global_step")), run_metrics.number_of(tree.get("max_steps"))
    if (epoch := run_metrics.number_of(tree.get("epoch"))) is not None and math.isfinite(epoch[0]):
        facts.epochs = int(epoch[0])
    if done is not None and planned is not None and planned[0] > 0 and facts.status is None:
        finished = done[0] >= planned[0]
        text = "" if finished else f"step {done[0]:.0f} of {planned[0]:.0f}"
        facts.status = ("finished", "") if finished else ("incomplete", text)


def _read_log(facts: _Facts, path: Path, name: str, _percent: frozenset[str]) -> None:
    if "tfevents" not in name and (line := run_params.error_in_log(read_tail(path))):
        facts.log_error = facts.log_error or f"{name}: {line}"


_READERS = {
    "matrices": _read_matrices,
    "metrics": _read_document,
    "info": _read_document,
    "history": _read_history,
    "config": _read_config,
    "log": _read_log,
}


def _count_epochs(facts: _Facts, rows: Sequence[Mapping[str, Any]]) -> None:
    epochs = _epoch_numbers(rows)
    # metadata of a run that was killed may count fewer than its table has
    facts.epochs = len(set(epochs)) if epochs else max(facts.epochs or 0, len(rows))


def _epoch_numbers(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    numbers = [run_metrics.number_of(row.get("epoch")) for row in rows]
    # fractions are Hugging Face's position within an epoch
    return [int(number[0]) for number in numbers if number is not None and math.isfinite(number[0])]


def _place_epochs(facts: _Facts, rows: Sequence[Mapping[str, Any]]) -> None:
    """Remember the epoch of every value of the table's columns."""
    for row in rows:
        epoch = run_metrics.number_of(row.get("epoch"))
        if epoch is None or not math.isfinite(epoch[0]):
            continue
        for key, value in row.items():
            name = run_metrics.metric_name((str(key),))
            if name is not None and run_metrics.number_of(value) is not None:
                facts.column_epochs.setdefault(name.text, []).append(int(epoch[0]))


def _summed_up(facts: _Facts) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    final, best, best_epochs = dict(facts.final), dict(facts.best), {}
    for name, values in facts.columns.items():
        if not values:
            continue
        found = run_metrics.best_of(name, values)
        reported = name in final
        final.setdefault(name, values[-1])
        if found is None:
            continue
        place, value = found
        best.setdefault(name, value)
        if reported or best[name] != value:
            continue  # a value that the run reports beside its epochs stands for itself
        epochs = facts.column_epochs.get(name) or facts.column_epochs.get(base_of(name), [])
        best_epochs[name] = epochs[place] if place < len(epochs) else place + 1
    return final, best, best_epochs


def _status(facts: _Facts, final: Mapping[str, float]) -> tuple[Status, str]:
    if facts.status is not None and facts.status[0] == "failed":
        return "failed", facts.status[1] or "it says that it failed"
    broken = [name for name, value in final.items() if base_of(name) == "loss" and not math.isfinite(value)]
    if broken:
        return "failed", f"{broken[0]} ends as {final[broken[0]]}"
    if facts.status is not None and facts.status[0] == "finished":
        return facts.status
    if facts.log_error is not None:
        return "failed", facts.log_error
    return facts.status or ("unknown", "")


def _config_paths(files: Sequence[RunFile]) -> frozenset[str]:
    return frozenset(file.path for file in files if file.role == "config")


def _form(folder: Path, files: Sequence[RunFile]) -> str:
    names = {file.path.rsplit("/", 1)[-1] for file in files}
    if artifacts.EPOCHS in names:
        return "holdfast"
    if "trainer_state.json" in names:
        return "huggingface"
    if folder.name == "dvclive" or any(file.path.startswith("dvclive/") for file in files):
        return "dvclive"
    if "hparams.yaml" in names or folder.parent.name == "lightning_logs":
        return "lightning"
    if "history.json" in names or any(name.endswith((".keras", ".h5")) for name in names):
        return "keras"
    return "files"
