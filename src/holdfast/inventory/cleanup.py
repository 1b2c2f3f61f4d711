"""What a clean-up of a tree's models rests on: which files are safe to remove, which need a decision, and why."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.compare.checkpoints import Comparison, compare_checkpoints
from holdfast.errors import HoldfastError
from holdfast.formats.cache import DigestCache
from holdfast.formats.opening import open_checkpoint
from holdfast.inventory.copies import CACHE_SUFFIXES, Twins, cache_folder, is_cache
from holdfast.inventory.models import ModelFile, ScanReport
from holdfast.inventory.references import Reference
from holdfast.inventory.scan import equal_files
from holdfast.inventory.scan_status import counterparts
from holdfast.inventory.sources import read_source, source_kind, sources_among, split_lines
from holdfast.inventory.tree import File


@dataclass(frozen=True)
class Pair:
    """A member of a family and its counterpart in a rival one.

    Attributes:
        a: of the family that is used more.
        b: of the other.
        comparison: of b with a; None where they could not be compared.
        reason: why not.
    """

    a: ModelFile
    b: ModelFile
    comparison: Comparison | None
    reason: str = ""

    @property
    def difference(self) -> int:
        """How many bytes b is larger."""
        return self.b.size - self.a.size


@dataclass(frozen=True)
class Rivalry:
    """Families that offer the same things, most used first, and their members pair by pair.

    Attributes:
        families: their patterns.
        pairs: the first family's members against those of each other one.
    """

    families: tuple[str, ...]
    pairs: tuple[Pair, ...]

    def against(self, family: str) -> list[Pair]:
        """The pairs with one of the other families."""
        return [pair for pair in self.pairs if pair.b.family == family]


RemovalKind = Literal["copies", "cache", "duplicate", "secondary", "unreferenced"]
# only people can say whether such files are needed
_UNDECIDED: frozenset[RemovalKind] = frozenset({"secondary", "unreferenced"})


@dataclass(frozen=True)
class Removal:
    """Files that could go together.

    Attributes:
        kind: what they are.
        what: the folder, the pattern of a family, or a file.
        files: their paths, ordered.
        bytes: what they take.
        why: what speaks for it.
        users: places that would break: ``file:line``.
        alone: those of the files whose bytes are nowhere else: neither in the tree nor tracked by git or DVC.
    """

    kind: RemovalKind
    what: str
    files: tuple[str, ...]
    bytes: int
    why: str
    users: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    @property
    def safe(self) -> bool:
        """Whether nothing breaks, nothing is lost and there is nothing to decide."""
        return not (self.users or self.alone or self.kind in _UNDECIDED)


@dataclass(frozen=True)
class Cleanup:
    """The facts of a clean-up.

    Attributes:
        scan: the inventory.
        rivalries: families that offer the same things.
        removals: what could go, the largest first; a file is in one of them at most.
        notes: what could not be read or compared.
    """

    scan: ScanReport
    rivalries: tuple[Rivalry, ...]
    removals: tuple[Removal, ...]
    notes: tuple[str, ...]

    @property
    def safe(self) -> list[Removal]:
        """What can go without a loss."""
        return [removal for removal in self.removals if removal.safe]

    @property
    def conditional(self) -> list[Removal]:
        """What needs a decision."""
        return [removal for removal in self.removals if not removal.safe]


def plan_cleanup(scan: ScanReport, cache: DigestCache, *, progress: Callable[[str], None] = lambda _: None) -> Cleanup:
    """Compare rivals and sort out what could be removed; changes nothing.

    Args:
        scan: the inventory.
        cache: what is known of files' content.
        progress: told the pair that is compared next.
    """
    notes = list(scan.notes)
    models = {model.path: model for model in scan.models if model.link is None}
    families: dict[str, list[str]] = {}
    for path, model in models.items():
        families.setdefault(model.family, []).append(path)
    rivalries = [_compare(group, families, models, scan, progress) for group in scan.rivalries]
    return Cleanup(scan, tuple(rivalries), tuple(find_removals(scan, cache)), tuple(notes))


def find_removals(scan: ScanReport, cache: DigestCache) -> list[Removal]:
    """What could go, the largest first; a file is in one of them at most. No checkpoint is compared.

    Args:
        scan: the inventory.
        cache: what is known of files' content.
    """
    models = {model.path: model for model in scan.models if model.link is None}
    seen: set[str] = set()
    removals = []
    for removal in (
        *_copies(scan, Twins(scan.files, equal_files(cache))),
        *_caches(scan),
        *_duplicates(scan, models),
        *_secondary(scan, models),
        *_unreferenced(scan),
    ):
        if seen.isdisjoint(removal.files):
            removals.append(removal)
            seen.update(removal.files)
    return sorted(removals, key=lambda removal: (-removal.bytes, removal.what))


def _compare(
    group: Sequence[str],
    families: dict[str, list[str]],
    models: dict[str, ModelFile],
    scan: ScanReport,
    progress: Callable[[str], None],
) -> Rivalry:
    first = group[0]
    pairs = []
    for other in group[1:]:
        for a, b in counterparts(families[first], first, families[other], other):
            progress(f"{a} and {b}")
            pairs.append(_pair(models[a], models[b], scan))
    return Rivalry(tuple(group), tuple(pairs))


def _pair(a: ModelFile, b: ModelFile, scan: ScanReport) -> Pair:
    try:
        source_a, checkpoint_a = open_checkpoint(Path(scan.root) / a.path)
        with source_a:
            source_b, checkpoint_b = open_checkpoint(Path(scan.root) / b.path)
            with source_b:
                return Pair(a, b, compare_checkpoints(checkpoint_a, checkpoint_b))
    except (HoldfastError, OSError) as error:
        return Pair(a, b, None, str(error))


def _copies(scan: ScanReport, twins: Twins) -> list[Removal]:
    """Folders of second copies; what in them lies nowhere else is no copy."""
    copied = {file.label for folder in scan.copies for file in folder.files}
    gone: set[str] = set()  # what is safe to remove is no second copy of what comes after it
    result = []
    for folder in sorted(scan.copies, key=lambda folder: (-sum(map(size_of, folder.files)), folder.path)):
        own = {file.label for file in folder.files}

        def stays(other: File, gone: set[str] = own | gone) -> bool:
            return other.label not in gone

        def counts(other: File) -> bool:
            return other.label not in copied

        alone = [
            file.label
            for file in folder.files
            if size_of(file)
            and scan.tracking.of(file.label) == "none"
            # a script whose references count may be in use: a copy of it in another backup would not do
            and twins.of(file, counts if folder.sign == "name" and source_kind(file.name) else stays) is None
        ]
        result.append(
            Removal(
                "copies",
                folder.path,
                tuple(file.label for file in folder.files),
                sum(map(size_of, folder.files)),
                folder.why,
                tuple(_users_of_folder(scan, folder.path, copied)),
                tuple(alone),
            )
        )
        if result[-1].safe:
            gone |= own
    return result


def _users_of_folder(scan: ScanReport, folder: str, copied: set[str]) -> Iterable[str]:
    """Lines of scripts and configurations outside of it that name a folder."""
    name = re.compile(rf"(?<![\w.-]){re.escape(folder)}(?![\w-])")
    for source in sources_among(file for file in scan.files if file.label not in copied):
        if source.kind == "docs" or is_cache(source.label) or (text := read_source(source, [])) is None:
            continue
        if name.search(text):
            yield from (
                f"{source.label}:{number}" for number, line in enumerate(split_lines(text), 1) if name.search(line)
            )


def _caches(scan: ScanReport) -> list[Removal]:
    """What tools make again by themselves, by kind of folder; byte code beside its source is a kind, too."""
    kinds: dict[str, list[File]] = {}
    for file in scan.files:
        if (kind := cache_folder(file.label)) is not None:
            kinds.setdefault(kind, []).append(file)
        elif file.label.endswith(CACHE_SUFFIXES):
            kinds.setdefault("*.pyc", []).append(file)
    return [
        Removal(
            "cache", kind, tuple(sorted(file.label for file in files)), sum(map(size_of, files)), "tools make it again"
        )
        for kind, files in sorted(kinds.items())
        if kind != ".cache"  # who made it, and whether it comes again, is not known
    ]


def _duplicates(scan: ScanReport, models: dict[str, ModelFile]) -> list[Removal]:
    """Model files with the bytes of another that is worth more."""
    result = []
    for group in scan.duplicates:
        live = [models[path] for path in group.paths if models[path].status not in ("backup", "cache")]
        if len(live) < 2:
            continue
        best = min(live, key=lambda model: (_worth(model), model.path))
        result += [
            Removal("duplicate", model.path, (model.path,), model.size, f"the bytes of {best.path}")
            for model in live
            if model is not best and not model.used.references and not model.versions
        ]
    return result


def _worth(model: ModelFile) -> tuple[int, int]:
    return (-len(model.versions), -model.used.references)


def _secondary(scan: ScanReport, models: dict[str, ModelFile]) -> list[Removal]:
    """Families that are used less than a rival."""
    result = []
    for group in scan.rivalries:
        for family in group[1:]:
            members = [model for model in models.values() if model.family == family and model.status == "secondary"]
            if members:
                paths = {model.path for model in members}
                users = tuple(place.place for place in _places(scan, paths))
                alone = tuple(sorted(_unkept(members)))
                why = f"{group[0]} is used more"
                result.append(Removal("secondary", family, tuple(sorted(paths)), _size(members), why, users, alone))
    return result


def _unreferenced(scan: ScanReport) -> list[Removal]:
    """Families of files that nothing refers to."""
    families: dict[str, list[ModelFile]] = {}
    for model in scan.of("unreferenced"):
        if model.link is None:
            families.setdefault(model.family, []).append(model)
    return [
        Removal(
            "unreferenced",
            family,
            tuple(sorted(model.path for model in members)),
            _size(members),
            "nothing refers to it",
            (),
            tuple(sorted(_unkept(members))),
        )
        for family, members in sorted(families.items())
    ]


def _places(scan: ScanReport, paths: set[str]) -> list[Reference]:
    references = scan.references.references if scan.references is not None else ()
    return [place for place in references if not place.is_mention and not paths.isdisjoint(place.targets)]


def _unkept(models: Iterable[ModelFile]) -> list[str]:
    return [model.path for model in models if model.tracked == "none"]


def _size(models: Iterable[ModelFile]) -> int:
    return sum(model.size for model in models)


def size_of(file: File) -> int:
    """Bytes of a file; none where it is gone."""
    try:
        return file.entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
