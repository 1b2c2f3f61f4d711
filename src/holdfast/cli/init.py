"""``holdfast init``: what a git repository needs, proposed and written."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, one_line, plural, printable
from holdfast.cli.scan import scan_project
from holdfast.errors import UsageError
from holdfast.inventory.run_rules import RUN_CLASSES
from holdfast.inventory.run_verdicts import sort_folder
from holdfast.objectstore.location import is_url
from holdfast.project.collaboration import is_owner
from holdfast.project.dvc_files import first_remote
from holdfast.project.git_state import find_repository
from holdfast.project.pipeline import Pipeline, is_predictions, is_scaffolded
from holdfast.project.setup import Setup, Wishes, footprint, propose, write
from holdfast.project.survey import PRE_COMMIT, Survey, is_set_up, take_survey
from holdfast.project.training_script import find_scripts, read_script
from holdfast.project.workflows import Service
from holdfast.registry.entries import MODEL_ID
from holdfast.repo.dvc import default_remote, remotes
from holdfast.repo.git_commands import run_git
from holdfast.repo.workspace import DVC_FOLDER

Item = TypeVar("Item")

LISTED = 3
ANSWERS = ("y", "n", "e")


@dataclass(frozen=True)
class Named:
    """What the user says of the pipeline's script."""

    script: str | None = None
    checkpoint: str | None = None
    metrics: str | None = None
    predictions: str | None = None
    model: str | None = None


