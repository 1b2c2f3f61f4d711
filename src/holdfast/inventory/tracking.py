"""Who keeps a file's history: git, DVC or nobody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.inventory.tree import File
from holdfast.repo.dvcfiles import (
    DVC_SUFFIX,
    LISTING_SUFFIX,
    LOCK_FILE,
    PIPELINE_FILE,
    UnreadableFileError,
    read_definitions,
    read_dvc,
    read_lock,
)

Tracked = Literal["git", "dvc", "none"]


@dataclass(frozen=True)
class Tracking:
    """What git's index and the DVC files of a tree name.

    Attributes:
        outs: the oid of each path that DVC tracks, from the root; of a folder its listing's.
        in_git: whether git's index has a path.
    """

    outs: Mapping[str, str]
    in_git: "GitIndex"

    def of(self, label: str) -> Tracked:
        """Who tracks the file."""
        if self.oid(label):
            return "dvc"
        return "git" if self.in_git.has(label) else "none"

    def oid(self, label: str) -> str:
        """The oid of what DVC tracks there: the file, or the nearest folder around it; empty for nothing."""
        if label in self.outs:
            return self.outs[label]
        folder = label
        while folder := folder.rpartition("/")[0]:
            if self.outs.get(folder, "").endswith(LISTING_SUFFIX):
                return self.outs[folder]
        return ""


class GitIndex:
    """The index of the git repository around a folder; empty where there is none.

    Args:
        root: the folder from which paths are seen.
        git_root: the top of the working tree, None outside of one.
    """

    def __init__(self, root: Path, git_root: Path | None) -> None:
        self._index = None
        self._prefix = ""
        if git_root is not None:
            import pygit2  # imported here: 50 ms that a scan outside of git need not pay

            try:
                self._index = pygit2.Repository(str(git_root)).index
            except pygit2.GitError:
                return  # a damaged repository tracks nothing that could be told
            place = root.resolve().relative_to(git_root.resolve()).as_posix()
            self._prefix = "" if place == "." else f"{place}/"

    def has(self, label: str) -> bool:
        """Whether git tracks the file."""
        return self._index is not None and self._prefix + label in self._index


def read_tracking(root: Path, git_root: Path | None, files: Iterable[File], notes: list[str]) -> Tracking:
    """What is tracked below ``root``, from the DVC files among ``files`` and git's index.

    A DVC file that cannot be read gets a line in ``notes``, and tracks nothing.
    """
    outs: dict[str, str] = {}
    for file in files:
        if file.name != LOCK_FILE and not file.name.endswith(DVC_SUFFIX):
            continue
        folder = file.label.rpartition("/")[0]
        try:
            data = file.path.read_bytes()
            if file.name == LOCK_FILE:
                sibling = file.path.with_name(PIPELINE_FILE)
                definitions = read_definitions(sibling.read_bytes()) if sibling.is_file() else {}
                found = read_lock(data, folder, definitions)
            else:
                found = read_dvc(data, folder)
        except OSError as error:
            notes.append(f"{file.label}: {error.strerror}")
            continue
        except UnreadableFileError as error:
            notes.append(f"{file.label} cannot be read: {error}")
            continue
        outs.update({out.path: out.oid for out in found})
    return Tracking(outs, GitIndex(root, git_root))
