"""Paths in Python: literals and joins change in place; what the program then says is compared, node by node."""

import ast
import posixpath
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from holdfast.inventory.code_rewrite import Edit, apply_edits
from holdfast.inventory.ref_evaluate import PATH_CLASSES
from holdfast.inventory.ref_scope import call_name, dotted
from holdfast.inventory.sources import parse_cell
from holdfast.registry.rewriting_found import Found, Place, Trouble, replaced
from holdfast.registry.rewriting_literals import CannotEncodeError
from holdfast.registry.rewriting_paths import Change, Moves, says_written
from holdfast.registry.rewriting_paths_python import Built, Operand, Program

_WRITES = re.compile(
    r"(?:save|export|write|dump|remove|unlink|rmtree|rename|move|truncate|touch|mkdir|makedirs)(?:_|$)|save[a-z]*$"
    r"|to_(?:csv|json|parquet|pickle|file)$|ModelCheckpoint$"
)
_DERIVES = frozenset(
    {"parent", "parents", "with_name", "with_suffix", "with_stem", "stem", "replace", "split", "rsplit", "removesuffix"}
)
_DERIVING_CALLS = frozenset({"dirname", "splitext", "split"})
_COPIES = frozenset({"copy", "copy2", "copyfile", "copytree", "symlink", "link"})
_PASSES_ON = frozenset({"str", "Path", "PurePath", "PosixPath", "fspath", "abspath", "realpath", "normpath", "resolve"})
_SLASHES = re.compile(r"[\\/]+")
_WRITING_MODE = re.compile(r"[wax+]")


@dataclass(frozen=True, slots=True)
class Hit:
    """An expression that is an old path.

    Args:
        node: the expression.
        built: how it is put together.
        change: what becomes of the path.
        rest: the new path, after the base.
    """

    node: ast.expr
    built: Built
    change: Change
    rest: str


def find_in_python(
    parts: Iterable[tuple[Place, ast.Module]], moves: Moves, spoken: Collection[tuple[int | None, int, int]] = ()
) -> list[Found]:
    """The paths in a program, one `Found` for each of its parts.

    Args:
        parts: the file, or the code cells of a notebook in order, each with its syntax.
        moves: what moves.
        spoken: (cell, line, column) of strings that are command lines, whose words are looked at.
    """
    program = Program(parts)
    return [_find(program, place, tree, moves, spoken) for place, tree in program.parts]


def _find(
    program: Program, place: Place, tree: ast.Module, moves: Moves, spoken: Collection[tuple[int | None, int, int]]
) -> Found:
    found = Found()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring, or a string that stands for itself
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp | ast.Call):
            hit = path_of(program, node, moves)
            if hit is not None:
                _take(program, place, hit, found)
                continue
            if isinstance(node, ast.Constant) and _name_in(node, moves):
                _words(program, place, node, moves, found, spoken)
        stack += reversed(list(ast.iter_child_nodes(node)))
    if not found.edits or _verified(program, place, tree, found.edits, moves):
        return found
    kept = []
    for group in found.edits:
        if _verified(program, place, tree, [group], moves):
            kept.append(group)
        else:
            why = "the program would say something else with it"
            found.troubles.append(Trouble(group[0].start, group[-1].start + len(group[-1].old), min(moves.moves), why))
    found.edits = kept
    return found


def path_of(program: Program, node: ast.expr, moves: Moves) -> Hit | None:
    """The old path that an expression is, for sure; None for any other expression."""
    built = program.build(node)
    if built is None or not built.operands or not built.text:
        return None
    folder = program.place(node).folder
    base = built.base
    if base is None:
        change = moves.exact(built.text, folder)
        return Hit(node, built, change, change.new) if change is not None else None
    if not base.known:
        whole = posixpath.join(base.path, built.text) if base.path else built.text
        change = moves.exact(whole, folder)
        if change is None:
            return None
        head = f"{base.path.rstrip('/')}/" if base.path else ""
        if not change.why and not change.new.startswith(head):
            change = _hindered(change, f"{base.text} is put before it, and the new path lies elsewhere")
        return Hit(node, built, change, change.new[len(head) :])
    names = built.text.replace("\\", "/")
    target = posixpath.normpath(posixpath.join("/", base.path, names))[1:]
    if target not in moves.moves or base.path.startswith(".."):
        return None
    rest = posixpath.relpath(f"/{moves.moves[target]}", posixpath.join("/", base.path))
    change = Change(0, len(built.text), rest, target)
    if rest.startswith("..") and not names.startswith(".."):
        change = _hindered(change, f"{base.text} is put before it, and the new path lies elsewhere")
    return Hit(node, built, change, rest.replace("/", "\\") if "\\" in built.text else rest)


def _hindered(change: Change, why: str) -> Change:
    return Change(change.start, change.end, "", change.target, why)


