"""What trees and files of a repository say, each found out once: folders, the DVC files in them, the outs these name.

A folder is known by its path and tree id, a file by its path and blob id, so what is known of them never changes. It is
numbered, so that it can be written down (see `holdfast.repo.recordcache`) and met again at the cost of a few integers.
"""

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast.repo.dvcfiles import (
    DVC_SUFFIX,
    LOCK_FILE,
    PIPELINE_FILE,
    Out,
    StageDefinition,
    UnreadableFileError,
    find_definition,
    read_definitions,
    read_dvc,
    read_lock_as_yaml,
    read_lock_stage,
    read_version,
    version_name,
)
from holdfast.repo.objects import LINK_MODE, SUBMODULE_MODE, TREE_MODE, GitObjects
from holdfast.repo.workspace import DVC_FOLDER

NOTHING = 0  # the number of the folder that holds no DVC file
_VERSION_FILE = re.compile(r"v[0-9]+\.yaml")
_NAMES = (DVC_SUFFIX, ".yaml", ".lock")


class MissingObjectError(Exception):
    """Git does not have a tree or blob; ``what`` names it for people."""

    def __init__(self, what: str, kind: str) -> None:
        super().__init__(what)
        self.what = what
        self.kind = kind


class DamagedFileError(Exception):
    """A DVC file is not what its name says."""

    def __init__(self, path: str, reason: UnreadableFileError) -> None:
        super().__init__(path)
        self.path = path
        self.reason = reason


class Named(NamedTuple):
    """An out, the file that names it (from the git root), and the registry version that the file is.

    No dataclass, since tens of thousands are made when a cache is read.
    """

    out: Out
    file: str
    version: str | None


