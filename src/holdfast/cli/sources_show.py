"""``holdfast sources list`` and ``coverage``."""

from collections.abc import Sequence
from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar, counted
from holdfast.cli.registry_tables import emit_quickly
from holdfast.cli.sources_places import catalogue_here, open_bucket, tracked_paths
from holdfast.data.catalogue import FIELDS, Source
from holdfast.errors import UsageError


@click.command("list", cls=Verb)
@click.argument("names", nargs=-1, metavar="[DOMAIN|NAME...]", shell_complete=completion_values.sources)
@click.option(
    "-d",
    "--domain",
    "domains",
    metavar="DOMAIN",
    multiple=True,
    shell_complete=completion_values.domains,
    help="Of this domain.",
)
@click.option("--licence", "--license", "licences", metavar="TEXT", multiple=True, help="With this licence.")
@click.option(
    "--missing",
    metavar="FIELD",
    multiple=True,
    type=click.Choice([name for name in FIELDS if name != "name"]),
    help="That do not say this field; of several, any.",
)
@form_options
def list_(
    names: tuple[str, ...],
    domains: tuple[str, ...],
    licences: tuple[str, ...],
    missing: tuple[str, ...],
    form: Form,
) -> None:
    """List the sources: all, or those of a domain, with a licence, without a field.

    \b
    Examples:
      holdfast sources list climate
      holdfast sources list --missing licence --missing checksum
      holdfast sources list --license CC-BY-4.0 --json
    """
    catalogue = catalogue_here()
    unknown = [domain for domain in domains if domain not in catalogue.domains]
    if unknown:
        raise UsageError(f"there is no domain {unknown[0]}", hint=f"Domains: {', '.join(catalogue.domains) or 'none'}")
    wanted = {licence.casefold() for licence in licences}
    found = [
        source
        for source in catalogue.select(names)
        if (not domains or source.domain in domains)
        and (not wanted or source.licence.casefold() in wanted)
        and (not missing or any(source.lacks(field) for field in missing))
    ]
    payload = {"format": "holdfast sources list 1", "sources": [source.as_json() for source in found]}
    if len(found) == len(catalogue.sources):
        sentence = f"{plural(len(found), 'source')} in {plural(len(catalogue.domains), 'domain')}."
    else:
        sentence = f"{len(found):,} of {plural(len(catalogue.sources), 'source')}."
    emit_quickly(form, payload, [sentence, _table(found)] if found else [sentence])


def _table(sources: Sequence[Source]) -> Table:
    rows = [
        (
            source.domain,
            source.name,
            source.version,
            source.licence,
            source.updates,
            source.prefix and f"{source.prefix}/",
            "" if source.size is None else human_bytes(source.size),
            source.url or source.origin,
        )
        for source in sources
    ]
    columns = ("domain", "name", "version", "licence", "updates", "prefix", "size", "from")
    return Table(columns, rows, right=frozenset({"size"}), spare=("from", "updates", "licence", "version"))


@click.command("coverage", cls=Verb)
@click.option("--remote", is_flag=True, help="Look into the bucket, too: how many are there, and how large.")
@click.option("--bucket", metavar="URL", help="Look into this bucket instead of the catalogue's.")
@click.option("--plot", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Draw it, too, as a PNG.")
@click.option("-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=8, show_default=True, help="Requests.")
@form_options
def coverage(remote: bool, bucket: str | None, plot: Path | None, jobs: int, form: Form) -> None:
    """Show how much of each domain is told, tracked by DVC and, with --remote, there.

    A checksum that DVC has written down counts as one. Without --remote the size is what entries and DVC say.

    \b
    Examples:
      holdfast sources coverage --md
      holdfast sources coverage --remote --plot coverage.png
    """
    # imported here: `list` needs neither
    from holdfast.data.sources_coverage import cover, draw_coverage, share_text, total
    from holdfast.data.sources_survey import survey

    if bucket and not remote:
        raise UsageError("--bucket goes with --remote")
    catalogue = catalogue_here()
    found = None
    if remote:
        with bar("Listing", counted) as progress:
            found = survey(
                open_bucket(catalogue, bucket), catalogue, jobs=jobs, progress=lambda count: progress(count, 0)
            )
    parts = cover(catalogue, tracked_paths(catalogue), found)
    if plot is not None and parts:
        draw_coverage(plot, parts)
    aspects = list(parts[0].counts) if parts else []
    payload = {
        "format": "holdfast sources coverage 1",
        "domains": [
            {"domain": part.domain, "sources": part.sources, "counts": dict(part.counts), "size": part.size}
            for part in parts
        ],
    }
    shown = [*parts, total(parts)] if len(parts) > 1 else parts
    rows = [
        (part.domain, f"{part.sources:,}", *(share_text(part, name) for name in aspects), human_bytes(part.size))
        for part in shown
    ]
    columns = ("domain", "sources", *aspects, "size")
    # what is there and how much comes first where there is little room
    spare = ("updates", "version", "url", "licence", "checksum")
    sentence = f"{plural(len(catalogue.sources), 'source')} in {plural(len(catalogue.domains), 'domain')}."
    blocks: list[str | Table] = [sentence]
    if parts:
        blocks.append(Table(columns, rows, right=frozenset(columns[1:]), spare=spare))
    if plot is not None:
        blocks.append(f"Drawn: {plot}." if parts else "Nothing to draw: there is no domain yet.")
    emit(form, payload, blocks)
