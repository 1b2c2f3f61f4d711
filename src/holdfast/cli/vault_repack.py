"""``holdfast vault repack`` and ``purge``: store old versions smaller, and delete what nobody needs any more."""

import json
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from holdfast.atomic import write_atomically
from holdfast.cli import completion_values
from holdfast.cli.caches import cache_folder
from holdfast.cli.durations import duration
from holdfast.cli.gc_apply import GRACE_OPTION, WAIT_OPTION, under_way
from holdfast.cli.gc_world import world_here
from holdfast.cli.groups import Verb
from holdfast.cli.naming import store_options
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bars
from holdfast.cli.schedulers import scheduler_option, tasks
from holdfast.cli.vaults import project_vault, vault_url
from holdfast.errors import PartlyDoneError, UsageError
from holdfast.gc.plan import Request
from holdfast.gc.planning import gather_for
from holdfast.gc.policy import find_policy
from holdfast.gc.vault import live_files
from holdfast.objectstore.address import StoreAddress
from holdfast.registry.store import Registry
from holdfast.repo.dvc import local_cache
from holdfast.repo.lineage import ObjectKey, read_lineage
from holdfast.repo.workspace import Project, find_project
from holdfast.vault.collecting import Purged, Settled, purge, settle
from holdfast.vault.periods import RECENT
from holdfast.vault.repack import Repacked, RepackPlan, ToStore, plan_repack, repack
from holdfast.vault.repack_storing import RepackSpread

JOBS = 4
FILES_SHOWN = 30
PLAN_FORMAT = "holdfast vault repack plan 1"
QUARANTINE = timedelta(days=14)

_REMOTE = click.option(
    "-r",
    "--remote",
    metavar="NAME|URL",
    shell_complete=completion_values.remotes,
    help="A DVC remote beside which the vault lies, or its URL.",
)
_JOBS = click.option(
    "-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=JOBS, show_default=True, help="Threads."
)
assert timedelta(days=14) == RECENT == QUARANTINE


@click.command("repack", cls=Verb)
@_REMOTE
@_JOBS
@click.option(
    "--recent",
    type=duration,
    metavar="TIME",
    default="14d",
    show_default=True,
    help="What was pushed less long ago stays quick to restore.",
)
@GRACE_OPTION
@WAIT_OPTION
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the plan to this file.")
@click.option(
    "--apply",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    shell_complete=completion_values.plans("repack"),
    help="Do what a plan says.",
)
@click.option("-y", "--yes", is_flag=True, help="Do it now, without a file between.")
@scheduler_option
@form_options
def repack_command(
    remote: str | None,
    jobs: int,
    recent: timedelta,
    grace: timedelta,
    wait: timedelta,
    output: Path | None,
    plan_file: Path | None,
    yes: bool,
    scheduler: str | None,
    form: Form,
) -> None:
    """Store old versions against newer ones, and nothing twice. Shows what would be done, unless told to do it.

    The newest version of each path stays whole; older ones become a chain of differences that runs backward in time.
    What the workspace, the tip of a branch, a tag or an alias of the registry names is read as quickly as before. What
    is replaced waits, readable, until `holdfast vault purge` deletes it.

    \b
    Examples:
      holdfast vault repack
      holdfast vault repack -o plan.json && holdfast vault repack --apply plan.json
      holdfast vault repack --yes
      holdfast vault repack --yes --scheduler tcp://10.0.0.1:8786
    """
    if plan_file is not None and (output is not None or yes):
        raise UsageError("--apply carries out a plan that was made before, -o and --yes make one")
    project = find_project(Path.cwd())
    with project_vault(project, remote, jobs=jobs) as vault:
        if plan_file is not None:
            plan = _read_plan(plan_file, vault.url)
        else:
            lineage = read_lineage(project, local_cache(project.root).folder)
            plan = plan_repack(vault, lineage, hot=_aliased(project), recent=recent, grace=grace)
        if plan_file is None and not yes:
            payload = _payload(plan, vault.url)
            if output is not None:
                write_atomically(output, json.dumps(payload, indent=2) + "\n")
            emit(form, payload, list(_planned(plan, vault.url, output)))
            return
        with tasks(scheduler if plan.files else None, jobs) as executor, bars() as progress:
            url = vault_url(project, remote)
            spread = RepackSpread(executor, StoreAddress(url, store_options(url))) if executor.remote else None
            done = repack(
                vault,
                plan,
                recent=recent,
                grace=grace,
                wait=wait,
                scratch=_scratch(project),
                progress=progress,
                spread=spread,
            )
        url = vault.url
    payload = {"format": "holdfast vault repack 1", "vault": url, **asdict(done)}
    emit(form, _plain(payload), list(_repacked(plan, done, url)))
    _raise_waiting(done.settled)


