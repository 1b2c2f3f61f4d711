"""What the registry's two kinds of file say, and how they are written.

``registry/<app>/<name>/v3.yaml`` is an immutable *version*; ``registry/<app>/<name>/model.yaml`` is the *model*: the
only file of the two that changes. A file that cannot be read as what it should be is an `EntryError` that names file,
line and fault; nothing is guessed and nothing is overwritten.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from holdfast.errors import IntegrityError, UsageError
from holdfast.nesting import check_nesting

SCHEMA = 1
MODEL_FILE = "model.yaml"

_PART = r"[a-z0-9][a-z0-9_-]*"
MODEL_ID = re.compile(rf"{_PART}/{_PART}")
VERSION_NAME = re.compile(r"v[1-9][0-9]*")
OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
DIGEST = re.compile(r"blake3:[0-9a-f]{64}")


MENDING = "Mend it by hand, or take the last good one: `git checkout HEAD -- FILE`"
MAX_DEPTH = 50
MAX_NODES = 100_000
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # with libyaml ten times faster
_SCALARS = yaml.SafeLoader("")
PLAIN_TAGS = {
    "tag:yaml.org,2002:str": yaml.SafeLoader.construct_yaml_str,
    "tag:yaml.org,2002:int": yaml.SafeLoader.construct_yaml_int,
    "tag:yaml.org,2002:float": yaml.SafeLoader.construct_yaml_float,
    "tag:yaml.org,2002:bool": yaml.SafeLoader.construct_yaml_bool,
    "tag:yaml.org,2002:null": yaml.SafeLoader.construct_yaml_null,
}


class EntryError(IntegrityError):
    """A registry file is broken; the message names the file, the line and the fault."""


@dataclass(frozen=True)
class Version:
    """An immutable registered state of a model.

    Attributes:
        name: ``v1``, ``v2``, …
        path: the stable path, relative to the project's root, with ``/``.
        oid: DVC's md5 of the file, or ``<md5>.dir``.
        size: bytes.
        weights: the weights digest, ``blake3:<hex>``.
        date: the day it was registered, ISO 8601.
        source: where it came from: ``run`` (its folder) and ``rev`` (the commit, 40 hex digits), as far as known.
        params: what it was trained with.
        metrics: what it reached.
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

    @property
    def number(self) -> int:
        """3 for ``v3``."""
        return int(self.name[1:])


@dataclass(frozen=True)
class Model:
    """A name in the registry.

    Attributes:
        id: ``app/name``.
        description: one line for people.
        current: the version that the stable path holds, or None before the first.
        aliases: movable labels on versions.
        versions: in the order of their numbers.
    """

    id: str
    description: str
    current: str | None
    aliases: Mapping[str, str]
    versions: tuple[Version, ...]

    def version(self, name: str) -> Version | None:
        """The version of that name, or None."""
        return next((version for version in self.versions if version.name == name), None)


class _Quoted(str):
    """Text that YAML must not mistake for a number or a date."""


class _Dumper(yaml.SafeDumper):
    """Keeps the order of keys, quotes digests, oids, revisions and dates, and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """A value that stands in two places is written twice: people edit these files."""
        return True


_Dumper.add_representer(
    _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
)


def check_model_id(model_id: str) -> None:
    """Raise a `UsageError` unless ``model_id`` is ``app/name`` in lower-case letters, digits, ``-`` and ``_``."""
    if not MODEL_ID.fullmatch(model_id):
        raise UsageError(
            f"{model_id!r} is no model name", hint="A model is app/name in lower-case letters, digits, - and _"
        )


def dump_version(version: Version) -> str:
    """The text of a version's file."""
    source = {key: _Quoted(value) if key == "rev" else value for key, value in version.source.items()}
    return _dump(
        {
            "schema": SCHEMA,
            "path": version.path,
            "oid": _Quoted(version.oid),
            "size": version.size,
            "weights": _Quoted(version.weights),
            "date": _Quoted(version.date),
            "source": source,
            "params": dict(version.params),
            "metrics": dict(version.metrics),
        }
    )


def dump_model(description: str, current: str) -> str:
    """The text of a new model's file."""
    return _dump({"schema": SCHEMA, "description": description, "current": current, "aliases": {}})


def parse_version(text: str, name: str, file: str) -> Version:
    """Read a version's file.

    Args:
        text: its content.
        name: ``v3``, from the file's name.
        file: what to call the file in errors.

    Raises:
        EntryError: it is no YAML, a field is missing, or a field is not what it should be.
    """
    fields = _Fields(text, file)
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
    )


