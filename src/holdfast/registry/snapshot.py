"""A registry that a service reads while others write it: without git, without DVC, one state at a time."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.digest import file_md5
from holdfast.registry import FOLDER
from holdfast.registry.cache import RACY_NS
from holdfast.registry.document import EntryError
from holdfast.registry.entries import MODEL_FILE, Deprecation, Model, Version, split_reference
from holdfast.registry.selection import Direction, parse_criterion, select_version, split_by_key
from holdfast.registry.store import Registry, UnknownModelError


class NotInPlaceError(HoldfastError):
    """The version is registered, and its path holds another one or nothing."""


# inode, size, mtime and ctime of each file that is looked at
_Key = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True)
class Resolved:
    """A version that a name means.

    Attributes:
        model: ``app/name``.
        version: the version.
        labels: those that are on it.
        deprecated: why it is not to be used any more; None where it is.
    """

    model: str
    version: Version
    labels: tuple[str, ...]
    deprecated: Deprecation | None

    @property
    def name(self) -> str:
        """``app/name@v3``."""
        return f"{self.model}@{self.version.name}"


@dataclass(frozen=True)
class _State:
    key: _Key
    read_ns: int
    model: Model


class LoadedRegistry:
    """A registry that stays up to date: each question looks, at the cost of two ``stat`` calls, whether it changed.

    Where a change cannot be read (a file broken by hand, a writer that was killed) the state before it stays in use,
    and `fault` says what is wrong. May be used by many threads.

    Args:
        path: a project's folder, its folder ``registry``, or a file of `holdfast registry export`.

    Attributes:
        root: what the paths of versions are relative to: the folder around ``registry``; of an exported file its own.

    Raises:
        NoRegistryError: there is none.
        EntryError: it is broken.
    """

    def __init__(self, path: "str | os.PathLike[str]" = ".") -> None:
        place = Path(path)
        self._file: Path | None = None
        if place.is_file():
            self._file = place
            self.root = place.absolute().parent
        else:
            folder = place if place.name == FOLDER and not (place / FOLDER).is_dir() else place / FOLDER
            if not folder.is_dir():
                hint = "Name a project's folder, or a file of `holdfast registry export`"
                raise NoRegistryError(f"there is no registry in {place}", hint=hint)
            self.root = folder.absolute().parent
        self._registry = Registry(self.root)
        self._states: dict[str, _State] = {}
        self._exported: tuple[_Key, int, dict[str, Model]] | None = None
        self.fault: EntryError | None = None
        if self._file is not None:
            self._models_of_file()

    def models(self) -> list[str]:
        """The names of all models."""
        return sorted(self._models_of_file()) if self._file is not None else self._registry.model_ids()

    def model(self, model_id: str) -> Model:
        """One model with its versions, all in the state that they had at one moment.

        Raises:
            UnknownModelError: there is no such model.
            EntryError: it is broken, and was when it was first read.
        """
        if self._file is not None:
            models = self._models_of_file()
            if model_id not in models:
                known = ", ".join(sorted(models)) or "none"
                raise UnknownModelError(f"there is no model {model_id} in {self._file}", hint=f"It has: {known}")
            return models[model_id]
        state = self._states.get(model_id)
        key = _key(self._registry.folder / model_id)
        if state is None or state.key != key or _is_racy(state.key, state.read_ns):
            state = self._reload(model_id, key, state)
        return state.model

    def resolve(self, reference: str) -> Resolved:
        """The version that ``app/name``, ``app/name@v3`` or ``app/name@production`` means.

        Raises:
            UsageError: it is none of these.
            UnknownModelError, UnknownVersionError: there is no such model or version.
            EntryError: the model is broken, and was when it was first read.
        """
        model_id, label = split_reference(reference)
        model = self.model(model_id)
        return _resolved(model, model.named(label))

    def path(self, reference: str, *, verify: bool = False) -> Path:
        """The file (or folder) of a version, absolute.

        Args:
            reference: as of `resolve`.
            verify: read it, and compare its md5; else its size is compared.

        Raises:
            NotInPlaceError: its path holds another version, or nothing.
            IntegrityError: ``verify``, and it holds other bytes.
            UsageError, UnknownModelError, UnknownVersionError, EntryError: as of `resolve`.
        """
        model_id, label = split_reference(reference)
        model = self.model(model_id)
        return self._place(model, model.named(label), verify=verify)

    def select(
        self,
        model_id: str,
        *,
        metric: str | None = None,
        direction: Direction | None = None,
        criteria: Sequence[str] = (),
        ab: Mapping[str, float] | None = None,
        key: str | None = None,
        deprecated: bool = False,
    ) -> Resolved:
        """The version to use: the best by a metric among those that meet criteria, or a key's share of a split.

        Args:
            model_id: ``app/name``.
            metric: what is best; None for the newest version.
            direction: ``max`` or ``min``; None to take it from the metric's name.
            criteria: such as ``accuracy>=0.9``.
            ab: shares of labels, such as ``{"production": 0.9, "staging": 0.1}``: then ``key`` decides alone.
            key: a user, a session: the same key always gets the same label.
            deprecated: whether deprecated versions count, too.

        Raises:
            ValueError: ``ab`` without ``key``, or with a metric or criteria.
            NoneFitsError: there is no such version.
            UsageError, UnknownModelError, UnknownVersionError, EntryError: as of `resolve`.
        """
        model = self.model(model_id)
        if ab is None:
            parsed = [parse_criterion(text) for text in criteria]
            found = select_version(model, metric=metric, direction=direction, criteria=parsed, deprecated=deprecated)
            return _resolved(model, found)
        if key is None or metric is not None or criteria:
            raise ValueError("a split takes a key, and neither a metric nor criteria")
        for label in ab:
            model.named(label)  # else a label that is not there would be an error for its share of the keys alone
        return _resolved(model, model.named(split_by_key(model_id, key, ab)))

    def _place(self, model: Model, version: Version, *, verify: bool) -> Path:
        name, path = f"{model.id}@{version.name}", self.root / version.path
        hint = f"`holdfast registry get {name} -o PATH` writes it"
        current = model.version(model.current or "")
        if current is not None and current.path == version.path and current.oid != version.oid:
            raise NotInPlaceError(f"{version.path} holds {current.name}, not {version.name}", hint=hint)
        if not path.exists():
            raise NotInPlaceError(f"{name} is not at {version.path}", hint=hint)
        if not version.is_folder:
            size = path.stat().st_size
            if version.oid and size != version.size:
                raise NotInPlaceError(f"{version.path} has {size:,} bytes, {name} has {version.size:,}", hint=hint)
            if verify and version.oid and (found := file_md5(path)) != version.oid:
                raise IntegrityError(f"{version.path} has the md5 {found}, {name} has {version.oid}", hint=hint)
        return path

    def _reload(self, model_id: str, key: _Key, known: _State | None) -> _State:
        now = time.time_ns()
        try:
            state = _State(key, now, self._registry.model(model_id))
        except (EntryError, OSError) as error:
            if known is None:
                raise
            self.fault = error if isinstance(error, EntryError) else EntryError(f"{model_id} cannot be read: {error}")
            return known
        self.fault = None
        self._states[model_id] = state
        return state

    def _models_of_file(self) -> dict[str, Model]:
        assert self._file is not None
        try:
            key = _stat_key(self._file)
            if self._exported is not None and self._exported[0] == key and not _is_racy(key, self._exported[1]):
                return self._exported[2]
            now = time.time_ns()
            models = read_exported(self._file.read_bytes(), str(self._file))
        except (EntryError, OSError) as error:
            if self._exported is None:
                raise
            self.fault = error if isinstance(error, EntryError) else EntryError(f"{self._file}: {error}")
            return self._exported[2]
        self.fault = None
        self._exported = (key, now, models)
        return models


class NoRegistryError(HoldfastError):
    """There is no registry there."""


def load_registry(path: "str | os.PathLike[str]" = ".") -> LoadedRegistry:
    """Open a registry for reading; see `LoadedRegistry`."""
    return LoadedRegistry(path)


def read_exported(data: bytes, file: str) -> dict[str, Model]:
    """The models of an exported file, by their names.

    Fields that a file by hand lacks are empty: such a version has a path, but no oid.

    Raises:
        EntryError: it is no such file.
    """
    from holdfast.registry.importing import read_models  # with YAML, which the folder's files need not pay

    return read_models(data, file)


def _resolved(model: Model, version: Version) -> Resolved:
    return Resolved(model.id, version, tuple(model.labels(version.name)), model.deprecations.get(version.name))


def _key(folder: Path) -> _Key:
    """What changes with a model's files: the folder's times, for a file that is put there, and ``model.yaml``'s own."""
    try:
        return (*_stat_key(folder), *_stat_key(folder / MODEL_FILE))
    except OSError:
        return ()


def _stat_key(path: Path) -> _Key:
    status = path.stat()
    return ((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),)


def _is_racy(key: _Key, read_ns: int) -> bool:
    """Whether it was read so soon after a change that another one might not show in its times."""
    return any(read_ns - max(mtime, ctime) < RACY_NS for _, _, mtime, ctime in key)
