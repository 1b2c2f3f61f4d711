"""Additions to files that people wrote: every byte that is there stays, and what was added is checked.

YAML is not written anew, which would lose a style or a comment: the place for the addition is found in the parsed
document, the text goes in there, and the result must be what was there with the addition, or nothing is given.
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml

from holdfast.errors import HoldfastError

# what YAML takes for the end of a line
_LINE = re.compile("[^\r\n\x85\u2028\u2029]*(?:\r\n|[\r\n\x85\u2028\u2029]|$)")


class NotMergedError(HoldfastError):
    """Nothing can be added without a doubt of what the file says afterwards."""


def with_lines(data: bytes, lines: Sequence[str]) -> bytes:
    """A text file with those of the lines at its end that it does not have; the file itself where it has all.

    Args:
        data: of the file; its line ends are kept to.
        lines: without line ends; one that begins with ``#`` explains the next, and goes only with it.

    Raises:
        NotMergedError: it is no UTF-8.
    """
    text = _text(data)
    there = {line.strip() for line in text.splitlines()}
    added: list[str] = []
    for place, line in enumerate(lines):
        if line.startswith("#"):
            continue
        if line not in there:
            comment = [lines[place - 1]] if place and lines[place - 1].startswith("#") else []
            added += [*(item for item in comment if item not in there), line]
    if not added:
        return data
    end = _line_end(text)
    before = text if not text or text.endswith("\n") else text + end
    return (before + "".join(line + end for line in added)).encode()


def with_item(data: bytes, key: str, item: str) -> bytes:
    """A YAML file with one more item at the end of the list under a key of the top.

    Args:
        data: of the file.
        key: the list's; added where it is missing.
        item: the item as YAML, its first line after ``- ``.

    Raises:
        NotMergedError: the file cannot be read, has no list there, or is written so that nothing can be added to it.
    """
    lines = item.splitlines()
    block = [f"- {lines[0]}", *(f"  {line}" if line else "" for line in lines[1:])]
    text = _text(data)
    before, value = _read(text), _read(item)
    top = _top(before)
    there = top.get(key)
    if there is not None and not isinstance(there, list):
        raise NotMergedError(f"{key} is no list")
    expected = {**top, key: [*(there or []), value]}
    root = _node(text)
    return _checked(_below(text, _child(root, key), key, block, filled=bool(there)), expected)


def with_keys(data: bytes, keys: Sequence[str], addition: str) -> bytes:
    """A YAML file with more keys at the end of a mapping.

    Args:
        data: of the file.
        keys: that lead to the mapping, one at most; empty for the top.
        addition: the keys and their values as a YAML mapping, from column 0. None of them may be there.

    Raises:
        NotMergedError: as of `with_item`; or one of the keys is there.
    """
    text = _text(data)
    top, more = _top(_read(text)), _read(addition)
    block = addition.splitlines()
    root = _node(text)
    if not keys:
        _refuse_known(top, more)
        return _checked(_at_end(text, block), {**top, **more})
    (key,) = keys
    there = top.get(key)
    if there is not None and not isinstance(there, dict):
        raise NotMergedError(f"{key} is no mapping")
    _refuse_known(there or {}, more)
    expected = {**top, key: {**(there or {}), **more}}
    return _checked(_below(text, _child(root, key), key, block, filled=bool(there)), expected)


def _below(text: str, node: yaml.Node | None, key: str, block: Sequence[str], *, filled: bool) -> str:
    """The text with a block below a key: which may not be there, be there with nothing, or be filled."""
    if node is not None and filled:
        return _after(text, node, block)
    indented = [f"  {line}" if line else "" for line in block]
    return _at_end(text, [f"{key}:", *indented]) if node is None else _instead(text, node, indented)


def read_mapping(data: bytes) -> dict[Any, Any]:
    """What a YAML file says at its top; empty where it says nothing.

    Raises:
        NotMergedError: it cannot be read, or is no mapping.
    """
    return _top(_read(_text(data)))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise NotMergedError("it is no UTF-8") from error


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise NotMergedError(f"it is no YAML ({getattr(error, 'problem', None) or error}{where})") from error


def _node(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _top(value: Any) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NotMergedError("it is no mapping")
    return value


def _refuse_known(there: dict[Any, Any], more: dict[Any, Any]) -> None:
    if known := [str(key) for key in more if key in there]:
        raise NotMergedError(f"it has {', '.join(known)} already")


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _lines(text: str) -> list[str]:
    found = _LINE.findall(text)
    return [line for line in found if line]


def _line_end(text: str) -> str:
    return "\r\n" if re.match("[^\n]*\r\n", text) else "\n"


def _at_end(text: str, block: Sequence[str]) -> str:
    end = _line_end(text)
    before = text if not text or text.endswith("\n") else text + end
    space = end if before.strip() else ""
    return before + space + "".join(line + end for line in block)


def _after(text: str, node: yaml.Node, block: Sequence[str]) -> str:
    """The text with a block below the last line of a collection that is written in lines."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        raise NotMergedError("the list or mapping is written in one line")
    first = node.value[0][0] if isinstance(node, yaml.MappingNode) else node
    indent = " " * first.start_mark.column
    end, lines = _line_end(text), _lines(text)
    last = _last_line(node)
    if not lines[last].endswith(("\n", "\r")):
        lines[last] += end
    lines.insert(last + 1, "".join(f"{indent}{line}{end}" if line else end for line in block))
    return "".join(lines)


def _instead(text: str, node: yaml.Node, block: Sequence[str]) -> str:
    """The text with a block in the place of an empty list or mapping."""
    end = _line_end(text)
    start, stop = node.start_mark.index, node.end_mark.index
    rest, newline, after = text[stop:].partition("\n")
    before = text[:start].rstrip(" ")
    return f"{before}{rest.rstrip(chr(13))}{end}{''.join(line + end for line in block)}{after if newline else ''}"


def _last_line(node: yaml.Node) -> int:
    """The last line, from 0, in which something of a node stands; what follows it are comments and empty lines."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        if isinstance(last, tuple):
            return max(int(last[0].start_mark.line), _last_line(last[1]))
        return _last_line(last)
    end = node.end_mark
    line: int = end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line
    return line


def _checked(after: str, expected: Any) -> bytes:
    try:
        same = _read(after) == expected
    except NotMergedError:
        same = False
    if not same:
        raise NotMergedError("it is written so that nothing can be added without changing the rest")
    return after.encode()
