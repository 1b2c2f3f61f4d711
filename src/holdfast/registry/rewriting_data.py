"""Paths in YAML, JSON, TOML and INI: only the characters of a value change; what the file says is compared after."""

import configparser
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from holdfast.inventory.code_rewrite import Edit, apply_edits
from holdfast.nesting import check_nesting
from holdfast.registry.rewriting_found import Found, Place, Trouble, replaced
from holdfast.registry.rewriting_literals import (
    Literal,
    backslash_encoder,
    doubled,
    escaped,
    json_encoder,
    plain,
    strict_encoder,
)
from holdfast.registry.rewriting_paths import Moves, says_written

# each is a parse of the whole file
MAX_TRIALS = 200
PIPELINE_FILE = "dvc.yaml"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # with libyaml ten times faster
_PROPERTIES = re.compile(r"(?:[!&]\S*\s+)+")
_JSON_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\]:,]')
_COLON = re.compile(r"\s*:")
_TOML_TOKEN = re.compile(
    r'(?P<comment>\#[^\n]*)|(?P<quote>"""|\'\'\')|(?P<basic>"(?:[^"\\\n]|\\.)*")|(?P<literal>\'[^\'\n]*\')'
    r"|(?P<equals>=)|(?P<cut>[\n{\[,])"
)
_INI_KEY = re.compile(r"(?P<key>[^=:\s\[;#][^=:]*?)[ \t]*[=:][ \t]*")
_NO_SECTION = "holdfast: no section"

