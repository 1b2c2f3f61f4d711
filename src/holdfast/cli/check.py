"""``holdfast check``: a clean-up stays clean."""

from pathlib import Path

import click

from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, plural
from holdfast.inventory.canonical import CheckReport, Finding, check, find_canon
from holdfast.inventory.canonical_rules import Deprecation
from holdfast.repo.workspace import CONFIG_FILE, find_config

NOTES_SHOWN = 5
TOPS = (".git", ".dvc")
FOUND = 1
REGISTRY = "registry"
FIRST_RULE = "canonical: {models: [{use: models/*_best.pth, not: models/*_old.pth}]}"


@click.command(cls=Verb)
@click.argument("files", nargs=-1, metavar="[FILES...]", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take the rules and the registry of DIR instead of the current folder's.",
)
@click.option("--mentions", is_flag=True, help="Count comments, messages and documents that name them, too.")
@form_options
def command(files: tuple[Path, ...], root: Path | None, mentions: bool, form: Form) -> int:
    """Find references to what is not canonical, each with the right name.

    Rules on models and modules stand under `canonical:` in holdfast.yaml. Deprecated versions of registered models, and
    models in a folder called archive, are found without a rule. FILES are sources or folders (default: the whole tree);
    what is no text source is passed over. Ends with 1 where there are findings.

    \b
    Examples:
      holdfast check
      holdfast check scripts/train.py notebooks
      holdfast check --mentions --md
    """
    top = _top(root or Path.cwd())
    canon = find_canon(top)
    has_registry = any((top / REGISTRY).glob("*/*/model.yaml"))
    if not canon.rules and not has_registry:
        report = CheckReport((), 0, 0)
        hint = f"Nothing to check: no registry, and no rules in {CONFIG_FILE}. A first one: {FIRST_RULE}"
        emit(form, report.to_json(), [hint])
        return 0
    report = check(
        top,
        canon,
        files=files or None,
        deprecations=_deprecations(top) if has_registry else (),
        skipped=frozenset({REGISTRY}) if has_registry else frozenset(),
        mentions=mentions,
    )
    if form == "text":
        # not through a console, which would break them at the width of the terminal: one line is one finding
        for finding in report.findings:
            click.echo(f"{finding.place}: {finding.message}")
    emit(form, report.to_json(), _blocks(report, form))
    return FOUND if report.findings else 0


def _top(start: Path) -> Path:
    """The folder that paths are seen from: that of the rules, else the top of the project or repository, else here."""
    here = start.resolve()
    if (config := find_config(here)) is not None:
        return config.parent
    return next((place for place in (here, *here.parents) if any((place / mark).exists() for mark in TOPS)), here)


def _deprecations(top: Path) -> list[Deprecation]:
    # imported here: 20 ms that a project without a registry need not pay
    from holdfast.registry.store import Registry

    registry = Registry(top)
    result = []
    for model in registry.models():
        reasons = {name: item.reason for name, item in model.deprecations.items()}
        kept = {version.path for version in model.versions if version.name not in reasons}
        current = model.version(model.current or "") if model.current not in reasons else None
        name, place = (current.name, current.path) if current is not None else ("", "")
        result += [
            Deprecation(model.id, version.name, version.path, name, place, reasons[version.name])
            if version.path not in kept
            else Deprecation(model.id, version.name, "", name, "", reasons[version.name])
            for version in model.versions
            if version.name in reasons
        ]
    return result


def _blocks(report: CheckReport, form: Form) -> list[str | Table]:
    blocks: list[str | Table] = [_sentence(report)]
    if form == "md" and report.findings:
        rows = [(item.place, item.fault, _right(item)) for item in report.findings]
        blocks.append(Table(("where", "what is wrong", "right name"), rows))
    blocks += [f"Note: {note}." for note in report.notes[:NOTES_SHOWN]]
    if len(report.notes) > NOTES_SHOWN:
        blocks.append(f"… and {plural(len(report.notes) - NOTES_SHOWN, 'note')} more; `--json` lists all.")
    return blocks


def _sentence(report: CheckReport) -> str:
    files = len({finding.file for finding in report.findings})
    where = f"{files} of {plural(report.sources, 'source')}" if files else plural(report.sources, "source")
    excused = f"; {plural(report.allowed, 'place')} allowed by a comment" if report.allowed else ""
    found = plural(len(report.findings), "finding") if report.findings else "No findings"
    return f"{found} in {where}{excused}."


def _right(finding: Finding) -> str:
    return "; ".join(part for part in (f"`{finding.right}`" if finding.right else "", finding.note) if part)
