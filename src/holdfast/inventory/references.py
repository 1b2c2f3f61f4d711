"""Which scripts, notebooks and configurations refer to which files, also by names that they build.

A *reference* is one place (file, cell, line, column span) that names one or more of the files asked about. An
expression that only passes on a name which another place of the file has put together is no further reference. What
comments, docstrings, messages and documents say is a *mention*, and counts apart.
"""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.inventory.ref_families import name_families
from holdfast.inventory.ref_memory import Memory, ReferenceMemory, question_of, stamp_of
from holdfast.inventory.ref_pattern import How, Match, Matcher
from holdfast.inventory.ref_python import Hit, find_comments, find_in_python
from holdfast.inventory.ref_text import find_in_text
from holdfast.inventory.sources import (
    Cell,
    Kind,
    Source,
    parse_cell,
    parse_python,
    read_cells,
    read_source,
    split_lines,
    walk_sources,
)

SCRIPT_KINDS: frozenset[Kind] = frozenset({"python", "notebook", "shell", "build"})
SHOWN_CHARACTERS = 200


class NoTargetError(HoldfastError):
    """Nothing is asked about."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One place that names targets.

    Args:
        file: the source, from the root.
        kind: of the source.
        cell: of a notebook, from 1 over all its cells; None elsewhere.
        line: from 1; in the cell of a notebook.
        column: from 1, in characters.
        end_line: the last line of the place.
        end_column: the column after it.
        text: what stands there, ``{}`` for unknown parts.
        how: ``path`` (with its folder), ``name`` (base name or stem), ``pattern`` (built, or with unknown parts),
            ``glob``, or ``mention`` (said in a comment, docstring, message or document).
        targets: the files it names, ordered.
    """

    file: str
    kind: Kind
    cell: int | None
    line: int
    column: int
    end_line: int
    end_column: int
    text: str
    how: How
    targets: tuple[str, ...]

    @property
    def is_mention(self) -> bool:
        """Whether nothing breaks where the file goes."""
        return self.how == "mention"

    @property
    def place(self) -> str:
        """``file:line``, or ``file[cell]:line``."""
        return f"{self.file}[{self.cell}]:{self.line}" if self.cell is not None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Usage:
    """How often something is referred to.

    Args:
        name: a target, or the pattern of a family.
        files: the targets in it.
        references: places.
        scripts: Python files, notebooks, shell and build files with a reference.
        configs: configuration files with one.
        mentions: places that only mention it.
    """

    name: str
    files: int
    references: int
    scripts: int
    configs: int
    mentions: int


