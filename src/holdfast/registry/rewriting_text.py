"""Paths in shell scripts, Docker- and Makefiles, and the links of Markdown documents."""

import re
import urllib.parse
from collections.abc import Iterable

from holdfast.inventory.sources import Kind
from holdfast.registry.rewriting_found import Found, Place
from holdfast.registry.rewriting_literals import plain, strict_encoder
from holdfast.registry.rewriting_paths import Change, Moves, written_by_command

# what a shell gives a meaning, outside of quotes and inside of them
_SPECIAL = " \t\\\"'`$&|;<>()[]{}*?!#~=%^"
_SPECIAL_IN = {"": _SPECIAL, '"': '\\"`$!', "'": "'\\"}
_EXPANDED = re.compile(r"[\\`$]")
_RULE = re.compile(r"\s*[^\s:=#]+(?:\s+[^\s:=]+)*\s*::?(?!=)")
_ASSIGNED = re.compile(r"(?:^|[\s;])(\w+)\s*[:?]?=\s*[\"']?$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_LINK = re.compile(r"\]\(\s*(?:<(?P<angle>[^<>\n]*)>|(?P<bare>[^\s()<>]+(?:\([^\s()]*\)[^\s()<>]*)*))")
_DEFINITION = re.compile(r" {0,3}\[[^\]\n]+\]:[ \t]*(?:<(?P<angle>[^<>\n]*)>|(?P<bare>\S+))")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)")


def find_in_shell(place: Place, kind: Kind, moves: Moves, lines: Iterable[int] | None = None) -> Found:
    """The paths in a shell script, a build file, or the lines of a cell that go to a shell.

    A word changes where it stands alone, or in quotes that hold nothing else; comments are left.

    Args:
        place: the text.
        kind: ``shell`` or ``build``.
        moves: what moves.
        lines: from 1; all unless given.
    """
    found = Found()
    wanted = set(lines) if lines is not None else None
    in_makefile = kind == "build" and not place.file.rpartition("/")[2].lower().startswith(("dockerfile", "container"))
    for number, text in enumerate(re.split(r"\r\n|\r|\n", place.text), 1):
        if (wanted is not None and number not in wanted) or not any(name in text for name in moves.names):
            continue
        start = place.offset(number, 1)
        rule = _RULE.match(text) if in_makefile and not text.startswith("\t") else None
        for first, last, quote in _shell_words(text):
            change = moves.exact(text[first:last], place.folder)
            if change is None:
                continue
            why = change.why or written_by_command(text, first, text[first:last])
            if rule is not None and last <= rule.end():
                why = "a rule makes it"
            why = why or _written_as_variable(place.text, text[:first])
            change = Change(0, last - first, change.new, change.target, why)
            what = f"a word in {quote}…{quote}" if quote else "a word without quotes"
            literal = plain(place.text, start + first, start + last, strict_encoder(what, _SPECIAL_IN[quote]))
            place.take(literal, [change], found)
    return found


def _written_as_variable(script: str, before: str) -> str:
    """Why a value must not be led elsewhere: the variable that takes it is used where something is written."""
    assigned = _ASSIGNED.search(before)
    if assigned is None:
        return ""
    use = re.compile(rf"\$(?:{assigned[1]}\b|[{{(]{assigned[1]}[}})])")
    for line in re.split(r"\r\n|\r|\n", script):
        for found in use.finditer(line[: _scan(line)[1]]):
            if written_by_command(line, found.start(), found[0]):
                return f"its variable {assigned[1]} is written or removed"
    return ""


def _shell_words(line: str) -> Iterable[tuple[int, int, str]]:
    """Where the words of a line stand that can be paths, and the quote in which each is; not those in a comment."""
    quoted, end = _scan(line)
    taken: list[tuple[int, int]] = []
    for first, last in quoted:
        inner = line[first + 1 : last - 1]
        if line[first] == '"' and _EXPANDED.search(inner):
            continue
        taken.append((first, last))
        # beside the quotes nothing may stand that belongs to the word
        around = line[first - 1 : first] + line[last : last + 1]
        if inner and not re.search(r"[\w/.$}\"'\\*?-]", around):
            yield first + 1, last - 1, line[first]
    for found in re.finditer(r"[^\s\"'=,;|&()<>:`\[\]]+", line[:end]):
        if not any(first <= found.start() < last for first, last in taken):
            before, after = line[found.start() - 1 : found.start()], line[found.end() : found.end() + 1]
            if (
                before not in ("'", '"', "\\", "]")
                and after not in ("'", '"', "[")
                and not _in_url(line, found.start())
            ):
                yield found.start(), found.end(), ""
    for first, last in taken:
        yield from _words_in_quotes(line, first, last)


def _words_in_quotes(line: str, first: int, last: int) -> Iterable[tuple[int, int, str]]:
    """Words of a command within quotes: ``bash -c "python serve.py models/a.pt"``."""
    inner = line[first + 1 : last - 1]
    if " " in inner:
        for found in re.finditer(r"[^\s=,;|&()<>:]+", inner):
            yield first + 1 + found.start(), first + 1 + found.end(), line[first]


def _in_url(line: str, place: int) -> bool:
    return re.search(r"\w://?\S*$", line[:place]) is not None


def _scan(line: str) -> tuple[list[tuple[int, int]], int]:
    """The quoted spans of a line, quotes included, and where its comment begins."""
    spans: list[tuple[int, int]] = []
    start = -1
    index = 0
    while index < len(line):
        character = line[index]
        if character == "\\" and (start < 0 or line[start] == '"'):
            index += 1
        elif start >= 0:
            if character == line[start]:
                spans.append((start, index + 1))
                start = -1
        elif character in "\"'":
            start = index
        elif character == "#" and (index == 0 or line[index - 1].isspace()):
            return spans, index
        index += 1
    return spans, len(line)


def find_in_markdown(place: Place, moves: Moves) -> Found:
    """The links of a Markdown document that lead to an old path; what it says in words and in code is left.

    Links are seen from the document's folder, as Markdown does, and those that begin with ``/`` from the project's.
    """
    found = Found()
    fence = ""
    for number, text in enumerate(re.split(r"\r\n|\r|\n", place.text), 1):
        mark = _FENCE.match(text)
        if mark and (not fence or (mark[1].startswith(fence) and not text.strip().strip(fence[0]))):
            fence = "" if fence else mark[1]
            continue
        if fence or text.startswith(("    ", "\t")):
            continue
        code = [span.span() for span in _CODE_SPAN.finditer(text)]
        definition = _DEFINITION.match(text)
        for link in [*_LINK.finditer(text), *([definition] if definition else [])]:
            if any(first <= link.start() < last for first, last in code):
                continue
            group = "angle" if link["angle"] is not None else "bare"
            _link(place, moves, found, place.offset(number, link.start(group) + 1), link[group], group == "angle")
    return found


def _link(place: Place, moves: Moves, found: Found, start: int, written: str, angle: bool) -> None:
    path = re.split(r"[?#]", written)[0]
    plain_path = urllib.parse.unquote(path)
    if not path or "\\" in plain_path or ":" in plain_path.split("/")[0]:
        return
    from_root = plain_path.startswith("/")
    folder = "" if from_root else place.folder
    names = f"./{plain_path.lstrip('/')}" if from_root else plain_path
    change = moves.linked(names, folder)
    if change is None:
        return
    new = urllib.parse.quote(change.new, safe="/~!$&'*+,;=:@" + (" ()" if angle else ""))
    new = f"/{new}" if from_root else f"./{new}" if path.startswith("./") and not new.startswith("..") else new
    found.edits.append((place.edit(start, start + len(path), new),))
