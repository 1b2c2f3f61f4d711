"""Which path an expression of Python puts together, where that is certain, and from which literals.

Certain are literals, and ``Path``, ``/``, ``os.path.join`` and ``joinpath`` of literals, after a base whose folder is
known: ``Path(__file__).parent``, or a name that the program binds once, at its top, to a literal or to such a base.
"""

import ast
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from holdfast.inventory.ref_evaluate import PATH_CLASSES, SAME_AS_ARGUMENT
from holdfast.inventory.ref_scope import call_name, dotted
from holdfast.inventory.sources import character_column, split_lines
from holdfast.registry.rewriting_found import Place
from holdfast.registry.rewriting_literals import Literal
from holdfast.registry.rewriting_strings import Piece, string_pieces

_SAME_PATH = frozenset({"resolve", "absolute", "as_posix", "expanduser"})
_WORKING_FOLDERS = frozenset({"os.getcwd", "Path.cwd", "pathlib.Path.cwd", "getcwd"})
_JOINS = frozenset({"os.path.join", "path.join", "osp.join", "posixpath.join"})
_FOLDERS = frozenset({"os.path.dirname", "path.dirname", "osp.dirname", "dirname"})
MAX_DEPTH = 60


@dataclass(frozen=True, slots=True)
class Base:
    """What is put before the literals.

    Args:
        path: its folder; from the root where ``known``, else as the program says it.
        known: it is worked out from where the file lies.
        text: how the program writes it.
    """

    path: str
    known: bool
    text: str


@dataclass(frozen=True, slots=True)
class Operand:
    """A literal of a path.

    Args:
        literal: its characters.
        first: the first character that belongs to the path: behind the separator after a base in an f-string.
        removal: the span that goes where the operand goes, its separator with it; None where it cannot go.
        exact: whether all its characters stand in one literal.
    """

    literal: Literal
    first: int = 0
    removal: tuple[int, int] | None = None
    exact: bool = True

    @property
    def text(self) -> str:
        """The part of the path that it says."""
        return self.literal.value[self.first :]


@dataclass(frozen=True, slots=True)
class Built:
    """A path: its base, and the literals after it."""

    base: Base | None
    operands: tuple[Operand, ...]

    @property
    def text(self) -> str:
        """What the literals say, one after the other."""
        parts = [operand.text for operand in self.operands]
        return "/".join([*(part.rstrip("/\\") for part in parts[:-1]), *parts[-1:]])


