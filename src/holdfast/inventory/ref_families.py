"""Families of files by their names, the varying part found: ``models/*_cv_best.pth``, ``outputs/run_*/best.pt``."""

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

# words that vary together, with the separators between them
MAX_VARYING = 7
# so many folders beside one another with a file of the same name are a family whatever they are called
MANY_FOLDERS = 3

_WORDS = re.compile(r"([_\-. ]+)")


def name_families(paths: Iterable[str]) -> dict[str, str]:
    """The family of each path: a pattern that it shares with others, else the path itself.

    Within a folder a family varies in one run of words at one place. Of the patterns that fit a file the one with most
    words standing counts for more than the one with most files: ``a_cv_best``, ``b_cv_best``, ``a_raw_best`` and
    ``b_raw_best`` are ``*_cv_best`` and ``*_raw_best`` and not ``*_best``.

    Folders beside one another that hold files of the same family vary, too, where their names share a word, where all
    of them have a number in it (time stamps), or where there are many: ``outputs/*/best_model.pt``.
    """
    unique = sorted(set(paths))
    families = _vary(unique, _file_patterns, _standing)
    for level in range(1, max((path.count("/") for path in unique), default=0) + 1):
        merged = _folders_at(level, set(families.values()))
        families = {path: merged.get(family, family) for path, family in families.items()}
    return families


def varying_part(path: str, family: str) -> str | None:
    """What stands in ``path`` where its family has its ``*``; None for a family of one, or with several of them."""
    before, star, after = family.partition("*")
    return path[len(before) : len(path) - len(after)] if star and "*" not in after else None


def _vary(
    names: Iterable[str], patterns_of: Callable[[str], list[str]], standing: Callable[[str], int]
) -> dict[str, str]:
    members: dict[str, int] = {}
    choices: dict[str, list[str]] = {}
    for name in names:
        choices[name] = patterns_of(name)
        for pattern in choices[name]:
            members[pattern] = members.get(pattern, 0) + 1
    result = {}
    for name, patterns in choices.items():
        shared = [pattern for pattern in patterns if members[pattern] > 1]
        result[name] = max(
            shared, key=lambda pattern: (members[pattern] * standing(pattern) ** 2, -pattern.index("*")), default=name
        )
    return result


def _folders_at(level: int, families: set[str]) -> dict[str, str]:
    """The new names of families whose folder, ``level`` above the name, varies."""
    places: dict[tuple[str, str], set[str]] = {}
    for family in families:
        parts = family.split("/")
        if len(parts) > level:
            place = ("/".join(parts[: -level - 1]), "/".join(parts[-level:]))
            places.setdefault(place, set()).add(parts[-level - 1])
    renamed: dict[str, str] = {}
    for (before, after), folders in places.items():
        if len(folders) < 2:
            continue
        patterns = _vary(sorted(folders), _telling_patterns, _telling)
        alone = [folder for folder in patterns if patterns[folder] == folder]
        numbered = all(any(map(str.isdigit, folder)) for folder in alone)
        if len(alone) >= MANY_FOLDERS or (len(alone) > 1 and numbered):
            patterns |= dict.fromkeys(alone, "*")
        for folder, pattern in patterns.items():
            if pattern != folder:
                head = f"{before}/" if before else ""
                renamed[f"{head}{folder}/{after}"] = f"{head}{pattern}/{after}"
    return renamed


def _file_patterns(path: str) -> list[str]:
    place = PurePosixPath(path)
    folder = "" if str(place.parent) == "." else f"{place.parent}/"
    return [f"{folder}{pattern}{place.suffix}" for pattern in _word_patterns(place.stem)]


def _word_patterns(name: str) -> list[str]:
    words = _WORDS.split(name)  # words at even places, separators between them
    return [
        f"{''.join(words[:start])}*{''.join(words[end:])}"
        for start in range(0, len(words), 2)
        for end in range(start + 1, len(words) + 1, 2)
        if end - start < len(words) and end - start <= MAX_VARYING
    ]


def _telling_patterns(name: str) -> list[str]:
    return [pattern for pattern in _word_patterns(name) if _telling(pattern)]


def _standing(pattern: str) -> int:
    return sum(word not in ("", "*") for word in _WORDS.split(PurePosixPath(pattern).stem)[::2])


def _telling(pattern: str) -> int:
    """Words with a letter: of time stamps that happen to share their day the day says nothing."""
    return sum(any(map(str.isalpha, word)) for word in _WORDS.split(pattern)[::2])
