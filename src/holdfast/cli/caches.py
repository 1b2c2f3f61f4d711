"""Where what can be found out again is kept: in the DVC project, else in the user's cache folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where they are made: the commands of the vault need the folder alone, and start sooner
    from holdfast.formats.cache import DigestCache
    from holdfast.inventory.ref_memory import ReferenceMemory

PROJECT_PLACE = Path(".dvc") / "tmp" / "holdfast"


def digest_cache(start: Path) -> "DigestCache":
    """The cache of digests: that of the DVC project around ``start``, else the user's."""
    from holdfast.formats.cache import DigestCache

    return DigestCache(_place(start) / "digests.sqlite")


def reference_memory(start: Path) -> "ReferenceMemory":
    """What is known of the sources of the DVC project around ``start``, else of the user's."""
    from holdfast.inventory.ref_memory import ReferenceMemory

    return ReferenceMemory(_place(start) / "references.sqlite")


def cache_folder(start: Path) -> Path:
    """The folder for what a vault's index and unfinished pushes leave on this machine."""
    return _place(start) / "vaults"


def _place(start: Path) -> Path:
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / ".dvc").is_dir():
            return folder / PROJECT_PLACE
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "holdfast"