# a flat picture of what a file says: structure, keys, and values, in order
Picture = list[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string in a file.

    Args:
        literal: what it means and where it stands.
        keys: the two nearest keys above it, in each place where it stands.
        is_key: it is a key itself.
        why: why it cannot be rewritten; empty where it can.
    """

    literal: Literal
    keys: tuple[str, ...]
    is_key: bool = False
    why: str = ""


def find_in_data(place: Place, moves: Moves) -> Found:
    """The paths in a file whose name says that it is YAML, JSON, TOML or INI.

    What is rewritten is verified: the file, parsed again, says what it said before but for these values.
    """
    suffix = place.file.rpartition(".")[2].lower()
    scalars, picture = _FORMATS["ini" if suffix == "cfg" else "yaml" if suffix == "yml" else suffix]
    found = Found()
    try:
        check_nesting(place.text.encode(errors="surrogatepass"))
        before = picture(place.text)
        strings = list(scalars(place.text))
    except Exception as error:  # four parsers, each with its own errors; the file is left alone
        return Found(troubles=_unparsed(place, moves, f"the file cannot be parsed: {_first_line(error)}"))
    for scalar in strings:
        changes = moves.within(scalar.literal.value, place.folder)
        if changes and scalar.why:
            start, end = scalar.literal.starts[0], scalar.literal.starts[-1]
            found.troubles.append(Trouble(start, end, changes[0].target, scalar.why))
        elif changes:
            place.take(scalar.literal, changes, found, _hindrance(place, scalar))
    if not found.edits or _verified(place, found.all_edits, before, picture, moves):
        return found
    kept = []
    for index, group in enumerate(found.edits):  # one of them does what it should not; find out which
        if index < MAX_TRIALS and _verified(place, group, before, picture, moves):
            kept.append(group)
            continue
        target = next(iter(moves.moves)) if len(moves.moves) == 1 else _target(group[0].old, moves, place)
        found.troubles += [
            Trouble(edit.start, edit.start + len(edit.old), target, "the file would say something else with it")
            for edit in group
        ]
    found.edits = kept
    return found


def _hindrance(place: Place, scalar: Scalar) -> str:
    if place.file.rpartition("/")[2] == PIPELINE_FILE:
        return "the pipeline names it: what a stage reads or makes is changed by hand, and run again"
    if scalar.is_key:
        return "it is a key, not a value"
    written = next((key for key in scalar.keys if says_written(key)), None)
    return f"its key {written} says that it is written" if written is not None else ""


def _verified(
    place: Place, edits: Sequence[Edit], before: Picture, picture: Callable[[str], Picture], moves: Moves
) -> bool:
    try:
        after = picture(apply_edits(place.text, edits))
    except Exception:  # it cannot be parsed any more
        return False
    if len(after) != len(before):
        return False
    made = 0
    for old, new in zip(before, after, strict=True):
        if old == new:
            continue
        if old[:2] != new[:2] or old[0] != "value":
            return False
        changes = moves.within(old[2], place.folder)
        if new[2] != replaced(old[2], changes):
            return False
        made += sum(not change.why for change in changes)
    return made == len(edits)


def _target(old: str, moves: Moves, place: Place) -> str:
    return next((change.target for change in moves.within(old, place.folder)), min(moves.moves))


def _unparsed(place: Place, moves: Moves, why: str) -> list[Trouble]:
    result, start = [], 0
    for line in place.text.split("\n"):
        if any(name in line for name in moves.names):
            result += [
                Trouble(start + change.start, start + change.end, change.target, why)
                for change in moves.within(line, place.folder)
            ]
        start += len(line) + 1
    return result


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    text = getattr(error, "problem", None) or str(error) or type(error).__name__
    return f"{text.splitlines()[0]} (line {mark.line + 1})" if mark else text.splitlines()[0]


# YAML


def _yaml_scalars(text: str) -> Iterator[Scalar]:
    for document in yaml.compose_all(text, Loader=_Loader):
        again: dict[int, tuple[str, ...]] = {}
        for node, keys, is_key in list(_yaml_nodes(document, again)):
            if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null":
                yield _yaml_scalar(text, node, (*keys[-2:], *again.get(id(node), ())), is_key)


def _yaml_nodes(document: Any, again: dict[int, tuple[str, ...]]) -> Iterator[tuple[Any, tuple[str, ...], bool]]:
    """Every node once, in order, with the keys above it; ``again`` takes those where an alias repeats it."""
    seen: set[int] = set()
    stack: list[tuple[Any, tuple[str, ...], bool]] = [(document, (), False)]
    while stack:
        node, keys, is_key = stack.pop()
        if node is None or id(node) in seen:
            again[id(node)] = (*again.get(id(node), ()), *keys[-2:])
            continue
        seen.add(id(node))
        yield node, keys, is_key
        below: list[tuple[Any, tuple[str, ...], bool]] = []
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = (key.value,) if isinstance(key, yaml.ScalarNode) else ()
                below += [(key, keys, True), (value, keys + name, False)]
        elif isinstance(node, yaml.SequenceNode):
            below = [(item, keys, is_key) for item in node.value]
        stack += reversed(below)


def _yaml_scalar(text: str, node: Any, keys: tuple[str, ...], is_key: bool) -> Scalar:
    start, end = node.start_mark.index, node.end_mark.index
    found = _PROPERTIES.match(text, start, end)
    start = found.end() if found else start
    body = text[start:end]
    if node.style in ("|", ">"):
        first = text.find("\n", start, end) + 1 or end
        return Scalar(plain(text, first, end, strict_encoder("a block of text", "")), keys, is_key)
    if node.style in ('"', "'"):
        inner = text[start + 1 : end - 1]
        if len(body) < 2 or {body[0], body[-1]} != {node.style}:
            return _unclear(node, start, end, keys, is_key)
        if "\n" in inner or "\r" in inner:
            escapes = "\\" if node.style == '"' else "''"
            if escapes in inner:
                return _unclear(node, start, end, keys, is_key)
            return Scalar(plain(text, start + 1, end - 1, strict_encoder("the string", "\\\"'")), keys, is_key)
        if node.style == '"':
            literal = escaped(text, start + 1, end - 1, "yaml", backslash_encoder('"'))
        else:
            literal = doubled(text, start + 1, end - 1, strict_encoder("the string", ""))
        return (
            Scalar(literal, keys, is_key) if literal.value == node.value else _unclear(node, start, end, keys, is_key)
        )
    if "\n" not in body and body != node.value:
        return _unclear(node, start, end, keys, is_key)
    return Scalar(plain(text, start, end, strict_encoder("a value without quotes", "")), keys, is_key)


def _unclear(node: Any, start: int, end: int, keys: tuple[str, ...], is_key: bool) -> Scalar:
    why = "the value is written in a way that is not rewritten"
    # its characters are not told apart in the source
    starts = (*(start for _ in node.value), end)
    return Scalar(Literal(node.value, starts, strict_encoder("the string", "")), keys, is_key, why)


def _yaml_picture(text: str) -> Picture:
    picture: Picture = []
    for document in yaml.compose_all(text, Loader=_Loader):
        picture.append(("document", "", ""))
        for node, keys, is_key in _yaml_nodes(document, {}):
            kind = "key" if is_key else "value"
            if isinstance(node, yaml.ScalarNode):
                picture.append((kind, f"{node.tag} {len(keys)}", node.value))
            else:
                picture.append(("node", f"{node.tag} {len(keys)}", str(len(node.value))))
    return picture


# JSON


def _json_scalars(text: str) -> Iterator[Scalar]:
    # the key of each object or list that is open, and the last one in it
    keys: list[str] = [""]
    for found in _JSON_TOKEN.finditer(text):
        token = found[0]
        if token in "{[":
            keys.append("")
        elif token in "}]":
            keys.pop()
        elif token.startswith('"'):
            literal = escaped(text, found.start() + 1, found.end() - 1, "json", json_encoder(token))
            is_key = _COLON.match(text, found.end()) is not None
            if is_key:
                keys[-1] = literal.value
            yield Scalar(literal, tuple(key for key in keys if key)[-2:], is_key)


def _json_picture(text: str) -> Picture:
    return _picture(json.loads(text, object_pairs_hook=_Pairs))


class _Pairs(list[tuple[str, Any]]):
    """An object's keys and values in order, those that come twice among them."""


def _picture(value: Any) -> Picture:
    picture: Picture = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Pairs):
            picture.append(("keys", str(len(item)), json.dumps([key for key, _ in item])))
            stack += [inner for _, inner in reversed(item)]
        elif isinstance(item, list):
            picture.append(("list", str(len(item)), ""))
            stack += reversed(item)
        elif isinstance(item, str):
            picture.append(("value", "str", item))
        else:
            picture.append(("other", type(item).__name__, repr(item)))
    return picture


