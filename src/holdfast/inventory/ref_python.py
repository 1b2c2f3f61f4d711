"""References in Python: every place where a name comes together, whichever way it is built.

A file is walked once in the order in which it runs: module and classes first, bodies of functions after them. Loops
over known items are gone through item by item, so that they narrow what is built in them.
"""

import ast
import io
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass, field

from holdfast.inventory.ref_evaluate import GLOBS, MAX_UNROLLED, PATH_CLASSES, Evaluator
from holdfast.inventory.ref_pattern import How, Match, Matcher
from holdfast.inventory.ref_scope import Scope, call_name
from holdfast.inventory.ref_text import find_in_text, is_command, match_token, tokens
from holdfast.inventory.ref_values import UNKNOWN, Items, Text, Value, elements, union
from holdfast.inventory.sources import character_column, split_lines

# loops are unrolled while a file has not taken more statements than that
STATEMENT_BUDGET = 20_000
RUNNERS = frozenset({"system", "popen", "run", "call", "check_call", "check_output", "Popen", "getoutput", "spawn"})
SPOKEN = frozenset({"print", "debug", "info", "warning", "warn", "error", "exception", "critical", "log", "write"})
HOLE_MARK = "{}"


@dataclass
class Place:
    """A node that names targets."""

    node: ast.expr
    text: str
    how: How
    targets: set[str]
    uses: set[str] = field(default_factory=set)  # what the uses of a template narrow it to