def parse_model(text: str, model_id: str, versions: tuple[Version, ...], file: str, *, partial: bool = False) -> Model:
    """Read a model's file.

    Args:
        text: its content.
        model_id: ``app/name``, from the file's folder.
        versions: the model's versions, which ``current`` and the aliases must name.
        file: what to call the file in errors.
        partial: leave out ``current`` and aliases that name a version which is not there, instead of refusing.

    Raises:
        EntryError: it is no YAML, or a field is not what it should be, or names a version that is not there.
    """
    fields = _Fields(text, file)
    names = {version.name for version in versions}
    current = fields.values.get("current")
    if current is not None and not isinstance(current, str):
        raise fields.error("current", f"should be the name of a version, not {current!r}")
    aliases = fields.mapping("aliases")
    for alias, target in aliases.items():
        if not isinstance(target, str):
            raise fields.error("aliases", f"{alias!r} should name a version, not {target!r}")
    if partial:
        current = current if current in names else None
        aliases = {alias: target for alias, target in aliases.items() if target in names}
    if current is not None and current not in names:
        raise fields.error("current", f"names {current!r}, of which there is no file")
    for alias, target in aliases.items():
        if target not in names:
            raise fields.error("aliases", f"{alias!r} names {target!r}, of which there is no file")
    description = fields.values.get("description", "")
    return Model(model_id, str(description or ""), current, aliases, versions)


class _Fields:
    """The top-level mapping of a registry file, with the line of each key for errors."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        try:
            check_nesting(text.encode())
            node = yaml.compose(text, Loader=_Loader)
            self.values, self.lines = self._mapping(node)
        except yaml.YAMLError as error:
            raise self._no_yaml(error, text) from error
        except (ValueError, TypeError, RecursionError, AttributeError) as error:
            raise EntryError(f"{file}: cannot be read: {error}", hint=MENDING) from error
        if self.values.get("schema") != SCHEMA:
            told = self.values.get("schema")
            raise self.error("schema", f"is {told!r}; this version of Holdfast reads schema {SCHEMA}")

    def _mapping(self, node: Any) -> tuple[dict[str, Any], dict[str, int]]:
        if not isinstance(node, yaml.MappingNode):
            raise EntryError(f"{self.file}: holds no mapping", hint=MENDING)
        values, lines, budget = {}, {}, [MAX_NODES]
        for key, value in node.value:
            line = key.start_mark.line + 1
            if str(key.value) in lines:
                raise EntryError(f"{self.file}, line {line}: {key.value!r} comes twice", hint=MENDING)
            values[str(key.value)] = _plain(value, self.file, budget)
            lines[str(key.value)] = line
        return values, lines

    def _no_yaml(self, error: yaml.YAMLError, text: str) -> EntryError:
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith(("<<<<<<< ", ">>>>>>> ")):
                return EntryError(
                    f"{self.file}, line {number}: a merge left its conflict in the file",
                    hint="Choose a side, `git add` the file and commit",
                )
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        return EntryError(f"{self.file}{where}: no YAML: {problem}", hint=MENDING)

    def error(self, key: str, fault: str) -> EntryError:
        line = f", line {self.lines[key]}" if key in self.lines else ""
        return EntryError(f"{self.file}{line}: {key!r} {fault}", hint=MENDING)

    def text(self, key: str, form: re.Pattern[str] | None = None, what: str = "text") -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value or (form and not form.fullmatch(value)):
            raise self.error(key, f"should be {what}, not {value!r}")
        return value

    def count(self, key: str) -> int:
        value = self.values.get(key)
        if type(value) is not int or value < 0:
            raise self.error(key, f"should be a number of bytes, not {value!r}")
        return value

    def day(self, key: str) -> str:
        value = self.values.get(key)
        try:
            return dt.date.fromisoformat(self.text(key)).isoformat()
        except ValueError as error:
            raise self.error(key, f"should be a day such as 2026-11-20, not {value!r}") from error

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(key, f"should be a mapping, not {value!r}")
        return {str(name): item for name, item in value.items()}


def _plain(node: Any, file: str, budget: list[int], depth: int = 0) -> Any:
    """The value of a YAML node, of what JSON knows alone: no dates, no anchors, no key twice at any depth."""
    where = f"{file}, line {node.start_mark.line + 1}"
    budget[0] -= 1  # anchors can make a small file mean a large value
    if depth > MAX_DEPTH or budget[0] < 0:
        raise EntryError(f"{where}: nested too deeply, or too much", hint=MENDING)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, file, budget, depth + 1) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key, value in node.value:
            if str(key.value) in result:
                raise EntryError(f"{where}: {key.value!r} comes twice", hint=MENDING)
            result[str(key.value)] = _plain(value, file, budget, depth + 1)
        return result
    if node.tag not in PLAIN_TAGS:
        raise EntryError(f"{where}: {node.value!r} is a {node.tag.rsplit(':', 1)[-1]}: put quotes around it")
    value = PLAIN_TAGS[node.tag](_SCALARS, node)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise EntryError(f"{where}: {str(node.value)[:20]}… is larger than any count")
    return value


def _dump(values: Mapping[str, Any]) -> str:
    try:
        return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    except yaml.YAMLError as error:
        raise EntryError(f"the registry keeps numbers, text, lists and mappings: {error}") from error
