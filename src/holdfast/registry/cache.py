"""What the registry's files said when they were last read: a model that did not change is not read again.

A model is known by name, inode, size and times of each of its files. The cache can be deleted at any time (see
`holdfast.cachefile`).
"""

import hashlib
import json
import marshal
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from holdfast.cachefile import CacheFile
from holdfast.registry.entries import MODEL_FILE, Deprecation, Model, ModelSummary, Version, summarize
from holdfast.registry.table import VersionTable, tabulate

SCHEMA = 2
# a file written within the clock's last tick could be written again without another time; the tick of ext4 is 4 ms
RACY_NS = 20_000_000
TABLES = (
    # what is asked for most stands first: a long `content` lies on pages that the others do not read
    """CREATE TABLE IF NOT EXISTS models (model TEXT PRIMARY KEY, fingerprint TEXT, summary TEXT, columns TEXT,
    content TEXT)""",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, state TEXT, value TEXT)",
)

Made = TypeVar("Made")
Fingerprint = tuple[tuple[str, int, int, int, int], ...]


def fingerprint(folder: Path) -> Fingerprint:
    """The state of a model's files: name, inode, size, mtime and ctime of each; empty where there is no such folder."""
    found = []
    try:
        # by the folder's descriptor, so that the kernel need not look up the whole path of each file
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    try:
        for name in sorted(os.listdir(opened)):  # noqa: PTH208 - a Path takes no descriptor
            if name == MODEL_FILE or (name[:1] == "v" and name.endswith(".yaml")):
                status = os.stat(name, dir_fd=opened)
                found.append((name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except FileNotFoundError:
        return ()
    finally:
        os.close(opened)
    return tuple(found)


def file_states(paths: Sequence[str]) -> Fingerprint:
    """The state of single files, in the order of their paths; those that are not there have a size of -1."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - called for each command, and a Path takes longer than the answer
            found.append((path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        except OSError:
            found.append((path, 0, -1, 0, 0))
    return tuple(found)


def is_settled(state: Fingerprint, now_ns: int) -> bool:
    """Whether a later change of the files would show in their times."""
    return all(now_ns - max(mtime, ctime) >= RACY_NS for _, _, _, mtime, ctime in state)


def digest_of(state: Any) -> str:
    """32 hex digits that stand for a state: nested tuples of text and numbers."""
    # Python's own form: five times as fast as repr; version 2 has no references, which depend on who else holds a value
    return hashlib.blake2b(marshal.dumps(state, 2), digest_size=16).hexdigest()


class RegistryCache:
    """The cache in a file; made where there is none.

    Args:
        path: where it lies, None for one that keeps nothing.
        now_ns: the clock, nanoseconds since 1970.
    """

    def __init__(self, path: Path | None, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._file = CacheFile(path, SCHEMA, TABLES)
        # by column and model: the fingerprint's digest and the text
        self._known: dict[str, dict[str, tuple[str, str]]] = {}
        self._facts: dict[str, tuple[str, str]] | None = None

    def summary(self, model_id: str, state: Fingerprint) -> ModelSummary | None:
        """The model without its versions, where its files are in that state."""
        return _made(lambda fields: ModelSummary(**fields), self._text("summary", model_id, state))

    def table(self, model_id: str, state: Fingerprint) -> VersionTable | None:
        """The model's versions by columns, where its files are in that state."""
        return _made(lambda fields: VersionTable(**fields), self._text("columns", model_id, state))

    def get(self, model_id: str, state: Fingerprint) -> Model | None:
        """The model, where its files are in that state."""
        return _made(model_from_json, self._text("content", model_id, state))

    def fact(self, name: str, state: str) -> Any:
        """What `keep_fact` was told under that name in that state, as JSON knows it; None where it was not."""
        if self._facts is None:
            self._facts = {}
            with self._file.trying() as connection:
                if connection is not None:
                    rows = connection.execute("SELECT name, state, value FROM facts")
                    self._facts = {key: (found, value) for key, found, value in rows}
        found, value = self._facts.get(name, ("", ""))
        return _made(lambda told: told, value) if found == state else None

    def keep_facts(self, facts: Mapping[str, tuple[str, Any]]) -> None:
        """Remember facts of other things than the registry's files: for each name what they follow from, and the value.

        The state must be settled: whoever asks with the same one gets the same value.
        """
        rows = [(name, state, _dump(value)) for name, (state, value) in facts.items()]
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?, ?)", rows)
        self._facts = None

    def put(self, models: Mapping[str, tuple[Fingerprint, Model]]) -> None:
        """Remember models, but for those with a file that was changed this very moment."""
        now = self._now_ns()
        rows = [
            (
                model_id,
                digest_of(state),
                _dump(vars(summarize(model))),
                _dump(vars(tabulate(model))),
                _dump(model.as_json()),
            )
            for model_id, (state, model) in models.items()
            if is_settled(state, now)
        ]
        self._write("INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?, ?)", rows)
        self._known = {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _text(self, column: str, model_id: str, state: Fingerprint) -> str:
        known = self._known.get(column)
        if known is None:
            known = self._known[column] = {}
            with self._file.trying() as connection:
                if connection is not None:
                    rows = connection.execute(f"SELECT model, fingerprint, {column} FROM models")
                    known.update({model: (found, text) for model, found, text in rows})
        found, text = known.get(model_id, ("", ""))
        return text if found and found == digest_of(state) else ""

    def _write(self, statement: str, rows: Sequence[tuple[str, ...]]) -> None:
        with self._file.trying() as connection:
            if connection is not None and rows:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(statement, rows)
                connection.execute("COMMIT")


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


def _made(make: Callable[[Any], Made], text: str) -> Made | None:
    """What a text of the cache stands for; None where there is none, or where it is damaged."""
    try:
        return make(json.loads(text)) if text else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
