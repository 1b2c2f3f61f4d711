"""``holdfast registry promote``."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, plural
from holdfast.cli.registry_places import here, stores_of_project, today
from holdfast.cli.registry_register import _from_files as from_files
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import GateRefusedError, UsageError
from holdfast.registry.document import read_yaml
from holdfast.registry.entries import check_model_id
from holdfast.registry.gate_rules import SECTION, GateRules, read_rules
from holdfast.registry.gate_verdict import Judgement
from holdfast.registry.promotion import Promotion, promote_checkpoint
from holdfast.registry.promotion_source import Candidate
from holdfast.registry.rewriting import RewritePlan, plan_rewrites
from holdfast.registry.rewriting_commit import commit_rewrites, refuse_uncommitted, undo_unfinished
from holdfast.repo.git_commands import run_git

PARAMS = "params.yaml"

file_type = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("promote", cls=Verb)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--as",
    "model",
    metavar="MODEL",
    required=True,
    shell_complete=completion_values.models,
    help="The model's name: app/name.",
)
@click.option("--weights", metavar="FILE", help="Of a folder: the file of weights, from the folder.")
@click.option("--config", metavar="FILE", type=file_type, help="The configuration to put beside the model.")
@click.option("--metrics", metavar="FILE", multiple=True, type=file_type, help="Take metrics from a JSON or YAML file.")
@click.option("--predictions", metavar="FILE", type=file_type, help="Its predictions of the test set, a CSV.")
@click.option("--params", metavar="FILE", multiple=True, type=file_type, help="Take params from a JSON or YAML file.")
@click.option("--no-convert", is_flag=True, help="Leave a torch checkpoint what it is, and make no safetensors of it.")
@click.option("--rewrite-refs", is_flag=True, help="Lead what refers to SOURCE to the new path, and commit all of it.")
@click.option("--override", metavar="REASON", help="Promote it though the gate refuses; the version keeps the reason.")
@click.option("--description", metavar="TEXT", default="", help="One line on a new model.")
@click.option("-n", "--dry-run", is_flag=True, help="Judge it, and say what would be done.")
@click.option("-y", "--yes", is_flag=True, help="Rewrite and commit without asking.")
@form_options
def promote(
    source: Path,
    model: str,
    weights: str | None,
    config: Path | None,
    metrics: tuple[Path, ...],
    predictions: Path | None,
    params: tuple[Path, ...],
    no_convert: bool,
    rewrite_refs: bool,
    override: str | None,
    description: str,
    dry_run: bool,
    yes: bool,
    form: Form,
) -> None:
    """Judge SOURCE, a checkpoint or a folder with one; where the gate lets it pass, put it into use.

    It is copied to models/<app>/<name>, as safetensors where it is a torch checkpoint, tracked with DVC and registered;
    `current` and `production` move to it. Configuration, model card, predictions and the application's README lie
    beside it. SOURCE stays as it is. The gate is `promote:` in params.yaml; where it refuses, nothing changes and this
    ends with 12. Weights that are registered already are not promoted again.

    \b
    Examples:
      holdfast registry promote outputs/train/best_model.pt --as digits/classifier --metrics metrics/evaluate.json
      holdfast registry promote outputs/run_18 --weights best_model.pt --as album/scorer --rewrite-refs --yes
    """
    check_model_id(model)
    if rewrite_refs and not dry_run and not yes and (form != "text" or not _is_asked()):
        raise UsageError("--rewrite-refs asks before it commits, and nobody can answer", hint="Agree with --yes")
    project, _ = here()
    candidate = Candidate(
        source=source,
        weights_file=weights,
        convert=not no_convert,
        config=None if config is None else config.read_bytes(),
        config_suffix=".yaml" if config is None else config.suffix.replace(".yml", ".yaml") or ".yaml",
        params=from_files(params),
        metrics=from_files(metrics),
        predictions=predictions,
        description=description,
        keep_metadata=True,
    )
    rules, note = _rules(project.root, model)
    stores = stores_of_project(project)

    def carried_out(*, dry: bool) -> Promotion:
        return promote_checkpoint(
            project.root, model, candidate, today=today(), rules=rules, stores=stores, override=override,
            pipeline=False, dry_run=dry,
        )  # fmt: skip

    plan, commit = None, None
    try:
        if rewrite_refs:
            undo_unfinished(project.root)
            done = carried_out(dry=True)
            if done.refused and not dry_run:
                done = carried_out(dry=False)  # writes the verdict down
            elif not done.refused and (done.current == (done.version.name if done.version else None)):
                plan = plan_rewrites(project.root, done.moves)
                refuse_uncommitted(project.root, plan.files)
                if not dry_run:
                    if not yes and not _agreed(plan, done):
                        click.echo("Nothing was done.")
                        return
                    done = carried_out(dry=False)
                    commit = _committed(project.root, plan, done, str(source))
        else:
            done = carried_out(dry=dry_run)
    finally:
        stores.close()
    payload = _payload(done, plan, commit, dry_run=dry_run)
    uncommitted = commit is None and not dry_run and _has_changes(project.root, done)
    # whoever was asked has seen the diff
    emit_quickly(form, payload, _blocks(done, plan, commit, note, dry_run=dry_run, show_diff=yes or dry_run))
    if uncommitted and form == "text":
        click.echo("Commit it: git has the files in its index.")
    if done.refused:
        raise GateRefusedError(
            f"the gate refuses {source} as {model}: {done.judgement.summary()}",
            hint="--override REASON promotes it all the same",
        )


def _rules(root: Path, model: str) -> tuple[GateRules, str]:
    """The project's gate, and what there is to say of it; one that names another model is not this model's."""
    file = root / PARAMS
    if not file.is_file():
        return GateRules(), f"There is no {PARAMS}: nothing is asked of it."
    rules = read_rules(file)
    section = read_yaml(file.read_bytes().decode("utf-8-sig"), PARAMS).get(SECTION)
    named = section.get("model") if isinstance(section, dict) else None
    if named is not None and named != model:
        return GateRules(), f"The gate in {PARAMS} is that of {named}: nothing is asked of {model}."
    return rules, "" if rules != GateRules() else f"{PARAMS} has no gate: nothing is asked of it."


def _is_asked() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _agreed(plan: RewritePlan, done: Promotion) -> bool:
    for line in done.judgement.lines():
        click.echo(line)
    click.echo(plan.diff(), nl=False)
    for left in plan.left:
        click.echo(f"left: {left.place}: {left.text}: {left.why}")
    name = done.version.name if done.version else ""
    return click.confirm(
        f"Promote {done.model}@{name}, rewrite {plural(len(plan.files), 'file')} and commit?", default=False
    )


def _committed(root: Path, plan: RewritePlan, done: Promotion, source: str) -> str | None:
    """The commit; None where an earlier run made it already."""
    assert done.version is not None
    changed = _has_changes(root, done)
    if not plan.files and not changed:
        return None
    message = f"Promote {source} to {done.model}@{done.version.name}"
    return commit_rewrites(plan, message, also=done.paths if changed else ())


def _has_changes(root: Path, done: Promotion) -> bool:
    """Whether a file of the promotion differs from what is committed."""
    return bool(done.paths and run_git(root, "status", "--porcelain", "--untracked-files=all", "--", *done.paths))


def _payload(done: Promotion, plan: RewritePlan | None, commit: str | None, *, dry_run: bool) -> dict[str, Any]:
    return {
        "format": "holdfast registry promote 1",
        "done": not dry_run and not done.refused,
        "model": done.model,
        "verdict": done.judgement.verdict,
        "champion": done.champion,
        "lost": done.lost,
        "rules": [asdict(replace(finding, numbers=dict(finding.numbers))) for finding in done.judgement.findings],
        "registered": done.registered and not done.refused,
        "current": done.current,
        "version": None if done.version is None else done.version.as_json(),
        "paths": list(done.paths),
        "rewriting": None if plan is None else plan.to_json(),
        "commit": commit,
    }


def _blocks(
    done: Promotion, plan: RewritePlan | None, commit: str | None, note: str, *, dry_run: bool, show_diff: bool
) -> list[str | Table]:
    blocks: list[str | Table] = [note] if note and done.registered else []
    blocks += _judged(done.judgement, done)
    blocks.append(_told(done, dry_run=dry_run))
    if plan is not None:
        if show_diff and plan.files:
            blocks.append(plan.diff().rstrip("\n"))
        verb = "Would rewrite" if dry_run else "Rewrote"
        blocks.append(f"{verb} what refers to it in {plural(len(plan.files), 'file')}.")
        if plan.left:
            rows = [(left.place, left.text, left.why) for left in plan.left]
            blocks.append(Table(("left to you", "says", "why"), rows, spare=("says",)))
    if commit is not None:
        blocks.append(f"Committed as {commit[:7]}: `git revert {commit[:7]}` and `dvc checkout` undo it.")
    return blocks


def _judged(judgement: Judgement, done: Promotion) -> list[str | Table]:
    if not judgement.findings:
        return []
    rows = [(finding.verdict, finding.rule, finding.reason) for finding in judgement.findings]
    against = f" against {judgement.champion}" if judgement.champion else ""
    earlier = "" if done.registered or done.refused else " when it was registered"
    return [Table(("verdict", "rule", "reason"), rows, title=f"The gate: {judgement.verdict}{against}{earlier}")]


def _told(done: Promotion, *, dry_run: bool) -> str:
    if done.version is None:
        stays = f"{done.current} stays current" if done.current else "there is no version yet"
        return f"Nothing was registered, and nothing moved: {stays}."
    name = f"{done.model}@{done.version.name}"
    if done.registered:
        overridden = f" The gate was overridden: {done.version.overridden}." if done.version.overridden else ""
        verb = "Would promote" if dry_run else "Promoted"
        return f"{verb} {name}: {done.stable} holds it, and current and production are on it.{overridden}"
    if done.current == done.version.name:
        return f"{name} has these weights already, and is current."
    return (
        f"{name} has these weights already, and {done.current} stays current; "
        f"`holdfast registry rollback {done.model} --to {done.version.name}` puts it into use."
    )
