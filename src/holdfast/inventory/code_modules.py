"""The Python modules of a tree, and the programs that use them: what each defines, and what it imports where."""

import ast
import hashlib
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from holdfast.inventory.sources import (
    Cell,
    Source,
    parse_cell,
    parse_python,
    read_cells,
    read_source,
    split_lines,
    walk_sources,
)

Guard = Literal["", "tried", "fallback"]
Role = Literal["archived", "data", "entry point", "library", "model", "notebook", "package", "test", "training"]

SHINGLE_WORDS = 5
WINNOW_WINDOW = 4
INIT = "__init__.py"
# an importer of these roles is what a project is for, and not a part of it
PRODUCTION_ROLES = frozenset({"entry point", "notebook", "training"})

_FOLDER_ROLES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("archived", re.compile(r"_?(?:archived?|legacy|deprecated|attic|old|backups?)", re.IGNORECASE)),
    ("test", re.compile(r"tests?|testing", re.IGNORECASE)),
    ("training", re.compile(r"train(?:ing|ers?)?|experiments?", re.IGNORECASE)),
    ("entry point", re.compile(r"scripts?|bin|stages|pipelines?|apps?", re.IGNORECASE)),
    ("model", re.compile(r"models?|nets?|networks?|architectures?|layers", re.IGNORECASE)),
    ("data", re.compile(r"data|datasets?|data_?\w*|dataloaders?|loaders?", re.IGNORECASE)),
)
_TEST_NAME = re.compile(r"test_.*|.*_test|conftest|tests?")
_ENTRY_NAME = re.compile(r"(?:train|run|main|evaluate|eval|predict|infer|serve|app|deploy|launch)(?:_.*)?|__main__")
_FRAMEWORKS = frozenset({"torch", "tensorflow", "keras", "jax", "flax", "lightning", "pytorch_lightning"})
_WORD = re.compile(r"[^\W\d]\w*")
_DYNAMIC = re.compile(r"import_module|__import__")
_PLAIN_WORDS = frozenset({"self", "def", "return", "import", "from", "if", "else", "for", "in", "None", "not", "and"})


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module as it stands in a source.

    Args:
        file: the source, from the root.
        cell: of a notebook, from 1; None elsewhere.
        line: from 1.
        level: dots of a relative import.
        module: the dotted name after them.
        names: what is taken from it; ``*`` for all; empty for ``import a.b``.
        dynamic: by ``importlib.import_module("…")``.
        guard: in a ``try`` that catches import errors: in its body (``tried``) or in its handler (``fallback``).
    """

    file: str
    cell: int | None
    line: int
    level: int
    module: str
    names: tuple[str, ...] = ()
    dynamic: bool = False
    guard: Guard = ""


@dataclass(frozen=True, slots=True)
class Module:
    """A module.

    Args:
        path: from the root.
        lines: of its text.
        classes: top-level ones.
        functions: top-level ones.
        offers: every top-level name, imported ones too.
        members: names by which its content is compared: classes, functions, methods.
        shingles: winnowed hashes of its words, five at a time.
        role: what it is for, by folder, name and imports.
        parsed: whether this Python could read it; if not, only its name and lines are known.
        digest: SHA-256 of the bytes read.
    """

    path: str
    lines: int
    classes: tuple[str, ...]
    functions: tuple[str, ...]
    offers: frozenset[str]
    members: frozenset[str]
    shingles: frozenset[int]
    role: Role
    parsed: bool
    digest: str

    @property
    def name(self) -> str:
        """Its name without folders; that of its folder for a package."""
        place = PurePosixPath(self.path)
        return place.parent.name if place.name == INIT else place.stem


@dataclass
class CodeTree:
    """All code below a folder.

    Args:
        root: the folder.
        modules: by path.
        imports: of modules and notebooks, in order.
        notebooks: paths.
        texts: other sources that may name a module: configurations, shell and build files.
        notes: what could not be read.
    """

    root: Path
    modules: dict[str, Module] = field(default_factory=dict)
    imports: list[Import] = field(default_factory=list)
    notebooks: list[str] = field(default_factory=list)
    texts: list[tuple[Source, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def role(self, file: str) -> Role:
        """The role of a module or a notebook."""
        return self.modules[file].role if file in self.modules else "notebook"


def read_code(root: Path) -> CodeTree:
    """Read every module, notebook and configuration below ``root``; nothing is imported or run."""
    tree = CodeTree(root)
    for source in walk_sources(root, tree.notes):
        if source.kind == "docs" or (text := read_source(source, tree.notes)) is None:
            continue
        if source.kind == "python":
            _read_module(tree, source, text)
        elif source.kind == "notebook":
            tree.notebooks.append(source.label)
            for cell in read_cells(text) or ():
                if cell.kind == "code":
                    tree.imports += _cell_imports(source.label, cell)
        else:
            tree.texts.append((source, text))
    return tree


def find_imports(parsed: ast.Module, file: str, cell: int | None = None, *, dynamic: bool = True) -> Iterator[Import]:
    """The imports of a syntax tree, those in functions too, in the order of their lines.

    Without ``dynamic`` none by ``importlib.import_module`` is looked for, which spares nine tenths of the walk.
    """
    statements = (ast.stmt, ast.ExceptHandler, ast.match_case)
    stack: list[tuple[ast.AST, Guard]] = [(parsed, "")]
    found = []
    while stack:
        node, guard = stack.pop()
        if isinstance(node, ast.Import):
            found += [Import(file, cell, node.lineno, 0, alias.name, guard=guard) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append(Import(file, cell, node.lineno, node.level, node.module or "", names, guard=guard))
        elif isinstance(node, ast.Call) and (name := _imported_name(node)):
            level = len(name) - len(name.lstrip("."))
            found.append(Import(file, cell, node.lineno, level, name[level:], dynamic=True, guard=guard))
        if isinstance(node, ast.Try) and any(_catches_imports(handler) for handler in node.handlers):
            stack += [(part, "tried") for part in node.body]
            stack += [(part, "fallback") for part in node.handlers]
            stack += [(part, guard) for part in (*node.orelse, *node.finalbody)]
        else:
            below = ast.iter_child_nodes(node)
            stack += [(child, guard) for child in below if dynamic or isinstance(child, statements)]
    return iter(sorted(found, key=lambda item: (item.line, item.module, item.names)))


def _catches_imports(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {kind.id if isinstance(kind, ast.Name) else "" if kind is not None else "all" for kind in kinds}
    return not names.isdisjoint({"ImportError", "ModuleNotFoundError", "Exception", "BaseException", "all"})


def _imported_name(node: ast.Call) -> str:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0] if node.args else None
    if name in ("import_module", "__import__") and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    return ""


def _cell_imports(label: str, cell: Cell) -> list[Import]:
    parsed, _ = parse_cell(cell.text)
    return list(find_imports(parsed, label, cell.number)) if parsed is not None else []


def _read_module(tree: CodeTree, source: Source, text: str) -> None:
    parsed = parse_python(text)
    lines = len(split_lines(text)) - (text.endswith(("\n", "\r")) or not text)
    digest = hashlib.sha256(source.path.read_bytes()).hexdigest()
    if parsed is None:
        tree.notes.append(
            f"{source.label}: this Python does not parse it; who imports it is known, what it imports is not"
        )
        parsed = ast.Module(body=[], type_ignores=[])
        shown = False
    else:
        shown = True
    imports = list(find_imports(parsed, source.label, dynamic=_DYNAMIC.search(text) is not None))
    tree.imports += imports
    classes = tuple(node.name for node in parsed.body if isinstance(node, ast.ClassDef))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = tuple(node.name for node in parsed.body if isinstance(node, kinds))
    tree.modules[source.label] = Module(
        source.label,
        lines,
        classes,
        functions,
        frozenset(top_names(parsed.body)),
        frozenset(_members(parsed)),
        _shingles(text),
        _role(source.label, parsed, imports),
        shown,
        digest,
    )


def top_names(body: list[ast.stmt]) -> Iterator[str]:
    """The names that the statements of a module bind; ``*`` for what a star import brings."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        else:
            for value in ast.iter_child_nodes(node):
                if isinstance(value, ast.ExceptHandler):
                    yield from top_names(value.body)
                elif isinstance(value, ast.stmt):
                    yield from top_names([value])


