"""``holdfast dedup plan``, ``apply``, ``restore`` and ``list``."""

from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast.atomic import write_atomically
from holdfast.cli import completion_values
from holdfast.cli.caches import digest_cache
from holdfast.cli.durations import duration
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, one_line, plural
from holdfast.cli.progress import bar
from holdfast.dedup.groups import MIN_SIZE_BYTES
from holdfast.errors import NotARepositoryError, PartlyDoneError, UsageError

if TYPE_CHECKING:
    from holdfast.dedup.apply import House
    from holdfast.dedup.plan import DedupPlan, Replacement
    from holdfast.repo.workspace import Project

ROWS_SHOWN = 30
BATCH_SHOWN_CHARACTERS, OID_SHOWN_CHARACTERS = 12, 8


@click.command("plan", cls=Verb)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan to FILE."
)
@click.option(
    "--min-size",
    metavar="BYTES",
    type=click.IntRange(min=1),
    default=MIN_SIZE_BYTES,
    show_default=True,
    help="Leave smaller files as they are.",
)
@form_options
def plan_command(paths: tuple[Path, ...], output: Path | None, min_size: int, form: Form) -> None:
    """Show which copies would become links, and which cannot; changes nothing.

    A file that DVC tracks becomes the link that DVC's cache.type asks for, as `dvc checkout --relink` would make it.
    Any other becomes a reflink, which shares its blocks until one of the two is changed; where the file system has
    none, it stays. Of equal files one stays as it is: a registered one, else that with most references, else the
    oldest.

    \b
    Examples:
      holdfast dedup plan
      holdfast dedup plan outputs -o plan.json
    """
    from holdfast.dedup.apply import unfinished  # with NumPy and what reads references, 200 ms
    from holdfast.dedup.planning import plan_links

    house = _house(paths[0] if paths else Path.cwd())
    outside = next((path for path in paths if not path.resolve().is_relative_to(house.folder)), None)
    if outside is not None:
        raise UsageError(f"{outside} is not in {house.folder}", hint="Name paths of one project")
    with digest_cache(house.folder) as digests, bar("Comparing files") as update:
        plan, notes = plan_links(
            house.folder, digests, project=house.project, paths=paths, min_size=min_size, progress=update
        )
    if output is not None:
        write_atomically(output, plan.as_bytes())
    blocks = _plan_blocks(plan)
    if plan.steps:
        file = str(output) if output else "FILE"
        first = "" if output else "`holdfast dedup plan -o FILE` writes it to a file, "
        blocks.append(f"Nothing was changed. {first}`holdfast dedup apply {file} --yes` does it.")
    blocks += [
        f"An earlier one was cut off: `holdfast dedup apply {path} --yes` ends it." for path in unfinished(house)
    ]
    blocks += [f"Note: {note}." for note in notes]
    emit(form, plan.to_json() | {"notes": list(notes)}, blocks)


@click.command("apply", cls=Verb)
@click.argument(
    "file",
    metavar="PLAN",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=completion_values.plans("dedup"),
)
@click.option("-y", "--yes", is_flag=True, help="Do it; without, the plan is checked and shown.")
@form_options
def apply_command(file: Path, yes: bool, form: Form) -> None:
    """Replace copies by links as PLAN says. Shows what would be done, unless told to do it.

    Refuses (14) where a file has changed since the plan was made, or the plan itself. Every original waits in the
    quarantine: `holdfast dedup restore` brings it back. A run that was cut off is ended by the same command.

    \b
    Examples:
      holdfast dedup apply plan.json
      holdfast dedup apply plan.json --yes
    """
    from holdfast.dedup.apply import apply_plan, check  # see plan_command
    from holdfast.dedup.plan import read_plan

    plan = read_plan(file.read_bytes())
    house = _house(Path.cwd())
    if not yes:
        todo = check(house, plan)
        told = "All of it is done already." if not todo else f"It fits. `holdfast dedup apply {file} --yes` does it."
        emit(form, plan.to_json(), [*_plan_blocks(plan), told])
        return
    with bar("Linking") as update:
        done = apply_plan(house, plan, progress=update)
    blocks: list[str | Table] = [_applied(plan, len(done.linked), done.bytes)]
    if done.linked:
        short = done.batch[:BATCH_SHOWN_CHARACTERS]
        blocks.append(
            f"The originals wait in the quarantine as {short}, and take their space until it is purged.\n"
            f"`holdfast dedup restore {short}` brings them back."
        )
    if done.left:
        blocks.append(Table(("path", "why it stays a copy"), [(one_line(path), why) for path, why in done.left]))
    emit(form, {"format": "holdfast dedup applied 1", **asdict(done)}, blocks)
    if done.left:
        raise PartlyDoneError(f"{plural(len(done.left), 'file')} stayed as they were", hint="Make a new plan for them")


