"""``holdfast dedup``: what is stored twice."""

from pathlib import Path

import click

from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.dedup.duplicates import MIN_SIZE_BYTES, DuplicateGroup, DuplicateReport, find_duplicates
from holdfast.errors import NotARepositoryError
from holdfast.repo.workspace import Project, find_project

GROUPS_SHOWN = 30
PATHS_SHOWN = 4
NOTES_SHOWN = 5
OID_SHOWN_CHARACTERS = 8


@click.group(cls=Noun)
def command() -> None:
    """Find what is stored twice."""


@command.command()
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--min-size",
    metavar="BYTES",
    type=click.IntRange(min=0),
    default=MIN_SIZE_BYTES,
    show_default=True,
    help="Leave out smaller files.",
)
@form_options
def report(path: Path | None, min_size: int, form: Form) -> None:
    """Show files with equal bytes in PATH and in DVC's local cache; changes nothing.

    PATH is the project's folder unless given, or the current folder where there is no project. Works without DVC too.

    \b
    Examples:
      holdfast dedup report
      holdfast dedup report outputs --min-size 1000000
    """
    project = _project(path or Path.cwd())
    folder = path or (project.root if project else Path.cwd())
    result = find_duplicates(folder, project=project, min_size=min_size)
    emit(form, result.to_json(), _blocks(result))


def _project(folder: Path) -> Project | None:
    try:
        return find_project(folder)
    except NotARepositoryError:
        return None  # duplicates are duplicates without DVC too


def _blocks(result: DuplicateReport) -> list[str | Table]:
    blocks: list[str | Table] = [_sentence(result)]
    if result.groups:
        rows = [
            (human_bytes(group.wasted), human_bytes(group.size), str(group.copies), group.kind, _places(group))
            for group in result.groups[:GROUPS_SHOWN]
        ]
        blocks.append(
            Table(("wasted", "size", "copies", "kind", "where"), rows, right=frozenset({"wasted", "size", "copies"}))
        )
    if len(result.groups) > GROUPS_SHOWN:
        blocks.append(f"… and {plural(len(result.groups) - GROUPS_SHOWN, 'smaller group')}; `--json` lists all.")
    if checkouts := [group for group in result.groups if group.kind == "checkout"]:
        blocks.append(_checkout_advice(sum(group.wasted for group in checkouts), result.link_types))
    blocks += [f"Note: {note}." for note in result.notes[:NOTES_SHOWN]]
    if len(result.notes) > NOTES_SHOWN:
        blocks.append(f"… and {plural(len(result.notes) - NOTES_SHOWN, 'note')} more; `--json` lists all.")
    return blocks


def _sentence(result: DuplicateReport) -> str:
    looked = plural(result.files, "file") + (f" and {plural(result.objects, 'cache object')}" if result.objects else "")
    if not result.groups:
        return f"Nothing is stored twice in {looked} ({human_bytes(result.bytes)})."
    groups = plural(len(result.groups), "group")
    return (
        f"{human_bytes(result.wasted)} of {human_bytes(result.bytes)} are copies of something else: {groups} of equal "
        f"files among {looked}."
    )


def _checkout_advice(wasted: int, link_types: tuple[str, ...]) -> str:
    # broken by hand: a terminal would break within words
    lines = [
        f"A checkout is a workspace file that DVC copied from its cache: {human_bytes(wasted)} in all.",
        "`dvc config cache.type reflink,symlink` and `dvc checkout --relink` make links",
        "of them; symlinked files are read-only until `dvc unprotect FILE`.",
    ]
    if "reflink" in link_types:
        lines += [
            "Where the file system has reflinks (btrfs, XFS, APFS) they may share their",
            "blocks with the cache and cost nothing already: that cannot be seen from here.",
        ]
    return "\n".join(lines)


def _places(group: DuplicateGroup) -> str:
    places = [*group.paths, *(f"cache {oid[:OID_SHOWN_CHARACTERS]}" for oid in group.oids)]
    shown = places[:PATHS_SHOWN]
    more = len(places) - len(shown)
    return "\n".join([*shown, *([f"… {more} more"] if more else [])])
