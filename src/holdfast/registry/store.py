"""The registry's folder: reading all of it, registering a version, changing what ``model.yaml`` says."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

from holdfast.atomic import create_exclusively, write_atomically
from holdfast.errors import HoldfastError
from holdfast.registry import FOLDER
from holdfast.registry.cache import Fingerprint, RegistryCache, fingerprint
from holdfast.registry.document import EntryError
from holdfast.registry.entries import (
    MODEL_FILE,
    MODEL_ID,
    VERSION_NAME,
    Model,
    ModelSummary,
    UnknownVersionError,
    Version,
    check_model_id,
    parse_model,
    parse_version,
    summarize,
)
from holdfast.registry.table import VersionTable, tabulate
from holdfast.registry.writing import dump_model, dump_version, edit_fields

# a reader that others write under looks again: each time takes a fraction of a millisecond
READS = 50
READ_WAIT_SECONDS = 0.002

Kept = TypeVar("Kept")


class UnknownModelError(HoldfastError):
    """The registry has no model of that name."""


class Registry:
    """The models of one project.

    Args:
        root: the project's folder; the files lie in ``root/registry``.
        cache: what is known of files that did not change; None to read all of them.

    Attributes:
        folder: where the files lie.
    """

    def __init__(self, root: Path, cache: RegistryCache | None = None) -> None:
        self.folder = root / FOLDER
        self.cache = cache

    def models(self) -> list[Model]:
        """All models, in the order of their names; none where there is no registry yet.

        Raises:
            EntryError: a file is broken.
        """
        return self._all(RegistryCache.get, lambda model: model)

    def summaries(self) -> list[ModelSummary]:
        """All models without their versions, in the order of their names.

        Raises:
            EntryError: a file is broken.
        """
        return self._all(RegistryCache.summary, summarize)

    def tables(self) -> list[VersionTable]:
        """All models with their versions by columns, in the order of their names.

        Raises:
            EntryError: a file is broken.
        """
        return self._all(RegistryCache.table, tabulate)

    def _all(
        self, known: Callable[[RegistryCache, str, Fingerprint], Kept | None], of_model: Callable[[Model], Kept]
    ) -> list[Kept]:
        """What is kept of each model, out of the cache or read now."""
        result, fresh = [], {}
        for model_id in self.model_ids():
            found = None if self.cache is None else known(self.cache, model_id, fingerprint(self.folder / model_id))
            if found is None:
                fresh[model_id] = self._settled(model_id, partial=False)
                found = of_model(fresh[model_id][1])
            result.append(found)
        if fresh and self.cache is not None:
            self.cache.put(fresh)
        return result

    def model(self, model_id: str, *, partial: bool = False) -> Model:
        """One model with its versions, all in the state that they had at one moment.

        Args:
            model_id: ``app/name``.
            partial: leave out ``current`` and aliases that name a version which is not here. So it is in the folder of
                a queued experiment of DVC's, which takes along uncommitted changes but no untracked files.

        Raises:
            UsageError: ``model_id`` is no ``app/name``.
            UnknownModelError: there is no such model.
            EntryError: one of its files is broken.
        """
        check_model_id(model_id)
        if not self._model_file(model_id).exists():
            known = ", ".join(self.model_ids())
            hint = f"Registered are: {known}" if known else "Nothing is registered yet: `dvc repro` registers the first"
            raise UnknownModelError(f"there is no model {model_id}", hint=hint)
        return self._settled(model_id, partial=partial)[1]

    def register(
        self, model_id: str, draft: Version, description: str = "", *, current: bool = True, aliases: Sequence[str] = ()
    ) -> Version:
        """Add a version under the next free number, unless its weights are registered already.

        The version's file is created exclusively and never changes; ``model.yaml`` is replaced in one step and keeps
        its comments. Processes that register at once each get a number of their own. A registration that was killed
        half-way is completed by the next one.

        Args:
            model_id: ``app/name``; the model is made where it is new.
            draft: the version; its name is replaced by the next free one.
            description: one line for people, for a new model.
            current: whether it becomes the current one; the first always does.
            aliases: labels to put on it.

        Returns:
            The version: the new one, or the one registered before with the same weights, which then changes nothing.

        Raises:
            UsageError: ``model_id`` is no ``app/name``.
            EntryError: a file of the model is broken, or the draft holds what cannot be written; nothing is written.
            OSError: the registry cannot be written.
        """
        with self.lock(model_id) as held:
            for version in held.versions:
                if version.weights == draft.weights:
                    return version
            return held.add(draft, description, current=current, aliases=aliases)

    @contextmanager
    def lock(self, model_id: str) -> Iterator["LockedModel"]:
        """Hold the model's lock, so that what is read of it stays true until the block ends.

        The kernel lets go of it when its holder dies; a registration that the holder had begun is completed here.

        Raises:
            UsageError: ``model_id`` is no ``app/name``.
            EntryError: a file of the model is broken.
            OSError: the lock's file cannot be written.
        """
        check_model_id(model_id)
        with open(self._lock_file(model_id), "a+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            held = LockedModel(self, model_id, stream)
            held.complete()
            yield held

    def files(self, model_id: str, version: str) -> tuple[Path, Path]:
        """The model's file and that of the version called so (``v3``)."""
        return self._model_file(model_id), self.folder / model_id / f"{version}.yaml"

    def model_ids(self) -> list[str]:
        """The names of all models, in the order of the alphabet.

        Raises:
            EntryError: a folder has a name that no model can have.
        """
        names = []
        for app in _folders(self.folder):
            names += [f"{app}/{name}" for name in _folders(self.folder / app)]
        found = sorted(name for name in names if self._model_file(name).exists())
        for name in found:
            if not MODEL_ID.fullmatch(name):
                hint = "Rename its folders: lower-case letters, digits, - and _"
                raise EntryError(f"{FOLDER}/{name} is no name of a model", hint=hint)
        return found

    def _settled(self, model_id: str, *, partial: bool) -> tuple[Fingerprint, Model]:
        """The model in a state that it kept while it was read."""
        folder = self.folder / model_id
        for attempt in range(READS):
            state, last = fingerprint(folder), attempt == READS - 1
            try:
                model = self._read_model(model_id, state, partial=partial)
            except (EntryError, FileNotFoundError):
                if last or fingerprint(folder) == state:
                    raise
            else:
                if last or fingerprint(folder) == state:
                    return state, model
            time.sleep(READ_WAIT_SECONDS)
        raise AssertionError("the last attempt ends in a result or an error")

    def _read_model(self, model_id: str, state: Fingerprint, *, partial: bool) -> Model:
        file = self._model_file(model_id)
        stems = [name[: -len(".yaml")] for name, *_ in state if name != MODEL_FILE]
        versions = [self.read_version(model_id, stem) for stem in stems if VERSION_NAME.fullmatch(stem)]
        ordered = tuple(sorted(versions, key=lambda version: version.number))
        return parse_model(_read(file, self._name(file)), model_id, ordered, self._name(file), partial=partial)

    def read_version(self, model_id: str, name: str) -> Version:
        """One version's file.

        Raises:
            EntryError: it is broken.
            OSError: it cannot be read.
        """
        place = f"{FOLDER}/{model_id}/{name}.yaml"
        return parse_version(_read(f"{self.folder}/{model_id}/{name}.yaml", place), name, place)

    def _model_file(self, model_id: str) -> Path:
        return self.folder / model_id / MODEL_FILE

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder.parent).as_posix()

    def _lock_file(self, model_id: str) -> Path:
        # where git does not look: DVC's folder for temporary files, or outside of DVC a folder that ignores itself
        dvc = self.folder.parent / ".dvc"
        folder = dvc / "tmp" / "holdfast" if dvc.is_dir() else self.folder / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        if not dvc.is_dir():
            (folder / ".gitignore").write_text("*\n")
        return folder / f"{model_id.replace('/', '.')}.registering"


