"""Imports of modules that rules forbid, each with the import as it should be."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from holdfast.inventory.canonical_guard import Modules
from holdfast.inventory.canonical_tree import RuleTree
from holdfast.inventory.code_imports import Resolver, module_parts
from holdfast.inventory.code_modules import Import, find_imports, top_names
from holdfast.inventory.ref_pattern import has_letters
from holdfast.inventory.sources import (
    Source,
    character_column,
    parse_cell,
    parse_python,
    read_cells,
    read_source,
    split_lines,
)

Node = ast.Import | ast.ImportFrom | ast.Call


@dataclass(frozen=True, slots=True)
class ImportHit:
    """An import of a forbidden module.

    Args:
        key: of the rule.
        cell: of a notebook, from 1; None elsewhere.
        line: from 1.
        column: from 1, in characters.
        end_line: the last line of the import.
        end_column: the column after it.
        text: the statement, without what else it imports.
        right: the statement as it should be; empty where it should not be, or where nothing takes the module's place.
        note: what to know about that, in words; empty for nothing.
    """

    key: str
    cell: int | None
    line: int
    column: int
    end_line: int
    end_column: int
    text: str
    right: str
    note: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A forbidden module: its name, the name that was looked for and begins with it, as the rules spell both."""

    module: str
    whole: str


class ImportFinder:
    """Finds forbidden imports, one source after the other.

    Args:
        judges: the rules on modules, by their keys.
        tree: the files.
    """

    def __init__(self, judges: Mapping[str, Modules], tree: RuleTree) -> None:
        self._judges = judges
        self._tree = tree
        self._words = {key: judge.words for key, judge in judges.items()}
        self._offers: dict[str, frozenset[str]] = {}

    def find(self, source: Source, text: str) -> list[ImportHit]:
        """The forbidden imports of a Python file or a notebook, in order."""
        judges = {key: self._judges[key] for key, words in self._words.items() if any(word in text for word in words)}
        # what is forbidden may import itself
        judges = {key: judge for key, judge in judges.items() if judge.find_path(source.label) is None}
        if not judges or source.kind not in ("python", "notebook"):
            return []
        found: list[ImportHit] = []
        if source.kind == "python":
            found += self._part(source.label, None, text, parse_python(text), judges)
        else:
            for cell in read_cells(text) or ():
                if cell.kind == "code":
                    found += self._part(source.label, cell.number, cell.text, parse_cell(cell.text)[0], judges)
        return found

    def _part(
        self, file: str, cell: int | None, text: str, parsed: ast.Module | None, judges: Mapping[str, Modules]
    ) -> Iterator[ImportHit]:
        lines = split_lines(text)
        trees = [parsed] if parsed is not None else _parsed_lines(lines)
        for tree in trees:
            items = list(find_imports(tree, file, cell))
            nodes: dict[int, list[Node]] = {}
            for node in ast.walk(tree):
                if isinstance(node, Node):
                    nodes.setdefault(node.lineno, []).append(node)
            for item in items:
                node_ = next((node for node in nodes.get(item.line, ()) if _is_of(node, item)), None)
                for key, judge in judges.items():
                    if node_ is not None:
                        yield from self._hits(key, judge, item, node_, tree, lines)

    def _hits(
        self, key: str, judge: Modules, item: Import, node: Node, tree: ast.Module, lines: list[str]
    ) -> Iterator[ImportHit]:
        def hit(part: Node | ast.alias, found: _Found, text: str, right: str | None, names: Sequence[str]) -> ImportHit:
            note = ""
            if item.guard == "fallback" and right is not None and self._is_tried(judge, found, item, node, tree):
                right, note = "", "the import that is tried is the right one: let it fail"
            elif right is not None:
                note = self._missing(judge, found, names)
            last = part.end_lineno or part.lineno
            start = character_column(lines[part.lineno - 1], part.col_offset) + 1
            end = character_column(lines[last - 1], part.end_col_offset or 0) + 1
            return ImportHit(key, item.cell, part.lineno, start, last, end, text, right or "", note)

        found = self._find(judge, item, item.module)
        if found is not None:
            new = _renamed(item, item.module, found, _right(judge, found))
            if isinstance(node, ast.Import):
                alias = next(alias for alias in node.names if alias.name == item.module)
                right = new and ast.unparse(ast.Import([ast.alias(new.lstrip("."), alias.asname)]))
                yield hit(alias, found, ast.unparse(ast.Import([alias])), right, ())
            elif isinstance(node, ast.ImportFrom):
                right = new and f"from {new} import {_names(node.names)}"
                yield hit(node, found, ast.unparse(node), right, item.names)
            else:
                constant = ast.Constant(new)
                right = new and ast.unparse(ast.Call(node.func, [constant, *node.args[1:]], node.keywords))
                yield hit(node, found, ast.unparse(node), right, ())
            return
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            whole = f"{item.module}.{alias.name}" if item.module else alias.name
            found = self._find(judge, item, whole)
            if found is None or self._is_offered(item, alias.name, whole):
                continue
            head, _, last = (_right(judge, found) or "").rpartition(".")
            above = _Found("", found.whole.rpartition(".")[0])
            new = _renamed(item, item.module, above, head) if head else None
            single = ast.alias(last, alias.asname)
            right = f"from {new} import {_names([single])}" if new else last and ast.unparse(ast.Import([single]))
            text = f"from {'.' * item.level}{item.module} import {_names([alias])}"
            yield hit(alias, found, text, right or None, ())

    def _find(self, judge: Modules, item: Import, name: str) -> _Found | None:
        """The forbidden module that a name means in a source."""
        folder = PurePosixPath(item.file).parent
        if item.level:
            for _ in range(item.level - 1):
                folder = folder.parent
            return _among(judge, ".".join((*folder.parts, *filter(None, name.split(".")))))
        path = self._resolver.resolve(item.file, 0, name)
        if path is not None:
            return _among(judge, ".".join(module_parts(path)))
        found = _among(judge, name)
        if found is None and folder.parts:
            # a script sees the modules beside it; that a name which is gone was one of these, only a distinct one says
            found = _among(judge, ".".join((*folder.parts, name)))
            pattern = judge.rule.fault(found.module) if found is not None else None
            if pattern is None or not has_letters(pattern.components[-1]):
                return None
        return found

    @cached_property
    def _resolver(self) -> Resolver:
        modules = (path for path in self._tree.files if path.endswith(".py"))
        return Resolver(modules, self._tree.root.name)

    def _is_offered(self, item: Import, name: str, whole: str) -> bool:
        """Whether a package has a name that is no module of it."""
        if self._resolver.resolve(item.file, item.level, whole) is not None:
            return False
        package = self._resolver.resolve(item.file, item.level, item.module)
        return package is not None and name in self._offered(package)

    def _is_tried(self, judge: Modules, found: _Found, item: Import, node: Node, tree: ast.Module) -> bool:
        """Whether the ``try`` that a fall-back belongs to imports what counts."""
        right = judge.file_of(_right(judge, found) or "")
        for part in ast.walk(tree):
            if isinstance(part, ast.Try) and any(node in ast.walk(handler) for handler in part.handlers):
                for tried in find_imports(ast.Module(part.body, []), item.file):
                    names = (tried.module, *(f"{tried.module}.{name}".lstrip(".") for name in tried.names))
                    paths = {self._resolver.resolve(item.file, tried.level, name) for name in names}
                    if right is not None and right in paths:
                        return True
        return False

    def _missing(self, judge: Modules, found: _Found, names: Sequence[str]) -> str:
        path = judge.file_of(_right(judge, found) or "")
        if path is None:
            return ""
        offered = self._offered(path)
        missing = [name for name in names if name != "*" and name not in offered]
        return f"{path} has no {', '.join(missing)}" if missing and "*" not in offered else ""

    def _offered(self, path: str) -> frozenset[str]:
        if path not in self._offers:
            text = read_source(Source(self._tree.root / path, path, "python"), self._tree.notes)
            parsed = parse_python(text) if text is not None else None
            # what cannot be read may have any name
            self._offers[path] = frozenset(top_names(parsed.body)) if parsed is not None else frozenset({"*"})
        return self._offers[path]


