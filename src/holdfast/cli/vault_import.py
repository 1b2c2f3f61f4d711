"""``holdfast vault import`` and ``export``: whole DVC remotes and caches into a vault, and back."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from blake3 import blake3

from holdfast.cli import completion_values
from holdfast.cli.caches import cache_folder
from holdfast.cli.groups import Verb
from holdfast.cli.naming import store_options
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar, bars
from holdfast.cli.schedulers import scheduler_option, tasks
from holdfast.cli.vaults import project_vault, vault_url
from holdfast.errors import HoldfastError, NotARepositoryError, UsageError
from holdfast.objectstore.address import StoreAddress
from holdfast.objectstore.location import is_url, locate
from holdfast.objectstore.options import from_dvc, from_environment
from holdfast.repo.dvc import default_remote, local_cache, remotes
from holdfast.repo.lineage import read_lineage
from holdfast.repo.workspace import Project, find_project
from holdfast.vault.exporting import Exported, ExportPlan, export_files, plan_export
from holdfast.vault.exporting import failures as failures_of_export
from holdfast.vault.import_spread import ImportSpread, import_elsewhere
from holdfast.vault.importing import Imported, ImportPlan, import_files, plan_import
from holdfast.vault.importing import failures as failures_of_import
from holdfast.vault.layout import key_of
from holdfast.vault.repository import Vault, open_vault

JOBS = 4
NAMES_SHOWN = 30
SPOOL, IMPORTS = "transfers", "imports"
KEY_PART_SHOWN = 40

Command = Callable[..., Any]


def _options(function: Command) -> Command:
    """Add where the vault is, and how to work."""
    for option in reversed(
        (
            click.option(
                "-r",
                "--remote",
                metavar="NAME|URL",
                shell_complete=completion_values.remotes,
                help="A DVC remote beside which the vault lies, or its URL.",
            ),
            click.option(
                "-j",
                "--jobs",
                metavar="N",
                type=click.IntRange(min=1),
                default=JOBS,
                show_default=True,
                help="Threads.",
            ),
            click.option(
                "--spool",
                type=click.Path(path_type=Path, file_okay=False),
                metavar="DIR",
                help="Where files wait that come from a bucket or go to one.",
            ),
            click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and end."),
        )
    ):
        function = option(function)
    return form_options(function)


@click.command("import", cls=Verb)
@click.argument("source", required=False, shell_complete=completion_values.remotes_or_files)
@_options
@click.option("--no-delta", is_flag=True, help="Store nothing against other versions.")
@scheduler_option
def import_command(
    source: str | None,
    remote: str | None,
    jobs: int,
    spool: Path | None,
    dry_run: bool,
    no_delta: bool,
    scheduler: str | None,
    form: Form,
) -> None:
    """Take a whole DVC remote or cache into the vault.

    SOURCE is the name of a DVC remote, its URL, or a folder: a remote's or a cache. Without it, DVC's default remote.
    Git's history says what was which file before: the newest version of each is stored whole, older ones as
    differences to the next newer one. What the vault has is left out, so that an import that was interrupted goes on.
    SOURCE is not changed. A cluster stores the same; its workers must reach SOURCE and the vault.

    \b
    Examples:
      holdfast vault import
      holdfast vault import --dry-run
      holdfast vault import s3://models/dvc
      holdfast vault import .dvc/cache
      holdfast vault import --scheduler tcp://10.0.0.1:8786
    """
    project = _project(remote)
    with _vault(project, remote, jobs) as vault:
        place = _place(project, source)
        store = place.open()
        with _note(f"Listing {store.url}"):
            plan = plan_import(vault, store)
        if dry_run:
            emit(form, _planned_import(plan, vault.url), list(_would_import(plan, vault.url)))
            return
        with tasks(scheduler, jobs) as executor, bars() as progress:
            if executor.remote:
                folder = cache_folder(project.root if project else Path.cwd()) / IMPORTS / _digest(vault.url, place.url)
                spread = ImportSpread(executor, _address(project, remote), place, folder)
                report = import_elsewhere(
                    vault, plan, project, _spool(spool), spread, delta=not no_delta, progress=progress
                )
            else:
                told = partial(progress, "Importing")
                report = import_files(vault, plan, project, _spool(spool), delta=not no_delta, progress=told)
        url = vault.url
    names = _names(project) if report.damaged or report.failed else {}
    payload = {"format": "holdfast vault import 1", "source": store.url, "vault": url, **asdict(report)}
    emit(form, payload, list(_imported(report, store.url, url, names)))
    if (error := failures_of_import(report)) is not None:
        raise error


@click.command("export", cls=Verb)
@click.argument("target", shell_complete=completion_values.remotes_or_files)
@_options
@click.option(
    "--oids-from",
    type=click.File("r"),
    metavar="FILE",
    help="Only the files that it names, an oid a line; - for stdin.",
)
@click.option("--verify", is_flag=True, help="Read what is there already, and replace what is damaged.")
def export_command(
    target: str,
    remote: str | None,
    jobs: int,
    spool: Path | None,
    dry_run: bool,
    oids_from: Any,
    verify: bool,
    form: Form,
) -> None:
    """Write the files of the vault into a DVC remote or cache.

    TARGET is the name of a DVC remote, its URL, or a folder. Files lie there as DVC has them, each verified: `dvc pull
    -r NAME` finds them. What is there in the right size is left, so that an export that was interrupted goes on. A
    folder's listing is written only where all files in it are there.

    \b
    Examples:
      holdfast vault export storage
      holdfast vault export s3://models/dvc --verify
      holdfast vault export ./copy --oids-from oids.txt
    """
    project = _project(remote)
    oids = None if oids_from is None else [line.strip() for line in oids_from if line.strip()]
    with _vault(project, remote, jobs) as vault:
        store = _place(project, target, new=True).open()
        with _note(f"Listing {store.url}"), bar("Reading what is there") as progress:
            plan = plan_export(vault, store, oids, verify=verify, progress=progress)
        if dry_run:
            emit(form, _planned_export(plan, vault.url), list(_would_export(plan, vault.url)))
            return
        with bar("Exporting") as progress:
            report = export_files(vault, plan, _spool(spool), progress=progress)
        url = vault.url
    names = _names(project) if report.failed or report.withheld else {}
    payload = {"format": "holdfast vault export 1", "vault": url, "target": store.url, **asdict(report)}
    emit(form, payload, list(_exported(report, url, store.url, names)))
    if (error := failures_of_export(report)) is not None:
        raise error


def _project(remote: str | None) -> Project | None:
    """The project around here; None where there is none, and none is needed to find the vault."""
    try:
        return find_project(Path.cwd())
    except NotARepositoryError:
        if remote is not None and is_url(remote):
            return None
        raise


def _vault(project: Project | None, remote: str | None, jobs: int) -> AbstractContextManager[Vault]:
    if project is not None:
        return project_vault(project, remote, jobs=jobs)
    return open_vault(_address(project, remote).open(), cache_folder(Path.cwd()), jobs=jobs)


def _address(project: Project | None, remote: str | None) -> StoreAddress:
    """Where the vault is."""
    assert project is not None or remote is not None
    url = vault_url(project, remote) if project is not None else str(remote)
    return StoreAddress(url, store_options(url))


def _place(project: Project | None, name: str | None, *, new: bool = False) -> StoreAddress:
    """The remote that a name, a URL or a folder stands for.

    Args:
        project: whose remotes are known.
        name: what the user said; None for DVC's default remote.
        new: whether a folder may be made, where its name cannot be meant as a remote's.

    Raises:
        UsageError: it stands for none, or for one that keeps no objects that can be listed.
    """
    sections = remotes(project.root) if project else {}
    if name is None:
        name = default_remote(project.root) if project else None
        if name is None:
            raise UsageError(
                "no SOURCE is named, and DVC has no default remote", hint="`dvc remote list` names remotes"
            )
    if name not in sections:
        folder = Path(name).expanduser()
        if not is_url(name) and not folder.is_dir() and not (new and (os.sep in name or not project)):
            hint = f"To make a folder of that name: ./{name}" if new else "`dvc remote list` names remotes"
            raise UsageError(f"{name} is neither a DVC remote, nor a URL, nor a folder", hint=hint)
        where = name if is_url(name) else str(folder.resolve())
        _check_scheme(name, where, new=new)
        return StoreAddress(where, store_options(where))
    section = sections[name]
    url = str(section.get("url", ""))
    where = url if is_url(url) else str(Path(url).expanduser().resolve())
    _check_scheme(name, where, new=new)
    return StoreAddress(where, from_dvc(section).or_else(from_environment(os.environ)))


def _check_scheme(name: str, url: str, *, new: bool) -> None:
    """See that objects can be listed there: DVC knows kinds of remotes of which that is not so."""
    try:
        locate(url)
    except UsageError as error:
        ways = ("`dvc fetch --all-commits -r NAME`, then `holdfast vault import .dvc/cache`",
                "`holdfast vault export .dvc/cache`, then `dvc push --all-commits -r NAME`")  # fmt: skip
        raise UsageError(f"{name}: {error.message}", hint=f"By way of DVC's cache: {ways[new]}") from error


def _digest(*urls: str) -> str:
    return blake3("\n".join(urls).encode()).hexdigest(length=16)


def _spool(named: Path | None) -> Path:
    return named or cache_folder(Path.cwd()) / SPOOL


def _names(project: Project | None) -> dict[str, str]:
    """A path that git's history knows, by the key of the object."""
    if project is None:
        return {}
    try:
        lineage = read_lineage(project, local_cache(project.root).folder)
    except HoldfastError:  # names are a courtesy
        return {}
    return {key_of(f"{key[0]}:{key[1]}") or "": paths[0] for key, paths in lineage.paths.items()}


