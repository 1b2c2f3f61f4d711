"""The whole registry as one file: what a service reads that has no git, and what people read.

The layout is that of a ``registry.yaml`` by hand: application, model, ``current`` and ``versions`` with path, date and
metrics; what else a version says stands beside these.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from holdfast.registry.document import EntryError
from holdfast.registry.entries import Model, Version

HEADER = "# Written by `holdfast registry export`; the registry itself is the folder registry/.\n"


def as_tree(models: Iterable[Model]) -> dict[str, Any]:
    """Models as nested mappings: application, name, then what the model says; empty fields are left out."""
    tree: dict[str, Any] = {}
    for model in models:
        app, name = model.id.split("/")
        fields: dict[str, Any] = {"description": model.description, "current": model.current}
        fields["aliases"] = dict(model.aliases)
        fields["protected"] = list(model.protected)
        fields["deprecations"] = {
            label: {key: value for key, value in vars(item).items() if value is not None}
            for label, item in model.deprecations.items()
        }
        fields["removed"] = dict(model.removed)
        kept = {key: value for key, value in fields.items() if value not in (None, "", {}, [])}
        kept["versions"] = {version.name: _fields(version) for version in model.versions}
        tree.setdefault(app, {})[name] = kept
    return tree


def to_json(models: Iterable[Model]) -> str:
    """The registry as JSON.

    Raises:
        EntryError: a metric is NaN or infinite, which JSON does not know.
    """
    try:
        return json.dumps(as_tree(models), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        hint = "Export YAML, which has words for these"
        raise EntryError(f"a metric or param cannot be written as JSON: {error}", hint=hint) from error


def to_yaml(models: Iterable[Model]) -> str:
    """The registry as YAML; days are YAML's dates."""
    import yaml  # 15 ms that JSON need not pay

    tree = as_tree(models)
    for app in tree.values():
        for model in app.values():
            for version in model["versions"].values():
                version["date"] = date.fromisoformat(version["date"])
    text: str = yaml.dump(tree, Dumper=_dumper(yaml), sort_keys=False, allow_unicode=True, width=1000)
    return HEADER + text


def _dumper(yaml: Any) -> Any:
    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
            """A value that stands in two places is written twice: people read these files."""
            return True

    return Dumper


def _fields(version: Version) -> dict[str, Any]:
    fields = {name: value for name, value in version.as_json().items() if name != "version"}
    first = {name: fields.pop(name) for name in ("path", "date", "metrics")}
    return {name: _plain(value) for name, value in (first | fields).items() if value not in (None, {}, "")}


def _plain(value: Any) -> Any:
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value
