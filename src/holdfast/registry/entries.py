"""What the registry's two kinds of file say, and how they are written.

``registry/<app>/<name>/v3.yaml`` is an immutable *version*; ``registry/<app>/<name>/model.yaml`` is the *model*: the
only file of the two that changes. A file that cannot be read as what it should be is an `EntryError` that names file,
line and fault; nothing is guessed and nothing is overwritten.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from holdfast.errors import UsageError
from holdfast.registry.document import Document, is_day

MODEL_FILE = "model.yaml"
FOLDER_SUFFIX = ".dir"
CURRENT = "current"

_PART = r"[a-z0-9][a-z0-9_-]*"
MODEL_ID = re.compile(rf"{_PART}/{_PART}")
VERSION_NAME = re.compile(r"v[1-9][0-9]*")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
DIGEST = re.compile(r"blake3:[0-9a-f]{64}")
REFERENCE = re.compile(rf"(?P<model>{_PART}/{_PART})(?:@(?P<label>[A-Za-z0-9_-]+))?")


class UnknownVersionError(UsageError):
    """The model has no such version or alias."""


@dataclass(frozen=True)
class Deprecation:
    """That a version is not to be used any more.

    Attributes:
        reason: for people.
        date: the day since when, ISO 8601; None where somebody wrote the reason alone.
    """

    reason: str
    date: str | None = None


@dataclass(frozen=True)
class Version:
    """An immutable registered state of a model.

    Attributes:
        name: ``v1``, ``v2``, …
        path: the file or folder that had these bytes, relative to the project's root, with ``/``: the stable path.
        oid: DVC's md5 of the file, or ``<md5>.dir``.
        size: bytes; of a folder of all that is in it.
        weights: the weights digest.
        date: the day it was registered, ISO 8601.
        source: where it came from: ``run`` (its folder) and ``rev`` (the commit, 40 hex digits), as far as known.
        params: what it was trained with.
        metrics: what it reached.
        weights_file: of a folder the file that holds the weights, from the folder; None for a file.
        gate: the verdict of the gate that it passed, kept as it is.
        overridden: why it was registered though the gate refused it; None where it did not.
    """

    name: str
    path: str
    oid: str
    size: int
    weights: str
    date: str
    source: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    weights_file: str | None = None
    gate: Mapping[str, Any] = field(default_factory=dict)
    overridden: str | None = None

    @property
    def number(self) -> int:
        """3 for ``v3``."""
        return int(self.name[1:])

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files."""
        return self.oid.endswith(FOLDER_SUFFIX)

    @property
    def weights_path(self) -> str:
        """The file of weights, relative to the project's root."""
        return f"{self.path}/{self.weights_file}" if self.weights_file else self.path

    def as_json(self) -> dict[str, Any]:
        """Its fields as JSON, with ``version`` for the name; what is empty or None is there too."""
        fields = dict(vars(self))
        return {"version": fields.pop("name"), **fields}


