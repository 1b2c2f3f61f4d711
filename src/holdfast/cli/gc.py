"""``holdfast gc``: what may be deleted, and why."""

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, human_age, human_bytes, plural
from holdfast.gc.plan import Plan, PlannedObject, plan_cache
from holdfast.repo.dvcfiles import LISTING_SUFFIX
from holdfast.repo.workspace import find_project

OID_SHOWN_CHARACTERS = 8
# columns of a terminal that the rest of a row takes, and what a name gets at least
ROW_CHARACTERS = 62
NAME_MIN_CHARACTERS = 20
REASONS = {
    "workspace": "in the workspace",
    "registry": "registered version",
    "branch": "at the tip of a branch",
    "tag": "tagged",
    "experiment": "experiment",
    "stash": "stashed",
    "ref": "another ref",
    "history": "in the history of a ref",
    "run cache": "run cache alone",
    "undecided": "undecided",
    "reflog": "only the reflog has it",
    "nothing": "nothing refers to it",
}


@click.group(cls=Noun)
def command() -> None:
    """See what may be deleted, and why."""


@command.command()
@click.option("--only", type=click.Choice(["removed", "kept"]), help="List these objects alone.")
@click.option("--ignore-run-cache", is_flag=True, help="Let DVC's run cache keep nothing.")
@form_options
def plan(only: str | None, ignore_run_cache: bool, form: Form) -> None:
    """Show which objects of DVC's local cache nothing refers to; deletes nothing.

    Everything that a branch, tag, commit, experiment, stash, registered version, the workspace or DVC's run cache names
    is kept, and so is what cannot be decided.

    \b
    Examples:
      holdfast gc plan
      holdfast gc plan --only kept --md
    """
    result = plan_cache(find_project(Path.cwd()), now=time.time(), ignore_run_cache=ignore_run_cache)
    chosen = {"removed": result.removed, "kept": result.kept}.get(only or "", list(result.objects))
    emit(form, result.to_json(chosen), _blocks(result, only))


def _blocks(result: Plan, only: str | None) -> list[str | Table]:
    blocks: list[str | Table] = [_sentence(result)]
    if any(entry.reason == "undecided" for entry in result.objects):  # else the doubts keep nothing
        blocks += [f"In doubt: {doubt.text}.\nWay out: {doubt.way_out}." for doubt in result.doubts]
    if result.removed and only != "kept":
        blocks.append(_objects("Could be removed", result.removed))
    if only == "kept" and result.kept:
        blocks.append(_objects("Kept", result.kept))
    if only is None and result.kept:
        blocks.append(_totals(result))
    if not only and (alone := next((total for total in result.totals if total.reason == "run cache"), None)):
        blocks.append(
            f"DVC's run cache alone keeps {human_bytes(alone.bytes)} in {plural(alone.objects, 'object')}:\n"
            "`holdfast gc plan --ignore-run-cache` shows them."
        )
    return blocks


def _sentence(result: Plan) -> str:
    if not result.objects:
        return "The local cache is empty: there is nothing to remove."
    total, removed = result.objects, result.removed
    everything = f"{plural(len(total), 'object')} ({human_bytes(_bytes(total))})"
    if not removed:
        undecided = any(entry.reason == "undecided" for entry in total)
        return (
            f"Nothing to remove: {'no object of' if undecided else 'something refers to all of'} the {everything}"
            + (" is surely unused." if undecided else ".")
        )
    verb = "is" if len(removed) == 1 else "are"
    return (
        f"{len(removed):,} of {plural(len(total), 'object')} ({human_bytes(_bytes(removed))} of "
        f"{human_bytes(_bytes(total))}) {verb} referred to by nothing and could be removed."
    )


def _objects(title: str, entries: Sequence[PlannedObject]) -> Table:
    rows = [
        (_short_oid(entry), human_bytes(entry.size), human_age(entry.age_days), _names(entry), _why(entry))
        for entry in entries
    ]
    return Table(("object", "size", "age", "name", "why"), rows, title, frozenset({"size", "age"}))


def _totals(result: Plan) -> Table:
    kept = [total for total in result.totals if total.kept]
    rows = [(REASONS[total.reason], f"{total.objects:,}", human_bytes(total.bytes)) for total in kept]
    return Table(("why", "objects", "size"), rows, "Kept", frozenset({"objects", "size"}))


def _short_oid(entry: PlannedObject) -> str:
    suffix = LISTING_SUFFIX if entry.oid.endswith(LISTING_SUFFIX) else ""
    return entry.oid[:OID_SHOWN_CHARACTERS] + suffix


def _names(entry: PlannedObject) -> str:
    if not entry.names:
        return "–"
    first = _cut(entry.names[0].path)
    return first if len(entry.names) == 1 else f"{first} (+{len(entry.names) - 1})"


def _why(entry: PlannedObject) -> str:
    return "undecided, see the doubt above" if entry.reason == "undecided" else entry.why


def _cut(path: str) -> str:
    if not sys.stdout.isatty():
        return path
    limit = max(NAME_MIN_CHARACTERS, shutil.get_terminal_size().columns - ROW_CHARACTERS)
    if len(path) <= limit:
        return path
    tail = path[-(limit - 1) :]
    # the end says most; from a slash on where there is one
    return f"…{tail[tail.index('/') :] if '/' in tail[:-1] else tail}"


def _bytes(entries: Sequence[PlannedObject]) -> int:
    return sum(entry.size for entry in entries)
