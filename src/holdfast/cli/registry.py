"""``holdfast registry``."""

from pathlib import Path
from typing import Any

import click

from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.registry.entries import Model, Version
from holdfast.registry.store import Registry
from holdfast.repo.workspace import find_project

REVISION_DIGITS = 7


@click.group("registry", cls=Noun)
def command() -> None:
    """See registered models and their versions."""


@command.command("show")
@click.argument("model", required=False)
@form_options
def show(model: str | None, form: Form) -> None:
    """Show the versions of MODEL (app/name), or of every model.

    \b
    Example:
      holdfast registry show digits/classifier
    """
    registry = Registry(find_project(Path.cwd()).root)
    models = [registry.model(model)] if model else registry.models()
    payload = {"format": "holdfast registry show 1", "models": [_payload(item) for item in models]}
    blocks: list[Table | str] = [_table(item) for item in models]
    blocks = blocks or ["Nothing is registered yet: `dvc repro` registers the first version."]
    emit(form, payload, blocks)


def _table(model: Model) -> Table:
    metrics = list(dict.fromkeys(name for version in model.versions for name in version.metrics))
    labels = {version.name: _labels(model, version) for version in model.versions}
    columns = ["version", "labels", *metrics, "size", "date", "commit"]
    rows = [
        [
            version.name,
            labels[version.name],
            *(_number(version.metrics.get(name)) for name in metrics),
            human_bytes(version.size),
            version.date,
            version.source.get("rev", "")[:REVISION_DIGITS],
        ]
        for version in reversed(model.versions)
    ]
    title = f"{model.id}, {plural(len(model.versions), 'version')}"
    title += f": {model.description}" if model.description else ""
    return Table(columns, rows, title, frozenset({*metrics, "size"}), spare=["commit", "date", *reversed(metrics)])


def _labels(model: Model, version: Version) -> str:
    aliases = sorted(alias for alias, name in model.aliases.items() if name == version.name)
    return ", ".join((["current"] if model.current == version.name else []) + aliases)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _payload(model: Model) -> dict[str, Any]:
    return {
        "model": model.id,
        "description": model.description,
        "current": model.current,
        "aliases": dict(model.aliases),
        "versions": [
            {
                "version": version.name,
                "path": version.path,
                "oid": version.oid,
                "size": version.size,
                "weights": version.weights,
                "date": version.date,
                "source": dict(version.source),
                "params": dict(version.params),
                "metrics": dict(version.metrics),
            }
            for version in model.versions
        ],
    }
