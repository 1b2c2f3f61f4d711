"""The names of a program: scopes and what they hold, and the names of calls."""

import ast
from dataclasses import dataclass, field

from holdfast.inventory.ref_values import Value


@dataclass
class Scope:
    """The names of a module, class, function or comprehension, and those of what is around it."""

    parent: "Scope | None" = None
    names: dict[str, Value] = field(default_factory=dict)
    classes: "dict[str, Scope]" = field(default_factory=dict)
    owner: "Scope | None" = None  # the class whose method this is

    def find(self, name: str) -> Value | None:
        """The value of a name; None where nothing here assigns it."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def find_class(self, name: str) -> "Scope | None":
        """The class of that name."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.classes:
                return scope.classes[name]
            scope = scope.parent
        return None

    def find_owner(self) -> "Scope | None":
        """The class whose method we are in."""
        scope: Scope | None = self
        while scope is not None and scope.owner is None:
            scope = scope.parent
        return scope.owner if scope else None

    def inner(self) -> "Scope":
        """A scope in which names may be bound without a trace here."""
        return Scope(self)


def call_name(node: ast.Call) -> str:
    """The last part of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an attribute chain; empty for anything else."""
    parts: list[str] = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute):
        parts.append(current.attr)
        current = current.value
    return ".".join(reversed([*parts, current.id])) if isinstance(current, ast.Name) else ""
