"""Imports rewritten in place: the text of a statement changes, formatting and comments around it stay."""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.inventory.code_imports import Resolver, Use, module_parts
from holdfast.inventory.code_modules import Module, find_imports
from holdfast.inventory.sources import character_column, parse_cell, read_cells, split_lines

_FROM = re.compile(r"from(?:\s|\\\r?\n)*(?P<module>\.[.\s]*[\w.]*|[\w.]+)(?=(?:\s|\\\r?\n)+import\b)")
_ENDS = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one span of a source.

    Args:
        file: from the root.
        cell: of a notebook, whose text ``start`` counts in; None elsewhere.
        line: from 1, where it begins.
        start: the first character that goes, from 0.
        old: what goes.
        new: what comes.
    """

    file: str
    cell: int | None
    line: int
    start: int
    old: str
    new: str


class CannotRewriteError(Exception):
    """An import that a person must change; says why."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A module that takes another's place.

    Args:
        legacy: the path of the one that goes.
        canonical: the one that comes.
        resolver: knows all modules.
        root_name: the name of the root's folder, with which dotted names may begin.
    """

    legacy: str
    canonical: Module
    resolver: Resolver
    root_name: str


def rewrite(text: str, use: Use, replacement: Replacement) -> list[Edit]:
    """The edits that make one import of ``replacement.legacy`` one of the canonical module.

    Args:
        text: the file's, or the cell's of a notebook.
        use: the import.
        replacement: what takes whose place.

    Raises:
        CannotRewriteError: the canonical module lacks names, or the import is of a kind that is not rewritten.
    """
    tree, _ = parse_cell(text)
    if tree is None:
        raise CannotRewriteError("this Python does not parse it")
    spans = _Spans(text, use)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import) and node.lineno == use.line:
            edits = list(_statement(tree, node, use, replacement, spans))
            if edits:
                return edits
    raise CannotRewriteError("it is imported by a name that the program builds")


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """``text`` with the edits of one file or cell made.

    Raises:
        ValueError: what an edit replaces does not stand there.
    """
    for edit in sorted(edits, key=lambda item: -item.start):
        end = edit.start + len(edit.old)
        if text[edit.start : end] != edit.old:
            raise ValueError(f"{edit.file}:{edit.line}: {edit.old!r} does not stand there any more")
        text = text[: edit.start] + edit.new + text[end:]
    return text


def apply_to_notebook(text: str, edits: Sequence[Edit]) -> str:
    """A notebook's JSON with edits in its code cells; every other byte stays.

    Raises:
        ValueError: an edit spans several strings of the JSON, or does not stand there any more.
    """
    for edit in sorted(edits, key=lambda item: (-(item.cell or 0), -item.start)):
        text = _edit_cell(text, edit)
    return text


def _edit_cell(text: str, edit: Edit) -> str:
    document = json.loads(text)
    cell = document["cells"][(edit.cell or 1) - 1]
    parts = [cell["source"]] if isinstance(cell["source"], str) else list(cell["source"])
    start = edit.start
    index = 0
    while index < len(parts) and start >= len(parts[index]):
        start -= len(parts[index])
        index += 1
    if index == len(parts):
        raise ValueError(f"{edit.file}[{edit.cell}]:{edit.line}: the cell is shorter now")
    part = parts[index]
    changed = apply_edits(part, [Edit(edit.file, edit.cell, edit.line, start, edit.old, edit.new)])
    parts[index] = changed
    cell["source"] = changed if isinstance(cell["source"], str) else parts
    # the string is looked for as it stands in the file; the right one is that which makes the document wanted
    for ascii_only in (False, True):
        old, new = json.dumps(part, ensure_ascii=ascii_only), json.dumps(changed, ensure_ascii=ascii_only)
        place = text.find(old)
        while place >= 0:
            candidate = text[:place] + new + text[place + len(old) :]
            if json.loads(candidate) == document:
                return candidate
            place = text.find(old, place + 1)
    raise ValueError(f"{edit.file}[{edit.cell}]:{edit.line}: the cell's text is written in a way that is not rewritten")


def cell_text(text: str, number: int) -> str:
    """The text of a notebook's cell."""
    return next((cell.text for cell in read_cells(text) or () if cell.number == number), "")


class _Spans:
    """Positions of `ast` as offsets in characters."""

    def __init__(self, text: str, use: Use) -> None:
        self.text = text
        self._use = use
        self._starts = [0, *(found.end() for found in _ENDS.finditer(text))]
        self._lines = split_lines(text)

    def offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + character_column(self._lines[line - 1], column)

    def of(self, node: ast.stmt | ast.expr | ast.alias) -> tuple[int, int]:
        last = node.end_lineno or node.lineno
        return self.offset(node.lineno, node.col_offset), self.offset(last, node.end_col_offset or 0)

    def edit(self, start: int, end: int, new: str) -> Edit:
        line = 1 + sum(1 for found in _ENDS.finditer(self.text, 0, start))
        return Edit(self._use.file, self._use.cell, line, start, self.text[start:end], new)


