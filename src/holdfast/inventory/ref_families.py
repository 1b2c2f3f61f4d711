"""Families of files by their names: ``models/*_cv_best.pth``, with the part that varies found."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

# words that vary together, with the separators between them
MAX_VARYING = 7

_WORDS = re.compile(r"([_\-. ]+)")


def name_families(paths: Iterable[str]) -> dict[str, str]:
    """The family of each path: a pattern that it shares with others in its folder, else the path itself.

    A family varies in one run of words at one place. Of the patterns that fit a file the one with most words standing
    counts for more than the one with most files, so that ``a_cv_best``, ``b_cv_best``, ``a_raw_best`` and
    ``b_raw_best`` are ``*_cv_best`` and ``*_raw_best`` and not ``*_best``.
    """
    unique = sorted(set(paths))
    members: dict[str, int] = {}
    choices: dict[str, list[str]] = {}
    for path in unique:
        choices[path] = _patterns(path)
        for pattern in choices[path]:
            members[pattern] = members.get(pattern, 0) + 1
    result = {}
    for path in unique:
        shared = [pattern for pattern in choices[path] if members[pattern] > 1]
        best = max(
            shared, key=lambda pattern: (members[pattern] * _standing(pattern) ** 2, -pattern.index("*")), default=path
        )
        result[path] = best
    return result


def _patterns(path: str) -> list[str]:
    place = PurePosixPath(path)
    folder = "" if str(place.parent) == "." else f"{place.parent}/"
    words = _WORDS.split(place.stem)  # words at even places, separators between them
    return [
        f"{folder}{''.join(words[:start])}*{''.join(words[end:])}{place.suffix}"
        for start in range(0, len(words), 2)
        for end in range(start + 1, len(words) + 1, 2)
        if end - start < len(words) and end - start <= MAX_VARYING
    ]


def _standing(pattern: str) -> int:
    name = PurePosixPath(pattern)
    return sum(word not in ("", "*") and not _WORDS.fullmatch(word) for word in _WORDS.split(name.stem))
