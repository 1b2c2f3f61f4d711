"""``holdfast registry consolidate``."""

import posixpath
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import click

from holdfast.atomic import write_atomically
from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar
from holdfast.cli.registry_places import digests_of_project, here, stores_of_project
from holdfast.cli.vaults import open_project_vault, vault_url
from holdfast.errors import UsageError
from holdfast.inventory.run_classes import number_text
from holdfast.registry.consolidation import APP, ConsolidationPlan, Left, Step, read_plan
from holdfast.registry.consolidation_apply import Consolidated, apply_consolidation, unfinished
from holdfast.registry.consolidation_plan import plan_consolidation
from holdfast.registry.consolidation_restore import Restored, restore_run
from holdfast.repo.workspace import Project
from holdfast.vault.repository import NoVaultError

BENCHMARKS_SHOWN = ("accuracy", "f1_macro")
JOBS = 4


@click.command("consolidate", cls=Verb)
@click.argument("folders", nargs=-1, metavar="[FOLDER...]", type=click.Path(path_type=Path))
@click.option("--plan", "planning", is_flag=True, help="Show the plan and change nothing: the default.")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan to FILE."
)
@click.option(
    "--apply",
    "saved",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    shell_complete=completion_values.plans("consolidation"),
    help="Carry out the plan in FILE.",
)
@click.option("--restore", "restoring", is_flag=True, help="Bring archived weights back; each FOLDER is a run.")
@click.option("--app", metavar="APP", default=APP, show_default=True, help="The application of the models kept.")
@click.option("--weights", metavar="RUN=FILE", multiple=True, help="The file of weights of a run that has several.")
@form_options
def consolidate(
    folders: tuple[Path, ...],
    planning: bool,
    output: Path | None,
    saved: Path | None,
    restoring: bool,
    app: str,
    weights: tuple[str, ...],
    form: Form,
) -> None:
    """Put the runs in each FOLDER (default: here) in order: keep, register, archive; as a plan first.

    By the classes of `holdfast runs classify`, runs worth keeping are copied to models/APP under standard names and
    registered with their benchmarks; what another registry's file lists is registered first. One run of each other
    series is archived: it stays, and its weights go to the vault. The rest is listed for `holdfast gc`: nothing is
    deleted. --apply refuses (14) where anything has changed; one that was interrupted is ended by the same command.

    \b
    Examples:
      holdfast registry consolidate experiments -o plan.json
      holdfast registry consolidate --apply plan.json
      holdfast registry consolidate --restore experiments/baseline_small_20250525_090000
    """
    planned = planning or output is not None or bool(weights)
    if sum((planned, saved is not None, restoring)) > 1 or (saved is not None and folders):
        raise UsageError("planning, --apply and --restore are done one at a time", hint="--apply takes no FOLDER")
    project, _ = here()
    if saved is not None:
        _apply(project, saved, form)
    elif restoring:
        _restore(project, folders, form)
    else:
        _plan(project, folders, output, app, weights, form)


def _plan(
    project: Project, folders: Sequence[Path], output: Path | None, app: str, weights: Sequence[str], form: Form
) -> None:
    vault, reason = _vault(project)
    places = [_from_root(project, folder) for folder in folders or [Path()]]
    with digests_of_project(project) as digests:
        plan = plan_consolidation(
            project,
            places,
            digests,
            now=datetime.now(timezone.utc),
            vault=vault,
            no_vault=reason,
            app=app,
            weights=_chosen(project, weights),
        )
    if output is not None:
        write_atomically(output, plan.as_bytes())
    blocks = _plan_blocks(plan, output, form)
    if (journal := unfinished(project.root)) is not None:
        blocks.append(f"An earlier one was cut off; `holdfast registry consolidate --apply {journal}` ends it.")
    emit(form, plan.to_json(), blocks)


def _apply(project: Project, saved: Path, form: Form) -> None:
    plan = read_plan(saved.read_bytes())
    stores = stores_of_project(project, jobs=JOBS)
    try:
        with digests_of_project(project) as digests, bar("Archiving") as progress:
            done = apply_consolidation(
                project, plan, stores, digests, now=datetime.now(timezone.utc), progress=progress
            )
    finally:
        stores.close()
    emit(form, {"format": "holdfast registry consolidated 1", **asdict(done)}, _done_blocks(plan, done))