@dataclass(frozen=True)
class ReferenceReport:
    """What was found.

    Args:
        targets: the files asked about, from the root.
        references: every place, ordered by file, cell, line and column; mentions among them.
        families: the family of each target.
        sources: files that were read.
        notes: what could not be.
    """

    targets: tuple[str, ...]
    references: tuple[Reference, ...]
    families: Mapping[str, str]
    sources: int
    notes: tuple[str, ...] = ()

    def usage(self, name: str, targets: Iterable[str]) -> Usage:
        """Counts over some of the targets, together."""
        wanted = frozenset(targets)
        found = [reference for reference in self.references if not wanted.isdisjoint(reference.targets)]
        used = [reference for reference in found if not reference.is_mention]
        return Usage(
            name,
            len(wanted),
            len(used),
            len({reference.file for reference in used if reference.kind in SCRIPT_KINDS}),
            len({reference.file for reference in used if reference.kind not in SCRIPT_KINDS}),
            len(found) - len(used),
        )

    def by_target(self) -> list[Usage]:
        """The usage of each target, in their order."""
        return [self.usage(target, (target,)) for target in self.targets]

    def by_family(self) -> list[Usage]:
        """The usage of each family, most used first."""
        members: dict[str, list[str]] = {}
        for target in self.targets:
            members.setdefault(self.families.get(target, target), []).append(target)
        usages = [self.usage(family, targets) for family, targets in members.items()]
        return sorted(usages, key=lambda usage: (-usage.references, usage.name))

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``."""
        return {
            "targets": [asdict(usage) for usage in self.by_target()],
            "families": [asdict(usage) for usage in self.by_family()],
            "references": [asdict(reference) for reference in self.references],
            "sources": self.sources,
            "notes": list(self.notes),
        }


def find_references(
    root: Path,
    targets: Iterable[Path | str],
    *,
    families: Mapping[str, str] | None = None,
    sources: Sequence[Source] | None = None,
    memory: ReferenceMemory | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ReferenceReport:
    """Every place below ``root`` that names one of the targets.

    Args:
        root: the folder whose sources are read, and from which paths are seen.
        targets: files, absolute or from ``root``; they need not exist (any more).
        families: the family of each target (from ``root``), where the caller knows them better than by their names.
        sources: what to read, where the caller has walked the tree; all of ``root`` unless given.
        memory: what was found before in sources that have not changed.
        progress: called with each source's path before it is read.

    Raises:
        NoTargetError: no target is given, or one lies outside ``root``.
    """
    root = root.resolve()
    paths = sorted({_from_root(root, target) for target in targets})
    if not paths:
        raise NoTargetError("no file is asked about", hint="Name files, folders or a pattern that exists")
    notes: list[str] = []
    sources = list(walk_sources(root, notes)) if sources is None else sources
    own = frozenset(paths)
    shared = frozenset(Path(source.label).stem for source in sources if source.label not in own)
    shared |= _siblings(root, paths)
    asked = _Existence(root)
    finder = Finder(Matcher(paths, root_name=root.name, exists=asked.is_file, shared_stems=shared))
    stems = sorted(shared & {Path(path).stem for path in paths})
    question = question_of(paths, [root.name], stems)
    remembered = memory.recall(question) if memory is not None else {}
    found: list[Reference] = []
    learned: dict[str, Memory] = {}
    for source in sources:
        stamp = stamp_of(source) if memory is not None else None
        old = remembered.get(source.label)
        if old is not None and old.stamp == stamp and asked.agrees(old.asked):
            found += [Reference(**{**item, "targets": tuple(item["targets"])}) for item in old.found]
            continue
        progress(source.label)
        noted = len(notes)
        asked.start()
        text = read_source(source, notes)
        places = finder.find(source, text) if text is not None else []
        found += places
        # changed meanwhile, or with something to say about it the next time as well
        if stamp is not None and len(notes) == noted and stamp_of(source) == stamp:
            learned[source.label] = Memory(stamp, asked.answers(), [asdict(item) for item in places])
    if memory is not None and learned:
        memory.keep(question, learned)
    found.sort(key=lambda item: (item.file, item.cell or 0, item.line, item.column, item.how))
    known = dict(families) if families is not None else name_families(paths)
    return ReferenceReport(tuple(paths), tuple(found), known, len(sources), tuple(notes))


def _from_root(root: Path, target: Path | str) -> str:
    path = Path(target)
    whole = path if path.is_absolute() else root / path
    try:
        return (whole.parent.resolve() / whole.name).relative_to(root).as_posix()
    except ValueError:
        raise NoTargetError(f"{target} lies outside {root}", hint="Name the folder above both with --root") from None


class _Existence:
    """Whether paths are files; remembers what one source made it ask."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, bool] = {}
        self._asked: set[str] = set()

    def is_file(self, path: str) -> bool:
        self._asked.add(path)
        if path not in self._known:
            self._known[path] = (self._root / path).is_file()
        return self._known[path]

    def agrees(self, answers: Mapping[str, bool]) -> bool:
        return all(self.is_file(path) == answer for path, answer in answers.items())

    def start(self) -> None:
        self._asked = set()

    def answers(self) -> dict[str, bool]:
        return {path: self._known[path] for path in sorted(self._asked)}


def _siblings(root: Path, paths: list[str]) -> frozenset[str]:
    # a stem that a file beside the target has too names neither alone
    asked = set(paths)
    found = set()
    for folder in {str(Path(path).parent) for path in paths}:
        try:
            names = [entry.name for entry in (root / folder).iterdir()]
        except OSError:
            continue
        found |= {
            Path(name).stem
            for name in names
            if (Path(folder) / name).as_posix() not in asked and not name.endswith(".dvc")
        }
    return frozenset(found)


