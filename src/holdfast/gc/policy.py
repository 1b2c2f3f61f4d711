"""What may go, and when: the section ``gc:`` of ``holdfast.yaml``, and the defaults that count without it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.repo.workspace import find_config

if TYPE_CHECKING:
    from holdfast.inventory.config import Section
    from holdfast.inventory.run_rules import RunClass

# words that stand for no bound
ALL, NONE, NEVER = "all", "none", "never"

Direction = Literal["min", "max"]


def _run_ages() -> "Mapping[RunClass, timedelta | None]":
    return {
        "production candidate": None,
        "baseline": None,
        "debug": timedelta(days=7),
        "test": timedelta(days=7),
        "over-fitted": timedelta(days=14),
        "failed": timedelta(days=3),
        "incomplete": timedelta(days=14),
    }


@dataclass(frozen=True)
class Policy:
    """What keeps things, and for how long.

    Attributes:
        minimum_age: nothing younger goes, whatever refers to it.
        quarantine: how long what was removed waits before a purge takes it.
        branches: patterns of branches whose tips, and the history behind them, keep objects.
        tags: the same of tags.
        history: commits behind the branches and tags that are named, and behind other refs, keep objects for so long;
            None for ever, zero for tips alone.
        experiments: how many experiments keep objects, the best by ``metric``; None for all.
        metric: the metric by which experiments are compared, as ``dvc exp show`` calls it; None where there is none.
        direction: which values of it are better.
        versions: how many of the newest versions of a model stay, besides those that an alias names; None for all.
        aliases: patterns of the aliases that keep versions.
        run_cache: whether DVC's run cache keeps objects.
        repos: other repositories that share the cache or a remote, paths from the project's root; None where nothing is
            said of them.
        runs: how old a run of each class must be before it may go; None for never.
        max_remove_bytes: more than that `gc run --auto` does not remove at once; None for no bound.
        max_remove_share: nor more than this share of what a scope holds.
        allow_last_copy: whether `gc run --auto` removes what no other place is known to have.
    """

    minimum_age: timedelta = timedelta(days=14)
    quarantine: timedelta = timedelta(days=14)
    branches: tuple[str, ...] = ("*",)
    tags: tuple[str, ...] = ("*",)
    history: timedelta | None = None
    experiments: int | None = None
    metric: str | None = None
    direction: Direction = "min"
    versions: int | None = None
    aliases: tuple[str, ...] = ("*",)
    run_cache: bool = True
    repos: tuple[str, ...] | None = None
    runs: "Mapping[RunClass, timedelta | None]" = field(default_factory=_run_ages)
    max_remove_bytes: int | None = None
    max_remove_share: float = 0.5
    allow_last_copy: bool = False


def find_policy(folder: Path) -> Policy:
    """The policy that counts for ``folder``: that of its ``holdfast.yaml``, or of the repository's, else the defaults.

    Raises:
        holdfast.inventory.config.ConfigError: the file says something that Holdfast does not know.
        OSError: the file cannot be read.
    """
    path = find_config(folder)
    if path is None:
        return Policy()
    from holdfast.inventory.config import read_config  # imported here: YAML, which most projects need not load

    config = read_config(path)
    repos = config.texts("repos", ()) if config.has("repos") else None
    return replace(policy_of(config.section("gc")), repos=repos)


def policy_of(section: "Section") -> Policy:
    """The policy of a section ``gc:``; what it leaves out is the default.

    Raises:
        holdfast.inventory.config.ConfigError: a key is unknown, or a value has the wrong type.
    """
    base = Policy()
    keep, runs, auto = section.section("keep"), section.section("runs"), section.section("auto")
    experiments = _count(keep, "experiments", base.experiments)
    metric = keep.text("metric", "") or None
    if experiments and metric is None:
        raise keep.wrong("experiments", f"is {experiments}, so keep.metric must name what they are compared by")
    policy = Policy(
        minimum_age=section.duration("minimum_age", base.minimum_age),
        quarantine=section.duration("quarantine", base.quarantine),
        branches=keep.texts("branches", base.branches),
        tags=keep.texts("tags", base.tags),
        history=timedelta(0) if keep.says("history", NONE) else _age(keep, "history", base.history, ALL),
        experiments=experiments,
        metric=metric,
        direction="max" if keep.text("direction", base.direction, among=("min", "max")) == "max" else "min",
        versions=_count(keep, "versions", base.versions),
        aliases=keep.texts("aliases", base.aliases),
        run_cache=keep.flag("run_cache", base.run_cache),
        runs={kind: _age(runs, kind, base.runs[kind], NEVER) for kind in base.runs},
        max_remove_bytes=auto.size("max_remove_bytes", base.max_remove_bytes),
        max_remove_share=auto.share("max_remove_share", base.max_remove_share),
        allow_last_copy=auto.flag("allow_last_copy", base.allow_last_copy),
    )
    for part in (keep, runs, auto, section):
        part.close()
    return policy


def _count(section: "Section", key: str, default: int | None) -> int | None:
    """A number, or ``all``."""
    return None if section.says(key, ALL) else section.integer(key, default or 0) if section.has(key) else default


def _age(section: "Section", key: str, default: timedelta | None, forever: str) -> timedelta | None:
    """A length of time; None for the word that stands for no end."""
    if section.says(key, forever):
        return None
    return section.duration(key, default or timedelta(0)) if section.has(key) else default
