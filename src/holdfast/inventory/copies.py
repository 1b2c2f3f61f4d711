"""Which folders and files are second copies: backups by their names, packages by their content, caches of tools."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.inventory.tree import File, folders_of

# what tools make again by themselves
CACHE_FOLDERS = frozenset(
    {"__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".cache"}
)
CACHE_SUFFIXES = (".pyc", ".pyo")
BACKUP_WORDS = frozenset(
    {"backup", "backups", "bak", "old", "orig", "archive", "archives", "archived", "copy", "copies", "snapshot"}
    | {"snapshots", "trash", "deprecated", "obsolete"}
)
BACKUP_SUFFIXES = (".bak", ".old", ".orig", ".backup", "~")
# a folder is a package of copies where so many of its files lie elsewhere as well
PACKAGE_SHARE = 0.8
PACKAGE_LEAST_FILES = 3

_CACHE = re.compile(rf"(?:^|/)({'|'.join(map(re.escape, sorted(CACHE_FOLDERS)))})/")
_WORD = re.compile(r"[^\W_]+")


Sign = Literal["declared", "name", "content"]

_WHY: dict[Sign, str] = {
    "declared": "holdfast.yaml says so",
    "name": "its name says so",
    "content": "its files lie elsewhere, too",
}


@dataclass(frozen=True)
class CopyFolder:
    """A folder of second copies.

    Attributes:
        path: from the root.
        sign: what says so: the user, its name, or its content.
        files: the files in it.
    """

    path: str
    sign: Sign
    files: tuple[File, ...]

    @property
    def why(self) -> str:
        """What says so, in words."""
        return _WHY[self.sign]


def is_cache(label: str) -> bool:
    """Whether a tool made the file and makes it again: it lies in a cache's folder or is byte code."""
    return label.endswith(CACHE_SUFFIXES) or _CACHE.search(label) is not None


def cache_folder(label: str) -> str | None:
    """The name of the outermost cache's folder that the file lies in; None for none."""
    found = _CACHE.search(label)
    return found[1] if found else None


def is_backup_name(name: str) -> bool:
    """Whether the name of a file or folder says that it is a copy: ``models_old``, ``best.pth.bak``."""
    lower = name.lower()
    return lower.endswith(BACKUP_SUFFIXES) or not BACKUP_WORDS.isdisjoint(_WORD.findall(lower))


def find_copy_folders(
    files: Sequence[File], *, same: Callable[[File, File], bool], named: Callable[[str], bool] = lambda _: False
) -> list[CopyFolder]:
    """The outermost folders of second copies, ordered by path.

    A folder is one where its name or the user says so; or where at least four in five of its files (three at least)
    have an equal one of the same name outside of it and nearer to the root. Empty files count for nothing.

    Args:
        files: all files, in any order.
        same: whether two files of one name and size have equal bytes.
        named: whether the user's patterns name the folder.
    """
    holders = folders_of(file.label for file in files)
    found: dict[str, Sign] = {}
    for folder in sorted({parent for holder in holders for parent in _parents(holder)}):
        if not _inside(folder, found):
            if named(folder):
                found[folder] = "declared"
            elif is_backup_name(folder.rpartition("/")[2]):
                found[folder] = "name"
    maybe = _maybe_packages(files)
    if not found and not maybe:
        return []
    tree = _Ordered(files)
    twins = Twins(files if maybe else (), same)
    for folder in maybe:
        if not _inside(folder, found) and _is_package(folder, tree.below(folder), twins):
            found = {other: sign for other, sign in found.items() if not _inside(other, [folder])}
            found[folder] = "content"
    return [CopyFolder(folder, sign, tuple(tree.below(folder))) for folder, sign in sorted(found.items())]


class Twins:
    """Which files have an equal one of the same name elsewhere.

    Args:
        files: all files.
        same: whether two files of one name and size have equal bytes.
    """

    def __init__(self, files: Iterable[File], same: Callable[[File, File], bool]) -> None:
        self._same = same
        self._places: dict[str, list[File]] = {}
        # a name may occur ten thousand times: in each run, in each package
        self._sizes: dict[str, dict[int, list[File]]] = {}
        for file in files:
            self._places.setdefault(file.name, []).append(file)

    def of(self, file: File, allowed: Callable[[File], bool]) -> File | None:
        """An equal file among those that are ``allowed``; None where there is none, or the file is empty."""
        size = _size(file)
        if not size:
            return None
        for other in self._of_size(file.name, size):
            if other is not file and allowed(other) and self._same(file, other):
                return other
        return None

    def _of_size(self, name: str, size: int) -> list[File]:
        if name not in self._sizes:
            self._sizes[name] = {}
            for file in self._places[name]:
                self._sizes[name].setdefault(_size(file), []).append(file)
        return self._sizes[name].get(size, [])


def _maybe_packages(files: Sequence[File]) -> list[str]:
    """Folders with enough names that occur twice, outermost first: few of all, found without looking at a file."""
    counts = Counter(file.name for file in files)
    repeated = {name for name, count in counts.items() if count > 1}
    if not repeated:
        return []
    totals: dict[str, list[int]] = {}
    for file in files:
        entry = totals.setdefault(file.label.rpartition("/")[0], [0, 0])
        entry[0] += 1
        entry[1] += file.name in repeated
    sums: dict[str, list[int]] = {}
    for folder, (count, twice) in totals.items():
        for parent in _parents(folder):
            entry = sums.setdefault(parent, [0, 0])
            entry[0] += count
            entry[1] += twice
    # empty files are not known here: they may make up what is missing
    likely = [folder for folder, (count, twice) in sums.items() if _enough(twice, count) or 2 * twice >= count > 2]
    return sorted(likely, key=lambda folder: (folder.count("/"), folder))


def _is_package(folder: str, held: Iterable[File], twins: Twins) -> bool:
    full = [file for file in held if _size(file)]
    found = missing = 0
    for file in full:
        depth = file.label.count("/")
        if twins.of(file, lambda other: not _inside(other.label, [folder]) and other.label.count("/") < depth):  # noqa: B023
            found += 1
        else:
            missing += 1
            if missing > (1 - PACKAGE_SHARE) * len(full):
                return False
    return _enough(found, len(full))


class _Ordered:
    """Files by their paths, so that those below a folder are one span."""

    def __init__(self, files: Iterable[File]) -> None:
        self._files = sorted(files, key=lambda file: file.label)
        self._labels = [file.label for file in self._files]

    def below(self, folder: str) -> list[File]:
        start = bisect_left(self._labels, f"{folder}/")
        return self._files[start : bisect_left(self._labels, f"{folder}0", start)]  # 0 comes after /


def _enough(some: int, total: int) -> bool:
    return some >= PACKAGE_LEAST_FILES and some >= PACKAGE_SHARE * total


def _size(file: File) -> int:
    try:
        return file.entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def _inside(folder: str, known: Iterable[str]) -> bool:
    return any(f"{folder}/".startswith(f"{other}/") for other in known)


def _parents(folder: str) -> Iterable[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
