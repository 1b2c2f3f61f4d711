"""``holdfast registry register``."""

import json
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, form_options, human_bytes
from holdfast.cli.registry_places import cache_of_project, digests_of_project, here, today
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import UsageError
from holdfast.registry.entries import CURRENT, check_alias, check_model_id
from holdfast.registry.labels import check_protection
from holdfast.registry.registration import keep_bytes, make_draft
from holdfast.repo.git_commands import add_to_index

REMEMBERED_BYTES = 4_000_000


@click.command("register", cls=Verb)
@click.argument("model", shell_complete=completion_values.models)
@click.argument("file", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--metrics",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take metrics from a JSON or YAML file.",
)
@click.option("--metric", "metrics", metavar="NAME=VALUE", multiple=True, help="A metric.")
@click.option(
    "--params",
    "param_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take params from a JSON or YAML file.",
)
@click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="A param.")
@click.option("--weights", metavar="FILE", help="Of a folder: the file of weights, from the folder.")
@click.option("--description", metavar="TEXT", default="", help="One line on a new model.")
@click.option("--alias", "aliases", metavar="NAME", multiple=True, help="Put an alias on the version.")
@click.option("--current/--no-current", "current", default=None, help="Make it the current version, or not; see above.")
@click.option("--run", metavar="FOLDER", help="The run that it comes from (default: the file's folder).")
@click.option("--force", "-f", is_flag=True, help="Put aliases on it that are protected.")
@form_options
def register(
    model: str,
    file: Path,
    files: tuple[Path, ...],
    metrics: tuple[str, ...],
    param_files: tuple[Path, ...],
    params: tuple[str, ...],
    weights: str | None,
    description: str,
    aliases: tuple[str, ...],
    current: bool | None,
    run: str | None,
    force: bool,
    form: Form,
) -> None:
    """Register FILE, a checkpoint in any format or a folder with one, as a version of MODEL (app/name).

    The file stays where it is; its bytes are put into DVC's cache too, so that the version can be had again. The
    version is current where the model is new, or where FILE is the current version's own path. Weights that are
    registered already are not registered again. The version's file is added to git's index.

    \b
    Examples:
      holdfast registry register digits/classifier outputs/train/best_model.pt --metrics metrics/evaluate.json
      holdfast registry register album/scorer models/scorer --weights model.safetensors --metric accuracy=0.93
    """
    check_model_id(model)
    for alias in aliases:
        check_alias(alias)
    project, registry = here()
    given = {**_from_files(files), **_pairs(metrics, "--metric")}
    trained = {**_from_files(param_files), **_pairs(params, "--param")}
    # a small file is read again sooner than its digests are kept: closing their file takes 20 ms
    is_small = file.is_file() and file.stat().st_size < REMEMBERED_BYTES
    with digests_of_project(project, fresh=is_small) as digests:
        draft = make_draft(
            project.root, file, digests, today=today(), params=trained, metrics=given, weights_file=weights, run=run
        )
        keep_bytes(cache_of_project(project), file, draft, digests)
    with registry.lock(model) as held:
        known = held.model
        version = next((item for item in known.versions if item.weights == draft.weights), None)
        new = version is None
        if version is None:
            check_protection(known, aliases, force=force)
            now = known.version(known.current or "")
            in_use = current if current is not None else now is None or now.path == draft.path
            version = held.add(draft, description, current=in_use, aliases=aliases)
            add_to_index(project.root, registry.files(model, version.name))
        labels = held.model.labels(version.name)
    payload = {"format": "holdfast registry register 1", "model": model, "new": new, "labels": labels}
    name = f"{model}@{version.name}"
    sentence = f"Registered {name}: {version.path}, {human_bytes(version.size)}"
    sentence += f"; {', '.join(labels)}." if labels else f"; `holdfast registry assign {name} ALIAS` puts it into use."
    if not new:
        sentence = f"{name} has these weights already, since {version.date}; nothing was changed."
        ignored = [alias for alias in aliases if alias not in labels]
        if ignored or (current and CURRENT not in labels):
            sentence += f" `holdfast registry assign {name} ALIAS` or `rollback --to` puts it into use."
    emit_quickly(form, {**payload, **version.as_json()}, [sentence])


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{text!r} is no name with a value", hint=f"Write {option} NAME=VALUE")
        result[name.strip()] = _value(value.strip())
    return result


def _value(text: str) -> Any:
    """A number or truth value where it looks like one, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int, float)) else text


def _from_files(paths: tuple[Path, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for path in paths:
        values = _load(path)
        if not isinstance(values, dict):
            raise UsageError(f"{path} holds no mapping of names to values", hint="Name a metrics or params file")
        result |= values
    return result


def _load(path: Path) -> Any:
    data = path.read_bytes()
    try:
        if path.suffix == ".json":
            return json.loads(data)
        from holdfast.registry.document import read_yaml  # strict as the registry itself: no dates, no anchors

        return read_yaml(data.decode("utf-8-sig"), str(path))
    except ValueError as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="It should be JSON or YAML") from error
