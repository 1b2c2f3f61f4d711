"""What the verbs of ``holdfast gc`` share: the project with its stores, and which of them are meant."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.cli import completion_values
from holdfast.cli.caches import digest_cache, reference_memory
from holdfast.errors import UsageError
from holdfast.gc.plan import Request
from holdfast.gc.planned import SCOPES, Scope
from holdfast.gc.world import FOLDERS, Remote, World
from holdfast.repo.dvc import default_remote, local_cache, remotes
from holdfast.repo.workspace import Project, find_project

if TYPE_CHECKING:
    from holdfast.executor.executor import Executor
    from holdfast.vault.repository import Vault

JOBS = 16

Command = Callable[..., Any]


@contextmanager
def world_here(scheduler: str | None = None) -> Iterator[World]:
    """The project around the working directory, with its stores; closed in the end.

    Args:
        scheduler: what lists remotes, as given with `holdfast.cli.schedulers.scheduler_option`.

    Raises:
        NotARepositoryError: there is none.
    """
    with world_of(find_project(Path.cwd())) as world:
        world.open_executor = lambda: _open_executor(scheduler)
        yield world


@contextmanager
def world_of(project: Project) -> Iterator[World]:
    """A project with its stores; closed in the end."""
    world = World(
        project,
        local_cache(project.root),
        lambda: digest_cache(project.root),
        lambda name: _open_remote(project, name),
        lambda name: _open_vault(project, name),
        default_remote(project.root) or "",
        lambda: reference_memory(project.root),
    )
    try:
        yield world
    finally:
        world.close()


def scope_options(function: Command) -> Command:
    """Add the options that say where to look."""
    for option in reversed(
        (
            click.argument("folders", nargs=-1, metavar="[FOLDER...]", type=click.Path(path_type=Path)),
            click.option(
                "--scope",
                "scopes",
                metavar="NAMES",
                default="cache",
                show_default=True,
                help=f"Where to look, separated by commas: {', '.join(SCOPES)}.",
            ),
            click.option(
                "-r",
                "--remote",
                "names",
                metavar="NAME",
                multiple=True,
                shell_complete=completion_values.remotes,
                help="The DVC remote, or the one beside which the vault lies; may be given again. [default: DVC's]",
            ),
            click.option(
                "--accept", metavar="PATTERN", multiple=True, help="Remove what needs a decision and has such a path."
            ),
            click.option("--ignore-run-cache", is_flag=True, help="Let DVC's run cache keep nothing."),
            click.option("--offline", is_flag=True, help="Ask no other place whether it has what would go."),
        )
    ):
        function = option(function)
    return function


def request_of(
    world: World,
    folders: Sequence[Path],
    scopes: str,
    names: Sequence[str],
    accept: Sequence[str],
    *,
    ignore_run_cache: bool,
    offline: bool,
) -> Request:
    """What the options ask for.

    Raises:
        UsageError: a scope is unknown, or wants a remote that nobody named.
    """
    chosen = read_scopes(scopes)
    if folders and not {"runs", "workspace"} & set(chosen):
        raise UsageError("a FOLDER says where runs are", hint="Add --scope runs")
    if names and not {"remote", "vault"} & set(chosen):
        raise UsageError("a remote is looked at with --scope remote, a vault with --scope vault")
    plain = tuple(names) or ((world.default_remote,) if world.default_remote else ())
    if "remote" in chosen and not plain:
        raise UsageError("no remote is named, and DVC has no default one", hint="Name it: -r NAME")
    return Request(
        scopes=chosen,
        folders=tuple(_from_root(world.project, folder) for folder in folders or [world.project.root]),
        remotes=plain if "remote" in chosen else (),
        vaults=(tuple(names) or ("",)) if "vault" in chosen else (),
        accept=tuple(accept),
        ignore_run_cache=ignore_run_cache,
        offline=offline,
    )


def read_scopes(text: str) -> tuple[Scope, ...]:
    """The scopes that a text names, separated by commas, in their usual order.

    Raises:
        UsageError: one is unknown, or there is none.
    """
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := wanted - set(SCOPES):
        raise UsageError(f"{min(unknown)!r} is no scope", hint=f"There are {', '.join(SCOPES)}")
    if not wanted:
        raise UsageError("no scope is named", hint=f"There are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)


def _from_root(project: Project, folder: Path) -> str:
    try:
        return folder.resolve().relative_to(project.root).as_posix()
    except ValueError as error:
        raise UsageError(
            f"{folder} is not inside the project {project.root}",
            hint="Name folders of the project, or that of another one with `holdfast --cd DIR`",
        ) from error


def _open_vault(project: Project, name: str) -> "Vault":
    from holdfast.cli.vaults import open_project_vault  # imported here: a plan for the cache needs no store

    return open_project_vault(project, name or None, jobs=JOBS)


def _open_executor(scheduler: str | None) -> "AbstractContextManager[Executor]":
    from holdfast.cli.schedulers import tasks  # likewise

    return tasks(scheduler, FOLDERS)


def _open_remote(project: Project, name: str) -> Remote:
    from holdfast.cli.naming import open_objects, store_options  # likewise
    from holdfast.objectstore.address import StoreAddress
    from holdfast.objectstore.location import is_url
    from holdfast.objectstore.opening import open_store

    sections = remotes(project.root)
    if name not in sections:
        raise UsageError(f"{name} is no DVC remote", hint="`dvc remote list` names them")
    url = str(sections[name].get("url", ""))
    if url.startswith(("http://", "https://", "ssh://", "webdav")):
        raise UsageError(
            f"the DVC remote {name} is the server {url}, which cannot be listed", hint="Name another one: -r NAME"
        )
    folder = None if is_url(url) else Path(os.path.expanduser(url)).resolve()  # noqa: PTH111 - as DVC does it
    if folder is not None and not folder.is_dir():
        raise UsageError(
            f"the DVC remote {name} is the folder {folder}, which does not exist",
            hint="Mount it, or name another one: -r NAME",
        )
    if folder is not None:
        return Remote(name, open_objects(str(folder)), folder)
    address = StoreAddress(url, store_options(url))
    return Remote(name, open_store(url, address.options), address=address)