def _planned_import(plan: ImportPlan, url: str) -> dict[str, Any]:
    return {
        "format": "holdfast vault import --dry-run 1",
        "source": plan.source.url,
        "vault": url,
        "files": len(plan.new),
        "bytes": sum(map(plan.sizes.__getitem__, plan.new)),
        "known": len(plan.known),
        "known_bytes": sum(map(plan.sizes.__getitem__, plan.known)),
        "ignored": plan.ignored,
    }


def _would_import(plan: ImportPlan, url: str) -> Iterator[str]:
    found = _planned_import(plan, url)
    known = ""
    if plan.known:
        known = f"; {plural(found['known'], 'object')} of {human_bytes(found['known_bytes'])} are there already"
    yield (
        f"Would import {plural(found['files'], 'object')} of {human_bytes(found['bytes'])} from {plan.source.url} into "
        f"{url}{known}."
    )
    yield from _ignored(plan.ignored)


def _imported(report: Imported, source: str, url: str, names: dict[str, str]) -> Iterator[str | Table]:
    done = report.statistics
    known = f"; {plural(report.known, 'object')} were there" if report.known else ""
    if done.files:
        saved = done.raw_bytes - done.stored_bytes
        share = f", {saved / done.raw_bytes:.0%} saved" if saved > 0 else ""
        sizes = f"{human_bytes(done.raw_bytes)} in {human_bytes(done.stored_bytes)}{share}"
        yield f"{plural(done.files, 'object')} imported from {source} into {url}: {sizes}{known}."
    elif report.damaged or report.failed:
        yield f"Nothing was imported from {source}{known}."
    else:
        yield f"Everything of {source} is in {url}: {plural(report.known, 'object')}."
    yield from _ignored(report.ignored)
    yield from _listed("not imported", (*report.damaged, *report.failed), names)


