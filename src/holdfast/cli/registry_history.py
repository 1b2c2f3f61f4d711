"""``holdfast registry history`` and ``diff``."""

import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, human_bytes, one_line
from holdfast.cli.registry_columns import gate_metrics
from holdfast.cli.registry_places import here, stores_of_project
from holdfast.cli.registry_tables import emit_quickly, terminal_width
from holdfast.errors import UsageError
from holdfast.registry.comparison import ValueChange, changed_values, compare_data, compare_values
from holdfast.registry.entries import Model, Version, split_reference
from holdfast.registry.history import Change, Moment, RegistryHistory, end_of
from holdfast.registry.objects import Stores

REVISION_DIGITS = 7
NOTES_SHOWN = 5
MESSAGE = "commit message"
LEAST_MESSAGE = 16  # characters; what is shorter says nothing


@click.command("history", cls=Verb)
@click.argument("model", required=False, shell_complete=completion_values.models)
@click.option(
    "--at", "day", metavar="DATE", help="What each label was on at the end of that day, or at that time (UTC)."
)
@form_options
def history(model: str | None, day: str | None, form: Form) -> None:
    """Show what changed in the registry, or with --at what each label of MODEL (or of all) was on that day.

    It is read from git: each change with its commit, along the first parents of the checked-out branch, so that a
    change counts from the merge that brought it.

    \b
    Examples:
      holdfast registry history digits/classifier
      holdfast registry history --at 2026-11-20
    """
    project, registry = here()
    reader = RegistryHistory(project)
    if day is None:
        changes = reader.changes(model)
        if model is not None and not changes:
            registry.model(model)  # says what there is
        payload = {"format": "holdfast registry history 1", "changes": [_change(change) for change in changes]}
        nothing = "No commit has a registry yet."
        width = terminal_width() if form == "text" else None
        blocks: list[str | Table] = [_changes(changes, width)] if changes else [nothing]
    else:
        moment = _moment(reader, day, model)
        payload = {"format": "holdfast registry history at 1", **_moment_payload(moment)}
        blocks = _moment_blocks(moment)
    notes = list(dict.fromkeys(reader.notes))
    blocks += [f"Note: passed over in history: {note}" for note in notes[:NOTES_SHOWN]]
    if len(notes) > NOTES_SHOWN:
        blocks.append(f"… and {len(notes) - NOTES_SHOWN} more; `--json` lists all.")
    emit_quickly(form, {**payload, "notes": notes}, blocks)


@click.command("diff", cls=Verb)
@click.argument("first", shell_complete=completion_values.models_and_versions)
@click.argument("second", shell_complete=completion_values.versions_of_model)
@click.argument("third", required=False, shell_complete=completion_values.versions_of_model)
@form_options
def diff(first: str, second: str, third: str | None, form: Form) -> None:
    """Say how two versions differ: metrics, params, weights, and the data that DVC tracked beside them.

    Name them as MODEL A B, or as two references. Weights are compared where both files are in DVC's cache (`holdfast
    registry get` brings them). Data is that of the commits that brought the versions.

    \b
    Examples:
      holdfast registry diff digits/classifier v1 v2
      holdfast registry diff digits/classifier@production digits/classifier@v2
    """
    if third is None and "/" not in second:
        hint = "Write MODEL A B, or two references such as app/name@v1 app/name@v2"
        raise UsageError(f"a version to compare {first}@{second} with is missing", hint=hint)
    names = (first, second) if third is None else (f"{first}@{second}", f"{first}@{third}")
    project, registry = here()
    sides: list[tuple[Model, Version]] = []
    for name in names:
        model_id, label = split_reference(name)
        model = registry.model(model_id)
        sides.append((model, model.named(label)))
    (model_a, a), (model_b, b) = sides
    labels = (f"{model_a.id}@{a.name}", f"{model_b.id}@{b.name}")
    reader = RegistryHistory(project)
    commits = (reader.introduced(model_a.id, a.name), reader.introduced(model_b.id, b.name))
    directions = gate_metrics(project.root, registry.cache, time.time_ns()).directions
    metrics = compare_values(a.metrics, b.metrics, directions)
    params = changed_values(a.params, b.params)
    data = compare_data(project, a, b, commits)
    kind, verdict = _weights(stores_of_project(project, offline=True), a, b)
    payload = {
        "format": "holdfast registry diff 1",
        "versions": list(labels),
        "metrics": [{**asdict(item), "difference": item.difference, "better": item.better} for item in metrics],
        "params": [asdict(item) for item in params],
        "weights": {"kind": kind, "verdict": verdict},
        "sizes": [a.size, b.size],
        "data": None if data is None else [asdict(item) for item in data],
    }
    if a.size != b.size:
        verdict += f"; {human_bytes(a.size)} → {human_bytes(b.size)}"
    blocks = [f"{labels[0]} and {labels[1]} are one version."]
    emit_quickly(form, payload, _diff_blocks(labels, metrics, params, data, verdict) if len({*labels}) > 1 else blocks)


def _moment(reader: RegistryHistory, day: str, model: str | None) -> Moment:
    try:
        when = end_of(day)
    except ValueError as error:
        raise UsageError(f"{day!r} is no day", hint="Write 2026-11-20, or 2026-11-20T14:30") from error
    moment = reader.at(when, model)
    if moment is None:
        raise UsageError(f"the branch has no commit of {day} or before", hint="`git log --reverse` shows the first")
    if model is not None and not moment.models:
        raise UsageError(
            f"there was no model {model} at {day}", hint=f"`holdfast registry history {model}` shows since when"
        )
    return moment


