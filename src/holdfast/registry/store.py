"""The registry's folder: reading all of it, registering a version, moving ``current``."""

import codecs
import fcntl
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from holdfast.atomic import create_exclusively, write_atomically
from holdfast.errors import HoldfastError
from holdfast.registry.entries import (
    MODEL_FILE,
    MODEL_ID,
    VERSION_NAME,
    EntryError,
    Model,
    Version,
    check_model_id,
    dump_model,
    dump_version,
    parse_model,
    parse_version,
)

FOLDER = "registry"


class UnknownModelError(HoldfastError):
    """The registry has no model of that name."""


class Registry:
    """The models of one project.

    Args:
        root: the project's folder; the files lie in ``root/registry``.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def models(self) -> list[Model]:
        """All models, in the order of their names; none where there is no registry yet.

        Raises:
            EntryError: a file is broken.
        """
        return [self.model(model_id) for model_id in self._model_ids()]

    def model(self, model_id: str, *, partial: bool = False) -> Model:
        """One model with its versions.

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
        file = self._model_file(model_id)
        if not file.exists():
            known = ", ".join(self._model_ids())
            hint = f"Registered are: {known}" if known else "Nothing is registered yet: `dvc repro` registers the first"
            raise UnknownModelError(f"there is no model {model_id}", hint=hint)
        paths = [path for path in file.parent.glob("v*.yaml") if VERSION_NAME.fullmatch(path.stem)]
        versions = tuple(sorted(map(self._version, paths), key=lambda version: version.number))
        return parse_model(self._read(file), model_id, versions, self._name(file), partial=partial)

    def register(self, model_id: str, draft: Version, description: str = "") -> Version:
        """Add a version under the next free number and make it current, unless its weights are registered already.

        The version's file is created exclusively and never changes; ``model.yaml`` is replaced in one step and keeps
        its comments. Processes that register at once each get a number of their own. A registration that was killed
        half-way is completed by the next one.

        Args:
            model_id: ``app/name``; the model is made where it is new.
            draft: the version; its name is replaced by the next free one.
            description: one line for people, for a new model.

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
            return held.add(draft, description)

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

    def _model_file(self, model_id: str) -> Path:
        return self.folder / model_id / MODEL_FILE

    def _model_ids(self) -> list[str]:
        files = self.folder.glob(f"*/*/{MODEL_FILE}")
        names = sorted(path.parent.relative_to(self.folder).as_posix() for path in files)
        for name in names:
            if not MODEL_ID.fullmatch(name):
                hint = "Rename its folders: lower-case letters, digits, - and _"
                raise EntryError(f"{FOLDER}/{name} is no name of a model", hint=hint)
        return names

    def _version(self, path: Path) -> Version:
        return parse_version(self._read(path), path.stem, self._name(path))

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise EntryError(f"{self._name(path)}: no UTF-8: {error.reason}") from error

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
    def versions(self) -> tuple[Version, ...]:
        """The model's versions; none where it is new.

        Raises:
            EntryError: a file of the model is broken.
        """
        return self.registry.model(self.model_id, partial=True).versions if self.file.exists() else ()

    @property
    def current(self) -> str | None:
        """The version that ``current`` names and that is here.

        Raises:
            EntryError: a file of the model is broken.
        """
        return self.registry.model(self.model_id, partial=True).current if self.file.exists() else None

    @property
    def aliases(self) -> Mapping[str, str]:
        """The aliases of versions that are here.

        Raises:
            EntryError: a file of the model is broken.
        """
        return self.registry.model(self.model_id, partial=True).aliases if self.file.exists() else {}

    def add(
        self,
        draft: Version,
        description: str = "",
        *,
        replaces: Sequence[str] = (),
        before: Callable[[], None] = lambda: None,
    ) -> Version:
        """Add a version under the next free number and make it current.

        Everything that can be refused is refused before the first write. Order of writes: what ``before`` does, the
        version's file, ``model.yaml``.

        Args:
            draft: the version; its name is replaced.
            description: one line for people, for a new model.
            replaces: versions whose files go first, and whose numbers are free again.
            before: what must be in place before the version is.

        Raises:
            EntryError: a file of the model is broken, or the draft holds what cannot be written; nothing is written.
            OSError: a file cannot be written.
        """
        numbers = [version.number for version in self.versions if version.name not in replaces]
        version = replace(draft, name=f"v{max(numbers, default=0) + 1}")
        text, model = dump_version(version), self._model_text(version.name, description)
        # read back before it is written: what cannot be read must not be registered
        parse_version(text, version.name, f"the new version of {self.model_id}")
        self._begin(version.name, description)
        before()
        self.drop(replaces)
        create_exclusively(self.registry.files(self.model_id, version.name)[1], text)
        write_atomically(self.file, model)
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
            UnknownModelError: there is no such version.
            EntryError: a file of the model is broken; nothing is written.
            OSError: the registry cannot be written.
        """
        if name not in {version.name for version in self.versions}:
            hint = f"`holdfast registry show {self.model_id}` lists them"
            raise UnknownModelError(f"{self.model_id} has no version {name}", hint=hint)
        if self.current != name:
            write_atomically(self.file, self._model_text(name, ""))

    def complete(self) -> None:
        """Finish the registration that a holder of the lock began and did not live to end."""
        self._stream.seek(0)
        try:
            entry = json.loads(self._stream.read() or "null")
        except ValueError:  # torn: its writer died before it wrote anything else
            entry = None
        if entry and self.registry.files(self.model_id, entry["version"])[1].exists():
            write_atomically(self.file, self._model_text(entry["version"], entry["description"]))
        self._end()

    def _model_text(self, version: str, description: str) -> bytes:
        if not self.file.exists():
            return dump_model(description, version).encode()
        return _with_current(self.file.read_bytes(), version, self.file.name)

    def _begin(self, version: str, description: str) -> None:
        self._end()
        self._stream.write(json.dumps({"version": version, "description": description}))
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _end(self) -> None:
        self._stream.truncate(0)


def _with_current(content: bytes, version: str, name: str) -> bytes:
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    newline = b"\r\n" if b"\r\n" in content else b"\n"
    yaml = YAML()  # round trip: keeps comments, order and quotes
    yaml.preserve_quotes = True
    yaml.width = 1000
    stream = io.BytesIO()
    try:
        document = yaml.load(content[len(mark) :].replace(b"\r\n", b"\n"))
        document["current"] = version
        yaml.dump(document, stream)
    except (YAMLError, TypeError) as error:
        raise EntryError(f"{name} cannot be edited: {' '.join(str(error).split())}") from error
    return mark + stream.getvalue().replace(b"\n", newline)
