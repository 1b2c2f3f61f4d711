"""References to files led to where these files are from now on: what would change is a value to look at first.

Only what is certain is rewritten, and only the characters of the path: comments, quotes, indentation, line ends, byte
order marks and encodings stay. Every other place that names an old path is listed with the reason.
"""

import difflib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from holdfast.inventory.code_rewrite import Edit, apply_edits, apply_to_notebook
from holdfast.inventory.ref_pattern import How
from holdfast.inventory.references import Reference, ReferenceReport, find_references
from holdfast.inventory.sources import (
    MAX_NOTEBOOK_BYTES,
    MAX_SOURCE_BYTES,
    Kind,
    parse_cell,
    parse_python,
    read_cells,
    source_kind,
    walk_sources,
)
from holdfast.registry.rewriting_data import find_in_data
from holdfast.registry.rewriting_found import Found, Place, Trouble
from holdfast.registry.rewriting_paths import Moves
from holdfast.registry.rewriting_python import find_in_python
from holdfast.registry.rewriting_text import find_in_markdown, find_in_shell

# what the registry says of a version was true when it was registered
REGISTRY_FOLDER = "registry"

_ESCAPE = re.compile(
    r"\\(?:x(?P<x>H{2})|u(?P<u>H{4})|U(?P<big>H{8})|(?P<octal>[0-7]{1,3})|(?P<same>[\"'\\/ ])|(?P<blank>_))".replace(
        "H", "[0-9A-Fa-f]"
    )
)
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\}|\(\w+\))")
_BY_HOW: dict[How, str] = {
    "pattern": "the name is put together from parts",
    "glob": "a pattern finds whatever lies there",
    "name": "it gives the name without its folder",
    "path": "it is written from another folder than the project's or the file's own",
    "mention": "",
}


@dataclass(frozen=True)
class Rewrite:
    """A file that changes.

    Args:
        file: from the root.
        edits: its changes, ordered by cell and place.
        before: its bytes.
        after: its bytes with the edits made.
    """

    file: str
    edits: tuple[Edit, ...]
    before: bytes
    after: bytes

    def diff(self) -> str:
        """The change as a unified diff that ``git apply`` takes; bytes that are no UTF-8 are read as Latin-1."""
        before, after = _lines(_decoded(self.before)), _lines(_decoded(self.after))
        lines = difflib.unified_diff(before, after, f"a/{self.file}", f"b/{self.file}")
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Left:
    """A place that names an old path and is left to people.

    Args:
        file: from the root.
        cell: of a notebook; None elsewhere.
        line: from 1.
        text: what stands there.
        target: the old path; the first of them where several may be meant.
        why: why it is not rewritten.
    """

    file: str
    cell: int | None
    line: int
    text: str
    target: str
    why: str

    @property
    def place(self) -> str:
        """``file:line``, or ``file[cell]:line``."""
        return f"{self.file}[{self.cell}]:{self.line}" if self.cell is not None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class RewritePlan:
    """What rewriting would do.

    Args:
        root: the project's folder.
        moves: old path → new path, from the root.
        rewrites: the files that change, ordered.
        left: places that a person must look at, ordered.
        notes: files that could not be read.
    """

    root: Path
    moves: Mapping[str, str]
    rewrites: tuple[Rewrite, ...]
    left: tuple[Left, ...]
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The files that change, from the root."""
        return tuple(rewrite.file for rewrite in self.rewrites)

    def diff(self) -> str:
        """All changes as one unified diff."""
        return "".join(rewrite.diff() for rewrite in self.rewrites)

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``: the edits of each file and what is left, without the files' bytes."""
        return {
            "moves": dict(self.moves),
            "rewrites": [{"file": item.file, "edits": [asdict(edit) for edit in item.edits]} for item in self.rewrites],
            "left": [asdict(item) | {"place": item.place} for item in self.left],
            "notes": list(self.notes),
        }


