"""Two versions side by side: what the registry says of them, and the data that was checked out with each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.registry.entries import Version
from holdfast.registry.selection import Direction, better_is
from holdfast.registry.table import flatten
from holdfast.repo.history import HistoryReader, UnknownRevisionError
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project


@dataclass(frozen=True)
class ValueChange:
    """A metric or param of two versions; None where one has none of that name.

    Attributes:
        name: with dots for one in a mapping.
        a: of the first.
        b: of the second.
        direction: of a metric which way it is better; None to take it from the name.
    """

    name: str
    a: Any
    b: Any
    direction: Direction | None = None

    @property
    def difference(self) -> float | None:
        """How much more the second has, where both are numbers."""
        if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in (self.a, self.b)):
            return None
        return float(self.b - self.a)

    @property
    def better(self) -> bool | None:
        """Whether a metric got better; None where it is equal or no number."""
        difference = self.difference
        if not difference or difference != difference:
            return None
        return (difference > 0) == ((self.direction or better_is(self.name)) == "max")


def compare_values(
    a: Mapping[str, Any], b: Mapping[str, Any], directions: Mapping[str, Direction] | None = None
) -> list[ValueChange]:
    """All values of both, in the order of the first, then of the second.

    Args:
        a: of the first.
        b: of the second.
        directions: which way metrics are better, as far as a gate says so.
    """
    ours, theirs = flatten(a, every=True), flatten(b, every=True)
    known = directions or {}
    return [
        ValueChange(name, ours.get(name), theirs.get(name), known.get(name)) for name in dict.fromkeys([*ours, *theirs])
    ]


def changed_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[ValueChange]:
    """Those that differ."""
    return [change for change in compare_values(a, b) if repr(change.a) != repr(change.b)]


def compare_data(
    project: Project, a: Version, b: Version, commits: tuple[str | None, str | None]
) -> list[ValueChange] | None:
    """What DVC tracked beside the two versions, by path, and is not the same object.

    Left out are the versions' own paths and their runs' folders.

    Args:
        project: whose history.
        a: the first version.
        b: the second.
        commits: the commit that brought each; where there is none, the one that it was trained at is taken.

    Returns:
        Paths and their oids; None where a commit is not known.
    """
    revisions = [commit or version.source.get("rev") for version, commit in zip((a, b), commits, strict=True)]
    if None in revisions:
        return None
    own = {a.path, b.path}
    runs = tuple(f"{version.source['run']}/" for version in (a, b) if version.source.get("run"))
    try:
        first, second = (dict(_outs(project, str(revision))) for revision in revisions)
    except UnknownRevisionError:
        return None
    return [
        ValueChange(path, first.get(path), second.get(path))
        for path in sorted(first.keys() | second.keys())
        if first.get(path) != second.get(path) and path not in own and not f"{path}/".startswith(runs)
    ]


def _outs(project: Project, revision: str) -> Iterator[tuple[str, str]]:
    prefix = f"{project.prefix}/" if project.prefix else ""
    for sighting in HistoryReader(open_repository(project.git_root)).read_revision(revision):
        if sighting.version is None and sighting.out.path.startswith(prefix):
            yield sighting.out.path.removeprefix(prefix), sighting.out.oid
