"""``holdfast scan``: which model files there are."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.caches import cache_folder, digest_cache, reference_memory
from holdfast.cli.groups import Verb
from holdfast.cli.naming import store_options
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, one_line, plural
from holdfast.cli.progress import bar, counted
from holdfast.cli.schedulers import scheduler_option, tasks
from holdfast.errors import NotARepositoryError, UsageError
from holdfast.executor.executor import Executor
from holdfast.executor.local import LocalExecutor
from holdfast.inventory.models import ModelFamily, ModelFile, SameFiles, ScanReport
from holdfast.inventory.scan import ScanRules, read_scan_rules, scan_tree
from holdfast.inventory.scan_judge import Registered
from holdfast.inventory.scan_objects import PARTS, StoreScan, scan_store
from holdfast.inventory.scan_status import STATUSES
from holdfast.inventory.scan_table import csv_of, write_parquet
from holdfast.objectstore.address import StoreAddress
from holdfast.objectstore.location import is_url
from holdfast.registry.store import Registry
from holdfast.repo.workspace import find_git_root, find_project

FAMILIES_SHOWN = 20
FILES_SHOWN = 40
GROUPS_SHOWN = 10
PATHS_SHOWN = 4
NOTES_SHOWN = 5
# what nobody works with is counted, and listed when it is asked for
UNLISTED = ("backup", "cache")
PROGRESS_FROM_BYTES = 500_000_000


@click.command(cls=Verb)
@click.argument("path", default=".", shell_complete=completion_values.paths)
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out what fits, as in .gitignore; repeatable.")
@click.option("--only", metavar="STATUS", type=click.Choice(STATUSES), help="List the files of one status.")
@click.option("--all", "everything", is_flag=True, help="List every file, family and group.")
@click.option(
    "--digest/--no-digest",
    "weights",
    default=None,
    help="Whether to read all weights: those of a folder, not of a bucket.",
)
@click.option("--csv", "form", flag_value="csv", help="Print a row for each file as CSV.")
@click.option(
    "--parquet",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write tables for `query` to DIR; or FILE.parquet.",
)
@scheduler_option
@form_options
def command(
    path: str,
    exclude: tuple[str, ...],
    only: str | None,
    everything: bool,
    weights: bool | None,
    parquet: Path | None,
    scheduler: str | None,
    form: str,
) -> None:
    """List the model files of a tree, what they are and who uses them.

    PATH is a folder, the current one unless given, or a bucket or folder in one: s3://bucket/folder. Changes nothing.
    A scheduler's workers read the objects of a bucket; the report is the same.

    A file is *registered* where the registry has it; *primary* where scripts refer to it, *secondary* where they refer
    more to another family with the same members; *unreferenced*; a *backup*; or in a tool's *cache*. The second look
    reads only what has changed.

    \b
    Examples:
      holdfast scan
      holdfast scan models --only unreferenced
      holdfast scan s3://models/checkpoints --parquet inventory
    """
    tables = parquet if parquet is not None and parquet.suffix != ".parquet" else None
    if tables is not None:
        # imported here and below: runs and what reads them, which only tables take
        from holdfast.inventory.tables import check_tables

        check_tables(tables)
    if is_url(path):
        report = _scan_bucket(path, exclude, weights=bool(weights), scheduler=scheduler, tables=tables)
    else:
        report = _scan_folder(Path(path), exclude, weights=weights is not False, tables=tables)
    if parquet is not None and tables is None:
        write_parquet(report, parquet)
    if form == "csv":
        click.echo(csv_of(report), nl=False)
    elif form == "json":
        emit("json", report.to_json(), [])
    else:
        shown: Form = "md" if form == "md" else "text"
        emit(shown, {}, list(_blocks(report, only, everything)))


def scan_project(path: Path, exclude: Iterable[str] = (), *, weights: bool = True) -> ScanReport:
    """The inventory of the models below ``path``, used from anywhere in the git repository around it."""
    rules = read_scan_rules(path)
    rules = ScanRules((*rules.exclude, *exclude), rules.backup)
    if not path.is_dir():
        raise UsageError(f"{path} is no folder", hint="Name a folder that is there")
    root = find_git_root(path) or path.resolve()
    within = path.resolve().relative_to(root).as_posix()
    memory = reference_memory(path)
    try:
        with digest_cache(path) as cache, bar("Reading weights", least=PROGRESS_FROM_BYTES) as progress:
            return scan_tree(
                root,
                cache,
                within="" if within == "." else within,
                rules=rules,
                registered=registered_versions(path),
                memory=memory,
                weights=weights,
                progress=progress,
            )
    finally:
        memory.close()


def _scan_folder(path: Path, exclude: Iterable[str], *, weights: bool, tables: Path | None) -> ScanReport:
    report = scan_project(path, exclude, weights=weights)
    if tables is not None:
        from holdfast.inventory.table_runs import find_runs
        from holdfast.inventory.table_tensors import tensors_of_files
        from holdfast.inventory.tables import write_tables

        labels = [model.path for model in report.models if model.link is None]
        with digest_cache(path) as cache:
            # one after the other: a digest takes all cores by itself
            tensors = tensors_of_files(Path(report.root), labels, cache, digests=weights, executor=LocalExecutor(1))
            write_tables(tables, report, tensors, runs=find_runs(path.resolve(), datetime.now(timezone.utc)))
    return report


def _scan_bucket(
    url: str, exclude: Iterable[str], *, weights: bool, scheduler: str | None, tables: Path | None
) -> ScanReport:
    with tasks(scheduler, PARTS) as executor:
        scan = scan_bucket(url, executor, exclude, weights=weights)
        if tables is not None:
            from holdfast.inventory.table_tensors import tensors_of_objects
            from holdfast.inventory.tables import write_tables

            write_tables(tables, scan.report, tensors_of_objects(scan.shards, executor), etags=scan.etags)
    return scan.report


def scan_bucket(url: str, executor: Executor, exclude: Iterable[str] = (), *, weights: bool = False) -> StoreScan:
    """The inventory of the models in a bucket, used by the scripts of the git repository around the current folder."""
    here = Path.cwd()
    memory = reference_memory(here)
    label, shown = ("Reading weights", human_bytes) if weights else ("Reading headers", counted)
    try:
        with bar(label, shown) as progress:
            return scan_store(
                StoreAddress(url, store_options(url)),
                executor,
                cache_folder(here).with_name("scans"),
                excludes=tuple(exclude),
                registered=registered_versions(here),
                project=find_git_root(here),
                memory=memory,
                weights=weights,
                progress=progress,
            )
    finally:
        memory.close()


def registered_versions(folder: Path) -> list[Registered]:
    """The versions of the registry of the project around a folder; none outside of a project."""
    try:
        root = find_project(folder).root
    except NotARepositoryError:
        return []
    return [
        Registered(f"{model.id}@{version.name}", version.oid, version.weights)
        for model in Registry(root).models()
        for version in model.versions
    ]


def _blocks(report: ScanReport, only: str | None, everything: bool) -> Iterator[str | Table]:
    models = [model for model in report.models if only in (None, model.status)]
    if only is None and not everything:
        models = [model for model in models if model.status not in UNLISTED]
    yield _sentence(report)
    if not report.models:
        return
    if only is None:
        yield from _families(report.families, everything)
    yield from _files(models, everything)
    if only is None:
        yield from _groups("Equal bytes", report.duplicates, everything)
        yield from _groups("Equal weights in other files", report.same_weights, everything)
    notes = report.notes if everything else report.notes[:NOTES_SHOWN]
    yield from (f"Note: {note}." for note in notes)
    if len(report.notes) > len(notes):
        yield f"… and {plural(len(report.notes) - len(notes), 'note')} more; `--all` lists all."


def _sentence(report: ScanReport) -> str:
    looked = plural(report.looked, "object" if is_url(report.root) else "file")
    if not report.models:
        return f"No model files among {looked}."
    several = sum(family.files > 1 for family in report.families)
    families = f" in {plural(several, 'family', 'families')}" if several else ""
    size = human_bytes(sum(model.size for model in report.models if model.link is None))
    counts = ", ".join(f"{len(found)} {status}" for status in STATUSES if (found := report.of(status)))
    return f"{plural(len(report.models), 'model file')}{families}, {size}, among {looked}: {counts}."


def _families(families: tuple[ModelFamily, ...], everything: bool) -> Iterator[str | Table]:
    several = [family for family in families if family.files > 1]
    if not several:
        return
    shown = several if everything else several[:FAMILIES_SHOWN]
    rows = [
        (
            one_line(family.name),
            str(family.files),
            human_bytes(family.bytes),
            ", ".join(f"{count} {status}" for status, count in family.statuses.items()),
            str(family.used.references),
            str(family.used.scripts),
        )
        for family in shown
    ]
    columns = ("family", "files", "size", "status", "references", "scripts")
    yield Table(columns, rows, right=frozenset({"files", "size", "references", "scripts"}), spare=("status",))
    if len(several) > len(shown):
        yield f"… and {plural(len(several) - len(shown), 'smaller family', 'smaller families')}; `--all` lists all."


def _files(models: list[ModelFile], everything: bool) -> Iterator[str | Table]:
    if not models:
        return
    shown = models if everything else models[:FILES_SHOWN]
    rows = [
        (
            one_line(model.path if model.link is None else f"{model.path} → {model.link}"),
            model.status,
            human_bytes(model.size),
            model.format,
            f"{model.parameters:,}" if model.parameters is not None else "",
            str(model.used.references),
            model.tracked,
            " ".join(model.versions),
        )
        for model in shown
    ]
    columns = ("file", "status", "size", "format", "parameters", "references", "tracked", "versions")
    if not any(model.versions for model in shown):
        columns, rows = columns[:-1], [row[:-1] for row in rows]  # type: ignore[assignment, misc]
    spare = ("format", "parameters", "tracked", "references")
    yield Table(columns, rows, right=frozenset({"size", "parameters", "references"}), spare=spare)
    if len(models) > len(shown):
        yield f"… and {plural(len(models) - len(shown), 'file')} more; `--all` lists all."


def _groups(title: str, groups: tuple[SameFiles, ...], everything: bool) -> Iterator[str | Table]:
    if not groups:
        return
    shown = groups if everything else groups[:GROUPS_SHOWN]
    rows = []
    for group in shown:
        paths = group.paths if everything else group.paths[:PATHS_SHOWN]
        more = [f"… {len(group.paths) - len(paths)} more"] if len(group.paths) > len(paths) else []
        rows.append((str(len(group.paths)), human_bytes(group.size), "\n".join([*map(one_line, paths), *more])))
    yield Table(("files", "size", "where"), rows, title=title, right=frozenset({"files", "size"}))
    if len(groups) > len(shown):
        yield f"… and {plural(len(groups) - len(shown), 'smaller group')}; `--all` lists all."
