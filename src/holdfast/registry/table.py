"""A model's versions by columns: what a table of them shows, without what only one version's own page needs.

Of 10,000 versions this is a tenth of what their files say, and lists of numbers are read out of the cache ten times as
fast as versions are made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.registry.entries import CURRENT, Model


@dataclass(frozen=True)
class VersionTable:
    """The versions of a model; every sequence has one item for each, in the order of their numbers.

    Attributes:
        id: ``app/name``.
        description: one line for people.
        champion: the version to beat; None where there is none.
        names: ``v1``, …
        labels: of the versions that have any; deprecated ones have ``deprecated`` last.
        oids: of their files or folders.
        sizes: bytes.
        dates: days of registration, ISO 8601.
        revs: commits that were checked out, 40 hex digits; empty where they are not known.
        metrics: values by flat name (``test.f1``); None where a version has none. Lists are left out.
        whole: bytes that it adds where files are stored whole and once, as DVC does it: 0 where an earlier version
            has the same oid; None for a folder, of whose files some may be in earlier versions.
    """

    id: str
    description: str
    champion: str | None
    names: Sequence[str]
    labels: Mapping[str, Sequence[str]]
    oids: Sequence[str]
    sizes: Sequence[int]
    dates: Sequence[str]
    revs: Sequence[str]
    metrics: Mapping[str, Sequence[Any]]
    whole: Sequence[int | None]


def tabulate(model: Model) -> VersionTable:
    """The versions of a model by columns."""
    champion = model.champion
    metrics: dict[str, list[Any]] = {}
    for place, version in enumerate(model.versions):
        for name, value in flatten(version.metrics).items():
            metrics.setdefault(name, [None] * len(model.versions))[place] = value
    labels: dict[str, list[str]] = {}
    for label, name in [(CURRENT, model.current or ""), *sorted(model.aliases.items())]:
        if name:
            labels.setdefault(name, []).append(label)
    for deprecated in model.deprecations:
        labels.setdefault(deprecated, []).append("deprecated")
    return VersionTable(
        id=model.id,
        description=model.description,
        champion=champion.name if champion else None,
        names=[version.name for version in model.versions],
        labels=labels,
        oids=[version.oid for version in model.versions],
        sizes=[version.size for version in model.versions],
        dates=[version.date for version in model.versions],
        revs=[version.source.get("rev", "") for version in model.versions],
        metrics=metrics,
        whole=_whole(model),
    )


def flatten(values: Mapping[str, Any], prefix: str = "", *, every: bool = False) -> dict[str, Any]:
    """Values under names with dots; without lists unless ``every``."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flatten(value, f"{prefix}{name}.", every=every)
        elif every or not isinstance(value, list):
            result[f"{prefix}{name}"] = value
    return result


def _whole(model: Model) -> list[int | None]:
    result: list[int | None] = []
    seen: set[str] = set()
    for version in model.versions:
        result.append(0 if version.oid in seen else None if version.is_folder else version.size)
        seen.add(version.oid)
    return result
