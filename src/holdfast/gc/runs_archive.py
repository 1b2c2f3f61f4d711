"""The archive of runs that stand for a series: their weights into the vault, all else stays; as a consolidation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from holdfast.formats.cache import DigestCache
from holdfast.gc.planned import Found
from holdfast.registry.consolidation import APP, ConsolidationPlan
from holdfast.registry.consolidation_apply import Consolidated, apply_consolidation
from holdfast.registry.consolidation_plan import plan_consolidation, run_fingerprints
from holdfast.registry.consolidation_runs import look
from holdfast.registry.objects import Stores
from holdfast.registry.store import Registry
from holdfast.repo.workspace import Project

Progress = Callable[[int, int], object]


def archive_steps(
    project: Project,
    folders: Sequence[str],
    found: Found,
    cache: DigestCache,
    *,
    now: datetime,
    vault: str | None,
    no_vault: str,
) -> ConsolidationPlan:
    """The consolidation that archives what `holdfast.gc.runs.find_runs` says is to be archived, and nothing else.

    It rests on these runs alone, so that it still holds when others are gone.

    Args:
        project: whose.
        folders: those that were looked at, from its root.
        found: what was found there.
        cache: what is known of files' content.
        now: when; has a time zone.
        vault: where the project's vault is; None where it has none.
        no_vault: why it has none.

    Raises:
        the same as `holdfast.registry.consolidation_plan.plan_consolidation`.
    """
    wanted = {line.path for line in found.objects if line.scope == "runs" and line.tier == "archive"}
    whole = plan_consolidation(project, folders, cache, now=now, vault=vault, no_vault=no_vault)
    return narrowed(project, whole, wanted, cache, now)


def narrowed(
    project: Project, whole: ConsolidationPlan, runs: Iterable[str], cache: DigestCache, now: datetime
) -> ConsolidationPlan:
    """A consolidation cut down to the archive of some runs."""
    wanted = frozenset(runs)
    steps = tuple(step for step in whole.steps if step.kind == "archive" and step.source in wanted)
    if not steps:
        return replace(whole, folders=(), steps=(), left=(), runs={}, inputs={})
    looked = look(project, [step.source for step in steps], APP, Registry(project.root).models())
    runs = run_fingerprints(looked, looked.sort(now), steps, cache)
    rules = looked.rules_digest
    return replace(whole, folders=looked.folders, steps=steps, left=(), runs=runs, inputs={}, rules=rules)


def apply_archive(
    project: Project,
    plan: ConsolidationPlan,
    stores: Stores,
    cache: DigestCache,
    *,
    now: datetime,
    progress: Progress = lambda _done, _total: None,
) -> Consolidated:
    """Carry out the archive; one that was killed is ended by calling it again.

    `holdfast registry consolidate --restore RUN` brings the weights of a run back.

    Args:
        project: whose.
        plan: from `archive_steps`.
        stores: where bytes are; its vault is the one that the plan names.
        cache: what is known of files' content.
        now: when; has a time zone.
        progress: told how many of how many bytes are in the vault.

    Raises:
        the same as `holdfast.registry.consolidation_apply.apply_consolidation`.
    """
    if not plan.steps:
        return Consolidated((), (), (), 0, 0)
    return apply_consolidation(project, plan, stores, cache, now=now, progress=progress)
