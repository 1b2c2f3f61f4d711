"""Families of files by their names, the varying part found: ``models/*_cv_best.pth``, ``outputs/run_*/best.pt``."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence

# words that vary together, with the separators between them
MAX_VARYING = 7
# so many folders beside one another with a file of the same name are a family whatever they are called
MANY_FOLDERS = 3

_WORDS = re.compile(r"([_\-. ]+)")
_SEPARATOR = re.compile(r"[_\-. ]+")
SLOTS = 16  # of a sieve, for each name: so few strangers meet in one that what is kept for nothing is little


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
    names: Sequence[str], patterns_of: Callable[[str], list[str]], standing: Callable[[str], int]
) -> dict[str, str]:
    # patterns are made three times and not kept: a million names have ten million, most of them of one name alone
    sieve = _Sieve(len(names))
    members = {pattern: 0 for name in names for pattern in patterns_of(name) if sieve.meets(pattern)}
    for name in names:
        for pattern in patterns_of(name):
            if pattern in members:
                members[pattern] += 1
    weight = {
        pattern: (count * standing(pattern) ** 2, -pattern.index("*"))
        for pattern, count in members.items()
        if count > 1
    }
    result = {}
    for name in names:
        shared = [pattern for pattern in patterns_of(name) if pattern in weight]
        result[name] = max(shared, key=weight.__getitem__, default=name)
    return result


class _Sieve:
    """Tells what is met a second time, and now and then what is not, in a few bytes for each.

    Args:
        count: of names.
    """

    def __init__(self, count: int) -> None:
        self._mask = (1 << (count * SLOTS).bit_length()) - 1
        self._seen = bytearray(self._mask + 1)

    def meets(self, thing: Hashable) -> bool:
        slot = hash(thing) & self._mask
        if self._seen[slot]:
            return True
        self._seen[slot] = 1
        return False


def _folders_at(level: int, families: set[str]) -> dict[str, str]:
    """The new names of families whose folder, ``level`` above the name, varies."""
    sieve = _Sieve(len(families))
    places: dict[tuple[str, str], set[str]] = {}
    several = {place[::2] for family in families if (place := _place(family, level)) and sieve.meets(place[::2])}
    for family in families:
        if (place := _place(family, level)) and place[::2] in several:
            places.setdefault((place[0], place[2]), set()).add(place[1])
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


def _place(family: str, level: int) -> tuple[str, str, str] | None:
    """What stands before the folder ``level`` above the name, the folder, and what stands behind it."""
    head, after = family, ""
    for _ in range(level):
        head, slash, part = head.rpartition("/")
        if not slash:
            return None
        after = f"{part}/{after}" if after else part
    before, _, folder = head.rpartition("/")
    return before, folder, after


def _file_patterns(path: str) -> list[str]:
    folder, slash, name = path.rpartition("/")
    stem = _stem(name)
    return [f"{folder}{slash}{pattern}{name[len(stem) :]}" for pattern in _word_patterns(stem)]


def _stem(name: str) -> str:
    """A name without its suffix; a dot that it begins or ends with makes none."""
    dot = name.rfind(".")
    return name[:dot] if 0 < dot < len(name) - 1 else name


def _word_patterns(name: str) -> list[str]:
    begins, ends = [0], []
    for separator in _SEPARATOR.finditer(name):
        ends.append(separator.start())
        begins.append(separator.end())
    ends.append(len(name))
    words = len(begins)
    # one word less than all of them varies at most, and as many as have their separators among the varying
    most = (MAX_VARYING + 1) // 2
    return [
        f"{name[: begins[first]]}*{name[ends[last] :]}"
        for first in range(words)
        for last in range(first, min(first + most, words))
        if last - first + 1 < words
    ]


def _telling_patterns(name: str) -> list[str]:
    return [pattern for pattern in _word_patterns(name) if _telling(pattern)]


def _standing(pattern: str) -> int:
    return sum(word not in ("", "*") for word in _WORDS.split(_stem(pattern.rpartition("/")[2]))[::2])


def _telling(pattern: str) -> int:
    """Words with a letter: of time stamps that happen to share their day the day says nothing."""
    return sum(any(map(str.isalpha, word)) for word in _WORDS.split(pattern)[::2])