def _statement(
    tree: ast.Module, node: ast.Import | ast.ImportFrom, use: Use, replacement: Replacement, spans: _Spans
) -> Iterator[Edit]:
    resolve, legacy = replacement.resolver.resolve, replacement.legacy
    if isinstance(node, ast.ImportFrom):
        written = node.module or ""
        if resolve(use.file, node.level, written) == legacy:
            _check(replacement, [alias.name for alias in node.names])
            if use.kind == "fallback" and (edit := _without_fallback(tree, node, use, replacement, spans)) is not None:
                yield edit
                return
            start, end = spans.of(node)
            found = _FROM.match(spans.text, start, end)
            if found is None:
                raise CannotRewriteError("the statement is written in a way that is not rewritten")
            yield spans.edit(found.start("module"), found.end("module"), _renamed(node.level, written, replacement))
            return
        for alias in node.names:
            if resolve(use.file, node.level, f"{written}.{alias.name}") == legacy:
                if module_parts(legacy)[:-1] != module_parts(replacement.canonical.path)[:-1]:
                    raise CannotRewriteError("the canonical module lies in another package")
                yield from _bound(tree, alias, replacement.canonical.name, alias.name, replacement, spans)
        return
    for alias in node.names:
        if resolve(use.file, 0, alias.name) != legacy:
            continue
        new = _renamed(0, alias.name, replacement)
        if alias.asname is not None or "." not in alias.name:
            yield from _bound(tree, alias, new, alias.name, replacement, spans)
            continue
        chains = [part for part in ast.walk(tree) if isinstance(part, ast.Attribute) and _dotted(part) == alias.name]
        inner = {id(part.value): part.attr for part in ast.walk(tree) if isinstance(part, ast.Attribute)}
        if any(id(chain) not in inner for chain in chains):
            raise CannotRewriteError("the module itself is passed on")
        _check(replacement, [inner[id(chain)] for chain in chains])
        start, _ = spans.of(alias)
        yield spans.edit(start, start + len(alias.name), new)
        for chain in chains:
            yield spans.edit(*spans.of(chain), new)


def _bound(
    tree: ast.Module, alias: ast.alias, new: str, old: str, replacement: Replacement, spans: _Spans
) -> Iterator[Edit]:
    """An import that binds the module to a name: the name stays, so that the code below need not change."""
    name = alias.asname or old
    reads = [part for part in ast.walk(tree) if isinstance(part, ast.Name) and part.id == name]
    inner = {id(part.value): part.attr for part in ast.walk(tree) if isinstance(part, ast.Attribute)}
    if any(id(part) not in inner for part in reads) or not reads:
        raise CannotRewriteError("the module itself is passed on")
    _check(replacement, [inner[id(part)] for part in reads])
    start, _ = spans.of(alias)
    yield spans.edit(start, start + len(old), new if alias.asname else f"{new} as {name}")


def _check(replacement: Replacement, names: Sequence[str]) -> None:
    canonical = replacement.canonical
    if "*" in names:
        raise CannotRewriteError("it takes everything (import *)")
    missing = sorted({name for name in names if name not in canonical.offers})
    if missing:
        raise CannotRewriteError(f"{canonical.path} has no {', '.join(missing)}")


def _renamed(level: int, written: str, replacement: Replacement) -> str:
    old, new = module_parts(replacement.legacy), module_parts(replacement.canonical.path)
    if level:
        if old[:-1] != new[:-1]:
            raise CannotRewriteError("the canonical module lies in another package")
        head, _, _ = written.rpartition(".")
        return "." * level + (f"{head}.{new[-1]}" if head else new[-1])
    parts = tuple(written.split("."))
    if replacement.root_name and parts == (replacement.root_name, *old):
        return ".".join((replacement.root_name, *new))
    base = old[: len(old) - len(parts)]
    if old[len(base) :] != parts or new[: len(base)] != base or len(new) <= len(base):
        raise CannotRewriteError("the canonical module is not found by a name of that kind")
    return ".".join(new[len(base) :])


def _without_fallback(
    tree: ast.Module, node: ast.ImportFrom, use: Use, replacement: Replacement, spans: _Spans
) -> Edit | None:
    """``raise`` in place of a fall-back whose ``try`` takes the same names from the canonical module already.

    A second try of the same import would hide why the first one failed.
    """
    for part in ast.walk(tree):
        if not isinstance(part, ast.Try):
            continue
        for handler in part.handlers:
            if handler.body and handler.body[-1] is node:
                tried = find_imports(ast.Module(body=part.body, type_ignores=[]), use.file)
                names = {
                    name
                    for item in tried
                    if replacement.resolver.resolve(use.file, item.level, item.module) == replacement.canonical.path
                    for name in item.names
                }
                if {alias.name for alias in node.names} <= names:
                    return spans.edit(*spans.of(node), "raise")
    return None


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""
