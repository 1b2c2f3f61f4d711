"""Puts together what is known of model files, and says what each is to the project."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from holdfast.inventory.copies import CopyFolder, is_backup_name, is_cache
from holdfast.inventory.models import ModelFamily, ModelFile, SameFiles, ScanReport
from holdfast.inventory.ref_families import name_families
from holdfast.inventory.references import SCRIPT_KINDS, Reference, ReferenceReport
from holdfast.inventory.scan_files import Found
from holdfast.inventory.scan_status import STATUSES, Status, Used, find_rivals, rank_families
from holdfast.inventory.tracking import Tracking
from holdfast.inventory.tree import File

UNUSED = Used()


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of the registry, as far as a file can be told to be it.

    Attributes:
        name: ``app/name@v3``.
        oid: DVC's md5 of the file, or ``<md5>.dir``.
        weights: the weights digest.
    """

    name: str
    oid: str
    weights: str


def assemble(
    root: str,
    found: Iterable[Found],
    digests: Mapping[str, str],
    *,
    links: Sequence[tuple[Found, str]] = (),
    references: ReferenceReport | None,
    copies: Sequence[CopyFolder],
    tracking: Tracking,
    registered: Iterable[Registered],
    files: Sequence[File] = (),
    looked: int,
    notes: Iterable[str],
) -> ScanReport:
    """The report of model files whose parts are known.

    Args:
        root: the folder or bucket.
        found: the files.
        digests: what tells equal bytes, by label, for those that may be equal.
        links: symbolic links, and where they lead.
        references: who refers to those that are no copies.
        copies: folders of second copies.
        tracking: who keeps their history.
        registered: the versions that they may be.
        files: all files that were met, where they are at hand.
        looked: how many were met.
        notes: what could not be read.
    """
    found = list(found)
    judge = _Judge([item.label for item in found], references, copies, tracking, registered)
    models = [judge.model(item, digests.get(item.label)) for item in found]
    models += [judge.model(item, None, link) for item, link in links]
    models.sort(key=lambda model: model.path)
    return ScanReport(
        root,
        tuple(models),
        judge.families(models),
        _same(models, lambda model: model.digest),
        _same_weights(models),
        tuple(copies),
        tuple(files),
        looked,
        references,
        tracking,
        tuple(notes),
    )


class _Judge:
    """Puts together what is known of a file, and says what it is to the project."""

    def __init__(
        self,
        labels: Iterable[str],
        references: ReferenceReport | None,
        copies: Iterable[CopyFolder],
        tracking: Tracking,
        registered: Iterable[Registered],
    ) -> None:
        self._copies = {folder.path: folder for folder in copies}
        self._tracking = tracking
        self._by_oid: dict[str, list[str]] = {}
        self._by_weights: dict[str, list[str]] = {}
        for version in registered:
            self._by_oid.setdefault(version.oid, []).append(version.name)
            self._by_weights.setdefault(version.weights, []).append(version.name)
        live = references.families if references is not None else {}
        self._family = {**name_families(label for label in labels if label not in live), **live}
        places: dict[str, list[Reference]] = {}
        members: dict[str, list[str]] = {}
        for label, family in live.items():
            members.setdefault(family, []).append(label)
        by_family: dict[str, list[Reference]] = {}
        for place in references.references if references is not None else ():
            for target in place.targets:
                places.setdefault(target, []).append(place)
            for family in {self._family[target] for target in place.targets}:
                by_family.setdefault(family, []).append(place)
        self._used = {label: _used(items) for label, items in places.items()}
        self._family_used = {family: _used(by_family.get(family, ())) for family in members}
        self._rivals = find_rivals(members)
        self._beaten_by = rank_families(self._rivals, self._family_used)

    def model(self, item: Found, digest: str | None, link: str | None = None) -> ModelFile:
        """One file, judged."""
        label, digests, summary = item.label, item.digests, item.digests.summary
        assert summary is not None
        versions = self._versions(label, digests.weights)
        used = self._used.get(label, UNUSED)
        status, why = self._status(label, used, versions)
        return ModelFile(
            path=label,
            size=item.size,
            modified=datetime.fromtimestamp(int(item.modified), timezone.utc).isoformat(),
            format=summary.format,
            parameters=summary.parameters if summary.weight_tensors else None,
            dtypes=summary.dtypes,
            optimizer_nbytes=summary.optimizer_nbytes,
            family=self._family.get(label, label),
            weights=digests.weights,
            opaque=summary.opaque,
            digest=digest,
            link=link,
            tracked=self._tracking.of(label),
            used=used,
            versions=versions,
            status=status,
            why=why,
        )

    def families(self, models: Iterable[ModelFile]) -> tuple[ModelFamily, ...]:
        """The families of all files, with their totals."""
        members: dict[str, list[ModelFile]] = {}
        for model in models:
            members.setdefault(model.family, []).append(model)
        rivals = {
            family: tuple(other for other in group if other != family) for group in self._rivals for family in group
        }
        result = [
            ModelFamily(
                name,
                len(items),
                sum(item.size for item in items if item.link is None),
                {status: count for status in STATUSES if (count := sum(item.status == status for item in items))},
                self._family_used.get(name, UNUSED),
                rivals.get(name, ()),
            )
            for name, items in members.items()
        ]
        return tuple(sorted(result, key=lambda family: (-family.bytes, family.name)))

    def _versions(self, label: str, weights: str | None) -> tuple[str, ...]:
        names = {*self._by_oid.get(self._tracking.oid(label), ()), *self._by_weights.get(weights or "", ())}
        return tuple(sorted(names))

    def _status(self, label: str, used: Used, versions: Sequence[str]) -> tuple[Status, str]:
        if is_cache(label):
            return "cache", "in the cache of a tool"
        place = label
        while place := place.rpartition("/")[0]:
            if place in self._copies:
                return "backup", f"in {place}/: {self._copies[place].why}"
        if is_backup_name(label.rpartition("/")[2]):
            return "backup", "its name says so"
        if versions:
            return "registered", f"it is {', '.join(versions)}"
        family = self._family.get(label, label)
        if not used.references:
            return "unreferenced", "nothing refers to it"
        if better := self._beaten_by.get(family):
            return "secondary", f"{better} is used more"
        return "primary", "what refers to it prefers no other"


def _used(places: Iterable[Reference]) -> Used:
    everything = list(places)
    real = [place for place in everything if not place.is_mention]
    return Used(
        len(real),
        len({place.file for place in real if place.kind in SCRIPT_KINDS}),
        len({place.file for place in real if place.kind not in SCRIPT_KINDS}),
        len(everything) - len(real),
    )


def _same(models: Iterable[ModelFile], of: Callable[[ModelFile], str | None]) -> tuple[SameFiles, ...]:
    groups: dict[str, list[ModelFile]] = {}
    for model in models:
        if (digest := of(model)) is not None and model.link is None:
            groups.setdefault(digest, []).append(model)
    result = [
        SameFiles(digest, tuple(model.path for model in items), min(model.size for model in items))
        for digest, items in groups.items()
        if len(items) > 1
    ]
    return tuple(sorted(result, key=lambda group: (-group.size * len(group.paths), group.paths)))


def _same_weights(models: Sequence[ModelFile]) -> tuple[SameFiles, ...]:
    """Equal weights, one file of each group of duplicates standing for all."""
    first: dict[str, ModelFile] = {}
    for model in models:
        first.setdefault(model.digest or model.path, model)
    return _same(first.values(), lambda model: model.weights)