def _restore(project: Project, runs: Sequence[Path], form: Form) -> None:
    if not runs:
        raise UsageError("no run is named", hint="`holdfast registry consolidate --restore RUN`")
    with open_project_vault(project, jobs=JOBS) as vault:
        done = [restore_run(project.root, _from_root(project, run), vault) for run in runs]
    emit(form, {"format": "holdfast registry restored 1", "runs": [asdict(item) for item in done]}, _restored(done))


def _restored(done: Sequence[Restored]) -> list[str | Table]:
    lines: list[str | Table] = []
    for item in done:
        if item.files:
            count = plural(len(item.files), "file")
            lines.append(f"Restored {item.run} from {item.version}: {count}, {human_bytes(item.size)}.")
        else:
            lines.append(f"{item.run} has all that {item.version} has.")
    return lines


def _vault(project: Project) -> tuple[str | None, str]:
    """The URL of the project's vault, or None and why there is none."""
    try:
        url = vault_url(project)
        with open_project_vault(project, jobs=JOBS) as vault:
            return vault.url, ""
    except UsageError as error:
        return None, str(error)
    except NoVaultError as error:
        return None, f"{error.message[0].lower()}{error.message[1:]}. {error.hint or url}"


def _from_root(project: Project, path: Path) -> str:
    place = path.resolve()
    if not place.is_relative_to(project.root):
        raise UsageError(f"{path} is not in the project {project.root}", hint="Name folders of the project")
    return place.relative_to(project.root).as_posix()


def _chosen(project: Project, texts: Sequence[str]) -> dict[str, str]:
    result = {}
    for text in texts:
        run, equals, file = text.rpartition("=")
        if not run or not equals or not file:
            raise UsageError(f"{text!r} is no run with a file", hint="Write --weights RUN=FILE, FILE from the run")
        result[_from_root(project, Path(run))] = file
    return result


def _plan_blocks(plan: ConsolidationPlan, output: Path | None, form: Form) -> list[str | Table]:
    kept, archived, imported = plan.of("keep"), plan.of("archive"), plan.of("import")
    rest = [item for item in plan.left if item.phase == "gc"]
    if not plan.runs and not imported:
        return [f"There are no runs in {', '.join(plan.folders)}."]
    # the folder that all share says nothing in each row; a review gets whole paths
    shared = "" if form == "md" else _shared_folder(plan)
    counts = f"{len(kept)} kept, {len(archived)} archived, {len(rest)} left to gc"
    where = f" in {shared}" if shared else ""
    freed = f"Archiving frees {human_bytes(plan.freed)} ({plan.freed:,} bytes)."
    blocks: list[str | Table] = [f"{plural(len(plan.runs), 'run')}{where}: {counts}. {freed}"]
    blocks += _named_table(kept, shared)
    blocks += _register_table([*imported, *kept], [item for item in plan.left if item.phase == "register"])
    blocks += _archive_table(plan, archived, [item for item in plan.left if item.phase == "archive"], shared)
    if rest:
        # a review wants each run; on a terminal eleven lines that say the same hide the others
        groups = [[item] for item in rest] if form == "md" else _alike(rest)
        rows = [_rest_row(items, shared) for items in groups]
        size = human_bytes(sum(item.size for item in rest))
        title = f"Phase 4: left to gc, {size}; nothing is deleted here"
        blocks.append(Table(("run", "class", "size", "why"), rows, title, right=frozenset({"size"}), spare=("class",)))
    blocks += [f"Look at {_short(step.source, shared)}: {flag}." for step in kept for flag in step.flags]
    if output is None:
        blocks.append("Nothing was changed. `-o FILE` writes the plan, `--apply FILE` carries it out.")
    else:
        blocks.append(f"Nothing was changed. `holdfast registry consolidate --apply {output}` carries it out.")
    return blocks


