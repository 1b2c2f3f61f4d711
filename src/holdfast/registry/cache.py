"""What the registry's files said when they were last read: a model that did not change is not read again.

A model is known by name, inode, size and times of each of its files. The cache can be deleted at any time (see
`holdfast.cachefile`).
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.cachefile import CacheFile
from holdfast.registry.entries import MODEL_FILE, Deprecation, Model, ModelSummary, Version, summarize

SCHEMA = 1
# a file written within the clock's last tick could be written again without another time; the tick of ext4 is 4 ms
RACY_NS = 20_000_000
TABLE = "CREATE TABLE IF NOT EXISTS models (model TEXT PRIMARY KEY, fingerprint TEXT, summary TEXT, content TEXT)"

Fingerprint = tuple[tuple[str, int, int, int, int], ...]


def fingerprint(folder: Path) -> Fingerprint:
    """The state of a model's files: name, inode, size, mtime and ctime of each; empty where there is no such folder."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == MODEL_FILE or (entry.name[:1] == "v" and entry.name.endswith(".yaml")):
                    status = entry.stat()
                    found.append((entry.name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    found.sort()
    return tuple(found)


def is_settled(state: Fingerprint, now_ns: int) -> bool:
    """Whether a later change of the files would show in their times."""
    return all(now_ns - max(mtime, ctime) >= RACY_NS for _, _, _, mtime, ctime in state)


class RegistryCache:
    """The cache in a file; made where there is none.

    Args:
        path: where it lies, None for one that keeps nothing.
        now_ns: the clock, nanoseconds since 1970.
    """

    def __init__(self, path: Path | None, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._file = CacheFile(path, SCHEMA, [TABLE])
        self._known: dict[str, tuple[str, str]] | None = None

    def summary(self, model_id: str, state: Fingerprint) -> ModelSummary | None:
        """The model without its versions, where its files are in that state."""
        found = self._summary(model_id, state)
        return ModelSummary(**json.loads(found)) if found else None

    def get(self, model_id: str, state: Fingerprint) -> Model | None:
        """The model, where its files are in that state."""
        if self._summary(model_id, state):
            with self._file.trying() as connection:
                if connection is not None:
                    query = "SELECT content FROM models WHERE model = ? AND fingerprint = ?"
                    row = connection.execute(query, (model_id, _digest(state))).fetchone()
                    if row is not None:
                        return model_from_json(json.loads(row[0]))
        return None

    def _summary(self, model_id: str, state: Fingerprint) -> str:
        if self._known is None:
            self._known = {}
            with self._file.trying() as connection:
                if connection is not None:
                    rows = connection.execute("SELECT model, fingerprint, summary FROM models")
                    self._known = {model: (found, summary) for model, found, summary in rows}
        found, summary = self._known.get(model_id, ("", ""))
        return summary if found == _digest(state) else ""

    def put(self, models: Mapping[str, tuple[Fingerprint, Model]]) -> None:
        """Remember models, but for those with a file that was changed this very moment."""
        now = self._now_ns()
        rows = [
            (model_id, _digest(state), _dump(vars(summarize(model))), _dump(model.as_json()))
            for model_id, (state, model) in models.items()
            if is_settled(state, now)
        ]
        with self._file.trying() as connection:
            if connection is not None and rows:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?)", rows)
                connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def model_from_json(fields: dict[str, Any]) -> Model:
    """The model of `Model.as_json`."""
    return Model(
        fields["model"],
        fields["description"],
        fields["current"],
        fields["aliases"],
        tuple([_version_from_json(entry) for entry in fields["versions"]]),
        tuple(fields["protected"]),
        {name: Deprecation(**item) for name, item in fields["deprecations"].items()},
        fields["removed"],
    )


def _version_from_json(fields: dict[str, Any]) -> Version:
    return Version(fields.pop("version"), **fields)


def _dump(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _digest(state: Fingerprint) -> str:
    return hashlib.blake2b(repr(state).encode(), digest_size=16).hexdigest()
