"""``holdfast report html``: one page of all that is known of a project."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, time, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holdfast.atomic import write_atomically
from holdfast.cli.caches import PROJECT_PLACE, digest_cache, reference_memory
from holdfast.cli.groups import Verb
from holdfast.cli.output import plural, write_or_print
from holdfast.errors import HoldfastError, PartlyDoneError, UsageError
from holdfast.repo.workspace import Project, find_project
from holdfast.report.html import Facts, Fault, charting_library, charting_version, html_report

if TYPE_CHECKING:
    from holdfast.registry.entries import Model


@click.command("html", cls=Verb)
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write to FILE.")
@click.option(
    "--date",
    "day",
    metavar="YYYY-MM-DD",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Count ages to the end of this day, not to the newest commit.",
)
@click.option("--online", is_flag=True, help="Ask a vault for its figures, too, that is not on this machine.")
def html(output: Path | None, day: datetime | None, online: bool) -> None:
    """Write models, experiments, runs, storage and lineage as one page that opens offline; changes nothing.

    The same repository gives the same bytes. What cannot be read is named on the page, and the command ends with 3.

    \b
    Examples:
      holdfast report html -o report.html
      holdfast report html --date 2026-11-20 -o report.html
    """
    if output is None and sys.stdout.isatty():
        raise UsageError("a page of a megabyte is nothing for a terminal", hint="Write it to a file: -o report.html")
    project = find_project(Path.cwd())
    charts = charting_code(project)
    moment = None if day is None else datetime.combine(day, time.max, timezone.utc)
    facts = gather_facts(project, moment, online=online)
    write_or_print(html_report(facts, charts), output)
    if facts.faults:
        rest = f", and {plural(len(facts.faults) - 1, 'more part')}" if len(facts.faults) > 1 else ""
        raise PartlyDoneError(f"the page lacks what could not be read: {facts.faults[0].text}{rest}")


def charting_code(project: Project) -> str:
    """The charting library, which is put together once for each version of it.

    Raises:
        NoReportExtraError: it is not installed.
    """
    place = project.root / PROJECT_PLACE / f"charts-{charting_version()}.js"
    try:
        return place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        code = charting_library()
    with contextlib.suppress(OSError):  # a project that cannot be written has it put together each time
        write_atomically(place, code)
    return code


def gather_facts(project: Project, moment: datetime | None, *, online: bool = False) -> Facts:
    """All that the page says; a part that cannot be read is a fault, and the others are there.

    Args:
        project: whose.
        moment: that ages are counted to; None for the time of the newest commit of any branch or experiment.
        online: whether a vault on another machine is asked.
    """
    gatherer = _Gatherer(project)
    gatherer.read_git()
    when = moment or gatherer.newest
    return Facts(
        project=project.root.name,
        branch=gatherer.branch,
        commit=gatherer.commit,
        subject=gatherer.subject,
        moment=f"{when:%Y-%m-%dT%H:%M:%SZ}",
        models=gatherer.part("models", gatherer.models),
        experiments=gatherer.part("experiments", gatherer.experiments),
        runs=gatherer.part("runs", lambda: gatherer.runs(when)),
        scan=gatherer.part("storage", gatherer.scan),
        vault=gatherer.part("storage", lambda: gatherer.vault(online)),
        plan=gatherer.part("plan", lambda: gatherer.plan(when)),
        faults=tuple(gatherer.faults),
        notes=tuple(gatherer.notes),
    )


class _Gatherer:
    """Asks each room for its part, which is loaded then: help needs none of them."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.faults: list[Fault] = []
        self.branch = self.commit = self.subject = ""
        self.newest = datetime(1970, 1, 1, tzinfo=timezone.utc)
        self._models: Sequence[Model] = ()
        self._folder: Any = None
        self._states: Any = None

    @property
    def notes(self) -> list[str]:
        """What was passed over."""
        return list(self._states.notes) if self._states is not None else []

    def part(self, name: str, read: Callable[[], Any]) -> Any:
        """What a room says, or None and a fault."""
        try:
            return read()
        except HoldfastError as error:
            self.faults.append(Fault(name, " ".join(str(error).split())))
        except OSError as error:
            self.faults.append(Fault(name, f"{error.filename or name}: {error.strerror or error}"))
        return None

    def read_git(self) -> None:
        """The commit that is checked out, and what reads all others."""
        self.part("page", self._read_git)

    def _read_git(self) -> None:
        from holdfast.repo.gitfolder import find_git_folder
        from holdfast.repo.objects import GitObjects
        from holdfast.repo.refs import list_tips
        from holdfast.report.html_states import States

        self._folder = find_git_folder(self.project.git_root)
        self._states = States(self.project, GitObjects(self._folder))
        current, commit = self._folder.head()
        self.branch, self.commit = (current or "").removeprefix("refs/heads/"), commit or ""
        times = [
            found.time
            for tip in list_tips(self._folder, self._states.objects)
            if (found := self._states.objects.find_commit(tip.origin.commit)) is not None
        ]
        if times:
            self.newest = datetime.fromtimestamp(max(times), timezone.utc)
        if commit is not None:  # which is there, else the tips were not read
            self.subject = self._folder.repository[commit].message.strip().partition("\n")[0]

    def models(self) -> list[dict[str, Any]]:
        """The registry."""
        from holdfast.registry.history import RegistryHistory
        from holdfast.registry.store import Registry
        from holdfast.report.html_models import models_json, read_models

        try:
            history = RegistryHistory(self.project)
        except HoldfastError as error:
            history = None
            self.faults.append(Fault("models", " ".join(str(error).split())))
        found = read_models(Registry(self.project.root), history)
        self.faults += [Fault("models", text) for text in found.faults]
        self._models = found.models
        return models_json(found, self._states, self._directions)

    def experiments(self) -> dict[str, Any] | None:
        """DVC's experiments."""
        from holdfast.report.html_experiments import experiments_json, read_experiments

        if self._folder is None:
            self.faults.append(Fault("experiments", self.faults[0].text))  # why git is not read
            return None
        return experiments_json(read_experiments(self._folder, self._states), self._directions)

    def runs(self, when: datetime) -> dict[str, Any]:
        """The folders of runs."""
        from holdfast.inventory.run_verdicts import sort_folder
        from holdfast.report.html_runs import runs_json

        return runs_json(sort_folder(self.project.root, when))

    def scan(self) -> dict[str, Any]:
        """The model files; their weights are not read for it."""
        from holdfast.inventory.scan import read_scan_rules, scan_tree
        from holdfast.inventory.scan_judge import Registered
        from holdfast.report.html_storage import scan_json

        root = self.project.root
        # of those models that can be read; the others are told of beside them
        registered = [
            Registered(f"{model.id}@{version.name}", version.oid, version.weights)
            for model in self._models
            for version in model.versions
        ]
        with digest_cache(root) as cache, contextlib.closing(reference_memory(root)) as memory:
            return scan_json(
                scan_tree(
                    self.project.git_root,
                    cache,
                    within=self.project.prefix,
                    rules=read_scan_rules(root),
                    registered=registered,
                    memory=memory,
                    weights=False,
                )
            )

    def vault(self, online: bool) -> dict[str, Any] | None:
        """The vault, where there is one at hand."""
        from holdfast.cli.registry_places import project_vault
        from holdfast.cli.vaults import vault_url
        from holdfast.objectstore.location import locate
        from holdfast.report.html_storage import vault_json
        from holdfast.vault.stats import vault_stats

        try:
            far = locate(vault_url(self.project)).scheme != "file"
        except HoldfastError:
            return None  # the project names none
        if far and not online:
            return None
        vault = project_vault(self.project)
        if vault is None:
            return None
        with vault:
            vault.refresh()
            return vault_json(vault_stats(vault))

    def plan(self, when: datetime) -> dict[str, Any]:
        """What of DVC's cache could go, without a question to other places."""
        from holdfast.cli.gc_text import REASONS
        from holdfast.cli.gc_world import world_of
        from holdfast.gc.plan import Request
        from holdfast.gc.planning import make_plan
        from holdfast.report.html_storage import plan_json

        with world_of(self.project) as world:
            request = Request(offline=True)
            return plan_json(make_plan(world, request, now=when.timestamp(), ask_for_copies=False), REASONS)

    @property
    def _directions(self) -> dict[str, Any]:
        from holdfast.cli.registry_columns import gate_metrics

        return dict(gate_metrics(self.project.root, None, 0).directions)
