"""Quoted strings of several languages, character by character: what each means and where it stands in the source."""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal as Choice

Dialect = Choice["json", "toml", "yaml", "python", "python bytes"]

_ONE_LETTER: dict[Dialect, dict[str, str]] = {
    "json": {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "/": "/"},
    "toml": {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"},
    "yaml": dict(zip("0abt\tnvfre /N_LP", "\0\a\b\t\t\n\v\f\r\x1b /\x85\xa0\u2028\u2029", strict=True)),
    "python": {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'"},
    "python bytes": {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'"},
}
_CODE = r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}"
_ESCAPES: dict[Dialect, re.Pattern[str]] = {
    "json": re.compile(r"\\(?P<code>u[0-9A-Fa-f]{4})|\\(?P<one>.)", re.DOTALL),
    "toml": re.compile(rf"\\(?P<code>{_CODE})|\\(?P<skip>[ \t]*\r?\n\s*)|\\(?P<one>.)", re.DOTALL),
    "yaml": re.compile(rf"\\(?P<code>{_CODE})|\\(?P<one>.)", re.DOTALL),
    "python": re.compile(
        rf"\\(?P<code>{_CODE})|\\(?P<octal>[0-7]{{1,3}})|\\N\{{(?P<name>[^}}]+)\}}|\\(?P<skip>\r\n|\r|\n)|\\(?P<one>.)"
        r"|(?P<end>\r\n|\r)",
        re.DOTALL,
    ),
    "python bytes": re.compile(
        r"\\(?P<code>x[0-9A-Fa-f]{2})|\\(?P<octal>[0-7]{1,3})|\\(?P<skip>\r\n|\r|\n)|\\(?P<one>.)|(?P<end>\r\n|\r)",
        re.DOTALL,
    ),
}
_RAW_ENDS = re.compile(r"(?P<end>\r\n|\r)")


class CannotEncodeError(ValueError):
    """The new text cannot be written in that kind of string."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string of a source.

    Args:
        value: what it means.
        starts: where each of its characters begins in the source, and where the last one ends.
        encode: writes text the way this string is written.
    """

    value: str
    starts: tuple[int, ...]
    encode: Callable[[str], str]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the source that holds the characters from ``start`` to ``end``."""
        return self.starts[start], self.starts[end]


def plain(text: str, start: int, end: int, encode: Callable[[str], str]) -> Literal:
    """A string whose source is what it means."""
    return Literal(text[start:end], tuple(range(start, end + 1)), encode)


def doubled(text: str, start: int, end: int, encode: Callable[[str], str]) -> Literal:
    """A string in single quotes in which two of them stand for one, as in YAML; the span is that between the quotes."""
    value, starts, place = [], [], start
    while place < end:
        value.append(text[place])
        starts.append(place)
        place += 2 if text.startswith("''", place) else 1
    return Literal("".join(value), (*starts, end), lambda new: encode(new).replace("'", "''"))


def escaped(text: str, start: int, end: int, dialect: Dialect, encode: Callable[[str], str]) -> Literal:
    """A string with backslashes; the span is that between the quotes.

    Raises:
        ValueError: an escape means nothing in that language.
    """
    return decode(text, start, end, _ESCAPES[dialect], dialect, encode)


def raw_python(text: str, start: int, end: int, encode: Callable[[str], str]) -> Literal:
    """A raw string of Python's."""
    return decode(text, start, end, _RAW_ENDS, "python", encode)


def decode(
    text: str, start: int, end: int, pattern: re.Pattern[str], dialect: Dialect, encode: Callable[[str], str]
) -> Literal:
    """A string between two places, cut at what ``pattern`` finds.

    Raises:
        ValueError: an escape means nothing in that language.
    """
    value: list[str] = []
    starts: list[int] = []
    place = start
    for found in pattern.finditer(text, start, end):
        value += text[place : found.start()]
        starts += range(place, found.start())
        place = found.end()
        for character in _meaning(found, dialect):
            if "\udc00" <= character <= "\udfff" and dialect == "json" and value and "\ud800" <= value[-1] <= "\udbff":
                # two escapes for one character
                value[-1] = (value[-1] + character).encode("utf-16", "surrogatepass").decode("utf-16")
                continue
            value.append(character)
            starts.append(found.start())
    value += text[place:end]
    starts += range(place, end)
    return Literal("".join(value), (*starts, end), encode)


def _meaning(found: re.Match[str], dialect: Dialect) -> str:
    groups = found.groupdict()
    if groups.get("end") is not None:
        return "\n"
    if groups.get("skip") is not None:
        return ""
    if (code := groups.get("code")) is not None:
        return chr(int(code[1:], 16))
    if (octal := groups.get("octal")) is not None:
        return chr(int(octal, 8))
    if (name := groups.get("name")) is not None:
        return unicodedata.lookup(name)
    one = groups["one"]
    if one in ('"', "\\"):
        return str(one)
    known = _ONE_LETTER[dialect].get(one)
    if known is not None:
        return known
    if dialect.startswith("python"):
        return f"\\{one}"  # what is no escape stays as it is
    raise ValueError(f"\\{one} is no escape")


def json_encoder(source: str) -> Callable[[str], str]:
    r"""Writes text as the string ``source`` is written: its slashes as ``\/`` and ASCII alone where it does so."""

    def encode(new: str) -> str:
        written = json.dumps(new, ensure_ascii=source.isascii())[1:-1]
        return written.replace("/", "\\/") if "\\/" in source and "/" not in source.replace("\\/", "") else written

    return encode


def backslash_encoder(quote: str, *, python: bool = False, braces: bool = False) -> Callable[[str], str]:
    """Writes text into a string with backslashes, of YAML, TOML or Python.

    Args:
        quote: the character around it.
        python: control characters are ``\\x1b``, not ``\\u001b``.
        braces: it is an f-string, in which a brace is written twice.
    """

    def encode(new: str) -> str:
        parts = []
        for character in new:
            if character in (quote, "\\"):
                parts.append(f"\\{character}")
            elif not character.isprintable() and ord(character) < 256:
                parts.append(f"\\x{ord(character):02x}" if python else f"\\u{ord(character):04x}")
            elif not character.isprintable():
                parts.append(f"\\U{ord(character):08x}")
            else:
                parts.append(character * 2 if braces and character in "{}" else character)
        return "".join(parts)

    return encode


def strict_encoder(what: str, forbidden: str, *, braces: bool = False) -> Callable[[str], str]:
    """Writes text as it is into a string without escapes; refuses characters that mean something there."""

    def encode(new: str) -> str:
        if any(character in forbidden or not character.isprintable() for character in new):
            raise CannotEncodeError(f"{what} cannot hold the new path")
        return new.replace("{", "{{").replace("}", "}}") if braces else new

    return encode
