"""Text sources of a tree, walked and read safely: scripts, notebooks, configurations, build files, documents."""

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.inventory.tree import File, walk_files

Kind = Literal["python", "notebook", "config", "shell", "build", "docs"]

# larger files are data, whatever their name says; notebooks carry pictures in their outputs
MAX_SOURCE_BYTES = 4 << 20
MAX_NOTEBOOK_BYTES = 64 << 20
BINARY_PROBE_BYTES = 8192
OWN_PROBE_BYTES = 512
_OWN_JSON = re.compile(rb'"format":\s*"holdfast |"kind":\s*"registry consolidate"')

# what DVC writes itself tracks a file and does not use it
SKIPPED_FILES = frozenset({"dvc.lock"})

SUFFIXES: dict[str, Kind] = {
    "py": "python",
    "ipynb": "notebook",
    "yaml": "config",
    "yml": "config",
    "json": "config",
    "toml": "config",
    "ini": "config",
    "cfg": "config",
    "sh": "shell",
    "bash": "shell",
    "zsh": "shell",
    "mk": "build",
    "dockerfile": "build",
    "md": "docs",
    "rst": "docs",
}
BUILD_NAMES = ("Dockerfile", "Makefile", "makefile", "GNUmakefile", "Containerfile", "Justfile", "justfile")

_LINE_END = re.compile(r"\r\n|\r|\n")
# `!pip install`, `%matplotlib inline`, `files = !ls`, `x = %who`, `?thing`, `thing?`
_MAGIC = re.compile(r"^\s*(?:[%!?]|[\w, ]+=\s*[%!])|^\s*[\w.]+\?{1,2}\s*$")
_SHELL_CELL = re.compile(r"^\s*%%(?:bash|sh|script|writefile|file|html|markdown|latex|javascript|js|svg)\b")


@dataclass(frozen=True, slots=True)
class Source:
    """A text file that may use something; ``label`` is its path from the root, with slashes."""

    path: Path
    label: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Cell:
    """A notebook's cell: its number from 1 over all cells, its ``cell_type``, its text."""

    number: int
    kind: str
    text: str


def walk_sources(root: Path, notes: list[str]) -> Iterator[Source]:
    """The text sources below ``root`` that `walk_files` meets, in its order; what DVC writes itself is none."""
    return sources_among(walk_files(root, notes))


def sources_among(files: Iterable[File]) -> Iterator[Source]:
    """Those of the files that are text sources."""
    for file in files:
        if (kind := source_kind(file.name)) is not None:
            yield Source(file.path, file.label, kind)


def source_kind(name: str) -> Kind | None:
    """What kind of source a file of that name is; None for none."""
    stem, dot, suffix = name.rpartition(".")
    kind = SUFFIXES.get(suffix.lower()) if dot and stem else None
    if name.startswith(BUILD_NAMES) and suffix not in ("md", "py"):
        return "build"
    return None if name in SKIPPED_FILES else kind


def read_source(source: Source, notes: list[str]) -> str | None:
    """The text, with line ends as they are; None for what is no text, too large or unreadable (with a note).

    Not UTF-8 is read as Latin-1, in which every file has a reading: names of files are mostly ASCII.
    """
    limit = MAX_NOTEBOOK_BYTES if source.kind == "notebook" else MAX_SOURCE_BYTES
    try:
        with open(source.path, "rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        notes.append(f"{source.label}: {error.strerror}")
        return None
    if len(data) > limit:
        notes.append(f"{source.label}: larger than {limit:,} bytes, not read")
        return None
    if b"\0" in data[:BINARY_PROBE_BYTES]:
        return None
    if source.kind == "config" and _OWN_JSON.search(data[:OWN_PROBE_BYTES]):
        return None  # a plan or report names files, and uses none
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_cells(text: str) -> list[Cell] | None:
    """The cells of a notebook (nbformat 3 and 4); None where ``text`` is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    cells = document.get("cells")
    if cells is None and isinstance(sheets := document.get("worksheets"), list) and sheets:
        cells = sheets[0].get("cells") if isinstance(sheets[0], dict) else None
    if not isinstance(cells, list):
        return None
    result = []
    for number, cell in enumerate(cells, 1):
        if isinstance(cell, dict):
            lines = cell.get("source", cell.get("input", ""))
            if isinstance(lines, list):
                lines = "".join(line for line in lines if isinstance(line, str))
            if isinstance(lines, str):
                result.append(Cell(number, str(cell.get("cell_type", "")), lines))
    return result


def parse_python(text: str) -> ast.Module | None:
    """The syntax tree; None where this Python cannot parse it (Python 2, say)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # people's invalid escapes are theirs
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
            return None


def parse_cell(text: str) -> tuple[ast.Module | None, list[int]]:
    """A code cell's syntax tree, with IPython's magics read as ``pass``, and the lines (from 1) that are magics.

    A cell that is another language (``%%bash``) has all its lines in the list and an empty tree.
    """
    if _SHELL_CELL.match(text):
        return ast.Module(body=[], type_ignores=[]), list(range(1, len(split_lines(text)) + 1))
    if (tree := parse_python(text)) is not None:
        return tree, []
    lines = split_lines(text)
    magics = [number for number, line in enumerate(lines, 1) if _MAGIC.match(line)]
    if not magics:
        return None, []
    for number in magics:
        line = lines[number - 1]
        lines[number - 1] = line[: len(line) - len(line.lstrip())] + "pass"
    return parse_python("\n".join(lines)), magics


def split_lines(text: str) -> list[str]:
    """Lines as Python counts them: form feeds and Unicode separators end none."""
    return _LINE_END.split(text)


def character_column(line: str, byte_offset: int) -> int:
    """Where in ``line`` the UTF-8 ``byte_offset`` of `ast` is, in characters."""
    if line.isascii():
        return byte_offset
    return len(line.encode("utf-8", "surrogatepass")[:byte_offset].decode("utf-8", "replace"))
