"""``holdfast sources import``."""

from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, plural
from holdfast.cli.progress import bar, counted
from holdfast.cli.sources_places import bucket_url
from holdfast.data.catalogue import Catalogue, Source, find_catalogue, project_top
from holdfast.data.catalogue_import import Merged, merge, read_bucket, read_table
from holdfast.data.catalogue_writing import changing, open_catalogue, write_changes
from holdfast.errors import UsageError
from holdfast.objectstore.location import Location, is_url, locate

NAMES_SHOWN = 10


@click.command("import", cls=Verb)
@click.argument("origin", metavar="FILE|URL", shell_complete=completion_values.paths)
@click.option(
    "-d",
    "--domain",
    metavar="DOMAIN",
    shell_complete=completion_values.domains,
    help="The domain of what does not say its own.",
)
@click.option("--update", is_flag=True, help="Change entries that say something else; what is not told stays.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@click.option("-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=8, show_default=True, help="Requests.")
@form_options
def import_(origin: str, domain: str | None, update: bool, dry_run: bool, jobs: int, form: Form) -> None:
    """Add the sources of a CSV or JSON file, or of a bucket.

    CSV: the first line names the columns, as the fields are called; other columns become annotations.

    JSON: a list of objects, or one for each domain; what `holdfast sources list --json` prints, too.

    A bucket, or a folder's path with a slash at its end: a source for each folder DOMAIN/NAME/, with what lies there as
    its size; with --domain, for each folder right below the URL.

    Sources that are there already stay as they are without --update.

    \b
    Examples:
      holdfast sources import sources.csv --domain climate
      holdfast sources import s3://models/sources -n
      holdfast sources import s3://models/sources/climate/ --domain climate
    """
    root = find_catalogue(Path.cwd()) or project_top(Path.cwd())
    of_bucket = is_url(origin) or origin.endswith("/")
    if dry_run:
        catalogue = open_catalogue(root)
        sources, bucket = _read(catalogue, origin, domain, jobs) if of_bucket else (_table(origin, domain), "")
        merged = merge(catalogue, sources, update=update, by_prefix=of_bucket)
        written: list[str] = []
    else:
        # a bucket takes long to list, and nobody else need wait for it
        before = open_catalogue(root)
        sources, bucket = _read(before, origin, domain, jobs) if of_bucket else (_table(origin, domain), "")
        with changing(root):
            catalogue = open_catalogue(root)
            merged = merge(catalogue, sources, update=update, by_prefix=of_bucket)
            written = write_changes(catalogue, merged.changes, bucket=bucket) if merged.changes else []
    payload = {
        "format": "holdfast sources import 1",
        "added": [source.id for source in merged.added],
        "updated": [source.id for source in merged.updated],
        "unchanged": len(merged.unchanged),
        "kept": [source.id for source in merged.kept],
        "written": written,
    }
    emit(form, payload, _blocks(merged, written, dry_run=dry_run))


def _table(origin: str, domain: str | None) -> list[Source]:
    path = Path(origin)
    if not path.is_file():
        hint = "Name a .csv or .json file, a bucket's URL, or a folder with a slash at its end"
        raise UsageError(f"{origin} is no file", hint=hint)
    return read_table(path, domain or "")


def _read(catalogue: Catalogue, url: str, domain: str | None, jobs: int) -> tuple[list[Source], str]:
    """The sources of a bucket, and the URL of the bucket for a catalogue that names none."""
    from holdfast.cli.naming import open_objects  # imported here: tables need no bucket

    named = bucket_url(catalogue)
    top, below = (named, _below(named, url)) if named else (_named(url), "")
    with bar("Listing", counted) as progress:
        sources = read_bucket(
            open_objects(top),
            below,
            catalogue.ignored,
            domain or "",
            jobs=jobs,
            progress=lambda count: progress(count, 0),
        )
    return sources, _as_written(catalogue.root.resolve(), top)


def _named(url: str) -> str:
    location = locate(url)
    return location.path if location.scheme == "file" else url.rstrip("/")


def _as_written(root: Path, top: str) -> str:
    """The bucket as the index names it: a folder beside it moves with it."""
    path = Path(top)
    return path.relative_to(root).as_posix() if not is_url(top) and path.is_relative_to(root) else top


def _below(top: str, url: str) -> str:
    """The folder of a URL as seen from the catalogue's bucket."""
    bucket, place = locate(top), locate(url)
    if _server(bucket) != _server(place) or not f"{place.path}/".startswith(f"{bucket.path}/" if bucket.path else ""):
        hint = f"The catalogue's prefixes are seen from {top}: `bucket:` in sources.yaml names it"
        raise UsageError(f"{url} is not in the catalogue's bucket", hint=hint)
    return place.path.removeprefix(bucket.path).strip("/")


def _server(location: Location) -> tuple[str, str, str | None]:
    return location.scheme, location.bucket, location.endpoint


def _blocks(merged: Merged, written: list[str], *, dry_run: bool) -> list[str | Table]:
    would = "would be " if dry_run else ""
    sentence = f"{plural(len(merged.added), 'source')} {would}added, {len(merged.updated):,} {would}changed, "
    sentence += f"{len(merged.unchanged):,} there already"
    if merged.kept:
        names = ", ".join(source.id for source in merged.kept[:NAMES_SHOWN])
        more = " …" if len(merged.kept) > NAMES_SHOWN else ""
        sentence += f", {len(merged.kept):,} left as they are though they say something else ({names}{more}; --update"
        sentence += " changes them)"
    blocks: list[str | Table] = [f"{sentence}."]
    by_domain: dict[str, list[int]] = {}
    for column, sources in enumerate((merged.added, merged.updated)):
        for source in sources:
            by_domain.setdefault(source.domain, [0, 0])[column] += 1
    if by_domain:
        rows = [(domain, f"{new:,}", f"{changed:,}") for domain, (new, changed) in sorted(by_domain.items())]
        blocks.append(Table(("domain", "added", "changed"), rows, right=frozenset({"added", "changed"})))
    if written:
        blocks.append(f"Written: {', '.join(written)}. `holdfast sources verify` says what is missing.")
    return blocks
