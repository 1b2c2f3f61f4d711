"""``holdfast registry assign``, ``unassign``, ``protect``, ``unprotect`` and ``deprecate``."""

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, form_options
from holdfast.cli.registry_places import here, today
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import UsageError
from holdfast.registry.entries import split_reference
from holdfast.registry.labels import (
    assign_alias,
    deprecate_version,
    protect_alias,
    unassign_alias,
    undeprecate_version,
)

force_option = click.option("-f", "--force", is_flag=True, help="Also where the alias is protected.")


@click.command("assign", cls=Verb)
@click.argument("version", metavar="MODEL@VERSION", shell_complete=completion_values.versions)
@click.argument("alias", shell_complete=completion_values.aliases)
@force_option
@form_options
def assign(version: str, alias: str, force: bool, form: Form) -> None:
    """Put ALIAS on a version, wherever it was before.

    Nothing else moves: the stable file and `current` stay. `holdfast registry rollback` moves all three.

    \b
    Example:
      holdfast registry assign digits/classifier@v3 staging
    """
    model, label = split_reference(version)
    _, registry = here()
    before = registry.model(model).aliases.get(alias)
    found = assign_alias(registry, model, alias, label or "current", force=force)
    moved = f", which was on {before}" if before not in (None, found.name) else ""
    sentence = f"{alias} is on {model}@{found.name}{moved}."
    if before == found.name:
        sentence = f"{alias} was on {model}@{found.name} already."
    payload = {"model": model, "alias": alias, "before": before, "after": found.name}
    emit_quickly(form, {"format": "holdfast registry assign 1", **payload}, [sentence])


@click.command("unassign", cls=Verb)
@click.argument("alias", metavar="MODEL@ALIAS", shell_complete=completion_values.labelled)
@force_option
@form_options
def unassign(alias: str, force: bool, form: Form) -> None:
    """Take an alias off the version that it is on.

    \b
    Example:
      holdfast registry unassign digits/classifier@staging
    """
    model, label = _alias_of(alias)
    _, registry = here()
    before = unassign_alias(registry, model, label, force=force)
    payload = {"model": model, "alias": label, "before": before, "after": None}
    emit_quickly(
        form, {"format": "holdfast registry unassign 1", **payload}, [f"{label} was taken off {model}@{before}."]
    )


@click.command("protect", cls=Verb)
@click.argument("alias", metavar="MODEL@ALIAS", shell_complete=completion_values.labelled)
@form_options
def protect(alias: str, form: Form) -> None:
    """Keep an alias from being moved by accident: after this, moving it takes --force or a gate.

    Who may merge that is git's business: a line for `registry/` in CODEOWNERS.

    \b
    Example:
      holdfast registry protect digits/classifier@production
    """
    _protect(alias, True, form)


@click.command("unprotect", cls=Verb)
@click.argument("alias", metavar="MODEL@ALIAS", shell_complete=completion_values.labelled)
@form_options
def unprotect(alias: str, form: Form) -> None:
    """Let an alias be moved freely again.

    \b
    Example:
      holdfast registry unprotect digits/classifier@production
    """
    _protect(alias, False, form)


@click.command("deprecate", cls=Verb)
@click.argument("version", metavar="MODEL@VERSION", shell_complete=completion_values.versions)
@click.option("--reason", metavar="TEXT", help="Why, in a line; `holdfast check` shows it at each use.")
@click.option("--undo", is_flag=True, help="Take it back.")
@form_options
def deprecate(version: str, reason: str | None, undo: bool, form: Form) -> None:
    """Say that a version is not to be used any more, and why.

    It stays where it is, and `holdfast check` finds who refers to it. A version that is current or in production cannot
    be deprecated.

    \b
    Examples:
      holdfast registry deprecate digits/classifier@v1 --reason "trained on the wrong split"
      holdfast registry deprecate digits/classifier@v1 --undo
    """
    model, label = split_reference(version)
    if label is None:
        raise UsageError(f"{version} names no version", hint="Write app/name@v3")
    if undo == (reason is not None):
        raise UsageError("a deprecation has a reason, or is taken back", hint="Use --reason TEXT, or --undo")
    _, registry = here()
    if undo:
        found = undeprecate_version(registry, model, label)
        sentence = f"{model}@{found.name} is not deprecated."
    else:
        found = deprecate_version(registry, model, label, reason or "", today().isoformat())
        sentence = f"{model}@{found.name} is deprecated: {(reason or '').strip()}."
        sentence = sentence.replace("..", ".")
    payload = {"model": model, "version": found.name, "deprecated": not undo, "reason": reason}
    emit_quickly(form, {"format": "holdfast registry deprecate 1", **payload}, [sentence])


def _protect(reference: str, protected: bool, form: Form) -> None:
    model, alias = _alias_of(reference)
    _, registry = here()
    changed = protect_alias(registry, model, alias, protected=protected)
    state = "protected" if protected else "not protected"
    already = "" if changed else " already"
    payload = {"model": model, "alias": alias, "protected": protected, "changed": changed}
    emit_quickly(
        form, {"format": "holdfast registry protect 1", **payload}, [f"{alias} of {model} is {state}{already}."]
    )


def _alias_of(reference: str) -> tuple[str, str]:
    model, label = split_reference(reference)
    if label is None:
        raise UsageError(f"{reference} names no alias", hint="Write app/name@production")
    return model, label
