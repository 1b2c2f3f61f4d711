"""Metrics and params of two sides, value by value, under the names that ``dvc metrics diff`` and ``dvc params diff``
give them.
"""

import json
import posixpath
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.nesting import TooDeepError, check_nesting
from holdfast.repo.dvcfiles import UnreadableFileError
from holdfast.repo.gitfolder import UnreadableRefError
from holdfast.report.pull_sides import NotCachedError, Side

ByFile = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ValueChange:
    """A metric or param of the two sides; None where one has none of that name.

    Attributes:
        file: from the project's root.
        name: with dots for one in a mapping; empty for a file that is one value.
        base: a number, text, or of params also a list as text.
        head: the same.
    """

    file: str
    name: str
    base: Any
    head: Any

    @property
    def changed(self) -> bool:
        """Whether the two differ; NaN is equal to NaN here, and 1 to 1.0."""
        if self.base != self.base and self.head != self.head:
            return False
        return bool(self.base != self.head)

    @property
    def difference(self) -> float | int | None:
        """Head - base, where both are numbers."""
        if not (isinstance(self.base, int | float) and isinstance(self.head, int | float)):
            return None
        try:
            return self.head - self.base
        except OverflowError:
            return None


def is_number(value: Any) -> bool:
    """Whether it is a number that may be NaN, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def metrics_of(side: Side) -> dict[str, dict[str, Any]]:
    """The metrics of a side by file and name, numbers and text; what cannot be read is noted as a fault."""
    found = {}
    for path in side.metrics:
        for file in _expanded(side, path):
            document = _document(side, file)
            if document is not None:
                found[file] = _flat(_scalars(document))
    return found


def trees_of(side: Side) -> dict[str, Any]:
    """The documents of a side's metrics files as they are, lists and all, by file; without faults."""
    found = {}
    for path in side.metrics:
        for file in _expanded(side, path):
            try:
                found[file] = parse(side.content(file) or b"", file)
            except (NotCachedError, UnreadableFileError, UnreadableRefError, OSError):
                continue
    return found


def params_of(side: Side) -> dict[str, dict[str, Any]]:
    """The params of a side by file and name; what cannot be read is noted as a fault."""
    found = {}
    for file, keys in sorted(side.params.items()):
        document = _document(side, file)
        if document is None:
            continue
        if keys and isinstance(document, dict):
            document = _chosen(document, keys)
        found[file] = _flat(_listed(document))
    return found


def compare_values(base: ByFile, head: ByFile) -> list[ValueChange]:
    """Every value of both sides, file by file in the order of their names, values in the order of the head side's."""
    result = []
    for file in sorted({*base, *head}):
        ours, theirs = base.get(file, {}), head.get(file, {})
        names = dict.fromkeys([*theirs, *ours])
        result += [ValueChange(file, name, ours.get(name), theirs.get(name)) for name in names]
    return result


def parse(data: bytes, file: str) -> Any:
    """A document of params or metrics, as DVC reads it: JSON, TOML, else YAML 1.2.

    Raises:
        UnreadableFileError: it is none; the message is a clause.
    """
    suffix = posixpath.splitext(file)[1].lower()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFileError("it is no text") from error
    try:
        if suffix == ".json":
            return json.loads(text)
        if suffix == ".toml":
            import tomlkit  # comes with DVC, which reads TOML so; imported here: few projects have any

            return tomlkit.parse(text).unwrap()
        if suffix == ".py":
            raise UnreadableFileError("it is Python, which DVC alone reads: `dvc params diff` compares it")
        check_nesting(data)
        return _yaml(text)
    except UnreadableFileError:
        raise
    except TooDeepError as error:
        raise UnreadableFileError(str(error)) from error
    except (ValueError, RecursionError) as error:
        kind = {".json": "JSON", ".toml": "TOML"}.get(suffix, "YAML")
        line = getattr(error, "lineno", None) or getattr(error, "line", None)
        raise UnreadableFileError(f"it is no {kind}{f' (line {line})' if line else ''}") from error


def _yaml(text: str) -> Any:
    # as DVC reads it: YAML 1.2, where `on` is text and 1e-5 a number; imported here: 40 ms that JSON need not pay
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a float that YAML 1.1 would read otherwise
            return YAML(typ="safe").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UnreadableFileError(f"it is no YAML{f' (line {mark.line + 1})' if mark else ''}") from error


def _document(side: Side, file: str) -> Any:
    """A file's document; None where there is no such file, or it cannot be read, which is noted."""
    try:
        data = side.content(file)
        return None if data is None else parse(data, file)
    except (NotCachedError, UnreadableFileError) as error:
        side.fault(file, str(error))
    except (UnreadableRefError, OSError) as error:
        side.fault(file, f"it cannot be read ({' '.join(str(error).split())})")
    return None


def _expanded(side: Side, path: str) -> Iterator[str]:
    """The files that a path of metrics stands for: itself, or those in the folder."""
    out = side.outs.get(path)
    if (out is not None and out.oid.endswith(".dir")) or side.names(path):
        yield from side.files_below(path)
    else:
        yield path


def _scalars(value: Any) -> Any:
    """What DVC takes for metrics: numbers and text, in mappings; None for the rest."""
    if isinstance(value, int | float | str):
        return value
    if isinstance(value, dict):
        found = {key: _scalars(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not None and item != {}}
    return None


def _listed(value: Any) -> Any:
    """Params with their lists as text, as DVC compares them."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return str(value) if isinstance(value, list) else value


def _flat(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(_leaves(value, ""))
    return {} if value is None else {"": _plain(value)}


def _leaves(tree: Mapping[Any, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict):
            yield from _leaves(value, name)
        else:
            yield name, _plain(value)


def _plain(value: Any) -> Any:
    """The value as JSON can have it: dates of YAML and the like as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _chosen(document: Mapping[Any, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The params that stages name, where nobody asks for the whole file."""
    found: dict[str, Any] = {}
    for key in keys:
        value: Any = document
        parts = key.split(".")
        for part in parts:
            value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
        if value is not _MISSING:
            place = found
            for part in parts[:-1]:
                place = place.setdefault(part, {})
            place[parts[-1]] = value
    return found


_MISSING = object()
