"""Reads ``holdfast.yaml``: every value knows its line, and what does not belong is refused with file, line and key.

A reader asks a `Section` for what it knows, with the type that it must have, and calls `Section.close`, which refuses
the rest. A section that is not in the file is empty and gives the defaults.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml

from holdfast.errors import HoldfastError
from holdfast.inventory.amounts import read_duration, read_size

_T = TypeVar("_T")

CONFIG_MAX_BYTES = 2**20
# the sections that Holdfast has; a room that reads a new one adds it here
SECTIONS = ("canonical", "code", "gc", "remote", "repos", "runs", "scan", "vault", "workspace")


class ConfigError(HoldfastError):
    """``holdfast.yaml`` says something that Holdfast does not know; the message names file, line and key."""


def read_config(path: Path) -> "Section":
    """The whole file as a section.

    Raises:
        ConfigError: it is no YAML mapping, or has a section that Holdfast does not know.
        OSError: it cannot be read.
    """
    with open(path, "rb") as stream:
        data = stream.read(CONFIG_MAX_BYTES + 1)
    if len(data) > CONFIG_MAX_BYTES:
        raise ConfigError(f"{path} is larger than {CONFIG_MAX_BYTES // 2**20} MiB")
    try:
        node = yaml.compose(data, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{place}: is no YAML ({getattr(error, 'problem', None) or type(error).__name__})") from error
    section = Section(path, (), node)
    for name in SECTIONS:
        section.take(name)
    section.close()
    return section


class Section:
    """A mapping of the file, or the empty one that stands for what the file leaves out.

    Args:
        path: the file, for messages.
        keys: the keys that lead here.
        node: the mapping as PyYAML composed it, or None.

    Raises:
        ConfigError: it is no mapping, or has a key twice.
    """

    def __init__(self, path: Path, keys: tuple[str, ...], node: yaml.Node | None) -> None:
        self.path = path
        self.keys = keys
        self._values: dict[str, yaml.Node] = {}
        self._lines: dict[str, int] = {}
        self._asked: set[str] = set()
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
            return
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, keys, f"is {_what(node)}, and must be a mapping")
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, keys, "has a key that is no text")
            if key.value in self._values:
                raise self._error(key, (*keys, key.value), f"is there twice, first in line {self._lines[key.value]}")
            self._values[key.value] = value
            self._lines[key.value] = key.start_mark.line + 1

    def take(self, key: str) -> yaml.Node | None:
        """The node under ``key``, which counts as known from now on; None where there is none."""
        self._asked.add(key)
        return self._values.get(key)

    def section(self, key: str) -> "Section":
        """The mapping under ``key``; an empty one where there is none."""
        return Section(self.path, (*self.keys, key), self.take(key))

    def names(self) -> list[str]:
        """All keys, for a mapping whose keys are the user's; they count as known."""
        self._asked.update(self._values)
        return list(self._values)

    def integer(self, key: str, default: int, *, minimum: int = 0) -> int:
        """A whole number of at least ``minimum``."""
        node = self.take(key)
        if node is None:
            return default
        value = _scalar(node)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, f"is {_what(node)}, and must be a whole number")
        if value < minimum:
            raise self.wrong(key, f"is {value}, and must be at least {minimum}")
        return value

    def share(self, key: str, default: float) -> float:
        """A number from 0 to 1."""
        node = self.take(key)
        if node is None:
            return default
        value = _scalar(node)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"is {_what(node)}, and must be a number from 0 to 1")
        if not 0 <= value <= 1:
            raise self.wrong(key, f"is {value}, and must be a number from 0 to 1")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        node = self.take(key)
        if node is None:
            return default
        value = _scalar(node)
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {_what(node)}, and must be true or false")
        return value

    def text(self, key: str, default: str, *, among: Iterable[str] | None = None) -> str:
        """A text that is not empty, one of ``among`` where that is given."""
        node = self.take(key)
        if node is None:
            return default
        value = _scalar(node)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, f"is {_what(node)}, and must be a text")
        if among is not None and value not in (known := list(among)):
            raise self.wrong(key, f"is {value!r}, and may be {', '.join(known)}")
        return value

    def has(self, key: str) -> bool:
        """Whether there is something under ``key``, which counts as known from now on."""
        return self.take(key) is not None

    def says(self, key: str, word: str) -> bool:
        """Whether just ``word`` stands under ``key``, which counts as known from now on."""
        node = self.take(key)
        return isinstance(node, yaml.ScalarNode) and node.value == word

    def duration(self, key: str, default: timedelta) -> timedelta:
        """A length of time such as ``14d``."""
        return self._amount(key, default, read_duration)

    def size(self, key: str, default: int | None) -> int | None:
        """A number of bytes such as ``50GB``."""
        return self._amount(key, default, read_size)

    def texts(self, key: str, default: Iterable[str], *, among: Iterable[str] | None = None) -> tuple[str, ...]:
        """A list of texts, each one of ``among`` where that is given."""
        node = self.take(key)
        if node is None:
            return tuple(default)
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(key, f"is {_what(node)}, and must be a list of texts")
        values = [_scalar(item) for item in node.value]
        known = None if among is None else list(among)
        for value, item in zip(values, node.value, strict=True):
            if not isinstance(value, str) or not value:
                raise self._error(item, (*self.keys, key), f"holds {_what(item)}, and must be a list of texts")
            if known is not None and value not in known:
                raise self._error(item, (*self.keys, key), f"holds {value!r}, and may hold {', '.join(known)}")
        return tuple(str(value) for value in values)

    def _amount(self, key: str, default: _T, read: Callable[[str], _T]) -> _T:
        node = self.take(key)
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode):
            raise self.wrong(key, f"is {_what(node)}, and must be one value")
        try:
            return read(str(node.value))
        except ValueError as error:
            raise self.wrong(key, f"is wrong: {error}") from error

    def close(self) -> None:
        """Refuse what nobody asked for.

        Raises:
            ConfigError: there is a key that no reader knows.
        """
        for key, line in self._lines.items():
            if key not in self._asked:
                close = difflib.get_close_matches(key, self._asked, 1)
                known = f"Did you mean {close[0]}?" if close else f"Known here: {', '.join(sorted(self._asked))}"
                name = ".".join((*self.keys, key))
                raise ConfigError(f"{self.path}:{line}: {name} is no setting of Holdfast", hint=known)

    def wrong(self, key: str, problem: str) -> ConfigError:
        """The error for the value under ``key``."""
        name = ".".join((*self.keys, key))
        return ConfigError(f"{self.path}:{self._lines[key]}: {name} {problem}")

    def _error(self, node: yaml.Node, keys: tuple[str, ...], problem: str) -> ConfigError:
        return ConfigError(f"{self.path}:{node.start_mark.line + 1}: {'.'.join(keys) or 'the file'} {problem}")


def texts_of(section: Section) -> Mapping[str, str]:
    """A mapping from the user's own keys to texts."""
    return {name: section.text(name, "") for name in section.names()}


def _scalar(node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        return None
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        return None


def _what(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return repr(str(node.value)) if node.value else "empty"
