"""YAML as people and DVC write it: scalars stay strings, and a key that comes twice is an error."""

import re
from typing import Any

import yaml

from holdfast.nesting import TooDeepError, check_nesting


class UnreadableYamlError(ValueError):
    """The bytes are no YAML document; the message says why and in which line."""


class _Loader(yaml.CSafeLoader):
    """YAML with scalars as strings, but for null and the two booleans; a key that comes twice is an error.

    An md5 of digits alone is a string and nothing else, and a merge that kept both sides must not hide one.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, unless a key comes twice."""
        merged = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
        result: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(result) != len(node.value) and not merged:
            raise UnreadableYamlError("a key comes twice")
        return result


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def read_yaml(data: bytes) -> Any:
    """The document in ``data``; scalars are strings, booleans or None.

    Raises:
        UnreadableYamlError: it is no YAML, or a key comes twice.
    """
    try:
        check_nesting(data)
        return yaml.load(data, Loader=_Loader)
    except TooDeepError as error:
        raise UnreadableYamlError(str(error)) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        if re.search(rb"^<{7} ", data, re.MULTILINE):
            raise UnreadableYamlError("it has merge conflict markers") from error
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        raise UnreadableYamlError(f"{problem}{f' in line {mark.line + 1}' if mark else ''}") from error
