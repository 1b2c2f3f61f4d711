"""``holdfast code``: which module is canonical, what each is for, and variants out of the way."""

from collections.abc import Sequence
from pathlib import Path

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, plural
from holdfast.errors import UsageError
from holdfast.inventory.code_archive import ARCHIVE, ArchivePlan, apply_plan, plan_archive, read_plan
from holdfast.inventory.code_inventory import CodeInventory, take_inventory
from holdfast.inventory.code_variants import Group, VariantReport, find_variants

NOTES_SHOWN = 5
CLASSES_SHOWN = 2

folder_argument = click.argument(
    "path", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[PATH]"
)
canonical_option = click.option(
    "--canonical", metavar="MODULE", multiple=True, help="MODULE is canonical, whoever uses it; may be given again."
)


@click.group(cls=Noun)
def command() -> None:
    """See which module is canonical, and archive the others."""


@command.command()
@folder_argument
@canonical_option
@form_options
def variants(path: Path, canonical: tuple[str, ...], form: Form) -> None:
    """Show modules that are variants of one another, and which one is canonical.

    Variants are alike by name and by content. The one that training scripts, notebooks and configurations use is
    canonical; who uses another one is listed, and so is who falls back to one when an import fails. Nothing is
    imported or run.

    \b
    Examples:
      holdfast code variants
      holdfast code variants src --canonical package.loader
    """
    report = find_variants(path, canonical=canonical)
    emit(form, {"format": "holdfast code variants 1", **report.to_json()}, _variant_blocks(report))


@command.command()
@folder_argument
@form_options
def inventory(path: Path, form: Form) -> None:
    """Show every module: what it is for, who uses it, and whether it is in use.

    Native modules (PyO3, maturin, setuptools, Cython) are listed with whether they are built and imported.

    \b
    Examples:
      holdfast code inventory
      holdfast code inventory src --json
    """
    report = take_inventory(path)
    emit(form, {"format": "holdfast code inventory 1", **report.to_json()}, _inventory_blocks(report))


@command.command()
@folder_argument
@canonical_option
@click.option(
    "--to", "folder", metavar="DIR", default=ARCHIVE, show_default=True, help="Where legacy modules go, from PATH."
)
@click.option("--apply", "carry_out", is_flag=True, help="Carry out the plan as one commit.")
@click.option(
    "--plan",
    "saved",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=completion_values.plans("code archive"),
    help="Use the plan that `--json` wrote to FILE.",
)
@form_options
def archive(
    path: Path, canonical: tuple[str, ...], folder: str, carry_out: bool, saved: Path | None, form: Form
) -> None:
    """Show how legacy variants would be archived; with --apply, do it.

    Legacy modules are moved with `git mv`, imports of them are rewritten to the canonical module where it has the
    names, and all of it is one commit, which `git revert` undoes. What cannot be rewritten is listed, and keeps its
    module where it is.

    \b
    Examples:
      holdfast code archive
      holdfast code archive --json > plan.json
      holdfast code archive --plan plan.json --apply
    """
    if saved is not None and (canonical or folder != ARCHIVE):
        raise UsageError("a saved plan has its own choices", hint="Leave out --canonical and --to, or make a new plan")
    plan = read_plan(path, saved.read_bytes()) if saved else plan_archive(path, canonical=canonical, folder=folder)
    commit = apply_plan(plan) if carry_out and not plan.is_empty else None
    emit(form, plan.to_json() | {"commit": commit}, _archive_blocks(plan, commit))


def _variant_blocks(report: VariantReport) -> list[str | Table]:
    if not report.groups:
        return [f"No variants among {plural(report.modules, 'module')}.", *_notes(report.notes)]
    members = sum(len(group.variants) for group in report.groups)
    stale = sum(action.kind != "decide" for action in report.actions)
    groups = plural(len(report.groups), "group")
    among = f"{members} of {plural(report.modules, 'module')}"
    blocks: list[str | Table] = [f"{groups} of variants, {among}; {plural(stale, 'place')} to change."]
    blocks.append(_group_table(report.groups))
    if report.actions:
        rows = [(action.place, action.kind, action.text) for action in report.actions]
        blocks.append(Table(("where", "kind", "what to do"), rows, title="Actions", spare=("kind",)))
    return [*blocks, *_notes(report.notes)]


