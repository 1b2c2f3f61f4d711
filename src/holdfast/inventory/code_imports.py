"""Who uses which module of a tree: imports resolved to files, re-exports followed, mentions in configurations."""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from holdfast.inventory.code_modules import INIT, CodeTree, Import, Role

UseKind = Literal["import", "tried", "fallback", "re-export", "through package", "config"]

_CAMEL = re.compile(r"[A-Z][a-z0-9]+|[A-Z]+(?=[A-Z][a-z]|\b|\d)")


@dataclass(frozen=True, slots=True)
class Use:
    """One place that uses a module.

    Args:
        module: the path of the module, from the root.
        file: where it is used.
        cell: of a notebook.
        line: from 1.
        kind: ``import``; ``tried`` and ``fallback`` in a ``try`` that catches import errors; ``re-export`` by a
            package's ``__init__``; ``through package`` for a name that the package re-exports; ``config`` where a
            configuration, shell or build file names it.
        names: what is taken from it.
        role: of the file.
        text: what a configuration says.
    """

    module: str
    file: str
    cell: int | None
    line: int
    kind: UseKind
    names: tuple[str, ...]
    role: Role | Literal["config"]
    text: str = ""

    @property
    def place(self) -> str:
        """``file:line``, or ``file[cell]:line``."""
        return f"{self.file}[{self.cell}]:{self.line}" if self.cell is not None else f"{self.file}:{self.line}"


class Resolver:
    """Finds the file that a dotted name means, seen from a file.

    Args:
        paths: the modules, from the root.
        root_name: the name of the root's folder.
    """

    def __init__(self, paths: Iterable[str], root_name: str = "") -> None:
        self._paths = frozenset(paths)
        # where the root is a package itself, its modules are imported by names that begin with its own
        self._root_name = root_name if INIT in self._paths else ""
        self._by_tail: dict[tuple[str, ...], list[str]] = {}
        for path in sorted(self._paths):
            parts = module_parts(path)
            for start in range(len(parts)):
                self._by_tail.setdefault(parts[start:], []).append(path)

    def resolve(self, file: str, level: int, name: str) -> str | None:
        """The module's path, or None for one that is not of this tree.

        An absolute name is looked for from the root, from ``src``, from the file's folder and those above it; else
        anywhere, if it fits one file only and is not a plain word that a package of the world may have.
        """
        parts = tuple(part for part in name.split(".") if part)
        folder = PurePosixPath(file).parent
        if level:
            for _ in range(level - 1):
                folder = folder.parent
            return self._file(folder, parts)
        if not parts:
            return None
        if self._root_name and parts[0] == self._root_name:
            return self._file(PurePosixPath(), parts[1:])
        for base in (PurePosixPath(), PurePosixPath("src"), folder, *folder.parents):
            if (found := self._file(base, parts)) is not None:
                return found
        candidates = self._by_tail.get(parts, [])
        plain = len(parts) == 1 and "_" not in parts[0]
        if len(candidates) == 1 and not plain and parts[0] not in sys.stdlib_module_names:
            return candidates[0]
        return None

    def _file(self, base: PurePosixPath, parts: tuple[str, ...]) -> str | None:
        place = base.joinpath(*parts)
        for path in (f"{place}.py", f"{place / INIT}"):
            if path in self._paths:
                return path
        return None


def module_parts(path: str) -> tuple[str, ...]:
    """The dotted name that a path may have, cut at its dots."""
    place = PurePosixPath(path)
    return place.parent.parts if place.name == INIT else (*place.parent.parts, place.stem)


def find_uses(tree: CodeTree) -> list[Use]:
    """Every use of every module, ordered by place; a module's own mentions of itself are none."""
    resolver = Resolver(tree.modules, tree.root.resolve().name)
    uses: list[Use] = []
    exports: dict[tuple[str, str], str] = {}  # (package's __init__, name) -> the module it is from
    for item in tree.imports:
        for use in _direct(tree, resolver, item):
            uses.append(use)
            if item.file.endswith(INIT):
                exports.update({(item.file, name): use.module for name in use.names})
    for use in list(uses):
        if use.module.endswith(INIT) and use.file != use.module:
            for name in use.names:
                if (behind := exports.get((use.module, name))) is not None and behind != use.file:
                    kind: UseKind = "fallback" if use.kind == "fallback" else "through package"
                    uses.append(Use(behind, use.file, use.cell, use.line, kind, (name,), use.role))
    seen = {(use.file, use.module) for use in uses}
    uses += [use for use in _package_edges(tree) if (use.file, use.module) not in seen]
    programs = _programs(tree, uses)
    uses = [replace(use, role="entry point") if use.file in programs else use for use in uses]
    uses += _mentions(tree)
    unique = dict.fromkeys(use for use in uses if use.module != use.file)
    return sorted(unique, key=lambda use: (use.module, use.file, use.cell or 0, use.line, use.kind))


