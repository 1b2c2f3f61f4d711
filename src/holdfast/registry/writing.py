"""The text of the registry's files: new ones, and edits of ``model.yaml`` that leave alone all else in it."""

import codecs
import io
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from holdfast.registry.document import SCHEMA, EntryError, read_canonical, read_yaml
from holdfast.registry.entries import Deprecation, Version

_BLOCK = re.compile(r"(?:[ -].*)?")
_COMMENTED = re.compile(r"(?P<value>[^#'\"]*?)(?P<comment>\s+#.*)")


def dump_version(version: Version) -> str:
    """The text of a version's file.

    Raises:
        EntryError: it holds what the registry cannot keep.
    """
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "path": version.path,
        "oid": _Quoted(version.oid),
        "size": version.size,
        "weights": _Quoted(version.weights),
        "date": _Quoted(version.date),
    }
    if version.weights_file is not None:
        fields["weights_file"] = version.weights_file
    fields["source"] = {key: _Quoted(value) if key == "rev" else value for key, value in version.source.items()}
    fields["params"] = dict(version.params)
    fields["metrics"] = dict(version.metrics)
    if version.gate:
        fields["gate"] = dict(version.gate)
    if version.overridden is not None:
        fields["overridden"] = version.overridden
    return _dump(fields)


def dump_model(description: str, current: str | None) -> str:
    """The text of a new model's file."""
    return _dump({"schema": SCHEMA, "description": description, "current": current, "aliases": {}})


def plain_deprecations(deprecations: Mapping[str, Deprecation]) -> dict[str, Any]:
    """Deprecations as ``model.yaml`` has them."""
    return {
        name: item.reason if item.date is None else {"reason": item.reason, "date": _Quoted(item.date)}
        for name, item in deprecations.items()
    }


def edit_fields(content: bytes, changes: Mapping[str, Any], file: str) -> bytes:
    """``model.yaml`` with some of its top-level fields set; comments, order, quotes, line ends and marks stay.

    Args:
        content: the file.
        changes: the new value of each field; those that are not there yet come last.
        file: what to call the file in errors.

    Raises:
        EntryError: the file cannot be edited, or a value cannot be kept.
    """
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    newline = "\r\n" if b"\r\n" in content else "\n"
    try:
        text = content[len(mark) :].decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise EntryError(f"{file}: no UTF-8: {error.reason}") from error
    wanted = {**_values(text, file), **{key: _unquoted(value) for key, value in changes.items()}}
    edited = text
    for key, value in changes.items():
        edited = _edit_lines(edited, key, value)
    # read back: whatever the lines looked like, the file must say what is meant, and nothing else
    try:
        same = _values(edited, file) == wanted
    except EntryError:
        same = False
    if not same:
        edited = _edit_tree(text, changes, file)
        if _values(edited, file) != wanted:
            raise EntryError(f"{file} cannot be edited", hint="Set it by hand: " + ", ".join(changes))
    return mark + edited.replace("\n", newline).encode()


def _values(text: str, file: str) -> dict[str, Any]:
    canonical = read_canonical(text)
    return read_yaml(text, file) if canonical is None else canonical


def _edit_lines(text: str, key: str, value: Any) -> str:
    """Replace a field's lines, or add them; a comment behind a value on one line stays."""
    lines = text.splitlines(keepends=True)
    new = _dump({key: value}).splitlines(keepends=True)
    start = next((place for place, line in enumerate(lines) if line.startswith(f"{key}:")), None)
    if start is None:
        gap = [] if not lines or lines[-1].endswith("\n") else ["\n"]
        return "".join([*lines, *gap, *new])
    end = start + 1
    while end < len(lines) and lines[end].strip() and _BLOCK.fullmatch(lines[end].rstrip("\n")):
        end += 1
    if any("#" in line for line in lines[start + 1 : end]) or re.search(r":\s*[\[{].", lines[start].replace("{}", "")):
        return text  # a comment among the lines, or a list or mapping on one line: people laid it out so
    if end == start + 1 and len(new) == 1 and (match := _COMMENTED.fullmatch(lines[start].rstrip("\n"))):
        new = [f"{new[0].rstrip()}{match['comment']}\n"]
    return "".join([*lines[:start], *new, *lines[end:]])


def _edit_tree(text: str, changes: Mapping[str, Any], file: str) -> str:
    # imported here: 25 ms for files that people have laid out in their own way alone
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()  # round trip: keeps comments, order and quotes
    yaml.preserve_quotes = True
    yaml.width = 1000
    stream = io.BytesIO()
    try:
        document = yaml.load(text)
        for key, value in changes.items():
            old = document.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                for name in [name for name in old if name not in value]:
                    del old[name]
                for name, item in value.items():
                    if old.get(name) != item:
                        old[name] = _unquoted(item)
            else:
                document[key] = _unquoted(value)
        yaml.dump(document, stream)
    except (YAMLError, TypeError, AttributeError) as error:
        raise EntryError(f"{file} cannot be edited: {' '.join(str(error).split())}") from error
    return stream.getvalue().decode()


class _Quoted(str):
    """Text that YAML must not mistake for a number or a date."""


def quoted(text: str) -> str:
    """Text that is written with quotes, for digests, oids, revisions and dates."""
    return _Quoted(text)


def _unquoted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unquoted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_unquoted(item) for item in value]
    return str(value) if isinstance(value, str) else value


@cache
def _dumper() -> Any:
    import yaml  # 15 ms that reading need not pay

    class Dumper(yaml.SafeDumper):
        """Keeps the order of keys, quotes what must be quoted, and writes no anchors."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
            """A value that stands in two places is written twice: people edit these files."""
            return True

    Dumper.add_representer(
        _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
    )
    return Dumper


def _dump(values: Mapping[str, Any]) -> str:
    import yaml  # see _dumper

    try:
        text: str = yaml.dump(dict(values), Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=1000)
    except yaml.YAMLError as error:
        raise EntryError(f"the registry keeps numbers, text, lists and mappings: {error}") from error
    return text
