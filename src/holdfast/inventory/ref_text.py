"""Names in plain text: configurations, shell and build files, documents, comments, and Python that does not parse."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from holdfast.inventory.ref_pattern import Form, Match, Matcher
from holdfast.inventory.sources import Kind, split_lines

# what is looked at around a needle in a line without end
WINDOW_CHARACTERS = 400
MAX_FORMS = 64

_TOKEN = re.compile(
    r"""(?:\$\{[^{}\n]{1,80}\}|\$\([^()\n]{1,80}\)|\{\{[^{}\n]{0,80}\}\}|\{[^{}\s]{0,80}\}|%\([^()\s]{1,40}\)[a-z]
    |<[\w\-]{1,40}>|\[[\w!^\-]{1,16}\]|://|(?<![\w])[A-Za-z]:(?=[\\/])|[^\s"'`=,;|&(){}<>\[\]:])+""",
    re.VERBOSE,
)
_BRACES = re.compile(r"(?<!\$)\{([^{}]{1,200},[^{}]{0,200})\}")
_VARIABLE = re.compile(r"\$\{(\w{1,80})\}|\$\((\w{1,80})\)|\$([A-Za-z_]\w{0,80})")
_ASSIGNED = re.compile(r"^\s*(?:export\s+|ARG\s+|ENV\s+|local\s+)?(\w{1,80})\s*[:?]?=\s*(\S.{0,400})$", re.MULTILINE)
_LOOPED = re.compile(r"\bfor\s+(\w{1,80})\s+in\s+([^;\n]{1,1000}?)\s*(?:;|$)", re.MULTILINE)
_WORD = re.compile(r"[\w.\-/]+")


@dataclass(frozen=True, slots=True)
class TextHit:
    """A place in a text.

    Args:
        line: from 1.
        column: from 1, in characters.
        text: what stands there.
        match: what it names.
    """

    line: int
    column: int
    text: str
    match: Match

    @property
    def end(self) -> int:
        """The column after it."""
        return self.column + len(self.text)


def find_in_text(
    text: str, kind: Kind, matcher: Matcher, folder: str = "", *, lines: Iterable[int] | None = None
) -> Iterator[TextHit]:
    """The places of ``text`` that name a target; those in comments and of documents as mentions.

    Args:
        text: the whole file, or a part of it.
        kind: of the source: it says what is a comment.
        matcher: knows the targets.
        folder: of the source, from the root.
        lines: the lines (from 1) that can hold one; all unless given.
    """
    all_lines = split_lines(text)
    known = _variables(text) if kind in ("shell", "build") else {}
    for number in sorted(set(lines)) if lines is not None else range(1, len(all_lines) + 1):
        if not 1 <= number <= len(all_lines):
            continue
        line = all_lines[number - 1]
        comment = _comment_start(line, kind)
        for start, token in tokens(line):
            found = match_token(token, matcher, folder, known)
            if found is None:
                continue
            if kind == "docs" or start >= comment or "://" in token:  # what lies at a URL is another file
                found = Match("mention", found.targets)
            yield TextHit(number, start + 1, token, found)


def tokens(line: str) -> Iterator[tuple[int, str]]:
    """The words of a line that may be paths, each with where it begins; punctuation around them is none of them."""
    for found in _TOKEN.finditer(line):
        word, start = found[0], found.start()
        if word.startswith("**") and word.endswith("**") and len(word) > 4:  # bold in Markdown
            word, start = word[2:-2], start + 2
        word = word.rstrip(".!")
        if word:
            yield start, word


def match_token(token: str, matcher: Matcher, folder: str, known: Mapping[str, list[str]]) -> Match | None:
    """What one word of a text names, with the values of shell variables and ``{a,b}`` put in."""
    forms: list[Form] = [(word,) for word in islice(_expand(token, known), MAX_FORMS)]
    return matcher.match(forms, folder)


def is_command(text: str) -> bool:
    """Whether a text reads like a command line: a program, then arguments."""
    return bool(re.match(r"\s*(?:[\w./-]+/)?(?:python[\d.]*|bash|sh|cp|mv|rm|cat|dvc|git|aws|rsync|torchrun)\s", text))


def _expand(token: str, known: Mapping[str, list[str]]) -> Iterator[str]:
    waiting = [token]
    made = 0
    while waiting and made < MAX_FORMS:
        word = waiting.pop(0)
        if found := _BRACES.search(word):
            choices = found[1].split(",")
        elif found := next((item for item in _VARIABLE.finditer(word) if known.get(_name(item))), None):
            choices = known[_name(found)]
        else:
            made += 1
            yield word
            continue
        waiting += [word[: found.start()] + choice + word[found.end() :] for choice in choices[:MAX_FORMS]]
        del waiting[4 * MAX_FORMS :]


def _name(found: re.Match[str]) -> str:
    return found[1] or found[2] or found[3]


def _variables(text: str) -> dict[str, list[str]]:
    # values that are words alone: nothing is expanded twice, so nothing can run in a circle
    known: dict[str, list[str]] = {}
    unknown: set[str] = set()
    for found in [*_ASSIGNED.finditer(text), *_LOOPED.finditer(text)]:
        words = found[2].split("#")[0].replace('"', " ").replace("'", " ").split()
        if words and all(_WORD.fullmatch(word) for word in words):
            known.setdefault(found[1], []).extend(words)
        else:
            unknown.add(found[1])
    return {name: list(dict.fromkeys(words)) for name, words in known.items() if name not in unknown}


def _comment_start(line: str, kind: Kind) -> int:
    if kind in ("docs", "notebook") or (kind == "config" and line.lstrip().startswith(("{", "[", '"'))):
        # JSON has no comments, and a `#` in its strings is none
        return len(line) + 1 if not line.lstrip().startswith("#") else 0
    if kind == "config" and line.lstrip().startswith(";"):
        return 0
    quote = ""
    for index, character in enumerate(line[: 4 * WINDOW_CHARACTERS]):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            # an apostrophe within a word opens nothing
            quote = character if character == '"' or index == 0 or not line[index - 1].isalnum() else ""
        elif character == "#" and (index == 0 or line[index - 1].isspace() or kind == "python"):
            return index
    return len(line) + 1