def _change(change: Change) -> dict[str, Any]:
    return {**asdict(change), "events": [{**asdict(event), "text": event.text} for event in change.events]}


def _changes(changes: list[Change], width: int | None) -> Table:
    """A line for each event; the name of a single model is the title, and a message is cut where the terminal ends."""
    columns = ["date (UTC)", "commit", "model", "what", "who", MESSAGE]
    rows = []
    for change in changes:
        when = change.date[:16].replace("T", " ") or "not committed"
        made = [when, change.commit[:REVISION_DIGITS], change.model, "", change.author, one_line(change.subject)]
        for place, event in enumerate(change.events):
            row = list(made) if not place else [""] * len(columns)
            row[columns.index("what")] = event.text
            rows.append(row)
    title = ""
    if len({change.model for change in changes}) == 1:
        title = changes[0].model
        place = columns.index("model")
        columns, rows = [*columns[:place], *columns[place + 1 :]], [[*row[:place], *row[place + 1 :]] for row in rows]
    table = Table(columns, rows, title, spare=("who", MESSAGE))
    if width is None or table.width <= width:
        return table
    for kept in (table, table.fitted(table.width - 1)):  # with the author, else without
        room = width - (kept.width - max(len(row[-1]) for row in [kept.columns, *kept.rows]))
        if room >= LEAST_MESSAGE:
            cut = [[*row[:-1], row[-1] if len(row[-1]) <= room else f"{row[-1][: room - 1]}…"] for row in kept.rows]
            return replace(kept, rows=cut)
    return table


def _moment_payload(moment: Moment) -> dict[str, Any]:
    return {
        "commit": moment.commit,
        "date": moment.date,
        "subject": moment.subject,
        "models": [
            {
                "model": model.id,
                "labels": {
                    label: {"version": name, "since": since[1], "commit": since[0]}
                    for (owner, label), since in moment.since.items()
                    if owner == model.id and (name := _on(model, label))
                },
                "versions": [version.name for version in model.versions],
            }
            for model in moment.models
        ],
    }


def _moment_blocks(moment: Moment) -> list[str | Table]:
    when = moment.date.replace("T", " ").replace("Z", " UTC")
    sentence = f"At commit {moment.commit[:REVISION_DIGITS]} of {when}: {moment.subject}"
    rows = []
    for model in moment.models:
        labels = [label for owner, label in moment.since if owner == model.id]
        for label in labels:
            commit, since = moment.since[model.id, label]
            name = _on(model, label)
            rows.append((model.id, label, name, since[:16].replace("T", " "), commit[:REVISION_DIGITS]))
        if not labels:
            rows.append((model.id, "", "", "", ""))
    return [sentence, Table(("model", "label", "version", "since (UTC)", "commit"), rows)]


def _on(model: Model, label: str) -> str:
    return (model.current or "") if label == "current" else model.aliases[label]


def _weights(stores: Stores, a: Version, b: Version) -> tuple[str | None, str]:
    """The verdict's kind and its words; None where the files are not at hand."""
    if a.weights == b.weights:
        return "same weights", "the same weights"
    missing = [version.name for version in (a, b) if not stores.in_cache(version.oid)]
    if missing:
        return None, f"not compared: {' and '.join(missing)} not in DVC's cache (`holdfast registry get` brings it)"
    from holdfast.compare.checkpoints import compare_checkpoints  # with NumPy, 80 ms for what is at hand alone
    from holdfast.formats.opening import open_checkpoint

    with ExitStack() as stack:
        opened = []
        for version in (a, b):
            source, checkpoint = open_checkpoint(stores.weights(version))
            stack.enter_context(source)
            opened.append(checkpoint)
        result = compare_checkpoints(*opened)
    return result.kind, result.verdict


def _diff_blocks(
    labels: tuple[str, str],
    metrics: list[ValueChange],
    params: list[ValueChange],
    data: list[ValueChange] | None,
    verdict: str,
) -> list[str | Table]:
    blocks: list[str | Table] = [f"{labels[0]} → {labels[1]}: {verdict}.\n"]
    names = (labels[0].rpartition("@")[2], labels[1].rpartition("@")[2])
    if names[0] == names[1]:
        names = labels
    if metrics:
        words = {True: "better", False: "worse", None: ""}
        rows = [
            (item.name, _text(item.a), _text(item.b), _difference(item), words[item.better] if item.difference else "")
            for item in metrics
        ]
        columns = ("metric", *names, "difference", "")
        blocks.append(Table(columns, rows, "Metrics", frozenset({*names, "difference"})))
    if params:
        blocks.append(
            Table(("param", *names), [(i.name, _text(i.a), _text(i.b)) for i in params], "Params that differ")
        )
    else:
        blocks.append("The same params.")
    if data is None:
        blocks.append("Data: not compared, since no commit is known that brought both versions.")
    elif data:
        oids = [(item.name, str(item.a or "–"), str(item.b or "–")) for item in data]
        blocks.append(Table(("path", *names), oids, "Data and other outs that differ (md5)"))
    else:
        blocks.append("The same data: whatever else DVC tracked beside both is equal.")
    return blocks


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _difference(item: ValueChange) -> str:
    return "" if item.difference is None else "=" if item.difference == 0 else f"{item.difference:+.3g}"
