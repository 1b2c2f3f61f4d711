"""Places that refer to a model, a module or a version that does not count, each with the name that does.

The rules stand under ``canonical:`` in ``holdfast.yaml``; deprecated versions come from the registry, and models in an
archive are out of use. Nothing is imported or run, and a file is read once.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.inventory.canonical_answers import About, Answer, Answers
from holdfast.inventory.canonical_guard import Archives, Guard, Modules
from holdfast.inventory.canonical_imports import ImportFinder, ImportHit
from holdfast.inventory.canonical_rules import Canon, Deprecation, canon_of, check_rules
from holdfast.inventory.canonical_tree import RuleTree
from holdfast.inventory.config import read_config
from holdfast.inventory.references import Finder, Reference
from holdfast.inventory.sources import Source, read_cells, read_source, source_kind, split_lines, walk_sources
from holdfast.repo.workspace import CONFIG_FILE, find_config

_ALLOW = re.compile(r"(?:#|;|//|<!--)\s*holdfast:\s*allow\b")


@dataclass(frozen=True, slots=True)
class Finding:
    """A place that names what does not count.

    Args:
        file: the source, from the root.
        cell: of a notebook, from 1; None elsewhere.
        line: from 1.
        column: from 1, in characters.
        end_line: the last line of the place.
        end_column: the column after it.
        about: ``model``, ``module``, ``version`` (deprecated in the registry) or ``archived``.
        text: what stands there, ``{}`` for unknown parts.
        right: what should; empty where nothing takes its place.
        note: what to know about that; empty for nothing.
        why: what the rule says.
        mention: it is only said, in a comment, a docstring, a message or a document.
    """

    file: str
    cell: int | None
    line: int
    column: int
    end_line: int
    end_column: int
    about: About
    text: str
    right: str
    note: str
    why: str
    mention: bool

    @property
    def place(self) -> str:
        """``file:line:column``, with ``[cell]`` after the file of a notebook."""
        cell = f"[{self.cell}]" if self.cell is not None else ""
        return f"{self.file}{cell}:{self.line}:{self.column}"

    @property
    def fault(self) -> str:
        """What is wrong, in words."""
        state = {"model": "not canonical", "module": "not canonical", "version": "deprecated", "archived": "archived"}
        return f"`{self.text}` is {state[self.about]}" + (f" ({self.why})" if self.why else "")

    @property
    def message(self) -> str:
        """What is wrong and what is right, in words."""
        right = f": use `{self.right}`" if self.right else ""
        return self.fault + right + (f"; {self.note}" if self.note else "")


@dataclass(frozen=True)
class CheckReport:
    """What was found.

    Attributes:
        findings: ordered by file, cell, line and column.
        rules: how many there are: written ones, and deprecated versions.
        sources: how many text sources were read.
        allowed: places that a comment excuses.
        notes: what could not be read.
    """

    findings: tuple[Finding, ...]
    rules: int
    sources: int
    allowed: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``."""
        return {
            "format": "holdfast check 1",
            "findings": [asdict(finding) for finding in self.findings],
            "rules": self.rules,
            "sources": self.sources,
            "allowed": self.allowed,
            "notes": list(self.notes),
        }


def find_canon(root: Path) -> Canon:
    """The rules that count for a folder: those of its ``holdfast.yaml`` or of the repository's, if any.

    Raises:
        holdfast.inventory.config.ConfigError: the file says something that Holdfast does not know.
        OSError: it cannot be read.
    """
    path = find_config(root)
    return Canon() if path is None else canon_of(read_config(path).section("canonical"))