@click.command("restore", cls=Verb)
@click.argument("batch", metavar="PLAN|ID", shell_complete=completion_values.linked)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@form_options
def restore_command(batch: str, paths: tuple[Path, ...], form: Form) -> None:
    """Bring the originals back in the place of the links, all of a plan or those of some PATHs.

    What was changed since stays as it is, and its original waits on.

    \b
    Examples:
      holdfast dedup restore plan.json
      holdfast dedup restore 1f0c3ab2 outputs/run_18/best_model.pt
    """
    from holdfast.dedup.apply import restore_plan  # see plan_command

    house = _house(Path.cwd())
    wanted = [_from_folder(house, path) for path in paths] or None
    done = restore_plan(house, _batch(house, batch), wanted)
    blocks: list[str | Table] = [f"{plural(len(done.paths), 'original')} came back."]
    if done.left:
        blocks.append(Table(("path", "why it stays"), [(one_line(path), why) for path, why in done.left]))
    emit(form, {"format": "holdfast dedup restored 1", **asdict(done)}, blocks)
    if done.left:
        raise PartlyDoneError(
            f"{plural(len(done.left), 'original')} did not come back",
            hint="Move what is in the way, and restore again: they wait on",
        )


@click.command("list", cls=Verb)
@form_options
def list_command(form: Form) -> None:
    """List the plans whose originals wait in the quarantine.

    \b
    Example:
      holdfast dedup list
    """
    from holdfast.dedup.apply import batches, unfinished, unreturned  # see plan_command

    house = _house(Path.cwd())
    found = batches(house)
    rows = [
        (
            batch.id[:BATCH_SHOWN_CHARACTERS],
            f"{batch.since:%Y-%m-%d %H:%M}",
            f"{len(batch.things):,}",
            human_bytes(sum(thing.size for thing in batch.things)),
        )
        for batch in found
    ]
    right = frozenset({"files", "size"})
    blocks: list[str | Table] = [Table(("plan", "since", "files", "size"), rows, right=right)] if rows else []
    blocks += [f"Cut off: `holdfast dedup apply {path} --yes` ends it." for path in unfinished(house)]
    blocks += [f"Cut off: `holdfast dedup restore {batch}` ends it." for batch in unreturned(house)]
    payload = [
        {"id": batch.id, "since": batch.since.isoformat(), "files": len(batch.things), "bytes": size}
        for batch in found
        for size in [sum(thing.size for thing in batch.things)]
    ]
    emit(form, {"format": "holdfast dedup list 1", "plans": payload}, blocks or ["No original waits."])


@click.command("purge", cls=Verb)
@click.argument("batch", metavar="[PLAN|ID]", required=False, shell_complete=completion_values.linked)
@click.option(
    "--older-than",
    type=duration,
    metavar="TIME",
    default="14d",
    show_default=True,
    help="What has waited longer than this, where none is named.",
)
@click.option("-y", "--yes", is_flag=True, help="Delete them.")
@form_options
def purge_command(batch: str | None, older_than: timedelta, yes: bool, form: Form) -> None:
    """Delete originals that wait in the quarantine, which frees their space. Shows them, unless told to delete them.

    \b
    Examples:
      holdfast dedup purge
      holdfast dedup purge plan.json --yes
    """
    from holdfast.dedup.apply import batches, purge_plan  # see plan_command

    house = _house(Path.cwd())
    name = None if batch is None else _batch(house, batch)
    now = house.place.now()
    chosen = [
        found for found in batches(house) if (found.id == name if name is not None else now - found.since >= older_than)
    ]
    files = sum(len(found.things) for found in chosen)
    size = sum(thing.size for found in chosen for thing in found.things)
    left = [item for found in chosen if yes for item in purge_plan(house, found.id).left]
    what = f"{plural(files, 'original')} ({human_bytes(size)})"
    if not chosen:
        told = "No original has waited so long."
    elif yes:
        told = f"Deleted {what}."
    else:
        told = f"{what} would be deleted; --yes does it."
    payload = {"deleted": yes, "plans": [found.id for found in chosen], "files": files, "bytes": size, "left": left}
    emit(form, {"format": "holdfast dedup purged 1", **payload}, [told, *(f"{key}: {why}." for key, why in left)])


