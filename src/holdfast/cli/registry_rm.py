"""``holdfast registry rm``."""

from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, human_bytes, plural
from holdfast.cli.registry_places import here, today
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import UsageError
from holdfast.registry.entries import split_reference
from holdfast.registry.removal import RemovalPlan, apply_removal, plan_removal, read_plan


@click.command("rm", cls=Verb)
@click.argument("version", required=False, metavar="[MODEL@VERSION]", shell_complete=completion_values.versions)
@click.option("--apply", "carry_out", is_flag=True, help="Remove it, where nothing stands in the way.")
@click.option(
    "--plan",
    "saved",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=completion_values.plans("removal"),
    help="Use the plan that `--json` wrote to FILE.",
)
@form_options
def remove(version: str | None, carry_out: bool, saved: Path | None, form: Form) -> None:
    """Show what stands in the way of removing a version; with --apply, remove it.

    In its way are labels, sources that refer to it by its path or as MODEL@VERSION, and versions that came out of it.
    Its signature goes along. Its bytes stay until a collection finds that nothing else keeps them; its number is never
    used again.

    \b
    Examples:
      holdfast registry rm digits/classifier@v1
      holdfast registry rm digits/classifier@v1 --apply
    """
    project, _ = here()
    if (version is None) == (saved is None):
        raise UsageError("name a version, or a saved plan", hint="`holdfast registry rm MODEL@v1`, or --plan FILE")
    if saved is not None:
        plan = read_plan(saved.read_bytes())
    else:
        model, label = split_reference(version or "")
        if label is None:
            raise UsageError(f"{version} names no version", hint=f"Write {model}@v1")
        plan = plan_removal(project.root, model, label)
    if carry_out:
        apply_removal(project.root, plan, today().isoformat())
    emit_quickly(form, plan.to_json() | {"done": carry_out}, _blocks(plan, carry_out))


def _blocks(plan: RemovalPlan, done: bool) -> list[str | Table]:
    name = f"{plan.model}@{plan.version}"
    bytes_ = f"Its {human_bytes(plan.size)} (md5 {plan.oid}) stay"
    kept = (
        f" with {', '.join(plan.shared)}" if plan.shared else " until a collection finds that nothing else keeps them"
    )
    signed = " and its signature" if plan.signature else ""
    lasting = f"No commit has {', '.join(plan.uncommitted)} as it is: git cannot bring that back."
    if done:
        undo = f"`git checkout HEAD -- {plan.file.rpartition('/')[0]}` undoes it before you commit."
        return [f"Removed {name}{signed}.", f"{bytes_}{kept}.", lasting if plan.uncommitted else undo]
    if not plan.needs:
        files = f"{plan.file}, {plan.signature}" if plan.signature else plan.file
        return [
            f"Would remove {name}{signed}: {files}. Nothing stands in the way.",
            f"{bytes_}{kept}.",
            *([lasting] if plan.uncommitted else []),
            "Nothing was changed. `--apply` removes it.",
        ]
    rows = [(need.kind, need.place, need.why) for need in plan.needs]
    return [
        f"{name} cannot be removed: {plural(len(plan.needs), 'thing')} in its way.",
        Table(("kind", "where", "why"), rows),
    ]