def _members(parsed: ast.Module) -> Iterator[str]:
    for node in parsed.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("__"):
                    yield f".{part.name}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def _shingles(text: str) -> frozenset[int]:
    words = [word for word in _WORD.findall(text) if word not in _PLAIN_WORDS]
    runs = range(len(words) - SHINGLE_WORDS + 1)
    hashes = [zlib.crc32(" ".join(words[i : i + SHINGLE_WORDS]).encode("utf-8", "surrogatepass")) for i in runs]
    # winnowing (Schleimer, Wilkerson, Aiken 2003): the least hash of each window, so that shared runs are found
    return frozenset(
        min(hashes[i : i + WINNOW_WINDOW]) for i in range(max(1, len(hashes) - WINNOW_WINDOW + 1)) if hashes
    )


def _role(path: str, parsed: ast.Module, imports: list[Import]) -> Role:
    place = PurePosixPath(path)
    folders = [part.lower() for part in place.parent.parts]
    if any(_FOLDER_ROLES[0][1].fullmatch(folder) for folder in folders):
        return "archived"
    if _TEST_NAME.fullmatch(place.stem) or any(_FOLDER_ROLES[1][1].fullmatch(folder) for folder in folders):
        return "test"
    if place.name == INIT:
        return "package"
    if place.stem.startswith("train"):
        return "training"
    for folder in reversed(folders):
        for role, pattern in _FOLDER_ROLES[2:]:
            if pattern.fullmatch(folder):
                return role
    if _ENTRY_NAME.fullmatch(place.stem) or any(_is_main_guard(node) for node in parsed.body):
        return "entry point"
    defines = any(isinstance(node, ast.ClassDef) for node in parsed.body)
    if defines and any(item.module.split(".")[0] in _FRAMEWORKS for item in imports):
        return "model"
    return "library"


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