class LockedModel:
    """A model whose lock this process holds; its file doubles as the journal of a registration.

    Args:
        registry: the registry.
        model_id: ``app/name``.
        stream: the lock's file.
    """

    def __init__(self, registry: Registry, model_id: str, stream: TextIO) -> None:
        self.registry = registry
        self.model_id = model_id
        self._stream = stream

    @property
    def file(self) -> Path:
        """``model.yaml``."""
        return self.registry.files(self.model_id, "")[0]

    @property
    def model(self) -> Model:
        """The model as its files say; one without versions where it is new.

        Raises:
            EntryError: a file of the model is broken.
        """
        if not self.file.exists():
            return Model(self.model_id, "", None, {}, ())
        return self.registry.model(self.model_id, partial=True)

    @property
    def versions(self) -> tuple[Version, ...]:
        """The model's versions; none where it is new.

        Raises:
            EntryError: a file of the model is broken.
        """
        return self.model.versions

    @property
    def current(self) -> str | None:
        """The version that ``current`` names and that is here.

        Raises:
            EntryError: a file of the model is broken.
        """
        return self.model.current

    @property
    def aliases(self) -> Mapping[str, str]:
        """The aliases of versions that are here.

        Raises:
            EntryError: a file of the model is broken.
        """
        return self.model.aliases

    def add(
        self,
        draft: Version,
        description: str = "",
        *,
        replaces: Sequence[str] = (),
        before: Callable[[], None] = lambda: None,
        current: bool = True,
        aliases: Sequence[str] = (),
        name: str | None = None,
    ) -> Version:
        """Add a version under the next free number.

        Everything that can be refused is refused before the first write. Order of writes: what ``before`` does, the
        version's file, ``model.yaml``.

        Args:
            draft: the version; its name is replaced.
            description: one line for people, for a new model.
            replaces: versions whose files go first, and whose numbers are free again.
            before: what must be in place before the version is.
            current: whether it becomes the current one; the first always does.
            aliases: labels to put on it.
            name: its name, which no version has or had; None for the next free one.

        Raises:
            EntryError: a file of the model is broken, or the draft holds what cannot be written; nothing is written.
            OSError: a file cannot be written.
        """
        model = self.model
        kept = replace(model, versions=tuple(version for version in model.versions if version.name not in replaces))
        version = replace(draft, name=name or kept.next_name)
        text = dump_version(version)
        # read back before it is written: what cannot be read must not be registered
        parse_version(text, version.name, f"the new version of {self.model_id}")
        entry = {
            "version": version.name,
            "description": description,
            "current": current or model.current is None,
            "aliases": list(aliases),
        }
        new_model = self._with_entry(entry)
        self._begin(entry)
        before()
        self.drop(replaces)
        create_exclusively(self.registry.files(self.model_id, version.name)[1], text)
        write_atomically(self.file, new_model)
        self._end()
        return version

    def drop(self, names: Sequence[str]) -> None:
        """Remove versions' files: drafts that no commit has.

        Raises:
            OSError: a file cannot be removed.
        """
        for name in names:
            self.registry.files(self.model_id, name)[1].unlink(missing_ok=True)

    def make_current(self, name: str) -> None:
        """Let ``current`` name a version that is here; ``model.yaml`` keeps its comments.

        Raises:
            UnknownVersionError: there is no such version.
            EntryError: a file of the model is broken; nothing is written.
            OSError: the registry cannot be written.
        """
        model = self.model
        if model.version(name) is None:
            hint = f"`holdfast registry show {self.model_id}` lists them"
            raise UnknownVersionError(f"{self.model_id} has no version {name}", hint=hint)
        if model.current != name:
            self.change({"current": name})

    def change(self, fields: Mapping[str, Any]) -> bool:
        """Set fields of ``model.yaml`` in one step; the rest of it stays.

        Returns:
            Whether that changed the file.

        Raises:
            EntryError: the file is broken, or would be; nothing is written.
            OSError: it cannot be written.
        """
        name = f"{FOLDER}/{self.model_id}/{MODEL_FILE}"
        before = self.file.read_bytes()
        after = edit_fields(before, fields, name)
        parse_model(after.decode("utf-8-sig"), self.model_id, self.versions, name, partial=True)
        if after != before:
            write_atomically(self.file, after)
        return after != before

    def complete(self) -> None:
        """Finish the registration that a holder of the lock began and did not live to end."""
        self._stream.seek(0)
        try:
            entry = json.loads(self._stream.read() or "null")
        except ValueError:  # torn: its writer died before it wrote anything else
            entry = None
        if entry and self.registry.files(self.model_id, entry["version"])[1].exists():
            write_atomically(self.file, self._with_entry(entry))
        self._end()

    def _with_entry(self, entry: Mapping[str, Any]) -> bytes:
        """``model.yaml`` with a new version in it."""
        name = entry["version"]
        changes: dict[str, Any] = {"current": name} if entry.get("current", True) else {}
        is_new = not self.file.exists()
        content = dump_model(entry["description"], name).encode() if is_new else self.file.read_bytes()
        if entry.get("aliases"):
            changes["aliases"] = {**self.aliases, **dict.fromkeys(entry["aliases"], name)}
        return edit_fields(content, changes, f"{FOLDER}/{self.model_id}/{MODEL_FILE}") if changes else content

    def _begin(self, entry: Mapping[str, Any]) -> None:
        self._end()
        self._stream.write(json.dumps(entry))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _end(self) -> None:
        self._stream.truncate(0)


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: "Path | str", name: str) -> str:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EntryError(f"{name}: no UTF-8: {error.reason}") from error
