"""``holdfast registry show`` and ``list``."""

from datetime import date
from typing import Any

import click

from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, human_bytes, plural
from holdfast.cli.registry_places import here, project_vault, today
from holdfast.cli.registry_tables import emit_quickly
from holdfast.registry.entries import Model, ModelSummary, Version, split_reference
from holdfast.repo.workspace import Project

REVISION_DIGITS = 7
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
    _, registry = here()
    models = registry.summaries()
    payload = {"format": "holdfast registry list 1", "models": [model.as_json() for model in models]}
    emit_quickly(form, payload, [_overview(models)] if models else [NOTHING])


@click.command("show", cls=Verb)
@click.argument("model", required=False, metavar="[MODEL[@VERSION]]")
@click.option("--stored", is_flag=True, help="Ask the vault how many bytes each version added to it.")
@form_options
def show(model: str | None, stored: bool, form: Form) -> None:
    """Show the versions of MODEL (app/name), or of every model, or all that is known of one version.

    Metrics stand beside each version with their difference to the champion: the alias `production`, else the current
    version. With --stored also what a version added to the vault after deduplication.

    \b
    Examples:
      holdfast registry show digits/classifier
      holdfast registry show digits/classifier@production --json
    """
    project, registry = here()
    name, label = split_reference(model) if model is not None else (None, None)
    models = [registry.model(name)] if name is not None else registry.models()
    if label is not None:
        version = models[0].named(label)
        payload = {"format": "holdfast registry show 1", "model": models[0].id, **version.as_json()}
        payload |= {"labels": models[0].labels(version.name)}
        emit_quickly(form, payload, [_details(models[0], version)])
        return
    new, reason = _new_bytes(project, models) if stored else ({}, "")
    day = today()
    blocks: list[str | Table] = [_versions(item, new, day) for item in models]
    blocks += [reason] if reason else []
    payload = {"format": "holdfast registry show 1", "models": [_payload(item, new) for item in models]}
    emit_quickly(form, payload, blocks or [NOTHING])


def _payload(model: Model, new: dict[str, int]) -> dict[str, Any]:
    payload = model.as_json()
    champion = model.champion
    payload["champion"] = champion.name if champion else None
    if new:
        for entry in payload["versions"]:
            entry["new_bytes"] = new.get(f"{model.id}@{entry['version']}")
    return payload


def _overview(models: list[ModelSummary]) -> Table:
    day = today()
    rows = []
    for model in models:
        metrics = list(_flat(model.metrics).items())[:METRICS_LISTED]
        labels = [f"current {model.current}"] if model.current else []
        labels += [f"{alias} {name}" for alias, name in sorted(model.aliases.items())]
        rows.append(
            (
                model.id,
                str(model.versions),
                ", ".join(labels),
                ", ".join(f"{name} {_number(value)}" for name, value in metrics),
                human_bytes(model.size),
                _age(model.date, day) if model.date else "",
                model.description,
            )
        )
    columns = ("model", "versions", "in use", "champion reaches", "size", "newest", "description")
    right = frozenset({"versions", "size", "newest"})
    return Table(columns, rows, right=right, spare=("description", "newest", "champion reaches", "size"))


def _versions(model: Model, new: dict[str, int], day: date) -> Table:
    flat = {version.name: _flat(version.metrics) for version in model.versions}
    metrics = list(dict.fromkeys(name for values in flat.values() for name in values))
    champion = model.champion
    best = flat[champion.name] if champion is not None else {}
    added = ["new bytes"] if new else []
    rows = []
    for version in reversed(model.versions):
        is_champion = champion is not None and version.name == champion.name
        values = flat[version.name]
        cells = [_cell(values.get(name), None if is_champion else best.get(name)) for name in metrics]
        bytes_ = new.get(f"{model.id}@{version.name}")
        rows.append(
            [
                version.name,
                _labels(model, version),
                *cells,
                human_bytes(version.size),
                *(["" if bytes_ is None else human_bytes(bytes_)] if new else []),
                _age(version.date, day),
                version.source.get("rev", "")[:REVISION_DIGITS],
            ]
        )
    title = f"{model.id}, {plural(len(model.versions), 'version')}"
    title += f": {model.description}" if model.description else ""
    columns = ["version", "labels", *metrics, "size", *added, "age", "commit"]
    right = frozenset({*metrics, "size", "age", *added})
    return Table(columns, rows, title, right, spare=["commit", *reversed(metrics[1:]), "age", *added])


def _details(model: Model, version: Version) -> Table:
    rows = [
        ("version", version.name),
        ("labels", _labels(model, version)),
        ("path", version.path),
        *((("weights file", version.weights_file),) if version.weights_file else ()),
        ("size", f"{human_bytes(version.size)} ({version.size:,} bytes)"),
        ("md5", version.oid),
        ("weights", version.weights),
        ("date", version.date),
        *version.source.items(),
        *((f"params.{name}", _number(value)) for name, value in _flat(version.params, every=True).items()),
        *((f"metrics.{name}", _number(value)) for name, value in _flat(version.metrics, every=True).items()),
        *((f"gate.{name}", _number(value)) for name, value in _flat(version.gate, every=True).items()),
        *((("overridden", version.overridden),) if version.overridden else ()),
    ]
    if (deprecation := model.deprecations.get(version.name)) is not None:
        rows.append(("deprecated", deprecation.reason + (f" ({deprecation.date})" if deprecation.date else "")))
    return Table(("field", "value"), rows, f"{model.id}@{version.name}")


def _new_bytes(project: Project, models: list[Model]) -> tuple[dict[str, int], str]:
    """What each version added to the vault, by ``app/name@v3``; or why that is not known."""
    vault = project_vault(project)
    if vault is None:
        return {}, "New bytes after deduplication are left out: the project has no vault (`holdfast vault init`)."
    from holdfast.registry.storage import new_bytes  # with the vault, 200 ms for those who ask alone

    with vault:
        found, missing = new_bytes(vault, models)
    reason = ""
    if missing:
        reason = (
            f"New bytes are left out for {plural(missing, 'version')} that the vault does not have: `holdfast push`."
        )
    return found, reason


def _labels(model: Model, version: Version) -> str:
    return ", ".join(model.labels(version.name) + (["deprecated"] if version.name in model.deprecations else []))


def _flat(values: Any, prefix: str = "", *, every: bool = False) -> dict[str, Any]:
    """Values under names with dots; without lists unless ``every``."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{name}.", every=every)
        elif every or not isinstance(value, list):
            result[f"{prefix}{name}"] = value
    return result


def _cell(value: Any, champion: Any) -> str:
    """A metric, and how much more it is than the champion's."""
    text = _number(value)
    if any(isinstance(item, bool) or not isinstance(item, (int, float)) for item in (value, champion)):
        return text
    return f"{text} ({value - champion:+.2g})" if value != champion else f"{text} (=)"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _age(text: str, day: date) -> str:
    days = (day - date.fromisoformat(text)).days
    return "today" if days <= 0 else f"{days} d" if days < 365 else f"{days / 365:.1f} y"
