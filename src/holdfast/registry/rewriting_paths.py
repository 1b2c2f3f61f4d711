"""What a path in a text leads to, and how the same writer would write the new one.

A path is *exact* where one of the folders that it may be relative to makes it an old path, and no other makes it a file
that is there: the project's folder, the file's own, the folder above the project (``project/models/a.pt``). Absolute
paths are exact where they begin with the project's folder. All else is a guess, and nobody makes it.
"""

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.errors import UsageError
from holdfast.inventory.ref_text import is_command, tokens
from holdfast.inventory.sources import split_lines

MAX_PATH_CHARACTERS = 4096

# a name under which a program looks up where to write; it must not be led to a model that others use
_WRITTEN_NAME = re.compile(r"(?:^|[^a-z])(?:saves?|out|outputs?|dest|destination|dst|exports?)(?:[^a-z]|$)")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_SEPARATORS = re.compile(r"[\\/]+")
_OPTION = re.compile(r"(?:^|\s)--?[A-Za-z]")
_OPTION_BEFORE = re.compile(r"(?:^|\s)(?:--?(?P<name>[\w\-.]+)(?:=|\s+)|(?P<variable>[\w.]+)=)$")
_PATH_LIKE = re.compile(r"[\\/]|\.\w+$")
# commands that change or remove one of their arguments: all of them, or the last alone
_CHANGES_ALL = frozenset({"rm", "mv", "unlink", "touch", "truncate", "shred", "rmdir", "mkdir"})
_CHANGES_LAST = frozenset({"cp", "ln", "install", "rsync", "scp", "COPY", "ADD"})
_COMMAND_ENDS = re.compile(r"&&|\|\||[;|&]|\$\(|`")


@dataclass(frozen=True, slots=True)
class Change:
    """A span of a value that takes new text.

    Args:
        start: where it begins in the value, from 0.
        end: behind its last character.
        new: what comes; empty where ``why`` says what hinders.
        target: the old path that is meant.
        why: why it cannot be rewritten; empty where it can.
    """

    start: int
    end: int
    new: str
    target: str
    why: str = ""