def _planned_export(plan: ExportPlan, url: str) -> dict[str, Any]:
    return {
        "format": "holdfast vault export --dry-run 1",
        "vault": url,
        "target": plan.target.url,
        "files": len(plan.new),
        "bytes": sum(map(plan.sizes.__getitem__, plan.new)),
        "known": len(plan.there),
        "damaged": sorted(key_of(oid) or oid for oid in plan.damaged),
        "failed": sorted((key_of(oid) or oid, reason) for oid, reason in plan.failed.items()),
    }


def _would_export(plan: ExportPlan, url: str) -> Iterator[str | Table]:
    found = _planned_export(plan, url)
    known = f"; {plural(found['known'], 'object')} are there already" if plan.there else ""
    yield (
        f"Would export {plural(found['files'], 'object')} of {human_bytes(found['bytes'])} from {url} to "
        f"{plan.target.url}{known}."
    )
    yield from _listed("damaged there", [(key, "would be replaced") for key in found["damaged"]], {})
    yield from _listed("not to be exported", found["failed"], {})


def _exported(report: Exported, url: str, target: str, names: dict[str, str]) -> Iterator[str | Table]:
    known = f"; {plural(report.known, 'object')} were there" if report.known else ""
    if report.files:
        size = human_bytes(report.bytes)
        yield f"{plural(report.files, 'object')} exported from {url} to {target}: {size}{known}."
    elif report.failed or report.withheld:
        yield f"Nothing was exported to {target}{known}."
    else:
        yield f"Everything is in {target}: {plural(report.known, 'object')}."
    if report.replaced:
        were = "was" if len(report.replaced) == 1 else "were"
        yield f"{plural(len(report.replaced), 'object')} there {were} damaged, and {were} replaced."
    withheld = [(key, f"{plural(count, 'file')} of this folder not there") for key, count in report.withheld]
    yield from _listed("not exported", [*report.failed, *withheld], names)


def _ignored(count: int) -> Iterator[str]:
    if count:
        yield f"Passed over: {plural(count, 'file')} that {'is' if count == 1 else 'are'} none of DVC's objects."


def _listed(title: str, found: Any, names: dict[str, str]) -> Iterator[str | Table]:
    rows = [(names.get(key) or _short(key), _short(key), reason) for key, reason in found[:NAMES_SHOWN]]
    if not rows:
        return
    yield Table((title, "object", "why"), rows, spare=("object",))
    if len(found) > len(rows):
        yield f"… and {len(found) - len(rows):,} more; `--json` lists all."


def _short(key: str) -> str:
    """A key for people: that of a run has 135 characters, of which a few tell it from others."""
    return "/".join(part if len(part) <= KEY_PART_SHOWN else f"{part[:12]}…" for part in key.split("/"))


@contextmanager
def _note(text: str) -> Iterator[None]:
    """The same with words alone."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}", nl=False, err=True)
    try:
        yield
    finally:
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
