"""The few forms of Markdown that reports are made of."""

import re
from collections.abc import Collection, Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table; ``right`` are the columns that hold numbers, counted from 0."""
    rule = ["--:" if place in right else "---" for place in range(len(header))]
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (header, *rows)]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def _cell(text: str) -> str:
    """A cell in one line, with each bar escaped that is not."""
    line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    return _BAR.sub(lambda found: found[0] if len(found[1]) % 2 else f"{found[1]}\\|", line)


def one_line(text: str) -> str:
    """The text as it may stand in a cell or heading: one line, with its bars escaped."""
    return " ".join(text.replace("|", "\\|").split()).encode("utf-8", "backslashreplace").decode()


def code(text: str) -> str:
    """The text as code within a line, whatever backticks are in it."""
    if "\\|" in text:
        # a backslash before a bar would undo the escape of that, and the cell would end in the middle of the name
        line = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
        return f"<code>{_PUNCTUATION.sub(lambda found: f'&#{ord(found[0])};', line)}</code>"
    text = one_line(text)
    fence = "`"
    while fence in text:
        fence += "`"
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """``1 file``, ``2 files``; ``nouns`` where the plural is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def visible(text: str) -> str:
    """The text in one line with what cannot be seen as escapes: line ends, controls, marks that turn the direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def shortened(text: str, most: int) -> str:
    """At most so many characters of the text; where some are left out, an ellipsis is the last one."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def name(text: str, most: int = 80) -> str:
    """A name that a stranger chose, as code in a line or a `table`: it shows as it is, pings nobody, links nowhere."""
    # a table escapes the bars in its cells, and elsewhere an escaped one would show its backslash
    return code(shortened(visible(text[: most + 1]), most)).replace("\\|", "|") if text.strip() else "(empty)"


def plain(text: str, most: int = 300) -> str:
    """A sentence with names that a stranger chose, as text: without markup, HTML, mentions, references and links."""
    text = _MARKUP.sub(r"\\\g<0>", shortened(visible(text[: most + 1]), most))
    # GitHub looks for these in what is shown, where an escape is gone; a space without width parts them
    return _LINKED.sub(lambda found: f"{found[0]}\u200b", text)


# a bar is escaped by an odd number of backslashes before it
_BAR = re.compile(r"(\\*)\|")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
# ASCII punctuation that means something within a line of Markdown
_MARKUP = re.compile(r"[\\`*_{}\[\]<>&|~$!]")
# mentions and references, `GH-1`, and what begins a link
_LINKED = re.compile(r"[@#](?=\w)|\bGH-(?=\d)|\bwww\.(?=\w)|:(?=//)", re.IGNORECASE)