def _group_table(groups: Sequence[Group]) -> Table:
    rows = []
    for group in groups:
        undecided = "" if group.certain else "; undecided, name one with --canonical"
        name = group.name or group.canonical.path
        rows.append((f"{name}:", "", "", f"content {group.content:.0%} alike{undecided}"))
        rows += [(v.path, v.status, str(v.lines), "\n".join(v.reasons)) for v in group.variants]
    return Table(("module", "status", "lines", "why"), rows, right=frozenset({"lines"}), spare=("lines",))


def _inventory_blocks(report: CodeInventory) -> list[str | Table]:
    counts = ", ".join(f"{count} {status}" for status, count in report.counts().items())
    blocks: list[str | Table] = [f"{plural(len(report.modules), 'module')}{': ' if counts else ''}{counts}."]
    if report.modules:
        rows = []
        for entry in report.modules:
            more = len(entry.classes) - CLASSES_SHOWN
            classes = ", ".join(entry.classes[:CLASSES_SHOWN]) + (f" +{more}" if more > 0 else "")
            uses = (len(entry.importers) - len(entry.notebooks), len(entry.notebooks), len(entry.configs))
            rows.append((entry.path, entry.status, entry.role, str(entry.lines), *map(str, uses), classes))
        numbers = ("lines", "importers", "notebooks", "configs")
        blocks.append(
            Table(
                ("module", "status", "role", *numbers, "classes"),
                rows,
                right=frozenset(numbers),
                spare=("classes", "configs", "role", "notebooks", "lines"),
            )
        )
    if report.native:
        native = [(m.name, m.status, ", ".join(m.declared), ", ".join(m.importers)) for m in report.native]
        columns = ("native module", "status", "declared in", "imported by")
        blocks.append(Table(columns, native, title="Native modules", spare=("declared in",)))
    return [*blocks, *_notes(report.notes)]


def _archive_blocks(plan: ArchivePlan, commit: str | None) -> list[str | Table]:
    blocks: list[str | Table] = [_archive_sentence(plan, commit)]
    if plan.moves:
        rows = [(move.source, move.target, move.why) for move in plan.moves]
        blocks.append(Table(("legacy module", "goes to", "why"), rows, title="Moves", spare=("why", "goes to")))
    if plan.edits:
        rows = [(_place(edit.file, edit.cell, edit.line), " ".join(edit.old.split()), edit.new) for edit in plan.edits]
        blocks.append(Table(("where", "before", "after"), rows, title="Rewritten imports"))
    if plan.manual:
        rows = [(item.place, item.module, item.why) for item in plan.manual]
        title = f"To change by hand first, before {plural(len(plan.held), 'more module')} can go"
        blocks.append(Table(("where", "uses", "why not rewritten"), rows, title=title))
    if commit is None and not plan.is_empty:
        blocks.append("Nothing was changed. `--apply` carries it out as one commit.")
    return blocks


def _archive_sentence(plan: ArchivePlan, commit: str | None) -> str:
    what = f"{plural(len(plan.moves), 'legacy module')} and rewrite {plural(len(plan.edits), 'import')}"
    if commit is not None:
        done = what.replace(" and rewrite ", " archived and ")
        return f"{done} rewritten in commit {commit[:10]}; `git revert {commit[:10]}` undoes it."
    if plan.is_empty:
        held = f"; {plural(len(plan.held), 'legacy module')} must stay for now" if plan.held else ""
        return f"There is nothing to archive{held}."
    return f"Would archive {what}."


def _place(file: str, cell: int | None, line: int) -> str:
    return f"{file}[{cell}]:{line}" if cell is not None else f"{file}:{line}"


def _notes(notes: tuple[str, ...]) -> list[str | Table]:
    lines: list[str | Table] = [f"Note: {note}." for note in notes[:NOTES_SHOWN]]
    if len(notes) > NOTES_SHOWN:
        lines.append(f"… and {plural(len(notes) - NOTES_SHOWN, 'note')} more; `--json` lists all.")
    return lines
