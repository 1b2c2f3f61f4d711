"""What ``holdfast.yaml`` says under ``workspace:``, and the patterns of ``gc plan --accept``."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.inventory.config import read_config
from holdfast.inventory.tree import Excludes
from holdfast.repo.workspace import find_config


@dataclass(frozen=True)
class WorkspaceRules:
    """What people decided for good; patterns are those of ``.gitignore``, seen from the folder of ``holdfast.yaml``.

    Attributes:
        remove: what goes where nothing needs it.
        keep: what never goes; it is stronger than anything else.
        folder: of ``holdfast.yaml``, from the git root; empty for the root.
    """

    remove: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    folder: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of what they say."""
        return hashlib.sha256(json.dumps([self.remove, self.keep, self.folder]).encode()).hexdigest()


class Patterns:
    """Patterns of paths, and a memory of which of them named something.

    Args:
        patterns: in the form of ``.gitignore``.
        folder: from which they are seen, itself seen from where labels are.

    Raises:
        UsageError: git would not take a pattern.
    """

    def __init__(self, patterns: Sequence[str], folder: str = "") -> None:
        self._prefix = f"{folder}/" if folder else ""
        self._all = Excludes(tuple(patterns))
        self._single = [(pattern, Excludes((pattern,))) for pattern in patterns]
        self._used: set[str] = set()

    def names(self, label: str) -> bool:
        """Whether the patterns name a file."""
        return self._matches(label, label.removeprefix(self._prefix))

    def names_folder(self, label: str) -> bool:
        """Whether they name a folder itself."""
        return self._matches(label, f"{label.removeprefix(self._prefix)}/")

    @property
    def unused(self) -> list[str]:
        """The patterns that named nothing so far."""
        return [pattern for pattern, _ in self._single if pattern not in self._used]

    def _matches(self, label: str, inside: str) -> bool:
        if not label.startswith(self._prefix) or not self._all.file(inside):
            return False
        self._used.update(pattern for pattern, spec in self._single if spec.file(inside))
        return True


def read_workspace_rules(folder: Path, git_root: Path) -> WorkspaceRules:
    """The section ``workspace`` of the ``holdfast.yaml`` that counts for ``folder``.

    Raises:
        holdfast.inventory.config.ConfigError: it says something that Holdfast does not know.
        UsageError: a pattern is none.
        OSError: it cannot be read.
    """
    path = find_config(folder)
    if path is None:
        return WorkspaceRules()
    section = read_config(path).section("workspace")
    place = path.parent.resolve().relative_to(git_root.resolve()).as_posix()
    rules = WorkspaceRules(section.texts("remove", ()), section.texts("keep", ()), "" if place == "." else place)
    section.close()
    for patterns in (rules.remove, rules.keep):
        Excludes(patterns)  # a wrong one is told now, whatever lies there
    return rules
