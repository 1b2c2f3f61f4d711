"""The strings of a Python source as they are written: literals next to each other, f-strings and their holes."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.registry.rewriting_literals import (
    Literal,
    backslash_encoder,
    escaped,
    plain,
    raw_python,
    strict_encoder,
)

_OPENING = re.compile(r"(?P<prefix>[A-Za-z]{0,2})(?P<quote>'''|\"\"\"|'|\")")
_BETWEEN = re.compile(r"(?:[ \t\f\r\n()]|\\\r?\n|#[^\n]*)+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of characters of one literal; ``hole`` for what an f-string puts in, which has no characters of its own."""

    literal: Literal
    hole: bool = False


def string_pieces(text: str, start: int, end: int) -> list[Piece] | None:
    """The pieces of a string expression, in order; None where it is written in a way that is not understood.

    Args:
        text: the source.
        start: where the expression begins.
        end: behind its last character.
    """
    pieces: list[Piece] = []
    place = start
    while place < end:
        if found := _BETWEEN.match(text, place, end):
            place = found.end()
            continue
        opening = _OPENING.match(text, place, end)
        if opening is None:
            return None
        try:
            inner, place = _literal(text, opening, end)
        except (ValueError, KeyError):
            return None
        pieces += inner
    return pieces if place == end else None


def _literal(text: str, opening: re.Match[str], end: int) -> tuple[list[Piece], int]:
    prefix, quote = opening["prefix"].lower(), opening["quote"]
    raw, is_f, is_bytes = "r" in prefix, "f" in prefix, "b" in prefix
    if set(prefix) - set("rbuf"):
        raise ValueError("no prefix of strings")
    encode: Callable[[str], str]
    if raw:
        encode = strict_encoder("a raw string", quote[0] + "\\", braces=is_f)
    elif is_bytes:
        encode = _ascii_alone(backslash_encoder(quote[0], python=True))
    else:
        encode = backslash_encoder(quote[0], python=True, braces=is_f)

    def piece(first: int, last: int) -> Piece:
        if raw:
            return Piece(raw_python(text, first, last, encode))
        return Piece(escaped(text, first, last, "python bytes" if is_bytes else "python", encode))

    pieces: list[Piece] = []
    place = first = opening.end()
    while not text.startswith(quote, place):
        if place >= end:
            raise ValueError("no end")
        if text[place] == "\\" and not (is_f and raw and text[place + 1 : place + 2] in ("{", "}")):
            # `\N{DASH}` is no hole
            named = re.compile(r"\\N\{[^}]*\}").match(text, place) if not raw else None
            place = named.end() if named else place + 2
        elif is_f and text[place] in "{}":
            pieces.append(piece(first, place))
            if text.startswith(text[place] * 2, place):
                pieces.append(Piece(plain(text, place, place + 1, encode)))
                place += 2
            else:
                if text[place] == "}":
                    raise ValueError("a brace that closes nothing")
                place = _hole(text, place, end)
                pieces.append(Piece(plain(text, place, place, encode), hole=True))
            first = place
        else:
            place += 1
    pieces.append(piece(first, place))
    return pieces, place + len(quote)


def _hole(text: str, place: int, end: int) -> int:
    """The place behind the brace that closes the one at ``place``; strings and braces within are gone over."""
    depth = 0
    while place < end:
        character = text[place]
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
            if depth == 0:
                return place + 1
        elif (opening := _OPENING.match(text, place, end)) is not None and not opening["prefix"]:
            quote = opening["quote"]
            place = opening.end()
            while place < end and not text.startswith(quote, place):
                place += 2 if text[place] == "\\" else 1
            place += len(quote) - 1
        place += 1
    raise ValueError("a brace without its other half")


def _ascii_alone(encode: Callable[[str], str]) -> Callable[[str], str]:
    def checked(new: str) -> str:
        if not new.isascii():
            strict_encoder("bytes", new)(new)
        return encode(new)

    return checked