@dataclass(frozen=True)
class Model:
    """A name in the registry.

    Attributes:
        id: ``app/name``.
        description: one line for people.
        current: the version that the stable path holds, or None before the first.
        aliases: movable labels on versions.
        versions: in the order of their numbers.
        protected: aliases that are not moved by accident.
        deprecations: versions that are not to be used any more.
        removed: versions that were there once, whose numbers are not used again; the day of each.
    """

    id: str
    description: str
    current: str | None
    aliases: Mapping[str, str]
    versions: tuple[Version, ...]
    protected: tuple[str, ...] = ()
    deprecations: Mapping[str, Deprecation] = field(default_factory=dict)
    removed: Mapping[str, str] = field(default_factory=dict)

    def version(self, name: str) -> Version | None:
        """The version of that name, or None."""
        return next((version for version in self.versions if version.name == name), None)

    def named(self, label: str | None) -> Version:
        """The version that a label means: a version's name, an alias, or ``current``, which None stands for, too.

        Raises:
            UnknownVersionError: there is none.
        """
        name = self.current if label in (None, CURRENT) else self.aliases.get(label or "", label)
        version = self.version(name or "")
        if version is None:
            known = ", ".join([CURRENT, *self.aliases, *(version.name for version in reversed(self.versions[-5:]))])
            raise UnknownVersionError(
                f"{self.id} has no version or alias {label or CURRENT}", hint=f"It has {known}" if known else None
            )
        return version

    def labels(self, name: str) -> list[str]:
        """The labels of a version: ``current``, then its aliases in the order of the alphabet."""
        aliases = sorted(alias for alias, target in self.aliases.items() if target == name)
        return ([CURRENT] if self.current == name else []) + aliases

    @property
    def champion(self) -> Version | None:
        """The version to beat: the alias ``production``, else the current one."""
        return self.version(self.aliases.get("production") or self.current or "")

    @property
    def next_name(self) -> str:
        """The name that the next version will have: numbers are never used twice."""
        numbers = [version.number for version in self.versions] + [int(name[1:]) for name in self.removed]
        return f"v{max(numbers, default=0) + 1}"

    def as_json(self) -> dict[str, Any]:
        """Its fields as JSON, with ``model`` for the id."""
        return {
            "model": self.id,
            "description": self.description,
            "current": self.current,
            "aliases": dict(self.aliases),
            "protected": list(self.protected),
            "deprecations": {name: dict(vars(item)) for name, item in self.deprecations.items()},
            "removed": dict(self.removed),
            "versions": [version.as_json() for version in self.versions],
        }


@dataclass(frozen=True)
class ModelSummary:
    """A model without its versions.

    Attributes:
        id: ``app/name``.
        description: one line for people.
        current: the version that the stable path holds.
        aliases: movable labels on versions.
        champion: the version to beat.
        metrics: what that reached.
        versions: how many there are.
        size: bytes of all of them.
        date: the day of the newest, ISO 8601; None where there is none.
    """

    id: str
    description: str
    current: str | None
    aliases: Mapping[str, str]
    champion: str | None
    metrics: Mapping[str, Any]
    versions: int
    size: int
    date: str | None

    def as_json(self) -> dict[str, Any]:
        """Its fields as JSON, with ``model`` for the id."""
        fields = dict(vars(self))
        return {"model": fields.pop("id"), **fields}


def summarize(model: Model) -> ModelSummary:
    """The model without its versions."""
    champion = model.champion
    return ModelSummary(
        id=model.id,
        description=model.description,
        current=model.current,
        aliases=model.aliases,
        champion=champion.name if champion else None,
        metrics=champion.metrics if champion else {},
        versions=len(model.versions),
        size=sum(version.size for version in model.versions),
        date=model.versions[-1].date if model.versions else None,
    )


def check_model_id(model_id: str) -> None:
    """Raise a `UsageError` unless ``model_id`` is ``app/name`` in lower-case letters, digits, ``-`` and ``_``."""
    if not MODEL_ID.fullmatch(model_id):
        raise UsageError(
            f"{model_id!r} is no model name", hint="A model is app/name in lower-case letters, digits, - and _"
        )


def check_alias(alias: str) -> None:
    """Raise a `UsageError` unless ``alias`` can be one: it must not look like a version, nor be ``current``."""
    if not ALIAS.fullmatch(alias) or VERSION_NAME.fullmatch(alias) or alias == CURRENT:
        raise UsageError(
            f"{alias!r} is no name for an alias",
            hint="An alias is made of letters, digits, - and _, starts with a letter, and is neither v3 nor current",
        )


def split_reference(reference: str) -> tuple[str, str | None]:
    """The model and the label of ``app/name@label``; the label is None where there is none.

    Raises:
        UsageError: it is no such thing.
    """
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(f"{reference!r} names no version", hint="Write app/name, app/name@v3 or app/name@production")
    return match["model"], match["label"]


