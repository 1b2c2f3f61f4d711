"""What commits, folders and DVC files said, remembered between runs in one SQLite file.

All of it is named by what git hashes, so it never becomes wrong, only incomplete. It is written in batches, each with a
digest of its own: a batch that does not match it, or a file of another version, is thrown away and found out again.
Numbers go on from one batch to the next; of two processes that write at once, the second one's batch is dropped.
"""

import hashlib
import json
import posixpath
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.cachefile import CacheFile
from holdfast.repo import answers
from holdfast.repo.answers import Answer
from holdfast.repo.dvcfiles import LOCK_FILE, PIPELINE_FILE, Out
from holdfast.repo.gitfolder import GitFolder
from holdfast.repo.objects import LINK_MODE, Commit, GitObjects
from holdfast.repo.records import Named, Records, reads

# what a reader makes of a file may change with it: raise this then
SCHEMA = 1
# so many batches are written anew as one
MOST_BATCHES = 40
# answers that are kept, for worktrees and choices of commits
MOST_KEPT = 16
TABLES = (
    "CREATE TABLE IF NOT EXISTS batches (number INTEGER PRIMARY KEY, digest BLOB, payload BLOB)",
    "CREATE TABLE IF NOT EXISTS staged (place TEXT PRIMARY KEY, digest BLOB, payload BLOB)",
    "CREATE TABLE IF NOT EXISTS answers (place TEXT PRIMARY KEY, digest BLOB, payload BLOB)",
)

Staged = tuple[str, str, str]


@dataclass(frozen=True)
class _Counts:
    named: int = 0
    files: int = 0
    folders: int = 1  # the first is always there
    links: int = 0
    tops: int = 0
    commits: int = 0
    peeled: int = 0
    batches: int = 0


class RecordCache:
    """The file, and what it knows.

    Args:
        path: where it lies; None for one that keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.commits: dict[str, Commit] = {}
        self.peeled: dict[str, Any] = {}
        self._records = Records()
        self._loaded = False
        self._counts = _Counts()
        self._paths: list[str] = []
        self._file: CacheFile | None = None
        if path is not None:
            version = zlib.crc32(f"{SCHEMA} {__version__}".encode()) & 0x7FFFFFFF
            self._file = CacheFile(path, version or 1, TABLES)

    @property
    def is_loaded(self) -> bool:
        """Whether anything was asked for that is not in an answer."""
        return self._loaded

    def load(self) -> Records:
        """What was known of trees and files; with it come the commits and tags."""
        if not self._loaded:
            self._loaded = True
            if self._file is not None:
                self._load(self._file)
        return self._records

    def answer(self, place: str, digest: bytes) -> Answer | None:
        """The answer that is kept under ``place``, where it holds for ``digest``."""
        payload = self._kept("answers", place, digest)
        try:
            return None if payload is None else answers.load(payload)
        except (ValueError, TypeError, KeyError, IndexError):
            return None

    def keep_answer(self, place: str, digest: bytes, answer: Answer) -> None:
        """Keep an answer, in place of the one that was there."""
        self._keep("answers", place, digest, answers.dump(answer))

    def staged(self, folder: GitFolder) -> list[Staged]:
        """The DVC files of git's index: path, blob, and the blob of the ``dvc.yaml`` beside a lock."""
        try:
            digest = _digest((folder.path / "index").read_bytes())
        except OSError:
            return []
        payload = self._kept("staged", str(folder.path), digest)
        if payload is not None:
            return [(path, blob, definition) for path, blob, definition in json.loads(payload)]
        found = list(_read_index(folder))
        self._keep("staged", str(folder.path), digest, json.dumps(found).encode())
        return found

    def save(self, objects: GitObjects) -> None:
        """Write what is new, and close the file."""
        if self._file is None:
            return
        counts, records = self._counts, self._records
        if self._loaded and _count(records, objects.commits, objects.peeled, counts.batches) != counts:
            whole = counts.batches >= MOST_BATCHES
            columns = _dump(records, objects, *((_Counts(), []) if whole else (counts, self._paths)))
            payload = json.dumps(columns, ensure_ascii=False, separators=(",", ":")).encode()
            with self._file.trying() as connection:
                if connection is not None:
                    connection.execute("BEGIN IMMEDIATE")
                    (known,) = connection.execute("SELECT COUNT(*) FROM batches").fetchone()
                    if known == counts.batches:  # else another process was faster, and its numbers are others
                        if whole:
                            connection.execute("DELETE FROM batches")
                        number = 0 if whole else known
                        row = (number, _digest(payload), payload)
                        connection.execute("INSERT INTO batches VALUES (?, ?, ?)", row)
                    connection.execute("COMMIT")
        self._file.close()
        self._file = None

    def _kept(self, table: str, place: str, digest: bytes) -> bytes | None:
        if self._file is not None:
            with self._file.trying() as connection:
                if connection is not None:
                    query = f"SELECT payload FROM {table} WHERE place = ? AND digest = ?"
                    row = connection.execute(query, (place, digest)).fetchone()
                    if row is not None and _digest(row[0][16:]) == row[0][:16]:
                        return bytes(row[0][16:])
        return None

    def _keep(self, table: str, place: str, digest: bytes, payload: bytes) -> None:
        if self._file is not None:
            with self._file.trying() as connection:
                if connection is not None:
                    row = (place, digest, _digest(payload) + payload)
                    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", row)
                    newest = f"SELECT rowid FROM {table} ORDER BY rowid DESC LIMIT {MOST_KEPT}"
                    connection.execute(f"DELETE FROM {table} WHERE rowid NOT IN ({newest})")

    def _load(self, file: CacheFile) -> None:
        with file.trying() as connection:
            if connection is None:
                return
            rows = connection.execute("SELECT number, digest, payload FROM batches ORDER BY number").fetchall()
            try:
                for expected, (number, digest, payload) in enumerate(rows):
                    if number != expected or _digest(payload) != digest:
                        raise ValueError("a batch is torn")
                    self._take(json.loads(payload))
            except (ValueError, TypeError, KeyError, IndexError) as error:
                self.commits.clear()
                self.peeled.clear()
                self._records, self._counts, self._paths = Records(), _Counts(), []
                raise ValueError("the file is torn") from error
            self._counts = replace(self._counts, batches=len(rows))

    def _take(self, batch: dict[str, Any]) -> None:
        records, counts = self._records, self._counts
        self._paths += batch["paths"]
        paths, shapes = self._paths, [tuple(shape) for shape in batch["shapes"]]
        columns = (batch["file"], batch["path"], batch["shape"], batch["oid"].split(), batch["size"])
        records.named += [
            Named(Out(paths[path], hash_name, oid, size, nfiles, stage, listed), paths[file], version)
            for file, path, shape, oid, size in zip(*columns, strict=True)
            for hash_name, nfiles, stage, listed, version in (shapes[shape],)
        ]
        records.files.extend(map(tuple, batch["files"]))
        records.file_keys.update(zip(batch["file_keys"], range(counts.files, len(records.files)), strict=True))
        records.folders.extend((tuple(files), tuple(below)) for files, below in batch["folders"])
        records.folder_keys.update(zip(batch["folder_keys"], range(counts.folders, len(records.folders)), strict=True))
        records.links.update((key, tuple(links)) for key, links in batch["links"].items())
        commits = zip(batch["trees"], map(tuple, batch["parents"]), batch["times"], strict=True)
        self.commits.update(zip(batch["commits"], map(Commit._make, commits), strict=True))
        records.tops.update(batch["tops"])
        self.peeled.update((oid, tuple(found)) for oid, found in batch["peeled"].items())
        self._counts = _count(records, self.commits, self.peeled, counts.batches)


