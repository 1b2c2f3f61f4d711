"""What the expressions of a Python file may be, from the constants that are assigned in it."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace

from holdfast.inventory.ref_scope import Scope, call_name, dotted
from holdfast.inventory.ref_values import (
    MAX_ITEMS,
    UNKNOWN,
    Items,
    Table,
    Text,
    Value,
    as_text,
    brace_format,
    concatenate,
    elements,
    formatted,
    join_path,
    join_text,
    literal,
    lookup,
    path_part,
    percent_format,
    union,
    with_name,
    with_suffix,
)

MAX_UNROLLED = 64
PATH_CLASSES = frozenset({"Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"})
# calls whose result names the same file as their first argument, or as the object they are called on
SAME_AS_ARGUMENT = frozenset({"str", "fspath", "abspath", "realpath", "normpath", "expanduser", "expandvars", "repr"})
SAME_AS_OBJECT = frozenset(
    {"resolve", "absolute", "expanduser", "as_posix", "as_uri", "strip", "lstrip", "rstrip", "encode", "decode", "copy"}
)
SAME_ITEMS = frozenset({"list", "tuple", "set", "frozenset", "sorted", "reversed", "iter", "tqdm", "trange", "cycle"})
GLOBS = frozenset({"glob", "rglob", "iglob"})


class Evaluator:
    """Evaluates expressions; ``places`` says which node is a reference already, so that values know their origin."""

    def __init__(self, places: Mapping[int, int]) -> None:
        self._places = places

    def value(self, node: ast.expr | None, scope: Scope) -> Value:
        """What the expression may be."""
        if node is None:
            return UNKNOWN
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        result: Value = method(node, scope) if method else UNKNOWN
        place = self._places.get(id(node))
        if place is not None and isinstance(result, Text):
            return replace(result, places=result.places | {place})
        return result

    def text(self, node: ast.expr | None, scope: Scope) -> Text:
        """The same, as a text."""
        return as_text(self.value(node, scope))

    def _constant(self, node: ast.Constant, _: Scope) -> Value:
        if isinstance(node.value, str):
            return literal(node.value)
        if isinstance(node.value, bytes):
            return literal(node.value.decode("latin-1"))
        if isinstance(node.value, int) and not isinstance(node.value, bool) and abs(node.value) < 10**9:
            return literal(str(node.value))
        return UNKNOWN

    def _joinedstr(self, node: ast.JoinedStr, scope: Scope) -> Value:
        return concatenate(*(self.text(part, scope) for part in node.values)) if node.values else literal("")

    def _formattedvalue(self, node: ast.FormattedValue, scope: Scope) -> Value:
        layout = ""
        if node.format_spec is not None:
            forms = self.text(node.format_spec, scope).forms
            if len(forms) != 1 or len(forms[0]) != 1 or forms[0][0] is None:
                return UNKNOWN
            layout = forms[0][0]
        return formatted(self.value(node.value, scope), layout) if node.conversion != ord("r") else UNKNOWN

    def _binop(self, node: ast.BinOp, scope: Scope) -> Value:
        left = self.value(node.left, scope)
        right = self.value(node.right, scope)
        if isinstance(node.op, ast.Add):
            if isinstance(left, Items) or isinstance(right, Items):
                known = [value for value in (left, right) if isinstance(value, Items)]
                return Items(tuple(v for value in known for v in value.values)[:MAX_ITEMS], len(known) == 2)
            return concatenate(as_text(left), as_text(right))
        if isinstance(node.op, ast.Div):
            return join_path(as_text(left), as_text(right))
        if isinstance(node.op, ast.Mod) and isinstance(left, Text):
            return percent_format(left, right)
        return UNKNOWN

    def _boolop(self, node: ast.BoolOp, scope: Scope) -> Value:
        return union(self.value(part, scope) for part in node.values)

    def _ifexp(self, node: ast.IfExp, scope: Scope) -> Value:
        return union((self.value(node.body, scope), self.value(node.orelse, scope)))

    def _namedexpr(self, node: ast.NamedExpr, scope: Scope) -> Value:
        return self.value(node.value, scope)

    def _starred(self, node: ast.Starred, scope: Scope) -> Value:
        return self.value(node.value, scope)

    def _name(self, node: ast.Name, scope: Scope) -> Value:
        found = scope.find(node.id)
        return UNKNOWN if found is None else found

    def _list(self, node: ast.List | ast.Tuple | ast.Set, scope: Scope) -> Value:
        values: list[Value] = []
        whole = len(node.elts) <= MAX_ITEMS
        for part in node.elts[:MAX_ITEMS]:
            value = self.value(part, scope)
            if not isinstance(part, ast.Starred):
                values.append(value)
            elif isinstance(value, Items):
                values += value.values
                whole = whole and value.whole
            else:
                whole = False
        return Items(tuple(values), whole)

    _tuple = _set = _list

    def _dict(self, node: ast.Dict, scope: Scope) -> Value:
        pairs: list[tuple[Value, Value]] = []
        for key, value in list(zip(node.keys, node.values, strict=True))[:MAX_ITEMS]:
            if key is not None:
                pairs.append((self.value(key, scope), self.value(value, scope)))
            elif isinstance(inner := self.value(value, scope), Table):
                pairs += inner.pairs
        return Table(tuple(pairs))

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp, scope: Scope) -> Value:
        return Items(tuple(self.value(node.elt, inner) for inner in self.iterations(node.generators, scope)))

    _generatorexp = _setcomp = _listcomp

    def _dictcomp(self, node: ast.DictComp, scope: Scope) -> Value:
        scopes = self.iterations(node.generators, scope)
        return Table(tuple((self.value(node.key, inner), self.value(node.value, inner)) for inner in scopes))

    def iterations(self, generators: list[ast.comprehension], scope: Scope) -> list[Scope]:
        """The scopes in which a comprehension's element is evaluated, one for each known item."""
        scopes = [scope.inner()]
        for generator in generators:
            entered: list[Scope] = []
            for outer in scopes:
                values = elements(self.value(generator.iter, outer))
                for value in values if len(values) <= MAX_UNROLLED else [union(values)]:
                    inner = outer.inner()
                    self.bind(generator.target, value, inner)
                    entered.append(inner)
            scopes = entered[:MAX_ITEMS]
        return scopes

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Value:
        if isinstance(node.slice, ast.Slice):
            return UNKNOWN
        if isinstance(node.value, ast.Attribute) and node.value.attr == "parents":
            base = self.text(node.value.value, scope)
            index = self.text(node.slice, scope).forms[0][:1]
            count = int(index[0]) + 1 if index and index[0] is not None and index[0].isdecimal() else 1
            for _ in range(min(count, 20)):
                base = path_part(base, "parent")
            return base
        return lookup(self.value(node.value, scope), self.value(node.slice, scope))

    def _attribute(self, node: ast.Attribute, scope: Scope) -> Value:
        if isinstance(node.value, ast.Name):
            if node.value.id in ("self", "cls") and (owner := scope.find_owner()) is not None:
                return owner.names.get(node.attr, UNKNOWN)
            if (owner := scope.find_class(node.value.id)) is not None and node.attr in owner.names:
                return owner.names[node.attr]
        if node.attr == "sep":
            return literal("/")
        if node.attr in ("name", "stem", "suffix", "parent"):
            base = self.text(node.value, scope)
            # an unknown object's `.name` is unknown too, while an unknown path's `.parent` is some folder
            return path_part(base, node.attr) if base.forms != UNKNOWN.forms else UNKNOWN
        if node.attr == "value":  # of an Enum's member
            return self.value(node.value, scope)
        return UNKNOWN

    def _call(self, node: ast.Call, scope: Scope) -> Value:
        name = call_name(node)
        arguments = node.args
        if isinstance(node.func, ast.Attribute):
            if name in ("join", "joinpath") and arguments and not _is_string(node.func.value, self, scope, name):
                parts = [*([node.func.value] if name == "joinpath" else []), *arguments]
                return join_path(*self._spread(parts, scope))
            method = _METHODS.get(name)
            if method is not None:
                return method(self, node.func.value, node, scope)
        if name in PATH_CLASSES:
            return join_path(*self._spread(arguments, scope)) if arguments else literal(".")
        if name == "Template" and arguments:
            return self.value(arguments[0], scope)
        if name in GLOBS and arguments:  # glob.glob(pattern), or a name imported from glob
            base = next((word.value for word in node.keywords if word.arg == "root_dir"), None)
            pattern = self.text(arguments[0], scope)
            return Items((join_path(self.text(base, scope), pattern) if base else pattern,), whole=False)
        if name in SAME_AS_ARGUMENT and arguments:
            return self.value(arguments[0], scope)
        if name in SAME_ITEMS and arguments:
            value = self.value(arguments[0], scope)
            return value if isinstance(value, Items) else Items(tuple(elements(value)), isinstance(value, Table))
        if name == "dict" and not arguments:
            return Table(tuple((literal(w.arg), self.value(w.value, scope)) for w in node.keywords if w.arg))
        if name in ("enumerate", "zip", "range", "product"):
            return self._loop_helper(name, node, scope)
        if name in ("getattr", "field", "getenv", "get", "Field", "Argument", "Option") and node.args[1:]:
            return union((self.value(node.args[-1], scope), UNKNOWN))
        return UNKNOWN

    def _spread(self, nodes: list[ast.expr], scope: Scope) -> list[Text]:
        parts: list[Text] = []
        for node in nodes:
            value = self.value(node, scope)
            if isinstance(node, ast.Starred):
                parts += [as_text(item) for item in value.values] if isinstance(value, Items) else [UNKNOWN]
            else:
                parts.append(as_text(value))
        return parts or [UNKNOWN]

    def _loop_helper(self, name: str, node: ast.Call, scope: Scope) -> Value:
        columns = [elements(self.value(argument, scope)) for argument in node.args]
        if name == "range":
            bounds = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            numbers = [bound for bound in bounds if isinstance(bound, int)]
            if len(numbers) == len(node.args) and 1 <= len(numbers) <= 3 and 0 not in numbers[2:]:
                span = range(*numbers)
                if len(span) <= MAX_UNROLLED:
                    return Items(tuple(literal(str(number)) for number in span))
            return Items((), whole=False)
        if not columns:
            return Items((), whole=False)
        if name == "enumerate":
            return Items(tuple(Items((literal(str(i)), value)) for i, value in enumerate(columns[0][:MAX_ITEMS])))
        if name == "product":
            rows: list[tuple[Value, ...]] = [()]
            for column in columns:
                rows = [(*row, value) for row in rows for value in column][:MAX_ITEMS]
            return Items(tuple(Items(row) for row in rows))
        known = [column for column in columns if column != [UNKNOWN]]
        length = min(map(len, known), default=1)
        return Items(
            tuple(
                Items(tuple(UNKNOWN if column == [UNKNOWN] else column[index] for column in columns))
                for index in range(min(length, MAX_ITEMS))
            )
        )

    def bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        """Assign a value to a target: a name, an attribute of ``self``, or several in a tuple."""
        if isinstance(target, ast.Name):
            scope.names[target.id] = value
        elif isinstance(target, ast.Starred):
            self.bind(target.value, Items((value,), whole=False), scope)
        elif isinstance(target, ast.Tuple | ast.List):
            values = value.values if isinstance(value, Items) and value.whole else ()
            fits = len(values) == len(target.elts) and not any(isinstance(t, ast.Starred) for t in target.elts)
            for index, part in enumerate(target.elts):
                self.bind(part, values[index] if fits else UNKNOWN, scope)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            owner = scope.find_owner() if target.value.id in ("self", "cls") else scope.find_class(target.value.id)
            if owner is not None:
                known = owner.names.get(target.attr)
                owner.names[target.attr] = value if known is None else union((known, value))
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
            table = scope.find(target.value.id)
            if isinstance(table, Table) and len(table.pairs) < MAX_ITEMS:
                scope.names[target.value.id] = Table((*table.pairs, (self.value(target.slice, scope), value)))

    # methods of texts, paths and containers: (object, call, scope) -> value

    def _m_format(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        named = {word.arg: self.value(word.value, scope) for word in node.keywords if word.arg}
        positional = [self.value(argument, scope) for argument in node.args if not isinstance(argument, ast.Starred)]
        return brace_format(self.text(base, scope), positional, named)

    def _m_substitute(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        result = self.text(base, scope)
        for word in node.keywords:
            value = self.text(word.value, scope)
            if word.arg and len(value.forms) == 1 and len(value.forms[0]) == 1 and (text := value.forms[0][0]):
                for mark in (f"${{{word.arg}}}", f"${word.arg}"):
                    result = _replaced(result, mark, text)
        return result

    def _m_join(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        return join_text(self.text(base, scope), self.value(node.args[0], scope)) if node.args else UNKNOWN

    def _m_with_name(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        return with_name(self.text(base, scope), self.text(node.args[0], scope)) if node.args else UNKNOWN

    def _m_with_stem(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        if not node.args:
            return UNKNOWN
        path = self.text(base, scope)
        return with_name(path, concatenate(self.text(node.args[0], scope), path_part(path, "suffix")))

    def _m_with_suffix(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        return with_suffix(self.text(base, scope), self.text(node.args[0], scope)) if node.args else UNKNOWN

    def _m_glob(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        if not node.args:
            return UNKNOWN
        pattern = self.text(node.args[0], scope)
        if isinstance(base, ast.Name) and base.id == "glob":
            folder = next((word.value for word in node.keywords if word.arg == "root_dir"), None)
            pattern = join_path(self.text(folder, scope), pattern) if folder else pattern
        else:
            deep = [literal("**")] if call_name(node) == "rglob" else []
            pattern = join_path(self.text(base, scope), *deep, pattern)
        return Items((pattern,), whole=False)

    def _m_replace(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        text = self.text(base, scope)
        if len(node.args) < 2:
            return text
        old, new = (self.text(argument, scope).forms for argument in node.args[:2])
        known = [form[0] for form in (*old, *new) if len(form) == 1 and form[0] is not None]
        return _replaced(text, known[0], known[1]) if len(known) == 2 and len(old) == len(new) == 1 else UNKNOWN

    def _m_endswith(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:  # noqa: ARG002 - one signature
        # `if name.endswith("_best.pth")` chooses files by their names, as a glob does
        value = self.value(node.args[0], scope) if node.args else UNKNOWN
        ends = value.values if isinstance(value, Items) else (value,)
        return concatenate(UNKNOWN, as_text(union(ends)))

    def _m_case(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        text = self.text(base, scope)
        change: Callable[[str], str] = str.lower if call_name(node) == "lower" else str.upper
        forms = tuple(tuple(change(part) if part is not None else None for part in form) for form in text.forms)
        return Text(forms, text.places)

    def _m_same(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        # `.strip("…")` may change the text, and without an argument it only takes blanks
        return (
            self.value(base, scope)
            if not node.args
            else self.value(node.args[0], scope)
            if _is_os_path(base)
            else UNKNOWN
        )

    def _m_values(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        table = self.value(base, scope)
        if not isinstance(table, Table):
            return Items((), whole=False)
        name = call_name(node)
        if name == "items":
            return Items(tuple(Items(pair) for pair in table.pairs))
        return Items(tuple(key if name == "keys" else value for key, value in table.pairs))

    def _m_get(self, base: ast.expr, node: ast.Call, scope: Scope) -> Value:
        table = self.value(base, scope)
        default = [self.value(node.args[1], scope)] if len(node.args) > 1 else []
        if not isinstance(table, Table) or not node.args:
            return union([*default, UNKNOWN])
        return union([lookup(table, self.value(node.args[0], scope)), *default])


Method = Callable[[Evaluator, ast.expr, ast.Call, Scope], Value]
_METHODS: dict[str, Method] = {
    "format": Evaluator._m_format,
    "substitute": Evaluator._m_substitute,
    "safe_substitute": Evaluator._m_substitute,
    "join": Evaluator._m_join,
    "with_name": Evaluator._m_with_name,
    "with_stem": Evaluator._m_with_stem,
    "with_suffix": Evaluator._m_with_suffix,
    "replace": Evaluator._m_replace,
    "endswith": Evaluator._m_endswith,
    "lower": Evaluator._m_case,
    "upper": Evaluator._m_case,
    "get": Evaluator._m_get,
    **dict.fromkeys(GLOBS, Evaluator._m_glob),
    **dict.fromkeys(SAME_AS_OBJECT, Evaluator._m_same),
    **dict.fromkeys(("items", "keys", "values"), Evaluator._m_values),
}


def _is_os_path(node: ast.expr) -> bool:
    return dotted(node).rsplit(".", 1)[-1] in ("path", "os", "osp")


def _is_string(node: ast.expr, evaluator: Evaluator, scope: Scope, name: str) -> bool:
    # `"/".join(parts)` against `os.path.join(a, b)` and `posixpath.join(a, b)`
    if name != "join" or isinstance(node, ast.Constant | ast.JoinedStr):
        return name == "join"
    return not (_is_os_path(node) or dotted(node) in ("posixpath", "ntpath")) and (
        evaluator.text(node, scope).forms != UNKNOWN.forms or dotted(node).endswith("sep")
    )


def _replaced(text: Text, old: str, new: str) -> Text:
    if not old:
        return text
    forms = tuple(tuple(part.replace(old, new) if part is not None else None for part in form) for form in text.forms)
    return Text(forms, text.places)
