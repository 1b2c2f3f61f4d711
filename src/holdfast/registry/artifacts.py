"""``artifacts:`` in ``dvc.yaml``: where DVC, GTO and what is built on them look for a model's file.

Only the lines of ``artifacts:`` are written; the rest of the file, which a stage may have made, stays byte for byte.
"""

import codecs
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from holdfast.errors import IntegrityError
from holdfast.repo.dvcfiles import UnreadableFileError, load_yaml

FIELD = "artifacts"
MODEL_TYPE = "model"

_FIRST_ENTRY = re.compile(r"^(?P<indent> +)[^ #\n]", re.MULTILINE)
_FIRST_ITEM = re.compile(r"^(?P<key> *)[^ #\n-].*:\s*\n(?P<item> *)- ", re.MULTILINE)


class ArtifactsError(IntegrityError):
    """``dvc.yaml`` is broken, or laid out so that its artifacts cannot be edited."""


@dataclass(frozen=True)
class Artifact:
    """What ``dvc.yaml`` says of one artifact.

    Attributes:
        path: the file or folder, from the folder of ``dvc.yaml``.
        type: what it is, ``model`` for ours; empty where the file does not say.
        desc: one line for people; empty where there is none.
    """

    path: str
    type: str = ""
    desc: str = ""

    def says(self, wanted: "Artifact") -> bool:
        """Whether nothing of what is wanted is missing; a type that people chose stays."""
        return self.path == wanted.path and bool(self.type) and wanted.desc in ("", self.desc)


def read_artifacts(content: bytes, file: str) -> dict[str, Artifact]:
    """The artifacts of a ``dvc.yaml``, by their names; none where it has none.

    Args:
        content: the file.
        file: what to call it in errors.

    Raises:
        ArtifactsError: it is no such file.
    """
    entries = _top(content, file).get(FIELD) or {}
    if not isinstance(entries, dict) or not all(isinstance(item, dict) and "path" in item for item in entries.values()):
        raise ArtifactsError(f"{file}: artifacts should be names, each with a path", hint="Mend it by hand")
    return {
        str(name): Artifact(str(item["path"]), str(item.get("type") or ""), str(item.get("desc") or ""))
        for name, item in entries.items()
    }


def set_artifacts(content: bytes, wanted: Mapping[str, Artifact], file: str) -> bytes:
    """A ``dvc.yaml`` in which artifacts say what is wanted; others, their comments and all else stay.

    Of an artifact that is there its path is set, its description where one is wanted, and a type where it has none.

    Args:
        content: the file; empty for a new one.
        wanted: artifacts by their names.
        file: what to call it in errors.

    Raises:
        ArtifactsError: it is no such file, or its artifacts share anchors with the rest, or it is one line in braces.
    """
    known = read_artifacts(content, file)
    changes = {name: item for name, item in wanted.items() if name not in known or not known[name].says(item)}
    if not changes:
        return content
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""
    newline = "\r\n" if b"\r\n" in content else "\n"
    text = content[len(mark) :].decode().replace("\r\n", "\n")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    start, end = _span(text, lines, file)
    block = _edited("".join(lines[start:end]), changes, file)
    edited = mark + "".join([*lines[:start], block, *lines[end:]]).replace("\n", newline).encode()
    # read back: whatever the lines looked like, the file must say what is meant, and nothing else
    if _top(edited, file) != _expected(_top(content, file), changes):
        raise ArtifactsError(f"the artifacts of {file} cannot be edited", hint=_by_hand(changes))
    return edited


def _top(content: bytes, file: str) -> dict[str, Any]:
    try:
        found = load_yaml(content)
    except UnreadableFileError as error:
        raise ArtifactsError(f"{file} cannot be read: {error}", hint="Mend it by hand") from error
    if found is not None and not isinstance(found, dict):
        raise ArtifactsError(f"{file} holds a {type(found).__name__} where a mapping belongs", hint="Mend it by hand")
    return found or {}


def _span(text: str, lines: list[str], file: str) -> tuple[int, int]:
    """The lines of ``artifacts:``, from the first to the one behind the last; where they would be if it has none."""
    root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if root is None:
        return len(lines), len(lines)
    if not isinstance(root, yaml.MappingNode) or root.flow_style or root.start_mark.column:
        hint = "Write a key a line, from column 1"
        raise ArtifactsError(f"{file} is laid out so that it cannot be edited", hint=hint)
    keys = [key for key, _ in root.value]
    place = next((number for number, key in enumerate(keys) if key.value == FIELD), None)
    # the end of a document that is marked as such is the end of what can be added to it
    last = next((number for number, line in enumerate(lines) if line.rstrip() == "..."), len(lines))
    if place is None:
        return last, last
    start = keys[place].start_mark.line
    end = keys[place + 1].start_mark.line if place + 1 < len(keys) else last
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1  # what stands before the next key, or at the end of the file, belongs there
    return start, end


def _edited(block: str, changes: Mapping[str, Artifact], file: str) -> str:
    # imported here: 25 ms that reading need not pay
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    editor = YAML()  # round trip: keeps comments, order and quotes
    editor.preserve_quotes = True
    editor.width = 1000
    stream = io.StringIO()
    try:
        document = editor.load(block) or {}
        if document.get(FIELD):
            editor.indent(**_indents(block))
        else:
            document = {FIELD: {}}
        for name, item in changes.items():
            entry = document[FIELD].setdefault(name, {})
            entry["path"] = item.path
            if not entry.get("type"):
                entry["type"] = item.type
            if item.desc:
                entry["desc"] = item.desc
        editor.dump(document, stream)
    except (YAMLError, TypeError, AttributeError) as error:
        told = " ".join(str(error).split())
        raise ArtifactsError(f"the artifacts of {file} cannot be edited: {told}", hint=_by_hand(changes)) from error
    return stream.getvalue()


def _indents(block: str) -> dict[str, int]:
    """How deep the block's mappings and lists are indented, as ruamel.yaml names that."""
    mapping = _FIRST_ENTRY.search(block)
    listed = _FIRST_ITEM.search(block)
    offset = max(0, len(listed["item"]) - len(listed["key"])) if listed is not None else 2
    return {"mapping": len(mapping["indent"]) if mapping is not None else 2, "sequence": offset + 2, "offset": offset}


def _expected(before: dict[str, Any], changes: Mapping[str, Artifact]) -> dict[str, Any]:
    entries = dict(before.get(FIELD) or {})
    for name, item in changes.items():
        entry = dict(entries.get(name) or {})
        entry["path"] = item.path
        entry["type"] = entry.get("type") or item.type
        if item.desc:
            entry["desc"] = item.desc
        entries[name] = entry
    return {**before, FIELD: entries}


def _by_hand(changes: Mapping[str, Artifact]) -> str:
    return "Set by hand: " + "; ".join(f"{name}: path {item.path}" for name, item in changes.items())
