"""Walking a tree of files: in order, never out of it, without the folders that tools own."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import UsageError

SKIPPED_FOLDERS = frozenset(
    {".git", "node_modules", "__pycache__", ".ipynb_checkpoints", ".tox", ".nox", ".eggs", "site-packages"}
    | {".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
)
SKIPPED_DVC_FOLDERS = frozenset({"cache", "tmp"})
VENV_MARK = "pyvenv.cfg"


class File(NamedTuple):
    """A regular file that was met: its path from the root, with slashes, its base name, and its entry in the folder.

    A tuple, since a walk meets 100,000 of them.
    """

    label: str
    name: str
    entry: "os.DirEntry[str]"

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.entry.path)


@dataclass(frozen=True)
class Excludes:
    """Patterns in the form of ``.gitignore``, seen from the root of the walk.

    Raises:
        UsageError: git would not take a pattern.
    """

    patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        spec = None
        if self.patterns:
            from pathspec import GitIgnoreSpec  # imported here: 20 ms that a walk without patterns need not pay

            try:
                spec = GitIgnoreSpec.from_lines(self.patterns)
            except ValueError as error:
                raise UsageError(f"{error} is no pattern of files", hint="Patterns are those of .gitignore") from error
        object.__setattr__(self, "_spec", spec)

    def file(self, label: str) -> bool:
        """Whether the file is left out."""
        spec = self.__dict__["_spec"]
        return spec is not None and bool(spec.match_file(label))

    def folder(self, label: str) -> bool:
        """Whether the folder and all that is in it are left out."""
        return self.file(f"{label}/")


def walk_files(
    root: Path,
    notes: list[str],
    *,
    skipped: frozenset[str] = frozenset(),
    owned: frozenset[str] = SKIPPED_FOLDERS,
    excludes: Excludes | None = None,
    links: list[File] | None = None,
) -> Iterator[File]:
    """Every regular file below ``root``, ordered within its folder; symbolic links are not followed.

    Left out are folders called as one of ``owned`` (by tools), DVC's own, virtual environments, the folders in
    ``skipped`` (from the root) and what ``excludes`` says. What cannot be read gets a line in ``notes``; symbolic links
    go to ``links``.
    """
    stack: list[tuple[str, str]] = [(str(root), "")]
    while stack:
        folder, prefix = stack.pop()
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=_name)
        except OSError as error:
            notes.append(f"{prefix.rstrip('/') or folder}: {error.strerror}")
            continue
        if any(entry.name == VENV_MARK for entry in entries):
            continue
        in_dvc = prefix.endswith(".dvc/")
        below = []
        for entry in entries:
            label = prefix + entry.name
            try:
                if entry.is_file(follow_symlinks=False):
                    if excludes is None or not excludes.file(label):
                        yield File(label, entry.name, entry)
                elif entry.is_dir(follow_symlinks=False):
                    if (
                        entry.name not in owned
                        and label not in skipped
                        and not (in_dvc and entry.name in SKIPPED_DVC_FOLDERS)
                        and (excludes is None or not excludes.folder(label))
                    ):
                        below.append((entry.path, label + "/"))
                elif links is not None and entry.is_symlink():
                    links.append(File(label, entry.name, entry))
            except OSError as error:
                notes.append(f"{label}: {error.strerror}")
        stack.extend(reversed(below))


def folders_of(labels: Iterable[str]) -> Iterator[str]:
    """The folders that hold the files, each once, from the root; empty for the root itself."""
    seen: set[str] = set()
    for label in labels:
        folder = label.rpartition("/")[0]
        if folder not in seen:
            seen.add(folder)
            yield folder


def _name(entry: "os.DirEntry[str]") -> str:
    return entry.name
