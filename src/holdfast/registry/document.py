"""A file of the registry as values: what JSON knows alone, with the line of each field for errors.

What Holdfast itself wrote is read line by line, some twenty times as fast as YAML's parser does it, to the same values;
every other form goes through YAML.
"""

import datetime as dt
import re
from functools import lru_cache
from typing import Any

from holdfast.errors import IntegrityError

SCHEMA = 1
MENDING = "Mend it by hand, or take the last good one: `git checkout HEAD -- FILE`"
MAX_DEPTH = 50
MAX_NODES = 100_000
MAX_COUNT = 2**63

# the lines that Holdfast writes: two spaces a level, `key: value`, `key:` before a block, `- value` below its key
_LINE = re.compile(r"( *)(?:([A-Za-z_][A-Za-z0-9_./-]*):(?: (\S.*))?|- (\S.*))")
_QUOTED = re.compile(r'"[ !#-\[\]-~]*"|\'[ -&(-~]*\'')
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+(?:e[-+][0-9]+)?")
_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9_,./()×–=+@ -]*[A-Za-z0-9_./)])?")
# what YAML 1.1 takes for something else than text
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off"})
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}
_CANONICAL_DEPTH = 20
# what stands behind a key
_SCALAR, _BLOCK, _NEW_MAPPING, _NEW_LIST = range(4)


class EntryError(IntegrityError):
    """A registry file is broken; the message names the file, the line and the fault."""


class Document:
    """The top-level mapping of a registry file.

    Args:
        text: its content.
        file: what to call the file in errors.

    Attributes:
        values: what its fields hold.

    Raises:
        EntryError: it is no YAML, holds what JSON does not know, or is of another schema.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._text = text
        canonical = read_canonical(text)
        self.values: dict[str, Any] = read_yaml(text, file) if canonical is None else canonical
        if self.values.get("schema") != SCHEMA:
            told = self.values.get("schema")
            raise self.error("schema", f"is {told!r}; this version of Holdfast reads schema {SCHEMA}")

    def error(self, key: str, fault: str) -> EntryError:
        """The error for a field."""
        line = _line_of(self._text, key) if key in self.values else None
        where = f", line {line}" if line else ""
        return EntryError(f"{self.file}{where}: {key!r} {fault}", hint=MENDING)

    def text(self, key: str, form: re.Pattern[str] | None = None, what: str = "text") -> str:
        """A field of text that is not empty, and of a form."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value or (form and not form.fullmatch(value)):
            raise self.error(key, f"should be {what}, not {value!r}")
        return value

    def count(self, key: str) -> int:
        """A number of bytes."""
        value = self.values.get(key)
        if type(value) is not int or value < 0:
            raise self.error(key, f"should be a number of bytes, not {value!r}")
        return value

    def day(self, key: str) -> str:
        """A day, ISO 8601."""
        value = self.values.get(key)
        if is_day(value):
            assert isinstance(value, str)
            return value
        raise self.error(key, f"should be a day such as 2026-11-20, not {value!r}")

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping; empty where the field is missing."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(key, f"should be a mapping, not {value!r}")
        return value


def is_day(value: object) -> bool:
    """Whether a value is the text of a day, such as ``2026-11-20``."""
    try:
        return isinstance(value, str) and len(value) == 10 and dt.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def read_canonical(text: str) -> dict[str, Any] | None:
    """The values of a file in the form in which Holdfast writes it; None for any other form, which YAML must read."""
    top: dict[str, Any] = {}
    stack: list[dict[str, Any]] = [top]
    # where a block may follow: the mapping and the key that has no value yet
    awaiting: tuple[dict[str, Any], str] | None = None
    items: list[Any] | None = None
    lines = text.split("\n")
    if lines.pop() or not lines:
        return None
    for line in lines:
        parsed = _parsed(line)
        if parsed is None:
            return None
        level, key, kind, value = parsed
        if kind == _NEW_LIST:
            value = []
        elif kind == _NEW_MAPPING:
            value = {}
        if key is None:
            if level != len(stack) - 1:
                return None
            if awaiting is not None:
                holder, name = awaiting
                items = holder[name] = []
                awaiting = None
            if items is None:
                return None
            items.append(value)
            continue
        items = None
        if level == len(stack) and awaiting is not None and level < _CANONICAL_DEPTH:
            holder, name = awaiting
            block: dict[str, Any] = {}
            holder[name] = block
            stack.append(block)
        elif level < len(stack):
            del stack[level + 1 :]
        else:
            return None
        mapping = stack[-1]
        if key in mapping:
            return None
        mapping[key] = value
        awaiting = (mapping, key) if kind == _BLOCK else None
    return top


