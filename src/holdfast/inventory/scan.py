"""The inventory of a tree's model files: what they are, who uses them, which lie there twice, what each is for."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.inventory.config import Section, read_config
from holdfast.inventory.copies import CACHE_FOLDERS, CopyFolder, Twins, find_copy_folders, is_cache
from holdfast.inventory.models import ScanReport
from holdfast.inventory.ref_families import name_families
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.references import find_references
from holdfast.inventory.scan_files import Found, find_links, find_models
from holdfast.inventory.scan_judge import Registered, assemble
from holdfast.inventory.sources import sources_among
from holdfast.inventory.tracking import read_tracking
from holdfast.inventory.tree import SKIPPED_FOLDERS, Excludes, File, walk_files
from holdfast.repo.workspace import find_config, find_git_root

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
    labels = [item.label for item in (*found, *(item for item, _ in linked))]
    live = [label for label in labels if label not in copied and not is_cache(label)]
    if live:
        sources = list(sources_among(live_files(own, copied, same)))
        families = name_families(live)
        references = find_references(root, live, families=families, sources=sources, memory=memory)
        notes += references.notes
    return assemble(
        str(root),
        found,
        _equal_sizes(root, found, cache, notes),
        links=linked,
        references=references,
        copies=copies,
        tracking=tracking,
        registered=registered,
        files=files,
        looked=len(files),
        notes=notes,
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


def equal_files(cache: DigestCache) -> Callable[[File, File], bool]:
    """Tells whether two files have equal bytes; what cannot be read equals nothing."""

    def same(a: File, b: File) -> bool:
        try:
            return digests_of(a.path, cache, file=True).file == digests_of(b.path, cache, file=True).file
        except (OSError, HoldfastError):
            return False  # in doubt it is no copy

    return same


def _equal_sizes(root: Path, found: Iterable[Found], cache: DigestCache, notes: list[str]) -> dict[str, str]:
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
                    digest = digests_of(root / item.label, cache, file=True).file
                except (OSError, IntegrityError) as error:
                    notes.append(f"{item.label}: {error}")
            if digest is not None:
                result[item.label] = digest
    return result
