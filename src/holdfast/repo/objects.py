"""Git's objects, each read once: commits, what tags lead to, trees and blobs."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from holdfast.repo.gitfolder import GitFolder

PeeledKind = Literal["commit", "tree", "blob", "missing"]

TREE_MODE, LINK_MODE, SUBMODULE_MODE = b"40000", b"120000", b"160000"
_KINDS: dict[int, PeeledKind] = {1: "commit", 2: "tree", 3: "blob"}
_TAG = 4
_COMMITTER_TIME = re.compile(rb"\ncommitter [^\n]*?(-?[0-9]+) [+-][0-9]+\n")


class Commit(NamedTuple):
    """What a commit says; no dataclass, since thousands are made when a cache is read.

    Args:
        tree: the id of its top folder, 40 hex digits.
        parents: 40 hex digits each.
        time: when it was committed, seconds since 1970.
    """

    tree: str
    parents: tuple[str, ...]
    time: int


@dataclass
class GitObjects:
    """Reads a repository's objects as they were written: replacements and grafts count for nothing.

    Args:
        folder: the repository.
        commits: those that are known, by hex digits.
        peeled: what tags lead to: a commit's hex digits, and the kind.
        remember: fills both with what was known before; called when something is asked for that is not in them.
    """

    folder: GitFolder
    commits: dict[str, Commit] = field(default_factory=dict)
    peeled: dict[str, tuple[str, PeeledKind]] = field(default_factory=dict)
    remember: Callable[[], object] = lambda: None

    def find_commit(self, oid: str) -> Commit | None:
        """The commit; None where it is missing, damaged or no commit."""
        if oid not in self.commits:
            self.remember()
        found = self.commits.get(oid)
        if found is None:
            kind, data = self._read(oid)
            if kind != "commit" or (found := parse_commit(data)) is None:
                return None
            self.commits[oid] = found
        return found

    def peel(self, oid: str) -> tuple[str, PeeledKind]:
        """What a ref's object leads to through tags: hex digits, and the kind."""
        self.remember()
        if oid in self.commits:
            return oid, "commit"
        if oid not in self.peeled:
            import pygit2  # imported here: see GitFolder.repository

            try:
                entry: object = self.folder.repository[oid]
                while isinstance(entry, pygit2.Tag):
                    entry = entry.get_object()
            except (KeyError, ValueError, pygit2.GitError):
                return "", "missing"
            assert isinstance(entry, pygit2.Object)
            found = str(entry.id), _KINDS[int(entry.type)]
            if found[1] == "commit" and self.find_commit(found[0]) is None:
                return "", "missing"
            if found[0] == oid:
                return found
            self.peeled[oid] = found
        return self.peeled[oid]

    def find_revision(self, revision: str) -> str | None:
        """The commit that git knows by that name: a branch, a tag, ``HEAD~2``, hex digits; None where it knows none."""
        import pygit2  # imported here: see GitFolder.repository

        try:
            return str(self.folder.repository.revparse_single(revision).peel(pygit2.Commit).id)
        except (KeyError, ValueError, pygit2.GitError):
            return None

    def read_tree(self, tree: str) -> list[tuple[bytes, str, str]] | None:
        """Mode, name and id of each entry of a folder; None where it is missing or damaged."""
        kind, data = self._read(tree)
        if kind != "tree":
            return None
        try:
            return list(_entries(data))
        except ValueError:
            return None

    def read_blob(self, blob: str) -> bytes | None:
        """A file's content; None where it is missing or damaged."""
        kind, data = self._read(blob)
        return data if kind == "blob" else None

    def _read(self, oid: str) -> tuple[PeeledKind, bytes]:
        import pygit2  # imported here: see GitFolder.repository

        try:
            kind, data = self.folder.repository.read(oid)
        except (KeyError, ValueError, pygit2.GitError):
            return "missing", b""
        return _KINDS.get(int(kind), "missing"), data


def parse_commit(data: bytes) -> Commit | None:
    """A commit's own bytes taken apart; None where they are none."""
    end = data.find(b"\n\n")
    head = data[: end + 1] if end >= 0 else data
    lines = head.split(b"\n")
    when = _COMMITTER_TIME.search(head)
    if when is None or not lines[0].startswith(b"tree ") or len(lines[0]) != 45:
        return None
    parents = []
    for line in lines[1:]:
        if not line.startswith(b"parent "):
            break
        parents.append(line[7:].decode("ascii", "replace"))
    return Commit(lines[0][5:].decode("ascii", "replace"), tuple(parents), int(when[1]))


def _entries(data: bytes) -> Iterator[tuple[bytes, str, str]]:
    place, size = 0, len(data)
    while place < size:
        end = data.index(b"\0", place)
        mode, _, name = data[place:end].partition(b" ")
        place = end + 21
        yield mode, name.decode("utf-8", "replace"), data[end + 1 : place].hex()
