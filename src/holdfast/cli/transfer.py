"""``holdfast push``, ``pull``, ``fetch`` and ``status``: DVC's words, with a vault at the other end."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar, counted
from holdfast.cli.vaults import project_vault
from holdfast.repo.cache import read_members
from holdfast.repo.dvc import CheckedOut, Selection, UsedObject, checkout, load, local_cache
from holdfast.repo.dvcfiles import LISTING_SUFFIX, MD5
from holdfast.repo.workspace import Project, find_project
from holdfast.vault.coders import forked_coders
from holdfast.vault.transfer import Compared, Fetched, Pushed, Transferred, failures
from holdfast.vault.transfer import compare as compare_with_vault
from holdfast.vault.transfer import fetch as fetch_from_vault
from holdfast.vault.transfer import push as push_to_vault

NAMES_SHOWN = 10
# Python looks for cycles when so many objects are new. At the 700 that it has by default, a fifth of the time of a push
# of 100,000 small files goes into looking at records that have none
NEW_OBJECTS = 100_000

Command = Callable[..., Any]


def _selecting(function: Command) -> Command:
    """Add what selects outs, in DVC's words, and where the vault is."""
    for option in reversed(
        (
            click.argument("targets", nargs=-1, shell_complete=completion_values.targets),
            click.option(
                "-r",
                "--remote",
                metavar="NAME|URL",
                shell_complete=completion_values.remotes,
                help="A DVC remote beside which the vault lies, or its URL.",
            ),
            click.option("-a", "--all-branches", is_flag=True, help="Of the tips of all branches."),
            click.option("-T", "--all-tags", is_flag=True, help="Of all tags."),
            click.option("-A", "--all-commits", is_flag=True, help="Of all commits."),
            click.option("-d", "--with-deps", is_flag=True, help="Of the stages before the targets, too."),
            click.option("-R", "--recursive", is_flag=True, help="A target that is a folder stands for all in it."),
            click.option("--glob", is_flag=True, help="Targets are patterns."),
            click.option(
                "-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=4, show_default=True, help="Threads."
            ),
        )
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(NEW_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@click.command("push", cls=Verb)
@_selecting
@click.option("--run-cache", is_flag=True, help="DVC's run cache, too.")
@click.option("--no-delta", is_flag=True, help="Store nothing against other versions.")
@form_options
def push(remote: str | None, jobs: int, run_cache: bool, no_delta: bool, form: Form, **selected: Any) -> None:
    """Send cached objects to the vault.

    Those of all outs, and of all versions of the registry; or of TARGETS, as `dvc push` selects them. What the vault
    has already, in whatever file, is not sent again; new versions are stored as differences where that is smaller and
    reading them does not take longer.

    \b
    Examples:
      holdfast push
      holdfast push train --all-commits
    """
    project = find_project(Path.cwd())
    with (
        _seldom_collecting(),
        forked_coders(jobs) as coders,  # before the vault: what opens that starts threads
        project_vault(project, remote, jobs=jobs) as vault,
        bar("Pushing") as progress,
    ):
        report = push_to_vault(
            vault,
            project,
            Selection(**selected),
            delta=not no_delta,
            run_cache=run_cache,
            besides=[] if selected["targets"] else _registered(project),
            coders=coders,
            progress=progress,
        )
        url = vault.url
    emit(form, {"format": "holdfast push 1", "vault": url, **asdict(report)}, _pushed(report, url))
    _raise_failures(report)


@click.command("fetch", cls=Verb)
@_selecting
@click.option("--run-cache", is_flag=True, help="DVC's run cache, too.")
@form_options
def fetch(remote: str | None, jobs: int, run_cache: bool, form: Form, **selected: Any) -> None:
    """Bring objects from the vault into DVC's cache.

    Those of all outs, or of TARGETS, as `dvc fetch` selects them.

    \b
    Example:
      holdfast fetch --all-tags
    """
    project = find_project(Path.cwd())
    report, url = _fetched(project, remote, jobs, run_cache, Selection(**selected))
    emit(form, {"format": "holdfast fetch 1", "vault": url, **asdict(report)}, _brought(report, url))
    _raise_failures(report)


@click.command("pull", cls=Verb)
@_selecting
@click.option("--run-cache", is_flag=True, help="DVC's run cache, too.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files that DVC does not know.")
@click.option("--allow-missing", is_flag=True, help="Check out the rest where something is missing.")
@form_options
def pull(
    remote: str | None, jobs: int, run_cache: bool, force: bool, allow_missing: bool, form: Form, **selected: Any
) -> None:
    """Bring objects from the vault and check them out.

    Leaves the workspace and the cache as `dvc pull` does.

    \b
    Examples:
      holdfast pull
      holdfast pull models/digits/classifier.safetensors
    """
    project = find_project(Path.cwd())
    selection = Selection(**selected)
    threading.Thread(target=load, name="holdfast-dvc", daemon=True).start()
    report, url = _fetched(project, remote, jobs, run_cache, selection)
    if not allow_missing:
        _raise_failures(report)
    done = checkout(project.root, selection, force=force, allow_missing=allow_missing)
    payload = {"format": "holdfast pull 1", "vault": url, **asdict(report), **asdict(done)}
    emit(form, payload, [*_brought(report, url), *_checked_out(done)])


@click.command("status", cls=Verb)
@_selecting
@form_options
def status(remote: str | None, jobs: int, form: Form, **selected: Any) -> None:
    """Compare DVC's cache with the vault.

    As `dvc status -c` does it with a remote; for the workspace see `dvc status`.

    \b
    Example:
      holdfast status --all-commits
    """
    project = find_project(Path.cwd())
    with project_vault(project, remote, jobs=jobs) as vault:
        report = compare_with_vault(vault, project, Selection(**selected))
        url = vault.url
    emit(form, {"format": "holdfast status 1", "vault": url, **asdict(report)}, list(_compared(report, url)))


def _fetched(project: Any, remote: str | None, jobs: int, run_cache: bool, selection: Selection) -> tuple[Fetched, str]:
    with (
        _seldom_collecting(),
        project_vault(project, remote, jobs=jobs) as vault,
        bar("Fetching", counted) as progress,
    ):
        return fetch_from_vault(vault, project, selection, run_cache=run_cache, progress=progress), vault.url


def _registered(project: Project) -> list[UsedObject]:
    """The objects of all versions of the registry: DVC need not track them."""
    if not (project.root / "registry").is_dir():
        return []
    from holdfast.registry.store import Registry  # imported here: most projects have none

    cache = local_cache(project.root).folder
    versions = [version for model in Registry(project.root).models() for version in model.versions]
    found = []
    for version in versions:
        found.append(UsedObject(MD5, version.oid, version.path, version.size))
        if version.oid.endswith(LISTING_SUFFIX):
            members = read_members(cache, MD5, version.oid) or ()
            found += [UsedObject(MD5, oid, f"{version.path}/{name}") for name, oid in members]
    return found


def _raise_failures(report: Transferred) -> None:
    error = failures(report)
    if error is None:
        return
    if isinstance(report, Fetched) and (waiting := _waiting_here(report.missing)):
        more = " …" if len(waiting) > NAMES_SHOWN else ""
        error.hint = f"These wait in the quarantine: `holdfast gc restore {' '.join(waiting[:NAMES_SHOWN])}{more}`"
    raise error


def _waiting_here(paths: Sequence[str]) -> list[str]:
    """What to call those objects that a collection took out of the cache and that can be brought back."""
    if not paths:
        return []
    # imported here: nothing else of a pull needs it
    from holdfast.cli.gc_world import world_here
    from holdfast.gc.quarantine import list_held
    from holdfast.repo.gitfolder import find_git_folder
    from holdfast.repo.history import HistoryReader

    with world_here() as world:
        held = [one for one in list_held(world) if one.oid]
        if not held:
            return []
        # what a file has become again was called something else, or nothing, when it went
        sightings = HistoryReader(find_git_folder(world.project.git_root)).read_workspace().sightings
    prefix = f"{world.project.prefix}/" if world.project.prefix else ""
    known = {sighting.out.path.removeprefix(prefix): sighting.out.oid for sighting in sightings}
    found = []
    for path in paths:
        if any(one.is_meant(path) for one in held):
            found.append(path)
        elif any(one.oid == known.get(path) for one in held):
            found.append(known[path][:12])
    return found


def _pushed(report: Pushed, url: str) -> list[str]:
    done = report.statistics
    if not done.files:
        lines = [f"Everything is in {url}: {plural(report.known, 'object')}."]
    else:
        saved = done.raw_bytes - done.stored_bytes
        share = f", {saved / done.raw_bytes:.0%} saved" if saved > 0 else ""
        known = f"; {plural(report.known, 'object')} were there" if report.known else ""
        sizes = f"{human_bytes(done.raw_bytes)} in {human_bytes(done.stored_bytes)}{share}"
        lines = [f"{plural(done.files, 'object')} pushed to {url}: {sizes}{known}."]
    return lines + _elsewhere(report.elsewhere)


def _brought(report: Fetched, url: str) -> list[str]:
    if report.files:
        first = f"{plural(report.files, 'object')} fetched from {url}: {human_bytes(report.bytes)}."
    else:
        first = "Everything is in the cache." if not report.missing and not report.failed else "Nothing was fetched."
    return [first, *_quarantined(report), *_elsewhere(report.elsewhere)]


def _quarantined(report: Fetched) -> list[str]:
    if not report.waiting:
        return []
    names = ", ".join(report.waiting[:NAMES_SHOWN])
    count = plural(len(report.waiting), "object")
    told = f"A collection let go of {count} of these, and the quarantine will end: {names}."
    return [f"{told} `holdfast gc restore PATH` keeps them."]


def _elsewhere(paths: tuple[str, ...]) -> list[str]:
    if not paths:
        return []
    return [f"Left to DVC, since they have a remote of their own: {', '.join(paths[:NAMES_SHOWN])}."]


def _checked_out(done: CheckedOut) -> list[str]:
    return [
        f"{kind.capitalize()}: {', '.join(names[:NAMES_SHOWN])}{' …' if len(names) > NAMES_SHOWN else ''}"
        for kind, names in (("added", done.added), ("modified", done.modified), ("deleted", done.deleted))
        if names
    ]


def _compared(report: Compared, url: str) -> Iterator[str]:
    if not report.new and not report.deleted and not report.missing:
        yield f"The cache and {url} are in sync: {plural(report.both, 'object')}."
        return
    yield f"{plural(report.both, 'object')} in the cache and in {url}."
    for title, names in (
        ("In the cache alone (`holdfast push` sends them)", report.new),
        ("In the vault alone (`holdfast fetch` brings them)", report.deleted),
        ("Nowhere", report.missing),
    ):
        if names:
            more = [f"… and {len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
            yield "\n".join([f"{title}:", *(f"  {name}" for name in (*names[:NAMES_SHOWN], *more))])
