"""Which roots a policy chooses: refs and commits by name and age, the best experiments, versions of models."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from holdfast.gc.policy import Policy
from holdfast.gc.references import Naming
from holdfast.repo.gitfolder import GitFolder
from holdfast.repo.roots import EVERYTHING, Roots
from holdfast.repo.workspace import Project

if TYPE_CHECKING:
    from holdfast.registry.entries import Model

_EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/.+")
_EVERY = ("*",)


@dataclass(frozen=True)
class Choice:
    """What a policy keeps.

    Attributes:
        roots: of git.
        naming: how these name objects.
    """

    roots: Roots
    naming: Naming


def choose(project: Project, folder: GitFolder, policy: Policy, now: float) -> Choice:
    """The roots that a policy chooses.

    Raises:
        EntryError: a file of the registry is broken.
        UnreadableRefError: a ref cannot be read.
        HoldfastError: the metric of the experiments cannot be read.
    """
    roots = EVERYTHING
    if policy.branches != _EVERY or policy.tags != _EVERY or policy.history is not None:
        roots = replace(
            roots,
            all_commits=False,
            branches=policy.branches,
            tags=policy.tags,
            behind=policy.history is None,
            since=None if policy.history is None else now - policy.history.total_seconds(),
        )
    if policy.experiments is not None:
        roots = replace(roots, all_experiments=False, revisions=tuple(_best(project, folder, policy)))
    passed: frozenset[str] = frozenset()
    if policy.versions is not None:
        from holdfast.registry.store import Registry  # imported here: most policies keep all versions

        passed = frozenset(_passed(Registry(project.root).models(), policy))
    return Choice(roots, Naming(passed))


def _best(project: Project, folder: GitFolder, policy: Policy) -> list[str]:
    """The commits of the best experiments, and of those whose metric is not known."""
    commits = sorted({commit for name, commit in folder.refs().items() if _EXPERIMENT.fullmatch(name)})
    if not commits or policy.experiments is None or len(commits) <= policy.experiments:
        return commits
    if policy.metric is None:
        return []
    # imported here: it asks DVC, which takes long to load
    from holdfast.repo.dvc_metrics import read_metric

    values = read_metric(project.root, commits, policy.metric)
    known = sorted(
        values, key=lambda commit: (values[commit] if policy.direction == "min" else -values[commit], commit)
    )
    return [*known[: policy.experiments], *(commit for commit in commits if commit not in values)]


def _passed(models: "Iterable[Model]", policy: Policy) -> Iterable[str]:
    """The versions that are neither among a model's newest nor named by an alias."""
    for model in models:
        named = {
            version
            for alias, version in model.aliases.items()
            if any(fnmatchcase(alias, one) for one in policy.aliases)
        }
        newest = sorted(model.versions, key=lambda version: version.number, reverse=True)[: policy.versions]
        kept = {*named, model.current, *(version.name for version in newest)}
        yield from (f"{model.id}@{version.name}" for version in model.versions if version.name not in kept)
