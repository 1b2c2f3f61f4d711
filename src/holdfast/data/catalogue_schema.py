"""The JSON Schemas of the catalogue's files, and a reader of YAML that holds it against them, line by line.

What the schemas say is what is enforced. The keywords that are used here are the ones that `check` knows:
``type``, ``properties``, ``required``, ``additionalProperties``, ``pattern``, ``minLength``, ``maxLength``, ``enum``,
``const``, ``minimum`` and ``items``. A number stands for a text where a schema allows both: the version 5.0 is "5.0".
"""

import datetime as dt
import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from holdfast.data.catalogue import FIELDS, IGNORED, REQUIRED, SCHEMA

DRAFT = "https://json-schema.org/draft/2020-12/schema"
UPDATES = ("never", "continuous", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly", "irregular")
DOMAIN_PATTERN = "^[a-z0-9][a-z0-9_-]*$"
# a folder in the bucket or a path: relative, with no empty or dotted part and no control character
PATH_PATTERN = r"^(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+(/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f]+)*/?$"

_CHECKSUM = "^(md5:[0-9a-f]{32}(\\.dir)?|sha256:[0-9a-f]{64}|blake3:[0-9a-f]{64})$"

SOURCE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._+-]*$",
            "maxLength": 128,
            "description": "Names the source within the whole catalogue: letters, digits and . _ + -",
        },
        "title": {"type": "string", "minLength": 1, "description": "What people call it"},
        "url": {
            "type": "string",
            # with the user's name or a secret in it, it would be published with the repository
            "pattern": r"^(?![^/]*//[^/]*@)[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1f\x7f]+$",
            "description": "Where it was published: a URL without credentials, or doi:…",
        },
        "origin": {"type": "string", "minLength": 1, "description": "Where it comes from, where there is no URL"},
        "licence": {"type": "string", "minLength": 1, "description": "An SPDX identifier such as CC-BY-4.0, or words"},
        "version": {"type": ["string", "number"], "minLength": 1, "description": "Its publisher's version"},
        "updates": {"type": "string", "enum": list(UPDATES), "description": "How often it changes"},
        "prefix": {
            "type": "string",
            "pattern": PATH_PATTERN,
            "maxLength": 900,
            "description": "Its folder in the bucket, such as climate/era5/",
        },
        "dvc": {
            "type": "string",
            "pattern": PATH_PATTERN,
            "description": "The path that DVC tracks it at, from the catalogue's folder",
        },
        "checksum": {
            "type": "string",
            "pattern": _CHECKSUM,
            "description": "md5:… or sha256:… or blake3:… of its one file, or md5:….dir of a folder, as DVC has it",
        },
        "size": {"type": "integer", "minimum": 0, "description": "Bytes in all"},
        "files": {"type": "integer", "minimum": 0, "description": "How many files"},
        "annotations": {"type": "object", "description": "Whatever else there is to say"},
    },
}

DOMAIN_SCHEMA: dict[str, Any] = {
    "$schema": DRAFT,
    "title": "Sources of a domain (sources/<domain>.yaml)",
    "type": "object",
    "required": ["sources"],
    "additionalProperties": False,
    "properties": {
        "description": {"type": "string", "minLength": 1},
        "sources": {"type": ["array", "null"], "items": SOURCE_SCHEMA},
    },
}

INDEX_SCHEMA: dict[str, Any] = {
    "$schema": DRAFT,
    "title": "Index of the catalogue of data sources (sources.yaml)",
    "type": "object",
    "required": ["schema"],
    "additionalProperties": False,
    "properties": {
        "schema": {"type": "integer", "const": SCHEMA},
        "bucket": {
            "type": "string",
            "minLength": 1,
            "description": "The store in which the prefixes lie: s3://…, r2://…, gs://…, az://… or a folder",
        },
        "domains": {"type": ["array", "null"], "items": {"type": "string", "pattern": DOMAIN_PATTERN}},
        "require": {
            "type": "array",
            "items": {"type": "string", "enum": [name for name in FIELDS if name != "name"]},
            "description": f"What every source should say (default: {', '.join(REQUIRED)})",
        },
        "ignore": {
            "type": "array",
            "items": {"type": "string", "pattern": PATH_PATTERN},
            "description": f"Folders of the bucket that hold no sources (default: {', '.join(IGNORED)})",
        },
        "layout": {
            "type": "string",
            "enum": ["domain", "free"],
            "description": "domain (the default): a source's prefix begins with its domain",
        },
    },
}

MAX_VALUES = 10_000  # of one annotation
MAX_DEPTH = 20
# the key under which `check` hands on the lines of a mapping's keys: no field can have it
LINES = ""

_NOUNS = {
    "string": "a text", "integer": "a whole number", "number": "a number", "array": "a list", "object": "a mapping",
    "boolean": "true or false", "null": "empty",
}  # fmt: skip
Report = Callable[[int, str, str], None]
_PATTERNS: dict[str, re.Pattern[str]] = {}
_RESOLVER = yaml.SafeLoader("")


