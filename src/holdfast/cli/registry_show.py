"""``holdfast registry show`` and ``list``."""

import time
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, human_bytes
from holdfast.cli.registry_columns import (
    LEGEND,
    WORST,
    GateMetrics,
    check_names,
    first_metrics,
    gate_metrics,
    number_text,
)
from holdfast.cli.registry_places import here, today
from holdfast.cli.registry_stored import Added, added_bytes
from holdfast.cli.registry_tables import emit_quickly, terminal_width
from holdfast.cli.registry_versions import VersionsView, age
from holdfast.errors import UsageError
from holdfast.registry.cache import RegistryCache
from holdfast.registry.entries import Model, ModelSummary, Version, split_reference
from holdfast.registry.table import VersionTable, flatten, tabulate

METRICS_LISTED = 2
NOTHING = "Nothing is registered yet: `dvc repro` or `holdfast registry register` registers the first version."


@click.command("list", cls=Verb)
@form_options
def list_(form: Form) -> None:
    """List the models: what is in use, what it reaches, how many versions there are.

    \b
    Example:
      holdfast registry list
    """
    project, registry = here()
    models = registry.summaries()
    payload = {"format": "holdfast registry list 1", "models": [model.as_json() for model in models]}
    gate = gate_metrics(project.root, registry.cache, time.time_ns()) if form != "json" else GateMetrics()
    emit_quickly(form, payload, [_overview(models, gate)] if models else [NOTHING])


@click.command("show", cls=Verb)
@click.argument(
    "model", required=False, metavar="[MODEL[@VERSION]]", shell_complete=completion_values.models_and_versions
)
@click.option(
    "--metrics",
    "names",
    metavar="A,B,…",
    shell_complete=completion_values.metric_lists,
    help="Show these metrics, in this order.",
)
@click.option("--all-metrics", "every", is_flag=True, help="Show all metrics, each class's too, however wide it gets.")
@click.option("--stored", is_flag=True, help="Look into the vault for the new bytes, instead of into its index here.")
@form_options
def show(model: str | None, names: str | None, every: bool, stored: bool, form: Form) -> None:
    """Show the versions of MODEL (app/name), or of every model, or all that is known of one version.

    Metrics stand beside each version with their difference to the champion: the alias `production`, else the current
    version. The gate's metrics in params.yaml come first; on a terminal others are shown as far as they fit. Of scores
    of classes (classes.NAME.recall) the worst class is shown as classes.*.recall.

    New bytes are what a version added to what the earlier ones store, after deduplication in the vault; without a
    vault, in files as DVC stores them.

    \b
    Examples:
      holdfast registry show digits/classifier
      holdfast registry show digits/classifier --metrics accuracy,test_loss
      holdfast registry show digits/classifier@production --json
    """
    if names is not None and every:
        raise UsageError("--metrics and --all-metrics exclude each other")
    picked = [name.strip() for name in names.split(",") if name.strip()] if names is not None else []
    project, registry = here()
    cache = registry.cache or RegistryCache(None)
    name, label = split_reference(model) if model is not None else (None, None)
    if name is not None and label is not None:
        found = registry.model(name)
        version = found.named(label)
        payload = {"format": "holdfast registry show 1", "model": found.id, **version.as_json()}
        payload |= {"labels": found.labels(version.name)}
        emit_quickly(form, payload, [_details(found, version)])
        return
    models = [registry.model(name)] if name is not None else registry.models() if form == "json" else []
    tables = [tabulate(item) for item in models] if models else registry.tables()
    check_names(tables, picked)
    added = added_bytes(project, cache, tables, ask=stored)
    if form == "json":
        versions = [_payload(item, table, added) for item, table in zip(models, tables, strict=True)]
        emit_quickly(form, {"format": "holdfast registry show 1", "new_bytes_of": added.source, "models": versions}, [])
        return
    if not tables:
        emit_quickly(form, {}, [NOTHING])
        return
    view = VersionsView(
        added,
        gate_metrics(project.root, cache, time.time_ns()),
        today(),
        picked,
        every,
        # an explicit wish is not cut down to the terminal
        width=terminal_width() if form == "text" and not every else None,
        aligned=form == "text",
    )
    blocks: list[str | Table] = [view.block(table) for table in tables]
    compared = any(len(table.names) > 1 and table.champion and table.metrics for table in tables)
    summed = any(".*" in column for block in blocks if isinstance(block, Table) for column in block.columns)
    notes = [LEGEND if compared else "", WORST if summed else "", view.hidden_sentence(), added.note, view.gate.note]
    if any(notes):
        blocks.append("\n".join(filter(None, notes)))
    emit_quickly(form, {}, blocks, unfolded=every)


def _payload(model: Model, table: VersionTable, added: Added) -> dict[str, Any]:
    payload = model.as_json()
    payload["champion"] = table.champion
    for entry, count in zip(payload["versions"], added.models[model.id], strict=True):
        entry["new_bytes"] = count
    return payload


def _overview(models: list[ModelSummary], gate: GateMetrics) -> Table:
    day = today()
    rows = []
    for model in models:
        metrics = first_metrics(flatten(model.metrics), gate, METRICS_LISTED)
        labels = [f"current {model.current}"] if model.current else []
        labels += [f"{alias} {name}" for alias, name in sorted(model.aliases.items())]
        rows.append(
            (
                model.id,
                str(model.versions),
                ", ".join(labels),
                ", ".join(f"{name} {number_text(value)}" for name, value in metrics),
                human_bytes(model.size),
                age(model.date, day) if model.date else "",
                model.description,
            )
        )
    columns = ("model", "versions", "in use", "champion reaches", "size", "newest", "description")
    right = frozenset({"versions", "size", "newest"})
    return Table(columns, rows, right=right, spare=("description", "newest", "champion reaches", "size"))


def _details(model: Model, version: Version) -> Table:
    labels = model.labels(version.name) + (["deprecated"] if version.name in model.deprecations else [])
    rows = [
        ("version", version.name),
        ("labels", ", ".join(labels)),
        ("path", version.path),
        *((("weights file", version.weights_file),) if version.weights_file else ()),
        ("size", f"{human_bytes(version.size)} ({version.size:,} bytes)"),
        ("md5", version.oid),
        ("weights", version.weights),
        ("date", version.date),
        *version.source.items(),
        *((f"params.{name}", number_text(value)) for name, value in flatten(version.params, every=True).items()),
        *((f"metrics.{name}", number_text(value)) for name, value in flatten(version.metrics, every=True).items()),
        *((f"gate.{name}", number_text(value)) for name, value in flatten(version.gate, every=True).items()),
        *((("overridden", version.overridden),) if version.overridden else ()),
    ]
    if (deprecation := model.deprecations.get(version.name)) is not None:
        rows.append(("deprecated", deprecation.reason + (f" ({deprecation.date})" if deprecation.date else "")))
    return Table(("field", "value"), rows, f"{model.id}@{version.name}")