def _take(program: Program, place: Place, hit: Hit, found: Found) -> None:
    start, end = program.span(hit.node)
    why = hit.change.why or _hazard(program, hit.node)
    if not why:
        try:
            edits = _edits(place, hit)
        except CannotEncodeError as error:
            why = str(error)
        else:
            found.edits.append(tuple(edits))
            return
    found.troubles.append(Trouble(start, end, hit.change.target, why))


def _edits(place: Place, hit: Hit) -> list[Edit]:
    """The new path given to the operands: each keeps as many names as it had, and the first takes what is more.

    Raises:
        CannotEncodeError: an operand cannot take its part.
    """
    operands = hit.built.operands
    if any(not operand.exact for operand in operands):
        raise CannotEncodeError("the path is written in several strings")
    slash = "\\" if "\\" in hit.rest else "/"
    names = hit.rest.split(slash)
    kept = list(operands)
    removed: list[Operand] = []
    while len(names) < len(kept):
        going = kept.pop(-2)
        if going.removal is None or "#" in place.text[going.removal[0] : going.literal.starts[0]]:
            raise CannotEncodeError("the new path has fewer parts")
        removed.append(going)
    counts = [max(1, len([name for name in _SLASHES.split(part.text) if name not in ("", ".")])) for part in kept]
    shares = [1] * len(kept)
    spare = len(names) - len(kept)
    for index in (*range(len(kept) - 1, 0, -1),):
        more = min(spare, counts[index] - 1)
        shares[index] += more
        spare -= more
    shares[0] += spare
    edits = []
    at = 0
    for operand, share in zip(kept, shares, strict=True):
        part = slash.join(names[at : at + share])
        at += share
        first, last = operand.literal.span(operand.first, len(operand.literal.value))
        if part != operand.text:
            edits.append(place.edit(first, last, operand.literal.encode(part)))
    edits += [place.edit(*operand.removal, "") for operand in removed if operand.removal is not None]
    return sorted(edits, key=lambda edit: edit.start)


def _name_in(node: ast.Constant, moves: Moves) -> bool:
    return isinstance(node.value, str) and any(name in node.value for name in moves.names)


def _words(
    program: Program,
    place: Place,
    node: ast.Constant,
    moves: Moves,
    found: Found,
    spoken: Collection[tuple[int | None, int, int]],
) -> None:
    """The words of a string that is a command line."""
    start, _ = program.span(node)
    if (place.cell, *place.position(start)) not in spoken:
        return
    built = program.build(node)
    if built is not None and built.operands and built.operands[0].exact:
        literal = built.operands[0].literal
        place.take(literal, moves.within(literal.value, place.folder), found, _hazard(program, node))


# what happens to the path


def _hazard(program: Program, node: ast.expr) -> str:
    """Why an expression must not be led elsewhere: what it names is written or removed, or names others."""
    if why := _use(program, node):
        return why
    child, above = _outermost(program, node)
    names: list[str] = []
    if isinstance(above, ast.Assign) and above.value is child:
        names = [target.id for target in above.targets if isinstance(target, ast.Name)]
        said = names + [target.attr for target in above.targets if isinstance(target, ast.Attribute)]
    elif isinstance(above, ast.AnnAssign | ast.NamedExpr) and isinstance(above.target, ast.Name):
        names = said = [above.target.id]
    else:
        return ""
    if written := next((name for name in said if says_written(name)), None):
        return f"its name {written} says that it is written"
    for name in names:
        for read in program.reads.get(name, ()):
            if why := _use(program, read):
                return why
    return ""


def _outermost(program: Program, node: ast.AST) -> tuple[ast.AST, ast.AST | None]:
    """The expression that is still the same path, and what is around it."""
    child, above = node, program.parents.get(id(node))
    while above is not None:
        passes = isinstance(above, ast.Call) and child in above.args and call_name(above) in _PASSES_ON
        passes |= isinstance(above, ast.Attribute) and above.attr in ("resolve", "absolute", "as_posix", "expanduser")
        passes |= isinstance(above, ast.Call) and above.func is child and isinstance(child, ast.Attribute)
        if not passes:
            break
        child, above = above, program.parents.get(id(above))
    return child, above


