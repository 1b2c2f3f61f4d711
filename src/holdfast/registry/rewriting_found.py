"""What was found in one text: edits that are certain, and places that a person must look at."""

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.inventory.code_rewrite import Edit
from holdfast.registry.rewriting_literals import CannotEncodeError, Literal
from holdfast.registry.rewriting_paths import Change

_ENDS = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A span that names an old path and is not rewritten.

    Args:
        start: its first character, from 0.
        end: behind its last one.
        target: the old path.
        why: what hinders, as the end of a sentence.
    """

    start: int
    end: int
    target: str
    why: str


@dataclass
class Found:
    """What was found in one text, file or cell.

    Args:
        edits: those that belong together (one value's, one expression's) in one tuple.
        troubles: what is left to people.
    """

    edits: list[tuple[Edit, ...]] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    @property
    def all_edits(self) -> list[Edit]:
        """The edits in one list."""
        return [edit for group in self.edits for edit in group]


@dataclass(frozen=True)
class Place:
    """A text and whose it is.

    Args:
        text: of the file, or of a cell.
        file: from the root.
        cell: of a notebook, from 1; None elsewhere.
    """

    text: str
    file: str
    cell: int | None = None
    _starts: list[int] = field(init=False, repr=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        self._starts.extend([0, *(found.end() for found in _ENDS.finditer(self.text))])

    @property
    def folder(self) -> str:
        """That of the file, from the root; empty for the root."""
        return self.file.rpartition("/")[0]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def offset(self, line: int, column: int) -> int:
        """The offset of a line and column, both from 1; the text's end for what lies behind it."""
        return min(self._starts[line - 1] + column - 1, len(self.text)) if line <= len(self._starts) else len(self.text)

    def edit(self, start: int, end: int, new: str) -> Edit:
        """The change of a span."""
        return Edit(self.file, self.cell, self.position(start)[0], start, self.text[start:end], new)

    def take(self, literal: Literal, changes: Sequence[Change], found: Found, why: str = "") -> None:
        """Take in the changes of one string: as edits, or as troubles where they cannot be made.

        Args:
            literal: the string.
            changes: spans of its value.
            found: what takes them.
            why: what hinders all of them; empty for nothing.
        """
        edits = []
        for change in changes:
            start, end = literal.span(change.start, change.end)
            if reason := why or change.why:
                found.troubles.append(Trouble(start, end, change.target, reason))
                continue
            try:
                edits.append(self.edit(start, end, literal.encode(change.new)))
            except CannotEncodeError as error:
                found.troubles.append(Trouble(start, end, change.target, str(error)))
        if edits:
            found.edits.append(tuple(edits))


def replaced(value: str, changes: Sequence[Change]) -> str:
    """A value with those of its changes made that nothing hinders."""
    for change in sorted(changes, key=lambda item: -item.start):
        if not change.why:
            value = value[: change.start] + change.new + value[change.end :]
    return value