def project_of(folder: Path) -> "Project | None":
    """The project around a folder; None where there is none: duplicates are duplicates without DVC too."""
    from holdfast.repo.workspace import find_project

    try:
        return find_project(folder)
    except NotARepositoryError:
        return None


def _house(start: Path) -> "House":
    from holdfast.dedup.apply import House  # see plan_command

    project = project_of(start if start.is_dir() else start.parent)
    return House(project.root if project is not None else Path.cwd().resolve(), project)


def _batch(house: "House", name: str) -> str:
    from holdfast.dedup.apply import batches, unfinished, unreturned  # see plan_command
    from holdfast.dedup.plan import read_plan
    from holdfast.removal.batches import batch_id

    if Path(name).is_file():
        return batch_id(read_plan(Path(name).read_bytes()).as_bytes())
    known = {batch.id for batch in batches(house)} | {path.stem for path in unfinished(house)} | {*unreturned(house)}
    found = sorted(batch for batch in known if batch.startswith(name))
    if len(found) != 1:
        told = "no plan" if not found else f"{len(found)} plans"
        raise UsageError(f"{told} whose originals wait begin with {name!r}", hint="`holdfast dedup list` shows them")
    return found[0]


def _from_folder(house: "House", path: Path) -> str:
    place = path.parent.resolve() / path.name
    if not place.is_relative_to(house.folder):
        raise UsageError(f"{path} is not in {house.folder}", hint="Name paths of the project")
    return place.relative_to(house.folder).as_posix()


def _plan_blocks(plan: "DedupPlan") -> list[str | Table]:
    if not plan.steps and not plan.left:
        return ["There are no copies to replace."]
    blocks: list[str | Table] = []
    if plan.steps:
        verb = "copy" if len(plan.steps) == 1 else "copies"
        blocks.append(f"{len(plan.steps):,} {verb} ({human_bytes(plan.freed)}) would become links.")
        largest = sorted(plan.steps, key=lambda step: (-step.size, step.path))[:ROWS_SHOWN]
        rows = [(human_bytes(step.size), step.kind, _sharing(step)) for step in largest]
        columns = ("size", "becomes", "path → what it shares its bytes with")
        blocks.append(Table(columns, rows, right=frozenset({"size"})))
        if len(plan.steps) > ROWS_SHOWN:
            blocks.append(f"… and {len(plan.steps) - ROWS_SHOWN:,} more; `--json` lists all.")
    if plan.left:
        reasons = Counter(left.why for left in plan.left)
        sizes = {why: sum(left.size for left in plan.left if left.why == why) for why in reasons}
        for why, count in sorted(reasons.items(), key=lambda item: (-sizes[item[0]], item[0])):
            copies = "1 copy stays" if count == 1 else f"{count:,} copies stay"
            blocks.append(f"{copies} ({human_bytes(sizes[why])}): {why}.")
    return blocks


def _sharing(step: "Replacement") -> str:
    source = one_line(step.source) if step.source else f"cache {step.oid[:OID_SHOWN_CHARACTERS]}"
    return f"{one_line(step.path)}\n→ {source}: {step.why}"


def _applied(plan: "DedupPlan", linked: int, nbytes: int) -> str:
    verb = "is a link" if linked == 1 else "are links"
    return f"{linked:,} of {plural(len(plan.steps), 'copy', 'copies')} {verb} now ({human_bytes(nbytes)})."