def _use(program: Program, node: ast.AST) -> str:
    child, above = _outermost(program, node)
    line = getattr(child, "lineno", 0)
    if isinstance(above, ast.BinOp | ast.FormattedValue) or _joins(above, child):
        return "" if _stays_whole(program, child, above) else f"it is put together with something else in line {line}"
    if isinstance(above, ast.Attribute):
        if above.attr in _DERIVES:
            return f"another path is made from it in line {line}"
        return f"the program writes or removes it in line {line}" if _WRITES.match(above.attr) else ""
    key = ""
    if isinstance(above, ast.keyword):
        key = above.arg or ""
        child, above = above, program.parents.get(id(above))
    if isinstance(above, ast.Dict) and child in above.values:
        name = above.keys[above.values.index(child)] if isinstance(child, ast.expr) else None
        key = name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""
        return f"its key {key} says that it is written" if says_written(key) else ""
    if not isinstance(above, ast.Call):
        return ""
    options = [part.value for part in above.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    if call_name(above) == "add_argument":
        key = next((option for option in options if option.startswith("-")), key)
    if key and key != "default" and says_written(key):
        return f"its option {key} says that it is written"
    if call_name(above) == "add_argument":
        return ""
    return _called(above, child, line)


def _joins(above: ast.AST | None, child: ast.AST) -> bool:
    """Whether a call joins the path with others."""
    if not isinstance(above, ast.Call) or child not in above.args:
        return False
    return call_name(above) in ("join", "joinpath") or (call_name(above) in PATH_CLASSES and len(above.args) > 1)


def _stays_whole(program: Program, child: ast.AST, above: ast.AST | None) -> bool:
    """Whether what is put beside the path leaves it what it is: the project's folder before it, or blanks around it."""
    before: list[ast.expr] = []
    if isinstance(above, ast.BinOp):
        if isinstance(above.op, ast.Mod):
            return above.right is child
        before = [above.left] if isinstance(above.op, ast.Div) and above.right is child else []
    elif isinstance(above, ast.Call) and isinstance(child, ast.expr) and above.args[-1] is child:
        before = above.args[:-1]
        if call_name(above) == "joinpath" and isinstance(above.func, ast.Attribute):
            before = [above.func.value, *before]
    elif isinstance(above, ast.FormattedValue):
        string = program.parents.get(id(above))
        parts = string.values if isinstance(string, ast.JoinedStr) else []
        index = parts.index(above) if above in parts else 0
        ahead = _said(parts[index - 1]) if index else ""
        after = _said(parts[index + 1]) if index + 1 < len(parts) else ""
        return not re.search(r"[\w/\\.\-\0]$", ahead) and not re.match(r"[\w/\\.\-\0]", after)
    if len(before) != 1:
        return False
    built = program.build(before[0])
    return built is not None and built.base is not None and built.base.known and built.base.path in ("", ".")


def _said(part: ast.expr) -> str:
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "\0"


def _called(call: ast.Call, child: ast.AST, line: int) -> str:
    name, whole = call_name(call), dotted(call.func)
    place = call.args.index(child) if isinstance(child, ast.expr) and child in call.args else -1
    if name == "open":
        mode = next((word.value for word in call.keywords if word.arg == "mode"), None) or (
            call.args[1] if len(call.args) > 1 else None
        )
        reads = mode is None or (
            isinstance(mode, ast.Constant) and isinstance(mode.value, str) and not _WRITING_MODE.search(mode.value)
        )
        return "" if reads or place > 0 else f"the program writes it in line {line}"
    if name in _DERIVING_CALLS and place >= 0:
        return f"another path is made from it in line {line}"
    if name in _COPIES:
        copied = place == 0 or (isinstance(child, ast.keyword) and child.arg == "src")
        return "" if copied else f"the program writes it in line {line}"
    if _WRITES.match(name) or whole == "os.replace":
        return f"the program writes or removes it in line {line}"
    return ""


# what the program says afterwards


def _verified(
    program: Program, place: Place, tree: ast.Module, groups: Sequence[tuple[Edit, ...]], moves: Moves
) -> bool:
    text = apply_edits(place.text, [edit for group in groups for edit in group])
    after = Place(text, place.file, place.cell)
    parsed, _ = parse_cell(after.text)
    if parsed is None:
        return False
    later = Program([(after, parsed) if part is place else (part, other) for part, other in program.parts])
    made = [0]
    same = _same(tree, parsed, program, later, moves, made)
    return same and made[0] == len(groups)


def _same(old: ast.AST, new: ast.AST, before: Program, after: Program, moves: Moves, made: list[int]) -> bool:
    stack: list[tuple[object, object]] = [(old, new)]
    while stack:
        left, right = stack.pop()
        if isinstance(left, ast.expr) and isinstance(right, ast.expr):
            was = path_of(before, left, moves) if not isinstance(left, ast.Name) else None
            if was is not None and not was.change.why and _leads(after, right, was):
                made[0] += 1
                continue
        if type(left) is not type(right):
            return False
        if isinstance(left, ast.AST) and isinstance(right, ast.AST):
            stack += [(getattr(left, name, None), getattr(right, name, None)) for name in left._fields]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            stack += zip(left, right, strict=True)
        elif left != right:
            folder = before.parts[0][0].folder
            if not isinstance(left, str) or right != replaced(left, moves.within(left, folder)):
                return False
            made[0] += 1
    return True


def _leads(after: Program, node: ast.expr, was: Hit) -> bool:
    built = after.build(node)
    if built is None or (built.base is None) != (was.built.base is None):
        return False
    if built.base is not None and was.built.base is not None and built.base.path != was.built.base.path:
        return False
    return built.text == was.rest
