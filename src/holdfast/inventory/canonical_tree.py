"""The files that rules speak of, found folder by folder: a hook must not walk a tree of data for each commit.

What DVC tracks is there, whether it is checked out or not.
"""

import os
import posixpath
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from holdfast.inventory.canonical_names import NamePattern
from holdfast.inventory.ref_pattern import Component, Wild, match_name
from holdfast.inventory.sources import source_kind
from holdfast.inventory.tree import SKIPPED_FOLDERS, walk_files
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


class RuleTree:
    """What is below a folder, listed when it is asked for.

    Args:
        root: the folder of the rules.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries: dict[str, dict[str, bool]] = {}
        self._locks: dict[str, dict[str, bool]] = {}
        self.notes: list[str] = []

    def entries(self, folder: str) -> dict[str, bool]:
        """The names in a folder (from the root), and whether each is a folder here; what DVC tracks is among them."""
        if folder not in self._entries:
            found: dict[str, bool] = {}
            tracked = []
            try:
                with os.scandir(self.root / folder) as listing:
                    for entry in listing:
                        if entry.name.endswith(DVC_SUFFIX):
                            tracked.append(entry.name.removesuffix(DVC_SUFFIX))
                        else:
                            found[entry.name] = entry.is_dir()
            except OSError:
                pass  # there is none, or nobody may look into it
            tracked += [path.rpartition("/")[2] for path in self._locked(folder) if path.rpartition("/")[0] == folder]
            self._entries[folder] = dict(sorted((dict.fromkeys(filter(None, tracked), False) | found).items()))
        return self._entries[folder]

    def has(self, path: str) -> bool:
        """Whether there is a file or folder of that path (from the root), or may be one in a folder that DVC tracks."""
        folder, _, name = path.rpartition("/")
        return name in self.entries(folder) or self._may_hold(folder)

    def is_file(self, path: str) -> bool:
        """Whether there is a file of that path on this disk."""
        return (self.root / path).is_file()

    def fitting(self, pattern: NamePattern) -> list[str]:
        """The files and folders that a pattern of paths fits, ordered."""
        found = dict.fromkeys(self._fitting("", pattern.components))
        return sorted(path for path in found if pattern.captures(path) is not None)

    def may_fit(self, pattern: NamePattern) -> bool:
        """Whether a pattern fits anything, or may do so in a folder that DVC tracks and that is not here."""
        if self.fitting(pattern):
            return True
        folder = ""
        for component in pattern.components[:-1]:
            if len(component) != 1 or not isinstance(component[0], str):
                break
            folder = posixpath.join(folder, component[0])
        if self._may_hold(folder):
            return True
        # a pipeline may lie anywhere
        locks = [path.rpartition("/")[0] for path in self.files if path.rpartition("/")[2] == LOCK_FILE]
        outs = {path: whole for place in locks for path, whole in self._read_outs(place, LOCK_FILE).items()}
        return any(
            pattern.captures(path) is not None or (whole and f"{folder}/".startswith(f"{path}/"))
            for path, whole in outs.items()
        )

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file of the tree, from the root: a walk, for what cannot be answered without."""
        return tuple(file.label for file in walk_files(self.root, self.notes))

    @cached_property
    def source_stems(self) -> frozenset[str]:
        """The stems of all text sources: what such a word means is the source."""
        names = (label.rpartition("/")[2] for label in self.files)
        return frozenset(name.rpartition(".")[0] for name in names if source_kind(name) is not None)

    def _fitting(self, folder: str, components: tuple[Component, ...]) -> Iterator[str]:
        first, rest = components[0], components[1:]
        if first == (Wild.DEEP,):
            yield from self._fitting(folder, rest) if rest else ()
            for name, is_folder in self.entries(folder).items():
                path = posixpath.join(folder, name)
                if not rest:
                    yield path
                owned = name.startswith(".") or name in SKIPPED_FOLDERS
                if is_folder and not owned and not (self.root / path).is_symlink():
                    yield from self._fitting(path, components)
            return
        if rest and len(first) == 1 and isinstance(first[0], str):  # a folder that is named need not be listed
            yield from self._fitting(posixpath.join(folder, first[0]), rest)
            return
        for name, is_folder in self.entries(folder).items():
            if match_name(first, name):
                path = posixpath.join(folder, name)
                if not rest:
                    yield path
                elif is_folder:
                    yield from self._fitting(path, rest)

    def _may_hold(self, folder: str) -> bool:
        """Whether it lies in a folder that DVC tracks as a whole and that is not here."""
        while folder:
            above, _, name = folder.rpartition("/")
            if not (self.root / folder).is_dir():
                outs = self._locked(above)
                if (self.root / f"{folder}{DVC_SUFFIX}").is_file():
                    outs = outs | self._read_outs(above, f"{name}{DVC_SUFFIX}")
                if outs.get(folder):
                    return True
            folder = above
        return False

    def _locked(self, folder: str) -> dict[str, bool]:
        """The outs of the ``dvc.lock`` files in a folder and above it, and whether each is a folder."""
        if folder not in self._locks:
            above = self._locked(folder.rpartition("/")[0]) if folder else {}
            here = (self.root / folder / LOCK_FILE).is_file()
            self._locks[folder] = above | (self._read_outs(folder, LOCK_FILE) if here else {})
        return self._locks[folder]

    def _read_outs(self, folder: str, name: str) -> dict[str, bool]:
        place = self.root / folder
        try:
            data = (place / name).read_bytes()
            if name == LOCK_FILE:
                pipeline = place / PIPELINE_FILE
                outs = read_lock(data, folder, read_definitions(pipeline.read_bytes()) if pipeline.is_file() else {})
            else:
                outs = read_dvc(data, folder)
        except (OSError, UnreadableFileError) as error:
            self.notes.append(f"{posixpath.join(folder, name)} cannot be read: {error}")
            return {}
        return {out.path: out.oid.endswith(LISTING_SUFFIX) for out in outs}
