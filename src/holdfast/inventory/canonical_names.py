"""Patterns of names in rules: what they fit, what stands at their wildcards, a name that a pattern and a text share.

A pattern is a path or a dotted name with ``*`` and ``?`` within a name, ``[abc]``, and ``**`` for any folders. A ``*``
at the start of a name is at least one character: ``_best.pth`` alone is the end of a name and none of ``*_best.pth``.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from holdfast.inventory.ref_pattern import Component, OneOf, Piece, Wild, has_letters, match_name, parse_form, suffix_of

# what no file's name is longer than
MAX_PART_CHARACTERS = 255
MAX_NAME_CHARACTERS = 1024
# a name with more unknown parts says nothing
MAX_WILDCARDS = 16
# so many folders of a text are looked at, from its end
MAX_FOLDERS = 24
LEAST_WORD_CHARACTERS = 3

_CLASS = re.compile(r"(?:\w(?:-\w)?)+")
_CLIMB: Component = ("..",)
_DEEP: Component = (Wild.DEEP,)
_ANY: Component = (Wild.STAR,)

Token = str | Wild | OneOf
Aligned = tuple[int, tuple[str, ...]] | None


class Captures(NamedTuple):
    """What stands at the wildcards of a pattern: within names, and for whole folders (``**``)."""

    names: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class NamePattern:
    """A pattern of paths (``separator`` ``/``) or of dotted names (``.``).

    Attributes:
        text: as it was written.
        components: its names, cut at the separators.
        separator: between names.
    """

    text: str
    components: tuple[Component, ...]
    separator: str = "/"
    _expression: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_expression", re.compile(_expression(self.components, re.escape(self.separator))))

    @property
    def is_literal(self) -> bool:
        """Whether it is one name."""
        return all(isinstance(piece, str) for component in self.components for piece in component)

    @property
    def words(self) -> frozenset[str]:
        """Texts of which a place that names it holds at least one: its suffix, its last folder, what stands fixed."""
        *folders, last = self.components
        suffix = suffix_of(last) if self.separator == "/" else ""
        found = {suffix, *_runs(last, suffix)}
        named = [folder for folder in folders if has_letters(folder)]
        if named and (self.separator == "/" or not found - {""}):
            found.update(_runs(named[-1], "") or _runs(named[-1], "", 1))
        return frozenset(found - {""}) or frozenset(run for part in self.components for run in _runs(part, "", 1))

    @property
    def is_telling(self) -> bool:
        """Whether a name without its folders can say that the pattern fits: more than its suffix stands fixed in it."""
        last = self.components[-1]
        return bool(_runs(last, suffix_of(last), 1))

    def captures(self, name: str) -> Captures | None:
        """What stands at the wildcards in ``name``; None where the pattern does not fit it."""
        found = self._expression.fullmatch(name) if len(name) <= MAX_NAME_CHARACTERS else None
        if found is None:
            return None
        groups = iter(found.groups())
        names, folders = [], []
        for component in self.components:
            for piece in component:
                if component == _DEEP:
                    folders.append(next(groups))
                elif not isinstance(piece, str):
                    names.append(next(groups))
        return Captures(tuple(names), tuple(folders))

    def fill(self, captures: Captures) -> str | None:
        """The name with these parts at its wildcards; None where they are not as many."""
        wild = [piece for part in self.components if part != _DEEP for piece in part if not isinstance(piece, str)]
        deep = sum(part == _DEEP for part in self.components)
        if len(wild) not in (0, len(captures.names)) or deep not in (0, len(captures.folders)):
            return None
        names, folders = iter(captures.names), iter(captures.folders)
        parts = []
        for component in self.components:
            if component == _DEEP:
                parts.append(next(folders).strip(self.separator))
            else:
                parts.append("".join(piece if isinstance(piece, str) else next(names) for piece in component))
        return self.separator.join(part for part in parts if part)

    def example(self, free: str) -> str:
        """A name that fits, with ``free`` (one character) at every wildcard."""
        return self.separator.join(_plain(self.components, free))

    def share(self, components: Sequence[Component], free: str = "x") -> str | None:
        """A whole name that fits, and whose end is what the components of a text can be; None where there is none.

        Args:
            components: of the text: fewer than the pattern's where it leaves out folders, more where it says others.
            free: one character, for what neither says.
        """
        known = tuple(components[-MAX_FOLDERS:])
        named = [has_letters(part) for part in self.components[:-1]]
        says_folders = any(has_letters(part) for part in known[:-1])

        @cache
        def align(rule: int, text: int) -> Aligned:
            """The name of the first ``rule`` and ``text`` components, and how many of them have none beside them."""
            if rule == 0:
                return text, ()
            if text == 0 or known[text - 1] == _CLIMB:
                if text == 0 and says_folders and any(named[:rule]) and not any(named[rule:]):
                    return None  # its folders are others
                made_up = _plain(self.components[:rule], free)
                return len(made_up), made_up
            mine, its = self.components[rule - 1], known[text - 1]
            if mine == _DEEP:
                return _best(align(rule - 1, text), _longer(align(rule, text - 1), meet(_ANY, its, free)))
            found = _longer(align(rule - 1, text - 1), meet(mine, its, free))
            if its in (_DEEP, (Wild.UNKNOWN,)):  # more folders than one
                found = _best(found, _longer(align(rule - 1, text), meet(mine, _ANY, free)))
            return found

        aligned = align(len(self.components), len(known))
        return self.separator.join(aligned[1]) if aligned is not None and aligned[1] else None


def parse_pattern(text: str, separator: str = "/") -> NamePattern:
    """The pattern that ``text`` is; a path without a folder is that name in any folder.

    Raises:
        ValueError: it is none; says why.
    """
    if text != text.strip() or not text.strip(separator):
        raise ValueError("is no name")
    if separator == "." and not re.fullmatch(r"[\w*?]+(?:\.[\w*?]+)*", text):
        raise ValueError("is no dotted name of a module, such as package.module or package.*_old")
    shape = parse_form((text.replace(".", "/") if separator == "." else text,))
    if shape is None or shape.free or shape.outside or _CLIMB in shape.components:
        raise ValueError("is no path from the folder of the rules")
    pieces = [piece for part in shape.components for piece in part]
    if Wild.UNKNOWN in pieces:
        raise ValueError("holds a placeholder; a pattern has *, ?, [abc] and **")
    if any(isinstance(piece, OneOf) and not _CLASS.fullmatch(piece.characters) for piece in pieces):
        raise ValueError("holds […] with more than letters, digits and ranges")
    parts = tuple(_with_stars(part) for part in shape.components)
    if separator == "/" and len(parts) == 1 and "/" not in text.rstrip("/"):
        parts = (_DEEP, *parts)
    try:
        pattern = NamePattern(text, parts, separator)
    except re.error as error:  # [z-a]
        raise ValueError(f"is no pattern ({error})") from error
    if not pattern.words:
        raise ValueError("fits every name")
    return pattern


def meet(rule: Component, text: Component, free: str) -> str | None:
    """A name that both can be, as short as can be; None where there is none.

    Time is the product of their lengths at most: all pairs of places, each once.
    """
    if len(text) == 1 and isinstance(text[0], str) and not match_name(rule, text[0]):
        return None  # the most frequent case by far, and the quickest
    mine, its = _tokens(rule, leading=True), _tokens(text)
    if max(len(mine), len(its)) > MAX_PART_CHARACTERS or sum(its.count(kind) for kind in Wild) > MAX_WILDCARDS:
        return None
    start, end = (0, 0), (len(mine), len(its))
    came: dict[tuple[int, int], tuple[tuple[int, int], str]] = {start: (start, "")}
    waiting = deque([start])
    while waiting and end not in came:
        place = waiting.popleft()
        one = mine[place[0]] if place[0] < end[0] else None
        two = its[place[1]] if place[1] < end[1] else None
        steps: list[tuple[tuple[int, int], str]] = []
        if one is Wild.STAR:
            steps.append(((place[0] + 1, place[1]), ""))
        if two is Wild.STAR:
            steps.append(((place[0], place[1] + 1), ""))
        if one is not None and two is not None and not (one is two is Wild.STAR):
            character = _common(one, two, free)
            if character is not None:
                steps.append(((place[0] + (one is not Wild.STAR), place[1] + (two is not Wild.STAR)), character))
        for step, character in steps:
            if step not in came:
                came[step] = (place, character)
                waiting.append(step)
    if end not in came:
        return None
    result = []
    while end != start:
        end, character = came[end]
        result.append(character)
    return "".join(reversed(result))


def _tokens(component: Component, *, leading: bool = False) -> list[Token]:
    """One for each character; what is unknown, and ``**`` within a name, is a star."""
    result: list[Token] = []
    for piece in component:
        if isinstance(piece, str):
            result += piece
        elif isinstance(piece, OneOf) or piece is Wild.ONE:
            result.append(piece)
        else:
            result += [Wild.ONE, Wild.STAR] if leading and not result else [Wild.STAR]
    return result


def _common(one: Token, two: Token, free: str) -> str | None:
    choices = [token for token in (one, two) if isinstance(token, str)]
    if not choices:
        spans = [token.characters for token in (one, two) if isinstance(token, OneOf)]
        choices = [free, *"".join(spans), *map(chr, range(ord("0"), ord("z") + 1))]
    return next((choice for choice in choices if _accepts(one, choice) and _accepts(two, choice)), None)


def _accepts(token: Token, character: str) -> bool:
    if isinstance(token, OneOf):
        return token.accepts(character)
    return token == character if isinstance(token, str) else True


def _plain(components: Sequence[Component], free: str) -> tuple[str, ...]:
    return tuple(meet(part, _ANY, free) or free for part in components if part != _DEEP)


def _longer(head: Aligned, last: str | None) -> Aligned:
    return (head[0], (*head[1], last)) if head is not None and last else None


def _best(*choices: Aligned) -> Aligned:
    return min((choice for choice in choices if choice is not None), key=lambda choice: choice[0], default=None)


def _with_stars(component: Component) -> Component:
    """``**`` within a name is a ``*``."""
    if len(component) == 1:
        return component
    pieces: list[Piece] = [Wild.STAR if piece is Wild.DEEP else piece for piece in component]
    return tuple(piece for index, piece in enumerate(pieces) if not (index and piece is pieces[index - 1] is Wild.STAR))


def _expression(components: Sequence[Component], separator: str) -> str:
    result = ""
    inner = f"[^{separator}]"
    for index, component in enumerate(components):
        last = index == len(components) - 1
        if component == _DEEP:
            result += "(.+)" if last else f"((?:{inner}+{separator})*?)"
            continue
        for position, piece in enumerate(component):
            if isinstance(piece, str):
                result += re.escape(piece)
            elif isinstance(piece, OneOf):
                result += f"([{'^' if piece.negated else ''}{piece.characters}])"
            elif piece is Wild.ONE:
                result += f"({inner})"
            else:
                result += f"({inner}{'*?' if position else '+?'})"
        result += "" if last else separator
    return result


def _runs(component: Component, suffix: str, least: int = LEAST_WORD_CHARACTERS) -> list[str]:
    """What stands fixed in a component, without its suffix."""
    texts = [piece for piece in component if isinstance(piece, str)]
    if texts and suffix and isinstance(component[-1], str):
        texts[-1] = texts[-1].removesuffix(suffix)
    return [text for text in texts if sum(map(str.isalnum, text)) >= least]
