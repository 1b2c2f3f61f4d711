"""``holdfast registry tag``."""

from dataclasses import asdict

import click

from holdfast.atomic import write_atomically
from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, form_options, plural
from holdfast.cli.registry_places import here
from holdfast.cli.registry_tables import emit_quickly
from holdfast.errors import PartlyDoneError, UsageError
from holdfast.registry.artifacts import set_artifacts
from holdfast.registry.tags import TagPlan, plan_tags, push_tags, wanted_artifacts, write_tags
from holdfast.registry.tags_gto import open_tags
from holdfast.repo.dvcfiles import PIPELINE_FILE

COMMIT_DIGITS = 7


@click.command("tag", cls=Verb)
@click.argument("model", required=False, metavar="[MODEL]", shell_complete=completion_values.models)
@click.option("--artifacts", is_flag=True, help="Write `artifacts:` alone, and no tags: on a branch, before its merge.")
@click.option("--push", is_flag=True, help="Send the tags to the git remote, all or none.")
@click.option("-r", "--remote", metavar="NAME", help="The git remote (default: that of the branch's upstream).")
@click.option("-n", "--dry-run", is_flag=True, help="Say what is missing.")
@form_options
def tag(model: str | None, artifacts: bool, push: bool, remote: str | None, dry_run: bool, form: Form) -> None:
    """Make git tags in GTO's form for what the checked-out commit's registry says, of MODEL or of all.

    A version v3 is tagged app/name@v3.0.0, an alias app/name#production#7, with a new number for each assignment; so
    `gto show`, `dvc artifacts get` and DVC's other tools see the same registry. The top-level `artifacts:` of dvc.yaml,
    by which they find a model's file, is brought up to date in the workspace. Versions that they can find only from the
    commit of that change on wait for it: commit, and tag again. Ends with 3 where something waits.

    \b
    Examples:
      holdfast registry tag --dry-run
      holdfast registry tag digits/classifier --push
    """
    if artifacts and (push or remote):
        raise UsageError("--artifacts makes no tags, which --push would send", hint="Leave one of them out")
    project, registry = here()
    if model is not None:
        registry.model(model)  # says what there is
    place = project.root / PIPELINE_FILE
    before = place.read_bytes() if place.exists() else b""
    wanted = {name: item for name, item in wanted_artifacts(registry).items() if model in (None, name)}
    after = set_artifacts(before, wanted, PIPELINE_FILE) if wanted else before
    sent: list[str] = []
    plan = TagPlan((), (), (), ())
    if not artifacts:
        with open_tags(project.git_root) as tags:
            plan = plan_tags(project, tags, model)
            if not dry_run:
                write_tags(plan, tags)
    if after != before and not dry_run:
        write_atomically(place, after)
    if push and not dry_run:
        remote, sent = push_tags(project, [*plan.existing, *(item.name for item in plan.tags)], remote)
    payload = {
        "format": "holdfast registry tag 1",
        "done": not dry_run,
        "tags": [asdict(item) for item in plan.tags],
        "artifacts_changed": after != before,
        "waiting": list(plan.waiting),
        "notes": list(plan.notes),
        "pushed": sent,
        "remote": remote,
    }
    blocks = _blocks(plan, changed=after != before, dry_run=dry_run, tagging=not artifacts)
    if push and not dry_run:
        blocks.append(f"Sent {plural(len(sent), 'tag')} to {remote}." if sent else f"{remote} has all tags.")
    emit_quickly(form, payload, blocks)
    if plan.waiting and not dry_run:
        more = f", and {len(plan.waiting) - 1} more" if len(plan.waiting) > 1 else ""
        hint = f"Commit {PIPELINE_FILE}, and tag again" if after != before else "Commit, and tag again"
        raise PartlyDoneError(f"{plan.waiting[0]}{more}", hint=hint)


def _blocks(plan: TagPlan, *, changed: bool, dry_run: bool, tagging: bool) -> list[str | Table]:
    blocks: list[str | Table] = []
    if tagging:
        made = "to make" if dry_run else "made"
        blocks.append(f"{plural(len(plan.tags), 'tag')} {made}." if plan.tags else "Nothing is left to tag.")
    if plan.tags:
        rows = [
            (item.name, item.kind, item.model, " ".join(part for part in (item.alias, item.version) if part),
             item.commit[:COMMIT_DIGITS])
            for item in plan.tags
        ]  # fmt: skip
        blocks.append(Table(("tag", "what", "model", "which", "commit"), rows, spare=("model", "which")))
    if changed:
        written = "lacks artifacts, which would be written" if dry_run else "has new artifacts: commit it"
        blocks.append(f"{PIPELINE_FILE} {written}.")
    elif not tagging:
        blocks.append(f"The artifacts of {PIPELINE_FILE} are up to date.")
    blocks += [f"Waiting: {told}." for told in plan.waiting]
    blocks += [f"Note: {told}." for told in plan.notes]
    return blocks