def _among(judge: Modules, name: str) -> _Found | None:
    if (found := judge.find_dotted(name)) is None:
        return None
    prefix, module = found
    return _Found(module, name.removeprefix(prefix))


def _right(judge: Modules, found: _Found) -> str | None:
    right = judge.rule.right_name(found.module)
    return right + found.whole.removeprefix(found.module) if right is not None else None


def _renamed(item: Import, written: str, found: _Found, right: str | None) -> str | None:
    """``right`` as the import writes such names: relative, with ``src`` before it, or seen from its folder."""
    if right is None:
        return None
    if item.level:
        package = found.whole.removesuffix(written).rstrip(".") if written else found.whole
        if right == package:
            return "." * item.level
        if right.startswith(f"{package}.") or not package:
            return "." * item.level + right.removeprefix(f"{package}.")
        return right
    if written.endswith(found.whole):
        return written.removesuffix(found.whole) + right
    return right.removeprefix(found.whole.removesuffix(written))


def _is_of(node: Node, item: Import) -> bool:
    if isinstance(node, ast.Import):
        return not item.dynamic and not item.names and any(alias.name == item.module for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        names = tuple(alias.name for alias in node.names)
        return (node.module or "", node.level, names) == (item.module, item.level, item.names)
    first = node.args[0] if node.args else None
    return item.dynamic and isinstance(first, ast.Constant) and first.value == "." * item.level + item.module


def _names(aliases: Sequence[ast.alias]) -> str:
    return ", ".join(f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in aliases)


def _parsed_lines(lines: list[str]) -> list[ast.Module]:
    """The imports of a text that this Python does not parse, line by line."""
    result = []
    for number, line in enumerate(lines, 1):
        bare = line.lstrip()
        if bare.startswith(("from ", "import ")) and (tree := parse_python(bare)) is not None:
            for node in ast.walk(tree):
                if isinstance(node, ast.stmt | ast.alias):
                    node.lineno = node.end_lineno = number
                    node.col_offset += len(line) - len(bare)
                    node.end_col_offset = (node.end_col_offset or 0) + len(line) - len(bare)
            result.append(tree)
    return result
