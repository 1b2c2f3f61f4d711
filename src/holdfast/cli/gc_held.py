"""``holdfast gc list``, ``restore`` and ``purge``: what went and is still there."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.durations import duration
from holdfast.cli.gc_apply import GRACE_OPTION, WAIT_OPTION, raise_waiting
from holdfast.cli.gc_world import world_here
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_age, human_bytes, plural
from holdfast.cli.progress import bar
from holdfast.errors import PartlyDoneError, UsageError
from holdfast.gc.planned import SECONDS_A_DAY
from holdfast.gc.policy import find_policy
from holdfast.gc.quarantine import Held, Purged, Restored, list_held, purge_held, restore
from holdfast.gc.world import World
from holdfast.objectstore.store import StoreError
from holdfast.vault.repository import NoVaultError

SHOWN = 200
# of an oid, which can be restored by as many
SHORT_CHARACTERS = 12

_REMOTE = click.option(
    "-r",
    "--remote",
    "names",
    metavar="NAME",
    multiple=True,
    shell_complete=completion_values.remotes,
    help="Of this DVC remote and its vault; may be given again.",
)
_LOCAL = click.option("--local", "here_alone", is_flag=True, help="Of this machine alone: no remote, no vault.")


@click.command("list", cls=Verb)
@_REMOTE
@_LOCAL
@form_options
def list_(names: Sequence[str], here_alone: bool, form: Form) -> None:
    """Show what went and can still be restored: here, in DVC's default remote and in the vault.

    \b
    Examples:
      holdfast gc list
      holdfast gc list --local --json
    """
    with world_here() as world:
        held = list_held(world, *_stores(world, names, here_alone))
    emit(form, {"format": "holdfast gc list 1", "held": [_json(one) for one in held]}, list(_listed(held)))


@click.command("restore", cls=Verb)
@click.argument(
    "targets", nargs=-1, required=True, metavar="PLAN|OID|PATH...", shell_complete=completion_values.collected
)
@_REMOTE
@_LOCAL
@form_options
def restore_(targets: Sequence[str], names: Sequence[str], here_alone: bool, form: Form) -> None:
    """Bring back what went: all that a plan took, an object, or what had a path.

    Plans and oids may be cut short to six characters. Nothing that is there is overwritten.

    \b
    Examples:
      holdfast gc restore 3f2a91c04b7d
      holdfast gc restore models/digits/classifier.safetensors
    """
    with world_here() as world, bar("Restoring") as progress:
        done = restore(world, targets, *_stores(world, names, here_alone), progress=progress)
    emit(form, _restored_json(done), list(_restored(done)))
    _raise_left(done.left)


@click.command("purge", cls=Verb)
@_REMOTE
@_LOCAL
@click.option(
    "--older-than", type=duration, metavar="TIME", help="What has waited longer. [default: gc.quarantine, 14d]"
)
@GRACE_OPTION
@WAIT_OPTION
@click.option("--offline", is_flag=True, help="Ask no git remote what it has.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@form_options
def purge(
    names: Sequence[str],
    here_alone: bool,
    older_than: timedelta | None,
    grace: timedelta,
    wait: timedelta,
    offline: bool,
    dry_run: bool,
    yes: bool,
    form: Form,
) -> None:
    """Delete for good what has waited long enough. What something needs again comes back instead.

    \b
    Examples:
      holdfast gc purge --dry-run
      holdfast gc purge --older-than 30d --yes
    """
    with world_here() as world:
        policy = find_policy(world.project.root)
        stores = _stores(world, names, here_alone)
        age = policy.quarantine if older_than is None else older_than
        now = time.time()
        if not dry_run and not yes:
            before = purge_held(
                world, policy, *stores, older_than=age, now=now, grace=grace, dry_run=True, offline=offline
            )
            if before.held or before.bytes:
                question = f"Delete {plural(len(before.held), 'object')} of {human_bytes(before.bytes)} for good?"
                click.confirm(question, abort=True, err=True)
        with bar("Deleting") as progress:
            done = purge_held(
                world,
                policy,
                *stores,
                older_than=age,
                now=now,
                grace=grace,
                wait=wait,
                dry_run=dry_run,
                offline=offline,
                progress=progress,
            )
    emit(form, _purged_json(done, dry_run), list(_purged(done, dry_run)))
    _raise_left(done.left)
    raise_waiting(done.waiting)


def _stores(world: World, names: Sequence[str], here_alone: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The remotes and the vaults that are meant."""
    if here_alone:
        if names:
            raise UsageError("--local and --remote exclude each other")
        return (), ()
    if names:
        return tuple(names), tuple(name for name in names if _opens(world.vault, name))
    default = (world.default_remote,) if world.default_remote and _opens(world.remote, world.default_remote) else ()
    return default, ("",) if _opens(world.vault, "") else ()