# TOML


def _toml_scalars(text: str) -> Iterator[Scalar]:
    place, key, cut = 0, "", 0
    while (found := _TOML_TOKEN.search(text, place)) is not None:
        place = found.end()
        if found["cut"]:
            cut = place
        elif found["equals"]:
            key = text[cut : found.start()].strip().strip("\"'")
        elif found["comment"]:
            continue
        elif quote := found["quote"]:
            start = place
            place = _toml_end(text, start, quote)
            yield _toml_string(text, start, place - 3, quote, key)
        else:
            is_key = re.compile(r"[ \t]*[.=\]]").match(text, place) is not None
            string = _toml_string(text, found.start() + 1, place - 1, found[0][0], key)
            # `]` ends a table's header and a list alike: what is compared after tells them apart
            yield Scalar(string.literal, string.keys, is_key and text[place:].lstrip(" \t")[:1] in (".", "="))


def _toml_end(text: str, start: int, quote: str) -> int:
    place = start
    while not text.startswith(quote, place):
        place += 2 if text[place : place + 1] == "\\" and quote == '"""' else 1
        if place > len(text):
            raise ValueError("a string has no end")
    place += 3
    while text.startswith(quote[0], place):  # up to two quotes may stand before those that end it
        place += 1
    return place


def _toml_string(text: str, start: int, end: int, quote: str, key: str) -> Scalar:
    if quote[0] == "'":
        return Scalar(plain(text, start, end, strict_encoder("a string in '…'", "'")), (key,))
    return Scalar(escaped(text, start, end, "toml", backslash_encoder('"')), (key,))


def _toml_picture(text: str) -> Picture:
    def pairs(value: Any) -> Any:
        if isinstance(value, dict):
            return _Pairs((str(key), pairs(item)) for key, item in value.items())
        return [pairs(item) for item in value] if isinstance(value, list) else value

    return _picture(pairs(_parse_toml(text)))


def _parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # imported here: Python 3.10 has none

        return tomllib.loads(text)
    import tomlkit  # imported here: 30 ms that a project without TOML need not pay

    return tomlkit.parse(text).unwrap()


# INI


def _ini_scalars(text: str) -> Iterator[Scalar]:
    key, start = "", 0
    for line in re.split(r"(?<=\n)", text):
        end = start + len(line.rstrip("\r\n"))
        bare = line.strip()
        if bare and bare[0] not in "#;":
            found = None if line[0] in " \t" else _INI_KEY.match(text, start, end)
            first = found.end() if found else start
            key = found["key"].strip() if found else key
            if found or line[0] in " \t":
                while first < end and text[first] in " \t":
                    first += 1
                # `%` and `$` begin what is put in
                yield Scalar(plain(text, first, end, strict_encoder("the value", "%$\"'")), (key,))
        start += len(line)


class _IniParser(configparser.RawConfigParser):
    """Names keep their case."""

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _ini_picture(text: str) -> Picture:
    # [DEFAULT] is a section like others: its values would stand in each of them
    parser = _IniParser(allow_no_value=True, interpolation=None, default_section=_NO_SECTION)
    try:
        parser.read_string(text)
    except configparser.MissingSectionHeaderError:
        parser.read_string(f"[main]\n{text}")
    picture: Picture = []
    for section in parser:
        picture.append(("section", "", section))
        for name, value in parser.items(section):
            picture += [("key", "", name), ("value" if value is not None else "other", "str", value or "")]
    return picture


_FORMATS: dict[str, tuple[Callable[[str], Iterator[Scalar]], Callable[[str], Picture]]] = {
    "yaml": (_yaml_scalars, _yaml_picture),
    "json": (_json_scalars, _json_picture),
    "toml": (_toml_scalars, _toml_picture),
    "ini": (_ini_scalars, _ini_picture),
}