def check(
    root: Path,
    canon: Canon,
    *,
    files: Iterable[Path] | None = None,
    deprecations: Sequence[Deprecation] = (),
    skipped: frozenset[str] = frozenset(),
    mentions: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> CheckReport:
    """Look for what does not count in the sources of a tree.

    Args:
        root: the folder that paths of rules are seen from.
        canon: the rules.
        files: what to read, absolute or from the working folder; all of ``root`` unless given. What is no text source
            of the tree, or a symbolic link, is passed over.
        deprecations: of registered versions.
        skipped: folders (from the root) whose files may name anything, as the registry's own.
        mentions: list what is only said, too.
        progress: called with each source's path before it is read.

    Raises:
        holdfast.inventory.config.ConfigError: a rule names nothing, or what another one forbids.
    """
    root = root.resolve()
    tree = RuleTree(root)
    check_rules(canon, tree)
    checker = _Checker(Guard(canon, deprecations, tree), tree, mentions=mentions)
    notes: list[str] = []
    sources = walk_sources(root, notes) if files is None else _sources_of(root, files)
    findings: list[Finding] = []
    read = 0
    for source in sources:
        if source.path.name == CONFIG_FILE or canon.allowed.file(source.label) or _is_below(source.label, skipped):
            continue
        progress(source.label)
        if (text := read_source(source, notes)) is not None:
            read += 1
            findings += checker.check(source, text)
    findings.sort(key=lambda item: (item.file, item.cell or 0, item.line, item.column))
    rules = len(canon.rules) + len(deprecations)
    return CheckReport(tuple(findings), rules, read, checker.allowed, tuple(dict.fromkeys([*notes, *tree.notes])))


def _sources_of(root: Path, files: Iterable[Path]) -> list[Source]:
    found: dict[str, Source] = {}
    for file in files:
        if file.is_dir():
            below = [source.path for source in walk_sources(file, [])]
        else:
            below = [file] if file.is_file() else []
        for path in below:
            place = path.parent.resolve() / path.name
            kind = source_kind(path.name)
            if kind is not None and place.is_relative_to(root) and not place.is_symlink():
                label = place.relative_to(root).as_posix()
                found[label] = Source(place, label, kind)
    return [source for _, source in sorted(found.items())]


def _is_below(label: str, folders: frozenset[str]) -> bool:
    return any(label.startswith(f"{folder}/") for folder in folders)


class _Checker:
    def __init__(self, guard: Guard, tree: RuleTree, *, mentions: bool) -> None:
        self._guard = guard
        self._mentions = mentions
        self._finder = Finder(guard)
        modules = {key: judge for key, judge in guard.judges.items() if isinstance(judge, Modules)}
        self._imports = ImportFinder(modules, tree)
        self._answers = Answers(guard, tree)
        self.allowed = 0

    def check(self, source: Source, text: str) -> list[Finding]:
        """The findings of one source."""
        hits = self._imports.find(source, text)
        references = [
            reference for reference in self._finder.find(source, text) if self._mentions or not reference.is_mention
        ]
        if not hits and not references:
            return []
        parts = _parts(source, text)
        findings = [self._of_import(source.label, hit) for hit in hits]
        # the name in `import_module("…")` is one with its import
        taken = {(hit.key, hit.cell, line) for hit in hits for line in range(hit.line, hit.end_line + 1)}
        findings += [
            self._of_reference(key, reference, parts[reference.cell])
            for reference in references
            for key in self._telling(reference)
            if (key, reference.cell, reference.line) not in taken
        ]
        kept = [finding for finding in findings if not _is_allowed(finding, parts[finding.cell])]
        self.allowed += len(findings) - len(kept)
        return kept

    def _telling(self, reference: Reference) -> Sequence[str]:
        """The rules against a place; that it is in an archive counts where no other says more."""
        more = [key for key in reference.targets if not isinstance(self._guard.judges[key], Archives)]
        return more or reference.targets

    def _of_import(self, file: str, hit: ImportHit) -> Finding:
        answer = Answer("module", hit.text, hit.right, hit.note, self._answers.why(hit.key))
        return _finding(file, hit, answer, mention=False)

    def _of_reference(self, key: str, reference: Reference, lines: Sequence[str]) -> Finding:
        answer = self._answers.answer(key, reference, lines)
        return _finding(reference.file, reference, answer, mention=reference.is_mention)


def _finding(file: str, place: ImportHit | Reference, answer: Answer, *, mention: bool) -> Finding:
    return Finding(
        file,
        place.cell,
        place.line,
        place.column,
        place.end_line,
        place.end_column,
        answer.about,
        " ".join(answer.text.split()),
        " ".join(answer.right.split()),
        answer.note,
        answer.why,
        mention,
    )


def _parts(source: Source, text: str) -> dict[int | None, list[str]]:
    """The lines of a source, or of each cell of a notebook."""
    if source.kind == "notebook":
        return {cell.number: split_lines(cell.text) for cell in read_cells(text) or ()}
    return {None: split_lines(text)}


def _is_allowed(finding: Finding, lines: Sequence[str]) -> bool:
    """Whether a comment at the end of its first or its last line excuses it."""
    return any(_ALLOW.search(lines[number - 1]) for number in {finding.line, finding.end_line} if number <= len(lines))
