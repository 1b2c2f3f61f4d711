"""What all chosen commits of a repository came to, remembered as one answer for a state of its refs.

A commit never changes, so what a choice of commits comes to depends on the refs alone. An answer holds no more than the
outs, which are few beside the commits, folders and files that they were found in.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.repo.dvcfiles import Out
from holdfast.repo.gitfolder import GitFolder, RefState
from holdfast.repo.records import Named
from holdfast.repo.refs import Origin
from holdfast.repo.roots import Roots


@dataclass
class Answer:
    """An answer.

    Args:
        named: the outs that commits name, each in the order in which it was met.
        origins: where each was met.
        reached: the commits that were read, 40 hex digits each.
        files: the outs of DVC files in the workspace and the index, by the files' keys.
    """

    named: list[Named] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    files: dict[str, list[Named]] = field(default_factory=dict)


def place_of(folder: GitFolder, roots: Roots) -> str:
    """What an answer is kept under: one for each worktree and choice."""
    return f"{folder.path}\0{roots!r}"


def digest_of(state: RefState) -> bytes:
    """What an answer holds for."""
    return hashlib.blake2b(repr(state).encode(), digest_size=16).digest()


def dump(answer: Answer) -> bytes:
    """An answer as bytes, in columns."""
    paths: dict[str, int] = {}
    shapes: dict[tuple[Any, ...], int] = {}
    origins: dict[Origin, int] = {}
    named = [*answer.named, *(entry for found in answer.files.values() for entry in found)]
    columns = {
        "paths": paths,
        "shapes": shapes,
        "file": [paths.setdefault(entry.file, len(paths)) for entry in named],
        "path": [paths.setdefault(entry.out.path, len(paths)) for entry in named],
        "shape": [shapes.setdefault(_shape(entry), len(shapes)) for entry in named],
        "oid": " ".join(entry.out.oid for entry in named),
        "size": [entry.out.size for entry in named],
        "at": [origins.setdefault(origin, len(origins)) for origin in answer.origins],
        "origins": [(one.kind, one.ref, one.commit, one.back) for one in origins],
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
    columns: Mapping[str, Any] = json.loads(data)
    paths, shapes = columns["paths"], columns["shapes"]
    origins = [Origin(*origin) for origin in columns["origins"]]
    oids, sizes = columns["oid"].split(), columns["size"]
    # column by column: tens of thousands of values take half the time that they take one by one
    hash_names, nfiles, stages, listed, versions = ([shapes[at][part] for at in columns["shape"]] for part in range(5))
    out_paths, files = ([paths[at] for at in columns[part]] for part in ("path", "file"))
    outs = map(Out._make, zip(out_paths, hash_names, oids, sizes, nfiles, stages, listed, strict=True))
    named = [*map(Named._make, zip(outs, files, versions, strict=True))]
    at = [origins[number] for number in columns["at"]]
    answer = Answer(named[: len(at)], at, columns["reached"].split())
    start = len(at)
    for key, count in columns["files"]:
        answer.files[key] = named[start : start + count]
        start += count
    return answer


def _shape(entry: Named) -> tuple[Any, ...]:
    return entry.out.hash_name, entry.out.nfiles, entry.out.stage, entry.out.listed, entry.version
