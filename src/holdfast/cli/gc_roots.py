"""``holdfast gc roots``: what clones need of a vault or a remote."""

import time
from collections.abc import Sequence
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.gc_world import world_here
from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, plural
from holdfast.errors import UsageError
from holdfast.gc.clones import register_clone
from holdfast.gc.policy import find_policy
from holdfast.gc.world import REMOTE_ROOTS, World
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.clone import clone_id
from holdfast.vault.roots import ROOTS, forget, registrations

SHORTEST_PREFIX = 6

_PLAIN = click.option(
    "-r",
    "--remote",
    "name",
    metavar="NAME",
    shell_complete=completion_values.remotes,
    help="Of this plain DVC remote, instead of the vault.",
)


@click.group("roots", cls=Noun)
def roots() -> None:
    """Show what other clones need of a vault or remote; say what this one does."""


@roots.command("list")
@_PLAIN
@form_options
def list_(name: str | None, form: Form) -> None:
    """Show which clones said what they need.

    `holdfast push` says it each time. A collection keeps what any clone needs, until the clone is forgotten.

    \b
    Example:
      holdfast gc roots list
    """
    with world_here() as world:
        store, folder = _store(world, name)
        own = clone_id(world.project)
        found = registrations(store, folder)
    payload: dict[str, Any] = {
        "format": "holdfast gc roots 1",
        "store": store.url,
        "clones": [
            {
                "clone": one.clone,
                "name": one.name,
                "since": one.since.isoformat(),
                "files": len(one.files),
                "own": one.clone == own,
            }
            for one in found
        ],
    }
    rows = [
        (
            one.clone[:12],
            one.name + (" (this one)" if one.clone == own else ""),
            f"{len(one.files):,}",
            f"{one.since:%Y-%m-%d %H:%M}",
        )
        for one in found
    ]
    table = Table(("clone", "name", "objects", "since"), rows, right=frozenset({"objects"}))
    emit(form, payload, [table] if rows else [f"No clone has said what it needs of {store.url}."])


@roots.command()
@_PLAIN
@form_options
def register(name: str | None, form: Form) -> None:
    """Say what this clone needs; `holdfast push` does so for a vault.

    \b
    Example:
      holdfast gc roots register -r storage
    """
    with world_here() as world:
        store, folder = _store(world, name)
        count = register_clone(
            world.project, world.cache, store, find_policy(world.project.root), now=time.time(), folder=folder
        )
        own = clone_id(world.project)
    payload = {"format": "holdfast gc roots register 1", "store": store.url, "clone": own, "files": count}
    emit(form, payload, [f"This clone needs {plural(count, 'object')} of {store.url}."])


@roots.command("forget")
@click.argument("clones", nargs=-1, required=True, metavar="CLONE...")
@_PLAIN
@form_options
def forget_(clones: Sequence[str], name: str | None, form: Form) -> None:
    """Let clones keep nothing any more that are gone: their ids, which may be cut short to six characters.

    \b
    Example:
      holdfast gc roots forget 5768cb2bbca4
    """
    with world_here() as world:
        store, folder = _store(world, name)
        known = [one.clone for one in registrations(store, folder)]
        forgotten: list[str] = []
        for text in clones:
            meant = [clone for clone in known if len(text) >= SHORTEST_PREFIX and clone.startswith(text)]
            if len(meant) != 1:
                raise UsageError(
                    f"{text} names {'several clones' if meant else 'no clone'}", hint="`holdfast gc roots list`"
                )
            forgotten += meant
        for clone in forgotten:
            forget(store, clone, folder)
    payload = {"format": "holdfast gc roots forget 1", "store": store.url, "forgotten": forgotten}
    emit(form, payload, [f"{clone[:12]} keeps nothing any more." for clone in forgotten])


def _store(world: World, name: str | None) -> tuple[ObjectStore, str]:
    return (world.vault("").store, ROOTS) if name is None else (world.remote(name).store, REMOTE_ROOTS)
