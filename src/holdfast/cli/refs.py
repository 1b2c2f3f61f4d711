"""``holdfast refs``: which scripts refer to which files."""

import glob
from collections.abc import Iterator
from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, plural
from holdfast.errors import UsageError
from holdfast.inventory.references import Reference, ReferenceReport, find_references
from holdfast.repo.workspace import find_git_root

ROWS_SHOWN = 200
TARGETS_SHOWN = 2
NOTES_SHOWN = 5
TEXT_CHARACTERS = 60
NO_TARGETS = (".dvc", ".gitignore", ".md")


@click.command(cls=Verb)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=completion_values.paths)
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Look in DIR instead of the git repository around the current folder.",
)
@click.option("--mentions", is_flag=True, help="List comments, messages and documents that mention them, too.")
@form_options
def command(paths: tuple[str, ...], root: Path | None, mentions: bool, form: Form) -> None:
    """Show which scripts, notebooks and configurations refer to files.

    PATH is a file, a folder of files or a pattern; a file need not exist any more. Names that a program builds are
    found too: f-strings, concatenation, format, os.path.join, pathlib, globs.

    \b
    Examples:
      holdfast refs models/digits/classifier.safetensors
      holdfast refs 'models/digits/*.safetensors' --md
      holdfast refs models --mentions
    """
    top = root or find_git_root(Path.cwd()) or Path.cwd()
    report = find_references(top, [target for path in paths for target in _targets(path)])
    emit(form, {"format": "holdfast refs 1", **report.to_json()}, _blocks(report, mentions=mentions))


def _targets(path: str) -> Iterator[Path]:
    place = Path.cwd() / path
    if place.is_dir():
        found = [file for file in sorted(place.rglob("*")) if file.is_file() and not file.name.endswith(NO_TARGETS)]
        if not found:
            raise UsageError(f"{path} holds no files", hint="Name a file, which need not exist any more, or a pattern")
        yield from found
    elif glob.has_magic(path) and not place.exists():
        # Path.glob takes no absolute pattern, and `..` in one is its matter too
        matches = [Path(match) for match in sorted(glob.glob(str(place), recursive=True))]  # noqa: PTH207
        found = [file for file in matches if file.is_file() and not file.name.endswith(NO_TARGETS)]
        if not found:
            raise UsageError(f"no file fits {path}", hint="A file that is gone is asked about by its whole name")
        yield from found
    else:
        yield place


def _blocks(report: ReferenceReport, *, mentions: bool) -> list[str | Table]:
    families = report.by_family()
    blocks: list[str | Table] = [_sentence(report)]
    if len(report.targets) > 1:
        blocks.append(
            Table(
                ("family", "files", "references", "scripts", "configs", "mentions"),
                [(u.name, *map(str, (u.files, u.references, u.scripts, u.configs, u.mentions))) for u in families],
                right=frozenset({"files", "references", "scripts", "configs", "mentions"}),
                spare=("mentions", "configs"),
            )
        )
    listed = [reference for reference in report.references if mentions or not reference.is_mention]
    if listed:
        rows = [(item.place, item.how, _clipped(item.text), _named(item, report)) for item in listed[:ROWS_SHOWN]]
        blocks.append(Table(("where", "how", "text", "targets"), rows, spare=("text", "how")))
    if len(listed) > ROWS_SHOWN:
        blocks.append(f"… and {plural(len(listed) - ROWS_SHOWN, 'place')} more; `--json` lists all.")
    blocks += [f"Note: {note}." for note in report.notes[:NOTES_SHOWN]]
    if len(report.notes) > NOTES_SHOWN:
        blocks.append(f"… and {plural(len(report.notes) - NOTES_SHOWN, 'note')} more; `--json` lists all.")
    return blocks


def _sentence(report: ReferenceReport) -> str:
    whole = report.usage("", report.targets)
    what = report.targets[0] if len(report.targets) == 1 else plural(len(report.targets), "file")
    said = f", {plural(whole.mentions, 'mention')}" if whole.mentions else ""
    if not whole.references:
        return f"Nothing refers to {what} in {plural(report.sources, 'source')}{said}."
    places = plural(whole.scripts, "script") + (
        f" and {plural(whole.configs, 'configuration')}" if whole.configs else ""
    )
    return f"{plural(whole.references, 'reference')} to {what} in {places}{said}."


def _named(reference: Reference, report: ReferenceReport) -> str:
    """The files, or their family where the place names all of it."""
    if len(reference.targets) == len(report.targets) > 1:
        return "all"
    names = set(reference.targets)
    families: dict[str, set[str]] = {}
    for target in report.targets:
        families.setdefault(report.families.get(target, target), set()).add(target)
    shown = []
    for family, members in families.items():
        if len(members) > 1 and members <= names:
            shown.append(family)
            names -= members
    shown += sorted(names)
    more = len(shown) - TARGETS_SHOWN
    return "\n".join(shown[:TARGETS_SHOWN] + ([f"… {more} more"] if more > 0 else []))


def _clipped(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else f"{text[: TEXT_CHARACTERS - 1]}…"
