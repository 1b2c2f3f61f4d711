"""The registry's folder: reading all of it, registering a version, moving ``current``."""

import fcntl
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from ruamel.yaml import YAML

from holdfast.atomic import create_exclusively, write_atomically
from holdfast.errors import HoldfastError
from holdfast.registry.entries import (
    MODEL_FILE,
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
            EntryError: a file of the model is broken; nothing is written.
            OSError: the registry cannot be written.
        """
        check_model_id(model_id)
        with self._locked(model_id) as journal:
            known = self.model(model_id, partial=True).versions if self._model_file(model_id).exists() else ()
            for version in known:
                if version.weights == draft.weights:
                    return version
            version = replace(draft, name=f"v{max((v.number for v in known), default=0) + 1}")
            journal.begin(version.name, description)
            create_exclusively(self.files(model_id, version)[1], dump_version(version))
            self._make_current(model_id, version.name, description)
            journal.end()
            return version

    def make_current(self, model_id: str, name: str) -> None:
        """Let ``current`` name a version that is registered; ``model.yaml`` keeps its comments.

        Raises:
            UnknownModelError: there is no such model, or it has no such version.
            EntryError: a file of the model is broken; nothing is written.
            OSError: the registry cannot be written.
        """
        with self._locked(model_id):
            model = self.model(model_id, partial=True)
            if model.version(name) is None:
                raise UnknownModelError(
                    f"{model_id} has no version {name}", hint=f"`holdfast registry show {model_id}`"
                )
            if model.current != name:
                self._make_current(model_id, name, model.description)

    def find_weights(self, model_id: str, weights: str) -> Version | None:
        """The version with that weights digest, or None, also where the model is unknown.

        Raises:
            EntryError: a file of the model is broken.
        """
        if not self._model_file(model_id).exists():
            return None
        versions = self.model(model_id, partial=True).versions
        return next((version for version in versions if version.weights == weights), None)

    def files(self, model_id: str, version: Version) -> tuple[Path, Path]:
        """The model's file and the version's."""
        return self._model_file(model_id), self.folder / model_id / f"{version.name}.yaml"

    def _model_file(self, model_id: str) -> Path:
        return self.folder / model_id / MODEL_FILE

    def _model_ids(self) -> list[str]:
        return sorted(path.parent.relative_to(self.folder).as_posix() for path in self.folder.glob(f"*/*/{MODEL_FILE}"))

    def _version(self, path: Path) -> Version:
        return parse_version(self._read(path), path.stem, self._name(path))

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise EntryError(f"{self._name(path)}: no UTF-8: {error.reason}") from error

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder.parent).as_posix()

    def _make_current(self, model_id: str, version: str, description: str) -> None:
        file = self._model_file(model_id)
        text = _with_current(self._read(file), version) if file.exists() else dump_model(description, version)
        write_atomically(file, text)

    @contextmanager
    def _locked(self, model_id: str) -> Iterator["_Journal"]:
        # DVC's folder for temporary files: ignored by git wherever there is a DVC repository
        place = self.folder.parent / ".dvc" / "tmp" / "holdfast" / f"{model_id.replace('/', '.')}.registering"
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "a+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # the kernel lets go of it when its holder dies
            journal = _Journal(stream)
            if pending := journal.pending():
                version, description = pending
                if (self.folder / model_id / f"{version}.yaml").exists():
                    self._make_current(model_id, version, description)
                journal.end()
            yield journal


class _Journal:
    """What the holder of a model's lock is about to do; whoever finds it filled in has the lock of one who died."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def pending(self) -> tuple[str, str] | None:
        self.stream.seek(0)
        try:
            entry = json.loads(self.stream.read() or "null")
        except ValueError:  # torn: its writer died before it created the version
            return None
        return (entry["version"], entry["description"]) if entry else None

    def begin(self, version: str, description: str) -> None:
        self.end()
        self.stream.write(json.dumps({"version": version, "description": description}))
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def end(self) -> None:
        self.stream.truncate(0)


def _with_current(text: str, version: str) -> str:
    yaml = YAML()  # round trip: keeps comments, order and quotes
    yaml.preserve_quotes = True
    yaml.width = 1000
    document = yaml.load(text)
    document["current"] = version
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
