"""Every module of a tree: how long, what it defines, what it is for, who uses it, and whether it is in use."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from holdfast.inventory.code_imports import Use, find_uses
from holdfast.inventory.code_modules import Role, read_code
from holdfast.inventory.code_native import NativeModule, find_native
from holdfast.inventory.code_variants import Status, judge

ModuleStatus = Status | Literal["archived", "entry point", "in use", "package", "test", "unused"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A module.

    Args:
        path: from the root.
        lines: of its text.
        classes: top-level ones.
        role: what it is for, by folder, name and imports.
        importers: files that use it, configurations left out.
        notebooks: those of them that are notebooks.
        configs: configurations that name it.
        status: that of its group for a variant (canonical, active, alternative, legacy); else ``entry point``,
            ``in use``, ``unused``, ``test``, ``package`` or ``archived``.
    """

    path: str
    lines: int
    classes: tuple[str, ...]
    role: Role
    importers: tuple[str, ...]
    notebooks: tuple[str, ...]
    configs: tuple[str, ...]
    status: ModuleStatus


@dataclass(frozen=True)
class CodeInventory:
    """All modules by path, the native ones, and what could not be read."""

    modules: tuple[Entry, ...]
    native: tuple[NativeModule, ...]
    notebooks: tuple[str, ...]
    notes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """How many modules have each status."""
        return dict(sorted(Counter(entry.status for entry in self.modules).items()))

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``."""
        native = [asdict(module) | {"status": module.status} for module in self.native]
        return {"counts": self.counts()} | asdict(self) | {"native": native}


def take_inventory(root: Path) -> CodeInventory:
    """The modules below ``root``; nothing is imported or run."""
    tree = read_code(root)
    uses = find_uses(tree)
    report = judge(tree, uses)
    verdicts: dict[str, Status] = {v.path: v.status for group in report.groups for v in group.variants}
    by_module: dict[str, list[Use]] = {}
    for use in uses:
        by_module.setdefault(use.module, []).append(use)
    entries = []
    for path, module in sorted(tree.modules.items()):
        found = by_module.get(path, [])
        files = sorted({use.file for use in found if use.kind != "config"})
        notebooks = tuple(file for file in files if file in set(tree.notebooks))
        configs = tuple(sorted({use.file for use in found if use.kind == "config"}))
        status = verdicts.get(path) or _status(module.role, bool(files or configs))
        entries.append(Entry(path, module.lines, module.classes, module.role, tuple(files), notebooks, configs, status))
    return CodeInventory(tuple(entries), tuple(find_native(tree)), tuple(tree.notebooks), tuple(tree.notes))


def _status(role: Role, used: bool) -> ModuleStatus:
    if role == "archived":
        return "archived"
    if role == "test":
        return "test"
    if role == "package":
        return "package"
    if role in ("entry point", "training") and not used:
        return "entry point"
    return "in use" if used else "unused"