@dataclass(frozen=True, slots=True)
class Hit:
    """A place in Python source: lines from 1, columns from 1 in characters, the end exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int
    text: str
    match: Match


def find_in_python(
    trees: Iterable[ast.Module], sources: Iterable[str], matcher: Matcher, folder: str
) -> list[list[Hit]]:
    """The places of each part of a program; the parts are a file, or the code cells of a notebook in order.

    Args:
        trees: the syntax of each part; names that one assigns are known in the next.
        sources: their texts.
        matcher: knows the targets.
        folder: of the file, from the root.

    Raises:
        RecursionError: an expression is nested too deeply to be walked.
    """
    walker = _Walker(matcher, folder)
    result = []
    for tree, source in zip(trees, sources, strict=True):
        places = walker.walk(tree)
        lines = split_lines(source)
        hits = [_hit(place, lines) for place in places]
        result.append(sorted(hits, key=lambda hit: (hit.line, hit.column)))
    return result


def find_comments(source: str, matcher: Matcher, folder: str) -> list[Hit]:
    """What the comments of a Python text mention."""
    hits = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                line, column = token.start
                for found in find_in_text(token.string, "docs", matcher, folder):
                    start = column + found.column
                    hits.append(Hit(line, start, line, start + len(found.text), found.text, found.match))
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass  # what was found until there stands
    return hits


def _hit(place: Place, lines: list[str]) -> Hit:
    node = place.node
    last = node.end_lineno or node.lineno
    start = character_column(lines[node.lineno - 1], node.col_offset) if node.lineno <= len(lines) else 0
    end = character_column(lines[last - 1], node.end_col_offset or 0) if last <= len(lines) else 0
    targets = frozenset(place.uses or place.targets)
    return Hit(node.lineno, start + 1, last, end + 1, place.text, Match(place.how, targets))


class _Walker:
    def __init__(self, matcher: Matcher, folder: str) -> None:
        self._matcher = matcher
        self._folder = folder
        self._places: list[Place] = []
        self._place_of: dict[int, int] = {}  # node -> index in _places
        self._evaluator = Evaluator(self._place_of)
        self._module = Scope()
        self._later: list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, Scope]] = []
        self._budget = STATEMENT_BUDGET
        self._kept: list[ast.Module] = []
        self._inside: set[int] = set()  # nodes whose text is part of a longer one that is known

    def walk(self, tree: ast.Module) -> list[Place]:
        """The places of one part."""
        self._kept.append(tree)  # ids of nodes are keys: they must not be given to others
        first = len(self._places)
        self._block(tree.body, self._module)
        while self._later:
            function, scope = self._later.pop(0)
            self._block(function.body, scope)
        return self._places[first:]

    # statements

    def _block(self, body: list[ast.stmt], scope: Scope) -> None:
        for statement in body:
            self._budget -= 1
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                if isinstance(statement.value.value, str):
                    self._mention(statement.value, statement.value.value)
                continue
            self._statement(statement, scope)

    def _statement(self, node: ast.stmt, scope: Scope) -> None:
        if isinstance(node, ast.Assign):
            self._visit(node.value, scope)
            value = self._evaluator.value(node.value, scope)
            for target in node.targets:
                self._visit_target(target, scope)
                self._evaluator.bind(target, value, scope)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._visit(node.value, scope)
                self._evaluator.bind(node.target, self._evaluator.value(node.value, scope), scope)
        elif isinstance(node, ast.AugAssign):
            self._aug_assign(node, scope)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self._visit(node.iter, scope)
            self._loop(node, scope)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._function(node, scope)
        elif isinstance(node, ast.ClassDef):
            for part in (*node.decorator_list, *node.bases, *(word.value for word in node.keywords)):
                self._visit(part, scope)
            inner = Scope(scope)
            for base in node.bases:
                if isinstance(base, ast.Name) and (above := scope.find_class(base.id)) is not None:
                    inner.names.update(above.names)
            inner.owner = inner
            scope.classes[node.name] = inner
            self._block(node.body, inner)
        else:
            self._compound(node, scope)

    def _compound(self, node: ast.stmt, scope: Scope) -> None:
        """Anything else: its expressions, then each of its blocks as one that may or may not run."""
        before = dict(scope.names)
        after: list[dict[str, Value]] = []
        for _, child in ast.iter_fields(node):
            parts = child if isinstance(child, list) else [child]
            if parts and isinstance(parts[0], ast.stmt):
                scope.names = dict(before)
                self._block(parts, scope)
                after.append(scope.names)
                continue
            for part in parts:
                if isinstance(part, ast.expr):
                    self._visit(part, scope)
                elif isinstance(part, ast.withitem):
                    self._visit(part.context_expr, scope)
                elif isinstance(part, ast.ExceptHandler | ast.match_case):
                    scope.names = dict(before)
                    self._block(part.body, scope)
                    after.append(scope.names)
        if after:
            always = isinstance(node, ast.With | ast.AsyncWith)
            scope.names = after[0] if always else _merged([before, *after])

    def _aug_assign(self, node: ast.AugAssign, scope: Scope) -> None:
        self._visit(node.value, scope)
        if isinstance(node.op, ast.Add) and isinstance(node.target, ast.Name):
            # evaluated as if it were `name = name + value`, whose node must live as long as the tree
            left = ast.copy_location(ast.Name(node.target.id, ast.Load()), node)
            whole = ast.copy_location(ast.BinOp(left, ast.Add(), node.value), node)
            self._kept.append(ast.Module(body=[ast.Expr(whole)], type_ignores=[]))
            self._record(whole, scope)
            self._evaluator.bind(node.target, self._evaluator.value(whole, scope), scope)
        elif isinstance(node.target, ast.Name):
            scope.names[node.target.id] = UNKNOWN

    def _loop(self, node: ast.For | ast.AsyncFor, scope: Scope) -> None:
        items = elements(self._evaluator.value(node.iter, scope))
        if not 1 <= len(items) <= MAX_UNROLLED or self._budget < 0:
            items = [union(items)]
        before = dict(scope.names)
        ends = [before]
        for item in items:
            scope.names = dict(ends[-1])
            self._evaluator.bind(node.target, item, scope)
            self._block(node.body, scope)
            ends.append(scope.names)
        scope.names = _merged([ends[0], ends[-1]] if len(ends) > 8 else ends)
        self._block(node.orelse, scope)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        arguments = node.args
        for part in (*node.decorator_list, *arguments.defaults, *(d for d in arguments.kw_defaults if d is not None)):
            self._visit(part, scope)
        # a class is no scope for its methods, but they know it as `self`
        is_method = scope.owner is scope
        inner = Scope(scope.parent if is_method else scope)
        inner.owner = scope if is_method else None
        self._bind_parameters(arguments, scope, inner)
        scope.names.setdefault(node.name, UNKNOWN)
        self._later.append((node, inner))

    def _bind_parameters(self, arguments: ast.arguments, outer: Scope, inner: Scope) -> None:
        positional = [*arguments.posonlyargs, *arguments.args]
        for argument in (*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
            if argument is not None:
                inner.names[argument.arg] = UNKNOWN
        defaulted = [
            *zip(reversed(positional), reversed(arguments.defaults), strict=False),
            *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
        ]
        for argument, default in defaulted:
            if default is not None and isinstance(value := self._evaluator.value(default, outer), Text):
                inner.names[argument.arg] = union((value, UNKNOWN))

    # expressions

    def _visit_target(self, target: ast.expr, scope: Scope) -> None:
        if isinstance(target, ast.Subscript):
            self._visit(target.slice, scope)

    def _visit(self, node: ast.AST, scope: Scope, *, command: bool = False) -> None:
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp | ast.Call | ast.Attribute):
            if id(node) not in self._inside and self._record(node, scope, command=command):
                return
            if isinstance(node, ast.Constant):
                return
            self._inside.update(id(part) for part in self._operands(node, scope))
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            self._comprehension(node, scope)
            return
        if isinstance(node, ast.NamedExpr):
            self._visit(node.value, scope)
            self._evaluator.bind(node.target, self._evaluator.value(node.value, scope), scope)
            return
        if isinstance(node, ast.Lambda):
            inner = Scope(scope)
            self._bind_parameters(node.args, scope, inner)
            self._visit(node.body, inner)
            return
        runs = isinstance(node, ast.Call) and call_name(node) in RUNNERS
        for child in ast.iter_child_nodes(node):
            self._visit(child, scope, command=command or runs)
        if isinstance(node, ast.Call):
            self._mutate(node, scope)

    def _operands(self, node: ast.expr, scope: Scope) -> list[ast.expr]:
        """The parts of a text that is known: "a.pth" alone is not what `os.path.join("backup", "a.pth")` names."""
        value = self._evaluator.value(node, scope)
        if not isinstance(value, Text) or value.forms == UNKNOWN.forms:
            return []
        if isinstance(node, ast.BinOp):
            return [node.left, node.right] if isinstance(node.op, ast.Add | ast.Div) else []
        if isinstance(node, ast.JoinedStr):
            return node.values
        if not isinstance(node, ast.Call) or call_name(node) not in {"join", "joinpath", *PATH_CLASSES}:
            return []
        return [*([node.func.value] if isinstance(node.func, ast.Attribute) else []), *node.args]

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: Scope) -> None:
        for index, generator in enumerate(node.generators):
            outer = self._evaluator.iterations(node.generators[:index], scope) if index else [scope]
            for inner in outer[:MAX_UNROLLED]:
                self._visit(generator.iter, inner)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for inner in self._evaluator.iterations(node.generators, scope):
            for part in (*(test for generator in node.generators for test in generator.ifs), *parts):
                self._visit(part, inner)

    def _mutate(self, node: ast.Call, scope: Scope) -> None:
        # `names.append("a")`: the list has one more
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.args:
            known = scope.find(node.func.value.id)
            if isinstance(known, Items) and node.func.attr in ("append", "add", "extend"):
                value = self._evaluator.value(node.args[0], scope)
                more = (value,) if node.func.attr != "extend" else value.values if isinstance(value, Items) else ()
                scope.names[node.func.value.id] = Items((*known.values, *more)[-512:], known.whole)

    def _record(self, node: ast.expr, scope: Scope, *, command: bool = False) -> bool:
        """Take in a node that names targets; whether it does, so that nothing below it is looked at."""
        value = self._evaluator.value(node, scope)
        listing = isinstance(node, ast.Call) and call_name(node) in GLOBS and isinstance(value, Items)
        if listing and isinstance(value, Items) and value.values:
            value = value.values[0]
        if not isinstance(value, Text) or value.forms == UNKNOWN.forms:
            return False
        match = self._matcher.match(value.forms, self._folder, listing=listing)
        if match is None:
            return self._words(node, value, command=command) if _holds_blank(value) else False
        own = self._place_of.get(id(node))
        others = value.places - {own} if own is not None else value.places
        if others and isinstance(node, ast.Attribute):
            return True
        if others:
            known = {target for place in others for target in self._places[place].targets}
            if match.targets <= known:
                if _fills_template(node):
                    for place in others:
                        self._places[place].uses |= match.targets & self._places[place].targets
                return True  # its parts are references, and it adds nothing to what they name
        how: How = match.how
        if how in ("path", "name") and not _is_literal(node):
            how = "pattern"
        if any(piece is not None and "://" in piece for form in value.forms for piece in form):
            how = "mention"  # what lies at a URL is another file
        self._take(node, how, match.targets, value)
        return True

    def _words(self, node: ast.expr, value: Text, *, command: bool) -> bool:
        """A text of several words: a command names targets, a message mentions them."""
        found: set[str] = set()
        runs = command
        for form in value.forms:
            text = "".join(HOLE_MARK if piece is None else piece for piece in form)
            runs = runs or is_command(text)
            for line in split_lines(text):
                for _, token in tokens(line):
                    if match := match_token(token, self._matcher, self._folder, {}):
                        found |= match.targets
        if not found or value.places:
            return bool(value.places)
        self._take(node, "path" if runs and _is_literal(node) else "pattern" if runs else "mention", found, value)
        return True

    def _mention(self, node: ast.Constant, text: str) -> None:
        # a docstring, or a string that stands for itself
        found: set[str] = set()
        for hit in find_in_text(text, "docs", self._matcher, self._folder):
            found |= hit.match.targets
        if found:
            self._take(node, "mention", found, Text(((text,),)))

    def _take(self, node: ast.expr, how: How, targets: Iterable[str], value: Text) -> None:
        place = self._place_of.get(id(node))
        if place is not None:
            self._places[place].targets |= set(targets)
            return
        self._place_of[id(node)] = len(self._places)
        self._places.append(Place(node, _shown(value), how, set(targets)))


def _merged(states: list[dict[str, Value]]) -> dict[str, Value]:
    result: dict[str, Value] = {}
    for name in {name for state in states for name in state}:
        values = list(dict.fromkeys(state[name] for state in states if name in state))
        result[name] = union(values)
    return result


def _shown(value: Text) -> str:
    form = value.forms[0]
    text = "".join(HOLE_MARK if piece is None else piece for piece in form)
    return text if len(value.forms) == 1 else f"{text} …"


def _holds_blank(value: Text) -> bool:
    return any(piece is not None and any(c in piece for c in " \n\t=:,;|") for form in value.forms for piece in form)


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):  # Path("models/a.pth")
        return len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.Constant)
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.JoinedStr) and all(isinstance(part, ast.Constant) for part in node.values)
    )


def _fills_template(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Mod)
    return isinstance(node, ast.Call) and call_name(node) in ("format", "substitute", "safe_substitute")
