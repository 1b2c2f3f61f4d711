"""The few forms of Markdown that reports are made of."""

from collections.abc import Collection, Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> str:
    """A table; ``right`` are the columns that hold numbers, counted from 0."""
    rule = ["--:" if place in right else "---" for place in range(len(header))]
    lines = [f"| {' | '.join(map(one_line, row))} |" for row in (header, *rows)]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def one_line(text: str) -> str:
    """The text as it may stand in a cell or heading: one line, with its bars escaped."""
    return " ".join(text.replace("|", "\\|").split()).encode("utf-8", "backslashreplace").decode()


def code(text: str) -> str:
    """The text as code within a line, whatever backticks are in it."""
    text = one_line(text)
    fence = "`"
    while fence in text:
        fence += "`"
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """``1 file``, ``2 files``; ``nouns`` where the plural is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