class Program:
    """The parts of a program (a file, or the code cells of a notebook) and the names that it binds once, at its top.

    Args:
        parts: text and syntax of each part; the text is that from which the syntax was made.
    """

    def __init__(self, parts: Iterable[tuple[Place, ast.Module]]) -> None:
        self.parts = list(parts)
        self._lines = [split_lines(place.text) for place, _ in self.parts]
        self._part_of: dict[int, int] = {}
        self.parents: dict[int, ast.AST] = {}
        self._values: dict[str, ast.expr | None] = {}
        self.reads: dict[str, list[ast.Name]] = {}
        for index, (_, tree) in enumerate(self.parts):
            for node in ast.walk(tree):
                self._part_of[id(node)] = index
                for child in ast.iter_child_nodes(node):
                    # contexts and operators are shared between nodes
                    if not isinstance(child, ast.expr_context | ast.operator):
                        self.parents[id(child)] = node
        for _, tree in self.parts:
            for node in ast.walk(tree):
                self._bind(node, tree)

    def place(self, node: ast.AST) -> Place:
        """The part in which a node stands."""
        return self.parts[self._part_of[id(node)]][0]

    def span(self, node: ast.expr) -> tuple[int, int]:
        """The offsets of a node in its part."""
        index = self._part_of[id(node)]
        place, lines = self.parts[index][0], self._lines[index]
        last = node.end_lineno or node.lineno
        start = character_column(lines[node.lineno - 1], node.col_offset)
        end = character_column(lines[last - 1], node.end_col_offset or 0)
        return place.offset(node.lineno, start + 1), place.offset(last, end + 1)

    def build(self, node: ast.expr, depth: int = 0) -> Built | None:
        """The path that an expression puts together; None where it is not certain."""
        if depth > MAX_DEPTH:
            return None
        if isinstance(node, ast.Constant | ast.JoinedStr):
            return self._string(node, depth)
        if isinstance(node, ast.Name):
            return self._name(node, depth)
        if isinstance(node, ast.BinOp):
            return self._operator(node, depth)
        if isinstance(node, ast.Attribute) and node.attr == "parent":
            return self._up(self.build(node.value, depth + 1), 1, node)
        if isinstance(node, ast.Subscript):
            parents = isinstance(node.value, ast.Attribute) and node.value.attr == "parents"
            index = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if parents and isinstance(index, int) and index >= 0 and isinstance(node.value, ast.Attribute):
                return self._up(self.build(node.value.value, depth + 1), index + 1, node)
            return None
        return self._call(node, depth) if isinstance(node, ast.Call) else None

    def _bind(self, node: ast.AST, tree: ast.Module) -> None:
        names: list[str] = []
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                self.reads.setdefault(node.id, []).append(node)
                return
            names = [node.id]
            above = self.parents.get(id(node))
            single = (isinstance(above, ast.Assign) and len(above.targets) == 1) or isinstance(above, ast.AnnAssign)
            if single and isinstance(above, ast.Assign | ast.AnnAssign) and self.parents.get(id(above)) is tree:
                # bound once and at the top: what it holds is known
                self._values[node.id] = None if node.id in self._values else above.value
                return
        elif isinstance(node, ast.arg):
            names = [node.arg]
        elif isinstance(node, ast.alias):
            names = [(node.asname or node.name).split(".")[0]]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            names = [node.name] if node.name else []
        elif isinstance(node, ast.Global | ast.Nonlocal):
            names = node.names
        self._values.update(dict.fromkeys(names))

    def _string(self, node: ast.Constant | ast.JoinedStr, depth: int) -> Built | None:
        if isinstance(node, ast.Constant) and not isinstance(node.value, str | bytes):
            return None
        place = self.place(node)
        pieces = string_pieces(place.text, *self.span(node))
        if pieces is None:
            return None
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        holes = [part for part in parts if isinstance(part, ast.FormattedValue)]
        if len(holes) != sum(piece.hole for piece in pieces) or not _agrees(node, pieces):
            return None
        base: Base | None = None
        if holes:
            first = next((index for index, piece in enumerate(pieces) if piece.hole), 0)
            if len(holes) > 1 or any(piece.literal.value for piece in pieces[:first]):
                return None
            hole = holes[0]
            base = self._base(hole.value, depth) if hole.conversion in (-1, 115) and hole.format_spec is None else None
            pieces = pieces[first + 1 :]
            if base is None or not pieces:
                return None
        literal = _joined(pieces)
        if literal is None:
            return None
        exact = len([piece for piece in pieces if piece.literal.value]) <= 1 or _contiguous(literal)
        if base is None:
            return Built(None, (Operand(literal, exact=exact),))
        lead = len(literal.value) - len(literal.value.lstrip("/"))
        return Built(base, (Operand(literal, lead, exact=exact),)) if lead else None

    def _name(self, node: ast.Name, depth: int) -> Built | None:
        if node.id == "__file__":
            return Built(Base(self.place(node).file, known=True, text="__file__"), ())
        base = self._base(node, depth)
        return Built(base, ()) if base is not None else None

    def _base(self, node: ast.expr, depth: int) -> Base | None:
        """What an expression is as a folder that is put before something."""
        built, text = None, ast.unparse(node)
        if isinstance(node, ast.Name) and node.id != "__file__":
            value = self._values.get(node.id)
            # what another part or a later line binds is not there yet
            if value is not None and (self._part_of[id(value)], value.lineno) <= (self._part_of[id(node)], node.lineno):
                built = self.build(value, depth + 1)
        else:
            built = self.build(node, depth + 1)
        if built is None:
            return None
        if built.base is None:
            return Base(built.text, known=False, text=text)
        path = posixpath.normpath(posixpath.join(built.base.path, built.text)) if built.operands else built.base.path
        return replace(built.base, path=path, text=text)

    def _operator(self, node: ast.BinOp, depth: int) -> Built | None:
        left, right = self.build(node.left, depth + 1), self.build(node.right, depth + 1)
        if left is None or right is None or right.base is not None or len(right.operands) != 1:
            return None
        operand = right.operands[0]
        if isinstance(node.op, ast.Div) and operand.text[:1] not in ("/", "\\", ""):
            gap = (self.span(node.left)[1], self.span(node.right)[1])
            return Built(left.base, (*left.operands, replace(operand, removal=gap)))
        if isinstance(node.op, ast.Add) and not left.operands and operand.text.startswith("/"):
            return Built(left.base, (replace(operand, first=len(operand.text) - len(operand.text.lstrip("/"))),))
        return None

    def _call(self, node: ast.Call, depth: int) -> Built | None:
        name, whole = call_name(node), dotted(node.func)
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            return None
        if whole in _WORKING_FOLDERS and not node.args:
            return Built(Base("", known=False, text=ast.unparse(node)), ())
        if whole in _FOLDERS and len(node.args) == 1:
            return self._up(self.build(node.args[0], depth + 1), 1, node)
        if isinstance(node.func, ast.Attribute):
            if name in _SAME_PATH and not node.args:
                return self.build(node.func.value, depth + 1)
            if name == "joinpath" and node.args:
                return self._join([node.func.value, *node.args], depth)
        if whole in _JOINS and node.args:
            return self._join(node.args, depth)
        if name in PATH_CLASSES:
            return self._join(node.args, depth) if node.args else Built(Base("", known=False, text="Path()"), ())
        if name in SAME_AS_ARGUMENT - {"repr"} and len(node.args) == 1:
            return self.build(node.args[0], depth + 1)
        return None

    def _join(self, nodes: list[ast.expr], depth: int) -> Built | None:
        first = self.build(nodes[0], depth + 1)
        if first is None:
            return None
        operands = list(first.operands)
        for before, node in pairwise(nodes):
            built = self.build(node, depth + 1)
            if built is None or built.base is not None or len(built.operands) != 1:
                return None
            if built.text[:1] in ("/", "\\", ""):
                return None
            operands.append(replace(built.operands[0], removal=(self.span(before)[1], self.span(node)[1])))
        return Built(first.base, tuple(operands))

    def _up(self, built: Built | None, times: int, node: ast.expr) -> Built | None:
        """The folder of a path; only one that is known goes on, since ``Path("a").parent`` says what "a" does not."""
        if built is None or built.base is None or not built.base.known:
            return None
        path = posixpath.join(built.base.path, built.text) if built.operands else built.base.path
        # beyond the root as well: what is above it is not asked for by its name
        path = posixpath.normpath(posixpath.join(path, *[".."] * times))
        return Built(Base(path, known=True, text=ast.unparse(node)), ())


def _agrees(node: ast.Constant | ast.JoinedStr, pieces: list[Piece]) -> bool:
    """Whether what was read in the source is what Python read."""
    if isinstance(node, ast.Constant):
        value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        return value == "".join(piece.literal.value for piece in pieces)
    told: list[str | None] = []
    for part in node.values:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            told.append(part.value)
        else:
            told.append(None)
    seen: list[str | None] = []
    for piece in pieces:
        if piece.hole:
            seen.append(None)
        elif piece.literal.value:
            last = seen[-1] if seen else None
            seen[-1:] = [last + piece.literal.value] if last is not None else [*seen[-1:], piece.literal.value]
    return seen == [part for part in told if part != ""]


def _joined(pieces: list[Piece]) -> Literal | None:
    said = [piece.literal for piece in pieces if piece.literal.value]
    if not said:
        return None
    starts = [start for literal in said for start in literal.starts[:-1]]
    return Literal("".join(literal.value for literal in said), (*starts, said[-1].starts[-1]), said[0].encode)


def _contiguous(literal: Literal) -> bool:
    """Whether the characters follow each other in the source, but for a brace that is written twice."""
    return all(after - before <= 2 for before, after in pairwise(literal.starts))
