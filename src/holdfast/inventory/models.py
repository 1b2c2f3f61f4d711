"""What an inventory of model files says: files, families, equal ones."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from holdfast.inventory.copies import CopyFolder
from holdfast.inventory.references import ReferenceReport
from holdfast.inventory.scan_status import Status, Used
from holdfast.inventory.tracking import Tracked, Tracking
from holdfast.inventory.tree import File

SCAN_FORMAT = "holdfast scan 1"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file.

    Attributes:
        path: from the root, with slashes.
        size: bytes.
        modified: when it was last written, ISO 8601, UTC, to the second.
        format: by its content; ``damaged`` where it is torn, ``unknown`` where Holdfast knows no such format.
        parameters: elements of its weights, tied ones once; None where they were not read.
        dtypes: elements of its weights by dtype.
        optimizer_nbytes: bytes of an optimizer's state beside the weights.
        family: the pattern of names that it belongs to, or its path.
        weights: the weights digest; None where there is none or it was not asked for.
        opaque: why it, or a part of it, was not read; empty where all was.
        digest: ``blake3:<hex>`` of its bytes, for files of equal size; None for others.
        link: where it leads, for a symbolic link.
        tracked: who keeps its history.
        used: who refers to it.
        versions: the registered versions that it is, ``app/name@v3``.
        status: what it is to the project.
        why: what says so.
    """

    path: str
    size: int
    modified: str
    format: str
    parameters: int | None
    dtypes: Mapping[str, int]
    optimizer_nbytes: int
    family: str
    weights: str | None
    opaque: str
    digest: str | None
    link: str | None
    tracked: Tracked
    used: Used
    versions: tuple[str, ...]
    status: Status
    why: str


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """A family of model files.

    Attributes:
        name: the pattern, or the path of a file that is alone.
        files: how many.
        bytes: of all.
        statuses: files by status.
        used: who refers to any of them; a place that names several counts once.
        rivals: other families that offer the same things.
    """

    name: str
    files: int
    bytes: int
    statuses: Mapping[Status, int]
    used: Used
    rivals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SameFiles:
    """Model files with equal bytes, or with equal weights in different bytes.

    Attributes:
        digest: of their bytes, or of their weights.
        paths: ordered; links are left out.
        size: bytes of one; of the smallest where they differ.
    """

    digest: str
    paths: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class ScanReport:
    """All model files of a tree.

    Attributes:
        root: the folder, or the URL of a bucket.
        models: ordered by path.
        families: largest first.
        duplicates: equal bytes, largest first.
        same_weights: equal weights in files that are no duplicates, largest first.
        copies: folders of second copies, with all their files.
        files: all files that were met, model or not; none of a bucket.
        looked: how many were met.
        references: every place that refers to a model file; None where there is none to be referred to.
        tracking: what git and DVC track.
        notes: what could not be read or looked at.
    """

    root: str
    models: tuple[ModelFile, ...]
    families: tuple[ModelFamily, ...]
    duplicates: tuple[SameFiles, ...]
    same_weights: tuple[SameFiles, ...]
    copies: tuple[CopyFolder, ...]
    files: tuple[File, ...]
    looked: int
    references: ReferenceReport | None
    tracking: Tracking
    notes: tuple[str, ...]

    def of(self, status: Status) -> list[ModelFile]:
        """The files with a status."""
        return [model for model in self.models if model.status == status]

    @property
    def rivalries(self) -> list[list[str]]:
        """Groups of families that offer the same things, most used first in each."""
        groups = {tuple(sorted((family.name, *family.rivals))) for family in self.families if family.rivals}
        weight = {family.name: (-family.used.references, -family.used.scripts, family.name) for family in self.families}
        return [sorted(group, key=lambda name: weight[name]) for group in sorted(groups)]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {
            "format": SCAN_FORMAT,
            "root": self.root,
            "models": [asdict(model) for model in self.models],
            "families": [asdict(family) for family in self.families],
            "duplicates": [asdict(group) for group in self.duplicates],
            "same_weights": [asdict(group) for group in self.same_weights],
            "copies": [{"path": folder.path, "why": folder.why, "files": len(folder.files)} for folder in self.copies],
            "files": self.looked,
            "notes": list(self.notes),
        }
