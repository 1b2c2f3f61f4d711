"""Whether the bytes of a file lie in another place that lasts: in git's commit, or in a file that stays."""

import os
from collections.abc import Callable, Iterable

import pygit2

from holdfast.errors import HoldfastError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.gc.workspace_tree import Tree
from holdfast.inventory.copies import is_cache


class Bytes:
    """Where else the bytes of a tree's files are.

    Args:
        tree: the files, seen from the git root.
        cache: what is known of their content.
        lasts: whether a file counts as a place that lasts.
    """

    def __init__(self, tree: Tree, cache: DigestCache, lasts: Callable[[str], bool]) -> None:
        self._tree = tree
        self._cache = cache
        self._lasts = lasts
        self._sizes: dict[int, list[str]] = {}
        for label, seen in tree.files.items():
            self._sizes.setdefault(seen.size, []).append(label)
        self._digests: dict[str, str | None] = {}
        self._in_git: dict[str, bool] = {}
        self._index, self._commit = _git(tree)

    def is_tracked(self, label: str) -> bool:
        """Whether git's index has the file."""
        return self._index is not None and os.fsencode(label) in self._index

    def in_git(self, label: str) -> bool:
        """Whether the commit that is checked out has the file with these bytes."""
        if label not in self._in_git:
            self._in_git[label] = self._is_committed(label)
        return self._in_git[label]

    def twin(self, label: str, allowed: Callable[[str], bool]) -> str | None:
        """Another file with the same bytes that lasts; None where there is none, or the file cannot be read.

        One that goes as well does where git has it.
        """
        for other in self._sizes.get(self._tree.files[label].size, ()):
            if other == label or is_cache(other):
                continue
            if (self._lasts(other) and allowed(other)) or self.in_git(other):
                digest = self._digest(label)
                if digest is not None and digest == self._digest(other):
                    return other
        return None

    def alone(self, labels: Iterable[str], allowed: Callable[[str], bool]) -> list[str]:
        """Those of the files whose bytes are in no other place that lasts; an empty file has none to lose."""
        labels = list(labels)
        self._recall(labels)
        return [label for label in labels if self._is_last(label, allowed)]

    def has_last(self, labels: Iterable[str], allowed: Callable[[str], bool]) -> bool:
        """Whether one of the files is such."""
        return any(self._is_last(label, allowed) for label in labels)

    def _is_last(self, label: str, allowed: Callable[[str], bool]) -> bool:
        full = self._tree.files[label].size > 0
        return full and not self.in_git(label) and self.twin(label, allowed) is None

    def by_git_alone(self, labels: Iterable[str], allowed: Callable[[str], bool]) -> bool:
        """Whether one of the files has no place but its own in git's commit."""
        return any(self._tree.files[label].size and self.twin(label, allowed) is None for label in labels)

    def _recall(self, labels: Iterable[str]) -> None:
        """Ask the cache for all at once what it knows of files, and of those of equal size."""
        sizes = {self._tree.files[label].size for label in labels} - {0}
        asked = {
            label: self._tree.files[label].stamp[:4]
            for size in sizes
            if len(self._sizes[size]) > 1
            for label in self._sizes[size]
            if label not in self._digests
        }
        known = self._cache.many(asked.values())
        for label, key in asked.items():
            if (found := known.get(key)) is not None and found.file is not None:
                self._digests[label] = found.file

    def _digest(self, label: str) -> str | None:
        if label not in self._digests:
            try:
                self._digests[label] = digests_of(self._tree.root / label, self._cache, file=True).file
            except (OSError, HoldfastError):
                self._digests[label] = None  # in doubt it equals nothing
        return self._digests[label]

    def _is_committed(self, label: str) -> bool:
        if self._commit is None or not self.is_tracked(label):
            return False
        try:
            entry = self._commit[os.fsdecode(os.fsencode(label))]
            # without git's filters: what they change is not equal, and counts as not there
            return bool(entry.id == pygit2.hashfile(str(self._tree.root / label)))
        except (KeyError, OSError, ValueError, pygit2.GitError):
            return False


def _git(tree: Tree) -> "tuple[pygit2.Index | None, pygit2.Tree | None]":
    try:
        repository = pygit2.Repository(str(tree.root))
        index = repository.index
        return index, None if repository.head_is_unborn else repository.head.peel(pygit2.Tree)
    except pygit2.GitError:
        return None, None  # a damaged repository keeps nothing that could be told