@dataclass
class Records:
    """What is known.

    Args:
        named: every out with its file, by number.
        files: the outs of every DVC file, by number.
        folders: the DVC files and the folders with any in every folder, by number; `NOTHING` is empty.
        tops: the folder number of a commit's tree.
        named_keys, file_keys, folder_keys: the numbers, by what `file_key` and `folder_key` make.
        links: the DVC files in a folder, and in those below, that are links; by the folder's key.
    """

    named: list[Named] = field(default_factory=list)
    files: list[tuple[int, ...]] = field(default_factory=list)
    folders: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=lambda: [((), ())])
    tops: dict[str, int] = field(default_factory=dict)
    named_keys: dict[Named, int] = field(default_factory=dict)
    file_keys: dict[str, int] = field(default_factory=dict)
    folder_keys: dict[str, int] = field(default_factory=lambda: {"": NOTHING})
    links: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # not written down: trees without DVC files are most of some repositories
    _empty: set[str] = field(default_factory=set)
    _definitions: dict[str, dict[str, StageDefinition]] = field(default_factory=dict)
    _stages: dict[tuple[str, str, str, bytes], tuple[int, ...]] = field(default_factory=dict)

    def top(self, objects: GitObjects, tree: str) -> int:
        """The folder number of a commit's tree.

        Raises:
            MissingObjectError: git cannot give a tree or blob.
            DamagedFileError: a DVC file is none.
        """
        if tree not in self.tops:
            number = self._folder(objects, "", tree)
            if links := self.links.get(folder_key("", tree)):
                # a linked file changes without its folder's tree, so it belongs to the commit
                linked = [file for path in links if (file := self._linked(objects, tree, path)) is not None]
                if linked:
                    number = self._add_folder(f"linked {tree}", linked, [number] if number else [])
            self.tops[tree] = number
        return self.tops[tree]

    def file(self, path: str, blob: str, definition: str, read: Callable[[str], bytes]) -> int:
        """The number of a DVC file.

        Args:
            path: from the git root.
            blob: git's id of its content.
            definition: the same of the ``dvc.yaml`` beside a lock; empty for other files and where there is none.
            read: gives the content of either.

        Raises:
            DamagedFileError: it is none.
        """
        key = file_key(path, blob, definition)
        if key not in self.file_keys:
            folder, name = posixpath.split(path)
            try:
                numbers = tuple(self._read(path, folder, name, read(blob), definition, read))
            except UnreadableFileError as error:
                raise DamagedFileError(path, error) from error
            self.files.append(numbers)
            self.file_keys[key] = len(self.files) - 1
        return self.file_keys[key]

    def _folder(self, objects: GitObjects, path: str, tree: str) -> int:
        key = folder_key(path, tree)
        if key in self.folder_keys:
            return self.folder_keys[key]
        if key in self._empty:
            return NOTHING
        entries = objects.read_tree(tree)
        if entries is None:
            raise MissingObjectError(f"folder {path or '.'}", "tree")
        files: list[tuple[str, str]] = []
        definition = ""
        below: list[int] = []
        links: list[str] = []
        for mode, name, oid in entries:
            if mode == TREE_MODE:
                if name != DVC_FOLDER:
                    place = f"{path}/{name}" if path else name
                    if number := self._folder(objects, place, oid):
                        below.append(number)
                    links.extend(self.links.get(folder_key(place, oid), ()))
            elif name.endswith(_NAMES) and mode != SUBMODULE_MODE:
                if mode == LINK_MODE:
                    if reads(path, name):
                        links.append(f"{path}/{name}" if path else name)
                elif name == PIPELINE_FILE:
                    definition = oid
                elif reads(path, name):
                    files.append((name, oid))

        def read(blob: str) -> bytes:
            data = objects.read_blob(blob)
            if data is None:
                name = next((name for name, oid in files if oid == blob), PIPELINE_FILE)
                raise MissingObjectError(f"{path}/{name}" if path else name, "blob")
            return data

        numbers = [
            self.file(f"{path}/{name}" if path else name, oid, definition if name == LOCK_FILE else "", read)
            for name, oid in files
        ]
        if links:
            self.links[key] = tuple(links)
        if not numbers and not below:
            self._empty.add(key)
            return NOTHING
        return self._add_folder(key, numbers, below)

    def _add_folder(self, key: str, files: list[int], below: list[int]) -> int:
        number = self.folder_keys[key] = len(self.folders)
        self.folders.append((tuple(files), tuple(below)))
        return number

    def _linked(self, objects: GitObjects, tree: str, path: str) -> int | None:
        link = _find(objects, tree, path)
        if link is None or link[0] != LINK_MODE or (target := objects.read_blob(link[1])) is None:
            return None
        try:
            place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target.decode()))
        except UnicodeDecodeError:
            return None
        found = _find(objects, tree, place)
        if found is None or found[0] in (TREE_MODE, LINK_MODE, SUBMODULE_MODE):
            return None  # leads out of the repository or nowhere: a checkout could not read it either

        def read(blob: str) -> bytes:
            data = objects.read_blob(blob)
            if data is None:
                raise MissingObjectError(place, "blob")
            return data

        return self.file(path, found[1], "", read)

    def _read(
        self, path: str, folder: str, name: str, data: bytes, definition: str, read: Callable[[str], bytes]
    ) -> list[int]:
        if name == LOCK_FILE:
            if definition and definition not in self._definitions:
                self._definitions[definition] = read_definitions(read(definition))
            return self._lock(path, folder, data, definition)
        if name.endswith(DVC_SUFFIX):
            return [self._number(out, path, None) for out in read_dvc(data, folder)]
        out = read_version(data, path)
        return [] if out is None else [self._number(out, path, version_name(path))]

    def _lock(self, path: str, folder: str, data: bytes, definition: str) -> list[int]:
        from holdfast.repo.canonical import split_lock  # imported here: see read_lock_stage

        definitions = self._definitions.get(definition, {})
        result: list[int] = []
        for name, lines in split_lock(data) or [("", b"")]:
            key = (path, definition, name, lines)
            numbers = self._stages.get(key)
            if numbers is None:
                outs = read_lock_stage(lines, folder, name, find_definition(definitions, name))
                if outs is None:
                    return [self._number(out, path, None) for out in read_lock_as_yaml(data, folder, definitions)]
                numbers = self._stages[key] = tuple(self._number(out, path, None) for out in outs)
            result += numbers
        return result

    def number(self, entry: Named) -> int:
        """The number of an out in a file; one that is new gets one."""
        if len(self.named_keys) < len(self.named):  # made only where something new is read
            self.named_keys = {known: at for at, known in enumerate(self.named)}
        number = self.named_keys.setdefault(entry, len(self.named))
        if number == len(self.named):
            self.named.append(entry)
        return number

    def _number(self, out: Out, file: str, version: str | None) -> int:
        return self.number(Named(out, file, version))


def file_key(path: str, blob: str, definition: str) -> str:
    """What a file is known by: no path holds a zero."""
    return f"{blob}{definition}\0{path}"


def folder_key(path: str, tree: str) -> str:
    """What a folder is known by."""
    return f"{tree}\0{path}"


def reads(folder: str, name: str) -> bool:
    """Whether a file of that name in that folder is one that names objects."""
    if name.endswith(DVC_SUFFIX) or name == LOCK_FILE:
        return True
    return _VERSION_FILE.fullmatch(name) is not None and version_name(f"{folder}/{name}") is not None


def _find(objects: GitObjects, tree: str, path: str) -> tuple[bytes, str] | None:
    """Mode and id of what lies at a path below a tree."""
    found = (TREE_MODE, tree)
    for part in path.split("/"):
        entries = objects.read_tree(found[1]) if found[0] == TREE_MODE else None
        match = next(((mode, oid) for mode, name, oid in entries or () if name == part), None)
        if match is None:
            return None
        found = match
    return found