@click.command("purge", cls=Verb)
@_REMOTE
@_JOBS
@click.option(
    "--older-than",
    type=duration,
    metavar="TIME",
    default="14d",
    show_default=True,
    help="What has waited longer than this.",
)
@GRACE_OPTION
@WAIT_OPTION
@click.option("-y", "--yes", is_flag=True, help="Delete it.")
@form_options
def purge_command(
    remote: str | None, jobs: int, older_than: timedelta, grace: timedelta, wait: timedelta, yes: bool, form: Form
) -> None:
    """Delete what was replaced or found to be of no use, once it has waited. Shows it, unless told to delete it.

    What has become needed again meanwhile is kept.

    \b
    Examples:
      holdfast vault purge
      holdfast vault purge --older-than 30d --yes
    """
    with world_here() as world, project_vault(world.project, remote, jobs=jobs) as vault:
        policy, request = find_policy(world.project.root), Request(("vault",), vaults=(remote or "",), offline=True)

        def live() -> Collection[str]:
            """What a collection let go, and something names again, comes back."""
            return live_files(vault, gather_for(world, request, policy, now=time.time()))

        settled = settle(vault, live, grace=grace, recent=policy.minimum_age, wait=wait) if yes else Settled((), (), 0)
        done = purge(vault, live, older_than=older_than, dry_run=not yes)
        url = vault.url
    payload = {"format": "holdfast vault purge 1", "vault": url, "deleted": yes, **asdict(done)}
    emit(form, payload, list(_purged(done, url, yes)))
    _raise_waiting(settled)


def _aliased(project: Project) -> set[ObjectKey]:
    """What the aliases of the registry name."""
    hot: set[ObjectKey] = set()
    for model in Registry(project.root).models():
        for name in {*model.aliases.values(), model.current} - {None}:
            if (version := model.version(str(name))) is not None:
                hot.add(("md5", version.oid))
    return hot


def _scratch(project: Project) -> Path:
    folder = cache_folder(project.root)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _payload(plan: RepackPlan, url: str) -> dict[str, Any]:
    return {"format": PLAN_FORMAT, "vault": url, **asdict(plan)}


def _read_plan(path: Path, url: str) -> RepackPlan:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != PLAN_FORMAT:
            raise ValueError("it is no plan")
        if (place := values.pop("vault")) != url:
            raise UsageError(f"{path} is a plan for {place}, not for {url}", hint="Name that vault: -r URL")
        values["files"] = tuple(ToStore(**file) for file in values["files"])
        return RepackPlan(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is no plan of a repack", hint="`holdfast vault repack -o plan.json` writes one"
        ) from error


def _planned(plan: RepackPlan, url: str, output: Path | None) -> Iterator[str | Table]:
    if plan.empty:
        yield f"There is nothing to repack in {url}."
        return
    if plan.files:
        size = human_bytes(sum(file.size for file in plan.files))
        yield f"Would store {plural(len(plan.files), 'file')} of {size} anew:"
        rows = [
            (file.path, human_bytes(file.size), _oid(file.oid), _oid(file.base) if file.base else "whole")
            for file in plan.files[:FILES_SHOWN]
        ]
        yield Table(("path", "size", "object", "stored against"), rows, right=frozenset({"size"}))
        if len(plan.files) > len(rows):
            yield f"… and {plural(len(plan.files) - len(rows), 'file')} more; `--json` lists all."
    if plan.packs:
        yield f"{plural(len(plan.packs), 'pack')} of {human_bytes(sum(plan.packs.values()))} would be replaced."
    if plan.abandoned:
        size = human_bytes(sum(plan.abandoned.values()))
        yield f"{plural(len(plan.abandoned), 'pack')} of pushes that never ended, {size}, would go."
    waste = f"{human_bytes(plan.wasted_bytes)} of {human_bytes(plan.stored_bytes)}"
    yield f"Of no use to anybody are {waste} now."
    if output is not None:
        yield f"Do it: `holdfast vault repack --apply {output}`"
    else:
        yield "Do it: `holdfast vault repack --yes`"


def _repacked(plan: RepackPlan, done: Repacked, url: str) -> Iterator[str]:
    count = done.statistics.files
    if not count and not done.condemned and not done.settled.generations:
        yield f"There was nothing to repack in {url}."
        return
    if count:
        yield (
            f"{plural(count, 'file')} of {human_bytes(done.statistics.raw_bytes)} stored anew in "
            f"{human_bytes(done.statistics.stored_bytes)}."
        )
    if done.settled.copied_bytes:
        yield f"{human_bytes(done.settled.copied_bytes)} that others still need copied."
    if done.condemned:
        size = sum(done.condemned.values())
        yield (
            f"{plural(len(done.condemned), 'pack')} replaced; `holdfast vault purge` deletes them in time: "
            f"{human_bytes(size)} of {human_bytes(plan.stored_bytes)}."
        )


def _purged(done: Purged, url: str, deleted: bool) -> Iterator[str]:
    size = human_bytes(done.bytes)
    if done.packs:
        verb = "Deleted" if deleted else "Would delete"
        yield f"{verb} {plural(len(done.packs), 'pack')} of {size} in {url}."
        if not deleted:
            yield "Do it: `holdfast vault purge --yes`"
    else:
        yield f"Nothing to delete in {url}."
    if done.kept:
        yield f"{plural(len(done.kept), 'generation')} of replaced packs must wait longer."


def _raise_waiting(settled: Settled) -> None:
    if settled.waiting:
        first = settled.waiting[0]
        minutes = first.age.total_seconds() / 60
        raise PartlyDoneError(
            f"{under_way(settled.waiting)} must end before what was replaced may go; the "
            f"first began {minutes:.0f} minutes ago",
            hint="Later: `holdfast vault purge --yes`. If one was killed, run it again, or give it up: --grace 0",
        )


def _plain(payload: dict[str, Any]) -> dict[str, Any]:
    """With lengths of time as seconds."""
    for waiting in payload["settled"]["waiting"]:
        waiting["age"] = waiting["age"].total_seconds()
    return payload


def _oid(oid: str) -> str:
    return oid.partition(":")[2][:12]