def check(node: yaml.Node, schema: Mapping[str, Any], where: str, report: Report) -> Any:
    """The value of a YAML node; what is not as the schema has it is told, and left out of the value.

    Args:
        node: as PyYAML composed it.
        schema: with the keywords that the module names.
        where: what to call the node.
        report: told of line, fault and hint.

    Returns:
        What JSON knows: text, number, boolean, None, list, dict; None also for what is wrong.
    """
    line = node.start_mark.line + 1
    types = schema.get("type", ())
    types = [types] if isinstance(types, str) else types
    if isinstance(node, yaml.MappingNode):
        if "object" in types:
            return _mapping(node, schema, where, report)
    elif isinstance(node, yaml.SequenceNode):
        if "array" in types:
            items = [
                check(item, schema["items"], f"{where}[{index}]", report)
                for index, item in enumerate(node.value, start=1)
            ]
            return [item for item in items if item is not None]
    else:
        return _scalar(node, schema, types, where, line, report)
    found = "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
    report(line, f"{where} is {found}, and must be {_nouns(types)}", _described(schema))
    return None


def plain_value(node: yaml.Node) -> Any:
    """What a node says, as JSON knows it: a date is its text.

    Raises:
        ValueError: it nests too deeply, or holds too much: aliases can make a few lines into billions.
    """
    return _plain(node, [MAX_VALUES], MAX_DEPTH)


def _plain(node: yaml.Node, left: list[int], depth: int) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"holds more than {MAX_VALUES:,} values")
    if depth < 0:
        raise ValueError(f"nests deeper than {MAX_DEPTH} levels")
    if isinstance(node, yaml.MappingNode):
        return {str(getattr(key, "value", "")): _plain(value, left, depth - 1) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, left, depth - 1) for item in node.value]
    try:
        value = _RESOLVER.construct_object(node)
    except (yaml.YAMLError, ValueError):
        return str(node.value)
    if isinstance(value, bytes | dt.date) or (isinstance(value, float) and not math.isfinite(value)):
        return str(node.value)
    return value


def _mapping(node: yaml.MappingNode, schema: Mapping[str, Any], where: str, report: Report) -> dict[str, Any]:
    properties: Mapping[str, Any] | None = schema.get("properties")
    result: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            report(line, f"{where} has a key that is no text", "")
            continue
        name = key.value
        if name in lines:
            report(line, f"{_below(where, name)} is there twice, first in line {lines[name]}", "Leave one of the two")
            continue
        lines[name] = line
        if properties is None:
            try:
                result[name] = plain_value(value)
            except ValueError as error:
                report(line, f"{_below(where, name)} {error}", "Keep large things in a file of their own")
        elif name in properties:
            found = check(value, properties[name], _below(where, name), report)
            if found is not None:
                result[name] = found
        else:
            near = difflib.get_close_matches(name, properties, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(properties)}"
            if not near and "annotations" in properties:
                hint += ". What is of your own goes below annotations"
            report(line, f"{_below(where, name)} is no field", hint)
    for name in schema.get("required", ()):
        if name not in lines:
            report(node.start_mark.line + 1, f"{_below(where, name)} is missing", _described((properties or {})[name]))
    if properties is not None:
        result[LINES] = lines
    return result


def _scalar(node: yaml.Node, schema: Mapping[str, Any], types: list[str], where: str, line: int, report: Report) -> Any:
    tag, text = node.tag.rpartition(":")[2], str(node.value)

    def wrong(problem: str) -> None:
        near = difflib.get_close_matches(text, schema.get("enum", ()), 1)
        report(line, f"{where} {problem}", f"Did you mean {near[0]}?" if near else _described(schema))

    if tag == "null":
        if "null" not in types:
            wrong(f"is empty, and must be {_nouns(types)}")
        return None
    if "string" in types and (tag in ("str", "timestamp") or (tag in ("int", "float") and "number" in types)):
        return text if _fits(text, schema, wrong) else None
    if "integer" in types and tag == "int":
        value = plain_value(node)
        if "const" in schema and value != schema["const"]:
            wrong(f"is {value}, and must be {schema['const']}")
        elif value < schema.get("minimum", value):
            wrong(f"is {value}, and must be at least {schema['minimum']}")
        else:
            return value
        return None
    quoted = " in quotes" if "string" in types and tag in ("int", "float", "bool") else ""
    wrong(f"is {text!r}, and must be {_nouns(types)}{quoted}")
    return None


def _fits(text: str, schema: Mapping[str, Any], wrong: Callable[[str], None]) -> bool:
    if len(text) < schema.get("minLength", 0):
        wrong("is empty, and must be a text")
    elif len(text) > schema.get("maxLength", len(text)):
        wrong(f"is longer than {schema['maxLength']} characters")
    elif "enum" in schema and text not in schema["enum"]:
        wrong(f"is {text!r}, and may be {', '.join(schema['enum'])}")
    elif "pattern" in schema and not _pattern(schema["pattern"]).search(text):
        wrong(f"is {text!r}, which is not its form")
    else:
        return True
    return False


def _pattern(text: str) -> re.Pattern[str]:
    found = _PATTERNS.get(text)
    if found is None:
        # in JSON Schema a $ is the end of the text, in Python also the place before a last line end
        found = _PATTERNS[text] = re.compile(f"{text[:-1]}\\Z" if text.endswith("$") else text)
    return found


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _nouns(types: Any) -> str:
    return " or ".join(_NOUNS[kind] for kind in types if kind != "null")


def _described(schema: Mapping[str, Any]) -> str:
    return str(schema.get("description", ""))
