"""Changes the catalogue's files: the lines of one entry at a time, so that all others stay as people wrote them.

A new entry goes where its name belongs among the others. A changed one is edited in place, with its comments. What was
written is read again before it takes the file's place: nothing but what was meant may have changed.
"""

import fcntl
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from holdfast.atomic import write_atomically
from holdfast.data.catalogue import FIELDS, FOLDER, INDEX_FILE, SCHEMA, Catalogue, CatalogueError, Problem, Source
from holdfast.data.catalogue_reading import compose, read_catalogue, read_domain
from holdfast.errors import LockedError

INDEX_COMMENT = (
    "# The catalogue of data sources: a file a domain in sources/.\n"
    "# `holdfast sources verify` says what is wrong in it.\n"
)
_RESOLVER: Any = yaml.SafeLoader("")
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Change:
    """What is to become of an entry.

    Attributes:
        source: as it is to be.
        before: as it is; None for a new one.
    """

    source: Source
    before: Source | None = None


@contextmanager
def changing(root: Path) -> Iterator[None]:
    """Keep other commands from changing the catalogue in a folder meanwhile.

    Raises:
        LockedError: another one does.
    """
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    # the folder itself is locked: a file for it would have to be ignored by git
    descriptor = os.open(root / FOLDER, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LockedError(f"another command changes {root / FOLDER}", hint="Wait for it to end") from error
        yield
    finally:
        os.close(descriptor)


def open_catalogue(root: Path, bucket: str = "") -> Catalogue:
    """The catalogue in a folder to be changed; one without domains where there is none yet.

    Raises:
        CatalogueError: it cannot be read.
    """
    if (root / INDEX_FILE).exists():
        return read_catalogue(root).refuse_problems()
    return Catalogue(root, bucket)


def write_changes(catalogue: Catalogue, changes: Sequence[Change], *, bucket: str = "") -> list[str]:
    """Write entries into their domains' files, and new domains into the index; within `changing`.

    Args:
        catalogue: as it was read just now.
        changes: of entries; no two of one entry.
        bucket: what the index is to name where it names none.

    Returns:
        The files that changed, from the catalogue's folder.

    Raises:
        CatalogueError: a file is written in a form that cannot be edited; nothing is changed in it.
        OSError: a file cannot be written.
    """
    by_domain: dict[str, list[Change]] = {}
    for change in changes:
        by_domain.setdefault(change.source.domain, []).append(change)
    edited: dict[str, bytes] = {}
    for domain, own in sorted(by_domain.items()):
        file = catalogue.file_of(domain)
        path = catalogue.root / file
        text = path.read_bytes().decode() if path.exists() else "sources:\n"
        data = _edited(text, file, own).encode()
        _check_edited(data, file, domain, [source for source in catalogue.sources if source.domain == domain], own)
        edited[file] = data
    for file, data in edited.items():
        write_atomically(catalogue.root / file, data)
    written = list(edited)
    # the index comes last: a file that it does not name yet is told, one that it names and is not there is an error
    if _write_index(catalogue, sorted(by_domain), bucket):
        written.append(INDEX_FILE)
    return written


def entry_text(source: Source) -> str:
    """An entry as new ones are written."""
    text: str = yaml.dump(
        [source.fields()], Dumper=_DUMPER, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**20
    )
    return text


def _edited(text: str, file: str, changes: Sequence[Change]) -> str:
    """The text of a domain's file with changes in it."""
    problems: list[Problem] = []
    node = compose(text.encode(), file, problems)
    if node is None:
        raise problems[0].error()
    assert isinstance(node, yaml.MappingNode)
    key, listed = next((key, value) for key, value in node.value if key.value == "sources")
    items = listed.value if isinstance(listed, yaml.SequenceNode) else []
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if items and (listed.flow_style or any(item.flow_style for item in items)):
        line = listed.start_mark.line + 1
        hint = "Write each source as a block of its own: `- name: …`, and its fields below"
        raise CatalogueError(f"{file}:{line}: the sources are in brackets, which cannot be edited", hint=hint)
    if not items:
        lines[key.start_mark.line] = "sources:\n"  # instead of `sources: []`
    starts = [item.start_mark.line for item in items]
    ends = [_last_line(item, lines) + 1 for item in items]
    indent = " " * (items[0].start_mark.column - 2) if items else ""
    names = [_name(item).casefold() for item in items]
    # what is to stand in place of, or in front of, a line: from the end, so that the lines before keep their numbers
    edits: list[tuple[int, int, str]] = []
    new: dict[int, list[Source]] = {}
    for change in changes:
        if change.before is not None:
            index = starts.index(change.before.line - 1)
            block = "".join(lines[starts[index] : ends[index]])
            edits.append((starts[index], ends[index], _with_fields(block, change, f"{file}:{change.before.line}")))
        else:
            name = change.source.name.casefold()
            index = next((index for index, other in enumerate(names) if other > name), len(names))
            new.setdefault(index, []).append(change.source)
    for index, sources in new.items():
        blocks = [
            "".join(f"{indent}{line}" for line in entry_text(source).splitlines(keepends=True))
            for source in sorted(sources, key=lambda source: (source.name.casefold(), source.name))
        ]
        if index:
            edits.append((ends[index - 1], ends[index - 1], "".join(f"\n{block}" for block in blocks)))
        elif items:
            edits.append((key.start_mark.line + 1, key.start_mark.line + 1, "".join(f"{block}\n" for block in blocks)))
        else:
            edits.append((key.start_mark.line + 1, key.start_mark.line + 1, "\n".join(blocks)))
    for start, end, block in sorted(edits, key=lambda edit: (edit[0], edit[1]), reverse=True):
        lines[start:end] = block.splitlines(keepends=True)
    return "".join(lines)


def _last_line(item: yaml.Node, lines: Sequence[str]) -> int:
    """The last line that an entry has something on, comments below it left aside."""
    # a block's own end is where the next token begins, behind comments and empty lines
    node = item
    while isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    end: int = node.end_mark.line
    if end > node.start_mark.line and node.end_mark.column == 0:
        end -= 1  # a block of text ends at the beginning of the line behind it
    while end > item.start_mark.line and not lines[min(end, len(lines) - 1)].strip():
        end -= 1
    return min(end, len(lines) - 1)


def _name(item: yaml.Node) -> str:
    assert isinstance(item, yaml.MappingNode)
    return next((str(value.value) for key, value in item.value if key.value == "name"), "")


def _with_fields(block: str, change: Change, place: str) -> str:
    """An entry's lines with the fields of the change, everything else as it was."""
    from ruamel.yaml import YAML  # imported here: 50 ms, and only changes of what is there need it
    from ruamel.yaml.error import YAMLError

    assert change.before is not None
    before, after = change.before.fields(), change.source.fields()
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 2**20
    indent = len(block) - len(block.lstrip(" "))
    editor.indent(mapping=2, sequence=2, offset=0)
    document: Any
    try:
        document = editor.load("".join(line[indent:] if line.strip() else line for line in block.splitlines(True)))
    except YAMLError:
        document = None
    if not isinstance(document, list) or len(document) != 1 or not isinstance(document[0], dict):
        hint = "Write out what anchors and aliases stand for"
        raise CatalogueError(f"{place}: the entry cannot be edited by itself", hint=hint)
    entry: Any = document[0]
    for name in before:
        if name not in after:
            del entry[name]
    for name, value in after.items():
        if before.get(name) == value:
            continue
        if name in entry or name == "annotations":
            _put(entry, name, value)
        else:
            value = _quoted(value)
            following = FIELDS[FIELDS.index(name) + 1 :]
            keys = list(entry)
            position = next((keys.index(key) for key in keys if key in following), len(keys))
            entry.insert(position, name, value)
    stream = io.StringIO()
    editor.dump(document, stream)
    return "".join(f"{' ' * indent}{line}" if line.strip() else line for line in stream.getvalue().splitlines(True))


def _put(entry: Any, name: str, value: Any) -> None:
    if isinstance(value, Mapping) and isinstance(entry.get(name), Mapping):
        old = entry[name]
        for key in [key for key in old if key not in value]:
            del old[key]
        for key, item in value.items():
            if key not in old or old[key] != item:
                old[_quoted(key)] = _quoted(item)
    else:
        entry[name] = _quoted(value)


def _quoted(value: Any) -> Any:
    """The value with quotes around texts that only ruamel.yaml, which reads YAML 1.2, would take for texts without."""
    from ruamel.yaml.scalarstring import SingleQuotedScalarString  # see _with_fields

    if isinstance(value, str):
        plain = _RESOLVER.resolve(yaml.ScalarNode, value, (True, False)) == "tag:yaml.org,2002:str"
        return value if plain else SingleQuotedScalarString(value)
    if isinstance(value, Mapping):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    return [_quoted(item) for item in value] if isinstance(value, list) else value


def _check_edited(data: bytes, file: str, domain: str, before: Sequence[Source], changes: Sequence[Change]) -> None:
    """Refuse what was not meant: the file must say what it said, and the changes."""
    replaced = {change.before.line: change.source for change in changes if change.before is not None}
    wanted = [replaced.get(source.line, source) for source in before]
    wanted += [change.source for change in changes if change.before is None]
    problems: list[Problem] = []
    found = read_domain(data, file, domain, problems)
    if problems:
        raise problems[0].error()

    def values(sources: Sequence[Source]) -> list[Source]:
        return sorted((replace(source, line=0) for source in sources), key=lambda source: (source.name, str(source)))

    if values(found) != values(wanted):
        hint = "Write it as a block of plain lines, without anchors, or edit it by hand"
        raise CatalogueError(f"{file} is in a form that cannot be edited without changing other entries", hint=hint)


def _write_index(catalogue: Catalogue, domains: Sequence[str], bucket: str) -> bool:
    """Add domains, and the bucket, to the index; whether it changed."""
    path = catalogue.root / INDEX_FILE
    new = [domain for domain in domains if domain not in catalogue.domains]
    if not path.exists():
        first = {"schema": SCHEMA, **({"bucket": bucket} if bucket else {}), "domains": new}
        write_atomically(path, INDEX_COMMENT + yaml.dump(first, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))
        return True
    if not new and (catalogue.bucket or not bucket):
        return False
    from ruamel.yaml import YAML  # see _with_fields

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 2**20
    document = editor.load(path.read_text(encoding="utf-8"))
    if new:
        if not document.get("domains"):
            document["domains"] = []
        document["domains"].extend(new)
    if bucket and not catalogue.bucket:
        document["bucket"] = bucket
    stream = io.StringIO()
    editor.dump(document, stream)
    write_atomically(path, stream.getvalue())
    return True
