"""What all chosen commits of a repository came to, remembered as one answer for a state of its refs.

A commit never changes, so what a choice of commits comes to depends on the refs alone. An answer holds no more than the
outs, which are few beside the commits, folders and files that they were found in. It is kept in columns: most of its
outs are asked for by their objects alone.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

from holdfast.repo.dvcfiles import Out
from holdfast.repo.gitfolder import GitFolder, RefState
from holdfast.repo.records import Named
from holdfast.repo.refs import Origin
from holdfast.repo.roots import Roots


class Sighting(NamedTuple):
    """An object's name, and where it was seen.

    Args:
        out: path and object.
        file: the file that says so, from the git root.
        origin: the commit or workspace that has the file.
        version: ``app/name@v3`` where the file is a registry version's.
    """

    out: Out
    file: str
    origin: Origin
    version: str | None = None


class _Shape(NamedTuple):
    """What many outs have in common."""

    hash_name: str
    nfiles: int | None
    stage: str | None
    listed: bool
    version: str | None


@dataclass
class _Columns:
    """Outs with their files; in each column one value for every out.

    Args:
        paths, shapes: the distinct values.
        file, path: numbers of ``paths``.
        shape: numbers of ``shapes``.
        oids, sizes: of the outs.
    """

    paths: list[str]
    shapes: list[_Shape]
    file: list[int]
    path: list[int]
    shape: list[int]
    oids: list[str]
    sizes: list[int | None]

    def __post_init__(self) -> None:
        count = len(self.oids)
        for column, values in ((self.file, self.paths), (self.path, self.paths), (self.shape, self.shapes)):
            if len(column) != count or (count and not 0 <= min(column) <= max(column) < len(values)):
                raise ValueError("a column is torn")
        if len(self.sizes) != count:
            raise ValueError("a column is torn")

    def at(self, number: int) -> Named:
        hash_name, nfiles, stage, listed, version = self.shapes[self.shape[number]]
        path = self.paths[self.path[number]]
        out = Out(path, hash_name, self.oids[number], self.sizes[number], nfiles, stage, listed)
        return Named(out, self.paths[self.file[number]], version)

    def __iter__(self) -> Iterator[Named]:
        # column by column: tens of thousands of values take half the time that they take one by one
        if not self.oids:
            return iter(())
        names, counts, stages, listed, versions = zip(*map(self.shapes.__getitem__, self.shape), strict=True)
        paths, files = ([self.paths[number] for number in column] for column in (self.path, self.file))
        outs = map(Out._make, zip(paths, names, self.oids, self.sizes, counts, stages, listed, strict=True))
        return map(Named._make, zip(outs, files, versions, strict=True))


@dataclass
class Answer:
    """An answer.

    Args:
        reached: the commits that were read, 40 hex digits each.
        origins: the places where outs were met, each once.
        places: where each out was met, as a number of ``origins``.
        files: the outs of DVC files in the workspace and the index, by the files' keys.
    """

    reached: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    files: dict[str, list[Named]] = field(default_factory=dict)
    _named: list[Named] = field(default_factory=list)
    _columns: _Columns | None = None

    def __len__(self) -> int:
        """How many outs commits name."""
        return len(self.places)

    def __iter__(self) -> Iterator[Sighting]:
        """Every out that commits name, in the order in which it was met."""
        origins = self.origins
        for entry, place in zip(self.named, self.places, strict=True):
            yield Sighting(entry.out, entry.file, origins[place], entry.version)

    def add(self, entry: Named, origin: Origin) -> Sighting:
        """Take in an out, and where it was met; one origin after the other."""
        if not self.origins or self.origins[-1] != origin:
            self.origins.append(origin)
        self.places.append(len(self.origins) - 1)
        self._named.append(entry)
        return Sighting(entry.out, entry.file, origin, entry.version)

    @cached_property
    def named(self) -> list[Named]:
        """The outs with their files; not before all are taken in."""
        return self._named if self._columns is None else [*islice(self._columns, len(self))]

    def sighting(self, number: int) -> Sighting:
        """One of the outs that commits name."""
        entry = self._named[number] if self._columns is None else self._columns.at(number)
        return Sighting(entry.out, entry.file, self.origins[self.places[number]], entry.version)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The object of every out: hash name and oid."""
        if self._columns is None:
            return [(entry.out.hash_name, entry.out.oid) for entry in self._named]
        names = [shape.hash_name for shape in self._columns.shapes]
        shown = [names[number] for number in self._columns.shape[: len(self)]]
        return [*zip(shown, self._columns.oids, strict=False)]

    @property
    def versions(self) -> Sequence[str | None]:
        """The registry version that every out's file is; empty where none is any."""
        if self._columns is None:
            versions = [entry.version for entry in self._named]
        elif any(shape.version for shape in self._columns.shapes):
            known = [shape.version for shape in self._columns.shapes]
            versions = [known[number] for number in self._columns.shape[: len(self)]]
        else:
            return ()
        return versions if any(versions) else ()


def place_of(folder: GitFolder, roots: Roots) -> str:
    """What an answer is kept under: one for each worktree and choice."""
    return f"{folder.path}\0{roots!r}"


def digest_of(state: RefState) -> bytes:
    """What an answer holds for."""
    return hashlib.blake2b(repr(state).encode(), digest_size=16).digest()


def dump(answer: Answer) -> bytes:
    """An answer as bytes, in columns."""
    paths: dict[str, int] = {}
    shapes: dict[_Shape, int] = {}
    named = [*answer.named, *(entry for found in answer.files.values() for entry in found)]
    columns = {
        "paths": paths,
        "shapes": shapes,
        "file": [paths.setdefault(entry.file, len(paths)) for entry in named],
        "path": [paths.setdefault(entry.out.path, len(paths)) for entry in named],
        "shape": [shapes.setdefault(_shape(entry), len(shapes)) for entry in named],
        "oid": " ".join(entry.out.oid for entry in named),
        "size": [entry.out.size for entry in named],
        "at": answer.places,
        "origins": answer.origins,
        "reached": " ".join(answer.reached),
        "files": [(key, len(found)) for key, found in answer.files.items()],
    }
    columns |= {"paths": list(paths), "shapes": list(shapes)}
    return json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode()


def load(data: bytes) -> Answer:
    """The answer of `dump`.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is none.
    """
    values: Mapping[str, Any] = json.loads(data)
    columns = _Columns(
        values["paths"],
        [_Shape(*shape) for shape in values["shapes"]],
        values["file"],
        values["path"],
        values["shape"],
        values["oid"].split(),
        values["size"],
    )
    places, origins = values["at"], [Origin(*origin) for origin in values["origins"]]
    if places and not 0 <= min(places) <= max(places) < len(origins):
        raise ValueError("a column is torn")
    answer = Answer(values["reached"].split(), origins, places, _columns=columns)
    start = len(places)
    for key, count in values["files"]:
        answer.files[key] = [columns.at(number) for number in range(start, start + count)]
        start += count
    if start != len(columns.oids):
        raise ValueError("a column is torn")
    return answer


def _shape(entry: Named) -> _Shape:
    return _Shape(entry.out.hash_name, entry.out.nfiles, entry.out.stage, entry.out.listed, entry.version)
