"""Markdown that people and programs write together: escaped text, tables, generated parts, headings with their text."""

import html
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from holdfast.errors import HoldfastError

# by their numbers, since renderers differ in what a backslash does within a table
_MARKS = {ord(mark): f"&#{ord(mark)};" for mark in "|\\`*[]~"}
_OUTER_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
# what would make a line a heading, a list or a rule
_BLOCK_BEGINS = re.compile(r"\d+[.)](?!\S)|[-+#=]")
_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,})(?P<rest>.*)")
_HEADING = re.compile(r" {0,3}(?P<level>#{1,6})(?:[ \t]+(?P<text>.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(?P<mark>=+|-+)[ \t]*$")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)


class CardError(HoldfastError):
    """A card or README cannot be made anew without losing what someone wrote."""


def escape(text: str) -> str:
    """Text that reads as it is in a heading or a table's cell: one line, no mark-up, no HTML."""
    line = " ".join(visible(text).split())
    if begins := _BLOCK_BEGINS.match(line):
        at = begins.end() - 1
        return escape(line[:at]) + f"&#{ord(line[at])};" + escape(f".{line[at + 1 :]}")[1:]
    return _OUTER_UNDERSCORE.sub("&#95;", html.escape(line, quote=False).translate(_MARKS))


def code(text: str) -> str:
    """Text as code within a line or a table's cell, whatever is in it."""
    line = visible(text)
    if line and line == line.strip() and not set(line) & {"`", "|", "\\", "\n"}:
        return f"`{line}`"
    return f"<code>{html.escape(line, quote=False).translate(_MARKS)}</code>" if line else ""


def visible(text: str) -> str:
    r"""The text with line ends, control and other invisible characters written as ``\n`` and the like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table of cells that are escaped already; ``right`` are the columns of numbers, counted from 0."""
    rule = ["--:" if place in right else "---" for place in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def put_part(text: str, name: str, content: str, what: str, *, lines_before: int = 0) -> str:
    """The text with a generated part made anew, or added at the end where it has none.

    Args:
        text: with ``\\n`` at the ends of its lines.
        name: of the part.
        content: what stands between the part's marks, without a line end.
        what: what to call the text in errors.
        lines_before: lines of the file before the text, for errors.

    Raises:
        CardError: the marks do not come once each, in their order.
    """
    begin, end = f"<!-- holdfast: {name} begins; made anew by holdfast -->", f"<!-- holdfast: {name} ends -->"
    part = f"{begin}\n{content}\n{end}"
    marks = re.compile(rf"^<!-- holdfast: {re.escape(name)} (begins|ends)\b[^\n]*-->[ \t]*$", re.MULTILINE)
    found = list(marks.finditer(text))
    if not found:
        return f"{text.rstrip()}\n\n{part}\n" if text.strip() else f"{part}\n"
    if [mark[1] for mark in found] != ["begins", "ends"]:
        line = lines_before + text.count("\n", 0, found[-1].start()) + 1
        raise CardError(
            f"{what}, line {line}: the marks of the generated part {name!r} do not come once each, in their order",
            hint="Mend them, or delete both: the part is added at the end then",
        )
    return text[: found[0].start()] + part + text[found[1].end() :]


def sections(text: str) -> Iterator[tuple[str, str]]:
    """The headings of a document, each with the text up to the next of its level or above; comments are left out."""
    lines = _COMMENT.sub(lambda found: "\n" * found[0].count("\n"), text).split("\n")
    heads: list[tuple[int, int, int, str]] = []  # first line, first line of the text, level, words
    fence = ""
    for number, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark["mark"].startswith(fence) and not mark["rest"].strip():
                fence = ""
        elif mark and not (mark["mark"][0] == "`" and "`" in mark["rest"]):
            fence = mark["mark"]
        elif found := _HEADING.match(line):
            heads.append((number, number + 1, len(found["level"]), (found["text"] or "").strip()))
        elif (under := _UNDERLINE.match(line)) and number and _is_paragraph(lines[number - 1]):
            heads.append((number - 1, number + 1, 1 if under["mark"][0] == "=" else 2, lines[number - 1].strip()))
    for index, (_, first, level, words) in enumerate(heads):
        after = next((start for start, _, other, _ in heads[index + 1 :] if other <= level), len(lines))
        below = {n for start, end, _, _ in heads[index + 1 :] if start < after for n in range(start, end)}
        yield words, "\n".join(lines[n] for n in range(first, after) if n not in below).strip()


def _is_paragraph(line: str) -> bool:
    return bool(line.strip()) and not re.match(r" {0,3}(?:#|>|[-*+][ \t]|\d+[.)][ \t]|\|)|\s{4}", line)
