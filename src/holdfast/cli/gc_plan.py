"""``holdfast gc plan``."""

import atexit
import gc
import time
from collections.abc import Sequence
from pathlib import Path

import click

from holdfast.atomic import write_atomically
from holdfast.cli.gc_text import chosen_objects, explained, plan_blocks
from holdfast.cli.gc_world import request_of, scope_options, world_here
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, emit, form_options
from holdfast.cli.schedulers import scheduler_option
from holdfast.gc.plan import Plan
from holdfast.gc.planned import PlannedObject
from holdfast.gc.planning import make_plan


@click.command("plan", cls=Verb)
@scope_options
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan to FILE."
)
@click.option("--only", type=click.Choice(["removed", "kept", "archived"]), help="List these objects alone.")
@click.option("--explain", metavar="OID|PATH", help="Tell all that is known of an object, or of a path's objects.")
@scheduler_option
@form_options
def plan(
    folders: Sequence[Path],
    scopes: str,
    names: Sequence[str],
    accept: Sequence[str],
    ignore_run_cache: bool,
    offline: bool,
    output: Path | None,
    only: str | None,
    explain: str | None,
    scheduler: str | None,
    form: Form,
) -> None:
    """Show what could go and what stays, and why; deletes nothing.

    Everything that a branch, tag, commit, experiment, stash, registered version, the workspace or DVC's run cache names
    is kept, and so is what is young, and what cannot be decided. `gc:` in holdfast.yaml narrows it.

    \b
    Examples:
      holdfast gc plan
      holdfast gc plan --scope cache,remote,vault -o plan.json
      holdfast gc plan --scope runs,workspace outputs
      holdfast gc plan --explain models/digits/classifier.safetensors
    """
    # nothing here is garbage: Python's collector would walk over all names of all objects again and again
    gc.disable()
    atexit.register(gc.freeze)  # and once more as it ends
    with world_here(scheduler) as world:
        request = request_of(world, folders, scopes, names, accept, ignore_run_cache=ignore_run_cache, offline=offline)
        result = make_plan(world, request, now=time.time())
    if output is not None:
        write_atomically(output, result.to_file())
    if explain is not None:
        objects = chosen_objects(result, explain)
        emit(form, result.to_json(objects) if form == "json" else {}, list(explained(objects, explain)))
        return
    # of a million objects the JSON alone takes a gigabyte
    payload = result.to_json(_chosen(result, only)) if form == "json" else {}
    emit(form, payload, list(plan_blocks(result, only, output)))


def _chosen(plan: Plan, only: str | None) -> Sequence[PlannedObject]:
    if only == "removed":
        return plan.removed
    if only == "archived":
        return plan.archived
    return plan.kept if only == "kept" else plan.objects
