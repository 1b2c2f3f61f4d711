"""Native modules of a tree: declared by Cargo, maturin, setuptools or Cython; built or not; imported or not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from holdfast.inventory.code_modules import CodeTree
from holdfast.inventory.sources import MAX_SOURCE_BYTES, Source, read_source
from holdfast.inventory.tree import walk_files

NativeStatus = Literal["in use", "imported but not built", "built but unused", "declared only"]

_SECTION = re.compile(r"^\s*\[+([^\]\n]+)\]+\s*$", re.MULTILINE)
_NAME = re.compile(r"^\s*(?:module-)?name\s*=\s*[\"']([\w.\-]+)[\"']", re.MULTILINE)
_MODULE_NAME = re.compile(r"^\s*module-name\s*=\s*[\"']([\w.\-]+)[\"']", re.MULTILINE)
_PYO3 = re.compile(r"^\s*pyo3\b", re.MULTILINE)
_EXTENSION = re.compile(
    r"\b(?:Extension|RustExtension|CppExtension|CUDAExtension|Pybind11Extension)\(\s*(?:name\s*=\s*)?[\"']([\w.]+)[\"']"
)
_BUILT = re.compile(r"(?:lib)?(\w+?)(?:\.(?:cpython|cp|abi3|pypy)[\w\-]*)?\.(?:so|pyd|dylib)")


@dataclass(frozen=True, slots=True)
class NativeModule:
    """A compiled module.

    Args:
        name: dotted, as it is imported.
        declared: the files that declare it.
        built: its binaries in the tree.
        importers: ``file:line`` of each import.
        status: in words.
    """

    name: str
    declared: tuple[str, ...]
    built: tuple[str, ...]
    importers: tuple[str, ...]

    @property
    def status(self) -> NativeStatus:
        """Whether what is imported is built, and what is built is imported."""
        if self.importers:
            return "in use" if self.built else "imported but not built"
        return "built but unused" if self.built else "declared only"


def find_native(tree: CodeTree) -> list[NativeModule]:
    """Native modules that something in the tree declares, or that lie in it built; ordered by name."""
    declared: dict[str, set[str]] = {}
    built: dict[str, set[str]] = {}
    notes: list[str] = []
    for file in walk_files(tree.root, notes):
        label, name = file.label, file.name
        if name in ("Cargo.toml", "pyproject.toml", "setup.py", "setup.cfg"):
            for module in _declared(file.path, label, notes):
                declared.setdefault(module, set()).add(label)
        elif name.endswith(".pyx"):
            declared.setdefault(file.path.stem, set()).add(label)
        elif (found := _BUILT.fullmatch(name)) is not None:
            built.setdefault(found[1], set()).add(label)
    modules = []
    for name in sorted({*declared, *(name for name in built if name not in {_last(item) for item in declared})}):
        importers = sorted(set(_importers(tree, name)))
        modules.append(
            NativeModule(
                name, tuple(sorted(declared.get(name, ()))), tuple(sorted(built.get(_last(name), ()))), tuple(importers)
            )
        )
    return modules


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _declared(path: Path, label: str, notes: list[str]) -> Sequence[str]:
    if path.stat().st_size > MAX_SOURCE_BYTES:
        return ()
    text = read_source(Source(path, label, "config"), notes) or ""
    if path.name == "Cargo.toml":
        if not _PYO3.search(text):
            return ()
        sections = _sections(text)
        found = _NAME.search(sections.get("lib", "")) or _NAME.search(sections.get("package", ""))
        return [found[1].replace("-", "_")] if found else ()
    if path.name == "pyproject.toml":
        found = _MODULE_NAME.search(_sections(text).get("tool.maturin", ""))
        return [found[1]] if found else ()
    return [found[1] for found in _EXTENSION.finditer(text)]


def _sections(text: str) -> dict[str, str]:
    # Python 3.10 has no TOML reader, and a name is all that is wanted
    marks = list(_SECTION.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)] if marks else []
    return {mark[1].strip(): text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)}


def _importers(tree: CodeTree, name: str) -> list[str]:
    last = _last(name)
    found = []
    for item in tree.imports:
        parts = item.module.split(".")
        if last in (parts[0], parts[-1]) or (last in item.names and (item.level or "." in name)):
            where = f"{item.file}[{item.cell}]" if item.cell is not None else item.file
            if PurePosixPath(item.file).stem != last:
                found.append(f"{where}:{item.line}")
    return found