def _owner(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not is_owner(text):
        raise click.BadParameter("it is @user, @organisation/team or an address.")
    return text


def _model(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    if text is not None and not MODEL_ID.fullmatch(text):
        raise click.BadParameter("it is app/name, in lower-case letters, digits, - and _.")
    return text


@click.command("init", cls=Verb)
@click.option("-y", "--yes", is_flag=True, help="Write everything without asking.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be written, line by line.")
@click.option(
    "--remote", metavar="PLACE", help="Begin with this remote: a folder, s3://…, r2://ACCOUNT/BUCKET, gs://…."
)
@click.option(
    "--ci", type=click.Choice(["github", "gitlab", "none"]), help="Workflows for this service; else what is in use."
)
@click.option(
    "--owner", metavar="WHO", callback=_owner, help="Who approves changes of the registry: @team, an address."
)
@click.option("--subdir", is_flag=True, help="Make the current folder a project of its own, below git's top.")
@click.option("--template", type=click.Choice(["pipeline"]), help="Scaffold the stages train, evaluate and promote.")
@click.option("--script", metavar="FILE", help="The training script of the stages; else the one that saves weights.")
@click.option("--checkpoint", metavar="FILE", help="The weights that it writes; else what it saves.")
@click.option("--metrics", metavar="FILE", help="The JSON file of metrics that it writes; else the one that it names.")
@click.option(
    "--predictions", metavar="FILE", help="A CSV of id, label and prediction that it writes; else one that is there."
)
@click.option("--model", metavar="APP/NAME", callback=_model, help="What the registry is to call the model.")
@form_options
def command(
    yes: bool,
    dry_run: bool,
    remote: str | None,
    ci: str | None,
    owner: str | None,
    subdir: bool,
    template: str | None,
    script: str | None,
    checkpoint: str | None,
    metrics: str | None,
    predictions: str | None,
    model: str | None,
    form: Form,
) -> None:
    """Prepare a git repository for Holdfast.

    Looks at what is there, proposes what is missing, and writes it: DVC with a first remote,
    holdfast.yaml, the registry's folder and its owners, hooks, workflows. Files that are there are added to, or left as
    they are with a line that says what to add; nothing is moved, deleted or committed. May be run again. What was
    written is undone by the line that it prints.

    \b
    Examples:
      holdfast init --dry-run
      holdfast init --yes --remote s3://bucket/models --ci github
      holdfast init --template pipeline --script src/train.py
    """
    named = Named(script, checkpoint, metrics, predictions, model)
    if template is None and named != Named():
        raise UsageError("--script and what describes it belong to a pipeline", hint="Add `--template pipeline`")
    start = Path.cwd()
    git_root = find_repository(start)
    root = _project_folder(git_root, start, subdir=subdir)
    survey = _survey(git_root, root)
    asks = form == "text" and sys.stdin.isatty() and not yes and not dry_run
    scaffolds = template is not None and not is_scaffolded(root)
    pipeline = _pipeline(survey, named, asks=asks) if scaffolds else None
    service = survey.service if ci is None else ci
    wishes = Wishes(
        first_remote(root, remote),
        cast(Service, service) if service in ("github", "gitlab") else None,
        owner,
        run_git(git_root, "config", "user.email") or None,
        pipeline,
    )
    setup = propose(survey, wishes)
    blocks = [*_found(survey), *_proposed(setup, dry_run=dry_run)]
    if remote is not None and survey.remotes:
        blocks.append(f"DVC has remotes: {', '.join(survey.remotes)}; `holdfast remote setup` adds another one.")
    if asks and setup.proposals:
        emit("text", {}, blocks)
        blocks = []
        setup = _chosen(setup)
    agreed = (yes or asks) and not dry_run and bool(setup.proposals)
    payload = _payload(survey, setup)  # before anything is there
    if agreed:
        touched = footprint(setup)
        write(setup)
        payload |= {"written": True, "undo": touched.undo(start)}
        told = f"Written: {plural(len(setup.proposals), 'file')}. This undoes it:\n\n  {payload['undo']}\n"
        steps = "\n".join(["Next:", "", *(f"- {step}" for step in _next(survey, setup, touched.add(start), remote))])
        if form == "text":
            emit("text", {}, blocks)
            # not through a console, which would break a line for a shell at the width of the terminal
            click.echo(printable(f"{told}\n{steps}"))
            return
        blocks += [told, steps]
    elif setup.proposals:
        blocks.append(
            f"Nothing is written. `--yes` writes it{'' if dry_run else ', `--dry-run` shows it line by line'}."
        )
    elif asks:
        blocks.append("Nothing is written.")
    emit(form, payload, blocks)


def _project_folder(git_root: Path, start: Path, *, subdir: bool) -> Path:
    start = start.resolve()
    if subdir:
        return start
    for folder in (start, *start.parents):
        if (folder / DVC_FOLDER).is_dir() or folder == git_root:
            break
    if folder != start and not (folder / DVC_FOLDER).is_dir():
        hint = f"`holdfast --cd {git_root} init` prepares all of it, `--subdir` this folder alone"
        raise UsageError(f"{start} is not the top of its repository, {git_root}", hint=hint)
    return folder


def _survey(git_root: Path, root: Path) -> Survey:
    urls: dict[str, str] = {}
    default = None
    if is_set_up(root):
        urls = {name: str(section.get("url", "")) for name, section in remotes(root).items()}
        default = default_remote(root)
    scan = scan_project(git_root, weights=False)
    sorting = sort_folder(root, datetime.now(timezone.utc))
    return take_survey(git_root, root, scan, sorting, remotes=urls, default_remote=default)


def _pipeline(survey: Survey, named: Named, *, asks: bool) -> Pipeline:
    prefix = survey.prefix
    paths = [file.label.removeprefix(prefix) for file in survey.scan.files if file.label.startswith(prefix)]
    if named.script is not None:
        found = read_script(survey.root, _from_root(survey.root, named.script), paths)
        if found is None:
            hint = "--script names the training script"
            raise UsageError(f"{named.script} is no Python script that can be read", hint=hint)
    else:
        scripts = find_scripts(survey.root, paths)
        found = _one(scripts, lambda item: item.path, "training script", "--script", asks=asks)

    def file(given: str | None, read: Sequence[str], what: str, option: str) -> str:
        if given is not None:
            return _from_root(survey.root, given)
        return _one(read, str, f"{what} of {found.path}", option, asks=asks)

    checkpoint = file(named.checkpoint, found.checkpoints, "checkpoint", "--checkpoint")
    metrics = file(named.metrics, found.metrics, "JSON file of metrics", "--metrics")
    there = (path for path in found.predictions if is_predictions(survey.root / path))
    predictions = next(there, None) if named.predictions is None else _from_root(survey.root, named.predictions)
    return Pipeline(found, checkpoint, metrics, named.model or f"{_plain(survey.git_root.name)}/model", predictions)


def _one(found: Sequence[Item], name: Callable[[Item], str], what: str, option: str, *, asks: bool) -> Item:
    """The only one; where there are several, the one that the user says."""
    if len(found) == 1:
        return found[0]
    names = [name(item) for item in found]
    if len(found) > 1 and asks:
        chosen = click.prompt(f"Which {what}", type=click.Choice(names), err=True)
        return found[names.index(chosen)]
    told = f"several: {', '.join(names[:LISTED])}{', …' if len(names) > LISTED else ''}" if names else "none is found"
    raise UsageError(f"which {what} is meant is not clear ({told})", hint=f"`{option} FILE` names it")


def _from_root(root: Path, name: str) -> str:
    place = Path(name).resolve()
    if not place.is_relative_to(root):
        raise UsageError(f"{name} is not in the project {root}", hint="Name a file of the project")
    return place.relative_to(root).as_posix()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "app"


def _found(survey: Survey) -> Iterator[str]:
    scan, sorting = survey.scan, survey.sorting
    lines = []
    if scan.models:
        size = human_bytes(sum(model.size for model in scan.models if model.link is None))
        used = sum(model.used.references > 0 for model in scan.models)
        lines.append(f"models: {plural(len(scan.models), 'file')}, {size}; {used} are named by scripts")
    if sorting.runs:
        kinds = [(kind, len(sorting.of_kind(kind))) for kind in RUN_CLASSES]
        lines.append(f"runs: {len(sorting.runs)} ({', '.join(f'{count} {kind}' for kind, count in kinds if count)})")
    lines += [f"another registry: {file.path}" for file in sorting.scan.registries]
    if survey.has_dvc:
        lines.append(
            f"DVC: set up{', remotes ' + ', '.join(survey.remotes) if survey.remotes else ', without a remote'}"
        )
    if survey.lfs:
        lines.append(f"Git LFS: {', '.join(survey.lfs[:LISTED])}; docs/how-to/migrate-from-git-lfs.md moves it")
    if survey.mlflow:
        lines.append(f"MLflow: {', '.join(survey.mlflow[:LISTED])}; docs/how-to/migrate-from-mlflow.md moves it")
    if survey.in_git:
        size = human_bytes(sum(size for _, size in survey.in_git))
        shown = ", ".join(one_line(path) for path, _ in survey.in_git[:LISTED])
        lines.append(
            f"large files in git: {len(survey.in_git)}, {size}: {shown}{', …' if survey.in_git[LISTED:] else ''}"
        )
    if existing := survey.existing():
        lines.append(f"set up already: {', '.join(existing)}")
    place = survey.root if survey.prefix else survey.git_root
    yield "\n".join([f"{place} has:", "", *(f"- {line}" for line in lines or ["nothing of models or runs"]), ""])


def _proposed(setup: Setup, *, dry_run: bool) -> Iterator[str | Table]:
    if not setup.proposals:
        yield "Nothing is to be written: the repository is set up."
    elif dry_run:
        yield from (f"{item.why}\n\n{item.diff()}" for item in setup.proposals)
    else:
        rows = [(one_line(item.path), "new" if item.is_new else "added to", item.why) for item in setup.proposals]
        yield Table(("file", "is", "why"), rows)
    if setup.left:
        told = [f"- {one_line(item.path)}: {item.why}. What it lacks: {item.add}" for item in setup.left]
        yield "\n".join(["Left to you:", "", *told, ""])
    if setup.dirty:
        yield f"Commit first: {', '.join(setup.dirty)} would be added to, and a commit has to have what is there."


def _chosen(setup: Setup) -> Setup:
    """What the user agrees to: all, nothing, or some of it."""
    question = "Write this? [y]es, [n]o, [e]ach on its own"
    answer = click.prompt(question, type=click.Choice(ANSWERS), default="y", show_choices=False, err=True)
    if answer != "e":
        return setup if answer == "y" else setup.of(set())
    taken = set()
    for item in setup.proposals:
        click.echo(f"\n{item.why}\n\n{item.diff()}", err=True)
        if click.confirm(f"Write {one_line(item.path)}?", default=True, err=True):
            taken.add(item.path)
    return setup.of(taken)


def _next(survey: Survey, setup: Setup, add: str, remote: str | None) -> Iterator[str]:
    written = {item.path for item in setup.proposals}
    yield f"`{add}` and `git commit`, after a look"
    if remote is not None and is_url(remote) and not survey.remotes:
        yield "keys of the remote: in the environment, or `holdfast remote setup … --credentials FILE`, never in git"
    if PRE_COMMIT in written:
        yield "`pip install pre-commit`, then `pre-commit install -t pre-commit -t pre-push`: git runs the hooks"
    untracked = [model for model in survey.scan.models if model.tracked == "none"]
    loose = [model for model in untracked if model.status in ("primary", "secondary")]
    if loose:
        count = plural(len(loose), "model")
        yield f"`dvc add {one_line(loose[0].path)}` tracks a model; nobody tracks {count} that scripts use"
    if survey.sorting.runs:
        yield "`holdfast registry consolidate --plan` puts the runs in order"
    if any(path.endswith("dvc.yaml") for path in written):
        yield "`dvc repro` trains, scores and promotes"
    yield "`holdfast doctor` says what else is amiss"


def _payload(survey: Survey, setup: Setup) -> dict[str, Any]:
    return {
        "format": "holdfast init 1",
        "git_root": str(survey.git_root),
        "root": str(survey.root),
        "found": {
            "models": len(survey.scan.models),
            "model_bytes": sum(model.size for model in survey.scan.models if model.link is None),
            "runs": len(survey.sorting.runs),
            "registries": [file.path for file in survey.sorting.scan.registries],
            "dvc": survey.has_dvc,
            "remotes": survey.remotes,
            "git_lfs": list(survey.lfs),
            "mlflow": list(survey.mlflow),
            "large_in_git": [{"path": path, "bytes": size} for path, size in survey.in_git],
            "service": survey.service,
        },
        "files": [
            {"path": item.path, "new": item.is_new, "why": item.why, "diff": item.diff()} for item in setup.proposals
        ],
        "left": [{"path": item.path, "why": item.why, "add": item.add} for item in setup.left],
        "uncommitted": list(setup.dirty),
        "written": False,
        "undo": "",
    }
