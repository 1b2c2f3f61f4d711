"""``holdfast gc apply`` and ``run``: take away what a plan says."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click

from holdfast.atomic import write_atomically
from holdfast.cli import completion_values
from holdfast.cli.durations import duration
from holdfast.cli.gc_text import dollars, plan_blocks
from holdfast.cli.gc_world import request_of, scope_options, world_here
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar
from holdfast.errors import HoldfastError, PartlyDoneError, UsageError
from holdfast.gc.applying import Applied, LastCopyError, apply_plan, unfinished
from holdfast.gc.plan import Plan, read_plan
from holdfast.gc.planning import make_plan
from holdfast.gc.policy import Policy, find_policy
from holdfast.gc.world import World
from holdfast.vault.collecting import Waiting
from holdfast.vault.periods import GRACE

APPLIED_FORMAT = "holdfast gc apply 1"

GRACE_OPTION = click.option(
    "--grace",
    type=duration,
    metavar="TIME",
    default="1d",
    show_default=True,
    help="A push to a vault that was announced longer ago, and has not ended, is given up.",
)
WAIT_OPTION = click.option(
    "--wait",
    type=duration,
    metavar="TIME",
    default="30s",
    show_default=True,
    help="How long to wait for pushes to a vault that are under way.",
)
_LAST = click.option("--allow-last-copy", is_flag=True, help="Also remove what no other place is known to have.")
assert timedelta(days=1) == GRACE


class BoundsError(HoldfastError):
    """More would go than the policy lets a program take away by itself."""


@click.command("apply", cls=Verb)
@click.argument(
    "plan_file",
    metavar="[PLAN]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=completion_values.plans("gc"),
)
@_LAST
@GRACE_OPTION
@WAIT_OPTION
@form_options
def apply(plan_file: Path | None, allow_last_copy: bool, grace: timedelta, wait: timedelta, form: Form) -> None:
    """Do what a plan of `holdfast gc plan -o PLAN` says.

    Refused (14) where anything has changed that it rests on. What goes waits in a quarantine beside the place where it
    lay, and of a vault in packs that are read as before: `holdfast gc restore` brings it back, `holdfast gc purge`
    deletes it. Without PLAN it goes on with the one that was interrupted.

    \b
    Examples:
      holdfast gc plan -o plan.json && holdfast gc apply plan.json
      holdfast gc apply
    """
    with world_here() as world:
        path = plan_file or unfinished(world.project.root)
        if path is None:
            raise UsageError("no collection was interrupted", hint="Name the plan: `holdfast gc apply PLAN`")
        plan = read_plan((path if plan_file else world.project.root / path).read_bytes(), str(path))
        with bar("Moving") as progress:
            done = apply_plan(
                world,
                plan,
                now=time.time(),
                allow_last_copy=allow_last_copy,
                grace=grace,
                wait=wait,
                archive=_archiver(world),
                progress=progress,
            )
    emit(form, _payload(done), list(_applied(done)))
    _raise_left(done)


@click.command("run", cls=Verb)
@scope_options
@click.option("--auto", is_flag=True, help="Do it, within the bounds of the policy.")
@click.option("--report", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write what was done.")
@GRACE_OPTION
@WAIT_OPTION
@form_options
def run(
    folders: Sequence[Path],
    scopes: str,
    names: Sequence[str],
    accept: Sequence[str],
    ignore_run_cache: bool,
    offline: bool,
    auto: bool,
    report: Path | None,
    grace: timedelta,
    wait: timedelta,
    form: Form,
) -> None:
    """Plan and apply at once, for cron or CI.

    Nothing goes where more would than `gc.auto` in holdfast.yaml allows: `max_remove_bytes`, `max_remove_share` of what
    each scope holds, and last copies only with `allow_last_copy`.

    \b
    Examples:
      holdfast gc run --auto --scope cache,vault --report gc.json
    """
    if not auto:
        raise UsageError("`gc run` acts without asking", hint="Say --auto, or look first: `holdfast gc plan`")
    with world_here() as world:
        policy = find_policy(world.project.root)
        request = request_of(world, folders, scopes, names, accept, ignore_run_cache=ignore_run_cache, offline=offline)
        plan = make_plan(world, request, now=time.time(), grace=grace)
        listed = plan.to_json([*plan.removed, *plan.archived])
        try:
            check_bounds(plan, policy)
            with bar("Moving") as progress:
                done = apply_plan(
                    world,
                    plan,
                    now=time.time(),
                    allow_last_copy=policy.allow_last_copy,
                    grace=grace,
                    wait=wait,
                    archive=_archiver(world),
                    progress=progress,
                )
        except (BoundsError, LastCopyError) as error:
            refused = {"format": APPLIED_FORMAT, "plan": plan.digest, "refused": error.message, "planned": listed}
            _write(report, refused)
            raise
    payload = {**_payload(done), "planned": listed}
    _write(report, payload)
    emit(form, payload, [*plan_blocks(plan, "removed", None), *_applied(done)])
    _raise_left(done)


def _write(report: Path | None, payload: dict[str, Any]) -> None:
    if report is not None:
        write_atomically(report, json.dumps(payload, indent=2) + "\n")


def check_bounds(plan: Plan, policy: Policy) -> None:
    """Refuse a plan that removes more than the policy lets a program remove by itself.

    Raises:
        BoundsError: it does; the message says what and how much.
    """
    size = sum(entry.frees for entry in plan.removed)
    way_out = "Look at it: `holdfast gc plan -o plan.json`; apply it yourself, or change gc.auto in holdfast.yaml"
    if policy.max_remove_bytes is not None and size > policy.max_remove_bytes:
        raise BoundsError(
            f"{human_bytes(size)} would go, and gc.auto.max_remove_bytes is {human_bytes(policy.max_remove_bytes)}",
            hint=way_out,
        )
    for place in sorted({(total.scope, total.place) for total in plan.totals}):
        some = [total for total in plan.totals if (total.scope, total.place) == place]
        whole = sum(total.frees for total in some)
        going = sum(total.frees for total in some if total.tier == "remove")
        if whole and going > policy.max_remove_share * whole:
            raise BoundsError(
                f"{going / whole:.0%} of {place[0]} {place[1]}".rstrip()
                + f" would go, and gc.auto.max_remove_share is {policy.max_remove_share:g}",
                hint=way_out,
            )


def _archiver(world: World) -> Callable[[Any], tuple[tuple[str, ...], int]]:
    """Carries out the part of a plan that sends runs to the archive."""

    def archive(steps: Any) -> tuple[tuple[str, ...], int]:
        # imported here: see holdfast.gc.planning
        from holdfast.cli.registry_places import stores_of_project
        from holdfast.gc.runs_archive import apply_archive
        from holdfast.registry.consolidation import read_plan as read_consolidation

        stores = stores_of_project(world.project)
        try:
            done = apply_archive(
                world.project,
                read_consolidation(json.dumps(steps).encode()),
                stores,
                world.digests,
                now=datetime.now(timezone.utc),
            )
        finally:
            stores.close()
        return done.archived, done.freed

    return archive


def _payload(done: Applied) -> dict[str, Any]:
    taken = []
    for one in done.taken:
        values = asdict(one)
        if one.settled is not None:
            for waiting in values["settled"]["waiting"]:
                waiting["age"] = waiting["age"].total_seconds()
        taken.append(values)
    return {
        "format": APPLIED_FORMAT,
        "plan": done.plan,
        "taken": taken,
        "archived": list(done.archived),
        "archived_bytes": done.archived_bytes,
        "bytes": done.bytes,
    }


def _applied(done: Applied) -> Iterator[str | Table]:
    if done.archived:
        yield (
            f"{plural(len(done.archived), 'run')} archived, {human_bytes(done.archived_bytes)} freed: their weights "
            "are in the vault. Bring them back: `holdfast registry consolidate --restore RUN`"
        )
    for taken in done.taken:
        where = f"{taken.scope} {taken.place}".rstrip()
        if taken.scope == "vault":
            copied = taken.settled.copied_bytes if taken.settled else 0
            anew = f", for which {human_bytes(copied)} are stored anew" if copied else ""
            yield (
                f"{where}: {plural(taken.objects, 'file')} let go; {human_bytes(taken.bytes)} of packs will be deleted"
                f"{anew} ({dollars(max(taken.bytes - copied, 0))} a month on R2)."
            )
        else:
            yield f"{where}: {plural(taken.objects, 'object')} of {human_bytes(taken.bytes)} moved to the quarantine."
    if done.taken:
        yield (
            f"Undo it: `holdfast gc restore {done.plan[:12]}`. Free the space: `holdfast gc purge`."
            if any(taken.scope != "vault" for taken in done.taken)
            else "Bring a file back: `holdfast gc restore OID`. Free the space: `holdfast gc purge`."
        )
    elif not done.archived:
        yield "There was nothing to do."


def _raise_left(done: Applied) -> None:
    if done.left:
        path, why = done.left[0]
        more = f"; {len(done.left) - 1} more" if done.left[1:] else ""
        raise PartlyDoneError(f"{path} was left where it is: {why}{more}", hint="Make a new plan for these")
    raise_waiting([one for taken in done.taken if taken.settled for one in taken.settled.waiting])


def under_way(waiting: Sequence[Waiting]) -> str:
    """Who is waited for."""
    collecting = sum(one.collecting for one in waiting)
    counts = ((len(waiting) - collecting, "push", "pushes"), (collecting, "other collection", "other collections"))
    return f"{' and '.join(plural(*some) for some in counts if some[0])} under way"


def raise_waiting(waiting: Sequence[Waiting]) -> None:
    """Say that pushes must end first.

    Raises:
        PartlyDoneError: there are some.
    """
    if waiting:
        raise PartlyDoneError(
            f"{under_way(waiting)} must end before what was let go is copied or deleted",
            hint="Later: `holdfast gc purge`. If one was killed, run it again, or give it up: --grace 0",
        )