def _programs(tree: CodeTree, uses: list[Use]) -> frozenset[str]:
    """Modules that use others and are used by none: programs, though no name says so; their role changes."""
    used = {use.module for use in uses}
    found = {use.file for use in uses if use.role == "library" and use.file not in used}
    for path in found:
        tree.modules[path] = replace(tree.modules[path], role="entry point")
    return frozenset(found)


def _direct(tree: CodeTree, resolver: Resolver, item: Import) -> Iterator[Use]:
    def use(module: str, names: tuple[str, ...]) -> Use:
        role = tree.role(item.file)
        kind: UseKind = item.guard or "import"
        if role == "package" and kind != "fallback" and module != item.file:
            kind = "re-export"
        return Use(module, item.file, item.cell, item.line, kind, names, role)

    if not item.names:
        found = resolver.resolve(item.file, item.level, item.module)
        if found is not None:
            yield use(found, ())
        return
    rest = []
    for name in item.names:
        inner = resolver.resolve(item.file, item.level, f"{item.module}.{name}") if name != "*" else None
        if inner is not None:
            yield use(inner, ())
        else:
            rest.append(name)
    whole = resolver.resolve(item.file, item.level, item.module)
    if rest and whole is not None:
        yield use(whole, tuple(rest))


def _package_edges(tree: CodeTree) -> list[Use]:
    """Imports between the modules of the packages below the root, as `grimp` sees them; none where it cannot."""
    # imported here: half a second for a graph that only these commands need
    import grimp

    result: list[Use] = []
    for base in ("", "src"):
        folder = tree.root / base
        prefix = f"{base}/" if base else ""
        packages = sorted({path.removeprefix(prefix).split("/")[0] for path in tree.modules if path.startswith(prefix)})
        for package in packages:
            if f"{prefix}{package}/{INIT}" not in tree.modules or package in sys.modules or not package.isidentifier():
                continue  # a loaded package of that name would be found in its place
            sys.path.insert(0, str(folder))
            try:
                graph = grimp.build_graph(package, cache_dir=None)
            except Exception as error:
                tree.notes.append(f"{prefix}{package}: no import graph of the package ({type(error).__name__})")
                continue
            finally:
                sys.path.remove(str(folder))
            result += _edges(tree, graph, prefix)
    return result


def _edges(tree: CodeTree, graph: "object", prefix: str) -> Iterator[Use]:
    paths = {
        ".".join(module_parts(path.removeprefix(prefix))): path for path in tree.modules if path.startswith(prefix)
    }
    for name in sorted(getattr(graph, "modules")):  # noqa: B009 - grimp's graph is not typed here
        for imported in sorted(graph.find_modules_directly_imported_by(name)):  # type: ignore[attr-defined]
            if name not in paths or imported not in paths:
                continue
            details = graph.get_import_details(importer=name, imported=imported)  # type: ignore[attr-defined]
            line = min((int(detail["line_number"]) for detail in details), default=1)
            role = tree.role(paths[name])
            yield Use(
                paths[imported], paths[name], None, line, "re-export" if role == "package" else "import", (), role
            )


def _mentions(tree: CodeTree) -> list[Use]:
    """Modules that configurations, shell and build files name: by their name of several words, a path, or a class."""
    from ahocorasick_rs import AhoCorasick  # imported here: a compiled library that few commands need

    owners: dict[str, set[str]] = {}
    for path, module in tree.modules.items():
        if module.role in ("archived", "package", "test"):
            continue
        words = {Path(path).name, ".".join(module_parts(path))}
        if "_" in module.name.strip("_"):
            words.add(module.name)
        words.update(name for name in module.classes if len(_CAMEL.findall(name)) > 1)
        for word in words:
            owners.setdefault(word, set()).add(path)
    known = {word: next(iter(paths)) for word, paths in owners.items() if len(paths) == 1}
    if not known:
        return []
    needles = sorted(known)
    automaton = AhoCorasick(needles)
    result: dict[tuple[str, str, int], Use] = {}
    for source, text in tree.texts:
        for index, start, end in automaton.find_matches_as_indexes(text, overlapping=True):
            before, after = text[max(0, start - 1) : start], text[end : end + 1]
            if (before.isalnum() or before in ("_", "-")) or after.isalnum() or (after and after in "_-"):
                continue
            word = needles[index]
            line = text.count("\n", 0, start) + 1
            use = Use(known[word], source.label, None, line, "config", (), "config", word)
            key = (use.module, use.file, line)
            if key not in result or len(result[key].text) < len(word):
                result[key] = use
    return list(result.values())