def plan_rewrites(
    root: Path,
    moves: Mapping[str, str],
    *,
    report: ReferenceReport | None = None,
    keep: Collection[str] | None = None,
    documents: bool = False,
) -> RewritePlan:
    """What leads every reference to an old path to the new one; changes nothing.

    Args:
        root: the project's folder.
        moves: old path → new path, both from ``root`` with slashes. Neither need exist.
        report: who refers to the old paths, where the caller has asked already.
        keep: folders (from ``root``) in which nothing changes; unless given, those of the old paths, since a run's
            folder stays as the run left it. ``registry/`` is always left, and nothing of it is listed.
        documents: rewrite links of Markdown documents too.

    Raises:
        UsageError: a path is absolute, leads out of the project, or is both old and new.
    """
    moves = {old: new for old, new in moves.items() if old != new}
    known = Moves(root, moves)
    if not moves:
        return RewritePlan(root, {}, (), ())
    if report is None:
        report = find_references(root, moves)
    notes = list(report.notes)
    by_file: dict[str, list[Reference]] = {}
    for reference in report.references:
        if not reference.is_mention and not moves.keys().isdisjoint(reference.targets):
            by_file.setdefault(reference.file, []).append(reference)
    kept = _kept(moves) if keep is None else {folder.strip("/") for folder in keep}
    rewrites: list[Rewrite] = []
    left: list[Left] = []
    for file, kind in _files(root, notes):
        if file.split("/")[0] == REGISTRY_FOLDER or (data := _read(root / file, kind)) is None:
            continue
        references = by_file.get(file, [])
        text = _decoded(data)
        if not references and not _mentions(text, known.names):
            continue
        if (folder := next((f for f in sorted(kept) if f"{file}/".startswith(f"{f}/")), None)) is not None:
            why = f"what lies in {folder} stays as it is"
            left += [_left_reference(reference, moves, why) for reference in references]
            continue
        reader = _File(file, kind, text.removeprefix("\ufeff"), known, references, documents=documents)
        reader.read()
        left += reader.left()
        edits = reader.edits()
        if not _is_utf8(data):
            why = "the file is not UTF-8, and the path needs it"
            left += [_left_edit(edit, moves, why) for edit in edits if not (edit.old + edit.new).isascii()]
            edits = [edit for edit in edits if (edit.old + edit.new).isascii()]
        if edits:
            after = _applied(kind, text, edits)
            if after is None:
                why = "the notebook is written in a way that is not rewritten"
                left += [_left_edit(edit, moves, why) for edit in edits]
                continue
            rewrites.append(Rewrite(file, tuple(edits), data, _encoded(after, data)))
    left = sorted(set(left), key=lambda item: (item.file, item.cell or 0, item.line, item.text, item.target))
    return RewritePlan(root, moves, tuple(rewrites), tuple(left), tuple(dict.fromkeys(notes)))


class _File:
    """One source: its parts, what is found in each, and which references that accounts for."""

    def __init__(
        self, file: str, kind: Kind, text: str, moves: Moves, references: list[Reference], *, documents: bool
    ) -> None:
        self._file, self._kind, self._text, self._moves = file, kind, text, moves
        self._references, self._documents = references, documents
        self._found: list[tuple[Place, Found]] = []

    def read(self) -> None:
        place = Place(self._text, self._file)
        if self._kind == "config":
            self._found.append((place, find_in_data(place, self._moves)))
        elif self._kind in ("shell", "build"):
            self._found.append((place, find_in_shell(place, self._kind, self._moves)))
        elif self._kind == "docs":
            is_markdown = self._documents and self._file.lower().endswith(".md")
            self._found.append((place, find_in_markdown(place, self._moves) if is_markdown else Found()))
        elif self._kind == "python":
            tree = parse_python(self._text)
            if tree is not None:
                self._python([(place, tree)])
            else:
                self._found.append((place, Found()))
        else:
            self._notebook()

    def _notebook(self) -> None:
        parts = []
        for cell in read_cells(self._text) or ():
            if cell.kind != "code":
                continue
            place = Place(cell.text, self._file, cell.number)
            tree, magics = parse_cell(cell.text)
            if magics:
                self._found.append((place, find_in_shell(place, "shell", self._moves, magics)))
            if tree is not None:
                parts.append((place, tree))
            else:
                self._found.append((place, Found()))
        self._python(parts)

    def _python(self, parts: list[tuple[Place, Any]]) -> None:
        spoken = {(item.cell, item.line, item.column) for item in self._references if item.how == "path"}
        try:
            founds = find_in_python(parts, self._moves, spoken)
        except RecursionError:  # nested too deeply to be walked; the references are listed
            founds = [Found() for _ in parts]
        self._found += [(place, found) for (place, _), found in zip(parts, founds, strict=True)]

    def edits(self) -> list[Edit]:
        """All edits, ordered by cell and place."""
        edits = [edit for _, found in self._found for edit in found.all_edits]
        return sorted(edits, key=lambda edit: (edit.cell or 0, edit.start))

    def left(self) -> Iterator[Left]:
        """What is not rewritten: troubles, and references that no edit and no trouble accounts for."""
        for place, found in self._found:
            for trouble in found.troubles:
                yield _left_trouble(place, trouble)
        for reference in self._references:
            passes_on = self._kind in ("shell", "build") and _VARIABLE.fullmatch(reference.text)
            if not passes_on and not any(_accounts(place, found, reference) for place, found in self._found):
                yield _left_reference(reference, self._moves.moves, self._reason(reference))

    def _reason(self, reference: Reference) -> str:
        if self._kind == "python" and parse_python(self._text) is None:
            return "this Python does not parse the file"
        if reference.text.endswith(".dvc"):
            return "it names the file with which DVC tracks it"
        if reference.how == "path" and (reference.text[:1] in ("/", "~") or reference.text[1:2] == ":"):
            return "it begins outside of the project"
        return _BY_HOW[reference.how]


