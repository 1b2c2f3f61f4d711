"""``holdfast sources add`` and ``schema``."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, emit, form_options
from holdfast.data.catalogue import Catalogue, Source, find_catalogue, project_top
from holdfast.data.catalogue_import import make_source
from holdfast.data.catalogue_schema import DOMAIN_SCHEMA, INDEX_SCHEMA, UPDATES
from holdfast.data.catalogue_writing import Change, changing, entry_text, open_catalogue, write_changes
from holdfast.data.sources_verification import verify
from holdfast.errors import UsageError

SCHEMAS = {"domain": DOMAIN_SCHEMA, "index": INDEX_SCHEMA}


@click.command("schema", cls=Verb)
@click.argument("file", type=click.Choice(list(SCHEMAS)), default="domain")
def schema(file: str) -> None:
    """Print the JSON Schema of a domain's file (the default), or of the index.

    Editors complete and check by it: a first line `# yaml-language-server: $schema=…` names the file with it.

    \b
    Examples:
      holdfast sources schema > sources.schema.json
      holdfast sources schema index
    """
    click.echo(json.dumps(SCHEMAS[file], indent=2, ensure_ascii=False))


@click.command("add", cls=Verb)
@click.argument("name", metavar="NAME|DOMAIN/NAME", shell_complete=completion_values.sources)
@click.option(
    "-d", "--domain", metavar="DOMAIN", shell_complete=completion_values.domains, help="The domain that it belongs to."
)
@click.option("--title", metavar="TEXT", help="What people call it.")
@click.option("--url", metavar="URL", help="Where it was published; doi:… too.")
@click.option("--origin", metavar="TEXT", help="Where it comes from, where there is no URL.")
@click.option("--licence", "--license", metavar="ID", help="An SPDX identifier such as CC-BY-4.0, or words.")
@click.option("--version", metavar="TEXT", help="Its publisher's version.")
@click.option(
    "--updates", metavar="RHYTHM", type=click.Choice(UPDATES), help=f"How often it changes: {', '.join(UPDATES)}."
)
@click.option("--prefix", metavar="FOLDER", help="Its folder in the bucket, such as climate/era5/.")
@click.option("--dvc", metavar="PATH", help="The path that DVC tracks it at, from the catalogue's folder.")
@click.option("--checksum", metavar="HASH", help="md5:…, md5:….dir, sha256:… or blake3:….")
@click.option("--size", metavar="BYTES", type=click.IntRange(min=0), help="Bytes in all.")
@click.option("--files", metavar="N", type=click.IntRange(min=0), help="How many files.")
@click.option("--annotate", metavar="KEY=VALUE", multiple=True, help="An annotation; may be given several times.")
@click.option("--bucket", metavar="URL", help="The bucket that a new catalogue is of.")
@click.option("--update", is_flag=True, help="Change the entry that is there; what is not named stays.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the entry, and write nothing.")
@form_options
def add(
    name: str,
    domain: str | None,
    annotate: tuple[str, ...],
    bucket: str | None,
    update: bool,
    dry_run: bool,
    form: Form,
    **given: Any,
) -> None:
    """Add a source to the catalogue, or change it with --update.

    The entry goes where its name belongs in sources/DOMAIN.yaml; all other lines stay as they are. The first one makes
    the catalogue, at the top of the repository.

    \b
    Examples:
      holdfast sources add climate/gpcp --url https://gpcp.umd.edu \\
        --licence CC-BY-4.0 --version 3.2 --updates monthly --prefix climate/gpcp/
      holdfast sources add climate/era5 --update --version 5.1
    """
    values = {key: value for key, value in given.items() if value is not None}
    if annotate:
        values["annotations"] = _annotations(annotate)
    root = find_catalogue(Path.cwd()) or project_top(Path.cwd())
    if "/" in name:
        named, _, name = name.partition("/")
        if domain not in (None, named):
            raise UsageError(f"{named}/{name} is not of the domain {domain}", hint="Leave --domain out")
        domain = named
    wanted = make_source({"name": name, **values}, domain or _domain_of(root, name), f"sources add {name}")
    if dry_run:
        catalogue = open_catalogue(root, bucket or "")
        change = _change(catalogue, wanted, update=update)
        written: list[str] = []
    else:
        with changing(root):
            catalogue = open_catalogue(root, bucket or "")
            change = _change(catalogue, wanted, update=update)
            same = change.before == change.source
            written = [] if same else write_changes(catalogue, [change], bucket=bucket or "")
    payload = {
        "format": "holdfast sources add 1",
        "source": {**change.source.as_json(), "line": None},
        "new": change.before is None,
        "written": written,
    }
    emit(form, payload, _blocks(catalogue, change, written, dry_run=dry_run))


def _domain_of(root: Path, name: str) -> str:
    """The domain of the one source of that name."""
    found = [source for source in open_catalogue(root).sources if source.name.casefold() == name.casefold()]
    if len(found) != 1:
        raise UsageError(f"the domain of {name} is not said", hint=f"Write DOMAIN/{name}, or --domain DOMAIN")
    return found[0].domain


def _annotations(pairs: tuple[str, ...]) -> dict[str, str]:
    result = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"{pair!r} is no annotation", hint="Write --annotate KEY=VALUE")
        result[key] = value
    return result


def _change(catalogue: Catalogue, wanted: Source, *, update: bool) -> Change:
    before = next((source for source in catalogue.sources if source.id.casefold() == wanted.id.casefold()), None)
    if before is None:
        if update:
            hint = f"`holdfast sources list --domain {wanted.domain}` names what there is"
            raise UsageError(f"there is no source {wanted.id} to change", hint=hint)
        return Change(wanted)
    if not update:
        raise UsageError(f"{before.id} is there already ({catalogue.place(before)})", hint="Change it with --update")
    changed: dict[str, Any] = {key: value for key, value in wanted.fields().items() if key != "name"}
    if "prefix" in changed:
        changed["prefix"] = wanted.prefix
    if isinstance(changed.get("annotations"), Mapping):
        changed["annotations"] = {**before.annotations, **changed["annotations"]}
    return Change(replace(before, **changed), before)


def _blocks(catalogue: Catalogue, change: Change, written: list[str], *, dry_run: bool) -> list[str]:
    source = change.source
    if change.before == source:
        return [f"{source.id} says that already."]
    verb = "added" if change.before is None else "changed"
    first = f"{source.id} would be {verb}:" if dry_run else f"{source.id} {verb} in {written[0]}:"
    # told at once what `verify` would say of it
    others = tuple(other for other in catalogue.sources if other is not change.before)
    domains = catalogue.domains if source.domain in catalogue.domains else (*catalogue.domains, source.domain)
    after = replace(catalogue, domains=domains, sources=(*others, replace(source, line=0, lines={})))
    notes = [f"Note: {finding.fault}." for finding in verify(after, only=[source]) if finding.source == source.id]
    return [first, entry_text(source).rstrip(), *notes]
