"""``holdfast sources pull``."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar
from holdfast.cli.sources_places import catalogue_here, open_bucket, project_of, tracked_paths
from holdfast.data.catalogue import Catalogue, Source
from holdfast.data.catalogue_writing import Change, changing, open_catalogue, write_changes
from holdfast.data.sources_pull import JOBS, Pulled, pull_source
from holdfast.data.sources_verification import Tracked, expected_checksum
from holdfast.errors import HoldfastError, IntegrityError, PartlyDoneError, UsageError

DATA = "data"


@click.command("pull", cls=Verb)
@click.argument("names", nargs=-1, required=True, metavar="DOMAIN|NAME...", shell_complete=completion_values.sources)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where prefixes go (default: data/ beside the catalogue).",
)
@click.option("--bucket", metavar="URL", help="Take them from this bucket instead of the catalogue's.")
@click.option("--from-bucket", is_flag=True, help="Take what DVC tracks from the bucket, too, at its prefix.")
@click.option("--record", is_flag=True, help="Write checksum, size and number of files into entries that lack them.")
@click.option("-f", "--force", is_flag=True, help="Fetch what is here, too; overwrite what DVC does not know.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would come from where.")
@click.option(
    "-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=JOBS, show_default=True, help="Requests."
)
@form_options
def pull(
    names: tuple[str, ...],
    output: Path | None,
    bucket: str | None,
    from_bucket: bool,
    record: bool,
    force: bool,
    dry_run: bool,
    jobs: int,
    form: Form,
) -> None:
    """Bring the sources of a domain, or some by name, to this machine; each is verified.

    What DVC tracks comes through it, from the cache, the vault or a remote, to its path. All else comes from the bucket
    to data/PREFIX: what is there already is kept, and what an interrupted pull began is gone on with.

    A source without a checksum is told as not verified. Ends with 3 where some could not be brought.

    \b
    Examples:
      holdfast sources pull climate
      holdfast sources pull era5 astronomy/jwst --record
    """
    catalogue = catalogue_here()
    chosen = catalogue.select(names)
    tracked = tracked_paths(catalogue)
    through_dvc = [] if from_bucket else [source for source in chosen if source.dvc in tracked]
    others = [source for source in chosen if source not in through_dvc]
    folder = output if output is not None else catalogue.root / DATA
    if dry_run:
        _tell_plan(form, through_dvc, others, folder)
        return
    done: list[Pulled] = []
    failed: list[tuple[Source, HoldfastError]] = []
    _pull_tracked(catalogue, through_dvc, tracked, done, failed, force=force)
    if any(source.prefix for source in others):
        store = open_bucket(catalogue, bucket)
    for source in others:
        try:
            if not source.prefix:
                hint = f"`holdfast sources add {source.id} --update --prefix …` maps it"
                raise UsageError(f"{source.id} has neither a prefix nor a path that DVC tracks", hint=hint)
            with bar(source.id) as progress:
                done.append(
                    pull_source(
                        store,
                        source,
                        folder / source.prefix,
                        expected_checksum(source, tracked),
                        force=force,
                        jobs=jobs,
                        progress=progress,
                    )
                )
        except HoldfastError as error:
            failed.append((source, error))
    recorded = _record(catalogue, done) if record else []
    payload: dict[str, Any] = {
        "format": "holdfast sources pull 1",
        "pulled": [asdict(one) for one in done],
        "failed": [{"source": source.id, "error": str(error)} for source, error in failed],
        "recorded": recorded,
    }
    emit(form, payload, _blocks(done, failed, recorded))
    _raise(failed, bool(done))


def _pull_tracked(
    catalogue: Catalogue,
    sources: Sequence[Source],
    tracked: dict[str, Tracked],
    done: list[Pulled],
    failed: list[tuple[Source, HoldfastError]],
    *,
    force: bool,
) -> None:
    project = project_of(catalogue) if sources else None
    if project is None:
        return
    # imported here: DVC takes half a second, and what comes from the bucket does without
    from holdfast.cli.registry_places import stores_of_project
    from holdfast.repo.dvc import Selection, checkout

    stores = stores_of_project(project)
    brought: list[tuple[Source, str]] = []
    try:
        for source in sources:
            out = tracked[source.dvc]
            try:
                if out.oid is None:
                    hint = f"`dvc pull {source.dvc}` brings it"
                    raise UsageError(f"{source.id}: DVC has no md5 of {source.dvc}, or one of version 2", hint=hint)
                brought.append((source, stores.bring(out.oid, source.id)))
            except HoldfastError as error:
                failed.append((source, error))
    finally:
        stores.close()
    # all at once, since DVC takes half a second to begin; where that fails one by one, to know which
    groups = [brought] if brought else []
    while groups:
        group = groups.pop(0)
        paths = [str(catalogue.root / source.dvc) for source, _ in group]
        try:
            checkout(project.root, Selection(targets=paths), force=force)
        except HoldfastError as error:
            if len(group) == 1:
                failed.append((group[0][0], error))
            else:
                groups += [[one] for one in group]
            continue
        done += [_checked_out(catalogue, source, place, tracked[source.dvc]) for source, place in group]


def _checked_out(catalogue: Catalogue, source: Source, place: str, out: Tracked) -> Pulled:
    path = catalogue.root / source.dvc
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    size = sum(one.stat().st_size for one in files)
    checksum = f"md5:{out.oid}" if out.whole else ""
    return Pulled(source.id, str(path), len(files), size, 0 if place == "cache" else size, checksum, True)


def _record(catalogue: Catalogue, done: Sequence[Pulled]) -> list[str]:
    """Write down what was found, in entries that do not say it; their names."""
    by_id = {one.source: one for one in done if one.checksum}
    with changing(catalogue.root):
        now = open_catalogue(catalogue.root)
        changes = []
        for source in now.sources:
            found = by_id.get(source.id)
            if found is None:
                continue
            after = replace(
                source,
                checksum=source.checksum or found.checksum,
                size=found.size if source.size is None else source.size,
                files=found.files if source.files is None else source.files,
            )
            if after != source:
                changes.append(Change(after, source))
        if changes:
            write_changes(now, changes)
    return [change.source.id for change in changes]


def _tell_plan(form: Form, tracked: Sequence[Source], others: Sequence[Source], folder: Path) -> None:
    rows = [(source.id, "DVC", source.dvc, _size(source)) for source in tracked]
    rows += [
        (
            source.id,
            "bucket" if source.prefix else "nowhere",
            _shown(str(folder / source.prefix)) if source.prefix else "",
            _size(source),
        )
        for source in others
    ]
    payload = {
        "format": "holdfast sources pull plan 1",
        "sources": [{"source": row[0], "from": row[1], "path": row[2]} for row in rows],
    }
    sentence = f"{plural(len(rows), 'source')} would be brought."
    emit(form, payload, [sentence, Table(("source", "from", "to", "size"), rows, right=frozenset({"size"}))])


def _size(source: Source) -> str:
    return "" if source.size is None else human_bytes(source.size)


def _blocks(
    done: Sequence[Pulled], failed: Sequence[tuple[Source, HoldfastError]], recorded: Sequence[str]
) -> list[str | Table]:
    received = sum(one.received for one in done)
    whole = human_bytes(sum(one.size for one in done))
    blocks: list[str | Table] = [
        f"{plural(len(done), 'source')} here, {whole}, of which {human_bytes(received)} came now."
    ]
    if done:
        rows = [
            (
                one.source,
                _shown(one.folder),
                f"{one.files:,}",
                human_bytes(one.size),
                human_bytes(one.received),
                _verified(one),
            )
            for one in done
        ]
        columns = ("source", "where", "files", "size", "came now", "verified")
        blocks.append(Table(columns, rows, right=frozenset({"files", "size", "came now"}), spare=("files", "came now")))
    if any(not one.verified for one in done) and not recorded:
        blocks.append(
            "Nothing vouches for sources without a checksum: --record writes down the one that they have now."
        )
    if recorded:
        blocks.append(f"Recorded in {plural(len(recorded), 'entry', 'entries')}: {', '.join(recorded[:10])}.")
    if failed:
        faults = [(source.id, error.message, error.hint or "") for source, error in failed]
        blocks.append(Table(("not brought", "why", "what helps"), faults, spare=("what helps",)))
    return blocks


def _shown(folder: str) -> str:
    """A path as one writes it here."""
    here, path = Path.cwd(), Path(folder)
    return str(path.relative_to(here)) if path.is_relative_to(here) else folder


def _verified(one: Pulled) -> str:
    return "yes" if one.verified else "no checksum"


def _raise(failed: Sequence[tuple[Source, HoldfastError]], some: bool) -> None:
    if not failed:
        return
    first = failed[0][1]
    damaged = next((error for _, error in failed if isinstance(error, IntegrityError)), None)
    if damaged is not None:
        raise damaged
    if not some and len(failed) == 1:
        raise first
    more = f", and {plural(len(failed) - 1, 'other source')}" if len(failed) > 1 else ""
    told = f"{first.message}{more}: not brought"
    if some:
        raise PartlyDoneError(told, hint=first.hint)
    raise HoldfastError(told, hint=first.hint)
