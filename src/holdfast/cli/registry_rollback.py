"""``holdfast registry rollback``."""

from dataclasses import asdict

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, form_options
from holdfast.cli.registry_places import here, place_name, stores_of_project
from holdfast.cli.registry_tables import emit_quickly
from holdfast.registry.rollback import Rollback, roll_back


@click.command("rollback", cls=Verb)
@click.argument("model", shell_complete=completion_values.models)
@click.option(
    "--to",
    metavar="VERSION",
    shell_complete=completion_values.versions_of_model,
    help="Another version than the one before.",
)
@click.option(
    "-r",
    "--remote",
    metavar="NAME",
    shell_complete=completion_values.remotes,
    help="The DVC remote to take the file from, where it is not here.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done.")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Also where production is protected, the stable path holds what is nowhere else, or a card cannot be edited.",
)
@form_options
def rollback(model: str, to: str | None, remote: str | None, dry_run: bool, force: bool, form: Form) -> None:
    """Put the version before into use again: `current`, the alias `production`, the stable file, and what is beside it.

    That is its configuration and predictions, the model's card and the application's README. The bytes come from DVC's
    cache, a vault or a remote, and their entries in dvc.lock follow, so that `dvc status` is clean and `dvc repro`
    leaves it so. Refused where the stage's inputs changed since it ran. The version before is the newest one below that
    was in use; deprecated ones are passed over.

    \b
    Examples:
      holdfast registry rollback digits/classifier
      holdfast registry rollback digits/classifier --to v1 --dry-run
    """
    project, _ = here()
    stores = stores_of_project(project, remote=remote)
    try:
        done = roll_back(project, stores, model, to=to, force=force, dry_run=dry_run)
    finally:
        stores.close()
    payload = {"format": "holdfast registry rollback 1", "done": not dry_run, **asdict(done)}
    emit_quickly(form, payload, _lines(done, dry_run=dry_run))


def _lines(done: Rollback, *, dry_run: bool) -> list[str]:
    labels = " and ".join(done.labels) or "No label"
    lines = [f"{'Would move' if dry_run else 'Moved'} {labels} of {done.model} from {done.before} to {done.after}."]
    if not done.labels:
        lines = [f"Every label of {done.model} is on {done.after} already."]
    if done.source:
        verb = "would be brought" if dry_run else "was brought"
        follows = ", and its entry with DVC follows" if done.stage else ""
        lines.append(f"{done.path} {verb} from {place_name(done.source)}{follows}.")
    else:
        lines.append(f"{done.path} holds {done.after} already.")
    if done.config:
        lines.append(f"{done.config} {'would be' if dry_run else 'is'} as it was committed with {done.after}.")
    if done.predictions:
        lines.append(f"{done.predictions} {'would be' if dry_run else 'is'} that of {done.after}.")
    if done.texts:
        says = "would say" if dry_run else "says" if len(done.texts) == 1 else "say"
        lines.append(f"{' and '.join(done.texts)} {says} so.")
    lines += [f"Note: {note}." for note in done.notes]
    if not dry_run:
        lines.append("Commit it: `git commit -a` takes the registry and dvc.lock along.")
    return lines
