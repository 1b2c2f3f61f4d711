"""``holdfast dedup``: what is stored twice, and replacing copies by links."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.cli import completion_values
from holdfast.cli.caches import digest_cache
from holdfast.cli.dedup_links import (
    apply_command,
    list_command,
    plan_command,
    project_of,
    purge_command,
    restore_command,
)
from holdfast.cli.groups import Noun
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, one_line, plural
from holdfast.cli.progress import bar
from holdfast.dedup.groups import KINDS, MIN_SIZE_BYTES, SCOPES, DuplicateGroup, DuplicateReport, Kind, Scope
from holdfast.errors import NotARepositoryError, UsageError

if TYPE_CHECKING:
    from holdfast.dedup.history import HistoryReport
    from holdfast.repo.workspace import Project

GROUPS_SHOWN = 30
PATHS_SHOWN = 4
NOTES_SHOWN = 5
OID_SHOWN_CHARACTERS = 8
WHAT = {
    "checkout": "checkouts of cache objects",
    "duplicate": "equal files",
    "weights": "equal weights in different files",
    "tensors": "tensors in several checkpoints",
    "cast": "casts of stored tensors",
    "similar": "near-duplicates (estimated)",
}


@click.group(cls=Noun)
def command() -> None:
    """Find what is stored twice, and replace copies by links."""


@command.command()
@click.argument("where", nargs=-1, metavar="[workspace|cache|remote|history|FOLDER]...")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Only groups of this kind.")
@click.option("--top", metavar="N", type=click.IntRange(min=1), help="Only the N groups that waste most.")
@click.option(
    "--min-size",
    metavar="BYTES",
    type=click.IntRange(min=0),
    default=MIN_SIZE_BYTES,
    show_default=True,
    help="Leave out smaller files, and groups that waste less.",
)
@click.option(
    "-r",
    "--remote",
    metavar="NAME",
    shell_complete=completion_values.remotes,
    help="The DVC remote to look at; DVC's default one if not given.",
)
@form_options
def report(
    where: tuple[str, ...], kinds: tuple[Kind, ...], top: int | None, min_size: int, remote: str | None, form: Form
) -> None:
    """Show what is stored twice in the workspace and in DVC's local cache; changes nothing.

    Equal files, the same weights in different files, tensors that several checkpoints have, casts of stored tensors,
    and near-duplicates with the saving that a vault would bring, estimated from a sample. `cache` and `workspace` look
    at one of the two, a FOLDER at a part of the workspace, `remote` at a DVC remote without downloading it, `history`
    at all versions of each tracked path. Works without DVC too.

    \b
    Examples:
      holdfast dedup report
      holdfast dedup report outputs --kind duplicate --kind weights
      holdfast dedup report history --top 10
    """
    scopes, folder = _where(where)
    if remote is not None and scopes != ("remote",):
        raise UsageError("--remote goes with `holdfast dedup report remote` alone")
    project = project_of(folder or Path.cwd())
    if scopes == ("history",):
        _history(_needed(project), min_size, top, form)
        return
    if scopes == ("remote",):
        result = _remote(_needed(project), remote, kinds, min_size)
    else:
        if scopes == ("cache",):
            _needed(project)
        result = _local(project, folder, scopes, kinds, min_size)
    chosen = result.chosen(kinds, top)
    more = len(result.chosen(kinds).groups) - len(chosen.groups)
    payload = chosen.to_json() | {"totals": result.totals, "wasted": result.wasted}
    emit(form, payload, _blocks(result, chosen.groups, more))


def _where(words: Sequence[str]) -> tuple[tuple[Scope, ...], Path | None]:
    """The scopes and the folder that are meant."""
    scopes = tuple(word for word in SCOPES if word in words)
    folders = [Path(word) for word in words if word not in SCOPES]
    if missing := next((folder for folder in folders if not folder.is_dir()), None):
        raise UsageError(f"{missing} is no folder, nor one of {', '.join(SCOPES)}")
    if len(folders) > 1:
        raise UsageError("name one folder at a time")
    if len(scopes) > 1 and not set(scopes) <= {"workspace", "cache"}:
        raise UsageError("remote and history are looked at by themselves")
    if folders and scopes not in ((), ("workspace",), ("workspace", "cache")):
        raise UsageError("a folder is a part of the workspace", hint="`holdfast dedup report FOLDER`")
    return scopes or ("workspace", "cache"), folders[0] if folders else None


def _needed(project: "Project | None") -> "Project":
    if project is None:
        raise NotARepositoryError(f"{Path.cwd()} is not inside a DVC project", hint="Name a folder of files instead")
    return project


def _local(
    project: "Project | None",
    folder: Path | None,
    scopes: tuple[Scope, ...],
    kinds: tuple[Kind, ...],
    min_size: int,
) -> DuplicateReport:
    from holdfast.dedup.report import report_duplicates  # with NumPy and the codec, 200 ms that --help need not pay

    place = folder or (project.root if project else Path.cwd())
    with digest_cache(place) as digests, bar("Looking for duplicates") as update:
        return report_duplicates(
            place,
            digests,
            project=project,
            scopes=scopes,
            kinds=kinds,
            min_size=min_size,
            progress=lambda _what, done, total: update(done, total),
        )


def _remote(project: "Project", name: str | None, kinds: tuple[Kind, ...], min_size: int) -> DuplicateReport:
    from holdfast.cli.naming import open_objects  # likewise
    from holdfast.dedup.remote import report_remote
    from holdfast.repo.dvc import default_remote, local_cache, remotes

    name = name or default_remote(project.root)
    known = remotes(project.root)
    if name is None or name not in known:
        told = "DVC has no default remote" if name is None else f"DVC knows no remote {name!r}"
        raise UsageError(told, hint="`dvc remote list` shows them; name one with --remote")
    cache = local_cache(project.root).folder
    with digest_cache(project.root) as digests, bar(f"Looking at {name}") as update:
        return report_remote(
            open_objects(str(known[name]["url"])),
            project,
            cache,
            digests,
            kinds=kinds,
            min_size=min_size,
            progress=lambda _what, done, total: update(done, total),
        )


def _history(project: "Project", min_size: int, top: int | None, form: Form) -> None:
    from holdfast.dedup.history import report_history  # likewise
    from holdfast.repo.dvc import local_cache

    with digest_cache(project.root) as digests, bar("Reading versions") as update:
        result = report_history(project, local_cache(project.root).folder, digests, min_size=min_size, progress=update)
    chosen = replace(result, paths=result.paths[:top])
    emit(form, chosen.to_json() | {"totals": result.totals}, _history_blocks(result, top))


def _blocks(result: DuplicateReport, groups: Sequence[DuplicateGroup], more: int) -> list[str | Table]:
    blocks: list[str | Table] = [_sentence(result)]
    inner = [kind for kind in KINDS if kind not in ("checkout", "duplicate") and result.totals[kind]]
    if inner:
        lines = [f"  {human_bytes(result.totals[kind]):>9}  {WHAT[kind]}" for kind in inner]
        looked = f"{plural(result.checkpoints, 'checkpoint')} with {plural(result.tensors, 'tensor')}"
        blocks.append("\n".join([f"Besides, in {looked}:", *lines]))
    shown = groups if more else groups[:GROUPS_SHOWN]
    more += len(groups) - len(shown)
    if shown:
        rows = [
            (human_bytes(group.wasted), human_bytes(group.size), str(group.copies), group.kind, _places(group))
            for group in shown
        ]
        columns = ("wasted", "size", "copies", "kind", "where, and what to do")
        right = frozenset({"wasted", "size", "copies"})
        blocks.append(Table(columns, rows, right=right, spare=("copies", "size")))
    if more:
        blocks.append(f"… and {plural(more, 'smaller group')}; `--top N` and `--json` list them.")
    if any(group.estimate for group in shown):
        blocks.append(
            "Near-duplicates are estimates: sampled blocks were encoded with the vault's\n"
            "codec; in brackets the 95 % interval. `holdfast diff A B` shows what changed."
        )
    blocks += [f"Note: {note}." for note in result.notes[:NOTES_SHOWN]]
    if len(result.notes) > NOTES_SHOWN:
        blocks.append(f"… and {plural(len(result.notes) - NOTES_SHOWN, 'note')} more; `--json` lists all.")
    return blocks


def _sentence(result: DuplicateReport) -> str:
    if result.scopes == ("remote",):
        looked = f"{plural(result.objects, 'object')} of the remote"
    elif result.scopes == ("cache",):
        looked = plural(result.objects, "cache object")
    else:
        objects = f" and {plural(result.objects, 'cache object')}" if result.objects else ""
        looked = plural(result.files, "file") + objects
    exact = sum(group.kind in ("checkout", "duplicate") for group in result.groups)
    if not result.groups:
        return f"Nothing is stored twice in {looked} ({human_bytes(result.bytes)})."
    if not exact:
        return f"No two files are equal in {looked} ({human_bytes(result.bytes)})."
    return (
        f"{human_bytes(result.wasted)} of {human_bytes(result.bytes)} are copies of something else: "
        f"{plural(exact, 'group')} of equal files among {looked}."
    )


def _places(group: DuplicateGroup) -> str:
    names = group.names or ("",) * len(group.oids)
    objects = [
        f"{oid[:OID_SHOWN_CHARACTERS]} {one_line(name)}".strip() for oid, name in zip(group.oids, names, strict=True)
    ]
    base = group.base
    if base.startswith("cache "):
        place = group.oids.index(base.removeprefix("cache "))
        base = f"cache {objects[place]}"
    places = [*map(one_line, group.paths), *(f"cache {place}" for place in objects)]
    places = [place for place in places if place != one_line(base)]
    shown = places[:PATHS_SHOWN]
    more = len(places) - len(shown)
    lines = [*shown, *([f"… {more:,} more"] if more else [])]
    if group.tensors:
        lines.append(plural(group.tensors, "tensor"))
    if (estimate := group.estimate) is not None:
        lines.append(f"against {one_line(base)}")
        interval = f"saves [{human_bytes(estimate.low)} to {human_bytes(estimate.high)}], {estimate.blocks} of "
        lines.append(
            f"{interval if estimate.low < estimate.high else 'from all '}{plural(estimate.all_blocks, 'block')}"
        )
    return "\n".join([*lines, *([f"→ {group.advice}"] if group.advice else [])])


def _history_blocks(result: "HistoryReport", top: int | None) -> list[str | Table]:
    totals = result.totals
    if not result.paths:
        return ["No version of a tracked file is in DVC's local cache.", *(f"Note: {note}." for note in result.notes)]
    first = (
        f"{plural(totals['here'], 'version')} of {plural(len(result.paths), 'path')} take "
        f"{human_bytes(totals['raw_bytes'])} in DVC's cache; {human_bytes(totals['distinct_bytes'])} of that is "
        "different."
    )
    blocks: list[str | Table] = [first]
    shown = result.paths[: top or GROUPS_SHOWN]
    rows = [
        (
            human_bytes(path.raw_bytes),
            human_bytes(path.distinct_bytes),
            f"~{human_bytes(path.pushed)}",
            f"~{human_bytes(path.repacked)}",
            f"{path.here} of {path.versions}" if path.here < path.versions else str(path.versions),
            one_line(path.path),
        )
        for path in shown
    ]
    columns = ("in DVC", "distinct", "pushed", "repacked", "versions", "path")
    blocks.append(Table(columns, rows, right=frozenset(columns[:5]), spare=("versions", "distinct")))
    if len(result.paths) > len(shown):
        blocks.append(f"… and {plural(len(result.paths) - len(shown), 'smaller path')}; `--top N` lists them.")
    blocks.append(
        f"A vault would take about {human_bytes(totals['pushed'])} after `holdfast push`, and about\n"
        f"{human_bytes(totals['repacked'])} after `holdfast vault repack`: estimates, from "
        f"{plural(totals['blocks'], 'block')}\nencoded with the vault's codec, which took "
        f"±{max(path.spread for path in result.paths):.1%} of their bytes from block to block at most."
    )
    blocks += [f"Note: {note}." for note in result.notes[:NOTES_SHOWN]]
    return blocks


for _verb in (plan_command, apply_command, restore_command, list_command, purge_command):
    command.add_command(_verb)
