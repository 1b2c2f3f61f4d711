"""``holdfast registry resolve``."""

from dataclasses import asdict

import click

from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options
from holdfast.cli.registry_places import here, stores_of_project
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import UsageError
from holdfast.registry.resolving import Resolution, Side, resolve_merge


@click.command("resolve", cls=Verb)
@click.option("--ours", "prefer", flag_value="ours", default=None, help="Our side keeps numbers, `current` and stages.")
@click.option("--theirs", "prefer", flag_value="theirs", help="Their side does.")
@click.option(
    "--alias",
    "aliases",
    metavar="[MODEL@]NAME=VERSION",
    multiple=True,
    help="Where an alias goes that both sides moved.",
)
@form_options
def resolve(prefer: Side | None, aliases: tuple[str, ...], form: Form) -> None:
    """Mend what a merge, rebase or cherry-pick left of the registry, between `git merge` and `git commit`.

    A number that both sides took stays with the side whose version is tagged, else the one that the upstream branch
    has, else ours; the other version gets the next free number, and its signature goes along. dvc.lock is merged stage
    by stage. Cards and READMEs say what is current, and keep what people wrote in them. Aliases that both sides moved
    are for you to decide. What was mended is added to git's index.

    \b
    Examples:
      holdfast registry resolve
      holdfast registry resolve --theirs --alias production=v3
    """
    decided: dict[str, str] = {}
    for text in aliases:
        name, equals, version = text.partition("=")
        if not name or not equals or not version:
            raise UsageError(f"{text!r} names no alias and version", hint="Write --alias production=v3")
        decided[name] = version
    project, _ = here()
    stores = stores_of_project(project, offline=True)
    result = resolve_merge(project, stores, prefer=prefer, aliases=decided)
    emit_quickly(form, {"format": "holdfast registry resolve 1", **asdict(result)}, _blocks(result))


def _blocks(result: Resolution) -> list[str | Table]:
    if not result.files and not result.gone:
        return ["The merge left nothing to mend in the registry."]
    blocks: list[str | Table] = []
    if result.renumbered:
        rows = []
        for item in result.renumbered:
            now = item.after if item.after != item.before else "the same weights"
            rows.append((item.model, f"{item.before} of {item.side}", now, item.why))
        blocks.append(Table(("model", "was", "is", "why the other keeps the number"), rows))
    blocks += [f"Current is {model}@{name}." for model, name in sorted(result.current.items())]
    if result.stages:
        blocks.append(f"Both sides changed these stages of dvc.lock, see `dvc status`: {', '.join(result.stages)}.")
    blocks += [f"Note: {note}." for note in result.notes]
    if result.gone:
        blocks.append(f"Removed: {', '.join(result.gone)}.")
    blocks.append(f"Added to the index: {', '.join(result.files)}. `git commit` ends the merge.")
    return blocks