def parse_version(text: str, name: str, file: str) -> Version:
    """Read a version's file.

    Args:
        text: its content.
        name: ``v3``, from the file's name.
        file: what to call the file in errors.

    Raises:
        EntryError: it is no YAML, a field is missing, or a field is not what it should be.
    """
    fields = Document(text, file)
    source = fields.mapping("source")
    if not all(isinstance(value, str) for value in source.values()):
        raise fields.error("source", "holds something that is no text (revisions are quoted)")
    return Version(
        name=name,
        path=fields.text("path"),
        oid=fields.text("oid", OID, "an md5 (32 hex digits, quoted), or <md5>.dir"),
        size=fields.count("size"),
        weights=fields.text("weights", DIGEST, "a digest, blake3:<64 hex digits>"),
        date=fields.day("date"),
        source=source,
        params=fields.mapping("params"),
        metrics=fields.mapping("metrics"),
        weights_file=_weights_file(fields),
        gate=fields.mapping("gate"),
        overridden=fields.text("overridden") if "overridden" in fields.values else None,
    )


def _weights_file(fields: Document) -> str | None:
    name = fields.values.get("weights_file")
    if not fields.text("oid").endswith(FOLDER_SUFFIX):
        if name is not None:
            raise fields.error("weights_file", "stands beside the oid of a single file")
        return None
    if not isinstance(name, str) or not name or ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise fields.error("weights_file", f"should name the folder's file of weights, not {name!r}")
    return name


def parse_model(text: str, model_id: str, versions: tuple[Version, ...], file: str, *, partial: bool = False) -> Model:
    """Read a model's file.

    Args:
        text: its content.
        model_id: ``app/name``, from the file's folder.
        versions: the model's versions, which ``current``, the aliases and the deprecations must name.
        file: what to call the file in errors.
        partial: leave out what names a version which is not there, instead of refusing.

    Raises:
        EntryError: it is no YAML, or a field is not what it should be, or names a version that is not there.
    """
    fields = Document(text, file)
    names = {version.name for version in versions}
    current = fields.values.get(CURRENT)
    if current is not None and not isinstance(current, str):
        raise fields.error(CURRENT, f"should be the name of a version, not {current!r}")
    aliases = fields.mapping("aliases")
    for alias, target in aliases.items():
        if not isinstance(target, str):
            raise fields.error("aliases", f"{alias!r} should name a version, not {target!r}")
    deprecations = {name: _deprecation(fields, name, told) for name, told in fields.mapping("deprecations").items()}
    if partial:
        current = current if current in names else None
        aliases = {alias: target for alias, target in aliases.items() if target in names}
        deprecations = {name: told for name, told in deprecations.items() if name in names}
    if current is not None and current not in names:
        raise fields.error(CURRENT, f"names {current!r}, of which there is no file")
    for alias, target in aliases.items():
        if target not in names:
            raise fields.error("aliases", f"{alias!r} names {target!r}, of which there is no file")
    for name in deprecations:
        if name not in names:
            raise fields.error("deprecations", f"names {name!r}, of which there is no file")
    protected = fields.values.get("protected") or []
    if not isinstance(protected, list) or not all(isinstance(alias, str) for alias in protected):
        raise fields.error("protected", f"should be a list of aliases, not {protected!r}")
    removed = fields.mapping("removed")
    for name, day in removed.items():
        if not VERSION_NAME.fullmatch(name) or not is_day(day):
            raise fields.error("removed", f"should give versions and days, not {name!r}: {day!r}")
    description = str(fields.values.get("description", "") or "")
    return Model(model_id, description, current, aliases, versions, tuple(protected), deprecations, removed)


def _deprecation(fields: Document, name: str, told: object) -> Deprecation:
    if isinstance(told, str):
        return Deprecation(told)
    if isinstance(told, dict) and set(told) <= {"reason", "date"}:
        reason, date = told.get("reason", ""), told.get("date")
        if isinstance(reason, str) and (date is None or is_day(date)):
            return Deprecation(reason, date)
    raise fields.error("deprecations", f"{name!r} should be a reason, or have a reason and a date, not {told!r}")