def _accounts(place: Place, found: Found, reference: Reference) -> bool:
    if place.cell != reference.cell:
        return False
    start = place.offset(reference.line, reference.column)
    end = place.offset(reference.end_line, reference.end_column)
    spans = [(edit.start, edit.start + len(edit.old)) for edit in found.all_edits]
    spans += [(trouble.start, trouble.end) for trouble in found.troubles]
    return any(first < end and start < last for first, last in spans)


def _left_trouble(place: Place, trouble: Trouble) -> Left:
    text = " ".join(place.text[trouble.start : trouble.end].split())
    return Left(place.file, place.cell, place.position(trouble.start)[0], text, trouble.target, trouble.why)


def _left_reference(reference: Reference, moves: Mapping[str, str], why: str) -> Left:
    target = next(target for target in reference.targets if target in moves)
    return Left(reference.file, reference.cell, reference.line, reference.text, target, why)


def _left_edit(edit: Edit, moves: Mapping[str, str], why: str) -> Left:
    name = edit.old.replace("\\", "/").rpartition("/")[2]
    target = next((old for old in moves if old.endswith(name)), min(moves))
    return Left(edit.file, edit.cell, edit.line, edit.old, target, why)


def _kept(moves: Mapping[str, str]) -> set[str]:
    """The folders of old paths, but for those into which something moves, and the project's own."""
    folders = {old.rpartition("/")[0] for old in moves}
    return {folder for folder in folders if folder and not any(new.startswith(f"{folder}/") for new in moves.values())}


def _files(root: Path, notes: list[str]) -> Iterator[tuple[str, Kind]]:
    for source in walk_sources(root, notes):
        if (kind := source_kind(source.label.rpartition("/")[2])) is not None:
            yield source.label, kind


def _read(path: Path, kind: Kind) -> bytes | None:
    """The bytes of a source; None for what `find_references` does not read either."""
    try:
        data = path.read_bytes()
    except OSError:
        return None  # the report has a note of it
    limit = MAX_NOTEBOOK_BYTES if kind == "notebook" else MAX_SOURCE_BYTES
    return data if len(data) <= limit and b"\0" not in data else None


def _mentions(text: str, names: Collection[str]) -> bool:
    """Whether a text holds one of the names, also where it is written with escapes or doubled quotes and braces."""
    readings = [text]
    if "\\" in text:
        shown = _ESCAPE.sub(_meant, text)
        # two escapes may stand for one character
        readings.append(shown.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if any(mark in name for name in names for mark in "'{}"):
        readings.append(text.replace("''", "'").replace("{{", "{").replace("}}", "}"))
    return any(name in reading for reading in readings for name in names)


def _meant(found: re.Match[str]) -> str:
    if found["same"] or found["blank"]:
        return found["same"] or "\xa0"  # the blank that YAML writes so
    code = int(found["octal"], 8) if found["octal"] else int(found["x"] or found["u"] or found["big"], 16)
    return chr(code) if code <= sys.maxunicode else "?"


def _decoded(data: bytes) -> str:
    """The text; a byte order mark is its first character, and Latin-1 gives back every byte."""
    return data.decode("utf-8" if _is_utf8(data) else "latin-1")


def _encoded(text: str, like: bytes) -> bytes:
    return text.encode("utf-8" if _is_utf8(like) else "latin-1")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _applied(kind: Kind, text: str, edits: list[Edit]) -> str | None:
    """The text with the edits made; None for a notebook that is written in a way that is not rewritten."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    if kind != "notebook":
        return mark + apply_edits(text.removeprefix(mark), edits)
    try:
        return mark + apply_to_notebook(text.removeprefix(mark), edits)
    except (ValueError, KeyError, TypeError):
        return None


def _lines(text: str) -> list[str]:
    # as git counts them: nothing but a line feed ends a line
    lines = text.split("\n")
    return [*(f"{line}\n" for line in lines[:-1]), *([lines[-1]] if lines[-1] else [])]
