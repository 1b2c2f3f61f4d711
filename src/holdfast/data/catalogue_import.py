"""Entries for the catalogue out of what others keep: a CSV table, JSON, or the folders of a bucket."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from holdfast.data.catalogue import FIELDS, NUMBERS, Catalogue, CatalogueError, Source, name_of
from holdfast.data.catalogue_schema import DOMAIN_PATTERN, LINES, SOURCE_SCHEMA, check
from holdfast.data.catalogue_writing import Change
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectStore

# how others call our fields
OTHER_NAMES = {"license": "licence", "frequency": "updates", "update_frequency": "updates"}
_ANNOTATION = "annotations."
_MARK = yaml.Mark("", 0, 0, 0, None, 0)


@dataclass(frozen=True)
class Merged:
    """What an import would do.

    Attributes:
        changes: new entries, and those that are updated.
        unchanged: entries that say all that already.
        kept: entries that say something else and are to stay as they are.
    """

    changes: tuple[Change, ...]
    unchanged: tuple[Source, ...]
    kept: tuple[Source, ...]

    @property
    def added(self) -> list[Source]:
        """The new ones."""
        return [change.source for change in self.changes if change.before is None]

    @property
    def updated(self) -> list[Source]:
        """The changed ones."""
        return [change.source for change in self.changes if change.before is not None]


def read_csv(data: bytes, file: str, domain: str = "") -> list[Source]:
    """A row a source. Columns are called as the fields are, and ``domain``; all others become annotations.

    Args:
        data: UTF-8, with or without a byte order mark; commas, semicolons or tabs between the columns.
        file: what to call it.
        domain: of rows that do not say theirs.

    Raises:
        CatalogueError: a row is no source; file, line and column are named.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogueError(f"{file} is no UTF-8", hint="`iconv -f latin1 -t utf8` makes it so") from error
    head = text.splitlines()[0] if text.strip() else ""
    separator = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records = []
    try:
        columns = [_column(name) for name in next(reader, [])]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise CatalogueError(f"{file}:1: the column {twice[0]} is there twice", hint="Leave one of the two")
        if "name" not in columns and "title" not in columns:
            raise CatalogueError(f"{file}:1: there is no column name", hint="The first line names the columns")
        line = reader.line_num + 1
        for row in reader:
            if any(cell.strip() for cell in row):
                if len(row) > len(columns):
                    hint = f"There are {len(columns)} columns; what holds a {separator!r} goes in quotes"
                    raise CatalogueError(f"{file}:{line}: the row has {len(row)} cells", hint=hint)
                records.append((line, _record(dict(zip(columns, row, strict=False)))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise CatalogueError(f"{file}:{reader.line_num}: is no CSV ({error})") from error
    return _sources(records, file, domain, lambda number: f"{file}:{number}")


def read_json(data: bytes, file: str, domain: str = "") -> list[Source]:
    """A list of sources, also below ``sources``, or such a list for each domain.

    Raises:
        CatalogueError: it is no JSON, or an entry is no source.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        raise CatalogueError(f"{file}{f':{line}' if line else ''}: is no JSON ({error})") from error
    if isinstance(document, dict) and "sources" in document:
        document = document["sources"]
    groups = document.items() if isinstance(document, dict) else [(domain, document)]
    result: list[Source] = []
    for own, entries in groups:
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            hint = 'Write [{"name": …}, …], {"sources": […]} or {"climate": […], …}'
            raise CatalogueError(f"{file} is no list of sources", hint=hint)
        records = [(number, _json_record(entry)) for number, entry in enumerate(entries, start=1)]
        group = f" of {own}" if isinstance(document, dict) else ""
        result += _sources(records, file, own, lambda number, group=group: f"{file}, entry {number}{group}")  # type: ignore[misc]
    return result


def read_bucket(
    store: ObjectStore,
    below: str,
    ignored: Iterable[str],
    domain: str = "",
    *,
    jobs: int = 8,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Source]:
    """A source for each folder of a bucket: ``domain/name/``, or with ``domain`` each folder right below.

    Args:
        store: the bucket that the catalogue's prefixes are seen from.
        below: the folder in it to look into; empty for its top.
        ignored: folders that hold no sources.
        domain: that of all, so that folders need not be below one.
        jobs: folders that are listed at a time.
        progress: told how many objects were listed so far.

    Raises:
        StoreError: the bucket cannot be listed.
        CatalogueError: a folder's name is none of a domain.
    """
    skipped = set(ignored)
    depth = (below.count("/") + 1 if below else 0) + (1 if domain else 2)
    folders = [f"{below}/{name}" if below else name for name in store.list_folders(below)]
    folders = [folder for folder in folders if folder not in skipped]
    found: dict[str, tuple[int, int]] = {}
    count = 0

    def look(folder: str) -> tuple[dict[str, tuple[int, int]], int]:
        sums: dict[str, tuple[int, int]] = {}
        objects = 0
        for info in store.list_objects(folder):
            objects += 1
            parts = info.key.split("/")
            if len(parts) > depth:
                prefix = "/".join(parts[:depth])
                files, size = sums.get(prefix, (0, 0))
                sums[prefix] = (files + 1, size + info.size)
        return sums, objects

    for sums, objects in concurrently(look, folders, jobs):
        found |= sums
        count += objects
        progress(count)
    names: dict[str, str] = {}
    records = []
    for prefix, (files, size) in sorted(found.items()):
        if prefix in skipped:
            continue
        *above, last = prefix.split("/")
        own = domain or above[-1]
        name = _free_name(last, own, prefix, names)
        titled = {} if is_name(last) else {"title": last}
        records.append((0, {"name": name, "domain": own, "prefix": prefix, "size": size, "files": files, **titled}))
    return _sources(records, store.url, domain, lambda _: store.url)


def merge(catalogue: Catalogue, sources: Sequence[Source], *, update: bool, by_prefix: bool = False) -> Merged:
    """What is to become of the catalogue: what an entry does not say stays as it is.

    Args:
        catalogue: as it is.
        sources: to bring in.
        update: change entries that say something else.
        by_prefix: an entry is the same one if it has the same prefix, whatever it is called.
    """
    known = {source.id.casefold(): source for source in reversed(catalogue.sources)}
    at_prefix = {source.prefix: source for source in reversed(catalogue.sources) if source.prefix}
    changes: list[Change] = []
    unchanged: list[Source] = []
    kept: list[Source] = []
    taken = {source.name.casefold() for source in catalogue.sources}
    for source in sources:
        before = at_prefix.get(source.prefix) if by_prefix else None
        if before is None and not by_prefix:
            before = known.get(source.id.casefold())
        if before is None:
            if by_prefix and source.name.casefold() in taken:
                source = replace(source, name=_other_name(source, taken))
            taken.add(source.name.casefold())
            changes.append(Change(source))
            continue
        given = {name: value for name in FIELDS if (value := getattr(source, name)) not in ("", None, {})}
        given["name"] = before.name
        if "annotations" in given:
            given["annotations"] = {**before.annotations, **given["annotations"]}
        after = replace(before, **given)
        if after == before:
            unchanged.append(before)
        elif update:
            changes.append(Change(after, before))
        else:
            kept.append(before)
    return Merged(tuple(changes), tuple(unchanged), tuple(kept))


def _other_name(source: Source, taken: Collection[str]) -> str:
    first = f"{source.domain}-{source.name}"
    names = itertools.chain([first], (f"{first}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name.casefold() not in taken)


def make_source(values: Mapping[str, Any], domain: str, where: str) -> Source:
    """A source of values, held against the schema.

    Args:
        values: by field; texts, numbers and what JSON knows.
        domain: whose it is to be.
        where: what to call it in errors.

    Raises:
        CatalogueError: a field is wrong, or the domain has no name of one.
    """
    problems: list[tuple[str, str]] = []
    checked = check(_node(values), SOURCE_SCHEMA, "", lambda _, fault, hint: problems.append((fault, hint)))
    pattern = yaml.ScalarNode("tag:yaml.org,2002:str", domain, _MARK, _MARK)
    check(
        pattern,
        {"type": "string", "pattern": DOMAIN_PATTERN, "description": "Lower-case letters, digits and _ -"},
        "domain",
        lambda _, fault, hint: problems.append((fault, hint)),
    )
    if problems:
        raise CatalogueError(f"{where}: {problems[0][0]}", hint=problems[0][1] or None)
    checked.pop(LINES)
    for name in ("prefix", "dvc"):
        if name in checked:
            checked[name] = checked[name].rstrip("/")
    return Source(domain=domain, **checked)


def _sources(
    records: Sequence[tuple[int, dict[str, Any]]], file: str, domain: str, place: Callable[[int], str]
) -> list[Source]:
    met: dict[str, int] = {}
    result = []
    for number, record in records:
        where = place(number)
        own = str(record.pop("domain", "") or domain)
        if not own:
            hint = "Add a column or field domain, or name the domain of all with --domain"
            raise CatalogueError(f"{where}: the source has no domain", hint=hint)
        source = make_source(record, own, where)
        if (first := met.setdefault(source.id.casefold(), number)) != number:
            raise CatalogueError(f"{where}: {source.id} is there twice, first at {place(first)}")
        result.append(source)
    if not result:
        raise CatalogueError(f"{file} has no source", hint="See `holdfast sources import --help` for the forms")
    return result


def _column(name: str) -> str:
    text = name.strip()
    key = text.casefold().replace(" ", "_")
    key = OTHER_NAMES.get(key, key)
    return key if key in FIELDS or key == "domain" else f"{_ANNOTATION}{text.removeprefix(_ANNOTATION)}"


def _record(cells: Mapping[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    annotations: dict[str, str] = {}
    for column, cell in cells.items():
        value = cell.strip()
        if not value:
            continue
        if column.startswith(_ANNOTATION):
            annotations[column.removeprefix(_ANNOTATION) or "note"] = value
        elif column in NUMBERS and value.isascii() and value.isdigit():
            record[column] = int(value)
        else:
            record[column] = value
    if annotations:
        record["annotations"] = annotations
    return _named(record)


def _json_record(entry: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    annotations: dict[str, Any] = {}
    for key, value in entry.items():
        column = _column(key)
        if value is None or value == "":
            continue
        if column == "annotations" and isinstance(value, dict):
            annotations |= value
        elif column.startswith(_ANNOTATION):
            if key != "line":  # what `holdfast sources list --json` adds
                annotations[column.removeprefix(_ANNOTATION)] = value
        else:
            record[column] = value
    if annotations:
        record["annotations"] = annotations
    return _named(record)


def _named(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a name that can be one: what people call a source is kept as its title."""
    said = record.get("name", record.get("title"))
    if isinstance(said, str) and (name := name_of(said)) and not is_name(said):
        record["name"] = name
        record.setdefault("title", said)
    elif isinstance(said, str):
        record["name"] = said
    if isinstance(record.get("updates"), str):
        record["updates"] = record["updates"].lower()
    for field in ("prefix", "dvc"):
        if isinstance(record.get(field), str):
            record[field] = record[field].removeprefix("./").strip("/")
    return record


def is_name(text: str) -> bool:
    """Whether a text can be a source's name as it is."""
    problems: list[str] = []
    node = yaml.ScalarNode("tag:yaml.org,2002:str", text, _MARK, _MARK)
    check(node, SOURCE_SCHEMA["properties"]["name"], "name", lambda _, fault, __: problems.append(fault))
    return not problems


def _free_name(folder: str, domain: str, prefix: str, names: dict[str, str]) -> str:
    """A name for a folder's source that no other one of the bucket has."""
    plain = folder if is_name(folder) else name_of(folder) or "source"
    for name in (plain, f"{domain}-{plain}", name_of(prefix)):
        if names.setdefault(name.casefold(), prefix) == prefix:
            return name
    return name_of(prefix)


def _node(value: Any) -> yaml.Node:
    """A value as PyYAML would have composed it."""
    if isinstance(value, Mapping):
        pairs = [(_node(str(key)), _node(item)) for key, item in value.items()]
        return yaml.MappingNode("tag:yaml.org,2002:map", pairs, _MARK, _MARK)
    if isinstance(value, list | tuple):
        return yaml.SequenceNode("tag:yaml.org,2002:seq", list(map(_node, value)), _MARK, _MARK)
    if isinstance(value, bool) or value is None:
        kind, text = ("null", "") if value is None else ("bool", str(value).lower())
    elif isinstance(value, int | float):
        kind, text = ("int" if isinstance(value, int) else "float"), repr(value)
    else:
        kind, text = "str", str(value)
    return yaml.ScalarNode(f"tag:yaml.org,2002:{kind}", text, _MARK, _MARK)


def read_table(path: Path, domain: str = "") -> list[Source]:
    """The sources of a ``.csv``, ``.tsv`` or ``.json`` file.

    Raises:
        CatalogueError: it is none, or an entry is no source.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if path.suffix.lower() == ".json":
        return read_json(data, path.name, domain)
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return read_csv(data, path.name, domain)
    raise CatalogueError(
        f"{path} is neither CSV nor JSON by its name", hint="Name a .csv or .json file, or a bucket's URL"
    )