def _count(records: Records, commits: dict[str, Commit], peeled: dict[str, Any], batches: int) -> _Counts:
    return _Counts(
        len(records.named),
        len(records.files),
        len(records.folders),
        len(records.links),
        len(records.tops),
        len(commits),
        len(peeled),
        batches,
    )


def _dump(records: Records, objects: GitObjects, known: _Counts, paths: list[str]) -> dict[str, Any]:
    """What is not among ``known`` as JSON takes it, in columns; ``paths`` are those of the batches before."""
    numbers = {path: number for number, path in enumerate(paths)}
    shapes: dict[tuple[Any, ...], int] = {}
    named = records.named[known.named :]
    commits = dict(islice(objects.commits.items(), known.commits, None))
    file = [numbers.setdefault(entry.file, len(numbers)) for entry in named]
    path = [numbers.setdefault(entry.out.path, len(numbers)) for entry in named]
    return {
        "file": file,
        "path": path,
        "shape": [
            shapes.setdefault((out.hash_name, out.nfiles, out.stage, out.listed, entry.version), len(shapes))
            for entry in named
            for out in (entry.out,)
        ],
        "oid": " ".join(entry.out.oid for entry in named),
        "size": [entry.out.size for entry in named],
        "paths": list(islice(numbers, len(paths), None)),
        "shapes": list(shapes),
        "files": records.files[known.files :],
        "file_keys": list(islice(records.file_keys, known.files, None)),
        "folders": records.folders[known.folders :],
        "folder_keys": list(islice(records.folder_keys, known.folders, None)),
        "links": dict(islice(records.links.items(), known.links, None)),
        "tops": dict(islice(records.tops.items(), known.tops, None)),
        "commits": list(commits),
        "trees": [commit.tree for commit in commits.values()],
        "parents": [commit.parents for commit in commits.values()],
        "times": [commit.time for commit in commits.values()],
        "peeled": dict(islice(objects.peeled.items(), known.peeled, None)),
    }


def _read_index(folder: GitFolder) -> Iterator[Staged]:
    entries = {entry.path: entry for entry in folder.repository.index}
    for path, entry in entries.items():
        place, name = posixpath.split(path)
        if not reads(place, name):
            continue
        if entry.mode == int(LINK_MODE, 8):
            data = GitObjects(folder).read_blob(str(entry.id))
            target = posixpath.join(place, (data or b"").decode("utf-8", "replace"))
            followed = entries.get(posixpath.normpath(target))
            if followed is None:
                continue
            entry = followed
        sibling = entries.get(posixpath.join(place, PIPELINE_FILE)) if name == LOCK_FILE else None
        yield path, str(entry.id), str(sibling.id) if sibling else ""


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
