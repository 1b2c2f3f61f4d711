"""The inventory of a tree's model files: what they are, who uses them, which lie there twice, what each is for."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.inventory.config import Section, find_config, read_config
from holdfast.inventory.copies import CACHE_FOLDERS, CopyFolder, Twins, find_copy_folders, is_backup_name, is_cache
from holdfast.inventory.models import ModelFamily, ModelFile, SameFiles, ScanReport
from holdfast.inventory.ref_families import name_families
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.references import SCRIPT_KINDS, Reference, ReferenceReport, find_references
from holdfast.inventory.scan_files import Found, find_links, find_models
from holdfast.inventory.scan_status import STATUSES, Status, Used, find_rivals, rank_families
from holdfast.inventory.sources import sources_among
from holdfast.inventory.tracking import Tracking, read_tracking
from holdfast.inventory.tree import SKIPPED_FOLDERS, Excludes, File, walk_files
from holdfast.repo.workspace import find_git_root

# caches are looked into, so that what lies there is counted; DVC's folder holds its cache and may hold a remote
OWNED_FOLDERS = (SKIPPED_FOLDERS - CACHE_FOLDERS) | {".dvc"}


@dataclass(frozen=True)
class ScanRules:
    """What ``holdfast.yaml`` says under ``scan``; patterns are those of ``.gitignore``.

    Attributes:
        exclude: what is not looked at.
        backup: folders of second copies.
    """

    exclude: tuple[str, ...] = ()
    backup: tuple[str, ...] = ()


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


Progress = Callable[[int, int], None]


def read_scan_rules(folder: Path) -> ScanRules:
    """The section ``scan`` of the ``holdfast.yaml`` that counts for ``folder``.

    Raises:
        ConfigError: it says something that Holdfast does not know.
    """
    path = find_config(folder)
    section = read_config(path).section("scan") if path is not None else Section(Path(), (), None)
    rules = ScanRules(section.texts("exclude", ()), section.texts("backup", ()))
    section.close()
    return rules


def scan_tree(
    root: Path,
    cache: DigestCache,
    *,
    within: str = "",
    rules: ScanRules | None = None,
    registered: Iterable[Registered] = (),
    memory: ReferenceMemory | None = None,
    weights: bool = True,
    progress: Progress = lambda _done, _total: None,
) -> ScanReport:
    """Take the inventory of the model files of a tree; nothing is executed or changed.

    Symbolic links to files inside of the tree are listed, without a size of their own; others are not followed.

    Args:
        root: the folder whose sources may refer to models, and from which paths are seen.
        cache: what is known of files' content.
        within: the folder in it whose models are listed; all unless given.
        rules: what to leave out, and what is a backup.
        registered: the versions that files may be.
        memory: what is known of sources.
        weights: whether to take weights digests, for which all weights are read once.
        progress: called with bytes read and bytes to read, while files are read.

    Raises:
        UsageError: a pattern is none.
        NotADirectoryError: it is no folder.
    """
    root = root.resolve()
    rules = rules or ScanRules()
    if not (root / within).is_dir():
        raise NotADirectoryError(20, os.strerror(20), str(root / within))
    notes: list[str] = []
    links: list[File] = []
    files = list(walk_files(root, notes, owned=OWNED_FOLDERS, excludes=Excludes(rules.exclude), links=links))
    inside = f"{within}/" if within else ""
    found = find_models(
        (file for file in files if file.label.startswith(inside)), cache, notes, weights=weights, progress=progress
    )
    links = [link for link in links if link.label.startswith(inside)]
    linked = find_links(links, root, cache, notes, weights=weights)
    own = [file for file in files if not is_cache(file.label)]
    same = equal_files(cache)
    copies = find_copy_folders(own, same=same, named=Excludes(rules.backup).folder)
    copied = {file.label: folder for folder in copies for file in folder.files}
    tracking = read_tracking(root, find_git_root(root), files, notes)
    references = None
    labels = [item.file.label for item in (*found, *(item for item, _ in linked))]
    live = [label for label in labels if label not in copied and not is_cache(label)]
    if live:
        sources = list(sources_among(live_files(own, copied, same)))
        families = name_families(live)
        references = find_references(root, live, families=families, sources=sources, memory=memory)
        notes += references.notes
    others = name_families(label for label in labels if label in copied or is_cache(label))
    judge = _Judge(references, others, copied, tracking, list(registered))
    digests = _equal_sizes(found, cache, notes)
    models = [judge.model(item, digests.get(item.file.label)) for item in found]
    models += [judge.model(item, None, link) for item, link in linked]
    models.sort(key=lambda model: model.path)
    return ScanReport(
        root,
        tuple(models),
        judge.families(models),
        _same(models, lambda model: model.digest),
        _same_weights(models),
        tuple(copies),
        tuple(files),
        references,
        tracking,
        tuple(notes),
    )


def live_files(
    files: Sequence[File], copied: Mapping[str, CopyFolder], same: Callable[[File, File], bool]
) -> Iterator[File]:
    """The files whose references count.

    Those in folders of copies do not: neither where the user or their content says that these are copies, nor, in a
    folder that is only called a backup, those which lie elsewhere as well. An old script that lies in no other place
    may still be run.
    """
    twins: Twins | None = None
    for file in files:
        folder = copied.get(file.label)
        if folder is None:
            yield file
        elif folder.sign == "name":
            twins = twins or Twins(files, same)
            if twins.of(file, lambda other: other.label not in copied) is None:
                yield file


class _Judge:
    """Puts together what is known of a file, and says what it is to the project."""

    def __init__(
        self,
        references: ReferenceReport | None,
        others: Mapping[str, str],
        copied: Mapping[str, CopyFolder],
        tracking: Tracking,
        registered: Sequence[Registered],
    ) -> None:
        self._copied = copied
        self._tracking = tracking
        self._by_oid: dict[str, list[str]] = {}
        self._by_weights: dict[str, list[str]] = {}
        for version in registered:
            self._by_oid.setdefault(version.oid, []).append(version.name)
            self._by_weights.setdefault(version.weights, []).append(version.name)
        live = references.families if references is not None else {}
        self._family = {**others, **live}
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
        label, digests, summary = item.file.label, item.digests, item.digests.summary
        assert summary is not None
        versions = self._versions(label, digests.weights)
        used = self._used.get(label, Used())
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
                self._family_used.get(name, Used()),
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
        if label in self._copied:
            folder = self._copied[label]
            return "backup", f"in {folder.path}/: {folder.why}"
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


def equal_files(cache: DigestCache) -> Callable[[File, File], bool]:
    """Tells whether two files have equal bytes; what cannot be read equals nothing."""

    def same(a: File, b: File) -> bool:
        try:
            return digests_of(a.path, cache, file=True).file == digests_of(b.path, cache, file=True).file
        except (OSError, HoldfastError):
            return False  # in doubt it is no copy

    return same


def _equal_sizes(found: Iterable[Found], cache: DigestCache, notes: list[str]) -> dict[str, str]:
    """The digests of the bytes of files that share their size with another: hard links are one file."""
    sizes: dict[int, dict[tuple[int, int], list[Found]]] = {}
    for item in found:
        sizes.setdefault(item.size, {}).setdefault(item.key[:2], []).append(item)
    result = {}
    for inodes in sizes.values():
        if len(inodes) < 2:
            continue
        for item in (item for items in inodes.values() for item in items):
            digest = item.digests.file
            if digest is None:
                try:
                    digest = digests_of(item.file.path, cache, file=True).file
                except (OSError, IntegrityError) as error:
                    notes.append(f"{item.file.label}: {error}")
            if digest is not None:
                result[item.file.label] = digest
    return result


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