def _named_table(kept: Sequence[Step], shared: str) -> list[str | Table]:
    rows = [
        (
            _short(step.source, shared),
            step.path if step.is_copied else "stays where it is",
            human_bytes(step.size),
            step.why,
        )
        for step in kept
    ]
    columns = ("run", "new place", "size", "why")
    title = "Phase 1: keep under standard names, as copies"
    return [Table(columns, rows, title, right=frozenset({"size"}), spare=("size",))] if rows else []


def _register_table(steps: Sequence[Step], left: Sequence[Left]) -> list[str | Table]:
    rows = [
        (
            step.name,
            "registered already" if step.known else "import" if step.kind == "import" else "register",
            _benchmark_text(step),
            _files_text(step),
        )
        for step in steps
    ]
    rows += [(item.path, "left out", "–", item.why) for item in left]
    columns = ("version", "what", "benchmarks", "files")
    return [Table(columns, rows, "Phase 2: register", spare=("what",))] if rows else []


def _archive_table(
    plan: ConsolidationPlan, steps: Sequence[Step], left: Sequence[Left], shared: str
) -> list[str | Table]:
    blocks: list[str | Table] = []
    if steps:
        rows = [(_short(step.source, shared), step.name, human_bytes(step.freed), _files_text(step)) for step in steps]
        rows += [(_short(item.path, shared), "stays", "0 B", item.why) for item in left]
        title = f"Phase 3: archive the weights in {plan.vault}, the rest stays"
        blocks.append(Table(("run", "as", "freed", "files"), rows, title, right=frozenset({"freed"})))
    elif left and plan.vault is None:
        size = human_bytes(sum(item.size for item in left))
        blocks.append(f"Phase 3 is skipped: {plan.no_vault}. It would archive {plural(len(left), 'run')}, {size}.")
    elif left:
        stays = [(_short(item.path, shared), item.why) for item in left]
        blocks.append(Table(("run", "why"), stays, "Phase 3: nothing to archive"))
    return blocks


def _shared_folder(plan: ConsolidationPlan) -> str:
    parents = {path.rpartition("/")[0] for path in plan.runs}
    return posixpath.commonpath(parents) if parents and "" not in parents else ""


def _short(path: str, shared: str) -> str:
    return path.removeprefix(f"{shared}/") if shared else path


def _alike(rest: Sequence[Left]) -> list[list[Left]]:
    """The runs of one class that are left for one reason, together."""
    groups: dict[tuple[str, str], list[Left]] = {}
    for item in rest:
        groups.setdefault((item.kind_of_run, item.why), []).append(item)
    return list(groups.values())


def _rest_row(items: Sequence[Left], shared: str) -> tuple[str, str, str, str]:
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    size = human_bytes(sum(item.size for item in items))
    return (f"{_short(items[0].path, shared)}{more}", items[0].kind_of_run, size, items[0].why)


def _benchmark_text(step: Step) -> str:
    found = [
        f"{name} {number_text(float(step.metrics[name]))}"
        for name in BENCHMARKS_SHOWN
        if isinstance(step.metrics.get(name), int | float)
    ]
    return ", ".join(found) or "–"


def _files_text(step: Step) -> str:
    return ", ".join(file.path for file in step.files)


def _done_blocks(plan: ConsolidationPlan, done: Consolidated) -> list[str | Table]:
    if not done.registered and not done.archived:
        return ["All of the plan was carried out before; nothing was changed."]
    lines: list[str | Table] = []
    if done.registered:
        lines.append(f"Registered {', '.join(done.registered)}.")
    if done.copied:
        lines.append(f"New, and tracked by DVC: {', '.join(done.copied)}.")
    if done.archived:
        lines.append(
            f"Archived {plural(len(done.archived), 'run')}: {human_bytes(done.freed)} ({done.freed:,} bytes) left the "
            "workspace."
        )
        lines += [f"`holdfast registry consolidate --restore {run}` brings its weights back." for run in done.archived]
    if done.stored:
        lines.append(f"The vault took {human_bytes(done.stored)}.")
    rest = [item for item in plan.left if item.phase == "gc"]
    if rest:
        size = human_bytes(sum(item.size for item in rest))
        lines.append(f"{plural(len(rest), 'run')} of {size} are left to gc: see the plan. Nothing of them was deleted.")
    lines.append("Commit what is in git's index, so that others have it.")
    return lines