def _opens(what: Callable[[str], object], name: str) -> bool:
    """Whether there is such a place; one that cannot be reached is an error, as nobody knows what waits there."""
    try:
        what(name)
    except (UsageError, NoVaultError):
        return False
    except StoreError as error:
        raise StoreError(error.message, hint="`--local` looks at this machine alone") from error
    return True


def _json(held: Held) -> dict[str, Any]:
    values = asdict(held)
    values["since"] = None if held.since is None else held.since.total_seconds()
    values["names"] = list(held.names)
    del values["what"]
    return values


def _restored_json(done: Restored) -> dict[str, Any]:
    return {
        "format": "holdfast gc restore 1",
        "restored": [_json(one) for one in done.held],
        "bytes": done.bytes,
        "left": [list(pair) for pair in done.left],
    }


def _purged_json(done: Purged, dry_run: bool) -> dict[str, Any]:
    return {
        "format": "holdfast gc purge 1",
        "deleted": not dry_run,
        "purged": [_json(one) for one in done.held],
        "bytes": done.bytes,
        "rescued": [_json(one) for one in done.rescued],
        "young": done.young,
        "left": [list(pair) for pair in done.left],
    }


def _listed(held: Sequence[Held]) -> Iterator[str | Table]:
    if not held:
        yield "Nothing waits in a quarantine."
        return
    yield f"{plural(len(held), 'object')} of {human_bytes(sum(one.size for one in held))} can be restored."
    rows = [
        (
            one.plan[:12] or "–",
            f"{one.scope} {one.place}".rstrip(),
            one.names[0] if one.names else one.oid[:SHORT_CHARACTERS] or one.path,
            human_bytes(one.size),
            human_age(one.since.total_seconds() / SECONDS_A_DAY) if one.since is not None else "–",
        )
        for one in held[:SHOWN]
    ]
    if len(held) > SHOWN:
        rows.append(("…", "", f"{len(held) - SHOWN:,} more", "", ""))
    yield Table(("plan", "where", "name", "size", "since"), rows, right=frozenset({"size", "since"}))
    yield "Bring back: `holdfast gc restore PLAN|OID|PATH`. Delete for good: `holdfast gc purge`."


def _restored(done: Restored) -> Iterator[str]:
    yield f"{plural(len(done.held), 'object')} of {human_bytes(done.bytes)} restored."


def _purged(done: Purged, dry_run: bool) -> Iterator[str]:
    verb = "Would delete" if dry_run else "Deleted"
    if done.held or done.bytes:
        yield f"{verb} {plural(len(done.held), 'object')} of {human_bytes(done.bytes)}."
    else:
        yield "Nothing to delete."
    if done.rescued:
        came = "would come back" if dry_run else "came back"
        them = "them" if done.rescued[1:] else "it"
        yield f"{plural(len(done.rescued), 'object')} {came}: something needs {them} again."
    if done.young:
        yield f"{plural(done.young, 'object')} must wait longer."


def _raise_left(left: Sequence[tuple[str, str]]) -> None:
    if left:
        more = f"; {len(left) - 1} more" if left[1:] else ""
        raise PartlyDoneError(
            f"{left[0][0]} was left as it is: {left[0][1]}{more}", hint="`holdfast gc list` shows what waits yet"
        )
