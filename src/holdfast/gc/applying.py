"""Carrying out a plan: first that nothing it rests on has changed, then each place by itself, resumable.

What goes waits in the quarantine of its place, with the plan beside it; of a vault the condemned packs are the
quarantine. A copy of the plan is kept in the project while it is under way, so that a command that was killed is ended
by running it again.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from holdfast.atomic import write_atomically
from holdfast.errors import StalePlanError, UsageError
from holdfast.gc.evidence import PROJECT
from holdfast.gc.plan import NEW_PLAN, Plan
from holdfast.gc.planned import PlannedObject, Scope
from holdfast.gc.planning import gather_for, make_plan
from holdfast.gc.policy import Policy, find_policy
from holdfast.gc.quarantine import APPLIED
from holdfast.gc.vault import live_files
from holdfast.gc.world import STATE, World
from holdfast.removal.place import Progress, Thing, silent
from holdfast.vault.collecting import Settled
from holdfast.vault.collection import collect, plan_collection
from holdfast.vault.periods import GRACE

UNFINISHED = STATE / "collecting.json"
SHORT_CHARACTERS = 12


class LastCopyError(UsageError):
    """A plan would remove what no other place is known to have."""


@dataclass(frozen=True)
class Taken:
    """What went from one place.

    Attributes:
        scope: see `holdfast.gc.planned.Scope`.
        place: the name of the remote; empty for what lies here.
        objects: how many.
        bytes: of these; of a vault, of the packs that will go.
        left: what did not go, and why.
        settled: of a vault, how far its collection is.
    """

    scope: Scope
    place: str
    objects: int
    bytes: int
    left: tuple[tuple[str, str], ...] = ()
    settled: Settled | None = None


@dataclass(frozen=True)
class Applied:
    """What a plan did.

    Attributes:
        plan: its digest, by which it can be undone.
        taken: by place.
        archived: runs whose weights went to the vault.
        archived_bytes: that the workspace has less for that.
    """

    plan: str
    taken: tuple[Taken, ...]
    archived: tuple[str, ...] = ()
    archived_bytes: int = 0

    @property
    def bytes(self) -> int:
        """All that went."""
        return self.archived_bytes + sum(taken.bytes for taken in self.taken)

    @property
    def left(self) -> list[tuple[str, str]]:
        """What did not go, and why."""
        return [pair for taken in self.taken for pair in taken.left]


def unfinished(root: Path) -> Path | None:
    """The plan of a collection that was cut off; None where there is none."""
    return UNFINISHED if (root / UNFINISHED).is_file() else None


def apply_plan(
    world: World,
    plan: Plan,
    *,
    now: float,
    allow_last_copy: bool = False,
    grace: timedelta = GRACE,
    wait: timedelta = timedelta(0),
    archive: Callable[[Any], tuple[tuple[str, ...], int]] | None = None,
    progress: Progress = silent,
) -> Applied:
    """Do what a plan says.

    Args:
        world: the project and its stores.
        plan: of `holdfast.gc.planning.make_plan`, or read from its file.
        now: seconds since the epoch.
        allow_last_copy: also remove what no other place is known to have.
        grace, wait: for a vault, as of `holdfast.vault.collecting.settle`.
        archive: carries out ``plan.archive``; gives the runs and the bytes that are freed.
        progress: told of bytes.

    Raises:
        StalePlanError: something that the plan rests on has changed; nothing was done.
        LastCopyError: it would remove what no other place has; nothing was done.
        HoldfastError: as of `make_plan`; or a place refuses, in which case the command can be run again.
        OSError: the project cannot be written.
    """
    if plan.last_copies and not allow_last_copy:
        first = plan.last_copies[0]
        more, verb = (f" and {len(plan.last_copies) - 1} more", "lie") if plan.last_copies[1:] else ("", "lies")
        raise LastCopyError(
            f"{_called(first)}{more} {verb} nowhere else, as far as is known",
            hint="Push what you need, or say --allow-last-copy; until the purge it can be restored",
        )
    goes_on = _is_unfinished(world.project.root, plan)
    try:
        check_plan(world, plan, now=now, grace=grace, begun=goes_on)
    except StalePlanError as error:
        if not (world.project.root / APPLIED / f"{plan.digest}.json").is_file():
            raise
        raise StalePlanError(
            f"the plan was carried out already, and {error.message}", hint="`holdfast gc list` shows what went"
        ) from error
    journal = world.project.root / UNFINISHED
    journal.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(journal, plan.to_file())
    archived: tuple[str, ...] = ()
    archived_bytes = 0
    if plan.archive is not None and archive is not None:
        archived, archived_bytes = archive(plan.archive)
    taken = []
    for (scope, name), some in groupby(sorted(plan.removed, key=_where), _where):
        entries = list(some)
        if scope == "vault":
            taken.append(_collect(world, plan, name, entries, now=now, grace=grace, wait=wait))
        else:
            taken.append(_take(world, plan, scope, name, entries, progress))
    # what a vault let go is known by its plan from here on
    (world.project.root / APPLIED).mkdir(exist_ok=True)
    journal.replace(world.project.root / APPLIED / f"{plan.digest}.json")
    return Applied(plan.digest, tuple(taken), archived, archived_bytes)


def check_plan(world: World, plan: Plan, *, now: float, grace: timedelta = GRACE, begun: bool = False) -> None:
    """See that nothing has changed that a plan rests on.

    Args:
        world, plan, now, grace: as of `apply_plan`.
        begun: it was cut off: what is gone already is no change.

    Raises:
        StalePlanError: something has; it is named.
        HoldfastError: as of `make_plan`.
    """
    # what other places have is no part of it: that was judged when the plan was made
    again = make_plan(world, plan.request, now=now, grace=grace, ask_for_copies=False)
    if again.inputs.get(PROJECT) != plan.inputs.get(PROJECT):
        raise StalePlanError("the plan was made in another project, or another clone of it", hint=NEW_PLAN)
    for name, digest in plan.inputs.items():
        done_already = begun and (name.startswith("the vault") or name not in again.inputs)
        if again.inputs.get(name) != digest and not done_already:
            raise StalePlanError(f"{name} has changed since the plan was made", hint=NEW_PLAN)
    found = {(entry.scope, entry.place, entry.path): entry for entry in again.objects}
    for entry in plan.objects:
        if entry.kept:
            continue
        here = found.get((entry.scope, entry.place, entry.path))
        if here is None and begun:
            continue
        if here is None:
            raise StalePlanError(f"{_called(entry)} is gone since the plan was made", hint=NEW_PLAN)
        if here.kept:
            raise StalePlanError(f"{_called(entry)} is needed now ({here.why})", hint=NEW_PLAN)
        if (here.tier, here.size, here.stamp) != (entry.tier, entry.size, entry.stamp):
            raise StalePlanError(f"{_called(entry)} has changed since the plan was made", hint=NEW_PLAN)


def live_of(world: World, plan: Plan, name: str, policy: Policy, *, now: float) -> Callable[[], Collection[str]]:
    """Asks anew which files of a vault roots name."""
    return lambda: live_files(world.vault(name), gather_for(world, plan.request, policy, now=now))


def _is_unfinished(root: Path, plan: Plan) -> bool:
    try:
        values = json.loads((root / UNFINISHED).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(values, dict) and values.get("digest") == plan.digest


def _where(entry: PlannedObject) -> tuple[Scope, str]:
    return entry.scope, entry.place


def _take(world: World, plan: Plan, scope: Scope, name: str, entries: list[PlannedObject], progress: Progress) -> Taken:
    things = [Thing(entry.path, entry.size, entry.stamp) for entry in entries]
    moved = world.place(scope, name).take(plan.digest, plan.to_file().encode(), things, progress)
    return Taken(scope, name, len(moved.done), moved.bytes, moved.left)


def _collect(
    world: World,
    plan: Plan,
    name: str,
    entries: list[PlannedObject],
    *,
    now: float,
    grace: timedelta,
    wait: timedelta,
) -> Taken:
    policy = find_policy(world.project.root)
    vault, live = world.vault(name), live_of(world, plan, name, policy, now=now)
    collection = plan_collection(vault, live(), recent=policy.minimum_age, grace=grace)
    wanted = {entry.path for entry in entries}
    if extra := {file.oid for file in collection.dead} - wanted:
        raise StalePlanError(f"{min(extra)} in {vault.url} would go, and the plan does not say so", hint=NEW_PLAN)
    done = collect(vault, collection, live, recent=policy.minimum_age, grace=grace, wait=wait)
    return Taken("vault", name, len(entries), sum(done.condemned.values()), settled=done.settled)


def _called(entry: PlannedObject) -> str:
    short = entry.oid[:SHORT_CHARACTERS]
    name = f"{entry.names[0].path} ({short})" if short and entry.names else short or entry.path
    return f"{name} in {entry.place}" if entry.place else name