class Finder:
    """Finds the places of sources, one after the other.

    Args:
        matcher: knows what is asked about.
    """

    def __init__(self, matcher: Matcher) -> None:
        # imported here: a compiled library that only a search for references needs
        from ahocorasick_rs import AhoCorasick

        self._matcher = matcher
        words = matcher.needles
        self._needles = AhoCorasick(words)
        telling = matcher.telling_needles
        self._telling = frozenset(index for index, word in enumerate(words) if word in telling)

    def find(self, source: Source, text: str) -> list[Reference]:
        """The places of one source; one pass over its text decides whether it is looked at closer."""
        hits = self._needles.find_matches_as_indexes(text, overlapping=True)
        if not any(index in self._telling for index, _, _ in hits):
            return []
        folder = source.label.rpartition("/")[0]
        if source.kind == "python":
            return [_reference(source, None, hit) for hit in self._python(text, folder)]
        if source.kind == "notebook":
            return self._notebook(source, text, folder)
        lines = _lines_of(text, [start for _, start, _ in hits])
        return [
            Reference(
                source.label,
                source.kind,
                None,
                hit.line,
                hit.column,
                hit.line,
                hit.end,
                _short(hit.text),
                *_how(hit.match),
            )
            for hit in find_in_text(text, source.kind, self._matcher, folder, lines=lines)
        ]

    def _python(self, text: str, folder: str) -> list[Hit]:
        if (tree := parse_python(text)) is None:
            return self._unparsed(text, folder)
        try:
            hits = find_in_python([tree], [text], self._matcher, folder)[0]
        except RecursionError:
            return self._as_text(text, folder)
        return hits + (find_comments(text, self._matcher, folder) if "#" in text else [])

    def _unparsed(self, text: str, folder: str) -> list[Hit]:
        """Python that this Python does not parse: line by line where a line does, as words where it does not."""
        trees, plain = [], []
        for number, line in enumerate(split_lines(text), 1):
            if not line.strip():
                continue
            head = "if 1:\n" if line[:1].isspace() else ""
            tree = parse_python(head + line + (" pass" if line.rstrip().endswith(":") else ""))
            if tree is None:
                plain.append(number)
            else:
                trees.append(ast.increment_lineno(tree, number - (2 if head else 1)))
        try:
            parts = find_in_python(trees, [text] * len(trees), self._matcher, folder)
        except RecursionError:
            return self._as_text(text, folder)
        found = [hit for part in parts for hit in part] + self._as_text(text, folder, plain)
        spoken = [hit for hit in self._as_text(text, folder) if hit.match.how == "mention" and hit.line not in plain]
        return found + spoken

    def _as_text(self, text: str, folder: str, lines: list[int] | None = None) -> list[Hit]:
        found = find_in_text(text, "python", self._matcher, folder, lines=lines)
        return [Hit(hit.line, hit.column, hit.line, hit.end, hit.text, hit.match) for hit in found]

    def _notebook(self, source: Source, text: str, folder: str) -> list[Reference]:
        cells = read_cells(text)
        if cells is None:
            return []
        result: list[Reference] = []
        parsed: list[tuple[Cell, ast.Module]] = []
        for cell in cells:
            if cell.kind != "code":
                result += [_reference(source, cell.number, hit) for hit in self._mentions(cell.text, folder)]
                continue
            tree, magics = parse_cell(cell.text)
            if tree is None:
                result += [_reference(source, cell.number, hit) for hit in self._unparsed(cell.text, folder)]
                continue
            parsed.append((cell, tree))
            shell = find_in_text(cell.text, "shell", self._matcher, folder, lines=magics)
            hits = [Hit(hit.line, hit.column, hit.line, hit.end, hit.text, hit.match) for hit in shell]
            if not magics and "#" in cell.text:
                hits += find_comments(cell.text, self._matcher, folder)
            result += [_reference(source, cell.number, hit) for hit in hits]
        texts = [cell.text for cell, _ in parsed]
        try:
            parts = find_in_python([tree for _, tree in parsed], texts, self._matcher, folder)
        except RecursionError:
            parts = [self._as_text(cell.text, folder) for cell, _ in parsed]
        for (cell, _), part in zip(parsed, parts, strict=True):
            result += [_reference(source, cell.number, hit) for hit in part]
        return result

    def _mentions(self, text: str, folder: str) -> list[Hit]:
        found = find_in_text(text, "docs", self._matcher, folder)
        return [Hit(hit.line, hit.column, hit.line, hit.end, hit.text, hit.match) for hit in found]


def _reference(source: Source, cell: int | None, hit: Hit) -> Reference:
    return Reference(
        source.label,
        source.kind,
        cell,
        hit.line,
        hit.column,
        hit.end_line,
        hit.end_column,
        _short(hit.text),
        *_how(hit.match),
    )


def _how(match: Match) -> tuple[How, tuple[str, ...]]:
    return match.how, tuple(sorted(match.targets))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _lines_of(text: str, offsets: list[int]) -> set[int]:
    """The numbers of the lines in which the offsets lie."""
    lines, line, place = set(), 1, 0
    ends = iter(sorted(offsets))
    for offset in ends:
        between = text[place:offset]
        line += between.count("\n") + between.count("\r") - between.count("\r\n")
        place = offset
        lines.add(line)
    return lines