@lru_cache(maxsize=4096)  # the versions of a model have most of their lines in common
def _parsed(line: str) -> tuple[int, str | None, int, Any] | None:
    """Level, key (None for an item of a list), kind and value of a line; None where it has another form."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    indent, key, value, item = match.groups()
    level, odd = divmod(len(indent), 2)
    text = value if item is None else item
    if odd:
        return None
    if text is None:
        return level, key, _BLOCK, None
    if text in ("{}", "[]"):
        return level, key, _NEW_MAPPING if text == "{}" else _NEW_LIST, None
    known, scalar = _scalar(text)
    return (level, key, _SCALAR, scalar) if known else None


def _scalar(text: str) -> tuple[bool, Any]:
    first = text[0]
    if first in "\"'":
        return (True, text[1:-1]) if _QUOTED.fullmatch(text) else (False, None)
    if first in "-0123456789":
        if _INTEGER.fullmatch(text):
            return True, int(text)
        return (True, float(text)) if _FLOAT.fullmatch(text) else (False, None)
    if text in _CONSTANTS:
        return True, _CONSTANTS[text]
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return True, text
    return False, None


def read_yaml(text: str, file: str) -> dict[str, Any]:
    """The top-level mapping of a file in any form of YAML.

    Raises:
        EntryError: it is no YAML, no mapping, or holds what JSON does not know.
    """
    import yaml  # 15 ms that files in Holdfast's own form need not pay

    from holdfast.nesting import check_nesting  # with YAML's scanner

    try:
        check_nesting(text.encode())
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # with libyaml ten times faster
        if not isinstance(node, yaml.MappingNode):
            raise EntryError(f"{file}: holds no mapping", hint=MENDING)
        values: dict[str, Any] = {}
        reader = _NodeReader(file)
        for key, value in node.value:
            if str(key.value) in values:
                line = key.start_mark.line + 1
                raise EntryError(f"{file}, line {line}: {key.value!r} comes twice", hint=MENDING)
            values[str(key.value)] = reader.plain(value)
    except yaml.YAMLError as error:
        raise _no_yaml(error, text, file) from error
    except (ValueError, TypeError, RecursionError, AttributeError) as error:
        raise EntryError(f"{file}: cannot be read: {error}", hint=MENDING) from error
    return values


def _line_of(text: str, key: str) -> int | None:
    """The line of a top-level field, asked for when there is an error alone."""
    import yaml  # see read_yaml

    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = {str(name.value): name.start_mark.line + 1 for name, _ in node.value}
    return lines.get(key)


def _no_yaml(error: Exception, text: str, file: str) -> EntryError:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(("<<<<<<< ", ">>>>>>> ")):
            return EntryError(
                f"{file}, line {number}: a merge left its conflict in the file",
                hint="`holdfast registry resolve` mends it during the merge; after it choose a side and commit",
            )
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or "cannot be read"
    return EntryError(f"{file}{where}: no YAML: {problem}", hint=MENDING)


class _NodeReader:
    """Values of YAML nodes, of what JSON knows alone: no dates, no anchors, no key twice at any depth."""

    def __init__(self, file: str) -> None:
        import yaml  # see read_yaml

        self._file = file
        self._budget = MAX_NODES  # anchors can make a small file mean a large value
        self._yaml = yaml
        self._scalars = yaml.SafeLoader("")
        loader = yaml.SafeLoader
        self._constructors: dict[str, Any] = {
            "tag:yaml.org,2002:str": loader.construct_yaml_str,
            "tag:yaml.org,2002:int": loader.construct_yaml_int,
            "tag:yaml.org,2002:float": loader.construct_yaml_float,
            "tag:yaml.org,2002:bool": loader.construct_yaml_bool,
            "tag:yaml.org,2002:null": loader.construct_yaml_null,
        }

    def plain(self, node: Any, depth: int = 0) -> Any:
        where = f"{self._file}, line {node.start_mark.line + 1}"
        self._budget -= 1
        if depth > MAX_DEPTH or self._budget < 0:
            raise EntryError(f"{where}: nested too deeply, or too much", hint=MENDING)
        if isinstance(node, self._yaml.SequenceNode):
            return [self.plain(item, depth + 1) for item in node.value]
        if isinstance(node, self._yaml.MappingNode):
            result: dict[str, Any] = {}
            for key, value in node.value:
                if str(key.value) in result:
                    raise EntryError(f"{where}: {key.value!r} comes twice", hint=MENDING)
                result[str(key.value)] = self.plain(value, depth + 1)
            return result
        if node.tag not in self._constructors:
            raise EntryError(f"{where}: {node.value!r} is a {node.tag.rsplit(':', 1)[-1]}: put quotes around it")
        value = self._constructors[node.tag](self._scalars, node)
        if isinstance(value, int) and abs(value) >= MAX_COUNT:
            raise EntryError(f"{where}: {str(node.value)[:20]}… is larger than any count")
        return value
