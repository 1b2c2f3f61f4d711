"""What a text names: paths with unknown parts, matched against the files that are asked about.

A *form* is a text in which ``None`` stands for something unknown (`Form`); a string of a program may have several. Its
strings may hold placeholders (``{}``, ``%s``, ``${n}``) and globs. Everything here takes time linear in its input:
sets of positions are moved along, nothing is tried twice.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from typing import Literal

Form = tuple[str | None, ...]
How = Literal["path", "name", "pattern", "glob", "mention"]

MAX_NAME_CHARACTERS = 1024
# a pattern says something where so many letters or digits of the file's stem stand in it
LEAST_STEM_CHARACTERS = 2


class Wild(Enum):
    """A part that may be anything: within a name (unknown, or a glob's ``*``), one character, any folders."""

    UNKNOWN = "unknown"
    STAR = "*"
    ONE = "?"
    DEEP = "**"


@dataclass(frozen=True, slots=True)
class OneOf:
    """A glob's ``[abc]`` or ``[!abc]``: one character."""

    characters: str
    negated: bool

    def accepts(self, character: str) -> bool:
        """Whether the character is in the class; ranges such as ``0-9`` count."""
        inside, index, chars = False, 0, self.characters
        while index < len(chars):
            if index + 2 < len(chars) and chars[index + 1] == "-":
                inside, index = inside or chars[index] <= character <= chars[index + 2], index + 3
            else:
                inside, index = inside or chars[index] == character, index + 1
        return inside != self.negated


Piece = str | Wild | OneOf
Component = tuple[Piece, ...]

_PLACEHOLDER = re.compile(
    r"""(?P<hole>\$\{[^{}]{1,80}\}|\$\([^()]{1,80}\)|\$\d|\$[A-Za-z_]\w{0,80}|\{\{[^{}]{0,80}\}\}|\{[^{}/\\]{0,80}\}
        |%\([^()]{1,80}\)[-+\#0 ]{0,3}\d{0,3}[sdifgr]|%[-+\#0 ]{0,3}\d{0,3}(?:\.\d{1,3})?[sdifgr]|<[\w\- ]{1,40}>)
    |(?P<deep>\*\*)|(?P<star>\*)|(?P<one>\?)|\[(?P<negated>[!^]?)(?P<set>[^\[\]/\\]{1,40})\]|(?P<slash>[\\/]+)""",
    re.VERBOSE,
)
_EXTENSION = re.compile(r"\.[A-Za-z]\w{0,15}$")
# more than a plain word
DISTINCT_STEM = re.compile(r"[^\W_]+[_\-.]+[^\W_]|[^\W\d_]\d|\d[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Shape:
    """A form cut at its separators.

    Args:
        components: names with their unknown parts.
        free: it begins with something unknown, which may be any folders.
        outside: it begins at a place that is not the project's folder: ``/``, ``C:``, ``~``.
    """

    components: tuple[Component, ...]
    free: bool = False
    outside: bool = False

    @property
    def literal(self) -> bool:
        """Whether nothing in it is unknown."""
        return not self.free and all(len(item) == 1 and isinstance(item[0], str) for item in self.components)

    @property
    def globbing(self) -> bool:
        """Whether a glob is in it and nothing else that is unknown."""
        pieces = [piece for item in self.components for piece in item]
        wild = [piece for piece in pieces if not isinstance(piece, str)]
        return bool(wild) and Wild.UNKNOWN not in wild


def parse_form(form: Form) -> Shape | None:
    """The shape of a form; None for an empty or endless one."""
    components: list[Component] = [()]
    length = 0
    for part in form:
        if part is None:
            components[-1] = (*components[-1], Wild.UNKNOWN)
            continue
        length += len(part)
        if length > MAX_NAME_CHARACTERS:
            return None
        for piece in _parse_text(part):
            if piece == "/":
                components.append(())
            elif isinstance(piece, str) and components[-1] and isinstance(components[-1][-1], str):
                components[-1] = (*components[-1][:-1], components[-1][-1] + piece)
            else:
                components[-1] = (*components[-1], piece)
    first = components[0]
    outside = len(components) > 1 and (not first or first == ("~",) or _is_drive(first))
    if outside:
        components = components[1:]
    free = False
    # a leading unknown folder is any folder or none
    while len(components) > 1 and components[0] and all(piece is Wild.UNKNOWN for piece in components[0]):
        components, free = components[1:], True
    if components[0] and components[0][0] is Wild.UNKNOWN:
        free = True
    kept = [item for item in components if item not in ((), (".",))]
    return Shape(tuple(kept), free, outside) if kept and components[-1] else None


def _is_drive(component: Component) -> bool:
    return (
        len(component) == 1 and isinstance(component[0], str) and re.fullmatch(r"[A-Za-z]:", component[0]) is not None
    )


def _parse_text(text: str) -> list[Piece]:
    pieces: list[Piece] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > end:
            pieces.append(text[end : found.start()])
        end = found.end()
        if found["hole"]:
            pieces.append(Wild.UNKNOWN)
        elif found["slash"]:
            pieces.append("/")
        elif found["set"]:
            pieces.append(OneOf(found["set"], bool(found["negated"])))
        else:
            pieces.append(Wild.DEEP if found["deep"] else Wild.STAR if found["star"] else Wild.ONE)
    if end < len(text):
        pieces.append(text[end:])
    return pieces


def match_name(component: Component, name: str) -> bool:
    """Whether a component can be ``name``."""
    places = {0}
    for piece in component:
        if isinstance(piece, str):
            places = {place + len(piece) for place in places if name.startswith(piece, place)}
        elif piece is Wild.ONE:
            places = {place + 1 for place in places if place < len(name)}
        elif isinstance(piece, OneOf):
            places = {place + 1 for place in places if place < len(name) and piece.accepts(name[place])}
        else:
            places = set(range(min(places), len(name) + 1))
        if not places:
            return False
    return len(name) in places


def match_parts(components: Sequence[Component], parts: Sequence[str]) -> bool:
    """Whether the components, from first to last, can be the path ``parts``."""
    places = {0}
    for component in components:
        if component == (Wild.DEEP,):
            places = set(range(min(places), len(parts) + 1))
        elif component == (Wild.UNKNOWN,):
            places = set(range(min(places) + 1, len(parts) + 1))
        else:
            places = {place + 1 for place in places if place < len(parts) and match_name(component, parts[place])}
        if not places:
            return False
    return len(parts) in places


@dataclass(frozen=True, slots=True)
class Target:
    """A file that is asked about: its path from the root with slashes, cut at them; whether its stem names it alone."""

    path: str
    parts: tuple[str, ...]
    stem: str
    stem_is_name: bool


@dataclass(frozen=True, slots=True)
class Match:
    """The targets that a text names, and how."""

    how: How
    targets: frozenset[str]


class Matcher:
    """Decides which targets a form names, seen from a source.

    Args:
        paths: the targets, from the root with slashes.
        root_name: the name of the root's folder, with which a path may begin that is written from its parent.
        exists: whether a path from the root is a file; a full path that leads to another file names no target.
        shared_stems: stems that something else has too (a module, a file beside the target): they name nothing.
    """

    def __init__(
        self,
        paths: Iterable[str],
        *,
        root_name: str = "",
        exists: Callable[[str], bool] = lambda _: False,
        shared_stems: frozenset[str] = frozenset(),
    ) -> None:
        unique = sorted(set(paths))
        stems = [_stem(path) for path in unique]
        once = {stem for stem in stems if stems.count(stem) == 1} if len(stems) < 500 else _singles(stems)
        self.targets = [
            Target(path, tuple(path.split("/")), stem, stem in once - shared_stems and bool(DISTINCT_STEM.search(stem)))
            for path, stem in zip(unique, stems, strict=True)
        ]
        self._root_name = root_name
        self._exists = exists
        self._by_name: dict[str, list[Target]] = {}
        for target in self.targets:
            self._by_name.setdefault(target.parts[-1], []).append(target)
            if target.stem_is_name:
                self._by_name.setdefault(target.stem, []).append(target)

    @property
    def needles(self) -> list[str]:
        """Strings of which a line holds at least one where it names a target: suffixes and words of the names."""
        found = set(self.telling_needles)
        for target in self.targets:
            words = re.split(r"[\W_]+", target.parts[-1])
            found.update(word for word in words if len(word) > 2 and not word.isdigit())
        return sorted(found)

    @property
    def telling_needles(self) -> frozenset[str]:
        """Strings of which a file holds at least one: suffixes, stems, and folders for globs of all that is in them."""
        found: set[str] = set()
        for target in self.targets:
            suffix = PurePosixPath(target.parts[-1]).suffix
            found.update([suffix or target.parts[-1], target.stem, *target.parts[-2:-1]])
        return frozenset(found - {""})

    def match(self, forms: Iterable[Form], folder: str = "", *, listing: bool = False) -> Match | None:
        """What the forms of one place name; None for nothing.

        Args:
            forms: the texts it may have.
            folder: that of the source, from the root, to which paths may be relative.
            listing: it is an argument of a glob, so that ``*`` alone is meant.
        """
        found: set[str] = set()
        kinds: set[How] = set()
        for form in forms:
            shape = parse_form(form)
            if shape is None:
                continue
            named = self._literal(shape, folder) if shape.literal else self._pattern(shape, folder, listing)
            if named:
                found |= named
                plain: How = "path" if len(shape.components) > 1 else "name"
                kinds.add(plain if shape.literal else "glob" if shape.globbing else "pattern")
        if not found:
            return None
        return Match(next(how for how in ("pattern", "glob", "path", "name") if how in kinds), frozenset(found))

    def _literal(self, shape: Shape, folder: str) -> set[str]:
        names = [str(item[0]) for item in shape.components]
        names[-1] = names[-1].removesuffix(".dvc")  # the file with which DVC tracks the target
        candidates = self._by_name.get(names[-1])
        if not candidates:
            return set()
        climbs = names[0] == ".."
        if not shape.outside:
            for base in dict.fromkeys(("", folder)):
                if (path := _resolve(base, names)) is None:
                    continue
                exact = {target.path for target in candidates if target.path in (path, _without_stem_gap(path, target))}
                if exact:
                    return exact
                if len(names) > 1 and self._exists(path):
                    return set()  # it is another file
        names = [name for name in names if name != ".."]
        return {target.path for target in candidates if self._loosely(names, target, shape.outside or climbs)}

    def _loosely(self, names: list[str], target: Target, outside: bool) -> bool:
        folders, wanted = names[:-1], target.parts[:-1]
        if len(folders) <= len(wanted):
            # a path written from some folder in between; one that begins outside must say the whole
            if outside and len(folders) != len(wanted):
                return False
            return not folders or tuple(folders) == wanted[-len(folders) :]
        if wanted and tuple(folders[-len(wanted) :]) != wanted:
            return False
        before = folders[: len(folders) - len(wanted)]
        return outside or before[-1] == self._root_name

    def _pattern(self, shape: Shape, folder: str, listing: bool) -> set[str]:
        last = shape.components[-1]
        specific = _stem_characters(last) >= LEAST_STEM_CHARACTERS
        has_folder = any(has_letters(item) for item in shape.components[:-1])
        suffix = suffix_of(last)
        if not (specific or listing or (suffix and (has_folder or shape.globbing))):
            return set()
        if listing and shape.free and not specific and not has_folder:
            return set()  # every file of an unknown folder
        anchored: set[str] = set()
        loose: set[str] = set()
        anchors = [] if shape.free or shape.outside else self._anchors(shape, folder)
        for target in self.targets:
            for parts, allowed in self._readings(target, suffix, has_folder):
                if not allowed or not match_name(last, parts[-1]):
                    continue
                if any(match_parts(components, parts) for components in anchors):
                    anchored.add(target.path)
                elif (specific or has_folder) and self._suffix_match(shape, parts):
                    loose.add(target.path)
        return anchored or loose

    def _readings(self, target: Target, suffix: str, has_folder: bool) -> list[tuple[tuple[str, ...], bool]]:
        readings = [(target.parts, True)]
        if not suffix:  # a stem with unknown parts names a file only together with its folder
            readings.append(((*target.parts[:-1], target.stem), has_folder and target.stem != target.parts[-1]))
        return readings

    def _anchors(self, shape: Shape, folder: str) -> list[tuple[Component, ...]]:
        result = []
        for base in dict.fromkeys(("", folder)):
            parts: list[Component] = [(part,) for part in base.split("/") if part]
            for item in shape.components:
                if item == ("..",):
                    if not parts:
                        break
                    parts.pop()
                else:
                    parts.append(item)
            else:
                result.append(tuple(parts))
        return result

    def _suffix_match(self, shape: Shape, parts: tuple[str, ...]) -> bool:
        climbs = shape.components[0] == ("..",)
        components = tuple(item for item in shape.components if item != ("..",))
        starts = range(len(parts)) if not shape.outside else ()
        if any(match_parts(components, parts[start:]) for start in starts):
            return True
        if not (shape.outside or climbs or components[0] == (self._root_name,)):
            return False
        return any(match_parts(components[start:], parts) for start in range(len(components)))


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _singles(names: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    twice = {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
    return seen - twice


def _resolve(base: str, names: Sequence[str]) -> str | None:
    parts = [part for part in base.split("/") if part]
    for name in names:
        if name == "..":
            if not parts:
                return None
            parts.pop()
        else:
            parts.append(name)
    return "/".join(parts)


def _without_stem_gap(path: str, target: Target) -> str | None:
    # `models/a_best` for `models/a_best.pth`, where the stem names it
    whole = "/".join((*target.parts[:-1], target.stem))
    return target.path if target.stem_is_name and path == whole else None


def has_letters(component: Component) -> bool:
    """Whether a letter or digit stands in it."""
    return any(isinstance(piece, str) and any(map(str.isalnum, piece)) for piece in component)


def suffix_of(component: Component) -> str:
    """The suffix that a name of it has, with its dot; empty where none stands there."""
    last = component[-1]
    found = _EXTENSION.search(last) if isinstance(last, str) else None
    return found[0] if found else ""


def _stem_characters(component: Component) -> int:
    texts = [piece for piece in component if isinstance(piece, str)]
    count = sum(character.isalnum() for text in texts for character in text)
    return count - sum(map(str.isalnum, suffix_of(component)))