@dataclass(frozen=True)
class Moves:
    """Which file is found where from now on.

    Args:
        root: the project's folder.
        moves: old path → new path, both from ``root`` with slashes.

    Raises:
        UsageError: a path is absolute, leads out of the project, or is both old and new.
    """

    root: Path
    moves: Mapping[str, str]
    _names: frozenset[str] = field(init=False, repr=False, compare=False, default=frozenset())
    _known: dict[str, bool] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for path in (*self.moves, *self.moves.values()):
            if (
                not path
                or path.startswith("/")
                or posixpath.normpath(path) != path
                or path.split("/")[0] in ("..", ".")
            ):
                raise UsageError(
                    f"{path!r} is no path from the project's folder", hint="Write it as models/app/name.pt"
                )
        both = sorted(set(self.moves) & set(self.moves.values()))
        if both:
            raise UsageError(f"{both[0]} would be moved and take another file's place", hint="Do it in two steps")
        object.__setattr__(self, "_names", frozenset(path.rsplit("/", 1)[-1] for path in self.moves))

    @property
    def names(self) -> frozenset[str]:
        """The base names of what moves."""
        return self._names

    def exact(self, value: str, folder: str) -> Change | None:
        """What becomes of a value that is a path and nothing else; None where it leads to no old path for sure.

        Args:
            value: the path, without blanks around it.
            folder: that of the file in which it stands, from the root.
        """
        if not value or len(value) > MAX_PATH_CHARACTERS or "\0" in value or "://" in value:
            return None
        names = [name for name in _SEPARATORS.split(value) if name not in ("", ".")]
        if not names or names[-1] not in self._names or value[-1] in "/\\":
            return None
        if value[0] in "/\\" or _DRIVE.match(value):
            return self._absolute(value)
        readings = {base: self._resolve(base, names) for base in dict.fromkeys(("", folder))}
        if names[0] == self.root.resolve().name:
            readings[".."] = self._resolve("..", names)
        meant = {base: path for base, path in readings.items() if path is not None and path in self.moves}
        if not meant:
            return None
        base, target = next(iter(meant.items()))
        for other in readings.values():
            if other is not None and other != target and (other in self.moves or self._exists(other)):
                return Change(0, len(value), "", target, f"it may also mean {other}")
        new = self._written(value, base, target)
        if new is None:
            return Change(0, len(value), "", target, "the new path cannot be written in that form")
        wanted = self.moves[target]
        for other in dict.fromkeys(("", folder)):
            path = self._resolve(other, [name for name in _SEPARATORS.split(new) if name not in ("", ".")])
            if path not in (None, wanted) and (path in self.moves or path in self.moves.values() or self._exists(path)):
                return Change(0, len(value), "", target, f"the new path, written from there, would also mean {path}")
        return Change(0, len(value), new, target)

    def linked(self, path: str, folder: str) -> Change | None:
        """What becomes of a link's path, which is relative to ``folder`` and to nothing else; None for another file."""
        target = self._resolve(folder, [name for name in path.split("/") if name not in ("", ".")])
        if target is None or target not in self.moves:
            return None
        return Change(0, len(path), posixpath.relpath(f"/{self.moves[target]}", f"/{folder}"), target)

    def within(self, value: str, folder: str) -> list[Change]:
        """The paths in a value: all of it, or each of its lines, or words of a line that is a command or a list."""
        result: list[Change] = []
        whole = value.strip()
        if whole and (change := self.exact(whole, folder)) is not None:
            return [_moved(change, value.index(whole))]
        start = 0
        for line in split_lines(value):
            start = value.index(line, start)
            result += self._in_line(line, start, folder)
            start += len(line)
        return result

    def _in_line(self, line: str, start: int, folder: str) -> Iterator[Change]:
        stripped = line.strip()
        if not any(name in stripped for name in self._names):
            return
        inner = stripped[1:-1] if stripped[:1] in "\"'" and stripped[-1:] == stripped[:1] else stripped
        change = self.exact(inner, folder)
        if change is not None:
            yield _moved(change, start + line.index(inner))
            return
        words = list(tokens(line))
        spoken = not (is_command(line) or _OPTION.search(line) or all(_PATH_LIKE.search(word) for _, word in words))
        spoken = spoken and len(stripped.split()) > 1
        for place, word in words:
            change = self.exact(word, folder)
            if change is None:
                continue
            why = change.why or ("it stands in a sentence" if spoken else written_by_command(line, place, word))
            yield Change(start + place, start + place + len(word), "" if why else change.new, change.target, why)

    def _absolute(self, value: str) -> Change | None:
        plain = posixpath.normpath(value.replace("\\", "/"))
        for root in dict.fromkeys((self.root.resolve().as_posix(), Path(os.path.abspath(self.root)).as_posix())):  # noqa: PTH100 - a linked folder is written as people call it
            if plain.startswith(f"{root}/") and (target := plain[len(root) + 1 :]) in self.moves:
                new = f"{root}/{self.moves[target]}"
                return Change(0, len(value), new.replace("/", "\\") if "/" not in value else new, target)
        return None

    def _resolve(self, base: str, names: list[str]) -> str | None:
        path = posixpath.normpath(posixpath.join("/", *self.root.resolve().parts[1:], base, *names))
        root = self.root.resolve().as_posix()
        return path[len(root) + 1 :] if path.startswith(f"{root}/") else None

    def _written(self, value: str, base: str, target: str) -> str | None:
        root = self.root.resolve().as_posix()
        new = posixpath.relpath(f"{root}/{self.moves[target]}", posixpath.normpath(f"{root}/{base}"))
        lead = re.match(r"(?:\.[\\/]+)+", value)
        if lead and not new.startswith("../"):
            new = lead[0].replace("\\", "/") + new
        if "\\" in new or ("\\" in value and "/" in value):
            return None
        return new.replace("/", "\\") if "\\" in value else new

    def _exists(self, path: str | None) -> bool:
        if path is None:
            return False
        if path not in self._known:
            whole = self.root / path
            self._known[path] = whole.is_file() or whole.with_name(f"{whole.name}.dvc").is_file()
        return self._known[path]


def says_written(name: str) -> bool:
    """Whether a key, option or variable of that name says where something is written: ``save_path``, ``--output``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _WRITTEN_NAME.search(words) is not None


def written_by_command(line: str, place: int, word: str) -> str:
    """Why a word of a command line must not be led elsewhere: the command writes or removes it. Empty where it reads.

    Args:
        line: the line.
        place: where the word begins in it.
        word: the path.
    """
    before = line[:place].rstrip("\"'")
    starts = [found.end() for found in _COMMAND_ENDS.finditer(before)]
    first = before[starts[-1] :] if starts else before
    ends = [found.start() for found in _COMMAND_ENDS.finditer(line, place + len(word))]
    rest = line[place + len(word) : ends[0] if ends else None].strip("\"' \t")
    if re.search(r">\s*$|\btee\s+(?:-a\s+)?$", before):
        return "the command writes it"
    option = _OPTION_BEFORE.search(before)
    name = (option["name"] or option["variable"]) if option else ""
    if says_written(name) or name == "o":
        return f"its option {name} says that it is written"
    programs = [os.path.basename(part) for part in first.split()[:3] if not part.startswith("-")]  # noqa: PTH119 - text
    if _CHANGES_ALL & set(programs[:2]):
        return "the command moves or removes it"
    if _CHANGES_LAST & set(programs[:1]) and not rest.split("#")[0].strip():
        return "the command writes it"
    return ""


def _moved(change: Change, by: int) -> Change:
    return Change(change.start + by, change.end + by, change.new, change.target, change.why)
