"""``holdfast registry export`` and ``import``."""

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from holdfast.atomic import write_atomically
from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, plural
from holdfast.cli.registry_places import cache_of_project, digests_of_project, here, stores_of_project, today
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import PartlyDoneError, UsageError
from holdfast.registry.entries import Version
from holdfast.registry.exporting import to_json, to_yaml
from holdfast.registry.importing import Candidate, Imported, import_versions, read_candidates
from holdfast.registry.registration import keep_bytes, make_draft
from holdfast.registry.store import Registry
from holdfast.repo.git_commands import add_to_index
from holdfast.repo.workspace import Project

if TYPE_CHECKING:
    from holdfast.registry.importing_found import FoundVersion

GTO = "gto"


@click.command("export", cls=Verb)
@click.argument("models", nargs=-1, metavar="[MODEL...]", shell_complete=completion_values.models)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write FILE in one step (default: print).",
)
@click.option("--json", "form", flag_value="json", default="yaml", help="JSON instead of YAML.")
def export(models: tuple[str, ...], output: Path | None, form: Literal["yaml", "json"]) -> None:
    """Write the registry, or some models of it, as one file: for a service without git, or to read.

    A service reads it with `holdfast.load_registry`, also while it is written anew. A name that ends in .json is JSON.

    \b
    Examples:
      holdfast registry export
      holdfast registry export -o /srv/models/registry.yaml
    """
    _, registry = here()
    found = [registry.model(model) for model in models] if models else registry.models()
    is_json = form == "json" or (output is not None and output.suffix == ".json")
    text = to_json(found) if is_json else to_yaml(found)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_atomically(output, text)


@click.command("import", cls=Verb)
@click.argument("source", metavar="FILE|FOLDER|gto", shell_complete=completion_values.paths)
@click.option("--app", metavar="APP", help="The application of models that have none.")
@click.option("--weights", metavar="FILE", help="The file of weights in folders with more than one checkpoint.")
@click.option(
    "-r",
    "--remote",
    metavar="NAME",
    shell_complete=completion_values.remotes,
    help="The DVC remote to ask for bytes of tagged versions.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what is listed there.")
@form_options
def import_(source: str, app: str | None, weights: str | None, remote: str | None, dry_run: bool, form: Form) -> None:
    """Register what another registry lists: a file of one, MLflow's file store, or git tags in GTO's form.

    FILE is a registry.yaml, a models_registry.json or an export. Read are: application → model → `current`, `versions`
    → version → `path`, `date`, `metrics`; and models by name, or a list of them, each with a path (a file or a folder),
    metrics and what it was trained with. Paths are seen from the project's root.

    FOLDER is MLflow's `mlruns`: registered models with their versions, aliases and stages, metrics and params of their
    runs, and the files that lie in it. `gto` means this repository's tags and the `artifacts:` of dvc.yaml.

    What is registered already, by its weights, is not registered again. Ends with 3 where something was left out.

    \b
    Examples:
      holdfast registry import models/registry.yaml
      holdfast registry import models_registry.json --app mental_health --dry-run
      holdfast registry import mlruns --app digits
      holdfast registry import gto
    """
    project, registry = here()
    if source == GTO or Path(source).is_dir():
        found = _found(project, source, app)
        if dry_run:
            listed = [
                (item.model, "–" if item.reason else item.name, item.reason or item.path, item.labels) for item in found
            ]
            _emit_listed(source, listed, form)
            return
        done = _import_found(project, registry, found, weights, remote)
    else:
        file = Path(source)
        if not file.is_file():
            raise UsageError(f"{source} does not exist", hint="Name a file, MLflow's folder mlruns, or gto")
        candidates = read_candidates(file.read_bytes(), file.name, app)
        if dry_run:
            _emit_listed(source, [(item.model, item.name, item.path, item.labels) for item in candidates], form)
            return
        done = _import_candidates(project, candidates, weights)
    _emit_done(project, registry, done, form)


def _found(project: Project, source: str, app: str | None) -> list["FoundVersion"]:
    if source == GTO:
        from holdfast.registry.importing_gto import read_tagged  # with GTO's libraries: 200 ms
        from holdfast.registry.tags_gto import open_tags

        with open_tags(project.git_root) as tags:
            return read_tagged(project, tags, app)
    from holdfast.registry.importing_mlflow import find_store, read_store  # YAML's reader, 15 ms

    store = find_store(Path(source))
    if store is None:
        raise UsageError(
            f"{source} is no file store of MLflow's", hint="It has models/ with a meta.yaml for each model"
        )
    return read_store(store, project.root, app)


def _import_found(
    project: Project, registry: Registry, found: list["FoundVersion"], weights: str | None, remote: str | None
) -> list[Imported]:
    from holdfast.registry.importing_found import register_found
    from holdfast.registry.importing_mlflow import draft_of_stored

    stores = stores_of_project(project, remote=remote)
    try:
        with digests_of_project(project) as digests:

            def draft_of(item: "FoundVersion") -> Version:
                if item.files is not None:
                    return draft_of_stored(item, project.root, stores.cache, digests, weights)
                from holdfast.registry.importing_gto import draft_of_tagged  # see _found

                return draft_of_tagged(item, project, stores, digests, weights)

            return register_found(registry, found, draft_of, today().isoformat())
    finally:
        stores.close()


def _import_candidates(project: Project, candidates: list[Candidate], weights: str | None) -> list[Imported]:
    cache = cache_of_project(project)
    with digests_of_project(project) as digests:

        def draft_of(path: Path, candidate: Candidate) -> Version:
            return make_draft(
                project.root,
                path,
                digests,
                today=date.fromisoformat(candidate.date) if candidate.date else today(),
                params=candidate.params,
                metrics=candidate.metrics,
                weights_file=weights if path.is_dir() else None,
            )

        return import_versions(
            project.root, candidates, draft_of, lambda path, draft: keep_bytes(cache, path, draft, digests)
        )


def _emit_listed(source: str, found: list[tuple[str, str | None, str, tuple[str, ...]]], form: Form) -> None:
    rows = [(model, name or "next", path, ", ".join(labels)) for model, name, path, labels in found]
    payload = [{"model": m, "version": v, "path": p, "labels": labels} for m, v, p, labels in rows]
    sentence = f"{source} lists {plural(len(rows), 'version')}. Nothing was changed."
    table = Table(("model", "version", "path", "labels"), rows)
    emit_quickly(form, {"format": "holdfast registry import 1", "done": False, "versions": payload}, [sentence, table])


def _emit_done(project: Project, registry: Registry, done: list[Imported], form: Form) -> None:
    new = [item for item in done if item.new and item.version]
    add_to_index(project.root, {path for item in new for path in registry.files(item.model, item.version or "")})
    left_out = [item for item in done if item.version is None]
    known = len(done) - len(new) - len(left_out)
    sentence = f"Registered {plural(len(new), 'version')}; {known} were registered already, {len(left_out)} left out."
    states = [
        "left out" if item.version is None else "registered" if item.new else "registered before" for item in done
    ]
    cells = [(item.model, item.version or "–", s, item.path, item.reason) for item, s in zip(done, states, strict=True)]
    blocks: list[str | Table] = [sentence, Table(("model", "version", "what", "path", "why"), cells, spare=("path",))]
    emit_quickly(
        form, {"format": "holdfast registry import 1", "done": True, "versions": [asdict(i) for i in done]}, blocks
    )
    if left_out:
        raise PartlyDoneError(
            f"{plural(len(left_out), 'version')} left out: {left_out[0].model}: {left_out[0].reason}",
            hint="Mend it, and import again: what is registered stays",
        )
