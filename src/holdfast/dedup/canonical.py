"""Which of equal files stays as it is: what the registry names, then what most refer to, then the oldest."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.dedup.files import Candidate
from holdfast.errors import HoldfastError
from holdfast.inventory.references import find_references
from holdfast.registry.store import Registry


@dataclass(frozen=True)
class Standing:
    """What speaks for files.

    Args:
        registered: the versions that name a file, by its path from the folder.
        references: how many places refer to it.
    """

    registered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    references: Mapping[str, int] = field(default_factory=dict)

    def choose(self, candidates: Iterable[Candidate]) -> tuple[Candidate, str]:
        """The one that stays, and why.

        An object of the cache stays whatever else there is: it is named by its content, and others may be links to it.
        """
        listed = sorted(candidates, key=self._order)
        first = listed[0]
        if first.oid:
            return first, "it is DVC's object"
        if first.label in self.registered:
            return first, f"it is {self.registered[first.label][0]}"
        if references := self.references.get(first.label, 0):
            return first, "1 place refers to it" if references == 1 else f"{references} places refer to it"
        return first, "it is the oldest"

    def _order(self, candidate: Candidate) -> tuple[bool, bool, int, int, str]:
        return (
            not candidate.oid,
            candidate.label not in self.registered,
            -self.references.get(candidate.label, 0),
            candidate.modified,
            candidate.label,
        )


def standing_of(folder: Path, root: Path | None, labels: Iterable[str], notes: list[str]) -> Standing:
    """What speaks for the files of these paths.

    Args:
        folder: which the paths are seen from.
        root: the project's, where its registry is; None where there is none.
        labels: the paths.
        notes: gets a line for what cannot be read.
    """
    wanted = sorted(labels)
    if not wanted:
        return Standing()
    registered: dict[str, tuple[str, ...]] = {}
    if root is not None:
        try:
            for model in Registry(root).models():
                for version in model.versions:
                    place = root / version.path
                    if place.is_relative_to(folder):
                        label = place.relative_to(folder).as_posix()
                        registered[label] = (*registered.get(label, ()), f"{model.id}@{version.name}")
        except HoldfastError as error:
            notes.append(f"which files are registered is unknown: {error.message}")
    report = find_references(folder, wanted)
    notes += report.notes
    return Standing(registered, {usage.name: usage.references for usage in report.by_target()})
