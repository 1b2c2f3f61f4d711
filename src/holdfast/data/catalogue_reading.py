"""Reads the catalogue's files; what is wrong with them is listed with file, line and field, and the rest is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from holdfast.data.catalogue import (
    FOLDER,
    IGNORED,
    INDEX_FILE,
    REQUIRED,
    SUFFIX,
    Catalogue,
    CatalogueError,
    Problem,
    Source,
)
from holdfast.data.catalogue_schema import DOMAIN_SCHEMA, INDEX_SCHEMA, LINES, SOURCE_SCHEMA, check
from holdfast.nesting import TooDeepError, check_nesting

MAX_BYTES = 64 * 2**20
# libyaml's parser takes a tenth of the time of Python's; not every build of PyYAML has it
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EVERYTHING_ELSE = {**DOMAIN_SCHEMA, "properties": {**DOMAIN_SCHEMA["properties"], "sources": {"type": ["array"]}}}


def read_catalogue(root: Path) -> Catalogue:
    """The catalogue whose index is in a folder.

    What is wrong in a file is among the catalogue's problems, and a field that cannot be read counts as not given.

    Raises:
        CatalogueError: there is no index.
        OSError: a file cannot be read.
    """
    problems: list[Problem] = []
    if not (root / INDEX_FILE).is_file():
        raise CatalogueError(
            f"there is no {INDEX_FILE} in {root}",
            hint="`holdfast sources add` makes it with the first source, `holdfast sources import` with many",
        )
    index, lines = _read_index(root, problems)
    domains: list[str] = []
    sources: list[Source] = []
    for domain in index.get("domains", ()):
        if domain in domains:
            line = lines.get("domains", 1)
            problems.append(Problem(INDEX_FILE, line, f"the domain {domain} is there twice", "Leave one of the two"))
            continue
        domains.append(domain)
        file = f"{FOLDER}/{domain}{SUFFIX}"
        if (root / file).is_file():
            sources += read_domain((root / file).read_bytes(), file, domain, problems)
        else:
            hint = f"Take {domain} out of the domains, or `git checkout -- {file}`"
            problems.append(Problem(INDEX_FILE, lines.get("domains", 1), f"{file} is missing", hint))
    for path in sorted((root / FOLDER).glob(f"*{SUFFIX}")):
        if path.stem not in domains and not path.name.startswith("."):
            hint = f"Add {path.stem} to the domains in {INDEX_FILE}, or delete the file"
            problems.append(Problem(f"{FOLDER}/{path.name}", 1, "the index has no such domain", hint))
    return Catalogue(
        root,
        index.get("bucket", ""),
        tuple(domains),
        tuple(sources),
        tuple(index.get("require", REQUIRED)),
        tuple(name.strip("/") for name in index.get("ignore", IGNORED)),
        index.get("layout", "domain") == "domain",
        tuple(problems),
    )


def read_domain(data: bytes, file: str, domain: str, problems: list[Problem]) -> list[Source]:
    """The sources of a domain's file, in its order.

    Args:
        data: the file's bytes.
        file: what to call it.
        domain: which.
        problems: takes what is wrong.
    """
    node = compose(data, file, problems)
    if node is None:
        return []

    def report(line: int, fault: str, hint: str) -> None:
        problems.append(Problem(file, line, fault, hint))

    listed = _child(node, "sources")
    if listed is None or not isinstance(listed, yaml.SequenceNode):
        check(node, DOMAIN_SCHEMA, "", report)
        return []
    before = len(problems)
    check(_without_items(node, listed), _EVERYTHING_ELSE, "", report)
    result = list(_sources(listed, domain, report))
    problems[before:] = sorted(problems[before:], key=lambda problem: problem.line)
    return result


def compose(data: bytes, file: str, problems: list[Problem]) -> yaml.Node | None:
    """The document's top node; None where it is no YAML or no mapping, which is told."""
    try:
        if len(data) > MAX_BYTES:
            raise TooDeepError(f"it is larger than {MAX_BYTES // 2**20} MiB")
        check_nesting(data)
        node: yaml.Node | None = yaml.compose(data, Loader=_LOADER)
    except TooDeepError as error:
        problems.append(Problem(file, 1, str(error)))
        return None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else 1
        conflict = any(text.startswith((b"<<<<<<< ", b">>>>>>> ")) for text in data.splitlines())
        hint = "It has git's conflict markers: keep one side, or both entries" if conflict else "See YAML's rules"
        problems.append(Problem(file, line, f"is no YAML ({problem})", hint))
        return None
    if not isinstance(node, yaml.MappingNode):
        hint = "`holdfast sources schema` prints its form"
        problems.append(Problem(file, 1, "is empty" if node is None else "is no mapping", hint))
        return None
    return node


def _read_index(root: Path, problems: list[Problem]) -> tuple[dict[str, Any], dict[str, int]]:
    node = compose((root / INDEX_FILE).read_bytes(), INDEX_FILE, problems)
    if node is None:
        return {}, {}

    def report(line: int, fault: str, hint: str) -> None:
        problems.append(Problem(INDEX_FILE, line, fault, hint))

    values = check(node, INDEX_SCHEMA, "", report)
    return values, values[LINES]


def _sources(listed: yaml.SequenceNode, domain: str, report: Any) -> Iterator[Source]:
    for index, item in enumerate(listed.value, start=1):
        said = _child(item, "name") if isinstance(item, yaml.MappingNode) else None
        where = said.value if isinstance(said, yaml.ScalarNode) and said.value else f"sources[{index}]"
        values = check(item, SOURCE_SCHEMA, where, report)
        if not isinstance(values, dict):
            continue
        lines = values.pop(LINES)
        if "prefix" in values:
            values["prefix"] = values["prefix"].rstrip("/")
        if "dvc" in values:
            values["dvc"] = values["dvc"].rstrip("/")
        name = values.pop("name", "")
        # one whose name cannot be read is told of already, and the rest of it is of use to nobody
        if name:
            yield Source(name, domain, item.start_mark.line + 1, lines=lines, **values)


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if getattr(key, "value", None) == name), None)


def _without_items(node: yaml.Node, listed: yaml.SequenceNode) -> yaml.MappingNode:
    """The document with an empty list of sources, so that what stands beside it is checked as well."""
    empty = yaml.SequenceNode(listed.tag, [], listed.start_mark, listed.end_mark)
    pairs = [(key, empty if value is listed else value) for key, value in node.value]
    return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)
